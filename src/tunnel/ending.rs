//! How a session ends: why, how important that is, and what the two sides see of it. The table of endings
//! in docs/DESIGN.md, as code.

use std::fmt;

use super::relay::{Fault, Outcome};
use super::roster::Order;
use crate::config::model::{Level, Mode};
use crate::observe::event::Manner;
use crate::tls::KeyUpdateFlood;

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
    /// It has lasted for `session-lifetime`.
    LifetimeOver,
    /// The TLS peer changes its keys over and over, and says nothing.
    KeyUpdates(KeyUpdateFlood),
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
            | (Outcome::Upstream(fault), Mode::Client) => match fault {
                Fault::Failed(error) if KeyUpdateFlood::is_cause_of(&error) => {
                    Self::Cut(Cut::KeyUpdates(KeyUpdateFlood))
                }
                fault => Self::Tls(fault),
            },
        }
    }

    pub(super) fn level(&self, mode: Mode) -> Level {
        match (self, mode) {
            (Self::Tls(_), Mode::Client) => Level::Warning,
            (Self::Cut(Cut::DrainExpired | Cut::KeyUpdates(_)), _) => Level::Warning,
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
            Self::Cut(Cut::LifetimeOver) => "session-lifetime",
            Self::Cut(Cut::KeyUpdates(_)) => "key-update-flood",
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
            Self::Cut(Cut::LifetimeOver) => {
                f.write_str("it has lasted for session-lifetime, and the peers can connect again")
            }
            Self::Cut(Cut::KeyUpdates(flood)) => flood.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use Level::{Info, Notice, Warning};
    use Manner::{Closed, LocalReset, RemoteReset, Reset};
    use Mode::{Client, Server};

    fn failed() -> Fault {
        Fault::Failed(io::Error::other("words"))
    }

    #[test]
    fn whose_failure_it_was_hangs_on_which_side_wears_tls() {
        let name = |outcome, mode| End::of(outcome, mode).name();
        for mode in [Client, Server] {
            assert_eq!(name(Outcome::Complete, mode), "complete");
            assert_eq!(name(Outcome::Idle, mode), "idle");
        }
        assert_eq!(name(Outcome::Downstream(failed()), Client), "plain-side");
        assert_eq!(name(Outcome::Upstream(failed()), Client), "tls-side");
        assert_eq!(name(Outcome::Upstream(Fault::Truncated), Client), "truncated");
        assert_eq!(name(Outcome::Downstream(failed()), Server), "tls-side");
        assert_eq!(name(Outcome::Downstream(Fault::Truncated), Server), "truncated");
        assert_eq!(name(Outcome::Upstream(failed()), Server), "plain-side");
        let flood = || Fault::Failed(io::Error::other(KeyUpdateFlood));
        assert_eq!(name(Outcome::Upstream(flood()), Client), "key-update-flood");
        assert_eq!(name(Outcome::Downstream(flood()), Server), "key-update-flood");
    }

    #[test]
    fn only_a_client_end_has_delivered_what_a_silent_upstream_said() {
        for (mode, down_ended, wanted) in [
            (Client, true, true),
            (Client, false, false),
            (Server, true, false),
            (Server, false, false),
        ] {
            let end = End::of(Outcome::HalfClosed { down_ended }, mode);
            let End::Cut(Cut::HalfClosed { delivered }) = end else { panic!("{end:?}") };
            assert_eq!(delivered, wanted, "{mode:?}, {down_ended}");
        }
    }

    /// The table of endings, in docs/DESIGN.md: each with its name, its levels and manners at a client and
    /// at a server end, and whether it is a good one.
    #[test]
    fn every_ending_is_that_of_the_table() {
        let taken_over = Cut::Ordered(Order::TakenOver(7));
        let table = [
            (End::Complete, "complete", [Info, Info], [Closed, Closed], true),
            (End::Plain(failed()), "plain-side", [Info, Info], [Reset, LocalReset], false),
            (End::Tls(failed()), "tls-side", [Warning, Info], [LocalReset, Closed], false),
            (End::Tls(Fault::Truncated), "truncated", [Warning, Info], [LocalReset, Closed], false),
            (End::Cut(Cut::Idle), "idle", [Info, Info], [LocalReset, Closed], false),
            (
                End::Cut(Cut::HalfClosed { delivered: true }),
                "half-closed",
                [Info, Info],
                [Closed, Closed],
                true,
            ),
            (
                End::Cut(Cut::HalfClosed { delivered: false }),
                "half-closed",
                [Info, Info],
                [LocalReset, Closed],
                true,
            ),
            (End::Cut(Cut::Revoked), "revoked", [Notice, Notice], [LocalReset, Closed], false),
            (
                End::Cut(Cut::Ordered(Order::Kicked)),
                "kicked",
                [Notice, Notice],
                [LocalReset, Closed],
                false,
            ),
            (End::Cut(taken_over), "taken-over", [Notice, Notice], [LocalReset, Closed], false),
            (End::Cut(Cut::Draining), "draining", [Info, Info], [LocalReset, Closed], false),
            (
                End::Cut(Cut::DrainExpired),
                "drain-expired",
                [Warning, Warning],
                [LocalReset, Closed],
                false,
            ),
            (
                End::Cut(Cut::LifetimeOver),
                "session-lifetime",
                [Info, Info],
                [LocalReset, Closed],
                false,
            ),
            (
                End::Cut(Cut::KeyUpdates(KeyUpdateFlood)),
                "key-update-flood",
                [Warning, Warning],
                [LocalReset, Closed],
                false,
            ),
        ];
        let mut words = Vec::new();
        for (end, name, levels, manners, good) in table {
            assert_eq!((end.name(), end.is_good()), (name, good));
            for (mode, level, manner) in
                [(Client, levels[0], manners[0]), (Server, levels[1], manners[1])]
            {
                assert_eq!(end.level(mode), level, "{name} {mode:?}");
                assert_eq!(end.manner(mode, None), manner, "{name} {mode:?}");
            }
            words.push(end.to_string());
        }
        assert!(words.iter().all(|words| words.len() >= 8), "{words:?}");
        let alike = words.iter().filter(|words| words.starts_with("close-timeout")).count();
        words.dedup();
        assert_eq!((alike, words.len()), (2, 13), "two of them say the same");
    }

    #[test]
    fn what_the_operator_said_of_resets_holds_for_every_ending_that_is_not_in_order() {
        for mode in [Client, Server] {
            for said in [true, false] {
                assert_eq!(End::Complete.resets(mode, Some(said)), (false, false));
                assert_eq!(End::Plain(failed()).resets(mode, Some(said)), (said, said));
                assert_eq!(End::Cut(Cut::Idle).resets(mode, Some(said)), (said, said));
                let delivered = End::Cut(Cut::HalfClosed { delivered: true });
                assert_eq!(delivered.resets(mode, Some(said)), (false, said));
            }
            // Accepted is the plain side of a client end, and the TLS side of a server end.
            let delivered = End::Cut(Cut::HalfClosed { delivered: true });
            let manner = if mode == Client { RemoteReset } else { LocalReset };
            assert_eq!(delivered.manner(mode, Some(true)), manner);
        }
    }
}
