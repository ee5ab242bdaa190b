//! A client end, in the order of time: admission, the connection to the server end, the TLS handshake.

use std::io;

use tokio::time::{Instant, timeout_at};

use super::liveness::PeerHandle;
use super::streams::Streams;
use super::upstream::{Destination, timed_out};
use super::{ALERT_LINGER_TIME, OpenSession, Session};
use crate::config::model::{Mode, Negotiation};
use crate::net::{self, Socket, UpstreamConnection};
use crate::observe::event::Event;
use crate::secrets::Identity;
use crate::tls::{Connector, EstablishedTls, HandshakeError, RefusalCause};
use crate::tunnel::admission::PendingConnection;
use crate::tunnel::session_end::{CutReason, SessionEnd};
use crate::tunnel::snapshot::{ServerName, ServiceSnapshot, TlsRole};

/// What a client end presents, and how.
struct Credentials<'a> {
    connector: &'a Connector,
    identity: &'a Identity,
    name: &'a ServerName,
}

/// A handshake that was tried in its time, and with whom.
struct Attempt {
    /// An error is the limit of time.
    done:
        Result<Result<EstablishedTls<Socket>, HandshakeError<Socket>>, tokio::time::error::Elapsed>,
    address: String,
}

impl Session {
    /// From an accepted plain socket to a session whose server's end has proven its key.
    pub(super) async fn open_client(
        &self,
        pending_connection: PendingConnection,
        downstream: Socket,
    ) -> Option<Box<OpenSession>> {
        let snapshot = self.service.snapshot();
        self.prepare(&snapshot, &downstream)?;
        // A reload may have made a server end of it meanwhile.
        let TlsRole::Client { connector, identity, name } = &snapshot.role else { return None };
        let registration = self.admit(&snapshot, identity).await?;
        // It counts as a session from here on.
        drop(pending_connection);
        let credentials = Credentials { connector, identity, name };
        let attempt = tokio::select! {
            biased;
            order = registration.info.termination_ordered() => {
                let end = SessionEnd::Cut(CutReason::Ordered(order));
                self.log_end_before_open(&end);
                self.service.record_failure(end.to_string());
                return None;
            }
            attempt = self.attempt(&snapshot, &credentials, &downstream) => attempt?,
        };
        let Attempt { done, address } = attempt;
        let (cause, openssl, stream) = match done {
            Ok(Ok(EstablishedTls { mut stream, grant, info, resumed, .. })) => {
                self.log_secured(Mode::Client, &grant, &info, resumed);
                stream.rekey_after(snapshot.rekey_after);
                let traffic = stream.traffic().clone();
                self.log_opened(&registration, info, address, traffic, Mode::Client);
                let streams = Streams::Client { downstream, upstream: Box::new(stream) };
                return Some(Box::new(OpenSession {
                    streams,
                    grant,
                    registration,
                    timeouts: snapshot.timeouts,
                    peer_handle: PeerHandle::none(),
                    reset: snapshot.reset,
                    is_single_session: snapshot.is_single_session,
                }));
            }
            Ok(Err(HandshakeError { cause, openssl, stream })) => (cause, openssl, stream),
            Err(_) => (RefusalCause::Timeout(snapshot.timeouts.handshake), None, None),
        };
        self.refused(cause.name(), Some(identity.as_bytes()));
        self.service.record_failure(format!("handshake with {address} failed: {cause}"));
        // Any local client can cause this line, without a key: it is rate-limited.
        self.log_stranger(&Event::HandshakeFailed {
            peer: &self.peer,
            who: identity,
            target: &address,
            cause: &cause,
            name: cause.name(),
            openssl,
        });
        // The application hears at once; the server may still have our alert to read.
        drop(downstream);
        if let Some(upstream) = stream {
            upstream.close_gently(ALERT_LINGER_TIME).await;
        }
        None
    }

    /// Connects, and says what is to be said before TLS and behind its handshake. Nothing is returned of
    /// what failed outside the handshake: the log has it.
    async fn attempt(
        &self,
        snapshot: &ServiceSnapshot,
        Credentials { connector, identity, name }: &Credentials<'_>,
        downstream: &Socket,
    ) -> Option<Attempt> {
        let original = || self.or_unreachable(downstream.original_destination());
        // Without a target there is no need to open the tunnel.
        let original_address = match &snapshot.negotiation {
            Some(Negotiation::Socks) => Some(original().ok()?),
            _ => None,
        };
        let to = if snapshot.uses_original_destination {
            Destination::Original(original().ok()?)
        } else {
            Destination::Configured(None)
        };
        let UpstreamConnection { socket: mut upstream, endpoint, mut address, .. } =
            self.connect_upstream(snapshot, None, &to).await.ok()?;
        let name = name.of(endpoint.as_ref());
        let limit = Instant::now() + snapshot.timeouts.handshake;
        self.ask_proxy(snapshot, &mut upstream, &mut address, limit).await?;
        Event::Presenting { who: identity, name }.log(self.scope());
        let _counted = self.service.count_handshake();
        let handshake = connector.connect_unflushed(
            snapshot.secrets.clone(),
            (*identity).clone(),
            name,
            Some(&address),
            upstream,
        );
        let mut done = timeout_at(limit, handshake).await;
        if let (Some(original_address), Ok(Ok(secured))) = (original_address, &mut done) {
            let asked =
                timeout_at(limit, net::socks::ask(&mut secured.stream, original_address)).await;
            let asked = asked.unwrap_or_else(|_| Err(timed_out("the server's end")));
            self.or_unreachable(asked).ok()?;
            address = format!("{original_address} through {address}");
        }
        Some(Attempt { done, address })
    }

    /// Has an HTTP proxy connect to the server's end, where the configuration names one. The address then
    /// says so.
    async fn ask_proxy(
        &self,
        snapshot: &ServiceSnapshot,
        upstream: &mut Socket,
        address: &mut String,
        limit: Instant,
    ) -> Option<()> {
        let Some(Negotiation::Connect(ask)) = &snapshot.negotiation else { return Some(()) };
        let asked = timeout_at(limit, net::http_connect(upstream, ask)).await;
        let asked = asked
            .unwrap_or_else(|_| Err(timed_out("the proxy")))
            .map_err(|error| io::Error::other(format!("{address}: {error}")));
        self.or_unreachable(asked).ok()?;
        Event::ProxyAgreed { proxy: address, host: &ask.host }.log(self.scope());
        *address = format!("{} through {address}", ask.host);
        Some(())
    }
}
