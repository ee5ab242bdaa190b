//! Socket options: what the operator wrote, on a socket.

use std::io;

use socket2::{SockRef, Socket, TcpKeepalive};

use crate::config::model::{Keepalive, SocketOption};
use crate::sys::socket;

/// `WSAENOPROTOOPT`
#[cfg(windows)]
const NO_SUCH_OPTION: i32 = 10042;

/// Turns keepalive on, so that a peer whose cable was cut is found dead.
///
/// # Errors
/// The system's, for a socket that is closed already.
pub fn keepalive<'s>(socket: impl Into<SockRef<'s>>, keepalive: &Keepalive) -> io::Result<()> {
    let socket = socket.into();
    let set = TcpKeepalive::new().with_time(keepalive.idle).with_interval(keepalive.interval);
    let done = socket.set_tcp_keepalive(&set.clone().with_retries(keepalive.count));
    #[cfg(windows)]
    if done.as_ref().is_err_and(|error| error.raw_os_error() == Some(NO_SUCH_OPTION)) {
        // Windows before 10 (1703) has a count of its own, ten.
        return socket.set_tcp_keepalive(&set);
    }
    done
}

/// What to say of an option that could not be set on a connection.
pub fn not_set(option: &SocketOption, error: &io::Error) -> String {
    format!("cannot set the socket option {option:?}; the connection goes on without it: {error}")
}

/// Sets one option.
///
/// # Errors
/// The system's: a value it does not take, an option this platform has not, or no right to set it.
pub fn apply(socket: &Socket, option: &SocketOption) -> io::Result<()> {
    use SocketOption as O;
    use std::time::Duration;
    #[cfg(unix)]
    let seconds = |s: u32| Duration::from_secs(s.into());
    match option {
        O::KeepAlive(on) => socket.set_keepalive(*on),
        O::Linger(seconds) => {
            socket.set_linger(seconds.map(|seconds| Duration::from_secs(seconds.into())))
        }
        O::OobInline(on) => socket.set_out_of_band_inline(*on),
        O::ReceiveBuffer(bytes) => socket.set_recv_buffer_size(*bytes as usize),
        O::SendBuffer(bytes) => socket.set_send_buffer_size(*bytes as usize),
        O::ReceiveTimeout(limit) => socket.set_read_timeout(Some(*limit)),
        O::SendTimeout(limit) => socket.set_write_timeout(Some(*limit)),
        O::ReuseAddress(on) => socket.set_reuse_address(*on),
        O::TypeOfService(tos) => socket.set_tos_v4(u32::from(*tos)),
        O::TimeToLive(ttl) => socket.set_ttl_v4(u32::from(*ttl)),
        O::NoDelay(on) => socket.set_tcp_nodelay(*on),
        O::Ipv6Only(on) => socket.set_only_v6(*on),
        // Windows sets the three together or not at all: alone, one would zero the others.
        #[cfg(unix)]
        O::KeepAliveIdle(s) => {
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(seconds(*s)))
        }
        #[cfg(unix)]
        O::KeepAliveInterval(s) => {
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_interval(seconds(*s)))
        }
        #[cfg(unix)]
        O::KeepAliveCount(count) => {
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_retries(*count))
        }
        #[cfg(target_os = "linux")]
        O::BindToDevice(device) => socket.bind_device(Some(device.as_bytes())),
        #[cfg(target_os = "linux")]
        O::FreeBind(on) => socket.set_freebind_v4(*on),
        O::Debug(on) => {
            socket::set_raw_option(socket, socket::RawSocketOption::Debug, u32::from(*on))
        }
        O::DontRoute(on) => {
            socket::set_raw_option(socket, socket::RawSocketOption::DontRoute, u32::from(*on))
        }
        O::ReceiveLowWater(bytes) => {
            socket::set_raw_option(socket, socket::RawSocketOption::ReceiveLowWater, *bytes)
        }
        O::SendLowWater(bytes) => {
            socket::set_raw_option(socket, socket::RawSocketOption::SendLowWater, *bytes)
        }
        #[allow(unreachable_patterns)]
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this socket option does not exist on this platform",
        )),
    }
}
