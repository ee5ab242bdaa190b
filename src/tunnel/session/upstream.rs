//! The connection to a session's target, and what is said on it before the data.

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;

use tokio::io::AsyncWriteExt;

use super::Session;
use crate::config::model::{Endpoint, Host, Level, ProxyHeader};
use crate::net::socks::{AddressOwner, OwnAddresses};
use crate::net::{self, DialContext, DialRefusal, UpstreamConnection};
use crate::observe::event::Event;
use crate::secrets::Identity;
use crate::tls;
use crate::tunnel::snapshot::{OwnAddressPolicy, ServiceSnapshot};

/// Where a connection is to go.
pub(super) enum Destination<'a> {
    /// Where the configuration says; of several that take turns, there again.
    Configured(Option<&'a str>),
    /// Where the connection was meant to go before it was redirected here.
    Original(SocketAddr),
    /// Where the peer says.
    Requested(&'a Endpoint),
}

/// What a server end knows when it connects to its backend.
pub(super) struct VerifiedPeer<'a> {
    pub(super) wire: &'a Identity,
    pub(super) handshake: &'a tls::HandshakeInfo,
    pub(super) local: Option<SocketAddr>,
    /// Whether the session goes on from an earlier one.
    pub(super) resumed: bool,
}

impl Session {
    /// Connects to the target and says what is to be said before the data; or says why there is no target.
    pub(super) async fn connect_upstream(
        &self,
        snapshot: &ServiceSnapshot,
        verified_peer: Option<&VerifiedPeer<'_>>,
        to: &Destination<'_>,
    ) -> Result<UpstreamConnection, DialRefusal> {
        let who = verified_peer.map(|verified_peer| snapshot.policies.who(verified_peer.wire));
        let context = DialContext { peer: &self.peer, who: who.as_ref(), scope: self.scope() };
        let own =
            verified_peer.and_then(|verified_peer| snapshot.policies.dialer(verified_peer.wire));
        if snapshot.is_single_session && verified_peer.is_some() {
            Box::pin(self.service.wait_until_backend_idle(snapshot.backend_pause)).await;
        }
        let any = |_| Ok(());
        let rejected = OnceLock::new();
        let dialed = match to {
            Destination::Configured(again) => {
                let dialer = own.unwrap_or(&snapshot.dialer);
                dialer
                    .dial(&context, *again)
                    .await
                    .map_err(|error| (DialRefusal::Unreachable, error))
            }
            Destination::Original(address) => {
                let to = Endpoint::Tcp { host: Host::Ip(address.ip()), port: address.port() };
                snapshot.dialer.dial_to(&to, any, &context).await
            }
            Destination::Requested(to) => {
                // Once the name is looked up, and once for all of its addresses.
                let own = OnceLock::new();
                let may = |address| {
                    let owner = own.get_or_init(OwnAddresses::read).owner_of(address);
                    self.may_be_asked_for(snapshot, address, owner).inspect_err(|_| {
                        let _ = rejected.set(address);
                    })
                };
                snapshot.dialer.dial_to(to, may, &context).await
            }
        };
        let mut reached = match dialed {
            Ok(reached) => reached,
            Err((refused, error)) => {
                match to {
                    Destination::Configured(_) => self.log_unreachable(&format_args!(
                        "{error}; start the program there, or correct `connect`"
                    )),
                    Destination::Original(_) | Destination::Requested(_) => {
                        self.log_rejected(&error, rejected.get().copied());
                    }
                }
                return Err(refused);
            }
        };
        #[cfg(unix)]
        if let Some(child) = reached.child.take() {
            self.service.log_child(self.number, child);
        }
        if let (Some(version), Some(verified_peer)) = (snapshot.proxy_header, verified_peer) {
            let header = match version {
                ProxyHeader::V1 => net::write_proxy_header_v1(&self.peer, verified_peer.local),
                ProxyHeader::V2 => {
                    let who = who.as_ref().unwrap_or(verified_peer.wire).as_bytes();
                    let handshake = verified_peer.handshake;
                    let group = handshake.group.as_ref().map(|group| group.name.as_str());
                    let (version, suite) = (handshake.version, handshake.suite.as_str());
                    let answered = net::ProxyHeaderFields { who, version, suite, group };
                    net::write_proxy_header_v2(&self.peer, verified_peer.local, &answered)
                }
            };
            self.or_unreachable(reached.socket.write_all(&header).await)?;
        }
        Ok(reached)
    }

    /// Whether a SOCKS peer is connected to that address, or why not.
    fn may_be_asked_for(
        &self,
        snapshot: &ServiceSnapshot,
        address: SocketAddr,
        owner: AddressOwner,
    ) -> Result<(), &'static str> {
        match (owner, snapshot.own_addresses) {
            (AddressOwner::Nobody, _) => Err("this address is not allowed as a target"),
            (AddressOwner::ThisMachine, OwnAddressPolicy::Refuse) => {
                Err("an address of this machine, and socks-allow-own is not set")
            }
            (AddressOwner::ThisMachine, OwnAddressPolicy::Warn) => {
                let text = format!(
                    "{} connects through socks to {address}, an address of this machine",
                    self.peer
                );
                self.log_stranger(&Event::Finding {
                    level: Level::Warning,
                    text: &text,
                    code: None,
                });
                Ok(())
            }
            (AddressOwner::Other, _) | (AddressOwner::ThisMachine, OwnAddressPolicy::Allow) => {
                Ok(())
            }
        }
    }
}

/// Somebody has not answered in the time of a handshake.
pub(super) fn timed_out(who: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{who} does not answer"))
}
