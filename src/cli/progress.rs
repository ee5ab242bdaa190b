//! A bar while something runs that a person waits for. In a pipe there is none.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::terminal::Style;
use super::units;

/// Between two updates of the line.
const UPDATE_INTERVAL: Duration = Duration::from_millis(100);
const BAR_CELLS: usize = 24;

/// One transfer. Its line goes when it does.
#[derive(Debug)]
pub(super) struct ProgressBar {
    name: &'static str,
    total: u64,
    style: Style,
    shown: bool,
    /// When the line was written last, and what had been sent and received then.
    last: (Instant, u64, u64),
}

impl ProgressBar {
    /// Shown on standard error if results go to a terminal: what is copied from there stays clean.
    pub(super) fn new(name: &'static str, total: u64) -> Self {
        let style = Style::for_stdout();
        let shown = style.size.is_some() && std::io::stderr().is_terminal();
        Self { name, total, style, shown, last: (Instant::now(), 0, 0) }
    }

    /// How far it is: bytes that were sent and that came back.
    pub(super) fn update(&mut self, sent: u64, received: u64) {
        let passed = self.last.0.elapsed();
        if !self.shown || passed < UPDATE_INTERVAL {
            return;
        }
        let rate = |now: u64, then: u64| {
            units::rate((now.saturating_sub(then) as f64 / passed.as_secs_f64()) as u64)
        };
        let share = received as f64 / self.total.max(1) as f64;
        let line = format!(
            "{}  [{}] {:3.0} %  {:>9} there  {:>9} back",
            self.name,
            self.style.bar(share, BAR_CELLS),
            share * 100.0,
            rate(sent, self.last.1),
            rate(received, self.last.2)
        );
        self.last = (Instant::now(), sent, received);
        let room = self.style.width().unwrap_or(0).saturating_sub(1);
        let line: String = line.chars().take(room).collect();
        let mut terminal = std::io::stderr().lock();
        let _ = write!(terminal, "\r{line}\x1b[K");
        let _ = terminal.flush();
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
