//! The third and the fourth stage: handshakes under way, of which each keeps an SSL object. The third
//! one's have proven nothing; of the fourth one's, the binder of the ClientHello was verified, and only
//! the client's Finished is missing.

use tokio::time::Instant;

use super::Id;
use super::groups::Groups;
use super::network::Network;
use super::reputation::{GroupsByReputation, TurnsByReputation};
use crate::secrets::Identity;

/// The handshakes of all services without a `max-handshakes` of their own, or of one that has it, and
/// those who wait for a place there.
#[derive(Debug)]
pub(super) struct Handshakes {
    pub(super) limit: usize,
    pub(super) turns: TurnsByReputation<Network>,
    pub(super) unproven: GroupsByReputation<Network>,
    /// By identity: each has its own share, in which its own oldest goes first.
    pub(super) shown: Groups<Identity>,
}

/// Whether one more can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceVerdict {
    Free,
    /// It can, if this one is cut short.
    Evict(Id),
    /// Everybody is young.
    Later,
}

impl Handshakes {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            turns: TurnsByReputation::default(),
            unproven: GroupsByReputation::default(),
            shown: Groups::default(),
        }
    }

    /// For a handshake of that weight. One that is heavier than all there is takes all there is.
    pub(super) fn verdict(&mut self, weight: usize, now: Instant) -> PlaceVerdict {
        let used = self.unproven.weight() + self.shown.weight();
        if used == 0 || used + weight <= self.limit {
            return PlaceVerdict::Free;
        }
        self.unproven.ripen(now);
        self.shown.ripen(now);
        // Whoever has shown its binder goes last.
        let candidate = match self.unproven.is_empty() {
            // A network with one handshake does not go for the sake of one that has most of the places.
            false => {
                let share = self.limit / self.unproven.group_count().max(1);
                let fullest = self.unproven.fullest_ripe(share);
                fullest.or_else(|| self.unproven.fullest_ripe(0))
            }
            true => self.shown.fullest_ripe(),
        };
        candidate.map_or(PlaceVerdict::Later, |candidate| PlaceVerdict::Evict(candidate.id))
    }

    /// Whether there is a place for one more whose binder was verified, and who goes for it. At most half
    /// of all places are for these: whoever has a recorded ClientHello for each would have all of them.
    pub(super) fn verdict_for_shown(&mut self, now: Instant) -> PlaceVerdict {
        if self.shown.weight() < self.limit.div_ceil(2) {
            return PlaceVerdict::Free;
        }
        self.shown.ripen(now);
        self.shown
            .fullest_ripe()
            .map_or(PlaceVerdict::Later, |candidate| PlaceVerdict::Evict(candidate.id))
    }

    /// When there may be somebody to evict.
    pub(super) fn next_ripe(&self) -> Option<Instant> {
        match self.unproven.is_empty() {
            false => self.unproven.next_ripe(),
            true => self.shown.next_ripe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::reputation::Reputation;
    use super::*;

    fn who(name: &str) -> Identity {
        Identity::new(name.as_bytes())
    }

    #[test]
    fn the_fullest_networks_oldest_ripe_handshake_goes_and_the_young_ones_stay() {
        let now = Instant::now();
        let mut all = Handshakes::new(3);
        assert_eq!(all.verdict(9, now), PlaceVerdict::Free, "it would never begin");
        let later = now + Duration::from_secs(1);
        for (id, network) in [(1, 7), (2, 8), (3, 8)] {
            all.unproven.insert(Reputation::Clean, id, vec![Network::V4(network)], 1, later);
        }
        assert_eq!(all.verdict(1, now), PlaceVerdict::Later);
        assert_eq!(all.next_ripe(), Some(later));
        assert_eq!(all.verdict(1, later), PlaceVerdict::Evict(2));
    }

    #[test]
    fn who_has_shown_its_binder_goes_last_and_by_identity() {
        let now = Instant::now();
        let mut all = Handshakes::new(4);
        for (id, name) in [(1, "alice"), (2, "bob"), (3, "bob")] {
            all.shown.insert(id, vec![who(name)], 1, now);
        }
        all.unproven.insert(Reputation::Clean, 4, vec![Network::V4(1)], 1, now);
        assert_eq!(all.verdict(1, now), PlaceVerdict::Evict(4));
        all.unproven.remove(4);
        assert_eq!(all.verdict(2, now), PlaceVerdict::Evict(2), "bob's own oldest");
    }

    #[test]
    fn those_who_have_shown_their_binder_have_half_of_the_places() {
        let now = Instant::now();
        let mut all = Handshakes::new(4);
        let later = now + Duration::from_secs(1);
        all.shown.insert(1, vec![who("alice")], 1, later);
        assert_eq!(all.verdict_for_shown(now), PlaceVerdict::Free);
        all.shown.insert(2, vec![who("bob")], 1, later);
        assert_eq!(all.verdict_for_shown(now), PlaceVerdict::Later);
        assert_eq!(all.verdict_for_shown(later), PlaceVerdict::Evict(1));
    }
}
