//! The log: from `tracing`, through a queue, to standard error or the journal, a file and syslog.
//!
//! `tracing` has five levels and syslog eight, so that an event carries its own. Writing never blocks a
//! session: lines go through a bounded queue to a thread of their own, and what does not fit is counted and
//! said later.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub use super::journal::Journal;
use super::log_file::{LogFile, standard_stream, write_lines};
pub use super::record::set_background;
use super::record::{LogLine, LogRecord};
pub use super::syslog::Syslog;
pub use super::time_zone::zone;
use super::verbosity;
use crate::config::model::{Level, LogConfig, LogFormat};

/// Lines that may wait for a slow disk or terminal: at 200 bytes each, under 1 MB.
const QUEUE_CAPACITY: usize = 4096;
/// How long [`flush`] waits for the last lines at the program's end.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Lines less than this apart are written in batches: waking the thread for each would cost the session more
/// than the line.
const BUSY_INTERVAL: Duration = Duration::from_millis(5);
/// How long the thread waits for more lines of a batch.
const BATCH_DELAY: Duration = Duration::from_millis(2);
/// Lines that are written with one call at most: with a call for each, to a file and to standard error, a busy
/// service spends more on its log than on its connections.
const MAX_LINES_PER_WRITE: usize = 128;

static OVERWRITE: AtomicBool = AtomicBool::new(false);
static SINK: OnceLock<LogSink> = OnceLock::new();

struct LogSink {
    /// Held by the writing thread, for as long as a slow log takes.
    output: Mutex<LogOutputs>,
    /// The configured outputs, to compare with the next configuration.
    requested: Mutex<RequestedOutputs>,
    queue: OnceLock<SyncSender<QueueMessage>>,
    /// A change for which the queue had no room; the writing thread applies it when it continues.
    deferred_change: Mutex<Option<OutputChange>>,
    /// Lines that could not be written and were not reported yet.
    unreported_losses: AtomicU64,
    total_losses: AtomicU64,
}

/// Whether lines go to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StderrUse {
    /// Also beside a file.
    Always,
    /// When there is no file.
    WithoutFile,
    /// The process is in the background, or was told to be quiet.
    Never,
}

/// Where lines go: any of a file, standard error and syslog.
struct LogOutputs {
    file: Option<LogFile>,
    /// An error of its rotation, to be reported once.
    rotation_error: Option<String>,
    stderr: StderrUse,
    /// In standard error's place, where that leads there.
    journal: Option<Journal>,
    syslog: Option<Syslog>,
}

/// A change of the outputs, prepared by the caller: only the writing thread waits for a slow log.
type OutputChange = Box<dyn FnOnce(&mut LogOutputs) + Send>;

/// The part of a configuration that the writing thread follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct RequestedOutputs {
    path: Option<PathBuf>,
    max_size: Option<u64>,
    syslog: bool,
    facility: u32,
    ident: String,
}

impl RequestedOutputs {
    fn from_config(config: &LogConfig) -> Self {
        Self {
            path: config.output.as_ref().map(|path| path.value.clone()),
            max_size: max_size(config),
            syslog: config.syslog.value,
            facility: config.facility.value,
            ident: config.ident.value.clone(),
        }
    }
}

enum QueueMessage {
    Line(LogLine),
    Change(OutputChange),
    Flush(SyncSender<()>),
}

/// Opens the log and makes it the program's. Lines are written directly until [`start`].
///
/// # Errors
/// The file cannot be opened.
pub fn init(
    config: &LogConfig,
    stderr: StderrUse,
    syslog: Option<Syslog>,
    journal: Option<Journal>,
) -> io::Result<()> {
    let requested = RequestedOutputs::from_config(config);
    let file = open_file(config, requested.path.as_deref())?;
    verbosity::apply_config(config);
    OVERWRITE.store(config.overwrite.value, Ordering::Relaxed);
    let output = LogOutputs { file, rotation_error: None, stderr, journal, syslog };
    output.publish_journal_use();
    let output = Mutex::new(output);
    let (unreported_losses, total_losses) = (AtomicU64::new(0), AtomicU64::new(0));
    let (requested, queue, deferred_change) =
        (Mutex::new(requested), OnceLock::new(), Mutex::default());
    let sink =
        LogSink { output, requested, queue, deferred_change, unreported_losses, total_losses };
    if SINK.set(sink).is_ok() {
        let subscriber = tracing_subscriber::registry().with(LogLayer);
        // Only a second call in one process finds a subscriber set; the first log goes on.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
    Ok(())
}

/// Follows a new configuration: level and format at once; file and syslog if they can be had, else those
/// that are open go on.
///
/// A file that keeps its name is opened anew, because it may have been moved away; not if that would
/// empty it.
///
/// # Errors
/// The file cannot be opened, or the log is stuck and its queue full.
pub fn reconfigure(config: &LogConfig) -> io::Result<()> {
    let Some(sink) = SINK.get() else { return Ok(()) };
    verbosity::apply_config(config);
    let requested = RequestedOutputs::from_config(config);
    let overwrite = config.overwrite.value;
    let mut known = sink.requested.lock().unwrap_or_else(PoisonError::into_inner);
    let file = if known.path != requested.path {
        Some(open_file(config, requested.path.as_deref())?)
    } else if overwrite {
        None
    } else {
        // What is open still works.
        reopen_file(requested.path.as_deref(), false).ok().flatten().map(Some)
    };
    let config_now = config.clone();
    let change: OutputChange = Box::new(move |output| {
        if let Some(file) = file {
            output.file = file;
        }
        if let Some(file) = &mut output.file {
            file.set_max_size(max_size(&config_now));
        }
        output.syslog = match output.syslog.take() {
            Some(open) if config_now.syslog.value => Some(open.with_config(&config_now)),
            _ => Syslog::open(&config_now),
        };
        if let Some(journal) = &mut output.journal {
            journal.set_config(&config_now);
        }
        output.publish_journal_use();
    });
    if let Err(change) = sink.queue_change(change) {
        if *known != requested {
            return Err(queue_full_error());
        }
        // Nothing else was asked for: the file is opened anew when the log gets on.
        *sink.deferred_change.lock().unwrap_or_else(PoisonError::into_inner) = Some(change);
    }
    *known = requested;
    OVERWRITE.store(overwrite, Ordering::Relaxed);
    Ok(())
}

fn queue_full_error() -> io::Error {
    io::Error::other("the log takes nothing, and its queue is full")
}

/// Opens the log's file again under its name, after somebody has moved it away. Nothing changes on
/// failure.
///
/// # Errors
/// The file cannot be opened.
pub fn reopen() -> io::Result<()> {
    let Some(sink) = SINK.get() else { return Ok(()) };
    let known = sink.requested.lock().unwrap_or_else(PoisonError::into_inner);
    match reopen_file(known.path.as_deref(), OVERWRITE.load(Ordering::Relaxed))? {
        None => Ok(()),
        Some(mut file) => {
            let change: OutputChange = Box::new(move |output| {
                file.set_max_size(output.file.as_ref().and_then(LogFile::max_size));
                output.file = Some(file);
            });
            sink.queue_change(change).map_err(|_| queue_full_error())
        }
    }
}

/// The log's file, opened again under its name. In the background a standard stream is another one now;
/// the copy is still the right one.
fn reopen_file(path: Option<&Path>, overwrite: bool) -> io::Result<Option<LogFile>> {
    let path = path.filter(|path| standard_stream(path).is_none());
    path.map(|path| LogFile::open(path, overwrite, None)).transpose()
}

fn open_file(config: &LogConfig, path: Option<&Path>) -> io::Result<Option<LogFile>> {
    path.map(|path| LogFile::open(path, config.overwrite.value, max_size(config))).transpose()
}

fn max_size(config: &LogConfig) -> Option<u64> {
    config.max_size.as_ref().map(|most| most.value)
}

impl LogOutputs {
    fn writes_to_stderr(&self) -> bool {
        match self.stderr {
            StderrUse::Always => true,
            StderrUse::WithoutFile => self.file.is_none(),
            StderrUse::Never => false,
        }
    }

    fn publish_journal_use(&self) {
        verbosity::set_journal(self.journal.is_some() && self.writes_to_stderr());
    }

    /// Writes lines in their order, and returns how many of them are missing somewhere.
    fn write(&mut self, lines: &[LogLine]) -> usize {
        let mut lost = 0;
        if let Some(file) = &mut self.file {
            let (written, trouble) =
                file.write_lines(lines.iter().map(|line| line.text.as_bytes()));
            lost = lines.len() - written;
            self.rotation_error = trouble.or(self.rotation_error.take());
        }
        if self.writes_to_stderr() {
            lost = lost.max(self.write_stderr(lines));
        }
        if let Some(syslog) = &mut self.syslog {
            for line in lines {
                // What syslog cannot take is lost quietly: there may be none on this machine.
                syslog.send(line.level, strip_time_and_level(&line.text, verbosity::format()));
            }
        }
        lost
    }

    /// How many lines could not be written.
    fn write_stderr(&mut self, lines: &[LogLine]) -> usize {
        let to_stderr = |lines: &[LogLine]| {
            let texts = lines.iter().map(|line| line.text.as_bytes());
            lines.len() - write_lines(&mut io::stderr(), texts)
        };
        let Some(journal) = &mut self.journal else { return to_stderr(lines) };
        let mut lost = 0;
        for line in lines {
            match journal.send(
                line.level,
                strip_time_and_level(&line.text, verbosity::format()),
                &line.fields,
            ) {
                Ok(()) => {}
                // It is behind, and standard error leads to the same reader.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => lost += 1,
                Err(_) => lost += to_stderr(std::slice::from_ref(line)),
            }
        }
        lost
    }
}

/// What is left of a line without its time and level, which syslog and journal keep by themselves.
pub(super) fn strip_time_and_level(line: &str, format: LogFormat) -> &str {
    let line = line.trim_end_matches('\n');
    let words = match format {
        LogFormat::Json => 0,
        LogFormat::Human | LogFormat::Stunnel => 2,
    };
    line.splitn(words + 1, ' ').nth(words).unwrap_or(line)
}

/// Whether a log of this name is one of the standard streams.
pub fn is_stream(path: &Path) -> bool {
    standard_stream(path).is_some()
}

/// Moves writing to a thread. Called once the process is the one that will run: a thread does not
/// survive a fork.
pub fn start() {
    let Some(sink) = SINK.get() else { return };
    let (sender, receiver) = sync_channel(QUEUE_CAPACITY);
    let spawned =
        std::thread::Builder::new().name("log".into()).spawn(move || run_writer(sink, &receiver));
    if spawned.is_ok() {
        let _ = sink.queue.set(sender);
    }
}

/// The number of lines that could not be written since the start.
pub fn lost_lines() -> u64 {
    SINK.get().map_or(0, |sink| sink.total_losses.load(Ordering::Relaxed))
}

/// Waits, but not for ever, until every line so far is written.
pub fn flush() {
    let Some(queue) = SINK.get().and_then(|sink| sink.queue.get()) else {
        return;
    };
    let (done, wait) = sync_channel(1);
    if queue.try_send(QueueMessage::Flush(done)).is_ok() {
        let _ = wait.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// The line that has come and those right behind it; and what came behind them and is no line.
fn take_lines(
    first: LogLine,
    queue: &Receiver<QueueMessage>,
) -> (Vec<LogLine>, Option<QueueMessage>) {
    let mut lines = vec![first];
    while lines.len() < MAX_LINES_PER_WRITE {
        match queue.try_recv() {
            Ok(QueueMessage::Line(line)) => lines.push(line),
            Ok(other) => return (lines, Some(other)),
            Err(_) => break,
        }
    }
    (lines, None)
}

fn run_writer(sink: &LogSink, queue: &Receiver<QueueMessage>) {
    let mut last: Option<Instant> = None;
    loop {
        let next = queue.try_recv().or_else(|_| {
            if last.is_some_and(|last| last.elapsed() < BUSY_INTERVAL) {
                std::thread::sleep(BATCH_DELAY);
            }
            queue.recv_timeout(Duration::from_secs(1))
        });
        let next = match next {
            Ok(QueueMessage::Line(line)) => {
                let (lines, behind) = take_lines(line, queue);
                sink.write(&lines);
                last = Some(Instant::now());
                behind
            }
            Ok(other) => Some(other),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let flushed = match next {
            Some(QueueMessage::Change(change)) => {
                change(&mut sink.output.lock().unwrap_or_else(PoisonError::into_inner));
                None
            }
            Some(QueueMessage::Flush(done)) => Some(done),
            Some(QueueMessage::Line(_)) | None => None,
        };
        if let Some(late) =
            sink.deferred_change.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            late(&mut sink.output.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let lost = sink.unreported_losses.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let message = format!("{lost} log lines were lost: the log was full");
            let record = LogRecord::new(Level::Warning, "lines-lost", message);
            if sink.try_write(&[record.to_line()]) > 0 {
                sink.unreported_losses.fetch_add(lost, Ordering::Relaxed);
            }
        }
        if let Some(done) = flushed {
            let _ = done.try_send(());
        }
    }
}

impl LogSink {
    fn write_or_queue(&self, line: LogLine) {
        match self.queue.get() {
            None => self.write(&[line]),
            Some(queue) => match queue.try_send(QueueMessage::Line(line)) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    self.count_lost(1);
                }
            },
        }
    }

    /// Behind the lines that wait already. A change for which the queue has no room comes back.
    fn queue_change(&self, change: OutputChange) -> Result<(), OutputChange> {
        let Some(queue) = self.queue.get() else {
            change(&mut self.output.lock().unwrap_or_else(PoisonError::into_inner));
            return Ok(());
        };
        queue.try_send(QueueMessage::Change(change)).map_err(|refused| {
            match refused {
                TrySendError::Full(QueueMessage::Change(change))
                | TrySendError::Disconnected(QueueMessage::Change(change)) => change,
                // What comes back is what was sent.
                _ => Box::new(|_: &mut LogOutputs| {}),
            }
        })
    }

    fn write(&self, lines: &[LogLine]) {
        let lost = self.try_write(lines);
        if lost > 0 {
            self.count_lost(lost as u64);
        }
    }

    fn count_lost(&self, lines: u64) {
        self.unreported_losses.fetch_add(lines, Ordering::Relaxed);
        self.total_losses.fetch_add(lines, Ordering::Relaxed);
    }

    /// How many lines could not be written.
    fn try_write(&self, lines: &[LogLine]) -> usize {
        let Ok(mut output) = self.output.lock() else { return lines.len() };
        let lost = output.write(lines);
        if let Some(message) = output.rotation_error.take() {
            output.write(&[LogRecord::new(Level::Warning, "log-not-rotated", message).to_line()]);
        }
        lost
    }
}

struct LogLayer;

impl<S: tracing::Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let Some(sink) = SINK.get() else { return };
        let with_fields = verbosity::format() == LogFormat::Json || verbosity::has_journal();
        if let Some(record) = LogRecord::read(event, with_fields) {
            sink.write_or_queue(record.to_line());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_that_wait_are_taken_together_and_nothing_overtakes_them() {
        let line = |n| LogRecord::new(Level::Notice, "test", format!("line {n}")).to_line();
        let (sender, queue) = sync_channel(2 * MAX_LINES_PER_WRITE);
        for n in 1..MAX_LINES_PER_WRITE + 10 {
            sender.send(QueueMessage::Line(line(n))).unwrap();
        }
        let (flushed, _wait) = sync_channel(1);
        sender.send(QueueMessage::Flush(flushed)).unwrap();
        sender.send(QueueMessage::Line(line(1000))).unwrap();
        let (lines, behind) = take_lines(line(0), &queue);
        assert_eq!((lines.len(), behind.is_none()), (MAX_LINES_PER_WRITE, true));
        let Ok(QueueMessage::Line(next)) = queue.try_recv() else { panic!("no line") };
        let (lines, behind) = take_lines(next, &queue);
        assert_eq!(lines.len(), 10);
        let text = |number: usize| format!("line {}\n", MAX_LINES_PER_WRITE + number);
        for (number, line) in lines.iter().enumerate() {
            assert!(line.text.ends_with(&text(number)), "{}", line.text);
        }
        assert!(matches!(behind, Some(QueueMessage::Flush(_))));
        assert!(matches!(queue.try_recv(), Ok(QueueMessage::Line(_))), "it comes behind the flush");
    }
}
