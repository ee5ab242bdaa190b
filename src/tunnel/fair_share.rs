//! The last slots of a service: kept for identities that hold few, so that the holder of one key cannot take
//! them all.

use crate::config::model::{Mode, ServiceConfig};

/// One slot in so many is kept.
const KEPT_FRACTION: usize = 10;
/// So many sessions an identity may hold and still take a slot that is kept, however many identities there
/// are: an IDE and its tools have two or three at a time.
const MIN_SHARE: usize = 4;

/// How slots are shared among identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FairShare {
    slots: usize,
    identities: usize,
}

impl FairShare {
    /// So many slots, for which so many identities compete. None where none is kept: for one identity alone,
    /// or where there are fewer than ten slots.
    pub(super) fn new(slots: usize, identities: usize) -> Option<Self> {
        (identities > 1 && slots >= KEPT_FRACTION).then_some(Self { slots, identities })
    }

    /// The slots that are there for any identity: as many as one key can take.
    pub(super) fn unreserved(self) -> usize {
        self.slots - self.slots / KEPT_FRACTION
    }

    /// How many sessions an identity may hold before the slots that are kept are closed to it.
    fn per_identity(self) -> usize {
        (self.slots / self.identities).max(MIN_SHARE)
    }

    /// Whether an identity that holds `held` sessions is refused a further one when `taken` slots are taken.
    pub(super) fn excludes(self, taken: usize, held: usize) -> bool {
        taken >= self.unreserved() && held >= self.per_identity()
    }
}

/// What the holder of one key can take of the sessions of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OneKey {
    /// So many sessions.
    pub most: usize,
    /// So many there are at all.
    pub of: usize,
    /// Whether the configuration limits the sessions of an identity.
    pub limited: bool,
}

impl OneKey {
    /// For a service with so many identities, whose own slots, or those that it shares with others, are so
    /// many for so many identities. None where there is nobody to be kept out: at a client end, and for one identity.
    pub fn of(config: &ServiceConfig, identities: usize, shared: (usize, usize)) -> Option<Self> {
        let (shared_seats, sharers) = shared;
        let own = config.limits.max_sessions.as_ref().map(|limit| limit.value as usize);
        let (of, competitors) = own.map_or((shared_seats, sharers), |own| (own, identities));
        if config.mode.value == Mode::Client || competitors < 2 {
            return None;
        }
        if let Some(limit) = &config.limits.per_identity {
            return Some(Self { most: of.min(limit.value as usize), of, limited: true });
        }
        let most = FairShare::new(of, competitors).map_or(of, FairShare::unreserved);
        Some(Self { most, of, limited: false })
    }
}

impl std::fmt::Display for OneKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { most, of, limited } = self;
        write!(f, "one key can take {most} of {of} sessions")?;
        match limited {
            true => f.write_str(" (max-sessions-per-identity)"),
            false if most < of => f.write_str(
                "; the last tenth is kept for identities with few sessions, and \
                 max-sessions-per-identity sets a limit",
            ),
            false => f.write_str("; max-sessions-per-identity sets a limit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_tenth_is_for_those_who_hold_less_than_their_part_or_less_than_four() {
        let share = FairShare::new(100, 10).unwrap();
        assert_eq!(share.unreserved(), 90);
        for (taken, held, out) in
            [(89, 89, false), (90, 10, true), (90, 9, false), (99, 9, false), (99, 10, true)]
        {
            assert_eq!(share.excludes(taken, held), out, "{taken} {held}");
        }
        let crowded = FairShare::new(100, 1000).unwrap();
        assert!(!crowded.excludes(99, 3) && crowded.excludes(90, 4));
    }

    #[test]
    fn nothing_is_kept_for_one_identity_or_of_a_handful_of_seats() {
        assert_eq!(FairShare::new(1000, 1), None);
        assert_eq!(FairShare::new(9, 5), None);
        // One session in all, as before an eRPC runtime.
        assert_eq!(FairShare::new(1, 2), None);
        assert_eq!(FairShare::new(10, 2).map(FairShare::unreserved), Some(9));
    }
}
