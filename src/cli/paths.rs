//! Where things are when nobody says where.

use std::path::PathBuf;

/// The configuration file of a machine.
pub(super) fn default_config() -> PathBuf {
    if cfg!(windows) {
        let data = std::env::var_os("ProgramData").filter(|data| !data.is_empty());
        let data = data.map_or_else(|| PathBuf::from(r"C:\ProgramData"), PathBuf::from);
        data.join("pskgate").join("pskgate.toml")
    } else {
        PathBuf::from("/etc/pskgate/pskgate.toml")
    }
}
