//! Whether another user could read a file, told from modes: nobody has to become that user.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What keeps a user from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessObstacle {
    /// The file, or a folder above it.
    pub path: PathBuf,
    /// Whether it is a folder that may not be entered.
    pub is_folder: bool,
    /// Its mode, without the kind of file.
    pub mode: u32,
    /// Its owner.
    pub owner: u32,
}

/// The first thing that keeps a process of this user, in these groups and no other, from reading
/// `path`, be it a file or a folder. What lies above `root` does not count for who is locked up in it.
/// A list of rights beside the mode (acl(5)) is taken to be made for this user.
///
/// # Errors
/// Something of it is not there, or this process may not look.
pub fn find_obstacle(
    path: &Path,
    root: Option<&Path>,
    user: u32,
    groups: &[u32],
) -> io::Result<Option<AccessObstacle>> {
    const READ: u32 = 4;
    const ENTER: u32 = 1;
    let real = path.canonicalize()?;
    if user == 0 {
        return Ok(None);
    }
    let outside = |folder: &Path| {
        root.is_some_and(|root| !folder.starts_with(root) && root.starts_with(folder))
    };
    for way in [path, &real] {
        let mut folders: Vec<_> = way.ancestors().skip(1).collect();
        folders.retain(|folder| !folder.as_os_str().is_empty() && !outside(folder));
        for folder in folders.into_iter().rev() {
            if let Some(found) = find_missing_right(folder, ENTER, true, user, groups)? {
                return Ok(Some(found));
            }
        }
    }
    let is_folder = real.is_dir();
    let wanted = if is_folder { READ | ENTER } else { READ };
    find_missing_right(&real, wanted, is_folder, user, groups)
}

/// Whether a process of this user, in these groups and no other, may write to a file, or make it in its folder.
///
/// # Errors
/// Something above the folder is not there, or this process may not look.
pub fn may_write(path: &Path, user: u32, groups: &[u32]) -> io::Result<bool> {
    const WRITE: u32 = 2;
    const ENTER: u32 = 1;
    if user == 0 {
        return Ok(true);
    }
    let lacks = |path: &Path, wanted, is_folder| {
        find_missing_right(path, wanted, is_folder, user, groups).map(|found| found.is_some())
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Some(folder) = folder else { return Ok(true) };
    // A folder that is missing is made by nobody.
    if !folder.is_dir() {
        return Ok(false);
    }
    for above in folder.ancestors() {
        if lacks(above, ENTER, true)? {
            return Ok(false);
        }
    }
    match path.exists() {
        true => Ok(!lacks(path, WRITE, false)?),
        false => Ok(!lacks(folder, WRITE | ENTER, true)?),
    }
}

fn find_missing_right(
    path: &Path,
    wanted: u32,
    folder: bool,
    user: u32,
    groups: &[u32],
) -> io::Result<Option<AccessObstacle>> {
    let meta = path.metadata()?;
    let mode = meta.mode() & 0o7777;
    // The first that fits decides, also when a later one would allow more.
    let rights = match () {
        () if meta.uid() == user => mode >> 6,
        () if groups.contains(&meta.gid()) => mode >> 3,
        () => mode,
    };
    if rights & wanted == wanted || has_acl(path) {
        return Ok(None);
    }
    Ok(Some(AccessObstacle { path: path.to_owned(), is_folder: folder, mode, owner: meta.uid() }))
}

#[cfg(target_os = "linux")]
fn has_acl(path: &Path) -> bool {
    // With no room for it the call says how long the list is.
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut [0u8; 0]).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn has_acl(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn modes_of_the_file_and_of_every_folder_above_decide() {
        let base = tempfile::TempDir::new().unwrap();
        let (folder, file) = (base.path().join("keys"), base.path().join("keys/psk.txt"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&file, "").unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let meta = file.metadata().unwrap();
        let (owner, group) = (meta.uid(), meta.gid());
        let stranger =
            |path: &Path| find_obstacle(path, Some(base.path()), 4_000_000, &[4_000_000]).unwrap();
        set(base.path(), 0o755);
        set(&folder, 0o755);
        set(&file, 0o644);
        assert_eq!(stranger(&file), None);
        set(&file, 0o640);
        assert_eq!(
            stranger(&file).map(|found| (found.is_folder, found.mode)),
            Some((false, 0o640))
        );
        assert_eq!(find_obstacle(&file, Some(base.path()), 4_000_000, &[group]).unwrap(), None);
        set(&file, 0o644);
        set(&folder, 0o750);
        assert_eq!(
            stranger(&file).map(|found| (found.is_folder, found.path)),
            Some((true, folder))
        );
        assert!(
            may_write(&file, 0, &[]).unwrap() && !may_write(&file, 4_000_000, &[group]).unwrap()
        );
        let folder = base.path().join("keys");
        set(&folder, 0o777);
        set(&file, 0o620);
        assert!(may_write(&file, 4_000_000, &[4_000_000, group]).unwrap_or(true));
        assert!(!may_write(&folder.join("no/such"), owner.max(1), &[group]).unwrap());
        assert_eq!(find_obstacle(&file, None, 0, &[0]).unwrap(), None);
        assert!(find_obstacle(Path::new("/no/such/file"), None, owner.max(1), &[group]).is_err());
    }
}
