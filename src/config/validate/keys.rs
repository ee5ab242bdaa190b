//! Where a service's keys are, who writes them, and how strictly they are read.

use super::*;
use crate::config::credential;
use crate::secrets::{
    IdentityRule, KeyFileRules, KeyFileWriter, OnDuplicate, OnLoosePermissions, beremiz,
};

/// What a service's configuration comes to.
pub(super) struct KeySources {
    pub(super) secrets: Vec<Resolved<PathBuf>>,
    pub(super) runtime_file: Resolved<bool>,
    pub(super) wait_for_keys: Resolved<bool>,
    pub(super) rules: KeyFileRules,
}

impl Checker<'_> {
    pub(super) fn key_sources(
        &mut self,
        scope: &ValueLookup<'_>,
        mode: Option<Mode>,
    ) -> KeySources {
        let mut secrets = self.secrets(scope);
        let project = self.path(scope, OptionId::BeremizProject);
        let is_project = project.is_some();
        if let Some(Resolved { value, origin }) = project {
            // Written by another program, and so the first: see `KeyFileRules::writer`.
            secrets.insert(0, Resolved { value: beremiz::key_path(&value), origin });
        }
        let runtime_file = self.of_server(scope, OptionId::RuntimeFile, mode);
        let mut wait_for_keys = self.of_server(scope, OptionId::WaitForKeys, mode);
        if runtime_file.value && !scope.own.mentions(OptionId::WaitForKeys) {
            wait_for_keys = Resolved { value: true, origin: runtime_file.origin.clone() };
        }
        if runtime_file.value && is_project {
            let message = "`runtime-file` and `beremiz-project` both say who writes the first keys";
            let found = Diagnostic::error("two-of-a-kind", message).help(
                "leave one of them out: the runtime's file is the PLC's, a project the IDE's",
            );
            self.report.push(found.at(runtime_file.place().cloned()));
        }
        let writer = match (runtime_file.value, is_project) {
            (true, _) => KeyFileWriter::Runtime,
            (false, true) => KeyFileWriter::Ide,
            (false, false) => KeyFileWriter::Operator,
        };
        let rules =
            KeyFileRules { writer, may_wait_for_files: wait_for_keys.value, ..self.rules(scope) };
        KeySources { secrets, runtime_file, wait_for_keys, rules }
    }

    fn rules(&self, scope: &ValueLookup<'_>) -> KeyFileRules {
        let loose = scope.decide::<bool>(OptionId::AllowLoosePermissions).is_some_and(|d| d.value);
        let (duplicates, identities) = match self.dialect {
            Dialect::Native if allows_controls(scope) => {
                (OnDuplicate::Refuse, IdentityRule::Utf8WithControls)
            }
            Dialect::Native => (OnDuplicate::Refuse, IdentityRule::Utf8),
            Dialect::Stunnel => (OnDuplicate::LastWins, IdentityRule::Bytes),
        };
        let permissions = match self.native() && !loose {
            true => OnLoosePermissions::Refuse,
            false => OnLoosePermissions::Warn,
        };
        let (also_owned_by, writer, waits) = (None, KeyFileWriter::Operator, false);
        KeyFileRules {
            duplicates,
            identities,
            permissions,
            also_owned_by,
            writer,
            may_wait_for_files: waits,
        }
    }

    /// A key file has such an identity only where the same option allows it.
    pub(super) fn refuse_controls(
        &mut self,
        scope: &ValueLookup<'_>,
        identity: &Resolved<Vec<u8>>,
    ) {
        let has_controls = std::str::from_utf8(&identity.value)
            .is_ok_and(|text| text.chars().any(char::is_control));
        if self.native() && has_controls && !allows_controls(scope) {
            let found = Diagnostic::error("bad-identity", "the identity has a control character");
            self.report.push(found.at(identity.place().cloned()).help(
                "remove it, or allow it with `allow-control-characters = true` if the peer sends it",
            ));
        }
    }

    /// A switch that only a server has. Among the defaults it is meant for the servers of the file.
    fn of_server(
        &mut self,
        scope: &ValueLookup<'_>,
        opt: OptionId,
        mode: Option<Mode>,
    ) -> Resolved<bool> {
        let off = Resolved::default(false, self.dialect);
        let Some(said) = scope.said(opt) else { return off };
        if mode != Some(Mode::Client) {
            return said;
        }
        if scope.own.mentions(opt) && said.value {
            let name = opt.name(self.dialect);
            let message = format!("`{name}` is for a server, and this is a client");
            let found = Diagnostic::error("server-only", message).help("remove it here");
            self.report.push(found.at(said.place().cloned()));
        }
        off
    }

    /// In a stunnel.conf a section's file replaces the global one, and the last line counts.
    fn secrets(&mut self, scope: &ValueLookup<'_>) -> Vec<Resolved<PathBuf>> {
        let said = match self.dialect {
            Dialect::Native => scope.all(OptionId::PskSecrets),
            Dialect::Stunnel => scope.last(OptionId::PskSecrets).into_iter().collect(),
        };
        said.into_iter()
            .filter_map(|said| match &said.value {
                Value::Path(path) => {
                    Some(Resolved::said(self.key_file(path, &said.place)?, said.place.clone()))
                }
                _ => None,
            })
            .collect()
    }

    fn key_file(&mut self, path: &Path, place: &SourceLocation) -> Option<PathBuf> {
        let Some(name) = credential::name(path).filter(|_| self.native()) else {
            return Some(self.anchor(path));
        };
        let folder = credential::folder();
        if folder.is_none() {
            self.report.push(credential::missing(name, place.clone()));
        }
        folder.map(|folder| folder.join(name))
    }
}

/// Whether identities of the service may have control characters.
fn allows_controls(scope: &ValueLookup<'_>) -> bool {
    scope.decide::<bool>(OptionId::AllowControlCharacters).is_some_and(|said| said.value)
}
