//! The machine's own log, spoken to as the C library does: RFC 3164 in datagrams to `/dev/log`.

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::config::model::LogConfig;

/// Where every syslog of a Unix listens.
const SOCKET_PATH: &str = "/dev/log";
/// Names another socket, for tests, which cannot take the machine's. A release build does not read it: whoever
/// can set a variable for the program would lead its log elsewhere.
#[cfg(debug_assertions)]
const SOCKET_VARIABLE: &str = "PSKGATE_SYSLOG_SOCKET";
/// Between two attempts to connect.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
/// What every implementation takes in one piece (RFC 5424, 6.1, says 2048 at least should be).
const MAX_MESSAGE_SIZE: usize = 2048;

fn socket_path() -> OsString {
    #[cfg(debug_assertions)]
    if let Some(path) = std::env::var_os(SOCKET_VARIABLE) {
        return path;
    }
    SOCKET_PATH.into()
}

/// A connection to syslog, if there is one. What cannot be sent is dropped; nothing waits.
#[derive(Debug)]
pub struct Syslog {
    socket: Option<UnixDatagram>,
    last_attempt: Option<Instant>,
    facility: u32,
    ident: String,
}

impl Syslog {
    /// Connects now, because after a change of root directory it could not any more.
    pub fn open(config: &LogConfig) -> Option<Self> {
        if !config.syslog.value {
            return None;
        }
        let mut syslog = Self {
            socket: None,
            last_attempt: None,
            facility: config.facility.value,
            ident: config.ident.value.clone(),
        };
        syslog.connect();
        Some(syslog)
    }

    /// The same connection under the names of a new configuration.
    pub(super) fn with_config(mut self, config: &LogConfig) -> Self {
        self.facility = config.facility.value;
        self.ident.clone_from(&config.ident.value);
        self
    }

    fn connect(&mut self) {
        if self.last_attempt.is_some_and(|last| last.elapsed() < RECONNECT_INTERVAL) {
            return;
        }
        self.last_attempt = Some(Instant::now());
        let path = socket_path();
        let connected = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.connect(path)?;
            Ok(socket)
        });
        self.socket = connected.ok();
    }

    pub(super) fn send(&mut self, level: u8, text: &str) {
        let line = format_entry(self.facility, level, &self.ident, text);
        for _ in 0..2 {
            if self.socket.is_none() {
                self.connect();
            }
            let Some(socket) = &self.socket else { return };
            match socket.send(&line) {
                Ok(_) => return,
                // It is behind: waiting for it would stop the log's other outputs.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // It was started anew, and has a new socket.
                Err(_) => self.socket = None,
            }
        }
    }
}

/// A line as it is sent. One that is too long is cut, but not within a character: what is no UTF-8 a
/// reader may drop whole.
pub(super) fn format_entry(facility: u32, level: u8, ident: &str, text: &str) -> Vec<u8> {
    let now = jiff::Timestamp::now().to_zoned(super::time_zone::zone());
    let time = now.strftime("%b %e %H:%M:%S");
    let mut line = format!("<{}>{time} {ident}: {text}", facility * 8 + u32::from(level));
    let mut end = MAX_MESSAGE_SIZE.min(line.len());
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_cut_between_two_characters() {
        for padding in ["", "x", "xx"] {
            let sent = format_entry(
                3,
                6,
                "gate",
                &format!("{padding}{}", "\u{20ac}".repeat(MAX_MESSAGE_SIZE)),
            );
            let text = std::str::from_utf8(&sent).ok();
            assert!(text.is_some_and(|text| text.ends_with('\u{20ac}')), "{padding}");
            assert!(
                (MAX_MESSAGE_SIZE - 2..=MAX_MESSAGE_SIZE).contains(&sent.len()),
                "{}",
                sent.len()
            );
        }
        let short = String::from_utf8(format_entry(3, 6, "gate", "words")).unwrap_or_default();
        assert!(short.starts_with("<30>") && short.ends_with(" gate: words"), "{short}");
    }
}
