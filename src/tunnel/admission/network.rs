//! Where a connection comes from, as far as fair shares go.

use std::net::{IpAddr, Ipv6Addr};

/// A unit that shares are counted by. An IPv6 address belongs to three, one within the other, because a
/// site is given a /48 or a /56 and a host a /64: who has a whole /48 has no larger share than who has one IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Network {
    /// An IPv4 address.
    V4(u32),
    /// The first bits of an IPv6 address: 48, 56 or 64 of them.
    V6 { prefix: u64, bits: u8 },
    /// This machine's own Unix sockets, standard input, and programs that were started.
    Local,
    /// A trusted proxy that has not said yet for whom it connects. It has no share, or it would be the
    /// fullest network of all.
    Unnamed,
}

/// The widths of the IPv6 networks that are counted, the widest first.
const V6_BITS: [u8; 3] = [48, 56, 64];

/// The networks of an address, each within the one before it.
pub(super) fn networks_of(ip: Option<IpAddr>) -> Vec<Network> {
    match ip {
        None => vec![Network::Local],
        Some(IpAddr::V4(v4)) => vec![Network::V4(v4.into())],
        Some(IpAddr::V6(v6)) => {
            let first = (u128::from(v6) >> 64) as u64;
            let within = |bits: u8| Network::V6 { prefix: first >> (64 - bits), bits };
            V6_BITS.map(within).to_vec()
        }
    }
}

/// An IPv4 address, an IPv6 /64 (what one host gets), or this machine's own Unix sockets: what a limit of
/// sessions for each address counts by.
pub(in crate::tunnel) type SourceAddress = Option<IpAddr>;

pub(in crate::tunnel) fn source_address(ip: Option<IpAddr>) -> SourceAddress {
    ip.map(|ip| match ip {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_ipv6_network_is_one_source() {
        let of = |text: &str| source_address(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[test]
    fn addresses_share_the_networks_that_they_have_in_common() {
        let shared = |one: &str, other: &str| {
            let of = |text: &str| networks_of(Some(text.parse().unwrap()));
            of(one).iter().zip(of(other)).filter(|(one, other)| **one == *other).count()
        };
        assert_eq!(shared("192.0.2.1", "192.0.2.1"), 1);
        assert_eq!(shared("192.0.2.1", "192.0.2.2"), 0);
        assert_eq!(shared("2001:db8:0:1::1", "2001:db8:0:1::2"), 3, "a /64");
        assert_eq!(shared("2001:db8:0:100::1", "2001:db8:0:1ff::1"), 2, "a /56");
        assert_eq!(shared("2001:db8:0:100::1", "2001:db8:0:200::1"), 1, "a /48");
        assert_eq!(shared("2001:db8:0::1", "2001:db8:1::1"), 0);
    }
}
