//! START READING HERE: one connection, from accept to close.
//!
//! [`Session::run`] is the whole life of a connection, a step a line. Where the two ends differ,
//! `session/server.rs` and `session/client.rs` read in the order of time: a *server end* begins with TLS, which
//! yields a [`Grant`], then admits the session, then connects to the backend, so that a stranger never causes an
//! upstream connection; a *client end* admits the session, connects to the server end, then begins with TLS.
//!
//! The steps: `arrival.rs` · `server.rs` or `client.rs` (both use `admission.rs` and `upstream.rs`) · `end.rs`
//! (what can end an open session) · `streams.rs` (relay and close). What each step logs and counts is in `log.rs`.

mod admission;
mod arrival;
mod client;
mod end;
mod liveness;
mod log;
mod server;
mod streams;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use arrival::Arrived;
use liveness::PeerHandle;
use streams::Streams;

use super::admission::PendingConnection;
use super::registry::Registration;
use super::service::{LifecyclePhase, Service};
use super::session_end::SessionOutcome;
use super::snapshot::{ServiceSnapshot, SessionTimeouts};
use crate::net::{Peer, Socket};
use crate::observe::event::Event;
use crate::secrets::Grant;

/// How long a backend may take to close after our FIN before its connection is left to the kernel.
const BACKEND_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a refused peer may take to read its alert.
const ALERT_LINGER_TIME: Duration = Duration::from_secs(1);

/// One connection and the service that it belongs to.
pub(super) struct Session {
    service: Arc<Service>,
    number: u64,
    /// The downstream peer; behind a trusted proxy, whom its PROXY header names.
    peer: Peer,
    /// The address that this peer connected to, by the same header.
    destination: Option<SocketAddr>,
    accepted: Instant,
    /// The service whose listener accepted the connection, when the client asked for another one by SNI.
    entry_service: Option<Arc<Service>>,
    /// Its entry in the admission table, from accept until it has arrived.
    pending_connection: Option<PendingConnection>,
}

/// A session whose two sides are connected.
struct OpenSession {
    /// By which its peer can be asked whether it lives. Dropped before the sockets.
    peer_handle: PeerHandle,
    streams: Streams,
    grant: Grant,
    timeouts: SessionTimeouts,
    /// The option `reset`; unset means the table of endings.
    reset: Option<bool>,
    /// The service has `max-sessions = 1`.
    is_single_session: bool,
    /// Its entry in the registry, which holds its slot. Dropped last, when the sockets are closed.
    registration: Registration,
}

impl Session {
    pub(super) fn new(service: Arc<Service>, number: u64, peer: Peer, accepted: Instant) -> Self {
        let (destination, entry_service, pending_connection) = (None, None, None);
        Self { service, number, peer, destination, accepted, entry_service, pending_connection }
    }

    /// The whole life of a connection. Says whether it went well.
    ///
    /// There may be thousands, so that each step is boxed: it has its memory for as long as it lasts. Nothing is
    /// taken by value that can be borrowed, because a future keeps an argument twice.
    pub(super) async fn run(&mut self, mut socket: Socket) -> SessionOutcome {
        let mut phase = self.service.phase();
        let arrived = tokio::select! {
            arrived = Box::pin(self.arrive(&mut socket)) => arrived,
            () = wait_until_not_running(&mut phase) => None,
        };
        let Some(arrived) = arrived else { return SessionOutcome::Failed };
        let opened = tokio::select! {
            opened = Box::pin(self.open(arrived, socket)) => opened,
            () = wait_until_not_running(&mut phase) => None,
        };
        drop(phase);
        let Some(mut open) = opened else { return SessionOutcome::Failed };
        let end = Box::pin(self.relay_until_end(&mut open)).await;
        self.log_end(&open, &end);
        Box::pin(self.close(open, &end)).await;
        end.outcome()
    }

    /// Connects both sides; returns nothing for a connection that was refused, whose reason is logged. The keys
    /// are not needed after this: a set that a reload replaces is wiped when the last handshake that uses it ends.
    async fn open(&mut self, arrived: Arrived, socket: Socket) -> Option<Box<OpenSession>> {
        match arrived {
            Arrived::AtServerEnd(pending) => self.open_server(*pending, socket).await,
            Arrived::AtClientEnd(pending_connection) => {
                self.open_client(pending_connection, socket).await
            }
        }
    }

    /// Sets what the accepted socket needs.
    fn prepare(&self, snapshot: &ServiceSnapshot, socket: &Socket) -> Option<()> {
        let prepared = self.service.prepare(snapshot, socket, self.number);
        if let Err(error) = &prepared {
            self.refused("socket-options", None);
            self.log_stranger(&Event::Unprepared { peer: &self.peer, error });
        }
        prepared.ok()
    }
}

/// Returns when the program stops accepting. An error means the same: the sender is gone.
async fn wait_until_not_running(phase: &mut watch::Receiver<LifecyclePhase>) {
    let _ = phase.wait_for(|phase| *phase != LifecyclePhase::Running).await;
}
