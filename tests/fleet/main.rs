//! A thousand PLCs' ends before one gateway: what it takes to hold them, and what happens when all of them
//! come back at once after it was started anew.
//!
//! `scripts/fleet` runs it. The ends are simulated: each is a TLS-PSK client of OpenSSL's with an identity,
//! a key and an address of its own, that sends a poll and has it back, over and over, and connects anew
//! when its connection ends. The gateway is the program.
// What the other tests need of the harness is not all needed here.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]
#![allow(dead_code, unused_imports)]

#[path = "../faults/ends.rs"]
mod ends;
#[path = "../faults/figure.rs"]
mod figure;
#[path = "../it/harness/mod.rs"]
mod harness;
#[path = "../faults/results.rs"]
mod results;

mod plcs;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use ends::{End, Maker, Order};
use figure::Bar;
use harness::machine::today;
use harness::until;
use plcs::{Fleet, Retry, key, name};
use results::{Measure, measure};

/// How often a PLC says something.
const PERIOD: Duration = Duration::from_secs(1);

/// How a PLC's end connects anew.
const POLICIES: [(&str, Retry); 3] = [
    ("every 200 ms", Retry { least: 200, most: 200 }),
    ("every 2 s", Retry { least: 2000, most: 2000 }),
    ("after 2 to 3 s at random", Retry { least: 2000, most: 3000 }),
];

fn secrets(count: usize) -> String {
    (0..count).map(|number| harness::secret(&name(number), &key(number))).collect()
}

fn gateway(count: usize, backend: SocketAddr, at: Option<SocketAddr>) -> End {
    let order = Order::server(Maker::Pskgate, backend).secrets(&secrets(count));
    match at {
        None => order.start(),
        Some(at) => order.accept(at).start(),
    }
}

/// All of them, once: memory, processor time, and the first coming.
fn held(count: usize, fleet: &Fleet, end: &End, empty: u64) -> Vec<Measure> {
    let idle = end.resident();
    let before = (end.cpu(), Instant::now(), fleet.answers());
    std::thread::sleep(Duration::from_secs(10));
    let seconds = before.1.elapsed().as_secs_f64();
    let busy = (end.cpu() - before.0).as_secs_f64() / seconds * 100.0;
    let polls = (fleet.answers() - before.2) as f64 / seconds;
    vec![
        measure("PLCs connected", "", Bar::Exactly(count as f64), fleet.connected() as f64),
        measure("memory of the gateway without PLCs", "kB", Bar::Told, empty as f64 / 1024.0),
        measure("memory with all PLCs", "kB", Bar::Told, idle as f64 / 1024.0),
        measure(
            "memory for each PLC",
            "kB",
            Bar::AtMost(64.0),
            idle.saturating_sub(empty) as f64 / 1024.0 / count as f64,
        ),
        measure(
            "polls per second",
            "/s",
            Bar::AtLeast(0.9 * count as f64 / PERIOD.as_secs_f64()),
            polls,
        ),
        measure("processor time", "% of a core", Bar::Told, busy),
    ]
}

/// The gateway is stopped and started in one breath, and everybody comes back.
fn storm(count: usize, fleet: &Fleet, end: &mut End, backend: SocketAddr) -> Vec<Measure> {
    fleet.begin_storm();
    let begin = Instant::now();
    end.signal(Signal::TERM);
    let mut old = std::mem::replace(end, gateway(count, backend, Some(end.address())));
    let mut peak = 0.0_f64;
    let (mut last, mut at) = (end.cpu(), Instant::now());
    let mut half = None;
    let whole = until("everybody to be back", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(100));
        let now = end.cpu();
        peak = peak.max((now - last).as_secs_f64() / at.elapsed().as_secs_f64() * 100.0);
        (last, at) = (now, Instant::now());
        let back = fleet.back();
        if back * 2 >= count {
            half.get_or_insert(begin.elapsed().as_secs_f64());
        }
        (back == count).then(|| begin.elapsed().as_secs_f64())
    });
    let spent = end.cpu().as_secs_f64();
    old.wait(Duration::from_secs(30));
    let storm = fleet.storm();
    vec![
        measure(
            "time until half of the PLCs have an answer",
            "s",
            Bar::Told,
            half.unwrap_or(whole),
        ),
        measure("time until all PLCs have an answer", "s", Bar::AtMost(15.0), whole),
        measure("handshake time, median", "ms", Bar::Told, storm.handshake(50)),
        measure("handshake time, 99th percentile", "ms", Bar::AtMost(5000.0), storm.handshake(99)),
        measure(
            "refused or failed attempts per PLC",
            "",
            Bar::Told,
            storm.failed as f64 / count as f64,
        ),
        measure("failed handshakes", "", Bar::Exactly(0.0), storm.handshakes_failed as f64),
        measure("processor time of the gateway", "s", Bar::Told, spent),
        measure("highest processor load in 100 ms", "% of a core", Bar::Told, peak),
        measure(
            "memory of the gateway afterwards",
            "kB",
            Bar::Told,
            end.resident() as f64 / 1024.0,
        ),
    ]
}

fn main() {
    let count = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(1000);
    more_descriptors();
    let backend = plcs::echo();
    let mut missed = 0;
    let mut rows = Vec::new();
    let mut tell = |about: &str, seen: &[Measure]| {
        println!("{about}");
        for one in seen {
            let figure = results::figure("fleet", about, one, None);
            missed += usize::from(!figure.is_met());
            println!("  {figure}");
            rows.push(figure);
        }
    };
    for (about, retry) in POLICIES {
        let mut end = gateway(count, backend, None);
        let empty = end.resident();
        let fleet = Fleet::start(count, end.address(), PERIOD, retry);
        let all = Duration::from_secs(60);
        until("all PLCs", all, || (fleet.back() == count).then_some(()));
        if about == POLICIES[0].0 {
            tell(
                &format!("{count} PLCs with one poll per second each"),
                &held(count, &fleet, &end, empty),
            );
        }
        let seen = storm(count, &fleet, &mut end, backend);
        tell(&format!("the gateway is restarted; PLCs reconnect {about}"), &seen);
    }
    results::write(&harness::root().join("target/fleet"), &format!("fleet-{count}"), &rows);
    std::process::exit(i32::from(missed > 0));
}

/// Both ends of every connection but the gateway's are held by this process.
fn more_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as many descriptors as are allowed");
}
