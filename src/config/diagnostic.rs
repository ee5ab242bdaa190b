//! What is wrong, where, and what to do about it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use serde::ser::{Serialize, SerializeStruct, Serializer};

pub use super::location::SourceLocation;
use super::redaction::{is_unprintable, presentable};
use crate::sys::file_digest::FileDigest;

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
    pub place: Option<SourceLocation>,
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
    pub fn at(mut self, place: impl Into<Option<SourceLocation>>) -> Self {
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
pub struct Diagnostics {
    /// In the order they were found.
    pub diagnostics: Vec<Diagnostic>,
    /// File → text, for snippets.
    pub sources: BTreeMap<Arc<Path>, Arc<str>>,
    /// An included file → the line that included it.
    pub included: BTreeMap<Arc<Path>, SourceLocation>,
    /// A file of the configuration, by the name under which it was opened → what was read of it; none if
    /// it could not be read.
    pub read: BTreeMap<PathBuf, Option<FileDigest>>,
    /// The directories of included files, by the names under which they were opened.
    pub folders: BTreeSet<PathBuf>,
}

impl Diagnostics {
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
    pub fn extend(&mut self, other: Diagnostics) {
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

    /// The errors and warnings in the shape in which stunnel prints them, for programs that parse its
    /// output, each with a line that says what to do. Ends with `Configuration failed` when anything is an
    /// error.
    pub fn render_stunnel(&self) -> String {
        let mut out = String::new();
        for d in &self.diagnostics {
            self.render_one_stunnel(d, &mut out);
            if let Some(help) = &d.help {
                let _ = writeln!(out, "[.] help: {}", escape(help));
            }
        }
        if self.has_errors() {
            out.push_str("[!] Configuration failed\n");
        }
        out
    }

    fn render_one_stunnel(&self, d: &Diagnostic, out: &mut String) {
        let mark = match d.severity {
            Severity::Error => '!',
            Severity::Warning => ':',
            Severity::Notice => '.',
        };
        let message = escape(&d.message);
        let Some(place) = &d.place else {
            let _ = writeln!(out, "[{mark}] {message}");
            return;
        };
        let line = self.line(place);
        // A finding about a whole section stands at its head.
        let marked = self.sources.get(&place.file).and_then(|t| t.get(place.span.clone()));
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']'))
            && marked.is_some_and(|text| text.trim_start().starts_with('['))
        {
            let _ = writeln!(out, "[{mark}] Service [{name}]: {message}");
            return;
        }
        let file = escape(&place.file.to_string_lossy());
        // Of a key file there is a number only.
        let line = match self.sources.contains_key(&place.file) {
            true => format!(" \"{line}\":"),
            false => String::new(),
        };
        let _ = writeln!(out, "[{mark}] {file}:{}:{line} {message}", place.line);
        if d.severity == Severity::Error {
            self.render_includes_stunnel(place, out);
        }
    }

    /// The lines that included a file, from the inside out.
    fn render_includes_stunnel(&self, place: &SourceLocation, out: &mut String) {
        /// A file cannot include itself for ever: the reader limits the depth.
        const MAX_DEPTH: usize = 64;
        let mut place = place;
        for _ in 0..MAX_DEPTH {
            let Some(by) = self.included.get(&place.file) else { return };
            let file = escape(&by.file.to_string_lossy());
            let line = self.line(by);
            let _ = writeln!(out, "[!] {file}:{}: \"{line}\": Failed to include a file", by.line);
            place = by;
        }
    }

    /// The trimmed line at `place`, fit to be printed.
    pub(super) fn line(&self, place: &SourceLocation) -> String {
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
fn render_without_text(d: &Diagnostic, place: &SourceLocation, out: &mut String) {
    let path = escape(&place.file.to_string_lossy());
    let _ = writeln!(out, "{}[{}]: {}", d.severity.word(), d.code, escape(&d.message));
    let _ = writeln!(out, "--> {path}:{}", place.line);
    if let Some(help) = &d.help {
        let _ = writeln!(out, " = help: {}", escape(help));
    }
    out.push('\n');
}

fn snippet<'a>(
    place: &SourceLocation,
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
impl Serialize for Diagnostics {
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

    pub(crate) fn place(&self, span: Range<usize>) -> SourceLocation {
        let index = self.lines.partition_point(|start| *start <= span.start).saturating_sub(1);
        let start = self.lines.get(index).copied().unwrap_or(0);
        let before = self.text.get(start..span.start).map_or(0, |t| t.chars().count());
        SourceLocation {
            file: self.file.clone(),
            line: number(index + 1),
            column: number(before + 1),
            span,
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn register(&self, report: &mut Diagnostics) {
        report.sources.insert(self.file.clone(), self.text.clone());
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
