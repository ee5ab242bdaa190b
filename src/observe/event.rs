//! Everything that is logged, as one list: what happened, how important it is, and its words.

use std::fmt::{self, Display};
use std::time::Duration;

use super::log;
use crate::config::model::Level;

/// Something worth a line. Parts that come from a peer are escaped by whoever displays them.
#[allow(missing_debug_implementations)]
pub enum Event<'a> {
    /// A listener is open.
    Listening {
        /// Its address, with the real port.
        address: &'a dyn Display,
    },
    /// A session begins: the key is proven and the target answers.
    Opened {
        /// The downstream peer.
        peer: &'a dyn Display,
        /// Whose key it was.
        who: &'a dyn Display,
        /// Version, suite, group.
        facts: &'a dyn Display,
        /// The upstream address.
        target: &'a dyn Display,
    },
    /// A session is over.
    Closed {
        /// How important its end is.
        level: Level,
        /// Why.
        end: &'a dyn Display,
        /// Bytes from downstream to upstream.
        up: u64,
        /// Bytes from upstream to downstream.
        down: u64,
        /// From accept to now.
        age: Duration,
    },
    /// Server end: a handshake failed. What strangers can cause is never more than info.
    Refused {
        /// The downstream peer.
        peer: &'a dyn Display,
        /// Why.
        cause: &'a dyn Display,
    },
    /// Client end: the server did not let us in, or did not prove itself.
    HandshakeFailed {
        /// The upstream address.
        target: &'a dyn Display,
        /// Why.
        cause: &'a dyn Display,
    },
    /// No target answered.
    Unreachable {
        /// The downstream peer, who is now turned away.
        peer: &'a dyn Display,
        /// What was tried, and what came of it.
        error: &'a dyn Display,
    },
    /// A program was started to serve a session.
    ChildStarted {
        /// Its number.
        pid: u32,
    },
    /// A program that served a session has ended.
    ChildEnded {
        /// Its number.
        pid: u32,
        /// How.
        end: &'a dyn Display,
    },
    /// The service has as many sessions as it may.
    Full {
        /// The downstream peer, who is now turned away.
        peer: &'a dyn Display,
        /// The limit.
        limit: usize,
    },
    /// Handshakes are cut short because more are under way than there may be.
    Crowded {
        /// The peer whose handshake made room.
        peer: &'a dyn Display,
    },
    /// Accepting fails for want of descriptors or memory; said once.
    AcceptTrouble {
        /// The system's words.
        error: &'a dyn Display,
    },
    /// Accepting works again.
    AcceptRecovered {
        /// How often it had failed.
        failures: u64,
    },
    /// Lines that were not written because strangers cause too many.
    Withheld {
        /// How many.
        lines: u64,
        /// Since when.
        within: Duration,
    },
    /// A new configuration is in force.
    Reloaded {
        /// Who asked.
        who: &'a str,
        /// How many services there are now.
        services: usize,
    },
    /// A new configuration was refused whole.
    ReloadFailed {
        /// Who asked.
        who: &'a str,
        /// Why; findings have lines of their own.
        error: &'a dyn Display,
    },
    /// A signal asked to stop; sessions may finish.
    Draining {
        /// Who asked.
        signal: &'a str,
        /// How long.
        limit: Duration,
    },
    /// Everything has ended.
    Stopped {
        /// Sessions since the start.
        sessions: u64,
        /// Handshakes that failed since the start.
        refused: u64,
    },
    /// A diagnostic that does not keep the program from running.
    Finding {
        /// Warning or notice.
        level: Level,
        /// In one line.
        text: &'a dyn Display,
    },
}

impl Event<'_> {
    /// How important it is.
    pub fn level(&self) -> Level {
        match self {
            Self::Closed { level, .. } | Self::Finding { level, .. } => *level,
            Self::ReloadFailed { .. } => Level::Error,
            Self::AcceptTrouble { .. }
            | Self::HandshakeFailed { .. }
            | Self::Unreachable { .. } => Level::Warning,
            Self::Full { .. } | Self::AcceptRecovered { .. } => Level::Notice,
            Self::Reloaded { .. } | Self::Draining { .. } | Self::Stopped { .. } => Level::Notice,
            Self::Listening { .. }
            | Self::Opened { .. }
            | Self::Refused { .. }
            | Self::ChildStarted { .. }
            | Self::ChildEnded { .. }
            | Self::Crowded { .. }
            | Self::Withheld { .. } => Level::Info,
        }
    }

    /// A stable name for whoever reads JSON lines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Listening { .. } => "listening",
            Self::Opened { .. } => "session-opened",
            Self::Closed { .. } => "session-closed",
            Self::Refused { .. } => "handshake-refused",
            Self::HandshakeFailed { .. } => "handshake-failed",
            Self::Unreachable { .. } => "target-unreachable",
            Self::ChildStarted { .. } => "child-started",
            Self::ChildEnded { .. } => "child-ended",
            Self::Full { .. } => "service-full",
            Self::Crowded { .. } => "handshakes-crowded",
            Self::AcceptTrouble { .. } => "accept-trouble",
            Self::AcceptRecovered { .. } => "accept-recovered",
            Self::Withheld { .. } => "lines-withheld",
            Self::Reloaded { .. } => "reloaded",
            Self::ReloadFailed { .. } => "reload-failed",
            Self::Draining { .. } => "draining",
            Self::Stopped { .. } => "stopped",
            Self::Finding { .. } => "finding",
        }
    }

    /// Writes the line, if this level is logged at all.
    pub fn log(&self, service: Option<&str>, session: Option<u64>) {
        log::write(self, service, session);
    }
}

impl Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { address } => write!(f, "listening on {address}"),
            Self::Opened { peer, who, facts, target } => {
                write!(f, "session opened: {peer}, identity {who}, {facts}, to {target}")
            }
            Self::Closed { end, up, down, age, .. } => {
                let seconds = age.as_secs_f64();
                write!(f, "session closed: {end}; {up} bytes up, {down} bytes down, {seconds:.1}s")
            }
            Self::Refused { peer, cause } => write!(f, "handshake refused: {peer}: {cause}"),
            Self::HandshakeFailed { target, cause } => {
                write!(f, "handshake failed: {target}: {cause}")
            }
            Self::Unreachable { peer, error } => {
                write!(f, "turned {peer} away, no target answers: {error}")
            }
            Self::ChildStarted { pid } => write!(f, "Local mode child started (PID={pid})"),
            Self::ChildEnded { pid, end } => write!(f, "Child process {pid} finished with {end}"),
            Self::Full { peer, limit } => {
                write!(f, "turned {peer} away: {limit} sessions are open, which is the limit")
            }
            Self::Crowded { peer } => {
                write!(f, "cut the handshake of {peer} to make room for newer ones")
            }
            Self::AcceptTrouble { error } => {
                write!(f, "cannot accept connections, and tries again ten times a second: {error}")
            }
            Self::AcceptRecovered { failures } => {
                write!(f, "accepts connections again after {failures} failures")
            }
            Self::Withheld { lines, within } => write!(
                f,
                "{lines} more lines of refused connections were withheld in {:.0} s",
                within.as_secs_f64()
            ),
            Self::Reloaded { who, services } => {
                write!(f, "{who}: reloaded; services running: {services}")
            }
            Self::ReloadFailed { who, error } => write!(f, "{who}: not reloaded: {error}"),
            Self::Draining { signal, limit } => {
                write!(f, "{signal}: no new connections; open sessions have {limit:?} to finish")
            }
            Self::Stopped { sessions, refused } => {
                write!(f, "stopped after {sessions} sessions and {refused} failed handshakes")
            }
            Self::Finding { text, .. } => text.fmt(f),
        }
    }
}
