//! `config`: commands of OpenSSL's (SSL_CONF_cmd(3), as they stand in its own files), read as the options
//! that say the same.

use crate::config::options::OptionId;
use crate::config::value::ValueError;

/// What a command comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// These options have these values.
    Options(Vec<(OptionId, String)>),
    /// Nothing, and why.
    Nothing(&'static str),
}

const UNSIGNED: &str = "with pre-shared keys nothing is signed";

/// Of the words of `Options`, the switch that is meant and whether a plain word turns it on.
const SWITCHES: [(&str, &str, bool); 21] = [
    ("AllowNoDHEKEX", "ALLOW_NO_DHE_KEX", true),
    ("AntiReplay", "NO_ANTI_REPLAY", false),
    ("Bugs", "ALL", true),
    ("CANames", "DISABLE_TLSEXT_CA_NAMES", false),
    ("ClientRenegotiation", "ALLOW_CLIENT_RENEGOTIATION", true),
    ("Compression", "NO_COMPRESSION", false),
    ("DHSingle", "SINGLE_DH_USE", true),
    ("ECDHSingle", "SINGLE_ECDH_USE", true),
    ("EmptyFragments", "DONT_INSERT_EMPTY_FRAGMENTS", false),
    ("EncryptThenMac", "NO_ENCRYPT_THEN_MAC", false),
    ("ExtendedMasterSecret", "NO_EXTENDED_MASTER_SECRET", false),
    ("KTLS", "ENABLE_KTLS", true),
    ("MiddleboxCompat", "ENABLE_MIDDLEBOX_COMPAT", true),
    ("NoRenegotiation", "NO_RENEGOTIATION", true),
    ("NoResumptionOnRenegotiation", "NO_SESSION_RESUMPTION_ON_RENEGOTIATION", true),
    ("PreferNoDHEKEX", "PREFER_NO_DHE_KEX", true),
    ("PrioritizeChaCha", "PRIORITIZE_CHACHA", true),
    ("ServerPreference", "CIPHER_SERVER_PREFERENCE", true),
    ("SessionTicket", "NO_TICKET", false),
    ("UnsafeLegacyRenegotiation", "ALLOW_UNSAFE_LEGACY_RENEGOTIATION", true),
    ("UnsafeLegacyServerConnect", "LEGACY_SERVER_CONNECT", true),
];

/// Of the words of `Protocol`, the switch that forbids the version.
const VERSIONS: [(&str, &str); 5] = [
    ("SSLv3", "NO_SSLv3"),
    ("TLSv1", "NO_TLSv1"),
    ("TLSv1.1", "NO_TLSv1_1"),
    ("TLSv1.2", "NO_TLSv1_2"),
    ("TLSv1.3", "NO_TLSv1_3"),
];

/// Reads `NAME:VALUE`.
///
/// # Errors
/// Commands that OpenSSL does not know, and those that have no counterpart among the options.
pub(super) fn meaning(command: &str) -> Result<Meaning, ValueError> {
    let (name, value) = command.split_once(':').unwrap_or((command, ""));
    let is = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    let one = |opt: OptionId, value: &str| Ok(Meaning::Options(vec![(opt, value.to_owned())]));
    if value.is_empty() {
        let message = "an OpenSSL command needs a value";
        return Err(ValueError::new("bad-command", message, "write NAME:VALUE"));
    }
    if is(&["CipherString"]) {
        one(OptionId::Ciphers, value)
    } else if is(&["Ciphersuites"]) {
        one(OptionId::Ciphersuites, value)
    } else if is(&["Groups", "Curves", "ECDHParameters"]) {
        // stunnel sets its own list behind all commands (measured with 5.68).
        Ok(Meaning::Nothing("`curves` overrides this, even with its default, as in stunnel"))
    } else if is(&["MinProtocol"]) {
        // As with sslVersionMin: nobody speaks SSLv3 here, so it forbids nothing.
        one(OptionId::TlsMin, if value == "SSLv3" { "all" } else { version(value) })
    } else if is(&["MaxProtocol"]) {
        one(OptionId::TlsMax, version(value))
    } else if is(&["Protocol"]) {
        words(value, |word, on| {
            let of = VERSIONS.iter().filter(|(known, _)| {
                word.eq_ignore_ascii_case("ALL") || known.eq_ignore_ascii_case(word)
            });
            of.map(|(_, switch)| (*switch, !on)).collect()
        })
    } else if is(&["Options"]) {
        words(value, |word, on| {
            let known = SWITCHES.iter().filter(|(known, ..)| known.eq_ignore_ascii_case(word));
            known.map(|(_, switch, plain)| (*switch, on == *plain)).collect()
        })
    } else if is(&["SignatureAlgorithms", "ClientSignatureAlgorithms"]) {
        Ok(Meaning::Nothing(UNSIGNED))
    } else if is(&["DHParameters"]) {
        Ok(Meaning::Nothing("the groups of RFC 7919 are always used"))
    } else if is(&["NumTickets"]) {
        match value.trim() {
            "0" => one(OptionId::SslOptions, "NO_TICKET"),
            _ => Ok(Meaning::Nothing("the number of tickets cannot be set")),
        }
    } else {
        Err(ValueError::new(
            "bad-command",
            "this OpenSSL command is not supported",
            "the commands are CipherString, Ciphersuites, MinProtocol, MaxProtocol, Protocol and Options",
        ))
    }
}

/// OpenSSL's word for no bound is stunnel's for all versions.
fn version(word: &str) -> &str {
    if word.eq_ignore_ascii_case("None") { "all" } else { word }
}

/// Words with commas between them, each with a sign or without.
fn words(
    list: &str,
    switches: impl Fn(&str, bool) -> Vec<(&'static str, bool)>,
) -> Result<Meaning, ValueError> {
    let mut all = Vec::new();
    for word in list.split(',').map(str::trim) {
        let (word, on) = match word.strip_prefix('-') {
            Some(word) => (word, false),
            None => (word.strip_prefix('+').unwrap_or(word), true),
        };
        let turned = switches(word, on);
        if turned.is_empty() {
            let message = "OpenSSL does not accept this value for the command";
            return Err(ValueError::new("bad-command", message, "see SSL_CONF_cmd(3)"));
        }
        let sign = |on: bool| if on { "" } else { "-" };
        let said = |(switch, on)| (OptionId::SslOptions, format!("{}{switch}", sign(on)));
        all.extend(turned.into_iter().map(said));
    }
    Ok(Meaning::Options(all))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::model::Dialect;
    use crate::config::value;

    fn options(command: &str) -> Vec<(OptionId, String)> {
        match meaning(command) {
            Ok(Meaning::Options(options)) => options,
            other => panic!("{command}: {other:?}"),
        }
    }

    #[test]
    fn every_switch_is_one_that_options_knows() {
        let named = SWITCHES.iter().map(|(_, switch, _)| switch);
        for switch in named.chain(VERSIONS.iter().map(|(_, switch)| switch)) {
            let kind = OptionId::SslOptions.row().kind;
            assert!(value::read(kind, Dialect::Stunnel, switch).is_ok(), "{switch}");
        }
    }

    #[test]
    fn a_command_is_the_option_that_says_the_same() {
        let one = |opt, value: &str| vec![(opt, value.to_owned())];
        assert_eq!(options("minprotocol:TLSv1.3"), one(OptionId::TlsMin, "TLSv1.3"));
        assert_eq!(options("MaxProtocol:None"), one(OptionId::TlsMax, "all"));
        assert_eq!(options("CipherString:PSK:!aNULL"), one(OptionId::Ciphers, "PSK:!aNULL"));
        assert_eq!(options("NumTickets:0"), one(OptionId::SslOptions, "NO_TICKET"));
        let all = options("Options:-SessionTicket,+ServerPreference, EncryptThenMac");
        let shown: Vec<_> = all.iter().map(|(_, word)| word.as_str()).collect();
        assert_eq!(shown, ["NO_TICKET", "CIPHER_SERVER_PREFERENCE", "-NO_ENCRYPT_THEN_MAC"]);
        let all = options("Protocol:-ALL,TLSv1.3");
        assert_eq!(all.len(), 6);
        assert_eq!(all.first().unwrap().1, "NO_SSLv3");
        assert_eq!(all.last().unwrap().1, "-NO_TLSv1_3");
    }

    #[test]
    fn what_is_unknown_or_without_counterpart_is_refused() {
        for bad in ["", "MinProtocol", "NoSuchCommand:1", "Options:Nonsense", "VerifyMode:Peer"] {
            assert_eq!(meaning(bad).unwrap_err().code, "bad-command", "{bad}");
        }
        assert!(matches!(meaning("Curves:P-256"), Ok(Meaning::Nothing(_))));
        assert_eq!(meaning("SignatureAlgorithms:RSA+SHA256"), Ok(Meaning::Nothing(UNSIGNED)));
    }
}
