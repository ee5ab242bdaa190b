//! What the services of a process share: descriptors and memory for sessions, connections and handshakes,
//! the budgets of log lines, and the numbers of sessions.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::admission::{Admission, Pool, Seats};
use super::crowd::Crowd;
use super::setup::Setup;
use crate::observe::event::{Event, Scope};
use crate::observe::limit::Limiter;

/// How often at most there is a line of connections that were put out.
const PUT_OUT_INTERVAL: Duration = Duration::from_secs(10);
/// Handshakes whose first flight is worked on at the same time, for each processor: one, and one that is
/// ready when it is done.
const TURNS_PER_PROCESSOR: usize = 2;

/// What all services of a process have in common.
#[derive(Debug)]
pub struct Shared {
    /// The number of the next session.
    numbers: AtomicU64,
    /// The budget of lines that strangers can cause.
    pub(super) limiter: Limiter,
    /// The same for connections as such, of which busy services have many.
    pub(super) arrivals: Limiter,
    /// What services use up together that have no limits of their own: descriptors and memory are
    /// the process's.
    capacity: Capacity,
    /// How many identities there are for the seats in there.
    competitors: AtomicUsize,
    /// The room of all connections that have proven nothing yet.
    pub(super) admission: Arc<Admission>,
    /// How many were put out of it, for the log.
    put_out: Mutex<PutOut>,
    pub(super) crowd: Arc<Crowd>,
}

/// Connections that were put out to make room, and not told yet.
#[derive(Debug, Default)]
struct PutOut {
    count: u64,
    /// When the last line of them was written.
    told: Option<Instant>,
}

/// What all services of a process have room for together.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Sessions, of services without a limit of their own.
    pub sessions: usize,
    /// Connections without a session.
    pub connections: usize,
    /// Of them, those in a handshake, of services without a limit of their own.
    pub handshakes: usize,
}

impl Shared {
    /// Room for all services.
    pub fn new(room: Room) -> Arc<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let admission = Admission::new(room.connections, processors * TURNS_PER_PROCESSOR);
        Arc::new(Self {
            numbers: AtomicU64::new(0),
            limiter: Limiter::default(),
            arrivals: Limiter::new(200, Duration::from_millis(20)),
            capacity: Capacity {
                seats: Seats::new(room.sessions),
                own: None,
                handshakes: admission.pool(room.handshakes),
            },
            competitors: AtomicUsize::new(0),
            admission,
            put_out: Mutex::default(),
            crowd: Arc::default(),
        })
    }

    /// The number of the next session.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// How many identities compete for the sessions that services share.
    pub(super) fn competitors(&self) -> usize {
        self.competitors.load(Ordering::Relaxed)
    }

    /// What a service with those limits has room for.
    pub(super) fn capacity_for(&self, limits: Limits) -> Capacity {
        let mut capacity = self.capacity.clone();
        capacity.follow(limits, self);
        capacity
    }

    /// Has those who were put out counted in the log: the first at once, and then all of some seconds in
    /// one line.
    pub(super) fn report_put_out(&self) {
        let mut put_out = self.put_out.lock().unwrap_or_else(PoisonError::into_inner);
        put_out.count += self.admission.take_put_out();
        let now = Instant::now();
        let since = put_out.told.map_or(Duration::ZERO, |told| now.duration_since(told));
        if put_out.count == 0 || put_out.told.is_some() && since < PUT_OUT_INTERVAL {
            return;
        }
        let count = std::mem::take(&mut put_out.count);
        put_out.told = Some(now);
        drop(put_out);
        Event::PutOut { count, within: since }.log(Scope::PROGRAM);
    }

    /// Says what was withheld and not yet said.
    pub fn settle_now(&self) {
        self.limiter.settle();
        self.arrivals.settle();
        self.report_put_out();
    }

    /// Has withheld lines counted in the log, now and then, until the process ends.
    pub async fn settle(&self) {
        loop {
            sleep(Duration::from_secs(10)).await;
            self.settle_now();
        }
    }
}

/// The limits of its own that a service has; what is unset counts in the process's.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sessions at once.
    pub sessions: Option<usize>,
    /// Handshakes at once.
    pub handshakes: Option<usize>,
}

/// What is there to be used up.
#[derive(Debug, Clone)]
pub(super) struct Capacity {
    pub(super) seats: Arc<Seats>,
    /// The service's own limit of sessions. It counts every session of the service, those too that
    /// took their seats before there was one.
    pub(super) own: Option<usize>,
    pub(super) handshakes: Arc<Pool>,
}

impl Capacity {
    /// Follows the limits. A service that keeps one keeps its count as well.
    pub(super) fn follow(&mut self, limits: Limits, process: &Shared) {
        let (shared, admission) = (&process.capacity, &process.admission);
        self.own = limits.sessions;
        match limits.sessions {
            None => self.seats = shared.seats.clone(),
            Some(limit) if Arc::ptr_eq(&self.seats, &shared.seats) => {
                self.seats = Seats::new(limit);
            }
            Some(limit) => self.seats.set_limit(limit),
        }
        match limits.handshakes {
            None => self.handshakes = shared.handshakes.clone(),
            Some(limit) if Arc::ptr_eq(&self.handshakes, &shared.handshakes) => {
                self.handshakes = admission.pool(limit);
            }
            Some(limit) => self.handshakes.set_limit(limit),
        }
    }
}

/// The identities of a service among those for whom the shared seats are; taken back on drop.
#[derive(Debug)]
pub(super) struct Competitors {
    shared: Arc<Shared>,
    count: usize,
}

impl Competitors {
    pub(super) fn of(setup: &Setup, limits: Limits, shared: &Arc<Shared>) -> Self {
        let count = if limits.sessions.is_none() { setup.competitors } else { 0 };
        shared.competitors.fetch_add(count, Ordering::Relaxed);
        Self { shared: shared.clone(), count }
    }
}

impl Drop for Competitors {
    fn drop(&mut self) {
        self.shared.competitors.fetch_sub(self.count, Ordering::Relaxed);
    }
}
