//! The control socket of Unix systems.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use super::client::Client;
use super::conversation::ControlPeer;
use super::{Access, Answer, ControlCommand, ControlConnections};
use crate::net::{self, SocketName};

/// What a program answers at once, unless it hangs.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Between tries when there are no descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A socket that is bound, before there is a runtime.
#[derive(Debug)]
pub(in crate::daemon) struct BoundControl {
    listener: std::os::unix::net::UnixListener,
    guard: ControlName,
}

/// The name of a socket; removed when this goes.
#[derive(Debug)]
pub(in crate::daemon) struct ControlName {
    name: SocketName,
    path: PathBuf,
}

/// A socket inside a runtime.
#[derive(Debug)]
pub(in crate::daemon) struct ReadyControl(UnixListener);

impl BoundControl {
    /// Takes the path. A program that is on its way out leaves it to its successor.
    pub(in crate::daemon) fn bind(path: &Path, access: &Access) -> io::Result<Self> {
        let group = access.group.as_ref().map(|(_, number)| *number);
        let (listener, name) = net::bind_restricted(path, access.mode, group, || is_leaving(path))?;
        Ok(Self { listener, guard: ControlName { name, path: path.to_owned() } })
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
    pub(in crate::daemon) fn into_ready(self) -> io::Result<(ControlName, ReadyControl)> {
        Ok((self.guard, ReadyControl(UnixListener::from_std(self.listener)?)))
    }
}

/// Whether the program that listens there only waits for its sessions to end.
fn is_leaving(path: &Path) -> bool {
    let asked = Client::connect(path, PROBE_TIMEOUT)
        .and_then(|mut client| client.ask(&ControlCommand::Status, Some(PROBE_TIMEOUT)));
    match asked {
        Ok(Answer::Status(status)) => status.phase != "running",
        // It has ended since.
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        Ok(_) => false,
    }
}

impl ControlName {
    /// Where it is, as it was called when it was bound.
    pub(in crate::daemon) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes who can connect.
    pub(in crate::daemon) fn allow(&self, access: &Access) -> io::Result<()> {
        self.name.allow(access.mode, access.group.as_ref().map(|(_, number)| *number))
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
        loop {
            tokio::select! {
                _ = &mut stop => break,
                accepted = self.0.accept() => match accepted {
                    Ok((stream, _)) => {
                        let peer = peer(&stream);
                        connections.admit(stream, peer);
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await,
                },
                () = connections.run_upkeep() => {}
            }
        }
        drop(self);
        connections.finish().await;
    }
}

fn peer(stream: &UnixStream) -> ControlPeer {
    match stream.peer_cred() {
        Ok(peer) => ControlPeer { user: Some(peer.uid()), process: peer.pid() },
        // Whom nobody knows may look: connecting was allowed.
        Err(_) => ControlPeer { user: None, process: None },
    }
}
