//! The passing of time, for what happens also while nobody connects: keys and kept sessions expire, and
//! ticket keys are replaced.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::{Running, warn};
use crate::config::diagnostic::Diagnostics;

/// How often it is looked whether the time of a key or of ticket keys is over. By the clock on the wall for
/// the former: a timer would miss that this one was set.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// How often it is warned of keys whose time is nearly over.
const WARNING_INTERVAL: Duration = Duration::from_secs(86_400);

/// The passing of time, for what depends on the date.
pub(super) struct ExpiryTimer {
    tick: Interval,
    warned: Instant,
}

impl ExpiryTimer {
    pub(super) fn new() -> Self {
        let mut tick = interval(CHECK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What there is to warn of at the start has been said.
        Self { tick, warned: Instant::now() }
    }

    /// Returns every tick; true once a day.
    pub(super) async fn tick(&mut self) -> bool {
        self.tick.tick().await;
        let is_warning_due = self.warned.elapsed() >= WARNING_INTERVAL;
        if is_warning_due {
            self.warned = Instant::now();
        }
        is_warning_due
    }
}

impl Running {
    pub(super) fn check_expiry(&self, is_warning_due: bool) {
        let now = std::time::Instant::now();
        for service in self.services() {
            service.recheck_policies();
            service.snapshot().expire_sessions(now);
            if is_warning_due {
                let diagnostics = service.snapshot().warnings();
                warn(&Diagnostics { diagnostics, ..Diagnostics::default() });
            }
        }
    }
}
