//! The three pairs that are compared, each with its own two processes and the settings it comes with.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::harness::{
    IDENTITY, KEY, WAIT_TIMEOUT, free_port, local, proc, root, secret, write_private,
};

/// Who carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Make {
    Pskgate,
    /// The same program and keys with a `stunnel.conf`, whose defaults are stunnel's.
    PskgateConf,
    /// The binary that `scripts/release` builds for [`RELEASED_TARGET`], if it is there.
    Released,
    Stunnel4,
    /// HAProxy in TCP mode over two hops without TLS: what any relay can reach here.
    Plain,
}

impl Make {
    /// In the order of the page.
    pub const COLUMNS: [Self; 5] =
        [Self::Pskgate, Self::PskgateConf, Self::Released, Self::Stunnel4, Self::Plain];
    /// Those whose goals are judged.
    pub const OWN: [Self; 3] = [Self::Pskgate, Self::PskgateConf, Self::Released];

    /// All that are there.
    pub fn all() -> Vec<Self> {
        let is_there = |make: &Self| *make != Self::Released || released().exists();
        Self::COLUMNS.into_iter().filter(is_there).collect()
    }

    pub fn is_own(self) -> bool {
        Self::OWN.contains(&self)
    }

    /// What its column is called.
    pub fn title(self) -> &'static str {
        match self {
            Self::PskgateConf => "pskgate, stunnel.conf",
            Self::Released => "pskgate, released binary",
            other => other.name(),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pskgate => "pskgate",
            Self::PskgateConf => "stunnel.conf",
            Self::Released => "released",
            Self::Stunnel4 => "stunnel4",
            Self::Plain => "plain relay",
        }
    }
}

/// What a key file holds, and what a pskgate's service says beyond its ports.
#[derive(Default)]
pub struct Wishes<'a> {
    /// More lines of both key files.
    pub more_keys: &'a str,
    /// More lines of pskgate's files, before the service.
    pub head: &'a str,
    /// Where the client end connects, when it is not the server end itself.
    pub between: Option<SocketAddr>,
    /// Where the server end listens, when something is in between.
    pub server_at: Option<SocketAddr>,
    /// Words before those of the program, such as those that enter a network namespace.
    pub through: [&'a [&'a str]; 2],
    /// Connect to see whether an end listens: at once, where the system's table takes a while to read.
    pub knock: bool,
    /// The plain port's address, when it is not loopback's.
    pub plain_at: Option<SocketAddr>,
}

/// A client end and a server end in front of a backend.
pub struct Pair {
    pub make: Make,
    ends: [End; 2],
    /// The client end's plain port.
    pub plain: SocketAddr,
    /// How long each end took from its start until it listened: server, client.
    pub started: [Duration; 2],
    _folder: TempDir,
}

struct End(Child);

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

static THREADS: OnceLock<String> = OnceLock::new();

/// How many threads each of pskgate's ends has from now on.
pub fn set_threads(number: &str) {
    THREADS.set(number.to_owned()).expect("said once");
}

impl Pair {
    pub fn start(make: Make, backend: SocketAddr) -> Self {
        Self::with(make, backend, &Wishes::default())
    }

    pub fn with(make: Make, backend: SocketAddr, wishes: &Wishes<'_>) -> Self {
        let folder = TempDir::new().expect("a folder for a pair");
        let inner = wishes.server_at.unwrap_or_else(|| local(free_port()));
        let plain = wishes.plain_at.unwrap_or_else(|| local(free_port()));
        let keys = folder.path().join("psk.txt");
        write_private(&keys, &format!("{}{}", secret(IDENTITY, KEY), wishes.more_keys));
        let own = folder.path().join("own.txt");
        write_private(&own, &secret(IDENTITY, KEY));
        let to = wishes.between.unwrap_or(inner);
        let ends = [("server", inner, backend, &keys), ("client", plain, to, &own)];
        let mut started = [Duration::ZERO; 2];
        let mut place = 0;
        let ends = ends.map(|(mode, accept, connect, keys)| {
            let text = text(make, mode, accept, connect, keys, wishes.head, folder.path());
            let file = folder.path().join(format!("{mode}.{}", ending(make)));
            write_private(&file, &text);
            let mut words: Vec<&str> = wishes.through[place].to_vec();
            let program = program(make);
            words.extend(program.iter().map(String::as_str));
            let file = file.to_str().expect("a path in UTF-8");
            words.push(file);
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).current_dir(folder.path());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let start = Instant::now();
            let child = command.spawn().expect("pskgate, stunnel4 and haproxy are installed");
            let end = End(child);
            wait_until_it_listens(&end, accept, wishes.knock);
            started[place] = start.elapsed();
            place += 1;
            end
        });
        Self { make, ends, plain, started, _folder: folder }
    }

    /// The process ids of server end and client end.
    pub fn ids(&self) -> [u32; 2] {
        [self.ends[0].0.id(), self.ends[1].0.id()]
    }

    /// Ends both in order.
    pub fn stop(mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        for end in &mut self.ends {
            let id = i32::try_from(end.0.id()).ok().and_then(Pid::from_raw).expect("a process");
            kill_process(id, Signal::TERM).expect("told to stop");
            let _ = end.0.wait();
        }
    }

    /// Processor time of both ends so far, user and system, in seconds.
    pub fn cpu(&self) -> f64 {
        self.ids().into_iter().map(cpu_of).sum()
    }

    /// Resident memory of each end in kB.
    pub fn resident(&self) -> [f64; 2] {
        self.ids().map(resident)
    }
}

fn ending(make: Make) -> &'static str {
    match make {
        Make::Pskgate | Make::Released => "toml",
        Make::PskgateConf | Make::Stunnel4 => "conf",
        Make::Plain => "cfg",
    }
}

/// The released binary that is measured, by the name that `scripts/release` gives it.
const RELEASED_TARGET: &str = "x86_64-unknown-linux-musl";

/// Where `scripts/release` leaves it.
pub fn released() -> PathBuf {
    let name = format!("pskgate-{}-{RELEASED_TARGET}", env!("CARGO_PKG_VERSION"));
    root().join("target/release-files").join(name)
}

fn program(make: Make) -> Vec<String> {
    let words: &[&str] = match make {
        Make::Pskgate | Make::PskgateConf => &[env!("CARGO_BIN_EXE_pskgate"), "run"],
        Make::Released => return vec![released().display().to_string(), "run".into()],
        Make::Stunnel4 => &["stunnel4"],
        Make::Plain => &["haproxy", "-db", "-f"],
    };
    words.iter().map(|&word| word.to_owned()).collect()
}

fn text(
    make: Make,
    mode: &str,
    accept: SocketAddr,
    connect: SocketAddr,
    keys: &Path,
    head: &str,
    folder: &Path,
) -> String {
    let (keys, log) = (keys.display(), folder.join(format!("{mode}.log")));
    let log = log.display();
    let client = mode == "client";
    match make {
        Make::Pskgate | Make::Released => {
            let who = if client { "psk-identity = \"client1\"\n" } else { "" };
            let threads = THREADS.get().map_or("1", String::as_str);
            format!(
                "threads = {threads}\n{head}\n[log]\noutput = \"{log}\"\n[services.bench]\nmode = \"{mode}\"\naccept = \"{accept}\"\n\
                 connect = \"{connect}\"\npsk-secrets = \"{keys}\"\n{who}"
            )
        }
        Make::PskgateConf | Make::Stunnel4 => {
            let who = if client { "client = yes\nPSKidentity = client1\n" } else { "" };
            format!(
                "foreground = yes\npid =\nsyslog = no\noutput = {log}\n[bench]\naccept = {accept}\nconnect = {connect}\n\
                 PSKsecrets = {keys}\n{who}"
            )
        }
        Make::Plain => format!(
            "global\n maxconn 9990\ndefaults\n mode tcp\n timeout connect 10s\n timeout client 1h\n timeout server 1h\n\
             listen bench\n bind {accept}\n server one {connect}\n"
        ),
    }
}

/// By the table of the namespace that it runs in: a connection would be a session, and what it costs is
/// another figure.
fn wait_until_it_listens(end: &End, at: SocketAddr, knock: bool) {
    let start = Instant::now();
    loop {
        let there = if knock {
            TcpStream::connect(at).is_ok()
        } else {
            proc::is_listened_on(end.0.id(), at.port())
        };
        if there {
            return;
        }
        // Under valgrind it takes its time.
        assert!(start.elapsed() < 3 * WAIT_TIMEOUT, "an end does not listen on {at}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// User and system time of a process so far, in seconds.
pub fn cpu_of(id: u32) -> f64 {
    proc::cpu(id).unwrap_or_default().as_secs_f64()
}

/// Resident memory in kB.
pub fn resident(id: u32) -> f64 {
    proc::memory(id, "VmRSS:").map_or(f64::NAN, |bytes| bytes as f64 / 1024.0)
}
