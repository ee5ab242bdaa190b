//! `kill -9` of each part in the middle of a transfer.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Fault;
use crate::ends::{End, Maker};
use crate::figure::Bar;
use crate::harness::{
    ConnectionEnd, PlainClient, Process, WAIT_TIMEOUT, free_port, local, plc, python, until,
};
use crate::results::{Measure, Size, measure};
use crate::slow::pair;

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "L7",
        name: "client-end-killed",
        about: "kill -9 of the client end in the middle of a transfer",
        quick: true,
        stunnel: true,
        run: |maker, size| killed(maker, size, Part::Client),
    },
    Fault {
        id: "L7",
        name: "server-end-killed",
        about: "kill -9 of the server end in the middle of a transfer",
        quick: true,
        stunnel: true,
        run: |maker, size| killed(maker, size, Part::Server),
    },
    Fault {
        id: "L7",
        name: "backend-killed",
        about: "kill -9 of the backend in the middle of a transfer",
        quick: true,
        stunnel: true,
        run: |maker, size| killed(maker, size, Part::Backend),
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Client,
    Server,
    Backend,
}

/// Sends for ever, and says when its peer is gone. Told to `read`, it reads too; otherwise it waits until
/// something has come and leaves it unread, so that its kernel resets when it dies.
const BACKEND: &str = r"
import socket, sys, threading
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
print('ready', flush=True)
def send(peer):
    try:
        if sys.argv[2] == 'leave':
            peer.recv(1, socket.MSG_PEEK)
        while True:
            peer.sendall(b'x' * 65536)
    except OSError:
        print('gone', flush=True)
def read(peer):
    try:
        while peer.recv(65536):
            pass
    except OSError:
        pass
    print('gone', flush=True)
    try:
        peer.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
while True:
    peer = listener.accept()[0]
    threading.Thread(target=send, args=(peer,), daemon=True).start()
    if sys.argv[2] == 'read':
        threading.Thread(target=read, args=(peer,), daemon=True).start()
";

struct SourceOf {
    process: Process,
    address: SocketAddr,
}

fn source(part: Part) -> SourceOf {
    let port = free_port();
    let mut command = Command::new("python3");
    command.args(["-c", BACKEND, &port.to_string()]);
    command.arg(if part == Part::Backend { "leave" } else { "read" });
    let process = Process::spawn("a backend", "the Debian package python3", &mut command);
    process.wait_for("ready", WAIT_TIMEOUT);
    SourceOf { process, address: local(port) }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn killed(maker: Maker, size: Size, part: Part) -> Vec<Measure> {
    let (mut slowest, mut whole, mut left) = (0.0_f64, 0, 0);
    let mut backend_saw = 0.0_f64;
    for _ in 0..size.pick(2, 5) {
        let mut backend = source(part);
        let mut ends = pair(maker, backend.address);
        let calm = ends.each_ref().map(|end| end.settled_descriptors());
        let plain = PlainClient::connect(ends[1].address());
        // It goes both ways, and the backend leaves it unread.
        plain.send(&[b'y'; 100_000]);
        (&plain.0).read_exact(&mut vec![0; 1 << 20]).expect("it goes on");
        let start = Instant::now();
        match part {
            Part::Client => ends[1].kill(),
            Part::Server => ends[0].kill(),
            Part::Backend => backend.process.kill(),
        }
        whole += usize::from(plain.end() == ConnectionEnd::Fin);
        slowest = slowest.max(millis(start));
        if part != Part::Backend {
            backend.process.wait_for("gone", WAIT_TIMEOUT);
            backend_saw = backend_saw.max(millis(start));
        }
        plain.reset();
        let survivors = match part {
            Part::Client => &[0][..],
            Part::Server => &[1],
            Part::Backend => &[0, 1],
        };
        let start = Instant::now();
        let kept = || -> usize {
            survivors.iter().map(|&n| ends[n].descriptors().saturating_sub(calm[n])).sum()
        };
        while kept() > 0 && start.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(10));
        }
        left += kept();
    }
    let mut seen = vec![
        measure("until the application sees the end, at worst", "ms", Bar::AtMost(1000.0), slowest),
        measure("partial answers that looked whole to it", "", Bar::Exactly(0.0), whole as f64),
        measure("descriptors left behind after 3 s", "", Bar::Exactly(0.0), left as f64),
    ];
    if part != Part::Backend {
        let what = "until the backend sees the end, at worst";
        seen.push(measure(what, "ms", Bar::AtMost(1000.0), backend_saw));
    }
    seen
}
