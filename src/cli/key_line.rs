//! A fresh key as a line of a key file.

use std::io::{self, Write};
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use zeroize::{Zeroize, Zeroizing};

use super::refusal::Refusal;
use super::{exit, print_error};
use crate::secrets::{Fingerprint, MAX_IDENTITY_SIZE, MAX_KEY_SIZE, MIN_KEY_SIZE, edit, escape};

/// 48 random bytes are 64 characters of base64 without padding, the founding document's form.
const DEFAULT_KEY_SIZE: usize = 48;

/// What a new key looks like.
#[derive(Debug, clap::Args)]
pub(super) struct KeyFormat {
    /// Write the key in hexadecimal digits instead of base64 text. The Beremiz IDE does not decode them
    #[arg(long)]
    hex: bool,
    /// The number of random bytes
    #[arg(long, value_name = "N", default_value_t = DEFAULT_KEY_SIZE)]
    bytes: usize,
}

impl Default for KeyFormat {
    fn default() -> Self {
        Self { hex: false, bytes: DEFAULT_KEY_SIZE }
    }
}

/// A new key.
pub(super) struct KeyLine {
    /// `identity:key` and LF.
    pub(super) text: Zeroizing<String>,
    /// What can be shown of it.
    pub(super) fingerprint: Fingerprint,
}

/// Makes a key for an identity, out of the operating system's random numbers.
pub(super) fn generate_key_line(identity: &str, shape: &KeyFormat) -> Result<KeyLine, Refusal> {
    let usage = |text: String| Refusal::new(exit::USAGE, text);
    if identity.is_empty() || identity.len() > MAX_IDENTITY_SIZE {
        return Err(usage(format!("an identity is 1 to {MAX_IDENTITY_SIZE} bytes")));
    }
    if identity.contains(':') || identity.chars().any(char::is_control) {
        let shown = escape(identity.as_bytes());
        return Err(usage(format!("{shown}: an identity has no colon and no control characters")));
    }
    // What counts is the key that the file will mean: base64 text as it stands, hex decoded.
    let most = if shape.hex { MAX_KEY_SIZE } else { MAX_KEY_SIZE / 4 * 3 };
    if !(MIN_KEY_SIZE..=most).contains(&shape.bytes) {
        return Err(usage(format!("--bytes takes {MIN_KEY_SIZE} to {most} here")));
    }
    let mut key = Zeroizing::new(vec![0; shape.bytes]);
    getrandom::fill(&mut key)
        .map_err(|error| Refusal::new(exit::INTERNAL, format!("no random numbers: {error}")))?;
    let encoding = if shape.hex { HEXLOWER } else { BASE64 };
    let mut text = Zeroizing::new(String::with_capacity(identity.len() + 2 * MAX_KEY_SIZE + 2));
    text.push_str(identity);
    text.push(':');
    let mut encoded = encoding.encode(&key);
    text.push_str(&encoded);
    encoded.zeroize();
    text.push('\n');
    let fingerprint =
        edit::parse_single_line(text.trim_end().as_bytes(), Path::new(""))?.fingerprint();
    Ok(KeyLine { text, fingerprint })
}

/// The line on standard output, for whoever has a place for it.
pub(super) fn print(key: &KeyLine) -> Result<(), Refusal> {
    io::stdout()
        .write_all(key.text.as_bytes())
        .and_then(|()| io::stdout().flush())
        .map_err(|error| Refusal::new(exit::IO, format!("cannot write the key: {error}")))
}

/// Who could read a key file before an edit and cannot any more will ask why.
pub(super) fn report_tightened_mode(file: &Path, loose: Option<u32>) {
    if let Some(mode) = loose {
        print_error(&format!(
            "{} had mode {mode:04o}; nobody but its owner and its group can read it now",
            file.display()
        ));
    }
}
