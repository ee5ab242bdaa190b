//! Rules for services and for single identities: from where, how many, to which backend, and what
//! becomes of those who are in when the rules change.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proxy_header::{ParseConfig, ProxyHeader, Tlv};

use crate::harness::openssl::psk_of;
use crate::harness::process::pskgate;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, OpensslClient, PlainClient, Pskgate,
    PskgateBuilder, Stopwatch, Tls, WAIT_TIMEOUT, client_toml, secret, server_toml, suite_13,
    until, write_private,
};

const SECOND: &str = "client2";

fn keys() -> String {
    secret(IDENTITY, KEY) + &secret(SECOND, OTHER_KEY)
}

/// A server end that knows both clients; `service` is more lines of the service, `rules` more tables.
fn server(backend: &Backend, service: &str, rules: &str) -> Pskgate {
    let toml = server_toml(backend.address(), service) + rules;
    PskgateBuilder::new().file("psk.txt", &keys()).toml(&toml).start()
}

/// A client end that presents `identity`, from the loopback address that ends in `from`.
fn client(server: &Pskgate, identity: &str, key: &str, from: u8) -> Pskgate {
    let local = format!("local-address = \"127.0.0.{from}\"");
    let toml = client_toml(server.address("tls"), &local).replace(IDENTITY, identity);
    PskgateBuilder::new().file("psk.txt", &secret(identity, key)).toml(&toml).start()
}

fn first(server: &Pskgate, from: u8) -> Pskgate {
    client(server, IDENTITY, KEY, from)
}

fn second(server: &Pskgate, from: u8) -> Pskgate {
    client(server, SECOND, OTHER_KEY, from)
}

fn connect(client: &Pskgate) -> PlainClient {
    PlainClient::connect(client.address("plain"))
}

fn is_in(client: &Pskgate) -> PlainClient {
    let plain = connect(client);
    plain.echo(b"let in");
    plain
}

fn is_out(client: &Pskgate) {
    assert_eq!(connect(client).end(), ConnectionEnd::Rst, "somebody was let in");
}

/// Writes the configuration anew and waits until it is in force.
fn reload(server: &Pskgate, text: &str) {
    let count = || server.log().matches(": reloaded;").count();
    let before = count();
    let (file, fresh) = (server.folder().join("pskgate.toml"), server.folder().join("fresh"));
    write_private(&fresh, text);
    std::fs::rename(&fresh, &file).expect("moved over the old one");
    until("the reload", WAIT_TIMEOUT, || (count() > before).then_some(()));
}

#[test]
fn an_address_that_a_service_does_not_allow_is_turned_away_before_tls() {
    let backend = Backend::echo();
    let server = server(&backend, "allow-from = [\"127.0.0.1\", \"10.0.0.0/8\"]", "");
    is_in(&first(&server, 1));
    is_out(&first(&server, 2));
    server.wait_logged("its address is not in allow-from");
    // Not one byte of TLS is said to it.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.3:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&server.address("tls").into()).unwrap();
    let mut stranger = TcpStream::from(socket);
    stranger.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let mut said = Vec::new();
    // The connection may be closed before the hello is on its way.
    let _ = stranger.write_all(b"\x16\x03\x01");
    assert!(matches!(stranger.read_to_end(&mut said), Ok(0) | Err(_)) && said.is_empty());
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn an_identity_outside_its_range_gets_the_alert_of_a_wrong_key_and_the_log_the_reason() {
    let rules = format!("[services.tls.identities.{IDENTITY}]\nallow-from = \"127.0.0.9\"\n");
    for tls in Tls::BOTH {
        let backend = Backend::echo();
        let server = server(&backend, tls.toml(), &rules);
        is_in(&first(&server, 9));
        is_in(&second(&server, 1));
        is_out(&first(&server, 1));
        server.wait_logged(&format!("identity \"{IDENTITY}\" is not allowed from this address"));
        let alert = |identity: &str, key: &str| {
            let arguments = [tls.flag().to_owned()].into_iter().chain(psk_of(identity, key));
            OpensslClient::start(server.address("tls"), arguments).alert()
        };
        let outside = alert(IDENTITY, KEY);
        assert!(outside.is_some());
        assert_eq!(outside, alert(SECOND, KEY), "a wrong key is answered otherwise, {tls:?}");
        assert_eq!(outside, alert("nobody", KEY), "a stranger is answered otherwise, {tls:?}");
    }
}

#[test]
fn an_identity_has_its_own_backend() {
    let (usual, own) = (Backend::echo(), Backend::echo());
    let rules = format!("[services.tls.identities.{SECOND}]\nconnect = \"{}\"\n", own.address());
    let server = server(&usual, "", &rules);
    is_in(&first(&server, 1));
    is_in(&second(&server, 1));
    assert_eq!((usual.accepted(), own.accepted()), (1, 1));
}

#[test]
fn two_names_on_the_wire_are_one_identity_with_one_limit_and_one_backend() {
    let (usual, own) = (Backend::echo(), Backend::echo());
    let rules = format!(
        "[services.tls.identities.{IDENTITY}]\nwire = [\"{IDENTITY}\", \"{IDENTITY}~2\"]\n\
         max-sessions = 1\nconnect = \"{}\"\n",
        own.address()
    );
    let toml = server_toml(usual.address(), "") + &rules;
    let next = format!("{IDENTITY}~2");
    let keys = secret(IDENTITY, KEY) + &secret(&next, OTHER_KEY);
    let server = PskgateBuilder::new().file("psk.txt", &keys).toml(&toml).start();
    let (old, new) = (first(&server, 1), client(&server, &next, OTHER_KEY, 1));
    let session = is_in(&old);
    is_out(&new);
    server.wait_logged(&format!("refused identity \"{IDENTITY}\" from 127.0.0.1"));
    drop(session);
    until("the place of the old one", WAIT_TIMEOUT, || {
        let mut plain = connect(&new);
        (plain.0.write_all(b"x").is_ok() && plain.0.peek(&mut [0]).is_ok_and(|n| n == 1))
            .then_some(())
    });
    assert_eq!(usual.accepted(), 0);
}

#[test]
fn one_at_its_limit_does_not_disturb_another() {
    let backend = Backend::echo();
    let limits = "max-sessions = 10\nmax-sessions-per-identity = 2\nmax-sessions-per-source = 3";
    let server = server(&backend, limits, "");
    let (one, two) = (first(&server, 1), second(&server, 1));
    let _full = [is_in(&one), is_in(&one)];
    is_out(&one);
    server.wait_logged("all 2 sessions of this identity are open");
    let _other = is_in(&two);
    // Three are in from this address, and the second identity has had only one.
    is_out(&two);
    server.wait_logged("all 3 sessions of one address are open");
    is_in(&second(&server, 2));
}

/// Counts how many connections it has at once, and closes each this long after it was told to.
fn counting(close_after: Duration) -> (Backend, Arc<AtomicUsize>) {
    let most = Arc::new(AtomicUsize::new(0));
    let (now, seen) = (AtomicUsize::new(0), most.clone());
    let backend = Backend::new(move |stream| {
        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let (mut from, mut to) = (stream, stream);
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            if to.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        // What is waited for here is the promise itself: no second connection meanwhile.
        std::thread::sleep(close_after);
        now.fetch_sub(1, Ordering::SeqCst);
        None
    });
    (backend, most)
}

#[test]
fn a_newcomer_takes_over_once_the_backend_has_let_go_of_the_other() {
    let (backend, most) = counting(Duration::from_secs(1));
    let server = server(&backend, "max-sessions = 1\nwhen-full = \"take-over\"", "");
    let (one, two) = (first(&server, 1), second(&server, 1));
    let mut holder = is_in(&one);
    for client in [&two, &one, &two] {
        let start = Instant::now();
        let newcomer = is_in(client);
        assert!(start.elapsed() > Duration::from_millis(900), "after {:?}", start.elapsed());
        assert_eq!(holder.end(), ConnectionEnd::Rst);
        holder = newcomer;
    }
    server.wait_logged("took its place");
    assert_eq!((backend.accepted(), most.load(Ordering::SeqCst)), (4, 1));
}

#[test]
fn a_backend_that_bears_one_connection_is_left_in_peace_between_two() {
    // When each connection came, and when the one before had been closed.
    let gaps = Arc::new(Mutex::new(Vec::new()));
    let (closed, seen) = (Mutex::new(None::<Instant>), gaps.clone());
    let backend = Backend::new(move |stream| {
        if let Some(closed) = *closed.lock().unwrap() {
            seen.lock().unwrap().push(closed.elapsed());
        }
        let (mut from, mut to) = (stream, stream);
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            if to.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        *closed.lock().unwrap() = Some(Instant::now());
        None
    });
    let server = server(&backend, "max-sessions = 1\nwhen-full = \"take-over\"", "");
    let client = first(&server, 1);
    // Taken over from, and gone by itself.
    let holder = is_in(&client);
    let newcomer = is_in(&client);
    assert_eq!(holder.end(), ConnectionEnd::Rst);
    drop(newcomer);
    until("the session to end", WAIT_TIMEOUT, || {
        (server.log().matches("session closed").count() == 2).then_some(())
    });
    is_in(&client);
    let gaps = gaps.lock().unwrap();
    assert_eq!(gaps.len(), 2);
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(40)), "{gaps:?}");
}

#[test]
fn a_take_over_does_not_wait_for_ever_for_a_backend_that_never_closes() {
    let (backend, _) = counting(Duration::from_secs(60));
    let server = server(&backend, "max-sessions = 1\nwhen-full = \"take-over\"", "");
    let one = first(&server, 1);
    let _holder = is_in(&one);
    let watch = Stopwatch::start();
    is_in(&one);
    let waited = watch.lasted();
    assert!(waited > Duration::from_secs(4), "{waited:?}");
    watch.expect_within(Duration::from_secs(8));
}

#[test]
fn only_its_own_identity_is_taken_over_from_where_that_is_asked_for() {
    let (backend, most) = counting(Duration::ZERO);
    let server = server(&backend, "max-sessions = 1\nwhen-full = \"take-over-own\"", "");
    let (one, two) = (first(&server, 1), second(&server, 1));
    let holder = is_in(&one);
    is_out(&two);
    holder.echo(b"undisturbed");
    let again = is_in(&one);
    assert_eq!(holder.end(), ConnectionEnd::Rst);
    again.echo(b"in its place");
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[test]
fn a_revoked_session_is_cut_kept_or_given_a_grace_as_the_service_has_it() {
    let backend = Backend::echo();
    let at = |policy: &str| server(&backend, &format!("on-revocation = \"{policy}\""), "");
    let revoke = |server: &Pskgate| {
        let watch = Stopwatch::start();
        write_private(&server.folder().join("psk.txt"), &secret(SECOND, OTHER_KEY));
        until("the reload", WAIT_TIMEOUT, || server.log().contains(": reloaded;").then_some(()));
        watch
    };

    let server = at("5s");
    let client = first(&server, 1);
    let session = is_in(&client);
    let watch = revoke(&server);
    session.echo(b"within its grace");
    is_out(&client);
    assert_eq!(session.end(), ConnectionEnd::Rst);
    let lived = watch.lasted();
    assert!(lived > Duration::from_secs(5), "{lived:?}");
    watch.expect_within(Duration::from_secs(8));

    let server = at("keep");
    let client = first(&server, 1);
    let session = is_in(&client);
    revoke(&server);
    is_out(&client);
    session.echo(b"kept");
    // The next configuration thinks otherwise.
    reload(&server, &server_toml(backend.address(), "on-revocation = \"cut\""));
    assert_eq!(session.end(), ConnectionEnd::Rst);
}

#[test]
fn a_grace_ends_where_the_next_configuration_gives_none() {
    let backend = Backend::echo();
    let server = server(&backend, "on-revocation = \"10m\"", "");
    let client = first(&server, 1);
    let session = is_in(&client);
    write_private(&server.folder().join("psk.txt"), &secret(SECOND, OTHER_KEY));
    until("the reload", WAIT_TIMEOUT, || server.log().contains(": reloaded;").then_some(()));
    session.echo(b"within its grace");
    reload(&server, &server_toml(backend.address(), "on-revocation = \"cut\""));
    assert_eq!(session.end(), ConnectionEnd::Rst);
}

#[test]
fn a_limit_that_comes_with_a_reload_counts_who_is_in_already() {
    let backend = Backend::echo();
    let server = server(&backend, "", "");
    let one = first(&server, 1);
    let session = is_in(&one);
    reload(&server, &server_toml(backend.address(), "max-sessions = 1"));
    is_out(&second(&server, 1));
    session.echo(b"undisturbed");
    assert_eq!(backend.accepted(), 1, "a backend of one session was given two");
    // Without the limit and with it again.
    reload(&server, &server_toml(backend.address(), ""));
    let other = is_in(&one);
    drop(session);
    reload(&server, &server_toml(backend.address(), "max-sessions = 1"));
    is_out(&one);
    other.echo(b"undisturbed");
}

/// A port on which a connection neither succeeds nor fails: its queue is full.
fn silent() -> (std::net::SocketAddr, Vec<socket2::Socket>) {
    let new = || {
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket")
    };
    let listener = new();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut all = vec![listener];
    for _ in 0..3 {
        let filler = new();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&address);
        all.push(filler);
    }
    (address.as_socket().unwrap(), all)
}

/// How many sessions have a place, those whose target is still being reached among them.
fn places(gate: &Pskgate) -> usize {
    let done = pskgate(gate.folder(), &["status", "--json", "pskgate.toml"]);
    let status: serde_json::Value = serde_json::from_str(&done.out).expect("a status");
    let identities = status["services"][0]["identities"].as_array().expect("identities").clone();
    identities.iter().filter_map(|one| one["sessions"].as_u64()).sum::<u64>() as usize
}

#[test]
fn who_waits_for_a_backend_is_cut_when_its_key_goes() {
    let (target, _queue) = silent();
    let toml = server_toml(target, "connect-timeout = \"60s\"");
    let server = PskgateBuilder::new().file("psk.txt", &keys()).toml(&toml).start();
    let client = first(&server, 1);
    let plain = connect(&client);
    until("a place for it", WAIT_TIMEOUT, || (places(&server) == 1).then_some(()));
    write_private(&server.folder().join("psk.txt"), &secret(SECOND, OTHER_KEY));
    assert_eq!(plain.end(), ConnectionEnd::Rst);
    server.wait_logged("its access was withdrawn");
    assert_eq!(places(&server), 0);
}

#[test]
fn who_waits_for_a_server_at_a_client_end_can_be_kicked_and_taken_over_from() {
    let (target, _queue) = silent();
    let more = "max-sessions = 1\nwhen-full = \"take-over\"\nconnect-timeout = \"60s\"";
    let client = PskgateBuilder::new().toml(&client_toml(target, more)).start();
    let one = connect(&client);
    until("a place for it", WAIT_TIMEOUT, || (places(&client) == 1).then_some(()));
    let two = connect(&client);
    assert_eq!(one.end(), ConnectionEnd::Rst, "the newcomer did not take its place");
    until("a place for the other", WAIT_TIMEOUT, || (places(&client) == 1).then_some(()));
    let done = pskgate(client.folder(), &["kick", IDENTITY, "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(two.end(), ConnectionEnd::Rst);
}

#[test]
fn a_key_that_is_back_before_its_grace_is_over_keeps_its_sessions() {
    let backend = Backend::echo();
    let server = server(&backend, "on-revocation = \"8s\"", "");
    let client = first(&server, 1);
    let session = is_in(&client);
    // A key that went and came is another grant; a range that closed and opened leaves the same one.
    reload(
        &server,
        &server_toml(backend.address(), "on-revocation = \"8s\"\nallow-from = \"10.0.0.0/8\""),
    );
    reload(&server, &server_toml(backend.address(), "on-revocation = \"8s\""));
    let start = Instant::now();
    until("the end of what was its grace", WAIT_TIMEOUT, || {
        session.echo(b"still here");
        (start.elapsed() > Duration::from_secs(9)).then_some(())
    });
}

#[test]
fn a_range_that_is_narrowed_cuts_who_is_outside_and_nobody_else() {
    let backend = Backend::echo();
    let server = server(&backend, "", "");
    let (one, two) = (first(&server, 1), second(&server, 2));
    let (inside, outside) = (is_in(&one), is_in(&two));
    reload(&server, &server_toml(backend.address(), "allow-from = \"127.0.0.1\""));
    assert_eq!(outside.end(), ConnectionEnd::Rst);
    inside.echo(b"undisturbed");
    let rules = format!("[services.tls.identities.{IDENTITY}]\nallow-from = \"10.0.0.0/8\"\n");
    reload(&server, &(server_toml(backend.address(), "") + &rules));
    assert_eq!(inside.end(), ConnectionEnd::Rst, "outside the range of its own identity");
    is_in(&two);
}

#[test]
fn an_expired_key_ends_its_sessions_and_lets_nobody_in() {
    let backend = Backend::echo();
    let rules = |seconds: i64| {
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        format!("[services.tls.identities.{IDENTITY}]\nexpires = \"{end}\"\n")
    };
    let server = server(&backend, "", &rules(3600));
    server.wait_logged("expire within a day");
    let (one, two) = (first(&server, 1), second(&server, 1));
    let (session, neighbour) = (is_in(&one), is_in(&two));
    reload(&server, &(server_toml(backend.address(), "") + &rules(4)));
    assert_eq!(session.end(), ConnectionEnd::Rst);
    is_out(&one);
    server.wait_logged(&format!("the key of identity \"{IDENTITY}\" has expired"));
    neighbour.echo(b"undisturbed");
}

#[test]
fn no_key_expires_by_a_clock_that_is_before_the_build() {
    let backend = Backend::echo();
    let rules = format!("[services.tls.identities.{IDENTITY}]\nexpires = 2001-01-01\n");
    let toml = server_toml(backend.address(), "") + &rules;
    let at = |year: &str| {
        let gate = PskgateBuilder::new().file("psk.txt", &keys()).toml(&toml);
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
        let found = std::path::Path::new(library).exists();
        assert!(found, "needs the Debian package faketime");
        gate.shell(&format!(
            "export LD_PRELOAD={library} FAKETIME='@{year}-06-01 12:00:00' FAKETIME_DONT_FAKE_MONOTONIC=1"
        ))
        .start()
    };
    let server = at("2002");
    server.wait_logged("a time before this program was built");
    is_in(&first(&server, 1));
    let server = at("2040");
    server.wait_logged("have expired");
    is_out(&first(&server, 1));
}

#[test]
fn a_backend_is_told_who_it_is_and_what_tls_came_to() {
    let backend = Backend::recorder();
    let server = server(&backend, "proxy-header = \"v2\"", "");
    let client = first(&server, 7);
    let plain = connect(&client);
    plain.send(b"the data");
    let got = until("the header and the data", WAIT_TIMEOUT, || {
        let got = backend.so_far(0);
        got.ends_with(b"the data").then_some(got)
    });
    let config = ParseConfig { include_tlvs: true, ..ParseConfig::default() };
    let (header, length) = ProxyHeader::parse(&got, config).expect("a header");
    assert_eq!(&got[length..], b"the data");
    let at = header.proxied_address().expect("addresses");
    assert_eq!(at.source.ip().to_string(), "127.0.0.7");
    assert_eq!(at.destination, server.address("tls"));
    let tls = header.ssl().expect("what TLS came to");
    assert_eq!((tls.version(), tls.cipher()), (Some("TLSv1.3"), Some(suite_13())));
    assert_eq!(tls.cn(), Some(IDENTITY));
    let custom = |kind, value: &'static [u8]| {
        header.tlvs().flatten().any(|tlv| tlv == Tlv::Custom(kind, value.into()))
    };
    assert!(custom(0xe0, IDENTITY.as_bytes()) && custom(0xe1, b"X25519"), "{header:?}");
}
