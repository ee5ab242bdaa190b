//! The windows through which a running program is seen: bound with everything else, before rights are
//! dropped, and replaced by a reload as services' listeners are.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::bind_error::BindError;
use super::control::{Access, Crowd, Fresh, Guard, Ready, paths};
use super::{Request, inside};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::model::{Config, ControlConfig, Decided, Dialect, Endpoint, Level, Listen};
use crate::net::{self, Acceptable, Busy, Listener};
use crate::observe::event::{Event, Scope};

/// What a configuration wants to be seen through.
#[derive(Debug)]
pub(super) struct Outside {
    places: Vec<(Place, Decided<Endpoint>)>,
    /// How many identities get a label of their own in metrics.
    labels: usize,
    control: Option<Control>,
}

/// A control socket that is wanted.
#[derive(Debug)]
struct Control {
    place: Place,
    config: ControlConfig,
    /// How much it matters if nobody wrote a path and there is none to be had.
    level: Level,
}

/// One window; the same after a reload if it is equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Metrics, health and the status page.
    Http(Endpoint),
    /// The control socket, where such sockets are, under this name. It stays where it was when the
    /// program has become somebody else, whose default would be another.
    Control(OsString),
    /// The control socket at a path that somebody wrote.
    ControlAt(PathBuf),
}

impl Place {
    /// What it is called from inside another root directory, if that differs.
    fn inside(&self, root: &Path) -> Option<Self> {
        let place = match self {
            Self::ControlAt(path) => Self::ControlAt(inside(root, path)),
            Self::Http(Endpoint::Unix(path)) => Self::Http(Endpoint::Unix(inside(root, path))),
            Self::Http(_) | Self::Control(_) => return None,
        };
        (place != *self).then_some(place)
    }
}

/// What a running program has already.
#[derive(Debug, Default)]
pub(super) struct Held {
    places: Vec<Place>,
    access: Option<Access>,
}

/// Windows whose addresses are taken.
#[derive(Debug)]
pub(super) struct Bound {
    /// All that are wanted, those that are there already among them.
    wanted: Vec<Place>,
    /// Each under the names that a file may have for it.
    fresh: Vec<(Vec<Place>, New)>,
    labels: usize,
    access: Option<Access>,
    level: Level,
    /// Why there is no control socket.
    missing: Option<String>,
}

#[derive(Debug)]
enum New {
    Http(Listener),
    Control(Fresh),
}

#[derive(Debug)]
enum Waiting {
    Http(Acceptable),
    Control(Guard, Ready),
}

/// The same in the runtime: what comes now cannot fail.
#[derive(Debug)]
pub(super) struct Settled {
    wanted: Vec<Place>,
    fresh: Vec<(Vec<Place>, Waiting)>,
    labels: usize,
    access: Option<Access>,
    level: Level,
    missing: Option<String>,
}

/// Windows at work; they close when this is dropped.
#[derive(Debug)]
pub(super) struct Windows {
    waiting: Vec<(Vec<Place>, Waiting)>,
    open: Vec<(Vec<Place>, Open)>,
    /// Closed by a reload that somebody may have ordered there, who waits for its answer.
    closing: Vec<Task>,
    labels: watch::Sender<usize>,
    access: watch::Sender<Access>,
    requests: Option<mpsc::Sender<Request>>,
}

#[derive(Debug)]
struct Open {
    /// The name goes before the listener: a successor that found it refusing connections would take
    /// it for stale.
    guard: Option<Guard>,
    stop: Option<oneshot::Sender<()>>,
    task: Task,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Outside {
    pub(super) fn of(config: &Config) -> Self {
        let labels = config.http.labels.value as usize;
        let http = |at: &Decided<Endpoint>| (Place::Http(at.value.clone()), at.clone());
        // Who serves one connection is gone before anybody asks.
        let control = (config.control.enabled.value && !config.is_inetd()).then(|| Control {
            place: match &config.control.socket {
                Some(path) => Place::ControlAt(path.value.clone()),
                None => Place::Control(paths::name(&config.file)),
            },
            config: config.control.clone(),
            level: match config.dialect {
                Dialect::Native => Level::Notice,
                Dialect::Stunnel => Level::Debug,
            },
        });
        Self { places: config.http.listen.iter().map(http).collect(), labels, control }
    }

    /// Takes every address that is not held already. The control socket is the last of all: a program
    /// that has left its ports to this one is on its way out, and leaves its socket, too.
    pub(super) fn bind(
        self,
        held: &Held,
        errors: &mut Vec<BindError>,
        absent: &mut Vec<String>,
        busy: &mut Busy<'_>,
    ) -> Bound {
        let mut fresh = Vec::new();
        let is_new = |place: &Place| !held.places.contains(place);
        for (place, at) in self.places.iter().filter(|(place, _)| is_new(place)) {
            let listen = Listen { at: at.clone(), optional: false };
            let mut left_out = Vec::new();
            match net::bind(&listen, &[], &[], &mut left_out, busy) {
                Ok(listeners) => {
                    absent.extend(left_out.iter().map(|one| format!("[http]: {one}")));
                    let named = |l| (vec![place.clone()], New::Http(l));
                    fresh.extend(listeners.into_iter().map(named));
                }
                Err(error) => errors.push(cannot_bind(at, "http", &error)),
            }
        }
        let level = self.control.as_ref().map_or(Level::Debug, |control| control.level);
        let mut missing = None;
        let mut access = None;
        let mut wanted: Vec<_> = self.places.into_iter().map(|(place, _)| place).collect();
        if let Some(Control { place, config, .. }) = self.control.filter(|_| errors.is_empty()) {
            match access_of(&config, held.access.as_ref()) {
                Err(error) => errors.push(*error),
                Ok(rights) => {
                    if is_new(&place) {
                        match bind_control(&place, &config, &rights) {
                            Ok(new) => fresh.push((vec![place.clone()], New::Control(new))),
                            Err(Trouble::Fatal(error)) => errors.push(*error),
                            Err(Trouble::Missing(words)) => missing = Some(words),
                        }
                    }
                    access = Some(rights);
                    wanted.push(place);
                }
            }
        }
        Bound { wanted, fresh, labels: self.labels, access, level, missing }
    }
}

/// Why there is no control socket.
enum Trouble {
    /// Somebody wrote its path.
    Fatal(Box<BindError>),
    /// Nobody did.
    Missing(String),
}

#[cfg(unix)]
fn access_of(config: &ControlConfig, held: Option<&Access>) -> Result<Access, Box<BindError>> {
    Access::of(config, held).map_err(|(name, error)| {
        let diagnostic = Diagnostic::error("no-such-account", format!("[control] {error}"))
            .at(name.place().cloned())
            .help("write the name or number of a user or a group of this machine");
        let (kind, service) = (error.kind(), "control".into());
        Box::new(BindError { diagnostic, kind, service, is_own: false })
    })
}

#[cfg(not(unix))]
fn access_of(_: &ControlConfig, _: Option<&Access>) -> Result<Access, Box<BindError>> {
    Ok(Access::default())
}

fn bind_control(place: &Place, config: &ControlConfig, access: &Access) -> Result<Fresh, Trouble> {
    let missing = |why: &dyn std::fmt::Display| {
        Trouble::Missing(format!(
            "there is no control socket, and so no `status`, `reload` and `kick`: {why}; `[control] \
             socket` names another path, `enabled = false` does without"
        ))
    };
    match (place, &config.socket) {
        (Place::Control(name), _) => {
            let path = paths::default_path(name).map_err(|why| missing(&why))?;
            Fresh::bind_default(&path, access).map_err(|error| missing(&error))
        }
        (Place::ControlAt(path), Some(said)) => Fresh::bind(path, access)
            .map_err(|error| Trouble::Fatal(Box::new(cannot_bind(said, "control", &error)))),
        (Place::ControlAt(_), None) | (Place::Http(_), _) => Err(missing(&"no path")),
    }
}

fn cannot_bind<T>(at: &Decided<T>, table: &str, error: &io::Error) -> BindError {
    let diagnostic = Diagnostic {
        severity: Severity::Error,
        code: "cannot-listen",
        place: at.place().cloned(),
        message: format!("[{table}] cannot listen on {error}"),
        label: None,
        help: Some("another program has it, or this user may not: write another address".into()),
    };
    BindError { diagnostic, kind: error.kind(), service: table.into(), is_own: false }
}

impl Bound {
    /// The same once `root` is the root directory.
    pub(super) fn settle(&mut self, root: &Path) {
        for (names, _) in &mut self.fresh {
            let more: Vec<_> = names.iter().filter_map(|name| name.inside(root)).collect();
            names.extend(more);
        }
    }

    /// Hands the listeners to the current runtime. Nothing that runs has changed then.
    pub(super) fn hand_over(self) -> io::Result<Settled> {
        let Self { wanted, fresh: new, labels, access, level, mut missing } = self;
        let mut fresh = Vec::new();
        for (names, new) in new {
            let is_default = names.iter().any(|name| matches!(name, Place::Control(_)));
            let waiting = match new {
                New::Http(listener) => Waiting::Http(listener.into_async()?),
                New::Control(new) => match new.into_ready() {
                    Ok((guard, ready)) => Waiting::Control(guard, ready),
                    Err(error) if is_default => {
                        missing = Some(format!("there is no control socket: {error}"));
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            fresh.push((names, waiting));
        }
        Ok(Settled { wanted, fresh, labels, access, level, missing })
    }

    /// Opens all of it in the current runtime.
    pub(super) fn open(self) -> io::Result<Windows> {
        let mut windows = Windows {
            waiting: Vec::new(),
            open: Vec::new(),
            closing: Vec::new(),
            labels: watch::Sender::default(),
            access: watch::Sender::default(),
            requests: None,
        };
        windows.replace(self.hand_over()?);
        Ok(windows)
    }
}

impl Windows {
    /// Where they are.
    pub(super) fn held(&self) -> Held {
        let waiting = self.waiting.iter().flat_map(|(names, _)| names);
        let places = self.open.iter().flat_map(|(names, _)| names).chain(waiting).cloned();
        Held { places: places.collect(), access: Some(self.access.borrow().clone()) }
    }

    /// Begins to answer.
    pub(super) fn show(&mut self, requests: &mpsc::Sender<Request>) {
        for (names, waiting) in self.waiting.drain(..) {
            let open = match waiting {
                Waiting::Http(listener) => {
                    let labels = self.labels.subscribe();
                    let task = super::http::serve(listener, requests.clone(), labels);
                    Open { guard: None, stop: None, task: Task(tokio::spawn(task)) }
                }
                Waiting::Control(guard, ready) => {
                    Event::Controlled { path: &guard.path().display() }.log(Scope::PROGRAM);
                    let (stop, stopped) = oneshot::channel();
                    let crowd = Crowd::new(requests.clone(), self.access.subscribe());
                    let task = Task(tokio::spawn(ready.serve(crowd, stopped)));
                    Open { guard: Some(guard), stop: Some(stop), task }
                }
            };
            self.open.push((names, open));
        }
        self.requests = Some(requests.clone());
    }

    /// Opens the new ones and closes those that nobody wants any more.
    pub(super) fn replace(&mut self, settled: Settled) {
        let Settled { wanted, fresh, labels, access, level, missing } = settled;
        let is_wanted = |names: &[Place]| names.iter().any(|name| wanted.contains(name));
        let (stay, go) = std::mem::take(&mut self.open)
            .into_iter()
            .partition::<Vec<_>, _>(|(names, _)| is_wanted(names));
        self.open = stay;
        self.closing.retain(|task| !task.0.is_finished());
        for (_, Open { guard, stop, task }) in go {
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
                        "the control socket {path} keeps mode and group until a restart: {error}"
                    );
                    Event::Uncontrolled { level: Level::Warning, error: &error }
                        .log(Scope::PROGRAM);
                }
            }
            self.access.send_replace(access);
        }
        if let Some(error) = missing {
            Event::Uncontrolled { level, error: &error }.log(Scope::PROGRAM);
        }
        self.waiting.extend(fresh);
        if let Some(requests) = self.requests.clone() {
            self.show(&requests);
        }
    }
}
