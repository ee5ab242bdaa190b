//! Watching the files that count: a change that is complete asks for a reload.
//!
//! Directories are watched, not files: editors and Kubernetes replace a name, and a watch on the old
//! file would see nothing more. What counts is the content, so that touching a file does nothing,
//! and a poll now and then catches what no watch reports: network file systems, and symlinks further
//! up that were turned.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::Request;
use super::files::{FileDigests, Files};
use crate::config::model::Level;
use crate::observe::event::{Event, LogContext};
use crate::secrets::KeyFileReader;

/// A change is taken when nothing has happened for this long: a writer that copies several files is
/// done with all of them.
const QUIET: Duration = Duration::from_millis(300);
/// A change does not wait longer for others to come to rest: in a folder of keys there may be no rest.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// A file that is being written is waited for, until its writer closes it or has written nothing for this
/// long. Other files do not wait for it.
const WRITING: Duration = Duration::from_secs(5);
/// How often everything is looked at without being told.
pub const POLL: Duration = Duration::from_secs(30);

/// Watches the files of the configuration in force, until the receiver of requests is gone.
pub async fn watch(mut files: watch::Receiver<Files>, requests: mpsc::Sender<Request>) {
    let (sender, mut events) = mpsc::unbounded_channel();
    let names = Arc::new(Mutex::new(WatchedNames::default()));
    let heard = names.clone();
    let watcher = notify::recommended_watcher(move |event| {
        // A log beside the key file is written to with every connection: this thread hears of it, and
        // the sessions' own need not.
        if matters(&event, &heard.lock().unwrap_or_else(PoisonError::into_inner)) {
            // The receiver is gone only when the program ends.
            let _ = sender.send(FileChange::of(event));
        }
    });
    // No inotify instances are left, say: the poll still sees every change, but whoever takes a key
    // away should know how long that may take.
    let mut watcher = watcher
        .inspect_err(|error| {
            let text = format!(
                "cannot watch files: a change takes effect within {} s, or at once with SIGHUP \
                 or `pskgate reload`: {error}",
                POLL.as_secs()
            );
            Event::Finding { level: Level::Warning, text: &text, code: None }
                .log(LogContext::PROGRAM);
        })
        .ok();
    let mut watched = BTreeSet::new();
    let mut known = files.borrow_and_update().clone();
    let mut writers = FilesBeingWritten::default();
    // What was asked for last: without an event, asking again would lead to nothing else.
    let mut asked: Option<FileDigests> = None;
    let mut is_told = false;
    loop {
        *names.lock().unwrap_or_else(PoisonError::into_inner) = WatchedNames::of(&known);
        // Watched first and looked at then: what changes in between makes an event.
        follow(watcher.as_mut(), &known, &mut watched);
        let unfinished = writers.unfinished();
        // Without a thread to look with nothing is known, least of all that the files are gone.
        let look = look(&known, &unfinished).await;
        if let Some(look) = look.filter(|look| !look.changed.is_empty())
            // What was asked for in vain is asked for again when something happens.
            && (is_told || asked.as_ref() != Some(&look.now))
            // What a poll came upon may be in the middle of a write that nobody tells of.
            && (is_told || is_at_rest(&known, &look).await)
        {
            asked = Some(look.now);
            let request = Request::Changed { files: look.changed, unfinished };
            if requests.send(request).await.is_err() {
                return;
            }
        }
        is_told = false;
        tokio::select! {
            () = change(&mut events, &mut writers) => is_told = true,
            () = sleep(POLL) => {}
            () = requests.closed() => return,
            changed = files.changed() => {
                if changed.is_err() {
                    return;
                }
                known = files.borrow_and_update().clone();
            }
        }
    }
}

/// What happened, as far as it is of use.
#[derive(Debug, PartialEq, Eq)]
enum FileChange {
    /// Files that are being written and were not closed yet.
    Begun(Vec<PathBuf>),
    /// Files that were closed, moved or removed; none, if it is not known which.
    Done(Vec<PathBuf>),
}

impl FileChange {
    fn of(event: notify::Result<notify::Event>) -> Self {
        // An overflown queue: look.
        let Ok(event) = event else { return Self::Done(Vec::new()) };
        // A link has all that it will have; a new file is empty until something is written to it.
        let is_new = |path: &PathBuf| {
            path.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0)
        };
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => Self::Begun(event.paths),
            EventKind::Create(_) if event.paths.iter().all(is_new) => Self::Begun(event.paths),
            _ => Self::Done(event.paths),
        }
    }
}

/// Files that are being written, and when they were written to last.
#[derive(Debug, Default)]
struct FilesBeingWritten {
    since: HashMap<PathBuf, Instant>,
}

impl FilesBeingWritten {
    /// Takes note of a change. Whether something is complete by it.
    fn note_completes(&mut self, change: FileChange) -> bool {
        match change {
            FileChange::Begun(paths) => {
                let now = Instant::now();
                self.since.extend(paths.into_iter().map(|path| (path, now)));
                false
            }
            FileChange::Done(paths) => {
                self.since.retain(|path, _| !paths.contains(path));
                true
            }
        }
    }

    /// The files that are waited for.
    fn unfinished(&mut self) -> BTreeSet<PathBuf> {
        self.since.retain(|_, since| since.elapsed() < WRITING);
        self.since.keys().cloned().collect()
    }

    /// When the first of them is not waited for any more.
    fn first_end(&self) -> Option<Instant> {
        self.since.values().min().map(|since| *since + WRITING)
    }
}

/// Returns when something was completed and has come to rest, or a file is not waited for any more. Whether
/// it changed anything, the content decides.
async fn change(events: &mut mpsc::UnboundedReceiver<FileChange>, writers: &mut FilesBeingWritten) {
    loop {
        let next = match writers.first_end() {
            Some(end) => timeout_at(end, events.recv()).await,
            None => Ok(events.recv().await),
        };
        match next {
            Ok(Some(change)) => {
                if writers.note_completes(change) {
                    break;
                }
            }
            Ok(None) => std::future::pending().await,
            Err(_) => return,
        }
    }
    let latest = Instant::now() + LONGEST_WAIT;
    let mut quiet = Instant::now() + QUIET;
    while let Ok(Some(change)) = timeout_at(quiet.min(latest), events.recv()).await {
        if writers.note_completes(change) {
            quiet = Instant::now() + QUIET;
        }
    }
}

/// What events may be about. A log beside the key file is written to all the time, and must not make a
/// revocation wait for its silence.
#[derive(Default)]
struct WatchedNames {
    /// The last names of all watched files, of the steps of symlinks to them, and of the folders that
    /// are symlinks themselves, as Kubernetes' `..data` is.
    files: HashSet<OsString>,
    /// Folders of key files, in which every name counts.
    folders: BTreeSet<PathBuf>,
}

impl WatchedNames {
    fn of(known: &Files) -> Self {
        let (mut files, mut folders) = (HashSet::new(), BTreeSet::new());
        for path in known.watched() {
            let mut step = path.to_owned();
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

/// Opening and reading, our own among it, is no news.
fn matters(event: &notify::Result<notify::Event>, names: &WatchedNames) -> bool {
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

/// What there is now.
#[derive(Debug)]
struct Look {
    now: FileDigests,
    /// What differs from what was read, but for files that somebody is writing.
    changed: Vec<PathBuf>,
}

/// Reads everything on a thread of its own: a file system in the network may take its time, and the
/// runtime's threads may all be waiting for names. None if there is no thread to be had.
async fn look(known: &Files, unfinished: &BTreeSet<PathBuf>) -> Option<Look> {
    let (known, reader) = (known.clone(), KeyFileReader::excluding_unfinished(unfinished));
    super::run_on_thread(move || {
        let now = known.read_contents();
        let changed = known.changed_in(&now).filter(|path| !reader.is_unfinished(path));
        let changed = changed.map(Path::to_owned).collect();
        Look { now, changed }
    })
    .await
}

/// Whether a change that a poll came upon, perhaps in mid-write, has come to rest.
async fn is_at_rest(known: &Files, seen: &Look) -> bool {
    sleep(QUIET).await;
    look(known, &BTreeSet::new()).await.is_some_and(|look| look.now == seen.now)
}

/// Watches the folders of all files, as they are now.
fn follow(
    watcher: Option<&mut RecommendedWatcher>,
    known: &Files,
    watched: &mut BTreeSet<PathBuf>,
) {
    let Some(watcher) = watcher else { return };
    let wanted: BTreeSet<PathBuf> = known.watched().flat_map(folders).collect();
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
