//! Descriptors that this process was started with.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// The first descriptor after the standard streams.
const FIRST_INHERITED: RawFd = 3;

/// Takes over a descriptor that this process was started with, whose number came from the command line or the
/// environment. Each can be taken once.
///
/// # Errors
/// It is not open, is a standard stream, or was opened or taken by this process.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    /// Held between the check of a descriptor's flag and setting it.
    static TAKE_LOCK: Mutex<()> = Mutex::new(());
    if number < FIRST_INHERITED {
        let words = "it is a standard stream";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
    }
    let _taking = TAKE_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the call takes a number, and fails on one that is not open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags == -1 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        let words = "this process has opened it itself, or has taken it over already";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: nobody else may own it. It was open without FD_CLOEXEC, so that it was not opened by Rust's
    // standard library, by `rustix` or by this module, which all set that flag, and it was not taken before,
    // because that sets it too. The weak part: a C library could have opened it without the flag. OpenSSL and
    // the C library close the files that they read before they return.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A copy of a descriptor that stays open for others, such as a standard stream.
///
/// # Errors
/// It is not open.
pub fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers, and fails on one that is not open.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, FIRST_INHERITED) };
    if copy == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was made a moment ago and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Registers a descriptor with the runtime.
///
/// # Errors
/// There is no room for it, or it is a file of a kind that is always ready.
pub fn into_async_fd(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and is the same descriptor for as long as what it is moved into.
    let watched = unsafe { tokio::io::unix::AsyncFd::register(fd) };
    Ok(watched?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn a_descriptor_that_this_process_opened_or_took_is_not_taken() {
        let mut own = File::create(tempfile::tempdir().unwrap().path().join("own")).unwrap();
        let said = take_inherited(own.as_raw_fd()).unwrap_err().to_string();
        assert!(said.contains("itself"), "{said}");
        own.write_all(b"still open").unwrap();
        for number in 0..FIRST_INHERITED {
            assert!(take_inherited(number).unwrap_err().to_string().contains("standard stream"));
        }
        assert!(take_inherited(RawFd::MAX).is_err());

        // As after `exec`: open, and nobody's.
        rustix::io::fcntl_setfd(&own, rustix::io::FdFlags::empty()).unwrap();
        let number = own.into_raw_fd();
        let taken = take_inherited(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(take_inherited(number).is_err(), "it has an owner now");
    }
}
