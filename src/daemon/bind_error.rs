//! Why an address could not be taken.

use crate::config::diagnostic::Diagnostic;

/// Why an address could not be taken.
#[derive(Debug)]
pub struct BindError {
    /// In words, at the place where the address was written.
    pub diagnostic: Diagnostic,
    /// The system's kind.
    pub kind: std::io::ErrorKind,
    /// The service that wanted it.
    pub service: String,
    /// This program itself has it, and no waiting helps.
    pub is_own: bool,
}
