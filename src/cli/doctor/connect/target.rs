//! The way to a peer below TLS: its name, its addresses, and a connection.

use std::io;
use std::time::{Duration, Instant};

use crate::cli::doctor::STEP_TIMEOUT;
use crate::cli::doctor::findings::{FaultKind, Findings};
use crate::cli::doctor::names::{NameFailure, format_milliseconds, look_up};
use crate::config::model::{Dialect, Endpoint, Failover, Host, Resolved, Target};
use crate::net::{DialContext, DialError, Dialer, Peer, Socket};
use crate::observe::event::LogContext;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// A connection to a target.
pub(super) struct TargetConnection {
    pub(super) at: Endpoint,
    pub(super) socket: Socket,
    pub(super) took: Duration,
}

/// Looks the name up and connects.
pub(super) async fn connect_target(
    target: &Endpoint,
    findings: &mut Findings,
) -> Option<TargetConnection> {
    let mut places = vec![target.clone()];
    if let Endpoint::Tcp { host: Host::Name(name), port } = target {
        let addresses = look_up(name, *port, "", NameFailure::Bad, findings).await?;
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
                    let text = format!("{address}: {}", explain_connect_error(&error).0);
                    findings.warn("TCP", text, "the next address is used instead");
                }
                findings
                    .ok("TCP", format!("{place} answers ({})", format_milliseconds(reached.took)));
                return Some(reached);
            }
            Err(error) => failed.extend(error.into_attempts()),
        }
    }
    for (address, error) in failed {
        let (words, help) = explain_connect_error(&error);
        findings.bad("TCP", FaultKind::Unavailable, format!("{address}: {words}"), help);
    }
    None
}

pub(super) async fn dial(place: &Endpoint) -> Result<TargetConnection, DialError> {
    let target = Resolved::default(place.clone(), Dialect::Native);
    let target = Target::Connect(vec![target]);
    let dialer = Dialer::new(target, Failover::Priority, None, STEP_TIMEOUT, None, Vec::new());
    let start = Instant::now();
    let reached = dialer
        .dial(&DialContext { peer: &Peer::Local, who: None, scope: LogContext::PROGRAM }, None)
        .await?;
    Ok(TargetConnection { at: place.clone(), socket: reached.socket, took: start.elapsed() })
}

/// What a failed connection means, and what to do.
fn explain_connect_error(error: &io::Error) -> (String, &'static str) {
    use io::ErrorKind as FaultKind;
    match error.kind() {
        FaultKind::ConnectionRefused => (
            "refused: the machine answers, but no program listens on this port".into(),
            "start the server, or correct the port; some firewalls refuse like this too",
        ),
        FaultKind::TimedOut => (
            format!("no answer ({error})"),
            "the machine is off, the address is another's, or a firewall drops what is sent there",
        ),
        FaultKind::HostUnreachable | FaultKind::NetworkUnreachable => (
            format!("no way there ({error})"),
            "look at this machine's network and routes, or whether the peer is on",
        ),
        FaultKind::PermissionDenied => {
            (format!("{error}"), "this machine's own firewall forbids it")
        }
        _ => (format!("{error}"), "look at the address and at the network between"),
    }
}
