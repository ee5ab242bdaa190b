//! The passing of time, for what happens also while nobody connects: keys expire, and ticket keys are
//! replaced.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::{Running, warn};
use crate::config::diagnostic::Report;

/// How often it is looked whether the time of a key or of ticket keys is over. By the clock on the wall for
/// the former: a timer would miss that this one was set.
const TICK: Duration = Duration::from_secs(15);
/// How often it is warned of keys whose time is nearly over.
const DAY: Duration = Duration::from_secs(86_400);

/// The passing of time, for what depends on the date.
pub(super) struct Hours {
    tick: Interval,
    warned: Instant,
}

impl Hours {
    pub(super) fn new() -> Self {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What there is to warn of at the start has been said.
        Self { tick, warned: Instant::now() }
    }

    /// Returns every tick; true once a day.
    pub(super) async fn pass(&mut self) -> bool {
        self.tick.tick().await;
        let day = self.warned.elapsed() >= DAY;
        if day {
            self.warned = Instant::now();
        }
        day
    }
}

impl Running {
    pub(super) fn keep_time(&self, day: bool) {
        let now = std::time::Instant::now();
        for service in self.services() {
            service.recheck_policies();
            service.snapshot().rotate_ticket_keys(now);
            if day {
                let diagnostics = service.snapshot().warnings();
                warn(&Report { diagnostics, ..Report::default() });
            }
        }
    }
}
