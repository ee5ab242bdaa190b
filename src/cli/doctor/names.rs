//! Names of targets, looked up.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::STEP_TIMEOUT;
use super::findings::{FaultKind, Findings};

/// What a name without an address means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameFailure {
    /// The peer that was asked for cannot be reached.
    Bad,
    /// The configuration may be for another network than this one.
    Warning,
}

/// Looks a name up and tells what came of it.
pub(super) async fn look_up(
    name: &str,
    port: u16,
    suffix: &str,
    missing: NameFailure,
    findings: &mut Findings,
) -> Option<Vec<SocketAddr>> {
    let start = Instant::now();
    let looked_up = timeout(STEP_TIMEOUT, tokio::net::lookup_host((name, port))).await;
    let found = looked_up.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {STEP_TIMEOUT:?}")))
    });
    match found {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.collect();
            let shown: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            let text = format!(
                "{name}{suffix} is {} ({})",
                shown.join(", "),
                format_milliseconds(start.elapsed())
            );
            findings.ok("name", text);
            Some(addresses)
        }
        Err(error) => {
            let text = format!("{name}{suffix} has no address: {error}");
            let help = "correct the name, check the name server, or write the address itself";
            match missing {
                NameFailure::Bad => findings.bad("name", FaultKind::Unavailable, text, help),
                NameFailure::Warning => findings.warn("name", text, help),
            }
            None
        }
    }
}

/// A time in milliseconds.
pub(super) fn format_milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}
