//! A digest of a file's contents, to see later whether it has changed.

use std::fs::Metadata;
use std::io::{self, Read};
use std::path::Path;

use openssl::sha::Sha256;
use zeroize::Zeroizing;

use super::file::open_regular;

/// Bytes of a file that count. A larger file is neither a configuration nor a key file; its size and its
/// first bytes tell its changes well enough.
const MAX_DIGESTED_SIZE: u64 = 16 * 1024 * 1024;

/// A digest of a file's bytes, length, mode and owner: mode and owner decide whether a key file is taken.
/// Of a key file it gives nothing away that its reader does not have: it is kept in memory alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDigest([u8; 32]);

impl FileDigest {
    /// The digest of bytes that were read from an open file.
    pub fn from_bytes(meta: &Metadata, bytes: &[u8]) -> Self {
        let mut hash = start_hash(meta);
        let counted = usize::try_from(MAX_DIGESTED_SIZE).unwrap_or(usize::MAX).min(bytes.len());
        hash.update(&bytes[..counted]);
        Self(hash.finish())
    }

    /// The digest of a file as it is now; `None` if it cannot be read.
    pub fn from_file(path: &Path) -> Option<Self> {
        let (file, meta) = open_regular(path).ok()?;
        let mut hash = start_hash(&meta);
        let mut part = Zeroizing::new([0; 16 * 1024]);
        let mut rest = file.take(MAX_DIGESTED_SIZE);
        loop {
            match rest.read(&mut part[..]) {
                Ok(0) => return Some(Self(hash.finish())),
                Ok(count) => hash.update(&part[..count]),
                Err(_) => return None,
            }
        }
    }
}

fn start_hash(meta: &Metadata) -> Sha256 {
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
pub fn read_with_digest(path: &Path) -> io::Result<(Vec<u8>, FileDigest)> {
    let (mut file, meta) = open_regular(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    let digest = FileDigest::from_bytes(&meta, &bytes);
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
        assert_eq!(FileDigest::from_file(&path), None);
        std::fs::write(&path, "some text of more bytes than none").unwrap();
        let (bytes, read) = super::read_with_digest(&path).unwrap();
        assert_eq!((bytes.len(), FileDigest::from_file(&path)), (33, Some(read)));
        std::fs::write(&path, "same text of more bytes than none").unwrap();
        assert_ne!(FileDigest::from_file(&path), Some(read));
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(FileDigest::from_file(&path), Some(read), "what counts is the content");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        assert_ne!(FileDigest::from_file(&path), Some(read));
    }
}
