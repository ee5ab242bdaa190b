//! The native grammar: TOML, of which every table, key and type is checked against the table of
//! options.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ::toml::Spanned as TomlSpanned;
use ::toml::de::{DeArray, DeString, DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics, SourceText};
use super::key_shape::looks_like_key_line;
use super::model::Dialect;
use super::options::{self, Arity, OptionId, OptionRow, TABLE, TomlTable, ValueKind};
use super::parsed_file::{ParsedFile, ParsedSection, Spanned, Value, Values};
use super::value::{self, ValueError};

/// Reads a file's text.
pub(super) fn read(text: &str, name: &Path, base: &Path, report: &mut Diagnostics) -> ParsedFile {
    let file: Arc<Path> = Arc::from(name);
    let source = SourceText::new(file.clone(), text);
    source.register(report);
    let (root, mistakes) = DeTable::parse_recoverable(text);
    let mut reader = TomlReader {
        source,
        found: Vec::new(),
        parsed: ParsedFile {
            has_unplaced: !mistakes.is_empty(),
            ..ParsedFile::new(Dialect::Native, file, base)
        },
        remarks: comments(text),
    };
    let mut lines = Vec::new();
    for mistake in &mistakes {
        let span = mistake.span().unwrap_or(0..0);
        let place = reader.source.place(span.clone());
        let line = text.lines().nth(index(place.line)).unwrap_or_default();
        let mut found = Diagnostic::error("syntax", mistake.message()).at(place.clone());
        if looks_like_key_line(line.trim()) {
            found = found.help(
                "put keys into a file of their own, and name that file in \
                                psk-secrets",
            );
        } else if let Some(help) = windows_path(line).or_else(|| unquoted(line)) {
            found = found.help(help);
        }
        // One slip makes the parser stumble several times over the same line.
        if !lines.contains(&place.line) {
            report.push(found);
        }
        lines.push(place.line);
    }
    reader.root(root.get_ref());
    reader.parsed.remarks = reader.remarks(text.len());
    let TomlReader { found, parsed, .. } = reader;
    // What was made up to recover from a slip is no mistake of the operator's.
    // And behind the head of a table that could not be read, keys seem to be where they are not.
    let first = lines.iter().min().copied().unwrap_or(u32::MAX);
    let made_up = |d: &Diagnostic| {
        let line = d.place.as_ref().map_or(0, |p| p.line);
        lines.contains(&line) || (d.code == "unknown-option" && line > first)
    };
    for d in found.into_iter().filter(|d| !made_up(d)) {
        report.push(d);
    }
    parsed
}

fn index(line: u32) -> usize {
    (line as usize).saturating_sub(1)
}

/// A path of Windows in double quotes, where a backslash begins an escape.
fn windows_path(line: &str) -> Option<String> {
    let (_, quoted) = line.split_once('"')?;
    let (path, _) = quoted.split_once('"').unwrap_or((quoted, ""));
    let drive =
        path.get(1..3) == Some(":\\") && path.starts_with(|c: char| c.is_ascii_alphabetic());
    let share = path.starts_with("\\\\");
    (drive || share).then(|| {
        format!(
            "a backslash begins an escape in double quotes: write '{path}', or {}",
            path.replace('\\', "/")
        )
    })
}

/// A text between the quotation marks of a word processor or a web page.
pub(super) fn without_curly_quotes(text: &str) -> Option<&str> {
    const MARKS: [char; 8] = ['“', '”', '„', '‟', '‘', '’', '«', '»'];
    let inner = text.strip_prefix(MARKS)?.strip_suffix(MARKS)?;
    (!inner.is_empty() && !inner.contains(['"', '\\', '#'])).then_some(inner)
}

/// The commonest slip of people who come from stunnel.conf.
fn unquoted(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let row = options::native(TomlTable::Service, key)
        .or_else(|| options::native(TomlTable::Log, key))?;
    let is_bare = !value.is_empty() && !value.starts_with(['"', '\'', '[', '{']);
    if !is_bare {
        return None;
    }
    if let Some(plain) = without_curly_quotes(value) {
        return Some(format!(
            "these quotation marks are not those of TOML: write {key} = \"{plain}\""
        ));
    }
    Some(match (row.kind, looks_like_key_line(value)) {
        (_, false) if !value.contains(['"', '#']) => {
            format!("put the text in quotes: {key} = \"{value}\"")
        }
        _ => format!("put the text in quotes: {key} = \"...\""),
    })
}

type TomlKey<'i> = TomlSpanned<DeString<'i>>;
type Item<'i> = TomlSpanned<DeValue<'i>>;

struct TomlReader {
    source: SourceText,
    found: Vec<Diagnostic>,
    parsed: ParsedFile,
    /// The comments that no value has taken yet: where their line ends, and their text.
    remarks: VecDeque<(usize, String)>,
}

/// The comments of a text, of which the parser of values tells nothing.
fn comments(text: &str) -> VecDeque<(usize, String)> {
    let tokens = toml_parser::Source::new(text).lex();
    let comments = tokens.filter(|token| token.kind() == toml_parser::lexer::TokenKind::Comment);
    let spans = comments.map(|token| (token.span().start(), token.span().end()));
    spans.map(|(start, end)| (end, text.get(start..end).unwrap_or_default().to_owned())).collect()
}

/// In the order of the file, where the map has the order of the alphabet.
fn entries<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(&'a TomlKey<'i>, &'a Item<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

impl TomlReader {
    /// The comments up to this place, and those behind it in its line.
    fn remarks(&mut self, end: usize) -> Vec<String> {
        let rest = self.source.text().get(end..).unwrap_or_default();
        let end = end + rest.find('\n').unwrap_or(rest.len());
        let count = self.remarks.iter().take_while(|(at, _)| *at <= end).count();
        self.remarks.drain(..count).map(|(_, text)| text).collect()
    }

    fn error(&mut self, code: &'static str, span: Range<usize>, message: String, help: String) {
        let place = self.source.place(span);
        self.found.push(Diagnostic::error(code, message).at(place).help(help));
    }

    fn root(&mut self, root: &DeTable<'_>) {
        for (key, item) in entries(root) {
            match key.get_ref().as_ref() {
                name @ ("log" | "control" | "http") => {
                    let kind = match name {
                        "log" => TomlTable::Log,
                        "control" => TomlTable::Control,
                        _ => TomlTable::Http,
                    };
                    if let Some(table) = self.table(key, item) {
                        self.global(kind, table);
                    }
                }
                "defaults" => {
                    if let Some(table) = self.table(key, item) {
                        self.parsed.defaults = self.service(table);
                    }
                }
                "services" => {
                    if let Some(table) = self.table(key, item) {
                        self.services(table);
                    }
                }
                name => match options::native(TomlTable::Top, name) {
                    Some(row) => {
                        self.global_values(row, item);
                    }
                    None => {
                        self.unknown(key, TomlTable::Top);
                    }
                },
            }
        }
    }

    fn table<'a, 'i>(&mut self, key: &TomlKey<'i>, item: &'a Item<'i>) -> Option<&'a DeTable<'i>> {
        match item.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.parsed.has_unplaced = true;
                self.error(
                    "wrong-type",
                    item.span(),
                    format!("`{}` is a table, not {}", key.get_ref(), type_of(other)),
                    format!("write [{}] on a line of its own, and its keys below", key.get_ref()),
                );
                None
            }
        }
    }

    fn global(&mut self, table: TomlTable, items: &DeTable<'_>) {
        for (key, item) in entries(items) {
            match options::native(table, key.get_ref()) {
                Some(row) => self.global_values(row, item),
                None => {
                    self.unknown(key, table);
                }
            }
        }
    }

    fn global_values(&mut self, row: &'static OptionRow, item: &Item<'_>) {
        let values = self.values(row, item);
        let remarks = self.remarks(item.span().end);
        self.parsed.global.remark(remarks);
        values.into_iter().for_each(|v| self.parsed.global.push(row.opt, v));
    }

    fn services(&mut self, table: &DeTable<'_>) {
        for (key, item) in entries(table) {
            let remarks = self.remarks(key.span().end);
            let name = key.get_ref().to_string();
            if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
                self.error(
                    "bad-name",
                    key.span(),
                    "a service's name has 1 to 128 bytes and no control characters".into(),
                    "give it a short name: it is shown in every log line".into(),
                );
            }
            let DeValue::Table(items) = item.get_ref() else {
                let row = options::native(TomlTable::Service, &name);
                let help = match row {
                    Some(_) => "a service's keys stand in [services.NAME]".into(),
                    None => format!("write [services.{name}] on a line of its own"),
                };
                self.parsed.has_unplaced = true;
                let message = format!("a service is a table, not {}", type_of(item.get_ref()));
                self.error("wrong-type", item.span(), message, help);
                continue;
            };
            let values = self.service(items);
            let name = Spanned { value: name, place: self.source.place(key.span()) };
            self.parsed.services.push(ParsedSection { name, remarks, values });
        }
    }

    fn service(&mut self, items: &DeTable<'_>) -> Values {
        let mut values = Values::default();
        for (key, item) in entries(items) {
            match options::native(TomlTable::Service, key.get_ref()) {
                Some(row) if row.opt == OptionId::Identities => {
                    values.tried(row.opt);
                    values.identities = self.identities(key, item);
                }
                Some(row) => {
                    let read = self.values(row, item);
                    values.tried(row.opt);
                    values.remark(self.remarks(item.span().end));
                    read.into_iter().for_each(|v| values.push(row.opt, v));
                }
                None => {
                    let meant = self.unknown(key, TomlTable::Service);
                    meant.into_iter().for_each(|opt| values.tried(opt));
                }
            }
        }
        values
    }

    fn identities(&mut self, key: &TomlKey<'_>, item: &Item<'_>) -> Vec<ParsedSection> {
        let DeValue::Table(tables) = item.get_ref() else {
            let message =
                format!("`{}` is a table, not {}", key.get_ref(), type_of(item.get_ref()));
            let help = "write [services.NAME.identities.IDENTITY] on a line of its own";
            self.error("wrong-type", item.span(), message, help.into());
            return Vec::new();
        };
        let mut all = Vec::new();
        for (key, item) in entries(tables) {
            let remarks = self.remarks(key.span().end);
            let name =
                Spanned { value: key.get_ref().to_string(), place: self.source.place(key.span()) };
            if let Err(wrong) = value::read(ValueKind::Identity, Dialect::Native, &name.value) {
                self.error(wrong.code, key.span(), wrong.message, wrong.help);
                continue;
            }
            let DeValue::Table(items) = item.get_ref() else {
                let found = type_of(item.get_ref());
                let message = format!("the rules for an identity are a table, not {found}");
                let help = "write [services.NAME.identities.IDENTITY], with quotes around an \
                            identity that has other characters than letters, digits, _ and -";
                self.error("wrong-type", item.span(), message, help.into());
                continue;
            };
            let mut values = Values::default();
            for (key, item) in entries(items) {
                match options::native(TomlTable::Identity, key.get_ref()) {
                    Some(row) => {
                        let read = self.values(row, item);
                        values.remark(self.remarks(item.span().end));
                        read.into_iter().for_each(|value| values.push(row.opt, value));
                    }
                    None => {
                        self.unknown(key, TomlTable::Identity);
                    }
                }
            }
            all.push(ParsedSection { name, remarks, values });
        }
        all
    }

    /// Tells of an unknown key, and which option was probably meant.
    fn unknown(&mut self, key: &TomlKey<'_>, table: TomlTable) -> Option<OptionId> {
        let name = key.get_ref().as_ref();
        let keys = |table: TomlTable| {
            TABLE
                .iter()
                .filter_map(move |row| row.native.filter(|(t, _)| *t == table).map(|(_, key)| key))
        };
        let (tables, here) = match table {
            TomlTable::Top => {
                (["log", "control", "http", "defaults", "services"].as_slice(), "here")
            }
            TomlTable::Log => (&[][..], "in [log]"),
            TomlTable::Control => (&[][..], "in [control]"),
            TomlTable::Http => (&[][..], "in [http]"),
            TomlTable::Service => (&[][..], "in a service"),
            TomlTable::Identity => (&[][..], "in the rules for an identity"),
        };
        let near = options::nearest(name, keys(table).chain(tables.iter().copied()));
        let elsewhere = [
            TomlTable::Top,
            TomlTable::Log,
            TomlTable::Service,
            TomlTable::Control,
            TomlTable::Http,
        ]
        .into_iter()
        .find(|t| *t != table && options::native(*t, name).is_some());
        let help = match (elsewhere, near, options::stunnel(name)) {
            (Some(TomlTable::Log), ..) => "it belongs in [log]".into(),
            (Some(TomlTable::Top), ..) => "it belongs before the first [table]".into(),
            (Some(TomlTable::Control), ..) => "it belongs in [control]".into(),
            (Some(TomlTable::Http), ..) => "it belongs in [http]".into(),
            (Some(_), ..) if table == TomlTable::Top => {
                "write the line [services.NAME] above it, or [defaults] for all services".into()
            }
            (Some(_), ..) => "it belongs in [defaults] or in [services.NAME]: is the line \
                              [services.NAME] missing above it?"
                .into(),
            (None, Some(near), _) => format!("did you mean `{near}`?"),
            (None, None, Some(row)) => match row.native {
                Some((_, native)) => format!("stunnel's `{name}` is `{native}` here"),
                None if row.opt == OptionId::TlsVersion => "write tls-min and tls-max".into(),
                None => format!("stunnel's `{name}` has no counterpart here"),
            },
            (None, None, None) => {
                let all: Vec<_> = tables.iter().copied().chain(keys(table)).collect();
                format!("known {here}: {}", all.join(", "))
            }
        };
        // `[default]` or `[service.a]`: what a service lacks may well stand there.
        if table == TomlTable::Top && near.is_some() {
            self.parsed.has_unplaced = true;
        }
        let meant = near
            .and_then(|near| options::native(table, near))
            .or_else(|| options::stunnel(name))
            .map(|row| row.opt);
        let message = if name.len() > 60 || looks_like_key_line(name) {
            format!("there is no such option {here}")
        } else {
            format!("there is no option `{name}` {here}")
        };
        self.error("unknown-option", key.span(), message, help);
        meant
    }

    /// The values of an option: one, or the members of a list where the option is one.
    fn values(&mut self, row: &'static OptionRow, item: &Item<'_>) -> Vec<Spanned<Value>> {
        let place = |reader: &Self, span| reader.source.place(span);
        match (row.arity, item.get_ref()) {
            // What does not work is judged by its treatment, whatever its type.
            _ if row.kind == ValueKind::Raw => {
                let text = match item.get_ref() {
                    DeValue::String(text) => text.to_string(),
                    other => type_of(other).to_owned(),
                };
                vec![Spanned { value: Value::Text(text), place: place(self, item.span()) }]
            }
            (Arity::List, DeValue::Array(list)) => self.list(row, list, item.span()),
            (_, _) => self.value(row, item).into_iter().collect(),
        }
    }

    fn list(
        &mut self,
        row: &'static OptionRow,
        list: &DeArray<'_>,
        span: Range<usize>,
    ) -> Vec<Spanned<Value>> {
        // Nothing in a list of sockets is a way to unsay the defaults.
        if list.is_empty() && row.opt != OptionId::Socket {
            let name = row.name(Dialect::Native);
            self.error(
                "empty-list",
                span,
                format!("`{name}` is an empty list"),
                "write at least one, or leave the key out".into(),
            );
        }
        list.iter().filter_map(|item| self.value(row, item)).collect()
    }

    fn value(&mut self, row: &'static OptionRow, item: &Item<'_>) -> Option<Spanned<Value>> {
        match single(row, item.get_ref()) {
            Ok(value) => Some(Spanned { value, place: self.source.place(item.span()) }),
            Err(wrong) => {
                self.error(wrong.code, item.span(), wrong.message, wrong.help);
                None
            }
        }
    }
}

/// One value of TOML as one value of ours.
fn single(row: &OptionRow, item: &DeValue<'_>) -> Result<Value, ValueError> {
    let read = |text: &str| value::read(row.kind, Dialect::Native, text);
    match (row.kind, item) {
        (ValueKind::Bool, DeValue::Boolean(b)) => Ok(Value::Bool(*b)),
        (ValueKind::Bool, _) => Err(wrong_type(row, item)),
        (ValueKind::Count { min, max }, DeValue::Integer(n)) if n.radix() == 10 => {
            value::count(&n.as_str().replace('_', ""), min, max).map(Value::Count)
        }
        (ValueKind::Count { .. }, _) => Err(wrong_type(row, item)),
        (ValueKind::Keepalive, DeValue::Boolean(false)) => Ok(Value::Keepalive(None)),
        (ValueKind::Retry, DeValue::Boolean(false)) => Ok(Value::Retry(None)),
        (ValueKind::Listen | ValueKind::Connect, DeValue::Integer(n)) if n.radix() == 10 => {
            read(n.as_str())
        }
        (ValueKind::Moment, DeValue::Datetime(moment)) => read(&moment.to_string()),
        (ValueKind::Duration { .. }, DeValue::Integer(n)) => Err(ValueError {
            code: "unit-missing",
            message: format!("`{n}` has no unit"),
            help: format!("write \"{n}s\" for seconds; the units are ms, s, m, h and d"),
        }),
        (_, DeValue::String(text)) => read(text),
        _ => Err(wrong_type(row, item)),
    }
}

fn wrong_type(row: &OptionRow, item: &DeValue<'_>) -> ValueError {
    let words = value::words(row.kind, Dialect::Native);
    let help = match row.kind {
        ValueKind::Bool => "write true or false, without quotes".into(),
        ValueKind::Count { min, max } => {
            format!("write a number from {min} to {max}, without quotes")
        }
        ValueKind::Duration { .. } => "write a text with a unit, such as \"10s\"".into(),
        ValueKind::Retry => "write a pause such as \"1s\", or false".into(),
        ValueKind::Variable => "write a text such as \"NAME=VALUE\", or a list of them".into(),
        ValueKind::Keepalive => "write \"15s/5s/3\" (idle/interval/count) or false".into(),
        ValueKind::Listen | ValueKind::Connect => {
            "write a port or a text such as \"127.0.0.1:3002\", or a list of them".into()
        }
        ValueKind::Secrets | ValueKind::Socket | ValueKind::Arguments | ValueKind::Range => {
            "write a text in quotes, or a list of them".into()
        }
        ValueKind::Moment => "write a day such as 2027-01-31".into(),
        ValueKind::Size => "write a text with a unit, such as \"1MB\"".into(),
        ValueKind::RekeyAfter => "write a text such as \"1000000 records, 10GB\"".into(),
        ValueKind::FileMode => "write it in quotes, such as \"0660\"".into(),
        _ if !words.is_empty() => format!(
            "write one of: {}",
            words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", ")
        ),
        _ => "write a text in quotes".into(),
    };
    ValueError {
        code: "wrong-type",
        message: format!("`{}` cannot be {}", row.name(Dialect::Native), type_of(item)),
        help,
    }
}

fn type_of(item: &DeValue<'_>) -> &'static str {
    match item {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::load::{Format, load_text};

    fn helps(line: &str) -> String {
        let text = format!(
            "[services.x]\nmode = \"client\"\naccept = \"127.0.0.1:1\"\n{line}\npsk-identity = \"a\"\n"
        );
        let read = load_text(text.as_bytes(), Path::new("x.toml"), Path::new("/"), Format::Auto);
        let report = read.unwrap_err();
        report.diagnostics.iter().filter_map(|found| found.help.clone()).collect()
    }

    #[test]
    fn paths_of_windows_and_urls_are_told_how_they_are_written() {
        let help = helps(r#"psk-secrets = "C:\Users\me\psk.txt""#);
        assert!(
            help.contains(r"'C:\Users\me\psk.txt'") && help.contains("C:/Users/me/psk.txt"),
            "{help}"
        );
        assert!(helps(r#"psk-secrets = "C:\temp\new.txt""#).contains("'C:\\temp"));
        let help = helps("connect = \"PYRO://plc:3001\"\npsk-secrets = \"psk.txt\"");
        assert!(help.contains("write \"plc:3001\""), "{help}");
        let help = helps("connect = \"https://plc/x\"\npsk-secrets = \"psk.txt\"");
        assert!(help.contains("plc:3001"), "{help}");
    }
}
