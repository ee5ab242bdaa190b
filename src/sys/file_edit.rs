//! Replaces a file whole or not at all, by one editor at a time.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::folder_lock::{FolderLock, LOCK_TIMEOUT};

/// The new file until it takes the old one's place. The leading dot hides it from folders of keys. One
/// name is enough under the lock, and what a killed editor left is taken away by the next.
const TEMPORARY_NAME: &str = ".pskgate.new";

/// The number of symbolic links that Linux follows in one name.
const MAX_SYMLINKS: usize = 40;

/// A file under its folder's lock: no other editor that takes the lock changes it meanwhile.
#[derive(Debug)]
pub struct FileEdit {
    lock: FolderLock,
    folder: PathBuf,
    path: PathBuf,
}

impl FileEdit {
    /// Follows symbolic links to the file that is meant, which need not be there yet, and takes the lock
    /// of its folder, [`LOCK_TIMEOUT`] at most.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when somebody else keeps the lock; a name that is no plain file's.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let (folder, name) = resolve_target(path)?;
        let lock = FolderLock::take(&folder, LOCK_TIMEOUT)?;
        let path = folder.join(name);
        match metadata_if_exists(&path)? {
            Some(meta) if meta.is_dir() => {
                Err(io::Error::other("it is a folder, not a file; name a file in it"))
            }
            Some(meta) if !meta.is_file() => Err(io::Error::other("it is not a regular file")),
            _ => Ok(Self { lock, folder, path }),
        }
    }

    /// The file itself, after all links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is such a file already.
    ///
    /// # Errors
    /// The system's.
    pub fn exists(&self) -> io::Result<bool> {
        Ok(metadata_if_exists(&self.path)?.is_some())
    }

    /// Puts a file of these `pieces`, one after the other, in the old one's place: who reads it sees
    /// all of the old or all of the new. Owner, group and mode stay, but for bits of the mode that are
    /// not in `most`; a new file has mode 0600. The mode that it had, if that was too loose.
    ///
    /// # Errors
    /// The system's, among them that the owner cannot be kept. The old file is whole then.
    pub fn replace(&self, pieces: &[&[u8]], mode_mask: u32) -> io::Result<Option<u32>> {
        let temporary = TemporaryFile::create(self.folder.join(TEMPORARY_NAME))
            .map_err(|error| self.explain_unwritable(error))?;
        let mut file = &temporary.file;
        let loose = match metadata_if_exists(&self.path)? {
            Some(old) => copy_permissions(file, &self.path, &old, mode_mask)?,
            None => None,
        };
        for piece in pieces {
            file.write_all(piece)?;
        }
        file.sync_all()?;
        fs::rename(&temporary.path, &self.path)?;
        temporary.keep();
        self.lock.sync()?;
        Ok(loose)
    }

    /// The system's words for a new file speak of the folder, where a person thinks of the old file.
    fn explain_unwritable(&self, error: io::Error) -> io::Error {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        if !matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) {
            return error;
        }
        let folder = self.folder.display();
        let words = format!(
            "{error}: a new file takes its place, so that this user must be able to write to the folder \
             {folder}"
        );
        io::Error::new(error.kind(), words)
    }

    /// Removes the file.
    ///
    /// # Errors
    /// The system's.
    pub fn unlink(&self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.lock.sync()
    }
}

/// The folder, free of links, and the name in it that `path` comes to.
fn resolve_target(path: &Path) -> io::Result<(PathBuf, OsString)> {
    let mut path = path.to_owned();
    for _ in 0..MAX_SYMLINKS {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if metadata_if_exists(&path)?.is_some_and(|meta| meta.is_symlink()) {
            path = folder.join(fs::read_link(&path)?);
            continue;
        }
        let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
        return Ok((folder.canonicalize()?, name.to_owned()));
    }
    Err(io::Error::other("it is a symbolic link without an end"))
}

fn metadata_if_exists(path: &Path) -> io::Result<Option<Metadata>> {
    match path.symlink_metadata() {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives the new file what the old one has, before its first byte. The mode that was too loose to be given.
#[cfg(unix)]
fn copy_permissions(
    temporary: &File,
    _: &Path,
    old: &Metadata,
    mode_mask: u32,
) -> io::Result<Option<u32>> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let now = temporary.metadata()?;
    if (now.uid(), now.gid()) != (old.uid(), old.gid()) {
        fchown(temporary, Some(old.uid()), Some(old.gid())).map_err(|error| {
            let message = format!(
                "it belongs to user {} and group {}, which only root can give a file to ({error})",
                old.uid(),
                old.gid()
            );
            io::Error::new(error.kind(), message)
        })?;
    }
    let mode = old.mode() & 0o7777;
    temporary.set_permissions(fs::Permissions::from_mode(mode & mode_mask))?;
    Ok((mode & !mode_mask != 0).then_some(mode))
}

/// The list of rights as it is: what is too wide in it is for those to say who read the file.
#[cfg(windows)]
fn copy_permissions(
    temporary: &File,
    path: &Path,
    _: &Metadata,
    _: u32,
) -> io::Result<Option<u32>> {
    use super::acl::{read_descriptor, set_descriptor};
    set_descriptor(temporary, &read_descriptor(&File::open(path)?)?)?;
    Ok(None)
}

/// A new file, which is removed on drop unless it was kept.
struct TemporaryFile {
    path: PathBuf,
    file: File,
}

impl TemporaryFile {
    fn create(path: PathBuf) -> io::Result<Self> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = super::file::create_private(&path)?;
        Ok(Self { path, file })
    }

    fn keep(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // Whatever kept it from being written may keep it from being removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_is_its_owner_s_alone_and_an_old_one_keeps_its_mode_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("psk.txt");
        let edit = FileEdit::begin(&path).unwrap();
        assert!(!edit.exists().unwrap());
        edit.replace(&[b"one", b"\n"], 0o640).unwrap();
        drop(edit);
        assert_eq!(mode(&path), 0o600);
        for (before, after) in [(0o640, 0o640), (0o400, 0o400), (0o664, 0o640), (0o4755, 0o640)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            let loose = FileEdit::begin(&path).unwrap().replace(&[b"two"], 0o640).unwrap();
            assert_eq!(mode(&path), after, "{before:o}");
            assert_eq!(loose, (before != after).then_some(before));
        }
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["psk.txt"], "nothing else is left");
    }

    #[test]
    fn owner_and_group_stay_what_they_were() {
        // Only root can give a file away; anybody else's files are all his own.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("psk.txt");
        fs::write(&path, "old").unwrap();
        let given = std::os::unix::fs::chown(&path, Some(12_345), Some(23_456)).is_ok();
        let before = path.metadata().unwrap();
        assert_eq!(before.uid() == 12_345, given);
        FileEdit::begin(&path).unwrap().replace(&[b"new"], 0o777).unwrap();
        let after = path.metadata().unwrap();
        assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
        assert_ne!(after.ino(), before.ino(), "it is another file");
    }

    #[test]
    fn a_link_stays_a_link_and_what_it_leads_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (there, here) = (folder.path().join("there"), folder.path().join("here"));
        fs::create_dir(&there).unwrap();
        fs::create_dir(&here).unwrap();
        symlink("../there/step", here.join("psk.txt")).unwrap();
        symlink("psk.txt", there.join("step")).unwrap();
        for text in ["it is not there yet", "and now it is"] {
            FileEdit::begin(&here.join("psk.txt"))
                .unwrap()
                .replace(&[text.as_bytes()], 0o640)
                .unwrap();
            assert_eq!(fs::read_to_string(there.join("psk.txt")).unwrap(), text);
            assert!(here.join("psk.txt").is_symlink() && there.join("step").is_symlink());
            assert_eq!(names(&here), ["psk.txt"]);
        }
        symlink("loop", here.join("loop")).unwrap();
        assert!(FileEdit::begin(&here.join("loop")).is_err());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("psk.txt");
        fs::write(&path, "old").unwrap();
        let edit = FileEdit::begin(&path).unwrap();
        // Something in its place between the writing and the move: a rename over a folder fails.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(edit.replace(&[b"new"], 0o640).is_err());
        assert_eq!(names(folder.path()), ["psk.txt"]);
        assert!(FileEdit::begin(&path).unwrap_err().to_string().contains("folder"));
    }

    #[test]
    fn what_a_killed_editor_left_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("psk.txt");
        fs::write(&path, "old").unwrap();
        fs::write(folder.path().join(TEMPORARY_NAME), "half of the n").unwrap();
        FileEdit::begin(&path).unwrap().replace(&[b"new"], 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["psk.txt"]);
    }
}
