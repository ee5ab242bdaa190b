//! The keys of a service that runs already, read again: the unit is the key file.
//!
//! A file that was read whole and has no error counts as it is now, whatever is wrong with others. One that
//! cannot be used changes nothing: the keys that it had stay in force, and a problem says so. A file that is
//! gone from a folder of keys is a removal of its keys; a folder that is missing, unreadable or without one
//! key file changes nothing.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, begins_as_json};
use super::key::{Identity, Serial};
use super::problem::{self, Gravity, Problem, no_key_file};
use super::{Entry, Known, OnDuplicate, Reader, Rules, SecretSet, Writer, beremiz};
use crate::sys::pipe::is_read_once;

#[cfg(test)]
mod tests;

/// What a service runs with.
#[derive(Debug)]
pub struct InForce<'a> {
    /// Its keys. An identity whose key did not change keeps the serial that it has in the first of these
    /// sets that knows it; what stays in force is taken from the first set.
    pub sets: &'a [&'a SecretSet],
    /// The files and folders that its configuration names.
    pub paths: &'a [PathBuf],
    /// Identities that keep what they have in the first set, or stay unknown.
    pub hold: &'a HashSet<Identity>,
    /// Files that may be left without a key even if no other key remains.
    pub last: &'a [PathBuf],
}

/// Keys that were read again.
#[derive(Debug)]
pub struct Renewed {
    /// What is to be in force.
    pub set: SecretSet,
    /// What was found, none of which [refuses](Gravity::Refuses).
    pub problems: Vec<Problem>,
}

/// Reads the key files at `paths` for a service; `in_force` if it runs already.
///
/// # Errors
/// Every [`Problem`], when one of them refuses the set: which only those of a file or a folder can that the
/// service does not name yet.
pub fn renew(
    paths: &[PathBuf],
    rules: Rules,
    reader: &mut Reader,
    in_force: Option<&InForce<'_>>,
) -> Result<Renewed, Vec<Problem>> {
    let mut renewal = Renewal::new(rules, in_force);
    for (position, path) in paths.iter().enumerate() {
        renewal.take_path(path, rules.of_path(position), reader);
    }
    renewal.finish()
}

struct Renewal<'a> {
    rules: Rules,
    in_force: Option<&'a InForce<'a>>,
    /// Each with whether its file was named before.
    entries: Vec<(Entry, bool)>,
    problems: Vec<Problem>,
    /// Files without a key, each with whether it was named before.
    empty: Vec<(PathBuf, bool)>,
}

impl<'a> Renewal<'a> {
    fn new(rules: Rules, in_force: Option<&'a InForce<'a>>) -> Self {
        let (entries, problems, empty) = (Vec::new(), Vec::new(), Vec::new());
        Self { rules, in_force, entries, problems, empty }
    }

    fn is_named(&self, path: &Path) -> bool {
        self.in_force.is_some_and(|in_force| in_force.paths.iter().any(|named| named == path))
    }

    fn take_path(&mut self, path: &Path, rules: Rules, reader: &mut Reader) {
        let is_named = self.is_named(path);
        if (self.in_force.is_some() || reader.is_for_reload()) && is_read_once(path) {
            // Its descriptor may be another by now, and its keys have been taken out.
            match is_named {
                true => {
                    self.keep(path);
                    self.problems.push(Problem::pipe(path));
                }
                false => self.problems.push(Problem::late_pipe(path)),
            }
            return;
        }
        let in_folder = path.is_dir();
        let mut found = Vec::new();
        let files = reader.files(path, rules, &mut found);
        if in_folder && rules.writer == Writer::Runtime {
            found.push(Problem::folder_of_runtime(path));
        }
        let is_refused = found.iter().any(|problem| {
            problem.gravity == Gravity::Refuses && problem.file.as_deref() == Some(path)
        });
        if is_named && in_folder && (is_refused || files.is_empty()) {
            let kept = self.keep(path);
            if !is_refused && kept {
                found.push(Problem::without_file(path));
            } else if !is_refused && self.rules.waits {
                found.push(Problem::awaited_in_folder(path));
            }
            self.say_kept(found);
            return;
        }
        match is_named {
            true => self.say_kept(found),
            false => self.problems.extend(found),
        }
        if in_folder && files.is_empty() && self.rules.waits && !self.has_keys_of(path) {
            self.problems.push(Problem::awaited_in_folder(path));
        }
        for file in files {
            if is_named && reader.is_unfinished(&file) {
                self.keep(&file);
            } else {
                self.take_file(&file, (is_named, in_folder), rules, reader);
            }
        }
    }

    fn take_file(
        &mut self,
        file: &Path,
        (is_named, in_folder): (bool, bool),
        rules: Rules,
        reader: &mut Reader,
    ) {
        let mut found = Vec::new();
        let mut entries = Vec::new();
        match reader.text(file, in_folder) {
            Err(error) if self.is_awaited(file, error) => {
                self.problems.push(Problem::awaited(file));
                return;
            }
            Err(error) => found.push(problem::unreadable(file, error)),
            Ok(text) if in_folder && begins_as_json(&text.bytes) => found.push(no_key_file(file)),
            Ok(text) => {
                text.judge(file, rules, &mut found);
                if !in_folder && is_read_once(file) {
                    found.push(Problem::pipe(file));
                }
                let without_key = match rules.writer {
                    Writer::Ide => beremiz::without_key(&text.bytes, file),
                    Writer::Operator | Writer::Runtime => None,
                };
                if let Some(problem) = without_key {
                    self.problems.extend(found);
                    self.problems.push(problem);
                    return;
                }
                entries = file::lines(&text.bytes, file, rules, &mut found);
                if let (Writer::Runtime, Some(second)) = (rules.writer, entries.get(1)) {
                    found.push(Problem::second_line(second));
                }
            }
        }
        self.take_entries(file, is_named, entries, found);
    }

    /// Whether a file that is not there has yet to come: its service waits, and has no key of it.
    fn is_awaited(&self, file: &Path, error: &io::Error) -> bool {
        self.rules.waits && error.kind() == io::ErrorKind::NotFound && !self.has_keys_of(file)
    }

    fn has_keys_of(&self, path: &Path) -> bool {
        let first = self.in_force.and_then(|in_force| in_force.sets.first());
        first.is_some_and(|set| set.known.values().any(|known| known.file.starts_with(path)))
    }

    fn take_entries(
        &mut self,
        file: &Path,
        is_named: bool,
        entries: Vec<Entry>,
        mut found: Vec<Problem>,
    ) {
        self.look_for_cuts(&entries, &mut found);
        if is_named && self.rules.duplicates == OnDuplicate::Refuse {
            found.extend(twins(&entries));
        }
        let is_bad = found.iter().any(|problem| problem.gravity == Gravity::Refuses);
        if entries.is_empty() && !is_bad {
            self.problems.extend(found);
            self.empty.push((file.to_owned(), is_named));
        } else if is_bad && is_named {
            // A file that took the place of a folder stands for all of its files.
            self.keep(file);
            self.say_kept(found);
        } else {
            self.problems.extend(found);
            self.entries.extend(entries.into_iter().map(|entry| (entry, is_named)));
        }
    }

    fn look_for_cuts(&self, entries: &[Entry], found: &mut Vec<Problem>) {
        // Only the last line of a file can lack its end.
        let Some(last) = entries.last().filter(|entry| !entry.ended) else { return };
        let mut old = self.known(&last.identity);
        if old.any(|old| file::is_cut(&last.key, &old.key)) {
            found.push(Problem::cut(last));
        }
    }

    /// What an identity has in each of the earlier sets.
    fn known(&self, identity: &Identity) -> impl Iterator<Item = &Known> {
        let sets = self.in_force.map_or(&[][..], |in_force| in_force.sets);
        sets.iter().filter_map(|set| set.known.get(identity))
    }

    /// Keeps the keys of a file, or of all files below a folder, as they are in force. Whether there are any.
    fn keep(&mut self, path: &Path) -> bool {
        let Some(first) = self.in_force.and_then(|in_force| in_force.sets.first()) else {
            return false;
        };
        let mut kept: Vec<Entry> = first
            .known
            .iter()
            .filter(|(_, known)| known.file.starts_with(path))
            .map(|(identity, known)| Entry {
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

    fn say_kept(&mut self, found: Vec<Problem>) {
        self.problems.extend(found.into_iter().map(|mut problem| {
            if problem.gravity == Gravity::Refuses {
                problem.gravity = Gravity::Keeps;
            }
            problem
        }));
    }

    fn finish(mut self) -> Result<Renewed, Vec<Problem>> {
        self.judge_empty_files();
        let held = self.find_held();
        let mut known: HashMap<Identity, Known> = HashMap::with_capacity(self.entries.len());
        let mut first = None;
        for (entry, _) in std::mem::take(&mut self.entries) {
            if held.contains(&entry.identity) {
                continue;
            }
            let old = self.known(&entry.identity).find(|old| old.key.same_as(&entry.key));
            let serial = old.map_or_else(Serial::next, |old| old.serial);
            // What did not change stays one copy.
            let key = old.map_or(entry.key, |old| old.key.clone());
            let Entry { identity, file, line, .. } = entry;
            first.get_or_insert_with(|| identity.clone());
            known.insert(identity, Known { serial, key, file, line });
        }
        let in_force = self.in_force.and_then(|in_force| in_force.sets.first());
        for identity in held {
            if let Some(old) = in_force.and_then(|set| set.known.get(&identity)) {
                first.get_or_insert_with(|| identity.clone());
                known.insert(identity, old.share());
            }
        }
        if known.is_empty()
            && let Some(set) = in_force.filter(|set| !set.is_empty() && !self.may_be_last())
        {
            // Neither is any one file to blame, nor may the service be left without a key.
            let mut problem = Problem::nothing();
            problem.gravity = Gravity::Keeps;
            self.problems.push(problem);
            first = set.first.clone();
            known.extend(set.known.iter().map(|(identity, old)| (identity.clone(), old.share())));
        }
        self.problems.extend(file::shared_keys(&known));
        let refuses = |problem: &Problem| problem.gravity == Gravity::Refuses;
        let is_first = in_force.is_none() && !self.rules.waits;
        if known.is_empty() && is_first && !self.problems.iter().any(refuses) {
            self.problems.push(Problem::nothing());
        }
        match self.problems.iter().any(refuses) {
            true => Err(self.problems),
            false => Ok(Renewed { set: SecretSet::new(known, first), problems: self.problems }),
        }
    }

    /// Whether the service has no key already, or its last one was taken away by an order.
    fn may_be_last(&self) -> bool {
        self.in_force.is_some_and(|in_force| {
            // From inside another root directory the same name has fewer parts.
            let is_inside = |last: &PathBuf, file: &PathBuf| {
                file.strip_prefix("/").is_ok_and(|inside| last.ends_with(inside))
            };
            let is_last = |file: &PathBuf| {
                let same = |last: &PathBuf| is_same_file(last, file) || is_inside(last, file);
                in_force.last.iter().any(same)
            };
            in_force.sets.first().is_none_or(|set| set.is_empty())
                || self.empty.iter().any(|(file, _)| is_last(file))
        })
    }

    /// Decides about files without a key: a removal, unless the service would be left without any.
    fn judge_empty_files(&mut self) {
        let begins = self.in_force.is_none() && self.rules.waits;
        let is_refused = self.entries.is_empty() && !begins && !self.may_be_last();
        for (file, is_named) in std::mem::take(&mut self.empty) {
            let problem = if is_refused && !is_named {
                Problem::without_key(Gravity::Refuses, &file)
            } else if is_refused && self.keep(&file) {
                let help =
                    "add a key; to take away the last one, use `pskgate keys remove NAME --last`";
                Problem::without_key(Gravity::Keeps, &file).help(help)
            } else {
                let help = "if that is not meant, write the file again; otherwise leave it out of \
                            `psk-secrets`";
                Problem::without_key(Gravity::Warns, &file).help(help)
            };
            self.problems.push(problem);
            self.empty.push((file, is_named));
        }
    }

    /// Identities that keep what they have, because two files give them a key now.
    fn find_held(&mut self) -> HashSet<Identity> {
        let mut held = self.in_force.map(|in_force| in_force.hold.clone()).unwrap_or_default();
        let mut seen: HashMap<&Identity, (&Entry, bool)> =
            HashMap::with_capacity(self.entries.len());
        for (entry, is_named) in &self.entries {
            let Some((twin, was_named)) = seen.insert(&entry.identity, (entry, *is_named)) else {
                continue;
            };
            let mut problem =
                Problem::duplicate(entry, &twin.file, twin.line, self.rules.duplicates);
            if problem.gravity == Gravity::Refuses && *is_named && was_named {
                problem.gravity = Gravity::Keeps;
                held.insert(entry.identity.clone());
            }
            self.problems.push(problem);
        }
        held
    }
}

impl Problem {
    /// A second line in the file that a runtime writes.
    fn second_line(entry: &Entry) -> Self {
        let message =
            "a second line in a runtime's own file, which the runtime takes for a part of its key";
        let help = "move the line to another file of `psk-secrets`, or remove `runtime-file`";
        Self::new(Gravity::Refuses, "second-line", &entry.file, message).line(entry.line).help(help)
    }

    /// A folder in place of the file that a runtime writes.
    fn folder_of_runtime(folder: &Path) -> Self {
        let message = format!("{} is a folder, and a runtime writes a file", folder.display());
        let help = "name the file first in `psk-secrets`, or remove `runtime-file`";
        Self::new(Gravity::Refuses, "second-line", folder, message).help(help)
    }

    /// Keys that come from a pipe.
    fn pipe(path: &Path) -> Self {
        let message = format!(
            "the keys in the pipe {} are read once: a reload keeps them, and nothing watches them",
            path.display()
        );
        let help = "restart the program to change them, or name a file, which is watched";
        Self::new(Gravity::Warns, "keys-from-pipe", path, message).help(help)
    }

    /// A pipe that a reload would have to read.
    fn late_pipe(path: &Path) -> Self {
        let message = format!("a pipe is read at the start only: {}", path.display());
        let help = "restart the program, or name a file";
        Self::new(Gravity::Refuses, "keys-from-pipe", path, message).help(help)
    }

    /// A folder without a key file, which its service waits for.
    fn awaited_in_folder(folder: &Path) -> Self {
        let message = format!("waiting for a key file in {}", folder.display());
        let help =
            "its keys count as soon as it is there; until then they are answered as wrong keys";
        Self::new(Gravity::Warns, "waiting-for-keys", folder, message).help(help)
    }

    /// A key file that has not been written yet.
    fn awaited(path: &Path) -> Self {
        let message = format!("waiting for the key file {}", path.display());
        let help =
            "its keys count as soon as it is there; until then they are answered as wrong keys";
        Self::new(Gravity::Warns, "waiting-for-keys", path, message).help(help)
    }
}

/// What stands twice in one file.
fn twins(entries: &[Entry]) -> Vec<Problem> {
    let mut lines: HashMap<&Identity, u32> = HashMap::with_capacity(entries.len());
    let twin = |entry: &Entry, earlier| {
        Problem::duplicate(entry, &entry.file, earlier, OnDuplicate::Refuse)
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

impl Known {
    /// The same key under the same serial.
    fn share(&self) -> Self {
        let Self { serial, key, file, line } = self;
        Self { serial: *serial, key: key.clone(), file: file.clone(), line: *line }
    }
}

impl SecretSet {
    /// The set of one text, read as a file of that name.
    #[cfg(all(unix, any(test, fuzzing)))]
    pub(super) fn parsed(
        text: &[u8],
        path: &Path,
        rules: Rules,
        previous: Option<&SecretSet>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let (sets, hold) = (previous.as_slice(), HashSet::new());
        let in_force = InForce { sets, paths: &[], hold: &hold, last: &[] };
        let mut renewal = Renewal::new(rules, previous.map(|_| &in_force));
        let mut found = Vec::new();
        let entries = file::lines(text, path, rules, &mut found);
        renewal.take_entries(path, false, entries, found);
        renewal.finish().map(|Renewed { set, problems }| (set, problems))
    }

    /// Reads every file, each once, all or nothing. `previous` is the set that this one replaces:
    /// an identity whose key did not change keeps its serial, so that its sessions live on.
    ///
    /// # Errors
    /// Every [`Problem`] of every file, when at least one of them refuses the set.
    pub fn load(
        paths: &[PathBuf],
        rules: Rules,
        previous: Option<&SecretSet>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let (sets, hold) = (previous.as_slice(), HashSet::new());
        let in_force = InForce { sets, paths: &[], hold: &hold, last: &[] };
        let read = renew(paths, rules, &mut Reader::default(), previous.map(|_| &in_force));
        read.map(|Renewed { set, problems }| (set, problems))
    }
}
