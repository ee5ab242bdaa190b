//! A handshake of each service with its mirror image: its own settings and keys at both ends, over
//! memory. Whoever has the same policy can meet it, or nobody can.

use std::sync::Arc;

use super::files::ServiceKeys;
use super::findings::{FaultKind, Findings};
use super::{STEP_TIMEOUT, service_suffix};
use crate::config::diagnostic::Diagnostic;
use crate::config::model::{Config, ServiceConfig};
use crate::secrets::{Identity, SecretSet};
use crate::tls::{Acceptor, Connector, HandshakeInfo, RefusalCause};

/// Room for any flight of a handshake.
const PIPE_CAPACITY: usize = 64 * 1024;

/// Why there is no handshake.
enum RehearsalError {
    /// The settings cannot be had; `check` has told.
    Settings(Vec<Diagnostic>),
    /// The two ends did not meet.
    Refused(RefusalCause),
}

pub(super) async fn check_handshakes(
    config: &Config,
    keys: &[ServiceKeys],
    findings: &mut Findings,
) {
    for (service, keys) in config.services.iter().zip(keys) {
        let suffix = service_suffix(config, &service.name.value);
        let Some(secrets) = keys.secrets.clone() else {
            findings.note("handshake", format!("not tried{suffix}: its keys cannot be used"));
            continue;
        };
        match rehearse(service, secrets).await {
            Ok(handshake) => {
                let text = format!("this service with itself{suffix}: {handshake}");
                findings.ok("handshake", text);
            }
            Err(RehearsalError::Settings(found)) => {
                let words: Vec<_> = found.into_iter().map(|found| found.message).collect();
                let text = format!("not tried{suffix}: {}", words.join("; "));
                findings.note("handshake", text);
            }
            Err(RehearsalError::Refused(cause)) => findings.bad_with_code(
                "handshake",
                FaultKind::Config,
                format!("a peer with the same settings could not connect{suffix}: {cause}"),
                "remove ciphers, ciphersuites, groups, security-level, tls-min and tls-max one \
                 after the other, to find the one that is wrong",
                cause.name(),
            ),
        }
    }
}

async fn rehearse(
    service: &ServiceConfig,
    secrets: Arc<SecretSet>,
) -> Result<HandshakeInfo, RehearsalError> {
    let psk = &service.psk;
    let mut ignored = Vec::new();
    let acceptor = Acceptor::new(&service.tls, psk.hash.value, &mut ignored);
    // A context that issues tickets fails the handshake when nobody has given it keys for them.
    let acceptor = acceptor
        .map_err(RehearsalError::Settings)?
        .resuming(&service.tls, &service.name.value, None)
        .map_err(|error| RehearsalError::Refused(RefusalCause::Protocol(error.to_string())))?;
    let connector = Connector::new(&service.tls, psk.hash.value, &mut ignored);
    let connector =
        connector.map_err(RehearsalError::Settings)?.resuming(&service.tls, &secrets, None);
    let identity = match &psk.identity {
        Some(said) => secrets.find(&said.value).map(|(_, claim)| claim.who().clone()),
        None => None,
    };
    // A set that was read from files has a key.
    let first = || secrets.first().cloned().unwrap_or_else(|| Identity::new(b""));
    let identity = identity.unwrap_or_else(first);
    let (near, far) = tokio::io::duplex(PIPE_CAPACITY);
    // An end that fails lets go of the pipe, or the other would wait for it.
    let server =
        async { acceptor.accept(secrets.clone(), far).await.map_err(|failure| failure.cause) };
    let client = async {
        let secured = connector.connect(secrets.clone(), identity, None, near).await;
        secured.map_err(|failure| failure.cause)
    };
    let both = async { tokio::join!(server, client) };
    let Ok(both) = tokio::time::timeout(STEP_TIMEOUT, both).await else {
        return Err(RehearsalError::Refused(RefusalCause::Timeout(STEP_TIMEOUT)));
    };
    match both {
        (Ok(_), Ok(client)) => Ok(client.info),
        // Of the two, the one that found out, and not the one that was told.
        (Err(RefusalCause::ClosedEarly | RefusalCause::Alert(_)), Err(cause))
        | (Ok(_), Err(cause)) => Err(RehearsalError::Refused(cause)),
        (Err(cause), _) => Err(RehearsalError::Refused(cause)),
    }
}
