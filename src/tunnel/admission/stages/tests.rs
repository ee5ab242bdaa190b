//! Who is evicted, and whose turn it is, with networks and times of the tests' own.
#![allow(clippy::unwrap_used)]

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

struct House {
    stages: Stages,
    pool: PoolId,
    now: Instant,
    signals: HashMap<Id, Arc<Signal>>,
}

impl House {
    fn new(connections: usize, handshakes: usize, turns: usize) -> Self {
        let mut stages = Stages::new(Bounds { connections, max_turns: turns });
        let pool = stages.add_pool(handshakes);
        Self { stages, pool, now: Instant::now(), signals: HashMap::new() }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.stages.give_turns(self.now);
    }

    /// As after a flood: nobody is believed to be one of a herd.
    fn in_a_flood(mut self) -> Self {
        (0..100).for_each(|_| self.stages.trend.note_departure());
        self
    }

    fn arrive(&mut self, network: u32) -> Option<Id> {
        let arrived = self.stages.arrive(vec![Network::V4(network)], SECOND, self.now);
        let (id, signal) = arrived.ok()?;
        self.signals.insert(id, signal);
        Some(id)
    }

    /// One that has said its ClientHello.
    fn hello(&mut self, network: u32) -> Id {
        let id = self.arrive(network).unwrap();
        self.stages.enqueue_for_turn(id, self.pool, 1, self.now);
        self.stages.give_turns(self.now);
        id
    }

    /// The same, whose first flight was answered.
    fn handshake(&mut self, network: u32) -> Id {
        let id = self.hello(network);
        self.end_first_flight(id);
        id
    }

    fn end_first_flight(&mut self, id: Id) {
        self.stages.end_first_flight(id);
        self.stages.give_turns(self.now);
    }

    fn leave(&mut self, id: Id) {
        self.stages.leave(id, self.now);
        self.stages.give_turns(self.now);
    }

    fn set_shown(&mut self, id: Id, who: &str, binder: u8) {
        self.stages.set_shown(id, Identity::new(who.as_bytes()), [binder; 32], self.now);
    }

    fn is_out(&self, id: Id) -> bool {
        self.signals[&id].is_evicted()
    }

    fn has_turn(&self, id: Id) -> bool {
        self.signals[&id].has_turn()
    }

    fn stage(&self, id: Id) -> Stage {
        self.stages.connections[&id].stage
    }

    /// Nothing is left behind by anybody.
    fn assert_empty(mut self) {
        for id in self.stages.connections.keys().copied().collect::<Vec<_>>() {
            self.leave(id);
        }
        let room = &self.stages.room;
        assert!(room.is_empty());
        assert_eq!((room.evicted_unclosed, self.stages.turns), (0, 0));
        let pool = &self.stages.pools[&self.pool];
        assert!(pool.unproven.is_empty() && pool.shown.is_empty() && pool.turns.first().is_none());
    }
}

#[test]
fn a_thousand_with_keys_from_one_address_all_get_their_turn_and_nobody_is_put_out() {
    let mut house = House::new(4096, 512, 4);
    let all: Vec<Id> = (0..1000).map(|_| house.hello(1)).collect();
    let mut open: Vec<Id> = Vec::new();
    for _ in 0..2000 {
        let ready = all.iter().copied().filter(|id| {
            house.has_turn(*id) && house.stages.connections.get(id).is_some_and(|c| c.has_turn)
        });
        let ready: Vec<Id> = ready.collect();
        assert!(ready.len() <= 4, "so many first flights at a time");
        for id in ready {
            house.end_first_flight(id);
            open.push(id);
        }
        house.pass(MS);
        // A round trip of 200 ms.
        if open.len() > 400 || all.iter().all(|id| house.has_turn(*id)) {
            for id in open.drain(..) {
                house.stages.set_proven(id, house.now);
                house.leave(id);
            }
        }
    }
    assert!(all.iter().all(|id| house.has_turn(*id) && !house.is_out(*id)));
    assert!(house.stages.connections.is_empty());
    house.assert_empty();
}

#[test]
fn silent_connections_put_out_each_other_and_not_the_one_from_elsewhere() {
    let mut house = House::new(100, 50, 4).in_a_flood();
    let good = house.arrive(7).unwrap();
    let flood: Vec<Id> = (0..300).map(|at| house_arrive(&mut house, at % 3)).collect();
    assert!(!house.is_out(good));
    let out = flood.iter().filter(|id| house.is_out(**id)).count();
    assert_eq!(out, 201, "there is room for 100");
    assert_eq!(house.stages.take_evicted(), 201);
    house.stages.enqueue_for_turn(good, house.pool, 1, house.now);
    house.pass(Duration::ZERO);
    assert!(house.has_turn(good));
    house.assert_empty();
}

/// Whoever was evicted is gone at once.
fn house_arrive(house: &mut House, network: u32) -> Id {
    loop {
        if let Some(id) = house.arrive(network) {
            return id;
        }
        let out: Vec<Id> = house.signals.keys().copied().filter(|id| house.is_out(*id)).collect();
        assert!(!out.is_empty(), "somebody has to go");
        for id in out {
            if house.stages.connections.contains_key(&id) {
                house.leave(id);
            }
        }
    }
}

#[test]
fn whole_hellos_from_many_networks_wait_by_turns() {
    let mut house = House::new(1000, 10, 4).in_a_flood();
    // Ten of 1.2 that never answer fill the places.
    let silent: Vec<Id> = (0..10).map(|network| house.handshake(network)).collect();
    let flood: Vec<Id> = (0..200).map(|at| house.hello(at % 10)).collect();
    let good = house.hello(99);
    assert!(!house.has_turn(flood[0]) && !house.has_turn(good), "everybody is young");
    house.pass(999 * MS);
    assert!(!house.has_turn(flood[0]));
    house.pass(MS);
    assert!(silent.iter().filter(|id| house.is_out(**id)).count() >= 4, "they are ripe");
    while let Some(id) = flood.iter().copied().find(|id| house.stages.connections[id].has_turn) {
        house.end_first_flight(id);
    }
    assert!(!house.has_turn(good), "ten networks were before it");
    house.pass(SECOND);
    assert!(house.has_turn(good));
    assert!(flood.iter().filter(|id| house.has_turn(**id)).count() <= 20);
    house.assert_empty();
}

#[test]
fn a_binder_that_was_verified_protects_and_one_that_is_replayed_does_not() {
    let mut house = House::new(100, 4, 9).in_a_flood();
    let shown = house.handshake(1);
    house.set_shown(shown, "alice", 1);
    assert_eq!(house.stage(shown), Stage::Shown);
    let replayed = house.handshake(1);
    house.set_shown(replayed, "alice", 1);
    assert_eq!(house.stage(replayed), Stage::Unproven);
    let others = [house.handshake(1), house.handshake(2)];
    house.pass(5 * SECOND);
    let next = house.hello(3);
    assert!(house.has_turn(next) && house.is_out(replayed), "the oldest unproven of network 1");
    assert!(!house.is_out(shown) && others.iter().all(|id| !house.is_out(*id)));
    // A minute after its end it can be believed again.
    house.leave(shown);
    house.leave(replayed);
    for (after, wanted) in [(59, Stage::Unproven), (62, Stage::Shown)] {
        house.pass(after * SECOND);
        let again = house.handshake(1);
        house.set_shown(again, "alice", 1);
        assert_eq!(house.stage(again), wanted);
        house.leave(again);
    }
    house.assert_empty();
}

#[test]
fn who_is_refused_may_read_why_as_long_as_nobody_needs_the_room() {
    let mut house = House::new(3, 2, 4).in_a_flood();
    let refused = house.handshake(1);
    house.stages.begin_linger(refused, house.now);
    let young = [house.arrive(2).unwrap(), house.arrive(3).unwrap()];
    assert!(!house.is_out(refused));
    let next = house.arrive(4);
    assert!(next.is_some() && house.is_out(refused) && young.iter().all(|id| !house.is_out(*id)));
    assert_eq!(house.stages.take_evicted(), 0, "it was told already");
    house.assert_empty();
}

#[test]
fn whoever_says_much_takes_the_room_of_several() {
    let mut house = House::new(10, 5, 4).in_a_flood();
    let good = house.arrive(1).unwrap();
    let talkers: Vec<Id> = (0..9).map(|_| house.arrive(2).unwrap()).collect();
    house.stages.set_room_weight(talkers[8], 4, house.now);
    assert_eq!(talkers.iter().filter(|id| house.is_out(**id)).count(), 3);
    assert!(!house.is_out(good) && !house.is_out(talkers[8]));
    house.assert_empty();
}

#[test]
fn a_large_hello_counts_as_several_handshakes_and_enters_all_the_same() {
    let mut house = House::new(100, 4, 9).in_a_flood();
    let small: Vec<Id> = (0..4).map(|_| house.handshake(1)).collect();
    let large = house.arrive(2).unwrap();
    house.stages.enqueue_for_turn(large, house.pool, 6, house.now);
    house.pass(SECOND);
    assert!(house.has_turn(large) && small.iter().all(|id| house.is_out(*id)));
    house.assert_empty();
}

#[test]
fn a_proxy_that_has_not_said_for_whom_has_no_share_of_its_own() {
    let mut house = House::new(4, 2, 4).in_a_flood();
    let of_proxy: Vec<Id> = (0..3)
        .map(|_| {
            let (id, signal) =
                house.stages.arrive(vec![Network::Unnamed], SECOND, house.now).ok().unwrap();
            house.signals.insert(id, signal);
            id
        })
        .collect();
    let one = house.arrive(1).unwrap();
    assert_eq!(house.arrive(2), None, "everybody is young");
    // Nor do they make anybody else's share smaller.
    house.stages.room.set_young(one, house.now);
    assert_eq!(house.arrive(2), None);
    for id in &of_proxy {
        house.stages.set_networks(*id, vec![Network::V4(66)], house.now);
    }
    assert!(house.arrive(2).is_some() && house.is_out(of_proxy[0]), "now they are one's");
    assert!(!house.is_out(one));
    house.assert_empty();
}

#[test]
fn a_service_with_places_of_its_own_keeps_nobody_elses() {
    let mut house = House::new(100, 50, 9).in_a_flood();
    let own = house.stages.add_pool(1);
    let wait = |house: &mut House| {
        let id = house.arrive(1).unwrap();
        house.stages.enqueue_for_turn(id, own, 1, house.now);
        house.pass(Duration::ZERO);
        house.end_first_flight(id);
        id
    };
    let (first, second) = (wait(&mut house), wait(&mut house));
    assert!(house.has_turn(first) && !house.has_turn(second));
    let elsewhere = house.hello(1);
    assert!(house.has_turn(elsewhere));
    house.stages.set_pool_limit(own, 2);
    house.pass(Duration::ZERO);
    assert!(house.has_turn(second));
    house.assert_empty();
}

#[test]
fn who_is_shed_for_want_of_descriptors_is_of_the_fullest_network() {
    let mut house = House::new(100, 50, 4);
    assert!(!house.stages.shed(house.now));
    let lone = house.arrive(1).unwrap();
    let many = [house.arrive(2).unwrap(), house.arrive(2).unwrap()];
    assert!(house.stages.shed(house.now));
    assert!(house.is_out(many[0]) && !house.is_out(many[1]) && !house.is_out(lone));
    house.assert_empty();
}

/// What a flood does is asked for each of its connections.
#[test]
fn ten_thousand_more_cost_hardly_more_than_a_thousand_each() {
    let each = |connections: usize| {
        let mut house = House::new(connections, connections / 2, 4).in_a_flood();
        for at in 0..connections as u32 {
            house.arrive(at % 5000).unwrap();
        }
        let start = std::time::Instant::now();
        for at in 0..2000 {
            house_arrive_one(&mut house, at);
            house.now += MS;
        }
        start.elapsed()
    };
    let (few, many) = (each(1000), each(16_000));
    assert!(many < 8 * few + Duration::from_millis(50), "{few:?} with 1,000, {many:?} with 16,000");
}

fn house_arrive_one(house: &mut House, network: u32) {
    if house.arrive(network).is_none() {
        house.now += 2 * SECOND;
        assert!(house.arrive(network).is_some());
    }
    // As if the sockets of those who were evicted were closed at once.
    house.stages.room.evicted_unclosed = 0;
}

#[test]
fn a_client_from_elsewhere_has_its_turn_before_networks_whose_handshakes_came_to_nothing() {
    let mut house = House::new(64, 8, 4).in_a_flood();
    // Strangers from forty addresses say a ClientHello and nothing more, more often than there are places.
    let mut network = 0;
    let mut strangers = |house: &mut House, count: u32| {
        for _ in 0..count {
            network = (network + 1) % 40;
            house.pass(10 * MS);
            if house.arrive(network).is_some_and(|id| {
                house.stages.enqueue_for_turn(id, house.pool, 1, house.now);
                true
            }) {
                house.stages.give_turns(house.now);
            }
            let turned: Vec<Id> = house.stages.connections.keys().copied().collect();
            for id in turned {
                house.stages.end_first_flight(id);
                if house.is_out(id) {
                    house.stages.leave(id, house.now);
                }
            }
        }
    };
    strangers(&mut house, 4000);
    let mut waited = Vec::new();
    for number in 0..20 {
        let good = house.hello(1000 + number);
        let mut turns = 0;
        while !house.has_turn(good) && !house.is_out(good) {
            strangers(&mut house, 1);
            turns += 1;
        }
        assert!(!house.is_out(good), "client {number}");
        house.stages.set_proven(good, house.now);
        house.leave(good);
        waited.push(turns);
    }
    // A place becomes free once a second at the latest.
    assert!(waited.iter().all(|turns| *turns <= 100), "{waited:?}");
}

#[test]
fn a_pool_of_its_own_has_its_turns_beside_a_crowd_in_the_shared_one() {
    let mut house = House::new(1000, 400, 1);
    let own = house.stages.add_pool(400);
    let crowd: Vec<Id> = (0..200).map(|network| house.hello(network)).collect();
    let good = house.arrive(999).unwrap();
    house.stages.enqueue_for_turn(good, own, 1, house.now);
    house.stages.give_turns(house.now);
    let mut before = 0;
    while !house.has_turn(good) {
        let working = crowd.iter().find(|id| {
            house.stages.connections.get(id).is_some_and(|connection| connection.has_turn)
        });
        house.end_first_flight(*working.unwrap());
        before += 1;
        assert!(before < 5, "one of the other pool at a time");
    }
}

#[test]
fn health_checks_that_come_and_go_do_not_turn_the_next_herd_into_a_flood() {
    let mut house = House::new(100, 50, 4);
    for network in 0..1000 {
        let check = house.arrive(network % 3).unwrap();
        house.leave(check);
    }
    assert!(house.stages.trend.is_herd());
}
