//! Floods of strangers: 2,000 addresses that connect 1,500 times a second and have no key, while good
//! clients connect from far away.

use std::net::SocketAddr;
use std::time::Duration;

use crate::Fault;
use crate::clients::{Client, Tally, attempt};
use crate::delayed_line::{DelayedLine, SERVER, client_address};
use crate::echo_backend::EchoBackend;
use crate::ends::{Maker, Order, context_of};
use crate::figure::Bar;
use crate::harness::{IDENTITY, KEY, OTHER_KEY, Tls as Version, secret};
use crate::results::{Measure, Size, measure};
use crate::strangers::{Flood, FloodPlan, Payload};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "S2",
        name: "flood-silent",
        about: "2,000 addresses connect 1,500 times a second and say nothing",
        quick: true,
        stunnel: true,
        run: |maker, size| flood(maker, size, Kind::Silent),
    },
    Fault {
        id: "S2",
        name: "flood-cut-short",
        about: "2,000 addresses send half a ClientHello 1,500 times a second",
        quick: false,
        stunnel: true,
        run: |maker, size| flood(maker, size, Kind::CutShort),
    },
    Fault {
        id: "S2",
        name: "flood-hellos-13",
        about: "2,000 addresses send a TLS 1.3 ClientHello of an unknown identity 1,500 times a second",
        quick: false,
        stunnel: true,
        run: |maker, size| flood(maker, size, Kind::Unknown13),
    },
    Fault {
        id: "S2",
        name: "flood-hellos-12",
        about: "2,000 addresses send a TLS 1.2 ClientHello 1,500 times a second and nothing after it",
        quick: true,
        stunnel: true,
        run: |maker, size| flood(maker, size, Kind::Unknown12),
    },
    Fault {
        id: "S2",
        name: "flood-slow-acks",
        about: "2,000 addresses connect 1,500 times a second, say nothing, and their packets take 0.9 s to be answered",
        quick: false,
        stunnel: true,
        run: |maker, size| flood(maker, size, Kind::SlowAcks),
    },
    Fault {
        id: "S2",
        name: "flood-replayed",
        about: "2,000 addresses replay one recorded ClientHello of a good client 1,500 times a second",
        quick: true,
        stunnel: true,
        run: |maker, size| flood(maker, size, Kind::Replayed),
    },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Silent,
    CutShort,
    Unknown13,
    Unknown12,
    SlowAcks,
    Replayed,
}

const SOURCES: usize = 2_000;
const CONNECTS_PER_S: usize = 1_500;
/// How long a stranger holds a connection: at this rate 13,500 at once, which one process's descriptors allow.
const HOLD: Duration = Duration::from_secs(9);
/// How long a good client waits for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that is locked out stops after this time. Ten attempts that succeed take less than half of it.
const ATTEMPTS_TIME: Duration = Duration::from_secs(25);
/// The good clients' round trips in milliseconds.
const ROUND_TRIPS_MS: [u64; 3] = [50, 100, 200];
/// An identity that the flood does not replay.
pub const OTHER: &str = "client2";
const PORT: u16 = 3001;

impl Kind {
    fn payload(self) -> Payload {
        match self {
            Self::Silent | Self::SlowAcks => Payload::none(),
            Self::CutShort => Payload::cut_short(),
            Self::Unknown13 => Payload::unknown_13(),
            Self::Unknown12 => Payload::unknown_12(),
            Self::Replayed => Payload::recorded(&context_of(Version::V13, IDENTITY, KEY)),
        }
    }

    /// The strangers' own round trip.
    fn rtt(self) -> Duration {
        match self {
            Self::SlowAcks => Duration::from_millis(900),
            _ => Duration::ZERO,
        }
    }
}

/// A good client, and what its figures are called.
#[derive(Debug, Clone, Copy)]
pub struct Good {
    identity: &'static str,
    version: Version,
    rtt_ms: u64,
}

impl Good {
    fn name(self) -> String {
        let which = if self.identity == OTHER { "" } else { "the replayed identity, " };
        let version = self.version.name().replace('v', " ");
        format!("{which}{version}, {} ms RTT", self.rtt_ms)
    }

    fn client(self, number: usize) -> Client {
        let key = if self.identity == OTHER { OTHER_KEY } else { KEY };
        Client {
            to: (SERVER, PORT).into(),
            from: client_address(Duration::from_millis(self.rtt_ms), number),
            tls: Some(context_of(self.version, self.identity, key)),
        }
    }
}

/// The clients that must be served during a flood.
pub fn good_clients(kind: Kind) -> Vec<Good> {
    let of = |version| {
        let one = move |rtt_ms| Good { identity: OTHER, version, rtt_ms };
        let replayed = Good { identity: IDENTITY, version, rtt_ms: 200 };
        ROUND_TRIPS_MS.map(one).into_iter().chain((kind == Kind::Replayed).then_some(replayed))
    };
    Version::BOTH.into_iter().flat_map(of).collect()
}

fn flood(maker: Maker, size: Size, kind: Kind) -> Vec<Measure> {
    let attempts = size.pick(5, 10);
    let line = DelayedLine::new();
    let backend = EchoBackend::start(&line.servers);
    let server = Order::server(maker, backend.address())
        .secrets(&(secret(IDENTITY, KEY) + &secret(OTHER, OTHER_KEY)))
        // stunnel's own limit is five minutes: it is given pskgate's.
        .lines("", "TIMEOUTbusy = 10")
        .accept(SocketAddr::from((SERVER, PORT)))
        .through(&line.servers.prefix())
        .start();
    let flood = start_flood(&line, kind);
    // Until the flood holds all that the server lets it hold.
    std::thread::sleep(Duration::from_secs(size.pick(2, 4)));
    let goods = good_clients(kind);
    let tallies = attempts_of(&line, &goods, attempts);
    let [begun, connected] = flood.rates();
    drop(flood);
    drop(server);
    let mut seen = vec![
        measure("connects of strangers, each second", "", Bar::AtLeast(1400.0), begun),
        measure("of them granted by TCP, each second", "", Bar::Told, connected),
    ];
    seen.extend(measures_of(&goods, &tallies, attempts));
    // A good client that was not answered may have reached the backend all the same.
    let by_strangers = backend.accepted().saturating_sub(goods.len() * attempts);
    let what = "connections to the backend by strangers";
    seen.push(measure(what, "", Bar::Exactly(0.0), by_strangers as f64));
    seen
}

/// How many attempts of each good client got in, which must be all, and the slowest answer.
pub fn measures_of(goods: &[Good], tallies: &[Tally], attempts: usize) -> Vec<Measure> {
    let (mut seen, mut slowest) = (Vec::new(), 0.0_f64);
    for (good, tally) in goods.iter().zip(tallies) {
        let name = format!("{}: got in, of {attempts} attempts", good.name());
        let got_in = tally.served.len();
        if let Some(failure) = tally.failures.first() {
            println!("  {name}: {failure:?}");
        }
        slowest = slowest.max(tally.slowest());
        seen.push(measure(&name, "", Bar::Exactly(attempts as f64), got_in as f64));
    }
    seen.push(measure("the slowest of their answers", "s", Bar::Told, slowest));
    seen
}

pub fn start_flood(line: &DelayedLine, kind: Kind) -> Flood {
    // Good clients have the first addresses of their round trips.
    let from = (0..SOURCES).map(|number| client_address(kind.rtt(), 100 + number)).collect();
    let to = (SERVER, PORT).into();
    let (payload, hold) = (kind.payload(), HOLD);
    let plan = FloodPlan { to, from, payload, connects_per_s: CONNECTS_PER_S, hold };
    Flood::start(&line.clients, plan)
}

/// Every good client connects `attempts` times, all clients at the same time.
pub fn attempts_of(line: &DelayedLine, goods: &[Good], attempts: usize) -> Vec<Tally> {
    let clients: Vec<_> =
        goods.iter().enumerate().map(|(number, good)| good.client(number)).collect();
    let visits = move || async move {
        let begun: Vec<_> = clients
            .into_iter()
            .map(|one| tokio::spawn(attempt(one, attempts, ANSWER_TIMEOUT, ATTEMPTS_TIME)))
            .collect();
        let mut tallies = Vec::new();
        for one in begun {
            tallies.push(one.await.expect("a good client"));
        }
        tallies
    };
    line.clients.run(visits).join().expect("the good clients")
}
