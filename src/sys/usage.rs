//! Memory, processor time and descriptors of this process.

/// From Linux' /proc; `None` on other systems, and in a root directory without /proc.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessUsage {
    /// Memory in RAM, in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Processor time in kernel and program, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// The limit of open descriptors; `None` without a limit.
    pub descriptor_limit: Option<u64>,
}

/// What this process uses now.
#[cfg(target_os = "linux")]
pub fn read_usage() -> ProcessUsage {
    use rustix::process::{Resource, getrlimit};
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let stat = ProcessStat::parse(&stat);
    let page = rustix::param::page_size() as u64;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    // The one that reads the directory is not counted.
    let descriptors = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    ProcessUsage {
        resident_bytes: stat.map(|stat| stat.resident.saturating_mul(page)),
        virtual_bytes: stat.map(|stat| stat.virtual_memory),
        cpu_seconds: stat.map(|stat| stat.ticks as f64 / ticks),
        descriptors: descriptors.map(|count| count.saturating_sub(1) as u64),
        descriptor_limit: getrlimit(Resource::Nofile).current,
    }
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn read_usage() -> ProcessUsage {
    ProcessUsage::default()
}

/// Of proc_pid_stat(5): times in ticks, resident memory in pages.
#[cfg(target_os = "linux")]
#[derive(Debug, Clone, Copy, PartialEq)]
struct ProcessStat {
    ticks: u64,
    virtual_memory: u64,
    resident: u64,
}

#[cfg(target_os = "linux")]
impl ProcessStat {
    fn parse(line: &str) -> Option<Self> {
        // The program's name may hold blanks and brackets itself; field 3 comes after the last one.
        let (_, fields) = line.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: field(14)? + field(15)?,
            virtual_memory: field(23)?,
            resident: field(24)?,
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_moves_no_field() {
        let line = "1 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0 20 0 3 0 99 4096 17 18446744073709551615";
        let wanted = ProcessStat { ticks: 100, virtual_memory: 4096, resident: 17 };
        assert_eq!(ProcessStat::parse(line), Some(wanted));
        assert_eq!(ProcessStat::parse("1 (a) S 1"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = read_usage();
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{usage:?}");
        assert!(usage.virtual_bytes > usage.resident_bytes, "{usage:?}");
        assert!(usage.descriptors.is_some_and(|count| count >= 3), "{usage:?}");
        assert!(usage.descriptor_limit >= usage.descriptors, "{usage:?}");
        assert!(usage.cpu_seconds.is_some(), "{usage:?}");
    }
}
