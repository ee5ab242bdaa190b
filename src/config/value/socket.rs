//! Socket options: which socket, which option, and its value in the shape that socket(7) knows.

use std::time::Duration;

use super::number::count;
use super::text::plain;
use super::time::duration;
use super::words::{choice, no_such_word};
use super::{ValueError, shown};
use crate::config::model::{Dialect, SocketOption};
use crate::config::parsed_file::SocketSide;

const SIDES: &[(&str, SocketSide)] = &[
    ("accept", SocketSide::Accept),
    ("downstream", SocketSide::Downstream),
    ("upstream", SocketSide::Upstream),
];

pub(in crate::config) const SOCKET_OPTIONS: &[&str] = &[
    "SO_DEBUG",
    "SO_DONTROUTE",
    "SO_KEEPALIVE",
    "SO_LINGER",
    "SO_OOBINLINE",
    "SO_RCVBUF",
    "SO_SNDBUF",
    "SO_RCVLOWAT",
    "SO_SNDLOWAT",
    "SO_RCVTIMEO",
    "SO_SNDTIMEO",
    "SO_REUSEADDR",
    "SO_BINDTODEVICE",
    "TCP_KEEPCNT",
    "TCP_KEEPIDLE",
    "TCP_KEEPINTVL",
    "IP_TOS",
    "IP_TTL",
    "TCP_NODELAY",
    "IP_FREEBIND",
    "IPV6_V6ONLY",
];

/// `a:SO_LINGER=1:60` in stunnel.conf, `accept:SO_LINGER=1:60` in a native file.
pub(super) fn read(text: &str, dialect: Dialect) -> Result<(SocketSide, SocketOption), ValueError> {
    let shape = match dialect {
        Dialect::Native => "write accept, downstream or upstream, a colon and NAME=VALUE",
        Dialect::Stunnel => "write a, l or r, a colon and NAME=VALUE",
    };
    let bad = |message: String| ValueError::new("bad-socket-option", message, shape);
    let Some((side, rest)) = text.split_once(':') else {
        return Err(bad("there is no colon".into()));
    };
    let side = match (dialect, side) {
        (Dialect::Native, side) => choice(side.trim(), SIDES, dialect)?,
        (Dialect::Stunnel, "a") => SocketSide::Accept,
        (Dialect::Stunnel, "l") => SocketSide::Downstream,
        (Dialect::Stunnel, "r") => SocketSide::Upstream,
        (Dialect::Stunnel, other) => {
            return Err(bad(format!("there is no socket `{}`", shown(other))));
        }
    };
    let Some((name, value)) = rest.split_once('=') else {
        return Err(bad("there is no equals sign".into()));
    };
    // stunnel compares the name as it stands.
    let (name, value) = match dialect {
        Dialect::Native => (name.trim(), value.trim()),
        Dialect::Stunnel => (name, value),
    };
    let flag = || match value.to_ascii_lowercase().as_str() {
        "yes" | "1" => Ok(true),
        "no" | "0" => Ok(false),
        "true" if dialect == Dialect::Native => Ok(true),
        "false" if dialect == Dialect::Native => Ok(false),
        _ => Err(ValueError::new(
            "bad-socket-option",
            format!("`{}` does not switch {name} on or off", shown(value)),
            "write 1 or 0",
        )),
    };
    let number = |max: u32| count(value, 0, max);
    const INT: u32 = i32::MAX as u32;
    let option = match name {
        "SO_DEBUG" => SocketOption::Debug(flag()?),
        "SO_DONTROUTE" => SocketOption::DontRoute(flag()?),
        "SO_KEEPALIVE" => SocketOption::KeepAlive(flag()?),
        "SO_LINGER" => SocketOption::Linger(linger(value)?),
        "SO_OOBINLINE" => SocketOption::OobInline(flag()?),
        "SO_RCVBUF" => SocketOption::ReceiveBuffer(number(INT)?),
        "SO_SNDBUF" => SocketOption::SendBuffer(number(INT)?),
        "SO_RCVLOWAT" => SocketOption::ReceiveLowWater(number(INT)?),
        "SO_SNDLOWAT" => SocketOption::SendLowWater(number(INT)?),
        "SO_RCVTIMEO" => SocketOption::ReceiveTimeout(timeval(value, dialect)?),
        "SO_SNDTIMEO" => SocketOption::SendTimeout(timeval(value, dialect)?),
        "SO_REUSEADDR" => SocketOption::ReuseAddress(flag()?),
        "SO_BINDTODEVICE" => SocketOption::BindToDevice(plain(value, false)?),
        "TCP_KEEPCNT" => SocketOption::KeepAliveCount(number(127)?),
        "TCP_KEEPIDLE" => SocketOption::KeepAliveIdle(number(32_767)?),
        "TCP_KEEPINTVL" => SocketOption::KeepAliveInterval(number(32_767)?),
        "IP_TOS" => SocketOption::TypeOfService(octet(value)?),
        "IP_TTL" => SocketOption::TimeToLive(octet(value)?),
        "TCP_NODELAY" => SocketOption::NoDelay(flag()?),
        "IP_FREEBIND" => SocketOption::FreeBind(flag()?),
        "IPV6_V6ONLY" => SocketOption::Ipv6Only(flag()?),
        other => return Err(no_such_word(other, SOCKET_OPTIONS)),
    };
    Ok((side, option))
}

fn octet(value: &str) -> Result<u8, ValueError> {
    // IP_TOS is usually given in hex.
    if let Some(hex) = value.strip_prefix("0x")
        && let Ok(n) = u8::from_str_radix(hex, 16)
    {
        return Ok(n);
    }
    Ok(u8::try_from(count(value, 0, 255)?).unwrap_or(u8::MAX))
}

/// `1:60`: on, for so many seconds.
fn linger(value: &str) -> Result<Option<u16>, ValueError> {
    let (on, seconds) = value.split_once(':').unwrap_or((value, "0"));
    let on = match on.to_ascii_lowercase().as_str() {
        "0" | "no" => false,
        _ => count(on, 1, 1)
            .map_err(|_| {
                ValueError::new(
                    "bad-socket-option",
                    "SO_LINGER is on or off",
                    "write 1:SECONDS or 0",
                )
            })
            .map(|_| true)?,
    };
    let seconds = count(seconds, 0, u32::from(u16::MAX))?;
    Ok(on.then(|| u16::try_from(seconds).unwrap_or(u16::MAX)))
}

/// stunnel's `seconds:microseconds`; a native file may also write a duration.
fn timeval(value: &str, dialect: Dialect) -> Result<Duration, ValueError> {
    if dialect == Dialect::Native && value.ends_with(|c: char| c.is_ascii_alphabetic()) {
        return duration(value, true);
    }
    let (seconds, micros) = value.split_once(':').unwrap_or((value, "0"));
    let seconds = count(seconds, 0, u32::from(u16::MAX))?;
    let micros = count(micros, 0, 999_999)?;
    Ok(Duration::new(u64::from(seconds), micros * 1_000))
}
