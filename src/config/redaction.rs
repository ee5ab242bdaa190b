//! A configuration file's text as it may be shown: without keys, passwords and control characters.
//!
//! Hidden are the values of secret options, and what has the shape of an `identity:key` line: in
//! `psk-secrets`, on a line or in a list without an option, or as the value of an option that takes no colons.
//! Addresses, paths, URLs and comments in prose are shown.

use std::ops::Range;

use super::key_shape::{
    MIN_KEY_LENGTH, is_drive, looks_like_key_instead_of_file, looks_like_key_line,
};
use super::options::TABLE;

#[cfg(test)]
mod tests;

/// Options whose value may be a key in place of a file or a name.
const BESIDE_KEYS: [&str; 4] = ["psk-secrets", "psksecrets", "psk-identity", "pskidentity"];
/// Options whose value is a list of words with colons between them.
const LISTS_OF_WORDS: [&str; 5] = ["ciphers", "ciphersuites", "groups", "curves", "curve"];

/// Whether a character steers a terminal, or cannot be seen.
pub(super) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A file's text as it may be shown. Every character keeps its length in bytes, so that spans stay true.
pub(super) fn presentable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut end = None;
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            out.push('\n');
        }
        // In a list, whatever begins with a letter or a bracket is the next key or table.
        let is_next = line.trim_start().starts_with(|c: char| c.is_ascii_alphabetic() || c == '[');
        if end == Some("]") && is_next {
            end = None;
        }
        let secrets = match end {
            Some(mark) => {
                end = end.filter(|_| !line.trim_end().ends_with(mark));
                std::iter::once(0..line.len()).collect()
            }
            None => {
                end = secret_continues_until(line);
                secrets_in_line(line)
            }
        };
        for (at, c) in line.char_indices() {
            let hidden = secrets.iter().any(|range| range.contains(&at));
            match (c, c.len_utf8()) {
                ('\t', _) => out.push('\t'),
                _ if !hidden && !is_unprintable(c) => out.push(c),
                ('\r', _) => out.push(' '),
                (_, 1) => out.push(if hidden { '*' } else { '?' }),
                (_, 2) => out.push('\u{b7}'),
                (_, 3) => out.push('\u{fffd}'),
                (_, n) => (0..n).for_each(|_| out.push('*')),
            }
        }
    }
    out
}

/// The bytes of a line that are not shown.
fn secrets_in_line(line: &str) -> Vec<Range<usize>> {
    let mut hidden: Vec<_> = secret_value(line).into_iter().collect();
    let context = Context::of(line);
    hidden.extend(pieces(line).filter_map(|piece| key_in_piece(line, piece, context)));
    hidden
}

/// What stands behind the equals sign of a secret option, in either dialect, also as `table.key = ...` and
/// in `{ key = ... }`; to the end of the line, because what follows may be part of it.
fn secret_value(line: &str) -> Option<Range<usize>> {
    let lower = line.to_ascii_lowercase();
    let secret = TABLE.iter().filter(|row| row.opt.is_secret());
    let names =
        secret.flat_map(|row| row.stunnel.iter().copied().chain(row.native.map(|(_, key)| key)));
    let values = names.filter_map(|name| {
        let after = lower.find(&name.to_ascii_lowercase())? + name.len();
        Some(after + lower.get(after..)?.find('=')? + 1)
    });
    values.min().map(|start| start..line.len())
}

/// What ends a secret that begins in this line, if it has several.
fn secret_continues_until(line: &str) -> Option<&'static str> {
    let value = line.get(secret_value(line)?)?.trim();
    let text = ["\"\"\"", "'''"].into_iter().find(|mark| value.starts_with(mark));
    let goes_on = match text {
        Some(mark) => !value.get(mark.len()..)?.contains(mark),
        None => value.starts_with('[') && !value.ends_with(']'),
    };
    goes_on.then(|| text.unwrap_or("]"))
}

/// Which option a line belongs to, and so how likely a key is in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    /// The option names files of keys, or there is no option: a stray line, or one of a list.
    Likely,
    /// Any other option.
    Unlikely,
    /// A list of words with colons between them.
    Never,
}

impl Context {
    fn of(line: &str) -> Self {
        let Some(name) = option_name(line) else { return Self::Likely };
        let name = name.trim_matches(['"', '\'', ' ', '\t']).to_ascii_lowercase();
        // `beremiz.psk-secrets = ...`
        let name = name.rsplit('.').next().unwrap_or_default();
        if BESIDE_KEYS.contains(&name) {
            Self::Likely
        } else if LISTS_OF_WORDS.contains(&name) {
            Self::Never
        } else {
            Self::Unlikely
        }
    }
}

/// What stands before a line's equals sign. The padding of base64 is none.
fn option_name(line: &str) -> Option<&str> {
    let (name, value) = line.split_once('=')?;
    let is_padding = |c: char| matches!(c, '=' | '"' | '\'' | ',' | ']' | ' ' | '\t' | '\r');
    let is_option = !value.trim_matches(is_padding).is_empty() && !name.contains(':');
    is_option.then_some(name)
}

/// Where in a line a text may begin that is a value of its own: each text in quotes, what has none, and a
/// comment. Quotes that nobody closes end with the line.
fn pieces(line: &str) -> impl Iterator<Item = (Range<usize>, bool)> {
    let is_comment = |c: char, before: &str| {
        c == '#' && before.chars().next_back().is_none_or(char::is_whitespace)
            || c == ';' && before.trim().is_empty()
    };
    let (mut pieces, mut start, mut quote) = (Vec::new(), 0, None);
    let value = option_name(line).map_or(0, |name| name.len() + 1);
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => {
                pieces.push((start..at, false));
                (start, quote) = (at + 1, None);
            }
            Some(_) => {}
            None if matches!(c, '"' | '\'') && is_opening(line, at) => {
                pieces.push((start..at, false));
                (start, quote) = (at + 1, Some(c));
            }
            None if is_comment(c, &line[..at]) => {
                pieces.push((start..at, false));
                pieces.push((at + 1..line.len(), true));
                start = line.len();
                break;
            }
            None if at + 1 == value => {
                pieces.push((start..at, false));
                start = at + 1;
            }
            None => {}
        }
    }
    pieces.push((start..line.len(), false));
    pieces.into_iter()
}

/// Whether a quote begins a text: in `id:it's-a-key` it is a part of one.
fn is_opening(line: &str, at: usize) -> bool {
    let before = line.get(..at).unwrap_or_default().trim_end();
    before.is_empty() || before.ends_with(['=', '[', ',', '{', '(', '"', '\''])
}

/// The bytes of a piece that are a key.
fn key_in_piece(
    line: &str,
    (range, is_comment): (Range<usize>, bool),
    context: Context,
) -> Option<Range<usize>> {
    let piece = line.get(range.clone())?;
    let text = piece.trim().trim_end_matches(',');
    let has_key = if is_address(text) {
        false
    } else if is_comment {
        // One that was commented out. Prose has blanks.
        looks_like_key_line(text) && !text.contains(char::is_whitespace)
    } else {
        match context {
            Context::Never => false,
            Context::Unlikely => looks_like_key_line(text),
            Context::Likely => looks_like_key_instead_of_file(text),
        }
    };
    let colon = range.start + piece.find(':')? + 1;
    let end = range.start + piece.trim_end().trim_end_matches([',', ']']).len();
    has_key.then_some(colon..end).filter(|key| key.len() >= MIN_KEY_LENGTH)
}

/// An address, a URL or a path, which may all have a colon and much behind it.
fn is_address(text: &str) -> bool {
    let is_path_or_url = text.split_once(':').is_some_and(|(before, after)| {
        is_drive(before, after)
            || after.starts_with("//")
            || before == "unix" && after.starts_with('/')
    });
    is_path_or_url || text.starts_with('[')
}
