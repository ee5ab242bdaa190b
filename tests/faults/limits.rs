//! A thousand good clients and few resources: 1,024 descriptors, 64 MB of memory, or a holder of a good
//! key that opens sessions without end.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use openssl::ssl::SslContext;

use crate::Fault;
use crate::clients::{
    Client, Failure, Tally, connect_at_once, connect_at_once_and_stay, keep_opening,
};
use crate::delayed_line::{DelayedLine, Host, SERVER, client_address};
use crate::echo_backend::EchoBackend;
use crate::ends::{End, Maker, Order, context};
use crate::figure::Bar;
use crate::floods::{self, OTHER};
use crate::harness::{IDENTITY, KEY, OTHER_KEY, secret};
use crate::memory_limit::MemoryLimit;
use crate::results::{Measure, Size, measure, measure_or};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "S1",
        name: "herd-1024-descriptors",
        about: "1,000 good clients at once, and 1,024 descriptors",
        quick: true,
        stunnel: true,
        run: few_descriptors,
    },
    Fault {
        id: "S1",
        name: "herd-64-mb",
        about: "1,000 good clients at once, and 64 MB of memory (a control group)",
        quick: true,
        stunnel: true,
        run: herd_with_little_memory,
    },
    Fault {
        id: "S2",
        name: "flood-64-mb",
        about: "a flood of ClientHellos, single good clients and then 1,000 at once, and 64 MB of memory",
        quick: true,
        stunnel: true,
        run: flood_with_little_memory,
    },
    Fault {
        id: "S1",
        name: "endless-sessions",
        about: "one good key opens sessions without end while 100 other identities connect",
        quick: true,
        stunnel: true,
        run: endless_sessions,
    },
];

const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const RTT: Duration = Duration::from_millis(100);
const PORT: u16 = 3001;
const HERD: usize = 1_000;

fn few_descriptors(maker: Maker, _: Size) -> Vec<Measure> {
    // A client waits for 30 s at most before it is refused.
    const DECISION_TIMEOUT: Duration = Duration::from_secs(60);
    /// Two descriptors for each session, and a fifth of the 1,024 for everything else.
    const MIN_SESSIONS: f64 = 400.0;
    let here = Host::here();
    let backend = EchoBackend::start(&here);
    let server = Order::server(maker, backend.address())
        .head("[log]\nformat = \"json\"", "")
        .shell("ulimit -n 1024")
        .start();
    let client = |number| {
        let [high, low] = u16::try_from(number + 256).expect("a small number").to_be_bytes();
        let from = Ipv4Addr::new(127, 0, high, low);
        Client { to: server.address(), from, tls: Some(context(IDENTITY, KEY)) }
    };
    let herd = || (0..HERD).map(client).collect();
    let brief = connect_at_once(&here, herd(), ANSWER_TIMEOUT);
    let staying = connect_at_once_and_stay(&here, herd(), DECISION_TIMEOUT);
    let lines = lines_about_the_limit(maker, &server.text());
    let afterwards = connect_at_once(&here, vec![client(0)], ANSWER_TIMEOUT);
    print_first_failure("clients that close", &brief);
    print_first_failure("clients that stay", &staying);
    let undecided = staying.count_of(&Failure::TimedOut);
    let count = |tally: &Tally| tally.served.len() as f64;
    vec![
        measure(
            "clients that ask once and close: served",
            "",
            Bar::Exactly(HERD as f64),
            count(&brief),
        ),
        measure("of them cut", "", Bar::Exactly(0.0), brief.cut() as f64),
        measure("the slowest answer", "s", Bar::Told, brief.slowest()),
        measure("clients that stay: served", "", Bar::AtLeast(MIN_SESSIONS), count(&staying)),
        measure(
            "of them neither served nor refused within 60 s",
            "",
            Bar::Exactly(0.0),
            undecided as f64,
        ),
        measure("lines of the log about the limit of sessions", "", Bar::AtLeast(1.0), lines),
        measure(
            "one more client after they have gone: served",
            "",
            Bar::Exactly(1.0),
            count(&afterwards),
        ),
    ]
}

/// How many lines of a log tell that there are no more sessions.
fn lines_about_the_limit(maker: Maker, log: &str) -> f64 {
    let words = match maker {
        Maker::Pskgate => "service-full",
        Maker::Stunnel => "too many clients",
    };
    log.lines().filter(|line| line.contains(words)).count() as f64
}

fn print_first_failure(who: &str, tally: &Tally) {
    if let Some(failure) = tally.failures.first() {
        println!("  {who}: {failure:?}, and {} more failures", tally.failures.len() - 1);
    }
}

const LITTLE_MEMORY: u64 = 64 << 20;

/// A server end under a limit of memory, which must live longer than the server.
struct SmallServer {
    server: End,
    _backend: EchoBackend,
    line: DelayedLine,
    limit: MemoryLimit,
}

impl SmallServer {
    /// Nothing where the system offers no such limit.
    fn start(maker: Maker) -> Option<Self> {
        let limit = MemoryLimit::new(LITTLE_MEMORY)?;
        let line = DelayedLine::new();
        let backend = EchoBackend::start(&line.servers);
        let server = Order::server(maker, backend.address())
            .secrets(&(secret(IDENTITY, KEY) + &secret(OTHER, OTHER_KEY)))
            .lines("", "TIMEOUTbusy = 10")
            .accept(SocketAddr::from((SERVER, PORT)))
            .through(&line.servers.prefix())
            .shell(&limit.shell())
            .start();
        Some(Self { server, _backend: backend, line, limit })
    }

    fn connect_herd(&self) -> Tally {
        let tls = context(IDENTITY, KEY);
        let client = |number| Client {
            to: SocketAddr::from((SERVER, PORT)),
            from: client_address(RTT, 10 + number),
            tls: Some(SslContext::clone(&tls)),
        };
        let herd = (0..HERD).map(client).collect();
        let tally = connect_at_once_and_stay(&self.line.clients, herd, ANSWER_TIMEOUT);
        print_first_failure("the herd", &tally);
        tally
    }

    /// Whether it bore that, and with how much memory.
    fn measures(&mut self) -> Vec<Measure> {
        let lives = self.server.ended().is_none();
        let peak = self.limit.peak().map(|bytes| bytes / 1e6);
        let killed = "processes killed for want of memory";
        vec![
            measure("the server still runs", "", Bar::Exactly(1.0), f64::from(lives)),
            measure_or(killed, "", Bar::Exactly(0.0), self.limit.killed(), "?"),
            measure_or("the most memory that the group used", "MB", Bar::Told, peak, "unknown"),
        ]
    }
}

fn no_limit_of_memory() -> Vec<Measure> {
    let what = "a control group with a limit of memory";
    vec![measure_or(what, "", Bar::Exactly(1.0), None, "not to be had here")]
}

fn herd_with_little_memory(maker: Maker, _: Size) -> Vec<Measure> {
    let Some(mut small) = SmallServer::start(maker) else { return no_limit_of_memory() };
    let tally = small.connect_herd();
    let served = tally.served.len() as f64;
    let mut seen = vec![
        measure("served, and open at once", "", Bar::Exactly(HERD as f64), served),
        measure("of them cut", "", Bar::Exactly(0.0), tally.cut() as f64),
        measure("the slowest answer", "s", Bar::Told, tally.slowest()),
    ];
    seen.extend(small.measures());
    seen
}

fn flood_with_little_memory(maker: Maker, size: Size) -> Vec<Measure> {
    let Some(mut small) = SmallServer::start(maker) else { return no_limit_of_memory() };
    let attempts = size.pick(5, 10);
    // Of all floods this one makes the server keep most memory for each connection: OpenSSL's state.
    let kind = floods::Kind::Unknown12;
    let flood = floods::start_flood(&small.line, kind);
    // Until the addresses of the flood are known for their failures: places are few, and it takes each two.
    std::thread::sleep(Duration::from_secs(5));
    let goods = floods::good_clients(kind);
    let tallies = floods::attempts_of(&small.line, &goods, attempts);
    let herd = small.connect_herd();
    drop(flood);
    let mut seen = floods::measures_of(&goods, &tallies, attempts);
    let served = herd.served.len() as f64;
    let bar = Bar::Exactly(HERD as f64);
    seen.push(measure("of 1,000 more good clients at once: served", "", bar, served));
    seen.extend(small.measures());
    seen
}

fn endless_sessions(maker: Maker, size: Size) -> Vec<Measure> {
    const OTHERS: usize = 100;
    /// Sessions that are being opened in each moment.
    const AT_ONCE: usize = 64;
    /// Sessions kept open, fewer than the limit of sessions: how these are shared is S16. Beyond it the
    /// oldest ends.
    const KEPT: usize = 4_000;
    let line = DelayedLine::new();
    let backend = EchoBackend::start(&line.servers);
    let identities: String =
        (0..OTHERS).map(|number| secret(&format!("other{number}"), OTHER_KEY)).collect();
    let server = Order::server(maker, backend.address())
        .secrets(&(secret(IDENTITY, KEY) + &identities))
        .accept(SocketAddr::from((SERVER, PORT)))
        .through(&line.servers.prefix())
        .start();
    let to = SocketAddr::from((SERVER, PORT));
    let (over, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let hostile =
        Client { to, from: client_address(Duration::ZERO, 0), tls: Some(context(IDENTITY, KEY)) };
    let shared = (Arc::clone(&over), Arc::clone(&opened));
    let thread = line
        .clients
        .run(move || keep_opening(hostile, AT_ONCE, KEPT / AT_ONCE, shared.0, shared.1));
    std::thread::sleep(Duration::from_secs(size.pick(2, 5)));
    let client = |number| Client {
        to,
        from: client_address(RTT, number),
        tls: Some(context(&format!("other{number}"), OTHER_KEY)),
    };
    let herd = (0..OTHERS).map(client).collect();
    let tally = connect_at_once(&line.clients, herd, ANSWER_TIMEOUT);
    over.store(true, Ordering::Release);
    thread.join().expect("the holder of the key");
    drop(server);
    print_first_failure("the others", &tally);
    let opened = opened.load(Ordering::Relaxed) as f64;
    let served = tally.served.len() as f64;
    vec![
        measure("sessions that the one key opened", "", Bar::AtLeast(500.0), opened),
        measure("the others: served", "", Bar::Exactly(OTHERS as f64), served),
        measure("of them cut", "", Bar::Exactly(0.0), tally.cut() as f64),
        measure("the slowest answer", "s", Bar::Told, tally.slowest()),
    ]
}
