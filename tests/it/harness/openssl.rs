//! OpenSSL's own `s_server` and `s_client` as the other end.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::Command;

use openssl::ssl::SslContextBuilder;

use super::{IDENTITY, KEY, Process, WAIT_TIMEOUT};

const PACKAGE: &str = "the Debian package openssl";

/// A key's text as the hexadecimal digits that OpenSSL's tools want.
pub fn hex(key: &str) -> String {
    key.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// The arguments that make either tool use the key of the tests.
pub fn psk() -> [String; 4] {
    psk_of(IDENTITY, KEY)
}

/// The arguments for another identity or key.
pub fn psk_of(identity: &str, key: &str) -> [String; 4] {
    ["-psk_identity".to_owned(), identity.to_owned(), "-psk".to_owned(), hex(key)]
}

/// Makes a client present this identity and key.
pub fn present(builder: &mut SslContextBuilder, identity: &str, key: &str) {
    let (identity, key) = (identity.to_owned(), key.to_owned());
    builder.set_psk_client_callback(move |_, _, name, secret| {
        name[..identity.len()].copy_from_slice(identity.as_bytes());
        name[identity.len()] = 0;
        secret[..key.len()].copy_from_slice(key.as_bytes());
        Ok(key.len())
    });
}

/// Makes a self-signed certificate: `cert.pem` and `key.pem` in `folder`.
pub fn certificate(folder: &Path) {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]);
    command.args([
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]);
    let mut process = Process::spawn("openssl req", PACKAGE, &mut command);
    assert!(process.wait(WAIT_TIMEOUT).success(), "no certificate was made: {}", process.text());
}

/// `openssl s_server -rev`: it sends each line back, turned round.
pub struct OpensslServer {
    process: Process,
    address: SocketAddr,
}

impl OpensslServer {
    pub fn start<I: IntoIterator>(folder: &Path, arguments: I) -> Self
    where
        I::Item: AsRef<std::ffi::OsStr>,
    {
        let mut command = Command::new("openssl");
        command
            .current_dir(folder)
            .args(["s_server", "-accept", "127.0.0.1:0", "-rev"])
            .args(arguments);
        let process = Process::spawn("openssl s_server", PACKAGE, &mut command);
        let line = process.wait_for("ACCEPT ", WAIT_TIMEOUT);
        let address = line.trim_start_matches("ACCEPT ").parse().expect("an address after ACCEPT");
        Self { process, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Deref for OpensslServer {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

/// `openssl s_client`, which sends what is typed and prints what it is sent.
pub struct OpensslClient {
    process: Process,
}

impl OpensslClient {
    pub fn start<I: IntoIterator>(to: SocketAddr, arguments: I) -> Self
    where
        I::Item: AsRef<std::ffi::OsStr>,
    {
        Self::start_in(Path::new("."), to, arguments)
    }

    /// The same with a folder for the files that it reads and writes.
    pub fn start_in<I: IntoIterator>(folder: &Path, to: SocketAddr, arguments: I) -> Self
    where
        I::Item: AsRef<std::ffi::OsStr>,
    {
        let arguments = arguments.into_iter().map(|one| one.as_ref().to_owned());
        let to = ["-connect".into(), to.to_string().into()];
        Self::start_unconnected(folder, to.into_iter().chain(arguments))
    }

    /// The same, where the arguments say whom to connect to.
    pub fn start_unconnected<I: IntoIterator>(folder: &Path, arguments: I) -> Self
    where
        I::Item: AsRef<std::ffi::OsStr>,
    {
        let mut command = Command::new("openssl");
        command.current_dir(folder).args(["s_client", "-ign_eof"]).args(arguments);
        Self { process: Process::spawn("openssl s_client", PACKAGE, &mut command) }
    }

    /// Types a line and waits until it comes back.
    pub fn echo(&mut self, line: &str) {
        self.process.type_in(&format!("{line}\n"));
        self.process.wait_for(line, WAIT_TIMEOUT);
    }

    /// All that it wrote, once it has ended.
    pub fn wait_end(mut self) -> String {
        self.process.wait(WAIT_TIMEOUT);
        self.process.out()
    }

    /// The number of the alert that it was sent, once it has given up.
    pub fn alert(&mut self) -> Option<u32> {
        self.process.wait(WAIT_TIMEOUT);
        let said = self.process.text();
        let number = said.split_once("SSL alert number ")?.1;
        number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

impl Deref for OpensslClient {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for OpensslClient {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
