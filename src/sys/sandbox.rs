//! What the process gives up for good once it has what it needs: gaining rights, root's powers, and
//! writing and executing outside a few places.
//!
//! Nothing here needs `unsafe`. All of it holds for the thread that calls and for those that it starts
//! later, so that it must be called while there is one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus,
};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// The newest rights that are asked for: later ones are about sockets and signals, and neither writing
/// nor executing.
const NEWEST_ABI: ABI = ABI::V5;

/// What the program may write under a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteAccess {
    /// Makes, writes, empties and removes files in a folder.
    Files,
    /// Makes and removes Unix sockets in a folder.
    Sockets,
    /// Writes to this one file, device or pipe.
    Stream,
}

impl WriteAccess {
    fn rights(self) -> BitFlags<AccessFs> {
        match self {
            Self::Files => {
                AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile
            }
            Self::Sockets => AccessFs::MakeSock | AccessFs::RemoveFile,
            Self::Stream => AccessFs::WriteFile.into(),
        }
    }
}

/// A path where writing stays allowed. Held open, because its name may be out of reach later (chroot).
#[derive(Debug)]
pub struct WritablePath {
    file: File,
    access: WriteAccess,
    identity: (u64, u64),
}

impl WritablePath {
    /// A folder with all that is in it.
    ///
    /// # Errors
    /// The system's.
    pub fn folder(path: &Path, access: WriteAccess) -> io::Result<Self> {
        Self::open(path, libc::O_DIRECTORY, access)
    }

    /// One file that is there, and is neither a regular file nor a folder.
    ///
    /// # Errors
    /// The system's, or it is something else.
    pub fn stream(path: &Path) -> io::Result<Self> {
        let writable = Self::open(path, 0, WriteAccess::Stream)?;
        let kind = writable.file.metadata()?.file_type();
        if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() {
            Ok(writable)
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    fn open(path: &Path, flags: i32, access: WriteAccess) -> io::Result<Self> {
        // A descriptor that stands for the place and opens nothing: a pipe would be waited for.
        let flags = libc::O_PATH | flags;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let meta = file.metadata()?;
        Ok(Self { file, access, identity: (meta.dev(), meta.ino()) })
    }

    /// Whether this access to `folder` is allowed: the folder is this path or lies below it.
    pub fn allows(&self, folder: &Path, access: WriteAccess) -> bool {
        let Ok(real) = folder.canonicalize() else { return false };
        access == self.access
            && real.ancestors().any(|above| {
                above.metadata().is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity)
            })
    }
}

/// How much of the sandbox the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxStatus {
    /// Writing and executing are limited in every way that this program knows of.
    Full,
    /// An older kernel: one that lets an open folder's files be emptied, say.
    Partial,
    /// It has no landlock, or it is switched off.
    Missing,
}

/// What the kernel would enforce, tried on a thread of its own, which ends afterwards.
///
/// # Errors
/// The kernel has landlock and refuses it, or there is no thread to be had.
pub fn probe_sandbox() -> io::Result<SandboxStatus> {
    let tried = std::thread::Builder::new().spawn(|| enter_sandbox(&[]))?.join();
    tried.unwrap_or_else(|_| Err(io::Error::other("the attempt has panicked")))
}

/// From here on nothing is executed, and nothing is written but in these places. What is open stays
/// open, reading stays as it is, and so do sockets.
///
/// Gives up gaining rights first: the kernel demands it of all but root.
///
/// # Errors
/// The kernel has landlock and refuses this.
pub fn enter_sandbox(writable_paths: &[WritablePath]) -> io::Result<SandboxStatus> {
    let writing = AccessFs::from_write(NEWEST_ABI);
    let limited = || {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(writing | AccessFs::Execute)?
            .create()?;
        for room in writable_paths {
            rules = rules.add_rule(PathBeneath::new(&room.file, room.access.rights()))?;
        }
        rules.restrict_self()
    };
    let status = limited().map_err(|error: landlock::RulesetError| io::Error::other(error))?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => SandboxStatus::Full,
        RulesetStatus::PartiallyEnforced => SandboxStatus::Partial,
        RulesetStatus::NotEnforced => SandboxStatus::Missing,
    })
}

/// No program that this process executes, nor this process itself, gains rights by a file's setuid
/// bit or capabilities.
///
/// # Errors
/// The system's: a kernel before 3.5, or a filter.
pub fn set_no_new_privileges() -> io::Result<()> {
    thread::set_no_new_privs(true).map_err(Into::into)
}

/// What root needs to go on as a tunnel: low ports, files and sockets of others, and interfaces to
/// bind to.
pub fn tunnel_capabilities() -> CapabilitySet {
    CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::NET_RAW
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::CHOWN
        | CapabilitySet::FOWNER
}

/// Takes every capability out of the reach of what may be executed later. Without the right to do so,
/// as after becoming another user, nothing happens: it must be called before.
pub fn clear_bounding_set() {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // The first that the kernel does not know is the end; one that may not be dropped is kept.
        match thread::capability_is_in_bounding_set(one) {
            Ok(true) => {
                let _ = thread::remove_capability_from_bounding_set(one);
            }
            Ok(false) => {}
            Err(_) => return,
        }
    }
}

/// Keeps those of this process's capabilities that are among `wanted`, and nothing for what it
/// might execute.
///
/// # Errors
/// The system's.
pub fn retain_capabilities(wanted: CapabilitySet) -> io::Result<()> {
    // Kernels before 4.3 have none.
    let _ = thread::clear_ambient_capability_set();
    let now = thread::capabilities(None)?;
    let kept = now.permitted & wanted;
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable };
    // A filter of the service manager's may forbid the call where there is nothing left to give up.
    if sets == now { Ok(()) } else { thread::set_capabilities(None, sets).map_err(Into::into) }
}
