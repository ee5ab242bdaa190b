//! What a program does beside its sessions: memory after a start, a look at very many keys, ticket keys of a
//! quiet server, orphans of a container, and scrapes beside a local flood.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use openssl::ssl::{Ssl, SslContext, SslMethod, SslSessionCacheMode, SslVerifyMode, SslVersion};

use crate::Fault;
use crate::ends::{Maker, Order, echo, plain_from};
use crate::figure::Bar;
use crate::harness::openssl::present;
use crate::harness::process::{children_of, pskgate};
use crate::harness::process_memory::{count, memory};
use crate::harness::web::{Flood, Habit, scrape};
use crate::harness::{
    Backend, IDENTITY, KEY, PskgateBuilder, WAIT_TIMEOUT, free_port, local, server_toml, until,
};
use crate::results::{Measure, Size, measure, measure_or};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "S9",
        name: "memory-at-start",
        about: "a start with one service, and nobody who connects",
        quick: true,
        stunnel: true,
        run: memory_at_start,
    },
    Fault {
        id: "S10",
        name: "remarks",
        about: "`check` of 100,000 identities, with a remark on each and without",
        quick: true,
        stunnel: false,
        run: remarks,
    },
    Fault {
        id: "S13",
        name: "quiet-tickets",
        about: "a server that gave a ticket of 2 s, and to which nobody connects after that",
        quick: true,
        stunnel: false,
        run: quiet_tickets,
    },
    Fault {
        id: "S17",
        name: "orphans",
        about: "as PID 1 of a namespace, programs of `exec` that leave processes behind",
        quick: true,
        stunnel: false,
        run: orphans,
    },
    Fault {
        id: "S20",
        name: "scrapes",
        about: "290 local connections a second at the HTTP endpoint, and a scrape that has 5 s",
        quick: true,
        stunnel: false,
        run: scrapes,
    },
];

fn memory_at_start(maker: Maker, _: Size) -> Vec<Measure> {
    let backend = Backend::echo();
    let server = Order::server(maker, backend.address()).start();
    let (mut last, mut since) = (server.resident(), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(10));
        let now = server.resident();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    vec![
        measure("memory at start, pages of files included", "MB", Bar::Told, megabytes(last)),
        measure("of it the program's own", "MB", Bar::AtMost(5.0), megabytes(server.anonymous())),
    ]
}

/// Keys of 16 characters are remarked on, those of 32 are not. Neither looks like hexadecimal digits.
fn keys(number: usize, width: usize) -> String {
    (0..number).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "plc-{n:06}:zyxw{n:0>0$}", width - 4);
        text
    })
}

fn remarks(_: Maker, _: Size) -> Vec<Measure> {
    let check = |number, width| {
        let gate = PskgateBuilder::new().file("psk.txt", &keys(number, width));
        let gate = gate.toml(&server_toml("127.0.0.1:9", ""));
        let once = || {
            let start = Instant::now();
            assert_eq!(pskgate(gate.folder(), &["check", "pskgate.toml"]).code, Some(0));
            start.elapsed().as_secs_f64()
        };
        (0..3).map(|_| once()).fold(f64::MAX, f64::min)
    };
    let (few, many) = (check(10_000, 16), check(100_000, 16));
    let (few_plain, many_plain) = (check(10_000, 32), check(100_000, 32));
    vec![
        measure("100,000 identities without a remark", "s", Bar::Told, many_plain),
        measure("with a remark on each: more", "s", Bar::AtMost(1.0), many - many_plain),
        measure(
            "100,000 beside 10,000 without a remark",
            "times",
            Bar::Told,
            many_plain / few_plain,
        ),
        measure("100,000 beside 10,000 with them", "times", Bar::AtMost(15.0), many / few),
    ]
}

/// The name of the keys of a ticket that this server gives.
fn ticket_name(to: std::net::SocketAddr) -> Option<Vec<u8>> {
    use std::sync::{Arc, Mutex};
    let kept = Arc::new(Mutex::new(None));
    let mut builder = SslContext::builder(SslMethod::tls_client()).ok()?;
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
    builder.set_min_proto_version(Some(SslVersion::TLS1_3)).ok()?;
    present(&mut builder, IDENTITY, KEY);
    let place = Arc::clone(&kept);
    builder.set_new_session_callback(move |_, session| {
        *place.lock().expect("a place") = session.to_der().ok();
    });
    let ssl = Ssl::new(&builder.build()).ok()?;
    let stream = plain_from(to, std::net::Ipv4Addr::LOCALHOST).ok()?;
    let mut stream = ssl.connect(stream).ok()?;
    // Tickets come before the first data.
    echo(&mut stream).ok()?;
    let der = kept.lock().expect("a place").take()?;
    // `[10] EXPLICIT OCTET STRING`, whose lengths have two bytes: a ticket has some 200 bytes.
    let at = der.windows(7).position(|head| matches!(head, [0xaa, 0x81, _, 4, 0x81, _, _]))?;
    der.get(at + 6..at + 22).map(<[u8]>::to_vec)
}

fn quiet_tickets(maker: Maker, _: Size) -> Vec<Measure> {
    let backend = Backend::echo();
    let lines = "resumption = true\nresumption-timeout = \"2s\"";
    let server = Order::server(maker, backend.address()).lines(lines, "").start();
    let name = ticket_name(server.address()).expect("a ticket");
    let start = Instant::now();
    let there = count(&memory(server.id()), &name);
    let mut gone = None;
    while gone.is_none() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(200));
        gone = (count(&memory(server.id()), &name) == 0).then(|| start.elapsed().as_secs_f64());
    }
    vec![
        measure("its ticket keys in memory", "times", Bar::AtLeast(1.0), there as f64),
        measure_or("until they are wiped", "s", Bar::AtMost(20.0), gone, "never"),
    ]
}

fn orphans(_: Maker, size: Size) -> Vec<Measure> {
    let sessions = size.pick(20, 200);
    let script = "(exit 3) & (sleep 0.2; exit 4) & (sleep 0.4 &) & echo done; exit 7";
    let toml = format!(
        "[services.tls]\nmode = \"server\"\naccept = \"127.0.0.1:0\"\nexec = \"/bin/sh\"\n\
         exec-args = [\"sh\", \"-c\", {script:?}]\npsk-secrets = \"psk.txt\"\n"
    );
    let gate = PskgateBuilder::new()
        .shell("exec unshare --pid --fork --mount-proc --kill-child \"$@\"")
        .toml(&toml)
        .start();
    let init = until("the program in its namespace", WAIT_TIMEOUT, || {
        Some(children_of(gate.id()).first()?.0)
    });
    let served = (0..sessions)
        .filter(|_| {
            let stream = crate::ends::tls(gate.address("tls"), std::net::Ipv4Addr::LOCALHOST);
            let mut said = [0; 5];
            stream.is_ok_and(|mut stream| {
                std::io::Read::read_exact(&mut stream, &mut said).is_ok() && &said == b"done\n"
            })
        })
        .count();
    // The last of them sleeps for 0.4 s.
    let start = Instant::now();
    while !children_of(init).is_empty() && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let statuses = gate.log().matches("finished with code 7").count();
    vec![
        measure("sessions served", "", Bar::Exactly(sessions as f64), served as f64),
        measure(
            "exit statuses of programs that were told",
            "",
            Bar::Exactly(sessions as f64),
            statuses as f64,
        ),
        measure("children left 5 s later", "", Bar::Exactly(0.0), children_of(init).len() as f64),
    ]
}

fn scrapes(_: Maker, _: Size) -> Vec<Measure> {
    const RATE: u32 = 290;
    const SCRAPES: usize = 64;
    let backend = Backend::echo();
    let at = local(free_port());
    let toml = format!("[http]\nlisten = \"{at}\"\n") + &server_toml(backend.address(), "");
    let _gate = PskgateBuilder::new().toml(&toml).start();
    let mut measures = Vec::new();
    for (habit, what) in [
        (Habit::AskAndLeave, "who ask and leave"),
        (Habit::AskAndStay, "who ask and stay"),
        (Habit::Silent, "who are silent"),
        (Habit::HalfARequest, "who say half a request"),
    ] {
        let flood = Flood::start(at, RATE, habit);
        until("the flood to have come", WAIT_TIMEOUT, || (flood.made() > 100).then_some(()));
        let (made, start) = (flood.made(), Instant::now());
        let times: Vec<_> =
            (0..SCRAPES).filter_map(|_| scrape(at, Duration::from_secs(5)).ok()).collect();
        let rate = (flood.made() - made) as f64 / start.elapsed().as_secs_f64();
        let slowest = times.iter().max().map(|time| time.as_secs_f64() * 1000.0);
        measures.extend([
            measure(&format!("connections a second, {what}"), "", Bar::Told, rate),
            measure(
                &format!("scrapes of {SCRAPES} that were answered beside those {what}"),
                "",
                Bar::Exactly(SCRAPES as f64),
                times.len() as f64,
            ),
            measure_or("the slowest of them", "ms", Bar::AtMost(5000.0), slowest, "none"),
        ]);
    }
    measures
}
