//! The same configuration in the other dialect: what was written, with its comments, and every default in
//! which the two differ.
//!
//! It goes from ParsedFile to text and never through the model, so that nothing that was written is lost to
//! what it comes to. What cannot be kept stays as a comment in its place and is a finding of the report.
//! An option that decides who gets in, and that stunnel does not have, becomes a comment that pskgate reads and
//! stunnel ignores, with a warning. One that no such comment can carry stays as a line: the new file is refused
//! until somebody has taken that line out.

mod conf;
mod native;

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics, Severity, SourceLocation};
use super::load::{self, Format};
use super::model::Dialect;
use super::options::{OptionRow, Treatment};
use super::parsed_file::ParsedFile;
use super::validate;

/// What is wanted.
#[derive(Debug)]
pub struct ConversionRequest<'a> {
    /// How to tell which language the file is written in.
    pub format: Format,
    /// The language of the new file.
    pub to: Dialect,
    /// The directory in which stunnel is started: what relative names in a stunnel.conf begin at.
    pub start: &'a Path,
    /// The folder of the new file, where it is known.
    pub home: Option<&'a Path>,
    /// The folder of logs of the systemd unit that will run a native file as a user of its own.
    pub unit_logs: Option<&'a Path>,
}

/// The new file, and what was to be said about it.
#[derive(Debug)]
pub struct Converted {
    /// Its text.
    pub text: String,
    /// What has no counterpart or another meaning (errors and warnings), and what is good to know.
    pub report: Diagnostics,
}

/// Writes the file `name` with these contents anew.
///
/// # Errors
/// Everything that is wrong with the file, but for options that the program refuses because it does not
/// have them; or that it has this language already, or serves inetd, for which a native file has nothing.
pub fn convert(
    text: &[u8],
    name: &Path,
    order: &ConversionRequest<'_>,
) -> Result<Converted, Diagnostics> {
    let from = order.format.dialect(name);
    let base = match from {
        Dialect::Stunnel => order.start.to_path_buf(),
        Dialect::Native => {
            order.start.join(name).parent().map(Path::to_path_buf).unwrap_or_default()
        }
    };
    let mut found = Diagnostics::default();
    let refused = |mut report: Diagnostics, diagnostic: Option<Diagnostic>| {
        report.diagnostics.retain(|found| found.severity == Severity::Error);
        report.diagnostics.extend(diagnostic);
        report.sort();
        Err(report)
    };
    if from == order.to {
        let (message, help) = match from {
            Dialect::Native => {
                ("this is a native file already", "--to stunnel writes a stunnel.conf")
            }
            Dialect::Stunnel => ("this is a stunnel.conf already", "leave out --to stunnel"),
        };
        return refused(found, Some(Diagnostic::error("same-dialect", message).help(help)));
    }
    let Some(parsed) = load::read(text, name, &base, order.format, &mut found) else {
        return refused(found, None);
    };
    validate::validate(&parsed, &mut found);
    let missing = |found: &Diagnostic| {
        found.severity == Severity::Error
            && !found.place.as_ref().is_some_and(|place| unsupported(&parsed, place))
    };
    if found.diagnostics.iter().any(missing) {
        return refused(found, None);
    }
    if parsed.services.is_empty() {
        let inetd = Diagnostic::error(
            "no-counterpart",
            "a file without a [section] serves one connection of inetd's, and a native file cannot",
        )
        .help("keep the stunnel.conf, which works as it is; or write a section with accept");
        return refused(found, Some(inetd));
    }
    let (text, mut report) = match order.to {
        Dialect::Native => native::write(&parsed, &found, order.home, order.unit_logs),
        Dialect::Stunnel => conf::write(&parsed, &found),
    };
    report.sources = found.sources;
    report.included = found.included;
    report.sort();
    Ok(Converted { text, report })
}

/// Whether an option stands there that does not work here whatever its value.
fn unsupported(parsed: &ParsedFile, place: &SourceLocation) -> bool {
    let parts = parsed.services.iter().map(|service| &service.values);
    [&parsed.global, &parsed.defaults].into_iter().chain(parts).any(|values| {
        values
            .iter()
            .any(|(opt, said)| opt.row().treatment != Treatment::Works && said.place == *place)
    })
}

/// What the checks said of the option at that place.
fn finding<'a>(found: &'a Diagnostics, place: &SourceLocation) -> Option<&'a Diagnostic> {
    found.diagnostics.iter().find(|one| one.place.as_ref() == Some(place))
}

/// A line of the old file, in one line and without a key, for a comment.
fn original(found: &Diagnostics, place: &SourceLocation) -> String {
    found.line(place)
}

/// A comment of the old file, begun with a hash and fit for either dialect: no control characters.
fn comment(line: &str) -> String {
    let text = line.strip_prefix(['#', ';']).unwrap_or(line).trim_end();
    match text {
        "" if line.is_empty() => String::new(),
        "" => "#".into(),
        text => format!("#{}", super::diagnostic::escape(text)),
    }
}

/// The name by which stunnel knows an option.
fn stunnel_name(row: &OptionRow) -> &'static str {
    row.stunnel.first().copied().unwrap_or_default()
}

/// A name of a file as the new file has it.
fn anchored(path: &Path, base: &Path, home: Option<&Path>) -> (PathBuf, bool) {
    if path.is_absolute() || home == Some(base) {
        (path.to_path_buf(), false)
    } else {
        (base.join(path), true)
    }
}
