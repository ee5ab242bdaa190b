//! `version`: what this is, and whose cryptography it runs on.

use super::print_result;

/// The version of stunnel whose behaviour this is: callers compare it.
const STUNNEL_VERSION: &str = "5.75";

/// Whether OpenSSL is part of this program, and not the system's to mend or to configure.
pub(super) const OPENSSL_INSIDE: bool =
    matches!(env!("PSKGATE_OPENSSL_LINK").as_bytes(), b"static");

pub(super) fn main() -> u8 {
    let link = if OPENSSL_INSIDE { "built in" } else { "the system's" };
    let features = match env!("PSKGATE_FEATURES") {
        "" => "none",
        names => names,
    };
    print_result(&format!(
        "pskgate {} for {}\nbuilt with OpenSSL {}\nruns with {} ({link})\nfeatures: {features}",
        env!("CARGO_PKG_VERSION"),
        env!("PSKGATE_TARGET"),
        env!("PSKGATE_OPENSSL"),
        openssl::version::version(),
    ))
}

/// The lines of stunnel's `-version`, which begin the log as well: stunnel's three, whose shape callers
/// parse and whose words say what is here; then our own.
pub(super) fn stunnel_banner() -> String {
    let runs = openssl::version::version();
    let built = env!("PSKGATE_OPENSSL");
    let same = runs.split(' ').nth(1) == Some(built);
    let openssl = match same {
        true => format!("Compiled/running with {runs}"),
        false => format!("Compiled with OpenSSL {built}\nRunning  with {runs}"),
    };
    format!(
        "stunnel {STUNNEL_VERSION} on {} platform\n{openssl}\n\
         Threading:NONE Sockets:EPOLL,IPv6,SYSTEMD TLS:PSK,SNI\n\
         pskgate {}, which does stunnel's work with pre-shared keys\n",
        env!("PSKGATE_TARGET"),
        env!("CARGO_PKG_VERSION"),
    )
}
