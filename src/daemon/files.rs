//! What a configuration was made of, as it was when it was read: with that the watcher compares.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::config::diagnostic::Diagnostics;
use crate::config::model::Config;
use crate::secrets::{KeyFileReader, KeyFileWriter, list_key_files_leniently};
use crate::sys::file::open_regular;
use crate::sys::file_digest::FileDigest;
use crate::sys::pipe::is_read_once;

/// Content by file; a file that is not there counts as such.
pub(super) type FileDigests = BTreeMap<PathBuf, Option<FileDigest>>;

/// What a configuration was made of.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Key files and folders of them, as the configuration names them, and who writes them: of a Beremiz
    /// project's folder other files count than of a folder of keys.
    keys: BTreeSet<(PathBuf, KeyFileWriter)>,
    /// The configuration and the files that it includes.
    config: BTreeSet<PathBuf>,
    /// Folders of included files, in which the next one may appear.
    folders: BTreeSet<PathBuf>,
    /// Whether a change of the configuration's own files counts.
    watches_config: bool,
    /// The digest of the bytes that were parsed, and of nothing that was looked at before or after: a
    /// change in between must look like one, or a revocation could be missed.
    content: FileDigests,
}

impl Files {
    /// What was read of a configuration and of its key files.
    pub(super) fn read(
        config: Option<&Config>,
        report: &Diagnostics,
        reader: &KeyFileReader,
    ) -> Self {
        let mut keys = BTreeSet::new();
        for service in config.iter().flat_map(|config| &config.services) {
            // A pipe has nothing more to tell, and looking at it would take from its next writer.
            let named = service.psk.paths().filter(|(path, _)| !is_read_once(path));
            keys.extend(named.map(|(path, writer)| (path.to_owned(), writer)));
        }
        let files = reader.digests().filter(|(path, _)| !is_read_once(path));
        let mut content: FileDigests =
            files.map(|(path, digest)| (path.to_owned(), digest)).collect();
        content.extend(report.read.iter().map(|(path, digest)| (path.clone(), *digest)));
        let watches_config = config.is_some_and(|config| config.watch_configuration.value);
        let config = report.read.keys().cloned().collect();
        Self { keys, config, folders: report.folders.clone(), watches_config, content }
    }

    /// These and the files in force, while those are refused: of either a change is worth another try.
    pub(super) fn merged_with(mut self, in_force: &Self) -> Self {
        self.watches_config = in_force.watches_config;
        self.keys.extend(in_force.keys.iter().cloned());
        self.folders.extend(in_force.folders.iter().cloned());
        for path in &in_force.config {
            // One that was not read this time is as it was.
            if self.config.insert(path.clone())
                && let Some(digest) = in_force.content.get(path)
            {
                self.content.insert(path.clone(), *digest);
            }
        }
        self
    }

    /// The same for files that were left alone because somebody is writing them: as they were before.
    pub(super) fn without_unfinished(
        mut self,
        unfinished: impl Fn(&Path) -> bool,
        before: &Self,
    ) -> Self {
        let left = before.content.iter().filter(|(path, _)| unfinished(path));
        self.content.extend(left.map(|(path, digest)| (path.clone(), *digest)));
        self
    }

    /// Whether a change of the configuration's own files counts.
    pub(super) fn watches_config(&self) -> bool {
        self.watches_config
    }

    /// Every name whose change counts.
    pub(super) fn watched(&self) -> impl Iterator<Item = &Path> {
        let config = self.config.iter().chain(&self.folders).filter(|_| self.watches_config);
        self.key_paths().chain(config.map(PathBuf::as_path))
    }

    /// Every name that was read.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.key_paths().chain(self.config.iter().chain(&self.folders).map(PathBuf::as_path))
    }

    fn key_paths(&self) -> impl Iterator<Item = &Path> {
        self.keys.iter().map(|(path, _)| path.as_path())
    }

    /// The files of the configuration, with what was read of them.
    pub(super) fn config(&self) -> impl Iterator<Item = &Path> {
        self.config.iter().map(PathBuf::as_path)
    }

    /// The content now of all that is watched. Reads every file: not for a thread on which sessions wait.
    pub(super) fn read_contents(&self) -> FileDigests {
        let mut all = FileDigests::new();
        for (path, writer) in &self.keys {
            // What is unreadable in a folder is a change of its own, and its words come at the reload.
            let files = list_key_files_leniently(path, *writer);
            all.extend(
                files.into_iter().map(|file| (FileDigest::from_file(&file), file)).map(swap),
            );
        }
        if !self.watches_config {
            return all;
        }
        let included = self.folders.iter().flat_map(|folder| regular_files(folder));
        for file in included.chain(self.config.iter().cloned()) {
            all.entry(file).or_insert_with_key(|file| FileDigest::from_file(file));
        }
        all
    }

    /// The files of which one differs from what was read.
    pub(super) fn changed_in<'a>(&'a self, now: &'a FileDigests) -> impl Iterator<Item = &'a Path> {
        let is_watched = |path: &&PathBuf| self.watches_config || !self.config.contains(*path);
        let gone = self.content.keys().filter(is_watched).filter(|path| !now.contains_key(*path));
        let other = now.iter().filter(|(path, digest)| self.content.get(*path) != Some(digest));
        gone.chain(other.map(|(path, _)| path)).map(PathBuf::as_path)
    }

    /// Follows a process that has other rights now, and other names for its files. What it cannot
    /// read any more is no change; what has changed since it was read still is.
    pub(super) fn rename_files(&mut self, rename: impl Fn(&Path) -> PathBuf) {
        let keys = std::mem::take(&mut self.keys).into_iter();
        self.keys = keys.map(|(name, writer)| (rename(&name), writer)).collect();
        for names in [&mut self.config, &mut self.folders] {
            *names = names.iter().map(|name| rename(name)).collect();
        }
        for (file, before) in std::mem::take(&mut self.content) {
            let file = rename(&file);
            let before = FileDigest::from_file(&file).and(before);
            self.content.insert(file, before);
        }
    }

    /// What could not be read again now, and why: a reload would be refused for it.
    pub(super) fn find_unreadable(&self) -> Vec<(&Path, std::io::Error)> {
        let error = |path: &Path| match path.is_dir() {
            true => std::fs::read_dir(path).err(),
            false => open_regular(path).err(),
        };
        let all: BTreeSet<&Path> =
            self.paths().chain(self.content.keys().map(PathBuf::as_path)).collect();
        all.into_iter().filter_map(|path| Some((path, error(path)?))).collect()
    }
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

/// As a stunnel.conf includes them.
fn regular_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths.filter(|path| path.is_file()).collect()
}
