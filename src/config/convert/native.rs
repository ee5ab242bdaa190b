//! From a stunnel.conf to a native file.

use std::collections::BTreeSet;
use std::path::Path;

use toml_edit::Key;

use super::{comment, original};
use crate::config::diagnostic::{Diagnostic, Diagnostics, SourceLocation};
use crate::config::endpoint::Endpoint;
use crate::config::model::{Dialect, Foreground, Mode, NegotiationKind};
use crate::config::options::{Arity, OptionId, OptionRow, TABLE, TomlTable, Treatment};
use crate::config::parsed_file::{ParsedFile, ParsedSection, SocketSide, Spanned, Value, Values};
use crate::config::validate::{replaces_inherited, speaks_of_keepalive};
use crate::config::value;
use option::replaced_in;

mod option;

/// Writes what a stunnel.conf said, and what it left to stunnel's defaults.
pub(super) fn write(
    parsed: &ParsedFile,
    found: &Diagnostics,
    home: Option<&Path>,
    unit_logs: Option<&Path>,
) -> (String, Diagnostics) {
    let (out, report) = (String::new(), Diagnostics::default());
    let (taken, names) = (Vec::new(), Vec::new());
    let mut writer = NativeWriter {
        parsed,
        found,
        home,
        unit_logs,
        out,
        report,
        taken,
        names,
        moved: BTreeSet::new(),
        anchored: false,
        told: None,
    };
    writer.file();
    (writer.out, writer.report)
}

struct NativeWriter<'a> {
    parsed: &'a ParsedFile,
    found: &'a Diagnostics,
    home: Option<&'a Path>,
    unit_logs: Option<&'a Path>,
    out: String,
    report: Diagnostics,
    /// The addresses of the services so far: in a stunnel.conf, the first that names one has it.
    taken: Vec<Endpoint>,
    /// What the sections are called: there, and here.
    names: Vec<(String, String)>,
    /// Options of which a section unsays what is said for all: each section says them itself.
    moved: BTreeSet<OptionId>,
    /// Whether a relative name was joined to the directory of the start.
    anchored: bool,
    /// The line whose comment was written last.
    told: Option<SourceLocation>,
}

impl NativeWriter<'_> {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn remarks(&mut self, lines: &[String]) {
        for line in lines {
            // One empty line parts as well as several.
            if !(line.is_empty() && (self.out.ends_with("\n\n") || self.out.ends_with("]\n"))) {
                self.line(&comment(line));
            }
        }
    }

    fn head(&mut self, name: &str) {
        if !self.out.ends_with("\n\n") {
            self.line("");
        }
        self.line(&format!("[{name}]"));
    }

    fn key(&mut self, key: &str, value: &toml_edit::Value, note: Option<&str>) {
        let note = note.map(|note| format!("  # {note}")).unwrap_or_default();
        self.line(&format!("{key} = {value}{note}"));
    }

    /// A line of the old file that has no line here, and why.
    fn aside(&mut self, place: &SourceLocation, why: &str) {
        // `sslVersion` is two options in one line.
        if self.told.as_ref() != Some(place) {
            let text = format!("# {}  # {why}", original(self.found, place));
            self.line(text.trim_end());
            self.told = Some(place.clone());
        }
    }

    fn changed(
        &mut self,
        place: impl Into<Option<SourceLocation>>,
        message: impl Into<String>,
        help: &str,
    ) {
        let found = Diagnostic::warning("different-meaning", message).at(place);
        self.report.push(found.help(help));
    }

    fn file(&mut self) {
        let parsed = self.parsed;
        let name = parsed.file.file_name().unwrap_or_default().to_string_lossy();
        let name = crate::config::diagnostic::escape(&name);
        self.line(&format!(
            "# {name}, written anew by `pskgate convert`: it means what it meant there."
        ));
        self.line("# `pskgate check --effective` shows what each line comes to.");
        self.line("");
        self.remarks(&parsed.preamble);
        if !parsed.preamble.is_empty() {
            self.line("");
        }
        self.clear_defaults();
        self.name_services();
        self.top();
        self.log();
        self.defaults();
        for (service, name) in parsed.services.iter().zip(self.names.clone()) {
            self.service(service, &name.1);
        }
        self.line("");
        self.remarks(&parsed.remarks);
        self.out.truncate(self.out.trim_end().len());
        self.out.push('\n');
        if self.anchored {
            let message = format!(
                "relative names were taken from {}, where it is taken for granted that stunnel was \
                 started",
                parsed.base.display()
            );
            let help = "say --start-directory if it was another; here they begin at the folder of the file";
            self.report.push(Diagnostic::notice("written-out", message).help(help));
        }
        if let Some(place) = self.found.included.values().next() {
            let message =
                "what the included files say stands in the new file: they are not read any more";
            let found = Diagnostic::notice("written-out", message).at(place.clone());
            self.report.push(found.help(
                "a native file includes nothing; key files can still be added to a directory",
            ));
        }
    }

    /// stunnel's `all` unsays a bound; a native file has no word for that.
    fn clear_defaults(&mut self) {
        let unsays = |values: &Values, opt| {
            matches!(values.last(opt), Some(Spanned { value: Value::Version(None), .. }))
        };
        for opt in [OptionId::TlsMin, OptionId::TlsMax] {
            let said = self.parsed.defaults.last(opt).is_some();
            if said && self.parsed.services.iter().any(|service| unsays(&service.values, opt)) {
                self.moved.insert(opt);
            }
        }
        for opt in [OptionId::Protocol, OptionId::Negotiation] {
            let replaced = |service: &ParsedSection| {
                rival(opt).is_some_and(|other| service.values.mentions(other))
            };
            if self.parsed.defaults.mentions(opt) && self.parsed.services.iter().any(replaced) {
                self.moved.insert(opt);
            }
        }
    }

    /// Two tables cannot have one name, and a name is shown in every log line.
    fn name_services(&mut self) {
        for service in &self.parsed.services {
            let old = &service.name.value;
            let plain: String = old.chars().filter(|c| !c.is_control()).collect();
            let mut plain = plain;
            while plain.len() > 120 {
                plain.pop();
            }
            let stem = if plain.is_empty() { "service".to_owned() } else { plain };
            let free =
                |name: &str, names: &[(String, String)]| names.iter().all(|(_, n)| n != name);
            let mut new = stem.clone();
            let mut number = 2;
            while !free(&new, &self.names) {
                new = format!("{stem}-{number}");
                number += 1;
            }
            if new != *old {
                let message = format!("this service is called {new} here, in logs and figures too");
                let help = "a native file has no two services of one name, and none without one";
                self.changed(service.name.place.clone(), message, help);
            }
            self.names.push((old.clone(), new));
        }
    }

    fn top(&mut self) {
        let parsed = self.parsed;
        let is_here =
            |row: &OptionRow| !matches!(row.native, Some((table, _)) if table != TomlTable::Top);
        for (statement, said) in parsed.global.statements() {
            if is_here(statement.opt.row()) {
                self.statement(&parsed.global, statement, said);
            }
        }
        for (statement, said) in parsed.defaults.statements() {
            if matches!(statement.opt, OptionId::Setuid | OptionId::Setgid) {
                self.statement(&parsed.defaults, statement, said);
            }
        }
        self.unsaid(TomlTable::Top, |opt| parsed.global.mentions(opt));
        if self.unit_logs.is_some() {
            // As systemd starts it.
            return;
        }
        let said = parsed.global.last(OptionId::Foreground);
        let kept = parsed.global.last(OptionId::LogOutput);
        let (message, help) = match said.map(|said| &said.value) {
            Some(Value::Foreground(Foreground::Yes)) if kept.is_none() => return,
            Some(Value::Foreground(Foreground::Yes)) => (
                "with a file to log to, nothing is logged to standard error as well",
                "leave out [log] output for standard error alone",
            ),
            Some(Value::Foreground(Foreground::Quiet)) if kept.is_some() => return,
            Some(Value::Foreground(Foreground::Quiet)) => (
                "in the foreground, what goes to no file is logged to standard error",
                "send standard error to /dev/null, or name a file with [log] output",
            ),
            _ => (
                "a native file runs in the foreground",
                "let what starts it put it into the background: systemd, or start-stop-daemon with --background",
            ),
        };
        self.changed(said.map(|said| said.place.clone()), message, help);
        if said.is_none() {
            self.line("# A stunnel.conf goes into the background by default; a native file runs in the foreground.");
        }
    }

    fn log(&mut self) {
        let parsed = self.parsed;
        self.head("log");
        for (statement, said) in parsed.global.statements() {
            if matches!(statement.opt.row().native, Some((TomlTable::Log, _))) {
                self.statement(&parsed.global, statement, said);
            }
        }
        for (statement, said) in parsed.defaults.statements() {
            if statement.opt == OptionId::ServiceName {
                self.statement(&parsed.defaults, statement, said);
            }
        }
        self.unsaid(TomlTable::Log, |opt| {
            parsed.global.mentions(opt) || parsed.defaults.mentions(opt)
        });
    }

    fn defaults(&mut self) {
        let parsed = self.parsed;
        self.head("defaults");
        for (statement, said) in parsed.defaults.statements() {
            if !matches!(statement.opt, OptionId::Setuid | OptionId::Setgid | OptionId::ServiceName)
            {
                self.statement(&parsed.defaults, statement, said);
            }
        }
        self.unsaid(TomlTable::Service, |opt| parsed.defaults.mentions(opt));
        self.identities("defaults", &parsed.defaults);
    }

    /// Every default that a native file would take otherwise.
    fn unsaid(&mut self, table: TomlTable, said: impl Fn(OptionId) -> bool) {
        let mut begun = false;
        for row in TABLE {
            let Some((_, key)) = row.native.filter(|(its, _)| *its == table) else { continue };
            if row.arity == Arity::List || row.treatment != Treatment::Works || said(row.opt) {
                continue;
            }
            let meant = |dialect| {
                let text = row.default(dialect);
                value::read(row.kind, dialect, text).ok().filter(|_| !text.is_empty())
            };
            let theirs = meant(Dialect::Stunnel);
            let Some(value) = theirs.as_ref().and_then(|value| value::native(row.kind, value))
            else {
                continue;
            };
            if theirs == meant(Dialect::Native) {
                continue;
            }
            if !begun {
                self.line("# What a stunnel.conf means when it does not say, and a native file would not:");
                begun = true;
            }
            self.key(key, &value, None);
        }
    }

    fn service(&mut self, service: &ParsedSection, name: &str) {
        let values = &service.values;
        if service.remarks.first().is_none_or(|line| !line.is_empty()) {
            self.line("");
        }
        self.remarks(&service.remarks);
        self.line(&format!("[services.{}]", Key::new(name)));
        let mode = self.mode(values);
        if !values.mentions(OptionId::Accept) {
            self.accept(values);
        }
        for (statement, said) in values.statements() {
            match statement.opt {
                OptionId::Accept if statement.index == 0 => self.accept(values),
                OptionId::Accept => {}
                OptionId::Setuid | OptionId::Setgid => {
                    self.remarks(&statement.remarks);
                    if !self.has_unix_socket(values) {
                        self.aside(
                            &said.place,
                            "it is for Unix sockets, and this service has none",
                        );
                    }
                }
                OptionId::ServiceName => {
                    self.remarks(&statement.remarks);
                    self.aside(&said.place, "it counts before the first section alone");
                }
                OptionId::LogLevel => {
                    self.remarks(&statement.remarks);
                    self.one(OptionId::ServiceLogLevel.row(), values, statement, said);
                }
                _ => self.statement(values, statement, said),
            }
        }
        self.moved_here(values);
        self.socket_owner(values);
        let socks = self.said(values, OptionId::Negotiation).map(|said| &said.value);
        if socks == Some(&Value::Negotiation(NegotiationKind::Socks)) && mode == Some(Mode::Server)
        {
            let note = "as a stunnel.conf does, with a warning each time";
            self.key("socks-allow-own", &true.into(), Some(note));
        }
        if mode.is_some_and(|mode| self.speaks_of_keepalive(values, mode)) {
            let note = "as the socket options say, and nothing beside them";
            self.key("keepalive", &false.into(), Some(note));
        }
        self.program(values);
        self.identities(&format!("services.{}", Key::new(name)), values);
    }

    /// The rules for single identities, which a stunnel.conf has in comments.
    fn identities(&mut self, table: &str, values: &Values) {
        for part in &values.identities {
            self.head(&format!("{table}.identities.{}", Key::new(&part.name.value)));
            for (statement, said) in part.values.statements() {
                self.statement(&part.values, statement, said);
            }
        }
    }

    fn said<'v>(&'v self, own: &'v Values, opt: OptionId) -> Option<&'v Spanned<Value>> {
        own.last(opt).or_else(|| self.parsed.defaults.last(opt))
    }

    fn all<'v>(
        &'v self,
        own: &'v Values,
        opt: OptionId,
    ) -> impl Iterator<Item = &'v Spanned<Value>> {
        let is_replaced = replaces_inherited(opt) && own.mentions(opt);
        let shared = if is_replaced { &[] } else { self.parsed.defaults.all(opt) };
        shared.iter().chain(own.all(opt))
    }

    fn mode(&self, own: &Values) -> Option<Mode> {
        match self.said(own, OptionId::Mode).map(|said| &said.value) {
            Some(Value::Mode(mode)) => Some(*mode),
            _ => Some(Mode::Server),
        }
    }

    fn has_unix_socket(&self, own: &Values) -> bool {
        self.all(own, OptionId::Accept)
            .any(|said| matches!(said.value, Value::Endpoint(Endpoint::Unix(_))))
    }

    fn speaks_of_keepalive(&self, own: &Values, mode: Mode) -> bool {
        let tls_side = match mode {
            Mode::Client => SocketSide::Upstream,
            Mode::Server => SocketSide::Downstream,
        };
        self.all(own, OptionId::Socket).any(|said| match &said.value {
            Value::Socket(side, option) => *side == tls_side && speaks_of_keepalive(option),
            _ => false,
        })
    }

    fn moved_here(&mut self, own: &Values) {
        for opt in self.moved.clone() {
            let replaced = own.mentions(opt)
                || rival(opt).is_some_and(|other| own.mentions(other))
                || replaced_in(&self.parsed.defaults, opt).is_some();
            let Some((_, key)) = opt.row().native.filter(|_| !replaced) else { continue };
            let said = self
                .parsed
                .defaults
                .last(opt)
                .and_then(|said| value::native(opt.row().kind, &said.value));
            if let Some(value) = said {
                self.key(key, &value, Some("said for all sections that do not say it themselves"));
            }
        }
    }

    fn socket_owner(&mut self, own: &Values) {
        if !self.has_unix_socket(own) {
            return;
        }
        if self.unit_logs.is_some() {
            let said = self.said(own, OptionId::Setuid).or(self.said(own, OptionId::Setgid));
            if let Some(place) = said.map(|said| said.place.clone()) {
                let help = "connect as a user in the group of the unit, or write socket-mode";
                self.changed(place, "the Unix socket belongs to the user of the unit", help);
            }
            return;
        }
        for (theirs, ours) in
            [(OptionId::Setuid, OptionId::SocketUser), (OptionId::Setgid, OptionId::SocketGroup)]
        {
            let said = self.said(own, theirs).map(|said| said.value.clone());
            if let (Some(value), Some((_, key))) = (said, ours.row().native)
                && let Some(value) = value::native(ours.row().kind, &value)
            {
                self.key(key, &value, None);
            }
        }
    }

    /// Where the standard error of a program goes.
    fn program(&mut self, own: &Values) {
        let foreground = self.parsed.global.last(OptionId::Foreground).map(|said| &said.value);
        let Some(said) = self.said(own, OptionId::Exec).map(|said| said.place.clone()) else {
            return;
        };
        if !matches!(foreground, Some(Value::Foreground(Foreground::Yes))) {
            let help = "write sh -c 'exec PROGRAM 2>&1' if the peer shall read it";
            self.changed(
                said,
                "the program's standard error goes to the peer in a stunnel.conf, and here to the \
                 program's own",
                help,
            );
        }
    }
}

/// A stunnel.conf has one word for both of these.
fn rival(opt: OptionId) -> Option<OptionId> {
    match opt {
        OptionId::Protocol => Some(OptionId::Negotiation),
        OptionId::Negotiation => Some(OptionId::Protocol),
        _ => None,
    }
}
