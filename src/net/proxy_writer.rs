//! The PROXY protocol's header: who is behind this connection. Version 1 is a line of text, as stunnel
//! writes it; version 2 also tells whose key it was and what TLS came to.

use std::net::SocketAddr;

use proxy_header::{ProxiedAddress, ProxyHeader, SslInfo, Tlv};

use super::Peer;

/// The identity as it is, in the range that the protocol leaves to its users (PP2_TYPE_MIN_CUSTOM):
/// a Common Name, which most readers know, must be UTF-8.
const IDENTITY: u8 = 0xe0;
/// The key exchange group.
const GROUP: u8 = 0xe1;

/// What a backend is told besides addresses.
#[derive(Debug)]
pub struct ProxyHeaderFields<'a> {
    /// The identity that proved its key.
    pub who: &'a [u8],
    /// The protocol version.
    pub version: &'a str,
    /// The suite.
    pub suite: &'a str,
    /// The key exchange group, where the library tells.
    pub group: Option<&'a str>,
}

/// The header of version 2 for a connection from `peer` that was accepted at `local`.
pub fn write_proxy_header_v2(
    peer: &Peer,
    local: Option<SocketAddr>,
    fields: &ProxyHeaderFields<'_>,
) -> Vec<u8> {
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let mut header = match (peer, local.map(canonical)) {
        (Peer::Tcp(from), Some(to)) if canonical(*from).is_ipv4() == to.is_ipv4() => {
            ProxyHeader::with_address(ProxiedAddress::stream(canonical(*from), to))
        }
        _ => ProxyHeader::with_local(),
    };
    // It came over TLS, and there was no certificate; 0 is "verified".
    let mut tls = SslInfo::new(true, false, false, 0);
    tls.append_tlv(Tlv::SslVersion(fields.version.into()));
    tls.append_tlv(Tlv::SslCipher(fields.suite.into()));
    if let Ok(name) = std::str::from_utf8(fields.who) {
        tls.append_tlv(Tlv::SslCn(name.into()));
    }
    header.append_tlv(Tlv::Ssl(tls));
    header.append_tlv(Tlv::Custom(IDENTITY, fields.who.into()));
    if let Some(group) = fields.group {
        header.append_tlv(Tlv::Custom(GROUP, group.as_bytes().into()));
    }
    let mut bytes = Vec::with_capacity(512);
    // Fails for addresses of two families, which were kept apart, and beyond 64 kB.
    let _ = header.encode_v2(&mut bytes);
    bytes
}

/// The line for a connection from `peer` that was accepted at `local`. An IPv4 address that came
/// through an IPv6 socket stays in its IPv6 form, as stunnel writes it.
pub fn write_proxy_header_v1(peer: &Peer, local: Option<SocketAddr>) -> Vec<u8> {
    let line = match (peer, local) {
        (Peer::Tcp(from), Some(to)) if from.is_ipv4() == to.is_ipv4() => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
        }
        _ => "PROXY UNKNOWN\r\n".to_owned(),
    };
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_line_and_what_is_neither_is_unknown() {
        let line = |from: &str, to: &str| {
            let (from, to) = (Peer::Tcp(from.parse().unwrap()), to.parse().unwrap());
            String::from_utf8(write_proxy_header_v1(&from, Some(to))).unwrap()
        };
        assert_eq!(
            line("127.0.0.1:33596", "127.0.0.2:41273"),
            "PROXY TCP4 127.0.0.1 127.0.0.2 33596 41273\r\n"
        );
        assert_eq!(
            line("[::1]:1", "[2001:db8::1]:65535"),
            "PROXY TCP6 ::1 2001:db8::1 1 65535\r\n"
        );
        // The longest line fits into the 107 bytes that a receiver must have room for.
        let long = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        assert!(line(long, long).len() <= 107);
        assert_eq!(write_proxy_header_v1(&Peer::Local, None), b"PROXY UNKNOWN\r\n");
        assert_eq!(write_proxy_header_v1(&Peer::Stdio, None), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn the_second_version_says_who_and_what_tls_came_to() {
        let fields =
            |who| ProxyHeaderFields { who, version: "TLSv1.3", suite: "S", group: Some("X25519") };
        let peer = Peer::Tcp("[::ffff:127.0.0.1]:33596".parse().unwrap());
        let bytes =
            write_proxy_header_v2(&peer, "127.0.0.2:41273".parse().ok(), &fields(b"plc \"1\""));
        let (header, length) = ProxyHeader::parse(&bytes, Default::default()).unwrap();
        assert_eq!(length, bytes.len());
        let at = header.proxied_address().unwrap();
        assert_eq!(at.source, "127.0.0.1:33596".parse().unwrap());
        assert_eq!(at.destination, "127.0.0.2:41273".parse().unwrap());
        let tls = header.ssl().unwrap();
        assert!(tls.client_ssl() && !tls.client_cert_conn() && tls.verify() == 0);
        assert_eq!(
            (tls.version(), tls.cipher(), tls.cn()),
            (Some("TLSv1.3"), Some("S"), Some("plc \"1\""))
        );
        let custom: Vec<_> = header.tlvs().flatten().filter(|tlv| tlv.kind() >= IDENTITY).collect();
        let wanted = [(IDENTITY, &b"plc \"1\""[..]), (GROUP, b"X25519")];
        assert_eq!(custom, wanted.map(|(kind, value)| Tlv::Custom(kind, value.into())));
        // What is not UTF-8 has no Common Name, and is there all the same.
        let bytes = write_proxy_header_v2(&Peer::Local, None, &fields(b"\xff"));
        let (header, _) = ProxyHeader::parse(&bytes, Default::default()).unwrap();
        assert!(header.proxied_address().is_none() && header.ssl().unwrap().cn().is_none());
        assert!(
            header.tlvs().flatten().any(|tlv| tlv == Tlv::Custom(IDENTITY, b"\xff"[..].into()))
        );
    }
}
