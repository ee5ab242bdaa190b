//! The running program: its services, its listeners for management, and what a reload replaces.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Request;
use super::active_service::ActiveService;
use super::files::Files;
use super::management::ManagementListeners;
use super::service_manager::{self, ServiceManagerNotifier};
use super::status::ReloadHistory;
use crate::config::model::{Level, Mode};
use crate::observe::event::{Event, LogContext};
use crate::observe::log;
use crate::tunnel::{ProcessResources, Service, SessionDetails, SessionInfo, SessionOutcome};

/// Services at work.
#[derive(Debug)]
pub struct Running {
    pub(super) live: Vec<ActiveService>,
    /// How many configurations have been in force before this one.
    pub(super) generation: u64,
    /// The one session of a program that inetd started.
    pub(super) only: Option<JoinHandle<SessionOutcome>>,
    pub(super) inetd: bool,
    pub(super) drain: Duration,
    pub(super) files: watch::Sender<Files>,
    pub(super) resources: Arc<ProcessResources>,
    pub(super) management: ManagementListeners,
    pub(super) record: ReloadHistory,
    pub(super) alive: mpsc::Sender<()>,
    pub(super) all_gone: mpsc::Receiver<()>,
    pub(super) manager_notifier: ServiceManagerNotifier,
    /// Why the last reload was refused, if it was.
    pub(super) trouble: Option<String>,
}

impl Running {
    /// The same under a service manager, which hears now that it serves.
    pub fn with_service_manager(mut self, manager_notifier: ServiceManagerNotifier) -> Self {
        self.manager_notifier = manager_notifier;
        let words = self.words();
        self.manager_notifier.ready(&words);
        self
    }

    /// How it is, in a line.
    pub(super) fn words(&self) -> String {
        let sessions = self.services().map(|service| service.count()).sum();
        let mut words = service_manager::words(self.live.len(), sessions, self.trouble.as_deref());
        for service in self.services() {
            words += &words_of_waiting(service);
        }
        for missing in self.missing_words() {
            words += &format!("; {missing}");
        }
        words
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
        self.management.open_waiting(requests);
    }
}

pub(super) fn reopen_log() {
    match log::reopen() {
        Ok(()) => Event::LogReopened.log(LogContext::PROGRAM),
        Err(error) => Event::LogNotReopened { error: &error }.log(LogContext::PROGRAM),
    }
}

/// Writes the open sessions to the log, whatever its level: somebody asked for them.
pub(super) fn list_sessions<'a>(services: impl Iterator<Item = &'a Arc<Service>>) {
    let mut count = 0;
    for service in services {
        for (number, info) in service.sessions() {
            let Some(SessionDetails { handshake, target, .. }) = info.details() else { continue };
            count += 1;
            let (up, down) = info.bytes();
            let SessionInfo { who, peer, since, .. } = &*info;
            let (terms, age) = (handshake.terms(), since.elapsed());
            Event::Listed { who, peer, terms, target, age, up, down }
                .log(LogContext { level: Some(Level::Debug), ..service.scope(Some(number)) });
        }
    }
    Event::ListedAll { count }.log(LogContext { level: Some(Level::Debug), ..LogContext::PROGRAM });
}

/// What a server waits for that lets nobody in because it has no key yet; nothing of another service.
fn words_of_waiting(service: &Service) -> String {
    let snapshot = service.snapshot();
    if snapshot.mode() != Mode::Server || !snapshot.secrets().is_empty() {
        return String::new();
    }
    let awaited: Vec<_> = snapshot.awaited_keys().collect();
    match awaited.as_slice() {
        [] => format!("; [{}] waits for its keys", service.name()),
        awaited => format!("; [{}] is {}", service.name(), awaited.join(" and ")),
    }
}
