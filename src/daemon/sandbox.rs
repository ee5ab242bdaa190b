//! What a running program can do no more: which places it writes to follows from the configuration,
//! and everything else is given up once they are open.

use std::io;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use super::control::paths;
use super::inside;
use crate::config::diagnostic::{Diagnostic, Diagnostics, SourceLocation};
use crate::config::model::{
    Config, Endpoint, Level, Program, Resolved, ServiceConfig, SocketOption,
};
use crate::observe::event::{Event, LogContext};
use crate::observe::log;
use crate::sys::sandbox::{self, SandboxStatus, WritablePath, WriteAccess};

/// Why there is none.
#[derive(Debug, Clone, Copy)]
pub enum NoSandboxReason<'a> {
    /// The file says so.
    Said(&'a Resolved<bool>),
    /// This service starts a program, which needs what the program itself does not.
    Exec(&'a ServiceConfig, &'a Program),
    /// This service connects from the addresses of others, which takes rights to the end.
    Transparent(&'a ServiceConfig),
}

/// Why a configuration runs without, if it does.
pub fn why_open(config: &Config) -> Option<NoSandboxReason<'_>> {
    let said = &config.process.sandbox;
    if !said.value {
        return Some(NoSandboxReason::Said(said));
    }
    let keeps = |service: &&ServiceConfig| service.transparent.value.source();
    let exec = |service: &'_ ServiceConfig| service.program().is_some();
    let found = config.services.iter().find(|service| exec(service) || keeps(service))?;
    Some(match found.program() {
        Some(program) => NoSandboxReason::Exec(found, program),
        None => NoSandboxReason::Transparent(found),
    })
}

/// Somewhere that the program writes.
struct WrittenFolder {
    path: PathBuf,
    uses: WriteAccess,
    place: Option<SourceLocation>,
}

/// Everything that it writes, and where its file says so.
fn wanted(config: &Config) -> Vec<WrittenFolder> {
    let mut all = Vec::new();
    let mut want = |path: &Path, uses, place: Option<&SourceLocation>| {
        all.push(WrittenFolder { path: path.to_owned(), uses, place: place.cloned() });
    };
    // A standard stream is copied, not opened.
    for output in config.log.output.iter().filter(|output| !log::is_stream(&output.value)) {
        want(&output.value, WriteAccess::Files, output.place());
    }
    if let Some(pid) = &config.process.pid {
        want(&pid.value, WriteAccess::Files, pid.place());
    }
    let accept = config.services.iter().flat_map(ServiceConfig::accept).map(|listen| &listen.at);
    for at in accept.chain(&config.http.listen) {
        if let Endpoint::Unix(path) = &at.value {
            want(path, WriteAccess::Sockets, at.place());
        }
    }
    if config.control.enabled.value && !config.is_inetd() {
        match &config.control.socket {
            Some(path) => want(&path.value, WriteAccess::Sockets, path.place()),
            None => {
                if let Ok(path) = paths::default_path(&paths::name(&config.file)) {
                    want(&path, WriteAccess::Sockets, None);
                }
            }
        }
    }
    all
}

/// The place that a path is in: its folder, or itself where it is no file to be made anew. A link
/// counts for what it leads to.
fn room(path: &Path, uses: WriteAccess) -> io::Result<WritablePath> {
    match WritablePath::stream(path) {
        Ok(room) if uses == WriteAccess::Files => Ok(room),
        _ => WritablePath::folder(&folder_of(path, uses), uses),
    }
}

fn folder_of(path: &Path, uses: WriteAccess) -> PathBuf {
    // Of a socket the name itself is made, and a link in its place is not followed.
    let real = (uses == WriteAccess::Files).then(|| path.canonicalize().ok()).flatten();
    let path = real.as_deref().unwrap_or(path);
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")).to_owned()
}

/// A sandbox that is being prepared, and later the one that holds.
#[derive(Debug, Default)]
pub struct Sandbox {
    rooms: Vec<WritablePath>,
    /// Paths that are in a room by the names which the start had for them.
    known: Vec<PathBuf>,
    root: Option<PathBuf>,
    closed: bool,
    walls: Option<SandboxStatus>,
}

impl Sandbox {
    /// Takes hold of the places that may be out of reach once the process has other rights and another
    /// root directory, and of nothing if the configuration runs without. To be called when everything
    /// is bound, and while there is one thread.
    pub fn prepare(config: &Config, root: Option<&Path>) -> Self {
        let mut this = Self { root: root.map(Path::to_owned), ..Self::default() };
        if why_open(config).is_some() || cfg!(sanitized) {
            return this;
        }
        this.closed = true;
        // Becoming another user takes away the right to.
        sandbox::clear_bounding_set();
        for WrittenFolder { path, .. } in
            wanted(config).iter().filter(|w| w.uses == WriteAccess::Sockets)
        {
            this.add(path, WriteAccess::Sockets);
            if let Some(root) = root {
                this.known.push(inside(root, path));
            }
        }
        this
    }

    fn add(&mut self, path: &Path, uses: WriteAccess) {
        // What is not there cannot be written to; whoever tries says so in better words.
        if let Ok(room) = room(path, uses) {
            self.rooms.push(room);
            self.known.push(path.to_owned());
        }
    }

    /// Gives up everything else, and says so in the log. To be called once the log is open and the
    /// rights are dropped, and while there is one thread.
    pub fn enter(&mut self, config: &Config) {
        // A sanitizer attaches to the process when it ends, and writes what it found to a file of its own.
        if cfg!(sanitized) {
            return;
        }
        let say = |level, text: &str| {
            Event::Finding { level, text: &text, code: None }.log(LogContext::PROGRAM)
        };
        match why_open(config) {
            Some(NoSandboxReason::Said(_)) => {
                return say(Level::Debug, "running without a sandbox, as the file says");
            }
            Some(NoSandboxReason::Exec(service, _)) => {
                let text = format!(
                    "running without a sandbox, because the service {} starts a program",
                    service.name.value
                );
                return say(Level::Notice, &text);
            }
            Some(NoSandboxReason::Transparent(service)) => {
                let text = format!(
                    "running without a sandbox, because the service {} connects from its peers' addresses",
                    service.name.value
                );
                return say(Level::Notice, &text);
            }
            None => {}
        }
        for WrittenFolder { path, .. } in
            wanted(config).iter().filter(|w| w.uses == WriteAccess::Files)
        {
            self.add(path, WriteAccess::Files);
        }
        // In the background the standard streams lead there.
        self.rooms.extend(WritablePath::stream(Path::new("/dev/null")));
        if let Err(error) = sandbox::set_no_new_privileges() {
            say(Level::Warning, &format!("cannot set no_new_privs: {error}"));
        }
        match sandbox::enter_sandbox(&self.rooms) {
            Ok(walls) => {
                self.walls = Some(walls);
                say(Level::Debug, words(walls));
            }
            Err(error) => {
                let text = format!("cannot limit writing to files (landlock): {error}");
                say(Level::Warning, &text);
            }
        }
        if let Err(error) = sandbox::retain_capabilities(powers(config)) {
            say(Level::Warning, &format!("cannot drop capabilities: {error}"));
        }
    }

    /// Refuses a new configuration that the process cannot follow any more, with the reasons in
    /// `report`.
    pub fn allows(&self, config: &Config, report: &mut Diagnostics) -> bool {
        if !self.closed {
            return true;
        }
        let before = report.diagnostics.len();
        const HELP: &str = "restart the program: its sandbox does not allow this while it runs";
        if let Some(NoSandboxReason::Exec(service, program)) = why_open(config) {
            let text = format!("the service {} starts a program now", service.name.value);
            let found = Diagnostic::error("needs-restart", text);
            report.push(found.at(program.path.place().cloned()).help(HELP));
        }
        // Without landlock writing is not limited.
        let limited = matches!(self.walls, Some(SandboxStatus::Full | SandboxStatus::Partial));
        for WrittenFolder { path, uses, place } in wanted(config) {
            // The pid file is written once, and the socket of a default name stays where it was.
            let settled =
                place.is_none() || config.process.pid.as_ref().is_some_and(|pid| pid.value == path);
            // Whoever tries a folder that is not there says so in better words.
            if !limited || settled || !self.is_there(&path, uses) || self.holds(&path, uses) {
                continue;
            }
            let what = match uses {
                WriteAccess::Sockets => "a socket",
                WriteAccess::Files | WriteAccess::Stream => "a log",
            };
            let text = format!(
                "{} is {what} in a folder that the running program may not write to",
                path.display()
            );
            report.push(Diagnostic::error("needs-restart", text).at(place).help(HELP));
        }
        report.diagnostics.len() == before
    }

    fn holds(&self, path: &Path, uses: WriteAccess) -> bool {
        if self.known.iter().any(|known| known == path) {
            return true;
        }
        let folder = self.folder(path, uses);
        self.rooms.iter().any(|room| room.allows(&folder, uses))
    }

    fn is_there(&self, path: &Path, uses: WriteAccess) -> bool {
        self.folder(path, uses).is_dir()
    }

    /// The folder that a path of the configuration means now.
    fn folder(&self, path: &Path, uses: WriteAccess) -> PathBuf {
        match (&self.root, uses) {
            (Some(root), WriteAccess::Sockets) => folder_of(&inside(root, path), uses),
            _ => folder_of(path, uses),
        }
    }
}

/// What is kept of root's, or of what a service manager gave.
fn powers(config: &Config) -> CapabilitySet {
    let is_debug =
        |option: &Resolved<SocketOption>| matches!(option.value, SocketOption::Debug(true));
    let debug = config.services.iter().any(|service| {
        let sockets = &service.sockets;
        sockets.accept.iter().chain(&sockets.downstream).chain(&sockets.upstream).any(is_debug)
    });
    let more = if debug { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
    sandbox::tunnel_capabilities() | more
}

/// How far this kernel limits writing and executing, in words.
pub fn words(walls: SandboxStatus) -> &'static str {
    match walls {
        SandboxStatus::Full => {
            "nothing is executed, and files are written beside log, pid file and sockets only"
        }
        SandboxStatus::Partial => {
            "nothing is executed, and files are written beside log, pid file and sockets only; this \
             kernel's landlock is an older one that does not limit everything"
        }
        SandboxStatus::Missing => {
            "this kernel has no landlock: writing files and executing programs are \
                           not limited"
        }
    }
}
