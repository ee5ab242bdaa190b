//! Entries in groups, and which of them goes when there is no room: the oldest of the fullest group.
//!
//! Groups may hold groups. Every question takes a time that grows with the logarithm of the number of
//! entries, because a flood asks it for each connection.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use tokio::time::Instant;

use super::Id;

/// Entries, each in a group by its path from the outermost group to the innermost.
///
/// An entry is *young* until the moment that it was given, and *ripe* from then on. [`Groups::ripen`] has
/// to be told the time before anybody asks.
#[derive(Debug)]
pub(super) struct Groups<K> {
    entries: HashMap<Id, GroupEntry<K>>,
    top: Branch<K>,
    ripening: BTreeSet<(Instant, Id)>,
    next_order: u64,
    weight: usize,
}

#[derive(Debug)]
struct GroupEntry<K> {
    path: Vec<K>,
    weight: usize,
    /// Of entering: the lowest is the oldest.
    order: u64,
    /// Until when it is young; none if it is ripe.
    young_until: Option<Instant>,
}

/// Who may have to go, and how full its outermost group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EvictionCandidate {
    pub(super) id: Id,
    /// The weight of its outermost group.
    pub(super) weight: usize,
    /// The number of entries there.
    pub(super) count: usize,
}

/// By fullness, then by the age of the oldest, so that the last of a set is the fullest with the oldest.
type Rank<K> = (usize, Reverse<u64>, K);

#[derive(Debug)]
struct Branch<K> {
    members: HashMap<K, Group<K>>,
    ranks: BTreeSet<Rank<K>>,
    /// Of the members that have a ripe entry, by the age of their oldest ripe one.
    ripe_ranks: BTreeSet<Rank<K>>,
}

#[derive(Debug)]
struct Group<K> {
    weight: usize,
    count: usize,
    content: Content<K>,
}

#[derive(Debug)]
enum Content<K> {
    Branch(Branch<K>),
    Leaf(Leaf),
}

#[derive(Debug, Default)]
struct Leaf {
    young: BTreeMap<u64, Id>,
    ripe: BTreeMap<u64, Id>,
}

/// What an entry's coming, going or growing adds to each group around it.
#[derive(Debug, Clone, Copy)]
struct GroupDelta {
    weight: isize,
    count: isize,
}

impl GroupDelta {
    const NONE: Self = Self { weight: 0, count: 0 };
}

impl<K> Default for Groups<K> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            top: Branch::default(),
            ripening: BTreeSet::new(),
            next_order: 0,
            weight: 0,
        }
    }
}

impl<K> Default for Branch<K> {
    fn default() -> Self {
        Self { members: HashMap::new(), ranks: BTreeSet::new(), ripe_ranks: BTreeSet::new() }
    }
}

impl<K: Clone + Ord + Hash> Groups<K> {
    /// The weights of all entries together.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many outermost groups there are.
    pub(super) fn group_count(&self) -> usize {
        self.top.members.len()
    }

    /// The path has at least one group. Keys of inner and of outermost groups are never the same.
    pub(super) fn insert(&mut self, id: Id, path: Vec<K>, weight: usize, young_until: Instant) {
        let order = self.next_order;
        self.next_order += 1;
        self.enter(id, GroupEntry { path, weight, order, young_until: Some(young_until) });
    }

    pub(super) fn remove(&mut self, id: Id) -> bool {
        self.take(id).is_some()
    }

    pub(super) fn set_weight(&mut self, id: Id, weight: usize) {
        if let Some(entry) = self.take(id) {
            self.enter(id, GroupEntry { weight, ..entry });
        }
    }

    /// Until when an entry is young now; it keeps its order.
    pub(super) fn set_young(&mut self, id: Id, until: Instant) {
        if let Some(entry) = self.take(id) {
            self.enter(id, GroupEntry { young_until: Some(until), ..entry });
        }
    }

    fn enter(&mut self, id: Id, entry: GroupEntry<K>) {
        self.weight += entry.weight;
        if let Some(until) = entry.young_until {
            self.ripening.insert((until, id));
        }
        let change = GroupDelta { weight: entry.weight as isize, count: 1 };
        let (order, is_young) = (entry.order, entry.young_until.is_some());
        self.top.change(&entry.path, change, |leaf| {
            leaf.of(is_young).insert(order, id);
        });
        self.entries.insert(id, entry);
    }

    fn take(&mut self, id: Id) -> Option<GroupEntry<K>> {
        let entry = self.entries.remove(&id)?;
        self.weight -= entry.weight;
        if let Some(until) = entry.young_until {
            self.ripening.remove(&(until, id));
        }
        let change = GroupDelta { weight: -(entry.weight as isize), count: -1 };
        let (order, is_young) = (entry.order, entry.young_until.is_some());
        self.top.change(&entry.path, change, |leaf| {
            leaf.of(is_young).remove(&order);
        });
        Some(entry)
    }

    /// Moves whoever is young no more.
    pub(super) fn ripen(&mut self, now: Instant) {
        while let Some(&(until, id)) = self.ripening.first()
            && until <= now
        {
            self.ripening.pop_first();
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.young_until = None;
            let order = entry.order;
            self.top.change(&entry.path, GroupDelta::NONE, |leaf| {
                leaf.young.remove(&order);
                leaf.ripe.insert(order, id);
            });
        }
    }

    /// When the next one will be ripe.
    pub(super) fn next_ripe(&self) -> Option<Instant> {
        self.ripening.first().map(|(until, _)| *until)
    }

    /// The oldest ripe entry of the fullest group that has one.
    pub(super) fn fullest_ripe(&self) -> Option<EvictionCandidate> {
        self.top.pick(true)
    }

    /// The oldest entry of the fullest group.
    pub(super) fn fullest(&self) -> Option<EvictionCandidate> {
        self.top.pick(false)
    }
}

impl Leaf {
    fn of(&mut self, is_young: bool) -> &mut BTreeMap<u64, Id> {
        if is_young { &mut self.young } else { &mut self.ripe }
    }

    fn oldest(&self) -> Option<(u64, Id)> {
        let first = |map: &BTreeMap<u64, Id>| map.first_key_value().map(|(o, id)| (*o, *id));
        [first(&self.young), first(&self.ripe)].into_iter().flatten().min_by_key(|(o, _)| *o)
    }
}

impl<K: Clone + Ord + Hash> Branch<K> {
    /// Changes the leaf at the end of the path, and what the groups on the way there are ranked by.
    fn change(&mut self, path: &[K], change: GroupDelta, apply: impl FnOnce(&mut Leaf)) {
        let Some((key, rest)) = path.split_first() else { return };
        let mut group = self.members.remove(key).unwrap_or_else(|| Group::new(rest.is_empty()));
        if let Some(rank) = group.rank(key, false) {
            self.ranks.remove(&rank);
        }
        if let Some(rank) = group.rank(key, true) {
            self.ripe_ranks.remove(&rank);
        }
        match &mut group.content {
            Content::Branch(branch) => branch.change(rest, change, apply),
            Content::Leaf(leaf) => apply(leaf),
        }
        group.weight = group.weight.saturating_add_signed(change.weight);
        group.count = group.count.saturating_add_signed(change.count);
        if group.count == 0 {
            return;
        }
        self.ranks.extend(group.rank(key, false));
        self.ripe_ranks.extend(group.rank(key, true));
        self.members.insert(key.clone(), group);
    }

    fn ranks(&self, ripe: bool) -> &BTreeSet<Rank<K>> {
        if ripe { &self.ripe_ranks } else { &self.ranks }
    }

    fn pick(&self, ripe: bool) -> Option<EvictionCandidate> {
        let (_, _, key) = self.ranks(ripe).last()?;
        let group = self.members.get(key)?;
        let id = group.pick(ripe)?;
        Some(EvictionCandidate { id, weight: group.weight, count: group.count })
    }
}

impl<K: Clone + Ord + Hash> Group<K> {
    fn new(is_leaf: bool) -> Self {
        let content = match is_leaf {
            true => Content::Leaf(Leaf::default()),
            false => Content::Branch(Branch::default()),
        };
        Self { weight: 0, count: 0, content }
    }

    /// None if it has nobody of that kind.
    fn rank(&self, key: &K, ripe: bool) -> Option<Rank<K>> {
        let oldest = match &self.content {
            Content::Branch(branch) => branch.ranks(ripe).last().map(|(_, oldest, _)| *oldest),
            Content::Leaf(leaf) if ripe => leaf.ripe.keys().next().map(|order| Reverse(*order)),
            Content::Leaf(leaf) => leaf.oldest().map(|(order, _)| Reverse(order)),
        };
        oldest.map(|oldest| (self.weight, oldest, key.clone()))
    }

    fn pick(&self, ripe: bool) -> Option<Id> {
        match &self.content {
            Content::Branch(branch) => branch.pick(ripe).map(|candidate| candidate.id),
            Content::Leaf(leaf) if ripe => leaf.ripe.values().next().copied(),
            Content::Leaf(leaf) => leaf.oldest().map(|(_, id)| id),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn fill(start: Instant, list: &[(Id, &'static str, u64)]) -> Groups<&'static str> {
        let mut groups = Groups::default();
        for (id, group, young) in list {
            groups.insert(*id, vec![*group], 1, after(start, *young));
        }
        groups
    }

    #[test]
    fn the_oldest_of_the_fullest_goes_and_the_young_are_told_from_the_ripe() {
        let start = Instant::now();
        let mut groups = fill(start, &[(1, "a", 0), (2, "b", 5), (3, "b", 1), (4, "b", 2)]);
        assert_eq!(groups.fullest().unwrap().id, 2);
        assert_eq!(groups.fullest_ripe(), None, "nobody has said what time it is");
        groups.ripen(start);
        assert_eq!(groups.fullest_ripe().unwrap().id, 1, "the only one");
        groups.ripen(after(start, 2));
        let candidate = groups.fullest_ripe().unwrap();
        assert_eq!((candidate.id, candidate.weight, candidate.count), (3, 3, 3), "2 is young");
        assert_eq!(groups.next_ripe(), Some(after(start, 5)));
        assert!(groups.remove(3) && !groups.remove(3));
        assert_eq!((groups.weight(), groups.group_count()), (3, 2));
    }

    #[test]
    fn of_groups_that_are_as_full_the_one_with_the_oldest_entry_loses_it() {
        let start = Instant::now();
        let mut groups = fill(start, &[(1, "b", 0), (2, "a", 0), (3, "a", 0), (4, "b", 0)]);
        groups.ripen(start);
        assert_eq!(groups.fullest_ripe().unwrap().id, 1);
        groups.set_weight(3, 2);
        assert_eq!(groups.fullest_ripe().unwrap().id, 2, "what one takes up counts");
    }

    #[test]
    fn a_wide_network_is_one_and_within_it_the_fullest_part_goes_first() {
        let start = Instant::now();
        let mut groups = Groups::default();
        for (id, path) in [
            (1, ["48", "x", "1"]),
            (2, ["48", "y", "1"]),
            (3, ["48", "y", "2"]),
            (4, ["48", "y", "2"]),
        ] {
            groups.insert(id, path.to_vec(), 1, start);
        }
        for id in 5..8 {
            groups.insert(id, vec!["v4"], 1, start);
        }
        groups.ripen(start);
        let order: Vec<_> = std::iter::from_fn(|| {
            let id = groups.fullest_ripe()?.id;
            groups.remove(id);
            Some(id)
        })
        .collect();
        assert_eq!(order, [3, 2, 5, 1, 6, 4, 7]);
        assert!(groups.is_empty() && groups.top.ranks.is_empty() && groups.ripening.is_empty());
    }

    /// Against a plain list that is searched from end to end.
    #[test]
    fn it_agrees_with_a_search_through_all_of_them() {
        let start = Instant::now();
        let mut groups: Groups<u64> = Groups::default();
        let mut list: Vec<(Id, u64, u64)> = Vec::new();
        let mut dice = 12345_u64;
        let mut throw = |sides: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        for step in 0..1000_u64 {
            if throw(3) > 0 {
                let (group, young) = (throw(20), step + throw(40));
                groups.insert(step, vec![group], 1, after(start, young));
                list.push((step, group, young));
            } else if !list.is_empty() {
                let (id, ..) = list.remove(throw(list.len() as u64) as usize);
                groups.remove(id);
            }
            groups.ripen(after(start, step));
            let size = |group| list.iter().filter(|(_, other, _)| *other == group).count();
            let ripe = list.iter().filter(|(_, _, young)| *young <= step);
            let wanted = ripe
                .map(|(id, group, _)| {
                    let oldest = list.iter().find(|(_, g, y)| g == group && *y <= step).unwrap().0;
                    (size(*group), Reverse(oldest), *id)
                })
                .max_by_key(|(size, oldest, id)| (*size, *oldest, Reverse(*id)));
            assert_eq!(groups.fullest_ripe().map(|c| (c.count, c.id)), wanted.map(|w| (w.0, w.2)));
        }
    }
}
