//! What the program tells about itself, put together when somebody asks.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::Instant;

use super::control::{Answer, Command};
use super::reload::Live;
use crate::observe::status::{Reload, Reloads, ServiceStatus, SessionStatus, Status};
use crate::tunnel::{Phase, Service};

/// What is remembered from the start on.
#[derive(Debug)]
pub(super) struct Record {
    file: PathBuf,
    started: jiff::Timestamp,
    since: Instant,
    reloads: Reloads,
}

impl Record {
    pub(super) fn new(file: PathBuf) -> Self {
        Self {
            file,
            started: jiff::Timestamp::now(),
            since: Instant::now(),
            reloads: Reloads::default(),
        }
    }

    /// Notes how a reload has ended.
    pub(super) fn reloaded(
        &mut self,
        who: &str,
        error: Option<String>,
        findings: Vec<String>,
    ) -> Reload {
        let reload = Reload {
            time: shown(jiff::Timestamp::now()),
            who: who.into(),
            done: error.is_none(),
            error: error.unwrap_or_default(),
            findings,
        };
        match reload.done {
            true => self.reloads.done += 1,
            false => self.reloads.failed += 1,
        }
        self.reloads.last = Some(reload.clone());
        reload
    }
}

/// What else there is to see at the moment.
pub(super) struct View<'a> {
    pub(super) phase: Phase,
    pub(super) live: &'a [Live],
}

/// Answers everything but a reload, which takes its time.
pub(super) fn answer(
    command: &Command,
    record: &Record,
    services: &[&Arc<Service>],
    view: &View<'_>,
) -> Answer {
    match command {
        Command::Status => Answer::Status(Box::new(status(record, services, view))),
        Command::Reload => Answer::Refused("the program is stopping".into()),
        Command::Kick(_) => Answer::Refused("nobody can be kicked yet".into()),
    }
}

fn status(record: &Record, services: &[&Arc<Service>], view: &View<'_>) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        openssl: openssl::version::version().into(),
        pid: std::process::id(),
        file: record.file.display().to_string(),
        phase: match view.phase {
            Phase::Running => "running",
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
        }
        .into(),
        now: shown(jiff::Timestamp::now()),
        started: shown(record.started),
        uptime: record.since.elapsed().as_secs_f64(),
        reloads: record.reloads.clone(),
        services: services.iter().map(|service| service_status(service, view)).collect(),
        log_lines_lost: 0,
    }
}

fn service_status(service: &Arc<Service>, view: &View<'_>) -> ServiceStatus {
    let sessions = service.sessions().into_iter().map(|(number, info)| {
        let (bytes_up, bytes_down) = info.bytes();
        SessionStatus {
            number,
            identity: info.who.to_string(),
            peer: info.peer.to_string(),
            target: info.target.clone(),
            version: info.facts.version.into(),
            suite: info.facts.suite.clone(),
            group: info.facts.group.as_ref().map(|group| group.name.clone()),
            age: info.since.elapsed().as_secs_f64(),
            bytes_up,
            bytes_down,
            ..SessionStatus::default()
        }
    });
    let live = view.live.iter().find(|live| Arc::ptr_eq(&live.service, service));
    ServiceStatus {
        name: service.name().into(),
        listeners: live.map(Live::addresses).unwrap_or_default(),
        sessions: sessions.collect(),
        ..ServiceStatus::default()
    }
}

/// To the second: nobody reads more of it, and machines have `uptime`.
fn shown(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
