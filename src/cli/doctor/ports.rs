//! Ports: whether each address is free, and who has it otherwise.

use std::io;

use super::findings::{FaultKind, Findings};
use super::service_suffix;
use crate::config::model::{Config, Dialect, Endpoint, Host, ServiceConfig};
use crate::daemon::bind_advice;
use crate::net;
use crate::sys::address_holder::{self, AddressHolder};

/// What to do where a section of a stunnel.conf has another address.
const GOES_ON: &str = "the service works without this address, and tries again until it can have it: free it, or \
                       remove it from the file";

pub(super) fn check_ports(config: &Config, findings: &mut Findings) {
    for service in &config.services {
        let goes_on = config.dialect == Dialect::Stunnel && has_free_address(service);
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
                if goes_on && error.kind() != io::ErrorKind::AddrInUse {
                    let text = format!("{shown}{suffix} cannot be taken: {error}");
                    findings.warn("port", text, GOES_ON);
                    continue;
                }
                if error.kind() != io::ErrorKind::AddrInUse {
                    let text = format!("{shown}{suffix} cannot be taken: {error}");
                    findings.bad_with_code(
                        "port",
                        FaultKind::Unavailable,
                        text,
                        bind_advice(&listen.at.value, error.kind()),
                        "cannot-listen",
                    );
                    continue;
                }
                let holder = match (&listen.at.value, address) {
                    (Endpoint::Unix(path), _) => address_holder::find_unix_listener(path),
                    (_, Some(address)) => address_holder::find_tcp_listener(address),
                    _ => None,
                };
                let at = format!("{shown}{suffix}");
                match holder {
                    Some(who) if goes_on && !is_ours_or_passed(&who) => {
                        findings.warn("port", format!("{at} is in use by {who}"), GOES_ON);
                    }
                    None if goes_on => findings.warn("port", format!("{at} is in use"), GOES_ON),
                    holder => report_in_use(&at, holder, findings),
                }
            }
        }
    }
}

fn has_free_address(service: &ServiceConfig) -> bool {
    let accept = service.accept();
    let could_bind = |listen| net::could_bind(listen, accept, &service.sockets.accept);
    accept.iter().flat_map(could_bind).any(|(_, taken)| taken.is_ok())
}

/// Whether an address in use is a good sign: the program runs already, or systemd listens for it.
fn is_ours_or_passed(holder: &AddressHolder) -> bool {
    matches!(holder.program.as_deref(), Some("pskgate" | "systemd"))
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
