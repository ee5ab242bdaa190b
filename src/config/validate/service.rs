//! One service: everything that is decided of it, in the order of the model.

use super::*;
use crate::config::model::{Limits, LogId, PskConfig, PskHash, Timeouts};

impl Checker<'_> {
    pub(super) fn service(&mut self, service: &ParsedSection) -> Option<ServiceConfig> {
        let (parsed, dialect) = (self.parsed, self.dialect);
        let scope = ValueLookup { own: &service.values, defaults: Some(&parsed.defaults), dialect };
        if self.needs_certificates(service) {
            return None;
        }
        let has_keys =
            scope.mentions(OptionId::PskSecrets) || scope.mentions(OptionId::BeremizProject);
        self.report_treatments(&service.values, has_keys);

        let mode = scope.decide(OptionId::Mode);
        let role = mode.as_ref().map(|mode| mode.value);
        let keys = self.key_sources(&scope, role);
        self.key_or_certificate(service, role);
        self.report_replaced_lists(service);
        self.report_missing(service, &scope, role);
        let source = self.source(&scope, role);
        let transparent = self.transparent(&scope);
        let negotiation = self.negotiation(&scope, role);
        let target = self.target(&scope, negotiation.as_ref(), transparent.value, role);
        self.report_without_use(&scope, source.as_ref(), target.as_ref(), negotiation.as_ref());
        let accept = match &source {
            Some(ConnectionSource::Listeners(accept)) => accept.as_slice(),
            _ => &[],
        };
        if let Some(Target::Connect(connect)) = &target {
            self.report_loops(accept, connect);
        }
        let identities = self.identities(&service.values, role, accept);
        for wire in identities.iter().flat_map(|one| &one.wire) {
            self.refuse_controls(&scope, wire);
        }
        self.report_identity_targets(&scope, role, &identities);
        let preface = self.preface(&scope, role);
        let tls = self.tls(&scope, role);
        let identity = self.identity(&scope, role);
        Some(ServiceConfig {
            name: Resolved::said(service.name.value.clone(), service.name.place.clone()),
            dialect,
            mode: mode?,
            // Where these are missing that is an error by now, and the others should be told too.
            source: source.unwrap_or(ConnectionSource::Listeners(Vec::new())),
            owner: owner(&scope),
            target: target.unwrap_or(Target::Connect(Vec::new())),
            local: scope.said(OptionId::Local),
            transparent,
            negotiation,
            // stunnel connects there.
            socks_allow_own: scope
                .said(OptionId::SocksAllowOwn)
                .unwrap_or(Resolved::default(!self.native(), dialect)),
            preface,
            // What a stunnel.conf says before its sections is said of the process.
            log_level: match dialect {
                Dialect::Native => scope.said(OptionId::ServiceLogLevel),
                Dialect::Stunnel => scope.said(OptionId::LogLevel),
            },
            log_id: scope.decide_or(OptionId::LogId, LogId::Sequential),
            failover: scope.decide(OptionId::Failover)?,
            psk: PskConfig {
                secrets: keys.secrets,
                runtime_file: keys.runtime_file,
                wait_for_keys: keys.wait_for_keys,
                identity,
                rules: keys.rules,
                hash: scope.decide_or(OptionId::PskHash, PskHash::Sha256),
                allow_shared_keys: scope.decide_or(OptionId::AllowSharedKeys, false),
            },
            tls: tls?,
            timeouts: timeouts(&scope)?,
            limits: limits(&scope)?,
            allow_from: scope.list(OptionId::AllowFrom),
            proxies: self.proxies(&scope),
            on_revocation: scope.decide(OptionId::OnRevocation)?,
            identities,
            sockets: self.sockets(&scope, role)?,
            reset: scope.said(OptionId::Reset),
        })
    }

    pub(super) fn identity(
        &mut self,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
    ) -> Option<Resolved<Vec<u8>>> {
        let identity = scope.said(OptionId::PskIdentity)?;
        self.refuse_controls(scope, &identity);
        if mode != Some(Mode::Server) {
            return Some(identity);
        }
        // Among the defaults it is meant for the clients of the file.
        if self.native() && scope.own.last(OptionId::PskIdentity).is_some() {
            self.report.push(
                Diagnostic::error("identity-on-server", "a server end presents no identity")
                    .at(identity.place().cloned())
                    .help("remove psk-identity, or write mode = \"client\" if this end connects to the tunnel's server: a server takes all identities from its psk-secrets"),
            );
        } else if !self.native() {
            self.report.push(
                Diagnostic::notice(
                    "identity-on-server",
                    "PSK identity is ignored in the server mode",
                )
                .at(identity.place().cloned()),
            );
        }
        None
    }
}

fn timeouts(scope: &ValueLookup<'_>) -> Option<Timeouts> {
    Some(Timeouts {
        handshake: scope.decide(OptionId::HandshakeTimeout)?,
        connect: scope.decide(OptionId::ConnectTimeout)?,
        idle: scope.decide(OptionId::IdleTimeout)?,
        close: scope.decide(OptionId::CloseTimeout)?,
        lifetime: scope.said(OptionId::SessionLifetime),
    })
}

fn limits(scope: &ValueLookup<'_>) -> Option<Limits> {
    /// The eRPC runtime loses a connection that follows another at once.
    const BACKEND_PAUSE: Duration = Duration::from_millis(50);
    Some(Limits {
        max_sessions: scope.said(OptionId::MaxSessions),
        per_source: scope.said(OptionId::MaxPerSource),
        per_identity: scope.said(OptionId::MaxPerIdentity),
        when_full: scope.decide(OptionId::WhenFull)?,
        backend_pause: scope
            .said(OptionId::BackendPause)
            .unwrap_or(Resolved::default(BACKEND_PAUSE, scope.dialect)),
        max_handshakes: scope.said(OptionId::MaxHandshakes),
    })
}
