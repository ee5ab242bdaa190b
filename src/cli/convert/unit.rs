//! The unit that will run the new file, and what keeps the file from running there.

use std::path::{Path, PathBuf};

use super::Arguments;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::{self, Format};
use crate::daemon::unit_rights::UnitRights;
use crate::sys::unit_file::find_unit;

/// Where the package has the configurations of its units, their user and their logs.
const CONFIGURATIONS: &str = "/etc/pskgate";
const USER: &str = "pskgate";
const LOGS: &str = "/var/log/pskgate";

/// The unit of a new file.
pub(super) struct Unit {
    /// The folder of its logs.
    pub(super) logs: Option<PathBuf>,
    rights: Option<UnitRights>,
    /// The new file, once it is written.
    file: Option<PathBuf>,
    /// Why the rights are not known.
    unknown: Option<Diagnostic>,
}

impl Unit {
    /// The unit that runs the new file; with `--for-systemd` and another file, the unit of the package that would run
    /// it in /etc/pskgate.
    pub(super) fn choose(arguments: &Arguments, here: &Path) -> Self {
        let file = arguments.output.as_ref().map(|output| here.join(output));
        let mut unit = file.as_deref().and_then(find_unit);
        if unit.is_none() && arguments.for_systemd {
            let named = file.as_ref().unwrap_or(&arguments.file).with_extension("toml");
            let name = named.file_name().unwrap_or_default();
            unit = find_unit(&Path::new(CONFIGURATIONS).join(name));
        }
        let logs = match &unit {
            Some(unit) => unit.log_folder.clone(),
            None => Some(LOGS.into()),
        };
        let user = (unit.is_none() && arguments.for_systemd).then_some(USER);
        let (rights, unknown) = match UnitRights::new(unit, user) {
            Ok(rights) => (rights, None),
            Err(error) => {
                let text = format!("what the unit may not read or write is not known: {error}");
                let help = "install the package, and run `pskgate doctor` with the new file";
                (None, Some(Diagnostic::notice("no-such-account", text).help(help)))
            }
        };
        Self { logs, rights, file, unknown: unknown.filter(|_| arguments.for_systemd) }
    }

    /// What keeps the new file from running there. Lines are those of the new file, which is not shown here.
    pub(super) fn find_obstacles(&self, text: &str, base: &Path) -> Vec<Diagnostic> {
        let name = self.file.as_deref().unwrap_or(Path::new("converted.toml"));
        let (config, _) = config::survey_text(text.as_bytes(), name, base, Format::Toml);
        let file = self.file.as_deref();
        let rights = self.rights.iter().zip(&config);
        let found = rights.flat_map(|(rights, config)| rights.find_warnings(file, config));
        let found = found.map(|finding| Diagnostic { place: None, ..finding });
        let found = found.chain(self.unknown.clone());
        found.filter(|finding| finding.severity != Severity::Error).collect()
    }
}
