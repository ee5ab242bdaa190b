//! Why an address could not be taken.

use std::io::ErrorKind;

use crate::config::diagnostic::Diagnostic;
use crate::config::model::Endpoint;

/// Why an address could not be taken.
#[derive(Debug)]
pub struct BindError {
    /// In words, at the place where the address was written.
    pub diagnostic: Diagnostic,
    /// The system's kind.
    pub kind: ErrorKind,
    /// The service that wanted it.
    pub service: String,
    /// This program itself has it, and no waiting helps.
    pub is_own: bool,
}

/// What to do where an address cannot be taken.
pub fn advice(at: &Endpoint, kind: ErrorKind) -> &'static str {
    match (at, kind) {
        (Endpoint::Unix(_), ErrorKind::AddrInUse) => {
            "another program listens there: `ss -lxp` shows which; stop it, or write another path"
        }
        (Endpoint::Unix(_), ErrorKind::AlreadyExists) => {
            "write another path, or remove what is there if nobody needs it"
        }
        (Endpoint::Unix(_), ErrorKind::NotFound) => "make the folder of this socket",
        (Endpoint::Unix(_), ErrorKind::PermissionDenied) => {
            "let the user that pskgate runs as write to the folder of this socket"
        }
        (Endpoint::Unix(_), _) => "write the path of a socket, in a folder of this machine",
        (_, ErrorKind::AddrInUse) => "another program has it: `ss -ltnp` shows which",
        (_, ErrorKind::PermissionDenied) => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
        (_, ErrorKind::AddrNotAvailable) => "no interface of this machine has this address",
        _ => "write an address of this machine and a free port",
    }
}
