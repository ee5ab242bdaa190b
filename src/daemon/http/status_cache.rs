//! Where the answers come from: the main loop is asked now and then, however often somebody asks here.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::daemon::control::{Answer, ControlCommand};
use crate::daemon::{Pulse, Request, run_on_thread};
use crate::observe::prometheus::{self, ExpositionFormat};
use crate::observe::status::Status;
use crate::sys::usage;

/// How long the main loop may take to answer before it counts as stuck.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// How old an answer may be. With ten thousand sessions one is megabytes, and takes milliseconds of
/// the one thread that there is.
const MAX_AGE: Duration = Duration::from_millis(200);
/// And so many times as old as it took to make: with a hundred thousand identities that is half a second
/// of one core, of which a neighbour on this machine gets a tenth at most.
const AGE_PER_COST: u32 = 10;
/// The least time between two answers to connections that had one before.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// The pause after a first answer of so many bytes is a millisecond, and with more up to [`MIN_INTERVAL`]. How often
/// there is a first answer is limited by how often a connection is accepted.
const BYTES_PER_MS: u64 = 64 * 1024;

/// A form that a status is given in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusFormat {
    Json,
    Metrics(ExpositionFormat),
}

/// Answers the questions of one window.
#[derive(Debug)]
pub(super) struct StatusCache {
    requests: mpsc::Sender<Request>,
    labels: watch::Receiver<usize>,
    kept: Mutex<Option<CachedStatus>>,
    next: Mutex<Instant>,
    next_first: Mutex<Instant>,
}

/// The last status, and the forms that somebody has wanted of it.
#[derive(Debug)]
struct CachedStatus {
    since: Instant,
    /// For how long it is good enough.
    fresh: Duration,
    status: Arc<Status>,
    written: Vec<(StatusFormat, Bytes)>,
}

impl StatusCache {
    pub(super) fn new(requests: mpsc::Sender<Request>, labels: watch::Receiver<usize>) -> Self {
        let (next, next_first) = (Mutex::new(Instant::now()), Mutex::new(Instant::now()));
        Self { requests, labels, kept: Mutex::new(None), next, next_first }
    }

    /// Waits until it is one's turn: the queue is as long as there are connections.
    pub(super) async fn turn(&self) {
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        *next = Instant::now() + MIN_INTERVAL;
    }

    /// The same for the first request of a connection, which does not wait behind those that others go on to
    /// ask: a scrape is one.
    pub(super) async fn first_turn(&self) {
        let next = self.next_first.lock().await;
        sleep_until(*next).await;
    }

    /// Takes note of a first answer's size.
    pub(super) async fn gave_first(&self, bytes: u64) {
        let pause = Duration::from_millis(bytes / BYTES_PER_MS).min(MIN_INTERVAL);
        let mut next = self.next_first.lock().await;
        *next = (*next).max(Instant::now()) + pause;
    }

    /// Whether the main loop answers, and in which phase it is. Not behind a status that is being made,
    /// which with a hundred thousand identities takes longer than a prober waits.
    pub(super) async fn pulse(&self) -> Option<Pulse> {
        let asked = async {
            let (reply, answer) = oneshot::channel();
            self.requests.send(Request::Pulse(reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(STATUS_TIMEOUT, asked).await.ok()?
    }

    /// The program as it is now, as text. None when its main loop does not answer, or when it cannot be
    /// written.
    pub(super) async fn written(&self, form: StatusFormat) -> Option<Bytes> {
        let fresh = async {
            let mut kept = self.kept.lock().await;
            let kept = self.refreshed(&mut kept).await?;
            let known = kept.written.iter().find(|(known, _)| *known == form);
            if let Some((_, text)) = known {
                return Some(text.clone());
            }
            let text = self.write(&kept.status, form).await?;
            kept.written.push((form, text.clone()));
            Some(text)
        };
        timeout(STATUS_TIMEOUT, fresh).await.ok()?
    }

    async fn refreshed<'a>(
        &self,
        kept: &'a mut Option<CachedStatus>,
    ) -> Option<&'a mut CachedStatus> {
        if kept.as_ref().is_none_or(|kept| kept.since.elapsed() >= kept.fresh) {
            let asked = Instant::now();
            let status = Arc::new(self.ask().await?);
            let since = Instant::now();
            let fresh = MAX_AGE.max((since - asked) * AGE_PER_COST);
            *kept = Some(CachedStatus { since, fresh, status, written: Vec::new() });
        }
        kept.as_mut()
    }

    async fn ask(&self) -> Option<Status> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Ask(ControlCommand::Status, reply)).await.ok()?;
        match answer.await {
            Ok(Answer::Status(status)) => Some(*status),
            _ => None,
        }
    }

    async fn write(&self, status: &Arc<Status>, form: StatusFormat) -> Option<Bytes> {
        let labels = *self.labels.borrow();
        if status.is_large() {
            let status = status.clone();
            return run_on_thread(move || write(&status, form, labels)).await?;
        }
        write(status, form, labels)
    }
}

fn write(status: &Status, form: StatusFormat, labels: usize) -> Option<Bytes> {
    match form {
        StatusFormat::Json => serde_json::to_vec(status).ok().map(Bytes::from),
        StatusFormat::Metrics(format) => {
            prometheus::render(status, &usage::read_usage(), labels, format).ok().map(Bytes::from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::LifecyclePhase;

    fn run<F: Future>(test: F) -> F::Output {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
    }

    #[test]
    fn a_main_loop_that_is_stuck_is_found_out_in_two_seconds() {
        run(async {
            let (sender, _nobody_reads) = mpsc::channel(1);
            let cache = StatusCache::new(sender, watch::channel(1).1);
            for _ in 0..3 {
                let start = Instant::now();
                assert_eq!(cache.pulse().await, None);
                assert_eq!(cache.written(StatusFormat::Json).await, None);
                assert_eq!(start.elapsed().as_secs(), 4);
            }
        });
    }

    #[test]
    fn a_thousand_questions_are_a_few_to_the_main_loop_and_the_answers_stay_fresh() {
        run(async {
            let (sender, mut requests) = mpsc::channel(1);
            let main_loop = tokio::spawn(async move {
                let mut asked = 0_u64;
                while let Some(request) = requests.recv().await {
                    let Request::Ask(_, reply) = request else { continue };
                    asked += 1;
                    let status = Status { log_lines_lost: asked, ..Status::default() };
                    let _ = reply.send(Answer::Status(Box::new(status)));
                }
                asked
            });
            let cache = StatusCache::new(sender, watch::channel(1).1);
            let start = Instant::now();
            let mut last = 0;
            for _ in 0..1000 {
                cache.turn().await;
                let text = cache.written(StatusFormat::Json).await.unwrap();
                let status: Status = serde_json::from_slice(&text).unwrap();
                last = status.log_lines_lost;
            }
            let lasted = start.elapsed();
            drop(cache);
            assert!(lasted >= MIN_INTERVAL * 999, "{lasted:?}");
            let asked = main_loop.await.unwrap();
            assert!(asked >= 20 && asked <= 1 + lasted.as_millis() as u64 / 200, "{asked}");
            assert_eq!(asked, last);
        });
    }

    #[test]
    fn a_pulse_does_not_wait_for_a_status_that_takes_its_time() {
        run(async {
            let (sender, mut requests) = mpsc::channel(1);
            let main_loop = tokio::spawn(async move {
                let mut held = Vec::new();
                while let Some(request) = requests.recv().await {
                    match request {
                        Request::Pulse(reply) => {
                            let _ =
                                reply.send(Pulse { phase: LifecyclePhase::Running, listens: true });
                            if !held.is_empty() {
                                return;
                            }
                        }
                        never_answered => held.push(never_answered),
                    }
                }
            });
            let cache = StatusCache::new(sender, watch::channel(1).1);
            let (status, pulse) = tokio::join!(cache.written(StatusFormat::Json), async {
                tokio::task::yield_now().await;
                let start = Instant::now();
                (cache.pulse().await, start.elapsed())
            });
            assert_eq!(pulse.0, Some(Pulse { phase: LifecyclePhase::Running, listens: true }));
            assert!(pulse.1 < MAX_AGE, "{:?}", pulse.1);
            assert_eq!(status, None);
            main_loop.await.unwrap();
        });
    }
}
