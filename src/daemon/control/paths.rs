//! Where the control socket of a program is, for the program itself and for whoever looks for it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What a socket is called after the file that its program runs.
pub fn name(file: &Path) -> OsString {
    file.file_stem().unwrap_or(OsStr::new("pskgate")).to_owned()
}

/// Where a program that is called so listens, unless its file says otherwise.
///
/// # Errors
/// Why there is no such place, in words.
#[cfg(unix)]
pub fn default_path(name: &OsStr) -> Result<PathBuf, String> {
    let folder = match (named("RUNTIME_DIRECTORY"), runtime_folder()) {
        (Some(folder), _) => folder,
        (None, _) if rustix::process::geteuid().is_root() => SYSTEM.into(),
        (None, Some(folder)) => folder,
        (None, None) => {
            return Err("neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR names a folder".into());
        }
    };
    Ok(folder.join(file_name(name)))
}

/// Every place where a program that is called so may listen: who asks need not be who runs it.
#[cfg(unix)]
pub fn candidates(name: &OsStr) -> Vec<PathBuf> {
    folders().into_iter().map(|folder| folder.join(file_name(name))).collect()
}

/// Every socket that is in those places, in the order of names; each may be a dead program's.
#[cfg(unix)]
pub fn all() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let mut sockets: Vec<_> = paths.filter(|path| is_ours(path)).collect();
        sockets.sort();
        found.extend(sockets);
    }
    found
}

/// Where sockets are looked for, in words.
#[cfg(unix)]
pub fn places() -> Vec<String> {
    folders().iter().map(|folder| folder.join("*.sock").display().to_string()).collect()
}

/// Where root's programs have theirs.
#[cfg(unix)]
const SYSTEM: &str = "/run/pskgate";

#[cfg(unix)]
fn folders() -> Vec<PathBuf> {
    // Whoever is told a folder, as by systemd, has no business in the others.
    match named("RUNTIME_DIRECTORY") {
        Some(folder) => vec![folder],
        None => [SYSTEM.into()].into_iter().chain(runtime_folder()).collect(),
    }
}

/// A folder of a variable's, which systemd may fill with several, parted by colons. Relative ones
/// count for nothing (XDG Base Directory Specification).
#[cfg(unix)]
fn named(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable)?;
    std::env::split_paths(&value).next().filter(|path| path.is_absolute())
}

#[cfg(unix)]
fn runtime_folder() -> Option<PathBuf> {
    named("XDG_RUNTIME_DIR").map(|folder| folder.join("pskgate"))
}

#[cfg(unix)]
fn file_name(name: &OsStr) -> OsString {
    let mut file = name.to_owned();
    file.push(".sock");
    file
}

#[cfg(unix)]
fn is_ours(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.extension() == Some(OsStr::new("sock"))
        && std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

/// Where Windows has its pipes.
#[cfg(windows)]
const PIPES: &str = r"\\.\pipe\";

/// Where a program that is called so listens, unless its file says otherwise.
///
/// # Errors
/// None here.
#[cfg(windows)]
pub fn default_path(name: &OsStr) -> Result<PathBuf, String> {
    let mut path = OsString::from(PIPES);
    path.push("pskgate-");
    path.push(name);
    Ok(path.into())
}

/// Every place where a program that is called so may listen.
#[cfg(windows)]
pub fn candidates(name: &OsStr) -> Vec<PathBuf> {
    default_path(name).into_iter().collect()
}

/// Every pipe that is called like ours.
#[cfg(windows)]
pub fn all() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(PIPES) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok().map(|entry| entry.file_name()));
    let ours = names.filter(|name| name.to_string_lossy().starts_with("pskgate-"));
    ours.map(|name| Path::new(PIPES).join(name)).collect()
}

/// Where pipes are looked for, in words.
#[cfg(windows)]
pub fn places() -> Vec<String> {
    vec![format!("{PIPES}pskgate-*")]
}
