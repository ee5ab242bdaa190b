//! What a silent connection costs the server: memory while it is held, and processor time, also where a
//! thousand named services share one port.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::Fault;
use crate::ends::{Dialect, End, Maker, Order, plain_from};
use crate::figure::Bar;
use crate::harness::{Backend, WAIT_TIMEOUT, until};
use crate::results::{Measure, Size, measure};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "S2",
        name: "silent-memory",
        about: "silent sockets from as many addresses, all within the time of one handshake",
        quick: true,
        stunnel: true,
        run: memory,
    },
    Fault {
        id: "S11",
        name: "silent-cost",
        about: "silent connections, and a table of services by name",
        quick: true,
        stunnel: true,
        run: processor_time,
    },
];

/// Bytes of a silent connection that 40 MB for 10,000 of them allow.
const MOST_BYTES_EACH: f64 = 4_000.0;
/// Sockets between two pauses, so that the kernel's queue never overflows.
const SOCKETS_A_TURN: usize = 50;

/// Silent connections, each from an address of its own.
fn crowd(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::with_capacity(count);
    for number in 0..count {
        let [high, low] = u16::try_from(number + 256).expect("at most 65,279").to_be_bytes();
        // Sockets that do not connect are seen in the count.
        all.extend(plain_from(to, Ipv4Addr::new(127, 0, high, low)));
        if number % SOCKETS_A_TURN == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    all
}

fn memory(maker: Maker, size: Size) -> Vec<Measure> {
    let count = size.pick(2_000, 10_000);
    let backend = Backend::echo();
    let server = Order::server(maker, backend.address()).lines("", "TIMEOUTbusy = 10").start();
    let (at_start, calm) = (server.resident(), server.settled_descriptors());
    let to = server.address();
    let crowd = std::thread::spawn(move || crowd(to, count));
    let (mut most, mut begun) = (at_start, None);
    // Until two seconds after the last one has connected.
    while begun.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(2)) {
        most = most.max(server.resident());
        if begun.is_none() && crowd.is_finished() {
            begun = Some(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let held = server.descriptors().saturating_sub(calm);
    let connected = crowd.join().expect("the silent ones").len();
    let grown = most.saturating_sub(at_start) as f64;
    vec![
        measure("silent sockets that connected", "", Bar::Exactly(count as f64), connected as f64),
        measure("of them held by the server 2 s after the last one", "", Bar::Told, held as f64),
        measure(
            "memory that the server has taken for them",
            "MB",
            Bar::AtMost(MOST_BYTES_EACH * count as f64 / 1e6),
            grown / 1e6,
        ),
    ]
}

/// Lines of a stunnel.conf: so many services that share the port of the first one.
fn named_services(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        writeln!(
            text,
            "[s{number}]\nsni = end:s{number}.example\nconnect = 127.0.0.1:9\nPSKsecrets = psk.txt"
        )
        .expect("a string");
    }
    text
}

fn processor_time(maker: Maker, size: Size) -> Vec<Measure> {
    let (native, conf) = (Dialect::Native, Dialect::StunnelConf);
    let cases = [
        ("a native file", native, 0),
        ("a stunnel.conf", conf, 0),
        ("a stunnel.conf with 1,000 services by name", conf, 1_000),
    ];
    let mut seen = Vec::new();
    for (name, dialect, services) in cases {
        if maker == Maker::Stunnel && dialect == native {
            continue;
        }
        let backend = Backend::echo();
        let conf = format!("TIMEOUTbusy = 10\n{}", named_services(services));
        let order = Order::server(maker, backend.address()).dialect(dialect).lines("", &conf);
        let server = order.start();
        let each = cheapest_round(maker, &server, size.pick(3, 5));
        let what = format!("processor time of each silent connection, {name}");
        seen.push(measure(&what, "µs", Bar::AtMost(20.0), each));
    }
    seen
}

/// Microseconds that each silent connection costs from its beginning to its end, in the best of some rounds:
/// what else the machine does only adds to it.
fn cheapest_round(maker: Maker, server: &End, rounds: usize) -> f64 {
    /// The system's clock of processor time counts by 10 ms, which is 2 µs for each of so many.
    const CROWD: usize = 5_000;
    /// stunnel4 has a thread for each, which takes far longer.
    const CROWD_OF_THREADS: usize = 1_000;
    /// A log or a resolver may have opened some since the start.
    const MORE_DESCRIPTORS: usize = 8;
    let (count, rounds) = match maker {
        Maker::Pskgate => (CROWD, rounds),
        Maker::Stunnel => (CROWD_OF_THREADS, 2),
    };
    let calm = server.settled_descriptors() + MORE_DESCRIPTORS;
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let before = server.cpu();
        let crowd = crowd(server.address(), count);
        std::thread::sleep(Duration::from_millis(300));
        drop(crowd);
        until("the silent ones to be gone", 3 * WAIT_TIMEOUT, || {
            (server.descriptors() <= calm).then_some(())
        });
        let used = server.cpu().saturating_sub(before);
        best = best.min(used.as_secs_f64() * 1e6 / count as f64);
    }
    best
}
