//! The start of services whose addresses are bound.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::budget::Budget;
use super::live::{self, Door, Live};
use super::plan::{Bound, Prepared, limits};
use super::running::Running;
use super::status::Record;
use super::supervisor::Supervisor;
use crate::config::model::Source;
#[cfg(unix)]
use crate::net;
use crate::observe::event::{Event, Scope};
use crate::sys::cgroup::memory_limit;
use crate::sys::process;
#[cfg(unix)]
use crate::tunnel::serve_connection;
use crate::tunnel::{ProcessLimits, ProcessResources, Respawn, Service};

impl Bound {
    /// Starts every service inside the current runtime.
    ///
    /// # Errors
    /// The runtime has no room for a listener.
    pub fn start(self) -> std::io::Result<Running> {
        let (alive, all_gone) = mpsc::channel(1);
        self.tell_absent();
        let resources = resources();
        let mut live = Vec::new();
        let mut only = None;
        for Prepared { config, snapshot, listeners } in self.services {
            let name = config.name.value.as_str();
            let service = Service::new(name, snapshot, limits(&config), resources.clone());
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
            live.push(Live { service, config: Arc::new(config), doors, program: None });
        }
        live::link_sni_services(&live);
        Event::Accepting.log(Scope::PROGRAM);
        for Live { service, program, .. } in &mut live {
            *program = Respawn::of(service, &alive);
        }
        let reporting = resources.clone();
        tokio::spawn(async move { reporting.report_suppressed().await });
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
            resources,
            windows,
            record,
            alive,
            all_gone,
            supervisor: Supervisor::default(),
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
) -> std::io::Result<JoinHandle<bool>> {
    let (socket, peer) = net::inherited()?;
    let (service, alive) = (service.clone(), alive.clone());
    Ok(tokio::spawn(async move {
        let went_well = serve_connection(service, socket, peer).await;
        drop(alive);
        went_well
    }))
}

/// There is no such thing here.
#[cfg(not(unix))]
fn serve_stdio(_: &Arc<Service>, _: &mpsc::Sender<()>) -> std::io::Result<JoinHandle<bool>> {
    Err(std::io::ErrorKind::Unsupported.into())
}
