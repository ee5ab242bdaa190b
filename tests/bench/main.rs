//! How fast and how small: pskgate, stunnel4 and a plain relay in one run, interleaved.
//!
//! `scripts/bench` runs it. Raw values go to target/bench; `--report` makes docs/performance.md and its
//! pictures of what was kept in docs/performance. Nothing here is a test of anything but speed: a figure
//! that misses its goal is told, not failed.
// What the other tests need of the harness is not all needed here.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]
#![allow(dead_code, unused_imports)]

#[path = "../it/harness/mod.rs"]
mod harness;

#[path = "../faults/line.rs"]
mod line;

mod counts;
mod far;
mod figures;
mod load;
mod machine;
mod makes;
mod plot;
mod report;
mod statistics;

use std::io::Write as _;

use figures::{FIGURES, Value};
use load::Backend;
use makes::Make;

struct Options {
    rounds: usize,
    crowds: usize,
    only: Vec<String>,
    makes: Vec<Make>,
    threads: String,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only.as_str()))
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let mut options =
        Options { rounds: 9, crowds: 3, only: Vec::new(), makes: Make::all(), threads: "1".into() };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--ask" => return far::ask(&words.next().expect("an address")),
            "--report" => return report::keep_and_write(),
            "--counts" => {
                let keep = words.next().as_deref() == Some("--keep");
                if !keep {
                    report::check();
                }
                return counts::check(keep);
            }
            "--backend" => return load::be_the_backend(&words.next().expect("an address")),
            "--rounds" => {
                options.rounds = words.next().and_then(|n| n.parse().ok()).expect("a number");
                options.crowds = options.crowds.min(options.rounds);
            }
            "--threads" => options.threads = words.next().expect("a number"),
            "--own" => options.makes.retain(|make| make.is_own()),
            name => {
                assert!(
                    FIGURES.iter().any(|f| f.name.starts_with(name)),
                    "no figure is named {name}"
                );
                options.only.push(name.to_owned());
            }
        }
    }
    machine::try_warning();
    more_descriptors();
    let mut watch = machine::Watch::start();
    let values = measure(&options, &mut watch);
    statistics::print(&values);
    keep(&values, &watch.words());
}

/// The callers of thousands of sessions need as many.
fn more_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the limit of descriptors is raised");
}

fn measure(options: &Options, watch: &mut machine::Watch) -> Vec<Value> {
    let backend = Backend::start(&[], "127.0.0.1:0");
    let mut values = Vec::new();
    makes::set_threads(&options.threads);
    let wanted = |name: &str| options.wants(name);
    for round in 0..options.rounds {
        watch.look();
        // Nobody is always first: what the machine does meanwhile meets each in turn.
        for place in 0..options.makes.len() {
            let make = options.makes[(place + round) % options.makes.len()];
            eprint!("\rround {} of {}, {:<12}", round + 1, options.rounds, make.name());
            let _ = std::io::stderr().flush();
            let mut see = |name: &str, value: f64| {
                values.push(Value { figure: name.to_owned(), make, round, value });
            };
            figures::round(make, &backend, &wanted, &mut see);
            if round < options.crowds && make != Make::Plain {
                figures::crowd(make, &backend, &wanted, &mut see);
                if wanted("first-answer") {
                    see("first-answer", far::first_answer(make));
                }
                if make == Make::Pskgate && wanted("many") {
                    figures::many(make, &backend, &mut see);
                }
            }
        }
    }
    eprintln!();
    values.retain(|value| wanted(&value.figure));
    values
}

fn keep(values: &[Value], busy: &str) {
    let folder = harness::root().join("target/bench");
    std::fs::create_dir_all(&folder).expect("a folder for the values");
    // A run of some figures leaves what is known of the others.
    let file = folder.join("values.jsonl");
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    let kept = before.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let kept = kept.filter(|old| values.iter().all(|new| new.figure != old.figure));
    let lines = kept.chain(values.iter().cloned());
    let lines = lines.map(|value| serde_json::to_string(&value).expect("JSON") + "\n");
    let text: String = lines.collect();
    std::fs::write(file, text).expect("kept");
    let machine = machine::description() + busy;
    std::fs::write(folder.join("machine.txt"), machine).expect("kept");
}
