//! What the kernel tells of a process: its memory, its time, and whether its port is listened on.

use std::time::Duration;

/// Whether anybody listens on this port in the network of a process, without connecting: that would be a
/// session.
pub fn is_listened_on(id: u32, port: u16) -> bool {
    const LISTEN: &str = "0A";
    ["tcp", "tcp6"].iter().any(|table| {
        let table = std::fs::read_to_string(format!("/proc/{id}/net/{table}"));
        table.unwrap_or_default().lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or_default();
            fields.nth(1) == Some(LISTEN) && local.ends_with(&format!(":{port:04X}"))
        })
    })
}

/// A number of bytes of a process's status, such as `VmRSS:`; none once it is gone.
pub fn memory(id: u32, kind: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(kind))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Processor time so far, in kernel and program, of all threads that it has and had; none once it is gone.
/// The kernel tells hundredths of a second.
pub fn cpu(id: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks = after_name.split_whitespace().skip(11).take(2);
    Some(Duration::from_millis(
        ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10,
    ))
}
