//! What strangers may use up, and that members get in all the same.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::process::pskgate;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, PlainClient, Pskgate, PskgateBuilder,
    Stopwatch, WAIT_TIMEOUT, client_toml, secret, server_toml, until,
};

fn client(server: &Pskgate) -> Pskgate {
    PskgateBuilder::new().toml(&client_toml(server.address("tls"), "")).start()
}

/// Connections that say `greeting` and then nothing more.
fn strangers(server: &Pskgate, count: usize, greeting: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = TcpStream::connect(server.address("tls")).expect("a connection");
        stream.write_all(greeting).expect("a greeting");
        stream
    };
    (0..count).map(connect).collect()
}

fn assert_prompt(client: &Pskgate) {
    let watch = Stopwatch::start();
    PlainClient::connect(client.address("plain")).echo(b"a member");
    watch.expect_within(Duration::from_secs(1));
}

#[test]
fn silent_strangers_who_hold_every_place_keep_no_member_out() {
    let backend = Backend::echo();
    let server =
        PskgateBuilder::new().toml(&server_toml(backend.address(), "max-handshakes = 8")).start();
    let client = client(&server);
    let held = strangers(&server, 100, b"");
    assert_prompt(&client);
    drop(held);
}

#[test]
fn a_process_with_few_descriptors_keeps_some_for_members() {
    let backend = Backend::echo();
    let server =
        PskgateBuilder::new().toml(&server_toml(backend.address(), "")).descriptors(200).start();
    let client = client(&server);
    let held = strangers(&server, 260, b"");
    assert_prompt(&client);
    drop(held);
}

#[test]
fn refused_strangers_do_not_linger_beyond_the_limit_of_handshakes() {
    let backend = Backend::echo();
    let server =
        PskgateBuilder::new().toml(&server_toml(backend.address(), "max-handshakes = 10")).start();
    server.wait_logged("listening on");
    let quiet = server.descriptors();
    // They never close: each would be waited for, so that it can read its alert.
    let held = strangers(&server, 100, b"GET / HTTP/1.0\r\n\r\n");
    server.wait_logged("plain text on a TLS port");
    until("the crowd to be out", WAIT_TIMEOUT, || {
        (server.descriptors() <= quiet + 12).then_some(())
    });
    drop(held);
}

#[test]
fn a_service_that_is_full_refuses_the_next_one_and_has_room_again_when_one_leaves() {
    let backend = Backend::echo();
    let server =
        PskgateBuilder::new().toml(&server_toml(backend.address(), "max-sessions = 2")).start();
    let client = client(&server);
    let (first, second) = (
        PlainClient::connect(client.address("plain")),
        PlainClient::connect(client.address("plain")),
    );
    first.echo(b"one");
    second.echo(b"two");
    let third = PlainClient::connect(client.address("plain"));
    assert_eq!(third.end(), ConnectionEnd::Rst);
    server.wait_logged("all 2 sessions of this service are open");
    assert_eq!(backend.accepted(), 2, "the third caused no connection to the backend");
    drop(first);
    until("a seat", WAIT_TIMEOUT, || {
        let stream = PlainClient::connect(client.address("plain"));
        let mut one = [0; 1];
        (&stream.0).write_all(b"x").ok()?;
        std::io::Read::read_exact(&mut &stream.0, &mut one).ok()
    });
    second.echo(b"two is still there");
    let mut server = server;
    assert_eq!(server.terminate(), Some(0));
    let line = server.wait_logged("stopped after");
    // What each session and each refusal came to is told in the end.
    assert!(line.contains("complete ") && line.contains("full "), "{line}");
}

/// A client end that presents another identity than [`client`]'s.
fn other_client(server: &Pskgate, service: &str) -> Pskgate {
    let toml = client_toml(server.address(service), "").replace(IDENTITY, "other");
    PskgateBuilder::new().file("psk.txt", &secret("other", OTHER_KEY)).toml(&toml).start()
}

/// Opens sessions until one is refused.
fn take_all(client: &Pskgate, at_most: usize) -> Vec<PlainClient> {
    let mut held = Vec::new();
    while held.len() < at_most {
        let plain = PlainClient::connect(client.address("plain"));
        let mut one = [0; 1];
        let served = (&plain.0).write_all(b"x").is_ok()
            && std::io::Read::read_exact(&mut &plain.0, &mut one).is_ok();
        if !served {
            break;
        }
        held.push(plain);
    }
    held
}

#[test]
fn the_holder_of_one_key_cannot_take_every_seat() {
    let backend = Backend::echo();
    let keys = secret(IDENTITY, KEY) + &secret("other", OTHER_KEY);
    let toml = server_toml(backend.address(), "max-sessions = 20");
    let server = PskgateBuilder::new().file("psk.txt", &keys).toml(&toml).start();
    for command in ["check", "doctor"] {
        let said = pskgate(server.folder(), &[command, "pskgate.toml"]);
        assert!(
            said.out.contains("one key can take 18 of 20 sessions"),
            "{}{}",
            said.out,
            said.err
        );
    }
    let (first, other) = (client(&server), other_client(&server, "tls"));
    let mine = take_all(&first, 20);
    assert_eq!(mine.len(), 18);
    server.wait_logged("only the last tenth of the sessions is left");
    let theirs = take_all(&other, 20);
    assert_eq!(theirs.len(), 2, "the last seats");
    mine[0].echo(b"who is in stays in");
    // A limit that somebody has set holds alone.
    let toml = server_toml(backend.address(), "max-sessions = 20\nmax-sessions-per-identity = 20");
    let server = PskgateBuilder::new().file("psk.txt", &keys).toml(&toml).start();
    assert_eq!(take_all(&client(&server), 20).len(), 20);
}

#[test]
fn one_key_cannot_take_the_seats_that_services_share() {
    let backend = Backend::echo();
    let first = server_toml(backend.address(), "");
    let second = first.replace("services.tls", "services.more").replace("psk.txt", "more.txt");
    let gate = PskgateBuilder::new().file("more.txt", &secret("other", OTHER_KEY));
    let server = gate.toml(&(first + &second)).descriptors(200).start();
    let (first, other) = (client(&server), other_client(&server, "more"));
    let mine = take_all(&first, 100);
    server.wait_logged("only the last tenth of the sessions is left");
    let theirs = take_all(&other, 2);
    assert_eq!(theirs.len(), 2, "beside {} of the other service's", mine.len());
}

#[test]
fn a_second_start_on_a_unix_socket_does_not_disturb_the_first() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let gate = PskgateBuilder::new();
    let door = gate.folder().join("door");
    let toml = client_toml(server.address("tls"), "")
        .replace("\"127.0.0.1:0\"", &format!("\"{}\"", door.display()));
    let first = gate.toml(&toml).start();
    let mut second = PskgateBuilder::new().toml(&toml).launch();
    assert_eq!(second.exit_code(WAIT_TIMEOUT), Some(69), "the path is taken");
    assert_eq!(backend.accepted(), 0, "a probe reached the backend");
    assert!(!first.log().contains("session opened"), "{}", first.log());
    let mut stream =
        std::os::unix::net::UnixStream::connect(&door).expect("the first still listens");
    stream.write_all(b"x").expect("sent");
    std::io::Read::read_exact(&mut stream, &mut [0; 1]).expect("echoed");
}

#[test]
fn the_pause_of_a_backend_that_serves_one_connection_is_what_the_service_says() {
    const PAUSE: Duration = Duration::from_millis(400);
    const POLLS: u32 = 4;
    let backend = Backend::echo();
    let poll = |pause: &str| {
        let lines =
            format!("max-sessions = 1\nwhen-full = \"take-over\"\nbackend-pause = \"{pause}\"");
        let server = PskgateBuilder::new().toml(&server_toml(backend.address(), &lines)).start();
        let client = PskgateBuilder::new().toml(&client_toml(server.address("tls"), "")).start();
        let watch = Stopwatch::start();
        for _ in 0..POLLS {
            let plain = PlainClient::connect(client.address("plain"));
            plain.echo(b"read 8 registers");
            plain.shut();
            assert_eq!(plain.end(), ConnectionEnd::Fin);
        }
        watch.lasted()
    };
    let (with, without) = (poll("400ms"), poll("0ms"));
    assert!(with > PAUSE * (POLLS - 1), "{with:?}");
    assert!(without + PAUSE < with, "{without:?} without, {with:?} with it");
}
