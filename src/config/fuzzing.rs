//! What must hold of every configuration, in either dialect.

use std::path::Path;
use std::sync::OnceLock;

use super::diagnostic::{Diagnostics, escape};
use super::effective::describe;
use super::endpoint::{AddressRole, Endpoint, Host, parse_host, parse_native, parse_stunnel};
use super::model::{Config, Dialect};
use super::options::{TABLE, ValueKind};
use super::{Format, survey_text, value, wire_identity_edit};
use crate::fuzzing::assert_plain;

/// What a file may be mistaken for, twice of one shape.
const KEYS: [&str; 2] = ["c2VjcmV0c2VjcmV0c2VjcmV0", "a9Vjca9Vjca9Vjca9Vjca9Vj"];

fn survey(text: &[u8], format: Format) -> (Option<Config>, Diagnostics) {
    survey_text(text, Path::new("fuzz"), Path::new("/no/such/folder"), format)
}

/// All the forms in which findings are shown.
fn shown(report: &Diagnostics) -> [String; 3] {
    let json = serde_json::to_string(report).unwrap_or_else(|error| panic!("{error}"));
    [report.render(false), report.render_stunnel(), json]
}

fn file(text: &[u8], format: Format) {
    let (config, report) = survey(text, format);
    for shown in shown(&report) {
        shown.split('\n').for_each(assert_plain);
    }
    for finding in &report.diagnostics {
        assert!(!finding.message.is_empty() && !finding.code.is_empty(), "{finding:?}");
    }
    let Some(config) = config else {
        assert!(report.has_errors(), "refused in silence");
        return;
    };
    let page = describe(&config);
    page.split('\n').for_each(assert_plain);
    assert!(
        !config.services.is_empty() || report.has_errors(),
        "nothing to run, and no word of it"
    );
    let (again, other) = survey(text, format);
    assert_eq!(again.as_ref().map(describe), Some(page), "read twice, it is two files");
    assert_eq!(shown(&other), shown(&report));
}

/// Puts one of these lines before another of a text, and the same with another key: what is said must not differ.
fn strayed_key(text: &[u8], lines: [&str; 3], format: Format) {
    let starts = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let starts: Vec<_> = std::iter::once(0).chain(starts).collect();
    let shift = text
        .iter()
        .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let (before, behind) = text.split_at(starts[shift % starts.len()]);
    let line = lines[shift / starts.len() % lines.len()];
    // Inside a text of several lines it is no line, and may be repeated like any text.
    let is_whole = format == Format::Stunnel
        || std::str::from_utf8(before)
            .is_ok_and(|text| text.parse::<toml_edit::DocumentMut>().is_ok());
    if !is_whole {
        return;
    }
    let [one, other] = KEYS.map(|key| {
        let text = [before, line.replace("KEY", key).as_bytes(), b"\n", behind].concat();
        shown(&survey(&text, format).1)
    });
    assert_eq!(one, other, "what is said depends on a key");
}

/// A stunnel.conf with any bytes in it.
pub fn stunnel_conf(text: &[u8]) {
    file(text, Format::Stunnel);
    strayed_key(
        text,
        ["PSKsecrets = plc:KEY", "plc:KEY", "PSKsecrets = plc:KEY "],
        Format::Stunnel,
    );
}

/// A file in TOML with any bytes in it; and its text with names on the wire declared and taken back.
pub fn native_file(bytes: &[u8]) {
    file(bytes, Format::Toml);
    let lines =
        ["psk-secrets = \"plc:KEY\"", "plc:KEY", "psk-secrets = [\"psk.txt\", \"plc:KEY\"]"];
    strayed_key(bytes, lines, Format::Toml);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (Some(config), _) = survey(bytes, Format::Toml) else { return };
    for service in &config.services {
        let declare = |text: &str| {
            wire_identity_edit::declare(text, &service.name.value, "plc-01", "plc-01", "plc-01~2")
        };
        let Ok(declared) = declare(text) else { continue };
        assert_eq!(declare(&declared).as_deref(), Ok(&*declared), "declared twice");
        let (again, _) = survey(declared.as_bytes(), Format::Toml);
        assert!(again.is_some(), "no file any more:\n{declared}");
        let retracted = wire_identity_edit::retract(&declared, "plc-01~2", |_| true);
        let Ok(Some(retracted)) = retracted else { panic!("{retracted:?}:\n{declared}") };
        assert_eq!(
            wire_identity_edit::retract(&retracted, "plc-01~2", |_| true),
            Ok(None),
            "{retracted}"
        );
        assert!(survey(retracted.as_bytes(), Format::Toml).0.is_some(), "{retracted}");
    }
}

/// One value of an option: as an address in every way, and as one of the other kinds.
pub fn addresses(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for role in [AddressRole::Listen, AddressRole::Connect] {
        for parse in [parse_native, parse_stunnel] {
            match parse(text, role) {
                Ok(endpoint) => shows_itself(&endpoint, |text| parse(text, role)),
                Err(error) => {
                    assert!(!error.to_string().is_empty() && !error.help().is_empty());
                    assert_plain(&escape(&error.to_string()));
                }
            }
        }
    }
    if let Ok(Host::Name(name)) = parse_host(text) {
        assert!(name.len() < 256 && !name.contains([' ', '\n', '\0', '/']), "{name:?}");
    }
    let kinds = kinds();
    let shift = text
        .bytes()
        .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    let (dialect, kind) = kinds[shift % kinds.len()];
    let read = value::read(kind, dialect, text);
    if let Err(wrong) = &read {
        assert!(!wrong.message.is_empty() && !wrong.code.is_empty(), "{wrong:?}");
    }
    if dialect == Dialect::Stunnel && !matches!(kind, ValueKind::Identity) {
        assert_eq!(value::read_bytes(kind, bytes), read);
    }
}

/// Each kind of value once, in each dialect.
fn kinds() -> &'static [(Dialect, ValueKind)] {
    static KINDS: OnceLock<Vec<(Dialect, ValueKind)>> = OnceLock::new();
    KINDS.get_or_init(|| {
        let mut kinds = Vec::new();
        for row in TABLE {
            for kind in [Dialect::Native, Dialect::Stunnel].map(|dialect| (dialect, row.kind)) {
                // The addresses have had their turn, and look names up in a file.
                if !kinds.contains(&kind)
                    && !matches!(row.kind, ValueKind::Listen | ValueKind::Connect)
                {
                    kinds.push(kind);
                }
            }
        }
        kinds
    })
}

/// An address as it is shown is the same address to whoever types it in.
fn shows_itself<E>(endpoint: &Endpoint, parse: impl Fn(&str) -> Result<Endpoint, E>) {
    match endpoint {
        // One that is relative is not shown before it is anchored.
        Endpoint::Unix(path) if !path.is_absolute() => {}
        endpoint => {
            let shown = endpoint.to_string();
            assert_eq!(parse(&shown).ok().as_ref(), Some(endpoint), "shown as {shown:?}");
        }
    }
}
