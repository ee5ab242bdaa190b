//! Identities and keys: the only place that knows what a key's bytes are.
//!
//! A file is parsed once into a [`SecretSet`], which is immutable and shared by `Arc`. A handshake
//! turns an identity found there into a [`Claim`], and the proof of the key turns the claim into a
//! [`Grant`]; a session lives as long as the current set still [`grants`](SecretSet::grants) it.

pub mod beremiz;
mod duplicates;
pub mod edit;
mod file;
mod fingerprint;
mod folder;
#[cfg(all(unix, any(test, fuzzing)))]
pub(crate) mod fuzzing;
pub mod import;
mod key;
mod password;
mod problem;
mod reader;
mod renew;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::error::ErrorStack;

pub use duplicates::{Duplicate, DuplicateIndex};
use file::ADVISED_KEY_SIZE;
pub use file::parse;
pub use fingerprint::Fingerprint;
use folder::list_key_files;
pub use folder::list_key_files_leniently;
pub use key::{
    Escaped, Identity, Key, KeySerial, MAX_IDENTITY_SIZE, MAX_KEY_SIZE, MIN_KEY_SIZE, TicketKey,
    escape,
};
pub use password::Password;
pub use problem::{KeyFileProblem, ProblemSeverity};
pub use reader::KeyFileReader;
pub use renew::{KeysInForce, RenewedKeys, renew};
use zeroize::Zeroizing;

/// How strictly key files are read. The two dialects differ in the first three fields; the others depend on the
/// service and on the user that the program becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFileRules {
    /// An identity that stands on two lines.
    pub duplicates: OnDuplicate,
    /// What an identity may consist of.
    pub identities: IdentityRule,
    /// A file that others can read or write, or the group can write.
    pub permissions: OnLoosePermissions,
    /// A user who may own a file besides root and the user of this process: the one that it will become.
    pub also_owned_by: Option<u32>,
    /// Who writes the first of a service's paths; all others are the operator's.
    pub writer: KeyFileWriter,
    /// Whether a service may begin without a key and wait for its files.
    pub may_wait_for_files: bool,
}

impl KeyFileRules {
    /// The rules for a path by its position among those of a service.
    fn for_path_at(self, position: usize) -> Self {
        Self { writer: self.writer_of_path(position), ..self }
    }

    /// Who writes the path at this position among those of a service.
    pub fn writer_of_path(self, position: usize) -> KeyFileWriter {
        if position == 0 { self.writer } else { KeyFileWriter::Operator }
    }
}

/// Who writes a key file. What another program writes as it likes may be read by other users, with a
/// warning, and by nobody changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyFileWriter {
    /// A person, or `pskgate keygen`.
    Operator,
    /// A Beremiz runtime: one line, which it hands to each IDE that connects.
    Runtime,
    /// The Beremiz IDE: a project's folder.
    Ide,
}

/// What an identity that stands on two lines leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnDuplicate {
    /// The file is refused, both lines named.
    Refuse,
    /// The last line counts, with a warning.
    LastWins,
}

/// What an identity may consist of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdentityRule {
    /// UTF-8 without control characters, not empty.
    Utf8,
    /// UTF-8, not empty.
    Utf8WithControls,
    /// Any bytes but NUL, CR, LF and colon, also none at all.
    Bytes,
}

/// What a file with loose permissions leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnLoosePermissions {
    /// The file is refused.
    Refuse,
    /// A warning.
    Warn,
}

impl OnLoosePermissions {
    fn severity(self) -> ProblemSeverity {
        match self {
            Self::Refuse => ProblemSeverity::Error,
            Self::Warn => ProblemSeverity::Warning,
        }
    }
}

/// One line of a key file: an identity and its key.
#[derive(Debug)]
pub struct KeyEntry {
    identity: Identity,
    key: Arc<Key>,
    file: Arc<Path>,
    line: u32,
    /// Whether a line feed stands behind it.
    ended: bool,
}

impl KeyEntry {
    /// The name before the colon.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What can be shown of the key.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new(&self.identity, &self.key)
    }

    /// Whether another entry has the same key.
    pub fn has_key_of(&self, other: &Self) -> bool {
        self.key.constant_time_eq(&other.key)
    }

    /// The file, as it was named or listed.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// From 1.
    pub fn line(&self) -> u32 {
        self.line
    }
}

/// Every line of every file in order, as a [`SecretSet`] would read them, for who asks where a key
/// stands. What is wrong is added to `problems`; what can be read comes all the same.
pub fn entries(
    paths: &[PathBuf],
    rules: KeyFileRules,
    problems: &mut Vec<KeyFileProblem>,
) -> Vec<KeyEntry> {
    let mut entries = Vec::new();
    for (position, path) in paths.iter().enumerate() {
        let (in_folder, rules) = (path.is_dir(), rules.for_path_at(position));
        for file in list_key_files(path, rules, problems) {
            entries.extend(file::read_entries(&file, in_folder, rules, problems));
        }
    }
    if !entries.is_empty() {
        // `keys remove` leaves a file that a service names empty when its last key goes.
        problems.iter_mut().for_each(KeyFileProblem::tolerate_empty_file);
    }
    entries
}

/// A key in force, and the line that it came from.
#[derive(Debug)]
struct KeyRecord {
    serial: KeySerial,
    /// Shared with the sets before and after this one, as far as it did not change.
    key: Arc<Key>,
    file: Arc<Path>,
    line: u32,
}

/// An immutable table of identities and their keys: the merged files of one service.
#[derive(Debug)]
pub struct SecretSet {
    records: HashMap<Identity, KeyRecord>,
    /// `None` if there is no key.
    first: Option<Identity>,
    /// Every identity again, to pick one by number.
    names: Box<[Identity]>,
}

impl SecretSet {
    /// A set with one new random key, which is known to this process alone: for `demo`.
    ///
    /// # Errors
    /// The operating system has no random numbers to give.
    pub fn with_random_key(identity: &str) -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new(vec![0; 32].into_boxed_slice());
        getrandom::fill(&mut bytes)?;
        let identity = Identity::new(identity.as_bytes());
        let file = Path::new("").into();
        let key = Arc::new(Key::new(bytes));
        let known = KeyRecord { serial: KeySerial::next(), key, file, line: 0 };
        Ok(Self::new(HashMap::from([(identity.clone(), known)]), Some(identity)))
    }

    /// A set of these identities and keys, without the rules for files: for tests.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn from_pairs(pairs: &[(&[u8], &[u8])]) -> Arc<Self> {
        let known = |key: &[u8]| KeyRecord {
            serial: KeySerial::next(),
            key: Arc::new(Key::new(Zeroizing::new(key.into()))),
            file: Path::new("").into(),
            line: 0,
        };
        Arc::new(Self::new(
            pairs.iter().map(|(who, key)| (Identity::new(who), known(key))).collect(),
            pairs.first().map(|(who, _)| Identity::new(who)),
        ))
    }

    fn new(known: HashMap<Identity, KeyRecord>, first: Option<Identity>) -> Self {
        let names = known.keys().cloned().collect();
        Self { records: known, first, names }
    }

    /// Renames the key files that the records name, as after a change of root directory.
    pub fn rename_files(&mut self, rename: impl Fn(&Path) -> PathBuf) {
        // One name for all of a file's keys, as before.
        let mut names: HashMap<Arc<Path>, Arc<Path>> = HashMap::new();
        for known in self.records.values_mut() {
            let name =
                names.entry(known.file.clone()).or_insert_with(|| rename(&known.file).into());
            known.file = name.clone();
        }
    }

    /// The number of identities.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is not one: an empty set comes only of an order to take away the last key.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The identity of the first line of the first file: what a client presents when nothing was
    /// said. None if there is not one key.
    pub fn first(&self) -> Option<&Identity> {
        self.first.as_ref()
    }

    /// The key of an identity, and the claim that a proof of it turns into a [`Grant`].
    pub fn find(&self, identity: &[u8]) -> Option<(&Key, Claim)> {
        let (who, known) = self.records.get_key_value(identity)?;
        Some((&known.key, Claim { who: who.clone(), serial: known.serial }))
    }

    /// Whether a session that was let in by an earlier set may go on under this one.
    pub fn grants(&self, grant: &Grant) -> bool {
        self.records.get(grant.who.as_bytes()).is_some_and(|known| known.serial == grant.serial)
    }

    /// Every identity with its file and line, in no particular order.
    pub fn locations(&self) -> impl Iterator<Item = (&Identity, &Path, u32)> {
        self.records.iter().map(|(identity, known)| (identity, &*known.file, known.line))
    }

    /// What has changed since an earlier set; none if nothing has.
    pub fn changes_since(&self, earlier: &SecretSet) -> Option<KeyChanges> {
        let named =
            |a: &SecretSet, b: &SecretSet, differs: fn(&KeyRecord, Option<&KeyRecord>) -> bool| {
                let mut names: Vec<Identity> = a
                    .records
                    .iter()
                    .filter(|(name, known)| differs(known, b.records.get(*name)))
                    .map(|(name, _)| name.clone())
                    .collect();
                names.sort();
                names
            };
        let changes = KeyChanges {
            added: named(self, earlier, |_, other| other.is_none()),
            removed: named(earlier, self, |_, other| other.is_none()),
            replaced: named(self, earlier, |known, other| {
                other.is_some_and(|other| other.serial != known.serial)
            }),
        };
        let parts = [&changes.added, &changes.removed, &changes.replaced];
        parts.iter().any(|names| !names.is_empty()).then_some(changes)
    }

    /// Identities that stand with the same key in both sets, for the check of RFC 9257, 4.1.
    pub fn shared_identities<'a>(
        &'a self,
        other: &'a SecretSet,
    ) -> impl Iterator<Item = &'a Identity> {
        self.records.iter().filter_map(|(identity, known)| {
            other
                .records
                .get(identity)
                .filter(|k| k.key.constant_time_eq(&known.key))
                .map(|_| identity)
        })
    }
}

/// The identities whose keys were added, removed or replaced.
#[derive(Debug)]
pub struct KeyChanges {
    added: Vec<Identity>,
    removed: Vec<Identity>,
    replaced: Vec<Identity>,
}

impl std::fmt::Display for KeyChanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// More names are counted only: the line is for people.
        const MAX_NAMES_SHOWN: usize = 8;
        let mut separator = "";
        for (word, names) in
            [("added", &self.added), ("removed", &self.removed), ("replaced", &self.replaced)]
        {
            if names.is_empty() {
                continue;
            }
            write!(f, "{separator}{word} ")?;
            for (n, name) in names.iter().take(MAX_NAMES_SHOWN).enumerate() {
                write!(f, "{}{name}", if n == 0 { "" } else { ", " })?;
            }
            if let more @ 1.. = names.len().saturating_sub(MAX_NAMES_SHOWN) {
                write!(f, " and {more} more")?;
            }
            separator = "; ";
        }
        Ok(())
    }
}

/// The keys that one peer may use. An identity that is hidden from the peer is answered like an unknown one,
/// in alert and in time.
#[derive(Clone)]
pub struct PeerKeys {
    set: Arc<SecretSet>,
    hides: Option<Arc<HidePredicate>>,
}

type HidePredicate = dyn Fn(&Identity) -> bool + Send + Sync;

impl PeerKeys {
    /// All of a set.
    pub fn unrestricted(set: Arc<SecretSet>) -> Self {
        Self { set, hides: None }
    }

    /// A set without those identities for which `hides` holds; it must be pure and quick.
    pub fn hiding(
        set: Arc<SecretSet>,
        hides: impl Fn(&Identity) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { set, hides: Some(Arc::new(hides)) }
    }

    /// As [`SecretSet::find`].
    pub fn find(&self, identity: &[u8]) -> Option<(&Key, Claim)> {
        let found = self.set.find(identity)?;
        (!self.is_hidden(found.1.who())).then_some(found)
    }

    fn is_hidden(&self, who: &Identity) -> bool {
        self.hides.as_ref().is_some_and(|hides| hides(who))
    }

    /// Whether there is a key for an identity that a stranger names. Takes as long if there is none.
    pub(crate) fn has_key_for(&self, identity: &[u8]) -> bool {
        let first = self.set.first.as_ref();
        first
            .and_then(|first| self.find_or_stand_in(identity, first))
            .is_some_and(|(_, known)| known)
    }

    /// The answer to an identity that a peer presents, known or not.
    ///
    /// # Errors
    /// As [`derive_decoy`].
    pub(crate) fn answer_for(&self, identity: &[u8]) -> Result<Option<KeyAnswer>, ErrorStack> {
        let seed = derive_decoy(identity)?;
        // Always the same one for a name, as a name that is known always leads to the same key.
        let number = seed.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let names = &self.set.names;
        let stand_in = names.get((number % names.len().max(1) as u64) as usize);
        let found = stand_in.and_then(|stand_in| self.find_or_stand_in(identity, stand_in));
        let len = match &found {
            Some((claim, _)) => self.set.records.get(&claim.who).map_or(0, |known| known.key.len()),
            // Nobody has a key here: every name is answered as a wrong key is.
            None => ADVISED_KEY_SIZE,
        };
        let mut decoy = Zeroizing::new(vec![0; len]);
        decoy.iter_mut().zip(seed.iter().cycle()).for_each(|(to, from)| *to = *from);
        let known = found.as_ref().is_some_and(|(_, known)| *known);
        Ok(Some(KeyAnswer { claim: found.map(|(claim, _)| claim), known, decoy }))
    }

    /// The claim of an identity, or else that of `stand_in`, which is of the set; and whether it is the
    /// former. One microsecond more for a name that exists can be told after a thousand attempts: both
    /// names are looked up in either case, so that as much memory is read that was not read before.
    fn find_or_stand_in(&self, identity: &[u8], stand_in: &Identity) -> Option<(Claim, bool)> {
        let exists = self.set.records.contains_key(identity);
        let (asked, other) =
            if exists { (identity, stand_in.as_bytes()) } else { (stand_in.as_bytes(), identity) };
        let (_, claim) = self.set.find(asked)?;
        let hidden = self.is_hidden(&claim.who);
        std::hint::black_box(self.set.records.contains_key(other));
        Some((claim, exists & !hidden))
    }
}

impl std::fmt::Debug for PeerKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerKeys").field("set", &self.set).finish_non_exhaustive()
    }
}

impl From<Arc<SecretSet>> for PeerKeys {
    fn from(set: Arc<SecretSet>) -> Self {
        Self::unrestricted(set)
    }
}

/// What an identity is answered with: its key, or in place of one that there is not, a [`derive_decoy`] of the
/// length of somebody's key.
pub(crate) struct KeyAnswer {
    /// Somebody else's if `known` is false; none where nobody has a key.
    claim: Option<Claim>,
    known: bool,
    decoy: Zeroizing<Vec<u8>>,
}

impl KeyAnswer {
    /// What a proof of the key turns into a [`Grant`]; none if nobody has the name.
    pub(crate) fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref().filter(|_| self.known)
    }

    /// The answer as for an unknown identity.
    pub(crate) fn into_unknown(self) -> Self {
        Self { known: false, ..self }
    }

    /// The key for the rest of the handshake.
    pub(crate) fn key<'a>(&'a self, keys: &'a PeerKeys) -> Option<&'a [u8]> {
        // Looked up in either case: both take the same time.
        let found = match &self.claim {
            Some(claim) => Some(keys.set.find(claim.who.as_bytes())?.0),
            None => None,
        };
        Some(found.filter(|_| self.known).map_or(&self.decoy, Key::expose))
    }
}

/// An identity that somebody presented, before its key is proven. Worth nothing by itself.
#[derive(Debug, Clone)]
pub struct Claim {
    who: Identity,
    serial: KeySerial,
}

impl Claim {
    /// The identity that is claimed.
    pub fn who(&self) -> &Identity {
        &self.who
    }

    pub(crate) fn serial(&self) -> KeySerial {
        self.serial
    }

    /// Called by the `tls` layer alone (tests/it/layers.rs holds it to that), after it has seen that the
    /// finished handshake used the key.
    pub(crate) fn into_grant(self) -> Grant {
        Grant { who: self.who, serial: self.serial }
    }
}

/// Proof that the peer of a session holds a key: it finished a handshake that only the holder of the
/// pre-shared key can finish.
#[derive(Debug, Clone)]
pub struct Grant {
    who: Identity,
    serial: KeySerial,
}

impl Grant {
    /// The identity whose key was proven.
    pub fn who(&self) -> &Identity {
        &self.who
    }
}

/// The key that an unknown identity is answered with, so that it fails as a wrong key does: in the
/// same alert and the same time. HMAC-SHA256 under a secret of this process, hence the same again
/// after a HelloRetryRequest, and useless to whoever would guess it.
///
/// # Errors
/// The operating system has no random numbers, or the library no HMAC.
fn derive_decoy(identity: &[u8]) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
    use openssl::{hash::MessageDigest, pkey::PKey, sign::Signer};
    static SECRET: std::sync::OnceLock<[u8; 32]> = std::sync::OnceLock::new();
    let secret = match SECRET.get() {
        Some(secret) => secret,
        None => {
            let mut fresh = [0; 32];
            openssl::rand::rand_bytes(&mut fresh)?;
            SECRET.get_or_init(|| fresh)
        }
    };
    let key = PKey::hmac(secret)?;
    let mut signer = Signer::new(MessageDigest::sha256(), &key)?;
    signer.update(identity)?;
    Ok(Zeroizing::new(signer.sign_to_vec()?))
}
