//! The whole program's life: build every service snapshot, bind every listener, serve, drain, stop.
//!
//! Build everything, then commit: a start, a check and a reload run the same code, and a failure
//! changes nothing.

#[cfg(unix)]
pub mod activation;
mod active_service;
#[cfg(unix)]
pub mod after_drop;
mod bind;
mod bind_error;
pub mod budget;
mod build;
pub mod control;
mod drain;
mod expiry_timer;
mod files;
mod http;
mod key_renewal;
mod management;
mod missing_addresses;
#[cfg(unix)]
pub mod privileges;
mod reload;
mod retry;
mod running;
#[cfg(target_os = "linux")]
pub mod sandbox;
mod serve;
pub mod service_manager;
mod shared_key;
pub mod signals;
mod start;
mod status;
mod succession;
#[cfg(unix)]
pub mod unit_rights;
pub mod watcher;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::config::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::config::model::{Config, Level};
use crate::observe::event::{Event, LogContext};
use crate::tunnel::LifecyclePhase;
pub use bind_error::{BindError, advice as bind_advice};
pub use build::{BoundConfig, BuiltConfig, watched};
use control::{Answer, ControlCommand};
pub use running::Running;

/// Reads the configuration, at the start and at every reload: what could be decided, and whether it
/// may run.
pub type Load = Arc<dyn Fn() -> (Option<Config>, Diagnostics) + Send + Sync>;

/// What is asked of a running program.
#[derive(Debug)]
pub enum Request {
    /// Read the configuration and the keys again. With the name of who asks.
    Reload(&'static str),
    /// The same because files have changed, and without those that somebody is writing.
    Changed {
        /// The files that differ from what was read.
        files: Vec<PathBuf>,
        /// Files that were written to and not closed.
        unfinished: BTreeSet<PathBuf>,
    },
    /// Open the log's file anew.
    ReopenLog,
    /// Write the open sessions to the log.
    List,
    /// Stop: drain the first time, at once the second. With the name of who asks.
    Stop(&'static str),
    /// A question or an order of somebody who waits for the answer.
    Ask(ControlCommand, oneshot::Sender<Answer>),
    /// Whether there is life in the main loop. What the answer is made of does not grow with anything.
    Pulse(oneshot::Sender<Pulse>),
    /// What each service has carried, which takes a look at each of its sessions.
    Traffic(oneshot::Sender<Vec<ServiceTraffic>>),
}

/// What a service has carried since the start of the program, over ended sessions and open ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceTraffic {
    /// Its name.
    pub name: &'static str,
    /// Bytes from downstream to upstream.
    pub up: u64,
    /// Bytes from upstream to downstream.
    pub down: u64,
}

/// How the program is, as shortly as it can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Where it is in its life.
    pub phase: LifecyclePhase,
    /// Whether a service of it has a listener.
    pub listens: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every session ended by itself or at the end of its time.
    Drained,
    /// A second request cut the drain short.
    Forced,
    /// The one session that there was did not end well, or never began.
    Failed,
}

/// What a file is called from inside `root`. One that is not in there keeps its name: stunnel's
/// users put a copy under it into the jail.
pub fn inside(root: &Path, file: &Path) -> PathBuf {
    file.strip_prefix(root).map_or_else(|_| file.to_owned(), |rest| Path::new("/").join(rest))
}

/// Does what may block on a thread of its own. None when it has panicked, or there is no thread to be
/// had.
fn run_on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Option<T>> + Send + 'static {
    let (done, result) = oneshot::channel();
    let spawned = std::thread::Builder::new().name("apart".into()).spawn(move || {
        // Nobody waits any more when the program stops.
        let _ = done.send(work());
    });
    async move {
        spawned.ok()?;
        result.await.ok()
    }
}

/// What does not keep the program from running goes to the log, where it is found later.
pub fn warn(report: &Diagnostics) {
    for finding in &report.diagnostics {
        let level = match finding.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
            Severity::Notice => Level::Debug,
        };
        let text = one_line(finding);
        Event::Finding { level, text: &text, code: Some(finding.code) }.log(LogContext::PROGRAM);
    }
}

/// A finding as one line of a log.
fn one_line(finding: &Diagnostic) -> String {
    let place = finding.place.as_ref();
    let place = place.map(|p| format!("{}:{}: ", p.file.display(), p.line)).unwrap_or_default();
    let help = finding.help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{place}{}{help}", finding.message)
}
