//! What a file comes to: every option of every service with its value, and who decided it.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::diagnostic::{SourceLocation, escape};
use super::model::{
    Config, ConnectionSource, Dialect, Endpoint, Host, HttpConnect, IdentityConfig, Listen, Mode,
    Negotiation, NegotiationKind, OnRevocation, Origin, Program, Resolved, ServiceConfig, Target,
    Variable,
};
use super::options::OptionId;
use super::parsed_file::Value;
use super::value;
use crate::secrets::KeyFileWriter;

/// The resulting configuration in the words of its own dialect, for a person. Key files are named,
/// and nothing of what is in them is.
pub fn describe(config: &Config) -> String {
    let mut page = EffectivePage { config, out: String::new() };
    page.process();
    for service in &config.services {
        page.service(service);
    }
    page.out
}

struct EffectivePage<'a> {
    config: &'a Config,
    out: String,
}

/// The column in which it says who decided.
const WHO: usize = 56;

impl EffectivePage<'_> {
    fn dialect(&self) -> Dialect {
        self.config.dialect
    }

    fn line(&mut self, name: &str, value: impl Display, who: &str) {
        let said = format!("  {name} = {}", escape(&value.to_string()));
        let _ = writeln!(self.out, "{said:WHO$}  # {who}");
    }

    fn who(&self, origin: &Origin) -> String {
        match origin {
            Origin::Said(place) => self.place(place),
            Origin::Default(Dialect::Native) => "default".into(),
            Origin::Default(Dialect::Stunnel) => "stunnel's default".into(),
        }
    }

    fn place(&self, place: &SourceLocation) -> String {
        let shared = if self.config.shared.contains(place) { ", for all services" } else { "" };
        format!("{}:{}{shared}", escape(&place.file.to_string_lossy()), place.line)
    }

    fn show<T>(&mut self, opt: OptionId, decided: &Resolved<T>, value: impl Display) {
        let who = self.who(&decided.origin);
        self.line(opt.name(self.dialect()), value, &who);
    }

    /// An option that may be unset, and what holds then.
    fn maybe<T>(
        &mut self,
        opt: OptionId,
        decided: Option<&Resolved<T>>,
        unset: &str,
        value: impl Fn(&T) -> String,
    ) {
        match decided {
            Some(decided) => self.show(opt, decided, value(&decided.value)),
            None => self.line(opt.name(self.dialect()), format_args!("({unset})"), "unset"),
        }
    }

    /// An option's value that is one of a few words.
    fn word(&self, opt: OptionId, value: Value) -> &'static str {
        value::word(opt.row().kind, self.dialect(), &value).unwrap_or("?")
    }

    fn no_word(&self) -> &'static str {
        self.word(OptionId::Sandbox, Value::Bool(false))
    }

    fn show_word<T: Copy>(&mut self, opt: OptionId, decided: &Resolved<T>, value: fn(T) -> Value) {
        let word = self.word(opt, value(decided.value));
        self.show(opt, decided, word);
    }

    fn time(&self, length: Duration) -> String {
        const FOR_EVER: u64 = 99 * 365 * 86_400;
        let seconds = length.as_secs();
        match (self.dialect(), seconds) {
            (Dialect::Stunnel, FOR_EVER..) => "-1".into(),
            (Dialect::Stunnel, _) => seconds.to_string(),
            (Dialect::Native, _) if length.subsec_millis() != 0 => {
                format!("{}ms", length.as_millis())
            }
            (Dialect::Native, 0) => "0s".into(),
            (Dialect::Native, n) if n % 3_600 == 0 => format!("{}h", n / 3_600),
            (Dialect::Native, n) if n % 60 == 0 => format!("{}m", n / 60),
            (Dialect::Native, n) => format!("{n}s"),
        }
    }

    fn process(&mut self) {
        let config = self.config;
        let file = escape(&config.file.to_string_lossy());
        let _ = writeln!(self.out, "{file}");
        let (log, process) = (&config.log, &config.process);
        self.show_word(OptionId::LogLevel, &log.level, Value::Level);
        self.show_word(OptionId::LogFormat, &log.format, Value::LogFormat);
        let path = |path: &std::path::PathBuf| path.display().to_string();
        self.maybe(OptionId::LogOutput, log.output.as_ref(), "standard error", path);
        self.show_word(OptionId::LogMode, &log.overwrite, Value::Bool);
        if self.dialect() == Dialect::Native {
            let most = log.max_size.as_ref();
            self.maybe(OptionId::LogMaxSize, most, "it grows on", |bytes| {
                value::with_prefix(*bytes)
            });
        }
        self.show_word(OptionId::Syslog, &log.syslog, Value::Bool);
        self.show(OptionId::ServiceName, &log.ident, &log.ident.value);
        self.show_word(OptionId::Foreground, &process.foreground, Value::Foreground);
        self.maybe(OptionId::Pid, process.pid.as_ref(), "none", path);
        self.maybe(OptionId::Chroot, process.chroot.as_ref(), "none", path);
        let (account, started) = (&process.account, "as it is started");
        self.maybe(OptionId::Setuid, account.user.as_ref(), started, Clone::clone);
        self.maybe(OptionId::Setgid, account.group.as_ref(), started, Clone::clone);
        self.sandbox();
        self.show(OptionId::Threads, &process.threads, process.threads.value);
        let drain = self.time(config.drain_timeout.value);
        self.show(OptionId::DrainTimeout, &config.drain_timeout, drain);
        let watch = &config.watch_configuration;
        self.show_word(OptionId::WatchConfiguration, watch, Value::Bool);
        self.outside();
    }

    /// One that a service undoes is none.
    fn sandbox(&mut self) {
        let said = &self.config.process.sandbox;
        let name = OptionId::Sandbox.name(self.dialect());
        let services = &self.config.services;
        let program = services.iter().find_map(ServiceConfig::program);
        let whose = services.iter().map(|service| &service.transparent);
        if let Some(whose) = whose.clone().find(|whose| said.value && whose.value.source()) {
            let who = format!("because of transparent, {}", self.who(&whose.origin));
            return self.line(name, self.no_word(), &who);
        }
        match program.filter(|_| said.value) {
            Some(program) => {
                let who = format!("because of exec, {}", self.who(&program.path.origin));
                self.line(name, self.no_word(), &who);
            }
            None => self.show_word(OptionId::Sandbox, said, Value::Bool),
        }
    }

    fn outside(&mut self) {
        let (control, http) = (&self.config.control, &self.config.http);
        if self.dialect() == Dialect::Stunnel {
            return;
        }
        let _ = writeln!(self.out, "\n[control]");
        self.show_word(OptionId::Control, &control.enabled, Value::Bool);
        let named = "named after this file, in the runtime directory";
        self.maybe(OptionId::ControlSocket, control.socket.as_ref(), named, |path| {
            path.display().to_string()
        });
        self.show(OptionId::ControlMode, &control.mode, format_args!("{:04o}", control.mode.value));
        self.maybe(
            OptionId::ControlGroup,
            control.group.as_ref(),
            "the process's own",
            Clone::clone,
        );
        for user in &control.users {
            self.show(OptionId::ControlUsers, user, &user.value);
        }
        for at in &http.listen {
            self.show(OptionId::HttpListen, at, &at.value);
        }
    }

    fn service(&mut self, service: &ServiceConfig) {
        let place = service.name.place().map(|place| format!("  # {}", self.place(place)));
        let name = escape(&service.name.value);
        let _ = writeln!(self.out, "\n[{name}]{}", place.unwrap_or_default());
        self.show_word(OptionId::Mode, &service.mode, Value::Mode);
        self.source(service);
        match &service.target {
            Target::Connect(targets) => {
                for target in targets {
                    self.show(OptionId::Connect, target, &target.value);
                }
                self.show_word(OptionId::Failover, &service.failover, Value::Failover);
                let chosen = "the system chooses";
                self.maybe(OptionId::Local, service.local.as_ref(), chosen, |host| match host {
                    Host::Unspecified => "*".into(),
                    Host::Ip(ip) => ip.to_string(),
                    Host::Name(name) => name.clone(),
                });
            }
            Target::Exec(program) => self.program(program),
            Target::Asked => self.line(
                OptionId::Connect.name(self.dialect()),
                "(what each peer asks for)",
                "because of socks",
            ),
            Target::Original => self.line(
                OptionId::Connect.name(self.dialect()),
                "(where each connection was meant to go)",
                "because of transparent",
            ),
        }
        self.around(service);
        if let Some(preface) = &service.preface {
            self.show_word(OptionId::Protocol, preface, Value::Preface);
        }
        if let Some(said) = &service.log_level {
            self.show_word(OptionId::ServiceLogLevel, said, Value::Level);
        }
        self.show_word(OptionId::LogId, &service.log_id, Value::LogId);
        self.keys(service);
        self.tls(service);
        self.clocks(service);
        self.sockets(service);
        for identity in &service.identities {
            self.identity(service, identity);
        }
    }

    fn identity(&mut self, service: &ServiceConfig, identity: &IdentityConfig) {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let name = escape(&shown(&identity.name.value));
        let who = self.who(&identity.name.origin);
        let _ =
            writeln!(self.out, "\n[{}.identities.{name}]  # {who}", escape(&service.name.value));
        for wire in &identity.wire {
            self.show(OptionId::IdentityWire, wire, shown(&wire.value));
        }
        for range in &identity.allow_from {
            self.show(OptionId::IdentityAllowFrom, range, range.value);
        }
        for target in &identity.connect {
            self.show(OptionId::IdentityConnect, target, &target.value);
        }
        if let Some(limit) = &identity.max_sessions {
            self.show(OptionId::IdentityMaxSessions, limit, limit.value);
        }
        if let Some(end) = &identity.expires {
            self.show(OptionId::IdentityExpires, end, end.value);
        }
    }

    fn around(&mut self, service: &ServiceConfig) {
        self.show_word(OptionId::Transparent, &service.transparent, Value::Transparent);
        let Some(said) = &service.negotiation else { return };
        let (spoken, connect) = match &said.value {
            Negotiation::Socks => (NegotiationKind::Socks, None),
            Negotiation::Connect(connect) => (NegotiationKind::Connect, Some(connect)),
        };
        let word = self.word(OptionId::Negotiation, Value::Negotiation(spoken));
        let opt = match self.dialect() {
            Dialect::Native => OptionId::Negotiation,
            Dialect::Stunnel => OptionId::Protocol,
        };
        self.show(opt, said, word);
        if matches!(service.target, Target::Asked) {
            self.show_word(OptionId::SocksAllowOwn, &service.socks_allow_own, Value::Bool);
        }
        let Some(HttpConnect { host, credentials, headers }) = connect else { return };
        let who = "in the file";
        self.line(OptionId::ProtocolHost.name(self.dialect()), host, who);
        if let Some((user, _)) = credentials {
            self.line(OptionId::ProtocolUsername.name(self.dialect()), user, who);
            self.line(OptionId::ProtocolPassword.name(self.dialect()), "...", who);
        }
        for header in headers {
            let name = header.split(':').next().unwrap_or_default();
            self.line(
                OptionId::ProtocolHeader.name(self.dialect()),
                format_args!("{name}: ..."),
                who,
            );
        }
    }

    fn program(&mut self, program: &Program) {
        self.show(OptionId::Exec, &program.path, program.path.value.display());
        let who = self.who(&program.path.origin);
        let arguments = program.arguments.join(" ");
        self.line(OptionId::ExecArgs.name(self.dialect()), arguments, &who);
        self.show_word(OptionId::Pty, &program.pty, Value::Bool);
        for Variable { name, value } in &program.environment {
            // A value may be a password.
            let shown = if value.is_some() { format!("{name}=...") } else { format!("{name}=") };
            self.line(OptionId::SetEnv.name(self.dialect()), shown, "in the file");
        }
    }

    fn source(&mut self, service: &ServiceConfig) {
        match &service.source {
            ConnectionSource::Listeners(listens) => {
                for listen in listens {
                    self.show(OptionId::Accept, &listen.at, &listen.at.value);
                }
                let local = |listen: &Listen| matches!(listen.at.value, Endpoint::Unix(_));
                if listens.iter().any(local) {
                    let (user, group) = match self.dialect() {
                        Dialect::Native => (OptionId::SocketUser, OptionId::SocketGroup),
                        Dialect::Stunnel => (OptionId::Setuid, OptionId::Setgid),
                    };
                    let own = "the process's own";
                    self.maybe(user, service.owner.user.as_ref(), own, Clone::clone);
                    self.maybe(group, service.owner.group.as_ref(), own, Clone::clone);
                }
            }
            ConnectionSource::Program { program, retry } => {
                self.program(program);
                let pause = match (retry.value, self.dialect()) {
                    (None, _) => self.no_word().into(),
                    (Some(pause), Dialect::Stunnel) => pause.as_millis().to_string(),
                    (Some(pause), Dialect::Native) => self.time(pause),
                };
                self.show(OptionId::Retry, retry, pause);
            }
            ConnectionSource::Stdio => {
                self.line(
                    OptionId::Accept.name(self.dialect()),
                    "(standard input and output)",
                    "inetd",
                );
            }
            ConnectionSource::ServerName { of, pattern } => {
                self.show(OptionId::ServerName, of, format_args!("{}:{pattern}", of.value));
            }
        }
    }

    fn keys(&mut self, service: &ServiceConfig) {
        let psk = &service.psk;
        let mut files = psk.secrets.iter();
        if psk.rules.writer == KeyFileWriter::Ide
            && let Some(project) = files.next()
        {
            self.show(OptionId::BeremizProject, project, project.value.display());
        }
        for file in files {
            self.show(OptionId::PskSecrets, file, file.value.display());
        }
        if service.mode.value == Mode::Server {
            let (runtime, waits) = (&psk.runtime_file, &psk.wait_for_keys);
            self.show_word(OptionId::RuntimeFile, runtime, Value::Bool);
            self.show_word(OptionId::WaitForKeys, waits, Value::Bool);
        }
        if service.mode.value == Mode::Client {
            let first = "the first of the key file";
            self.maybe(OptionId::PskIdentity, psk.identity.as_ref(), first, |identity| {
                String::from_utf8_lossy(identity).into_owned()
            });
        }
        self.show_word(OptionId::PskHash, &psk.hash, Value::Hash);
        self.show_word(OptionId::AllowSharedKeys, &psk.allow_shared_keys, Value::Bool);
    }

    fn tls(&mut self, service: &ServiceConfig) {
        let tls = &service.tls;
        let version = |version| Value::Version(Some(version));
        self.show_word(OptionId::TlsMin, &tls.min, version);
        self.show_word(OptionId::TlsMax, &tls.max, version);
        self.show(OptionId::Ciphers, &tls.ciphers, &tls.ciphers.value);
        if service.mode.value == Mode::Server {
            self.show_word(OptionId::CipherOrder, &tls.cipher_order, Value::CipherOrder);
        }
        let suites = "by the key's hash and this processor";
        self.maybe(OptionId::Ciphersuites, tls.ciphersuites.as_ref(), suites, Clone::clone);
        self.show(OptionId::Groups, &tls.groups, &tls.groups.value);
        let level = tls.security_level.as_ref();
        self.maybe(OptionId::SecurityLevel, level, "OpenSSL's own", u8::to_string);
        for (switch, on) in &tls.switches {
            let off = if *on { "" } else { "-" };
            let name = OptionId::SslOptions.name(self.dialect());
            self.line(name, format_args!("{off}{switch:?}"), "in the file");
        }
        self.resumption(service);
        if service.mode.value == Mode::Client {
            let host = "the host it connects to";
            self.maybe(OptionId::ServerName, tls.server_name.as_ref(), host, |name| {
                if name.is_empty() { "(none is sent)".into() } else { name.clone() }
            });
        }
    }

    fn resumption(&mut self, service: &ServiceConfig) {
        let how = &service.tls.resumption;
        self.show_word(OptionId::SessionResume, &how.enabled, Value::Bool);
        let timeout = self.time(how.timeout.value);
        self.show(OptionId::SessionCacheTimeout, &how.timeout, timeout);
        self.show(OptionId::SessionCacheSize, &how.cache_size, how.cache_size.value);
        match (service.mode.value, &how.secret) {
            (Mode::Client, _) => {}
            (Mode::Server, Some(secret)) => {
                for (opt, half) in [
                    (OptionId::TicketKeySecret, &secret.key),
                    (OptionId::TicketMacSecret, &secret.mac),
                ] {
                    self.show(opt, half, format_args!("({} bytes)", half.value.len()));
                }
            }
            (Mode::Server, None) => {
                self.maybe::<()>(OptionId::TicketKeySecret, None, "random", |()| String::new());
            }
        }
    }

    fn clocks(&mut self, service: &ServiceConfig) {
        let clocks = &service.timeouts;
        for (opt, clock) in [
            (OptionId::HandshakeTimeout, &clocks.handshake),
            (OptionId::ConnectTimeout, &clocks.connect),
            (OptionId::IdleTimeout, &clocks.idle),
            (OptionId::CloseTimeout, &clocks.close),
        ] {
            let length = self.time(clock.value);
            self.show(opt, clock, length);
        }
        // A stunnel.conf has them in comments, if at all.
        let has_restrictions = self.dialect() == Dialect::Native || self.config.in_comments > 0;
        if has_restrictions {
            let lifetime = clocks.lifetime.as_ref();
            let length = lifetime.map(|lifetime| self.time(lifetime.value)).unwrap_or_default();
            self.maybe(OptionId::SessionLifetime, lifetime, "no end", |_| length.clone());
            let rekey_after = &service.tls.rekey_after;
            self.show(OptionId::RekeyAfter, rekey_after, value::rekey_after(rekey_after.value));
        }
        let limits = &service.limits;
        let derived = "from memory and the limit on open files";
        self.maybe(OptionId::MaxSessions, limits.max_sessions.as_ref(), derived, u32::to_string);
        if has_restrictions {
            let none = "no limit of its own";
            self.maybe(OptionId::MaxPerSource, limits.per_source.as_ref(), none, u32::to_string);
            self.maybe(
                OptionId::MaxPerIdentity,
                limits.per_identity.as_ref(),
                none,
                u32::to_string,
            );
            self.show_word(OptionId::WhenFull, &limits.when_full, Value::WhenFull);
            if limits.max_sessions.as_ref().is_some_and(|most| most.value == 1) {
                let pause = self.time(limits.backend_pause.value);
                self.show(OptionId::BackendPause, &limits.backend_pause, pause);
            }
            let what = match service.on_revocation.value {
                OnRevocation::Cut => "cut".into(),
                OnRevocation::Keep => "keep".into(),
                OnRevocation::Grace(grace) => self.time(grace),
            };
            self.show(OptionId::OnRevocation, &service.on_revocation, what);
            for range in &service.allow_from {
                self.show(OptionId::AllowFrom, range, range.value);
            }
            for proxy in &service.proxies {
                self.show(OptionId::ProxyProtocolFrom, proxy, proxy.value);
            }
        }
        self.maybe(
            OptionId::MaxHandshakes,
            limits.max_handshakes.as_ref(),
            derived,
            u32::to_string,
        );
    }

    fn sockets(&mut self, service: &ServiceConfig) {
        let sockets = &service.sockets;
        let text = match sockets.keepalive.value {
            Some(keepalive) => value::probes(keepalive),
            None => "off".into(),
        };
        self.show(OptionId::Keepalive, &sockets.keepalive, text);
        let native = self.dialect() == Dialect::Native;
        for (list, long, short) in [
            (&sockets.accept, "accept", "a"),
            (&sockets.downstream, "downstream", "l"),
            (&sockets.upstream, "upstream", "r"),
        ] {
            let side = if native { long } else { short };
            for option in list {
                let text = format!("{side}:{}", value::socket_option(&option.value));
                self.show(OptionId::Socket, option, text);
            }
        }
        let table = "by how the connection ended";
        let word = |reset: &bool| self.word(OptionId::Reset, Value::Bool(*reset)).to_owned();
        let reset = service.reset.as_ref().map(|reset| word(&reset.value)).unwrap_or_default();
        self.maybe(OptionId::Reset, service.reset.as_ref(), table, |_| reset.clone());
    }
}
