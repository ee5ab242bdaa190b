//! The start of the program, step by step: `run FILE`, and `stunnel FILE` as stunnel does it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;

use super::version::stunnel_banner;
use super::{ConfigArgument, exit, exit_code_for, print_error, show_diagnostics};
use crate::config::diagnostic::{Diagnostics, escape};
use crate::config::model::{Config, Dialect, Foreground, Level, Origin, Resolved};
use crate::config::{self, Format};
#[cfg(target_os = "linux")]
use crate::daemon::sandbox::Sandbox;
use crate::daemon::service_manager::ServiceManagerNotifier;
use crate::daemon::{self, BindError, BoundConfig, BuiltConfig, Ended, Load, signals, watcher};
use crate::observe::event::{Event, LogContext};
use crate::observe::log::{self, Journal, StderrUse, Syslog};
use crate::sys::service_manager;
#[cfg(unix)]
use crate::{
    daemon::activation,
    daemon::privileges::Privileges,
    sys::{background::ForkedProcess, background::ReadyNotifier, pid_file},
};

/// Whether the program behaves as `pskgate run` or as `stunnel` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunMode {
    /// Always in the foreground, findings for people, exit codes after sysexits.h.
    Native,
    /// In the background unless the file says otherwise, findings in stunnel's shape, 0 or 1.
    Stunnel,
}

/// Where the configuration is, for the start and for every reload.
#[derive(Debug)]
pub(super) struct ConfigSource {
    text: ConfigInput,
    /// Where relative names begin: the directory that the program was started in.
    here: PathBuf,
    format: Format,
    /// The program's name if it has no configuration file.
    title: Option<PathBuf>,
    /// The root directory after chroot.
    root: OnceLock<PathBuf>,
}

#[derive(Debug)]
enum ConfigInput {
    File(PathBuf),
    /// A text from a descriptor, and its name. It cannot be read twice; key files can.
    Read(Vec<u8>, PathBuf),
}

impl ConfigSource {
    pub(super) fn file(path: &Path, format: Format) -> Self {
        Self::new(ConfigInput::File(path.to_owned()), format)
    }

    /// A text that was read already; `name` is what findings call it.
    pub(super) fn text(text: Vec<u8>, name: &str, format: Format) -> Self {
        Self::new(ConfigInput::Read(text, name.into()), format)
    }

    /// What a person named on the command line: a file, or `-` for standard input.
    ///
    /// # Errors
    /// Standard input cannot be read.
    pub(super) fn from_argument(path: &Path, format: Format) -> io::Result<Self> {
        if path != Path::new("-") {
            return Ok(Self::file(path, format));
        }
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::stdin().lock(), &mut text)?;
        let format = if format == Format::Auto { Format::Toml } else { format };
        Ok(Self::text(text, "standard input", format))
    }

    /// Gives a program without a file the name that `status` shows and its control socket has.
    pub(super) fn with_title(mut self, title: &str) -> Self {
        self.title = Some(title.into());
        self
    }

    fn new(text: ConfigInput, format: Format) -> Self {
        // The directory may have been removed; only relative names suffer.
        let here = std::env::current_dir().unwrap_or_default();
        Self { text, here, format, title: None, root: OnceLock::new() }
    }

    pub(super) fn load(&self) -> (Option<Config>, Diagnostics) {
        let inside = |path: &Path| match self.root.get() {
            Some(root) if path.is_absolute() => daemon::inside(root, path),
            _ => path.to_owned(),
        };
        let here = inside(&self.here);
        let (mut config, report) = match &self.text {
            ConfigInput::File(path) => config::survey_from(&here, &inside(path), self.format),
            ConfigInput::Read(text, name) => config::survey_text(text, name, &here, self.format),
        };
        if let (Some(config), ConfigInput::Read(..)) = (&mut config, &self.text) {
            match &self.title {
                Some(title) => config.file.clone_from(title),
                // A control socket is called after a file, and this was none.
                None if config.control.socket.is_none() => config.control.enabled.value = false,
                None => {}
            }
        }
        for service in config.iter_mut().flat_map(|config| &mut config.services) {
            let psk = &mut service.psk;
            for path in &mut psk.secrets {
                path.value = inside(&path.value);
            }
        }
        (config, report)
    }
}

impl RunMode {
    fn refuse_config(self, report: &Diagnostics) -> u8 {
        match self {
            Self::Native => {
                show_diagnostics(report);
                exit_code_for(report)
            }
            Self::Stunnel => {
                print_error(&report.render_stunnel());
                1
            }
        }
    }

    fn refuse_bind(self, mut report: Diagnostics, errors: Vec<BindError>) -> u8 {
        let denied = errors.iter().any(|e| e.kind == io::ErrorKind::PermissionDenied);
        match self {
            Self::Native => {
                report.diagnostics.extend(errors.into_iter().map(|error| error.diagnostic));
                show_diagnostics(&report);
                if denied { exit::NO_PERMISSION } else { exit::UNAVAILABLE }
            }
            Self::Stunnel => {
                let mut text = report.render_stunnel();
                for error in errors {
                    text += &format!(
                        "[!] {}\n[!] Binding service [{}] failed\n",
                        escape(&error.diagnostic.message),
                        escape(&error.service)
                    );
                }
                print_error(&text);
                1
            }
        }
    }

    /// Prints a note while the log is not open yet; not an error.
    fn print_note(self, text: &str) {
        match self {
            Self::Native => print_error(&format!("pskgate: {}", escape(text))),
            Self::Stunnel => print_error(&format!("[.] {}", escape(text))),
        }
    }

    fn fail(self, code: u8, text: &str) -> u8 {
        match self {
            Self::Native => {
                print_error(&format!("pskgate: {text}"));
                code
            }
            Self::Stunnel => {
                print_error(&format!("[!] {}", escape(text)));
                1
            }
        }
    }

    fn foreground(self, said: &Resolved<Foreground>) -> Foreground {
        match (self, &said.origin) {
            (Self::Native, Origin::Said(_)) if said.value != Foreground::No => said.value,
            (Self::Native, _) => Foreground::Yes,
            (Self::Stunnel, _) => said.value,
        }
    }

    /// stunnel in the foreground logs to standard error as well as to a file. `run` does so only for
    /// a file that says `foreground = yes`.
    fn stderr_use(self, config: &Config) -> StderrUse {
        let said = &config.process.foreground;
        // inetd makes standard error the connection, too.
        if config.is_inetd() && said.value != Foreground::Yes {
            return StderrUse::Never;
        }
        match self.foreground(said) {
            Foreground::No | Foreground::Quiet => StderrUse::Never,
            Foreground::Yes if config.dialect == Dialect::Native => StderrUse::WithoutFile,
            Foreground::Yes if said.value == Foreground::Yes => StderrUse::Always,
            Foreground::Yes => StderrUse::WithoutFile,
        }
    }
}

pub(super) fn main(file: &ConfigArgument) -> u8 {
    match file.source() {
        Ok((source, _)) => start_program(source, RunMode::Native),
        Err(code) => code,
    }
}

/// Everything up to listening is synchronous and said on standard error: when this program goes on,
/// its ports are open. In the background "goes on" means that the process that was started ends
/// with 0.
///
/// One function for all of it, because the order of the steps is what matters here: each of them needs what
/// the one before it left, and most cannot be undone. It reads as the list of a start in docs/DESIGN.md.
pub(super) fn start_program(source: ConfigSource, mode: RunMode) -> u8 {
    // Before anything is opened under their numbers.
    let manager = match service_manager::take_environment() {
        Ok(manager) => manager,
        Err(error) => {
            let text = format!("cannot use a descriptor of the service manager: {error}");
            return mode.fail(exit::UNAVAILABLE, &text);
        }
    };
    // Before the root directory changes.
    log::zone();
    let source = Arc::new(source);
    #[cfg_attr(not(unix), allow(unused_mut))]
    let (mut config, mut report) = source.load();
    #[cfg(unix)]
    let privileges = config.as_mut().and_then(|config| Privileges::of(config, &mut report));
    let plan = config.as_ref().and_then(|config| BuiltConfig::build(config, &mut report));
    let (Some(config), Some(plan)) = (config, plan) else {
        return mode.refuse_config(&report);
    };
    #[cfg(unix)]
    let Some(privileges) = privileges else {
        return mode.refuse_config(&report);
    };
    // Now, because from inside another root directory they could not be reached.
    let (syslog, journal) = (Syslog::open(&config.log), Journal::open(&config.log));
    #[cfg(unix)]
    let bound = match activation::assign(manager.sockets, &config) {
        Ok(listeners) => plan.bind_inherited(listeners, &mut |text| mode.print_note(text)),
        // Another start would be given the same.
        Err(error) => return mode.fail(exit::CONFIG, &error.to_string()),
    };
    #[cfg(not(unix))]
    let bound = plan.bind(&mut |text| mode.print_note(text));
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut bound = match bound {
        Ok(bound) => bound,
        Err(errors) => return mode.refuse_bind(report, errors),
    };
    let threads = config.process.threads.value as usize;
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut context = RunContext { threads, ..RunContext::default() };
    let (notify, unheard) = match manager.notify.transpose() {
        Ok(notify) => (notify, None),
        Err(error) => (None, Some(error)),
    };
    context.manager_notifier = ServiceManagerNotifier::new(notify, manager.watchdog);
    #[cfg(unix)]
    {
        // stunnel forks later; but here the parent waits for all of what follows, and the child
        // still has the right to make itself listen sharply.
        let background = mode.foreground(&config.process.foreground) == Foreground::No;
        if background && !config.is_inetd() {
            match crate::sys::background::fork() {
                Ok(ForkedProcess::Child(ready)) => {
                    context.ready = Some(ready);
                    context.manager_notifier = context.manager_notifier.forked();
                    log::set_background();
                }
                // What is open belongs to the child: nothing of it may be tidied up here.
                Ok(ForkedProcess::Parent { code, child }) => {
                    if code == 0 {
                        context.manager_notifier.hand_over(child);
                    }
                    std::process::exit(code.into())
                }
                Err(error) => {
                    let text = format!("cannot go into the background: {error}");
                    return mode.fail(exit::INTERNAL, &text);
                }
            }
        }
        context.pid_file = config.process.pid.as_ref().map(|path| path.value.clone());
        context.has_signal_thread =
            context.pid_file.is_some() && crate::sys::background::raise_thread_priority();
    }
    #[cfg(target_os = "linux")]
    let mut sandbox = Sandbox::prepare(&config, privileges.root());
    #[cfg(unix)]
    {
        if let Err(error) = privileges.take() {
            return mode.fail(exit::NO_PERMISSION, &privileges.explain(&error));
        }
        bound = bound.rename_under_root(privileges.root());
        if let Some(root) = privileges.root() {
            // Nobody else sets it.
            let _ = source.root.set(root.to_owned());
        }
    }
    if let Err(error) = log::init(&config.log, mode.stderr_use(&config), syslog, journal) {
        let path = config.log.output.as_ref().map(|path| path.display().to_string());
        let text = format!("cannot open the log {}: {error}", path.unwrap_or_default());
        return mode.fail(exit::CANNOT_CREATE, &text);
    }
    Event::Begun { banner: &stunnel_banner() }.log(LogContext::PROGRAM);
    daemon::warn(&report);
    #[cfg(unix)]
    if privileges.changes_something() {
        daemon::warn(&bound.find_unreadable());
    }
    if let Some(error) = unheard {
        let text = format!("cannot reach the service manager at NOTIFY_SOCKET: {error}");
        Event::Finding { level: Level::Warning, text: &text, code: None }.log(LogContext::PROGRAM);
    }
    // The log is open, and there is one thread still.
    #[cfg(target_os = "linux")]
    sandbox.enter(&config);
    if config.in_comments > 0 {
        let text = config::words_of_comments(config.in_comments);
        Event::Finding { level: Level::Notice, text: &text, code: None }.log(LogContext::PROGRAM);
    }
    Event::Configured.log(LogContext::PROGRAM);
    log::start();
    #[cfg(target_os = "linux")]
    let load: Load = Arc::new(move || {
        let (config, mut report) = source.load();
        (config.filter(|config| sandbox.allows(config, &mut report)), report)
    });
    #[cfg(not(target_os = "linux"))]
    let load: Load = Arc::new(move || source.load());
    let ended = if context.has_signal_thread {
        // Signals come to the first thread. It does nothing but wait for them, ahead of everybody.
        let run = move || run(bound, &load, context);
        let worker = std::thread::Builder::new().name("tunnel".into()).spawn(run);
        match worker.map(std::thread::JoinHandle::join) {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => Err(StartError(
                exit::INTERNAL,
                "the program has failed (a panic: please report it)".into(),
            )),
            Err(error) => Err(error.into()),
        }
    } else {
        run(bound, &load, context)
    };
    #[cfg(unix)]
    pid_file::remove();
    log::flush();
    match ended {
        Ok(Ended::Drained) => exit::OK,
        Ok(Ended::Forced | Ended::Failed) => exit::FORCED,
        Err(StartError(code, text)) => mode.fail(code, &text),
    }
}

/// What the start passes on to the running program.
#[derive(Default)]
#[cfg_attr(not(unix), allow(dead_code))]
struct RunContext {
    pid_file: Option<PathBuf>,
    /// Whether the first thread is kept free for signals.
    has_signal_thread: bool,
    /// How many threads carry sessions.
    threads: usize,
    manager_notifier: ServiceManagerNotifier,
    #[cfg(unix)]
    ready: Option<ReadyNotifier>,
}

/// An exit code and why.
struct StartError(u8, String);

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self(exit::INTERNAL, format!("cannot start: {error}"))
    }
}

fn run(bound: BoundConfig, load: &Load, context: RunContext) -> Result<Ended, StartError> {
    let runtime = match context.threads {
        0 | 1 => single_thread_runtime()?,
        several => multi_thread_runtime(several)?,
    };
    let ended = runtime.block_on(serve(bound, load, context));
    // A name that is still being looked up must not hold up the exit.
    runtime.shutdown_background();
    ended
}

async fn serve(bound: BoundConfig, load: &Load, context: RunContext) -> Result<Ended, StartError> {
    let (sender, requests) = mpsc::channel(4);
    // Signals first: none may end the program before it can drain.
    let stops = signals::listen(&sender)?;
    #[cfg(unix)]
    signals::reap_orphans()?;
    #[cfg(unix)]
    if let Some(path) = &context.pid_file {
        pid_file::create(path, &stops).map_err(|error| {
            let text = format!("cannot write the pid file {}: {error}", path.display());
            StartError(exit::CANNOT_CREATE, text)
        })?;
    }
    #[cfg(not(unix))]
    let _ = stops;
    let mut running = bound.start()?;
    running.show(&sender);
    #[cfg(unix)]
    if let Some(ready) = context.ready {
        ready.notify_parent()?;
    }
    let running = running.with_service_manager(context.manager_notifier);
    tokio::spawn(watcher::watch(running.files(), sender));
    tokio::spawn(async {
        tokio::time::sleep(TRIM_DELAY).await;
        crate::sys::memory::release_unused_memory();
    });
    Ok(running.serve(load, requests).await)
}

/// How long after the start unused memory is released. By then every task has run once and waits; pages that are
/// released earlier would be read in again (measured: 2 MB).
const TRIM_DELAY: Duration = Duration::from_millis(200);

/// Threads for calls that block, such as those of files. Names of sessions are not looked up there, but in
/// `net`: one that is never answered would hold such a thread.
const MAX_BLOCKING_THREADS: usize = 32;

/// For `threads` of 2 and more.
fn multi_thread_runtime(threads: usize) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("tunnel")
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
}

/// Tasks that run between two polls for I/O events. tokio's default of 61 would be 20 ms with busy sessions; a
/// poll costs a microsecond.
const EVENT_INTERVAL: u32 = 8;

/// One thread: a tunnel's work is in the kernel and in OpenSSL, and a PLC has one core to spare.
pub(super) fn single_thread_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
}
