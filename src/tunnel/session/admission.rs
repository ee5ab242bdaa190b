//! Admission of a session whose identity is known: a slot in the registry, a wait for one, or a refusal.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::liveness::{CHALLENGE_TIMEOUT, can_challenge};
use super::{BACKEND_CLOSE_TIMEOUT, Session};
use crate::config::model::WhenFull;
use crate::observe::event::Event;
use crate::secrets::Identity;
use crate::tunnel::registry::{Candidate, Evictable, LimitReached, Registration, SessionLimit};
use crate::tunnel::resources::Capacity;
use crate::tunnel::snapshot::ServiceSnapshot;

/// How long a session waits for the one that is ended for it: as long as that one's backend may take to
/// close, and a moment more.
const EVICTION_TIMEOUT: Duration = BACKEND_CLOSE_TIMEOUT.saturating_add(Duration::from_millis(500));

impl Session {
    /// Registers the session, if need be in the place of another one that `when-full` gives up; or logs which
    /// limit is reached.
    pub(super) async fn admit(
        &self,
        snapshot: &ServiceSnapshot,
        wire: &Identity,
    ) -> Option<Registration> {
        let registry = &self.service.registry;
        let who = snapshot.policies.who(wire);
        let candidate = Candidate { number: self.number, peer: &self.peer, who: &who, wire };
        let mut deadline = Instant::now() + EVICTION_TIMEOUT;
        let mut has_challenged = false;
        let _queue_entry = registry.enqueue(self.number);
        let full = loop {
            let mut left = std::pin::pin!(registry.session_left());
            // From here on nobody's leaving is missed.
            left.as_mut().enable();
            let full = match self.try_register(snapshot, &candidate) {
                Ok(registration) => return Some(registration),
                Err(full) => full,
            };
            let evictable = match snapshot.policies.when_full {
                WhenFull::Refuse => break full,
                WhenFull::TakeOver => Evictable::Any,
                WhenFull::TakeOverOwn => Evictable::OwnIdentity,
                WhenFull::TakeOverSameHost => Evictable::OwnIdentityAndSource,
            };
            if !registry.evict_for(&candidate, full.limit, evictable) {
                let may_challenge = evictable == Evictable::OwnIdentityAndSource && can_challenge();
                if has_challenged {
                    // Its own place may still be on its way; a peer that has answered stays.
                    if registry.is_decided(self.number) && !registry.is_promised(self.number) {
                        break full;
                    }
                } else if may_challenge && registry.challenge(&candidate) {
                    has_challenged = true;
                    deadline = Instant::now() + CHALLENGE_TIMEOUT;
                } else {
                    break full;
                }
            }
            if timeout_at(deadline, left).await.is_err() {
                break full;
            }
        };
        if let Some(registration) = self.wait_for_slot(snapshot, &candidate, full.limit).await {
            return Some(registration);
        }
        let LimitReached { limit, most } = full;
        self.log_stranger(&Event::Full {
            peer: &self.peer,
            who: &who,
            what: &limit.words(most),
            most,
        });
        self.refused("full", Some(wire.as_bytes()));
        None
    }

    fn try_register(
        &self,
        snapshot: &ServiceSnapshot,
        candidate: &Candidate<'_>,
    ) -> Result<Registration, LimitReached> {
        let (limits, slots) = self.service.session_limits(snapshot, candidate.wire);
        let slot = || slots.take().ok_or_else(|| slots.limit());
        self.service.registry.admit(candidate, limits, slot)
    }

    /// Where all services together have no slot left, waits for one that is given back soon. A limit that the
    /// configuration sets is not waited for.
    async fn wait_for_slot(
        &self,
        snapshot: &ServiceSnapshot,
        candidate: &Candidate<'_>,
        limit: SessionLimit,
    ) -> Option<Registration> {
        let Capacity { slots, service_limit, .. } = self.service.capacity();
        if service_limit.is_some()
            || !matches!(limit, SessionLimit::Service | SessionLimit::Unreserved)
        {
            return None;
        }
        // Boxed: few come to this.
        let queue = slots.queue()?;
        Box::pin(queue.slot(|| self.try_register(snapshot, candidate).ok())).await
    }
}
