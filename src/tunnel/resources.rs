//! What the services of a process share: descriptors and memory for sessions, connections and handshakes,
//! the budgets of log lines, and the numbers of sessions.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::admission::{Admission, Pool, SessionSlots};
use super::memory_trimmer::MemoryTrimmer;
use super::snapshot::ServiceSnapshot;
use crate::observe::event::{Event, LogContext};
use crate::observe::rate_limiter::LogRateLimiter;

/// How often at most there is a line of connections that were evicted.
const EVICTED_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Handshakes whose first flight is worked on at the same time, for each processor: one, and one that is
/// ready when it is done.
const TURNS_PER_PROCESSOR: usize = 2;

/// What all services of a process have in common.
#[derive(Debug)]
pub struct ProcessResources {
    /// The number of the next session.
    numbers: AtomicU64,
    /// The budget of lines that strangers can cause.
    pub(super) peer_log: LogRateLimiter,
    /// The same for connections as such, of which busy services have many.
    pub(super) connection_log: LogRateLimiter,
    /// What services use up together that have no limits of their own: descriptors and memory are
    /// the process's.
    capacity: Capacity,
    /// How many identities there are for the slots in there.
    competitors: AtomicUsize,
    /// The room of all connections that have proven nothing yet.
    pub(super) admission: Arc<Admission>,
    /// How many were evicted of it, for the log.
    evicted: Mutex<EvictedCount>,
    pub(super) memory_trimmer: Arc<MemoryTrimmer>,
}

/// Connections that were evicted to make room, and not told yet.
#[derive(Debug, Default)]
struct EvictedCount {
    count: u64,
    /// When the last line of them was written.
    last_logged: Option<Instant>,
}

/// What all services of a process have room for together.
#[derive(Debug, Clone, Copy)]
pub struct ProcessLimits {
    /// Sessions, of services without a limit of their own.
    pub sessions: usize,
    /// Connections without a session.
    pub connections: usize,
    /// Of them, those in a handshake, of services without a limit of their own.
    pub handshakes: usize,
}

impl ProcessResources {
    /// Room for all services.
    pub fn new(room: ProcessLimits) -> Arc<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let admission = Admission::new(room.connections, processors * TURNS_PER_PROCESSOR);
        Arc::new(Self {
            numbers: AtomicU64::new(0),
            peer_log: LogRateLimiter::default(),
            connection_log: LogRateLimiter::new(200, Duration::from_millis(20)),
            capacity: Capacity {
                slots: SessionSlots::new(room.sessions),
                service_limit: None,
                handshakes: admission.pool(room.handshakes),
            },
            competitors: AtomicUsize::new(0),
            admission,
            evicted: Mutex::default(),
            memory_trimmer: Arc::default(),
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
    pub(super) fn capacity_for(&self, limits: ServiceLimits) -> Capacity {
        let mut capacity = self.capacity.clone();
        capacity.follow(limits, self);
        capacity
    }

    /// Has those who were evicted counted in the log: the first at once, and then all of some seconds in
    /// one line.
    pub(super) fn report_evicted(&self) {
        let mut evicted = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
        evicted.count += self.admission.take_evicted();
        let now = Instant::now();
        let since = evicted
            .last_logged
            .map_or(Duration::ZERO, |last_logged| now.duration_since(last_logged));
        if evicted.count == 0 || evicted.last_logged.is_some() && since < EVICTED_LOG_INTERVAL {
            return;
        }
        let count = std::mem::take(&mut evicted.count);
        evicted.last_logged = Some(now);
        drop(evicted);
        Event::PutOut { count, within: since }.log(LogContext::PROGRAM);
    }

    /// Says what was withheld and not yet said.
    pub fn report_suppressed_now(&self) {
        self.peer_log.report_withheld();
        self.connection_log.report_withheld();
        self.report_evicted();
    }

    /// Has withheld lines counted in the log, now and then, until the process ends.
    pub async fn report_suppressed(&self) {
        loop {
            sleep(Duration::from_secs(10)).await;
            self.report_suppressed_now();
        }
    }
}

/// The limits of its own that a service has; what is unset counts in the process's.
#[derive(Debug, Clone, Copy)]
pub struct ServiceLimits {
    /// Sessions at once.
    pub sessions: Option<usize>,
    /// Handshakes at once.
    pub handshakes: Option<usize>,
}

/// What is there to be used up.
#[derive(Debug, Clone)]
pub(super) struct Capacity {
    pub(super) slots: Arc<SessionSlots>,
    /// The service's own limit of sessions. It counts every session of the service, those too that
    /// took their slots before there was one.
    pub(super) service_limit: Option<usize>,
    pub(super) handshakes: Arc<Pool>,
}

impl Capacity {
    /// Follows the limits. A service that keeps one keeps its count as well.
    pub(super) fn follow(&mut self, limits: ServiceLimits, process: &ProcessResources) {
        let (shared, admission) = (&process.capacity, &process.admission);
        self.service_limit = limits.sessions;
        match limits.sessions {
            None => self.slots = shared.slots.clone(),
            Some(limit) if Arc::ptr_eq(&self.slots, &shared.slots) => {
                self.slots = SessionSlots::new(limit);
            }
            Some(limit) => self.slots.set_limit(limit),
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

/// The identities of a service among those for whom the shared slots are; taken back on drop.
#[derive(Debug)]
pub(super) struct Competitors {
    shared: Arc<ProcessResources>,
    count: usize,
}

impl Competitors {
    pub(super) fn of(
        snapshot: &ServiceSnapshot,
        limits: ServiceLimits,
        shared: &Arc<ProcessResources>,
    ) -> Self {
        let count = if limits.sessions.is_none() { snapshot.competitors } else { 0 };
        shared.competitors.fetch_add(count, Ordering::Relaxed);
        Self { shared: shared.clone(), count }
    }
}

impl Drop for Competitors {
    fn drop(&mut self) {
        self.shared.competitors.fetch_sub(self.count, Ordering::Relaxed);
    }
}
