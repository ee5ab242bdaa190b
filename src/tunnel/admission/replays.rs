//! Binders that were seen. A recorded ClientHello verifies again without its key: the second of its kind
//! has shown nothing.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::tls::Binder;

/// For how long after its handshake's end a binder is remembered.
const BINDER_MEMORY_TIME: Duration = Duration::from_secs(60);
/// How many are remembered at most, at about 100 bytes each. Of more within a minute the oldest are
/// forgotten early: they are good for a place in the share of their identity.
const MAX_BINDERS: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Replays {
    seen: HashMap<Binder, BinderUse>,
    /// In the order of their ends.
    ended: VecDeque<(Instant, Binder)>,
}

#[derive(Debug, Default)]
struct BinderUse {
    open: usize,
    ended: Option<Instant>,
}

impl Replays {
    /// A handshake shows this binder. Whether it is the first that does. Each must be followed by
    /// [`Replays::end`].
    pub(super) fn begin(&mut self, binder: Binder, now: Instant) -> bool {
        self.forget(now);
        let seen = self.seen.entry(binder).or_default();
        let is_first = seen.open == 0 && seen.ended.is_none();
        seen.open += 1;
        is_first
    }

    pub(super) fn end(&mut self, binder: &Binder, now: Instant) {
        if let Some(seen) = self.seen.get_mut(binder) {
            seen.open = seen.open.saturating_sub(1);
            seen.ended = Some(now);
            self.ended.push_back((now, *binder));
        }
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(at, binder)) = self.ended.front()
            && (now.duration_since(at) > BINDER_MEMORY_TIME || self.ended.len() > MAX_BINDERS)
        {
            self.ended.pop_front();
            // Unless it was seen again since.
            if self.seen.get(&binder).is_some_and(|s| s.open == 0 && s.ended == Some(at)) {
                self.seen.remove(&binder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binder_is_believed_once_while_it_is_open_and_for_a_minute_after() {
        let start = Instant::now();
        let mut replays = Replays::default();
        let binder = [7; 32];
        assert!(replays.begin(binder, start));
        assert!(!replays.begin(binder, start), "it is open");
        assert!(replays.begin([8; 32], start), "another one");
        replays.end(&binder, start);
        replays.end(&binder, start + Duration::from_secs(10));
        let replayed = start + Duration::from_secs(69);
        assert!(!replays.begin(binder, replayed), "the last of its kind ended 59 s ago");
        replays.end(&binder, replayed);
        assert!(replays.begin(binder, replayed + BINDER_MEMORY_TIME + Duration::from_millis(1)));
    }

    #[test]
    fn no_more_are_remembered_than_there_is_memory_for() {
        let now = Instant::now();
        let mut replays = Replays::default();
        for number in 0..2 * MAX_BINDERS as u64 {
            let mut binder = [0; 32];
            binder[..8].copy_from_slice(&number.to_be_bytes());
            replays.begin(binder, now);
            replays.end(&binder, now);
        }
        assert!(replays.seen.len() <= MAX_BINDERS && replays.ended.len() <= MAX_BINDERS);
    }
}
