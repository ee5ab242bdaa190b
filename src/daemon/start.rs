//! The start of services whose addresses are bound.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::active_service::{self, ActiveListener, ActiveService};
use super::budget::Budget;
use super::build::{BoundConfig, PreparedService, limits};
use super::missing_addresses::log_missing;
use super::running::Running;
use super::service_manager::ServiceManagerNotifier;
use super::status::ReloadHistory;
use crate::config::model::ConnectionSource;
#[cfg(unix)]
use crate::net;
use crate::observe::event::{Event, LogContext};
use crate::sys::cgroup::memory_limit;
use crate::sys::process;
use crate::tunnel::{ProcessLimits, ProcessResources, Respawn, Service};
#[cfg(unix)]
use crate::tunnel::{SessionOutcome, serve_connection};

impl BoundConfig {
    /// Starts every service inside the current runtime.
    ///
    /// # Errors
    /// The runtime has no room for a listener.
    pub fn start(self) -> std::io::Result<Running> {
        let (alive, all_gone) = mpsc::channel(1);
        self.log_absent();
        let resources = resources();
        let mut live = Vec::new();
        let mut only = None;
        for PreparedService { config, snapshot, listeners, missing } in self.services {
            let name = config.name.value.as_str();
            let service = Service::new(name, snapshot, limits(&config), resources.clone());
            let mut active_listeners = Vec::new();
            for (at, listener) in listeners {
                let address = listener.address().to_owned();
                let active_listener =
                    ActiveListener::start(&service, at, address, listener.into_async()?, &alive);
                active_listener.announce(&service, false);
                active_listeners.push(active_listener);
            }
            missing.iter().for_each(|one| log_missing(&service, one));
            if matches!(config.source, ConnectionSource::Stdio) {
                only = Some(serve_stdio(&service, &alive)?);
            }
            live.push(ActiveService {
                service,
                config: Arc::new(config),
                active_listeners,
                missing,
                program: None,
            });
        }
        active_service::link_sni_services(&live);
        Event::Accepting.log(LogContext::PROGRAM);
        for ActiveService { service, program, .. } in &mut live {
            *program = Respawn::of(service, &alive);
        }
        let reporting = resources.clone();
        tokio::spawn(async move { reporting.report_suppressed().await });
        let files = watch::Sender::new(self.files);
        let inetd = only.is_some();
        let management = self.management.open()?;
        let record = ReloadHistory::new(self.file);
        Ok(Running {
            live,
            generation: 0,
            only,
            inetd,
            drain: self.drain,
            files,
            resources,
            management,
            record,
            alive,
            all_gone,
            manager_notifier: ServiceManagerNotifier::default(),
            trouble: None,
        })
    }
}

/// What the limit of descriptors and the memory leave for sessions, and for connections without one.
fn resources() -> Arc<ProcessResources> {
    let descriptors = process::raise_descriptor_limit();
    let Budget { sessions, connections, handshakes } = Budget::of(descriptors, memory_limit());
    ProcessResources::new(ProcessLimits { sessions, connections, handshakes })
}

/// Begins the session whose connection this program was started with.
#[cfg(unix)]
fn serve_stdio(
    service: &Arc<Service>,
    alive: &mpsc::Sender<()>,
) -> std::io::Result<JoinHandle<SessionOutcome>> {
    let (socket, peer) = net::inherited()?;
    let (service, alive) = (service.clone(), alive.clone());
    Ok(tokio::spawn(async move {
        let outcome = serve_connection(service, socket, peer).await;
        drop(alive);
        outcome
    }))
}

/// There is no such thing here.
#[cfg(not(unix))]
fn serve_stdio(
    _: &Arc<Service>,
    _: &mpsc::Sender<()>,
) -> std::io::Result<JoinHandle<SessionOutcome>> {
    Err(std::io::ErrorKind::Unsupported.into())
}
