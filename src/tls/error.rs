//! Why a handshake failed, in words.

use std::fmt;
use std::io;
use std::time::Duration;

use openssl::ssl::{self, ErrorCode, SslRef};

use super::client_hello::OfferRejection;
use super::offers::{self, Versions};
use super::psk::Handshake;
use crate::config::model::PskHash;
use crate::observe::event::OpensslError;
use crate::secrets::{Escaped, escape};
use crate::sys::openssl::is_tls13;

/// The cause of a failed handshake, as the operator of this end should hear it.
#[derive(Debug)]
pub enum RefusalCause {
    /// Server end: nobody of that name is in the key files.
    UnknownIdentity(Vec<u8>),
    /// Server end: the identity is not taken from this address, and was answered as an unknown one.
    NotFromHere(Vec<u8>),
    /// Server end: the time of its key is over, and it was answered as an unknown one.
    Expired(Vec<u8>),
    /// Server end: the client has a ticket of this identity, and it is too old or the key for which it was
    /// given is not taken any more. It was answered as an unknown identity.
    StaleTicket(Vec<u8>),
    /// Server end: the name is known, the key is another.
    WrongKey(Vec<u8>),
    /// Server end: a TLS client that knows no key.
    NoPsk,
    /// Server end: it offered keys, but no suite that this end accepts.
    NoCommonSuite {
        /// The strongest suite of RFC 4279 and 5487 among those that it offered for TLS 1.2.
        offered: Option<&'static str>,
        /// The line of this end's configuration that accepts it.
        cure: Option<&'static str>,
        /// The suites that the client offers in the version that was chosen.
        theirs: String,
        /// The suites that this end accepts in it.
        ours: String,
    },
    /// Server end: the keys that it offered in 1.3 have another hash than this end's, which is this one.
    OtherHash(PskHash),
    /// Server end: it offered so many keys in 1.3 that none was looked at.
    TooManyOffers(usize),
    /// Server end: it would do without (EC)DHE in 1.3.
    NoForwardSecrecy,
    /// Either end: the peers' version ranges do not meet.
    NoCommonVersion {
        /// What the client offered; none at a client end, to which a server does not say its own.
        client: Option<Versions>,
        /// What this end is set to.
        ours: Option<Versions>,
    },
    /// Either end: no group that both know.
    NoCommonGroup,
    /// Server end: HTTP, SSH, or whatever else is not TLS.
    PlainText,
    /// Client end: what answers there does not speak TLS.
    NotTls,
    /// Client end: what answers there speaks TLS as a client does.
    NoServer,
    /// The connection ended in mid-handshake.
    ClosedEarly,
    /// The peer said no, and this is the alert it gave.
    Alert(&'static str),
    /// Client end: the server refused the identity. TLS does not say whether it is the name or the
    /// key, so that strangers cannot try names.
    Refused {
        /// What was presented.
        identity: Vec<u8>,
        /// The alert.
        alert: &'static str,
    },
    /// Client end: the server has the name but not the key, or is somebody else.
    ServerKeyDiffers(Vec<u8>),
    /// The peer finished a handshake, or tried to, in which the key played no part.
    NotProven,
    /// The time was up.
    Timeout(Duration),
    /// The socket failed.
    Io(io::Error),
    /// Anything else that OpenSSL complains of.
    Protocol(String),
}

impl RefusalCause {
    /// A stable name for counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UnknownIdentity(_) => "unknown-identity",
            Self::NotFromHere(_) => "not-allowed-from",
            Self::Expired(_) => "expired",
            Self::StaleTicket(_) => "stale-ticket",
            Self::WrongKey(_) | Self::ServerKeyDiffers(_) => "wrong-key",
            Self::NoPsk => "no-psk",
            Self::NoCommonSuite { .. } => "no-common-suite",
            Self::OtherHash(_) => "other-hash",
            Self::TooManyOffers(_) => "too-many-offers",
            Self::NoForwardSecrecy => "psk-ke-only",
            Self::NoCommonVersion { .. } => "no-common-version",
            Self::NoCommonGroup => "no-common-group",
            Self::PlainText | Self::NotTls | Self::NoServer => "plain-text",
            Self::ClosedEarly => "closed-early",
            Self::Alert(_) => "alert",
            Self::Refused { .. } => "refused",
            Self::NotProven => "not-proven",
            Self::Timeout(_) => "timeout",
            Self::Io(_) => "io",
            Self::Protocol(_) => "protocol",
        }
    }

    /// The identity that was claimed or presented, where the cause is about one.
    pub fn identity(&self) -> Option<Escaped<'_>> {
        self.claimed().map(escape)
    }

    /// The same in the peer's own bytes.
    pub fn claimed(&self) -> Option<&[u8]> {
        match self {
            Self::UnknownIdentity(identity)
            | Self::NotFromHere(identity)
            | Self::Expired(identity)
            | Self::StaleTicket(identity)
            | Self::WrongKey(identity)
            | Self::ServerKeyDiffers(identity)
            | Self::Refused { identity, .. } => Some(identity),
            _ => None,
        }
    }
}

impl RefusalCause {
    /// OpenSSL's error, by which people and programs know the cause: the one that it reported, but where an
    /// identity was answered with a decoy. That hides from a client whether the identity is known, and not
    /// from this end's log: there stands what OpenSSL reports of an unknown identity.
    pub fn openssl_error(&self, said: Option<OpensslError>, tls13: bool) -> Option<OpensslError> {
        match self {
            Self::UnknownIdentity(_)
            | Self::NotFromHere(_)
            | Self::Expired(_)
            | Self::StaleTicket(_)
            | Self::TooManyOffers(_) => Some(if tls13 {
                ssl_error(
                    reason::NO_SUITABLE_SIGNATURE_ALGORITHM,
                    "no suitable signature algorithm",
                )
            } else {
                ssl_error(reason::PSK_IDENTITY_NOT_FOUND, "psk identity not found")
            }),
            Self::ClosedEarly => {
                said.or(Some(ssl_error(reason::UNEXPECTED_EOF, "unexpected eof while reading")))
            }
            _ => said,
        }
    }

    /// The words of causes that are not about what was offered.
    fn fmt_conversation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlainText => f.write_str(
                "plain text on a TLS port: the client must connect to the client end of the tunnel \
                 (mode = \"client\"), not to a server end",
            ),
            Self::NotTls => f.write_str(
                "the program there does not speak TLS: `connect` must lead to the server end of \
                 the tunnel (mode = \"server\")",
            ),
            Self::NoServer => f.write_str(
                "another client end or an echo service answers there: `connect` must lead to the \
                 server end of the tunnel (mode = \"server\")",
            ),
            Self::ClosedEarly => f.write_str(
                "the other end closed the connection during the handshake; its log may have the \
                 reason",
            ),
            Self::Alert(alert) => write!(
                f,
                "the other end refused the handshake with the TLS alert \"{alert}\"; its log may \
                 have the reason"
            ),
            Self::Refused { identity, alert } => write!(
                f,
                "the server refused identity {}: it does not know it, or has another key for it{} \
                 (TLS alert \"{alert}\"); its log says which",
                escape(identity),
                // No other alert of the kind is given for what comes before the key is looked at.
                if *alert == "handshake failure" { ", or no suite or hash in common" } else { "" }
            ),
            Self::ServerKeyDiffers(identity) => write!(
                f,
                "the server has another key for identity {}: compare its line in the key files of \
                 both ends",
                escape(identity)
            ),
            Self::NotProven => f.write_str(
                "the other end did not prove that it has the key: it is configured for \
                 certificates, or is another program",
            ),
            Self::Timeout(limit) => {
                write!(f, "the handshake was not done within {limit:?} (handshake-timeout)")
            }
            Self::Io(error) => write!(f, "the connection failed: {error}"),
            Self::Protocol(reasons) => {
                write!(f, "OpenSSL refused what the other end sent: {reasons}")
            }
            // Said by `fmt`.
            Self::UnknownIdentity(_)
            | Self::NotFromHere(_)
            | Self::Expired(_)
            | Self::StaleTicket(_)
            | Self::WrongKey(_)
            | Self::NoPsk
            | Self::NoCommonSuite { .. }
            | Self::OtherHash(_)
            | Self::TooManyOffers(_)
            | Self::NoForwardSecrecy
            | Self::NoCommonVersion { .. }
            | Self::NoCommonGroup => Ok(()),
        }
    }
}

impl fmt::Display for RefusalCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIdentity(identity) => write!(
                f,
                "unknown identity {}: no key file of this service has it",
                escape(identity)
            ),
            Self::NotFromHere(identity) => write!(
                f,
                "identity {} is not allowed from this address (allow-from)",
                escape(identity)
            ),
            Self::Expired(identity) => write!(
                f,
                "the key of identity {} has expired: rotate it, or change `expires`",
                escape(identity)
            ),
            Self::StaleTicket(identity) => write!(
                f,
                "the client resumed a session of identity {} that is too old, or whose key was \
                 removed or changed",
                escape(identity)
            ),
            Self::WrongKey(identity) => write!(
                f,
                "wrong key for identity {}: compare its line in the key files of both ends",
                escape(identity)
            ),
            Self::NoPsk => f.write_str(
                "the client offered no pre-shared key: it has no key for its identity, is configured \
                 for certificates, or is a scanner",
            ),
            Self::NoCommonSuite { offered, cure, theirs, ours } => {
                write!(
                    f,
                    "no cipher suite in common: the client offers {theirs}; this service accepts \
                     {ours}"
                )?;
                let Some((offered, cure)) = offered.zip(*cure) else { return Ok(()) };
                write!(f, "; `{cure}` in this service accepts {offered}")
            }
            Self::OtherHash(ours) => write!(
                f,
                "no key of the client is for the hash of this end in TLS 1.3, {}: set \
                 tls13-psk-hash alike at both ends",
                ours.name()
            ),
            Self::TooManyOffers(count) => {
                write!(f, "the client offered {count} keys at once; at most 8 are accepted")
            }
            Self::NoForwardSecrecy => f.write_str(
                "the client offered its key without a Diffie-Hellman exchange (psk_ke): have it \
                 use psk_dhe_ke",
            ),
            Self::NoCommonVersion { client, ours } => {
                f.write_str("no TLS version in common")?;
                match (client, ours) {
                    (Some(client), Some(ours)) => write!(
                        f,
                        ": the client offers {client}, this service accepts {ours} (tls-min, \
                         tls-max)"
                    ),
                    (None, Some(ours)) => write!(
                        f,
                        ": this end offers {ours} (tls-min, tls-max), the server accepts none of it"
                    ),
                    (_, None) => Ok(()),
                }
            }
            Self::NoCommonGroup => {
                f.write_str("no key exchange group in common: compare `groups` of both ends")
            }
            other => other.fmt_conversation(f),
        }
    }
}

/// `SSL_R_*` of <openssl/sslerr.h>; a received alert n is reason 1000 + n.
mod reason {
    pub(super) const NO_SUITABLE_KEY_SHARE: i32 = 101;
    pub(super) const WRONG_SSL_VERSION: i32 = 266;
    pub(super) const NO_SUITABLE_GROUPS: i32 = 295;
    pub(super) const NO_SUITABLE_SIGNATURE_ALGORITHM: i32 = 118;
    pub(super) const CERTIFICATE_VERIFY_FAILED: i32 = 134;
    pub(super) const DIGEST_CHECK_FAILED: i32 = 149;
    pub(super) const HTTPS_PROXY_REQUEST: i32 = 155;
    pub(super) const HTTP_REQUEST: i32 = 156;
    pub(super) const NO_SHARED_CIPHER: i32 = 193;
    pub(super) const PSK_IDENTITY_NOT_FOUND: i32 = 223;
    pub(super) const UNKNOWN_PROTOCOL: i32 = 252;
    pub(super) const BINDER_DOES_NOT_VERIFY: i32 = 253;
    pub(super) const UNSUPPORTED_PROTOCOL: i32 = 258;
    pub(super) const WRONG_VERSION_NUMBER: i32 = 267;
    pub(super) const DECRYPTION_FAILED_OR_BAD_RECORD_MAC: i32 = 281;
    pub(super) const UNEXPECTED_EOF: i32 = 294;
    pub(super) const UNEXPECTED_MESSAGE: i32 = 244;
    pub(super) const VERSION_TOO_LOW: i32 = 396;
    pub(super) const ALERT: i32 = 1000;
    pub(super) const PACKET_LENGTH_TOO_LONG: i32 = 198;
    pub(super) const BAD_PACKET_LENGTH: i32 = 115;
}

/// The alert of a reason above 1000 (RFC 8446, 6).
fn alert(reason: i32) -> Option<(i32, &'static str)> {
    let code = reason.checked_sub(reason::ALERT).filter(|code| (0..256).contains(code))?;
    let name = match code {
        0 => "close notify",
        10 => "unexpected message",
        20 => "bad record mac",
        21 => "decryption failed",
        22 => "record overflow",
        40 => "handshake failure",
        42 => "bad certificate",
        46 => "certificate unknown",
        47 => "illegal parameter",
        48 => "unknown ca",
        49 => "access denied",
        50 => "decode error",
        51 => "decrypt error",
        70 => "protocol version",
        71 => "insufficient security",
        80 => "internal error",
        86 => "inappropriate fallback",
        90 => "user canceled",
        109 => "missing extension",
        110 => "unsupported extension",
        112 => "unrecognized name",
        115 => "unknown psk identity",
        116 => "certificate required",
        120 => "no application protocol",
        _ => "of an unknown kind",
    };
    Some((code, name))
}

/// Whether an error of a read or write means that the peer left without close_notify.
pub(super) fn is_unexpected_eof(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
        || error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<ssl::Error>())
            .and_then(ssl::Error::ssl_error)
            .is_some_and(|stack| {
                stack.errors().iter().any(|e| e.reason_code() == reason::UNEXPECTED_EOF)
            })
}

/// Whether an error of a read or write is one of TLS, after which the session may not be resumed (RFC 5246,
/// 7.2.2).
pub(super) fn is_fatal(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<ssl::Error>());
    tls.is_some_and(|error| error.code() == ErrorCode::SSL)
}

/// What a TLS error of an open session says, without OpenSSL's file names and function codes.
pub(super) fn plain(error: io::Error) -> io::Error {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<ssl::Error>()) else {
        return error;
    };
    io::Error::new(io::ErrorKind::InvalidData, words(inner))
}

/// The first error that OpenSSL reported.
pub(super) fn reported(error: &ssl::Error) -> Option<OpensslError> {
    error.ssl_error()?.errors().iter().find_map(|error| {
        // Numbers have 32 bits, whatever the width of the C type.
        let code = u32::try_from(error.code()).ok()?;
        Some(OpensslError { code, library: error.library()?, reason: error.reason()? })
    })
}

/// An error of OpenSSL's TLS library, which it did not report here.
fn ssl_error(reason: i32, words: &'static str) -> OpensslError {
    /// `ERR_LIB_SSL`, above the 23 bits of a reason.
    const ERR_LIB_SSL: u32 = 20 << 23;
    let code = ERR_LIB_SSL | reason.unsigned_abs();
    OpensslError { code, library: "SSL routines", reason: words }
}

fn words(error: &ssl::Error) -> String {
    let words: Vec<_> = error
        .ssl_error()
        .map(|stack| {
            stack
                .errors()
                .iter()
                .map(|e| match alert(e.reason_code()) {
                    Some((_, name)) => format!("the peer sent the alert \"{name}\""),
                    None => e.reason().unwrap_or("an unnamed TLS error").to_owned(),
                })
                .collect()
        })
        .unwrap_or_default();
    if words.is_empty() { format!("TLS error {:?}", error.code()) } else { words.join("; ") }
}

fn reasons(error: &ssl::Error) -> Vec<i32> {
    error
        .ssl_error()
        .map(|stack| stack.errors().iter().map(|e| e.reason_code()).collect())
        .unwrap_or_default()
}

fn left(error: ssl::Error, reasons: &[i32]) -> Option<RefusalCause> {
    let eof = error.code() == ErrorCode::ZERO_RETURN
        || reasons.contains(&reason::UNEXPECTED_EOF)
        || (error.code() == ErrorCode::SYSCALL && error.io_error().is_none());
    if eof {
        return Some(RefusalCause::ClosedEarly);
    }
    let io = error.into_io_error().ok()?;
    Some(match io.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => RefusalCause::ClosedEarly,
        _ => RefusalCause::Io(io),
    })
}

/// At a server end. What the client offered decides the words; OpenSSL's own reason, which is the
/// same "no suitable signature algorithm" for four different causes, comes second.
pub(super) fn of_client(error: ssl::Error, ssl: &SslRef) -> RefusalCause {
    use reason::*;
    let seen = Handshake::seen(ssl);
    let reasons = reasons(&error);
    let any = |wanted: &[i32]| reasons.iter().any(|reason| wanted.contains(reason));
    let key_failed =
        any(&[BINDER_DOES_NOT_VERIFY, DECRYPTION_FAILED_OR_BAD_RECORD_MAC, DIGEST_CHECK_FAILED])
            || reasons.iter().any(|r| matches!(alert(*r), Some((20 | 47 | 51, _))));
    if let Some(count) = seen.and_then(|seen| seen.too_many).filter(|_| is_tls13(ssl)) {
        return RefusalCause::TooManyOffers(count);
    }
    if let Some(who) = seen.and_then(|seen| seen.stale.as_ref()) {
        return RefusalCause::StaleTicket(who.as_bytes().to_vec());
    }
    match seen.and_then(|seen| seen.identity()) {
        Some((identity, false)) => return RefusalCause::UnknownIdentity(identity.to_vec()),
        Some((identity, true)) if key_failed => return RefusalCause::WrongKey(identity.to_vec()),
        _ => {}
    }
    if any(&[HTTP_REQUEST, HTTPS_PROXY_REQUEST])
        || (!seen.is_some_and(|seen| seen.hello)
            && any(&[
                WRONG_VERSION_NUMBER,
                UNKNOWN_PROTOCOL,
                PACKET_LENGTH_TOO_LONG,
                BAD_PACKET_LENGTH,
            ]))
    {
        return RefusalCause::PlainText;
    }
    if any(&[UNSUPPORTED_PROTOCOL, VERSION_TOO_LOW, WRONG_SSL_VERSION, UNKNOWN_PROTOCOL]) {
        let client = seen.and_then(|seen| seen.versions);
        return RefusalCause::NoCommonVersion { client, ours: Handshake::versions(ssl) };
    }
    if any(&[NO_SHARED_CIPHER, NO_SUITABLE_SIGNATURE_ALGORITHM]) {
        // A client of 1.2 or less can offer keys for 1.3 as well, and they did not matter.
        match seen.and_then(|seen| seen.unfit).filter(|_| is_tls13(ssl)) {
            Some(OfferRejection::Hash(ours)) => return RefusalCause::OtherHash(ours),
            Some(OfferRejection::Mode) => return RefusalCause::NoForwardSecrecy,
            Some(OfferRejection::Missing) => return RefusalCause::NoPsk,
            None => {}
        }
        let offered = seen.is_some_and(|seen| seen.offered);
        let rfc4279 = seen.and_then(|seen| seen.rfc4279_suite).filter(|_| !is_tls13(ssl));
        return match offered {
            true => {
                let suites = seen.map(|seen| &*seen.suites).unwrap_or_default();
                let (theirs, ours) = offers::suites(ssl, suites);
                RefusalCause::NoCommonSuite { offered: rfc4279, cure: None, theirs, ours }
            }
            false => RefusalCause::NoPsk,
        };
    }
    if any(&[NO_SUITABLE_KEY_SHARE, NO_SUITABLE_GROUPS]) {
        return RefusalCause::NoCommonGroup;
    }
    if let Some((_, name)) = reasons.iter().find_map(|reason| alert(*reason)) {
        return RefusalCause::Alert(name);
    }
    let text = words(&error);
    left(error, &reasons).unwrap_or(RefusalCause::Protocol(text))
}

/// At a client end.
pub(super) fn of_server(error: ssl::Error, ssl: &SslRef, identity: &[u8]) -> RefusalCause {
    use reason::*;
    let no_common_version =
        || RefusalCause::NoCommonVersion { client: None, ours: Handshake::versions(ssl) };
    let reasons = reasons(&error);
    let any = |wanted: &[i32]| reasons.iter().any(|reason| wanted.contains(reason));
    if any(&[CERTIFICATE_VERIFY_FAILED]) {
        return RefusalCause::NotProven;
    }
    if let Some((code, name)) = reasons.iter().find_map(|reason| alert(*reason)) {
        return match code {
            20 | 40 | 47 | 51 | 115 => {
                RefusalCause::Refused { identity: identity.to_vec(), alert: name }
            }
            70 => no_common_version(),
            _ => RefusalCause::Alert(name),
        };
    }
    if any(&[DECRYPTION_FAILED_OR_BAD_RECORD_MAC, DIGEST_CHECK_FAILED]) {
        return RefusalCause::ServerKeyDiffers(identity.to_vec());
    }
    if any(&[WRONG_VERSION_NUMBER, PACKET_LENGTH_TOO_LONG, HTTP_REQUEST]) {
        return RefusalCause::NotTls;
    }
    if any(&[UNSUPPORTED_PROTOCOL, VERSION_TOO_LOW, WRONG_SSL_VERSION]) {
        return no_common_version();
    }
    // Of the first message: a server's is a ServerHello, and this one was a ClientHello.
    if any(&[UNEXPECTED_MESSAGE]) && ssl.current_cipher().is_none() {
        return RefusalCause::NoServer;
    }
    let text = words(&error);
    left(error, &reasons).unwrap_or(RefusalCause::Protocol(text))
}
