//! RFC 9257, 4.1 ("Selfie"): with the same identity and key on a client and on a server end of this
//! program, a peer can be made to talk to itself.

use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::model::{Dialect, Mode, Origin, ServiceConfig};
use crate::secrets::Identity;
use crate::tunnel::ServiceSnapshot;

/// A key that a client service and a server service have in common.
#[derive(Debug)]
pub(super) struct SharedKey {
    /// The client service, by its place in the list.
    pub(super) client: usize,
    /// The server service, by its place in the list.
    pub(super) server: usize,
    pub(super) identity: Identity,
    pub(super) finding: Diagnostic,
}

/// Every key that a client service presents and a server service accepts.
pub(super) fn find<'a>(
    services: impl Iterator<Item = (&'a ServiceConfig, &'a ServiceSnapshot)>,
) -> Vec<SharedKey> {
    let all: Vec<_> = services.enumerate().collect();
    let of = |mode| all.iter().filter(move |(_, (config, _))| config.mode.value == mode);
    let mut found = Vec::new();
    for (at_client, (client, presented)) in of(Mode::Client) {
        for (at_server, (server, accepted)) in of(Mode::Server) {
            let psk = &server.psk;
            let severity = match (&psk.allow_shared_keys.value, &psk.allow_shared_keys.origin) {
                (false, _) => Severity::Error,
                (true, Origin::Default(Dialect::Stunnel)) => Severity::Warning,
                (true, _) => continue,
            };
            // What counts is the identity that the client end presents.
            let shared = presented.identity().filter(|identity| {
                accepted
                    .secrets()
                    .shared_identities(presented.secrets())
                    .any(|other| other == *identity)
            });
            if let Some(identity) = shared {
                found.push(SharedKey {
                    client: *at_client,
                    server: *at_server,
                    identity: identity.clone(),
                    finding: finding(client, server, identity, severity),
                });
            }
        }
    }
    found
}

fn finding(
    client: &ServiceConfig,
    server: &ServiceConfig,
    identity: &Identity,
    severity: Severity,
) -> Diagnostic {
    Diagnostic {
        severity,
        code: "shared-with-client",
        place: server.name.place().cloned(),
        message: format!(
            "the client service {} and the server service {} have the identity {identity} and its key \
             in common",
            client.name.value, server.name.value
        ),
        label: None,
        help: Some(
            "give each direction a key of its own: with one, a peer can be made to talk to itself (or \
             say allow-shared-keys = true)"
                .into(),
        ),
    }
}
