//! A stopwatch beside a control. A machine with more to do than it can makes every program late; how late,
//! the control says: a thread that computes and rests by turns, whose time on an idle machine is known.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Processor time of the control between two rests. Longer than a scheduler's slice: the first one is had
/// at once, also on a busy machine.
const WORK: Duration = Duration::from_millis(5);
const REST: Duration = Duration::from_millis(20);

/// How often a limit is extended by what the control lost. What is measured takes a chain of steps in
/// several processes, and each of them waits for a processor as the control does.
const STEPS: u32 = 4;

/// How many of its limit a wait takes at most that is expected to be in vain.
const LONGEST_WAIT: u32 = 4;

/// Stopwatches that run, and whether their control does: one for all.
static RUNNING: Mutex<(usize, bool)> = Mutex::new((0, false));
/// Microseconds that it has lost so far, and its turns.
static LOST: AtomicU64 = AtomicU64::new(0);
static TURNS: AtomicU64 = AtomicU64::new(0);

/// Measures from its start on.
pub struct Stopwatch {
    start: Instant,
    lost_before: u64,
}

impl Stopwatch {
    pub fn start() -> Self {
        let mut running = RUNNING.lock().expect("nobody fails with it");
        running.0 += 1;
        if !running.1 {
            running.1 = true;
            std::thread::spawn(compute_and_rest);
        }
        Self { start: Instant::now(), lost_before: LOST.load(Ordering::Acquire) }
    }

    /// How long it has run. What must not happen too early is held against this alone, with a start from
    /// before its cause.
    pub fn lasted(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether something that an idle machine does within `limit` may still happen. A wait for what does
    /// not happen ends.
    pub fn is_within(&self, limit: Duration) -> bool {
        self.lasted() < (limit + self.lost() * STEPS).min(limit * LONGEST_WAIT)
    }

    /// Fails when what it measured took longer than `limit` and what the machine took.
    #[track_caller]
    pub fn expect_within(self, limit: Duration) {
        let lasted = self.lasted();
        // The turn that the control is at belongs to it.
        let turns = TURNS.load(Ordering::Acquire);
        while lasted >= limit && TURNS.load(Ordering::Acquire) < turns + 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let lost = self.lost();
        assert!(
            lasted < limit + lost * STEPS,
            "it took {lasted:?} instead of {limit:?}; a thread beside it lost {lost:?} to others"
        );
    }

    /// Whether the control has lost much of the time: to promise anything the machine has too much to do.
    pub fn is_machine_busy(&self) -> bool {
        self.lost() * 10 > self.lasted()
    }

    fn lost(&self) -> Duration {
        Duration::from_micros(LOST.load(Ordering::Acquire) - self.lost_before)
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        if let Ok(mut running) = RUNNING.lock() {
            running.0 -= 1;
        }
    }
}

/// The control, for as long as there is a stopwatch.
fn compute_and_rest() {
    while is_wanted() {
        let (start, before) = (Instant::now(), processor_time());
        while processor_time() - before < WORK {}
        std::thread::sleep(REST);
        let took = processor_time() - before + REST;
        let late = start.elapsed().saturating_sub(took);
        LOST.fetch_add(u64::try_from(late.as_micros()).unwrap_or(0), Ordering::AcqRel);
        TURNS.fetch_add(1, Ordering::AcqRel);
    }
}

/// Whether a stopwatch runs; the control ends if not.
fn is_wanted() -> bool {
    RUNNING.lock().is_ok_and(|mut running| {
        running.1 = running.0 > 0;
        running.1
    })
}

/// Of this thread, so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
