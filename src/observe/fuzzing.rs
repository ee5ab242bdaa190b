//! What must hold of every line that is logged.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::event::{CloseManner, Event, LogContext, TlsTerms};
use super::log::strip_time_and_level;
use super::record::LogRecord;
use super::{journal, syslog};
use crate::config::model::{Level, LogFormat, LogId, Mode};
use crate::fuzzing::{Parts, assert_plain};
use crate::secrets::escape;

const FORMATS: [LogFormat; 3] = [LogFormat::Human, LogFormat::Json, LogFormat::Stunnel];

struct Collect(Arc<Mutex<Vec<LogRecord>>>);

impl<S: tracing::Subscriber> Layer<S> for Collect {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let read = LogRecord::read(event, true);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(read);
    }
}

/// An event as each output gets it: one line, which steers nothing, and which says what it is about.
pub(crate) fn check(event: &Event<'_>, scope: LogContext<'_>) {
    for format in FORMATS {
        let records = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Collect(records.clone()));
        let mut count = 0;
        tracing::subscriber::with_default(subscriber, || {
            event.for_each_line(format, scope, &mut |level, text| {
                event.emit_to_tracing(level, scope, text);
                count += 1;
            });
        });
        let records = std::mem::take(&mut *records.lock().unwrap_or_else(PoisonError::into_inner));
        assert_eq!(records.len(), count, "a line did not arrive");
        for record in records {
            assert_eq!((record.event, record.session), (event.name(), scope.session));
            one(&record, format);
        }
    }
}

fn one(record: &LogRecord, format: LogFormat) {
    let line = record.render(format);
    let Some(body) = line.strip_suffix('\n') else { panic!("no end: {line:?}") };
    assert_plain(body);
    let Some(fields) = &record.fields else { panic!("no fields") };
    if format == LogFormat::Json {
        let read: Value = match serde_json::from_str(body) {
            Ok(read) => read,
            Err(error) => panic!("{error}: {body}"),
        };
        assert_eq!(read["message"], *record.message);
        assert_eq!(read["event"], *record.event);
        for (name, value) in fields {
            assert_eq!(&read[name], value, "{name}");
        }
        let names = ["time", "level", "event", "service", "session", "id", "message"];
        let own = fields.keys().filter(|name| !names.contains(name)).count();
        assert_eq!(own, fields.len(), "an event's value hides one of every line's: {body}");
    }
    let rest = strip_time_and_level(&line, format);
    assert!(body.ends_with(rest));

    let sent = syslog::format_entry(3, record.level, "gate", rest);
    let text = match std::str::from_utf8(&sent) {
        Ok(text) => text,
        Err(error) => panic!("{error}: {:?}", String::from_utf8_lossy(&sent)),
    };
    assert_plain(text);
    assert!(text.starts_with('<') && text.len() <= 2048, "{text}");

    let service = record.service.as_deref();
    let sent = journal::encode_fields(record.event, service, record.session, fields);
    let Ok(text) = String::from_utf8(sent) else { panic!("not UTF-8") };
    let mut count = 0;
    for line in text.split_terminator('\n') {
        assert_plain(line);
        let name = line.split_once('=').map(|(name, _)| name);
        let good = |c: char| c.is_ascii_uppercase() || c == '_';
        assert!(name.is_some_and(|name| name.starts_with("PSKGATE_") && name.chars().all(good)));
        count += 1;
    }
    let wanted = 1 + usize::from(service.is_some()) + usize::from(record.session.is_some());
    assert_eq!(count, wanted + fields.len(), "{text}");
}

/// Any event, with any bytes wherever a stranger, the system or the operator has a word in it.
pub fn log_lines(data: &[u8]) {
    let mut parts = Parts(data);
    let (kind, numbers) = (parts.byte(), parts.byte());
    let identity = parts.part().repeat(1 + usize::from(numbers / 64));
    let shown = escape(&identity);
    let (one, two, three) = (parts.text(), parts.text(), parts.text());
    let service = parts.text();
    let scope = LogContext {
        service: (!service.is_empty()).then_some(&service),
        session: (numbers & 1 == 1).then_some(u64::from(numbers)),
        level: None,
        id: [LogId::Sequential, LogId::Unique, LogId::Thread, LogId::Process]
            [usize::from(numbers >> 1 & 3)],
    };
    let (first, second, third): (&dyn fmt::Display, &dyn fmt::Display, &dyn fmt::Display) =
        (&one, &two, &three);
    let who: &dyn fmt::Display = &shown;
    // What is shown of an identity steers nothing even before a line is made of it.
    assert_plain(&format!("{who}{who:#}"));
    // Of a name that is short enough nothing is cut away. It may itself end as a cut one does.
    assert!(identity.len() > 64 || format!("{who}").ends_with('"'), "{who}");
    let error = io::Error::other(three.clone());
    let terms = TlsTerms { version: &one, suite: &two, group: Some(&three) };
    let age = Duration::from_millis(numbers.into());
    let mode = if numbers & 2 == 0 { Mode::Server } else { Mode::Client };
    let manner = [
        CloseManner::Closed,
        CloseManner::Reset,
        CloseManner::LocalReset,
        CloseManner::RemoteReset,
    ][usize::from(numbers % 4)];
    let (up, down) = (u64::from(numbers), u64::MAX);
    let event = match kind % 24 {
        0 => Event::Refused {
            peer: first,
            who: Some(who),
            cause: second,
            name: "unknown-identity",
            openssl: None,
        },
        1 => Event::HandshakeFailed {
            peer: first,
            who,
            target: second,
            cause: third,
            name: "refused",
            openssl: None,
        },
        2 => Event::Secured {
            mode,
            who,
            resumed: numbers & 4 == 0,
            version: &one,
            suite: &two,
            bits: -1,
            group: Some((&three, 7)),
        },
        3 => Event::Presenting { who, name: (numbers & 4 == 0).then_some(&one) },
        4 => Event::Opened { peer: first, who, terms, target: second },
        5 => Event::Closed {
            level: Level::Info,
            mode,
            peer: first,
            who,
            target: second,
            complete: numbers & 4 == 0,
            end: third,
            name: "complete",
            manner,
            up,
            down,
            age,
        },
        6 => Event::Listed { who, peer: first, terms, target: second, age, up, down },
        7 => Event::Full { peer: first, who, what: &two, most: numbers.into() },
        8 => Event::Unreachable { peer: first, error: second, rejected: None },
        9 => Event::Unresolved { target: first, error: second },
        10 => Event::ConnectFailed { address: first, error: &error },
        11 => Event::Begun { banner: &one },
        12 => Event::Ordered { what: first, who: second },
        13 => Event::Denied { what: first, who: second },
        14 => Event::Finding { level: Level::Warning, text: first, code: None },
        15 => Event::KeysChanged { changes: who },
        16 => Event::ReloadFailed { who: &one, error: second },
        17 => Event::Draining { signal: &one, limit: age },
        18 => Event::Listening { address: first, descriptor: -1, still: false },
        19 => Event::Connected { address: first, local: second },
        20 => Event::ChildEnded { pid: numbers.into(), end: first },
        21 => Event::Controlled { path: first },
        22 => Event::NotAllowed { peer: first },
        23 => Event::ReloadBegun { who: &one, file: second, changed: &two },
        _ => Event::Stopped { totals: first },
    };
    check(&event, scope);
}
