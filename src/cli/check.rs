//! `check FILE`: a start that stops before the first address is taken.

use std::path::Path;

use super::{ConfigArgument, exit, exit_code_for, print_error, print_result, show_diagnostics};
use crate::config;
use crate::config::diagnostic::{Diagnostics, Severity};
use crate::daemon::BuiltConfig;
#[cfg(unix)]
use crate::daemon::{after_drop, privileges::Privileges, unit_rights::UnitRights};
#[cfg(unix)]
use crate::sys::unit_file::find_unit;

pub(super) fn main(file: &ConfigArgument, json: bool, effective: bool) -> u8 {
    let (source, path) = match file.source() {
        Ok(found) => found,
        Err(code) => return code,
    };
    #[cfg_attr(not(unix), allow(unused_mut))]
    let (mut config, mut report) = source.load();
    #[cfg(unix)]
    let accounts = config.as_mut().and_then(|config| Privileges::of(config, &mut report));
    // A unit whose user is not on this machine cannot be judged; `doctor` tells.
    #[cfg(unix)]
    let unit = find_unit(&path).and_then(|unit| UnitRights::new(Some(unit), None).ok().flatten());
    #[cfg(unix)]
    if let (Some(config), Some(unit)) = (&mut config, &unit) {
        super::doctor::allow_owner(config, Some(unit.user));
    }
    let described = config.as_ref().filter(|_| effective).map(config::effective::describe);
    if let Some(config) = config.as_ref().filter(|_| !report.has_errors()) {
        report.diagnostics.extend(config::advice::advise(config));
    }
    let plan = config.as_ref().and_then(|config| BuiltConfig::build(config, &mut report));
    #[cfg(unix)]
    if let Some(config) = config.as_ref().filter(|_| plan.is_some()) {
        match &unit {
            Some(unit) => report.diagnostics.extend(unit.find_warnings(Some(&path), config)),
            None => report.diagnostics.extend(after_drop::find_unreadable(config)),
        }
    }
    #[cfg(unix)]
    let plan = accounts.and(plan);
    let size = plan.as_ref().map(BuiltConfig::size);
    if json {
        return print_json(&report, size.is_some());
    }
    show_diagnostics(&report);
    let Some((services, identities)) = size else {
        let first = report.diagnostics.iter().find(|found| found.severity == Severity::Error);
        if let Some(found) = first {
            print_error(&format!(
                "`pskgate explain {}` says more about this finding; every code has such a page.",
                found.code
            ));
        }
        return exit_code_for(&report);
    };
    if let Some(text) = described {
        print_result(&text);
    }
    for (service, one_key) in plan.iter().flat_map(BuiltConfig::one_key) {
        print_result(&format!("service {service}: {one_key}"));
    }
    let warnings =
        report.diagnostics.iter().filter(|finding| finding.severity == Severity::Warning).count();
    let count = |n: usize, one: &str, many: &str| {
        if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
    };
    let name =
        if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    print_result(&format!(
        "{name}: {} with {}, {}",
        count(services, "service", "services"),
        count(identities, "identity", "identities"),
        if warnings == 0 { "nothing wrong".into() } else { count(warnings, "warning", "warnings") }
    ))
}

fn print_json(report: &Diagnostics, good: bool) -> u8 {
    match serde_json::to_string_pretty(&report.diagnostics) {
        Ok(text) => {
            let said = print_result(&text);
            if good { said } else { exit_code_for(report) }
        }
        Err(error) => {
            print_error(&format!("pskgate: cannot write the findings as JSON: {error}"));
            exit::INTERNAL
        }
    }
}
