//! The keys of a Beremiz project as the IDE keeps them: `psk/ID.secret` holds `ID:secret` without a line
//! feed, and `psk/management.json` names and addresses. Newer versions keep `own/default.psk` in a keystore
//! beside all projects.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::problem::{Gravity, Problem};
use crate::sys::file::open_regular;

/// The folder of keys in a project.
pub const KEY_FOLDER: &str = "psk";
/// What the IDE knows of its keys.
pub const MANAGEMENT: &str = "management.json";
/// The ending of a key file.
pub const ENDING: &str = "secret";
/// The IDE's own key in a keystore.
const KEYSTORE_KEY: &str = "own/default.psk";

/// Where the keys of a project are: in its folder `psk`; or the folder itself, if it is that or what the
/// IDE's export was unpacked into; or, of a keystore, the IDE's own key.
pub fn key_path(project: &Path) -> PathBuf {
    let folder = project.join(KEY_FOLDER);
    let own = project.join(KEYSTORE_KEY);
    match () {
        () if folder.is_dir() => folder,
        () if own.is_file() => own,
        () if has_keys(project) => project.to_owned(),
        () => folder,
    }
}

fn has_keys(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| is_key_file(&entry.path()))
}

/// Whether the IDE takes a file for a key by its name.
pub fn is_key_file(file: &Path) -> bool {
    let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && file.extension().is_some_and(|ending| ending == ENDING)
}

/// The key files among those of a project's folder. The IDE writes other files as it likes, and reads none of
/// them as a key.
pub(super) fn select(
    folder: &Path,
    mut files: Vec<PathBuf>,
    problems: &mut Vec<Problem>,
) -> Vec<PathBuf> {
    let nameless = folder.join(format!(".{ENDING}"));
    if files.contains(&nameless) {
        let message = format!(
            "{} is passed over: the IDE writes it for a PLC without a key",
            nameless.display()
        );
        let found = Problem::new(Gravity::Remarks, "passed-over", &nameless, message);
        problems.push(found.help("it may stay"));
    }
    files.retain(|file| is_key_file(file));
    let management = folder.join(MANAGEMENT);
    if let Ok(text) = read_list(&management)
        && serde_json::from_slice::<Vec<Vec<serde_json::Value>>>(&text).is_err()
    {
        let message = format!("{} is not the list that the IDE writes", management.display());
        let help =
            "the keys beside it are read all the same; the IDE writes it anew when it saves a key";
        let found = Problem::new(Gravity::Warns, "management-json", &management, message);
        problems.push(found.help(help));
    }
    files
}

/// The list, as far as it may reach: a pipe of that name must not be waited for.
fn read_list(file: &Path) -> io::Result<Vec<u8>> {
    const MAX_LIST_SIZE: u64 = 1 << 20;
    let mut text = Vec::new();
    open_regular(file)?.0.take(MAX_LIST_SIZE).read_to_end(&mut text)?;
    Ok(text)
}

/// What is said of a file that has no key, if it has none: it lets nobody in.
pub(super) fn without_key(text: &[u8], file: &Path) -> Option<Problem> {
    let trimmed = text.trim_ascii();
    let (gravity, message) = match trimmed {
        b":" => (Gravity::Remarks, "the IDE wrote it for a PLC without a key"),
        _ if !trimmed.contains(&b':') => (Gravity::Warns, "it has no colon, and so no key"),
        _ => return None,
    };
    let message = format!("{} is passed over: {message}", file.display());
    let help = "delete it, or connect the IDE once more to a PLC that has a key";
    Some(Problem::new(gravity, "empty-secret", file, message).help(help))
}
