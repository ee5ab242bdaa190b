//! Wall time, and whether it can be believed: boards without a battery begin in 1970.

use std::time::{Duration, SystemTime};

/// When this program was built (`SOURCE_DATE_EPOCH` in reproducible builds): no clock that is right
/// shows an earlier time.
pub fn build_time() -> SystemTime {
    // Written by src/build.rs: digits.
    let seconds = env!("PSKGATE_BUILD_TIME").parse().unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Whether this machine's clock shows a time at which this program did not exist yet.
pub fn is_before_build() -> bool {
    SystemTime::now() < build_time()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_was_built_after_it_was_begun_and_before_now() {
        let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert!(build_time() > begun && !is_before_build());
    }
}
