//! What a log line is about: the program, a service or one session.

use crate::config::model::{Level, LogId};

/// The subject of a log line, and the level up to which it is logged.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogContext<'a> {
    /// The service.
    pub service: Option<&'a str>,
    /// The session's number.
    pub session: Option<u64>,
    /// The service's own limit of importance, where it has one.
    pub level: Option<Level>,
    /// What tells this session's lines from another's.
    pub id: LogId,
}

impl LogContext<'_> {
    /// The program itself.
    pub const PROGRAM: LogContext<'static> =
        LogContext { service: None, session: None, level: None, id: LogId::Sequential };
}
