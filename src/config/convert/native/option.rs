//! One option of a stunnel.conf: its line in the native file, or the comment in place of one.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::super::{anchored, comment, finding, original, stunnel_name};
use super::{NativeWriter, rival};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::endpoint::{Endpoint, Host};
use crate::config::options::{Arity, OptionId, OptionRow, Treatment, ValueKind};
use crate::config::parsed_file::{Spanned, Statement, Value, Values};
use crate::config::validate::{replaces_inherited, switch};
use crate::config::value;

/// A value with what stands around it.
struct ListItem {
    remarks: Vec<String>,
    value: toml_edit::Value,
    note: Option<String>,
}

impl NativeWriter<'_> {
    pub(super) fn statement(
        &mut self,
        values: &Values,
        statement: &Statement,
        said: &Spanned<Value>,
    ) {
        let row = statement.opt.row();
        let is_list = row.arity == Arity::List
            && row.treatment == Treatment::Works
            && !matches!(row.opt, OptionId::PskSecrets | OptionId::ExecArgs);
        if is_list {
            if statement.index == 0 {
                self.list(row, values);
            }
            return;
        }
        self.remarks(&statement.remarks);
        self.one(row, values, statement, said);
    }

    /// An option of which the last line counts.
    pub(super) fn one(
        &mut self,
        row: &OptionRow,
        values: &Values,
        statement: &Statement,
        said: &Spanned<Value>,
    ) {
        let theirs = values.all(statement.opt);
        let last = statement.index + 1 == theirs.len();
        let Some((_, key)) = row.native.filter(|_| row.treatment == Treatment::Works) else {
            self.unsupported(row, said, last);
            return;
        };
        if self.unit_logs.is_some() && self.leave_to_unit(row.opt, said) {
            return;
        }
        if let Some(later) = theirs.last().filter(|_| !last) {
            let why = format!("line {} says otherwise", later.place.line);
            self.aside(&said.place, &why);
            return;
        }
        if let Some(later) = replaced_in(values, row.opt) {
            let why = format!("line {} says otherwise", later.place.line);
            self.aside(&said.place, &why);
            return;
        }
        if self.moved.contains(&row.opt) && std::ptr::eq(values, &self.parsed.defaults) {
            self.aside(&said.place, "each service says it itself");
            return;
        }
        match &said.value {
            Value::Version(None) => {
                self.aside(&said.place, "no bound: as if nothing had been said");
                return;
            }
            Value::Text(text) if text.is_empty() && row.kind == ValueKind::Path => {
                self.aside(&said.place, "none");
                return;
            }
            _ => {}
        }
        // A server's identity, and the like.
        if let Some(notice) = finding(self.found, &said.place)
            && notice.severity == Severity::Notice
        {
            let why = notice.message.clone();
            self.aside(&said.place, &why);
            return;
        }
        match self.written(row, &said.value) {
            Some((value, note)) => self.key(key, &value, note.as_deref()),
            None => self.unwritable(row, said),
        }
    }

    fn written(
        &mut self,
        row: &OptionRow,
        value: &Value,
    ) -> Option<(toml_edit::Value, Option<String>)> {
        match value {
            Value::Path(path) => {
                let path = self.path(row.opt, path);
                Some((value::native(row.kind, &Value::Path(path))?, None))
            }
            Value::Arguments(words) => {
                let words = words
                    .iter()
                    .map(|word| value::native(row.kind, &Value::Arguments(vec![word.clone()])));
                Some((toml_edit::Value::Array(words.collect::<Option<_>>()?), None))
            }
            Value::Text(text) if row.opt == OptionId::ServerName => {
                let text = match text.split_once(':') {
                    Some((of, pattern)) => format!("{}:{pattern}", self.renamed(of)),
                    None => text.clone(),
                };
                Some((value::native(row.kind, &Value::Text(text))?, None))
            }
            Value::Endpoint(at @ Endpoint::Tcp { host: Host::Unspecified, port })
                if row.opt == OptionId::Accept =>
            {
                let every =
                    Endpoint::Tcp { host: Host::Ip(Ipv4Addr::UNSPECIFIED.into()), port: *port };
                let value = value::native(row.kind, &Value::Endpoint(every))?;
                Some((value, Some(format!("{at} alone is IPv4 in a stunnel.conf"))))
            }
            Value::Duration(_) => {
                let value_there = value::stunnel(row.kind, value);
                let note = (value_there.as_deref() == Some("-1")).then(|| "for ever".to_owned());
                Some((value::native(row.kind, value)?, note))
            }
            other => Some((value::native(row.kind, other)?, None)),
        }
    }

    fn renamed<'n>(&'n self, name: &'n str) -> &'n str {
        self.names.iter().find(|(old, _)| old == name).map_or(name, |(_, new)| new)
    }

    /// What a unit decides: the user and the group, and that nothing else needs the number of the process.
    fn leave_to_unit(&mut self, opt: OptionId, said: &Spanned<Value>) -> bool {
        let (why, name) = match opt {
            OptionId::Setuid => ("the unit says it: User=", "the user"),
            OptionId::Setgid => ("the unit says it: Group=", "the group"),
            OptionId::Pid => ("systemd has the number of the process", "the pid file"),
            OptionId::Chroot => ("the unit confines the program", "the root directory"),
            _ => return false,
        };
        self.aside(&said.place, why);
        let message = format!("{name} is left to the unit");
        let notice = Diagnostic::notice("written-out", message).at(said.place.clone());
        self.report.push(notice.help("`systemctl cat` shows what the unit says"));
        true
    }

    /// The name of a log in the folder that the unit makes for it.
    fn log_of_unit(&mut self, path: &Path) -> Option<PathBuf> {
        let name = path.file_name().filter(|_| !path.starts_with("/dev"))?;
        Some(self.unit_logs?.join(name))
    }

    /// The log and the pid file are opened inside the new root directory, if there is one.
    fn path(&mut self, opt: OptionId, path: &Path) -> PathBuf {
        if opt == OptionId::LogOutput
            && let Some(log) = self.log_of_unit(path)
        {
            return log;
        }
        let root = self.parsed.global.last(OptionId::Chroot);
        let jailed = matches!(root, Some(Spanned { value: Value::Path(_), .. }));
        if jailed && matches!(opt, OptionId::Pid | OptionId::LogOutput) {
            return Path::new("/").join(path);
        }
        let (path, moved) = anchored(path, &self.parsed.base, self.home);
        self.anchored |= moved;
        path
    }

    /// All addresses of a service. A stunnel.conf's section goes on without those that are taken.
    pub(super) fn accept(&mut self, own: &Values) {
        let row = OptionId::Accept.row();
        let mut items = Vec::new();
        for (said, remarks) in self.merged(own, OptionId::Accept) {
            let Value::Endpoint(at) = &said.value else { continue };
            let at = match at {
                Endpoint::Tcp { host: Host::Unspecified, port } => {
                    Endpoint::Tcp { host: Host::Ip(Ipv4Addr::UNSPECIFIED.into()), port: *port }
                }
                other => other.clone(),
            };
            let any_port = matches!(at, Endpoint::Tcp { port: 0, .. });
            if !any_port && self.taken.contains(&at) {
                self.remarks(&remarks);
                self.told = None;
                self.aside(&said.place, "listened on already, by this service or one before it");
                continue;
            }
            self.taken.push(at);
            match self.written(row, &said.value) {
                Some((value, note)) => items.push(ListItem { remarks, value, note }),
                None => self.unwritable(row, &said),
            }
        }
        if items.len() > 1
            && let Some(said) = self.said(own, OptionId::Accept)
        {
            let place = said.place.clone();
            self.changed(
                place,
                "a native file does not start unless it can listen on each of these addresses; a stunnel.conf starts with those on which it can",
                "leave out an address that this machine may not have, such as one of IPv6",
            );
        }
        self.items("accept", items);
    }

    /// What is said for all and in the section, with the remarks of the latter.
    fn merged(&self, own: &Values, opt: OptionId) -> Vec<(Spanned<Value>, Vec<String>)> {
        let of = |values: &Values| {
            let all = values.statements().filter(|(statement, _)| statement.opt == opt);
            all.map(|(statement, said)| (said.clone(), statement.remarks.clone()))
                .collect::<Vec<_>>()
        };
        let is_replaced = replaces_inherited(opt) && own.mentions(opt);
        if std::ptr::eq(own, &self.parsed.defaults) || is_replaced {
            return of(own);
        }
        let shared = self.parsed.defaults.all(opt).iter().map(|said| (said.clone(), Vec::new()));
        shared.chain(of(own)).collect()
    }

    fn list(&mut self, row: &OptionRow, values: &Values) {
        let Some((_, key)) = row.native else { return };
        if row.opt == OptionId::Accept {
            // Each section listens for itself, on what is not taken.
            for (said, remarks) in self.merged(values, row.opt) {
                self.remarks(&remarks);
                self.aside(&said.place, "each service says it itself");
            }
            return;
        }
        let mut items = Vec::new();
        for (said, remarks) in self.merged(values, row.opt) {
            let idle = matches!(&said.value, Value::Text(name) if row.kind == ValueKind::SslOption && !decides(name));
            if idle {
                self.remarks(&remarks);
                self.aside(&said.place, "it is always so here, or would weaken what is");
                continue;
            }
            match self.written(row, &said.value) {
                Some((value, note)) => items.push(ListItem { remarks, value, note }),
                None => {
                    self.remarks(&remarks);
                    self.unwritable(row, &said);
                }
            }
        }
        self.items(key, items);
    }

    fn items(&mut self, key: &str, mut items: Vec<ListItem>) {
        let Some(first) = items.first_mut() else { return };
        let above = std::mem::take(&mut first.remarks);
        self.remarks(&above);
        let plain = items.iter().all(|item| item.remarks.is_empty() && item.note.is_none());
        match items.as_slice() {
            [ListItem { value, note, .. }] => {
                let note = note.clone();
                self.key(key, &value.clone(), note.as_deref());
            }
            _ if plain => {
                let list: toml_edit::Array = items.into_iter().map(|item| item.value).collect();
                self.key(key, &toml_edit::Value::Array(list), None);
            }
            _ => {
                self.line(&format!("{key} = ["));
                for ListItem { remarks, value, note } in items {
                    for line in remarks.iter().filter(|line| !line.is_empty()) {
                        self.line(&format!("  {}", comment(line)));
                    }
                    let note = note.map(|note| format!("  # {note}")).unwrap_or_default();
                    self.line(&format!("  {value},{note}"));
                }
                self.line("]");
            }
        }
    }

    /// An option that does not work here: a comment where nothing is lost, and where something would be, a
    /// line that is refused.
    fn unsupported(&mut self, row: &OptionRow, said: &Spanned<Value>, last: bool) {
        if row.opt == OptionId::Foreground {
            let why = "a native file runs in the foreground, and says so with no word";
            self.aside(&said.place, why);
            return;
        }
        let Some(found) = finding(self.found, &said.place).cloned() else {
            self.aside(&said.place, "it has no counterpart");
            return;
        };
        self.aside(&said.place, &found.message);
        if found.severity != Severity::Error {
            self.report.push(found);
            return;
        }
        if last && let Value::Text(text) = &said.value {
            self.stop(row, text);
        }
        self.report.push(found);
    }

    /// A line that the native reader refuses, and says why.
    fn stop(&mut self, row: &OptionRow, text: &str) {
        let text = if row.opt.is_secret() { "***" } else { text };
        let (name, text) = (stunnel_name(row), toml_edit::Value::from(text));
        self.line(&format!("{name} = {text}  # remove this line if you can do without it"));
    }

    fn unwritable(&mut self, row: &OptionRow, said: &Spanned<Value>) {
        self.aside(&said.place, "a native file cannot say it");
        let name = stunnel_name(row);
        let message = format!("a native file cannot say this value of `{name}`");
        let help = "it holds text in UTF-8 without control characters, and hosts that a resolver could know";
        self.report
            .push(Diagnostic::error("no-counterpart", message).at(said.place.clone()).help(help));
        self.stop(row, &original(self.found, &said.place));
    }
}

/// The later value in the same section that takes the place of all those of an option.
pub(super) fn replaced_in(values: &Values, opt: OptionId) -> Option<&Spanned<Value>> {
    let other = rival(opt)?;
    let both = values.statements().filter(|(one, _)| one.opt == opt || one.opt == other);
    let (statement, said) = both.last()?;
    (statement.opt == other).then_some(said)
}

/// Whether a switch of OpenSSL's makes a difference here.
fn decides(name: &str) -> bool {
    let name = name.strip_prefix('-').unwrap_or(name).to_ascii_uppercase();
    switch(&name).is_some() || name.starts_with("NO_TLSV1") || name == "NO_SSL_MASK"
}
