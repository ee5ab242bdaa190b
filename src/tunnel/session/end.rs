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
use crate::tunnel::ending::{Cut, End};
use crate::tunnel::relay::Meter;
use crate::tunnel::roster::{Info, Reached};
use crate::tunnel::service::Phase;

/// A session that has been silent for this long has nothing under way: a drain ends it.
const QUIET_TIME: Duration = Duration::from_secs(1);
/// How long a session that has lasted its time may go on without a moment of silence.
const LIFETIME_GRACE: Duration = Duration::from_secs(30);

impl Session {
    /// Relays until both directions have ended, or the first of the other ends comes.
    pub(super) async fn relay_until_end(&self, open: &mut OpenSession) -> End {
        // Of the service that the client asked for.
        let mut phase = self.service.phase();
        let OpenSession { streams, grant, member, timeouts, is_single, .. } = open;
        let info = &member.info;
        let mode = streams.mode();
        tokio::select! {
            outcome = streams.relay(*timeouts, &info.meter) => End::of(outcome, mode),
            () = self.service.revoked(grant, self.peer.ip()) => End::Cut(Cut::Revoked),
            () = self.wait_until_entry_revoked() => End::Cut(Cut::Revoked),
            order = info.ordered() => End::Cut(Cut::Ordered(order)),
            cut = wait_until_drained(&mut phase, &info.meter, *is_single) => End::Cut(cut),
            () = wait_for_lifetime(timeouts.lifetime, info) => End::Cut(Cut::LifetimeOver),
            never = self.warn_of_overused_key(info) => match never {},
        }
    }

    /// Closes both sides as the table of endings says. The session keeps its slot until then: of a one-session
    /// service the next one must not reach the backend before.
    pub(super) async fn close(&self, open: OpenSession, end: &End) {
        let OpenSession { streams, member, reset, is_single, .. } = open;
        let mode = streams.mode();
        streams.close(end, reset).await;
        if is_single && mode == Mode::Server {
            self.service.let_go();
        }
        drop(member);
    }

    /// Returns when the service whose listener accepted the connection does not admit its address any more.
    async fn wait_until_entry_revoked(&self) {
        match &self.entry_service {
            // Boxed: few sessions have one, and all would pay for it.
            Some(entry) => Box::pin(entry.shut_to(self.peer.ip())).await,
            None => std::future::pending().await,
        }
    }

    /// Never returns. A key can become overused only in a turn in which data moves, and this has its turns with
    /// those.
    async fn warn_of_overused_key(&self, info: &Info) -> std::convert::Infallible {
        let mut warned = false;
        poll_fn(|_| {
            let Some(Reached { facts, traffic, .. }) = info.reached() else { return Poll::Pending };
            if !warned && traffic.key_overused.load(Ordering::Relaxed) {
                warned = true;
                let (up, down) = info.carried();
                let (peer, who, version) = (&info.peer, &info.who, facts.version);
                let records = up.records.max(down.records);
                Event::KeyOverused { peer, who, version, records }.log(self.scope());
            }
            Poll::Pending
        })
        .await
    }
}

/// Returns when a session has lasted its time and is silent, or is not silent for too long after that.
async fn wait_for_lifetime(lifetime: Option<Duration>, info: &Info) {
    match lifetime {
        // Boxed: few sessions have one, and all would pay for it.
        Some(lifetime) => Box::pin(until_lifetime_over(lifetime, info)).await,
        None => std::future::pending().await,
    }
}

async fn until_lifetime_over(lifetime: Duration, info: &Info) {
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
    phase: &mut watch::Receiver<Phase>,
    meter: &Meter,
    is_single: bool,
) -> Cut {
    // An error means that the sender is gone: the process ends.
    if phase.wait_for(|phase| *phase != Phase::Running).await.is_err() || is_single {
        return Cut::Draining;
    }
    // Boxed: every session waits here, and comes to this at most once.
    Box::pin(wait_until_quiet(phase, meter)).await
}

/// The cut of a session that may finish what is under way.
async fn wait_until_quiet(phase: &mut watch::Receiver<Phase>, meter: &Meter) -> Cut {
    loop {
        let quiet = meter.touched() + QUIET_TIME;
        if quiet <= Instant::now() {
            return Cut::Draining;
        }
        tokio::select! {
            () = sleep_until(quiet) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Stopping) => return Cut::DrainExpired,
        }
    }
}
