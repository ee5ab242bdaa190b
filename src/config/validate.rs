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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::load::{Format, load_text};
    use crate::config::model::{Failover, Level, LogFormat, PskHash};

    fn load(text: &str, name: &str) -> Result<(Config, Report), Report> {
        load_text(text.as_bytes(), Path::new(name), Path::new("/base"), Format::Auto)
    }

    fn good(text: &str, name: &str) -> (Config, Vec<&'static str>) {
        match load(text, name) {
            Ok((config, report)) => (config, report.diagnostics.iter().map(|d| d.code).collect()),
            Err(report) => panic!("{}", report.render(false)),
        }
    }

    fn toml(body: &str) -> (ServiceConfig, Vec<&'static str>) {
        let (mut config, codes) = good(&native(body), "x.toml");
        (config.services.remove(0), codes)
    }

    fn native(body: &str) -> String {
        let mut text = "[services.s]\npsk-secrets = \"k\"\n".to_owned();
        for (key, line) in [
            ("mode", "mode = \"server\"\n"),
            ("accept", "accept = \"127.0.0.1:1\"\n"),
            ("connect", "connect = \"127.0.0.1:2\"\n"),
        ] {
            if !body.contains(&format!("{key} =")) {
                text.push_str(line);
            }
        }
        text + body
    }

    fn conf(global: &str, section: &str) -> (ServiceConfig, Vec<&'static str>) {
        let text = format!(
            "{global}\n[s]\naccept = 127.0.0.1:1\nconnect = 127.0.0.1:2\nPSKsecrets = k\n{section}\n"
        );
        let (mut config, codes) = good(&text, "x.conf");
        (config.services.remove(0), codes)
    }

    fn codes(text: &str, name: &str) -> Vec<&'static str> {
        match load(text, name) {
            Ok((_, report)) => panic!("accepted: {}", report.render(false)),
            Err(report) => report.diagnostics.iter().map(|d| d.code).collect(),
        }
    }

    fn listens(service: &ServiceConfig) -> Vec<(String, bool)> {
        service.accept().iter().map(|l| (l.at.value.to_string(), l.optional)).collect()
    }

    fn targets(service: &ServiceConfig) -> Vec<String> {
        service.connect().iter().map(|c| c.value.to_string()).collect()
    }

    fn secrets(service: &ServiceConfig) -> Vec<&Path> {
        let Authentication::Psk(psk) = &service.auth;
        psk.secrets.iter().map(|s| s.value.as_path()).collect()
    }

    #[test]
    fn a_native_file_that_says_nothing_gets_the_native_defaults() {
        let (config, _) = good(&native(""), "x.toml");
        let service = &config.services[0];
        assert_eq!(config.log.level.value, Level::Info);
        assert_eq!(config.log.format.value, LogFormat::Human);
        assert!(config.log.output.is_none());
        assert_eq!(config.process.foreground.value, Foreground::Yes);
        assert!(!config.log.syslog.value);
        assert_eq!(config.drain_timeout.value, Duration::from_secs(5));
        assert_eq!(config.file, Path::new("/base/x.toml"));
        assert_eq!(service.failover.value, Failover::Priority);
        assert_eq!(
            (service.tls.min.value, service.tls.max.value),
            (TlsVersion::Tls12, TlsVersion::Tls13)
        );
        assert_eq!(
            service.tls.ciphers.value,
            "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:\
             DHE-PSK-AES128-GCM-SHA256:DHE-PSK-CHACHA20-POLY1305"
        );
        assert!(service.tls.ciphersuites.is_none());
        assert_eq!(service.tls.groups.value, "X25519:P-256");
        assert_eq!(
            service.tls.groups.origin,
            super::super::model::Origin::Default(Dialect::Native)
        );
        assert!(service.tls.security_level.is_none() && service.tls.server_name.is_none());
        assert_eq!(service.timeouts.handshake.value, Duration::from_secs(10));
        assert_eq!(service.timeouts.connect.value, Duration::from_secs(10));
        assert_eq!(service.timeouts.close.value, Duration::from_secs(60));
        assert_eq!(service.timeouts.idle.value, Duration::from_secs(43_200));
        let keepalive =
            Keepalive { idle: Duration::from_secs(15), interval: Duration::from_secs(5), count: 3 };
        assert_eq!(service.sockets.keepalive.value, Some(keepalive));
        assert!(service.reset.is_none());
        let Authentication::Psk(psk) = &service.auth;
        assert_eq!(psk.hash.value, PskHash::Sha256);
        assert!(!psk.allow_shared_keys.value && psk.identity.is_none());
        assert_eq!(
            psk.rules,
            Rules {
                duplicates: OnDuplicate::Refuse,
                identities: IdentityRule::Utf8,
                permissions: OnLoosePermissions::Refuse,
            }
        );
    }

    #[test]
    fn a_stunnel_conf_that_says_nothing_gets_stunnels_defaults() {
        let text = "[s]\naccept = 127.0.0.1:1\nconnect = 2\nPSKsecrets = k\n";
        let (config, _) = good(text, "dir/x.conf");
        let service = &config.services[0];
        assert_eq!(config.file, Path::new("/base/dir/x.conf"));
        assert_eq!(config.log.level.value, Level::Notice);
        assert_eq!(config.log.format.value, LogFormat::Stunnel);
        assert_eq!(config.process.foreground.value, Foreground::No);
        assert!(config.log.syslog.value && config.process.pid.is_none());
        assert_eq!(service.mode.value, Mode::Server);
        assert_eq!(
            (service.tls.min.value, service.tls.max.value),
            (TlsVersion::Tls12, TlsVersion::Tls13)
        );
        assert_eq!(service.tls.ciphers.value, "HIGH:!aNULL:!SSLv2:!DH:!kDHEPSK");
        assert_eq!(service.tls.groups.value, "X25519:P-256:X448:P-521:P-384");
        assert_eq!(
            service.tls.ciphersuites.as_ref().map(|c| c.value.as_str()),
            Some("TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256")
        );
        assert_eq!(service.timeouts.handshake.value, Duration::from_secs(10));
        assert_eq!(service.timeouts.idle.value, Duration::from_secs(43_200));
        assert!(service.sockets.keepalive.value.is_some());
        let Authentication::Psk(psk) = &service.auth;
        assert_eq!(
            psk.rules,
            Rules {
                duplicates: OnDuplicate::LastWins,
                identities: IdentityRule::Bytes,
                permissions: OnLoosePermissions::Warn,
            }
        );
    }

    #[test]
    fn a_written_timeoutbusy_is_the_handshakes_limit() {
        let (service, _) = conf("TIMEOUTbusy = 300", "");
        assert_eq!(service.timeouts.handshake.value, Duration::from_secs(300));
    }

    #[test]
    fn a_section_adds_to_global_lists_and_replaces_global_files() {
        let text = "connect = 1\naccept = 127.0.0.1:9\nPSKsecrets = global\n\
                    [a]\nconnect = 2\n[b]\nPSKsecrets = x\nPSKsecrets = own\naccept = 127.0.0.1:8\n";
        let (config, _) =
            good(&text.replace("accept = 127.0.0.1:9\n", "accept = 127.0.0.1:0\n"), "x.conf");
        assert_eq!(targets(&config.services[0]), ["1", "2"]);
        assert_eq!(secrets(&config.services[0]), [Path::new("/base/global")]);
        assert_eq!(targets(&config.services[1]), ["1"]);
        assert_eq!(secrets(&config.services[1]), [Path::new("/base/own")]);
        assert_eq!(listens(&config.services[1]).len(), 2);
    }

    #[test]
    fn a_native_list_replaces_that_of_the_defaults() {
        let text = "[defaults]\nmode = \"server\"\nconnect = \"a:1\"\npsk-secrets = [\"x\", \"/y\"]\n\
                    idle-timeout = \"1s\"\n\
                    [services.a]\naccept = \"127.0.0.1:1\"\nconnect = [\"b:2\"]\n\
                    [services.b]\naccept = \"127.0.0.1:2\"\nidle-timeout = \"2s\"\n";
        let (config, _) = good(text, "x.toml");
        assert_eq!(targets(&config.services[0]), ["b:2"]);
        assert_eq!(targets(&config.services[1]), ["a:1"]);
        assert_eq!(secrets(&config.services[1]), [Path::new("/base/x"), Path::new("/y")]);
        assert_eq!(config.services[0].timeouts.idle.value, Duration::from_secs(1));
        assert_eq!(config.services[1].timeouts.idle.value, Duration::from_secs(2));
    }

    #[test]
    fn services_keep_the_order_of_the_file() {
        let one = native("").replace("services.s", "services.z");
        let two = native("accept = 5\n").replace("services.s", "services.a");
        let (config, _) = good(&(one + &two), "x.toml");
        let names: Vec<_> = config.services.iter().map(|s| s.name.value.as_str()).collect();
        assert_eq!(names, ["z", "a"]);
    }

    #[test]
    fn a_port_alone_is_every_interface_of_both_families_only_in_a_native_file() {
        let both = [("0.0.0.0:3001".to_owned(), false), ("[::]:3001".to_owned(), true)];
        assert_eq!(listens(&toml("accept = 3001\n").0), both);
        assert_eq!(listens(&toml("accept = \"*:3001\"\n").0), both);
        let explicit = listens(&toml("accept = [3001, \"[::]:3001\"]\n").0);
        assert_eq!(explicit, [("0.0.0.0:3001".into(), false), ("[::]:3001".into(), false)]);
        assert_eq!(listens(&toml("accept = 0\n").0), [("0.0.0.0:0".into(), false)]);
        let (config, _) = good("[s]\naccept = 3001\nconnect = 2\nPSKsecrets = k\n", "x.conf");
        assert_eq!(listens(&config.services[0]), [("0.0.0.0:3001".into(), false)]);
        let (config, _) = good("[s]\naccept = :::3001\nconnect = 2\nPSKsecrets = k\n", "x.conf");
        assert_eq!(listens(&config.services[0]), [("[::]:3001".into(), false)]);
    }

    #[test]
    fn a_clients_port_alone_is_warned_about() {
        assert_eq!(toml("mode = \"client\"\naccept = 3001\n").1, ["open-to-network"]);
        assert_eq!(toml("mode = \"client\"\naccept = \"0.0.0.0:3001\"\n").1, [""; 0]);
        assert_eq!(toml("accept = 3001\n").1, [""; 0]);
        let text = "client = yes\n[s]\naccept = 3002\nconnect = a:1\nPSKsecrets = k\n";
        assert_eq!(good(text, "x.conf").1, ["open-to-network"]);
    }

    #[test]
    fn relative_names_are_joined_to_the_base() {
        let text = "[log]\noutput = \"l/x.log\"\n".to_owned()
            + &native("accept = \"unix:a.sock\"\nconnect = \"/abs.sock\"\n");
        let (config, _) = good(&text, "x.toml");
        assert_eq!(config.log.output.map(|o| o.value), Some("/base/l/x.log".into()));
        assert_eq!(listens(&config.services[0])[0].0, "/base/a.sock");
        assert_eq!(targets(&config.services[0]), ["/abs.sock"]);
        let text =
            "pid = run/x.pid\noutput = x.log\n[s]\naccept = 1\nconnect = 2\nPSKsecrets = k\n";
        let (config, _) = good(text, "sub/x.conf");
        assert_eq!(config.process.pid.map(|p| p.value), Some("/base/run/x.pid".into()));
        assert_eq!(config.log.output.map(|o| o.value), Some("/base/x.log".into()));
    }

    #[test]
    fn an_empty_pid_is_no_pid_file() {
        let text = "pid = /run/x\npid =\n[s]\naccept = 1\nconnect = 2\nPSKsecrets = k\n";
        assert!(good(text, "x.conf").0.process.pid.is_none());
    }

    #[test]
    fn versions_are_a_range_that_is_not_empty() {
        use TlsVersion::{Tls10, Tls11, Tls12, Tls13};
        let range = |lines: &str| {
            let (service, codes) = conf("", lines);
            ((service.tls.min.value, service.tls.max.value), codes)
        };
        let quiet = Vec::<&str>::new;
        assert_eq!(range("sslVersion = TLSv1.2"), ((Tls12, Tls12), quiet()));
        assert_eq!(range("sslVersion = all"), ((Tls12, Tls13), quiet()));
        assert_eq!(range("sslVersionMin = all"), ((Tls12, Tls13), quiet()));
        assert_eq!(range("sslVersionMin = TLSv1.3"), ((Tls13, Tls13), quiet()));
        assert_eq!(
            range("sslVersion = TLSv1.2\nsslVersionMax = TLSv1.3"),
            ((Tls12, Tls13), quiet())
        );
        assert_eq!(range("sslVersion = TLSv1"), ((Tls10, Tls10), vec!["old-tls"]));
        assert_eq!(range("sslVersionMax = TLSv1.1"), ((Tls11, Tls11), vec!["old-tls"]));
        assert_eq!(range("options = NO_TLSv1_3"), ((Tls12, Tls12), quiet()));
        assert_eq!(range("options = NO_TLSv1_2\noptions = NO_SSLv3"), ((Tls13, Tls13), quiet()));
        assert_eq!(range("options = NO_TLSv1_2\noptions = -NO_TLSv1_2"), ((Tls12, Tls13), quiet()));
        let (service, found) = toml("tls-min = \"1.0\"\n");
        assert_eq!((service.tls.min.value, service.tls.max.value), (Tls10, Tls13));
        assert_eq!(found, ["old-tls"]);
        let gap = "[s]\naccept = 1\nconnect = 2\nPSKsecrets = k\nsslVersionMin = TLSv1.1\noptions = NO_TLSv1_2\n";
        assert!(codes(gap, "x.conf").contains(&"version-range"));
    }

    #[test]
    fn keepalive_is_ours_unless_the_tls_sides_options_speak_of_it() {
        let on =
            |global: &str, section: &str| conf(global, section).0.sockets.keepalive.value.is_some();
        assert!(on("", ""));
        assert!(!on("", "socket = l:SO_KEEPALIVE=1"));
        assert!(!on("socket = l:TCP_KEEPIDLE=180", ""));
        assert!(on("", "socket = r:SO_KEEPALIVE=1"), "the server's TLS side is the accepted one");
        assert!(!on("client = yes", "socket = r:SO_KEEPALIVE=0"));
        assert!(on("client = yes", "socket = l:SO_KEEPALIVE=0"));
        assert!(on("", "socket = l:TCP_NODELAY=0"));
        assert_eq!(toml("keepalive = false\n").0.sockets.keepalive.value, None);
    }

    #[test]
    fn the_last_word_about_a_socket_option_counts() {
        let (service, _) = conf("socket = l:IP_TTL=1\nsocket = l:IP_TOS=2", "socket = l:IP_TTL=3");
        let options: Vec<_> = service.sockets.downstream.iter().map(|d| d.value.clone()).collect();
        assert_eq!(options, [SocketOption::TimeToLive(3), SocketOption::TypeOfService(2)]);
    }

    #[test]
    fn a_server_presents_no_identity() {
        assert_eq!(codes(&native("psk-identity = \"x\"\n"), "x.toml"), ["identity-on-server"]);
        let (service, codes) = conf("", "PSKidentity = x");
        let Authentication::Psk(psk) = &service.auth;
        assert!(psk.identity.is_none());
        assert_eq!(codes, ["identity-on-server"]);
        // Among the defaults it is for the clients.
        let text = "[defaults]\npsk-identity = \"x\"\n".to_owned() + &native("");
        assert!(good(&text, "x.toml").1.is_empty());
        let (service, _) = toml("mode = \"client\"\npsk-identity = \"x\"\n");
        let Authentication::Psk(psk) = &service.auth;
        assert_eq!(psk.identity.as_ref().map(|i| i.value.as_slice()), Some(b"x".as_slice()));
    }

    #[test]
    fn a_service_cannot_connect_to_itself() {
        for body in [
            "accept = \"127.0.0.1:5\"\nconnect = \"127.0.0.1:5\"\n",
            "accept = 5\nconnect = \"127.0.0.1:5\"\n",
            "accept = 5\nconnect = 5\n",
            "accept = \"unix:a\"\nconnect = \"unix:a\"\n",
        ] {
            assert_eq!(codes(&native(body), "x.toml"), ["connects-to-itself"], "{body}");
        }
        for body in [
            "accept = \"127.0.0.1:5\"\nconnect = \"127.0.0.1:6\"\n",
            "accept = \"127.0.0.1:5\"\nconnect = \"127.0.0.2:5\"\n",
            "accept = 5\nconnect = \"plc.example:5\"\n",
            "accept = 0\nconnect = 5\n",
        ] {
            assert!(load(&native(body), "x.toml").is_ok(), "{body}");
        }
    }

    #[test]
    fn two_services_cannot_share_an_address() {
        let two = |a: &str, b: &str| {
            let one = native(&format!("accept = {a}\n"));
            one + &native(&format!("accept = {b}\n")).replace("services.s", "services.t")
        };
        assert_eq!(codes(&two("5", "5"), "x.toml"), ["address-in-use"]);
        assert_eq!(codes(&two("\"a:5\"", "\"a:5\""), "x.toml"), ["address-in-use"]);
        assert!(load(&two("0", "0"), "x.toml").is_ok());
        assert!(load(&two("5", "6"), "x.toml").is_ok());
    }

    #[test]
    fn a_global_address_is_the_first_sections_and_the_others_do_without_if_they_can() {
        let text =
            "accept = 127.0.0.1:5\nconnect = a:1\nPSKsecrets = k\n[a]\n[b]\naccept = 127.0.0.1:6\n";
        let (config, found) = good(text, "x.conf");
        assert_eq!(listens(&config.services[0]), [("127.0.0.1:5".into(), false)]);
        assert_eq!(listens(&config.services[1]), [("127.0.0.1:6".into(), false)]);
        assert_eq!(found, ["address-in-use"]);
        assert_eq!(codes(&format!("{text}[c]\n"), "x.conf"), ["address-in-use", "address-in-use"]);
    }

    #[test]
    fn a_program_takes_the_place_of_connect() {
        let text = "[s]\naccept = 1\nexec = /bin/sh\nexecArgs = sh\t-c  x\nPSKsecrets = k\n";
        let program = |text: &str, name: &str| match good(text, name).0.services.remove(0).target {
            Target::Exec(program) => program,
            Target::Connect(_) => panic!("{text}"),
        };
        let sh = program(text, "x.conf");
        assert_eq!(sh.path.value, Path::new("/bin/sh"));
        assert_eq!(
            (sh.arguments, sh.errors_to_peer),
            (vec!["sh".into(), "-c".into(), "x".into()], true)
        );
        assert!(program(&format!("foreground = quiet\n{text}"), "x.conf").errors_to_peer);
        assert!(!program(&format!("foreground = yes\n{text}"), "x.conf").errors_to_peer);
        let text = "[defaults]\nconnect = \"a:1\"\n[services.s]\nmode = \"server\"\naccept = 1\n\
                    psk-secrets = \"k\"\nexec = \"bin/x\"\nexec-args = [\"x\", \"a b\"]\n";
        let x = program(text, "x.toml");
        assert_eq!(x.path.value, Path::new("/base/bin/x"));
        assert_eq!((x.arguments, x.errors_to_peer), (vec!["x".into(), "a b".into()], false));
        assert_eq!(
            codes(&text.replace("exec =", "connect = \"b:2\"\nexec ="), "x.toml"),
            ["two-of-a-kind"]
        );
        let three = "[s]\naccept = 1\nconnect = 2\nexec = /bin/cat\nPSKsecrets = k\n";
        assert_eq!(codes(three, "x.conf"), ["missing-option"]);
        assert_eq!(codes(&three.replace("accept = 1\n", ""), "x.conf"), ["not-supported-yet"]);
    }

    #[test]
    fn a_section_with_sni_belongs_to_one_before_it() {
        let text = |sni: &str, more: &str| {
            format!(
                "connect = a:1\nPSKsecrets = k\n[p]\naccept = 1\n[c]\nclient = yes\naccept = 127.0.0.1:2\n[s]\nsni = {sni}\n{more}"
            )
        };
        let (config, found) = good(&text("p:*.Example", ""), "x.conf");
        let Source::ServerName { of, pattern } = &config.services[2].source else { panic!() };
        assert_eq!(of.value, "p");
        assert!(found.is_empty() && config.services[2].tls.server_name.is_none());
        for (name, meant) in
            [("a.example", true), (".EXAMPLE", true), ("example", false), ("", false)]
        {
            assert_eq!(pattern.matches(name.as_bytes()), meant, "{name}");
        }
        assert!(
            NamePattern::new("Plc").matches(b"pLC") && !NamePattern::new("plc").matches(b"xplc")
        );
        assert!(NamePattern::new("*").matches(b"") && NamePattern::new("*").matches(b"any"));
        for (sni, more, code) in [
            ("p", "", "server-name"),
            ("x:y", "", "server-name"),
            ("c:y", "", "server-name"),
            ("later:y", "[later]\naccept = 3\n", "server-name"),
            ("p:y", "accept = 4\n", "missing-option"),
        ] {
            assert_eq!(codes(&text(sni, more), "x.conf"), [code], "{sni}");
        }
        let native = native("server-name = \"t:*\"\n").replace("accept = \"127.0.0.1:1\"\n", "")
            + &native("").replace("services.s", "services.t");
        assert!(matches!(good(&native, "x.toml").0.services[0].source, Source::ServerName { .. }));
    }

    #[test]
    fn what_is_turned_off_is_off_whatever_a_later_line_says() {
        let turned = |lines: &str| conf("", lines).0.tls.switches;
        let preference = TlsSwitch::CipherServerPreference;
        assert_eq!(turned("options = cipher_server_preference"), [(preference, true)]);
        assert_eq!(
            turned("options = -CIPHER_SERVER_PREFERENCE\noptions = CIPHER_SERVER_PREFERENCE"),
            [(preference, true), (preference, false)]
        );
        let (service, found) =
            conf("", "options = -NO_TICKET\noptions = ALLOW_CLIENT_RENEGOTIATION");
        assert!(service.tls.switches.is_empty());
        assert_eq!(found, ["without-effect", "without-effect"]);
    }

    #[test]
    fn the_proxy_protocol_is_a_servers() {
        assert_eq!(conf("", "protocol = Proxy").0.preface.map(|p| p.value), Some(ProxyHeader::V1));
        assert_eq!(
            toml("proxy-header = \"v1\"\n").0.preface.map(|p| p.value),
            Some(ProxyHeader::V1)
        );
        let section = "[s]\naccept = 127.0.0.1:1\nconnect = 2\nPSKsecrets = k\n";
        for (line, code) in [
            ("client = yes\nprotocol = proxy\n", "proxy-header-on-client"),
            ("protocol = smtp\n", "not-supported-yet"),
            ("protocol = xyz\n", "unknown-value"),
        ] {
            assert_eq!(codes(&format!("{section}{line}"), "x.conf"), [code], "{line}");
        }
    }

    #[test]
    fn a_section_has_a_log_level_of_its_own() {
        let (service, found) = conf("debug = 3", "debug = 7");
        assert_eq!(service.log_level.map(|level| level.value), Some(Level::Debug));
        assert!(found.is_empty() && conf("debug = 3", "").0.log_level.is_none());
        let native = toml("log-level = \"debug\"\n").0;
        assert_eq!(native.log_level.map(|level| level.value), Some(Level::Debug));
    }

    #[test]
    fn an_address_that_a_section_says_twice_counts_once() {
        let text = "accept = 5\n[s]\naccept = 5\nconnect = a:1\nPSKsecrets = k\n";
        let (config, codes) = good(text, "x.conf");
        assert_eq!(listens(&config.services[0]).len(), 1);
        assert_eq!(codes, ["address-twice"]);
    }

    #[test]
    fn what_is_missing_is_told_for_each_service_and_what_is_only_wrong_is_not_missing() {
        let text = "[services.a]\nmode = \"server\"\n[services.b]\nmod = \"server\"\n\
                    accept = 70000\nconnect = 2\n";
        assert_eq!(
            codes(text, "x.toml"),
            [
                "missing-option",
                "missing-option",
                "missing-option",
                "missing-option",
                "unknown-option",
                "bad-address"
            ]
        );
        assert_eq!(
            codes("[a]\naccept = 70000\n", "x.conf"),
            ["missing-option", "missing-option", "bad-address"]
        );
    }

    #[test]
    fn reset_is_unset_until_somebody_says_it() {
        assert!(conf("", "").0.reset.is_none());
        assert_eq!(conf("", "reset = yes").0.reset.map(|r| r.value), Some(true));
        assert_eq!(toml("reset = false\n").0.reset.map(|r| r.value), Some(false));
    }

    #[test]
    fn what_asks_for_nothing_is_noticed_and_what_asks_for_something_is_refused() {
        for (line, harmless) in [
            ("fips = no", true),
            ("fips = yes", false),
            ("libwrap = no", true),
            ("verify = 0", true),
            ("verify = 2", false),
            ("verifyPeer = NO", true),
            ("verifyPeer = yes", false),
            ("CAfile = x", false),
            ("checkHost = x", false),
            ("compression = zlib", false),
            ("transparent = none", true),
            ("transparent = source", false),
            ("protocol = smtp", false),
            ("cert = x", true),
            ("logId = sequential", true),
            ("logId = unique", false),
            ("delay = yes", true),
            ("ticketKeySecret = 00", false),
            ("sessionResume = yes", true),
        ] {
            let text = format!("{line}\n[s]\naccept = 1\nconnect = 2\nPSKsecrets = k\n");
            match load(&text, "x.conf") {
                Ok((_, report)) => {
                    assert!(harmless, "{line} is accepted");
                    assert_eq!(report.diagnostics[0].code, "without-effect", "{line}");
                }
                Err(report) => assert!(!harmless, "{line}: {}", report.render(false)),
            }
        }
    }

    #[test]
    fn a_certificate_without_pre_shared_keys_is_refused() {
        let text = "[s]\naccept = 1\nconnect = 2\ncert = x\n";
        assert_eq!(codes(text, "x.conf"), ["needs-certificates"]);
    }

    #[test]
    fn the_founding_file_with_its_placeholder_starts_and_says_so() {
        let text = "client = yes\n[beremiz]\naccept = 3002\nconnect = [PLC]:3001\n\
                    PSKidentity = client1\nPSKsecrets = pskclient1.txt\n";
        assert_eq!(good(text, "x.conf").1, ["open-to-network", "bad-host-name"]);
    }

    #[test]
    fn a_file_without_a_section_is_inetd_mode() {
        let (config, _) = good("client = yes\nconnect = a:1\nPSKsecrets = k\n", "x.conf");
        assert!(matches!(config.services[0].source, Source::Stdio));
        assert_eq!(config.services[0].name.value, "stunnel");
        let loud = "foreground = yes\nconnect = a:1\nPSKsecrets = k\n";
        assert!(good(loud, "x.conf").0.log.output.is_none());
        for (wrong, code) in [
            ("accept = 1\nconnect = a:1\n", "accept-without-section"),
            ("connect = a:1\nexec = /bin/cat\n", "missing-option"),
            ("client = no\n", "missing-option"),
        ] {
            assert_eq!(codes(&format!("{wrong}PSKsecrets = k\n"), "x.conf"), [code], "{wrong}");
        }
        assert_eq!(codes("", "x.conf"), ["no-service"]);
        assert_eq!(codes("", "x.toml"), ["no-service"]);
    }
}
