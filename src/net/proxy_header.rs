//! The first line of the PROXY protocol's version 1: who is behind this connection.

use std::net::SocketAddr;

use super::Peer;

/// The line for a connection from `peer` that was accepted at `local`. An IPv4 address that came
/// through an IPv6 socket stays in its IPv6 form, as stunnel writes it.
pub fn proxy_header(peer: &Peer, local: Option<SocketAddr>) -> Vec<u8> {
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
            String::from_utf8(proxy_header(&from, Some(to))).unwrap()
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
        assert_eq!(proxy_header(&Peer::Local, None), b"PROXY UNKNOWN\r\n");
        assert_eq!(proxy_header(&Peer::Stdio, None), b"PROXY UNKNOWN\r\n");
    }
}
