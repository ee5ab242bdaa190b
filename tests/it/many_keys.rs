//! Very many identities: what is remarked on each of them costs time that grows with their number alone.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::harness::process::pskgate;
use crate::harness::{PskgateBuilder, WAIT_TIMEOUT, server_toml};

const MANY: usize = 100_000;
const FEW: usize = 10_000;

/// Keys of 16 characters are remarked on, those of 32 are not. Neither looks like hexadecimal digits.
fn keys(number: usize, width: usize) -> String {
    (0..number).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "plc-{n:06}:zyxw{n:0>0$}", width - 4);
        text
    })
}

/// How long `check` takes, the best of three times.
fn check(gate: &PskgateBuilder, remarked: bool) -> Duration {
    let once = || {
        let start = Instant::now();
        let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
        assert_eq!(done.code, Some(0), "{}", done.out);
        assert_eq!(done.err.contains("weak-key"), remarked);
        assert!(!done.err.contains("warning"));
        start.elapsed()
    };
    (0..3).map(|_| once()).min().expect("three")
}

#[test]
fn very_many_lines_are_imported_in_a_time_in_proportion_and_a_twin_among_them_is_found() {
    let gate = PskgateBuilder::new().toml(&server_toml("127.0.0.1:9", ""));
    let import = |number| {
        let file = format!("{number}.txt");
        std::fs::write(gate.folder().join(&file), keys(number, 32)).unwrap();
        std::fs::write(gate.folder().join("psk.txt"), "other:zyxw0123456789zyxw0123456789zyxw\n")
            .unwrap();
        let start = Instant::now();
        let done = pskgate(gate.folder(), &["keys", "import", &file, "pskgate.toml"]);
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert_eq!(done.err.matches("added ").count(), number);
        start.elapsed().as_secs_f64()
    };
    let (few, many) = (import(FEW), import(MANY));
    assert!(many < 40.0 * few, "{many} s for ten times as many as in {few} s");
    let last = keys(MANY, 32).lines().last().unwrap_or_default().to_owned();
    std::fs::write(gate.folder().join("twin.txt"), last + "\n").unwrap();
    let done = pskgate(gate.folder(), &["keys", "import", "twin.txt", "pskgate.toml"]);
    assert!(done.err.contains("stands on line 100001"), "{}", done.err);
}

fn gate(number: usize, width: usize) -> PskgateBuilder {
    PskgateBuilder::new()
        .file("psk.txt", &keys(number, width))
        .toml(&server_toml("127.0.0.1:9", ""))
}

#[test]
fn a_remark_on_each_of_very_many_identities_takes_time_in_proportion() {
    let ratio = |width| {
        let check = |number| check(&gate(number, width), width < 32);
        let (few, many) = (check(FEW), check(MANY));
        (many.as_secs_f64() / few.as_secs_f64(), many)
    };
    let ((control, _), (remarked, took)) = (ratio(32), ratio(16));
    // Ten times as many, or fewer where a start is most of the time. Quadratic would be a hundred.
    assert!(remarked < 2.5 * control.max(10.0), "{remarked} beside {control}: {took:?}");
}

#[test]
fn a_start_with_a_remark_on_each_of_very_many_identities_takes_no_longer() {
    let start = |width| {
        let gate = gate(MANY, width);
        let start = Instant::now();
        let running = gate.launch();
        // A debug build beside others takes its time without remarks, too.
        running.wait_for("[tls] listening on ", 6 * WAIT_TIMEOUT);
        assert!(!running.log().contains("weak-key"), "remarks are for `check`");
        start.elapsed()
    };
    let (control, remarked) = (start(32), start(16));
    assert!(remarked < control * 3 + Duration::from_secs(1), "{remarked:?} beside {control:?}");
}
