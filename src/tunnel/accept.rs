//! The accept loop: each connection becomes a [`Session`] in a task of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::service::{LifecyclePhase, Service};
use super::session::Session;
use super::session_end::SessionOutcome;
use crate::net::{AsyncListener, Peer, Socket};
use crate::observe::event::Event;

/// The pause after a failed accept, so that a lack of descriptors costs no CPU time and is over at
/// most this long after there are some again.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Without a failed accept for this long, a lack of descriptors is over.
const RECOVERY_TIME: Duration = Duration::from_secs(3);

/// Serves one connection that is there already. Says whether it went well.
pub async fn serve_connection(service: Arc<Service>, socket: Socket, peer: Peer) -> SessionOutcome {
    let number = service.next_number();
    let mut session = Session::new(service, number, peer, Instant::now());
    session.run(socket).await
}

/// Accepts until the phase says otherwise, or until `stop` is told or dropped; no error ends it.
/// The listener is given back, so that another service can go on with it. Every session holds a
/// clone of `alive`: when all are gone, nothing runs any more.
pub async fn accept_connections(
    service: Arc<Service>,
    listener: AsyncListener,
    mut stop: oneshot::Receiver<()>,
    alive: mpsc::Sender<()>,
) -> AsyncListener {
    let mut phase = service.phase();
    let mut failures = AcceptFailures::default();
    let mut stopped = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = failures.wait_until_over() => {
                let count = failures.take();
                Event::AcceptRecovered { failures: count }.log(service.scope(None));
                continue;
            }
            _ = phase.wait_for(|phase| *phase != LifecyclePhase::Running) => return listener,
            _ = &mut stop => return listener,
        };
        match accepted {
            Ok((socket, peer)) => {
                let mut session =
                    Session::new(service.clone(), service.next_number(), peer, Instant::now());
                // Where there is none yet, accepting pauses; or else the session waits by itself.
                tokio::select! {
                    biased;
                    () = session.find_room(&socket) => {}
                    _ = phase.wait_for(|phase| *phase != LifecyclePhase::Running) => {}
                    _ = &mut stop => stopped = true,
                }
                let guards = (alive.clone(), service.resources.memory_trimmer.track());
                tokio::spawn(async move {
                    let _ = session.run(socket).await;
                    drop(guards);
                });
                if stopped {
                    return listener;
                }
            }
            Err(error) if is_caused_by_peer(&error) => service.counters.refused("aborted"),
            Err(error) => {
                if failures.count() {
                    Event::AcceptTrouble { error: &error }.log(service.scope(None));
                }
                service.resources.admission.shed();
                tokio::select! {
                    () = sleep(ACCEPT_RETRY_INTERVAL) => {}
                    _ = phase.wait_for(|phase| *phase != LifecyclePhase::Running) => return listener,
                    _ = &mut stop => return listener,
                }
            }
        }
    }
}

/// A lack of descriptors, from its first failed accept until there was none for a while: strangers
/// who hold all of them let one go now and then, and that is no recovery.
#[derive(Debug, Default)]
struct AcceptFailures {
    failures: u64,
    last: Option<Instant>,
}

impl AcceptFailures {
    /// Counts a failure; true of the first.
    fn count(&mut self) -> bool {
        self.failures += 1;
        self.last.replace(Instant::now()).is_none()
    }

    /// Returns when there was no failure for a while, if there was one before.
    async fn wait_until_over(&self) {
        match self.last {
            Some(last) => sleep_until(last + RECOVERY_TIME).await,
            None => std::future::pending().await,
        }
    }

    fn take(&mut self) -> u64 {
        self.last = None;
        std::mem::take(&mut self.failures)
    }
}

/// Errors that accept(2) passes on from the connection that was waiting.
fn is_caused_by_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}
