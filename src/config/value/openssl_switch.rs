//! OpenSSL's switches, by the names that a stunnel.conf has for them.

use super::{ValueError, shown};
use crate::config::options::nearest;

/// OpenSSL's switches, SSL_CTX_set_options(3), without `SSL_OP_`.
pub(super) const SSL_OPTIONS: &[&str] = &[
    "ECH_GREASE",
    "ECH_GREASE_RETRY_CONFIG",
    "ECH_IGNORE_CID",
    "ECH_TRIALDECRYPT",
    "ENABLE_KTLS_TX_ZEROCOPY_SENDFILE",
    "LEGACY_EC_POINT_FORMATS",
    "NO_RX_CERTIFICATE_COMPRESSION",
    "NO_TX_CERTIFICATE_COMPRESSION",
    "SERVER_PREFERENCE",
    "ALL",
    "ALLOW_CLIENT_RENEGOTIATION",
    "ALLOW_NO_DHE_KEX",
    "ALLOW_UNSAFE_LEGACY_RENEGOTIATION",
    "CIPHER_SERVER_PREFERENCE",
    "CISCO_ANYCONNECT",
    "CLEANSE_PLAINTEXT",
    "COOKIE_EXCHANGE",
    "CRYPTOPRO_TLSEXT_BUG",
    "DISABLE_TLSEXT_CA_NAMES",
    "DONT_INSERT_EMPTY_FRAGMENTS",
    "ENABLE_KTLS",
    "ENABLE_MIDDLEBOX_COMPAT",
    "EPHEMERAL_RSA",
    "IGNORE_UNEXPECTED_EOF",
    "LEGACY_SERVER_CONNECT",
    "MICROSOFT_BIG_SSLV3_BUFFER",
    "MICROSOFT_SESS_ID_BUG",
    "MSIE_SSLV2_RSA_PADDING",
    "NETSCAPE_CA_DN_BUG",
    "NETSCAPE_CHALLENGE_BUG",
    "NETSCAPE_DEMO_CIPHER_CHANGE_BUG",
    "NETSCAPE_REUSE_CIPHER_CHANGE_BUG",
    "NO_ANTI_REPLAY",
    "NO_COMPRESSION",
    "NO_DTLS_MASK",
    "NO_DTLSv1",
    "NO_DTLSv1_2",
    "NO_ENCRYPT_THEN_MAC",
    "NO_EXTENDED_MASTER_SECRET",
    "NO_QUERY_MTU",
    "NO_RENEGOTIATION",
    "NO_SESSION_RESUMPTION_ON_RENEGOTIATION",
    "NO_SSL_MASK",
    "NO_SSLv2",
    "NO_SSLv3",
    "NO_TICKET",
    "NO_TLSv1",
    "NO_TLSv1_1",
    "NO_TLSv1_2",
    "NO_TLSv1_3",
    "PKCS1_CHECK_1",
    "PKCS1_CHECK_2",
    "PREFER_NO_DHE_KEX",
    "PRIORITIZE_CHACHA",
    "SAFARI_ECDHE_ECDSA_BUG",
    "SINGLE_DH_USE",
    "SINGLE_ECDH_USE",
    "SSLEAY_080_CLIENT_DH_BUG",
    "SSLREF2_REUSE_CERT_TYPE_BUG",
    "TLSEXT_PADDING",
    "TLS_BLOCK_PADDING_BUG",
    "TLS_D5_BUG",
    "TLS_ROLLBACK_BUG",
];

/// The switches of OCSP that stunnel knows.
pub(super) const OCSP_FLAGS: &[&str] = &[
    "NOCERTS",
    "NOINTERN",
    "NOSIGS",
    "NOCHAIN",
    "NOVERIFY",
    "NOEXPLICIT",
    "NOCASIGN",
    "NODELEGATED",
    "NOCHECKS",
    "TRUSTOTHER",
    "RESPID_KEY",
    "NOTIME",
];

pub(super) fn ssl_option(text: &str) -> Result<String, ValueError> {
    let name = text.strip_prefix('-').unwrap_or(text);
    if SSL_OPTIONS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        Ok(text.into())
    } else {
        let help = match nearest(name, SSL_OPTIONS.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "SSL_CTX_set_options(3) has them, each without SSL_OP_".into(),
        };
        Err(ValueError::new("unknown-value", format!("there is no switch `{}`", shown(name)), help))
    }
}
