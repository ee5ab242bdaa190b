//! What a fragile runtime asks of a tunnel, in many tries. The runtime is the package `erpc`'s own server:
//! it has one socket, which is whichever connection came last, and its loop outlives a connection that
//! is closed and nothing else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::Requirement;
use crate::ends::{End, Maker, Order, plain_from, tls, tls_as};
use crate::erpc::status;
use crate::figure::Bar;
use crate::harness::{
    FaultProxy, IDENTITY, KEY, OTHER_KEY, PlainClient, WAIT_TIMEOUT, WireEnd, backend::reset,
    secret, until,
};
use crate::line::{ADDRESSES, Line};
use crate::peers::Peer;
use crate::results::{Measure, Size, measure, measure_or};

pub const ALL: &[Requirement] = &[
    Requirement {
        id: "1",
        name: "strangers",
        about: "clients without a key connect while an IDE works",
        run: strangers,
    },
    Requirement {
        id: "2",
        name: "second-ide",
        about: "a second IDE connects with a key",
        run: second,
    },
    Requirement {
        id: "3",
        name: "vanished-ide",
        about: "an IDE disappears from the network, and another one connects",
        run: vanished,
    },
    Requirement {
        id: "4",
        name: "corrupt-record",
        about: "one bit of a TLS record to the PLC is changed",
        run: corrupt,
    },
    Requirement {
        id: "4",
        name: "restart",
        about: "the server end is restarted while the IDE polls",
        run: restart,
    },
    Requirement {
        id: "5",
        name: "silent-port",
        about: "the program at the PLC's port accepts connections and sends nothing",
        run: silent,
    },
];

/// The same number for everybody would take stunnel4 hours: each try that breaks the runtime costs
/// seconds. Shares are told of 100.
fn tries(maker: Maker, size: Size) -> usize {
    match (maker, size) {
        (Maker::Pskgate, Size::Full) => 100,
        (Maker::Pskgate, Size::Quick) => 10,
        (Maker::Stunnel, _) => 20,
    }
}

fn of_100(count: usize, tries: usize) -> f64 {
    count as f64 * 100.0 / tries as f64
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// A runtime, which can be started anew in its place.
struct Runtime {
    peer: Peer,
    address: SocketAddr,
}

impl Runtime {
    fn start() -> Self {
        let (peer, address) = Peer::server("runtime.py", &["erpc"]);
        Self { peer, address }
    }

    fn start_anew(&mut self) {
        self.peer.process().kill();
        let (peer, address) =
            Peer::server("runtime.py", &["erpc", "1", &self.address.port().to_string()]);
        assert_eq!(address, self.address);
        self.peer = peer;
    }
}

/// One call over a connection of its own, which stays open.
fn ask(door: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let mut stream = plain_from(door, Ipv4Addr::LOCALHOST)?;
    stream.set_read_timeout(Some(patience))?;
    status(&mut stream, 1)?;
    Ok(stream)
}

/// As an engineer does who connects until it works: a session that answers, if there is one in time.
fn session(door: SocketAddr, patience: Duration) -> Option<TcpStream> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if let Ok(stream) = ask(door, Duration::from_secs(2)) {
            return Some(stream);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

/// Long enough for a take-over, which waits up to 5 s for the old backend connection.
const BROKEN: Duration = Duration::from_secs(8);

/// The same, and a runtime that does not answer any more is started anew and counted.
fn session_or_count(runtime: &mut Runtime, door: SocketAddr, broken: &mut usize) -> TcpStream {
    session(door, BROKEN).unwrap_or_else(|| {
        *broken += 1;
        runtime.start_anew();
        session(door, BROKEN).expect("a runtime that was just started answers")
    })
}

fn pair(maker: Maker, backend: SocketAddr, rules: &str) -> [End; 2] {
    let server = Order::server(maker, backend).lines(rules, "").start();
    let client = Order::client(maker, server.address()).start();
    [server, client]
}

const TAKE_OVER_OWN: &str = "max-sessions = 1\nwhen-full = \"take-over-own\"";

fn strangers(maker: Maker, size: Size) -> Vec<Measure> {
    let tries = tries(maker, size);
    let mut runtime = Runtime::start();
    let [server, client] = pair(maker, runtime.address, TAKE_OVER_OWN);
    let (at, here) = (server.address(), Ipv4Addr::LOCALHOST);
    let mut ide = session(client.address(), BROKEN).expect("a session");
    let (mut broken, mut wedged, mut open) = (0, 0, Vec::new());
    for number in 0..tries {
        let stranger = || plain_from(at, here).expect("a stranger can connect");
        match number % 6 {
            0 => drop(stranger()),
            1 => reset(stranger()),
            2 => drop(stranger().write_all(b"GET / HTTP/1.1\r\n\r\n")),
            3 => drop(tls_as(IDENTITY, OTHER_KEY, at, here)),
            4 => drop(tls_as("nobody", KEY, at, here)),
            _ => {
                let mut half = stranger();
                half.write_all(&[0x16, 3, 1, 2, 0, 1]).expect("half a hello");
                open.push(half);
            }
        }
        if status(&mut ide, 2).is_err() {
            broken += 1;
            ide = session_or_count(&mut runtime, client.address(), &mut wedged);
        }
    }
    vec![
        measure(
            "connections that ended the IDE's session, of 100",
            "",
            Bar::Exactly(0.0),
            of_100(broken, tries),
        ),
        measure(
            "connections that broke the runtime, of 100",
            "",
            Bar::Exactly(0.0),
            of_100(wedged, tries),
        ),
    ]
}

const SECOND: &str = "client2";

fn second(maker: Maker, size: Size) -> Vec<Measure> {
    let tries = tries(maker, size);
    let keys = secret(IDENTITY, KEY) + &secret(SECOND, OTHER_KEY);
    let server = |rules: &str, runtime: &Runtime| {
        Order::server(maker, runtime.address).lines(rules, "").secrets(&keys).start()
    };
    let newcomer = |identity: &str, key: &str, at| {
        let mut stream = tls_as(identity, key, at, Ipv4Addr::LOCALHOST).ok()?;
        stream.get_ref().set_read_timeout(Some(BROKEN)).ok()?;
        status(&mut stream, 1).ok()?;
        Some(stream)
    };
    let anew = |runtime: &mut Runtime, at| {
        runtime.start_anew();
        until("a runtime that was just started", WAIT_TIMEOUT, || newcomer(IDENTITY, KEY, at))
    };

    // Refused: the first one works on.
    let mut runtime = Runtime::start();
    let end = server("max-sessions = 1", &runtime);
    let mut first = newcomer(IDENTITY, KEY, end.address()).expect("a session");
    let mut disturbed = 0;
    for _ in 0..tries {
        if let Ok(mut stream) = tls_as(SECOND, OTHER_KEY, end.address(), Ipv4Addr::LOCALHOST) {
            let _ = stream.get_ref().set_read_timeout(Some(Duration::from_millis(500)));
            let _ = status(&mut stream, 1);
        }
        let _ = first.get_ref().set_read_timeout(Some(Duration::from_secs(2)));
        if status(&mut first, 2).is_err() {
            disturbed += 1;
            drop(first);
            first = anew(&mut runtime, end.address());
        }
    }
    drop((first, end, runtime));

    // Taken over: each newcomer works, whoever it is.
    let mut runtime = Runtime::start();
    let end = server("max-sessions = 1\nwhen-full = \"take-over\"", &runtime);
    let mut holder = newcomer(IDENTITY, KEY, end.address()).expect("a session");
    let (mut unanswered, mut slowest) = (0, 0.0_f64);
    for number in 0..tries {
        let (identity, key) = [(SECOND, OTHER_KEY), (IDENTITY, KEY)][number % 2];
        let start = Instant::now();
        holder = newcomer(identity, key, end.address()).unwrap_or_else(|| {
            unanswered += 1;
            anew(&mut runtime, end.address())
        });
        slowest = slowest.max(millis(start));
    }
    drop((holder, end, runtime));

    // Its own place alone: the same IDE comes back, and another one does not get in.
    let mut runtime = Runtime::start();
    let end = server(TAKE_OVER_OWN, &runtime);
    let mut holder = newcomer(IDENTITY, KEY, end.address()).expect("a session");
    let (mut let_in, mut kept_out) = (0, 0);
    for _ in 0..tries {
        if let Ok(mut stream) = tls_as(SECOND, OTHER_KEY, end.address(), Ipv4Addr::LOCALHOST) {
            let _ = stream.get_ref().set_read_timeout(Some(Duration::from_millis(500)));
            let_in += usize::from(status(&mut stream, 1).is_ok());
        }
        holder = newcomer(IDENTITY, KEY, end.address()).unwrap_or_else(|| {
            kept_out += 1;
            anew(&mut runtime, end.address())
        });
    }
    drop(holder);
    let share = |what: &str, count| measure(what, "", Bar::Exactly(0.0), of_100(count, tries));
    vec![
        share("`refuse`: second IDEs that broke the first IDE's session, of 100", disturbed),
        share("`take-over`: second IDEs without an answer, of 100", unanswered),
        measure(
            "`take-over`: time to the first answer, at most",
            "ms",
            Bar::AtMost(6000.0),
            slowest,
        ),
        share("`take-over-own`: other identities that were accepted, of 100", let_in),
        share("`take-over-own`: same identity, no answer, of 100", kept_out),
    ]
}

/// So many services of a server end, each with its own runtime, on one host; and a client end with a
/// Unix socket for each on another.
struct Plants {
    line: Line,
    _runtimes: Peer,
    server: End,
    client: End,
}

impl Plants {
    fn new(maker: Maker, count: usize, rules: &str) -> Self {
        let line = Line::new();
        let on = |host: &str| ["ip", "netns", "exec", host].map(str::to_owned);
        let [near, far] = [on(&line.hosts[0]), on(&line.hosts[1])];
        let words = |all: &[String; 4]| all.clone();
        let before = words(&near);
        let before: Vec<&str> = before.iter().map(String::as_str).collect();
        let runtimes = Peer::through(&before, "runtime.py", &["erpc", &count.to_string()]);
        let ports = runtimes.ports();
        assert_eq!(ports.len(), count);

        let at = |number: usize| format!("{}:{}", ADDRESSES[0], 4000 + number);
        let (mut toml, mut conf) = (format!("{rules}\n"), String::new());
        for (number, port) in ports.iter().enumerate().skip(1) {
            toml += &format!(
                "[services.end{number}]\nmode = \"server\"\naccept = \"{}\"\nconnect = \"127.0.0.1:{port}\"\n\
                 psk-secrets = \"psk.txt\"\n{rules}\n",
                at(number)
            );
            conf +=
                &format!("[end{number}]\naccept = {}\nconnect = 127.0.0.1:{port}\n", at(number));
        }
        let order = Order::server(maker, format!("127.0.0.1:{}", ports[0])).accept(at(0));
        let order = match maker {
            Maker::Pskgate => order,
            // Every section needs its keys; before the first one they are everybody's.
            Maker::Stunnel => {
                let keys = order.folder().join("psk.txt");
                order.head("", &format!("PSKsecrets = {}", keys.display()))
            }
        };
        let server = order.lines(&toml, &conf).through(&before).start();

        let order = Order::client(Maker::Pskgate, at(0));
        let socket =
            |number: usize| format!("unix:{}", order.folder().join(number.to_string()).display());
        let first = socket(0);
        let mut toml = String::new();
        for number in 1..count {
            toml += &format!(
                "[services.end{number}]\nmode = \"client\"\naccept = \"{}\"\nconnect = \"{}\"\n\
                 psk-secrets = \"psk.txt\"\n",
                socket(number),
                at(number)
            );
        }
        let before: Vec<&str> = far.iter().map(String::as_str).collect();
        let client = order.accept(first).lines(&toml, "").through(&before).start();
        let plants = Self { line, _runtimes: runtimes, server, client };
        until("the last socket", WAIT_TIMEOUT, || plants.socket(count - 1).exists().then_some(()));
        plants
    }

    fn socket(&self, number: usize) -> std::path::PathBuf {
        self.client.folder().join(number.to_string())
    }

    fn ask(socket: &Path, patience: Duration) -> std::io::Result<UnixStream> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        status(&mut stream, 1)?;
        Ok(stream)
    }

    /// Whoever was connected from the client's host is gone, and nothing says so; the host has another
    /// address now, as a second engineer's would.
    fn vanish(&self) {
        let (host, device) = (&self.line.hosts[1], &self.line.devices[1]);
        for (what, address) in [("del", ADDRESSES[1]), ("add", "10.99.1.3")] {
            let address = format!("{address}/24");
            let done = Command::new("ip")
                .args(["-n", host, "addr", what, &address, "dev", device])
                .status()
                .expect("the Debian package iproute2");
            assert!(done.success(), "ip addr {what}");
        }
    }
}

fn vanished(maker: Maker, size: Size) -> Vec<Measure> {
    const PATIENT: Duration = Duration::from_secs(60);
    let count = match (maker, size) {
        (Maker::Stunnel, _) => 20,
        (_, Size::Full) => 100,
        (_, Size::Quick) => 5,
    };
    let replaced = |rules: &str| {
        let plants = Plants::new(maker, count, rules);
        let old: Vec<_> = (0..count)
            .map(|number| {
                until("a session", WAIT_TIMEOUT, || {
                    Plants::ask(&plants.socket(number), Duration::from_secs(2)).ok()
                })
            })
            .collect();
        plants.vanish();
        let start = Instant::now();
        let newcomers: Vec<_> = (0..count)
            .map(|number| {
                let socket = plants.socket(number);
                std::thread::spawn(move || {
                    while start.elapsed() < PATIENT {
                        if Plants::ask(&socket, Duration::from_secs(8)).is_ok() {
                            return Some(start.elapsed().as_secs_f64());
                        }
                        std::thread::sleep(Duration::from_millis(300));
                    }
                    None
                })
            })
            .collect();
        let times: Vec<_> =
            newcomers.into_iter().map(|one| one.join().expect("a newcomer")).collect();
        drop(old);
        let out = times.iter().filter(|time| time.is_none()).count();
        (of_100(out, count), times.into_iter().flatten().reduce(f64::max))
    };
    let figures = |rules: &str, name: &str, bar: f64| {
        let (out, slowest) = replaced(rules);
        let what = format!("`{name}`: time until the next IDE has an answer, at most");
        [
            measure(
                &format!("`{name}`: IDEs that were not replaced within 60 s, of 100"),
                "",
                Bar::Exactly(0.0),
                out,
            ),
            measure_or(&what, "s", Bar::AtMost(bar), slowest, "never"),
        ]
    };
    let mut all = figures("max-sessions = 1", "refuse", 40.0).to_vec();
    if maker == Maker::Pskgate {
        all.extend(figures(TAKE_OVER_OWN, "take-over-own", 6.0));
    }
    all
}

fn corrupt(maker: Maker, size: Size) -> Vec<Measure> {
    let tries = tries(maker, size);
    let mut runtime = Runtime::start();
    let server = Order::server(maker, runtime.address).lines(TAKE_OVER_OWN, "").start();
    let wire = FaultProxy::to(server.address());
    let client = Order::client(maker, wire.address()).start();
    let (mut lost, mut taken) = (0, 0);
    for _ in 0..tries {
        let mut ide = session_or_count(&mut runtime, client.address(), &mut lost);
        wire.spoil_towards(WireEnd::Server);
        taken += usize::from(status(&mut ide, 2).is_ok());
    }
    drop(session_or_count(&mut runtime, client.address(), &mut lost));
    vec![
        measure(
            "changed records that broke the runtime, of 100",
            "",
            Bar::Exactly(0.0),
            of_100(lost, tries),
        ),
        measure("changed calls that were answered", "", Bar::Exactly(0.0), taken as f64),
    ]
}

/// An IDE that asks without a pause, and an engineer who connects it anew at once.
#[derive(Default)]
struct Polled {
    answers: usize,
    lost: Option<Instant>,
}

struct Poller {
    state: Arc<Mutex<Polled>>,
    over: Arc<AtomicBool>,
}

impl Poller {
    fn start(door: SocketAddr) -> Self {
        let (state, over) =
            (Arc::new(Mutex::new(Polled::default())), Arc::new(AtomicBool::new(false)));
        let (told, end) = (Arc::clone(&state), Arc::clone(&over));
        std::thread::spawn(move || {
            while !end.load(Ordering::Acquire) {
                let Ok(mut stream) = ask(door, Duration::from_secs(2)) else {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                };
                let mut sequence = 1;
                while !end.load(Ordering::Acquire) {
                    sequence += 1;
                    if status(&mut stream, sequence).is_err() {
                        told.lock().unwrap().lost.get_or_insert_with(Instant::now);
                        break;
                    }
                    told.lock().unwrap().answers += 1;
                }
            }
        });
        Self { state, over }
    }

    /// Waits for so many more answers.
    fn answers(&self, more: usize, patience: Duration) -> bool {
        let start = Instant::now();
        let before = self.state.lock().unwrap().answers;
        while start.elapsed() < patience {
            if self.state.lock().unwrap().answers >= before + more {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

fn restart(maker: Maker, size: Size) -> Vec<Measure> {
    const PATIENT: Duration = Duration::from_secs(10);
    let tries = tries(maker, size);
    let mut runtime = Runtime::start();
    let order = |at: Option<SocketAddr>| {
        let order = Order::server(maker, runtime.address).lines(TAKE_OVER_OWN, "");
        match at {
            None => order,
            Some(at) => order.accept(at),
        }
    };
    let mut server = order(None).start();
    let at = server.address();
    let client = Order::client(maker, at).start();
    let poller = Poller::start(client.address());
    let (mut lost, mut told, mut back) = (0, 0.0_f64, 0.0_f64);
    let mut again: Vec<Order> = (0..2 * tries + 1).map(|_| order(Some(at))).collect();
    for _ in 0..tries {
        if !poller.answers(20, PATIENT) {
            // It broke after its first answer.
            lost += 1;
            runtime.start_anew();
            assert!(poller.answers(20, WAIT_TIMEOUT), "the IDE polls");
        }
        poller.state.lock().unwrap().lost = None;
        let begin = Instant::now();
        server.signal(Signal::TERM);
        // As `S50stunnel restart`: nobody waits for the old one.
        let mut old = std::mem::replace(&mut server, again.pop().expect("an order").start());
        let seen = until("the IDE to see it", PATIENT, || poller.state.lock().unwrap().lost);
        told = told.max((seen - begin).as_secs_f64() * 1000.0);
        if poller.answers(1, PATIENT) {
            back = back.max(millis(begin));
        } else {
            lost += 1;
            runtime.start_anew();
            server.kill();
            server = again.pop().expect("an order").start();
        }
        old.wait(WAIT_TIMEOUT);
    }
    vec![
        measure(
            "restarts after which the PLC did not answer within 10 s, of 100",
            "",
            Bar::Exactly(0.0),
            of_100(lost, tries),
        ),
        measure("time until the IDE's connection ends, at most", "ms", Bar::AtMost(1000.0), told),
        measure("time until the IDE has an answer again, at most", "ms", Bar::AtMost(5000.0), back),
    ]
}

fn silent(maker: Maker, size: Size) -> Vec<Measure> {
    const PATIENT: Duration = Duration::from_secs(20);
    let count = tries(maker, size);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port that says nothing");
    let client = Order::client(maker, listener.local_addr().unwrap()).start();
    std::thread::spawn(move || {
        let held: Vec<_> = listener.incoming().collect();
        drop(held);
    });
    let start = Instant::now();
    let waiting: Vec<_> = (0..count)
        .map(|_| {
            let mut ide = PlainClient::connect(client.address()).0;
            ide.set_read_timeout(Some(PATIENT)).unwrap();
            std::thread::spawn(move || {
                let _ = ide.write_all(b"GetPLCstatus");
                match ide.read(&mut [0]) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
                    _ => Some(start.elapsed().as_secs_f64()),
                }
            })
        })
        .collect();
    let times: Vec<_> = waiting.into_iter().map(|one| one.join().expect("an IDE")).collect();
    let held = times.iter().filter(|time| time.is_none()).count();
    vec![
        measure(
            "IDEs that wait for 20 s or longer, of 100",
            "",
            Bar::Exactly(0.0),
            of_100(held, count),
        ),
        measure_or(
            "time until the IDE's connection is closed, at most",
            "s",
            Bar::AtMost(11.0),
            times.into_iter().flatten().reduce(f64::max),
            "not within 20 s",
        ),
    ]
}
