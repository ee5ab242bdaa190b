//! `service`: this program as a service of Windows.

use std::ffi::{OsStr, OsString};
use std::fs::File as OpenFile;
use std::io;
use std::path::{Path, PathBuf, absolute};
use std::time::{Duration, Instant};

use clap::Subcommand;
use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceErrorControl, ServiceExitCode,
    ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo, ServiceStartType, ServiceState,
    ServiceType,
};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};

use super::run::{ConfigSource, RunMode, start_program};
use super::{ConfigArgument, FormatName, check, exit, print_result};
use crate::config;
use crate::config::model::Config;
use crate::sys::acl::{self, BroadAccess};
use crate::sys::event_log::{self, EventLog};
use crate::sys::service_control::{run_as_service, to_io_error};

/// Under which name the event log knows it, whatever the service is called.
const EVENT_LOG_SOURCE: &str = "pskgate";
/// How long a start or a stop is watched that does not say how long it may take.
const STATE_CHANGE_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at it.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Between an end that nobody ordered and the next start.
const RESTART_DELAY: Duration = Duration::from_secs(5);
/// Without one for so long, the next end counts as the first.
const FAILURE_RESET_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);
/// What the drain of sessions gets beside its own time. At a shutdown of the machine the sum is a day at most, for
/// the manager counts milliseconds in 32 bits.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a service that runs a configuration file and starts with Windows
    Install {
        #[command(flatten)]
        file: ConfigArgument,
        #[command(flatten)]
        which: ServiceArguments,
        /// The account of the service [default: its own account, `NT SERVICE\NAME`]
        #[arg(long)]
        account: Option<String>,
    },
    /// Start the service, and wait until it works
    Start(ServiceArguments),
    /// Stop the service; sessions may finish
    Stop(ServiceArguments),
    /// Stop and remove the service
    Uninstall(ServiceArguments),
    /// Started by the service manager
    #[command(hide = true)]
    Run {
        #[command(flatten)]
        file: ConfigArgument,
        #[command(flatten)]
        which: ServiceArguments,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct ServiceArguments {
    /// The name of the service
    #[arg(long, default_value = "pskgate")]
    name: String,
}

pub(super) fn main(command: &Command) -> u8 {
    let done = match command {
        Command::Install { file, which, account } => install(file, which, account.as_deref()),
        Command::Start(which) => start(which),
        Command::Stop(which) => stop(which),
        Command::Uninstall(which) => uninstall(which),
        Command::Run { file, which } => run(file, which),
    };
    done.unwrap_or_else(|(code, words)| {
        super::print_error(&format!("pskgate: {words}"));
        code
    })
}

/// An exit code, and why.
type ServiceError = (u8, String);

/// What a service has to say where nobody sees standard error.
pub(super) fn write_to_event_log(text: &str) {
    if let Ok(log) = EventLog::open(EVENT_LOG_SOURCE.as_ref()) {
        // There is no third place.
        let _ = log.write(3, text);
    }
}

fn run(file: &ConfigArgument, which: &ServiceArguments) -> Result<u8, ServiceError> {
    let path = file.path();
    // It is started in the folder of the system.
    if let Some(folder) = path.parent() {
        let _ = std::env::set_current_dir(folder);
    }
    let format = file.format;
    let work = move || start_program(ConfigSource::file(&path, format.into()), RunMode::Native);
    match run_as_service(which.name.as_ref(), work) {
        Ok(()) => Ok(exit::OK),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Err((
            exit::USAGE,
            "`service run` is for the service manager alone; `pskgate run FILE` runs in a console, and \
             `pskgate service install FILE` makes a service"
                .into(),
        )),
        Err(error) => Err(failed("serve", &which.name, &error)),
    }
}

fn install(
    file: &ConfigArgument,
    which: &ServiceArguments,
    account: Option<&str>,
) -> Result<u8, ServiceError> {
    let program = std::env::current_exe()
        .map_err(|error| (exit::INTERNAL, format!("cannot tell where this program is: {error}")))?;
    let path = absolute(file.path())
        .map_err(|error| (exit::USAGE, format!("{}: {error}", file.path().display())))?;
    let wanted = ConfigArgument { file: Some(path.clone()), config: None, format: file.format };
    let checked = check::main(&wanted, false, false);
    if checked != exit::OK {
        return Ok(checked);
    }
    // Whoever changes either has the service do as they like.
    for path in [&program, &path] {
        require_trusted(path)?;
    }
    let name = OsString::from(&which.name);
    let account = account.map_or_else(|| format!(r"NT SERVICE\{}", which.name), str::to_owned);
    let mut arguments = vec!["service".into(), "run".into(), "--name".into(), name.clone()];
    if let FormatName::Toml | FormatName::Stunnel = file.format {
        let format = if matches!(file.format, FormatName::Toml) { "toml" } else { "stunnel" };
        arguments.extend(["--format".into(), format.into()]);
    }
    arguments.push(path.clone().into());
    let info = ServiceInfo {
        name: name.clone(),
        display_name: format!("pskgate ({})", which.name).into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: program,
        launch_arguments: arguments,
        dependencies: Vec::new(),
        account_name: Some(account.clone().into()),
        account_password: None,
    };
    let cannot = |error: &io::Error| failed("install", &which.name, error);
    let manager = manager(ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE)
        .map_err(|error| cannot(&error))?;
    let access = ServiceAccess::CHANGE_CONFIG | ServiceAccess::START | ServiceAccess::DELETE;
    let service =
        manager.create_service(&info, access).map_err(|error| cannot(&to_io_error(error)))?;
    let config = config::survey(&path, file.format.into()).0;
    if let Err(error) = describe(&service, config.as_ref()) {
        // Half a service would be started all the same.
        let _ = service.delete();
        return Err(cannot(&error));
    }
    // Without it the texts are there as well, below an apology.
    let shown = event_log::install(EVENT_LOG_SOURCE);
    let mut text = format!(
        "the service {} is installed and runs {} as {account} from the next start of this machine on\n\
         `pskgate service start` starts it now; it needs to read these:\n",
        which.name,
        path.display()
    );
    for file in files(&path, config.as_ref()) {
        text += &format!("    icacls \"{}\" /grant \"{account}:R\"\n", file.display());
    }
    text += "and takes a key file only from administrators, from the system or from itself:\n";
    for file in files(&path, config.as_ref()).iter().skip(1) {
        let inside = if file.is_dir() { " /t" } else { "" };
        text += &format!("    icacls \"{}\" /setowner *S-1-5-32-544{inside}\n", file.display());
    }
    if let Some(log) = config.as_ref().and_then(|config| config.log.output.as_ref()) {
        let folder = log.parent().unwrap_or(log).display().to_string();
        text += &format!(
            "and to write the log's folder:\n    icacls \"{folder}\" /grant \"{account}:(OI)(CI)M\"\n"
        );
    } else {
        text += "it has no log file: what it says is in the event log, under Windows Logs, Application\n";
    }
    if let Err(error) = shown {
        text += &format!("the event log could not be told of its name: {error}\n");
    }
    Ok(print_result(text.trim_end()))
}

/// What is decided once the service is there.
fn describe(service: &Service, config: Option<&Config>) -> io::Result<()> {
    let drain = config.map_or(Duration::ZERO, |config| config.drain_timeout.value);
    service.set_description("A tunnel that a pre-shared key opens.").map_err(to_io_error)?;
    service
        .set_preshutdown_timeout(drain.saturating_add(SHUTDOWN_MARGIN).min(FAILURE_RESET_PERIOD))
        .map_err(to_io_error)?;
    let again = ServiceAction { action_type: ServiceActionType::Restart, delay: RESTART_DELAY };
    let actions = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(FAILURE_RESET_PERIOD),
        reboot_msg: None,
        command: None,
        actions: Some(vec![again; 3]),
    };
    // A configuration that is wrong would be so in five seconds, too: only crashes count.
    service.update_failure_actions(actions).map_err(to_io_error)
}

/// What the service reads: its configuration and the key files.
fn files(path: &Path, config: Option<&Config>) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    for service in config.iter().flat_map(|config| &config.services) {
        let psk = &service.psk;
        files.extend(psk.secrets.iter().map(|secrets| secrets.value.clone()));
    }
    files.dedup();
    files
}

/// Refuses a file that strangers may change.
fn require_trusted(path: &Path) -> Result<(), ServiceError> {
    let cannot = |error: &dyn std::fmt::Display| {
        (exit::NO_INPUT, format!("cannot tell who may change {}: {error}", path.display()))
    };
    let file = OpenFile::open(path).map_err(|error| cannot(&error))?;
    let bytes = acl::read_descriptor(&file).map_err(|error| cannot(&error))?;
    let user = acl::current_user_sid().map_err(|error| cannot(&error))?;
    if let Some(owner) = acl::find_foreign_owner(&bytes, &user).map_err(|error| cannot(&error))? {
        return Err((
            exit::NO_PERMISSION,
            format!(
                "{} belongs to {owner}, who could change what the service does: \
                 icacls \"{0}\" /setowner *S-1-5-32-544",
                path.display()
            ),
        ));
    }
    match acl::find_loose_access(&bytes).map_err(|error| cannot(&error))? {
        Some(loose) if loose.access == BroadAccess::Change => Err((
            exit::NO_PERMISSION,
            format!(
                "the group {} may change {}, and so would decide what the service does; put it where only \
                 administrators may write, such as %ProgramFiles%\\pskgate",
                loose.group,
                path.display()
            ),
        )),
        _ => Ok(()),
    }
}

fn start(which: &ServiceArguments) -> Result<u8, ServiceError> {
    let cannot = |error: &io::Error| failed("start", &which.name, error);
    let access = ServiceAccess::START | ServiceAccess::QUERY_STATUS;
    let service = open(which, access).map_err(|error| cannot(&error))?;
    service.start::<&OsStr>(&[]).map_err(|error| cannot(&to_io_error(error)))?;
    match wait_until_settled(&service, ServiceState::StartPending)
        .map_err(|error| cannot(&error))?
    {
        (ServiceState::Running, _) => {
            Ok(print_result(&format!("the service {} serves", which.name)))
        }
        (_, code) => {
            let code = match code {
                ServiceExitCode::ServiceSpecific(code) => {
                    u8::try_from(code).unwrap_or(exit::INTERNAL)
                }
                ServiceExitCode::Win32(_) => exit::UNAVAILABLE,
            };
            let words = format!(
                "the service {} does not serve; the event log says why, under Windows Logs, Application",
                which.name
            );
            Err((code, words))
        }
    }
}

fn stop(which: &ServiceArguments) -> Result<u8, ServiceError> {
    let cannot = |error: &io::Error| failed("stop", &which.name, error);
    let access = ServiceAccess::STOP | ServiceAccess::QUERY_STATUS;
    let service = open(which, access).map_err(|error| cannot(&error))?;
    stop_if_running(&service).map_err(|error| cannot(&error))?;
    Ok(print_result(&format!("the service {} has stopped", which.name)))
}

fn uninstall(which: &ServiceArguments) -> Result<u8, ServiceError> {
    let cannot = |error: &io::Error| failed("take away", &which.name, error);
    let access = ServiceAccess::STOP | ServiceAccess::QUERY_STATUS | ServiceAccess::DELETE;
    let service = open(which, access).map_err(|error| cannot(&error))?;
    stop_if_running(&service).map_err(|error| cannot(&error))?;
    service.delete().map_err(|error| cannot(&to_io_error(error)))?;
    // Another service may still have it, or it was never there; its old events merely look worse.
    let _ = event_log::uninstall(EVENT_LOG_SOURCE);
    Ok(print_result(&format!("the service {} is gone; its files are where they were", which.name)))
}

/// Stops it, unless it has stopped already.
fn stop_if_running(service: &Service) -> io::Result<()> {
    if service.query_status().map_err(to_io_error)?.current_state != ServiceState::Stopped {
        service.stop().map_err(to_io_error)?;
        wait_until_settled(service, ServiceState::StopPending)?;
    }
    Ok(())
}

/// Waits until it is no longer on its way, and says what came of it.
fn wait_until_settled(
    service: &Service,
    on_its_way: ServiceState,
) -> io::Result<(ServiceState, ServiceExitCode)> {
    let start = Instant::now();
    let mut timeout = STATE_CHANGE_TIMEOUT;
    loop {
        let status = service.query_status().map_err(to_io_error)?;
        // A drain says how long it has.
        timeout = timeout.max(status.wait_hint.saturating_add(SHUTDOWN_MARGIN));
        let waits = status.current_state == on_its_way
            || on_its_way == ServiceState::StopPending
                && status.current_state != ServiceState::Stopped;
        if !waits {
            return Ok((status.current_state, status.exit_code));
        }
        if start.elapsed() > timeout {
            let words = format!("nothing has come of it in {} s", timeout.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, words));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn manager(access: ServiceManagerAccess) -> io::Result<ServiceManager> {
    ServiceManager::local_computer(None::<&OsStr>, access).map_err(to_io_error)
}

fn open(which: &ServiceArguments, access: ServiceAccess) -> io::Result<Service> {
    manager(ServiceManagerAccess::CONNECT)?.open_service(&which.name, access).map_err(to_io_error)
}

fn failed(what: &str, name: &str, error: &io::Error) -> ServiceError {
    /// `ERROR_SERVICE_DOES_NOT_EXIST`, `ERROR_SERVICE_EXISTS`, `ERROR_SERVICE_ALREADY_RUNNING`,
    /// `ERROR_SERVICE_NOT_ACTIVE`
    const MISSING: i32 = 1060;
    const EXISTS: i32 = 1073;
    const RUNS: i32 = 1056;
    const IDLE: i32 = 1062;
    let (code, help) = match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::PermissionDenied, _) => {
            (exit::NO_PERMISSION, "; only administrators may: open the console as one")
        }
        (_, Some(MISSING)) => (exit::UNAVAILABLE, "; `pskgate service install FILE` makes it"),
        (_, Some(EXISTS)) => (exit::UNAVAILABLE, "; `--name` gives another one a name"),
        (_, Some(RUNS | IDLE)) => (exit::UNAVAILABLE, ""),
        (io::ErrorKind::TimedOut, _) => {
            (exit::UNAVAILABLE, "; it is still at it, and `sc query` shows its state")
        }
        _ => (exit::INTERNAL, ""),
    };
    (code, format!("cannot {what} the service {name}: {error}{help}"))
}
