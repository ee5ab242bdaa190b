//! Windows' service manager: this program as one of its services.

use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use windows_service::Error;
use windows_service::service::{
    ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{
    ServiceControlHandlerResult, ServiceStatusHandle, register,
};
use windows_service::{define_windows_service, service_dispatcher};

/// What the manager commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceCommand {
    /// Stop. With the name of the reason.
    Stop(&'static str),
    /// Read the configuration and the keys again.
    Reload,
}

/// What the manager waits for a start. Names in it may have to be looked up.
const START_WAIT_HINT: Duration = Duration::from_secs(60);
/// What a stop takes at most, unless the sessions' time is longer.
const STOP_WAIT_HINT: Duration = Duration::from_secs(100);

type ServiceMain = Box<dyn FnOnce() -> u8 + Send>;

static SERVICE_MAIN: Mutex<Option<(OsString, ServiceMain)>> = Mutex::new(None);
static STATUS: OnceLock<ServiceStatusHandle> = OnceLock::new();
static COMMANDS: Mutex<Option<UnboundedReceiver<ServiceCommand>>> = Mutex::new(None);

// The macro's one unsafe block reads the arguments that the system passes, by its documented layout.
define_windows_service!(ffi_service_main, service_main);

/// Does `work` as the service of this name, and returns when it is done; the manager hears its exit code.
/// While it works, [`is_running`] is true and [`take_commands`] gives what the manager wants.
///
/// # Errors
/// The manager did not start this process (`NotConnected`), or does not answer.
pub fn run_as_service(name: &OsStr, work: impl FnOnce() -> u8 + Send + 'static) -> io::Result<()> {
    /// `ERROR_FAILED_SERVICE_CONTROLLER_CONNECT`
    const NOT_A_SERVICE: i32 = 1063;
    let work = Some((name.to_owned(), Box::new(work) as ServiceMain));
    *SERVICE_MAIN.lock().unwrap_or_else(PoisonError::into_inner) = work;
    service_dispatcher::start(name, ffi_service_main).map_err(to_io_error).map_err(|error| {
        match error.raw_os_error() {
            Some(NOT_A_SERVICE) => io::ErrorKind::NotConnected.into(),
            _ => error,
        }
    })
}

/// The system's own error, where there is one.
pub fn to_io_error(error: Error) -> io::Error {
    match error {
        Error::Winapi(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

/// Whether this process is a service.
pub fn is_running() -> bool {
    STATUS.get().is_some()
}

/// What the manager commands; once, and only in a service.
pub fn take_commands() -> Option<UnboundedReceiver<ServiceCommand>> {
    COMMANDS.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn service_main(_: Vec<OsString>) {
    let Some((name, work)) = SERVICE_MAIN.lock().unwrap_or_else(PoisonError::into_inner).take()
    else {
        return;
    };
    let (sender, receiver) = unbounded_channel();
    *COMMANDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(receiver);
    let listen = move |control: ServiceControl| {
        let command = match control {
            ServiceControl::Stop => ServiceCommand::Stop("service stop"),
            ServiceControl::Preshutdown | ServiceControl::Shutdown => {
                ServiceCommand::Stop("shutdown")
            }
            ServiceControl::ParamChange => ServiceCommand::Reload,
            ServiceControl::Interrogate => return ServiceControlHandlerResult::NoError,
            _ => return ServiceControlHandlerResult::NotImplemented,
        };
        // Nobody listens any more in a process that ends already.
        let _ = sender.send(command);
        ServiceControlHandlerResult::NoError
    };
    // Without a handler the manager ends this process by itself.
    let Ok(status) = register(&name, listen) else { return };
    let _ = STATUS.set(status);
    report(ServiceState::StartPending, START_WAIT_HINT, ServiceExitCode::NO_ERROR);
    let code = match work() {
        0 => ServiceExitCode::NO_ERROR,
        code => ServiceExitCode::ServiceSpecific(code.into()),
    };
    report(ServiceState::Stopped, Duration::ZERO, code);
}

/// Tells the manager what the service manager of a Linux is told in these words (sd_notify(3)).
pub(super) fn report_notify_text(text: &str) {
    let value = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.parse().ok())
    };
    if text.lines().any(|line| line == "STOPPING=1") {
        let hint = value("EXTEND_TIMEOUT_USEC=").map_or(STOP_WAIT_HINT, Duration::from_micros);
        report(ServiceState::StopPending, hint, ServiceExitCode::NO_ERROR);
    } else if text.lines().any(|line| line == "READY=1") {
        report(ServiceState::Running, Duration::ZERO, ServiceExitCode::NO_ERROR);
    }
}

fn report(state: ServiceState, hint: Duration, exit_code: ServiceExitCode) {
    let Some(status) = STATUS.get() else { return };
    let controls_accepted = match state {
        ServiceState::Running => {
            ServiceControlAccept::STOP
                | ServiceControlAccept::PRESHUTDOWN
                | ServiceControlAccept::PARAM_CHANGE
        }
        _ => ServiceControlAccept::empty(),
    };
    // A manager that is gone is told nothing; the service goes on.
    let _ = status.set_service_status(ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted,
        exit_code,
        checkpoint: 0,
        wait_hint: hint,
        process_id: None,
    });
}
