//! How many may ask at once, and who goes when there are more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Interval;

use super::Right;
use super::access::Access;
use super::conversation::{ControlContext, ControlPeer, refuse_connection, serve_connection};
use crate::daemon::Request;
use crate::observe::rate_limiter::LogRateLimiter;

/// Connections at once. People and scripts need a few; a descriptor each, and sessions need them too.
const MAX_CONNECTIONS: usize = 16;
/// For answers that are under way when the window closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often lines that were withheld are counted out.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// The open connections; they end with this.
pub(in crate::daemon) struct ControlConnections {
    tasks: JoinSet<()>,
    members: Vec<ControlConnection>,
    context: ControlContext,
    closing: watch::Sender<bool>,
    report_timer: Interval,
}

/// One of them, in the order of their coming.
struct ControlConnection {
    task: AbortHandle,
    busy: Arc<AtomicBool>,
    right: Right,
}

impl ControlConnections {
    /// Must be called inside a runtime.
    pub(in crate::daemon) fn new(
        requests: mpsc::Sender<Request>,
        access: watch::Receiver<Access>,
    ) -> Self {
        let (closing, closes) = watch::channel(false);
        let limiter = Arc::new(LogRateLimiter::default());
        let context = ControlContext { requests, access, limiter, closing: closes };
        let report_timer = tokio::time::interval(REPORT_INTERVAL);
        Self { tasks: JoinSet::new(), members: Vec::new(), context, closing, report_timer }
    }

    /// Begins a conversation, if there is room or room can be made.
    pub(super) fn admit(
        &mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: ControlPeer,
    ) {
        self.members.retain(|member| !member.task.is_finished());
        let right = self.context.access.borrow().right(peer.user);
        if self.members.len() >= MAX_CONNECTIONS && !self.make_room(right) {
            // A word costs a descriptor for a moment: not everybody gets one.
            if self.tasks.len() < 2 * MAX_CONNECTIONS {
                self.tasks.spawn(refuse_connection(stream));
            }
            return;
        }
        let busy = Arc::new(AtomicBool::new(false));
        let task =
            self.tasks.spawn(serve_connection(stream, peer, self.context.clone(), busy.clone()));
        self.members.push(ControlConnection { task, busy, right });
    }

    /// Ends the connection that has been silent longest. Who may only look makes no room among those
    /// who may give orders; and those who may only look do not keep out who may, not by taking their
    /// time over an answer either.
    fn make_room(&mut self, right: Right) -> bool {
        let idle = |member: &ControlConnection| !member.busy.load(Ordering::Relaxed);
        let of = |most: Right| {
            self.members.iter().position(|member| idle(member) && member.right <= most)
        };
        let slow = || {
            let rank = |member: &ControlConnection| member.right < right;
            self.members.iter().position(rank)
        };
        let Some(at) = of(Right::Read).or_else(|| of(right)).or_else(slow) else { return false };
        self.members.remove(at).task.abort();
        true
    }

    /// Keeps house between two connections: never ready. Cancel safe.
    pub(super) async fn run_upkeep(&mut self) {
        loop {
            tokio::select! {
                Some(_) = self.tasks.join_next() => {}
                _ = self.report_timer.tick() => self.context.limiter.report_withheld(),
            }
        }
    }

    /// Takes no further request, and lets those who wait have their answers.
    pub(super) async fn finish(mut self) {
        self.closing.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, all).await;
        self.context.limiter.report_withheld();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_only_looks_keeps_nobody_out_who_may_order_not_by_being_slow_either() {
        let (requests, mut asked) = mpsc::channel(4 * MAX_CONNECTIONS);
        let (_, access) = watch::channel(Access::default());
        let mut connections = ControlConnections::new(requests, access);
        let mut come = |user| {
            let (ours, theirs) = tokio::io::duplex(1024);
            connections.admit(theirs, ControlPeer { user: Some(user), process: None });
            ours
        };
        let ask = b"{\"command\":\"status\"}\n";
        let mut slow = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut reader = come(u32::MAX - 1);
            tokio::io::AsyncWriteExt::write_all(&mut reader, ask).await.unwrap();
            slow.push((reader, asked.recv().await));
        }
        let mut reader = come(u32::MAX - 1);
        let mut word = [0; 10];
        tokio::io::AsyncReadExt::read_exact(&mut reader, &mut word).await.unwrap();
        assert_eq!(&word, b"{\"refused\"", "another one who only looks");
        let mut root = come(0);
        tokio::io::AsyncWriteExt::write_all(&mut root, ask).await.unwrap();
        assert!(asked.recv().await.is_some(), "who may order was not heard");
    }
}
