//! OpenSSL's own client and server at the other end: one suite of each kind.

use crate::harness::{
    Backend, OpensslClient, OpensslServer, PlainClient, PskgateBuilder, Tls, client_toml, openssl,
    server_toml,
};

/// One suite of each key exchange in 1.2, and both of the PSK's hash in 1.3.
const SUITES: [(Tls, &str); 6] = [
    (Tls::V12, "PSK-AES128-GCM-SHA256"),
    (Tls::V12, "DHE-PSK-AES256-GCM-SHA384"),
    (Tls::V12, "ECDHE-PSK-CHACHA20-POLY1305"),
    (Tls::V12, "ECDHE-PSK-AES128-CBC-SHA256"),
    (Tls::V13, "TLS_AES_128_GCM_SHA256"),
    (Tls::V13, "TLS_CHACHA20_POLY1305_SHA256"),
];

/// The suites of 1.2 that a native file allows without being told to.
const NATIVE_12: [&str; 1] = ["ECDHE-PSK-CHACHA20-POLY1305"];

/// The arguments of a tool that has the key and allows this suite alone.
fn tool(tls: Tls, suite: &str) -> Vec<String> {
    let list = if tls == Tls::V12 { "-cipher" } else { "-ciphersuites" };
    openssl::psk().into_iter().chain([tls.flag(), list, suite].map(str::to_owned)).collect()
}

/// The line that allows a suite of 1.2; those of 1.3 are allowed as it is.
fn allow(tls: Tls, suite: &str) -> String {
    if tls == Tls::V12 { format!("ciphers = \"{suite}\"") } else { String::new() }
}

#[test]
fn s_client_is_served_with_a_suite_of_each_kind() {
    for (tls, suite) in SUITES {
        let backend = Backend::echo();
        let gate =
            PskgateBuilder::new().toml(&server_toml(backend.address(), &allow(tls, suite))).start();
        let mut client = OpensslClient::start(gate.address("tls"), tool(tls, suite));
        client.echo("a line for the echo");
        gate.expect_session(tls.name(), suite);
    }
}

#[test]
fn s_server_is_reached_with_a_suite_of_each_kind() {
    for (tls, suite) in SUITES {
        let gate = PskgateBuilder::new();
        let server = OpensslServer::start(
            gate.folder(),
            tool(tls, suite).into_iter().chain(["-nocert".to_owned()]),
        );
        let gate = gate.toml(&client_toml(server.address(), &allow(tls, suite))).start();
        let plain = PlainClient::connect(gate.address("plain"));
        plain.send(b"there and back\n");
        let mut back = [0; 15];
        std::io::Read::read_exact(&mut &plain.0, &mut back).expect("s_server answers");
        assert_eq!(&back, b"kcab dna ereht\n");
        gate.expect_session(tls.name(), suite);
    }
}

#[test]
fn a_native_server_takes_its_four_suites_of_1_2_and_no_other() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    for suite in NATIVE_12 {
        OpensslClient::start(gate.address("tls"), tool(Tls::V12, suite))
            .echo(&format!("hello over {suite}"));
    }
    let reached = backend.accepted();
    assert_eq!(reached, NATIVE_12.len());
    for suite in [
        "PSK-AES128-GCM-SHA256",
        "PSK-AES256-CBC-SHA384",
        "DHE-PSK-AES256-GCM-SHA384",
        "DHE-PSK-CHACHA20-POLY1305",
        "DHE-PSK-AES256-CBC-SHA384",
        "ECDHE-PSK-AES128-CBC-SHA256",
        "DHE-PSK-AES128-CCM8",
        "PSK-CHACHA20-POLY1305",
    ] {
        let mut client = OpensslClient::start(gate.address("tls"), tool(Tls::V12, suite));
        assert!(client.alert().is_some(), "{suite}: {}", client.text());
    }
    gate.wait_logged("no cipher suite in common");
    assert_eq!(backend.accepted(), reached, "nobody else reached the backend");
}

#[test]
fn a_native_client_offers_its_own_suites_and_no_other() {
    // s_server names what it is offered before it chooses.
    let gate = PskgateBuilder::new();
    let server = OpensslServer::start(
        gate.folder(),
        openssl::psk().into_iter().chain(["-nocert".to_owned()]),
    );
    let gate = gate.toml(&client_toml(server.address(), "tls-max = \"1.2\"")).start();
    PlainClient::connect(gate.address("plain")).send(b"hello\n");
    let line = server.wait_for("Client cipher list: ", crate::harness::WAIT_TIMEOUT);
    let offered: Vec<&str> = line
        .trim_start_matches("Client cipher list: ")
        .split(':')
        .map(str::trim)
        .filter(|suite| !suite.contains("SCSV"))
        .collect();
    assert_eq!(offered, NATIVE_12);
}
