//! What the two ends of a handshake offer and accept, in words, for handshakes in which it does not meet.

use std::fmt;

use openssl::ssl::{SslRef, SslVersion};

use crate::sys::openssl as sys;

/// Suites named in a message; of more, the number is told.
const MAX_NAMED_SUITES: usize = 3;
/// Suites of TLS 1.3 (RFC 9846, B.4) have codes that begin with this byte.
const TLS_1_3_SUITES: u8 = 0x13;

/// Whether a suite's key exchange is the PSK and nothing but, by its OpenSSL name. RSA-PSK needs a
/// certificate besides; NULL suites hide nothing.
pub(super) fn is_psk(name: &str) -> bool {
    name.contains("PSK") && !name.contains("RSA-PSK") && !name.contains("NULL")
}

/// A range of TLS versions, which displays as `TLS 1.2 to 1.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// On the wire: 0x0301 is TLS 1.0.
    min: u16,
    max: u16,
}

impl Versions {
    /// What a ClientHello offers: the list in `supported_versions`, or else all up to the version in its
    /// head (RFC 9846, 4.3.1).
    pub(super) fn of_client(list: Option<&[u8]>, legacy: Option<SslVersion>) -> Option<Self> {
        let Some(list) = list else {
            let max = match legacy? {
                SslVersion::SSL3 => 0x0300,
                SslVersion::TLS1 => 0x0301,
                SslVersion::TLS1_1 => 0x0302,
                _ => 0x0303,
            };
            return Some(Self { min: max, max });
        };
        let (_, versions) = list.split_first()?;
        let known = versions
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .filter(|version| (0x0300..=0x0304).contains(version));
        let (min, max) = known.fold((u16::MAX, 0), |(min, max), v| (min.min(v), max.max(v)));
        (max > 0).then_some(Self { min, max })
    }
}

impl From<(SslVersion, SslVersion)> for Versions {
    /// A range that a context is set to.
    fn from((min, max): (SslVersion, SslVersion)) -> Self {
        let code = |version: SslVersion| match version {
            SslVersion::TLS1 => 0x0301,
            SslVersion::TLS1_1 => 0x0302,
            SslVersion::TLS1_2 => 0x0303,
            _ => 0x0304,
        };
        Self { min: code(min), max: code(max) }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |version: u16| match version {
            0x0300 => "SSL 3.0",
            0x0301 => "1.0",
            0x0302 => "1.1",
            0x0303 => "1.2",
            _ => "1.3",
        };
        let protocol = if self.min == 0x0300 { "" } else { "TLS " };
        match self.min == self.max {
            true => write!(f, "{protocol}{}", name(self.min)),
            false => write!(f, "{protocol}{} to {}", name(self.min), name(self.max)),
        }
    }
}

/// The suites of a ClientHello that could carry a key in the version of this handshake, and those that this
/// end accepts in it.
pub(super) fn suites(ssl: &SslRef, offered: &[u8]) -> (String, String) {
    let tls13 = sys::is_tls13(ssl);
    let of_version: Vec<u8> = offered
        .chunks_exact(2)
        .filter(|code| (code[0] == TLS_1_3_SUITES) == tls13)
        .flatten()
        .copied()
        .collect();
    let lists = ssl.bytes_to_cipher_list(&of_version, false);
    let theirs = lists.iter().flat_map(|lists| lists.suites.iter()).map(|suite| suite.name());
    let ours = sys::context_suites(ssl.ssl_context()).into_iter().map(|suite| suite.name());
    let is_ours = |name: &&str| name.starts_with("TLS_") == tls13 && (tls13 || is_psk(name));
    (named(theirs.filter(|name| tls13 || is_psk(name))), named(ours.filter(is_ours)))
}

fn named<'a>(suites: impl Iterator<Item = &'a str>) -> String {
    let suites: Vec<_> = suites.collect();
    let (first, rest) = suites.split_at(suites.len().min(MAX_NAMED_SUITES));
    match (first.is_empty(), rest.len()) {
        (true, _) => "none with a pre-shared key".to_owned(),
        (false, 0) => first.join(", "),
        (false, more) => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_list_or_the_one_in_the_head() {
        let shown = |list: Option<&[u8]>, legacy| {
            Versions::of_client(list, legacy).map(|versions| versions.to_string())
        };
        // With values of GREASE (RFC 8701).
        let list = [6, 0x0a, 0x0a, 3, 4, 3, 3];
        assert_eq!(shown(Some(&list), Some(SslVersion::TLS1_2)).as_deref(), Some("TLS 1.2 to 1.3"));
        assert_eq!(shown(Some(&[2, 3, 4]), None).as_deref(), Some("TLS 1.3"));
        assert_eq!(shown(None, Some(SslVersion::TLS1_1)).as_deref(), Some("TLS 1.1"));
        assert_eq!(shown(None, Some(SslVersion::SSL3)).as_deref(), Some("SSL 3.0"));
        assert_eq!(shown(Some(&[2, 0x7f, 0x1c]), None), None);
        assert_eq!(shown(Some(&[]), None), None);
    }

    #[test]
    fn a_long_list_of_suites_is_cut_and_its_length_told() {
        assert_eq!(named(["A", "B", "C"].into_iter()), "A, B, C");
        assert_eq!(named(["A", "B", "C", "D", "E"].into_iter()), "A, B, C and 2 more");
        assert_eq!(named(std::iter::empty()), "none with a pre-shared key");
    }

    #[test]
    fn only_suites_whose_key_exchange_is_the_psk_count() {
        assert!(is_psk("ECDHE-PSK-CHACHA20-POLY1305"));
        assert!(is_psk("PSK-AES256-GCM-SHA384"));
        for no in ["RSA-PSK-AES256-GCM-SHA384", "PSK-NULL-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"] {
            assert!(!is_psk(no), "{no}");
        }
    }
}
