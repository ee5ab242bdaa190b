//! Sessions that are resumed with tickets, as stunnel's are by default: with stunnel and openssl at the
//! other end, over reloads and restarts; and how a ticket ends with the key that it was given for.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{
    Backend, Ending, Gate, IDENTITY, KEY, OTHER_KEY, OpensslClient, PATIENCE, Plain, Pskgate,
    Stunnel, Tls, free_port, local, openssl, replace, secret, server_toml, until,
};

const CONF_KEYS: &str = "ticketKeySecret = 00112233445566778899aabbccddeeff\n\
                         ticketMacSecret = ff:ee:dd:cc:bb:aa:99:88:77:66:55:44:33:22:11:00\n";

const TOML_KEYS: &str = "resumption = true\n\
    ticket-key-secret = \"00112233445566778899aabbccddeeff\"\n\
    ticket-mac-secret = \"ffeeddccbbaa99887766554433221100\"\n";

/// A stunnel.conf that says nothing of resumption, unless `lines` do.
fn conf(port: u16, connect: std::net::SocketAddr, lines: &str) -> String {
    format!(
        "foreground = yes\nsyslog = no\ndebug = 7\n[tls]\naccept = 127.0.0.1:{port}\n\
         connect = {connect}\nPSKsecrets = psk.txt\n{lines}\n"
    )
}

fn serve(port: u16, backend: &Backend, lines: &str) -> Pskgate {
    Gate::new().conf("x.conf", &conf(port, backend.address(), lines), None).start()
}

fn reload(gate: &Pskgate) {
    let count = || gate.log().matches("Configuration successful").count();
    let before = count();
    gate.signal(Signal::HUP);
    until("the reload", PATIENCE, || (count() > before).then_some(()));
}

fn visit(to: std::net::SocketAddr) {
    let plain = Plain::connect(to);
    plain.echo(b"there and back");
    plain.shut();
    plain.rest();
}

/// Lines come a moment after what they are about.
fn expect<T: PartialEq + std::fmt::Debug>(ask: impl Fn() -> T, wanted: T, when: &str) {
    let what = format!("{wanted:?}, {when}");
    until(&what, PATIENCE, || (ask() == wanted).then_some(()));
}

/// How many handshakes used the key, and how many resumed a session, in stunnel's words.
fn accepted(gate: &Pskgate) -> (usize, usize) {
    let log = gate.log();
    let count = |words: &str| log.matches(&format!("TLS accepted: {words}")).count();
    (count("PSK"), count("previous session reused"))
}

#[test]
fn a_stunnel_client_resumes_over_reloads_and_over_restarts_under_given_keys() {
    for tls in Tls::BOTH {
        let (backend, port) = (Backend::echo(), free_port());
        let gate = serve(port, &backend, "");
        let client = Stunnel::client(local(port), tls.conf());
        visit(client.address());
        expect(|| accepted(&gate), (1, 0), &format!("{tls:?}"));
        visit(client.address());
        expect(|| accepted(&gate), (1, 1), &format!("{tls:?}"));
        reload(&gate);
        visit(client.address());
        expect(|| accepted(&gate), (1, 2), &format!("{tls:?}: a reload loses no tickets"));
        drop(gate);

        // Random keys do not outlive the process, and nobody is shut out by that.
        let mut gate = serve(port, &backend, CONF_KEYS);
        visit(client.address());
        expect(|| accepted(&gate), (1, 0), &format!("{tls:?}"));
        visit(client.address());
        expect(|| accepted(&gate), (1, 1), &format!("{tls:?}"));
        assert_eq!(gate.terminate(), Some(0));
        let gate = serve(port, &backend, CONF_KEYS);
        visit(client.address());
        expect(|| accepted(&gate), (0, 1), &format!("{tls:?}: given keys outlive it"));

        // Another secret takes effect at once.
        let other = CONF_KEYS.replace("0011", "ff11");
        let text = conf(port, backend.address(), &other);
        replace(&gate.folder().join("x.conf"), &text);
        reload(&gate);
        visit(client.address());
        expect(|| accepted(&gate), (1, 1), &format!("{tls:?}: the secret was changed"));
    }
}

#[test]
fn a_stunnel_conf_can_switch_it_off() {
    for tls in Tls::BOTH {
        for line in ["sessionResume = no", "options = NO_TICKET", "sessionCacheTimeout = 0"] {
            let (backend, port) = (Backend::echo(), free_port());
            let gate = serve(port, &backend, line);
            let client = Stunnel::client(local(port), tls.conf());
            visit(client.address());
            visit(client.address());
            expect(|| accepted(&gate), (2, 0), &format!("{tls:?} {line}"));
        }
    }
}

#[test]
fn a_client_end_resumes_at_a_stunnel_server_and_is_not_shut_out_by_another() {
    for tls in Tls::BOTH {
        let (backend, port) = (Backend::echo(), free_port());
        let before = Stunnel::server_at(port, backend.address(), tls.conf());
        let text = conf(free_port(), local(port), "client = yes");
        let client = Gate::new().conf("x.conf", &text, None).start();
        let connected = |fresh: usize, reused: usize| {
            let ask = || {
                let log = client.log();
                let count = |words: &str| log.matches(&format!("TLS connected: {words}")).count();
                (count("new session negotiated"), count("previous session reused"))
            };
            expect(ask, (fresh, reused), &format!("{tls:?}"));
        };
        visit(client.address("tls"));
        connected(1, 0);
        visit(client.address("tls"));
        connected(1, 1);
        before.wait_for("TLS accepted: previous session reused", PATIENCE);
        reload(&client);
        visit(client.address("tls"));
        connected(1, 2);
        drop(before);
        let _after = Stunnel::server_at(port, backend.address(), tls.conf());
        visit(client.address("tls"));
        connected(2, 2);
    }
}

/// s_client with a saved session, and more.
fn come_back(folder: &Path, gate: (&Pskgate, &str), tls: Tls, more: &[String]) -> OpensslClient {
    let ticket = ["-sess_in", "session.pem", tls.flag()].map(str::to_owned);
    let arguments = ticket.into_iter().chain(more.iter().cloned());
    OpensslClient::start_in(folder, gate.0.address(gate.1), arguments)
}

/// What is no key: in 1.2 s_client lists the suites that a ticket needs only beside one.
fn nothing(tls: Tls) -> Vec<String> {
    match tls {
        Tls::V12 => openssl::psk_of("nobody", OTHER_KEY).to_vec(),
        Tls::V13 => Vec::new(),
    }
}

fn toml(backend: &Backend, lines: &str) -> String {
    format!("[log]\nlevel = \"debug\"\n{}", server_toml(backend.address(), lines))
}

/// What was said of the handshakes that were good: whether each was a resumption.
fn handshakes(gate: &Pskgate) -> Vec<bool> {
    let log = gate.log();
    let done = log.lines().filter(|line| line.contains("handshake done"));
    done.map(|line| line.contains(", resumed")).collect()
}

/// A ticket of `client1`, from a first visit to a server that makes its ticket keys from the tests' own.
fn ticket_of(gate: &Pskgate, tls: Tls) -> TempDir {
    let folder = TempDir::new().unwrap();
    let save = ["-sess_out", "session.pem", tls.flag()].map(str::to_owned);
    let arguments = openssl::psk().into_iter().chain(save);
    let mut client = OpensslClient::start_in(folder.path(), gate.address("tls"), arguments);
    client.echo("a session");
    until("the session to be saved", PATIENCE, || {
        folder.path().join("session.pem").exists().then_some(())
    });
    folder
}

#[test]
fn a_ticket_is_good_at_its_own_service_alone_and_shuts_nobody_out_elsewhere() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let second = server_toml(backend.address(), TOML_KEYS);
        let text = toml(&backend, TOML_KEYS) + &second.replace("[services.tls]", "[services.two]");
        let gate = Gate::new().toml(&text).start();
        let ticket = ticket_of(&gate, tls);
        // Alone, and beside what proves nothing and is not looked at.
        let wrong = openssl::psk_of(IDENTITY, OTHER_KEY);
        let stranger = openssl::psk_of("nobody", OTHER_KEY);
        for more in [&nothing(tls)[..], &wrong, &stranger] {
            come_back(ticket.path(), (&gate, "tls"), tls, more).echo("again");
        }
        expect(|| handshakes(&gate), vec![false, true, true, true], &format!("{tls:?}"));
        // A neighbour with the same keys and the same secret.
        let reached = backend.accepted();
        assert!(
            come_back(ticket.path(), (&gate, "two"), tls, &nothing(tls)).alert().is_some(),
            "{tls:?}"
        );
        assert_eq!(backend.accepted(), reached);
        come_back(ticket.path(), (&gate, "two"), tls, &openssl::psk()).echo("with the key");
        expect(|| handshakes(&gate), vec![false, true, true, true, false], &format!("{tls:?}"));

        // Another process, which has keys of its own, or none.
        for lines in ["resumption = true", ""] {
            let other = Gate::new().toml(&toml(&backend, lines)).start();
            let reached = backend.accepted();
            let alone = come_back(ticket.path(), (&other, "tls"), tls, &nothing(tls)).alert();
            assert!(alone.is_some(), "{tls:?}");
            assert_eq!(backend.accepted(), reached);
            come_back(ticket.path(), (&other, "tls"), tls, &openssl::psk()).echo("with the key");
            expect(|| handshakes(&other), vec![false], &format!("{tls:?}"));
        }
        drop(gate);
        // The same one, started anew.
        let again = Gate::new().toml(&toml(&backend, TOML_KEYS)).start();
        come_back(ticket.path(), (&again, "tls"), tls, &nothing(tls)).echo("again");
        expect(|| handshakes(&again), vec![true], &format!("{tls:?}"));
    }
}

#[test]
fn a_ticket_of_who_was_removed_or_has_another_key_is_worth_nothing() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = Gate::new().toml(&toml(&backend, TOML_KEYS)).start();
        let ticket = ticket_of(&gate, tls);
        let to = (&gate, "tls");
        let reached = backend.accepted();
        let of_wrong_key = {
            let list = [tls.flag().to_owned()].into_iter();
            let list = list.chain(openssl::psk_of(IDENTITY, OTHER_KEY));
            OpensslClient::start(gate.address("tls"), list).alert()
        };
        assert!(of_wrong_key.is_some());
        let changes = || gate.log().matches("] keys: ").count();
        for (n, keys) in
            [secret(IDENTITY, OTHER_KEY), secret("client2", OTHER_KEY)].into_iter().enumerate()
        {
            replace(&gate.folder().join("psk.txt"), &keys);
            until("the change", PATIENCE, || (changes() > n).then_some(()));
            let alone = come_back(ticket.path(), to, tls, &nothing(tls)).alert();
            assert!(alone.is_some(), "{tls:?}");
            if tls == Tls::V13 {
                assert_eq!(alone, of_wrong_key, "the ticket alone is a wrong key like any other");
                gate.wait_logged("a ticket of identity \"client1\" that is too old, or whose key");
            }
            let with_old_key = come_back(ticket.path(), to, tls, &openssl::psk()).alert();
            assert_eq!(with_old_key, of_wrong_key, "{tls:?}");
            assert_eq!(backend.accepted(), reached, "{tls:?}: a backend was reached");
        }
        // Who has the new key is let in with the old ticket in hand.
        let new = openssl::psk_of("client2", OTHER_KEY);
        come_back(ticket.path(), to, tls, &new).echo("with the key");
        expect(|| handshakes(&gate), vec![false, false], &format!("{tls:?}"));
        // As it was: exactly that is granted again.
        replace(&gate.folder().join("psk.txt"), &secret(IDENTITY, KEY));
        until("the change", PATIENCE, || (changes() > 2).then_some(()));
        come_back(ticket.path(), to, tls, &nothing(tls)).echo("again");
        expect(|| handshakes(&gate), vec![false, false, true], &format!("{tls:?}"));
    }
}

#[test]
fn a_resumed_session_ends_with_its_key_and_is_not_resumed_again() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = Gate::new().toml(&toml(&backend, TOML_KEYS)).start();
        let client = Stunnel::client(gate.address("tls"), tls.conf());
        visit(client.address());
        let session = Plain::connect(client.address());
        session.echo(b"resumed");
        expect(|| handshakes(&gate), vec![false, true], &format!("{tls:?}"));
        let reached = backend.accepted();
        replace(&gate.folder().join("psk.txt"), &secret(IDENTITY, OTHER_KEY));
        let start = Instant::now();
        assert!(matches!(session.end(), Ending::Fin | Ending::Rst));
        // 300 ms until the change is taken, a second from then on.
        assert!(start.elapsed() < Duration::from_millis(1_800), "{:?}, {tls:?}", start.elapsed());
        let again = Plain::connect(client.address());
        again.send(b"let me in");
        assert_eq!(again.rest().0, b"", "it is in again, {tls:?}");
        assert_eq!(backend.accepted(), reached);
    }
}
