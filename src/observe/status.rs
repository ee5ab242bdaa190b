//! What a running program tells about itself, by value: `status` prints it, the control socket and
//! the HTTP endpoint carry it, metrics are made from it.
//!
//! Never a key, and never a stranger's byte: identities are those of the key files, in the escaped
//! form that logs use too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole program at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// pskgate's version.
    pub version: String,
    /// The OpenSSL that it runs with, in that library's words.
    pub openssl: String,
    /// The process's number.
    pub pid: u32,
    /// The name of this machine; empty where the system does not tell.
    #[serde(default)]
    pub host: String,
    /// The configuration file, anchored.
    pub file: String,
    /// `running`, `draining` or `stopping`.
    pub phase: String,
    /// When this was written down (RFC 3339, UTC).
    pub now: String,
    /// When the program started (RFC 3339, UTC).
    pub started: String,
    /// Seconds since then, by a clock that does not jump.
    pub uptime: f64,
    /// What reloads have come to.
    pub reloads: ReloadSummary,
    /// In the order of the file.
    pub services: Vec<ServiceStatus>,
    /// Log lines that could not be written.
    pub log_lines_lost: u64,
}

/// From so many identities and sessions on, writing a status takes milliseconds.
pub const LARGE_STATUS_ITEMS: usize = 1000;

impl Status {
    /// Whether that takes so long that nobody else should wait for it.
    pub fn is_large(&self) -> bool {
        let lines = |service: &ServiceStatus| service.identities.len() + service.sessions.len();
        self.services.iter().map(lines).sum::<usize>() >= LARGE_STATUS_ITEMS
    }
}

/// What reloads have come to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReloadSummary {
    /// How many took effect.
    pub done: u64,
    /// How many were refused and changed nothing.
    pub failed: u64,
    /// The last one.
    pub last: Option<ReloadStatus>,
    /// Since when something on disk differs from what is in force (RFC 3339, UTC); none if nothing does.
    #[serde(default)]
    pub differs_since: Option<String>,
}

/// One reload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReloadStatus {
    /// When it ended (RFC 3339, UTC).
    pub time: String,
    /// Who asked: `SIGHUP`, `changed files`, `control socket`.
    pub who: String,
    /// Whether it took effect.
    pub done: bool,
    /// Why not, in a line; empty when it did.
    pub error: String,
    /// What was found on the way, a line each: errors first, then warnings.
    pub findings: Vec<String>,
}

/// One service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceStatus {
    /// Its name in the configuration.
    pub name: String,
    /// `client` or `server`.
    pub mode: String,
    /// The addresses that it listens on, with their real ports.
    pub listeners: Vec<String>,
    /// The addresses that it does without until they can be had.
    #[serde(default)]
    pub missing_listeners: Vec<MissingListener>,
    /// Where its connections go.
    pub targets: Vec<String>,
    /// How many identities its key files hold.
    pub keys: usize,
    /// What is tolerated in its key files or missing of them, a line each.
    #[serde(default)]
    pub key_warnings: Vec<String>,
    /// The most sessions that it may have at once.
    pub max_sessions: usize,
    /// Handshakes under way.
    pub handshakes: usize,
    /// Sessions that were opened since the start.
    pub opened: u64,
    /// Bytes since the start, over sessions that have ended and those that are open: from downstream
    /// to upstream.
    pub bytes_up: u64,
    /// And from upstream to downstream.
    pub bytes_down: u64,
    /// Records of TLS from downstream to upstream, over the same sessions.
    pub records_up: u64,
    /// Records of TLS from upstream to downstream.
    pub records_down: u64,
    /// How often the keys of TLS were changed from downstream to upstream.
    pub key_updates_up: u64,
    /// How often they were changed from upstream to downstream.
    pub key_updates_down: u64,
    /// Connections that became no session, by cause.
    pub refused: BTreeMap<String, u64>,
    /// Sessions that have ended, by the kind of their end.
    pub ended: BTreeMap<String, u64>,
    /// The last thing that went wrong beyond this end, where who connected sees only a reset: a target
    /// that did not answer, and at a client end whatever became of TLS.
    pub last_failure: Option<FailureStatus>,
    /// The last connections that became no session, the newest first.
    #[serde(default)]
    pub recent_refusals: Vec<RefusalStatus>,
    /// The open sessions, oldest first.
    pub sessions: Vec<SessionStatus>,
    /// Who may come, in the order of the key files.
    pub identities: Vec<IdentityStatus>,
}

/// An address that a service cannot have for now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MissingListener {
    /// Which.
    pub address: String,
    /// Why, in the system's words.
    pub error: String,
}

/// Something that went wrong.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FailureStatus {
    /// When (RFC 3339, UTC).
    pub time: String,
    /// In words.
    pub words: String,
}

/// A connection that was refused, and those like it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RefusalStatus {
    /// When the last of them was (RFC 3339, UTC).
    pub time: String,
    /// Who connected, the last time.
    pub peer: String,
    /// The name on the wire, if it was in the key files.
    pub identity: Option<String>,
    /// Why; `pskgate explain` has a page for each.
    pub cause: String,
    /// How often the same came from the same address.
    pub count: u64,
}

/// One open session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SessionStatus {
    /// Its number, as in the log; `kick` takes it.
    pub number: u64,
    /// Whose key it was.
    pub identity: String,
    /// The name on the wire, where that is another one.
    pub wire: Option<String>,
    /// The downstream peer.
    pub peer: String,
    /// The upstream address.
    pub target: String,
    /// Such as `TLSv1.3`.
    pub version: String,
    /// OpenSSL's name of the suite.
    pub suite: String,
    /// The key exchange group, where the library tells.
    pub group: Option<String>,
    /// Seconds since it was let in.
    pub age: f64,
    /// Seconds since a byte moved.
    pub idle: f64,
    /// Bytes from downstream to upstream.
    pub bytes_up: u64,
    /// Bytes from upstream to downstream.
    pub bytes_down: u64,
    /// Records of TLS from downstream to upstream.
    pub records_up: u64,
    /// Records of TLS from upstream to downstream.
    pub records_down: u64,
    /// How often the keys of TLS were changed from downstream to upstream.
    pub key_updates_up: u64,
    /// How often they were changed from upstream to downstream.
    pub key_updates_down: u64,
    /// Bytes a second over the last second or so.
    pub rate_up: u64,
    /// The same of the other direction.
    pub rate_down: u64,
}

/// One identity of a service's key files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IdentityStatus {
    /// The name on the wire.
    pub wire: String,
    /// To whom it belongs: itself, unless the configuration says otherwise.
    pub identity: String,
    /// The key file.
    pub file: String,
    /// The line in it, from 1.
    pub line: u32,
    /// When its key was proven last since the start (RFC 3339, UTC).
    pub last_use: Option<String>,
    /// How often it was.
    pub uses: u64,
    /// Its open sessions.
    pub sessions: usize,
    /// When its key stops to be taken (RFC 3339, UTC).
    pub expires: Option<String>,
    /// Whether that moment has come.
    pub expired: bool,
}
