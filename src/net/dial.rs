//! Connecting: names looked up each time, addresses tried one after the other.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::net::TcpSocket;

#[cfg(unix)]
use super::ShownAddress;
use super::program::{self, ChildProcess, StartedProgram};
use super::resolve::{self, Asker};
use super::{DialContext, Peer, Socket, options};
use crate::config::model::{
    Endpoint, Failover, Host, Keepalive, Level, Program, Resolved, SocketOption, Target,
};
use crate::observe::event::Event;

#[cfg(test)]
mod tests;

/// Connects one service to its targets.
#[derive(Debug)]
pub struct Dialer {
    target: Target,
    failover: Failover,
    local: Option<Host>,
    limit: Duration,
    keepalive: Option<Keepalive>,
    options: Vec<Resolved<SocketOption>>,
    /// Whether connections are made from the peer's address.
    from_peer: bool,
    turn: AtomicUsize,
}

/// A target that answered.
#[derive(Debug)]
pub struct UpstreamConnection {
    /// The connection.
    pub socket: Socket,
    /// The target as the configuration names it; none for a program.
    pub endpoint: Option<Endpoint>,
    /// What the log calls it.
    pub address: String,
    /// The program that was started.
    #[cfg(unix)]
    pub child: Option<ChildProcess>,
}

/// A place to try.
enum DialCandidate<'a> {
    Tcp(&'a Endpoint, SocketAddr),
    Unix(&'a Endpoint),
}

impl DialCandidate<'_> {
    fn address(&self) -> String {
        match self {
            Self::Tcp(_, address) => ShownAddress(*address).to_string(),
            Self::Unix(endpoint) => endpoint.to_string(),
        }
    }
}

/// How a target that a peer named came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialRefusal {
    /// Nobody knows it.
    Unknown,
    /// It may not be asked for.
    Forbidden,
    /// It does not answer.
    Unreachable,
}

/// Why nobody answered: one line for each address that was tried.
#[derive(Debug)]
pub struct DialError(Vec<(String, io::Error)>);

impl DialError {
    /// Each address that was tried, and what the system said of it.
    pub fn into_attempts(self) -> Vec<(String, io::Error)> {
        self.0
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (address, error)) in self.0.iter().enumerate() {
            let separator = if n > 0 { "; " } else { "" };
            write!(f, "{separator}{address}: {error}")?;
        }
        Ok(())
    }
}

impl Dialer {
    /// `limit` is for each address; `local`, `keepalive` and `options` are set before connecting.
    pub fn new(
        target: Target,
        failover: Failover,
        local: Option<Host>,
        limit: Duration,
        keepalive: Option<Keepalive>,
        options: Vec<Resolved<SocketOption>>,
    ) -> Self {
        // Many that start together should not all begin with the same target.
        let start = getrandom::u32().unwrap_or_default() as usize;
        Self {
            target,
            failover,
            local,
            limit,
            keepalive,
            options,
            from_peer: false,
            turn: AtomicUsize::new(start),
        }
    }

    /// The same, from the address of each peer if `on`.
    pub fn from_peer(mut self, on: bool) -> Self {
        self.from_peer = on;
        self
    }

    /// The targets as the configuration names them.
    pub fn targets(&self) -> Vec<String> {
        match &self.target {
            Target::Connect(targets) => targets.iter().map(|t| t.value.to_string()).collect(),
            Target::Exec(program) => vec![program.path.value.display().to_string()],
            Target::Asked => vec!["what each peer asks for".into()],
            Target::Original => vec!["where each connection was meant to go".into()],
        }
    }

    /// Connects to the first target that answers, or starts the program. Where targets take turns, it is
    /// not the next one's but that of the address `again`, if it is still among them.
    ///
    /// # Errors
    /// None answered.
    pub async fn dial(
        &self,
        context: &DialContext<'_>,
        again: Option<&str>,
    ) -> Result<UpstreamConnection, DialError> {
        let targets = match &self.target {
            Target::Connect(targets) => targets,
            Target::Exec(program) => return self.exec(program, context).await,
            Target::Asked | Target::Original => {
                return Err(DialError(vec![(
                    "nowhere".into(),
                    io::ErrorKind::InvalidInput.into(),
                )]));
            }
        };
        let mut failed = Vec::new();
        if self.failover == Failover::RoundRobin {
            let mut candidates = Vec::new();
            for target in targets {
                candidates.extend(
                    self.candidates(target, Asker::Configuration, context, &mut failed).await,
                );
            }
            let again = again
                .and_then(|at| candidates.iter().position(|candidate| candidate.address() == at));
            let next = || self.turn.fetch_add(1, Ordering::Relaxed) % candidates.len().max(1);
            let first = again.unwrap_or_else(next);
            candidates.rotate_left(first);
            for candidate in candidates {
                if let Some(reached) = self.connect_candidate(candidate, context, &mut failed).await
                {
                    return Ok(reached);
                }
            }
        } else {
            for target in targets {
                for candidate in
                    self.candidates(target, Asker::Configuration, context, &mut failed).await
                {
                    if let Some(reached) =
                        self.connect_candidate(candidate, context, &mut failed).await
                    {
                        return Ok(reached);
                    }
                }
            }
        }
        Err(DialError(failed))
    }

    /// Connects to a target that was named by the peer, unless `may` has a reason against one of its addresses:
    /// then the whole name is refused, as stunnel does.
    ///
    /// # Errors
    /// There is no such address, it may not be asked for, or none answered.
    pub async fn dial_to(
        &self,
        target: &Endpoint,
        may: impl Fn(SocketAddr) -> Result<(), &'static str>,
        context: &DialContext<'_>,
    ) -> Result<UpstreamConnection, (DialRefusal, DialError)> {
        let mut failed = Vec::new();
        let mut refused = DialRefusal::Unknown;
        let candidates =
            self.candidates(target, Asker::Peer(context.who), context, &mut failed).await;
        let forbidden = candidates.iter().find_map(|candidate| match candidate {
            DialCandidate::Tcp(_, address) => may(*address).err().map(|reason| (*address, reason)),
            DialCandidate::Unix(_) => None,
        });
        if let Some((address, reason)) = forbidden {
            let error = io::Error::new(io::ErrorKind::PermissionDenied, reason);
            failed.push((address.to_string(), error));
            return Err((DialRefusal::Forbidden, DialError(failed)));
        }
        for candidate in candidates {
            if let Some(reached) = self.connect_candidate(candidate, context, &mut failed).await {
                return Ok(reached);
            }
            refused = DialRefusal::Unreachable;
        }
        Err((refused, DialError(failed)))
    }

    #[cfg(unix)]
    async fn exec(
        &self,
        program: &Program,
        context: &DialContext<'_>,
    ) -> Result<UpstreamConnection, DialError> {
        let name = program.path.display().to_string();
        match program::start(program, Some(context)).await {
            Ok(StartedProgram { socket, child, .. }) => {
                if let Some(stream) = socket.as_tcp() {
                    for option in &self.options {
                        // Some mean nothing between this machine and itself.
                        let _ = options::apply(&socket2::SockRef::from(stream), option);
                    }
                }
                Ok(UpstreamConnection { socket, endpoint: None, address: name, child: Some(child) })
            }
            Err(error) => {
                let error = io::Error::new(error.kind(), format!("cannot be run: {error}"));
                Err(DialError(vec![(name, error)]))
            }
        }
    }

    #[cfg(not(unix))]
    async fn exec(
        &self,
        program: &Program,
        _: &DialContext<'_>,
    ) -> Result<UpstreamConnection, DialError> {
        let name = program.path.display().to_string();
        Err(DialError(vec![(name, io::ErrorKind::Unsupported.into())]))
    }

    /// What a target resolves to, now.
    async fn candidates<'a>(
        &self,
        target: &'a Endpoint,
        asker: Asker<'_>,
        context: &DialContext<'_>,
        failed: &mut Vec<(String, io::Error)>,
    ) -> Vec<DialCandidate<'a>> {
        let Endpoint::Tcp { host, port } = target else {
            return vec![DialCandidate::Unix(target)];
        };
        match resolve::addresses(host, *port, self.limit, asker, context.scope).await {
            Ok(addresses) => {
                addresses.into_iter().map(|address| DialCandidate::Tcp(target, address)).collect()
            }
            Err(error) => {
                Event::Unresolved { target, error: &error }.log(context.scope);
                failed.push((target.to_string(), error));
                Vec::new()
            }
        }
    }

    async fn connect_candidate(
        &self,
        candidate: DialCandidate<'_>,
        context: &DialContext<'_>,
        failed: &mut Vec<(String, io::Error)>,
    ) -> Option<UpstreamConnection> {
        let address = candidate.address();
        let (DialCandidate::Tcp(endpoint, _) | DialCandidate::Unix(endpoint)) = candidate;
        Event::Connecting { address: &address }.log(context.scope);
        let attempt = match candidate {
            DialCandidate::Tcp(_, address) => {
                with_timeout(self.limit, self.tcp(address, context)).await
            }
            DialCandidate::Unix(endpoint) => with_timeout(self.limit, unix(endpoint)).await,
        };
        match attempt {
            Ok(socket) => {
                let local = socket.local_address().map_or(Peer::Local, Peer::Tcp);
                Event::Connected { address: &address, local: &local }.log(context.scope);
                Some(UpstreamConnection {
                    socket,
                    endpoint: Some(endpoint.clone()),
                    address,
                    #[cfg(unix)]
                    child: None,
                })
            }
            Err(error) => {
                Event::ConnectFailed { address: &address, error: &error }.log(context.scope);
                failed.push((address, error));
                None
            }
        }
    }

    async fn tcp(&self, address: SocketAddr, context: &DialContext<'_>) -> io::Result<Socket> {
        let socket =
            socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // Nagle against delayed acknowledgements costs 40 ms a request (measured: 45).
        socket.set_tcp_nodelay(true)?;
        if let Some(keepalive) = &self.keepalive {
            options::keepalive(&socket, keepalive)?;
        }
        for option in &self.options {
            if let Err(error) = options::apply(&socket, option) {
                let text = options::not_set(option, &error);
                Event::Finding { level: Level::Warning, text: &text, code: None }
                    .log(context.scope);
            }
        }
        if self.from_peer {
            // Where the peer was meant to go, its own port would make this connection look like its own.
            let keeps_port = !matches!(self.target, Target::Original);
            bind_as(&socket, context.peer, address, keeps_port)?;
        } else if let Some(local) = &self.local {
            let same_family = |from: &SocketAddr| from.is_ipv4() == address.is_ipv4();
            let (limit, asker) = (self.limit, Asker::Configuration);
            let found = resolve::addresses(local, 0, limit, asker, context.scope).await?;
            match found.into_iter().find(same_family) {
                Some(from) => socket.bind(&from.into())?,
                None => {
                    let message = "the local address is of another family";
                    return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
                }
            }
        }
        let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
        Ok(Socket::Tcp(stream))
    }
}

/// Gives a socket the peer's own address, and its port where that is to be kept and is free.
#[cfg(target_os = "linux")]
fn bind_as(
    socket: &socket2::Socket,
    peer: &Peer,
    to: SocketAddr,
    keeps_port: bool,
) -> io::Result<()> {
    let other = |why: &str| io::Error::new(io::ErrorKind::AddrNotAvailable, why.to_owned());
    let Peer::Tcp(from) = peer else {
        return Err(other("the peer has no address to connect from"));
    };
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    if from.is_ipv4() != to.is_ipv4() {
        return Err(other("the peer's address is of another family"));
    }
    let rights = |error: io::Error| {
        let text =
            format!("cannot connect from the peer's address: {error}; it takes CAP_NET_ADMIN");
        io::Error::new(error.kind(), text)
    };
    match from {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
    .map_err(rights)?;
    let any_port = SocketAddr::new(from.ip(), 0).into();
    if !keeps_port {
        return socket.bind(&any_port);
    }
    match socket.bind(&from.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => socket.bind(&any_port),
        done => done,
    }
}

#[cfg(not(target_os = "linux"))]
fn bind_as(_: &socket2::Socket, _: &Peer, _: SocketAddr, _: bool) -> io::Result<()> {
    let text = "connecting from another address works on Linux only";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

#[cfg(unix)]
async fn unix(endpoint: &Endpoint) -> io::Result<Socket> {
    match endpoint {
        Endpoint::Unix(path) => Ok(Socket::Unix(tokio::net::UnixStream::connect(path).await?)),
        Endpoint::Tcp { .. } => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(not(unix))]
async fn unix(_: &Endpoint) -> io::Result<Socket> {
    Err(io::ErrorKind::Unsupported.into())
}

async fn with_timeout<T>(
    limit: Duration,
    attempt: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(done) => done,
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")))
        }
    }
}
