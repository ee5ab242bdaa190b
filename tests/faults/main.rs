//! Faults: what goes wrong in a plant network and on a machine, done to the program on purpose, and to
//! stunnel4 beside it where it can be driven through the same.
//!
//! `scripts/faults` runs it. Each figure is printed beside its bar and kept in target/faults; a bar that
//! is missed is a failure. `--report` makes docs/reliability.md of what was kept.
// What the other tests need of the harness is not all needed here.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]
#![allow(dead_code, unused_imports)]

#[path = "../it/harness/mod.rs"]
mod harness;

mod backends;
mod byte_relay;
mod clients;
mod clock;
mod costs;
mod crowds;
mod dead;
mod delayed_line;
mod echo_backend;
mod ends;
mod figure;
mod floods;
mod fuzzed;
mod garbage;
mod herds;
mod key_updates;
mod killed;
mod limits;
mod line;
mod logs;
mod lookups;
mod memory_limit;
mod offers;
mod reload;
mod report;
mod results;
mod revocation;
mod shortage;
mod slow;
mod stop;
mod strangers;
mod tested;
mod upkeep;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use ends::Maker;
use figure::{Bar, Figure};
use results::{Measure, Size};

/// One thing that goes wrong.
pub struct Fault {
    /// The requirement that it is about.
    pub id: &'static str,
    /// Its name, also that of the file of its results.
    pub name: &'static str,
    pub about: &'static str,
    /// Whether it belongs to the quick half.
    pub quick: bool,
    /// Whether stunnel4 can be driven through it.
    pub stunnel: bool,
    pub run: fn(Maker, Size) -> Vec<Measure>,
}

fn faults() -> impl Iterator<Item = &'static Fault> {
    [
        crowds::FAULTS,
        shortage::FAULTS,
        dead::FAULTS,
        reload::FAULTS,
        revocation::FAULTS,
        slow::FAULTS,
        key_updates::FAULTS,
        killed::FAULTS,
        offers::FAULTS,
        backends::FAULTS,
        garbage::FAULTS,
        logs::FAULTS,
        lookups::FAULTS,
        stop::FAULTS,
        clock::FAULTS,
        herds::FAULTS,
        floods::FAULTS,
        limits::FAULTS,
        costs::FAULTS,
        upkeep::FAULTS,
    ]
    .into_iter()
    .flatten()
}

/// What scripts/test has time for: the faults that take seconds, and no crowd.
const BRIEF: &[&str] = &[
    "flood",
    "one-at-its-limit",
    "one-key-takes-all",
    "silent-name-server",
    "descriptors",
    "econnaborted",
    "frozen-line",
    "bad-line",
    "reloads",
    "revoked-beside-busy-ports",
    "revoked-beside-a-full-queue",
    "slow-readers",
    "client-end-killed",
    "server-end-killed",
    "backend-killed",
    "backend-refuses",
    "backend-silent",
    "backend-never-reads",
    "backend-dies-in-its-answer",
    "cut-hello",
    "spoiled-hello",
    "other-protocols",
    "zeros",
    "connect-and-close",
    "dev-full",
    "sigterm-in-a-transfer",
    "second-sigterm",
];

fn run(fault: &Fault, size: Size) -> Vec<Figure> {
    let attempt = |maker| catch_unwind(AssertUnwindSafe(|| (fault.run)(maker, size))).ok();
    // stunnel4 doubles the time, and its figures are for the report.
    let theirs = (fault.stunnel && size == Size::Full).then(|| attempt(Maker::Stunnel));
    let broken = || vec![results::measure("runs to its end", "", Bar::Exactly(1.0), 0.0)];
    let ours = attempt(Maker::Pskgate).unwrap_or_else(broken);
    let figure = |one| results::figure(fault.id, fault.about, one, theirs.as_ref());
    ours.iter().map(figure).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--report") {
        report::keep_and_write();
        return;
    }
    let all = arguments.iter().any(|word| word == "--all");
    let size = if all { Size::Full } else { Size::Quick };
    let brief = arguments.iter().any(|word| word == "--brief");
    for name in BRIEF {
        assert!(faults().any(|one| one.name == *name), "no fault is named {name}");
    }
    let names: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    if arguments.iter().any(|word| word == "--list") {
        faults().for_each(|fault| println!("{:<4} {:<24} {}", fault.id, fault.name, fault.about));
        return;
    }
    for name in &names {
        assert!(
            faults().any(|one| one.name == **name || one.id == **name),
            "no fault is named {name}"
        );
    }
    more_descriptors();
    let start = Instant::now();
    let mut missed = 0;
    for fault in faults() {
        let chosen = match names.is_empty() {
            true if brief => BRIEF.contains(&fault.name),
            true => all || fault.quick,
            false => names.iter().any(|name| **name == fault.name || **name == fault.id),
        };
        if !chosen {
            continue;
        }
        println!("{} {} ({:.0} s)", fault.id, fault.about, start.elapsed().as_secs_f64());
        let begun = Instant::now();
        let figures = run(fault, size);
        for figure in &figures {
            missed += usize::from(!figure.is_met());
            println!("  {figure}");
        }
        println!("       {} took {:.1} s", fault.name, begun.elapsed().as_secs_f64());
        results::write(&results::folder(size), &format!("{}-{}", fault.id, fault.name), &figures);
    }
    println!("{:.0} s, {missed} missed", start.elapsed().as_secs_f64());
    std::process::exit(i32::from(missed > 0));
}

/// Crowds are held by this process.
fn more_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as many descriptors as are allowed");
}
