//! SIGTERM: what goes at once, what is finished, and what ends it all the same.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::Fault;
use crate::ends::{End, Maker, Order, Tls, tls};
use crate::figure::Bar;
use crate::harness::{Backend, Stream, until};
use crate::results::{Measure, Size, measure, measure_or};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "L10",
        name: "sigterm-in-a-transfer",
        about: "SIGTERM in the middle of a transfer to a reader that takes its time",
        quick: true,
        stunnel: true,
        run: transfer,
    },
    Fault {
        id: "L10",
        name: "sigterm-deadline",
        about: "SIGTERM while a session never ends, with 2 s to drain",
        quick: true,
        stunnel: true,
        run: |maker, _| endless(maker, false),
    },
    Fault {
        id: "L10",
        name: "second-sigterm",
        about: "a second SIGTERM while a session never ends, with 60 s to drain",
        quick: true,
        stunnel: true,
        run: |maker, _| endless(maker, true),
    },
];

fn order(maker: Maker, backend: &Backend, drain: &str) -> Order {
    // A disk that others write to may take its time to remove a file.
    let order = Order::server(maker, backend.address()).in_memory();
    let pid = order.folder().join("pid");
    let pid = pid.display();
    order.head(
        &format!("pid-file = \"{pid}\"\ndrain-timeout = \"{drain}\""),
        &format!("pid = {pid}"),
    )
}

/// Milliseconds from now until there is no listener and no pid file.
fn gone(end: &End) -> Option<f64> {
    let start = Instant::now();
    let pid = end.folder().join("pid");
    while start.elapsed() < Duration::from_secs(10) {
        // Nobody else can listen there before; reading the kernel's table takes longer.
        if !pid.exists() && TcpListener::bind(end.address()).is_ok() {
            return Some(start.elapsed().as_secs_f64() * 1000.0);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

fn exit_code(end: &mut End, patience: Duration) -> Option<f64> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if let Some(status) = end.ended() {
            // A signal is told as shells do.
            use std::os::unix::process::ExitStatusExt;
            let code = status.code().or_else(|| status.signal().map(|number| 128 + number));
            return code.map(f64::from);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

fn transfer(maker: Maker, size: Size) -> Vec<Measure> {
    let total: u64 = size.pick(10_000_000, 30_000_000);
    let data = Stream::new(10);
    let source = data.clone();
    let backend = Backend::new(move |mut to| {
        to.read_exact(&mut [0]).ok()?;
        source.send(to, total).ok()?;
        to.shutdown(Shutdown::Write).ok()?;
        to.read(&mut [0]).ok();
        None
    });
    let mut server = order(maker, &backend, "60s").start();
    let mut stream = tls(server.address(), Ipv4Addr::LOCALHOST).expect("a session");
    stream.write_all(b"!").expect("asked");
    let mut piece = vec![0; 64 << 10];
    let mut at = 0;
    let mut asked = None;
    let mut off = None;
    let mut whole = false;
    loop {
        if at >= total / 10 && asked.is_none() {
            server.signal(Signal::TERM);
            asked = Some(Instant::now());
            off = gone(&server);
        }
        match stream.read(&mut piece) {
            Ok(0) => {
                whole = stream.get_shutdown().contains(openssl::ssl::ShutdownState::RECEIVED);
                break;
            }
            Ok(count) if data.piece(at, count) == &piece[..count] => at += count as u64,
            _ => break,
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let partial = whole && at < total;
    drop(stream);
    let code = exit_code(&mut server, Duration::from_secs(10));
    vec![
        measure_or(
            "until listener and pid file are gone",
            "ms",
            Bar::AtMost(100.0),
            off,
            "not within 10 s",
        ),
        measure(
            &format!("bytes of {total} that arrive exactly"),
            "",
            Bar::Exactly(total as f64),
            at as f64,
        ),
        measure("partial answers with an orderly end", "", Bar::Exactly(0.0), f64::from(partial)),
        measure_or("exit code", "", Bar::Exactly(0.0), code, "it runs still"),
    ]
}

/// Something goes through it for ever.
fn forever() -> Backend {
    Backend::new(|mut to| {
        while to.write_all(&[b'x'; 100]).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    })
}

fn endless(maker: Maker, again: bool) -> Vec<Measure> {
    let backend = forever();
    let drain = if again { "60s" } else { "2s" };
    let mut server = order(maker, &backend, drain).start();
    let mut stream = tls(server.address(), Ipv4Addr::LOCALHOST).expect("a session");
    stream.write_all(b"!").and_then(|()| stream.read_exact(&mut [0; 50])).expect("it goes on");
    let reader =
        std::thread::spawn(move || while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {});
    server.signal(Signal::TERM);
    let mut start = Instant::now();
    let off = gone(&server);
    let off = measure_or(
        "until listener and pid file are gone",
        "ms",
        Bar::AtMost(100.0),
        off,
        "not within 10 s",
    );
    if again && server.ended().is_none() {
        std::thread::sleep(Duration::from_secs(1));
        if server.ended().is_none() {
            server.signal(Signal::TERM);
        }
        start = Instant::now();
    }
    let code = exit_code(&mut server, Duration::from_secs(20));
    let took = start.elapsed().as_secs_f64() * 1000.0;
    drop(server);
    reader.join().expect("a reader");
    match again {
        false => vec![
            off,
            // Its backend takes the end and does not give its own: a second is waited for that.
            measure("until the process has ended", "ms", Bar::AtMost(3500.0), took),
            measure_or("exit code", "", Bar::Exactly(0.0), code, "it runs still"),
        ],
        true => vec![
            off,
            measure("until the process has ended", "ms", Bar::AtMost(1000.0), took),
            measure_or("exit code (not 0)", "", Bar::AtLeast(1.0), code, "it runs still"),
        ],
    }
}
