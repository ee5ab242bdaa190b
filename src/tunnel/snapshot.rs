//! One service ready to work: everything that its configuration asked for, built or refused whole.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::access_policy::{AccessPolicies, ClockReading, PolicyWarning};
use crate::config::diagnostic::{Diagnostic, Severity, SourceLocation};
use crate::config::model::{
    ConnectionSource, Dialect, Endpoint, Failover, Host, Keepalive, Level, LogId, Mode,
    NamePattern, Negotiation, Origin, Program, ProxyHeader, PskConfig, RekeyAfter, Resolved,
    ServiceConfig, SocketOption, Target, Timeouts,
};
use crate::net::Dialer;
use crate::secrets::{
    Grant, Identity, KeyFileProblem, KeyFileReader, KeyFileWriter, KeysInForce, PeerKeys,
    ProblemSeverity, RenewedKeys, SecretSet, escape, renew,
};
use crate::tls::{Acceptor, Connector, RefusalCause, SniCandidate};

/// A service's configuration, keys, TLS context and dialer. Immutable, shared, replaced as a whole.
#[derive(Debug, Clone)]
pub struct ServiceSnapshot {
    pub(super) secrets: Arc<SecretSet>,
    /// How long a backend that serves one connection is left alone between two.
    pub(super) backend_pause: Duration,
    /// What is tolerated in its key files or missing of them.
    key_warnings: Vec<KeyWarning>,
    pub(super) role: TlsRole,
    pub(super) dialer: Arc<Dialer>,
    pub(super) policies: Arc<AccessPolicies>,
    /// For how many identities it has slots; none at a client end, where nobody presents one.
    pub(super) competitors: usize,
    pub(super) timeouts: SessionTimeouts,
    pub(super) rekey_after: RekeyAfter,
    pub(super) reset: Option<bool>,
    /// The line that accepts clients with the suites of RFC 4279 alone, in the dialect of the file.
    old_suites_line: &'static str,
    pub(super) proxy_header: Option<ProxyHeader>,
    /// What is spoken around TLS.
    pub(super) negotiation: Option<Negotiation>,
    /// What becomes of a SOCKS peer that asks for an address of this machine.
    pub(super) own_addresses: OwnAddressPolicy,
    /// Connections go where they were meant to go before they were redirected here.
    pub(super) uses_original_destination: bool,
    /// The service whose clients come here when they send such a name.
    sni_entry: Option<(String, NamePattern)>,
    /// Of the TLS side's socket when it is the accepted one; the dialer has it otherwise.
    pub(super) keepalive: Option<Keepalive>,
    pub(super) downstream: Vec<Resolved<SocketOption>>,
    /// How important a line of this service must be, where it differs from the program's.
    pub(super) level: Option<Level>,
    /// What tells the log lines of one session from another's.
    pub(super) log_id: LogId,
    /// The program whose one connection is carried, and after which pause it is started again.
    pub(super) program: Option<(Program, Option<Duration>)>,
    /// At most one session: its backend may bear no second one, not even during a restart.
    pub(super) is_single_session: bool,
    /// A client end presents the first identity of its key files, because none is named.
    presents_first: bool,
    /// Whether a resumed session of a server end goes where the one before went.
    pub(super) is_sticky: bool,
}

/// What is tolerated in a key file, or missing of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyWarning {
    words: String,
    /// It is a key file that has yet to come.
    is_awaited: bool,
}

/// What becomes of a SOCKS peer that asks for an address of this machine's interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnAddressPolicy {
    Refuse,
    Allow,
    /// A stunnel.conf cannot say what it wants, and stunnel connects.
    Warn,
}

impl OwnAddressPolicy {
    fn of(allowed: &Resolved<bool>) -> Self {
        match allowed {
            Resolved { value: false, .. } => Self::Refuse,
            Resolved { origin: Origin::Default(_), .. } => Self::Warn,
            Resolved { origin: Origin::Said(_), .. } => Self::Allow,
        }
    }
}

/// Which side wears TLS.
#[derive(Debug, Clone)]
pub(super) enum TlsRole {
    Server(Acceptor),
    Client { connector: Connector, identity: Identity, name: ServerName },
}

/// What a client says in SNI.
#[derive(Debug, Clone)]
pub(super) enum ServerName {
    /// The host it connects to, where that is a name: RFC 6066, 3 allows no addresses.
    OfTarget,
    Fixed(String),
    None,
}

impl ServerName {
    pub(super) fn of<'a>(&'a self, target: Option<&'a Endpoint>) -> Option<&'a str> {
        match (self, target) {
            (Self::Fixed(name), _) => Some(name),
            (Self::OfTarget, Some(Endpoint::Tcp { host: Host::Name(name), .. })) => Some(name),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct SessionTimeouts {
    pub(super) handshake: Duration,
    pub(super) idle: Duration,
    pub(super) close: Duration,
    pub(super) lifetime: Option<Duration>,
}

impl SessionTimeouts {
    fn new(said: &Timeouts) -> Self {
        Self {
            handshake: said.handshake.value,
            idle: said.idle.value,
            close: said.close.value,
            lifetime: said.lifetime.as_ref().map(|lifetime| lifetime.value),
        }
    }
}

/// The service that a new snapshot is to replace.
#[derive(Debug, Clone, Copy)]
pub struct Previous<'a> {
    /// What it runs with.
    pub snapshot: &'a ServiceSnapshot,
    /// Its keys, read again as its own configuration names them.
    pub renewed: &'a SecretSet,
    /// The files and folders that this configuration names.
    pub paths: &'a [PathBuf],
    /// Files whose last key may go.
    pub last: &'a [PathBuf],
}

impl ServiceSnapshot {
    /// Reads the keys and builds the rest. `previous` lets unchanged keys keep their sessions, and keys of
    /// files that cannot be used now stay in force. Warnings are added to `findings`, and so is what is
    /// wrong with such files, at the severity of an error.
    ///
    /// # Errors
    /// Every reason why this service cannot work.
    pub fn build(
        config: &ServiceConfig,
        reader: &mut KeyFileReader,
        previous: Option<&Previous<'_>>,
        findings: &mut Vec<Diagnostic>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let psk = &config.psk;
        let paths = key_paths(psk);
        let (hold, sets) =
            (HashSet::new(), previous.map(|old| [old.renewed, &*old.snapshot.secrets]));
        let in_force = previous.zip(sets.as_ref()).map(|(old, sets)| KeysInForce {
            sets,
            paths: old.paths,
            held_identities: &hold,
            emptied_on_purpose: old.last,
        });
        match renew(&paths, psk.rules, reader, in_force.as_ref()) {
            Ok(RenewedKeys { set, problems }) => {
                let key_warnings = lasting_warnings(&problems, psk);
                findings.extend(problems.into_iter().map(|problem| of_file(problem, psk)));
                let old = previous.map(|old| old.snapshot);
                let snapshot = Self::with_keys(config, Arc::new(set), old, findings)?;
                Ok(Self { key_warnings, ..snapshot })
            }
            Err(problems) => {
                let mut all: Vec<_> =
                    problems.into_iter().map(|problem| of_file(problem, psk)).collect();
                // What else is wrong should not wait for the keys to be corrected.
                if let Err(more) = tls_end(config, psk, None, None, findings) {
                    all.extend(more);
                }
                Err(all)
            }
        }
    }

    /// The same service with its key files read again, file by file. What is wrong with a file, whose keys
    /// stay then, is added to `findings`. Identities in `hold` keep the key that they have.
    #[must_use]
    pub fn renew_keys(
        &self,
        config: &ServiceConfig,
        reader: &mut KeyFileReader,
        hold: &HashSet<Identity>,
        last: &[PathBuf],
        findings: &mut Vec<Diagnostic>,
    ) -> Self {
        let psk = &config.psk;
        let paths = key_paths(psk);
        let in_force = KeysInForce {
            sets: &[&*self.secrets],
            paths: &paths,
            held_identities: hold,
            emptied_on_purpose: last,
        };
        let problems = match renew(&paths, psk.rules, reader, Some(&in_force)) {
            Ok(RenewedKeys { set, problems }) => {
                let key_warnings = lasting_warnings(&problems, psk);
                findings.extend(problems.into_iter().map(|problem| of_file(problem, psk)));
                return Self { key_warnings, ..self.with_changed_keys(Arc::new(set)) };
            }
            Err(problems) => problems,
        };
        findings.extend(problems.into_iter().map(|problem| of_file(problem, psk)));
        self.clone()
    }

    fn with_changed_keys(&self, secrets: Arc<SecretSet>) -> Self {
        let mut snapshot = self.clone();
        if let TlsRole::Client { connector, identity, .. } = &mut snapshot.role {
            connector.forget_sessions_of_others(&secrets);
            if let Some(first) = secrets.first().filter(|_| self.presents_first) {
                *identity = first.clone();
            }
        }
        if let TlsRole::Server(acceptor) = &snapshot.role {
            acceptor.expire_sessions(&secrets, std::time::Instant::now());
            snapshot.competitors = snapshot.policies.count_owners(&secrets);
        }
        snapshot.secrets = secrets;
        snapshot
    }

    /// Follows key files to the names that they have from now on. Only before the keys are shared.
    pub fn rename_key_files(&mut self, rename: impl Fn(&Path) -> PathBuf) {
        if let Some(secrets) = Arc::get_mut(&mut self.secrets) {
            secrets.rename_files(rename);
        }
    }

    /// The same with keys that come from elsewhere.
    ///
    /// # Errors
    /// As for [`ServiceSnapshot::build`].
    pub fn with_secrets(
        config: &ServiceConfig,
        secrets: Arc<SecretSet>,
        findings: &mut Vec<Diagnostic>,
    ) -> Result<Self, Vec<Diagnostic>> {
        Self::with_keys(config, secrets, None, findings)
    }

    fn with_keys(
        config: &ServiceConfig,
        secrets: Arc<SecretSet>,
        previous: Option<&ServiceSnapshot>,
        findings: &mut Vec<Diagnostic>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let psk = &config.psk;
        let previous = previous.map(|old| &old.role);
        let role = tls_end(config, psk, Some(&secrets), previous, findings)?;
        let keepalive = config.sockets.keepalive.value;
        let (accepted, dialed) = match config.mode.value {
            Mode::Server => (keepalive, None),
            Mode::Client => (None, keepalive),
        };
        let role = role.ok_or_else(Vec::new)?;
        let dialer = |target| {
            Dialer::new(
                target,
                config.failover.value,
                config.local.as_ref().map(|local| local.value.clone()),
                config.timeouts.connect.value,
                dialed,
                config.sockets.upstream.clone(),
            )
            .from_peer(config.transparent.value.source())
        };
        let policies = Arc::new(AccessPolicies::new(config, dialer));
        findings.extend(policies.warnings(&secrets).into_iter().map(warning));
        let competitors = match config.mode.value {
            Mode::Server => policies.count_owners(&secrets),
            Mode::Client => 0,
        };
        Ok(Self {
            secrets,
            key_warnings: Vec::new(),
            backend_pause: config.limits.backend_pause.value,
            competitors,
            role,
            dialer: Arc::new(dialer(config.target.clone())),
            policies,
            timeouts: SessionTimeouts::new(&config.timeouts),
            rekey_after: config.tls.rekey_after.value,
            reset: config.reset.as_ref().map(|reset| reset.value),
            old_suites_line: match config.dialect {
                Dialect::Native => "ciphers = \"rfc4279\"",
                Dialect::Stunnel => "ciphers = PSK",
            },
            negotiation: config.negotiation.as_ref().map(|said| said.value.clone()),
            own_addresses: OwnAddressPolicy::of(&config.socks_allow_own),
            uses_original_destination: matches!(config.target, Target::Original),
            proxy_header: config.preface.as_ref().map(|preface| preface.value),
            sni_entry: match &config.source {
                ConnectionSource::ServerName { of, pattern } => {
                    Some((of.value.clone(), pattern.clone()))
                }
                _ => None,
            },
            keepalive: accepted,
            downstream: config.sockets.downstream.clone(),
            level: config.log_level.as_ref().map(|level| level.value),
            log_id: config.log_id.value,
            program: match &config.source {
                ConnectionSource::Program { program, retry } => {
                    Some((program.clone(), retry.value))
                }
                _ => None,
            },
            is_sticky: config.failover.value == Failover::RoundRobin
                && config.mode.value == Mode::Server
                && config.tls.resumes(),
            presents_first: psk.identity.is_none(),
            is_single_session: config
                .limits
                .max_sessions
                .as_ref()
                .is_some_and(|limit| limit.value == 1),
        })
    }

    /// What a handshake with a peer at that address has to know of this service, at whose door it is
    /// not.
    pub(super) fn sni_candidate(self: &Arc<Self>, ip: Option<IpAddr>) -> Option<SniCandidate> {
        self.sni_entry.as_ref()?;
        let TlsRole::Server(acceptor) = &self.role else {
            return None;
        };
        Some(SniCandidate { acceptor: acceptor.clone(), secrets: self.keys(ip) })
    }

    /// The keys that a peer at that address can use now.
    pub(super) fn keys(self: &Arc<Self>, ip: Option<IpAddr>) -> PeerKeys {
        if !self.policies.may_object {
            return PeerKeys::unrestricted(self.secrets.clone());
        }
        let (snapshot, now) = (self.clone(), ClockReading::read());
        PeerKeys::hiding(self.secrets.clone(), move |wire| {
            snapshot.policies.objection(wire, ip, now).is_some()
        })
    }

    /// The true cause, where an identity was only answered as an unknown one.
    pub(super) fn refine_cause(&self, cause: RefusalCause, ip: Option<IpAddr>) -> RefusalCause {
        let (RefusalCause::UnknownIdentity(name) | RefusalCause::StaleTicket(name)) = &cause else {
            return match cause {
                RefusalCause::NoCommonSuite { offered, theirs, ours, .. } => {
                    let cure = Some(self.old_suites_line);
                    RefusalCause::NoCommonSuite { offered, cure, theirs, ours }
                }
                other => other,
            };
        };
        let Some((_, claim)) = self.secrets.find(name) else { return cause };
        match self.policies.objection(claim.who(), ip, ClockReading::read()) {
            Some(objection) => objection(name.clone()),
            None => cause,
        }
    }

    /// Whether a session that was let in from that address by an earlier snapshot may go on.
    pub(super) fn admits(&self, grant: &Grant, ip: Option<IpAddr>) -> bool {
        self.secrets.grants(grant)
            && self.policies.objection(grant.who(), ip, ClockReading::read()).is_none()
    }

    /// To whom a name on the wire belongs.
    pub fn owner(&self, wire: &Identity) -> Identity {
        self.policies.who(wire)
    }

    /// When the key under a name stops to be taken, and whether that moment has come.
    pub fn expiry(&self, wire: &Identity) -> Option<(jiff::Timestamp, bool)> {
        self.policies.expiry(wire, ClockReading::read())
    }

    /// For how many identities it has slots; none at a client end, where nobody presents one.
    pub fn competitors(&self) -> usize {
        self.competitors
    }

    /// What is to be said of keys whose time is over or nearly so, and the like.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        self.policies.warnings(&self.secrets).into_iter().map(warning).collect()
    }

    /// Replaces ticket keys whose time is over, and drops sessions that nobody can resume any more.
    pub fn expire_sessions(&self, now: std::time::Instant) {
        if let TlsRole::Server(acceptor) = &self.role {
            acceptor.expire_sessions(&self.secrets, now);
        }
    }

    /// Which side wears TLS.
    pub fn mode(&self) -> Mode {
        match self.role {
            TlsRole::Server(_) => Mode::Server,
            TlsRole::Client { .. } => Mode::Client,
        }
    }

    /// Where its connections go, as the configuration names it.
    pub fn targets(&self) -> Vec<String> {
        self.dialer.targets()
    }

    /// The keys.
    pub fn secrets(&self) -> &Arc<SecretSet> {
        &self.secrets
    }

    /// What is tolerated in its key files or missing of them, a line each.
    pub fn key_warnings(&self) -> impl Iterator<Item = &str> {
        self.key_warnings.iter().map(|warning| warning.words.as_str())
    }

    /// What of these are key files that have yet to come.
    pub fn awaited_keys(&self) -> impl Iterator<Item = &str> {
        let awaited = self.key_warnings.iter().filter(|warning| warning.is_awaited);
        awaited.map(|warning| warning.words.as_str())
    }

    /// The service through which this one is reached, by clients that send such a name.
    pub fn sni_entry(&self) -> Option<(&str, &NamePattern)> {
        self.sni_entry.as_ref().map(|(service, pattern)| (service.as_str(), pattern))
    }

    /// The identity that a client end presents.
    pub fn identity(&self) -> Option<&Identity> {
        match &self.role {
            TlsRole::Server(_) => None,
            TlsRole::Client { identity, .. } => Some(identity),
        }
    }
}

/// The TLS half; without secrets it is only tried, for its errors.
fn tls_end(
    config: &ServiceConfig,
    psk: &PskConfig,
    secrets: Option<&SecretSet>,
    previous: Option<&TlsRole>,
    findings: &mut Vec<Diagnostic>,
) -> Result<Option<TlsRole>, Vec<Diagnostic>> {
    match config.mode.value {
        Mode::Server => {
            let previous = match previous {
                Some(TlsRole::Server(acceptor)) => Some(acceptor),
                _ => None,
            };
            let acceptor = Acceptor::new(&config.tls, psk.hash.value, findings)?
                .resuming(&config.tls, &config.name.value, previous)
                .map_err(|error| vec![no_ticket_keys(&error)])?;
            Ok(secrets.map(|secrets| {
                acceptor.expire_sessions(secrets, std::time::Instant::now());
                TlsRole::Server(acceptor)
            }))
        }
        Mode::Client => {
            let connector = Connector::new(&config.tls, psk.hash.value, findings)?;
            let Some(secrets) = secrets else {
                return Ok(None);
            };
            let previous = match previous {
                Some(TlsRole::Client { connector, .. }) => Some(connector),
                _ => None,
            };
            let connector = connector.resuming(&config.tls, secrets, previous);
            let behind = match config.negotiation.as_ref().map(|said| &said.value) {
                Some(Negotiation::Connect(connect)) => Some(connect.name()),
                _ => None,
            };
            let name = match config.tls.server_name.as_ref().map(|name| name.value.as_str()) {
                // The proxy is not whom TLS is spoken with.
                None => match behind {
                    Some(Some(name)) => ServerName::Fixed(name.to_owned()),
                    Some(None) => ServerName::None,
                    None => ServerName::OfTarget,
                },
                Some("") => ServerName::None,
                Some(name) => ServerName::Fixed(name.to_owned()),
            };
            let identity = match &psk.identity {
                None => match secrets.first() {
                    Some(first) => first.clone(),
                    None => return Err(vec![no_key_to_present(config)]),
                },
                Some(wanted) => match secrets.find(&wanted.value) {
                    Some((_, claim)) => claim.who().clone(),
                    None => return Err(vec![no_such_identity(wanted)]),
                },
            };
            Ok(Some(TlsRole::Client { connector, identity, name }))
        }
    }
}

fn warning(warning: PolicyWarning) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code: warning.code,
        place: match warning.said {
            Origin::Said(place) => Some(place),
            Origin::Default(_) => None,
        },
        message: warning.message,
        label: None,
        help: Some(warning.help),
    }
}

fn no_ticket_keys(error: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::error("ticket-keys", format!("cannot make keys for session tickets: {error}"))
        .help("turn resumption off, or find out why the system has no random numbers")
}

fn no_key_to_present(config: &ServiceConfig) -> Diagnostic {
    let message = format!("[{}] has no key to present", config.name.value);
    Diagnostic::error("no-keys", message)
        .help("write the identity and key of this connection into its key file")
}

fn no_such_identity(wanted: &Resolved<Vec<u8>>) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: "no-such-identity",
        place: wanted.place().cloned(),
        message: format!("no key file of this service has the identity {}", escape(&wanted.value)),
        label: None,
        help: Some("write the identity as it stands before the colon of its line".into()),
    }
}

fn key_paths(psk: &PskConfig) -> Vec<PathBuf> {
    psk.secrets.iter().map(|path| path.value.clone()).collect()
}

/// What holds as long as the service runs so, and is shown wherever its state is.
fn lasting_warnings(problems: &[KeyFileProblem], psk: &PskConfig) -> Vec<KeyWarning> {
    let is_tolerated = psk.rules.writer != KeyFileWriter::Operator;
    let is_lasting = |problem: &&KeyFileProblem| match problem.code {
        "waiting-for-keys" => true,
        "loose-permissions" => is_tolerated && problem.severity == ProblemSeverity::Warning,
        _ => false,
    };
    let warning = |problem: &KeyFileProblem| KeyWarning {
        words: problem.message.clone(),
        is_awaited: problem.code == "waiting-for-keys",
    };
    problems.iter().filter(is_lasting).map(warning).collect()
}

/// A problem of a key file, at its line; or, where it has none, where the file was named.
fn of_file(problem: KeyFileProblem, psk: &PskConfig) -> Diagnostic {
    let severity = match problem.severity {
        ProblemSeverity::Error | ProblemSeverity::KeepsOldKeys => Severity::Error,
        ProblemSeverity::Warning => Severity::Warning,
        ProblemSeverity::Note => Severity::Notice,
    };
    let named = || {
        let path = problem.file.as_deref();
        psk.secrets
            .iter()
            .find(|written| path.is_none_or(|path| path.starts_with(&written.value)))
            .and_then(|written| written.place().cloned())
    };
    let place = match (&problem.file, problem.line) {
        (Some(file), Some(line)) => {
            Some(SourceLocation { file: file.as_path().into(), line, column: 1, span: 0..0 })
        }
        _ => named(),
    };
    Diagnostic {
        severity,
        code: problem.code,
        place,
        message: problem.message,
        label: None,
        help: problem.help,
    }
}
