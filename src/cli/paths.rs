//! Where things are when nobody says where.

use std::path::{Path, PathBuf};

/// The configuration file of a machine.
pub(super) fn default_config() -> PathBuf {
    if cfg!(windows) {
        let data = std::env::var_os("ProgramData").filter(|data| !data.is_empty());
        let data = data.map_or_else(|| PathBuf::from(r"C:\ProgramData"), PathBuf::from);
        data.join("pskgate").join("pskgate.toml")
    } else {
        PathBuf::from("/etc/pskgate/pskgate.toml")
    }
}

/// The configuration that a command takes: the one that was named, or the one that [`find_config`] finds,
/// which is reported on standard error.
pub(super) fn config_or_default(named: Option<&Path>) -> PathBuf {
    named.map(Path::to_owned).unwrap_or_else(|| {
        let (path, words) = find_config();
        if let Some(words) = words {
            super::print_error(&format!("pskgate: {words}"));
        }
        path
    })
}

/// The configuration to take when nobody named one, and what to say of the choice: the machine's, or, where
/// that does not exist, pskgate.toml of the current folder, if only root or this user can write to both.
fn find_config() -> (PathBuf, Option<String>) {
    let (default, local) = (default_config(), Path::new(LOCAL));
    // One that this user may not look at is there all the same.
    let is_absent =
        default.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if !is_absent || local.symlink_metadata().is_err() {
        return (default, None);
    }
    match distrust(local) {
        None => {
            let words = format!("taking ./{LOCAL}, because there is no {}", default.display());
            (local.to_owned(), Some(words))
        }
        Some(why) => {
            let words = format!(
                "./{LOCAL} is not taken: {why}; to use it all the same, add {LOCAL} to the command"
            );
            (default, Some(words))
        }
    }
}

/// What is taken in the current folder.
const LOCAL: &str = "pskgate.toml";

/// Why a file in the current folder may be another user's doing.
#[cfg(unix)]
fn distrust(file: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::geteuid().as_raw();
    [(file, "the file"), (Path::new("."), "this folder")].into_iter().find_map(|(path, what)| {
        let meta = match path.metadata() {
            Ok(meta) => meta,
            Err(error) => return Some(format!("{what} cannot be looked at: {error}")),
        };
        let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
        if owner != 0 && owner != own {
            return Some(format!("{what} belongs to user {owner}"));
        }
        let is_open = mode & 0o022 != 0;
        is_open.then(|| format!("others can write to {what} (mode {mode:04o})"))
    })
}

/// Whoever can put a file into the folder owns that file.
#[cfg(windows)]
fn distrust(file: &Path) -> Option<String> {
    use crate::sys::acl::{
        BroadAccess, current_user_sid, find_foreign_owner, find_loose_access, read_descriptor,
    };
    let look = || {
        let file = std::fs::File::open(file)?;
        let (rights, user) = (read_descriptor(&file)?, current_user_sid()?);
        let owner = find_foreign_owner(&rights, &user).map_err(std::io::Error::other)?;
        let open = find_loose_access(&rights).map_err(std::io::Error::other)?;
        let open = open.filter(|loose| matches!(loose.access, BroadAccess::Change));
        let words = owner.map(|owner| format!("it belongs to {owner}"));
        Ok::<_, std::io::Error>(
            words.or(open.map(|loose| format!("{} can change it", loose.group))),
        )
    };
    look().unwrap_or_else(|error| Some(format!("it cannot be looked at: {error}")))
}
