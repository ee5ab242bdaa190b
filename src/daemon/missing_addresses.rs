//! Addresses that services do without: each is tried again until it can be had.

use std::pin::Pin;
use std::sync::Arc;

use super::active_service::{ActiveListener, ActiveService};
use super::bind::set_socket_owner;
use super::retry::Backoff;
use super::running::Running;
use crate::config::model::ServiceConfig;
use crate::net::{self, BindOutcome, MissingAddress};
use crate::observe::event::Event;
use crate::tunnel::Service;

/// A missing address of a service at work, to be tried.
pub(super) struct Attempt {
    service: Arc<Service>,
    config: Arc<ServiceConfig>,
    missing: MissingAddress,
}

/// What became of an attempt.
pub(super) struct Tried {
    service: Arc<Service>,
    before: MissingAddress,
    outcome: BindOutcome,
}

impl Attempt {
    fn make(self) -> Tried {
        let Self { service, config, missing: before } = self;
        let (accept, options) = (config.accept(), &config.sockets.accept);
        let mut outcome = match accept.iter().find(|listen| listen.at.value == before.at) {
            Some(listen) => net::bind_missing(&before, listen, accept, options),
            None => BindOutcome::default(),
        };
        if !outcome.listeners.is_empty()
            && let Some(refused) = set_socket_owner(&before.at, &config)
        {
            outcome = BindOutcome::default();
            let why = refused.diagnostic.message;
            outcome.missing.push((before.because(why), refused.kind.into()));
        }
        Tried { service, before, outcome }
    }
}

/// What there is to do about missing addresses.
pub(super) enum MissingStep {
    /// Try them.
    Due,
    /// They were tried. None if no thread was to be had.
    Tried(Option<Vec<Tried>>),
}

type RunningAttempts = Pin<Box<dyn Future<Output = Option<Vec<Tried>>> + Send>>;

/// When missing addresses are tried again, and the attempts under way.
#[derive(Default)]
pub(super) struct MissingRetry {
    generation: u64,
    backoff: Option<Backoff>,
    attempts: Option<RunningAttempts>,
}

impl MissingRetry {
    /// Begins to wait, or stops to: whether services of this generation miss anything. With each generation
    /// the pauses begin anew.
    pub(super) fn follow(&mut self, generation: u64, misses_any: bool) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
        match misses_any {
            true if self.backoff.is_none() => self.backoff = Some(Backoff::new()),
            true => {}
            false => self.backoff = None,
        }
    }

    /// Waits for the next thing to do. Cancel safe.
    pub(super) async fn step(&mut self) -> MissingStep {
        if let Some(attempts) = &mut self.attempts {
            let tried = attempts.await;
            self.attempts = None;
            return MissingStep::Tried(tried);
        }
        match &self.backoff {
            Some(backoff) => backoff.due().await,
            None => std::future::pending().await,
        }
        MissingStep::Due
    }

    /// Makes these attempts, on a thread of their own: a name may have to be looked up.
    pub(super) fn begin(&mut self, attempts: Vec<Attempt>) {
        self.backoff = self.backoff.as_ref().map(Backoff::next);
        let make = move || attempts.into_iter().map(Attempt::make).collect();
        self.attempts = Some(Box::pin(super::run_on_thread(make)));
    }
}

impl Running {
    /// Whether a service does without an address.
    pub(super) fn misses_any(&self) -> bool {
        self.live.iter().any(|live| !live.missing.is_empty())
    }

    /// The missing addresses of all services, in words.
    pub(super) fn missing_words(&self) -> impl Iterator<Item = String> {
        self.live.iter().flat_map(|ActiveService { service, missing, .. }| {
            let words = |one: &MissingAddress| {
                let name = service.name();
                format!("service {name} does not listen on {one}: {}; it is tried again", one.why)
            };
            missing.iter().map(words)
        })
    }

    /// Does what there is to do about missing addresses.
    pub(super) fn proceed_missing(&mut self, retry: &mut MissingRetry, step: MissingStep) {
        match step {
            MissingStep::Due => retry.begin(self.attempts()),
            MissingStep::Tried(tried) => {
                tried.into_iter().flatten().for_each(|tried| self.finish_attempt(tried));
            }
        }
    }

    fn attempts(&self) -> Vec<Attempt> {
        let of = |live: &ActiveService| {
            let (service, config) = (live.service.clone(), live.config.clone());
            let attempt = move |missing: &MissingAddress| {
                let (service, config) = (service.clone(), config.clone());
                Attempt { service, config, missing: missing.clone() }
            };
            live.missing.iter().map(attempt).collect::<Vec<_>>()
        };
        self.live.iter().flat_map(of).collect()
    }

    /// Has a service accept where it could be bound at last. A reload drops the attempts under way, so that
    /// the service misses the address still.
    fn finish_attempt(&mut self, tried: Tried) {
        let Tried { service, before, outcome } = tried;
        let at = self.live.iter().position(|live| Arc::ptr_eq(&live.service, &service));
        let Some(live) = at.and_then(|at| self.live.get_mut(at)) else { return };
        live.missing.retain(|one| !one.is_same(&before));
        for listener in outcome.listeners {
            let address = listener.address().to_owned();
            match listener.into_async() {
                Ok(listener) => {
                    let at = vec![before.at.clone()];
                    let listener =
                        ActiveListener::start(&service, at, address, listener, &self.alive);
                    listener.announce(&service, false);
                    live.active_listeners.push(listener);
                }
                // The runtime has no room for it now.
                Err(error) => {
                    live.missing.push(before.because(error.to_string()));
                }
            }
        }
        for (missing, _) in outcome.missing {
            if missing.why != before.why {
                log_missing(&service, &missing);
            }
            live.missing.push(missing);
        }
    }
}

/// Says that a service does without an address.
pub(super) fn log_missing(service: &Service, missing: &MissingAddress) {
    Event::AddressMissing { address: missing, error: &missing.why }.log(service.scope(None));
}
