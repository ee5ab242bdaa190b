//! What a reload does on a thread of its own: it reads the keys, then the configuration, builds all of it
//! and binds what is new.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::config::diagnostic::{Diagnostic, Diagnostics};
use crate::config::model::{Config, ConnectionSource, Level, LogConfig, ServiceConfig};
use crate::daemon::Load;
use crate::daemon::build::{BoundConfig, BuiltConfig, HeldListeners, ServicesInForce};
use crate::daemon::files::Files;
use crate::daemon::key_renewal::{KeyRenewal, ServiceInForce};
use crate::daemon::retry::ConfigDigests;
use crate::observe::event::{Event, LogContext};
use crate::secrets::KeyFileReader;

/// All that it takes.
pub(super) struct ReloadJob {
    pub(super) load: Load,
    pub(super) in_force: Vec<ServiceInForce>,
    pub(super) held: HeldListeners,
    /// What the configuration in force was made of.
    pub(super) files: Files,
    pub(super) inetd: bool,
    /// Files that somebody is writing.
    pub(super) unfinished: BTreeSet<PathBuf>,
    /// Key files whose last key may go.
    pub(super) last: Vec<PathBuf>,
    /// Whether nobody asked for more than the keys.
    pub(super) is_of_keys: bool,
    /// Whether all of it was told before.
    pub(super) is_retry: bool,
    /// What the configuration's files must be made of still: with other bytes it waits for a wish.
    pub(super) expected: Option<ConfigDigests>,
    /// Set when nobody waits any more.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// What was read.
pub(in crate::daemon) struct ReloadResult {
    pub(super) report: Diagnostics,
    /// What is watched from now on, as it was read.
    pub(super) files: Files,
    /// What was read of the configuration.
    pub(super) config: ConfigDigests,
    pub(super) result: Result<Box<(LogConfig, BoundConfig)>, ReloadRefusal>,
}

/// Why a configuration is not put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum ReloadRefusal {
    /// Something in the files is wrong: no waiting helps.
    Mistake,
    /// Something outside the files stands against it.
    Obstacle,
    /// Nobody asked for it, or somebody is writing it: the keys alone were read.
    KeysAlone,
    /// Its files have changed since it was refused, and nobody has asked for what is in them now.
    Superseded,
}

/// Two reloads do not bind at once: one that was given up would hold what the next one wants.
static BINDING: Mutex<()> = Mutex::new(());

impl ReloadJob {
    /// Reads everything. The keys of services at work are sent as soon as they are read.
    pub(super) fn run(mut self, keys: oneshot::Sender<KeyRenewal>) -> Box<ReloadResult> {
        let mut reader = KeyFileReader::excluding_unfinished(&self.unfinished);
        let renewal = KeyRenewal::read(&self.in_force, &mut reader, &self.last);
        let sets = renewal.sets();
        // Nobody waits for it when the program stops.
        let _ = keys.send(renewal);
        let is_left = self.is_of_keys || self.files.config().any(|path| reader.is_unfinished(path));
        let (mut config, mut report) = match is_left {
            false => (self.load)(),
            true => (None, Diagnostics::default()),
        };
        let texts = report.read.clone();
        let is_superseded = self.expected.as_ref().is_some_and(|before| *before != texts);
        if is_superseded {
            (config, report) = (None, Diagnostics::default());
        }
        let in_force = std::mem::take(&mut self.in_force);
        let current: ServicesInForce = in_force.into_iter().zip(sets).collect();
        let plan = match &config {
            Some(config) => self.plan(config, &current, &mut reader, &mut report),
            None if is_left => Err(ReloadRefusal::KeysAlone),
            None if is_superseded => Err(ReloadRefusal::Superseded),
            None => Err(ReloadRefusal::Mistake),
        };
        let files = Files::read(config.as_ref(), &report, &reader);
        let files = files.without_unfinished(|path| reader.is_unfinished(path), &self.files);
        // Binding may take its time, and texts of keys need not be in memory meanwhile.
        drop(reader);
        let log = config.map(|config| config.log);
        let result = match (plan, log) {
            (Ok(plan), Some(log)) => self.bind(plan, &mut report).map(|all| Box::new((log, all))),
            (Err(refusal), _) => Err(refusal),
            (Ok(_), None) => Err(ReloadRefusal::Mistake),
        };
        let files = match &result {
            Ok(_) => files,
            // Once any of it changes, it is worth another try.
            Err(_) => files.merged_with(&self.files),
        };
        Box::new(ReloadResult { report, files, config: texts, result })
    }

    fn plan(
        &self,
        config: &Config,
        current: &ServicesInForce,
        reader: &mut KeyFileReader,
        report: &mut Diagnostics,
    ) -> Result<BuiltConfig, ReloadRefusal> {
        let is_stdio = |service: &ServiceConfig| matches!(service.source, ConnectionSource::Stdio);
        if config.services.iter().any(is_stdio) != self.inetd {
            // Its connection is there from the start, or never.
            report.push(
                Diagnostic::error(
                    "inetd-mode",
                    "a reload cannot change between a file with sections and one without (inetd mode)",
                )
                .help("restart the program with this file"),
            );
            return Err(ReloadRefusal::Mistake);
        }
        BuiltConfig::build_replacing(config, current, &self.last, reader, report)
            .ok_or(ReloadRefusal::Mistake)
    }

    fn bind(
        &self,
        plan: BuiltConfig,
        report: &mut Diagnostics,
    ) -> Result<BoundConfig, ReloadRefusal> {
        let _turn = BINDING.lock().unwrap_or_else(PoisonError::into_inner);
        let is_cancelled = || self.cancelled.load(Ordering::Relaxed);
        let mut tell = |text: &str| {
            if !self.is_retry {
                Event::Finding { level: Level::Warning, text: &text, code: None }
                    .log(LogContext::PROGRAM);
            }
        };
        plan.bind_except(&self.held, Vec::new(), &mut tell, &is_cancelled).map_err(|errors| {
            let is_own = !errors.is_empty() && errors.iter().all(|error| error.is_own);
            report.diagnostics.extend(errors.into_iter().map(|error| error.diagnostic));
            if is_own { ReloadRefusal::Mistake } else { ReloadRefusal::Obstacle }
        })
    }
}
