//! A terminal of its own for a program, whose other end is a connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, SpecialCodeIndex, tcgetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sys::descriptor::into_async_fd;

/// The end of a terminal where the keyboard and the screen would be.
#[derive(Debug)]
pub struct Pty {
    master: AsyncFd<OwnedFd>,
    shut: bool,
}

impl Pty {
    /// A new terminal, and the end that a program gets. To be called inside a runtime.
    pub(super) fn open() -> io::Result<(Self, OwnedFd)> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = open(name.as_c_str(), flags, Mode::empty())?;
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        Ok((Self { master: into_async_fd(master)?, shut: false }, slave))
    }

    fn poll_put(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.master.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(done) => return Poll::Ready(done),
                Err(_would_block) => {}
            }
        }
    }

    /// The character that means the end of input to whoever reads lines; none where nobody does.
    fn end_of_input(&self) -> Option<u8> {
        let now = tcgetattr(self.master.get_ref().as_fd()).ok()?;
        now.local_modes
            .contains(LocalModes::ICANON)
            .then(|| now.special_codes[SpecialCodeIndex::VEOF])
    }
}

impl AsyncRead for Pty {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.master.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), room)?)) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // Linux' way to say that nobody has the other end any more.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Pty {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_put(cx, bytes)) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            done => Poll::Ready(done),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no half that could be shut. Whoever reads lines from it is told the end of input as
    /// a person would; to whoever does not, nothing can be said.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            if let Some(end) = self.end_of_input() {
                // A program that is gone has no need of it.
                let _ = ready!(self.poll_put(cx, &[end]));
            }
            self.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}
