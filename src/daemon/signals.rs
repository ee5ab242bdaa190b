//! Signals and console events, as requests.

use std::io;

use tokio::sync::mpsc;

use super::Request;

/// Listens for whatever asks this process to stop. Must be called inside a runtime.
///
/// # Errors
/// The system does not let the process listen.
#[cfg(unix)]
pub fn listen() -> io::Result<mpsc::Receiver<Request>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    // A terminal that closes, or SIGHUP from a script, must not end the tunnel.
    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = quit.recv() => "SIGQUIT",
                _ = hangup.recv() => continue,
            };
            if sender.send(Request::Stop(name)).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Listens for Ctrl-C, Ctrl-Break and the closing of the console.
///
/// # Errors
/// The system does not let the process listen.
#[cfg(windows)]
pub fn listen() -> io::Result<mpsc::Receiver<Request>> {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close};
    let (mut c, mut brk, mut close) = (ctrl_c()?, ctrl_break()?, ctrl_close()?);
    let (sender, receiver) = mpsc::channel(4);
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
    Ok(receiver)
}
