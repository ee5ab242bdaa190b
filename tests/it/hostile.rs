//! Strangers at both ends. Nobody gets a byte across before the key is proven, and nobody who fails
//! to prove it keeps the others waiting.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use crate::harness::backend::read_to_end;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, OpensslClient, OpensslServer, PlainClient,
    Pskgate, PskgateBuilder, Stopwatch, Stunnel, Tls, WAIT_TIMEOUT, client_toml, openssl, secret,
    server_toml,
};

/// What must never reach an impostor.
const PLAIN_TEXT: &str = "start the PLC, please";

fn server(backend: &Backend, extra: &str) -> Pskgate {
    PskgateBuilder::new().toml(&server_toml(backend.address(), extra)).start()
}

fn args(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

/// Speaks to the client end as an application does, and expects nothing but the end.
fn expect_cut(gate: &Pskgate) {
    let plain = PlainClient::connect(gate.address("plain"));
    let sent = (&plain.0).write_all(format!("{PLAIN_TEXT}\n").as_bytes());
    let (got, mut ending) = plain.rest();
    // A reset is told once, to the first who asks.
    if sent.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset) {
        ending = ConnectionEnd::Rst;
    }
    assert_eq!(String::from_utf8_lossy(&got), "", "the impostor's words reached the application");
    assert_eq!(ending, ConnectionEnd::Rst, "no tunnel: not even an empty answer must look whole");
}

/// The impostor is a working TLS server, and prints what it receives.
fn expect_working(impostor: &OpensslServer, tls: Tls, extra: &[&str]) {
    let mut fool = OpensslClient::start(impostor.address(), args(&[&[tls.flag()], extra].concat()));
    fool.type_in("anybody\n");
    fool.wait_for("ydobyna", WAIT_TIMEOUT);
}

#[test]
fn an_impostor_with_a_certificate_gets_not_one_byte_from_a_client_end() {
    for tls in Tls::BOTH {
        let gate = PskgateBuilder::new();
        openssl::certificate(gate.folder());
        let list = ["-cert", "cert.pem", "-key", "key.pem", tls.flag()];
        let impostor = OpensslServer::start(gate.folder(), list);
        expect_working(&impostor, tls, &[]);
        let gate = gate.toml(&client_toml(impostor.address(), "")).start();
        expect_cut(&gate);
        gate.wait_logged("handshake failed");
        if tls == Tls::V13 {
            gate.wait_logged("did not prove that it has the key");
        }
        assert!(!gate.log().contains("session opened"), "{}", gate.log());
        assert!(!impostor.text().contains("esaelp ,CLP"), "{}", impostor.text());
    }
}

#[test]
fn an_impostor_with_a_certificate_and_another_key_gets_not_one_byte_from_a_client_end() {
    for tls in Tls::BOTH {
        let gate = PskgateBuilder::new();
        openssl::certificate(gate.folder());
        let list = ["-cert", "cert.pem", "-key", "key.pem", tls.flag()].map(str::to_owned);
        let impostor = OpensslServer::start(
            gate.folder(),
            list.into_iter().chain(openssl::psk_of(IDENTITY, OTHER_KEY)),
        );
        expect_working(&impostor, tls, &[]);
        let gate = gate.toml(&client_toml(impostor.address(), "")).start();
        expect_cut(&gate);
        gate.wait_logged("handshake failed");
        assert!(!gate.log().contains("session opened"), "{}", gate.log());
    }
}

#[test]
fn a_server_that_speaks_plain_text_gets_no_plain_text_from_a_client_end() {
    let banner = Backend::new(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
        Some(read_to_end(stream))
    });
    let gate = PskgateBuilder::new().toml(&client_toml(banner.address(), "")).start();
    expect_cut(&gate);
    gate.wait_logged("does not speak TLS");
    let (heard, _) = banner.wait_end(0);
    assert!(!String::from_utf8_lossy(&heard).contains("PLC"), "plain text reached it");
}

#[test]
fn a_client_end_says_that_its_identity_was_refused() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let far = server(&backend, tls.toml());
        for (identity, key) in [(IDENTITY, OTHER_KEY), ("bob", KEY)] {
            let text = client_toml(far.address("tls"), "").replace(IDENTITY, identity);
            let gate =
                PskgateBuilder::new().file("psk.txt", &secret(identity, key)).toml(&text).start();
            expect_cut(&gate);
            gate.wait_logged(&format!("refused identity \"{identity}\""));
        }
        assert_eq!(backend.accepted(), 0);
    }
}

/// A stranger's attempt: how it calls, and the cause that the log must name.
struct Stranger {
    arguments: Vec<String>,
    cause: &'static str,
}

fn strangers(tls: Tls) -> [Stranger; 3] {
    let stranger = |arguments: Vec<String>, cause| Stranger {
        arguments: arguments.into_iter().chain([tls.flag().to_owned()]).collect(),
        cause,
    };
    [
        stranger(Vec::new(), "the client offered no pre-shared key"),
        stranger(openssl::psk_of("bob", KEY).to_vec(), "unknown identity \"bob\""),
        stranger(
            openssl::psk_of(IDENTITY, OTHER_KEY).to_vec(),
            "wrong key for identity \"client1\"",
        ),
    ]
}

#[test]
fn strangers_are_refused_by_name_and_never_reach_the_backend() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = server(&backend, "");
        for stranger in strangers(tls) {
            let mut client = OpensslClient::start(gate.address("tls"), &stranger.arguments);
            client.type_in("let me in\n");
            gate.wait_logged(stranger.cause);
            assert!(client.alert().is_some(), "a refusal is an alert: {}", client.text());
            assert_eq!(backend.accepted(), 0, "{} reached the backend", stranger.cause);
        }
        let mut friend = OpensslClient::start(gate.address("tls"), openssl::psk());
        friend.echo("and a friend gets through");
        assert_eq!(backend.accepted(), 1);
    }
}

#[test]
fn an_unknown_identity_and_a_wrong_key_get_the_same_alert() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = server(&backend, "");
        let [_, unknown, wrong] = strangers(tls)
            .map(|stranger| OpensslClient::start(gate.address("tls"), stranger.arguments).alert());
        assert!(unknown.is_some(), "there is an alert");
        assert_eq!(unknown, wrong, "alerts tell the two apart in {}", tls.name());
    }
}

/// What a stranger says first, and the cause that the log must name.
#[test]
fn whatever_is_not_tls_is_refused_and_named() {
    let backend = Backend::echo();
    let gate = server(&backend, "");
    for (said, cause) in [
        (&b"GET / HTTP/1.1\r\nHost: plc\r\n\r\n"[..], "plain text on a TLS port"),
        (&b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..], "plain text on a TLS port"),
        (&b"\x16\x03\x01"[..], "closed the connection during the handshake"),
        (&b""[..], "closed the connection during the handshake"),
    ] {
        let before = gate.log().matches(cause).count();
        let stranger = PlainClient::connect(gate.address("tls"));
        let _ = (&stranger.0).write_all(said);
        let _ = stranger.0.shutdown(std::net::Shutdown::Write);
        stranger.rest();
        crate::harness::until(
            &format!("`{cause}` after {said:?}:\n{}", gate.log()),
            WAIT_TIMEOUT,
            || (gate.log().matches(cause).count() > before).then_some(()),
        );
    }
    assert_eq!(backend.accepted(), 0);
    PlainClient::connect(Stunnel::client(gate.address("tls"), "").address())
        .echo(b"it still serves");
}

#[test]
fn noise_of_every_kind_reaches_nobody_and_ends_nothing() {
    let backend = Backend::echo();
    let gate = server(&backend, "");
    let noise = crate::harness::Stream::new(7);
    for attempt in 0..200_u64 {
        let stranger = PlainClient::connect(gate.address("tls"));
        let mut said = noise.piece(attempt * 331, 517).to_vec();
        if attempt % 2 == 0 {
            // The beginning of a ClientHello that is cut or spoiled further on.
            said[..9].copy_from_slice(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]);
        }
        let _ = (&stranger.0).write_all(&said);
    }
    let mut friend = OpensslClient::start(gate.address("tls"), openssl::psk());
    friend.echo("it still serves");
    assert_eq!(backend.accepted(), 1, "the friend and nobody else");
    assert!(!gate.log().contains("panicked"), "{}", gate.log());
}

#[test]
fn a_silent_peer_is_cut_at_the_handshake_timeout() {
    let backend = Backend::echo();
    let gate = server(&backend, "handshake-timeout = \"1s\"");
    let watch = Stopwatch::start();
    let silent = PlainClient::connect(gate.address("tls"));
    silent.end();
    let lasted = watch.lasted();
    assert!(lasted >= Duration::from_millis(900), "cut too early, after {lasted:?}");
    watch.expect_within(Duration::from_secs(5));
    gate.wait_logged("the handshake was not done within 1s");
}

#[test]
fn a_peer_that_drips_its_hello_is_cut_at_the_handshake_timeout_all_the_same() {
    let backend = Backend::echo();
    let gate = server(&backend, "handshake-timeout = \"1s\"");
    let watch = Stopwatch::start();
    let dripping = PlainClient::connect(gate.address("tls"));
    dripping.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    for byte in
        [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].into_iter().chain(std::iter::repeat_n(0, 100))
    {
        let sent = (&dripping.0).write_all(&[byte]).is_ok();
        let read = (&dripping.0).read(&mut [0; 64]);
        if !sent
            || matches!(read, Ok(0))
            || read.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
        {
            break;
        }
    }
    watch.expect_within(Duration::from_secs(5));
    gate.wait_logged("the handshake was not done within 1s");
}

#[test]
fn a_silent_server_is_given_up_at_the_handshake_timeout() {
    let silent = Backend::sink();
    let gate = PskgateBuilder::new()
        .toml(&client_toml(silent.address(), "handshake-timeout = \"1s\""))
        .start();
    let watch = Stopwatch::start();
    expect_cut(&gate);
    watch.expect_within(Duration::from_secs(5));
    gate.wait_logged("the handshake was not done within 1s");
}

#[test]
fn a_good_client_connects_at_once_while_fifty_silent_ones_hang() {
    let backend = Backend::echo();
    let gate = server(&backend, "");
    let stunnel = Stunnel::client(gate.address("tls"), "");
    let silent: Vec<PlainClient> =
        (0..50).map(|_| PlainClient::connect(gate.address("tls"))).collect();
    let watch = Stopwatch::start();
    PlainClient::connect(stunnel.address()).echo(b"at once");
    watch.expect_within(Duration::from_secs(3));
    for one in &silent {
        one.0.set_nonblocking(true).unwrap();
        let still = (&one.0).read(&mut [0]);
        assert!(
            still.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock),
            "the silent ones were still there"
        );
    }
}

/// Connects with s_client, which saves the session if it is given one that can be resumed. Is it?
fn is_given_a_session(folder: &Path, file: &str, to: SocketAddr, tls: Tls) -> bool {
    let list = openssl::psk().into_iter().chain(args(&[tls.flag(), "-sess_out", file]));
    let mut client = OpensslClient::start_in(folder, to, list);
    // In 1.3 a ticket comes after the handshake, and before the first answer.
    client.echo("something to wait for");
    client.kill();
    folder.join(file).exists()
}

#[test]
fn nobody_is_given_a_ticket_and_none_is_taken() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let folder = tempfile::TempDir::new().unwrap();
        let stunnel = Stunnel::server(backend.address(), tls.conf());
        assert!(
            is_given_a_session(folder.path(), "session.pem", stunnel.address(), tls),
            "stunnel gives sessions, or this test sees nothing"
        );
        let gate = server(&backend, tls.toml());
        assert!(
            !is_given_a_session(folder.path(), "from-gate.pem", gate.address("tls"), tls),
            "a session was given that can be resumed"
        );

        // Whatever was saved opens no door without the key.
        let reached = backend.accepted();
        let list = args(&[tls.flag(), "-sess_in", "session.pem"]);
        let mut client = OpensslClient::start_in(folder.path(), gate.address("tls"), list);
        client.type_in("let me in again\n");
        assert!(client.alert().is_some(), "it was let in: {}", client.text());
        assert_eq!(backend.accepted(), reached);
    }
}

#[test]
fn null_ciphers_and_old_versions_are_refused() {
    let backend = Backend::echo();
    let native = server(&backend, "");
    let text = format!(
        "[tls]\naccept = 127.0.0.1:{}\nconnect = {}\nciphers = ALL:PSK:eNULL:@SECLEVEL=0\nPSKsecrets = psk.txt\n",
        crate::harness::free_port(),
        backend.address()
    );
    let asked_for = PskgateBuilder::new().conf("stunnel.conf", &text, None).start();
    for gate in [&native, &asked_for] {
        for suite in ["PSK-NULL-SHA256", "ECDHE-PSK-NULL-SHA384", "DHE-PSK-NULL-SHA"] {
            let list = args(&["-tls1_2", "-cipher", &format!("{suite}:@SECLEVEL=0")]);
            let mut client =
                OpensslClient::start(gate.address("tls"), openssl::psk().into_iter().chain(list));
            assert!(client.alert().is_some(), "{suite}: {}", client.text());
        }
    }
    for version in ["-tls1", "-tls1_1"] {
        let list = args(&[version, "-cipher", "PSK:@SECLEVEL=0"]);
        let mut client =
            OpensslClient::start(native.address("tls"), openssl::psk().into_iter().chain(list));
        assert!(client.alert().is_some(), "{version}: {}", client.text());
    }
    native.wait_logged("the client offers TLS 1.1, this service accepts TLS 1.2 to 1.3");
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn an_identity_s_control_characters_do_not_reach_the_log() {
    let backend = Backend::echo();
    let gate = server(&backend, "");
    let evil = "\u{1b}[2Jevil\n2026-01-01T00:00:00Z info forged\r\u{7}";
    for tls in Tls::BOTH {
        let list = openssl::psk_of(evil, KEY).into_iter().chain([tls.flag().to_owned()]);
        OpensslClient::start(gate.address("tls"), list).alert();
    }
    let line = gate.wait_logged("unknown identity");
    assert!(line.contains("evil"), "it is named: {line}");
    assert!(line.contains("forged"), "on one line: {line}");
    let raw = gate.err_bytes();
    let control = raw.iter().find(|byte| **byte < b' ' && **byte != b'\n');
    assert_eq!(control, None, "control characters in the log: {}", gate.log().escape_debug());
    assert!(!gate.log().lines().any(|line| line.starts_with("2026-01-01T00")), "a line was forged");
}

#[test]
fn bad_handshakes_do_not_fill_the_log() {
    let backend = Backend::echo();
    let gate = server(&backend, "");
    for _ in 0..1000 {
        let stranger = PlainClient::connect(gate.address("tls"));
        let _ = (&stranger.0).write_all(b"GET / HTTP/1.0\r\n\r\n");
        let _ = stranger.0.shutdown(std::net::Shutdown::Write);
        // Refused, and logged or not.
        stranger.end();
    }
    let mut friend = OpensslClient::start(gate.address("tls"), openssl::psk());
    friend.echo("it still serves");
    let lines = gate.log().lines().count();
    assert!(lines < 300, "{lines} lines for 1000 strangers");
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn the_key_is_in_no_log_at_any_level() {
    let backend = Backend::echo();
    let loud = "[log]\nlevel = \"debug\"\n";
    let server = PskgateBuilder::new()
        .toml(&format!("{loud}{}", server_toml(backend.address(), "")))
        .start();
    let client = PskgateBuilder::new()
        .toml(&format!("{loud}{}", client_toml(server.address("tls"), "")))
        .start();
    PlainClient::connect(client.address("plain")).echo(b"something");
    for stranger in strangers(Tls::V13).into_iter().chain(strangers(Tls::V12)) {
        OpensslClient::start(server.address("tls"), stranger.arguments).alert();
    }
    let (hex, upper) = (openssl::hex(KEY), openssl::hex(KEY).to_uppercase());
    let bytes = format!("{:?}", KEY.as_bytes());
    let bytes = bytes.trim_matches(['[', ']']);
    for gate in [&server, &client] {
        let log = gate.log();
        assert!(log.lines().count() >= 2, "there is a log");
        for form in [KEY, hex.as_str(), upper.as_str(), bytes] {
            assert!(!log.contains(form), "the key is in the log:\n{log}");
        }
    }
}

/// A listener that takes connections and never answers, for what must not hang on it.
#[test]
fn a_client_that_leaves_during_the_handshake_leaves_nothing_behind() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let gate = PskgateBuilder::new()
        .toml(&client_toml(mute.local_addr().unwrap(), "handshake-timeout = \"1s\""))
        .start();
    let before = gate.settled_descriptors();
    for _ in 0..10 {
        drop(PlainClient::connect(gate.address("plain")));
    }
    crate::harness::until("all descriptors to be given back", WAIT_TIMEOUT, || {
        (gate.log().matches("handshake failed").count() >= 1 && gate.descriptors() <= before)
            .then_some(())
    });
}
