//! Limits the rate of log lines that any peer can cause.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::event::{Event, LogContext};

#[cfg(test)]
mod tests;

/// Lines of a burst that are all written: a person who tries a wrong key sees each attempt.
const BURST_LINES: u32 = 20;
/// After that one line in this time, and a count of what was withheld.
const REFILL_INTERVAL: Duration = Duration::from_secs(1);

/// Limits the rate of lines that any peer can cause, and counts what was withheld.
#[derive(Debug)]
pub struct LogRateLimiter {
    burst: u32,
    refill: Duration,
    state: Mutex<TokenBucket>,
}

#[derive(Debug)]
struct TokenBucket {
    tokens: u32,
    refilled: Instant,
    withheld: u64,
    since: Instant,
}

impl Default for LogRateLimiter {
    fn default() -> Self {
        Self::new(BURST_LINES, REFILL_INTERVAL)
    }
}

impl LogRateLimiter {
    /// `burst` lines at once, and then one in `refill`.
    pub fn new(burst: u32, refill: Duration) -> Self {
        let now = Instant::now();
        let state =
            Mutex::new(TokenBucket { tokens: burst, refilled: now, withheld: 0, since: now });
        Self { burst, refill, state }
    }

    /// Writes the line or counts it as withheld, if its level is logged at all.
    pub fn log(&self, event: &Event<'_>, context: LogContext<'_>) {
        if !event.is_wanted(context) {
            return;
        }
        let owed = {
            let Ok(mut state) = self.state.lock() else { return };
            let now = Instant::now();
            let earned = (now - state.refilled).as_secs_f64() / self.refill.as_secs_f64();
            if earned >= 1.0 {
                state.tokens = self.burst.min(state.tokens.saturating_add(earned as u32));
                state.refilled = now;
            }
            if state.tokens == 0 {
                if state.withheld == 0 {
                    state.since = now;
                }
                state.withheld += 1;
                return;
            }
            state.tokens -= 1;
            state.take_withheld(now)
        };
        log_withheld(owed);
        event.log(context);
    }

    /// Logs how many lines were withheld since the last one, if any. Called at intervals, so that the count does
    /// not wait for the next line.
    pub fn report_withheld(&self) {
        let owed = match self.state.lock() {
            Ok(mut state) => state.take_withheld(Instant::now()),
            Err(_) => None,
        };
        log_withheld(owed);
    }
}

impl TokenBucket {
    fn take_withheld(&mut self, now: Instant) -> Option<(u64, Duration)> {
        let lines = std::mem::take(&mut self.withheld);
        (lines > 0).then(|| (lines, now - self.since))
    }
}

fn log_withheld(owed: Option<(u64, Duration)>) {
    if let Some((lines, within)) = owed {
        Event::Withheld { lines, within }.log(LogContext::PROGRAM);
    }
}
