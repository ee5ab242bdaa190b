//! The text of a value, in either dialect: what the readers read, the other way round.

use std::net::IpAddr;
use std::time::Duration;

use super::time::FOR_EVER;
use super::{read, read_bytes, word};
use crate::config::endpoint::{Endpoint, Host};
use crate::config::model::{Dialect, Keepalive, OnRevocation, RekeyAfter, SocketOption, Variable};
use crate::config::options::ValueKind;
use crate::config::parsed_file::{SocketSide, Value};

/// A value as it stands in a native file; none for what no native file can say: other bytes than
/// text, an empty identity, a host that no resolver could know.
pub(in crate::config) fn native(kind: ValueKind, value: &Value) -> Option<toml_edit::Value> {
    let bare = match (kind, value) {
        (ValueKind::Count { .. }, Value::Count(n)) => Some(i64::from(*n).into()),
        (ValueKind::Bool, Value::Bool(on)) => Some((*on).into()),
        (_, Value::Keepalive(None) | Value::Retry(None)) => Some(false.into()),
        _ => None,
    };
    if bare.is_some() {
        return bare;
    }
    let text = native_text(kind, value)?;
    let same = read(kind, Dialect::Native, &text).is_ok_and(|read| read == *value);
    same.then(|| text.into())
}

fn native_text(kind: ValueKind, value: &Value) -> Option<String> {
    let named = |text: &str| Some(text.to_owned());
    match value {
        Value::Duration(length) => Some(with_unit(*length)),
        Value::Count(n) if kind == ValueKind::FileMode => Some(format!("{n:04o}")),
        Value::Size(bytes) => Some(with_prefix(*bytes)),
        Value::Path(path) => path.to_str().and_then(named),
        Value::Endpoint(at) => Some(native_endpoint(at)),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().and_then(named),
        Value::Text(text) => named(text),
        Value::Keepalive(keepalive) => keepalive.map(probes),
        Value::Socket(side, option) => {
            let side = match side {
                SocketSide::Accept => "accept",
                SocketSide::Downstream => "downstream",
                SocketSide::Upstream => "upstream",
            };
            Some(format!("{side}:{}", socket_option(option)))
        }
        Value::Host(host) => Some(host_text(host)),
        Value::Arguments(words) => match words.as_slice() {
            [word] => Some(word.clone()),
            _ => None,
        },
        Value::OnRevocation(OnRevocation::Cut) => named("cut"),
        Value::OnRevocation(OnRevocation::Keep) => named("keep"),
        Value::OnRevocation(OnRevocation::Grace(grace)) => Some(with_unit(*grace)),
        Value::RekeyAfter(limit) => Some(rekey_after(*limit)),
        Value::Range(range) => Some(range.to_string()),
        Value::Moment(moment) => Some(moment.to_string()),
        Value::TicketKey(key) => Some(key.to_hex()),
        Value::Variable(variable) => Some(variable_text(variable)),
        Value::Retry(pause) => pause.map(with_unit),
        Value::Password(password) => named(password.expose()),
        // A native file runs in the foreground, and has no word for it.
        Value::Foreground(_) => None,
        Value::Count(_)
        | Value::Bool(_)
        | Value::Mode(_)
        | Value::Failover(_)
        | Value::Hash(_)
        | Value::Version(_)
        | Value::Level(_)
        | Value::LogFormat(_)
        | Value::Preface(_)
        | Value::CipherOrder(_)
        | Value::WhenFull(_)
        | Value::LogId(_)
        | Value::Negotiation(_)
        | Value::Transparent(_) => word(kind, Dialect::Native, value).and_then(named),
    }
}

/// A value as it stands in a stunnel.conf; none for what no stunnel.conf can say: part of a second, an
/// argument with a blank in it, a blank at either end.
pub(in crate::config) fn stunnel(kind: ValueKind, value: &Value) -> Option<String> {
    let named = |text: &str| Some(text.to_owned());
    let text = match value {
        Value::Duration(length) if *length >= FOR_EVER => named("-1"),
        Value::Duration(length) => {
            (length.subsec_nanos() == 0).then(|| length.as_secs().to_string())
        }
        Value::Count(n) if kind != ValueKind::Facility => Some(n.to_string()),
        Value::Path(path) => path.to_str().and_then(named),
        Value::Endpoint(at) => Some(stunnel_endpoint(at)),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().and_then(named),
        Value::Text(text) => named(text),
        Value::Socket(side, option) => {
            let side = match side {
                SocketSide::Accept => 'a',
                SocketSide::Downstream => 'l',
                SocketSide::Upstream => 'r',
            };
            Some(format!("{side}:{}", socket_option(option)))
        }
        Value::Host(host) => Some(host_text(host)),
        Value::Arguments(words) => Some(words.join(" ")),
        Value::TicketKey(key) => Some(key.to_hex()),
        Value::Variable(variable) => Some(variable_text(variable)),
        Value::Retry(None) => named("no"),
        Value::Retry(Some(pause)) => Some(pause.as_millis().to_string()),
        Value::Password(password) => named(password.expose()),
        Value::Count(_)
        | Value::Bool(_)
        | Value::Mode(_)
        | Value::Failover(_)
        | Value::Version(_)
        | Value::Level(_)
        | Value::Preface(_)
        | Value::Negotiation(_)
        | Value::Transparent(_)
        | Value::LogId(_) => word(kind, Dialect::Stunnel, value).and_then(named),
        Value::Hash(_)
        | Value::LogFormat(_)
        | Value::Size(_)
        | Value::Keepalive(_)
        | Value::Foreground(_)
        | Value::CipherOrder(_)
        | Value::WhenFull(_)
        | Value::OnRevocation(_)
        | Value::RekeyAfter(_)
        | Value::Range(_)
        | Value::Moment(_) => None,
    }?;
    // What the reader of lines would take off, or not survive.
    let whole =
        text.trim_ascii().len() == text.len() && !text.contains(['\r', '\n', '\0', '\u{b}']);
    let same = read_bytes(kind, text.as_bytes()).is_ok_and(|read| read == *value);
    (whole && same).then_some(text)
}

/// A size in the largest unit of which it is a whole number.
pub(in crate::config) fn with_prefix(bytes: u64) -> String {
    let units = [
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
    ];
    let whole = units.iter().find(|(unit, _)| bytes.is_multiple_of(*unit));
    let (unit, name) = whole.copied().unwrap_or((1_000, "kB"));
    format!("{}{name}", bytes / unit)
}

fn variable_text(Variable { name, value }: &Variable) -> String {
    format!("{name}={}", value.as_deref().unwrap_or_default())
}

/// In the largest unit of which it is a whole number.
fn with_unit(length: Duration) -> String {
    let (seconds, millis) = (length.as_secs(), length.subsec_millis());
    match seconds {
        _ if millis != 0 => format!("{}ms", length.as_millis()),
        0 => "0s".into(),
        n if n % 86_400 == 0 => format!("{}d", n / 86_400),
        n if n % 3_600 == 0 => format!("{}h", n / 3_600),
        n if n % 60 == 0 => format!("{}m", n / 60),
        n => format!("{n}s"),
    }
}

/// Keepalive as it is written.
pub(in crate::config) fn probes(keepalive: Keepalive) -> String {
    let Keepalive { idle, interval, count } = keepalive;
    format!("{}s/{}s/{count}", idle.as_secs(), interval.as_secs())
}

/// A limit of what one key protects, as it is written.
pub(in crate::config) fn rekey_after(limit: RekeyAfter) -> String {
    format!("{} records, {}", limit.records, with_prefix(limit.bytes))
}

fn host_text(host: &Host) -> String {
    match host {
        Host::Unspecified => "*".into(),
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.clone(),
    }
}

fn native_endpoint(at: &Endpoint) -> String {
    match at {
        // With a zone.
        Endpoint::Tcp { host: Host::Name(name), port } if name.contains(':') => {
            format!("[{name}]:{port}")
        }
        other => other.to_string(),
    }
}

/// Without brackets, which stunnel takes for a part of a name.
fn stunnel_endpoint(at: &Endpoint) -> String {
    match at {
        Endpoint::Tcp { host: Host::Ip(IpAddr::V6(ip)), port } => format!("{ip}:{port}"),
        // With a zone, too.
        Endpoint::Tcp { host: Host::Name(name), port } => format!("{name}:{port}"),
        other => other.to_string(),
    }
}

/// `NAME=VALUE`, as both dialects have it.
pub(in crate::config) fn socket_option(option: &SocketOption) -> String {
    let flag = |on: &bool| i32::from(*on).to_string();
    let time = |d: &Duration| format!("{}:{}", d.as_secs(), d.subsec_micros());
    let (name, value) = match option {
        SocketOption::Debug(on) => ("SO_DEBUG", flag(on)),
        SocketOption::DontRoute(on) => ("SO_DONTROUTE", flag(on)),
        SocketOption::KeepAlive(on) => ("SO_KEEPALIVE", flag(on)),
        SocketOption::Linger(Some(seconds)) => ("SO_LINGER", format!("1:{seconds}")),
        SocketOption::Linger(None) => ("SO_LINGER", "0".into()),
        SocketOption::OobInline(on) => ("SO_OOBINLINE", flag(on)),
        SocketOption::ReceiveBuffer(n) => ("SO_RCVBUF", n.to_string()),
        SocketOption::SendBuffer(n) => ("SO_SNDBUF", n.to_string()),
        SocketOption::ReceiveLowWater(n) => ("SO_RCVLOWAT", n.to_string()),
        SocketOption::SendLowWater(n) => ("SO_SNDLOWAT", n.to_string()),
        SocketOption::ReceiveTimeout(d) => ("SO_RCVTIMEO", time(d)),
        SocketOption::SendTimeout(d) => ("SO_SNDTIMEO", time(d)),
        SocketOption::ReuseAddress(on) => ("SO_REUSEADDR", flag(on)),
        SocketOption::BindToDevice(name) => ("SO_BINDTODEVICE", name.clone()),
        SocketOption::KeepAliveCount(n) => ("TCP_KEEPCNT", n.to_string()),
        SocketOption::KeepAliveIdle(n) => ("TCP_KEEPIDLE", n.to_string()),
        SocketOption::KeepAliveInterval(n) => ("TCP_KEEPINTVL", n.to_string()),
        SocketOption::TypeOfService(n) => ("IP_TOS", n.to_string()),
        SocketOption::TimeToLive(n) => ("IP_TTL", n.to_string()),
        SocketOption::NoDelay(on) => ("TCP_NODELAY", flag(on)),
        SocketOption::FreeBind(on) => ("IP_FREEBIND", flag(on)),
        SocketOption::Ipv6Only(on) => ("IPV6_V6ONLY", flag(on)),
    };
    format!("{name}={value}")
}
