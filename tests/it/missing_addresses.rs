//! An address that cannot be taken, beside others of the same service: what stunnel 5.68 makes of it, and what
//! pskgate does.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use rustix::process::Signal;

use crate::harness::process::pskgate;
use crate::harness::stage::need_root;
use crate::harness::{
    Backend, IDENTITY, KEY, PlainClient, Process, Pskgate, PskgateBuilder, WAIT_TIMEOUT,
    client_toml, free_port, local, secret, server_toml, until, write_private,
};

/// What takes the address in the way: nothing that listens, so that nobody gets an answer there.
fn hold(port: u16) -> TcpListener {
    TcpListener::bind(local(port)).expect("a free port")
}

fn section(name: &str, accept: &[String], to: SocketAddr) -> String {
    let accept: String = accept.iter().map(|at| format!("accept = {at}\n")).collect();
    format!("[{name}]\n{accept}connect = {to}\nPSKsecrets = psk.txt\n")
}

fn sections(ports: &[u16], to: SocketAddr) -> String {
    let accept: Vec<String> = ports.iter().map(|port| local(*port).to_string()).collect();
    format!("debug = 6\n{}", section("a", &accept, to))
}

/// stunnel with the same file, in the foreground.
struct Stunnel {
    process: Process,
    _folder: tempfile::TempDir,
}

impl Stunnel {
    fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write_private(&folder.path().join("psk.txt"), &secret(IDENTITY, KEY));
        let text = format!("foreground = yes\nsyslog = no\npid =\n{text}");
        write_private(&folder.path().join("x.conf"), &text);
        let mut command = Command::new("stunnel4");
        let process =
            Process::spawn("stunnel", "stunnel4", command.arg("x.conf").current_dir(&folder));
        Self { process, _folder: folder }
    }
}

fn conf(text: &str) -> PskgateBuilder {
    PskgateBuilder::new().conf("x.conf", text, None)
}

fn launch(text: &str) -> Pskgate {
    let server = conf(text).launch();
    server.wait_logged("Accepting new connections");
    server
}

/// The line about an address that could not be taken, from stunnel's level on.
fn binding_line(log: &str) -> Option<String> {
    let line =
        log.lines().find(|line| line.contains("Binding service ") && line.contains(" to "))?;
    let from = line.find("LOG").expect("the level");
    Some(line[from..].to_owned())
}

fn carries(port: u16) {
    let end = PskgateBuilder::new().toml(&client_toml(local(port), "")).start();
    let session = PlainClient::connect(end.address("plain"));
    session.echo(b"there and back");
}

fn status(server: &Pskgate) -> String {
    let shown = pskgate(server.folder(), &["status", "x.conf"]);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    shown.out
}

fn missing_of(server: &Pskgate) -> serde_json::Value {
    let shown = pskgate(server.folder(), &["status", "--json", "x.conf"]);
    let status: serde_json::Value = serde_json::from_str(&shown.out).expect("JSON");
    status["services"][0]["missing-listeners"].clone()
}

#[test]
fn a_section_serves_without_an_address_that_is_taken_and_has_it_once_it_is_free() {
    let backend = Backend::echo();
    let (taken, open) = (free_port(), free_port());
    let text = sections(&[taken, open], backend.address());
    let holder = hold(taken);
    let theirs = Stunnel::start(&text);
    theirs.process.wait_for("Accepting new connections", WAIT_TIMEOUT);
    carries(open);
    let line = binding_line(&theirs.process.text()).expect("stunnel's line");
    drop(theirs);

    let server = launch(&text);
    carries(open);
    let ours = binding_line(&server.log()).expect("the line that stunnel has");
    assert_eq!(ours, line);
    let at = local(taken).to_string();
    let shown = status(&server);
    assert!(shown.contains(&format!("missing  {at}: Address already in use")), "{shown}");
    assert_eq!(missing_of(&server)[0]["address"], at.as_str());

    drop(holder);
    server.wait_logged(&format!("bound to {at}"));
    carries(taken);
    let shown = status(&server);
    assert!(!shown.contains("missing"), "{shown}");
    assert!(shown.contains(&at), "{shown}");
    assert_eq!(missing_of(&server), serde_json::json!([]));
    assert_eq!(server.log().matches("Binding service").count(), 1, "{}", server.log());
}

#[test]
fn without_any_of_its_addresses_a_section_keeps_both_programs_from_starting() {
    let backend = Backend::echo();
    let (taken, open) = (free_port(), free_port());
    let _holder = hold(taken);
    let other = section("b", &[local(open).to_string()], backend.address());
    let text = sections(&[taken], backend.address()) + &other;
    let mut theirs = Stunnel::start(&text);
    assert_eq!(theirs.process.wait(WAIT_TIMEOUT).code(), Some(1));
    assert!(theirs.process.text().contains("Binding service [a] failed"));
    let mut server = conf(&text).launch();
    assert_ne!(server.exit_code(WAIT_TIMEOUT), Some(0));
    assert!(server.log().contains("service a cannot listen on"), "{}", server.log());
    assert!(TcpStream::connect(local(open)).is_err(), "all or nothing");
}

#[test]
fn a_native_service_is_all_or_nothing() {
    let backend = Backend::echo();
    let (taken, open) = (free_port(), free_port());
    let _holder = hold(taken);
    let accept = format!("[\"127.0.0.1:{open}\", \"127.0.0.1:{taken}\"]");
    let toml = server_toml(backend.address(), "").replace("\"127.0.0.1:0\"", &accept);
    let mut server = PskgateBuilder::new().toml(&toml).launch();
    assert_eq!(server.exit_code(WAIT_TIMEOUT), Some(69), "{}", server.log());
    assert!(server.log().contains("another program has it"), "{}", server.log());
}

#[test]
fn a_reload_with_an_address_missing_is_applied_and_says_so() {
    let backend = Backend::echo();
    let (taken, open, new) = (free_port(), free_port(), free_port());
    let server = launch(&sections(&[open], backend.address()));
    let _session = PlainClient::connect(local(open));
    let holder = hold(taken);
    let text = sections(&[open, taken, new], backend.address());
    write_private(&server.folder().join("x.conf"), &text);
    let done = pskgate(server.folder(), &["reload", "x.conf"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let told = done.out + &done.err;
    assert!(told.contains(&format!("service a does not listen on {}", local(taken))), "{told}");
    carries(open);
    carries(new);
    assert!(status(&server).contains("1 done, 0 refused"), "{}", status(&server));
    // And again, with the address free: the reload itself takes it.
    drop(holder);
    server.signal(Signal::HUP);
    server.wait_logged(&format!("bound to {}", local(taken)));
    carries(taken);
    until("status to be without it", WAIT_TIMEOUT, || {
        missing_of(&server).as_array().is_some_and(Vec::is_empty).then_some(())
    });
}

#[test]
fn a_name_with_several_addresses_serves_on_those_that_can_be_had() {
    need_root();
    let backend = Backend::echo();
    let port = free_port();
    let text = format!(
        "debug = 6\n{}",
        section("a", &[format!("twin.example:{port}")], backend.address())
    );
    let gate = conf(&text);
    let hosts = gate.folder().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n127.0.0.1 twin.example\n127.0.0.2 twin.example\n")
        .expect("written");
    let holder = hold(port);
    let alone = format!(
        "exec unshare --mount sh -c 'mount --bind {} /etc/hosts && exec \"$@\"' sh \"$@\"",
        hosts.display()
    );
    let server = gate.shell(&alone).launch();
    server.wait_logged("Accepting new connections");
    let line = binding_line(&server.log()).expect("the line that stunnel has");
    assert_eq!(
        line,
        format!("LOG5[ui]: Binding service [a] to 127.0.0.1:{port}: Address already in use (98)")
    );
    let second: SocketAddr = format!("127.0.0.2:{port}").parse().expect("an address");
    assert!(TcpStream::connect(second).is_ok());
    drop(holder);
    server.wait_logged(&format!("bound to 127.0.0.1:{port}"));
    carries(port);
}

#[test]
fn what_is_in_the_way_of_a_unix_socket_is_told_with_what_to_do() {
    let backend = Backend::echo();
    let folder = tempfile::tempdir().expect("a folder");
    let (file, busy) = (folder.path().join("notes"), folder.path().join("busy"));
    std::fs::write(&file, "important").expect("written");
    let _listener = std::os::unix::net::UnixListener::bind(&busy).expect("a socket");
    for (path, words) in [
        (&file, ["it is there already, and it is not a socket", "write another path, or remove"]),
        (&busy, ["Address already in use", "`ss -lxp` shows which"]),
        (&folder.path().join("none/socket"), ["No such file", "make the folder of this socket"]),
    ] {
        let toml = server_toml(backend.address(), "")
            .replace("127.0.0.1:0", &format!("unix:{}", path.display()));
        let mut server = PskgateBuilder::new().toml(&toml).launch();
        assert_eq!(server.exit_code(WAIT_TIMEOUT), Some(69), "{}", server.log());
        for part in words {
            assert!(server.log().contains(part), "{part}: {}", server.log());
        }
    }
    assert_eq!(std::fs::read(&file).expect("still there"), b"important");
}
