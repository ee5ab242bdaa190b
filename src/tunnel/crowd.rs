//! How many connections there are, and what is done when many have gone: their memory goes back to the
//! system, of which a small board has little.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::sys;

/// Fewer are not worth the search: at 16 kB each, 2 MB.
const MANY: usize = 128;
/// Whoever leaves in a crowd leaves within this time.
const CALM: Duration = Duration::from_millis(500);

/// The connections of all services.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    inside: AtomicUsize,
    /// The most there were since memory was given back last.
    most: AtomicUsize,
    planned: AtomicBool,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Presence(Arc<Crowd>);

impl Crowd {
    pub(super) fn enter(self: &Arc<Self>) -> Presence {
        let inside = self.inside.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(inside, Ordering::Relaxed);
        Presence(self.clone())
    }

    /// Whether many have gone: at least that many, and half of all, or a busy service would search again
    /// and again.
    fn has_left(&self) -> bool {
        let inside = self.inside.load(Ordering::Relaxed);
        let gone = self.most.load(Ordering::Relaxed).saturating_sub(inside);
        gone >= MANY && gone >= inside
    }

    fn settle(&self) {
        sys::memory::shrink();
        self.most.store(self.inside.load(Ordering::Relaxed), Ordering::Relaxed);
        self.planned.store(false, Ordering::Relaxed);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
        if !self.0.has_left() || self.0.planned.swap(true, Ordering::Relaxed) {
            return;
        }
        // Without a runtime the process is at its end.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let crowd = self.0.clone();
        runtime.spawn(async move {
            tokio::time::sleep(CALM).await;
            crowd.settle();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_once_when_many_have_left_and_not_while_they_come_and_go() {
        let crowd = Arc::new(Crowd::default());
        for _ in 0..10 * MANY {
            drop(crowd.enter());
        }
        assert!(!crowd.planned.load(Ordering::Relaxed));
        let mut many: Vec<_> = (0..2 * MANY).map(|_| crowd.enter()).collect();
        many.truncate(MANY + 1);
        assert!(!crowd.planned.load(Ordering::Relaxed));
        many.truncate(MANY);
        assert!(crowd.planned.load(Ordering::Relaxed));
        many.clear();
        tokio::time::sleep(CALM * 2).await;
        assert!(!crowd.planned.load(Ordering::Relaxed));
        assert_eq!(crowd.most.load(Ordering::Relaxed), 0);
    }
}
