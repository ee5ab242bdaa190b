//! A program as the target of a connection: it is started for it, and talks to it on its standard
//! streams.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tokio::net::{TcpListener, TcpStream};

use super::{Caller, Peer};
use crate::config::model::Program;
use crate::sys::process;

/// A program that was started. It is not killed when this is dropped.
#[derive(Debug)]
pub struct Child {
    /// Its number.
    pub pid: u32,
    child: tokio::process::Child,
}

impl Child {
    /// Waits for its end and says how it came.
    pub async fn ended(mut self) -> String {
        match self.child.wait().await {
            Ok(status) => match status.code() {
                Some(code) => format!("code {code}"),
                None => status.to_string(),
            },
            Err(error) => error.to_string(),
        }
    }
}

/// Starts a program with one end of a TCP connection as its standard streams and returns the other
/// end. A socket and no pipes: the program sees half a close as one, and a reset as a reset.
///
/// # Errors
/// The system's, in particular for a file that is not there or is no program.
pub(super) async fn start(
    program: &Program,
    caller: &Caller<'_>,
) -> io::Result<(TcpStream, Child)> {
    let (ours, theirs) = pair().await?;
    let theirs = theirs.into_std()?;
    // The program expects what it knows from a terminal: a read that waits.
    theirs.set_nonblocking(false)?;
    let mut command = command(program, caller);
    let end = || theirs.try_clone().map(|end| Stdio::from(OwnedFd::from(end)));
    command.stdin(end()?).stdout(end()?);
    if program.errors_to_peer {
        command.stderr(end()?);
    }
    drop(theirs);
    // Whoever started us may have left descriptors of its own behind.
    process::close_on_exec();
    let child = tokio::process::Command::from(command).spawn()?;
    let pid = child.id().unwrap_or_default();
    Ok((ours, Child { pid, child }))
}

/// The environment is ours, and says besides who is connected.
fn command(program: &Program, caller: &Caller<'_>) -> Command {
    let mut command = Command::new(&program.path.value);
    let mut words = program.arguments.iter();
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    command.args(words);
    let mut set = |name: &str, value: Option<OsString>| match value {
        Some(value) => drop(command.env(name, value)),
        // What is left of somebody else's connection must not pass for this one's.
        None => drop(command.env_remove(name)),
    };
    let address = match caller.peer {
        Peer::Tcp(address) => Some(address),
        Peer::Local | Peer::Stdio => None,
    };
    set("REMOTE_HOST", address.map(|address| address.ip().to_string().into()));
    set("REMOTE_PORT", address.map(|address| address.port().to_string().into()));
    set("PSKGATE_IDENTITY", caller.who.map(|who| OsString::from_vec(who.as_bytes().to_vec())));
    command
}

/// Both ends of a TCP connection of this machine with itself.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    loop {
        let (theirs, from) = listener.accept().await?;
        // Somebody else of this machine may have been quicker.
        if from == ours.local_addr()? {
            ours.set_nodelay(true)?;
            theirs.set_nodelay(true)?;
            return Ok((ours, theirs));
        }
    }
}
