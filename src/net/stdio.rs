//! Standard input and output as a connection: inetd's one socket, or two pipes, or whatever else they
//! are.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::stdio;
use socket2::Domain;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use super::{Peer, Socket};

/// Takes standard input and output over, and leaves nothing behind in their place that would keep
/// them open. To be called inside a runtime, and once.
///
/// # Errors
/// They are closed, or nothing that can carry a connection.
pub fn inherited() -> io::Result<(Socket, Peer)> {
    let input = rustix::io::fcntl_dupfd_cloexec(stdio::stdin(), 3)?;
    let output = rustix::io::fcntl_dupfd_cloexec(stdio::stdout(), 3)?;
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    stdio::dup2_stdin(&nothing)?;
    stdio::dup2_stdout(&nothing)?;
    let (first, second) = (fstat(&input)?, fstat(&output)?);
    if kind(&input)? == FileType::Socket
        && (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
    {
        drop(output);
        return socket(input);
    }
    let input = match kind(&input)? {
        FileType::Fifo => Input::Pipe(SharedPipe::new(input, pipe::Receiver::from_owned_fd)?),
        FileType::Socket => Input::Socket(socket(input)?.0),
        _ => Input::File(File::from_std(input.into())),
    };
    let output = Some(match kind(&output)? {
        FileType::Fifo => OutputHandle::Pipe(SharedPipe::new(output, pipe::Sender::from_owned_fd)?),
        FileType::Socket => OutputHandle::Socket(socket(output)?.0),
        _ => OutputHandle::File(File::from_std(output.into())),
    });
    Ok((Socket::Stdio(Box::new(Stdio { input, output })), Peer::Stdio))
}

fn kind(fd: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode))
}

fn socket(fd: OwnedFd) -> io::Result<(Socket, Peer)> {
    let socket = socket2::Socket::from(fd);
    socket.set_nonblocking(true)?;
    if socket.r#type()? != socket2::Type::STREAM {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is no stream socket"));
    }
    match socket.domain()? {
        Domain::UNIX => {
            let stream = tokio::net::UnixStream::from_std(socket.into())?;
            Ok((Socket::Unix(stream), Peer::Local))
        }
        _ => {
            let stream = tokio::net::TcpStream::from_std(socket.into())?;
            let peer = Peer::Tcp(stream.peer_addr()?);
            Ok((Socket::Tcp(stream), peer))
        }
    }
}

/// Two descriptors, of which one is read from and the other written to.
#[derive(Debug)]
pub struct Stdio {
    input: Input,
    /// Gone when it was shut.
    output: Option<OutputHandle>,
}

#[derive(Debug)]
enum Input {
    Pipe(SharedPipe<pipe::Receiver>),
    Socket(Socket),
    /// Files, devices and terminals: they are read in a thread.
    File(File),
}

#[derive(Debug)]
enum OutputHandle {
    Pipe(SharedPipe<pipe::Sender>),
    Socket(Socket),
    File(File),
}

/// A pipe that does not block. Whoever started this program may hold it too, and gets it back as it
/// was.
#[derive(Debug)]
struct SharedPipe<P: AsFd> {
    pipe: P,
    before: OFlags,
}

impl<P: AsFd> SharedPipe<P> {
    fn new(fd: OwnedFd, from: impl Fn(OwnedFd) -> io::Result<P>) -> io::Result<Self> {
        let before = fcntl_getfl(&fd)?;
        Ok(Self { pipe: from(fd)?, before })
    }
}

impl<P: AsFd> Drop for SharedPipe<P> {
    fn drop(&mut self) {
        let _ = fcntl_setfl(&self.pipe, self.before);
    }
}

impl AsyncRead for Stdio {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.input {
            Input::Pipe(shared) => Pin::new(&mut shared.pipe).poll_read(cx, buf),
            Input::Socket(socket) => Pin::new(socket).poll_read(cx, buf),
            Input::File(file) => Pin::new(file).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.output {
            Some(OutputHandle::Pipe(shared)) => Pin::new(&mut shared.pipe).poll_write(cx, bytes),
            Some(OutputHandle::Socket(socket)) => Pin::new(socket).poll_write(cx, bytes),
            Some(OutputHandle::File(file)) => Pin::new(file).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.output {
            Some(OutputHandle::File(file)) => Pin::new(file).poll_flush(cx),
            // Neither keeps anything back.
            Some(OutputHandle::Pipe(_) | OutputHandle::Socket(_)) | None => Poll::Ready(Ok(())),
        }
    }

    /// The end of a pipe is its being closed; of a socket, its being shut, as others may hold it too.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let done = match &mut self.output {
            Some(OutputHandle::Socket(socket)) => ready!(Pin::new(socket).poll_shutdown(cx)),
            _ => Ok(()),
        };
        self.output = None;
        Poll::Ready(done)
    }
}
