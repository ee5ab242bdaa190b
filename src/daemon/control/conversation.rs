//! One connection to the control socket: requests and answers, a line of JSON each.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::access::Access;
use super::{Answer, ControlCommand, KickSelection, Right};
use crate::daemon::{Request, run_on_thread};
use crate::observe::event::{Event, LogContext};
use crate::observe::rate_limiter::LogRateLimiter;
use crate::secrets::escape;

/// The longest request: a kick with an identity of 255 bytes, each escaped, has half of it.
const MAX_REQUEST_SIZE: usize = 4096;
/// To send a request that has begun, and to take an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For whoever was refused to take the words and go.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Who is at the other end, as the system tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct ControlPeer {
    /// The user's number, where there is such a thing.
    pub(super) user: Option<u32>,
    /// The process's number.
    pub(super) process: Option<i32>,
}

impl fmt::Display for ControlPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            Some(user) => write!(f, "user {user}")?,
            None => f.write_str("a user of this machine")?,
        }
        match self.process {
            Some(process) => write!(f, " (process {process})"),
            None => Ok(()),
        }
    }
}

/// What every conversation needs.
#[derive(Debug, Clone)]
pub(super) struct ControlContext {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) access: watch::Receiver<Access>,
    /// For lines that anybody who can connect may cause.
    pub(super) limiter: Arc<LogRateLimiter>,
    /// Set when no further request is taken.
    pub(super) closing: watch::Receiver<bool>,
}

/// Answers until the peer has no more questions, breaks a rule, or takes too long. `busy` is set while
/// a request is worked on.
pub(super) async fn serve_connection(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: ControlPeer,
    mut context: ControlContext,
    busy: Arc<AtomicBool>,
) {
    let mut lines = LineReader::default();
    loop {
        let line = tokio::select! {
            line = lines.next(&mut stream) => line,
            // Fails when whoever could set it has gone, and that means the same.
            _ = context.closing.wait_for(|closing| *closing) => return,
        };
        let (answer, last) = match line {
            Ok(None) => return,
            Err(RequestError::Connection) => return,
            Err(RequestError::Request(words)) => (Answer::Refused(words.into()), true),
            Ok(Some(line)) => match parse_command(&line) {
                Ok(command) => {
                    busy.store(true, Ordering::Relaxed);
                    (context.answer(command, peer).await, false)
                }
                Err(words) => (Answer::Refused(words.into()), true),
            },
        };
        let written = timeout(REQUEST_TIMEOUT, write(&mut stream, answer)).await;
        busy.store(false, Ordering::Relaxed);
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
        if last {
            return leave(stream).await;
        }
    }
}

/// Closes after the last word. Linux resets a connection that is closed with something unread, and the
/// peer would never see why.
async fn leave(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut sink = [0; 1024];
    let _ = timeout(CLOSE_TIMEOUT, async {
        if stream.shutdown().await.is_ok() {
            while matches!(stream.read(&mut sink).await, Ok(1..)) {}
        }
    })
    .await;
}

/// What somebody hears for whom there is no room.
pub(super) async fn refuse_connection(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let full = Answer::Refused("too many requests at once; try again in a moment".into());
    if let Ok(Ok(())) = timeout(CLOSE_TIMEOUT, write(&mut stream, full)).await {
        leave(stream).await;
    }
}

impl ControlContext {
    async fn answer(&self, command: ControlCommand, peer: ControlPeer) -> Answer {
        if command.right() > self.access.borrow().right(peer.user) {
            let what = CommandLogLine(&command);
            self.limiter.log(&Event::Denied { what: &what, who: &peer }, LogContext::PROGRAM);
            return Answer::Denied(format!(
                "{peer} may look, but not order a {}: the configuration's `[control] \
                 command-users` says who may",
                command.name()
            ));
        }
        if command.right() == Right::Command {
            let what = CommandLogLine(&command);
            Event::Ordered { what: &what, who: &peer }.log(LogContext::PROGRAM);
        }
        let (asked, answer) = oneshot::channel();
        let stopping = || Answer::Refused("the program is stopping".into());
        match self.requests.send(Request::Ask(command, asked)).await {
            Ok(()) => answer.await.unwrap_or_else(|_| stopping()),
            Err(_) => stopping(),
        }
    }
}

/// A request as a line of the log has it.
struct CommandLogLine<'a>(&'a ControlCommand);

impl fmt::Display for CommandLogLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ControlCommand::Kick(KickSelection::Number(number)) => {
                write!(f, "kick session {number}")
            }
            ControlCommand::Kick(KickSelection::Identity(identity)) => {
                write!(f, "kick identity {}", escape(identity.as_bytes()))
            }
            ControlCommand::RemoveLast { file } => {
                let name = file.as_os_str().as_encoded_bytes();
                write!(f, "remove-last, the last key of {}", escape(name))
            }
            other => f.write_str(other.name()),
        }
    }
}

/// What is wrong with a line. Never in the parser's words: they quote what was sent.
fn parse_command(line: &[u8]) -> Result<ControlCommand, &'static str> {
    serde_json::from_slice(line).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            "unknown request: send `status`, `reload`, `remove-last` or `kick`"
        }
        _ => "a request is one JSON object on a line",
    })
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), answer: Answer) -> io::Result<()> {
    let mut line = match answer {
        Answer::Status(status) if status.is_large() => {
            let written = move || serde_json::to_vec(&Answer::Status(status));
            run_on_thread(written).await.ok_or(io::ErrorKind::OutOfMemory)??
        }
        answer => serde_json::to_vec(&answer)?,
    };
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

/// Why there is no line.
enum RequestError {
    /// Nothing can be said to the peer any more.
    Connection,
    /// It broke a rule.
    Request(&'static str),
}

/// What has come and was not asked for yet.
#[derive(Default)]
struct LineReader {
    kept: Vec<u8>,
    /// By when the line that has begun must be whole.
    until: Option<Instant>,
}

impl LineReader {
    /// The next line; none at the end. Cancel safe.
    async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Vec<u8>>, RequestError> {
        let mut piece = [0; 1024];
        loop {
            if let Some(end) = self.kept.iter().position(|byte| *byte == b'\n') {
                let rest = self.kept.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.kept, rest);
                self.until = None;
                line.truncate(end);
                return if end > MAX_REQUEST_SIZE { Err(too_long()) } else { Ok(Some(line)) };
            }
            if self.kept.len() > MAX_REQUEST_SIZE {
                return Err(too_long());
            }
            let read = stream.read(&mut piece);
            let count = if self.kept.is_empty() {
                read.await
            } else {
                let until = *self.until.get_or_insert_with(|| Instant::now() + REQUEST_TIMEOUT);
                let late = RequestError::Request("a request must be whole within 10 s");
                timeout_at(until, read).await.map_err(|_| late)?
            };
            match count {
                Ok(0) if self.kept.is_empty() => return Ok(None),
                Ok(0) => return Err(RequestError::Request("a request ends with a newline")),
                Ok(count) => self.kept.extend_from_slice(&piece[..count]),
                Err(_) => return Err(RequestError::Connection),
            }
        }
    }
}

fn too_long() -> RequestError {
    RequestError::Request("a request has at most 4096 bytes")
}

#[cfg(all(unix, any(test, fuzzing)))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;
