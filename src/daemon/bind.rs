//! Binds the addresses of a configuration whose services are built: all of them, or nothing begins. A section of a
//! stunnel.conf does without an address that cannot be taken, as long as it has another one.

use std::io;

use super::bind_error::{BindError, advice};
use super::build::{BoundConfig, BuiltConfig, HeldListeners, PreparedService};
#[cfg(unix)]
use super::privileges;
use crate::config::diagnostic::{Diagnostic, Severity, SourceLocation};
use crate::config::model::{Dialect, Endpoint, Host, Listen, ServiceConfig};
use crate::net::{self, BindOutcome, BusyRetry, Listener, MissingAddress};
#[cfg(unix)]
use crate::sys::account;
use crate::tunnel::ServiceSnapshot;

impl BuiltConfig {
    /// Takes every address. A busy one is tried again for 2 s.
    ///
    /// # Errors
    /// Every address that could not be taken; those that could are given back.
    pub fn bind(self, tell: &mut dyn FnMut(&str)) -> Result<BoundConfig, Vec<BindError>> {
        self.bind_except(&HeldListeners::default(), Vec::new(), tell, &|| false)
    }

    /// The same where the service manager has opened sockets already: those at a service's position
    /// take the place of all of its addresses.
    ///
    /// # Errors
    /// As above.
    pub fn bind_inherited(
        self,
        sockets: Vec<Vec<Listener>>,
        tell: &mut dyn FnMut(&str),
    ) -> Result<BoundConfig, Vec<BindError>> {
        self.bind_except(&HeldListeners::default(), sockets, tell, &|| false)
    }

    /// The same, but for addresses that are `held` already. Those that the program has missed so far are
    /// tried once. Once nobody waits any more it gives up.
    pub(super) fn bind_except(
        self,
        held: &HeldListeners,
        inherited: Vec<Vec<Listener>>,
        tell: &mut dyn FnMut(&str),
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<BoundConfig, Vec<BindError>> {
        let mut binder = Binder {
            held,
            may_miss: self.dialect == Dialect::Stunnel,
            busy: BusyRetry::new(tell),
            absent: Vec::new(),
            errors: Vec::new(),
        };
        let mut inherited = inherited.into_iter();
        let mut services = Vec::new();
        for (config, snapshot) in self.services {
            let sockets = inherited.next().unwrap_or_default();
            if !sockets.is_empty() {
                let accept = config.accept().iter();
                let all: Vec<_> = accept.map(|listen| listen.at.value.clone()).collect();
                let listeners = sockets.into_iter().map(|socket| (all.clone(), socket)).collect();
                let missing = Vec::new();
                services.push(PreparedService { config, snapshot, listeners, missing });
                continue;
            }
            match binder.bind_service(config, snapshot, is_cancelled) {
                Some(service) => services.push(service),
                None => return Err(binder.errors),
            }
        }
        let Binder { mut busy, mut absent, mut errors, .. } = binder;
        let management =
            self.management.bind(&held.management, &mut errors, &mut absent, &mut busy);
        if errors.is_empty() {
            let Self { file, drain, files, .. } = self;
            Ok(BoundConfig { file, drain, files, management, services, absent })
        } else {
            Err(errors)
        }
    }
}

/// What the services of one configuration have in common while their addresses are bound.
struct Binder<'a> {
    held: &'a HeldListeners,
    /// Whether a service may do without some of its addresses.
    may_miss: bool,
    busy: BusyRetry<'a>,
    absent: Vec<String>,
    errors: Vec<BindError>,
}

impl Binder<'_> {
    /// Takes the addresses of one service. None when nobody waits any more.
    fn bind_service(
        &mut self,
        config: ServiceConfig,
        snapshot: ServiceSnapshot,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Option<PreparedService> {
        let is_held = |listen: &Listen| self.held.services.contains(&listen.at);
        let mut listeners = Vec::new();
        let mut missing = Vec::new();
        for listen in config.accept().iter().filter(|listen| !is_held(listen)) {
            if is_cancelled() {
                return None;
            }
            let (accept, options) = (config.accept(), &config.sockets.accept);
            let BindOutcome { listeners: bound, absent, missing: failed } =
                match self.held.missing.contains(&listen.at) {
                    // It waits for this address already.
                    true => net::bind(listen, accept, options, &mut BusyRetry::once(&mut |_| {})),
                    false => net::bind(listen, accept, options, &mut self.busy),
                };
            let name = &config.name.value;
            self.absent.extend(absent.iter().map(|one| format!("service {name}: {one}")));
            if !bound.is_empty() {
                self.errors.extend(set_socket_owner(&listen.at.value, &config));
            }
            listeners.extend(bound.into_iter().map(|l| (vec![listen.at.value.clone()], l)));
            missing.extend(failed.into_iter().map(|(one, error)| (listen, one, error)));
        }
        let has_any = !listeners.is_empty() || config.accept().iter().any(is_held);
        if has_any && self.may_miss {
            let missing = missing.into_iter().map(|(_, one, _)| one).collect();
            return Some(PreparedService { config, snapshot, listeners, missing });
        }
        for (listen, one, error) in &missing {
            self.errors.push(self.refuse(&config, listen, one, error));
        }
        if let (false, true, Some(last)) = (has_any, missing.is_empty(), config.accept().last()) {
            let nowhere = io::Error::from(io::ErrorKind::AddrNotAvailable);
            let help = advice(&last.at.value, nowhere.kind());
            self.errors.push(cannot_bind(&config, last.at.place(), &nowhere, help));
        }
        let missing = Vec::new();
        Some(PreparedService { config, snapshot, listeners, missing })
    }

    fn refuse(
        &self,
        config: &ServiceConfig,
        listen: &Listen,
        missing: &MissingAddress,
        error: &io::Error,
    ) -> BindError {
        let at = &listen.at.value;
        let (error_here, help) = (missing.with_address(error), advice(at, error.kind()));
        let mut refused = cannot_bind(config, listen.at.place(), &error_here, help);
        if error.kind() == io::ErrorKind::AddrInUse
            && let Some(own) = self.held.services.iter().find(|own| conflicts_with(own, at))
        {
            refused.is_own = true;
            refused.diagnostic.help = Some(format!(
                "this program itself listens on {own} and keeps that through a reload: restart it"
            ));
        }
        refused
    }
}

/// Gives a Unix socket to whom its service names.
#[cfg(unix)]
pub(super) fn set_socket_owner(at: &Endpoint, config: &ServiceConfig) -> Option<BindError> {
    let Endpoint::Unix(path) = at else { return None };
    let owner = &config.owner;
    let said = owner.user.as_ref().or(owner.group.as_ref())?;
    let given =
        privileges::numbers(owner).and_then(|(user, group)| account::set_owner(path, user, group));
    let error = given.err()?;
    let error = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let help = "root alone may give a socket to another user";
    Some(cannot_bind(config, said.place(), &error, help))
}

/// Unix sockets have an owner on Unix alone.
#[cfg(not(unix))]
pub(super) fn set_socket_owner(_: &Endpoint, _: &ServiceConfig) -> Option<BindError> {
    None
}

/// Whether one of two TCP listeners on a port has every address, and so the other's as well.
fn conflicts_with(one: &Endpoint, other: &Endpoint) -> bool {
    let every = |host: &Host| match host {
        Host::Unspecified => true,
        Host::Ip(ip) => ip.is_unspecified(),
        Host::Name(_) => false,
    };
    match (one, other) {
        (Endpoint::Tcp { host, port }, Endpoint::Tcp { host: its, port: same }) => {
            port == same && (every(host) || every(its))
        }
        _ => false,
    }
}

fn cannot_bind(
    config: &ServiceConfig,
    place: Option<&SourceLocation>,
    error: &io::Error,
    help: &str,
) -> BindError {
    let diagnostic = Diagnostic {
        severity: Severity::Error,
        code: "cannot-listen",
        place: place.cloned(),
        message: format!("service {} cannot listen on {error}", config.name.value),
        label: None,
        help: Some(help.into()),
    };
    let (kind, service) = (error.kind(), config.name.value.clone());
    BindError { diagnostic, kind, service, is_own: false }
}
