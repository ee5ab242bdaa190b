//! The named pipe in the control socket's place on Windows. Its default security descriptor lets its
//! creator, administrators and the system write to it; everybody else could read, and that is not
//! enough to ask.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use tokio::sync::oneshot;

use super::conversation::ControlPeer;
use super::{Access, ControlConnections};

/// Between tries when the system has no room.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A pipe that will be made once there is a runtime.
#[derive(Debug)]
pub(in crate::daemon) struct BoundControl(PathBuf);

/// The name of a pipe. The system forgets it with the last instance.
#[derive(Debug)]
pub(in crate::daemon) struct ControlName(PathBuf);

/// A pipe inside a runtime.
#[derive(Debug)]
pub(in crate::daemon) struct ReadyControl {
    name: OsString,
    next: NamedPipeServer,
}

impl BoundControl {
    /// Takes note of the name.
    pub(in crate::daemon) fn bind(path: &Path, _: &Access) -> io::Result<Self> {
        if !path.starts_with(r"\\.\pipe\") {
            let words = format!(r"{}: a pipe is called \\.\pipe\NAME", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        Ok(Self(path.to_owned()))
    }

    /// The same.
    pub(in crate::daemon) fn bind_default(path: &Path, access: &Access) -> io::Result<Self> {
        Self::bind(path, access)
    }

    /// Makes the pipe in the current runtime. Fails when somebody else has one of this name.
    pub(in crate::daemon) fn into_ready(self) -> io::Result<(ControlName, ReadyControl)> {
        let name = self.0.clone().into_os_string();
        let next = ServerOptions::new()
            .first_pipe_instance(true)
            .reject_remote_clients(true)
            .create(&name)
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", self.0.display()))
            })?;
        Ok((ControlName(self.0), ReadyControl { name, next }))
    }
}

impl ControlName {
    /// What it is called.
    pub(in crate::daemon) fn path(&self) -> &Path {
        &self.0
    }

    /// There is nothing to change.
    pub(in crate::daemon) fn allow(&self, _: &Access) -> io::Result<()> {
        Ok(())
    }
}

impl ReadyControl {
    /// Answers until it is stopped. Then nobody can connect any more, and who waits for an answer
    /// gets it.
    pub(in crate::daemon) async fn serve(
        self,
        mut connections: ControlConnections,
        mut stop: oneshot::Receiver<()>,
    ) {
        let Self { name, mut next } = self;
        loop {
            tokio::select! {
                _ = &mut stop => break,
                connected = next.connect() => {
                    // The next instance comes first: there is never a moment without one.
                    let made = ServerOptions::new().reject_remote_clients(true).create(&name);
                    match (connected, made) {
                        (Ok(()), Ok(fresh)) => {
                            let stream = std::mem::replace(&mut next, fresh);
                            connections.admit(stream, ControlPeer { user: None, process: None });
                        }
                        (Err(_), Ok(fresh)) => next = fresh,
                        (_, Err(_)) => {
                            let _ = next.disconnect();
                            tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                        }
                    }
                }
                () = connections.run_upkeep() => {}
            }
        }
        drop(next);
        connections.finish().await;
    }
}
