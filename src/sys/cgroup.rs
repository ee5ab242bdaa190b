//! How much memory this process may have: the machine's, or less where a container or a service manager
//! says so.

/// Assumed where the system does not say: the memory of a small board.
const FALLBACK_MEMORY: u64 = 64 << 20;

/// The memory that this process may use, in bytes.
#[cfg(target_os = "linux")]
pub fn memory_limit() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    lowest_limit(read)
}

/// Not read on other systems; 1 GiB is assumed.
#[cfg(not(target_os = "linux"))]
pub fn memory_limit() -> u64 {
    FALLBACK_MEMORY << 4
}

/// The least of the machine's memory and the limits of the groups that the process is in.
#[cfg(target_os = "linux")]
fn lowest_limit(read: impl Fn(&str) -> Option<String>) -> u64 {
    let machine =
        read("/proc/meminfo").and_then(|text| parse_total_memory(&text)).unwrap_or(FALLBACK_MEMORY);
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    // A number without a limit is larger than any memory, or a word.
    limit_files(&groups)
        .into_iter()
        .filter_map(|path| read(&path)?.trim().parse().ok())
        .fold(machine, u64::min)
}

/// `MemTotal` of /proc/meminfo, which is in kB.
#[cfg(target_os = "linux")]
fn parse_total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The files with limits: of each group from the process's own up to the root, in either version. Inside a
/// container the paths may be those outside, and only the root is there.
#[cfg(target_os = "linux")]
fn limit_files(groups: &str) -> Vec<String> {
    let mut all = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            some if some.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            all.push(format!("{root}{path}/{file}"));
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => break,
            }
        }
    }
    all
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemFree:  5 kB\nMemTotal:        2048 kB\n";

    fn limit_of(groups: &str, limits: &[(&str, &str)]) -> u64 {
        lowest_limit(|path| match path {
            "/proc/meminfo" => Some(MEMINFO.to_owned()),
            "/proc/self/cgroup" => Some(groups.to_owned()),
            _ => limits.iter().find(|(at, _)| *at == path).map(|(_, text)| (*text).to_owned()),
        })
    }

    #[test]
    fn the_least_limit_of_all_groups_above_counts_in_either_version() {
        const OWN: &str = "/sys/fs/cgroup/system.slice/pskgate.service/memory.max";
        const SLICE: &str = "/sys/fs/cgroup/system.slice/memory.max";
        let groups = "0::/system.slice/pskgate.service\n";
        let machine = 2048 * 1024;
        assert_eq!(limit_of(groups, &[]), machine);
        assert_eq!(limit_of(groups, &[(OWN, "max\n")]), machine);
        assert_eq!(limit_of(groups, &[(OWN, "70000\n"), (SLICE, "90000\n")]), 70000);
        assert_eq!(limit_of(groups, &[(OWN, "max\n"), (SLICE, "90000\n")]), 90000);
        let old = "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n";
        let inside = [("/sys/fs/cgroup/memory/memory.limit_in_bytes", "80000\n")];
        assert_eq!(limit_of(old, &inside), 80000, "a container sees its own as the root");
        assert_eq!(limit_of(old, &[("/sys/fs/cgroup/memory.max", "60000")]), 60000);
        let unlimited = [("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")];
        assert_eq!(limit_of(old, &unlimited), machine);
    }

    #[test]
    fn a_system_that_tells_nothing_is_taken_for_a_small_one() {
        assert_eq!(lowest_limit(|_| None), FALLBACK_MEMORY);
    }

    #[test]
    fn this_machine_tells() {
        assert!(memory_limit() > 1 << 20);
    }
}
