//! The phrases by which programs find events in stunnel's log, in ours: those of stunnel itself, run here,
//! and of its later versions.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::{
    Backend, IDENTITY, KEY, OTHER_KEY, OpensslClient, OpensslServer, PlainClient, Pskgate,
    PskgateBuilder, Stunnel, Tls, WAIT_TIMEOUT, free_port, openssl, secret, until,
};
use crate::resumption::{at, conf, serve, toml};

/// What stands behind `error:NUMBER:SSL routines::` in the line with that beginning.
fn phrase(log: &str, beginning: &str) -> Option<String> {
    let line = log.lines().rfind(|line| line.contains(beginning))?;
    let (before, phrase) = line.split_once(":SSL routines::")?;
    let (_, number) = before.rsplit_once("error:")?;
    assert!(number.len() == 8 && u32::from_str_radix(number, 16).is_ok(), "{line}");
    Some(phrase.to_owned())
}

fn wait_phrase(what: &str, log: impl Fn() -> String, beginning: &str) -> String {
    until(&format!("a line with {beginning}: {what}"), WAIT_TIMEOUT, || phrase(&log(), beginning))
}

/// How strangers fail at a server end.
type Stranger = fn(SocketAddr);

fn client(to: SocketAddr, tls: Tls, arguments: &[String]) {
    let list = [tls.flag().to_owned()].into_iter().chain(arguments.iter().cloned());
    OpensslClient::start(to, list).wait_end();
}

const STRANGERS: [(&str, Stranger); 8] = [
    ("wrong-key", |to| client(to, Tls::V12, &openssl::psk_of(IDENTITY, OTHER_KEY))),
    ("wrong-key", |to| client(to, Tls::V13, &openssl::psk_of(IDENTITY, OTHER_KEY))),
    ("unknown-identity", |to| client(to, Tls::V12, &openssl::psk_of("nobody", KEY))),
    ("unknown-identity", |to| client(to, Tls::V13, &openssl::psk_of("nobody", KEY))),
    ("no-psk", |to| client(to, Tls::V12, &[])),
    ("no-psk", |to| client(to, Tls::V13, &[])),
    ("plain-text", |to| {
        let plain = PlainClient::connect(to);
        plain.send(b"GET / HTTP/1.0\r\n\r\n");
        plain.rest();
    }),
    ("closed-early", |to| drop(TcpStream::connect(to).expect("a connection"))),
];

#[test]
fn a_refused_handshake_has_its_cause_and_stunnel_s_phrase() {
    let backend = Backend::echo();
    for (name, come) in STRANGERS {
        let theirs = Stunnel::server(backend.address(), "");
        come(theirs.address());
        let wanted = wait_phrase(name, || theirs.text(), "SSL_accept: ");
        let ours = serve(free_port(), &backend, "");
        come(ours.address("tls"));
        let said = wait_phrase(name, || ours.log(), "SSL_accept: ");
        assert_eq!(said, wanted, "{name}");
        // A stranger's line is a notice, as before.
        let line = ours.wait_logged("SSL_accept: ");
        assert!(line.contains(" LOG5["), "{line}");
        assert_eq!(
            ours.log().contains("PSK identity not found: nobody"),
            name == "unknown-identity"
        );
        assert_eq!(theirs.text().contains("PSK identity not found"), name == "unknown-identity");
        // In words of ours: the cause, OpenSSL's reason, the code.
        let native = PskgateBuilder::new().toml(&toml(&backend, "")).start();
        come(native.address("tls"));
        let line = native.wait_logged("handshake refused: ");
        assert!(line.ends_with(&format!(" (OpenSSL: {wanted}) [{name}]")), "{line}");
    }
}

#[test]
fn a_failed_handshake_of_a_client_end_has_its_cause_and_stunnel_s_phrase() {
    let backend = Backend::echo();
    let folder = tempfile::TempDir::new().unwrap();
    openssl::certificate(folder.path());
    for tls in Tls::BOTH {
        let keyed = Stunnel::server(backend.address(), tls.conf());
        let list = ["-cert", "cert.pem", "-key", "key.pem"];
        let certified = OpensslServer::start(folder.path(), list);
        let to = keyed.address();
        let theirs = Stunnel::client_with(to, &secret(IDENTITY, OTHER_KEY), tls.conf());
        PlainClient::connect(theirs.address()).rest();
        let wanted = wait_phrase("a wrong key", || theirs.text(), "SSL_connect: ");
        let ours = wrong_key_at(to, tls);
        PlainClient::connect(ours.address("tls")).rest();
        let said = wait_phrase("a wrong key", || ours.log(), "SSL_connect: ");
        // stunnel adds the number of the alert.
        assert!(wanted.starts_with(&said), "{tls:?}: {wanted:?} and {said:?}");
        let line = ours.wait_logged("SSL_connect: ");
        assert!(line.contains(" LOG3[") && line.contains(IDENTITY), "{line}");
        if tls == Tls::V13 {
            // A server of certificates, which stunnel would not refuse.
            let ours = at(certified.address(), "");
            PlainClient::connect(ours.address("tls")).rest();
            let said = wait_phrase("a certificate", || ours.log(), "SSL_connect: ");
            assert_eq!(said, "certificate verify failed");
        }
    }
}

fn wrong_key_at(to: SocketAddr, tls: Tls) -> Pskgate {
    let text = conf(free_port(), to, &format!("client = yes\n{}", tls.conf()));
    PskgateBuilder::new()
        .file("psk.txt", &secret(IDENTITY, OTHER_KEY))
        .conf("x.conf", &text, None)
        .start()
}

/// The words of 5.68 to 5.75, which stunnel says here, and those of 5.82 in the same line.
fn expect_both(theirs: impl Fn() -> String, ours: impl Fn() -> String, old: &str, new: &str) {
    until(&format!("stunnel to say {old}"), WAIT_TIMEOUT, || theirs().contains(old).then_some(()));
    let line = until(&format!("a line with {old}"), WAIT_TIMEOUT, || {
        ours().lines().find(|line| line.contains(old)).map(str::to_owned)
    });
    assert!(line.contains(new), "{line}");
}

#[test]
fn scanners_of_old_and_new_versions_of_stunnel_find_each_timeout() {
    // It answers once, and does not end.
    let backend = Backend::new(|mut stream| {
        let mut heard = [0; 9];
        stream.read_exact(&mut heard).ok()?;
        stream.write_all(&heard).ok()?;
        std::thread::sleep(Duration::from_secs(60));
        None
    });
    for (option, words, [old, new]) in [
        (
            "TIMEOUTbusy = 1",
            "TIMEOUTbusy exceeded: sending reset",
            ["ssl_start", "ssl_handshake_poll"],
        ),
        ("TIMEOUTidle = 1", "TIMEOUTidle exceeded: sending reset", ["transfer", "transfer_tcp"]),
        ("TIMEOUTclose = 1", "TIMEOUTclose exceeded: closing", ["transfer", "transfer_tcp"]),
    ] {
        let theirs = Stunnel::server(backend.address(), option);
        let ours = serve(free_port(), &backend, option);
        for to in [theirs.address(), ours.address("tls")] {
            let log = || if to == theirs.address() { theirs.text() } else { ours.log() };
            let until_logged = || {
                until(words, WAIT_TIMEOUT, || log().contains(words).then_some(()));
            };
            match option {
                "TIMEOUTbusy = 1" => {
                    let _silent = TcpStream::connect(to).expect("a connection");
                    until_logged();
                }
                "TIMEOUTidle = 1" => {
                    let mut client = OpensslClient::start(to, openssl::psk());
                    client.echo("a session");
                    until_logged();
                }
                _ => {
                    let client = Stunnel::client(to, "");
                    let plain = PlainClient::connect(client.address());
                    plain.echo(b"a session");
                    plain.shut();
                    until_logged();
                }
            }
        }
        let forms = [old, new].map(|who| format!("{who}: s_poll_wait: {words}"));
        expect_both(|| theirs.text(), || ours.log(), &forms[0], &forms[1]);
    }
}

#[test]
fn scanners_of_old_and_new_versions_of_stunnel_find_a_rejected_socks_target() {
    let text = format!(
        "foreground = yes\nsyslog = no\ndebug = 7\n[tls]\naccept = 127.0.0.1:{}\n\
         protocol = socks\nPSKsecrets = psk.txt\n",
        free_port()
    );
    let server = PskgateBuilder::new().conf("x.conf", &text, None).start();
    let client = at(server.address("tls"), "");
    let plain = PlainClient::connect(client.address("tls"));
    plain.send(&[5, 1, 0]);
    plain.send(&[5, 1, 0, 1, 127, 0, 0, 1, 0, 80]);
    let line = server.wait_logged("SOCKS connection to 127.0.0.1:80 rejected");
    assert!(line.contains("SOCKS connection to the IPv4 loopback rejected"), "{line}");
    assert!(line.contains(" LOG3["), "{line}");
}
