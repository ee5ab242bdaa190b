//! Services at work and their listeners: what a start begins, a reload changes and `status` shows.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::model::{Endpoint, ServiceConfig};
use crate::net::{AsyncListener, MissingAddress};
use crate::observe::event::Event;
use crate::tunnel::{Respawn, Service, accept_connections};

/// A listener at work, under the address that the file names it by.
#[derive(Debug)]
pub(super) struct ActiveListener {
    pub(super) at: Vec<Endpoint>,
    pub(super) address: String,
    descriptor: i64,
    stop: oneshot::Sender<()>,
    task: JoinHandle<AsyncListener>,
}

impl ActiveListener {
    /// Has a service accept from a listener. Every session holds a clone of `alive`.
    pub(super) fn start(
        service: &Arc<Service>,
        at: Vec<Endpoint>,
        address: String,
        listener: AsyncListener,
        alive: &mpsc::Sender<()>,
    ) -> Self {
        let descriptor = listener.descriptor();
        let (stop, stopped) = oneshot::channel();
        let task =
            tokio::spawn(accept_connections(service.clone(), listener, stopped, alive.clone()));
        Self { at, address, descriptor, stop, task }
    }

    /// Says where it is; `is_kept`, when it was there before a reload.
    pub(super) fn announce(&self, service: &Service, is_kept: bool) {
        let (address, descriptor) = (&self.address, self.descriptor);
        Event::Listening { address, descriptor, still: is_kept }.log(service.scope(None));
    }

    /// Takes the listener from its service without closing it. Connections go on queueing in the
    /// kernel.
    pub(super) async fn release(self) -> Option<AsyncListener> {
        drop(self.stop);
        self.task.await.ok()
    }
}

/// A service and its listeners.
#[derive(Debug)]
pub(super) struct ActiveService {
    pub(super) service: Arc<Service>,
    /// What its service snapshot was made of.
    pub(super) config: Arc<ServiceConfig>,
    pub(super) active_listeners: Vec<ActiveListener>,
    /// What it does without until it can be had.
    pub(super) missing: Vec<MissingAddress>,
    /// What takes their place, where a program connects.
    pub(super) program: Option<Respawn>,
}

impl ActiveService {
    /// Where it listens.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.active_listeners
            .iter()
            .map(|active_listener| active_listener.address.clone())
            .collect()
    }

    /// Whether it listens anywhere.
    pub(super) fn listens(&self) -> bool {
        !self.active_listeners.is_empty()
    }
}

/// Tells each service which others are reached through it by a name.
pub(super) fn link_sni_services(live: &[ActiveService]) {
    let mut first = HashSet::new();
    for ActiveService { service, .. } in live {
        // Of two sections with one name the first is meant.
        let requested = if first.insert(service.name()) {
            services_requested_at(live, service.name())
        } else {
            Vec::new()
        };
        service.set_sni_services(requested);
    }
}

fn services_requested_at(live: &[ActiveService], name: &str) -> Vec<Arc<Service>> {
    let is_requested = |service: &Arc<Service>| {
        service.snapshot().sni_entry().is_some_and(|(entry, _)| entry == name)
    };
    live.iter().map(|live| &live.service).filter(|service| is_requested(service)).cloned().collect()
}
