//! The log: from `tracing`, through a queue, to standard error or the journal, a file and syslog.
//!
//! `tracing` has five levels and syslog eight, so that an event carries its own. Writing never blocks a
//! session: lines go through a bounded queue to a thread of their own, and what does not fit is counted and
//! said later.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub use super::journal::Journal;
use super::log_file::{LogFile, stream};
pub use super::record::in_background;
use super::record::{Line, Record};
pub use super::syslog::Syslog;
pub use super::time_zone::zone;
use super::verbosity;
use crate::config::model::{Level, LogConfig, LogFormat};

/// Lines that may wait for a slow disk or terminal; at 200 bytes each, under 1 MB.
const QUEUE: usize = 4096;
/// How long the end of the program waits for the last lines.
const FLUSH: Duration = Duration::from_millis(500);

/// Lines that come in closer sequence than this are many,
const BUSY: Duration = Duration::from_millis(5);
/// and are let wait for each other: to wake a thread for each costs the session more than the line.
const PAUSE: Duration = Duration::from_millis(2);

static OVERWRITE: AtomicBool = AtomicBool::new(false);
static SINK: OnceLock<Sink> = OnceLock::new();

struct Sink {
    /// Held by the writing thread, for as long as a slow log takes.
    output: Mutex<Output>,
    /// What was asked for, to compare with what is asked for next.
    asked: Mutex<Asked>,
    queue: OnceLock<SyncSender<Message>>,
    /// Done by the writing thread as soon as it gets on: the queue was full.
    late: Mutex<Option<Change>>,
    /// Lines that could not be written and were not told of yet.
    lost: AtomicU64,
    lost_in_all: AtomicU64,
}

/// Whether lines go to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stderr {
    /// Also beside a file.
    Always,
    /// When there is no file.
    WithoutFile,
    /// The process is in the background, or was told to be quiet.
    Never,
}

/// Where lines go: any of a file, standard error and syslog.
struct Output {
    file: Option<LogFile>,
    /// What is wrong with it, to be said once.
    trouble: Option<String>,
    stderr: Stderr,
    /// In standard error's place, where that leads there.
    journal: Option<Journal>,
    syslog: Option<Syslog>,
}

/// What to write to from here on, made outside: only the writing thread waits for a slow log.
type Change = Box<dyn FnOnce(&mut Output) + Send>;

/// The part of a configuration that the writing thread follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Asked {
    path: Option<PathBuf>,
    max_size: Option<u64>,
    syslog: bool,
    facility: u32,
    ident: String,
}

impl Asked {
    fn of(config: &LogConfig) -> Self {
        Self {
            path: config.output.as_ref().map(|path| path.value.clone()),
            max_size: bound(config),
            syslog: config.syslog.value,
            facility: config.facility.value,
            ident: config.ident.value.clone(),
        }
    }
}

enum Message {
    Line(Line),
    Change(Change),
    Flush(SyncSender<()>),
}

/// Opens the log and makes it the program's. Lines are written directly until [`start`].
///
/// # Errors
/// The file cannot be opened.
pub fn init(
    config: &LogConfig,
    stderr: Stderr,
    syslog: Option<Syslog>,
    journal: Option<Journal>,
) -> io::Result<()> {
    let asked = Asked::of(config);
    let file = opened(config, asked.path.as_deref())?;
    verbosity::set(config);
    OVERWRITE.store(config.overwrite.value, Ordering::Relaxed);
    let output = Output { file, trouble: None, stderr, journal, syslog };
    output.note_journal();
    let output = Mutex::new(output);
    let (lost, lost_in_all) = (AtomicU64::new(0), AtomicU64::new(0));
    let (asked, queue, late) = (Mutex::new(asked), OnceLock::new(), Mutex::default());
    let sink = Sink { output, asked, queue, late, lost, lost_in_all };
    if SINK.set(sink).is_ok() {
        let subscriber = tracing_subscriber::registry().with(Render);
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
pub fn change(config: &LogConfig) -> io::Result<()> {
    let Some(sink) = SINK.get() else { return Ok(()) };
    verbosity::set(config);
    let asked = Asked::of(config);
    let overwrite = config.overwrite.value;
    let mut known = sink.asked.lock().unwrap_or_else(PoisonError::into_inner);
    let file = if known.path != asked.path {
        Some(opened(config, asked.path.as_deref())?)
    } else if overwrite {
        None
    } else {
        // What is open still works.
        anew(asked.path.as_deref(), false).ok().flatten().map(Some)
    };
    let config_now = config.clone();
    let change: Change = Box::new(move |output| {
        if let Some(file) = file {
            output.file = file;
        }
        if let Some(file) = &mut output.file {
            file.bound(bound(&config_now));
        }
        output.syslog = match output.syslog.take() {
            Some(open) if config_now.syslog.value => Some(open.renamed(&config_now)),
            _ => Syslog::open(&config_now),
        };
        if let Some(journal) = &mut output.journal {
            journal.rename(&config_now);
        }
        output.note_journal();
    });
    if let Err(change) = sink.change(change) {
        if *known != asked {
            return Err(stuck());
        }
        // Nothing else was asked for: the file is opened anew when the log gets on.
        *sink.late.lock().unwrap_or_else(PoisonError::into_inner) = Some(change);
    }
    *known = asked;
    OVERWRITE.store(overwrite, Ordering::Relaxed);
    Ok(())
}

fn stuck() -> io::Error {
    io::Error::other("the log takes nothing, and its queue is full")
}

/// Opens the log's file again under its name, after somebody has moved it away. Nothing changes on
/// failure.
///
/// # Errors
/// The file cannot be opened.
pub fn reopen() -> io::Result<()> {
    let Some(sink) = SINK.get() else { return Ok(()) };
    let known = sink.asked.lock().unwrap_or_else(PoisonError::into_inner);
    match anew(known.path.as_deref(), OVERWRITE.load(Ordering::Relaxed))? {
        None => Ok(()),
        Some(mut file) => {
            let change: Change = Box::new(move |output| {
                file.bound(output.file.as_ref().and_then(LogFile::most));
                output.file = Some(file);
            });
            sink.change(change).map_err(|_| stuck())
        }
    }
}

/// The log's file, opened again under its name. In the background a standard stream is another one now;
/// the copy is still the right one.
fn anew(path: Option<&Path>, overwrite: bool) -> io::Result<Option<LogFile>> {
    let path = path.filter(|path| stream(path).is_none());
    path.map(|path| LogFile::open(path, overwrite, None)).transpose()
}

fn opened(config: &LogConfig, path: Option<&Path>) -> io::Result<Option<LogFile>> {
    path.map(|path| LogFile::open(path, config.overwrite.value, bound(config))).transpose()
}

fn bound(config: &LogConfig) -> Option<u64> {
    config.max_size.as_ref().map(|most| most.value)
}

impl Output {
    fn to_stderr(&self) -> bool {
        match self.stderr {
            Stderr::Always => true,
            Stderr::WithoutFile => self.file.is_none(),
            Stderr::Never => false,
        }
    }

    fn note_journal(&self) {
        verbosity::set_journal(self.journal.is_some() && self.to_stderr());
    }

    fn put(&mut self, line: &Line) -> bool {
        let mut whole = true;
        if let Some(file) = &mut self.file {
            let (written, trouble) = file.put(line.text.as_bytes());
            whole &= written.is_ok();
            self.trouble = trouble.or(self.trouble.take());
        }
        if self.to_stderr() {
            whole &= self.put_stderr(line);
        }
        if let Some(syslog) = &mut self.syslog {
            // What syslog cannot take is lost quietly: there may be none on this machine.
            syslog.put(line.level, text_of(&line.text, verbosity::format()));
        }
        whole
    }

    fn put_stderr(&mut self, line: &Line) -> bool {
        if let Some(journal) = &mut self.journal {
            match journal.put(line.level, text_of(&line.text, verbosity::format()), &line.fields) {
                Ok(()) => return true,
                // It is behind, and standard error leads to the same reader.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {}
            }
        }
        io::stderr().write_all(line.text.as_bytes()).is_ok()
    }
}

/// What is left of a line without its time and level, which syslog and journal keep by themselves.
pub(super) fn text_of(line: &str, format: LogFormat) -> &str {
    let line = line.trim_end_matches('\n');
    let words = match format {
        LogFormat::Json => 0,
        LogFormat::Human | LogFormat::Stunnel => 2,
    };
    line.splitn(words + 1, ' ').nth(words).unwrap_or(line)
}

/// Whether a log of this name is one of the standard streams.
pub fn is_stream(path: &Path) -> bool {
    stream(path).is_some()
}

/// Moves writing to a thread. Called once the process is the one that will run: a thread does not
/// survive a fork.
pub fn start() {
    let Some(sink) = SINK.get() else { return };
    let (sender, receiver) = sync_channel(QUEUE);
    let spawned =
        std::thread::Builder::new().name("log".into()).spawn(move || drain(sink, &receiver));
    if spawned.is_ok() {
        let _ = sink.queue.set(sender);
    }
}

/// How many lines could not be written since the start.
pub fn lost() -> u64 {
    SINK.get().map_or(0, |sink| sink.lost_in_all.load(Ordering::Relaxed))
}

/// Waits, but not for ever, until every line so far is written.
pub fn flush() {
    let Some(queue) = SINK.get().and_then(|sink| sink.queue.get()) else {
        return;
    };
    let (done, wait) = sync_channel(1);
    if queue.try_send(Message::Flush(done)).is_ok() {
        let _ = wait.recv_timeout(FLUSH);
    }
}

fn drain(sink: &Sink, queue: &Receiver<Message>) {
    let mut last: Option<Instant> = None;
    loop {
        let next = queue.try_recv().or_else(|_| {
            if last.is_some_and(|last| last.elapsed() < BUSY) {
                std::thread::sleep(PAUSE);
            }
            queue.recv_timeout(Duration::from_secs(1))
        });
        let flushed = match next {
            Ok(Message::Line(line)) => {
                sink.put(&line);
                last = Some(Instant::now());
                None
            }
            Ok(Message::Change(change)) => {
                change(&mut sink.output.lock().unwrap_or_else(PoisonError::into_inner));
                None
            }
            Ok(Message::Flush(done)) => Some(done),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Some(late) = sink.late.lock().unwrap_or_else(PoisonError::into_inner).take() {
            late(&mut sink.output.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let lost = sink.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let message = format!("{lost} log lines were lost: the log was full");
            let record = Record::new(Level::Warning, "lines-lost", message);
            if !sink.try_put(&record.line()) {
                sink.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
        if let Some(done) = flushed {
            let _ = done.try_send(());
        }
    }
}

impl Sink {
    fn line(&self, line: Line) {
        match self.queue.get() {
            None => self.put(&line),
            Some(queue) => match queue.try_send(Message::Line(line)) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    self.lose();
                }
            },
        }
    }

    /// Behind the lines that wait already. A change for which the queue has no room comes back.
    fn change(&self, change: Change) -> Result<(), Change> {
        let Some(queue) = self.queue.get() else {
            change(&mut self.output.lock().unwrap_or_else(PoisonError::into_inner));
            return Ok(());
        };
        queue.try_send(Message::Change(change)).map_err(|refused| {
            match refused {
                TrySendError::Full(Message::Change(change))
                | TrySendError::Disconnected(Message::Change(change)) => change,
                // What comes back is what was sent.
                _ => Box::new(|_: &mut Output| {}),
            }
        })
    }

    fn put(&self, line: &Line) {
        if !self.try_put(line) {
            self.lose();
        }
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.lost_in_all.fetch_add(1, Ordering::Relaxed);
    }

    fn try_put(&self, line: &Line) -> bool {
        let Ok(mut output) = self.output.lock() else { return false };
        let whole = output.put(line);
        if let Some(message) = output.trouble.take() {
            output.put(&Record::new(Level::Warning, "log-not-rotated", message).line());
        }
        whole
    }
}

struct Render;

impl<S: tracing::Subscriber> Layer<S> for Render {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let Some(sink) = SINK.get() else { return };
        let with_fields = verbosity::format() == LogFormat::Json || verbosity::has_journal();
        if let Some(record) = Record::read(event, with_fields) {
            sink.line(record.line());
        }
    }
}
