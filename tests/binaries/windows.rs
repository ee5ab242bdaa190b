//! What is different on Windows, as far as Wine shows it: the console's Ctrl-C, lists of rights, services, what
//! only a Unix has. docs/windows.md says what Wine cannot show.
//!
//! Wine makes a file's list of rights of its mode: what others may read, Everyone may.

use std::fs::Permissions;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::process::{Finished, pskgate};
use crate::harness::{
    Backend, ConnectionEnd, OTHER_KEY, Pair, PlainClient, Pskgate, PskgateBuilder, Tls,
    WAIT_TIMEOUT, client_toml, replace, secret, server_toml, until,
};
use crate::{Check, IDENTITY, client_to, transfer};

pub(crate) const CHECKS: &[Check] = &[
    ("a key file that Everyone may read is refused", loose_key_file),
    ("keygen's file is nobody else's", fresh_key_file),
    ("what only a Unix has is refused by name", unix_only),
    ("a changed configuration is noticed", changed_configuration),
    ("status and reload over the pipe", pipe),
    ("Ctrl-C drains, and the code is 0", ctrl_c),
    ("a service: install, start, reload, stop drains, uninstall", service),
    ("a service that cannot serve", failing_service),
];

fn mode(file: &Path, mode: u32) {
    std::fs::set_permissions(file, Permissions::from_mode(mode)).expect("a mode");
}

fn loose_key_file() {
    for (rights, may) in [(0o644, "may read"), (0o666, "may change")] {
        let gate = PskgateBuilder::new().toml(&server_toml("127.0.0.1:9", ""));
        mode(&gate.folder().join("psk.txt"), rights);
        let mut ours = gate.launch();
        assert_eq!(ours.exit_code(WAIT_TIMEOUT), Some(78), "{}", ours.log());
        for wanted in ["loose-permissions", "the group Everyone", may, "icacls", "*S-1-1-0"] {
            assert!(ours.log().contains(wanted), "`{wanted}` is not in: {}", ours.log());
        }
    }
    // Under stunnel's name and in its language it is a warning, and the tunnel works.
    let backend = Backend::echo();
    let conf = format!(
        "foreground = yes\noutput = stunnel.log\n[tls]\naccept = 127.0.0.1:{}\nconnect = {}\n\
         ciphers = PSK\nPSKsecrets = psk.txt\n",
        crate::harness::free_port(),
        backend.address()
    );
    let gate = PskgateBuilder::new().conf("stunnel.conf", &conf, Some("stunnel.log"));
    mode(&gate.folder().join("psk.txt"), 0o644);
    let ours = gate.start();
    ours.wait_logged("the group Everyone may read");
    let peer = client_to(ours.address("tls"), Tls::V13);
    PlainClient::connect(peer.address()).echo(b"warned");
}

fn fresh_key_file() {
    let gate = PskgateBuilder::new().toml(&server_toml("127.0.0.1:9", ""));
    let keys = gate.folder().join("psk.txt");
    std::fs::remove_file(&keys).expect("it is there");
    let made = pskgate(gate.folder(), &["keygen", IDENTITY, "--output", "psk.txt"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    let rights = std::fs::metadata(&keys).expect("it is there now").permissions().mode();
    assert_eq!(rights & 0o007, 0, "others have rights: {rights:o}");
    let checked = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.err);
}

fn unix_only() {
    let backend = Backend::echo();
    let toml = server_toml(backend.address(), "");
    let refused = "user = \"nobody\"\nchroot = \"/jail\"\n".to_owned() + &toml;
    let refused = refused.replace("accept = \"127.0.0.1:0\"", "accept = \"unix:/run/a.sock\"");
    let gate = PskgateBuilder::new().toml(&refused);
    let said = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert_eq!(said.code, Some(78), "{}", said.err);
    for name in ["user", "chroot", "accept"] {
        let words = format!("`{name}` asks for what Windows does not have");
        assert!(said.err.contains(&words), "`{words}` is not in: {}", said.err);
    }
    let explained = pskgate(gate.folder(), &["explain", "unix-only"]);
    assert!(explained.code == Some(0) && explained.out.contains("Windows"), "{}", explained.out);
    // What can be left out without harm is left out, in so many words.
    let ours = PskgateBuilder::new().toml(&format!("pid-file = \"gate.pid\"\n{toml}")).start();
    assert!(ours.log().contains("`pid-file` does nothing on Windows"), "{}", ours.log());
    PlainClient::connect(client_to(ours.address("tls"), Tls::V12).address()).echo(b"without it");
}

fn changed_configuration() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let ours = PskgateBuilder::new().toml(&server_toml(first.address(), "")).start();
    let peer = client_to(ours.address("tls"), Tls::V13);
    PlainClient::connect(peer.address()).echo(b"to the first");
    replace(&ours.folder().join("pskgate.toml"), &server_toml(second.address(), ""));
    ours.wait_logged(": reloaded;");
    PlainClient::connect(peer.address()).echo(b"to the second");
    assert_eq!((first.accepted(), second.accepted()), (1, 1));
}

fn pipe() {
    let backend = Backend::echo();
    let pair = Pair::with(&backend, "[control]\nsocket = '\\\\.\\pipe\\pskgate-tried'\n", "");
    let plain = pair.connect();
    plain.echo(b"a session");
    let ask = |words: &[&str]| said(pair.server.folder(), words);
    let status = ask(&["status", "pskgate.toml"]);
    assert!(status.contains("tls") && status.contains("127.0.0.1:"), "{status}");
    let sessions = ask(&["sessions", "pskgate.toml"]);
    assert!(sessions.contains(IDENTITY) && sessions.contains("TLSv1.3"), "{sessions}");
    ask(&["reload", "pskgate.toml"]);
    pair.server.wait_logged(": reloaded;");
    plain.echo(b"the same session");
    ask(&["kick", IDENTITY, "pskgate.toml"]);
    assert_eq!(plain.end(), ConnectionEnd::Rst);
}

/// What a command of ours that succeeds says.
fn said(folder: &Path, words: &[&str]) -> String {
    let Finished { code, out, err } = pskgate(folder, words);
    assert_eq!(code, Some(0), "{words:?}: {out}{err}");
    out
}

/// Nobody is let in any more, and who is in goes on and comes to an orderly end.
fn drains(plain: &PlainClient, door: SocketAddr) {
    until("the door to be shut", WAIT_TIMEOUT, || TcpStream::connect(door).is_err().then_some(()));
    transfer(plain);
}

fn ctrl_c() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let toml = client_toml(server.address("tls"), "");
    let toml = format!("drain-timeout = \"60s\"\n[log]\noutput = \"gate.log\"\n{toml}");
    let gate = PskgateBuilder::new().conf("pskgate.toml", &toml, Some("gate.log"));
    let mut ours: Pskgate = gate.terminal().start();
    let door = ours.address("plain");
    let plain = PlainClient::connect(door);
    plain.echo(b"before");
    ours.process().type_in("\x03");
    ours.wait_logged("Ctrl-C: no new connections");
    drains(&plain, door);
    assert_eq!(ours.exit_code(WAIT_TIMEOUT), Some(0), "{}", ours.log());
    ours.wait_logged("stopped after 1 session");
}

/// A service by this name, which goes with its test.
struct Service {
    gate: PskgateBuilder,
    name: String,
}

impl Service {
    fn install(gate: PskgateBuilder) -> Self {
        let name = format!("pskgate-tried-{}", crate::harness::free_port());
        let service = Self { gate, name };
        let words = service.does("install", &["pskgate.toml"]);
        let account = format!(r"NT SERVICE\{}:R", service.name);
        assert!(words.contains("psk.txt") && words.contains(&account), "{words}");
        service
    }

    fn ask(&self, what: &str, more: &[&str]) -> Finished {
        let words = ["service", what, "--name", &self.name];
        pskgate(self.gate.folder(), &[&words, more].concat())
    }

    fn does(&self, what: &str, more: &[&str]) -> String {
        let Finished { code, out, err } = self.ask(what, more);
        assert_eq!(code, Some(0), "{what}: {out}{err}\n{}", self.log());
        out
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.gate.folder().join("gate.log")).unwrap_or_default()
    }

    fn wait_logged(&self, fragment: &str) -> String {
        until(&format!("`{fragment}` in the service's log"), WAIT_TIMEOUT, || {
            self.log().lines().find(|line| line.contains(fragment)).map(str::to_owned)
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.ask("uninstall", &[]);
        if std::thread::panicking() {
            eprintln!("--- the service said\n{}\n---", self.log());
        }
    }
}

fn service() {
    let backend = Backend::echo();
    let toml = format!(
        "drain-timeout = \"60s\"\n[log]\noutput = \"gate.log\"\n{}",
        server_toml(backend.address(), "")
    );
    let service = Service::install(PskgateBuilder::new().toml(&toml));
    let twice = service.ask("install", &["pskgate.toml"]);
    assert_eq!(twice.code, Some(69), "one of this name is there already: {}", twice.err);
    service.does("start", &[]);
    let line = service.wait_logged("[tls] listening on ");
    let door: SocketAddr = line.rsplit(' ').next().unwrap_or_default().parse().expect("an address");
    let peer = client_to(door, Tls::V13);
    let plain = PlainClient::connect(peer.address());
    plain.echo(b"through a service");
    assert_eq!(service.ask("start", &[]).code, Some(69), "it runs already");
    let keys = secret(IDENTITY, crate::KEY) + &secret("client2", OTHER_KEY);
    replace(&service.gate.folder().join("psk.txt"), &keys);
    service.wait_logged("keys: added \"client2\"");
    plain.echo(b"after a change");
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| service.ask("stop", &[]));
        service.wait_logged("service stop: no new connections");
        drains(&plain, door);
        let stopped = stop.join().expect("it is waited for");
        assert_eq!(stopped.code, Some(0), "{}", stopped.err);
    });
    service.wait_logged("stopped after 1 session");
    service.does("uninstall", &[]);
    let gone = service.ask("start", &[]);
    assert!(gone.code == Some(69) && gone.err.contains("service install"), "{}", gone.err);
}

fn failing_service() {
    let backend = Backend::echo();
    let service = Service::install(PskgateBuilder::new().toml(&server_toml(backend.address(), "")));
    mode(&service.gate.folder().join("psk.txt"), 0o644);
    let refused = service.ask("start", &[]);
    assert_eq!(refused.code, Some(78), "{}{}", refused.out, refused.err);
    assert!(refused.err.contains("does not serve; the event log says why"), "{}", refused.err);
    // A configuration that others may change would be theirs to decide.
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), ""));
    mode(&gate.folder().join("pskgate.toml"), 0o666);
    let name = format!("{}-loose", service.name);
    let words = ["service", "install", "--name", &name, "pskgate.toml"];
    let Finished { code, err, .. } = pskgate(gate.folder(), &words);
    assert!(code == Some(77) && err.contains("the group Everyone may change"), "{code:?}: {err}");
}
