//! `proxy-protocol-from`: behind a proxy, everything that asks for an address sees the real peer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::openssl::{psk, psk_of};
use crate::harness::process::pskgate;
use crate::harness::{
    Backend, ConnectionEnd, OpensslClient, PlainClient, Process, PskgateBuilder, Stunnel,
    WAIT_TIMEOUT, client_toml, free_port, local, server_toml, until,
};

const TRUSTED: &str = "proxy-protocol-from = \"127.0.0.1\"\n";

/// HAProxy before `target`, which it tells about its clients as `send` says.
struct Haproxy {
    _process: Process,
    _folder: TempDir,
    address: SocketAddr,
}

impl Haproxy {
    fn before(target: SocketAddr, send: &str) -> Self {
        let (port, folder) = (free_port(), TempDir::new().expect("a folder"));
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
             listen l\n  bind 127.0.0.1:{port}\n  server s {target} {send}\n"
        );
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, text).expect("written");
        let mut command = std::process::Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        let process = Process::spawn("haproxy", "the Debian package haproxy", &mut command);
        until("haproxy's port", WAIT_TIMEOUT, || TcpStream::connect(local(port)).ok());
        Self { _process: process, _folder: folder, address: local(port) }
    }

    fn client(&self, from: &str) -> OpensslClient {
        let bind = ["-bind".to_owned(), format!("{from}:0"), "-quiet".to_owned()];
        OpensslClient::start(self.address, psk().into_iter().chain(bind))
    }
}

fn says(client: &mut OpensslClient, backend: &Backend, number: usize) -> String {
    client.type_in("hello\n");
    let bytes = until("the data behind the tunnel", WAIT_TIMEOUT, || {
        let got = (backend.accepted() > number).then(|| backend.so_far(number))?;
        got.ends_with(b"hello\n").then_some(got)
    });
    String::from_utf8(bytes).unwrap()
}

#[test]
fn behind_haproxy_rules_sessions_logs_and_the_backend_see_the_real_peer() {
    for send in ["send-proxy", "send-proxy-v2"] {
        let backend = Backend::recorder();
        let rules = format!(
            "{TRUSTED}allow-from = [\"127.0.0.7\", \"127.0.0.8\"]\nproxy-header = \"v1\"\nmax-sessions-per-source = 1"
        );
        let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), &rules)).start();
        let proxy = Haproxy::before(gate.address("tls"), send);
        let mut seventh = proxy.client("127.0.0.7");
        let line = says(&mut seventh, &backend, 0);
        let shown = "PROXY TCP4 127.0.0.7 127.0.0.1 ";
        let to = format!(" {}\r\nhello\n", proxy.address.port());
        assert!(line.starts_with(shown) && line.ends_with(&to), "{send}: {line}");
        gate.wait_logged(" session opened: 127.0.0.7:");
        let sessions = pskgate(gate.folder(), &["sessions", "pskgate.toml"]);
        assert!(sessions.out.contains("127.0.0.7:"), "{}{}", sessions.out, sessions.err);
        // One place for each of them, and not one for all that the proxy brings.
        let mut eighth = proxy.client("127.0.0.8");
        says(&mut eighth, &backend, 1);
        proxy.client("127.0.0.7").wait_end();
        gate.wait_logged("refused identity ");
        proxy.client("127.0.0.9").wait_end();
        gate.wait_logged("its address is not in allow-from");
        assert!(
            gate.log().lines().any(|line| line.contains("refused 127.0.0.9:")),
            "{}",
            gate.log()
        );
        assert_eq!(backend.accepted(), 2, "{send}");
    }
}

#[test]
fn a_program_is_told_of_the_real_peer() {
    let toml = server_toml("127.0.0.1:1", TRUSTED).replace(
        "connect = \"127.0.0.1:1\"",
        "exec = \"/bin/sh\"\nexec-args = [\"sh\", \"-c\", \"echo at $REMOTE_HOST; cat\"]",
    );
    let gate = PskgateBuilder::new().toml(&toml).start();
    let proxy = Haproxy::before(gate.address("tls"), "send-proxy-v2");
    let client = proxy.client("127.0.0.7");
    client.wait_for("at 127.0.0.7", WAIT_TIMEOUT);
}

fn line(from: &str) -> String {
    format!("PROXY TCP4 {from} 192.0.2.1 5000 3001\r\n")
}

/// A connection from this address that begins with these bytes.
fn raw(to: SocketAddr, from: &str, bytes: &[u8]) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from: SocketAddr = format!("{from}:0").parse().unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// Whether the other side has closed, in whichever way.
fn is_closed(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => is_closed(stream, patience),
        Err(error) => {
            !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
        }
    }
}

#[test]
fn a_client_end_takes_the_header_off_and_goes_by_it() {
    let backend = Backend::echo();
    let far = Stunnel::server(backend.address(), "");
    let rules = format!("{TRUSTED}allow-from = \"203.0.113.0/24\"");
    let gate = PskgateBuilder::new().toml(&client_toml(far.address(), &rules)).start();
    let to = gate.address("plain");
    let mut good = raw(to, "127.0.0.1", (line("203.0.113.9") + "hello").as_bytes());
    let mut back = [0; 5];
    good.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello", "the header is not in the data");
    gate.wait_logged(" session opened: 203.0.113.9:5000");
    assert!(is_closed(&mut raw(to, "127.0.0.1", line("198.51.100.1").as_bytes()), WAIT_TIMEOUT));
    gate.wait_logged("refused 198.51.100.1:5000");
    // Without a header nobody is taken for the proxy, and what the proxy says of others is data elsewhere.
    assert!(is_closed(&mut raw(to, "127.0.0.1", b"hello"), WAIT_TIMEOUT));
    gate.wait_logged("in proxy-protocol-from: its connection began without a PROXY header");
    assert!(is_closed(&mut raw(to, "127.0.0.5", line("203.0.113.9").as_bytes()), WAIT_TIMEOUT));
    gate.wait_logged("refused 127.0.0.5:");
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn from_elsewhere_a_header_is_no_tls_and_none_is_needed() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), TRUSTED)).start();
    let to = gate.address("tls");
    let mut liar = raw(to, "127.0.0.5", line("203.0.113.9").as_bytes());
    assert!(is_closed(&mut liar, WAIT_TIMEOUT));
    gate.wait_logged("127.0.0.5:");
    assert!(!gate.log().contains("203.0.113.9"), "nobody believes it: {}", gate.log());
    let bind = ["-bind", "127.0.0.5:0", "-quiet"].map(str::to_owned);
    OpensslClient::start(to, psk().into_iter().chain(bind)).echo("without a header");
}

#[test]
fn what_a_trusted_address_sends_is_bounded_in_bytes_and_in_time() {
    let gate = PskgateBuilder::new()
        .toml(&server_toml("127.0.0.1:1", &format!("{TRUSTED}handshake-timeout = \"1s\"")))
        .start();
    let to = gate.address("tls");
    let v2 = |length: u16| {
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &length.to_be_bytes(), &[0; 200]].concat()
    };
    for (bytes, said) in [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "began without a PROXY header"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n".to_vec(), "is malformed"),
        (format!("PROXY TCP6 {}", "1".repeat(200)).into_bytes(), "is malformed"),
        (v2(60_000), "longer than 4096 bytes"),
    ] {
        assert!(is_closed(&mut raw(to, "127.0.0.1", &bytes), WAIT_TIMEOUT), "{said}");
        gate.wait_logged(said);
    }
    let start = Instant::now();
    for bytes in [&b""[..], b"PROXY TCP4 1.1.1.1", &v2(300)] {
        assert!(is_closed(&mut raw(to, "127.0.0.1", bytes), WAIT_TIMEOUT));
    }
    assert!(start.elapsed() >= Duration::from_millis(2900), "each had its second");
    gate.wait_logged("it sent no PROXY header in time (handshake-timeout)");
    let log = gate.log();
    assert!(log.contains("warning [tls]"), "the operator has to mend it: {log}");
}

#[test]
fn a_health_check_is_no_trouble_and_local_is_the_proxy_itself() {
    let backend = Backend::echo();
    let toml = format!("[log]\nlevel = \"debug\"\n{}", server_toml(backend.address(), TRUSTED));
    let gate = PskgateBuilder::new().toml(&toml).start();
    let to = gate.address("tls");
    drop(raw(to, "127.0.0.1", b""));
    gate.wait_logged("closed without sending anything");
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    drop(raw(to, "127.0.0.1", local));
    until("both checks", WAIT_TIMEOUT, || {
        (gate.log().matches("closed without sending anything").count() == 2).then_some(())
    });
    // HAProxy's own checks, three in a row.
    let checks = "check check-send-proxy send-proxy-v2 inter 100ms";
    let proxy = Haproxy::before(to, checks);
    until("HAProxy's checks", WAIT_TIMEOUT, || {
        (gate.log().matches("closed without sending anything").count() >= 5).then_some(())
    });
    proxy.client("127.0.0.7").echo("through");
    assert!(!gate.log().contains("warning"), "{}", gate.log());
}

/// Whoever is behind the proxy and says nothing crowds out itself, and not the proxy's other clients.
#[test]
fn strangers_behind_a_proxy_crowd_out_only_themselves() {
    let backend = Backend::echo();
    let rules = format!("{TRUSTED}handshake-timeout = \"5m\"");
    let toml = format!("[log]\nlevel = \"debug\"\n{}", server_toml(backend.address(), &rules));
    // With so few descriptors there is room for 32 connections that have proven nothing.
    let gate = PskgateBuilder::new().descriptors(200).toml(&toml).start();
    let to = gate.address("tls");
    let mut lone = raw(to, "127.0.0.1", line("203.0.113.1").as_bytes());
    until("the lone one's place", WAIT_TIMEOUT, || {
        let seen = pskgate(gate.folder(), &["status", "--json", "pskgate.toml"]);
        seen.out.contains("\"handshakes\": 1").then_some(())
    });
    let mut many: Vec<TcpStream> =
        (0..60).map(|_| raw(to, "127.0.0.1", line("203.0.113.66").as_bytes())).collect();
    assert!(is_closed(&mut many[0], WAIT_TIMEOUT), "the oldest of the many goes");
    gate.wait_logged("closed the connection of 203.0.113.66:");
    assert!(!is_closed(&mut lone, Duration::from_millis(300)), "and the lone one stays");
    assert!(!gate.log().contains("closed the connection of 203.0.113.1:"), "{}", gate.log());
    let proxy = Haproxy::before(to, "send-proxy");
    proxy.client("127.0.0.7").echo("a good one gets in");
}

#[test]
fn who_trusts_everybody_is_told() {
    let toml = server_toml("127.0.0.1:1", "proxy-protocol-from = [\"10.0.0.0/8\", \"::/0\"]");
    let gate = PskgateBuilder::new().toml(&toml);
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(done.err.matches("warning[trusts-everybody]").count(), 1, "{}", done.err);
}

/// Version 2 tells the backend for whom the proxy before us connected, in the addresses that it named.
#[test]
fn the_header_to_the_backend_carries_the_addresses_of_the_header_that_came() {
    let backend = Backend::recorder();
    let rules = format!("{TRUSTED}proxy-header = \"v1\"");
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), &rules)).start();
    let to = gate.address("tls");
    let stream = raw(to, "127.0.0.1", b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 3001\r\n");
    let bridge = Bridge::to(stream);
    let mut client =
        OpensslClient::start(bridge.address, psk().into_iter().chain(["-quiet".to_owned()]));
    let got = says(&mut client, &backend, 0);
    assert_eq!(got, "PROXY TCP6 2001:db8::7 2001:db8::1 5000 3001\r\nhello\n");
    let wrong = psk_of("nobody", "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0");
    let stream = raw(to, "127.0.0.1", line("203.0.113.5").as_bytes());
    let bridge = Bridge::to(stream);
    assert!(OpensslClient::start(bridge.address, wrong).alert().is_some());
    gate.wait_logged("203.0.113.5:5000");
    assert_eq!(backend.accepted(), 1);
}

/// Carries one connection over a stream that has begun already.
struct Bridge {
    address: SocketAddr,
}

impl Bridge {
    fn to(far: TcpStream) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let Ok((near, _)) = listener.accept() else { return };
            let (mut from, mut into) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let up = std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut into);
                let _ = into.shutdown(std::net::Shutdown::Write);
            });
            let (mut from, mut into) = (far, near);
            from.set_read_timeout(None).unwrap();
            let _ = std::io::copy(&mut from, &mut into);
            let _ = into.shutdown(std::net::Shutdown::Write);
            let _ = up.join();
        });
        Self { address }
    }
}

/// A client end's own plain side has endings too, with a header before it.
#[test]
fn an_end_is_passed_on_as_ever() {
    let backend = Backend::echo();
    let far = Stunnel::server(backend.address(), "");
    let gate = PskgateBuilder::new().toml(&client_toml(far.address(), TRUSTED)).start();
    let stream = raw(gate.address("plain"), "127.0.0.1", (line("203.0.113.9") + "all").as_bytes());
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let (bytes, ending) = PlainClient(stream).rest();
    assert_eq!((bytes.as_slice(), ending), (&b"all"[..], ConnectionEnd::Fin));
}

/// At a client end the other side may speak first, as a mail server does: nothing is waited for.
#[test]
fn a_proxy_that_knows_no_address_does_not_keep_a_client_end_waiting() {
    let backend = Backend::new(|mut stream| {
        stream.write_all(b"220 ready").ok()?;
        stream.read_to_end(&mut Vec::new()).ok()?;
        None
    });
    let far = Stunnel::server(backend.address(), "");
    let gate = PskgateBuilder::new().toml(&client_toml(far.address(), TRUSTED)).start();
    let mut stream = raw(gate.address("plain"), "127.0.0.1", b"PROXY UNKNOWN\r\n");
    let mut greeting = [0; 9];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready");
}
