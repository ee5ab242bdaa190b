//! The control socket of Unix systems.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use super::client::Client;
use super::conversation::Caller;
use super::{Access, Answer, Command, Crowd};
use crate::net::{self, Name};

/// What a program answers at once, unless it hangs.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between tries when there are no descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that is bound, before there is a runtime.
#[derive(Debug)]
pub(in crate::daemon) struct Fresh {
    listener: std::os::unix::net::UnixListener,
    guard: Guard,
}

/// The name of a socket; removed when this goes.
#[derive(Debug)]
pub(in crate::daemon) struct Guard {
    name: Name,
    path: PathBuf,
}

/// A socket inside a runtime.
#[derive(Debug)]
pub(in crate::daemon) struct Ready(UnixListener);

impl Fresh {
    /// Takes the path. A program that is on its way out leaves it to its successor.
    pub(in crate::daemon) fn bind(path: &Path, access: &Access) -> io::Result<Self> {
        let group = access.group.as_ref().map(|(_, number)| *number);
        let (listener, name) = net::bind_guarded(path, access.mode, group, || is_leaving(path))?;
        Ok(Self { listener, guard: Guard { name, path: path.to_owned() } })
    }

    /// The same in the folder that is nobody else's, which is made if it is not there.
    pub(in crate::daemon) fn bind_default(path: &Path, access: &Access) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            // Root's is for everybody to look into; a user's own has a parent of mode 0700.
            net::make_folder(folder, 0o755)?;
        }
        Self::bind(path, access)
    }

    /// Hands it to the current runtime.
    pub(in crate::daemon) fn into_ready(self) -> io::Result<(Guard, Ready)> {
        Ok((self.guard, Ready(UnixListener::from_std(self.listener)?)))
    }
}

/// Whether the program that listens there only waits for its sessions to end.
fn is_leaving(path: &Path) -> bool {
    let asked = Client::connect(path, PATIENCE)
        .and_then(|mut client| client.ask(&Command::Status, Some(PATIENCE)));
    match asked {
        Ok(Answer::Status(status)) => status.phase != "running",
        // It has ended since.
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        Ok(_) => false,
    }
}

impl Guard {
    /// Where it is, as it was called when it was bound.
    pub(in crate::daemon) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes who can connect.
    pub(in crate::daemon) fn allow(&self, access: &Access) -> io::Result<()> {
        self.name.allow(access.mode, access.group.as_ref().map(|(_, number)| *number))
    }
}

impl Ready {
    /// Answers until it is stopped. Then nobody can connect any more, and who waits for an answer
    /// gets it.
    pub(in crate::daemon) async fn serve(self, mut crowd: Crowd, mut stop: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                _ = &mut stop => break,
                accepted = self.0.accept() => match accepted {
                    Ok((stream, _)) => {
                        let caller = caller(&stream);
                        crowd.admit(stream, caller);
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                () = crowd.keep() => {}
            }
        }
        drop(self);
        crowd.finish().await;
    }
}

fn caller(stream: &UnixStream) -> Caller {
    match stream.peer_cred() {
        Ok(peer) => Caller { user: Some(peer.uid()), process: peer.pid() },
        // Whom nobody knows may look: connecting was allowed.
        Err(_) => Caller { user: None, process: None },
    }
}
