//! The journal of systemd, when standard error leads there: the same lines, with what they are about in
//! fields (systemd's "Native Journal Protocol": datagrams of `NAME=value` lines).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::one_line::to_one_line;
use crate::config::model::LogConfig;

/// The journal's socket.
const SOCKET_PATH: &str = "/run/systemd/journal/socket";
/// Names another socket, for tests, which cannot take the machine's. A release build does not read it: whoever
/// can set a variable for the program would lead its log elsewhere.
#[cfg(debug_assertions)]
const SOCKET_VARIABLE: &str = "PSKGATE_JOURNAL_SOCKET";
/// Device and inode of the stream that the service manager has connected (systemd.exec(5)).
const STREAM_VARIABLE: &str = "JOURNAL_STREAM";
/// Between two attempts to connect.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
/// How long the log's thread waits for a journal that does not read; then the line counts as lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// What is left of a message that fits in no datagram, in bytes: any system's socket takes it. The
/// protocol's way for such is a file in memory, but nobody reads a line of 200 kB.
const TRUNCATED_MESSAGE_SIZE: usize = 8192;

fn socket_path() -> OsString {
    #[cfg(debug_assertions)]
    if let Some(path) = std::env::var_os(SOCKET_VARIABLE) {
        return path;
    }
    SOCKET_PATH.into()
}

/// A connection to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: Option<UnixDatagram>,
    last_attempt: Instant,
    path: OsString,
    ident: String,
}

impl Journal {
    /// Connects, if standard error is the journal's; now, because after a change of root directory it
    /// could not any more.
    pub fn open(config: &LogConfig) -> Option<Self> {
        let stream = std::env::var(STREAM_VARIABLE).ok()?;
        let own = rustix::fs::fstat(rustix::stdio::stderr()).ok()?;
        if stream != format!("{}:{}", own.st_dev, own.st_ino) {
            // Somebody has led it elsewhere since.
            return None;
        }
        let path = socket_path();
        let ident = config.ident.value.clone();
        let mut journal = Self { socket: None, last_attempt: Instant::now(), path, ident };
        journal.connect();
        Some(journal)
    }

    /// The same connection under the name of a new configuration.
    pub(super) fn set_config(&mut self, config: &LogConfig) {
        self.ident.clone_from(&config.ident.value);
    }

    fn connect(&mut self) {
        self.last_attempt = Instant::now();
        let connected = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
            socket.connect(&self.path)?;
            Ok(socket)
        });
        self.socket = connected.ok();
    }

    /// Hands over a line; `fields` come from [`encode_fields`].
    ///
    /// # Errors
    /// `WouldBlock` when it does not read; anything else when it is not there, and standard error is
    /// the better way.
    pub(super) fn send(&mut self, level: u8, text: &str, fields: &[u8]) -> io::Result<()> {
        if self.socket.is_none() && self.last_attempt.elapsed() >= RECONNECT_INTERVAL {
            self.connect();
        }
        let Some(socket) = &self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        let entry = |text: &str, fields: &[u8]| {
            let mut entry = fields.to_vec();
            add_field(&mut entry, "PRIORITY", &level.to_string());
            add_field(&mut entry, "SYSLOG_IDENTIFIER", &self.ident);
            add_field(&mut entry, "MESSAGE", text);
            entry
        };
        let sent = match socket.send(&entry(text, fields)) {
            Err(error) if is_too_long(&error) => {
                let mut end = TRUNCATED_MESSAGE_SIZE.min(text.len());
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                let cut = format!("{}... ({} bytes)", &text[..end], text.len());
                let fields = if fields.len() > TRUNCATED_MESSAGE_SIZE { &[] } else { fields };
                socket.send(&entry(&cut, fields))
            }
            sent => sent,
        };
        match sent {
            Ok(_) => Ok(()),
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    self.socket = None;
                    self.last_attempt = Instant::now();
                }
                Err(error)
            }
        }
    }
}

fn is_too_long(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::ENOBUFS))
}

/// The fields of a line in the journal's form.
pub(super) fn encode_fields(
    event: &str,
    service: Option<&str>,
    session: Option<u64>,
    fields: &BTreeMap<&'static str, Value>,
) -> Vec<u8> {
    let mut entry = Vec::with_capacity(256);
    if !event.is_empty() {
        add_field(&mut entry, "PSKGATE_EVENT", event);
    }
    if let Some(service) = service {
        add_field(&mut entry, "PSKGATE_SERVICE", service);
    }
    if let Some(session) = session {
        add_field(&mut entry, "PSKGATE_SESSION", &session.to_string());
    }
    for (&name, value) in fields {
        let name = match name {
            "up" => "PSKGATE_BYTES_UP".to_owned(),
            "down" => "PSKGATE_BYTES_DOWN".to_owned(),
            name => format!("PSKGATE_{}", name.to_ascii_uppercase().replace('-', "_")),
        };
        match value {
            Value::String(text) => add_field(&mut entry, &name, text),
            other => add_field(&mut entry, &name, &other.to_string()),
        }
    }
    entry
}

/// One field. Its value has no second line, which would be another field.
fn add_field(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'=');
    entry.extend_from_slice(to_one_line(value).as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn journal() -> (Journal, UnixDatagram) {
        let (socket, heard) = UnixDatagram::pair().unwrap();
        let journal = Journal {
            socket: Some(socket),
            last_attempt: Instant::now(),
            path: "/no/such/socket".into(),
            ident: "gate".into(),
        };
        (journal, heard)
    }

    fn next(heard: &UnixDatagram) -> String {
        let mut entry = vec![0; 1 << 20];
        let length = heard.recv(&mut entry).unwrap();
        String::from_utf8_lossy(&entry[..length]).into_owned()
    }

    #[test]
    fn a_value_of_two_lines_becomes_one() {
        let fields = BTreeMap::from([
            ("cause", "a\nPRIORITY=0".into()),
            ("age-ms", 7.into()),
            ("up", 8.into()),
        ]);
        let entry = encode_fields("closed", Some("plc"), Some(3), &fields);
        let wanted = "PSKGATE_EVENT=closed\nPSKGATE_SERVICE=plc\nPSKGATE_SESSION=3\n\
                      PSKGATE_AGE_MS=7\nPSKGATE_CAUSE=a\\nPRIORITY=0\nPSKGATE_BYTES_UP=8\n";
        assert_eq!(String::from_utf8(entry).unwrap(), wanted);
    }

    #[test]
    fn what_fits_in_no_datagram_is_cut_and_its_length_said() {
        let (mut journal, heard) = journal();
        let long = "ä".repeat(1 << 20);
        journal.send(4, &long, b"PSKGATE_EVENT=finding\n").unwrap();
        let entry = next(&heard);
        assert!(entry.starts_with("PSKGATE_EVENT=finding\nPRIORITY=4\nSYSLOG_IDENTIFIER=gate\nM"));
        assert!(entry.ends_with("ä... (2097152 bytes)\n"), "{}", entry.len());
    }

    #[test]
    fn a_journal_that_is_gone_leaves_the_line_to_standard_error() {
        let (mut journal, heard) = journal();
        drop(heard);
        for _ in 0..2 {
            let error = journal.send(6, "a line", b"").unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
