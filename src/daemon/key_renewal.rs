//! The keys of services at work, read again as the configuration in force names them. This is the part of a
//! reload that nothing else that is wrong can hold up.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::active_service::ActiveService;
use super::shared_key;
use crate::config::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::config::model::ServiceConfig;
use crate::secrets::{Identity, KeyFileReader, SecretSet};
use crate::tunnel::{Service, ServiceSnapshot};

/// A service at work, as a reload finds it.
#[derive(Debug, Clone)]
pub(super) struct ServiceInForce {
    pub(super) service: Arc<Service>,
    pub(super) config: Arc<ServiceConfig>,
    pub(super) snapshot: Arc<ServiceSnapshot>,
}

impl ServiceInForce {
    pub(super) fn of(live: &ActiveService) -> Self {
        let ActiveService { service, config, .. } = live;
        Self { service: service.clone(), config: config.clone(), snapshot: service.snapshot() }
    }
}

/// Every service's keys, read again.
#[derive(Debug)]
pub(super) struct KeyRenewal {
    snapshots: Vec<(Arc<Service>, ServiceSnapshot)>,
    /// What was found; an error is one of a key file whose keys stay as they were.
    pub(super) findings: Vec<Diagnostic>,
}

impl KeyRenewal {
    /// Reads the key files of every service. The last key of a service may go where its file is one of
    /// `last`.
    pub(super) fn read(
        in_force: &[ServiceInForce],
        reader: &mut KeyFileReader,
        last: &[PathBuf],
    ) -> Self {
        let mut hold: Vec<HashSet<Identity>> = vec![HashSet::new(); in_force.len()];
        let mut held = Vec::new();
        loop {
            // Two services may read one key file: its findings are said once.
            let mut report = Diagnostics { diagnostics: held.clone(), ..Diagnostics::default() };
            let mut snapshots = Vec::new();
            for (one, hold) in in_force.iter().zip(&hold) {
                let mut found = Vec::new();
                let snapshot = one.snapshot.renew_keys(&one.config, reader, hold, last, &mut found);
                snapshots.push((one.service.clone(), snapshot));
                report.add_new(found);
            }
            let both = in_force
                .iter()
                .zip(&snapshots)
                .map(|(one, (_, snapshot))| (&*one.config, snapshot));
            let mut is_new = false;
            for shared in shared_key::find(both) {
                if shared.finding.severity == Severity::Error {
                    // Neither end takes the key that would be the other's, too.
                    for end in [shared.client, shared.server] {
                        is_new |= hold[end].insert(shared.identity.clone());
                    }
                    held.push(shared.finding.clone());
                }
                report.push(shared.finding);
            }
            if !is_new {
                return Self { snapshots, findings: report.diagnostics };
            }
        }
    }

    /// The keys of each service, in the order of the services.
    pub(super) fn sets(&self) -> Vec<Arc<SecretSet>> {
        self.snapshots.iter().map(|(_, snapshot)| snapshot.secrets().clone()).collect()
    }

    /// Puts them in force. Whether that changes anything.
    pub(super) fn apply(self) -> bool {
        self.snapshots
            .into_iter()
            .fold(false, |changed, (service, snapshot)| service.renew(snapshot) || changed)
    }
}
