//! How logs and `status` show an address.

use std::fmt;
use std::net::SocketAddr;

use crate::sys::interfaces;

/// An address whose scope has the name of its interface, as in `[fe80::1%eth0]:3001`, where the system tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownAddress(pub SocketAddr);

impl fmt::Display for ShownAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => match interfaces::name(v6.scope_id()) {
                Some(name) => write!(f, "[{}%{name}]:{}", v6.ip(), v6.port()),
                None => v6.fmt(f),
            },
            address => address.fmt(f),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{Ipv6Addr, SocketAddrV6};

    use super::*;

    #[test]
    fn a_scope_is_shown_by_the_name_of_its_interface() {
        // Loopback is the first interface of every network namespace.
        let at = |scope| SocketAddrV6::new(Ipv6Addr::LOCALHOST, 3001, 0, scope).into();
        assert_eq!(ShownAddress(at(1)).to_string(), "[::1%lo]:3001");
        assert_eq!(ShownAddress(at(0)).to_string(), "[::1]:3001");
        assert_eq!(ShownAddress(at(u32::MAX)).to_string(), format!("[::1%{}]:3001", u32::MAX));
    }
}
