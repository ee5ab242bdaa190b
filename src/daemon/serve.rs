//! The main loop: answers requests, reloads when asked, and drains at the end.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::active_service::ActiveService;
use super::control::Answer;
use super::expiry_timer::ExpiryTimer;
use super::missing_addresses::MissingRetry;
use super::reload::{ReloadQueue, ReloadRequest};
use super::running::{Running, list_sessions, reopen_log};
use super::status;
use super::{Ended, Load, Pulse, Request};
use crate::tunnel::{LifecyclePhase, SessionOutcome};

impl Running {
    /// Serves, and reloads when it is asked to, until it is asked to stop; then drains.
    pub async fn serve(mut self, load: &Load, mut requests: mpsc::Receiver<Request>) -> Ended {
        let mut only = self.only.take();
        // Reading and binding may take seconds. Sessions go on meanwhile, and a signal to stop is heard.
        let mut reloads = ReloadQueue::new(load.clone());
        let mut timer = ExpiryTimer::new();
        let mut missing = MissingRetry::default();
        let who = loop {
            missing.follow(self.generation, self.misses_any());
            let request = tokio::select! {
                request = requests.recv() => request,
                Some(outcome) = wait_for_only_session(&mut only) => {
                    return match outcome {
                        SessionOutcome::Complete => Ended::Drained,
                        SessionOutcome::Failed => Ended::Failed,
                    };
                }
                step = reloads.step() => {
                    self.proceed_reload(&mut reloads, step).await;
                    continue;
                }
                step = missing.step() => {
                    self.proceed_missing(&mut missing, step);
                    continue;
                }
                is_warning_due = timer.tick() => {
                    self.check_expiry(is_warning_due);
                    continue;
                }
                () = self.manager_notifier.wait_until_due() => {
                    let words = self.words();
                    self.manager_notifier.send_due(&words);
                    continue;
                }
            };
            match request {
                Some(Request::Stop(who)) => break who,
                Some(request) => self.answer(request, &mut reloads),
                // The sender is gone without a word: that is a request to stop as well.
                None => break "end of input",
            }
        };
        for asked in reloads.into_waiting() {
            let _ = asked.send(Answer::Refused("the program is stopping".into()));
        }
        self.drain(who, requests).await
    }

    /// Answers a request, or has its reload begin.
    fn answer(&mut self, request: Request, reloads: &mut ReloadQueue) {
        match request {
            Request::Reload(who) => {
                self.request_reload(
                    reloads,
                    ReloadRequest { who, is_of_configuration: true, ..ReloadRequest::default() },
                );
            }
            Request::Changed { files: changed, unfinished } => {
                let who = "changed files";
                self.request_reload(
                    reloads,
                    ReloadRequest { who, changed, unfinished, ..ReloadRequest::default() },
                );
            }
            Request::Ask(command, asked) => match ReloadRequest::from_command(command, asked) {
                Ok(ask) => self.request_reload(reloads, ask),
                Err((command, asked)) => {
                    let services: Vec<_> = self.services().collect();
                    let view =
                        status::ProgramView { phase: LifecyclePhase::Running, live: &self.live };
                    status::answer(&command, &self.record, &services, &view, asked);
                }
            },
            Request::Pulse(asked) => {
                let listens = self.live.iter().any(ActiveService::listens);
                // The asker may have gone.
                let _ = asked.send(Pulse { phase: LifecyclePhase::Running, listens });
            }
            Request::Traffic(asked) => {
                let _ = asked.send(self.services().map(|one| status::traffic(one)).collect());
            }
            Request::ReopenLog => reopen_log(),
            Request::List => list_sessions(self.services()),
            // Ends the loop above.
            Request::Stop(_) => {}
        }
    }
}

/// Waits for the one session, where there is one.
async fn wait_for_only_session(
    only: &mut Option<JoinHandle<SessionOutcome>>,
) -> Option<SessionOutcome> {
    match only {
        Some(session) => Some(session.await.unwrap_or(SessionOutcome::Failed)),
        None => None,
    }
}
