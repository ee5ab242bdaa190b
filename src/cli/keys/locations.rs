//! The key files in which an identity stands, and the services that read them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::site::{Holder, Site, resolved};
use crate::secrets::Entry;

/// A key file with lines of one name.
#[derive(Debug)]
pub(super) struct Location<'a> {
    /// As the configuration has it.
    pub(super) file: PathBuf,
    /// The name's lines in it.
    pub(super) lines: Vec<u32>,
    /// Everybody who reads it.
    pub(super) readers: Vec<&'a Holder>,
}

/// Files by their paths after links, so that two names of one file are one, and two programs edit several
/// files in the same order.
#[derive(Debug, Default)]
pub(super) struct Locations<'a>(BTreeMap<PathBuf, Location<'a>>);

impl<'a> Locations<'a> {
    /// Where the lines stand that `is_meant` picks, with everybody who reads those files.
    pub(super) fn of(
        site: &'a Site,
        name: &[u8],
        mut is_meant: impl FnMut(&Holder, &Entry) -> bool,
    ) -> Self {
        let mut meant = BTreeMap::new();
        for holder in &site.holders {
            for entry in holder.lines_of(name).filter(|entry| is_meant(holder, entry)) {
                let file = entry.file().to_owned();
                let none = || Location { file, lines: Vec::new(), readers: Vec::new() };
                meant.entry(resolved(entry.file())).or_insert_with(none);
            }
        }
        let mut found = Self(meant);
        for holder in &site.holders {
            for entry in holder.lines_of(name) {
                let Some(location) = found.0.get_mut(&resolved(entry.file())) else { continue };
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

    pub(super) fn iter(&self) -> impl Iterator<Item = &Location<'a>> {
        self.0.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a file is one of these.
    pub(super) fn has(&self, file: &Path) -> bool {
        self.0.contains_key(&resolved(file))
    }

    /// Everybody who reads one of them, each once, in the order of the configuration.
    pub(super) fn readers(&self, site: &'a Site) -> Vec<&'a Holder> {
        let is_reader = |holder: &&Holder| {
            self.iter().any(|location| location.readers.iter().any(|r| std::ptr::eq(*r, *holder)))
        };
        site.holders.iter().filter(is_reader).collect()
    }

    /// A line for each file: where, and who reads it.
    pub(super) fn describe(&self) -> String {
        let lines = self.iter().map(Location::describe);
        lines.collect::<Vec<_>>().join("\n  ")
    }
}

impl Location<'_> {
    fn describe(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(u32::to_string).collect();
        let selection = format!("{}:{}", self.file.display(), lines.join(","));
        match services(&self.readers) {
            readers if readers.is_empty() => selection,
            readers => format!("{selection}, read by {readers}"),
        }
    }
}

/// Their names, as the configuration writes them.
pub(super) fn services(holders: &[&Holder]) -> String {
    let names = holders.iter().filter_map(|holder| holder.service.as_deref());
    names.map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", ")
}
