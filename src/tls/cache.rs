//! The sessions that a client end can resume.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use openssl::ssl::{SslSession, SslSessionRef};

use super::ticket::MAX_TICKET_LIFETIME;
use crate::config::model::Resumption;
use crate::secrets::{Claim, Identity, KeySerial, SecretSet};
use crate::sys::openssl as sys;

/// What holds when nobody says anything, or asks for no limit: a stranger's servers fill it.
pub(super) const DEFAULT_CACHE_SIZE: usize = 1000;

/// A ticket is not offered in its last moments: a server would open it, find it too old, and refuse the
/// whole handshake (OpenSSL's do).
const EXPIRY_MARGIN: Duration = Duration::from_secs(2);

/// For what a session is good: the same peer, asked for in the same way, by the holder of the same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SessionPurpose {
    address: Box<str>,
    name: Option<Box<str>>,
    who: Identity,
    serial: KeySerial,
}

impl SessionPurpose {
    pub(super) fn new(address: &str, name: Option<&str>, claim: &Claim) -> Self {
        let (who, serial) = (claim.who().clone(), claim.serial());
        Self { address: address.into(), name: name.map(Into::into), who, serial }
    }
}

struct CachedSession {
    session: SslSession,
    since: Instant,
    until: Instant,
}

/// The sessions of one client service. A reload hands them on.
#[derive(Clone)]
pub(super) struct Cache {
    kept: Arc<Mutex<HashMap<SessionPurpose, CachedSession>>>,
    size: usize,
    timeout: Duration,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Cache {
    /// One that goes on with what another had.
    pub(super) fn new(how: &Resumption, previous: Option<&Self>) -> Self {
        let kept = previous.map(|old| old.kept.clone()).unwrap_or_default();
        let size = match how.cache_size.value {
            0 => DEFAULT_CACHE_SIZE,
            said => said as usize,
        };
        Self { kept, size, timeout: how.timeout.value.min(MAX_TICKET_LIFETIME) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionPurpose, CachedSession>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What can be offered there now, a copy of its own for each handshake, and when it was got.
    pub(super) fn find(&self, purpose: &SessionPurpose) -> Option<(SslSession, Instant)> {
        let now = Instant::now();
        let mut kept = self.lock();
        let there = kept.get(purpose)?;
        // The configuration may have become stricter since.
        if now >= there.until || there.since + self.timeout <= now {
            kept.remove(purpose);
            return None;
        }
        Some((sys::copy_session(&there.session, None).ok()?, there.since))
    }

    /// Keeps a copy of a session that was made just now, in place of the one before.
    pub(super) fn keep(&self, purpose: &SessionPurpose, session: &SslSessionRef, tag: &[u8]) {
        let Ok(session) = sys::copy_session(session, Some(tag)) else { return };
        let lifetime = match Duration::from_secs(sys::ticket_lifetime(&session)) {
            // In 1.2 the server may leave it to the client (RFC 5077, 3.3); in 1.3 this means never.
            Duration::ZERO if sys::is_tls13_session(&session) => return,
            Duration::ZERO => self.timeout,
            said => said.min(self.timeout),
        };
        let since = Instant::now();
        let Some(lifetime) = lifetime.checked_sub(EXPIRY_MARGIN) else { return };
        let until = since + lifetime;
        let mut kept = self.lock();
        if kept.len() >= self.size && !kept.contains_key(purpose) {
            kept.retain(|_, other| other.until > since);
            while kept.len() >= self.size {
                let oldest = kept.iter().min_by_key(|(_, other)| other.since);
                let Some(oldest) = oldest.map(|(purpose, _)| purpose.clone()) else { break };
                kept.remove(&oldest);
            }
        }
        kept.insert(purpose.clone(), CachedSession { session, since, until });
    }

    /// Exchanges a session for another that goes back to the same handshake: it gets no older.
    pub(super) fn renew(&self, purpose: &SessionPurpose, session: &SslSessionRef, tag: &[u8]) {
        if let Some(there) = self.lock().get_mut(purpose)
            && let Ok(session) = sys::copy_session(session, Some(tag))
        {
            there.session = session;
        }
    }

    /// Drops a session with which something went wrong, unless another has come in its place.
    pub(super) fn forget(&self, purpose: &SessionPurpose, since: Instant) {
        let mut kept = self.lock();
        if kept.get(purpose).is_some_and(|there| there.since == since) {
            kept.remove(purpose);
        }
    }

    /// Drops what was got with keys that are not these.
    pub(super) fn retain(&self, secrets: &SecretSet) {
        self.lock().retain(|purpose, _| {
            secrets
                .find(purpose.who.as_bytes())
                .is_some_and(|(_, claim)| claim.serial() == purpose.serial)
        });
    }
}
