//! Folders of key files: which of their entries are key files, and who may put one there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::edit::LENIENT_RULES;
use super::problem::{KeyFileProblem, ProblemSeverity, json_file, unreadable_file};
use super::{KeyFileRules, KeyFileWriter, beremiz};

/// The kind of a folder's entry, by its name and the length of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FolderEntry {
    KeyFile,
    /// Left there by an editor, a package manager or another program.
    Ignored,
    /// Named as what cannot be a key file, although somebody may have meant it as one.
    Json,
}

/// The files that a `psk-secrets` path means: itself, or, of a folder, its regular files (after symlinks)
/// in C order, without those that other programs leave behind. What is passed over is remarked on; what
/// has the name of a JSON file, and a folder in which others may place files, is a problem.
pub(super) fn list_key_files(
    path: &Path,
    rules: KeyFileRules,
    problems: &mut Vec<KeyFileProblem>,
) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    #[cfg(unix)]
    check_folder_permissions(path, rules, problems);
    #[cfg(not(unix))]
    let _ = rules;
    let listed = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut files = match listed {
        Ok(files) => files,
        Err(error) => {
            problems.push(unreadable_file(path, &error));
            return Vec::new();
        }
    };
    files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    files.retain(|file| !file.is_dir());
    if rules.writer == KeyFileWriter::Ide {
        return beremiz::select_key_files(path, files, problems);
    }
    files.retain(|file| match classify(file) {
        FolderEntry::KeyFile => true,
        FolderEntry::Ignored => {
            problems.push(ignored_file_problem(file));
            false
        }
        FolderEntry::Json => {
            problems.push(json_file(file));
            false
        }
    });
    files
}

/// The key files that a path means, for those who look at the files themselves: what is wrong with the path is told
/// by who reads the keys.
pub fn list_key_files_leniently(path: &Path, writer: KeyFileWriter) -> Vec<PathBuf> {
    list_key_files(path, KeyFileRules { writer, ..LENIENT_RULES }, &mut Vec::new())
}

fn classify(file: &Path) -> FolderEntry {
    let name = file.file_name().unwrap_or_default().as_encoded_bytes();
    let is_empty = || fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() == 0);
    match () {
        () if is_left_behind(name) => FolderEntry::Ignored,
        // vim tries with such a file whether it may write to a folder.
        () if name.iter().all(u8::is_ascii_digit) && is_empty() => FolderEntry::Ignored,
        () if has_ending(name, b".json") => FolderEntry::Json,
        () => FolderEntry::KeyFile,
    }
}

/// Names of hidden files, editors' copies, what package managers put aside, texts for people, and the
/// list that the Beremiz IDE keeps beside its keys.
fn is_left_behind(name: &[u8]) -> bool {
    const IGNORED_ENDINGS: [&[u8]; 7] =
        [b"~", b".bak", b".orig", b".rej", b".save", b".rpmnew", b".rpmsave"];
    let is_swap = name.len() > 4 && name[..name.len() - 1].ends_with(b".sw");
    name.starts_with(b".")
        || name.len() > 1 && name.starts_with(b"#") && name.ends_with(b"#")
        || IGNORED_ENDINGS.iter().any(|ending| name.ends_with(ending))
        || is_swap
        || name.windows(6).any(|part| part == b".dpkg-")
        || name.starts_with(b"README")
        || name.ends_with(b".md")
        || name == b"management.json"
}

fn has_ending(name: &[u8], ending: &[u8]) -> bool {
    let start = name.len().saturating_sub(ending.len());
    name[start..].eq_ignore_ascii_case(ending)
}

fn ignored_file_problem(file: &Path) -> KeyFileProblem {
    let message = format!("{} is passed over: by its name it is no key file", file.display());
    KeyFileProblem::new(ProblemSeverity::Note, "passed-over", file, message)
        .help("give it another name if its keys are meant; else it may stay")
}

/// Who may place a file in the folder lets in whom they like, and by removing one shuts out others. On a
/// file system that is mounted read-only nobody may: Kubernetes mounts secrets so, with mode 1777.
#[cfg(unix)]
fn check_folder_permissions(path: &Path, rules: KeyFileRules, problems: &mut Vec<KeyFileProblem>) {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::metadata(path) else { return };
    let mode = meta.mode() & 0o7777;
    if mode & 0o022 != 0 && !is_mounted_read_only(path) {
        let others = mode & 0o002 != 0;
        let who = if others { "every user of this machine" } else { "its group" };
        let severity = if others { rules.permissions.severity() } else { ProblemSeverity::Warning };
        let message = format!(
            "{who} may place and remove files in the folder of keys {} (mode {mode:04o})",
            path.display()
        );
        let help = format!("chmod {} {}", if others { "o-w" } else { "g-w" }, path.display());
        problems.push(KeyFileProblem::new(severity, "loose-folder", path, message).help(help));
    }
    let owner = meta.uid();
    let ours = rustix::process::geteuid().as_raw();
    if owner != 0
        && owner != ours
        && Some(owner) != rules.also_owned_by
        && !is_mounted_read_only(path)
    {
        let message = format!("the folder of keys {} belongs to user {owner}", path.display());
        let help = "it should belong to root or to the user that pskgate runs as";
        let severity = rules.permissions.severity();
        problems.push(KeyFileProblem::new(severity, "foreign-owner", path, message).help(help));
    }
}

#[cfg(unix)]
fn is_mounted_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path)
        .is_ok_and(|system| system.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}
