//! Options whose value is one of a few words: one table for the reader, the writer, the schema and
//! `check --effective`.

use super::openssl_switch::{OCSP_FLAGS, SSL_OPTIONS};
use super::{ValueError, quoted, shown};
use crate::config::model::{
    CipherOrder, Dialect, Failover, Foreground, Level, LogFormat, LogId, Mode, NegotiationKind,
    ProxyHeader, PskHash, TlsVersion, Transparent, WhenFull,
};
use crate::config::options::{OptionRow, ValueKind, nearest};
use crate::config::parsed_file::Value;

const LEVELS: &[(&str, Level)] = &[
    ("emergency", Level::Emergency),
    ("alert", Level::Alert),
    ("critical", Level::Critical),
    ("error", Level::Error),
    ("warning", Level::Warning),
    ("notice", Level::Notice),
    ("info", Level::Info),
    ("debug", Level::Debug),
];

const STUNNEL_LEVELS: &[(&str, Level)] = &[
    ("emerg", Level::Emergency),
    ("alert", Level::Alert),
    ("crit", Level::Critical),
    ("err", Level::Error),
    ("warning", Level::Warning),
    ("notice", Level::Notice),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("0", Level::Emergency),
    ("1", Level::Alert),
    ("2", Level::Critical),
    ("3", Level::Error),
    ("4", Level::Warning),
    ("5", Level::Notice),
    ("6", Level::Info),
    ("7", Level::Debug),
];

/// syslog(3)'s facilities and their numbers (RFC 5424, 6.2.1, as syslog.h names them).
const FACILITIES: &[(&str, u32)] = &[
    ("auth", 4),
    ("authpriv", 10),
    ("cron", 9),
    ("daemon", 3),
    ("ftp", 11),
    ("kern", 0),
    ("lpr", 6),
    ("mail", 2),
    ("news", 7),
    ("syslog", 5),
    ("user", 1),
    ("uucp", 8),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// What else stunnel can speak before or around TLS.
const STUNNEL_PROTOCOLS: &[&str] =
    &["cifs", "capwin", "capwinctrl", "imap", "ldap", "nntp", "pgsql", "pop3", "smtp"];

/// The words of a kind, each with its value; empty where other text may be a value of it. Of several
/// words for one value, the first is the one that is written.
fn table(kind: ValueKind, dialect: Dialect) -> Vec<(&'static str, Value)> {
    use Dialect::{Native, Stunnel};
    match (kind, dialect) {
        (ValueKind::Bool, Native) => pairs(&[("true", true), ("false", false)], Value::Bool),
        (ValueKind::Bool, Stunnel) => pairs(&[("yes", true), ("no", false)], Value::Bool),
        (ValueKind::LogMode, _) => pairs(&[("append", false), ("overwrite", true)], Value::Bool),
        (ValueKind::Mode, Native) => {
            pairs(&[("client", Mode::Client), ("server", Mode::Server)], Value::Mode)
        }
        (ValueKind::Mode, Stunnel) => {
            pairs(&[("yes", Mode::Client), ("no", Mode::Server)], Value::Mode)
        }
        (ValueKind::Failover, Native) => pairs(
            &[("priority", Failover::Priority), ("round-robin", Failover::RoundRobin)],
            Value::Failover,
        ),
        (ValueKind::Failover, Stunnel) => {
            pairs(&[("prio", Failover::Priority), ("rr", Failover::RoundRobin)], Value::Failover)
        }
        (ValueKind::Hash, _) => {
            pairs(&[("sha256", PskHash::Sha256), ("sha384", PskHash::Sha384)], Value::Hash)
        }
        (ValueKind::Version, _) => version_words(dialect),
        (ValueKind::Level, Native) => pairs(LEVELS, Value::Level),
        (ValueKind::Level, Stunnel) => pairs(STUNNEL_LEVELS, Value::Level),
        (ValueKind::Facility, _) => pairs(FACILITIES, Value::Count),
        (ValueKind::LogFormat | ValueKind::LogId, _) => log_words(kind),
        (ValueKind::Foreground, _) => pairs(
            &[("yes", Foreground::Yes), ("quiet", Foreground::Quiet), ("no", Foreground::No)],
            Value::Foreground,
        ),
        (ValueKind::SslOption, _) => names(SSL_OPTIONS),
        (ValueKind::OcspFlag, _) => names(OCSP_FLAGS),
        (ValueKind::CipherOrder, _) => pairs(
            &[("server", CipherOrder::Server), ("client", CipherOrder::Client)],
            Value::CipherOrder,
        ),
        (ValueKind::WhenFull, _) => pairs(
            &[
                ("refuse", WhenFull::Refuse),
                ("take-over", WhenFull::TakeOver),
                ("take-over-own", WhenFull::TakeOverOwn),
                ("take-over-same-host", WhenFull::TakeOverSameHost),
            ],
            Value::WhenFull,
        ),
        (ValueKind::Negotiation, _) => pairs(
            &[("connect", NegotiationKind::Connect), ("socks", NegotiationKind::Socks)],
            Value::Negotiation,
        ),
        (ValueKind::Preface, Native) => {
            pairs(&[("v1", ProxyHeader::V1), ("v2", ProxyHeader::V2)], Value::Preface)
        }
        (ValueKind::Preface, Stunnel) => pairs(&[("proxy", ProxyHeader::V1)], Value::Preface),
        (ValueKind::Transparent, _) => transparency_words(dialect),
        _ => Vec::new(),
    }
}

fn pairs<T: Copy>(
    words: &[(&'static str, T)],
    value: fn(T) -> Value,
) -> Vec<(&'static str, Value)> {
    words.iter().map(|(word, what)| (*word, value(*what))).collect()
}

fn names(words: &[&'static str]) -> Vec<(&'static str, Value)> {
    words.iter().map(|word| (*word, Value::Text((*word).to_owned()))).collect()
}

fn log_words(kind: ValueKind) -> Vec<(&'static str, Value)> {
    if kind == ValueKind::LogFormat {
        let formats = [
            ("human", LogFormat::Human),
            ("json", LogFormat::Json),
            ("stunnel", LogFormat::Stunnel),
        ];
        return pairs(&formats, Value::LogFormat);
    }
    let ids = [
        ("sequential", LogId::Sequential),
        ("unique", LogId::Unique),
        ("thread", LogId::Thread),
        ("process", LogId::Process),
    ];
    pairs(&ids, Value::LogId)
}

fn version_words(dialect: Dialect) -> Vec<(&'static str, Value)> {
    use TlsVersion::{Tls10, Tls11, Tls12, Tls13};
    let words = match dialect {
        Dialect::Native => &[
            ("1.0", Some(Tls10)),
            ("1.1", Some(Tls11)),
            ("1.2", Some(Tls12)),
            ("1.3", Some(Tls13)),
        ][..],
        Dialect::Stunnel => &[
            ("all", None),
            ("TLSv1", Some(Tls10)),
            ("TLSv1.1", Some(Tls11)),
            ("TLSv1.2", Some(Tls12)),
            ("TLSv1.3", Some(Tls13)),
        ],
    };
    pairs(words, Value::Version)
}

fn transparency_words(dialect: Dialect) -> Vec<(&'static str, Value)> {
    let words = [
        ("none", Transparent::None),
        ("source", Transparent::ConnectionSource),
        ("destination", Transparent::Destination),
        ("both", Transparent::Both),
        // Of a time when there was the source alone.
        ("no", Transparent::None),
        ("yes", Transparent::ConnectionSource),
    ];
    let known = if dialect == Dialect::Native { &words[..4] } else { &words };
    pairs(known, Value::Transparent)
}

impl OptionRow {
    /// The words that are a value of it; empty where any text of its kind may be.
    pub fn words(&self, dialect: Dialect) -> Vec<&'static str> {
        words(self.kind, dialect)
    }
}

/// The words that are a value of this kind; empty where any text may be.
pub(in crate::config) fn words(kind: ValueKind, dialect: Dialect) -> Vec<&'static str> {
    // Of stunnel's words for it, the last two are obsolete.
    let dialect = if kind == ValueKind::Transparent { Dialect::Native } else { dialect };
    table(kind, dialect).into_iter().map(|(word, _)| word).collect()
}

/// The word for a value of this kind; none if it is no word.
pub(in crate::config) fn word(
    kind: ValueKind,
    dialect: Dialect,
    value: &Value,
) -> Option<&'static str> {
    table(kind, dialect).into_iter().find(|(_, known)| known == value).map(|(word, _)| word)
}

/// The value of a word.
pub(super) fn read(kind: ValueKind, dialect: Dialect, text: &str) -> Result<Value, ValueError> {
    choice(text, &table(kind, dialect), dialect)
}

/// stunnel's words ignore case, native ones do not.
pub(super) fn choice<T: Clone>(
    text: &str,
    words: &[(&'static str, T)],
    dialect: Dialect,
) -> Result<T, ValueError> {
    let is = |word: &str| match dialect {
        Dialect::Native => word == text,
        Dialect::Stunnel => word.eq_ignore_ascii_case(text),
    };
    let found = words.iter().find(|(word, _)| is(word));
    found.map(|(_, value)| value.clone()).ok_or_else(|| {
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        no_such_word(text, &names)
    })
}

pub(super) fn no_such_word(text: &str, names: &[&str]) -> ValueError {
    let help = match nearest(text, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`? It is one of: {}", names.join(", ")),
        None => format!("it is one of: {}", names.join(", ")),
    };
    ValueError::new("unknown-value", format!("{} is not known here", quoted(text)), help)
}

pub(super) fn version(text: &str, dialect: Dialect) -> Result<Value, ValueError> {
    if ["SSLv2", "SSLv3"].iter().any(|old| old.eq_ignore_ascii_case(text)) {
        return Err(ValueError::new(
            "obsolete-version",
            format!("{text} is broken and not supported (RFC 7568)"),
            "write TLSv1.2 or TLSv1.3",
        ));
    }
    read(ValueKind::Version, dialect, text).map_err(|mut wrong| {
        if dialect == Dialect::Stunnel {
            wrong.message = "Invalid protocol version".into();
        }
        wrong
    })
}

/// stunnel puts a facility of syslog's before the level.
pub(super) fn level(text: &str, dialect: Dialect) -> Result<Value, ValueError> {
    let level = match text.split_once('.') {
        Some((facility, level)) if dialect == Dialect::Stunnel => {
            read(ValueKind::Facility, dialect, facility)?;
            level
        }
        _ => text,
    };
    read(ValueKind::Level, dialect, level)
}

pub(super) fn preface(text: &str, dialect: Dialect) -> Result<Value, ValueError> {
    if dialect == Dialect::Native {
        return read(ValueKind::Preface, dialect, text);
    }
    read(ValueKind::Preface, dialect, text).map_err(|_| {
        if STUNNEL_PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(text)) {
            ValueError::new(
                "not-supported-yet",
                format!("protocol = {} is not supported yet", shown(text)),
                "remove it if you can do without it; of stunnel's protocols there are proxy, connect and socks",
            )
        } else {
            ValueError::new("unknown-value", "Protocol not supported", "it is one of: proxy, connect, socks")
        }
    })
}
