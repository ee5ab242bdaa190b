//! For whom a file is judged: root may read and write what the user of a unit may not.

use std::path::Path;

use super::findings::{FaultKind, Findings};
use crate::config::model::Config;
use crate::daemon::unit_rights::UnitRights;
use crate::sys::unit_file::find_unit;

/// What is assumed of the process that will run the file; nothing where nothing is known of it.
#[derive(Debug, Default)]
pub(super) struct JudgedFor {
    /// The user, if it is not root.
    pub(super) rights: Option<UnitRights>,
    /// The number of descriptors that it may open.
    pub(super) descriptors: Option<usize>,
}

impl JudgedFor {
    /// The user's number.
    pub(super) fn user(&self) -> Option<u32> {
        self.rights.as_ref().map(|rights| rights.user)
    }
}

/// Finds out for whom to judge the file, and tells it: `--as`, or the unit that runs the file.
pub(super) fn choose(file: &Path, user: Option<&str>, findings: &mut Findings) -> JudgedFor {
    let unit = find_unit(file);
    if unit.is_none() && user.is_none() {
        return JudgedFor::default();
    }
    let name = unit.as_ref().map(|unit| unit.name.clone());
    let descriptors = unit.as_ref().and_then(|unit| unit.descriptors);
    let is_dynamic = unit.as_ref().is_some_and(|unit| unit.has_dynamic_user) && user.is_none();
    let rights = match UnitRights::new(unit, user) {
        Ok(rights) => rights,
        Err(error) => {
            let text = match (&name, user) {
                (Some(name), None) => format!("{name} cannot start: {error}"),
                _ => error.to_string(),
            };
            let help =
                "write the name or number of a user of this machine, or make it: systemd-sysusers";
            findings.bad_with_code("unit", FaultKind::Config, text, help, "no-such-account");
            return JudgedFor { rights: None, descriptors };
        }
    };
    let limit = match descriptors {
        Some(usize::MAX) => ", open files: no limit".to_owned(),
        Some(number) => format!(", open files: {number}"),
        None => String::new(),
    };
    let who = match &rights {
        Some(rights) => format!("user {} and group {}", rights.user_name, rights.group_name),
        None if is_dynamic => "a user that systemd makes at the start".to_owned(),
        None => "root".to_owned(),
    };
    let text = match (user, name) {
        (Some(_), Some(name)) => format!("judged for {who}, as --as says, and for {name}{limit}"),
        (Some(_), None) => format!("judged for {who}, as --as says"),
        (None, name) => {
            format!("judged for {}, which runs this file as {who}{limit}", name.unwrap_or_default())
        }
    };
    findings.ok("unit", text);
    JudgedFor { rights, descriptors }
}

/// What would keep the process from its files.
pub(super) fn report_obstacles(
    judged: &JudgedFor,
    file: &Path,
    config: &Config,
    findings: &mut Findings,
) {
    for found in judged.rights.iter().flat_map(|rights| rights.find_obstacles(Some(file), config)) {
        findings.diagnostic("unit", &found);
    }
}
