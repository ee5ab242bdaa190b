//! What the operator gets to see: log lines now, counters for later questions.

pub mod event;
pub mod limit;
pub mod log;
pub mod metrics;
pub mod syslog;
