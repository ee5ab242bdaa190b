//! One line on its way from `tracing` to the log: what it says, and its shape in each format.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tracing::field::{Field, Visit};

use super::event::TARGET;
use super::one_line::{json_to_one_line, to_one_line};
use super::time_zone::zone;
use super::{journal, verbosity};
use crate::config::model::{Level, LogFormat};

#[cfg(test)]
pub(super) mod tests;

static IS_BACKGROUND: AtomicBool = AtomicBool::new(false);

const LEVEL_NAMES: [&str; 8] =
    ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

/// Has stunnel's lines name the program's own thread as they do in the background.
pub fn set_background() {
    IS_BACKGROUND.store(true, Ordering::Relaxed);
}

/// An event's values by their names.
pub(super) type Fields = BTreeMap<&'static str, Value>;

/// What is written, ready for each output.
pub(super) struct LogLine {
    pub(super) level: u8,
    pub(super) text: String,
    /// Fields in the journal's form, where it is written to.
    pub(super) fields: Vec<u8>,
}

/// What one line says.
pub(super) struct LogRecord {
    pub(super) level: u8,
    pub(super) event: &'static str,
    pub(super) service: Option<String>,
    pub(super) session: Option<u64>,
    pub(super) id: Option<String>,
    /// What `pskgate explain` takes.
    pub(super) code: Option<String>,
    /// None where nobody reads more than the words.
    pub(super) fields: Option<Fields>,
    pub(super) message: String,
}

/// Reads a record out of one of `tracing`'s events.
struct FieldVisitor {
    record: LogRecord,
    /// What another library says has words, and nothing that is known here.
    is_own: bool,
}

impl LogRecord {
    /// A line of the log's own.
    pub(super) fn new(level: Level, event: &'static str, message: String) -> Self {
        let (service, session, id, code) = (None, None, None, None);
        let fields = Some(Fields::new());
        Self { level: level as u8, event, service, session, id, code, fields, message }
    }

    /// What an event says; its values only if somebody reads them. Nothing for a dependency's chatter: only
    /// its warnings are of use.
    pub(super) fn read(event: &tracing::Event<'_>, with_fields: bool) -> Option<Self> {
        let metadata = event.metadata();
        let is_own = metadata.target() == TARGET;
        if !is_own && *metadata.level() > tracing::Level::WARN {
            return None;
        }
        let name = if is_own { metadata.name() } else { "" };
        let mut record = Self::new(Level::Warning, name, String::new());
        record.fields = with_fields.then(Fields::new);
        let mut reader = FieldVisitor { record, is_own };
        event.record(&mut reader);
        Some(reader.record)
    }

    /// What tells the session from another.
    fn id(&self) -> Option<String> {
        self.id.clone().or_else(|| self.session.map(|number| number.to_string()))
    }

    /// The line in the format in force.
    pub(super) fn to_line(&self) -> LogLine {
        let fields = match &self.fields {
            Some(fields) if verbosity::has_journal() => {
                journal::encode_fields(self.event, self.service.as_deref(), self.session, fields)
            }
            _ => Vec::new(),
        };
        LogLine { level: self.level, text: self.render(verbosity::format()), fields }
    }

    pub(super) fn render(&self, format: LogFormat) -> String {
        let composed = self.format_line(format);
        let mut line = match format {
            LogFormat::Json => json_to_one_line(&composed).into_owned(),
            LogFormat::Human | LogFormat::Stunnel => to_one_line(&composed).into_owned(),
        };
        line.push('\n');
        line
    }

    fn format_line(&self, format: LogFormat) -> String {
        let level = self.level;
        let name = LEVEL_NAMES.get(usize::from(level)).unwrap_or(&"debug");
        let now = jiff::Timestamp::now();
        match format {
            LogFormat::Human => {
                let mut line = format!("{} {name} ", now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"));
                if let Some(service) = &self.service {
                    let _ = write!(line, "[{service}] ");
                }
                if let Some(session) = self.id() {
                    let _ = write!(line, "#{session} ");
                }
                line.push_str(&self.message);
                if let Some(code) = &self.code {
                    let _ = write!(line, " [{code}]");
                }
                line
            }
            LogFormat::Json => {
                let mut object = self.fields.clone().unwrap_or_default();
                let time = now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
                object.extend([
                    ("time", time.into()),
                    ("level", (*name).into()),
                    ("event", self.event.into()),
                    ("service", self.service.as_deref().into()),
                    ("session", self.session.into()),
                    ("message", self.message.as_str().into()),
                ]);
                object.extend(self.id.iter().map(|id| ("id", id.as_str().into())));
                // Names that are texts, and values that are JSON: it cannot fail.
                serde_json::to_string(&object).unwrap_or_default()
            }
            LogFormat::Stunnel => {
                let local = now.to_zoned(zone());
                let main = if IS_BACKGROUND.load(Ordering::Relaxed) { "main" } else { "ui" };
                let id = self.id().unwrap_or_else(|| main.to_owned());
                format!(
                    "{} LOG{level}[{id}]: {}",
                    local.strftime("%Y.%m.%d %H:%M:%S"),
                    self.message
                )
            }
        }
    }
}

impl FieldVisitor {
    fn field(&mut self, field: &Field, value: impl FnOnce() -> Value) {
        if let (true, Some(fields)) = (self.is_own, &mut self.record.fields) {
            fields.insert(field.name(), value());
        }
    }
}

impl Visit for FieldVisitor {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "level" if self.is_own => {
                self.record.level = u8::try_from(value).unwrap_or(Level::Debug as u8);
            }
            "session" if self.is_own => self.record.session = Some(value),
            _ => self.field(field, || value.into()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "service" if self.is_own => self.record.service = Some(value.to_owned()),
            "id" if self.is_own => self.record.id = Some(value.to_owned()),
            "code" if self.is_own => self.record.code = Some(value.to_owned()),
            _ => self.field(field, || value.into()),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => {
                // Writing to a String does not fail.
                let _ = write!(self.record.message, "{value:?}");
            }
            // `#` is how an identity is displayed without its quotes.
            _ => self.field(field, || format!("{value:#?}").into()),
        }
    }
}
