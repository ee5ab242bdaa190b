//! How a session ends: why, how important that is, and what the two sides see of it. The table of endings
//! in docs/DESIGN.md, as code.

use std::fmt;

use super::relay::{Fault, Outcome};
use super::roster::Order;
use crate::config::model::{Level, Mode};
use crate::observe::event::Manner;

/// Why a session ended. It alone picks the log level, the counter, and what the two sides see.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides said that they were done.
    Complete,
    /// The plain side failed.
    Plain(Fault),
    /// The TLS side failed, or ended without close_notify.
    Tls(Fault),
    /// We cut it.
    Cut(Cut),
}

#[derive(Debug)]
pub(super) enum Cut {
    Idle,
    /// The plain side may have all that the TLS peer said, up to its close_notify.
    HalfClosed {
        delivered: bool,
    },
    Revoked,
    /// Somebody said that it must go.
    Ordered(Order),
    Draining,
    DrainExpired,
}

impl End {
    pub(super) fn of(outcome: Outcome, mode: Mode) -> Self {
        match (outcome, mode) {
            (Outcome::Complete, _) => Self::Complete,
            (Outcome::Idle, _) => Self::Cut(Cut::Idle),
            (Outcome::HalfClosed { down_ended }, mode) => {
                let delivered = mode == Mode::Client && down_ended;
                Self::Cut(Cut::HalfClosed { delivered })
            }
            (Outcome::Downstream(fault), Mode::Client)
            | (Outcome::Upstream(fault), Mode::Server) => Self::Plain(fault),
            (Outcome::Downstream(fault), Mode::Server)
            | (Outcome::Upstream(fault), Mode::Client) => Self::Tls(fault),
        }
    }

    pub(super) fn level(&self, mode: Mode) -> Level {
        match (self, mode) {
            (Self::Tls(_), Mode::Client) | (Self::Cut(Cut::DrainExpired), _) => Level::Warning,
            (Self::Cut(Cut::Revoked | Cut::Ordered(_)), _) => Level::Notice,
            _ => Level::Info,
        }
    }

    /// Whether it ended as it was meant to: both directions in order, or one of them and silence.
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Self::Complete | Self::Cut(Cut::HalfClosed { .. }))
    }

    /// What the table of endings makes of the two connections.
    pub(super) fn manner(&self, mode: Mode, reset: Option<bool>) -> Manner {
        let (plain, tls) = self.resets(mode, reset);
        let (local, remote) = match mode {
            Mode::Client => (plain, tls),
            Mode::Server => (tls, plain),
        };
        match (local, remote) {
            (false, false) => Manner::Closed,
            (true, true) => Manner::Reset,
            (true, false) => Manner::LocalReset,
            (false, true) => Manner::RemoteReset,
        }
    }

    /// The table of endings in docs/DESIGN.md: whether the plain and the TLS side are reset. What
    /// the operator said of resets overrides it.
    pub(super) fn resets(&self, mode: Mode, said: Option<bool>) -> (bool, bool) {
        match self {
            Self::Complete => (false, false),
            // What it has is whole, and may still be on its way to a slow reader: a reset would
            // throw it away.
            Self::Cut(Cut::HalfClosed { delivered: true }) => (false, said.unwrap_or(false)),
            end => (
                said.unwrap_or(mode == Mode::Client),
                said.unwrap_or(matches!(end, Self::Plain(_))),
            ),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Plain(_) => "plain-side",
            Self::Tls(Fault::Truncated) => "truncated",
            Self::Tls(Fault::Failed(_)) => "tls-side",
            Self::Cut(Cut::Idle) => "idle",
            Self::Cut(Cut::HalfClosed { .. }) => "half-closed",
            Self::Cut(Cut::Revoked) => "revoked",
            Self::Cut(Cut::Ordered(Order::Kicked)) => "kicked",
            Self::Cut(Cut::Ordered(Order::TakenOver(_))) => "taken-over",
            Self::Cut(Cut::Draining) => "draining",
            Self::Cut(Cut::DrainExpired) => "drain-expired",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Plain(Fault::Failed(error)) => write!(f, "the plain side failed: {error}"),
            Self::Plain(Fault::Truncated) => f.write_str("the plain side was cut"),
            Self::Tls(Fault::Failed(error)) => write!(f, "the TLS side failed: {error}"),
            Self::Tls(Fault::Truncated) => {
                f.write_str("the TLS peer left without close_notify, so data may be missing")
            }
            Self::Cut(Cut::Idle) => f.write_str("idle-timeout"),
            Self::Cut(Cut::HalfClosed { .. }) => {
                f.write_str("close-timeout: one direction had ended, the other stayed silent")
            }
            Self::Cut(Cut::Revoked) => f.write_str("the identity or its key was revoked"),
            Self::Cut(Cut::Ordered(Order::Kicked)) => f.write_str("kicked by an operator"),
            Self::Cut(Cut::Ordered(Order::TakenOver(by))) => {
                write!(f, "session #{by} has taken its place")
            }
            Self::Cut(Cut::Draining) => f.write_str("stopping, and the session was silent"),
            Self::Cut(Cut::DrainExpired) => f.write_str("stopping, and the drain-timeout is over"),
        }
    }
}
