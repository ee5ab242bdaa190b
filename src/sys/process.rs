//! Limits and attributes of the process.

/// Raises the limit of open descriptors to the most the system allows this process, and says what it
/// is now. A session takes two.
#[cfg(unix)]
pub fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: now.maximum, maximum: now.maximum };
    let limit = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => now.maximum,
        Err(_) => now.current,
    };
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// The most open descriptors that the system allows a process which this one's starter starts.
#[cfg(unix)]
pub fn descriptor_limit() -> usize {
    use rustix::process::{Resource, getrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    maximum.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Windows has no such limit on sockets.
#[cfg(not(unix))]
pub fn descriptor_limit() -> usize {
    usize::MAX
}

/// Windows has no such limit on sockets.
#[cfg(not(unix))]
pub fn raise_descriptor_limit() -> usize {
    usize::MAX
}

/// Keeps every descriptor but the standard streams from the programs that this one starts, also those
/// that it was started with and never asked for.
#[cfg(unix)]
pub fn set_close_on_exec() {
    #[cfg(target_os = "linux")]
    {
        const FIRST_DESCRIPTOR: libc::c_uint = 3;
        // SAFETY: three integers go in; what changes is a flag that matters to exec alone, and no
        // descriptor is closed or opened.
        let done = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                FIRST_DESCRIPTOR,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC as libc::c_uint,
            )
        };
        if done == 0 {
            return;
        }
    }
    // Kernels before 5.11, and other systems.
    let Ok(open) = std::fs::read_dir("/dev/fd") else { return };
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|number| *number > 2).collect::<Vec<_>>() {
        // SAFETY: sets a flag of a descriptor by its number; one that is closed meanwhile is an
        // error without consequence.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Keeps keys out of core files, and other processes of the same user out of this one's memory.
/// Best effort: not every system has these switches.
///
/// LeakSanitizer looks for leaks in a process of its own, which must get at this one's memory.
pub fn forbid_dumps() {
    #[cfg(all(target_os = "linux", not(sanitized)))]
    {
        use rustix::process::{
            DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit,
        };
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        let _ = setrlimit(Resource::Core, none);
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// Has a program that is started lead a session of its own, with its standard input as the terminal of
/// that session.
#[cfg(unix)]
pub fn make_session_leader(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let lead = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: two system calls between fork and exec, both async-signal-safe, and no memory is asked for.
    unsafe { command.pre_exec(lead) };
}

/// The name of this machine; empty where the system does not tell.
pub fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(windows)]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    name
}
