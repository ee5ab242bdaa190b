//! What the operator gets to see: log lines now, counters and a status for later questions.

pub mod event;
#[cfg(all(unix, any(test, fuzzing)))]
pub(crate) mod fuzzing;
#[cfg(unix)]
pub mod journal;
pub mod log;
mod log_context;
mod log_file;
pub mod metrics;
mod one_line;
pub mod prometheus;
pub mod rate_limiter;
mod record;
mod session_id;
pub mod status;
#[cfg(unix)]
pub mod syslog;
#[cfg(windows)]
pub mod syslog {
    //! In syslog's place: the event log, to which a service without a log file says what it would say
    //! on standard error.

    use crate::config::model::LogConfig;
    use crate::sys::{event_log::EventLog, service_control};

    /// An open event log.
    #[derive(Debug)]
    pub struct Syslog(EventLog);

    impl Syslog {
        /// Opens it, if this process is a service and has no log file.
        pub fn open(config: &LogConfig) -> Option<Self> {
            let wanted = service_control::is_running() && config.output.is_none();
            wanted.then(|| EventLog::open("pskgate".as_ref()).ok().map(Self)).flatten()
        }

        pub(super) fn with_config(self, _: &LogConfig) -> Self {
            self
        }

        pub(super) fn send(&mut self, level: u8, text: &str) {
            // A log that takes no more has nobody to tell so.
            let _ = self.0.write(level, text);
        }
    }
}
mod time_zone;
mod verbosity;
#[cfg(windows)]
pub mod journal {
    //! Only Linux has one.

    use crate::config::model::LogConfig;

    /// A connection that there never is.
    #[derive(Debug)]
    pub struct Journal(std::convert::Infallible);

    impl Journal {
        /// None.
        pub fn open(_: &LogConfig) -> Option<Self> {
            None
        }

        pub(super) fn set_config(&mut self, _: &LogConfig) {}

        pub(super) fn send(&mut self, _: u8, _: &str, _: &[u8]) -> std::io::Result<()> {
            match self.0 {}
        }
    }

    pub(super) fn encode_fields(
        _: &str,
        _: Option<&str>,
        _: Option<u64>,
        _: &std::collections::BTreeMap<&'static str, serde_json::Value>,
    ) -> Vec<u8> {
        Vec::new()
    }
}
