//! One editor of a folder's files at a time.
//!
//! The lock is on the folder and not on the file: an edit ends with a rename, after which a lock on the
//! old file would be a lock on nothing.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long to wait for another editor. An edit takes milliseconds, so an editor that still has the lock then
/// hangs or was stopped.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two attempts to take the lock.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Held until dropped, and released by the kernel if the process dies.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

impl FolderLock {
    /// Takes the lock of a folder; waits for `timeout` at most while another process has it.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when the other has not ended in time, with its name in the message
    /// where the system tells.
    pub fn take(folder: &Path, timeout: Duration) -> io::Result<Self> {
        let start = Instant::now();
        loop {
            if let Some(file) = try_lock(folder)? {
                return Ok(Self { file });
            }
            if start.elapsed() >= timeout {
                let holder = find_lock_holder(folder).unwrap_or_else(|| "another program".into());
                let message = format!(
                    "{holder} has held the lock of the folder {} for more than {} s",
                    folder.display(),
                    timeout.as_secs()
                );
                return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Has the folder's entries survive a power cut.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        // Windows has no such call for folders, and this is a file beside the entries there.
        if cfg!(unix) { self.file.sync_all() } else { Ok(()) }
    }
}

/// flock(2) on the folder itself: nothing is left behind, whatever happens.
#[cfg(unix)]
fn try_lock(folder: &Path) -> io::Result<Option<File>> {
    use rustix::fs::{FlockOperation, flock};
    use rustix::io::Errno;
    let file = File::open(folder)?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => {
                let message = format!("cannot lock the folder {}: {error}", folder.display());
                return Err(io::Error::new(io::Error::from(error).kind(), message));
            }
        }
    }
}

/// A file that nobody else can have open meanwhile. It stays: whoever deleted it could delete that of
/// the next editor. Its leading dot hides it from folders of keys.
#[cfg(not(unix))]
fn try_lock(folder: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 0);
    /// `ERROR_SHARING_VIOLATION`
    const SHARING_VIOLATION: i32 = 32;
    match options.open(folder.join(".pskgate.lock")) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.raw_os_error() == Some(SHARING_VIOLATION) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Who has the lock, by proc_locks(5).
#[cfg(target_os = "linux")]
fn find_lock_holder(folder: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let inode = folder.metadata().ok()?.ino().to_string();
    let table = std::fs::read_to_string("/proc/locks").ok()?;
    let process = table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", process, file, ..] = fields[..] else { return None };
        (file.rsplit(':').next() == Some(inode.as_str())).then(|| process.to_owned())
    })?;
    // A process chooses its own name, and may choose one that steers a terminal.
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    let name: String = name.chars().filter(|c| c.is_ascii_graphic()).collect();
    Some(format!("process {process} ({name})"))
}

#[cfg(not(target_os = "linux"))]
fn find_lock_holder(_: &Path) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_second_editor_waits_and_is_told_who_keeps_it_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path(), LOCK_TIMEOUT).unwrap();
        let start = Instant::now();
        let error = FolderLock::take(folder.path(), Duration::from_millis(200)).unwrap_err();
        assert!(start.elapsed() >= Duration::from_millis(200));
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let said = error.to_string();
        assert!(said.contains(&*folder.path().to_string_lossy()), "{said}");
        if cfg!(target_os = "linux") {
            assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
        }
        drop(held);
        FolderLock::take(folder.path(), Duration::ZERO).unwrap();
    }
}
