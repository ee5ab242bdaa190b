//! Released binaries, each run before it counts: a handshake of each version with stunnel4 in both roles, a
//! transfer of which every byte is compared, and what else of the program a foreign processor, C library
//! or system could break.
//!
//! `scripts/release` runs it, with `PSKGATE_PROGRAM` naming the binary and, where this machine cannot run
//! it by itself, the program that can. It keeps its figures in the file that its one argument names.
// What the other tests need of the harness is not all needed here.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]
#![allow(dead_code, unused_imports)]

#[path = "../it/harness/mod.rs"]
mod harness;
mod windows;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, Pair, PlainClient, Pskgate, PskgateBuilder,
    Stream, Stunnel, Tls, WAIT_TIMEOUT, client_toml, program, program_command, replace, secret,
    server_toml, until,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Bytes of a transfer, each way; an emulated processor takes some seconds for it.
const TRANSFER: u64 = 8 * 1024 * 1024;
/// The largest file for a small board, and the most memory at a start, in bytes.
const SMALL: u64 = 5_000_000;
/// Starts whose memory is looked at.
const STARTS: usize = 5;
/// How long each rate is measured.
const MEASURED: Duration = Duration::from_secs(4);
/// Connections at a time while handshakes are counted.
const AT_ONCE: usize = 8;

/// What runs the binary here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runner {
    Native,
    Qemu,
    Wine,
}

impl Runner {
    fn of(words: &[std::ffi::OsString]) -> Self {
        let has = |name: &str| words.iter().any(|word| word.to_string_lossy().contains(name));
        match words.len() {
            1 => Self::Native,
            _ if has("qemu-") => Self::Qemu,
            _ if has("wine") => Self::Wine,
            _ => panic!("PSKGATE_PROGRAM begins with something unknown: {words:?}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Qemu => "qemu-user",
            Self::Wine => "Wine",
        }
    }
}

type Check = (&'static str, fn());

const CHECKS: &[Check] = &[
    ("TLS 1.2, client end, stunnel4 at the other", || client_end(Tls::V12)),
    ("TLS 1.3, client end, stunnel4 at the other", || client_end(Tls::V13)),
    ("TLS 1.2, server end, stunnel4 at the other", || server_end(Tls::V12)),
    ("TLS 1.3, server end, stunnel4 at the other", || server_end(Tls::V13)),
    ("both ends", both_ends),
    ("a wrong key is refused", wrong_key),
    ("a changed key file is noticed, and its sessions end", changed_key),
    ("an openssl.cnf counts with the system's OpenSSL alone", openssl_cnf),
    ("variables that are there for the tests are not read", test_variables),
];

/// What needs a Unix; [`windows::CHECKS`] are what Windows has instead.
const UNIX: &[Check] = &[
    ("a key file that others may read is refused", loose_key_file),
    ("SIGTERM drains, and the code is 0", drains),
];

fn main() {
    let file = std::env::args().nth(1).expect("the file for the figures");
    let words = program();
    let runner = Runner::of(&words);
    let version = version();
    print!("{version}");
    let mut done = Vec::new();
    let mut failed = 0;
    let own = if runner == Runner::Wine { windows::CHECKS } else { UNIX };
    for (name, check) in CHECKS.iter().chain(own) {
        let start = Instant::now();
        let well = catch_unwind(AssertUnwindSafe(check)).is_ok();
        let mark = if well { "ok  " } else { "FAIL" };
        println!("  {mark} {name} ({:.1} s)", start.elapsed().as_secs_f64());
        failed += usize::from(!well);
        done.push(*name);
    }
    if failed > 0 {
        println!("{failed} failed");
        std::process::exit(1);
    }
    let size = std::fs::metadata(words.last().expect("a program")).expect("the binary").len();
    if version.contains("for armv7-") {
        assert!(size <= SMALL, "{size} bytes are too many for a small board");
    }
    let mut figures = json!({
        "version": version.trim(),
        "ran-under": runner.name(),
        "size": size,
        "shown": done,
    });
    if runner == Runner::Native {
        // Elsewhere it would be the emulator that is measured.
        let figure = |name: &str, value: Value| println!("  {name}: {value}");
        let memory = memory_at_start();
        assert!(memory <= SMALL, "a start takes {memory} bytes of memory");
        for (name, value) in [
            ("memory-at-start", json!(memory)),
            ("handshakes-per-second", json!(handshakes())),
            ("round-trips-per-second", json!(round_trips())),
        ] {
            figure(name, value.clone());
            figures[name] = value;
        }
    }
    std::fs::write(&file, format!("{figures:#}\n")).expect("the figures can be kept");
}

fn version() -> String {
    let mut command = program_command();
    let output = command.arg("version").output().expect("the program can be started");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8").replace('\r', "")
}

/// Sends both ways at once, and compares every byte. The end is said when all has come: stunnel 5.68 loses what
/// is under way to a TLS 1.2 peer that has said its end already, and counts it as sent to nobody.
fn transfer(plain: &PlainClient) {
    let stream = Stream::new(7);
    std::thread::scope(|scope| {
        scope.spawn(|| stream.send(&plain.0, TRANSFER).expect("the tunnel takes what is sent"));
        stream.receive(&plain.0, TRANSFER);
    });
    plain.shut();
    assert_eq!(plain.end(), ConnectionEnd::Fin);
}

fn client_end(tls: Tls) {
    let backend = Backend::echo();
    let peer = Stunnel::server(backend.address(), tls.conf());
    let ours = PskgateBuilder::new().toml(&client_toml(peer.address(), tls.toml())).start();
    transfer(&PlainClient::connect(ours.address("plain")));
    ours.expect_session(tls.name(), tls.any_suite());
}

fn server_end(tls: Tls) {
    let backend = Backend::echo();
    let ours = PskgateBuilder::new().toml(&server_toml(backend.address(), tls.toml())).start();
    let peer = client_to(ours.address("tls"), tls);
    transfer(&PlainClient::connect(peer.address()));
    ours.expect_session(tls.name(), tls.any_suite());
    assert_eq!(backend.accepted(), 1);
}

/// A stunnel4 that has the key.
fn client_to(server: SocketAddr, tls: Tls) -> Stunnel {
    Stunnel::client(server, &format!("PSKidentity = {IDENTITY}\n{}", tls.conf()))
}

fn both_ends() {
    let backend = Backend::echo();
    let pair = Pair::new(&backend);
    transfer(&pair.connect());
    pair.client.expect_session("TLSv1.3", "SHA256");
}

fn wrong_key() {
    let backend = Backend::echo();
    for tls in Tls::BOTH {
        let ours = PskgateBuilder::new().toml(&server_toml(backend.address(), tls.toml())).start();
        let client = format!("PSKidentity = {IDENTITY}\n{}", tls.conf());
        let keys = secret(IDENTITY, OTHER_KEY);
        let peer = Stunnel::client_with(ours.address("tls"), &keys, &client);
        let plain = PlainClient::connect(peer.address());
        plain.shut();
        assert!(plain.rest().0.is_empty());
        ours.wait_logged("handshake");
    }
    assert_eq!(backend.accepted(), 0, "a stranger has reached the backend");
}

fn changed_key() {
    let backend = Backend::echo();
    let pair = Pair::new(&backend);
    let plain = pair.connect();
    plain.echo(b"before");
    replace(&pair.server.folder().join("psk.txt"), &secret(IDENTITY, OTHER_KEY));
    assert_eq!(plain.end(), ConnectionEnd::Rst, "its key is gone");
}

/// One that leaves OpenSSL without a single cipher.
fn openssl_cnf() {
    let conf = "openssl_conf = a\n[a]\nproviders = b\n[b]\nnull = c\n[c]\nactivate = 1\n";
    let backend = Backend::echo();
    let gate =
        PskgateBuilder::new().toml(&server_toml(backend.address(), "")).file("empty.cnf", conf);
    let gate = gate.shell("export OPENSSL_CONF=empty.cnf");
    if version().contains("(the system's)") {
        let mut ours = gate.launch();
        assert_eq!(ours.exit_code(WAIT_TIMEOUT), Some(78), "{}", ours.log());
        ours.wait_logged("OpenSSL does not accept the TLS settings");
    } else {
        let ours = gate.start();
        PlainClient::connect(client_to(ours.address("tls"), Tls::V13).address())
            .echo(b"without it");
    }
}

fn loose_key_file() {
    use std::os::unix::fs::PermissionsExt;
    let gate = PskgateBuilder::new().toml(&server_toml("127.0.0.1:9", ""));
    let keys = gate.folder().join("psk.txt");
    std::fs::set_permissions(keys, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let mut ours = gate.launch();
    assert_eq!(ours.exit_code(WAIT_TIMEOUT), Some(78), "{}", ours.log());
    assert!(ours.log().contains("loose-permissions"), "{}", ours.log());
}

fn drains() {
    let backend = Backend::echo();
    let mut pair = Pair::new(&backend);
    pair.connect().echo(b"there and back");
    for end in [&mut pair.client, &mut pair.server] {
        assert_eq!(end.terminate(), Some(0), "{}", end.log());
    }
}

/// Has the program read in anew. What was just written lies in the page cache in pieces of up to megabytes, each
/// of which is mapped as a whole (Linux 6.18): 2 to 5 MB more than of a file that was there before.
fn forget(file: &Path) {
    let file = std::fs::File::open(file).expect("the binary");
    file.sync_all().expect("it is written");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("it is let go of");
}

/// Whoever could set them would lead the log elsewhere.
fn test_variables() {
    let words = program();
    let binary = std::fs::read(words.last().expect("a program")).expect("the binary");
    let has = |text: &str| binary.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(has("NOTIFY_SOCKET") || cfg!(windows), "is this test still reading the binary?");
    for name in ["PSKGATE_SYSLOG_SOCKET", "PSKGATE_JOURNAL_SOCKET"] {
        assert!(!has(name), "{name} is in the binary");
    }
}

/// The median of what is in memory when a start has come to rest, in bytes.
fn memory_at_start() -> u64 {
    let words = program();
    forget(Path::new(words.last().expect("a program")));
    let mut seen: Vec<u64> = (0..STARTS)
        .map(|_| {
            let ours = PskgateBuilder::new().toml(&server_toml("127.0.0.1:9", "")).start();
            let mut last = (0, Instant::now());
            until("memory to settle", WAIT_TIMEOUT, || {
                let now = ours.resident();
                if now != last.0 {
                    last = (now, Instant::now());
                }
                (last.1.elapsed() > Duration::from_secs(1)).then_some(now)
            })
        })
        .collect();
    seen.sort_unstable();
    seen[STARTS / 2]
}

/// New connections through two ends on this machine, a byte there and back over each.
fn handshakes() -> u64 {
    let backend = Backend::echo();
    let pair = Pair::new(&backend);
    let (door, count, start) = (pair.client.address("plain"), AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while start.elapsed() < MEASURED {
                    PlainClient::connect(door).echo(b"!");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    rate(count.into_inner(), start)
}

/// Questions and answers of 100 bytes over one connection through two ends on this machine.
fn round_trips() -> u64 {
    let backend = Backend::echo();
    let pair = Pair::new(&backend);
    let plain = pair.connect();
    let (mut count, start) = (0, Instant::now());
    while start.elapsed() < MEASURED {
        plain.echo(&[7; 100]);
        count += 1;
    }
    rate(count, start)
}

fn rate(count: u64, start: Instant) -> u64 {
    (count as f64 / start.elapsed().as_secs_f64()).round() as u64
}
