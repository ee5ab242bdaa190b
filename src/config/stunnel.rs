//! The grammar of a stunnel.conf: bytes in lines, options, sections, included directories.
//!
//! It is read as stunnel 5.75 reads it, down to what looks like an accident: files in the field
//! depend on that. Only one thing differs, and on purpose: reading goes on after a mistake, so that
//! all of them are seen at once.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Diagnostics, SourceLocation, SourceText};
use super::key_shape::looks_like_key_line;
use super::model::Dialect;
use super::options::{self, OptionId, OptionRow, StunnelScope, ValueKind};
use super::parsed_file::{ParsedFile, ParsedSection, Spanned, Value, Values};
use super::value;
use crate::sys::file_digest;

mod command;
pub(super) mod in_comments;
use command::Meaning;
use in_comments::InComments;

/// A longer line is two lines to stunnel.
const LINE_LIMIT: usize = 16_383;

/// So many files are open at most with stunnel 5.81 and later, the first one among them; a directory can
/// include itself.
const DEPTH_LIMIT: usize = 100;

/// Nor so many files: two that include their own directory would double at each depth.
const FILE_LIMIT: usize = 1_000;

/// Reads a file's bytes, and the directories it includes.
pub(super) fn read(bytes: &[u8], name: &Path, base: &Path, report: &mut Diagnostics) -> ParsedFile {
    let file: Arc<Path> = Arc::from(name);
    let mut reader = ConfReader {
        parsed: ParsedFile::new(Dialect::Stunnel, file.clone(), base),
        report,
        included: 0,
        remarks: Vec::new(),
        commands: Vec::new(),
        own_commands: Vec::new(),
        in_comments: InComments::default(),
    };
    reader.file(bytes, file, 0);
    reader.apply_commands();
    reader.count_in_comments();
    reader.parsed.remarks = reader.remarks;
    reader.parsed
}

struct ConfReader<'a> {
    parsed: ParsedFile,
    report: &'a mut Diagnostics,
    /// How many files were included so far.
    included: usize,
    /// The comments and empty lines above the next option or section.
    remarks: Vec<String>,
    /// What `config` says before the first section.
    commands: Vec<CommandValue>,
    /// What it says in the section that is being read.
    own_commands: Vec<CommandValue>,
    /// Options in comments.
    in_comments: InComments,
}

/// A value that `config` gives an option.
#[derive(Clone)]
struct CommandValue {
    opt: OptionId,
    value: Spanned<Value>,
    remarks: Vec<String>,
}

impl ConfReader<'_> {
    fn file(&mut self, bytes: &[u8], file: Arc<Path>, depth: usize) {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let lines = Lines::new(bytes);
        let source = SourceText::new(file, lines.shown.as_str());
        source.register(self.report);
        for line in &lines.lines {
            self.line(line, &source, depth);
        }
    }

    fn line(&mut self, line: &ConfLine, source: &SourceText, depth: usize) {
        let whole = source.place(line.span(0..line.bytes.len()));
        let Some(split) = split(&line.bytes) else {
            if !self.comment(line, source) {
                return;
            }
            let text = String::from_utf8_lossy(&line.bytes).trim().to_owned();
            let parsed = &mut self.parsed;
            let unbegun = parsed.global.is_empty()
                && parsed.defaults.is_empty()
                && parsed.services.is_empty();
            if text.is_empty() && unbegun {
                parsed.preamble.append(&mut self.remarks);
            }
            self.remarks.push(text);
            return;
        };
        match split {
            Split::Section(name) => {
                if !self.parsed.services.is_empty() {
                    self.apply_commands();
                }
                let name = String::from_utf8_lossy(name).into_owned();
                let name = Spanned { value: name, place: whole };
                let remarks = std::mem::take(&mut self.remarks);
                self.parsed.services.push(ParsedSection {
                    name,
                    remarks,
                    values: Values::default(),
                });
            }
            Split::NoEquals => {
                // `accept 3001`
                let text = String::from_utf8_lossy(&line.bytes);
                let first = text.split_whitespace().next().unwrap_or_default();
                if let Some(row) = options::stunnel(first) {
                    self.values(row).tried(row.opt);
                }
                self.report.push(
                    Diagnostic::error("no-equals-sign", "No '=' found")
                        .at(whole)
                        .help("write NAME = VALUE, [SECTION], or # before a comment"),
                );
            }
            Split::Option { name, value } => {
                let at = |range: Range<usize>| {
                    if range.is_empty() { whole.clone() } else { source.place(line.span(range)) }
                };
                let text = String::from_utf8_lossy(line.bytes.get(name.clone()).unwrap_or(&[]));
                let bytes = line.bytes.get(value.clone()).unwrap_or(&[]);
                self.option(&text, at(name), bytes, at(value), depth);
            }
        }
    }

    fn option(
        &mut self,
        name: &str,
        name_at: SourceLocation,
        bytes: &[u8],
        at: SourceLocation,
        depth: usize,
    ) {
        let in_section = !self.parsed.services.is_empty();
        let Some(row) = options::stunnel(name) else {
            self.report_unknown(name, name_at, bytes);
            return;
        };
        if row.scope == StunnelScope::Global && in_section {
            self.report.push(
                Diagnostic::error("misplaced-option", "Specified option name is not valid here")
                    .at(name_at)
                    .help("this is a global option: move it before the first [section]"),
            );
            return;
        }
        // An empty pid is how stunnel is told to write none.
        if matches!(row.opt, OptionId::Pid | OptionId::Chroot) && bytes.is_empty() {
            self.keep(row, Spanned { value: Value::Text(String::new()), place: at });
            return;
        }
        if row.opt == OptionId::LogLevel && in_section && bytes.contains(&b'.') {
            let found = Diagnostic::error("unknown-value", "Illegal debug level");
            self.report.push(
                found
                    .at(at)
                    .help("a facility is for the whole file: write it before the first [section]"),
            );
            return;
        }
        // Nobody speaks SSLv3 here, and as a lower bound it forbids nothing.
        if row.opt == OptionId::TlsMin && bytes.eq_ignore_ascii_case(b"SSLv3") {
            let found = Diagnostic::warning(
                "obsolete-version",
                "SSLv3 is never used: this bound has no effect",
            );
            self.report.push(found.at(at.clone()).help("write TLSv1.2"));
            self.keep(row, Spanned { value: Value::Version(None), place: at });
            return;
        }
        // `protocol` is two options in one: what backends are told, and what is spoken around TLS.
        if row.opt == OptionId::Protocol
            && let Ok(value) = value::read_bytes(ValueKind::Negotiation, bytes)
        {
            self.keep(OptionId::Negotiation.row(), Spanned { value, place: at });
            return;
        }
        if row.opt == OptionId::SslConfig {
            self.config(bytes, &at);
            return;
        }
        if row.opt == OptionId::Socket && is_of_udp(bytes) {
            let message = "`socket` has no effect: this option is of UDP, and TLS runs over TCP";
            self.report.push(Diagnostic::notice("without-effect", message).at(at));
            return;
        }
        self.read_value(row, bytes, at, depth);
    }

    /// An option that the table does not have, or a line of a key file in the wrong place.
    fn report_unknown(&mut self, name: &str, name_at: SourceLocation, bytes: &[u8]) {
        let whole = String::from_utf8_lossy(bytes);
        let names = options::TABLE.iter().flat_map(|row| row.stunnel.iter().copied());
        let near = options::nearest(name, names);
        let found = if looks_like_key_line(name) || looks_like_key_line(&format!("{name}={whole}"))
        {
            Diagnostic::error("key-in-configuration", "this looks like an identity and its key")
                .help("put it into a file of its own and name that file with PSKsecrets")
        } else {
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "there is no such option".into(),
            };
            Diagnostic::error("unknown-option", "Specified option name is not valid here")
                .label("unknown option")
                .help(help)
        };
        self.report.push(found.at(name_at));
        if let Some(row) = near.and_then(options::stunnel) {
            self.values(row).tried(row.opt);
        }
    }

    fn read_value(&mut self, row: &OptionRow, bytes: &[u8], at: SourceLocation, depth: usize) {
        match value::read_bytes(row.kind, bytes) {
            Ok(Value::Path(dir)) if row.opt == OptionId::Include => self.include(&dir, at, depth),
            Ok(value) => {
                // `debug` is two options in one.
                if let (OptionId::LogLevel, Some(dot)) =
                    (row.opt, bytes.iter().position(|b| *b == b'.'))
                    && let Ok(value) = value::read_bytes(ValueKind::Facility, &bytes[..dot])
                {
                    self.keep(OptionId::LogFacility.row(), Spanned { value, place: at.clone() });
                }
                self.keep(row, Spanned { value, place: at });
            }
            Err(wrong) => {
                self.values(row).tried(row.opt);
                self.report
                    .push(Diagnostic::error(wrong.code, wrong.message).at(at).help(wrong.help));
            }
        }
    }

    /// A command of OpenSSL's.
    fn config(&mut self, bytes: &[u8], at: &SourceLocation) {
        let text = String::from_utf8_lossy(bytes);
        let read = |(opt, value): (OptionId, String)| {
            let value = value::read_bytes(opt.row().kind, value.as_bytes())?;
            let value = Spanned { value, place: at.clone() };
            Ok(CommandValue { opt, value, remarks: Vec::new() })
        };
        let commands = command::meaning(&text).and_then(|meaning| match meaning {
            Meaning::Options(options) => options.into_iter().map(read).collect(),
            Meaning::Nothing(why) => {
                let message = format!("`config` has no effect here: {why}");
                let found = Diagnostic::notice("without-effect", message);
                self.report.push(found.at(at.clone()));
                Ok(Vec::new())
            }
        });
        match commands {
            Ok(mut commands) => {
                if let Some(first) = commands.first_mut() {
                    first.remarks = std::mem::take(&mut self.remarks);
                    first.remarks.push(format!("# config = {text}"));
                }
                let global = self.parsed.services.is_empty();
                let said = if global { &mut self.commands } else { &mut self.own_commands };
                said.append(&mut commands);
            }
            Err(wrong) => {
                self.values(OptionId::SslConfig.row()).tried(OptionId::SslConfig);
                let found = Diagnostic::error(wrong.code, wrong.message);
                self.report.push(found.at(at.clone()).help(wrong.help));
            }
        }
    }

    /// Gives the options what `config` has said of them, at the end of a section: wherever it stands, it
    /// has the last word, and one before the sections also where a section speaks of the option itself.
    /// Where a section has commands of its own, up to stunnel 5.75 they were added to the global ones.
    fn apply_commands(&mut self) {
        let own = std::mem::take(&mut self.own_commands);
        let values = match self.parsed.services.last_mut() {
            Some(service) => &mut service.values,
            None => &mut self.parsed.defaults,
        };
        // A section's own commands replace the global ones, as in stunnel 5.76 and later.
        if let (Some(first), false) = (own.first(), self.commands.is_empty()) {
            let message = "`config` of this section replaces the global one; up to stunnel 5.75 it was added to it";
            let found = Diagnostic::warning("list-replaced", message).at(first.value.place.clone());
            self.report.push(found.help(
                "for the same in every version, remove the global `config` and write in each section all that \
                 it shall have",
            ));
        }
        let said = if own.is_empty() { self.commands.clone() } else { own };
        for CommandValue { opt, value, remarks } in said {
            values.remark(remarks);
            values.push(opt, value);
        }
    }

    /// Where an option of this row goes that stands here.
    fn values(&mut self, row: &OptionRow) -> &mut Values {
        match self.parsed.services.last_mut() {
            Some(service) => &mut service.values,
            None if row.scope == StunnelScope::Global || row.opt == OptionId::LogLevel => {
                &mut self.parsed.global
            }
            None => &mut self.parsed.defaults,
        }
    }

    fn keep(&mut self, row: &OptionRow, value: Spanned<Value>) {
        let remarks = std::mem::take(&mut self.remarks);
        let values = self.values(row);
        values.remark(remarks);
        if row.opt == OptionId::TlsVersion {
            // It is short for both, and a later line about one of them has the last word.
            values.push(OptionId::TlsMin, value.clone());
            values.push(OptionId::TlsMax, value);
        } else {
            values.push(row.opt, value);
        }
    }

    /// Every regular file of a directory, in the order of the bytes of their names: stunnel sorts
    /// with strcoll in the C locale. Names with a leading dot and editors' backups are included too.
    fn include(&mut self, dir: &Path, at: SourceLocation, depth: usize) {
        let fail = |report: &mut Diagnostics, message: String, help: &str| {
            report.push(Diagnostic::error("include-failed", message).at(at.clone()).help(help));
        };
        if self.included > FILE_LIMIT {
            return;
        }
        let path = self.parsed.base.join(dir);
        self.report.folders.insert(path.clone());
        let mut files: Vec<PathBuf> = match std::fs::read_dir(&path) {
            Ok(entries) => entries.filter_map(|e| e.ok().map(|e| e.path())).collect(),
            Err(e) => {
                self.parsed.has_unplaced = true;
                fail(
                    self.report,
                    format!("cannot read the directory {}: {e}", dir.display()),
                    "include takes a directory, not a file",
                );
                return;
            }
        };
        files.retain(|file| file.is_file());
        self.remarks.push(format!("# include = {}", dir.display()));
        files.sort_by(|a, b| {
            let name = |p: &Path| p.as_os_str().as_encoded_bytes().to_vec();
            name(a).cmp(&name(b))
        });
        for file in files {
            if depth + 1 >= DEPTH_LIMIT {
                self.included = FILE_LIMIT + 1;
                self.parsed.has_unplaced = true;
                let shown = file.display();
                let message = format!(
                    "Include stack overflow while including \"{shown}\" (maximum depth {DEPTH_LIMIT}); \
                     recursive includes suspected"
                );
                fail(self.report, message, "a directory must not include itself");
                return;
            }
            self.included += 1;
            if self.included > FILE_LIMIT {
                // Said once: whoever noticed first has said it, or it is one very full directory.
                if self.included == FILE_LIMIT + 1 {
                    let message = format!("more than {FILE_LIMIT} files are included");
                    fail(self.report, message, "include fewer");
                }
                return;
            }
            // As it would be typed from where the program was started.
            let shown: PathBuf = match file.file_name() {
                Some(name) => dir.join(name),
                None => file.clone(),
            };
            match file_digest::read_with_digest(&file) {
                Ok((bytes, digest)) => {
                    self.report.read.insert(file, Some(digest));
                    let shown: Arc<Path> = Arc::from(shown);
                    self.report.included.insert(shown.clone(), at.clone());
                    self.remarks.push(format!("# from {}:", shown.display()));
                    self.file(&bytes, shown, depth + 1);
                }
                Err(e) => {
                    self.parsed.has_unplaced = true;
                    self.report.read.insert(file, None);
                    fail(
                        self.report,
                        format!("cannot read {}: {e}", shown.display()),
                        "make it readable, or move it out of the directory",
                    );
                }
            }
        }
    }
}

/// Whether `socket` is about an option of UDP, which stunnel 5.79 and later know and a TCP socket ignores.
fn is_of_udp(bytes: &[u8]) -> bool {
    const OPTIONS: [&[u8]; 6] = [
        b"UDP_CORK",
        b"UDP_ENCAP",
        b"UDP_NO_CHECK6_TX",
        b"UDP_NO_CHECK6_RX",
        b"UDP_SEGMENT",
        b"UDP_GRO",
    ];
    let [b'a' | b'l' | b'r', b':', rest @ ..] = bytes else { return false };
    let mut parts = rest.splitn(2, |byte| *byte == b'=');
    let is_known = parts.next().is_some_and(|name| OPTIONS.contains(&name));
    let value = parts.next().unwrap_or_default();
    is_known && !value.is_empty() && value.iter().all(u8::is_ascii_alphanumeric)
}

enum Split<'a> {
    Section(&'a [u8]),
    NoEquals,
    Option { name: Range<usize>, value: Range<usize> },
}

/// What isspace(3) means in the C locale; CR is gone already.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn trim(bytes: &[u8], range: Range<usize>) -> Range<usize> {
    let part = bytes.get(range.clone()).unwrap_or(&[]);
    let lead = part.iter().take_while(|b| is_space(**b)).count();
    let trail = part.iter().rev().take_while(|b| is_space(**b)).count();
    range.start + lead..(range.end - trail).max(range.start + lead)
}

fn split(bytes: &[u8]) -> Option<Split<'_>> {
    let all = trim(bytes, 0..bytes.len());
    let text = bytes.get(all.clone()).unwrap_or(&[]);
    match text {
        [] | [b'#' | b';', ..] => None,
        [b'[', name @ .., b']'] => Some(Split::Section(name)),
        _ => Some(match text.iter().position(|b| *b == b'=') {
            None => Split::NoEquals,
            Some(equals) => {
                let equals = all.start + equals;
                Split::Option {
                    name: trim(bytes, all.start..equals),
                    value: trim(bytes, equals + 1..all.end),
                }
            }
        }),
    }
}

/// A line as stunnel sees it, and where it is in the shown text.
struct ConfLine {
    bytes: Vec<u8>,
    shown: Range<usize>,
    /// Byte for byte the shown text, so that a part of it can be pointed at.
    exact: bool,
}

impl ConfLine {
    fn span(&self, range: Range<usize>) -> Range<usize> {
        if self.exact {
            self.shown.start + range.start..self.shown.start + range.end
        } else {
            self.shown.clone()
        }
    }
}

struct Lines {
    lines: Vec<ConfLine>,
    /// The file as it can be shown: UTF-8, with the same lines.
    shown: String,
}

impl Lines {
    fn new(bytes: &[u8]) -> Self {
        let mut lines = Vec::new();
        let mut shown = String::with_capacity(bytes.len());
        for (n, physical) in bytes.split(|b| *b == b'\n').enumerate() {
            if n > 0 {
                shown.push('\n');
            }
            let start = shown.len();
            shown.push_str(&String::from_utf8_lossy(physical));
            let kept: Vec<u8> = physical.iter().copied().filter(|b| *b != b'\r').collect();
            let unchanged = physical.strip_suffix(b"\r").unwrap_or(physical).len() == kept.len();
            let is_utf8 = std::str::from_utf8(physical).is_ok();
            if kept.is_empty() {
                lines.push(ConfLine { bytes: Vec::new(), shown: start..shown.len(), exact: false });
            }
            for (chunk_number, chunk) in kept.chunks(LINE_LIMIT).enumerate() {
                let end = chunk.iter().position(|b| *b == 0).unwrap_or(chunk.len());
                let content = chunk.get(..end).unwrap_or(chunk).to_vec();
                let offset = start + chunk_number * LINE_LIMIT;
                let exact = unchanged
                    && is_utf8
                    && shown.is_char_boundary(offset)
                    && shown.is_char_boundary(offset + content.len());
                let span = if exact { offset..offset + content.len() } else { start..shown.len() };
                lines.push(ConfLine { bytes: content, shown: span, exact });
            }
        }
        Self { lines, shown }
    }
}

#[cfg(test)]
mod tests;
