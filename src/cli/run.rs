//! `run FILE`: the start of the program, step by step.

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{File, complain, exit, failed, show};
use crate::config;
use crate::daemon::{self, Bound, Ended, Load, Plan, signals, watcher};
use crate::observe::log;

/// Everything up to listening is synchronous and said on standard error: when this program goes on,
/// its ports are open.
pub(super) fn main(file: &File) -> u8 {
    let (path, format) = (file.file.clone(), file.format.into());
    let load: Load = Arc::new(move || config::survey(&path, format));
    let (config, mut report) = load();
    let plan = config.as_ref().and_then(|config| Plan::build(config, &mut report));
    let (Some(config), Some(plan)) = (config, plan) else {
        show(&report);
        return failed(&report);
    };
    if let Err(error) = log::init(&config.log) {
        let path = config.log.output.as_ref().map(|path| path.display().to_string());
        complain(&format!("pskgate: cannot open the log {}: {error}", path.unwrap_or_default()));
        return exit::CANNOT_CREATE;
    }
    let bound = match plan.bind() {
        Ok(bound) => bound,
        Err(errors) => {
            let denied = errors.iter().any(|e| e.kind == io::ErrorKind::PermissionDenied);
            report.diagnostics.extend(errors.into_iter().map(|error| error.diagnostic));
            show(&report);
            return if denied { exit::NO_PERMISSION } else { exit::UNAVAILABLE };
        }
    };
    daemon::warn(&report);
    log::start();
    let ended = runtime().and_then(|runtime| {
        let ended = runtime.block_on(serve(bound, &load));
        // A name that is still being looked up must not hold up the exit.
        runtime.shutdown_background();
        ended
    });
    log::flush();
    match ended {
        Ok(Ended::Drained) => exit::OK,
        Ok(Ended::Forced | Ended::Failed) => exit::FORCED,
        Err(error) => {
            complain(&format!("pskgate: cannot start: {error}"));
            exit::INTERNAL
        }
    }
}

async fn serve(bound: Bound, load: &Load) -> io::Result<Ended> {
    let (sender, requests) = mpsc::channel(4);
    // Signals first: none may end the program before it can drain.
    signals::listen(sender.clone())?;
    let running = bound.start()?;
    tokio::spawn(watcher::watch(running.files(), sender));
    Ok(running.serve(load, requests).await)
}

/// Names that are looked up at once. A thread each, and one whose server is dead holds its thread
/// for half a minute.
const LOOKUPS: usize = 32;

/// One thread: a tunnel's work is in the kernel and in OpenSSL, and a PLC has one core to spare.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(LOOKUPS).build()
}
