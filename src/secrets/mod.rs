//! Identities and keys: the only place that knows what a key's bytes are.
//!
//! A file is parsed once into a [`SecretSet`], which is immutable and shared by `Arc`. A handshake
//! turns an identity found there into a [`Claim`], and the proof of the key turns the claim into a
//! [`Grant`]; a session lives as long as the current set still [`grants`](SecretSet::grants) it.

pub mod beremiz;
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
mod twins;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::error::ErrorStack;

use file::ADVISED_KEY;
pub use file::parse;
pub use fingerprint::Fingerprint;
use folder::files_of;
pub use folder::key_files;
pub use key::{Escaped, Identity, Key, MAX_IDENTITY, MAX_KEY, MIN_KEY, Serial, TicketKey, escape};
pub use password::Password;
pub use problem::{Gravity, Problem};
pub use reader::Reader;
pub use renew::{InForce, Renewed, renew};
pub use twins::{EntryIndex, Twin};
use zeroize::Zeroizing;

/// How strictly key files are read. The two dialects differ in these three points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// An identity that stands on two lines.
    pub duplicates: OnDuplicate,
    /// What an identity may consist of.
    pub identities: IdentityRule,
    /// A file that others can read or write, or the group can write.
    pub permissions: OnLoosePermissions,
    /// Who may own a file besides root and the user of this process: the one that it will become.
    pub owner: Option<u32>,
    /// Who writes the first of a service's paths; all others are the operator's.
    pub writer: Writer,
    /// Whether a service may begin without a key and wait for its files.
    pub waits: bool,
}

impl Rules {
    /// The rules for a path by its position among those of a service.
    fn of_path(self, position: usize) -> Self {
        Self { writer: self.writer_of_path(position), ..self }
    }

    /// Who writes the path at this position among those of a service.
    pub fn writer_of_path(self, position: usize) -> Writer {
        if position == 0 { self.writer } else { Writer::Operator }
    }
}

/// Who writes a key file. What another program writes as it likes may be read by other users, with a
/// warning, and by nobody changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Writer {
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
    fn gravity(self) -> Gravity {
        match self {
            Self::Refuse => Gravity::Refuses,
            Self::Warn => Gravity::Warns,
        }
    }
}

/// One line of a key file.
#[derive(Debug)]
pub struct Entry {
    identity: Identity,
    key: Arc<Key>,
    file: Arc<Path>,
    line: u32,
    /// Whether a line feed stands behind it.
    ended: bool,
}

impl Entry {
    /// The name before the colon.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What can be shown of the key.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.identity, &self.key)
    }

    /// Whether another entry has the same key.
    pub fn has_key_of(&self, other: &Self) -> bool {
        self.key.same_as(&other.key)
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
pub fn entries(paths: &[PathBuf], rules: Rules, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (position, path) in paths.iter().enumerate() {
        let (in_folder, rules) = (path.is_dir(), rules.of_path(position));
        for file in files_of(path, rules, problems) {
            entries.extend(file::read(&file, in_folder, rules, problems));
        }
    }
    if !entries.is_empty() {
        // `keys remove` leaves a file that a service names empty when its last key goes.
        problems.iter_mut().for_each(Problem::tolerate_empty_file);
    }
    entries
}

#[derive(Debug)]
struct Known {
    serial: Serial,
    /// Shared with the sets before and after this one, as far as it did not change.
    key: Arc<Key>,
    file: Arc<Path>,
    line: u32,
}

/// An immutable table of identities and their keys: the merged files of one service.
#[derive(Debug)]
pub struct SecretSet {
    known: HashMap<Identity, Known>,
    /// None when there is not one key.
    first: Option<Identity>,
    /// Every identity once more, to pick one by number.
    names: Box<[Identity]>,
}

impl SecretSet {
    /// A set of one fresh random key, known to this process alone: what `demo` runs on.
    ///
    /// # Errors
    /// The operating system has no random numbers to give.
    pub fn ephemeral(identity: &str) -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new(vec![0; 32].into_boxed_slice());
        getrandom::fill(&mut bytes)?;
        let identity = Identity::new(identity.as_bytes());
        let file = Path::new("").into();
        let key = Arc::new(Key::new(bytes));
        let known = Known { serial: Serial::next(), key, file, line: 0 };
        Ok(Self::new(HashMap::from([(identity.clone(), known)]), Some(identity)))
    }

    /// What a test says, without the rules for files.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of(pairs: &[(&[u8], &[u8])]) -> Arc<Self> {
        let known = |key: &[u8]| Known {
            serial: Serial::next(),
            key: Arc::new(Key::new(Zeroizing::new(key.into()))),
            file: Path::new("").into(),
            line: 0,
        };
        Arc::new(Self::new(
            pairs.iter().map(|(who, key)| (Identity::new(who), known(key))).collect(),
            pairs.first().map(|(who, _)| Identity::new(who)),
        ))
    }

    fn new(known: HashMap<Identity, Known>, first: Option<Identity>) -> Self {
        let names = known.keys().cloned().collect();
        Self { known, first, names }
    }

    /// Follows key files to the names that they have from now on, as inside another root directory.
    pub fn rename_files(&mut self, rename: impl Fn(&Path) -> PathBuf) {
        // One name for all of a file's keys, as before.
        let mut names: HashMap<Arc<Path>, Arc<Path>> = HashMap::new();
        for known in self.known.values_mut() {
            let name =
                names.entry(known.file.clone()).or_insert_with(|| rename(&known.file).into());
            known.file = name.clone();
        }
    }

    /// How many identities there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there is not one: an empty set comes only of an order to take away the last key.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The identity of the first line of the first file: what a client presents when nothing was
    /// said. None if there is not one key.
    pub fn first(&self) -> Option<&Identity> {
        self.first.as_ref()
    }

    /// The key of an identity, and the claim that a proof of it turns into a [`Grant`].
    pub fn find(&self, identity: &[u8]) -> Option<(&Key, Claim)> {
        let (who, known) = self.known.get_key_value(identity)?;
        Some((&known.key, Claim { who: who.clone(), serial: known.serial }))
    }

    /// Whether a session that was let in by an earlier set may go on under this one.
    pub fn grants(&self, grant: &Grant) -> bool {
        self.known.get(grant.who.as_bytes()).is_some_and(|known| known.serial == grant.serial)
    }

    /// Every identity with its file and line, in no particular order.
    pub fn places(&self) -> impl Iterator<Item = (&Identity, &Path, u32)> {
        self.known.iter().map(|(identity, known)| (identity, &*known.file, known.line))
    }

    /// What has changed since an earlier set; none if nothing has.
    pub fn since(&self, earlier: &SecretSet) -> Option<Changes> {
        let named = |a: &SecretSet, b: &SecretSet, differs: fn(&Known, Option<&Known>) -> bool| {
            let mut names: Vec<Identity> = a
                .known
                .iter()
                .filter(|(name, known)| differs(known, b.known.get(*name)))
                .map(|(name, _)| name.clone())
                .collect();
            names.sort();
            names
        };
        let changes = Changes {
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
    pub fn shared_with<'a>(&'a self, other: &'a SecretSet) -> impl Iterator<Item = &'a Identity> {
        self.known.iter().filter_map(|(identity, known)| {
            other.known.get(identity).filter(|k| k.key.same_as(&known.key)).map(|_| identity)
        })
    }
}

/// Whose keys came, went or became others.
#[derive(Debug)]
pub struct Changes {
    added: Vec<Identity>,
    removed: Vec<Identity>,
    replaced: Vec<Identity>,
}

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// A line is read by a person; a list of thousands is in the file.
        const SHOWN: usize = 8;
        let mut separator = "";
        for (word, names) in
            [("added", &self.added), ("removed", &self.removed), ("replaced", &self.replaced)]
        {
            if names.is_empty() {
                continue;
            }
            write!(f, "{separator}{word} ")?;
            for (n, name) in names.iter().take(SHOWN).enumerate() {
                write!(f, "{}{name}", if n == 0 { "" } else { ", " })?;
            }
            if let more @ 1.. = names.len().saturating_sub(SHOWN) {
                write!(f, " and {more} more")?;
            }
            separator = "; ";
        }
        Ok(())
    }
}

/// The keys as one peer may use them: an identity that is hidden from it is answered as one that
/// nobody knows, in alert and in time.
#[derive(Clone)]
pub struct Keys {
    set: Arc<SecretSet>,
    hides: Option<Arc<Hides>>,
}

type Hides = dyn Fn(&Identity) -> bool + Send + Sync;

impl Keys {
    /// All of a set.
    pub fn all(set: Arc<SecretSet>) -> Self {
        Self { set, hides: None }
    }

    /// A set without those identities for which `hides` holds; it must be pure and quick.
    pub fn without(
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
    pub(crate) fn knows(&self, identity: &[u8]) -> bool {
        let first = self.set.first.as_ref();
        first.and_then(|first| self.look_up(identity, first)).is_some_and(|(_, known)| known)
    }

    /// What an identity that a stranger names is answered with, be it known or not.
    ///
    /// # Errors
    /// As [`decoy`].
    pub(crate) fn answer(&self, identity: &[u8]) -> Result<Option<Answer>, ErrorStack> {
        let seed = decoy(identity)?;
        // Always the same one for a name, as a name that is known always leads to the same key.
        let number = seed.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let names = &self.set.names;
        let stand_in = names.get((number % names.len().max(1) as u64) as usize);
        let found = stand_in.and_then(|stand_in| self.look_up(identity, stand_in));
        let len = match &found {
            Some((claim, _)) => self.set.known.get(&claim.who).map_or(0, |known| known.key.len()),
            // Nobody has a key here: every name is answered as a wrong key is.
            None => ADVISED_KEY,
        };
        let mut decoy = Zeroizing::new(vec![0; len]);
        decoy.iter_mut().zip(seed.iter().cycle()).for_each(|(to, from)| *to = *from);
        let known = found.as_ref().is_some_and(|(_, known)| *known);
        Ok(Some(Answer { claim: found.map(|(claim, _)| claim), known, decoy }))
    }

    /// The claim of an identity, or else that of `stand_in`, which is of the set; and whether it is the
    /// former. One microsecond more for a name that exists can be told after a thousand attempts: both
    /// names are looked up in either case, so that as much memory is read that was not read before.
    fn look_up(&self, identity: &[u8], stand_in: &Identity) -> Option<(Claim, bool)> {
        let exists = self.set.known.contains_key(identity);
        let (asked, other) =
            if exists { (identity, stand_in.as_bytes()) } else { (stand_in.as_bytes(), identity) };
        let (_, claim) = self.set.find(asked)?;
        let hidden = self.is_hidden(&claim.who);
        std::hint::black_box(self.set.known.contains_key(other));
        Some((claim, exists & !hidden))
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("set", &self.set).finish_non_exhaustive()
    }
}

impl From<Arc<SecretSet>> for Keys {
    fn from(set: Arc<SecretSet>) -> Self {
        Self::all(set)
    }
}

/// What an identity is answered with: its key, or in place of one that there is not, a [`decoy`] of the
/// length of somebody's key.
pub(crate) struct Answer {
    /// Somebody else's if `known` is false; none where nobody has a key.
    claim: Option<Claim>,
    known: bool,
    decoy: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// What a proof of the key turns into a [`Grant`]; none if nobody has the name.
    pub(crate) fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref().filter(|_| self.known)
    }

    /// The same, had nobody the name.
    pub(crate) fn into_unknown(self) -> Self {
        Self { known: false, ..self }
    }

    /// The key to go on with.
    pub(crate) fn key<'a>(&'a self, keys: &'a Keys) -> Option<&'a [u8]> {
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
    serial: Serial,
}

impl Claim {
    /// The identity that is claimed.
    pub fn who(&self) -> &Identity {
        &self.who
    }

    pub(crate) fn serial(&self) -> Serial {
        self.serial
    }

    /// Called by the `tls` layer alone (tests/it/layers.rs holds it to that), after it has seen that the
    /// finished handshake used the key.
    pub(crate) fn proven(self) -> Grant {
        Grant { who: self.who, serial: self.serial }
    }
}

/// Proof that the peer of a session holds a key: it finished a handshake that only the holder of the
/// pre-shared key can finish.
#[derive(Debug, Clone)]
pub struct Grant {
    who: Identity,
    serial: Serial,
}

impl Grant {
    /// Who was let in.
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
fn decoy(identity: &[u8]) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
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
