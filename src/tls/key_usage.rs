//! How much has passed under the keys of one session, and whether its peer changes keys for nothing.
//!
//! AES-GCM is good for about 2^24.5 records with one key (RFC 9846, 5.5): before that the sender has to change it.
//! This end changes its own in good time, and asks a peer that does not. TLS 1.2 cannot change keys.
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

use crate::config::model::RekeyAfter;
use crate::sys::key_update::{DirectionTraffic, TlsTraffic};

/// Handshake messages that a peer may send within [`FLOOD_WINDOW`] without being asked and without data
/// in between. An idle peer that changes its keys once a minute sends none too many.
const MAX_UNASKED_MESSAGES: usize = 32;
const FLOOD_WINDOW: Duration = Duration::from_secs(10);

/// Why a session with such a peer has to end.
#[derive(Debug)]
pub struct KeyUpdateFlood;

impl fmt::Display for KeyUpdateFlood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the peer sent more than {MAX_UNASKED_MESSAGES} key updates or other handshake messages within {} s, \
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

/// Records, and the bytes in them.
#[derive(Debug, Default, Clone, Copy)]
struct Amount {
    records: u64,
    bytes: u64,
}

/// One direction.
#[derive(Debug, Default)]
struct KeyDirection {
    all: Amount,
    /// Of them, those before its keys were changed last.
    before_update: Amount,
    updates: u64,
}

impl KeyDirection {
    /// Notes whether the keys were changed.
    fn note_updates(&mut self, passed: &DirectionTraffic) {
        if self.updates != passed.key_updates() {
            self.updates = passed.key_updates();
            self.before_update = self.all;
        }
    }

    /// Records under the present key.
    fn records(&self) -> u64 {
        self.all.records - self.before_update.records
    }

    /// Whether the present key has protected so many times what `limit` says.
    fn has_used(&self, limit: RekeyAfter, times: u64) -> bool {
        self.records() >= times * u64::from(limit.records)
            || self.all.bytes - self.before_update.bytes >= times * limit.bytes
    }
}

/// A peer is asked to change its keys when it has used one for so many times what this end allows itself:
/// for as many records as 2^24 at most.
const REQUEST_AFTER: u64 = 2;

/// What one session has moved, counted by the one who reads and writes it.
#[derive(Debug)]
pub(super) struct KeyUsage {
    traffic: Arc<TlsTraffic>,
    read: KeyDirection,
    written: KeyDirection,
    limit: RekeyAfter,
    tls13: bool,
    /// An update of ours was announced to OpenSSL, which has not written it yet.
    announced: bool,
    /// OpenSSL waits for a write to be taken up again.
    write_pending: bool,
    /// As many of the peer's unasked messages are in `recent`, or have been.
    noted: u32,
    /// The records of both directions when a message was noted last.
    records_then: u64,
    /// When the peer's unasked messages came, behind the last record of data. Never more than [`MAX_UNASKED_MESSAGES`],
    /// and of nearly all sessions none.
    recent: VecDeque<Instant>,
}

impl KeyUsage {
    pub(super) fn new(traffic: Arc<TlsTraffic>, tls13: bool) -> Self {
        Self {
            traffic,
            read: KeyDirection::default(),
            written: KeyDirection::default(),
            limit: RekeyAfter::default(),
            tls13,
            announced: false,
            write_pending: false,
            noted: 0,
            records_then: 0,
            recent: VecDeque::new(),
        }
    }

    pub(super) fn limit(&mut self, limit: RekeyAfter) {
        self.limit = limit;
    }

    pub(super) fn traffic(&self) -> &Arc<TlsTraffic> {
        &self.traffic
    }

    pub(super) fn record_read(&mut self) {
        self.read.all.records += 1;
    }

    /// Only a part of that record was read, and the rest of it will be counted.
    pub(super) fn record_not_whole(&mut self) {
        self.read.all.records -= 1;
    }

    pub(super) fn record_written(&mut self) {
        self.written.all.records += 1;
    }

    /// A read has come to its end, with so many bytes.
    pub(super) fn read_ended(&mut self, bytes: usize) {
        self.read.all.bytes += bytes as u64;
        self.traffic.read.records.store(self.read.all.records, Relaxed);
        self.note_overuse();
    }

    /// A write has come to its end, with so many bytes; `pending` if OpenSSL wants the rest again.
    pub(super) fn write_ended(&mut self, bytes: usize, pending: bool) {
        self.written.all.bytes += bytes as u64;
        self.write_pending = pending;
        self.traffic.written.records.store(self.written.all.records, Relaxed);
        self.note_overuse();
    }

    fn note_overuse(&self) {
        let limit = u64::from(self.limit.records) * REQUEST_AFTER;
        // In 1.3 the key is changed there: a quarter more, and it was not.
        let limit = if self.tls13 { limit + limit / 4 } else { limit };
        if self.read.records().max(self.written.records()) >= limit {
            self.traffic.key_overused.store(true, Relaxed);
        }
    }

    /// Looks whether keys were changed.
    pub(super) fn note_updates(&mut self) {
        self.read.note_updates(&self.traffic.read);
        let updates = self.written.updates;
        self.written.note_updates(&self.traffic.written);
        self.announced &= self.written.updates == updates;
    }

    /// Whether it is time for a key update of ours, which OpenSSL would take: no write is pending, and no update.
    pub(super) fn update_is_due(&self) -> bool {
        self.written.has_used(self.limit, 1) && self.can_announce()
    }

    /// Whether it is time to ask the peer for one.
    pub(super) fn request_is_due(&self) -> bool {
        self.read.has_used(self.limit, REQUEST_AFTER)
            && self.can_announce()
            && !self.traffic.awaits_update()
    }

    fn can_announce(&self) -> bool {
        self.tls13 && !self.announced && !self.write_pending
    }

    /// An update of ours was announced, or refused: then the next one is as far away as if it had been written.
    pub(super) fn announce(&mut self, taken: bool) {
        self.announced = taken;
        if !taken {
            self.written.before_update = self.written.all;
            self.read.before_update = self.read.all;
        }
    }

    /// Whether OpenSSL has to write an update before anything else.
    pub(super) fn is_announced(&self) -> bool {
        self.announced
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
        let records = self.read.all.records + self.written.all.records;
        let recent = &mut self.recent;
        if std::mem::replace(&mut self.records_then, records) != records {
            recent.clear();
        }
        for _ in 0..new {
            while recent.front().is_some_and(|then| now.duration_since(*then) > FLOOD_WINDOW) {
                recent.pop_front();
            }
            if recent.len() == MAX_UNASKED_MESSAGES {
                return Err(KeyUpdateFlood);
            }
            recent.push_back(now);
        }
        Ok(())
    }
}
