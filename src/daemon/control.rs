//! What can be asked of a running program, whoever carries the question: the control socket, the HTTP
//! endpoint, a signal.
//!
//! Reading and commanding are separate rights. A transport finds out which of them its peer has, and
//! [`ControlCommand::right`] says which one a command needs.

mod access;
pub mod client;
mod connections;
mod conversation;
pub mod paths;
#[cfg(windows)]
mod pipe;
#[cfg(unix)]
mod socket;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::observe::status::{ReloadStatus, Status};
pub(super) use access::Access;
pub(super) use connections::ControlConnections;
#[cfg(all(unix, any(test, fuzzing)))]
pub(crate) use conversation::fuzzing;
#[cfg(windows)]
pub(super) use pipe::{BoundControl, ControlName, ReadyControl};
#[cfg(unix)]
pub(super) use socket::{BoundControl, ControlName, ReadyControl};

/// What a peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Look.
    Read,
    /// Change something.
    Command,
}

/// A question or an order, one JSON object on a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlCommand {
    /// Everything about the program.
    Status,
    /// Read configuration and keys again, and say what came of it.
    Reload,
    /// The last key of a service was taken out of this file on purpose: read configuration and keys again,
    /// and let the service be without a key.
    RemoveLast {
        /// The key file, which holds no key any more.
        file: PathBuf,
    },
    /// End sessions.
    Kick(KickSelection),
}

/// The sessions that `kick` ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KickSelection {
    /// The one with this number.
    Number(u64),
    /// All of this identity, by its own name or one on the wire.
    Identity(String),
}

/// What comes back, one JSON object on a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`ControlCommand::Status`].
    Status(Box<Status>),
    /// To [`ControlCommand::Reload`] and [`ControlCommand::RemoveLast`].
    Reloaded(ReloadStatus),
    /// To [`ControlCommand::Kick`]: how many sessions end now.
    Kicked(usize),
    /// Why nothing was done, in words.
    Refused(String),
    /// The same, where it is the right to it that is missing.
    Denied(String),
}

impl ControlCommand {
    /// What one needs for it.
    pub fn right(&self) -> Right {
        match self {
            Self::Status => Right::Read,
            Self::Reload | Self::RemoveLast { .. } | Self::Kick(_) => Right::Command,
        }
    }

    /// The name of the command in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Reload => "reload",
            Self::RemoveLast { .. } => "remove-last",
            Self::Kick(_) => "kick",
        }
    }
}
