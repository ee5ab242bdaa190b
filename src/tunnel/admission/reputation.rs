//! What is remembered of networks whose connections proved no key. When there is more to do than can be done, those
//! without such a history go first: a flood from two thousand addresses is known by its failures within
//! seconds, and a good client from anywhere else does not wait behind it.

use std::collections::{HashMap, VecDeque};
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
/// How many networks are remembered, at about 60 bytes each. Of more within a minute the oldest are forgotten.
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

/// Networks whose last connections proved no key.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// How many since a key was proven last, and when the last was.
    counts: HashMap<Network, (u32, Instant)>,
    /// In the order of time; one whose network failed again since counts for nothing.
    order: VecDeque<(Instant, Network)>,
}

impl Failures {
    /// A connection from there came to nothing.
    pub(super) fn note(&mut self, networks: &[Network], now: Instant) {
        let Some(&network) = networks.first().filter(|one| **one != Network::Unnamed) else {
            return;
        };
        let (count, last) = self.counts.entry(network).or_insert((0, now));
        (*count, *last) = (count.saturating_add(1), now);
        self.order.push_back((now, network));
        self.forget(now);
    }

    /// A key was proven from there.
    pub(super) fn clear(&mut self, networks: &[Network]) {
        if let Some(network) = networks.first() {
            self.counts.remove(network);
        }
    }

    pub(super) fn reputation(&mut self, networks: &[Network], now: Instant) -> Reputation {
        self.forget(now);
        let count = networks.first().and_then(|network| self.counts.get(network));
        match count {
            Some((count, _)) if *count > FORGIVEN_FAILURES => Reputation::Failed,
            _ => Reputation::Clean,
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(at, network)) = self.order.front()
            && (now.duration_since(at) > MEMORY || self.order.len() > MAX_NETWORKS)
        {
            self.order.pop_front();
            if self.counts.get(&network).is_some_and(|(_, last)| *last == at) {
                self.counts.remove(&network);
            }
        }
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
        failures.clear(&[Network::V4(1)]);
        assert_eq!(reputation(&mut failures, now + MEMORY), Reputation::Clean);
        failures.note(&[Network::Unnamed], now);
        assert!(failures.counts.is_empty(), "a proxy is not whom it connects for");
    }

    #[test]
    fn of_an_ipv6_site_all_addresses_have_one_history() {
        let now = Instant::now();
        let mut failures = Failures::default();
        let of = |host: u64| {
            [(0x2001, 48), (host >> 8, 56), (host, 64)]
                .map(|(prefix, bits)| Network::V6 { prefix, bits })
        };
        (0..9).for_each(|host| failures.note(&of(host), now));
        assert_eq!(failures.reputation(&of(77), now), Reputation::Failed);
    }

    #[test]
    fn no_more_networks_are_remembered_than_there_is_memory_for() {
        let now = Instant::now();
        let mut failures = Failures::default();
        for network in 0..2 * MAX_NETWORKS as u32 {
            fail(&mut failures, network, 1, now);
        }
        assert_eq!((failures.counts.len(), failures.order.len()), (MAX_NETWORKS, MAX_NETWORKS));
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
