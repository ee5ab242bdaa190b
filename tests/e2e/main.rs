//! End to end: every system that Beremiz and its neighbours reach a PLC by, with its own server and its
//! own client, through both ends of pskgate, and through stunnel4 and directly beside them; and what a
//! fragile runtime asks of a tunnel, in many tries.
//!
//! `scripts/e2e` runs it. A subject that does not do what it must is a failure; round trips per second
//! are printed and kept in target/e2e. `--report` makes the tables of docs/beremiz-tests.md of what was kept.
// What the other tests need of the harness is not all needed here.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]
#![allow(dead_code, unused_imports)]

#[path = "../faults/ends.rs"]
mod ends;
#[path = "../faults/figure.rs"]
mod figure;
#[path = "../it/harness/mod.rs"]
mod harness;
#[path = "../faults/line.rs"]
mod line;
#[path = "../faults/results.rs"]
mod results;

mod erpc;
mod fleet;
mod peers;
mod plant;
mod rates;
mod report;
mod requirements;
mod runtimes;
mod trips;
mod wamp;
mod ways;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use ends::Maker;
use figure::Figure;
use report::Line;
use results::{Measure, Size};
use trips::Trips;

/// A way to reach a PLC, or to run many of them.
pub struct Connector {
    pub name: &'static str,
    pub about: &'static str,
    /// Fails when anything is not as it must be; returns what was measured.
    pub run: fn(Size) -> Vec<Trips>,
}

/// What a fragile runtime asks of a tunnel.
pub struct Requirement {
    pub id: &'static str,
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(Maker, Size) -> Vec<Measure>,
}

fn connectors() -> impl Iterator<Item = &'static Connector> {
    [runtimes::CONNECTORS, wamp::CONNECTORS, plant::CONNECTORS, fleet::CONNECTORS]
        .into_iter()
        .flatten()
}

/// Whether it ran to its end.
fn connect(connector: &Connector, size: Size) -> bool {
    let Ok(rows) = catch_unwind(AssertUnwindSafe(|| (connector.run)(size))) else {
        println!("  FAILED");
        return false;
    };
    for row in &rows {
        println!("  ok   {row}");
    }
    if rows.is_empty() {
        println!("  ok");
    } else {
        keep(size, connector.name, rows.into_iter().map(Line::Trips));
    }
    true
}

/// How many bars were missed.
fn require(requirement: &Requirement, size: Size) -> usize {
    let attempt = |maker| catch_unwind(AssertUnwindSafe(|| (requirement.run)(maker, size))).ok();
    // stunnel4 doubles the time, and its figures are for the report.
    let theirs = (size == Size::Full).then(|| attempt(Maker::Stunnel));
    let Some(ours) = attempt(Maker::Pskgate) else {
        println!("  FAILED");
        return 1;
    };
    let figures: Vec<Figure> = ours
        .iter()
        .map(|one| results::figure(requirement.id, requirement.about, one, theirs.as_ref()))
        .collect();
    figures.iter().for_each(|figure| println!("  {figure}"));
    let missed = figures.iter().filter(|figure| !figure.is_met()).count();
    let name = format!("{}-{}", requirement.id, requirement.name);
    keep(size, &name, figures.into_iter().map(Line::Figure));
    missed
}

fn keep(size: Size, name: &str, lines: impl Iterator<Item = Line>) {
    let folder = size.pick("target/e2e/results/quick", "target/e2e/results");
    report::write(&harness::root().join(folder), name, results::machine(), lines);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|word| word == flag);
    if has("--report") {
        report::keep_and_write();
        return;
    }
    let names: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    if has("--list") {
        connectors().for_each(|one| println!("   {:<20} {}", one.name, one.about));
        requirements::ALL
            .iter()
            .for_each(|one| println!("{} {:<20} {}", one.id, one.name, one.about));
        return;
    }
    let size = if has("--all") { Size::Full } else { Size::Quick };
    let chosen =
        |all: &[&str]| names.is_empty() || names.iter().any(|name| all.contains(&name.as_str()));
    for name in &names {
        let known = connectors().any(|one| one.name == **name)
            || requirements::ALL.iter().any(|one| one.name == **name || one.id == **name);
        assert!(known, "nothing is named {name}: see --list");
    }
    let start = Instant::now();
    let (mut passed, mut failed) = (0, 0);
    let mut count = |good: bool| if good { passed += 1 } else { failed += 1 };
    for one in connectors().filter(|one| chosen(&[one.name])) {
        println!("{}: {} ({:.0} s)", one.name, one.about, start.elapsed().as_secs_f64());
        count(connect(one, size));
    }
    for one in requirements::ALL.iter().filter(|one| chosen(&[one.name, one.id])) {
        println!("{} {} ({:.0} s)", one.id, one.about, start.elapsed().as_secs_f64());
        count(require(one, size) == 0);
    }
    println!("{:.0} s", start.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}
