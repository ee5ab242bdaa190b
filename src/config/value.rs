//! How the text of each kind of option is read, in either dialect.

#[cfg(unix)]
use std::path::PathBuf;

use super::endpoint::AddressRole;
use super::key_shape::looks_like_key_line;
use super::model::Dialect;
use super::options::ValueKind;
use super::parsed_file::Value;
pub(super) use number::count;
pub(super) use socket::SOCKET_OPTIONS;
pub(super) use words::{word, words};
pub(super) use write::{native, probes, rekey_after, socket_option, stunnel, with_prefix};

mod address;
mod number;
mod openssl_switch;
mod socket;
mod text;
mod time;
mod words;
mod write;

/// Why a text is no value of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValueError {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: String,
}

impl ValueError {
    pub(super) fn new(
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { code, message: message.into(), help: help.into() }
    }
}

/// Reads what stands behind an option's name. Native files come here with their strings only; see
/// the reader of TOML for what other types mean.
pub(super) fn read(kind: ValueKind, dialect: Dialect, text: &str) -> Result<Value, ValueError> {
    let native = dialect == Dialect::Native;
    Ok(match kind {
        ValueKind::Duration { zero } if native => Value::Duration(time::duration(text, zero)?),
        ValueKind::Duration { zero } => Value::Duration(time::seconds(text, zero)?),
        ValueKind::Count { min, max } => Value::Count(count(text, min, max)?),
        ValueKind::Path => Value::Path(text::path(text, dialect)?),
        ValueKind::Secrets => Value::Path(text::key_path(text, dialect)?),
        ValueKind::Listen => Value::Endpoint(address::address(text, dialect, AddressRole::Listen)?),
        ValueKind::Connect => {
            Value::Endpoint(address::address(text, dialect, AddressRole::Connect)?)
        }
        ValueKind::Host => Value::Host(address::host(text)?),
        ValueKind::Range => Value::Range(address::range(text)?),
        ValueKind::Identity => Value::Bytes(text::identity(text.as_bytes(), dialect)?),
        ValueKind::Text { empty } => Value::Text(text::plain(text, empty)?),
        ValueKind::Arguments if native => Value::Arguments(vec![text::argument(text)?]),
        ValueKind::Arguments => {
            let words = text.split_ascii_whitespace();
            Value::Arguments(words.map(text::argument).collect::<Result<_, _>>()?)
        }
        ValueKind::Variable => Value::Variable(text::variable(text)?),
        ValueKind::Password => Value::Password(text::password(text)?),
        ValueKind::TicketKey => Value::TicketKey(text::ticket_key(text)?),
        ValueKind::Keepalive => Value::Keepalive(time::keepalive(text)?),
        ValueKind::Moment => Value::Moment(time::moment(text)?),
        ValueKind::OnRevocation => Value::OnRevocation(time::on_revocation(text)?),
        ValueKind::Retry if native => Value::Retry(time::pause(text)?),
        ValueKind::Retry => Value::Retry(time::stunnel_pause(text)?),
        ValueKind::FileMode => Value::Count(number::file_mode(text)?),
        ValueKind::Size => Value::Size(number::size(text)?),
        ValueKind::RekeyAfter => Value::RekeyAfter(number::rekey_after(text)?),
        ValueKind::Socket => {
            let (side, option) = socket::read(text, dialect)?;
            Value::Socket(side, option)
        }
        ValueKind::SslOption => Value::Text(openssl_switch::ssl_option(text)?),
        ValueKind::Level => words::level(text, dialect)?,
        ValueKind::Preface => words::preface(text, dialect)?,
        ValueKind::Version => words::version(text, dialect)?,
        ValueKind::Bool
        | ValueKind::Mode
        | ValueKind::Failover
        | ValueKind::Hash
        | ValueKind::LogFormat
        | ValueKind::LogMode
        | ValueKind::LogId
        | ValueKind::Facility
        | ValueKind::Foreground
        | ValueKind::OcspFlag
        | ValueKind::CipherOrder
        | ValueKind::WhenFull
        | ValueKind::Negotiation
        | ValueKind::Transparent => words::read(kind, dialect, text)?,
        ValueKind::Raw => Value::Text(text.into()),
    })
}

/// A value of stunnel's, whose bytes have no encoding.
pub(super) fn read_bytes(kind: ValueKind, bytes: &[u8]) -> Result<Value, ValueError> {
    match (kind, std::str::from_utf8(bytes)) {
        (ValueKind::Identity, _) => Ok(Value::Bytes(text::identity(bytes, Dialect::Stunnel)?)),
        (_, Ok(text)) => read(kind, Dialect::Stunnel, text),
        #[cfg(unix)]
        (ValueKind::Path | ValueKind::Secrets, Err(_)) => {
            use std::os::unix::ffi::OsStrExt as _;
            Ok(Value::Path(PathBuf::from(std::ffi::OsStr::from_bytes(bytes))))
        }
        (ValueKind::Raw, Err(_)) => Ok(Value::Text(String::from_utf8_lossy(bytes).into_owned())),
        (_, Err(_)) => Err(ValueError::new(
            "not-utf-8",
            "the value is not UTF-8",
            "save the file as UTF-8, or write this value in ASCII",
        )),
    }
}

/// The socket options that `socket` takes.
pub fn socket_options() -> &'static [&'static str] {
    SOCKET_OPTIONS
}

/// A text in quotes, or the word for none.
fn quoted(text: &str) -> String {
    if text.is_empty() { "an empty value".into() } else { format!("`{}`", shown(text)) }
}

/// As much of a text as helps to find it, and nothing of what might be a key.
fn shown(text: &str) -> String {
    if looks_like_key_line(text) {
        return "identity:...".into();
    }
    shortened(text, 60)
}

/// A line may have 16383 bytes, and a finding is read by a person.
fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests;
