//! Windows' event log: where a service says what would otherwise stand on standard error.

use std::ffi::OsStr;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::ptr::{null, null_mut};

use windows_registry::LOCAL_MACHINE;
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::EventLog::{
    DeregisterEventSource, EVENTLOG_ERROR_TYPE, EVENTLOG_INFORMATION_TYPE, EVENTLOG_WARNING_TYPE,
    RegisterEventSourceW, ReportEventW,
};

/// Under which name programs are known to the log of applications.
const SOURCES_KEY: &str = r"SYSTEM\CurrentControlSet\Services\EventLog\Application";
/// Every Windows has it, and its messages 1 to 1000 are the text that comes with them.
const MESSAGE_FILE: &str = r"%SystemRoot%\System32\EventCreate.exe";
/// Our one message.
const MESSAGE_ID: u32 = 1;
/// What ReportEventW takes, in 16-bit units; cut there, a line still says what it is about.
const MAX_TEXT_UNITS: usize = 31_000;

/// The log, open under a name.
#[derive(Debug)]
pub struct EventLog(HANDLE);

// SAFETY: the handle belongs to the process, not to a thread, and the system serialises its use.
unsafe impl Send for EventLog {}

impl EventLog {
    /// Opens the log under this name.
    ///
    /// # Errors
    /// The system's.
    pub fn open(source: &OsStr) -> io::Result<Self> {
        let source = to_utf16(source);
        // SAFETY: the name ends in NUL and is only read; null is this machine.
        let handle = unsafe { RegisterEventSourceW(null(), source.as_ptr()) };
        if handle.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self(handle)) }
    }

    /// Writes a text; `level` is syslog's (RFC 5424, 6.2.1).
    ///
    /// # Errors
    /// The system's; a log that is full, say.
    pub fn write(&self, level: u8, text: &str) -> io::Result<()> {
        let kind = match level {
            0..=3 => EVENTLOG_ERROR_TYPE,
            4 => EVENTLOG_WARNING_TYPE,
            _ => EVENTLOG_INFORMATION_TYPE,
        };
        let mut text: Vec<u16> = text.encode_utf16().filter(|unit| *unit != 0).collect();
        text.truncate(MAX_TEXT_UNITS);
        text.push(0);
        let texts = [text.as_ptr()];
        // SAFETY: the handle is open as long as the borrow; one text is announced, which ends in NUL.
        let done = unsafe {
            ReportEventW(self.0, kind, 0, MESSAGE_ID, null_mut(), 1, 0, texts.as_ptr(), null())
        };
        if done != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, and closed here alone.
        unsafe { DeregisterEventSource(self.0) };
    }
}

fn to_utf16(text: &OsStr) -> Vec<u16> {
    text.encode_wide().filter(|unit| *unit != 0).chain([0]).collect()
}

/// Has the event viewer show this name's texts as they are.
///
/// # Errors
/// The system's; only administrators may.
pub fn install(source: &str) -> io::Result<()> {
    let key = LOCAL_MACHINE.create(format!(r"{SOURCES_KEY}\{source}")).map_err(to_io_error)?;
    key.set_expand_string("EventMessageFile", MESSAGE_FILE).map_err(to_io_error)?;
    key.set_u32("TypesSupported", 7).map_err(to_io_error)
}

/// Takes that back.
///
/// # Errors
/// The system's.
pub fn uninstall(source: &str) -> io::Result<()> {
    LOCAL_MACHINE.remove_tree(format!(r"{SOURCES_KEY}\{source}")).map_err(to_io_error)
}

fn to_io_error(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}
