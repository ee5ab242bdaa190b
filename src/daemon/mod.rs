//! The whole program's life: build every Setup, bind every listener, serve, drain, stop.
//!
//! Build everything, then commit: a start, a check and a reload run the same code, and a failure
//! changes nothing.

#[cfg(unix)]
pub mod activation;
pub mod budget;
pub mod control;
mod hours;
mod http;
mod outside;
#[cfg(unix)]
pub mod privileges;
mod reload;
pub mod signals;
mod status;
pub mod supervisor;
pub mod watcher;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::diagnostic::{Diagnostic, Report, Severity};
use crate::config::model::{
    Authentication, Config, Decided, Dialect, Endpoint, Level, Mode, Origin, ServiceConfig, Source,
};
use crate::net::{self, Listener};
use crate::observe::event::{Event, Scope};
use crate::observe::log;
use crate::observe::metrics::Totals;
use crate::secrets::SecretSet;
#[cfg(unix)]
use crate::sys::account;
use crate::sys::process;
use crate::tunnel::{Info, Limits, Phase, Reached, Service, Setup, Shared};
use budget::Budget;
use control::{Answer, Command};
use hours::Hours;
use outside::{Outside, Windows};
use reload::{Current, Door, Live, Reload, prepared};
use status::Record;
use supervisor::Supervisor;
use watcher::Files;

/// A configuration with everything that it needs read and built, and nothing begun.
#[derive(Debug)]
pub struct Plan {
    file: PathBuf,
    drain: Duration,
    files: Files,
    outside: Outside,
    services: Vec<(ServiceConfig, Setup)>,
}

/// A plan whose addresses are taken.
#[derive(Debug)]
pub struct Bound {
    file: PathBuf,
    drain: Duration,
    files: Files,
    outside: outside::Bound,
    services: Vec<Prepared>,
}

/// The addresses that a running program has already.
#[derive(Debug, Default)]
struct Held {
    services: Vec<Endpoint>,
    outside: outside::Held,
}

/// A service that only has to begin.
#[derive(Debug)]
struct Prepared {
    config: ServiceConfig,
    setup: Setup,
    /// Each under the addresses that the file names it by: one, unless it was inherited and stands
    /// for all of its service's.
    listeners: Vec<(Vec<Endpoint>, Listener)>,
}

/// Why an address could not be taken.
#[derive(Debug)]
pub struct BindError {
    /// In words, at the place where the address was written.
    pub diagnostic: Diagnostic,
    /// The system's kind.
    pub kind: std::io::ErrorKind,
    /// The service that wanted it.
    pub service: String,
}

/// Reads the configuration, at the start and at every reload: what could be decided, and whether it
/// may run.
pub type Load = Arc<dyn Fn() -> (Option<Config>, Report) + Send + Sync>;

/// What is asked of a running program.
#[derive(Debug)]
pub enum Request {
    /// Read the configuration and the keys again. With the name of who asks.
    Reload(&'static str),
    /// Open the log's file anew.
    ReopenLog,
    /// Write the open sessions to the log.
    List,
    /// Stop: drain the first time, at once the second. With the name of who asks.
    Stop(&'static str),
    /// A question or an order of somebody who waits for the answer.
    Ask(Command, oneshot::Sender<Answer>),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every session ended by itself or at the end of its time.
    Drained,
    /// A second request cut the drain short.
    Forced,
    /// The one session that there was did not end well, or never began.
    Failed,
}

impl Plan {
    /// Builds every service. Everything that is wrong with any of them goes to `report`; with an
    /// error there, of whatever origin, there is no plan.
    pub fn build(config: &Config, report: &mut Report) -> Option<Self> {
        Self::replacing(config, Current::new(), report)
    }

    /// The same for a program that runs already: keys that did not change keep their sessions.
    fn replacing(config: &Config, mut current: Current, report: &mut Report) -> Option<Self> {
        Self::with(config, report, |service, findings| {
            let previous = current.get_mut(&service.name.value).and_then(VecDeque::pop_front);
            Setup::build(service, previous.as_deref(), findings)
        })
    }

    /// The same with keys that come from elsewhere, for all services alike.
    pub fn with_secrets(
        config: &Config,
        secrets: &Arc<SecretSet>,
        report: &mut Report,
    ) -> Option<Self> {
        Self::with(config, report, |service, findings| {
            Setup::with_secrets(service, secrets.clone(), findings)
        })
    }

    fn with(
        config: &Config,
        report: &mut Report,
        mut build: impl FnMut(&ServiceConfig, &mut Vec<Diagnostic>) -> Result<Setup, Vec<Diagnostic>>,
    ) -> Option<Self> {
        let files = Files::look(files(config, report));
        let mut services = Vec::new();
        let mut findings = Vec::new();
        for service in &config.services {
            match build(service, &mut findings) {
                Ok(setup) => services.push((service.clone(), setup)),
                Err(errors) => findings.extend(errors),
            }
        }
        findings.extend(selfies(&services));
        // Two services may read one key file: its findings are said once.
        for finding in findings {
            if !report.diagnostics.contains(&finding) {
                report.diagnostics.push(finding);
            }
        }
        if report.has_errors() {
            return None;
        }
        Some(Self {
            file: config.file.clone(),
            drain: config.drain_timeout.value,
            files,
            outside: Outside::of(config),
            services,
        })
    }

    /// How many services and identities there are.
    pub fn size(&self) -> (usize, usize) {
        let identities = self.services.iter().map(|(_, setup)| setup.secrets().len()).sum();
        (self.services.len(), identities)
    }

    /// Takes every address. A busy one is tried again for 2 s.
    ///
    /// # Errors
    /// Every address that could not be taken; those that could are given back.
    pub fn bind(self) -> Result<Bound, Vec<BindError>> {
        self.bind_beside(&Held::default(), Vec::new())
    }

    /// The same where the service manager has opened sockets already: those at a service's position
    /// take the place of all of its addresses.
    ///
    /// # Errors
    /// As above.
    pub fn bind_inherited(self, sockets: Vec<Vec<Listener>>) -> Result<Bound, Vec<BindError>> {
        self.bind_beside(&Held::default(), sockets)
    }

    /// The same, but for addresses that are `held` already.
    fn bind_beside(
        self,
        held: &Held,
        inherited: Vec<Vec<Listener>>,
    ) -> Result<Bound, Vec<BindError>> {
        let mut inherited = inherited.into_iter();
        let mut services = Vec::new();
        let mut errors = Vec::new();
        let (held, seen) = (&held.services, &held.outside);
        for (config, setup) in self.services {
            let mut listeners = Vec::new();
            let sockets = inherited.next().unwrap_or_default();
            if !sockets.is_empty() {
                let all: Vec<_> =
                    config.accept().iter().map(|listen| listen.at.value.clone()).collect();
                listeners.extend(sockets.into_iter().map(|socket| (all.clone(), socket)));
                services.push(Prepared { config, setup, listeners });
                continue;
            }
            for listen in config.accept().iter().filter(|listen| !held.contains(&listen.at)) {
                let at = &listen.at.value;
                match net::bind(listen, config.accept(), &config.sockets.accept) {
                    Ok(bound) => {
                        #[cfg(unix)]
                        errors.extend(give_away(at, &config));
                        listeners.extend(bound.into_iter().map(|l| (vec![at.clone()], l)));
                    }
                    Err(error) => errors.push(cannot_bind(&config, &listen.at, &error)),
                }
            }
            let kept = config.accept().iter().any(|listen| held.contains(&listen.at));
            if let (true, false, Some(last)) =
                (listeners.is_empty(), kept || !errors.is_empty(), config.accept().last())
            {
                let nowhere = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
                errors.push(cannot_bind(&config, &last.at, &nowhere));
            }
            services.push(Prepared { config, setup, listeners });
        }
        let outside = self.outside.bind(seen, &mut errors);
        if errors.is_empty() {
            let Self { file, drain, files, .. } = self;
            Ok(Bound { file, drain, files, outside, services })
        } else {
            Err(errors)
        }
    }
}

/// What a file is called from inside `root`. One that is not in there keeps its name: stunnel's
/// users put a copy under it into the jail.
pub fn inside(root: &Path, file: &Path) -> PathBuf {
    file.strip_prefix(root).map_or_else(|_| file.to_owned(), |rest| Path::new("/").join(rest))
}

/// Everything on disk that the configuration was made of.
fn files(config: &Config, report: &Report) -> Vec<PathBuf> {
    let mut all = vec![config.file.clone()];
    all.extend(report.sources.keys().map(|file| config.base.join(file)));
    // Of an included directory, what comes next is of interest too.
    let folders = report.included.keys().filter_map(|file| file.parent());
    all.extend(folders.map(|folder| config.base.join(folder)));
    for service in &config.services {
        let Authentication::Psk(psk) = &service.auth;
        all.extend(psk.secrets.iter().map(|path| path.value.clone()));
    }
    all.sort();
    all.dedup();
    all
}

/// How many folders are watched on behalf of a configuration.
pub fn watched(config: &Config, report: &Report) -> usize {
    let files = files(config, report);
    let folders = files.iter().flat_map(|file| watcher::folders(file));
    folders.collect::<std::collections::BTreeSet<_>>().len()
}

/// Gives a Unix socket to whom its service names.
#[cfg(unix)]
fn give_away(at: &Endpoint, config: &ServiceConfig) -> Option<BindError> {
    let Endpoint::Unix(path) = at else { return None };
    let owner = &config.owner;
    let said = owner.user.as_ref().or(owner.group.as_ref())?;
    let given =
        privileges::numbers(owner).and_then(|(user, group)| account::give(path, user, group));
    let error = given.err()?;
    let error = std::io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    Some(cannot_bind(config, said, &error))
}

fn cannot_bind<T>(config: &ServiceConfig, at: &Decided<T>, error: &std::io::Error) -> BindError {
    use std::io::ErrorKind as Kind;
    let help = match error.kind() {
        Kind::AddrInUse => "another program has it: `ss -ltnp` shows which",
        Kind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
        Kind::AddrNotAvailable => "no interface of this machine has this address",
        _ => "write an address of this machine and a free port",
    };
    let diagnostic = Diagnostic {
        severity: Severity::Error,
        code: "cannot-listen",
        place: at.place().cloned(),
        message: format!("service {} cannot listen on {error}", config.name.value),
        label: None,
        help: Some(help.into()),
    };
    BindError { diagnostic, kind: error.kind(), service: config.name.value.clone() }
}

/// RFC 9257, 4.1 ("Selfie"): with the same identity and key on a client and on a server end of this
/// program, a peer can be made to talk to itself.
fn selfies(services: &[(ServiceConfig, Setup)]) -> Vec<Diagnostic> {
    let of = |mode| services.iter().filter(move |(config, _)| config.mode.value == mode);
    let mut findings = Vec::new();
    for (client, presented) in of(Mode::Client) {
        for (server, accepted) in of(Mode::Server) {
            let Authentication::Psk(psk) = &server.auth;
            let severity = match (&psk.allow_shared_keys.value, &psk.allow_shared_keys.origin) {
                (false, _) => Severity::Error,
                (true, Origin::Default(Dialect::Stunnel)) => Severity::Warning,
                (true, _) => continue,
            };
            // What counts is the identity that the client end presents.
            let shared = presented.identity().filter(|identity| {
                accepted.secrets().shared_with(presented.secrets()).any(|other| other == *identity)
            });
            if let Some(identity) = shared {
                findings.push(Diagnostic {
                    severity,
                    code: "shared-with-client",
                    place: server.name.place().cloned(),
                    message: format!(
                        "the client service {} and the server service {} have the identity \
                         {identity} and its key in common",
                        client.name.value, server.name.value
                    ),
                    label: None,
                    help: Some(
                        "give each direction a key of its own: with one, a peer can be made to \
                         talk to itself (or say allow-shared-keys = true)"
                            .into(),
                    ),
                });
            }
        }
    }
    findings
}

/// What the limit of descriptors leaves for sessions and for handshakes.
fn shared() -> Arc<Shared> {
    let Budget { sessions, handshakes } = Budget::of(process::raise_descriptor_limit());
    Shared::new(sessions, handshakes)
}

fn limits(config: &ServiceConfig) -> Limits {
    let said = |limit: &Option<Decided<u32>>| limit.as_ref().map(|n| n.value as usize);
    Limits {
        sessions: said(&config.limits.max_sessions),
        handshakes: said(&config.limits.max_handshakes),
    }
}

impl Bound {
    /// The same once the process has other rights, and `root` is its root directory if it changed.
    pub fn settled(mut self, root: Option<&Path>) -> Self {
        self.files.settle(|file| root.map_or_else(|| file.to_owned(), |root| inside(root, file)));
        if let Some(root) = root {
            self.outside.settle(root);
        }
        self
    }

    /// What a reload will not be able to read, now that the process has other rights. To be said at
    /// the start: whoever takes a key away later relies on it.
    pub fn out_of_reach(&self) -> Report {
        let found = self.files.out_of_reach().into_iter().map(|(path, error)| {
            let message = format!(
                "a reload will be refused, because {} cannot be read any more: {error}",
                path.display()
            );
            Diagnostic::warning("cannot-be-reloaded", message).help(
                "let the user that it runs as read it (mode 0640 and that user's group), and put a \
                 copy into the chroot if there is one; until then a restart does it",
            )
        });
        Report { diagnostics: found.collect(), ..Report::default() }
    }

    /// The address of every listener, with its service.
    pub fn addresses(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for service in &self.services {
            for (_, listener) in &service.listeners {
                all.push((service.config.name.value.clone(), listener.address().to_owned()));
            }
        }
        all
    }

    /// Starts every service inside the current runtime.
    ///
    /// # Errors
    /// The runtime has no room for a listener.
    pub fn start(self) -> std::io::Result<Running> {
        let (alive, all_gone) = mpsc::channel(1);
        let shared = shared();
        let mut live = Vec::new();
        let mut only = None;
        for Prepared { config, setup, listeners } in self.services {
            let name = config.name.value.as_str();
            let service = Service::new(name, setup, limits(&config), shared.clone());
            let mut doors = Vec::new();
            for (at, listener) in listeners {
                let address = listener.address().to_owned();
                let door = Door::open(&service, at, address, listener.into_async()?, &alive);
                door.announce(&service, false);
                doors.push(door);
            }
            if matches!(config.source, Source::Stdio) {
                only = Some(serve_stdio(&service, &alive)?);
            }
            live.push(Live { service, doors });
        }
        reload::introduce(&live);
        Event::Accepting.log(Scope::PROGRAM);
        let settling = shared.clone();
        tokio::spawn(async move { settling.settle().await });
        let files = watch::Sender::new(self.files);
        let inetd = only.is_some();
        let windows = self.outside.open()?;
        let record = Record::new(self.file);
        Ok(Running {
            live,
            only,
            inetd,
            drain: self.drain,
            files,
            shared,
            windows,
            record,
            alive,
            all_gone,
            supervisor: Supervisor::default(),
            trouble: None,
        })
    }
}

/// Services at work.
#[derive(Debug)]
pub struct Running {
    live: Vec<Live>,
    /// The one session of a program that inetd started.
    only: Option<JoinHandle<bool>>,
    inetd: bool,
    drain: Duration,
    files: watch::Sender<Files>,
    shared: Arc<Shared>,
    windows: Windows,
    record: Record,
    alive: mpsc::Sender<()>,
    all_gone: mpsc::Receiver<()>,
    supervisor: Supervisor,
    /// Why the last reload was refused, if it was.
    trouble: Option<String>,
}

impl Running {
    /// The same under a service manager, which hears now that it serves.
    pub fn supervised(mut self, supervisor: Supervisor) -> Self {
        self.supervisor = supervisor;
        let words = self.words();
        self.supervisor.ready(&words);
        self
    }

    /// How it is, in a line.
    fn words(&self) -> String {
        let sessions = self.services().map(|service| service.count()).sum();
        supervisor::words(self.live.len(), sessions, self.trouble.as_deref())
    }

    /// The services, in the order of their file.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.live.iter().map(|live| &live.service)
    }

    /// What the configuration in force was made of, for [`watcher::watch`].
    pub fn files(&self) -> watch::Receiver<Files> {
        self.files.subscribe()
    }

    /// Lets whoever may look from outside ask, through `requests`, which [`Running::serve`] answers.
    pub fn show(&mut self, requests: &mpsc::Sender<Request>) {
        self.windows.show(requests);
    }

    /// Serves, and reloads when it is asked to, until it is asked to stop; then drains.
    pub async fn serve(mut self, load: &Load, mut requests: mpsc::Receiver<Request>) -> Ended {
        let mut only = self.only.take();
        // Reading and binding may take seconds. Sessions go on meanwhile, and a signal to stop is heard.
        let mut reload: Option<Reload> = None;
        // Who asked while one was under way: what it reads may be older than the question.
        let mut again: Option<(&str, Vec<oneshot::Sender<Answer>>)> = None;
        let mut waiting: Vec<oneshot::Sender<Answer>> = Vec::new();
        let mut hours = Hours::new();
        let who = loop {
            let request = tokio::select! {
                request = requests.recv() => request,
                Some(went_well) = finished(&mut only) => {
                    return if went_well { Ended::Drained } else { Ended::Failed };
                }
                Some((who, prepared)) = prepared(&mut reload) => {
                    let outcome = self.finish_reload(who, prepared).await;
                    let words = self.words();
                    self.supervisor.reloaded(&words);
                    for asked in waiting.drain(..) {
                        let _ = asked.send(Answer::Reloaded(outcome.clone()));
                    }
                    reload = again.take().map(|(who, asked)| {
                        waiting = asked;
                        self.begin_reload(load, who)
                    });
                    continue;
                }
                day = hours.pass() => {
                    self.keep_time(day);
                    continue;
                }
                () = self.supervisor.due() => {
                    let words = self.words();
                    self.supervisor.beat(&words);
                    continue;
                }
            };
            let (request, asked) = match request {
                Some(Request::Ask(Command::Reload, asked)) => {
                    (Some(Request::Reload("the control socket")), Some(asked))
                }
                other => (other, None),
            };
            match request {
                Some(Request::Reload(who)) if reload.is_some() => {
                    again.get_or_insert((who, Vec::new())).1.extend(asked);
                }
                Some(Request::Reload(who)) => {
                    waiting.extend(asked);
                    reload = Some(self.begin_reload(load, who));
                }
                Some(Request::Ask(command, asked)) => {
                    let services: Vec<_> = self.services().collect();
                    let view = status::View { phase: Phase::Running, live: &self.live };
                    let _ = asked.send(status::answer(&command, &self.record, &services, &view));
                }
                Some(Request::ReopenLog) => reopen_log(),
                Some(Request::List) => list(self.services()),
                Some(Request::Stop(who)) => break who,
                // A sender that is gone without a word asks to stop as well.
                None => break "end of input",
            }
        };
        drop(reload);
        for asked in waiting.into_iter().chain(again.into_iter().flat_map(|(_, asked)| asked)) {
            let _ = asked.send(Answer::Refused("the program is stopping".into()));
        }
        // The windows stay open to the end: whoever waits for the drain wants to see who is left.
        let Self {
            live, drain, alive, shared, record, windows, mut all_gone, mut supervisor, ..
        } = self;
        Event::Draining { signal: who, limit: drain }.log(Scope::PROGRAM);
        let services: Vec<_> = live.into_iter().map(|live| live.service).collect();
        let words = || supervisor::farewell(services.iter().map(|service| service.count()).sum());
        supervisor.stopping(drain, &words());
        for service in &services {
            service.enter(Phase::Draining);
        }
        // Sessions and listeners hold a clone each; this one would keep `all_gone` waiting.
        drop(alive);
        let insisted = async {
            loop {
                match requests.recv().await {
                    Some(Request::Stop(_)) => return,
                    // A reload now would change nothing that is of use.
                    Some(Request::Reload(_)) => {}
                    Some(Request::ReopenLog) => reopen_log(),
                    Some(Request::List) => list(services.iter()),
                    Some(Request::Ask(command, asked)) => {
                        let services: Vec<_> = services.iter().collect();
                        let view = status::View { phase: Phase::Draining, live: &[] };
                        let _ = asked.send(status::answer(&command, &record, &services, &view));
                    }
                    None => std::future::pending().await,
                }
            }
        };
        let ended = tokio::select! {
            _ = all_gone.recv() => Ended::Drained,
            () = expire(drain, &services) => Ended::Drained,
            () = insisted => Ended::Forced,
            never = supervisor.keep(words) => match never {},
        };
        drop(windows);
        shared.settle_now();
        let mut totals = Totals::default();
        services.iter().for_each(|service| service.counters.add_to(&mut totals));
        Event::Stopped { totals: &totals }.log(Scope::PROGRAM);
        ended
    }
}

/// Begins the session whose connection this program was started with.
#[cfg(unix)]
fn serve_stdio(
    service: &Arc<Service>,
    alive: &mpsc::Sender<()>,
) -> std::io::Result<JoinHandle<bool>> {
    let (socket, peer) = net::inherited()?;
    let (service, alive) = (service.clone(), alive.clone());
    Ok(tokio::spawn(async move {
        let went_well = service.serve(socket, peer).await;
        drop(alive);
        went_well
    }))
}

/// There is no such thing here.
#[cfg(not(unix))]
fn serve_stdio(_: &Arc<Service>, _: &mpsc::Sender<()>) -> std::io::Result<JoinHandle<bool>> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Waits for the one session, where there is one.
async fn finished(only: &mut Option<JoinHandle<bool>>) -> Option<bool> {
    match only {
        Some(session) => Some(session.await.unwrap_or(false)),
        None => None,
    }
}

/// Does what may block on a thread of its own. None when it has panicked, or there is no thread to be
/// had.
fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Option<T>> + Send + 'static {
    let (done, result) = oneshot::channel();
    let spawned = std::thread::Builder::new().name("apart".into()).spawn(move || {
        // Nobody waits any more when the program stops.
        let _ = done.send(work());
    });
    async move {
        spawned.ok()?;
        result.await.ok()
    }
}

fn reopen_log() {
    match log::reopen() {
        Ok(()) => Event::LogReopened.log(Scope::PROGRAM),
        Err(error) => Event::LogNotReopened { error: &error }.log(Scope::PROGRAM),
    }
}

/// Whoever asks gets an answer, whatever the level of the log.
fn list<'a>(services: impl Iterator<Item = &'a Arc<Service>>) {
    let mut count = 0;
    for service in services {
        for (number, info) in service.sessions() {
            let Some(Reached { facts, target }) = info.reached() else { continue };
            count += 1;
            let (up, down) = info.bytes();
            let Info { who, peer, since, .. } = &*info;
            let (terms, age) = (facts.terms(), since.elapsed());
            Event::Listed { who, peer, terms, target, age, up, down }
                .log(Scope { level: Some(Level::Debug), ..service.scope(Some(number)) });
        }
    }
    Event::ListedAll { count }.log(Scope { level: Some(Level::Debug), ..Scope::PROGRAM });
}

/// Lets sessions run to the deadline, and gives those that it cuts the time to say FIN.
async fn expire(drain: Duration, services: &[Arc<Service>]) {
    const FAREWELL: Duration = Duration::from_secs(1);
    tokio::time::sleep(drain).await;
    for service in services {
        service.enter(Phase::Stopping);
    }
    tokio::time::sleep(FAREWELL).await;
}

/// What does not keep the program from running goes to the log, where it is found later.
pub fn warn(report: &Report) {
    for finding in &report.diagnostics {
        let level = match finding.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
            Severity::Notice => Level::Debug,
        };
        let text = one_line(finding);
        Event::Finding { level, text: &text }.log(Scope::PROGRAM);
    }
}

/// A finding as one line of a log.
fn one_line(finding: &Diagnostic) -> String {
    let place = finding.place.as_ref();
    let place = place.map(|p| format!("{}:{}: ", p.file.display(), p.line)).unwrap_or_default();
    let help = finding.help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{place}{}{help}", finding.message)
}
