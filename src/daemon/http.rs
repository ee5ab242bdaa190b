//! The HTTP endpoint: for this machine alone, and to look only.
//!
//! Whoever is on this machine may connect, so what one can take from the tunnel has limits here:
//! connections, their time, and how often one of them is answered.

mod answer;
mod desk;
mod page;

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::Request;
use crate::net::{Acceptable, Peer, Socket};
use answer::Door;
use desk::Desk;

/// Connections of one window at a time. [`super::RESERVED`] has room for them.
const CONNECTIONS: usize = 16;
/// How long the first request may take to arrive.
const FIRST: Duration = Duration::from_secs(5);
/// From a request on: how long the answer may take to be read, and the next request to arrive.
const NEXT: Duration = Duration::from_secs(30);
/// How long a peer that is told to go may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a request may have of headers; 8 kB is hyper's least.
const HEAD: usize = 16 * 1024;
/// The pause after an accept: a crowd that comes and goes takes a fraction of the processor.
const PAUSE: Duration = Duration::from_millis(1);
/// The pause when there was nothing to accept with: descriptors have run out.
const TROUBLE: Duration = Duration::from_millis(200);

/// One who is connected.
struct Guest {
    /// When it has to go. A request moves this.
    until: watch::Receiver<Instant>,
    task: AbortHandle,
}

/// Serves until it is dropped. `labels` is how many identities get a label of their own in metrics.
pub(super) async fn serve(
    listener: Acceptable,
    requests: mpsc::Sender<Request>,
    labels: watch::Receiver<usize>,
) {
    let desk = Arc::new(Desk::new(requests, labels));
    let mut tasks = JoinSet::new();
    let mut guests: Vec<Guest> = Vec::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let Ok((socket, peer)) = accepted else {
            tokio::time::sleep(TROUBLE).await;
            continue;
        };
        guests.retain(|guest| !guest.task.is_finished());
        make_room(&mut guests);
        let (move_end, until) = watch::channel(Instant::now() + FIRST);
        let task = tasks.spawn(converse(socket, Door::of(&peer), desk.clone(), move_end));
        guests.push(Guest { until, task });
        tokio::time::sleep(PAUSE).await;
    }
}

/// Who would be sent away first makes room for who comes: those who have asked nothing yet before
/// those who have, so that silent ones keep nobody out.
fn make_room(guests: &mut Vec<Guest>) {
    while guests.len() >= CONNECTIONS {
        let ends = guests.iter().map(|guest| *guest.until.borrow()).enumerate();
        let Some((first, _)) = ends.min_by_key(|(_, end)| *end) else { return };
        guests.swap_remove(first).task.abort();
    }
}

async fn converse(socket: Socket, door: Door, desk: Arc<Desk>, move_end: watch::Sender<Instant>) {
    let until = move_end.subscribe();
    let service = service_fn(move |request| {
        move_end.send_replace(Instant::now() + NEXT);
        let desk = desk.clone();
        // Boxed, so that the connection can be taken apart.
        Box::pin(async move { Ok::<_, Infallible>(answer::answer(&desk, &request, door).await) })
    });
    let mut conversation = http1::Builder::new()
        .max_buf_size(HEAD)
        // Ours covers it, and a slow reader too.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        // A request that is no HTTP was answered too.
        _ = poll_fn(|cx| conversation.poll_without_shutdown(cx)) => {
            // What nobody read must not turn the answer into a reset.
            conversation.into_parts().io.into_inner().close_gently(FAREWELL).await;
        }
        () = passed(until) => {}
    }
}

/// Waits for a moment that may move.
async fn passed(mut until: watch::Receiver<Instant>) {
    loop {
        let end = *until.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(end) => return,
            changed = until.changed() => if changed.is_err() { return },
        }
    }
}

impl Door {
    fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Tcp(_) => Self::Tcp,
            Peer::Local | Peer::Stdio | Peer::Program(_) => Self::Unix,
        }
    }
}
