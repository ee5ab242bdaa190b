//! What Linux allows a user of inotify, and how much of it is used up.

use super::proc;

/// Limits and use of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InotifyUsage {
    /// Instances that all of the user's processes may have together.
    pub max_instances: u64,
    /// Watches that all of the user's processes may have together.
    pub max_watches: u64,
    /// Instances that were found; processes that hide their descriptors are not counted.
    pub instances: u64,
    /// Watches that were found.
    pub watches: u64,
}

/// Looks at every process of a user. `None` on a kernel without inotify.
pub fn read_user_usage(user: u32) -> Option<InotifyUsage> {
    let limit = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        text.trim().parse().ok()
    };
    let (max_instances, max_watches) = (limit("max_user_instances")?, limit("max_user_watches")?);
    let mut seen = InotifyUsage { max_instances, max_watches, instances: 0, watches: 0 };
    for pid in proc::process_ids().filter(|pid| proc::effective_user(*pid) == Some(user)) {
        for (number, to) in proc::open_descriptors(pid) {
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
