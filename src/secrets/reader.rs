//! Reads each key file once, however many services name it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::KeyFileText;
use super::problem::KeyFileProblem;
use super::{KeyFileRules, list_key_files};
use crate::sys::file_digest::FileDigest;
#[cfg(unix)]
use crate::sys::pipe::{WRITE_TIMEOUT, is_pipe};

/// Reads key files and keeps their texts until it is dropped, which wipes them. What it says of a file
/// holds for the bytes that its keys were parsed from.
#[derive(Default)]
pub struct KeyFileReader {
    /// What is said of a folder depends on the rules.
    folders: HashMap<(PathBuf, KeyFileRules), FolderListing>,
    texts: BTreeMap<PathBuf, (io::Result<KeyFileText>, Option<FileDigest>)>,
    /// By their names after symbolic links.
    unfinished: BTreeSet<PathBuf>,
    /// For a reload, in which no pipe is read.
    is_for_reload: bool,
    /// How long a pipe is waited for, if that is not as long as at a start.
    #[cfg_attr(not(unix), allow(dead_code))]
    pipe_timeout: Option<Duration>,
}

/// The key files of a folder, and the problems with it.
struct FolderListing {
    files: Vec<PathBuf>,
    problems: Vec<KeyFileProblem>,
}

impl KeyFileReader {
    /// A reader for a reload, which leaves files alone that somebody is still writing.
    pub fn excluding_unfinished(unfinished: &BTreeSet<PathBuf>) -> Self {
        let unfinished = unfinished.iter().map(|path| resolve_links(path)).collect();
        Self { unfinished, is_for_reload: true, ..Self::default() }
    }

    /// A reader that waits for the writer of a pipe no longer than this.
    pub fn with_pipe_timeout(timeout: Duration) -> Self {
        Self { pipe_timeout: Some(timeout), ..Self::default() }
    }

    /// Whether it reads for a reload.
    pub(super) fn is_for_reload(&self) -> bool {
        self.is_for_reload
    }

    /// Whether somebody is still writing a file.
    pub fn is_unfinished(&self, path: &Path) -> bool {
        !self.unfinished.is_empty() && self.unfinished.contains(&resolve_links(path))
    }

    /// The files that a path means; what is wrong with the path itself is added to `problems`.
    pub(super) fn list_files(
        &mut self,
        path: &Path,
        rules: KeyFileRules,
        problems: &mut Vec<KeyFileProblem>,
    ) -> Vec<PathBuf> {
        let folder = self.folders.entry((path.to_owned(), rules)).or_insert_with(|| {
            let mut problems = Vec::new();
            let files = list_key_files(path, rules, &mut problems);
            FolderListing { files, problems }
        });
        problems.extend(folder.problems.iter().cloned());
        folder.files.clone()
    }

    /// The text of a file, or of the pipe that a configuration names; a pipe in a folder of keys is none.
    pub(super) fn read_text(&mut self, path: &Path, in_folder: bool) -> &io::Result<KeyFileText> {
        #[cfg(not(unix))]
        let _ = in_folder;
        #[cfg(unix)]
        let pipe_timeout = self.pipe_timeout.unwrap_or(WRITE_TIMEOUT);
        let (text, _) = self.texts.entry(path.to_owned()).or_insert_with(|| {
            #[cfg(unix)]
            if !in_folder && is_pipe(path) {
                // Nothing can be compared with it later.
                return (KeyFileText::read_pipe(path, pipe_timeout), None);
            }
            let text = KeyFileText::read(path);
            let digest = match &text {
                Ok(text) => Some(text.digest()),
                // One that is too large is watched as well.
                Err(_) => FileDigest::from_file(path),
            };
            (text, digest)
        });
        text
    }

    /// Every file that was read, with the digest of its bytes; none if it could not be read.
    pub fn digests(&self) -> impl Iterator<Item = (&Path, Option<FileDigest>)> {
        self.texts.iter().map(|(path, (_, digest))| (path.as_path(), *digest))
    }
}

impl fmt::Debug for KeyFileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFileReader").field("files", &self.texts.keys()).finish_non_exhaustive()
    }
}

/// A name without symbolic links, as far as it can be followed.
fn resolve_links(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
