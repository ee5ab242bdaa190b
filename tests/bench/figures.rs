//! The figures: what each is, what is asked of it, and how a round measures it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::harness::{KEY, secret};
use crate::load::{self, Backend, Held};
use crate::makes::{Make, Pair, Wishes, resident};

/// What is asked of pskgate's figure.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At least so many times that of the other make, pair by pair.
    Above(&'static [(Make, f64)]),
    /// At most so many times that of the other make.
    Below(&'static [(Make, f64)]),
    /// A value of its own.
    AtMost(f64),
    AtLeast(f64),
    /// It explains another figure.
    Told,
}

/// A figure, by the name that its raw values have.
pub struct Figure {
    pub name: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    goal: Goal,
    /// What is asked of the released binary instead, which has an OpenSSL and an allocator of its own.
    released: Option<Goal>,
}

impl Figure {
    /// What is asked of one of pskgate's columns.
    pub fn goal(&self, make: Make) -> Goal {
        match make {
            Make::Released => self.released.unwrap_or(self.goal),
            _ => self.goal,
        }
    }

    const fn released(self, goal: Goal) -> Self {
        Self { released: Some(goal), ..self }
    }

    /// Whether it takes thousands of sessions or of identities, or a network of its own: measured in the first
    /// rounds only.
    fn is_rare(&self) -> bool {
        ["memory-idle-most", "memory-after", "held", "opened-in", "many", "first-answer"]
            .iter()
            .any(|rare| self.name.starts_with(rare))
    }
}

const fn figure(name: &'static str, title: &'static str, unit: &'static str, goal: Goal) -> Figure {
    Figure { name, title, unit, goal, released: None }
}

use Goal::{Above, AtLeast, AtMost, Below, Told};
use Make::{Plain, Stunnel4};

pub const FIGURES: &[Figure] = &[
    figure(
        "bulk-up",
        "Bulk, one stream, from the client",
        "MB/s",
        Above(&[(Stunnel4, 1.45), (Plain, 0.95)]),
    )
    .released(Above(&[(Stunnel4, 1.7)])),
    figure(
        "bulk-down",
        "Bulk, one stream, to the client",
        "MB/s",
        Above(&[(Stunnel4, 1.45), (Plain, 0.95)]),
    )
    .released(Above(&[(Stunnel4, 1.7)])),
    figure(
        "cpu-per-gb-up",
        "Processor time per GB, from the client",
        "s",
        Below(&[(Stunnel4, 0.65)]),
    )
    .released(Below(&[(Stunnel4, 0.55)])),
    figure(
        "cpu-per-gb-down",
        "Processor time per GB, to the client",
        "s",
        Below(&[(Stunnel4, 0.65)]),
    )
    .released(Below(&[(Stunnel4, 0.55)])),
    figure(
        "connections",
        "New connections per second, 8 at once",
        "1/s",
        Above(&[(Stunnel4, 2.4)]),
    ),
    figure(
        "cpu-per-connection",
        "Processor time per new connection",
        "ms",
        Below(&[(Stunnel4, 0.42)]),
    ),
    figure(
        "round-trips-32",
        "Round trips of 100 bytes, 32 sessions at once",
        "1/s",
        Above(&[(Stunnel4, 1.8)]),
    ),
    figure(
        "round-trip-p50",
        "Round trip of 100 bytes alone, median",
        "µs",
        Below(&[(Stunnel4, 1.0)]),
    ),
    figure(
        "round-trip-p99",
        "Round trip of 100 bytes alone, 99th percentile",
        "µs",
        Below(&[(Stunnel4, 1.0)]),
    ),
    figure(
        "round-trip-beside",
        "Round trip of 100 bytes beside a bulk stream, 99th percentile",
        "µs",
        Below(&[(Stunnel4, 1.0)]),
    ),
    figure(
        "round-trip-beside-p50",
        "Round trip of 100 bytes beside a bulk stream, median",
        "µs",
        Below(&[(Stunnel4, 1.0)]),
    ),
    figure(
        "round-trip-beside-down",
        "The same beside a bulk stream to the client, 99th percentile",
        "µs",
        Below(&[(Stunnel4, 1.0)]),
    ),
    figure(
        "round-trip-beside-down-p50",
        "The same beside a bulk stream to the client, median",
        "µs",
        Below(&[(Stunnel4, 1.0)]),
    ),
    figure("beside-bulk", "That bulk stream, from the client", "MB/s", Above(&[(Stunnel4, 1.4)])),
    figure(
        "beside-bulk-down",
        "That bulk stream, to the client",
        "MB/s",
        Above(&[(Stunnel4, 1.4)]),
    ),
    figure(
        "poll",
        "Modbus style: connect, one request, close; median",
        "ms",
        Below(&[(Stunnel4, 0.5)]),
    ),
    figure(
        "first-answer",
        "Round trips to the first answer, at 40 ms each way",
        "",
        Below(&[(Stunnel4, 1.02)]),
    ),
    figure("start", "From start to listening, the slower end", "ms", AtMost(10.0)),
    figure("memory-start", "Resident memory at start, the larger end", "MB", AtMost(7.0)),
    figure("memory-idle", "Resident memory per idle session and end, at 1,000", "kB", AtMost(16.0)),
    figure(
        "memory-idle-most",
        "Resident memory per idle session and end, at 9,000",
        "kB",
        AtMost(16.0),
    ),
    figure(
        "memory-idle-larger",
        "Resident memory per idle session, the larger end, at 1,000",
        "kB",
        AtMost(16.0),
    )
    .released(Told),
    figure(
        "memory-idle-most-larger",
        "Resident memory per idle session, the larger end, at 9,000",
        "kB",
        AtMost(16.0),
    )
    .released(Told),
    figure(
        "memory-after",
        "Resident memory above that at start, after 9,000 closed",
        "MB",
        AtMost(2.0),
    ),
    figure("held", "Sessions held by one process, every echo exact", "", AtLeast(9900.0)),
    figure("opened-in", "The same opened within", "s", Told),
    figure(
        "many-load",
        "100,000 identities: start to listening, more than with one",
        "ms",
        AtMost(150.0),
    ),
    figure(
        "many-memory",
        "100,000 identities: resident memory, more than with one",
        "MB",
        AtMost(30.0),
    ),
    figure(
        "many-lookup",
        "100,000 identities: processor time per connection, times that with one",
        "x",
        AtMost(1.05),
    ),
];

/// A value that a round saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Value {
    pub figure: String,
    pub make: Make,
    pub round: usize,
    pub value: f64,
}

/// How long a round measures: the whole bench must stay under a quarter of an hour.
const WHILE: Duration = Duration::from_millis(1500);
const BULK: u64 = 640 * 1024 * 1024;
const LANES: usize = 8;

/// One round of one make; `see` takes each value by the figure's name.
pub fn round(
    make: Make,
    backend: &Backend,
    wanted: &dyn Fn(&str) -> bool,
    see: &mut dyn FnMut(&str, f64),
) {
    if !FIGURES.iter().any(|figure| !figure.is_rare() && wanted(figure.name)) {
        return;
    }
    if wanted("start") {
        let wishes = Wishes { knock: true, ..Wishes::default() };
        let pair = Pair::with(make, backend.address, &wishes);
        let slower = pair.started.iter().max().expect("two ends");
        see("start", slower.as_secs_f64() * 1e3);
    }
    let pair = Pair::start(make, backend.address);
    if wanted("memory-start") {
        // Some of what a start needs is given back right after it.
        let before = quiet(&pair);
        see("memory-start", before[0].max(before[1]) / 1024.0);
    }
    if wanted("memory-idle") && make != Plain {
        let ends = idle(&pair, 1000);
        see("memory-idle", (ends[0] + ends[1]) / 2.0);
        see("memory-idle-larger", ends[0].max(ends[1]));
    }
    drop(pair);
    let pair = Pair::start(make, backend.address);
    // What is built at the first use is not what is measured.
    load::upload(pair.plain, 8 * 1024 * 1024);
    load::download(pair.plain, 8 * 1024 * 1024);
    for (direction, run) in
        [("up", load::upload as fn(_, u64) -> Duration), ("down", load::download)]
    {
        let (rate, cost) = (format!("bulk-{direction}"), format!("cpu-per-gb-{direction}"));
        if wanted(&rate) || wanted(&cost) {
            let before = pair.cpu();
            let took = run(pair.plain, BULK).as_secs_f64();
            see(&rate, BULK as f64 / 1e6 / took);
            see(&cost, (pair.cpu() - before) / (BULK as f64 / 1e9));
        }
    }
    if wanted("connections") || wanted("cpu-per-connection") {
        let before = pair.cpu();
        let (count, took) = load::connections(pair.plain, LANES, WHILE);
        see("connections", count / took.as_secs_f64());
        see("cpu-per-connection", (pair.cpu() - before) / count * 1e3);
    }
    if wanted("round-trips-32") {
        see("round-trips-32", load::round_trips(pair.plain, 32, WHILE));
    }
    if wanted("round-trip-p50") || wanted("round-trip-p99") {
        let times = load::alone(pair.plain, WHILE);
        see("round-trip-p50", load::at(&times, 0.5));
        see("round-trip-p99", load::at(&times, 0.99));
    }
    let bulk_streams = [("", load::upload as fn(_, u64) -> Duration), ("-down", load::download)];
    for (direction, bulk) in bulk_streams {
        let (p99, rate) =
            (format!("round-trip-beside{direction}"), format!("beside-bulk{direction}"));
        let p50 = format!("{p99}-p50");
        if [&p99, &p50, &rate].into_iter().any(|name| wanted(name)) {
            let (times, bytes_per_second) = load::beside_bulk(pair.plain, WHILE, bulk);
            see(&p99, load::at(&times, 0.99));
            see(&p50, load::at(&times, 0.5));
            see(&rate, bytes_per_second / 1e6);
        }
    }
    if wanted("poll") {
        see("poll", load::at(&load::polls(pair.plain, WHILE), 0.5));
    }
}

/// Resident memory that each idle session costs server end and client end, in kB.
fn idle(pair: &Pair, count: usize) -> [f64; 2] {
    // What the first sessions bring in for all that follow is not the next one's.
    drop(Held::open(pair.plain, 16));
    let before = quiet(pair);
    let held = Held::open(pair.plain, count);
    assert_eq!(held.len(), count, "{} were refused", held.refused);
    let after = pair.resident();
    [0, 1].map(|end| (after[end] - before[end]) / count as f64)
}

/// What takes thousands of sessions, or a hundred thousand identities.
pub fn crowd(
    make: Make,
    backend: &Backend,
    wanted: &dyn Fn(&str) -> bool,
    see: &mut dyn FnMut(&str, f64),
) {
    if wanted("memory-idle-most") || wanted("memory-after") {
        let pair = Pair::start(make, backend.address);
        // stunnel4 refuses at about 5,000 here.
        let count = if make.is_own() { 9000 } else { 4000 };
        let start = quiet(&pair);
        let ends = idle(&pair, count);
        see("memory-idle-most", (ends[0] + ends[1]) / 2.0);
        see("memory-idle-most-larger", ends[0].max(ends[1]));
        see("memory-after", settled(&pair, start));
    }
    if wanted("held") || wanted("opened-in") {
        let pair = Pair::start(make, backend.address);
        let mut held = Held::open(pair.plain, if make.is_own() { 9900 } else { 6000 });
        see("held", held.echoes() as f64);
        see("opened-in", held.took.as_secs_f64());
    }
}

/// Resident memory of both ends, once it has not changed for a second: what its start needed a program lets
/// go of a moment later.
fn quiet(pair: &Pair) -> [f64; 2] {
    let (mut last, mut since) = (pair.resident(), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(10));
        let now = pair.resident();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// The larger growth of the two in MB, once it has not changed for a second.
fn settled(pair: &Pair, start: [f64; 2]) -> f64 {
    let growth = || {
        let now = pair.resident();
        (now[0] - start[0]).max(now[1] - start[1]) / 1024.0
    };
    let (begin, mut last, mut since) = (Instant::now(), growth(), Instant::now());
    while since.elapsed() < Duration::from_secs(2) && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
        let now = growth();
        if (now - last).abs() > 0.1 {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// A hundred thousand identities beside one.
pub fn many(make: Make, backend: &Backend, see: &mut dyn FnMut(&str, f64)) {
    let more: String = (0..99_999).map(|n| secret(&format!("plc{n:06}"), &key(n))).collect();
    let measured = |more_keys: &str| {
        let wishes = Wishes { more_keys, knock: true, ..Wishes::default() };
        let pair = Pair::with(make, backend.address, &wishes);
        let memory = resident(pair.ids()[0]) / 1024.0;
        let before = pair.cpu();
        let (count, _) = load::connections(pair.plain, LANES, WHILE);
        (pair.started[0].as_secs_f64() * 1e3, memory, (pair.cpu() - before) / count)
    };
    let (one, all) = (measured(""), measured(&more));
    see("many-load", all.0 - one.0);
    see("many-memory", all.1 - one.1);
    see("many-lookup", all.2 / one.2);
}

/// A key that is nobody else's, of the length of the first.
fn key(n: usize) -> String {
    let number = format!("{n:08}");
    format!("{number}{}", &KEY[number.len()..])
}
