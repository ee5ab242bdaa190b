//! The sessions that clients without tickets resume by ID, at a server end and up to TLS 1.2 (RFC 5246, 7.3).
//!
//! A session gets in when the key of its handshake is proven, and is worth something only while exactly that
//! key stands under that name: its tag is the identity and the serial of the key ([`claim`]). The store does
//! not outlive the process, and so a serial does what an HMAC does in a ticket.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openssl::ssl::{SslSession, SslSessionRef};

use super::cache::DEFAULT_CACHE_SIZE;
use super::ticket::MAX_TICKET_LIFETIME;
use crate::config::model::Resumption;
use crate::secrets::{Claim, Identity, KeySerial, PeerKeys, SecretSet};
use crate::sys::{openssl as sys, session_ids};

/// The first byte of a tag, by which it differs from a ticket's. The serial follows, then the identity.
const SESSION_ID_TAG: u8 = 2;

/// At most 32 bytes, as OpenSSL made it.
type SessionId = Box<[u8]>;

struct StoredSession {
    session: SslSession,
    who: Identity,
    serial: KeySerial,
    since: Instant,
    /// Its place among all, by age.
    place: u64,
}

/// The sessions by their IDs, and the IDs of each identity's sessions, the oldest first.
#[derive(Default)]
struct StoredSessions {
    by_id: HashMap<SessionId, StoredSession>,
    of_identity: HashMap<Identity, BTreeMap<u64, SessionId>>,
    next_place: u64,
}

impl StoredSessions {
    fn insert(&mut self, id: &[u8], session: SslSession, claim: &Claim, since: Instant) {
        self.remove(id);
        let (who, serial, place) = (claim.who().clone(), claim.serial(), self.next_place);
        self.next_place += 1;
        self.of_identity.entry(who.clone()).or_default().insert(place, id.into());
        let stored = StoredSession { session, who, serial, since, place };
        self.by_id.insert(id.into(), stored);
    }

    fn remove(&mut self, id: &[u8]) {
        let Some(StoredSession { who, place, .. }) = self.by_id.remove(id) else { return };
        if let Some(ids) = self.of_identity.get_mut(&who) {
            ids.remove(&place);
            if ids.is_empty() {
                self.of_identity.remove(&who);
            }
        }
    }

    /// Removes the oldest session of the identity that has most of them: no identity can take the others'
    /// places.
    fn evict(&mut self) {
        let fullest = self.of_identity.values().max_by_key(|ids| ids.len());
        let oldest = fullest.and_then(|ids| ids.values().next()).cloned();
        match oldest {
            Some(id) => self.remove(&id),
            None => self.by_id.clear(),
        }
    }

    fn retain(&mut self, keep: impl Fn(&StoredSession) -> bool) {
        let over = self.by_id.iter().filter(|(_, stored)| !keep(stored)).map(|(id, _)| id.clone());
        for id in over.collect::<Vec<_>>() {
            self.remove(&id);
        }
    }
}

/// The sessions of one server service. A reload hands them on. OpenSSL wipes a session when its last owner
/// frees it.
#[derive(Clone)]
pub(super) struct SessionStore {
    stored: Arc<Mutex<StoredSessions>>,
    size: usize,
    timeout: Duration,
}

impl std::fmt::Debug for SessionStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionStore").field("size", &self.size).finish_non_exhaustive()
    }
}

impl SessionStore {
    /// One that goes on with what another had.
    pub(super) fn new(how: &Resumption, previous: Option<&Self>) -> Self {
        let stored = previous.map(|old| old.stored.clone()).unwrap_or_default();
        let size = match how.cache_size.value {
            0 => DEFAULT_CACHE_SIZE,
            said => said as usize,
        };
        Self { stored, size, timeout: how.timeout.value.min(MAX_TICKET_LIFETIME) }
    }

    fn lock(&self) -> MutexGuard<'_, StoredSessions> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a copy of a session that was made just now with the key of that claim.
    pub(super) fn keep(&self, session: &SslSessionRef, claim: &Claim, now: Instant) {
        let seconds = i32::try_from(self.timeout.as_secs()).unwrap_or(i32::MAX).max(1);
        let copy = session_ids::stored_copy(session, &tag(claim), seconds);
        let (Ok(copy), id @ [_, ..]) = (copy, session.id()) else { return };
        let mut stored = self.lock();
        while stored.by_id.len() >= self.size {
            stored.evict();
        }
        stored.insert(id, copy, claim, now);
    }

    /// The session of that ID, if it is young enough: a copy for one handshake.
    pub(super) fn find(&self, id: &[u8], now: Instant) -> Option<SslSession> {
        let mut stored = self.lock();
        let there = stored.by_id.get(id)?;
        // The configuration may have become stricter since.
        if now >= there.since + self.timeout {
            stored.remove(id);
            return None;
        }
        sys::copy_session(&there.session, None).ok()
    }

    /// Drops a session with which something went wrong.
    pub(super) fn forget(&self, id: &[u8]) {
        self.lock().remove(id);
    }

    /// Drops what is too old, or was made with keys that are not these.
    pub(super) fn retain(&self, secrets: &SecretSet, now: Instant) {
        let stands = |stored: &StoredSession| {
            let found = secrets.find(stored.who.as_bytes());
            found.is_some_and(|(_, claim)| claim.serial() == stored.serial)
        };
        self.lock().retain(|stored| now < stored.since + self.timeout && stands(stored));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().by_id.len()
    }
}

fn tag(claim: &Claim) -> Vec<u8> {
    [&[SESSION_ID_TAG], &claim.serial().to_bytes()[..], claim.who().as_bytes()].concat()
}

/// The claim that such a tag is worth under the keys of now: that of the same identity, if it still has the
/// key that it had.
pub(super) fn claim(keys: &PeerKeys, tag: &[u8]) -> Option<Claim> {
    let (&SESSION_ID_TAG, rest) = tag.split_first()? else { return None };
    let (serial, who) = rest.split_first_chunk::<8>()?;
    let (_, claim) = keys.find(who)?;
    (claim.serial().to_bytes() == *serial).then_some(claim)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::model::{Dialect, Resolved};

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const OTHER: &[u8] = b"fedcba9876543210fedcba9876543210";

    fn store(size: u32, seconds: u64, previous: Option<&SessionStore>) -> SessionStore {
        fn decided<T>(value: T) -> Resolved<T> {
            Resolved::default(value, Dialect::Native)
        }
        let how = Resumption {
            enabled: decided(true),
            cache_size: decided(size),
            timeout: decided(Duration::from_secs(seconds)),
            secret: None,
        };
        SessionStore::new(&how, previous)
    }

    /// A session of 1.2 with the ID `[n; 32]`, in OpenSSL's form.
    fn session(n: u8) -> SslSession {
        let part = |tag: u8, body: &[u8]| [&[tag, body.len() as u8], body].concat();
        let body = [
            part(2, &[1]),
            part(2, &[3, 3]),
            part(4, &[0xcc, 0xac]),
            part(4, &[n; 32]),
            part(4, &[n; 48]),
        ]
        .concat();
        SslSession::from_der(&part(0x30, &body)).unwrap()
    }

    fn keys(pairs: &[(&[u8], &[u8])]) -> (Arc<SecretSet>, PeerKeys) {
        let set = SecretSet::from_pairs(pairs);
        (set.clone(), PeerKeys::unrestricted(set))
    }

    #[test]
    fn a_tag_is_worth_the_claim_of_the_same_name_and_the_very_key() {
        let (_, before) = keys(&[(b"alice", KEY), (b"bob", OTHER)]);
        let (_, alice) = before.find(b"alice").unwrap();
        let tag = tag(&alice);
        assert_eq!(claim(&before, &tag).unwrap().who().as_bytes(), b"alice");
        let (_, changed) = keys(&[(b"alice", OTHER)]);
        let (_, gone) = keys(&[(b"bob", KEY)]);
        for other in
            [changed, gone, PeerKeys::hiding(SecretSet::from_pairs(&[(b"alice", KEY)]), |_| true)]
        {
            assert!(claim(&other, &tag).is_none(), "{other:?}");
        }
        for cut in 0..tag.len() {
            assert!(claim(&before, &tag[..cut]).is_none(), "cut at {cut}");
        }
        // Tags of sessions that were made from a key for one handshake, or are kept by a client.
        assert!(claim(&before, &alice.serial().to_bytes()).is_none());
    }

    #[test]
    fn a_session_is_found_by_its_id_until_it_is_too_old_or_its_key_is_gone() {
        let (set, found) = keys(&[(b"alice", KEY), (b"bob", OTHER)]);
        let claim = |who: &[u8]| found.find(who).unwrap().1;
        let (store, start) = (store(10, 300, None), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (n, who) in [(1, &b"alice"[..]), (2, b"alice"), (3, b"bob"), (4, b"bob")] {
            store.keep(&session(n), &claim(who), at(u64::from(n)));
        }
        let there = |n: u8, now| store.find(&[n; 32], now).is_some_and(|s| s.id() == [n; 32]);
        assert!((1..=4).all(|n| there(n, at(5))));
        assert!(!there(5, at(5)) && store.find(&[1; 31], at(5)).is_none());
        assert!(!there(1, at(301)) && there(2, at(301)));
        assert_eq!(store.len(), 3, "it is dropped as soon as somebody asks");
        store.forget(&[2; 32]);
        assert!(!there(2, at(5)));
        store.retain(&set, at(303));
        assert!(!there(3, at(303)) && there(4, at(303)));
        // Another key, and nobody asks.
        store.retain(&SecretSet::from_pairs(&[(b"bob", KEY)]), at(5));
        assert_eq!(store.len(), 0);
        assert!(store.lock().of_identity.is_empty());
    }

    #[test]
    fn a_stricter_configuration_counts_for_the_sessions_that_there_are() {
        let (_, found) = keys(&[(b"alice", KEY)]);
        let (before, now) = (store(10, 300, None), Instant::now());
        before.keep(&session(1), &found.find(b"alice").unwrap().1, now);
        let later = now + Duration::from_secs(10);
        let after = store(10, 10, Some(&before));
        assert!(after.find(&[1; 32], later).is_none());
    }

    #[test]
    fn a_full_store_drops_the_oldest_of_the_identity_that_has_most() {
        let (_, found) = keys(&[(b"alice", KEY), (b"bob", OTHER)]);
        let claim = |who: &[u8]| found.find(who).unwrap().1;
        let (store, now) = (store(3, 300, None), Instant::now());
        store.keep(&session(1), &claim(b"alice"), now);
        for n in 2..=20 {
            store.keep(&session(n), &claim(b"bob"), now);
            assert!(store.len() <= 3);
        }
        let there: Vec<u8> = (1..=20).filter(|n| store.find(&[*n; 32], now).is_some()).collect();
        assert_eq!(there, [1, 19, 20]);
        // The same ID twice takes one place.
        store.keep(&session(20), &claim(b"bob"), now);
        assert!(store.find(&[1; 32], now).is_some());
    }
}
