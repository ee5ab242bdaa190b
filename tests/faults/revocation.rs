//! Keys that are taken away while something stands against a reload: how long until their sessions are cut,
//! from the rename of the key file on.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::Fault;
use crate::ends::{End, Maker, Order, echo, tls_as};
use crate::figure::Bar;
use crate::harness::{Backend, IDENTITY, KEY, OTHER_KEY, replace, secret, until, write_private};
use crate::results::{Measure, Size, measure};

/// From the rename to the cut in milliseconds, the 300 ms included in which a change has to rest.
const BAR: f64 = 1000.0;
/// How long something is waited for that has no bar.
const LONG: Duration = Duration::from_secs(60);

pub const FAULTS: &[Fault] = &[
    fault("revoked", "a key is taken out of its file, and nothing else is wrong", |_, size| {
        obstructed(size, |_| {})
    }),
    fault(
        "revoked-beside-a-typo",
        "the configuration has a mistake, for which it was refused",
        |_, size| {
            obstructed(size, |end| {
                configure(end, |text| text.replace("mode =", "moode ="));
                wait_refused(end);
            })
        },
    ),
    fault("revoked-beside-busy-ports", "the configuration waits for ten busy ports", |_, size| {
        obstructed(size, |end| {
            let taken: Vec<_> =
                (0..10).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
            let all: Vec<_> =
                taken.iter().map(|one| format!("\"{}\"", one.local_addr().expect("it"))).collect();
            // They stay taken as long as this process lives.
            taken.into_iter().for_each(std::mem::forget);
            let second = "mode = \"server\"\nconnect = \"127.0.0.1:9\"\npsk-secrets = \"psk.txt\"";
            let second = format!("\n[services.second]\n{second}\naccept = [{}]\n", all.join(", "));
            configure(end, |text| text + &second);
            end.wait_for(": reload begins", LONG);
            // In the middle of the waiting.
            std::thread::sleep(Duration::from_secs(1));
        })
    }),
    fault(
        "revoked-beside-a-broken-file",
        "another key file of the service is broken",
        |_, size| {
            obstructed(size, |end| {
                replace(&end.folder().join("more.txt"), "no key at all\n");
                wait_refused(end);
            })
        },
    ),
    fault(
        "revoked-beside-an-open-file",
        "another key file is held open and half-written",
        |_, size| {
            obstructed(size, |end| {
                let mut file = fs::File::create(end.folder().join("more.txt")).expect("truncated");
                file.write_all(b"half").expect("written");
                // It stays open as long as this process lives.
                std::mem::forget(file);
            })
        },
    ),
    fault("revoked-beside-a-fifo", "the log is to go to a FIFO that nobody reads", |_, size| {
        obstructed(size, |end| {
            let made = std::process::Command::new("mkfifo").arg(end.folder().join("fifo")).status();
            assert!(made.expect("mkfifo").success());
            configure(end, |text| {
                text.replace("[services.end]", "[log]\noutput = \"fifo\"\n\n[services.end]")
            });
            end.wait_for("cannot change the log", LONG);
        })
    }),
    fault(
        "revoked-beside-a-full-queue",
        "standard error is a pipe that nobody reads, and the log's queue is full",
        |_, size| {
            repeated(
                size,
                |order| {
                    let folder = order.folder().display().to_string();
                    order.shell(&format!("cd {folder} && mkfifo pipe && exec 4<>pipe 2>pipe"))
                },
                fill_queue,
            )
        },
    ),
    fault(
        "obstacle-gone",
        "a configuration was refused for a busy port, which is free 5 s later",
        |_, _| obstacle_gone(),
    ),
];

const fn fault(
    name: &'static str,
    about: &'static str,
    run: fn(Maker, Size) -> Vec<Measure>,
) -> Fault {
    Fault { id: "S7", name, about, quick: true, stunnel: false, run }
}

fn configure(end: &End, change: impl FnOnce(String) -> String) {
    let file = end.folder().join("pskgate.toml");
    let text = fs::read_to_string(&file).expect("the configuration");
    replace(&file, &change(text));
}

fn wait_refused(end: &End) {
    end.wait_for(": not reloaded:", LONG);
}

fn fill_queue(end: &End) {
    let sessions: Vec<_> = (0..20)
        .map(|_| {
            let mut one = tls_as(IDENTITY, KEY, end.address(), Ipv4Addr::LOCALHOST).expect("in");
            echo(&mut one).expect("an answer");
            one
        })
        .collect();
    until("the queue to be full", LONG, || {
        // Each list has a line for each session.
        for _ in 0..50 {
            end.signal(Signal::USR2);
            std::thread::sleep(Duration::from_millis(2));
        }
        (!end.ask("{\"command\":\"status\"}").contains("\"log-lines-lost\":0")).then_some(())
    });
    drop(sessions);
}

fn obstructed(size: Size, obstruct: impl Fn(&End)) -> Vec<Measure> {
    repeated(size, |order| order, obstruct)
}

/// Takes a key away beside an obstacle, several times over.
fn repeated(size: Size, prepare: impl Fn(Order) -> Order, obstruct: impl Fn(&End)) -> Vec<Measure> {
    let rounds = size.pick(2, 10);
    let backend = Backend::echo();
    let mut longest: f64 = 0.0;
    let (mut again, mut neighbours) = (0, 0);
    for _ in 0..rounds {
        let order = Order::server(Maker::Pskgate, backend.address())
            .head("sandbox = false\n", "")
            .secrets(&(secret(IDENTITY, KEY) + &secret("leaver", OTHER_KEY)));
        write_private(&order.folder().join("more.txt"), &secret("more", KEY));
        let end = prepare(order).start();
        configure(&end, |text| text.replace("\"psk.txt\"", "[\"psk.txt\", \"more.txt\"]"));
        let from = Ipv4Addr::LOCALHOST;
        until("the second key file", LONG, || tls_as("more", KEY, end.address(), from).ok());
        let mut leaver = tls_as("leaver", OTHER_KEY, end.address(), from).expect("let in");
        let mut neighbour = tls_as(IDENTITY, KEY, end.address(), from).expect("let in");
        echo(&mut leaver).expect("an answer");
        echo(&mut neighbour).expect("an answer");
        obstruct(&end);
        replace(&end.folder().join("psk.txt"), &secret(IDENTITY, KEY));
        let start = Instant::now();
        // A reset is an end as well.
        let _ = leaver.get_mut().read(&mut [0]);
        longest = longest.max(start.elapsed().as_secs_f64() * 1000.0);
        again += usize::from(tls_as("leaver", OTHER_KEY, end.address(), from).is_ok());
        neighbours += usize::from(echo(&mut neighbour).is_ok());
    }
    vec![
        measure("keys that were taken away", "", Bar::Told, f64::from(rounds)),
        measure("from the rename to the cut, longest", "ms", Bar::AtMost(BAR), longest),
        measure("of them let in again", "", Bar::Exactly(0.0), again as f64),
        measure("neighbours that go on", "", Bar::Exactly(f64::from(rounds)), neighbours as f64),
    ]
}

fn obstacle_gone() -> Vec<Measure> {
    let backend = Backend::echo();
    let end = Order::server(Maker::Pskgate, backend.address()).start();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address");
    configure(&end, |text| {
        let own = format!("accept = \"{}\"", end.address());
        text.replace(&own, &format!("accept = [\"{}\", \"{port}\"]", end.address()))
    });
    wait_refused(&end);
    std::thread::sleep(Duration::from_secs(5));
    let lines = end.lines();
    drop(taken);
    let start = Instant::now();
    end.wait_for("another attempt: reloaded;", LONG);
    let waited = start.elapsed().as_secs_f64();
    let refusals = end.err().matches(": not reloaded:").count();
    vec![
        measure("from the port's release to the new configuration", "s", Bar::AtMost(10.0), waited),
        measure("refusals that were logged", "", Bar::Exactly(1.0), refusals as f64),
        measure("lines logged until then", "", Bar::Told, lines as f64),
    ]
}
