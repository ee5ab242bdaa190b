//! Who may enter: four stages that a connection to a server end goes through before it has a slot, so that
//! strangers crowd out only each other, and a burst of clients with keys waits where a flood is thinned
//! out.
//!
//! 1. *Arrivals*: the ClientHello is not whole yet. About 2.5 kB each, and no SSL object.
//! 2. *Waiting*: it is whole, and handshakes are begun by turns, one of each network.
//! 3. *Unproven*: in the handshake; bounded by memory.
//! 4. *Shown*: TLS 1.3, the ClientHello's binder verified, the client's Finished missing.
//!
//! The policy is in [`stages`] and what it is made of, and knows neither sockets nor clocks. Here are the
//! handles by which connections go through it.

mod arrivals;
mod groups;
mod handshakes;
mod network;
mod replays;
mod reputation;
mod signal;
mod slots;
mod stages;
mod trend;
mod turns;

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::secrets::Identity;
use crate::tls::Binder;
use network::networks_of;
pub(super) use network::{SourceAddress, source_address};
use signal::Signal;
pub(super) use slots::{SessionSlot, SessionSlots};
use stages::{Bounds, Stages};

/// A connection, and a set of handshakes that share a limit.
type Id = u64;
type PoolId = u64;

/// How long somebody waits for a turn. It does not count as time of the handshake.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The room of all services together.
#[derive(Debug)]
pub(super) struct Admission {
    stages: Mutex<AdmissionTable>,
    /// Somebody has left.
    left: Notify,
}

#[derive(Debug)]
struct AdmissionTable {
    stages: Stages,
    /// When turns are given next without anybody leaving, if somebody sees to that.
    alarm: Option<Instant>,
}

impl Admission {
    /// For so many connections without a slot. So many first flights are worked on at the same time.
    pub(super) fn new(connections: usize, turns: usize) -> Arc<Self> {
        let bounds = Bounds { connections: connections.max(1), max_turns: turns.max(1) };
        let table = AdmissionTable { stages: Stages::new(bounds), alarm: None };
        Arc::new(Self { stages: Mutex::new(table), left: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, AdmissionTable> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A set of handshakes with a limit of its own.
    pub(super) fn pool(self: &Arc<Self>, limit: usize) -> Arc<Pool> {
        let id = self.lock().stages.add_pool(limit);
        Arc::new(Pool { admission: self.clone(), id })
    }

    /// Waits for room for a connection from there; a trusted proxy that has not said yet for whom it
    /// connects is from nowhere. Cancel safe.
    pub(super) async fn arrive(
        self: &Arc<Self>,
        origin: ConnectionOrigin,
        round_trip: Option<Duration>,
    ) -> PendingConnection {
        let protection = arrivals::protection(round_trip);
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // From here on nobody's leaving is missed.
            left.as_mut().enable();
            let arrived = self.lock().stages.arrive(origin.networks(), protection, Instant::now());
            match arrived {
                Ok((id, signal)) => {
                    return PendingConnection { admission: self.clone(), id, signal };
                }
                Err(until) => tokio::select! {
                    () = left => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    /// Has one of those go who have proven nothing, because the system has no more descriptors. Whether
    /// there was one.
    pub(super) fn shed(self: &Arc<Self>) -> bool {
        self.change(Stages::shed)
    }

    /// How many were evicted since this was asked last.
    pub(super) fn take_evicted(&self) -> u64 {
        self.lock().stages.take_evicted()
    }

    /// Changes the table, and gives the turns that come of it.
    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Stages, Instant) -> T) -> T {
        let now = Instant::now();
        let mut table = self.lock();
        let changed = change(&mut table.stages, now);
        self.give_turns(&mut table, now);
        changed
    }

    fn give_turns(self: &Arc<Self>, table: &mut AdmissionTable, now: Instant) {
        let Some(next) = table.stages.give_turns(now) else { return };
        if table.alarm.is_some_and(|alarm| alarm <= next) {
            return;
        }
        // Without a runtime the process is at its end.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        table.alarm = Some(next);
        let admission = Arc::downgrade(self);
        runtime.spawn(async move {
            sleep_until(next).await;
            let Some(admission) = admission.upgrade() else { return };
            let mut table = admission.lock();
            if table.alarm == Some(next) {
                table.alarm = None;
                admission.give_turns(&mut table, Instant::now());
            }
        });
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum ConnectionOrigin {
    /// An address, or this machine's own Unix sockets.
    Peer(Option<IpAddr>),
    /// A trusted proxy that has not said yet for whom it connects.
    Proxy,
}

impl ConnectionOrigin {
    fn networks(self) -> Vec<network::Network> {
        match self {
            Self::Peer(ip) => networks_of(ip),
            Self::Proxy => vec![network::Network::Unnamed],
        }
    }
}

/// Handshakes that share a limit, for as long as anybody has it.
#[derive(Debug)]
pub(super) struct Pool {
    admission: Arc<Admission>,
    id: PoolId,
}

impl Pool {
    pub(super) fn set_limit(&self, limit: usize) {
        self.admission.change(|stages, _| stages.set_pool_limit(self.id, limit));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.admission.lock().stages.remove_pool(self.id);
    }
}

/// A connection on its way through the stages; it leaves them when this is dropped.
#[derive(Debug)]
pub(super) struct PendingConnection {
    admission: Arc<Admission>,
    id: Id,
    signal: Arc<Signal>,
}

/// How waiting for a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnOutcome {
    /// Its handshake may begin. The turn lasts until [`PendingConnection::end_first_flight`].
    Turn,
    /// It has to go.
    Evicted,
}

impl PendingConnection {
    /// Returns when its place is needed for somebody else.
    pub(super) async fn wait_until_evicted(&self) {
        poll_fn(|cx| self.signal.poll_until(cx, Signal::is_evicted)).await;
    }

    /// It has nothing to prove: it waits for a slot at most.
    pub(super) fn exempt(&self) {
        self.admission.change(|stages, _| stages.exempt(self.id));
    }

    /// A proxy has said for whom it connects.
    pub(super) fn set_peer(&self, ip: Option<IpAddr>) {
        self.admission.change(|stages, now| stages.set_networks(self.id, networks_of(ip), now));
        // Whoever waits for room may have it now.
        self.admission.left.notify_waiters();
    }

    /// Says how much of the room it takes.
    pub(super) fn set_weight(&self, weight: usize) {
        self.admission.change(|stages, now| stages.set_room_weight(self.id, weight, now));
    }

    /// Waits for a turn in that pool, which must stay as long as this.
    pub(super) async fn wait_turn(&self, pool: &Pool, weight: usize) -> TurnOutcome {
        self.admission.change(|stages, now| stages.enqueue_for_turn(self.id, pool.id, weight, now));
        let told = |signal: &Signal| signal.has_turn() || signal.is_evicted();
        let waited = timeout(MAX_WAIT, poll_fn(|cx| self.signal.poll_until(cx, told))).await;
        match waited {
            Ok(()) if !self.signal.is_evicted() => TurnOutcome::Turn,
            Ok(()) => TurnOutcome::Evicted,
            Err(_) => {
                self.admission.change(|stages, now| stages.evict(self.id, now));
                TurnOutcome::Evicted
            }
        }
    }

    /// Its first flight has been worked on.
    pub(super) fn end_first_flight(&self) {
        self.admission.change(|stages, _| stages.end_first_flight(self.id));
    }

    /// It begins again with a ClientHello of any length.
    pub(super) fn set_handshake_weight(&self, weight: usize) {
        self.admission.change(|stages, _| stages.set_handshake_weight(self.id, weight));
    }

    /// The binder of its ClientHello was verified, with the key of that identity.
    pub(super) fn set_shown(&self, who: Identity, binder: Binder) {
        self.admission.change(|stages, now| stages.set_shown(self.id, who, binder, now));
    }

    /// Its key is proven.
    pub(super) fn set_proven(&self) {
        self.admission.change(|stages, now| stages.set_proven(self.id, now));
    }

    /// It was refused, and may read why.
    pub(super) fn begin_linger(&self) {
        self.admission.change(|stages, now| stages.begin_linger(self.id, now));
    }
}

impl Drop for PendingConnection {
    fn drop(&mut self) {
        self.admission.change(|stages, now| stages.leave(self.id, now));
        self.admission.left.notify_waiters();
    }
}
