//! Where things are when nobody says.

use std::path::PathBuf;

/// The configuration that is meant when none is named.
#[cfg(not(windows))]
pub(super) fn default_config() -> PathBuf {
    PathBuf::from("/etc/pskgate/pskgate.toml")
}

/// The configuration that is meant when none is named.
#[cfg(windows)]
pub(super) fn default_config() -> PathBuf {
    let data = std::env::var_os("ProgramData").unwrap_or_else(|| r"C:\ProgramData".into());
    PathBuf::from(data).join("pskgate").join("pskgate.toml")
}
