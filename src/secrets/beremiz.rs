//! The keys of a Beremiz project as the IDE keeps them: `psk/ID.secret` holds `ID:secret` without a line
//! feed, and `psk/management.json` names and addresses. Newer versions keep `own/default.psk` in a keystore
//! beside all projects.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::problem::{KeyFileProblem, ProblemSeverity};
use crate::sys::file::open_regular;

/// The folder of keys in a project.
pub const KEY_FOLDER: &str = "psk";
/// The IDE's list of keys, names and addresses.
pub const MANAGEMENT_FILE: &str = "management.json";
/// The ending of a key file.
pub const KEY_FILE_ENDING: &str = "secret";
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
    !hidden && file.extension().is_some_and(|ending| ending == KEY_FILE_ENDING)
}

/// The key files among those of a project's folder. The IDE writes other files as it likes, and reads none of
/// them as a key.
pub(super) fn select_key_files(
    folder: &Path,
    mut files: Vec<PathBuf>,
    problems: &mut Vec<KeyFileProblem>,
) -> Vec<PathBuf> {
    let nameless = folder.join(format!(".{KEY_FILE_ENDING}"));
    if files.contains(&nameless) {
        let message = format!(
            "{} is passed over: the IDE writes it for a PLC without a key",
            nameless.display()
        );
        let found = KeyFileProblem::new(ProblemSeverity::Note, "passed-over", &nameless, message);
        problems.push(found.help("it may stay"));
    }
    files.retain(|file| is_key_file(file));
    let management = folder.join(MANAGEMENT_FILE);
    if let Ok(text) = read_management_file(&management)
        && serde_json::from_slice::<Vec<Vec<serde_json::Value>>>(&text).is_err()
    {
        let message = format!("{} is not the list that the IDE writes", management.display());
        let help =
            "the keys beside it are read all the same; the IDE writes it anew when it saves a key";
        let found =
            KeyFileProblem::new(ProblemSeverity::Warning, "management-json", &management, message);
        problems.push(found.help(help));
    }
    files
}

/// Reads the list, up to a size limit; a pipe of that name is not waited for.
fn read_management_file(file: &Path) -> io::Result<Vec<u8>> {
    const MAX_LIST_SIZE: u64 = 1 << 20;
    let mut text = Vec::new();
    open_regular(file)?.0.take(MAX_LIST_SIZE).read_to_end(&mut text)?;
    Ok(text)
}

/// What is said of a file that has no key, if it has none: it lets nobody in.
pub(super) fn keyless_file_problem(text: &[u8], file: &Path) -> Option<KeyFileProblem> {
    let trimmed = text.trim_ascii();
    let (severity, message) = match trimmed {
        b":" => (ProblemSeverity::Note, "the IDE wrote it for a PLC without a key"),
        _ if !trimmed.contains(&b':') => {
            (ProblemSeverity::Warning, "it has no colon, and so no key")
        }
        _ => return None,
    };
    let message = format!("{} is passed over: {message}", file.display());
    let help = "delete it, or connect the IDE once more to a PLC that has a key";
    Some(KeyFileProblem::new(severity, "empty-secret", file, message).help(help))
}
