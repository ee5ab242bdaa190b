//! How the text of each kind of option is read, in either dialect.

use std::path::PathBuf;
use std::time::Duration;

use super::credential;
use super::draft::Value;
use super::endpoint::{AddressRole, Endpoint, Host, parse_host, parse_native, parse_stunnel};
use super::key_shape::{looks_like_key_instead_of_file, looks_like_key_line};
use super::model::{
    CipherOrder, Dialect, Failover, Foreground, IpRange, Keepalive, Level, LogFormat, LogId, Mode,
    NegotiationKind, OnRevocation, ProxyHeader, PskHash, RekeyAfter, TlsVersion, Transparent,
    Variable, WhenFull,
};
use super::options::{OptionRow, ValueKind, nearest};
use crate::secrets::{Password, TicketKey};
pub(super) use socket::SOCKET_OPTIONS;
pub(super) use write::{native, probes, rekey_after, socket_option, stunnel, with_prefix};

mod socket;
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

pub(super) const LEVELS: &[(&str, Level)] = &[
    ("emergency", Level::Emergency),
    ("alert", Level::Alert),
    ("critical", Level::Critical),
    ("error", Level::Error),
    ("warning", Level::Warning),
    ("notice", Level::Notice),
    ("info", Level::Info),
    ("debug", Level::Debug),
];

pub(super) const STUNNEL_LEVELS: &[(&str, Level)] = &[
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
pub(super) const FACILITIES: &[(&str, u32)] = &[
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

pub(super) const FORMATS: &[(&str, LogFormat)] =
    &[("human", LogFormat::Human), ("json", LogFormat::Json), ("stunnel", LogFormat::Stunnel)];
pub(super) const MODES: &[(&str, Mode)] = &[("client", Mode::Client), ("server", Mode::Server)];
pub(super) const STUNNEL_MODES: &[(&str, Mode)] = &[("yes", Mode::Client), ("no", Mode::Server)];
pub(super) const FAILOVERS: &[(&str, Failover)] =
    &[("priority", Failover::Priority), ("round-robin", Failover::RoundRobin)];
pub(super) const STUNNEL_FAILOVERS: &[(&str, Failover)] =
    &[("prio", Failover::Priority), ("rr", Failover::RoundRobin)];
pub(super) const HASHES: &[(&str, PskHash)] =
    &[("sha256", PskHash::Sha256), ("sha384", PskHash::Sha384)];
pub(super) const VERSIONS: &[(&str, Option<TlsVersion>)] = &[
    ("1.0", Some(TlsVersion::Tls10)),
    ("1.1", Some(TlsVersion::Tls11)),
    ("1.2", Some(TlsVersion::Tls12)),
    ("1.3", Some(TlsVersion::Tls13)),
];
pub(super) const STUNNEL_VERSIONS: &[(&str, Option<TlsVersion>)] = &[
    ("all", None),
    ("TLSv1", Some(TlsVersion::Tls10)),
    ("TLSv1.1", Some(TlsVersion::Tls11)),
    ("TLSv1.2", Some(TlsVersion::Tls12)),
    ("TLSv1.3", Some(TlsVersion::Tls13)),
];
pub(super) const FOREGROUNDS: &[(&str, Foreground)] =
    &[("yes", Foreground::Yes), ("quiet", Foreground::Quiet), ("no", Foreground::No)];
pub(super) const PREFACES: &[(&str, ProxyHeader)] =
    &[("v1", ProxyHeader::V1), ("v2", ProxyHeader::V2)];
pub(super) const STUNNEL_PREFACES: &[(&str, ProxyHeader)] = &[("proxy", ProxyHeader::V1)];
/// What else stunnel can speak before or around TLS.
const STUNNEL_PROTOCOLS: &[&str] =
    &["cifs", "capwin", "capwinctrl", "imap", "ldap", "nntp", "pgsql", "pop3", "smtp"];
pub(super) const NEGOTIATIONS: &[(&str, NegotiationKind)] =
    &[("connect", NegotiationKind::Connect), ("socks", NegotiationKind::Socks)];
pub(super) const TRANSPARENCIES: &[(&str, Transparent)] = &[
    ("none", Transparent::None),
    ("source", Transparent::ConnectionSource),
    ("destination", Transparent::Destination),
    ("both", Transparent::Both),
    // Of a time when there was the source alone.
    ("no", Transparent::None),
    ("yes", Transparent::ConnectionSource),
];
pub(super) const CIPHER_ORDERS: &[(&str, CipherOrder)] =
    &[("server", CipherOrder::Server), ("client", CipherOrder::Client)];
pub(super) const WHEN_FULL: &[(&str, WhenFull)] = &[
    ("refuse", WhenFull::Refuse),
    ("take-over", WhenFull::TakeOver),
    ("take-over-own", WhenFull::TakeOverOwn),
    ("take-over-same-host", WhenFull::TakeOverSameHost),
];
pub(super) const LOG_IDS: &[(&str, LogId)] = &[
    ("sequential", LogId::Sequential),
    ("unique", LogId::Unique),
    ("thread", LogId::Thread),
    ("process", LogId::Process),
];
pub(super) const TRUE_FALSE: &[(&str, bool)] = &[("true", true), ("false", false)];
const LOG_MODES: &[(&str, bool)] = &[("append", false), ("overwrite", true)];
pub(super) const YES_NO: &[(&str, bool)] = &[("yes", true), ("no", false)];

/// OpenSSL's switches, SSL_CTX_set_options(3), without `SSL_OP_`.
pub(super) const SSL_OPTIONS: &[&str] = &[
    "ECH_GREASE",
    "ECH_GREASE_RETRY_CONFIG",
    "ECH_IGNORE_CID",
    "ECH_TRIALDECRYPT",
    "ENABLE_KTLS_TX_ZEROCOPY_SENDFILE",
    "LEGACY_EC_POINT_FORMATS",
    "NO_RX_CERTIFICATE_COMPRESSION",
    "NO_TX_CERTIFICATE_COMPRESSION",
    "SERVER_PREFERENCE",
    "ALL",
    "ALLOW_CLIENT_RENEGOTIATION",
    "ALLOW_NO_DHE_KEX",
    "ALLOW_UNSAFE_LEGACY_RENEGOTIATION",
    "CIPHER_SERVER_PREFERENCE",
    "CISCO_ANYCONNECT",
    "CLEANSE_PLAINTEXT",
    "COOKIE_EXCHANGE",
    "CRYPTOPRO_TLSEXT_BUG",
    "DISABLE_TLSEXT_CA_NAMES",
    "DONT_INSERT_EMPTY_FRAGMENTS",
    "ENABLE_KTLS",
    "ENABLE_MIDDLEBOX_COMPAT",
    "EPHEMERAL_RSA",
    "IGNORE_UNEXPECTED_EOF",
    "LEGACY_SERVER_CONNECT",
    "MICROSOFT_BIG_SSLV3_BUFFER",
    "MICROSOFT_SESS_ID_BUG",
    "MSIE_SSLV2_RSA_PADDING",
    "NETSCAPE_CA_DN_BUG",
    "NETSCAPE_CHALLENGE_BUG",
    "NETSCAPE_DEMO_CIPHER_CHANGE_BUG",
    "NETSCAPE_REUSE_CIPHER_CHANGE_BUG",
    "NO_ANTI_REPLAY",
    "NO_COMPRESSION",
    "NO_DTLS_MASK",
    "NO_DTLSv1",
    "NO_DTLSv1_2",
    "NO_ENCRYPT_THEN_MAC",
    "NO_EXTENDED_MASTER_SECRET",
    "NO_QUERY_MTU",
    "NO_RENEGOTIATION",
    "NO_SESSION_RESUMPTION_ON_RENEGOTIATION",
    "NO_SSL_MASK",
    "NO_SSLv2",
    "NO_SSLv3",
    "NO_TICKET",
    "NO_TLSv1",
    "NO_TLSv1_1",
    "NO_TLSv1_2",
    "NO_TLSv1_3",
    "PKCS1_CHECK_1",
    "PKCS1_CHECK_2",
    "PREFER_NO_DHE_KEX",
    "PRIORITIZE_CHACHA",
    "SAFARI_ECDHE_ECDSA_BUG",
    "SINGLE_DH_USE",
    "SINGLE_ECDH_USE",
    "SSLEAY_080_CLIENT_DH_BUG",
    "SSLREF2_REUSE_CERT_TYPE_BUG",
    "TLSEXT_PADDING",
    "TLS_BLOCK_PADDING_BUG",
    "TLS_D5_BUG",
    "TLS_ROLLBACK_BUG",
];

/// The switches of OCSP that stunnel knows.
const OCSP_FLAGS: &[(&str, ())] = &[
    ("NOCERTS", ()),
    ("NOINTERN", ()),
    ("NOSIGS", ()),
    ("NOCHAIN", ()),
    ("NOVERIFY", ()),
    ("NOEXPLICIT", ()),
    ("NOCASIGN", ()),
    ("NODELEGATED", ()),
    ("NOCHECKS", ()),
    ("TRUSTOTHER", ()),
    ("RESPID_KEY", ()),
    ("NOTIME", ()),
];

/// Reads what stands behind an option's name. Native files come here with their strings only; see
/// the reader of TOML for what other types mean.
pub(super) fn read(kind: ValueKind, dialect: Dialect, text: &str) -> Result<Value, ValueError> {
    let native = dialect == Dialect::Native;
    Ok(match kind {
        ValueKind::Duration { zero } => {
            Value::Duration(if native { duration(text, zero)? } else { seconds(text, zero)? })
        }
        ValueKind::Count { min, max } => Value::Count(count(text, min, max)?),
        ValueKind::Bool => {
            Value::Bool(choice(text, if native { TRUE_FALSE } else { YES_NO }, dialect)?)
        }
        ValueKind::Path | ValueKind::Secrets if native && text.contains(ESCAPED) => {
            return Err(ValueError::new(
                "control-character",
                "the name of a file has a tab or a line's end in it",
                "in double quotes \\t is a tab and \\n a line's end: write a path of Windows as 'C:\\temp\\new.txt' \
                 or \"C:/temp/new.txt\"",
            ));
        }
        ValueKind::Path => Value::Path(path(text)?),
        ValueKind::Secrets if native && text.starts_with(credential::PREFIX) => {
            let name = text.strip_prefix(credential::PREFIX).unwrap_or_default();
            if !credential::is_name(name) {
                return Err(ValueError::new(
                    "bad-credential",
                    format!("{} names no credential", quoted(text)),
                    "write credential:NAME, the name that LoadCredential= gives it",
                ));
            }
            Value::Path(path(text)?)
        }
        ValueKind::Secrets if looks_like_key_instead_of_file(text) => {
            return Err(ValueError::new(
                "key-in-configuration",
                "this looks like an identity and its key, not like the name of a file",
                "put the identity:key line into a file of its own and name that file here; \
                 replace the key if others could read this file; if it is a file name, write ./ before it",
            ));
        }
        ValueKind::Secrets => Value::Path(path(text)?),
        ValueKind::Listen => Value::Endpoint(address(text, dialect, AddressRole::Listen)?),
        ValueKind::Connect => Value::Endpoint(address(text, dialect, AddressRole::Connect)?),
        ValueKind::Mode => {
            Value::Mode(choice(text, if native { MODES } else { STUNNEL_MODES }, dialect)?)
        }
        ValueKind::Failover => {
            let words = if native { FAILOVERS } else { STUNNEL_FAILOVERS };
            Value::Failover(choice(text, words, dialect)?)
        }
        ValueKind::Identity => Value::Bytes(identity(text.as_bytes(), dialect)?),
        ValueKind::Hash => Value::Hash(choice(text, HASHES, dialect)?),
        ValueKind::Version => Value::Version(version(text, dialect)?),
        ValueKind::Level => Value::Level(level(text, dialect)?),
        ValueKind::LogFormat => Value::LogFormat(choice(text, FORMATS, dialect)?),
        ValueKind::LogMode => Value::Bool(choice(text, LOG_MODES, dialect)?),
        ValueKind::Facility => Value::Count(choice(text, FACILITIES, dialect)?),
        ValueKind::Text { empty } => Value::Text(plain(text, empty)?),
        ValueKind::Keepalive => Value::Keepalive(keepalive(text)?),
        ValueKind::Socket => {
            let (side, option) = socket::read(text, dialect)?;
            Value::Socket(side, option)
        }
        ValueKind::Foreground => Value::Foreground(choice(text, FOREGROUNDS, dialect)?),
        ValueKind::SslOption => Value::Text(ssl_option(text)?),
        ValueKind::OcspFlag => {
            choice(text, OCSP_FLAGS, dialect)?;
            Value::Text(text.to_ascii_uppercase())
        }
        ValueKind::Host => Value::Host(host(text)?),
        ValueKind::Arguments if native => Value::Arguments(vec![argument(text)?]),
        ValueKind::Arguments => {
            let words = text.split_ascii_whitespace();
            Value::Arguments(words.map(argument).collect::<Result<_, _>>()?)
        }
        ValueKind::Preface => Value::Preface(preface(text, dialect)?),
        ValueKind::CipherOrder => Value::CipherOrder(choice(text, CIPHER_ORDERS, dialect)?),
        ValueKind::WhenFull => Value::WhenFull(choice(text, WHEN_FULL, dialect)?),
        ValueKind::OnRevocation => Value::OnRevocation(on_revocation(text)?),
        ValueKind::Range => Value::Range(range(text)?),
        ValueKind::Moment => Value::Moment(moment(text)?),
        ValueKind::FileMode => Value::Count(file_mode(text)?),
        ValueKind::Size => Value::Size(size(text)?),
        ValueKind::RekeyAfter => Value::RekeyAfter(read_rekey_after(text)?),
        ValueKind::TicketKey => Value::TicketKey(ticket_key(text)?),
        ValueKind::Variable => Value::Variable(variable(text)?),
        ValueKind::Retry => Value::Retry(if native { pause(text)? } else { stunnel_pause(text)? }),
        ValueKind::Negotiation => Value::Negotiation(choice(text, NEGOTIATIONS, dialect)?),
        ValueKind::Password => Value::Password(password(text)?),
        ValueKind::Transparent if native => {
            // Of the words, the last two are stunnel's alone.
            let words = TRANSPARENCIES.get(..4).unwrap_or_default();
            Value::Transparent(choice(text, words, dialect)?)
        }
        ValueKind::Transparent => Value::Transparent(choice(text, TRANSPARENCIES, dialect)?),
        ValueKind::LogId => Value::LogId(choice(text, LOG_IDS, dialect)?),
        ValueKind::Raw => Value::Text(text.into()),
    })
}

/// A value of stunnel's, whose bytes have no encoding.
pub(super) fn read_bytes(kind: ValueKind, bytes: &[u8]) -> Result<Value, ValueError> {
    match (kind, std::str::from_utf8(bytes)) {
        (ValueKind::Identity, _) => Ok(Value::Bytes(identity(bytes, Dialect::Stunnel)?)),
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

impl OptionRow {
    /// The words that are a value of it; empty where any text of its kind may be.
    pub fn words(&self, dialect: Dialect) -> Vec<&'static str> {
        words(self.kind, dialect)
    }
}

/// The socket options that `socket` takes.
pub fn socket_options() -> &'static [&'static str] {
    SOCKET_OPTIONS
}

/// The words that are a value of this kind; empty where any text may be.
pub(super) fn words(kind: ValueKind, dialect: Dialect) -> Vec<&'static str> {
    fn names<T>(table: &'static [(&'static str, T)]) -> Vec<&'static str> {
        table.iter().map(|(name, _)| *name).collect()
    }
    match (kind, dialect) {
        (ValueKind::Bool, Dialect::Native) => names(TRUE_FALSE),
        (ValueKind::Bool, Dialect::Stunnel) => names(YES_NO),
        (ValueKind::Mode, Dialect::Native) => names(MODES),
        (ValueKind::Mode, Dialect::Stunnel) => names(STUNNEL_MODES),
        (ValueKind::Failover, Dialect::Native) => names(FAILOVERS),
        (ValueKind::Failover, Dialect::Stunnel) => names(STUNNEL_FAILOVERS),
        (ValueKind::Hash, _) => names(HASHES),
        (ValueKind::Version, Dialect::Native) => names(VERSIONS),
        (ValueKind::Version, Dialect::Stunnel) => names(STUNNEL_VERSIONS),
        (ValueKind::Level, Dialect::Native) => names(LEVELS),
        (ValueKind::Level, Dialect::Stunnel) => names(STUNNEL_LEVELS),
        (ValueKind::LogFormat, _) => names(FORMATS),
        (ValueKind::LogMode, _) => names(LOG_MODES),
        (ValueKind::Facility, _) => names(FACILITIES),
        (ValueKind::Foreground, _) => names(FOREGROUNDS),
        (ValueKind::SslOption, _) => SSL_OPTIONS.to_vec(),
        (ValueKind::OcspFlag, _) => names(OCSP_FLAGS),
        (ValueKind::CipherOrder, _) => names(CIPHER_ORDERS),
        (ValueKind::WhenFull, _) => names(WHEN_FULL),
        (ValueKind::LogId, _) => names(LOG_IDS),
        (ValueKind::Negotiation, _) => names(NEGOTIATIONS),
        (ValueKind::Transparent, _) => names(TRANSPARENCIES.get(..4).unwrap_or_default()),
        (ValueKind::Preface, Dialect::Native) => names(PREFACES),
        (ValueKind::Preface, Dialect::Stunnel) => names(STUNNEL_PREFACES),
        _ => Vec::new(),
    }
}

/// stunnel's words know no case, native ones do.
fn choice<T: Copy>(
    text: &str,
    words: &'static [(&'static str, T)],
    dialect: Dialect,
) -> Result<T, ValueError> {
    let is = |word: &str| match dialect {
        Dialect::Native => word == text,
        Dialect::Stunnel => word.eq_ignore_ascii_case(text),
    };
    let found = words.iter().find(|(word, _)| is(word));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        no_such_word(text, &names)
    })
}

fn no_such_word(text: &str, names: &[&str]) -> ValueError {
    let help = match nearest(text, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`? It is one of: {}", names.join(", ")),
        None => format!("it is one of: {}", names.join(", ")),
    };
    ValueError::new("unknown-value", format!("{} is not known here", quoted(text)), help)
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

/// The text is nobody's business, good or bad.
fn ticket_key(text: &str) -> Result<TicketKey, ValueError> {
    TicketKey::from_hex(text).ok_or_else(|| {
        ValueError::new(
            "bad-ticket-key",
            "this is not a key of 16 or 32 bytes in hexadecimal digits",
            "write 32 or 64 hexadecimal digits, such as `openssl rand -hex 32` makes; or leave it out \
             for a random key",
        )
    })
}

fn bad_duration(text: &str) -> ValueError {
    ValueError::new(
        "bad-duration",
        format!("{} is not a length of time", quoted(text)),
        "write a number and a unit, such as \"250ms\", \"10s\", \"5m\", \"12h\" or \"1h30m\"",
    )
}

/// `1h30m`: whole numbers, each with its unit, of which none comes twice.
fn duration(text: &str, zero: bool) -> Result<Duration, ValueError> {
    let bad = || bad_duration(text);
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    if rest.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ValueError::new(
            "unit-missing",
            format!("`{}` has no unit", shown(text)),
            format!("write \"{}s\" for seconds; the units are ms, s, m, h and d", shown(rest)),
        ));
    }
    let mut total: u64 = 0;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(|b| !b.is_ascii_digit()).count();
        if !tail.is_char_boundary(letters) {
            return Err(bad());
        }
        let (unit, tail) = tail.split_at(letters);
        let millis = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        // Falling units only: 5s5s and 1s1h are slips of the hand.
        if millis >= last {
            return Err(bad());
        }
        last = millis;
        let number: u64 = number.parse().map_err(|_| bad())?;
        let part = number.checked_mul(millis).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = tail.trim_start();
    }
    at_least(Duration::from_millis(total), zero, text)
}

/// A clock that has rung before it started refuses every connection, so zero has to make sense; and
/// beyond 100 years it cannot be told from no clock, but can overflow one.
fn at_least(length: Duration, zero: bool, text: &str) -> Result<Duration, ValueError> {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
    if length.is_zero() && !zero {
        return Err(ValueError::new(
            "zero-duration",
            "the time is zero",
            "write a length of time greater than zero",
        ));
    }
    if length > LONGEST {
        return Err(ValueError::new(
            "bad-duration",
            format!("`{}` is longer than a hundred years", shown(text)),
            "write a shorter time",
        ));
    }
    Ok(length)
}

/// strtol's number: white space, a sign, digits, and then the end.
fn strtol(text: &str) -> Option<i64> {
    let text = text.trim_start_matches([' ', '\t', '\u{b}', '\u{c}', '\r', '\n']);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // strtol stops at the ends of its range instead of failing.
    let limit = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    Some(text.parse().unwrap_or(limit))
}

/// stunnel's seconds. It hands a negative number to poll(2), where it means for ever.
fn seconds(text: &str, zero: bool) -> Result<Duration, ValueError> {
    const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);
    let number = strtol(text).ok_or_else(|| {
        let native = duration(text, true).map(|d| d.as_secs().max(1));
        let help = match native {
            Ok(n) if !text.is_empty() => format!("write whole seconds without a unit: {n}"),
            _ => "write whole seconds without a unit, such as 10".into(),
        };
        ValueError::new("bad-number", format!("{} is not a number", quoted(text)), help)
    })?;
    match u64::try_from(number) {
        Ok(n) => at_least(Duration::from_secs(n).min(FOR_EVER), zero, text),
        Err(_) => Ok(FOR_EVER),
    }
}

pub(super) fn count(text: &str, min: u32, max: u32) -> Result<u32, ValueError> {
    let number = strtol(text).ok_or_else(|| {
        ValueError::new(
            "bad-number",
            format!("{} is not a number", quoted(text)),
            format!("write a number from {min} to {max}"),
        )
    })?;
    u32::try_from(number).ok().filter(|n| (min..=max).contains(n)).ok_or_else(|| {
        ValueError::new(
            "out-of-range",
            format!("{number} is out of range"),
            format!("write a number from {min} to {max}"),
        )
    })
}

/// What `\b`, `\t`, `\n`, `\f` and `\r` of a TOML text become, and no file's name has.
const ESCAPED: [char; 5] = ['\u{8}', '\t', '\n', '\u{c}', '\r'];

fn path(text: &str) -> Result<PathBuf, ValueError> {
    if text.is_empty() || text.contains('\0') {
        return Err(ValueError::new(
            "bad-path",
            "this is not the name of a file",
            "write the name of a file",
        ));
    }
    Ok(PathBuf::from(text))
}

fn address(text: &str, dialect: Dialect, role: AddressRole) -> Result<Endpoint, ValueError> {
    let read = match dialect {
        Dialect::Native => parse_native(text, role),
        Dialect::Stunnel => parse_stunnel(text, role),
    };
    read.map_err(|e| {
        let message =
            if looks_like_key_line(text) { "this is not an address".into() } else { e.to_string() };
        ValueError::new("bad-address", message, e.help())
    })
}

/// Its length is OpenSSL's limit of 256 bytes with the NUL. A native identity can be typed and
/// logged; stunnel's is any bytes.
fn identity(bytes: &[u8], dialect: Dialect) -> Result<Vec<u8>, ValueError> {
    let bad = |message: String| {
        ValueError::new(
            "bad-identity",
            message,
            "write an identity of 1 to 255 bytes, without control characters or a colon",
        )
    };
    if bytes.len() > 255 {
        return Err(bad(format!("the identity has {} bytes", bytes.len())));
    }
    if std::str::from_utf8(bytes).is_ok_and(looks_like_key_line) {
        return Err(ValueError::new(
            "key-in-configuration",
            "this looks like an identity and its key",
            "write the identity alone, and put the identity:key line into a file of its own",
        ));
    }
    if bytes.contains(&b':') {
        // The key file could never hold it: there, the first colon ends the identity.
        return Err(bad("an identity holds no colon".into()));
    }
    if dialect == Dialect::Native {
        if bytes.is_empty() {
            return Err(bad("the identity is empty".into()));
        }
        if std::str::from_utf8(bytes).is_ok_and(|t| t.chars().any(char::is_control)) {
            return Err(bad("the identity has a control character".into()));
        }
    }
    Ok(bytes.to_vec())
}

fn version(text: &str, dialect: Dialect) -> Result<Option<TlsVersion>, ValueError> {
    let words = match dialect {
        Dialect::Native => VERSIONS,
        Dialect::Stunnel => STUNNEL_VERSIONS,
    };
    if ["SSLv2", "SSLv3"].iter().any(|old| old.eq_ignore_ascii_case(text)) {
        return Err(ValueError::new(
            "obsolete-version",
            format!("{text} is broken and not supported (RFC 7568)"),
            "write TLSv1.2 or TLSv1.3",
        ));
    }
    choice(text, words, dialect).map_err(|mut wrong| {
        if dialect == Dialect::Stunnel {
            wrong.message = "Invalid protocol version".into();
        }
        wrong
    })
}

fn level(text: &str, dialect: Dialect) -> Result<Level, ValueError> {
    if dialect == Dialect::Native {
        return choice(text, LEVELS, dialect);
    }
    let level = match text.split_once('.') {
        Some((facility, level)) => {
            choice(facility, FACILITIES, dialect)?;
            level
        }
        None => text,
    };
    choice(level, STUNNEL_LEVELS, dialect)
}

fn plain(text: &str, empty: bool) -> Result<String, ValueError> {
    if text.is_empty() && !empty {
        return Err(ValueError::new(
            "empty-value",
            "the value is empty",
            "write a value, or remove the option",
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(ValueError::new(
            "control-character",
            "the value has a control character",
            "remove it",
        ));
    }
    Ok(text.into())
}

fn host(text: &str) -> Result<Host, ValueError> {
    parse_host(text).map_err(|e| {
        let message =
            if looks_like_key_line(text) { "this is no address".into() } else { e.to_string() };
        ValueError::new("bad-address", message, "write an address of this machine, or its name")
    })
}

/// argv ends at a NUL, and nothing else is forbidden.
fn argument(text: &str) -> Result<String, ValueError> {
    if text.contains('\0') {
        let help = "remove it: it would cut the argument short";
        return Err(ValueError::new("control-character", "the value has a NUL", help));
    }
    Ok(text.into())
}

fn preface(text: &str, dialect: Dialect) -> Result<ProxyHeader, ValueError> {
    if dialect == Dialect::Native {
        return choice(text, PREFACES, dialect);
    }
    choice(text, STUNNEL_PREFACES, dialect).map_err(|_| {
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

/// The message repeats nothing of it.
fn password(text: &str) -> Result<Password, ValueError> {
    if text.chars().any(char::is_control) {
        let message = "the password has a control character";
        return Err(ValueError::new("control-character", message, "remove it"));
    }
    Ok(Password::new(text.to_owned()))
}

/// The message repeats nothing: a variable may well hold a password.
fn variable(text: &str) -> Result<Variable, ValueError> {
    let wrong = |message: &str, help: &str| ValueError::new("bad-variable", message, help);
    let help = "write NAME=VALUE, or NAME= to remove a variable";
    let Some((name, value)) = text.split_once('=') else {
        return Err(wrong("this is not a variable: it has no `=`", help));
    };
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(wrong("a variable's name has no blanks, and at least one letter", help));
    }
    if value.contains('\0') {
        return Err(wrong("the value has a NUL", "remove it: it would cut the value short"));
    }
    let value = (!value.is_empty()).then(|| value.to_owned());
    Ok(Variable { name: name.to_owned(), value })
}

/// Below this a program that ends at once would do nothing but be started.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// What stunnel's `yes` means.
const USUAL_PAUSE: Duration = Duration::from_secs(1);

fn no_pause(length: Duration) -> Result<Option<Duration>, ValueError> {
    if length < SHORTEST_PAUSE {
        return Err(ValueError::new(
            "out-of-range",
            "a pause this short would start a failing program without end",
            "write at least 10 ms",
        ));
    }
    Ok(Some(length))
}

/// `1s`, or `off`.
fn pause(text: &str) -> Result<Option<Duration>, ValueError> {
    if text == "off" {
        return Ok(None);
    }
    duration(text, true).and_then(no_pause)
}

fn stunnel_pause(text: &str) -> Result<Option<Duration>, ValueError> {
    if let Ok(yes) = choice(text, YES_NO, Dialect::Stunnel) {
        return Ok(yes.then_some(USUAL_PAUSE));
    }
    let number = strtol(text).and_then(|n| u64::try_from(n).ok()).ok_or_else(|| {
        let message = format!("{} is neither yes, no nor a number", quoted(text));
        ValueError::new("unknown-value", message, "write yes, no or a number of milliseconds")
    })?;
    at_least(Duration::from_millis(number), true, text).and_then(no_pause)
}

fn ssl_option(text: &str) -> Result<String, ValueError> {
    let name = text.strip_prefix('-').unwrap_or(text);
    if SSL_OPTIONS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        Ok(text.into())
    } else {
        let help = match nearest(name, SSL_OPTIONS.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "SSL_CTX_set_options(3) has them, each without SSL_OP_".into(),
        };
        Err(ValueError::new("unknown-value", format!("there is no switch `{}`", shown(name)), help))
    }
}

/// `cut`, `keep`, or how long until it is cut.
fn on_revocation(text: &str) -> Result<OnRevocation, ValueError> {
    match text {
        "cut" => Ok(OnRevocation::Cut),
        "keep" => Ok(OnRevocation::Keep),
        _ => duration(text, false).map(OnRevocation::Grace).map_err(|_| {
            let message = format!("{} is not known here", quoted(text));
            ValueError::new(
                "unknown-value",
                message,
                "write \"cut\", \"keep\" or a grace such as \"30s\"",
            )
        }),
    }
}

/// An address or a network. Bits behind the prefix are a slip: either is longer than was meant.
fn range(text: &str) -> Result<IpRange, ValueError> {
    let help = "write an address or a network, such as 10.1.2.3, 10.1.0.0/16 or 2001:db8::/32";
    let bad = |message: String, help: &str| ValueError::new("bad-range", message, help);
    let text = text.trim();
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(IpRange::new(address.to_canonical().into()));
    }
    let network: ipnet::IpNet = text
        .parse()
        .map_err(|_| bad(format!("{} is neither an address nor a network", quoted(text)), help))?;
    if network.addr() != network.network() {
        let meant = format!("write {}, or {} alone", network.trunc(), network.addr());
        return Err(bad(format!("`{network}` has bits behind its prefix"), &meant));
    }
    Ok(IpRange::new(network))
}

/// A day lasts to its end in UTC: the boards that read this know no time zone.
fn moment(text: &str) -> Result<jiff::Timestamp, ValueError> {
    let text = text.trim();
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(moment);
    }
    text.parse::<jiff::civil::Date>()
        .and_then(|day| day.tomorrow())
        .and_then(|next| next.to_zoned(jiff::tz::TimeZone::UTC))
        .map(|start| start.timestamp())
        .map_err(|_| {
            ValueError::new(
                "bad-moment",
                format!("{} is neither a day nor a time", quoted(text)),
                "write a day such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z",
            )
        })
}

fn file_mode(text: &str) -> Result<u32, ValueError> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| *mode <= 0o777 && digits.len() >= 3)
        .ok_or_else(|| {
            ValueError::new(
                "bad-mode",
                format!("{} is not a mode", quoted(text)),
                "write a mode in octal, such as \"0660\"",
            )
        })
}

/// What a log of less would hold is not worth a file.
const LEAST_SIZE: u64 = 10_000;

/// A whole number and its unit.
fn size(text: &str) -> Result<u64, ValueError> {
    let help = "write a number and a unit, such as \"500kB\", \"1MB\" or \"1MiB\"";
    let bad = || ValueError::new("bad-size", format!("{} is not a size", quoted(text)), help);
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(bad()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(bad)?;
    if bytes < LEAST_SIZE {
        let message = format!("`{text}` is less than 10kB");
        return Err(ValueError::new("bad-size", message, "write at least \"10kB\""));
    }
    Ok(bytes)
}

/// `8000000 records, 100GB`, or one of both; the other one is the default then.
fn read_rekey_after(text: &str) -> Result<RekeyAfter, ValueError> {
    const UNIT: &str = "records";
    const MIN_RECORDS: u32 = 100;
    let bad = |message: String, help: &str| ValueError::new("bad-rekey-after", message, help);
    let help =
        "write records, bytes or both, such as \"1000000 records\" or \"1000000 records, 10GB\"";
    let mut limit = RekeyAfter::default();
    let mut said = [false; 2];
    for part in text.split(',') {
        let number = part.trim().strip_suffix(UNIT).or_else(|| part.trim().strip_suffix("record"));
        let twice = std::mem::replace(&mut said[usize::from(number.is_some())], true);
        if twice {
            return Err(bad(format!("{} says the same thing twice", quoted(text)), help));
        }
        let Some(number) = number else {
            let bytes = size(part).map_err(|_| {
                bad(
                    format!("{} is neither records nor an amount of bytes", quoted(part.trim())),
                    help,
                )
            })?;
            limit.bytes = bytes.min(RekeyAfter::MAX.bytes);
            continue;
        };
        let most = RekeyAfter::MAX.records;
        limit.records = count(number.trim(), MIN_RECORDS, most).map_err(|_| {
            bad(
                format!("{} is not a number of records", quoted(part.trim())),
                &format!(
                    "write a number from {MIN_RECORDS} to {most}, such as \"1000000 records\""
                ),
            )
        })?;
    }
    Ok(limit)
}

/// `15s/5s/3`, or `off`.
fn keepalive(text: &str) -> Result<Option<Keepalive>, ValueError> {
    if text == "off" {
        return Ok(None);
    }
    let bad = || {
        ValueError::new(
            "bad-keepalive",
            format!("`{}` is not a keepalive", shown(text)),
            "write idle/interval/count, such as \"15s/5s/3\", or false",
        )
    };
    let parts: Vec<&str> = text.split('/').collect();
    let [idle, interval, probes] = parts.as_slice() else {
        return Err(bad());
    };
    let whole = |text: &str| match duration(text, false) {
        // The kernel counts seconds, up to 32767 (tcp(7)).
        Ok(d) if d.subsec_nanos() == 0 && d.as_secs() <= 32_767 => Ok(d),
        Ok(_) => Err(ValueError::new(
            "bad-keepalive",
            "keepalive counts whole seconds, up to 32767",
            "write idle/interval/count, such as \"15s/5s/3\", or false",
        )),
        Err(wrong) => Err(wrong),
    };
    let probes = count(probes.trim(), 1, 127)?;
    Ok(Some(Keepalive { idle: whole(idle)?, interval: whole(interval)?, count: probes }))
}

#[cfg(test)]
mod tests;
