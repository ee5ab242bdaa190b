//! What `check` says of a configuration that works and could be stricter. A start says nothing of it.

use super::credential;
use super::diagnostic::Diagnostic;
use super::endpoint::{Endpoint, Host};
use super::model::{Config, Dialect, Mode, ServiceConfig, TlsVersion, WhenFull};

/// Notices about a sound configuration, each with the RFC that asks for more.
pub fn advise(config: &Config) -> Vec<Diagnostic> {
    // Who brings a stunnel.conf has peers that rely on it as it is.
    let is_asked = |service: &&ServiceConfig| {
        service.mode.value == Mode::Server && service.dialect == Dialect::Native
    };
    let servers = config.services.iter().filter(is_asked);
    let strict = servers.flat_map(|service| [two_versions(service), open_port(service)]);
    let all = config.services.iter();
    let of_files = all
        .flat_map(|service| [credential(service), runtime_file(service), shared_identity(service)]);
    strict.chain(of_files).flatten().collect()
}

/// A runtime hands its own key to every IDE that connects: whoever is taken out of another file comes back
/// with it.
fn runtime_file(service: &ServiceConfig) -> Option<Diagnostic> {
    let psk = &service.psk;
    if !psk.runtime_file.value || psk.secrets.len() < 2 {
        return None;
    }
    let name = &service.name.value;
    let found = Diagnostic::warning(
        "runtime-key-for-all",
        format!(
            "service {name}: the runtime hands the key of its own file to each IDE that connects, so that an \
             engineer who is removed from the other files comes back with it"
        ),
    );
    let help = "give the engineers a service of their own without that file, and run the runtime without -s or \
                keep its file for ERPCS alone (docs/beremiz.md)";
    Some(found.at(psk.runtime_file.place().cloned()).help(help))
}

/// The identity of a runtime's file is everybody's who has it.
fn shared_identity(service: &ServiceConfig) -> Option<Diagnostic> {
    let psk = &service.psk;
    if !psk.runtime_file.value {
        return None;
    }
    let when = &service.limits.when_full;
    let name = &service.name.value;
    let found = |more: &str| {
        let message = format!(
            "service {name}: all engineers share the identity of the runtime's file, {more}"
        );
        Diagnostic::notice("shared-identity", message)
    };
    Some(match when.value {
        WhenFull::TakeOver | WhenFull::TakeOverOwn => found("and each throws out the other")
            .at(when.place().cloned())
            .help("write when-full = \"take-over-same-host\""),
        // Said already, of the other file.
        _ if psk.secrets.len() > 1 => return None,
        _ => found("and none of them can be removed alone")
            .at(psk.runtime_file.place().cloned())
            .help("give each engineer a key of their own if that is wanted (docs/beremiz.md)"),
    })
}

/// A credential of systemd's looks like a key file that is watched, and is none.
fn credential(service: &ServiceConfig) -> Option<Diagnostic> {
    let folder = credential::folder().filter(|_| service.dialect == Dialect::Native)?;
    let psk = &service.psk;
    let file = psk.secrets.iter().find(|file| file.value.starts_with(&folder))?;
    Some(credential::is_not_refreshed(file.place().cloned()))
}

/// RFC 9813, 4.1.1 and RFC 9846, F.7: a key for TLS 1.3 is not one for earlier versions as well.
fn two_versions(service: &ServiceConfig) -> Option<Diagnostic> {
    let (min, max) = (&service.tls.min, &service.tls.max);
    if min.value >= TlsVersion::Tls13 || max.value < TlsVersion::Tls13 {
        return None;
    }
    let name = &service.name.value;
    let found = Diagnostic::notice(
        "one-key-two-versions",
        format!(
            "service {name}: each key serves TLS 1.2 and TLS 1.3 (RFC 9813, 4.1.1 wants a key for each)"
        ),
    );
    let place = min.place().or(max.place()).or(service.name.place()).cloned();
    Some(found.at(place).help("write `tls-min = \"1.3\"` if every client speaks TLS 1.3"))
}

/// RFC 9813, 6.2.1: a server filters by address.
fn open_port(service: &ServiceConfig) -> Option<Diagnostic> {
    if !service.allow_from.is_empty() {
        return None;
    }
    let reached_by_network = |at: &Endpoint| match at {
        Endpoint::Tcp { host: Host::Ip(ip), .. } => !ip.is_loopback(),
        Endpoint::Tcp { host: Host::Name(name), .. } => name != "localhost",
        Endpoint::Tcp { host: Host::Unspecified, .. } => true,
        Endpoint::Unix(_) => false,
    };
    let open = service.accept().iter().find(|listen| reached_by_network(&listen.at.value))?;
    let name = &service.name.value;
    let found = Diagnostic::notice(
        "open-to-every-address",
        format!(
            "service {name}: every address that reaches {} may try keys (RFC 9813, 6.2.1 wants a list of addresses)",
            open.at.value
        ),
    );
    let place = open.at.place().or(service.name.place()).cloned();
    Some(
        found.at(place).help(
            "add `allow-from`, such as [\"192.168.1.0/24\"], if the clients' networks are known",
        ),
    )
}
