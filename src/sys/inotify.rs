//! What Linux allows a user of inotify, and how much of it is used up.

use super::proc;

/// Limits and use of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inotify {
    /// Instances that all of the user's processes may have together.
    pub max_instances: u64,
    /// Watches likewise.
    pub max_watches: u64,
    /// Instances that were seen; more where processes hide theirs.
    pub instances: u64,
    /// Watches that were seen.
    pub watches: u64,
}

/// Looks at every process of a user. `None` on a kernel without inotify.
pub fn of_user(user: u32) -> Option<Inotify> {
    let limit = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        text.trim().parse().ok()
    };
    let (max_instances, max_watches) = (limit("max_user_instances")?, limit("max_user_watches")?);
    let mut seen = Inotify { max_instances, max_watches, instances: 0, watches: 0 };
    for pid in proc::all().filter(|pid| proc::user(*pid) == Some(user)) {
        for (number, to) in proc::descriptors(pid) {
            if to.as_os_str() != "anon_inode:inotify" {
                continue;
            }
            seen.instances += 1;
            let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"));
            let lines = info.unwrap_or_default();
            seen.watches +=
                lines.lines().filter(|line| line.starts_with("inotify ")).count() as u64;
        }
    }
    Some(seen)
}
