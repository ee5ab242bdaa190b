//! Files that are meant to be files.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

/// Opens a file for reading, if it is a regular one. Opening a pipe that nobody writes to would wait for
/// ever, and a reload with it; plain files do not care for the flag that prevents that.
///
/// # Errors
/// The system's, and what is no regular file.
pub fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    // Before it is opened: a writer that waits for a pipe's reader would think that this is it.
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() {
        Ok((file, meta))
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

/// Reads a regular file whole.
///
/// # Errors
/// As for [`open_regular`].
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let (mut file, meta) = open_regular(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Creates a file that is its owner's alone from the first moment on.
///
/// # Errors
/// The system's, and `AlreadyExists` for a name that is taken, by a dangling link too.
pub fn create_private(path: &Path) -> io::Result<File> {
    #[cfg(windows)]
    return super::acl::create_private(path);
    #[cfg(unix)]
    {
        let mut options = File::options();
        options.write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)
    }
}

/// Has the name of a new file survive a power cut.
///
/// # Errors
/// The system's.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    // Windows has no such call.
    #[cfg(unix)]
    {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(())
    }
}

/// Creates a folder that is its owner's alone; on Windows, a folder as the one around it.
///
/// # Errors
/// The system's, and `AlreadyExists`.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
        .create(path);
    #[cfg(not(unix))]
    return std::fs::create_dir(path);
}
