//! `run FILE`: the start of the program, step by step.

use std::io;

use super::{File, complain, exit, failed, show};
use crate::config;
use crate::config::diagnostic::{Report, Severity};
use crate::config::model::Level;
use crate::daemon::{Ended, Plan, signals};
use crate::observe::event::Event;
use crate::observe::log;
use crate::sys::process;

/// Everything up to listening is synchronous and said on standard error: when this program goes on,
/// its ports are open.
pub(super) fn main(file: &File) -> u8 {
    process::forbid_dumps();
    let (config, mut report) = match config::load(&file.file, file.format.into()) {
        Ok(loaded) => loaded,
        Err(report) => {
            show(&report);
            return failed(&report);
        }
    };
    let Ok(plan) = Plan::build(&config, &mut report) else {
        show(&report);
        return failed(&report);
    };
    if let Err(error) = log::init(&config.log) {
        let path = config
            .log
            .output
            .as_ref()
            .map(|path| path.display().to_string());
        complain(&format!(
            "pskgate: cannot open the log {}: {error}",
            path.unwrap_or_default()
        ));
        return exit::CANNOT_CREATE;
    }
    let bound = match plan.bind() {
        Ok(bound) => bound,
        Err(errors) => {
            let denied = errors
                .iter()
                .any(|e| e.kind == io::ErrorKind::PermissionDenied);
            report
                .diagnostics
                .extend(errors.into_iter().map(|error| error.diagnostic));
            show(&report);
            return if denied {
                exit::NO_PERMISSION
            } else {
                exit::UNAVAILABLE
            };
        }
    };
    warn(&report);
    log::start();
    let ended = runtime().and_then(|runtime| {
        runtime.block_on(async {
            let requests = signals::listen()?;
            Ok(bound.start()?.serve(requests).await)
        })
    });
    log::flush();
    match ended {
        Ok(Ended::Drained) => exit::OK,
        Ok(Ended::Forced) => exit::FORCED,
        Err(error) => {
            complain(&format!("pskgate: cannot start: {error}"));
            exit::INTERNAL
        }
    }
}

/// One thread: a tunnel's work is in the kernel and in OpenSSL, and a PLC has one core to spare.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// What does not keep the program from running goes to the log, where it is found later.
fn warn(report: &Report) {
    for finding in &report.diagnostics {
        let level = match finding.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
            Severity::Notice => Level::Debug,
        };
        let place = finding.place.as_ref();
        let place = place
            .map(|p| format!("{}:{}: ", p.file.display(), p.line))
            .unwrap_or_default();
        let help = finding
            .help
            .as_deref()
            .map(|help| format!(" ({help})"))
            .unwrap_or_default();
        let text = format!("{place}{}{help}", finding.message);
        Event::Finding { level, text: &text }.log(None, None);
    }
}
