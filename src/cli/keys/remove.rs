//! `keys remove`: nobody gets in by this name any more.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::Place;
use super::declaration::change;
use super::site::{Holder, Site};
use crate::cli::refusal::Refusal;
use crate::cli::{complain, exit, keygen, say, units};
use crate::config::model::OnRevocation;
use crate::config::wires;
use crate::secrets::edit::{self, Emptied};
use crate::secrets::escape;

pub(super) fn main(identity: &OsStr, place: &Place) -> Result<u8, Refusal> {
    let site = Site::look(place)?;
    site.sound()?;
    let name = identity.as_encoded_bytes();
    let (files, fates) = (files(&site, name)?, fates(&site, name));
    let mut code = exit::OK;
    let mut done = false;
    for (file, emptied) in files {
        let removed = edit::remove(&file, name, emptied).map_err(|error| {
            let so_far = "what is said above was removed, the rest was not";
            let refusal = Refusal::from(error);
            if done { refusal.and(so_far) } else { refusal }
        })?;
        done = true;
        for (line, fingerprint) in removed.lines {
            let (name, file) = (escape(name), file.display());
            let text = format!("removed {name} (fingerprint {fingerprint}) from {file}:{line}");
            code = code.max(say(&text));
        }
        keygen::tell_tightened(&file, removed.loose);
    }
    // After the key, so that it never counts for a stranger's.
    if let (Some(config), Ok(name)) = (&site.native, std::str::from_utf8(name))
        && change(config, |text| wires::retract(text, name)).map_err(|refusal| {
            refusal.and("the key was removed; its name is still among the `wire` names there")
        })?
    {
        complain(&format!(
            "took {} out of the `wire` names in {}",
            escape(name.as_bytes()),
            config.display()
        ));
    }
    match place.key_file {
        None => fates.iter().for_each(|fate| complain(fate)),
        Some(_) => complain(
            "a running program that reads this file takes that up by itself: live sessions of this key \
             end as `on-revocation` says, within a second if it is not set",
        ),
    }
    Ok(code)
}

/// What becomes of the live sessions of a name, a line for each way in which services end them.
fn fates(site: &Site, name: &[u8]) -> Vec<String> {
    let mut by_words: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for holder in &site.holders {
        if !holder.entries.iter().any(|entry| entry.identity().as_bytes() == name) {
            continue;
        }
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
            format!("a running program takes that up by itself: live sessions of this key {words}")
        }
        false => format!("live sessions of this key in [{}] {words}", services.join("], [")),
    };
    by_words.into_iter().map(line).collect()
}

/// The files that hold a name, and what becomes of each whose last key it is. Refuses before anything is
/// changed what would leave a service without a key.
fn files(site: &Site, name: &[u8]) -> Result<Vec<(PathBuf, Emptied)>, Refusal> {
    let is_it = |entry: &crate::secrets::Entry| entry.identity().as_bytes() == name;
    let concerned: Vec<&Holder> =
        site.holders.iter().filter(|holder| holder.entries.iter().any(is_it)).collect();
    if concerned.is_empty() {
        return Err(Refusal::new(exit::USAGE, nobody(site, name)));
    }
    for holder in &concerned {
        let service = holder.service.as_deref().unwrap_or_default();
        let refuse = |words: &str| {
            let words = format!("nothing was removed: {words}");
            Err(Refusal::new(exit::CONFIG, words))
        };
        if holder.service.is_some() && holder.entries.iter().all(is_it) {
            return refuse(&format!(
                "[{service}] would be left without any key; add another first, or take the service out \
                 of the configuration"
            ));
        }
        if holder.presents.as_deref() == Some(name) {
            return refuse(&format!(
                "it is what [{service}] presents; give its psk-identity another name first"
            ));
        }
    }
    let mut files: BTreeMap<PathBuf, (PathBuf, Emptied)> = BTreeMap::new();
    for holder in &concerned {
        for entry in holder.entries.iter().filter(|entry| is_it(entry)) {
            let file = entry.file();
            let same = file.canonicalize().unwrap_or_else(|_| file.to_owned());
            let emptied = if holder.names(file) { Emptied::Refuse } else { Emptied::Delete };
            let known = files.entry(same).or_insert_with(|| (file.to_owned(), emptied));
            // Of a folder here, but named by itself elsewhere.
            if emptied == Emptied::Refuse {
                known.1 = emptied;
            }
        }
    }
    let is_last = |file: &Path| {
        let mut lines = concerned.iter().flat_map(|holder| &holder.entries);
        lines.all(|entry| entry.file() != file || is_it(entry))
    };
    match files.values().find(|(file, emptied)| *emptied == Emptied::Refuse && is_last(file)) {
        Some((file, _)) => Err(edit::EditError::LastKey(file.clone()).into()),
        None => Ok(files.into_values().collect()),
    }
}

fn nobody(site: &Site, name: &[u8]) -> String {
    let names: Vec<_> = site
        .wires
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
