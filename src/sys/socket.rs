//! Socket options that neither `socket2` nor `rustix` sets.

use std::io;

/// An option of level `SOL_SOCKET` with an integer value.
#[derive(Debug, Clone, Copy)]
pub enum Raw {
    /// `SO_DEBUG`
    Debug,
    /// `SO_DONTROUTE`
    DontRoute,
    /// `SO_RCVLOWAT`
    ReceiveLowWater,
    /// `SO_SNDLOWAT`
    SendLowWater,
}

/// Sets one of them.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub fn set(socket: &socket2::Socket, option: Raw, value: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let name = match option {
        Raw::Debug => libc::SO_DEBUG,
        Raw::DontRoute => libc::SO_DONTROUTE,
        Raw::ReceiveLowWater => libc::SO_RCVLOWAT,
        Raw::SendLowWater => libc::SO_SNDLOWAT,
    };
    let value = libc::c_int::try_from(value).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open as long as the borrow, and the value is an int of that size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets one of them.
///
/// # Errors
/// Always: Windows has no use for these.
#[cfg(not(unix))]
pub fn set(_: &socket2::Socket, _: Raw, _: u32) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this socket option does not exist on this platform",
    ))
}
