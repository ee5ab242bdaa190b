//! Build everything before anything is bound: what the start, `check` and a reload have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::budget::Budget;
use super::files::Files;
use super::inside;
use super::key_renewal::ServiceInForce;
use super::management::{self, ManagementConfig};
use super::shared_key;
use super::succession;
use super::watcher;
use crate::config::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::config::model::{Config, Dialect, Endpoint, Level, Resolved, ServiceConfig};
use crate::net::{Listener, MissingAddress};
use crate::observe::event::{Event, LogContext};
use crate::secrets::{KeyFileReader, SecretSet};
use crate::sys::cgroup::memory_limit;
use crate::sys::process;
use crate::tunnel::{OneKey, Previous, ServiceLimits, ServiceSnapshot};

/// A configuration with everything that it needs read and built, and nothing begun.
#[derive(Debug)]
pub struct BuiltConfig {
    pub(super) file: PathBuf,
    pub(super) dialect: Dialect,
    pub(super) drain: Duration,
    pub(super) files: Files,
    pub(super) management: ManagementConfig,
    pub(super) services: Vec<(ServiceConfig, ServiceSnapshot)>,
}

/// A plan whose addresses are taken.
#[derive(Debug)]
pub struct BoundConfig {
    pub(super) file: PathBuf,
    pub(super) drain: Duration,
    pub(super) files: Files,
    pub(super) management: management::BoundManagement,
    pub(super) services: Vec<PreparedService>,
    /// Addresses of names that this machine does not have, in words.
    pub(super) absent: Vec<String>,
}

/// The addresses that a running program has already, and those that it could not take.
#[derive(Debug, Default)]
pub(super) struct HeldListeners {
    pub(super) services: Vec<Endpoint>,
    pub(super) missing: Vec<Endpoint>,
    pub(super) management: management::HeldAddresses,
}

/// A service that only has to begin.
#[derive(Debug)]
pub(super) struct PreparedService {
    pub(super) config: ServiceConfig,
    pub(super) snapshot: ServiceSnapshot,
    /// Each under the addresses that the file names it by: one, unless it was inherited and stands
    /// for all of its service's.
    pub(super) listeners: Vec<(Vec<Endpoint>, Listener)>,
    /// What it does without until it can be had.
    pub(super) missing: Vec<MissingAddress>,
}

/// The services of a running program in their order, each with its keys as they were read again.
pub(super) type ServicesInForce = Vec<(ServiceInForce, Arc<SecretSet>)>;

impl BuiltConfig {
    /// Builds every service. Everything that is wrong with any of them goes to `report`; with an
    /// error there, of whatever origin, there is no plan.
    pub fn build(config: &Config, report: &mut Diagnostics) -> Option<Self> {
        Self::build_with(config, &mut KeyFileReader::default(), report)
    }

    /// The same from files that `reader` reads, or has read: of a pipe there is only one reading.
    pub fn build_with(
        config: &Config,
        reader: &mut KeyFileReader,
        report: &mut Diagnostics,
    ) -> Option<Self> {
        Self::build_replacing(config, &ServicesInForce::new(), &[], reader, report)
    }

    /// The same for a program that runs already: keys that did not change keep their sessions, and so do
    /// those of a key file that cannot be used now. Such a file is an error in the report, and no reason
    /// against the plan.
    pub(super) fn build_replacing(
        config: &Config,
        current: &ServicesInForce,
        last: &[PathBuf],
        reader: &mut KeyFileReader,
        report: &mut Diagnostics,
    ) -> Option<Self> {
        let before: Vec<&ServiceConfig> = current.iter().map(|(old, _)| &*old.config).collect();
        let after: Vec<&ServiceConfig> = config.services.iter().collect();
        let mut successions = succession::find(&before, &after).into_iter();
        let mut plan = Self::with(config, report, |service, findings| {
            let old = successions.next().flatten().and_then(|at| current.get(at));
            let paths = old.map(|(old, _)| key_paths(&old.config)).unwrap_or_default();
            let previous = old.map(|(old, renewed)| {
                let snapshot = &*old.snapshot;
                Previous { snapshot, renewed, paths: &paths, last }
            });
            ServiceSnapshot::build(service, reader, previous.as_ref(), findings)
        })?;
        plan.files = Files::read(Some(config), report, reader);
        Some(plan)
    }

    /// The same with keys that come from elsewhere, for all services alike.
    pub fn with_secrets(
        config: &Config,
        secrets: &Arc<SecretSet>,
        report: &mut Diagnostics,
    ) -> Option<Self> {
        Self::with(config, report, |service, findings| {
            ServiceSnapshot::with_secrets(service, secrets.clone(), findings)
        })
    }

    fn with(
        config: &Config,
        report: &mut Diagnostics,
        mut build: impl FnMut(
            &ServiceConfig,
            &mut Vec<Diagnostic>,
        ) -> Result<ServiceSnapshot, Vec<Diagnostic>>,
    ) -> Option<Self> {
        let mut is_refused = report.has_errors();
        let mut services = Vec::new();
        let mut findings = Vec::new();
        for service in &config.services {
            // What its key files are could not be read, and was told: that it has none is not so.
            if service.psk.secrets.is_empty() && report.has_errors() {
                continue;
            }
            match build(service, &mut findings) {
                Ok(snapshot) => services.push((service.clone(), snapshot)),
                Err(errors) => {
                    is_refused = true;
                    findings.extend(errors);
                }
            }
        }
        for shared in shared_key::find(services.iter().map(|(config, snapshot)| (config, snapshot)))
        {
            is_refused |= shared.finding.severity == Severity::Error;
            findings.push(shared.finding);
        }
        // Two services may read one key file: its findings are said once.
        report.add_new(findings);
        if is_refused {
            return None;
        }
        Some(Self {
            file: config.file.clone(),
            dialect: config.dialect,
            drain: config.drain_timeout.value,
            files: Files::default(),
            management: ManagementConfig::of(config),
            services,
        })
    }

    /// How many services and identities there are.
    pub fn size(&self) -> (usize, usize) {
        let identities = self.services.iter().map(|(_, snapshot)| snapshot.secrets().len()).sum();
        (self.services.len(), identities)
    }

    /// What the holder of one key can take of the sessions of each service, where others have keys too.
    pub fn one_key(&self) -> impl Iterator<Item = (&str, OneKey)> {
        let seats = Budget::of(process::descriptor_limit(), memory_limit()).sessions;
        let sharers =
            self.services.iter().filter(|(config, _)| config.limits.max_sessions.is_none());
        let sharers = sharers.map(|(_, snapshot)| snapshot.competitors()).sum();
        self.services.iter().filter_map(move |(config, snapshot)| {
            let one = OneKey::of(config, snapshot.competitors(), (seats, sharers))?;
            Some((config.name.value.as_str(), one))
        })
    }
}

/// The key files and folders of a service.
fn key_paths(config: &ServiceConfig) -> Vec<PathBuf> {
    let psk = &config.psk;
    psk.secrets.iter().map(|path| path.value.clone()).collect()
}

/// How many folders are watched on behalf of a configuration.
pub fn watched(config: &Config, report: &Diagnostics) -> usize {
    let files = Files::read(Some(config), report, &KeyFileReader::default());
    let folders = files.watched().flat_map(watcher::folders);
    folders.collect::<std::collections::BTreeSet<_>>().len()
}

/// The limits of its own that a service has.
pub(super) fn limits(config: &ServiceConfig) -> ServiceLimits {
    let said = |limit: &Option<Resolved<u32>>| limit.as_ref().map(|n| n.value as usize);
    ServiceLimits {
        sessions: said(&config.limits.max_sessions),
        handshakes: said(&config.limits.max_handshakes),
    }
}

impl BoundConfig {
    /// The same once the process has other rights, and `root` is its root directory if it changed.
    pub fn rename_under_root(mut self, root: Option<&Path>) -> Self {
        self.files
            .rename_files(|file| root.map_or_else(|| file.to_owned(), |root| inside(root, file)));
        if let Some(root) = root {
            self.management.rename_under_root(root);
            for PreparedService { config, snapshot, .. } in &mut self.services {
                let psk = &mut config.psk;
                for path in &mut psk.secrets {
                    path.value = inside(root, &path.value);
                }
                snapshot.rename_key_files(|file| inside(root, file));
            }
        }
        self
    }

    /// What a reload will not be able to read, now that the process has other rights. To be said at
    /// the start: whoever takes a key away later relies on it.
    pub fn find_unreadable(&self) -> Diagnostics {
        let found = self.files.find_unreadable().into_iter().map(|(path, error)| {
            let message = format!(
                "reloads will fail, because the program cannot read {} any more: {error}",
                path.display()
            );
            Diagnostic::warning("cannot-be-reloaded", message).help(
                "let the user that it runs as read it (mode 0640 and that user's group), and put a \
                 copy into the chroot if there is one; until then a restart does it",
            )
        });
        Diagnostics { diagnostics: found.collect(), ..Diagnostics::default() }
    }

    /// Logs which addresses are left out. They are not worth a warning: on a machine without IPv6 every
    /// `localhost` has one.
    pub(super) fn log_absent(&self) {
        for text in &self.absent {
            Event::Finding { level: Level::Notice, text, code: None }.log(LogContext::PROGRAM);
        }
    }

    /// The address of every listener, with its service.
    pub fn addresses(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for service in &self.services {
            for (_, listener) in &service.listeners {
                all.push((service.config.name.value.clone(), listener.address().to_owned()));
            }
        }
        all
    }
}
