//! What two people compare over the phone to know that their ends hold the same key.

use std::fmt;

use openssl::sha::Sha256;

use super::key::{Identity, Key};

/// Separates these hashes from every other use of SHA-256 over a key.
const HASH_DOMAIN: &[u8] = b"pskgate key fingerprint 1\0";

/// 64 bits of a SHA-256 over an identity and its key: four groups of four hex digits.
///
/// It says nothing about a random key. One that a person thought up could be found by trying a list,
/// so it is for comparing and not for publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// Of the key's bytes, however a file spells them.
    pub fn new(identity: &Identity, key: &Key) -> Self {
        let mut hash = Sha256::new();
        hash.update(HASH_DOMAIN);
        for part in [identity.as_bytes(), key.expose()] {
            // With its length, so that no other pair runs together to the same bytes.
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let [a, b, c, d, e, f, g, h, ..] = hash.finish();
        Self([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, pair) in self.0.chunks(2).enumerate() {
            f.write_str(if n == 0 { "" } else { "-" })?;
            pair.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn of(identity: &[u8], key: &[u8]) -> String {
        let key = Key::new(Zeroizing::new(key.into()));
        Fingerprint::new(&Identity::new(identity), &key).to_string()
    }

    /// By `{ printf 'pskgate key fingerprint 1\0'; printf '\0\0\0\0\0\0\0\7client1';
    /// printf '\0\0\0\0\0\0\0\20'; printf 0123456789abcdef; } | sha256sum`.
    #[test]
    fn it_is_the_same_on_every_machine() {
        assert_eq!(of(b"client1", b"0123456789abcdef"), "0ba5-d879-0ed2-3648");
    }

    #[test]
    fn another_key_another_name_or_another_split_is_another_one() {
        let all = [
            of(b"client1", b"0123456789abcdef"),
            of(b"client1", b"0123456789abcdeg"),
            of(b"client2", b"0123456789abcdef"),
            of(b"client10", b"123456789abcdef"),
        ];
        for (n, one) in all.iter().enumerate() {
            assert_eq!(one.len(), 19, "{one}");
            assert!(!all[..n].contains(one), "{all:?}");
        }
    }
}
