//! Key files: what is in them, whose they are, and who can read them once rights are dropped.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::findings::{Findings, Kind};
use super::of;
use crate::config::model::{Config, PskConfig, ServiceConfig};
#[cfg(unix)]
use crate::daemon::after_drop::RightsLater;
use crate::secrets::{
    Gravity, Identity, Problem, Reader, Renewed, SecretSet, Writer, escape, key_files, renew,
};
use crate::sys::pipe::is_read_once;

/// The keys of one service, by its place among the services.
#[derive(Debug)]
pub(super) struct Keys {
    /// None when they cannot be used.
    pub(super) secrets: Option<Arc<SecretSet>>,
    problems: Vec<Problem>,
}

/// Reads the keys of every service.
pub(super) fn read(config: &Config, reader: &mut Reader) -> Vec<Keys> {
    config.services.iter().map(|service| load(&service.psk, reader)).collect()
}

fn load(psk: &PskConfig, reader: &mut Reader) -> Keys {
    let paths: Vec<PathBuf> = psk.secrets.iter().map(|path| path.value.clone()).collect();
    match renew(&paths, psk.rules, reader, None) {
        Ok(Renewed { set, problems }) => Keys { secrets: Some(Arc::new(set)), problems },
        Err(problems) => Keys { secrets: None, problems },
    }
}

/// The keys of a client service and the identity that it presents, or nothing but the reasons.
pub(super) fn one(
    service: &ServiceConfig,
    findings: &mut Findings,
) -> Option<(Arc<SecretSet>, Identity)> {
    let psk = &service.psk;
    let Keys { secrets, problems } = load(psk, &mut Reader::default());
    problems.iter().for_each(|problem| say(problem, findings));
    let secrets = secrets?;
    let identity = match &psk.identity {
        // A set that was read from files has a key.
        None => secrets.first()?.clone(),
        Some(wanted) => match secrets.find(&wanted.value) {
            Some((_, claim)) => claim.who().clone(),
            None => {
                let text = format!("it has no identity {}", escape(&wanted.value));
                let help = "write the identity as it stands before the colon of its line";
                findings.coded("key file", Kind::Config, text, help, "no-such-identity");
                return None;
            }
        },
    };
    Some((secrets, identity))
}

/// Code and message of what is said here of key files: of `check`'s findings these are left out.
pub(super) fn told(keys: &[Keys]) -> HashSet<(&str, &str)> {
    let problems = keys.iter().flat_map(|keys| &keys.problems);
    problems.map(|problem| (problem.code, problem.message.as_str())).collect()
}

/// A line for each problem, and for each path that has none.
pub(super) fn tell(config: &Config, keys: &[Keys], findings: &mut Findings) {
    let mut told: HashSet<&Problem> = HashSet::new();
    let mut seen: Vec<&Path> = Vec::new();
    for (service, keys) in config.services.iter().zip(keys) {
        let suffix = of(config, &service.name.value);
        for problem in &keys.problems {
            // Two services may read one file.
            if told.insert(problem) {
                say(problem, findings);
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
            let is_about = |problem: &&Problem| {
                problem.gravity != Gravity::Remarks
                    && problem.file.as_deref().is_none_or(|file| file.starts_with(path))
            };
            if !keys.problems.iter().any(|problem| is_about(&problem)) {
                let text = format!("{}{suffix}: {}", path.display(), describe(path, writer));
                findings.ok("key file", text);
            }
            #[cfg(unix)]
            after_the_drop(config, (path, writer), findings);
        }
    }
}

fn say(problem: &Problem, findings: &mut Findings) {
    let place = match (&problem.file, problem.line) {
        (Some(file), Some(line)) => format!("{}:{line}: ", file.display()),
        _ => String::new(),
    };
    let text = format!("{place}{}", problem.message);
    let help = problem.help.as_deref().unwrap_or("see `pskgate check`");
    match problem.gravity {
        Gravity::Refuses | Gravity::Keeps => {
            findings.coded("key file", Kind::Config, text, help, problem.code)
        }
        Gravity::Warns => findings.warn("key file", text, help),
        Gravity::Remarks => findings.note("key file", format!("{text}; {help}")),
    }
}

/// What a path that is well looks like.
fn describe(path: &Path, writer: Writer) -> String {
    let files = key_files(path, writer);
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
fn after_the_drop(config: &Config, (path, writer): (&Path, Writer), findings: &mut Findings) {
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
