//! Sessions that are resumed by ID, for peers without tickets: with stunnel and openssl at the other end, over
//! reloads; and how such a session ends with the key that it was made with.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::process_memory::{count, memory};
use crate::harness::stage::need_root;
use crate::harness::{
    Backend, IDENTITY, KEY, OTHER_KEY, OpensslClient, OpensslServer, PlainClient, Process, Pskgate,
    PskgateBuilder, Stunnel, Tls, WAIT_TIMEOUT, client_toml, free_port, local, openssl, replace,
    secret, until,
};
use crate::resumption::{
    accepted, at, come_back, conf, connected, expect, handshakes, nothing, reload, serve,
    ticket_at, toml, visit, wait_since,
};

const NO_TICKET: &str = "options = NO_TICKET";

const TOML: &str = "resumption = true\ntls-options = [\"NO_TICKET\"]\n";

/// `s_client` with a key, from which a session is saved that has an ID and no ticket.
fn session_of(server: SocketAddr) -> TempDir {
    let folder = ticket_at(server, Tls::V12);
    assert!(!described(&folder).contains("TLS session ticket:"));
    folder
}

/// What `openssl sess_id` says of a saved session.
fn described(folder: &TempDir) -> String {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(["sess_id", "-in", "session.pem", "-noout", "-text"]);
    let mut process = Process::spawn("openssl sess_id", "the Debian package openssl", &mut command);
    assert!(process.wait(WAIT_TIMEOUT).success(), "{}", process.text());
    process.out()
}

fn changes(gate: &Pskgate) -> usize {
    gate.log().matches("] keys: ").count()
}

#[test]
fn a_stunnel_client_resumes_without_tickets_over_reloads_and_in_1_2_alone() {
    for tls in Tls::BOTH {
        // Either of the two ends does without.
        for (ours, theirs) in [(NO_TICKET, ""), ("", NO_TICKET)] {
            let (backend, port) = (Backend::echo(), free_port());
            let gate = serve(port, &backend, ours);
            let client = Stunnel::client(local(port), &format!("{}\n{theirs}", tls.conf()));
            let when = format!("{tls:?}, {ours:?} and {theirs:?}");
            // A client of 1.3 that wants no tickets gets them all the same.
            let resumes = usize::from(tls == Tls::V12 || ours.is_empty());
            let mut resumed = 0;
            visit(client.address());
            expect(|| accepted(&gate), (1, 0), &when);
            for visits in 2..=4 {
                if visits == 4 {
                    reload(&gate);
                }
                visit(client.address());
                resumed += resumes;
                expect(|| accepted(&gate), (visits - resumed, resumed), &when);
            }
        }
    }
}

#[test]
fn an_openssl_client_without_tickets_reconnects_with_one_key_exchange() {
    let backend = Backend::echo();
    for (lines, arguments) in [("", &["-no_ticket"][..]), (NO_TICKET, &[])] {
        let gate = serve(free_port(), &backend, lines);
        let list = arguments.iter().map(|one| (*one).to_owned());
        let list = list.chain(openssl::psk()).chain(["-tls1_2", "-reconnect"].map(str::to_owned));
        let client = OpensslClient::start(gate.address("tls"), list);
        // Five more times.
        expect(|| accepted(&gate), (1, 5), lines);
        drop(client);
    }
}

#[test]
fn a_client_end_resumes_at_servers_without_tickets_and_is_not_shut_out_by_another() {
    let (backend, port) = (Backend::echo(), free_port());
    let without = "sslVersion = TLSv1.2\noptions = NO_TICKET";
    let before = Stunnel::server_at(port, backend.address(), without);
    let client = at(local(port), "");
    for (visits, wanted) in [(1, (1, 0)), (2, (1, 1))] {
        visit(client.address("tls"));
        expect(|| connected(&client), wanted, &format!("visit {visits}"));
    }
    before.wait_for("TLS accepted: previous session reused", WAIT_TIMEOUT);
    reload(&client);
    visit(client.address("tls"));
    expect(|| connected(&client), (1, 2), "a reload keeps sessions");
    drop(before);
    let _after = Stunnel::server_at(port, backend.address(), without);
    visit(client.address("tls"));
    expect(|| connected(&client), (2, 2), "another server does not know the ID");

    // OpenSSL's own, and our server end.
    let folder = TempDir::new().unwrap();
    let list = ["-tls1_2", "-no_ticket", "-nocert", "-psk_identity", IDENTITY, "-psk"];
    let list = list.map(str::to_owned).into_iter().chain([openssl::hex(KEY)]);
    let theirs = OpensslServer::start(folder.path(), list);
    let ours = PskgateBuilder::new().toml(&toml(&backend, TOML)).start();
    for server in [theirs.address(), ours.address("tls")] {
        let text = client_toml(server, "resumption = true\ntls-max = \"1.2\"");
        let client =
            PskgateBuilder::new().toml(&format!("[log]\nlevel = \"debug\"\n{text}")).start();
        for _ in 0..2 {
            let plain = PlainClient::connect(client.address("plain"));
            plain.send(b"there and back\n");
            plain.shut();
            plain.rest();
        }
        expect(|| handshakes(&client), vec![false, true], &format!("{server}"));
    }
}

#[test]
fn in_1_3_a_server_without_tickets_gives_nothing_to_resume_with() {
    let backend = Backend::echo();
    for (lines, given) in [("", true), (NO_TICKET, false)] {
        let gate = serve(free_port(), &backend, lines);
        let folder = TempDir::new().unwrap();
        let save = ["-sess_out", "session.pem", "-tls1_3", "-msg"].map(str::to_owned);
        let list = openssl::psk().into_iter().chain(save);
        let mut client = OpensslClient::start_in(folder.path(), gate.address("tls"), list);
        // A ticket comes with the first data.
        client.echo("a session");
        assert_eq!(client.text().contains("NewSessionTicket"), given, "{lines}: {}", client.text());
        assert_eq!(folder.path().join("session.pem").exists(), given, "{lines}");
    }
}

#[test]
fn an_id_is_good_at_its_own_service_alone_and_shuts_nobody_out_elsewhere() {
    let backend = Backend::echo();
    let second = toml(&backend, TOML).replace("[log]\nlevel = \"debug\"\n", "");
    let text = toml(&backend, TOML) + &second.replace("[services.tls]", "[services.two]");
    let gate = PskgateBuilder::new().toml(&text).start();
    let session = session_of(gate.address("tls"));
    // Beside what proves nothing and is not looked at.
    let wrong = openssl::psk_of(IDENTITY, OTHER_KEY);
    for more in [&nothing(Tls::V12)[..], &wrong] {
        come_back(session.path(), (&gate, "tls"), Tls::V12, more).echo("again");
    }
    expect(|| handshakes(&gate), vec![false, true, true], "its own service");
    let reached = backend.accepted();
    let alone = come_back(session.path(), (&gate, "two"), Tls::V12, &nothing(Tls::V12)).alert();
    assert!(alone.is_some(), "a neighbour with the same keys");
    assert_eq!(backend.accepted(), reached);
    come_back(session.path(), (&gate, "two"), Tls::V12, &openssl::psk()).echo("with the key");
    expect(|| handshakes(&gate), vec![false, true, true, false], "a neighbour, with the key");
    // A process that never had it; and one of 1.3, to which it means nothing.
    let other = PskgateBuilder::new().toml(&toml(&backend, TOML)).start();
    let reached = backend.accepted();
    let alone = come_back(session.path(), (&other, "tls"), Tls::V12, &nothing(Tls::V12)).alert();
    assert!(alone.is_some(), "another process");
    assert_eq!(backend.accepted(), reached);
    come_back(session.path(), (&other, "tls"), Tls::V12, &openssl::psk()).echo("with the key");
    expect(|| handshakes(&other), vec![false], "another process, with the key");
}

#[test]
fn a_section_that_was_asked_for_by_name_has_sessions_of_its_own() {
    let (backend, port) = (Backend::echo(), free_port());
    let text = conf(port, backend.address(), NO_TICKET)
        + &format!(
            "[behind]\nsni = tls:*.example\nconnect = {}\nPSKsecrets = psk.txt\n{NO_TICKET}\n",
            backend.address()
        );
    let gate = PskgateBuilder::new().conf("x.conf", &text, None).start();
    let named = ["-servername", "plc.example"].map(str::to_owned);
    let folder = TempDir::new().unwrap();
    let save = ["-sess_out", "session.pem", "-tls1_2"].map(str::to_owned);
    let list = openssl::psk().into_iter().chain(save).chain(named.clone());
    OpensslClient::start_in(folder.path(), local(port), list).echo("a session");
    until("the session", WAIT_TIMEOUT, || folder.path().join("session.pem").exists().then_some(()));
    let wrong = openssl::psk_of(IDENTITY, OTHER_KEY);
    let inside = [&wrong[..], &named].concat();
    come_back(folder.path(), (&gate, "tls"), Tls::V12, &inside).echo("again");
    expect(|| accepted(&gate), (1, 1), "in the section that was asked for");
    // The same ID at the door.
    let unnamed = [&wrong[..], &["-noservername".to_owned()]].concat();
    let reached = backend.accepted();
    assert!(come_back(folder.path(), (&gate, "tls"), Tls::V12, &unnamed).alert().is_some());
    assert_eq!(backend.accepted(), reached);
}

#[test]
fn an_id_of_who_was_removed_or_has_another_key_is_worth_nothing() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&toml(&backend, TOML)).start();
    let session = session_of(gate.address("tls"));
    let to = (&gate, "tls");
    let reached = backend.accepted();
    for (n, keys) in
        [secret(IDENTITY, OTHER_KEY), secret("client2", OTHER_KEY)].into_iter().enumerate()
    {
        replace(&gate.folder().join("psk.txt"), &keys);
        until("the change", WAIT_TIMEOUT, || (changes(&gate) > n).then_some(()));
        for more in [&nothing(Tls::V12)[..], &openssl::psk()] {
            assert!(come_back(session.path(), to, Tls::V12, more).alert().is_some());
        }
        assert_eq!(backend.accepted(), reached, "a backend was reached");
    }
    // Who has the new key is let in with the old session in hand.
    let new = openssl::psk_of("client2", OTHER_KEY);
    come_back(session.path(), to, Tls::V12, &new).echo("with the key");
    // As it was: another time of the same key. What was made in the first is gone.
    replace(&gate.folder().join("psk.txt"), &secret(IDENTITY, KEY));
    until("the change", WAIT_TIMEOUT, || (changes(&gate) > 2).then_some(()));
    assert!(come_back(session.path(), to, Tls::V12, &nothing(Tls::V12)).alert().is_some());
    come_back(session.path(), to, Tls::V12, &openssl::psk()).echo("with the key");
    expect(|| handshakes(&gate), vec![false, false, false], "every one with its key");
}

#[test]
fn a_session_is_wiped_when_its_key_is_removed_and_when_its_time_is_over() {
    need_root();
    let backend = Backend::echo();
    for lines in [TOML.to_owned(), format!("{TOML}resumption-timeout = \"2s\"\n")] {
        let gate = PskgateBuilder::new().toml(&toml(&backend, &lines)).start();
        let session = session_of(gate.address("tls"));
        let said = described(&session);
        let hex = said.split("Master-Key: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        let secret_of_session: Vec<u8> = (0..hex.trim().len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(secret_of_session.len(), 48);
        let copies = || count(&memory(gate.id()), &secret_of_session);
        if lines == TOML {
            assert!(copies() > 0, "it can be resumed");
            replace(&gate.folder().join("psk.txt"), &secret("client2", OTHER_KEY));
        }
        // Its time, and the 15 s after which it is looked again.
        until("the session to be wiped", 2 * WAIT_TIMEOUT, || (copies() == 0).then_some(()));
    }
}

#[test]
fn no_more_sessions_are_kept_than_was_said_and_for_no_longer() {
    let backend = Backend::echo();
    for (size, kept) in [(1, false), (2, true), (0, true)] {
        let lines = format!("{NO_TICKET}\nsessionCacheSize = {size}");
        let gate = serve(free_port(), &backend, &lines);
        let [first, second] = [(); 2].map(|()| session_of(gate.address("tls")));
        for (session, kept) in [(&second, true), (&first, kept)] {
            let to = (&gate, "tls");
            let mut again = come_back(session.path(), to, Tls::V12, &nothing(Tls::V12));
            match kept {
                true => again.echo("again"),
                false => assert!(again.alert().is_some(), "{size}"),
            }
        }
    }
    let gate = serve(free_port(), &backend, &format!("{NO_TICKET}\nsessionCacheTimeout = 2"));
    let (session, made) = (session_of(gate.address("tls")), Instant::now());
    wait_since(made, Duration::from_secs(3));
    let to = (&gate, "tls");
    assert!(come_back(session.path(), to, Tls::V12, &nothing(Tls::V12)).alert().is_some());
    come_back(session.path(), to, Tls::V12, &openssl::psk()).echo("with the key");
    expect(|| accepted(&gate), (2, 0), "too old");
}
