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
}
