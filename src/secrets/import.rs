//! Key files as they come from other machines: with CRLF, a byte order mark, or in UTF-16, which Windows
//! PowerShell 5 writes with `>`.

use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use super::KeyEntry;
use super::edit::{self, EditError};
use super::file::{KeyFileText, detect_utf16_order};

/// A line of a file that is to be imported.
pub struct ImportLine {
    /// From 1.
    pub number: u32,
    /// Without its end.
    pub text: Zeroizing<Vec<u8>>,
    /// What it is.
    pub entry: KeyEntry,
}

/// A file's lines that are not empty, in their order.
///
/// # Errors
/// A file that cannot be read, and every line that is none of a key file.
pub fn read_lines(path: &Path) -> Result<Vec<ImportLine>, EditError> {
    let failed = |error| EditError::Io(path.to_owned(), error);
    let text = KeyFileText::read(path).map_err(failed)?;
    let text = decode_text(&text.bytes).map_err(failed)?;
    let mut found = Vec::new();
    for (number, raw) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        // A blank at the end is a part of the key, as it is where the file is used.
        let line = raw.strip_suffix(b"\r").unwrap_or(raw);
        if line.trim_ascii().is_empty() {
            continue;
        }
        if line.starts_with(b"#") || line.starts_with(b";") {
            let error = io::Error::other(format!(
                "line {number} looks like a comment, which a key file cannot have; remove the line"
            ));
            return Err(failed(error));
        }
        let entry =
            edit::parse_single_line(line, path).map_err(|error| with_line_number(error, number))?;
        let mut text = Zeroizing::new(Vec::with_capacity(line.len()));
        text.extend_from_slice(line);
        found.push(ImportLine { number, text, entry });
    }
    Ok(found)
}

/// Puts the number of its line to what is wrong with it.
fn with_line_number(error: EditError, number: u32) -> EditError {
    match error {
        EditError::Invalid(mut problems) => {
            problems.iter_mut().for_each(|problem| problem.line = Some(number));
            EditError::Invalid(problems)
        }
        other => other,
    }
}

/// As UTF-8 without a mark. The buffer has its final size at once: a growing one would leave unwiped copies.
fn decode_text(bytes: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(bytes.len() * 3 / 2 + 4));
    let Some(is_big) = detect_utf16_order(bytes) else {
        text.extend_from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
        return Ok(text);
    };
    let units = bytes.chunks_exact(2).map(|pair| match (pair, is_big) {
        ([high, low], true) => u16::from_be_bytes([*high, *low]),
        ([low, high], false) => u16::from_le_bytes([*low, *high]),
        _ => 0,
    });
    for unit in char::decode_utf16(units) {
        let c = unit.map_err(|_| io::Error::other("it looks like UTF-16 and is none"))?;
        if c != '\u{feff}' {
            let mut buffer = Zeroizing::new([0; 4]);
            text.extend_from_slice(c.encode_utf8(&mut *buffer).as_bytes());
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_encoding_of_windows_comes_to_the_same_text() {
        let text = "cl\u{e9}ment:abc\r\n";
        let units = || text.encode_utf16();
        let little: Vec<u8> = units().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = units().flat_map(u16::to_be_bytes).collect();
        let marked = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
        for bytes in [
            text.as_bytes().to_owned(),
            marked(b"\xef\xbb\xbf", text.as_bytes()),
            little.clone(),
            marked(b"\xff\xfe", &little),
            big.clone(),
            marked(b"\xfe\xff", &big),
        ] {
            assert_eq!(decode_text(&bytes).unwrap().as_slice(), text.as_bytes());
        }
        assert!(decode_text(b"\xff\xfea\x00\x00\xd8b\x00").is_err(), "half a pair");
    }
}
