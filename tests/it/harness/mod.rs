//! What every subject needs: the program and its peers as processes, sockets that tell how they
//! ended, and data that can be checked byte by byte.
//!
//! Nothing here sleeps until "it should be ready by now": [`until`] waits for a fact, and fails with
//! a sentence when the fact does not come. Whatever is started here ends with its test.

pub mod backend;
pub mod browser;
pub mod data;
pub mod hello;
pub mod instance;
#[allow(dead_code, reason = "the programs that take figures need all of it")]
pub mod machine;
pub mod names;
pub mod openssl;
pub mod proc;
pub mod process;
pub mod process_memory;
mod self_test;
pub mod stage;
pub mod stopwatch;
pub mod stunnel;
pub mod timing_leak;
pub mod two_hosts;
pub mod updates;
pub mod web;
pub mod wire;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use backend::{Backend, ConnectionEnd, PlainClient};
pub use browser::Browser;
pub use data::Stream;
pub use instance::{Pair, Pskgate, PskgateBuilder, client_toml, server_toml};
pub use openssl::{OpensslClient, OpensslServer};
pub use process::Process;
pub use stopwatch::Stopwatch;
pub use stunnel::Stunnel;
pub use two_hosts::TwoHosts;
pub use web::Page;
pub use wire::{FaultProxy, WireEnd};

/// The identity that the tests use unless they are about identities.
pub const IDENTITY: &str = "client1";

/// Its key, of the founding document's form: 64 base64 characters, used as they stand.
pub const KEY: &str = "dGhpcyBrZXkgaXMgcHVibGljOiBpdCBpcyBpbiB0aGUgdGVzdHMgb2YgcHNrZ2F0";

/// A good key that nobody configured.
pub const OTHER_KEY: &str = "bm90IHRoZSBrZXkgb2YgY2xpZW50MSwgYnV0IGFzIGxvbmcgYW5kIGFzIGdvb2Qh";

/// How long a fact may take that nothing keeps from being true at once, on a busy machine.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A protocol version that every subject is tried in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    V12,
    V13,
}

impl Tls {
    pub const BOTH: [Tls; 2] = [Tls::V12, Tls::V13];

    /// As pskgate's log and OpenSSL name it.
    pub fn name(self) -> &'static str {
        match self {
            Tls::V12 => "TLSv1.2",
            Tls::V13 => "TLSv1.3",
        }
    }

    /// The lines of a native service that allow this version alone.
    pub fn toml(self) -> &'static str {
        match self {
            Tls::V12 => "tls-min = \"1.2\"\ntls-max = \"1.2\"\n",
            Tls::V13 => "tls-min = \"1.3\"\ntls-max = \"1.3\"\n",
        }
    }

    /// The line of a `stunnel.conf` that allows this version alone.
    pub fn conf(self) -> &'static str {
        match self {
            Tls::V12 => "sslVersion = TLSv1.2\n",
            Tls::V13 => "sslVersion = TLSv1.3\n",
        }
    }

    /// What the name of any suite contains that a pre-shared key of this version can have.
    pub fn any_suite(self) -> &'static str {
        match self {
            Tls::V12 => "PSK",
            Tls::V13 => "SHA256",
        }
    }

    /// The argument of `openssl s_client` and `s_server`.
    pub fn flag(self) -> &'static str {
        match self {
            Tls::V12 => "-tls1_2",
            Tls::V13 => "-tls1_3",
        }
    }
}

/// The 1.3 suite that two ends of pskgate choose on this processor.
pub fn suite_13() -> &'static str {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if cpu.split_whitespace().any(|word| word == "aes") {
        "TLS_AES_128_GCM_SHA256"
    } else {
        "TLS_CHACHA20_POLY1305_SHA256"
    }
}

/// Asks again and again until there is an answer; fails naming `what` when none comes in time.
pub fn until<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port that was free a moment ago, from below the range that the kernel hands out by itself, and
/// different for every call in this process.
pub fn free_port() -> u16 {
    const FIRST: u32 = 11_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (std::process::id().wrapping_mul(211).wrapping_add(step)) % COUNT;
        let port = u16::try_from(port).expect("a port number");
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// The loopback address with this port.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A daemon of Pyro's, or who calls it: see tests/peers/plc.py.
pub fn plc(arguments: &[&str]) -> Process {
    let mut command = std::process::Command::new(python());
    command.arg(root().join("tests/peers/plc.py")).args(arguments);
    let package = "the venv with tests/peers/requirements.txt (or set PSKGATE_PEERS to one)";
    Process::spawn("plc.py", package, &mut command)
}

/// TLS 1.3 peers that the openssl command cannot play: see tests/peers/offers.py.
pub fn offers(arguments: &[&str]) -> Process {
    let mut command = std::process::Command::new(python());
    command.arg(root().join("tests/peers/offers.py")).args(arguments);
    let package = "the venv with tests/peers/requirements.txt (or set PSKGATE_PEERS to one)";
    Process::spawn("offers.py", package, &mut command)
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// Replaces a file as a careful program does: a new one, moved over the old.
pub fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    write_private(&fresh, text);
    std::fs::rename(&fresh, path).expect("moved over the old one");
}

/// The line of a secrets file.
pub fn secret(identity: &str, key: &str) -> String {
    format!("{identity}:{key}\n")
}

/// How the program under test is called: as cargo built it, or in the words of `PSKGATE_PROGRAM`, which
/// may begin with what runs a program of another machine. The last word is the program itself.
pub fn program() -> Vec<OsString> {
    match std::env::var("PSKGATE_PROGRAM") {
        Ok(words) => words.split_whitespace().map(OsString::from).collect(),
        Err(_) => vec![env!("CARGO_BIN_EXE_pskgate").into()],
    }
}

/// The same as a command without arguments.
pub fn program_command() -> Command {
    command_of(program())
}

/// A command of these words.
pub fn command_of(words: impl IntoIterator<Item = OsString>) -> Command {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}

/// The project's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Python of the venv that scripts/test makes.
pub fn python() -> PathBuf {
    let venv = std::env::var_os("PSKGATE_PEERS")
        .map_or_else(|| root().join("target/peers/venv"), PathBuf::from);
    venv.join("bin/python")
}
