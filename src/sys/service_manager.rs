//! What a service manager left for this process in its environment: sockets that it has opened, and
//! where to tell it how things are (sd_listen_fds(3), sd_notify(3)).
//!
//! No library for this: the address is connected to once, because after a change of root directory a
//! path could not be found again, and the abstract ones of containers count as well.

use std::io;
use std::time::Duration;

#[cfg(unix)]
use std::{
    ffi::{OsStr, OsString},
    os::fd::{OwnedFd, RawFd},
    os::unix::net::UnixDatagram,
};

/// What the service manager passed to this process.
#[derive(Debug, Default)]
pub struct ServiceManagerEnvironment {
    /// The sockets in their order, each with the name that it was given, which may be empty.
    #[cfg(unix)]
    pub sockets: Vec<(OwnedFd, String)>,
    /// The socket for notifications, or why it cannot be reached.
    pub notify: Option<io::Result<NotifySocket>>,
    /// The manager kills the process if it sends no `WATCHDOG=1` for this long.
    pub watchdog: Option<Duration>,
}

/// A connection to the service manager's notification socket (sd_notify(3)).
#[derive(Debug)]
pub struct NotifySocket {
    #[cfg(unix)]
    socket: UnixDatagram,
    /// Windows' own, which hears it as the state of its service.
    #[cfg(windows)]
    service: (),
}

/// The first descriptor that the service manager passes (`SD_LISTEN_FDS_START`).
#[cfg(unix)]
const FIRST_DESCRIPTOR: RawFd = 3;

/// What it leaves in the environment. Programs that this one starts must not take it for theirs. The variables
/// stay in this process' own environment, because nobody can tell whether another thread is reading it.
pub const ENVIRONMENT_VARIABLES: [&str; 6] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Takes all of it over: the sockets once, the rest as often as it is called.
///
/// # Errors
/// A socket that was announced is not there, or was taken already.
#[cfg(unix)]
pub fn take_environment() -> io::Result<ServiceManagerEnvironment> {
    let text = |name: &str| std::env::var_os(name);
    let number = |name: &str| text(name)?.to_str()?.trim().parse::<u64>().ok();
    let own = u64::from(std::process::id());
    let listens = number("LISTEN_PID") == Some(own);
    let count = number("LISTEN_FDS").filter(|_| listens).unwrap_or(0);
    let names = text("LISTEN_FDNAMES").unwrap_or_default().to_string_lossy().into_owned();
    let notify = text("NOTIFY_SOCKET").map(|address| NotifySocket::connect(&address));
    // Where no process is named, whoever has the variables is meant (sd_watchdog_enabled(3)).
    let watched = text("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(own);
    let watchdog = number("WATCHDOG_USEC").filter(|limit| watched && *limit > 0);
    let mut names = names.split(':');
    let count = RawFd::try_from(count).unwrap_or(RawFd::MAX - FIRST_DESCRIPTOR);
    let sockets = (FIRST_DESCRIPTOR..FIRST_DESCRIPTOR.saturating_add(count))
        .map(|at| {
            Ok((
                super::descriptor::take_inherited(at)?,
                names.next().unwrap_or_default().to_owned(),
            ))
        })
        .collect::<io::Result<_>>()?;
    Ok(ServiceManagerEnvironment { sockets, notify, watchdog: watchdog.map(Duration::from_micros) })
}

/// Whether Windows' service manager started this process.
///
/// # Errors
/// None.
#[cfg(windows)]
pub fn take_environment() -> io::Result<ServiceManagerEnvironment> {
    let notify = super::service_control::is_running().then_some(Ok(NotifySocket { service: () }));
    Ok(ServiceManagerEnvironment { notify, watchdog: None })
}

impl NotifySocket {
    /// Connects to a path, or to an abstract name that begins with `@`.
    #[cfg(unix)]
    fn connect(address: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A manager that does not listen must not stop the tunnel.
        socket.set_nonblocking(true)?;
        match parse_abstract_name(address) {
            #[cfg(target_os = "linux")]
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                use std::os::unix::ffi::OsStrExt;
                let name = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes())?;
                socket.connect_addr(&name)?;
            }
            #[cfg(not(target_os = "linux"))]
            Some(_) => return Err(io::ErrorKind::Unsupported.into()),
            None => socket.connect(address)?,
        }
        Ok(Self { socket })
    }

    /// Sends a notification; never waits.
    ///
    /// # Errors
    /// The manager has much to read yet (`WouldBlock`), or is gone.
    pub fn send(&self, text: &str) -> io::Result<()> {
        #[cfg(unix)]
        return self.socket.send(text.as_bytes()).map(drop);
        #[cfg(windows)]
        {
            let () = self.service;
            super::service_control::report_notify_text(text);
            Ok(())
        }
    }
}

#[cfg(unix)]
fn parse_abstract_name(address: &OsStr) -> Option<OsString> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    address.as_bytes().strip_prefix(b"@").map(|name| OsString::from_vec(name.to_vec()))
}

/// The clock that the service manager compares with, in microseconds; 0 where there is none.
pub fn monotonic_micros() -> u64 {
    #[cfg(unix)]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let (seconds, rest) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
        seconds.unwrap_or(0) * 1_000_000 + rest.unwrap_or(0) / 1000
    }
    #[cfg(not(unix))]
    0
}
