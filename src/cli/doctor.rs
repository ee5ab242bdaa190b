//! `doctor`: what a configuration needs of this machine, looked at before it is missed; and, with
//! `--connect`, why a peer can be reached or cannot.

mod backend;
mod connect;
mod files;
mod findings;
mod names;
mod ports;
mod recording_stream;
mod rehearsal;
mod system;
#[cfg(unix)]
mod unit;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{FormatName, exit, paths, print_error, run};
use crate::config;
use crate::config::diagnostic::{Diagnostics, Severity};
use crate::config::model::Config;
use crate::daemon::BuiltConfig;
use crate::secrets::KeyFileReader;
use findings::{FaultKind, Findings};

/// The time limit of one step: a name lookup, a connection or a handshake.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line begins with ok, note, warn or bad, and says what to do. The exit code is 0 if nothing is bad, 78 \
if a configuration, key or setting is bad, and 69 if an address or a peer is bad.

Without --connect only the names of targets are looked up, and nothing else is sent: each service makes a \
handshake with itself inside this process, no port is opened, and no backend is contacted unless --backend is \
given.

If a unit of systemd runs the file, files, ports and limits are judged for the user of that unit, and a line \
says so. Run it as root, or not every file can be looked at. --as USER judges for another user.

With --connect the peer sees one or more TCP connections. At most one of them becomes a session, which is \
closed at once without sending data. But the server end opens a connection to its backend for it: if the \
backend supports only one connection, such as the Beremiz eRPC runtime, use --connect while nobody is \
connected.")]
pub(super) struct Arguments {
    /// The configuration: a TOML file or a stunnel.conf [default:
    /// /etc/pskgate/pskgate.toml, on Windows %ProgramData%\pskgate\pskgate.toml; if it does not exist, pskgate.toml in
    /// this folder, if only you can write to the file and the folder]
    #[arg(conflicts_with = "connect")]
    file: Option<PathBuf>,
    /// The format of the file; auto: TOML if the name ends in .toml, otherwise stunnel.conf
    #[arg(long, value_enum, default_value_t, conflicts_with = "connect")]
    format: FormatName,
    /// Also connect to each backend. Some backends break when a second connection arrives, such as the
    /// Beremiz eRPC runtime
    #[arg(long, conflicts_with = "connect")]
    backend: bool,
    /// Judge files, ports and limits for this user instead of the one of the unit that runs the file
    #[cfg(unix)]
    #[arg(long = "as", value_name = "USER", conflicts_with = "connect")]
    user: Option<String>,
    /// Print the lines as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    peer: connect::Arguments,
}

pub(super) fn main(arguments: &Arguments) -> u8 {
    let runtime = match run::single_thread_runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&format!("pskgate: cannot start: {error}"));
            return exit::INTERNAL;
        }
    };
    if let Some(words) = arguments.peer.missing_key_file_help() {
        print_error(&format!("pskgate: {words}"));
        return exit::USAGE;
    }
    let mut findings = Findings::new(arguments.json);
    match &arguments.peer.connect {
        Some(peer) => runtime.block_on(connect::test_peer(peer, &arguments.peer, &mut findings)),
        None => runtime.block_on(check_file(arguments, &mut findings)),
    }
    // A name that is still being looked up must not hold up the exit.
    runtime.shutdown_background();
    findings.finish()
}

/// Everything about a file, from the text down to the kernel.
async fn check_file(arguments: &Arguments, findings: &mut Findings) {
    let file = paths::config_or_default(arguments.file.as_deref());
    #[cfg(unix)]
    let judged = unit::choose(&file, arguments.user.as_deref(), findings);
    #[cfg(unix)]
    let (user, descriptors) = (judged.user(), judged.descriptors);
    #[cfg(not(unix))]
    let (user, descriptors) = (None, None);
    #[cfg_attr(not(unix), allow(unused_mut))]
    let (mut config, mut report) = config::survey(&file, arguments.format.into());
    #[cfg(unix)]
    if let Some(config) = &mut config {
        // For its words about users and groups, and for whom the key files may belong to.
        let _ = crate::daemon::privileges::Privileges::of(config, &mut report);
        allow_owner(config, user);
    }
    // One for both: a pipe can be read once.
    let mut reader = KeyFileReader::with_pipe_timeout(STEP_TIMEOUT);
    let plan = config
        .as_ref()
        .and_then(|config| BuiltConfig::build_with(config, &mut reader, &mut report));
    let keys =
        config.as_ref().map(|config| files::load_all(config, &mut reader)).unwrap_or_default();
    drop(reader);
    report_diagnostics(&file, plan.as_ref(), &report, &keys, findings);
    if let Some(config) = &config {
        files::report_keys(config, &keys, user.is_some(), findings);
        #[cfg(unix)]
        unit::report_obstacles(&judged, &file, config, findings);
        ports::check_ports(config, findings);
        backend::check_backends(config, arguments.backend, findings).await;
        rehearsal::check_handshakes(config, &keys, findings).await;
        system::limits(config, descriptors, findings);
        system::watching(config, &report, user, findings);
    }
    if let Some(config) = &config {
        system::sandbox(config, findings);
    }
    system::openssl(findings);
    system::clock(findings);
}

/// Key files may belong to the user of the unit, as they may to the user of the process.
#[cfg(unix)]
pub(super) fn allow_owner(config: &mut Config, user: Option<u32>) {
    for service in &mut config.services {
        service.psk.rules.also_owned_by = service.psk.rules.also_owned_by.or(user);
    }
}

/// What `check` says, but for what is said of the key files themselves.
fn report_diagnostics(
    file: &Path,
    plan: Option<&BuiltConfig>,
    report: &Diagnostics,
    keys: &[files::ServiceKeys],
    findings: &mut Findings,
) {
    let told = files::reported_problems(keys);
    for found in &report.diagnostics {
        if !told.contains(&(found.code, found.message.as_str())) {
            findings.diagnostic("configuration", found);
        }
    }
    if let Some((services, identities)) = plan.map(BuiltConfig::size) {
        let text = format!("{}: services {services}, identities {identities}", file.display());
        findings.ok("configuration", text);
        for (service, one_key) in plan.into_iter().flat_map(BuiltConfig::one_key) {
            findings.note("sessions", format!("service {service}: {one_key}"));
        }
    } else if report.diagnostics.iter().all(|found| found.severity != Severity::Error) {
        // Not so today; but silence would pass for health.
        findings.bad(
            "configuration",
            FaultKind::Config,
            "it cannot be used".into(),
            "run `pskgate check`",
        );
    }
}

/// The suffix that names a service in a line; empty if there is one service only.
fn service_suffix(config: &Config, name: &str) -> String {
    if config.services.len() == 1 { String::new() } else { format!(" (service {name})") }
}
