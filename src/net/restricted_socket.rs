//! A Unix socket that some of this machine's users may reach and others may not.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Domain, SockAddr, Type};

use super::listen::bind_replacing_stale;
use super::socket_name::{SocketName, bits};

/// More than a few never wait: whoever asks is answered at once.
const ACCEPT_BACKLOG: i32 = 128;

/// Binds a path, with its mode and group from the first moment at which anybody can connect. What a
/// crash left behind is replaced; and what somebody listens on, if `yields` says so.
///
/// # Errors
/// The system's, with the path in its text.
pub fn bind_restricted(
    path: &Path,
    mode: u32,
    group: Option<u32>,
    yields: impl Fn() -> bool,
) -> io::Result<(UnixListener, SocketName)> {
    let bound = bind_replacing_stale(path, yields, || bound(path, mode));
    let listening = bound.and_then(|socket| {
        let name = SocketName::of(path)?;
        name.allow(mode, group)?;
        // Until here every connection was refused.
        socket.listen(ACCEPT_BACKLOG)?;
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
