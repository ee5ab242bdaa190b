//! Connecting: names resolved each time, addresses tried one after the other.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::net::TcpSocket;

use super::{Socket, options};
use crate::config::model::{Decided, Endpoint, Failover, Host, Keepalive, SocketOption};

#[cfg(test)]
mod tests;

/// Connects one service to its targets.
#[derive(Debug)]
pub struct Dialer {
    targets: Vec<Endpoint>,
    failover: Failover,
    limit: Duration,
    keepalive: Option<Keepalive>,
    options: Vec<Decided<SocketOption>>,
    turn: AtomicUsize,
}

/// Why nobody answered: one line for each address that was tried.
#[derive(Debug)]
pub struct DialError(Vec<(String, io::Error)>);

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
    /// `limit` is for each address; `keepalive` and `options` are set before connecting.
    pub fn new(
        targets: Vec<Endpoint>,
        failover: Failover,
        limit: Duration,
        keepalive: Option<Keepalive>,
        options: Vec<Decided<SocketOption>>,
    ) -> Self {
        Self { targets, failover, limit, keepalive, options, turn: AtomicUsize::new(0) }
    }

    /// Connects to the first target that answers. Returns it, and its address for the log.
    ///
    /// # Errors
    /// None answered.
    pub async fn dial(&self) -> Result<(Socket, Endpoint, String), DialError> {
        let first = match self.failover {
            Failover::Priority => 0,
            Failover::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        let mut failed = Vec::new();
        for n in 0..self.targets.len() {
            let target = &self.targets[(first.wrapping_add(n)) % self.targets.len()];
            match self.target(target, &mut failed).await {
                Some((socket, address)) => return Ok((socket, target.clone(), address)),
                None => continue,
            }
        }
        Err(DialError(failed))
    }

    async fn target(
        &self,
        target: &Endpoint,
        failed: &mut Vec<(String, io::Error)>,
    ) -> Option<(Socket, String)> {
        match target {
            Endpoint::Tcp { host, port } => {
                let addresses = match resolve(host, *port, self.limit).await {
                    Ok(addresses) => addresses,
                    Err(error) => {
                        failed.push((target.to_string(), error));
                        return None;
                    }
                };
                for address in addresses {
                    match within(self.limit, self.tcp(address)).await {
                        Ok(socket) => return Some((socket, address.to_string())),
                        Err(error) => failed.push((address.to_string(), error)),
                    }
                }
                None
            }
            #[cfg(unix)]
            Endpoint::Unix(path) => {
                match within(self.limit, tokio::net::UnixStream::connect(path)).await {
                    Ok(stream) => Some((Socket::Unix(stream), target.to_string())),
                    Err(error) => {
                        failed.push((target.to_string(), error));
                        None
                    }
                }
            }
            #[cfg(not(unix))]
            Endpoint::Unix(_) => {
                failed.push((target.to_string(), io::ErrorKind::Unsupported.into()));
                None
            }
        }
    }

    async fn tcp(&self, address: SocketAddr) -> io::Result<Socket> {
        let socket =
            socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // Nagle against delayed acknowledgements costs 40 ms a request (measured: 45).
        socket.set_tcp_nodelay(true)?;
        if let Some(keepalive) = &self.keepalive {
            options::keepalive(&socket, keepalive)?;
        }
        for option in &self.options {
            options::apply(&socket, option)?;
        }
        let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
        Ok(Socket::Tcp(stream))
    }
}

async fn resolve(host: &Host, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    match host {
        // As getaddrinfo answers for no host: ::1 first.
        Host::Unspecified => {
            Ok(vec![(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()])
        }
        Host::Ip(ip) => Ok(vec![(*ip, port).into()]),
        Host::Name(name) => {
            let lookup = tokio::net::lookup_host((name.as_str(), port));
            Ok(within(limit, lookup).await?.collect())
        }
    }
}

async fn within<T>(limit: Duration, attempt: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(done) => done,
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")))
        }
    }
}
