//! SOCKS inside the tunnel: a server end that is told where to connect (versions 4, 4a and 5), and a client
//! end that tells it (version 5, RFC 1928).

mod own_addresses;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::DialRefusal;
use crate::config::endpoint::{is_host_name, is_zoned};
use crate::config::model::{Endpoint, Host};

pub use own_addresses::{AddressOwner, OwnAddresses};

/// The longest name of a user and of a host in version 4, which have no length of their own; in version 5
/// a host has at most as many.
const MAX_NAME_SIZE: usize = 255;

/// What a peer asks for.
#[derive(Debug)]
pub struct SocksRequest {
    /// Where it wants to go.
    pub to: Endpoint,
    /// Its own way to say that, which it gets back.
    form: SocksVersion,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SocksVersion {
    /// Port and address, as they came.
    Four([u8; 6]),
    Five(Vec<u8>),
}

/// How a request went.
pub type SocksOutcome = Result<(), DialRefusal>;

/// RFC 1928, 6.
fn code(outcome: SocksOutcome) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(DialRefusal::Forbidden) => 2,
        Err(DialRefusal::Unknown) => 4,
        Err(DialRefusal::Unreachable) => 5,
    }
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Reads a request, and nothing behind it. What cannot be granted is answered. The caller keeps the time.
///
/// # Errors
/// The connection's, and every request that is none or asks for something else than a connection.
pub async fn read_request<S>(peer: &mut S) -> io::Result<SocksRequest>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match peer.read_u8().await? {
        4 => read_v4(peer).await,
        5 => read_v5(peer).await,
        _ => Err(wrong("the client sent no SOCKS request")),
    }
}

async fn read_v4<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut S) -> io::Result<SocksRequest> {
    let command = peer.read_u8().await?;
    let mut place = [0; 6];
    peer.read_exact(&mut place).await?;
    // Whoever it says it is, its key has said who it is.
    read_text(peer).await?;
    let [p, q, a, b, c, d] = place;
    let (port, form) = (u16::from_be_bytes([p, q]), SocksVersion::Four(place));
    let address = Ipv4Addr::new(a, b, c, d);
    let host = match address.octets() {
        [0, 0, 0, 1..=255] => host_of(&read_text(peer).await?),
        _ => Some(Host::Ip(address.into())),
    };
    let asked = match (command, host) {
        (1, Some(host)) => return Ok(SocksRequest { to: Endpoint::Tcp { host, port }, form }),
        (1, None) => "the requested name is not a host name",
        _ => "a SOCKS command other than CONNECT",
    };
    answer(peer, &form, Err(DialRefusal::Unknown)).await?;
    Err(wrong(asked))
}

/// Up to a NUL.
async fn read_text<S: AsyncRead + Unpin>(peer: &mut S) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        match peer.read_u8().await? {
            0 => return Ok(text),
            _ if text.len() == MAX_NAME_SIZE => {
                return Err(wrong("a SOCKS request with a name too long"));
            }
            byte => text.push(byte),
        }
    }
}

fn host_of(name: &[u8]) -> Option<Host> {
    let name = std::str::from_utf8(name).ok()?;
    match name.parse::<IpAddr>() {
        Ok(ip) => Some(Host::Ip(ip)),
        // An address with a zone is one, and is then refused as such.
        Err(_) => (is_host_name(name) || is_zoned(name)).then(|| Host::Name(name.to_owned())),
    }
}

async fn read_v5<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut S) -> io::Result<SocksRequest> {
    let count = peer.read_u8().await?;
    let mut methods = vec![0; usize::from(count)];
    peer.read_exact(&mut methods).await?;
    // None is needed: a key was proven.
    if !methods.contains(&0) {
        say(peer, &[5, 0xff]).await?;
        return Err(wrong("the SOCKS5 client insists on a password"));
    }
    say(peer, &[5, 0]).await?;
    let mut head = [0; 4];
    peer.read_exact(&mut head).await?;
    let [version, command, _, kind] = head;
    if version != 5 {
        return Err(wrong("the client sent no SOCKS request"));
    }
    let mut form = vec![kind];
    let host = match kind {
        1 => {
            let mut address = [0; 4];
            peer.read_exact(&mut address).await?;
            form.extend_from_slice(&address);
            Some(Host::Ip(IpAddr::from(address)))
        }
        3 => {
            let mut name = vec![0; usize::from(peer.read_u8().await?)];
            peer.read_exact(&mut name).await?;
            host_of(&name)
        }
        4 => {
            let mut address = [0; 16];
            peer.read_exact(&mut address).await?;
            form.extend_from_slice(&address);
            Some(Host::Ip(IpAddr::from(address)))
        }
        _ => {
            say(peer, &[5, 8, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            return Err(wrong("a SOCKS5 address of an unknown kind"));
        }
    };
    let port = peer.read_u16().await?;
    if kind == 3 {
        // Where a name has led is nobody's business.
        form = vec![1, 0, 0, 0, 0, 0, 0];
    } else {
        form.extend_from_slice(&port.to_be_bytes());
    }
    match (command, host) {
        (1, Some(host)) => {
            Ok(SocksRequest { to: Endpoint::Tcp { host, port }, form: SocksVersion::Five(form) })
        }
        (1, None) => {
            answer(peer, &SocksVersion::Five(form), Err(DialRefusal::Unknown)).await?;
            Err(wrong("the requested name is not a host name"))
        }
        _ => {
            say(peer, &[5, 7, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            Err(wrong("a SOCKS command other than CONNECT"))
        }
    }
}

impl SocksRequest {
    /// Tells the peer how its request went.
    ///
    /// # Errors
    /// The connection's.
    pub async fn answer<S>(&self, peer: &mut S, outcome: SocksOutcome) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        answer(peer, &self.form, outcome).await
    }
}

async fn answer<S: AsyncWrite + Unpin>(
    peer: &mut S,
    form: &SocksVersion,
    outcome: SocksOutcome,
) -> io::Result<()> {
    let bytes = match form {
        SocksVersion::Four(place) => {
            let granted = if outcome.is_ok() { 0x5a } else { 0x5b };
            [&[0, granted], place.as_slice()].concat()
        }
        SocksVersion::Five(place) => [&[5, code(outcome), 0], place.as_slice()].concat(),
    };
    say(peer, &bytes).await
}

async fn say<S: AsyncWrite + Unpin>(peer: &mut S, bytes: &[u8]) -> io::Result<()> {
    peer.write_all(bytes).await?;
    peer.flush().await
}

/// Asks a server end to connect there, and reads its answer to the last byte. The caller keeps the time.
///
/// # Errors
/// The connection's, and every answer but a good one.
pub async fn ask<S>(server: &mut S, to: SocketAddr) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    say(server, &[5, 1, 0]).await?;
    let mut chosen = [0; 2];
    server.read_exact(&mut chosen).await?;
    if chosen != [5, 0] {
        return Err(wrong("the other end is not a SOCKS5 server, or demands a password"));
    }
    let mut request = vec![5, 1, 0];
    match to.ip().to_canonical() {
        IpAddr::V4(ip) => {
            request.push(1);
            request.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            request.push(4);
            request.extend_from_slice(&ip.octets());
        }
    }
    request.extend_from_slice(&to.port().to_be_bytes());
    say(server, &request).await?;
    let mut head = [0; 4];
    server.read_exact(&mut head).await?;
    let [version, code, _, kind] = head;
    let rest = match kind {
        1 => 4,
        3 => usize::from(server.read_u8().await?),
        4 => 16,
        _ => return Err(wrong("the other end is not a SOCKS5 server")),
    };
    server.read_exact(&mut vec![0; rest + 2]).await?;
    match (version, code) {
        (5, 0) => Ok(()),
        (5, code) => Err(io::Error::other(format!("the SOCKS server refuses (code {code})"))),
        _ => Err(wrong("the other end is not a SOCKS5 server")),
    }
}

#[cfg(test)]
mod tests;
