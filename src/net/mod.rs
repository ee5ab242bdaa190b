//! Sockets: TCP or Unix, accepted or connected, and what is set on them.

mod dial;
mod dial_context;
#[cfg(all(unix, any(test, fuzzing)))]
pub(crate) mod fuzzing;
mod http_connect;
mod listen;
mod options;
#[cfg(unix)]
mod program;
mod proxy_reader;
mod proxy_writer;
#[cfg(unix)]
mod pty;
mod resolve;
#[cfg(unix)]
mod restricted_socket;
mod shown_address;
#[cfg(unix)]
mod socket_name;
pub mod socks;
#[cfg(unix)]
mod stdio;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::sys::socket::unacknowledged_data;
#[cfg(unix)]
use tokio::net::UnixStream;

pub use dial::{DialError, DialRefusal, Dialer, UpstreamConnection};
pub use dial_context::DialContext;
pub use http_connect::http_connect;
pub use listen::{
    AsyncListener, BindOutcome, BusyRetry, Listener, MissingAddress, bind, bind_missing,
    could_bind, is_absent,
};
pub use options::{apply, keepalive, not_set};
#[cfg(unix)]
pub use program::{ChildProcess, StartedProgram, start as start_program};
pub use proxy_reader::{ProxyHeaderError, ProxyHeaderSource, read_proxy_header};
pub use proxy_writer::{ProxyHeaderFields, write_proxy_header_v1, write_proxy_header_v2};
#[cfg(unix)]
pub use pty::Pty;
#[cfg(unix)]
pub use restricted_socket::{bind_restricted, make_folder};
pub use shown_address::ShownAddress;
#[cfg(unix)]
pub use socket_name::SocketName;
#[cfg(unix)]
pub use stdio::{Stdio, inherited};

/// A connection.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    #[cfg(unix)]
    Unix(UnixStream),
    /// Standard input and output, where they are not one socket.
    #[cfg(unix)]
    Stdio(Box<Stdio>),
    /// The terminal of a program.
    #[cfg(unix)]
    Pty(Box<Pty>),
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// An address.
    Tcp(SocketAddr),
    /// Somebody on this machine.
    Local,
    /// Whoever started this program.
    Stdio,
    /// A program that this one has started: where it is, unless it has a terminal.
    Program(Option<SocketAddr>),
}

impl Peer {
    /// The address without its port; IPv4 that came through an IPv6 socket is IPv4 again.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Local | Self::Stdio | Self::Program(_) => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => match address.ip().to_canonical() {
                IpAddr::V4(v4) => write!(f, "{v4}:{}", address.port()),
                IpAddr::V6(_) => ShownAddress(*address).fmt(f),
            },
            Self::Local => f.write_str("unix socket"),
            Self::Stdio => f.write_str("standard input"),
            Self::Program(Some(address)) => ShownAddress(*address).fmt(f),
            Self::Program(None) => f.write_str("the program's terminal"),
        }
    }
}

impl Socket {
    /// The TCP connection that this is, unless it is of another kind.
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            #[cfg(unix)]
            _ => None,
        }
    }

    /// Our own address, of TCP.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.as_tcp().and_then(|stream| stream.local_addr().ok())
    }

    /// Where a connection was meant to go that the system's packet filter has redirected here.
    ///
    /// # Errors
    /// It was not redirected, or the system cannot tell.
    pub fn original_destination(&self) -> io::Result<SocketAddr> {
        let here = || io::Error::other("this connection was not redirected here");
        let stream = self.as_tcp().ok_or_else(here)?;
        let local = stream.local_addr()?;
        let meant = original_destination(stream, local)?;
        // Whoever connects to us in person would be connected to us without end.
        if meant == local { Err(here()) } else { Ok(meant) }
    }

    /// What closing does to data and peer: a reset, which tells the peer that what it has may be
    /// half of something, or TCP's orderly end. Unix sockets know no reset.
    pub fn reset_on_close(&self, reset: bool) {
        if let Some(stream) = self.as_tcp() {
            let linger = reset.then_some(Duration::ZERO);
            // Fails on a socket that the peer has reset already: the aim is reached then.
            let _ = socket2::SockRef::from(stream).set_linger(linger);
        }
    }

    /// Whether the peer still has to acknowledge something, where that is watched: while it does,
    /// TCP sends the data again and no keepalive, and gives up after a quarter of an hour.
    pub fn in_flight(&self) -> bool {
        self.as_tcp().is_some_and(|tcp| {
            unacknowledged_data(tcp).is_some() && keepalive_timeout(tcp).is_some()
        })
    }

    /// The error that the system has noted and nobody has been told yet: a reset, or a peer that
    /// keepalive found dead. A peer that answers nothing at all while data is on its way to it is
    /// given as long as keepalive gives one that is silent. One that merely reads slowly answers
    /// every time its window is asked for.
    pub fn fault(&self) -> Option<io::Error> {
        match self {
            Self::Tcp(stream) => match stream.take_error() {
                Ok(None) => Ok(find_dead_peer(stream)),
                known => known,
            },
            #[cfg(unix)]
            Self::Unix(stream) => stream.take_error(),
            #[cfg(unix)]
            Self::Stdio(_) | Self::Pty(_) => Ok(None),
        }
        .unwrap_or_else(Some)
    }

    /// Ends an orderly conversation with a peer that may still be sending: FIN, then discard what
    /// comes until it has closed too or `limit` is over. Closing with unread data would send RST
    /// (RFC 1122, 4.2.2.13), which loses what the peer has not read yet and kills fragile ones.
    pub async fn close_gently(mut self, limit: Duration) {
        self.reset_on_close(false);
        let _ = tokio::time::timeout(limit, async {
            if self.shutdown().await.is_ok() {
                let mut sink = [0; 4096];
                while matches!(self.read(&mut sink).await, Ok(1..)) {}
            }
        })
        .await;
    }
}

#[cfg(target_os = "linux")]
fn original_destination(stream: &TcpStream, local: SocketAddr) -> io::Result<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    // The table of connections knows one that came as IPv4 as such.
    let meant = match local.ip().to_canonical() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    };
    let unknown = |error: &dyn fmt::Display| {
        io::Error::other(format!("this connection was not redirected here: {error}"))
    };
    let meant = meant.map_err(|error| unknown(&error))?;
    meant.as_socket().ok_or_else(|| unknown(&"it has no address"))
}

#[cfg(not(target_os = "linux"))]
fn original_destination(_: &TcpStream, _: SocketAddr) -> io::Result<SocketAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "redirected connections work on Linux only"))
}

/// Sent again or asked for in vain this often, nothing came by mere bad luck.
const MAX_UNANSWERED_PROBES: u8 = 3;

fn find_dead_peer(tcp: &TcpStream) -> Option<io::Error> {
    // What is nearly always false first: the rest costs four more questions to the kernel.
    let owed = unacknowledged_data(tcp).filter(|owed| owed.retries >= MAX_UNANSWERED_PROBES)?;
    keepalive_timeout(tcp).filter(|limit| owed.silence >= *limit)?;
    let text = format!("the other end has acknowledged nothing for {} s", owed.silence.as_secs());
    Some(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// How long keepalive lets a peer be silent; none if it is off.
fn keepalive_timeout(tcp: &TcpStream) -> Option<Duration> {
    let socket = socket2::SockRef::from(tcp);
    if !socket.keepalive().ok()? {
        return None;
    }
    #[cfg(unix)]
    return Some(
        socket.tcp_keepalive_time().ok()?
            + socket.tcp_keepalive_interval().ok()? * socket.tcp_keepalive_retries().ok()?,
    );
    #[cfg(not(unix))]
    None
}

macro_rules! each {
    ($socket:expr, $stream:ident => $do:expr) => {
        match $socket.get_mut() {
            Socket::Tcp($stream) => $do,
            #[cfg(unix)]
            Socket::Unix($stream) => $do,
            #[cfg(unix)]
            Socket::Stdio($stream) => $do,
            #[cfg(unix)]
            Socket::Pty($stream) => $do,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
