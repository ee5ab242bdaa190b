//! The program under test, as a process.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::proc::is_listened_on;
use super::{
    Backend, FaultProxy, IDENTITY, KEY, PlainClient, Process, WAIT_TIMEOUT, command_of, local,
    program, secret, until, write_private,
};

/// A native server service `tls`: TLS in, plain to `connect`. `extra` is more lines of the service.
pub fn server_toml(connect: impl Display, extra: &str) -> String {
    format!(
        "[services.tls]\nmode = \"server\"\naccept = \"127.0.0.1:0\"\nconnect = \"{connect}\"\n\
         psk-secrets = \"psk.txt\"\n{extra}\n"
    )
}

/// A native client service `plain`: plain in, TLS to `connect`. `extra` is more lines of the service.
pub fn client_toml(connect: impl Display, extra: &str) -> String {
    format!(
        "[services.plain]\nmode = \"client\"\naccept = \"127.0.0.1:0\"\nconnect = \"{connect}\"\n\
         psk-identity = \"{IDENTITY}\"\npsk-secrets = \"psk.txt\"\n{extra}\n"
    )
}

/// What is needed to start the program: a folder with its files, and how it is called.
pub struct PskgateBuilder {
    folder: TempDir,
    file: String,
    log: Option<PathBuf>,
    shell: Option<String>,
    host: Option<String>,
    terminal: bool,
}

impl PskgateBuilder {
    /// A folder in which `psk.txt` holds the one key of the tests.
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a folder for the test");
        write_private(&folder.path().join("psk.txt"), &secret(IDENTITY, KEY));
        let file = "pskgate.toml".to_owned();
        Self { folder, file, log: None, shell: None, host: None, terminal: false }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// One more file in the folder, for its owner only.
    pub fn file(self, name: &str, text: &str) -> Self {
        write_private(&self.folder().join(name), text);
        self
    }

    /// The native configuration.
    pub fn toml(self, text: &str) -> Self {
        self.file("pskgate.toml", text)
    }

    /// A `stunnel.conf` under a name of its own; `log` is its `output`, where there is one.
    pub fn conf(mut self, name: &str, text: &str, log: Option<&str>) -> Self {
        self.file = name.to_owned();
        self.log = log.map(|log| self.folder().join(log));
        self.file(name, text)
    }

    /// At most so many descriptors, hard.
    pub fn descriptors(self, most: u32) -> Self {
        self.shell(&format!("ulimit -n {most}"))
    }

    /// Started by a shell that does this before.
    pub fn shell(mut self, line: &str) -> Self {
        self.shell = Some(line.to_owned());
        self
    }

    /// In a terminal of its own, whose keys are the process's standard input. Its log has to go to a file.
    #[allow(dead_code, reason = "tests/binaries alone has a use for it")]
    pub fn terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// On one of the hosts of a [`TwoHosts`](super::TwoHosts).
    pub fn on(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Starts it and returns at once.
    pub fn launch(self) -> Pskgate {
        let before = match (&self.shell, &self.host) {
            (None, None) => Vec::new(),
            (None, Some(host)) => ["ip", "netns", "exec", host].map(OsString::from).to_vec(),
            (Some(line), _) => {
                let line = format!("{line} && exec \"$@\"");
                ["sh", "-c", &line, "sh"].map(OsString::from).to_vec()
            }
        };
        let mut words: Vec<_> = before.into_iter().chain(program()).collect();
        words.extend(["run", &self.file].map(OsString::from));
        if self.terminal {
            // One argument, which a shell takes apart again; none of the words has a blank.
            let line = format!("exec {}", words.join(OsStr::new(" ")).display());
            let script = ["script", "--quiet", "--return", "--command", &line, "/dev/null"];
            words = script.map(OsString::from).to_vec();
        }
        let mut command = command_of(words);
        command.current_dir(self.folder());
        // Its control socket is nobody else's.
        command.env("RUNTIME_DIRECTORY", self.folder());
        let process = Process::spawn("pskgate", "cargo", &mut command);
        Pskgate { process, builder: self }
    }

    /// Starts it and waits until every service of its file listens.
    pub fn start(self) -> Pskgate {
        let running = self.launch();
        if running.builder.is_native() {
            let text = running.builder.text();
            for name in text.lines().filter_map(service_name) {
                running.wait_logged(&format!("[{name}] listening on "));
            }
        } else {
            // At stunnel's own level there is no line about it.
            for (_, port) in running.builder.ports() {
                until(
                    &format!("port {port} to be listened on; the log is\n{}", running.log()),
                    WAIT_TIMEOUT,
                    || is_listened_on(std::process::id(), port).then_some(()),
                );
            }
        }
        running
    }

    fn is_native(&self) -> bool {
        self.file.ends_with(".toml")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.folder().join(&self.file)).expect("a configuration")
    }

    /// The sections of a `stunnel.conf` and the ports that they accept on.
    fn ports(&self) -> Vec<(String, u16)> {
        let mut found = Vec::new();
        let mut section = String::new();
        for line in self.text().lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some(accept) = line.strip_prefix("accept = ") {
                let port = accept.rsplit(':').next().unwrap_or(accept);
                found.push((section.clone(), port.parse().expect("a port after accept")));
            }
        }
        found
    }
}

fn service_name(line: &str) -> Option<&str> {
    let name = line.strip_prefix("[services.")?.strip_suffix(']')?;
    (!name.contains('.')).then_some(name)
}

/// The running program. Ends with its test.
pub struct Pskgate {
    process: Process,
    builder: PskgateBuilder,
}

impl Deref for Pskgate {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Pskgate {
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn folder(&self) -> &Path {
        self.builder.folder()
    }

    /// The log so far, wherever it goes.
    pub fn log(&self) -> String {
        let mut text = self.process.err();
        if let Some(file) = &self.builder.log {
            text += &std::fs::read_to_string(file).unwrap_or_default();
        }
        text
    }

    /// Waits until a line of the log contains `fragment`, and returns that line.
    pub fn wait_logged(&self, fragment: &str) -> String {
        if self.builder.log.is_none() {
            return self.process.wait_for(fragment, WAIT_TIMEOUT);
        }
        until(&format!("`{fragment}` in the log file"), WAIT_TIMEOUT, || {
            self.log().lines().find(|line| line.contains(fragment)).map(str::to_owned)
        })
    }

    /// Waits for the first session's line, and checks what it says about version and suite.
    pub fn expect_session(&self, version: &str, suite: &str) {
        // The log of a stunnel.conf has stunnel's words, among them none for the identity.
        let (mark, identity) = if self.builder.is_native() {
            ("session opened", IDENTITY)
        } else {
            (" ciphersuite: ", "")
        };
        let line = self.wait_logged(mark);
        for wanted in [identity, version, suite] {
            assert!(line.contains(wanted), "`{wanted}` is not in: {line}");
        }
    }

    /// Where `service` can be reached.
    pub fn address(&self, service: &str) -> SocketAddr {
        if !self.builder.is_native() {
            let ports = self.builder.ports();
            return local(
                ports.iter().find(|(name, _)| name == service).expect("such a section").1,
            );
        }
        let mark = format!("[{service}] listening on ");
        let line = self.wait_logged(&mark);
        let rest = line.split_once(&mark).expect("the mark is there").1;
        rest.trim().parse().unwrap_or_else(|error| panic!("no address in `{line}`: {error}"))
    }

    /// SIGTERM, and its exit code once it has ended.
    pub fn terminate(&mut self) -> Option<i32> {
        self.process.signal(Signal::TERM);
        self.process.wait(WAIT_TIMEOUT).code()
    }

    /// Waits for its end: the exit code.
    pub fn exit_code(&mut self, patience: Duration) -> Option<i32> {
        self.process.wait(patience).code()
    }
}

/// Two ends with a wire between them: plain → client end → wire → server end → backend.
pub struct Pair {
    pub server: Pskgate,
    pub wire: FaultProxy,
    pub client: Pskgate,
}

impl Pair {
    pub fn new(backend: &Backend) -> Self {
        Self::with(backend, "", "")
    }

    /// The same, with more lines for the server's and the client's service.
    pub fn with(backend: &Backend, server: &str, client: &str) -> Self {
        let server = PskgateBuilder::new().toml(&server_toml(backend.address(), server)).start();
        let wire = FaultProxy::to(server.address("tls"));
        let client = PskgateBuilder::new().toml(&client_toml(wire.address(), client)).start();
        Self { server, wire, client }
    }

    /// A plain connection to the client end.
    pub fn connect(&self) -> PlainClient {
        PlainClient::connect(self.client.address("plain"))
    }
}
