//! How much has passed under the keys of one session, and whether its peer changes keys for nothing.
//!
//! A key update costs its receiver some ten times what a record of data does, and its sender next to
//! nothing. A peer that has something to say changes its keys between records; one that sends update
//! after update, and nothing else in either direction, only makes this end work.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::{fmt, io};

use tokio::time::Instant;

use crate::sys::key_update::Traffic;

/// Handshake messages that a peer may send within [`FLOOD_WINDOW`] without being asked and without data
/// in between. An idle peer that changes its keys once a minute sends none too many.
const MAX_UNASKED: usize = 32;
const FLOOD_WINDOW: Duration = Duration::from_secs(10);

/// Why a session with such a peer has to end.
#[derive(Debug)]
pub struct KeyUpdateFlood;

impl fmt::Display for KeyUpdateFlood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the peer sent more than {MAX_UNASKED} key updates or other handshake messages within {} s, \
             without data in between",
            FLOOD_WINDOW.as_secs()
        )
    }
}

impl std::error::Error for KeyUpdateFlood {}

impl KeyUpdateFlood {
    /// Whether this is why a stream failed.
    pub fn is_cause_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|cause| cause.is::<Self>())
    }
}

/// What one session has moved, counted by the one who reads and writes it.
#[derive(Debug)]
pub(super) struct KeyUsage {
    traffic: Arc<Traffic>,
    read: u64,
    written: u64,
    /// As many of the peer's unasked messages are in `recent`, or have been.
    noted: u32,
    /// The records of both directions when a message was noted last.
    records_then: u64,
    /// When the peer's unasked messages came, behind the last record of data. Never more than [`MAX_UNASKED`],
    /// and of nearly all sessions none.
    recent: VecDeque<Instant>,
}

impl KeyUsage {
    pub(super) fn new(traffic: Arc<Traffic>) -> Self {
        Self { traffic, read: 0, written: 0, noted: 0, records_then: 0, recent: VecDeque::new() }
    }

    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    pub(super) fn record_read(&mut self) {
        self.read += 1;
    }

    /// Only a part of that record was read, and the rest of it will be counted.
    pub(super) fn record_not_whole(&mut self) {
        self.read -= 1;
    }

    pub(super) fn record_written(&mut self) {
        self.written += 1;
    }

    /// Lets others see the counts.
    pub(super) fn publish(&self) {
        self.traffic.read.records.store(self.read, Relaxed);
        self.traffic.written.records.store(self.written, Relaxed);
    }

    /// Whether the peer has sent messages that [`KeyUsage::note_messages`] does not know of.
    pub(super) fn has_messages(&self) -> bool {
        self.traffic.unasked() != self.noted
    }

    /// Notes the messages that came before the record that is being read, if one is.
    ///
    /// # Errors
    /// They are too many.
    pub(super) fn note_messages(&mut self, now: Instant) -> Result<(), KeyUpdateFlood> {
        let unasked = self.traffic.unasked();
        let new = unasked.wrapping_sub(self.noted);
        self.noted = unasked;
        let records = self.read + self.written;
        let recent = &mut self.recent;
        if std::mem::replace(&mut self.records_then, records) != records {
            recent.clear();
        }
        for _ in 0..new {
            while recent.front().is_some_and(|then| now.duration_since(*then) > FLOOD_WINDOW) {
                recent.pop_front();
            }
            if recent.len() == MAX_UNASKED {
                return Err(KeyUpdateFlood);
            }
            recent.push_back(now);
        }
        Ok(())
    }
}
