//! A client end: admission, then the way to the server's end, then the TLS handshake.

use std::io;

use tokio::time::{Instant, timeout_at};

use super::streams::Streams;
use super::upstream::{Destination, late};
use super::{ALERT, Open, Session};
use crate::config::model::{Mode, Negotiation};
use crate::net::{self, Reached, Socket};
use crate::observe::event::Event;
use crate::secrets::Identity;
use crate::tls::{Cause, Connector, Failure, Secured};
use crate::tunnel::admission::Visitor;
use crate::tunnel::ending::{Cut, End};
use crate::tunnel::setup::{ServerName, Setup};

/// What a client end presents, and how.
pub(super) struct Credentials<'a> {
    pub(super) connector: &'a Connector,
    pub(super) identity: &'a Identity,
    pub(super) name: &'a ServerName,
}

/// A handshake that was tried in its time, and with whom.
struct Attempt {
    /// An error is the limit of time.
    done: Result<Result<Secured<Socket>, Failure<Socket>>, tokio::time::error::Elapsed>,
    address: String,
}

impl Session {
    /// From an accepted plain socket to a session whose server's end has proven its key.
    pub(super) async fn establish_client(
        &self,
        setup: &Setup,
        credentials: &Credentials<'_>,
        visitor: Visitor,
        downstream: Socket,
    ) -> Option<Open> {
        let member = self.admit(setup, credentials.identity).await?;
        // It counts as a session from here on.
        drop(visitor);
        let attempt = tokio::select! {
            biased;
            order = member.info.ordered() => {
                let end = End::Cut(Cut::Ordered(order));
                self.left_early(&end);
                self.service.failed(format!("{end}; the log of the server's end may have the reason"));
                return None;
            }
            attempt = self.attempt(setup, credentials, &downstream) => attempt?,
        };
        let Attempt { done, address } = attempt;
        let (cause, stream) = match done {
            Ok(Ok(Secured { mut stream, grant, facts, resumed, .. })) => {
                self.secured(Mode::Client, &grant, &facts, resumed);
                stream.rekey_after(setup.rekey_after);
                let traffic = stream.traffic().clone();
                self.opened(&member, facts, address, traffic, Mode::Client);
                let streams = Streams::Client { downstream, upstream: Box::new(stream) };
                return Some(Open { streams, grant, member });
            }
            Ok(Err(Failure { cause, stream, .. })) => (cause, stream),
            Err(_) => (Cause::Timeout(setup.clocks.handshake), None),
        };
        self.service.counters.refused(cause.name());
        self.service.failed(format!("handshake with {address} failed: {cause}"));
        // Any local client can cause this line, without a key: it is rate-limited.
        self.log_stranger(&Event::HandshakeFailed {
            peer: &self.peer,
            who: credentials.identity,
            target: &address,
            cause: &cause,
            name: cause.name(),
        });
        // The application hears at once; the server may still have our alert to read.
        drop(downstream);
        if let Some(upstream) = stream {
            upstream.close_gently(ALERT).await;
        }
        None
    }

    /// Connects, and says what is to be said before TLS and behind its handshake. Nothing is returned of
    /// what failed outside the handshake: the log has it.
    async fn attempt(
        &self,
        setup: &Setup,
        Credentials { connector, identity, name }: &Credentials<'_>,
        downstream: &Socket,
    ) -> Option<Attempt> {
        let original = || self.or_unreachable(downstream.original_destination());
        // Without a target there is no need to open the tunnel.
        let meant = match &setup.negotiation {
            Some(Negotiation::Socks) => Some(original().ok()?),
            _ => None,
        };
        let to = if setup.to_original {
            Destination::Meant(original().ok()?)
        } else {
            Destination::Configured(None)
        };
        let Reached { socket: mut upstream, endpoint, mut address, .. } =
            self.connect_upstream(setup, None, &to).await.ok()?;
        let name = name.of(endpoint.as_ref());
        let limit = Instant::now() + setup.clocks.handshake;
        self.ask_proxy(setup, &mut upstream, &mut address, limit).await?;
        Event::Presenting { who: identity, name }.log(self.scope());
        let _counted = self.service.handshaking();
        let handshake = connector.connect_unflushed(
            setup.secrets.clone(),
            (*identity).clone(),
            name,
            Some(&address),
            upstream,
        );
        let mut done = timeout_at(limit, handshake).await;
        if let (Some(meant), Ok(Ok(secured))) = (meant, &mut done) {
            let asked = timeout_at(limit, net::socks::ask(&mut secured.stream, meant)).await;
            let asked = asked.unwrap_or_else(|_| Err(late("the server's end")));
            self.or_unreachable(asked).ok()?;
            address = format!("{meant} through {address}");
        }
        Some(Attempt { done, address })
    }

    /// Has an HTTP proxy connect to the server's end, where the configuration names one. The address then
    /// says so.
    async fn ask_proxy(
        &self,
        setup: &Setup,
        upstream: &mut Socket,
        address: &mut String,
        limit: Instant,
    ) -> Option<()> {
        let Some(Negotiation::Connect(ask)) = &setup.negotiation else { return Some(()) };
        let asked = timeout_at(limit, net::http_connect(upstream, ask)).await;
        let asked = asked
            .unwrap_or_else(|_| Err(late("the proxy")))
            .map_err(|error| io::Error::other(format!("{address}: {error}")));
        self.or_unreachable(asked).ok()?;
        Event::ProxyAgreed { proxy: address, host: &ask.host }.log(self.scope());
        *address = format!("{} through {address}", ask.host);
        Some(())
    }
}
