//! Admission of a session whose identity is known: a slot in the registry, a wait for one, or a refusal.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{BACKEND_CLOSE_TIMEOUT, Session};
use crate::config::model::WhenFull;
use crate::observe::event::Event;
use crate::secrets::Identity;
use crate::tunnel::resources::Capacity;
use crate::tunnel::roster::{Full, Limit, Member, Newcomer};
use crate::tunnel::setup::Setup;

/// How long a session waits for the one that is ended for it: as long as that one's backend may take to
/// close, and a moment more.
const EVICTION_TIMEOUT: Duration = BACKEND_CLOSE_TIMEOUT.saturating_add(Duration::from_millis(500));

impl Session {
    /// Registers the session, if need be in the place of another one that `when-full` gives up; or logs which
    /// limit is reached.
    pub(super) async fn admit(&self, setup: &Setup, wire: &Identity) -> Option<Member> {
        let roster = &self.service.roster;
        let who = setup.policies.who(wire);
        let newcomer = Newcomer { number: self.number, peer: &self.peer, who: &who, wire };
        let deadline = Instant::now() + EVICTION_TIMEOUT;
        let _queue_entry = roster.queue(self.number);
        let full = loop {
            let mut left = std::pin::pin!(roster.left());
            // From here on nobody's leaving is missed.
            left.as_mut().enable();
            let full = match self.try_register(setup, &newcomer) {
                Ok(member) => return Some(member),
                Err(full) => full,
            };
            let own_identity_only = match setup.policies.when_full {
                WhenFull::Refuse => break full,
                WhenFull::TakeOver => false,
                WhenFull::TakeOverOwn => true,
            };
            if !roster.make_way(&newcomer, full.limit, own_identity_only)
                || timeout_at(deadline, left).await.is_err()
            {
                break full;
            }
        };
        if let Some(member) = self.wait_for_slot(setup, &newcomer, full.limit).await {
            return Some(member);
        }
        let Full { limit, most } = full;
        self.log_stranger(&Event::Full { peer: &self.peer, who: &who, what: limit.words(), most });
        self.service.counters.refused("full");
        None
    }

    fn try_register(&self, setup: &Setup, newcomer: &Newcomer<'_>) -> Result<Member, Full> {
        let (shares, seats) = self.service.shares(setup, newcomer.wire);
        let seat = || seats.take().ok_or_else(|| seats.limit());
        self.service.roster.admit(newcomer, shares, seat)
    }

    /// Where all services together have no slot left, waits for one that is given back soon. A limit that the
    /// configuration sets is not waited for.
    async fn wait_for_slot(
        &self,
        setup: &Setup,
        newcomer: &Newcomer<'_>,
        limit: Limit,
    ) -> Option<Member> {
        let Capacity { seats, own, .. } = self.service.capacity();
        if own.is_some() || !matches!(limit, Limit::Service | Limit::Unreserved) {
            return None;
        }
        // Boxed: few come to this.
        let queue = seats.queue()?;
        Box::pin(queue.seat(|| self.try_register(setup, newcomer).ok())).await
    }
}
