//! `protocol = proxy`: the backend is told who is there, in the bytes that stunnel sends.

use std::net::SocketAddr;
use std::path::Path;

use crate::harness::openssl::{psk, psk_of};
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, OTHER_KEY, OpensslClient, Process, PskgateBuilder, Stunnel,
    Tls, WAIT_TIMEOUT, free_port, local, server_toml, until,
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
    until("the backend's connection", WAIT_TIMEOUT, || (backend.accepted() > number).then_some(()));
    until("the data to arrive", WAIT_TIMEOUT, || {
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
            let _gate = PskgateBuilder::new().conf("x.conf", &text, None).start();
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
    let gate = PskgateBuilder::new().toml(&text).start();
    let arguments = ["-unix", "in.sock", "-quiet"].map(str::to_owned).into_iter();
    let mut client =
        OpensslClient::start_unconnected(gate.folder(), psk().into_iter().chain(arguments));
    client.type_in("hello\n");
    until("the data to arrive", WAIT_TIMEOUT, || {
        (backend.so_far(0) == b"PROXY UNKNOWN\r\nhello\n").then_some(())
    });
    assert!(Path::new(gate.folder()).join("in.sock").exists());
}

#[test]
fn nothing_is_told_before_the_key_is_proven() {
    for tls in Tls::BOTH {
        let backend = Backend::sink();
        let extra = format!("proxy-header = \"v1\"\n{}", tls.toml());
        let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), &extra)).start();
        let wrong = psk_of(IDENTITY, OTHER_KEY);
        assert!(OpensslClient::start(gate.address("tls"), wrong).alert().is_some());
        gate.wait_logged("refused");
        assert_eq!(backend.accepted(), 0);
        // Nor when the client has nothing to say: then the line is all there is.
        let client = Stunnel::client(gate.address("tls"), "");
        let plain = crate::harness::PlainClient::connect(client.address());
        plain.shut();
        let (bytes, ending) = backend.wait_end(0);
        assert!(bytes.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 ") && bytes.ends_with(b"\r\n"));
        assert_eq!(ending, ConnectionEnd::Fin);
    }
}

/// HAProxy takes the header of version 2 from us, and tells a backend of its own what it understood in
/// version 1.
#[test]
fn haproxy_understands_the_second_version() {
    let backend = Backend::recorder();
    let (proxy, folder) = (free_port(), tempfile::TempDir::new().expect("a folder"));
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
         listen l\n  bind 127.0.0.1:{proxy} accept-proxy\n  server s {} send-proxy\n",
        backend.address()
    );
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, text).expect("written");
    let mut command = std::process::Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let _haproxy = Process::spawn("haproxy", "the Debian package haproxy", &mut command);
    until("haproxy's port", WAIT_TIMEOUT, || std::net::TcpStream::connect(local(proxy)).ok());
    for (accept, bind, shown) in [
        ("127.0.0.1:0", "127.0.0.7", "PROXY TCP4 127.0.0.7 127.0.0.1 "),
        ("[::1]:0", "[::1]", "PROXY TCP6 ::1 ::1 "),
    ] {
        let before = backend.accepted();
        let toml =
            server_toml(local(proxy), "proxy-header = \"v2\"").replace("127.0.0.1:0", accept);
        let gate = PskgateBuilder::new().toml(&toml).start();
        let arguments = ["-bind", &format!("{bind}:0"), "-quiet"].map(str::to_owned);
        let mut client =
            OpensslClient::start(gate.address("tls"), psk().into_iter().chain(arguments));
        client.type_in("hello\n");
        let got = until("the data behind both headers", WAIT_TIMEOUT, || {
            let got = backend.so_far(before);
            got.ends_with(b"hello\n").then_some(got)
        });
        let got = String::from_utf8(got).expect("text alone: the binary header was understood");
        assert!(got.starts_with(shown) && got.matches("PROXY").count() == 1, "{got}");
    }
}
