//! The JSON Schema of the native file: made from the table of options, and held to what the reader says.
//!
//! `UPDATE_EXPECTED=1` writes docs/pskgate.schema.json; read the difference before it is committed.

use std::path::{Path, PathBuf};

use jsonschema::Validator;
use pskgate::config::schema::schema;
use pskgate::config::{Format, load_text};
use serde_json::{Value, json};

use crate::harness::process::pskgate;
use crate::harness::{PskgateBuilder, client_toml, root, server_toml};

/// Files of examples.
fn examples() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&root().join("examples"), &mut found);
    found.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    found.sort();
    found
}

pub fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

fn validator(schema: &Value) -> Validator {
    jsonschema::draft7::new(schema).expect("a schema of draft 07")
}

fn whole() -> Validator {
    validator(&serde_json::from_str(&schema()).unwrap())
}

/// TOML as editors hand it to a schema: dates are text.
fn as_json(text: &str) -> Result<Value, String> {
    fn value(from: toml::Value) -> Value {
        match from {
            toml::Value::String(text) => text.into(),
            toml::Value::Integer(number) => number.into(),
            toml::Value::Float(number) => number.into(),
            toml::Value::Boolean(flag) => flag.into(),
            toml::Value::Datetime(moment) => moment.to_string().into(),
            toml::Value::Array(list) => list.into_iter().map(value).collect(),
            toml::Value::Table(table) => {
                table.into_iter().map(|(key, item)| (key, value(item))).collect()
            }
        }
    }
    text.parse::<toml::Table>()
        .map(|table| value(toml::Value::Table(table)))
        .map_err(|error| error.to_string())
}

/// What the schema has against a text.
fn against(validator: &Validator, text: &str) -> Vec<String> {
    match as_json(text) {
        Ok(read) => validator
            .iter_errors(&read)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect(),
        Err(error) => vec![error],
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_schema_in_docs_is_what_the_program_prints() {
    let done = pskgate(PskgateBuilder::new().folder(), &["generate", "schema"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    assert_eq!(done.out, schema());
    let path = root().join("docs/pskgate.schema.json");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, schema()).unwrap();
    }
    assert!(read(&path) == schema(), "{}: UPDATE_EXPECTED=1 writes it", path.display());
}

#[test]
fn the_schema_is_one_by_draft_07() {
    let made: Value = serde_json::from_str(&schema()).unwrap();
    assert!(jsonschema::draft7::meta::is_valid(&made));
}

#[test]
fn every_example_names_the_schema_and_keeps_to_it() {
    let validator = whole();
    let files = examples();
    assert!(files.len() >= 2, "{files:?}");
    for path in files {
        let text = read(&path);
        let named = text.lines().next().and_then(|line| line.strip_prefix("#:schema "));
        let named = named.unwrap_or_else(|| panic!("{}: no #:schema line", path.display()));
        let at = path.parent().unwrap().join(named);
        assert_eq!(
            at.canonicalize().ok(),
            root().join("docs/pskgate.schema.json").canonicalize().ok(),
            "{} names {named}",
            path.display()
        );
        assert_eq!(against(&validator, &text), [""; 0], "{}", path.display());
    }
}

#[test]
fn the_package_s_file_has_no_service_and_two_that_can_be_made_one_s_own() {
    let text = read(&root().join("dist/debian/pskgate.toml"));
    let named = "#:schema /usr/share/pskgate/pskgate.schema.json";
    assert_eq!(text.lines().next(), Some(named));
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    let mut count = 0;
    for begun in text.split("# [services.").skip(1) {
        let lines = begun.lines().take_while(|line| !line.is_empty());
        let service: Vec<&str> = lines.map(|line| line.trim_start_matches("# ")).collect();
        let service = format!("[services.{}\n", service.join("\n"));
        assert_eq!(against(&whole(), &service), [""; 0], "{service}");
        count += 1;
    }
    assert_eq!(count, 2);
}

#[test]
fn the_configuration_of_the_sidecar_keeps_to_the_schema() {
    let text = read(&root().join("dist/kubernetes/secret.yaml"));
    let (_, begun) = text.split_once("  pskgate.toml: |\n").expect("the configuration");
    let lines = begun.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let configuration: Vec<&str> = lines.map(str::trim_start).collect();
    assert_eq!(against(&whole(), &configuration.join("\n")), [""; 0]);
}

#[test]
fn what_the_reader_takes_the_schema_takes() {
    let validator = whole();
    let mut files = Vec::new();
    walk(&root().join("tests/cases/config/valid"), &mut files);
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    assert!(files.len() >= 4, "{files:?}");
    for path in files {
        assert_eq!(against(&validator, &read(&path)), [""; 0], "{}", path.display());
    }
    for text in [server_toml("127.0.0.1:1", ""), client_toml("plc.example:1", "")] {
        assert_eq!(against(&validator, &text), [""; 0], "{text}");
    }
}

#[test]
fn every_invalid_case_is_refused_by_the_schema_too() {
    let validator = whole();
    let mut files = Vec::new();
    walk(&root().join("tests/cases/config/invalid"), &mut files);
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    assert!(files.len() >= 9, "{files:?}");
    for path in files {
        let found = against(&validator, &read(&path));
        assert!(!found.is_empty(), "{} is taken", path.display());
    }
}

/// A server with one line more.
fn with(line: &str) -> String {
    server_toml("127.0.0.1:9", line)
}

/// Lines that reader and schema judge alike, by the kinds of options.
const GOOD: &[&str] = &[
    r#"idle-timeout = "1h30m""#,
    r#"idle-timeout = " 1 h 30 min ""#,
    r#"session-lifetime = "7d""#,
    r#"rekey-after = "1000000 records""#,
    r#"rekey-after = "10GB""#,
    r#"rekey-after = "100 records, 10 GB""#,
    r#"rekey-after = "1MiB,8388608 records""#,
    r#"close-timeout = "0s""#,
    r#"connect-timeout = "250ms""#,
    "max-sessions = 1",
    "reset = false",
    r#"tls-min = "1.0""#,
    "keepalive = false",
    r#"keepalive = "off""#,
    r#"keepalive = "1m/5s/127""#,
    r#"when-full = "take-over""#,
    r#"on-revocation = "keep""#,
    r#"on-revocation = "1m30s""#,
    r#"allow-from = "10.1.0.0/16""#,
    r#"allow-from = ["::1", "2001:db8::/32", "10.1.2.3"]"#,
    r#"socket = []"#,
    r#"socket = "accept : SO_REUSEADDR = 1""#,
    r#"proxy-header = "v2""#,
    r#"local-address = "127.0.0.1""#,
    r#"ciphers = "PSK""#,
    "security-level = 5",
    r#"tls13-psk-hash = "sha384""#,
    r#"log-level = "debug""#,
    "identities.a.expires = 2027-01-31",
    "identities.a.expires = 2027-01-31T12:00:00Z",
    r#"identities.a.connect = ["plc.example:https", "[::1]:3001", "/run/a.sock"]"#,
    r#"identities."plc 01".wire = ["a", "b~2"]"#,
];

const BAD: &[&str] = &[
    r#"idle-timeout = "10""#,
    "idle-timeout = 10",
    r#"session-lifetime = "0s""#,
    "rekey-after = 1000000",
    r#"rekey-after = "1000000""#,
    r#"rekey-after = "1, 2 records""#,
    r#"idle-timeout = "0s""#,
    r#"idle-timeout = "10s5m""#,
    r#"idle-timeout = "10 parsecs""#,
    r#"idle-timeout = ["10s"]"#,
    "max-sessions = 0",
    "max-sessions = 1.5",
    r#"max-sessions = "1""#,
    r#"reset = "yes""#,
    "tls-min = 1.2",
    r#"tls-min = "1.4""#,
    "keepalive = true",
    r#"keepalive = "15/5/3""#,
    r#"when-full = "takeover""#,
    r#"on-revocation = "drop""#,
    r#"allow-from = "plc.example""#,
    r#"allow-from = []"#,
    r#"socket = "up:SO_KEEPALIVE=1""#,
    r#"socket = "accept:SO_KEPALIVE=1""#,
    r#"proxy-header = "v3""#,
    r#"ciphers = """#,
    "security-level = 6",
    r#"tls13-psk-hash = "md5""#,
    r#"log-level = "loud""#,
    "identities.a.expires = true",
    r#"identities.a.expires = "soon""#,
    "identities.a.connect = 0",
    r#"identities.a.connect = "plc.example""#,
    r#"identities.a.connect = "plc.example:70000""#,
    r#"identities.a.connect = "::1:80""#,
    r#"identities.a.wire = "a:b""#,
    r#"identities."a:b".max-sessions = 1"#,
    "identities.a = 5",
    "acept = 1",
    r#"psk-identity = """#,
    r#"exec = "/bin/sh""#,
];

#[test]
fn reader_and_schema_agree_on_values_of_every_kind() {
    let validator = whole();
    // Needs Linux for nothing but its folder's name.
    let loads = |text: &str| {
        load_text(text.as_bytes(), Path::new("a.toml"), Path::new("/base"), Format::Auto)
    };
    for line in GOOD {
        let text = with(line);
        if let Err(report) = loads(&text) {
            panic!("{line}:\n{}", report.render(false));
        }
        assert_eq!(against(&validator, &text), [""; 0], "{line}");
    }
    for line in BAD {
        let text = with(line);
        assert!(loads(&text).is_err(), "{line} is taken by the reader");
        assert!(!against(&validator, &text).is_empty(), "{line} is taken by the schema");
    }
}

#[test]
fn what_a_service_lacks_may_stand_in_the_defaults_and_nowhere_else() {
    let validator = whole();
    let service = "[services.a]\naccept = 1\nconnect = 2\n";
    let taken = |text: &str| against(&validator, text).is_empty();
    assert!(!taken(service), "neither mode nor psk-secrets");
    assert!(taken(&format!("[defaults]\nmode = \"server\"\npsk-secrets = \"x\"\n{service}")));
    assert!(!taken(&format!("[defaults]\nmode = \"server\"\n{service}")), "no psk-secrets");
    assert!(!taken("[log]\nlevel = \"info\"\n"), "no service");
    assert!(taken(
        "[services.a]\nmode = \"server\"\nserver-name = \"b:*\"\nexec = \"/bin/cat\"\npsk-secrets = \"x\"\n"
    ));
}

/// The pieces of TOML in a document.
fn pieces(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once("```toml\n") {
        let (piece, after) = begun.split_once("```").expect("the end of a block");
        found.push(piece.to_owned());
        rest = after;
    }
    found
}

#[test]
fn every_piece_of_a_configuration_in_the_documents_keeps_to_the_schema() {
    let mut made: Value = serde_json::from_str(&schema()).unwrap();
    // A document shows what it is about, and leaves out the rest.
    made.as_object_mut().unwrap().remove("allOf");
    made["required"] = json!([]);
    let validator = validator(&made);
    let mut count = 0;
    for path in crate::transcripts::documents() {
        for piece in pieces(&read(&path)) {
            assert_eq!(against(&validator, &piece), [""; 0], "{}:\n{piece}", path.display());
            count += 1;
        }
    }
    assert!(count >= 5, "only {count} pieces");
}
