//! Sessions that are resumed with tickets, as stunnel's are by default: with stunnel and openssl at the
//! other end, over reloads and restarts; and how a ticket ends with the key that it was given for.

use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ::openssl::base64;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::hello::{answer, hello_13};
use crate::harness::process_memory::{count, memory};
use crate::harness::stage::need_root;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, OpensslClient, PlainClient, Process, Pskgate,
    PskgateBuilder, Stopwatch, Stunnel, Tls, WAIT_TIMEOUT, client_toml, free_port, local, openssl,
    replace, secret, server_toml, until,
};

const CONF_KEYS: &str = "ticketKeySecret = 00112233445566778899aabbccddeeff\n\
                         ticketMacSecret = ff:ee:dd:cc:bb:aa:99:88:77:66:55:44:33:22:11:00\n";

const TOML_KEYS: &str = "resumption = true\n\
    ticket-key-secret = \"00112233445566778899aabbccddeeff\"\n\
    ticket-mac-secret = \"ffeeddccbbaa99887766554433221100\"\n";

/// A stunnel.conf that says nothing of resumption, unless `lines` do.
pub fn conf(port: u16, connect: std::net::SocketAddr, lines: &str) -> String {
    format!(
        "foreground = yes\nsyslog = no\ndebug = 7\n[tls]\naccept = 127.0.0.1:{port}\n\
         connect = {connect}\nPSKsecrets = psk.txt\n{lines}\n"
    )
}

pub fn serve(port: u16, backend: &Backend, lines: &str) -> Pskgate {
    PskgateBuilder::new().conf("x.conf", &conf(port, backend.address(), lines), None).start()
}

pub fn reload(gate: &Pskgate) {
    let count = || gate.log().matches("Configuration successful").count();
    let before = count();
    gate.signal(Signal::HUP);
    until("the reload", WAIT_TIMEOUT, || (count() > before).then_some(()));
}

pub fn visit(to: std::net::SocketAddr) {
    let plain = PlainClient::connect(to);
    plain.echo(b"there and back");
    plain.shut();
    plain.rest();
}

/// Lines come a moment after what they are about.
pub fn expect<T: PartialEq + std::fmt::Debug>(ask: impl Fn() -> T, wanted: T, when: &str) {
    let what = format!("{wanted:?}, {when}");
    until(&what, WAIT_TIMEOUT, || (ask() == wanted).then_some(()));
}

/// How many handshakes used the key, and how many resumed a session, in stunnel's words.
pub fn accepted(gate: &Pskgate) -> (usize, usize) {
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
            // TLS 1.2 has session IDs.
            let by_id = usize::from(tls == Tls::V12 && line.contains("NO_TICKET"));
            expect(|| accepted(&gate), (2 - by_id, by_id), &format!("{tls:?} {line}"));
        }
    }
}

/// A client end with these lines and the default of a stunnel.conf.
pub fn at(server: std::net::SocketAddr, lines: &str) -> Pskgate {
    let text = conf(free_port(), server, &format!("client = yes\n{lines}"));
    PskgateBuilder::new().conf("x.conf", &text, None).start()
}

/// How many handshakes of a client end used the key, and how many resumed a session, in stunnel's words.
pub fn connected(client: &Pskgate) -> (usize, usize) {
    let log = client.log();
    let count = |words: &str| log.matches(&format!("TLS connected: {words}")).count();
    (count("new session negotiated"), count("previous session reused"))
}

#[test]
fn a_client_end_resumes_at_a_stunnel_server_and_is_not_shut_out_by_another() {
    for tls in Tls::BOTH {
        let (backend, port) = (Backend::echo(), free_port());
        let before = Stunnel::server_at(port, backend.address(), tls.conf());
        let client = at(local(port), "");
        let connected = |fresh, reused| {
            expect(|| connected(&client), (fresh, reused), &format!("{tls:?}"));
        };
        visit(client.address("tls"));
        connected(1, 0);
        visit(client.address("tls"));
        connected(1, 1);
        before.wait_for("TLS accepted: previous session reused", WAIT_TIMEOUT);
        reload(&client);
        visit(client.address("tls"));
        connected(1, 2);
        drop(before);
        let _after = Stunnel::server_at(port, backend.address(), tls.conf());
        visit(client.address("tls"));
        connected(2, 2);
    }
}

#[test]
fn a_client_end_does_without_tickets_and_without_resumption() {
    for tls in Tls::BOTH {
        // Without tickets 1.2 has session identifiers, and 1.3 has tickets all the same.
        for (line, resumed) in
            [("options = NO_TICKET", 1), ("sessionResume = no", 0), ("sessionCacheTimeout = 0", 0)]
        {
            let backend = Backend::echo();
            let server = Stunnel::server(backend.address(), tls.conf());
            let client = at(server.address(), line);
            visit(client.address("tls"));
            visit(client.address("tls"));
            expect(|| connected(&client), (2 - resumed, resumed), &format!("{tls:?} {line}"));
        }
    }
}

#[test]
fn a_client_end_keeps_no_more_sessions_than_it_was_told() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let [one, other] = [(); 2].map(|()| Stunnel::server(backend.address(), tls.conf()));
        for (size, resumed) in [(2, 2), (1, 0), (0, 2)] {
            let lines =
                format!("connect = {}\nfailover = rr\nsessionCacheSize = {size}", other.address());
            let client = at(one.address(), &lines);
            for _ in 0..4 {
                visit(client.address("tls"));
            }
            let wanted = (4 - resumed, resumed);
            expect(|| connected(&client), wanted, &format!("{tls:?}, {size} are kept"));
        }
    }
}

#[test]
fn a_native_file_resumes_only_if_it_asks() {
    for tls in Tls::BOTH {
        for (line, resumed) in
            [("", false), ("resumption = false", false), ("resumption = true", true)]
        {
            let backend = Backend::echo();
            let server = PskgateBuilder::new().toml(&toml(&backend, line)).start();
            let client = Stunnel::client(server.address("tls"), tls.conf());
            let theirs = Stunnel::server(backend.address(), tls.conf());
            let text = client_toml(theirs.address(), line);
            let ours =
                PskgateBuilder::new().toml(&format!("[log]\nlevel = \"debug\"\n{text}")).start();
            for _ in 0..2 {
                visit(client.address());
                visit(ours.address("plain"));
            }
            for gate in [&server, &ours] {
                expect(|| handshakes(gate), vec![false, resumed], &format!("{tls:?} {line}"));
            }
        }
    }
}

#[test]
fn the_log_has_the_words_of_stunnel() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = serve(free_port(), &backend, "");
        let theirs = Stunnel::client(gate.address("tls"), tls.conf());
        let server = Stunnel::server(backend.address(), tls.conf());
        let ours = at(server.address(), "");
        visit(theirs.address());
        expect(|| accepted(&gate), (1, 0), "a handshake with the key");
        assert!(!gate.log().contains("new session negotiated"), "{}", gate.log());
        visit(theirs.address());
        expect(|| accepted(&gate), (1, 1), "another that resumes");
        assert!(!gate.log().contains("new session negotiated"), "{}", gate.log());
        for _ in 0..2 {
            visit(ours.address("tls"));
        }
        let words = |log: &str| -> Vec<String> {
            log.lines()
                .filter_map(|line| line.split_once("TLS connected: "))
                .map(|(_, words)| words.into())
                .collect()
        };
        let new = ["new session negotiated", "previous session reused"].map(str::to_owned).to_vec();
        expect(|| words(&ours.log()), new.clone(), &format!("{tls:?}"));
        // stunnel's client takes a key of 1.3 for a session, because OpenSSL says so.
        let said = match tls {
            Tls::V12 => new,
            Tls::V13 => vec!["previous session reused".to_owned(); 2],
        };
        expect(|| words(&theirs.text()), said, &format!("{tls:?}: stunnel"));
    }
}

/// What a session that s_client saved says of its ticket, in seconds.
fn lifetime(folder: &Path) -> u64 {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(["sess_id", "-in", "session.pem", "-noout", "-text"]);
    let mut process = Process::spawn("openssl sess_id", "the Debian package openssl", &mut command);
    assert!(process.wait(WAIT_TIMEOUT).success(), "{}", process.text());
    let said = process.out();
    let (_, hint) = said.split_once("ticket lifetime hint: ").expect("a ticket");
    hint.split(' ').next().and_then(|seconds| seconds.parse().ok()).expect("seconds")
}

pub fn wait_since(start: Instant, time: Duration) {
    until("the time to pass", WAIT_TIMEOUT, || (start.elapsed() > time).then_some(()));
}

#[test]
fn a_session_is_over_when_its_time_is_at_either_end() {
    for tls in Tls::BOTH {
        let (backend, port) = (Backend::echo(), free_port());
        for (line, seconds) in [("", 300), ("sessionCacheTimeout = 7", 7), ("session = 8", 8)] {
            let gate = serve(port, &backend, line);
            assert_eq!(lifetime(ticket_of(&gate, tls).path()), seconds, "{tls:?} {line}");
        }
        // In 1.3 stunnel's tickets have the library's default, whatever its file says.
        let [short, unsaid] = ["sessionCacheTimeout = 7", ""].map(|line| {
            let theirs = Stunnel::server(backend.address(), line);
            lifetime(ticket_at(theirs.address(), tls).path())
        });
        match tls {
            Tls::V12 => assert_eq!(short, 7, "stunnel"),
            Tls::V13 => assert_eq!(short, unsaid, "stunnel"),
        }
        // A server goes by its own clock and its file, whatever the ticket says.
        let gate = serve(port, &backend, CONF_KEYS);
        let (ticket, made) = (ticket_of(&gate, tls), Instant::now());
        come_back(ticket.path(), (&gate, "tls"), tls, &nothing(tls)).echo("in time");
        expect(|| accepted(&gate), (1, 1), &format!("{tls:?}"));
        let stricter = format!("{CONF_KEYS}sessionCacheTimeout = 2");
        replace(&gate.folder().join("x.conf"), &conf(port, backend.address(), &stricter));
        reload(&gate);
        wait_since(made, Duration::from_secs(3));
        let reached = backend.accepted();
        let alone = come_back(ticket.path(), (&gate, "tls"), tls, &nothing(tls)).alert();
        assert!(alone.is_some(), "{tls:?}");
        assert_eq!(backend.accepted(), reached, "{tls:?}");
        if tls == Tls::V13 {
            gate.wait_logged("a session of identity \"client1\" that is too old");
        }
        come_back(ticket.path(), (&gate, "tls"), tls, &openssl::psk()).echo("with the key");
        expect(|| accepted(&gate), (2, 1), &format!("{tls:?}: too old"));

        // A client end offers nothing in the last two seconds of a session.
        const SHORT: &str = "sessionCacheTimeout = 3";
        for (here, there, resumed) in [(SHORT, "", 0), ("", SHORT, 0), ("", "", 1)] {
            let server = serve(free_port(), &backend, &format!("{}\n{there}", tls.conf()));
            let client = at(server.address("tls"), here);
            visit(client.address("tls"));
            wait_since(Instant::now(), Duration::from_millis(1_200));
            visit(client.address("tls"));
            let when = format!("{tls:?}, here {here}, there {there}");
            expect(|| connected(&client), (2 - resumed, resumed), &when);
        }
    }
}

/// s_client with a saved session, and more.
pub fn come_back(
    folder: &Path,
    gate: (&Pskgate, &str),
    tls: Tls,
    more: &[String],
) -> OpensslClient {
    let ticket = ["-sess_in", "session.pem", tls.flag()].map(str::to_owned);
    let arguments = ticket.into_iter().chain(more.iter().cloned());
    OpensslClient::start_in(folder, gate.0.address(gate.1), arguments)
}

/// What is no key: in 1.2 s_client lists the suites that a ticket needs only beside one.
pub fn nothing(tls: Tls) -> Vec<String> {
    match tls {
        Tls::V12 => openssl::psk_of("nobody", OTHER_KEY).to_vec(),
        Tls::V13 => Vec::new(),
    }
}

pub fn toml(backend: &Backend, lines: &str) -> String {
    format!("[log]\nlevel = \"debug\"\n{}", server_toml(backend.address(), lines))
}

/// What was said of the handshakes that were good: whether each was a resumption.
pub fn handshakes(gate: &Pskgate) -> Vec<bool> {
    let log = gate.log();
    let done = log.lines().filter(|line| line.contains("handshake done"));
    done.map(|line| line.contains(", resumed")).collect()
}

/// A ticket of `client1`, from a first visit to a server that makes its ticket keys from the tests' own.
fn ticket_of(gate: &Pskgate, tls: Tls) -> TempDir {
    ticket_at(gate.address("tls"), tls)
}

pub fn ticket_at(server: std::net::SocketAddr, tls: Tls) -> TempDir {
    let folder = TempDir::new().unwrap();
    let save = ["-sess_out", "session.pem", tls.flag()].map(str::to_owned);
    let arguments = openssl::psk().into_iter().chain(save);
    let mut client = OpensslClient::start_in(folder.path(), server, arguments);
    client.echo("a session");
    until("the session to be saved", WAIT_TIMEOUT, || {
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
        let gate = PskgateBuilder::new().toml(&text).start();
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
            let other = PskgateBuilder::new().toml(&toml(&backend, lines)).start();
            let reached = backend.accepted();
            let alone = come_back(ticket.path(), (&other, "tls"), tls, &nothing(tls)).alert();
            assert!(alone.is_some(), "{tls:?}");
            assert_eq!(backend.accepted(), reached);
            come_back(ticket.path(), (&other, "tls"), tls, &openssl::psk()).echo("with the key");
            expect(|| handshakes(&other), vec![false], &format!("{tls:?}"));
        }
        drop(gate);
        // The same one, started anew.
        let again = PskgateBuilder::new().toml(&toml(&backend, TOML_KEYS)).start();
        come_back(ticket.path(), (&again, "tls"), tls, &nothing(tls)).echo("again");
        expect(|| handshakes(&again), vec![true], &format!("{tls:?}"));
    }
}

/// A saved session, and where its ticket stands in it: `[10] EXPLICIT OCTET STRING` of OpenSSL's form.
fn saved(folder: &Path) -> (Vec<u8>, Range<usize>) {
    fn head(der: &[u8], at: usize) -> (u8, Range<usize>) {
        let (tag, first) = (der[at], usize::from(der[at + 1]));
        let more = if first < 0x80 { 0 } else { first & 0x7f };
        let long = der[at + 2..at + 2 + more].iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
        let (start, len) = (at + 2 + more, if more == 0 { first } else { long });
        (tag, start..start + len)
    }
    let pem = std::fs::read_to_string(folder.join("session.pem")).unwrap();
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64::decode_block(&text).unwrap();
    let (_, all) = head(&der, 0);
    let mut at = all.start;
    while at < all.end {
        let (tag, body) = head(&der, at);
        if tag == 0xaa {
            let ticket = head(&der, body.start).1;
            return (der, ticket);
        }
        at = body.end;
    }
    panic!("a session without a ticket");
}

/// Places in a ticket of which one bit is turned over: in the name of its keys, the IV, what is sealed, and
/// at the end of the HMAC.
fn places(ticket: &Range<usize>) -> [usize; 4] {
    [ticket.start, ticket.start + 16, ticket.start + 40, ticket.end - 1]
}

#[test]
fn a_ticket_that_was_tampered_with_is_worth_nothing_and_shuts_nobody_out() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = PskgateBuilder::new().toml(&toml(&backend, TOML_KEYS)).start();
        let folder = ticket_of(&gate, tls);
        let to = (&gate, "tls");
        let (der, ticket) = saved(folder.path());
        let save = |der: &[u8]| {
            let text = base64::encode_block(der);
            let lines: Vec<&str> =
                text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
            let name = "SSL SESSION PARAMETERS-----";
            let pem = format!("-----BEGIN {name}\n{}\n-----END {name}\n", lines.join("\n"));
            std::fs::write(folder.path().join("session.pem"), pem).unwrap();
        };
        let mut good = vec![false];
        for place in places(&ticket) {
            let mut bad = der.clone();
            bad[place] ^= 1;
            save(&bad);
            let reached = backend.accepted();
            let alone = come_back(folder.path(), to, tls, &nothing(tls)).alert();
            assert!(alone.is_some(), "{tls:?}, byte {place}");
            assert_eq!(backend.accepted(), reached, "{tls:?}, byte {place}");
            come_back(folder.path(), to, tls, &openssl::psk()).echo("with the key");
            good.push(false);
        }
        save(&der);
        come_back(folder.path(), to, tls, &nothing(tls)).echo("as it was");
        good.push(true);
        expect(|| handshakes(&gate), good, &format!("{tls:?}"));
    }
}

#[test]
fn no_answer_tells_a_stranger_whether_a_ticket_or_a_name_is_good() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&toml(&backend, TOML_KEYS)).start();
    let to = gate.address("tls");
    let folder = ticket_of(&gate, Tls::V13);
    let (der, range) = saved(folder.path());
    let reached = backend.accepted();
    let ticket = der[range.clone()].to_vec();
    let mut tickets = vec![ticket.clone()];
    for place in places(&range) {
        let mut bad = ticket.clone();
        bad[place - range.start] ^= 1;
        tickets.push(bad);
    }
    let binder = &[0; 32][..];
    let ask = |names: &[&[u8]]| answer(to, &hello_13(&[1], names, &vec![binder; names.len()]));
    let unknown = ask(&[b"nobody7"]);
    assert_eq!(unknown.first(), Some(&0x15), "an alert and nothing else: {unknown:02x?}");
    assert_eq!(ask(&[IDENTITY.as_bytes()]), unknown);
    for (n, ticket) in tickets.iter().enumerate() {
        assert_eq!(ask(&[ticket]), unknown, "ticket {n} alone");
        for name in [IDENTITY, "nobody7"] {
            assert_eq!(ask(&[ticket, name.as_bytes()]), unknown, "ticket {n} before {name}");
            assert_eq!(ask(&[name.as_bytes(), ticket]), unknown, "ticket {n} behind {name}");
        }
    }
    // Without the binders that it takes, too.
    let short = |names: &[&[u8]]| answer(to, &hello_13(&[1], names, &[binder]));
    let cut = short(&[b"nobody7", b"nobody8"]);
    for ticket in &tickets {
        assert_eq!(short(&[ticket, IDENTITY.as_bytes()]), cut);
        assert_eq!(short(&[ticket, b"nobody7"]), cut);
    }
    assert_eq!(backend.accepted(), reached);
}

#[test]
fn a_ticket_of_who_was_removed_or_has_another_key_is_worth_nothing() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = PskgateBuilder::new().toml(&toml(&backend, TOML_KEYS)).start();
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
            until("the change", WAIT_TIMEOUT, || (changes() > n).then_some(()));
            let alone = come_back(ticket.path(), to, tls, &nothing(tls)).alert();
            assert!(alone.is_some(), "{tls:?}");
            if tls == Tls::V13 {
                assert_eq!(alone, of_wrong_key, "the ticket alone is a wrong key like any other");
                gate.wait_logged("a session of identity \"client1\" that is too old, or whose key");
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
        until("the change", WAIT_TIMEOUT, || (changes() > 2).then_some(()));
        come_back(ticket.path(), to, tls, &nothing(tls)).echo("again");
        expect(|| handshakes(&gate), vec![false, false, true], &format!("{tls:?}"));
    }
}

#[test]
fn a_resumed_session_ends_with_its_key_and_is_not_resumed_again() {
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let gate = PskgateBuilder::new().toml(&toml(&backend, TOML_KEYS)).start();
        let client = Stunnel::client(gate.address("tls"), tls.conf());
        // What stunnel has of a session that was cut it does not offer again; this one has a whole one.
        let later = Stunnel::client(gate.address("tls"), tls.conf());
        visit(later.address());
        visit(later.address());
        visit(client.address());
        let session = PlainClient::connect(client.address());
        session.echo(b"resumed");
        expect(|| handshakes(&gate), vec![false, true, false, true], &format!("{tls:?}"));
        let reached = backend.accepted();
        replace(&gate.folder().join("psk.txt"), &secret(IDENTITY, OTHER_KEY));
        let watch = Stopwatch::start();
        assert!(matches!(session.end(), ConnectionEnd::Fin | ConnectionEnd::Rst));
        // 300 ms until the change is taken, a second from then on.
        watch.expect_within(Duration::from_millis(1_800));
        for client in [&client, &later] {
            let again = PlainClient::connect(client.address());
            again.send(b"let me in");
            assert_eq!(again.rest().0, b"", "it is in again, {tls:?}");
        }
        assert_eq!(backend.accepted(), reached);
    }
}

/// How often each of two backends that take turns is reached by four connections of one client end.
fn turns(ours: bool, tls: Tls, resume: &str) -> [usize; 2] {
    let (backends, port) = ([Backend::echo(), Backend::echo()], free_port());
    let more = format!("failover = rr\nconnect = {}", backends[1].address());
    let (_gate, _stunnel);
    if ours {
        _gate = serve(port, &backends[0], &more);
    } else {
        _stunnel = Stunnel::server_at(port, backends[0].address(), &more);
    }
    let client = at(local(port), &format!("sessionResume = {resume}\n{}", tls.conf()));
    for _ in 0..4 {
        visit(client.address("tls"));
    }
    let resumed = if resume == "yes" { 3 } else { 0 };
    expect(|| connected(&client), (4 - resumed, resumed), &format!("{tls:?}, ours: {ours}"));
    backends.each_ref().map(Backend::accepted)
}

/// stunnel's server knows a target by a session that it keeps itself, which none of a ticket is.
#[test]
fn a_resumed_session_goes_back_to_its_backend_where_stunnel_s_takes_turns() {
    for tls in Tls::BOTH {
        let mut back = turns(true, tls, "yes");
        back.sort_unstable();
        assert_eq!(back, [0, 4], "{tls:?}");
        assert_eq!(turns(true, tls, "no"), [2, 2], "{tls:?}");
        assert_eq!(turns(false, tls, "yes"), [2, 2], "{tls:?}: stunnel's");
    }
}

/// By the name that a ticket begins with: it is wiped with the keys.
#[test]
fn ticket_keys_are_gone_in_time_while_nobody_connects() {
    need_root();
    let backend = Backend::echo();
    let lines = "resumption = true\nresumption-timeout = \"2s\"";
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), lines)).start();
    let folder = ticket_of(&gate, Tls::V13);
    let (der, ticket) = saved(folder.path());
    let name = &der[ticket][..16];
    assert!(count(&memory(gate.id()), name) > 0);
    // Two lifetimes, and the 15 s after which it is looked again.
    until("the keys to be wiped", 2 * WAIT_TIMEOUT, || {
        (count(&memory(gate.id()), name) == 0).then_some(())
    });
    come_back(folder.path(), (&gate, "tls"), Tls::V13, &openssl::psk()).echo("with the key");
}

/// How many tickets s_client was sent, from what it writes with `-msg`.
fn tickets_in(messages: &str) -> usize {
    messages
        .lines()
        .filter(|line| line.starts_with("<<<") && line.contains("NewSessionTicket"))
        .count()
}

#[test]
fn a_ticket_of_tls_1_3_comes_with_the_first_data_alone_and_is_good() {
    let folder = TempDir::new().unwrap();
    let save = ["-msg", "-sess_out", "session.pem", "-tls1_3"].map(str::to_owned);
    let arguments = || openssl::psk().into_iter().chain(save.clone());

    // A backend that closes without a word: what came before its end is all that there was.
    let silent = Backend::new(|_| None);
    let gate = serve(free_port(), &silent, "");
    let client = OpensslClient::start_in(folder.path(), gate.address("tls"), arguments());
    let messages = client.wait_end();
    assert!(messages.contains("Finished"), "no handshake: {messages}");
    assert_eq!(tickets_in(&messages), 0, "{messages}");

    let echo = Backend::echo();
    let gate = serve(free_port(), &echo, "");
    let mut client = OpensslClient::start_in(folder.path(), gate.address("tls"), arguments());
    client.echo("the first data");
    client.echo("and more of it");
    until("the session to be saved", WAIT_TIMEOUT, || {
        folder.path().join("session.pem").exists().then_some(())
    });
    assert_eq!(tickets_in(&client.text()), 1, "{}", client.text());
    drop(client);
    let mut back = come_back(folder.path(), (&gate, "tls"), Tls::V13, &[]);
    back.echo("without a key");
    expect(|| accepted(&gate), (1, 1), "the ticket is good");
}
