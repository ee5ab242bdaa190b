//! What of the log's configuration every line asks for: how much is logged, in which format, and whether
//! anybody reads more of an event than its words.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::log_context::LogContext;
use crate::config::model::{Level, LogConfig, LogFormat};

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static FORMAT: AtomicU8 = AtomicU8::new(LogFormat::Human as u8);
static JOURNAL: AtomicBool = AtomicBool::new(false);

/// Follows a configuration.
pub(super) fn apply_config(config: &LogConfig) {
    LEVEL.store(config.level.value as u8, Ordering::Relaxed);
    FORMAT.store(config.format.value as u8, Ordering::Relaxed);
}

/// Says whether lines go to the journal, which takes fields beside the words.
pub(super) fn set_journal(open: bool) {
    JOURNAL.store(open, Ordering::Relaxed);
}

/// Whether a line of this level is logged.
pub(super) fn is_logged(level: Level, context: LogContext<'_>) -> bool {
    let limit = context.level.map_or_else(|| LEVEL.load(Ordering::Relaxed), |level| level as u8);
    level as u8 <= limit
}

/// The format in force.
pub(super) fn format() -> LogFormat {
    let now = FORMAT.load(Ordering::Relaxed);
    let all = [LogFormat::Human, LogFormat::Json, LogFormat::Stunnel];
    all.into_iter().find(|format| *format as u8 == now).unwrap_or(LogFormat::Human)
}

/// Whether lines go to the journal.
pub(super) fn has_journal() -> bool {
    JOURNAL.load(Ordering::Relaxed)
}
