//! The lines of a doctor: a word, what it is about, what is so, and what to do.

use serde::Serialize;

use crate::cli::{exit, print_error, print_result};
use crate::config::diagnostic::{Diagnostic, Severity, escape};

/// The word at the beginning of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Looked at, and well.
    Ok,
    /// Good to know, or not looked at.
    Note,
    /// It works, but not wisely, or not for long.
    Warn,
    /// It does not work.
    Bad,
}

/// Whose fault it is, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// A file's or a setting's.
    Config,
    /// An address's or a peer's.
    Unavailable,
}

#[derive(Debug, Serialize)]
struct FindingLine {
    verdict: Verdict,
    about: &'static str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    /// What `explain` knows more about.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// What was found so far. For people a line is printed when it is found: some take a while.
#[derive(Debug)]
pub(super) struct Findings {
    json: bool,
    lines: Vec<FindingLine>,
    worst: Option<FaultKind>,
    /// What writing to standard output came to.
    written: u8,
}

impl Findings {
    pub(super) fn new(json: bool) -> Self {
        Self { json, lines: Vec::new(), worst: None, written: exit::OK }
    }

    pub(super) fn ok(&mut self, about: &'static str, text: String) {
        self.push(Verdict::Ok, about, text, None, None);
    }

    pub(super) fn note(&mut self, about: &'static str, text: String) {
        self.push(Verdict::Note, about, text, None, None);
    }

    pub(super) fn warn(&mut self, about: &'static str, text: String, help: &str) {
        self.push(Verdict::Warn, about, text, Some(help.into()), None);
    }

    pub(super) fn bad(&mut self, about: &'static str, kind: FaultKind, text: String, help: &str) {
        self.record_fault(kind);
        self.push(Verdict::Bad, about, text, Some(help.into()), None);
    }

    /// The same with a code to read more about.
    pub(super) fn bad_with_code(
        &mut self,
        about: &'static str,
        kind: FaultKind,
        text: String,
        help: &str,
        code: &'static str,
    ) {
        self.record_fault(kind);
        self.push(Verdict::Bad, about, text, Some(help.into()), Some(code));
    }

    /// A finding of `check`'s.
    pub(super) fn diagnostic(&mut self, about: &'static str, found: &Diagnostic) {
        let place = found.place.as_ref();
        let place = place.map(|p| format!("{}:{}: ", p.file.display(), p.line)).unwrap_or_default();
        let verdict = match found.severity {
            Severity::Error => {
                self.record_fault(FaultKind::Config);
                Verdict::Bad
            }
            Severity::Warning => Verdict::Warn,
            Severity::Notice => Verdict::Note,
        };
        let text = format!("{place}{}", found.message);
        self.push(verdict, about, text, found.help.clone(), Some(found.code));
    }

    /// A setting comes before an address: without it nobody would be reached either.
    fn record_fault(&mut self, kind: FaultKind) {
        if self.worst != Some(FaultKind::Config) {
            self.worst = Some(kind);
        }
    }

    fn push(
        &mut self,
        verdict: Verdict,
        about: &'static str,
        text: String,
        help: Option<String>,
        code: Option<&'static str>,
    ) {
        let line = FindingLine { verdict, about, text, help, code };
        if !self.json {
            self.written = self.written.max(print_result(&line.render()));
        }
        self.lines.push(line);
    }

    /// Ends the report: the exit code.
    pub(super) fn finish(self) -> u8 {
        let mut written = self.written;
        if self.json {
            match serde_json::to_string_pretty(&self.lines) {
                Ok(text) => written = print_result(&text),
                Err(error) => {
                    print_error(&format!("pskgate: cannot write the findings as JSON: {error}"));
                    return exit::INTERNAL;
                }
            }
        }
        match self.worst {
            Some(FaultKind::Config) => exit::CONFIG,
            Some(FaultKind::Unavailable) => exit::UNAVAILABLE,
            None => written,
        }
    }
}

impl FindingLine {
    fn render(&self) -> String {
        let word = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Warn => "warn",
            Verdict::Bad => "bad",
        };
        let help = self.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
        let code = self.code.map(|code| format!(" [{code}]")).unwrap_or_default();
        escape(&format!("{word:4}  {}: {}{help}{code}", self.about, self.text))
    }
}
