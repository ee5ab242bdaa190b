//! Named sets of TLS 1.2 suites that `ciphers` of a native file understands beside OpenSSL's own words.

/// The set of suites for peers that know RFC 4279 and RFC 5487 alone.
pub const RFC4279: &str = "rfc4279";

/// What [`RFC4279`] adds to the default suite, strongest first: code (IANA) and OpenSSL's name. DHE-PSK
/// stands here and not among the defaults because of RFC 10015, section 3.
pub const RFC4279_SUITES: [(u16, &str); 12] = [
    (0x00ab, "DHE-PSK-AES256-GCM-SHA384"),
    (0x00aa, "DHE-PSK-AES128-GCM-SHA256"),
    (0x00b3, "DHE-PSK-AES256-CBC-SHA384"),
    (0x00b2, "DHE-PSK-AES128-CBC-SHA256"),
    (0x0091, "DHE-PSK-AES256-CBC-SHA"),
    (0x0090, "DHE-PSK-AES128-CBC-SHA"),
    (0x00a9, "PSK-AES256-GCM-SHA384"),
    (0x00a8, "PSK-AES128-GCM-SHA256"),
    (0x00af, "PSK-AES256-CBC-SHA384"),
    (0x00ae, "PSK-AES128-CBC-SHA256"),
    (0x008d, "PSK-AES256-CBC-SHA"),
    (0x008c, "PSK-AES128-CBC-SHA"),
];

/// The default suite of a native file, which every named set keeps in front.
pub const DEFAULT_SUITE: &str = "ECDHE-PSK-CHACHA20-POLY1305";

/// Replaces the names of sets in an OpenSSL list by their suites. Everything else stays as written.
pub fn expand_named_sets(list: &str) -> String {
    let expand = |word: &str| {
        if !word.trim().eq_ignore_ascii_case(RFC4279) {
            return word.to_owned();
        }
        let suites = RFC4279_SUITES.iter().map(|(_, name)| *name);
        std::iter::once(DEFAULT_SUITE).chain(suites).collect::<Vec<_>>().join(":")
    };
    list.split(':').map(expand).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_set_stands_for_its_suites_and_hides_nothing_else() {
        let whole = expand_named_sets("rfc4279");
        assert!(whole.starts_with("ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:"));
        assert_eq!(whole.split(':').count(), 13);
        assert!(!whole.contains("NULL") && !whole.contains("RSA"));
        assert_eq!(
            expand_named_sets(&format!("PSK:{RFC4279}:!SHA1")),
            format!("PSK:{whole}:!SHA1")
        );
        assert_eq!(expand_named_sets("PSK:!kRSAPSK"), "PSK:!kRSAPSK");
    }
}
