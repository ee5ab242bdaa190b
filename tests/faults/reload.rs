//! Reloads under load, the same for both makes; scripts/soak does it for minutes and with changes of
//! every kind.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::Fault;
use crate::ends::{Maker, Member, Order, echo, tls};
use crate::figure::Bar;
use crate::harness::{Backend, WAIT_TIMEOUT, until};
use crate::results::{Measure, Size, measure};

pub const FAULTS: &[Fault] = &[Fault {
    id: "L5",
    name: "reloads",
    about: "SIGHUP, each time with another option, while four members connect without a pause",
    quick: true,
    stunnel: true,
    run: reloads,
}];

fn reloads(maker: Maker, size: Size) -> Vec<Measure> {
    let count = size.pick(40, 200);
    let backend = Backend::echo();
    let mut server = Order::server(maker, backend.address()).start();
    let to = server.address();
    let long: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = tls(to, Ipv4Addr::LOCALHOST).expect("a session");
            echo(&mut stream).expect("an answer");
            stream
        })
        .collect();
    let calm = server.descriptors();
    let memory = server.anonymous();
    let members: Vec<_> = (0..4).map(|_| Member::start(to, Ipv4Addr::LOCALHOST)).collect();
    for n in 0..count {
        server.rewrite(
            &format!("max-sessions = {}", 5000 + n),
            &format!("TIMEOUTidle = {}", 43_200 + n),
        );
        server.signal(Signal::HUP);
        std::thread::sleep(Duration::from_millis(100));
    }
    let tallies: Vec<_> = members.into_iter().map(Member::finish).collect();
    let kept = long.into_iter().filter_map(|mut one| echo(&mut one).ok()).count();
    // Those ten had two descriptors each.
    let calm = calm - 20;
    let start = Instant::now();
    while server.descriptors() > calm && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let left = server.descriptors().saturating_sub(calm);
    let served: usize = tallies.iter().map(|tally| tally.times.len()).sum();
    let failed: usize = tallies.iter().map(|tally| tally.failed).sum();
    let grown = server.anonymous().saturating_sub(memory) as f64 / 1024.0;
    vec![
        measure("reloads", "", Bar::Told, f64::from(count)),
        measure("new connections meanwhile", "", Bar::AtLeast(100.0), served as f64),
        measure("of them failed", "", Bar::Exactly(0.0), failed as f64),
        measure(
            "sessions of 10 that were there before and go on",
            "",
            Bar::Exactly(10.0),
            kept as f64,
        ),
        measure("descriptors more afterwards", "", Bar::Exactly(0.0), left as f64),
        measure("memory more", "kB", Bar::AtMost(4096.0), grown),
    ]
}
