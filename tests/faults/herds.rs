//! Herds: hundreds of good clients that connect in the same moment, as they do after a power cut or when
//! a switch comes back. Near and far, from one address and from many, to one end and through both.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use openssl::ssl::SslContext;

use crate::Fault;
use crate::byte_relay::ByteRelay;
use crate::clients::{Client, Tally, connect_at_once};
use crate::delayed_line::{DelayedLine, Host, SERVER, client_address};
use crate::echo_backend::EchoBackend;
use crate::ends::{Dialect, End, Maker, Order, context_of};
use crate::figure::Bar;
use crate::harness::{IDENTITY, KEY, Tls as Version};
use crate::results::{Measure, Size, measure};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "S1",
        name: "herd",
        about: "good clients that connect at once to a server end",
        quick: true,
        stunnel: true,
        run: |maker, size| herds(maker, Dialect::Native, Ends::Server, size),
    },
    Fault {
        id: "S1",
        name: "herd-stunnel-conf",
        about: "good clients that connect at once to a server end with a stunnel.conf",
        quick: false,
        stunnel: false,
        run: |maker, size| herds(maker, Dialect::StunnelConf, Ends::Server, size),
    },
    Fault {
        id: "S1",
        name: "herd-both-ends",
        about: "plain clients that connect at once to a client end, and a server end behind it",
        quick: true,
        stunnel: true,
        run: |maker, size| herds(maker, Dialect::Native, Ends::Both, size),
    },
    Fault {
        id: "S1",
        name: "herd-both-ends-stunnel-conf",
        about: "plain clients that connect at once to a client end, and a server end behind it, each with a stunnel.conf",
        quick: false,
        stunnel: false,
        run: |maker, size| herds(maker, Dialect::StunnelConf, Ends::Both, size),
    },
];

/// How long a client waits for its answer. It is no figure: a server that never answers must not hold up
/// the rest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Where an end listens at the far end of a line.
const PORT: u16 = 3001;

/// What the clients meet first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Server,
    Both,
}

/// What lies between the clients and the server end, or between the client end and the server end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// The loopback.
    Short,
    /// A line with a delay that TCP sees.
    Line(Duration),
    /// A relay with a delay that TCP does not see.
    Relay(Duration),
}

impl Route {
    fn rtt(self) -> Duration {
        match self {
            Self::Short => Duration::ZERO,
            Self::Line(rtt) | Self::Relay(rtt) => rtt,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Short => "no delay".to_owned(),
            Self::Line(rtt) => format!("{} ms RTT", rtt.as_millis()),
            Self::Relay(rtt) => format!("{} ms RTT through a relay of bytes", rtt.as_millis()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Case {
    count: usize,
    many_sources: bool,
    route: Route,
    version: Version,
}

impl Case {
    fn name(self, ends: Ends) -> String {
        let Self { count, many_sources, route, version } = self;
        let from = match (ends, many_sources) {
            (Ends::Both, _) => "",
            (Ends::Server, false) => " from one address",
            (Ends::Server, true) => " from as many addresses",
        };
        let version = match version {
            Version::V12 => ", TLS 1.2",
            Version::V13 => "",
        };
        format!("{count} at once{from}, {}{version}", route.name())
    }
}

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// The herds of a fault.
fn cases(maker: Maker, dialect: Dialect, ends: Ends, size: Size) -> Vec<Case> {
    let case =
        |count, many_sources, route| Case { count, many_sources, route, version: Version::V13 };
    let all = [
        Route::Short,
        Route::Line(ms(100)),
        Route::Line(ms(300)),
        Route::Relay(ms(100)),
        Route::Relay(ms(300)),
    ];
    let far = [Route::Short, Route::Line(ms(300)), Route::Relay(ms(300))];
    let is_short = size == Size::Quick || dialect == Dialect::StunnelConf;
    let routes = if is_short { &far[..] } else { &all[..] };
    let mut cases: Vec<Case> = routes.iter().map(|route| case(1000, false, *route)).collect();
    if ends == Ends::Server {
        cases.extend(routes.iter().map(|route| case(1000, true, *route)));
    }
    if !is_short || maker == Maker::Stunnel {
        cases.extend(far.map(|route| case(300, false, route)));
        if ends == Ends::Server {
            let older = |case| Case { version: Version::V12, ..case };
            cases.extend(far.map(|route| older(case(1000, false, route))));
        }
    }
    cases
}

fn herds(maker: Maker, dialect: Dialect, ends: Ends, size: Size) -> Vec<Measure> {
    let line = DelayedLine::new();
    let (mut seen, mut cut) = (Vec::new(), 0);
    for case in cases(maker, dialect, ends, size) {
        let tally = match ends {
            Ends::Server => before_a_server(maker, dialect, &line, case),
            Ends::Both => before_both_ends(maker, dialect, &line, case),
        };
        let name = case.name(ends);
        // Asking takes a round trip behind the one or two of the handshake, or else nothing was delayed.
        assert!(tally.fastest() >= 2 * case.route.rtt(), "{name}: {:?}", tally.fastest());
        cut += tally.cut();
        let (served, all) = (tally.served.len() as f64, case.count as f64);
        if let Some(failure) = tally.failures.first() {
            println!("  {name}: {failure:?}, and {} more failures", tally.failures.len() - 1);
        }
        seen.push(measure(&format!("{name}: served"), "", Bar::Exactly(all), served));
        let slowest = tally.slowest();
        seen.push(measure(&format!("{name}: the slowest answer"), "s", Bar::Told, slowest));
    }
    seen.push(measure(
        "connections reset or closed before the answer, in all",
        "",
        Bar::Exactly(0.0),
        cut as f64,
    ));
    seen
}

/// A server end, what is behind it, and where it is.
struct Served {
    server: End,
    _backend: EchoBackend,
}

impl Served {
    fn start(maker: Maker, dialect: Dialect, line: &DelayedLine, route: Route) -> Self {
        let here = Host::here();
        let host = if matches!(route, Route::Line(_)) { &line.servers } else { &here };
        let backend = EchoBackend::start(host);
        let mut order = Order::server(maker, backend.address()).dialect(dialect);
        if let Route::Line(rtt) = route {
            line.route_from(rtt);
            order = order.accept(SocketAddr::from((SERVER, PORT))).through(&host.prefix());
        }
        Self { server: order.start(), _backend: backend }
    }
}

fn before_a_server(maker: Maker, dialect: Dialect, line: &DelayedLine, case: Case) -> Tally {
    let served = Served::start(maker, dialect, line, case.route);
    let relay = relay(served.server.address(), case.route);
    let to = relay.as_ref().map_or(served.server.address(), ByteRelay::address);
    let context = context_of(case.version, IDENTITY, KEY);
    let client = |number: usize| {
        let number = if case.many_sources { number } else { 0 };
        let from = match case.route {
            Route::Line(rtt) => client_address(rtt, number),
            Route::Short | Route::Relay(_) => loopback(number),
        };
        Client { to, from, tls: Some(SslContext::clone(&context)) }
    };
    let clients = (0..case.count).map(client).collect();
    let here = Host::here();
    let host = if matches!(case.route, Route::Line(_)) { &line.clients } else { &here };
    connect_at_once(host, clients, ANSWER_TIMEOUT)
}

fn before_both_ends(maker: Maker, dialect: Dialect, line: &DelayedLine, case: Case) -> Tally {
    let served = Served::start(maker, dialect, line, case.route);
    let relay = relay(served.server.address(), case.route);
    let to = relay.as_ref().map_or(served.server.address(), ByteRelay::address);
    let here = Host::here();
    let host = if matches!(case.route, Route::Line(_)) { &line.clients } else { &here };
    let client = Order::client(maker, to).dialect(dialect).through(&host.prefix()).start();
    let one = Client { to: client.address(), from: Ipv4Addr::LOCALHOST, tls: None };
    connect_at_once(host, vec![one; case.count], ANSWER_TIMEOUT)
}

fn relay(to: SocketAddr, route: Route) -> Option<ByteRelay> {
    match route {
        Route::Relay(rtt) => Some(ByteRelay::start(to, rtt)),
        Route::Short | Route::Line(_) => None,
    }
}

/// An address of the loopback's, 127.0.0.1 first.
fn loopback(number: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(number + 1).expect("at most 65,535 clients").to_be_bytes();
    Ipv4Addr::new(127, 0, high, low)
}
