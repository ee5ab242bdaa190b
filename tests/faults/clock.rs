//! The clock jumps while it runs: to 1970, an hour ahead, to the last second of 32 bits.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::Fault;
use crate::ends::{End, Maker, Member, Order, echo, plain_from};
use crate::figure::Bar;
use crate::harness::{Backend, PlainClient, WAIT_TIMEOUT, until};
use crate::results::{Measure, Size, measure, measure_or};

pub const FAULTS: &[Fault] = &[Fault {
    id: "L11",
    name: "clock-jumps",
    about: "the clock of both ends jumps to 1970, an hour ahead, to 2038 and back (libfaketime)",
    quick: true,
    stunnel: false,
    run: jumps,
}];

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
const JUMPS: [&str; 5] =
    ["@1970-01-02 00:00:00", "+3600", "@2038-01-19 03:14:06", "@2039-06-01 00:00:00", "+0"];

/// Its clock is what stands in the file, from the next look at it on.
fn faked(order: Order) -> End {
    assert!(std::path::Path::new(LIBRARY).exists(), "needs the Debian package faketime");
    let file = order.folder().join("clock");
    std::fs::write(&file, "+0\n").expect("a clock");
    let file = file.display().to_string();
    order
        .shell(&format!(
            "export LD_PRELOAD={LIBRARY} FAKETIME_TIMESTAMP_FILE={file} FAKETIME_NO_CACHE=1 \
             FAKETIME_DONT_FAKE_MONOTONIC=1"
        ))
        .start()
}

fn set(end: &End, to: &str) {
    crate::harness::replace(&end.folder().join("clock"), &format!("{to}\n"));
}

/// The year in its last line of the log.
fn year(end: &End) -> String {
    end.err().lines().last().unwrap_or_default().chars().take(4).collect()
}

fn jumps(maker: Maker, size: Size) -> Vec<Measure> {
    let backend = Backend::echo();
    let server =
        faked(Order::server(maker, backend.address()).lines("handshake-timeout = \"3s\"", ""));
    let client = faked(Order::client(maker, server.address()));
    let door = client.address();
    let long: Vec<PlainClient> = (0..10).map(|_| PlainClient::connect(door)).collect();
    long.iter().for_each(|plain| plain.echo(b"before"));
    let member = Member::of(move || plain_from(door, Ipv4Addr::LOCALHOST));
    let (mut soonest, mut latest) = (f64::MAX, 0.0_f64);
    let mut seen = std::collections::BTreeSet::new();
    for to in JUMPS {
        // A handshake whose time runs while the clock jumps.
        let start = Instant::now();
        let mut silent = plain_from(server.address(), Ipv4Addr::new(127, 0, 0, 9)).expect("a port");
        std::thread::sleep(Duration::from_millis(200));
        set(&server, to);
        set(&client, to);
        silent.set_read_timeout(Some(WAIT_TIMEOUT)).expect("a limit");
        let _ = silent.read(&mut [0; 64]);
        let held = start.elapsed().as_secs_f64();
        (soonest, latest) = (soonest.min(held), latest.max(held));
        seen.insert(year(&server));
        std::thread::sleep(Duration::from_secs(size.pick(1, 5)));
    }
    let tally = member.finish();
    let kept = long
        .iter()
        .filter(|plain| {
            let mut stream = &plain.0;
            echo(&mut stream).is_ok()
        })
        .count();
    vec![
        measure("years that its log tells", "", Bar::AtLeast(4.0), seen.len() as f64),
        measure(
            "sessions of 10 that were there before and go on",
            "",
            Bar::Exactly(10.0),
            kept as f64,
        ),
        measure("new sessions meanwhile", "", Bar::AtLeast(50.0), tally.times.len() as f64),
        measure("of them failed", "", Bar::Exactly(0.0), tally.failed as f64),
        measure("connect and answer, p99", "ms", Bar::AtMost(1000.0), tally.p99()),
        measure("a limit of 3 s, at the soonest", "s", Bar::AtLeast(2.9), soonest),
        measure("a limit of 3 s, at the latest", "s", Bar::AtMost(4.0), latest),
    ]
}
