//! A server end, in the order of time: a turn, the TLS handshake, which yields a Grant, admission, the
//! connection to the backend. A stranger never causes that connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::arrival::{MAX_HANDSHAKE_WEIGHT, PendingHandshake};
use super::streams::Streams;
use super::upstream::{Destination, VerifiedPeer, late};
use super::{ALERT_READ_TIMEOUT, OpenSession, Session};
use crate::config::model::{Mode, Negotiation};
use crate::net::{self, Reached, Socket};
use crate::secrets::Grant;
use crate::tls::{self, Cause, Failure, Incoming, Progress, Secured, ServerNames};
use crate::tunnel::admission::{Visitor, Waited};
use crate::tunnel::ending::{Cut, End};
use crate::tunnel::roster::Member;
use crate::tunnel::service::NamedService;
use crate::tunnel::setup::{Role, Setup};

impl Session {
    /// From the first bytes to a session whose backend has answered.
    pub(super) async fn open_server(
        &mut self,
        pending: PendingHandshake,
        socket: Socket,
    ) -> Option<OpenSession> {
        // Held until it is over, as its visitor asks.
        let pool = self.service.capacity().handshakes;
        let waiting = Instant::now();
        if pending.visitor.wait_turn(&pool, pending.weight).await == Waited::PutOut {
            self.log_crowded_out();
            return None;
        }
        let waited = waiting.elapsed();
        let mut setup = self.service.setup();
        if !self.is_allowed(&setup) {
            return None;
        }
        self.prepare(&setup, &socket)?;
        let (secured, visitor) = self.accept_tls(&mut setup, pending, waited, socket).await?;
        let Secured { mut stream, grant, facts, resumed, .. } = secured;
        self.log_secured(Mode::Server, &grant, &facts, resumed);
        let member = self.admit(&setup, grant.who()).await?;
        // It counts as a session from here on.
        drop((visitor, pool));
        let local = stream.socket().and_then(Socket::local_address);
        let local = self.destination.or(local);
        let peer = VerifiedPeer { wire: grant.who(), facts: &facts, local, resumed };
        let connected = self.connect_backend(&setup, &grant, &member, &peer, &mut stream).await;
        let reached = match connected {
            Ok(reached) => reached,
            Err(peer_was_told) => {
                close_unserved(stream, peer_was_told).await;
                return None;
            }
        };
        stream.rekey_after(setup.rekey_after);
        let traffic = stream.traffic().clone();
        self.log_opened(&member, facts, reached.address, traffic, Mode::Server);
        let (downstream, upstream) = (Box::new(stream), reached.socket);
        let streams = Streams::Server { downstream, upstream };
        Some(OpenSession {
            streams,
            grant,
            member,
            timeouts: setup.clocks,
            reset: setup.reset,
            is_single: setup.single,
        })
    }

    /// The TLS handshake. The session belongs to the service that the client asked for from then on.
    async fn accept_tls(
        &mut self,
        setup: &mut Arc<Setup>,
        PendingHandshake { visitor, opening, counted: _counted, .. }: PendingHandshake,
        waited: Duration,
        socket: Socket,
    ) -> Option<(Secured<Socket>, Visitor)> {
        let entry_setup = setup.clone();
        // A reload may have made a client end of it meanwhile.
        let Role::Server(acceptor) = &entry_setup.role else { return None };
        let ip = self.peer.ip();
        let names = self.service.names_for(ip);
        let lookup = names.clone().map(|names| names as Arc<dyn ServerNames>);
        let incoming = Incoming { names: lookup, opening };
        let watch = |progress| follow(&visitor, progress);
        let handshake = acceptor.accept_with(setup.keys(ip), incoming, socket, watch);
        let limit = self.accepted + waited + setup.clocks.handshake;
        let done = tokio::select! {
            done = timeout_at(limit, handshake) => done,
            () = visitor.put_out() => {
                self.log_crowded_out();
                return None;
            }
        };
        self.belong_to(names.and_then(|names| names.take_chosen()), setup);
        match done {
            Ok(Ok(secured)) => {
                visitor.prove();
                Some((secured, visitor))
            }
            Ok(Err(Failure { cause, stream })) => {
                visitor.linger();
                self.log_refused(&setup.truth(cause, ip));
                // Lingering is bounded in time, and by the room.
                if let Some(socket) = stream {
                    tokio::select! {
                        () = socket.close_gently(ALERT_READ_TIMEOUT) => {}
                        () = visitor.put_out() => {}
                    }
                }
                None
            }
            Err(_) => {
                self.log_refused(&Cause::Timeout(setup.clocks.handshake));
                None
            }
        }
    }

    /// From here on the session belongs to the service that the client asked for, if it did.
    fn belong_to(&mut self, asked: Option<NamedService>, setup: &mut Arc<Setup>) {
        if let Some((service, its)) = asked {
            self.entry_service = Some(std::mem::replace(&mut self.service, service));
            *setup = its;
        }
    }

    /// Connects to the target, unless the session is cut meanwhile. An error says whether the peer was
    /// told why there is no target.
    async fn connect_backend(
        &self,
        setup: &Setup,
        grant: &Grant,
        member: &Member,
        peer: &VerifiedPeer<'_>,
        stream: &mut tls::Stream<Socket>,
    ) -> Result<Reached, bool> {
        let ip = self.peer.ip();
        // The keys may have changed during the handshake, or while a place was waited for.
        let gone = async {
            if self.service.setup().admits(grant, ip) {
                self.service.revoked(grant, ip).await;
            }
        };
        tokio::select! {
            biased;
            () = gone => {
                self.log_end_before_open(&End::Cut(Cut::Revoked));
                Err(false)
            }
            order = member.info.ordered() => {
                self.log_end_before_open(&End::Cut(Cut::Ordered(order)));
                Err(false)
            }
            reached = self.route(setup, peer, stream) => {
                reached.ok_or(matches!(setup.negotiation, Some(Negotiation::Socks)))
            }
        }
    }

    /// A server end's way to its target, which its peer may have to be asked for.
    async fn route(
        &self,
        setup: &Setup,
        known: &VerifiedPeer<'_>,
        stream: &mut tls::Stream<Socket>,
    ) -> Option<Reached> {
        if setup.to_original {
            let gone = || io::Error::from(io::ErrorKind::NotConnected);
            let meant = stream.socket().ok_or_else(gone).and_then(Socket::original_destination);
            let to = Destination::Meant(self.or_unreachable(meant).ok()?);
            return self.connect_upstream(setup, Some(known), &to).await.ok();
        }
        if !matches!(setup.negotiation, Some(Negotiation::Socks)) {
            let back = setup.sticks && known.resumed;
            let again = back.then(|| self.service.went_to(known.wire)).flatten();
            let to = Destination::Configured(again.as_deref());
            let reached = self.connect_upstream(setup, Some(known), &to).await.ok()?;
            if setup.sticks {
                self.service.goes_to(known.wire, &reached.address);
            }
            return Some(reached);
        }
        let limit = Instant::now() + setup.clocks.handshake;
        let asked = timeout_at(limit, net::socks::read_request(stream)).await;
        let asked = asked.unwrap_or_else(|_| Err(late("the peer, which has to say where to,")));
        let request = self.or_unreachable(asked).ok()?;
        let reached =
            self.connect_upstream(setup, Some(known), &Destination::Asked(&request.to)).await;
        let outcome = reached.as_ref().map(|_| ()).map_err(|refused| *refused);
        let told =
            timeout_at(limit + setup.clocks.handshake, request.answer(stream, outcome)).await;
        let told = told.unwrap_or_else(|_| Err(late("the peer")));
        // Whether it was told or not, what was refused is in the log already.
        let reached = reached.ok()?;
        self.or_unreachable(told).ok()?;
        Some(reached)
    }
}

/// Moves a connection on through the stages as its handshake goes.
fn follow(visitor: &Visitor, progress: Progress) {
    visitor.end_turn();
    match progress {
        Progress::Reading | Progress::Unproven => {}
        Progress::Retried => visitor.set_handshake_weight(MAX_HANDSHAKE_WEIGHT),
        Progress::Shown(who, binder) => visitor.show(who, binder),
    }
}

/// The end of a session without a target.
async fn close_unserved(mut stream: tls::Stream<Socket>, peer_was_told: bool) {
    if peer_was_told {
        // It may still have to read why.
        let _ = timeout(ALERT_READ_TIMEOUT, stream.shutdown()).await;
        if let Some(socket) = stream.into_socket() {
            socket.close_gently(ALERT_READ_TIMEOUT).await;
        }
    } else if let Some(socket) = stream.into_socket() {
        socket.reset_on_close(true);
    }
}
