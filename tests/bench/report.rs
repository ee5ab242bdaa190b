//! docs/performance.md and its pictures: of the raw values under docs/performance, and of the notes there
//! that say why a goal is missed and what was tried.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::figures::{FIGURES, Goal, Value};
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

/// What a figure is called for a user, and why pskgate is ahead or behind.
const REASONS: &[(&str, &str, &str)] = &[
    ("bulk-up", "transfer rate, from the client", BATCHES),
    ("bulk-down", "transfer rate, to the client", BATCHES),
    ("cpu-per-gb-up", "processor time per GB, from the client", BATCHES),
    ("cpu-per-gb-down", "processor time per GB, to the client", BATCHES),
    ("connections", "new connections per second", HANDSHAKE),
    ("cpu-per-connection", "processor time per new connection", HANDSHAKE),
    ("poll", "connect, one request, close (Modbus)", HANDSHAKE),
    (
        "round-trips-32",
        "requests per second, 32 sessions at once",
        "one thread serves all sessions; stunnel4 has a thread for each session",
    ),
    ("round-trip-p50", "one request, median", "both are limited by the kernel"),
    ("round-trip-p99", "one request, 99th percentile", "both are limited by the kernel"),
    (
        "round-trip-beside",
        "one request during a transfer of another session, 99th percentile",
        "a session waits for the other session's batch of records; stunnel4 has a thread for each session",
    ),
    ("start", "time to start", "both read and check everything before they listen"),
    (
        "memory-start",
        "memory at start",
        "unused pages are returned to the system; the present build has 4.6 MB (see below)",
    ),
    ("memory-idle", "memory per idle session", "there is no thread for each session"),
    ("memory-after", "memory kept after 9,000 sessions", "freed memory is returned to the system"),
    ("held", "sessions in one process", "a session needs two descriptors and no thread"),
];
const BATCHES: &str = "records are sent and received in batches";
const HANDSHAKE: &str = "no ticket, no session cache, no thread for each connection; most of the rest is OpenSSL's key exchange";

/// By how much pskgate is ahead of stunnel4 or behind, figure by figure.
fn compared(values: &[Value]) -> String {
    // Less than this is no difference on the machine that measured.
    const NOISE: f64 = 1.05;
    let mut table =
        "| figure | pskgate | stunnel4 | pskgate is | why |\n| --- | --- | --- | --- | --- |\n"
            .to_owned();
    for (name, title, why) in REASONS {
        let Some(figure) = FIGURES.iter().find(|figure| figure.name == *name) else { continue };
        let of = |make| seen(values, name, make);
        let (Some(ours), Some(theirs)) = (of(Make::Pskgate), of(Make::Stunnel4)) else { continue };
        let is_rate = matches!(figure.goal(Make::Pskgate), Goal::Above(_) | Goal::AtLeast(_));
        let ratio = if is_rate { ours.median / theirs.median } else { theirs.median / ours.median };
        let standing = match ratio {
            ratio if ratio > NOISE => format!("ahead {} x", short(ratio)),
            ratio if ratio < 1.0 / NOISE => format!("**behind {} x**", short(1.0 / ratio)),
            _ => "equal".to_owned(),
        };
        let unit = figure.unit;
        let cell = |value| format!("{} {unit}", short(value)).trim_end().to_owned();
        let _ = writeln!(
            table,
            "| {title} | {} | {} | {standing} | {why} |",
            cell(ours.median),
            cell(theirs.median)
        );
    }
    table
}

fn page(values: &[Value]) -> String {
    let mut page = String::from("# Performance\n\n");
    page += &kept("opening.md");
    page += "\n## Compared with stunnel4\n\n";
    page += &compared(values);
    page += "\n## How it was measured\n\n\
             `scripts/bench` runs pskgate (a client end and a server end), Debian's stunnel4 with its defaults and the\n\
             same key file, and HAProxy in TCP mode over two hops without TLS, as a plain relay. They take turns in\n\
             one run on loopback; a figure is that of both ends together. Raw values are in `docs/performance/`, and\n\
             `scripts/bench --report` writes this page.\n\n";
    page += &kept("machine.txt").replace("Seen on ", "Measured on ").replace(" on, ", ", ");
    page += "\n## Goals\n\n\
             A goal is met if the worse end of the 95 % interval meets it: of the ratios of all rounds (their geometric\n\
             mean), or of the values. The section [Where the time goes](#where-the-time-goes) has the reasons of goals\n\
             that are missed.\n\n\
             ";
    // A column that was not measured is left out.
    let columns: Vec<Make> = (Make::COLUMNS.into_iter())
        .filter(|make| values.iter().any(|value| value.make == *make))
        .collect();
    let _ = writeln!(
        page,
        "| figure | unit |{} goal | measured, and its interval | met |",
        columns.iter().map(|make| format!(" {} |", make.title())).collect::<String>()
    );
    let _ = writeln!(page, "| --- | --- |{} --- | --- | --- |", " --- |".repeat(columns.len()));
    for figure in FIGURES {
        let of = |make| seen(values, figure.name, make);
        let Some(_) = of(Make::Pskgate) else { continue };
        let cell = |make| {
            of(make).map_or("-".to_owned(), |seen| {
                format!("{} ({} to {})", short(seen.median), short(seen.least), short(seen.most))
            })
        };
        let verdicts: Vec<(Make, Verdict)> = (Make::OWN.into_iter())
            .flat_map(|make| verdicts(values, figure, make).into_iter().map(move |v| (make, v)))
            .collect();
        let join = |cells: Vec<String>| cells.join("<br>");
        let whose = |make: Make| match make {
            Make::Pskgate => String::new(),
            other => format!("{}: ", other.name()),
        };
        let goal = join(verdicts.iter().map(|(make, v)| whose(*make) + &v.goal).collect());
        let intervals = verdicts.iter().map(|(_, Verdict { interval, .. })| {
            let Interval { middle, low, high } = interval;
            format!("{} [{}, {}]", short(*middle), short(*low), short(*high))
        });
        let met = verdicts.iter().map(|(_, v)| if v.met { "yes" } else { "**no**" }.to_owned());
        let _ = writeln!(
            page,
            "| [{}](#{}) | {} |{} {goal} | {} | {} |",
            figure.title,
            figure.name,
            figure.unit,
            columns.iter().map(|make| format!(" {} |", cell(*make))).collect::<String>(),
            join(intervals.collect()),
            join(met.collect())
        );
    }
    page += "\nThe values are medians, with the smallest and the largest of all rounds in parentheses.\n\n## Charts\n\nEach round is a dot, the median a bar, the goal a dashed line.\n";
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
