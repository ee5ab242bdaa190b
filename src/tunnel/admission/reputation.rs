//! What is remembered of networks whose connections proved no key. When there is more to do than can be done, those
//! without such a history go first: a flood from two thousand addresses is known by its failures within
//! seconds, and a good client from anywhere else does not wait behind it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use super::Id;
use super::groups::{EvictionCandidate, Groups};
use super::network::Network;
use super::turns::Turns;

/// For how long after the last one failures are remembered.
const MEMORY: Duration = Duration::from_secs(60);
/// How many are forgiven: a mistyped key, or a client that was evicted for no fault of its own.
const FORGIVEN_FAILURES: u32 = 1;
/// Of an IPv6 /48, how many /64 networks have to fail until all of it has: more than hosts whose owner mistyped a key.
const MIN_FAILED_OF_SITE: u32 = 4;
/// How many networks are remembered, at about 120 bytes each. Of more within a minute the oldest are forgotten.
const MAX_NETWORKS: usize = 16_384;
/// Of so many turns one is for a network that has failed, while others wait: an address that good clients
/// share with a stranger must not be kept out for ever.
const TURNS_FOR_ONE_OF_FAILED: u32 = 8;

/// What a connection's network has done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reputation {
    /// Nothing is known against it.
    Clean,
    /// Its last connections proved no key.
    Failed,
}

impl Reputation {
    /// How much of the time that protects others protects it: a round trip of 1.2 s fits in at most, and not
    /// three of 0.7 s. So a flood that is known for one makes room faster.
    pub(super) fn protection(self, of_others: Duration) -> Duration {
        match self {
            Self::Clean => of_others,
            Self::Failed => of_others * 3 / 5,
        }
    }
}

/// Networks whose last connections proved no key: IPv4 addresses and IPv6 /64 networks, each of which is what one
/// host has. A site's /48 is judged by how many of its /64 networks failed: one host must not be counted against
/// its neighbours, and who has a whole /48 must not come from a new network each time.
#[derive(Debug, Default)]
pub(super) struct Failures {
    records: HashMap<Network, Record>,
    /// Every record once, by the time of its last event.
    order: BTreeSet<(Instant, Network)>,
    /// Of an IPv6 /48, how many of its networks have failed.
    failed_in_site: HashMap<Network, u32>,
}

#[derive(Debug)]
struct Record {
    /// Failures since a key was proven last. Of 0 it is one that has proven its key, whatever its site does.
    count: u32,
    last: Instant,
}

impl Failures {
    /// A connection from there came to nothing.
    pub(super) fn note(&mut self, networks: &[Network], now: Instant) {
        self.update(networks, now, |count| count.saturating_add(1));
    }

    /// A key was proven from there.
    pub(super) fn clear(&mut self, networks: &[Network], now: Instant) {
        self.update(networks, now, |_| 0);
    }

    fn update(&mut self, networks: &[Network], now: Instant, next: impl Fn(u32) -> u32) {
        let Some(&network) = networks.last().filter(|one| **one != Network::Unnamed) else {
            return;
        };
        self.forget(now);
        let old = self.remove(network).unwrap_or_default();
        let count = next(old);
        self.records.insert(network, Record { count, last: now });
        self.order.insert((now, network));
        if let Some(site) = site_of(network).filter(|_| count > 0) {
            *self.failed_in_site.entry(site).or_default() += 1;
        }
        if self.records.len() > MAX_NETWORKS {
            self.remove_oldest();
        }
    }

    pub(super) fn reputation(&mut self, networks: &[Network], now: Instant) -> Reputation {
        self.forget(now);
        let Some(network) = networks.last() else { return Reputation::Clean };
        let of_site = |network| self.failed_in_site.get(&site_of(network)?).copied();
        let has_failed = match self.records.get(network) {
            Some(Record { count: 0, .. }) => false,
            Some(Record { count, .. }) if *count > FORGIVEN_FAILURES => true,
            _ => of_site(*network).is_some_and(|failed| failed >= MIN_FAILED_OF_SITE),
        };
        if has_failed { Reputation::Failed } else { Reputation::Clean }
    }

    fn forget(&mut self, now: Instant) {
        while self.order.first().is_some_and(|(at, _)| now.duration_since(*at) > MEMORY) {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(&(_, network)) = self.order.first() {
            self.remove(network);
        }
    }

    /// Takes a record out. Returns its count.
    fn remove(&mut self, network: Network) -> Option<u32> {
        let Record { count, last } = self.records.remove(&network)?;
        self.order.remove(&(last, network));
        if let Some(site) = site_of(network).filter(|_| count > 0)
            && let Some(failed) = self.failed_in_site.get_mut(&site)
        {
            *failed -= 1;
            if *failed == 0 {
                self.failed_in_site.remove(&site);
            }
        }
        Some(count)
    }
}

/// The /48 of an IPv6 /64.
fn site_of(network: Network) -> Option<Network> {
    match network {
        Network::V6 { prefix, bits: 64 } => Some(Network::V6 { prefix: prefix >> 16, bits: 48 }),
        _ => None,
    }
}

/// Entries in groups, of which those of networks that failed go first.
#[derive(Debug)]
pub(super) struct GroupsByReputation<K> {
    failed: Groups<K>,
    clean: Groups<K>,
}

impl<K> Default for GroupsByReputation<K> {
    fn default() -> Self {
        Self { failed: Groups::default(), clean: Groups::default() }
    }
}

impl<K: Clone + Ord + Hash> GroupsByReputation<K> {
    fn both(&self) -> [&Groups<K>; 2] {
        [&self.failed, &self.clean]
    }

    fn both_mut(&mut self) -> [&mut Groups<K>; 2] {
        [&mut self.failed, &mut self.clean]
    }

    /// As [`Groups::insert`].
    pub(super) fn insert(
        &mut self,
        reputation: Reputation,
        id: Id,
        path: Vec<K>,
        weight: usize,
        young_until: Instant,
    ) {
        let groups = match reputation {
            Reputation::Failed => &mut self.failed,
            Reputation::Clean => &mut self.clean,
        };
        groups.insert(id, path, weight, young_until);
    }

    pub(super) fn remove(&mut self, id: Id) -> bool {
        self.both_mut().into_iter().any(|groups| groups.remove(id))
    }

    pub(super) fn set_weight(&mut self, id: Id, weight: usize) {
        self.both_mut().into_iter().for_each(|groups| groups.set_weight(id, weight));
    }

    pub(super) fn set_young(&mut self, id: Id, until: Instant) {
        self.both_mut().into_iter().for_each(|groups| groups.set_young(id, until));
    }

    pub(super) fn ripen(&mut self, now: Instant) {
        self.both_mut().into_iter().for_each(|groups| groups.ripen(now));
    }

    pub(super) fn weight(&self) -> usize {
        self.both().into_iter().map(Groups::weight).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.both().into_iter().all(Groups::is_empty)
    }

    pub(super) fn group_count(&self) -> usize {
        self.both().into_iter().map(Groups::group_count).sum()
    }

    pub(super) fn next_ripe(&self) -> Option<Instant> {
        self.both().into_iter().filter_map(Groups::next_ripe).min()
    }

    /// The oldest ripe one of the fullest group that has one and is at least that heavy.
    pub(super) fn fullest_ripe(&self, min_weight: usize) -> Option<EvictionCandidate> {
        let candidates = self.both().into_iter().filter_map(Groups::fullest_ripe);
        candidates.into_iter().find(|candidate| candidate.weight >= min_weight)
    }

    /// The oldest of the fullest group that has so many.
    pub(super) fn fullest(&self, min_count: usize) -> Option<EvictionCandidate> {
        let candidates = self.both().into_iter().filter_map(Groups::fullest);
        candidates.into_iter().find(|candidate| candidate.count >= min_count)
    }
}

/// Turns, of which most are for networks that have not failed.
#[derive(Debug)]
pub(super) struct TurnsByReputation<K> {
    failed: Turns<K>,
    clean: Turns<K>,
    /// Turns that clean networks have had since a failed one had its last.
    clean_in_a_row: u32,
}

impl<K> Default for TurnsByReputation<K> {
    fn default() -> Self {
        Self { failed: Turns::default(), clean: Turns::default(), clean_in_a_row: 0 }
    }
}

impl<K: Clone + Ord + Hash> TurnsByReputation<K> {
    pub(super) fn join(&mut self, reputation: Reputation, id: Id, path: Vec<K>) {
        match reputation {
            Reputation::Failed => self.failed.join(id, path),
            Reputation::Clean => self.clean.join(id, path),
        }
    }

    pub(super) fn remove(&mut self, id: Id) -> bool {
        self.failed.remove(id) || self.clean.remove(id)
    }

    fn is_turn_of_failed(&self) -> bool {
        self.clean_in_a_row + 1 >= TURNS_FOR_ONE_OF_FAILED
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<Id> {
        let (failed, clean) = (self.failed.first(), self.clean.first());
        if self.is_turn_of_failed() { failed.or(clean) } else { clean.or(failed) }
    }

    /// Takes out the one whose turn it is.
    pub(super) fn take_first(&mut self) -> Option<Id> {
        let takes_failed = self.failed.first().is_some()
            && (self.is_turn_of_failed() || self.clean.first().is_none());
        if takes_failed {
            self.clean_in_a_row = 0;
            return self.failed.take_first();
        }
        self.clean_in_a_row = self.clean_in_a_row.saturating_add(1);
        self.clean.take_first()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::super::network::networks_of;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fail(failures: &mut Failures, network: u32, times: u32, now: Instant) {
        (0..times).for_each(|_| failures.note(&[Network::V4(network)], now));
    }

    #[test]
    fn a_network_has_failed_after_a_few_times_until_it_proves_a_key_or_a_minute_is_over() {
        let now = Instant::now();
        let mut failures = Failures::default();
        let reputation = |failures: &mut Failures, now| failures.reputation(&[Network::V4(1)], now);
        fail(&mut failures, 1, FORGIVEN_FAILURES, now);
        assert_eq!(reputation(&mut failures, now), Reputation::Clean);
        fail(&mut failures, 1, 1, now + SECOND);
        assert_eq!(
            reputation(&mut failures, now + MEMORY),
            Reputation::Failed,
            "the last was 59 s ago"
        );
        assert_eq!(failures.reputation(&[Network::V4(2)], now), Reputation::Clean, "another one");
        assert_eq!(reputation(&mut failures, now + MEMORY + 2 * SECOND), Reputation::Clean);
        fail(&mut failures, 1, 9, now + MEMORY);
        failures.clear(&[Network::V4(1)], now + MEMORY);
        assert_eq!(reputation(&mut failures, now + MEMORY), Reputation::Clean);
        failures.note(&[Network::Unnamed], now);
        let is_proxy = |network: &Network| *network == Network::Unnamed;
        assert!(!failures.records.keys().any(is_proxy), "a proxy is not whom it connects for");
    }

    fn host(site: u16, subnet: u16) -> Vec<Network> {
        networks_of(Some(Ipv6Addr::new(0x2001, 0xdb8, site, subnet, 0, 0, 0, 1).into()))
    }

    #[test]
    fn an_ipv6_site_has_failed_when_several_of_its_networks_have() {
        let now = Instant::now();
        let mut failures = Failures::default();
        (0..99).for_each(|_| failures.note(&host(1, 7), now));
        assert_eq!(failures.reputation(&host(1, 7), now), Reputation::Failed);
        assert_eq!(failures.reputation(&host(1, 8), now), Reputation::Clean, "its neighbour");
        (0..MIN_FAILED_OF_SITE as u16).for_each(|subnet| failures.note(&host(1, subnet), now));
        assert_eq!(failures.reputation(&host(1, 77), now), Reputation::Failed);
        assert_eq!(failures.reputation(&host(2, 77), now), Reputation::Clean, "another site");
        failures.clear(&host(1, 77), now);
        assert_eq!(failures.reputation(&host(1, 77), now), Reputation::Clean, "has a key");
        assert_eq!(failures.reputation(&host(1, 78), now), Reputation::Failed);
        let later = now + MEMORY + SECOND;
        assert_eq!(failures.reputation(&host(1, 78), later), Reputation::Clean);
        assert!(failures.failed_in_site.is_empty(), "{failures:?}");
    }

    #[test]
    fn no_more_networks_are_remembered_than_there_is_memory_for_and_one_that_fails_often_is_one() {
        let now = Instant::now();
        let mut failures = Failures::default();
        fail(&mut failures, 0, 2, now);
        fail(&mut failures, 1, 2 * MAX_NETWORKS as u32, now + SECOND);
        assert_eq!(failures.reputation(&[Network::V4(0)], now + SECOND), Reputation::Failed);
        for network in 2..2 * MAX_NETWORKS as u32 {
            fail(&mut failures, network, 1, now + 2 * SECOND);
        }
        assert_eq!((failures.records.len(), failures.order.len()), (MAX_NETWORKS, MAX_NETWORKS));
        for site in 0..u16::MAX {
            failures.note(&host(site, 1), now + 3 * SECOND);
        }
        assert_eq!(failures.records.len(), MAX_NETWORKS);
        assert_eq!(failures.failed_in_site.len(), MAX_NETWORKS);
    }

    #[test]
    fn who_failed_before_has_to_go_first() {
        let now = Instant::now();
        let mut groups = GroupsByReputation::default();
        groups.insert(Reputation::Clean, 1, vec!["a"], 1, now);
        groups.insert(Reputation::Clean, 2, vec!["a"], 1, now);
        groups.insert(Reputation::Failed, 3, vec!["b"], 1, now + SECOND);
        groups.ripen(now);
        assert_eq!(groups.fullest_ripe(0).map(|one| one.id), Some(1), "the other one is young");
        groups.ripen(now + SECOND);
        assert_eq!(groups.fullest_ripe(0).map(|one| one.id), Some(3));
        assert_eq!(groups.fullest_ripe(2).map(|one| one.id), Some(1), "more than its share");
        assert_eq!(groups.fullest(2).map(|one| one.id), Some(1));
        assert_eq!((groups.weight(), groups.group_count()), (3, 2));
        assert!(groups.remove(3) && groups.remove(1) && groups.remove(2) && groups.is_empty());
    }

    #[test]
    fn who_failed_before_has_one_turn_of_eight_and_all_when_nobody_else_waits() {
        let mut turns = TurnsByReputation::default();
        (0..3).for_each(|id| turns.join(Reputation::Failed, id, vec!["flood"]));
        (10..30).for_each(|id| {
            turns.join(Reputation::Clean, id, vec![if id % 2 == 0 { "a" } else { "b" }])
        });
        let order: Vec<Id> = std::iter::from_fn(|| {
            let first = turns.first();
            assert_eq!(turns.take_first(), first);
            first
        })
        .collect();
        let at = |id| order.iter().position(|one| *one == id);
        assert_eq!((at(0), at(1), at(2)), (Some(7), Some(15), Some(22)));
        assert_eq!(order.len(), 23);
    }
}
