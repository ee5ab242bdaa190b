//! Crowds at the TLS port: those who say nothing, those who drip, those who flood, and one identity
//! that takes all it may.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Fault;
use crate::ends::{Maker, Member, Order, echo, plain_from, tls, tls_as};
use crate::figure::Bar;
use crate::harness::{Backend, IDENTITY, KEY, OTHER_KEY, secret};
use crate::results::{Measure, Size, measure, measure_or};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "L1",
        name: "silent-elsewhere",
        about: "silent and 1-byte-a-second sockets, from ten other addresses",
        quick: false,
        stunnel: true,
        run: |maker, size| silent(maker, size, |n| Ipv4Addr::new(127, 0, 0, 2 + (n % 10) as u8)),
    },
    Fault {
        id: "L1",
        name: "silent-own-address",
        about: "silent and 1-byte-a-second sockets, from the good client's own address",
        quick: true,
        stunnel: true,
        run: |maker, size| silent(maker, size, |_| Ipv4Addr::LOCALHOST),
    },
    Fault {
        id: "L1",
        name: "flood",
        about: "eight strangers with a wrong key who try without a pause",
        quick: true,
        stunnel: true,
        run: flood,
    },
    Fault {
        id: "L2",
        name: "one-at-its-limit",
        about: "one identity holds all the sessions that it may have, and asks for more",
        quick: true,
        stunnel: false,
        run: at_its_limit,
    },
    Fault {
        id: "S16",
        name: "one-key-takes-all",
        about: "the holder of one key opens all the sessions that it can, and then fifty others come",
        quick: true,
        stunnel: false,
        run: one_key_takes_all,
    },
];

/// The beginning of a ClientHello, and then whatever.
const HELLO: [u8; 11] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

struct Stranger {
    stream: TcpStream,
    since: Instant,
    said: usize,
    held: Option<Duration>,
}

impl Stranger {
    fn drip(&mut self) {
        let byte = HELLO.get(self.said).copied().unwrap_or(0);
        let _ = self.stream.write(&[byte]);
        self.said += 1;
    }

    fn look(&mut self) {
        if self.held.is_none() && is_over(&self.stream) {
            self.held = Some(self.since.elapsed());
        }
    }
}

/// Whether a stream that does not block has ended, whatever was said before.
fn is_over(mut stream: &TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 256]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

fn silent(maker: Maker, size: Size, source: fn(usize) -> Ipv4Addr) -> Vec<Measure> {
    const LOOK: Duration = Duration::from_secs(15);
    let count = size.pick(500, 1000);
    let backend = Backend::echo();
    // stunnel's own limit is five minutes: it is given pskgate's.
    let server = Order::server(maker, backend.address()).lines("", "TIMEOUTbusy = 10").start();
    let to = server.address();
    let mut refused = 0;
    let mut crowd = Vec::new();
    for n in 0..count {
        match plain_from(to, source(n)) {
            Ok(stream) => {
                stream.set_nonblocking(true).expect("a stream that does not block");
                crowd.push(Stranger { stream, since: Instant::now(), said: 0, held: None });
            }
            Err(_) => refused += 1,
        }
    }
    let member = Member::start(to, Ipv4Addr::LOCALHOST);
    let start = Instant::now();
    let mut next = start;
    while start.elapsed() < LOOK {
        let drips = Instant::now() >= next;
        if drips {
            next += Duration::from_secs(1);
        }
        for (n, one) in crowd.iter_mut().enumerate() {
            if drips && n % 2 == 1 && one.held.is_none() {
                one.drip();
            }
            one.look();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let tally = member.finish();
    let left = crowd.iter().filter(|one| one.held.is_none()).count();
    let longest = crowd.iter().filter_map(|one| one.held).max().unwrap_or_default();
    let served = tally.times.len();
    let by_strangers = backend.accepted().saturating_sub(served + tally.failed);
    vec![
        measure("strangers", "", Bar::Told, (crowd.len() + refused) as f64),
        measure("of them not cut within 15 s", "", Bar::Exactly(0.0), left as f64),
        measure(
            "the longest that one of the others held on",
            "s",
            Bar::AtMost(11.0),
            longest.as_secs_f64(),
        ),
        measure(
            "a good client meanwhile: connect and answer, p99",
            "ms",
            Bar::AtMost(1000.0),
            tally.p99(),
        ),
        measure("its connections", "", Bar::AtLeast(20.0), served as f64),
        measure("its connections that failed", "", Bar::Exactly(0.0), tally.failed as f64),
        measure(
            "connections to the backend by strangers",
            "",
            Bar::Exactly(0.0),
            by_strangers as f64,
        ),
    ]
}

fn flood(maker: Maker, size: Size) -> Vec<Measure> {
    let lasts = Duration::from_secs(size.pick(5, 15));
    let backend = Backend::echo();
    let server = Order::server(maker, backend.address()).start();
    let to = server.address();
    let over = Arc::new(AtomicBool::new(false));
    let tried = Arc::new(AtomicU64::new(0));
    let strangers: Vec<_> = (0..8)
        .map(|n| {
            let (over, tried) = (Arc::clone(&over), Arc::clone(&tried));
            std::thread::spawn(move || {
                while !over.load(Ordering::Acquire) {
                    let from = Ipv4Addr::new(127, 0, 0, 2 + n);
                    // In 1.3 a client is done before the server has refused it.
                    if let Ok(mut stream) = tls_as(IDENTITY, OTHER_KEY, to, from) {
                        let _ = echo(&mut stream);
                    }
                    tried.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let before = server.lines();
    let member = Member::start(to, Ipv4Addr::LOCALHOST);
    std::thread::sleep(lasts);
    let tally = member.finish();
    let lines = server.lines() - before;
    over.store(true, Ordering::Release);
    for one in strangers {
        one.join().expect("a stranger");
    }
    let served = tally.times.len();
    // A member's session is a line when it opens and one when it ends.
    let by_strangers = lines.saturating_sub(2 * (served + tally.failed));
    let rate = by_strangers as f64 / lasts.as_secs_f64();
    vec![
        measure("handshakes of strangers", "", Bar::Told, tried.load(Ordering::Relaxed) as f64),
        measure(
            "a good client meanwhile: connect and answer, p99",
            "ms",
            Bar::AtMost(1000.0),
            tally.p99(),
        ),
        measure("its connections that failed", "", Bar::Exactly(0.0), tally.failed as f64),
        measure(
            "connections to the backend by strangers",
            "",
            Bar::Exactly(0.0),
            backend.accepted().saturating_sub(served + tally.failed) as f64,
        ),
        // Twenty at once, then one a second and what tells how many were withheld.
        measure("lines of the log about them, each second", "", Bar::AtMost(7.0), rate),
    ]
}

fn at_its_limit(maker: Maker, size: Size) -> Vec<Measure> {
    const MOST: usize = 50;
    let backend = Backend::echo();
    let server = Order::server(maker, backend.address())
        .secrets(&(secret(IDENTITY, KEY) + &secret("other", OTHER_KEY)))
        .lines(&format!("max-sessions-per-identity = {MOST}"), "")
        .start();
    let to = server.address();
    let held: Vec<_> = (0..MOST)
        .map(|_| {
            let mut one = tls_as("other", OTHER_KEY, to, Ipv4Addr::LOCALHOST).expect("a session");
            echo(&mut one).expect("an answer");
            one
        })
        .collect();
    let member = Member::start(to, Ipv4Addr::LOCALHOST);
    let (start, mut refused, mut let_in) = (Instant::now(), 0, 0);
    while start.elapsed() < Duration::from_secs(size.pick(3, 10)) {
        let more = tls_as("other", OTHER_KEY, to, Ipv4Addr::LOCALHOST);
        match more.and_then(|mut stream| echo(&mut stream)) {
            Ok(()) => let_in += 1,
            Err(_) => refused += 1,
        }
    }
    let tally = member.finish();
    drop(held);
    vec![
        measure(
            "sessions beyond the limit that were refused",
            "",
            Bar::AtLeast(10.0),
            f64::from(refused),
        ),
        measure(
            "sessions beyond the limit that were let in",
            "",
            Bar::Exactly(0.0),
            f64::from(let_in),
        ),
        measure(
            "another identity: connect and answer, p99",
            "ms",
            Bar::AtMost(1000.0),
            tally.p99(),
        ),
        measure("its connections that failed", "", Bar::Exactly(0.0), tally.failed as f64),
    ]
}

fn one_key_takes_all(maker: Maker, size: Size) -> Vec<Measure> {
    const OTHERS: usize = 50;
    let seats = size.pick(300, 2000);
    let good = size.pick(200, 1000);
    let backend = Backend::echo();
    let names: Vec<String> = (0..OTHERS).map(|n| format!("plc-{n}")).collect();
    let keys = names.iter().fold(secret(IDENTITY, KEY), |all, name| all + &secret(name, OTHER_KEY));
    let server = Order::server(maker, backend.address())
        .secrets(&keys)
        .lines(&format!("max-sessions = {seats}"), "")
        .start();
    let to = server.address();
    let open = |identity: &str, key: &str| {
        let stream = tls_as(identity, key, to, Ipv4Addr::LOCALHOST);
        stream.and_then(|mut stream| echo(&mut stream).map(|()| stream))
    };
    // Many clients that share one key on purpose, as the users of one IDE do.
    let clients: Vec<_> = (0..good).map_while(|_| open(IDENTITY, KEY).ok()).collect();
    let served = clients.len();
    let more: Vec<_> = (served..seats).map_while(|_| open(IDENTITY, KEY).ok()).collect();
    let others: Vec<_> = names.iter().filter_map(|name| open(name, OTHER_KEY).ok()).collect();
    let kept = seats / 10;
    let got = others.len();
    vec![
        measure("sessions of the service", "", Bar::Told, seats as f64),
        measure(
            "clients that share one key and come while there is room: served, of each hundred",
            "",
            Bar::Exactly(100.0),
            served as f64 * 100.0 / good as f64,
        ),
        measure(
            "sessions that one key could take",
            "",
            Bar::Exactly((seats - kept) as f64),
            (served + more.len()) as f64,
        ),
        measure(
            "others with a key of their own who came after it and got a session, of 50",
            "",
            Bar::Exactly(OTHERS.min(kept) as f64),
            got as f64,
        ),
    ]
}
