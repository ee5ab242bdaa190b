//! Backends that are dead, each in its own way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::Fault;
use crate::ends::{End, Maker, Member, Order, echo, plain_from};
use crate::figure::Bar;
use crate::harness::backend::reset;
use crate::harness::{Backend, ConnectionEnd, PlainClient, free_port, local};
use crate::results::{Measure, Size, measure, measure_or};
use crate::slow::pair;

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "L7",
        name: "backend-refuses",
        about: "a backend that is not there",
        quick: true,
        stunnel: true,
        run: |maker, _| {
            let server = Order::server(maker, local(free_port())).start();
            refused(maker, server, 1000.0)
        },
    },
    Fault {
        id: "L7",
        name: "backend-silent",
        about: "a backend whose queue is full, so that connecting to it gets no answer (limit: 2 s)",
        quick: true,
        stunnel: true,
        run: silent,
    },
    Fault {
        id: "L7",
        name: "backend-never-reads",
        about: "a backend that reads nothing, while another session works",
        quick: true,
        stunnel: true,
        run: never_reads,
    },
    Fault {
        id: "L7",
        name: "backend-dies-in-its-answer",
        about: "a backend that resets in the middle of its answer",
        quick: true,
        stunnel: true,
        run: dies,
    },
];

/// What an application sees of a backend that cannot be reached.
fn refused(maker: Maker, server: End, most: f64) -> Vec<Measure> {
    let client = Order::client(maker, server.address()).start();
    let start = Instant::now();
    let plain = PlainClient::connect(client.address());
    let _ = (&plain.0).write_all(b"?");
    let (got, end) = plain.rest();
    let took = start.elapsed().as_secs_f64() * 1000.0;
    vec![
        measure("until the application sees the end", "ms", Bar::AtMost(most), took),
        measure(
            "an end that looks orderly",
            "",
            Bar::Exactly(0.0),
            f64::from(end == ConnectionEnd::Fin),
        ),
        measure("bytes that it was given", "", Bar::Exactly(0.0), got.len() as f64),
    ]
}

fn silent(maker: Maker, _: Size) -> Vec<Measure> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    // Its queue is full from here on, and the kernel answers nobody any more.
    let filling: Vec<_> = (0..4)
        .map(|_| {
            let one =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            one.set_nonblocking(true).unwrap();
            let _ = one.connect(&address.into());
            one
        })
        .collect();
    let server = Order::server(maker, address)
        .lines("connect-timeout = \"2s\"", "TIMEOUTconnect = 2")
        .start();
    let seen = refused(maker, server, 3500.0);
    drop(filling);
    seen
}

fn never_reads(maker: Maker, size: Size) -> Vec<Measure> {
    // The second connection is never read from; the others are answered.
    let number = std::sync::atomic::AtomicUsize::new(0);
    let backend = Backend::new(move |mut stream| {
        if number.fetch_add(1, std::sync::atomic::Ordering::AcqRel) == 1 {
            std::thread::sleep(Duration::from_secs(40));
            return None;
        }
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            stream.write_all(&piece[..count]).ok()?;
        }
        None
    });
    let ends = pair(maker, backend.address());
    // Buffers and code are there once, whoever comes.
    let mut usual = plain_from(ends[1].address(), Ipv4Addr::LOCALHOST).expect("a session");
    super::ends::echo(&mut usual).expect("an answer");
    let before = ends.each_ref().map(|end| end.anonymous());
    let full = PlainClient::connect(ends[1].address());
    full.0.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut taken = 0_usize;
    while let Ok(count @ 1..) = (&full.0).write(&[0; 64 << 10]) {
        taken += count;
    }
    let door = ends[1].address();
    let member = Member::of(move || plain_from(door, Ipv4Addr::LOCALHOST));
    std::thread::sleep(Duration::from_secs(size.pick(3, 8)));
    let tally = member.finish();
    let grown = ends
        .iter()
        .zip(before)
        .map(|(end, before)| end.anonymous().saturating_sub(before))
        .max()
        .unwrap_or_default();
    vec![
        measure(
            "taken from the application before it is held back",
            "MB",
            Bar::Told,
            taken as f64 / 1e6,
        ),
        measure("memory of either end more", "kB", Bar::AtMost(2048.0), grown as f64 / 1024.0),
        measure("another session: connect and answer, p99", "ms", Bar::AtMost(1000.0), tally.p99()),
        measure("its connections that failed", "", Bar::Exactly(0.0), tally.failed as f64),
    ]
}

fn dies(maker: Maker, _: Size) -> Vec<Measure> {
    const TRIES: usize = 20;
    let backend = Backend::new(|mut stream| {
        stream.read_exact(&mut [0]).ok()?;
        stream.write_all(&[b'x'; 50_000]).ok()?;
        reset(stream.try_clone().ok()?);
        None
    });
    let ends = pair(maker, backend.address());
    let (mut slowest, mut whole) = (0.0_f64, 0);
    for _ in 0..TRIES {
        let plain = PlainClient::connect(ends[1].address());
        plain.send(b"?");
        let start = Instant::now();
        whole += usize::from(plain.end() == ConnectionEnd::Fin);
        slowest = slowest.max(start.elapsed().as_secs_f64() * 1000.0);
    }
    vec![
        measure(
            "until the application sees the end, at worst of 20",
            "ms",
            Bar::AtMost(1000.0),
            slowest,
        ),
        measure("partial answers that looked whole to it", "", Bar::Exactly(0.0), whole as f64),
    ]
}
