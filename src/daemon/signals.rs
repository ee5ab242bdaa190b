//! Signals and console events, as requests.

use std::io;

use tokio::sync::mpsc;

use super::Request;

/// Sends on what signals ask of this process. Must be called inside a runtime.
///
/// # Errors
/// The system does not let the process listen.
#[cfg(unix)]
pub fn listen(sender: mpsc::Sender<Request>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let request = tokio::select! {
                _ = terminate.recv() => Request::Stop("SIGTERM"),
                _ = interrupt.recv() => Request::Stop("SIGINT"),
                _ = quit.recv() => Request::Stop("SIGQUIT"),
                _ = hangup.recv() => Request::Reload("SIGHUP"),
            };
            if sender.send(request).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Sends on Ctrl-C, Ctrl-Break and the closing of the console.
///
/// # Errors
/// The system does not let the process listen.
#[cfg(windows)]
pub fn listen(sender: mpsc::Sender<Request>) -> io::Result<()> {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close};
    let (mut c, mut brk, mut close) = (ctrl_c()?, ctrl_break()?, ctrl_close()?);
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
    Ok(())
}
