//! The PROXY protocol's header, read: for whom a proxy before us connects. The text is HAProxy's
//! proxy-protocol.txt.
//!
//! Nothing behind the header is touched: it belongs to TLS, or to the application.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::Socket;

/// How version 2 begins.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 begins.
const WORD: &[u8] = b"PROXY ";
/// The longest line of version 1 (2.1).
const MAX_V1_SIZE: usize = 107;
/// Of version 2. Addresses take 52 bytes; the rest is for what load balancers add, of which certificates
/// are the largest part. The protocol itself would allow 64 kB.
const MAX_V2_SIZE: usize = 4096;

/// For whom it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeaderSource {
    /// For who connected to the proxy from here, at there.
    For {
        /// From where.
        from: SocketAddr,
        /// To where.
        to: SocketAddr,
    },
    /// For the proxy itself, or for somebody whose address it does not know.
    Own,
    /// For nobody: it looked whether anybody is here, and has gone again.
    Probe,
}

/// Why there is no header.
#[derive(Debug)]
pub enum ProxyHeaderError {
    /// Something else came.
    Missing,
    /// It began as one and is none.
    Malformed,
    /// It would be longer than is read.
    TooLong,
    /// The connection ended in it.
    Cut,
    /// The system's.
    Io(io::Error),
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("its connection began without a PROXY header"),
            Self::Malformed => f.write_str("its PROXY header is malformed"),
            Self::TooLong => write!(f, "its PROXY header is longer than {MAX_V2_SIZE} bytes"),
            Self::Cut => f.write_str("it closed the connection within its PROXY header"),
            Self::Io(error) => write!(f, "reading its PROXY header failed: {error}"),
        }
    }
}

impl From<io::Error> for ProxyHeaderError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Io(error),
        }
    }
}

/// Reads a header of either version. The caller bounds the time. Where the one who connects speaks first,
/// as in TLS, a header that is for nobody in particular is told from a mere look by what comes next.
///
/// # Errors
/// There is none, or it is not whole.
pub async fn read_proxy_header(
    socket: &mut Socket,
    speaks_first: bool,
) -> Result<ProxyHeaderSource, ProxyHeaderError> {
    match socket {
        Socket::Tcp(stream) => read(stream, speaks_first).await,
        // Whoever has no address is not trusted by it, and does not come here.
        #[cfg(unix)]
        _ => Err(ProxyHeaderError::Missing),
    }
}

async fn read(
    stream: &mut TcpStream,
    speaks_first: bool,
) -> Result<ProxyHeaderSource, ProxyHeaderError> {
    // As much as either version has at least, and not one byte of what comes behind.
    let mut head = [0; V2_SIGNATURE.len()];
    let mut got = 0;
    while got < head.len() {
        let Some(rest) = head.get_mut(got..) else { break };
        match stream.read(rest).await {
            // Some checks end with a reset, which takes what they said with it.
            Ok(0) | Err(_) if got == 0 => return Ok(ProxyHeaderSource::Probe),
            Ok(0) => return Err(ProxyHeaderError::Cut),
            Ok(more) => got += more,
            Err(error) => return Err(error.into()),
        }
        let so_far = head.get(..got).unwrap_or_default();
        let begins = |with: &[u8]| so_far.iter().zip(with).all(|(one, other)| one == other);
        if !begins(V2_SIGNATURE) && !begins(WORD) {
            return Err(ProxyHeaderError::Missing);
        }
    }
    let bytes =
        if head == *V2_SIGNATURE { binary(stream).await? } else { text(stream, &head).await? };
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (header, length) =
        ProxyHeader::parse(&bytes, config).map_err(|_| ProxyHeaderError::Malformed)?;
    if length != bytes.len() {
        return Err(ProxyHeaderError::Malformed);
    }
    match header.proxied_address() {
        Some(at) if at.protocol == Protocol::Stream => {
            Ok(ProxyHeaderSource::For { from: at.source, to: at.destination })
        }
        Some(_) => Err(ProxyHeaderError::Malformed),
        None => {
            // A health check says LOCAL and goes.
            let gone = speaks_first && matches!(stream.peek(&mut [0]).await, Ok(0) | Err(_));
            Ok(if gone { ProxyHeaderSource::Probe } else { ProxyHeaderSource::Own })
        }
    }
}

/// The rest of version 2 says how long it is.
async fn binary(stream: &mut TcpStream) -> Result<Vec<u8>, ProxyHeaderError> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    let [_, _, high, low] = fixed;
    let rest = usize::from(u16::from_be_bytes([high, low]));
    let mut bytes = [V2_SIGNATURE.as_slice(), &fixed].concat();
    let start = bytes.len();
    if start + rest > MAX_V2_SIZE {
        return Err(ProxyHeaderError::TooLong);
    }
    bytes.resize(start + rest, 0);
    stream.read_exact(bytes.get_mut(start..).unwrap_or_default()).await?;
    Ok(bytes)
}

/// Version 1 ends with its line, which is looked for before it is taken.
async fn text(stream: &mut TcpStream, head: &[u8]) -> Result<Vec<u8>, ProxyHeaderError> {
    let mut bytes = head.to_vec();
    while !bytes.ends_with(b"\n") {
        let mut ahead = [0; MAX_V1_SIZE];
        let room = MAX_V1_SIZE - bytes.len();
        if room == 0 {
            return Err(ProxyHeaderError::Malformed);
        }
        let seen = match stream.peek(ahead.get_mut(..room).unwrap_or_default()).await? {
            0 => return Err(ProxyHeaderError::Cut),
            count => ahead.get(..count).unwrap_or_default(),
        };
        let end = seen.iter().position(|byte| *byte == b'\n').map_or(seen.len(), |end| end + 1);
        let start = bytes.len();
        bytes.resize(start + end, 0);
        stream.read_exact(bytes.get_mut(start..).unwrap_or_default()).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Peer, ProxyHeaderFields, write_proxy_header_v1, write_proxy_header_v2};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    /// What comes of these pieces, each sent for itself, and what is left behind the header.
    async fn came(pieces: Vec<Vec<u8>>) -> (Result<ProxyHeaderSource, ProxyHeaderError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        sender.set_nodelay(true).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = Socket::Tcp(stream);
        let sending = async move {
            for piece in pieces {
                // Who is turned away may be gone before all is said.
                let _ = sender.write_all(&piece).await;
                tokio::task::yield_now().await;
            }
            let _ = sender.shutdown().await;
            sender
        };
        let (read, sender) = tokio::join!(read_proxy_header(&mut socket, true), sending);
        let mut rest = Vec::new();
        if read.is_ok() {
            socket.read_to_end(&mut rest).await.unwrap();
        }
        drop(sender);
        (read, rest)
    }

    fn all(bytes: &[u8]) -> Vec<Vec<u8>> {
        vec![bytes.to_vec()]
    }

    fn headers() -> Vec<(Vec<u8>, ProxyHeaderSource)> {
        let (from, to) = ("192.0.2.7:33596", "10.0.0.5:3001");
        let known = ProxyHeaderSource::For { from: from.parse().unwrap(), to: to.parse().unwrap() };
        let (far, near) = ("[2001:db8::7]:1", "[2001:db8::5]:65535");
        let known_v6 =
            ProxyHeaderSource::For { from: far.parse().unwrap(), to: near.parse().unwrap() };
        let told = ProxyHeaderFields { who: b"plc", version: "TLSv1.3", suite: "S", group: None };
        let mut found = Vec::new();
        for (from, to, known) in [(from, to, known), (far, near, known_v6)] {
            let (peer, local) = (Peer::Tcp(from.parse().unwrap()), to.parse().ok());
            found.push((write_proxy_header_v1(&peer, local), known));
            found.push((write_proxy_header_v2(&peer, local, &told), known));
        }
        found.push((write_proxy_header_v1(&Peer::Local, None), ProxyHeaderSource::Own));
        found.push((write_proxy_header_v2(&Peer::Local, None, &told), ProxyHeaderSource::Own));
        found
    }

    #[tokio::test]
    async fn what_we_write_is_read_and_not_a_byte_behind_it() {
        for (header, known) in headers() {
            let whole = [header.as_slice(), b"hello\n"].concat();
            let (read, rest) = came(all(&whole)).await;
            assert_eq!((read.unwrap(), rest.as_slice()), (known, &b"hello\n"[..]));
            let single = whole.iter().map(|byte| vec![*byte]).collect();
            let (read, rest) = came(single).await;
            assert_eq!((read.unwrap(), rest.as_slice()), (known, &b"hello\n"[..]));
        }
    }

    #[tokio::test]
    async fn a_header_that_is_not_whole_is_none() {
        for (header, _) in headers() {
            for end in 1..header.len() {
                let (read, _) = came(all(&header[..end])).await;
                assert!(
                    matches!(read, Err(ProxyHeaderError::Cut)),
                    "{end} of {header:?}: {read:?}"
                );
            }
        }
        assert_eq!(
            came(Vec::new()).await.0.unwrap(),
            ProxyHeaderSource::Probe,
            "who only looks is no trouble"
        );
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        assert_eq!(came(all(local)).await.0.unwrap(), ProxyHeaderSource::Probe);
    }

    #[tokio::test]
    async fn anything_else_is_refused_at_once() {
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 200], b"\r\n"].concat();
        let head = |length: u16| {
            [&V2_SIGNATURE[..], b"\x21\x11", &length.to_be_bytes(), &[0; 5000]].concat()
        };
        for (bytes, wanted) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03rest"[..], "without"),
            (b"GET / HTTP/1.0\r\n\r\n", "without"),
            (b"PROXZ TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "without"),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", "malformed"),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 70000\r\n", "malformed"),
            (b"PROXY TCP4 ::1 ::2 1 2\r\n", "malformed"),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", "malformed"),
            (b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", "malformed"),
            (b"PROXY UNKNOWN\n", "malformed"),
            (&long, "malformed"),
            // A datagram, a command that nobody knows, a family without room for its addresses.
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\x01\x01\x01\x01\x02\x02\x02\x02\0\x01\0\x02",
                "malformed",
            ),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c\x01\x01\x01\x01\x02\x02\x02\x02\0\x01\0\x02",
                "malformed",
            ),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\x01\x01\x01\x01", "malformed"),
            (&head(4081), "longer than 4096 bytes"),
        ] {
            let (read, _) = came(all(bytes)).await;
            let said = read.expect_err("no header").to_string();
            assert!(said.contains(wanted), "{said}: {}", String::from_utf8_lossy(bytes));
        }
        assert!(came(all(&head(4080))).await.0.is_ok(), "as long as can be");
    }
}
