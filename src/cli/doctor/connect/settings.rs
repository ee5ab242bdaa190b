//! TLS settings of a handshake: those that were asked for, and others that may do when those do not.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::config::diagnostic::Diagnostics;
use crate::config::model::ServiceConfig;
use crate::config::{self, Format};
use crate::secrets::{KeyFileWriter, beremiz};

/// The values of `tls-min` and `tls-max`.
const VERSIONS: [&str; 4] = ["1.0", "1.1", "1.2", "1.3"];

/// As in a native file, under the same names; what is not said has the native default.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[group(skip)]
pub(super) struct TlsSettings {
    /// The oldest TLS version to use
    #[arg(long, value_name = "VERSION", requires = "connect", value_parser = VERSIONS)]
    tls_min: Option<String>,
    /// The newest TLS version to use
    #[arg(long, value_name = "VERSION", requires = "connect", value_parser = VERSIONS)]
    tls_max: Option<String>,
    /// Cipher suites up to TLS 1.2, as an OpenSSL list
    #[arg(long, value_name = "LIST", requires = "connect")]
    ciphers: Option<String>,
    /// Cipher suites of TLS 1.3, as an OpenSSL list
    #[arg(long, value_name = "LIST", requires = "connect")]
    ciphersuites: Option<String>,
    /// Key exchange groups, as an OpenSSL list
    #[arg(long, value_name = "LIST", requires = "connect")]
    groups: Option<String>,
    /// The hash of the key in TLS 1.3, which must be the same at both ends
    #[arg(long, value_name = "HASH", requires = "connect", value_parser = ["sha256", "sha384"])]
    tls13_psk_hash: Option<String>,
}

/// Other settings to try, and what it means if they work.
pub(super) struct AlternativeSettings {
    pub(super) settings: TlsSettings,
    pub(super) meaning: &'static str,
}

/// stunnel's own list (its `ciphers`, since 5.56).
const STUNNEL_CIPHERS: &str = "HIGH:!aNULL:!SSLv2:!DH:!kDHEPSK";

/// What is tried when a handshake fails, the likeliest first. Each costs the peer a line in its log.
pub(super) fn alternatives(asked: &TlsSettings) -> Vec<AlternativeSettings> {
    let some = |text: &str| Some(text.to_owned());
    let plain = TlsSettings::default();
    let old = TlsSettings { tls_max: some("1.2"), ..plain.clone() };
    let all = [
        (
            plain.clone(),
            "the peer takes the defaults, and what was asked for here keeps the two apart",
        ),
        (
            TlsSettings { tls_min: some("1.3"), tls13_psk_hash: some("sha384"), ..plain.clone() },
            "the peer binds its keys to SHA-384 in TLS 1.3, and this end to SHA-256",
        ),
        (
            TlsSettings { groups: some("X25519:P-256:P-384:P-521:X448"), ..plain.clone() },
            "the peer wants a key exchange group that is not among the defaults",
        ),
        (old.clone(), "the peer does TLS 1.2 with this key, but not 1.3"),
        (
            TlsSettings { ciphers: some(STUNNEL_CIPHERS), ..old.clone() },
            "the peer has only suites of stunnel's list in TLS 1.2",
        ),
        (
            TlsSettings { ciphers: some("PSK"), ..old.clone() },
            "the peer has only suites in TLS 1.2 that are not among the defaults",
        ),
        (
            TlsSettings { tls_min: some("1.0"), ciphers: some("PSK"), ..old },
            "the peer knows only TLS 1.0 or 1.1, which are obsolete",
        ),
    ];
    all.into_iter()
        .filter(|(settings, _)| settings != asked)
        .map(|(settings, meaning)| AlternativeSettings { settings, meaning })
        .collect()
}

impl TlsSettings {
    fn values(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("tls-min", &self.tls_min),
            ("tls-max", &self.tls_max),
            ("ciphers", &self.ciphers),
            ("ciphersuites", &self.ciphersuites),
            ("groups", &self.groups),
            ("tls13-psk-hash", &self.tls13_psk_hash),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// As lines of a native file, on one line.
    pub(super) fn to_toml(&self) -> String {
        let words: Vec<_> =
            self.values().map(|(name, value)| format!("{name} = {}", quote(value))).collect();
        if words.is_empty() { "the defaults".into() } else { words.join(", ") }
    }

    /// The client service that a file with these settings would have.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn service(
        &self,
        connect: &str,
        secrets: &Path,
        identity: Option<&str>,
        server_name: Option<&str>,
    ) -> Result<(ServiceConfig, Diagnostics), Diagnostics> {
        // It never listens.
        let mut text =
            String::from("[services.peer]\nmode = \"client\"\naccept = \"127.0.0.1:0\"\n");
        let named = [("psk-identity", identity), ("server-name", server_name)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let fixed = [("connect", connect), ("psk-secrets", "psk.txt")];
        for (name, value) in fixed.into_iter().chain(named).chain(self.values()) {
            let _ = writeln!(text, "{name} = {}", quote(value));
        }
        let here = std::env::current_dir().unwrap_or_default();
        let (mut config, report) =
            config::load_text(text.as_bytes(), Path::new(VIRTUAL_FILE_NAME), &here, Format::Toml)
                .map_err(without_virtual_locations)?;
        let report = without_virtual_locations(report);
        let Some(mut service) = config.services.pop() else { return Err(report) };
        let psk = &mut service.psk;
        if beremiz::is_key_file(secrets) {
            psk.rules.writer = KeyFileWriter::Ide;
        }
        for path in &mut psk.secrets {
            // The real name need not be text.
            path.value = PathBuf::from(&here).join(secrets);
        }
        Ok((service, report))
    }
}

/// The name of the configuration file that does not exist but whose text is parsed.
const VIRTUAL_FILE_NAME: &str = "options.toml";

/// Removes locations in the virtual file: the user gave options on a command line.
fn without_virtual_locations(mut report: Diagnostics) -> Diagnostics {
    for finding in &mut report.diagnostics {
        finding.place.take_if(|place| *place.file == *Path::new(VIRTUAL_FILE_NAME));
    }
    report
}

/// A text of TOML's.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_tried_can_be_tried() {
        let asked = TlsSettings { tls_max: Some("1.2".into()), ..TlsSettings::default() };
        let all = alternatives(&asked);
        assert_eq!(all.len(), 6);
        for AlternativeSettings { settings, .. } in &all {
            let service = settings.service("127.0.0.1:1", Path::new("psk.txt"), None, None);
            assert!(service.is_ok(), "{}", settings.to_toml());
        }
    }

    #[test]
    fn no_value_gets_out_of_its_quotes() {
        let evil = TlsSettings {
            groups: Some("X\"\naccept = \"0.0.0.0:1\"\n\\".into()),
            ..TlsSettings::default()
        };
        let read = evil.service("127.0.0.1:1", Path::new("psk.txt"), Some("a\"b"), None);
        let report = read.expect_err("control characters");
        assert!(report.diagnostics.iter().all(|found| found.code == "control-character"));
    }
}
