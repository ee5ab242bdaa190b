//! Instructions under callgrind: no clock's noise, so that a test can hold on to them.
//!
//! What one handshake more and one MB more cost an end is the difference of two runs. Counts of the
//! program's own code are compared with those kept in `counts.json`; those of OpenSSL and libc differ from one
//! of their versions to the next, and are only told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::harness::root;
use crate::load::{self, Backend};
use crate::makes::{Make, Pair, Wishes};

/// By how much the program's own count may grow before it is a mistake. Two runs of one binary differ by
/// up to 3 %: what the system hands over in how many pieces is not the same each time.
const TOLERANCE: f64 = 0.10;
const MB: u64 = 1024 * 1024;

/// Thousands of instructions, by whose code it is.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Count {
    own: f64,
    openssl: f64,
    libc: f64,
}

impl Count {
    fn all(self) -> f64 {
        self.own + self.openssl + self.libc
    }
}

type Counts = BTreeMap<String, Count>;

/// Prints what is counted, and fails if the program's own part has grown; or keeps it, beside stunnel4's.
pub fn check(keep: bool) {
    let kept_at = root().join("tests/bench/counts.json");
    let counts = measure_both_dialects();
    std::fs::create_dir_all(root().join("target/bench")).expect("a folder");
    if keep {
        let page = page(&counts, &measure(Make::Stunnel4));
        std::fs::write(root().join("target/bench/counts.txt"), &page).expect("kept");
        println!("{page}");
        let text = serde_json::to_string_pretty(&counts).expect("JSON") + "\n";
        std::fs::write(kept_at, text).expect("kept");
        return;
    }
    let text = std::fs::read_to_string(kept_at).expect("counts are kept");
    let kept: Counts = serde_json::from_str(&text).expect("counts");
    let mut grown = 0;
    for (what, now) in &counts {
        let before = kept.get(what).unwrap_or_else(|| panic!("nothing is kept of: {what}"));
        let ratio = now.own / before.own;
        assert!(
            ratio > 0.5,
            "{what}: own code is half of what is kept, or was not told from libc's"
        );
        let mark = if ratio > 1.0 + TOLERANCE { "GROWN" } else { "ok   " };
        grown += usize::from(ratio > 1.0 + TOLERANCE);
        println!("{mark} {what}: own code {:.0}, kept {:.0} ({ratio:.3})", now.own, before.own);
    }
    assert!(
        grown == 0,
        "more instructions than are kept, by more than {:.0} %: find out why, or keep the new counts with \
         scripts/bench --counts --keep",
        TOLERANCE * 100.0
    );
}

/// What is appended to a row of the other dialect.
const STUNNEL_CONF: &str = ", stunnel.conf";

fn measure_both_dialects() -> Counts {
    let mut counts = measure(Make::Pskgate);
    let others = measure(Make::PskgateConf).into_iter();
    counts.extend(others.map(|(what, count)| (what + STUNNEL_CONF, count)));
    counts
}

fn measure(make: Make) -> Counts {
    let backend = Backend::start(&[], "127.0.0.1:0");
    let mut counts = Counts::new();
    for (place, end) in ["server end", "client end"].into_iter().enumerate() {
        let handshakes = difference(make, place, &backend, [20, 120], |to, n| {
            let (done, _) = load::some_connections(to, usize::try_from(n).expect("a few"));
            assert_eq!(done, n);
        });
        counts.insert(format!("a handshake and one byte each way, {end}"), handshakes);
        let up = difference(make, place, &backend, [4, 20], |to, n| {
            load::upload(to, n * MB);
        });
        counts.insert(format!("1 MB from the client, {end}"), up);
        let down = difference(make, place, &backend, [4, 20], |to, n| {
            load::download(to, n * MB);
        });
        counts.insert(format!("1 MB to the client, {end}"), down);
        let round_trips = difference(make, place, &backend, [100, 1100], |to, n| {
            load::some_round_trips(to, n);
        });
        counts.insert(format!("a round trip of 100 bytes, {end}"), round_trips);
    }
    counts
}

/// What one more costs.
fn difference(
    make: Make,
    place: usize,
    backend: &Backend,
    [few, many]: [u64; 2],
    run: impl Fn(std::net::SocketAddr, u64),
) -> Count {
    let [less, more] = [few, many].map(|n| counted(make, place, backend, |to| run(to, n)));
    let one = |of: fn(Count) -> f64| (of(more) - of(less)) / (many - few) as f64;
    Count { own: one(|c| c.own), openssl: one(|c| c.openssl), libc: one(|c| c.libc) }
}

fn counted(
    make: Make,
    place: usize,
    backend: &Backend,
    run: impl FnOnce(std::net::SocketAddr),
) -> Count {
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("counts");
    let option = format!("--callgrind-out-file={}", file.display());
    let words = ["valgrind", "--tool=callgrind", "-q", option.as_str()];
    let mut through: [&[&str]; 2] = [&[], &[]];
    through[place] = &words;
    let pair = Pair::with(make, backend.address, &Wishes { through, ..Wishes::default() });
    run(pair.plain);
    pair.stop();
    sum(&file)
}

/// Adds up callgrind's file: each cost line after the object that it belongs to, and not those of calls,
/// which are counted where they lead.
fn sum(file: &Path) -> Count {
    let text = std::fs::read_to_string(file).expect("callgrind's counts: install valgrind");
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut at, mut called, mut count) = ("", false, Count::default());
    for line in text.lines() {
        if let Some(object) = line.strip_prefix("ob=").or_else(|| line.strip_prefix("cob=")) {
            let (number, name) = object.split_once(' ').unwrap_or((object, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            if line.starts_with("ob=") {
                at = names.get(number).copied().unwrap_or_default();
            }
        } else if line.starts_with("calls=") {
            called = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<f64>().ok());
            if !std::mem::take(&mut called) {
                let to = match at {
                    name if name.contains("libcrypto") || name.contains("libssl") => {
                        &mut count.openssl
                    }
                    name if name.contains("pskgate") || name.contains("stunnel") => &mut count.own,
                    _ => &mut count.libc,
                };
                *to += cost.unwrap_or(0.0) / 1000.0;
            }
        }
    }
    count
}

fn page(counts: &Counts, theirs: &Counts) -> String {
    let mut page = String::from(
        "## Instructions\n\nThousands of instructions in user space, counted by callgrind, which counts each byte of a block that is\n\
         copied. `scripts/bench --counts` counts anew, and fails when the program's own code needs over 10 % more\n\
         than is kept in `tests/bench/counts.json`; CI runs it.\n\n\
         | what | own code | OpenSSL | libc | together | stunnel4: own code | OpenSSL | libc | together |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (what, count) in counts {
        let _ = write!(page, "| {what} |");
        for count in [count, &theirs[what.trim_end_matches(STUNNEL_CONF)]] {
            let Count { own, openssl, libc } = count;
            let _ = write!(page, " {own:.0} | {openssl:.0} | {libc:.0} | {:.0} |", count.all());
        }
        page.push('\n');
    }
    page
}
