//! Whether the peer of an open session lives: asked when a new client of the same identity comes from another
//! address, as an engineer does who has moved with a laptop (`when-full = "take-over-same-host"`).

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{BACKEND_CLOSE_TIMEOUT, Session};
use crate::config::model::Keepalive;
use crate::net::{self, Socket};
use crate::sys::socket::{has_closed_window, time_since_last_ack};
use crate::tunnel::registry::SessionInfo;

/// How long a peer may acknowledge nothing before its session is given to the new client.
const MAX_SILENCE: Duration = Duration::from_secs(6);
/// How often the kernel is asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Probes that every living peer acknowledges. Their number is larger than [`MAX_SILENCE`] can send, so that
/// the end is the one that is logged, and not the kernel's.
const PROBES: Keepalive =
    Keepalive { idle: Duration::from_secs(1), interval: Duration::from_secs(1), count: 12 };
/// The kernel's clock of acknowledgements and this one need not agree to the tick.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(100);
/// How long a new client waits for the answer: 7 s at most, and then for the backend's close.
pub(super) const CHALLENGE_TIMEOUT: Duration =
    MAX_SILENCE.saturating_add(Duration::from_secs(1)).saturating_add(BACKEND_CLOSE_TIMEOUT);

/// Whether this system tells when a peer has acknowledged something last.
pub(super) fn can_challenge() -> bool {
    cfg!(target_os = "linux")
}

/// A second handle to the TCP connection of a session's peer. It is to be dropped before the session's own: the
/// connection is closed with its last handle.
pub(super) struct PeerHandle {
    socket: Option<socket2::Socket>,
    /// What is set again when the peer has answered.
    keepalive: Option<Keepalive>,
}

impl PeerHandle {
    /// Whether its peer can be asked.
    pub(super) fn can_ask(&self) -> bool {
        self.socket.is_some()
    }

    /// None that answers, where nobody will ask.
    pub(super) fn none() -> Self {
        Self { socket: None, keepalive: None }
    }

    pub(super) fn of(socket: &Socket, keepalive: Option<Keepalive>) -> Self {
        let socket = socket.as_tcp().and_then(|tcp| socket2::SockRef::from(tcp).try_clone().ok());
        Self { socket, keepalive }
    }
}

impl Session {
    /// Answers challenges for as long as it is polled: it has the session end when its peer is dead.
    pub(super) async fn answer_challenges(
        &self,
        peer: &PeerHandle,
        info: &SessionInfo,
    ) -> Infallible {
        match &peer.socket {
            // Boxed: few sessions have one, and all would pay for it.
            Some(socket) => Box::pin(self.answer_for(socket, peer, info)).await,
            None => std::future::pending().await,
        }
    }

    async fn answer_for(
        &self,
        socket: &socket2::Socket,
        peer: &PeerHandle,
        info: &SessionInfo,
    ) -> Infallible {
        loop {
            let challenger = info.challenged().await;
            let is_dead = is_silent(socket).await;
            if is_dead {
                info.make_way_for(challenger);
                return std::future::pending().await;
            }
            // A socket that is closed meanwhile needs no probes any more.
            let _ = match &peer.keepalive {
                Some(keepalive) => net::keepalive(socket, keepalive),
                None => socket.set_keepalive(false),
            };
            info.prove_alive();
            self.service.registry.tell_alive();
        }
    }
}

/// Whether the peer acknowledges nothing for [`MAX_SILENCE`]. False where the system does not tell.
async fn is_silent(socket: &socket2::Socket) -> bool {
    let begin = Instant::now();
    if net::keepalive(socket, &PROBES).is_err() {
        return false;
    }
    let look = async {
        loop {
            sleep(LOOK_INTERVAL).await;
            if has_closed_window(socket) {
                return;
            }
            let asked_for = begin.elapsed();
            match time_since_last_ack(socket) {
                Some(silence) if silence + CLOCK_TOLERANCE >= asked_for => {}
                _ => return,
            }
        }
    };
    timeout_at(begin + MAX_SILENCE, look).await.is_err()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Its kernel acknowledges nothing for longer and longer, and it lives.
    #[test]
    fn a_peer_whose_program_does_not_read_is_not_dead() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _far = listener.accept().unwrap();
        assert!(!has_closed_window(&near));
        near.set_nonblocking(true).unwrap();
        let limit = std::time::Instant::now() + Duration::from_secs(60);
        while !has_closed_window(&near) {
            let _ = (&near).write(&[0; 64 << 10]);
            assert!(std::time::Instant::now() < limit, "its window stays open");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert!(!runtime.block_on(is_silent(&near.into())));
    }
}
