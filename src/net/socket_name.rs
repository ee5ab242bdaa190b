//! The name of a Unix socket that this program has bound.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

/// The name of a socket in its folder, which is held open: it can be changed and removed from inside
/// another root directory too. Removed when this goes, unless somebody else has put theirs there.
#[derive(Debug)]
pub struct SocketName {
    folder: OwnedFd,
    name: OsString,
    identity: (u64, u64),
}

// The type has 16 bits on some systems; a mode has 12.
#[allow(clippy::unnecessary_cast)]
pub(super) fn bits(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & 0o7777) as rustix::fs::RawMode)
}

impl SocketName {
    /// The socket that has just been bound there.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&folder, flags, Mode::empty())?;
        let identity = identity(&folder, &name)?;
        Ok(Self { folder, name, identity })
    }

    /// Gives it a mode and a group.
    ///
    /// # Errors
    /// The system's: rights that were dropped are missing here.
    pub fn allow(&self, mode: u32, group: Option<u32>) -> io::Result<()> {
        let found = rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        if let Some(group) = group.filter(|group| *group != found.st_gid) {
            let group = rustix::fs::Gid::from_raw(group);
            let how = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&self.folder, &self.name, None, Some(group), how)?;
        }
        // Follows a link, so only where it is needed; who could put one there owns the folder.
        if Mode::from_raw_mode(found.st_mode) != bits(mode) {
            rustix::fs::chmodat(&self.folder, &self.name, bits(mode), AtFlags::empty())?;
        }
        Ok(())
    }
}

impl Drop for SocketName {
    fn drop(&mut self) {
        if identity(&self.folder, &self.name).is_ok_and(|now| now == self.identity) {
            // Rights that were dropped may be missing; the next start replaces it then.
            let _ = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

#[allow(clippy::unnecessary_cast)]
fn identity(folder: &impl AsFd, name: &OsString) -> io::Result<(u64, u64)> {
    let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((found.st_dev as u64, found.st_ino as u64))
}
