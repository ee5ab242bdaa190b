//! Before a key is added to a file: whether a service that reads the file has that identity in another one.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::inventory::{KeyHolder, key_holders, resolve_links};
use super::locations::service_names;
use crate::cli::refusal::Refusal;
use crate::cli::{exit, exit_code_for, paths, shell, show_diagnostics};
use crate::config::{self, Format};
use crate::secrets::escape;

/// How many configurations beside a key file are looked at.
const MAX_CONFIGS: usize = 64;

/// Refuses a second key for an identity under one name: a native service would not start with it, and of a
/// stunnel.conf's two keys one would be worth nothing. The configurations are `config`, or those that can
/// be found.
///
/// # Errors
/// Such a service, or a `config` that cannot be read.
pub(in crate::cli) fn refuse_second_key(
    file: &Path,
    identity: &str,
    config: Option<&Path>,
) -> Result<(), Refusal> {
    refuse_second_keys(file, &[identity.as_bytes()], config)
}

/// The same for many identities: each configuration is read once.
pub(super) fn refuse_second_keys(
    file: &Path,
    identities: &[&[u8]],
    config: Option<&Path>,
) -> Result<(), Refusal> {
    let identities: HashSet<&[u8]> = identities.iter().copied().collect();
    let found = match config {
        Some(config) => vec![config.to_owned()],
        None => nearby(file),
    };
    for path in found {
        let (read, report) = config::survey(&path, Format::Auto);
        match &read {
            Some(read) => check(&key_holders(read), &path, file, &identities)?,
            None if config.is_some() => {
                show_diagnostics(&report);
                let words = "nothing was changed: without the configuration it cannot be checked";
                return Err(Refusal::new(exit_code_for(&report), words));
            }
            // Whatever it is, it is not said to be the key file's.
            None => {}
        }
    }
    Ok(())
}

fn check(
    holders: &[KeyHolder],
    config: &Path,
    file: &Path,
    identities: &HashSet<&[u8]>,
) -> Result<(), Refusal> {
    let same = resolve_links(file);
    for holder in holders.iter().filter(|holder| holder.reads(file)) {
        let mut lines =
            holder.entries.iter().filter(|one| identities.contains(one.identity().as_bytes()));
        let Some(other) = lines.find(|entry| resolve_links(entry.file()) != same) else { continue };
        let identity = &*other.identity().to_plain_text();
        let config_text = config.display().to_string();
        let mut words = vec!["keys", "rotate"];
        words.extend(identity.starts_with('-').then_some("--"));
        words.extend([identity, &config_text]);
        let rotate = shell::command_line(words).unwrap_or_else(|| "pskgate keys rotate".into());
        return Err(Refusal::new(
            exit::CANNOT_CREATE,
            format!(
                "nothing was changed: {} stands on line {} of {} already, which {} of {config_text} reads \
                 as well; `{rotate}` gives it a second key under another name (if another configuration \
                 counts, name it with --config)",
                escape(other.identity().as_bytes()),
                other.line(),
                other.file().display(),
                service_names(&[holder]),
            ),
        ));
    }
    Ok(())
}

/// This machine's configuration, and what lies beside the key file or its folder.
pub(super) fn nearby(file: &Path) -> Vec<PathBuf> {
    let mut found = vec![paths::default_config()];
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    for folder in file.ancestors().skip(1).take(2) {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let is_config = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "toml" || extension == "conf")
        };
        let mut paths: Vec<_> =
            entries.flatten().map(|entry| entry.path()).filter(is_config).collect();
        paths.sort();
        found.extend(paths);
    }
    found.truncate(MAX_CONFIGS);
    found
}
