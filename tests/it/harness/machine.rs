//! Where figures are taken: nothing that would name the machine or whose it is.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The version of the kernel, without what follows it and says who built it.
pub fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().split('-').next().unwrap_or_default().to_owned()
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// Today in UTC.
pub fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// The first line with this word that a program says of itself; empty where there is no such program.
pub fn version_line(program: &str, argument: &str, word: &str) -> String {
    let done = Command::new(program).arg(argument).output().ok();
    let text = done.map(|done| [done.stdout, done.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().find(|line| line.contains(word)).unwrap_or_default().trim().to_owned()
}

/// The files of results in a folder, in order.
pub fn results_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .collect();
    files.sort();
    files
}
