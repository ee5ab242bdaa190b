//! `doctor --connect`: one handshake with a peer, step by step and in words; and when it fails, the
//! settings with which it would not.

mod advice;
mod own_file;
mod reach;
mod settings;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::findings::{Findings, Kind};
use super::names::ms;
use super::overheard::{Heard, Overheard, Voice};
use super::{STEP, files};
use crate::config::diagnostic::{Diagnostic, Diagnostics};
use crate::config::model::{Endpoint, Host, ServiceConfig};
use crate::net::Socket;
use crate::secrets::{Identity, SecretSet};
use crate::tls::{Connector, EstablishedTls, HandshakeError, HandshakeInfo, RefusalCause};
use own_file::Asked;
use reach::{dial, reach};
use settings::Settings;

/// How long a peer may take to say goodbye, or the rest of a banner.
const MANNERS: Duration = Duration::from_secs(2);

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
    settings: Settings,
}

/// What a handshake needs of this end.
struct Ours {
    connector: Connector,
    secrets: Arc<SecretSet>,
    identity: Identity,
    name: Option<String>,
}

/// What came of a handshake.
enum Outcome {
    EstablishedTls(Session),
    Failed(RefusalCause, Voice),
}

/// A session that was ended as soon as it was there.
struct Session {
    facts: HandshakeInfo,
    who: Identity,
    took: Duration,
    end: Farewell,
}

/// How the peer took it.
enum Farewell {
    /// It said goodbye as well.
    Clean,
    /// It cut the connection, which it cannot have done because of us.
    Cut,
    /// It had not ended when nobody waited any longer.
    Open(Duration),
}

/// Who is asked, and with which key.
struct Question<'a> {
    asked: &'a Asked,
    arguments: &'a Arguments,
    target: Endpoint,
    secrets: Arc<SecretSet>,
    identity: Identity,
}

pub(super) async fn examine(peer: &str, arguments: &Arguments, findings: &mut Findings) {
    let asked = match Asked::of(peer, arguments) {
        Ok(asked) => asked,
        Err((text, help)) => return findings.bad("options", Kind::Config, text, &help),
    };
    let built = match &asked.service {
        Some(service) => Ok((service.clone(), Diagnostics::default())),
        None => service(&arguments.settings, &asked),
    };
    let (service, report) = match built {
        Ok(built) => built,
        Err(report) => {
            return report.diagnostics.iter().for_each(|f| findings.diagnostic("options", f));
        }
    };
    report.diagnostics.iter().for_each(|found| findings.diagnostic("options", found));
    let Some(target) = service.connect().first().map(|target| target.value.clone()) else { return };
    let Some((secrets, identity)) = files::one(&service, findings) else { return };
    let question = Question { asked: &asked, arguments, target, secrets, identity };
    let ours = match question.ours(&service) {
        Ok(ours) => ours,
        Err(errors) => return errors.iter().for_each(|f| findings.diagnostic("options", f)),
    };
    let Some(reached) = reach(&question.target, findings).await else { return };
    match handshake(&ours, reached.socket).await {
        Outcome::EstablishedTls(session) => session.tell(reached.took, findings),
        Outcome::Failed(cause, voice) if is_elsewhere(&cause, &voice, findings) => {}
        Outcome::Failed(cause, _) => question.insist(&reached.at, cause, findings).await,
    }
}

fn service(
    settings: &Settings,
    asked: &Asked,
) -> Result<(ServiceConfig, Diagnostics), Diagnostics> {
    let (identity, name) = (asked.identity.as_deref(), asked.server_name.as_deref());
    settings.service(&asked.peer, &asked.secrets, identity, name)
}

impl Arguments {
    /// What to say where an address was named and no key file.
    pub(super) fn lacks_key_file(&self) -> Option<String> {
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
            || *settings != Settings::default()
    }
}

impl Question<'_> {
    fn ours(&self, service: &ServiceConfig) -> Result<Ours, Vec<Diagnostic>> {
        let psk = &service.psk;
        let connector = Connector::new(&service.tls, psk.hash.value, &mut Vec::new())?;
        let name = server_name(service, &self.target);
        let (secrets, identity) = (self.secrets.clone(), self.identity.clone());
        Ok(Ours { connector, secrets, identity, name })
    }

    /// Tells why a handshake failed. Unless that is clear, other settings are tried, up to the first
    /// with which there is a session.
    async fn insist(&self, at: &Endpoint, first: RefusalCause, findings: &mut Findings) {
        let (text, code) = (first.to_string(), first.name());
        let others = match advice::is_about_settings(&first) {
            true => settings::others(&self.arguments.settings),
            false => Vec::new(),
        };
        let mut causes = vec![first];
        for other in others {
            let built = service(&other.settings, self.asked).ok();
            let ours = built.and_then(|(service, _)| self.ours(&service).ok());
            let (Some(ours), Ok(again)) = (ours, dial(at).await) else { continue };
            match handshake(&ours, again.socket).await {
                Outcome::EstablishedTls(session) => {
                    let words = other.settings.words();
                    let help = format!("use {words} at this end, or change the peer");
                    let text = format!("{text}. But {}", other.meaning);
                    findings.coded("handshake", Kind::Config, text, &help, code);
                    return session.tell(again.took, findings);
                }
                Outcome::Failed(cause, _) => causes.push(cause),
            }
        }
        let tried = match causes.len() {
            1 => String::new(),
            n => format!(" ({} other settings were tried without success)", n - 1),
        };
        let help = advice::advice(&causes);
        findings.coded("handshake", Kind::Config, format!("{text}{tried}"), help, code);
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
async fn handshake(ours: &Ours, socket: Socket) -> Outcome {
    let heard = Heard::default();
    let stream = Overheard::new(socket, heard.clone());
    let start = Instant::now();
    let (secrets, identity) = (ours.secrets.clone(), ours.identity.clone());
    let shaken = ours.connector.connect(secrets, identity, ours.name.as_deref(), stream);
    match timeout(STEP, shaken).await {
        Ok(Ok(EstablishedTls { mut stream, grant, facts, .. })) => {
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
            let limit = MANNERS + took * 4;
            let end = match timeout(limit, farewell).await {
                Ok(Ok(())) if stream.ended_cleanly() => Farewell::Clean,
                Ok(_) => Farewell::Cut,
                Err(_) => Farewell::Open(limit),
            };
            if let Some(socket) = stream.into_socket() {
                socket.into_inner().close_gently(MANNERS).await;
            }
            Outcome::EstablishedTls(Session { facts, who: grant.who().clone(), took, end })
        }
        Ok(Err(HandshakeError { cause, stream, .. })) => {
            if let Some(mut stream) = stream {
                if !matches!(heard.voice(), Voice::Tls | Voice::Silence) {
                    stream.hear_out(MANNERS).await;
                }
                stream.into_inner().close_gently(MANNERS).await;
            }
            Outcome::Failed(cause, heard.voice())
        }
        Err(_) => Outcome::Failed(RefusalCause::Timeout(STEP), heard.voice()),
    }
}

/// Whether what answers there is no TLS server, or none that answers.
fn is_elsewhere(cause: &RefusalCause, voice: &Voice, findings: &mut Findings) -> bool {
    let (text, help, code) = match (voice, cause) {
        (Voice::Other(who), _) => (
            format!("the program there does not speak TLS: it is {who}"),
            "correct the port: it must be the port on which the tunnel's server end accepts",
            "plain-text",
        ),
        (Voice::Echo, _) => (
            "the program there sends back what it receives: an echo service, or another client \
             end"
            .into(),
            "correct the port: it must be the port on which the tunnel's server end accepts",
            "plain-text",
        ),
        (Voice::Silence, RefusalCause::Timeout(limit)) => (
            format!("it accepts connections and sends nothing within {limit:?}"),
            "a TLS server answers at once: another kind of program listens there, or it hangs",
            "timeout",
        ),
        (Voice::Silence, RefusalCause::ClosedEarly) => (
            "it accepts connections, and closes them when it receives a TLS handshake".into(),
            "another kind of program listens there, a proxy whose server is down, or a server \
             that does not allow this address",
            "closed-early",
        ),
        (Voice::Tls, RefusalCause::Timeout(limit)) => (
            format!("it speaks TLS, but the handshake was not done within {limit:?}"),
            "it hangs or is overloaded, or large packets do not get through (a wrong MTU)",
            "timeout",
        ),
        (_, RefusalCause::Io(error)) => {
            (format!("the connection failed: {error}"), "look at the network between", "io")
        }
        _ => return false,
    };
    findings.coded("handshake", Kind::Unavailable, text, help, code);
    true
}

impl Session {
    fn tell(self, tcp: Duration, findings: &mut Findings) {
        let Self { facts, who, took, end } = self;
        findings.ok("handshake", format!("{facts}, and the key of {who} is proven at both ends"));
        findings.ok("latency", format!("TCP {}, handshake {}", ms(tcp), ms(took)));
        const DONE: &str = "it was ended with close_notify, and nothing was sent; a tunnel's server end \
                            has opened a connection to its backend for it";
        match end {
            Farewell::Clean => findings.note("session", DONE.into()),
            Farewell::Open(limit) => {
                let text = format!("{DONE}, which had not ended {limit:.1?} later");
                findings.note("session", text);
            }
            Farewell::Cut => findings.warn(
                "session",
                "the peer cut it at once, as a tunnel's server end does whose backend does not answer, or \
                 that has as many sessions as it may have"
                    .into(),
                "look into its log",
            ),
        }
    }
}
