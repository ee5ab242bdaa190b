//! How much one session moves before the others have a turn.
//!
//! All sessions of a thread take turns, and a turn is a batch. Large batches make a transfer fast, but a request of
//! another session waits until the batch that is under way is over. So batches are large while transfers have
//! the thread to themselves, and small while *other* sessions that exchange messages are there too: a request
//! whose answer is a transfer does not make that transfer slow. What is recent is counted in bytes: it costs no
//! look at the clock, and a slow machine needs no other number.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a transfer moves in one turn beside sessions that exchange messages: two TLS records. One record costs
/// a transfer more, and the requests beside it gain little by it (docs/performance.md).
pub(super) const SMALL_BATCH_SIZE: usize = 32 * 1024;
/// A turn that moves more is one of a transfer.
const MAX_MESSAGE_SIZE: u64 = 16 * 1024;
/// After so many turns with messages only, a session has finished its transfer.
const TURNS_AFTER_TRANSFER: u8 = 16;
/// A session that exchanges messages counts as present until the thread has moved so much since its last turn:
/// some ten milliseconds of a transfer.
const PRESENCE: u64 = 8 * 1024 * 1024;

thread_local! {
    static THREAD: Cell<ThreadTurns> =
        const { Cell::new(ThreadTurns { moved: 0, last: None, last_of_another: None }) };
}

/// The turns of all sessions of a thread.
#[derive(Debug, Clone, Copy)]
struct ThreadTurns {
    /// Bytes so far.
    moved: u64,
    /// The last turn of a session that exchanges messages.
    last: Option<MessageTurn>,
    /// The last one of another session than that.
    last_of_another: Option<MessageTurn>,
}

/// A turn of a session that exchanges messages.
#[derive(Debug, Clone, Copy)]
struct MessageTurn {
    session: u64,
    /// What the thread had moved by then.
    at: u64,
}

/// The turns of one session.
#[derive(Debug)]
pub(super) struct SessionTurns {
    /// Tells it from the other sessions of the process.
    session: u64,
    /// How many turns it takes until it counts as one that exchanges messages.
    until_message: u8,
}

impl SessionTurns {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { session: NEXT.fetch_add(1, Ordering::Relaxed), until_message: 0 }
    }

    /// Whether another session of this thread exchanges messages, so that batches should be small.
    pub(super) fn should_be_brief(&self) -> bool {
        let ThreadTurns { moved, last, last_of_another } = THREAD.get();
        let other = last.filter(|turn| turn.session != self.session).or(last_of_another);
        other.is_some_and(|turn| moved.wrapping_sub(turn.at) < PRESENCE)
    }

    /// Notes a turn in which so many bytes moved.
    pub(super) fn note(&mut self, bytes: u64) {
        let mut thread = THREAD.get();
        thread.moved = thread.moved.wrapping_add(bytes);
        if bytes > MAX_MESSAGE_SIZE {
            self.until_message = TURNS_AFTER_TRANSFER;
        } else if self.until_message > 0 {
            self.until_message -= 1;
        } else {
            if thread.last.is_some_and(|turn| turn.session != self.session) {
                thread.last_of_another = thread.last;
            }
            thread.last = Some(MessageTurn { session: self.session, at: thread.moved });
        }
        THREAD.set(thread);
    }
}

/// A session that has ended waits for no turn.
impl Drop for SessionTurns {
    fn drop(&mut self) {
        let mut thread = THREAD.get();
        let is_own =
            |turn: &Option<MessageTurn>| turn.is_some_and(|turn| turn.session == self.session);
        if is_own(&thread.last) {
            thread.last = thread.last_of_another.take();
        } else if is_own(&thread.last_of_another) {
            thread.last_of_another = None;
        }
        THREAD.set(thread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: u64 = 128 * 1024;

    /// In a thread of its own: what a thread has seen is its own.
    fn on_a_new_thread(test: impl FnOnce() + Send + 'static) {
        assert!(std::thread::spawn(test).join().is_ok());
    }

    #[test]
    fn transfers_alone_have_large_batches() {
        on_a_new_thread(|| {
            let mut transfers = [SessionTurns::new(), SessionTurns::new()];
            for _ in 0..1000 {
                for transfer in &mut transfers {
                    assert!(!transfer.should_be_brief());
                    transfer.note(BATCH);
                    // A rest that was there before the next part came.
                    transfer.note(100);
                }
            }
            assert!(transfers.iter().all(|transfer| !transfer.should_be_brief()));
        });
    }

    #[test]
    fn a_request_does_not_make_the_batches_of_its_own_answer_small() {
        on_a_new_thread(|| {
            let [mut one, mut other] = [SessionTurns::new(), SessionTurns::new()];
            for _ in 0..3 {
                one.note(100);
                assert!(!one.should_be_brief() && other.should_be_brief());
            }
            other.note(100);
            assert!(one.should_be_brief() && other.should_be_brief());
            one.note(100);
            assert!(one.should_be_brief() && other.should_be_brief());
        });
    }

    #[test]
    fn a_session_that_exchanges_messages_makes_batches_small_until_it_is_silent() {
        on_a_new_thread(|| {
            let (mut transfer, mut messages) = (SessionTurns::new(), SessionTurns::new());
            transfer.note(BATCH);
            assert!(!transfer.should_be_brief());
            messages.note(100);
            let mut moved = 0;
            while transfer.should_be_brief() {
                transfer.note(SMALL_BATCH_SIZE as u64);
                moved += SMALL_BATCH_SIZE as u64;
                assert!(moved <= PRESENCE, "it is silent, and batches stay small");
            }
            assert_eq!(moved, PRESENCE);
            messages.note(MAX_MESSAGE_SIZE);
            assert!(transfer.should_be_brief(), "it is back");
        });
    }

    #[test]
    fn a_session_that_has_ended_makes_nobody_s_batches_small() {
        on_a_new_thread(|| {
            let (transfer, mut one, mut other) =
                (SessionTurns::new(), SessionTurns::new(), SessionTurns::new());
            one.note(100);
            other.note(100);
            drop(other);
            assert!(transfer.should_be_brief());
            drop(one);
            assert!(!transfer.should_be_brief());
        });
    }

    #[test]
    fn a_session_that_has_finished_its_transfer_exchanges_messages() {
        on_a_new_thread(|| {
            let (mut session, other) = (SessionTurns::new(), SessionTurns::new());
            session.note(BATCH);
            for _ in 0..TURNS_AFTER_TRANSFER {
                session.note(100);
                assert!(!other.should_be_brief());
            }
            session.note(100);
            assert!(other.should_be_brief());
        });
    }
}
