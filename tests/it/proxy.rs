//! `protocol = proxy`: the backend is told who is there, in the bytes that stunnel sends.

use std::net::SocketAddr;
use std::path::Path;

use crate::harness::openssl::{psk, psk_of};
use crate::harness::{
    Backend, Ending, Gate, IDENTITY, OTHER_KEY, OpensslClient, PATIENCE, Stunnel, Tls, free_port,
    server_toml, until,
};

fn conf(accept: &str, backend: &Backend) -> String {
    let connect = backend.address();
    format!("[tls]\naccept = {accept}\nconnect = {connect}\nprotocol = proxy\n")
}

/// What the backend gets when a client from `from` says `hello`.
fn seen(backend: &Backend, to: SocketAddr, from: &str, tls: Tls) -> String {
    let number = backend.accepted();
    let arguments = ["-bind", from, "-quiet", tls.flag()].map(str::to_owned);
    let mut client = OpensslClient::start(to, psk().into_iter().chain(arguments));
    client.type_in("hello\n");
    until("the backend's connection", PATIENCE, || (backend.accepted() > number).then_some(()));
    until("the data to arrive", PATIENCE, || {
        backend.so_far(number).ends_with(b"hello\n").then_some(())
    });
    let bytes = backend.so_far(number);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_line_is_stunnels_byte_for_byte_and_comes_first() {
    for (host, from) in [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("::", "127.0.0.1")] {
        for tls in Tls::BOTH {
            let (ours, theirs) = (free_port(), free_port());
            let backend = Backend::recorder();
            let text = conf(&format!("{host}:{ours}"), &backend) + "PSKsecrets = psk.txt\n";
            let _gate = Gate::new().conf("x.conf", &text, None).start();
            let _stunnel =
                Stunnel::server_with(theirs, &conf(&format!("{host}:{theirs}"), &backend));
            let from = format!("{from}:{}", free_port());
            let to = |port: u16| SocketAddr::new(from.parse::<SocketAddr>().unwrap().ip(), port);
            let expected = seen(&backend, to(theirs), &from, tls);
            // The same source port may rest for a while, but not towards another address.
            let got = seen(&backend, to(ours), &from, tls);
            assert_eq!(got, expected.replace(&theirs.to_string(), &ours.to_string()));
            assert!(got.starts_with("PROXY TCP") && got.ends_with("\r\nhello\n"), "{got}");
        }
    }
}

#[test]
fn a_unix_socket_has_no_addresses_to_tell() {
    let backend = Backend::recorder();
    let text = server_toml(backend.address(), "proxy-header = \"v1\"")
        .replace("127.0.0.1:0", "unix:in.sock");
    let gate = Gate::new().toml(&text).start();
    let arguments = ["-unix", "in.sock", "-quiet"].map(str::to_owned).into_iter();
    let mut client =
        OpensslClient::start_unconnected(gate.folder(), psk().into_iter().chain(arguments));
    client.type_in("hello\n");
    until("the data to arrive", PATIENCE, || {
        (backend.so_far(0) == b"PROXY UNKNOWN\r\nhello\n").then_some(())
    });
    assert!(Path::new(gate.folder()).join("in.sock").exists());
}

#[test]
fn nothing_is_told_before_the_key_is_proven() {
    for tls in Tls::BOTH {
        let backend = Backend::sink();
        let extra = format!("proxy-header = \"v1\"\n{}", tls.toml());
        let gate = Gate::new().toml(&server_toml(backend.address(), &extra)).start();
        let wrong = psk_of(IDENTITY, OTHER_KEY);
        assert!(OpensslClient::start(gate.address("tls"), wrong).alert().is_some());
        gate.wait_logged("refused");
        assert_eq!(backend.accepted(), 0);
        // Nor when the client has nothing to say: then the line is all there is.
        let client = Stunnel::client(gate.address("tls"), "");
        let plain = crate::harness::Plain::connect(client.address());
        plain.shut();
        let (bytes, ending) = backend.wait_end(0);
        assert!(bytes.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 ") && bytes.ends_with(b"\r\n"));
        assert_eq!(ending, Ending::Fin);
    }
}
