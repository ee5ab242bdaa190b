//! Who may enter: seats for sessions, and room for handshakes that strangers cannot fill up.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The sessions that a service may have at once. Survives every reload.
#[derive(Debug)]
pub(super) struct Seats {
    limit: AtomicUsize,
    taken: AtomicUsize,
}

impl Seats {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), taken: AtomicUsize::new(0) })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Open sessions keep their seats, also above a lower limit.
    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A seat, given back on drop; none when all are taken.
    pub(super) fn take(self: &Arc<Self>) -> Option<Seat> {
        let limit = self.limit();
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < limit).then_some(n + 1))
            .ok()
            .map(|_| Seat(self.clone()))
    }
}

#[derive(Debug)]
pub(super) struct Seat(Arc<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The handshakes that may be under way at once.
///
/// A newcomer always gets in: when all places are taken, the oldest handshake of the source with the
/// most of them is cut short. One that means it is done in a few round trips, long before it is the
/// oldest, so that silent or slow peers crowd out only each other, wherever they come from.
#[derive(Debug)]
pub(super) struct Handshakes {
    limit: AtomicUsize,
    room: Mutex<Room>,
}

#[derive(Debug, Default)]
struct Room {
    next: u64,
    /// By age: the first is the oldest.
    inside: BTreeMap<u64, (Source, Arc<Notify>)>,
    share: HashMap<Source, usize>,
}

/// An IPv4 address, an IPv6 /64 (what one host gets), or this machine's own Unix sockets.
pub(super) type Source = Option<IpAddr>;

pub(super) fn source(ip: Option<IpAddr>) -> Source {
    ip.map(|ip| match ip {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    })
}

impl Handshakes {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        let handshakes = Self { limit: AtomicUsize::new(limit.max(1)), room: Mutex::default() };
        Arc::new(handshakes)
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit.max(1), Ordering::Relaxed);
    }

    /// A place, given back on drop.
    pub(super) fn enter(self: &Arc<Self>, ip: Option<IpAddr>) -> Place {
        let source = source(ip);
        let crowded = Arc::new(Notify::new());
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        while room.inside.len() >= self.limit.load(Ordering::Relaxed) {
            room.evict();
        }
        let number = room.next;
        room.next += 1;
        room.inside.insert(number, (source, crowded.clone()));
        *room.share.entry(source).or_default() += 1;
        drop(room);
        Place { handshakes: self.clone(), number, crowded }
    }
}

impl Room {
    fn evict(&mut self) {
        let Some(most) = self.share.values().max().copied() else {
            return;
        };
        let oldest = self
            .inside
            .iter()
            .find(|(_, (source, _))| self.share.get(source) == Some(&most))
            .map(|(number, _)| *number);
        if let Some(number) = oldest
            && let Some((source, crowded)) = self.inside.remove(&number)
        {
            crowded.notify_one();
            self.leave(source);
        }
    }

    fn leave(&mut self, source: Source) {
        if let Some(count) = self.share.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.share.remove(&source);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Place {
    handshakes: Arc<Handshakes>,
    number: u64,
    crowded: Arc<Notify>,
}

impl Place {
    /// Returns when the place is needed for a newer handshake.
    pub(super) async fn crowded_out(&self) {
        self.crowded.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut room = self.handshakes.room.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((source, _)) = room.inside.remove(&self.number) {
            room.leave(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Option<IpAddr> {
        Some([127, 0, 0, last].into())
    }

    fn is_out(place: &Place) -> bool {
        let room = place.handshakes.room.lock().unwrap();
        !room.inside.contains_key(&place.number)
    }

    #[test]
    fn a_seat_comes_back() {
        let seats = Seats::new(2);
        let first = seats.take();
        let second = seats.take();
        assert!(first.is_some() && second.is_some() && seats.take().is_none());
        drop(first);
        assert!(seats.take().is_some());
    }

    #[test]
    fn a_limit_that_changes_counts_for_newcomers_only() {
        let seats = Seats::new(2);
        assert_eq!(seats.limit(), 2);
        let there: Vec<_> = (0..2).filter_map(|_| seats.take()).collect();
        seats.set_limit(1);
        assert_eq!((seats.limit(), there.len()), (1, 2));
        assert!(seats.take().is_none());
        seats.set_limit(3);
        assert!(seats.take().is_some());

        let handshakes = Handshakes::new(1);
        handshakes.set_limit(2);
        let two = [handshakes.enter(ip(1)), handshakes.enter(ip(1))];
        assert_eq!(two.each_ref().map(is_out), [false, false]);
        // None at all would keep everybody out.
        handshakes.set_limit(0);
        let last = handshakes.enter(ip(1));
        assert_eq!(two.each_ref().map(is_out), [true, true]);
        assert!(!is_out(&last));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_put_out_hears_of_it_and_nobody_else() {
        let handshakes = Handshakes::new(1);
        let first = handshakes.enter(ip(1));
        let waits = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(waits, first.crowded_out()).await.is_err());
        let second = handshakes.enter(ip(2));
        assert!(tokio::time::timeout(waits, first.crowded_out()).await.is_ok());
        assert!(tokio::time::timeout(waits, second.crowded_out()).await.is_err());
    }

    #[test]
    fn a_newcomer_puts_out_the_oldest_of_the_most_crowded_source() {
        let handshakes = Handshakes::new(4);
        let lone = handshakes.enter(ip(1));
        let many: Vec<_> = (0..3).map(|_| handshakes.enter(ip(2))).collect();
        let newcomer = handshakes.enter(ip(3));
        assert!(!is_out(&lone) && !is_out(&newcomer));
        assert_eq!(many.iter().map(is_out).collect::<Vec<_>>(), [true, false, false]);
        drop((lone, many, newcomer));
        let room = handshakes.room.lock().unwrap();
        assert!(room.inside.is_empty() && room.share.is_empty());
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let of = |text: &str| source(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }
}
