//! The services that clients ask for by sending a name (SNI), looked up when a ClientHello is there.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::Service;
use crate::config::model::NamePattern;
use crate::tls::{ServerNames, SniCandidate};
use crate::tunnel::snapshot::ServiceSnapshot;

/// The named services of one service, in the order in which they are asked. Made once for all connections.
#[derive(Debug, Default)]
pub(super) struct NameTable(Box<[(NamePattern, Arc<Service>)]>);

impl NameTable {
    pub(super) fn of(services: Vec<Arc<Service>>) -> Self {
        let entry = |service: Arc<Service>| {
            let pattern = service.snapshot().sni_entry()?.1.clone();
            Some((pattern, service))
        };
        Self(services.into_iter().filter_map(entry).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A service that a client asked for, as it was then.
pub(in crate::tunnel) type RequestedService = (Arc<Service>, Arc<ServiceSnapshot>);

/// One connection's look into the table.
pub(in crate::tunnel) struct NameLookup {
    table: Arc<NameTable>,
    ip: Option<IpAddr>,
    chosen: Mutex<Option<RequestedService>>,
}

impl NameLookup {
    pub(super) fn new(table: Arc<NameTable>, ip: Option<IpAddr>) -> Arc<Self> {
        Arc::new(Self { table, ip, chosen: Mutex::default() })
    }

    /// What the client asked for, once its handshake is over.
    pub(in crate::tunnel) fn take_chosen(&self) -> Option<RequestedService> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ServerNames for NameLookup {
    fn choose(&self, name: &[u8]) -> Option<SniCandidate> {
        let mut matching = self.table.0.iter().filter(|(pattern, _)| pattern.matches(name));
        let (candidate, chosen) = matching.find_map(|(_, service)| {
            let snapshot = service.snapshot();
            // A reload may have made something else of it.
            Some((snapshot.sni_candidate(self.ip)?, (service.clone(), snapshot)))
        })?;
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(chosen);
        Some(candidate)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::config::{Format, load_text};
    use crate::secrets::SecretSet;
    use crate::tunnel::{ProcessLimits, ProcessResources, ServiceLimits, ServiceSnapshot};

    /// A server end that is reached by that name, or at an address of its own.
    fn snapshot(name: Option<&str>) -> ServiceSnapshot {
        let at = match name {
            Some(name) => format!("server-name = \"door:{name}\""),
            None => "accept = \"127.0.0.1:1\"".to_owned(),
        };
        let service = |name: &str, at: &str| {
            format!(
                "[services.{name}]\nmode = \"server\"\n{at}\nconnect = \"127.0.0.1:2\"\n\
                 psk-secrets = \"x\"\n"
            )
        };
        let text = service("door", "accept = \"127.0.0.1:3\"") + &service("it", &at);
        let read = load_text(text.as_bytes(), Path::new("t.toml"), Path::new("/"), Format::Toml);
        let (config, _) = read.unwrap();
        let secrets = SecretSet::from_pairs(&[(b"alice", b"a key of thirty-two bytes, no more")]);
        ServiceSnapshot::with_secrets(&config.services[1], secrets, &mut Vec::new()).unwrap()
    }

    fn service(name: Option<&str>) -> Arc<Service> {
        let room = ProcessLimits { sessions: 1, connections: 1, handshakes: 1 };
        let none = ServiceLimits { sessions: None, handshakes: None };
        Service::new(name.unwrap_or("plain"), snapshot(name), none, ProcessResources::new(room))
    }

    #[tokio::test]
    async fn each_name_leads_to_its_own_service_whatever_stands_before_it() {
        let all = [Some("one.example"), None, Some("two.example"), Some("*.example")].map(service);
        let table = Arc::new(NameTable::of(all.to_vec()));
        let chosen = |name: &str| {
            let lookup = NameLookup::new(table.clone(), None);
            let candidate = lookup.choose(name.as_bytes());
            let chosen = lookup.take_chosen();
            assert_eq!(candidate.is_some(), chosen.is_some());
            chosen.map(|(service, _)| service.name().to_owned())
        };
        assert_eq!(chosen("two.example").as_deref(), Some("two.example"));
        assert_eq!(chosen("ONE.example").as_deref(), Some("one.example"));
        assert_eq!(chosen("three.example").as_deref(), Some("*.example"));
        assert_eq!(chosen("elsewhere"), None);
        // A reload takes the first one's name away: the next that fits is meant, and nobody else.
        all[0].replace(snapshot(None), ServiceLimits { sessions: None, handshakes: None });
        assert_eq!(chosen("one.example").as_deref(), Some("*.example"));
        assert_eq!(chosen("two.example").as_deref(), Some("two.example"));
    }
}
