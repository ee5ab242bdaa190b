//! The end of the program: no new connections, and some time for the open sessions.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::running::{Running, list_sessions, reopen_log};
use super::service_manager;
use super::status::{self, ReloadHistory};
use super::{Ended, Pulse, Request};
use crate::observe::event::{Event, LogContext};
use crate::observe::metrics::Totals;
use crate::tunnel::{LifecyclePhase, Service};

/// How long sessions that the deadline ends have to send FIN.
const FIN_TIMEOUT: Duration = Duration::from_secs(1);

impl Running {
    /// Lets sessions end until the drain timeout, or until a second request to stop. `who` asked for the stop.
    pub(super) async fn drain(
        self,
        who: &'static str,
        mut requests: mpsc::Receiver<Request>,
    ) -> Ended {
        // The management listeners stay to the end: they show which sessions are left.
        let Self {
            live,
            drain,
            alive,
            resources,
            record,
            management,
            mut all_gone,
            mut manager_notifier,
            ..
        } = self;
        Event::Draining { signal: who, limit: drain }.log(LogContext::PROGRAM);
        let services: Vec<_> = live.into_iter().map(|live| live.service).collect();
        let words = || {
            service_manager::stopping_words(services.iter().map(|service| service.count()).sum())
        };
        manager_notifier.stopping(drain, &words());
        for service in &services {
            service.set_phase(LifecyclePhase::Draining);
        }
        // Sessions and listeners hold a clone each; this one would keep `all_gone` waiting.
        drop(alive);
        let ended = tokio::select! {
            _ = all_gone.recv() => Ended::Drained,
            () = wait_for_deadline(drain, &services) => Ended::Drained,
            () = wait_for_second_stop(&mut requests, &services, &record) => Ended::Forced,
            never = manager_notifier.send_due_forever(words) => match never {},
        };
        drop(management);
        resources.report_suppressed_now();
        let mut totals = Totals::default();
        services.iter().for_each(|service| service.counters.add_to(&mut totals));
        Event::Stopped { totals: &totals }.log(LogContext::PROGRAM);
        ended
    }
}

/// Answers requests until one asks to stop again.
async fn wait_for_second_stop(
    requests: &mut mpsc::Receiver<Request>,
    services: &[Arc<Service>],
    record: &ReloadHistory,
) {
    loop {
        match requests.recv().await {
            Some(Request::Stop(_)) => return,
            // A reload now would change nothing that is of use.
            Some(Request::Reload(_) | Request::Changed { .. }) => {}
            Some(Request::ReopenLog) => reopen_log(),
            Some(Request::List) => list_sessions(services.iter()),
            Some(Request::Ask(command, asked)) => {
                let services: Vec<_> = services.iter().collect();
                let view = status::ProgramView { phase: LifecyclePhase::Draining, live: &[] };
                status::answer(&command, record, &services, &view, asked);
            }
            Some(Request::Pulse(asked)) => {
                let _ = asked.send(Pulse { phase: LifecyclePhase::Draining, listens: false });
            }
            Some(Request::Traffic(asked)) => {
                let _ = asked.send(services.iter().map(|one| status::traffic(one)).collect());
            }
            None => std::future::pending().await,
        }
    }
}

/// Lets sessions run to the deadline, and gives those that it ends the time to send FIN.
async fn wait_for_deadline(drain: Duration, services: &[Arc<Service>]) {
    tokio::time::sleep(drain).await;
    for service in services {
        service.set_phase(LifecyclePhase::Stopping);
    }
    tokio::time::sleep(FIN_TIMEOUT).await;
}
