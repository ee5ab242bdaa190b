//! What must hold of every PROXY header that is written, and of all that is said before the data.

#![allow(clippy::expect_used, reason = "only fuzzers and tests have it")]

use std::cell::OnceCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use proxy_header::{ParseConfig, ProxyHeader, Tlv};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use super::socks::{ask, read_request};
use super::{Peer, ProxyHeaderFields, ProxyHeaderSource, Socket, http_connect, read_proxy_header};
use crate::config::endpoint::is_host_name;
use crate::config::model::{Endpoint, Host, HttpConnect};
use crate::fuzzing::{Canned, Parts, assert_plain, finished};

fn address(parts: &mut Parts<'_>) -> SocketAddr {
    let mut octets = [0; 16];
    let said = parts.part();
    let v4 = said.first_chunk::<4>().filter(|_| said.len() < 16);
    octets.iter_mut().zip(said).for_each(|(octet, byte)| *octet = *byte);
    let ip = v4.map_or(IpAddr::V6(Ipv6Addr::from(octets)), |v4| IpAddr::from(*v4));
    SocketAddr::new(ip, u16::from_be_bytes([parts.byte(), parts.byte()]))
}

/// Any two addresses, and any identity, suite and group: a reader gets back what was told.
pub fn proxy_header(data: &[u8]) {
    let mut parts = Parts(data);
    let (from, to) = (address(&mut parts), address(&mut parts));
    let (peer, local) = match parts.byte() % 4 {
        0 => (Peer::Local, Some(to)),
        1 => (Peer::Tcp(from), None),
        _ => (Peer::Tcp(from), Some(to)),
    };
    let who = parts.part();
    let (version, suite, group) = (parts.text(), parts.text(), parts.text());
    let group = (!group.is_empty()).then_some(group.as_str());
    let told = ProxyHeaderFields { who, version: &version, suite: &suite, group };
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let same_family =
        |from: SocketAddr, to: SocketAddr| (from.is_ipv4() == to.is_ipv4()).then_some((from, to));
    let both = match (&peer, local) {
        (Peer::Tcp(from), Some(to)) => Some((*from, to)),
        _ => None,
    };

    let bytes = super::write_proxy_header_v2(&peer, local, &told);
    let (header, length) = match ProxyHeader::parse(&bytes, ParseConfig::default()) {
        Ok(read) => read,
        Err(error) => panic!("{error}: {bytes:?}"),
    };
    assert_eq!(length, bytes.len());
    let wanted = both.and_then(|(from, to)| same_family(canonical(from), canonical(to)));
    assert_eq!(header.proxied_address().map(|at| (at.source, at.destination)), wanted);
    let Some(tls) = header.ssl() else { panic!("nothing of TLS") };
    assert_eq!((tls.version(), tls.cipher()), (Some(&*version), Some(&*suite)));
    assert_eq!(tls.cn(), std::str::from_utf8(who).ok());
    let custom: Vec<_> = header
        .tlvs()
        .flatten()
        .filter_map(|tlv| match tlv {
            Tlv::Custom(kind, value) => Some((kind, value.into_owned())),
            _ => None,
        })
        .collect();
    let told_group = group.map(|group| (0xe1, group.as_bytes().to_vec()));
    let wanted: Vec<_> = std::iter::once((0xe0, who.to_vec())).chain(told_group).collect();
    assert_eq!(custom, wanted);

    let line = super::write_proxy_header_v1(&peer, local);
    let text = String::from_utf8_lossy(&line);
    assert!(line.len() <= 107 && text.strip_suffix("\r\n").is_some(), "{text:?}");
    assert!(!text.trim_end_matches("\r\n").contains(char::is_control), "{text:?}");
    let (header, length) = match ProxyHeader::parse(&line, ParseConfig::default()) {
        Ok(read) => read,
        Err(error) => panic!("{error}: {text:?}"),
    };
    assert_eq!(length, line.len());
    let wanted = both.and_then(|(from, to)| same_family(from, to));
    assert_eq!(header.proxied_address().map(|at| (at.source, at.destination)), wanted);
}

/// The rest of the input as a PROXY header that comes, an HTTP proxy's answer, a SOCKS request or the answer to one:
/// it is taken whole, and nothing behind it, or refused in plain words.
pub fn preface(data: &[u8]) {
    let mut parts = Parts(data);
    let (kind, piece) = (parts.byte() % 4, usize::from(parts.byte().max(1)));
    let says = parts.0;
    match kind {
        0 => proxied(says),
        1 => http_answer(says, piece),
        2 => socks_request(says, piece),
        _ => socks_answer(says, piece),
    }
}

/// The header of a proxy over a socket, and how much is left behind it.
async fn came(
    listener: &TcpListener,
    says: &[u8],
) -> io::Result<(Option<ProxyHeaderSource>, usize)> {
    let mut far = TcpStream::connect(listener.local_addr()?).await?;
    let (near, _) = listener.accept()?;
    near.set_nonblocking(true)?;
    let near = TcpStream::from_std(near)?;
    for end in [&far, &near] {
        // With a reset there is no port that waits for its time to be over.
        SockRef::from(end).set_linger(Some(Duration::ZERO))?;
    }
    // As much as a socket takes without a reader.
    far.write_all(says).await?;
    far.shutdown().await?;
    let mut near = Socket::Tcp(near);
    match read_proxy_header(&mut near, true).await {
        Ok(read) => {
            let mut rest = Vec::new();
            near.read_to_end(&mut rest).await?;
            assert!(says.ends_with(&rest));
            Ok((Some(read), rest.len()))
        }
        Err(error) => {
            assert_plain(&error.to_string());
            Ok((None, 0))
        }
    }
}

fn proxied(says: &[u8]) {
    thread_local! {
        static ENDS: OnceCell<(Runtime, TcpListener)> = const { OnceCell::new() };
    }
    ENDS.with(|ends| {
        let (runtime, listener) = ends.get_or_init(|| {
            let runtime = Builder::new_current_thread().enable_io().build().expect("a runtime");
            (runtime, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"))
        });
        let come = |says: &[u8]| runtime.block_on(came(listener, says)).expect("a connection");
        // More than the longest header, and less than a socket's buffer.
        let says = &says[..says.len().min(8192)];
        let (Some(ProxyHeaderSource::For { from, to }), rest) = come(says) else { return };
        assert!(says.len() - rest <= 4096);
        // Said by us, it is the same.
        let again =
            [super::write_proxy_header_v1(&Peer::Tcp(from), Some(to)), b"rest".to_vec()].concat();
        assert_eq!(come(&again), (Some(ProxyHeaderSource::For { from, to }), 4));
    });
}

/// A proxy's or a server's answer must not hang on how it is cut; nor must what is left of it.
fn twice<T>(says: &[u8], piece: usize, hear: impl Fn(&mut Canned<'_>) -> T) -> (T, usize)
where
    T: PartialEq + std::fmt::Debug,
{
    let hear = |piece| {
        let mut peer = Canned { says, piece, heard: Vec::new() };
        (hear(&mut peer), peer.says.len())
    };
    let (one, rest) = hear(piece);
    let (other, _) = hear(usize::MAX);
    assert_eq!(one, other);
    (one, rest)
}

/// Whether it went well, with words that are fit to be shown if not.
fn went<T>(done: io::Result<T>) -> Option<T> {
    done.inspect_err(|error| assert_plain(&error.to_string())).ok()
}

fn http_answer(says: &[u8], piece: usize) {
    let ask = HttpConnect {
        host: "plc.example:3001".into(),
        credentials: None,
        headers: vec!["X-A: b".into()],
    };
    let hear = |piece| {
        let mut proxy = Canned { says, piece, heard: Vec::new() };
        (went(finished(http_connect(&mut proxy, &ask))).is_some(), proxy.says.len())
    };
    // What comes in one piece with the answer is seen to be too much; what comes later is the server's.
    let (well, left) = hear(piece);
    let (bytewise, rest) = hear(1);
    assert!(says.len() - left <= 16 * 1024 + 256);
    assert!(bytewise || !well);
    if bytewise {
        let head = &says[..says.len() - rest];
        assert!(head.starts_with(b"HTTP/1.") && head.get(9) == Some(&b'2'));
        assert!(head.ends_with(b"\n\n") || head.ends_with(b"\r\n\r\n"));
    }
}

fn socks_request(says: &[u8], piece: usize) {
    let hear = |peer: &mut Canned<'_>| {
        let request = went(finished(read_request(peer)))?;
        let Endpoint::Tcp { host, port } = &request.to else { panic!("{:?}", request.to) };
        if let Host::Name(name) = host {
            assert!(is_host_name(name) && name.len() <= 255);
        }
        let (asked, before) = ((host.clone(), *port), peer.heard.len());
        finished(request.answer(peer, Ok(()))).expect("it takes whatever it is told");
        let answer = peer.heard.split_off(before);
        match says[0] {
            4 => assert_eq!((answer.len(), answer[1]), (8, 0x5a)),
            _ => assert_eq!((answer.len() >= 10, answer[1]), (true, 0)),
        }
        Some(asked)
    };
    let (asked, rest) = twice(says, piece, hear);
    // What is behind it is not touched, and says nothing.
    if asked.is_some() && rest > 0 {
        let (alone, left) = twice(&says[..says.len() - rest], piece, hear);
        assert_eq!((alone, left), (asked, 0));
    }
}

fn socks_answer(says: &[u8], piece: usize) {
    let to = SocketAddr::from(([192, 0, 2, 1], 3001));
    let hear = |server: &mut Canned<'_>| went(finished(ask(server, to)));
    let (granted, rest) = twice(says, piece, hear);
    if granted.is_some() {
        let taken = says.len() - rest;
        assert!(says.starts_with(&[5, 0, 5, 0]) && (8..=264).contains(&taken), "{taken}");
        assert_eq!(twice(&says[..taken], piece, hear), (granted, 0));
    }
}
