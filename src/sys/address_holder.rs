//! Which process listens at an address, by Linux' /proc; unknown on other systems.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

/// A process that has an address. What is `None` could not be found out: other users' descriptors,
/// and those of a program that holds keys, are seen by root alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressHolder {
    /// Its process ID.
    pub pid: Option<u32>,
    /// The file name of its program.
    pub program: Option<String>,
    /// The user whose socket it is.
    pub user: Option<u32>,
    /// Whether it was seen to have the socket; otherwise it is a guess.
    pub is_certain: bool,
}

/// Such as `pskgate (pid 12)`, or less where less is known.
impl fmt::Display for AddressHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = match (self.pid, &self.program) {
            (Some(pid), Some(program)) => Some(format!("{program} (pid {pid})")),
            (Some(pid), None) => Some(format!("pid {pid}")),
            (None, Some(program)) => Some(program.clone()),
            (None, None) => None,
        };
        match (named, self.user) {
            (Some(named), _) if self.is_certain => f.write_str(&named),
            (Some(named), Some(user)) => {
                write!(f, "a program of user {user}, by the look of it {named}")
            }
            (Some(named), None) => write!(f, "a program, perhaps {named}"),
            (None, Some(user)) => write!(f, "a program of user {user}"),
            (None, None) => f.write_str("a program"),
        }
    }
}

/// The process whose listening socket conflicts with one on `address`.
#[cfg(target_os = "linux")]
pub fn find_tcp_listener(address: SocketAddr) -> Option<AddressHolder> {
    let read = |table| std::fs::read_to_string(table).unwrap_or_default();
    let tables = [read("/proc/net/tcp"), read("/proc/net/tcp6")];
    let mut sockets: Vec<_> = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(linux::parse_listening_socket)
        .collect();
    sockets.retain(|(at, ..)| linux::do_conflict(*at, address));
    // The very same address before one that merely includes it.
    let (_, user, inode) = sockets.into_iter().min_by_key(|(at, ..)| *at != address)?;
    Some(linux::find_holder(&inode, Some(user)))
}

/// The process that listens on a Unix socket of this path.
#[cfg(target_os = "linux")]
pub fn find_unix_listener(path: &Path) -> Option<AddressHolder> {
    /// `__SO_ACCEPTCON` of <linux/net.h>.
    const ACCEPTS_CONNECTIONS: &str = "00010000";
    let table = std::fs::read_to_string("/proc/net/unix").ok()?;
    let inode = table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(3);
        let flags = fields.next()?;
        let inode = fields.nth(2)?;
        (flags == ACCEPTS_CONNECTIONS && Path::new(fields.next()?) == path).then_some(inode)
    })?;
    Some(linux::find_holder(inode, None))
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn find_tcp_listener(_: SocketAddr) -> Option<AddressHolder> {
    None
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn find_unix_listener(_: &Path) -> Option<AddressHolder> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::path::Path;

    use super::AddressHolder;
    use crate::sys::proc;

    /// The address, user and inode of a listening socket's line in /proc/net/tcp or tcp6.
    pub(super) fn parse_listening_socket(line: &str) -> Option<(SocketAddr, u32, String)> {
        /// `TCP_LISTEN` of <linux/tcp_states.h>.
        const LISTEN: &str = "0A";
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, user, _, inode, ..] = fields[..] else { return None };
        if state != LISTEN {
            return None;
        }
        let (ip, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        // Words of four bytes, each as this machine would print a number.
        let word = |at: usize| {
            let digits = ip.get(at * 8..at * 8 + 8)?;
            Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
        };
        let ip: IpAddr = if ip.len() == 8 {
            Ipv4Addr::from(word(0)?).into()
        } else {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(bytes).into()
        };
        Some((SocketAddr::new(ip, port), user.parse().ok()?, inode.to_owned()))
    }

    /// Whether a socket on the one keeps another from the other. An IPv6 wildcard has IPv4 too, unless
    /// it says otherwise, which /proc does not tell.
    pub(super) fn do_conflict(one: SocketAddr, other: SocketAddr) -> bool {
        let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
        let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
        one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
    }

    /// The process that has a descriptor of this socket.
    pub(super) fn find_holder(inode: &str, user: Option<u32>) -> AddressHolder {
        let link = format!("socket:[{inode}]");
        let has =
            |pid: u32| proc::open_descriptors(pid).any(|(_, to)| to.as_os_str() == link.as_str());
        if let Some(pid) = proc::process_ids().find(|pid| has(*pid)) {
            return AddressHolder {
                pid: Some(pid),
                program: program_name(pid),
                user,
                is_certain: true,
            };
        }
        // A program that keeps others out of its memory hides its descriptors from its own user, too.
        let mut tunnels = proc::process_ids().filter(|pid| {
            let known = ["pskgate", "stunnel", "stunnel4"];
            let is_one = program_name(*pid).is_some_and(|name| known.contains(&name.as_str()));
            is_one && (user.is_none() || proc::effective_user(*pid) == user)
        });
        let likely = tunnels.next();
        // Of several, any number would be a guess.
        let only = likely.filter(|_| tunnels.next().is_none());
        AddressHolder { pid: only, program: likely.and_then(program_name), user, is_certain: false }
    }

    /// Its file, whatever name it was started under; that name where the file cannot be seen.
    fn program_name(pid: u32) -> Option<String> {
        let file = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        let name = file.as_deref().and_then(Path::file_name);
        let name =
            name.map(|name| name.to_string_lossy().trim_end_matches(" (deleted)").to_owned());
        let comm = || std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        name.or_else(|| Some(comm()?.trim_end().to_owned()))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_line_of_the_kernels_is_read_in_both_families() {
            let v4 = "   0: 0100007F:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 123 1";
            let v6 = "   1: 00000000000000000000000001000000:0BB9 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 9 1";
            let open = v4.replace(" 0A ", " 01 ");
            if cfg!(target_endian = "little") {
                let (at, user, inode) = parse_listening_socket(v4).unwrap();
                assert_eq!(
                    (at.to_string().as_str(), user, inode.as_str()),
                    ("127.0.0.1:3001", 1000, "123")
                );
                assert_eq!(parse_listening_socket(v6).unwrap().0.to_string(), "[::1]:3001");
            }
            assert_eq!(parse_listening_socket(&open), None);
            assert_eq!(parse_listening_socket("  sl  local_address rem_address"), None);
        }

        #[test]
        fn addresses_collide_as_the_kernel_has_it() {
            let at = |text: &str| text.parse().unwrap();
            for (one, other, do_collide) in [
                ("127.0.0.1:1", "127.0.0.1:1", true),
                ("127.0.0.1:1", "127.0.0.1:2", false),
                ("127.0.0.1:1", "0.0.0.0:1", true),
                ("127.0.0.1:1", "[::]:1", true),
                ("0.0.0.0:1", "[::1]:1", false),
                ("10.0.0.1:1", "127.0.0.1:1", false),
                ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", true),
            ] {
                assert_eq!(do_conflict(at(one), at(other)), do_collide, "{one} {other}");
                assert_eq!(do_conflict(at(other), at(one)), do_collide, "{other} {one}");
            }
        }

        #[test]
        fn this_process_is_found_at_its_own_listener() {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let holder =
                super::super::find_tcp_listener(listener.local_addr().unwrap()).expect("a holder");
            assert_eq!(holder.pid, Some(std::process::id()));
            assert!(holder.is_certain && holder.program.is_some());
        }
    }
}
