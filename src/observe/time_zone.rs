//! The machine's time zone.

use std::sync::OnceLock;

use jiff::tz::TimeZone;

/// The machine's time zone, found once: inside another root directory it could not be found any more.
pub fn zone() -> TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(TimeZone::system).clone()
}
