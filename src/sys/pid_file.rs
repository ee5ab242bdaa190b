//! The file that holds this process's number, and its end within the signal.
//!
//! An init script that restarts at once looks into the file a moment after SIGTERM, and starts
//! nothing if a process of this number still runs. The file must be gone by then, however busy this
//! program is: the signal handler itself unlinks it.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

/// At most one for each process, and never dropped: a signal handler may run at any time.
static PID_FILE: OnceLock<PidFile> = OnceLock::new();

struct PidFile {
    path: CString,
    device: u64,
    inode: u64,
    /// Open to the end, so that no other file can get this inode number.
    _file: File,
}

/// Writes the file anew, over whatever was left there, and has each of `signals` unlink it.
///
/// # Errors
/// The system's.
pub fn create(path: &Path, signals: &[i32]) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    writeln!(file, "{}", std::process::id())?;
    let meta = file.metadata()?;
    let name = CString::new(path.as_os_str().as_bytes())?;
    let ours = PidFile { path: name, device: meta.dev(), inode: meta.ino(), _file: file };
    if PID_FILE.set(ours).is_err() {
        return Err(io::Error::other("this process has a pid file already"));
    }
    for signal in signals {
        // SAFETY: what `remove` does is allowed in a signal handler (signal-safety(7)): it reads a
        // value that was set before and calls lstat and unlink. It neither locks nor allocates,
        // and the registry puts errno back.
        unsafe { signal_hook_registry::register(*signal, remove) }?;
    }
    Ok(())
}

/// Unlinks the file, if there is one and it is still the one that was written here.
pub fn remove() {
    let Some(ours) = PID_FILE.get() else { return };
    let mut now = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the path ends in NUL, and lstat fills in what it is given.
    if unsafe { libc::lstat(ours.path.as_ptr(), now.as_mut_ptr()) } == 0 {
        // SAFETY: lstat succeeded.
        let now = unsafe { now.assume_init() };
        // The types differ from platform to platform.
        #[allow(clippy::unnecessary_cast)]
        if (now.st_dev as u64, now.st_ino as u64) == (ours.device, ours.inode) {
            // SAFETY: the path ends in NUL.
            unsafe { libc::unlink(ours.path.as_ptr()) };
        }
    }
}
