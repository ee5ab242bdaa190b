//! Listeners: bound while the program is still synchronous, accepted from forever after.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
#[cfg(unix)]
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Type};

#[cfg(unix)]
use super::socket_name::SocketName;
use super::{Peer, ShownAddress, Socket, options};
use crate::config::model::{Endpoint, Host, Listen, Resolved, SocketOption};
use crate::sys::address_holder::{self, AddressHolder};

#[cfg(test)]
mod tests;

/// How long busy addresses are tried again, so that an immediate restart finds its ports while the
/// process before it is still going.
const BUSY_RETRY_TIME: Duration = Duration::from_secs(2);
/// The pause between two such tries.
const BUSY_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// The queue of connections that wait to be accepted; the kernel cuts it to its own maximum.
const ACCEPT_BACKLOG: i32 = 4096;

/// A bound address. Unlinks a Unix socket's path when it goes.
#[derive(Debug)]
pub struct Listener {
    kind: ListenerKind,
    address: String,
}

#[derive(Debug)]
enum ListenerKind {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    /// The path goes before the listener does: a successor that found it refusing connections would
    /// take it for stale, and lose its own socket to our unlinking.
    /// A socket that the service manager opened keeps its name.
    Unix(Option<SocketName>, std::os::unix::net::UnixListener),
}

/// The patience with which all addresses of a start are bound.
pub struct BusyRetry<'a> {
    /// One deadline for all of them: a second program of the same configuration finds every address busy.
    until: Instant,
    tell: &'a mut dyn FnMut(&str),
}

impl<'a> BusyRetry<'a> {
    /// `tell` gets a sentence for each address that is busy when it is first tried.
    pub fn new(tell: &'a mut dyn FnMut(&str)) -> Self {
        Self { until: Instant::now() + BUSY_RETRY_TIME, tell }
    }

    /// Tries each address once.
    pub fn once(tell: &'a mut dyn FnMut(&str)) -> Self {
        Self { until: Instant::now(), tell }
    }
}

impl std::fmt::Debug for BusyRetry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Busy").field("until", &self.until).finish_non_exhaustive()
    }
}

/// What became of one `accept` line.
#[derive(Debug, Default)]
pub struct BindOutcome {
    /// The addresses that were taken.
    pub listeners: Vec<Listener>,
    /// Addresses of a name that this machine does not have, in words, while another one listens: `localhost`
    /// is `127.0.0.1` and `::1` in /etc/hosts, also where IPv6 is switched off.
    pub absent: Vec<String>,
    /// Addresses that could not be taken, each with the system's error.
    pub missing: Vec<(MissingAddress, io::Error)>,
}

impl BindOutcome {
    fn of_one(at: &Endpoint, address: Option<SocketAddr>, bound: io::Result<Listener>) -> Self {
        let mut outcome = Self::default();
        match bound {
            Ok(listener) => outcome.listeners.push(listener),
            Err(error) => {
                outcome.missing.push((MissingAddress::new(at, address, &error), error));
            }
        }
        outcome
    }

    /// All or nothing.
    ///
    /// # Errors
    /// That of the first address that could not be taken, with the address in its text.
    pub fn all_or_nothing(self) -> io::Result<(Vec<Listener>, Vec<String>)> {
        match self.missing.into_iter().next() {
            None => Ok((self.listeners, self.absent)),
            Some((missing, error)) => Err(missing.with_address(&error)),
        }
    }
}

/// An address of an `accept` line that could not be taken.
#[derive(Debug, Clone)]
pub struct MissingAddress {
    /// As the file names it.
    pub at: Endpoint,
    /// Which of its addresses. None if it is a path, or a name that could not be resolved.
    address: Option<SocketAddr>,
    /// The system's words.
    pub why: String,
}

impl MissingAddress {
    fn new(at: &Endpoint, address: Option<SocketAddr>, error: &io::Error) -> Self {
        Self { at: at.clone(), address, why: error.to_string() }
    }

    /// The same for another reason.
    pub fn because(&self, why: String) -> Self {
        Self { why, ..self.clone() }
    }

    /// Whether both are one address, for whatever reason it is missing.
    pub fn is_same(&self, other: &Self) -> bool {
        self.at == other.at && self.address == other.address
    }

    /// An error with the address in its text.
    pub fn with_address(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{self}: {error}"))
    }
}

/// The address alone.
impl std::fmt::Display for MissingAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.address, &self.at) {
            (Some(address), _) => ShownAddress(address).fmt(f),
            #[cfg(unix)]
            (None, Endpoint::Unix(path)) => path.display().fmt(f),
            (None, at) => at.fmt(f),
        }
    }
}

/// Binds one `accept` line: every address that its host resolves to.
pub fn bind(
    listen: &Listen,
    siblings: &[Listen],
    options: &[Resolved<SocketOption>],
    busy: &mut BusyRetry<'_>,
) -> BindOutcome {
    let at = &listen.at.value;
    match at {
        Endpoint::Tcp { host, port } => match resolve(host, *port) {
            Ok(addresses) => bind_addresses(listen, &addresses, siblings, options, busy),
            Err(error) => BindOutcome::of_one(at, None, Err(error)),
        },
        #[cfg(unix)]
        Endpoint::Unix(path) => {
            let who =
                || in_use(&path.display().to_string(), address_holder::find_unix_listener(path));
            BindOutcome::of_one(at, None, retry_while_busy(busy, who, || bind_unix(path)))
        }
        #[cfg(not(unix))]
        Endpoint::Unix(_) => {
            let error = "Unix sockets do not exist on this platform";
            let error = io::Error::new(io::ErrorKind::Unsupported, error);
            BindOutcome::of_one(at, None, Err(error))
        }
    }
}

/// Tries once more to bind an address that was missing.
pub fn bind_missing(
    missing: &MissingAddress,
    listen: &Listen,
    siblings: &[Listen],
    options: &[Resolved<SocketOption>],
) -> BindOutcome {
    let Some(address) = missing.address else {
        return bind(listen, siblings, options, &mut BusyRetry::once(&mut |_| {}));
    };
    let alone = address.is_ipv6() && has_ipv4_wildcard(siblings, address.port());
    BindOutcome::of_one(&missing.at, missing.address, bind_tcp(address, alone, options))
}

fn bind_addresses(
    listen: &Listen,
    addresses: &[SocketAddr],
    siblings: &[Listen],
    options: &[Resolved<SocketOption>],
    busy: &mut BusyRetry<'_>,
) -> BindOutcome {
    let at = &listen.at.value;
    let is_name = matches!(at, Endpoint::Tcp { host: Host::Name(_), .. });
    let mut outcome = BindOutcome::default();
    let mut left_out = Vec::new();
    for address in addresses {
        let alone = address.is_ipv6() && has_ipv4_wildcard(siblings, address.port());
        let who = || in_use(&address.to_string(), address_holder::find_tcp_listener(*address));
        match retry_while_busy(busy, who, || bind_tcp(*address, alone, options)) {
            Ok(listener) => outcome.listeners.push(listener),
            // A kernel without IPv6 is no mistake where nobody wrote an IPv6 address.
            Err(error) if listen.optional && is_absent(&error) => {}
            Err(error) => {
                let missing = MissingAddress::new(at, Some(*address), &error);
                match is_name && is_absent(&error) {
                    true => left_out.push((missing, error)),
                    false => outcome.missing.push((missing, error)),
                }
            }
        }
    }
    match outcome.listeners.is_empty() {
        true => outcome.missing.append(&mut left_out),
        false => outcome.absent.extend(
            left_out.iter().map(|(one, error)| format!("does not listen on {one}: {error}")),
        ),
    }
    outcome
}

/// An IPv6 wildcard beside an IPv4 wildcard of the same port must leave IPv4 to that one; alone it
/// serves both, as stunnel's `:::PORT` does.
fn has_ipv4_wildcard(listens: &[Listen], wanted: u16) -> bool {
    listens.iter().any(|listen| {
        matches!(&listen.at.value, Endpoint::Tcp { host: Host::Ip(IpAddr::V4(ip)), port }
            if *port == wanted && *ip == Ipv4Addr::UNSPECIFIED)
    })
}

fn resolve(host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
    match host {
        Host::Unspecified => Ok(vec![(Ipv4Addr::UNSPECIFIED, port).into()]),
        Host::Ip(ip) => Ok(vec![(*ip, port).into()]),
        Host::Name(name) => {
            let mut addresses: Vec<_> = (name.as_str(), port)
                .to_socket_addrs()
                .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?
                .collect();
            addresses.dedup();
            Ok(addresses)
        }
    }
}

/// Whether an error says that this machine does not have an address, or no address of its kind.
pub fn is_absent(error: &io::Error) -> bool {
    #[cfg(unix)]
    return matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    );
    #[cfg(not(unix))]
    return error.kind() == io::ErrorKind::AddrNotAvailable;
}

fn retry_while_busy(
    busy: &mut BusyRetry<'_>,
    who: impl Fn() -> String,
    mut attempt: impl FnMut() -> io::Result<Listener>,
) -> io::Result<Listener> {
    let mut told = false;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let left = busy.until.saturating_duration_since(Instant::now());
                if !told {
                    told = true;
                    let words = match left.is_zero() {
                        true => who(),
                        false => format!("{}: trying again for {:.1} s", who(), left.as_secs_f64()),
                    };
                    (busy.tell)(&words);
                }
                if left.is_zero() {
                    return Err(error);
                }
                std::thread::sleep(BUSY_RETRY_INTERVAL);
            }
            done => return done,
        }
    }
}

fn in_use(address: &str, holder: Option<AddressHolder>) -> String {
    match holder {
        Some(holder) => format!("{address} is in use by {holder}"),
        None => format!("{address} is in use"),
    }
}

fn bind_tcp(
    address: SocketAddr,
    v6_alone: bool,
    written: &[Resolved<SocketOption>],
) -> io::Result<Listener> {
    let socket = bind_only(address, v6_alone, written)?;
    socket.listen(ACCEPT_BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = std::net::TcpListener::from(socket);
    let address = ShownAddress(listener.local_addr()?).to_string();
    Ok(Listener { kind: ListenerKind::Tcp(listener), address })
}

/// Takes an address without listening there.
fn bind_only(
    address: SocketAddr,
    v6_alone: bool,
    written: &[Resolved<SocketOption>],
) -> io::Result<socket2::Socket> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows this would let a second program steal the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if v6_alone {
        socket.set_only_v6(true)?;
    }
    for option in written {
        options::apply(&socket, option)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(unix)]
fn bind_unix(path: &Path) -> io::Result<Listener> {
    use std::os::unix::net::UnixListener;
    check_is_no_file(path)?;
    let listener = bind_replacing_stale(path, || false, || UnixListener::bind(path))?;
    listener.set_nonblocking(true)?;
    let address = path.display().to_string();
    let name = SocketName::of(path)?;
    Ok(Listener { kind: ListenerKind::Unix(Some(name), listener), address })
}

/// Binds a path. One that nobody listens on is what a crash left behind: it is replaced, and so is one
/// whose listener `yields`.
#[cfg(unix)]
pub(super) fn bind_replacing_stale<T>(
    path: &Path,
    yields: impl Fn() -> bool,
    bind: impl Fn() -> io::Result<T>,
) -> io::Result<T> {
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !(is_stale(path)? || is_socket(path) && yields()) {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            bind()
        }
        done => done,
    }
}

/// Whether a path is a socket that nobody listens on. Asked with a datagram socket, a stream listener
/// answers "wrong type" and hears nothing of it. A connection would reach its target, and a PLC's
/// runtime ends its session when a second one does.
#[cfg(unix)]
fn is_stale(path: &Path) -> io::Result<bool> {
    let refused = std::os::unix::net::UnixDatagram::unbound()?.connect(path);
    Ok(refused.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) && is_socket(path))
}

/// No waiting helps where something else than a socket is in the way.
#[cfg(unix)]
fn check_is_no_file(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(_) if !is_socket(path) => {
            let error = "it is there already, and it is not a socket";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, error))
        }
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

/// Whether each address of an `accept` line could be taken now. Nobody can connect meanwhile: nothing
/// listens. An address whose absence is no mistake is left out when it is absent.
pub fn could_bind(
    listen: &Listen,
    siblings: &[Listen],
    options: &[Resolved<SocketOption>],
) -> Vec<(Option<SocketAddr>, io::Result<()>)> {
    match &listen.at.value {
        Endpoint::Tcp { host, port } => {
            let addresses = match resolve(host, *port) {
                Ok(addresses) => addresses,
                Err(error) => return vec![(None, Err(error))],
            };
            let mut all = Vec::new();
            for address in addresses {
                let alone = address.is_ipv6() && has_ipv4_wildcard(siblings, *port);
                match bind_only(address, alone, options) {
                    Err(error) if listen.optional && is_absent(&error) => {}
                    taken => all.push((Some(address), taken.map(drop))),
                }
            }
            all
        }
        #[cfg(unix)]
        Endpoint::Unix(path) => vec![(None, could_make(path))],
        #[cfg(not(unix))]
        Endpoint::Unix(_) => vec![(None, Err(io::ErrorKind::Unsupported.into()))],
    }
}

#[cfg(unix)]
fn could_make(path: &Path) -> io::Result<()> {
    check_is_no_file(path)?;
    match std::fs::symlink_metadata(path) {
        Ok(_) if is_stale(path)? => Ok(()),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        // Its folder must be there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            std::fs::metadata(folder).map(drop)
        }
        Err(error) => Err(error),
    }
}

impl Listener {
    /// A socket that somebody else opened and has made listen.
    ///
    /// # Errors
    /// It is no listening stream socket.
    #[cfg(unix)]
    pub fn inherited(socket: std::os::fd::OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(socket);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            let error = "the descriptor is no listening stream socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let (kind, address) = match address.as_socket() {
            Some(address) => (ListenerKind::Tcp(socket.into()), ShownAddress(address).to_string()),
            None => {
                let path = address.as_pathname().map(|path| path.display().to_string());
                (ListenerKind::Unix(None, socket.into()), path.unwrap_or("unix socket".into()))
            }
        };
        Ok(Self { kind, address })
    }

    /// The address as it was bound, with the real port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Hands the listener to the runtime that this is called in.
    ///
    /// # Errors
    /// The system has no room for another descriptor to watch.
    pub fn into_async(self) -> io::Result<AsyncListener> {
        Ok(match self.kind {
            ListenerKind::Tcp(listener) => {
                AsyncListener::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            #[cfg(unix)]
            ListenerKind::Unix(name, listener) => {
                AsyncListener::Unix(name, tokio::net::UnixListener::from_std(listener)?)
            }
        })
    }
}

/// A listener inside a runtime.
#[derive(Debug)]
pub enum AsyncListener {
    /// TCP.
    Tcp(tokio::net::TcpListener),
    /// A Unix socket's name, if this program made it, and the socket.
    #[cfg(unix)]
    Unix(Option<SocketName>, tokio::net::UnixListener),
}

impl AsyncListener {
    /// The number of its descriptor; 0 where the system has none.
    pub fn descriptor(&self) -> i64 {
        #[cfg(unix)]
        {
            use std::os::fd::AsRawFd;
            i64::from(match self {
                Self::Tcp(listener) => listener.as_raw_fd(),
                Self::Unix(_, listener) => listener.as_raw_fd(),
            })
        }
        #[cfg(not(unix))]
        0
    }

    /// Waits for the next connection. Cancel safe.
    ///
    /// # Errors
    /// The system's; none of them is a reason to stop listening.
    pub async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Socket::Tcp(stream), Peer::Tcp(address)))
            }
            #[cfg(unix)]
            Self::Unix(_, listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), Peer::Local))
            }
        }
    }
}
