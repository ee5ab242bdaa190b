//! The way to a peer below TLS: its name, its addresses, and a connection.

use std::io;
use std::time::{Duration, Instant};

use crate::cli::doctor::STEP;
use crate::cli::doctor::findings::{Findings, Kind};
use crate::cli::doctor::names::{Missing, look_up, ms};
use crate::config::model::{Dialect, Endpoint, Failover, Host, Resolved, Target};
use crate::net::{DialContext, DialError, Dialer, Peer, Socket};
use crate::observe::event::Scope;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// A target that answers, and a connection to it.
pub(super) struct Reached {
    pub(super) at: Endpoint,
    pub(super) socket: Socket,
    pub(super) took: Duration,
}

/// Looks the name up and connects.
pub(super) async fn reach(target: &Endpoint, findings: &mut Findings) -> Option<Reached> {
    let mut places = vec![target.clone()];
    if let Endpoint::Tcp { host: Host::Name(name), port } = target {
        let addresses = look_up(name, *port, "", Missing::Bad, findings).await?;
        places = addresses
            .into_iter()
            .take(MAX_ADDRESSES)
            .map(|address| Endpoint::Tcp { host: Host::Ip(address.ip()), port: address.port() })
            .collect();
    }
    let mut failed = Vec::new();
    for place in places {
        match dial(&place).await {
            Ok(reached) => {
                // An address that does not answer holds up every connection that tries it first.
                for (address, error) in failed {
                    let text = format!("{address}: {}", tcp(&error).0);
                    findings.warn("TCP", text, "the next address is used instead");
                }
                findings.ok("TCP", format!("{place} answers ({})", ms(reached.took)));
                return Some(reached);
            }
            Err(error) => failed.extend(error.into_attempts()),
        }
    }
    for (address, error) in failed {
        let (words, help) = tcp(&error);
        findings.bad("TCP", Kind::Unavailable, format!("{address}: {words}"), help);
    }
    None
}

pub(super) async fn dial(place: &Endpoint) -> Result<Reached, DialError> {
    let target = Resolved::default(place.clone(), Dialect::Native);
    let target = Target::Connect(vec![target]);
    let dialer = Dialer::new(target, Failover::Priority, None, STEP, None, Vec::new());
    let start = Instant::now();
    let reached = dialer
        .dial(&DialContext { peer: &Peer::Local, who: None, scope: Scope::PROGRAM }, None)
        .await?;
    Ok(Reached { at: place.clone(), socket: reached.socket, took: start.elapsed() })
}

/// What a failed connection means, and what to do.
fn tcp(error: &io::Error) -> (String, &'static str) {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => (
            "refused: the machine answers, but no program listens on this port".into(),
            "start the server, or correct the port; some firewalls refuse like this too",
        ),
        Kind::TimedOut => (
            format!("no answer ({error})"),
            "the machine is off, the address is another's, or a firewall drops what is sent there",
        ),
        Kind::HostUnreachable | Kind::NetworkUnreachable => (
            format!("no way there ({error})"),
            "look at this machine's network and routes, or whether the peer is on",
        ),
        Kind::PermissionDenied => (format!("{error}"), "this machine's own firewall forbids it"),
        _ => (format!("{error}"), "look at the address and at the network between"),
    }
}
