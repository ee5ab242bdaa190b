//! From what was said to what holds: an option's own value, else the file's for all, else the
//! dialect's default, and then whether all of it makes sense together.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ciphers::expand_named_sets;
use super::diagnostic::{Diagnostic, Diagnostics, SourceLocation};
use super::endpoint::is_host_name;
use super::model::{
    Account, Config, ConnectionSource, ControlConfig, Dialect, Endpoint, Foreground, Host,
    HttpConfig, HttpConnect, IdentityConfig, Listen, LogConfig, Mode, NamePattern, Negotiation,
    NegotiationKind, ProcessConfig, Resolved, Resumption, ServiceConfig, Target, TicketSecret,
    TlsConfig, TlsSwitch, TlsVersion, Transparent,
};
use super::options::{OptionId, Treatment};
use super::parsed_file::{ParsedFile, ParsedSection, SocketSide, Spanned, Value, Values};
use super::value;
use crate::secrets::escape;

mod addresses;
mod certificates;
mod connections;
mod identities;
mod keys;
mod missing;
mod negotiation;
mod process;
mod scope;
mod service;
mod sockets;
mod tls;
mod treatment;
mod versions;

pub(super) use scope::replaces_inherited;
pub(super) use sockets::speaks_of_keepalive;
pub(super) use tls::switch;

use scope::{ValueLookup, account, owner};

/// Decides everything that can be. With an error in the report, what comes of it must not run: it
/// lacks what was wrong.
pub(super) fn validate(parsed: &ParsedFile, report: &mut Diagnostics) -> Option<Config> {
    let mut check = Checker { parsed, dialect: parsed.dialect, report };
    check.report_treatments(&parsed.global, false);
    // What holds for all is judged once, and not again in each service. A section without keys is judged
    // for itself.
    let has_psk = check.has_psk_somewhere();
    check.report_treatments(&parsed.defaults, has_psk);
    let process = check.process();
    let log = check.log();
    let control = check.control();
    let http = check.http();
    let global = ValueLookup { own: &parsed.global, defaults: None, dialect: parsed.dialect };
    let drain_timeout = global.decide(OptionId::DrainTimeout);
    let watch_configuration = global.decide(OptionId::WatchConfiguration);
    let mut services = Vec::new();
    if parsed.services.is_empty() {
        services.push(check.inetd()?);
    }
    for service in &parsed.services {
        services.extend(check.service(service));
    }
    check.check_server_names(&services);
    check.check_shared_addresses(&mut services);
    // A native file lies in its base already.
    let file = match (parsed.dialect, parsed.file.file_name()) {
        (Dialect::Native, Some(name)) => parsed.base.join(name),
        _ => parsed.base.join(&parsed.file),
    };
    Some(Config {
        dialect: parsed.dialect,
        file,
        base: parsed.base.clone(),
        log: log?,
        process: process?,
        control: control?,
        http: http?,
        drain_timeout: drain_timeout?,
        watch_configuration: watch_configuration?,
        in_comments: parsed.in_comments,
        services,
        shared: parsed.defaults.iter().map(|(_, said)| said.place.clone()).collect(),
    })
}

struct Checker<'a> {
    parsed: &'a ParsedFile,
    dialect: Dialect,
    report: &'a mut Diagnostics,
}

impl Checker<'_> {
    fn native(&self) -> bool {
        self.dialect == Dialect::Native
    }

    fn anchor(&self, path: &Path) -> PathBuf {
        self.parsed.base.join(path)
    }

    fn path(&self, scope: &ValueLookup<'_>, opt: OptionId) -> Option<Resolved<PathBuf>> {
        scope.said::<PathBuf>(opt).map(|path| path.map(|path| self.anchor(&path)))
    }

    /// A stunnel.conf without a section is one service, whose one connection is there already.
    fn inetd(&mut self) -> Option<ServiceConfig> {
        let parsed = self.parsed;
        let found = match (self.dialect, parsed.defaults.is_empty()) {
            (Dialect::Native, _) if parsed.has_unplaced => return None,
            (Dialect::Native, _) => Diagnostic::error("no-service", "there is no service")
                .help("add [services.NAME] with mode, accept, connect and psk-secrets"),
            (Dialect::Stunnel, true) => Diagnostic::error(
                "no-service",
                "Inetd mode: the file has no [section] and no service in it",
            )
            .help("add a [section] with accept, connect and PSKsecrets"),
            (Dialect::Stunnel, false) => {
                // Its end is where stunnel finds that something is missing.
                let text = self.report.sources.get(&parsed.file);
                let lines = text.map_or(1, |text| text.lines().count().max(1));
                let line = u32::try_from(lines).unwrap_or(u32::MAX);
                let place =
                    SourceLocation { file: parsed.file.clone(), line, column: 1, span: 0..0 };
                let name = Spanned { value: INETD.to_owned(), place };
                let (remarks, values) = (Vec::new(), Values::default());
                return self.service(&ParsedSection { name, remarks, values });
            }
        };
        self.report.push(found);
        None
    }

    /// Where a value of a section is looked for.
    fn section_scope<'s>(&'s self, section: &'s ParsedSection) -> ValueLookup<'s> {
        ValueLookup {
            own: &section.values,
            defaults: Some(&self.parsed.defaults),
            dialect: self.dialect,
        }
    }

    fn is_inetd(&self) -> bool {
        self.parsed.services.is_empty()
    }
}

/// What inetd's one service is called in logs, as in stunnel's.
const INETD: &str = "stunnel";

#[cfg(test)]
mod tests;
