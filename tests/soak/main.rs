//! Reloads and revocations for minutes, under full load: nobody who may be in notices anything.
//!
//! `scripts/soak` runs it. It prints its figures beside what they must be, keeps them where scripts/faults
//! keeps its own, and fails if one is missed.
// What the other tests need of the harness is not all needed here.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]
#![allow(dead_code, unused_imports)]

mod endure;
#[path = "../faults/figure.rs"]
mod figure;
#[path = "../it/harness/mod.rs"]
mod harness;
#[path = "../faults/results.rs"]
mod results;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use figure::{Bar, Figure};
use harness::{
    Backend, IDENTITY, KEY, OTHER_KEY, Pskgate, PskgateBuilder, client_toml, free_port, local,
    machine, proc, secret, server_toml, until, write_private,
};
use results::{Measure, Size, measure};
use rustix::process::Signal;

/// Threads that connect, ask once and close, as fast as they can.
const LOOPERS: usize = 8;
/// Sessions that stay from the first reload to the last.
const LONG: usize = 50;
/// Sessions that are revoked together.
const GUESTS: usize = 20;
const GUEST: &str = "guest";
/// How long the effect of one change may take on a busy machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Default)]
struct RequestCounters {
    asked: AtomicU64,
    refused: AtomicU64,
    reset: AtomicU64,
    wrong: AtomicU64,
    done: AtomicBool,
}

impl RequestCounters {
    fn failed(&self, error: &std::io::Error) {
        let counter = match error.kind() {
            ErrorKind::ConnectionRefused => &self.refused,
            _ => &self.reset,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        eprintln!("{error}");
    }

    /// Asks once and compares the answer; false when the connection is of no more use.
    fn ask(&self, stream: &mut TcpStream, round: u64) -> bool {
        let mut question = [0; 64];
        for (n, byte) in question.iter_mut().enumerate() {
            *byte = (round as usize * 131 + n * 7) as u8;
        }
        let mut answer = [0; 64];
        match stream.write_all(&question).and_then(|()| stream.read_exact(&mut answer)) {
            Ok(()) if answer == question => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                true
            }
            Ok(()) => {
                self.wrong.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WAIT_TIMEOUT))?;
    Ok(stream)
}

fn keep_asking(book: &RequestCounters, door: SocketAddr) {
    let mut stream = connect(door).expect("the tunnel is up");
    let mut round = 0;
    while !book.is_done() && book.ask(&mut stream, round) {
        round += 1;
        // A status poll's pace, ten times over: the loopers make the load.
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn keep_connecting(book: &RequestCounters, door: SocketAddr) {
    let mut round = 0;
    while !book.is_done() {
        match connect(door) {
            Ok(mut stream) => drop(book.ask(&mut stream, round)),
            // This machine's own ports are all in use for a moment; nobody refused anything.
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => book.failed(&error),
        }
        round += 1;
    }
}

/// Resident memory in kB, and open descriptors.
fn size(gate: &Pskgate) -> (u64, usize) {
    let memory = proc::memory(gate.id(), "VmRSS:").expect("its memory") / 1024;
    (memory, gate.descriptors())
}

/// What can be in force.
#[derive(Clone, Copy)]
struct State {
    guest: bool,
    more: bool,
    extra: bool,
}

struct Site {
    server: Pskgate,
    /// That of the members, and that of the guest.
    clients: [Pskgate; 2],
    /// Where members and guests connect.
    member: SocketAddr,
    guest: SocketAddr,
    backend: Backend,
    port: u16,
    extra: u16,
}

/// Lines of sessions would be millions.
const QUIET: &str = "[log]\nlevel = \"notice\"\n";

/// Starts an end that says nothing when it listens.
fn start(gate: PskgateBuilder, port: u16) -> Pskgate {
    let running = gate.launch();
    until("its port", WAIT_TIMEOUT, || connect(local(port)).ok());
    running
}

/// A client end before the server end at `to`.
fn client(to: u16, identity: &str, key: &str) -> (Pskgate, SocketAddr) {
    let port = free_port();
    let toml = QUIET.to_owned() + &client_toml(local(to), "").replace(IDENTITY, identity);
    let toml = toml.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let gate = PskgateBuilder::new().file("psk.txt", &secret(identity, key)).toml(&toml);
    (start(gate, port), local(port))
}

impl Site {
    fn new() -> Self {
        let (port, extra) = (free_port(), free_port());
        let backend = Backend::echo();
        let first = State { guest: false, more: false, extra: false };
        let gate = PskgateBuilder::new().toml(&Self::text(&backend, port, extra, first));
        let server = start(gate, port);
        let (of_member, member) = client(port, IDENTITY, KEY);
        let (of_guest, guest) = client(port, GUEST, OTHER_KEY);
        Self { server, clients: [of_member, of_guest], member, guest, backend, port, extra }
    }

    fn text(backend: &Backend, port: u16, extra: u16, state: State) -> String {
        let accept = match state.extra {
            true => format!("[\"127.0.0.1:{port}\", \"127.0.0.1:{extra}\"]"),
            false => format!("\"127.0.0.1:{port}\""),
        };
        let most = if state.more { 5001 } else { 5000 };
        QUIET.to_owned()
            + &server_toml(backend.address(), &format!("max-sessions = {most}"))
                .replace("\"127.0.0.1:0\"", &accept)
    }

    fn replace(&self, name: &str, text: &str) {
        let fresh = self.server.folder().join(".fresh");
        write_private(&fresh, text);
        std::fs::rename(&fresh, self.server.folder().join(name)).expect("moved over the old one");
    }

    fn write(&self, state: State) {
        let guest = if state.guest { secret(GUEST, OTHER_KEY) } else { String::new() };
        self.replace("psk.txt", &(secret(IDENTITY, KEY) + &guest));
        self.replace("pskgate.toml", &Self::text(&self.backend, self.port, self.extra, state));
    }

    fn guest_is_in(&self) -> bool {
        let Ok(mut stream) = connect(self.guest) else { return false };
        let mut byte = [0];
        stream.write_all(b"?").is_ok() && stream.read_exact(&mut byte).is_ok()
    }

    fn most_sessions(&self) -> String {
        let socket = self.server.folder().join("pskgate.sock");
        ask(&socket, "{\"command\":\"status\"}")
            .split_once("\"max-sessions\":")
            .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect())
            .unwrap_or_default()
    }

    /// Waits until each of the three is seen to be as it was written.
    fn wait(&self, state: State, what: usize) {
        let seen = || match what {
            0 => self.guest_is_in() == state.guest,
            1 => self.most_sessions() == if state.more { "5001" } else { "5000" },
            _ => connect(local(self.extra)).is_ok() == state.extra,
        };
        until("a change to take effect", WAIT_TIMEOUT, || seen().then_some(()));
    }
}

/// One question to the control socket.
fn ask(socket: &Path, question: &str) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("a control socket");
    stream.write_all(format!("{question}\n").as_bytes()).expect("asked");
    let mut answer = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut answer)
        .expect("answered");
    answer
}

/// Figures of a requirement.
fn figures(id: &str, about: &str, seen: Vec<Measure>) -> impl Iterator<Item = Figure> {
    let (id, fault) = (id.to_owned(), about.to_owned());
    seen.into_iter().map(move |one| Figure {
        id: id.clone(),
        fault: fault.clone(),
        what: one.what,
        unit: one.unit.to_owned(),
        bar: one.bar,
        pskgate: one.seen,
        stunnel4: None,
        date: machine::today(),
    })
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [_, minutes] = &words[..]
        && words[0] == "--minutes"
    {
        return for_minutes(minutes.parse().expect("a number of minutes"));
    }
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse::<usize>().ok());
    let (reloads, revocations) = (numbers.next().unwrap_or(1000), numbers.next().unwrap_or(100));
    let site = Site::new();
    let book = RequestCounters::default();
    let door = site.member;
    let (mut of_reloads, mut of_revocations) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..LONG {
            scope.spawn(|| keep_asking(&book, door));
        }
        for _ in 0..LOOPERS {
            scope.spawn(|| keep_connecting(&book, door));
        }
        until("the load", WAIT_TIMEOUT, || {
            (book.asked.load(Ordering::Relaxed) > 500).then_some(())
        });
        of_reloads = storm(&site, reloads);
        of_revocations = revoke(&site, revocations);
        book.done.store(true, Ordering::Release);
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    of_reloads.extend([
        measure("answers to members, all exact", "", Bar::AtLeast(1000.0), count(&book.asked)),
        measure("members refused", "", Bar::Exactly(0.0), count(&book.refused)),
        measure("members reset or cut", "", Bar::Exactly(0.0), count(&book.reset)),
        measure("wrong bytes", "", Bar::Exactly(0.0), count(&book.wrong)),
    ]);
    let load = "8 members who connect without a pause, 50 sessions that stay";
    let (storm, cuts) = (format!("a key, an option or an address each time; {load}"), load);
    let all: Vec<Figure> =
        figures("L5", &storm, of_reloads).chain(figures("K6", cuts, of_revocations)).collect();
    let size = if reloads >= 1000 { Size::Full } else { Size::Quick };
    // Whoever exits in this way drops nothing, and its programs would run on.
    drop(site);
    tell(&all, size, "L5-soak");
}

/// Prints figures, keeps them, and ends with 1 if one is missed.
fn tell(all: &[Figure], size: Size, name: &str) {
    for one in all {
        let mark = if one.is_met() { "ok  " } else { "MISS" };
        let seen = format!("{} {}", one.pskgate, one.unit);
        println!("{mark} {:<52} {seen:>14}   must be {}", one.what, one.bar);
    }
    results::write(&results::folder(size), name, all);
    std::process::exit(i32::from(!all.iter().all(Figure::is_met)));
}

fn for_minutes(minutes: u64) {
    let site = Site::new();
    let book = RequestCounters::default();
    let mut seen = endure::endure(&site, &book, minutes);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    seen.extend([
        measure("answers to members, all exact", "", Bar::AtLeast(1000.0), count(&book.asked)),
        measure("members refused", "", Bar::Exactly(0.0), count(&book.refused)),
        measure("members reset or cut", "", Bar::Exactly(0.0), count(&book.reset)),
        measure("wrong bytes", "", Bar::Exactly(0.0), count(&book.wrong)),
    ]);
    drop(site);
    let about = "for minutes, with reloads, revocations, resets and half-closes: 9 who come and go, 50 \
                 sessions that stay";
    let all: Vec<Figure> = figures("L5", about, seen).collect();
    let size = if minutes >= 30 { Size::Full } else { Size::Quick };
    tell(&all, size, "L5-soak-minutes");
}

/// Each reload changes one of a key, an option and an address, and is waited for until that is seen.
fn storm(site: &Site, reloads: usize) -> Vec<Measure> {
    /// What allocators keep after the first ones is theirs.
    const WARM: usize = 60;
    let mut state = State { guest: false, more: false, extra: false };
    let mut before = size(&site.server);
    let start = Instant::now();
    for n in 0..reloads {
        let what = n % 3;
        match what {
            0 => state.guest = !state.guest,
            1 => state.more = !state.more,
            _ => state.extra = !state.extra,
        }
        site.write(state);
        // Every tenth is noticed by itself; the others are asked for, by turns.
        match n % 10 {
            0 => {}
            n if n % 2 == 0 => {
                let socket = site.server.folder().join("pskgate.sock");
                let answer = ask(&socket, "{\"command\":\"reload\"}");
                assert!(answer.contains("\"done\":true"), "{answer}");
            }
            _ => site.server.signal(Signal::HUP),
        }
        site.wait(state, what);
        if n == WARM.min(reloads / 2) {
            before = size(&site.server);
        }
    }
    let took = start.elapsed();
    let after = size(&site.server);
    let (grown, open) = (after.0.saturating_sub(before.0), after.1.abs_diff(before.1));
    vec![
        measure("reloads, each seen to have taken effect", "", Bar::Told, reloads as f64),
        measure("time they took", "s", Bar::Told, took.as_secs_f64()),
        measure("memory more than after the first ones", "kB", Bar::AtMost(2048.0), grown as f64),
        // A connection that is just coming or going is one or two.
        measure("descriptors more or less", "", Bar::AtMost(40.0), open as f64),
    ]
}

/// A guest's sessions are cut together, again and again.
fn revoke(site: &Site, rounds: usize) -> Vec<Measure> {
    let mut state = State { guest: false, more: false, extra: false };
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds {
        state.guest = true;
        site.write(state);
        site.wait(state, 0);
        let door = site.guest;
        let sessions: Vec<_> = (0..GUESTS)
            .map(|_| {
                let mut stream = connect(door).expect("a door");
                let mut byte = [0];
                stream.write_all(b"?").and_then(|()| stream.read_exact(&mut byte)).expect("in");
                stream
            })
            .collect();
        state.guest = false;
        site.write(state);
        let start = Instant::now();
        for mut stream in sessions {
            let end = stream.read(&mut [0]);
            assert!(matches!(end, Ok(0) | Err(_)), "a revoked session goes on");
        }
        slowest = slowest.max(start.elapsed());
    }
    let millis = slowest.as_secs_f64() * 1000.0;
    vec![
        measure("revocations of 20 sessions each", "", Bar::Told, rounds as f64),
        // 300 ms until a change is taken, and a second from then on.
        measure("until the last of 20 was cut, at worst", "ms", Bar::AtMost(1300.0), millis),
    ]
}
