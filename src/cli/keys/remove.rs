//! `keys remove`: nobody gets in by this name any more.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use super::KeySelection;
use super::declaration::edit_configuration;
use super::inventory::{KeyHolder, KeyInventory, resolve_links};
use super::last_key;
use super::locations::{KeyLocation, KeyLocations, service_names};
use crate::cli::refusal::Refusal;
use crate::cli::{exit, key_line, print_error, print_result, shell, units};
use crate::config::model::OnRevocation;
use crate::config::wire_identity_edit;
use crate::secrets::edit::{self, OnLastKey};
use crate::secrets::{KeyEntry, KeyFileWriter, beremiz, escape, list_key_files_leniently};

pub(super) fn main(identity: &OsStr, selection: &KeySelection, last: bool) -> Result<u8, Refusal> {
    let inventory = KeyInventory::load(selection)?;
    // A running program takes up a key that is gone whatever else is wrong.
    inventory.show_findings();
    let name = identity.as_encoded_bytes();
    let empty = inventory.files_without_key();
    if last && !empty.is_empty() && !inventory.has(name) {
        // It went before, and the program may not know that it was meant.
        for file in &empty {
            last_key::announce_last_key(file, inventory.file.as_deref())?;
        }
        return Ok(exit::OK);
    }
    let removal = Removal::plan(&inventory, name, last)?;
    let effects = removal.session_effects();
    let mut code = exit::OK;
    let mut done = false;
    let mut emptied = Vec::new();
    for location in removal.files.iter() {
        let file = &location.file;
        let removed = edit::remove(file, name, removal.emptied(location)).map_err(|error| {
            let so_far = "what is said above was removed, the rest was not";
            let refusal = Refusal::from(error);
            if done { refusal.with_note(so_far) } else { refusal }
        })?;
        done = true;
        let readers = match service_names(&location.readers) {
            readers if inventory.holders.len() < 2 || readers.is_empty() => String::new(),
            readers => format!(", which {readers} read"),
        };
        if removal.is_last(location) {
            emptied.push(file);
        }
        for (line, fingerprint) in removed.lines {
            let (name, file) = (escape(name), file.display());
            let text =
                format!("removed {name} (fingerprint {fingerprint}) from {file}:{line}{readers}");
            code = code.max(print_result(&text));
        }
        key_line::report_tightened_mode(file, removed.loose_mode);
    }
    // After the key, so that it never counts for a stranger's.
    if let (Some(config), Ok(text_of_name)) = (&inventory.native, std::str::from_utf8(name))
        && edit_configuration(config, |text| {
            wire_identity_edit::retract(text, text_of_name, |selection| {
                removal.loses_identity(selection)
            })
        })
        .map_err(|refusal| {
            refusal.with_note("the key was removed; its name is still among the `wire` names there")
        })?
    {
        print_error(&format!(
            "took {} out of the `wire` names in {}",
            escape(name),
            config.display()
        ));
    }
    let mut all_told = true;
    for file in emptied {
        all_told &= last_key::announce_last_key(file, inventory.file.as_deref())?;
    }
    match inventory.file {
        // Nobody takes that up by itself.
        _ if !all_told => {}
        Some(_) => effects.iter().for_each(|fate| print_error(fate)),
        None => print_error(
            "a running program that reads this file takes that up by itself: live sessions of this key \
             end as `on-revocation` says, within a second if it is not set",
        ),
    }
    Ok(code)
}

/// What is going to be removed, decided before anything is changed.
struct Removal<'a> {
    inventory: &'a KeyInventory,
    name: &'a [u8],
    files: KeyLocations<'a>,
    /// Everybody who reads one of the files.
    readers: Vec<&'a KeyHolder>,
    /// Whether a service may be left without a key.
    last: bool,
}

impl<'a> Removal<'a> {
    /// Refuses what would leave a service without a key, and what would take the name from a service that
    /// was not meant.
    fn plan(inventory: &'a KeyInventory, name: &'a [u8], last: bool) -> Result<Self, Refusal> {
        let everywhere = KeyLocations::find(inventory, name, |_, _| true);
        if everywhere.is_empty() {
            return Err(Refusal::new(exit::USAGE, no_such_identity(inventory, name)));
        }
        let files = KeyLocations::find(inventory, name, |holder, entry| {
            inventory.filter.has(holder, entry)
        });
        if files.is_empty() {
            let words = format!(
                "{} does not stand there; it stands in\n  {}",
                escape(name),
                everywhere.describe()
            );
            return Err(Refusal::new(exit::USAGE, words));
        }
        let readers = files.readers(inventory);
        let removal = Self { inventory, name, files, readers, last };
        removal.check_selection()?;
        removal.check_rest()?;
        Ok(removal)
    }

    /// A file of the service that was named may be another's as well.
    fn check_selection(&self) -> Result<(), Refusal> {
        let Some(service) = self.inventory.filter.service() else { return Ok(()) };
        let is_shared = |location: &&KeyLocation<'_>| {
            location.readers.iter().any(|reader| reader.service.as_deref() != Some(service))
        };
        let Some(shared) = self.files.iter().find(is_shared) else { return Ok(()) };
        Err(usage_refusal(&format!(
            "{file} is read by {}, and each of them would lose {}; `--file {}` removes it for all of them",
            service_names(&shared.readers),
            escape(self.name),
            shell::path(&shared.file),
            file = shared.file.display(),
        )))
    }

    fn check_rest(&self) -> Result<(), Refusal> {
        for holder in &self.readers {
            let Some(service) = holder.service.as_deref() else { continue };
            // A client end without a key could not even say why.
            let may_be_last = self.last && !holder.is_client;
            if !may_be_last && self.is_left_without(holder) {
                return Err(usage_refusal(&format!(
                    "[{service}] would be left without any key, and nobody could connect; add another \
                     first, take the service out of the configuration, or say --last",
                )));
            }
            if holder.presents.as_deref() == Some(self.name) && !self.has_key_left(holder) {
                return Err(usage_refusal(&format!(
                    "it is what [{service}] presents; give its psk-identity another name first, or say \
                     with --service or --file where else it is to be removed",
                )));
            }
        }
        Ok(())
    }

    /// Whether this line goes.
    fn is_removed(&self, entry: &KeyEntry) -> bool {
        entry.identity().as_bytes() == self.name && self.files.has(entry.file())
    }

    /// Whether a service, or a file that was named by itself, has no key afterwards.
    fn is_left_without(&self, holder: &KeyHolder) -> bool {
        holder.entries.iter().all(|entry| self.is_removed(entry))
    }

    /// Whether a running program keeps the keys of a file unless it is told that its last one is meant to go.
    fn is_last(&self, location: &KeyLocation<'_>) -> bool {
        self.last && location.readers.iter().any(|holder| self.is_left_without(holder))
    }

    /// Whether a service still has a key of this name afterwards.
    fn has_key_left(&self, holder: &KeyHolder) -> bool {
        holder.lines_of(self.name).any(|entry| !self.is_removed(entry))
    }

    /// Whether the name has no owner any more in a service, or in the defaults. Where a service still has
    /// the key, its holder would become a stranger without the rules of the owner.
    fn loses_identity(&self, service: Option<&str>) -> bool {
        let is_it = |holder: &&KeyHolder| service.is_none() || holder.service.as_deref() == service;
        let mut concerned = self.inventory.holders.iter().filter(is_it);
        let is_named = !self.inventory.filter.is_narrow()
            || service.is_none()
            || self.readers.iter().any(|holder| holder.service.as_deref() == service);
        is_named && !concerned.any(|holder| self.has_key_left(holder))
    }

    /// What becomes of a file if this was its last key. A file that a service names stays, because a missing
    /// one would be a mistake; so does the last file of a folder.
    fn emptied(&self, location: &KeyLocation<'_>) -> OnLastKey {
        let mut entries = location.readers.iter().flat_map(|holder| {
            let is_here =
                |entry: &&KeyEntry| resolve_links(entry.file()) == resolve_links(&location.file);
            holder.entries.iter().filter(is_here).map(move |entry| (*holder, entry))
        });
        if self.is_last(location) {
            return OnLastKey::Keep;
        }
        if entries.clone().any(|(holder, _)| holder.service.is_none()) {
            return OnLastKey::Refuse;
        }
        let is_named = entries.any(|(holder, entry)| holder.names(entry.file()));
        let folder = location.file.parent().unwrap_or(Path::new("."));
        // Where the IDE's files are keys, its other files are none.
        let writer = match beremiz::is_key_file(&location.file) {
            true => KeyFileWriter::Ide,
            false => KeyFileWriter::Operator,
        };
        let has_others =
            || list_key_files_leniently(folder, writer).iter().any(|file| !self.files.has(file));
        match is_named || location.file.is_symlink() || !has_others() {
            true => OnLastKey::Keep,
            false => OnLastKey::Delete,
        }
    }

    /// What becomes of the live sessions of a name, a line for each way in which services end them.
    fn session_effects(&self) -> Vec<String> {
        let mut by_words: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for holder in &self.readers {
            let words = match holder.on_revocation {
                Some(OnRevocation::Keep) => {
                    "stay open (on-revocation = \"keep\"); `pskgate kick` ends them".to_owned()
                }
                Some(OnRevocation::Grace(grace)) => {
                    format!(
                        "end after the grace of {} (on-revocation)",
                        units::time(grace.as_secs_f64())
                    )
                }
                Some(OnRevocation::Cut) | None => "end within a second".to_owned(),
            };
            by_words.entry(words).or_default().extend(holder.service.as_deref());
        }
        let one_way = by_words.len() == 1;
        let line = |(words, services): (String, Vec<&str>)| match one_way {
            true => {
                format!(
                    "a running program takes that up by itself: live sessions of this key {words}"
                )
            }
            false => format!("live sessions of this key in [{}] {words}", services.join("], [")),
        };
        by_words.into_iter().map(line).collect()
    }
}

fn usage_refusal(words: &str) -> Refusal {
    Refusal::new(exit::CONFIG, format!("nothing was removed: {words}"))
}

fn no_such_identity(inventory: &KeyInventory, name: &[u8]) -> String {
    let names: Vec<_> = inventory
        .wire_names
        .iter()
        .filter(|wire| wire.identity.as_bytes() == name && wire.name.as_bytes() != name)
        .map(|wire| escape(wire.name.as_bytes()).to_string())
        .collect();
    let shown = escape(name);
    if names.is_empty() {
        format!(
            "no key file has an identity {shown}; `pskgate keys list` shows those that there are"
        )
    } else {
        format!(
            "{shown} has its keys under other names; remove them by these: {}",
            names.join(", ")
        )
    }
}
