//! The keys of a service that runs already, read again: the unit is the key file.
//!
//! A file that was read whole and has no error counts as it is now, whatever is wrong with others. One that
//! cannot be used changes nothing: the keys that it had stay in force, and a problem says so. A file that is
//! gone from a folder of keys is a removal of its keys; a folder that is missing, unreadable or without one
//! key file changes nothing.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, looks_like_json};
use super::key::{Identity, KeySerial};
use super::problem::{self, KeyFileProblem, ProblemSeverity, json_file};
use super::{
    KeyEntry, KeyFileReader, KeyFileRules, KeyFileWriter, KeyRecord, OnDuplicate, SecretSet,
    beremiz,
};
use crate::sys::pipe::is_read_once;

#[cfg(test)]
mod tests;

/// The keys and paths that a service runs with.
#[derive(Debug)]
pub struct KeysInForce<'a> {
    /// Its keys. An identity whose key did not change keeps the serial that it has in the first of these
    /// sets that knows it; what stays in force is taken from the first set.
    pub sets: &'a [&'a SecretSet],
    /// The files and folders that its configuration names.
    pub paths: &'a [PathBuf],
    /// Identities that keep what they have in the first set, or stay unknown.
    pub held_identities: &'a HashSet<Identity>,
    /// Files that may be left without a key even if no other key remains.
    pub emptied_on_purpose: &'a [PathBuf],
}

/// The result of reading a service's keys again.
#[derive(Debug)]
pub struct RenewedKeys {
    /// The new set.
    pub set: SecretSet,
    /// What was found, none of which [refuses](ProblemSeverity::Error).
    pub problems: Vec<KeyFileProblem>,
}

/// Reads the key files at `paths` for a service; `in_force` if it runs already.
///
/// # Errors
/// Every [`KeyFileProblem`], when one of them refuses the set: which only those of a file or a folder can that the
/// service does not name yet.
pub fn renew(
    paths: &[PathBuf],
    rules: KeyFileRules,
    reader: &mut KeyFileReader,
    in_force: Option<&KeysInForce<'_>>,
) -> Result<RenewedKeys, Vec<KeyFileProblem>> {
    let mut renewal = RenewalRun::new(rules, in_force);
    for (position, path) in paths.iter().enumerate() {
        renewal.take_path(path, rules.for_path_at(position), reader);
    }
    renewal.finish()
}

struct RenewalRun<'a> {
    rules: KeyFileRules,
    in_force: Option<&'a KeysInForce<'a>>,
    /// Each with whether its file was named before.
    entries: Vec<(KeyEntry, bool)>,
    problems: Vec<KeyFileProblem>,
    /// Files without a key, each with whether it was named before.
    empty: Vec<(PathBuf, bool)>,
}

impl<'a> RenewalRun<'a> {
    fn new(rules: KeyFileRules, in_force: Option<&'a KeysInForce<'a>>) -> Self {
        let (entries, problems, empty) = (Vec::new(), Vec::new(), Vec::new());
        Self { rules, in_force, entries, problems, empty }
    }

    fn is_named(&self, path: &Path) -> bool {
        self.in_force.is_some_and(|in_force| in_force.paths.iter().any(|named| named == path))
    }

    fn take_path(&mut self, path: &Path, rules: KeyFileRules, reader: &mut KeyFileReader) {
        let is_named = self.is_named(path);
        if (self.in_force.is_some() || reader.is_for_reload()) && is_read_once(path) {
            // Its descriptor may be another by now, and its keys have been taken out.
            match is_named {
                true => {
                    self.keep_current_keys(path);
                    self.problems.push(KeyFileProblem::keys_from_pipe(path));
                }
                false => self.problems.push(KeyFileProblem::pipe_at_reload(path)),
            }
            return;
        }
        let in_folder = path.is_dir();
        let mut found = Vec::new();
        let files = reader.list_files(path, rules, &mut found);
        if in_folder && rules.writer == KeyFileWriter::Runtime {
            found.push(KeyFileProblem::runtime_folder(path));
        }
        let is_refused = found.iter().any(|problem| {
            problem.severity == ProblemSeverity::Error && problem.file.as_deref() == Some(path)
        });
        if is_named && in_folder && (is_refused || files.is_empty()) {
            let kept = self.keep_current_keys(path);
            if !is_refused && kept {
                found.push(KeyFileProblem::emptied_folder(path));
            } else if !is_refused && self.rules.may_wait_for_files {
                found.push(KeyFileProblem::awaited_in_folder(path));
            }
            self.report_kept(found);
            return;
        }
        match is_named {
            true => self.report_kept(found),
            false => self.problems.extend(found),
        }
        if in_folder && files.is_empty() && self.rules.may_wait_for_files && !self.has_keys_of(path)
        {
            self.problems.push(KeyFileProblem::awaited_in_folder(path));
        }
        for file in files {
            if is_named && reader.is_unfinished(&file) {
                self.keep_current_keys(&file);
            } else {
                self.take_file(&file, (is_named, in_folder), rules, reader);
            }
        }
    }

    fn take_file(
        &mut self,
        file: &Path,
        (is_named, in_folder): (bool, bool),
        rules: KeyFileRules,
        reader: &mut KeyFileReader,
    ) {
        let mut found = Vec::new();
        let mut entries = Vec::new();
        match reader.read_text(file, in_folder) {
            Err(error) if self.is_awaited(file, error) => {
                self.problems.push(KeyFileProblem::file_awaited(file));
                return;
            }
            Err(error) => found.push(problem::unreadable_file(file, error)),
            Ok(text) if in_folder && looks_like_json(&text.bytes) => found.push(json_file(file)),
            Ok(text) => {
                text.check_permissions(file, rules, &mut found);
                if !in_folder && is_read_once(file) {
                    found.push(KeyFileProblem::keys_from_pipe(file));
                }
                let without_key = match rules.writer {
                    KeyFileWriter::Ide => beremiz::keyless_file_problem(&text.bytes, file),
                    KeyFileWriter::Operator | KeyFileWriter::Runtime => None,
                };
                if let Some(problem) = without_key {
                    self.problems.extend(found);
                    self.problems.push(problem);
                    return;
                }
                entries = file::parse_lines(&text.bytes, file, rules, &mut found);
                if let (KeyFileWriter::Runtime, Some(second)) = (rules.writer, entries.get(1)) {
                    found.push(KeyFileProblem::extra_runtime_line(second));
                }
            }
        }
        self.take_entries(file, is_named, entries, found);
    }

    /// Whether a file that is not there has yet to come: its service waits, and has no key of it.
    fn is_awaited(&self, file: &Path, error: &io::Error) -> bool {
        self.rules.may_wait_for_files
            && error.kind() == io::ErrorKind::NotFound
            && !self.has_keys_of(file)
    }

    fn has_keys_of(&self, path: &Path) -> bool {
        let first = self.in_force.and_then(|in_force| in_force.sets.first());
        first.is_some_and(|set| set.records.values().any(|known| known.file.starts_with(path)))
    }

    fn take_entries(
        &mut self,
        file: &Path,
        is_named: bool,
        entries: Vec<KeyEntry>,
        mut found: Vec<KeyFileProblem>,
    ) {
        self.find_truncated_key(&entries, &mut found);
        if is_named && self.rules.duplicates == OnDuplicate::Refuse {
            found.extend(find_duplicates(&entries));
        }
        let is_bad = found.iter().any(|problem| problem.severity == ProblemSeverity::Error);
        if entries.is_empty() && !is_bad {
            self.problems.extend(found);
            self.empty.push((file.to_owned(), is_named));
        } else if is_bad && is_named {
            // A file that took the place of a folder stands for all of its files.
            self.keep_current_keys(file);
            self.report_kept(found);
        } else {
            self.problems.extend(found);
            self.entries.extend(entries.into_iter().map(|entry| (entry, is_named)));
        }
    }

    fn find_truncated_key(&self, entries: &[KeyEntry], found: &mut Vec<KeyFileProblem>) {
        // Only the last line of a file can lack its end.
        let Some(last) = entries.last().filter(|entry| !entry.ended) else { return };
        let mut old = self.earlier_records(&last.identity);
        if old.any(|old| file::is_truncation_of(&last.key, &old.key)) {
            found.push(KeyFileProblem::truncated_key(last));
        }
    }

    /// What an identity has in each of the earlier sets.
    fn earlier_records(&self, identity: &Identity) -> impl Iterator<Item = &KeyRecord> {
        let sets = self.in_force.map_or(&[][..], |in_force| in_force.sets);
        sets.iter().filter_map(|set| set.records.get(identity))
    }

    /// Keeps the keys of a file, or of all files below a folder, as they are in force. Whether there are any.
    fn keep_current_keys(&mut self, path: &Path) -> bool {
        let Some(first) = self.in_force.and_then(|in_force| in_force.sets.first()) else {
            return false;
        };
        let mut kept: Vec<KeyEntry> = first
            .records
            .iter()
            .filter(|(_, known)| known.file.starts_with(path))
            .map(|(identity, known)| KeyEntry {
                identity: identity.clone(),
                key: known.key.clone(),
                file: known.file.clone(),
                line: known.line,
                ended: true,
            })
            .collect();
        kept.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        let any = !kept.is_empty();
        self.entries.extend(kept.into_iter().map(|entry| (entry, true)));
        any
    }

    fn report_kept(&mut self, found: Vec<KeyFileProblem>) {
        self.problems.extend(found.into_iter().map(|mut problem| {
            if problem.severity == ProblemSeverity::Error {
                problem.severity = ProblemSeverity::KeepsOldKeys;
            }
            problem
        }));
    }

    fn finish(mut self) -> Result<RenewedKeys, Vec<KeyFileProblem>> {
        self.resolve_empty_files();
        let held = self.find_held_identities();
        let mut known: HashMap<Identity, KeyRecord> = HashMap::with_capacity(self.entries.len());
        let mut first = None;
        for (entry, _) in std::mem::take(&mut self.entries) {
            if held.contains(&entry.identity) {
                continue;
            }
            let old = self
                .earlier_records(&entry.identity)
                .find(|old| old.key.constant_time_eq(&entry.key));
            let serial = old.map_or_else(KeySerial::next, |old| old.serial);
            // What did not change stays one copy.
            let key = old.map_or(entry.key, |old| old.key.clone());
            let KeyEntry { identity, file, line, .. } = entry;
            first.get_or_insert_with(|| identity.clone());
            known.insert(identity, KeyRecord { serial, key, file, line });
        }
        let in_force = self.in_force.and_then(|in_force| in_force.sets.first());
        for identity in held {
            if let Some(old) = in_force.and_then(|set| set.records.get(&identity)) {
                first.get_or_insert_with(|| identity.clone());
                known.insert(identity, old.clone_shared());
            }
        }
        if known.is_empty()
            && let Some(set) = in_force.filter(|set| !set.is_empty() && !self.may_lose_last_key())
        {
            // Neither is any one file to blame, nor may the service be left without a key.
            let mut problem = KeyFileProblem::no_keys_at_all();
            problem.severity = ProblemSeverity::KeepsOldKeys;
            self.problems.push(problem);
            first = set.first.clone();
            known.extend(
                set.records.iter().map(|(identity, old)| (identity.clone(), old.clone_shared())),
            );
        }
        self.problems.extend(file::find_shared_keys(&known));
        let refuses = |problem: &KeyFileProblem| problem.severity == ProblemSeverity::Error;
        let is_first = in_force.is_none() && !self.rules.may_wait_for_files;
        if known.is_empty() && is_first && !self.problems.iter().any(refuses) {
            self.problems.push(KeyFileProblem::no_keys_at_all());
        }
        match self.problems.iter().any(refuses) {
            true => Err(self.problems),
            false => Ok(RenewedKeys { set: SecretSet::new(known, first), problems: self.problems }),
        }
    }

    /// Whether the service has no key already, or its last one was taken away by an order.
    fn may_lose_last_key(&self) -> bool {
        self.in_force.is_some_and(|in_force| {
            // From inside another root directory the same name has fewer parts.
            let is_inside = |last: &PathBuf, file: &PathBuf| {
                file.strip_prefix("/").is_ok_and(|inside| last.ends_with(inside))
            };
            let is_last = |file: &PathBuf| {
                let same = |last: &PathBuf| is_same_file(last, file) || is_inside(last, file);
                in_force.emptied_on_purpose.iter().any(same)
            };
            in_force.sets.first().is_none_or(|set| set.is_empty())
                || self.empty.iter().any(|(file, _)| is_last(file))
        })
    }

    /// Decides about files without a key: a removal, unless the service would be left without any.
    fn resolve_empty_files(&mut self) {
        let begins = self.in_force.is_none() && self.rules.may_wait_for_files;
        let is_refused = self.entries.is_empty() && !begins && !self.may_lose_last_key();
        for (file, is_named) in std::mem::take(&mut self.empty) {
            let problem = if is_refused && !is_named {
                KeyFileProblem::empty_file(ProblemSeverity::Error, &file)
            } else if is_refused && self.keep_current_keys(&file) {
                let help =
                    "add a key; to take away the last one, use `pskgate keys remove NAME --last`";
                KeyFileProblem::empty_file(ProblemSeverity::KeepsOldKeys, &file).help(help)
            } else {
                let help = "if that is not meant, write the file again; otherwise leave it out of \
                            `psk-secrets`";
                KeyFileProblem::empty_file(ProblemSeverity::Warning, &file).help(help)
            };
            self.problems.push(problem);
            self.empty.push((file, is_named));
        }
    }

    /// Identities that keep what they have, because two files give them a key now.
    fn find_held_identities(&mut self) -> HashSet<Identity> {
        let mut held =
            self.in_force.map(|in_force| in_force.held_identities.clone()).unwrap_or_default();
        let mut seen: HashMap<&Identity, (&KeyEntry, bool)> =
            HashMap::with_capacity(self.entries.len());
        for (entry, is_named) in &self.entries {
            let Some((twin, was_named)) = seen.insert(&entry.identity, (entry, *is_named)) else {
                continue;
            };
            let mut problem =
                KeyFileProblem::duplicate(entry, &twin.file, twin.line, self.rules.duplicates);
            if problem.severity == ProblemSeverity::Error && *is_named && was_named {
                problem.severity = ProblemSeverity::KeepsOldKeys;
                held.insert(entry.identity.clone());
            }
            self.problems.push(problem);
        }
        held
    }
}

impl KeyFileProblem {
    /// A second line in the file that a runtime writes.
    fn extra_runtime_line(entry: &KeyEntry) -> Self {
        let message =
            "a second line in a runtime's own file, which the runtime takes for a part of its key";
        let help = "move the line to another file of `psk-secrets`, or remove `runtime-file`";
        Self::new(ProblemSeverity::Error, "second-line", &entry.file, message)
            .line(entry.line)
            .help(help)
    }

    /// A folder in place of the file that a runtime writes.
    fn runtime_folder(folder: &Path) -> Self {
        let message = format!("{} is a folder, and a runtime writes a file", folder.display());
        let help = "name the file first in `psk-secrets`, or remove `runtime-file`";
        Self::new(ProblemSeverity::Error, "second-line", folder, message).help(help)
    }

    /// Keys that come from a pipe.
    fn keys_from_pipe(path: &Path) -> Self {
        let message = format!(
            "the keys in the pipe {} are read once: a reload keeps them, and nothing watches them",
            path.display()
        );
        let help = "restart the program to change them, or name a file, which is watched";
        Self::new(ProblemSeverity::Warning, "keys-from-pipe", path, message).help(help)
    }

    /// A pipe that a reload would have to read.
    fn pipe_at_reload(path: &Path) -> Self {
        let message = format!("a pipe is read at the start only: {}", path.display());
        let help = "restart the program, or name a file";
        Self::new(ProblemSeverity::Error, "keys-from-pipe", path, message).help(help)
    }

    /// A folder without a key file, which its service waits for.
    fn awaited_in_folder(folder: &Path) -> Self {
        let message = format!("waiting for a key file in {}", folder.display());
        let help =
            "its keys count as soon as it is there; until then they are answered as wrong keys";
        Self::new(ProblemSeverity::Warning, "waiting-for-keys", folder, message).help(help)
    }

    /// A key file that has not been written yet.
    fn file_awaited(path: &Path) -> Self {
        let message = format!("waiting for the key file {}", path.display());
        let help =
            "its keys count as soon as it is there; until then they are answered as wrong keys";
        Self::new(ProblemSeverity::Warning, "waiting-for-keys", path, message).help(help)
    }
}

/// Problems for identities that have two lines in one file.
fn find_duplicates(entries: &[KeyEntry]) -> Vec<KeyFileProblem> {
    let mut lines: HashMap<&Identity, u32> = HashMap::with_capacity(entries.len());
    let twin = |entry: &KeyEntry, earlier| {
        KeyFileProblem::duplicate(entry, &entry.file, earlier, OnDuplicate::Refuse)
    };
    entries
        .iter()
        .filter_map(|entry| Some(twin(entry, lines.insert(&entry.identity, entry.line)?)))
        .collect()
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(one).is_some_and(|one| Some(one) == real(other))
}

impl KeyRecord {
    /// The same key under the same serial.
    fn clone_shared(&self) -> Self {
        let Self { serial, key, file, line } = self;
        Self { serial: *serial, key: key.clone(), file: file.clone(), line: *line }
    }
}

impl SecretSet {
    /// The set of one text, read as a file of that name.
    #[cfg(all(unix, any(test, fuzzing)))]
    pub(super) fn from_text(
        text: &[u8],
        path: &Path,
        rules: KeyFileRules,
        previous: Option<&SecretSet>,
    ) -> Result<(Self, Vec<KeyFileProblem>), Vec<KeyFileProblem>> {
        let (sets, hold) = (previous.as_slice(), HashSet::new());
        let in_force =
            KeysInForce { sets, paths: &[], held_identities: &hold, emptied_on_purpose: &[] };
        let mut renewal = RenewalRun::new(rules, previous.map(|_| &in_force));
        let mut found = Vec::new();
        let entries = file::parse_lines(text, path, rules, &mut found);
        renewal.take_entries(path, false, entries, found);
        renewal.finish().map(|RenewedKeys { set, problems }| (set, problems))
    }

    /// Reads every file, each once, all or nothing. `previous` is the set that this one replaces:
    /// an identity whose key did not change keeps its serial, so that its sessions live on.
    ///
    /// # Errors
    /// Every [`KeyFileProblem`] of every file, when at least one of them refuses the set.
    pub fn load(
        paths: &[PathBuf],
        rules: KeyFileRules,
        previous: Option<&SecretSet>,
    ) -> Result<(Self, Vec<KeyFileProblem>), Vec<KeyFileProblem>> {
        let (sets, hold) = (previous.as_slice(), HashSet::new());
        let in_force =
            KeysInForce { sets, paths: &[], held_identities: &hold, emptied_on_purpose: &[] };
        let read = renew(paths, rules, &mut KeyFileReader::default(), previous.map(|_| &in_force));
        read.map(|RenewedKeys { set, problems }| (set, problems))
    }
}
