//! Ports: whether each address is free, and who has it otherwise.

use std::io;

use super::findings::{FaultKind, Findings};
use super::service_suffix;
use crate::config::model::{Config, Endpoint, Host};
use crate::net;
use crate::sys::address_holder::{self, AddressHolder};

pub(super) fn check_ports(config: &Config, findings: &mut Findings) {
    for service in &config.services {
        let suffix = service_suffix(config, &service.name.value);
        for listen in service.accept() {
            if let Endpoint::Tcp { port: 0, .. } = listen.at.value {
                findings.note("port", format!("{}{suffix}: the system chooses one", *listen.at));
                continue;
            }
            let all = net::could_bind(listen, service.accept(), &service.sockets.accept);
            let absent = |taken: &io::Result<()>| taken.as_ref().is_err_and(net::is_absent);
            let is_name = matches!(listen.at.value, Endpoint::Tcp { host: Host::Name(_), .. });
            let may_lack = is_name && all.iter().any(|(_, taken)| !absent(taken));
            for (address, taken) in all {
                let shown = address.map_or(listen.at.to_string(), |address| address.to_string());
                let Err(error) = taken else {
                    findings.ok("port", format!("{shown}{suffix} is free"));
                    continue;
                };
                if may_lack && net::is_absent(&error) {
                    let text = format!("{shown}{suffix} is left out: {error}");
                    findings.note("port", text);
                    continue;
                }
                if error.kind() != io::ErrorKind::AddrInUse {
                    let text = format!("{shown}{suffix} cannot be taken: {error}");
                    findings.bad_with_code(
                        "port",
                        FaultKind::Unavailable,
                        text,
                        help(&error),
                        "cannot-listen",
                    );
                    continue;
                }
                let holder = match (&listen.at.value, address) {
                    (Endpoint::Unix(path), _) => address_holder::find_unix_listener(path),
                    (_, Some(address)) => address_holder::find_tcp_listener(address),
                    _ => None,
                };
                report_in_use(&format!("{shown}{suffix}"), holder, findings);
            }
        }
    }
}

fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are for root, or for a program with CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address",
        io::ErrorKind::NotFound => "make the folder of this socket",
        _ => "write an address of this machine and a free port",
    }
}

fn report_in_use(address: &str, holder: Option<AddressHolder>, findings: &mut Findings) {
    let Some(who) = holder else {
        let text = format!("{address} is in use");
        let help = "stop the program that has it, or choose another address";
        return findings.bad_with_code("port", FaultKind::Unavailable, text, help, "cannot-listen");
    };
    match who.program.as_deref() {
        Some("pskgate") => findings.ok(
            "port",
            format!("{address} is in use by {who}: this service may well be running already"),
        ),
        Some("systemd") => findings.note(
            "port",
            format!("{address} is in use by {who}: well, if its socket unit starts this service"),
        ),
        Some("stunnel" | "stunnel4") => findings.bad_with_code(
            "port",
            FaultKind::Unavailable,
            format!("{address} is in use by {who}"),
            "stop that stunnel, and keep it from starting again, before pskgate takes its place",
            "cannot-listen",
        ),
        _ => {
            let help = match who.is_certain {
                true => "stop it, or choose another address",
                false => "ask again as root to see which, and stop it, or choose another address",
            };
            let text = format!("{address} is in use by {who}");
            findings.bad_with_code("port", FaultKind::Unavailable, text, help, "cannot-listen");
        }
    }
}
