//! Children of this process that nobody waits for.
//!
//! The first process of a container (PID 1) inherits every process whose parent has ended: what a program of
//! `exec` left running, and what `docker exec` started. Each stays a zombie until it is waited for. Children
//! that are waited for elsewhere keep their exit status: they are on a list, and nothing here takes them.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Those that somebody waits for.
static AWAITED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn awaited() -> MutexGuard<'static, Vec<u32>> {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a child's exit status for whoever waits for it. To be dropped after that.
#[derive(Debug)]
pub struct Awaited(u32);

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut awaited = awaited();
        if let Some(at) = awaited.iter().position(|pid| *pid == self.0) {
            awaited.swap_remove(at);
        }
    }
}

/// Starts a child, which must be waited for; `start` says its number. Nothing is reaped in between: a child
/// that ends at once is on the list before.
///
/// # Errors
/// Those of `start`.
pub fn start<T>(start: impl FnOnce() -> io::Result<(T, u32)>) -> io::Result<(T, Awaited)> {
    let mut awaited = awaited();
    let (child, pid) = start()?;
    awaited.push(pid);
    Ok((child, Awaited(pid)))
}

/// Whether this process is the first of its PID namespace.
pub fn is_init() -> bool {
    cfg!(target_os = "linux") && std::process::id() == 1
}

/// Takes the exit status of every child that has ended and is not awaited. True if an awaited one is in the
/// way, which is so for a moment: then it is to be called again soon.
#[cfg(target_os = "linux")]
pub fn reap_orphans() -> bool {
    use rustix::process::{Pid, WaitOptions, waitpid};
    // Held to the end: a child that is being started is not seen before it is on the list.
    let awaited = awaited();
    while let Some(pid) = ended_child() {
        if awaited.contains(&pid.cast_unsigned()) {
            return true;
        }
        let reaped = Pid::from_raw(pid).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
        if !matches!(reaped, Some(Ok(Some(_)))) {
            return true;
        }
    }
    false
}

/// Other systems have no PID namespaces.
#[cfg(not(target_os = "linux"))]
pub fn reap_orphans() -> bool {
    false
}

/// A child that has ended; its status stays where it is.
#[cfg(target_os = "linux")]
fn ended_child() -> Option<i32> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is as large as what the kernel writes, and lives through the call. Zeroes are a valid
    // value of it, a structure of integers, and stay where no child has ended; so `si_pid` reads what was
    // written, or 0.
    let pid = unsafe {
        match libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) {
            0 => info.assume_init_ref().si_pid(),
            _ => 0,
        }
    };
    (pid > 0).then_some(pid)
}
