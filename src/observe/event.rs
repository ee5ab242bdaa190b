//! Everything that is logged: what happened, how important it is, its words in each of the formats, and
//! its values. The module `table` has a row for each event.

use std::fmt::{self, Display};

pub use super::log_context::LogContext;
use super::verbosity;
use crate::config::model::{Level, LogFormat};
pub use phrases::OpensslError;
pub use table::Event;
pub(super) use table::TARGET;

mod phrases;
mod row;
mod table;

/// The negotiated version, suite and group of a handshake.
#[derive(Debug, Clone, Copy)]
pub struct TlsTerms<'a> {
    /// The protocol version.
    pub version: &'a str,
    /// The suite.
    pub suite: &'a str,
    /// The key exchange group, where the library tells.
    pub group: Option<&'a str>,
}

impl Display for TlsTerms<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.suite)?;
        self.group.map_or(Ok(()), |group| write!(f, " {group}"))
    }
}

/// How a session's two connections were closed, in the words of stunnel's last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseManner {
    /// Both were closed in order.
    Closed,
    /// Both were reset.
    Reset,
    /// The accepted one was reset, the other closed.
    LocalReset,
    /// The accepted one was closed, the other reset.
    RemoteReset,
}

impl CloseManner {
    fn stunnel_word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::LocalReset => "closed/reset",
            Self::RemoteReset => "reset/closed",
        }
    }
}

impl Event<'_> {
    /// Writes its lines, as far as their levels are logged.
    pub fn log(&self, context: LogContext<'_>) {
        self.for_each_line(verbosity::format(), context, &mut |level, text| {
            if verbosity::is_logged(level, context) {
                self.emit_to_tracing(level, context, text);
            }
        });
    }

    /// Whether any of its lines would be written.
    pub(super) fn is_wanted(&self, context: LogContext<'_>) -> bool {
        let mut wanted = false;
        self.for_each_line(verbosity::format(), context, &mut |level, _| {
            wanted |= verbosity::is_logged(level, context);
        });
        wanted
    }

    /// Hands its lines in a format to `line`, each with its level.
    pub(super) fn for_each_line(
        &self,
        format: LogFormat,
        context: LogContext<'_>,
        line: &mut dyn FnMut(Level, fmt::Arguments<'_>),
    ) {
        match format {
            LogFormat::Human | LogFormat::Json => line(self.level(), format_args!("{self}")),
            LogFormat::Stunnel => self.stunnel(context.service.unwrap_or_default(), line),
        }
    }
}
