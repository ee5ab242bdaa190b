//! The whole program's life: build every Setup, bind every listener, serve, drain, stop.
//!
//! Build everything, then commit: a start, a check and (later) a reload run the same code, and a
//! failure changes nothing.

pub mod signals;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::config::diagnostic::{Diagnostic, Report, Severity};
use crate::config::model::{Authentication, Config, Decided, Dialect, Mode, Origin, ServiceConfig};
use crate::net::{self, Listener};
use crate::observe::event::Event;
use crate::secrets::SecretSet;
use crate::sys::process;
use crate::tunnel::{Capacity, Phase, Service, Setup, Shared};

/// Descriptors that are not sessions': standard streams, listeners, the runtime, the log, keys that
/// are being read.
const RESERVED: usize = 100;
/// Descriptors of one session.
const PER_SESSION: usize = 2;
/// Handshakes at once when nothing was said: at 25 kB each, 6 MB at the worst.
const HANDSHAKES: usize = 256;

/// A configuration with everything that it needs read and built, and nothing begun.
#[derive(Debug)]
pub struct Plan {
    drain: Duration,
    services: Vec<(ServiceConfig, Setup)>,
}

/// A plan whose addresses are taken.
#[derive(Debug)]
pub struct Bound {
    drain: Duration,
    services: Vec<(ServiceConfig, Setup, Vec<Listener>)>,
}

/// Why an address could not be taken.
#[derive(Debug)]
pub struct BindError {
    /// In words, at the place where the address was written.
    pub diagnostic: Diagnostic,
    /// The system's kind.
    pub kind: std::io::ErrorKind,
}

/// What is asked of a running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Stop: drain the first time, at once the second. With the name of who asks.
    Stop(&'static str),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every session ended by itself or at the end of its time.
    Drained,
    /// A second request cut the drain short.
    Forced,
}

impl Plan {
    /// Builds every service. Everything that is wrong with any of them goes to `report`.
    ///
    /// # Errors
    /// The report has errors.
    pub fn build(config: &Config, report: &mut Report) -> Result<Self, ()> {
        Self::with(config, report, Setup::build)
    }

    /// The same with keys that come from elsewhere, for all services alike.
    ///
    /// # Errors
    /// The report has errors.
    pub fn with_secrets(
        config: &Config,
        secrets: &Arc<SecretSet>,
        report: &mut Report,
    ) -> Result<Self, ()> {
        Self::with(config, report, |service, _, findings| {
            Setup::with_secrets(service, secrets.clone(), findings)
        })
    }

    fn with(
        config: &Config,
        report: &mut Report,
        build: impl Fn(
            &ServiceConfig,
            Option<&Setup>,
            &mut Vec<Diagnostic>,
        ) -> Result<Setup, Vec<Diagnostic>>,
    ) -> Result<Self, ()> {
        let mut services = Vec::new();
        let mut findings = Vec::new();
        for service in &config.services {
            match build(service, None, &mut findings) {
                Ok(setup) => services.push((service.clone(), setup)),
                Err(errors) => findings.extend(errors),
            }
        }
        findings.extend(selfies(&services));
        let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
        // Two services may read one key file: its findings are said once.
        for finding in findings {
            if !report.diagnostics.contains(&finding) {
                report.diagnostics.push(finding);
            }
        }
        if failed { Err(()) } else { Ok(Self { drain: config.drain_timeout.value, services }) }
    }

    /// How many services and identities there are.
    pub fn size(&self) -> (usize, usize) {
        let identities = self.services.iter().map(|(_, setup)| setup.secrets().len()).sum();
        (self.services.len(), identities)
    }

    /// Takes every address. A busy one is tried again for 2 s.
    ///
    /// # Errors
    /// Every address that could not be taken; those that could are given back.
    pub fn bind(self) -> Result<Bound, Vec<BindError>> {
        let mut services = Vec::new();
        let mut errors = Vec::new();
        for (config, setup) in self.services {
            let mut listeners = Vec::new();
            for listen in &config.accept {
                match net::bind(listen, &config.accept, &config.sockets.accept) {
                    Ok(bound) => listeners.extend(bound),
                    Err(error) => errors.push(cannot_bind(&config, &listen.at, &error)),
                }
            }
            services.push((config, setup, listeners));
        }
        if errors.is_empty() { Ok(Bound { drain: self.drain, services }) } else { Err(errors) }
    }
}

fn cannot_bind<T>(config: &ServiceConfig, at: &Decided<T>, error: &std::io::Error) -> BindError {
    use std::io::ErrorKind as Kind;
    let help = match error.kind() {
        Kind::AddrInUse => "another program has it: `ss -ltnp` shows which",
        Kind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
        Kind::AddrNotAvailable => "no interface of this machine has this address",
        _ => "write an address of this machine and a free port",
    };
    let diagnostic = Diagnostic {
        severity: Severity::Error,
        code: "cannot-listen",
        place: at.place().cloned(),
        message: format!("service {} cannot listen on {error}", config.name.value),
        label: None,
        help: Some(help.into()),
    };
    BindError { diagnostic, kind: error.kind() }
}

/// RFC 9257, 4.1 ("Selfie"): with the same identity and key on a client and on a server end of this
/// program, a peer can be made to talk to itself.
fn selfies(services: &[(ServiceConfig, Setup)]) -> Vec<Diagnostic> {
    let of = |mode| services.iter().filter(move |(config, _)| config.mode.value == mode);
    let mut findings = Vec::new();
    for (client, presented) in of(Mode::Client) {
        for (server, accepted) in of(Mode::Server) {
            let Authentication::Psk(psk) = &server.auth;
            let severity = match (&psk.allow_shared_keys.value, &psk.allow_shared_keys.origin) {
                (false, _) => Severity::Error,
                (true, Origin::Default(Dialect::Stunnel)) => Severity::Warning,
                (true, _) => continue,
            };
            // What counts is the identity that the client end presents.
            let shared = presented.identity().filter(|identity| {
                accepted.secrets().shared_with(presented.secrets()).any(|other| other == *identity)
            });
            if let Some(identity) = shared {
                findings.push(Diagnostic {
                    severity,
                    code: "shared-with-client",
                    place: server.name.place().cloned(),
                    message: format!(
                        "the client service {} and the server service {} have the identity \
                         {identity} and its key in common",
                        client.name.value, server.name.value
                    ),
                    label: None,
                    help: Some(
                        "give each direction a key of its own: with one, a peer can be made to \
                         talk to itself (or say allow-shared-keys = true)"
                            .into(),
                    ),
                });
            }
        }
    }
    findings
}

impl Bound {
    /// The address of every listener, with its service.
    pub fn addresses(&self) -> Vec<(String, String)> {
        let each = |(config, _, listeners): &(ServiceConfig, Setup, Vec<Listener>)| {
            let name = config.name.value.clone();
            listeners.iter().map(move |l| (name.clone(), l.address().to_owned())).collect::<Vec<_>>()
        };
        self.services.iter().flat_map(each).collect()
    }

    /// Starts every service inside the current runtime.
    ///
    /// # Errors
    /// The runtime has no room for a listener.
    pub fn start(self) -> std::io::Result<Running> {
        let descriptors = process::raise_descriptor_limit();
        let (phase, phases) = watch::channel(Phase::Running);
        let (alive, all_gone) = mpsc::channel(1);
        let shared = Arc::new(Shared::default());
        let mut services = Vec::new();
        for (config, setup, listeners) in self.services {
            let said = |limit: &Option<Decided<u32>>| limit.as_ref().map(|n| n.value as usize);
            let capacity = Capacity {
                sessions: said(&config.limits.max_sessions)
                    .unwrap_or(descriptors.saturating_sub(RESERVED) / PER_SESSION),
                handshakes: said(&config.limits.max_handshakes).unwrap_or(HANDSHAKES),
            };
            let name = &config.name.value;
            let service = Service::new(
                name,
                setup,
                capacity,
                shared.clone(),
                phases.clone(),
                alive.clone(),
            );
            for listener in listeners {
                let address = listener.address().to_owned();
                let listener = listener.into_async()?;
                tokio::spawn(service.clone().listen(listener));
                Event::Listening { address: &address }.log(Some(name), None);
            }
            services.push(service);
        }
        tokio::spawn(async move { shared.settle().await });
        Ok(Running { services, drain: self.drain, phase, all_gone })
    }
}

/// Services at work.
#[derive(Debug)]
pub struct Running {
    services: Vec<Arc<Service>>,
    drain: Duration,
    phase: watch::Sender<Phase>,
    all_gone: mpsc::Receiver<()>,
}

impl Running {
    /// The services, in the order of their file.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// Serves until it is asked to stop, then drains.
    pub async fn serve(self, mut requests: mpsc::Receiver<Request>) -> Ended {
        // A sender that is gone without a word asks to stop as well.
        let Request::Stop(who) = requests.recv().await.unwrap_or(Request::Stop("end of input"));
        let Self { services, drain, phase, mut all_gone } = self;
        Event::Draining { signal: who, limit: drain }.log(None, None);
        phase.send_replace(Phase::Draining);
        let totals = services.iter().map(|service| service.counters.totals());
        let (sessions, refused) = totals.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        drop(services);
        let ended = tokio::select! {
            _ = all_gone.recv() => Ended::Drained,
            () = expire(drain, &phase) => Ended::Drained,
            Some(_) = requests.recv() => Ended::Forced,
        };
        Event::Stopped { sessions, refused }.log(None, None);
        ended
    }
}

/// Lets sessions run to the deadline, and gives those that it cuts the time to say FIN.
async fn expire(drain: Duration, phase: &watch::Sender<Phase>) {
    const FAREWELL: Duration = Duration::from_secs(1);
    tokio::time::sleep(drain).await;
    phase.send_replace(Phase::Stopping);
    tokio::time::sleep(FAREWELL).await;
}
