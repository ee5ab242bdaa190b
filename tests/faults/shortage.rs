//! What the system gives runs out: descriptors by limit, and every error of `accept` by injection.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::Fault;
use crate::ends::{End, Maker, Order, echo, plain_from, tls};
use crate::figure::Bar;
use crate::harness::{Backend, Process, WAIT_TIMEOUT, until};
use crate::results::{Measure, Size, measure, measure_or};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "L3",
        name: "descriptors",
        about: "64 descriptors, and a hundred connections that stay",
        quick: true,
        stunnel: true,
        run: descriptors,
    },
    Fault {
        id: "L3",
        name: "enfile",
        about: "accept fails with ENFILE for 5 s (strace)",
        quick: true,
        stunnel: true,
        run: |maker, _| injected(maker, "ENFILE"),
    },
    Fault {
        id: "L3",
        name: "enomem",
        about: "accept fails with ENOMEM for 5 s (strace)",
        quick: false,
        stunnel: true,
        run: |maker, _| injected(maker, "ENOMEM"),
    },
    Fault {
        id: "L3",
        name: "emfile",
        about: "accept fails with EMFILE for 5 s (strace)",
        quick: false,
        stunnel: true,
        run: |maker, _| injected(maker, "EMFILE"),
    },
    Fault {
        id: "L3",
        name: "econnaborted",
        about: "accept fails fifty times with ECONNABORTED (strace)",
        quick: true,
        stunnel: true,
        run: aborted,
    },
];

/// Share of a processor, and lines a second, over the time that `wait` takes.
fn cost(end: &End, wait: impl FnOnce()) -> [Measure; 2] {
    let (cpu, lines, start) = (end.cpu(), end.lines(), Instant::now());
    wait();
    let lasted = start.elapsed().as_secs_f64();
    let used = (end.cpu() - cpu).as_secs_f64() / lasted * 100.0;
    let said = (end.lines() - lines) as f64 / lasted;
    [
        measure("processor time meanwhile", "%", Bar::AtMost(5.0), used),
        measure("lines of the log, each second", "", Bar::AtMost(1.0), said),
    ]
}

/// How long until somebody is served, in milliseconds, from `since` on.
fn served(end: &End, since: Instant) -> Measure {
    let what = "from its end until somebody is served";
    let at = loop {
        let from = Ipv4Addr::LOCALHOST;
        if tls(end.address(), from).and_then(|mut stream| echo(&mut stream)).is_ok() {
            break Some(since.elapsed().as_secs_f64() * 1000.0);
        }
        if since.elapsed() > Duration::from_secs(15) {
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    measure_or(what, "ms", Bar::AtMost(1000.0), at, "not within 15 s")
}

fn descriptors(maker: Maker, size: Size) -> Vec<Measure> {
    let backend = Backend::echo();
    let server = Order::server(maker, backend.address())
        .lines("max-sessions = 1000\nmax-handshakes = 1000\nhandshake-timeout = \"120s\"", "")
        .shell("ulimit -n 64")
        .start();
    let calm = server.settled_descriptors();
    let crowd: Vec<_> =
        (0..100).filter_map(|_| plain_from(server.address(), Ipv4Addr::LOCALHOST).ok()).collect();
    std::thread::sleep(Duration::from_secs(1));
    let used = server.descriptors();
    let mut seen = vec![measure("descriptors in use of 64", "", Bar::AtMost(64.0), used as f64)];
    seen.extend(cost(&server, || {
        std::thread::sleep(Duration::from_secs(size.pick(3, 10)));
    }));
    drop(crowd);
    seen.push(served(&server, Instant::now()));
    let start = Instant::now();
    while server.descriptors() > calm && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let kept = server.descriptors().saturating_sub(calm);
    seen.push(measure("descriptors kept afterwards", "", Bar::Exactly(0.0), kept as f64));
    seen
}

/// strace on a running end: whatever it accepts fails in this way until the tracer goes.
fn inject(end: &End, rule: &str) -> Process {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=accept,accept4"]);
    command.args(["-e", &format!("inject=accept,accept4:{rule}"), "-p", &end.id().to_string()]);
    let tracer = Process::spawn("strace", "the Debian package strace", &mut command);
    until("strace to hold every thread", WAIT_TIMEOUT, || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", end.id())).ok()?;
        let is_held = |status: String| {
            status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        };
        let all = threads
            .flatten()
            .all(|thread| std::fs::read_to_string(thread.path().join("status")).is_ok_and(is_held));
        all.then_some(())
    });
    tracer
}

fn injected(maker: Maker, error: &str) -> Vec<Measure> {
    let backend = Backend::echo();
    let server = Order::server(maker, backend.address()).start();
    let mut tracer = inject(&server, &format!("error={error}"));
    let to = server.address();
    // It waits in the queue, and keeps the listener ready.
    let waiting = std::thread::spawn(move || {
        let served = tls(to, Ipv4Addr::LOCALHOST).and_then(|mut stream| echo(&mut stream));
        served.map(|()| Instant::now())
    });
    std::thread::sleep(Duration::from_secs(1));
    let mut seen = Vec::from(cost(&server, || std::thread::sleep(Duration::from_secs(5))));
    let early = waiting.is_finished();
    seen.push(measure("served meanwhile", "", Bar::Exactly(0.0), f64::from(early)));
    tracer.signal(Signal::TERM);
    tracer.wait(WAIT_TIMEOUT);
    let free = Instant::now();
    let first = waiting.join().expect("whoever waits").ok();
    let late = first.map(|at| at.saturating_duration_since(free).as_secs_f64() * 1000.0);
    let what = "from its end until who waited is served";
    seen.push(measure_or(what, "ms", Bar::AtMost(1000.0), late, "never"));
    seen.push(served(&server, Instant::now()));
    seen
}

fn aborted(maker: Maker, _: Size) -> Vec<Measure> {
    let backend = Backend::echo();
    let server = Order::server(maker, backend.address()).start();
    let mut tracer = inject(&server, "error=ECONNABORTED:when=1..50");
    let before = server.lines();
    let start = Instant::now();
    let seen = served(&server, start);
    let lines = server.lines() - before;
    tracer.signal(Signal::TERM);
    tracer.wait(WAIT_TIMEOUT);
    vec![
        Measure { what: "from the first error until somebody is served".to_owned(), ..seen },
        // Two of them are the session's.
        measure("lines of the log", "", Bar::AtMost(4.0), lines as f64),
    ]
}
