//! Counters of one service. They outlive every reload.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of a service since the start.
#[derive(Debug, Default)]
pub struct Counters {
    opened: AtomicU64,
    /// Of sessions that have ended.
    up: TrafficCounters,
    down: TrafficCounters,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    ended: Mutex<BTreeMap<&'static str, u64>>,
}

/// The traffic of one direction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CarriedTraffic {
    /// Bytes of payload.
    pub bytes: u64,
    /// Records of TLS that they were in.
    pub records: u64,
    /// How often the keys for them were changed.
    pub key_updates: u64,
}

impl std::ops::AddAssign for CarriedTraffic {
    fn add_assign(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.records += more.records;
        self.key_updates += more.key_updates;
    }
}

#[derive(Debug, Default)]
struct TrafficCounters {
    bytes: AtomicU64,
    records: AtomicU64,
    key_updates: AtomicU64,
}

impl TrafficCounters {
    fn add(&self, more: CarriedTraffic) {
        self.bytes.fetch_add(more.bytes, Ordering::Relaxed);
        self.records.fetch_add(more.records, Ordering::Relaxed);
        self.key_updates.fetch_add(more.key_updates, Ordering::Relaxed);
    }

    fn read(&self) -> CarriedTraffic {
        CarriedTraffic {
            bytes: self.bytes.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            key_updates: self.key_updates.load(Ordering::Relaxed),
        }
    }
}

impl Counters {
    /// Counts a session that was let in and reached its target.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failed handshake by its cause; causes are a fixed list of names.
    pub fn refused(&self, cause: &'static str) {
        increment(&self.refused, cause);
    }

    /// Counts the end of a session by its kind, and what it carried in either direction.
    pub fn ended(&self, end: &'static str, up: CarriedTraffic, down: CarriedTraffic) {
        self.up.add(up);
        self.down.add(down);
        increment(&self.ended, end);
    }

    /// The current counts.
    pub fn snapshot(&self) -> CounterSnapshot {
        let names = |map: &Mutex<BTreeMap<&'static str, u64>>| {
            let map = map.lock();
            map.iter().flat_map(|map| map.iter()).map(|(name, n)| ((*name).into(), *n)).collect()
        };
        CounterSnapshot {
            opened: self.opened.load(Ordering::Relaxed),
            up: self.up.read(),
            down: self.down.read(),
            refused: names(&self.refused),
            ended: names(&self.ended),
        }
    }

    /// Adds what was counted so far.
    pub fn add_to(&self, totals: &mut Totals) {
        totals.opened += self.opened.load(Ordering::Relaxed);
        for (from, to) in [(&self.refused, &mut totals.refused), (&self.ended, &mut totals.ended)] {
            for (name, count) in from.lock().iter().flat_map(|map| map.iter()) {
                *to.entry(name).or_default() += count;
            }
        }
    }
}

/// The counters of one service at one moment.
#[derive(Debug, Default)]
pub struct CounterSnapshot {
    /// Sessions that were opened.
    pub opened: u64,
    /// Of ended sessions, from downstream to upstream.
    pub up: CarriedTraffic,
    /// And from upstream to downstream.
    pub down: CarriedTraffic,
    /// Connections that became no session, by cause.
    pub refused: BTreeMap<String, u64>,
    /// Ended sessions, by kind.
    pub ended: BTreeMap<String, u64>,
}

/// The sums over services, in words.
#[derive(Debug, Default)]
pub struct Totals {
    opened: u64,
    refused: BTreeMap<&'static str, u64>,
    ended: BTreeMap<&'static str, u64>,
}

impl Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: u64 = self.refused.values().sum();
        write!(f, "{} sessions", self.opened)?;
        write_counts(f, &self.ended)?;
        write!(f, " and {refused} refused connections")?;
        write_counts(f, &self.refused)
    }
}

fn write_counts(f: &mut fmt::Formatter<'_>, counts: &BTreeMap<&'static str, u64>) -> fmt::Result {
    for (n, (name, count)) in counts.iter().enumerate() {
        write!(f, "{}{name} {count}", if n == 0 { " (" } else { ", " })?;
    }
    if counts.is_empty() { Ok(()) } else { f.write_str(")") }
}

fn increment(map: &Mutex<BTreeMap<&'static str, u64>>, name: &'static str) {
    if let Ok(mut map) = map.lock() {
        *map.entry(name).or_default() += 1;
    }
}

/// Why a connection becomes no session. `pskgate explain` has a page for each.
pub const REFUSAL_CAUSES: [&str; 26] = [
    "aborted",
    "alert",
    "bad-proxy-header",
    "closed-early",
    "crowded-out",
    "expired",
    "full",
    "io",
    "no-common-group",
    "no-common-suite",
    "no-common-version",
    "no-psk",
    "not-allowed-from",
    "not-proven",
    "other-hash",
    "plain-text",
    "protocol",
    "psk-ke-only",
    "refused",
    "socket-options",
    "stale-ticket",
    "target-unreachable",
    "timeout",
    "too-many-offers",
    "unknown-identity",
    "wrong-key",
];

/// How a session ends. `pskgate explain` has a page for each.
pub const SESSION_ENDS: [&str; 14] = [
    "complete",
    "drain-expired",
    "draining",
    "half-closed",
    "idle",
    "key-update-flood",
    "kicked",
    "not-served",
    "plain-side",
    "revoked",
    "session-lifetime",
    "taken-over",
    "tls-side",
    "truncated",
];
