//! What is wrong, where, and what to do about it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A spot in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as its reader named it.
    pub file: Arc<Path>,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// In bytes of the file's text; empty where only the line is known.
    pub span: Range<usize>,
}

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

/// All findings of one run, and the texts they point into. Key files are never among the texts: a
/// finding in one shows its line number only.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// In the order they were found.
    pub diagnostics: Vec<Diagnostic>,
    /// File → text, for snippets.
    pub sources: BTreeMap<Arc<Path>, Arc<str>>,
}
