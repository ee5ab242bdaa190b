//! Peers that go without a word, freeze, or sit behind a bad line.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::Fault;
use crate::ends::{End, Maker, Order};
use crate::figure::Bar;
use crate::harness::{Stream, WAIT_TIMEOUT};
use crate::line::{ADDRESSES, Line};
use crate::results::{Measure, Size, measure, measure_or};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "L4",
        name: "cable-cut",
        about: "the cable is cut: an idle session, and one with data on its way",
        quick: false,
        stunnel: true,
        run: cut,
    },
    Fault {
        id: "L4",
        name: "frozen-line",
        about: "the line holds everything back for 10 s",
        quick: true,
        stunnel: true,
        run: frozen_line,
    },
    Fault {
        id: "L4",
        name: "frozen-peer",
        about: "the client end is stopped for 45 s with data on its way to it",
        quick: false,
        stunnel: true,
        run: frozen_peer,
    },
    Fault {
        id: "L4",
        name: "bad-line",
        about: "40 ms each way, and three of a hundred packets are lost",
        quick: true,
        stunnel: true,
        run: bad_line,
    },
];

/// A server end of one make on one host, and pskgate's client end on the other. Both plain sides are
/// Unix sockets, which hosts do not part.
struct Ends {
    line: Line,
    server: End,
    client: End,
    backend: UnixListener,
}

impl Ends {
    fn new(maker: Maker) -> Self {
        let line = Line::new();
        let folder = Order::server(maker, "");
        let path = folder.folder().join("backend.sock");
        let backend = UnixListener::bind(&path).expect("a backend");
        let server = folder
            .connect(format!("unix:{}", path.display()))
            .accept(format!("{}:3001", ADDRESSES[0]))
            .through(&["ip", "netns", "exec", &line.hosts[0]])
            .start();
        let order = Order::client(Maker::Pskgate, format!("{}:3001", ADDRESSES[0]));
        let door = format!("unix:{}", order.folder().join("door.sock").display());
        let client = order.accept(door).through(&["ip", "netns", "exec", &line.hosts[1]]).start();
        Self { line, server, client, backend }
    }

    /// Both plain sides of a session that is there.
    fn session(&self) -> (UnixStream, UnixStream) {
        let mut near = UnixStream::connect(self.client.folder().join("door.sock")).expect("a door");
        // A client's first bytes make the other end dial at the latest.
        near.write_all(b"?").expect("taken");
        let (mut far, _) = self.backend.accept().expect("a connection to the backend");
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(3 * WAIT_TIMEOUT)).expect("a limit");
            stream.set_write_timeout(Some(3 * WAIT_TIMEOUT)).expect("a limit");
        }
        let mut byte = [0];
        far.read_exact(&mut byte).expect("there");
        far.write_all(b"!").and_then(|()| near.read_exact(&mut byte)).expect("and back");
        (near, far)
    }
}

/// Seconds until this side of a session sees its end; none if it does not within `patience`.
fn end_of(mut stream: UnixStream, patience: Duration) -> std::thread::JoinHandle<Option<f64>> {
    let start = Instant::now();
    std::thread::spawn(move || {
        stream.set_read_timeout(Some(patience)).expect("a limit");
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => return Some(start.elapsed().as_secs_f64()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                Err(_) => return Some(start.elapsed().as_secs_f64()),
            }
        }
    })
}

fn cut(maker: Maker, _: Size) -> Vec<Measure> {
    const LOOK: Duration = Duration::from_secs(60);
    let mut ends = Ends::new(maker);
    let (near_idle, far_idle) = ends.session();
    let (near_busy, mut far_busy) = ends.session();
    ends.line.order("cut");
    let far_idle = end_of(far_idle, LOOK);
    let near_idle = end_of(near_idle, LOOK);
    far_busy.write_all(b"on its way for ever").expect("taken");
    let far_busy = end_of(far_busy, LOOK);
    let _near_busy = near_busy;
    let join = |thread: std::thread::JoinHandle<Option<f64>>| thread.join().expect("a reader");
    let not = "not within 60 s";
    let idle =
        measure_or("idle: freed at the server end", "s", Bar::AtMost(31.0), join(far_idle), not);
    // A keepalive does not run while TCP sends again: there it is looked every five seconds.
    let busy = measure_or(
        "data on its way: freed at the server end",
        "s",
        Bar::AtMost(36.0),
        join(far_busy),
        not,
    );
    let mut seen = vec![idle, busy];
    if maker == Maker::Pskgate {
        let what = "idle: the application at the client end sees the end";
        seen.push(measure_or(what, "s", Bar::AtMost(31.0), join(near_idle), not));
    }
    seen
}

fn frozen_line(maker: Maker, size: Size) -> Vec<Measure> {
    let mut ends = Ends::new(maker);
    let (mut near, mut far) = ends.session();
    let (idle_near, mut idle_far) = ends.session();
    ends.line.order("freeze");
    near.write_all(b"during the freeze").expect("taken");
    std::thread::sleep(Duration::from_secs(size.pick(5, 10)));
    ends.line.order("thaw");
    let thawed = Instant::now();
    let mut got = [0; 17];
    let arrived = far.read_exact(&mut got).is_ok() && &got == b"during the freeze";
    let late = thawed.elapsed().as_secs_f64();
    let mut byte = [0];
    let mut idle_near = idle_near;
    let idle = idle_far.write_all(b"!").and_then(|()| idle_near.read_exact(&mut byte)).is_ok();
    vec![
        measure(
            "sessions that went on",
            "",
            Bar::Exactly(2.0),
            f64::from(arrived) + f64::from(idle),
        ),
        measure_or(
            "from the thaw until what was held back is there",
            "s",
            Bar::AtMost(15.0),
            arrived.then_some(late),
            "never",
        ),
    ]
}

/// From the backend to the application, and how many bytes of it were as they were sent.
fn transfer(near: &UnixStream, far: UnixStream, total: u64, midway: impl FnOnce()) -> u64 {
    let data = Stream::new(9);
    let source = data.clone();
    let writer = std::thread::spawn(move || source.send(&far, total).map(|()| far));
    midway();
    let mut piece = vec![0; 64 << 10];
    let mut at = 0;
    while at < total {
        match { near }.read(&mut piece) {
            Ok(count @ 1..) if data.piece(at, count) == &piece[..count] => at += count as u64,
            _ => break,
        }
    }
    drop(writer.join());
    at
}

fn frozen_peer(maker: Maker, _: Size) -> Vec<Measure> {
    const TOTAL: u64 = 24 << 20;
    let ends = Ends::new(maker);
    let (near, far) = ends.session();
    let exact = transfer(&near, far, TOTAL, || {
        ends.client.signal(Signal::STOP);
        // Longer than a dead peer is given: its kernel still answers for it.
        std::thread::sleep(Duration::from_secs(45));
        ends.client.signal(Signal::CONT);
    });
    let what = "bytes of 25165824 that arrive exactly when it goes on";
    vec![measure(what, "", Bar::Exactly(TOTAL as f64), exact as f64)]
}

fn bad_line(maker: Maker, size: Size) -> Vec<Measure> {
    let total: u64 = size.pick(500_000, 2_000_000);
    let mut ends = Ends::new(maker);
    ends.line.order("delay 40");
    ends.line.order("loss 3");
    let (near, far) = ends.session();
    let start = Instant::now();
    let exact = transfer(&near, far, total, || {});
    let took = start.elapsed().as_secs_f64();
    let what = format!("bytes of {total} that arrive exactly");
    vec![
        measure("packets lost on the way", "", Bar::AtLeast(5.0), ends.line.lost()),
        measure(&what, "", Bar::Exactly(total as f64), exact as f64),
        measure("seconds they took", "s", Bar::Told, took),
    ]
}
