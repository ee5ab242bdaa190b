//! A server end, in the order of time: a turn, the TLS handshake, which yields a Grant, admission, the
//! connection to the backend. A stranger never causes that connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::arrival::{MAX_HANDSHAKE_WEIGHT, PendingHandshake};
use super::liveness::PeerHandle;
use super::streams::Streams;
use super::upstream::{Destination, VerifiedPeer, timed_out};
use super::{ALERT_LINGER_TIME, OpenSession, Session};
use crate::config::model::{Mode, Negotiation, WhenFull};
use crate::net::{self, Socket, UpstreamConnection};
use crate::secrets::Grant;
use crate::tls::{
    self, EstablishedTls, HandshakeError, HandshakeProgress, Incoming, RefusalCause, ServerNames,
};
use crate::tunnel::admission::{PendingConnection, TurnOutcome};
use crate::tunnel::registry::Registration;
use crate::tunnel::service::RequestedService;
use crate::tunnel::session_end::{CutReason, SessionEnd};
use crate::tunnel::snapshot::{ServiceSnapshot, TlsRole};

impl Session {
    /// From the first bytes to a session whose backend has answered.
    pub(super) async fn open_server(
        &mut self,
        pending: PendingHandshake,
        socket: Socket,
    ) -> Option<Box<OpenSession>> {
        // Held until it is over, as its visitor asks.
        let pool = self.service.capacity().handshakes;
        let waiting = Instant::now();
        if pending.pending_connection.wait_turn(&pool, pending.weight).await == TurnOutcome::Evicted
        {
            self.log_crowded_out();
            return None;
        }
        let waited = waiting.elapsed();
        let mut snapshot = self.service.snapshot();
        if !self.is_allowed(&snapshot) {
            return None;
        }
        self.prepare(&snapshot, &socket)?;
        let (secured, pending_connection) =
            self.accept_tls(&mut snapshot, pending, waited, socket).await?;
        let EstablishedTls { mut stream, grant, info, resumed, .. } = secured;
        self.log_secured(Mode::Server, &grant, &info, resumed);
        let registration = self.admit(&snapshot, grant.who()).await?;
        // It counts as a session from here on.
        drop((pending_connection, pool));
        let local = stream.socket().and_then(Socket::local_address);
        let local = self.destination.or(local);
        let peer = VerifiedPeer { wire: grant.who(), handshake: &info, local, resumed };
        let connected =
            self.connect_backend(&snapshot, &grant, &registration, &peer, &mut stream).await;
        let reached = match connected {
            Ok(reached) => reached,
            Err(speaks_socks) => {
                close_unserved(stream, speaks_socks).await;
                return None;
            }
        };
        stream.rekey_after(snapshot.rekey_after);
        let traffic = stream.traffic().clone();
        self.log_opened(&registration, info, reached.address, traffic, Mode::Server);
        let peer_handle = match (snapshot.policies.when_full, stream.socket()) {
            (WhenFull::TakeOverSameHost, Some(socket)) => {
                PeerHandle::of(socket, snapshot.keepalive)
            }
            _ => PeerHandle::none(),
        };
        if peer_handle.can_ask() {
            registration.info.allow_challenges();
        }
        let (downstream, upstream) = (Box::new(stream), reached.socket);
        let streams = Streams::Server { downstream, upstream };
        Some(Box::new(OpenSession {
            streams,
            grant,
            registration,
            timeouts: snapshot.timeouts,
            peer_handle,
            reset: snapshot.reset,
            is_single_session: snapshot.is_single_session,
        }))
    }

    /// The TLS handshake. The session belongs to the service that the client asked for from then on.
    async fn accept_tls(
        &mut self,
        snapshot: &mut Arc<ServiceSnapshot>,
        PendingHandshake { pending_connection, opening, counted: _counted, .. }: PendingHandshake,
        waited: Duration,
        socket: Socket,
    ) -> Option<(EstablishedTls<Socket>, PendingConnection)> {
        let entry_setup = snapshot.clone();
        // A reload may have made a client end of it meanwhile.
        let TlsRole::Server(acceptor) = &entry_setup.role else { return None };
        let ip = self.peer.ip();
        let names = self.service.sni_lookup(ip);
        let lookup = names.clone().map(|names| names as Arc<dyn ServerNames>);
        let incoming = Incoming { names: lookup, opening };
        let watch = |progress| follow(&pending_connection, progress);
        let handshake = acceptor.accept_with(snapshot.keys(ip), incoming, socket, watch);
        let limit = self.accepted + waited + snapshot.timeouts.handshake;
        let done = tokio::select! {
            done = timeout_at(limit, handshake) => done,
            () = pending_connection.wait_until_evicted() => {
                self.log_crowded_out();
                return None;
            }
        };
        self.belong_to(names.and_then(|names| names.take_chosen()), snapshot);
        match done {
            Ok(Ok(secured)) => {
                pending_connection.set_proven();
                Some((secured, pending_connection))
            }
            Ok(Err(HandshakeError { cause, openssl, stream })) => {
                pending_connection.begin_linger();
                self.log_refused(&snapshot.refine_cause(cause, ip), openssl);
                // Lingering is bounded in time, and by the room.
                if let Some(socket) = stream {
                    tokio::select! {
                        () = socket.close_gently(ALERT_LINGER_TIME) => {}
                        () = pending_connection.wait_until_evicted() => {}
                    }
                }
                None
            }
            Err(_) => {
                self.log_refused(&RefusalCause::Timeout(snapshot.timeouts.handshake), None);
                None
            }
        }
    }

    /// From here on the session belongs to the service that the client asked for, if it did.
    fn belong_to(&mut self, asked: Option<RequestedService>, snapshot: &mut Arc<ServiceSnapshot>) {
        if let Some((service, its)) = asked {
            self.entry_service = Some(std::mem::replace(&mut self.service, service));
            *snapshot = its;
        }
    }

    /// Connects to the target, unless the session is cut meanwhile. An error says whether the peer speaks SOCKS and
    /// has been told why there is no target; the peer of a session that was cut is told nothing.
    async fn connect_backend(
        &self,
        snapshot: &ServiceSnapshot,
        grant: &Grant,
        registration: &Registration,
        peer: &VerifiedPeer<'_>,
        stream: &mut tls::Stream<Socket>,
    ) -> Result<UpstreamConnection, bool> {
        let ip = self.peer.ip();
        // The keys may have changed during the handshake, or while a place was waited for.
        let gone = async {
            if self.service.snapshot().admits(grant, ip) {
                self.service.wait_until_revoked(grant, ip).await;
            }
        };
        tokio::select! {
            biased;
            () = gone => {
                self.log_end_before_open(&SessionEnd::Cut(CutReason::Revoked));
                Err(false)
            }
            order = registration.info.termination_ordered() => {
                self.log_end_before_open(&SessionEnd::Cut(CutReason::Ordered(order)));
                Err(false)
            }
            reached = self.reach_target(snapshot, peer, stream) => {
                reached.ok_or(matches!(snapshot.negotiation, Some(Negotiation::Socks)))
            }
        }
    }

    /// A server end's way to its target, which its peer may have to be asked for.
    async fn reach_target(
        &self,
        snapshot: &ServiceSnapshot,
        verified_peer: &VerifiedPeer<'_>,
        stream: &mut tls::Stream<Socket>,
    ) -> Option<UpstreamConnection> {
        if snapshot.uses_original_destination {
            let gone = || io::Error::from(io::ErrorKind::NotConnected);
            let original_address =
                stream.socket().ok_or_else(gone).and_then(Socket::original_destination);
            let to = Destination::Original(self.or_unreachable(original_address).ok()?);
            return self.connect_upstream(snapshot, Some(verified_peer), &to).await.ok();
        }
        if !matches!(snapshot.negotiation, Some(Negotiation::Socks)) {
            let back = snapshot.is_sticky && verified_peer.resumed;
            let again = back.then(|| self.service.last_upstream(verified_peer.wire)).flatten();
            let to = Destination::Configured(again.as_deref());
            let reached = self.connect_upstream(snapshot, Some(verified_peer), &to).await.ok()?;
            if snapshot.is_sticky {
                self.service.remember_upstream(verified_peer.wire, &reached.address);
            }
            return Some(reached);
        }
        let limit = Instant::now() + snapshot.timeouts.handshake;
        let asked = timeout_at(limit, net::socks::read_request(stream)).await;
        let asked =
            asked.unwrap_or_else(|_| Err(timed_out("the peer, which has to say where to,")));
        let request = self.or_unreachable(asked).ok()?;
        let reached = self
            .connect_upstream(snapshot, Some(verified_peer), &Destination::Requested(&request.to))
            .await;
        let outcome = reached.as_ref().map(|_| ()).map_err(|refused| *refused);
        let answered =
            timeout_at(limit + snapshot.timeouts.handshake, request.answer(stream, outcome)).await;
        let answered = answered.unwrap_or_else(|_| Err(timed_out("the peer")));
        // Whether it was told or not, what was refused is in the log already.
        let reached = reached.ok()?;
        self.or_unreachable(answered).ok()?;
        Some(reached)
    }
}

/// Moves a connection on through the stages as its handshake goes.
fn follow(pending_connection: &PendingConnection, progress: HandshakeProgress) {
    pending_connection.end_first_flight();
    match progress {
        HandshakeProgress::Reading | HandshakeProgress::Unproven => {}
        HandshakeProgress::Retried => pending_connection.set_handshake_weight(MAX_HANDSHAKE_WEIGHT),
        HandshakeProgress::Shown(who, binder) => pending_connection.set_shown(who, binder),
    }
}

/// The end of a session without a target.
async fn close_unserved(mut stream: tls::Stream<Socket>, speaks_socks: bool) {
    if speaks_socks {
        // It may still have to read why.
        let _ = timeout(ALERT_LINGER_TIME, stream.shutdown()).await;
        if let Some(socket) = stream.into_socket() {
            socket.close_gently(ALERT_LINGER_TIME).await;
        }
    } else if let Some(socket) = stream.into_socket() {
        socket.reset_on_close(true);
    }
}
