//! A limit of memory for one process and what it starts: a control group of its own below the one that
//! this process is in.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{WAIT_TIMEOUT, until};

/// It goes when dropped, which must be after the process in it has gone.
pub struct MemoryLimit {
    folder: PathBuf,
    /// The names of its files: the limit, the most memory used, and the count of processes killed.
    peak: &'static str,
    events: &'static str,
}

/// The folder of the controller of memory: of version 1, or of version 2.
fn parent() -> Option<(PathBuf, bool)> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path_after =
        |prefix: &str| own.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(prefix));
    let first = Path::new("/sys/fs/cgroup/memory");
    if let Some(path) = path_after("memory:/").filter(|_| first.exists()) {
        return Some((first.join(path), true));
    }
    // Processes and limits do not go together in one group, except at the root.
    let second = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(second.join("cgroup.subtree_control")).ok()?;
    controllers.split_whitespace().any(|one| one == "memory").then(|| (second.to_owned(), false))
}

impl MemoryLimit {
    /// Nothing where the system offers no control group with a limit of memory.
    pub fn new(bytes: u64) -> Option<Self> {
        let (parent, is_first_version) = parent()?;
        let folder = parent.join(format!("pskgate-faults-{}", std::process::id()));
        let (limit, peak, events) = if is_first_version {
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control")
        } else {
            ("memory.max", "memory.peak", "memory.events")
        };
        fs::create_dir(&folder).ok()?;
        let made = Self { folder, peak, events };
        fs::write(made.folder.join(limit), bytes.to_string()).ok()?;
        Some(made)
    }

    /// The line of a shell that moves it, and what it starts, under the limit.
    pub fn shell(&self) -> String {
        format!("echo $$ > {}", self.folder.join("cgroup.procs").display())
    }

    /// The most memory that was in use, in bytes, where the kernel tells.
    pub fn peak(&self) -> Option<f64> {
        fs::read_to_string(self.folder.join(self.peak)).ok()?.trim().parse().ok()
    }

    /// How many processes were killed for want of memory.
    pub fn killed(&self) -> Option<f64> {
        let text = fs::read_to_string(self.folder.join(self.events)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        until("the group's processes to be gone", WAIT_TIMEOUT, || {
            fs::remove_dir(&self.folder).ok()
        });
    }
}
