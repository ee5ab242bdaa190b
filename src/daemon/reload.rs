//! Reload: the keys of services at work are read and take effect file by file, whatever else is wrong. The
//! rest is built whole and bound, then committed; a failure at any step of that changes nothing else.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::build::HeldListeners;
use super::control::{Answer, ControlCommand};
use super::key_renewal::{KeyRenewal, ServiceInForce};
use super::retry::{self, ConfigDigests, RetriedAction, Retry};
use super::{Load, Running, one_line, warn};
use crate::config::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::config::model::{Level, LogConfig};
use crate::observe::event::{Event, LogContext};
use crate::observe::log;

mod commit;
mod read;
#[cfg(test)]
mod tests;
use commit::NextGeneration;
use read::{ReloadRefusal, ReloadResult};

/// How long keys that were read wait for the rest of their reload: an identity that moves from one key file
/// to another, with both named in the new configuration, is not cut off in between.
const MAX_KEYS_WAIT: Duration = Duration::from_millis(100);

/// Somebody's wish for a reload.
#[derive(Debug, Default)]
pub(super) struct ReloadRequest {
    /// Who asks.
    pub(super) who: &'static str,
    /// The files whose change it is about, where the watcher asks.
    pub(super) changed: Vec<PathBuf>,
    /// Whether it is about the configuration too, also where its files are not watched.
    pub(super) is_of_configuration: bool,
    /// Files that somebody is writing: they are left alone.
    pub(super) unfinished: BTreeSet<PathBuf>,
    /// Key files whose last key may go.
    pub(super) last: Vec<PathBuf>,
    /// Who waits for an answer.
    pub(super) waiting: Vec<oneshot::Sender<Answer>>,
}

impl ReloadRequest {
    /// What an order over the control socket asks for, if that is a reload.
    pub(super) fn from_command(
        command: ControlCommand,
        asked: oneshot::Sender<Answer>,
    ) -> Result<Self, (ControlCommand, oneshot::Sender<Answer>)> {
        let (is_of_configuration, last) = match command {
            ControlCommand::Reload => (true, Vec::new()),
            ControlCommand::RemoveLast { file } => (false, vec![file]),
            other => return Err((other, asked)),
        };
        let who = "the control socket";
        Ok(Self { who, is_of_configuration, last, waiting: vec![asked], ..Self::default() })
    }

    fn join(&mut self, other: Self) {
        self.changed.extend(other.changed);
        self.is_of_configuration |= other.is_of_configuration;
        self.unfinished.retain(|path| other.unfinished.contains(path));
        self.last.extend(other.last);
        self.waiting.extend(other.waiting);
    }

    /// The files that changed, in words; there may be thousands.
    fn changed_in_words(&self) -> String {
        const MAX_NAMES: usize = 3;
        let names: Vec<_> =
            self.changed.iter().take(MAX_NAMES).map(|path| path.display().to_string()).collect();
        match self.changed.len().saturating_sub(MAX_NAMES) {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }
}

/// A reload under way. Dropped, it changes nothing more.
struct RunningReload {
    ask: ReloadRequest,
    /// What is tried again, if this is not a new reload.
    retry: Option<Retry>,
    began: jiff::Timestamp,
    keys: ReloadKeys,
    rest: Pin<Box<dyn Future<Output = Option<Box<ReloadResult>>> + Send>>,
    cancelled: Arc<AtomicBool>,
}

impl Drop for RunningReload {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// The keys of a reload.
enum ReloadKeys {
    Expected(oneshot::Receiver<KeyRenewal>),
    /// Read, and to be applied at that time if the rest does not come before.
    Here(KeyRenewal, Instant),
    /// Applied, or never to come.
    Gone,
}

impl ReloadKeys {
    fn take(&mut self) -> Option<KeyRenewal> {
        match std::mem::replace(self, Self::Gone) {
            Self::Expected(mut receiver) => receiver.try_recv().ok(),
            Self::Here(renewal, _) => Some(renewal),
            Self::Gone => None,
        }
    }
}

impl RunningReload {
    /// Waits for the next thing to do. Cancel safe; not to be called again after [`ReloadStep::Ended`].
    async fn step(&mut self) -> ReloadStep {
        loop {
            match &mut self.keys {
                ReloadKeys::Expected(receiver) => tokio::select! {
                    biased;
                    read = &mut self.rest => return ReloadStep::Ended(read),
                    renewal = receiver => {
                        let until = Instant::now() + MAX_KEYS_WAIT;
                        self.keys = renewal.map_or(ReloadKeys::Gone, |keys| ReloadKeys::Here(keys, until));
                    }
                },
                ReloadKeys::Here(_, until) => tokio::select! {
                    biased;
                    read = &mut self.rest => return ReloadStep::Ended(read),
                    () = sleep_until(*until) => return ReloadStep::KeysDue,
                },
                ReloadKeys::Gone => return ReloadStep::Ended((&mut self.rest).await),
            }
        }
    }
}

/// What a reload has come to.
pub(super) enum ReloadStep {
    /// The keys can be applied.
    KeysDue,
    /// All was read. None when the thread for it panicked or could not be had.
    Ended(Option<Box<ReloadResult>>),
    /// Something can be tried again.
    Retry,
}

/// The reload under way, the one after it, and what is tried again.
pub(super) struct ReloadQueue {
    load: Load,
    current: Option<RunningReload>,
    queued: Option<ReloadRequest>,
    retry: Option<Retry>,
}

impl ReloadQueue {
    pub(super) fn new(load: Load) -> Self {
        Self { load, current: None, queued: None, retry: None }
    }

    /// Waits for the next thing to do. Cancel safe.
    pub(super) async fn step(&mut self) -> ReloadStep {
        match &mut self.current {
            Some(reload) => reload.step().await,
            None => {
                retry::due(self.retry.as_ref()).await;
                ReloadStep::Retry
            }
        }
    }

    /// Who waits for an answer.
    pub(super) fn into_waiting(self) -> Vec<oneshot::Sender<Answer>> {
        let current = self.current.map(|mut reload| std::mem::take(&mut reload.ask));
        current.into_iter().chain(self.queued).flat_map(|ask| ask.waiting).collect()
    }
}

impl Running {
    /// Begins a reload. While one is under way whose keys are not applied yet, the new one waits for that: the old
    /// one may have read the files already. One whose keys are applied (it reads the rest, or waits for an
    /// address) ends, and the new one takes its place and answers for both: keys must not wait.
    pub(super) fn request_reload(&mut self, reloads: &mut ReloadQueue, ask: ReloadRequest) {
        match &mut reloads.queued {
            Some(queued) => queued.join(ask),
            None => reloads.queued = Some(ask),
        }
        self.begin_queued(reloads);
    }

    fn begin_queued(&mut self, reloads: &mut ReloadQueue) {
        if reloads.current.as_ref().is_some_and(|reload| !matches!(reload.keys, ReloadKeys::Gone)) {
            return;
        }
        let Some(mut ask) = reloads.queued.take() else { return };
        if let Some(mut old) = reloads.current.take() {
            reloads.retry = old.retry.take().or(reloads.retry.take());
            let old = std::mem::take(&mut old.ask);
            ask.is_of_configuration |= old.is_of_configuration;
            ask.waiting.extend(old.waiting);
            ask.last.extend(old.last);
        }
        self.log_reload_begun(&ask);
        self.manager_notifier.reloading();
        self.begin(reloads, ask, None);
    }

    /// Begins to read the keys and the configuration, and to bind what is new, on a thread of its own.
    fn begin(&mut self, reloads: &mut ReloadQueue, ask: ReloadRequest, retry: Option<Retry>) {
        let active_listeners = self.live.iter().flat_map(|live| &live.active_listeners);
        let held = HeldListeners {
            services: active_listeners
                .flat_map(|active_listener| active_listener.at.clone())
                .collect(),
            missing: self
                .live
                .iter()
                .flat_map(|live| &live.missing)
                .map(|one| one.at.clone())
                .collect(),
            management: self.management.held(),
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let (send_keys, keys) = oneshot::channel();
        let is_watched = self.files.borrow().watches_config();
        let expected = match retry.as_ref().map(|retry| &retry.what) {
            Some(RetriedAction::Reload { read, .. }) if !is_watched => read.clone(),
            _ => None,
        };
        let job = read::ReloadJob {
            load: reloads.load.clone(),
            in_force: self.live.iter().map(ServiceInForce::of).collect(),
            held,
            files: self.files.borrow().clone(),
            inetd: self.inetd,
            unfinished: ask.unfinished.clone(),
            last: ask.last.clone(),
            is_of_keys: !is_watched && !ask.is_of_configuration && retry.is_none(),
            is_retry: retry.is_some(),
            expected,
            cancelled: cancelled.clone(),
        };
        let rest = Box::pin(super::run_on_thread(move || job.run(send_keys)));
        let (began, keys) = (jiff::Timestamp::now(), ReloadKeys::Expected(keys));
        reloads.current = Some(RunningReload { ask, retry, began, keys, rest, cancelled });
    }

    /// Does what a reload has come to.
    pub(super) async fn proceed_reload(&mut self, reloads: &mut ReloadQueue, step: ReloadStep) {
        match step {
            ReloadStep::KeysDue => {
                let keys = reloads.current.as_mut().and_then(|reload| reload.keys.take());
                if let Some(keys) = keys {
                    keys.apply();
                }
            }
            ReloadStep::Ended(read) => {
                if let Some(reload) = reloads.current.take() {
                    let before = reloads.retry.take();
                    reloads.retry = self.finish_reload(reload, read, before).await;
                }
            }
            ReloadStep::Retry => match reloads.retry.take() {
                Some(retry) if matches!(retry.what, RetriedAction::Log(_)) => {
                    reloads.retry = self.retry_log_change(&retry);
                }
                Some(retry) => {
                    let ask = ReloadRequest { who: "another attempt", ..ReloadRequest::default() };
                    self.begin(reloads, ask, Some(retry));
                }
                None => {}
            },
        }
        self.begin_queued(reloads);
    }

    fn retry_log_change(&mut self, retry: &Retry) -> Option<Retry> {
        let RetriedAction::Log(config) = &retry.what else { return None };
        if log::reconfigure(config).is_err() {
            return Some(retry.again(retry.what.clone()));
        }
        Event::LogReopened.log(LogContext::PROGRAM);
        self.record.is_in_force();
        None
    }

    /// Commits what was read, or keeps what there is. What came of it is in the log, in the status and in
    /// the answer to whoever asked. What is to be tried again is returned.
    async fn finish_reload(
        &mut self,
        mut reload: RunningReload,
        read: Option<Box<ReloadResult>>,
        before: Option<Retry>,
    ) -> Option<Retry> {
        let keys = reload.keys.take();
        let outcome = match read {
            Some(read) => self.apply_result(*read, keys).await,
            None => ReloadOutcome::of_panic(keys),
        };
        if outcome.is_superseded {
            let file = self.record.file().display();
            let text = format!(
                "{file} has changed since it was refused, and is not tried again: SIGHUP and \
                 `pskgate reload` read it"
            );
            Event::Finding { level: Level::Notice, text: &text, code: None }
                .log(LogContext::PROGRAM);
            return None;
        }
        let is_retry = reload.retry.is_some();
        let retried = reload.retry.take().filter(|retry| outcome.is_of(&retry.what));
        if is_retry && retried.is_none() {
            // With other bytes it is a reload like any other.
            reload.ask.who = "changed files";
            self.log_reload_begun(&reload.ask);
        }
        if retried.as_ref().is_none_or(|retry| outcome.reason() != retry.what.reason()) {
            self.report_reload(&mut reload, &outcome);
        }
        if outcome.is_of_keys {
            return before;
        }
        outcome.attempt.map(|attempt| match &retried {
            Some(retried) => retried.again(attempt),
            None => Retry::new(attempt),
        })
    }

    /// Says that a reload begins, and who asked for it.
    fn log_reload_begun(&self, ask: &ReloadRequest) {
        let (file, changed) = (self.record.file().display(), ask.changed_in_words());
        Event::ReloadBegun { who: ask.who, file: &file, changed: &changed }
            .log(LogContext::PROGRAM);
    }

    /// Says how a reload ended.
    fn report_reload(&mut self, reload: &mut RunningReload, outcome: &ReloadOutcome) {
        let ReloadOutcome { report, error, .. } = outcome;
        let who = reload.ask.who;
        warn(report);
        match error {
            None => {
                if outcome.is_of_keys {
                    Event::Configured.log(LogContext::PROGRAM);
                }
                let services = self.live.len();
                Event::Reloaded { who, services }.log(LogContext::PROGRAM);
            }
            Some(error) => Event::ReloadFailed { who, error }.log(LogContext::PROGRAM),
        }
        if !outcome.is_fully_applied() {
            self.record.differs(reload.began);
        } else if !outcome.is_of_keys {
            self.record.is_in_force();
        }
        if error.is_some() || !outcome.is_of_keys {
            // The first error says more to whoever has one line.
            let first = first_error(report);
            self.trouble = error.as_ref().map(|error| first.unwrap_or_else(|| error.clone()));
        }
        let findings =
            report.diagnostics.iter().map(one_line).chain(self.missing_words()).collect();
        let told = self.record.reloaded(who, error.clone(), findings);
        let words = self.words();
        self.manager_notifier.reloaded(&words);
        for asked in reload.ask.waiting.drain(..) {
            // Who asked may have gone.
            let _ = asked.send(Answer::Reloaded(told.clone()));
        }
    }

    /// Puts in force what was read, as far as it can be.
    async fn apply_result(
        &mut self,
        read: ReloadResult,
        keys: Option<KeyRenewal>,
    ) -> ReloadOutcome {
        let ReloadResult { mut report, files, config, result } = read;
        let outcome = match result {
            Ok(whole) => {
                let (log, bound) = *whole;
                bound.log_absent();
                match NextGeneration::of(bound) {
                    Ok(next) => self.put_in_force(next, &log, report, config).await,
                    Err(error) => {
                        let words = config_kept_message(keys.is_some_and(KeyRenewal::apply));
                        ReloadOutcome::retryable(format!("{error}; {words}"), report, Some(config))
                    }
                }
            }
            Err(refusal) => {
                let is_renewed = keys.is_some_and(|keys| {
                    report.add_new(keys.findings.clone());
                    keys.apply()
                });
                let words = config_kept_message(is_renewed);
                match refusal {
                    ReloadRefusal::KeysAlone => ReloadOutcome::of_keys(report),
                    ReloadRefusal::Superseded => {
                        ReloadOutcome { is_superseded: true, ..ReloadOutcome::of_keys(report) }
                    }
                    ReloadRefusal::Mistake => {
                        ReloadOutcome::permanent(words.to_owned(), report, config)
                    }
                    ReloadRefusal::Obstacle => {
                        let words = format!("{words}; it is retried until the files change");
                        ReloadOutcome::retryable(words, report, Some(config))
                    }
                }
            }
        };
        self.files.send_replace(files);
        outcome
    }

    async fn put_in_force(
        &mut self,
        next: NextGeneration,
        log: &LogConfig,
        mut report: Diagnostics,
        config: ConfigDigests,
    ) -> ReloadOutcome {
        // The log never stands in the way: the one that is open goes on.
        let attempt = log::reconfigure(log).err().map(|error| {
            let message = format!(
                "cannot change the log, and goes on writing to the old one: \
                                   {error}"
            );
            let help = "it is retried until it works or the files change";
            report.push(Diagnostic::warning("log-not-changed", message).help(help));
            RetriedAction::Log(Box::new(log.clone()))
        });
        if !report.has_errors() {
            Event::Configured.log(LogContext::PROGRAM);
        }
        self.commit(next).await;
        ReloadOutcome {
            error: kept_keys_message(&report),
            report,
            attempt,
            config: Some(config),
            is_of_keys: false,
            is_superseded: false,
        }
    }
}

/// What a reload has come to.
struct ReloadOutcome {
    report: Diagnostics,
    /// Why not all of it is in force. A log that cannot be changed stands in the report alone.
    error: Option<String>,
    /// What is to be tried again.
    attempt: Option<RetriedAction>,
    /// What was read of the configuration; none if it did not come to that.
    config: Option<ConfigDigests>,
    /// Whether the keys alone were read.
    is_of_keys: bool,
    /// Whether that is so because the configuration that was tried again is not there any more.
    is_superseded: bool,
}

impl ReloadOutcome {
    fn of_keys(report: Diagnostics) -> Self {
        Self {
            error: kept_keys_message(&report),
            report,
            attempt: None,
            config: None,
            is_of_keys: true,
            is_superseded: false,
        }
    }

    /// Of a reload whose thread panicked or could not be had.
    fn of_panic(keys: Option<KeyRenewal>) -> Self {
        let words = config_kept_message(keys.is_some_and(KeyRenewal::apply));
        let error = format!(
            "reading the configuration failed inside the program (please report it); {words}"
        );
        Self::retryable(error, Diagnostics::default(), None)
    }

    fn permanent(error: String, report: Diagnostics, config: ConfigDigests) -> Self {
        Self {
            report,
            error: Some(error),
            attempt: None,
            config: Some(config),
            is_of_keys: false,
            is_superseded: false,
        }
    }

    fn retryable(error: String, report: Diagnostics, config: Option<ConfigDigests>) -> Self {
        let error = Some(error);
        let mut outcome =
            Self { report, error, attempt: None, config, is_of_keys: false, is_superseded: false };
        let (read, reason) = (outcome.config.clone(), outcome.reason());
        outcome.attempt = Some(RetriedAction::Reload { read, reason });
        outcome
    }

    /// Whether it is of the bytes that were tried before.
    fn is_of(&self, attempt: &RetriedAction) -> bool {
        match (attempt, &self.config) {
            (RetriedAction::Reload { read: Some(before), .. }, Some(now)) => before == now,
            _ => true,
        }
    }

    /// Whether all that was asked for is in force.
    fn is_fully_applied(&self) -> bool {
        self.error.is_none() && self.attempt.is_none()
    }

    /// Why not all of it is in force, in full; empty if it is.
    fn reason(&self) -> String {
        let Some(error) = &self.error else { return String::new() };
        let errors = self.report.diagnostics.iter().filter(|one| one.severity == Severity::Error);
        errors
            .map(|one| one.message.as_str())
            .chain([error.as_str()])
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// What goes on when a configuration is refused.
fn config_kept_message(is_renewed: bool) -> &'static str {
    match is_renewed {
        false => "the running configuration stays in force",
        true => {
            "the running configuration stays in force, with the new keys of the key files \
             without an error"
        }
    }
}

/// What is to be said of key files with an error, if there is one.
fn kept_keys_message(report: &Diagnostics) -> Option<String> {
    report.has_errors().then(|| {
        "the keys of a file with an error stay as they were; everything else is in force".to_owned()
    })
}

/// The first of a report's errors, with its place.
fn first_error(report: &Diagnostics) -> Option<String> {
    let is_error = |finding: &&Diagnostic| finding.severity == Severity::Error;
    let first = report.diagnostics.iter().find(is_error)?;
    let at = first.place.as_ref().map(|at| format!("{}:{}: ", at.file.display(), at.line));
    Some(at.unwrap_or_default() + &first.message)
}
