//! What the program tells about itself, put together when somebody asks.
//!
//! The figures are taken in the main loop, all at one moment. What becomes long with the number of
//! identities and sessions is written on a thread of its own: whoever looks must not stop the tunnel.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::ServiceTraffic;
use super::active_service::ActiveService;
use super::control::{Answer, ControlCommand, KickSelection};
use crate::config::model::Mode;
use crate::net::MissingAddress;
use crate::observe::log;
use crate::observe::metrics::CounterSnapshot;
use crate::observe::status::{
    FailureStatus, IdentityStatus, LARGE_STATUS_ITEMS, MissingListener, RefusalStatus,
    ReloadStatus, ReloadSummary, ServiceStatus, SessionStatus, Status,
};
use crate::secrets::Identity;
use crate::tunnel::{LifecyclePhase, RecentRefusal, Service, ServiceSnapshot, SessionInfo};

/// What is remembered from the start on.
#[derive(Debug, Clone)]
pub(super) struct ReloadHistory {
    file: PathBuf,
    started: jiff::Timestamp,
    since: Instant,
    reloads: ReloadSummary,
}

impl ReloadHistory {
    pub(super) fn new(file: PathBuf) -> Self {
        Self {
            file,
            started: jiff::Timestamp::now(),
            since: Instant::now(),
            reloads: ReloadSummary::default(),
        }
    }

    /// The configuration's file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Notes that all that is on disk is in force.
    pub(super) fn is_in_force(&mut self) {
        self.reloads.differs_since = None;
    }

    /// Notes that something on disk is not in force, if that is not known yet.
    pub(super) fn differs(&mut self, since: jiff::Timestamp) {
        self.reloads.differs_since.get_or_insert_with(|| format_time(since));
    }

    /// Notes how a reload has ended.
    pub(super) fn reloaded(
        &mut self,
        who: &str,
        error: Option<String>,
        findings: Vec<String>,
    ) -> ReloadStatus {
        let reload = ReloadStatus {
            time: format_time(jiff::Timestamp::now()),
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
pub(super) struct ProgramView<'a> {
    pub(super) phase: LifecyclePhase,
    pub(super) live: &'a [ActiveService],
}

/// However many ask, one long answer is written at a time.
static LONG_ANSWER_TURN: Semaphore = Semaphore::const_new(1);

/// Answers everything but a reload, which takes its time.
pub(super) fn answer(
    command: &ControlCommand,
    record: &ReloadHistory,
    services: &[&Arc<Service>],
    view: &ProgramView<'_>,
    asked: oneshot::Sender<Answer>,
) {
    let answer = match command {
        ControlCommand::Status => {
            let services: Vec<_> =
                services.iter().map(|service| ServiceView::of(service, view)).collect();
            let (record, phase) = (record.clone(), view.phase);
            if services.iter().map(ServiceView::lines).sum::<usize>() >= LARGE_STATUS_ITEMS {
                let written = move || Answer::Status(Box::new(status(&record, phase, services)));
                tokio::spawn(answer_on_thread(written, asked));
                return;
            }
            Answer::Status(Box::new(status(&record, phase, services)))
        }
        ControlCommand::Reload | ControlCommand::RemoveLast { .. } => {
            Answer::Refused("the program is stopping".into())
        }
        ControlCommand::Kick(KickSelection::Number(number)) => {
            Answer::Kicked(services.iter().map(|service| service.kick(*number)).sum())
        }
        ControlCommand::Kick(KickSelection::Identity(name)) => {
            let kick = |service: &&Arc<Service>| service.kick_identity(name);
            Answer::Kicked(services.iter().map(kick).sum())
        }
    };
    // Who asked may have gone.
    let _ = asked.send(answer);
}

async fn answer_on_thread(
    written: impl FnOnce() -> Answer + Send + 'static,
    asked: oneshot::Sender<Answer>,
) {
    let _turn = LONG_ANSWER_TURN.acquire().await;
    if !asked.is_closed() {
        let none = || Answer::Refused("the system has no thread for the answer".into());
        let _ = asked.send(super::run_on_thread(written).await.unwrap_or_else(none));
    }
}

/// What a service has carried so far.
pub(super) fn traffic(service: &Service) -> ServiceTraffic {
    let counted = counted(service, &service.sessions());
    let (up, down) = (counted.up.bytes, counted.down.bytes);
    ServiceTraffic { name: service.name(), up, down }
}

/// What was counted, over the sessions that have ended and these.
fn counted(service: &Service, sessions: &[(u64, Arc<SessionInfo>)]) -> CounterSnapshot {
    let mut counted = service.counters.snapshot();
    for (_, info) in sessions.iter().filter(|(_, info)| !info.is_over()) {
        let (up, down) = info.carried();
        counted.up += up;
        counted.down += down;
    }
    counted
}

/// One service as it was when somebody asked.
struct ServiceView {
    service: Arc<Service>,
    snapshot: Arc<ServiceSnapshot>,
    sessions: Vec<(u64, Arc<SessionInfo>)>,
    counted: CounterSnapshot,
    listeners: Vec<String>,
    missing: Vec<MissingAddress>,
}

impl ServiceView {
    fn of(service: &Arc<Service>, view: &ProgramView<'_>) -> Self {
        let sessions = service.sessions();
        let counted = counted(service, &sessions);
        let live = view.live.iter().find(|live| Arc::ptr_eq(&live.service, service));
        let listeners = live.map(ActiveService::addresses).unwrap_or_default();
        let missing = live.map(|live| live.missing.clone()).unwrap_or_default();
        let (service, snapshot) = (service.clone(), service.snapshot());
        Self { service, snapshot, sessions, counted, listeners, missing }
    }

    fn lines(&self) -> usize {
        self.sessions.len() + self.snapshot.secrets().len()
    }
}

fn status(record: &ReloadHistory, phase: LifecyclePhase, services: Vec<ServiceView>) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        openssl: openssl::version::version().into(),
        host: crate::sys::process::host_name(),
        pid: std::process::id(),
        file: record.file.display().to_string(),
        phase: match phase {
            LifecyclePhase::Running => "running",
            LifecyclePhase::Draining => "draining",
            LifecyclePhase::Stopping => "stopping",
        }
        .into(),
        now: format_time(jiff::Timestamp::now()),
        started: format_time(record.started),
        uptime: record.since.elapsed().as_secs_f64(),
        reloads: record.reloads.clone(),
        services: services.into_iter().map(service_status).collect(),
        log_lines_lost: log::lost_lines(),
    }
}

fn service_status(view: ServiceView) -> ServiceStatus {
    let ServiceView { service, snapshot, sessions: all, counted, listeners, missing } = view;
    let missing =
        missing.into_iter().map(|one| MissingListener { address: one.to_string(), error: one.why });
    let sessions: Vec<_> = all.iter().filter_map(|(n, info)| session(*n, info)).collect();
    ServiceStatus {
        name: service.name().into(),
        mode: match snapshot.mode() {
            Mode::Client => "client",
            Mode::Server => "server",
        }
        .into(),
        listeners,
        missing_listeners: missing.collect(),
        targets: snapshot.targets(),
        keys: snapshot.secrets().len(),
        key_warnings: snapshot.key_warnings().map(str::to_owned).collect(),
        max_sessions: service.session_limit(),
        handshakes: service.handshakes(),
        opened: counted.opened,
        bytes_up: counted.up.bytes,
        bytes_down: counted.down.bytes,
        records_up: counted.up.records,
        records_down: counted.down.records,
        key_updates_up: counted.up.key_updates,
        key_updates_down: counted.down.key_updates,
        refused: counted.refused,
        ended: counted.ended,
        last_failure: service
            .last_failure()
            .map(|failure| FailureStatus { time: format_time(failure.time), words: failure.words }),
        recent_refusals: service.recent_refusals().into_iter().map(refusal).collect(),
        identities: identities(&service, &snapshot, &all),
        sessions,
    }
}

fn refusal(refusal: RecentRefusal) -> RefusalStatus {
    RefusalStatus {
        time: format_time(refusal.time),
        peer: refusal.peer.to_string(),
        identity: refusal.identity.map(|identity| identity.to_plain_text()),
        cause: refusal.cause.into(),
        count: refusal.count,
    }
}

fn session(number: u64, info: &SessionInfo) -> Option<SessionStatus> {
    let reached = info.details()?;
    let ((up, down), (rate_up, rate_down)) = (info.carried(), info.rates());
    Some(SessionStatus {
        number,
        identity: info.who.to_plain_text(),
        wire: (info.wire != info.who).then(|| info.wire.to_plain_text()),
        peer: info.peer.to_string(),
        target: reached.target.clone(),
        version: reached.handshake.version.into(),
        suite: reached.handshake.suite.clone(),
        group: reached.handshake.group.as_ref().map(|group| group.name.clone()),
        age: info.since.elapsed().as_secs_f64(),
        idle: info.touched().elapsed().as_secs_f64(),
        bytes_up: up.bytes,
        bytes_down: down.bytes,
        records_up: up.records,
        records_down: down.records,
        key_updates_up: up.key_updates,
        key_updates_down: down.key_updates,
        rate_up,
        rate_down,
    })
}

fn identities(
    service: &Service,
    snapshot: &ServiceSnapshot,
    sessions: &[(u64, Arc<SessionInfo>)],
) -> Vec<IdentityStatus> {
    let uses = service.uses();
    let mut open: HashMap<&Identity, usize> = HashMap::new();
    for (_, info) in sessions {
        *open.entry(&info.wire).or_default() += 1;
    }
    let secrets = snapshot.secrets();
    let mut places: Vec<_> = secrets.locations().collect();
    places.sort_by_key(|(_, file, line)| (*file, *line));
    let of = |(wire, file, line): (&Identity, &Path, u32)| {
        let (used, expiry) = (uses.get(wire), snapshot.expiry(wire));
        IdentityStatus {
            wire: wire.to_plain_text(),
            identity: snapshot.owner(wire).to_plain_text(),
            file: file.display().to_string(),
            line,
            last_use: used.map(|used| format_time(used.last)),
            uses: used.map_or(0, |used| used.count),
            sessions: open.get(wire).copied().unwrap_or_default(),
            expires: expiry.map(|(end, _)| format_time(end)),
            expired: expiry.is_some_and(|(_, over)| over),
        }
    };
    places.into_iter().map(of).collect()
}

/// To the second: nobody reads more of it, and machines have `uptime`.
fn format_time(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
