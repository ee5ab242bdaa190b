//! Rules for single identities: who owns which names on the wire, from where, to which backend.

use super::*;
use crate::config::parsed_file::ParsedSection;

impl Checker<'_> {
    /// The rules of a service; those of the defaults hold for the identities of which it says nothing
    /// itself.
    pub(super) fn identities(
        &mut self,
        own: &Values,
        mode: Option<Mode>,
        accept: &[Listen],
    ) -> Vec<IdentityConfig> {
        if mode == Some(Mode::Client) {
            // Among the defaults they are meant for the servers of the file.
            if let Some(part) = own.identities.first() {
                let message = "rules for identities belong to a server end";
                let found = Diagnostic::error("identities-on-client", message).help(
                    "write them at the server end; psk-identity sets the identity of a client end",
                );
                self.report.push(found.at(part.name.place.clone()));
            }
            return Vec::new();
        }
        let shared = &self.parsed.defaults.identities;
        let unsaid = shared
            .iter()
            .filter(|part| own.identities.iter().all(|o| o.name.value != part.name.value));
        let parts: Vec<&ParsedSection> = own.identities.iter().chain(unsaid).collect();
        let mut all: Vec<IdentityConfig> = Vec::new();
        for part in parts {
            let one = self.identity_rules(part, accept);
            self.report_shared_wires(&one, &all);
            all.push(one);
        }
        all
    }

    fn identity_rules(&mut self, part: &ParsedSection, accept: &[Listen]) -> IdentityConfig {
        let scope = ValueLookup { own: &part.values, defaults: None, dialect: self.dialect };
        let name = Resolved::said(part.name.value.clone().into_bytes(), part.name.place.clone());
        // A key under the name itself can belong to nobody else.
        let mut wire = vec![name.clone()];
        for said in scope.all(OptionId::IdentityWire) {
            let Value::Bytes(bytes) = &said.value else { continue };
            match wire.iter().position(|known| known.value == *bytes) {
                Some(0) if wire[0].place() == name.place() => {
                    wire[0] = Resolved::said(bytes.clone(), said.place.clone());
                }
                Some(_) => self.report.push(
                    Diagnostic::warning("wire-twice", "this wire name is listed already")
                        .at(said.place.clone())
                        .help("remove it"),
                ),
                None => wire.push(Resolved::said(bytes.clone(), said.place.clone())),
            }
        }
        let connect = self.endpoints(scope.all(OptionId::IdentityConnect));
        self.report_loops(accept, &connect);
        IdentityConfig {
            name,
            wire,
            allow_from: scope.list(OptionId::IdentityAllowFrom),
            connect,
            max_sessions: scope.said(OptionId::IdentityMaxSessions),
            expires: scope.said(OptionId::IdentityExpires),
        }
    }

    /// A name on the wire that two identities own would let one in as the other.
    fn report_shared_wires(&mut self, one: &IdentityConfig, others: &[IdentityConfig]) {
        for wire in &one.wire {
            let owner = others
                .iter()
                .find(|other| other.wire.iter().any(|owned| owned.value == wire.value));
            if let Some(owner) = owner {
                let message = format!(
                    "the wire name {} belongs to the identity {} already",
                    escape(&wire.value),
                    escape(&owner.name.value)
                );
                self.report.push(
                    Diagnostic::error("wire-of-another", message)
                        .at(wire.place().cloned())
                        .help("give each identity wire names of its own"),
                );
            }
        }
    }
}
