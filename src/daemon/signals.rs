//! Signals and console events, as requests.

use std::io;

use tokio::sync::mpsc;

use super::Request;

/// Sends on what signals ask of this process, and returns the numbers of those that stop it. Must be
/// called inside a runtime.
///
/// Signals that stop and were ignored when this program was started, as `nohup` and a script's `&`
/// have it, stay ignored.
///
/// # Errors
/// The system does not let the process listen.
#[cfg(unix)]
pub fn listen(sender: &mpsc::Sender<Request>) -> io::Result<Vec<i32>> {
    use tokio::signal::unix::{SignalKind, signal};
    type Ask = fn() -> Request;
    let stops: [(SignalKind, Ask); 3] = [
        (SignalKind::terminate(), || Request::Stop("SIGTERM")),
        (SignalKind::interrupt(), || Request::Stop("SIGINT")),
        (SignalKind::quit(), || Request::Stop("SIGQUIT")),
    ];
    let others: [(SignalKind, Ask); 3] = [
        (SignalKind::hangup(), || Request::Reload("SIGHUP")),
        (SignalKind::user_defined1(), || Request::ReopenLog),
        (SignalKind::user_defined2(), || Request::List),
    ];
    let heard =
        |(kind, _): &(SignalKind, Ask)| !crate::sys::background::is_ignored(kind.as_raw_value());
    let stops: Vec<_> = stops.into_iter().filter(heard).collect();
    let numbers = stops.iter().map(|(kind, _)| kind.as_raw_value()).collect();
    for (kind, request) in stops.into_iter().chain(others) {
        let mut signal = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signal.recv().await.is_some() && sender.send(request()).await.is_ok() {}
        });
    }
    Ok(numbers)
}

/// Waits for processes that this one inherits as the first of its PID namespace, a container's: programs of
/// `exec` leave some behind, and each would stay a zombie.
///
/// # Errors
/// The system does not let the process listen.
#[cfg(unix)]
pub fn reap_orphans() -> io::Result<()> {
    use crate::sys::children;
    use tokio::signal::unix::{SignalKind, signal};
    /// The pause while a program of ours that has ended stands before others.
    const RETRY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);
    if !children::is_init() {
        return Ok(());
    }
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        loop {
            if children::reap_orphans() {
                tokio::time::sleep(RETRY_INTERVAL).await;
            } else if ended.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

/// Sends on Ctrl-C, Ctrl-Break and the closing of the console, and what the service manager commands.
///
/// # Errors
/// The system does not let the process listen.
#[cfg(windows)]
pub fn listen(sender: &mpsc::Sender<Request>) -> io::Result<Vec<i32>> {
    use crate::sys::service_control::{self, ServiceCommand};
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close};
    let (mut c, mut brk, mut close) = (ctrl_c()?, ctrl_break()?, ctrl_close()?);
    let mut commands = service_control::take_commands();
    let sender = sender.clone();
    tokio::spawn(async move {
        loop {
            let request = tokio::select! {
                _ = c.recv() => Request::Stop("Ctrl-C"),
                _ = brk.recv() => Request::Stop("Ctrl-Break"),
                _ = close.recv() => Request::Stop("console closed"),
                command = next(&mut commands) => match command {
                    ServiceCommand::Stop(why) => Request::Stop(why),
                    ServiceCommand::Reload => Request::Reload("the service manager"),
                },
            };
            if sender.send(request).await.is_err() {
                return;
            }
        }
    });
    Ok(Vec::new())
}

/// The next command of the service manager, where there is one. Cancel safe.
#[cfg(windows)]
async fn next(
    commands: &mut Option<mpsc::UnboundedReceiver<crate::sys::service_control::ServiceCommand>>,
) -> crate::sys::service_control::ServiceCommand {
    match commands.as_mut() {
        Some(commands) => match commands.recv().await {
            Some(command) => command,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
