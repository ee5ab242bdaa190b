//! A connection before anything is built for it: its room, whom a trusted proxy connects for, and its
//! first bytes.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::Session;
use crate::config::model::Mode;
use crate::net::{self, ProxyHeaderSource, Socket};
use crate::observe::event::Event;
use crate::tls::{FirstBytes, MAX_OPENING_SIZE, RefusalCause, inspect};
use crate::tunnel::admission::{ConnectionOrigin, PendingConnection};
use crate::tunnel::service::HandshakeGuard;
use crate::tunnel::snapshot::ServiceSnapshot;

/// What one read of a ClientHello takes.
const READ_SIZE: usize = 2048;
/// The part of its first bytes that an arrival has room for; each part more counts as an arrival.
const ARRIVAL_SIZE: usize = 1024;
/// A ClientHello that announces more than [`MAX_OPENING_SIZE`] makes OpenSSL reserve what it announces, up to
/// [`MAX_ANNOUNCED_SIZE`]: so much of it counts as one handshake more. An SSL object has 25 kB.
const ANNOUNCED_SIZE_PER_HANDSHAKE: usize = 32 * 1024;
const MAX_ANNOUNCED_SIZE: usize = 131_396;
/// The most that one handshake counts as.
pub(super) const MAX_HANDSHAKE_WEIGHT: usize =
    1 + MAX_ANNOUNCED_SIZE.div_ceil(ANNOUNCED_SIZE_PER_HANDSHAKE);

/// A connection that can begin its session.
pub(super) enum Arrived {
    /// Its first bytes have come, and its handshake waits for a turn.
    AtServerEnd(Box<PendingHandshake>),
    /// It has nothing to prove.
    AtClientEnd(PendingConnection),
}

/// A handshake whose turn has not come.
pub(super) struct PendingHandshake {
    pub(super) pending_connection: PendingConnection,
    /// What the client has sent already.
    pub(super) opening: Vec<u8>,
    /// As how many handshakes it counts.
    pub(super) weight: usize,
    /// Counts it as a handshake under way.
    pub(super) counted: HandshakeGuard,
}

impl Session {
    /// Waits for room for the connection, unless it has some. Cancel safe.
    pub(in crate::tunnel) async fn find_room(&mut self, socket: &Socket) {
        if self.pending_connection.is_some() {
            return;
        }
        let ip = self.peer.ip();
        let snapshot = self.service.snapshot();
        let (is_proxy, mode) = (snapshot.policies.is_proxy(ip), snapshot.mode());
        drop(snapshot);
        let origin = if is_proxy { ConnectionOrigin::Proxy } else { ConnectionOrigin::Peer(ip) };
        let pending_connection = self.service.arrive(origin, socket).await;
        if mode == Mode::Client && !is_proxy {
            pending_connection.exempt();
        }
        self.pending_connection = Some(pending_connection);
    }

    /// Takes an accepted connection to where its session can begin: at a server end its first bytes have
    /// come. Nothing is returned of one that was turned away.
    pub(super) async fn arrive(&mut self, socket: &mut Socket) -> Option<Arrived> {
        self.find_room(socket).await;
        let pending_connection = self.pending_connection.take()?;
        // Not kept: whoever is silent must not keep keys that a reload takes away.
        let snapshot = self.service.snapshot();
        let limit = self.accepted + snapshot.timeouts.handshake;
        let (mode, is_proxy) = (snapshot.mode(), snapshot.policies.is_proxy(self.peer.ip()));
        let handshake_timeout = snapshot.timeouts.handshake;
        drop(snapshot);
        if is_proxy {
            // Boxed: few services have a trusted proxy.
            if !Box::pin(self.read_proxy_header(&pending_connection, mode, limit, socket)).await {
                return None;
            }
            pending_connection.set_peer(self.peer.ip());
        }
        self.service
            .resources
            .connection_log
            .log(&Event::Accepted { peer: &self.peer }, self.scope());
        if !self.is_allowed(&self.service.snapshot()) {
            return None;
        }
        if mode == Mode::Client {
            pending_connection.exempt();
            return Some(Arrived::AtClientEnd(pending_connection));
        }
        let counted = self.service.count_handshake();
        let read = tokio::select! {
            read = timeout_at(limit, read_opening(&pending_connection, socket)) => read,
            () = pending_connection.wait_until_evicted() => {
                self.log_crowded_out();
                return None;
            }
        };
        let cause = match read {
            Ok(Ok((opening, weight))) => {
                let pending = PendingHandshake { pending_connection, opening, weight, counted };
                return Some(Arrived::AtServerEnd(Box::new(pending)));
            }
            Ok(Err(error)) => match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                    RefusalCause::ClosedEarly
                }
                _ => RefusalCause::Io(error),
            },
            Err(_) => RefusalCause::Timeout(handshake_timeout),
        };
        self.log_refused(&cause, cause.openssl_error(None, false));
        None
    }

    /// Whether connections from its address are taken at all; a line says so if not.
    pub(super) fn is_allowed(&self, snapshot: &ServiceSnapshot) -> bool {
        let is_allowed = snapshot.policies.accepts(self.peer.ip());
        if !is_allowed {
            self.refused("not-allowed-from", None);
            self.log_stranger(&Event::NotAllowed { peer: &self.peer });
        }
        is_allowed
    }

    /// The connection is closed, because its room is needed for another one.
    pub(super) fn log_crowded_out(&self) {
        self.refused("crowded-out", None);
        self.log_stranger(&Event::Crowded { peer: &self.peer });
        self.service.resources.report_evicted();
    }

    /// Preface in: a proxy that is trusted says for whom it connects, before anything else, and what it says
    /// counts from here on. Whoever else sends a header has sent something that is not TLS.
    async fn read_proxy_header(
        &mut self,
        pending_connection: &PendingConnection,
        mode: Mode,
        limit: Instant,
        socket: &mut Socket,
    ) -> bool {
        let speaks_first = mode == Mode::Server;
        let read = tokio::select! {
            read = timeout_at(limit, net::read_proxy_header(socket, speaks_first)) => read,
            () = pending_connection.wait_until_evicted() => {
                self.log_crowded_out();
                return false;
            }
        };
        let error: &dyn std::fmt::Display = match &read {
            Ok(Ok(ProxyHeaderSource::For { from, to })) => {
                let peer = net::Peer::Tcp(*from);
                let proxy = std::mem::replace(&mut self.peer, peer);
                self.destination = Some(*to);
                let event = Event::Introduced { peer: &self.peer, proxy: &proxy };
                self.service.resources.connection_log.log(&event, self.scope());
                return true;
            }
            Ok(Ok(ProxyHeaderSource::Own)) => return true,
            Ok(Ok(ProxyHeaderSource::Probe)) => {
                self.service
                    .resources
                    .connection_log
                    .log(&Event::Probed { peer: &self.peer }, self.scope());
                return false;
            }
            Ok(Err(error)) => error,
            Err(_) => &"it sent no PROXY header in time (handshake-timeout)",
        };
        self.refused("bad-proxy-header", None);
        self.log_stranger(&Event::NotIntroduced { peer: &self.peer, error });
        false
    }
}

/// Reads until it is known what the connection begins with: a whole ClientHello, or something that only
/// OpenSSL can tell more of. And says as how many handshakes it counts.
async fn read_opening(
    pending_connection: &PendingConnection,
    socket: &mut Socket,
) -> io::Result<(Vec<u8>, usize)> {
    let mut bytes = Vec::new();
    loop {
        // On the stack within one poll: whoever is silent has no buffer.
        poll_fn(|cx| {
            let mut chunk = [0; READ_SIZE];
            let room = READ_SIZE.min(MAX_OPENING_SIZE - bytes.len());
            let mut buffer = ReadBuf::new(chunk.get_mut(..room).unwrap_or_default());
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            bytes.reserve_exact(buffer.filled().len());
            bytes.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(()))
        })
        .await?;
        match inspect(&bytes) {
            FirstBytes::Incomplete => pending_connection.set_weight(1 + bytes.len() / ARRIVAL_SIZE),
            FirstBytes::Whole => return Ok((bytes, 1)),
            FirstBytes::Unusual { announced } => {
                let more = announced.min(MAX_ANNOUNCED_SIZE).div_ceil(ANNOUNCED_SIZE_PER_HANDSHAKE);
                let is_large = announced > MAX_OPENING_SIZE;
                return Ok((bytes, 1 + if is_large { more } else { 0 }));
            }
        }
    }
}
