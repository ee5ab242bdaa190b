//! The HTTP endpoint: for this machine alone, and to look only.
//!
//! Whoever is on this machine may connect, so what one can take from the tunnel has limits here:
//! connections, their time, and how often one of them is answered.

mod answer;
mod desk;
mod page;
mod pieces;

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
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
use pieces::Pieces;

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
/// The least time between two connections, on average: a crowd that comes and goes takes a fraction of the
/// processor.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(1);
/// How far accepting may catch up: on a busy machine a pause lasts longer than it was to.
const MAX_CATCH_UP: Duration = Duration::from_millis(50);
/// The pause when there was nothing to accept with: descriptors have run out.
const TROUBLE: Duration = Duration::from_millis(200);

/// How far a connection is, in the order in which it makes room for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has asked nothing yet.
    Silent,
    /// It has been answered.
    Idle,
    /// It was answered before, and has asked again.
    AskedAgain,
    /// Its answer is being read.
    Reading,
    /// Its first answer is being made, which takes milliseconds. It is never sent away: where many connect
    /// and ask, the oldest would be the next to be answered, and nobody would get an answer.
    AskedFirst,
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    stage: Stage,
    /// When it has to go. A request moves this.
    until: Instant,
}

/// One who is connected.
struct Guest {
    standing: watch::Receiver<Standing>,
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
    let mut due = Instant::now();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let Ok((socket, peer)) = accepted else {
            tokio::time::sleep(TROUBLE).await;
            continue;
        };
        // Whose request has arrived must not count as silent: everybody who has something to read reads now.
        tokio::task::yield_now().await;
        loop {
            guests.retain(|guest| !guest.task.is_finished());
            if has_room(&mut guests) {
                break;
            }
            // The queue of the kernel holds those who come.
            tokio::time::sleep(ACCEPT_INTERVAL).await;
        }
        let standing = Standing { stage: Stage::Silent, until: Instant::now() + FIRST };
        let (mover, standing) = watch::channel(standing);
        let task = tasks.spawn(converse(socket, Door::of(&peer), desk.clone(), Arc::new(mover)));
        guests.push(Guest { standing, task });
        let now = Instant::now();
        due = (due + ACCEPT_INTERVAL).max(now.checked_sub(MAX_CATCH_UP).unwrap_or(now));
        if due > now {
            tokio::time::sleep_until(due).await;
        }
    }
}

/// Whether there is a place for one more, after somebody was sent away if need be.
fn has_room(guests: &mut Vec<Guest>) -> bool {
    while guests.len() >= CONNECTIONS {
        let standings = guests.iter().map(|guest| *guest.standing.borrow());
        let Some(first) = first_to_go(standings) else { return false };
        guests.swap_remove(first).task.abort();
    }
    true
}

/// Who makes room: by stage, and of one stage who would have to go first anyway.
fn first_to_go(standings: impl Iterator<Item = Standing>) -> Option<usize> {
    let may_go = standings.enumerate().filter(|(_, one)| one.stage != Stage::AskedFirst);
    may_go.min_by_key(|(_, one)| (one.stage, one.until)).map(|(first, _)| first)
}

async fn converse(
    socket: Socket,
    door: Door,
    desk: Arc<Desk>,
    standing: Arc<watch::Sender<Standing>>,
) {
    let until = standing.subscribe();
    let service = service_fn(move |request| {
        let (desk, standing) = (desk.clone(), standing.clone());
        let first = standing.borrow().stage == Stage::Silent;
        let stage = if first { Stage::AskedFirst } else { Stage::AskedAgain };
        standing.send_replace(Standing { stage, until: Instant::now() + NEXT });
        // Boxed, so that the connection can be taken apart.
        Box::pin(async move {
            match first {
                true => desk.first_turn().await,
                false => desk.turn().await,
            }
            let response = answer::answer(&desk, &request, door).await;
            if first {
                desk.gave_first(response.body().size_hint().lower()).await;
            }
            let enter = move |stage| standing.send_modify(|now| now.stage = stage);
            enter(Stage::Reading);
            Ok::<_, Infallible>(response.map(|body| Pieces::new(body, move || enter(Stage::Idle))))
        })
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
async fn passed(mut standing: watch::Receiver<Standing>) {
    loop {
        let end = standing.borrow_and_update().until;
        tokio::select! {
            () = tokio::time::sleep_until(end) => return,
            changed = standing.changed() => if changed.is_err() { return },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silent_make_room_before_the_answered_and_a_first_answer_is_waited_for() {
        let start = Instant::now();
        let at = |(stage, seconds)| Standing { stage, until: start + Duration::from_secs(seconds) };
        let first = |standings: &[(Stage, u64)]| first_to_go(standings.iter().copied().map(at));
        use Stage::{AskedAgain, AskedFirst, Idle, Reading, Silent};
        assert_eq!(first(&[(Idle, 1), (Silent, 3), (Silent, 2)]), Some(2));
        assert_eq!(first(&[(Reading, 1), (AskedAgain, 2), (Idle, 3)]), Some(2));
        assert_eq!(first(&[(Reading, 1), (AskedAgain, 2), (AskedFirst, 0)]), Some(1));
        assert_eq!(first(&[(AskedFirst, 1), (AskedFirst, 2)]), None);
    }
}
