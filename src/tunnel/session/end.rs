//! What can end an open session, and its close.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{OpenSession, Session};
use crate::config::model::Mode;
use crate::observe::event::Event;
use crate::tunnel::registry::{SessionDetails, SessionInfo};
use crate::tunnel::relay::TrafficMeter;
use crate::tunnel::service::LifecyclePhase;
use crate::tunnel::session_end::{CutReason, SessionEnd};

/// A session that has been silent for this long has nothing under way: a drain ends it.
const QUIET_TIME: Duration = Duration::from_secs(1);
/// How long a session that has lasted its time may go on without a moment of silence.
const LIFETIME_GRACE: Duration = Duration::from_secs(30);

impl Session {
    /// Relays until both directions have ended, or the first of the other ends comes.
    pub(super) async fn relay_until_end(&self, open: &mut OpenSession) -> SessionEnd {
        // Of the service that the client asked for.
        let mut phase = self.service.phase();
        let OpenSession { streams, grant, registration, timeouts, is_single_session, .. } = open;
        let peer_handle = &open.peer_handle;
        let info = &registration.info;
        let mode = streams.mode();
        tokio::select! {
            outcome = streams.relay(*timeouts, &info.meter) => {
                let (_, down) = info.bytes();
                SessionEnd::of(outcome, mode).in_sight_of(mode, down, self.accepted.elapsed())
            }
            () = self.service.wait_until_revoked(grant, self.peer.ip()) => SessionEnd::Cut(CutReason::Revoked),
            () = self.wait_until_entry_revoked() => SessionEnd::Cut(CutReason::Revoked),
            order = info.termination_ordered() => SessionEnd::Cut(CutReason::Ordered(order)),
            cut = wait_until_drained(&mut phase, &info.meter, *is_single_session) => SessionEnd::Cut(cut),
            () = wait_for_lifetime(timeouts.lifetime, info) => SessionEnd::Cut(CutReason::LifetimeOver),
            never = self.warn_of_overused_key(info) => match never {},
            never = self.answer_challenges(peer_handle, info) => match never {},
        }
    }

    /// Closes both sides as the table of endings says. The session keeps its slot until then: of a one-session
    /// service the next one must not reach the backend before.
    pub(super) async fn close(&self, open: Box<OpenSession>, end: &SessionEnd) {
        let OpenSession { streams, registration, reset, is_single_session, peer_handle, .. } =
            *open;
        // Before the sockets: the connection would stay open with it.
        drop(peer_handle);
        let mode = streams.mode();
        streams.close(end, reset).await;
        if is_single_session && mode == Mode::Server {
            self.service.release_backend();
        }
        drop(registration);
    }

    /// Returns when the service whose listener accepted the connection does not admit its address any more.
    async fn wait_until_entry_revoked(&self) {
        match &self.entry_service {
            // Boxed: few sessions have one, and all would pay for it.
            Some(entry) => Box::pin(entry.wait_until_access_revoked(self.peer.ip())).await,
            None => std::future::pending().await,
        }
    }

    /// Never returns. A key can become overused only in a turn in which data moves, and this has its turns with
    /// those.
    async fn warn_of_overused_key(&self, info: &SessionInfo) -> std::convert::Infallible {
        let mut warned = false;
        poll_fn(|_| {
            let Some(SessionDetails { handshake, traffic, .. }) = info.details() else {
                return Poll::Pending;
            };
            if !warned && traffic.key_overused.load(Ordering::Relaxed) {
                warned = true;
                let (up, down) = info.carried();
                let (peer, who, version) = (&info.peer, &info.who, handshake.version);
                let records = up.records.max(down.records);
                Event::KeyOverused { peer, who, version, records }.log(self.scope());
            }
            Poll::Pending
        })
        .await
    }
}

/// Returns when a session has lasted its time and is silent, or is not silent for too long after that.
async fn wait_for_lifetime(lifetime: Option<Duration>, info: &SessionInfo) {
    match lifetime {
        // Boxed: few sessions have one, and all would pay for it.
        Some(lifetime) => Box::pin(until_lifetime_over(lifetime, info)).await,
        None => std::future::pending().await,
    }
}

async fn until_lifetime_over(lifetime: Duration, info: &SessionInfo) {
    let Some(over) = info.since.checked_add(lifetime) else { return std::future::pending().await };
    sleep_until(over).await;
    let last = Instant::now() + LIFETIME_GRACE;
    loop {
        let now = Instant::now();
        let quiet = info.meter.touched() + QUIET_TIME;
        if quiet <= now || last <= now {
            return;
        }
        sleep_until(quiet.min(last)).await;
    }
}

/// Returns when a stop of the program ends this session.
async fn wait_until_drained(
    phase: &mut watch::Receiver<LifecyclePhase>,
    meter: &TrafficMeter,
    is_single_session: bool,
) -> CutReason {
    // An error means that the sender is gone: the process ends.
    if phase.wait_for(|phase| *phase != LifecyclePhase::Running).await.is_err() || is_single_session
    {
        return CutReason::Draining;
    }
    // Boxed: every session waits here, and comes to this at most once.
    Box::pin(wait_until_quiet(phase, meter)).await
}

/// The cut of a session that may finish what is under way.
async fn wait_until_quiet(
    phase: &mut watch::Receiver<LifecyclePhase>,
    meter: &TrafficMeter,
) -> CutReason {
    loop {
        let quiet = meter.touched() + QUIET_TIME;
        if quiet <= Instant::now() {
            return CutReason::Draining;
        }
        tokio::select! {
            () = sleep_until(quiet) => {}
            _ = phase.wait_for(|phase| *phase == LifecyclePhase::Stopping) => return CutReason::DrainExpired,
        }
    }
}
