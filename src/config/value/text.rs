//! Names of files, identities, arguments and secrets: text that stays text.

use std::path::PathBuf;

use super::{ValueError, quoted};
use crate::config::credential;
use crate::config::key_shape::{looks_like_key_instead_of_file, looks_like_key_line};
use crate::config::model::{Dialect, Variable};
use crate::secrets::{Password, TicketKey};

/// What `\b`, `\t`, `\n`, `\f` and `\r` of a TOML text become, and no file's name has.
const ESCAPED: [char; 5] = ['\u{8}', '\t', '\n', '\u{c}', '\r'];

fn is_escaped(text: &str, dialect: Dialect) -> bool {
    dialect == Dialect::Native && text.contains(ESCAPED)
}

pub(super) fn path(text: &str, dialect: Dialect) -> Result<PathBuf, ValueError> {
    if is_escaped(text, dialect) {
        return Err(ValueError::new(
            "control-character",
            "the name of a file has a tab or a line's end in it",
            "in double quotes \\t is a tab and \\n a line's end: write a path of Windows as 'C:\\temp\\new.txt' \
             or \"C:/temp/new.txt\"",
        ));
    }
    if text.is_empty() || text.contains('\0') {
        return Err(ValueError::new(
            "bad-path",
            "this is not the name of a file",
            "write the name of a file",
        ));
    }
    Ok(PathBuf::from(text))
}

/// A file or a folder of keys; in a native file also a credential of systemd's.
pub(super) fn key_path(text: &str, dialect: Dialect) -> Result<PathBuf, ValueError> {
    match text.strip_prefix(credential::PREFIX) {
        _ if is_escaped(text, dialect) => {}
        Some(name) if dialect == Dialect::Native && credential::is_name(name) => {}
        Some(_) if dialect == Dialect::Native => {
            return Err(ValueError::new(
                "bad-credential",
                format!("{} names no credential", quoted(text)),
                "write credential:NAME, the name that LoadCredential= gives it",
            ));
        }
        _ if looks_like_key_instead_of_file(text) => {
            return Err(ValueError::new(
                "key-in-configuration",
                "this looks like an identity and its key, not like the name of a file",
                "put the identity:key line into a file of its own and name that file here; \
                 replace the key if others could read this file; if it is a file name, write ./ before it",
            ));
        }
        _ => {}
    }
    path(text, dialect)
}

/// Its length is OpenSSL's limit of 256 bytes with the NUL. A native identity can stand in a key file; whether it
/// may have control characters is another option's affair. stunnel's is any bytes.
pub(super) fn identity(bytes: &[u8], dialect: Dialect) -> Result<Vec<u8>, ValueError> {
    let bad = |message: String| {
        ValueError::new(
            "bad-identity",
            message,
            "write an identity of 1 to 255 bytes, without control characters or a colon",
        )
    };
    if bytes.len() > 255 {
        return Err(bad(format!("the identity has {} bytes", bytes.len())));
    }
    if std::str::from_utf8(bytes).is_ok_and(looks_like_key_line) {
        return Err(ValueError::new(
            "key-in-configuration",
            "this looks like an identity and its key",
            "write the identity alone, and put the identity:key line into a file of its own",
        ));
    }
    if bytes.contains(&b':') {
        // The key file could never hold it: there, the first colon ends the identity.
        return Err(bad("an identity holds no colon".into()));
    }
    if dialect == Dialect::Native {
        if bytes.is_empty() {
            return Err(bad("the identity is empty".into()));
        }
        if bytes.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
            return Err(bad("the identity has a NUL or a line break".into()));
        }
    }
    Ok(bytes.to_vec())
}

pub(super) fn plain(text: &str, empty: bool) -> Result<String, ValueError> {
    if text.is_empty() && !empty {
        return Err(ValueError::new(
            "empty-value",
            "the value is empty",
            "write a value, or remove the option",
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(ValueError::new(
            "control-character",
            "the value has a control character",
            "remove it",
        ));
    }
    Ok(text.into())
}

/// argv ends at a NUL, and nothing else is forbidden.
pub(super) fn argument(text: &str) -> Result<String, ValueError> {
    if text.contains('\0') {
        let help = "remove it: it would cut the argument short";
        return Err(ValueError::new("control-character", "the value has a NUL", help));
    }
    Ok(text.into())
}

/// The message repeats nothing: a variable may well hold a password.
pub(super) fn variable(text: &str) -> Result<Variable, ValueError> {
    let wrong = |message: &str, help: &str| ValueError::new("bad-variable", message, help);
    let help = "write NAME=VALUE, or NAME= to remove a variable";
    let Some((name, value)) = text.split_once('=') else {
        return Err(wrong("this is not a variable: it has no `=`", help));
    };
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(wrong("a variable's name has no blanks, and at least one letter", help));
    }
    if value.contains('\0') {
        return Err(wrong("the value has a NUL", "remove it: it would cut the value short"));
    }
    let value = (!value.is_empty()).then(|| value.to_owned());
    Ok(Variable { name: name.to_owned(), value })
}

/// The message repeats nothing of it.
pub(super) fn password(text: &str) -> Result<Password, ValueError> {
    if text.chars().any(char::is_control) {
        let message = "the password has a control character";
        return Err(ValueError::new("control-character", message, "remove it"));
    }
    Ok(Password::new(text.to_owned()))
}

/// The text is nobody's business, good or bad.
pub(super) fn ticket_key(text: &str) -> Result<TicketKey, ValueError> {
    TicketKey::from_hex(text).ok_or_else(|| {
        ValueError::new(
            "bad-ticket-key",
            "this is not a key of 16 or 32 bytes in hexadecimal digits",
            "write 32 or 64 hexadecimal digits, such as `openssl rand -hex 32` makes; or leave it out \
             for a random key",
        )
    })
}
