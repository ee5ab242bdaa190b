//! `doctor`: what it finds on this machine, and what it says of peers of every kind.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::process::{Finished, pskgate};
use crate::harness::{
    Backend, ConnectionEnd, KEY, OTHER_KEY, OpensslServer, PskgateBuilder, Stunnel, Tls,
    WAIT_TIMEOUT, client_toml, free_port, local, openssl, secret, server_toml, stage, until,
    write_private,
};

/// sysexits.h
const CONFIG: i32 = 78;
const UNAVAILABLE: i32 = 69;

fn doctor(gate: &PskgateBuilder, arguments: &[&str]) -> Finished {
    let all: Vec<&str> = ["doctor"].iter().chain(arguments).copied().collect();
    let done = pskgate(gate.folder(), &all);
    assert!(!format!("{}{}", done.out, done.err).contains(KEY), "a key was printed");
    done
}

/// A server service on this port.
fn on_port(port: u16, extra: &str) -> String {
    server_toml("127.0.0.1:9", extra).replace("127.0.0.1:0", &format!("127.0.0.1:{port}"))
}

/// The lines about something.
fn lines<'a>(done: &'a Finished, about: &str) -> Vec<&'a str> {
    let is_about = |line: &&str| line.get(6..).is_some_and(|rest| rest.starts_with(about));
    done.out.lines().filter(is_about).collect()
}

#[track_caller]
fn has(done: &Finished, word: &str, about: &str, wanted: &[&str]) {
    let fits = |line: &&str| line.starts_with(word) && wanted.iter().all(|w| line.contains(w));
    assert!(
        lines(done, &format!("{about}:")).iter().any(fits),
        "no line `{word} {about}` with {wanted:?} in\n{}{}",
        done.out,
        done.err
    );
}

#[test]
fn a_sound_configuration_is_well_in_all_points_and_no_port_is_opened_for_it() {
    let backend = Backend::echo();
    let text = on_port(free_port(), "").replace("127.0.0.1:9", &backend.address().to_string());
    let gate = PskgateBuilder::new().toml(&text);
    let done = doctor(&gate, &["pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    assert!(!done.out.contains("\nbad"), "{}", done.out);
    has(&done, "ok", "configuration", &["identities 1"]);
    has(&done, "ok", "key file", &["psk.txt", "0600"]);
    has(&done, "ok", "port", &["is free"]);
    has(&done, "note", "backend", &["not asked", "eRPC", "--backend"]);
    has(&done, "ok", "handshake", &["TLSv1.3", "X25519"]);
    has(&done, "ok", "clock", &[]);
    for about in ["open files", "inotify", "OpenSSL"] {
        assert_eq!(lines(&done, about).len(), 1, "{}", done.out);
    }
    assert_eq!(backend.accepted(), 0, "a bare connection breaks some backends");

    let done = doctor(&gate, &["pskgate.toml", "--backend"]);
    has(&done, "ok", "backend", &["answers"]);
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn every_finding_of_check_is_told_with_its_code_and_what_can_be_looked_at_still_is() {
    let port = free_port();
    let gate = PskgateBuilder::new().toml(&on_port(port, "idle-timeout = 5"));
    let done = doctor(&gate, &["pskgate.toml"]);
    assert_eq!(done.code, Some(CONFIG), "{}", done.out);
    has(&done, "bad", "configuration", &["pskgate.toml:6", "no unit", "[unit-missing]"]);

    let done = doctor(&gate, &["no-such-file.toml"]);
    assert_eq!(done.code, Some(CONFIG));
    has(&done, "bad", "configuration", &["no-such-file.toml", "[unreadable-file]"]);
}

#[test]
fn a_key_file_that_others_can_read_is_told_once() {
    let gate = PskgateBuilder::new().toml(&on_port(free_port(), ""));
    let loose = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(gate.folder().join("psk.txt"), loose).unwrap();
    let done = doctor(&gate, &["pskgate.toml"]);
    assert_eq!(done.code, Some(CONFIG), "{}", done.out);
    has(&done, "bad", "key file", &["0644", "chmod 600", "[loose-permissions]"]);
    assert_eq!(done.out.matches("loose-permissions").count(), 1, "{}", done.out);
    has(&done, "note", "handshake", &["its keys cannot be used"]);
}

#[test]
fn a_key_file_that_cannot_be_read_after_the_drop_is_told_before_it() {
    stage::need_root();
    let text = format!("user = \"nobody\"\n{}", on_port(free_port(), ""));
    let gate = PskgateBuilder::new().toml(&text);
    let (folder, keys) = (gate.folder(), gate.folder().join("psk.txt"));
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(folder, 0o755);
    let done = doctor(&gate, &["pskgate.toml"]);
    has(&done, "warn", "key file", &["may not read", "psk.txt", "0600", "stays in force"]);

    let nobody = std::process::Command::new("id").args(["-g", "nobody"]).output().unwrap();
    let nobody: u32 = String::from_utf8_lossy(&nobody.stdout).trim().parse().unwrap();
    std::os::unix::fs::chown(&keys, None, Some(nobody)).unwrap();
    set(&keys, 0o640);
    let done = doctor(&gate, &["pskgate.toml"]);
    has(&done, "ok", "key file", &["can read it"]);

    set(folder, 0o700);
    let done = doctor(&gate, &["pskgate.toml"]);
    has(&done, "warn", "key file", &["may not enter", "0700"]);
}

#[test]
fn what_is_not_in_another_root_directory_is_missed_before_it_is_entered() {
    stage::need_root();
    let gate = PskgateBuilder::new();
    let jail = gate.folder().join("jail");
    std::fs::create_dir_all(jail.join("keys")).unwrap();
    write_private(&jail.join("keys/one.txt"), &secret("client2", OTHER_KEY));
    let exec = "connect = \"127.0.0.1:9\"";
    let text = on_port(free_port(), "")
        .replace("\"psk.txt\"", "[\"psk.txt\", \"jail/keys\"]")
        .replace(exec, "exec = \"/bin/sh\"");
    let gate = gate.toml(&format!("chroot = \"{}\"\n{text}", jail.display()));
    let done = doctor(&gate, &["pskgate.toml"]);
    assert_eq!(done.code, Some(CONFIG), "{}{}", done.out, done.err);
    has(&done, "warn", "key file", &["jail", "psk.txt", "put a copy into the new root"]);
    has(&done, "ok", "key file", &["jail/keys", "can read it inside"]);
    has(&done, "bad", "backend", &["jail/bin/sh", "no file that can be run"]);
}

#[test]
fn a_port_in_use_is_named_with_the_process_that_has_it() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let gate = PskgateBuilder::new().toml(&on_port(port, ""));
    let done = doctor(&gate, &["pskgate.toml"]);
    assert_eq!(done.code, Some(UNAVAILABLE), "{}", done.out);
    has(&done, "bad", "port", &[&format!("pid {}", std::process::id()), "[cannot-listen]"]);
}

#[test]
fn a_port_that_pskgate_has_is_no_fault_and_one_that_stunnel_has_is() {
    let port = free_port();
    let running = PskgateBuilder::new().toml(&on_port(port, "")).start();
    let done = doctor(&PskgateBuilder::new().toml(&on_port(port, "")), &["pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}", done.out);
    has(&done, "ok", "port", &[&format!("pskgate (pid {})", running.id()), "running already"]);

    let stunnel = Stunnel::server(local(9), "");
    let text = on_port(stunnel.address().port(), "");
    let done = doctor(&PskgateBuilder::new().toml(&text), &["pskgate.toml"]);
    assert_eq!(done.code, Some(UNAVAILABLE), "{}", done.out);
    has(&done, "bad", "port", &["stunnel", &format!("pid {}", stunnel.id()), "stop that stunnel"]);
}

#[test]
fn a_unix_socket_that_somebody_listens_on_is_in_use_and_hears_nothing_of_it() {
    let gate = PskgateBuilder::new();
    let path = gate.folder().join("door.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let text = client_toml("127.0.0.1:9", "").replace("127.0.0.1:0", &path.display().to_string());
    let gate = gate.toml(&text);
    let done = doctor(&gate, &["pskgate.toml"]);
    has(&done, "bad", "port", &["door.sock", &format!("pid {}", std::process::id())]);
    assert!(listener.accept().is_err(), "nobody connected");
    drop(listener);
    has(&doctor(&gate, &["pskgate.toml"]), "ok", "port", &["door.sock", "is free"]);
}

#[test]
fn a_service_that_could_not_meet_its_own_mirror_image_is_told() {
    let extra = "tls-max = \"1.2\"\nciphers = \"DHE-PSK-AES256-GCM-SHA384\"\nsecurity-level = 4";
    let gate = PskgateBuilder::new().toml(&on_port(free_port(), extra));
    let done = doctor(&gate, &["pskgate.toml"]);
    assert_eq!(done.code, Some(CONFIG), "{}", done.out);
    has(&done, "bad", "handshake", &["same settings", "[no-common-suite]"]);
}

#[test]
fn a_file_with_both_ends_is_rehearsed_end_by_end_with_its_own_versions() {
    let other = client_toml("127.0.0.1:9", Tls::V12.toml()).replace("psk.txt", "other.txt");
    let other = other.replace("client1", "client2");
    let gate = PskgateBuilder::new()
        .file("other.txt", &secret("client2", OTHER_KEY))
        .toml(&format!("{}{other}", on_port(free_port(), "")));
    let done = doctor(&gate, &["pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    has(&done, "ok", "handshake", &["(service tls)", "TLSv1.3"]);
    has(&done, "ok", "handshake", &["(service plain)", "TLSv1.2", "PSK"]);
}

#[test]
fn more_sessions_than_there_are_descriptors_for_are_told() {
    let gate = PskgateBuilder::new().toml(&on_port(free_port(), "max-sessions = 1000000"));
    let done = doctor(&gate, &["pskgate.toml"]);
    has(&done, "warn", "open files", &["1000000", "LimitNOFILE=2016488"]);
}

#[test]
fn the_lines_are_there_as_json_too() {
    let gate = PskgateBuilder::new().toml(&on_port(free_port(), "idle-timeout = 5"));
    let done = doctor(&gate, &["pskgate.toml", "--json"]);
    assert_eq!(done.code, Some(CONFIG));
    let lines: Vec<serde_json::Value> = serde_json::from_str(&done.out).expect("JSON");
    let bad: Vec<_> = lines.iter().filter(|line| line["verdict"] == "bad").collect();
    assert_eq!(bad.len(), 1, "{}", done.out);
    assert_eq!(bad[0]["about"], "configuration");
    assert_eq!(bad[0]["code"], "unit-missing");
    assert!(lines.iter().all(|line| line["text"].is_string()));
}

/// Asks about a peer, with the key of the tests.
fn ask(to: SocketAddr, extra: &[&str]) -> Finished {
    let to = to.to_string();
    let all = ["--connect", &to, "--secrets", "psk.txt"];
    doctor(
        &PskgateBuilder::new(),
        &all.into_iter().chain(extra.iter().copied()).collect::<Vec<_>>(),
    )
}

#[test]
fn a_peer_with_the_key_is_reached_and_its_backend_sees_one_connection_that_ends_in_order() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let done = ask(server.address("tls"), &[]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    has(&done, "ok", "TCP", &["answers", "ms"]);
    has(&done, "ok", "handshake", &["TLSv1.3", "client1", "X25519"]);
    has(&done, "ok", "latency", &["TCP", "handshake"]);
    has(&done, "note", "session", &["close_notify", "backend"]);
    let closed = server.wait_logged("session closed");
    assert!(closed.contains("complete"), "{closed}");
    assert_eq!(backend.wait_end(0), (Vec::new(), ConnectionEnd::Fin), "nothing was sent");
    one_session(&backend);
}

#[test]
fn a_clients_own_file_says_whom_to_ask() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let to = server.address("tls");
    let gate = PskgateBuilder::new().file("client1.toml", &crate::harness::client_toml(to, ""));
    let psk = gate.folder().join("psk");
    std::fs::create_dir(&psk).unwrap();
    write_private(&psk.join("client1.secret"), secret("client1", KEY).trim_end());
    let list = format!("[[\"client1\", \"ERPC://{to}#client1\", \"\", null]]");
    write_private(&psk.join("management.json"), &list);
    // As the IDE leaves it.
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(psk.join("client1.secret"), open).unwrap();
    for own in ["client1.toml", "psk/client1.secret"] {
        let done = doctor(&gate, &["--connect", own]);
        assert_eq!(done.code, Some(0), "{own}: {}{}", done.out, done.err);
        has(&done, "ok", "handshake", &["client1"]);
    }
    write_private(&psk.join("management.json"), "[]");
    let done = doctor(&gate, &["--connect", "psk/client1.secret"]);
    assert_eq!(done.code, Some(CONFIG), "{}", done.out);
    has(&done, "bad", "options", &["does not know the address", "--secrets psk/client1.secret"]);
    write_private(&gate.folder().join("server.toml"), &server_toml("127.0.0.1:1", ""));
    let done = doctor(&gate, &["--connect", "server.toml"]);
    assert_eq!(done.code, Some(CONFIG), "{}", done.out);
}

#[test]
fn a_peer_whose_backend_is_not_there_is_told_from_a_sound_one() {
    let nobody = local(free_port());
    let server = PskgateBuilder::new().toml(&server_toml(nobody, "")).start();
    let stunnel = Stunnel::server(nobody, "");
    for address in [server.address("tls"), stunnel.address()] {
        let done = ask(address, &[]);
        assert_eq!(done.code, Some(0), "the key is right: {}{}", done.out, done.err);
        has(&done, "ok", "handshake", &["client1"]);
        has(&done, "warn", "session", &["cut it at once", "backend"]);
    }
}

#[test]
fn a_stunnel_with_the_key_is_reached_in_both_versions_and_with_every_psk_suite() {
    let backend = Backend::echo();
    for (extra, version) in [("", "TLSv1.3"), ("ciphers = PSK\nsslVersion = TLSv1.2", "TLSv1.2")] {
        let stunnel = Stunnel::server(backend.address(), extra);
        let done = ask(stunnel.address(), &["--identity", "client1"]);
        assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
        has(&done, "ok", "handshake", &[version, "client1"]);
    }
}

#[test]
fn a_peer_of_plain_psk_suites_is_reached_with_the_options_that_are_named() {
    let backend = Backend::echo();
    let extra = "ciphers = PSK-AES256-GCM-SHA384\nsslVersion = TLSv1.2";
    let stunnel = Stunnel::server(backend.address(), extra);
    let done = ask(stunnel.address(), &[]);
    assert_eq!(done.code, Some(CONFIG), "{}{}", done.out, done.err);
    has(&done, "bad", "handshake", &["tls-max = \"1.2\"", "ciphers = \""]);
    has(&done, "ok", "handshake", &["TLSv1.2", "PSK-AES256-GCM-SHA384"]);
    one_session(&backend);
    let done = ask(stunnel.address(), &["--tls-max", "1.2", "--ciphers", "PSK"]);
    assert_eq!(done.code, Some(0), "{}", done.out);
}

#[test]
fn a_wrong_key_and_an_unknown_identity_are_told_and_open_no_backend() {
    let backend = Backend::echo();
    let wrong = secret("client1", OTHER_KEY);
    for extra in ["", "sslVersion = TLSv1.2"] {
        let stunnel = Stunnel::server(backend.address(), extra);
        let gate = PskgateBuilder::new();
        write_private(&gate.folder().join("psk.txt"), &wrong);
        let to = stunnel.address().to_string();
        let done = doctor(&gate, &["--connect", &to, "--secrets", "psk.txt"]);
        assert_eq!(done.code, Some(CONFIG), "{}{}", done.out, done.err);
        has(&done, "bad", "handshake", &["client1", "compare the key first"]);

        write_private(&gate.folder().join("psk.txt"), &secret("stranger", KEY));
        let done = doctor(&gate, &["--connect", &to, "--secrets", "psk.txt"]);
        assert_eq!(done.code, Some(CONFIG), "{}{}", done.out, done.err);
        has(&done, "bad", "handshake", &["stranger", "identity first"]);
    }
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn a_hash_that_differs_is_found_out() {
    let backend = Backend::echo();
    let extra = "tls-min = \"1.3\"\ntls13-psk-hash = \"sha384\"";
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), extra)).start();
    let done = ask(server.address("tls"), &[]);
    assert_eq!(done.code, Some(CONFIG), "{}{}", done.out, done.err);
    has(&done, "bad", "handshake", &["SHA-384", "tls13-psk-hash = \"sha384\""]);
    has(&done, "ok", "handshake", &["TLS_AES_256_GCM_SHA384"]);
    one_session(&backend);
}

#[test]
fn a_peer_with_a_group_of_its_own_or_another_version_is_found_out() {
    let backend = Backend::echo();
    for (extra, asked, wanted) in [
        ("tls-min = \"1.3\"\ngroups = \"P-384\"", &[][..], "groups = "),
        ("tls-min = \"1.3\"", &["--tls-max", "1.2"], "the defaults"),
    ] {
        let server = PskgateBuilder::new().toml(&server_toml(backend.address(), extra)).start();
        let done = ask(server.address("tls"), asked);
        assert_eq!(done.code, Some(CONFIG), "{}{}", done.out, done.err);
        has(&done, "bad", "handshake", &[wanted]);
        has(&done, "ok", "handshake", &["TLSv1.3"]);
    }
}

#[test]
fn a_server_with_a_certificate_and_no_key_is_not_taken_for_the_peer() {
    let gate = PskgateBuilder::new();
    openssl::certificate(gate.folder());
    let server = OpensslServer::start(gate.folder(), ["-cert", "cert.pem", "-key", "key.pem"]);
    let done = ask(server.address(), &[]);
    assert_eq!(done.code, Some(CONFIG), "{}{}", done.out, done.err);
    has(&done, "bad", "handshake", &["did not prove", "certificate", "[not-proven]"]);
}

/// Waits for the backend's one connection, and for no other.
fn one_session(backend: &Backend) {
    until("a connection to the backend", WAIT_TIMEOUT, || (backend.accepted() > 0).then_some(()));
    assert_eq!(backend.accepted(), 1, "at most one session");
}

/// A listener that says this to whoever connects, once it has read something if it is to listen first.
fn speaker(words: &'static [u8], listens_first: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut heard = [0; 1024];
            if listens_first {
                let _ = stream.read(&mut heard);
            }
            let _ = stream.write_all(words);
            // Until the other side has read it and leaves.
            while matches!(stream.read(&mut heard), Ok(1..)) {}
        }
    });
    address
}

#[test]
fn what_is_not_tls_is_called_by_its_name() {
    for (words, listens_first, wanted) in [
        (
            &b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..],
            false,
            "an SSH server (\"SSH-2.0-OpenSSH_9.2p1",
        ),
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", true, "an HTTP server"),
        (b"\x1b[2J\x07 hello\n", false, "something that says"),
    ] {
        let done = ask(speaker(words, listens_first), &[]);
        assert_eq!(done.code, Some(UNAVAILABLE), "{}{}", done.out, done.err);
        has(&done, "ok", "TCP", &["answers"]);
        has(
            &done,
            "bad",
            "handshake",
            &["does not speak TLS", wanted, "correct the port", "[plain-text]"],
        );
        assert!(!done.out.contains('\u{1b}') && !done.out.contains('\u{7}'), "{:?}", done.out);
    }
    let backend = Backend::echo();
    let done = ask(backend.address(), &[]);
    has(&done, "bad", "handshake", &["sends back", "[plain-text]"]);
}

#[test]
fn silence_a_door_that_shuts_and_a_closed_port_are_told_apart() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let done = ask(silent.local_addr().unwrap(), &[]);
    assert_eq!(done.code, Some(UNAVAILABLE), "{}{}", done.out, done.err);
    has(&done, "bad", "handshake", &["sends nothing within 10s", "[timeout]"]);

    let shuts = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = shuts.local_addr().unwrap();
    std::thread::spawn(move || shuts.incoming().for_each(drop));
    let done = ask(address, &[]);
    assert_eq!(done.code, Some(UNAVAILABLE));
    has(
        &done,
        "bad",
        "handshake",
        &["closes them when it receives a TLS handshake", "[closed-early]"],
    );

    let done = ask(local(free_port()), &[]);
    assert_eq!(done.code, Some(UNAVAILABLE));
    has(&done, "bad", "TCP", &["refused", "no program listens"]);
}

#[test]
fn a_name_without_an_address_and_what_is_wrong_with_the_options_is_told() {
    let gate = PskgateBuilder::new();
    let ask = |to: &str, extra: &[&str]| {
        let all = ["--connect", to, "--secrets", "psk.txt"];
        doctor(&gate, &all.into_iter().chain(extra.iter().copied()).collect::<Vec<_>>())
    };
    let done = ask("no-such-name.invalid:3001", &[]);
    assert_eq!(done.code, Some(UNAVAILABLE), "{}", done.out);
    has(&done, "bad", "name", &["no-such-name.invalid", "has no address"]);
    for (extra, code) in
        [(["--ciphers", "NONSENSE"], "ciphers"), (["--identity", "client9"], "no-such-identity")]
    {
        let done = ask("127.0.0.1:9", &extra);
        assert_eq!(done.code, Some(CONFIG), "{}{}", done.out, done.err);
        assert!(done.out.contains(&format!("[{code}]")), "{}", done.out);
    }
    let done = ask("127.0.0.1:9", &["--tls-max", "1.4"]);
    assert_eq!(done.code, Some(64), "{}", done.out);
    assert!(done.err.contains("possible values: 1.0, 1.1, 1.2, 1.3"), "{}", done.err);
    let done = ask("127.0.0.1", &[]);
    assert_eq!(done.code, Some(CONFIG), "{}{}", done.out, done.err);
    has(&done, "bad", "options", &["options: `127.0.0.1` has no port"]);
    let done = doctor(&gate, &["--connect", "127.0.0.1:9"]);
    assert_eq!(done.code, Some(64), "a key file has to be named");
}
