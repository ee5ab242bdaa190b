//! `version`: what this is, and whose cryptography it runs on.

use super::say;

pub(super) fn main() -> u8 {
    let link = if cfg!(feature = "vendored") { "built in" } else { "the system's" };
    say(&format!(
        "pskgate {} for {}\nbuilt with OpenSSL {}\nruns with {} ({link})",
        env!("CARGO_PKG_VERSION"),
        env!("PSKGATE_TARGET"),
        env!("PSKGATE_OPENSSL"),
        openssl::version::version(),
    ))
}
