//! Changes to key files: one line more or less, every other byte as it was.
//!
//! An edit happens under the lock of the file's folder and takes effect in one moment, so that a
//! program that reads the file meanwhile sees it before or after, and two editors do not undo each
//! other.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, MAX_KEY_FILE_SIZE};
use super::problem::{KeyFileProblem, ProblemSeverity};
use super::{
    Duplicate, DuplicateIndex, Fingerprint, Identity, IdentityRule, KeyEntry, KeyFileRules,
    KeyFileWriter, OnDuplicate, OnLoosePermissions,
};
use crate::sys::file_edit::FileEdit;
use zeroize::Zeroizing;

/// The permission bits that a key file may keep; an edit removes all others.
const MAX_FILE_MODE: u32 = 0o640;

/// What either dialect reads can be edited. What only one of them refuses is for `check` to say.
pub(crate) const LENIENT_RULES: KeyFileRules = KeyFileRules {
    duplicates: OnDuplicate::LastWins,
    identities: IdentityRule::Bytes,
    permissions: OnLoosePermissions::Warn,
    also_owned_by: None,
    writer: KeyFileWriter::Operator,
    may_wait_for_files: false,
};

/// A line that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedLine {
    /// The file itself, after links.
    pub file: PathBuf,
    /// Its number, from 1.
    pub line: u32,
    /// Of its key.
    pub fingerprint: Fingerprint,
    /// The mode that the file had, if that was too loose and was tightened.
    pub loose_mode: Option<u32>,
}

/// The lines that were removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedLines {
    /// The number that each had, from 1, and the fingerprint of its key; at least one.
    pub lines: Vec<(u32, Fingerprint)>,
    /// The mode that the file had, if that was too loose and was tightened.
    pub loose_mode: Option<u32>,
}

/// What to do with a file when its last key is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLastKey {
    /// It keeps that key, and the edit fails: right where it is not known who reads it.
    Refuse,
    /// It stays, without a key: right for a file that a service names, and that has keys elsewhere.
    Keep,
    /// It is deleted: right for a file of a folder with others.
    Delete,
}

/// Why a file was not changed. It is as it was.
#[derive(Debug)]
pub enum EditError {
    /// An error of the system.
    Io(PathBuf, io::Error),
    /// The file, or the new line, is none that would be read.
    Invalid(Vec<KeyFileProblem>),
    /// The identity that was to be added is on this line.
    IdentityExists(PathBuf, Identity, u32),
    /// The key that was to be added is this identity's, on this line.
    SharedKey(PathBuf, Identity, u32),
    /// The identity that was to be removed is not there.
    NoSuchIdentity(PathBuf),
    /// It would have been the file's last key.
    LastKey(PathBuf),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(file, error) => {
                write!(f, "cannot change the key file {}: {error}", file.display())
            }
            Self::Invalid(problems) => {
                for (n, problem) in problems.iter().enumerate() {
                    let place = match (&problem.file, problem.line) {
                        (Some(file), Some(line)) => format!("{}:{line}: ", file.display()),
                        _ => String::new(),
                    };
                    let help = problem.help.as_deref().map(|help| format!("; {help}"));
                    let (between, help) =
                        (if n == 0 { "" } else { "\n" }, help.unwrap_or_default());
                    write!(f, "{between}{place}{}{help}", problem.message)?;
                }
                Ok(())
            }
            Self::IdentityExists(file, identity, line) => write!(
                f,
                "{identity} stands on line {line} of {} already; a second key for it needs another \
                 name, which `pskgate keys rotate` gives it",
                file.display()
            ),
            Self::SharedKey(file, identity, line) => write!(
                f,
                "{identity} on line {line} of {} has this key already; with one key, one can pass \
                 for the other",
                file.display()
            ),
            Self::NoSuchIdentity(file) => {
                write!(f, "there is no such identity in {}", file.display())
            }
            Self::LastKey(file) => write!(
                f,
                "it is the last key in {}, and a service that reads no other file would be left without \
                 any; name the configuration that reads the file, add another key first, or say --last",
                file.display()
            ),
        }
    }
}

impl std::error::Error for EditError {}

/// Adds an `identity:key` line, with or without its LF, to a file that need not exist yet. It ends as the
/// file's own lines do.
///
/// # Errors
/// An identity or a key that the file has already, a line or a file that cannot be read as one, and
/// what the system says.
pub fn append(path: &Path, line: &[u8]) -> Result<AddedLine, EditError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let new = parse_single_line(line, path)?;
    append_all(path, &[(line, new)])
}

/// Adds lines without their ends, and the entries that they are, all of them or none. What it tells is of the
/// first one.
///
/// # Errors
/// As for [`append`]; an empty list is refused.
pub fn append_all(path: &Path, lines: &[(&[u8], KeyEntry)]) -> Result<AddedLine, EditError> {
    let open = LockedKeyFile::lock(path)?;
    let entries = open.entries()?;
    let there = |entry: &KeyEntry| (open.file(), entry.identity.clone(), entry.line);
    let mut index = DuplicateIndex::default();
    (0..).zip(&entries).for_each(|(n, entry)| index.insert(n, entry));
    for (_, new) in lines {
        match index.find(new) {
            None => {}
            Some(Duplicate::Identity(n)) => {
                let (file, identity, line) = there(&entries[n]);
                return Err(EditError::IdentityExists(file, identity, line));
            }
            Some(Duplicate::Key(n)) => {
                let (file, identity, line) = there(&entries[n]);
                return Err(EditError::SharedKey(file, identity, line));
            }
        }
    }
    let text = open.text.as_slice();
    let end: &[u8] = if text.windows(2).any(|pair| pair == b"\r\n") { b"\r\n" } else { b"\n" };
    let joint: &[u8] = if text.is_empty() || text.ends_with(b"\n") { b"" } else { end };
    let mut pieces = vec![text, joint];
    pieces.extend(lines.iter().flat_map(|(line, _)| [*line, end]));
    if pieces.iter().map(|piece| piece.len()).sum::<usize>() as u64 > MAX_KEY_FILE_SIZE {
        let error =
            io::Error::other(format!("it would be larger than {} MiB", MAX_KEY_FILE_SIZE >> 20));
        return Err(EditError::Io(open.file(), error));
    }
    let Some((_, first)) = lines.first() else {
        return Err(EditError::Io(open.file(), io::Error::other("there is no line to add")));
    };
    let loose = open.write(&pieces)?;
    let before =
        text.iter().filter(|byte| **byte == b'\n').count() + usize::from(!joint.is_empty());
    Ok(AddedLine {
        file: open.file(),
        line: u32::try_from(before + 1).unwrap_or(u32::MAX),
        fingerprint: first.fingerprint(),
        loose_mode: loose,
    })
}

/// Whether a file looks like one that a Beremiz runtime writes, all of which it takes for its key: one line
/// without a line feed.
pub fn looks_like_runtime_file(path: &Path) -> bool {
    file::read_text(path, LENIENT_RULES, &mut Vec::new())
        .is_ok_and(|text| text.contains(&b':') && !text.contains(&b'\n'))
}

/// Takes every line of an identity out of a file.
///
/// # Errors
/// An identity that is not there, a file that cannot be read as one or that would be empty, and what
/// the system says.
pub fn remove(path: &Path, identity: &[u8], emptied: OnLastKey) -> Result<RemovedLines, EditError> {
    let open = LockedKeyFile::lock(path)?;
    let entries = open.entries()?;
    let (gone, rest): (Vec<_>, Vec<_>) =
        entries.iter().partition(|entry| entry.identity.as_bytes() == identity);
    if gone.is_empty() {
        return Err(EditError::NoSuchIdentity(open.file()));
    }
    let loose = match (rest.is_empty(), emptied) {
        (true, OnLastKey::Refuse) => return Err(EditError::LastKey(open.file())),
        (true, OnLastKey::Delete) if path.is_symlink() => {
            let words =
                "its last key would go, and the file is a symbolic link; remove both by hand";
            return Err(EditError::Io(path.to_owned(), io::Error::other(words)));
        }
        (true, OnLastKey::Delete) => {
            open.edit.unlink().map_err(|error| EditError::Io(open.file(), error))?;
            None
        }
        (false, _) | (true, OnLastKey::Keep) => {
            let mut pieces = Vec::with_capacity(gone.len() + 1);
            let (mut from, mut at) = (0, 0);
            let mut lines = gone.iter().map(|entry| entry.line).peekable();
            for (number, line) in (1..).zip(open.text.split_inclusive(|byte| *byte == b'\n')) {
                let next = at + line.len();
                if lines.next_if_eq(&number).is_some() {
                    pieces.push(&open.text[from..at]);
                    from = next;
                }
                at = next;
            }
            pieces.push(&open.text[from..]);
            open.write(&pieces)?
        }
    };
    let lines = gone.iter().map(|entry| (entry.line, entry.fingerprint())).collect();
    Ok(RemovedLines { lines, loose_mode: loose })
}

/// The entry that a line, which is to be added to the file at `path`, will be, by the stricter rules of
/// both dialects.
///
/// # Errors
/// It is none, or more than one.
pub fn parse_single_line(line: &[u8], path: &Path) -> Result<KeyEntry, EditError> {
    let strict = KeyFileRules { identities: IdentityRule::Utf8, ..LENIENT_RULES };
    let mut problems = Vec::new();
    let mut entries = file::parse(line, path, strict, &mut problems);
    problems.retain(|problem| problem.severity == ProblemSeverity::Error);
    match (entries.pop(), entries.is_empty()) {
        (Some(entry), true) if problems.is_empty() => Ok(entry),
        (Some(_), false) => {
            let error = io::Error::other("more than one line was to be added at once");
            Err(EditError::Io(path.to_owned(), error))
        }
        _ => {
            // The line is not in the file: its number there would mislead.
            problems.iter_mut().for_each(|problem| problem.line = None);
            Err(EditError::Invalid(problems))
        }
    }
}

/// A file under its folder's lock, and its text.
struct LockedKeyFile {
    edit: FileEdit,
    text: Zeroizing<Vec<u8>>,
}

impl LockedKeyFile {
    fn lock(path: &Path) -> Result<Self, EditError> {
        let failed = |error| EditError::Io(path.to_owned(), error);
        let edit = FileEdit::begin(path).map_err(failed)?;
        let text = if edit.exists().map_err(failed)? {
            // Loose permissions are mended by the edit itself.
            file::read_text(edit.path(), LENIENT_RULES, &mut Vec::new()).map_err(failed)?
        } else {
            Zeroizing::default()
        };
        Ok(Self { edit, text })
    }

    fn file(&self) -> PathBuf {
        self.edit.path().to_owned()
    }

    fn entries(&self) -> Result<Vec<KeyEntry>, EditError> {
        let mut problems = Vec::new();
        let entries = file::parse_lines(&self.text, self.edit.path(), LENIENT_RULES, &mut problems);
        problems.retain(|problem| problem.severity == ProblemSeverity::Error);
        if problems.is_empty() { Ok(entries) } else { Err(EditError::Invalid(problems)) }
    }

    /// From slices of the text, so that no second copy of the keys is made.
    fn write(&self, pieces: &[&[u8]]) -> Result<Option<u32>, EditError> {
        self.edit.replace(pieces, MAX_FILE_MODE).map_err(|error| EditError::Io(self.file(), error))
    }
}

#[cfg(test)]
mod tests;
