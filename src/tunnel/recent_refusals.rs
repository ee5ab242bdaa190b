//! The last connections of a service that became no session: from where, as whom, and why.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::net::Peer;
use crate::secrets::Identity;

/// How many are kept. Connections that differ in nothing but their port and time are one of them.
const MAX_REFUSALS: usize = 50;

/// How long a flood of strangers does not push out one whose identity is known.
const PROTECTED_TIME: Duration = Duration::from_secs(60 * 60);

/// A connection that was refused, and those like it.
#[derive(Debug, Clone)]
pub struct RecentRefusal {
    /// When the last of them was.
    pub time: jiff::Timestamp,
    /// Who connected, the last time.
    pub peer: Peer,
    /// Whose key it was about. Only a name that is in the key files: never what a stranger calls himself.
    pub identity: Option<Identity>,
    /// A name of [`crate::observe::metrics::REFUSAL_CAUSES`], or of the end that came before it was a session.
    pub cause: &'static str,
    /// How often it has happened.
    pub count: u64,
}

/// The last of them, the newest at the end.
#[derive(Debug, Default)]
pub(super) struct RecentRefusals(Mutex<VecDeque<(Instant, RecentRefusal)>>);

impl RecentRefusals {
    pub(super) fn record(&self, peer: &Peer, identity: Option<Identity>, cause: &'static str) {
        self.record_at(Instant::now(), peer, identity, cause);
    }

    fn record_at(
        &self,
        now: Instant,
        peer: &Peer,
        identity: Option<Identity>,
        cause: &'static str,
    ) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_like = |(_, one): &(Instant, RecentRefusal)| {
            let is_same_peer = one.peer.ip() == peer.ip();
            is_same_peer && one.cause == cause && one.identity == identity
        };
        let like = all.iter().position(is_like).and_then(|at| all.remove(at));
        let count = like.map_or(1, |(_, like)| like.count.saturating_add(1));
        if all.len() >= MAX_REFUSALS {
            // A flood of strangers from many addresses pushes out strangers before the one whose key is wrong.
            let goes_first = |(last, one): &(Instant, RecentRefusal)| {
                one.identity.is_none() || now.duration_since(*last) > PROTECTED_TIME
            };
            let oldest = all.iter().position(goes_first).unwrap_or(0);
            all.remove(oldest);
        }
        let (time, peer) = (jiff::Timestamp::now(), peer.clone());
        all.push_back((now, RecentRefusal { time, peer, identity, cause, count }));
    }

    /// The newest first.
    pub(super) fn read(&self) -> Vec<RecentRefusal> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().rev().map(|(_, one)| one.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    fn peer(number: u32, port: u16) -> Peer {
        Peer::Tcp(SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 + number), port)))
    }

    #[test]
    fn what_differs_in_its_port_alone_is_one_and_the_newest_is_first() {
        let recent = RecentRefusals::default();
        recent.record(&peer(1, 1000), None, "unknown-identity");
        recent.record(&peer(2, 1000), None, "unknown-identity");
        recent.record(&peer(1, 1001), None, "unknown-identity");
        recent.record(&peer(1, 1002), None, "no-psk");
        let read = recent.read();
        let seen: Vec<_> =
            read.iter().map(|one| (one.peer.to_string(), one.cause, one.count)).collect();
        let expected = [
            ("10.0.0.1:1002".to_owned(), "no-psk", 1),
            ("10.0.0.1:1001".to_owned(), "unknown-identity", 2),
            ("10.0.0.2:1000".to_owned(), "unknown-identity", 1),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_flood_from_many_addresses_takes_a_bounded_place_and_leaves_whose_key_is_wrong() {
        let recent = RecentRefusals::default();
        let member = Identity::new(b"member");
        recent.record(&peer(0, 1), Some(member.clone()), "wrong-key");
        for number in 1..2000 {
            recent.record(&peer(number, 1), None, "unknown-identity");
        }
        let read = recent.read();
        assert_eq!(read.len(), MAX_REFUSALS);
        assert_eq!(read.last().and_then(|one| one.identity.clone()), Some(member));
        assert_eq!(read[0].peer, peer(1999, 1));
    }

    #[test]
    fn whose_key_was_wrong_an_hour_ago_is_pushed_out_as_everybody_is() {
        let recent = RecentRefusals::default();
        let (start, member) = (Instant::now(), Identity::new(b"member"));
        recent.record_at(start, &peer(0, 1), Some(member.clone()), "wrong-key");
        for number in 1..=MAX_REFUSALS as u32 {
            let now = start + PROTECTED_TIME + Duration::from_secs(1);
            recent.record_at(now, &peer(number, 1), None, "unknown-identity");
        }
        assert!(recent.read().iter().all(|one| one.identity.is_none()));
    }
}
