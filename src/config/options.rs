//! The table of options: one row an option, and nothing is an option without a row.
//!
//! A row names an option in both dialects, says how its text is read, what holds when nobody says
//! anything, and what it is for. The readers, the checks and the manual all work from it.

use super::model::Dialect;

/// The table of the native file in which an option stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
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
pub enum Scope {
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
pub enum Kind {
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
pub struct Row {
    /// Which.
    pub opt: Opt,
    /// Table and key in a native file; unset if there is none.
    pub native: Option<(Table, &'static str)>,
    /// Names in a stunnel.conf, the usual one first; empty if there is none.
    pub stunnel: &'static [&'static str],
    /// Where stunnel knows it; meaningless without a name there.
    pub scope: Scope,
    /// How its text is read.
    pub kind: Kind,
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

impl Row {
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

impl Opt {
    /// Its row.
    pub fn row(self) -> &'static Row {
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
pub fn native(table: Table, key: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.native == Some((table, key)))
}

/// The row of an option of stunnel's, whose names know no case.
pub fn stunnel(name: &str) -> Option<&'static Row> {
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
        pub enum Opt { $(#[doc = $doc] $opt,)* }

        /// Every option there is.
        pub static TABLE: &[Row] = &[$(Row {
            opt: Opt::$opt,
            native: first(&[$((Table::$table, $key))?]),
            stunnel: &[$($name),*],
            scope: Scope::$scope,
            kind: $kind,
            arity: Arity::$arity,
            treatment: $treatment,
            native_default: $native,
            stunnel_default: $stunnel,
            doc: $doc,
        },)*];
    };
}

const fn first(native: &[(Table, &'static str)]) -> Option<(Table, &'static str)> {
    match native {
        [one, ..] => Some(*one),
        [] => None,
    }
}

use Kind::{Bool, Count, Duration, Path, Raw, Text};
use Treatment::{
    AboutCertificates, Harmless, Later, NeedsCertificates, Never, OwnCertificate, Works,
};

const RANDOM: &str = "random numbers come from the operating system";
const WINDOWS: &str = "there is no window to draw it in";
const NO: &[&str] = &["no"];
/// A number that is checked, and then left alone.
const ANY: Kind = Count { min: 0, max: u32::MAX };

table! {
    // What is logged.
    LogLevel [Log "level"] ["debug"] Service One Kind::Level, Works, "info" "notice",
        "The least important level that is still logged.";
    LogFormat [Log "format"] [] Global One Kind::LogFormat, Works, "human" "stunnel",
        "How a log line looks: for people, as JSON, or as stunnel writes it.";
    LogOutput [Log "output"] ["output"] Global One Path, Works, "" "",
        "The file to log to, instead of standard error.";
    LogMode [Log "mode"] ["log"] Global One Kind::LogMode, Works, "append" "append",
        "Whether the log file is appended to or begun anew.";
    LogMaxSize [Log "max-size"] [] Global One Kind::Size, Works, "" "",
        "The size at which the log file becomes FILE.1, in the place of an earlier one, and begins anew; it grows on if unset.";
    Syslog [Log "syslog"] ["syslog"] Global One Bool, Works, "false" "yes",
        "Whether the log also goes to syslog.";
    LogFacility [Log "facility"] [] Global One Kind::Facility, Works, "daemon" "daemon",
        "The facility under which syslog files the log.";

    ServiceLogLevel [Service "log-level"] [] Service One Kind::Level, Works, "" "",
        "The least important level that is still logged of this service.";

    // The process.
    DrainTimeout [Top "drain-timeout"] [] Global One Duration { zero: true }, Works, "5s" "5",
        "How long sessions may go on after SIGTERM.";
    Threads [Top "threads"] [] Global One Count { min: 1, max: 64 }, Works, "1" "1",
        "How many threads carry sessions, from the start on; more than one pays only where several cores stand idle.";
    Foreground [] ["foreground"] Global One Kind::Foreground, Works, "" "no",
        "Whether the process stays in the foreground; quiet does so without logging to standard error.";
    Pid [Top "pid-file"] ["pid"] Global One Path, Works, "" "",
        "The file that holds the process's number while it runs.";
    Chroot [Top "chroot"] ["chroot"] Global One Path, Works, "" "",
        "The directory that becomes the root of the file system.";
    Setuid [Top "user"] ["setuid"] Service One Text { empty: false }, Works, "" "",
        "The user to become once the ports are bound; in a section, the owner of its Unix socket.";
    Setgid [Top "group"] ["setgid"] Service One Text { empty: false }, Works, "" "",
        "The group to become once the ports are bound; in a section, the group of its Unix socket.";
    SocketUser [Service "socket-user"] [] Service One Text { empty: false }, Works, "" "",
        "The user who owns the Unix sockets that the service listens on.";
    SocketGroup [Service "socket-group"] [] Service One Text { empty: false }, Works, "" "",
        "The group that owns the Unix sockets that the service listens on.";
    Sandbox [Top "sandbox"] [] Global One Bool, Works, "true" "yes",
        "Whether the process gives up, once it serves, what a tunnel does not need; without effect beside a program to start.";
    SetEnv [Top "environment"] ["setEnv"] Global List Kind::Variable, Works, "" "",
        "A variable that the programs which are started find in their environment, NAME=VALUE; without a value, one that they do not find.";
    ServiceName [Log "ident"] ["service"] Service One Text { empty: true }, Works, "pskgate" "stunnel",
        "The name under which syslog and inetd know the program.";
    Include [] ["include"] Service List Path, Works, "" "",
        "A directory whose files are read in this place.";

    // Who may look, and give orders.
    Control [Control "enabled"] [] Global One Bool, Works, "true" "yes",
        "Whether there is a control socket, for `status`, `sessions`, `reload` and `kick`.";
    ControlSocket [Control "socket"] [] Global One Path, Works, "" "",
        "The path of the control socket; one named after this file, in the runtime directory, if unset.";
    ControlMode [Control "mode"] [] Global One Kind::FileMode, Works, "0600" "0600",
        "The mode of the control socket: whoever can connect may look.";
    ControlGroup [Control "group"] [] Global One Text { empty: false }, Works, "" "",
        "The group that the control socket belongs to.";
    ControlUsers [Control "command-users"] [] Global List Text { empty: false }, Works, "" "",
        "The users that may also give orders, besides root and the one that the program runs as.";
    HttpListen [Http "listen"] [] Global List Kind::Listen, Works, "" "",
        "Where /metrics, /healthz, /readyz and a status page are served: an address of this machine alone, or a Unix socket.";
    HttpLabels [Http "max-identity-labels"] [] Global One Count { min: 0, max: 100_000 }, Works, "500" "500",
        "How many identities get a label of their own in metrics; the rest are counted together.";

    // Where connections come from and go to.
    Mode [Service "mode"] ["client"] Service One Kind::Mode, Works, "" "no",
        "Which side wears TLS: a client accepts plain and connects TLS, a server accepts TLS and connects plain.";
    Accept [Service "accept"] ["accept"] Service List Kind::Listen, Works, "" "",
        "Where to listen: a port, host:port (IPv6 in brackets) or a Unix socket.";
    Connect [Service "connect"] ["connect"] Service List Kind::Connect, Works, "" "",
        "Whom to connect to: host:port (IPv6 in brackets), a port of this machine or a Unix socket.";
    Failover [Service "failover"] ["failover"] Service One Kind::Failover, Works, "priority" "prio",
        "The order in which several addresses are tried.";
    Delay [] ["delay"] Service One Bool, Harmless("names are always resolved when they are used"), "" "no",
        "Whether names are resolved at each connection.";
    Local [Service "local-address"] ["local"] Service One Kind::Host, Works, "" "",
        "The address from which connections are made.";
    Exec [Service "exec"] ["exec"] Service One Path, Works, "" "",
        "The program to run for each connection, in place of connect; beside connect and without accept, the program whose one connection is carried there.";
    ExecArgs [Service "exec-args"] ["execArgs"] Service List Kind::Arguments, Works, "" "",
        "The arguments of that program, its name first.";
    Pty [Service "pty"] ["pty"] Service One Bool, Works, "false" "no",
        "Whether that program gets a terminal of its own.";
    Retry [Service "retry"] ["retry"] Service One Kind::Retry, Works, "off" "no",
        "The pause after which a program that stands in place of accept is started again, or no.";
    Transparent [Service "transparent"] ["transparent"] Service One Kind::Transparent, Works, "none" "none",
        "Whose addresses are kept as if there were no proxy: with source, connections are made from the peer's; with destination, to where the peer's connection was meant to go; or both.";
    Ident [] ["ident"] Service One Raw, Never(&[], "what a machine says of its own users is worth no more than that machine (RFC 1413, 6), and a key proves who is there"), "" "",
        "The user that an RFC 1413 server must name.";
    Libwrap [] ["libwrap"] Service One Raw, Later(NO), "" "no",
        "Whether hosts.allow and hosts.deny are asked.";
    Sessiond [] ["sessiond"] Service One Raw, Later(&[]), "" "",
        "The address of a shared session cache.";

    // Pre-shared keys.
    PskIdentity [Service "psk-identity"] ["PSKidentity"] Service One Kind::Identity, Works, "" "",
        "The identity that a client presents; the first of its file if unset.";
    PskSecrets [Service "psk-secrets"] ["PSKsecrets"] Service List Kind::Secrets, Works, "" "",
        "Files of identity:key lines, or directories of such files.";
    AllowSharedKeys [Service "allow-shared-keys"] [] Service One Bool, Works, "false" "yes",
        "Lets a client and a server service of one file share a key (RFC 9257, 4.1).";
    AllowLoosePermissions [Service "allow-loose-permissions"] [] Service One Bool, Works, "false" "yes",
        "Reads key files that others can read or write.";
    PskHash [Service "tls13-psk-hash"] [] Service One Kind::Hash, Works, "sha256" "",
        "The hash that a TLS 1.3 key is bound to (RFC 9846, 4.3.11; RFC 8446, 4.2.11).";

    // TLS.
    TlsVersion [] ["sslVersion"] Service One Kind::Version, Works, "" "all",
        "The only protocol version.";
    TlsMin [Service "tls-min"] ["sslVersionMin"] Service One Kind::Version, Works, "1.2" "TLSv1.2",
        "The oldest protocol version that is accepted.";
    TlsMax [Service "tls-max"] ["sslVersionMax"] Service One Kind::Version, Works, "1.3" "TLSv1.3",
        "The newest protocol version that is offered.";
    Ciphers [Service "ciphers"] ["ciphers"] Service One Text { empty: false }, Works,
        "ECDHE-PSK-CHACHA20-POLY1305"
        "HIGH:!aNULL:!SSLv2:!DH:!kDHEPSK",
        "OpenSSL's list of suites up to TLS 1.2, of which only those with a pre-shared key and encryption are used. In a native file rfc4279 stands for the default suite followed by DHE-PSK and PSK with AES-GCM and AES-CBC, for old peers.";
    CipherOrder [Service "cipher-order"] [] Service One Kind::CipherOrder, Works, "server" "client",
        "Whose order of suites decides at a server: the server's own or the client's.";
    Ciphersuites [Service "ciphersuites"] ["ciphersuites"] Service One Text { empty: false }, Works, ""
        "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256",
        "OpenSSL's list of TLS 1.3 suites, of which only those of the key's hash are used.";
    Groups [Service "groups"] ["curves" "curve"] Service One Text { empty: false }, Works,
        "X25519:P-256" "X25519:P-256:X448:P-521:P-384",
        "OpenSSL's list of key exchange groups.";
    SecurityLevel [Service "security-level"] ["securityLevel"] Service One Count { min: 0, max: 5 }, Works, "" "",
        "OpenSSL's security level; the library's default if unset.";
    ServerName [Service "server-name"] ["sni"] Service One Text { empty: true }, Works, "" "",
        "The name that a client sends in SNI: the host it connects to if unset, none if empty. Of a server, SERVICE:PATTERN: it gets the clients of that service that send such a name, where a leading * stands for any beginning.";
    SslOptions [Service "tls-options"] ["options"] Service List Kind::SslOption, Works, "" "NO_SSLv3",
        "A switch of OpenSSL's, SSL_CTX_set_options(3), without SSL_OP_; with a minus before it, it is turned off.";
    SslConfig [] ["config"] Service List Raw, Works, "" "",
        "A configuration command of OpenSSL's, NAME:VALUE as in SSL_CONF_cmd(3).";
    Renegotiation [] ["renegotiation"] Service One Bool, Harmless("renegotiation is always off"), "" "yes",
        "Whether a peer may negotiate anew.";
    Compression [] ["compression"] Global One Raw, Never(&[], "what is compressed before it is encrypted can be guessed from its length (RFC 7457, 2.6)"), "" "",
        "Compression inside TLS.";
    Fips [] ["fips"] Global One Raw, Later(NO), "" "no",
        "Whether only a certified OpenSSL is used.";
    SessionResume [Service "resumption"] ["sessionResume"] Service One Bool, Works, "false" "yes",
        "Whether a session can be resumed with a ticket, for as long as its identity still has the same key.";
    SessionCacheSize [Service "resumption-cache-size"] ["sessionCacheSize"] Service One ANY, Works, "1000" "1000",
        "How many sessions a client keeps to resume them, one for each address that it connects to; 0 is the default.";
    SessionCacheTimeout [Service "resumption-timeout"] ["sessionCacheTimeout" "session"] Service One Duration { zero: true }, Works, "5m" "300",
        "How long a session can be resumed, at most a week; not at all if 0.";
    TicketKeySecret [Service "ticket-key-secret"] ["ticketKeySecret"] Service One Kind::TicketKey, Works, "" "",
        "Half of the secret that a server makes its ticket keys from: 16 or 32 bytes in hexadecimal digits; with ticketMacSecret. Random if unset.";
    TicketMacSecret [Service "ticket-mac-secret"] ["ticketMacSecret"] Service One Kind::TicketKey, Works, "" "",
        "The other half of that secret, of the same form.";
    RekeyAfter [Service "rekey-after"] [] Service One Kind::RekeyAfter, Works, "8388608 records, 128GiB" "8388608 records, 128GiB",
        "After how many records or bytes of a direction its keys are changed, whichever comes first. TLS 1.2 cannot change keys: a warning is logged after twice as many records.";

    // Time and amounts.
    HandshakeTimeout [Service "handshake-timeout"] ["TIMEOUTbusy"] Service One Duration { zero: false }, Works, "10s" "10",
        "From accept to the end of the handshake, in total.";
    ConnectTimeout [Service "connect-timeout"] ["TIMEOUTconnect"] Service One Duration { zero: false }, Works, "10s" "10",
        "For each address that is tried.";
    IdleTimeout [Service "idle-timeout"] ["TIMEOUTidle"] Service One Duration { zero: false }, Works, "12h" "43200",
        "Silence of both directions while both are open.";
    CloseTimeout [Service "close-timeout"] ["TIMEOUTclose"] Service One Duration { zero: true }, Works, "60s" "60",
        "Silence after one direction has ended.";
    SessionLifetime [Service "session-lifetime"] [] Service One Duration { zero: false }, Works, "" "",
        "How long a session may last; then it is ended at the next second of silence, within 30 s at most. For ever if unset.";
    OcspTimeout [] ["TIMEOUTocsp"] Service One Raw, Harmless("no certificate is ever checked"), "" "5",
        "How long an OCSP answer may take.";
    MaxSessions [Service "max-sessions"] [] Service One Count { min: 1, max: 1_000_000 }, Works, "" "",
        "Sessions at once; derived from the limit on open files if unset.";
    MaxHandshakes [Service "max-handshakes"] [] Service One Count { min: 1, max: 1_000_000 }, Works, "" "",
        "Handshakes at once, of this service alone; further clients wait for a place. Derived from the memory and the limit on open files if unset.";
    MaxPerSource [Service "max-sessions-per-source"] [] Service One Count { min: 1, max: 1_000_000 }, Works, "" "",
        "Sessions at once from one IPv4 address or one IPv6 network of 64 bits.";
    MaxPerIdentity [Service "max-sessions-per-identity"] [] Service One Count { min: 1, max: 1_000_000 }, Works, "" "",
        "Sessions at once of one identity.";
    WhenFull [Service "when-full"] [] Service One Kind::WhenFull, Works, "refuse" "refuse",
        "What becomes of a newcomer when a limit on sessions is reached: it is refused, takes over from the oldest session, or takes over from the oldest of its own identity.";
    OnRevocation [Service "on-revocation"] [] Service One Kind::OnRevocation, Works, "cut" "cut",
        "What becomes of a session whose key was removed or changed: it is cut, kept, or cut after a grace such as 30s.";
    AllowFrom [Service "allow-from"] [] Service List Kind::Range, Works, "" "",
        "The addresses and networks from which connections are accepted; all if unset.";
    ProxyProtocolFrom [Service "proxy-protocol-from"] [] Service List Kind::Range, Works, "" "",
        "The addresses and networks of proxies whose connections begin with a PROXY protocol header, which is believed; none if unset.";
    Identities [Service "identities"] [] Service One Raw, Works, "" "",
        "Rules for single identities, each in a table of its own.";
    IdentityWire [Identity "wire"] [] Service List Kind::Identity, Works, "" "",
        "The identities on the wire that belong to this one; itself if unset.";
    IdentityAllowFrom [Identity "allow-from"] [] Service List Kind::Range, Works, "" "",
        "The addresses and networks from which this identity is taken; elsewhere it is answered as an unknown one.";
    IdentityConnect [Identity "connect"] [] Service List Kind::Connect, Works, "" "",
        "The backend of this identity, in place of the service's.";
    IdentityMaxSessions [Identity "max-sessions"] [] Service One Count { min: 1, max: 1_000_000 }, Works, "" "",
        "Sessions of this identity at once.";
    IdentityExpires [Identity "expires"] [] Service One Kind::Moment, Works, "" "",
        "The last day on which its keys are taken, in UTC, or a moment.";

    // Sockets.
    Keepalive [Service "keepalive"] [] Service One Kind::Keepalive, Works, "15s/5s/3" "15s/5s/3",
        "When TCP gives up a silent TLS peer: silence before the first probe, time between probes, number of probes.";
    Socket [Service "socket"] ["socket"] Service List Kind::Socket, Works, "" "",
        "A socket option: accept, downstream or upstream (stunnel: a, l or r), a colon, and NAME=VALUE as in socket(7).";
    Reset [Service "reset"] ["reset"] Service One Bool, Works, "" "",
        "Whether an error ends a connection with a TCP reset; unset follows the table of endings in the manual.";

    // What stunnel also does.
    Protocol [Service "proxy-header"] ["protocol"] Service One Kind::Preface, Works, "" "",
        "What a server says to its backend before the data: where the connection came from and went to, in version 1 of the PROXY protocol; in version 2, who it is and what TLS came to as well.";
    Negotiation [Service "protocol"] [] Service One Kind::Negotiation, Works, "" "",
        "What is spoken around TLS: with connect, a client asks the HTTP proxy that it connects to for the way to protocol-host; with socks, a server is told by its peer where to connect, and a client tells its server where its own peer's connection was meant to go.";
    SocksAllowOwn [Service "socks-allow-own"] [] Service One Bool, Works, "false" "",
        "Whether a SOCKS peer is connected to addresses of this machine's interfaces, too, though never to its loopback.";
    ProtocolAuthentication [] ["protocolAuthentication"] Service One Raw, Never(&["basic"], "only basic is spoken, and what NTLM sends lets whoever listens try passwords at leisure"), "" "basic",
        "How that protocol authenticates.";
    ProtocolDomain [] ["protocolDomain"] Service One Raw, Harmless("only NTLM knows domains"), "" "",
        "The domain that is sent in that protocol.";
    ProtocolHeader [Service "protocol-headers"] ["protocolHeader"] Service List Text { empty: false }, Works, "" "",
        "A header for the proxy, as it shall be sent.";
    ProtocolHost [Service "protocol-host"] ["protocolHost"] Service One Text { empty: false }, Works, "" "",
        "The server that a proxy is asked for, HOST:PORT; its name is the one sent in SNI.";
    ProtocolPassword [Service "protocol-password"] ["protocolPassword"] Service One Kind::Password, Works, "" "",
        "The password for the proxy.";
    ProtocolUsername [Service "protocol-username"] ["protocolUsername"] Service One Text { empty: true }, Works, "" "",
        "The user that the proxy knows.";
    LogId [Service "log-id"] ["logId"] Service One Kind::LogId, Works, "sequential" "sequential",
        "What tells the log lines of one connection from another's: its number, a text that no other has anywhere, or the thread or process.";
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
        "A socket to get random numbers from.";
    RndBytes [] ["RNDbytes"] Global One ANY, Harmless(RANDOM), "" "1024",
        "How much to read from RNDfile.";
    RndFile [] ["RNDfile"] Global One Raw, Harmless(RANDOM), "" "/dev/urandom",
        "A file to get random numbers from.";
    RndOverwrite [] ["RNDoverwrite"] Global One Bool, Harmless(RANDOM), "" "yes",
        "Whether RNDfile is written anew.";
    Stack [] ["stack"] Service One ANY, Harmless("there is no thread for each connection"), "" "131072",
        "The stack of a thread, in bytes.";
    Taskbar [] ["taskbar"] Global One Raw, Harmless(WINDOWS), "" "",
        "Whether there is an icon in the task bar.";
    IconActive [] ["iconActive"] Global One Raw, Harmless(WINDOWS), "" "",
        "The icon while there are sessions.";
    IconError [] ["iconError"] Global One Raw, Harmless(WINDOWS), "" "",
        "The icon after an error.";
    IconIdle [] ["iconIdle"] Global One Raw, Harmless(WINDOWS), "" "",
        "The icon while there are no sessions.";

    // Certificates.
    Cert [] ["cert"] Service One Raw, OwnCertificate, "" "",
        "A certificate of our own.";
    Key [] ["key"] Service One Raw, OwnCertificate, "" "",
        "The private key of that certificate.";
    Verify [] ["verify"] Service One Count { min: 0, max: 4 }, AboutCertificates, "" "",
        "How far the peer's certificate is checked, by a number.";
    VerifyChain [] ["verifyChain"] Service One Bool, AboutCertificates, "" "no",
        "Whether the peer's certificate must come from a known authority.";
    VerifyPeer [] ["verifyPeer"] Service One Bool, AboutCertificates, "" "no",
        "Whether the peer's certificate must be a known one.";
    RequireCert [] ["requireCert"] Service One Bool, AboutCertificates, "" "no",
        "Whether a client must show a certificate.";
    CaFile [] ["CAfile"] Service One Raw, AboutCertificates, "" "",
        "A file of authorities.";
    CaPath [] ["CApath"] Service One Raw, AboutCertificates, "" "",
        "A directory of authorities.";
    CaStore [] ["CAstore"] Service One Raw, AboutCertificates, "" "",
        "A store of authorities.";
    CaEngine [] ["CAengine"] Service List Raw, NeedsCertificates(&[]), "" "",
        "An authority in an engine.";
    CrlFile [] ["CRLfile"] Service One Raw, AboutCertificates, "" "",
        "A file of revoked certificates.";
    CrlPath [] ["CRLpath"] Service One Raw, AboutCertificates, "" "",
        "A directory of revoked certificates.";
    CrlCheckChain [] ["CRLcheckChain"] Service One Bool, AboutCertificates, "" "no",
        "Whether every certificate of a chain is looked for among the revoked ones.";
    CheckHost [] ["checkHost"] Service List Raw, AboutCertificates, "" "",
        "The host that the peer's certificate must name.";
    CheckEmail [] ["checkEmail"] Service List Raw, AboutCertificates, "" "",
        "The address that the peer's certificate must name.";
    CheckIp [] ["checkIP"] Service List Raw, AboutCertificates, "" "",
        "The IP address that the peer's certificate must name.";
    Redirect [] ["redirect"] Service List Raw, NeedsCertificates(&[]), "" "",
        "Where a client goes whose certificate is not good.";
    Ocsp [] ["OCSP"] Service One Raw, AboutCertificates, "" "",
        "A server that knows about revoked certificates.";
    OcspAia [] ["OCSPaia"] Service One Bool, AboutCertificates, "" "no",
        "Whether to ask the server that a certificate names.";
    OcspFlag [] ["OCSPflag"] Service List Kind::OcspFlag, AboutCertificates, "" "",
        "A switch for OCSP.";
    OcspNonce [] ["OCSPnonce"] Service One Bool, AboutCertificates, "" "no",
        "Whether an OCSP answer must be fresh.";
    OcspRequire [] ["OCSPrequire"] Service One Bool, Harmless("no certificate is ever checked"), "" "yes",
        "Whether an OCSP answer that says nothing is a refusal.";
}

#[cfg(test)]
mod tests;
