//! How many connections there are, and what is done when many have gone: their memory goes back to the
//! system, of which a small board has little.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::sys;

/// Fewer are not worth the search: at 16 kB each, 2 MB.
const MIN_CONNECTIONS_GONE: usize = 128;
/// Whoever leaves in a crowd leaves within this time.
const TRIM_DELAY: Duration = Duration::from_millis(500);

/// The connections of all services.
#[derive(Debug, Default)]
pub(super) struct MemoryTrimmer {
    connections: AtomicUsize,
    /// The most there were since memory was given back last.
    peak: AtomicUsize,
    is_scheduled: AtomicBool,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionGuard(Arc<MemoryTrimmer>);

impl MemoryTrimmer {
    pub(super) fn track(self: &Arc<Self>) -> ConnectionGuard {
        let connections = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(connections, Ordering::Relaxed);
        ConnectionGuard(self.clone())
    }

    /// Whether many have gone: at least that many, and half of all, or a busy service would search again
    /// and again.
    fn have_many_left(&self) -> bool {
        let connections = self.connections.load(Ordering::Relaxed);
        let gone = self.peak.load(Ordering::Relaxed).saturating_sub(connections);
        gone >= MIN_CONNECTIONS_GONE && gone >= connections
    }

    fn trim(&self) {
        sys::memory::release_unused_memory();
        self.peak.store(self.connections.load(Ordering::Relaxed), Ordering::Relaxed);
        self.is_scheduled.store(false, Ordering::Relaxed);
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        if !self.0.have_many_left() || self.0.is_scheduled.swap(true, Ordering::Relaxed) {
            return;
        }
        // Without a runtime the process is at its end.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let memory_trimmer = self.0.clone();
        runtime.spawn(async move {
            tokio::time::sleep(TRIM_DELAY).await;
            memory_trimmer.trim();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_once_when_many_have_left_and_not_while_they_come_and_go() {
        let memory_trimmer = Arc::new(MemoryTrimmer::default());
        for _ in 0..10 * MIN_CONNECTIONS_GONE {
            drop(memory_trimmer.track());
        }
        assert!(!memory_trimmer.is_scheduled.load(Ordering::Relaxed));
        let mut many: Vec<_> =
            (0..2 * MIN_CONNECTIONS_GONE).map(|_| memory_trimmer.track()).collect();
        many.truncate(MIN_CONNECTIONS_GONE + 1);
        assert!(!memory_trimmer.is_scheduled.load(Ordering::Relaxed));
        many.truncate(MIN_CONNECTIONS_GONE);
        assert!(memory_trimmer.is_scheduled.load(Ordering::Relaxed));
        many.clear();
        tokio::time::sleep(TRIM_DELAY * 2).await;
        assert!(!memory_trimmer.is_scheduled.load(Ordering::Relaxed));
        assert_eq!(memory_trimmer.peak.load(Ordering::Relaxed), 0);
    }
}
