//! Strangers cannot fill the log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::event::{Event, Scope};

#[cfg(test)]
mod tests;

/// Lines of a burst that are all written: a person who tries a wrong key sees each attempt.
const BURST: u32 = 20;
/// After that one line in this time, and a count of what was withheld.
const REFILL: Duration = Duration::from_secs(1);

/// A budget of lines that strangers can cause.
#[derive(Debug)]
pub struct Limiter {
    burst: u32,
    refill: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: u32,
    refilled: Instant,
    withheld: u64,
    since: Instant,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(BURST, REFILL)
    }
}

impl Limiter {
    /// `burst` lines at once, and then one in `refill`.
    pub fn new(burst: u32, refill: Duration) -> Self {
        let now = Instant::now();
        let state = Mutex::new(State { tokens: burst, refilled: now, withheld: 0, since: now });
        Self { burst, refill, state }
    }

    /// Writes the line or counts it as withheld, if its level is logged at all.
    pub fn log(&self, event: &Event<'_>, scope: Scope<'_>) {
        if !event.is_wanted(scope) {
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
        report(owed);
        event.log(scope);
    }

    /// Says what was withheld since the last line, if anything was: called now and then, so that
    /// the count does not wait for the next stranger.
    pub fn settle(&self) {
        let owed = match self.state.lock() {
            Ok(mut state) => state.take_withheld(Instant::now()),
            Err(_) => None,
        };
        report(owed);
    }
}

impl State {
    fn take_withheld(&mut self, now: Instant) -> Option<(u64, Duration)> {
        let lines = std::mem::take(&mut self.withheld);
        (lines > 0).then(|| (lines, now - self.since))
    }
}

fn report(owed: Option<(u64, Duration)>) {
    if let Some((lines, within)) = owed {
        Event::Withheld { lines, within }.log(Scope::PROGRAM);
    }
}
