//! Which service each of the service manager's sockets belongs to.

use std::io;
use std::os::fd::OwnedFd;

use crate::config::model::{Config, Dialect};
use crate::net::Listener;
use crate::secrets::escape;

/// The sockets of each service, in the order of the configuration's: those that bear its name, and of
/// the rest one each for services that are not named, by position.
///
/// # Errors
/// A name that is no service's (a stunnel.conf knows of no names: there it counts as none), more
/// sockets without a name than services for them, and what does not listen.
pub fn assign(sockets: Vec<(OwnedFd, String)>, config: &Config) -> io::Result<Vec<Vec<Listener>>> {
    let services = &config.services;
    let mut assigned: Vec<Vec<OwnedFd>> = services.iter().map(|_| Vec::new()).collect();
    let count = sockets.len();
    let mut rest = Vec::new();
    for (socket, name) in sockets {
        let named = services.iter().position(|service| service.name.value == name);
        match named {
            Some(at) if services[at].accept().is_empty() => {
                return Err(io::Error::other(format!(
                    "the service manager passes a socket for the service {name}, which has no \
                     listener"
                )));
            }
            Some(at) => assigned[at].push(socket),
            None if config.dialect == Dialect::Stunnel || is_no_name(&name) => rest.push(socket),
            None => {
                return Err(io::Error::other(format!(
                    "the service manager names a socket {}, and no service is called that: write \
                     FileDescriptorName= with the name of a service, or leave it out",
                    escape(name.as_bytes())
                )));
            }
        }
    }
    let mut rest = rest.into_iter();
    for (service, own) in services.iter().zip(&mut assigned) {
        if own.is_empty() && !service.accept().is_empty() {
            own.extend(rest.next());
        }
    }
    if rest.next().is_some() {
        return Err(io::Error::other(match config.dialect {
            Dialect::Stunnel => {
                format!("Too many listening file descriptors received from systemd, got {count}")
            }
            Dialect::Native => format!(
                "the service manager has {count} sockets, which are more than there are services \
                 for: several of one service need its name, as FileDescriptorName="
            ),
        }));
    }
    let listeners = |own: Vec<OwnedFd>| own.into_iter().map(Listener::inherited).collect();
    assigned.into_iter().map(listeners).collect()
}

/// What systemd calls a socket to which nobody gave a name: the unit's, or these (sd_listen_fds(3)).
fn is_no_name(name: &str) -> bool {
    matches!(name, "" | "unknown" | "connection") || name.ends_with(".socket")
}
