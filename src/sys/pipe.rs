//! Pipes that a file name stands for, such as `/dev/fd/63` of a shell's `<(command)`: what is in them can
//! be read once.

use std::path::Path;

/// Whether a name stands for a pipe.
#[cfg(unix)]
pub fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.metadata().is_ok_and(|meta| meta.file_type().is_fifo())
}

/// Windows has no pipes under the names of files.
#[cfg(not(unix))]
pub fn is_pipe(_: &Path) -> bool {
    false
}

/// Whether what a name stands for cannot be read a second time: a pipe, or a descriptor that this process
/// was started with and that is no file, even when it cannot be reached any more.
pub fn is_read_once(path: &Path) -> bool {
    is_pipe(path) || (is_descriptor(path) && !path.is_file())
}

/// Whether a name is that of a descriptor of this process.
fn is_descriptor(path: &Path) -> bool {
    const FOLDERS: [&str; 2] = ["/dev/fd", "/proc/self/fd"];
    path == Path::new("/dev/stdin") || FOLDERS.iter().any(|folder| path.starts_with(folder))
}

#[cfg(unix)]
pub use unix::{WRITE_TIMEOUT, read_pipe};

#[cfg(unix)]
mod unix {
    use std::fs::{File, Metadata};
    use std::io::{self, Read};
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    use std::path::Path;
    use std::time::{Duration, Instant};

    use zeroize::Zeroizing;

    use super::is_descriptor;

    /// How long a pipe is waited for until its writer has closed it: who types a passphrase for a
    /// `<(gpg --decrypt keys.gpg)` needs a while.
    pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
    const POLL_INTERVAL: Duration = Duration::from_millis(10);
    const FIRST_BUFFER_SIZE: usize = 64 * 1024;

    /// Reads a pipe until its last writer closes it, within `timeout`, into buffers that are wiped.
    ///
    /// # Errors
    /// The system's; more than `max` bytes; a writer that is not done, or does not come, in time.
    pub fn read_pipe(
        path: &Path,
        max: u64,
        timeout: Duration,
    ) -> io::Result<(Zeroizing<Vec<u8>>, Metadata)> {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let meta = file.metadata()?;
        if !meta.file_type().is_fifo() {
            return Err(io::Error::other("it is not a pipe any more"));
        }
        // The writer of a descriptor was there before this process was.
        let awaits_writer = !is_descriptor(path);
        let bytes = read_until_closed(file, max, awaits_writer, timeout)?;
        Ok((bytes, meta))
    }

    fn read_until_closed(
        mut file: File,
        max: u64,
        awaits_writer: bool,
        timeout: Duration,
    ) -> io::Result<Zeroizing<Vec<u8>>> {
        let end = Instant::now() + timeout;
        let mut buffer = Zeroizing::new(vec![0; FIRST_BUFFER_SIZE]);
        let mut length = 0;
        loop {
            if length == buffer.len() {
                // A vector that grows by itself would leave unwiped copies behind.
                let mut larger = Zeroizing::new(vec![0; buffer.len() * 2]);
                larger[..length].copy_from_slice(&buffer);
                buffer = larger;
            }
            match file.read(&mut buffer[length..]) {
                Ok(0) if length > 0 || !awaits_writer => {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
                Ok(0) => {}
                Ok(count) => {
                    length += count;
                    if length as u64 > max {
                        let words = format!("it holds more than {} MiB", max >> 20);
                        return Err(io::Error::other(words));
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= end {
                let seconds = timeout.as_secs();
                let words = match length {
                    0 => format!("nothing was written to the pipe within {seconds} s"),
                    _ => format!("the pipe was not closed by its writer within {seconds} s"),
                };
                return Err(io::Error::new(io::ErrorKind::TimedOut, words));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use std::io::Write;
        use std::os::fd::OwnedFd;

        use super::*;

        #[test]
        fn a_pipe_is_read_to_its_end_within_its_size_and_time() {
            let pipe = || {
                let (reader, writer) = io::pipe().unwrap();
                let reader = File::from(OwnedFd::from(reader));
                rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK).unwrap();
                (reader, writer)
            };
            let long = Duration::from_secs(60);
            let text = vec![b'a'; 3 * FIRST_BUFFER_SIZE];
            let (reader, mut writer) = pipe();
            let sent = text.clone();
            let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
            let read = read_until_closed(reader, 1 << 20, true, long).unwrap();
            assert_eq!(*read, text);
            writing.join().unwrap();

            let (reader, mut writer) = pipe();
            writer.write_all(b"12345").unwrap();
            let error = read_until_closed(reader, 4, true, long).unwrap_err();
            assert!(error.to_string().contains("more than"), "{error}");

            let (reader, writer) = pipe();
            let error = read_until_closed(reader, 4, true, Duration::ZERO).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            drop(writer);
            let (reader, writer) = pipe();
            drop(writer);
            assert!(read_until_closed(reader, 4, false, long).unwrap().is_empty());
        }
    }
}
