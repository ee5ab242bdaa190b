//! docs/performance.md and its pictures: of the raw values under docs/performance, and of the notes there
//! that say why a goal is missed and what was tried.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::figures::{FIGURES, Value};
use crate::harness::root;
use crate::makes::Make;
use crate::plot;
use crate::statistics::{Interval, Verdict, seen, short, verdicts};

fn folder() -> PathBuf {
    root().join("docs/performance")
}

/// Copies the values of the last run, and makes page and pictures of what is kept.
pub fn keep_and_write() {
    std::fs::create_dir_all(folder()).expect("a folder");
    for name in ["values.jsonl", "machine.txt", "counts.txt"] {
        let fresh = root().join("target/bench").join(name);
        if fresh.exists() {
            std::fs::copy(fresh, folder().join(name)).expect("kept");
        }
    }
    let values = values();
    for figure in FIGURES.iter().filter(|f| seen(&values, f.name, Make::Pskgate).is_some()) {
        plot::draw(figure, &values, &folder().join(format!("{}.svg", figure.name)));
    }
    std::fs::write(page_path(), page(&values)).expect("written");
}

/// Fails if the page is not what its sources say.
pub fn check() {
    let page = page(&values());
    let written = std::fs::read_to_string(page_path()).expect("docs/performance.md");
    assert!(page == written, "docs/performance.md is not of its sources: scripts/bench --report");
}

fn page_path() -> PathBuf {
    root().join("docs/performance.md")
}

fn values() -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("values.jsonl")).expect("values are kept");
    text.lines().map(|line| serde_json::from_str(line).expect("a value")).collect()
}

fn kept(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_default()
}

fn page(values: &[Value]) -> String {
    let mut page = String::from(
        "# Speed and footprint\n\n\
         Made by `scripts/bench --report` of the raw values in `docs/performance/`, never by hand; the last two\n\
         parts are `docs/performance/notes.md` as it stands. `scripts/bench` measures anew: pskgate (a client end\n\
         and a server end), Debian's stunnel4 with its defaults and the same key file, and HAProxy in TCP mode\n\
         over two hops without TLS, which is what any relay can reach. All three take turns in one run, on\n\
         loopback, one of each a round; figures are of both ends together. A goal is met when the worse end of\n\
         the 95 % interval meets it: of the ratios round by round (their geometric mean), or of the values.\n\n",
    );
    page += &kept("machine.txt").replace(" on, ", ", ");
    page += "\n## At a glance\n\n| figure | unit | pskgate | stunnel4 | plain relay | goal | seen, and its interval | met |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    for figure in FIGURES {
        let of = |make| seen(values, figure.name, make);
        let Some(_) = of(Make::Pskgate) else { continue };
        let cell = |make| {
            of(make).map_or("-".to_owned(), |seen| {
                format!("{} ({} to {})", short(seen.median), short(seen.least), short(seen.most))
            })
        };
        let verdicts = verdicts(values, figure);
        let join = |cells: Vec<String>| cells.join("<br>");
        let goal = join(verdicts.iter().map(|v| v.goal.clone()).collect());
        let intervals = verdicts.iter().map(|Verdict { interval, .. }| {
            let Interval { middle, low, high } = interval;
            format!("{} [{}, {}]", short(*middle), short(*low), short(*high))
        });
        let met = verdicts.iter().map(|v| if v.met { "yes" } else { "**no**" }.to_owned());
        let _ = writeln!(
            page,
            "| [{}](#{}) | {} | {} | {} | {} | {goal} | {} | {} |",
            figure.title,
            figure.name,
            figure.unit,
            cell(Make::Pskgate),
            cell(Make::Stunnel4),
            cell(Make::Plain),
            join(intervals.collect()),
            join(met.collect())
        );
    }
    page += "\nMedians, and in brackets the least and the most of the rounds.\n\n## Pictures\n\nEvery round a dot, the median a bar, the goal a dashed line.\n";
    for figure in FIGURES.iter().filter(|f| seen(values, f.name, Make::Pskgate).is_some()) {
        let _ = write!(
            page,
            "\n<a id=\"{0}\"></a>\n![{1}](performance/{0}.svg)\n",
            figure.name, figure.title
        );
    }
    page += "\n";
    page += &kept("counts.txt");
    page += "\n";
    page += &kept("notes.md");
    page
}
