//! The four stages in one table: who is in which, and what one who comes, moves on or leaves means for
//! the others. Nothing here waits, reads a clock or touches a socket.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::arrivals::{ArrivalRoom, RoomVerdict};
use super::handshakes::{Handshakes, PlaceVerdict};
use super::network::Network;
use super::replays::Replays;
use super::reputation::{Failures, Reputation};
use super::signal::Signal;
use super::trend::HerdDetector;
use super::{Id, PoolId};
use crate::secrets::Identity;
use crate::tls::Binder;

/// What there is room for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections without a slot, in all stages.
    pub(super) connections: usize,
    /// Handshakes whose first flight is worked on at the same time. More would make everybody wait who
    /// needs the processor, sessions too.
    pub(super) max_turns: usize,
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its ClientHello is not whole yet.
    Arrived,
    /// It is, and its turn has not come.
    Waiting,
    /// In its handshake.
    Unproven,
    /// The same, and the binder of its ClientHello was verified.
    Shown,
    /// Its key is proven: it waits for a slot at most.
    Proven,
    /// Refused; it may read why.
    Lingering,
    /// Somebody else needs its place.
    Evicted,
}

#[derive(Debug)]
struct Connection {
    stage: Stage,
    networks: Vec<Network>,
    /// That of its network when it came.
    reputation: Reputation,
    arrived: Instant,
    /// How long it is protected in each stage.
    protection: Duration,
    /// How much of the room it takes, and of the places of handshakes.
    room_weight: usize,
    pool: Option<(PoolId, usize)>,
    /// Its first flight is worked on.
    has_turn: bool,
    binder: Option<Binder>,
    signal: Arc<Signal>,
}

#[derive(Debug)]
pub(super) struct Stages {
    bounds: Bounds,
    room: ArrivalRoom,
    pools: BTreeMap<PoolId, Handshakes>,
    connections: HashMap<Id, Connection>,
    replays: Replays,
    failures: Failures,
    trend: HerdDetector,
    /// How many have a turn.
    turns: usize,
    next_id: Id,
    next_pool: PoolId,
    /// The pool that had the last turn.
    last_pool: PoolId,
    /// How many were evicted and not reported yet.
    unreported_evictions: u64,
}

impl Stages {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            room: ArrivalRoom::new(bounds.connections),
            pools: BTreeMap::new(),
            connections: HashMap::new(),
            replays: Replays::default(),
            failures: Failures::default(),
            trend: HerdDetector::default(),
            turns: 0,
            next_id: 0,
            next_pool: 0,
            last_pool: 0,
            unreported_evictions: 0,
        }
    }

    /// Half of the room at most is for handshakes, or nobody could arrive any more.
    pub(super) fn add_pool(&mut self, limit: usize) -> PoolId {
        let id = self.next_pool;
        self.next_pool += 1;
        self.pools.insert(id, Handshakes::new(0));
        self.set_pool_limit(id, limit);
        id
    }

    pub(super) fn set_pool_limit(&mut self, id: PoolId, limit: usize) {
        let most = self.bounds.connections.div_ceil(2);
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.limit = limit.clamp(1, most.max(1));
        }
    }

    /// Nobody is in there any more: each of its connections keeps it.
    pub(super) fn remove_pool(&mut self, id: PoolId) {
        self.pools.remove(&id);
    }

    /// A connection from there, none of whose bytes were read. An error says when to ask again; if
    /// somebody leaves before, then.
    pub(super) fn arrive(
        &mut self,
        networks: Vec<Network>,
        protection: Duration,
        now: Instant,
    ) -> Result<(Id, Arc<Signal>), Instant> {
        loop {
            match self.room.verdict(now, &self.trend) {
                RoomVerdict::Free => break,
                RoomVerdict::Evict(id) => self.evict(id, now),
                RoomVerdict::Wait(until) => return Err(until),
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        let reputation = self.failures.reputation(&networks, now);
        let protection = reputation.protection(protection);
        self.room.enter(reputation, id, &networks, 1, now + protection);
        let signal = Arc::<Signal>::default();
        let connection = Connection {
            stage: Stage::Arrived,
            networks,
            reputation,
            arrived: now,
            protection,
            room_weight: 1,
            pool: None,
            has_turn: false,
            binder: None,
            signal: signal.clone(),
        };
        self.connections.insert(id, connection);
        Ok((id, signal))
    }

    /// Puts out one of the fullest network, because the system has no more descriptors than there are
    /// connections. Whether there was anybody.
    pub(super) fn shed(&mut self, now: Instant) -> bool {
        let someone = self.room.any_victim(now);
        if let Some(id) = someone {
            self.evict(id, now);
        }
        someone.is_some()
    }

    /// A proxy has said for whom it connects.
    pub(super) fn set_networks(&mut self, id: Id, networks: Vec<Network>, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.stage == Stage::Arrived {
            connection.reputation = self.failures.reputation(&networks, now);
            connection.protection = connection.reputation.protection(connection.protection);
            let until = now + connection.protection;
            self.room.leave(id);
            self.room.enter(connection.reputation, id, &networks, connection.room_weight, until);
            (connection.networks, connection.arrived) = (networks, now);
        }
    }

    /// Nobody puts it out any more: it has nothing to prove.
    pub(super) fn exempt(&mut self, id: Id) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.stage == Stage::Arrived {
            connection.stage = Stage::Proven;
            self.room.leave(id);
            self.room.in_handshake += 1;
        }
    }

    /// How much of the room an arrival takes now.
    pub(super) fn set_room_weight(&mut self, id: Id, weight: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.stage != Stage::Arrived || connection.room_weight == weight {
            return;
        }
        connection.room_weight = weight;
        self.room.set_weight(id, weight);
        while self.room.is_overfull()
            && let Some(id) = self.room.any_victim(now)
        {
            self.evict(id, now);
        }
    }

    /// Its first bytes are there. It waits for its turn in that pool, where its handshake will have that
    /// weight.
    pub(super) fn enqueue_for_turn(&mut self, id: Id, pool: PoolId, weight: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(handshakes) = self.pools.get_mut(&pool) else { return };
        if connection.stage != Stage::Arrived {
            return;
        }
        connection.stage = Stage::Waiting;
        connection.pool = Some((pool, weight.min(handshakes.limit)));
        self.room.set_young(id, now + self.trend.protection(connection.protection));
        handshakes.turns.join(connection.reputation, id, connection.networks.clone());
    }

    /// Gives turns as long as there are places and turns. Says when to ask again, if somebody waits for a
    /// place whose owner is young.
    pub(super) fn give_turns(&mut self, now: Instant) -> Option<Instant> {
        let mut pools: Vec<PoolId> = self.pools.keys().copied().collect();
        // Where one turn becomes free at a time, the first pool would have them all.
        if let Some(next) = pools.iter().position(|pool| *pool > self.last_pool) {
            pools.rotate_left(next);
        }
        let mut later: Option<Instant> = None;
        loop {
            let mut progress = false;
            for pool in &pools {
                match self.give_turn(*pool, now) {
                    Some(Ok(())) => progress = true,
                    Some(Err(until)) => later = Some(later.map_or(until, |other| other.min(until))),
                    None => {}
                }
            }
            if !progress {
                return later;
            }
        }
    }

    /// One turn of one pool. Nothing if nobody waits there or all turns are given; an error says when
    /// there may be a place.
    fn give_turn(&mut self, pool: PoolId, now: Instant) -> Option<Result<(), Instant>> {
        if self.turns >= self.bounds.max_turns {
            return None;
        }
        let (id, weight) = loop {
            let handshakes = self.pools.get_mut(&pool)?;
            let id = handshakes.turns.first()?;
            let (_, weight) = self.connections.get(&id)?.pool?;
            match handshakes.verdict(weight, now) {
                PlaceVerdict::Free => break (id, weight),
                PlaceVerdict::Evict(other) => self.evict(other, now),
                PlaceVerdict::Later => return handshakes.next_ripe().map(Err),
            }
        };
        let handshakes = self.pools.get_mut(&pool)?;
        let connection = self.connections.get_mut(&id)?;
        handshakes.turns.take_first();
        self.room.leave(id);
        self.room.in_handshake += 1;
        let young_until = now + self.trend.protection(connection.protection);
        handshakes.unproven.insert(
            connection.reputation,
            id,
            connection.networks.clone(),
            weight,
            young_until,
        );
        (connection.stage, connection.has_turn) = (Stage::Unproven, true);
        self.turns += 1;
        self.last_pool = pool;
        connection.signal.give_turn();
        Some(Ok(()))
    }

    /// Its first flight has been worked on.
    pub(super) fn end_first_flight(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(&id)
            && std::mem::take(&mut connection.has_turn)
        {
            self.turns -= 1;
        }
    }

    /// It has to begin once more with a ClientHello, which may be as long as it likes.
    pub(super) fn set_handshake_weight(&mut self, id: Id, weight: usize) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.stage == Stage::Unproven
            && let Some((pool, own)) = &mut connection.pool
            && let Some(handshakes) = self.pools.get_mut(pool)
        {
            *own = weight.min(handshakes.limit);
            handshakes.unproven.set_weight(id, *own);
        }
    }

    /// The binder of its ClientHello was verified, with the key of that identity.
    pub(super) fn set_shown(&mut self, id: Id, who: Identity, binder: Binder, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some((pool, weight)) = connection.pool else { return };
        if connection.stage != Stage::Unproven || connection.binder.is_some() {
            return;
        }
        connection.binder = Some(binder);
        let protection = connection.protection;
        let Some(handshakes) = self.pools.get_mut(&pool) else { return };
        if !self.replays.begin(binder, now) {
            return;
        }
        match handshakes.verdict_for_shown(now) {
            PlaceVerdict::Free => {}
            PlaceVerdict::Evict(other) => self.evict(other, now),
            PlaceVerdict::Later => return,
        }
        let until = now + self.trend.protection(protection);
        if let Some(handshakes) = self.pools.get_mut(&pool)
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.stage = Stage::Shown;
            handshakes.unproven.remove(id);
            handshakes.shown.insert(id, vec![who], weight, until);
        }
    }

    /// Its key is proven: nobody puts it out any more.
    pub(super) fn set_proven(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if matches!(connection.stage, Stage::Unproven | Stage::Shown) {
            connection.stage = Stage::Proven;
            self.trend.note_proof(now);
            self.failures.clear(&connection.networks, now);
            self.leave_pool(id, now);
        }
    }

    /// It was refused, and may read why; whoever needs the place puts it out at once.
    pub(super) fn begin_linger(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if matches!(connection.stage, Stage::Unproven | Stage::Shown) {
            connection.stage = Stage::Lingering;
            self.room.in_handshake -= 1;
            self.room.enter(connection.reputation, id, &connection.networks, 1, now);
            self.trend.note_departure();
            if !self.trend.is_herd() {
                self.failures.note(&connection.networks, now);
            }
            self.leave_pool(id, now);
        }
    }

    /// Its socket is closed, or belongs to a session from now on.
    pub(super) fn leave(&mut self, id: Id, now: Instant) {
        self.leave_pool(id, now);
        let Some(connection) = self.connections.remove(&id) else { return };
        let was_full = self.room.is_full();
        match connection.stage {
            Stage::Arrived | Stage::Waiting | Stage::Lingering => {
                self.room.leave(id);
            }
            Stage::Unproven | Stage::Shown => {
                self.room.in_handshake -= 1;
                if !self.trend.is_herd() {
                    self.failures.note(&connection.networks, now);
                }
            }
            Stage::Proven => self.room.in_handshake -= 1,
            Stage::Evicted => self.room.evicted_unclosed -= 1,
        }
        // Health checks connect and leave all day. They say nothing of a crowd that fills the room.
        let is_departure = match connection.stage {
            Stage::Arrived => was_full,
            Stage::Waiting | Stage::Unproven | Stage::Shown => true,
            Stage::Proven | Stage::Lingering | Stage::Evicted => false,
        };
        if is_departure {
            self.trend.note_departure();
        }
    }

    pub(super) fn evict(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let before = std::mem::replace(&mut connection.stage, Stage::Evicted);
        connection.signal.evict();
        // One that had no time yet to say who it is has not failed.
        let had_its_time = match before {
            Stage::Arrived => now >= connection.arrived + connection.protection,
            Stage::Waiting | Stage::Unproven | Stage::Shown => true,
            Stage::Proven | Stage::Lingering | Stage::Evicted => false,
        };
        if had_its_time && !self.trend.is_herd() {
            self.failures.note(&connection.networks, now);
        }
        match before {
            Stage::Arrived | Stage::Waiting | Stage::Lingering => {
                self.room.leave(id);
            }
            Stage::Unproven | Stage::Shown | Stage::Proven => self.room.in_handshake -= 1,
            Stage::Evicted => return,
        }
        self.room.evicted_unclosed += 1;
        if before != Stage::Lingering {
            self.unreported_evictions += 1;
            self.trend.note_departure();
        }
        self.leave_pool(id, now);
    }

    /// Gives back what it has of its pool: a place in the queue or in a handshake, and a turn.
    fn leave_pool(&mut self, id: Id, now: Instant) {
        self.end_first_flight(id);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Some((pool, _)) = connection.pool.take()
            && let Some(handshakes) = self.pools.get_mut(&pool)
        {
            handshakes.turns.remove(id);
            handshakes.unproven.remove(id);
            handshakes.shown.remove(id);
        }
        if let Some(binder) = connection.binder.take() {
            self.replays.end(&binder, now);
        }
    }

    /// How many were evicted since this was asked last.
    pub(super) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.unreported_evictions)
    }
}

#[cfg(test)]
mod tests;
