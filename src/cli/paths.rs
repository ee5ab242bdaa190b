//! Where things are when nobody says where.

use std::path::PathBuf;

/// The configuration file that is meant when none is named.
#[cfg(unix)]
pub(super) fn default_config() -> PathBuf {
    "/etc/pskgate/pskgate.toml".into()
}

/// The configuration file that is meant when none is named.
#[cfg(not(unix))]
pub(super) fn default_config() -> PathBuf {
    let base = std::env::var_os("ProgramData").unwrap_or_else(|| r"C:\ProgramData".into());
    PathBuf::from(base).join("pskgate").join("pskgate.toml")
}
