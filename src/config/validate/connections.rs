//! Where a service's connections come from, and where they go.

use super::*;
use crate::config::model::{Foreground, Program, Variable};

/// Why what is said of a proxy has no effect.
const UNASKED: &str = "no proxy is configured";

impl Checker<'_> {
    pub(super) fn source(
        &mut self,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
    ) -> Option<ConnectionSource> {
        if self.is_inetd() {
            return Some(ConnectionSource::Stdio);
        }
        if self.is_from_program(scope, mode) {
            let program = self.program(scope)?;
            let retry = scope.decide_or(OptionId::Retry, None);
            return Some(ConnectionSource::Program { program, retry });
        }
        let listens = self.accept(scope, mode);
        if !listens.is_empty() {
            return Some(ConnectionSource::Listeners(listens));
        }
        let said =
            scope.said::<String>(OptionId::ServerName).filter(|_| mode == Some(Mode::Server))?;
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
    pub(super) fn is_from_program(&self, scope: &ValueLookup<'_>, mode: Option<Mode>) -> bool {
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
    pub(super) fn report_without_use(
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

    /// `None` if nothing was said that could be read; `report_missing` has told.
    pub(super) fn target(
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

    pub(super) fn program(&self, scope: &ValueLookup<'_>) -> Option<Program> {
        let path = self.path(scope, OptionId::Exec)?;
        let said = match self.dialect {
            Dialect::Native => scope.all(OptionId::ExecArgs),
            Dialect::Stunnel => scope.last(OptionId::ExecArgs).into_iter().collect(),
        };
        let words = said.into_iter().filter_map(|said| match &said.value {
            Value::Arguments(words) => Some(words.clone()),
            _ => None,
        });
        let mut arguments: Vec<String> = words.flatten().collect();
        if arguments.is_empty() {
            arguments.push(path.value.to_string_lossy().into_owned());
        }
        let global =
            ValueLookup { own: &self.parsed.global, defaults: None, dialect: self.dialect };
        let foreground = global.last(OptionId::Foreground).map(|said| &said.value);
        let errors_to_peer =
            !self.native() && foreground != Some(&Value::Foreground(Foreground::Yes));
        let pty = scope.decide_or(OptionId::Pty, false);
        let environment = global.list::<Variable>(OptionId::SetEnv).into_iter();
        let environment = environment.map(|variable| variable.value).collect();
        Some(Program { path, arguments, errors_to_peer, pty, environment })
    }
}
