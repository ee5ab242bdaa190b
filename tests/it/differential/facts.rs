//! What comes of a configuration: whether it is accepted, where it listens, and what a peer with the
//! key meets there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openssl::ssl::{Ssl, SslContext, SslMethod, SslOptions, SslSessionCacheMode, SslVersion};
use tempfile::TempDir;

use super::corpus::{Case, bytes};
use crate::harness::process::computes;
use crate::harness::{
    IDENTITY, KEY, OTHER_KEY, Stopwatch, WAIT_TIMEOUT as HUNG, free_port, secret, write_private,
};

/// Whose behaviour is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    Stunnel,
    Pskgate,
    /// pskgate with the same file as TOML.
    Converted,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Refused,
    Accepted(Vec<String>),
}

impl Outcome {
    /// Whether a peer with the key got through to whoever is behind the tunnel.
    pub fn carried_a_tunnel(&self) -> bool {
        matches!(self, Self::Accepted(facts) if facts.iter().any(|fact| fact.contains(" -> ")))
    }
}

/// Beyond this nothing more is expected to happen, on a machine with nothing else to do.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// When no more listeners come for so long, and it does not compute meanwhile, it has them all.
const SETTLED: Duration = Duration::from_millis(20);
/// A program that neither listens nor ends has nothing to listen on; a busy address is tried for 2 s.
const SILENCE: Duration = Duration::from_secs(3);

/// A file that both programs leave alone.
#[derive(Debug, Default)]
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Runs a case, and what the program said about it.
pub fn run(case: &Case, program: Program, certificate: &Certificate) -> (Outcome, String) {
    run_in(&Place::new(case, certificate, Targets::AreHere), case, program)
}

/// Runs a case in a place that stays, with its files and ports, after the program has ended.
pub fn run_in(place: &Place, case: &Case, program: Program) -> (Outcome, String) {
    let mut running = Running::start(case, program, place);
    let outcome = if case.inetd { running.talk(case, place) } else { running.look(case, place) };
    running.end();
    let said = std::fs::read(place.folder().join("said")).unwrap_or_default();
    (outcome, String::from_utf8_lossy(&said).into_owned())
}

/// A folder with the case's files, its ports, and whoever is behind them.
pub struct Place {
    folder: TempDir,
    pub ports: BTreeMap<String, u16>,
    /// Name, and where it waits.
    peers: Vec<(String, Door)>,
    /// The Unix sockets of TLS servers that somebody else starts.
    elsewhere: Vec<PathBuf>,
}

/// Who answers at the ports of TLS servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// The test itself.
    AreHere,
    /// A program that the test starts later.
    AreElsewhere,
}

enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection of either kind.
pub trait Wire: Read + Write + Send {
    fn patience(&self, time: Duration);
}

impl Wire for TcpStream {
    fn patience(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}

impl Wire for UnixStream {
    fn patience(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}

pub type Line = Box<dyn Wire>;

impl Door {
    fn accept(&self) -> Option<Line> {
        match self {
            Self::Tcp(door) => door.accept().ok().map(|(stream, _)| {
                stream.set_nonblocking(false).unwrap();
                Box::new(stream) as Line
            }),
            Self::Unix(door) => door.accept().ok().map(|(stream, _)| {
                stream.set_nonblocking(false).unwrap();
                Box::new(stream) as Line
            }),
        }
    }
}

/// The words with a dollar sign in a text.
fn placeholders(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices('$') {
        let rest = &text[at + 1..];
        let rest = rest.strip_prefix("DIR/").map_or(rest, |_| &text[at..]);
        let word: String = rest
            .char_indices()
            .take_while(|(i, c)| c.is_ascii_alphanumeric() || (*i < 5 && matches!(c, '$' | '/')))
            .map(|(_, c)| c)
            .collect();
        let name = word.strip_prefix("$DIR/").unwrap_or(&word);
        let is_one = name.len() == 2
            && name.starts_with(['A', 'P', 'B', 'T', 'X'])
            && name.ends_with(|c: char| c.is_ascii_digit());
        if is_one {
            found.insert(word);
        }
    }
    found
}

impl Place {
    pub fn new(case: &Case, certificate: &Certificate, targets: Targets) -> Self {
        let folder = TempDir::new().expect("a folder for the case");
        let dir = folder.path().to_str().expect("a folder with a plain name").to_owned();
        let whole = case.whole();
        let mut place =
            Self { folder, ports: BTreeMap::new(), peers: Vec::new(), elsewhere: Vec::new() };
        let mut words = placeholders(&whole);
        for (_, text) in &case.files {
            words.extend(placeholders(text));
        }
        for word in words {
            place.prepare(&word, targets);
        }
        let fill = |text: &str| {
            let mut text = text.to_owned();
            for (name, port) in &place.ports {
                text = text.replace(&format!("${name}"), &port.to_string());
            }
            text.replace("$DIR", &dir)
                .replace("$CERTKEY", certificate.key.to_str().unwrap())
                .replace("$CERT", certificate.cert.to_str().unwrap())
        };
        let at = |name: &str| place.folder.path().join(name);
        let keys = secret(IDENTITY, KEY) + &secret("client2", OTHER_KEY);
        write_private(&at("psk.txt"), &keys);
        for (name, text) in &case.files {
            if let Some(parent) = at(name).parent() {
                std::fs::create_dir_all(parent).unwrap();
            }
            write_private(&at(name), "");
            std::fs::write(at(name), bytes(&fill(text))).unwrap();
        }
        std::fs::write(at("case.conf"), bytes(&fill(&whole))).unwrap();
        place
    }

    fn prepare(&mut self, word: &str, targets: Targets) {
        let (name, unix) = match word.strip_prefix("$DIR/") {
            Some(name) => (name, true),
            None => (word, false),
        };
        let is_peer = name.starts_with(['B', 'T']);
        let is_elsewhere = name.starts_with('T') && targets == Targets::AreElsewhere;
        if unix {
            if is_elsewhere {
                self.elsewhere.push(self.folder.path().join(name));
                return;
            }
            if is_peer {
                let door = UnixListener::bind(self.folder.path().join(name)).expect("a socket");
                door.set_nonblocking(true).unwrap();
                self.peers.push((format!("{name} on a Unix socket"), Door::Unix(door)));
            }
            return;
        }
        if !is_peer {
            self.ports.insert(name.to_owned(), free_port());
            return;
        }
        // The same number in both families.
        let (port, doors) = (0..50)
            .find_map(|_| {
                let port = free_port();
                let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
                let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok()?;
                Some((port, [(v4, "127.0.0.1"), (v6, "::1")]))
            })
            .expect("a port that is free in both families");
        for (door, host) in doors.into_iter().filter(|_| !is_elsewhere) {
            door.set_nonblocking(true).unwrap();
            self.peers.push((format!("{name} at {host}"), Door::Tcp(door)));
        }
        self.ports.insert(name.to_owned(), port);
    }

    /// Where the case's files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the TLS servers have to listen that somebody else starts, as `accept` has it.
    pub fn targets(&self) -> Vec<String> {
        let ports = self.ports.iter().filter(|(name, _)| name.starts_with('T'));
        let addresses =
            ports.flat_map(|(_, port)| [format!("127.0.0.1:{port}"), format!("::1:{port}")]);
        addresses.chain(self.elsewhere.iter().map(|path| path.display().to_string())).collect()
    }

    /// The next connection to a backend (`B`) or a TLS server (`T`).
    pub fn visitor(&self, kind: char) -> Option<(&str, Line)> {
        self.peers
            .iter()
            .filter(|(name, _)| name.starts_with(kind))
            .find_map(|(name, door)| door.accept().map(|line| (name.as_str(), line)))
    }

    /// The numbers of the sockets that listen where only the program would.
    fn listening(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for table in ["tcp", "tcp6"] {
            let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
            for line in text.lines() {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let Some((_, port)) = fields.get(1).and_then(|local| local.split_once(':')) else {
                    continue;
                };
                let name = self.named(u16::from_str_radix(port, 16).unwrap_or_default());
                if name.starts_with(['A', 'P']) {
                    found.extend(fields.get(9).map(|inode| (*inode).to_owned()));
                }
            }
        }
        let text = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, _, _, _, _, _, inode, path] = fields[..]
                && Path::new(path).parent() == Some(self.folder.path())
                && path.rsplit('/').next().is_some_and(|name| name.starts_with(['A', 'P']))
            {
                found.insert(inode.to_owned());
            }
        }
        found
    }

    fn named(&self, port: u16) -> String {
        let found = self.ports.iter().find(|(_, p)| **p == port);
        found.map_or_else(|| "some port".to_owned(), |(name, _)| name.clone())
    }
}

/// A program at work on a case.
pub struct Running {
    child: Child,
    /// The process that does the work: the child, or what it left in the background.
    worker: u32,
    stdio: Option<UnixStream>,
    conf: PathBuf,
    may_daemonise: bool,
}

#[derive(Debug, Clone)]
pub enum Listening {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Running {
    pub fn start(case: &Case, program: Program, place: &Place) -> Self {
        let dir = place.folder.path();
        let conf = dir.join("case.conf");
        let mut command = match program {
            Program::Stunnel => Command::new("stunnel4"),
            // A file alone, which is no .toml, is stunnel's command line.
            Program::Pskgate | Program::Converted => Command::new(env!("CARGO_BIN_EXE_pskgate")),
        };
        let said = std::fs::File::create(dir.join("said")).unwrap();
        let conf = if program == Program::Converted {
            let arguments = ["convert", "case.conf", "--output", "case.toml"];
            let done = crate::harness::process::pskgate(dir, &arguments);
            assert!(dir.join("case.toml").exists(), "{}: {}", case.name, done.err);
            command.arg("run");
            dir.join("case.toml")
        } else {
            conf
        };
        command.arg(&conf).current_dir(dir).env("RUNTIME_DIRECTORY", dir).stderr(said);
        let stdio = if case.inetd {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let output: OwnedFd = theirs.try_clone().unwrap().into();
            command.stdin(OwnedFd::from(theirs)).stdout(output);
            Some(ours)
        } else {
            command.stdin(Stdio::null()).stdout(Stdio::null());
            None
        };
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start {program:?} ({error}): install the Debian package stunnel4")
        });
        let worker = child.id();
        Self { child, worker, stdio, conf, may_daemonise: case.verbatim }
    }

    /// Waits for the end or for listeners; none at all, if it ended with an error.
    pub fn settle(&mut self, case: &Case, place: &Place) -> Option<Vec<(String, Listening)>> {
        let watch = Stopwatch::start();
        let mut last = (BTreeSet::new(), Vec::new());
        let mut changed = Instant::now();
        loop {
            if self.worker == self.child.id()
                && let Some(status) = self.child.try_wait().unwrap()
            {
                match self.background() {
                    Some(worker) if status.success() => self.worker = worker,
                    _ => return None,
                }
            }
            let sockets = self.sockets(place);
            // They are taken in one go: when no more come, it is all.
            if sockets != last.0 || last.1.is_empty() {
                let found = self.listeners(&sockets, place);
                if sockets != last.0 || !found.is_empty() {
                    changed = Instant::now();
                }
                last = (sockets, found);
            } else if computes(self.worker) {
                changed = Instant::now();
            } else if changed.elapsed() > if case.late { SILENCE } else { SETTLED } {
                return Some(last.1);
            }
            if last.1.is_empty() && !watch.is_within(SILENCE) && !computes(self.worker) {
                return Some(last.1);
            }
            std::thread::sleep(Duration::from_millis(8));
        }
    }

    /// Waits for the end or for listeners, and then visits each of them.
    fn look(&mut self, case: &Case, place: &Place) -> Outcome {
        let Some(listeners) = self.settle(case, place) else {
            return Outcome::Refused;
        };
        let mut facts = BTreeSet::new();
        let mut visited = BTreeSet::new();
        for (name, at) in listeners {
            facts.insert(match &at {
                Listening::Tcp(at) => format!("listens on {} {name}", at.ip()),
                Listening::Unix(_) => format!("listens on the Unix socket {name}"),
            });
            if !visited.insert(name.clone()) {
                continue;
            }
            for version in &case.versions {
                let met = match name.chars().next() {
                    Some('A') => meet_server(case, version, connect(&at), place),
                    Some('P') => meet_client(case, version, connect(&at), place),
                    _ => continue,
                };
                facts.insert(format!("{name}, up to {version}: {met}"));
            }
        }
        // It may have failed at what came after its first listener.
        if self.worker == self.child.id()
            && let Some(status) = self.child.try_wait().unwrap()
        {
            // Or it has left for the background meanwhile, with its listeners.
            match self.background() {
                Some(worker) if status.success() => self.worker = worker,
                _ => return Outcome::Refused,
            }
        }
        Outcome::Accepted(facts.into_iter().collect())
    }

    /// Standard input and output are the connection.
    fn talk(&mut self, case: &Case, place: &Place) -> Outcome {
        let stdio: Line = Box::new(self.stdio.take().unwrap());
        let is_client = place.peers.iter().any(|(name, _)| name.starts_with('T'));
        let met = if is_client {
            meet_client(case, "1.3", Some(stdio), place)
        } else {
            meet_server(case, "1.3", Some(stdio), place)
        };
        if met.contains(" -> ") {
            return Outcome::Accepted(vec![format!("standard input: {met}")]);
        }
        let watch = Stopwatch::start();
        while watch.is_within(WAIT_TIMEOUT) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return match status.code() {
                    Some(0) => Outcome::Accepted(vec![met]),
                    _ => Outcome::Refused,
                };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Outcome::Accepted(vec![met])
    }

    /// The process that a child left in the background: nobody else was given this file.
    fn background(&self) -> Option<u32> {
        let conf = self.conf.to_str().unwrap().as_bytes();
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let id: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let is_it = line.split(|byte| *byte == 0).any(|argument| argument == conf);
            (is_it && id != self.child.id()).then_some(id)
        })
    }

    /// The numbers of its open sockets.
    fn sockets(&self, place: &Place) -> BTreeSet<String> {
        // Only root sees those of a process that forbids dumps; but the case's ports are its own.
        if !rustix::process::geteuid().is_root() {
            return place.listening();
        }
        let folder = format!("/proc/{}/fd", self.worker);
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let link = std::fs::read_link(entry.path()).ok()?;
                let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
                Some(inode.to_owned())
            })
            .collect()
    }

    /// Those of them that listen.
    fn listeners(&self, inodes: &BTreeSet<String>, place: &Place) -> Vec<(String, Listening)> {
        let mut found = Vec::new();
        if inodes.is_empty() {
            return found;
        }
        for table in ["tcp", "tcp6"] {
            for at in listening(table, inodes) {
                found.push((place.named(at.port()), Listening::Tcp(at)));
            }
        }
        let text = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
        for line in text.lines() {
            const ACCEPTS: &str = "00010000";
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, _, _, flags, _, _, inode, path] = fields[..] else {
                continue;
            };
            if flags == ACCEPTS && inodes.contains(inode) {
                let name = Path::new(path).file_name().unwrap().to_string_lossy().into_owned();
                // stunnel has no control socket, and nobody is served there.
                if name == "case.sock" {
                    continue;
                }
                found.push((name, Listening::Unix(path.into())));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// Sends a signal to the process that does the work.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.worker).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.expect("its number"), signal).expect("it is there");
    }

    /// The exit code, once it has ended. None while it runs, and of one in the background.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().expect("a child").and_then(|status| status.code())
    }

    /// Whether the process that does the work is there.
    pub fn is_running(&mut self) -> bool {
        match self.worker == self.child.id() {
            true => self.child.try_wait().expect("a child").is_none(),
            false => self.background().is_some(),
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        while let Some(worker) = self.may_daemonise.then(|| self.background()).flatten() {
            let id = i32::try_from(worker).ok().and_then(rustix::process::Pid::from_raw);
            let _ = rustix::process::kill_process(id.unwrap(), rustix::process::Signal::KILL);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// The listening sockets of a table of the kernel's that are among these.
fn listening(table: &str, inodes: &BTreeSet<String>) -> Vec<SocketAddr> {
    const LISTEN: &str = "0A";
    let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            if *state != LISTEN || !inodes.contains(*inode) {
                return None;
            }
            let (ip, port) = local.split_once(':')?;
            let port = u16::from_str_radix(port, 16).ok()?;
            // Words of 32 bits in the machine's order.
            let mut octets = Vec::new();
            for word in ip.as_bytes().chunks(8) {
                let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
                octets.extend(word.to_ne_bytes());
            }
            let ip: IpAddr = match octets.len() {
                4 => <[u8; 4]>::try_from(octets).ok()?.into(),
                _ => <[u8; 16]>::try_from(octets).ok()?.into(),
            };
            Some(SocketAddr::new(ip, port))
        })
        .collect()
}

pub fn connect(to: &Listening) -> Option<Line> {
    match to {
        Listening::Tcp(at) => {
            let ip: IpAddr = match at.ip() {
                ip if !ip.is_unspecified() => ip,
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            let line = TcpStream::connect((ip, at.port())).ok()?;
            line.set_nodelay(true).unwrap();
            Some(Box::new(line))
        }
        Listening::Unix(path) => UnixStream::connect(path).ok().map(|line| Box::new(line) as Line),
    }
}

fn version(name: &str) -> SslVersion {
    match name {
        "1.0" => SslVersion::TLS1,
        "1.1" => SslVersion::TLS1_1,
        "1.2" => SslVersion::TLS1_2,
        "1.3" => SslVersion::TLS1_3,
        other => panic!("`{other}` is no version"),
    }
}

/// A peer that takes everything, so that the configuration decides.
fn context(
    method: SslMethod,
    newest: &str,
    key: impl FnOnce(&mut openssl::ssl::SslContextBuilder),
) -> SslContext {
    let mut builder = SslContext::builder(method).unwrap();
    builder.set_security_level(0);
    builder.set_cipher_list("ALL:eNULL:@SECLEVEL=0").unwrap();
    // Not the library's default, of which later ones have finite fields: with one of those a server may have
    // to leave out DHE (RFC 7919, 4).
    builder.set_groups_list("X25519:P-256:X448:P-521:P-384").unwrap();
    builder.set_min_proto_version(Some(SslVersion::TLS1)).unwrap();
    builder.set_max_proto_version(Some(version(newest))).unwrap();
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_options(SslOptions::NO_TICKET);
    builder.set_num_tickets(0).unwrap();
    key(&mut builder);
    builder.build()
}

fn negotiated(ssl: &openssl::ssl::SslRef) -> String {
    let suite = ssl.current_cipher().map_or("nothing", |cipher| cipher.name());
    format!("{} {suite}", ssl.version_str())
}

/// A TLS client before a server's port: what is negotiated, and who answers behind it.
fn meet_server(case: &Case, newest: &str, line: Option<Line>, place: &Place) -> String {
    let Some(line) = line else {
        return "cannot be connected to".to_owned();
    };
    line.patience(HUNG);
    let identity = case.identity.clone().unwrap_or_else(|| IDENTITY.to_owned());
    let key = case.key.clone().unwrap_or_else(|| KEY.into());
    let context = context(SslMethod::tls_client(), newest, |builder| {
        builder.set_psk_client_callback(move |_, _, name, psk| {
            name[..identity.len()].copy_from_slice(identity.as_bytes());
            name[identity.len()] = 0;
            psk[..key.len()].copy_from_slice(&key);
            Ok(key.len())
        });
    });
    let mut ssl = Ssl::new(&context).unwrap();
    if let Some(name) = &case.ask {
        ssl.set_hostname(name).unwrap();
    }
    let Ok(mut tls) = ssl.connect(line) else {
        return "refused".to_owned();
    };
    let negotiated = negotiated(tls.ssl());
    tls.get_ref().patience(Duration::from_millis(10));
    let watch = Stopwatch::start();
    let mut visitors = Vec::new();
    let mut piece = [0; 200];
    while watch.is_within(WAIT_TIMEOUT) {
        if let Some((name, mut visitor)) = place.visitor('B') {
            let _ = visitor.write_all(name.as_bytes());
            visitors.push(visitor);
        }
        match tls.read(&mut piece) {
            Ok(0) => return "refused".to_owned(),
            Ok(count) => {
                let who = String::from_utf8_lossy(&piece[..count]).trim_end().to_owned();
                return format!("{negotiated} -> {who}");
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return "refused".to_owned(),
        }
    }
    "no answer".to_owned()
}

/// A plain connection to a client's port, and the TLS server that it leads to.
fn meet_client(case: &Case, newest: &str, line: Option<Line>, place: &Place) -> String {
    let Some(mut line) = line else {
        return "cannot be connected to".to_owned();
    };
    let key = case.key.clone().unwrap_or_else(|| KEY.into());
    let seen = Arc::new(Mutex::new((String::new(), String::new())));
    let book = Arc::clone(&seen);
    let names = Arc::clone(&seen);
    let context = context(SslMethod::tls_server(), newest, |builder| {
        builder.set_psk_server_callback(move |_, identity, psk| {
            let identity = identity.unwrap_or_default();
            book.lock().unwrap().0 = String::from_utf8_lossy(identity).into_owned();
            let key = if identity == b"client2" { OTHER_KEY.as_bytes() } else { &key };
            psk[..key.len()].copy_from_slice(key);
            Ok(key.len())
        });
        builder.set_servername_callback(move |ssl, _| {
            let name = ssl.servername(openssl::ssl::NameType::HOST_NAME).unwrap_or("none");
            names.lock().unwrap().1 = name.to_owned();
            Ok(())
        });
    });
    line.patience(Duration::from_millis(3));
    let watch = Stopwatch::start();
    let mut piece = [0; 200];
    let (name, peer) = loop {
        if let Some(found) = place.visitor('T') {
            break found;
        }
        match line.read(&mut piece) {
            Ok(0) => return "ended".to_owned(),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => return "broken".to_owned(),
        }
        if !watch.is_within(WAIT_TIMEOUT) {
            return "leads nowhere".to_owned();
        }
    };
    peer.patience(HUNG);
    let Ok(mut tls) = Ssl::new(&context).unwrap().accept(peer) else {
        return "refused".to_owned();
    };
    let _ = tls.write_all(name.as_bytes());
    line.patience(HUNG);
    match line.read(&mut piece) {
        Ok(count) if count > 0 => {
            let who = String::from_utf8_lossy(&piece[..count]).into_owned();
            let (identity, sni) = seen.lock().unwrap().clone();
            let sni = if case.sni { format!(", name {sni}") } else { String::new() };
            format!("{} as {identity}{sni} -> {who}", negotiated(tls.ssl()))
        }
        _ => "refused".to_owned(),
    }
}
