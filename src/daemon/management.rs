//! The listeners through which a running program is seen: bound with everything else, before rights are
//! dropped, and replaced by a reload as services' listeners are.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::bind_error::BindError;
use super::control::{Access, BoundControl, ControlConnections, ControlName, ReadyControl, paths};
use super::{Request, inside};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::model::{Config, ControlConfig, Dialect, Endpoint, Level, Listen, Resolved};
use crate::net::{self, AsyncListener, BusyRetry, Listener};
use crate::observe::event::{Event, LogContext};

/// What a configuration wants to be seen through.
#[derive(Debug)]
pub(super) struct ManagementConfig {
    addresses: Vec<(ManagementAddress, Resolved<Endpoint>)>,
    /// How many identities get a label of their own in metrics.
    labels: usize,
    control: Option<Control>,
}

/// A control socket that is wanted.
#[derive(Debug)]
struct Control {
    address: ManagementAddress,
    config: ControlConfig,
    /// Which decides how much it matters if nobody wrote a path and there is none to be had.
    dialect: Dialect,
}

impl Control {
    fn level(&self) -> Level {
        match self.dialect {
            Dialect::Native => Level::Notice,
            // stunnel has none, and who comes from there misses none.
            Dialect::Stunnel => Level::Debug,
        }
    }
}

/// One address; the same after a reload if it is equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ManagementAddress {
    /// Metrics, health and the status page.
    Http(Endpoint),
    /// The control socket, where such sockets are, under this name. It stays where it was when the
    /// program has become somebody else, whose default would be another.
    Control(OsString),
    /// The control socket at a path that somebody wrote.
    ControlAt(PathBuf),
}

impl ManagementAddress {
    /// What it is called from inside another root directory, if that differs.
    fn renamed_under_root(&self, root: &Path) -> Option<Self> {
        let address = match self {
            Self::ControlAt(path) => Self::ControlAt(inside(root, path)),
            Self::Http(Endpoint::Unix(path)) => Self::Http(Endpoint::Unix(inside(root, path))),
            Self::Http(_) | Self::Control(_) => return None,
        };
        (address != *self).then_some(address)
    }
}

/// What a running program has already.
#[derive(Debug, Default)]
pub(super) struct HeldAddresses {
    addresses: Vec<ManagementAddress>,
    access: Option<Access>,
}

/// Management listeners whose addresses are taken.
#[derive(Debug)]
pub(super) struct BoundManagement {
    /// All that are wanted, those that are there already among them.
    wanted: Vec<ManagementAddress>,
    /// Each under the names that a file may have for it.
    new_listeners: Vec<(Vec<ManagementAddress>, NewListener)>,
    labels: usize,
    access: Option<Access>,
    level: Level,
    /// Why there is no control socket.
    missing: Option<String>,
}

#[derive(Debug)]
enum NewListener {
    Http(Listener),
    Control(BoundControl),
}

#[derive(Debug)]
enum WaitingListener {
    Http(AsyncListener),
    Control(ControlName, ReadyControl),
}

/// The same in the runtime: what comes now cannot fail.
#[derive(Debug)]
pub(super) struct ReadyManagement {
    wanted: Vec<ManagementAddress>,
    new_listeners: Vec<(Vec<ManagementAddress>, WaitingListener)>,
    labels: usize,
    access: Option<Access>,
    level: Level,
    missing: Option<String>,
}

/// Management listeners at work; they close when this is dropped.
#[derive(Debug)]
pub(super) struct ManagementListeners {
    waiting: Vec<(Vec<ManagementAddress>, WaitingListener)>,
    open: Vec<(Vec<ManagementAddress>, OpenListener)>,
    /// Closed by a reload that somebody may have ordered there, who waits for its answer.
    closing: Vec<AbortOnDrop>,
    labels: watch::Sender<usize>,
    access: watch::Sender<Access>,
    requests: Option<mpsc::Sender<Request>>,
}

#[derive(Debug)]
struct OpenListener {
    /// The name goes before the listener: a successor that found it refusing connections would take
    /// it for stale.
    guard: Option<ControlName>,
    stop: Option<oneshot::Sender<()>>,
    task: AbortOnDrop,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ManagementConfig {
    pub(super) fn of(config: &Config) -> Self {
        let labels = config.http.labels.value as usize;
        let http =
            |at: &Resolved<Endpoint>| (ManagementAddress::Http(at.value.clone()), at.clone());
        // Who serves one connection is gone before anybody asks.
        let control = (config.control.enabled.value && !config.is_inetd()).then(|| Control {
            address: match &config.control.socket {
                Some(path) => ManagementAddress::ControlAt(path.value.clone()),
                None => ManagementAddress::Control(paths::name(&config.file)),
            },
            config: config.control.clone(),
            dialect: config.dialect,
        });
        Self { addresses: config.http.listen.iter().map(http).collect(), labels, control }
    }

    /// Takes every address that is not held already. The control socket is the last of all: a program
    /// that has left its ports to this one is on its way out, and leaves its socket, too.
    pub(super) fn bind(
        self,
        held: &HeldAddresses,
        errors: &mut Vec<BindError>,
        absent: &mut Vec<String>,
        busy: &mut BusyRetry<'_>,
    ) -> BoundManagement {
        let mut new_listeners = Vec::new();
        let is_new = |address: &ManagementAddress| !held.addresses.contains(address);
        for (address, at) in self.addresses.iter().filter(|(address, _)| is_new(address)) {
            let listen = Listen { at: at.clone(), optional: false };
            match net::bind(&listen, &[], &[], busy).all_or_nothing() {
                Ok((listeners, left_out)) => {
                    absent.extend(left_out.iter().map(|one| format!("[http]: {one}")));
                    let named = |l| (vec![address.clone()], NewListener::Http(l));
                    new_listeners.extend(listeners.into_iter().map(named));
                }
                Err(error) => errors.push(cannot_bind(at, "http", &error)),
            }
        }
        let mut level = self.control.as_ref().map_or(Level::Debug, Control::level);
        let mut missing = None;
        let mut access = None;
        let mut wanted: Vec<_> = self.addresses.into_iter().map(|(address, _)| address).collect();
        if let Some(control) = self.control.filter(|_| errors.is_empty()) {
            let Control { address, config, dialect } = control;
            match access_of(&config, held.access.as_ref()) {
                Err(error) => errors.push(*error),
                Ok(rights) => {
                    if is_new(&address) {
                        match bind_control(&address, &config, &rights, dialect) {
                            Ok(new) => new_listeners
                                .push((vec![address.clone()], NewListener::Control(new))),
                            Err(ControlError::Fatal(error)) => errors.push(*error),
                            Err(ControlError::Missing(words)) => missing = Some(words),
                            Err(ControlError::Taken(words)) => {
                                level = level.min(Level::Notice);
                                missing = Some(words);
                            }
                        }
                    }
                    access = Some(rights);
                    wanted.push(address);
                }
            }
        }
        BoundManagement { wanted, new_listeners, labels: self.labels, access, level, missing }
    }
}

/// Why there is no control socket.
enum ControlError {
    /// Somebody wrote its path.
    Fatal(Box<BindError>),
    /// Nobody did.
    Missing(String),
    /// Nobody did, and a program that runs has the one of this name: every dialect's users hear of it.
    Taken(String),
}

#[cfg(unix)]
fn access_of(config: &ControlConfig, held: Option<&Access>) -> Result<Access, Box<BindError>> {
    Access::of(config, held).map_err(|(name, error)| {
        let diagnostic = Diagnostic::error("no-such-account", format!("[control] {error}"))
            .at(name.place().cloned())
            .help("write the name or number of a user or group of this machine");
        let (kind, service) = (error.kind(), "control".into());
        Box::new(BindError { diagnostic, kind, service, is_own: false })
    })
}

#[cfg(not(unix))]
fn access_of(_: &ControlConfig, _: Option<&Access>) -> Result<Access, Box<BindError>> {
    Ok(Access::default())
}

fn bind_control(
    address: &ManagementAddress,
    config: &ControlConfig,
    access: &Access,
    dialect: Dialect,
) -> Result<BoundControl, ControlError> {
    let cure = match dialect {
        Dialect::Native => "set `[control] socket` to another path, or `enabled = false`",
        Dialect::Stunnel => {
            "write `; pskgate: control.socket = PATH` before the first section, or give this file another name"
        }
    };
    let words = |why: &dyn std::fmt::Display| {
        format!(
            "there is no control socket, so `status`, `reload` and `kick` do not work: {why}; {cure}"
        )
    };
    let missing = |why: &dyn std::fmt::Display| ControlError::Missing(words(why));
    let taken = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ControlError::Taken(words(&format_args!(
            "a program whose configuration has the same name uses it ({error})"
        ))),
        _ => missing(&error),
    };
    match (address, &config.socket) {
        (ManagementAddress::Control(name), _) => {
            let path = paths::default_path(name).map_err(|why| missing(&why))?;
            BoundControl::bind_default(&path, access).map_err(taken)
        }
        (ManagementAddress::ControlAt(path), Some(said)) => BoundControl::bind(path, access)
            .map_err(|error| ControlError::Fatal(Box::new(cannot_bind(said, "control", &error)))),
        (ManagementAddress::ControlAt(_), None) | (ManagementAddress::Http(_), _) => {
            Err(missing(&"no path"))
        }
    }
}

fn cannot_bind<T>(at: &Resolved<T>, table: &str, error: &io::Error) -> BindError {
    let diagnostic = Diagnostic {
        severity: Severity::Error,
        code: "cannot-listen",
        place: at.place().cloned(),
        message: format!("[{table}] cannot listen on {error}"),
        label: None,
        help: Some("another program uses it, or this user may not: choose another address".into()),
    };
    BindError { diagnostic, kind: error.kind(), service: table.into(), is_own: false }
}

impl BoundManagement {
    /// The same once `root` is the root directory.
    pub(super) fn rename_under_root(&mut self, root: &Path) {
        for (names, _) in &mut self.new_listeners {
            let more: Vec<_> =
                names.iter().filter_map(|name| name.renamed_under_root(root)).collect();
            names.extend(more);
        }
    }

    /// Hands the listeners to the current runtime. Nothing that runs has changed then.
    pub(super) fn into_ready(self) -> io::Result<ReadyManagement> {
        let Self { wanted, new_listeners: new, labels, access, level, mut missing } = self;
        let mut new_listeners = Vec::new();
        for (names, new) in new {
            let is_default = names.iter().any(|name| matches!(name, ManagementAddress::Control(_)));
            let waiting = match new {
                NewListener::Http(listener) => WaitingListener::Http(listener.into_async()?),
                NewListener::Control(new) => match new.into_ready() {
                    Ok((guard, ready)) => WaitingListener::Control(guard, ready),
                    Err(error) if is_default => {
                        missing = Some(format!("there is no control socket: {error}"));
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            new_listeners.push((names, waiting));
        }
        Ok(ReadyManagement { wanted, new_listeners, labels, access, level, missing })
    }

    /// Opens all of it in the current runtime.
    pub(super) fn open(self) -> io::Result<ManagementListeners> {
        let mut listeners = ManagementListeners {
            waiting: Vec::new(),
            open: Vec::new(),
            closing: Vec::new(),
            labels: watch::Sender::default(),
            access: watch::Sender::default(),
            requests: None,
        };
        listeners.replace(self.into_ready()?);
        Ok(listeners)
    }
}

impl ManagementListeners {
    /// Where they are.
    pub(super) fn held(&self) -> HeldAddresses {
        let waiting = self.waiting.iter().flat_map(|(names, _)| names);
        let addresses = self.open.iter().flat_map(|(names, _)| names).chain(waiting).cloned();
        HeldAddresses { addresses: addresses.collect(), access: Some(self.access.borrow().clone()) }
    }

    /// Begins to answer.
    pub(super) fn open_waiting(&mut self, requests: &mpsc::Sender<Request>) {
        for (names, waiting) in self.waiting.drain(..) {
            let open = match waiting {
                WaitingListener::Http(listener) => {
                    let labels = self.labels.subscribe();
                    let task = super::http::serve(listener, requests.clone(), labels);
                    OpenListener { guard: None, stop: None, task: AbortOnDrop(tokio::spawn(task)) }
                }
                WaitingListener::Control(guard, ready) => {
                    Event::Controlled { path: &guard.path().display() }.log(LogContext::PROGRAM);
                    let (stop, stopped) = oneshot::channel();
                    let connections =
                        ControlConnections::new(requests.clone(), self.access.subscribe());
                    let task = AbortOnDrop(tokio::spawn(ready.serve(connections, stopped)));
                    OpenListener { guard: Some(guard), stop: Some(stop), task }
                }
            };
            self.open.push((names, open));
        }
        self.requests = Some(requests.clone());
    }

    /// Opens the new ones and closes those that nobody wants any more.
    pub(super) fn replace(&mut self, ready: ReadyManagement) {
        let ReadyManagement { wanted, new_listeners, labels, access, level, missing } = ready;
        let is_wanted =
            |names: &[ManagementAddress]| names.iter().any(|name| wanted.contains(name));
        let (stay, go) = std::mem::take(&mut self.open)
            .into_iter()
            .partition::<Vec<_>, _>(|(names, _)| is_wanted(names));
        self.open = stay;
        self.closing.retain(|task| !task.0.is_finished());
        for (_, OpenListener { guard, stop, task }) in go {
            drop(guard);
            // An ordered end; without one it ends here.
            if stop.is_some() {
                self.closing.push(task);
            }
        }
        self.waiting.retain(|(names, _)| is_wanted(names));
        self.labels.send_replace(labels);
        if let Some(access) = access {
            let guards = self.open.iter().filter_map(|(_, open)| open.guard.as_ref());
            for guard in guards.filter(|_| *self.access.borrow() != access) {
                if let Err(error) = guard.allow(&access) {
                    let path = guard.path().display();
                    let error = format!(
                        "cannot change mode and group of the control socket {path} before a \
                         restart: {error}"
                    );
                    Event::Uncontrolled { level: Level::Warning, error: &error }
                        .log(LogContext::PROGRAM);
                }
            }
            self.access.send_replace(access);
        }
        if let Some(error) = missing {
            Event::Uncontrolled { level, error: &error }.log(LogContext::PROGRAM);
        }
        self.waiting.extend(new_listeners);
        if let Some(requests) = self.requests.clone() {
            self.open_waiting(&requests);
        }
    }
}
