//! From a service's configuration to an OpenSSL context.

use std::sync::{Arc, OnceLock};

use openssl::dh::Dh;
use openssl::error::ErrorStack;
use openssl::ssl::{
    SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
    SslVerifyMode, SslVersion,
};

use super::offers::is_psk;
use super::psk;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::model::{
    CipherOrder, Mode, PskHash, Resolved, TlsConfig, TlsSwitch, TlsVersion,
};
use crate::sys;

/// OpenSSL's security level, unless the library's own is higher or somebody said another.
const MIN_SECURITY_LEVEL: u32 = 2;

/// RFC 7919's groups for DHE-PSK: generated parameters would cost minutes on a small board.
const FFDHE2048: &[u8] = include_bytes!("ffdhe2048.pem");
const FFDHE3072: &[u8] = include_bytes!("ffdhe3072.pem");

/// A context, and what of its settings an SSL object does not take along when it changes contexts.
#[derive(Debug, Clone)]
pub(super) struct BuiltContext {
    pub(super) context: SslContext,
    pub(super) range: (SslVersion, SslVersion),
    pub(super) groups: Arc<str>,
    pub(super) options: SslOptions,
}

/// Builds the context of one end, whose CPU has instructions for AES or has not. Warnings go to
/// `findings`.
///
/// # Errors
/// What OpenSSL does not take, with the place where it was written.
pub(super) fn build(
    mode: Mode,
    tls: &TlsConfig,
    hash: PskHash,
    aes: bool,
    findings: &mut Vec<Diagnostic>,
) -> Result<BuiltContext, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let built = assemble(mode, tls, hash, aes, findings, &mut errors);
    match built {
        Ok(context) if errors.is_empty() => Ok(context),
        Ok(_) => Err(errors),
        Err(stack) => {
            let message = format!("OpenSSL does not accept the TLS settings: {}", reasons(&stack));
            errors.push(finding(Severity::Error, "tls-settings", None, message, None));
            Err(errors)
        }
    }
}

/// A context that is being built, and what was found wrong with its settings.
struct Assembly<'a> {
    mode: Mode,
    tls: &'a TlsConfig,
    hash: PskHash,
    aes: bool,
    context: SslContextBuilder,
    /// OpenSSL's security level so far.
    level: u32,
    /// The groups that are spoken.
    groups: String,
    findings: &'a mut Vec<Diagnostic>,
    errors: &'a mut Vec<Diagnostic>,
}

fn assemble(
    mode: Mode,
    tls: &TlsConfig,
    hash: PskHash,
    aes: bool,
    findings: &mut Vec<Diagnostic>,
    errors: &mut Vec<Diagnostic>,
) -> Result<BuiltContext, ErrorStack> {
    let context = SslContextBuilder::new(match mode {
        Mode::Client => SslMethod::tls_client(),
        Mode::Server => SslMethod::tls_server(),
    })?;
    let groups = tls.groups.value.clone();
    let mut assembly =
        Assembly { mode, tls, hash, aes, context, level: 0, groups, findings, errors };
    assembly.set_modes();
    assembly.set_sessions()?;
    assembly.set_options();
    assembly.set_security_level()?;
    let range = assembly.set_versions_and_suites()?;
    assembly.set_groups();
    assembly.install_psk()?;
    let Assembly { context, groups, .. } = assembly;
    let (groups, options) = (groups.into(), context.options());
    Ok(BuiltContext { context: context.build(), range, groups, options })
}

impl Assembly<'_> {
    fn set_modes(&mut self) {
        if self.mode == Mode::Client {
            // An empty trust store: a server that brings a certificate in place of the key is refused
            // while the handshake still runs. Holders of the key never show one.
            self.context.set_verify(SslVerifyMode::PEER);
        }
        self.context.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION);
        self.context.set_mode(
            SslMode::ENABLE_PARTIAL_WRITE
                | SslMode::ACCEPT_MOVING_WRITE_BUFFER
                | SslMode::RELEASE_BUFFERS,
        );
    }

    /// Resumption.
    fn set_sessions(&mut self) -> Result<(), ErrorStack> {
        // Sessions are kept in tickets and in stores of our own: OpenSSL's would outlive the keys. A server
        // end's store is installed with its keys.
        self.context.set_session_cache_mode(match self.mode {
            Mode::Client if self.tls.resumes() => {
                SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL
            }
            _ => SslSessionCacheMode::OFF,
        });
        // None in the handshake of 1.3: `Stream` has one made with the first data.
        self.context.set_num_tickets(0)
    }

    fn set_options(&mut self) {
        let Self { mode, tls, context, .. } = self;
        if *mode == Mode::Server && tls.cipher_order.value == CipherOrder::Server {
            context.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
            if self.aes {
                // A client that puts ChaCha20 first has no AES instructions, and is the slower of the two.
                context.set_options(SslOptions::PRIORITIZE_CHACHA);
            }
        }
        for (switch, on) in &tls.switches {
            if *on {
                context.set_options(bits(*switch));
            } else {
                context.clear_options(bits(*switch));
            }
        }
        if !tls.resumes() {
            context.set_options(SslOptions::NO_TICKET);
        }
    }

    fn set_security_level(&mut self) -> Result<(), ErrorStack> {
        self.level = match &self.tls.security_level {
            Some(level) => u32::from(level.value),
            // Builds of OpenSSL differ; 112 bits are the least that is good for years (RFC 9325, 4.1).
            None => library_security_level()?.max(MIN_SECURITY_LEVEL),
        };
        self.context.set_security_level(self.level);
        Ok(())
    }

    /// A version for which no suite is left is switched off, or is an error.
    fn set_versions_and_suites(&mut self) -> Result<(SslVersion, SslVersion), ErrorStack> {
        let tls = self.tls;
        let max = self.set_tls13_suites()?;
        let mut range = (version(tls.min.value), version(max));
        self.context.set_min_proto_version(Some(range.0))?;
        self.context.set_max_proto_version(Some(range.1))?;
        if tls.min.value < TlsVersion::Tls12 && tls.security_level.is_none() {
            // OpenSSL 3 has no suite for 1.0 and 1.1 above level 0; the file named the version itself.
            self.level = 0;
            self.context.set_security_level(self.level);
        }
        if tls.min.value < TlsVersion::Tls13 && !self.set_tls12_suites(max)? {
            range.0 = SslVersion::TLS1_3;
            self.context.set_min_proto_version(Some(range.0))?;
        }
        Ok(range)
    }

    /// Returns the latest version that has a suite.
    fn set_tls13_suites(&mut self) -> Result<TlsVersion, ErrorStack> {
        let Self { tls, hash, aes, .. } = *self;
        let max = tls.max.value;
        match tls13_suites(tls, hash, aes) {
            Ok(list) => self.context.set_ciphersuites(&list)?,
            Err(Some(unknown)) => self.errors.push(*unknown),
            Err(None) => {
                let message = format!(
                    "no TLS 1.3 suite of the list has the hash of this service's key, {}",
                    hash.name()
                );
                let help = format!("add {}", default_suites(hash, aes).join(" or "));
                let at = tls.ciphersuites.as_ref();
                // Under stunnel's rules a list without SHA-256 only breaks TLS 1.3; 1.2 peers go on.
                if tls.min.value < TlsVersion::Tls13 && max == TlsVersion::Tls13 {
                    let message = format!("{message}: TLS 1.3 is switched off");
                    let severity = Severity::Warning;
                    self.findings.push(finding(severity, "psk-hash", at, message, Some(help)));
                    return Ok(TlsVersion::Tls12);
                } else if max == TlsVersion::Tls13 {
                    let severity = Severity::Error;
                    self.errors.push(finding(severity, "psk-hash", at, message, Some(help)));
                }
            }
        }
        Ok(max)
    }

    /// Returns whether the versions up to 1.2 stay on.
    fn set_tls12_suites(&mut self, max: TlsVersion) -> Result<bool, ErrorStack> {
        let at = Some(&self.tls.ciphers);
        let help = Some(PSK_SUITES.to_owned());
        match tls12_suites(&mut self.context, self.tls, self.errors, self.findings)? {
            Some(Some(written)) => {
                self.level = written;
                self.context.set_security_level(written);
            }
            Some(None) => {}
            // stunnel's peers of 1.3 never ask for this list, and go on.
            None if max == TlsVersion::Tls13 => {
                let message = format!("{NO_PSK_SUITE}: TLS 1.2 is switched off");
                self.findings.push(finding(Severity::Warning, "ciphers", at, message, help));
                return Ok(false);
            }
            None => {
                let message = NO_PSK_SUITE.to_owned();
                self.errors.push(finding(Severity::Error, "ciphers", at, message, help));
            }
        }
        Ok(true)
    }

    fn set_groups(&mut self) {
        if let Err(stack) = self.context.set_groups_list(&self.groups) {
            if self.tls.skips_unknown_groups && self.skip_unknown_groups() {
                return;
            }
            let message =
                format!("OpenSSL does not accept this list of groups: {}", reasons(&stack));
            let help = "groups are X25519, P-256, X448, P-521, P-384, separated by colons";
            let (at, help) = (Some(&self.tls.groups), Some(help.to_owned()));
            self.errors.push(finding(Severity::Error, "groups", at, message, help));
        }
    }

    /// Leaves out the groups that this OpenSSL does not have. Whether one is left.
    fn skip_unknown_groups(&mut self) -> bool {
        let all = self.groups.split(':');
        let (known, unknown): (Vec<&str>, Vec<&str>) =
            all.partition(|group| self.context.set_groups_list(group).is_ok());
        let list = known.join(":");
        if known.is_empty() || self.context.set_groups_list(&list).is_err() {
            return false;
        }
        let message = format!("this OpenSSL does not have the group {}", unknown.join(", "));
        let help = format!("key exchange goes on with {list}");
        let at = Some(&self.tls.groups);
        self.findings.push(finding(Severity::Warning, "unknown-group", at, message, Some(help)));
        self.groups = list;
        true
    }

    fn install_psk(&mut self) -> Result<(), ErrorStack> {
        if self.mode == Mode::Client {
            return psk::install_client(&mut self.context);
        }
        // Level 3 asks for 128 bits of strength, level 4 for 192, which no group here has: there
        // DHE-PSK is not chosen, and ECDHE-PSK is.
        let group = match self.level {
            0..=2 => Some(FFDHE2048),
            3 => Some(FFDHE3072),
            _ => None,
        };
        if let Some(group) = group {
            self.context.set_tmp_dh(&*Dh::params_from_pem(group)?)?;
        }
        psk::install_server(&mut self.context, self.groups.as_str().into())
    }
}

/// What the library's own level is: asked once, because a context takes a tenth of a start.
fn library_security_level() -> Result<u32, ErrorStack> {
    static LEVEL: OnceLock<u32> = OnceLock::new();
    if let Some(level) = LEVEL.get() {
        return Ok(*level);
    }
    let level = SslContextBuilder::new(SslMethod::tls())?.build().security_level();
    Ok(*LEVEL.get_or_init(|| level))
}

/// The bits of <openssl/ssl.h>.
fn bits(switch: TlsSwitch) -> SslOptions {
    match switch {
        TlsSwitch::All => SslOptions::ALL,
        TlsSwitch::CipherServerPreference => SslOptions::CIPHER_SERVER_PREFERENCE,
        TlsSwitch::PrioritizeChacha => SslOptions::PRIORITIZE_CHACHA,
        TlsSwitch::MiddleboxCompat => SslOptions::ENABLE_MIDDLEBOX_COMPAT,
        TlsSwitch::DontInsertEmptyFragments => SslOptions::DONT_INSERT_EMPTY_FRAGMENTS,
        TlsSwitch::RollbackBug => SslOptions::TLS_ROLLBACK_BUG,
        TlsSwitch::LegacyServerConnect => SslOptions::from_bits_retain(1 << 2),
        TlsSwitch::Padding => SslOptions::from_bits_retain(1 << 4),
        TlsSwitch::CleansePlaintext => SslOptions::from_bits_retain(1 << 1),
        TlsSwitch::NoExtendedMasterSecret => SslOptions::from_bits_retain(1 << 0),
        TlsSwitch::NoEncryptThenMac => SslOptions::from_bits_retain(1 << 19),
        TlsSwitch::NoTicket => SslOptions::NO_TICKET,
    }
}

/// The 1.3 list: what was written, or what suits this CPU, less what has another hash. `Err(None)`
/// when nothing is left.
fn tls13_suites(
    tls: &TlsConfig,
    hash: PskHash,
    aes: bool,
) -> Result<String, Option<Box<Diagnostic>>> {
    let Some(written) = &tls.ciphersuites else {
        return Ok(default_suites(hash, aes).join(":"));
    };
    let mut kept = Vec::new();
    for name in written.split([':', ',', ' ']).filter(|name| !name.is_empty()) {
        match name {
            "TLS_AES_256_GCM_SHA384" if hash == PskHash::Sha384 => kept.push(name),
            "TLS_AES_256_GCM_SHA384" => {}
            "TLS_AES_128_GCM_SHA256"
            | "TLS_CHACHA20_POLY1305_SHA256"
            | "TLS_AES_128_CCM_SHA256"
            | "TLS_AES_128_CCM_8_SHA256" => {
                if hash == PskHash::Sha256 {
                    kept.push(name);
                }
            }
            unknown => {
                let message = format!("unknown TLS 1.3 suite {}", unknown.escape_debug());
                let help = "TLS 1.3 has TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, \
                            TLS_AES_256_GCM_SHA384 and two of CCM"
                    .to_owned();
                return Err(Some(Box::new(finding(
                    Severity::Error,
                    "unknown-suite",
                    Some(written),
                    message,
                    Some(help),
                ))));
            }
        }
    }
    if kept.is_empty() { Err(None) } else { Ok(kept.join(":")) }
}

fn default_suites(hash: PskHash, aes: bool) -> Vec<&'static str> {
    match (hash, aes) {
        (PskHash::Sha384, _) => vec!["TLS_AES_256_GCM_SHA384"],
        (PskHash::Sha256, true) => vec!["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"],
        (PskHash::Sha256, false) => vec!["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"],
    }
}

const NO_PSK_SUITE: &str = "no suite of this list uses a pre-shared key";
const PSK_SUITES: &str = "`PSK` stands for all suites that do; `openssl ciphers -v PSK` lists them";

/// Expands the list up to 1.2 on a scratch context and sets what it has of PSK suites, so that a
/// peer cannot be met without the key, and no NULL cipher is ever offered. Returns the security level
/// that the list names, as `@SECLEVEL=n`; or nothing at all if it has no suite of that kind.
fn tls12_suites(
    context: &mut SslContextBuilder,
    tls: &TlsConfig,
    errors: &mut Vec<Diagnostic>,
    findings: &mut Vec<Diagnostic>,
) -> Result<Option<Option<u32>>, ErrorStack> {
    let before = library_security_level()?;
    let mut scratch = SslContextBuilder::new(SslMethod::tls())?;
    scratch.set_max_proto_version(Some(SslVersion::TLS1_2))?;
    // A list of 1.3's own suites would survive the filter otherwise.
    scratch.set_ciphersuites("")?;
    if let Err(stack) = scratch.set_cipher_list(&tls.ciphers) {
        if is_null_alone(&tls.ciphers) {
            return Ok(None);
        }
        let message = format!("OpenSSL knows no suite of this list: {}", reasons(&stack));
        let help = "`openssl ciphers -v PSK` lists the suites".to_owned();
        errors.push(finding(Severity::Error, "ciphers", Some(&tls.ciphers), message, Some(help)));
        return Ok(Some(None));
    }
    let expanded = scratch.build();
    let level = expanded.security_level();
    let suites: Vec<_> = sys::openssl::context_suites(&expanded)
        .into_iter()
        .map(|suite| suite.name())
        .filter(|name| is_psk(name))
        .collect();
    if suites.is_empty() {
        return Ok(None);
    }
    context.set_cipher_list(&suites.join(":"))?;
    findings.extend(without_forward_secrecy(tls, &suites));
    Ok(Some((level != before).then_some(level)))
}

/// Whether a list has nothing but suites that hide nothing. Some builds of OpenSSL do not know their names;
/// a file that has them is the same mistake with each.
pub(super) fn is_null_alone(list: &str) -> bool {
    let names = list.split([':', ',', ';', ' ']).filter(|name| !name.is_empty());
    let mut names = names.filter(|name| !name.starts_with('@')).peekable();
    let is_null = |name: &str| matches!(name, "eNULL" | "NULL") || name.contains("PSK-NULL-SHA");
    names.peek().is_some() && names.all(is_null)
}

/// RFC 4279, 7.1: with a plain PSK suite, who gets the key later reads what was recorded before. Said
/// of a list that somebody wrote; stunnel's own has such suites at its end.
fn without_forward_secrecy(tls: &TlsConfig, suites: &[&str]) -> Option<Diagnostic> {
    tls.ciphers.place()?;
    let plain = suites.iter().filter(|name| !name.contains("DHE-")).count();
    let (severity, which) = match plain {
        0 => return None,
        n if n == suites.len() => (Severity::Warning, "no suite of this list has"),
        _ => (Severity::Notice, "not every suite of this list has"),
    };
    let message = format!(
        "{which} forward secrecy: in TLS 1.2, recorded traffic can be read by anybody who gets \
         the key later"
    );
    let help = "add ECDHE-PSK-CHACHA20-POLY1305, or remove the others with !kPSK:!kRSAPSK, if \
                the peer supports it";
    Some(finding(
        severity,
        "no-forward-secrecy",
        Some(&tls.ciphers),
        message,
        Some(help.to_owned()),
    ))
}

fn version(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::Tls10 => SslVersion::TLS1,
        TlsVersion::Tls11 => SslVersion::TLS1_1,
        TlsVersion::Tls12 => SslVersion::TLS1_2,
        TlsVersion::Tls13 => SslVersion::TLS1_3,
    }
}

fn finding(
    severity: Severity,
    code: &'static str,
    at: Option<&Resolved<String>>,
    message: String,
    help: Option<String>,
) -> Diagnostic {
    let place = at.and_then(|value| value.place().cloned());
    Diagnostic { severity, code, place, message, label: None, help }
}

fn reasons(stack: &ErrorStack) -> String {
    let words: Vec<_> = stack.errors().iter().filter_map(|error| error.reason()).collect();
    if words.is_empty() { "no reason given".to_owned() } else { words.join("; ") }
}
