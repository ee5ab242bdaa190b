//! The checked configuration: what runs is built from these types and from nothing else.
//!
//! Every path is anchored (absolute, or relative to a base that stays valid after daemonising),
//! every default is filled in, and each value remembers who decided it ([`Origin`]).

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use super::endpoint::{Endpoint, Host};
use super::location::SourceLocation;
use crate::secrets::{KeyFileRules, KeyFileWriter, Password, TicketKey};

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
    Said(SourceLocation),
    /// Nobody: it is this dialect's default.
    Default(Dialect),
}

/// A value and who decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved<T> {
    /// The value itself.
    pub value: T,
    /// Who decided it.
    pub origin: Origin,
}

impl<T> Resolved<T> {
    /// A value that the operator wrote at `place`.
    pub fn said(value: T, place: SourceLocation) -> Self {
        Self { value, origin: Origin::Said(place) }
    }

    /// A value that nobody wrote.
    pub fn default(value: T, dialect: Dialect) -> Self {
        Self { value, origin: Origin::Default(dialect) }
    }

    /// The same decision about something made of the value.
    pub(super) fn map<U>(self, make: impl FnOnce(T) -> U) -> Resolved<U> {
        Resolved { value: make(self.value), origin: self.origin }
    }

    /// Where it was written, if it was.
    pub fn place(&self) -> Option<&SourceLocation> {
        match &self.origin {
            Origin::Said(place) => Some(place),
            Origin::Default(_) => None,
        }
    }
}

impl<T> Deref for Resolved<T> {
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
    /// Who may look from outside, and give orders.
    pub control: ControlConfig,
    /// What is served over HTTP.
    pub http: HttpConfig,
    /// How long sessions may go on after SIGTERM.
    pub drain_timeout: Resolved<Duration>,
    /// Whether a change of its files asks for a reload. Key files are always watched.
    pub watch_configuration: Resolved<bool>,
    /// How many restrictions of a stunnel.conf stand in comments, which stunnel ignores.
    pub in_comments: usize,
    /// At least one.
    pub services: Vec<ServiceConfig>,
    /// Where values stand that hold for every service which says nothing else.
    pub shared: Vec<SourceLocation>,
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
    pub foreground: Resolved<Foreground>,
    /// The file that holds the process's number while it runs.
    pub pid: Option<Resolved<PathBuf>>,
    /// The directory that becomes the root of the file system once the ports are bound. The log and
    /// the pid file are opened inside it.
    pub chroot: Option<Resolved<PathBuf>>,
    /// Whom to become then.
    pub account: Account,
    /// Whether it gives up, once it serves, what a tunnel does not need.
    pub sandbox: Resolved<bool>,
    /// How many threads carry sessions, from its start to its end.
    pub threads: Resolved<u32>,
}

/// The socket over which a running program is asked and ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// Whether there is one.
    pub enabled: Resolved<bool>,
    /// Its path; by default one that is named after the configuration file.
    pub socket: Option<Resolved<PathBuf>>,
    /// Its mode: whoever can connect may look.
    pub mode: Resolved<u32>,
    /// Its group, by name or number.
    pub group: Option<Resolved<String>>,
    /// Users, by name or number, who may also give orders.
    pub users: Vec<Resolved<String>>,
}

/// What is served over HTTP, which nobody but this machine can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Loopback addresses and Unix sockets; none, and there is no HTTP.
    pub listen: Vec<Resolved<Endpoint>>,
    /// How many identities get a label of their own in metrics.
    pub labels: Resolved<u32>,
}

/// A user and a group, by name or number.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// The user.
    pub user: Option<Resolved<String>>,
    /// The group; unset is the user's own.
    pub group: Option<Resolved<String>>,
}

impl Config {
    /// Whether it serves the one connection that it is started with, as inetd's programs do.
    pub fn is_inetd(&self) -> bool {
        self.services.iter().any(|service| matches!(service.source, ConnectionSource::Stdio))
    }
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

/// What tells the log lines of one connection from another's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogId {
    /// Its number since the start of the program.
    #[default]
    Sequential,
    /// A text that no other connection has, of this program or another.
    Unique,
    /// The number of the thread that writes the line.
    Thread,
    /// The number of the process.
    Process,
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
    pub level: Resolved<Level>,
    /// How a line looks.
    pub format: Resolved<LogFormat>,
    /// The file; standard error when unset.
    pub output: Option<Resolved<PathBuf>>,
    /// Whether opening the file empties it.
    pub overwrite: Resolved<bool>,
    /// How large the file may become, in bytes, before it is moved aside.
    pub max_size: Option<Resolved<u64>>,
    /// Whether the log also goes to syslog, as it does for a stunnel.conf that does not forbid it.
    pub syslog: Resolved<bool>,
    /// The facility's number (RFC 5424, 6.2.1).
    pub facility: Resolved<u32>,
    /// What syslog calls the program.
    pub ident: Resolved<String>,
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
    pub at: Resolved<Endpoint>,
    /// A machine without that address is no mistake: it was added by the meaning of "a port alone", or
    /// it is one of several in a stunnel.conf. One of a service's addresses must be there all the same.
    pub optional: bool,
}

/// Where the connections of a service come from.
#[derive(Debug, Clone)]
pub enum ConnectionSource {
    /// From whoever connects to these addresses; at least one.
    Listeners(Vec<Listen>),
    /// One connection, which standard input and output are already (inetd).
    Stdio,
    /// One connection at a time, which a program that is started for it has with us.
    Program {
        /// The program.
        program: Program,
        /// After which pause it is started again when a connection has ended; none is never.
        retry: Resolved<Option<Duration>>,
    },
    /// From those clients of another server service that send such a name in SNI.
    ServerName {
        /// The service that they connect to.
        of: Resolved<String>,
        /// The names.
        pattern: NamePattern,
    },
}

/// Server names: one, or with a leading `*` all that end in the rest. Names know no case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    any_beginning: bool,
    text: String,
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.any_beginning { "*" } else { "" }, self.text)
    }
}

impl NamePattern {
    /// Reads a pattern; any text is one.
    pub fn new(text: &str) -> Self {
        match text.strip_prefix('*') {
            Some(rest) => Self { any_beginning: true, text: rest.to_ascii_lowercase() },
            None => Self { any_beginning: false, text: text.to_ascii_lowercase() },
        }
    }

    /// Whether this name, as a client sent it, is meant.
    pub fn matches(&self, name: &[u8]) -> bool {
        let text = self.text.as_bytes();
        let start = name.len().checked_sub(text.len());
        let end = start.and_then(|start| name.get(start..));
        let fits = self.any_beginning || start == Some(0);
        fits && end.is_some_and(|end| end.eq_ignore_ascii_case(text))
    }
}

/// Where the connections of a service go.
#[derive(Debug, Clone)]
pub enum Target {
    /// To the first of these that answers; at least one.
    Connect(Vec<Resolved<Endpoint>>),
    /// To a program, started for each of them.
    Exec(Program),
    /// To wherever the peer asks for, by SOCKS.
    Asked,
    /// To wherever each was meant to go before it was redirected here.
    Original,
}

/// A program that serves one connection on its standard input and output.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its file.
    pub path: Resolved<PathBuf>,
    /// Its arguments, its name first; at least that one.
    pub arguments: Vec<String>,
    /// Whether its standard error goes to the peer too, as it does with stunnel unless that logs to
    /// its own standard error.
    pub errors_to_peer: bool,
    /// Whether it has a terminal of its own in place of a socket.
    pub pty: Resolved<bool>,
    /// What its environment has besides ours, or has not.
    pub environment: Vec<Variable>,
}

impl Program {
    /// Whether the same would be started, wherever it was written.
    pub fn is_like(&self, other: &Self) -> bool {
        let all = |program: &Self| {
            let Self { path, arguments, errors_to_peer, pty, environment } = program.clone();
            (path.value, arguments, errors_to_peer, pty.value, environment)
        };
        all(self) == all(other)
    }
}

/// A variable of the environment. Its value is not printed: it may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value; none, and it is not there.
    pub value: Option<String>,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Variable({})", self.name)
    }
}

/// What is spoken around TLS, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NegotiationKind {
    /// An HTTP proxy is asked for the way.
    Connect,
    /// A server is told where to connect.
    Socks,
}

/// What is spoken around TLS.
#[derive(Debug, Clone)]
pub enum Negotiation {
    /// A client asks an HTTP proxy for the way to its server.
    Connect(HttpConnect),
    /// A server is told by its peer where to connect, and a client tells its server.
    Socks,
}

/// What an HTTP proxy is asked for.
#[derive(Debug, Clone)]
pub struct HttpConnect {
    /// The server, HOST:PORT.
    pub host: String,
    /// Who asks: a name and a password.
    pub credentials: Option<(String, Password)>,
    /// More headers, each a line.
    pub headers: Vec<String>,
}

impl HttpConnect {
    /// The server's name, where it has one.
    pub fn name(&self) -> Option<&str> {
        let host = self.host.rsplit_once(':').map_or(self.host.as_str(), |(host, _)| host);
        let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
        (!is_address && !host.is_empty()).then_some(host)
    }
}

/// Whose addresses are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transparent {
    /// Nobody's.
    None,
    /// Connections are made from the peer's address.
    ConnectionSource,
    /// Connections are made to where the peer's was meant to go.
    Destination,
    /// From the one and to the other.
    Both,
}

impl Transparent {
    /// Whether the peer's address is kept.
    pub fn source(self) -> bool {
        matches!(self, Self::ConnectionSource | Self::Both)
    }

    /// Whether it goes where it was meant to go.
    pub fn destination(self) -> bool {
        matches!(self, Self::Destination | Self::Both)
    }
}

/// What is said to a backend before the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The line of text of the PROXY protocol's first version.
    V1,
    /// The second version's bytes, with the identity and what TLS came to.
    V2,
}

/// The order in which several `connect` addresses are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failover {
    /// Always from the first.
    Priority,
    /// Each connection begins one further along than the one before, from a random start.
    RoundRobin,
}

/// One `[services.NAME]` or `[NAME]`.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// Its name, shown in logs.
    pub name: Resolved<String>,
    /// The language of its file: advice about options is given in it.
    pub dialect: Dialect,
    /// Which side wears TLS.
    pub mode: Resolved<Mode>,
    /// Where its connections come from.
    pub source: ConnectionSource,
    /// Who owns its Unix sockets; the process itself if unset.
    pub owner: Account,
    /// Where they go.
    pub target: Target,
    /// In which order several addresses are tried.
    pub failover: Resolved<Failover>,
    /// The address from which TCP connections are made; the system chooses if unset.
    pub local: Option<Resolved<Host>>,
    /// Whose addresses are kept.
    pub transparent: Resolved<Transparent>,
    /// What is spoken around TLS.
    pub negotiation: Option<Resolved<Negotiation>>,
    /// Whether a SOCKS peer is connected to addresses of this machine's interfaces, too.
    pub socks_allow_own: Resolved<bool>,
    /// What is said to the backend before the data. Never set for a client.
    pub preface: Option<Resolved<ProxyHeader>>,
    /// The least important level that is logged of it; the process's if unset.
    pub log_level: Option<Resolved<Level>>,
    /// What tells the log lines of one connection from another's.
    pub log_id: Resolved<LogId>,
    /// How the peer proves itself.
    pub psk: PskConfig,
    /// Versions, suites and groups.
    pub tls: TlsConfig,
    /// The four clocks of a session.
    pub timeouts: Timeouts,
    /// What strangers and members may use up.
    pub limits: Limits,
    /// From where connections are accepted; everywhere if empty.
    pub allow_from: Vec<Resolved<IpRange>>,
    /// The proxies that say in a PROXY header for whom they connect.
    pub proxies: Vec<Resolved<IpRange>>,
    /// What becomes of a session whose key is gone.
    pub on_revocation: Resolved<OnRevocation>,
    /// Rules for single identities. Always empty for a client.
    pub identities: Vec<IdentityConfig>,
    /// What is set on sockets.
    pub sockets: Sockets,
    /// Overrides the endings table: yes resets on every error, no never does, unset is the table.
    pub reset: Option<Resolved<bool>>,
}

impl ServiceConfig {
    /// The addresses that it listens on itself.
    pub fn accept(&self) -> &[Listen] {
        match &self.source {
            ConnectionSource::Listeners(listens) => listens,
            ConnectionSource::Stdio
            | ConnectionSource::Program { .. }
            | ConnectionSource::ServerName { .. } => &[],
        }
    }

    /// The program that it starts, for each connection or as the one that connects, if it does.
    pub fn program(&self) -> Option<&Program> {
        match (&self.target, &self.source) {
            (Target::Exec(program), _) | (_, ConnectionSource::Program { program, .. }) => {
                Some(program)
            }
            (Target::Connect(_) | Target::Asked | Target::Original, _) => None,
        }
    }

    /// The addresses that it connects to.
    pub fn connect(&self) -> &[Resolved<Endpoint>] {
        match &self.target {
            Target::Connect(targets) => targets,
            Target::Exec(_) | Target::Asked | Target::Original => &[],
        }
    }
}

/// Pre-shared keys of a service.
#[derive(Debug, Clone)]
pub struct PskConfig {
    /// Files, or directories of files, with `identity:key` lines; at least one.
    pub secrets: Vec<Resolved<PathBuf>>,
    /// Whether the first of them is the one line that a Beremiz runtime writes.
    pub runtime_file: Resolved<bool>,
    /// Whether the service begins before they exist.
    pub wait_for_keys: Resolved<bool>,
    /// The identity that a client presents; the first of the first file when unset. Never set for a
    /// server.
    pub identity: Option<Resolved<Vec<u8>>>,
    /// How strictly the files are read.
    pub rules: KeyFileRules,
    /// The hash that a TLS 1.3 external PSK is bound to (RFC 9846, 4.3.11; RFC 8446, 4.2.11).
    pub hash: Resolved<PskHash>,
    /// The operator said that a client and a server service of this file may share a key (RFC 9257,
    /// 4.1: otherwise a peer can be made to talk to itself).
    pub allow_shared_keys: Resolved<bool>,
}

impl PskConfig {
    /// The files and folders, each with who writes it.
    pub fn paths(&self) -> impl Iterator<Item = (&Path, KeyFileWriter)> {
        let paths = self.secrets.iter().enumerate();
        paths.map(|(n, path)| (path.value.as_path(), self.rules.writer_of_path(n)))
    }
}

/// The hash of a TLS 1.3 external PSK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PskHash {
    /// What every peer assumes (RFC 9846, 4.3.11; RFC 8446, 4.2.11).
    Sha256,
    /// Only by agreement with the peer.
    Sha384,
}

impl PskHash {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
        }
    }
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

/// The switches of OpenSSL's, SSL_CTX_set_options(3), that may be turned: those that neither forbid
/// a version (the range of versions does that) nor bring back what is off for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsSwitch {
    /// `ALL`, the harmless workarounds.
    All,
    /// `CIPHER_SERVER_PREFERENCE`
    CipherServerPreference,
    /// `PRIORITIZE_CHACHA`
    PrioritizeChacha,
    /// `ENABLE_MIDDLEBOX_COMPAT`
    MiddleboxCompat,
    /// `NO_ENCRYPT_THEN_MAC`
    NoEncryptThenMac,
    /// `NO_EXTENDED_MASTER_SECRET`
    NoExtendedMasterSecret,
    /// `DONT_INSERT_EMPTY_FRAGMENTS`
    DontInsertEmptyFragments,
    /// `TLSEXT_PADDING`
    Padding,
    /// `CLEANSE_PLAINTEXT`
    CleansePlaintext,
    /// `TLS_ROLLBACK_BUG`
    RollbackBug,
    /// `LEGACY_SERVER_CONNECT`
    LegacyServerConnect,
    /// `NO_TICKET`: a client asks for no ticket in 1.2; a server gives none, and resumes only up to 1.2, by
    /// session ID.
    NoTicket,
}

/// Versions, suites and groups.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The oldest version that is accepted.
    pub min: Resolved<TlsVersion>,
    /// The newest version that is offered.
    pub max: Resolved<TlsVersion>,
    /// OpenSSL list of suites up to 1.2; what is not PSK, and every NULL cipher, is filtered out.
    pub ciphers: Resolved<String>,
    /// Whose order of suites decides at a server.
    pub cipher_order: Resolved<CipherOrder>,
    /// OpenSSL list of 1.3 suites; unset chooses by the PSK's hash and this CPU.
    pub ciphersuites: Option<Resolved<String>>,
    /// OpenSSL list of key exchange groups.
    pub groups: Resolved<String>,
    /// Whether a group that this OpenSSL does not have is left out, as long as another one is left.
    pub skips_unknown_groups: bool,
    /// OpenSSL's security level; unset is the library's default.
    pub security_level: Option<Resolved<u8>>,
    /// Switches of OpenSSL's that somebody turned, on or off.
    pub switches: Vec<(TlsSwitch, bool)>,
    /// The name a client sends in SNI; unset sends the host of the address it connects to, empty
    /// sends none. Never set for a server.
    pub server_name: Option<Resolved<String>>,
    /// Whether and how sessions are resumed.
    pub resumption: Resumption,
    /// After how much of a direction its keys are changed, in TLS 1.3.
    pub rekey_after: Resolved<RekeyAfter>,
}

/// How much is protected with one key: records or bytes, whichever is reached first. AES-GCM's bound is
/// 2^24.5 records (RFC 9846, 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyAfter {
    /// Records of application data.
    pub records: u32,
    /// Their plain text.
    pub bytes: u64,
}

impl RekeyAfter {
    /// The most that can be configured, and the default: a third of the bound in records, and as much as so many
    /// whole records hold (128 GiB). A peer that does not change its keys by itself is asked after twice as many.
    pub const MAX: Self = Self { records: 1 << 23, bytes: 1 << 37 };
}

impl Default for RekeyAfter {
    fn default() -> Self {
        Self::MAX
    }
}

/// How sessions are resumed without the pre-shared key being used again (RFC 9846 and 8446, 2.2; RFC 5077).
#[derive(Debug, Clone)]
pub struct Resumption {
    /// Whether they are.
    pub enabled: Resolved<bool>,
    /// How many of them a client keeps, and a server for clients without tickets; 0 is the default.
    pub cache_size: Resolved<u32>,
    /// For how long a session can be resumed.
    pub timeout: Resolved<Duration>,
    /// What the keys of a server's tickets are made from; random if unset. Never set for a client.
    pub secret: Option<TicketSecret>,
}

/// Both halves of it.
#[derive(Debug, Clone)]
pub struct TicketSecret {
    /// `ticketKeySecret`
    pub key: Resolved<TicketKey>,
    /// `ticketMacSecret`
    pub mac: Resolved<TicketKey>,
}

impl TlsConfig {
    /// Whether sessions are resumed: with tickets, or up to TLS 1.2 by ID.
    pub fn resumes(&self) -> bool {
        let Resumption { enabled, timeout, .. } = &self.resumption;
        enabled.value && !timeout.value.is_zero()
    }

    /// Whether a server gives tickets. In TLS 1.3 nothing is resumed without them.
    pub fn issues_tickets(&self) -> bool {
        let no_ticket = self.switches.iter().rfind(|(switch, _)| *switch == TlsSwitch::NoTicket);
        self.resumes() && no_ticket.is_none_or(|(_, on)| !on)
    }
}

/// The clocks of a session, and none of them counts wall time.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// From accept to the end of the handshake, in total.
    pub handshake: Resolved<Duration>,
    /// For each address that is tried.
    pub connect: Resolved<Duration>,
    /// Silence of both directions while both are open.
    pub idle: Resolved<Duration>,
    /// Silence after one direction has ended.
    pub close: Resolved<Duration>,
    /// How long a session may last before it is ended at a quiet moment; for ever if unset.
    pub lifetime: Option<Resolved<Duration>>,
}

/// What strangers and members may use up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sessions at once; unset shares what the limit of descriptors leaves with other services.
    pub max_sessions: Option<Resolved<u32>>,
    /// Sessions at once from one source.
    pub per_source: Option<Resolved<u32>>,
    /// Sessions at once of one identity that says nothing else.
    pub per_identity: Option<Resolved<u32>>,
    /// What becomes of a newcomer when one of these three is reached.
    pub when_full: Resolved<WhenFull>,
    /// How long a backend that serves one connection is left alone between two.
    pub backend_pause: Resolved<Duration>,
    /// Handshakes at once; unset shares the process's with other services.
    pub max_handshakes: Option<Resolved<u32>>,
}

/// What becomes of a newcomer when a limit on sessions is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is turned away.
    Refuse,
    /// The oldest session under that limit makes way for it.
    TakeOver,
    /// The same, if that session is of the newcomer's own identity.
    TakeOverOwn,
    /// The same, if that session is of the newcomer's own identity and source; or of its identity, and the
    /// peer is found dead.
    TakeOverSameHost,
}

/// Whose order of suites decides at a server (RFC 9325, 4.2.1 leaves it to the server).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherOrder {
    /// The server's own.
    Server,
    /// The client's, as with OpenSSL and stunnel unless they are told otherwise.
    Client,
}

/// What becomes of a session whose key was removed or changed, or which would not be let in from its
/// address any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRevocation {
    /// It is cut at once.
    Cut,
    /// It may go on to its own end.
    Keep,
    /// It is cut after this time.
    Grace(Duration),
}

/// An address, or a network of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange(ipnet::IpNet);

impl IpRange {
    /// All addresses of that network.
    pub fn new(network: ipnet::IpNet) -> Self {
        Self(network)
    }

    /// Whether these are all addresses of a family.
    pub fn is_all(&self) -> bool {
        self.0.prefix_len() == 0
    }

    /// Whether this address is one of them.
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl std::fmt::Display for IpRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

/// One `[services.NAME.identities.NAME]`: what holds for an identity alone.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// Its name, in logs, limits and metrics.
    pub name: Resolved<Vec<u8>>,
    /// The identities on the wire that are this one; at least one.
    pub wire: Vec<Resolved<Vec<u8>>>,
    /// From where it is taken; from wherever the service is if empty.
    pub allow_from: Vec<Resolved<IpRange>>,
    /// Its own backend; the service's if empty.
    pub connect: Vec<Resolved<Endpoint>>,
    /// Sessions at once, in place of the service's limit for each identity.
    pub max_sessions: Option<Resolved<u32>>,
    /// The first moment at which its keys are not taken any more.
    pub expires: Option<Resolved<jiff::Timestamp>>,
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
    pub keepalive: Resolved<Option<Keepalive>>,
    /// On listeners, before bind.
    pub accept: Vec<Resolved<SocketOption>>,
    /// On accepted connections.
    pub downstream: Vec<Resolved<SocketOption>>,
    /// On connections that are made, before connect.
    pub upstream: Vec<Resolved<SocketOption>>,
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
