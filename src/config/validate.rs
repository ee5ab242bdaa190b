//! From what was said to what holds: an option's own value, else the file's for all, else the
//! dialect's default, and then whether all of it makes sense together.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Place, Report};
use super::draft::{Draft, DraftService, Side, Spanned, Value, Values};
use super::endpoint::is_host_name;
use super::model::{
    Authentication, Config, Decided, Dialect, Endpoint, Foreground, Host, Keepalive, Limits,
    Listen, LogConfig, Mode, ProcessConfig, PskConfig, ServiceConfig, SocketOption, Sockets,
    Timeouts, TlsConfig, TlsVersion,
};
use super::options::{Opt, Treatment};
use super::value;
use crate::secrets::{IdentityRule, OnDuplicate, OnLoosePermissions, Rules};

/// Decides everything. `None` only if there is an error in the report.
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
    if draft.services.is_empty() {
        check.no_service();
        return None;
    }
    let mut services = Vec::new();
    for service in &draft.services {
        services.extend(check.service(service));
    }
    check.between(&services);
    // A native file lies in its base already.
    let file = match (draft.dialect, draft.file.file_name()) {
        (Dialect::Native, Some(name)) => draft.base.join(name),
        _ => draft.base.join(&draft.file),
    };
    Some(Config {
        dialect: draft.dialect,
        file,
        log: log?,
        process: process?,
        drain_timeout: drain_timeout?,
        services,
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

/// Where a value is looked for.
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
        let syslog =
            scope.decide(Opt::Syslog, boolean).unwrap_or(Decided::default(false, self.dialect));
        Some(ProcessConfig { foreground, pid: self.path(&scope, Opt::Pid), syslog })
    }

    fn log(&mut self) -> Option<LogConfig> {
        let draft = self.draft;
        let scope = Scope { own: &draft.global, defaults: None, dialect: self.dialect };
        Some(LogConfig {
            level: scope.decide(Opt::LogLevel, |value| match value {
                Value::Level(level) => Some(*level),
                _ => None,
            })?,
            format: scope.decide(Opt::LogFormat, |value| match value {
                Value::LogFormat(format) => Some(*format),
                _ => None,
            })?,
            output: self.path(&scope, Opt::LogOutput),
        })
    }

    fn no_service(&mut self) {
        let found = match (self.dialect, self.draft.defaults.is_empty()) {
            (Dialect::Native, _) if self.draft.incomplete => return,
            (Dialect::Native, _) => Diagnostic::error("no-service", "there is no service")
                .help("add [services.NAME] with mode, accept, connect and psk-secrets"),
            (Dialect::Stunnel, true) => Diagnostic::error(
                "no-service",
                "Inetd mode: the file has no [section] and no service in it",
            )
            .help("add a [section] with accept, connect and PSKsecrets"),
            (Dialect::Stunnel, false) => Diagnostic::error(
                "not-supported-yet",
                "Inetd mode: a file without a [section] is not supported yet",
            )
            .help("put a [section] with a name before accept and connect"),
        };
        self.report.push(found);
    }

    fn service(&mut self, service: &DraftService) -> Option<ServiceConfig> {
        let draft = self.draft;
        let dialect = self.dialect;
        let scope = Scope { own: &service.values, defaults: Some(&draft.defaults), dialect };
        let head = &service.name.place;
        let secrets = self.secrets(&scope);
        self.treat(&service.values, !secrets.is_empty());
        self.section_log_level(&service.values);

        let mode = scope.decide(Opt::Mode, |value| match value {
            Value::Mode(mode) => Some(*mode),
            _ => None,
        });
        let role = mode.as_ref().map(|mode| mode.value);
        let name = Decided::said(service.name.value.clone(), head.clone());
        let accept = self.accept(&scope, role);
        let connect = self.connect(&scope);
        self.missing(service, &scope);
        self.loops(&accept, &connect);
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
            accept,
            connect,
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

    /// stunnel has a level for each section; here there is one for the process.
    fn section_log_level(&mut self, values: &Values) {
        if let Some(said) = values.last(Opt::LogLevel) {
            self.report.push(
                Diagnostic::notice(
                    "without-effect",
                    "`debug` has no effect in a section: there is one log level for the process",
                )
                .at(said.place.clone())
                .help("move it before the first [section]"),
            );
        }
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
                listens.push(Listen { at: at(endpoint), optional: false });
                continue;
            };
            let every = |ip: IpAddr| Endpoint::Tcp { host: Host::Ip(ip), port: *port };
            listens.push(Listen { at: at(every(Ipv4Addr::UNSPECIFIED.into())), optional: false });
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
    fn missing(
        &mut self,
        service: &DraftService,
        scope: &Scope<'_>,
    ) {
        if self.draft.incomplete {
            // A line that could not be read may have been the one; the next run will tell.
            return;
        }
        let head = &service.name.place;
        let shown = &service.name.value;
        if self.native() {
            for opt in [Opt::Mode, Opt::Accept, Opt::Connect, Opt::PskSecrets] {
                if scope.mentions(opt) {
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
        // These would be endpoints too, and have been refused already.
        let others = [Opt::Exec, Opt::Transparent, Opt::Protocol];
        let has_other = others.iter().any(|opt| scope.mentions(*opt));
        let lacks = |opt| !scope.mentions(opt);
        if (lacks(Opt::Accept) || lacks(Opt::Connect)) && !has_other {
            self.report.push(
                Diagnostic::error("missing-option", "Each service must define two endpoints")
                    .at(head.clone())
                    .help(if lacks(Opt::Accept) {
                        "add accept = PORT"
                    } else {
                        "add connect = HOST:PORT"
                    }),
            );
        }
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
        self.switches(scope, &mut min, &mut max);
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
        let mut server_name = scope.said(Opt::ServerName, text);
        if mode == Some(Mode::Server)
            && let Some(said) = server_name.take()
        {
            let own = scope.own.last(Opt::ServerName).is_some();
            let found = if self.native() {
                Diagnostic::error("server-name-on-server", "a server sends no name")
                    .help("remove server-name, or move it to the services of mode \"client\"")
            } else {
                Diagnostic::error(
                    "not-supported-yet",
                    "`sni` in a server section is not supported yet",
                )
                .help("give each service a port of its own")
            };
            if own || !self.native() {
                self.report.push(found.at(said.place().cloned()));
            }
        }
        Some(TlsConfig {
            min,
            max,
            ciphers: scope.decide(Opt::Ciphers, text)?,
            ciphersuites: scope.decide(Opt::Ciphersuites, text),
            groups: scope.decide(Opt::Groups, text)?,
            security_level: scope
                .said(Opt::SecurityLevel, |value| count(value).and_then(|n| u8::try_from(n).ok())),
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

    /// OpenSSL's switches: those that forbid a version narrow the range, and the rest is how it is
    /// here anyway or would weaken it.
    fn switches(
        &mut self,
        scope: &Scope<'_>,
        min: &mut Decided<TlsVersion>,
        max: &mut Decided<TlsVersion>,
    ) {
        let mut forbidden: BTreeMap<TlsVersion, Place> = BTreeMap::new();
        for said in scope.all(Opt::SslOptions) {
            let Value::Text(name) = &said.value else {
                continue;
            };
            let (on, name) = match name.strip_prefix('-') {
                Some(name) => (false, name),
                None => (true, name.as_str()),
            };
            let version = match name.to_ascii_uppercase().replace('_', ".").as_str() {
                "NO.TLSV1" => TlsVersion::Tls10,
                "NO.TLSV1.1" => TlsVersion::Tls11,
                "NO.TLSV1.2" => TlsVersion::Tls12,
                "NO.TLSV1.3" => TlsVersion::Tls13,
                "NO.SSLV2" | "NO.SSLV3" if on => continue,
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
                forbidden.remove(&version);
            }
        }
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
            return;
        };
        let Some(place) = place else { return };
        let width = order.iter().filter(|v| (first..=last).contains(v)).count();
        if width != allowed.len() {
            let found = Diagnostic::error("version-range", "the versions have a gap in the middle");
            self.report.push(found.at(place).help("use sslVersionMin and sslVersionMax"));
            return;
        }
        if *first != min.value {
            *min = Decided::said(*first, place.clone());
        }
        if *last != max.value {
            *max = Decided::said(*last, place);
        }
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
    fn between(&mut self, services: &[ServiceConfig]) {
        let mut taken: Vec<(&Listen, &str)> = Vec::new();
        for service in services {
            for listen in &service.accept {
                if matches!(listen.at.value, Endpoint::Tcp { port: 0, .. }) {
                    continue;
                }
                let same = taken.iter().find(|(l, _)| l.at.value == listen.at.value);
                // Of a port alone, the IPv4 half speaks for both.
                if let Some((_, name)) = same.filter(|(l, _)| !l.optional && !listen.optional) {
                    self.report.push(
                        Diagnostic::error(
                            "address-in-use",
                            format!("service `{name}` listens on {} already", listen.at.value),
                        )
                        .at(listen.at.place().cloned())
                        .help("give each service an address of its own"),
                    );
                }
                taken.push((listen, &service.name.value));
            }
        }
    }
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
