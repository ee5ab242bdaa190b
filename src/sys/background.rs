//! Going into the background: one fork; the parent waits for the child's result.

use std::fs::OpenOptions;
use std::io::{self, PipeWriter, Read, Write};

/// Which of the two processes this is.
#[derive(Debug)]
pub enum ForkedProcess {
    /// The process that was started.
    Parent {
        /// The child's exit code; 0 when it is ready and runs on.
        code: u8,
        /// The child's process ID.
        child: u32,
    },
    /// The process in the background, with what reports that it is ready.
    Child(ReadyNotifier),
}

/// Reports to the parent that the child is ready. If it is dropped instead, the parent waits for the child's
/// exit code.
#[derive(Debug)]
pub struct ReadyNotifier(PipeWriter);

/// Forks. The child leads a session of its own, in the root directory; its standard streams stay
/// what they were until [`ReadyNotifier::notify_parent`], so that errors are visible.
///
/// # Errors
/// No room for another process, or more than one thread.
pub fn fork() -> io::Result<ForkedProcess> {
    // A lock that another thread holds would stay locked in the child.
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(io::Error::other("a thread has been started already"));
    }
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: there is one thread, so that no lock is held and every object is whole in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reader);
            // Fails only for the leader of a process group, which a fresh child is not.
            let _ = rustix::process::setsid();
            // Every path is absolute by now.
            std::env::set_current_dir("/")?;
            Ok(ForkedProcess::Child(ReadyNotifier(writer)))
        }
        child => {
            drop(writer);
            let mut word = [0];
            let ready = reader.read_exact(&mut word).is_ok();
            let code = if ready { 0 } else { wait_for_exit_code(child) };
            Ok(ForkedProcess::Parent { code, child: child.unsigned_abs() })
        }
    }
}

fn wait_for_exit_code(child: libc::pid_t) -> u8 {
    use rustix::process::{Pid, WaitOptions, waitpid};
    let status = waitpid(Pid::from_raw(child), WaitOptions::empty());
    let code = status.ok().flatten().and_then(|(_, status)| status.exit_status());
    // A child that a signal ended has not started.
    code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0).unwrap_or(1)
}

impl ReadyNotifier {
    /// Replaces the standard streams by `/dev/null`, and has the parent exit with 0.
    ///
    /// # Errors
    /// There is no `/dev/null`.
    pub fn notify_parent(mut self) -> io::Result<()> {
        use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        match null {
            Ok(null) => {
                dup2_stdin(&null)?;
                dup2_stdout(&null)?;
                dup2_stderr(&null)?;
            }
            // Inside a chroot there may be none, as stunnel's manual has it. A pipe without another
            // end does as well: reading ends, and writing fails without a signal.
            Err(_) => {
                let (end, _) = io::pipe()?;
                dup2_stdin(&end)?;
                let (_, end) = io::pipe()?;
                dup2_stdout(&end)?;
                dup2_stderr(&end)?;
            }
        }
        // Fails if the parent was killed; nothing depends on it.
        let _ = self.0.write_all(b"1");
        Ok(())
    }
}

/// Puts this thread ahead of everything that has no real-time priority, with the lowest of those;
/// threads and processes that it starts are like any other. False where that is not allowed.
///
/// For a thread that only waits for signals. BusyBox' `start-stop-daemon` returns as soon as it has
/// sent one, and a script that starts anew a millisecond later finds the old pid file unless this
/// process has been given the processor by then. Measured on two busy cores: of 100 restarts 1 to 15
/// came too early without this. With it none of 1400 did whose pid file was on a tmpfs, as /run is;
/// on a disk that was busy too, 2 of 3000.
pub fn raise_thread_priority() -> bool {
    #[cfg(target_os = "linux")]
    {
        let mut parameters = std::mem::MaybeUninit::<libc::sched_param>::zeroed();
        // SAFETY: the zeroes are a valid sched_param, and the call only reads it.
        unsafe {
            parameters.assume_init_mut().sched_priority = 1;
            let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
            libc::sched_setscheduler(0, policy, parameters.as_ptr()) == 0
        }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Whether a signal was ignored when this program was started, as `nohup` and `&` in a script do.
pub fn is_ignored(signal: i32) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one, whose type this is.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Makes `directory` the root of the file system for this process, and goes there.
///
/// # Errors
/// The system's.
pub fn change_root(directory: &std::path::Path) -> io::Result<()> {
    rustix::process::chroot(directory)?;
    std::env::set_current_dir("/")
}
