//! What this process uses of the machine.

/// What could be found out: Linux tells in /proc, unless the root directory changed to one without it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Memory in RAM, in bytes.
    pub resident: Option<u64>,
    /// Address space, in bytes.
    pub virtual_memory: Option<u64>,
    /// Processor time in kernel and program, in seconds.
    pub cpu: Option<f64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// The most descriptors that there may be; none without a limit.
    pub descriptor_limit: Option<u64>,
}

/// What this process uses now.
#[cfg(target_os = "linux")]
pub fn now() -> Usage {
    use rustix::process::{Resource, getrlimit};
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let stat = Stat::of(&stat);
    let page = rustix::param::page_size() as u64;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    // The one that reads the directory is not counted.
    let descriptors = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    Usage {
        resident: stat.map(|stat| stat.resident.saturating_mul(page)),
        virtual_memory: stat.map(|stat| stat.virtual_memory),
        cpu: stat.map(|stat| stat.ticks as f64 / ticks),
        descriptors: descriptors.map(|count| count.saturating_sub(1) as u64),
        descriptor_limit: getrlimit(Resource::Nofile).current,
    }
}

/// Nothing is known here.
#[cfg(not(target_os = "linux"))]
pub fn now() -> Usage {
    Usage::default()
}

/// Of proc_pid_stat(5): times in ticks, resident memory in pages.
#[cfg(target_os = "linux")]
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stat {
    ticks: u64,
    virtual_memory: u64,
    resident: u64,
}

#[cfg(target_os = "linux")]
impl Stat {
    fn of(line: &str) -> Option<Self> {
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
        let wanted = Stat { ticks: 100, virtual_memory: 4096, resident: 17 };
        assert_eq!(Stat::of(line), Some(wanted));
        assert_eq!(Stat::of("1 (a) S 1"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = now();
        assert!(usage.resident.is_some_and(|bytes| bytes > 100_000), "{usage:?}");
        assert!(usage.virtual_memory > usage.resident, "{usage:?}");
        assert!(usage.descriptors.is_some_and(|count| count >= 3), "{usage:?}");
        assert!(usage.descriptor_limit >= usage.descriptors, "{usage:?}");
        assert!(usage.cpu.is_some(), "{usage:?}");
    }
}
