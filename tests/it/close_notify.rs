//! close_notify: said once by each end at every orderly close, by nobody at any other, and missed where
//! it does not come.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::harness::hello::RecordingProxy;
use crate::harness::openssl::psk;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, OpensslClient, PlainClient, Pskgate,
    PskgateBuilder, Tls, WAIT_TIMEOUT, client_toml, local, offers, openssl, replace, secret,
    server_toml, until,
};

/// How many alerts went by; in 1.2 the type of a record can be read, and after a handshake that went well
/// an alert is a close_notify.
fn alerts(stream: &[u8]) -> usize {
    const ALERT: u8 = 0x15;
    let (mut rest, mut count) = (stream, 0);
    while let [kind, _, _, high, low, tail @ ..] = rest {
        count += usize::from(*kind == ALERT);
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        rest = tail.get(len..).unwrap_or_default();
    }
    count
}

/// Both ends of a tunnel that speaks 1.2, and what goes by between them.
struct Tunnel {
    server: Pskgate,
    tap: RecordingProxy,
    client: Pskgate,
}

fn tunnel(backend: &Backend) -> Tunnel {
    let server =
        PskgateBuilder::new().toml(&server_toml(backend.address(), Tls::V12.toml())).start();
    let tap = RecordingProxy::before(server.address("tls"));
    let client = PskgateBuilder::new().toml(&client_toml(tap.address(), "")).start();
    Tunnel { server, tap, client }
}

impl Tunnel {
    fn alerts(&self) -> (usize, usize) {
        (alerts(&self.tap.up()), alerts(&self.tap.down()))
    }

    fn wait_closed(&self, words: &str) {
        for gate in [&self.server, &self.client] {
            let line = gate.wait_logged("session closed");
            assert!(line.contains(words), "`{words}` is not in: {line}");
        }
    }
}

#[test]
fn each_end_says_it_once_whoever_ends_first() {
    let answers_and_ends = || {
        Backend::new(|mut stream| {
            let mut said = [0; 8];
            stream.read_exact(&mut said).ok()?;
            stream.write_all(&said).ok()?;
            None
        })
    };
    for backend_first in [false, true] {
        let backend = if backend_first { answers_and_ends() } else { Backend::echo() };
        let tunnel = tunnel(&backend);
        let plain = PlainClient::connect(tunnel.client.address("plain"));
        plain.echo(b"question");
        assert_eq!(tunnel.alerts().0, 0, "nobody has ended yet but the backend");
        if backend_first {
            assert_eq!(plain.end(), ConnectionEnd::Fin);
        }
        plain.0.shutdown(Shutdown::Write).unwrap();
        tunnel.wait_closed("complete");
        assert_eq!(tunnel.alerts(), (1, 1), "backend first: {backend_first}");
    }
}

#[test]
fn a_cut_says_nothing_and_the_other_end_misses_it() {
    let backend = Backend::echo();
    let mut tunnel = tunnel(&backend);
    let plain = PlainClient::connect(tunnel.client.address("plain"));
    plain.echo(b"question");
    replace(&tunnel.server.folder().join("psk.txt"), &secret(IDENTITY, OTHER_KEY));
    assert_eq!(plain.end(), ConnectionEnd::Rst, "half an answer does not look whole");
    let line = tunnel.client.wait_logged("session closed");
    assert!(line.contains(" warning ") && line.contains("without a TLS close"), "{line}");
    // What the end that misses it says in its last alert is the library's.
    assert_eq!(tunnel.alerts().1, 0, "the end that cuts says nothing");
    assert_eq!(tunnel.client.terminate(), Some(0));
    tunnel.client.wait_logged("(truncated 1)");
}

#[test]
fn a_peer_that_leaves_without_it_is_logged_and_counted_in_both_versions() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let mut gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
        let arguments = psk().into_iter().chain([tls.flag().to_owned()]);
        let mut client = OpensslClient::start(gate.address("tls"), arguments);
        client.echo("before it dies");
        client.kill();
        let line = gate.wait_logged("session closed");
        assert!(line.contains(" info ") && line.contains("without a TLS close"), "{line}");
        assert_eq!(gate.terminate(), Some(0));
        gate.wait_logged("(truncated 1)");
    }
}

#[test]
fn a_peer_of_1_3_hears_it_from_a_client_end() {
    let peer = offers(&["serve", &openssl::hex(IDENTITY), &openssl::hex(KEY), "sha256"]);
    let ready = peer.wait_for("READY ", WAIT_TIMEOUT);
    let port = ready.trim_start_matches("READY ").trim().parse().expect("a port");
    let gate = PskgateBuilder::new().toml(&client_toml(local(port), "")).start();
    let plain = PlainClient::connect(gate.address("plain"));
    plain.echo(b"question");
    plain.shut();
    until("what the peer heard", WAIT_TIMEOUT, || {
        assert!(!peer.text().contains("REFUSED"), "it was cut: {}", peer.text());
        peer.out().contains("ENDED close_notify").then_some(())
    });
    assert_eq!(plain.end(), ConnectionEnd::Fin);
    assert!(gate.wait_logged("session closed").contains("complete"));
}
