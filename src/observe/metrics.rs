//! Counters of one service. They outlive every reload.

use std::collections::BTreeMap;
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

    /// Sessions and failed handshakes so far.
    pub fn totals(&self) -> (u64, u64) {
        let refused = self.refused.lock().map_or(0, |map| map.values().sum());
        (self.opened.load(Ordering::Relaxed), refused)
    }
}

fn bump(map: &Mutex<BTreeMap<&'static str, u64>>, name: &'static str) {
    if let Ok(mut map) = map.lock() {
        *map.entry(name).or_default() += 1;
    }
}
