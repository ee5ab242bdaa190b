//! What is spoken around TLS, and whose addresses are kept.

use super::*;
use crate::secrets::Password;

impl Checker<'_> {
    pub(super) fn transparent(&mut self, scope: &ValueLookup<'_>) -> Resolved<Transparent> {
        let whose = scope.decide_or(OptionId::Transparent, Transparent::None);
        let becomes = self
            .parsed
            .global
            .last(OptionId::Setuid)
            .or(self.parsed.defaults.last(OptionId::Setuid));
        if whose.value.source() && becomes.is_some() {
            let found = Diagnostic::warning(
                "transparent-without-rights",
                "connecting from another address needs root or CAP_NET_ADMIN for each \
                 connection, and the program changes its user",
            );
            let help = "remove `user`, and have the service manager start the program as a user \
                        with that capability";
            self.report.push(found.at(whose.place().cloned()).help(help));
        }
        whose
    }

    /// What says where connections go without an address of its own.
    pub(super) fn says_target_elsewhere<'s>(
        &self,
        scope: &ValueLookup<'s>,
        mode: Option<Mode>,
    ) -> Option<(OptionId, &'s Spanned<Value>)> {
        let socks = scope.last(OptionId::Negotiation).filter(|said| {
            said.value == Value::Negotiation(NegotiationKind::Socks)
                && mode != Some(Mode::Client)
                && self.is_latest_protocol(scope)
        });
        let original = scope.last(OptionId::Transparent).filter(|said| match said.value {
            Value::Transparent(whose) => whose.destination(),
            _ => false,
        });
        let socks = socks.map(|said| (OptionId::Negotiation, said));
        socks.or_else(|| original.map(|said| (OptionId::Transparent, said)))
    }

    /// An identity has no backend of its own where its peer, or the packet filter, says where to go.
    pub(super) fn report_identity_targets(
        &mut self,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
        identities: &[IdentityConfig],
    ) {
        let Some((opt, _)) = self.says_target_elsewhere(scope, mode) else { return };
        for target in identities.iter().filter_map(|one| one.connect.first()) {
            let message = format!("`{}` says already where connections go", opt.name(self.dialect));
            let found = Diagnostic::error("two-of-a-kind", message).at(target.place().cloned());
            self.report.push(found.help("remove connect from the identity"));
        }
    }

    /// In a stunnel.conf a later `protocol` takes an earlier one's place.
    fn is_latest_protocol(&self, scope: &ValueLookup<'_>) -> bool {
        self.native()
            || scope.latest(OptionId::Protocol, OptionId::Negotiation)
                == Some(OptionId::Negotiation)
    }

    pub(super) fn negotiation(
        &mut self,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
    ) -> Option<Resolved<Negotiation>> {
        let said = scope.said::<NegotiationKind>(OptionId::Negotiation);
        let said = said.filter(|_| self.is_latest_protocol(scope))?;
        let place = said.place().cloned();
        let Resolved { value: spoken, origin } = said;
        if spoken == NegotiationKind::Socks {
            return Some(Resolved { value: Negotiation::Socks, origin });
        }
        if mode == Some(Mode::Server) {
            // Among the native defaults it is meant for the clients of the file.
            if !self.native() || scope.own.last(OptionId::Negotiation).is_some() {
                let message = "a server end connects through no proxy";
                let found = Diagnostic::error("protocol-on-server", message)
                    .help("remove it here, and set it at the client end");
                self.report.push(found.at(place));
            }
            return None;
        }
        let value = Negotiation::Connect(self.http_connect(scope, place)?);
        Some(Resolved { value, origin })
    }

    fn http_connect(
        &mut self,
        scope: &ValueLookup<'_>,
        place: Option<SourceLocation>,
    ) -> Option<HttpConnect> {
        let Some(host) = scope.said::<String>(OptionId::ProtocolHost) else {
            if !scope.mentions(OptionId::ProtocolHost) {
                let name = OptionId::ProtocolHost.name(self.dialect);
                let found = Diagnostic::error("missing-option", "protocolHost not specified")
                    .help(format!("set {name} to the HOST:PORT that the proxy connects to"));
                self.report.push(found.at(place));
            }
            return None;
        };
        if host.value.contains(char::is_whitespace) || !host.value.contains(':') {
            let found = Diagnostic::error("bad-address", "this is no HOST:PORT");
            let help =
                "write the server's address as the proxy can reach it, such as plc.example:3001";
            self.report.push(found.at(host.place().cloned()).help(help));
            return None;
        }
        let user = scope.said::<String>(OptionId::ProtocolUsername).map(|user| user.value);
        let password = scope.said::<Password>(OptionId::ProtocolPassword);
        // As stunnel, which asks for both.
        let credentials = user.zip(password.map(|password| password.value));
        let mut headers = Vec::new();
        for said in scope.list::<String>(OptionId::ProtocolHeader) {
            let name = said.value.split_once(':').map_or("", |(name, _)| name);
            if name.is_empty() || name.contains(char::is_whitespace) {
                let found =
                    Diagnostic::error("bad-header", "this is no header").help("write NAME: VALUE");
                self.report.push(found.at(said.place().cloned()));
            }
            headers.push(said.value);
        }
        Some(HttpConnect { host: host.value, credentials, headers })
    }
}
