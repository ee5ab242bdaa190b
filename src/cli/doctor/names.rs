//! Names of targets, looked up.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::STEP;
use super::findings::{Findings, Kind};

/// What a name without an address means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
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
    missing: Missing,
    findings: &mut Findings,
) -> Option<Vec<SocketAddr>> {
    let start = Instant::now();
    let looked_up = timeout(STEP, tokio::net::lookup_host((name, port))).await;
    let found = looked_up.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {STEP:?}")))
    });
    match found {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.collect();
            let shown: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            let text = format!("{name}{suffix} is {} ({})", shown.join(", "), ms(start.elapsed()));
            findings.ok("name", text);
            Some(addresses)
        }
        Err(error) => {
            let text = format!("{name}{suffix} has no address: {error}");
            let help = "correct the name, check the name server, or write the address itself";
            match missing {
                Missing::Bad => findings.bad("name", Kind::Unavailable, text, help),
                Missing::Warning => findings.warn("name", text, help),
            }
            None
        }
    }
}

/// A time in milliseconds.
pub(super) fn ms(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}
