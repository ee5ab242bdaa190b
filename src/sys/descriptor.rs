//! Descriptors that this process was started with.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Behind the standard streams.
const FIRST: RawFd = 3;

/// Takes over a descriptor that nobody else in this process knows: one whose number came from the
/// command line or the environment, before anything was opened under it.
///
/// # Errors
/// It is not open.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers, and fails on one that is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the callers name each number once, before they open anything.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A copy of a descriptor that stays open for others, such as a standard stream.
///
/// # Errors
/// It is not open.
pub fn copy(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers, and fails on one that is not open.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, FIRST) };
    if copy == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was made a moment ago and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Has the runtime tell when a descriptor can be read from or written to.
///
/// # Errors
/// There is no room for it, or it is a file of a kind that is always ready.
pub fn watched(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and is the same descriptor for as long as what it is moved into.
    let watched = unsafe { tokio::io::unix::AsyncFd::register(fd) };
    Ok(watched?)
}
