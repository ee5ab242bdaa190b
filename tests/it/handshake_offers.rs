//! What a client may offer, and what becomes of each: identities of every shape, lists of keys and
//! tickets, key exchange modes, and what was good once.

use std::net::SocketAddr;

use tempfile::TempDir;

use crate::harness::hello::{Stranger, answer, hello_13, hello_13_with_offers};
use crate::harness::{
    Backend, IDENTITY, KEY, OTHER_KEY, OpensslClient, Pskgate, PskgateBuilder, Stunnel, Tls,
    WAIT_TIMEOUT, free_port, offers, openssl, secret, server_toml, until,
};

fn server(backend: &Backend, extra: &str) -> Pskgate {
    PskgateBuilder::new().toml(&server_toml(backend.address(), extra)).start()
}

fn refusals(gate: &Pskgate) -> Vec<String> {
    let log = gate.log();
    log.lines().filter(|line| line.contains("handshake refused")).map(str::to_owned).collect()
}

/// Waits for the line of one more refusal, and for no second one.
fn refused(gate: &Pskgate, before: usize) -> String {
    until(&format!("refusal {}; the log is\n{}", before + 1, gate.log()), WAIT_TIMEOUT, || {
        (refusals(gate).len() > before).then_some(())
    });
    let lines = refusals(gate);
    assert_eq!(lines.len(), before + 1, "one refusal, one line: {lines:#?}");
    lines[before].clone()
}

/// The log in bytes: whole lines of text, and nothing that a terminal would obey.
fn expect_clean(gate: &Pskgate) {
    let log = String::from_utf8(gate.err_bytes()).expect("the log is UTF-8");
    let bad: Vec<_> = log.chars().filter(|c| c.is_control() && *c != '\n').collect();
    assert!(bad.is_empty(), "{bad:?} in the log:\n{log}");
}

fn expect_friend(to: SocketAddr) {
    OpensslClient::start(to, openssl::psk()).echo("the next good client is served");
}

/// Identities that no key file holds, and what the log makes of each.
fn shapes(tls: Tls) -> Vec<(Vec<u8>, String)> {
    let long = |len: usize| (vec![b'x'; len], format!("\"{}\"... ({len} bytes)", "x".repeat(64)));
    // OpenSSL hands identities of 1.2 over as C strings: SECURITY.md, "What is known to remain".
    let nul = |tail: &str| match tls {
        Tls::V12 => format!("wrong key for identity \"{IDENTITY}\""),
        Tls::V13 => format!("unknown identity \"{IDENTITY}\\u{{0}}{tail}\""),
    };
    let mut all = vec![
        long(255),
        (format!("{IDENTITY}\0").into(), nul("")),
        (format!("{IDENTITY}\0and more").into(), nul("and more")),
        (b"\x1b[2J\x1b[31mevil".to_vec(), "\"\\u{1b}[2J\\u{1b}[31mevil\"".to_owned()),
        (b"a\n2026-01-01T00:00:00Z info forged\r".to_vec(), "\"a\\u{a}2026-01-01T00:0".to_owned()),
        (b"\xff\xfe\xc3".to_vec(), "\"\\xff\\xfe\\xc3\"".to_owned()),
        ("a\u{202e}b\u{200b}".into(), "\"a\\u{202e}b\\u{200b}\"".to_owned()),
    ];
    match tls {
        // In 1.3 no identity can be that: the next test.
        Tls::V12 => all.push((Vec::new(), "unknown identity \"\"".to_owned())),
        Tls::V13 => all.extend([long(256), long(60_000)]),
    }
    all
}

#[test]
fn an_identity_of_any_shape_is_answered_like_a_wrong_key_and_logged_in_one_clean_line() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = server(&backend, "");
        let to = gate.address("tls");
        let (wrong_key, _) = tls.claim(to, IDENTITY.as_bytes());
        assert_eq!(wrong_key.first(), Some(&0x15), "an alert: {wrong_key:02x?}");
        let words = format!("wrong key for identity \"{IDENTITY}\"");
        assert!(refused(&gate, 0).contains(&words));
        for (number, (identity, words)) in shapes(tls).into_iter().enumerate() {
            let (answer, _) = tls.claim(to, &identity);
            assert_eq!(answer, wrong_key, "{tls:?} {words}");
            let line = refused(&gate, number + 1);
            assert!(line.contains(&words), "`{words}` is not in: {line}");
            let before = backend.accepted();
            assert_eq!(before, number, "{words} reached the backend");
            expect_friend(to);
        }
        expect_clean(&gate);
    }
}

/// An identity of 1.3 has a byte at least (RFC 8446, 4.2.11). Some libraries ask for its key all the same,
/// others find that the hello cannot be read: neither tells whether there is such a key.
#[test]
fn an_empty_identity_is_answered_alike_whether_there_is_such_a_key_or_not() {
    let backend = Backend::echo();
    let ends = [secret("", KEY) + &secret(IDENTITY, KEY), secret(IDENTITY, KEY)].map(|keys| {
        let port = free_port();
        let text = format!(
            "[tls]\naccept = 127.0.0.1:{port}\nconnect = {}\nPSKsecrets = psk.txt\n",
            backend.address()
        );
        PskgateBuilder::new().file("psk.txt", &keys).conf("x.conf", &text, None).start()
    });
    for tls in Tls::BOTH {
        let [known, unknown] = ends.each_ref().map(|end| tls.claim(end.address("tls"), b"").0);
        assert_eq!(known.first(), Some(&0x15), "an alert: {known:02x?}");
        assert_eq!(known, unknown, "{tls:?} tells whether there is such a key");
        let to = ends[0].address("tls");
        let (wrong_key, _) = tls.claim(to, IDENTITY.as_bytes());
        // It says that it is longer than the list.
        let unreadable = answer(to, &hello_13_with_offers(&[1], &[0, 9, b'x'], &[&[0; 32]]));
        assert!(
            known == wrong_key || (tls == Tls::V13 && known == unreadable),
            "{tls:?}: {known:02x?}, a wrong key {wrong_key:02x?}, unreadable {unreadable:02x?}"
        );
    }
    assert_eq!(backend.accepted(), 0);
}

/// OpenSSL refuses these before it asks anybody for a key: no name of such a length can exist.
#[test]
fn an_identity_that_is_longer_than_any_can_be_is_refused_in_1_2() {
    let backend = Backend::echo();
    let gate = server(&backend, "");
    let to = gate.address("tls");
    for (number, len) in [256, 257, 60_000].into_iter().enumerate() {
        let (answer, _) = Tls::V12.claim(to, &vec![b'x'; len]);
        assert_eq!(answer.first(), Some(&0x15), "an alert for {len}: {answer:02x?}");
        refused(&gate, number);
    }
    assert_eq!(backend.accepted(), 0);
    expect_friend(to);
    expect_clean(&gate);
}

/// One key of an offer: the identity, its key, and the hash that it belongs to.
type Offer<'a> = (&'a str, &'a str, &'a str);

/// What came of an attempt that tlslite-ng made.
#[derive(Debug)]
struct Outcome {
    alert: Option<u64>,
    echo: String,
    ended: String,
}

/// The orders that offers.py takes.
fn order(keys: &[Offer<'_>], modes: &[&str]) -> String {
    let hex = |(identity, key, hash): &Offer<'_>| {
        serde_json::json!([openssl::hex(identity), openssl::hex(key), hash])
    };
    let keys: Vec<_> = keys.iter().map(hex).collect();
    serde_json::json!({ "keys": keys, "modes": modes, "say": "there and back" }).to_string()
}

fn attempt(to: SocketAddr, keys: &[Offer<'_>], modes: &[&str]) -> Outcome {
    let mut peer = offers(&["call", &to.port().to_string()]);
    peer.type_in(&format!("{}\n", order(keys, modes)));
    peer.end_input();
    assert!(peer.wait(WAIT_TIMEOUT).success(), "{}", peer.text());
    let seen: serde_json::Value = serde_json::from_str(&peer.out()).expect("what it saw");
    Outcome {
        alert: seen["alert"].as_u64(),
        echo: seen["echo"].as_str().unwrap_or_default().to_owned(),
        ended: seen["ended"].as_str().unwrap_or_default().to_owned(),
    }
}

/// Sends back what it is told and ends.
fn one_answer() -> Backend {
    Backend::new(|mut stream| {
        let mut said = [0; 14];
        std::io::Read::read_exact(&mut stream, &mut said).ok()?;
        std::io::Write::write_all(&mut stream, &said).ok()?;
        None
    })
}

const DHE: &[&str] = &["psk_dhe_ke"];
const GOOD: Offer<'_> = (IDENTITY, KEY, "sha256");

#[test]
fn the_first_known_identity_of_a_list_decides_and_what_stands_before_it_locks_nobody_out() {
    let backend = one_answer();
    let keys = secret(IDENTITY, KEY) + &secret("client2", OTHER_KEY);
    let gate = PskgateBuilder::new()
        .file("psk.txt", &keys)
        .toml(&server_toml(backend.address(), ""))
        .start();
    let to = gate.address("tls");
    let second: Offer<'_> = ("client2", OTHER_KEY, "sha256");
    let wrong: Offer<'_> = (IDENTITY, OTHER_KEY, "sha256");
    let stranger: Offer<'_> = ("nobody", OTHER_KEY, "sha256");
    // As long and as opaque as a ticket of a stunnel server, of either hash.
    let ticket = "\u{1}ticket".repeat(25);
    let (short, long): (Offer<'_>, Offer<'_>) =
        ((&ticket, OTHER_KEY, "sha256"), (&ticket, OTHER_KEY, "sha384"));
    let mut served = 0;
    for (list, who) in [
        (&[GOOD][..], IDENTITY),
        (&[stranger, GOOD], IDENTITY),
        (&[short, long, stranger, GOOD], IDENTITY),
        (&[GOOD, stranger, short], IDENTITY),
        (&[second, GOOD], "client2"),
        // The broken one is not looked at.
        (&[GOOD, wrong], IDENTITY),
    ] {
        let seen = attempt(to, list, DHE);
        assert_eq!(seen.echo, "there and back", "{list:?}: {seen:?}");
        // It was said that all has been said: P10.
        assert_eq!(seen.ended, "close_notify", "{list:?}");
        served += 1;
        until("the session's line", WAIT_TIMEOUT, || {
            let log = gate.log();
            let opened: Vec<_> = log.lines().filter(|l| l.contains("session opened")).collect();
            (opened.len() == served).then(|| {
                let wanted = format!("identity \"{who}\"");
                assert!(opened[served - 1].contains(&wanted), "{list:?}: {opened:?}");
            })
        });
    }
    assert_eq!(backend.accepted(), served);
    let reference = attempt(to, &[wrong], DHE).alert;
    assert!(reference.is_some());
    for list in [
        &[stranger][..],
        // RFC 9846, 4.3.11 (8446, 4.2.11): a binder that does not validate ends the handshake.
        &[wrong, GOOD],
        &[wrong, second],
        &[stranger, short],
        &[short, wrong],
    ] {
        let seen = attempt(to, list, DHE);
        assert_eq!(seen.alert, reference, "{list:?}: {seen:?}");
    }
    assert_eq!(backend.accepted(), served, "a stranger reached the backend");
}

#[test]
fn a_key_is_not_taken_without_a_diffie_hellman_exchange_beside_it() {
    let backend = one_answer();
    let gate = server(&backend, "");
    let to = gate.address("tls");
    let mut alerts = Vec::new();
    for (number, name) in [IDENTITY, "nobody7"].into_iter().enumerate() {
        let seen = attempt(to, &[(name, KEY, "sha256")], &["psk_ke"]);
        assert!(seen.alert.is_some(), "{name}: {seen:?}");
        alerts.push(seen.alert);
        let line = refused(&gate, number);
        let words = if name == IDENTITY { "(psk_ke)" } else { "unknown identity \"nobody7\"" };
        assert!(line.contains(words), "{line}");
    }
    assert_eq!(alerts[0], alerts[1], "it tells who exists");
    // A list of modes that nobody knows is no better, and both named are as good as one.
    for (number, modes) in [&[0][..], &[0, 7], &[]].into_iter().enumerate() {
        let ask = |name: &[u8]| answer(to, &hello_13(modes, &[name], &[&[0; 32]]));
        let (known, unknown) = (ask(IDENTITY.as_bytes()), ask(b"nobody7"));
        assert_eq!(known.first(), Some(&0x15), "{modes:?}: {known:02x?}");
        assert_eq!(known, unknown, "{modes:?} tells who exists");
        refused(&gate, 2 * number + 3);
    }
    assert_eq!(backend.accepted(), 0);
    assert_eq!(attempt(to, &[GOOD], &["psk_ke", "psk_dhe_ke"]).echo, "there and back");
}

#[test]
fn a_tls_1_3_client_without_any_key_is_refused_whatever_else_it_offers() {
    let backend = one_answer();
    let gate = server(&backend, "");
    assert!(attempt(gate.address("tls"), &[], DHE).alert.is_some());
    assert!(refused(&gate, 0).contains("the client offered no pre-shared key"));
    assert_eq!(backend.accepted(), 0);
}

/// The ticket is a real one, for the identity and key that were taken away; it is offered alone, and
/// in front of the key.
#[test]
fn a_saved_ticket_of_an_identity_that_was_removed_opens_no_door() {
    for tls in Tls::BOTH {
        let (folder, backend) = (TempDir::new().unwrap(), Backend::echo());
        let stunnel = Stunnel::server(backend.address(), tls.conf());
        let save = ["-sess_out", "session.pem", tls.flag()].map(str::to_owned);
        let arguments = openssl::psk().into_iter().chain(save);
        OpensslClient::start_in(folder.path(), stunnel.address(), arguments).echo("a session");
        until("the session to be saved", WAIT_TIMEOUT, || {
            folder.path().join("session.pem").exists().then_some(())
        });
        let reached = backend.accepted();
        let keys = secret("client2", OTHER_KEY);
        let toml = server_toml(backend.address(), "");
        let gate = PskgateBuilder::new().file("psk.txt", &keys).toml(&toml).start();
        let alert = |more: &[String]| {
            let ticket = ["-sess_in", "session.pem", tls.flag()].map(str::to_owned);
            let arguments = ticket.into_iter().chain(more.iter().cloned());
            OpensslClient::start_in(folder.path(), gate.address("tls"), arguments).alert()
        };
        assert!(alert(&[]).is_some(), "the ticket alone");
        let with_key = alert(&openssl::psk());
        let list = openssl::psk_of("client2", KEY).into_iter().chain([tls.flag().to_owned()]);
        let wrong_key = OpensslClient::start(gate.address("tls"), list).alert();
        assert!(with_key.is_some() && with_key == wrong_key, "{with_key:?} {wrong_key:?}");
        assert_eq!(backend.accepted(), reached);
    }
}
