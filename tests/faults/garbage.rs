//! Garbage of every kind on the TLS port.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::Fault;
use crate::ends::{End, Maker, Order, echo, plain_from, tls};
use crate::figure::Bar;
use crate::harness::{Backend, Stream};
use crate::results::{Measure, Size, measure, measure_or};

pub const FAULTS: &[Fault] = &[
    Fault {
        id: "L8",
        name: "cut-hello",
        about: "a real ClientHello, cut at every byte",
        quick: true,
        stunnel: true,
        run: |maker, _| {
            let hello = client_hello();
            attack(maker, move |to| {
                for end in 0..hello.len() {
                    say(to, &hello[..end]);
                }
                hello.len()
            })
        },
    },
    Fault {
        id: "L8",
        name: "spoiled-hello",
        about: "a real ClientHello, with each byte in turn made another",
        quick: true,
        stunnel: true,
        run: |maker, _| {
            let hello = client_hello();
            attack(maker, move |to| {
                for at in 0..hello.len() {
                    let mut spoiled = hello.clone();
                    spoiled[at] ^= 0xff;
                    say(to, &spoiled);
                }
                hello.len()
            })
        },
    },
    Fault {
        id: "L8",
        name: "other-protocols",
        about: "HTTP, SSH, SMB, Modbus, TLS alerts and random bytes",
        quick: true,
        stunnel: true,
        run: |maker, size| attack(maker, move |to| others(to, size.pick(200, 1000))),
    },
    Fault {
        id: "L8",
        name: "zeros",
        about: "16 MB of zeros, eight times",
        quick: true,
        stunnel: true,
        run: |maker, _| {
            attack(maker, |to| {
                for _ in 0..8 {
                    let mut stream = plain_from(to, Ipv4Addr::LOCALHOST).expect("a connection");
                    for _ in 0..256 {
                        if stream.write_all(&[0; 64 << 10]).is_err() {
                            break;
                        }
                    }
                }
                8
            })
        },
    },
    Fault {
        id: "L8",
        name: "connect-and-close",
        about: "connections that close at once, by turns with a reset",
        quick: true,
        stunnel: true,
        run: |maker, size| {
            attack(maker, move |to| {
                let count = size.pick(2_000, 10_000);
                for n in 0..count {
                    if let Ok(stream) = plain_from(to, Ipv4Addr::LOCALHOST) {
                        if n % 2 == 1 {
                            crate::harness::backend::reset(stream);
                        }
                    }
                }
                count
            })
        },
    },
];

/// Says something, ends its side, and does not wait for long.
fn say(to: SocketAddr, what: &[u8]) {
    let Ok(mut stream) = plain_from(to, Ipv4Addr::LOCALHOST) else { return };
    let _ = stream.write_all(what);
    let _ = stream.shutdown(Shutdown::Write);
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a limit");
    while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
}

/// The first thing that OpenSSL says with the key of the tests.
fn client_hello() -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let client = std::thread::spawn(move || drop(tls(address, Ipv4Addr::LOCALHOST)));
    let (mut stream, _) = listener.accept().expect("a client");
    let mut head = [0; 5];
    stream.read_exact(&mut head).expect("a record");
    let mut hello = head.to_vec();
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    hello.resize(5 + length, 0);
    stream.read_exact(&mut hello[5..]).expect("a whole record");
    drop(stream);
    client.join().expect("a client");
    hello
}

fn others(to: SocketAddr, random: u64) -> usize {
    let known: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: plc\r\n\r\n",
        b"OPTIONS * RTSP/1.0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"\0\0\0\x85\xffSMBr\0\0\0\0\x18\x53\xc8",
        b"\0\x01\0\0\0\x06\x01\x03\0\0\0\x0a",
        b"\x15\x03\x03\0\x02\x02\x28",
        b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10",
        b"\x17\x03\x03\xff\xff",
    ];
    for what in known {
        for _ in 0..20 {
            say(to, what);
        }
    }
    let noise = Stream::new(8);
    for n in 0..random {
        let length = (n as usize * 37) % 3000;
        let mut said = noise.piece(n * 331, length).to_vec();
        // Half of them begin as a handshake does.
        if n % 2 == 0 && length > 9 {
            said[..6].copy_from_slice(&[0x16, 3, 1, 2, 0, 1]);
        }
        say(to, &said);
    }
    known.len() * 20 + random as usize
}

fn attack(maker: Maker, attempts: impl FnOnce(SocketAddr) -> usize) -> Vec<Measure> {
    let backend = Backend::echo();
    let mut server = Order::server(maker, backend.address()).start();
    let to = server.address();
    // What it allocates once, whoever comes, is there before the memory is looked at.
    for _ in 0..100 {
        say(to, b"\x16\x03\x01\x02\0\x01");
    }
    let friend = || tls(to, Ipv4Addr::LOCALHOST).and_then(|mut stream| echo(&mut stream)).is_ok();
    assert!(friend(), "it does not serve before the attack");
    let reached = backend.accepted();
    std::thread::sleep(Duration::from_secs(1));
    let (memory, lines, calm) = (server.anonymous(), server.lines(), server.descriptors());
    let start = Instant::now();
    let count = attempts(to);
    let lasted = start.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(1));
    let said = server.lines() - lines;
    let strangers = backend.accepted() - reached;
    let alive = server.ended().is_none();
    let panics = server.err().matches("panicked").count();
    let served = friend();
    let settled = Instant::now();
    while server.descriptors() > calm && settled.elapsed() < Duration::from_secs(12) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let grown = server.anonymous().saturating_sub(memory) as f64 / 1024.0;
    let kept = server.descriptors().saturating_sub(calm);
    vec![
        measure("attempts", "", Bar::Told, count as f64),
        measure("connections to the backend by them", "", Bar::Exactly(0.0), strangers as f64),
        measure("panics", "", Bar::Exactly(0.0), panics as f64),
        measure("it runs, and serves a friend", "", Bar::Exactly(1.0), f64::from(alive && served)),
        measure("memory more", "kB", Bar::AtMost(2048.0), grown),
        measure("descriptors kept", "", Bar::Exactly(0.0), kept as f64),
        // Twenty at once, then one a second, with a line for what was withheld.
        measure(
            "lines of the log beyond 20 and 2 a second",
            "",
            Bar::Exactly(0.0),
            (said as f64 - 20.0 - 2.0 * (lasted + 2.0)).max(0.0).round(),
        ),
    ]
}
