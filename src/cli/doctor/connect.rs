//! `doctor --connect`: one handshake with a peer, step by step and in words; and when it fails, the
//! settings with which it would not.

mod advice;
mod client_file;
mod settings;
mod target;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::findings::{FaultKind, Findings};
use super::names::format_milliseconds;
use super::recording_stream::{PeerKind, RecordedBytes, RecordingStream};
use super::{STEP_TIMEOUT, files};
use crate::config::diagnostic::{Diagnostic, Diagnostics};
use crate::config::model::{Endpoint, Host, ServiceConfig};
use crate::net::Socket;
use crate::secrets::{Identity, SecretSet};
use crate::tls::{Connector, EstablishedTls, HandshakeError, HandshakeInfo, RefusalCause};
use client_file::ConnectTarget;
use settings::TlsSettings;
use target::{connect_target, dial};

/// How long to wait for the peer's close_notify, or for the rest of a banner.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "A handshake with a peer")]
#[group(skip)]
pub(super) struct Arguments {
    /// Make a TLS-PSK handshake with this peer, and explain the result. A client's own file has the address in
    /// it: client1.toml, or the PLC1.secret of a Beremiz project
    #[arg(long, value_name = "HOST:PORT|FILE")]
    pub(super) connect: Option<String>,
    /// The identity to use [default: the first of the key file]
    #[arg(long, value_name = "ID", requires = "connect")]
    identity: Option<String>,
    /// The key file [default: that of the client's own file]
    #[arg(long, value_name = "FILE", requires = "connect")]
    secrets: Option<PathBuf>,
    /// The server name to send (SNI); empty for none [default: the host, if it is a name]
    #[arg(long, value_name = "NAME", requires = "connect")]
    server_name: Option<String>,
    #[command(flatten)]
    settings: TlsSettings,
}

/// The connector, keys and names for a handshake.
struct HandshakeSetup {
    connector: Connector,
    secrets: Arc<SecretSet>,
    identity: Identity,
    name: Option<String>,
}

/// The result of a handshake.
enum HandshakeOutcome {
    Established(EndedSession),
    Failed(RefusalCause, PeerKind),
}

/// A session that was closed right after its handshake.
struct EndedSession {
    info: HandshakeInfo,
    who: Identity,
    took: Duration,
    end: PeerClose,
}

/// How the peer closed the session.
enum PeerClose {
    /// With close_notify.
    Clean,
    /// Without close_notify.
    Cut,
    /// Not at all within the time limit.
    StillOpen(Duration),
}

/// The peer to test, and the key for it.
struct ConnectTest<'a> {
    asked: &'a ConnectTarget,
    arguments: &'a Arguments,
    target: Endpoint,
    secrets: Arc<SecretSet>,
    identity: Identity,
}

pub(super) async fn test_peer(peer: &str, arguments: &Arguments, findings: &mut Findings) {
    let asked = match ConnectTarget::from_argument(peer, arguments) {
        Ok(asked) => asked,
        Err((text, help)) => return findings.bad("options", FaultKind::Config, text, &help),
    };
    let built = match &asked.service {
        Some(service) => Ok((service.clone(), Diagnostics::default())),
        None => build_service(&arguments.settings, &asked),
    };
    let (service, report) = match built {
        Ok(built) => built,
        Err(report) => {
            return report.diagnostics.iter().for_each(|f| findings.diagnostic("options", f));
        }
    };
    report.diagnostics.iter().for_each(|found| findings.diagnostic("options", found));
    let Some(target) = service.connect().first().map(|target| target.value.clone()) else { return };
    let Some((secrets, identity)) = files::load_client_keys(&service, findings) else { return };
    let question = ConnectTest { asked: &asked, arguments, target, secrets, identity };
    let setup = match question.setup(&service) {
        Ok(setup) => setup,
        Err(errors) => return errors.iter().for_each(|f| findings.diagnostic("options", f)),
    };
    let Some(reached) = connect_target(&question.target, findings).await else { return };
    match handshake(&setup, reached.socket).await {
        HandshakeOutcome::Established(session) => session.report(reached.took, findings),
        HandshakeOutcome::Failed(cause, peer_kind)
            if report_non_tls_peer(&cause, &peer_kind, findings) => {}
        HandshakeOutcome::Failed(cause, _) => {
            question.try_other_settings(&reached.at, cause, findings).await
        }
    }
}

fn build_service(
    settings: &TlsSettings,
    asked: &ConnectTarget,
) -> Result<(ServiceConfig, Diagnostics), Diagnostics> {
    let (identity, name) = (asked.identity.as_deref(), asked.server_name.as_deref());
    settings.service(&asked.peer, &asked.secrets, identity, name)
}

impl Arguments {
    /// What to say where an address was named and no key file.
    pub(super) fn missing_key_file_help(&self) -> Option<String> {
        let named = self.connect.as_deref().filter(|_| self.secrets.is_none())?;
        (!std::path::Path::new(named).is_file()).then(|| {
            format!(
                "--connect {named} needs --secrets FILE; a client's own file has both: --connect client1.toml"
            )
        })
    }

    /// Whether something else than the client's own file says is to be tried.
    fn overrides(&self) -> bool {
        let Self { identity, secrets, server_name, settings, .. } = self;
        identity.is_some()
            || secrets.is_some()
            || server_name.is_some()
            || *settings != TlsSettings::default()
    }
}

impl ConnectTest<'_> {
    fn setup(&self, service: &ServiceConfig) -> Result<HandshakeSetup, Vec<Diagnostic>> {
        let psk = &service.psk;
        let connector = Connector::new(&service.tls, psk.hash.value, &mut Vec::new())?;
        let name = server_name(service, &self.target);
        let (secrets, identity) = (self.secrets.clone(), self.identity.clone());
        Ok(HandshakeSetup { connector, secrets, identity, name })
    }

    /// Tells why a handshake failed. Unless that is clear, other settings are tried, up to the first
    /// with which there is a session.
    async fn try_other_settings(
        &self,
        at: &Endpoint,
        first: RefusalCause,
        findings: &mut Findings,
    ) {
        let (text, code) = (first.to_string(), first.name());
        let others = match advice::is_about_settings(&first) {
            true => settings::alternatives(&self.arguments.settings),
            false => Vec::new(),
        };
        let mut causes = vec![first];
        for other in others {
            let built = build_service(&other.settings, self.asked).ok();
            let setup = built.and_then(|(service, _)| self.setup(&service).ok());
            let (Some(setup), Ok(again)) = (setup, dial(at).await) else { continue };
            match handshake(&setup, again.socket).await {
                HandshakeOutcome::Established(session) => {
                    let words = other.settings.to_toml();
                    let help = format!("use {words} at this end, or change the peer");
                    let text = format!("{text}. But {}", other.meaning);
                    findings.bad_with_code("handshake", FaultKind::Config, text, &help, code);
                    return session.report(again.took, findings);
                }
                HandshakeOutcome::Failed(cause, _) => causes.push(cause),
            }
        }
        let tried = match causes.len() {
            1 => String::new(),
            n => format!(" ({} other settings were tried without success)", n - 1),
        };
        let help = advice::choose_advice(&causes);
        findings.bad_with_code(
            "handshake",
            FaultKind::Config,
            format!("{text}{tried}"),
            help,
            code,
        );
    }
}

/// As a session of this service would send it.
fn server_name(service: &ServiceConfig, target: &Endpoint) -> Option<String> {
    match (service.tls.server_name.as_ref().map(|name| name.value.as_str()), target) {
        (Some(""), _) => None,
        (Some(name), _) => Some(name.to_owned()),
        (None, Endpoint::Tcp { host: Host::Name(name), .. }) => Some(name.clone()),
        (None, _) => None,
    }
}

/// One handshake in its time; nothing is sent in a session that comes of it, and it is ended at once.
async fn handshake(setup: &HandshakeSetup, socket: Socket) -> HandshakeOutcome {
    let heard = RecordedBytes::default();
    let stream = RecordingStream::new(socket, heard.clone());
    let start = Instant::now();
    let (secrets, identity) = (setup.secrets.clone(), setup.identity.clone());
    let shaken = setup.connector.connect(secrets, identity, setup.name.as_deref(), stream);
    match timeout(STEP_TIMEOUT, shaken).await {
        Ok(Ok(EstablishedTls { mut stream, grant, info, .. })) => {
            let took = start.elapsed();
            // The peer's backend has the time to end as well, so that nothing is reset.
            let farewell = async {
                let mut sink = [0; 4096];
                // One whose backend does not answer cuts the session: it has as long for that as the
                // handshake took, or the two ends would cross.
                let _ = timeout(took, stream.read(&mut sink)).await;
                stream.shutdown().await?;
                while stream.read(&mut sink).await? > 0 {}
                Ok::<_, io::Error>(())
            };
            // Where a handshake takes its time, so does this.
            let limit = CLOSE_TIMEOUT + took * 4;
            let end = match timeout(limit, farewell).await {
                Ok(Ok(())) if stream.ended_cleanly() => PeerClose::Clean,
                Ok(_) => PeerClose::Cut,
                Err(_) => PeerClose::StillOpen(limit),
            };
            if let Some(socket) = stream.into_socket() {
                socket.into_inner().close_gently(CLOSE_TIMEOUT).await;
            }
            HandshakeOutcome::Established(EndedSession {
                info,
                who: grant.who().clone(),
                took,
                end,
            })
        }
        Ok(Err(HandshakeError { cause, stream, .. })) => {
            if let Some(mut stream) = stream {
                if !matches!(heard.peer_kind(), PeerKind::Tls | PeerKind::Silence) {
                    stream.read_first_line(CLOSE_TIMEOUT).await;
                }
                stream.into_inner().close_gently(CLOSE_TIMEOUT).await;
            }
            HandshakeOutcome::Failed(cause, heard.peer_kind())
        }
        Err(_) => HandshakeOutcome::Failed(RefusalCause::Timeout(STEP_TIMEOUT), heard.peer_kind()),
    }
}

/// Whether what answers there is no TLS server, or none that answers.
fn report_non_tls_peer(
    cause: &RefusalCause,
    peer_kind: &PeerKind,
    findings: &mut Findings,
) -> bool {
    let (text, help, code) = match (peer_kind, cause) {
        (PeerKind::Other(who), _) => (
            format!("the program there does not speak TLS: it is {who}"),
            "correct the port: it must be the port on which the tunnel's server end accepts",
            "plain-text",
        ),
        (PeerKind::Echo, _) => (
            "the program there sends back what it receives: an echo service, or another client \
             end"
            .into(),
            "correct the port: it must be the port on which the tunnel's server end accepts",
            "plain-text",
        ),
        (PeerKind::Silence, RefusalCause::Timeout(limit)) => (
            format!("it accepts connections and sends nothing within {limit:?}"),
            "a TLS server answers at once: another kind of program listens there, or it hangs",
            "timeout",
        ),
        (PeerKind::Silence, RefusalCause::ClosedEarly) => (
            "it accepts connections, and closes them when it receives a TLS handshake".into(),
            "another kind of program listens there, a proxy whose server is down, or a server \
             that does not allow this address",
            "closed-early",
        ),
        (PeerKind::Tls, RefusalCause::Timeout(limit)) => (
            format!("it speaks TLS, but the handshake was not done within {limit:?}"),
            "it hangs or is overloaded, or large packets do not get through (a wrong MTU)",
            "timeout",
        ),
        (_, RefusalCause::Io(error)) => {
            (format!("the connection failed: {error}"), "look at the network between", "io")
        }
        _ => return false,
    };
    findings.bad_with_code("handshake", FaultKind::Unavailable, text, help, code);
    true
}

impl EndedSession {
    fn report(self, tcp: Duration, findings: &mut Findings) {
        let Self { info, who, took, end } = self;
        findings.ok("handshake", format!("{info}, and the key of {who} is proven at both ends"));
        findings.ok(
            "latency",
            format!("TCP {}, handshake {}", format_milliseconds(tcp), format_milliseconds(took)),
        );
        const DONE: &str = "it was ended with close_notify, and nothing was sent; a tunnel's server end \
                            has opened a connection to its backend for it";
        match end {
            PeerClose::Clean => findings.note("session", DONE.into()),
            PeerClose::StillOpen(limit) => {
                let text = format!("{DONE}, which had not ended {limit:.1?} later");
                findings.note("session", text);
            }
            PeerClose::Cut => findings.warn(
                "session",
                "the peer cut it at once, as a tunnel's server end does whose backend does not answer, or \
                 that has as many sessions as it may have"
                    .into(),
                "look into its log",
            ),
        }
    }
}
