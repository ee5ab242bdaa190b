//! Logs that cannot be written to.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::Fault;
use crate::ends::{End, Maker, Member, Order, echo, tls};
use crate::figure::Bar;
use crate::harness::{Backend, stage::need_root};
use crate::results::{Measure, Size, measure, measure_or};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "L9",
        name: "dev-full",
        about: "the log goes to /dev/full",
        quick: true,
        stunnel: false,
        run: |_, size| {
            with(
                size.pick(400, 1500),
                order().head("[log]\nlevel = \"debug\"\noutput = \"/dev/full\"", ""),
            )
        },
    },
    Fault {
        id: "L9",
        name: "full-tmpfs",
        about: "the log is on a file system of 64 kB, which is full soon",
        quick: true,
        stunnel: false,
        run: |_, size| {
            need_root();
            let order = order();
            // Nobody else sees it: it is mounted in a namespace of this process' own.
            let disk = order.folder().join("disk");
            std::fs::create_dir(&disk).expect("a folder");
            let mount = format!("mount -t tmpfs -o size=64k tmpfs {}", disk.display());
            let log = format!("[log]\nlevel = \"debug\"\noutput = \"{}/log\"", disk.display());
            let order = order.head(&log, "");
            with(
                size.pick(400, 1500),
                order.through(&["unshare", "-m", "--propagation", "private"]).shell(&mount),
            )
        },
    },
    Fault {
        id: "L9",
        name: "closed-pipe",
        about: "standard error is a pipe whose reader has gone",
        quick: true,
        stunnel: false,
        run: |_, size| {
            let order = order().head("[log]\nlevel = \"debug\"", "");
            let make = "mkfifo pipe && { sleep 1 <pipe & } && exec 2>pipe";
            with(size.pick(400, 1500), in_folder(order, make))
        },
    },
    Fault {
        id: "L9",
        name: "blocked-pipe",
        about: "standard error is a pipe that nobody reads",
        quick: true,
        stunnel: false,
        run: |_, size| {
            let order = order().head("[log]\nlevel = \"debug\"", "");
            let make = "mkfifo pipe && exec 4<>pipe 2>pipe";
            // As many lines as the queue and the pipe do not hold.
            with(size.pick(1200, 2500), in_folder(order, make))
        },
    },
];

fn order() -> Order {
    Order::server(Maker::Pskgate, "127.0.0.1:9")
}

fn in_folder(order: Order, line: &str) -> Order {
    let folder = order.folder().display().to_string();
    order.shell(&format!("cd {folder} && {line}"))
}

fn lost(end: &End) -> Option<f64> {
    let answer = end.ask("{\"command\":\"status\"}");
    let (_, rest) = answer.split_once("\"log-lines-lost\":")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn with(wanted: u32, order: Order) -> Vec<Measure> {
    let backend = Backend::echo();
    let mut server = order.connect(backend.address().to_string()).start();
    let to = server.address();
    std::thread::sleep(Duration::from_millis(1500));
    let mut failed = 0;
    let mut times = Vec::new();
    for _ in 0..wanted {
        let one = Instant::now();
        if tls(to, Ipv4Addr::LOCALHOST).and_then(|mut stream| echo(&mut stream)).is_err() {
            failed += 1;
        }
        times.push(one.elapsed());
    }
    let tally = crate::ends::Tally { times, failed };
    // Whatever was written goes out twice a second.
    std::thread::sleep(Duration::from_secs(2));
    let calm = server.cpu();
    std::thread::sleep(Duration::from_secs(2));
    let idle = (server.cpu() - calm).as_secs_f64() / 2.0 * 100.0;
    let lines = lost(&server);
    let code = {
        server.signal(rustix::process::Signal::TERM);
        server.wait(Duration::from_secs(20)).code()
    };
    vec![
        measure("sessions", "", Bar::Told, f64::from(wanted)),
        measure("of them failed", "", Bar::Exactly(0.0), failed as f64),
        measure("connect and answer, p99", "ms", Bar::AtMost(1000.0), tally.p99()),
        measure_or("lines that status counts as lost", "", Bar::AtLeast(1.0), lines, "not told"),
        measure("processor time when nothing happens", "%", Bar::AtMost(5.0), idle),
        measure_or(
            "exit code after SIGTERM",
            "",
            Bar::Exactly(0.0),
            code.map(f64::from),
            "a signal",
        ),
    ]
}
