//! Peers with a good key that change their keys over and over, which costs them little and this end much.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Fault;
use crate::ends::{Maker, Order, echo, tls};
use crate::figure::Bar;
use crate::harness::updates::Updater;
use crate::harness::{Backend, PlainClient, Stream};
use crate::results::{Measure, Size, measure};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "S4",
        name: "key-updates",
        about: "peers with a good key that change their keys over and over, and say nothing",
        quick: true,
        stunnel: true,
        run: |maker, size| beside_peers(maker, size, Kind::Updates),
    },
    Fault {
        id: "S4",
        name: "key-updates-and-data",
        about: "peers with a good key that change their keys before each byte",
        quick: true,
        stunnel: true,
        run: |maker, size| beside_peers(maker, size, Kind::UpdatesAndData),
    },
    Fault {
        id: "S5",
        name: "bulk-over-key-updates",
        about: "gigabytes both ways while both ends change keys every thousand records",
        quick: true,
        stunnel: false,
        run: bulk_over_updates,
    },
];

/// So many peers at once.
const PEERS: usize = 50;

/// What a peer sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Key updates and nothing else.
    Updates,
    /// A key update before each byte.
    UpdatesAndData,
    /// A byte in each record.
    Data,
}

/// A session that asks again and again, and how long the longest answer took.
struct Asker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Asker {
    fn start(to: std::net::SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        let mut session = tls(to, Ipv4Addr::LOCALHOST).expect("a session");
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !over.load(Ordering::Acquire) {
                let start = Instant::now();
                echo(&mut session).expect("an echo");
                times.push(start.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            times
        });
        Self { stop, thread }
    }

    /// In order of length.
    fn finish(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Release);
        let mut times = self.thread.join().expect("the asker");
        times.sort_unstable();
        times
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// What the peers have to say, made before anything is measured: so many records each.
fn prepare(
    to: std::net::SocketAddr,
    peers: usize,
    kind: Kind,
    records: usize,
) -> Vec<(TcpStream, Vec<u8>)> {
    let one = |_| {
        let mut peer = Updater::connect(to);
        peer.hold();
        for number in 0..records {
            match kind {
                Kind::Updates => peer.update(false),
                Kind::UpdatesAndData if number % 2 == 0 => peer.update(false),
                Kind::UpdatesAndData | Kind::Data => peer.write(b"x"),
            }
        }
        let said = peer.take_held();
        let socket = peer.socket();
        // It must not say goodbye.
        std::mem::forget(peer);
        (socket, said)
    };
    (0..peers).map(one).collect()
}

/// The times of an asker's echoes while the peers send what they have, until all of it is dealt with.
fn echoes_beside(maker: Maker, peers: usize, kind: Kind, records: usize) -> (Vec<Duration>, usize) {
    // Whatever comes in a session of the peers' stays there; the asker's is echoed.
    let backend = Backend::echo();
    let server = Order::server(maker, backend.address()).start();
    let prepared = prepare(server.address(), peers, kind, records);
    let asker = Asker::start(server.address());
    std::thread::sleep(Duration::from_millis(200));
    let senders: Vec<_> =
        prepared
            .into_iter()
            .map(|(mut socket, said)| {
                std::thread::spawn(move || {
                    use std::io::{Read, Write};
                    let mut reader = socket.try_clone().expect("a copy");
                    let drain = std::thread::spawn(move || {
                        while matches!(reader.read(&mut [0; 65_536]), Ok(1..)) {}
                    });
                    let cut = socket.write_all(&said).is_err();
                    let _ = socket.shutdown(std::net::Shutdown::Write);
                    drain.join().expect("read to the end");
                    cut
                })
            })
            .collect();
    let cut = senders.into_iter().map(|one| one.join().expect("a peer"));
    let cut = cut.filter(|cut| *cut).count();
    (asker.finish(), cut)
}

fn beside_peers(maker: Maker, size: Size, kind: Kind) -> Vec<Measure> {
    let records = match kind {
        Kind::Updates => size.pick(2000, 20_000),
        _ => size.pick(1000, 10_000),
    };
    let (data, _) = echoes_beside(maker, PEERS, Kind::Data, records);
    let (updates, _) = echoes_beside(maker, PEERS, kind, records);
    let (beside_one, _) = echoes_beside(maker, 1, kind, records * 5);
    let longest = |times: &[Duration]| times.last().copied().map_or(f64::MAX, milliseconds);
    let p99 = |times: &[Duration]| {
        times.get(times.len() * 99 / 100).copied().map_or(f64::MAX, milliseconds)
    };
    let ratio = longest(&updates) / longest(&data);
    vec![
        measure("records of each of 50 peers", "", Bar::Told, records as f64),
        measure("the longest echo beside 50 that send data", "ms", Bar::Told, longest(&data)),
        measure("the longest echo beside 50 that change keys", "ms", Bar::Told, longest(&updates)),
        measure("the second by the first", "", Bar::AtMost(2.0), ratio),
        measure(
            "an echo beside one that changes keys, p99",
            "ms",
            Bar::AtMost(5.0),
            p99(&beside_one),
        ),
    ]
}

/// The keys are changed every thousand records, so that many changes fall into little data.
const OFTEN: &str = "rekey-after = \"1000 records, 16MiB\"";

/// Both ends with keys that are changed often, and data in both directions at once.
fn bulk_over_updates(maker: Maker, size: Size) -> Vec<Measure> {
    const GB: u64 = 1_000_000_000;
    let total = size.pick(GB / 5, 4 * GB);
    let backend = Backend::echo();
    let server = Order::server(maker, backend.address()).lines(OFTEN, "").start();
    let client = Order::client(maker, server.address()).lines(OFTEN, "").start();
    let plain = PlainClient::connect(client.address());
    let stream = Stream::new(11);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| stream.send(&plain.0, total).expect("it takes the data"));
        stream.receive(&plain.0, total);
    });
    let seconds = start.elapsed().as_secs_f64();
    let updates = key_updates(&server.ask("{\"command\":\"status\"}"));
    let least = total as f64 / 16_777_216.0 / 1.5;
    vec![
        measure("carried each way, every byte compared", "GB", Bar::Told, total as f64 / 1e9),
        measure("key updates from the client", "", Bar::AtLeast(least), updates[0]),
        measure("key updates to the client", "", Bar::AtLeast(least), updates[1]),
        measure("each way and second", "MB", Bar::Told, total as f64 / 1e6 / seconds),
    ]
}

/// Up and down, out of an answer of the control socket.
fn key_updates(status: &str) -> [f64; 2] {
    let answer: serde_json::Value = serde_json::from_str(status).expect("JSON");
    let service = &answer["status"]["services"][0];
    ["key-updates-up", "key-updates-down"]
        .map(|name| service[name].as_f64().unwrap_or_else(|| panic!("no {name}: {status}")))
}
