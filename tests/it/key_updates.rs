//! TLS 1.3's key updates: a peer's that are many, and pskgate's own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use pskgate::observe::status::Status;

use crate::harness::openssl::hex;
use crate::harness::process::pskgate;
use crate::harness::updates::Updater;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, Pair, PlainClient, Pskgate, PskgateBuilder, Stream,
    Stunnel, Tls, WAIT_TIMEOUT, client_toml, free_port, server_toml, until,
};

/// What the log says of a session that was cut for this.
const FLOOD: &str = "more than 32 key updates";

#[test]
fn a_client_that_only_changes_keys_is_cut_and_its_backend_sees_a_fin() {
    let backend = Backend::sink();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let mut peer = Updater::connect(gate.address("tls"));
    peer.write(b"before");
    gate.wait_logged("session opened");
    peer.hold();
    for number in 0..1000 {
        peer.update(number % 2 == 1);
    }
    // The rest of it may meet a closed socket.
    let _ = peer.send_held();
    let line = gate.wait_logged(FLOOD);
    assert!(line.contains(" warning "), "{line}");
    assert!(peer.is_gone());
    assert_eq!(backend.wait_end(0), (b"before".to_vec(), ConnectionEnd::Fin));
}

#[test]
fn a_server_that_only_changes_keys_is_cut_and_the_application_sees_a_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("its address");
    let gate = PskgateBuilder::new().toml(&client_toml(to, "")).start();
    let plain = PlainClient::connect(gate.address("plain"));
    let mut peer = Updater::accept(&listener);
    plain.send(b"before");
    assert_eq!(peer.read(6), b"before");
    peer.hold();
    (0..1000).for_each(|_| peer.update(false));
    let _ = peer.send_held();
    gate.wait_logged(FLOOD);
    assert_eq!(plain.end(), ConnectionEnd::Rst);
}

/// Data in either direction is what tells a peer that works from one that only makes work.
#[test]
fn a_peer_that_changes_keys_between_its_data_is_served() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let mut peer = Updater::connect(gate.address("tls"));
    for round in 0..100_u8 {
        peer.hold();
        // 32 are not too many.
        for _ in 0..32 {
            peer.update(round % 2 == 0);
        }
        peer.write(&[round; 3]);
        peer.send_held().expect("sent");
        assert_eq!(peer.read(3), [round; 3]);
    }
    peer.hold();
    for round in 0..1000_u32 {
        peer.update(false);
        peer.write(&round.to_be_bytes());
    }
    peer.send_held().expect("sent");
    let wanted: Vec<u8> = (0..1000_u32).flat_map(u32::to_be_bytes).collect();
    assert!(peer.read(wanted.len()) == wanted, "the echo differs");
    assert!(!gate.log().contains(FLOOD), "{}", gate.log());
}

/// Small enough that some megabytes need several changes, at this end and of the peer.
const SMALL_LIMIT: &str = "rekey-after = \"100 records, 1MB\"";

/// The only session's service, as the program tells of it: key updates up and down so far.
fn updates(gate: &Pskgate) -> (u64, u64) {
    let done = pskgate(gate.folder(), &["status", "--json", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let status: Status = serde_json::from_str(&done.out).expect("a status");
    let service = &status.services[0];
    let session = service.sessions.first().expect("an open session");
    assert!(service.key_updates_up >= session.key_updates_up);
    assert!(session.records_up > 0 && session.records_down > 0, "{session:?}");
    (session.key_updates_up, session.key_updates_down)
}

/// Bytes of either direction: many times what one key is used for, and more than sockets hold.
const TOTAL: u64 = 24_000_000;

/// Sends so much one way and gets it back, over whatever carries bytes.
fn echo_through(to: impl Write + Send, from: impl Read) {
    let stream = Stream::new(5);
    std::thread::scope(|scope| {
        let sent = &stream;
        scope.spawn(move || sent.send(to, TOTAL).expect("it takes the data"));
        stream.receive(from, TOTAL);
    });
}

/// This end changes its own keys every megabyte, and asks its peer every two. How soon the peer hears of it
/// depends on how much is on its way.
fn expect_updates((own, of_peer): (u64, u64)) {
    // An answer to a peer that asks is one of its own as well.
    assert!((15..=60).contains(&own), "{own} of its own");
    assert!((1..=60).contains(&of_peer), "{of_peer} of its peer's");
}

#[test]
fn two_ends_change_keys_in_the_midst_of_data_and_lose_none() {
    let backend = Backend::echo();
    let pair = Pair::with(&backend, SMALL_LIMIT, SMALL_LIMIT);
    let plain = pair.connect();
    echo_through(&plain.0, &plain.0);
    for gate in [&pair.server, &pair.client] {
        let (up, down) = updates(gate);
        assert!((15..=60).contains(&up) && (15..=60).contains(&down), "{up} up, {down} down");
    }
    plain.shut();
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Fin));
}

#[test]
fn stunnel_follows_key_updates_and_is_had_to_make_its_own() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), SMALL_LIMIT)).start();
    let stunnel = Stunnel::client(server.address("tls"), Tls::V13.conf());
    let plain = PlainClient::connect(stunnel.address());
    echo_through(&plain.0, &plain.0);
    let (up, down) = updates(&server);
    expect_updates((down, up));

    let stunnel = Stunnel::server(backend.address(), Tls::V13.conf());
    let client = PskgateBuilder::new().toml(&client_toml(stunnel.address(), SMALL_LIMIT)).start();
    let plain = PlainClient::connect(client.address("plain"));
    echo_through(&plain.0, &plain.0);
    expect_updates(updates(&client));
}

/// A command whose standard input and output are a connection.
struct Piped(Child);

impl Piped {
    fn spawn(package: &str, folder: &Path, words: &[&str]) -> Self {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(folder);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let name = words[0];
        Self(command.spawn().unwrap_or_else(|error| panic!("{name}: {error}; install {package}")))
    }

    fn ends(&mut self) -> (ChildStdin, ChildStdout) {
        (self.0.stdin.take().expect("its input"), self.0.stdout.take().expect("its output"))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// GnuTLS' names for 1.3 with a key and a key exchange beside it.
const GNUTLS: &str = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+DHE-PSK";

#[test]
fn clients_of_openssl_and_gnutls_follow_key_updates_and_are_had_to_make_their_own() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), SMALL_LIMIT)).start();
    let (to, port) = (server.address("tls").to_string(), server.address("tls").port().to_string());
    let key = hex(KEY);
    let s_client = [
        &["openssl", "s_client", "-quiet", "-nocommands", "-tls1_3", "-connect", &to][..],
        &["-psk_identity", IDENTITY, "-psk", &key],
    ];
    let gnutls_cli = [
        &["gnutls-cli", "--logfile=/dev/null", "--insecure", "--priority", GNUTLS][..],
        &["--pskusername", IDENTITY, "--pskkey", &key, "--port", &port, "127.0.0.1"],
    ];
    for (package, words) in [("openssl", s_client.concat()), ("gnutls-bin", gnutls_cli.concat())] {
        let mut client = Piped::spawn(package, server.folder(), &words);
        // At the end of its input it would leave.
        let (mut input, output) = client.ends();
        echo_through(&mut input, output);
        let (up, down) = updates(&server);
        expect_updates((down, up));
        drop(client);
        server.wait_logged("session closed");
        until("the session to be gone", WAIT_TIMEOUT, || server_is_idle(&server).then_some(()));
    }
}

fn server_is_idle(gate: &Pskgate) -> bool {
    let done = pskgate(gate.folder(), &["sessions", "--json", "pskgate.toml"]);
    done.code == Some(0) && done.out.trim() == "[]"
}

#[test]
fn a_server_of_openssl_follows_key_updates_and_is_had_to_make_its_own() {
    let gate = PskgateBuilder::new();
    let port = free_port();
    let (at, key) = (format!("127.0.0.1:{port}"), hex(KEY));
    let words = [
        &["openssl", "s_server", "-quiet", "-nocert", "-tls1_3", "-accept", &at][..],
        &["-psk_identity", IDENTITY, "-psk", &key],
    ];
    let mut server = Piped::spawn("openssl", gate.folder(), &words.concat());
    until("s_server to listen", WAIT_TIMEOUT, || TcpStream::connect(&at).ok());
    let gate = gate.toml(&client_toml(&at, SMALL_LIMIT)).start();
    let plain = PlainClient::connect(gate.address("plain"));
    // What goes in on one side comes out on the other.
    // At the end of its input s_server would leave.
    let (mut input, output) = server.ends();
    let (there, back) = (Stream::new(6), Stream::new(7));
    std::thread::scope(|scope| {
        scope.spawn(|| there.send(&plain.0, TOTAL).expect("it takes the data"));
        scope.spawn(|| back.send(&mut input, TOTAL).expect("s_server takes the data"));
        scope.spawn(|| there.receive(output, TOTAL));
        back.receive(&plain.0, TOTAL);
    });
    let (up, down) = updates(&gate);
    expect_updates((up, down));
}

#[test]
fn a_1_2_session_whose_key_is_used_too_much_is_told_of_once() {
    let backend = Backend::echo();
    let lines = format!("{}{SMALL_LIMIT}", Tls::V12.toml());
    let pair = Pair::with(&backend, &lines, &lines);
    let plain = pair.connect();
    echo_through(&plain.0, &plain.0);
    plain.echo(b"still there");
    for gate in [&pair.server, &pair.client] {
        let line = gate.wait_logged("TLSv1.2 cannot change keys");
        assert!(line.contains(" warning "), "{line}");
        assert_eq!(gate.log().matches("cannot change keys").count(), 1);
        assert_eq!(updates(gate), (0, 0));
    }
}

#[test]
fn a_session_that_has_lasted_its_time_ends_at_a_quiet_moment() {
    let backend = Backend::sink();
    let lifetime = "session-lifetime = \"2s\"";
    let pair = Pair::with(&backend, lifetime, "");
    let plain = pair.connect();
    let start = Instant::now();
    // It is not quiet yet when its time is over.
    while start.elapsed() < Duration::from_secs(4) {
        plain.send(b"x");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!pair.server.log().contains("session closed"), "{}", pair.server.log());
    pair.server.wait_logged("it reached session-lifetime");
    // Half an answer must not look whole at the client end; a backend sees a FIN.
    assert_eq!(plain.end(), ConnectionEnd::Rst);
    assert_eq!(backend.wait_end(0).1, ConnectionEnd::Fin);
}
