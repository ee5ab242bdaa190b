//! Numbers, sizes, and limits that are made of both.

use super::{ValueError, quoted};
use crate::config::model::RekeyAfter;

/// strtol's number: white space, a sign, digits, and then the end.
pub(super) fn strtol(text: &str) -> Option<i64> {
    let text = text.trim_start_matches([' ', '\t', '\u{b}', '\u{c}', '\r', '\n']);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // strtol stops at the ends of its range instead of failing.
    let limit = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    Some(text.parse().unwrap_or(limit))
}

pub(in crate::config) fn count(text: &str, min: u32, max: u32) -> Result<u32, ValueError> {
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

pub(super) fn file_mode(text: &str) -> Result<u32, ValueError> {
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

/// In bytes. A smaller log file would hold almost nothing.
const MIN_SIZE: u64 = 10_000;

/// A whole number and its unit.
pub(super) fn size(text: &str) -> Result<u64, ValueError> {
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
    if bytes < MIN_SIZE {
        let message = format!("`{text}` is less than 10kB");
        return Err(ValueError::new("bad-size", message, "write at least \"10kB\""));
    }
    Ok(bytes)
}

/// `8000000 records, 100GB`, or one of both; the other one is the default then.
pub(super) fn rekey_after(text: &str) -> Result<RekeyAfter, ValueError> {
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
