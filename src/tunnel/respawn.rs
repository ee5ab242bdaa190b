//! The program in place of a listener: its one connection is carried, and when that has ended, it is
//! started again if the operator says so.

use std::sync::Arc;
#[cfg(unix)]
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
#[cfg(unix)]
use tokio::time::{Instant, sleep};

#[cfg(unix)]
use super::service::LifecyclePhase;
use super::service::Service;
#[cfg(unix)]
use super::session::Session;
use crate::config::model::Program;
#[cfg(unix)]
use crate::net::{self, StartedProgram};
use crate::observe::event::Event;

/// A program that is kept running.
#[derive(Debug)]
pub struct Respawn {
    program: Program,
    task: JoinHandle<()>,
    /// Dropped, it is not started again. What runs may finish.
    _stop: oneshot::Sender<()>,
}

impl Respawn {
    /// Starts the program of a service, if it has one. A clone of `alive` lives as long as it is kept
    /// running.
    pub fn of(service: &Arc<Service>, alive: &mpsc::Sender<()>) -> Option<Self> {
        let (program, _) = service.snapshot().program.clone()?;
        let (stop, stopped) = oneshot::channel();
        let (service, alive) = (service.clone(), alive.clone());
        let task = tokio::spawn(async move {
            keep_running(service, stopped).await;
            drop(alive);
        });
        Some(Self { program, task, _stop: stop })
    }

    /// Whether it goes on under what the service is now: the same program, and not over.
    pub fn goes_on(&self, service: &Service) -> bool {
        let snapshot = service.snapshot();
        let now = snapshot.program.as_ref();
        now.is_some_and(|(program, _)| program.is_like(&self.program)) && !self.task.is_finished()
    }
}

/// Programs are started on Unix alone.
#[cfg(not(unix))]
async fn keep_running(service: Arc<Service>, _: oneshot::Receiver<()>) {
    let Some((program, _)) = service.snapshot().program.clone() else { return };
    let name = program.path.value.display();
    let error = std::io::ErrorKind::Unsupported.into();
    Event::NotSpawned { program: &name, error: &error }.log(service.scope(None));
}

#[cfg(unix)]
async fn keep_running(service: Arc<Service>, mut stop: oneshot::Receiver<()>) {
    let mut phase = service.phase();
    Event::Spawning.log(service.scope(None));
    loop {
        let Some((program, _)) = service.snapshot().program.clone() else { return };
        let number = service.next_number();
        match net::start_program(&program, None).await {
            Ok(StartedProgram { socket, peer, child }) => {
                service.log_child(number, child);
                let there = service.memory_trimmer().track();
                let mut session = Session::new(service.clone(), number, peer, Instant::now());
                session.run(socket).await;
                drop(there);
            }
            Err(error) => {
                let name = program.path.value.display();
                service.record_failure(format!("cannot run {name}: {error}"));
                Event::NotSpawned { program: &name, error: &error }
                    .log(service.scope(Some(number)));
            }
        }
        let Some((_, Some(pause))) = service.snapshot().program.clone() else { return };
        let over = *phase.borrow() != LifecyclePhase::Running
            || !matches!(stop.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        if over {
            return;
        }
        let pause = later(pause);
        Event::Respawning { pause }.log(service.scope(Some(number)));
        tokio::select! {
            () = sleep(pause) => {}
            _ = phase.wait_for(|phase| *phase != LifecyclePhase::Running) => return,
            _ = &mut stop => return,
        }
    }
}

/// Up to a quarter more, by chance: after a restart of their server, many ends should not all come back
/// in one moment.
#[cfg(unix)]
fn later(pause: Duration) -> Duration {
    let chance = getrandom::u32().unwrap_or_default();
    pause + pause.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 4.0)
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_pause_is_never_shorter_than_it_was_said_and_spread_over_a_quarter_more() {
        let pause = Duration::from_secs(4);
        let mut tenths = [0; 10];
        for _ in 0..1000 {
            let more = later(pause).checked_sub(pause).unwrap();
            assert!(more <= pause / 4, "{more:?}");
            let tenth = more.as_nanos() * 10 / (pause / 4).as_nanos();
            tenths[usize::try_from(tenth).unwrap().min(9)] += 1;
        }
        // Each has 100 in the mean. That one has less than 50 happens in fewer than one run of a million.
        assert!(tenths.iter().all(|&count| count >= 50), "{tenths:?}");
    }
}
