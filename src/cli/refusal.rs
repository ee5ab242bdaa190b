//! Why a command did not do what was asked, in words and as an exit code.

use std::io;
use std::path::Path;

use super::{exit, print_error};
use crate::secrets::edit::EditError;

/// One reason.
#[derive(Debug)]
pub(super) struct Refusal {
    code: u8,
    message: String,
}

impl Refusal {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A file that the system kept from being written.
    pub(super) fn cannot_write(path: &Path, error: &io::Error) -> Self {
        Self::new(exit_code(error), format!("cannot write {}: {error}", path.display()))
    }

    /// Adds what is true afterwards, such as what was changed before the refusal.
    pub(super) fn with_note(mut self, more: &str) -> Self {
        self.message.push_str("\n  ");
        self.message.push_str(more);
        self
    }

    /// Prints the message and returns the exit code.
    pub(super) fn report(self) -> u8 {
        print_error(&format!("pskgate: {}", self.message));
        self.code
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        let code = match &error {
            EditError::Io(_, error) => exit_code(error),
            EditError::Invalid(_) | EditError::LastKey(_) => exit::CONFIG,
            EditError::IdentityExists(..) | EditError::SharedKey(..) => exit::CANNOT_CREATE,
            EditError::NoSuchIdentity(_) => exit::USAGE,
        };
        Self::new(code, error.to_string())
    }
}

fn exit_code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::PermissionDenied => exit::NO_PERMISSION,
        io::ErrorKind::WouldBlock => exit::UNAVAILABLE,
        _ => exit::CANNOT_CREATE,
    }
}
