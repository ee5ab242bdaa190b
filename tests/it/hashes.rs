//! `tls13-psk-hash`: a key of TLS 1.3 belongs to one hash, SHA-256 unless both ends say otherwise.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OpensslClient, OpensslServer, PlainClient,
    PskgateBuilder, Tls, WAIT_TIMEOUT, client_toml, local, offers, openssl, server_toml,
};

const SHA384: &str = "tls-min = \"1.3\"\ntls13-psk-hash = \"sha384\"";
const SUITE_384: &str = "TLS_AES_256_GCM_SHA384";

/// The mean of a test: one end's hash, the other's, and whether they meet.
const PAIRS: [(&str, &str, bool); 4] = [
    (SHA384, "sha384", true),
    ("tls-min = \"1.3\"", "sha256", true),
    (SHA384, "sha256", false),
    ("tls-min = \"1.3\"", "sha384", false),
];

/// DER: a tag, a length and a body of less than 64 KiB.
fn der(tag: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len()).expect("short").to_be_bytes();
    let mut made = vec![tag];
    match (high, low) {
        (0, 0..0x80) => made.push(low),
        (0, _) => made.extend([0x81, low]),
        _ => made.extend([0x82, high, low]),
    }
    made.extend_from_slice(body);
    made
}

/// The file that `-psk_session` takes: a session of OpenSSL's whose secret is the key, and whose suite
/// tells the hash. The command's `-psk` knows SHA-256 alone.
pub fn session_file(folder: &Path, suite: [u8; 2], early_data: bool) {
    const INTEGER: u8 = 2;
    const OCTETS: u8 = 4;
    let mut fields = [
        der(INTEGER, &[1]),
        der(INTEGER, &[3, 4]),
        der(OCTETS, &suite),
        der(OCTETS, b""),
        der(OCTETS, KEY.as_bytes()),
        // When it was made and for how many seconds it is good: until long after this test.
        der(0xa1, &der(INTEGER, &[0x65, 0, 0, 0])),
        der(0xa2, &der(INTEGER, &[0x7f, 0xff, 0xff, 0xff])),
    ]
    .concat();
    if early_data {
        fields.extend(der(0xaf, &der(INTEGER, &[0x40, 0])));
    }
    let text = data_encoding::BASE64.encode(&der(0x30, &fields));
    let pem = format!(
        "-----BEGIN SSL SESSION PARAMETERS-----\n{text}\n-----END SSL SESSION PARAMETERS-----\n"
    );
    // OpenSSL reads lines of 64.
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|l| str::from_utf8(l).unwrap()).collect();
    std::fs::write(folder.join("session.pem"), pem.replace(&text, &lines.join("\n"))).unwrap();
}

fn openssl_arguments(hash: &str, folder: &Path) -> Vec<String> {
    let (code, suite) = match hash {
        "sha384" => ([0x13, 2], SUITE_384),
        _ => ([0x13, 1], "TLS_AES_128_GCM_SHA256"),
    };
    session_file(folder, code, false);
    [
        "-psk_session",
        "session.pem",
        "-psk_identity",
        IDENTITY,
        Tls::V13.flag(),
        "-ciphersuites",
        suite,
    ]
    .map(str::to_owned)
    .into()
}

fn expect_suite(line: &str, hash: &str) {
    let suite = if hash == "sha384" { SUITE_384 } else { "SHA256" };
    assert!(line.contains(suite), "{line}");
}

#[test]
fn a_server_end_serves_openssl_and_tlslite_under_its_hash_and_no_other() {
    for (lines, hash, meets) in PAIRS {
        let backend = Backend::echo();
        let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), lines)).start();
        let to = gate.address("tls");
        let mut client =
            OpensslClient::start_in(gate.folder(), to, openssl_arguments(hash, gate.folder()));
        if meets {
            client.echo("a line for the echo");
            expect_suite(&gate.wait_logged("session opened"), hash);
        } else {
            assert!(client.alert().is_some(), "{}", client.text());
            let ours = if hash == "sha384" { "SHA-256" } else { "SHA-384" };
            let line = gate.wait_logged("handshake refused");
            // OpenSSL's client leaves out the key, and offers suites of its hash alone.
            assert!(line.contains("in common") || line.contains(ours), "{line}");
        }
        let served = backend.accepted();
        let said = call_tlslite(to, hash);
        assert_eq!(said.contains("\"alert\": null"), meets, "{lines} {hash}: {said}");
        assert_eq!(backend.accepted() - served, usize::from(meets));
        if !meets {
            gate.wait_logged("no key of the client is for the hash of this end in TLS 1.3");
        }
    }
}

fn call_tlslite(to: SocketAddr, hash: &str) -> String {
    let mut peer = offers(&["call", &to.port().to_string()]);
    let key = serde_json::json!([openssl::hex(IDENTITY), openssl::hex(KEY), hash]);
    peer.type_in(&format!("{}\n", serde_json::json!({ "keys": [key], "modes": ["psk_dhe_ke"] })));
    peer.end_input();
    assert!(peer.wait(WAIT_TIMEOUT).success(), "{}", peer.text());
    peer.out()
}

/// A client end before that server, and whether it gets through.
fn reaches(server: SocketAddr, lines: &str, hash: &str, meets: bool, answer: &[u8]) {
    let gate = PskgateBuilder::new().toml(&client_toml(server, lines)).start();
    let plain = PlainClient::connect(gate.address("plain"));
    if meets {
        plain.send(b"there and back\n");
        let mut back = [0; 15];
        (&plain.0).read_exact(&mut back).expect("it answers");
        assert_eq!(back, answer);
        expect_suite(&gate.wait_logged("session opened"), hash);
    } else {
        assert_eq!(plain.end(), ConnectionEnd::Rst);
        let line = gate.wait_logged("handshake failed");
        assert!(line.contains(&format!("refused identity \"{IDENTITY}\"")), "{line}");
        assert!(line.contains("no suite or hash in common"), "{line}");
        assert!(!gate.log().contains("session opened"));
    }
}

#[test]
fn a_client_end_reaches_openssl_and_tlslite_under_its_hash_and_no_other() {
    for (lines, hash, meets) in PAIRS {
        let folder = tempfile::TempDir::new().unwrap();
        let arguments = openssl_arguments(hash, folder.path());
        let nocert = arguments.into_iter().chain(["-nocert".to_owned()]);
        let server = OpensslServer::start(folder.path(), nocert);
        reaches(server.address(), lines, hash, meets, b"kcab dna ereht\n");

        let peer = offers(&["serve", &openssl::hex(IDENTITY), &openssl::hex(KEY), hash]);
        let ready = peer.wait_for("READY ", WAIT_TIMEOUT);
        let port = ready.trim_start_matches("READY ").trim().parse().expect("a port");
        reaches(local(port), lines, hash, meets, b"there and back\n");
    }
}

#[test]
fn two_ends_meet_under_one_hash_and_say_why_under_two() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), SHA384)).start();
    reaches(server.address("tls"), SHA384, "sha384", true, b"there and back\n");
    reaches(server.address("tls"), "tls-min = \"1.3\"", "sha256", false, b"");
    server.wait_logged("the hash of this end in TLS 1.3, SHA-384: set tls13-psk-hash alike");
    assert_eq!(backend.accepted(), 1);
}
