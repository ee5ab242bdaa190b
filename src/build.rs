//! Tells the program what it is built for and with: neither is known to the code itself.

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // https://reproducible-builds.org/specs/source-date-epoch/
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map(|since| since.as_secs()).unwrap_or_default();
    let said = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    println!("cargo::rustc-env=PSKGATE_BUILD_TIME={}", said.unwrap_or(now));
    let target = std::env::var("TARGET").unwrap_or_else(|_| "unknown".into());
    println!("cargo::rustc-env=PSKGATE_TARGET={target}");
    // openssl-sys exports the headers' 0xMNN00PPS as hexadecimal digits.
    let number = std::env::var("DEP_OPENSSL_VERSION_NUMBER").unwrap_or_default();
    let number = u32::from_str_radix(&number, 16).unwrap_or_default();
    let (major, minor, patch) = (number >> 28, number >> 20 & 0xff, number >> 4 & 0xff);
    println!("cargo::rustc-env=PSKGATE_OPENSSL={major}.{minor}.{patch}");
    println!("cargo::rustc-env=PSKGATE_OPENSSL_LINK={}", link(&target));
    // CARGO_FEATURE_VENDORED and so on; the default ones say nothing.
    let mut features: Vec<_> = std::env::vars()
        .filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(str::to_lowercase))
        .filter(|name| name != "default")
        .collect();
    features.sort();
    println!("cargo::rustc-env=PSKGATE_FEATURES={}", features.join(", "));
}

/// Whether OpenSSL becomes part of the program: asked for as openssl-sys is asked, or always so there.
fn link(target: &str) -> &'static str {
    let prefix = target.to_uppercase().replace('-', "_");
    let names = [format!("{prefix}_OPENSSL_STATIC"), "OPENSSL_STATIC".into()];
    let mut said = None;
    for name in names {
        println!("cargo::rerun-if-env-changed={name}");
        // The target's own is asked first, and 0 is no.
        said = said.or(std::env::var(name).ok());
    }
    let vendored = std::env::var_os("CARGO_FEATURE_VENDORED").is_some();
    let asked = said.is_some_and(|value| value != "0");
    // The C library of a fully static program can load no shared one.
    let whole = target.contains("musl");
    if vendored || asked || whole { "static" } else { "dynamic" }
}
