//! What is spoken around TLS, and whose addresses are kept.

use super::*;

impl Checker<'_> {
    pub(super) fn transparent(&mut self, scope: &Scope<'_>) -> Decided<Transparent> {
        let whose = scope
            .decide(Opt::Transparent, |value| match value {
                Value::Transparent(whose) => Some(*whose),
                _ => None,
            })
            .unwrap_or(Decided::default(Transparent::None, self.dialect));
        let becomes = self.draft.global.last(Opt::Setuid).or(self.draft.defaults.last(Opt::Setuid));
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
    pub(super) fn is_told<'s>(
        &self,
        scope: &Scope<'s>,
        mode: Option<Mode>,
    ) -> Option<(Opt, &'s Spanned<Value>)> {
        let socks = scope.last(Opt::Negotiation).filter(|said| {
            said.value == Value::Negotiation(Spoken::Socks)
                && mode != Some(Mode::Client)
                && self.is_latest_protocol(scope)
        });
        let original = scope.last(Opt::Transparent).filter(|said| match said.value {
            Value::Transparent(whose) => whose.destination(),
            _ => false,
        });
        let socks = socks.map(|said| (Opt::Negotiation, said));
        socks.or_else(|| original.map(|said| (Opt::Transparent, said)))
    }

    /// An identity has no backend of its own where its peer, or the packet filter, says where to go.
    pub(super) fn led_elsewhere(
        &mut self,
        scope: &Scope<'_>,
        mode: Option<Mode>,
        identities: &[IdentityConfig],
    ) {
        let Some((opt, _)) = self.is_told(scope, mode) else { return };
        for target in identities.iter().filter_map(|one| one.connect.first()) {
            let message = format!("`{}` says already where connections go", opt.name(self.dialect));
            let found = Diagnostic::error("two-of-a-kind", message).at(target.place().cloned());
            self.report.push(found.help("remove connect from the identity"));
        }
    }

    /// In a stunnel.conf a later `protocol` takes an earlier one's place.
    fn is_latest_protocol(&self, scope: &Scope<'_>) -> bool {
        self.native() || scope.latest(Opt::Protocol, Opt::Negotiation) == Some(Opt::Negotiation)
    }

    pub(super) fn negotiation(
        &mut self,
        scope: &Scope<'_>,
        mode: Option<Mode>,
    ) -> Option<Decided<Negotiation>> {
        let said = scope.said(Opt::Negotiation, |value| match value {
            Value::Negotiation(spoken) => Some(*spoken),
            _ => None,
        });
        let said = said.filter(|_| self.is_latest_protocol(scope))?;
        let Decided { value: spoken, origin } = said;
        let place = match &origin {
            crate::config::model::Origin::Said(place) => Some(place.clone()),
            crate::config::model::Origin::Default(_) => None,
        };
        if spoken == Spoken::Socks {
            return Some(Decided { value: Negotiation::Socks, origin });
        }
        if mode == Some(Mode::Server) {
            // Among the native defaults it is meant for the clients of the file.
            if !self.native() || scope.own.last(Opt::Negotiation).is_some() {
                let message = "a server end connects through no proxy";
                let found = Diagnostic::error("protocol-on-server", message)
                    .help("remove it here, and set it at the client end");
                self.report.push(found.at(place));
            }
            return None;
        }
        let value = Negotiation::Connect(self.http_connect(scope, place)?);
        Some(Decided { value, origin })
    }

    fn http_connect(&mut self, scope: &Scope<'_>, place: Option<Place>) -> Option<HttpConnect> {
        let Some(host) = scope.said(Opt::ProtocolHost, text) else {
            if !scope.mentions(Opt::ProtocolHost) {
                let name = Opt::ProtocolHost.name(self.dialect);
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
        let user = scope.said(Opt::ProtocolUsername, text).map(|user| user.value);
        let password = scope.said(Opt::ProtocolPassword, |value| match value {
            Value::Password(password) => Some(password.clone()),
            _ => None,
        });
        // As stunnel, which asks for both.
        let credentials = user.zip(password.map(|password| password.value));
        let mut headers = Vec::new();
        for said in scope.all(Opt::ProtocolHeader) {
            let Some(header) = text(&said.value) else { continue };
            let name = header.split_once(':').map_or("", |(name, _)| name);
            if name.is_empty() || name.contains(char::is_whitespace) {
                let found =
                    Diagnostic::error("bad-header", "this is no header").help("write NAME: VALUE");
                self.report.push(found.at(said.place.clone()));
            }
            headers.push(header);
        }
        Some(HttpConnect { host: host.value, credentials, headers })
    }
}
