//! What is wrong with a key file or a folder of them.

use std::io;
use std::path::{Path, PathBuf};

use super::{KeyEntry, OnDuplicate};

/// What a problem with a key file leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemSeverity {
    /// The set is not used.
    Error,
    /// The file is not used, and what a running program read from it before stays in force.
    KeepsOldKeys,
    /// The set is used.
    Warning,
    /// Shown by `check` alone.
    Note,
}

/// A problem with a key file. Never contains a key's text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyFileProblem {
    /// What it leads to.
    pub severity: ProblemSeverity,
    /// A stable name, lower case with hyphens.
    pub code: &'static str,
    /// The file; unset when no file was found at all.
    pub file: Option<PathBuf>,
    /// From 1.
    pub line: Option<u32>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl KeyFileProblem {
    pub(super) fn new(
        severity: ProblemSeverity,
        code: &'static str,
        file: &Path,
        message: impl Into<String>,
    ) -> Self {
        let file = Some(file.to_owned());
        Self { severity, code, file, line: None, message: message.into(), help: None }
    }

    pub(super) fn line(mut self, line: u32) -> Self {
        self.line = Some(line);
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// For a file without a key beside others that have some.
    pub(super) fn tolerate_empty_file(&mut self) {
        if self.code == "no-keys" && self.severity == ProblemSeverity::Error {
            self.severity = ProblemSeverity::Warning;
            self.help = Some("if that is not meant, write the file anew; otherwise leave it out of `psk-secrets`".into());
        }
    }

    pub(super) fn no_keys_at_all() -> Self {
        Self {
            severity: ProblemSeverity::Error,
            code: "no-keys",
            file: None,
            line: None,
            message: "there is not one key in the service's key files".into(),
            help: Some("write one with `pskgate keygen NAME --output FILE`".into()),
        }
    }

    /// A key file, or a folder of them, that has no key.
    pub(super) fn empty_file(severity: ProblemSeverity, path: &Path) -> Self {
        let message = format!("the key file {} holds no key", path.display());
        let help = "write one with `pskgate keygen NAME --output FILE`";
        Self::new(severity, "no-keys", path, message).help(help)
    }

    /// A folder that has not one key file, while keys from it are in force.
    pub(super) fn emptied_folder(folder: &Path) -> Self {
        let message = format!(
            "there is not one key in the service's key files under {}, where it had keys before",
            folder.display()
        );
        let help = "put the key files back; to take away the last key, use `pskgate keys remove NAME --last`";
        Self::new(ProblemSeverity::KeepsOldKeys, "no-keys", folder, message).help(help)
    }

    pub(super) fn truncated_key(entry: &KeyEntry) -> Self {
        let message = format!(
            "the file ends within the key of {}, of which it had the whole before",
            entry.identity
        );
        let help = "write the whole file; if the key is meant, end the line with a line feed";
        Self::new(ProblemSeverity::Error, "cut-key", &entry.file, message)
            .line(entry.line)
            .help(help)
    }

    pub(super) fn duplicate(entry: &KeyEntry, file: &Path, line: u32, rule: OnDuplicate) -> Self {
        let elsewhere = if *file == *entry.file {
            format!("line {line}")
        } else {
            format!("line {line} of {}", file.display())
        };
        let identity = &entry.identity;
        let (severity, help) = match rule {
            OnDuplicate::Refuse => (ProblemSeverity::Error, "remove one of the two lines"),
            OnDuplicate::LastWins => {
                (ProblemSeverity::Warning, "this line counts; remove the other")
            }
        };
        let message = format!("identity {identity} stands on {elsewhere} already");
        Self::new(severity, "duplicate-identity", &entry.file, message).line(entry.line).help(help)
    }
}

pub(super) fn unreadable_file(path: &Path, error: &io::Error) -> KeyFileProblem {
    let (code, help) = match error.kind() {
        io::ErrorKind::NotFound => ("no-such-file", help_for_missing(path)),
        io::ErrorKind::PermissionDenied => ("not-readable", help_for_denied(path)),
        _ => ("not-readable", "a key file is a plain file of `identity:key` lines".to_owned()),
    };
    let message = format!("cannot read the key file {}: {error}", path.display());
    KeyFileProblem::new(ProblemSeverity::Error, code, path, message).help(help)
}

/// The command that lets the user of this process read a key file of root's.
#[cfg(unix)]
fn help_for_denied(path: &Path) -> String {
    let group = rustix::process::getegid().as_raw();
    let group = crate::sys::account::group_name(group).unwrap_or_else(|| group.to_string());
    let path = path.display();
    format!(
        "let the group of the user that pskgate runs as read it: `chgrp {group} {path} && chmod 640 {path}`, and \
         enter the folders above it"
    )
}

#[cfg(not(unix))]
fn help_for_denied(_: &Path) -> String {
    "let the user that pskgate runs as read it".to_owned()
}

fn help_for_missing(path: &Path) -> String {
    match file_of_similar_name(path) {
        Some(near) => format!("did you mean `{}`?", near.display()),
        None => "correct the path, or write the file with `pskgate keygen NAME --output FILE`; a \
                 relative path begins in the folder of a TOML file, and for a stunnel.conf where the \
                 program is started"
            .to_owned(),
    }
}

/// A file in the same folder whose name differs in a slip of the hand only.
fn file_of_similar_name(path: &Path) -> Option<PathBuf> {
    /// A folder with more entries is not searched to its end.
    const MAX_ENTRIES: usize = 1000;
    let wrong = path.file_name()?.to_str()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    let entries = std::fs::read_dir(folder).ok()?.take(MAX_ENTRIES).flatten();
    let near = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let distance = strsim::damerau_levenshtein(wrong, &name);
        (distance <= 2 && distance * 3 <= wrong.len()).then(|| (distance, entry.path()))
    });
    near.filter(|(_, path)| path.is_file()).min().map(|(_, path)| path)
}

pub(super) fn json_file(file: &Path) -> KeyFileProblem {
    let message = format!("{} is JSON and no key file", file.display());
    KeyFileProblem::new(ProblemSeverity::Error, "not-a-key-file", file, message)
        .help("move it out of the folder of key files, whose every file is read as one")
}
