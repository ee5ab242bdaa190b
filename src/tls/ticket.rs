//! Session tickets of a server: the keys that seal them, and whose a ticket is.
//!
//! A ticket is a bearer of an earlier handshake's secret and nothing more. So each carries the identity
//! and an HMAC over service, identity and *key* ([`Tickets::tag`]), and is worth something only while
//! exactly that key stands under that name ([`Tickets::claim`]). A serial would not do: it begins anew
//! when the process does, and tickets under fixed keys outlive it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rand::rand_bytes;
use openssl::sign::Signer;
use openssl::ssl::{SslSession, SslSessionRef};
use openssl::symm::{Cipher, Crypter, Mode as Direction};
use zeroize::Zeroizing;

use crate::config::model::{Resumption, TicketSecret};
use crate::secrets::{Claim, PeerKeys};
use crate::sys::openssl as sys;

/// No ticket lives longer (RFC 9846, 4.7.1; RFC 8446, 4.6.1).
pub(super) const MAX_TICKET_LIFETIME: Duration = Duration::from_secs(7 * 86_400);

/// How far ahead of this clock a ticket may have been made: machines that share ticket keys differ, and
/// clocks are set back.
const MAX_CLOCK_SKEW_SECONDS: i64 = 60;

/// How many tickets of one ClientHello are tried. stunnel's clients and OpenSSL's send one.
pub(super) const MAX_TICKETS_TRIED: usize = 4;

/// The first byte of a tag, and the sizes of what follows: the HMAC, then the identity.
const TAG_TYPE: u8 = 1;
const MAC_SIZE: usize = 32;

/// Sizes of the parts of a ticket (RFC 5077, 4).
const NAME_SIZE: usize = 16;
const IV_SIZE: usize = 16;

type HalfKey = Zeroizing<[u8; 32]>;

/// The keys of one generation of tickets.
pub(super) struct TicketKeyGeneration {
    /// Wiped as well, so that memory without it shows that the rest is gone.
    name: Zeroizing<[u8; NAME_SIZE]>,
    cipher: HalfKey,
    mac: HalfKey,
}

impl sys::TicketKeys for Arc<TicketKeyGeneration> {
    fn name(&self) -> &[u8; NAME_SIZE] {
        &self.name
    }

    fn cipher(&self) -> &[u8; 32] {
        &self.cipher
    }

    fn mac(&self) -> &[u8; 32] {
        &self.mac
    }
}

impl TicketKeyGeneration {
    /// From a secret; the same again from the same.
    fn derived(secret: &[u8], label: &[u8]) -> Result<Self, ErrorStack> {
        let mut name = Zeroizing::new([0; NAME_SIZE]);
        name.copy_from_slice(&hmac(secret, &[b"name\0", label])?[..NAME_SIZE]);
        let cipher = hmac(secret, &[b"cipher\0", label])?;
        Ok(Self { name, cipher, mac: hmac(secret, &[b"mac\0", label])? })
    }

    fn random(label: &[u8]) -> Result<Self, ErrorStack> {
        let mut secret = Zeroizing::new([0; 64]);
        rand_bytes(&mut *secret)?;
        Self::derived(&*secret, label)
    }
}

/// What seals now, and what sealed before.
struct TicketKeyRing {
    current: Arc<TicketKeyGeneration>,
    previous: Option<Arc<TicketKeyGeneration>>,
    since: Instant,
}

impl TicketKeyRing {
    /// Random keys seal for as long as a ticket lives, and are gone once the last ticket that they sealed
    /// is too old: who gets at the memory later can open recorded sessions of 1.2 no further back than
    /// twice that time.
    fn rotate(
        &mut self,
        shared: &SharedTicketKeys,
        lifetime: Duration,
        now: Instant,
    ) -> Result<(), ErrorStack> {
        let age = now.saturating_duration_since(self.since);
        if age < lifetime {
            return Ok(());
        }
        // Also if there are no random numbers below.
        self.previous = None;
        if !shared.given {
            let fresh = Arc::new(TicketKeyGeneration::random(&shared.label)?);
            let old = std::mem::replace(&mut self.current, fresh);
            // What it sealed last is too old as well when nobody came for as long again.
            self.previous = (age < lifetime * 2).then_some(old);
            self.since = now;
        }
        Ok(())
    }
}

struct SharedTicketKeys {
    /// The keys come from the configuration: there is one generation, and no end to it.
    given: bool,
    /// What ties a ticket to its service.
    label: Box<[u8]>,
    /// What the HMAC over a key is made with.
    binding: HalfKey,
    ring: Mutex<TicketKeyRing>,
}

/// The tickets of one service. A reload hands the keys on.
#[derive(Clone)]
pub(super) struct Tickets {
    shared: Arc<SharedTicketKeys>,
    lifetime: Duration,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl Tickets {
    /// Those of a service. `label` is everything in which two must not differ to know each other's
    /// tickets. Random keys are taken over from the tickets before.
    ///
    /// # Errors
    /// There are no random numbers, or the library has no HMAC.
    pub(super) fn new(
        how: &Resumption,
        label: &[u8],
        previous: Option<&Self>,
    ) -> Result<Self, ErrorStack> {
        let lifetime = how.timeout.value.min(MAX_TICKET_LIFETIME);
        let secret = how.secret.as_ref().map(joined);
        let old = previous.filter(|old| !old.shared.given && *old.shared.label == *label);
        if let (None, Some(old)) = (&secret, old) {
            return Ok(Self { shared: old.shared.clone(), lifetime });
        }
        let given = secret.is_some();
        let secret = match secret {
            Some(secret) => secret,
            None => {
                let mut fresh = Zeroizing::new(vec![0; 64]);
                rand_bytes(&mut fresh)?;
                fresh
            }
        };
        let current = Arc::new(TicketKeyGeneration::derived(&secret, label)?);
        let shared = SharedTicketKeys {
            given,
            label: label.into(),
            binding: hmac(&secret, &[b"binding\0", label])?,
            ring: Mutex::new(TicketKeyRing { current, previous: None, since: Instant::now() }),
        };
        Ok(Self { shared: Arc::new(shared), lifetime })
    }

    /// Replaces keys whose time is over. To be called now and then, also while nobody connects.
    pub(super) fn rotate(&self, now: Instant) {
        let mut ring = self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner);
        // Without random numbers no new ticket is given either; the next call tries again.
        let _ = ring.rotate(&self.shared, self.lifetime, now);
    }

    /// The keys for a new ticket.
    pub(super) fn sealing(&self) -> Result<Arc<TicketKeyGeneration>, ErrorStack> {
        let mut ring = self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.rotate(&self.shared, self.lifetime, Instant::now())?;
        Ok(ring.current.clone())
    }

    /// The keys of a ticket that begins so, and whether they are the latest.
    pub(super) fn opening(&self, name: &[u8]) -> Option<(Arc<TicketKeyGeneration>, bool)> {
        let ring = self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if *ring.current.name == *name {
            return Some((ring.current.clone(), true));
        }
        let previous = ring.previous.as_ref().filter(|previous| *previous.name == *name)?;
        Some((previous.clone(), false))
    }

    /// Whether it begins as these tickets do, which whoever saw one can imitate.
    pub(super) fn seems_ours(&self, ticket: &[u8]) -> bool {
        ticket.first_chunk::<NAME_SIZE>().is_some_and(|name| self.opening(name).is_some())
    }

    /// The session of a ticket, if these keys have sealed it. Nothing is said of its worth.
    pub(super) fn open(&self, ticket: &[u8]) -> Option<SslSession> {
        let (name, _) = ticket.split_first_chunk::<NAME_SIZE>()?;
        let (keys, _) = self.opening(name)?;
        let (sealed, mac) = ticket.split_last_chunk::<MAC_SIZE>()?;
        let computed = hmac(&*keys.mac, &[sealed]).ok()?;
        if !openssl::memcmp::eq(&*computed, mac) {
            return None;
        }
        let (iv, text) = sealed.get(NAME_SIZE..)?.split_first_chunk::<IV_SIZE>()?;
        let cipher = Cipher::aes_256_cbc();
        let mut crypter =
            Crypter::new(cipher, Direction::Decrypt, &*keys.cipher, Some(iv.as_slice())).ok()?;
        let mut plain = Zeroizing::new(vec![0; text.len() + cipher.block_size()]);
        let mut len = crypter.update(text, &mut plain).ok()?;
        len += crypter.finalize(plain.get_mut(len..)?).ok()?;
        SslSession::from_der(plain.get(..len)?).ok()
    }

    /// Whether a session is still young enough, by this clock.
    pub(super) fn is_fresh(&self, session: &SslSessionRef) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        // Of 32 bits on some boards.
        #[allow(clippy::useless_conversion)]
        let made = i64::from(session.time());
        let age = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(made);
        let limit = i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX);
        (-MAX_CLOCK_SKEW_SECONDS..limit.min(session.timeout())).contains(&age)
    }

    /// How many seconds a new ticket lives.
    pub(super) fn seconds(&self) -> i32 {
        i32::try_from(self.lifetime.as_secs()).unwrap_or(i32::MAX).max(1)
    }

    /// What a ticket for that claim carries.
    pub(super) fn tag(&self, keys: &PeerKeys, claim: &Claim) -> Option<Vec<u8>> {
        let who = claim.who().as_bytes();
        let (mac, _) = self.bind(keys, who)?;
        Some([&[TAG_TYPE], &mac[..], who].concat())
    }

    /// The claim that such a tag is worth under the keys of now: that of the same identity, if it still
    /// has the key that it had.
    pub(super) fn claim(&self, keys: &PeerKeys, tag: &[u8]) -> Option<Claim> {
        let (mac, who) = parts(tag)?;
        let (computed, claim) = self.bind(keys, who)?;
        openssl::memcmp::eq(&*computed, mac).then_some(claim)
    }

    fn bind(&self, keys: &PeerKeys, who: &[u8]) -> Option<(HalfKey, Claim)> {
        let (key, claim) = keys.find(who)?;
        let len = [u8::try_from(who.len()).ok()?];
        let mac = hmac(&*self.shared.binding, &[b"key\0", &len, who, key.expose()]).ok()?;
        Some((mac, claim))
    }
}

/// The identity that a tag names, whatever became of it. `None` if it is no tag of a ticket.
pub(super) fn named(tag: &[u8]) -> Option<&[u8]> {
    parts(tag).map(|(_, who)| who)
}

fn parts(tag: &[u8]) -> Option<(&[u8; MAC_SIZE], &[u8])> {
    match tag.split_first()? {
        (&TAG_TYPE, rest) => rest.split_first_chunk(),
        _ => None,
    }
}

/// Both halves, so that neither can be another's by being shorter.
fn joined(secret: &TicketSecret) -> Zeroizing<Vec<u8>> {
    let halves = [&secret.key.value, &secret.mac.value];
    let mut joined = Zeroizing::new(Vec::with_capacity(66));
    for half in halves {
        joined.push(half.len() as u8);
        joined.extend_from_slice(half.expose());
    }
    joined
}

/// HMAC-SHA256.
fn hmac(key: &[u8], parts: &[&[u8]]) -> Result<HalfKey, ErrorStack> {
    let key = PKey::hmac(key)?;
    let mut signer = Signer::new(MessageDigest::sha256(), &key)?;
    for part in parts {
        signer.update(part)?;
    }
    let mut out = Zeroizing::new([0; 32]);
    signer.sign(&mut *out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::model::{Dialect, Resolved};
    use crate::secrets::{SecretSet, TicketKey};

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const OTHER: &[u8] = b"fedcba9876543210fedcba9876543210";

    fn how(seconds: u64, secret: Option<&str>) -> Resumption {
        fn decided<T>(value: T) -> Resolved<T> {
            Resolved::default(value, Dialect::Native)
        }
        let half = |text: &str| decided(TicketKey::from_hex(text).unwrap());
        Resumption {
            enabled: decided(true),
            cache_size: decided(0),
            timeout: decided(Duration::from_secs(seconds)),
            secret: secret.map(|text| TicketSecret { key: half(text), mac: half(text) }),
        }
    }

    const GIVEN: Option<&str> = Some("00112233445566778899aabbccddeeff");

    #[test]
    fn a_tag_is_worth_the_claim_of_the_same_name_and_key_in_the_same_service_and_nothing_else() {
        let tickets = Tickets::new(&how(300, GIVEN), b"plc", None).unwrap();
        let keys = |pairs: &[(&[u8], &[u8])]| PeerKeys::unrestricted(SecretSet::from_pairs(pairs));
        let before = keys(&[(b"alice", KEY), (b"bob", OTHER)]);
        let (_, alice) = before.find(b"alice").unwrap();
        let tag = tickets.tag(&before, &alice).unwrap();
        assert_eq!(named(&tag), Some(&b"alice"[..]));

        // A restart: other serials, the same keys.
        let restarted = Tickets::new(&how(300, GIVEN), b"plc", None).unwrap();
        let after = keys(&[(b"alice", KEY)]);
        let claim = restarted.claim(&after, &tag).unwrap();
        assert_eq!(claim.serial(), after.find(b"alice").unwrap().1.serial());
        assert_ne!(claim.serial(), alice.serial());

        for set in [keys(&[(b"alice", OTHER)]), keys(&[(b"bob", KEY)]), keys(&[(b"alic", KEY)])] {
            assert!(tickets.claim(&set, &tag).is_none(), "{set:?}");
        }
        let hidden = PeerKeys::hiding(SecretSet::from_pairs(&[(b"alice", KEY)]), |_| true);
        assert!(tickets.claim(&hidden, &tag).is_none());
        let elsewhere = Tickets::new(&how(300, GIVEN), b"other", None).unwrap();
        assert!(elsewhere.claim(&before, &tag).is_none(), "another service");
        let random = Tickets::new(&how(300, None), b"plc", None).unwrap();
        assert!(random.claim(&before, &tag).is_none(), "another process");
        for cut in 0..tag.len() {
            assert!(tickets.claim(&before, &tag[..cut]).is_none(), "cut at {cut}");
        }
        let mut bob = tag.clone();
        bob.truncate(1 + MAC_SIZE);
        bob.extend_from_slice(b"bob");
        assert!(tickets.claim(&before, &bob).is_none(), "another name");
        // The tag of a session that is made for one handshake from a key.
        assert_eq!(named(&alice.serial().to_bytes()), None);
    }

    #[test]
    fn random_keys_stay_over_a_reload_and_given_ones_are_what_the_file_says() {
        let name = |tickets: &Tickets| *tickets.sealing().unwrap().name;
        let first = Tickets::new(&how(300, None), b"plc", None).unwrap();
        let reloaded = Tickets::new(&how(60, None), b"plc", Some(&first)).unwrap();
        assert_eq!(name(&first), name(&reloaded));
        assert_eq!(reloaded.seconds(), 60);
        let renamed = Tickets::new(&how(300, None), b"ide", Some(&first)).unwrap();
        assert_ne!(name(&first), name(&renamed));
        let given = Tickets::new(&how(300, GIVEN), b"plc", Some(&first)).unwrap();
        assert_ne!(name(&first), name(&given));
        let again = Tickets::new(&how(300, GIVEN), b"plc", Some(&given)).unwrap();
        assert_eq!(name(&given), name(&again));
        let other = Some("ff112233445566778899aabbccddeeff");
        let changed = Tickets::new(&how(300, other), b"plc", Some(&given)).unwrap();
        assert_ne!(name(&given), name(&changed));
        // Back to random: nobody who knows the old ones knows these.
        let random = Tickets::new(&how(300, None), b"plc", Some(&given)).unwrap();
        assert_ne!(name(&given), name(&random));
    }

    #[test]
    fn random_keys_are_replaced_in_time_without_a_client_and_the_old_ones_open_what_is_still_good()
    {
        let tickets = Tickets::new(&how(300, None), b"plc", None).unwrap();
        let start = Instant::now();
        let at = |seconds| tickets.rotate(start + Duration::from_secs(seconds));
        let current = || *tickets.shared.ring.lock().unwrap().current.name;
        let first = current();
        at(299);
        assert_eq!(current(), first);
        at(301);
        let second = current();
        assert_ne!(first, second);
        assert!(tickets.opening(&second).unwrap().1);
        assert!(!tickets.opening(&first).unwrap().1, "is to be renewed");
        at(599);
        assert_eq!(current(), second);
        assert!(tickets.opening(&first).is_some());
        at(602);
        assert!(tickets.opening(&first).is_none());
        assert!(tickets.opening(&second).is_some());
        // A machine that slept, or a clock that nobody looked at: what is older than two lifetimes is gone.
        at(9000);
        assert!(tickets.opening(&second).is_none());
        assert!(tickets.shared.ring.lock().unwrap().previous.is_none(), "wiped");
    }

    #[test]
    fn given_keys_stay_whatever_the_time() {
        let tickets = Tickets::new(&how(300, GIVEN), b"plc", None).unwrap();
        let first = *tickets.sealing().unwrap().name;
        tickets.rotate(Instant::now() + Duration::from_secs(9000));
        assert_eq!(*tickets.sealing().unwrap().name, first);
    }

    #[test]
    fn a_new_ticket_is_sealed_with_keys_whose_time_is_not_over() {
        let tickets = Tickets::new(&how(300, None), b"plc", None).unwrap();
        let first = *tickets.sealing().unwrap().name;
        {
            let mut ring = tickets.shared.ring.lock().unwrap();
            ring.since = ring.since.checked_sub(Duration::from_secs(300)).unwrap();
        }
        assert_ne!(*tickets.sealing().unwrap().name, first);
    }

    #[test]
    fn nothing_of_the_keys_can_be_printed() {
        let tickets = Tickets::new(&how(300, GIVEN), b"plc", None).unwrap();
        assert_eq!(format!("{tickets:?}"), "Tickets { lifetime: 300s, .. }");
        let key = TicketKey::from_hex("00112233445566778899aabbccddeeff").unwrap();
        assert_eq!(format!("{key:?}"), "TicketKey(16 bytes)");
    }
}
