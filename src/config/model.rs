//! The checked configuration: what runs is built from these types and from nothing else.
//!
//! Every path is anchored (absolute, or relative to a base that stays valid after daemonising),
//! every default is filled in, and each value remembers who decided it ([`Origin`]).

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::Place;
pub use super::endpoint::{Endpoint, Host};
use crate::secrets::Rules;

/// Which language a file was written in. Only defaults and severities differ; what runs is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// pskgate's own TOML.
    Native,
    /// A `stunnel.conf`.
    Stunnel,
}

/// Who decided a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The operator, here.
    Said(Place),
    /// Nobody: it is this dialect's default.
    Default(Dialect),
}

/// A value and who decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided<T> {
    /// The value itself.
    pub value: T,
    /// Who decided it.
    pub origin: Origin,
}

impl<T> Decided<T> {
    /// A value that the operator wrote at `place`.
    pub fn said(value: T, place: Place) -> Self {
        Self { value, origin: Origin::Said(place) }
    }

    /// A value that nobody wrote.
    pub fn default(value: T, dialect: Dialect) -> Self {
        Self { value, origin: Origin::Default(dialect) }
    }

    /// Where it was written, if it was.
    pub fn place(&self) -> Option<&Place> {
        match &self.origin {
            Origin::Said(place) => Some(place),
            Origin::Default(_) => None,
        }
    }
}

impl<T> Deref for Decided<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// All that one file (and what it includes) decided.
#[derive(Debug, Clone)]
pub struct Config {
    /// The language of the file.
    pub dialect: Dialect,
    /// The file itself, as it was named on the command line, anchored.
    pub file: PathBuf,
    /// What relative names in it were joined to.
    pub base: PathBuf,
    /// What is logged, how and where.
    pub log: LogConfig,
    /// What the process does with itself.
    pub process: ProcessConfig,
    /// How long sessions may go on after SIGTERM.
    pub drain_timeout: Decided<Duration>,
    /// At least one.
    pub services: Vec<ServiceConfig>,
}

/// Where the process stays, and to whom it logs meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreground {
    /// In the foreground, and the log also goes to standard error.
    Yes,
    /// In the foreground, without logging to standard error.
    Quiet,
    /// In the background, once everything has started.
    No,
}

/// What the process does with itself.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Native: in the foreground. stunnel.conf: in the background, unless it says otherwise.
    pub foreground: Decided<Foreground>,
    /// The file that holds the process's number while it runs.
    pub pid: Option<Decided<PathBuf>>,
    /// The directory that becomes the root of the file system once the ports are bound. The log and
    /// the pid file are opened inside it.
    pub chroot: Option<Decided<PathBuf>>,
    /// Whom to become then.
    pub account: Account,
}

/// A user and a group, by name or number.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// The user.
    pub user: Option<Decided<String>>,
    /// The group; unset is the user's own.
    pub group: Option<Decided<String>>,
}

/// Syslog's eight severities (RFC 5424, 6.2.1), which stunnel's log uses too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Unusable.
    Emergency = 0,
    /// Act now.
    Alert = 1,
    /// Critical.
    Critical = 2,
    /// What the operator must fix.
    Error = 3,
    /// What the operator should look at.
    Warning = 4,
    /// Normal but worth a line.
    Notice = 5,
    /// One line for a session's start, one for its end, one for a failed handshake.
    Info = 6,
    /// For whoever looks for a fault.
    Debug = 7,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
    /// `YYYY.MM.DD HH:MM:SS LOGn[ID]: text`
    Stunnel,
}

/// What is logged, how and where.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The least important level that is still written.
    pub level: Decided<Level>,
    /// How a line looks.
    pub format: Decided<LogFormat>,
    /// The file; standard error when unset.
    pub output: Option<Decided<PathBuf>>,
    /// Whether opening the file empties it.
    pub overwrite: Decided<bool>,
    /// Whether the log also goes to syslog, as it does for a stunnel.conf that does not forbid it.
    pub syslog: Decided<bool>,
    /// The facility's number (RFC 5424, 6.2.1).
    pub facility: Decided<u32>,
    /// What syslog calls the program.
    pub ident: Decided<String>,
}

/// Which side of a service wears TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Accepts plain, connects TLS.
    Client,
    /// Accepts TLS, connects plain.
    Server,
}

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where. Its host is never [`Host::Unspecified`]: a port alone has become the addresses it means.
    pub at: Decided<Endpoint>,
    /// Added by the meaning of "a port alone" and not written as such: a host without that address
    /// family is no mistake.
    pub optional: bool,
}

/// The order in which several `connect` addresses are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failover {
    /// Always from the first.
    Priority,
    /// From the one after the last used.
    RoundRobin,
}

/// One `[services.NAME]` or `[NAME]`.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// Its name, shown in logs.
    pub name: Decided<String>,
    /// Which side wears TLS.
    pub mode: Decided<Mode>,
    /// Where it listens; at least one.
    pub accept: Vec<Listen>,
    /// Who owns its Unix sockets; the process itself if unset.
    pub owner: Account,
    /// Whom it connects to; at least one.
    pub connect: Vec<Decided<Endpoint>>,
    /// In which order.
    pub failover: Decided<Failover>,
    /// How the peer proves itself.
    pub auth: Authentication,
    /// Versions, suites and groups.
    pub tls: TlsConfig,
    /// The four clocks of a session.
    pub timeouts: Timeouts,
    /// What strangers and members may use up.
    pub limits: Limits,
    /// What is set on sockets.
    pub sockets: Sockets,
    /// Overrides the endings table: yes resets on every error, no never does, unset is the table.
    pub reset: Option<Decided<bool>>,
}

/// How the peer proves itself. One kind today; certificates would be another.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// A pre-shared key.
    Psk(PskConfig),
}

/// Pre-shared keys of a service.
#[derive(Debug, Clone)]
pub struct PskConfig {
    /// Files, or directories of files, with `identity:key` lines; at least one.
    pub secrets: Vec<Decided<PathBuf>>,
    /// The identity that a client presents; the first of the first file when unset. Never set for a
    /// server.
    pub identity: Option<Decided<Vec<u8>>>,
    /// How strictly the files are read.
    pub rules: Rules,
    /// The hash that a TLS 1.3 external PSK is bound to (RFC 8446, 4.2.11).
    pub hash: Decided<PskHash>,
    /// The operator said that a client and a server service of this file may share a key (RFC 9257,
    /// 4.1: otherwise a peer can be made to talk to itself).
    pub allow_shared_keys: Decided<bool>,
}

/// The hash of a TLS 1.3 external PSK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PskHash {
    /// What every peer assumes (RFC 8446, 4.2.11).
    Sha256,
    /// Only by agreement with the peer.
    Sha384,
}

/// A protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.0, for old peers only.
    Tls10,
    /// TLS 1.1, for old peers only.
    Tls11,
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// Versions, suites and groups.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The oldest version that is accepted.
    pub min: Decided<TlsVersion>,
    /// The newest version that is offered.
    pub max: Decided<TlsVersion>,
    /// OpenSSL list of suites up to 1.2; what is not PSK, and every NULL cipher, is filtered out.
    pub ciphers: Decided<String>,
    /// OpenSSL list of 1.3 suites; unset chooses by the PSK's hash and this CPU.
    pub ciphersuites: Option<Decided<String>>,
    /// OpenSSL list of key exchange groups.
    pub groups: Decided<String>,
    /// OpenSSL's security level; unset is the library's default.
    pub security_level: Option<Decided<u8>>,
    /// The name a client sends in SNI; unset sends the host of the address it connects to, empty
    /// sends none. Never set for a server.
    pub server_name: Option<Decided<String>>,
}

/// The four clocks of a session, and none of them counts wall time.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// From accept to the end of the handshake, in total.
    pub handshake: Decided<Duration>,
    /// For each address that is tried.
    pub connect: Decided<Duration>,
    /// Silence of both directions while both are open.
    pub idle: Decided<Duration>,
    /// Silence after one direction has ended.
    pub close: Decided<Duration>,
}

/// What strangers and members may use up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sessions at once; unset shares what the limit of descriptors leaves with other services.
    pub max_sessions: Option<Decided<u32>>,
    /// Handshakes at once; unset shares the process's with other services.
    pub max_handshakes: Option<Decided<u32>>,
}

/// When TCP gives up a silent peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes before the connection is dead.
    pub count: u32,
}

/// What is set on sockets. The lists come after everything that the program sets by itself.
#[derive(Debug, Clone)]
pub struct Sockets {
    /// On the TLS side; unset leaves keepalive to the lists.
    pub keepalive: Decided<Option<Keepalive>>,
    /// On listeners, before bind.
    pub accept: Vec<Decided<SocketOption>>,
    /// On accepted connections.
    pub downstream: Vec<Decided<SocketOption>>,
    /// On connections that are made, before connect.
    pub upstream: Vec<Decided<SocketOption>>,
}

/// A socket option and its value, under the names of socket(7), tcp(7) and ip(7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketOption {
    /// `SO_DEBUG`
    Debug(bool),
    /// `SO_DONTROUTE`
    DontRoute(bool),
    /// `SO_KEEPALIVE`
    KeepAlive(bool),
    /// `SO_LINGER`: off, or on for so many seconds
    Linger(Option<u16>),
    /// `SO_OOBINLINE`
    OobInline(bool),
    /// `SO_RCVBUF`, bytes
    ReceiveBuffer(u32),
    /// `SO_SNDBUF`, bytes
    SendBuffer(u32),
    /// `SO_RCVLOWAT`, bytes
    ReceiveLowWater(u32),
    /// `SO_SNDLOWAT`, bytes
    SendLowWater(u32),
    /// `SO_RCVTIMEO`
    ReceiveTimeout(Duration),
    /// `SO_SNDTIMEO`
    SendTimeout(Duration),
    /// `SO_REUSEADDR`
    ReuseAddress(bool),
    /// `SO_BINDTODEVICE`
    BindToDevice(String),
    /// `TCP_KEEPCNT`
    KeepAliveCount(u32),
    /// `TCP_KEEPIDLE`, seconds
    KeepAliveIdle(u32),
    /// `TCP_KEEPINTVL`, seconds
    KeepAliveInterval(u32),
    /// `IP_TOS`
    TypeOfService(u8),
    /// `IP_TTL`
    TimeToLive(u8),
    /// `TCP_NODELAY`
    NoDelay(bool),
    /// `IP_FREEBIND`
    FreeBind(bool),
    /// `IPV6_V6ONLY`
    Ipv6Only(bool),
}
