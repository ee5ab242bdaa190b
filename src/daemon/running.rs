//! Services at work: serve, reload when asked, and drain at the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::control::Answer;
use super::files::Files;
use super::hours::Hours;
use super::live::Live;
use super::outside::Windows;
use super::reload::{Ask, Reloads};
use super::status::{self, Record};
use super::supervisor::{self, Supervisor};
use super::{Ended, Load, Pulse, Request};
use crate::config::model::Level;
use crate::observe::event::{Event, Scope};
use crate::observe::log;
use crate::observe::metrics::Totals;
use crate::tunnel::{Info, Phase, Reached, Service, Shared};

/// Services at work.
#[derive(Debug)]
pub struct Running {
    pub(super) live: Vec<Live>,
    /// The one session of a program that inetd started.
    pub(super) only: Option<JoinHandle<bool>>,
    pub(super) inetd: bool,
    pub(super) drain: Duration,
    pub(super) files: watch::Sender<Files>,
    pub(super) shared: Arc<Shared>,
    pub(super) windows: Windows,
    pub(super) record: Record,
    pub(super) alive: mpsc::Sender<()>,
    pub(super) all_gone: mpsc::Receiver<()>,
    pub(super) supervisor: Supervisor,
    /// Why the last reload was refused, if it was.
    pub(super) trouble: Option<String>,
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
    pub(super) fn words(&self) -> String {
        let sessions = self.services().map(|service| service.count()).sum();
        supervisor::words(self.live.len(), sessions, self.trouble.as_deref())
    }

    /// The services, in the order of their file.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.live.iter().map(|live| &live.service)
    }

    /// What the configuration in force was made of, for [`watch`](super::watcher::watch).
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
        let mut reloads = Reloads::new(load.clone());
        let mut hours = Hours::new();
        let who = loop {
            let request = tokio::select! {
                request = requests.recv() => request,
                Some(went_well) = finished(&mut only) => {
                    return if went_well { Ended::Drained } else { Ended::Failed };
                }
                step = reloads.step() => {
                    self.proceed(&mut reloads, step).await;
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
            match request {
                Some(Request::Reload(who)) => {
                    self.ask(&mut reloads, Ask { who, ..Ask::default() });
                }
                Some(Request::Changed { files: changed, unfinished }) => {
                    let who = "changed files";
                    self.ask(&mut reloads, Ask { who, changed, unfinished, ..Ask::default() });
                }
                Some(Request::Ask(command, asked)) => match Ask::of(command, asked) {
                    Ok(ask) => self.ask(&mut reloads, ask),
                    Err((command, asked)) => {
                        let services: Vec<_> = self.services().collect();
                        let view = status::View { phase: Phase::Running, live: &self.live };
                        status::answer(&command, &self.record, &services, &view, asked);
                    }
                },
                Some(Request::Pulse(asked)) => {
                    let listens = self.live.iter().any(Live::listens);
                    // Who asked may have gone.
                    let _ = asked.send(Pulse { phase: Phase::Running, listens });
                }
                Some(Request::ReopenLog) => reopen_log(),
                Some(Request::List) => list(self.services()),
                Some(Request::Stop(who)) => break who,
                // A sender that is gone without a word asks to stop as well.
                None => break "end of input",
            }
        };
        for asked in reloads.into_waiting() {
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
                    Some(Request::Reload(_) | Request::Changed { .. }) => {}
                    Some(Request::ReopenLog) => reopen_log(),
                    Some(Request::List) => list(services.iter()),
                    Some(Request::Ask(command, asked)) => {
                        let services: Vec<_> = services.iter().collect();
                        let view = status::View { phase: Phase::Draining, live: &[] };
                        status::answer(&command, &record, &services, &view, asked);
                    }
                    Some(Request::Pulse(asked)) => {
                        let _ = asked.send(Pulse { phase: Phase::Draining, listens: false });
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

/// Waits for the one session, where there is one.
async fn finished(only: &mut Option<JoinHandle<bool>>) -> Option<bool> {
    match only {
        Some(session) => Some(session.await.unwrap_or(false)),
        None => None,
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
            let Some(Reached { facts, target, .. }) = info.reached() else { continue };
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
