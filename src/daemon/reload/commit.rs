//! Puts in force what a reload has bound: services keep their sessions and listeners, new ones begin, removed
//! ones drain.

use std::sync::Arc;
use std::time::Duration;

use crate::config::model::{Endpoint, ServiceConfig};
use crate::daemon::active_service::{self, ActiveListener, ActiveService};
use crate::daemon::build::{BoundConfig, PreparedService, limits};
use crate::daemon::missing_addresses::log_missing;
use crate::daemon::{Running, management, succession};
use crate::net::{AsyncListener, MissingAddress};
use crate::tunnel::{LifecyclePhase, Respawn, Service, ServiceSnapshot};

/// What was bound, in the runtime: from here on nothing can fail.
pub(super) struct NextGeneration {
    drain: Duration,
    management: management::ReadyManagement,
    services: Vec<NextService>,
}

/// A service of it.
struct NextService {
    config: ServiceConfig,
    snapshot: ServiceSnapshot,
    listeners: Vec<NewListener>,
    missing: Vec<MissingAddress>,
}

/// A listener that is new, under the addresses that the file names it by, and where it is.
type NewListener = (Vec<Endpoint>, String, AsyncListener);

impl NextGeneration {
    pub(super) fn of(bound: BoundConfig) -> std::io::Result<Self> {
        let mut services = Vec::new();
        for PreparedService { config, snapshot, listeners, missing } in bound.services {
            let listeners = listeners.into_iter().map(|(at, listener)| {
                let address = listener.address().to_owned();
                Ok((at, address, listener.into_async()?))
            });
            let listeners = listeners.collect::<std::io::Result<_>>()?;
            services.push(NextService { config, snapshot, listeners, missing });
        }
        let management = bound.management.into_ready()?;
        Ok(Self { drain: bound.drain, management, services })
    }
}

/// The listeners of the services at work, each with the place of its owner, and what those services missed.
struct FormerListeners {
    listeners: Vec<(usize, ActiveListener)>,
    missed: Vec<MissingAddress>,
}

impl FormerListeners {
    /// A listener of that address.
    fn take(&mut self, at: &Endpoint) -> Option<(usize, ActiveListener)> {
        let position = self.listeners.iter().position(|(_, listener)| listener.at.contains(at))?;
        Some(self.listeners.remove(position))
    }
}

impl Running {
    pub(super) async fn commit(&mut self, next: NextGeneration) {
        let NextGeneration { drain, management, services: next } = next;
        self.management.replace(management);
        self.drain = drain;
        self.generation += 1;
        let mut old: Vec<ActiveService> = std::mem::take(&mut self.live);
        let before: Vec<&ServiceConfig> = old.iter().map(|live| &*live.config).collect();
        let after: Vec<&ServiceConfig> = next.iter().map(|next| &next.config).collect();
        let successions = succession::find(&before, &after);
        let mut active_listeners: Vec<(usize, ActiveListener)> = Vec::new();
        for (owner, live) in old.iter_mut().enumerate() {
            active_listeners.extend(
                live.active_listeners.drain(..).map(|active_listener| (owner, active_listener)),
            );
        }
        let mut old: Vec<Option<ActiveService>> = old.into_iter().map(Some).collect();
        let missed: Vec<MissingAddress> =
            old.iter_mut().flatten().flat_map(|live| std::mem::take(&mut live.missing)).collect();
        let mut former = FormerListeners { listeners: active_listeners, missed };
        for (prepared, same) in next.into_iter().zip(successions) {
            let succeeded = same.and_then(|at| old.get_mut(at)?.take());
            let service = self.start_service(prepared, same, succeeded, &mut former).await;
            self.live.push(service);
        }
        active_service::link_sni_services(&self.live);
        // What nobody wants any more: the listener closes with its last owner.
        drop(former);
        for gone in old.into_iter().flatten() {
            self.drain_removed(gone.service);
        }
    }

    /// Starts a service, or has it go on with the sessions and the listeners of the one that it succeeds.
    async fn start_service(
        &self,
        prepared: NextService,
        same: Option<usize>,
        succeeded: Option<ActiveService>,
        former: &mut FormerListeners,
    ) -> ActiveService {
        let NextService { config, snapshot, listeners, mut missing } = prepared;
        let name = config.name.value.as_str();
        let limits = limits(&config);
        let (service, program) = match succeeded {
            Some(ActiveService { service, program, .. }) => {
                service.rename(name);
                service.replace(snapshot, limits);
                (service, program)
            }
            None => (Service::new(name, snapshot, limits, self.resources.clone()), None),
        };
        // What runs as it should goes on; stunnel would start it a second time.
        let program = match program.filter(|program| program.goes_on(&service)) {
            None => Respawn::of(&service, &self.alive),
            goes_on => goes_on,
        };
        let mut own: Vec<ActiveListener> = Vec::new();
        for listen in config.accept() {
            while let Some((owner, active_listener)) = former.take(&listen.at.value) {
                let active_listener = if Some(owner) == same {
                    active_listener
                } else {
                    let address = active_listener.address.clone();
                    let Some(listener) = active_listener.release().await else { continue };
                    let at = vec![listen.at.value.clone()];
                    ActiveListener::start(&service, at, address, listener, &self.alive)
                };
                active_listener.announce(&service, true);
                own.push(active_listener);
            }
        }
        // Of a name with several addresses one may be missing beside those that were kept.
        let is_kept = |one: &MissingAddress| own.iter().any(|own| own.at.contains(&one.at));
        missing.extend(former.missed.iter().filter(|one| is_kept(one)).cloned());
        for (at, address, listener) in listeners {
            let active_listener =
                ActiveListener::start(&service, at, address, listener, &self.alive);
            active_listener.announce(&service, false);
            own.push(active_listener);
        }
        // It could be had while the configuration was read.
        missing.retain(|one| !own.iter().any(|own| own.address == one.to_string()));
        missing.iter().for_each(|one| log_missing(&service, one));
        let config = Arc::new(config);
        ActiveService { service, config, active_listeners: own, missing, program }
    }

    /// A removed service drains like a stopping program.
    fn drain_removed(&self, service: Arc<Service>) {
        let drain = self.drain;
        service.set_phase(LifecyclePhase::Draining);
        tokio::spawn(async move {
            tokio::time::sleep(drain).await;
            service.set_phase(LifecyclePhase::Stopping);
        });
    }
}
