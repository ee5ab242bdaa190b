//! Turns: one of each group after the other, and of a group the one that waits longest.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::Id;

/// Those who wait for their turn, in groups as in [`super::groups`].
#[derive(Debug)]
pub(super) struct Turns<K> {
    ring: Ring<K>,
    places: HashMap<Id, (Vec<K>, u64)>,
    next: u64,
}

/// Groups, the one whose turn it is first. A group that joins has the last turn.
#[derive(Debug)]
struct Ring<K> {
    order: BTreeMap<u64, K>,
    members: HashMap<K, (u64, TurnQueue<K>)>,
}

#[derive(Debug)]
enum TurnQueue<K> {
    Ring(Ring<K>),
    /// The oldest first.
    Queue(BTreeMap<u64, Id>),
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { ring: Ring::default(), places: HashMap::new(), next: 0 }
    }
}

impl<K> Default for Ring<K> {
    fn default() -> Self {
        Self { order: BTreeMap::new(), members: HashMap::new() }
    }
}

impl<K: Clone + Ord + Hash> Turns<K> {
    pub(super) fn join(&mut self, id: Id, path: Vec<K>) {
        let order = self.next;
        self.next += 1;
        self.ring.join(id, &path, order);
        self.places.insert(id, (path, order));
    }

    pub(super) fn remove(&mut self, id: Id) -> bool {
        let Some((path, order)) = self.places.remove(&id) else { return false };
        self.ring.remove(&path, order);
        true
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<Id> {
        self.ring.first()
    }

    /// Takes out the one whose turn it is. Its groups have the last turn from now on.
    pub(super) fn take_first(&mut self) -> Option<Id> {
        let id = self.ring.first()?;
        let (path, order) = self.places.remove(&id)?;
        self.ring.remove(&path, order);
        let next = self.next;
        self.next += 1;
        self.ring.put_last(&path, next);
        Some(id)
    }
}

impl<K: Clone + Ord + Hash> Ring<K> {
    fn join(&mut self, id: Id, path: &[K], order: u64) {
        let Some((key, rest)) = path.split_first() else { return };
        let (_, line) = self.members.entry(key.clone()).or_insert_with(|| {
            self.order.insert(order, key.clone());
            let line = match rest.is_empty() {
                true => TurnQueue::Queue(BTreeMap::new()),
                false => TurnQueue::Ring(Self::default()),
            };
            (order, line)
        });
        match line {
            TurnQueue::Ring(ring) => ring.join(id, rest, order),
            TurnQueue::Queue(queue) => {
                queue.insert(order, id);
            }
        }
    }

    fn remove(&mut self, path: &[K], order: u64) {
        let Some((key, rest)) = path.split_first() else { return };
        let Some((turn, line)) = self.members.get_mut(key) else { return };
        let is_empty = match line {
            TurnQueue::Ring(ring) => {
                ring.remove(rest, order);
                ring.members.is_empty()
            }
            TurnQueue::Queue(queue) => {
                queue.remove(&order);
                queue.is_empty()
            }
        };
        if is_empty {
            self.order.remove(turn);
            self.members.remove(key);
        }
    }

    fn put_last(&mut self, path: &[K], next: u64) {
        let Some((key, rest)) = path.split_first() else { return };
        let Some((turn, line)) = self.members.get_mut(key) else { return };
        self.order.remove(turn);
        self.order.insert(next, key.clone());
        *turn = next;
        if let TurnQueue::Ring(ring) = line {
            ring.put_last(rest, next);
        }
    }

    fn first(&self) -> Option<Id> {
        let key = self.order.values().next()?;
        match &self.members.get(key)?.1 {
            TurnQueue::Ring(ring) => ring.first(),
            TurnQueue::Queue(queue) => queue.values().next().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(turns: &mut Turns<&'static str>) -> Vec<Id> {
        std::iter::from_fn(|| turns.take_first()).collect()
    }

    #[test]
    fn a_network_with_one_waits_for_one_of_each_other_network_and_no_more() {
        let mut turns = Turns::default();
        for id in 0..5 {
            turns.join(id, vec!["flood"]);
        }
        turns.join(10, vec!["good"]);
        turns.join(20, vec!["other"]);
        assert_eq!(turns.first(), Some(0));
        assert_eq!(drain(&mut turns), [0, 10, 20, 1, 2, 3, 4]);
        assert!(turns.ring.order.is_empty() && turns.ring.members.is_empty());
    }

    #[test]
    fn within_a_wide_network_its_parts_take_turns() {
        let mut turns = Turns::default();
        for (id, path) in [
            (0, ["48", "a"]),
            (1, ["48", "a"]),
            (2, ["48", "a"]),
            (3, ["48", "b"]),
            (4, ["48", "b"]),
        ] {
            turns.join(id, path.to_vec());
        }
        turns.join(9, vec!["v4"]);
        assert_eq!(drain(&mut turns), [0, 9, 3, 1, 4, 2]);
    }

    #[test]
    fn who_leaves_is_not_called() {
        let mut turns = Turns::default();
        for id in 0..4 {
            turns.join(id, vec![if id % 2 == 0 { "even" } else { "odd" }]);
        }
        assert!(turns.remove(0) && !turns.remove(0));
        assert!(turns.remove(1));
        assert!(turns.remove(3));
        assert_eq!(drain(&mut turns), [2]);
    }
}
