//! Reload: build everything, bind what is new, then commit. A failure at any step changes nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::plan::{Bound, Held, Plan, Prepared, files as files_of, limits};
use super::watcher::Files;
use super::{Load, Running, one_line, outside, warn};
use crate::config::diagnostic::{Diagnostic, Report, Severity};
use crate::config::model::{Config, Endpoint, Level, ServiceConfig, Source};
use crate::net::Acceptable;
use crate::observe::event::{Event, Scope};
use crate::observe::log;
use crate::observe::status;
use crate::tunnel::{Phase, Respawn, Service, Setup};

/// A listener at work, under the address that the file names it by.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) at: Vec<Endpoint>,
    address: String,
    descriptor: i64,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Acceptable>,
}

impl Door {
    /// Has a service accept from a listener. Every session holds a clone of `alive`.
    pub(super) fn open(
        service: &Arc<Service>,
        at: Vec<Endpoint>,
        address: String,
        listener: Acceptable,
        alive: &mpsc::Sender<()>,
    ) -> Self {
        let descriptor = listener.descriptor();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(service.clone().listen(listener, stopped, alive.clone()));
        Self { at, address, descriptor, stop, task }
    }

    /// Says where it is; `still`, when it was there before a reload.
    pub(super) fn announce(&self, service: &Service, still: bool) {
        let (address, descriptor) = (&self.address, self.descriptor);
        Event::Listening { address, descriptor, still }.log(service.scope(None));
    }

    /// Takes the listener from its service without closing it. Connections go on queueing in the
    /// kernel.
    async fn release(self) -> Option<Acceptable> {
        drop(self.stop);
        self.task.await.ok()
    }
}

/// A service and its listeners.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) service: Arc<Service>,
    pub(super) doors: Vec<Door>,
    /// What takes their place, where a program connects.
    pub(super) program: Option<Respawn>,
}

impl Live {
    /// Where it listens.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.doors.iter().map(|door| door.address.clone()).collect()
    }

    /// Whether it listens anywhere.
    pub(super) fn listens(&self) -> bool {
        !self.doors.is_empty()
    }
}

/// Tells each service which others are reached through it by a name.
pub(super) fn introduce(live: &[Live]) {
    let mut first = HashSet::new();
    for Live { service, .. } in live {
        // Of two sections with one name the first is meant.
        let named = if first.insert(service.name()) {
            reached_at(live, service.name())
        } else {
            Vec::new()
        };
        service.introduce(named);
    }
}

fn reached_at(live: &[Live], name: &str) -> Vec<Arc<Service>> {
    let is_reached =
        |service: &Arc<Service>| service.setup().asked_at().is_some_and(|(door, _)| door == name);
    live.iter().map(|live| &live.service).filter(|service| is_reached(service)).cloned().collect()
}

/// The Setups at work by name, in their order: a stunnel.conf may have two sections of one name.
pub(super) type Current = HashMap<String, VecDeque<Arc<Setup>>>;

/// What a reload has come to.
pub(super) type Prepare = Result<Box<(Config, Bound, Report)>, Box<Refused>>;

/// A reload that is being prepared. Dropped, it has changed nothing.
pub(super) struct Reload {
    who: &'static str,
    work: Pin<Box<dyn Future<Output = Option<Prepare>> + Send>>,
}

/// Waits for a reload to be prepared, where there is one.
pub(super) async fn prepared(
    reload: &mut Option<Reload>,
) -> Option<(&'static str, Option<Prepare>)> {
    let reload = reload.as_mut()?;
    Some((reload.who, (&mut reload.work).await))
}

impl Running {
    /// Begins to read the configuration and the keys again, and to bind what is new.
    pub(super) fn begin_reload(&mut self, load: &Load, who: &'static str) -> Reload {
        self.supervisor.reloading();
        let mut current: Current = HashMap::new();
        for live in &self.live {
            let setups = current.entry(live.service.name().to_owned()).or_default();
            setups.push_back(live.service.setup());
        }
        let doors = self.live.iter().flat_map(|live| &live.doors);
        let held = Held {
            services: doors.flat_map(|door| door.at.clone()).collect(),
            outside: self.windows.held(),
        };
        let inetd = self.inetd;
        let load = load.clone();
        let files = self.files.borrow().clone();
        let work = super::apart(move || prepare(&load, current, &held, &files, inetd));
        Reload { who, work: Box::pin(work) }
    }

    /// Commits what was prepared, or keeps what there is. What came of it is in the log, in the
    /// status and in the answer to whoever asked.
    pub(super) async fn finish_reload(
        &mut self,
        who: &str,
        prepared: Option<Prepare>,
    ) -> status::Reload {
        let (outcome, report) = match prepared {
            Some(Ok(prepared)) => {
                let (config, bound, report) = *prepared;
                let outcome = match Next::of(bound) {
                    Err(error) => Err(error.to_string()),
                    // The last step that can fail.
                    Ok(next) => match log::change(&config.log) {
                        Err(error) => Err(format!("cannot open the log: {error}")),
                        Ok(()) => {
                            self.commit(next).await;
                            Ok(())
                        }
                    },
                };
                (outcome, report)
            }
            Some(Err(refused)) => {
                if let Some(files) = refused.files {
                    self.files.send_replace(files);
                }
                (Err("what was running goes on unchanged".to_owned()), refused.report)
            }
            None => {
                let error = "reading the configuration has panicked, or there is no thread for it";
                (Err(error.to_owned()), Report::default())
            }
        };
        warn(&report);
        match &outcome {
            Ok(()) => {
                let services = self.live.len();
                Event::Reloaded { who, services }.log(Scope::PROGRAM);
            }
            Err(error) => Event::ReloadFailed { who, error }.log(Scope::PROGRAM),
        }
        // The first error says more to whoever has one line.
        self.trouble =
            outcome.as_ref().err().map(|kept| first_error(&report).unwrap_or(kept.clone()));
        let findings = report.diagnostics.iter().map(one_line).collect();
        self.record.reloaded(who, outcome.err(), findings)
    }

    async fn commit(&mut self, next: Next) {
        let Next { drain, files, windows, services: next } = next;
        self.windows.replace(windows);
        self.drain = drain;
        self.files.send_replace(files);
        let mut old: Vec<Live> = std::mem::take(&mut self.live);
        let mut doors: Vec<(String, Door)> = Vec::new();
        for live in &mut old {
            let name = live.service.name().to_owned();
            doors.extend(live.doors.drain(..).map(|door| (name.clone(), door)));
        }
        for (config, setup, listeners) in next {
            let name = config.name.value.as_str();
            let limits = limits(&config);
            let same = old.iter().position(|live| live.service.name() == name);
            let (service, program) = match same.map(|at| old.remove(at)) {
                Some(Live { service, program, .. }) => {
                    service.replace(setup, limits);
                    (service, program)
                }
                None => (Service::new(name, setup, limits, self.shared.clone()), None),
            };
            // What runs as it should goes on; stunnel would start it a second time.
            let program = match program.filter(|program| program.goes_on(&service)) {
                None => Respawn::of(&service, &self.alive),
                goes_on => goes_on,
            };
            let mut own = Vec::new();
            for listen in config.accept() {
                while let Some(at) =
                    doors.iter().position(|(_, door)| door.at.contains(&listen.at.value))
                {
                    let (owner, door) = doors.remove(at);
                    let door = if owner == name {
                        door
                    } else {
                        let address = door.address.clone();
                        let Some(listener) = door.release().await else { continue };
                        let at = vec![listen.at.value.clone()];
                        Door::open(&service, at, address, listener, &self.alive)
                    };
                    door.announce(&service, true);
                    own.push(door);
                }
            }
            for (at, address, listener) in listeners {
                let door = Door::open(&service, at, address, listener, &self.alive);
                door.announce(&service, false);
                own.push(door);
            }
            self.live.push(Live { service, doors: own, program });
        }
        introduce(&self.live);
        // What nobody wants any more: the listener closes with its last owner.
        drop(doors);
        for gone in old {
            self.retire(gone.service);
        }
    }

    /// A removed service drains like a stopping program.
    fn retire(&self, service: Arc<Service>) {
        let drain = self.drain;
        service.enter(Phase::Draining);
        tokio::spawn(async move {
            tokio::time::sleep(drain).await;
            service.enter(Phase::Stopping);
        });
    }
}

/// What was bound, in the runtime: from here on nothing can fail.
struct Next {
    drain: Duration,
    files: Files,
    windows: outside::Settled,
    services: Vec<(ServiceConfig, Setup, Vec<Fresh>)>,
}

/// A listener that is new, under the addresses that the file names it by, and where it is.
type Fresh = (Vec<Endpoint>, String, Acceptable);

impl Next {
    fn of(bound: Bound) -> std::io::Result<Self> {
        let mut services = Vec::new();
        bound.tell_absent();
        for Prepared { config, setup, listeners } in bound.services {
            let listeners = listeners.into_iter().map(|(at, listener)| {
                let address = listener.address().to_owned();
                Ok((at, address, listener.into_async()?))
            });
            services.push((config, setup, listeners.collect::<std::io::Result<_>>()?));
        }
        let windows = bound.outside.hand_over()?;
        Ok(Self { drain: bound.drain, files: bound.files, windows, services })
    }
}

/// The first of a report's errors, with its place.
fn first_error(report: &Report) -> Option<String> {
    let is_error = |finding: &&Diagnostic| finding.severity == Severity::Error;
    let first = report.diagnostics.iter().find(is_error)?;
    let at = first.place.as_ref().map(|at| format!("{}:{}: ", at.file.display(), at.line));
    Some(at.unwrap_or_default() + &first.message)
}

/// A reload that came to nothing.
#[derive(Debug)]
pub(super) struct Refused {
    report: Report,
    /// What was in force and what was refused, as it was when it was read: once any of it changes, it
    /// is worth another try.
    files: Option<Files>,
}

fn prepare(
    load: &Load,
    current: Current,
    held: &Held,
    files: &Files,
    inetd: bool,
) -> Result<Box<(Config, Bound, Report)>, Box<Refused>> {
    let (config, mut report) = load();
    let refused = |report, files| Err(Box::new(Refused { report, files }));
    let Some(config) = config else { return refused(report, None) };
    let files = Some(files.and(files_of(&config, &report)));
    let stdio = |service: &ServiceConfig| matches!(service.source, Source::Stdio);
    if config.services.iter().any(stdio) != inetd {
        // Its connection is there from the start, or never.
        report.push(
            Diagnostic::error("inetd-mode", "sections cannot come or go as a whole")
                .help("start the program anew with this file"),
        );
        return refused(report, files);
    }
    let Some(plan) = Plan::replacing(&config, current, &mut report) else {
        return refused(report, files);
    };
    let mut tell = |text: &str| {
        Event::Finding { level: Level::Warning, text: &text }.log(Scope::PROGRAM);
    };
    match plan.bind_beside(held, Vec::new(), &mut tell) {
        Ok(bound) => Ok(Box::new((config, bound, report))),
        Err(errors) => {
            report.diagnostics.extend(errors.into_iter().map(|error| error.diagnostic));
            refused(report, files)
        }
    }
}
