//! What a connection's task is told by the others.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

const TURN: u8 = 1;
const PUT_OUT: u8 = 2;

/// One task waits for it, and is told of either whichever it waits for.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

impl Signal {
    pub(super) fn give_turn(&self) {
        self.set(TURN);
    }

    pub(super) fn evict(&self) {
        self.set(PUT_OUT);
    }

    pub(super) fn has_turn(&self) -> bool {
        self.state.load(Ordering::Acquire) & TURN != 0
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.state.load(Ordering::Acquire) & PUT_OUT != 0
    }

    fn set(&self, what: u8) {
        self.state.fetch_or(what, Ordering::AcqRel);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ready when `is` holds.
    pub(super) fn poll_until(&self, cx: &Context<'_>, is: impl Fn(&Self) -> bool) -> Poll<()> {
        if is(self) {
            return Poll::Ready(());
        }
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        // It may have been told between the two.
        if is(self) { Poll::Ready(()) } else { Poll::Pending }
    }
}
