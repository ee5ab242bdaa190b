//! The other end of the control socket: asks a running program. Synchronous, as who asks has nothing
//! else to do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use super::{Answer, ControlCommand};

/// The longest answer: 100,000 identities have 30 MB.
const MAX_ANSWER_SIZE: u64 = 256 * 1024 * 1024;

#[cfg(unix)]
type ControlStream = std::os::unix::net::UnixStream;
#[cfg(windows)]
type ControlStream = std::fs::File;

/// A connection over which one question after the other can be asked.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<ControlStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// The system's: nobody listens there, or not for this user.
    #[cfg(unix)]
    pub fn connect(path: &Path, timeout: Duration) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        // Holds for connecting too, when the queue of the other end is full.
        socket.set_write_timeout(Some(timeout))?;
        socket.set_read_timeout(Some(timeout))?;
        socket.connect(&socket2::SockAddr::unix(path)?)?;
        Ok(Self { stream: BufReader::new(socket.into()) })
    }

    /// Connects.
    ///
    /// # Errors
    /// The system's: nobody listens there, or not for this user.
    #[cfg(windows)]
    pub fn connect(path: &Path, _: Duration) -> io::Result<Self> {
        use std::os::windows::fs::OpenOptionsExt;
        use windows_sys::Win32::Storage::FileSystem::{
            SECURITY_IDENTIFICATION, SECURITY_SQOS_PRESENT,
        };
        // Whoever has made a pipe of this name learns who asks, but cannot act in that user's name; without
        // these flags it could.
        let pipe = std::fs::File::options()
            .read(true)
            .write(true)
            .security_qos_flags(SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION)
            .open(path)?;
        Ok(Self { stream: BufReader::new(pipe) })
    }

    /// Asks, and waits for the answer: `timeout` for each part of it, or for ever.
    ///
    /// # Errors
    /// The system's; and what is no answer that this version knows.
    pub fn ask(
        &mut self,
        command: &ControlCommand,
        timeout: Option<Duration>,
    ) -> io::Result<Answer> {
        #[cfg(unix)]
        self.stream.get_ref().set_read_timeout(timeout)?;
        #[cfg(windows)]
        let _ = timeout;
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        // The answer to a connection for which there is no room may be here already.
        let sent = self.stream.get_mut().write_all(&line);
        let mut answer = Vec::new();
        let read = self.stream.by_ref().take(MAX_ANSWER_SIZE).read_until(b'\n', &mut answer);
        if answer.is_empty() {
            sent?;
            read?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read?;
        serde_json::from_slice(&answer).map_err(|_| {
            let words = "this version does not understand the answer: is another version running?";
            io::Error::new(io::ErrorKind::InvalidData, words)
        })
    }
}
