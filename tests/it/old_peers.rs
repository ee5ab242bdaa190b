//! TLS 1.2 peers that have other suites than a native file's default (RFC 10015), and the line that accepts them.

use crate::harness::{
    Backend, OpensslClient, Pskgate, PskgateBuilder, Tls, free_port, hello, openssl, server_toml,
};

/// The suites of `rfc4279` that the default excludes, one of each kind.
const OLD_SUITES: [&str; 6] = [
    "DHE-PSK-AES256-GCM-SHA384",
    "DHE-PSK-AES128-CBC-SHA256",
    "DHE-PSK-AES256-CBC-SHA",
    "PSK-AES128-GCM-SHA256",
    "PSK-AES256-CBC-SHA384",
    "PSK-AES128-CBC-SHA",
];

fn client(gate: &Pskgate, suites: &str) -> OpensslClient {
    let list = [Tls::V12.flag(), "-cipher", suites].map(str::to_owned);
    OpensslClient::start(gate.address("tls"), openssl::psk().into_iter().chain(list))
}

#[test]
fn a_refused_old_peer_is_logged_with_its_suite_and_the_line_that_accepts_it() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    for suite in OLD_SUITES {
        assert!(client(&gate, suite).alert().is_some());
        gate.wait_logged(&format!(
            "no cipher suite in common: the client offers {suite}; this service accepts \
             ECDHE-PSK-CHACHA20-POLY1305; `ciphers = \"rfc4279\"` in this service accepts {suite}"
        ));
    }
    assert_eq!(backend.accepted(), 0);

    let line = gate.log().lines().last().expect("a line").to_owned();
    let (_, after) = line.split_once('`').expect("a line in backquotes");
    let (advice, _) = after.split_once('`').expect("its end");
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), advice)).start();
    for suite in OLD_SUITES {
        client(&gate, suite).echo("let in by the line of the log");
        gate.wait_logged(&format!("TLSv1.2 {suite}"));
    }
    for suite in ["PSK-NULL-SHA256:@SECLEVEL=0", "PSK-AES128-CCM"] {
        assert!(client(&gate, suite).alert().is_some(), "{suite}");
    }
    assert_eq!(backend.accepted(), OLD_SUITES.len());
}

#[test]
fn a_stunnel_conf_names_its_own_line() {
    let backend = Backend::echo();
    let conf = format!(
        "[tls]\naccept = 127.0.0.1:{}\nconnect = {}\nPSKsecrets = psk.txt\n",
        free_port(),
        backend.address()
    );
    let gate = PskgateBuilder::new().conf("stunnel.conf", &conf, None).start();
    assert!(client(&gate, "DHE-PSK-AES256-GCM-SHA384").alert().is_some());
    gate.wait_logged("`ciphers = PSK` in this service accepts DHE-PSK-AES256-GCM-SHA384");
    drop(gate);
    let conf = conf.replace("PSKsecrets", "ciphers = PSK\nPSKsecrets");
    let gate = PskgateBuilder::new().conf("stunnel.conf", &conf, None).start();
    client(&gate, "DHE-PSK-AES256-GCM-SHA384").echo("let in");
}

/// The IDE's list is `PSK`, in which a suite with DHE costs eight times as much as the default.
#[test]
fn a_client_with_the_list_psk_gets_the_servers_first_suite_unless_its_order_is_asked_for() {
    let backend = Backend::echo();
    // DHE first, as in a client's own order.
    let theirs = "DHE-PSK-AES256-GCM-SHA384:PSK";
    for (extra, wanted) in [
        ("", "ECDHE-PSK-CHACHA20-POLY1305"),
        ("ciphers = \"rfc4279\"", "ECDHE-PSK-CHACHA20-POLY1305"),
        ("ciphers = \"rfc4279\"\ncipher-order = \"client\"", "DHE-PSK-AES256-GCM-SHA384"),
    ] {
        let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), extra)).start();
        client(&gate, theirs).echo("a line");
        gate.expect_session("TLSv1.2", wanted);
    }
    let theirs = "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384";
    let ours = "DHE-PSK-AES256-GCM-SHA384:ECDHE-PSK-CHACHA20-POLY1305";
    for (extra, wanted) in [
        ("", "ECDHE-PSK-CHACHA20-POLY1305"),
        ("options = CIPHER_SERVER_PREFERENCE\n", "DHE-PSK-AES256-GCM-SHA384"),
    ] {
        let conf = format!(
            "debug = info\n[tls]\naccept = 127.0.0.1:{}\nconnect = {}\nciphers = {ours}\n{extra}\
             PSKsecrets = psk.txt\n",
            free_port(),
            backend.address()
        );
        let gate = PskgateBuilder::new().conf("stunnel.conf", &conf, None).start();
        client(&gate, theirs).echo("a line");
        gate.expect_session("TLSv1.2", wanted);
    }
}

/// wolfSSL 5.5 names P-256 before X25519, and fails with X25519 in ECDHE-PSK.
#[test]
fn in_tls_1_2_the_clients_order_of_groups_counts() {
    const P256: u16 = 0x0017;
    const X25519: u16 = 0x001d;
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    for order in [[P256, X25519], [X25519, P256]] {
        assert_eq!(hello::chosen_group(gate.address("tls"), &order), order[0]);
    }
}
