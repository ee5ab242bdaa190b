//! From what was said to what holds: an option's own value, else the file's for all, else the
//! dialect's default, and then whether all of it makes sense together.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Place, Report};
use super::draft::{Draft, DraftService, Side, Spanned, Value, Values};
use super::endpoint::is_host_name;
use super::model::{
    Account, Authentication, Config, Decided, Dialect, Endpoint, Foreground, Host, Keepalive,
    Level, Limits, Listen, LogConfig, Mode, NamePattern, ProcessConfig, Program, ProxyHeader,
    PskConfig, ServiceConfig, SocketOption, Sockets, Source, Target, Timeouts, TlsConfig,
    TlsSwitch, TlsVersion,
};
use super::options::{Opt, Treatment};
use super::value;
use crate::secrets::{IdentityRule, OnDuplicate, OnLoosePermissions, Rules};

/// Decides everything that can be. With an error in the report, what comes of it must not run: it
/// lacks what was wrong.
pub(super) fn validate(draft: &Draft, report: &mut Report) -> Option<Config> {
    let mut check = Checker { draft, dialect: draft.dialect, report };
    check.treat(&draft.global, false);
    // What holds for all is judged once, and not again in each service.
    let psk_everywhere = !draft.defaults.all(Opt::PskSecrets).is_empty()
        || draft.services.iter().all(|s| !s.values.all(Opt::PskSecrets).is_empty());
    check.treat(&draft.defaults, psk_everywhere);
    let process = check.process();
    let log = check.log();
    let global = Scope { own: &draft.global, defaults: None, dialect: draft.dialect };
    let drain_timeout = global.decide(Opt::DrainTimeout, duration);
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
        drain_timeout: drain_timeout?,
        services,
        shared: draft.defaults.iter().map(|(_, said)| said.place.clone()).collect(),
    })
}

fn duration(value: &Value) -> Option<std::time::Duration> {
    match value {
        Value::Duration(d) => Some(*d),
        _ => None,
    }
}

fn count(value: &Value) -> Option<u32> {
    match value {
        Value::Count(n) => Some(*n),
        _ => None,
    }
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        _ => None,
    }
}

fn level(value: &Value) -> Option<Level> {
    match value {
        Value::Level(level) => Some(*level),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(t) => Some(t.clone()),
        _ => None,
    }
}

fn version(value: &Value) -> Option<Option<TlsVersion>> {
    match value {
        Value::Version(v) => Some(*v),
        _ => None,
    }
}

fn account(scope: &Scope<'_>) -> Account {
    Account { user: scope.said(Opt::Setuid, text), group: scope.said(Opt::Setgid, text) }
}

/// Where a value is looked for.
#[derive(Clone, Copy)]
struct Scope<'a> {
    own: &'a Values,
    defaults: Option<&'a Values>,
    dialect: Dialect,
}

impl<'a> Scope<'a> {
    /// A single value that somebody wrote.
    fn last(&self, opt: Opt) -> Option<&'a Spanned<Value>> {
        self.own.last(opt).or_else(|| self.defaults.and_then(|d| d.last(opt)))
    }

    /// A list. In a stunnel.conf the lines of a section come after the global ones; in a native file
    /// they replace them.
    fn all(&self, opt: Opt) -> Vec<&'a Spanned<Value>> {
        let own = self.own.all(opt);
        let defaults = self.defaults.map_or(&[][..], |d| d.all(opt));
        match self.dialect {
            Dialect::Native if !own.is_empty() => own.iter().collect(),
            _ => defaults.iter().chain(own).collect(),
        }
    }

    /// Whether an option was mentioned, legibly or not.
    fn mentions(&self, opt: Opt) -> bool {
        self.own.mentions(opt) || self.defaults.is_some_and(|d| d.mentions(opt))
    }

    fn said<T>(&self, opt: Opt, read: impl Fn(&Value) -> Option<T>) -> Option<Decided<T>> {
        let said = self.last(opt)?;
        read(&said.value).map(|value| Decided::said(value, said.place.clone()))
    }

    /// A value that somebody wrote, or the table's default.
    fn decide<T>(&self, opt: Opt, read: impl Fn(&Value) -> Option<T>) -> Option<Decided<T>> {
        self.said(opt, &read).or_else(|| {
            let row = opt.row();
            let default = value::read(row.kind, self.dialect, row.default(self.dialect)).ok()?;
            read(&default).map(|value| Decided::default(value, self.dialect))
        })
    }
}

struct Checker<'a> {
    draft: &'a Draft,
    dialect: Dialect,
    report: &'a mut Report,
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
                Treatment::Harmless(why) => accepted(why),
                Treatment::NeedsCertificates(fine)
                | Treatment::Later(fine)
                | Treatment::Never(fine, _)
                    if asks_for_nothing(fine) =>
                {
                    accepted("this is how it is anyway")
                }
                Treatment::NeedsCertificates(_) => Diagnostic::error(
                    "needs-certificates",
                    format!("`{name}` is about certificates, and only pre-shared keys are supported"),
                )
                .help("remove it if the pre-shared key is all the proof you need; it is refused because to ignore it could weaken your protection"),
                // xapi and others look for these words.
                Treatment::Later(_) if opt == Opt::Fips => {
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
                Treatment::OwnCertificate if has_psk => {
                    accepted("with pre-shared keys no certificate is shown")
                }
                Treatment::OwnCertificate => Diagnostic::error(
                    "needs-certificates",
                    format!("`{name}` without PSKsecrets asks for a certificate tunnel, which is not supported"),
                )
                .help("give the service a file of pre-shared keys with PSKsecrets"),
            };
            self.report.push(found.at(said.place.clone()));
        }
    }

    fn anchor(&self, path: &Path) -> PathBuf {
        self.draft.base.join(path)
    }

    fn path(&self, scope: &Scope<'_>, opt: Opt) -> Option<Decided<PathBuf>> {
        scope.said(opt, |value| match value {
            Value::Path(path) => Some(self.anchor(path)),
            _ => None,
        })
    }

    fn process(&mut self) -> Option<ProcessConfig> {
        let draft = self.draft;
        let scope = Scope { own: &draft.global, defaults: None, dialect: self.dialect };
        let foreground = scope
            .decide(Opt::Foreground, |value| match value {
                Value::Foreground(f) => Some(*f),
                _ => None,
            })
            .unwrap_or(Decided::default(Foreground::Yes, self.dialect));
        let chroot = self.path(&scope, Opt::Chroot);
        let pid = self.inner_path(&scope, Opt::Pid);
        // stunnel has these for sections too, and they stand among its defaults.
        let scope = Scope { defaults: Some(&draft.defaults), ..scope };
        Some(ProcessConfig { foreground, pid, chroot, account: account(&scope) })
    }

    /// The name of a file that is opened once the root directory has changed, if it does.
    fn inner_path(&self, scope: &Scope<'_>, opt: Opt) -> Option<Decided<PathBuf>> {
        let jailed = matches!(scope.last(Opt::Chroot), Some(Spanned { value: Value::Path(_), .. }));
        scope.said(opt, |value| match value {
            Value::Path(path) if jailed => Some(Path::new("/").join(path)),
            Value::Path(path) => Some(self.anchor(path)),
            _ => None,
        })
    }

    fn log(&mut self) -> Option<LogConfig> {
        let draft = self.draft;
        let scope = Scope { own: &draft.global, defaults: None, dialect: self.dialect };
        Some(LogConfig {
            level: scope.decide(Opt::LogLevel, level)?,
            format: scope.decide(Opt::LogFormat, |value| match value {
                Value::LogFormat(format) => Some(*format),
                _ => None,
            })?,
            output: self.inner_path(&scope, Opt::LogOutput),
            overwrite: scope.decide(Opt::LogMode, boolean)?,
            syslog: scope.decide(Opt::Syslog, boolean)?,
            facility: scope.decide(Opt::LogFacility, count)?,
            ident: Scope { defaults: Some(&draft.defaults), ..scope }
                .decide(Opt::ServiceName, text)?,
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
                let place = Place { file: draft.file.clone(), line: 1, column: 1, span: 0..0 };
                let name = Spanned { value: INETD.to_owned(), place };
                return self.service(&DraftService { name, values: Values::default() });
            }
        };
        self.report.push(found);
        None
    }

    fn is_inetd(&self) -> bool {
        self.draft.services.is_empty()
    }

    fn service(&mut self, service: &DraftService) -> Option<ServiceConfig> {
        let draft = self.draft;
        let dialect = self.dialect;
        let scope = Scope { own: &service.values, defaults: Some(&draft.defaults), dialect };
        let head = &service.name.place;
        let secrets = self.secrets(&scope);
        self.treat(&service.values, !secrets.is_empty());

        let mode = scope.decide(Opt::Mode, |value| match value {
            Value::Mode(mode) => Some(*mode),
            _ => None,
        });
        let role = mode.as_ref().map(|mode| mode.value);
        let name = Decided::said(service.name.value.clone(), head.clone());
        self.missing(service, &scope, role);
        let source = self.source(&scope, role);
        let target = self.target(&scope);
        if let (Some(Source::Listeners(accept)), Some(Target::Connect(connect))) =
            (&source, &target)
        {
            self.loops(accept, connect);
        }
        let preface = self.preface(&scope, role);
        let tls = self.tls(&scope, role);
        let identity = self.identity(&scope, role);
        let loose = scope.decide(Opt::AllowLoosePermissions, boolean).is_some_and(|d| d.value);
        let rules = match dialect {
            Dialect::Native => Rules {
                duplicates: OnDuplicate::Refuse,
                identities: IdentityRule::Utf8,
                permissions: if loose {
                    OnLoosePermissions::Warn
                } else {
                    OnLoosePermissions::Refuse
                },
            },
            Dialect::Stunnel => Rules {
                duplicates: OnDuplicate::LastWins,
                identities: IdentityRule::Bytes,
                permissions: OnLoosePermissions::Warn,
            },
        };
        let hash = scope
            .decide(Opt::PskHash, |value| match value {
                Value::Hash(hash) => Some(*hash),
                _ => None,
            })
            .unwrap_or(Decided::default(super::model::PskHash::Sha256, dialect));
        let allow_shared_keys =
            scope.decide(Opt::AllowSharedKeys, boolean).unwrap_or(Decided::default(false, dialect));
        Some(ServiceConfig {
            name,
            mode: mode?,
            // Where these are missing that is an error by now, and the others should be told too.
            source: source.unwrap_or(Source::Listeners(Vec::new())),
            owner: account(&scope),
            target: target.unwrap_or(Target::Connect(Vec::new())),
            local: scope.said(Opt::Local, |value| match value {
                Value::Host(host) => Some(host.clone()),
                _ => None,
            }),
            preface,
            // What a stunnel.conf says before its sections is said of the process.
            log_level: match dialect {
                Dialect::Native => scope.said(Opt::ServiceLogLevel, level),
                Dialect::Stunnel => scope.said(Opt::LogLevel, level),
            },
            failover: scope.decide(Opt::Failover, |value| match value {
                Value::Failover(failover) => Some(*failover),
                _ => None,
            })?,
            auth: Authentication::Psk(PskConfig {
                secrets,
                identity,
                rules,
                hash,
                allow_shared_keys,
            }),
            tls: tls?,
            timeouts: Timeouts {
                handshake: scope.decide(Opt::HandshakeTimeout, duration)?,
                connect: scope.decide(Opt::ConnectTimeout, duration)?,
                idle: scope.decide(Opt::IdleTimeout, duration)?,
                close: scope.decide(Opt::CloseTimeout, duration)?,
            },
            limits: Limits {
                max_sessions: scope.said(Opt::MaxSessions, count),
                max_handshakes: scope.said(Opt::MaxHandshakes, count),
            },
            sockets: self.sockets(&scope, role)?,
            reset: scope.said(Opt::Reset, boolean),
        })
    }

    /// In a stunnel.conf a section's file replaces the global one, and the last line counts.
    fn secrets(&self, scope: &Scope<'_>) -> Vec<Decided<PathBuf>> {
        let said = match self.dialect {
            Dialect::Native => scope.all(Opt::PskSecrets),
            Dialect::Stunnel => scope.last(Opt::PskSecrets).into_iter().collect(),
        };
        said.into_iter()
            .filter_map(|said| match &said.value {
                Value::Path(path) => Some(Decided::said(self.anchor(path), said.place.clone())),
                _ => None,
            })
            .collect()
    }

    fn source(&mut self, scope: &Scope<'_>, mode: Option<Mode>) -> Option<Source> {
        if self.is_inetd() {
            return Some(Source::Stdio);
        }
        let listens = self.accept(scope, mode);
        if !listens.is_empty() {
            return Some(Source::Listeners(listens));
        }
        let said = scope.said(Opt::ServerName, text).filter(|_| mode == Some(Mode::Server))?;
        let Some((of, pattern)) = said.value.split_once(':') else {
            let found = Diagnostic::error("server-name", "Invalid SNI parameter format")
                .help("write SERVICE:PATTERN, such as plc:*.example");
            self.report.push(found.at(said.place().cloned()));
            return None;
        };
        let of = Decided { value: of.to_owned(), origin: said.origin.clone() };
        Some(Source::ServerName { of, pattern: NamePattern::new(pattern) })
    }

    /// `None` if nothing was said that could be read; `missing` has told.
    fn target(&mut self, scope: &Scope<'_>) -> Option<Target> {
        let connect = self.connect(scope);
        // What a native service says itself takes the place of what holds for all.
        let own = scope.own;
        let inherited = self.native() && own.mentions(Opt::Exec) && !own.mentions(Opt::Connect);
        if !connect.is_empty() && !inherited {
            return Some(Target::Connect(connect));
        }
        let path = self.path(scope, Opt::Exec)?;
        let said = match self.dialect {
            Dialect::Native => scope.all(Opt::ExecArgs),
            Dialect::Stunnel => scope.last(Opt::ExecArgs).into_iter().collect(),
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
        let global = Scope { own: &self.draft.global, defaults: None, dialect: self.dialect };
        let to_stderr =
            |value: &Value| matches!(value, Value::Foreground(Foreground::Yes)).then_some(());
        let errors_to_peer = !self.native() && global.said(Opt::Foreground, to_stderr).is_none();
        Some(Target::Exec(Program { path, arguments, errors_to_peer }))
    }

    fn preface(&mut self, scope: &Scope<'_>, mode: Option<Mode>) -> Option<Decided<ProxyHeader>> {
        let said = scope.said(Opt::Protocol, |value| match value {
            Value::Preface(header) => Some(*header),
            _ => None,
        })?;
        if mode != Some(Mode::Client) {
            return Some(said);
        }
        // Among the native defaults it is meant for the servers of the file.
        if !self.native() || scope.own.last(Opt::Protocol).is_some() {
            let message = if self.native() {
                "a client has no backend to tell where a connection came from"
            } else {
                "The 'proxy' protocol is not supported in the client mode"
            };
            let found = Diagnostic::error("proxy-header-on-client", message)
                .help("remove it here, and say it at the server's end");
            self.report.push(found.at(said.place().cloned()));
        }
        None
    }

    fn accept(&mut self, scope: &Scope<'_>, mode: Option<Mode>) -> Vec<Listen> {
        let said = scope.all(Opt::Accept);
        let mut listens: Vec<Listen> = Vec::new();
        let mut extra = Vec::new();
        for said in said {
            let Value::Endpoint(endpoint) = &said.value else {
                continue;
            };
            let at = |endpoint| Decided::said(endpoint, said.place.clone());
            let Endpoint::Tcp { host: Host::Unspecified, port } = endpoint else {
                let endpoint = self.anchored(endpoint);
                if !self.native() && listens.iter().any(|l| l.at.value == endpoint) {
                    self.twice(&said.place);
                    continue;
                }
                listens.push(Listen { at: at(endpoint), optional: false });
                continue;
            };
            let every = |ip: IpAddr| Endpoint::Tcp { host: Host::Ip(ip), port: *port };
            let ipv4 = every(Ipv4Addr::UNSPECIFIED.into());
            if !self.native() && *port != 0 && listens.iter().any(|l| l.at.value == ipv4) {
                self.twice(&said.place);
                continue;
            }
            listens.push(Listen { at: at(ipv4), optional: false });
            if self.native() {
                extra.push(Listen { at: at(every(Ipv6Addr::UNSPECIFIED.into())), optional: true });
            }
            if mode == Some(Mode::Client) {
                self.report.push(
                    Diagnostic::warning(
                        "open-to-network",
                        "a port alone listens on every interface: whoever can reach this machine \
                         gets into the tunnel without a key",
                    )
                    .at(said.place.clone())
                    .help(format!("write 127.0.0.1:{port}, or 0.0.0.0:{port} if it is meant")),
                );
            }
        }
        // Both families bind a random port of their own, which nobody could guess.
        extra.retain(|l| !matches!(l.at.value, Endpoint::Tcp { port: 0, .. }));
        for listen in extra {
            if !listens.iter().any(|l| l.at.value == listen.at.value) {
                listens.push(listen);
            }
        }
        listens
    }

    /// stunnel binds the address once, fails the second time, and goes on.
    fn twice(&mut self, place: &Place) {
        self.report.push(
            Diagnostic::warning("address-twice", "the service listens on this address already")
                .at(place.clone())
                .help("remove this line, or the global one that says the same"),
        );
    }

    fn anchored(&self, endpoint: &Endpoint) -> Endpoint {
        match endpoint {
            Endpoint::Unix(path) => Endpoint::Unix(self.anchor(path)),
            other => other.clone(),
        }
    }

    fn connect(&mut self, scope: &Scope<'_>) -> Vec<Decided<Endpoint>> {
        let mut targets = Vec::new();
        for said in scope.all(Opt::Connect) {
            let Value::Endpoint(endpoint) = &said.value else {
                continue;
            };
            if let Endpoint::Tcp { host: Host::Name(name), .. } = endpoint
                && !name.contains('%')
                && !is_host_name(name)
            {
                // stunnel starts with such a name too, and fails at each connection.
                self.report.push(
                    Diagnostic::warning(
                        "bad-host-name",
                        "this can be neither an address nor a host name",
                    )
                    .at(said.place.clone())
                    .help("write the address or the name of the other end"),
                );
            }
            targets.push(Decided::said(self.anchored(endpoint), said.place.clone()));
        }
        targets
    }

    /// What a service cannot do without.
    fn missing(&mut self, service: &DraftService, scope: &Scope<'_>, mode: Option<Mode>) {
        if self.draft.incomplete {
            // A line that could not be read may have been the one; the next run will tell.
            return;
        }
        let head = &service.name.place;
        let shown = &service.name.value;
        let said = |opt| scope.mentions(opt);
        let by_name = said(Opt::ServerName) && mode != Some(Mode::Client);
        if self.native() {
            let own = scope.own;
            for (one, other) in [(Opt::Connect, Opt::Exec), (Opt::Accept, Opt::ServerName)] {
                if own.mentions(one)
                    && let Some(said) = own.last(other)
                    && (other == Opt::Exec || mode == Some(Mode::Server))
                {
                    let (one, other) = (one.name(self.dialect), other.name(self.dialect));
                    let message = format!("service `{shown}` has both `{one}` and `{other}`");
                    let found = Diagnostic::error("two-of-a-kind", message)
                        .help("leave one of them out: either says all about this end");
                    self.report.push(found.at(said.place.clone()));
                }
            }
            for opt in [Opt::Mode, Opt::Accept, Opt::Connect, Opt::PskSecrets] {
                if said(opt)
                    || (opt == Opt::Accept && by_name)
                    || (opt == Opt::Connect && said(Opt::Exec))
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
        let sources = [said(Opt::Accept), by_name].into_iter().filter(|one| *one).count();
        let targets = [Opt::Connect, Opt::Exec].into_iter().filter(|opt| said(*opt)).count();
        if self.is_inetd() {
            let found = if let Some(said) = scope.last(Opt::Accept) {
                Diagnostic::error(
                    "accept-without-section",
                    "Inetd mode: 'accept' option is only allowed in a [section]",
                )
                .at(said.place.clone())
                .help("put a [section] with a name before accept and connect")
            } else {
                Diagnostic::error(
                    "missing-option",
                    "Inetd mode: Inetd mode must define one endpoint",
                )
                .help("say either connect = HOST:PORT or exec = PROGRAM")
            };
            if said(Opt::Accept) || targets != 1 {
                self.report.push(found);
            }
        } else if (sources, targets) == (0, 2) {
            let message = "a program that is connected to a server is not supported yet";
            let found = Diagnostic::error("not-supported-yet", message)
                .help("say accept = PORT, and either exec or connect");
            self.report.push(found.at(head.clone()));
        } else if (sources, targets) != (1, 1) && !said(Opt::Transparent) {
            self.report.push(
                Diagnostic::error("missing-option", "Each service must define two endpoints")
                    .at(head.clone())
                    .help(match (sources, targets) {
                        (0, _) => "add accept = PORT",
                        (_, 0) => "add connect = HOST:PORT",
                        (_, 2) => "say either connect or exec",
                        _ => "say either accept or sni: a section with sni gets its connections from another",
                    }),
            );
        }
        let lacks = |opt| !scope.mentions(opt);
        if lacks(Opt::PskSecrets) && lacks(Opt::Cert) {
            self.report.push(
                Diagnostic::error("missing-option", "the service has no PSKsecrets")
                    .at(head.clone())
                    .help("add PSKsecrets = FILE, a file of identity:key lines; certificates are not supported"),
            );
        }
    }

    /// A service that connects to itself would run out of descriptors with its first connection.
    fn loops(&mut self, accept: &[Listen], connect: &[Decided<Endpoint>]) {
        for target in connect {
            if accept.iter().any(|listen| reaches(&target.value, &listen.at.value)) {
                let found =
                    Diagnostic::error("connects-to-itself", "the service connects to itself");
                self.report.push(
                    found
                        .at(target.place().cloned())
                        .help("connect to the port of the program behind it, or accept on another"),
                );
            }
        }
    }

    fn identity(&mut self, scope: &Scope<'_>, mode: Option<Mode>) -> Option<Decided<Vec<u8>>> {
        let identity = scope.said(Opt::PskIdentity, |value| match value {
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        })?;
        if mode != Some(Mode::Server) {
            return Some(identity);
        }
        // Among the defaults it is meant for the clients of the file.
        if self.native() && scope.own.last(Opt::PskIdentity).is_some() {
            self.report.push(
                Diagnostic::error("identity-on-server", "a server presents no identity")
                    .at(identity.place().cloned())
                    .help("remove psk-identity: a server knows the identities of its psk-secrets"),
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

    fn tls(&mut self, scope: &Scope<'_>, mode: Option<Mode>) -> Option<TlsConfig> {
        let mut min = self.bound(scope, Opt::TlsMin)?;
        let mut max = self.bound(scope, Opt::TlsMax)?;
        // One bound alone may contradict the other's default, which then gives way: whoever asks for
        // nothing newer than 1.1 has asked for 1.1.
        if min.value > max.value {
            match (min.place().is_some(), max.place().is_some()) {
                (true, true) | (false, false) => {}
                (true, false) => max.value = min.value,
                (false, true) => min.value = max.value,
            }
        }
        let switches = self.switches(scope, &mut min, &mut max);
        if min.value > max.value {
            self.report.push(
                Diagnostic::error(
                    "version-range",
                    if self.native() {
                        "tls-min is newer than tls-max"
                    } else {
                        "Invalid protocol version range"
                    },
                )
                .at(max.place().or(min.place()).cloned())
                .help("nothing lies between them: swap them, or leave one out"),
            );
        } else if min.value < TlsVersion::Tls12 {
            self.report.push(
                Diagnostic::warning("old-tls", "TLS 1.0 and 1.1 are obsolete (RFC 8996)")
                    .at(min.place().or(max.place()).cloned())
                    .help("allow them only for a peer that knows nothing else"),
            );
        }
        // Of a server it says where its connections come from; see `source`.
        let server_name = scope.said(Opt::ServerName, text).filter(|_| mode != Some(Mode::Server));
        Some(TlsConfig {
            min,
            max,
            ciphers: scope.decide(Opt::Ciphers, text)?,
            ciphersuites: scope.decide(Opt::Ciphersuites, text),
            groups: scope.decide(Opt::Groups, text)?,
            security_level: scope
                .said(Opt::SecurityLevel, |value| count(value).and_then(|n| u8::try_from(n).ok())),
            switches,
            server_name,
        })
    }

    /// stunnel's `all` leaves the choice to the library, as if nothing had been said: the versions
    /// below 1.2 are there only for whoever names them.
    fn bound(&self, scope: &Scope<'_>, opt: Opt) -> Option<Decided<TlsVersion>> {
        let default = || {
            let none = Values::default();
            let nobody = Scope { own: &none, defaults: None, dialect: self.dialect };
            nobody
                .decide(opt, version)
                .and_then(|d| Some(Decided { value: d.value?, origin: d.origin }))
        };
        match scope.said(opt, version) {
            Some(Decided { value: Some(value), origin }) => Some(Decided { value, origin }),
            _ => default(),
        }
    }

    /// OpenSSL's switches: those that forbid a version narrow the range, some can be turned, and the
    /// rest is how it is here anyway or would weaken it. What is turned off is off, also when a later
    /// line turns it on.
    fn switches(
        &mut self,
        scope: &Scope<'_>,
        min: &mut Decided<TlsVersion>,
        max: &mut Decided<TlsVersion>,
    ) -> Vec<(TlsSwitch, bool)> {
        let mut turned = Vec::new();
        let mut allowed_again = BTreeSet::new();
        let mut forbidden: BTreeMap<TlsVersion, Place> = BTreeMap::new();
        for said in scope.all(Opt::SslOptions) {
            let Value::Text(name) = &said.value else {
                continue;
            };
            let (on, name) = match name.strip_prefix('-') {
                Some(name) => (false, name),
                None => (true, name.as_str()),
            };
            if let Some(switch) = switch(name) {
                turned.push((switch, on));
                continue;
            }
            let version = match name.to_ascii_uppercase().replace('_', ".").as_str() {
                "NO.TLSV1" => TlsVersion::Tls10,
                "NO.TLSV1.1" => TlsVersion::Tls11,
                "NO.TLSV1.2" => TlsVersion::Tls12,
                "NO.TLSV1.3" => TlsVersion::Tls13,
                "NO.SSLV2" | "NO.SSLV3" if on => continue,
                "NO.SSL.MASK" if on => {
                    use TlsVersion::{Tls10, Tls11, Tls12, Tls13};
                    for version in [Tls10, Tls11, Tls12, Tls13] {
                        forbidden.insert(version, said.place.clone());
                    }
                    continue;
                }
                _ => {
                    if scope.own.all(Opt::SslOptions).contains(said) {
                        self.without_effect(said);
                    }
                    continue;
                }
            };
            if on {
                forbidden.insert(version, said.place.clone());
            } else {
                allowed_again.insert(version);
            }
        }
        forbidden.retain(|version, _| !allowed_again.contains(version));
        // Those that turn something off come last.
        turned.sort_by_key(|(_, on)| !on);
        let order = [TlsVersion::Tls10, TlsVersion::Tls11, TlsVersion::Tls12, TlsVersion::Tls13];
        let allowed: Vec<TlsVersion> = order
            .into_iter()
            .filter(|v| (min.value..=max.value).contains(v) && !forbidden.contains_key(v))
            .collect();
        let place = forbidden.into_values().next();
        let (Some(first), Some(last)) = (allowed.first(), allowed.last()) else {
            if let Some(place) = place {
                let found = Diagnostic::error("version-range", "no protocol version is left");
                self.report.push(found.at(place).help("allow one of them"));
            }
            return turned;
        };
        let Some(place) = place else { return turned };
        let width = order.iter().filter(|v| (first..=last).contains(v)).count();
        if width != allowed.len() {
            let found = Diagnostic::error("version-range", "the versions have a gap in the middle");
            self.report.push(found.at(place).help("use sslVersionMin and sslVersionMax"));
            return turned;
        }
        if *first != min.value {
            *min = Decided::said(*first, place.clone());
        }
        if *last != max.value {
            *max = Decided::said(*last, place);
        }
        turned
    }

    fn without_effect(&mut self, said: &Spanned<Value>) {
        self.report.push(
            Diagnostic::notice(
                "without-effect",
                "this switch has no effect: what it protects from is always off, or it would weaken what is always on",
            )
            .at(said.place.clone()),
        );
    }

    fn sockets(&mut self, scope: &Scope<'_>, mode: Option<Mode>) -> Option<Sockets> {
        let mut lists: [Vec<Decided<SocketOption>>; 3] = Default::default();
        for said in scope.all(Opt::Socket) {
            let Value::Socket(side, option) = &said.value else {
                continue;
            };
            let list = match side {
                Side::Accept => &mut lists[0],
                Side::Downstream => &mut lists[1],
                Side::Upstream => &mut lists[2],
            };
            // The last word about an option counts, in the place of the first.
            let decided = Decided::said(option.clone(), said.place.clone());
            match list.iter_mut().find(|d| discriminant(&d.value) == discriminant(option)) {
                Some(earlier) => *earlier = decided,
                None => list.push(decided),
            }
        }
        let mut keepalive = scope.decide(Opt::Keepalive, keepalive)?;
        let [accept, downstream, upstream] = lists;
        let tls_side = match mode {
            Some(Mode::Client) => &upstream,
            _ => &downstream,
        };
        if !self.native()
            && let Some(said) = tls_side.iter().find(|d| speaks_of_keepalive(&d.value))
        {
            keepalive = Decided { value: None, origin: said.origin.clone() };
        }
        Some(Sockets { keepalive, accept, downstream, upstream })
    }

    /// What no two services may share.
    fn between(&mut self, services: &mut [ServiceConfig]) {
        let mut taken: Vec<(Listen, String)> = Vec::new();
        for service in services {
            let Source::Listeners(listens) = &mut service.source else { continue };
            let own_name = &service.name.value;
            let (mut free, mut doubled) = (Vec::new(), Vec::new());
            for listen in listens.drain(..) {
                let any_port = matches!(listen.at.value, Endpoint::Tcp { port: 0, .. });
                let same = taken.iter().find(|(l, _)| !any_port && l.at.value == listen.at.value);
                // Of a port alone, the IPv4 half speaks for both.
                match same.filter(|(l, _)| !l.optional && !listen.optional) {
                    Some((_, name)) => doubled.push((listen, name.clone())),
                    None => {
                        taken.push((listen.clone(), own_name.clone()));
                        free.push(listen);
                    }
                }
            }
            // In stunnel, a section that can have one of its addresses does without the others.
            let goes_on = !self.native() && !free.is_empty();
            for (listen, name) in &doubled {
                let message = format!("service `{name}` listens on {} already", listen.at.value);
                let found = if goes_on {
                    Diagnostic::warning("address-in-use", message)
                        .help("the section does without this address: remove it here, or where it is said for all")
                } else {
                    Diagnostic::error("address-in-use", message)
                        .help("give each service an address of its own")
                };
                self.report.push(found.at(listen.at.place().cloned()));
            }
            *listens = free;
        }
    }

    /// A service that is reached by a name needs one that takes its connections.
    fn server_names(&mut self, services: &[ServiceConfig]) {
        for (place, service) in services.iter().enumerate() {
            let Source::ServerName { of, .. } = &service.source else { continue };
            // stunnel knows only the sections that it has read so far.
            let known = if self.native() { services } else { &services[..place] };
            let primary = known.iter().find(|other| other.name.value == of.value);
            let written = self.draft.services.iter().any(|other| other.name.value == of.value);
            let found = match primary.map(|primary| (primary.mode.value, &primary.source)) {
                Some((Mode::Server, Source::Listeners(_))) => continue,
                Some((Mode::Server, _)) => Diagnostic::warning(
                    "server-name",
                    "nobody reaches this service: the one that it names has no address of its own",
                )
                .help("name the service that listens"),
                Some((Mode::Client, _)) => {
                    Diagnostic::error("server-name", "SNI primary service is a TLS client")
                        .help("name a service that accepts TLS")
                }
                // It is there, and its own mistakes are told.
                None if written && !services.iter().any(|s| s.name.value == of.value) => continue,
                None => Diagnostic::error("server-name", "SNI section name not found").help(
                    if written {
                        "move the section that it names before this one"
                    } else {
                        "write the name of a section before the colon"
                    },
                ),
            };
            self.report.push(found.at(of.place().cloned()));
        }
    }
}

/// What inetd's one service is called in logs, as in stunnel's.
const INETD: &str = "stunnel";

/// The switches that can be turned.
fn switch(name: &str) -> Option<TlsSwitch> {
    Some(match name.to_ascii_uppercase().as_str() {
        "ALL" => TlsSwitch::All,
        "CIPHER_SERVER_PREFERENCE" => TlsSwitch::CipherServerPreference,
        "PRIORITIZE_CHACHA" => TlsSwitch::PrioritizeChacha,
        "ENABLE_MIDDLEBOX_COMPAT" => TlsSwitch::MiddleboxCompat,
        "NO_ENCRYPT_THEN_MAC" => TlsSwitch::NoEncryptThenMac,
        "NO_EXTENDED_MASTER_SECRET" => TlsSwitch::NoExtendedMasterSecret,
        "DONT_INSERT_EMPTY_FRAGMENTS" => TlsSwitch::DontInsertEmptyFragments,
        "TLSEXT_PADDING" => TlsSwitch::Padding,
        "CLEANSE_PLAINTEXT" => TlsSwitch::CleansePlaintext,
        "TLS_ROLLBACK_BUG" => TlsSwitch::RollbackBug,
        "LEGACY_SERVER_CONNECT" => TlsSwitch::LegacyServerConnect,
        _ => return None,
    })
}

fn keepalive(value: &Value) -> Option<Option<Keepalive>> {
    match value {
        Value::Keepalive(keepalive) => Some(*keepalive),
        _ => None,
    }
}

fn speaks_of_keepalive(option: &SocketOption) -> bool {
    matches!(
        option,
        SocketOption::KeepAlive(_)
            | SocketOption::KeepAliveCount(_)
            | SocketOption::KeepAliveIdle(_)
            | SocketOption::KeepAliveInterval(_)
    )
}

/// Whether a connection to `target` certainly arrives at `listener`. Names are not asked.
fn reaches(target: &Endpoint, listener: &Endpoint) -> bool {
    match (target, listener) {
        (Endpoint::Unix(a), Endpoint::Unix(b)) => a == b,
        (Endpoint::Tcp { host: to, port: a }, Endpoint::Tcp { host: at, port: b }) => {
            if a != b || *a == 0 {
                return false;
            }
            match (to, at) {
                (Host::Ip(to), Host::Ip(at)) => {
                    to == at
                        || (at.is_unspecified()
                            && (to.is_loopback() || to.is_unspecified())
                            && to.is_ipv4() == at.is_ipv4())
                }
                (Host::Unspecified, Host::Ip(at)) => at.is_unspecified() || at.is_loopback(),
                (Host::Name(to), Host::Name(at)) => to == at,
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
