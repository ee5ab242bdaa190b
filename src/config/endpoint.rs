//! Addresses as operators write them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The host part of an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A port alone: every interface for a listener, this machine for a connection.
    Unspecified,
    /// A literal address.
    Ip(IpAddr),
    /// A name, resolved when it is used and each time it is used.
    Name(String),
}

/// Where to listen or to connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP.
    Tcp {
        /// Who.
        host: Host,
        /// 0 asks the system for a free port (listeners only).
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host: Host::Unspecified, port } => write!(f, "{port}"),
            Self::Tcp { host: Host::Ip(IpAddr::V6(ip)), port } => write!(f, "[{ip}]:{port}"),
            Self::Tcp { host: Host::Ip(ip), port } => write!(f, "{ip}:{port}"),
            Self::Tcp { host: Host::Name(name), port } => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}
