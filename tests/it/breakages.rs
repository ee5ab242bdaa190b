//! Twenty everyday breakages: each message says what is wrong, where, and what to do.

use std::net::TcpListener;

use crate::harness::process::pskgate;
use crate::harness::{
    Backend, IDENTITY, KEY, OTHER_KEY, OpensslClient, PlainClient, Pskgate, PskgateBuilder,
    client_toml, free_port, local, openssl, secret, server_toml,
};

#[track_caller]
fn says(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

/// What `check` says of a native file beside key files.
fn check(toml: &str, files: &[(&str, &[u8])]) -> String {
    let gate = PskgateBuilder::new().toml(toml);
    for (name, text) in files {
        // The file is there, with its mode.
        std::fs::write(gate.folder().join(name), text).unwrap();
    }
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    done.out + &done.err
}

fn server(backend: impl std::fmt::Display, extra: &str) -> Pskgate {
    PskgateBuilder::new().toml(&server_toml(backend, extra)).start()
}

/// A client end with this key file and these lines, through which a program has just tried to connect.
fn tried(to: impl std::fmt::Display, keys: &str, extra: &str) -> Pskgate {
    let gate = PskgateBuilder::new().file("psk.txt", keys).toml(&client_toml(to, extra)).start();
    let _ = PlainClient::connect(gate.address("plain")).rest();
    gate
}

fn good() -> String {
    secret(IDENTITY, KEY)
}

/// The last line of a log that has this fragment, and that ends with this code.
#[track_caller]
fn logged(gate: &Pskgate, fragment: &str, code: &str) -> String {
    let line = gate.wait_logged(fragment);
    assert!(line.trim_end().ends_with(&format!(" [{code}]")), "{line}");
    let explained = pskgate(gate.folder(), &["explain", code]);
    assert_eq!(explained.code, Some(0), "{}", explained.err);
    line
}

#[test]
fn a_wrong_key_and_a_misspelt_identity() {
    let backend = Backend::echo();
    let server = server(backend.address(), "");
    let to = server.address("tls");
    let client = tried(to, &secret(IDENTITY, OTHER_KEY), "");
    let line = logged(&server, "wrong key for identity", "wrong-key");
    says(&line, &["127.0.0.1:", IDENTITY, "compare its line in the key files of both ends"]);
    let line = logged(&client, "handshake failed", "refused");
    says(
        &line,
        &[&to.to_string(), IDENTITY, "does not know it, or has another key", "its log says"],
    );

    let toml = client_toml(to, "").replace(IDENTITY, "clent1");
    let client = PskgateBuilder::new().file("psk.txt", &secret("clent1", KEY)).toml(&toml).start();
    let _ = PlainClient::connect(client.address("plain")).rest();
    let line = logged(&server, "unknown identity", "unknown-identity");
    says(&line, &["127.0.0.1:", "clent1", "no key file of this service has it"]);
    // In the client's own file it is found before anything runs.
    says(
        &check(&toml, &[]),
        &["no-such-identity", "pskgate.toml:5", "clent1", "write the identity as it stands"],
    );
}

#[test]
fn key_files_that_are_short_doubled_or_from_another_system() {
    let toml = server_toml("127.0.0.1:9", "");
    let crlf = good().replace('\n', "\r\n");
    let said = check(&toml, &[("psk.txt", crlf.as_bytes())]);
    assert!(said.contains("nothing wrong") && !said.contains("blanks"), "{said}");
    let wide: Vec<u8> =
        std::iter::once(0xfeff).chain(good().encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let said = check(&toml, &[("psk.txt", &wide)]);
    says(&said, &["utf-16", "psk.txt", "save it as UTF-8", "pskgate keys import"]);
    says(
        &check(&toml, &[("psk.txt", b"client1:short\n")]),
        &["short-key", "psk.txt:1", "a key of 5 bytes", "16 to 512 bytes", "pskgate keygen"],
    );
    let twice = good() + &secret(IDENTITY, OTHER_KEY);
    says(
        &check(&toml, &[("psk.txt", twice.as_bytes())]),
        &["duplicate-identity", "psk.txt:2", "line 1", "remove one of the two lines"],
    );
}

#[test]
fn files_that_are_missing_or_misspelt_and_a_typo() {
    let toml = server_toml("127.0.0.1:9", "");
    let done = pskgate(PskgateBuilder::new().folder(), &["run", "nofile.toml"]);
    says(&done.err, &["cannot read nofile.toml", "name a configuration file that exists"]);
    let said = check(&toml.replace("psk.txt", "none.txt"), &[]);
    says(
        &said,
        &["no-such-file", "pskgate.toml:5", "none.txt", "pskgate keygen", "correct the path"],
    );
    let said = check(&toml.replace("psk.txt", "pks.txt"), &[]);
    says(&said, &["no-such-file", "pks.txt", "did you mean `", "/psk.txt`?"]);
    assert!(!said.contains("keygen"), "{said}");
    let said = check(&toml.replace("accept", "acept"), &[]);
    says(&said, &["unknown-option", "pskgate.toml:3", "acept", "did you mean `accept`?"]);
    // The line with the section's name is lost.
    let said = check(&toml.replace("[services.tls]\n", ""), &[]);
    says(&said, &["unknown-option", "write the line [services.NAME] above it"]);
}

#[test]
fn a_port_that_is_wrong_in_use_or_not_allowed() {
    let nobody = local(free_port());
    let client = tried(nobody, &good(), "");
    let line = logged(&client, "no target answers", "target-unreachable");
    says(&line, &[&nobody.to_string(), "refused", "start the program there, or correct `connect`"]);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let toml = server_toml("127.0.0.1:9", "").replace("127.0.0.1:0", &at);
    let done = pskgate(PskgateBuilder::new().toml(&toml).folder(), &["run", "pskgate.toml"]);
    says(
        &done.err,
        &["cannot-listen", "pskgate.toml:3", &at, "in use by", "another program has it"],
    );
}

#[test]
fn the_plc_or_the_server_end_does_not_run() {
    let nobody = local(free_port());
    let server = server(nobody, "");
    let client = tried(server.address("tls"), &good(), "");
    let line = logged(&server, "no target answers", "target-unreachable");
    says(&line, &[&nobody.to_string(), "start the program there"]);
    let line = client.wait_logged("session closed");
    says(
        &line,
        &["the server end ended it at once", "its backend does not answer", "log", "[not-served]"],
    );
}

#[test]
fn both_ends_are_clients_or_both_are_servers_or_there_is_no_client_end() {
    let backend = Backend::echo();
    let other = PskgateBuilder::new().toml(&client_toml(backend.address(), "")).start();
    let client = tried(other.address("plain"), &good(), "");
    let line = logged(&other, "handshake failed", "plain-text");
    says(&line, &["another client end or an echo service", "mode = \"server\""]);
    // Whether it hears of a close or of a reset is up to the two programs' timing.
    client.wait_logged("handshake failed");

    let server = server(backend.address(), "");
    let plain = PlainClient::connect(server.address("tls"));
    plain.send(b"GET / HTTP/1.0\r\n\r\n");
    let _ = plain.rest();
    let line = logged(&server, "plain text on a TLS port", "plain-text");
    says(&line, &["connect to the client end", "mode = \"client\""]);

    let toml = server_toml("127.0.0.1:9", "psk-identity = \"client1\"");
    let said = check(&toml, &[]);
    says(&said, &["identity-on-server", "pskgate.toml:6", "mode = \"client\""]);
}

#[test]
fn peers_that_are_too_old_or_too_new() {
    let backend = Backend::echo();
    let server = server(backend.address(), "tls-min = \"1.3\"");
    let to = server.address("tls");
    let client = tried(to, &good(), "tls-max = \"1.2\"");
    let line = logged(&server, "no TLS version in common", "no-common-version");
    says(&line, &["the client offers TLS 1.2, this service accepts TLS 1.3", "tls-min"]);
    let line = logged(&client, "no TLS version in common", "no-common-version");
    says(&line, &[&to.to_string(), "this end offers TLS 1.2", "the server accepts none of it"]);

    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let old = openssl::psk()
        .into_iter()
        .chain(["-tls1_2", "-cipher", "PSK-AES128-CBC-SHA256"].map(str::to_owned));
    assert!(OpensslClient::start(server.address("tls"), old).alert().is_some());
    let line = logged(&server, "no cipher suite in common", "no-common-suite");
    says(
        &line,
        &[
            "the client offers PSK-AES128-CBC-SHA256",
            "this service accepts ECDHE-PSK-CHACHA20-POLY1305",
            "`ciphers = \"rfc4279\"`",
        ],
    );
}

#[test]
fn a_relative_path_of_a_stunnel_conf_that_is_started_elsewhere() {
    let text = format!(
        "pid = p.pid\n[a]\naccept = 127.0.0.1:{}\nconnect = 127.0.0.1:9\nPSKsecrets = psk.txt\n",
        free_port()
    );
    let gate = PskgateBuilder::new().conf("stunnel.conf", &text, None);
    let elsewhere = PskgateBuilder::new();
    std::fs::remove_file(elsewhere.folder().join("psk.txt")).unwrap();
    let path = gate.folder().join("stunnel.conf");
    let done = pskgate(elsewhere.folder(), &[path.as_os_str()]);
    assert_eq!(done.code, Some(1), "{}", done.err);
    let sought = elsewhere.folder().join("psk.txt");
    says(
        &done.err,
        &[
            "stunnel.conf:5:",
            "PSKsecrets = psk.txt",
            &sought.file_name().unwrap().to_string_lossy(),
            "No such file",
            "[.] help: ",
            "for a stunnel.conf where the program is started",
        ],
    );
}

#[test]
fn a_name_that_nobody_knows() {
    let toml = client_toml("no-such-name.invalid:3001", "");
    let gate = PskgateBuilder::new().toml(&toml);
    let done = pskgate(gate.folder(), &["doctor", "pskgate.toml"]);
    says(&done.out, &["warn  name: no-such-name.invalid has no address", "correct the name"]);
    let client = tried("no-such-name.invalid:3001", &good(), "");
    let line = logged(&client, "no target answers", "target-unreachable");
    says(&line, &["no-such-name.invalid:3001", "correct `connect`"]);
}

#[test]
fn a_key_whose_time_is_over_by_the_clock_of_this_machine() {
    let backend = Backend::echo();
    let rule = format!("[services.tls.identities.{IDENTITY}]\nexpires = \"2001-01-01\"");
    let server = server(backend.address(), &rule);
    let _client = tried(server.address("tls"), &good(), "");
    let line = logged(&server, "has expired", "expired");
    says(&line, &[IDENTITY, "rotate it, or change `expires`"]);
}
