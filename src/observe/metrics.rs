//! Counters of one service. They outlive every reload.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a service has seen since the start.
#[derive(Debug, Default)]
pub struct Counters {
    opened: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    ended: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// Counts a session that was let in and reached its target.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failed handshake by its cause; causes are a fixed list of names.
    pub fn refused(&self, cause: &'static str) {
        bump(&self.refused, cause);
    }

    /// Counts the end of a session by its kind.
    pub fn ended(&self, end: &'static str) {
        bump(&self.ended, end);
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
        each(f, &self.ended)?;
        write!(f, " and {refused} refused connections")?;
        each(f, &self.refused)
    }
}

fn each(f: &mut fmt::Formatter<'_>, counts: &BTreeMap<&'static str, u64>) -> fmt::Result {
    for (n, (name, count)) in counts.iter().enumerate() {
        write!(f, "{}{name} {count}", if n == 0 { " (" } else { ", " })?;
    }
    if counts.is_empty() { Ok(()) } else { f.write_str(")") }
}

fn bump(map: &Mutex<BTreeMap<&'static str, u64>>, name: &'static str) {
    if let Ok(mut map) = map.lock() {
        *map.entry(name).or_default() += 1;
    }
}
