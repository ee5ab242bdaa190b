//! The connection to a session's target, and what is said on it before the data.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;

use super::Session;
use crate::config::model::{Endpoint, Host, ProxyHeader};
use crate::net::{self, Caller, Reached, Refused};
use crate::secrets::Identity;
use crate::tls;
use crate::tunnel::setup::Setup;

/// Where a connection is to go.
pub(super) enum Destination<'a> {
    /// Where the configuration says; of several that take turns, there again.
    Configured(Option<&'a str>),
    /// Where the connection was meant to go before it was redirected here.
    Meant(SocketAddr),
    /// Where the peer says.
    Asked(&'a Endpoint),
}

/// What a server end knows when it connects to its backend.
pub(super) struct VerifiedPeer<'a> {
    pub(super) wire: &'a Identity,
    pub(super) facts: &'a tls::Facts,
    pub(super) local: Option<SocketAddr>,
    /// Whether the session goes on from an earlier one.
    pub(super) resumed: bool,
}

impl Session {
    /// Connects to the target and says what is to be said before the data; or says why there is no target.
    pub(super) async fn connect_upstream(
        &self,
        setup: &Setup,
        known: Option<&VerifiedPeer<'_>>,
        to: &Destination<'_>,
    ) -> Result<Reached, Refused> {
        let who = known.map(|known| setup.policies.who(known.wire));
        let caller = Caller { peer: &self.peer, who: who.as_ref(), scope: self.scope() };
        let own = known.and_then(|known| setup.policies.dialer(known.wire));
        if setup.single && known.is_some() {
            Box::pin(self.service.settled()).await;
        }
        let any = |_| true;
        let dialed = match to {
            Destination::Configured(again) => {
                let dialer = own.unwrap_or(&setup.dialer);
                dialer.dial(&caller, *again).await.map_err(|error| (Refused::Unreachable, error))
            }
            Destination::Meant(address) => {
                let to = Endpoint::Tcp { host: Host::Ip(address.ip()), port: address.port() };
                setup.dialer.dial_to(&to, any, &caller).await
            }
            Destination::Asked(to) => {
                setup.dialer.dial_to(to, net::socks::may_be_asked_for, &caller).await
            }
        };
        let mut reached = match dialed {
            Ok(reached) => reached,
            Err((refused, error)) => {
                self.unreachable(&error);
                return Err(refused);
            }
        };
        #[cfg(unix)]
        if let Some(child) = reached.child.take() {
            self.service.watch(self.number, child);
        }
        if let (Some(version), Some(known)) = (setup.preface, known) {
            let header = match version {
                ProxyHeader::V1 => net::proxy_header(&self.peer, known.local),
                ProxyHeader::V2 => {
                    let who = who.as_ref().unwrap_or(known.wire).as_bytes();
                    let facts = known.facts;
                    let group = facts.group.as_ref().map(|group| group.name.as_str());
                    let (version, suite) = (facts.version, facts.suite.as_str());
                    let told = net::Told { who, version, suite, group };
                    net::proxy_header_v2(&self.peer, known.local, &told)
                }
            };
            self.or_unreachable(reached.socket.write_all(&header).await)?;
        }
        Ok(reached)
    }
}

/// Somebody has not answered in the time of a handshake.
pub(super) fn late(who: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{who} does not answer"))
}
