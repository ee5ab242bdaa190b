//! The log's file: opened to append, and bounded in size where that is asked for, with one file of what
//! came before.
//!
//! A board's flash is small, and nobody there runs a rotator. The bound therefore holds whatever
//! happens: a file that cannot be moved aside is emptied, and one that cannot be emptied either grows on,
//! which is said once.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    path: PathBuf,
    /// What it holds, in bytes, if it has a maximum: counted, because asking costs a call for each line.
    size: u64,
    max_size: Option<u64>,
    /// After a failed rotation: the size at which the next attempt is made.
    retry_size: u64,
    /// Whether the current failure was reported.
    is_failure_reported: bool,
}

impl LogFile {
    /// Opens a file, or copies the standard stream that bears this name. Appends, so that neither a
    /// restart nor a second process loses lines.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(path: &Path, overwrite: bool, max_size: Option<u64>) -> io::Result<Self> {
        let file = open_for_append(path)?;
        // OpenOptions has no truncate beside append; a pipe or a device has no length to set.
        let meta = file.metadata()?;
        let (regular, mut size) = (meta.is_file(), meta.len());
        if overwrite && regular {
            file.set_len(0)?;
            size = 0;
        }
        let max_size = max_size.filter(|_| regular);
        Ok(Self {
            file,
            path: path.to_owned(),
            size,
            max_size,
            retry_size: 0,
            is_failure_reported: false,
        })
    }

    /// The maximum size, if there is one.
    pub(super) fn max_size(&self) -> Option<u64> {
        self.max_size
    }

    /// Sets another maximum size.
    pub(super) fn set_max_size(&mut self, max_size: Option<u64>) {
        let meta = self.file.metadata().ok().filter(Metadata::is_file);
        self.max_size = max_size.filter(|_| meta.is_some());
        // Without a maximum it was not counted.
        self.size = meta.map_or(0, |meta| meta.len());
        self.retry_size = 0;
    }

    /// Writes lines, after room was made for them if it is needed, and returns how many were written. What is
    /// wrong with making room comes back once, in words: the lines are written all the same.
    pub(super) fn write_lines<'a>(
        &mut self,
        lines: impl Iterator<Item = &'a [u8]>,
    ) -> (usize, Option<String>) {
        if self.max_size.is_none() {
            return (write_lines(&mut self.file, lines), None);
        }
        // Each may be the one that the bound does not leave room for.
        let (mut count, mut trouble) = (0, None);
        for line in lines {
            trouble = self.make_room(line.len() as u64).or(trouble);
            if self.file.write_all(line).is_ok() {
                self.size += line.len() as u64;
                count += 1;
            }
        }
        (count, trouble)
    }

    fn make_room(&mut self, more: u64) -> Option<String> {
        let max_size = self.max_size?;
        if self.size == 0 || self.size + more <= max_size.max(self.retry_size) {
            return None;
        }
        let error = match self.rotate() {
            Ok(()) => {
                self.is_failure_reported = false;
                self.retry_size = 0;
                return None;
            }
            Err(error) => error,
        };
        let emptied = self.file.set_len(0);
        let name = self.path.display();
        let words = match &emptied {
            Ok(()) => {
                self.size = 0;
                format!(
                    "the log cannot be moved to {name}.1 ({error}): it was emptied, and earlier lines are lost"
                )
            }
            Err(_) => {
                // Not at every line.
                self.retry_size = self.size + more + max_size / 4;
                format!(
                    "the log cannot be moved to {name}.1 ({error}): it grows beyond its max-size"
                )
            }
        };
        // An emptied file says so at its top each time; one that grows has said it already.
        let said = std::mem::replace(&mut self.is_failure_reported, true);
        (emptied.is_ok() || !said).then_some(words)
    }

    /// Moves the file to FILE.1, in the place of the one that is there, and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let before = self.file.metadata()?;
        // Behind a link is the file; the link stays.
        match self.path.canonicalize() {
            // Somebody has moved it already, as logrotate does: this name is free, or another file's.
            Ok(real) if is_same_file(&before, &fs::metadata(&real)?) => {
                fs::rename(&real, rotated_path(&real))?
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = open_for_append(&self.path)?;
        self.size = file.metadata()?.len();
        // Who could read the old one can read the new one; where that cannot be, it is the narrower.
        let _ = file.set_permissions(before.permissions());
        self.file = file;
        Ok(())
    }
}

/// Writes lines with as few calls as the system allows, until one fails. Returns how many were written whole.
pub(super) fn write_lines<'a>(to: &mut impl Write, lines: impl Iterator<Item = &'a [u8]>) -> usize {
    let (mut text, mut ends) = (Vec::new(), Vec::new());
    for line in lines {
        text.extend_from_slice(line);
        ends.push(text.len());
    }
    let mut written = 0;
    while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
        match to.write(rest) {
            Ok(0) => break,
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    ends.iter().take_while(|end| **end <= written).count()
}

fn rotated_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    name.into()
}

#[cfg(unix)]
fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same_file(_: &Metadata, _: &Metadata) -> bool {
    true
}

/// A standard stream, by the names it has as a file.
#[cfg(unix)]
pub(super) fn standard_stream(path: &Path) -> Option<i32> {
    match path.to_str()? {
        "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => Some(1),
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => Some(2),
        _ => None,
    }
}

#[cfg(not(unix))]
pub(super) fn standard_stream(_: &Path) -> Option<i32> {
    None
}

fn open_for_append(path: &Path) -> io::Result<File> {
    // Opened by its name, a stream that is a socket or another user's terminal would be refused.
    #[cfg(unix)]
    if let Some(number) = standard_stream(path) {
        return crate::sys::descriptor::duplicate(number).map(File::from);
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe whose reader has gone is an error and not a wait, in which every session would stand still.
        options.mode(0o640).custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        // Writing has a thread of its own, which may wait.
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    }
    Ok(file)
}
