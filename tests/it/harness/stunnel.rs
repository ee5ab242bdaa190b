//! Debian's stunnel4 as the other end.

use std::net::SocketAddr;
use std::ops::Deref;
use std::process::Command;

use tempfile::TempDir;

use super::{IDENTITY, KEY, Process, WAIT_TIMEOUT, free_port, local, secret, write_private};

pub struct Stunnel {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Deref for Stunnel {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Stunnel {
    /// A server end before `connect`; `extra` is more lines of the section.
    pub fn server(connect: SocketAddr, extra: &str) -> Self {
        Self::server_at(free_port(), connect, extra)
    }

    /// A server end on a port of the caller's choice.
    pub fn server_at(port: u16, connect: SocketAddr, extra: &str) -> Self {
        Self::start(port, connect, &secret(IDENTITY, KEY), extra)
    }

    /// A server end whose sections are these, without their secrets; the first is the one at `port`.
    pub fn server_with(port: u16, sections: &str) -> Self {
        Self::run(port, &secret(IDENTITY, KEY), sections)
    }

    /// A client end before `connect`.
    pub fn client(connect: SocketAddr, extra: &str) -> Self {
        Self::client_with(connect, &secret(IDENTITY, KEY), extra)
    }

    /// A client end with a key of the caller's choice.
    pub fn client_with(connect: SocketAddr, secrets: &str, extra: &str) -> Self {
        Self::start(free_port(), connect, secrets, &format!("client = yes\n{extra}"))
    }

    fn start(port: u16, connect: SocketAddr, secrets: &str, extra: &str) -> Self {
        let section = format!("[peer]\naccept = 127.0.0.1:{port}\nconnect = {connect}\n{extra}\n");
        Self::run(port, secrets, &section)
    }

    fn run(port: u16, secrets: &str, sections: &str) -> Self {
        let folder = TempDir::new().expect("a folder for stunnel");
        let (conf, keys) = (folder.path().join("stunnel.conf"), folder.path().join("psk.txt"));
        write_private(&keys, secrets);
        let text = format!(
            "foreground = yes\ndebug = 7\npid =\nPSKsecrets = {}\n{sections}\n",
            keys.display()
        );
        write_private(&conf, &text);
        let process = Process::spawn(
            "stunnel4",
            "the Debian package stunnel4",
            Command::new("stunnel4").arg(&conf),
        );
        process.wait_for("Accepting new connections", WAIT_TIMEOUT);
        Self { process, address: local(port), _folder: folder }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
