//! Socket options that neither `socket2` nor `rustix` sets or reads.

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

/// What a peer has not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered {
    /// How often it was sent again, or its window was asked for, in vain.
    pub tries: u8,
    /// Since when nothing was heard of the peer's TCP at all.
    pub silence: std::time::Duration,
}

/// What the kernel tells of a TCP connection: `struct tcp_info` of <linux/tcp.h>, whose beginning is the
/// same on every machine: eight bytes, then 32-bit numbers.
#[cfg(target_os = "linux")]
struct TcpInfo([u8; Self::LENGTH]);

#[cfg(target_os = "linux")]
impl TcpInfo {
    /// Up to `tcpi_notsent_bytes`, which kernels tell since 4.6.
    const LENGTH: usize = 148;
    /// Up to `tcpi_rtt`; all kernels tell as much. The rest is 0 where it is not told.
    const MIN_LENGTH: usize = 72;

    fn of(socket: &impl std::os::fd::AsRawFd) -> Option<Self> {
        let mut info = [0u8; Self::LENGTH];
        let mut length = Self::LENGTH as libc::socklen_t;
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
        (done == 0 && (length as usize) >= Self::MIN_LENGTH).then_some(Self(info))
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

/// What the peer of a connection owes an acknowledgement for; none if it owes nothing, or the system
/// does not tell.
#[cfg(target_os = "linux")]
pub fn unanswered(socket: &impl std::os::fd::AsRawFd) -> Option<Unanswered> {
    let info = TcpInfo::of(socket)?;
    let [.., retransmits, probes] = info.0.first_chunk::<4>()?;
    let (unacked, last_ack_recv) = (info.number(24), info.number(56));
    let tries = match unacked {
        0 => *probes,
        _ => *retransmits,
    };
    let silence = std::time::Duration::from_millis(last_ack_recv.into());
    (unacked > 0 || *probes > 0).then_some(Unanswered { tries, silence })
}

/// How long ago a peer acknowledged something last, if the system tells.
#[cfg(target_os = "linux")]
pub fn silence(socket: &impl std::os::fd::AsRawFd) -> Option<std::time::Duration> {
    TcpInfo::of(socket).map(|info| std::time::Duration::from_millis(info.number(56).into()))
}

/// Whether the peer has closed its window while there is something to send: its program does not read. The
/// kernel asks it ever more rarely then, so that its silence says nothing.
#[cfg(target_os = "linux")]
pub fn has_closed_window(socket: &impl std::os::fd::AsRawFd) -> bool {
    TcpInfo::of(socket).is_some_and(|info| info.number(24) == 0 && info.number(144) > 0)
}

/// The system is not asked here.
#[cfg(not(target_os = "linux"))]
pub fn has_closed_window<S>(_: &S) -> bool {
    false
}

/// The system is not asked here.
#[cfg(not(target_os = "linux"))]
pub fn silence<S>(_: &S) -> Option<std::time::Duration> {
    None
}

/// The round trip time of a connection as the kernel has measured it, if it tells. The peer can make it
/// longer than it is.
#[cfg(target_os = "linux")]
pub fn round_trip(socket: &impl std::os::fd::AsRawFd) -> Option<std::time::Duration> {
    TcpInfo::of(socket).map(|info| std::time::Duration::from_micros(info.number(68).into()))
}

/// The system is not asked here.
#[cfg(not(target_os = "linux"))]
pub fn round_trip<S>(_: &S) -> Option<std::time::Duration> {
    None
}

/// The system is not asked here.
#[cfg(not(target_os = "linux"))]
pub fn unanswered<S>(_: &S) -> Option<Unanswered> {
    None
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
