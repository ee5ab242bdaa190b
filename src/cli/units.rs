//! Figures for people: three digits and a unit.

/// Bytes, in powers of 1000 as disks and networks count them.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    // What would be written as 1000 belongs to the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let unit = UNITS[unit];
    if value < 9.995 {
        format!("{value:.2} {unit}")
    } else if value < 99.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// Bytes a second.
pub(super) fn rate(count: u64) -> String {
    format!("{}/s", bytes(count))
}

/// A time in seconds, in its two largest units.
pub(super) fn time(seconds: f64) -> String {
    // Casting saturates, and makes 0 of what is no number.
    let whole = seconds as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, _) if seconds < 9.95 => format!("{:.1}s", seconds.max(0.0)),
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s:02}s"),
        (0, h, m, _) => format!("{h}h{m:02}m"),
        (d, h, _, _) => format!("{d}d{h:02}h"),
    }
}

/// A count with its noun.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_never_a_thousand_of_a_unit() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_996, "10.0 kB"),
            (99_960, "100 kB"),
            (999_600, "1.00 MB"),
            (67_108_864, "67.1 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn times_have_their_two_largest_units() {
        for (seconds, text) in [
            (0.04, "0.0s"),
            (9.9, "9.9s"),
            (59.9, "59s"),
            (61.0, "1m01s"),
            (3_720.0, "1h02m"),
            (90_061.0, "1d01h"),
            (f64::NAN, "0s"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
