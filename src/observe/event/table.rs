//! A row for each event: when it happens, its name in JSON, its level, its parts, its words, stunnel's
//! words where they differ, and its values.
//!
//! What a stranger can cause is info or lower; in stunnel's format notice, whose level by default it is.
//! docs/DESIGN.md (Log levels) lists the exceptions.
//! Identities are displayed with quotes, and without them as values (`{:#}`).

use std::fmt::{self, Display};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::phrases::{OpensslError, SocksRejection, WithPhrase, WithReason, of_session_end};
use super::row::events;
use super::{CloseManner, TlsTerms};
use crate::config::model::{Level, Mode};
use crate::observe::log_context::LogContext;
use crate::observe::session_id;

/// Tells events from what a dependency says.
pub(in crate::observe) const TARGET: &str = "pskgate";

/// The end of stunnel's last line for a connection that never became a session.
const NOTHING: &str = "0 byte(s) sent to TLS, 0 byte(s) sent to socket";

/// The nearest of `tracing`'s five levels. Which of syslog's eight an event has, its field `level` says.
const fn tracing_level(level: Level) -> tracing::Level {
    match level {
        Level::Emergency | Level::Alert | Level::Critical | Level::Error => tracing::Level::ERROR,
        Level::Warning => tracing::Level::WARN,
        Level::Notice | Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
    }
}

events! {
    stunnel knows service;

    // The program.

    /// The program has begun.
    Begun("begun", Debug) {
        /// Its names and versions, a line each, as stunnel says them.
        banner: &'a str,
    }
    words("{}", banner.lines().last().unwrap_or_default())
    stunnel(|line| for said in banner.lines() {
        line(Level::Notice, format_args!("{said}"));
    })

    /// The configuration was read, and can be followed.
    Configured("configured", Debug)
    words("configuration read")
    stunnel(Notice "Configuration successful")

    /// A diagnostic that does not keep the program from running.
    Finding("finding", Warning, *level) {
        /// Warning or notice.
        level: Level,
        /// In one line.
        text: &'a dyn Display,
        /// Its code, if it has one.
        code: Option<&'static str>,
    }
    words("{text}")
    code(*code)

    /// A signal asked to stop; sessions may finish.
    Draining("draining", Notice) {
        /// Who asked.
        signal: &'a str,
        /// How long.
        limit: Duration,
    }
    words("{signal}: no new connections; open sessions have {limit:?} to finish")
    stunnel(|line| match *signal {
        "SIGTERM" => line(Level::Notice, format_args!("Terminated")),
        signal => line(Level::Error, format_args!("Received {signal}; terminating")),
    })
    fields(by = signal, "limit-ms" = millis(*limit))

    /// Everything has ended.
    Stopped("stopped", Notice) {
        /// What was counted since the start.
        totals: &'a dyn Display,
    }
    words("stopped after {totals}")

    /// The log's file was opened anew.
    LogReopened("log-reopened", Notice)
    words("reopened the log file")
    stunnel(Notice "Log file reopened")

    /// It could not be, and the old one stays.
    LogNotReopened("log-not-reopened", Error) {
        /// The system's words.
        error: &'a dyn Display,
    }
    words("cannot reopen the log file, and goes on writing to the old one: {error}")
    fields(error = %error)

    /// Lines that were not written because strangers cause too many.
    Withheld("lines-withheld", Info) {
        /// How many.
        lines: u64,
        /// Since when.
        within: Duration,
    }
    words(
        "{lines} more lines about connections were left out within {:.0} s (rate limit)",
        within.as_secs_f64()
    )
    fields(lines = lines, "within-ms" = millis(*within))

    // A reload.

    /// Configuration and keys are about to be read again.
    ReloadBegun("reload-begun", Notice) {
        /// Who asked.
        who: &'a str,
        /// The configuration's file.
        file: &'a dyn Display,
        /// The files that changed, where that is why; empty otherwise.
        changed: &'a str,
    }
    words("{who}: reload begins{}", Behind(": changed: ", given(changed)))
    stunnel(Notice "Reading configuration from file {file} ({who}{})", Behind(": ", given(changed)))
    fields(by = who, file = %file, changed = given(changed))

    /// A new configuration is in force. stunnel's words for it stand before the lines of the listeners.
    Reloaded("reloaded", Notice) {
        /// Who asked.
        who: &'a str,
        /// How many services there are now.
        services: usize,
    }
    words("{who}: reloaded; services running: {services}")
    stunnel()
    fields(by = who, services = services)

    /// A reload gave a service other keys.
    KeysChanged("keys-changed", Notice) {
        /// Whose, in words.
        changes: &'a dyn Display,
    }
    words("keys: {changes}")
    stunnel(Notice "Service [{service}] keys: {changes}")
    fields(keys = %changes)

    /// A new configuration was refused whole.
    ReloadFailed("reload-failed", Error) {
        /// Who asked.
        who: &'a str,
        /// Why; findings have lines of their own.
        error: &'a dyn Display,
    }
    words("{who}: not reloaded: {error}")
    stunnel(
        Error "Configuration failed";
        Error "Failed to reload the configuration file: {error}"
    )
    fields(by = who, error = %error)

    // The control socket.

    /// The control socket is open.
    Controlled("control-socket", Debug) {
        /// Its path.
        path: &'a dyn Display,
    }
    words("control socket at {path}")
    fields(path = %path)

    /// There is none, or not as it was asked for, and the program runs all the same.
    Uncontrolled("no-control-socket", Warning, *level) {
        /// How much that matters: a stunnel.conf asks for none.
        level: Level,
        /// Why.
        error: &'a dyn Display,
    }
    words("{error}")
    fields(error = %error)

    /// Somebody who may gave an order over the control socket.
    Ordered("ordered", Notice) {
        /// Which.
        what: &'a dyn Display,
        /// User and process.
        who: &'a dyn Display,
    }
    words("control socket: {who} orders: {what}")
    fields(order = %what, by = %who)

    /// Somebody who may not tried to.
    Denied("order-denied", Info) {
        /// Which.
        what: &'a dyn Display,
        /// User and process.
        who: &'a dyn Display,
    }
    words("control socket: {who} may not order: {what} ([control] command-users)")
    fields(order = %what, by = %who)

    // Listeners, and who comes in.

    /// A listener is open, for the first time or still after a reload.
    Listening("listening", Info, if *still { Level::Debug } else { Level::Info }) {
        /// Its address, with the real port.
        address: &'a dyn Display,
        /// Its descriptor, which stunnel names.
        descriptor: i64,
        /// It was open before this reload.
        still: bool,
    }
    words("listening on {address}")
    stunnel(Info "Service [{service}] (FD={descriptor}) bound to {}", Bare(address))
    fields(address = %address)

    /// A service of a stunnel.conf serves without one of its addresses.
    AddressMissing("address-missing", Warning) {
        /// Which.
        address: &'a dyn Display,
        /// The system's words.
        error: &'a str,
    }
    words("does not listen on {address}, and tries again until it can: {error}")
    stunnel(
        Notice "Binding service [{service}] to {}: {}", Bare(address), error.replace("(os error ", "(")
    )
    code("cannot-listen")
    fields(address = %address, error = error)

    /// Every listener is open.
    Accepting("accepting", Debug)
    words("accepting connections")
    stunnel(Info "Accepting new connections")

    /// Accepting fails for want of descriptors or memory; said once.
    AcceptTrouble("accept-trouble", Warning) {
        /// The system's words.
        error: &'a dyn Display,
    }
    words("cannot accept connections; retrying ten times a second: {error}")
    fields(error = %error)

    /// Accepting works again.
    AcceptRecovered("accept-recovered", Notice) {
        /// How often it had failed.
        failures: u64,
    }
    words("accepting connections again after {failures} failures")
    fields(failures = failures)

    /// A connection was accepted.
    Accepted("accepted", Debug) {
        /// The downstream peer.
        peer: &'a dyn Display,
    }
    words("connection from {peer}")
    stunnel(
        Debug "Service [{service}] started";
        Notice "Service [{service}] accepted connection from {}", Bare(peer)
    )
    fields(peer = %peer)

    /// A proxy said in a PROXY header for whom it connects.
    Introduced("introduced", Debug) {
        /// For whom.
        peer: &'a dyn Display,
        /// The proxy.
        proxy: &'a dyn Display,
    }
    words("the proxy {proxy} connects for {peer}")
    fields(peer = %peer, proxy = %proxy)

    /// A proxy looked whether anybody is here.
    Probed("probed", Debug) {
        /// The proxy.
        peer: &'a dyn Display,
    }
    words("the proxy {peer} connected and closed without sending anything (a health check)")
    fields(peer = %peer)

    /// A proxy did not say for whom it connects.
    NotIntroduced("bad-proxy-header", Warning) {
        /// The proxy, who is now turned away.
        peer: &'a dyn Display,
        /// Why.
        error: &'a dyn Display,
    }
    words("refused the proxy {peer}, which is in proxy-protocol-from: {error}")
    code("bad-proxy-header")
    fields(peer = %peer, error = %error)

    /// A connection from an address that is not allowed.
    NotAllowed("not-allowed-from", Info) {
        /// The downstream peer, who is now turned away.
        peer: &'a dyn Display,
    }
    words("refused {peer}: its address is not in allow-from")
    code("not-allowed-from")
    fields(peer = %peer)

    /// A connection without a proven key had to make room for others.
    Crowded("handshakes-crowded", Debug) {
        /// The peer that was put out.
        peer: &'a dyn Display,
    }
    words("closed the connection of {peer}, which had not proven a key, to make room for others")
    code("crowded-out")
    fields(peer = %peer)

    /// How many of those there were.
    PutOut("put-out", Notice) {
        /// Since the line before, or since the start.
        count: u64,
        /// Since when; nothing if there was no line before.
        within: Duration,
    }
    words(
        "closed {count} connections without a proven key{}, to make room for others",
        Behind(" within ", (!within.is_zero()).then(|| format!("{:.0} s", within.as_secs_f64())))
    )
    code("crowded-out")
    fields(connections = count, "within-ms" = millis(*within))

    /// There are as many sessions as there may be.
    Full("service-full", Notice) {
        /// The downstream peer, who is now turned away.
        peer: &'a dyn Display,
        /// Whose session it would have been.
        who: &'a dyn Display,
        /// Which limit it is.
        what: &'a str,
        /// How many that are.
        most: usize,
    }
    words("refused identity {who} from {peer}: {what}")
    stunnel(Warning "Connection rejected: too many clients (>={most})")
    code("full")
    fields(peer = %peer, identity = %who, limit = most)

    // The handshake.

    /// A client end's handshake begins.
    Presenting("presenting", Debug) {
        /// The identity that is presented, quoted.
        who: &'a dyn Display,
        /// The name in SNI, if one is sent.
        name: Option<&'a str>,
    }
    words("presenting identity {who}{}", Behind(", asking for ", *name))
    stunnel(|line| {
        match name {
            Some(name) => line(Level::Info, format_args!("SNI: sending servername: {name}")),
            None => line(Level::Info, format_args!("SNI: extension disabled")),
        }
        line(Level::Info, format_args!("PSK client configured for identity {who}"));
    })
    fields(identity = %who, "server-name" = name)

    /// A handshake succeeded, and the key is proven.
    Secured("secured", Debug) {
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
    }
    words(
        "handshake done: identity {who}, {version} {suite}{}",
        if *resumed { ", resumed" } else { "" }
    )
    stunnel(|line| {
        match (mode, resumed) {
            (Mode::Server, false) => {
                line(Level::Notice, format_args!("Key configured for PSK identity {who}"));
            }
            // stunnel does not say who it is then.
            (Mode::Server, true) => {
                line(Level::Notice, format_args!("Session resumed of PSK identity {who}"));
            }
            (Mode::Client, _) => {}
        }
        let how = match (mode, resumed) {
            (Mode::Server, false) => "TLS accepted: PSK",
            (Mode::Server, true) => "TLS accepted: previous session reused",
            (Mode::Client, false) => "TLS connected: new session negotiated",
            (Mode::Client, true) => "TLS connected: previous session reused",
        };
        line(Level::Info, format_args!("{how}"));
        let cipher = format_args!("{version} ciphersuite: {suite} ({bits}-bit encryption)");
        line(Level::Info, cipher);
        if let Some((name, bits)) = group {
            line(Level::Info, format_args!("Peer temporary key: {name}, {bits} bits"));
        }
    })
    fields(
        identity = %who,
        handshake = if *resumed { "resumed" } else { "full" },
        version = version,
        suite = suite,
        group = group.map(|(name, _)| name),
        bits = u64::try_from(*bits).unwrap_or(0)
    )

    /// Server end: a handshake failed. LOG3 in stunnel; here strangers cannot write errors, and the phrase
    /// is the same.
    Refused("handshake-refused", Info) {
        /// The downstream peer.
        peer: &'a dyn Display,
        /// The identity that it claimed, if it got so far.
        who: Option<&'a dyn Display>,
        /// Why.
        cause: &'a dyn Display,
        /// The stable name of that.
        name: &'static str,
        /// What OpenSSL says of it.
        openssl: Option<OpensslError>,
    }
    words("handshake refused: {peer}: {}", WithReason(*cause, *openssl))
    stunnel(|line| {
        if let ("unknown-identity", Some(who)) = (*name, who) {
            line(Level::Info, format_args!("PSK identity not found: {who:#}"));
        }
        let cause = WithPhrase(*cause, name, *openssl);
        line(Level::Notice, format_args!("SSL_accept: {peer}: {cause}"));
        line(Level::Notice, format_args!("Connection reset/closed: {NOTHING}"));
    })
    code(*name)
    fields(
        peer = %peer,
        identity = who.map(tracing::field::display),
        cause = name,
        openssl = openssl.map(|error| error.reason)
    )

    /// Client end: the server did not let us in, or did not prove itself.
    HandshakeFailed("handshake-failed", Warning) {
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
        /// What OpenSSL says of it.
        openssl: Option<OpensslError>,
    }
    words("handshake failed: {target}: {}", WithReason(*cause, *openssl))
    stunnel(
        Error "SSL_connect: {target}: {}", WithPhrase(*cause, name, *openssl);
        Notice "Connection reset: {NOTHING}"
    )
    code(*name)
    fields(
        peer = %peer,
        identity = %who,
        target = %target,
        cause = name,
        openssl = openssl.map(|error| error.reason)
    )

    // The way to the target.

    /// A target's name could not be looked up.
    Unresolved("unresolved", Debug) {
        /// The target as the configuration names it.
        target: &'a dyn Display,
        /// Why.
        error: &'a dyn Display,
    }
    words("cannot look up {target}: {error}")
    stunnel(Error "Error resolving {target}: {error}")
    fields(target = %target, error = %error)

    /// An address is tried.
    Connecting("connecting", Debug) {
        /// The upstream address.
        address: &'a dyn Display,
    }
    words("connecting to {address}")
    stunnel(Info "s_connect: connecting {}", Bare(address))
    fields(target = %address)

    /// It answered.
    Connected("connected", Debug) {
        /// The upstream address.
        address: &'a dyn Display,
        /// Our own address towards it.
        local: &'a dyn Display,
    }
    words("connected to {address} from {local}")
    stunnel(
        Notice "s_connect: connected {}", Bare(address);
        Notice "Service [{service}] connected remote server from {}", Bare(local)
    )
    fields(target = %address, local = %local)

    /// It did not.
    ConnectFailed("connect-failed", Debug) {
        /// The upstream address.
        address: &'a dyn Display,
        /// The system's words, with its number.
        error: &'a io::Error,
    }
    words("cannot connect to {address}: {error}")
    stunnel(|line| match error.raw_os_error() {
        Some(number) => {
            let text = error.to_string();
            let said = text.split(" (os error").next().unwrap_or_default();
            let failed = format_args!("s_connect: connect {}: {said} ({number})", Bare(address));
            line(Level::Error, failed);
        }
        None if error.kind() == io::ErrorKind::TimedOut => {
            let at = Bare(address);
            let late = format_args!("s_connect: s_poll_wait {at}: TIMEOUTconnect exceeded");
            line(Level::Error, late);
        }
        None => line(Level::Error, format_args!("Error resolving {address}: {error}")),
    })
    fields(target = %address, error = %error)

    /// An HTTP proxy has opened the way to a server.
    ProxyAgreed("proxy-agreed", Debug) {
        /// The proxy's address.
        proxy: &'a dyn Display,
        /// The server.
        host: &'a dyn Display,
    }
    words("the proxy at {proxy} has opened the way to {host}")
    stunnel(Info "CONNECT request accepted")
    fields(proxy = %proxy, target = %host)

    /// No target answered.
    Unreachable("target-unreachable", Warning) {
        /// The downstream peer, who is now turned away.
        peer: &'a dyn Display,
        /// What was tried, and what came of it.
        error: &'a dyn Display,
        /// The address that a SOCKS peer asked for, if it may not be asked for.
        rejected: Option<SocketAddr>,
    }
    words("no target answers for {peer}: {error}")
    stunnel(|line| {
        match rejected {
            Some(address) => line(Level::Error, format_args!("{}", SocksRejection(*address))),
            None => line(Level::Error, format_args!("No more addresses to connect")),
        }
        line(Level::Notice, format_args!("Connection reset: {NOTHING}"));
    })
    code("target-unreachable")
    fields(peer = %peer, error = %error)

    /// A socket option that the operator wrote cannot be set, so nobody can be served.
    Unprepared("socket-options-failed", Warning) {
        /// The downstream peer, who is now turned away.
        peer: &'a dyn Display,
        /// The system's words.
        error: &'a dyn Display,
    }
    words("refused {peer}: a socket option cannot be set: {error}")
    code("socket-options")
    fields(peer = %peer, error = %error)

    /// A program was started to serve a session.
    ChildStarted("child-started", Info) {
        /// Its number.
        pid: u32,
    }
    words("program started (process {pid})")
    stunnel(Info "Local mode child started (PID={pid})")
    fields(pid = pid)

    /// A program that served a session has ended.
    ChildEnded("child-ended", Info) {
        /// Its number.
        pid: u32,
        /// How, such as `finished with code 0`.
        end: &'a dyn Display,
    }
    words("the program (process {pid}) {end}")
    stunnel(Info "Child process {pid} {end}")
    fields(pid = pid, status = %end)

    /// The program in place of a listener is about to be started.
    Spawning("spawning", Debug)
    words("starting the program in place of a listener")
    stunnel(Debug "Starting exec+connect service [{service}]")

    /// It could not be.
    NotSpawned("not-spawned", Error) {
        /// Its file.
        program: &'a dyn Display,
        /// The system's words.
        error: &'a io::Error,
    }
    words("cannot run {program}: {error}")
    fields(program = %program, error = %error)

    /// Its connection has ended, and it is to be started again.
    Respawning("respawning", Info) {
        /// After which pause.
        pause: Duration,
    }
    words("starting the program again in {:.1} s", pause.as_secs_f64())
    stunnel(Info "Retrying an exec+connect section")
    fields("pause-ms" = millis(*pause))

    // Sessions.

    /// A session begins: the key is proven and the target answers.
    Opened("session-opened", Info) {
        /// The downstream peer.
        peer: &'a dyn Display,
        /// Whose key it was.
        who: &'a dyn Display,
        /// Version, suite, group.
        terms: TlsTerms<'a>,
        /// The upstream address.
        target: &'a dyn Display,
    }
    words("session opened: {peer}, identity {who}, {terms}, to {target}")
    stunnel()
    fields(
        peer = %peer,
        identity = %who,
        version = terms.version,
        suite = terms.suite,
        group = terms.group,
        target = %target
    )

    /// More is protected with one key than should be.
    KeyOverused("key-overused", Warning) {
        /// The downstream peer.
        peer: &'a dyn Display,
        /// Whose session it is.
        who: &'a dyn Display,
        /// The version of TLS, such as `TLSv1.2`.
        version: &'a str,
        /// Records in the direction that has more of them.
        records: u64,
    }
    words(
        "{records} records are encrypted with one key in the session of {who} from {peer}; {}{}",
        if *version == "TLSv1.3" { "" } else { version },
        if *version == "TLSv1.3" {
            "the peer was asked to change its key and does not"
        } else {
            " cannot change keys: use TLS 1.3, or set session-lifetime"
        }
    )
    fields(peer = %peer, identity = %who, version = version, records = records)

    /// A session is over.
    Closed("session-closed", Info, *level) {
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
        manner: CloseManner,
        /// Bytes from downstream to upstream.
        up: u64,
        /// Bytes from upstream to downstream.
        down: u64,
        /// From accept to now.
        age: Duration,
    }
    words(
        "session closed: {end}; identity {who}, {up} bytes up, {down} bytes down, {:.1}s",
        age.as_secs_f64()
    )
    stunnel(|line| {
        if !complete {
            let phrase = Behind(": ", of_session_end(name));
            line(Level::Notice, format_args!("{end}{phrase}"));
        }
        let (tls, socket) = match mode {
            Mode::Client => (up, down),
            Mode::Server => (down, up),
        };
        let manner = manner.stunnel_word();
        line(
            Level::Notice,
            format_args!(
                "Connection {manner}: {tls} byte(s) sent to TLS, {socket} byte(s) sent to socket"
            ),
        );
    })
    code((*name != "complete").then_some(*name))
    fields(
        peer = %peer,
        identity = %who,
        target = %target,
        end = name,
        up = up,
        down = down,
        "age-ms" = millis(*age)
    )

    /// One line of the list of open sessions, which a signal asked for.
    Listed("session", Notice) {
        /// Whose key it is.
        who: &'a dyn Display,
        /// The downstream peer.
        peer: &'a dyn Display,
        /// Version, suite, group.
        terms: TlsTerms<'a>,
        /// The upstream address.
        target: &'a dyn Display,
        /// Since it was let in.
        age: Duration,
        /// Bytes from downstream to upstream.
        up: u64,
        /// Bytes from upstream to downstream.
        down: u64,
    }
    words(
        "session: {peer}, identity {who}, {terms}, to {target}; open for {:.1}s, {up} bytes up, \
         {down} bytes down",
        age.as_secs_f64()
    )
    stunnel(
        Notice "Active connection: Service [{service}], {peer}, identity {who}, {terms}, to {target}, \
                open for {:.1}s, {up} byte(s) up, {down} byte(s) down", age.as_secs_f64()
    )
    fields(
        peer = %peer,
        identity = %who,
        version = terms.version,
        suite = terms.suite,
        group = terms.group,
        target = %target,
        up = up,
        down = down,
        "age-ms" = millis(*age)
    )

    /// The end of that list.
    ListedAll("sessions-listed", Notice) {
        /// How many there were.
        count: usize,
    }
    words("{count} sessions are open")
    stunnel(Notice "Listed {count} active connection(s)")
    fields(sessions = count)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A text that is empty where there is none.
fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// A text with what leads to it, where there is one.
struct Behind<T>(&'static str, Option<T>);

impl<T: Display> Display for Behind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(before, text) = self;
        text.as_ref().map_or(Ok(()), |text| write!(f, "{before}{text}"))
    }
}

/// An address as stunnel writes it: without the brackets of IPv6.
struct Bare<'a>(&'a dyn Display);

impl Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
            Some((ip, port)) => write!(f, "{ip}:{port}"),
            None => f.write_str(&text),
        }
    }
}
