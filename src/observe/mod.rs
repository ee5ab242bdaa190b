//! What the operator gets to see: log lines now, counters and a status for later questions.

pub mod event;
mod fields;
#[cfg(unix)]
pub mod journal;
pub mod limit;
pub mod log;
mod log_file;
pub mod metrics;
pub mod prometheus;
pub mod status;
#[cfg(unix)]
pub mod syslog;
#[cfg(not(unix))]
pub mod syslog {
    //! Only Unix has one.

    use crate::config::model::LogConfig;

    /// A connection that there never is.
    #[derive(Debug)]
    pub struct Syslog(());

    impl Syslog {
        /// None.
        pub fn open(_: &LogConfig) -> Option<Self> {
            None
        }

        pub(super) fn renamed(self, _: &LogConfig) -> Self {
            self
        }

        pub(super) fn put(&mut self, _: u8, _: &str) {}
    }
}
#[cfg(not(unix))]
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

        pub(super) fn rename(&mut self, _: &LogConfig) {}

        pub(super) fn put(&mut self, _: u8, _: &str, _: &[u8]) -> std::io::Result<()> {
            match self.0 {}
        }
    }

    pub(super) fn encoded(
        _: &str,
        _: Option<&str>,
        _: Option<u64>,
        _: &serde_json::Map<String, serde_json::Value>,
    ) -> Vec<u8> {
        Vec::new()
    }
}
