//! When something is tried again that only an obstacle outside the files stood against.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::config::model::LogConfig;
use crate::sys::file_digest::FileDigest;

/// The first pause; each one after it is twice as long.
const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// What was read of the files of a configuration.
pub(super) type ConfigDigests = BTreeMap<PathBuf, Option<FileDigest>>;

/// When the next attempt is due.
#[derive(Debug)]
pub(super) struct Backoff {
    at: Instant,
    pause: Duration,
}

impl Backoff {
    /// Before the first attempt.
    pub(super) fn new() -> Self {
        Self { at: Instant::now() + MIN_RETRY_INTERVAL, pause: MIN_RETRY_INTERVAL }
    }

    /// Before the attempt after one that came to nothing.
    pub(super) fn next(&self) -> Self {
        let pause = (2 * self.pause).min(MAX_RETRY_INTERVAL);
        Self { at: Instant::now() + pause, pause }
    }

    /// Returns when the attempt is due. Cancel safe.
    pub(super) async fn due(&self) {
        sleep_until(self.at).await;
    }
}

/// The next attempt.
#[derive(Debug)]
pub(super) struct Retry {
    backoff: Backoff,
    pub(super) what: RetriedAction,
}

/// What is tried again.
#[derive(Debug, Clone)]
pub(super) enum RetriedAction {
    /// A configuration that was refused.
    Reload {
        /// What was read of its files. With other bytes it is another reload. None if it did not come
        /// to reading.
        read: Option<ConfigDigests>,
        /// Why it was refused: only another reason is logged.
        reason: String,
    },
    /// A change of the log.
    Log(Box<LogConfig>),
}

impl RetriedAction {
    /// Why what is tried again came to nothing.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Reload { reason, .. } => reason,
            Self::Log(_) => "",
        }
    }
}

impl Retry {
    pub(super) fn new(what: RetriedAction) -> Self {
        Self { backoff: Backoff::new(), what }
    }

    /// The attempt after one that came to nothing.
    pub(super) fn again(&self, what: RetriedAction) -> Self {
        Self { backoff: self.backoff.next(), what }
    }
}

/// Returns when there is something to try. Cancel safe.
pub(super) async fn due(retry: Option<&Retry>) {
    match retry {
        Some(retry) => retry.backoff.due().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_from_one_second_to_sixty() {
        let what = || RetriedAction::Reload { read: None, reason: String::new() };
        let mut retry = Retry::new(what());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let start = Instant::now();
            due(Some(&retry)).await;
            pauses.push(start.elapsed().as_secs_f64().round() as u32);
            retry = retry.again(what());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
