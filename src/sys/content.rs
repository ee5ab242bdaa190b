//! What a file held when it was read, told apart from what it holds later.

use std::fs::Metadata;
use std::io::{self, Read};
use std::path::Path;

use openssl::sha::Sha256;
use zeroize::Zeroizing;

use super::file::open_regular;

/// Bytes of a file that count. A larger file is neither a configuration nor a key file; its size and its
/// first bytes tell its changes well enough.
const DIGESTED_BYTES: u64 = 16 * 1024 * 1024;

/// A digest of a file's bytes, length, mode and owner: mode and owner decide whether a key file is taken.
/// Of a key file it gives nothing away that its reader does not have: it is kept in memory alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of bytes that were read from an open file.
    pub fn of(meta: &Metadata, bytes: &[u8]) -> Self {
        let mut hash = begin(meta);
        let counted = usize::try_from(DIGESTED_BYTES).unwrap_or(usize::MAX).min(bytes.len());
        hash.update(&bytes[..counted]);
        Self(hash.finish())
    }

    /// Of a file as it is now; none if it cannot be read.
    pub fn look(path: &Path) -> Option<Self> {
        let (file, meta) = open_regular(path).ok()?;
        let mut hash = begin(&meta);
        let mut part = Zeroizing::new([0; 16 * 1024]);
        let mut rest = file.take(DIGESTED_BYTES);
        loop {
            match rest.read(&mut part[..]) {
                Ok(0) => return Some(Self(hash.finish())),
                Ok(count) => hash.update(&part[..count]),
                Err(_) => return None,
            }
        }
    }
}

fn begin(meta: &Metadata) -> Sha256 {
    let mut hash = Sha256::new();
    hash.update(&meta.len().to_ne_bytes());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        hash.update(&meta.mode().to_ne_bytes());
        hash.update(&meta.uid().to_ne_bytes());
    }
    hash
}

/// Reads a regular file whole, with the digest of the bytes that were read.
///
/// # Errors
/// The system's, and what is no regular file.
pub fn read(path: &Path) -> io::Result<(Vec<u8>, Digest)> {
    let (mut file, meta) = open_regular(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    let digest = Digest::of(&meta, &bytes);
    Ok((bytes, digest))
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_digest_of_what_was_read_is_that_of_a_look_until_bytes_or_mode_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(Digest::look(&path), None);
        std::fs::write(&path, "some text of more bytes than none").unwrap();
        let (bytes, read) = super::read(&path).unwrap();
        assert_eq!((bytes.len(), Digest::look(&path)), (33, Some(read)));
        std::fs::write(&path, "same text of more bytes than none").unwrap();
        assert_ne!(Digest::look(&path), Some(read));
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Digest::look(&path), Some(read), "what counts is the content");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        assert_ne!(Digest::look(&path), Some(read));
    }
}
