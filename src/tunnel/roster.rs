//! Who is in: the sessions of a service from their admission to their end, and the order by which one
//! of them can be made to go.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::admission::{Seat, Source, source};
use super::policy::Shares;
use super::relay::Meter;
use crate::config::model::Mode;
use crate::net::Peer;
use crate::observe::metrics::Carried;
use crate::secrets::Identity;
use crate::sys::key_update::{Passed, Traffic};
use crate::tls::Facts;

/// A session, for whoever asks who is in.
#[derive(Debug)]
pub struct Info {
    /// The downstream peer.
    pub peer: Peer,
    /// Whose session it is.
    pub who: Identity,
    /// Under which name it proved its key.
    pub wire: Identity,
    /// When it was let in.
    pub since: Instant,
    pub(super) meter: Meter,
    reached: OnceLock<Reached>,
    order: OnceLock<Order>,
    ordered: Notify,
    over: AtomicBool,
}

/// What is known once both sides are there.
#[derive(Debug)]
pub struct Reached {
    /// What the handshake settled on.
    pub facts: Facts,
    /// The upstream address.
    pub target: String,
    /// What has passed over its TLS side, which is the one of this mode.
    pub traffic: Arc<Traffic>,
    /// Which of its sides that is.
    pub mode: Mode,
}

/// Why a session has to go although its key is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// An operator said so.
    Kicked,
    /// The session of this number takes its place.
    TakenOver(u64),
}

impl Info {
    /// Bytes so far: from downstream to upstream, and back.
    pub fn bytes(&self) -> (u64, u64) {
        (self.meter.up(), self.meter.down())
    }

    /// What was carried so far: from downstream to upstream, and back.
    pub fn carried(&self) -> (Carried, Carried) {
        let (up, down) = self.bytes();
        let Some(Reached { traffic, mode, .. }) = self.reached() else {
            let bytes = |bytes| Carried { bytes, ..Carried::default() };
            return (bytes(up), bytes(down));
        };
        let of = |bytes, passed: &Passed| {
            let records = passed.records.load(Ordering::Relaxed);
            Carried { bytes, records, key_updates: passed.key_updates() }
        };
        let Traffic { read, written, .. } = &**traffic;
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
    pub fn reached(&self) -> Option<&Reached> {
        self.reached.get()
    }

    /// Whether it has ended and its bytes are counted: it only keeps its place until its sockets are
    /// closed.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn ended(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Makes it go. The first order counts.
    fn order(&self, order: Order) {
        let _ = self.order.set(order);
        self.ordered.notify_one();
    }

    /// Returns when it has to go.
    pub(super) async fn ordered(&self) -> Order {
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
pub(super) struct Roster {
    inside: Mutex<Inside>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    /// By age: numbers are given in the order of arrival.
    sessions: BTreeMap<u64, Arc<Info>>,
    of_source: HashMap<Source, usize>,
    of_identity: HashMap<Identity, usize>,
    /// Newcomers for whom somebody makes way.
    waiting: BTreeMap<u64, Waiter>,
}

/// A newcomer that waits.
#[derive(Debug)]
struct Waiter {
    who: Identity,
    source: Source,
    /// Whose place it takes; none while it waits for one that goes for somebody else.
    victim: Option<u64>,
}

impl Inside {
    /// How many places are free and yet promised: to waiters of this kind, other than `but`, whose victim
    /// has left.
    fn promised(&self, but: u64, kind: impl Fn(&Waiter) -> bool) -> usize {
        let has_left = |waiter: &Waiter| {
            waiter.victim.is_some_and(|victim| !self.sessions.contains_key(&victim))
        };
        let others = self.waiting.iter().filter(|(number, _)| **number != but);
        others.filter(|(_, waiter)| kind(waiter) && has_left(waiter)).count()
    }
}

/// How many newcomers of one identity may wait for a place. Each holds a connection, and whoever keeps
/// coming back would hold more of them than there may be sessions.
const WAITERS: usize = 4;

/// Which limit keeps a newcomer out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The sessions of the service, or of all services together.
    Service,
    /// Those of one source.
    Source,
    /// Those of one identity.
    Identity,
    /// The seats that are there for any identity.
    Unreserved,
}

impl Limit {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Service => "the most sessions of this service",
            Self::Source => "the most sessions from one address",
            Self::Identity => "the most sessions of one identity",
            Self::Unreserved => {
                "all sessions but the last tenth, which is kept for identities with few of them,"
            }
        }
    }
}

/// Why there is no room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Full {
    pub(super) limit: Limit,
    pub(super) most: usize,
}

/// A session's entry; taken out on drop, when its sockets are closed.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) info: Arc<Info>,
    roster: Arc<Roster>,
    number: u64,
    seat: Option<Seat>,
}

/// Who asks for a place.
#[derive(Debug)]
pub(super) struct Newcomer<'a> {
    pub(super) number: u64,
    pub(super) peer: &'a Peer,
    pub(super) who: &'a Identity,
    pub(super) wire: &'a Identity,
}

impl Roster {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a newcomer on the list, unless a limit is reached. `seat` is asked last: it gives one
    /// that counts for the service, or says how many there are.
    pub(super) fn admit(
        self: &Arc<Self>,
        newcomer: &Newcomer<'_>,
        shares: Shares,
        seat: impl FnOnce() -> Result<Seat, usize>,
    ) -> Result<Member, Full> {
        let Newcomer { number, peer, who, wire } = *newcomer;
        let source = source(peer.ip());
        let mut inside = self.lock();
        // A place that was made free for a newcomer is nobody else's.
        let promised = |kind: &dyn Fn(&Waiter) -> bool| inside.promised(number, kind);
        let reached = |limit: Option<usize>, now: Option<&usize>, promised: usize| {
            limit.filter(|most| now.copied().unwrap_or_default() + promised >= *most)
        };
        let (of_who, of_source) = (inside.of_identity.get(who), inside.of_source.get(&source));
        if let Some(most) = reached(shares.identity, of_who, promised(&|w| w.who == *who)) {
            return Err(Full { limit: Limit::Identity, most });
        }
        if let Some(most) = reached(shares.source, of_source, promised(&|w| w.source == source)) {
            return Err(Full { limit: Limit::Source, most });
        }
        if let Some(most) =
            reached(shares.service, Some(&inside.sessions.len()), promised(&|_| true))
        {
            return Err(Full { limit: Limit::Service, most });
        }
        if let Some(fair) = shares.fair {
            let taken = shares.taken.max(inside.sessions.len()) + promised(&|w| w.who == *who);
            if fair.excludes(taken, inside.of_identity.get(who).copied().unwrap_or_default()) {
                return Err(Full { limit: Limit::Unreserved, most: fair.unreserved() });
            }
        }
        let seat = seat().map_err(|most| Full { limit: Limit::Service, most })?;
        let info = Arc::new(Info {
            peer: peer.clone(),
            who: who.clone(),
            wire: wire.clone(),
            since: Instant::now(),
            meter: Meter::default(),
            reached: OnceLock::new(),
            order: OnceLock::new(),
            ordered: Notify::new(),
            over: AtomicBool::new(false),
        });
        inside.waiting.remove(&number);
        inside.sessions.insert(number, info.clone());
        *inside.of_source.entry(source).or_default() += 1;
        *inside.of_identity.entry(who.clone()).or_default() += 1;
        drop(inside);
        Ok(Member { info, roster: self.clone(), number, seat: Some(seat) })
    }

    /// Orders the oldest session under that limit to make way, of the newcomer's own identity alone
    /// if `own` says so. One for each newcomer: who has been ordered to go already goes for somebody
    /// else. The newcomer is in the queue then. False if there is nobody to go, because a session that
    /// came later never has to; or if too many of its identity wait already.
    pub(super) fn make_way(&self, newcomer: &Newcomer<'_>, limit: Limit, own: bool) -> bool {
        let from = source(newcomer.peer.ip());
        let mut inside = self.lock();
        let others = inside
            .waiting
            .iter()
            .filter(|(number, waiter)| **number != newcomer.number && waiter.who == *newcomer.who);
        if others.count() >= WAITERS {
            return false;
        }
        let earlier = inside.sessions.range(..newcomer.number);
        let mut goes = None;
        let mut oldest = None;
        for (number, info) in earlier {
            let counts = match limit {
                _ if own && info.who != *newcomer.who => false,
                Limit::Service => true,
                Limit::Source => source(info.peer.ip()) == from,
                Limit::Identity | Limit::Unreserved => info.who == *newcomer.who,
            };
            match info.order.get().filter(|_| counts) {
                Some(Order::TakenOver(by)) if *by == newcomer.number => {
                    goes = Some(Some(*number));
                    break;
                }
                Some(_) => goes = goes.or(Some(None)),
                // One that has ended and only waits for its backend costs nobody anything.
                None if counts
                    && oldest.is_none_or(|(_, other): (u64, &Arc<Info>)| {
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
                info.order(Order::TakenOver(newcomer.number));
                Some(number)
            }
            (Some(None), None) => None,
            (None, None) => return false,
        };
        let waiter = Waiter { who: newcomer.who.clone(), source: from, victim };
        inside.waiting.insert(newcomer.number, waiter);
        true
    }

    /// A place in the queue, for when it comes to that.
    pub(super) fn queue(&self, number: u64) -> Waiting<'_> {
        Waiting { roster: self, number }
    }

    /// Becomes ready when a session has left, from now on.
    pub(super) fn left(&self) -> Notified<'_> {
        self.left.notified()
    }

    /// Every session by number.
    pub(super) fn all(&self) -> Vec<(u64, Arc<Info>)> {
        self.lock().sessions.iter().map(|(number, info)| (*number, info.clone())).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Has sessions go for which `which` holds; how many that are.
    pub(super) fn kick(&self, which: impl Fn(u64, &Info) -> bool) -> usize {
        let inside = self.lock();
        let kicked = inside
            .sessions
            .iter()
            .filter(|(number, info)| !info.is_over() && which(**number, info));
        kicked.map(|(_, info)| info.order(Order::Kicked)).count()
    }
}

/// A newcomer's place in the queue, if it has one; given up on drop.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    roster: &'a Roster,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let gave_up = self.roster.lock().waiting.remove(&self.number).is_some();
        if gave_up {
            // What was promised to it is anybody's.
            self.roster.left.notify_waiters();
        }
    }
}

impl Member {
    /// Notes what is known once the target has answered.
    pub(super) fn reached(&self, reached: Reached) {
        // Once a session.
        let _ = self.info.reached.set(reached);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut inside = self.roster.lock();
        if let Some(info) = inside.sessions.remove(&self.number) {
            less(&mut inside.of_source, &source(info.peer.ip()));
            less(&mut inside.of_identity, &info.who);
        }
        drop(inside);
        // Whoever is waiting finds the seat free.
        self.seat = None;
        self.roster.left.notify_waiters();
    }
}

fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::Seats;
    use super::super::fair_share::FairShare;
    use super::*;

    struct Door {
        roster: Arc<Roster>,
        seats: Arc<Seats>,
        shares: Shares,
    }

    impl Door {
        fn new(sessions: usize, source: Option<usize>, identity: Option<usize>) -> Self {
            let roster = Arc::new(Roster::default());
            let shares = Shares { service: None, source, identity, fair: None, taken: 0 };
            Self { roster, seats: Seats::new(sessions), shares }
        }

        fn admit(&self, number: u64, from: u8, who: &str) -> Result<Member, Limit> {
            let (peer, who) = someone(from, who);
            let newcomer = Newcomer { number, peer: &peer, who: &who, wire: &who };
            let seat = || self.seats.take().ok_or(self.seats.limit());
            let shares = Shares { taken: self.seats.taken(), ..self.shares };
            self.roster.admit(&newcomer, shares, seat).map_err(|full| full.limit)
        }

        fn make_way(&self, number: u64, from: u8, who: &str, limit: Limit, own: bool) -> bool {
            let (peer, who) = someone(from, who);
            let newcomer = Newcomer { number, peer: &peer, who: &who, wire: &who };
            self.roster.make_way(&newcomer, limit, own)
        }
    }

    fn someone(from: u8, who: &str) -> (Peer, Identity) {
        (Peer::Tcp(([127, 0, 0, from], 9).into()), Identity::new(who.as_bytes()))
    }

    fn order(member: &Member) -> Option<Order> {
        member.info.order.get().copied()
    }

    #[test]
    fn each_limit_counts_for_itself_and_what_leaves_makes_room() {
        let door = Door::new(3, Some(2), Some(1));
        let first = door.admit(1, 1, "a").unwrap();
        assert_eq!(door.admit(2, 2, "a").unwrap_err(), Limit::Identity);
        let _second = door.admit(3, 1, "b").unwrap();
        assert_eq!(door.admit(4, 1, "c").unwrap_err(), Limit::Source);
        let _third = door.admit(5, 2, "c").unwrap();
        assert_eq!(door.admit(6, 3, "d").unwrap_err(), Limit::Service);
        drop(first);
        assert!(door.admit(7, 3, "d").is_ok(), "one identity's end is another's room");
    }

    #[test]
    fn the_oldest_under_the_limit_makes_way_and_nobody_for_one_who_came_before() {
        let door = Door::new(3, None, None);
        let [a, b, c] =
            [(1, "a"), (2, "b"), (3, "a")].map(|(n, who)| door.admit(n, 1, who).unwrap());
        assert!(!door.make_way(4, 1, "c", Limit::Service, true), "nobody of that name is in");
        assert!(door.make_way(4, 1, "b", Limit::Service, true));
        assert_eq!((order(&a), order(&b), order(&c)), (None, Some(Order::TakenOver(4)), None));
        assert!(door.make_way(5, 1, "x", Limit::Service, false));
        assert_eq!(order(&a), Some(Order::TakenOver(5)));
        assert!(!door.make_way(0, 1, "a", Limit::Service, false), "all came later");
    }

    #[test]
    fn each_newcomer_sends_one_away_and_not_the_one_that_goes_for_another() {
        let door = Door::new(2, None, None);
        let [a, b] = [(1, "a"), (2, "b")].map(|(n, who)| door.admit(n, 1, who).unwrap());
        assert!(door.make_way(3, 1, "x", Limit::Service, false));
        assert!(door.make_way(3, 1, "x", Limit::Service, false), "it still goes");
        assert_eq!((order(&a), order(&b)), (Some(Order::TakenOver(3)), None));
        assert!(door.make_way(4, 1, "y", Limit::Service, false));
        assert_eq!(order(&b), Some(Order::TakenOver(4)));
        assert!(door.make_way(5, 1, "z", Limit::Service, false), "two places will be free");
    }

    #[test]
    fn who_waits_for_one_does_not_take_the_place_that_another_has_waited_for() {
        let mut door = Door::new(9, None, None);
        door.shares.service = Some(3);
        let [a, b, c] =
            [(1, "a"), (2, "b"), (3, "c")].map(|(n, who)| door.admit(n, 1, who).unwrap());
        let _queues = [4, 5].map(|number| door.roster.queue(number));
        assert!(door.make_way(4, 1, "x", Limit::Service, false));
        assert!(door.make_way(5, 1, "y", Limit::Service, false));
        drop(b);
        assert_eq!(door.admit(4, 1, "x").unwrap_err(), Limit::Service, "its own is still there");
        let _fifth = door.admit(5, 1, "y").unwrap();
        assert!(door.make_way(4, 1, "x", Limit::Service, false));
        drop(a);
        let _fourth = door.admit(4, 1, "x").unwrap();
        assert_eq!(order(&c), None, "two came and two went");
    }

    #[test]
    fn one_that_is_over_goes_before_any_that_lives_and_is_not_kicked() {
        let door = Door::new(2, None, None);
        let [a, b] = [(1, "a"), (2, "b")].map(|(n, who)| door.admit(n, 1, who).unwrap());
        b.info.over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(door.roster.kick(|number, _| number == 2), 0);
        assert!(door.make_way(3, 1, "x", Limit::Service, false));
        assert_eq!((order(&a), order(&b)), (None, Some(Order::TakenOver(3))));
    }

    #[test]
    fn a_limit_of_the_service_counts_those_whose_seats_are_elsewhere() {
        let mut door = Door::new(9, None, None);
        let _before = door.admit(1, 1, "a").unwrap();
        door.seats = Seats::new(1);
        door.shares.service = Some(1);
        assert_eq!(door.admit(2, 1, "a").unwrap_err(), Limit::Service);
    }

    #[test]
    fn a_kick_finds_numbers_and_names() {
        let door = Door::new(9, None, None);
        let [a, b] = [(1, "a"), (2, "b")].map(|(n, who)| door.admit(n, 1, who).unwrap());
        assert_eq!(door.roster.kick(|number, _| number == 2), 1);
        assert_eq!((order(&a), order(&b)), (None, Some(Order::Kicked)));
        assert_eq!(door.roster.kick(|_, info| info.who.as_bytes() == b"nobody"), 0);
    }

    #[test]
    fn a_place_that_was_made_free_is_for_whom_it_was_made_free() {
        let door = Door::new(9, None, Some(1));
        let holder = door.admit(1, 1, "a").unwrap();
        let queue = door.roster.queue(2);
        assert_eq!(door.admit(2, 1, "a").unwrap_err(), Limit::Identity);
        assert!(door.make_way(2, 1, "a", Limit::Identity, true));
        drop(holder);
        // Whoever comes in between is too late, or too early.
        assert_eq!(door.admit(3, 2, "a").unwrap_err(), Limit::Identity);
        assert!(door.admit(4, 2, "b").is_ok(), "another identity has a place of its own");
        let heir = door.admit(2, 1, "a").unwrap();
        drop(queue);
        drop(heir);
        assert!(door.admit(5, 2, "a").is_ok());
    }

    #[test]
    fn who_gives_up_waiting_leaves_the_place_to_others_and_few_wait_at_once() {
        let door = Door::new(9, None, Some(1));
        let holder = door.admit(1, 1, "a").unwrap();
        let queues: Vec<_> = (2..9).map(|number| door.roster.queue(number)).collect();
        let waiting: Vec<_> =
            (2..9).map(|number| door.make_way(number, 1, "a", Limit::Identity, false)).collect();
        assert_eq!(waiting.iter().filter(|waits| **waits).count(), WAITERS);
        assert!(waiting[..WAITERS].iter().all(|waits| *waits));
        drop(holder);
        assert_eq!(door.admit(20, 2, "a").unwrap_err(), Limit::Identity);
        drop(queues);
        assert!(door.admit(20, 2, "a").is_ok());
        assert!(door.roster.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_of_each_who_leaves_or_gives_up() {
        let heard = |left| tokio::time::timeout(std::time::Duration::from_secs(1), left);
        let door = Door::new(9, None, Some(1));
        let holder = door.admit(1, 1, "a").unwrap();
        let left = door.roster.left();
        drop(holder);
        assert!(heard(left).await.is_ok(), "one has left");
        let holder = door.admit(2, 1, "a").unwrap();
        let queue = door.roster.queue(3);
        assert!(door.make_way(3, 1, "a", Limit::Identity, false));
        assert_eq!(holder.info.ordered().await, Order::TakenOver(3));
        let left = door.roster.left();
        drop(queue);
        assert!(heard(left).await.is_ok(), "one has given up");
        let left = door.roster.left();
        drop(door.roster.queue(4));
        assert!(heard(left).await.is_err(), "that one had no place to give up");
    }

    #[tokio::test(start_paused = true)]
    async fn the_roster_tells_who_is_in_and_what_has_moved() {
        let door = Door::new(9, None, None);
        let [a, _b] = [(1, "a"), (2, "b")].map(|(n, who)| door.admit(n, 1, who).unwrap());
        let numbers = door.roster.all().iter().map(|(number, _)| *number).collect::<Vec<_>>();
        assert_eq!((door.roster.count(), numbers), (2, vec![1, 2]));
        assert!(a.info.reached().is_none() && !a.info.is_over());
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        a.info.meter.count(Instant::now(), 50, 70);
        assert_eq!((a.info.bytes(), a.info.touched()), ((50, 70), Instant::now()));
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(a.info.rates(), (50, 70));
        let facts = Facts { version: "TLSv1.3", suite: "a suite".into(), bits: 128, group: None };
        let traffic = Arc::<Traffic>::default();
        traffic.read.records.store(5, Ordering::Relaxed);
        let target = "a target".to_owned();
        a.reached(Reached { facts, target, traffic, mode: Mode::Server });
        let (up, down) = a.info.carried();
        assert_eq!((up.records, down.records, up.key_updates), (5, 0, 0));
        assert_eq!(a.info.reached().unwrap().target, "a target");
        a.info.ended();
        assert!(a.info.is_over());
    }

    #[test]
    fn each_limit_is_named_in_its_own_words() {
        for (limit, word) in [
            (Limit::Service, "this service"),
            (Limit::Source, "one address"),
            (Limit::Identity, "one identity"),
            (Limit::Unreserved, "the last tenth"),
        ] {
            assert!(limit.words().contains(word), "{limit:?}");
        }
    }

    #[test]
    fn only_who_is_under_the_limit_that_is_reached_has_to_go() {
        for (limit, goes) in [(Limit::Source, 2), (Limit::Identity, 3), (Limit::Service, 1)] {
            let door = Door::new(9, None, None);
            let all = [(1, 1, "a"), (2, 2, "b"), (3, 1, "c"), (4, 2, "c")]
                .map(|(n, from, who)| door.admit(n, from, who).unwrap());
            assert!(door.make_way(9, 2, "c", limit, false));
            let gone: Vec<_> =
                all.iter().filter(|m| order(m).is_some()).map(|m| m.number).collect();
            assert_eq!(gone, [goes], "{limit:?}");
        }
    }

    #[test]
    fn a_place_that_one_address_has_waited_for_is_not_for_another_identity_there() {
        let door = Door::new(9, Some(1), None);
        let holder = door.admit(1, 1, "a").unwrap();
        let _queue = door.roster.queue(2);
        assert!(door.make_way(2, 1, "a", Limit::Source, false));
        drop(holder);
        assert_eq!(door.admit(3, 1, "b").unwrap_err(), Limit::Source);
        assert!(door.admit(4, 2, "b").is_ok(), "another address has a place of its own");
        assert!(door.admit(2, 1, "a").is_ok());
    }

    #[test]
    fn one_key_takes_all_seats_but_the_last_tenth_and_the_others_get_those() {
        let mut door = Door::new(100, None, None);
        door.shares.fair = FairShare::new(100, 10);
        let many: Vec<_> = (0..90).map(|number| door.admit(number, 1, "a").unwrap()).collect();
        assert_eq!(door.admit(90, 1, "a").unwrap_err(), Limit::Unreserved);
        let others: Vec<_> = (91..=100).map(|number| door.admit(number, 1, "b").unwrap()).collect();
        // All are taken now, whoever asks.
        assert_eq!(door.admit(101, 1, "c").unwrap_err(), Limit::Service);
        assert_eq!(door.admit(102, 1, "a").unwrap_err(), Limit::Unreserved);
        drop(others);
        // An identity with a tenth of all is no longer one with few.
        let some: Vec<_> = (110..119).map(|number| door.admit(number, 1, "b").unwrap()).collect();
        assert_eq!((many.len(), some.len()), (90, 9));
        assert!(door.admit(119, 1, "b").is_ok(), "the tenth of b");
    }

    #[test]
    fn who_has_taken_the_most_makes_way_for_its_own_newcomers_and_takes_nobody_elses_seat() {
        let mut door = Door::new(20, None, None);
        door.shares.fair = FairShare::new(20, 2);
        let other = door.admit(1, 1, "b").unwrap();
        let mut mine: Vec<_> = (2..19).map(|number| door.admit(number, 1, "a").unwrap()).collect();
        assert_eq!(door.admit(30, 1, "a").unwrap_err(), Limit::Unreserved);
        let _queue = door.roster.queue(30);
        assert!(door.make_way(30, 1, "a", Limit::Unreserved, false));
        assert_eq!((order(&other), order(&mine[0])), (None, Some(Order::TakenOver(30))));
        drop(mine.remove(0));
        assert_eq!(door.admit(31, 1, "a").unwrap_err(), Limit::Unreserved, "it is promised");
        assert!(door.admit(30, 1, "a").is_ok());
    }

    #[test]
    fn those_who_wait_are_counted_for_each_identity() {
        let door = Door::new(1, None, None);
        let _holder = door.admit(1, 1, "a").unwrap();
        for number in 2..2 + WAITERS as u64 {
            assert!(door.make_way(number, 1, "a", Limit::Service, false));
        }
        assert!(!door.make_way(20, 1, "a", Limit::Service, false));
        assert!(door.make_way(21, 1, "b", Limit::Service, false), "none of these is its own");
    }
}
