//! A program as the target of a connection: it is started for it, and talks to it on its standard
//! streams.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use tokio::net::{TcpListener, TcpStream};

use super::pty::Pty;
use super::{DialContext, Peer, Socket};
use crate::config::model::{Program, Variable};
use crate::sys::children::{self, AwaitedChild};
use crate::sys::{process, service_manager};

/// A program that was started. It is not killed when this is dropped.
#[derive(Debug)]
pub struct ChildProcess {
    /// Its number.
    pub pid: u32,
    child: tokio::process::Child,
    /// Behind `child`, which is to be gone before.
    _status: AwaitedChild,
}

impl ChildProcess {
    /// Waits for its end and says how it came, in stunnel's words.
    pub async fn ended(mut self) -> String {
        match self.child.wait().await {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("finished with code {code}"),
                (None, Some(signal)) => format!("terminated on {}", signal_name(signal)),
                (None, None) => format!("finished with {status}"),
            },
            Err(error) => format!("was lost sight of: {error}"),
        }
    }
}

fn signal_name(number: i32) -> String {
    use rustix::process::Signal;
    const NAMES: [(Signal, &str); 11] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
    ];
    let known = NAMES.iter().find(|(signal, _)| signal.as_raw() == number);
    known.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}

/// A program at work.
#[derive(Debug)]
pub struct StartedProgram {
    /// Our end of what it talks over.
    pub socket: Socket,
    /// Itself, as who is at the other end.
    pub peer: Peer,
    /// The process.
    pub child: ChildProcess,
}

/// Starts a program with one end of a TCP connection as its standard streams, and keeps the other
/// end. A socket and no pipes: the program sees half a close as one, and a reset as a reset. Who asked
/// for a terminal gets one in its place. `context` is whom it serves, if it serves somebody.
///
/// # Errors
/// The system's, in particular for a file that is not there or is no program.
pub async fn start(
    program: &Program,
    context: Option<&DialContext<'_>>,
) -> io::Result<StartedProgram> {
    let mut command = command(program, context);
    let (socket, peer, theirs) = if program.pty.value {
        let (ours, theirs) = Pty::open()?;
        // A session of its own, or the terminal would not be its own.
        process::make_session_leader(&mut command);
        (Socket::Pty(Box::new(ours)), Peer::Program(None), theirs)
    } else {
        let (ours, theirs) = pair().await?;
        let at = theirs.local_addr()?;
        let theirs = theirs.into_std()?;
        // The program expects what it knows from a terminal: a read that waits.
        theirs.set_nonblocking(false)?;
        (Socket::Tcp(ours), Peer::Program(Some(at)), OwnedFd::from(theirs))
    };
    let end = || theirs.try_clone().map(Stdio::from);
    command.stdin(end()?).stdout(end()?);
    if program.errors_to_peer {
        command.stderr(end()?);
    }
    drop(theirs);
    // Whoever started us may have left descriptors of its own behind.
    process::set_close_on_exec();
    let (child, status) = children::start_awaited(|| {
        let child = tokio::process::Command::from(command).spawn()?;
        let pid = child.id().unwrap_or_default();
        Ok((child, pid))
    })?;
    let pid = child.id().unwrap_or_default();
    Ok(StartedProgram { socket, peer, child: ChildProcess { pid, child, _status: status } })
}

/// The environment is ours with what the operator sets, and says besides who is connected.
fn command(program: &Program, context: Option<&DialContext<'_>>) -> Command {
    let mut command = Command::new(&program.path.value);
    let mut words = program.arguments.iter();
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    command.args(words);
    for name in service_manager::ENVIRONMENT_VARIABLES {
        command.env_remove(name);
    }
    let mut set = |name: &str, value: Option<OsString>| match value {
        Some(value) => drop(command.env(name, value)),
        // What is left of somebody else's connection must not pass for this one's.
        None => drop(command.env_remove(name)),
    };
    for Variable { name, value } in &program.environment {
        set(name, value.clone().map(OsString::from));
    }
    let address = match context.map(|context| context.peer) {
        Some(Peer::Tcp(address)) => Some(address),
        _ => None,
    };
    set("REMOTE_HOST", address.map(|address| address.ip().to_string().into()));
    set("REMOTE_PORT", address.map(|address| address.port().to_string().into()));
    let who = context.and_then(|context| context.who);
    set("PSKGATE_IDENTITY", who.map(|who| OsString::from_vec(who.as_bytes().to_vec())));
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
