//! Targets: whether they answer, if it may be asked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::findings::{FaultKind, Findings};
use super::names::{NameFailure, look_up};
use super::{STEP_TIMEOUT, service_suffix};
use crate::config::model::{
    Config, Endpoint, Failover, Host, Mode, Resolved, ServiceConfig, Target,
};
use crate::net::{DialContext, Dialer, Peer};
use crate::observe::event::LogContext;

/// How long a target may take to close after us.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn check_backends(config: &Config, ask: bool, findings: &mut Findings) {
    for service in &config.services {
        let suffix = service_suffix(config, &service.name.value);
        match &service.target {
            Target::Exec(program) => {
                // It is started from inside the root directory that there is then.
                let root = config.process.chroot.as_ref().map(|root| root.value.as_path());
                let path = path_under_root(root, &program.path.value);
                let shown = format!("{}{suffix}", path.display());
                if is_program(&path) {
                    findings.ok("backend", format!("{shown} is a program"));
                } else {
                    let text = format!("{shown} is no file that can be run");
                    findings.bad("backend", FaultKind::Config, text, "correct the path after exec");
                }
            }
            Target::Asked | Target::Original => {
                let text =
                    format!("each connection{suffix} says where it goes, so nothing is asked");
                findings.note("backend", text);
            }
            Target::Connect(targets) if !ask => {
                for target in targets {
                    if let Endpoint::Tcp { host: Host::Name(name), port } = &**target {
                        look_up(name.as_str(), *port, &suffix, NameFailure::Warning, findings)
                            .await;
                    }
                }
                let targets: Vec<_> = targets.iter().map(|target| target.to_string()).collect();
                let (targets, mode) = (targets.join(", "), service.mode.value);
                findings.note("backend", format!("{targets}{suffix} was not asked: {}", why(mode)));
            }
            Target::Connect(targets) => {
                for target in targets {
                    try_target(service, target, &suffix, findings).await;
                }
            }
        }
    }
}

fn path_under_root(root: Option<&Path>, path: &Path) -> PathBuf {
    root.map_or_else(|| path.to_owned(), |root| root.join(path.strip_prefix("/").unwrap_or(path)))
}

fn why(mode: Mode) -> &'static str {
    match mode {
        Mode::Server => {
            "a bare connection breaks some backends, the Beremiz eRPC runtime among them; --backend does it"
        }
        Mode::Client => {
            "`pskgate doctor --connect` tries the tunnel's other end, and --backend a bare connection"
        }
    }
}

async fn try_target(
    service: &ServiceConfig,
    target: &Resolved<Endpoint>,
    suffix: &str,
    findings: &mut Findings,
) {
    let dialer = Dialer::new(
        Target::Connect(vec![target.clone()]),
        Failover::Priority,
        service.local.as_ref().map(|local| local.value.clone()),
        STEP_TIMEOUT,
        None,
        service.sockets.upstream.clone(),
    );
    let start = Instant::now();
    match dialer
        .dial(&DialContext { peer: &Peer::Local, who: None, scope: LogContext::PROGRAM }, None)
        .await
    {
        Ok(reached) => {
            let took = start.elapsed().as_secs_f64() * 1e3;
            findings.ok("backend", format!("{}{suffix} answers ({took:.1} ms)", **target));
            reached.socket.close_gently(CLOSE_TIMEOUT).await;
        }
        Err(error) => {
            let help = match service.mode.value {
                Mode::Server => "start the program behind the tunnel, or correct `connect`",
                Mode::Client => {
                    "start the tunnel's server end, open the firewall, or correct `connect`"
                }
            };
            let text = format!("{}{suffix} does not answer: {error}", **target);
            findings.bad("backend", FaultKind::Unavailable, text, help);
        }
    }
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}
