//! What the operator gets to see: log lines now, counters and a status for later questions.

pub mod event;
pub mod limit;
pub mod log;
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
