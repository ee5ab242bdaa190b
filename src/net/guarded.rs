//! A Unix socket that some of this machine's users may reach and others may not.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use socket2::{Domain, SockAddr, Type};

use super::listen::in_place_of_stale;

/// More than a few never wait: whoever asks is answered at once.
const BACKLOG: i32 = 128;

/// The name of a socket in its folder, which is held open: it can be changed and removed from inside
/// another root directory too. Removed when this goes, unless somebody else has put theirs there.
#[derive(Debug)]
pub struct Name {
    folder: OwnedFd,
    name: OsString,
    identity: (u64, u64),
}

/// Binds a path, with its mode and group from the first moment at which anybody can connect. What a
/// crash left behind is replaced; and what somebody listens on, if `yields` says so.
///
/// # Errors
/// The system's, with the path in its text.
pub fn bind_guarded(
    path: &Path,
    mode: u32,
    group: Option<u32>,
    yields: impl Fn() -> bool,
) -> io::Result<(UnixListener, Name)> {
    let bound = in_place_of_stale(path, yields, || bound(path, mode));
    let listening = bound.and_then(|socket| {
        let name = Name::of(path)?;
        name.allow(mode, group)?;
        // Until here every connection was refused.
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok((UnixListener::from(socket), name))
    });
    listening.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn bound(path: &Path, mode: u32) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux makes the name with this mode, less the umask; elsewhere it changes nothing that counts.
    let _ = rustix::fs::fchmod(&socket, bits(mode));
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket)
}

// The type has 16 bits on some systems; a mode has 12.
#[allow(clippy::unnecessary_cast)]
fn bits(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & 0o7777) as rustix::fs::RawMode)
}

impl Name {
    fn of(path: &Path) -> io::Result<Self> {
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

impl Drop for Name {
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

/// Makes a folder for sockets, with this mode if it is not there yet.
///
/// # Errors
/// The system's, with the folder in its text.
pub fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = match std::fs::DirBuilder::new().mode(mode).create(folder) {
        // The umask may have taken something away.
        Ok(()) => std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))
}
