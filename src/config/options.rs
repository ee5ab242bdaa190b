//! The table of options: one row an option, and nothing is an option without a row.
//!
//! A row names an option in both dialects, says how its text is read, what holds when nobody says
//! anything, and what it is for. The readers, the checks and the manual all work from it.

use super::model::Dialect;

/// The table of the native file in which an option stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TomlTable {
    /// `[log]`
    Log,
    /// Before the first table.
    Top,
    /// `[control]`
    Control,
    /// `[http]`
    Http,
    /// `[defaults]` and `[services.NAME]`
    Service,
    /// `[services.NAME.identities.NAME]`
    Identity,
}

/// Where stunnel knows an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StunnelScope {
    /// Before the first `[section]` only.
    Global,
    /// In a section; before the first section it is a default for all of them.
    Service,
}

/// One value or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// The last one counts.
    One,
    /// In a stunnel.conf each line adds one, to the global ones too. In a native file the list of a
    /// service replaces that of the defaults.
    List,
}

/// How an option's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Native: with units, `1h30m`. stunnel: whole seconds.
    Duration {
        /// Whether nothing at all is a sensible length.
        zero: bool,
    },
    /// A whole number.
    Count {
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
    },
    /// Native: true or false. stunnel: yes or no.
    Bool,
    /// The name of a file.
    Path,
    /// The name of a file or directory of keys, or, by mistake, a key itself.
    Secrets,
    /// An address to listen on.
    Listen,
    /// An address to connect to.
    Connect,
    /// `client` or `server`; stunnel's `client = yes`.
    Mode,
    /// The order of several addresses.
    Failover,
    /// A PSK identity.
    Identity,
    /// The hash of a PSK.
    Hash,
    /// A protocol version; stunnel also knows `all`.
    Version,
    /// A log level; stunnel also puts a syslog facility before it.
    Level,
    /// How a log line looks.
    LogFormat,
    /// Whether a log file goes on or begins anew.
    LogMode,
    /// A facility of syslog's.
    Facility,
    /// Some text, for OpenSSL or a peer.
    Text {
        /// Whether it may be empty.
        empty: bool,
    },
    /// `15s/5s/3`, or off.
    Keepalive,
    /// `SIDE:NAME=VALUE`
    Socket,
    /// stunnel's `foreground`: yes, quiet or no.
    Foreground,
    /// One of OpenSSL's switches, by its name without `SSL_OP_`.
    SslOption,
    /// An address or a name, without a port.
    Host,
    /// Native: one argument. stunnel: all of them, with white space between them.
    Arguments,
    /// What is said to a backend before the data; stunnel's `protocol`.
    Preface,
    /// Whose order of suites decides.
    CipherOrder,
    /// What becomes of a newcomer when there is no room.
    WhenFull,
    /// What becomes of a session whose key is gone: `cut`, `keep` or a grace.
    OnRevocation,
    /// An address, or all of a network: `10.1.0.0/16`.
    Range,
    /// A day, the last one, or a moment (RFC 3339).
    Moment,
    /// The mode of a Unix socket, in octal.
    FileMode,
    /// An amount of bytes, with a unit: `1MB`.
    Size,
    /// `8000000 records, 100GB`, or one of both.
    RekeyAfter,
    /// A key for session tickets, in hexadecimal digits.
    TicketKey,
    /// A variable of the environment, `NAME=VALUE`.
    Variable,
    /// Native: a pause, or off. stunnel: yes (1 s), no or milliseconds.
    Retry,
    /// What tells the lines of one connection from another's.
    LogId,
    /// What is spoken around TLS.
    Negotiation,
    /// Some text that nobody shall read.
    Password,
    /// Whose addresses are kept.
    Transparent,
    /// A switch of stunnel's for OCSP, which is checked and left alone.
    OcspFlag,
    /// Not read, because the option does not work here; its treatment says the rest.
    Raw,
}

/// What becomes of an option that somebody wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It is read, and it decides something.
    Works,
    /// Nothing is lost without it: accepted with a notice that says why.
    Harmless(&'static str),
    /// Needs certificates, beside pre-shared keys too: refused, unless the value is one of these, which
    /// ask for nothing.
    NeedsCertificates(&'static [&'static str]),
    /// Not supported yet: refused, unless the value is one of these, which ask for nothing.
    Later(&'static [&'static str]),
    /// Never: refused with the reason, unless the value is one of these.
    Never(&'static [&'static str], &'static str),
    /// A certificate of our own: noticed beside pre-shared keys, refused without them.
    OwnCertificate,
    /// The check of a peer's certificate: noticed beside pre-shared keys, since every peer must prove the
    /// key; refused without them.
    AboutCertificates,
}

/// One option.
#[derive(Debug)]
pub struct OptionRow {
    /// Which.
    pub opt: OptionId,
    /// Table and key in a native file; unset if there is none.
    pub native: Option<(TomlTable, &'static str)>,
    /// Names in a stunnel.conf, the usual one first; empty if there is none.
    pub stunnel: &'static [&'static str],
    /// Where stunnel knows it; meaningless without a name there.
    pub scope: StunnelScope,
    /// How its text is read.
    pub kind: ValueKind,
    /// One or several.
    pub arity: Arity,
    /// What becomes of it.
    pub treatment: Treatment,
    /// The native default as it would be written; empty if there is none.
    pub native_default: &'static str,
    /// stunnel.conf's default as it would be written; empty if there is none.
    pub stunnel_default: &'static str,
    /// One sentence of manual.
    pub doc: &'static str,
}

impl OptionRow {
    /// The name under which an operator of this dialect knows it.
    pub fn name(&self, dialect: Dialect) -> &'static str {
        let native = self.native.map(|(_, name)| name);
        let stunnel = self.stunnel.first().copied();
        match dialect {
            Dialect::Native => native.or(stunnel),
            Dialect::Stunnel => stunnel.or(native),
        }
        .unwrap_or_default()
    }

    /// The default of this dialect, as it would be written; empty if there is none.
    pub fn default(&self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Native => self.native_default,
            Dialect::Stunnel => self.stunnel_default,
        }
    }
}

impl OptionId {
    /// Its row.
    pub fn row(self) -> &'static OptionRow {
        &TABLE[self as usize]
    }

    /// Whether its value is nobody's to see, whatever else is told of the file.
    pub fn is_secret(self) -> bool {
        matches!(
            self,
            Self::ProtocolPassword
                | Self::ProtocolHeader
                | Self::SetEnv
                | Self::TicketKeySecret
                | Self::TicketMacSecret
        )
    }

    /// The name under which an operator of this dialect knows it.
    pub fn name(self, dialect: Dialect) -> &'static str {
        self.row().name(dialect)
    }
}

/// The row of a key in a table of the native file.
pub fn native(table: TomlTable, key: &str) -> Option<&'static OptionRow> {
    TABLE.iter().find(|row| row.native == Some((table, key)))
}

/// The row of an option of stunnel's, whose names know no case.
pub fn stunnel(name: &str) -> Option<&'static OptionRow> {
    TABLE.iter().find(|row| row.stunnel.iter().any(|n| n.eq_ignore_ascii_case(name)))
}

/// The name nearest to a misspelt one, if one is near enough to be offered.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_ascii_lowercase().replace('_', "-");
    let letters = |s: &str| s.to_ascii_lowercase().replace(|c: char| c.is_ascii_digit(), "");
    names
        .into_iter()
        // Another number is another choice and no slip of the hand.
        .filter(|name| name.eq_ignore_ascii_case(&wrong) || letters(name) != letters(&wrong))
        .map(|name| (strsim::damerau_levenshtein(&wrong, &name.to_ascii_lowercase()), name))
        // A third of the letters may be wrong: more, and the offer is a guess.
        .filter(|(distance, name)| *distance <= name.len().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

macro_rules! table {
    ($($opt:ident [$($table:ident $key:literal)?] [$($name:literal)*] $scope:ident $arity:ident
        $kind:expr, $treatment:expr, $native:literal $stunnel:literal, $doc:literal;)*) => {
        /// An option, by its place in the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(usize)]
        pub enum OptionId { $(#[doc = $doc] $opt,)* }

        /// Every option there is.
        pub static TABLE: &[OptionRow] = &[$(OptionRow {
            opt: OptionId::$opt,
            native: first(&[$((TomlTable::$table, $key))?]),
            stunnel: &[$($name),*],
            scope: StunnelScope::$scope,
            kind: $kind,
            arity: Arity::$arity,
            treatment: $treatment,
            native_default: $native,
            stunnel_default: $stunnel,
            doc: $doc,
        },)*];
    };
}

const fn first(native: &[(TomlTable, &'static str)]) -> Option<(TomlTable, &'static str)> {
    match native {
        [one, ..] => Some(*one),
        [] => None,
    }
}

use Treatment::{
    AboutCertificates, Harmless, Later, NeedsCertificates, Never, OwnCertificate, Works,
};
use ValueKind::{Bool, Count, Duration, Path, Raw, Text};

const RANDOM: &str = "random numbers come from the operating system";
const WINDOWS: &str = "pskgate has no window";
const NO: &[&str] = &["no"];
/// A number that is checked, and then left alone.
const ANY: ValueKind = Count { min: 0, max: u32::MAX };

table! {
    // What is logged.
    LogLevel [Log "level"] ["debug"] Service One ValueKind::Level, Works, "info" "notice",
        "The least severe level that is logged.";
    LogFormat [Log "format"] [] Global One ValueKind::LogFormat, Works, "human" "stunnel",
        "The form of a log line: for people, as JSON, or in stunnel's form.";
    LogOutput [Log "output"] ["output"] Global One Path, Works, "" "",
        "The log file; standard error if unset.";
    LogMode [Log "mode"] ["log"] Global One ValueKind::LogMode, Works, "append" "append",
        "Whether a start appends to the log file or overwrites it.";
    LogMaxSize [Log "max-size"] [] Global One ValueKind::Size, Works, "" "",
        "The size at which the log file is renamed to FILE.1, which replaces the previous one, and a new file begins; no limit if unset.";
    Syslog [Log "syslog"] ["syslog"] Global One Bool, Works, "false" "yes",
        "Whether log lines also go to syslog.";
    LogFacility [Log "facility"] [] Global One ValueKind::Facility, Works, "daemon" "daemon",
        "The syslog facility of the log lines.";

    ServiceLogLevel [Service "log-level"] [] Service One ValueKind::Level, Works, "" "",
        "The least severe level that is logged for this service; `log.level` if unset.";

    // The process.
    DrainTimeout [Top "drain-timeout"] [] Global One Duration { zero: true }, Works, "5s" "5",
        "How long open sessions may continue after SIGTERM.";
    WatchConfiguration [Top "watch-configuration"] [] Global One Bool, Works, "true" "no",
        "Whether a changed configuration file takes effect by itself; otherwise it takes effect on SIGHUP and with `pskgate reload`. Key files are always watched.";
    Threads [Top "threads"] [] Global One Count { min: 1, max: 64 }, Works, "1" "1",
        "The number of threads that carry sessions. More than one is faster only if several processor cores are idle.";
    Foreground [] ["foreground"] Global One ValueKind::Foreground, Works, "" "no",
        "Whether the process stays in the foreground; with quiet it does not log to standard error.";
    Pid [Top "pid-file"] ["pid"] Global One Path, Works, "" "",
        "The file that contains the process ID while the program runs.";
    Chroot [Top "chroot"] ["chroot"] Global One Path, Works, "" "",
        "The directory that becomes the root of the file system for this process.";
    Setuid [Top "user"] ["setuid"] Service One Text { empty: false }, Works, "" "",
        "The user as which the process runs after it has opened its ports.";
    Setgid [Top "group"] ["setgid"] Service One Text { empty: false }, Works, "" "",
        "The group as which the process runs after it has opened its ports; the user's group if unset.";
    SocketUser [Service "socket-user"] [] Service One Text { empty: false }, Works, "" "",
        "The owner of the Unix sockets that the service listens on.";
    SocketGroup [Service "socket-group"] [] Service One Text { empty: false }, Works, "" "",
        "The group of the Unix sockets that the service listens on.";
    Sandbox [Top "sandbox"] [] Global One Bool, Works, "true" "yes",
        "Whether the process gives up permissions after the start: it cannot execute programs, gain privileges, or write outside the folders of its log, pid file and Unix sockets. A file with exec runs without the sandbox.";
    SetEnv [Top "environment"] ["setEnv"] Global List ValueKind::Variable, Works, "" "",
        "An environment variable for programs started by exec, as NAME=VALUE; NAME alone removes the variable.";
    ServiceName [Log "ident"] ["service"] Service One Text { empty: true }, Works, "pskgate" "stunnel",
        "The program's name in syslog and for inetd.";
    Include [] ["include"] Service List Path, Works, "" "",
        "A directory whose files are read at this place.";

    // Who may look, and give orders.
    Control [Control "enabled"] [] Global One Bool, Works, "true" "yes",
        "Whether there is a control socket, for `status`, `sessions`, `reload` and `kick`.";
    ControlSocket [Control "socket"] [] Global One Path, Works, "" "",
        "The path of the control socket. If unset: /run/pskgate/NAME.sock for root, otherwise $XDG_RUNTIME_DIR/pskgate/NAME.sock, where NAME is the name of this file without .toml; a systemd unit with RuntimeDirectory= has NAME.sock in that directory. Two files of the same name in different folders need different paths here.";
    ControlMode [Control "mode"] [] Global One ValueKind::FileMode, Works, "0600" "0600",
        "The file mode of the control socket. Everybody who can connect can read the status.";
    ControlGroup [Control "group"] [] Global One Text { empty: false }, Works, "" "",
        "The group of the control socket.";
    ControlUsers [Control "command-users"] [] Global List Text { empty: false }, Works, "" "",
        "Users who may also reload and kick, besides root and the program's own user.";
    HttpListen [Http "listen"] [] Global List ValueKind::Listen, Works, "" "",
        "Where metrics and the status page are served: a loopback address or a Unix socket.";
    HttpLabels [Http "max-identity-labels"] [] Global One Count { min: 0, max: 100_000 }, Works, "500" "500",
        "The number of identities with metrics of their own; all others are summed.";

    // Where connections come from and go to.
    Mode [Service "mode"] ["client"] Service One ValueKind::Mode, Works, "" "no",
        "client accepts plain TCP and connects with TLS; server accepts TLS and connects in plain TCP.";
    Accept [Service "accept"] ["accept"] Service List ValueKind::Listen, Works, "" "",
        "The address to listen on: a port, host:port (IPv6 in brackets) or a Unix socket.";
    Connect [Service "connect"] ["connect"] Service List ValueKind::Connect, Works, "" "",
        "The address to connect to: host:port (IPv6 in brackets), a port of this machine or a Unix socket.";
    Failover [Service "failover"] ["failover"] Service One ValueKind::Failover, Works, "priority" "prio",
        "The order in which several connect addresses are tried. priority (stunnel: prio): always from the first. round-robin (stunnel: rr): each connection begins with the next one.";
    Delay [] ["delay"] Service One Bool, Harmless("names are always resolved when they are used"), "" "no",
        "Whether names are resolved at each connection.";
    Local [Service "local-address"] ["local"] Service One ValueKind::Host, Works, "" "",
        "The local address of outgoing connections.";
    Exec [Service "exec"] ["exec"] Service One Path, Works, "" "",
        "The program to start for each connection, in place of connect. A service with exec and connect but without accept starts the program once, and carries its standard input and output to connect.";
    ExecArgs [Service "exec-args"] ["execArgs"] Service List ValueKind::Arguments, Works, "" "",
        "The arguments of the program of exec, beginning with its name.";
    Pty [Service "pty"] ["pty"] Service One Bool, Works, "false" "no",
        "Whether the program of exec gets a terminal.";
    Retry [Service "retry"] ["retry"] Service One ValueKind::Retry, Works, "off" "no",
        "With exec in place of accept: the pause between the end of the program and its next start. off (stunnel: no): it is not started again.";
    Transparent [Service "transparent"] ["transparent"] Service One ValueKind::Transparent, Works, "none" "none",
        "source: the connection to the backend has the client's address as its source. destination: the connection goes to the original destination of a redirected connection. both: source and destination. Linux only.";
    Ident [] ["ident"] Service One Raw, Never(&[], "an answer of RFC 1413 is only as trustworthy as the machine that gives it; the key authenticates the peer"), "" "",
        "The user that an RFC 1413 server must name.";
    Libwrap [] ["libwrap"] Service One Raw, Later(NO), "" "no",
        "Whether hosts.allow and hosts.deny apply.";
    Sessiond [] ["sessiond"] Service One Raw, Later(&[]), "" "",
        "The address of a shared session cache.";

    // Pre-shared keys.
    PskIdentity [Service "psk-identity"] ["PSKidentity"] Service One ValueKind::Identity, Works, "" "",
        "The identity that a client uses; the first of its key file if unset.";
    PskSecrets [Service "psk-secrets"] ["PSKsecrets"] Service List ValueKind::Secrets, Works, "" "",
        "Key files, with a line identity:key for each key, or folders of such files.";
    BeremizProject [Service "beremiz-project"] [] Service One Path, Works, "" "",
        "A Beremiz project whose keys (psk/*.secret) are used before those of psk-secrets.";
    RuntimeFile [Service "runtime-file"] [] Service One Bool, Works, "false" "no",
        "Whether a Beremiz runtime writes the first key file of a server. Such a file has one line, other users may read it (with a warning), and the service starts before the file exists.";
    WaitForKeys [Service "wait-for-keys"] [] Service One Bool, Works, "false" "no",
        "Whether a server starts before its key files exist. Until they do, it answers every client as it answers a wrong key.";
    AllowSharedKeys [Service "allow-shared-keys"] [] Service One Bool, Works, "false" "yes",
        "Whether a client and a server service of this file may use the same key, which makes reflection attacks possible (RFC 9257, 4.1).";
    AllowLoosePermissions [Service "allow-loose-permissions"] [] Service One Bool, Works, "false" "yes",
        "Whether key files are accepted that other users can read or write.";
    AllowControlCharacters [Service "allow-control-characters"] [] Service One Bool, Works, "false" "yes",
        "Whether identities may have control characters, as those of Bareos have.";
    PskHash [Service "tls13-psk-hash"] [] Service One ValueKind::Hash, Works, "sha256" "",
        "The hash of the keys in TLS 1.3, which must be the same at both ends (RFC 9846, 4.3.11; RFC 8446, 4.2.11).";

    // TLS.
    TlsVersion [] ["sslVersion"] Service One ValueKind::Version, Works, "" "all",
        "The only TLS version that is used.";
    TlsMin [Service "tls-min"] ["sslVersionMin"] Service One ValueKind::Version, Works, "1.2" "TLSv1.2",
        "The oldest TLS version that is used.";
    TlsMax [Service "tls-max"] ["sslVersionMax"] Service One ValueKind::Version, Works, "1.3" "TLSv1.3",
        "The newest TLS version that is used.";
    Ciphers [Service "ciphers"] ["ciphers"] Service One Text { empty: false }, Works,
        "ECDHE-PSK-CHACHA20-POLY1305"
        "HIGH:!aNULL:!SSLv2:!DH:!kDHEPSK",
        "Cipher suites up to TLS 1.2, as an OpenSSL list; suites without a pre-shared key or without encryption are left out. In a TOML file, rfc4279 is the default suite followed by DHE-PSK and PSK suites with AES-GCM and AES-CBC, for old peers.";
    CipherOrder [Service "cipher-order"] [] Service One ValueKind::CipherOrder, Works, "server" "client",
        "Whether a server chooses the cipher suite by its own order or by the client's.";
    Ciphersuites [Service "ciphersuites"] ["ciphersuites"] Service One Text { empty: false }, Works, ""
        "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256",
        "Cipher suites of TLS 1.3, as an OpenSSL list. A suite whose hash differs from the key's (tls13-psk-hash) cannot be used and is left out. If unset, AES-128-GCM and ChaCha20-Poly1305.";
    Groups [Service "groups"] ["curves" "curve"] Service One Text { empty: false }, Works,
        "X25519:P-256" "X25519:P-256:X448:P-521:P-384",
        "Key exchange groups, as an OpenSSL list.";
    SecurityLevel [Service "security-level"] ["securityLevel"] Service One Count { min: 0, max: 5 }, Works, "" "",
        "OpenSSL's security level. If unset, 2, or OpenSSL's default if that is higher.";
    ServerName [Service "server-name"] ["sni"] Service One Text { empty: true }, Works, "" "",
        "Client: the server name to send (SNI); the host name of connect if unset, none if empty. Server: SERVICE:PATTERN, in place of accept. Clients that connect to the service SERVICE and send a name that matches PATTERN get this service; PATTERN can begin with *.";
    SslOptions [Service "tls-options"] ["options"] Service List ValueKind::SslOption, Works, "" "NO_SSLv3",
        "An option of SSL_CTX_set_options(3) without SSL_OP_; a minus before it clears the option.";
    SslConfig [] ["config"] Service List Raw, Works, "" "",
        "An OpenSSL configuration command, NAME:VALUE as in SSL_CONF_cmd(3).";
    Renegotiation [] ["renegotiation"] Service One Bool, Harmless("renegotiation is always off"), "" "yes",
        "Whether a peer may renegotiate.";
    Compression [] ["compression"] Global One Raw, Never(&[], "the length of compressed data reveals its content (RFC 7457, 2.6)"), "" "",
        "Compression inside TLS.";
    Fips [] ["fips"] Global One Raw, Later(NO), "" "no",
        "Whether OpenSSL's FIPS mode is used.";
    SessionResume [Service "resumption"] ["sessionResume"] Service One Bool, Works, "false" "yes",
        "Whether sessions can be resumed, as long as the identity has the same key: with a ticket, or in TLS 1.2 by session ID.";
    SessionCacheSize [Service "resumption-cache-size"] ["sessionCacheSize"] Service One ANY, Works, "1000" "1000",
        "The number of sessions that a client keeps for resumption, one for each address, and a server for clients without tickets; 0 means 1000.";
    SessionCacheTimeout [Service "resumption-timeout"] ["sessionCacheTimeout" "session"] Service One Duration { zero: true }, Works, "5m" "300",
        "How long a session can be resumed, at most a week; 0 turns resumption off.";
    TicketKeySecret [Service "ticket-key-secret"] ["ticketKeySecret"] Service One ValueKind::TicketKey, Works, "" "",
        "The first half of the secret for a server's ticket keys: 16 or 32 bytes in hexadecimal digits; random if unset. It needs the second half, ticket-mac-secret (stunnel: ticketMacSecret).";
    TicketMacSecret [Service "ticket-mac-secret"] ["ticketMacSecret"] Service One ValueKind::TicketKey, Works, "" "",
        "The second half of the secret for a server's ticket keys, in the same form.";
    RekeyAfter [Service "rekey-after"] [] Service One ValueKind::RekeyAfter, Works, "8388608 records, 128GiB" "8388608 records, 128GiB",
        "The number of records or bytes in one direction after which TLS 1.3 changes its encryption key. TLS 1.2 cannot change keys: a warning is logged after twice as many records.";

    // Time and amounts.
    HandshakeTimeout [Service "handshake-timeout"] ["TIMEOUTbusy"] Service One Duration { zero: false }, Works, "10s" "10",
        "The time limit for a connection from its arrival to the end of the handshake.";
    ConnectTimeout [Service "connect-timeout"] ["TIMEOUTconnect"] Service One Duration { zero: false }, Works, "10s" "10",
        "The time limit for connecting to each address of connect.";
    IdleTimeout [Service "idle-timeout"] ["TIMEOUTidle"] Service One Duration { zero: false }, Works, "12h" "43200",
        "A session ends after this time without data in either direction.";
    CloseTimeout [Service "close-timeout"] ["TIMEOUTclose"] Service One Duration { zero: true }, Works, "60s" "60",
        "A session ends after this time without data when one direction has been closed.";
    SessionLifetime [Service "session-lifetime"] [] Service One Duration { zero: false }, Works, "" "",
        "The maximum age of a session. After this time the session ends at the first pause of 1 s without data, and 30 s later at the latest. No limit if unset.";
    OcspTimeout [] ["TIMEOUTocsp"] Service One Raw, Harmless("no certificate is ever checked"), "" "5",
        "How long an OCSP answer may take.";
    MaxSessions [Service "max-sessions"] [] Service One Count { min: 1, max: 1_000_000 }, Works, "" "",
        "The maximum number of sessions of the service; derived from memory and the limit on open files if unset.";
    MaxHandshakes [Service "max-handshakes"] [] Service One Count { min: 1, max: 1_000_000 }, Works, "" "",
        "The maximum number of concurrent handshakes of the service; further clients wait. Derived from memory and the limit on open files if unset.";
    MaxPerSource [Service "max-sessions-per-source"] [] Service One Count { min: 1, max: 1_000_000 }, Works, "" "",
        "The maximum number of sessions from one IPv4 address or one IPv6 /64 network.";
    MaxPerIdentity [Service "max-sessions-per-identity"] [] Service One Count { min: 1, max: 1_000_000 }, Works, "" "",
        "The maximum number of sessions of each identity.";
    WhenFull [Service "when-full"] [] Service One ValueKind::WhenFull, Works, "refuse" "refuse",
        "What happens to a new client when a session limit is reached. refuse: it is refused. take-over: it replaces the oldest session. take-over-own: it replaces the oldest session of its own identity only. take-over-same-host: only one of its own identity and address, for an identity that several people share; from another address, on Linux only, one whose peer acknowledges nothing for 6 s.";
    BackendPause [Service "backend-pause"] [] Service One Duration { zero: true }, Works, "50ms" "",
        "The pause between two connections to the backend of a service with max-sessions = 1. The eRPC runtime of Beremiz needs it; a device that does not, such as most Modbus servers, takes 0ms.";
    OnRevocation [Service "on-revocation"] [] Service One ValueKind::OnRevocation, Works, "cut" "cut",
        "What happens to a session whose key was removed or changed. cut: it ends at once. keep: it continues. TIME: it ends after this time, such as 30s.";
    AllowFrom [Service "allow-from"] [] Service List ValueKind::Range, Works, "" "",
        "The addresses and networks from which connections are accepted; all if unset.";
    ProxyProtocolFrom [Service "proxy-protocol-from"] [] Service List ValueKind::Range, Works, "" "",
        "The addresses and networks of proxies. Their connections must begin with a PROXY protocol header, whose client address is used. None if unset.";
    Identities [Service "identities"] [] Service One Raw, Works, "" "",
        "Rules for single identities: a table for each, see below.";
    IdentityWire [Identity "wire"] [] Service List ValueKind::Identity, Works, "" "",
        "The names in the key files that belong to this identity; its own name if unset.";
    IdentityAllowFrom [Identity "allow-from"] [] Service List ValueKind::Range, Works, "" "",
        "The addresses and networks from which this identity is accepted; from others it is treated as unknown.";
    IdentityConnect [Identity "connect"] [] Service List ValueKind::Connect, Works, "" "",
        "The backend for this identity, in place of the service's connect.";
    IdentityMaxSessions [Identity "max-sessions"] [] Service One Count { min: 1, max: 1_000_000 }, Works, "" "",
        "The maximum number of sessions of this identity.";
    IdentityExpires [Identity "expires"] [] Service One ValueKind::Moment, Works, "" "",
        "The last day on which its keys are accepted (UTC), or a date with time.";

    // Sockets.
    Keepalive [Service "keepalive"] [] Service One ValueKind::Keepalive, Works, "15s/5s/3" "15s/5s/3",
        "TCP keepalive for the TLS connection: time without data before the first probe, time between probes, number of unanswered probes.";
    Socket [Service "socket"] ["socket"] Service List ValueKind::Socket, Works, "" "",
        "A socket option, as SOCKET:NAME=VALUE. SOCKET is accept (the listener), downstream (the accepted connection) or upstream (the outgoing one); in a stunnel.conf a, l or r. NAME as in socket(7).";
    Reset [Service "reset"] ["reset"] Service One Bool, Works, "" "",
        "Whether an error ends a connection with a TCP reset; if unset, it depends on the error.";

    // What stunnel also does.
    Protocol [Service "proxy-header"] ["protocol"] Service One ValueKind::Preface, Works, "" "",
        "The PROXY protocol header that a server sends to its backend: v1 has the addresses; v2 also has the identity, the TLS version and the cipher suite.";
    Negotiation [Service "protocol"] [] Service One ValueKind::Negotiation, Works, "" "",
        "connect (client): connects through an HTTP proxy to protocol-host. socks (server): connects to the address that the client requests with SOCKS. socks (client): requests, from a server with socks, the original destination of a redirected connection.";
    SocksAllowOwn [Service "socks-allow-own"] [] Service One Bool, Works, "false" "",
        "Whether SOCKS clients may connect to this machine's own addresses; loopback addresses are always refused.";
    ProtocolAuthentication [] ["protocolAuthentication"] Service One Raw, Never(&["basic"], "only basic is supported; NTLM lets an eavesdropper guess the password offline"), "" "basic",
        "How to authenticate at the proxy.";
    ProtocolDomain [] ["protocolDomain"] Service One Raw, Harmless("only NTLM has domains"), "" "",
        "The NTLM domain for the proxy.";
    ProtocolHeader [Service "protocol-headers"] ["protocolHeader"] Service List Text { empty: false }, Works, "" "",
        "An additional HTTP header for the proxy.";
    ProtocolHost [Service "protocol-host"] ["protocolHost"] Service One Text { empty: false }, Works, "" "",
        "The server end behind the HTTP proxy, HOST:PORT. Its host name is also the server name of the handshake (SNI).";
    ProtocolPassword [Service "protocol-password"] ["protocolPassword"] Service One ValueKind::Password, Works, "" "",
        "The password for the proxy.";
    ProtocolUsername [Service "protocol-username"] ["protocolUsername"] Service One Text { empty: true }, Works, "" "",
        "The user name for the proxy.";
    LogId [Service "log-id"] ["logId"] Service One ValueKind::LogId, Works, "sequential" "sequential",
        "How log lines identify their connection: by a number, a globally unique text, the thread or the process.";
    Engine [] ["engine"] Global List Raw, Later(&[]), "" "",
        "An OpenSSL engine.";
    EngineCtrl [] ["engineCtrl"] Global List Raw, Later(&[]), "" "",
        "A command for an engine.";
    EngineDefault [] ["engineDefault"] Global List Raw, Later(&[]), "" "",
        "What an engine is used for.";
    EngineId [] ["engineId"] Service One Raw, NeedsCertificates(&[]), "" "",
        "The engine that holds the private key.";
    EngineNum [] ["engineNum"] Service One Raw, NeedsCertificates(&[]), "" "",
        "The engine that holds the private key, by its number.";
    Provider [] ["provider"] Global List Raw, Later(&["default"]), "" "",
        "An OpenSSL provider.";
    ProviderParameter [] ["providerParameter"] Global List Raw, Later(&[]), "" "",
        "A parameter of a provider.";

    // Obsolete, or about other machines.
    Egd [] ["EGD"] Global One Raw, Harmless(RANDOM), "" "",
        "A socket that provides random numbers.";
    RndBytes [] ["RNDbytes"] Global One ANY, Harmless(RANDOM), "" "1024",
        "The number of bytes to read from RNDfile.";
    RndFile [] ["RNDfile"] Global One Raw, Harmless(RANDOM), "" "/dev/urandom",
        "A file that provides random numbers.";
    RndOverwrite [] ["RNDoverwrite"] Global One Bool, Harmless(RANDOM), "" "yes",
        "Whether RNDfile is overwritten.";
    Transport [] ["transport"] Service One Raw, Never(&["tcp"], "TLS runs over TCP only, and DTLS over UDP is not supported"), "" "tcp",
        "The transport under TLS: tcp or udp.";
    Stack [] ["stack"] Service One ANY, Harmless("there is no thread for each connection"), "" "131072",
        "The stack of a thread, in bytes.";
    Taskbar [] ["taskbar"] Global One Raw, Harmless(WINDOWS), "" "",
        "Whether the task bar has an icon.";
    IconActive [] ["iconActive"] Global One Raw, Harmless(WINDOWS), "" "",
        "The icon while there are sessions.";
    IconError [] ["iconError"] Global One Raw, Harmless(WINDOWS), "" "",
        "The icon after an error.";
    IconIdle [] ["iconIdle"] Global One Raw, Harmless(WINDOWS), "" "",
        "The icon while there are no sessions.";

    // Certificates.
    Cert [] ["cert"] Service One Raw, OwnCertificate, "" "",
        "The certificate of this end.";
    Key [] ["key"] Service One Raw, OwnCertificate, "" "",
        "The private key of that certificate.";
    Verify [] ["verify"] Service One Count { min: 0, max: 4 }, AboutCertificates, "" "",
        "The level of certificate verification, a number.";
    VerifyChain [] ["verifyChain"] Service One Bool, AboutCertificates, "" "no",
        "Whether the peer's certificate must come from a known authority.";
    VerifyPeer [] ["verifyPeer"] Service One Bool, AboutCertificates, "" "no",
        "Whether the peer's certificate must be in the local list.";
    RequireCert [] ["requireCert"] Service One Bool, AboutCertificates, "" "no",
        "Whether a client must show a certificate.";
    CaFile [] ["CAfile"] Service One Raw, AboutCertificates, "" "",
        "A file with trusted authorities.";
    CaPath [] ["CApath"] Service One Raw, AboutCertificates, "" "",
        "A folder with trusted authorities.";
    CaStore [] ["CAstore"] Service One Raw, AboutCertificates, "" "",
        "A store with trusted authorities.";
    CaEngine [] ["CAengine"] Service List Raw, NeedsCertificates(&[]), "" "",
        "A trusted authority in an engine.";
    CrlFile [] ["CRLfile"] Service One Raw, AboutCertificates, "" "",
        "A file of revoked certificates.";
    CrlPath [] ["CRLpath"] Service One Raw, AboutCertificates, "" "",
        "A directory of revoked certificates.";
    CrlCheckChain [] ["CRLcheckChain"] Service One Bool, AboutCertificates, "" "no",
        "Whether revocation is checked for every certificate of a chain.";
    CheckHost [] ["checkHost"] Service List Raw, AboutCertificates, "" "",
        "The host that the peer's certificate must name.";
    CheckEmail [] ["checkEmail"] Service List Raw, AboutCertificates, "" "",
        "The address that the peer's certificate must name.";
    CheckIp [] ["checkIP"] Service List Raw, AboutCertificates, "" "",
        "The IP address that the peer's certificate must name.";
    Redirect [] ["redirect"] Service List Raw, NeedsCertificates(&[]), "" "",
        "Where to connect clients without a valid certificate.";
    Ocsp [] ["OCSP"] Service One Raw, AboutCertificates, "" "",
        "The OCSP server.";
    OcspAia [] ["OCSPaia"] Service One Bool, AboutCertificates, "" "no",
        "Whether to use the OCSP server that a certificate names.";
    OcspFlag [] ["OCSPflag"] Service List ValueKind::OcspFlag, AboutCertificates, "" "",
        "An option for OCSP.";
    OcspNonce [] ["OCSPnonce"] Service One Bool, AboutCertificates, "" "no",
        "Whether OCSP requests contain a nonce.";
    OcspRequire [] ["OCSPrequire"] Service One Bool, Harmless("no certificate is ever checked"), "" "yes",
        "Whether an inconclusive OCSP answer refuses the peer.";
}

#[cfg(test)]
mod tests;
