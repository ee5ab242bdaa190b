#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Mutex};

use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::*;
use crate::observe::event::{Event, LogContext};
use crate::observe::log::strip_time_and_level;
use crate::secrets::escape;

const FORMATS: [LogFormat; 3] = [LogFormat::Human, LogFormat::Json, LogFormat::Stunnel];

struct Collect(Arc<Mutex<Vec<LogRecord>>>);

impl<S: tracing::Subscriber> Layer<S> for Collect {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        self.0.lock().unwrap().extend(LogRecord::read(event, true));
    }
}

/// What this thread logs meanwhile.
pub(in crate::observe) fn records(log: impl FnOnce()) -> Vec<LogRecord> {
    let records = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::registry().with(Collect(records.clone()));
    tracing::subscriber::with_default(subscriber, log);
    std::mem::take(&mut records.lock().unwrap())
}

/// The names and messages of what this thread logs meanwhile.
pub(in crate::observe) fn logged(log: impl FnOnce()) -> Vec<(String, String)> {
    records(log).into_iter().map(|record| (record.event.to_owned(), record.message)).collect()
}

fn record(service: Option<&str>, session: Option<u64>, message: &str) -> LogRecord {
    let mut record = LogRecord::new(Level::Warning, "handshake-failed", message.into());
    record.service = service.map(str::to_owned);
    record.session = session;
    record
}

/// A text with every digit as 0.
fn shape(text: &str) -> String {
    let digit = |c: char| if c.is_ascii_digit() { '0' } else { c };
    text.chars().map(digit).collect()
}

#[test]
fn one_record_has_three_shapes() {
    let full = record(Some("plc"), Some(7), "all is \"well\"");
    let bare = record(None, None, "all is \"well\"");
    assert_eq!(
        shape(&full.render(LogFormat::Human)),
        "0000-00-00T00:00:00.000Z warning [plc] #0 all is \"well\"\n"
    );
    assert_eq!(
        shape(&bare.render(LogFormat::Human)),
        "0000-00-00T00:00:00.000Z warning all is \"well\"\n"
    );
    assert_eq!(
        shape(&full.render(LogFormat::Stunnel)),
        "0000.00.00 00:00:00 LOG0[0]: all is \"well\"\n"
    );
    assert_eq!(
        shape(&bare.render(LogFormat::Stunnel)),
        "0000.00.00 00:00:00 LOG0[ui]: all is \"well\"\n"
    );
    assert!(full.render(LogFormat::Stunnel).contains(" LOG4[7]: "));
    for (record, service, session) in
        [(full, "plc".into(), 7.into()), (bare, serde_json::Value::Null, serde_json::Value::Null)]
    {
        let mut read: serde_json::Value =
            serde_json::from_str(&record.render(LogFormat::Json)).unwrap();
        let time = read["time"].take();
        assert_eq!(shape(time.as_str().unwrap()), "0000-00-00T00:00:00.000Z");
        let wanted = serde_json::json!({
            "time": null, "level": "warning", "event": "handshake-failed",
            "service": service, "session": session, "message": "all is \"well\"",
        });
        assert_eq!(read, wanted);
    }
}

#[test]
fn nothing_that_is_logged_makes_a_second_line_or_steers_a_terminal() {
    let evil = "a\nb\r\nc\u{1b}[2Jd\u{7}\0\u{7f}\u{85}\u{9b}31m\u{2028}\u{2029}\te";
    for format in FORMATS {
        for record in [record(Some("plc"), Some(7), evil), record(Some(evil), None, "message")] {
            let line = record.render(format);
            let body = line.strip_suffix('\n').unwrap();
            assert!(!body.contains(char::is_control), "{body:?}");
            assert!(!body.contains(['\u{2028}', '\u{2029}']), "{body:?}");
            if format == LogFormat::Json {
                // Escaped, and still the same text to whoever reads it.
                let read: serde_json::Value = serde_json::from_str(body).unwrap();
                let name = if record.session.is_some() { "message" } else { "service" };
                assert_eq!(read[name], evil);
            } else if format == LogFormat::Human || record.session.is_some() {
                assert!(body.contains(r"a\nb\r\nc\u{1b}[2Jd\u{7}\0\u{7f}\u{85}"), "{body}");
            }
        }
    }
}

#[test]
fn text_of_any_language_is_left_as_it_is() {
    let text = "Zoë's SPS \\ 日本 \"quoted\"";
    for format in [LogFormat::Human, LogFormat::Stunnel] {
        assert!(record(None, None, text).render(format).ends_with(&format!("{text}\n")));
    }
}

#[test]
fn an_event_reaches_the_renderer_with_its_own_level_service_and_session() {
    let event = Event::Full { peer: &"192.0.2.1:5", who: &"a", what: "sessions", most: 3 };
    let records = records(|| {
        event.log(LogContext { service: Some("plc"), session: Some(9), ..LogContext::PROGRAM })
    });
    let [record] = &records[..] else {
        panic!("{}", records.len());
    };
    assert_eq!(record.level, Level::Notice as u8);
    assert_eq!(record.event, "service-full");
    assert_eq!((record.service.as_deref(), record.session), (Some("plc"), Some(9)));
    assert_eq!(record.message, "refused identity a from 192.0.2.1:5: sessions");
}

#[test]
fn syslog_gets_a_line_without_time_and_level() {
    let record = record(Some("plc"), Some(7), "the text");
    for (format, text) in
        [(LogFormat::Human, "[plc] #7 the text"), (LogFormat::Stunnel, "LOG4[7]: the text")]
    {
        assert_eq!(strip_time_and_level(&record.render(format), format), text);
    }
    let json = record.render(LogFormat::Json);
    assert_eq!(strip_time_and_level(&json, LogFormat::Json), json.trim_end());
}

#[test]
fn json_lines_carry_what_an_event_is_about_beside_the_words() {
    let mut full = record(Some("plc"), Some(7), "words");
    full.fields = Some(BTreeMap::from([
        ("peer", "192.0.2.1:5".into()),
        ("up", 3.into()),
        ("who", "a\nb".into()),
    ]));
    let line = full.render(LogFormat::Json);
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    let read: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&read["peer"], &read["up"]), (&"192.0.2.1:5".into(), &3.into()));
    assert_eq!((&read["who"], &read["message"]), (&"a\nb".into(), &"words".into()));
    assert_eq!(read.as_object().unwrap().len(), 9, "{read}");
}

#[test]
fn the_values_of_an_event_are_typed_and_identities_stand_without_quotes() {
    let who = escape(b"a\n\x1b\xff\"{");
    let refused = |who| Event::Refused {
        peer: &"192.0.2.1:5",
        who,
        cause: &"words",
        name: "wrong-key",
        openssl: None,
    };
    let [Some(some), Some(none)] = [Some(&who as &dyn fmt::Display), None].map(|who| {
        let mut records = records(|| refused(who).log(LogContext::PROGRAM));
        records.pop().and_then(|record| record.fields)
    }) else {
        panic!("no fields");
    };
    let wanted = Fields::from([
        ("peer", "192.0.2.1:5".into()),
        ("identity", r#"a\u{a}\u{1b}\xff"{"#.into()),
        ("cause", "wrong-key".into()),
    ]);
    assert_eq!(some, wanted);
    assert!(!none.contains_key("identity"), "{none:?}");

    let event = Event::AcceptRecovered { failures: 7 };
    let [record] = &records(|| event.log(LogContext::PROGRAM))[..] else { panic!("not one line") };
    assert_eq!(record.fields, Some(Fields::from([("failures", 7.into())])));
}

#[test]
fn nothing_is_rendered_that_nobody_reads_and_a_dependency_has_words_only() {
    struct Unread;
    impl fmt::Display for Unread {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("it was rendered");
        }
    }
    struct WordsOnly(Arc<Mutex<Vec<LogRecord>>>);
    impl<S: tracing::Subscriber> Layer<S> for WordsOnly {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().extend(LogRecord::read(event, false));
        }
    }
    let read = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::registry().with(WordsOnly(read.clone()));
    tracing::subscriber::with_default(subscriber, || {
        let refused = Event::Refused {
            peer: &"p",
            who: Some(&Unread),
            cause: &"c",
            name: "n",
            openssl: None,
        };
        refused.log(LogContext::PROGRAM);
    });
    assert!(read.lock().unwrap()[0].fields.is_none());

    let theirs = records(|| {
        tracing::warn!(level = 0_u64, service = "x", peer = 3, "words");
        tracing::info!("chatter");
    });
    let [record] = &theirs[..] else { panic!("{}", theirs.len()) };
    assert_eq!((record.level, record.event, &*record.message), (4, "", "words"));
    assert_eq!((record.service.as_deref(), record.fields.as_ref()), (None, Some(&Fields::new())));
}
