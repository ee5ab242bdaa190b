//! Whether it is a herd of clients with keys that comes, or a flood of strangers.

use std::time::Duration;

use tokio::time::Instant;

/// How much of what was known before each departure changes: after 22 of strangers a herd is none.
const MEMORY: u32 = 32;
const WHOLE: u32 = 1 << 16;

/// How long one of a herd that waits for *us* (a turn, or its next flight to be read) is protected: its
/// time may be spent on its predecessors. In a flood it is what [`super::arrivals::protection`] says.
const HERD_PROTECTION: Duration = Duration::from_secs(3);

/// How many of those who left had proven a key, of late. Only who has a key can make it grow.
#[derive(Debug)]
pub(super) struct HerdDetector {
    proven: u32,
    last_proof: Option<Instant>,
}

impl Default for HerdDetector {
    /// The first crowd is believed to be a herd.
    fn default() -> Self {
        Self { proven: WHOLE, last_proof: None }
    }
}

impl HerdDetector {
    pub(super) fn note_proof(&mut self, now: Instant) {
        self.proven += (WHOLE - self.proven) / MEMORY;
        self.last_proof = Some(now);
    }

    pub(super) fn note_departure(&mut self) {
        self.proven -= self.proven / MEMORY;
    }

    pub(super) fn is_herd(&self) -> bool {
        self.proven >= WHOLE / 2
    }

    pub(super) fn last_proof(&self) -> Option<Instant> {
        self.last_proof
    }

    /// How long somebody who waits for this end is protected.
    pub(super) fn protection(&self, own: Duration) -> Duration {
        if self.is_herd() { own.max(HERD_PROTECTION) } else { own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_end_a_herd_soon_and_it_takes_as_many_keys_to_be_one_again() {
        let mut trend = HerdDetector::default();
        let own = Duration::from_secs(1);
        assert!(trend.is_herd() && trend.protection(own) == HERD_PROTECTION);
        (0..30).for_each(|_| trend.note_departure());
        assert!(!trend.is_herd() && trend.protection(own) == own);
        (0..30).for_each(|_| trend.note_proof(Instant::now()));
        assert!(trend.is_herd());
    }
}
