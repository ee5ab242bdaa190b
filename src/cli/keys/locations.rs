//! The key files in which an identity stands, and the services that read them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::inventory::{KeyHolder, KeyInventory, resolve_links};
use crate::secrets::KeyEntry;

/// A key file with lines of one identity.
#[derive(Debug)]
pub(super) struct KeyLocation<'a> {
    /// As the configuration has it.
    pub(super) file: PathBuf,
    /// The name's lines in it.
    pub(super) lines: Vec<u32>,
    /// Everybody who reads it.
    pub(super) readers: Vec<&'a KeyHolder>,
}

/// Files by their paths after links, so that two names of one file are one, and two programs edit several
/// files in the same order.
#[derive(Debug, Default)]
pub(super) struct KeyLocations<'a>(BTreeMap<PathBuf, KeyLocation<'a>>);

impl<'a> KeyLocations<'a> {
    /// Where the lines stand that `is_meant` picks, with everybody who reads those files.
    pub(super) fn find(
        inventory: &'a KeyInventory,
        name: &[u8],
        mut is_meant: impl FnMut(&KeyHolder, &KeyEntry) -> bool,
    ) -> Self {
        let mut meant = BTreeMap::new();
        for holder in &inventory.holders {
            for entry in holder.lines_of(name).filter(|entry| is_meant(holder, entry)) {
                let file = entry.file().to_owned();
                let none = || KeyLocation { file, lines: Vec::new(), readers: Vec::new() };
                meant.entry(resolve_links(entry.file())).or_insert_with(none);
            }
        }
        let mut found = Self(meant);
        for holder in &inventory.holders {
            for entry in holder.lines_of(name) {
                let Some(location) = found.0.get_mut(&resolve_links(entry.file())) else {
                    continue;
                };
                if !location.lines.contains(&entry.line()) {
                    location.lines.push(entry.line());
                }
                if !location.readers.iter().any(|reader| std::ptr::eq(*reader, holder)) {
                    location.readers.push(holder);
                }
            }
        }
        found
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &KeyLocation<'a>> {
        self.0.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a file is one of these.
    pub(super) fn has(&self, file: &Path) -> bool {
        self.0.contains_key(&resolve_links(file))
    }

    /// Everybody who reads one of them, each once, in the order of the configuration.
    pub(super) fn readers(&self, inventory: &'a KeyInventory) -> Vec<&'a KeyHolder> {
        let is_reader = |holder: &&KeyHolder| {
            self.iter().any(|location| location.readers.iter().any(|r| std::ptr::eq(*r, *holder)))
        };
        inventory.holders.iter().filter(is_reader).collect()
    }

    /// A line for each file: where, and who reads it.
    pub(super) fn describe(&self) -> String {
        let lines = self.iter().map(KeyLocation::describe);
        lines.collect::<Vec<_>>().join("\n  ")
    }
}

impl KeyLocation<'_> {
    fn describe(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(u32::to_string).collect();
        let selection = format!("{}:{}", self.file.display(), lines.join(","));
        match service_names(&self.readers) {
            readers if readers.is_empty() => selection,
            readers => format!("{selection}, read by {readers}"),
        }
    }
}

/// Their names, as the configuration writes them.
pub(super) fn service_names(holders: &[&KeyHolder]) -> String {
    let names = holders.iter().filter_map(|holder| holder.service.as_deref());
    names.map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", ")
}
