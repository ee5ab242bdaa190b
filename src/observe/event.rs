//! Everything that is logged, as one list: what happened, how important it is, and its words in each
//! of the formats.

use std::fmt::{self, Display};
use std::time::Duration;

use super::log;
use crate::config::model::{Level, LogFormat, LogId, Mode};

/// What a line is about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope<'a> {
    /// The service.
    pub service: Option<&'a str>,
    /// The session's number.
    pub session: Option<u64>,
    /// The service's own limit of importance, where it has one.
    pub level: Option<Level>,
    /// What tells this session's lines from another's.
    pub id: LogId,
}

impl Scope<'_> {
    /// The program itself.
    pub const PROGRAM: Scope<'static> =
        Scope { service: None, session: None, level: None, id: LogId::Sequential };
}

/// What a handshake settled on.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The protocol version.
    pub version: &'a str,
    /// The suite.
    pub suite: &'a str,
    /// The key exchange group, where the library tells.
    pub group: Option<&'a str>,
}

impl Display for Terms<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.suite)?;
        self.group.map_or(Ok(()), |group| write!(f, " {group}"))
    }
}

/// Something worth a line. Parts that come from a peer are escaped by whoever displays them.
#[allow(missing_debug_implementations)]
pub enum Event<'a> {
    /// The program has begun.
    Begun {
        /// Its names and versions, a line each, as stunnel says them.
        banner: &'a str,
    },
    /// The configuration was read, and can be followed.
    Configured,
    /// A listener is open, for the first time or still after a reload.
    Listening {
        /// Its address, with the real port.
        address: &'a dyn Display,
        /// Its descriptor, which stunnel names.
        descriptor: i64,
        /// It was open before this reload.
        still: bool,
    },
    /// Every listener is open.
    Accepting,
    /// A connection was accepted.
    Accepted {
        /// The downstream peer.
        peer: &'a dyn Display,
    },
    /// A proxy said in a PROXY header for whom it connects.
    Introduced {
        /// For whom.
        peer: &'a dyn Display,
        /// The proxy.
        proxy: &'a dyn Display,
    },
    /// A proxy looked whether anybody is here.
    Probed {
        /// The proxy.
        peer: &'a dyn Display,
    },
    /// A proxy did not say for whom it connects.
    NotIntroduced {
        /// The proxy, who is now turned away.
        peer: &'a dyn Display,
        /// Why.
        error: &'a dyn Display,
    },
    /// A handshake succeeded, and the key is proven.
    Secured {
        /// Which end this is.
        mode: Mode,
        /// Whose key it was, quoted.
        who: &'a dyn Display,
        /// An earlier session was resumed, and the key not used again.
        resumed: bool,
        /// The protocol version.
        version: &'a str,
        /// The suite.
        suite: &'a str,
        /// The strength of its cipher, in bits.
        bits: i32,
        /// The key exchange group and its size in bits, where the library tells.
        group: Option<(&'a str, u32)>,
    },
    /// An HTTP proxy has opened the way to a server.
    ProxyAgreed {
        /// The proxy's address.
        proxy: &'a dyn Display,
        /// The server.
        host: &'a dyn Display,
    },
    /// A client end's handshake begins.
    Presenting {
        /// The identity that is presented, quoted.
        who: &'a dyn Display,
        /// The name in SNI, if one is sent.
        name: Option<&'a str>,
    },
    /// An address is tried.
    Connecting {
        /// The upstream address.
        address: &'a dyn Display,
    },
    /// It answered.
    Connected {
        /// The upstream address.
        address: &'a dyn Display,
        /// Our own address towards it.
        local: &'a dyn Display,
    },
    /// It did not.
    ConnectFailed {
        /// The upstream address.
        address: &'a dyn Display,
        /// The system's words, with its number.
        error: &'a std::io::Error,
    },
    /// A target's name could not be looked up.
    Unresolved {
        /// The target as the configuration names it.
        target: &'a dyn Display,
        /// Why.
        error: &'a dyn Display,
    },
    /// A session begins: the key is proven and the target answers.
    Opened {
        /// The downstream peer.
        peer: &'a dyn Display,
        /// Whose key it was.
        who: &'a dyn Display,
        /// Version, suite, group.
        terms: Terms<'a>,
        /// The upstream address.
        target: &'a dyn Display,
    },
    /// More is protected with one key than should be.
    KeyOverused {
        /// The downstream peer.
        peer: &'a dyn Display,
        /// Whose session it is.
        who: &'a dyn Display,
        /// The version of TLS, such as `TLSv1.2`.
        version: &'a str,
        /// Records in the direction that has more of them.
        records: u64,
    },
    /// A session is over.
    Closed {
        /// How important its end is.
        level: Level,
        /// Which end this is.
        mode: Mode,
        /// The downstream peer.
        peer: &'a dyn Display,
        /// Whose key it was.
        who: &'a dyn Display,
        /// The upstream address.
        target: &'a dyn Display,
        /// Both directions ended in order.
        complete: bool,
        /// Why.
        end: &'a dyn Display,
        /// The stable name of that.
        name: &'static str,
        /// What became of the two connections, in stunnel's word.
        manner: Manner,
        /// Bytes from downstream to upstream.
        up: u64,
        /// Bytes from upstream to downstream.
        down: u64,
        /// From accept to now.
        age: Duration,
    },
    /// Server end: a handshake failed. What strangers can cause is never more than info, or notice in
    /// stunnel's format, whose level by default it is.
    Refused {
        /// The downstream peer.
        peer: &'a dyn Display,
        /// The identity that it claimed, if it got so far.
        who: Option<&'a dyn Display>,
        /// Why.
        cause: &'a dyn Display,
        /// The stable name of that.
        name: &'static str,
    },
    /// Client end: the server did not let us in, or did not prove itself.
    HandshakeFailed {
        /// The downstream peer, who is now turned away.
        peer: &'a dyn Display,
        /// The identity that was presented.
        who: &'a dyn Display,
        /// The upstream address.
        target: &'a dyn Display,
        /// Why.
        cause: &'a dyn Display,
        /// The stable name of that.
        name: &'static str,
    },
    /// No target answered.
    Unreachable {
        /// The downstream peer, who is now turned away.
        peer: &'a dyn Display,
        /// What was tried, and what came of it.
        error: &'a dyn Display,
    },
    /// A socket option that the operator wrote cannot be set, so nobody can be served.
    Unprepared {
        /// The downstream peer, who is now turned away.
        peer: &'a dyn Display,
        /// The system's words.
        error: &'a dyn Display,
    },
    /// A program was started to serve a session.
    ChildStarted {
        /// Its number.
        pid: u32,
    },
    /// The program in place of a listener is about to be started.
    Spawning,
    /// It could not be.
    NotSpawned {
        /// Its file.
        program: &'a dyn Display,
        /// The system's words.
        error: &'a std::io::Error,
    },
    /// Its connection has ended, and it is to be started again.
    Respawning {
        /// After which pause.
        pause: Duration,
    },
    /// A program that served a session has ended.
    ChildEnded {
        /// Its number.
        pid: u32,
        /// How, such as `finished with code 0`.
        end: &'a dyn Display,
    },
    /// There are as many sessions as there may be.
    Full {
        /// The downstream peer, who is now turned away.
        peer: &'a dyn Display,
        /// Whose session it would have been.
        who: &'a dyn Display,
        /// Which limit it is.
        what: &'a str,
        /// How many that are.
        most: usize,
    },
    /// A connection from an address that is not allowed.
    NotAllowed {
        /// The downstream peer, who is now turned away.
        peer: &'a dyn Display,
    },
    /// A connection without a proven key had to make room for others.
    Crowded {
        /// The peer that was put out.
        peer: &'a dyn Display,
    },
    /// How many of those there were.
    PutOut {
        /// Since the line before, or since the start.
        count: u64,
        /// Since when; nothing if there was no line before.
        within: Duration,
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
    /// Configuration and keys are about to be read again.
    ReloadBegun {
        /// Who asked.
        who: &'a str,
        /// The configuration's file.
        file: &'a dyn Display,
        /// The files that changed, where that is why; empty otherwise.
        changed: &'a str,
    },
    /// A new configuration is in force.
    Reloaded {
        /// Who asked.
        who: &'a str,
        /// How many services there are now.
        services: usize,
    },
    /// A reload gave a service other keys.
    KeysChanged {
        /// Whose, in words.
        changes: &'a dyn Display,
    },
    /// A new configuration was refused whole.
    ReloadFailed {
        /// Who asked.
        who: &'a str,
        /// Why; findings have lines of their own.
        error: &'a dyn Display,
    },
    /// The log's file was opened anew.
    LogReopened,
    /// It could not be, and the old one stays.
    LogNotReopened {
        /// The system's words.
        error: &'a dyn Display,
    },
    /// One line of the list of open sessions, which a signal asked for.
    Listed {
        /// Whose key it is.
        who: &'a dyn Display,
        /// The downstream peer.
        peer: &'a dyn Display,
        /// Version, suite, group.
        terms: Terms<'a>,
        /// The upstream address.
        target: &'a dyn Display,
        /// Since it was let in.
        age: Duration,
        /// Bytes from downstream to upstream.
        up: u64,
        /// Bytes from upstream to downstream.
        down: u64,
    },
    /// The end of that list.
    ListedAll {
        /// How many there were.
        count: usize,
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
        /// What was counted since the start.
        totals: &'a dyn Display,
    },
    /// The control socket is open.
    Controlled {
        /// Its path.
        path: &'a dyn Display,
    },
    /// There is none, or not as it was asked for, and the program runs all the same.
    Uncontrolled {
        /// How much that matters: a stunnel.conf asks for none.
        level: Level,
        /// Why.
        error: &'a dyn Display,
    },
    /// Somebody who may gave an order over the control socket.
    Ordered {
        /// Which.
        what: &'a dyn Display,
        /// User and process.
        who: &'a dyn Display,
    },
    /// Somebody who may not tried to.
    Denied {
        /// Which.
        what: &'a dyn Display,
        /// User and process.
        who: &'a dyn Display,
    },
    /// A diagnostic that does not keep the program from running.
    Finding {
        /// Warning or notice.
        level: Level,
        /// In one line.
        text: &'a dyn Display,
    },
}

/// The end of stunnel's last line for a connection that never became a session.
const NOTHING: &str = "0 byte(s) sent to TLS, 0 byte(s) sent to socket";

/// What became of a session's two connections, in the words of stunnel's last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Both were closed in order.
    Closed,
    /// Both were reset.
    Reset,
    /// The accepted one was reset, the other closed.
    LocalReset,
    /// The accepted one was closed, the other reset.
    RemoteReset,
}

impl Manner {
    fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::LocalReset => "closed/reset",
            Self::RemoteReset => "reset/closed",
        }
    }
}

impl Event<'_> {
    /// A stable name for whoever reads JSON lines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begun { .. } => "begun",
            Self::Configured => "configured",
            Self::Listening { .. } => "listening",
            Self::Accepting => "accepting",
            Self::Accepted { .. } => "accepted",
            Self::Introduced { .. } => "introduced",
            Self::Probed { .. } => "probed",
            Self::NotIntroduced { .. } => "bad-proxy-header",
            Self::Secured { .. } => "secured",
            Self::Presenting { .. } => "presenting",
            Self::ProxyAgreed { .. } => "proxy-agreed",
            Self::Connecting { .. } => "connecting",
            Self::Connected { .. } => "connected",
            Self::ConnectFailed { .. } => "connect-failed",
            Self::Unresolved { .. } => "unresolved",
            Self::Opened { .. } => "session-opened",
            Self::KeyOverused { .. } => "key-overused",
            Self::Closed { .. } => "session-closed",
            Self::Refused { .. } => "handshake-refused",
            Self::HandshakeFailed { .. } => "handshake-failed",
            Self::Unreachable { .. } => "target-unreachable",
            Self::Unprepared { .. } => "socket-options-failed",
            Self::Spawning => "spawning",
            Self::NotSpawned { .. } => "not-spawned",
            Self::Respawning { .. } => "respawning",
            Self::ChildStarted { .. } => "child-started",
            Self::ChildEnded { .. } => "child-ended",
            Self::Full { .. } => "service-full",
            Self::NotAllowed { .. } => "not-allowed-from",
            Self::Crowded { .. } => "handshakes-crowded",
            Self::PutOut { .. } => "put-out",
            Self::AcceptTrouble { .. } => "accept-trouble",
            Self::AcceptRecovered { .. } => "accept-recovered",
            Self::Withheld { .. } => "lines-withheld",
            Self::ReloadBegun { .. } => "reload-begun",
            Self::Reloaded { .. } => "reloaded",
            Self::KeysChanged { .. } => "keys-changed",
            Self::ReloadFailed { .. } => "reload-failed",
            Self::LogReopened => "log-reopened",
            Self::LogNotReopened { .. } => "log-not-reopened",
            Self::Listed { .. } => "session",
            Self::ListedAll { .. } => "sessions-listed",
            Self::Draining { .. } => "draining",
            Self::Stopped { .. } => "stopped",
            Self::Controlled { .. } => "control-socket",
            Self::Uncontrolled { .. } => "no-control-socket",
            Self::Ordered { .. } => "ordered",
            Self::Denied { .. } => "order-denied",
            Self::Finding { .. } => "finding",
        }
    }

    /// Writes its lines, as far as their levels are logged at all.
    pub fn log(&self, scope: Scope<'_>) {
        log::write(self, scope);
    }

    /// Whether any of its lines would be written.
    pub(super) fn is_wanted(&self, scope: Scope<'_>) -> bool {
        log::is_wanted(self, scope)
    }

    /// Hands its lines in a format to `line`, each with its level.
    pub(super) fn lines(
        &self,
        format: LogFormat,
        scope: Scope<'_>,
        line: &mut dyn FnMut(Level, fmt::Arguments<'_>),
    ) {
        match format {
            LogFormat::Human | LogFormat::Json => line(self.level(), format_args!("{self}")),
            LogFormat::Stunnel => self.stunnel(scope.service.unwrap_or_default(), line),
        }
    }

    /// How important it is.
    fn level(&self) -> Level {
        match self {
            Self::Closed { level, .. }
            | Self::Finding { level, .. }
            | Self::Uncontrolled { level, .. } => *level,
            Self::Ordered { .. } => Level::Notice,
            Self::Denied { .. } => Level::Info,
            Self::Controlled { .. } => Level::Debug,
            Self::ReloadFailed { .. } | Self::LogNotReopened { .. } => Level::Error,
            Self::LogReopened | Self::Listed { .. } | Self::ListedAll { .. } => Level::Notice,
            Self::NotSpawned { .. } => Level::Error,
            Self::AcceptTrouble { .. }
            | Self::NotIntroduced { .. }
            | Self::HandshakeFailed { .. }
            | Self::KeyOverused { .. }
            | Self::Unprepared { .. }
            | Self::Unreachable { .. } => Level::Warning,
            Self::Full { .. } | Self::PutOut { .. } | Self::AcceptRecovered { .. } => Level::Notice,
            Self::ReloadBegun { .. }
            | Self::Reloaded { .. }
            | Self::KeysChanged { .. }
            | Self::Draining { .. }
            | Self::Stopped { .. } => Level::Notice,
            Self::Listening { still: false, .. }
            | Self::Opened { .. }
            | Self::Refused { .. }
            | Self::NotAllowed { .. }
            | Self::Respawning { .. }
            | Self::ChildStarted { .. }
            | Self::ChildEnded { .. }
            | Self::Withheld { .. } => Level::Info,
            Self::Listening { still: true, .. }
            | Self::Begun { .. }
            | Self::Configured
            | Self::Accepting
            | Self::Spawning
            | Self::Accepted { .. }
            | Self::Introduced { .. }
            | Self::Probed { .. }
            | Self::Secured { .. }
            | Self::Presenting { .. }
            | Self::ProxyAgreed { .. }
            | Self::Connecting { .. }
            | Self::Connected { .. }
            | Self::ConnectFailed { .. }
            | Self::Crowded { .. }
            | Self::Unresolved { .. } => Level::Debug,
        }
    }

    /// The phrases that monitoring greps for are stunnel's, and so are their levels; where stunnel
    /// has no phrase, or hides the cause, the words are ours.
    fn stunnel(&self, service: &str, line: &mut dyn FnMut(Level, fmt::Arguments<'_>)) {
        use Level::{Error, Info, Notice, Warning};
        match self {
            Self::Listening { address, descriptor, .. } => {
                let at = format_args!("Service [{service}] (FD={descriptor}) bound to {address}");
                line(Info, at);
            }
            Self::Begun { banner } => {
                for said in banner.lines() {
                    line(Notice, format_args!("{said}"));
                }
            }
            Self::Configured => line(Notice, format_args!("Configuration successful")),
            Self::Accepting => line(Info, format_args!("Accepting new connections")),
            Self::Accepted { peer } => {
                line(Level::Debug, format_args!("Service [{service}] started"));
                let from = format_args!("Service [{service}] accepted connection from {peer}");
                line(Notice, from);
            }
            Self::Secured { mode, who, resumed, version, suite, bits, group } => {
                match (mode, resumed) {
                    (Mode::Server, false) => {
                        line(Notice, format_args!("Key configured for PSK identity {who}"));
                        line(Info, format_args!("TLS accepted: PSK"));
                    }
                    // stunnel does not say who it is then.
                    (Mode::Server, true) => {
                        line(Notice, format_args!("Ticket accepted of PSK identity {who}"));
                        line(Info, format_args!("TLS accepted: previous session reused"));
                    }
                    (Mode::Client, false) => {
                        line(Info, format_args!("TLS connected: new session negotiated"));
                    }
                    (Mode::Client, true) => {
                        line(Info, format_args!("TLS connected: previous session reused"));
                    }
                }
                let cipher = format_args!("{version} ciphersuite: {suite} ({bits}-bit encryption)");
                line(Info, cipher);
                if let Some((name, bits)) = group {
                    line(Info, format_args!("Peer temporary key: {name}, {bits} bits"));
                }
            }
            Self::Presenting { who, name } => {
                match name {
                    Some(name) => line(Info, format_args!("SNI: sending servername: {name}")),
                    None => line(Info, format_args!("SNI: extension disabled")),
                }
                line(Info, format_args!("PSK client configured for identity {who}"));
            }
            Self::ProxyAgreed { .. } => line(Info, format_args!("CONNECT request accepted")),
            Self::Connecting { address } => {
                line(Info, format_args!("s_connect: connecting {address}"));
            }
            Self::Connected { address, local } => {
                line(Notice, format_args!("s_connect: connected {address}"));
                let from = format_args!("Service [{service}] connected remote server from {local}");
                line(Notice, from);
            }
            Self::ConnectFailed { address, error } => match error.raw_os_error() {
                Some(number) => {
                    let text = error.to_string();
                    let words = text.split(" (os error").next().unwrap_or_default();
                    let failed = format_args!("s_connect: connect {address}: {words} ({number})");
                    line(Error, failed);
                }
                None if error.kind() == std::io::ErrorKind::TimedOut => {
                    let late =
                        format_args!("s_connect: s_poll_wait {address}: TIMEOUTconnect exceeded");
                    line(Error, late);
                }
                None => line(Error, format_args!("Error resolving {address}: {error}")),
            },
            Self::Unresolved { target, error } => {
                line(Error, format_args!("Error resolving {target}: {error}"));
            }
            Self::Unreachable { .. } => {
                line(Error, format_args!("No more addresses to connect"));
                line(Notice, format_args!("Connection reset: {NOTHING}"));
            }
            Self::Opened { .. } => {}
            Self::KeyOverused { .. } => line(Warning, format_args!("{self}")),
            Self::Closed { complete, end, mode, manner, up, down, .. } => {
                if !complete {
                    line(Notice, format_args!("{end}"));
                }
                let (tls, socket) = match mode {
                    Mode::Client => (up, down),
                    Mode::Server => (down, up),
                };
                line(
                    Notice,
                    format_args!(
                        "Connection {}: {tls} byte(s) sent to TLS, {socket} byte(s) sent to socket",
                        manner.word()
                    ),
                );
            }
            Self::Refused { peer, cause, .. } => {
                // LOG3 there. Here strangers cannot write errors; the phrase is the same.
                line(Notice, format_args!("SSL_accept: {peer}: {cause}"));
                line(Notice, format_args!("Connection reset/closed: {NOTHING}"));
            }
            Self::HandshakeFailed { target, cause, .. } => {
                line(Error, format_args!("SSL_connect: {target}: {cause}"));
                line(Notice, format_args!("Connection reset: {NOTHING}"));
            }
            Self::Full { most: limit, .. } => {
                let many = format_args!("Connection rejected: too many clients (>={limit})");
                line(Warning, many);
            }
            Self::ReloadBegun { who, file, changed: "" } => {
                line(Notice, format_args!("Reading configuration from file {file} ({who})"));
            }
            Self::ReloadBegun { who, file, changed } => {
                let why = format_args!("Reading configuration from file {file} ({who}: {changed})");
                line(Notice, why);
            }
            // "Configuration successful" stands before the lines of the listeners.
            Self::Reloaded { .. } => {}
            Self::KeysChanged { changes } => {
                line(Notice, format_args!("Service [{service}] keys: {changes}"));
            }
            Self::ReloadFailed { error, .. } => {
                line(Error, format_args!("Configuration failed"));
                let kept = format_args!("Failed to reload the configuration file: {error}");
                line(Error, kept);
            }
            Self::Draining { signal: "SIGTERM", .. } => line(Notice, format_args!("Terminated")),
            Self::Draining { signal, .. } => {
                line(Error, format_args!("Received {signal}; terminating"));
            }
            Self::LogReopened => line(Notice, format_args!("Log file reopened")),
            Self::ListedAll { count } => {
                line(Notice, format_args!("Listed {count} active connection(s)"));
            }
            Self::Listed { who, peer, terms, target, age, up, down } => {
                let seconds = age.as_secs_f64();
                line(
                    Notice,
                    format_args!(
                        "Active connection: Service [{service}], {peer}, identity {who}, {terms}, \
                         to {target}, open for {seconds:.1}s, {up} byte(s) up, {down} byte(s) down"
                    ),
                );
            }
            Self::Spawning => {
                line(Level::Debug, format_args!("Starting exec+connect service [{service}]"));
            }
            Self::Respawning { .. } => line(Info, format_args!("Retrying an exec+connect section")),
            Self::LogNotReopened { .. }
            | Self::NotSpawned { .. }
            | Self::Unprepared { .. }
            | Self::ChildStarted { .. }
            | Self::ChildEnded { .. }
            | Self::Crowded { .. }
            | Self::PutOut { .. }
            | Self::AcceptTrouble { .. }
            | Self::AcceptRecovered { .. }
            | Self::Withheld { .. }
            | Self::Stopped { .. }
            | Self::NotAllowed { .. }
            | Self::Introduced { .. }
            | Self::Probed { .. }
            | Self::NotIntroduced { .. }
            | Self::Controlled { .. }
            | Self::Uncontrolled { .. }
            | Self::Ordered { .. }
            | Self::Denied { .. }
            | Self::Finding { .. } => line(self.level(), format_args!("{self}")),
        }
    }
}

impl Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { address, .. } => write!(f, "listening on {address}"),
            Self::Begun { banner } => f.write_str(banner.lines().last().unwrap_or_default()),
            Self::Configured => f.write_str("configuration read"),
            Self::Accepting => f.write_str("accepting connections"),
            Self::Accepted { peer } => write!(f, "connection from {peer}"),
            Self::Secured { who, resumed, version, suite, .. } => {
                let how = if *resumed { ", resumed" } else { "" };
                write!(f, "handshake done: identity {who}, {version} {suite}{how}")
            }
            Self::Presenting { who, name: Some(name) } => {
                write!(f, "presenting identity {who}, asking for {name}")
            }
            Self::Presenting { who, name: None } => write!(f, "presenting identity {who}"),
            Self::ProxyAgreed { proxy, host } => {
                write!(f, "the proxy at {proxy} has opened the way to {host}")
            }
            Self::Connecting { address } => write!(f, "connecting to {address}"),
            Self::Connected { address, local } => write!(f, "connected to {address} from {local}"),
            Self::ConnectFailed { address, error } => {
                write!(f, "cannot connect to {address}: {error}")
            }
            Self::Unresolved { target, error } => write!(f, "cannot look up {target}: {error}"),
            Self::Opened { peer, who, terms, target } => {
                write!(f, "session opened: {peer}, identity {who}, {terms}, to {target}")
            }
            Self::KeyOverused { peer, who, version, records } => {
                write!(
                    f,
                    "{records} records are protected with one key in the session of {who} at {peer}; "
                )?;
                match *version {
                    "TLSv1.3" => f.write_str("the peer was asked for a new key and sends none"),
                    _ => write!(
                        f,
                        "{version} cannot change keys: use TLS 1.3, or set session-lifetime"
                    ),
                }
            }
            Self::Closed { end, who, up, down, age, .. } => {
                let seconds = age.as_secs_f64();
                write!(f, "session closed: {end}; identity {who}, ")?;
                write!(f, "{up} bytes up, {down} bytes down, {seconds:.1}s")
            }
            Self::Refused { peer, cause, .. } => write!(f, "handshake refused: {peer}: {cause}"),
            Self::HandshakeFailed { target, cause, .. } => {
                write!(f, "handshake failed: {target}: {cause}")
            }
            Self::Unreachable { peer, error } => {
                write!(f, "turned {peer} away, no target answers: {error}")
            }
            Self::Unprepared { peer, error } => {
                write!(f, "turned {peer} away, a socket option cannot be set: {error}")
            }
            Self::ChildStarted { pid } => write!(f, "Local mode child started (PID={pid})"),
            Self::ChildEnded { pid, end } => write!(f, "Child process {pid} {end}"),
            Self::Spawning => f.write_str("starts the program whose connection it carries"),
            Self::NotSpawned { program, error } => write!(f, "cannot run {program}: {error}"),
            Self::Respawning { pause } => {
                write!(f, "starts the program again in {:.1}s", pause.as_secs_f64())
            }
            Self::Full { peer, who, what, most } => {
                write!(f, "turned {who} at {peer} away: {what} are open ({most})")
            }
            Self::Introduced { peer, proxy } => {
                write!(f, "the proxy {proxy} connects for {peer}")
            }
            Self::Probed { peer } => write!(f, "the proxy {peer} looked in and left"),
            Self::NotIntroduced { peer, error } => {
                write!(f, "turned the proxy {peer} away: {error}; proxy-protocol-from names it")
            }
            Self::NotAllowed { peer } => {
                write!(f, "turned {peer} away: allow-from has not this address")
            }
            Self::Crowded { peer } => {
                write!(f, "put {peer} out before it had proven a key, to make room for others")
            }
            Self::PutOut { count, within } if within.is_zero() => {
                write!(
                    f,
                    "put {count} out without a proven key, to make room for others (crowded-out)"
                )
            }
            Self::PutOut { count, within } => write!(
                f,
                "put {count} out without a proven key within {:.0} s, to make room for others \
                 (crowded-out)",
                within.as_secs_f64()
            ),
            Self::AcceptTrouble { error } => {
                write!(f, "cannot accept connections, and tries again ten times a second: {error}")
            }
            Self::AcceptRecovered { failures } => {
                write!(f, "accepts connections again after {failures} failures")
            }
            Self::Withheld { lines, within } => write!(
                f,
                "{lines} more lines of connections were withheld in {:.0} s",
                within.as_secs_f64()
            ),
            Self::KeysChanged { changes } => write!(f, "keys: {changes}"),
            Self::ReloadBegun { who, changed: "", .. } => write!(f, "{who}: reload begins"),
            Self::ReloadBegun { who, changed, .. } => {
                write!(f, "{who}: reload begins: {changed}")
            }
            Self::Reloaded { who, services } => {
                write!(f, "{who}: reloaded; services running: {services}")
            }
            Self::ReloadFailed { who, error } => write!(f, "{who}: not reloaded: {error}"),
            Self::LogReopened => f.write_str("the log file was opened anew"),
            Self::LogNotReopened { error } => {
                write!(f, "cannot open the log file anew, and goes on with the old one: {error}")
            }
            Self::Listed { who, peer, terms, target, age, up, down } => {
                let seconds = age.as_secs_f64();
                write!(
                    f,
                    "session: {peer}, identity {who}, {terms}, to {target}; open for {seconds:.1}s, \
                     {up} bytes up, {down} bytes down"
                )
            }
            Self::ListedAll { count } => write!(f, "{count} sessions are open"),
            Self::Draining { signal, limit } => {
                write!(f, "{signal}: no new connections; open sessions have {limit:?} to finish")
            }
            Self::Stopped { totals } => write!(f, "stopped after {totals}"),
            Self::Controlled { path } => write!(f, "control socket at {path}"),
            Self::Uncontrolled { error, .. } => write!(f, "{error}"),
            Self::Ordered { what, who } => write!(f, "control socket: {who} orders: {what}"),
            Self::Denied { what, who } => {
                write!(f, "control socket: {who} may not order: {what}")
            }
            Self::Finding { text, .. } => text.fmt(f),
        }
    }
}
