//! Values of a configuration file that a command writes.

use toml_edit::Value;

/// In quotes, whatever it holds.
pub(super) fn text(value: &str) -> String {
    Value::from(value).to_string()
}

/// An address; a port alone is a number.
pub(super) fn address(value: &str) -> String {
    value.parse::<u16>().map_or_else(|_| text(value), |port| port.to_string())
}
