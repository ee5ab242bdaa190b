//! Watching the files that count: a change that is complete asks for a reload.
//!
//! Directories are watched, not files: editors and Kubernetes replace a name, and a watch on the old
//! file would see nothing more. What counts is the content, so that touching a file does nothing,
//! and a poll now and then catches what no watch reports: network file systems, and symlinks further
//! up that were turned.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use openssl::sha::Sha256;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::Request;
use crate::config::model::Level;
use crate::observe::event::{Event, Scope};
use crate::secrets;
use crate::sys::file::open_regular;

/// A change is taken when nothing has happened for this long: a writer that copies several files is
/// done with all of them.
const QUIET: Duration = Duration::from_millis(300);
/// A file that is being written is waited for, until its writer closes it, but not for ever.
const WRITING: Duration = Duration::from_secs(5);
/// How often everything is looked at without being told.
pub const POLL: Duration = Duration::from_secs(30);
/// A larger file is no configuration and no key file; its size and its beginning tell changes well enough.
const HASHED: u64 = 16 * 1024 * 1024;

/// Content by file; a file that is not there counts as such.
type Fingerprint = BTreeMap<PathBuf, Option<[u8; 32]>>;

/// What a configuration was made of.
#[derive(Debug, Clone)]
pub struct Files {
    paths: Vec<PathBuf>,
    content: Fingerprint,
}

impl Files {
    /// Files, and directories of key files. To be called *before* their keys are read: a change
    /// that comes meanwhile must look like one, or a revocation could be missed.
    pub(super) fn look(paths: Vec<PathBuf>) -> Self {
        let content = fingerprint(&paths);
        Self { paths, content }
    }

    /// These and more files, as all of them are now.
    pub(super) fn and(&self, mut more: Vec<PathBuf>) -> Self {
        more.extend_from_slice(&self.paths);
        more.sort();
        more.dedup();
        Self::look(more)
    }

    /// Follows a process that has other rights now, and other names for its files. What it cannot
    /// read any more is no change; what has changed since it was read still is.
    pub(super) fn settle(&mut self, rename: impl Fn(&Path) -> PathBuf) {
        for path in &mut self.paths {
            *path = rename(path);
        }
        let before = std::mem::take(&mut self.content);
        for (file, old) in before {
            let file = rename(&file);
            let old = hash(&file).and(old);
            self.content.insert(file, old);
        }
    }

    /// What could not be read again now, and why: a reload would be refused for it.
    pub(super) fn out_of_reach(&self) -> Vec<(&Path, std::io::Error)> {
        let error = |path: &Path| match path.is_dir() {
            true => std::fs::read_dir(path).err(),
            false => open_regular(path).err(),
        };
        let inner = self.content.keys().map(PathBuf::as_path);
        let all: BTreeSet<&Path> = self.paths.iter().map(PathBuf::as_path).chain(inner).collect();
        all.into_iter().filter_map(|path| Some((path, error(path)?))).collect()
    }
}

/// Watches the files of the configuration in force, until the receiver of requests is gone.
pub async fn watch(mut files: watch::Receiver<Files>, requests: mpsc::Sender<Request>) {
    let (sender, mut events) = mpsc::unbounded_channel();
    let names = Arc::new(Mutex::new(Names::default()));
    let heard = names.clone();
    let watcher = notify::recommended_watcher(move |event| {
        // A log beside the key file is written to with every connection: this thread hears of it, and
        // the sessions' own need not.
        if matters(&event, &heard.lock().unwrap_or_else(PoisonError::into_inner)) {
            // The receiver is gone only when the program ends.
            let _ = sender.send(event);
        }
    });
    // No inotify instances are left, say: the poll still sees every change, but whoever takes a key
    // away should know how long that may take.
    let mut watcher = watcher
        .inspect_err(|error| {
            let text = format!(
                "files cannot be watched, so that a change is noticed within {} s and not at once \
                 (SIGHUP and `pskgate reload` do it at once): {error}",
                POLL.as_secs()
            );
            Event::Finding { level: Level::Warning, text: &text }.log(Scope::PROGRAM);
        })
        .ok();
    let mut watched = BTreeSet::new();
    let Files { mut paths, content: mut known } = files.borrow_and_update().clone();
    loop {
        *names.lock().unwrap_or_else(PoisonError::into_inner) = Names::of(&paths);
        // Watched first and looked at then: what changes in between makes an event.
        follow(watcher.as_mut(), &paths, &mut watched);
        // Without a thread to look with nothing is known, least of all that the files are gone.
        if let Some(now) = look(&paths).await
            && now != known
            && stable(&paths, &now).await
        {
            known = now;
            if requests.send(Request::Reload("changed files")).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = change(&mut events) => {}
            () = sleep(POLL) => {}
            () = requests.closed() => return,
            changed = files.changed() => {
                if changed.is_err() {
                    return;
                }
                Files { paths, content: known } = files.borrow_and_update().clone();
            }
        }
    }
}

/// Returns when something has happened and has come to rest. Whether it changed anything, the content
/// decides.
async fn change(events: &mut mpsc::UnboundedReceiver<notify::Result<notify::Event>>) {
    while let Some(event) = events.recv().await {
        if !is_write(&event) {
            return settle(events, event).await;
        }
    }
    std::future::pending().await
}

/// Waits for silence, and for writers to close what they write.
async fn settle(
    events: &mut mpsc::UnboundedReceiver<notify::Result<notify::Event>>,
    first: notify::Result<notify::Event>,
) {
    let mut writing = HashMap::new();
    note(&mut writing, &first);
    let mut quiet = Instant::now() + QUIET;
    loop {
        writing.retain(|_, since: &mut Instant| since.elapsed() < WRITING);
        match timeout_at(quiet, events.recv()).await {
            Ok(Some(event)) => {
                note(&mut writing, &event);
                quiet = Instant::now() + QUIET;
            }
            Ok(None) => return,
            Err(_) if writing.is_empty() => return,
            Err(_) => quiet = Instant::now() + QUIET,
        }
    }
}

/// Keeps account of files that were written to and not closed since.
fn note(writing: &mut HashMap<PathBuf, Instant>, event: &notify::Result<notify::Event>) {
    let Ok(event) = event else { return };
    for path in &event.paths {
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => {
                writing.insert(path.clone(), Instant::now());
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_) => {
                writing.remove(path);
            }
            _ => {}
        }
    }
}

/// What events may be about. A log beside the key file is written to all the time, and must not make a
/// revocation wait for its silence.
#[derive(Default)]
struct Names {
    /// The last names of all watched files, of the steps of symlinks to them, and of the folders that
    /// are symlinks themselves, as Kubernetes' `..data` is.
    files: HashSet<OsString>,
    /// Folders of key files, in which every name counts.
    folders: BTreeSet<PathBuf>,
}

impl Names {
    fn of(paths: &[PathBuf]) -> Self {
        let (mut files, mut folders) = (HashSet::new(), BTreeSet::new());
        for path in paths {
            let mut step = path.clone();
            // As in `folders`.
            for _ in 0..8 {
                if step.is_dir() {
                    folders.extend([step.clone()].into_iter().chain(step.canonicalize().ok()));
                }
                files.extend(step.file_name().map(OsString::from));
                let mut above = step.parent();
                while let Some(folder) = above.filter(|folder| !folder.as_os_str().is_empty()) {
                    if folder.is_symlink() || !folder.exists() {
                        files.extend(folder.file_name().map(OsString::from));
                    }
                    above = folder.parent();
                }
                match (std::fs::read_link(&step), step.parent()) {
                    (Ok(target), Some(folder)) => step = folder.join(target),
                    _ => break,
                }
            }
        }
        Self { files, folders }
    }

    fn have(&self, event: &notify::Event) -> bool {
        // Some events are about a folder that went away, or about nothing in particular.
        event.paths.is_empty()
            || event.paths.iter().any(|path| {
                path.file_name().is_some_and(|name| self.files.contains(name))
                    || path.parent().is_some_and(|folder| self.folders.contains(folder))
                    || self.folders.contains(path)
            })
    }
}

/// A change that has begun, and is none before the writer closes.
fn is_write(event: &notify::Result<notify::Event>) -> bool {
    let kind = event.as_ref().map(|event| event.kind);
    matches!(kind, Ok(EventKind::Modify(ModifyKind::Data(_))))
}

/// Opening and reading, our own among it, is no news.
fn matters(event: &notify::Result<notify::Event>, names: &Names) -> bool {
    match event {
        Ok(event) if !names.have(event) => false,
        Ok(event) => match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => false,
            _ => true,
        },
        // An overflown queue: look.
        Err(_) => true,
    }
}

/// Whether a change that a poll came upon, perhaps in mid-write, has come to rest.
async fn stable(paths: &[PathBuf], seen: &Fingerprint) -> bool {
    sleep(QUIET).await;
    look(paths).await.as_ref() == Some(seen)
}

/// Reads everything on a thread of its own: a file system in the network may take its time, and the
/// runtime's threads may all be waiting for names. None if there is no thread to be had.
async fn look(paths: &[PathBuf]) -> Option<Fingerprint> {
    let paths = paths.to_vec();
    super::apart(move || fingerprint(&paths)).await
}

/// Watches the folders of all files, as they are now.
fn follow(
    watcher: Option<&mut RecommendedWatcher>,
    paths: &[PathBuf],
    watched: &mut BTreeSet<PathBuf>,
) {
    let Some(watcher) = watcher else { return };
    let wanted: BTreeSet<PathBuf> = paths.iter().flat_map(|path| folders(path)).collect();
    for gone in watched.difference(&wanted) {
        let _ = watcher.unwatch(gone);
    }
    // A folder that was removed and made again needs a new watch under the same name.
    watched.retain(|folder| wanted.contains(folder) && folder.exists());
    for folder in wanted {
        if !watched.contains(&folder) && watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok()
        {
            watched.insert(folder);
        }
    }
}

/// The folder a name is looked up in, the one its target is in when it is a symlink, and itself when
/// it is a folder of key files.
pub(super) fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let mut step = path.to_owned();
    // Kubernetes needs three steps; a loop of symlinks must end too.
    for _ in 0..8 {
        if step.is_dir() {
            all.insert(step.clone());
        }
        if let Some(folder) = step.parent() {
            all.insert(folder.to_owned());
            if let (Ok(real), Some(name)) = (folder.canonicalize(), step.file_name()) {
                if let Some(above) = std::fs::read_link(folder).ok().and(folder.parent()) {
                    all.insert(above.to_owned());
                }
                step = real.join(name);
            }
        }
        match (std::fs::read_link(&step), step.parent()) {
            (Ok(target), Some(folder)) => step = folder.join(target),
            _ => break,
        }
    }
    all.retain(|folder| !folder.as_os_str().is_empty());
    all
}

fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let mut all = Fingerprint::new();
    for path in paths {
        // What is unreadable in a folder is a change of its own, and its words come at the reload.
        for file in secrets::files_of(path, secrets::edit::LENIENT, &mut Vec::new()) {
            let hash = hash(&file);
            all.insert(file, hash);
        }
    }
    all
}

fn hash(path: &Path) -> Option<[u8; 32]> {
    let (file, meta) = open_regular(path).ok()?;
    let mut sha = Sha256::new();
    sha.update(&meta.len().to_ne_bytes());
    // Modes and owners decide whether a key file is taken.
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        sha.update(&meta.mode().to_ne_bytes());
        sha.update(&meta.uid().to_ne_bytes());
    }
    let mut part = zeroize::Zeroizing::new([0; 16 * 1024]);
    let mut rest = file.take(HASHED);
    loop {
        match rest.read(&mut part[..]) {
            Ok(0) => return Some(sha.finish()),
            Ok(n) => sha.update(&part[..n]),
            Err(_) => return None,
        }
    }
}
