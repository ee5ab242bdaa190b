//! The two programs that a fault meets, started in the same way: pskgate, and stunnel4 beside it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslStream, SslVerifyMode, SslVersion,
};
use tempfile::TempDir;

use crate::harness::openssl::present;
use crate::harness::proc::is_listened_on;
use crate::harness::{
    IDENTITY, KEY, Process, Tls as Version, WAIT_TIMEOUT, free_port, local, program, secret, until,
    write_private,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    Pskgate,
    Stunnel,
}

/// An end that is to be started.
pub struct Order {
    maker: Maker,
    client: bool,
    accept: String,
    connect: String,
    /// Lines before the service, and lines in it: for pskgate, and for stunnel4.
    toml: [String; 2],
    conf: [String; 2],
    secrets: String,
    before: Option<String>,
    through: Vec<String>,
    dialect: Dialect,
    folder: TempDir,
}

/// What pskgate's file is written in. stunnel4 has its own alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Native,
    StunnelConf,
}

impl Order {
    /// TLS in, plain to `connect`.
    pub fn server(maker: Maker, connect: impl ToString) -> Self {
        Self::new(maker, false, connect.to_string())
    }

    /// Plain in, TLS to `connect`.
    pub fn client(maker: Maker, connect: impl ToString) -> Self {
        Self::new(maker, true, connect.to_string())
    }

    fn new(maker: Maker, client: bool, connect: String) -> Self {
        Self {
            maker,
            client,
            accept: format!("127.0.0.1:{}", free_port()),
            connect,
            toml: Default::default(),
            conf: Default::default(),
            secrets: secret(IDENTITY, KEY),
            before: None,
            through: Vec::new(),
            dialect: match maker {
                Maker::Pskgate => Dialect::Native,
                Maker::Stunnel => Dialect::StunnelConf,
            },
            folder: TempDir::new().expect("a folder for an end"),
        }
    }

    /// More lines of the service: as pskgate has them, and as stunnel4 does.
    pub fn lines(mut self, toml: &str, conf: &str) -> Self {
        self.toml[1] += &format!("{toml}\n");
        self.conf[1] += &format!("{conf}\n");
        self
    }

    /// More lines of the file, before the service.
    pub fn head(mut self, toml: &str, conf: &str) -> Self {
        self.toml[0] += &format!("{toml}\n");
        self.conf[0] += &format!("{conf}\n");
        self
    }

    /// For pskgate too a stunnel.conf, with the lines that stunnel4 has.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        if self.maker == Maker::Pskgate {
            self.dialect = dialect;
        }
        self
    }

    pub fn secrets(mut self, text: &str) -> Self {
        self.secrets = text.to_owned();
        self
    }

    pub fn connect(mut self, to: String) -> Self {
        self.connect = to;
        self
    }

    pub fn accept(mut self, at: impl ToString) -> Self {
        self.accept = at.to_string();
        self
    }

    /// Started by a shell that does this before.
    pub fn shell(mut self, line: &str) -> Self {
        self.before = Some(line.to_owned());
        self
    }

    /// Started by a program that becomes it in the end.
    pub fn through(mut self, words: &[impl AsRef<str>]) -> Self {
        self.through.extend(words.iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Its files are in memory.
    pub fn in_memory(mut self) -> Self {
        self.folder = TempDir::new_in("/dev/shm").expect("a folder in memory");
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The text of its configuration, as it is now.
    pub fn text(&self) -> String {
        let Self { accept, connect, toml, conf, .. } = self;
        let psk = self.folder().join("psk.txt");
        let psk = psk.display();
        match self.dialect {
            Dialect::Native => {
                let mode = if self.client { "client" } else { "server" };
                let who = if self.client {
                    format!("psk-identity = \"{IDENTITY}\"\n")
                } else {
                    String::new()
                };
                format!(
                    "{}[services.end]\nmode = \"{mode}\"\naccept = \"{accept}\"\nconnect = \"{connect}\"\n\
                     psk-secrets = \"psk.txt\"\n{who}{}",
                    toml[0], toml[1]
                )
            }
            Dialect::StunnelConf => {
                let mode = if self.client { "client = yes\n" } else { "" };
                let pid = if conf[0].contains("pid = ") { "" } else { "pid =\n" };
                let connect = connect.strip_prefix("unix:").unwrap_or(connect);
                format!(
                    "foreground = yes\n{pid}{}[end]\n{mode}accept = {accept}\nconnect = {connect}\n\
                     PSKsecrets = {psk}\n{}",
                    conf[0], conf[1]
                )
            }
        }
    }

    fn file(&self) -> &'static str {
        match self.dialect {
            Dialect::Native => "pskgate.toml",
            Dialect::StunnelConf => "stunnel.conf",
        }
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> End {
        write_private(&self.folder().join("psk.txt"), &self.secrets);
        let file = self.folder().join(self.file());
        write_private(&file, &self.text());
        let mut words = self.through.clone();
        if let Some(line) = &self.before {
            // What this process was handed down by others counts against nobody's limit. Not every
            // other shell can close a descriptor of two digits.
            let line = format!(
                "for fd in /proc/self/fd/*; do fd=${{fd##*/}}; [ $fd -le 2 ] || eval \"exec $fd>&-\"; \
                 done; {line} && exec \"$@\""
            );
            words.extend(["bash".into(), "-c".into(), line, "bash".into()]);
        }
        match self.maker {
            Maker::Pskgate => {
                let program = program().into_iter();
                words.extend(program.map(|word| word.into_string().expect("a plain name")));
                words.push("run".to_owned());
            }
            Maker::Stunnel => words.push("stunnel4".to_owned()),
        }
        words.push(file.display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.folder());
        command.env("RUNTIME_DIRECTORY", self.folder());
        let process = Process::spawn("an end", "stunnel4 strace iproute2", &mut command);
        let address = self.accept.parse().unwrap_or_else(|_| local(0));
        let end = End { process, address, order: self };
        if end.address.port() != 0 {
            until(&format!("an end to listen; it says\n{}", end.text()), WAIT_TIMEOUT, || {
                end.listens().then_some(())
            });
        } else {
            until("an end's Unix socket", WAIT_TIMEOUT, || {
                end.folder().join(end.order.accept.strip_prefix("unix:")?).exists().then_some(())
            });
        }
        end
    }
}

/// A running end.
pub struct End {
    process: Process,
    address: SocketAddr,
    order: Order,
}

impl Deref for End {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for End {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl End {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn folder(&self) -> &Path {
        self.order.folder()
    }

    /// How many lines it has logged.
    pub fn lines(&self) -> usize {
        self.err_bytes().iter().filter(|byte| **byte == b'\n').count()
    }

    /// Whether its port is listened on where it runs, without connecting: that would be a session.
    pub fn listens(&self) -> bool {
        is_listened_on(self.id(), self.address.port())
    }

    /// Writes its configuration anew, with these lines in the place of the former ones.
    pub fn rewrite(&mut self, toml: &str, conf: &str) {
        self.order.toml[1] = format!("{toml}\n");
        self.order.conf[1] = format!("{conf}\n");
        crate::harness::replace(&self.folder().join(self.order.file()), &self.order.text());
    }

    /// The answer to one question to pskgate's control socket.
    pub fn ask(&self, question: &str) -> String {
        use std::io::{BufRead, BufReader, Write};
        let path = self.folder().join("pskgate.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(path).expect("a control socket");
        stream.write_all(format!("{question}\n").as_bytes()).expect("asked");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("answered");
        answer
    }
}

/// A client's end of TLS in this process: OpenSSL as it comes, so that both makers meet the same one.
pub type Tls = SslStream<TcpStream>;

/// A client's context that presents this identity and key.
pub fn context(identity: &str, key: &str) -> SslContext {
    context_builder(identity, key).build()
}

/// The same for one version of TLS alone.
pub fn context_of(version: Version, identity: &str, key: &str) -> SslContext {
    let mut builder = context_builder(identity, key);
    let version = match version {
        Version::V12 => SslVersion::TLS1_2,
        Version::V13 => SslVersion::TLS1_3,
    };
    builder.set_min_proto_version(Some(version)).expect("a version");
    builder.set_max_proto_version(Some(version)).expect("a version");
    builder.build()
}

fn context_builder(identity: &str, key: &str) -> SslContextBuilder {
    let mut builder = SslContext::builder(SslMethod::tls_client()).expect("a context");
    // Whom it talks to is not the question here.
    builder.set_verify(SslVerifyMode::NONE);
    present(&mut builder, identity, key);
    builder
}

/// Connects from an address of the loopback's.
pub fn plain_from(to: SocketAddr, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    if from != Ipv4Addr::LOCALHOST {
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WAIT_TIMEOUT))?;
    stream.set_write_timeout(Some(WAIT_TIMEOUT))?;
    Ok(stream)
}

/// Presents any identity and key.
pub fn tls_as(identity: &str, key: &str, to: SocketAddr, from: Ipv4Addr) -> std::io::Result<Tls> {
    handshake(&context(identity, key), to, from)
}

fn handshake(context: &SslContext, to: SocketAddr, from: Ipv4Addr) -> std::io::Result<Tls> {
    let ssl = Ssl::new(context).map_err(std::io::Error::other)?;
    ssl.connect(plain_from(to, from)?).map_err(|_| std::io::Error::other("no handshake"))
}

/// Presents the identity of the tests.
pub fn tls(to: SocketAddr, from: Ipv4Addr) -> std::io::Result<Tls> {
    static CONTEXT: OnceLock<SslContext> = OnceLock::new();
    handshake(CONTEXT.get_or_init(|| context(IDENTITY, KEY)), to, from)
}

/// Sends a few bytes and expects them back.
pub fn echo(stream: &mut (impl std::io::Read + std::io::Write)) -> std::io::Result<()> {
    let mut back = [0; 16];
    stream.write_all(b"there and back!!")?;
    stream.read_exact(&mut back)?;
    if &back == b"there and back!!" { Ok(()) } else { Err(std::io::Error::other("other bytes")) }
}

/// What a member who connected again and again met.
pub struct Tally {
    pub times: Vec<Duration>,
    pub failed: usize,
}

impl Tally {
    /// The 99th percentile in milliseconds, from connecting to the first answer.
    pub fn p99(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        let place = (times.len() * 99).div_ceil(100).saturating_sub(1);
        times.get(place).map_or(f64::MAX, |time| time.as_secs_f64() * 1000.0)
    }
}

/// A member who connects, asks once and closes, over and over.
pub struct Member {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

impl Member {
    /// `connect` yields a connection that echoes.
    pub fn of<S: std::io::Read + std::io::Write>(
        connect: impl Fn() -> std::io::Result<S> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut tally = Tally { times: Vec::new(), failed: 0 };
            while !over.load(Ordering::Acquire) {
                let start = Instant::now();
                match connect().and_then(|mut stream| echo(&mut stream)) {
                    Ok(()) => tally.times.push(start.elapsed()),
                    Err(_) => tally.failed += 1,
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            tally
        });
        Self { stop, thread }
    }

    pub fn start(to: SocketAddr, from: Ipv4Addr) -> Self {
        Self::of(move || tls(to, from))
    }

    pub fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("a member")
    }
}
