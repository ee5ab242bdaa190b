//! Host names looked up as the system does it, and whether a failure is an answer.

use std::io;
use std::net::SocketAddr;

/// Why a name has no address.
#[derive(Debug)]
pub struct NameError {
    /// Whether the name does not exist, which is an answer. Otherwise nobody has answered, or not now.
    pub is_unknown: bool,
    /// What the system says.
    pub error: io::Error,
}

/// Every address of a name, with port 0, in the order in which they should be tried (RFC 6724). Takes as long as
/// the system's resolver takes, which may be minutes, and cannot be broken off.
///
/// # Errors
/// There is none, or no answer.
#[cfg(unix)]
pub fn look_up(name: &str) -> Result<Vec<SocketAddr>, NameError> {
    use std::ffi::CString;
    use std::ptr::{null, null_mut};

    let temporary = |error| NameError { is_unknown: false, error };
    let name = CString::new(name)
        .map_err(|_| NameError { is_unknown: true, error: io::ErrorKind::InvalidInput.into() })?;
    // SAFETY: a structure of integers and pointers, for which zero is a value: no hint.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    // One entry an address, not one for each type of socket.
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = null_mut();
    // SAFETY: the name ends in NUL and lives until after the call, as the hints do; a place for a pointer is
    // written to. getaddrinfo may be called on any thread (POSIX.1-2017).
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), null(), &raw const hints, &raw mut list) };
    if code != 0 {
        return Err(match code {
            libc::EAI_SYSTEM => temporary(io::Error::last_os_error()),
            _ => NameError {
                is_unknown: is_definite_answer(code),
                error: io::Error::other(error_text(code)),
            },
        });
    }
    let mut addresses = Vec::new();
    let mut next: *const libc::addrinfo = list;
    // SAFETY: the call succeeded, so `list` is a list that ends in a null pointer, and it is not freed before
    // the loop ends.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ai_next;
        // SAFETY: `ai_addr` points to as many bytes as `ai_addrlen` says, which are copied.
        let copied = unsafe {
            socket2::SockAddr::try_init(|storage, length| {
                let most = size_of_val(&*storage).min(entry.ai_addrlen as usize);
                std::ptr::copy_nonoverlapping(
                    entry.ai_addr.cast::<u8>(),
                    storage.cast::<u8>(),
                    most,
                );
                *length = entry.ai_addrlen;
                Ok(())
            })
        };
        addresses.extend(copied.ok().and_then(|((), address)| address.as_socket()));
    }
    // SAFETY: the list of the successful call, freed once; nothing points into it any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(addresses)
}

/// Whether this error says that the name has no address, rather than that nobody could tell.
#[cfg(unix)]
fn is_definite_answer(code: libc::c_int) -> bool {
    // glibc's own code for a name that exists and has no address.
    #[cfg(target_env = "gnu")]
    if code == libc::EAI_NODATA {
        return true;
    }
    code == libc::EAI_NONAME
}

#[cfg(unix)]
fn error_text(code: libc::c_int) -> String {
    // SAFETY: for any code the system returns a text that ends in NUL and is never freed.
    let text = unsafe { std::ffi::CStr::from_ptr(libc::gai_strerror(code)) };
    format!("failed to lookup address information: {}", text.to_string_lossy())
}

/// Every address of a name, with port 0.
///
/// # Errors
/// There is none, or no answer.
#[cfg(not(unix))]
pub fn look_up(name: &str) -> Result<Vec<SocketAddr>, NameError> {
    use std::net::ToSocketAddrs;
    /// `WSAHOST_NOT_FOUND` and `WSANO_DATA`: the name does not exist, or has no address.
    const UNKNOWN: [i32; 2] = [11001, 11004];
    (name, 0).to_socket_addrs().map(Iterator::collect).map_err(|error| {
        let is_unknown = error.raw_os_error().is_some_and(|code| UNKNOWN.contains(&code));
        NameError { is_unknown, error }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_of_the_hosts_file_and_a_number_are_answered_with_addresses() {
        let addresses = look_up("localhost").unwrap();
        assert!(!addresses.is_empty());
        assert!(
            addresses.iter().all(|at| at.ip().is_loopback() && at.port() == 0),
            "{addresses:?}"
        );
        assert_eq!(look_up("192.0.2.7").unwrap(), ["192.0.2.7:0".parse().unwrap()]);
        assert_eq!(look_up("2001:db8::7").unwrap(), ["[2001:db8::7]:0".parse().unwrap()]);
    }

    #[test]
    fn a_name_with_a_nul_is_unknown() {
        assert!(look_up("local\0host").unwrap_err().is_unknown);
    }
}
