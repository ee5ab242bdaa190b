//! Where a SOCKS peer may be connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::sys::interfaces;

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressOwner {
    /// Another machine's.
    Other,
    /// This machine's, on one of its interfaces or by a route that leads to the machine itself.
    ThisMachine,
    /// Nobody may ask for it: this machine's loopback or no particular address in any spelling, a group or
    /// all of a network, and every address with a scope. This machine's own services are behind its loopback,
    /// and often trust whoever comes from there.
    Nobody,
}

/// The addresses of this machine at one moment.
#[derive(Debug)]
pub struct OwnAddresses(Option<Vec<IpAddr>>);

impl OwnAddresses {
    /// Asks the system.
    pub fn read() -> Self {
        Self(interfaces::addresses().ok())
    }

    /// Whose an address is. Where the system could not tell, every address counts as this machine's.
    pub fn owner_of(&self, address: SocketAddr) -> AddressOwner {
        let ip = plain(address.ip());
        let has_scope = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
        if has_scope || is_closed(ip) {
            return AddressOwner::Nobody;
        }
        let is_own = |own: &Vec<IpAddr>| own.contains(&ip);
        match self.0.as_ref().is_none_or(is_own) || leads_here(ip) {
            true => AddressOwner::ThisMachine,
            false => AddressOwner::Other,
        }
    }
}

/// An IPv4 address as such, however it was written in IPv6: mapped or, as of old, compatible (RFC 4291, 2.5.5).
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

fn is_closed(ip: IpAddr) -> bool {
    match ip {
        // `::` and `::1` are among these: they begin like an IPv4-compatible address.
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast()
        }
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

/// Whether the system would connect there from that very address: so it is with this machine's own addresses,
/// and with networks that a route gives to the machine as a whole. Nothing is sent.
fn leads_here(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    /// Of the service "discard"; any other would do.
    const PORT: u16 = 9;
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, PORT))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == ip)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn this_machine_itself_cannot_be_asked_for_in_any_spelling() {
        // The only own address, so that the machine that runs this does not matter.
        let own = OwnAddresses(Some(vec!["198.51.100.7".parse().unwrap()]));
        for (ip, owner) in [
            ("127.0.0.1", AddressOwner::Nobody),
            ("127.8.9.1", AddressOwner::Nobody),
            ("0.0.0.0", AddressOwner::Nobody),
            ("0.1.2.3", AddressOwner::Nobody),
            ("::1", AddressOwner::Nobody),
            ("::", AddressOwner::Nobody),
            ("::ffff:127.0.0.1", AddressOwner::Nobody),
            ("::ffff:0.0.0.0", AddressOwner::Nobody),
            ("::127.0.0.1", AddressOwner::Nobody),
            ("::ffff:7f00:1", AddressOwner::Nobody),
            ("::ffff:127.255.255.254", AddressOwner::Nobody),
            ("::127.255.255.254", AddressOwner::Nobody),
            ("::ffff:0.1.2.3", AddressOwner::Nobody),
            ("255.255.255.255", AddressOwner::Nobody),
            ("224.0.0.1", AddressOwner::Nobody),
            ("ff02::1", AddressOwner::Nobody),
            ("198.51.100.7", AddressOwner::ThisMachine),
            ("::ffff:198.51.100.7", AddressOwner::ThisMachine),
            ("::198.51.100.7", AddressOwner::ThisMachine),
            ("192.0.2.1", AddressOwner::Other),
            ("2001:db8::1", AddressOwner::Other),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(own.owner_of((ip, 80).into()), owner, "{ip}");
        }
        let scoped = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 1);
        assert_eq!(own.owner_of(scoped.into()), AddressOwner::Nobody);
        let unknown = OwnAddresses(None);
        let elsewhere = "192.0.2.1:80".parse().unwrap();
        assert_eq!(unknown.owner_of(elsewhere), AddressOwner::ThisMachine, "nobody could tell");
    }
}
