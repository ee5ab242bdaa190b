//! What the service manager hears: that this program serves, reloads or stops, how it is, and that it
//! lives (sd_notify(3)).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::sys::service_manager::{NotifySocket, monotonic_micros};

/// How often the words of `STATUS=` are looked at; what did not change is not said again.
const STATUS_INTERVAL: Duration = Duration::from_secs(3);
/// systemd's time for a stop (`DefaultTimeoutStopSec`); who needs more has to ask for it.
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// What a stop takes beside the sessions' time.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// Messages that wait for a manager that does not read. It reads again, or it is past help.
const MAX_PENDING_MESSAGES: usize = 16;
/// The longest that `STATUS=` gets: a line of a terminal.
const MAX_STATUS_LENGTH: usize = 160;

/// A service manager that listens, or none: then nothing here does anything.
#[derive(Debug, Default)]
pub struct ServiceManagerNotifier {
    notify: Option<NotifySocket>,
    /// Half of the time after which silence means death.
    pulse: Option<Duration>,
    /// Whether the process that was started says that this one is ready, because only it is heard.
    by_proxy: bool,
    last_status: String,
    pending: VecDeque<String>,
    next: Option<DueTimes>,
}

/// What is due when.
#[derive(Debug, Clone, Copy)]
struct DueTimes {
    pulse: Option<Instant>,
    look: Instant,
}

impl ServiceManagerNotifier {
    /// `watchdog` is the silence after which the manager takes the process for dead.
    pub fn new(notify: Option<NotifySocket>, watchdog: Option<Duration>) -> Self {
        let pulse = watchdog.map(|limit| limit / 2).filter(|_| notify.is_some());
        Self { notify, pulse, ..Self::default() }
    }

    /// The same in a process that was forked off.
    pub fn forked(self) -> Self {
        Self { by_proxy: true, ..self }
    }

    /// Says for a process that was forked off that it is ready, and is the one to look after from now
    /// on. As long as the manager knows of this one alone, it need not listen to the other.
    pub fn hand_over(mut self, child: u32) {
        self.say(format!("MAINPID={child}\nREADY=1"));
    }

    /// The program serves. Inside a runtime.
    pub fn ready(&mut self, words: &str) {
        let now = Instant::now();
        self.next = Some(DueTimes {
            pulse: self.pulse.map(|pulse| now + pulse),
            look: now + STATUS_INTERVAL,
        });
        if !self.by_proxy {
            self.say_with("READY=1", words);
        }
    }

    /// A reload begins. [`Self::reloaded`] must follow, whatever comes of it.
    pub fn reloading(&mut self) {
        self.say(format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_micros()));
    }

    /// A reload is over, and the program serves as before or in the new way.
    pub fn reloaded(&mut self, words: &str) {
        self.say_with("READY=1", words);
    }

    /// The program stops, and sessions have so long.
    pub fn stopping(&mut self, drain: Duration, words: &str) {
        let mut text = "STOPPING=1".to_owned();
        let whole = drain.saturating_add(STOP_MARGIN);
        if whole > DEFAULT_STOP_TIMEOUT {
            text += &format!("\nEXTEND_TIMEOUT_USEC={}", whole.as_micros());
        }
        self.say_with(&text, words);
    }

    /// Returns when [`Self::send_due`] has something to do. Cancel safe.
    pub async fn wait_until_due(&self) {
        match (&self.notify, self.next) {
            (Some(_), Some(next)) => {
                sleep_until(next.pulse.map_or(next.look, |pulse| pulse.min(next.look))).await;
            }
            _ => std::future::pending().await,
        }
    }

    /// Says what is due: that the program lives, and how it is if that has changed.
    pub fn send_due(&mut self, words: &str) {
        let Some(mut next) = self.next else { return };
        let now = Instant::now();
        self.send_pending();
        if let (Some(pulse), Some(due)) = (self.pulse, next.pulse)
            && due <= now
        {
            next.pulse = Some(now + pulse);
            self.try_send("WATCHDOG=1");
        }
        if next.look <= now {
            next.look = now + STATUS_INTERVAL;
            let words = line(words);
            if words != self.last_status && self.try_send(&format!("STATUS={words}")) {
                self.last_status = words;
            }
        }
        self.next = Some(next);
    }

    /// Says what is due for as long as this is polled.
    pub async fn send_due_forever(&mut self, words: impl Fn() -> String) -> Infallible {
        loop {
            self.wait_until_due().await;
            self.send_due(&words());
        }
    }

    fn say_with(&mut self, text: &str, words: &str) {
        self.last_status = line(words);
        self.say(format!("{text}\nSTATUS={}", self.last_status));
    }

    /// What must arrive, and in this order.
    fn say(&mut self, text: String) {
        if self.notify.is_none() {
            return;
        }
        if self.pending.len() >= MAX_PENDING_MESSAGES {
            // Two at once: of a reload's beginning and end neither may stand alone.
            self.pending.drain(..2);
        }
        self.pending.push_back(text);
        self.send_pending();
    }

    fn send_pending(&mut self) {
        while let (Some(notify), Some(text)) = (&self.notify, self.pending.front()) {
            match notify.send(text) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Gone or broken: nobody will ever ask for it.
                _ => drop(self.pending.pop_front()),
            }
        }
    }

    /// What is said again if it does not arrive.
    fn try_send(&self, text: &str) -> bool {
        self.notify.as_ref().is_some_and(|notify| notify.send(text).is_ok())
    }
}

/// One line, and not a long one: a second one would be another assignment.
fn line(words: &str) -> String {
    let safe = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = words.chars().take(MAX_STATUS_LENGTH).map(safe).collect();
    if words.chars().nth(MAX_STATUS_LENGTH).is_some() {
        line.push('…');
    }
    line
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// How a program is that stops, for people.
pub(super) fn stopping_words(sessions: usize) -> String {
    format!("stopping, {sessions} session{} to finish", plural(sessions))
}

/// How a program is, for people.
pub(super) fn words(services: usize, sessions: usize, trouble: Option<&str>) -> String {
    let trouble = trouble.map(|error| format!("; last reload failed: {error}")).unwrap_or_default();
    let (s, t) = (plural(services), plural(sessions));
    format!("{services} service{s}, {sessions} session{t}{trouble}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_of_itself_is_one_short_line() {
        assert_eq!(words(1, 0, None), "1 service, 0 sessions");
        let words = words(2, 1, Some("x.toml:3:\nMAINPID=1\u{1b}"));
        assert_eq!(line(&words), "2 services, 1 session; last reload failed: x.toml:3: MAINPID=1 ");
        let long = line(&"ä".repeat(500));
        assert_eq!(long.chars().count(), MAX_STATUS_LENGTH + 1);
    }
}
