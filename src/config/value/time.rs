//! Lengths of time and moments: native ones have units, stunnel's are whole seconds or milliseconds.

use std::time::Duration;

use super::number::{count, strtol};
use super::{ValueError, quoted, shown, words};
use crate::config::model::{Dialect, Keepalive, OnRevocation};
use crate::config::options::ValueKind;
use crate::config::parsed_file::Value;

/// What stands for no end: beyond it a time cannot be told from none, but can overflow a clock.
pub(super) const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

fn bad_duration(text: &str) -> ValueError {
    ValueError::new(
        "bad-duration",
        format!("{} is not a length of time", quoted(text)),
        "write a number and a unit, such as \"250ms\", \"10s\", \"5m\", \"12h\" or \"1h30m\"",
    )
}

/// `1h30m`: whole numbers, each with its unit, of which none comes twice.
pub(super) fn duration(text: &str, zero: bool) -> Result<Duration, ValueError> {
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
    check_length(Duration::from_millis(total), zero, text)
}

/// A timeout of zero would refuse every connection: `zero` says where it makes sense.
fn check_length(length: Duration, zero: bool, text: &str) -> Result<Duration, ValueError> {
    if length.is_zero() && !zero {
        return Err(ValueError::new(
            "zero-duration",
            "the time is zero",
            "write a length of time greater than zero",
        ));
    }
    if length > FOR_EVER {
        return Err(ValueError::new(
            "bad-duration",
            format!("`{}` is longer than a hundred years", shown(text)),
            "write a shorter time",
        ));
    }
    Ok(length)
}

/// stunnel's seconds. It hands a negative number to poll(2), where it means for ever.
pub(super) fn seconds(text: &str, zero: bool) -> Result<Duration, ValueError> {
    let number = strtol(text).ok_or_else(|| {
        let native = duration(text, true).map(|d| d.as_secs().max(1));
        let help = match native {
            Ok(n) if !text.is_empty() => format!("write whole seconds without a unit: {n}"),
            _ => "write whole seconds without a unit, such as 10".into(),
        };
        ValueError::new("bad-number", format!("{} is not a number", quoted(text)), help)
    })?;
    match u64::try_from(number) {
        Ok(n) => check_length(Duration::from_secs(n).min(FOR_EVER), zero, text),
        Err(_) => Ok(FOR_EVER),
    }
}

/// Below this a program that ends at once would do nothing but be started.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// What stunnel's `yes` means.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);

fn check_pause(length: Duration) -> Result<Option<Duration>, ValueError> {
    if length < MIN_PAUSE {
        return Err(ValueError::new(
            "out-of-range",
            "a pause this short would start a failing program without end",
            "write at least 10 ms",
        ));
    }
    Ok(Some(length))
}

/// `1s`, or `off`.
pub(super) fn pause(text: &str) -> Result<Option<Duration>, ValueError> {
    if text == "off" {
        return Ok(None);
    }
    duration(text, true).and_then(check_pause)
}

pub(super) fn stunnel_pause(text: &str) -> Result<Option<Duration>, ValueError> {
    if let Ok(Value::Bool(yes)) = words::read(ValueKind::Bool, Dialect::Stunnel, text) {
        return Ok(yes.then_some(DEFAULT_PAUSE));
    }
    let number = strtol(text).and_then(|n| u64::try_from(n).ok()).ok_or_else(|| {
        let message = format!("{} is neither yes, no nor a number", quoted(text));
        ValueError::new("unknown-value", message, "write yes, no or a number of milliseconds")
    })?;
    check_length(Duration::from_millis(number), true, text).and_then(check_pause)
}

/// `15s/5s/3`, or `off`.
pub(super) fn keepalive(text: &str) -> Result<Option<Keepalive>, ValueError> {
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

/// `cut`, `keep`, or how long until it is cut.
pub(super) fn on_revocation(text: &str) -> Result<OnRevocation, ValueError> {
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

/// A day lasts to its end in UTC: the boards that read this know no time zone.
pub(super) fn moment(text: &str) -> Result<jiff::Timestamp, ValueError> {
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
