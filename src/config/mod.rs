//! What the operator wrote, and what it means.
//!
//! Text to data: a file becomes a `ParsedFile` (what was said, every value with its place), that
//! becomes a [`model::Config`] (checked, immutable, valid by construction) or a
//! [`diagnostic::Diagnostics`] with every mistake at once. Nothing here opens a socket, knows OpenSSL or
//! needs a runtime. Besides the text itself, what is decided depends on a few things of the machine: `load.rs` reads
//! the file and asks for the current directory, `stunnel.rs` lists the folder of an `include`, `endpoint.rs` reads
//! /etc/services, and `credential.rs` takes the folder of systemd's credentials from the environment.

pub mod advice;
pub mod ciphers;
pub mod convert;
mod credential;
pub mod diagnostic;
pub mod effective;
pub mod endpoint;
#[cfg(all(unix, any(test, fuzzing)))]
pub(crate) mod fuzzing;
mod key_shape;
pub mod load;
pub mod location;
pub mod model;
pub mod options;
pub mod parsed_file;
mod redaction;
pub mod schema;
mod stunnel;
mod toml;
mod validate;
mod value;
#[cfg(any(windows, test))]
mod windows;
pub mod wire_identity_edit;

pub use stunnel::in_comments::words as words_of_comments;

pub use load::{Format, load, load_text, survey, survey_from, survey_text};
pub use value::socket_options;
