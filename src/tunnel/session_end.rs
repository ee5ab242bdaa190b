//! How a session ends: why, how important that is, and what the two sides see of it. The table of endings
//! in docs/DESIGN.md, as code.

use std::fmt;
use std::time::Duration;

use super::registry::TerminationOrder;
use super::relay::{RelayOutcome, SideError};
use crate::config::model::{Level, Mode};
use crate::observe::event::CloseManner;
use crate::tls::KeyUpdateFlood;

/// Why a session ended. It alone picks the log level, the counter, and what the two sides see.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// Both sides said that they were done.
    Complete,
    /// The plain side failed.
    Plain(SideError),
    /// The TLS side failed, or ended without close_notify.
    Tls(SideError),
    /// The server end ended it within moments, and nothing had come from its backend.
    NotServed(SideError),
    /// We cut it.
    Cut(CutReason),
}

/// Whether a connection went well, for whoever runs one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionOutcome {
    /// It became a session, and both directions ended in order, or one of them and the other fell silent.
    Complete,
    /// It was refused, failed, or was cut.
    Failed,
}

/// How soon after its connection was accepted a session has ended "at once". A server end gives up a backend
/// and waits for a place for about as long.
const AT_ONCE: Duration = Duration::from_secs(6);

#[derive(Debug)]
pub(super) enum CutReason {
    Idle,
    /// The plain side may have all that the TLS peer said, up to its close_notify.
    HalfClosed {
        delivered: bool,
    },
    Revoked,
    /// Somebody said that it must go.
    Ordered(TerminationOrder),
    Draining,
    DrainExpired,
    /// It has lasted for `session-lifetime`.
    LifetimeOver,
    /// The TLS peer changes its keys over and over, and says nothing.
    KeyUpdates(KeyUpdateFlood),
}

impl SessionEnd {
    pub(super) fn of(outcome: RelayOutcome, mode: Mode) -> Self {
        match (outcome, mode) {
            (RelayOutcome::Complete, _) => Self::Complete,
            (RelayOutcome::Idle, _) => Self::Cut(CutReason::Idle),
            (RelayOutcome::HalfClosed { down_ended }, mode) => {
                let delivered = mode == Mode::Client && down_ended;
                Self::Cut(CutReason::HalfClosed { delivered })
            }
            (RelayOutcome::Downstream(fault), Mode::Client)
            | (RelayOutcome::Upstream(fault), Mode::Server) => Self::Plain(fault),
            (RelayOutcome::Downstream(fault), Mode::Server)
            | (RelayOutcome::Upstream(fault), Mode::Client) => match fault {
                SideError::Failed(error) if KeyUpdateFlood::is_cause_of(&error) => {
                    Self::Cut(CutReason::KeyUpdates(KeyUpdateFlood))
                }
                fault => Self::Tls(fault),
            },
        }
    }

    /// The same with what only a whole session shows: what came down, and how long it has lasted.
    pub(super) fn in_sight_of(self, mode: Mode, down: u64, age: Duration) -> Self {
        match self {
            Self::Tls(fault) if mode == Mode::Client && down == 0 && age < AT_ONCE => {
                Self::NotServed(fault)
            }
            end => end,
        }
    }

    pub(super) fn level(&self, mode: Mode) -> Level {
        match (self, mode) {
            (Self::Tls(_) | Self::NotServed(_), Mode::Client) => Level::Warning,
            (Self::Cut(CutReason::DrainExpired | CutReason::KeyUpdates(_)), _) => Level::Warning,
            (Self::Cut(CutReason::Revoked | CutReason::Ordered(_)), _) => Level::Notice,
            _ => Level::Info,
        }
    }

    /// What status calls a failure: at a client end whatever became of TLS, of which the application sees a reset.
    pub(super) fn failure(&self, mode: Mode) -> Option<String> {
        let is_failure = mode == Mode::Client && matches!(self, Self::Tls(_) | Self::NotServed(_));
        is_failure.then(|| self.to_string())
    }

    pub(super) fn outcome(&self) -> SessionOutcome {
        match self {
            Self::Complete | Self::Cut(CutReason::HalfClosed { .. }) => SessionOutcome::Complete,
            _ => SessionOutcome::Failed,
        }
    }

    /// What the table of endings makes of the two connections.
    pub(super) fn manner(&self, mode: Mode, reset: Option<bool>) -> CloseManner {
        let (plain, tls) = self.resets(mode, reset);
        let (local, remote) = match mode {
            Mode::Client => (plain, tls),
            Mode::Server => (tls, plain),
        };
        match (local, remote) {
            (false, false) => CloseManner::Closed,
            (true, true) => CloseManner::Reset,
            (true, false) => CloseManner::LocalReset,
            (false, true) => CloseManner::RemoteReset,
        }
    }

    /// The table of endings in docs/DESIGN.md: whether the plain and the TLS side are reset. What
    /// the operator said of resets overrides it.
    pub(super) fn resets(&self, mode: Mode, said: Option<bool>) -> (bool, bool) {
        match self {
            Self::Complete => (false, false),
            // What it has is whole, and may still be on its way to a slow reader: a reset would
            // throw it away.
            Self::Cut(CutReason::HalfClosed { delivered: true }) => (false, said.unwrap_or(false)),
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
            Self::Tls(SideError::Truncated) => "truncated",
            Self::Tls(SideError::Failed(_)) => "tls-side",
            Self::NotServed(_) => "not-served",
            Self::Cut(CutReason::Idle) => "idle",
            Self::Cut(CutReason::HalfClosed { .. }) => "half-closed",
            Self::Cut(CutReason::Revoked) => "revoked",
            Self::Cut(CutReason::Ordered(TerminationOrder::Kicked)) => "kicked",
            Self::Cut(CutReason::Ordered(TerminationOrder::TakenOver(_))) => "taken-over",
            Self::Cut(CutReason::Draining) => "draining",
            Self::Cut(CutReason::DrainExpired) => "drain-expired",
            Self::Cut(CutReason::LifetimeOver) => "session-lifetime",
            Self::Cut(CutReason::KeyUpdates(_)) => "key-update-flood",
        }
    }
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Plain(SideError::Failed(error)) => write!(
                f,
                "the plain connection failed: {error}"
            ),
            Self::Plain(SideError::Truncated) => f.write_str("the plain connection was cut"),
            Self::Tls(SideError::Failed(error)) => write!(
                f,
                "the TLS connection failed: {error}; the other end's log may have the reason"
            ),
            Self::Tls(SideError::Truncated) => f.write_str(
                "the other end dropped the connection without a TLS close; data may \
                             be missing, and its log has the reason",
            ),
            Self::NotServed(_) => f.write_str(
                "the server end ended it at once: its backend does not answer, it is full, or your access was \
                 withdrawn; its log has the reason",
            ),
            Self::Cut(CutReason::Idle) => f.write_str("no data for idle-timeout"),
            Self::Cut(CutReason::HalfClosed { .. }) => {
                f.write_str("one side had finished, and the other sent nothing for close-timeout")
            }
            Self::Cut(CutReason::Revoked) => f.write_str(
                "its access was withdrawn: its key was removed, changed or has expired, or `allow-from` \
                 excludes its address",
            ),
            Self::Cut(CutReason::Ordered(TerminationOrder::Kicked)) => {
                f.write_str("ended by an operator (pskgate kick)")
            }
            Self::Cut(CutReason::Ordered(TerminationOrder::TakenOver(by))) => {
                write!(f, "session #{by} took its place")
            }
            Self::Cut(CutReason::Draining) => f.write_str(
                "the program is stopping, and the session was idle",
            ),
            Self::Cut(CutReason::DrainExpired) => {
                f.write_str("the program is stopping, and drain-timeout is over")
            }
            Self::Cut(CutReason::LifetimeOver) => {
                f.write_str("it reached session-lifetime; the peers can connect again")
            }
            Self::Cut(CutReason::KeyUpdates(flood)) => flood.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use CloseManner::{Closed, LocalReset, RemoteReset, Reset};
    use Level::{Info, Notice, Warning};
    use Mode::{Client, Server};

    fn failed() -> SideError {
        SideError::Failed(io::Error::other("words"))
    }

    #[test]
    fn a_failure_of_a_client_end_names_the_log_of_the_other_end_once() {
        let failures: [fn(SideError) -> SessionEnd; 2] = [SessionEnd::Tls, SessionEnd::NotServed];
        for of in failures {
            for fault in [failed(), SideError::Truncated] {
                let end = of(fault);
                let words = end.failure(Client).unwrap_or_default();
                assert_eq!(words.matches(" log ").count(), 1, "{words}");
                assert_eq!(end.failure(Server), None);
            }
        }
        assert_eq!(SessionEnd::Complete.failure(Client), None);
    }

    #[test]
    fn whose_failure_it_was_hangs_on_which_side_wears_tls() {
        let name = |outcome, mode| SessionEnd::of(outcome, mode).name();
        for mode in [Client, Server] {
            assert_eq!(name(RelayOutcome::Complete, mode), "complete");
            assert_eq!(name(RelayOutcome::Idle, mode), "idle");
        }
        assert_eq!(name(RelayOutcome::Downstream(failed()), Client), "plain-side");
        assert_eq!(name(RelayOutcome::Upstream(failed()), Client), "tls-side");
        assert_eq!(name(RelayOutcome::Upstream(SideError::Truncated), Client), "truncated");
        assert_eq!(name(RelayOutcome::Downstream(failed()), Server), "tls-side");
        assert_eq!(name(RelayOutcome::Downstream(SideError::Truncated), Server), "truncated");
        assert_eq!(name(RelayOutcome::Upstream(failed()), Server), "plain-side");
        let flood = || SideError::Failed(io::Error::other(KeyUpdateFlood));
        assert_eq!(name(RelayOutcome::Upstream(flood()), Client), "key-update-flood");
        assert_eq!(name(RelayOutcome::Downstream(flood()), Server), "key-update-flood");
    }

    #[test]
    fn a_session_that_brought_nothing_and_ended_at_once_was_not_served() {
        let end = |mode, down, seconds| {
            let age = Duration::from_secs(seconds);
            SessionEnd::Tls(SideError::Truncated).in_sight_of(mode, down, age).name()
        };
        assert_eq!(end(Client, 0, 1), "not-served");
        assert_eq!(end(Client, 1, 1), "truncated", "it was served");
        assert_eq!(end(Client, 0, 60), "truncated", "it has lasted");
        assert_eq!(end(Server, 0, 1), "truncated", "a client that leaves");
        assert_eq!(SessionEnd::Complete.in_sight_of(Client, 0, Duration::ZERO).name(), "complete");
    }

    #[test]
    fn only_a_client_end_has_delivered_what_a_silent_upstream_said() {
        for (mode, down_ended, wanted) in [
            (Client, true, true),
            (Client, false, false),
            (Server, true, false),
            (Server, false, false),
        ] {
            let end = SessionEnd::of(RelayOutcome::HalfClosed { down_ended }, mode);
            let SessionEnd::Cut(CutReason::HalfClosed { delivered }) = end else {
                panic!("{end:?}")
            };
            assert_eq!(delivered, wanted, "{mode:?}, {down_ended}");
        }
    }

    /// The table of endings, in docs/DESIGN.md: each with its name, its levels and manners at a client and
    /// at a server end, and whether it is a good one.
    #[test]
    fn every_ending_is_that_of_the_table() {
        let taken_over = CutReason::Ordered(TerminationOrder::TakenOver(7));
        let table = [
            (SessionEnd::Complete, "complete", [Info, Info], [Closed, Closed], true),
            (SessionEnd::Plain(failed()), "plain-side", [Info, Info], [Reset, LocalReset], false),
            (SessionEnd::Tls(failed()), "tls-side", [Warning, Info], [LocalReset, Closed], false),
            (
                SessionEnd::Tls(SideError::Truncated),
                "truncated",
                [Warning, Info],
                [LocalReset, Closed],
                false,
            ),
            (
                SessionEnd::NotServed(SideError::Truncated),
                "not-served",
                [Warning, Info],
                [LocalReset, Closed],
                false,
            ),
            (SessionEnd::Cut(CutReason::Idle), "idle", [Info, Info], [LocalReset, Closed], false),
            (
                SessionEnd::Cut(CutReason::HalfClosed { delivered: true }),
                "half-closed",
                [Info, Info],
                [Closed, Closed],
                true,
            ),
            (
                SessionEnd::Cut(CutReason::HalfClosed { delivered: false }),
                "half-closed",
                [Info, Info],
                [LocalReset, Closed],
                true,
            ),
            (
                SessionEnd::Cut(CutReason::Revoked),
                "revoked",
                [Notice, Notice],
                [LocalReset, Closed],
                false,
            ),
            (
                SessionEnd::Cut(CutReason::Ordered(TerminationOrder::Kicked)),
                "kicked",
                [Notice, Notice],
                [LocalReset, Closed],
                false,
            ),
            (
                SessionEnd::Cut(taken_over),
                "taken-over",
                [Notice, Notice],
                [LocalReset, Closed],
                false,
            ),
            (
                SessionEnd::Cut(CutReason::Draining),
                "draining",
                [Info, Info],
                [LocalReset, Closed],
                false,
            ),
            (
                SessionEnd::Cut(CutReason::DrainExpired),
                "drain-expired",
                [Warning, Warning],
                [LocalReset, Closed],
                false,
            ),
            (
                SessionEnd::Cut(CutReason::LifetimeOver),
                "session-lifetime",
                [Info, Info],
                [LocalReset, Closed],
                false,
            ),
            (
                SessionEnd::Cut(CutReason::KeyUpdates(KeyUpdateFlood)),
                "key-update-flood",
                [Warning, Warning],
                [LocalReset, Closed],
                false,
            ),
        ];
        let mut words = Vec::new();
        for (end, name, levels, manners, good) in table {
            assert_eq!((end.name(), end.outcome() == SessionOutcome::Complete), (name, good));
            for (mode, level, manner) in
                [(Client, levels[0], manners[0]), (Server, levels[1], manners[1])]
            {
                assert_eq!(end.level(mode), level, "{name} {mode:?}");
                assert_eq!(end.manner(mode, None), manner, "{name} {mode:?}");
            }
            words.push(end.to_string());
        }
        assert!(words.iter().all(|words| words.len() >= 8), "{words:?}");
        let alike = words.iter().filter(|words| words.contains("close-timeout")).count();
        words.dedup();
        assert_eq!((alike, words.len()), (2, 14), "two of them say the same");
    }

    #[test]
    fn what_the_operator_said_of_resets_holds_for_every_ending_that_is_not_in_order() {
        for mode in [Client, Server] {
            for said in [true, false] {
                assert_eq!(SessionEnd::Complete.resets(mode, Some(said)), (false, false));
                assert_eq!(SessionEnd::Plain(failed()).resets(mode, Some(said)), (said, said));
                assert_eq!(SessionEnd::Cut(CutReason::Idle).resets(mode, Some(said)), (said, said));
                let delivered = SessionEnd::Cut(CutReason::HalfClosed { delivered: true });
                assert_eq!(delivered.resets(mode, Some(said)), (false, said));
            }
            // Accepted is the plain side of a client end, and the TLS side of a server end.
            let delivered = SessionEnd::Cut(CutReason::HalfClosed { delivered: true });
            let manner = if mode == Client { RemoteReset } else { LocalReset };
            assert_eq!(delivered.manner(mode, Some(true)), manner);
        }
    }
}
