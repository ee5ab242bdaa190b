//! What is wrong, where, and what to do about it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::key_shape::{MIN_KEY_LENGTH, looks_like_key_line};
pub use super::location::Place;
use super::options::TABLE;
use crate::sys::content::Digest;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing starts, or a reload changes nothing.
    Error,
    /// It works, but not wisely.
    Warning,
    /// Good to know.
    Notice,
}

impl Severity {
    /// `error`, `warning` or `notice`: the word in the JSON form and in the count line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// A stable name, lower case with hyphens, such as `unknown-option`.
    pub code: &'static str,
    /// Where; unset for what has no place in any file.
    pub place: Option<Place>,
    /// What is wrong. Never key material, never an unescaped byte of a stranger.
    pub message: String,
    /// A word at the marked text.
    pub label: Option<String>,
    /// What to do.
    pub help: Option<String>,
}

/// By what tells nearly all findings apart: to hash a path, its parts are looked at one by one.
impl Hash for Diagnostic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place.as_ref().map(|place| place.line).hash(state);
        self.message.hash(state);
    }
}

impl Diagnostic {
    fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self { severity, code, place: None, message: message.into(), label: None, help: None }
    }

    /// Something that must be changed before the program can work.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// Something that works, but not wisely.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// Something that is good to know.
    pub fn notice(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Notice, code, message)
    }

    /// Where it stands; `None` leaves it without a place, as for a default that nobody wrote.
    pub fn at(mut self, place: impl Into<Option<Place>>) -> Self {
        self.place = place.into();
        self
    }

    /// A word at the marked text.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// What to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All findings of one run, and the texts they point into. Key files are never among the texts: a
/// finding in one shows its line number only.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// In the order they were found.
    pub diagnostics: Vec<Diagnostic>,
    /// File → text, for snippets.
    pub sources: BTreeMap<Arc<Path>, Arc<str>>,
    /// An included file → the line that included it.
    pub included: BTreeMap<Arc<Path>, Place>,
    /// A file of the configuration, by the name under which it was opened → what was read of it; none if
    /// it could not be read.
    pub read: BTreeMap<PathBuf, Option<Digest>>,
    /// The directories of included files, by the names under which they were opened.
    pub folders: BTreeSet<PathBuf>,
}

impl Report {
    /// Adds one finding.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Adds those findings that are not among them yet, each once. In time linear in their number: a key
    /// file may have a remark on each of 100,000 lines.
    pub fn add_new(&mut self, findings: Vec<Diagnostic>) {
        let mut known: HashSet<&Diagnostic> = self.diagnostics.iter().collect();
        let is_new: Vec<bool> = findings.iter().map(|finding| known.insert(finding)).collect();
        let new =
            findings.into_iter().zip(is_new).filter_map(|(finding, new)| new.then_some(finding));
        self.diagnostics.extend(new);
    }

    /// Adds what another run found, and its texts.
    pub fn extend(&mut self, other: Report) {
        self.diagnostics.extend(other.diagnostics);
        self.sources.extend(other.sources);
        self.included.extend(other.included);
        self.read.extend(other.read);
        self.folders.extend(other.folders);
    }

    /// Puts the findings in the order of the text: an operator reads from the top. What has no place
    /// comes last.
    pub fn sort(&mut self) {
        let key = |d: &Diagnostic| d.place.as_ref().map(|p| (p.file.clone(), p.line, p.column));
        self.diagnostics.sort_by(|a, b| match (key(a), key(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
    }

    /// Whether anything in it forbids going on.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }

    /// How many findings are this bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|d| d.severity == severity).count()
    }

    /// The findings for a person, with the lines they are about and a last line that counts them.
    /// Empty when there is nothing to say.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let sources: BTreeMap<&Path, String> =
            self.sources.iter().map(|(file, text)| (&**file, presentable(text))).collect();
        let mut out = String::new();
        for d in &self.diagnostics {
            if let Some(place) =
                d.place.as_ref().filter(|place| !color && !sources.contains_key(&*place.file))
            {
                render_without_text(d, place, &mut out);
                continue;
            }
            let level = match d.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
                Severity::Notice => Level::NOTE.with_name("notice"),
            };
            let mut group = Group::with_title(level.primary_title(escape(&d.message)).id(d.code));
            if let Some(place) = &d.place {
                group = group.element(snippet(place, d.label.as_deref(), &sources));
            }
            if let Some(help) = &d.help {
                group = group.element(Level::HELP.message(escape(help)));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        let counts: Vec<String> = [Severity::Error, Severity::Warning, Severity::Notice]
            .into_iter()
            .filter_map(|severity| match self.count(severity) {
                0 => None,
                1 => Some(format!("1 {}", severity.word())),
                n => Some(format!("{n} {}s", severity.word())),
            })
            .collect();
        if !counts.is_empty() {
            out.push_str(&counts.join(", "));
            out.push('\n');
        }
        out
    }

    /// The errors and warnings in the shape in which stunnel prints them, for whoever parses its
    /// output. Ends with `Configuration failed` when anything is an error.
    pub fn render_stunnel(&self) -> String {
        let mut out = String::new();
        for d in &self.diagnostics {
            let mark = match d.severity {
                Severity::Error => '!',
                Severity::Warning => ':',
                Severity::Notice => '.',
            };
            let message = escape(&d.message);
            let Some(place) = &d.place else {
                let _ = writeln!(out, "[{mark}] {message}");
                continue;
            };
            let mut place = place;
            let line = self.line(place);
            // A finding about a whole section stands at its head.
            let marked = self.sources.get(&place.file).and_then(|t| t.get(place.span.clone()));
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']'))
                && marked.is_some_and(|text| text.trim_start().starts_with('['))
            {
                let _ = writeln!(out, "[{mark}] Service [{name}]: {message}");
                continue;
            }
            let file = escape(&place.file.to_string_lossy());
            // Of a key file there is a number only.
            let line = match self.sources.contains_key(&place.file) {
                true => format!(" \"{line}\":"),
                false => String::new(),
            };
            let _ = writeln!(out, "[{mark}] {file}:{}:{line} {message}", place.line);
            // A file cannot include itself for ever: the reader limits the depth.
            for _ in 0..64 {
                if d.severity != Severity::Error {
                    break;
                }
                let Some(by) = self.included.get(&place.file) else {
                    break;
                };
                let _ = writeln!(
                    out,
                    "[{mark}] {}:{}: \"{}\": Failed to include a file",
                    escape(&by.file.to_string_lossy()),
                    by.line,
                    self.line(by)
                );
                place = by;
            }
        }
        if self.has_errors() {
            out.push_str("[!] Configuration failed\n");
        }
        out
    }

    /// The trimmed line at `place`, fit to be printed.
    pub(super) fn line(&self, place: &Place) -> String {
        let index = (place.line as usize).saturating_sub(1);
        self.sources
            .get(&place.file)
            .and_then(|text| text.split('\n').nth(index))
            .map(|line| presentable(line).trim().replace('\t', " "))
            .unwrap_or_default()
    }
}

/// A finding in a file whose text is not shown, in the shape that the renderer gives it. A key file may have
/// a remark on each of 100,000 lines, for which the renderer takes half a second.
fn render_without_text(d: &Diagnostic, place: &Place, out: &mut String) {
    let path = escape(&place.file.to_string_lossy());
    let _ = writeln!(out, "{}[{}]: {}", d.severity.word(), d.code, escape(&d.message));
    let _ = writeln!(out, "--> {path}:{}", place.line);
    if let Some(help) = &d.help {
        let _ = writeln!(out, " = help: {}", escape(help));
    }
    out.push('\n');
}

fn snippet<'a>(
    place: &Place,
    label: Option<&str>,
    sources: &'a BTreeMap<&Path, String>,
) -> Element<'a> {
    let path = escape(&place.file.to_string_lossy());
    let Some(text) = sources.get(&*place.file) else {
        return Origin::path(path).line(place.line as usize).into();
    };
    let mut span = place.span.clone();
    let is_whole = text.is_char_boundary(span.start) && text.is_char_boundary(span.end);
    if !is_whole || span.is_empty() {
        span = line_span(text, place.line);
    }
    // A span over several lines (a whole table) is shown by its first.
    if let Some(end) = text.get(span.clone()).and_then(|t| t.find('\n')) {
        span.end = span.start + end;
    }
    let mut mark = AnnotationKind::Primary.span(span);
    if let Some(label) = label {
        mark = mark.label(escape(label));
    }
    Snippet::source(text.as_str()).path(path).annotation(mark).into()
}

/// The bytes of a line (from 1), without the white space around it.
fn line_span(text: &str, line: u32) -> Range<usize> {
    let mut start = 0;
    for (n, part) in (1u32..).zip(text.split('\n')) {
        if n == line {
            let trimmed = part.trim();
            let lead = part.len() - part.trim_start().len();
            return start + lead..start + lead + trimmed.len();
        }
        start += part.len() + 1;
    }
    text.len()..text.len()
}

/// A text of a stranger's, on one line and without anything that moves a terminal's cursor.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            c if is_unprintable(c) => {
                let _ = write!(out, "{}", c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}

fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A file's text as it may be shown: without control characters and without what looks like a key.
/// Every character keeps its length in bytes, so that spans stay true.
fn presentable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut end = None;
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            out.push('\n');
        }
        // In a list, whatever begins with a letter or a bracket is the next key or table.
        let is_next = line.trim_start().starts_with(|c: char| c.is_ascii_alphabetic() || c == '[');
        if end == Some("]") && is_next {
            end = None;
        }
        let secret = match end {
            Some(mark) => {
                end = end.filter(|_| !line.trim_end().ends_with(mark));
                Some(0..line.len())
            }
            None => {
                end = goes_on_until(line);
                key_in_line(line)
            }
        };
        for (at, c) in line.char_indices() {
            let hidden = secret.as_ref().is_some_and(|range| range.contains(&at));
            match (c, c.len_utf8()) {
                ('\t', _) => out.push('\t'),
                _ if !hidden && !is_unprintable(c) => out.push(c),
                ('\r', _) => out.push(' '),
                (_, 1) => out.push(if hidden { '*' } else { '?' }),
                (_, 2) => out.push('\u{b7}'),
                (_, 3) => out.push('\u{fffd}'),
                (_, n) => (0..n).for_each(|_| out.push('*')),
            }
        }
    }
    out
}

/// The bytes of a line that are nobody's to see: the value of an option that is a secret, and what looks
/// like the key of an `identity:key` line which strayed into a configuration file.
fn key_in_line(line: &str) -> Option<Range<usize>> {
    match (secret_value(line), stray_key(line)) {
        (Some(one), Some(other)) => Some(one.start.min(other.start)..one.end.max(other.end)),
        (one, other) => one.or(other),
    }
}

/// What stands behind the equals sign of a secret option, in either dialect, also as `table.key = ...` and
/// in `{ key = ... }`; to the end of the line, because what follows may be part of it.
fn secret_value(line: &str) -> Option<Range<usize>> {
    let lower = line.to_ascii_lowercase();
    let secret = TABLE.iter().filter(|row| row.opt.is_secret());
    let names =
        secret.flat_map(|row| row.stunnel.iter().copied().chain(row.native.map(|(_, key)| key)));
    let values = names.filter_map(|name| {
        let after = lower.find(&name.to_ascii_lowercase())? + name.len();
        Some(after + lower.get(after..)?.find('=')? + 1)
    });
    values.min().map(|start| start..line.len())
}

/// What ends a secret that begins in this line, if it has several.
fn goes_on_until(line: &str) -> Option<&'static str> {
    let value = line.get(secret_value(line)?)?.trim();
    let text = ["\"\"\"", "'''"].into_iter().find(|mark| value.starts_with(mark));
    let goes_on = match text {
        Some(mark) => !value.get(mark.len()..)?.contains(mark),
        None => value.starts_with('[') && !value.ends_with(']'),
    };
    goes_on.then(|| text.unwrap_or("]"))
}

/// An equals sign makes a line an option, unless it can only be base64's padding.
fn stray_key(line: &str) -> Option<Range<usize>> {
    let is_padding = |c: char| matches!(c, '=' | '"' | '\'' | ',' | ']' | ' ' | '\t' | '\r');
    let option =
        line.split_once('=').filter(|(_, value)| !value.trim_matches(is_padding).is_empty());
    let Some((name, value)) = option else {
        let text = line.trim_start().trim_start_matches(['"', '\'']);
        // `"[2001:db8::1]:3001",` or `"unix:/run/plc.sock",` in a list of addresses.
        let is_address = text.starts_with('[') || text.starts_with("unix:/");
        return if is_address { None } else { after_colon(line, 0) };
    };
    if let Some(key) = after_colon(name, 0) {
        return Some(key);
    }
    let start = line.len() - value.len();
    let bare = value.trim_matches(|c: char| is_padding(c) && c != '=' || c == '[');
    match name.trim().trim_matches(['"', '\'']).to_ascii_lowercase().as_str() {
        // Lists of words with colons between them.
        "ciphers" | "ciphersuites" | "groups" | "curves" | "curve" => None,
        "psk-secrets" | "psksecrets" | "psk-identity" | "pskidentity" => after_colon(line, start),
        _ if bare.starts_with("unix:/") || !looks_like_key_line(bare) => None,
        _ => after_colon(line, start),
    }
}

/// What stands behind the first colon after `start`, if it is long enough for a key.
fn after_colon(line: &str, start: usize) -> Option<Range<usize>> {
    let colon = start + line.get(start..)?.find(':')?;
    let after = line.get(colon + 1..)?;
    let end = after.trim_end().trim_end_matches([',', ']', ' ', '"', '\'']).len();
    let is_long = after.get(..end)?.chars().count() >= MIN_KEY_LENGTH;
    is_long.then(|| colon + 1..colon + 1 + end)
}

impl Serialize for Severity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_struct("Diagnostic", 6)?;
        s.serialize_field("severity", &self.severity)?;
        s.serialize_field("code", self.code)?;
        s.serialize_field("place", &self.place)?;
        s.serialize_field("message", &escape(&self.message))?;
        s.serialize_field("label", &self.label.as_deref().map(escape))?;
        s.serialize_field("help", &self.help.as_deref().map(escape))?;
        s.end()
    }
}

/// The findings without the texts: what a program wants, and nothing that could hold a key.
impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_struct("Report", 4)?;
        s.serialize_field("errors", &self.count(Severity::Error))?;
        s.serialize_field("warnings", &self.count(Severity::Warning))?;
        s.serialize_field("notices", &self.count(Severity::Notice))?;
        s.serialize_field("diagnostics", &self.diagnostics)?;
        s.end()
    }
}

/// A file's text and where its lines begin: makes places out of byte ranges.
pub(crate) struct SourceText {
    file: Arc<Path>,
    text: Arc<str>,
    lines: Vec<usize>,
}

impl SourceText {
    pub(crate) fn new(file: Arc<Path>, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        Self { file, text, lines }
    }

    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        let index = self.lines.partition_point(|start| *start <= span.start).saturating_sub(1);
        let start = self.lines.get(index).copied().unwrap_or(0);
        let before = self.text.get(start..span.start).map_or(0, |t| t.chars().count());
        Place { file: self.file.clone(), line: number(index + 1), column: number(before + 1), span }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn register(&self, report: &mut Report) {
        report.sources.insert(self.file.clone(), self.text.clone());
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
