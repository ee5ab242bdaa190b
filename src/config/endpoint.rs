//! Addresses as operators write them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
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
            Self::Tcp { host: Host::Name(name), port } if is_zoned(name) => {
                write!(f, "[{name}]:{port}")
            }
            Self::Tcp { host: Host::Name(name), port } => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressRole {
    /// To wait for connections.
    Listen,
    /// To make them.
    Connect,
}

/// Why a text is no address. The display form says what is wrong, [`AddressError::help`] what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressError {
    /// Nothing there.
    Empty,
    /// Digits beyond 65535.
    PortTooLarge(String),
    /// Neither a number nor a name in /etc/services.
    UnknownService(String),
    /// Nothing after the colon.
    NoPort,
    /// Port 0 is no place to connect to.
    PortZero,
    /// A host and no port.
    OnlyHost(String),
    /// Nothing before the colon.
    NoHost,
    /// Several colons and no brackets.
    Ambiguous {
        /// The host with brackets, if the part before the last colon is an address.
        suggestion: Option<String>,
    },
    /// Brackets around something else, or not closed.
    Brackets(String),
    /// Neither an address nor a name.
    BadHost(String),
    /// `unix:` or `/` and nothing behind it, or a NUL in it.
    BadPath,
    /// A URL in place of an address.
    Url {
        /// What stands before `://`.
        scheme: String,
        /// The host and perhaps the port behind it.
        address: String,
    },
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the address is empty"),
            Self::PortTooLarge(port) => write!(f, "port {port} is larger than 65535"),
            // The words that are known from stunnel, and searched for.
            Self::UnknownService(name) => write!(f, "Unknown TCP service \"{name}\""),
            Self::NoPort => write!(f, "the port is missing after the colon"),
            Self::PortZero => write!(f, "port 0 cannot be connected to"),
            Self::OnlyHost(host) => write!(f, "`{host}` has no port"),
            Self::NoHost => write!(f, "the host is missing before the colon"),
            Self::Ambiguous { .. } => {
                write!(f, "an IPv6 address and a port need brackets to tell them apart")
            }
            Self::Brackets(text) => write!(f, "brackets hold an IPv6 address, not `{text}`"),
            Self::BadHost(host) => write!(f, "`{host}` is neither an address nor a host name"),
            Self::BadPath => write!(f, "this is not the path of a Unix socket"),
            Self::Url { scheme, .. } => {
                write!(
                    f,
                    "this is a URL, and a tunnel carries any protocol: `{scheme}` is the client's affair"
                )
            }
        }
    }
}

impl AddressError {
    /// What to write instead.
    pub fn help(&self) -> String {
        match self {
            Self::Empty | Self::OnlyHost(_) | Self::NoPort | Self::NoHost => {
                "write a port, host:port, [IPv6]:port or the absolute path of a Unix socket".into()
            }
            Self::PortTooLarge(_) => "ports go from 1 to 65535".into(),
            Self::UnknownService(_) => {
                "write the port's number; a comment needs a line of its own".into()
            }
            Self::PortZero => "write the port that the other side listens on".into(),
            Self::Ambiguous { suggestion: Some(text) } => format!("write \"{text}\""),
            Self::Ambiguous { suggestion: None } => "write [IPv6]:port".into(),
            Self::Brackets(_) => "write host:port without brackets".into(),
            Self::BadHost(_) => {
                "a host is an IPv4 address, an IPv6 address in brackets or a name of letters, \
                 digits, dots and hyphens"
                    .into()
            }
            Self::Url { scheme, address } if address.contains(':') => {
                format!("write \"{address}\", and {scheme}:// in the program that connects")
            }
            Self::Url { address, .. } => {
                format!("write the host and the port, such as \"{address}:3001\"")
            }
            Self::BadPath => "write unix: and an absolute path, such as unix:/run/plc.sock".into(),
        }
    }
}

/// Reads an address of a native file: `3001`, `host:3001`, `[v6]:3001`, `unix:/path` or `/path`. A
/// relative path after `unix:` is left as it is, for the caller to anchor.
///
/// # Errors
/// Whatever cannot be understood in exactly one way.
pub fn parse_native(text: &str, role: AddressRole) -> Result<Endpoint, AddressError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let end = rest.find(['/', '#', '?']).unwrap_or(rest.len());
        let address = rest.get(..end).unwrap_or_default().to_owned();
        return Err(AddressError::Url { scheme: scheme.into(), address });
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    if text.starts_with('/') {
        return unix(text);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((inside, port)) = rest.split_once(']') else {
            return Err(AddressError::Brackets(text.into()));
        };
        let host = bracketed(inside)?;
        let port = port.strip_prefix(':').ok_or_else(|| AddressError::OnlyHost(text.into()))?;
        return Ok(Endpoint::Tcp { host, port: number(port, role)? });
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Endpoint::Tcp { host: Host::Unspecified, port: number(text, role)? });
        }
        return Err(AddressError::OnlyHost(text.into()));
    };
    if host.contains(':') {
        let suggestion = match (host.parse::<Ipv6Addr>(), text.parse::<Ipv6Addr>()) {
            (Ok(ip), _) => Some(format!("[{ip}]:{port}")),
            (Err(_), Ok(ip)) => Some(format!("[{ip}]:PORT")),
            _ => None,
        };
        return Err(AddressError::Ambiguous { suggestion });
    }
    let host = match host {
        "" => return Err(AddressError::NoHost),
        "*" if role == AddressRole::Listen => Host::Unspecified,
        host => named(host)?,
    };
    Ok(Endpoint::Tcp { host, port: number(port, role)? })
}

/// Reads an address as stunnel does: a leading slash is a Unix socket, the last colon ends the host,
/// and without a colon all of it is the port. Beyond that, `[v6]:port` is understood.
///
/// # Errors
/// A port that is neither a number nor a service, and a number that stunnel would wrap at 65536.
pub fn parse_stunnel(text: &str, role: AddressRole) -> Result<Endpoint, AddressError> {
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if text.starts_with('/') {
        return unix(text);
    }
    let (host, port) = match text.rsplit_once(':') {
        None => (Host::Unspecified, text),
        Some(("", _)) => return Err(AddressError::NoHost),
        Some(("*", port)) => (Host::Unspecified, port),
        Some((host, port)) => {
            let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let host = match (inside.map(bracketed), host.parse::<IpAddr>()) {
                (Some(Ok(host)), _) => host,
                (_, Ok(ip)) => Host::Ip(ip),
                _ => Host::Name(host.into()),
            };
            (host, port)
        }
    };
    let is_number = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = if is_number { number(port, role)? } else { service(port)? };
    Ok(Endpoint::Tcp { host, port })
}

/// Reads a host alone: an address, also an IPv6 one in brackets, or a name.
///
/// # Errors
/// Whatever no resolver could know.
pub fn parse_host(text: &str) -> Result<Host, AddressError> {
    match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(inside) => bracketed(inside),
        None if text.is_empty() => Err(AddressError::NoHost),
        None => named(text),
    }
}

fn unix(path: &str) -> Result<Endpoint, AddressError> {
    if path.is_empty() || path == "/" || path.contains('\0') {
        return Err(AddressError::BadPath);
    }
    Ok(Endpoint::Unix(PathBuf::from(path)))
}

fn bracketed(inside: &str) -> Result<Host, AddressError> {
    if let Ok(ip) = inside.parse::<Ipv6Addr>() {
        return Ok(Host::Ip(IpAddr::V6(ip)));
    }
    // A zone is for the resolver, which knows the interfaces.
    match is_zoned(inside) {
        true => Ok(Host::Name(inside.into())),
        false => Err(AddressError::Brackets(inside.into())),
    }
}

/// Whether it is an IPv6 address and a zone (RFC 4007), which only brackets tell from a port. A zone is a
/// number, or the name of an interface: on Linux 15 bytes without white space, slash and colon.
pub fn is_zoned(text: &str) -> bool {
    let good =
        |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':' | '[' | ']');
    text.split_once('%').is_some_and(|(ip, zone)| {
        ip.parse::<Ipv6Addr>().is_ok() && (1..16).contains(&zone.len()) && zone.chars().all(good)
    })
}

fn named(host: &str) -> Result<Host, AddressError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Host::Ip(ip));
    }
    let looks_numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if looks_numeric || !is_host_name(host) {
        return Err(AddressError::BadHost(host.into()));
    }
    Ok(Host::Name(host.into()))
}

/// Whether a resolver could know it: letters, digits, dots, hyphens, underscores, and whatever is
/// not ASCII; 253 bytes (RFC 1035, 2.3.4).
pub(crate) fn is_host_name(host: &str) -> bool {
    let good = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    (1..=253).contains(&host.len()) && host.chars().all(good) && !host.starts_with(['.', '-'])
}

fn number(text: &str, role: AddressRole) -> Result<u16, AddressError> {
    if text.is_empty() {
        return Err(AddressError::NoPort);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return service(text);
    }
    match text.parse::<u16>() {
        Ok(0) if role == AddressRole::Connect => Err(AddressError::PortZero),
        Ok(port) => Ok(port),
        Err(_) => Err(AddressError::PortTooLarge(text.into())),
    }
}

fn service(name: &str) -> Result<u16, AddressError> {
    let unknown = || AddressError::UnknownService(name.into());
    // A missing file is a machine that knows no services.
    let table = std::fs::read("/etc/services").unwrap_or_default();
    service_in(&String::from_utf8_lossy(&table), name).ok_or_else(unknown)
}

/// services(5): name, port/protocol, aliases; a hash ends a line.
fn service_in(table: &str, wanted: &str) -> Option<u16> {
    table.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let name = words.next()?;
        let port = words.next()?.strip_suffix("/tcp")?.parse().ok()?;
        (name == wanted || words.any(|alias| alias == wanted)).then_some(port)
    })
}

#[cfg(test)]
mod tests;
