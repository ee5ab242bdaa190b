//! Who is in: the sessions of a service from their admission to their end, and the order by which one
//! of them can be made to go.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::access_policy::SessionLimits;
use super::admission::{SessionSlot, SourceAddress, source_address};
use super::relay::TrafficMeter;
use crate::config::model::Mode;
use crate::net::Peer;
use crate::observe::metrics::CarriedTraffic;
use crate::secrets::Identity;
use crate::sys::key_update::{DirectionTraffic, TlsTraffic};
use crate::tls::HandshakeInfo;

/// A session, for whoever asks who is in.
#[derive(Debug)]
pub struct SessionInfo {
    /// The downstream peer.
    pub peer: Peer,
    /// Whose session it is.
    pub who: Identity,
    /// Under which name it proved its key.
    pub wire: Identity,
    /// When it was let in.
    pub since: Instant,
    pub(super) meter: TrafficMeter,
    details: OnceLock<SessionDetails>,
    order: OnceLock<TerminationOrder>,
    ordered: Notify,
    /// The candidate for whom its peer has to prove that it lives.
    challenger: Mutex<Option<u64>>,
    challenged: Notify,
    /// Its peer can be asked.
    can_be_challenged: AtomicBool,
    over: AtomicBool,
}

/// What is known once both sides are there.
#[derive(Debug)]
pub struct SessionDetails {
    /// What the handshake settled on.
    pub handshake: HandshakeInfo,
    /// The upstream address.
    pub target: String,
    /// What has passed over its TLS side, which is the one of this mode.
    pub traffic: Arc<TlsTraffic>,
    /// Which of its sides that is.
    pub mode: Mode,
}

/// Why a session has to go although its key is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TerminationOrder {
    /// An operator said so.
    Kicked,
    /// The session of this number takes its place.
    TakenOver(u64),
}

impl SessionInfo {
    /// Bytes so far: from downstream to upstream, and back.
    pub fn bytes(&self) -> (u64, u64) {
        (self.meter.up(), self.meter.down())
    }

    /// What was carried so far: from downstream to upstream, and back.
    pub fn carried(&self) -> (CarriedTraffic, CarriedTraffic) {
        let (up, down) = self.bytes();
        let Some(SessionDetails { traffic, mode, .. }) = self.details() else {
            let bytes = |bytes| CarriedTraffic { bytes, ..CarriedTraffic::default() };
            return (bytes(up), bytes(down));
        };
        let of = |bytes, passed: &DirectionTraffic| {
            let records = passed.records.load(Ordering::Relaxed);
            CarriedTraffic { bytes, records, key_updates: passed.key_updates() }
        };
        let TlsTraffic { read, written, .. } = &**traffic;
        match mode {
            Mode::Server => (of(up, read), of(down, written)),
            Mode::Client => (of(up, written), of(down, read)),
        }
    }

    /// Bytes a second of late: from downstream to upstream, and back.
    pub fn rates(&self) -> (u64, u64) {
        self.meter.rates()
    }

    /// When a byte moved last.
    pub fn touched(&self) -> Instant {
        self.meter.touched()
    }

    /// Both sides of it; none while its target is being reached.
    pub fn details(&self) -> Option<&SessionDetails> {
        self.details.get()
    }

    /// Whether it has ended and its bytes are counted: it only keeps its place until its sockets are
    /// closed.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn set_over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Its session answers challenges from now on.
    pub(super) fn allow_challenges(&self) {
        self.can_be_challenged.store(true, Ordering::Relaxed);
    }

    /// Returns when a candidate has its peer prove that it lives.
    pub(super) async fn challenged(&self) -> u64 {
        loop {
            let challenger = *self.challenger.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(number) = challenger {
                return number;
            }
            self.challenged.notified().await;
        }
    }

    /// Its peer has answered.
    pub(super) fn prove_alive(&self) {
        *self.challenger.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_challenged_by(&self, number: u64) -> bool {
        *self.challenger.lock().unwrap_or_else(PoisonError::into_inner) == Some(number)
    }

    /// Its peer is dead: the candidate takes its place.
    pub(super) fn make_way_for(&self, number: u64) {
        self.terminate(TerminationOrder::TakenOver(number));
    }

    /// Makes it go. The first order counts.
    fn terminate(&self, order: TerminationOrder) {
        let _ = self.order.set(order);
        self.ordered.notify_one();
    }

    /// Returns when it has to go.
    pub(super) async fn termination_ordered(&self) -> TerminationOrder {
        loop {
            if let Some(order) = self.order.get() {
                return *order;
            }
            self.ordered.notified().await;
        }
    }
}

/// The sessions of one service. Survives every reload.
#[derive(Debug, Default)]
pub(super) struct SessionRegistry {
    state: Mutex<RegistryState>,
    left: Notify,
}

#[derive(Debug, Default)]
struct RegistryState {
    /// By age: numbers are given in the order of arrival.
    sessions: BTreeMap<u64, Arc<SessionInfo>>,
    of_source: HashMap<SourceAddress, usize>,
    of_identity: HashMap<Identity, usize>,
    /// Candidates for whom somebody makes way.
    waiting: BTreeMap<u64, WaitingCandidate>,
}

/// A candidate that waits.
#[derive(Debug)]
struct WaitingCandidate {
    who: Identity,
    source: SourceAddress,
    /// Whose place it takes; none while it waits for one that goes for somebody else.
    victim: Option<u64>,
}

impl RegistryState {
    /// How many places are free and yet promised: to waiters of this kind, other than `but`, whose victim
    /// has left.
    fn count_reserved(&self, but: u64, kind: impl Fn(&WaitingCandidate) -> bool) -> usize {
        let has_left = |waiter: &WaitingCandidate| {
            waiter.victim.is_some_and(|victim| !self.sessions.contains_key(&victim))
        };
        let others = self.waiting.iter().filter(|(number, _)| **number != but);
        others.filter(|(_, waiter)| kind(waiter) && has_left(waiter)).count()
    }
}

/// How many candidates of one identity may wait for a place. Each holds a connection, and whoever keeps
/// coming back would hold more of them than there may be sessions.
const MAX_WAITING_PER_IDENTITY: usize = 4;

/// Which sessions make way for a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evictable {
    /// Any that counts for the limit.
    Any,
    /// Those of its identity.
    OwnIdentity,
    /// Those of its identity and its source. One identity may be shared by several people.
    OwnIdentityAndSource,
}

impl Evictable {
    fn includes(self, info: &SessionInfo, who: &Identity, from: &SourceAddress) -> bool {
        match self {
            Self::Any => true,
            Self::OwnIdentity => info.who == *who,
            Self::OwnIdentityAndSource => {
                info.who == *who && source_address(info.peer.ip()) == *from
            }
        }
    }
}

/// Which limit keeps a candidate out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionLimit {
    /// The sessions of the service, or of all services together.
    Service,
    /// Those of one source.
    Source,
    /// Those of one identity.
    Identity,
    /// The slots that are there for any identity.
    Unreserved,
}

impl SessionLimit {
    pub(super) fn words(self, most: usize) -> String {
        match self {
            Self::Service => format!(
                "all {most} sessions of this service are open (max-sessions, or the limit of open \
                 files)"
            ),
            Self::Source => {
                format!("all {most} sessions of one address are open (max-sessions-per-source)")
            }
            Self::Identity => {
                format!("all {most} sessions of this identity are open (max-sessions-per-identity)")
            }
            Self::Unreserved => format!(
                "only the last tenth of the sessions is left, which is for identities with few of \
                 them ({most} are open)"
            ),
        }
    }
}

/// Why there is no room.
#[derive(Debug, Clone, Copy)]
pub(super) struct LimitReached {
    pub(super) limit: SessionLimit,
    pub(super) most: usize,
}

/// A session's entry; taken out on drop, when its sockets are closed.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) info: Arc<SessionInfo>,
    registry: Arc<SessionRegistry>,
    number: u64,
    slot: Option<SessionSlot>,
}

/// Who asks for a place.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) number: u64,
    pub(super) peer: &'a Peer,
    pub(super) who: &'a Identity,
    pub(super) wire: &'a Identity,
}

impl SessionRegistry {
    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a candidate on the list, unless a limit is reached. `slot` is asked last: it gives one
    /// that counts for the service, or says how many there are.
    pub(super) fn admit(
        self: &Arc<Self>,
        candidate: &Candidate<'_>,
        limits: SessionLimits,
        slot: impl FnOnce() -> Result<SessionSlot, usize>,
    ) -> Result<Registration, LimitReached> {
        let Candidate { number, peer, who, wire } = *candidate;
        let source = source_address(peer.ip());
        let mut state = self.lock();
        // A place that was made free for a candidate is nobody else's.
        let count_reserved =
            |kind: &dyn Fn(&WaitingCandidate) -> bool| state.count_reserved(number, kind);
        let reached = |limit: Option<usize>, now: Option<&usize>, promised: usize| {
            limit.filter(|most| now.copied().unwrap_or_default() + promised >= *most)
        };
        let (of_who, of_source) = (state.of_identity.get(who), state.of_source.get(&source));
        if let Some(most) = reached(limits.identity, of_who, count_reserved(&|w| w.who == *who)) {
            return Err(LimitReached { limit: SessionLimit::Identity, most });
        }
        if let Some(most) =
            reached(limits.source, of_source, count_reserved(&|w| w.source == source))
        {
            return Err(LimitReached { limit: SessionLimit::Source, most });
        }
        if let Some(most) =
            reached(limits.service, Some(&state.sessions.len()), count_reserved(&|_| true))
        {
            return Err(LimitReached { limit: SessionLimit::Service, most });
        }
        if let Some(fair) = limits.fair {
            let taken = limits.taken.max(state.sessions.len()) + count_reserved(&|w| w.who == *who);
            if fair.excludes(taken, state.of_identity.get(who).copied().unwrap_or_default()) {
                return Err(LimitReached {
                    limit: SessionLimit::Unreserved,
                    most: fair.unreserved(),
                });
            }
        }
        let slot = slot().map_err(|most| LimitReached { limit: SessionLimit::Service, most })?;
        let info = Arc::new(SessionInfo {
            peer: peer.clone(),
            who: who.clone(),
            wire: wire.clone(),
            since: Instant::now(),
            meter: TrafficMeter::default(),
            details: OnceLock::new(),
            order: OnceLock::new(),
            ordered: Notify::new(),
            challenger: Mutex::new(None),
            challenged: Notify::new(),
            can_be_challenged: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        state.waiting.remove(&number);
        state.sessions.insert(number, info.clone());
        *state.of_source.entry(source).or_default() += 1;
        *state.of_identity.entry(who.clone()).or_default() += 1;
        drop(state);
        Ok(Registration { info, registry: self.clone(), number, slot: Some(slot) })
    }

    /// Orders the oldest session under that limit, of those that may be ended for the candidate, to make way.
    /// One for each candidate: who has been ordered to go already goes for somebody else. The candidate is in
    /// the queue then. False if there is nobody to go, because a session that came later never has to; or if
    /// too many of its identity wait already.
    pub(super) fn evict_for(
        &self,
        candidate: &Candidate<'_>,
        limit: SessionLimit,
        evictable: Evictable,
    ) -> bool {
        let from = source_address(candidate.peer.ip());
        let mut state = self.lock();
        let others = state.waiting.iter().filter(|(number, waiter)| {
            **number != candidate.number && waiter.who == *candidate.who
        });
        if others.count() >= MAX_WAITING_PER_IDENTITY {
            return false;
        }
        let earlier = state.sessions.range(..candidate.number);
        let mut goes = None;
        let mut oldest = None;
        for (number, info) in earlier {
            let counts = match limit {
                _ if !evictable.includes(info, candidate.who, &from) => false,
                SessionLimit::Service => true,
                SessionLimit::Source => source_address(info.peer.ip()) == from,
                SessionLimit::Identity | SessionLimit::Unreserved => info.who == *candidate.who,
            };
            match info.order.get().filter(|_| counts) {
                Some(TerminationOrder::TakenOver(by)) if *by == candidate.number => {
                    goes = Some(Some(*number));
                    break;
                }
                Some(_) => goes = goes.or(Some(None)),
                // One that has ended and only waits for its backend costs nobody anything.
                None if counts
                    && oldest.is_none_or(|(_, other): (u64, &Arc<SessionInfo>)| {
                        info.is_over() && !other.is_over()
                    }) =>
                {
                    oldest = Some((*number, info));
                }
                None => {}
            }
        }
        let victim = match (goes, oldest) {
            (Some(Some(mine)), _) => Some(mine),
            (_, Some((number, info))) => {
                info.terminate(TerminationOrder::TakenOver(candidate.number));
                Some(number)
            }
            (Some(None), None) => None,
            (None, None) => return false,
        };
        let waiter = WaitingCandidate { who: candidate.who.clone(), source: from, victim };
        state.waiting.insert(candidate.number, waiter);
        true
    }

    /// Has the peer of the oldest session of the candidate's identity prove that it lives, for a candidate from
    /// another source: a session whose peer does not is ended for it. False if there is no such session, or
    /// one is asked for somebody else already.
    pub(super) fn challenge(&self, candidate: &Candidate<'_>) -> bool {
        let mut state = self.lock();
        let mut earlier = state.sessions.range(..candidate.number);
        let is_it = |info: &SessionInfo| {
            info.who == *candidate.who
                && info.can_be_challenged.load(Ordering::Relaxed)
                && !info.is_over()
        };
        let Some((victim, info)) = earlier.find(|(_, info)| is_it(info)) else { return false };
        let mut challenger = info.challenger.lock().unwrap_or_else(PoisonError::into_inner);
        if challenger.is_some() {
            return false;
        }
        *challenger = Some(candidate.number);
        drop(challenger);
        info.challenged.notify_one();
        let waiter = WaitingCandidate {
            who: candidate.who.clone(),
            source: source_address(candidate.peer.ip()),
            victim: Some(*victim),
        };
        state.waiting.insert(candidate.number, waiter);
        true
    }

    /// Whether no session has yet to prove for this candidate that its peer lives.
    pub(super) fn is_decided(&self, number: u64) -> bool {
        let state = self.lock();
        !state.sessions.values().any(|info| info.is_challenged_by(number))
    }

    /// Whether a session that is there has the order to go for this candidate.
    pub(super) fn is_promised(&self, number: u64) -> bool {
        let goes = |info: &Arc<SessionInfo>| {
            info.order.get() == Some(&TerminationOrder::TakenOver(number))
        };
        self.lock().sessions.values().any(goes)
    }

    /// Tells candidates that a challenged peer has answered.
    pub(super) fn tell_alive(&self) {
        self.left.notify_waiters();
    }

    /// A place in the queue, for when it comes to that.
    pub(super) fn enqueue(&self, number: u64) -> QueueEntry<'_> {
        QueueEntry { registry: self, number }
    }

    /// Becomes ready when a session has left, from now on.
    pub(super) fn session_left(&self) -> Notified<'_> {
        self.left.notified()
    }

    /// Every session by number.
    pub(super) fn all(&self) -> Vec<(u64, Arc<SessionInfo>)> {
        self.lock().sessions.iter().map(|(number, info)| (*number, info.clone())).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Has sessions go for which `which` holds; how many that are.
    pub(super) fn kick(&self, which: impl Fn(u64, &SessionInfo) -> bool) -> usize {
        let state = self.lock();
        let kicked =
            state.sessions.iter().filter(|(number, info)| !info.is_over() && which(**number, info));
        kicked.map(|(_, info)| info.terminate(TerminationOrder::Kicked)).count()
    }
}

/// A candidate's place in the queue, if it has one; given up on drop.
#[derive(Debug)]
pub(super) struct QueueEntry<'a> {
    registry: &'a SessionRegistry,
    number: u64,
}

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        let gave_up = self.registry.lock().waiting.remove(&self.number).is_some();
        if gave_up {
            // What was promised to it is anybody's.
            self.registry.left.notify_waiters();
        }
    }
}

impl Registration {
    /// Notes what is known once the target has answered.
    pub(super) fn set_details(&self, details: SessionDetails) {
        // Once a session.
        let _ = self.info.details.set(details);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        if let Some(info) = state.sessions.remove(&self.number) {
            decrement(&mut state.of_source, &source_address(info.peer.ip()));
            decrement(&mut state.of_identity, &info.who);
        }
        drop(state);
        // Whoever is waiting finds the slot free.
        self.slot = None;
        self.registry.left.notify_waiters();
    }
}

fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::SessionSlots;
    use super::super::fair_share::FairShare;
    use super::*;

    struct Harness {
        registry: Arc<SessionRegistry>,
        slots: Arc<SessionSlots>,
        limits: SessionLimits,
    }

    impl Harness {
        fn new(sessions: usize, source: Option<usize>, identity: Option<usize>) -> Self {
            let registry = Arc::new(SessionRegistry::default());
            let limits = SessionLimits { service: None, source, identity, fair: None, taken: 0 };
            Self { registry, slots: SessionSlots::new(sessions), limits }
        }

        fn admit(&self, number: u64, from: u8, who: &str) -> Result<Registration, SessionLimit> {
            let (peer, who) = someone(from, who);
            let candidate = Candidate { number, peer: &peer, who: &who, wire: &who };
            let slot = || self.slots.take().ok_or(self.slots.limit());
            let limits = SessionLimits { taken: self.slots.taken(), ..self.limits };
            self.registry.admit(&candidate, limits, slot).map_err(|full| full.limit)
        }

        fn evict_for(
            &self,
            number: u64,
            from: u8,
            who: &str,
            limit: SessionLimit,
            own: bool,
        ) -> bool {
            let (peer, who) = someone(from, who);
            let candidate = Candidate { number, peer: &peer, who: &who, wire: &who };
            let evictable = if own { Evictable::OwnIdentity } else { Evictable::Any };
            self.registry.evict_for(&candidate, limit, evictable)
        }
    }

    fn someone(from: u8, who: &str) -> (Peer, Identity) {
        (Peer::Tcp(([127, 0, 0, from], 9).into()), Identity::new(who.as_bytes()))
    }

    fn order(registration: &Registration) -> Option<TerminationOrder> {
        registration.info.order.get().copied()
    }

    #[test]
    fn each_limit_counts_for_itself_and_what_leaves_makes_room() {
        let harness = Harness::new(3, Some(2), Some(1));
        let first = harness.admit(1, 1, "a").unwrap();
        assert_eq!(harness.admit(2, 2, "a").unwrap_err(), SessionLimit::Identity);
        let _second = harness.admit(3, 1, "b").unwrap();
        assert_eq!(harness.admit(4, 1, "c").unwrap_err(), SessionLimit::Source);
        let _third = harness.admit(5, 2, "c").unwrap();
        assert_eq!(harness.admit(6, 3, "d").unwrap_err(), SessionLimit::Service);
        drop(first);
        assert!(harness.admit(7, 3, "d").is_ok(), "one identity's end is another's room");
    }

    #[test]
    fn the_oldest_under_the_limit_makes_way_and_nobody_for_one_who_came_before() {
        let harness = Harness::new(3, None, None);
        let [a, b, c] =
            [(1, "a"), (2, "b"), (3, "a")].map(|(n, who)| harness.admit(n, 1, who).unwrap());
        assert!(
            !harness.evict_for(4, 1, "c", SessionLimit::Service, true),
            "nobody of that name is in"
        );
        assert!(harness.evict_for(4, 1, "b", SessionLimit::Service, true));
        assert_eq!(
            (order(&a), order(&b), order(&c)),
            (None, Some(TerminationOrder::TakenOver(4)), None)
        );
        assert!(harness.evict_for(5, 1, "x", SessionLimit::Service, false));
        assert_eq!(order(&a), Some(TerminationOrder::TakenOver(5)));
        assert!(!harness.evict_for(0, 1, "a", SessionLimit::Service, false), "all came later");
    }

    #[test]
    fn each_newcomer_sends_one_away_and_not_the_one_that_goes_for_another() {
        let harness = Harness::new(2, None, None);
        let [a, b] = [(1, "a"), (2, "b")].map(|(n, who)| harness.admit(n, 1, who).unwrap());
        assert!(harness.evict_for(3, 1, "x", SessionLimit::Service, false));
        assert!(harness.evict_for(3, 1, "x", SessionLimit::Service, false), "it still goes");
        assert_eq!((order(&a), order(&b)), (Some(TerminationOrder::TakenOver(3)), None));
        assert!(harness.evict_for(4, 1, "y", SessionLimit::Service, false));
        assert_eq!(order(&b), Some(TerminationOrder::TakenOver(4)));
        assert!(
            harness.evict_for(5, 1, "z", SessionLimit::Service, false),
            "two places will be free"
        );
    }

    #[test]
    fn who_waits_for_one_does_not_take_the_place_that_another_has_waited_for() {
        let mut harness = Harness::new(9, None, None);
        harness.limits.service = Some(3);
        let [a, b, c] =
            [(1, "a"), (2, "b"), (3, "c")].map(|(n, who)| harness.admit(n, 1, who).unwrap());
        let _queues = [4, 5].map(|number| harness.registry.enqueue(number));
        assert!(harness.evict_for(4, 1, "x", SessionLimit::Service, false));
        assert!(harness.evict_for(5, 1, "y", SessionLimit::Service, false));
        drop(b);
        assert_eq!(
            harness.admit(4, 1, "x").unwrap_err(),
            SessionLimit::Service,
            "its own is still there"
        );
        let _fifth = harness.admit(5, 1, "y").unwrap();
        assert!(harness.evict_for(4, 1, "x", SessionLimit::Service, false));
        drop(a);
        let _fourth = harness.admit(4, 1, "x").unwrap();
        assert_eq!(order(&c), None, "two came and two went");
    }

    #[test]
    fn one_that_is_over_goes_before_any_that_lives_and_is_not_kicked() {
        let harness = Harness::new(2, None, None);
        let [a, b] = [(1, "a"), (2, "b")].map(|(n, who)| harness.admit(n, 1, who).unwrap());
        b.info.over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(harness.registry.kick(|number, _| number == 2), 0);
        assert!(harness.evict_for(3, 1, "x", SessionLimit::Service, false));
        assert_eq!((order(&a), order(&b)), (None, Some(TerminationOrder::TakenOver(3))));
    }

    #[test]
    fn a_limit_of_the_service_counts_those_whose_seats_are_elsewhere() {
        let mut harness = Harness::new(9, None, None);
        let _before = harness.admit(1, 1, "a").unwrap();
        harness.slots = SessionSlots::new(1);
        harness.limits.service = Some(1);
        assert_eq!(harness.admit(2, 1, "a").unwrap_err(), SessionLimit::Service);
    }

    #[test]
    fn a_kick_finds_numbers_and_names() {
        let harness = Harness::new(9, None, None);
        let [a, b] = [(1, "a"), (2, "b")].map(|(n, who)| harness.admit(n, 1, who).unwrap());
        assert_eq!(harness.registry.kick(|number, _| number == 2), 1);
        assert_eq!((order(&a), order(&b)), (None, Some(TerminationOrder::Kicked)));
        assert_eq!(harness.registry.kick(|_, info| info.who.as_bytes() == b"nobody"), 0);
    }

    #[test]
    fn a_place_that_was_made_free_is_for_whom_it_was_made_free() {
        let harness = Harness::new(9, None, Some(1));
        let holder = harness.admit(1, 1, "a").unwrap();
        let queue = harness.registry.enqueue(2);
        assert_eq!(harness.admit(2, 1, "a").unwrap_err(), SessionLimit::Identity);
        assert!(harness.evict_for(2, 1, "a", SessionLimit::Identity, true));
        drop(holder);
        // Whoever comes in between is too late, or too early.
        assert_eq!(harness.admit(3, 2, "a").unwrap_err(), SessionLimit::Identity);
        assert!(harness.admit(4, 2, "b").is_ok(), "another identity has a place of its own");
        let heir = harness.admit(2, 1, "a").unwrap();
        drop(queue);
        drop(heir);
        assert!(harness.admit(5, 2, "a").is_ok());
    }

    #[test]
    fn who_gives_up_waiting_leaves_the_place_to_others_and_few_wait_at_once() {
        let harness = Harness::new(9, None, Some(1));
        let holder = harness.admit(1, 1, "a").unwrap();
        let queues: Vec<_> = (2..9).map(|number| harness.registry.enqueue(number)).collect();
        let waiting: Vec<_> = (2..9)
            .map(|number| harness.evict_for(number, 1, "a", SessionLimit::Identity, false))
            .collect();
        assert_eq!(waiting.iter().filter(|waits| **waits).count(), MAX_WAITING_PER_IDENTITY);
        assert!(waiting[..MAX_WAITING_PER_IDENTITY].iter().all(|waits| *waits));
        drop(holder);
        assert_eq!(harness.admit(20, 2, "a").unwrap_err(), SessionLimit::Identity);
        drop(queues);
        assert!(harness.admit(20, 2, "a").is_ok());
        assert!(harness.registry.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_of_each_who_leaves_or_gives_up() {
        let heard = |left| tokio::time::timeout(std::time::Duration::from_secs(1), left);
        let harness = Harness::new(9, None, Some(1));
        let holder = harness.admit(1, 1, "a").unwrap();
        let left = harness.registry.session_left();
        drop(holder);
        assert!(heard(left).await.is_ok(), "one has left");
        let holder = harness.admit(2, 1, "a").unwrap();
        let queue = harness.registry.enqueue(3);
        assert!(harness.evict_for(3, 1, "a", SessionLimit::Identity, false));
        assert_eq!(holder.info.termination_ordered().await, TerminationOrder::TakenOver(3));
        let left = harness.registry.session_left();
        drop(queue);
        assert!(heard(left).await.is_ok(), "one has given up");
        let left = harness.registry.session_left();
        drop(harness.registry.enqueue(4));
        assert!(heard(left).await.is_err(), "that one had no place to give up");
    }

    #[tokio::test(start_paused = true)]
    async fn the_roster_tells_who_is_in_and_what_has_moved() {
        let harness = Harness::new(9, None, None);
        let [a, _b] = [(1, "a"), (2, "b")].map(|(n, who)| harness.admit(n, 1, who).unwrap());
        let numbers = harness.registry.all().iter().map(|(number, _)| *number).collect::<Vec<_>>();
        assert_eq!((harness.registry.count(), numbers), (2, vec![1, 2]));
        assert!(a.info.details().is_none() && !a.info.is_over());
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        a.info.meter.count(Instant::now(), 50, 70);
        assert_eq!((a.info.bytes(), a.info.touched()), ((50, 70), Instant::now()));
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(a.info.rates(), (50, 70));
        let handshake =
            HandshakeInfo { version: "TLSv1.3", suite: "a suite".into(), bits: 128, group: None };
        let traffic = Arc::<TlsTraffic>::default();
        traffic.read.records.store(5, Ordering::Relaxed);
        let target = "a target".to_owned();
        a.set_details(SessionDetails { handshake, target, traffic, mode: Mode::Server });
        let (up, down) = a.info.carried();
        assert_eq!((up.records, down.records, up.key_updates), (5, 0, 0));
        assert_eq!(a.info.details().unwrap().target, "a target");
        a.info.set_over();
        assert!(a.info.is_over());
    }

    #[test]
    fn each_limit_is_named_in_its_own_words() {
        for (limit, word) in [
            (SessionLimit::Service, "this service"),
            (SessionLimit::Source, "one address"),
            (SessionLimit::Identity, "this identity"),
            (SessionLimit::Unreserved, "the last tenth"),
        ] {
            assert!(limit.words(7).contains(word), "{limit:?}");
        }
    }

    #[test]
    fn only_who_is_under_the_limit_that_is_reached_has_to_go() {
        for (limit, goes) in
            [(SessionLimit::Source, 2), (SessionLimit::Identity, 3), (SessionLimit::Service, 1)]
        {
            let harness = Harness::new(9, None, None);
            let all = [(1, 1, "a"), (2, 2, "b"), (3, 1, "c"), (4, 2, "c")]
                .map(|(n, from, who)| harness.admit(n, from, who).unwrap());
            assert!(harness.evict_for(9, 2, "c", limit, false));
            let gone: Vec<_> =
                all.iter().filter(|m| order(m).is_some()).map(|m| m.number).collect();
            assert_eq!(gone, [goes], "{limit:?}");
        }
    }

    #[test]
    fn a_place_that_one_address_has_waited_for_is_not_for_another_identity_there() {
        let harness = Harness::new(9, Some(1), None);
        let holder = harness.admit(1, 1, "a").unwrap();
        let _queue = harness.registry.enqueue(2);
        assert!(harness.evict_for(2, 1, "a", SessionLimit::Source, false));
        drop(holder);
        assert_eq!(harness.admit(3, 1, "b").unwrap_err(), SessionLimit::Source);
        assert!(harness.admit(4, 2, "b").is_ok(), "another address has a place of its own");
        assert!(harness.admit(2, 1, "a").is_ok());
    }

    #[test]
    fn one_key_takes_all_seats_but_the_last_tenth_and_the_others_get_those() {
        let mut harness = Harness::new(100, None, None);
        harness.limits.fair = FairShare::new(100, 10);
        let many: Vec<_> = (0..90).map(|number| harness.admit(number, 1, "a").unwrap()).collect();
        assert_eq!(harness.admit(90, 1, "a").unwrap_err(), SessionLimit::Unreserved);
        let others: Vec<_> =
            (91..=100).map(|number| harness.admit(number, 1, "b").unwrap()).collect();
        // All are taken now, whoever asks.
        assert_eq!(harness.admit(101, 1, "c").unwrap_err(), SessionLimit::Service);
        assert_eq!(harness.admit(102, 1, "a").unwrap_err(), SessionLimit::Unreserved);
        drop(others);
        // An identity with a tenth of all is no longer one with few.
        let some: Vec<_> =
            (110..119).map(|number| harness.admit(number, 1, "b").unwrap()).collect();
        assert_eq!((many.len(), some.len()), (90, 9));
        assert!(harness.admit(119, 1, "b").is_ok(), "the tenth of b");
    }

    #[test]
    fn who_has_taken_the_most_makes_way_for_its_own_newcomers_and_takes_nobody_elses_seat() {
        let mut harness = Harness::new(20, None, None);
        harness.limits.fair = FairShare::new(20, 2);
        let other = harness.admit(1, 1, "b").unwrap();
        let mut mine: Vec<_> =
            (2..19).map(|number| harness.admit(number, 1, "a").unwrap()).collect();
        assert_eq!(harness.admit(30, 1, "a").unwrap_err(), SessionLimit::Unreserved);
        let _queue = harness.registry.enqueue(30);
        assert!(harness.evict_for(30, 1, "a", SessionLimit::Unreserved, false));
        assert_eq!((order(&other), order(&mine[0])), (None, Some(TerminationOrder::TakenOver(30))));
        drop(mine.remove(0));
        assert_eq!(
            harness.admit(31, 1, "a").unwrap_err(),
            SessionLimit::Unreserved,
            "it is promised"
        );
        assert!(harness.admit(30, 1, "a").is_ok());
    }

    #[test]
    fn those_who_wait_are_counted_for_each_identity() {
        let harness = Harness::new(1, None, None);
        let _holder = harness.admit(1, 1, "a").unwrap();
        for number in 2..2 + MAX_WAITING_PER_IDENTITY as u64 {
            assert!(harness.evict_for(number, 1, "a", SessionLimit::Service, false));
        }
        assert!(!harness.evict_for(20, 1, "a", SessionLimit::Service, false));
        assert!(
            harness.evict_for(21, 1, "b", SessionLimit::Service, false),
            "none of these is its own"
        );
    }
}
