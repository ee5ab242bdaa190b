//! Why a command did not do what was asked, in words and as an exit code.

use std::io;
use std::path::Path;

use super::{complain, exit};
use crate::secrets::edit::EditError;

/// One reason.
#[derive(Debug)]
pub(super) struct Refusal {
    code: u8,
    words: String,
}

impl Refusal {
    pub(super) fn new(code: u8, words: impl Into<String>) -> Self {
        Self { code, words: words.into() }
    }

    /// A file that the system kept from being written.
    pub(super) fn unwritten(path: &Path, error: &io::Error) -> Self {
        Self::new(code(error), format!("cannot write {}: {error}", path.display()))
    }

    /// What is true after it, for who wonders what was done before.
    pub(super) fn and(mut self, more: &str) -> Self {
        self.words.push_str("\n  ");
        self.words.push_str(more);
        self
    }

    /// Says it, and returns the exit code.
    pub(super) fn tell(self) -> u8 {
        complain(&format!("pskgate: {}", self.words));
        self.code
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        let code = match &error {
            EditError::Io(_, error) => code(error),
            EditError::Broken(_) | EditError::LastKey(_) => exit::CONFIG,
            EditError::Taken(..) | EditError::SharedKey(..) => exit::CANNOT_CREATE,
            EditError::Absent(_) => exit::USAGE,
        };
        Self::new(code, error.to_string())
    }
}

fn code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::PermissionDenied => exit::NO_PERMISSION,
        io::ErrorKind::WouldBlock => exit::UNAVAILABLE,
        _ => exit::CANNOT_CREATE,
    }
}
