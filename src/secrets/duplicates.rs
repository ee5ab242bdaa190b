//! Which of many entries have an identity or a key in common, in a time that grows with their number.

use std::collections::HashMap;

use super::{Identity, KeyEntry};

/// Entries by identity and by key, each with what the caller knows it by. Hashed with this process' random
/// state, and without a copy of a key.
#[derive(Default)]
pub struct DuplicateIndex<'a> {
    by_identity: HashMap<&'a Identity, usize>,
    by_key: HashMap<&'a [u8], usize>,
}

/// What an entry has in common with an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicate {
    /// The identity of that one.
    Identity(usize),
    /// The key of that one, under another identity.
    Key(usize),
}

impl<'a> DuplicateIndex<'a> {
    /// Adds an entry; the first of those that are alike stays.
    pub fn insert(&mut self, number: usize, entry: &'a KeyEntry) {
        self.by_identity.entry(&entry.identity).or_insert(number);
        self.by_key.entry(entry.key.expose()).or_insert(number);
    }

    /// What an entry has in common with one that was added.
    pub fn find(&self, entry: &KeyEntry) -> Option<Duplicate> {
        let identity = self.by_identity.get(&entry.identity).copied().map(Duplicate::Identity);
        identity.or_else(|| self.by_key.get(entry.key.expose()).copied().map(Duplicate::Key))
    }
}
