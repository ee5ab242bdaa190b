//! Identities and keys: the only place that knows what a key's bytes are.

/// How strictly key files are read. The two dialects differ in these three points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// An identity that stands on two lines.
    pub duplicates: OnDuplicate,
    /// What an identity may consist of.
    pub identities: IdentityRule,
    /// A file that others can read or write, or the group can write.
    pub permissions: OnLoosePermissions,
}

/// What an identity that stands on two lines leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDuplicate {
    /// The file is refused, both lines named.
    Refuse,
    /// The last line counts, with a warning.
    LastWins,
}

/// What an identity may consist of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityRule {
    /// UTF-8 without control characters, not empty.
    Utf8,
    /// Any bytes but NUL, CR, LF and colon, also none at all.
    Bytes,
}

/// What a file with loose permissions leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoosePermissions {
    /// The file is refused.
    Refuse,
    /// A warning.
    Warn,
}
