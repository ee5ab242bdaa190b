//! A pre-shared key in memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

/// The shortest key, in bytes: 128 bits, as stunnel demands. RFC 9257, 4.2 asks for as much.
pub const MIN_KEY_SIZE: usize = 16;
/// The longest key, in bytes: `PSK_MAX_PSK_LEN` of OpenSSL 3.
pub const MAX_KEY_SIZE: usize = 512;
/// The longest identity, in bytes: `PSK_MAX_IDENTITY_LEN` of OpenSSL less its NUL.
pub const MAX_IDENTITY_SIZE: usize = 255;

/// The bytes of a key: wiped on drop, never cloned, never printed.
///
/// Wiping cannot reach what OpenSSL copies for itself (it cleanses its own copies when a handshake
/// or session object is freed), registers, or pages the kernel has swapped out.
pub struct Key(Zeroizing<Box<[u8]>>);

impl Key {
    pub(super) fn new(bytes: Zeroizing<Box<[u8]>>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the TLS library alone.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true of a key that came from a file.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in a time that depends on the lengths only.
    pub(super) fn constant_time_eq(&self, other: &Key) -> bool {
        self.len() == other.len() && openssl::memcmp::eq(&self.0, &other.0)
    }

    /// Whether these bytes are the beginning of it, and not all.
    pub(super) fn begins_with(&self, bytes: &[u8]) -> bool {
        let head = self.0.get(..bytes.len());
        bytes.len() < self.len() && head.is_some_and(|head| openssl::memcmp::eq(head, bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// A key for session tickets that stands in a configuration: wiped when the last configuration that has
/// it goes, never printed.
#[derive(Clone)]
pub struct TicketKey(Arc<Zeroizing<Vec<u8>>>);

impl TicketKey {
    /// Its sizes in bytes: those of an AES-128 or AES-256 key, as stunnel demands.
    pub const SIZES: [usize; 2] = [16, 32];

    /// Reads hexadecimal digits, with or without colons between the bytes, as stunnel does. `None` if it
    /// is no such text, or of another length.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(Self::SIZES[1]));
        let mut rest = text.as_bytes();
        while let [high, low, tail @ ..] = rest {
            let digit = |c: &u8| char::from(*c).to_digit(16).and_then(|d| u8::try_from(d).ok());
            if bytes.len() == Self::SIZES[1] {
                return None;
            }
            bytes.push(digit(high)? << 4 | digit(low)?);
            rest = match tail {
                [b':', more @ ..] if !more.is_empty() => more,
                other => other,
            };
        }
        let whole = rest.is_empty() && Self::SIZES.contains(&bytes.len());
        whole.then(|| Self(Arc::new(bytes)))
    }

    /// The bytes, for the TLS layer alone.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// As it is written in a configuration of the other dialect.
    pub(crate) fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for TicketKey {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && openssl::memcmp::eq(&self.0, &other.0)
    }
}

impl Eq for TicketKey {}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKey({} bytes)", self.len())
    }
}

/// Tells one key from another without looking at either: a key that was replaced has another serial,
/// one that a reload left alone keeps its own. Unique within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeySerial(u64);

impl KeySerial {
    pub(super) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// For the TLS library's session objects, which carry bytes.
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// The name under which a peer presents a key: 0 to 255 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<[u8]>);

impl Identity {
    /// A name; whether a key belongs to it, a [`SecretSet`](super::SecretSet) knows.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// As it travels on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whole and without quotes, for tables and for programs: what a terminal would obey is escaped.
    pub fn to_plain_text(&self) -> String {
        Escaped { bytes: &self.0, limit: usize::MAX, quoted: false }.to_string()
    }
}

impl std::borrow::Borrow<[u8]> for Identity {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.0).fmt(f)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// How many characters of a stranger's text a log line shows.
const MAX_ESCAPED_CHARACTERS: usize = 64;

/// A stranger's bytes, safe to print: control characters and invalid UTF-8 escaped, quoted, and cut
/// after 64 characters with the full length said. With `{:#}` there are no quotes, for a field that
/// holds nothing else.
pub fn escape(bytes: &[u8]) -> Escaped<'_> {
    Escaped { bytes, limit: MAX_ESCAPED_CHARACTERS, quoted: true }
}

/// See [`escape`].
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    limit: usize,
    quoted: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = f.alternate() || !self.quoted;
        let quote = if bare { "" } else { "\"" };
        let mut room = self.limit;
        f.write_str(quote)?;
        'cut: for chunk in self.bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                if room == 0 {
                    break 'cut;
                }
                room -= 1;
                if self.quoted && (c == '\\' || (c == '"' && !f.alternate())) {
                    write!(f, "\\{c}")?;
                } else if c.is_control() || is_format_character(c) {
                    write!(f, "{}", c.escape_unicode())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                if room == 0 {
                    break 'cut;
                }
                room -= 1;
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_str(quote)?;
        if room == 0 && self.bytes.len() > self.limit {
            write!(f, "... ({} bytes)", self.bytes.len())?;
        }
        Ok(())
    }
}

/// Bidirectional controls, zero-width characters and line separators: they reorder or hide what
/// stands behind them on a terminal.
fn is_format_character(c: char) -> bool {
    matches!(c, '\u{00ad}' | '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        escape(bytes).to_string()
    }

    #[test]
    fn a_strangers_bytes_cannot_steer_a_terminal() {
        assert_eq!(shown(b"client1"), "\"client1\"");
        assert_eq!(shown(b"a\x1b[31m\nb"), "\"a\\u{1b}[31m\\u{a}b\"");
        assert_eq!(shown(b"\xff\"\\"), "\"\\xff\\\"\\\\\"");
        assert_eq!(shown("a\u{202e}b".as_bytes()), "\"a\\u{202e}b\"");
        assert_eq!(shown("Zoë".as_bytes()), "\"Zoë\"");
        assert_eq!(format!("{:#}", escape(b"a\"\\\nb\xff")), "a\"\\\\\\u{a}b\\xff");
    }

    #[test]
    fn a_long_identity_is_cut_and_its_length_said() {
        let long = vec![b'x'; 60_000];
        let text = shown(&long);
        assert_eq!(text, format!("\"{}\"... (60000 bytes)", "x".repeat(64)));
        assert_eq!(shown(&long[..64]), format!("\"{}\"", "x".repeat(64)));
    }

    #[test]
    fn a_name_in_a_table_is_whole_and_steers_nothing() {
        let plain = |bytes: &[u8]| Identity::new(bytes).to_plain_text();
        assert_eq!(plain("Zoë \"1\"".as_bytes()), "Zoë \"1\"");
        assert_eq!(plain(b"a\x1b[31m\xff"), "a\\u{1b}[31m\\xff");
        assert_eq!(plain(&[b'x'; 255]).len(), 255);
    }

    #[test]
    fn a_key_does_not_print_itself() {
        let key = Key::new(Zeroizing::new(b"0123456789abcdefg".as_slice().into()));
        assert_eq!(format!("{key:?}"), "Key(17 bytes)");
    }
}
