//! Children of this process that nobody waits for.
//!
//! The first process of a container (PID 1) inherits every process whose parent has ended: what a program of
//! `exec` left running, and what `docker exec` started. Each stays a zombie until it is waited for. Children
//! that are waited for elsewhere keep their exit status: they are on a list, and nothing here takes them.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Process IDs of the children that somebody waits for.
static AWAITED_CHILDREN: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn lock_awaited() -> MutexGuard<'static, Vec<u32>> {
    AWAITED_CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it exists, [`reap_orphans`] leaves the child's exit status to the code that waits for it.
#[derive(Debug)]
pub struct AwaitedChild(u32);

impl Drop for AwaitedChild {
    fn drop(&mut self) {
        let mut awaited = lock_awaited();
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
pub fn start_awaited<T>(
    start: impl FnOnce() -> io::Result<(T, u32)>,
) -> io::Result<(T, AwaitedChild)> {
    let mut awaited = lock_awaited();
    let (child, pid) = start()?;
    awaited.push(pid);
    Ok((child, AwaitedChild(pid)))
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
    let awaited = lock_awaited();
    while let Some(pid) = find_ended_child() {
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
fn find_ended_child() -> Option<i32> {
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
