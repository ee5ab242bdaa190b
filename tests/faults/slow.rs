//! Readers that take their time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Fault;
use crate::ends::{End, Maker, Order};
use crate::figure::Bar;
use crate::harness::{Backend, PlainClient, Stream, WAIT_TIMEOUT};
use crate::results::{Measure, Size, measure};

pub const FAULTS: &[Fault] = &[Fault {
    id: "L6",
    name: "slow-readers",
    about: "eight readers that stop in the middle, before both ends of one make",
    quick: true,
    stunnel: true,
    run: slow,
}];

/// Both ends of one make, one before the other.
pub fn pair(maker: Maker, backend: std::net::SocketAddr) -> [End; 2] {
    let server = Order::server(maker, backend).start();
    let client = Order::client(maker, server.address()).start();
    [server, client]
}

fn slow(maker: Maker, size: Size) -> Vec<Measure> {
    const COUNT: usize = 8;
    const TOTAL: u64 = 32 << 20;
    let data = Stream::new(6);
    let (sent, source) = (Arc::new(AtomicU64::new(0)), data.clone());
    let counter = Arc::clone(&sent);
    let backend = Backend::new(move |mut to| {
        to.read_exact(&mut [0]).ok()?;
        let mut at = 0;
        while at < TOTAL {
            let piece = source.piece(at, 32 << 10);
            to.write_all(piece).ok()?;
            at += piece.len() as u64;
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        to.shutdown(std::net::Shutdown::Write).ok()?;
        // Its end would be a reset if it were dropped with something unread.
        to.read(&mut [0]).ok();
        None
    });
    let ends = pair(maker, backend.address());
    let connect = || {
        let plain = PlainClient::connect(ends[1].address());
        plain.send(b"!");
        (&plain.0).read_exact(&mut [0; 1]).expect("it begins");
        plain
    };
    // Its buffers are there once, whoever comes.
    drop(connect());
    std::thread::sleep(Duration::from_secs(1));
    let before = ends.each_ref().map(|end| end.anonymous());
    sent.store(0, Ordering::Relaxed);
    let readers: Vec<PlainClient> = (0..COUNT).map(|_| connect()).collect();
    std::thread::sleep(Duration::from_secs(size.pick(3, 10)));
    let settled = sent.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(2));
    let more = sent.load(Ordering::Relaxed) - settled;
    let grown: Vec<f64> = ends
        .iter()
        .zip(before)
        .map(|(end, before)| end.anonymous().saturating_sub(before) as f64 / COUNT as f64 / 1024.0)
        .collect();
    let exact = std::thread::scope(|scope| {
        let readers: Vec<_> = readers
            .iter()
            .map(|plain| {
                let data = data.clone();
                scope.spawn(move || data.receive_slowly(&plain.0, 1, TOTAL, Duration::ZERO))
            })
            .collect();
        readers.into_iter().filter_map(|one| one.join().ok()).count()
    });
    vec![
        measure("memory of the server end more, each", "kB", Bar::AtMost(1024.0), grown[0]),
        measure("memory of the client end more, each", "kB", Bar::AtMost(1024.0), grown[1]),
        measure(
            "taken from the sender although nobody reads, each",
            "MB",
            Bar::Told,
            settled as f64 / COUNT as f64 / 1e6,
        ),
        measure("bytes that it still took in the last 2 s", "", Bar::Exactly(0.0), more as f64),
        measure(
            "readers who got all 32 MB exactly in the end",
            "",
            Bar::Exactly(COUNT as f64),
            exact as f64,
        ),
    ]
}
