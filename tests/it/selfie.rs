//! RFC 9257, 4.1 ("Selfie"): with one key for both directions, a peer can be made to talk to itself.

use crate::harness::process::pskgate;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, PlainClient, PskgateBuilder, client_toml,
    free_port, secret, server_toml,
};

/// A client and a server service of one file; the client's server is the file's own.
fn both(backend: &Backend, extra: &str) -> String {
    let port = free_port();
    let server = server_toml(backend.address(), extra);
    let server = server.replace("\"127.0.0.1:0\"", &format!("\"127.0.0.1:{port}\""));
    server + &client_toml(format!("127.0.0.1:{port}"), "")
}

#[test]
fn one_key_for_both_directions_is_refused_natively_unless_it_is_allowed_by_name() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&both(&backend, ""));
    for command in ["check", "run"] {
        let done = pskgate(gate.folder(), &[command, "pskgate.toml"]);
        assert!(done.code.is_some_and(|code| code != 0), "{command}: {}", done.out);
        let said = format!("{}{}", done.out, done.err);
        assert!(said.contains("shared-with-client") || said.contains("in common"), "{said}");
        for wanted in [IDENTITY, "plain", "tls", "allow-shared-keys = true"] {
            assert!(said.contains(wanted), "`{wanted}` is not in: {said}");
        }
        assert!(!said.contains(KEY), "the key is shown: {said}");
    }
    // Whoever says so gets what he says: a tunnel to himself.
    let gate = PskgateBuilder::new().toml(&both(&backend, "allow-shared-keys = true")).start();
    PlainClient::connect(gate.address("plain")).echo(b"to myself");
}

#[test]
fn a_key_for_each_direction_is_fine_and_the_two_do_not_meet() {
    let backend = Backend::echo();
    let text = both(&backend, "").replacen("\"psk.txt\"", "\"accepted.txt\"", 1);
    let gate = PskgateBuilder::new()
        .file("accepted.txt", &secret(IDENTITY, OTHER_KEY))
        .toml(&text)
        .start();
    assert_eq!(PlainClient::connect(gate.address("plain")).end(), ConnectionEnd::Rst);
    gate.wait_logged("wrong key for identity");
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn a_stunnel_conf_with_one_key_for_both_directions_is_warned_about_and_runs() {
    let backend = Backend::echo();
    let (plain, tls) = (free_port(), free_port());
    let text = format!(
        "PSKsecrets = psk.txt\n[tls]\naccept = 127.0.0.1:{tls}\nconnect = {}\n\
         [plain]\nclient = yes\naccept = 127.0.0.1:{plain}\nconnect = 127.0.0.1:{tls}\n",
        backend.address()
    );
    let gate = PskgateBuilder::new().conf("x.conf", &text, None);
    let done = pskgate(gate.folder(), &["check", "x.conf"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    let said = format!("{}{}", done.out, done.err);
    assert!(said.contains("warning") && said.contains("in common"), "{said}");
    let gate = gate.start();
    PlainClient::connect(gate.address("plain")).echo(b"to myself");
}

#[test]
fn one_key_under_two_identities_is_warned_about() {
    let keys = secret(IDENTITY, KEY) + &secret("client2", KEY);
    let gate = PskgateBuilder::new().file("psk.txt", &keys).toml(&server_toml("127.0.0.1:9", ""));
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    let said = format!("{}{}", done.out, done.err);
    assert!(said.contains("\"client1\" and \"client2\" have the same key"), "{said}");
}
