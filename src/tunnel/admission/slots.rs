//! Seats: the sessions that there may be at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long somebody with a proven key waits for a slot, counted from the moment at which one was given
/// back last, or the last one was taken. Clients that come at once and leave soon are all served; where
/// sessions stay, the rest is refused after this, and whoever comes later at once.
const SLOT_IDLE_TIME: Duration = Duration::from_secs(2);
/// How many may wait; of 25 kB each.
const MAX_QUEUE: usize = 1024;
/// And for how long in all.
const MAX_SLOT_WAIT: Duration = Duration::from_secs(10);

/// The sessions that a service may have at once. Survives every reload.
#[derive(Debug)]
pub(in crate::tunnel) struct SessionSlots {
    limit: AtomicUsize,
    taken: AtomicUsize,
    /// When a slot was taken or given back last.
    moved: Mutex<Instant>,
    /// Those who wait, each of whom holds a connection.
    waiting: AtomicUsize,
    given_back: Notify,
}

impl SessionSlots {
    pub(in crate::tunnel) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            taken: AtomicUsize::new(0),
            moved: Mutex::new(Instant::now()),
            waiting: AtomicUsize::new(0),
            given_back: Notify::new(),
        })
    }

    pub(in crate::tunnel) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many are taken.
    pub(in crate::tunnel) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Open sessions keep their slots, also above a lower limit.
    pub(in crate::tunnel) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A slot, given back on drop; none when all are taken.
    pub(in crate::tunnel) fn take(self: &Arc<Self>) -> Option<SessionSlot> {
        let limit = self.limit();
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < limit).then_some(n + 1))
            .ok()
            .map(|_| {
                self.move_one();
                SessionSlot(self.clone())
            })
    }

    fn move_one(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last_moved(&self) -> Instant {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for a slot; none if too many wait already.
    pub(in crate::tunnel) fn queue(self: &Arc<Self>) -> Option<SlotQueue> {
        self.waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < MAX_QUEUE).then_some(n + 1))
            .ok()
            .map(|_| SlotQueue { slots: self.clone(), until: Instant::now() + MAX_SLOT_WAIT })
    }
}

/// Somebody who waits for a slot.
#[derive(Debug)]
pub(in crate::tunnel) struct SlotQueue {
    slots: Arc<SessionSlots>,
    until: Instant,
}

impl SlotQueue {
    /// Asks for a slot now and whenever one is given back, until it is no use to wait any longer.
    pub(in crate::tunnel) async fn slot<T>(&self, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            let mut given_back = std::pin::pin!(self.slots.given_back.notified());
            // From here on none that is given back is missed.
            given_back.as_mut().enable();
            if let Some(slot) = ask() {
                return Some(slot);
            }
            let limit = self.until.min(self.slots.last_moved() + SLOT_IDLE_TIME);
            let is_late = timeout_at(limit, given_back).await.is_err();
            // Unless one was given back meanwhile, to somebody else.
            if is_late && limit >= self.until.min(self.slots.last_moved() + SLOT_IDLE_TIME) {
                return None;
            }
        }
    }
}

impl Drop for SlotQueue {
    fn drop(&mut self) {
        self.slots.waiting.fetch_sub(1, Ordering::AcqRel);
        // What woke this one may be meant for the next.
        self.slots.given_back.notify_one();
    }
}

#[derive(Debug)]
pub(in crate::tunnel) struct SessionSlot(Arc<SessionSlots>);

impl Drop for SessionSlot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.move_one();
        self.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_seat_comes_back() {
        let slots = SessionSlots::new(2);
        let first = slots.take();
        let second = slots.take();
        assert!(first.is_some() && second.is_some() && slots.take().is_none());
        drop(first);
        assert!(slots.take().is_some());
    }

    #[tokio::test]
    async fn a_limit_that_changes_counts_for_newcomers_only() {
        let slots = SessionSlots::new(2);
        assert_eq!(slots.limit(), 2);
        let there: Vec<_> = (0..2).filter_map(|_| slots.take()).collect();
        slots.set_limit(1);
        assert_eq!((slots.limit(), there.len()), (1, 2));
        assert!(slots.take().is_none());
        slots.set_limit(3);
        assert!(slots.take().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_gets_a_seat_that_is_given_back_and_is_refused_where_sessions_stay() {
        let slots = SessionSlots::new(4);
        let mut taken: Vec<_> = (0..4).map(|_| slots.take().unwrap()).collect();
        let queue = slots.queue().unwrap();
        let crowd: Vec<_> = (1..MAX_QUEUE).filter_map(|_| slots.queue()).collect();
        assert!(slots.queue().is_none(), "each holds a connection");
        drop(crowd);
        let start = Instant::now();
        let leaves = async {
            for _ in 0..3 {
                tokio::time::sleep(SLOT_IDLE_TIME - Duration::from_millis(1)).await;
                drop(taken.pop());
            }
        };
        // Others take what is given back, until the third.
        let mut others = Vec::new();
        let ask = || {
            let slot = slots.take()?;
            if others.len() < 2 {
                others.push(slot);
                return None;
            }
            Some(slot)
        };
        let (slot, ()) = tokio::join!(queue.slot(ask), leaves);
        assert!(slot.is_some() && start.elapsed() < 3 * SLOT_IDLE_TIME);

        let start = Instant::now();
        assert!(queue.slot(|| slots.take()).await.is_none());
        assert_eq!(start.elapsed(), SLOT_IDLE_TIME);
        // It is known by now that they stay.
        let late = Instant::now();
        assert!(queue.slot(|| slots.take()).await.is_none());
        assert_eq!(late.elapsed(), Duration::ZERO);
    }
}
