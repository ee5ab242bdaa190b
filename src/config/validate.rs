//! From what was said to what holds: an option's own value, else the file's for all, else the
//! dialect's default, and then whether all of it makes sense together.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ciphers::expand_named_sets;
use super::diagnostic::{Diagnostic, Diagnostics, SourceLocation};
use super::draft::{ParsedFile, ParsedSection, Side, Spanned, Value, Values};
use super::endpoint::is_host_name;
use super::model::{
    Account, CipherOrder, Config, ConnectionSource, ControlConfig, Dialect, Endpoint, Foreground,
    Host, HttpConfig, HttpConnect, IdentityConfig, IpRange, Keepalive, Level, Limits, Listen,
    LogConfig, LogId, Mode, NamePattern, Negotiation, NegotiationKind, ProcessConfig, Program,
    ProxyHeader, PskConfig, Resolved, Resumption, ServiceConfig, SocketOption, Sockets, Target,
    TicketSecret, Timeouts, TlsConfig, TlsSwitch, TlsVersion, Transparent,
};
use super::options::{OptionId, Treatment};
use super::value;
use crate::secrets::escape;

/// Why what is said of a proxy has no effect.
const UNASKED: &str = "no proxy is configured";

mod addresses;
mod certificates;
mod identities;
mod keys;
mod negotiation;
mod program;
mod scope;
mod tls;
mod versions;

pub(super) use scope::replaces_inherited;
pub(super) use tls::switch;

use scope::{ValueLookup, account, boolean, count, duration, level, owner, ranges, text, version};

/// Decides everything that can be. With an error in the report, what comes of it must not run: it
/// lacks what was wrong.
pub(super) fn validate(draft: &ParsedFile, report: &mut Diagnostics) -> Option<Config> {
    let mut check = Checker { draft, dialect: draft.dialect, report };
    check.treat(&draft.global, false);
    // What holds for all is judged once, and not again in each service. A section without keys is judged
    // for itself.
    let has_psk = check.has_psk_somewhere();
    check.treat(&draft.defaults, has_psk);
    let process = check.process();
    let log = check.log();
    let control = check.control();
    let http = check.http();
    let global = ValueLookup { own: &draft.global, defaults: None, dialect: draft.dialect };
    let drain_timeout = global.decide(OptionId::DrainTimeout, duration);
    let watch_configuration = global.decide(OptionId::WatchConfiguration, boolean);
    let mut services = Vec::new();
    if draft.services.is_empty() {
        services.push(check.inetd()?);
    }
    for service in &draft.services {
        services.extend(check.service(service));
    }
    check.server_names(&services);
    check.between(&mut services);
    // A native file lies in its base already.
    let file = match (draft.dialect, draft.file.file_name()) {
        (Dialect::Native, Some(name)) => draft.base.join(name),
        _ => draft.base.join(&draft.file),
    };
    Some(Config {
        dialect: draft.dialect,
        file,
        base: draft.base.clone(),
        log: log?,
        process: process?,
        control: control?,
        http: http?,
        drain_timeout: drain_timeout?,
        watch_configuration: watch_configuration?,
        in_comments: draft.in_comments,
        services,
        shared: draft.defaults.iter().map(|(_, said)| said.place.clone()).collect(),
    })
}

struct Checker<'a> {
    draft: &'a ParsedFile,
    dialect: Dialect,
    report: &'a mut Diagnostics,
}

impl Checker<'_> {
    fn native(&self) -> bool {
        self.dialect == Dialect::Native
    }

    /// Judges everything that does not work here by its row's treatment.
    fn treat(&mut self, values: &Values, has_psk: bool) {
        for (opt, said) in values.iter() {
            let row = opt.row();
            let name = row.name(self.dialect);
            let text = match &said.value {
                Value::Text(text) => text.as_str(),
                _ => "",
            };
            let asks_for_nothing =
                |fine: &[&str]| fine.iter().any(|value| value.eq_ignore_ascii_case(text));
            let accepted = |why: &str| {
                Diagnostic::notice("without-effect", format!("`{name}` has no effect: {why}"))
            };
            let found = match row.treatment {
                Treatment::Works => continue,
                Treatment::Harmless(_) if too_small_a_stack(opt, &said.value) => {
                    Diagnostic::warning("small-stack", "Illegal thread stack size for stunnel 5.76 and later")
                        .help("remove the line: there is no thread for each connection here")
                }
                Treatment::Harmless(why) => accepted(why),
                Treatment::NeedsCertificates(fine)
                | Treatment::Later(fine)
                | Treatment::Never(fine, _)
                    if asks_for_nothing(fine) =>
                {
                    accepted("this is the default anyway")
                }
                Treatment::OwnCertificate | Treatment::AboutCertificates if !has_psk => continue,
                Treatment::AboutCertificates if certificates::asks_for_nothing(&said.value) => {
                    accepted("this is the default anyway")
                }
                Treatment::AboutCertificates => accepted(certificates::KEY_IS_DEMANDED),
                Treatment::OwnCertificate => accepted("with pre-shared keys no certificate is shown"),
                // Seen in stunnel 5.68: a client that proves a key and has no certificate is redirected.
                Treatment::NeedsCertificates(_) if opt == OptionId::Redirect && has_psk => {
                    Diagnostic::error(
                        "needs-certificates",
                        "`redirect` sends every client without a certificate elsewhere, one with the right key too",
                    )
                    .help("remove it to have clients with a key reach `connect`")
                }
                Treatment::NeedsCertificates(_) => Diagnostic::error(
                    "needs-certificates",
                    format!("`{name}` is about certificates, and only pre-shared keys are supported"),
                )
                .help("remove it if the pre-shared key is all the proof you need; it is refused because to ignore it could weaken your protection"),
                // xapi and others look for these words.
                Treatment::Later(_) if opt == OptionId::Fips => {
                    Diagnostic::error("no-fips", "FIPS support is not available")
                        .help("remove it, or write fips = no")
                }
                Treatment::Later(_) => Diagnostic::error(
                    "not-supported-yet",
                    format!("`{name}` is not supported yet"),
                )
                .help("remove it if you can do without it; it is refused because to ignore it would change what your configuration means"),
                Treatment::Never(_, why) => {
                    Diagnostic::error("never-supported", format!("`{name}` is not supported: {why}"))
                        .help("remove it")
                }
            };
            self.report.push(found.at(said.place.clone()));
        }
    }

    fn anchor(&self, path: &Path) -> PathBuf {
        self.draft.base.join(path)
    }

    fn path(&self, scope: &ValueLookup<'_>, opt: OptionId) -> Option<Resolved<PathBuf>> {
        scope.said(opt, |value| match value {
            Value::Path(path) => Some(self.anchor(path)),
            _ => None,
        })
    }

    /// A stunnel.conf without a section is one service, whose one connection is there already.
    fn inetd(&mut self) -> Option<ServiceConfig> {
        let draft = self.draft;
        let found = match (self.dialect, draft.defaults.is_empty()) {
            (Dialect::Native, _) if draft.incomplete => return None,
            (Dialect::Native, _) => Diagnostic::error("no-service", "there is no service")
                .help("add [services.NAME] with mode, accept, connect and psk-secrets"),
            (Dialect::Stunnel, true) => Diagnostic::error(
                "no-service",
                "Inetd mode: the file has no [section] and no service in it",
            )
            .help("add a [section] with accept, connect and PSKsecrets"),
            (Dialect::Stunnel, false) => {
                // Its end is where stunnel finds that something is missing.
                let text = self.report.sources.get(&draft.file);
                let lines = text.map_or(1, |text| text.lines().count().max(1));
                let line = u32::try_from(lines).unwrap_or(u32::MAX);
                let place =
                    SourceLocation { file: draft.file.clone(), line, column: 1, span: 0..0 };
                let name = Spanned { value: INETD.to_owned(), place };
                let (remarks, values) = (Vec::new(), Values::default());
                return self.service(&ParsedSection { name, remarks, values });
            }
        };
        self.report.push(found);
        None
    }

    /// Where a value of a section is looked for.
    fn section_scope<'s>(&'s self, section: &'s ParsedSection) -> ValueLookup<'s> {
        ValueLookup {
            own: &section.values,
            defaults: Some(&self.draft.defaults),
            dialect: self.dialect,
        }
    }

    fn is_inetd(&self) -> bool {
        self.draft.services.is_empty()
    }

    fn service(&mut self, service: &ParsedSection) -> Option<ServiceConfig> {
        let draft = self.draft;
        let dialect = self.dialect;
        let scope = ValueLookup { own: &service.values, defaults: Some(&draft.defaults), dialect };
        let head = &service.name.place;
        if self.needs_certificates(service) {
            return None;
        }
        let has_keys =
            scope.mentions(OptionId::PskSecrets) || scope.mentions(OptionId::BeremizProject);
        self.treat(&service.values, has_keys);

        let mode = scope.decide(OptionId::Mode, |value| match value {
            Value::Mode(mode) => Some(*mode),
            _ => None,
        });
        let role = mode.as_ref().map(|mode| mode.value);
        let keys = self.key_sources(&scope, role);
        let name = Resolved::said(service.name.value.clone(), head.clone());
        self.key_or_certificate(service, role);
        self.replaced_lists(service);
        self.missing(service, &scope, role);
        let source = self.source(&scope, role);
        let transparent = self.transparent(&scope);
        let negotiation = self.negotiation(&scope, role);
        let target = self.target(&scope, negotiation.as_ref(), transparent.value, role);
        self.idle(&scope, source.as_ref(), target.as_ref(), negotiation.as_ref());
        if let (Some(ConnectionSource::Listeners(accept)), Some(Target::Connect(connect))) =
            (&source, &target)
        {
            self.loops(accept, connect);
        }
        let accept = match &source {
            Some(ConnectionSource::Listeners(accept)) => accept.clone(),
            _ => Vec::new(),
        };
        let identities = self.identities(&service.values, role, &accept);
        self.led_elsewhere(&scope, role, &identities);
        let preface = self.preface(&scope, role);
        let tls = self.tls(&scope, role);
        let identity = self.identity(&scope, role);
        let hash = scope
            .decide(OptionId::PskHash, |value| match value {
                Value::Hash(hash) => Some(*hash),
                _ => None,
            })
            .unwrap_or(Resolved::default(super::model::PskHash::Sha256, dialect));
        let allow_shared_keys = scope
            .decide(OptionId::AllowSharedKeys, boolean)
            .unwrap_or(Resolved::default(false, dialect));
        Some(ServiceConfig {
            name,
            dialect,
            mode: mode?,
            // Where these are missing that is an error by now, and the others should be told too.
            source: source.unwrap_or(ConnectionSource::Listeners(Vec::new())),
            owner: owner(&scope),
            target: target.unwrap_or(Target::Connect(Vec::new())),
            local: scope.said(OptionId::Local, |value| match value {
                Value::Host(host) => Some(host.clone()),
                _ => None,
            }),
            transparent,
            negotiation,
            socks_allow_own: scope
                .said(OptionId::SocksAllowOwn, boolean)
                // stunnel connects there.
                .unwrap_or(Resolved::default(!self.native(), dialect)),
            preface,
            // What a stunnel.conf says before its sections is said of the process.
            log_level: match dialect {
                Dialect::Native => scope.said(OptionId::ServiceLogLevel, level),
                Dialect::Stunnel => scope.said(OptionId::LogLevel, level),
            },
            log_id: scope
                .decide(OptionId::LogId, |value| match value {
                    Value::LogId(id) => Some(*id),
                    _ => None,
                })
                .unwrap_or(Resolved::default(LogId::Sequential, dialect)),
            failover: scope.decide(OptionId::Failover, |value| match value {
                Value::Failover(failover) => Some(*failover),
                _ => None,
            })?,
            psk: PskConfig {
                secrets: keys.secrets,
                runtime_file: keys.runtime_file,
                wait_for_keys: keys.wait_for_keys,
                identity,
                rules: keys.rules,
                hash,
                allow_shared_keys,
            },
            tls: tls?,
            timeouts: Timeouts {
                handshake: scope.decide(OptionId::HandshakeTimeout, duration)?,
                connect: scope.decide(OptionId::ConnectTimeout, duration)?,
                idle: scope.decide(OptionId::IdleTimeout, duration)?,
                close: scope.decide(OptionId::CloseTimeout, duration)?,
                lifetime: scope.said(OptionId::SessionLifetime, duration),
            },
            limits: Limits {
                max_sessions: scope.said(OptionId::MaxSessions, count),
                per_source: scope.said(OptionId::MaxPerSource, count),
                per_identity: scope.said(OptionId::MaxPerIdentity, count),
                when_full: scope.decide(OptionId::WhenFull, |value| match value {
                    Value::WhenFull(when) => Some(*when),
                    _ => None,
                })?,
                // The eRPC runtime loses a connection that follows another at once.
                backend_pause: scope
                    .said(OptionId::BackendPause, duration)
                    .unwrap_or(Resolved::default(Duration::from_millis(50), dialect)),
                max_handshakes: scope.said(OptionId::MaxHandshakes, count),
            },
            allow_from: ranges(&scope, OptionId::AllowFrom),
            proxies: self.proxies(&scope),
            on_revocation: scope.decide(OptionId::OnRevocation, |value| match value {
                Value::OnRevocation(what) => Some(*what),
                _ => None,
            })?,
            identities,
            sockets: self.sockets(&scope, role)?,
            reset: scope.said(OptionId::Reset, boolean),
        })
    }

    fn source(&mut self, scope: &ValueLookup<'_>, mode: Option<Mode>) -> Option<ConnectionSource> {
        if self.is_inetd() {
            return Some(ConnectionSource::Stdio);
        }
        if self.is_programs(scope, mode) {
            let program = self.program(scope)?;
            let retry = scope
                .decide(OptionId::Retry, |value| match value {
                    Value::Retry(pause) => Some(*pause),
                    _ => None,
                })
                .unwrap_or(Resolved::default(None, self.dialect));
            return Some(ConnectionSource::Program { program, retry });
        }
        let listens = self.accept(scope, mode);
        if !listens.is_empty() {
            return Some(ConnectionSource::Listeners(listens));
        }
        let said = scope.said(OptionId::ServerName, text).filter(|_| mode == Some(Mode::Server))?;
        let Some((of, pattern)) = said.value.split_once(':') else {
            let found = Diagnostic::error("server-name", "Invalid SNI parameter format")
                .help("write SERVICE:PATTERN, such as plc:*.example");
            self.report.push(found.at(said.place().cloned()));
            return None;
        };
        let of = Resolved { value: of.to_owned(), origin: said.origin.clone() };
        Some(ConnectionSource::ServerName { of, pattern: NamePattern::new(pattern) })
    }

    /// Whether a service gets its connection from a program, and from nobody else.
    fn is_programs(&self, scope: &ValueLookup<'_>, mode: Option<Mode>) -> bool {
        // Of a native server's, what holds for all would make a forgotten `accept` another meaning.
        let said = |opt| match (self.dialect, mode) {
            (Dialect::Native, Some(Mode::Server) | None) => scope.own.mentions(opt),
            _ => scope.mentions(opt),
        };
        let by_name = scope.mentions(OptionId::ServerName) && mode != Some(Mode::Client);
        let elsewhere = self.is_inetd() || scope.mentions(OptionId::Accept) || by_name;
        !elsewhere && said(OptionId::Exec) && said(OptionId::Connect)
    }

    /// What is said of a program or a proxy, where there is none, asks for nothing.
    fn idle(
        &mut self,
        scope: &ValueLookup<'_>,
        source: Option<&ConnectionSource>,
        target: Option<&Target>,
        negotiation: Option<&Resolved<Negotiation>>,
    ) {
        let connects = matches!(source, Some(ConnectionSource::Program { .. }));
        let program = connects || matches!(target, Some(Target::Exec(_)));
        let told = target.is_none_or(|target| matches!(target, Target::Asked));
        // What went wrong about a proxy has been told.
        let proxy = scope.mentions(OptionId::Negotiation)
            && !matches!(negotiation, Some(Resolved { value: Negotiation::Socks, .. }));
        let asks =
            |said: &Spanned<Value>| !matches!(said.value, Value::Retry(None) | Value::Bool(false));
        for (opt, of_use, why) in [
            (OptionId::Retry, connects, "only a program in place of accept is started again"),
            (OptionId::Pty, program, "a terminal is for a program that exec starts"),
            (OptionId::ProtocolHost, proxy, UNASKED),
            (OptionId::ProtocolUsername, proxy, UNASKED),
            (OptionId::ProtocolPassword, proxy, UNASKED),
            (OptionId::ProtocolHeader, proxy, UNASKED),
            (OptionId::SocksAllowOwn, told, "only a peer of a socks server says where to connect"),
        ] {
            let Some(said) = scope.own.last(opt).filter(|said| !of_use && asks(said)) else {
                continue;
            };
            let message = format!("`{}` has no effect: {why}", opt.name(self.dialect));
            self.report.push(Diagnostic::notice("without-effect", message).at(said.place.clone()));
        }
    }

    /// `None` if nothing was said that could be read; `missing` has told.
    fn target(
        &mut self,
        scope: &ValueLookup<'_>,
        negotiation: Option<&Resolved<Negotiation>>,
        transparent: Transparent,
        mode: Option<Mode>,
    ) -> Option<Target> {
        if mode != Some(Mode::Client)
            && matches!(negotiation.map(|said| &said.value), Some(Negotiation::Socks))
        {
            return Some(Target::Asked);
        }
        if transparent.destination() {
            return Some(Target::Original);
        }
        let connect = self.connect(scope);
        // What a native service says itself takes the place of what holds for all.
        let own = scope.own;
        let inherited =
            self.native() && own.mentions(OptionId::Exec) && !own.mentions(OptionId::Connect);
        if !connect.is_empty() && !inherited {
            return Some(Target::Connect(connect));
        }
        self.program(scope).map(Target::Exec)
    }

    fn program(&self, scope: &ValueLookup<'_>) -> Option<Program> {
        let path = self.path(scope, OptionId::Exec)?;
        let said = match self.dialect {
            Dialect::Native => scope.all(OptionId::ExecArgs),
            Dialect::Stunnel => scope.last(OptionId::ExecArgs).into_iter().collect(),
        };
        let mut arguments: Vec<String> = said
            .into_iter()
            .filter_map(|said| match &said.value {
                Value::Arguments(words) => Some(words.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        if arguments.is_empty() {
            arguments.push(path.value.to_string_lossy().into_owned());
        }
        let global = ValueLookup { own: &self.draft.global, defaults: None, dialect: self.dialect };
        let to_stderr =
            |value: &Value| matches!(value, Value::Foreground(Foreground::Yes)).then_some(());
        let errors_to_peer =
            !self.native() && global.said(OptionId::Foreground, to_stderr).is_none();
        let pty =
            scope.decide(OptionId::Pty, boolean).unwrap_or(Resolved::default(false, self.dialect));
        let environment =
            global.all(OptionId::SetEnv).into_iter().filter_map(|said| match &said.value {
                Value::Variable(variable) => Some(variable.clone()),
                _ => None,
            });
        let environment = environment.collect();
        Some(Program { path, arguments, errors_to_peer, pty, environment })
    }

    fn preface(
        &mut self,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
    ) -> Option<Resolved<ProxyHeader>> {
        let said = scope.said(OptionId::Protocol, |value| match value {
            Value::Preface(header) => Some(*header),
            _ => None,
        })?;
        if !self.native()
            && scope.latest(OptionId::Protocol, OptionId::Negotiation) != Some(OptionId::Protocol)
        {
            return None;
        }
        if mode != Some(Mode::Client) {
            return Some(said);
        }
        // Among the native defaults it is meant for the servers of the file.
        if !self.native() || scope.own.last(OptionId::Protocol).is_some() {
            let message = if self.native() {
                "a client has no backend to tell where a connection came from"
            } else {
                "The 'proxy' protocol is not supported in the client mode"
            };
            let found = Diagnostic::error("proxy-header-on-client", message)
                .help("remove it here, and set it at the server end");
            self.report.push(found.at(said.place().cloned()));
        }
        None
    }

    /// What a service cannot do without.
    fn missing(&mut self, service: &ParsedSection, scope: &ValueLookup<'_>, mode: Option<Mode>) {
        if self.draft.incomplete {
            // A line that could not be read may have been the one; the next run will tell.
            return;
        }
        let head = &service.name.place;
        let shown = &service.name.value;
        let said = |opt| scope.mentions(opt);
        let by_name = said(OptionId::ServerName) && mode != Some(Mode::Client);
        if self.native() {
            let own = scope.own;
            let programs = self.is_programs(scope, mode);
            let told = self.is_told(scope, mode);
            if let Some((opt, said)) = told
                && let Some(other) =
                    [OptionId::Connect, OptionId::Exec].into_iter().find(|o| own.mentions(*o))
            {
                let (one, other) = (opt.name(self.dialect), other.name(self.dialect));
                let message = format!("service `{shown}` has both `{one}` and `{other}`");
                let found = Diagnostic::error("two-of-a-kind", message)
                    .help("remove one of them: both say where connections go");
                self.report.push(found.at(said.place.clone()));
            }
            for (one, other) in
                [(OptionId::Connect, OptionId::Exec), (OptionId::Accept, OptionId::ServerName)]
            {
                if own.mentions(one)
                    && !(programs && one == OptionId::Connect)
                    && let Some(said) = own.last(other)
                    && (other == OptionId::Exec || mode == Some(Mode::Server))
                {
                    let (one, other) = (one.name(self.dialect), other.name(self.dialect));
                    let message = format!("service `{shown}` has both `{one}` and `{other}`");
                    let found = Diagnostic::error("two-of-a-kind", message)
                        .help("remove one of them: each says what this end does");
                    self.report.push(found.at(said.place.clone()));
                }
            }
            for opt in [OptionId::Mode, OptionId::Accept, OptionId::Connect, OptionId::PskSecrets] {
                if said(opt)
                    || (opt == OptionId::Accept && (by_name || programs))
                    || (opt == OptionId::PskSecrets && said(OptionId::BeremizProject))
                    || (opt == OptionId::Connect && (said(OptionId::Exec) || told.is_some()))
                {
                    continue;
                }
                let name = opt.name(self.dialect);
                let help = match name {
                    "mode" => {
                        "add mode = \"client\" (accepts plain, connects TLS) or mode = \"server\" (accepts TLS, connects plain)"
                    }
                    "accept" => "add accept, such as accept = \"127.0.0.1:3002\"",
                    "connect" => "add connect, such as connect = \"plc.example:3001\"",
                    _ => "add psk-secrets = \"FILE\", a file of identity:key lines",
                };
                self.report.push(
                    Diagnostic::error(
                        "missing-option",
                        format!("service `{shown}` has no `{name}`"),
                    )
                    .at(head.clone())
                    .help(help),
                );
            }
            return;
        }
        let sources = [said(OptionId::Accept), by_name].into_iter().filter(|one| *one).count();
        let told = usize::from(self.is_told(scope, mode).is_some());
        let targets =
            told + [OptionId::Connect, OptionId::Exec].into_iter().filter(|o| said(*o)).count();
        if self.is_inetd() {
            let found = if let Some(said) = scope.last(OptionId::Accept) {
                Diagnostic::error(
                    "accept-without-section",
                    "Inetd mode: 'accept' option is only allowed in a [section]",
                )
                .at(said.place.clone())
                .help("put a [section] line with a name before accept and connect")
            } else {
                Diagnostic::error(
                    "missing-option",
                    "Inetd mode: Inetd mode must define one endpoint",
                )
                .help("write either connect = HOST:PORT or exec = PROGRAM")
            };
            if said(OptionId::Accept) || targets != 1 {
                self.report.push(found);
            }
        } else if !matches!((sources, targets, told), (1, 1, _) | (0, 2, 0)) {
            self.report.push(
                Diagnostic::error("missing-option", "Each service must define two endpoints")
                    .at(head.clone())
                    .help(match (sources, targets) {
                        (0, _) => "add accept = PORT",
                        (_, 0) => "add connect = HOST:PORT",
                        _ if told > 0 => {
                            "leave out connect and exec: protocol or transparent says where connections go"
                        }
                        (_, 2) => "write either connect or exec",
                        _ => "write either accept or sni: a section with sni gets its \
                              connections from another section",
                    }),
            );
        }
        if !scope.mentions(OptionId::PskSecrets) {
            self.report.push(
                Diagnostic::error("missing-option", "the service has no PSKsecrets")
                    .at(head.clone())
                    .help("add PSKsecrets = FILE, a file of identity:key lines; certificates are not supported"),
            );
        }
    }

    fn identity(
        &mut self,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
    ) -> Option<Resolved<Vec<u8>>> {
        let identity = scope.said(OptionId::PskIdentity, |value| match value {
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        })?;
        if mode != Some(Mode::Server) {
            return Some(identity);
        }
        // Among the defaults it is meant for the clients of the file.
        if self.native() && scope.own.last(OptionId::PskIdentity).is_some() {
            self.report.push(
                Diagnostic::error("identity-on-server", "a server end presents no identity")
                    .at(identity.place().cloned())
                    .help("remove psk-identity, or write mode = \"client\" if this end connects to the tunnel's server: a server takes all identities from its psk-secrets"),
            );
        } else if !self.native() {
            self.report.push(
                Diagnostic::notice(
                    "identity-on-server",
                    "PSK identity is ignored in the server mode",
                )
                .at(identity.place().cloned()),
            );
        }
        None
    }

    /// Who is believed about addresses is believed about all of them.
    fn proxies(&mut self, scope: &ValueLookup<'_>) -> Vec<Resolved<IpRange>> {
        let proxies = ranges(scope, OptionId::ProxyProtocolFrom);
        for proxy in proxies.iter().filter(|proxy| proxy.value.is_all()) {
            self.report.push(
                Diagnostic::warning(
                    "trusts-everybody",
                    "any client can then claim to come from any address",
                )
                .at(proxy.place().cloned())
                .help("list the addresses of your proxies only"),
            );
        }
        proxies
    }

    fn sockets(&mut self, scope: &ValueLookup<'_>, mode: Option<Mode>) -> Option<Sockets> {
        let mut lists: [Vec<Resolved<SocketOption>>; 3] = Default::default();
        for said in scope.all(OptionId::Socket) {
            let Value::Socket(side, option) = &said.value else {
                continue;
            };
            let list = match side {
                Side::Accept => &mut lists[0],
                Side::Downstream => &mut lists[1],
                Side::Upstream => &mut lists[2],
            };
            // The last word about an option counts, in the place of the first.
            let decided = Resolved::said(option.clone(), said.place.clone());
            match list.iter_mut().find(|d| discriminant(&d.value) == discriminant(option)) {
                Some(earlier) => *earlier = decided,
                None => list.push(decided),
            }
        }
        let mut keepalive = scope.decide(OptionId::Keepalive, keepalive)?;
        let [accept, downstream, upstream] = lists;
        let tls_side = match mode {
            Some(Mode::Client) => &upstream,
            _ => &downstream,
        };
        if !self.native()
            && let Some(said) = tls_side.iter().find(|d| speaks_of_keepalive(&d.value))
        {
            keepalive = Resolved { value: None, origin: said.origin.clone() };
        }
        Some(Sockets { keepalive, accept, downstream, upstream })
    }
}

/// What stunnel 5.82 does not start with. Here there is no such stack.
fn too_small_a_stack(opt: OptionId, value: &Value) -> bool {
    /// PTHREAD_STACK_MIN of Linux, in bytes.
    const LEAST_STACK: u32 = 16_384;
    opt == OptionId::Stack && matches!(value, Value::Count(bytes) if *bytes < LEAST_STACK)
}

/// What inetd's one service is called in logs, as in stunnel's.
const INETD: &str = "stunnel";

fn keepalive(value: &Value) -> Option<Option<Keepalive>> {
    match value {
        Value::Keepalive(keepalive) => Some(*keepalive),
        _ => None,
    }
}

pub(super) fn speaks_of_keepalive(option: &SocketOption) -> bool {
    matches!(
        option,
        SocketOption::KeepAlive(_)
            | SocketOption::KeepAliveCount(_)
            | SocketOption::KeepAliveIdle(_)
            | SocketOption::KeepAliveInterval(_)
    )
}

#[cfg(test)]
mod tests;
