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
    fn missing(&mut self, service: &DraftService, scope: &Scope<'_>) {
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
        service.accept.iter().map(|l| (l.at.value.to_string(), l.optional)).collect()
    }

    fn targets(service: &ServiceConfig) -> Vec<String> {
        service.connect.iter().map(|c| c.value.to_string()).collect()
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
        assert!(!config.process.syslog.value);
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
        assert!(config.process.syslog.value && config.process.pid.is_none());
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
        let report = load(text, "x.conf").unwrap_err();
        assert_eq!(report.diagnostics.len(), 1, "both listen on port 9: {}", report.render(false));
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
            ("chroot = /x", false),
            ("setuid = nobody", false),
            ("exec = /bin/cat", false),
            ("transparent = none", true),
            ("transparent = source", false),
            ("protocol = smtp", false),
            ("cert = x", true),
            ("logId = sequential", true),
            ("logId = unique", false),
            ("delay = yes", true),
            ("log = append", true),
            ("log = overwrite", false),
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
    fn a_file_without_a_section_is_inetd_mode_and_not_supported_yet() {
        assert_eq!(codes("connect = a:1\n", "x.conf"), ["not-supported-yet"]);
        assert_eq!(codes("", "x.conf"), ["no-service"]);
        assert_eq!(codes("", "x.toml"), ["no-service"]);
    }
}
