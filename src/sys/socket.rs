//! Socket options that neither `socket2` nor `rustix` sets or reads.

use std::io;

/// An option of level `SOL_SOCKET` with an integer value.
#[derive(Debug, Clone, Copy)]
pub enum RawSocketOption {
    /// `SO_DEBUG`
    Debug,
    /// `SO_DONTROUTE`
    DontRoute,
    /// `SO_RCVLOWAT`
    ReceiveLowWater,
    /// `SO_SNDLOWAT`
    SendLowWater,
}

/// What a peer has not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnacknowledgedData {
    /// How often it was sent again, or its window was asked for, in vain.
    pub retries: u8,
    /// Since when nothing was heard of the peer's TCP at all.
    pub silence: std::time::Duration,
}

/// What the kernel tells of a TCP connection: `struct tcp_info` of <linux/tcp.h>, whose beginning is the
/// same on every machine: eight bytes, then 32-bit numbers.
#[cfg(target_os = "linux")]
struct TcpInfo([u8; Self::SIZE]);

#[cfg(target_os = "linux")]
impl TcpInfo {
    /// Up to `tcpi_notsent_bytes`, which kernels tell since 4.6.
    const SIZE: usize = 148;
    /// Up to `tcpi_rtt`; all kernels tell as much. The rest is 0 where it is not told.
    const MIN_SIZE: usize = 72;

    fn read(socket: &impl std::os::fd::AsRawFd) -> Option<Self> {
        let mut info = [0u8; Self::SIZE];
        let mut length = Self::SIZE as libc::socklen_t;
        // SAFETY: the descriptor is open as long as the borrow; the kernel writes at most the length
        // that is passed.
        let done = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        (done == 0 && (length as usize) >= Self::MIN_SIZE).then_some(Self(info))
    }

    fn u32_at(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

/// What the peer of a connection owes an acknowledgement for; none if it owes nothing, or the system
/// does not tell.
#[cfg(target_os = "linux")]
pub fn unacknowledged_data(socket: &impl std::os::fd::AsRawFd) -> Option<UnacknowledgedData> {
    let info = TcpInfo::read(socket)?;
    let [.., retransmits, probes] = info.0.first_chunk::<4>()?;
    let (unacked, last_ack_recv) = (info.u32_at(24), info.u32_at(56));
    let tries = match unacked {
        0 => *probes,
        _ => *retransmits,
    };
    let silence = std::time::Duration::from_millis(last_ack_recv.into());
    (unacked > 0 || *probes > 0).then_some(UnacknowledgedData { retries: tries, silence })
}

/// How long ago a peer acknowledged something last, if the system tells.
#[cfg(target_os = "linux")]
pub fn time_since_last_ack(socket: &impl std::os::fd::AsRawFd) -> Option<std::time::Duration> {
    TcpInfo::read(socket).map(|info| std::time::Duration::from_millis(info.u32_at(56).into()))
}

/// Whether the peer has closed its window while there is something to send: its program does not read. The
/// kernel asks it ever more rarely then, so that its silence says nothing.
#[cfg(target_os = "linux")]
pub fn has_closed_window(socket: &impl std::os::fd::AsRawFd) -> bool {
    TcpInfo::read(socket).is_some_and(|info| info.u32_at(24) == 0 && info.u32_at(144) > 0)
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn has_closed_window<S>(_: &S) -> bool {
    false
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn time_since_last_ack<S>(_: &S) -> Option<std::time::Duration> {
    None
}

/// The round trip time of a connection as the kernel has measured it, if it tells. The peer can make it
/// longer than it is.
#[cfg(target_os = "linux")]
pub fn round_trip_time(socket: &impl std::os::fd::AsRawFd) -> Option<std::time::Duration> {
    TcpInfo::read(socket).map(|info| std::time::Duration::from_micros(info.u32_at(68).into()))
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn round_trip_time<S>(_: &S) -> Option<std::time::Duration> {
    None
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn unacknowledged_data<S>(_: &S) -> Option<UnacknowledgedData> {
    None
}

/// Sets one of them.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub fn set_raw_option(
    socket: &socket2::Socket,
    option: RawSocketOption,
    value: u32,
) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let name = match option {
        RawSocketOption::Debug => libc::SO_DEBUG,
        RawSocketOption::DontRoute => libc::SO_DONTROUTE,
        RawSocketOption::ReceiveLowWater => libc::SO_RCVLOWAT,
        RawSocketOption::SendLowWater => libc::SO_SNDLOWAT,
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
pub fn set_raw_option(_: &socket2::Socket, _: RawSocketOption, _: u32) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this socket option does not exist on this platform",
    ))
}
