//! What OpenSSL says of a failed handshake, and the phrases by which programs find events in stunnel's log.
//! Where stunnel 5.75 and 5.82 word an event differently, a line has both forms: a scanner made for either
//! finds it.

use std::fmt::{self, Display};
use std::net::SocketAddr;

/// An error of OpenSSL's. Its words are constants of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpensslError {
    /// Its number: the library and the reason.
    pub code: u32,
    /// The library's name, such as `SSL routines`.
    pub library: &'static str,
    /// The reason, such as `binder does not verify`.
    pub reason: &'static str,
}

/// As ERR_error_string(3) has it.
impl Display for OpensslError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, library, reason } = self;
        write!(f, "error:{code:08X}:{library}::{reason}")
    }
}

/// A cause and OpenSSL's reason, unless the cause has these words itself.
pub(super) struct WithReason<'a>(pub(super) &'a dyn Display, pub(super) Option<OpensslError>);

impl Display for WithReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(cause, error) = self;
        let text = cause.to_string();
        f.write_str(&text)?;
        match error {
            Some(OpensslError { reason, .. }) if !text.contains(reason) => {
                write!(f, " (OpenSSL: {reason})")
            }
            _ => Ok(()),
        }
    }
}

/// A cause, of that stable name, and behind it what stunnel says.
pub(super) struct WithPhrase<'a>(
    pub(super) &'a dyn Display,
    pub(super) &'static str,
    pub(super) Option<OpensslError>,
);

impl Display for WithPhrase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(cause, name, error) = self;
        match (*name, error) {
            ("timeout", _) => write!(
                f,
                "{cause}: ssl_start: s_poll_wait: TIMEOUTbusy exceeded: sending reset; \
                 ssl_handshake_poll: s_poll_wait: TIMEOUTbusy exceeded: sending reset"
            ),
            (_, Some(error)) => write!(f, "{cause}: {error}"),
            (_, None) => cause.fmt(f),
        }
    }
}

/// What stunnel says of a session that ends in that way, where it has words for it.
pub(super) fn of_session_end(name: &str) -> Option<&'static str> {
    Some(match name {
        "idle" => {
            "transfer: s_poll_wait: TIMEOUTidle exceeded: sending reset; \
             transfer_tcp: s_poll_wait: TIMEOUTidle exceeded: sending reset"
        }
        "half-closed" => {
            "transfer: s_poll_wait: TIMEOUTclose exceeded: closing; \
             transfer_tcp: s_poll_wait: TIMEOUTclose exceeded: closing"
        }
        "key-update-flood" => {
            "transfer() loop executes not transferring any data; \
             transfer_tcp() loop executes not transferring any data"
        }
        _ => return None,
    })
}

/// A target that a SOCKS peer is not connected to: stunnel's words before 5.80, and since.
pub(super) struct SocksRejection(pub(super) SocketAddr);

impl Display for SocksRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ip, port) = (self.0.ip(), self.0.port());
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        write!(
            f,
            "SOCKS connection to {ip}:{port} rejected; SOCKS connection to the {family} loopback \
             rejected"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: OpensslError = OpensslError {
        code: 0x0A00_00FD,
        library: "SSL routines",
        reason: "binder does not verify",
    };

    #[test]
    fn openssl_s_reason_stands_behind_the_cause_once() {
        let shown = |cause: &dyn Display, error| WithReason(cause, error).to_string();
        assert_eq!(shown(&"wrong key", Some(ERROR)), "wrong key (OpenSSL: binder does not verify)");
        assert_eq!(shown(&"wrong key", None), "wrong key");
        let own = "OpenSSL refused it: binder does not verify";
        assert_eq!(shown(&own, Some(ERROR)), own);
    }

    #[test]
    fn stunnel_s_phrase_stands_behind_the_cause() {
        let shown = |name, error| WithPhrase(&"cause", name, error).to_string();
        let wanted = "cause: error:0A0000FD:SSL routines::binder does not verify";
        assert_eq!(shown("wrong-key", Some(ERROR)), wanted);
        assert_eq!(shown("io", None), "cause");
        for words in ["cause: ssl_start: s_poll_wait: ", "ssl_handshake_poll: s_poll_wait: "] {
            let wanted = format!("{words}TIMEOUTbusy exceeded: sending reset");
            assert!(shown("timeout", None).contains(&wanted), "{wanted}");
        }
    }

    #[test]
    fn both_generations_of_scanners_find_a_rejected_target() {
        for (address, words) in [
            ("127.0.0.1:80", ["to 127.0.0.1:80 rejected", "to the IPv4 loopback rejected"]),
            ("[::1]:80", ["to ::1:80 rejected", "to the IPv6 loopback rejected"]),
        ] {
            let Ok(address) = address.parse() else { panic!("{address}") };
            let shown = SocksRejection(address).to_string();
            for wanted in words {
                assert!(shown.contains(&format!("SOCKS connection {wanted}")), "{shown}");
            }
        }
    }
}
