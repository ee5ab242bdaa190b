//! The first stage: connections whose ClientHello is not whole yet, and the room that they share with the
//! second one, of descriptors and memory. And who has to leave it when it is full.

use std::time::Duration;

use tokio::time::Instant;

use super::Id;
use super::groups::Groups;
use super::network::Network;
use super::reputation::{GroupsByReputation, Reputation};
use super::trend::HerdDetector;

/// Nobody has to leave an arrival's place before: the first bytes of a client with a round trip of 300 ms
/// are there three times over.
const MIN_PROTECTION: Duration = Duration::from_secs(1);
/// Nor is anybody protected for longer, however long its round trip is: whoever delays its own
/// acknowledgements chooses what is measured.
const MAX_PROTECTION: Duration = Duration::from_secs(2);
const PROTECTED_ROUND_TRIPS: u32 = 3;

/// How long accepting pauses for a crowd that is all young, before one of them goes. A crowd of clients
/// with keys has room for others by then.
const YOUNG_CROWD_PAUSE: Duration = Duration::from_millis(500);
/// The room was full without a break if it was full this often.
const FULL_GAP: Duration = Duration::from_secs(1);
/// Connections that were evicted and whose sockets are not closed yet: more than these are waited for.
const MAX_CLOSING: usize = 32;
/// How long that is waited for before anybody looks again; usually it is told earlier.
const CLOSING_POLL: Duration = Duration::from_millis(50);

/// How long a connection with that round trip is protected.
pub(super) fn protection(round_trip: Option<Duration>) -> Duration {
    let wanted = round_trip.unwrap_or_default().saturating_mul(PROTECTED_ROUND_TRIPS);
    wanted.clamp(MIN_PROTECTION, MAX_PROTECTION)
}

/// The room of everybody who has no slot yet. Arrivals and those who wait for their turn can be evicted
/// of it; those in a handshake take up a part of it as well.
#[derive(Debug)]
pub(super) struct ArrivalRoom {
    limit: usize,
    groups: GroupsByReputation<Network>,
    /// Proxies' connections of which nobody knows yet for whom they are. They are no network, and make
    /// nobody else's share smaller.
    unnamed: Groups<Network>,
    /// Connections in a handshake, or that wait for a slot.
    pub(super) in_handshake: usize,
    /// Those that were evicted and are not closed yet.
    pub(super) evicted_unclosed: usize,
    /// Since when it has been full without a break, and when it was found so last.
    full: Option<(Instant, Instant)>,
}

/// Whether there is room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoomVerdict {
    Free,
    /// There is, if this one goes.
    Evict(Id),
    /// Nobody goes now. It may be otherwise at that moment, or when somebody has left.
    Wait(Instant),
}

impl ArrivalRoom {
    pub(super) fn new(limit: usize) -> Self {
        let (groups, unnamed) = (GroupsByReputation::default(), Groups::default());
        Self { limit, groups, unnamed, in_handshake: 0, evicted_unclosed: 0, full: None }
    }

    pub(super) fn enter(
        &mut self,
        reputation: Reputation,
        id: Id,
        networks: &[Network],
        weight: usize,
        young_until: Instant,
    ) {
        if networks == [Network::Unnamed] {
            self.unnamed.insert(id, networks.to_vec(), weight, young_until);
        } else {
            self.groups.insert(reputation, id, networks.to_vec(), weight, young_until);
        }
    }

    pub(super) fn leave(&mut self, id: Id) {
        let _ = self.groups.remove(id) || self.unnamed.remove(id);
    }

    pub(super) fn set_weight(&mut self, id: Id, weight: usize) {
        self.groups.set_weight(id, weight);
        self.unnamed.set_weight(id, weight);
    }

    /// It is young until then once more.
    pub(super) fn set_young(&mut self, id: Id, until: Instant) {
        self.groups.set_young(id, until);
        self.unnamed.set_young(id, until);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.unnamed.is_empty() && self.taken() == 0
    }

    fn taken(&self) -> usize {
        self.groups.weight() + self.unnamed.weight() + self.in_handshake
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken() >= self.limit
    }

    /// Whether more is taken up than there is, because somebody said more than the others.
    pub(super) fn is_overfull(&self) -> bool {
        self.taken() > self.limit
    }

    /// For one more connection. Nobody is evicted by being asked about.
    pub(super) fn verdict(&mut self, now: Instant, trend: &HerdDetector) -> RoomVerdict {
        if self.evicted_unclosed >= MAX_CLOSING {
            return RoomVerdict::Wait(now + CLOSING_POLL);
        }
        if !self.is_full() {
            return RoomVerdict::Free;
        }
        self.ripen(now);
        let since = match self.full {
            Some((since, last)) if now.duration_since(last) <= FULL_GAP => since,
            _ => now,
        };
        self.full = Some((since, now));
        if let Some(id) = self.victim() {
            return RoomVerdict::Evict(id);
        }
        let next_ripe = [self.groups.next_ripe(), self.unnamed.next_ripe()];
        let next_ripe = next_ripe.into_iter().flatten().min().unwrap_or(now + MAX_PROTECTION);
        match self.groups.fullest(2) {
            Some(candidate) => {
                let progress = trend.last_proof().map_or(since, |proof| proof.max(since));
                let patience = progress + YOUNG_CROWD_PAUSE;
                if trend.is_herd() && now < patience {
                    RoomVerdict::Wait(patience.min(next_ripe))
                } else {
                    RoomVerdict::Evict(candidate.id)
                }
            }
            None => RoomVerdict::Wait(next_ripe),
        }
    }

    fn ripen(&mut self, now: Instant) {
        self.groups.ripen(now);
        self.unnamed.ripen(now);
    }

    /// The oldest ripe one of the fullest network, unless that network has less than its share.
    fn victim(&self) -> Option<Id> {
        let share = self.limit.saturating_sub(self.in_handshake) / self.groups.group_count().max(1);
        let candidate = self.groups.fullest_ripe(share);
        Some(candidate.or_else(|| self.unnamed.fullest_ripe())?.id)
    }

    /// One of the fullest network, however young.
    pub(super) fn any_victim(&mut self, now: Instant) -> Option<Id> {
        self.ripen(now);
        let any = self.victim();
        any.or_else(|| Some(self.groups.fullest(1).or_else(|| self.unnamed.fullest())?.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn room(limit: usize, now: Instant, list: &[(Id, u32, Duration)]) -> ArrivalRoom {
        let mut room = ArrivalRoom::new(limit);
        for (id, network, age) in list {
            let until = (now + MIN_PROTECTION).checked_sub(*age).unwrap_or(now);
            room.groups.insert(Reputation::Clean, *id, vec![Network::V4(*network)], 1, until);
        }
        room
    }

    fn flood() -> HerdDetector {
        let mut trend = HerdDetector::default();
        (0..100).for_each(|_| trend.note_departure());
        trend
    }

    #[test]
    fn a_round_trip_protects_for_three_of_it_within_limits() {
        let ms = Duration::from_millis;
        for (round_trip, wanted) in
            [(None, 1000), (Some(0), 1000), (Some(300), 1000), (Some(500), 1500), (Some(900), 2000)]
        {
            assert_eq!(protection(round_trip.map(ms)), ms(wanted));
        }
    }

    #[test]
    fn the_oldest_of_the_fullest_network_goes_and_a_network_with_its_share_loses_nobody() {
        let now = Instant::now();
        let mut room = room(4, now, &[(1, 1, 3 * SECOND), (2, 2, 2 * SECOND), (3, 2, SECOND)]);
        assert_eq!(room.verdict(now, &flood()), RoomVerdict::Free);
        room.groups.insert(Reputation::Clean, 4, vec![Network::V4(2)], 1, now);
        assert_eq!(room.verdict(now, &flood()), RoomVerdict::Evict(2), "1 is older, and alone");
    }

    #[test]
    fn a_lone_old_one_stays_while_a_young_network_has_more_than_its_share() {
        let now = Instant::now();
        let young = Duration::ZERO;
        let mut room =
            room(4, now, &[(1, 1, 9 * SECOND), (2, 2, young), (3, 2, young), (4, 2, young)]);
        assert_eq!(room.verdict(now, &flood()), RoomVerdict::Evict(2));
    }

    #[test]
    fn a_flood_puts_out_its_own_young_ones_and_a_herd_is_waited_for() {
        let now = Instant::now();
        let young = Duration::ZERO;
        let mut room = room(3, now, &[(1, 1, young), (2, 2, young), (3, 2, young)]);
        let mut herd = HerdDetector::default();
        assert_eq!(room.verdict(now, &herd), RoomVerdict::Wait(now + YOUNG_CROWD_PAUSE));
        let later = now + YOUNG_CROWD_PAUSE;
        assert_eq!(room.verdict(later, &herd), RoomVerdict::Evict(2), "nobody has proven anything");
        herd.note_proof(later);
        assert_eq!(room.verdict(later, &herd), RoomVerdict::Wait(now + MIN_PROTECTION));
        assert_eq!(room.verdict(now, &flood()), RoomVerdict::Evict(2));
    }

    #[test]
    fn accepting_pauses_when_every_network_has_one_young_place_and_then_the_oldest_goes() {
        let now = Instant::now();
        let young = Duration::ZERO;
        let mut room = room(3, now, &[(1, 1, young), (2, 2, young), (3, 3, young)]);
        let ripe = now + MIN_PROTECTION;
        assert_eq!(room.verdict(now, &flood()), RoomVerdict::Wait(ripe));
        assert_eq!(room.verdict(ripe, &flood()), RoomVerdict::Evict(1));
    }

    #[test]
    fn sockets_that_are_not_closed_yet_are_waited_for() {
        let now = Instant::now();
        let mut room = room(3, now, &[]);
        room.evicted_unclosed = MAX_CLOSING;
        assert_eq!(room.verdict(now, &flood()), RoomVerdict::Wait(now + CLOSING_POLL));
        room.evicted_unclosed -= 1;
        assert_eq!(room.verdict(now, &flood()), RoomVerdict::Free);
    }
}
