//! Seats: the sessions that there may be at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long somebody with a proven key waits for a seat, counted from the moment at which one was given
/// back last, or the last one was taken. Clients that come at once and leave soon are all served; where
/// sessions stay, the rest is refused after this, and whoever comes later at once.
const SEAT_PATIENCE: Duration = Duration::from_secs(2);
/// How many may wait; of 25 kB each.
const MAX_QUEUE: usize = 1024;
/// And for how long in all.
const MAX_SEAT_WAIT: Duration = Duration::from_secs(10);

/// The sessions that a service may have at once. Survives every reload.
#[derive(Debug)]
pub(in crate::tunnel) struct Seats {
    limit: AtomicUsize,
    taken: AtomicUsize,
    /// When a seat was taken or given back last.
    moved: Mutex<Instant>,
    /// Those who wait, each of whom holds a connection.
    waiting: AtomicUsize,
    given_back: Notify,
}

impl Seats {
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

    /// Open sessions keep their seats, also above a lower limit.
    pub(in crate::tunnel) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A seat, given back on drop; none when all are taken.
    pub(in crate::tunnel) fn take(self: &Arc<Self>) -> Option<Seat> {
        let limit = self.limit();
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < limit).then_some(n + 1))
            .ok()
            .map(|_| {
                self.move_one();
                Seat(self.clone())
            })
    }

    fn move_one(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last_moved(&self) -> Instant {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for a seat; none if too many wait already.
    pub(in crate::tunnel) fn queue(self: &Arc<Self>) -> Option<SeatQueue> {
        self.waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < MAX_QUEUE).then_some(n + 1))
            .ok()
            .map(|_| SeatQueue { seats: self.clone(), until: Instant::now() + MAX_SEAT_WAIT })
    }
}

/// Somebody who waits for a seat.
#[derive(Debug)]
pub(in crate::tunnel) struct SeatQueue {
    seats: Arc<Seats>,
    until: Instant,
}

impl SeatQueue {
    /// Asks for a seat now and whenever one is given back, until it is no use to wait any longer.
    pub(in crate::tunnel) async fn seat<T>(&self, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            let mut given_back = std::pin::pin!(self.seats.given_back.notified());
            // From here on none that is given back is missed.
            given_back.as_mut().enable();
            if let Some(seat) = ask() {
                return Some(seat);
            }
            let limit = self.until.min(self.seats.last_moved() + SEAT_PATIENCE);
            let is_late = timeout_at(limit, given_back).await.is_err();
            // Unless one was given back meanwhile, to somebody else.
            if is_late && limit >= self.until.min(self.seats.last_moved() + SEAT_PATIENCE) {
                return None;
            }
        }
    }
}

impl Drop for SeatQueue {
    fn drop(&mut self) {
        self.seats.waiting.fetch_sub(1, Ordering::AcqRel);
        // What woke this one may be meant for the next.
        self.seats.given_back.notify_one();
    }
}

#[derive(Debug)]
pub(in crate::tunnel) struct Seat(Arc<Seats>);

impl Drop for Seat {
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
        let seats = Seats::new(2);
        let first = seats.take();
        let second = seats.take();
        assert!(first.is_some() && second.is_some() && seats.take().is_none());
        drop(first);
        assert!(seats.take().is_some());
    }

    #[tokio::test]
    async fn a_limit_that_changes_counts_for_newcomers_only() {
        let seats = Seats::new(2);
        assert_eq!(seats.limit(), 2);
        let there: Vec<_> = (0..2).filter_map(|_| seats.take()).collect();
        seats.set_limit(1);
        assert_eq!((seats.limit(), there.len()), (1, 2));
        assert!(seats.take().is_none());
        seats.set_limit(3);
        assert!(seats.take().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_gets_a_seat_that_is_given_back_and_is_refused_where_sessions_stay() {
        let seats = Seats::new(4);
        let mut taken: Vec<_> = (0..4).map(|_| seats.take().unwrap()).collect();
        let queue = seats.queue().unwrap();
        let crowd: Vec<_> = (1..MAX_QUEUE).filter_map(|_| seats.queue()).collect();
        assert!(seats.queue().is_none(), "each holds a connection");
        drop(crowd);
        let start = Instant::now();
        let leaves = async {
            for _ in 0..3 {
                tokio::time::sleep(SEAT_PATIENCE - Duration::from_millis(1)).await;
                drop(taken.pop());
            }
        };
        // Others take what is given back, until the third.
        let mut others = Vec::new();
        let ask = || {
            let seat = seats.take()?;
            if others.len() < 2 {
                others.push(seat);
                return None;
            }
            Some(seat)
        };
        let (seat, ()) = tokio::join!(queue.seat(ask), leaves);
        assert!(seat.is_some() && start.elapsed() < 3 * SEAT_PATIENCE);

        let start = Instant::now();
        assert!(queue.seat(|| seats.take()).await.is_none());
        assert_eq!(start.elapsed(), SEAT_PATIENCE);
        // It is known by now that they stay.
        let late = Instant::now();
        assert!(queue.seat(|| seats.take()).await.is_none());
        assert_eq!(late.elapsed(), Duration::ZERO);
    }
}
