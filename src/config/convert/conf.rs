//! From a native file to a stunnel.conf, for pskgate and for stunnel itself.

use std::path::{Path, PathBuf};

use super::{anchored, comment, stunnel_name};
use crate::config::ciphers::expand_named_sets;
use crate::config::credential;
use crate::config::diagnostic::{Diagnostic, Diagnostics, SourceLocation};
use crate::config::endpoint::{Endpoint, Host};
use crate::config::model::{
    CipherOrder, Dialect, Keepalive, Mode, NegotiationKind, ProxyHeader, SocketOption,
};
use crate::config::options::{
    Arity, OptionId, OptionRow, StunnelScope, TABLE, TomlTable, Treatment,
};
use crate::config::parsed_file::{
    ParsedFile, ParsedSection, SocketSide, Spanned, Statement, Value, Values,
};
use crate::config::stunnel::in_comments::{self, Comment};
use crate::config::validate::speaks_of_keepalive;
use crate::config::value;

/// Writes what a native file said, and what it left to the native defaults.
pub(super) fn write(parsed: &ParsedFile, found: &Diagnostics) -> (String, Diagnostics) {
    let mut writer =
        ConfWriter { parsed, found, out: String::new(), report: Diagnostics::default() };
    writer.file();
    (writer.out, writer.report)
}

/// What each section says for itself: lists, which stunnel adds to those that hold for all, and what an
/// end of a tunnel has one of, which in a native file the section's own word takes the place of.
const EACH: &[OptionId] = &[
    OptionId::Accept,
    OptionId::Connect,
    OptionId::Exec,
    OptionId::ExecArgs,
    OptionId::ServerName,
    OptionId::Protocol,
    OptionId::PskSecrets,
    OptionId::Socket,
    OptionId::CipherOrder,
    OptionId::SslOptions,
    OptionId::Keepalive,
    OptionId::ServiceLogLevel,
    OptionId::SocketUser,
    OptionId::SocketGroup,
];

/// What decides who gets in, or whether anybody does: a file without it is not to be started by mistake. Those
/// that a comment of pskgate's carries come here when an identity has a name that no such comment can have.
const BARS: &[OptionId] = &[
    OptionId::ProxyProtocolFrom,
    OptionId::AllowFrom,
    OptionId::IdentityWire,
    OptionId::IdentityAllowFrom,
    OptionId::IdentityConnect,
    OptionId::IdentityExpires,
    OptionId::IdentityMaxSessions,
    OptionId::SocksAllowOwn,
];

struct ConfWriter<'a> {
    parsed: &'a ParsedFile,
    found: &'a Diagnostics,
    out: String,
    report: Diagnostics,
}

impl ConfWriter<'_> {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn remarks(&mut self, lines: &[String]) {
        for line in lines.iter().filter(|line| !line.is_empty()) {
            let line = comment(line);
            match in_comments::read(line.as_bytes()) {
                Comment::Plain => self.line(&line),
                // It said nothing where it stood, and says nothing here.
                _ => self.line(&format!("# - {}", line.trim_start_matches(['#', ' ']))),
            }
        }
    }

    fn option(&mut self, opt: OptionId, text: &str) {
        let name = match opt {
            OptionId::ServiceLogLevel => stunnel_name(OptionId::LogLevel.row()),
            OptionId::Negotiation => stunnel_name(OptionId::Protocol.row()),
            OptionId::SocketUser => stunnel_name(OptionId::Setuid.row()),
            OptionId::SocketGroup => stunnel_name(OptionId::Setgid.row()),
            _ => stunnel_name(opt.row()),
        };
        self.line(format!("{name} = {text}").trim_end());
    }

    fn lost(&mut self, place: SourceLocation, message: String, help: &str) {
        let found = Diagnostic::warning("no-counterpart", message).at(place).help(help);
        // What stands among the defaults is the same in every section.
        if !self.report.diagnostics.contains(&found) {
            self.report.push(found);
        }
    }

    fn file(&mut self) {
        let parsed = self.parsed;
        let name = parsed.file.file_name().unwrap_or_default().to_string_lossy();
        let name = crate::config::diagnostic::escape(&name);
        self.line(&format!("# Written anew from {name} by `pskgate convert --to stunnel`"));
        let quiet = parsed.global.last(OptionId::LogOutput).is_some();
        self.line("# A native file runs in the foreground.");
        self.option(OptionId::Foreground, if quiet { "quiet" } else { "yes" });
        for (statement, said) in parsed.global.statements() {
            self.remarks(&statement.remarks);
            if statement.index + 1 == parsed.global.all(statement.opt).len()
                || statement.opt.row().arity == Arity::List
            {
                self.global(statement.opt, said);
            }
        }
        self.unsaid(
            |row| {
                row.scope == StunnelScope::Global
                    || matches!(row.opt, OptionId::LogLevel | OptionId::ServiceName)
            },
            |opt| {
                parsed.global.mentions(opt)
                    || (opt == OptionId::LogLevel && parsed.global.mentions(OptionId::LogFacility))
            },
        );
        if !parsed.global.mentions(OptionId::WatchConfiguration) {
            self.line("; pskgate: watch-configuration = yes");
        }
        for (statement, said) in parsed.defaults.statements() {
            self.remarks(&statement.remarks);
            if !EACH.contains(&statement.opt) {
                self.either(None, &parsed.defaults, statement, said);
            }
        }
        self.identities(&parsed.defaults, "for all services");
        self.unsaid(
            |row| matches!(row.native, Some((TomlTable::Service, _))),
            |opt| EACH.contains(&opt) || parsed.defaults.mentions(opt),
        );
        // A section with sni names one that stands before it.
        let (named, first): (Vec<_>, Vec<_>) =
            parsed.services.iter().partition(|service| self.is_named(service));
        for service in first.into_iter().chain(named) {
            self.service(service);
        }
        self.remarks(&parsed.remarks);
    }

    fn last(&self, own: &Values, opt: OptionId) -> Option<Spanned<Value>> {
        own.last(opt).or_else(|| self.parsed.defaults.last(opt)).cloned()
    }

    /// A section's own list, or that of the defaults.
    fn all(&self, own: &Values, opt: OptionId) -> Vec<Spanned<Value>> {
        let values = if own.mentions(opt) { own } else { &self.parsed.defaults };
        values.all(opt).to_vec()
    }

    fn mode(&self, own: &Values) -> Mode {
        match self.last(own, OptionId::Mode).map(|said| said.value) {
            Some(Value::Mode(Mode::Client)) => Mode::Client,
            _ => Mode::Server,
        }
    }

    fn is_named(&self, service: &ParsedSection) -> bool {
        self.mode(&service.values) == Mode::Server
            && self.all(&service.values, OptionId::Accept).is_empty()
    }

    fn global(&mut self, opt: OptionId, said: &Spanned<Value>) {
        let facility =
            self.parsed.global.last(OptionId::LogFacility).map(|said| said.value.clone());
        let facility = facility
            .and_then(|value| value::stunnel(OptionId::LogFacility.row().kind, &value))
            .map(|text| text + ".");
        match opt {
            OptionId::LogFacility if self.parsed.global.last(OptionId::LogLevel).is_none() => {
                let text = facility.unwrap_or_default() + "info";
                self.option(OptionId::LogLevel, &text);
            }
            OptionId::LogFacility => {}
            OptionId::LogLevel => {
                if let Some(level) = value::stunnel(opt.row().kind, &said.value) {
                    self.option(opt, &(facility.unwrap_or_default() + &level));
                }
            }
            OptionId::WatchConfiguration | OptionId::ControlSocket => {
                self.in_comment(None, &self.parsed.global, opt, said);
            }
            _ => self.one(opt, said),
        }
    }

    /// Every default that a stunnel.conf would take otherwise.
    fn unsaid(&mut self, of: impl Fn(&OptionRow) -> bool, said: impl Fn(OptionId) -> bool) {
        let mut begun = false;
        for row in TABLE.iter().filter(|row| of(row) && !said(row.opt)) {
            if row.stunnel.is_empty()
                || row.arity == Arity::List
                || row.treatment != Treatment::Works
            {
                continue;
            }
            let meant = |dialect| {
                let text = row.default(dialect);
                value::read(row.kind, dialect, text).ok().filter(|_| !text.is_empty())
            };
            let ours = meant(Dialect::Native);
            let Some(text) = ours.as_ref().and_then(|value| value::stunnel(row.kind, value)) else {
                continue;
            };
            // stunnel's own is five minutes for each step, and pskgate's reader knows better.
            if ours == meant(Dialect::Stunnel) && row.opt != OptionId::HandshakeTimeout {
                continue;
            }
            if !begun {
                self.line("# What a native file means when it does not say, and a stunnel.conf would not:");
                begun = true;
            }
            self.option(row.opt, &text);
        }
    }

    fn service(&mut self, service: &ParsedSection) {
        let own = &service.values;
        let mode = self.mode(own);
        self.line("");
        self.remarks(&service.remarks);
        self.line(&format!("[{}]", service.name.value));
        if self.last(own, OptionId::Mode).is_none() {
            self.option(OptionId::Mode, "no");
        }
        let mut done = Vec::new();
        for (statement, said) in own.statements() {
            self.remarks(&statement.remarks);
            if EACH.contains(&statement.opt) {
                if !done.contains(&statement.opt) {
                    done.push(statement.opt);
                    self.each(statement.opt, own, mode);
                }
            } else {
                self.either(None, own, statement, said);
            }
        }
        for opt in EACH.iter().filter(|opt| !done.contains(opt)) {
            self.each(*opt, own, mode);
        }
        self.own_addresses(own, mode);
        self.identities(own, "");
    }

    /// A stunnel.conf has no way to keep SOCKS peers from this machine's own addresses.
    fn own_addresses(&mut self, own: &Values, mode: Mode) {
        let socks = Value::Negotiation(NegotiationKind::Socks);
        let is_said = self.last(own, OptionId::SocksAllowOwn).is_some();
        let spoken = self.last(own, OptionId::Negotiation).filter(|said| said.value == socks);
        if let Some(spoken) = spoken.filter(|_| mode == Mode::Server && !is_said) {
            let message =
                "a stunnel.conf connects SOCKS peers to this machine's own addresses, too";
            self.lost(spoken.place, message.to_owned(), "a warning in the log tells of each");
        }
    }

    fn each(&mut self, opt: OptionId, own: &Values, mode: Mode) {
        match opt {
            OptionId::Accept => self.accept(own),
            OptionId::Connect | OptionId::Exec | OptionId::ExecArgs => self.target(opt, own),
            OptionId::PskSecrets => self.secrets(own),
            OptionId::Socket => {
                // Keepalive comes first: a list has the last word about it.
                self.keepalive(own, mode);
                for said in self.all(own, opt) {
                    self.one(opt, &said);
                }
            }
            OptionId::Keepalive => {}
            OptionId::CipherOrder => {
                let said = self.last(own, opt).map(|said| said.value);
                let order = said.unwrap_or(Value::CipherOrder(CipherOrder::Server));
                // stunnel has a switch in place of an option, and its default is the client's order.
                if mode == Mode::Server && order == Value::CipherOrder(CipherOrder::Server) {
                    self.option(OptionId::SslOptions, "CIPHER_SERVER_PREFERENCE");
                }
            }
            OptionId::SslOptions => {
                for said in self.all(own, opt) {
                    self.one(opt, &said);
                }
            }
            OptionId::ServerName => {
                let listens = !self.all(own, OptionId::Accept).is_empty();
                if let Some(said) = self.last(own, opt).filter(|_| mode == Mode::Client || !listens)
                {
                    self.one(opt, &said);
                }
            }
            OptionId::Protocol => {
                let Some(said) = self.last(own, opt).filter(|_| mode == Mode::Server) else {
                    return;
                };
                if said.value == Value::Preface(ProxyHeader::V2) {
                    self.line("# proxy-header = \"v2\": stunnel has version 1 alone");
                    let message = "stunnel has version 1 of the PROXY protocol alone".to_owned();
                    self.lost(said.place.clone(), message, "let the backend take version 1");
                    self.option(opt, "proxy");
                } else {
                    self.one(opt, &said);
                }
            }
            _ => {
                if let Some(said) = self.last(own, opt) {
                    self.one(opt, &said);
                }
            }
        }
    }

    /// A port alone is both families. stunnel's second socket for one port fails; one for IPv6 takes IPv4
    /// as well, unless another address of the section cannot bear the option.
    fn accept(&mut self, own: &Values) {
        let all = self.all(own, OptionId::Accept);
        let port_of = |said: &Spanned<Value>| match &said.value {
            Value::Endpoint(Endpoint::Tcp { host: Host::Unspecified, port }) if *port != 0 => {
                Some(*port)
            }
            _ => None,
        };
        let only = all.iter().all(|said| port_of(said).is_some());
        for said in &all {
            let Some(port) = port_of(said) else {
                self.one(OptionId::Accept, said);
                continue;
            };
            if !only {
                self.option(OptionId::Accept, &port.to_string());
                let message =
                    format!("stunnel listens on IPv4 alone at port {port} of this section");
                self.lost(said.place.clone(), message, "give the port a section of its own");
            }
            self.option(OptionId::Accept, &format!(":::{port}"));
        }
        if only && !all.is_empty() {
            self.line("# IPv4 too:");
            self.option(OptionId::Socket, "a:IPV6_V6ONLY=no");
        }
    }

    fn target(&mut self, opt: OptionId, own: &Values) {
        let inherited = own.mentions(OptionId::Exec) && !own.mentions(OptionId::Connect);
        let connect = self.all(own, OptionId::Connect);
        let both = own.mentions(OptionId::Exec)
            && own.mentions(OptionId::Connect)
            && self.all(own, OptionId::Accept).is_empty();
        let connects = !connect.is_empty() && !inherited;
        match opt {
            OptionId::Connect if connects => {
                for said in connect {
                    self.one(opt, &said);
                }
            }
            OptionId::Exec if !connects || both => {
                if let Some(said) = self.last(own, opt) {
                    self.one(opt, &said);
                }
            }
            OptionId::ExecArgs if !connects || both => {
                let said = self.all(own, opt);
                let Some(first) = said.first() else { return };
                let words = said.iter().filter_map(|said| match &said.value {
                    Value::Arguments(words) => Some(words.clone()),
                    _ => None,
                });
                let value = Value::Arguments(words.flatten().collect());
                self.one(opt, &Spanned { value, place: first.place.clone() });
            }
            _ => {}
        }
    }

    fn secrets(&mut self, own: &Values) {
        let all = self.all(own, OptionId::PskSecrets);
        let path = |said: &Spanned<Value>| match &said.value {
            Value::Path(path) => Some(self.parsed.base.join(path)),
            _ => None,
        };
        let paths: Vec<PathBuf> = all.iter().filter_map(path).collect();
        let is_folder = |path: &PathBuf| path.is_dir() || path.to_string_lossy().ends_with('/');
        if paths.len() > 1 || paths.iter().any(is_folder) {
            for path in &paths {
                let shown = crate::config::diagnostic::escape(&path.to_string_lossy());
                self.line(&format!("# psk-secrets: {shown}"));
            }
            if let Some(said) = all.last() {
                let message =
                    "stunnel reads one key file for each section, and no directory".to_owned();
                self.lost(
                    said.place.clone(),
                    message,
                    "put all lines into one file, and name that with PSKsecrets",
                );
            }
        }
        let is_credential = |said: &Spanned<Value>| match &said.value {
            Value::Path(path) => credential::name(path).is_some(),
            _ => false,
        };
        if let Some(said) = all.first().filter(|said| is_credential(said)) {
            let message = "stunnel reads no credentials of systemd's".to_owned();
            let help = "name the file that LoadCredential= loads";
            self.lost(said.place.clone(), message, help);
        } else if let Some(said) = all.first() {
            self.one(OptionId::PskSecrets, said);
        }
    }

    /// stunnel has none by itself.
    fn keepalive(&mut self, own: &Values, mode: Mode) {
        let side = match mode {
            Mode::Client => SocketSide::Upstream,
            Mode::Server => SocketSide::Downstream,
        };
        let said = self.last(own, OptionId::Keepalive);
        let row = OptionId::Keepalive.row();
        let value = match said {
            Some(said) => Some(said.value),
            None => value::read(row.kind, Dialect::Native, row.native_default).ok(),
        };
        let sockets = self.all(own, OptionId::Socket);
        let spoken = sockets.iter().any(|said| {
            matches!(&said.value, Value::Socket(its, option) if *its == side && speaks_of_keepalive(option))
        });
        let count =
            |length: std::time::Duration| u32::try_from(length.as_secs()).unwrap_or(u32::MAX);
        let options = match value {
            Some(Value::Keepalive(Some(Keepalive { idle, interval, count: probes }))) => vec![
                SocketOption::KeepAlive(true),
                SocketOption::KeepAliveIdle(count(idle)),
                SocketOption::KeepAliveInterval(count(interval)),
                SocketOption::KeepAliveCount(probes),
            ],
            Some(Value::Keepalive(None)) if !spoken => vec![SocketOption::KeepAlive(false)],
            _ => Vec::new(),
        };
        for option in options {
            let value = Value::Socket(side, option);
            if let Some(text) = value::stunnel(OptionId::Socket.row().kind, &value) {
                self.option(OptionId::Socket, &text);
            }
        }
    }

    /// A line of its own, or a comment of pskgate's.
    fn either(
        &mut self,
        identity: Option<&str>,
        values: &Values,
        statement: &Statement,
        said: &Spanned<Value>,
    ) {
        if !in_comments::is_listed(statement.opt) {
            if identity.is_some() {
                self.without(statement.opt.row(), said);
            } else {
                self.one(statement.opt, said);
            }
        } else if statement.index == 0 {
            // All of a list stands in one line; of a single value there is one.
            self.in_comment(identity, values, statement.opt, said);
        }
    }

    /// An option of which stunnel knows nothing, in a comment that pskgate reads.
    fn in_comment(
        &mut self,
        identity: Option<&str>,
        values: &Values,
        opt: OptionId,
        said: &Spanned<Value>,
    ) {
        let row = opt.row();
        let there = value::read(row.kind, Dialect::Stunnel, row.stunnel_default).ok();
        // What the file's defaults say comes before stunnel's own default.
        let is_default = self.parsed.defaults.last(opt).is_none()
            && !row.stunnel_default.is_empty()
            && there.as_ref() == Some(&said.value);
        let texts = values.all(opt).iter().map(|said| {
            let native = || value::native(row.kind, &said.value)?.as_str().map(str::to_owned);
            value::stunnel(row.kind, &said.value).or_else(native)
        });
        let texts: Option<Vec<String>> = texts.collect();
        let key = row.name(Dialect::Native);
        let name = match identity {
            Some(identity) => format!("identities.{identity}.{key}"),
            None if opt == OptionId::ControlSocket => format!("control.{key}"),
            None => key.to_owned(),
        };
        let Some(texts) = texts.filter(|_| !is_default) else {
            self.without(row, said);
            return;
        };
        let line = format!("; pskgate: {name} = {}", texts.join(", "));
        // The name of an identity may hold what would be read in another way.
        if !in_comments::says(&line, &name) {
            self.without(row, said);
            return;
        }
        self.line(&line);
        let message =
            format!("`{name}` stands in a comment: pskgate reads it, and stunnel does not");
        if !matches!(opt, OptionId::WatchConfiguration | OptionId::ControlSocket) {
            self.lost(said.place.clone(), message, "run the new file with pskgate");
        }
    }

    fn one(&mut self, opt: OptionId, said: &Spanned<Value>) {
        let row = opt.row();
        let named = match opt {
            OptionId::ServiceLogLevel
            | OptionId::Negotiation
            | OptionId::SocketUser
            | OptionId::SocketGroup => true,
            _ => !row.stunnel.is_empty(),
        };
        if !named {
            self.without(row, said);
            return;
        }
        let value = match &said.value {
            Value::Path(path) => Value::Path(self.path(opt, path)),
            Value::Text(list) if opt == OptionId::Ciphers => Value::Text(expand_named_sets(list)),
            Value::Endpoint(Endpoint::Unix(path)) => {
                Value::Endpoint(Endpoint::Unix(self.parsed.base.join(path)))
            }
            Value::Duration(length) if length.subsec_nanos() != 0 => {
                let whole = std::time::Duration::from_secs(length.as_secs() + 1);
                let name = row.name(Dialect::Native);
                let message =
                    format!("stunnel counts whole seconds: {name} is {} s there", whole.as_secs());
                let shown = self.shown(row, said);
                self.line(&format!("# {shown}"));
                self.lost(
                    said.place.clone(),
                    message,
                    "nothing is to be done if that is good enough",
                );
                Value::Duration(whole)
            }
            other => other.clone(),
        };
        match value::stunnel(row.kind, &value) {
            Some(text) => self.option(opt, &text),
            None => {
                let name = row.name(Dialect::Native);
                let message = format!("a stunnel.conf cannot say this value of `{name}`");
                let help = "it has no blanks inside an argument and at either end of a value";
                self.report.push(
                    Diagnostic::error("no-counterpart", message).at(said.place.clone()).help(help),
                );
                self.stop(row, said);
            }
        }
    }

    fn path(&self, opt: OptionId, path: &Path) -> PathBuf {
        let jailed = self.parsed.global.last(OptionId::Chroot).is_some();
        if jailed && matches!(opt, OptionId::Pid | OptionId::LogOutput) {
            return Path::new("/").join(path);
        }
        anchored(path, &self.parsed.base, None).0
    }

    /// An option that stunnel does not have.
    fn without(&mut self, row: &OptionRow, said: &Spanned<Value>) {
        let name = row.name(Dialect::Native);
        let there = value::read(row.kind, Dialect::Stunnel, row.stunnel_default).ok();
        let same = match row.opt {
            OptionId::SocksAllowOwn => said.value == Value::Bool(true),
            _ => {
                self.parsed.defaults.last(row.opt).is_none()
                    && !row.stunnel_default.is_empty()
                    && there.as_ref() == Some(&said.value)
            }
        };
        let shown = self.shown(row, said);
        if same {
            self.line(&format!("# {shown}  # as it is in a stunnel.conf anyway"));
            return;
        }
        let message = format!("a stunnel.conf has nothing like `{name}`");
        if BARS.contains(&row.opt) {
            let help = "remove the line that is left of it if the tunnel shall do without";
            self.report.push(
                Diagnostic::error("no-counterpart", message).at(said.place.clone()).help(help),
            );
            self.stop(row, said);
        } else {
            self.line(&format!("# {shown}"));
            self.lost(
                said.place.clone(),
                message,
                "nothing is to be done if the tunnel can do without",
            );
        }
    }

    /// As a native file has it: the line itself may hold a whole list, or a part of one.
    fn shown(&self, row: &OptionRow, said: &Spanned<Value>) -> String {
        match value::native(row.kind, &said.value) {
            Some(value) => {
                let text = crate::config::diagnostic::escape(&value.to_string());
                format!("{} = {text}", row.name(Dialect::Native))
            }
            None => self.found.line(&said.place),
        }
    }

    /// A line that both programs refuse.
    fn stop(&mut self, row: &OptionRow, said: &Spanned<Value>) {
        let (name, shown) = (row.name(Dialect::Native), self.shown(row, said));
        self.line(&format!("# {shown}  # remove the next line if you can do without it"));
        self.line(&format!("{name} = (pskgate)"));
    }

    fn identities(&mut self, own: &Values, whose: &str) {
        for part in &own.identities {
            self.remarks(&part.remarks);
            let name = crate::config::diagnostic::escape(&part.name.value);
            self.line(format!("# the rules for {name} {whose}").trim_end());
            for (statement, said) in part.values.statements() {
                self.remarks(&statement.remarks);
                self.either(Some(&part.name.value), &part.values, statement, said);
            }
        }
    }
}
