//! `version`: what this is, and whose cryptography it runs on.

use super::say;

/// Whether OpenSSL is part of this program, and not the system's to mend or to configure.
pub(super) const OPENSSL_INSIDE: bool =
    matches!(env!("PSKGATE_OPENSSL_LINK").as_bytes(), b"static");

pub(super) fn main() -> u8 {
    let link = if OPENSSL_INSIDE { "built in" } else { "the system's" };
    let features = match env!("PSKGATE_FEATURES") {
        "" => "none",
        names => names,
    };
    say(&format!(
        "pskgate {} for {}\nbuilt with OpenSSL {}\nruns with {} ({link})\nfeatures: {features}",
        env!("CARGO_PKG_VERSION"),
        env!("PSKGATE_TARGET"),
        env!("PSKGATE_OPENSSL"),
        openssl::version::version(),
    ))
}
