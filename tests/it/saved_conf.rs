//! What a saved stunnel.conf does: its keys are watched, and the file itself waits for SIGHUP, as in
//! stunnel, unless it says otherwise.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use rustix::process::Signal;

use crate::harness::process::pskgate;
use crate::harness::{
    Backend, IDENTITY, KEY, OTHER_KEY, PlainClient, Process, Pskgate, PskgateBuilder, WAIT_TIMEOUT,
    client_toml, free_port, local, replace, secret, server_toml, until, write_private,
};

fn section(name: &str, port: u16, to: SocketAddr) -> String {
    format!("[{name}]\naccept = 127.0.0.1:{port}\nconnect = {to}\nPSKsecrets = psk.txt\n")
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(local(port)).is_ok()
}

fn client(port: u16) -> Pskgate {
    PskgateBuilder::new().toml(&client_toml(local(port), "")).start()
}

fn count(gate: &Pskgate, words: &str) -> usize {
    gate.log().lines().filter(|line| line.contains(words)).count()
}

/// Changes the key file beside a saved configuration, and waits until the change is in force.
fn change_keys(gate: &Pskgate, added: &str) {
    let keys = secret(IDENTITY, KEY) + &secret(added, OTHER_KEY);
    replace(&gate.folder().join("psk.txt"), &keys);
    gate.wait_logged(&format!("keys: added \"{added}\""));
}

#[test]
fn a_saved_file_waits_for_sighup_in_both_programs_and_a_saved_key_does_not() {
    let backend = Backend::echo();
    let to = backend.address();
    let (old, new) = (free_port(), free_port());
    let server = PskgateBuilder::new().conf("x.conf", &section("a", old, to), None).start();
    let end = client(old);
    let session = PlainClient::connect(end.address("plain"));
    session.echo(b"before");
    replace(&server.folder().join("x.conf"), &section("a", new, to));
    change_keys(&server, "client2");
    assert!(is_open(old) && !is_open(new), "{}", server.log());
    server.signal(Signal::HUP);
    until("the new address", WAIT_TIMEOUT, || is_open(new).then_some(()));
    session.echo(b"after");
    // And once more over the control socket.
    replace(&server.folder().join("x.conf"), &section("a", old, to));
    change_keys(&server, "client3");
    assert!(is_open(new) && !is_open(old), "{}", server.log());
    let done = pskgate(server.folder(), &["reload", "x.conf"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(is_open(old) && !is_open(new), "{}", server.log());
    session.echo(b"to the end");

    let (old, new) = (free_port(), free_port());
    let folder = tempfile::tempdir().expect("a folder");
    write_private(&folder.path().join("psk.txt"), &secret(IDENTITY, KEY));
    let text = |port: u16| format!("foreground = yes\nsyslog = no\n{}", section("a", port, to));
    write_private(&folder.path().join("x.conf"), &text(old));
    let mut command = Command::new("stunnel4");
    let theirs = Process::spawn("stunnel", "stunnel4", command.arg("x.conf").current_dir(&folder));
    until("stunnel's start", WAIT_TIMEOUT, || is_open(old).then_some(()));
    replace(&folder.path().join("x.conf"), &text(new));
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(is_open(old) && !is_open(new), "{}", theirs.err());
    theirs.signal(Signal::HUP);
    until("stunnel's new address", WAIT_TIMEOUT, || is_open(new).then_some(()));
}

#[test]
fn a_native_file_can_wait_for_sighup_too() {
    let backend = Backend::echo();
    let text = |port: u16| {
        let text = server_toml(backend.address(), "");
        format!(
            "watch-configuration = false\n{}",
            text.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"))
        )
    };
    let (old, new) = (free_port(), free_port());
    let server = PskgateBuilder::new().toml(&text(old)).start();
    replace(&server.folder().join("pskgate.toml"), &text(new));
    change_keys(&server, "client2");
    assert!(is_open(old) && !is_open(new), "{}", server.log());
    server.signal(Signal::HUP);
    until("the new address", WAIT_TIMEOUT, || is_open(new).then_some(()));
}

#[test]
fn a_section_that_is_renamed_or_moved_keeps_its_sessions_and_its_new_name_is_shown() {
    let backend = Backend::echo();
    let to = backend.address();
    let (one, two, three) = (free_port(), free_port(), free_port());
    let first = section("a", one, to) + &section("b", two, to);
    let server = PskgateBuilder::new().conf("x.conf", &first, None).start();
    let ends = [client(one), client(two)];
    let sessions = ends.each_ref().map(|end| PlainClient::connect(end.address("plain")));
    sessions.iter().for_each(|session| session.echo(b"before"));
    // One has another name, the other another address and another place in the file.
    replace(
        &server.folder().join("x.conf"),
        &(section("b", three, to) + &section("renamed", one, to)),
    );
    server.signal(Signal::HUP);
    until("the new address", WAIT_TIMEOUT, || is_open(three).then_some(()));
    sessions.iter().for_each(|session| session.echo(b"after"));
    let shown = pskgate(server.folder(), &["sessions", "x.conf", "--json"]);
    assert!(shown.out.contains("\"renamed\"") && !shown.out.contains("\"a\""), "{}", shown.out);
    assert!(!is_open(two), "an address that is gone is closed");
    // The key still ends what it has opened, under the new name.
    replace(&server.folder().join("psk.txt"), &secret("client2", OTHER_KEY));
    server.wait_logged("Service [renamed] keys: ");
    for session in sessions {
        session.end();
    }
}

#[test]
fn other_bytes_end_the_attempts_of_a_refused_reload_and_wait_for_sighup() {
    let backend = Backend::echo();
    let to = backend.address();
    let (old, new) = (free_port(), free_port());
    let server = PskgateBuilder::new().conf("x.conf", &section("a", old, to), None).start();
    // It serves, and so it hears of signals.
    let end = client(old);
    PlainClient::connect(end.address("plain")).echo(b"it serves");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let busy = taken.local_addr().expect("its address").port();
    replace(&server.folder().join("x.conf"), &section("a", busy, to));
    server.signal(Signal::HUP);
    server.wait_logged("Failed to reload the configuration file");
    replace(&server.folder().join("x.conf"), &section("a", new, to));
    server.wait_logged("has changed since it was refused");
    drop(taken);
    change_keys(&server, "client2");
    assert!(is_open(old) && !is_open(new) && !is_open(busy), "{}", server.log());
    assert_eq!(count(&server, "has changed since it was refused"), 1, "{}", server.log());
    server.signal(Signal::HUP);
    until("the new address", WAIT_TIMEOUT, || is_open(new).then_some(()));
}
