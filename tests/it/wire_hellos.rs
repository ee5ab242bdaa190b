//! What is offered and what is taken, read off the wire: suites, groups, extensions, and the first
//! messages of both ends in either dialect.

use std::net::SocketAddr;

use crate::harness::hello::{Hello, RecordingProxy, messages, numbers, vector};
use crate::harness::{
    Backend, IDENTITY, OpensslClient, OpensslServer, PlainClient, Pskgate, PskgateBuilder, Tls,
    WAIT_TIMEOUT, client_toml, free_port, openssl, server_toml, suite_13, until,
};

const SUPPORTED_GROUPS: u16 = 10;
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
const PSK_MODES: u16 = 45;
const KEY_SHARE: u16 = 51;

/// Not a suite: there will be no renegotiation (RFC 5746).
const SCSV: u16 = 0x00ff;
/// X25519 and P-256.
const GROUPS: [u16; 2] = [0x001d, 0x0017];
/// X25519, P-256, X448, P-521, P-384.
const STUNNEL_GROUPS: [u16; 5] = [0x001d, 0x0017, 0x001e, 0x0019, 0x0018];

/// A CPU with instructions for AES prefers them.
fn suites_13() -> Vec<u16> {
    let (aes, chacha) = (0x1301, 0x1303);
    if suite_13().contains("AES") { vec![aes, chacha] } else { vec![chacha, aes] }
}

/// ECDHE-PSK-CHACHA20-POLY1305.
const NATIVE_12: [u16; 1] = [0xccac];

/// What `HIGH:!aNULL:!SSLv2:!DH:!kDHEPSK` has of suites with a key and nothing else, in OpenSSL's
/// order; read off the library that the program has too.
fn stunnel_12() -> Vec<u16> {
    use ::openssl::ssl::{SslContext, SslMethod, SslVersion};
    let mut builder = SslContext::builder(SslMethod::tls()).expect("a context");
    builder.set_max_proto_version(Some(SslVersion::TLS1_2)).expect("a version");
    builder.set_ciphersuites("").expect("no suite of 1.3");
    builder.set_cipher_list("HIGH:!aNULL:!SSLv2:!DH:!kDHEPSK").expect("a list");
    let context = builder.build();
    let wanted = |about: &str| about.contains("Au=PSK") && !about.contains("Kx=RSAPSK");
    let all = pskgate::sys::openssl::context_suites(&context).into_iter();
    let ours = all.filter(|suite| wanted(&suite.description()));
    ours.map(|suite| u16::from_be_bytes(suite.protocol_id())).collect()
}

/// Who listens, takes one hello and says nothing more.
fn overheard(client: impl FnOnce(SocketAddr) -> Pskgate) -> Hello {
    let silent = Backend::recorder();
    let gate = client(silent.address());
    let _plain = PlainClient::connect(gate.address("plain"));
    until("a ClientHello", WAIT_TIMEOUT, || {
        let said = silent.so_far(0);
        (!messages(&said).is_empty()).then(|| Hello::of(&said))
    })
}

fn native(lines: &'static str) -> Hello {
    overheard(|to| PskgateBuilder::new().toml(&client_toml(to, lines)).start())
}

fn dropin(lines: &'static str) -> Hello {
    let port = free_port();
    let text = format!(
        "[plain]\nclient = yes\naccept = 127.0.0.1:{port}\nPSKsecrets = psk.txt\n\
         sessionResume = no\n{lines}\n"
    );
    overheard(|to| {
        PskgateBuilder::new().conf("x.conf", &format!("{text}connect = {to}\n"), None).start()
    })
}

fn expect_client(hello: &Hello, suites: &[u16], groups: &[u16], versions: &[u16]) {
    let is_13 = versions.contains(&0x0304);
    // Some libraries say in an extension what others say with it.
    let offered: Vec<_> = hello.suites.iter().copied().filter(|suite| *suite != SCSV).collect();
    assert_eq!(offered, suites, "suites: {offered:04x?}");
    assert_eq!(hello.compression, [0], "no compression");
    let said = hello.extension(SUPPORTED_GROUPS).expect("groups");
    assert_eq!(numbers(&said[2..]), groups, "groups");
    if is_13 {
        let said = hello.extension(SUPPORTED_VERSIONS).expect("versions");
        assert_eq!(numbers(&said[1..]), versions, "versions");
        assert_eq!(hello.extension(PSK_MODES), Some(&[1, 1][..]), "psk_dhe_ke and no other");
        let share = hello.extension(KEY_SHARE).expect("a share");
        assert_eq!(share[2..4], [0, 0x1d], "X25519 is guessed first");
        // One identity with its name alone, and one binder of SHA-256.
        let offer = hello.extension(PRE_SHARED_KEY).expect("the key");
        let name = [vector(2, IDENTITY.as_bytes()), vec![0; 4]].concat();
        assert_eq!(offer[..offer.len() - 35], vector(2, &name), "the identity, and no ticket");
        assert_eq!(offer[offer.len() - 35..][..3], [0, 33, 32], "one binder of SHA-256");
        assert_eq!(hello.extensions.last().map(|(kind, _)| *kind), Some(PRE_SHARED_KEY));
    } else {
        assert!(hello.session.is_empty(), "no session to resume");
        assert_eq!(hello.extension(PRE_SHARED_KEY), None);
    }
    assert_eq!(hello.extension(EARLY_DATA), None, "no early data");
    assert_eq!(hello.extension(SESSION_TICKET), None, "no ticket is asked for");
}

#[test]
fn a_native_client_offers_these_suites_and_groups_and_no_others() {
    let all = [&suites_13()[..], &NATIVE_12].concat();
    expect_client(&native(""), &all, &GROUPS, &[0x0304, 0x0303]);
    expect_client(&native(Tls::V13.toml()), &suites_13(), &GROUPS, &[0x0304]);
    expect_client(&native(Tls::V12.toml()), &NATIVE_12, &GROUPS, &[0x0303]);
}

#[test]
fn a_client_with_a_stunnel_conf_offers_stunnel_s_list_less_what_needs_a_certificate() {
    let old = stunnel_12();
    assert!(old.len() > 10, "the command was read: {old:04x?}");
    assert!(old.contains(&0xccac) && !old.contains(&0x00aa), "{old:04x?}");
    // In stunnel's order, without the one of another hash.
    let new = [0x1301, 0x1303];
    for (lines, list, versions) in [
        ("", [&new[..], &old].concat(), &[0x0304, 0x0303][..]),
        (Tls::V12.conf(), old.clone(), &[0x0303]),
        (Tls::V13.conf(), new.to_vec(), &[0x0304]),
    ] {
        expect_client(&dropin(lines), &list, &STUNNEL_GROUPS, versions);
    }
}

/// `PSK-NULL-SHA` and its like (RFC 4785, 5487, 5489).
const NULL: [u16; 9] = [0x002c, 0x002d, 0x00b0, 0x00b1, 0x00b4, 0x00b5, 0xc039, 0xc03a, 0xc03b];

#[test]
fn no_suite_without_encryption_and_none_without_the_key_is_offered_whatever_the_list_says() {
    let lists = [
        native("tls-max = \"1.2\"\nciphers = \"ALL:COMPLEMENTOFALL:eNULL:@SECLEVEL=0\""),
        native("tls-max = \"1.2\"\nciphers = \"ALL:eNULL\"\nsecurity-level = 0"),
        dropin("sslVersionMax = TLSv1.2\nciphers = ALL:COMPLEMENTOFALL:eNULL:@SECLEVEL=0"),
        dropin("sslVersionMax = TLSv1.2\nciphers = eNULL:PSK\nsecurityLevel = 0"),
    ];
    for hello in lists {
        assert!(hello.suites.len() > 20, "the list was taken: {:04x?}", hello.suites);
        let bad: Vec<_> = hello.suites.iter().filter(|suite| NULL.contains(suite)).collect();
        assert!(bad.is_empty(), "{bad:04x?}");
        let with_key = |suite: &&u16| {
            matches!(**suite, SCSV | 0x008c..=0x0091 | 0x00a8..=0x00ab | 0x00ae..=0x00b3
                | 0xc033..=0xc038 | 0xc064..=0xc071 | 0xc094..=0xc09b | 0xc0a4..=0xc0ab
                | 0xccab..=0xccad)
        };
        let without: Vec<_> = hello.suites.iter().filter(|s| !with_key(s)).collect();
        assert!(without.is_empty(), "{without:04x?}");
    }
}

fn server(backend: &Backend, dialect: &str) -> Pskgate {
    let gate = PskgateBuilder::new();
    match dialect {
        "native" => gate.toml(&server_toml(backend.address(), "")).start(),
        _ => {
            let text = format!(
                "[tls]\naccept = 127.0.0.1:{}\nconnect = {}\nPSKsecrets = psk.txt\nsessionResume = no\n",
                free_port(),
                backend.address()
            );
            gate.conf("x.conf", &text, None).start()
        }
    }
}

/// Both hellos of OpenSSL's client and a server end, with the server's other messages.
fn served(gate: &Pskgate, arguments: &[&str]) -> (Hello, Hello, Vec<(u8, Vec<u8>)>) {
    let tap = RecordingProxy::before(gate.address("tls"));
    let arguments = openssl::psk().into_iter().chain(arguments.iter().map(|&s| s.to_owned()));
    OpensslClient::start(tap.address(), arguments).echo("through the tap");
    let (client, server) = tap.hellos();
    (client, server, messages(&tap.down()))
}

#[test]
fn a_server_takes_the_key_with_x25519_in_1_3_and_says_no_more_than_it_must() {
    for dialect in ["native", "stunnel.conf"] {
        let backend = Backend::echo();
        let gate = server(&backend, dialect);
        let (client, server, _) = served(&gate, &["-tls1_3"]);
        // OpenSSL's client has a suite of the other hash first.
        assert_eq!(client.suites[..3], [0x1302, 0x1303, 0x1301]);
        assert!(suites_13().contains(&server.suites[0]), "{dialect}: {:04x?}", server.suites);
        assert_eq!(server.kinds(), [PRE_SHARED_KEY, SUPPORTED_VERSIONS, KEY_SHARE], "{dialect}");
        assert_eq!(server.extension(SUPPORTED_VERSIONS), Some(&[3, 4][..]));
        assert_eq!(server.extension(PRE_SHARED_KEY), Some(&[0, 0][..]), "the first identity");
        assert_eq!(server.extension(KEY_SHARE).map(|share| &share[..2]), Some(&[0, 0x1d][..]));
        assert_eq!(server.compression, [0]);
    }
}

#[test]
fn a_server_in_1_2_gives_no_hint_no_session_and_no_ticket() {
    const SERVER_KEY_EXCHANGE: u8 = 12;
    const NEW_SESSION_TICKET: u8 = 4;
    for dialect in ["native", "stunnel.conf"] {
        let backend = Backend::echo();
        let gate = server(&backend, dialect);
        let (client, server, rest) = served(&gate, &["-tls1_2", "-comp"]);
        assert!(client.extension(SESSION_TICKET).is_some(), "a ticket was asked for");
        assert_eq!(server.suites, [0xccac], "{dialect}: ECDHE-PSK, as neither list has DHE-PSK");
        assert!(server.session.is_empty(), "{dialect}: nothing to come back with");
        assert_eq!(server.compression, [0]);
        assert_eq!(server.extension(SESSION_TICKET), None);
        let exchange = rest.iter().find(|(kind, _)| *kind == SERVER_KEY_EXCHANGE);
        let (_, exchange) = exchange.expect("a share");
        // The hint's length; then a named curve, X25519, a point of 32 bytes.
        assert_eq!(exchange[..6], [0, 0, 3, 0, 0x1d, 32], "{dialect}: no hint");
        assert!(!rest.iter().any(|(kind, _)| *kind == NEW_SESSION_TICKET), "{dialect}: a ticket");
        // A plain PSK suite needs no such message but for a hint (RFC 4279, 2).
        if dialect != "native" {
            let (_, server, rest) = served(&gate, &["-tls1_2", "-cipher", "PSK-AES128-GCM-SHA256"]);
            assert_eq!(server.suites, [0x00a8]);
            assert!(!rest.iter().any(|(kind, _)| *kind == SERVER_KEY_EXCHANGE));
        }
    }
}

#[test]
fn dhe_uses_the_built_in_group_of_2048_bits() {
    const SERVER_KEY_EXCHANGE: u8 = 12;
    let backend = Backend::echo();
    let gate = PskgateBuilder::new()
        .toml(&server_toml(backend.address(), "ciphers = \"rfc4279\""))
        .start();
    let (_, _, rest) = served(&gate, &["-tls1_2", "-cipher", "DHE-PSK-AES128-GCM-SHA256"]);
    let (_, exchange) =
        rest.iter().find(|(kind, _)| *kind == SERVER_KEY_EXCHANGE).expect("a share");
    // No hint, 256 bytes of prime, the first of ffdhe2048 (RFC 7919, A.1).
    let ffdhe2048 = [&[0, 0, 1, 0][..], &[255; 8], &[0xad, 0xf8, 0x54, 0x58]].concat();
    assert_eq!(exchange[..ffdhe2048.len()], ffdhe2048);
}

#[test]
fn a_hint_changes_nothing() {
    for hint in ["somebody-else", "client2"] {
        let gate = PskgateBuilder::new();
        let arguments = ["-nocert", "-psk_hint", hint, Tls::V12.flag()].map(str::to_owned);
        let server =
            OpensslServer::start(gate.folder(), openssl::psk().into_iter().chain(arguments));
        let keys = crate::harness::secret(IDENTITY, crate::harness::KEY)
            + &crate::harness::secret("client2", crate::harness::OTHER_KEY);
        let tap = RecordingProxy::before(server.address());
        let gate = gate.file("psk.txt", &keys).toml(&client_toml(tap.address(), "")).start();
        let plain = PlainClient::connect(gate.address("plain"));
        plain.send(b"there and back\n");
        let mut back = [0; 15];
        std::io::Read::read_exact(&mut &plain.0, &mut back).expect("it answers");
        assert_eq!(&back, b"kcab dna ereht\n");
        let down = tap.down();
        assert!(down.windows(hint.len()).any(|w| w == hint.as_bytes()), "the hint was given");
        gate.expect_session("TLSv1.2", "ECDHE-PSK-CHACHA20-POLY1305");
    }
}

#[test]
fn a_client_that_would_renegotiate_is_refused_and_its_neighbour_is_not_disturbed() {
    let backend = Backend::echo();
    let gate = server(&backend, "native");
    let mut neighbour = OpensslClient::start(gate.address("tls"), openssl::psk());
    neighbour.echo("before");
    let arguments = openssl::psk().into_iter().chain([Tls::V12.flag().to_owned()]);
    let to = ["-connect".to_owned(), gate.address("tls").to_string()];
    let mut command = std::process::Command::new("openssl");
    command.arg("s_client").args(to).args(arguments);
    let mut client = crate::harness::Process::spawn("s_client", "openssl", &mut command);
    client.type_in("a line\n");
    client.wait_for("a line", WAIT_TIMEOUT);
    client.type_in("R\n");
    client.wait_for("no renegotiation", WAIT_TIMEOUT);
    neighbour.echo("after");
    assert_eq!(backend.accepted(), 2);
}

/// The early data is there to be taken: a server that took it would hand it to the backend.
#[test]
fn early_data_is_refused_and_reaches_nobody() {
    let backend = Backend::recorder();
    let gate = server(&backend, "native");
    crate::hashes::session_file(gate.folder(), [0x13, 1], true);
    std::fs::write(gate.folder().join("early"), "replay me").unwrap();
    let tap = RecordingProxy::before(gate.address("tls"));
    let arguments = [
        "-psk_session",
        "session.pem",
        "-psk_identity",
        IDENTITY,
        Tls::V13.flag(),
        "-early_data",
        "early",
    ];
    let mut client = OpensslClient::start_in(gate.folder(), tap.address(), arguments);
    client.wait_for("Early data was rejected", WAIT_TIMEOUT);
    client.type_in("and after the handshake\n");
    until("what comes after", WAIT_TIMEOUT, || (!backend.so_far(0).is_empty()).then_some(()));
    assert_eq!(backend.so_far(0), b"and after the handshake\n");
    assert!(tap.hellos().0.extension(EARLY_DATA).is_some(), "early data was sent");
}

#[test]
fn a_service_of_one_version_speaks_it_and_no_other() {
    for (ours, other) in [(Tls::V12, Tls::V13), (Tls::V13, Tls::V12)] {
        for dialect in ["native", "stunnel.conf"] {
            let backend = Backend::echo();
            let text = match dialect {
                "native" => server_toml(backend.address(), ours.toml()),
                _ => format!(
                    "[tls]\naccept = 127.0.0.1:{}\nconnect = {}\nPSKsecrets = psk.txt\n{}",
                    free_port(),
                    backend.address(),
                    ours.conf()
                ),
            };
            let gate = match dialect {
                "native" => PskgateBuilder::new().toml(&text),
                _ => PskgateBuilder::new().conf("x.conf", &text, None),
            }
            .start();
            let client = |tls: Tls| {
                let arguments = openssl::psk().into_iter().chain([tls.flag().to_owned()]);
                OpensslClient::start(gate.address("tls"), arguments)
            };
            client(ours).echo("the version of this service");
            let mut refused = client(other);
            assert!(refused.alert().is_some(), "{other:?}: {}", refused.text());
            assert_eq!(backend.accepted(), 1);
        }
    }
}

/// A ServerHello whose random number is RFC 8446's for a HelloRetryRequest (4.1.3).
fn expect_retry(heard: &[(u8, Vec<u8>)]) {
    let (kind, body) = &heard[0];
    assert_eq!((kind, &body[2..6]), (&2, &[0xcf, 0x21, 0xad, 0x74][..]), "a HelloRetryRequest");
}

/// The server's group is not the one that was guessed: all that is said of keys is said twice.
#[test]
fn a_second_hello_changes_nothing_at_either_end() {
    let backend = Backend::echo();
    let text = server_toml(backend.address(), "tls-min = \"1.3\"\ngroups = \"P-384\"");
    let gate = PskgateBuilder::new().toml(&text).start();
    let alert = |who: &str, key: &str| {
        let arguments = openssl::psk_of(who, key).into_iter();
        let arguments = arguments.chain(["-curves", "X25519:P-384"].map(str::to_owned));
        OpensslClient::start(gate.address("tls"), arguments).alert()
    };
    let (_, server, heard) = served(&gate, &["-curves", "X25519:P-384"]);
    expect_retry(&heard);
    assert_eq!(server.extension(KEY_SHARE), Some(&[0, 0x18][..]), "P-384 is asked for");
    gate.expect_session("TLSv1.3", "P-384");
    let unknown = alert("nobody", crate::harness::KEY);
    assert!(unknown.is_some());
    assert_eq!(unknown, alert(IDENTITY, crate::harness::OTHER_KEY), "it tells who exists");
    assert_eq!(backend.accepted(), 1);

    let gate = PskgateBuilder::new();
    let arguments = ["-nocert", Tls::V13.flag(), "-curves", "P-256"].map(str::to_owned);
    let server = OpensslServer::start(gate.folder(), openssl::psk().into_iter().chain(arguments));
    let tap = RecordingProxy::before(server.address());
    let gate = gate.toml(&client_toml(tap.address(), "")).start();
    let plain = PlainClient::connect(gate.address("plain"));
    plain.send(b"there and back\n");
    let mut back = [0; 15];
    std::io::Read::read_exact(&mut &plain.0, &mut back).expect("it answers");
    expect_retry(&messages(&tap.down()));
    gate.expect_session("TLSv1.3", "P-256");
}

/// For IDEs of old that know nothing newer.
#[test]
fn a_version_before_1_2_is_spoken_where_it_is_named_with_a_warning_and_nowhere_else() {
    for (dialect, version) in [("native", "1.1"), ("native", "1.0"), ("stunnel.conf", "1.1")] {
        let backend = Backend::echo();
        let text = match dialect {
            "native" => server_toml(
                backend.address(),
                &format!("tls-min = \"{version}\"\nciphers = \"PSK-AES128-CBC-SHA\""),
            ),
            _ => format!(
                "[tls]\naccept = 127.0.0.1:{}\nconnect = {}\nPSKsecrets = psk.txt\n\
                 sslVersionMin = TLSv{version}\nciphers = PSK\n",
                free_port(),
                backend.address()
            ),
        };
        let gate = match dialect {
            "native" => PskgateBuilder::new().toml(&text),
            _ => PskgateBuilder::new().conf("x.conf", &text, None),
        }
        .start();
        gate.wait_logged("TLS 1.0 and 1.1 are obsolete");
        let client = |flag: &str| {
            let arguments = [flag, "-cipher", "PSK:@SECLEVEL=0"].map(str::to_owned);
            OpensslClient::start(gate.address("tls"), openssl::psk().into_iter().chain(arguments))
        };
        client(if version == "1.0" { "-tls1" } else { "-tls1_1" }).echo("an old one");
        client("-tls1_2").echo("and a newer one");
        if version == "1.1" {
            assert!(client("-tls1").alert().is_some(), "an older one still");
        }
        assert_eq!(backend.accepted(), 2);
    }
}
