//! The HTTP endpoint: for this machine alone, and to look only.
//!
//! Whoever is on this machine may connect, so what one can take from the tunnel has limits here:
//! connections, their time, and how often one of them is answered.

mod answer;
mod chunked_body;
mod page;
mod status_cache;
mod traffic_history;

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
use crate::net::{AsyncListener, Peer, Socket};
use answer::RequestOrigin;
use chunked_body::ChunkedBody;
use status_cache::StatusCache;
use traffic_history::TrafficHistory;

/// Connections of one window at a time. [`super::RESERVED`] has room for them.
const MAX_CONNECTIONS: usize = 16;
/// How long the first request may take to arrive.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// From a request on: how long the answer may take to be read, and the next request to arrive.
const NEXT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer that is told to go may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What a request may have of headers; 8 kB is hyper's least.
const MAX_HEADERS_SIZE: usize = 16 * 1024;
/// The least time between two connections, on average: a crowd that comes and goes takes a fraction of the
/// processor.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(1);
/// How far accepting may catch up: on a busy machine a pause lasts longer than it was to.
const MAX_CATCH_UP: Duration = Duration::from_millis(50);
/// The pause when there was nothing to accept with: descriptors have run out.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// How far a connection is, in the order in which it makes room for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RequestStage {
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
struct ConnectionState {
    stage: RequestStage,
    /// When it has to go. A request moves this.
    until: Instant,
}

/// One who is connected.
struct HttpConnection {
    state: watch::Receiver<ConnectionState>,
    task: AbortHandle,
}

/// Serves until it is dropped. `labels` is how many identities get a label of their own in metrics.
pub(super) async fn serve(
    listener: AsyncListener,
    requests: mpsc::Sender<Request>,
    labels: watch::Receiver<usize>,
) {
    let history = Arc::new(TrafficHistory::default());
    let mut tasks = JoinSet::new();
    let (kept, samples) = (history.clone(), requests.clone());
    tasks.spawn(async move { kept.keep(samples).await });
    let cache = Arc::new(StatusCache::new(requests, labels));
    let mut connections: Vec<HttpConnection> = Vec::new();
    let mut due = Instant::now();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let Ok((socket, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            continue;
        };
        // Whose request has arrived must not count as silent: everybody who has something to read reads now.
        tokio::task::yield_now().await;
        loop {
            connections.retain(|connection| !connection.task.is_finished());
            if has_room(&mut connections) {
                break;
            }
            // The queue of the kernel holds those who come.
            tokio::time::sleep(ACCEPT_INTERVAL).await;
        }
        let state = ConnectionState {
            stage: RequestStage::Silent,
            until: Instant::now() + FIRST_REQUEST_TIMEOUT,
        };
        let (mover, state) = watch::channel(state);
        let task = tasks.spawn(serve_connection(
            socket,
            RequestOrigin::of(&peer),
            (cache.clone(), history.clone()),
            Arc::new(mover),
        ));
        connections.push(HttpConnection { state, task });
        let now = Instant::now();
        due = (due + ACCEPT_INTERVAL).max(now.checked_sub(MAX_CATCH_UP).unwrap_or(now));
        if due > now {
            tokio::time::sleep_until(due).await;
        }
    }
}

/// Whether there is a place for one more, after somebody was sent away if need be.
fn has_room(connections: &mut Vec<HttpConnection>) -> bool {
    while connections.len() >= MAX_CONNECTIONS {
        let states = connections.iter().map(|connection| *connection.state.borrow());
        let Some(first) = first_to_go(states) else { return false };
        connections.swap_remove(first).task.abort();
    }
    true
}

/// Who makes room: by stage, and of one stage who would have to go first anyway.
fn first_to_go(states: impl Iterator<Item = ConnectionState>) -> Option<usize> {
    let may_go = states.enumerate().filter(|(_, one)| one.stage != RequestStage::AskedFirst);
    may_go.min_by_key(|(_, one)| (one.stage, one.until)).map(|(first, _)| first)
}

async fn serve_connection(
    socket: Socket,
    door: RequestOrigin,
    sources: (Arc<StatusCache>, Arc<TrafficHistory>),
    state: Arc<watch::Sender<ConnectionState>>,
) {
    let until = state.subscribe();
    let service = service_fn(move |request| {
        let ((cache, history), state) = (sources.clone(), state.clone());
        let first = state.borrow().stage == RequestStage::Silent;
        let stage = if first { RequestStage::AskedFirst } else { RequestStage::AskedAgain };
        state.send_replace(ConnectionState { stage, until: Instant::now() + NEXT_REQUEST_TIMEOUT });
        // Boxed, so that the connection can be taken apart.
        Box::pin(async move {
            match first {
                true => cache.first_turn().await,
                false => cache.turn().await,
            }
            let response = answer::answer(&cache, &history, &request, door).await;
            if first {
                cache.gave_first(response.body().size_hint().lower()).await;
            }
            let enter = move |stage| state.send_modify(|now| now.stage = stage);
            enter(RequestStage::Reading);
            Ok::<_, Infallible>(
                response.map(|body| ChunkedBody::new(body, move || enter(RequestStage::Idle))),
            )
        })
    });
    let mut conversation = http1::Builder::new()
        .max_buf_size(MAX_HEADERS_SIZE)
        // Ours covers it, and a slow reader too.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        // A request that is no HTTP was answered too.
        _ = poll_fn(|cx| conversation.poll_without_shutdown(cx)) => {
            // What nobody read must not turn the answer into a reset.
            conversation.into_parts().io.into_inner().close_gently(CLOSE_TIMEOUT).await;
        }
        () = wait_until_passed(until) => {}
    }
}

/// Waits for a moment that may move.
async fn wait_until_passed(mut state: watch::Receiver<ConnectionState>) {
    loop {
        let end = state.borrow_and_update().until;
        tokio::select! {
            () = tokio::time::sleep_until(end) => return,
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}

impl RequestOrigin {
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
        let at = |(stage, seconds)| ConnectionState {
            stage,
            until: start + Duration::from_secs(seconds),
        };
        let first = |states: &[(RequestStage, u64)]| first_to_go(states.iter().copied().map(at));
        use RequestStage::{AskedAgain, AskedFirst, Idle, Reading, Silent};
        assert_eq!(first(&[(Idle, 1), (Silent, 3), (Silent, 2)]), Some(2));
        assert_eq!(first(&[(Reading, 1), (AskedAgain, 2), (Idle, 3)]), Some(2));
        assert_eq!(first(&[(Reading, 1), (AskedAgain, 2), (AskedFirst, 0)]), Some(1));
        assert_eq!(first(&[(AskedFirst, 1), (AskedFirst, 2)]), None);
    }
}
