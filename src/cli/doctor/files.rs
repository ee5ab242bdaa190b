//! Key files: what is in them, whose they are, and who can read them once rights are dropped.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::findings::{FaultKind, Findings};
use super::service_suffix;
use crate::config::model::{Config, PskConfig, ServiceConfig};
#[cfg(unix)]
use crate::daemon::after_drop::RightsLater;
use crate::secrets::{
    Identity, KeyFileProblem, KeyFileReader, KeyFileWriter, ProblemSeverity, RenewedKeys,
    SecretSet, escape, list_key_files_leniently, renew,
};
use crate::sys::pipe::is_read_once;

/// The keys of one service, in the order of the services.
#[derive(Debug)]
pub(super) struct ServiceKeys {
    /// None when they cannot be used.
    pub(super) secrets: Option<Arc<SecretSet>>,
    problems: Vec<KeyFileProblem>,
}

/// Reads the keys of every service.
pub(super) fn load_all(config: &Config, reader: &mut KeyFileReader) -> Vec<ServiceKeys> {
    config.services.iter().map(|service| load(&service.psk, reader)).collect()
}

fn load(psk: &PskConfig, reader: &mut KeyFileReader) -> ServiceKeys {
    let paths: Vec<PathBuf> = psk.secrets.iter().map(|path| path.value.clone()).collect();
    match renew(&paths, psk.rules, reader, None) {
        Ok(RenewedKeys { set, problems }) => ServiceKeys { secrets: Some(Arc::new(set)), problems },
        Err(problems) => ServiceKeys { secrets: None, problems },
    }
}

/// The keys of a client service and the identity that it presents, or nothing but the reasons.
pub(super) fn load_client_keys(
    service: &ServiceConfig,
    findings: &mut Findings,
) -> Option<(Arc<SecretSet>, Identity)> {
    let psk = &service.psk;
    let ServiceKeys { secrets, problems } = load(psk, &mut KeyFileReader::default());
    problems.iter().for_each(|problem| report_problem(problem, findings));
    let secrets = secrets?;
    let identity = match &psk.identity {
        // A set that was read from files has a key.
        None => secrets.first()?.clone(),
        Some(wanted) => match secrets.find(&wanted.value) {
            Some((_, claim)) => claim.who().clone(),
            None => {
                let text = format!("it has no identity {}", escape(&wanted.value));
                let help = "write the identity as it stands before the colon of its line";
                findings.bad_with_code(
                    "key file",
                    FaultKind::Config,
                    text,
                    help,
                    "no-such-identity",
                );
                return None;
            }
        },
    };
    Some((secrets, identity))
}

/// Code and message of what is said here of key files: of `check`'s findings these are left out.
pub(super) fn reported_problems(keys: &[ServiceKeys]) -> HashSet<(&str, &str)> {
    let problems = keys.iter().flat_map(|keys| &keys.problems);
    problems.map(|problem| (problem.code, problem.message.as_str())).collect()
}

/// A line for each problem, and for each path that has none. `is_for_unit`: the process starts without root's rights.
pub(super) fn report_keys(
    config: &Config,
    keys: &[ServiceKeys],
    is_for_unit: bool,
    findings: &mut Findings,
) {
    let mut told: HashSet<&KeyFileProblem> = HashSet::new();
    let mut seen: Vec<&Path> = Vec::new();
    for (service, keys) in config.services.iter().zip(keys) {
        let suffix = service_suffix(config, &service.name.value);
        for problem in &keys.problems {
            // Two services may read one file.
            if told.insert(problem) {
                report_problem(problem, findings);
            }
        }
        for (path, writer) in service.psk.paths() {
            if seen.contains(&path) {
                continue;
            }
            seen.push(path);
            if is_read_once(path) {
                let text = format!(
                    "{}{suffix}: a pipe, which doctor reads as a start does; its writer has to write again for that",
                    path.display()
                );
                findings.note("key file", text);
                continue;
            }
            let is_about = |problem: &&KeyFileProblem| {
                problem.severity != ProblemSeverity::Note
                    && problem.file.as_deref().is_none_or(|file| file.starts_with(path))
            };
            if !keys.problems.iter().any(|problem| is_about(&problem)) {
                let text = format!("{}{suffix}: {}", path.display(), describe(path, writer));
                findings.ok("key file", text);
            }
            // The user of a unit has no rights to drop.
            #[cfg(not(unix))]
            let _ = is_for_unit;
            #[cfg(unix)]
            if !is_for_unit {
                check_rights_after_drop(config, (path, writer), findings);
            }
        }
    }
}

fn report_problem(problem: &KeyFileProblem, findings: &mut Findings) {
    let place = match (&problem.file, problem.line) {
        (Some(file), Some(line)) => format!("{}:{line}: ", file.display()),
        _ => String::new(),
    };
    let text = format!("{place}{}", problem.message);
    let help = problem.help.as_deref().unwrap_or("see `pskgate check`");
    match problem.severity {
        ProblemSeverity::Error | ProblemSeverity::KeepsOldKeys => {
            findings.bad_with_code("key file", FaultKind::Config, text, help, problem.code)
        }
        ProblemSeverity::Warning => findings.warn("key file", text, help),
        ProblemSeverity::Note => findings.note("key file", format!("{text}; {help}")),
    }
}

/// What a path that is well looks like.
fn describe(path: &Path, writer: KeyFileWriter) -> String {
    let files = list_key_files_leniently(path, writer);
    let what = match (path.is_dir(), files.len()) {
        (false, _) => "a file".into(),
        (true, 1) => "a folder with 1 file".into(),
        (true, n) => format!("a folder with {n} files"),
    };
    #[cfg(unix)]
    if let Ok(meta) = path.metadata() {
        use std::os::unix::fs::MetadataExt;
        let (mode, owner) = (meta.mode() & 0o7777, meta.uid());
        return format!("{what}, mode {mode:04o}, owner {owner}");
    }
    what
}

/// The start reads with the rights that the program was started with, a reload with those that are
/// left, and from inside another root directory if there is one.
#[cfg(unix)]
fn check_rights_after_drop(
    config: &Config,
    (path, writer): (&Path, KeyFileWriter),
    findings: &mut Findings,
) {
    let Some(rights) = RightsLater::of(&config.process) else { return };
    match rights.unreadable(path, writer) {
        Ok(Some(found)) => {
            let text = format!(
                "{}: the start reads it, but a reload cannot: a key that is removed later stays in force",
                found.text
            );
            findings.warn("key file", text, &found.help);
        }
        Ok(None) => {
            let user = rights.user;
            let jail = rights.root.map(|root| format!(" inside {}", root.display()));
            let jail = jail.unwrap_or_default();
            findings.ok("key file", format!("{}: user {user} can read it{jail}", path.display()));
        }
        // That it is not there was told already.
        Err(_) => {}
    }
}
