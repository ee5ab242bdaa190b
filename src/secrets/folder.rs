//! Folders of key files: which of their entries are key files, and who may put one there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::edit::LENIENT;
use super::problem::{Gravity, Problem, no_key_file, unreadable};
use super::{Rules, Writer, beremiz};

/// What an entry of a folder is, by its name and the length of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    KeyFile,
    /// Left there by an editor, a package manager or another program.
    PassedOver,
    /// Named as what cannot be a key file, although somebody may have meant it as one.
    Json,
}

/// The files that a `psk-secrets` path means: itself, or, of a folder, its regular files (after symlinks)
/// in C order, without those that other programs leave behind. What is passed over is remarked on; what
/// has the name of a JSON file, and a folder in which others may place files, is a problem.
pub(super) fn files_of(path: &Path, rules: Rules, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    #[cfg(unix)]
    permissions(path, rules, problems);
    #[cfg(not(unix))]
    let _ = rules;
    let listed = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut files = match listed {
        Ok(files) => files,
        Err(error) => {
            problems.push(unreadable(path, &error));
            return Vec::new();
        }
    };
    files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    files.retain(|file| !file.is_dir());
    if rules.writer == Writer::Ide {
        return beremiz::select(path, files, problems);
    }
    files.retain(|file| match judge(file) {
        Entry::KeyFile => true,
        Entry::PassedOver => {
            problems.push(passed_over(file));
            false
        }
        Entry::Json => {
            problems.push(no_key_file(file));
            false
        }
    });
    files
}

/// The key files that a path means, for those who look at the files themselves: what is wrong with the path is told
/// by who reads the keys.
pub fn key_files(path: &Path, writer: Writer) -> Vec<PathBuf> {
    files_of(path, Rules { writer, ..LENIENT }, &mut Vec::new())
}

fn judge(file: &Path) -> Entry {
    let name = file.file_name().unwrap_or_default().as_encoded_bytes();
    let is_empty = || fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() == 0);
    match () {
        () if is_left_behind(name) => Entry::PassedOver,
        // vim tries with such a file whether it may write to a folder.
        () if name.iter().all(u8::is_ascii_digit) && is_empty() => Entry::PassedOver,
        () if has_ending(name, b".json") => Entry::Json,
        () => Entry::KeyFile,
    }
}

/// Names of hidden files, editors' copies, what package managers put aside, texts for people, and the
/// list that the Beremiz IDE keeps beside its keys.
fn is_left_behind(name: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 7] =
        [b"~", b".bak", b".orig", b".rej", b".save", b".rpmnew", b".rpmsave"];
    let is_swap = name.len() > 4 && name[..name.len() - 1].ends_with(b".sw");
    name.starts_with(b".")
        || name.len() > 1 && name.starts_with(b"#") && name.ends_with(b"#")
        || ENDINGS.iter().any(|ending| name.ends_with(ending))
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

fn passed_over(file: &Path) -> Problem {
    let message = format!("{} is passed over: by its name it is no key file", file.display());
    Problem::new(Gravity::Remarks, "passed-over", file, message)
        .help("give it another name if its keys are meant; else it may stay")
}

/// Who may place a file in the folder lets in whom they like, and by removing one shuts out others. On a
/// file system that is mounted read-only nobody may: Kubernetes mounts secrets so, with mode 1777.
#[cfg(unix)]
fn permissions(path: &Path, rules: Rules, problems: &mut Vec<Problem>) {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::metadata(path) else { return };
    let mode = meta.mode() & 0o7777;
    if mode & 0o022 != 0 && !is_read_only(path) {
        let others = mode & 0o002 != 0;
        let who = if others { "every user of this machine" } else { "its group" };
        let gravity = if others { rules.permissions.gravity() } else { Gravity::Warns };
        let message = format!(
            "{who} may place and remove files in the folder of keys {} (mode {mode:04o})",
            path.display()
        );
        let help = format!("chmod {} {}", if others { "o-w" } else { "g-w" }, path.display());
        problems.push(Problem::new(gravity, "loose-folder", path, message).help(help));
    }
    let owner = meta.uid();
    let ours = rustix::process::geteuid().as_raw();
    if owner != 0 && owner != ours && Some(owner) != rules.owner && !is_read_only(path) {
        let message = format!("the folder of keys {} belongs to user {owner}", path.display());
        let help = "it should belong to root or to the user that pskgate runs as";
        let gravity = rules.permissions.gravity();
        problems.push(Problem::new(gravity, "foreign-owner", path, message).help(help));
    }
}

#[cfg(unix)]
fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path)
        .is_ok_and(|system| system.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}
