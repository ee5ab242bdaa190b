//! What must hold of every PROXY header that is written.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use proxy_header::{ParseConfig, ProxyHeader, Tlv};

use super::{Peer, Told};
use crate::fuzzing::Parts;

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
    let told = Told { who, version: &version, suite: &suite, group };
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let same_family =
        |from: SocketAddr, to: SocketAddr| (from.is_ipv4() == to.is_ipv4()).then_some((from, to));
    let both = match (&peer, local) {
        (Peer::Tcp(from), Some(to)) => Some((*from, to)),
        _ => None,
    };

    let bytes = super::proxy_header_v2(&peer, local, &told);
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

    let line = super::proxy_header(&peer, local);
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
