//! The addresses of this machine's interfaces, and their names.

use std::io;
use std::net::IpAddr;

/// Every address that an interface of this machine has now, with loopback's.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    use std::net::{Ipv4Addr, Ipv6Addr};

    let mut list = std::ptr::null_mut();
    // SAFETY: a place for a pointer is written to.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut next: *const libc::ifaddrs = list;
    // SAFETY: the call succeeded, so `list` is a list that ends in a null pointer, and it is not freed before
    // the loop ends.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: null for an interface without an address, or a socket address, which begins with its family.
        let Some(address) = (unsafe { entry.ifa_addr.as_ref() }) else { continue };
        match i32::from(address.sa_family) {
            libc::AF_INET => {
                // SAFETY: an address of this family is a sockaddr_in; it is copied, however it is aligned.
                let v4 = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                addresses.push(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()).into());
            }
            libc::AF_INET6 => {
                // SAFETY: an address of this family is a sockaddr_in6; it is copied, however it is aligned.
                let v6 = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                addresses.push(Ipv6Addr::from(v6.sin6_addr.s6_addr).into());
            }
            _ => {}
        }
    }
    // SAFETY: the list of the successful call, freed once; nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(addresses)
}

/// Windows is asked otherwise: by the address from which it would connect.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    Ok(Vec::new())
}

/// The name of an interface, where the system tells it. It is safe to print: a name with other characters than
/// letters, digits and `-_.:@` counts as none.
#[cfg(target_os = "linux")]
pub fn name(index: u32) -> Option<String> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

    // The kernel answers through any socket.
    let (family, kind) = (AddressFamily::INET6, SocketType::DGRAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).ok()?;
    let name = netdevice::index_to_name(socket, index).ok()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
    name.chars().all(is_plain).then_some(name)
}

/// Elsewhere an interface is known by its number.
#[cfg(not(target_os = "linux"))]
pub fn name(_: u32) -> Option<String> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    #[test]
    fn loopback_is_among_them() {
        let addresses = super::addresses().unwrap_or_default();
        assert!(addresses.contains(&std::net::Ipv4Addr::LOCALHOST.into()), "{addresses:?}");
    }
}
