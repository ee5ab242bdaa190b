//! `keygen IDENTITY`: a key that both ends can read.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use zeroize::{Zeroize, Zeroizing};

use super::{complain, exit};
use crate::secrets::{MAX_IDENTITY, MAX_KEY, MIN_KEY, escape};

/// 48 random bytes are 64 characters of base64 without padding, the founding document's form.
const DEFAULT_BYTES: usize = 48;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name under which the key is presented
    identity: String,
    /// Write a new file with mode 0600; an existing one is never touched
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the key in hex, which tunnels decode; the Beremiz IDE does not, so the default is base64
    #[arg(long)]
    hex: bool,
    /// How many random bytes
    #[arg(long, value_name = "N", default_value_t = DEFAULT_BYTES)]
    bytes: usize,
}

pub(super) fn main(arguments: &Arguments) -> u8 {
    let line = match line(arguments) {
        Ok(line) => line,
        Err((code, complaint)) => {
            complain(&format!("pskgate: {complaint}"));
            return code;
        }
    };
    let written = match &arguments.output {
        None => io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush()),
        Some(path) => create(path, &line),
    };
    match (written, &arguments.output) {
        (Ok(()), None) => exit::OK,
        (Ok(()), Some(path)) => {
            let identity = escape(arguments.identity.as_bytes());
            complain(&format!("wrote a key for {identity} to {}", path.display()));
            exit::OK
        }
        (Err(error), None) => {
            complain(&format!("pskgate: cannot write the key: {error}"));
            exit::IO
        }
        (Err(error), Some(path)) if error.kind() == io::ErrorKind::AlreadyExists => {
            complain(&format!(
                "pskgate: {} exists already and is left as it is; name another file, or append \
                 with `pskgate keygen IDENTITY >> FILE`",
                path.display()
            ));
            exit::CANNOT_CREATE
        }
        (Err(error), Some(path)) => {
            complain(&format!("pskgate: cannot write {}: {error}", path.display()));
            exit::CANNOT_CREATE
        }
    }
}

fn line(arguments: &Arguments) -> Result<Zeroizing<String>, (u8, String)> {
    let Arguments { identity, hex, bytes, .. } = arguments;
    let usage = |text: String| (exit::USAGE, text);
    if identity.is_empty() || identity.len() > MAX_IDENTITY {
        return Err(usage(format!("an identity is 1 to {MAX_IDENTITY} bytes")));
    }
    if identity.contains(':') || identity.chars().any(char::is_control) {
        let shown = escape(identity.as_bytes());
        return Err(usage(format!("{shown}: an identity has no colon and no control characters")));
    }
    // What counts is the key that the file will mean: base64 text as it stands, hex decoded.
    let most = if *hex { MAX_KEY } else { MAX_KEY / 4 * 3 };
    if !(MIN_KEY..=most).contains(bytes) {
        return Err(usage(format!("--bytes takes {MIN_KEY} to {most} here")));
    }
    let mut key = Zeroizing::new(vec![0; *bytes]);
    getrandom::fill(&mut key)
        .map_err(|error| (exit::INTERNAL, format!("no random numbers: {error}")))?;
    let encoding = if *hex { HEXLOWER } else { BASE64 };
    let mut text = Zeroizing::new(String::with_capacity(identity.len() + 2 * MAX_KEY + 2));
    text.push_str(identity);
    text.push(':');
    let mut encoded = encoding.encode(&key);
    text.push_str(&encoded);
    encoded.zeroize();
    text.push('\n');
    Ok(text)
}

/// Creates the file with its final mode from the first moment on.
fn create(path: &Path, line: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()
}
