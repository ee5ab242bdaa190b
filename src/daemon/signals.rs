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
        |(kind, _): &(SignalKind, Ask)| !crate::sys::daemon::is_ignored(kind.as_raw_value());
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

/// Sends on Ctrl-C, Ctrl-Break and the closing of the console.
///
/// # Errors
/// The system does not let the process listen.
#[cfg(windows)]
pub fn listen(sender: &mpsc::Sender<Request>) -> io::Result<Vec<i32>> {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close};
    let (mut c, mut brk, mut close) = (ctrl_c()?, ctrl_break()?, ctrl_close()?);
    let sender = sender.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = c.recv() => "Ctrl-C",
                _ = brk.recv() => "Ctrl-Break",
                _ = close.recv() => "console closed",
            };
            if sender.send(Request::Stop(name)).await.is_err() {
                return;
            }
        }
    });
    Ok(Vec::new())
}
