//! The JSON Schema of the native file, from the table of options.
//!
//! The reader has no types of Rust's to derive a schema from: it works from [`TABLE`], because each value
//! keeps its place and each mistake is told, which a derived reader gives up. So the schema is made from
//! the same rows, and an option cannot be in one and not in the other.
//!
//! A schema is for editors. It never refuses what the program takes; what it cannot say (that two
//! services must not listen on one address, how many bytes a name has) is left to `check`.

use serde_json::{Map, Value, json};

use super::model::Dialect;
use super::options::{Arity, OptionId, OptionRow, TABLE, TomlTable, ValueKind};
use super::value::{SOCKET_OPTIONS, words};

/// No character that stands for `\b`, `\t`, `\n`, `\f` or `\r`: in a path of Windows these were backslashes.
const FILE_NAME: &str = r"^[^\x08\t\n\f\r]+$";

/// A number below 65536, however many zeros stand before it.
const PORT: &str = r"0*(\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])";
/// A name of /etc/services: not only digits.
const SERVICE: &str = r"[^:\s/]*[^:\s/\d][^:\s/]*";
/// Falling units, each at most once; white space may stand anywhere.
const DURATION: &str =
    r"\s*(\d+\s*d\s*)?(\d+\s*h\s*)?(\d+\s*(m|min)\s*)?(\d+\s*s\s*)?(\d+\s*ms\s*)?";
/// `15s/5s/3`, or off.
const KEEPALIVE: &str = r"^(off|[^/]*\d\s*[a-z]+\s*/[^/]*\d\s*[a-z]+\s*/\s*0*\d{1,3}\s*)$";
const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";

/// The schema, as JSON in draft 07: editors know that one best.
pub fn schema() -> String {
    let tables = [
        ("log", TomlTable::Log, "What is logged, how and where."),
        ("control", TomlTable::Control, "Who may look from outside, and give orders."),
        ("http", TomlTable::Http, "Metrics and a status page, for this machine alone."),
    ];
    let mut properties = keys(TomlTable::Top);
    for (name, table, what) in tables {
        properties.insert(name.into(), object(what, keys(table)));
    }
    properties.insert(
        "defaults".into(),
        json!({
            "description": "What holds for every service that says nothing else.",
            "allOf": [{ "$ref": "#/definitions/service" }],
        }),
    );
    properties.insert(
        "services".into(),
        json!({
            "description": "The tunnels, each in a table [services.NAME].",
            "type": "object",
            "minProperties": 1,
            "propertyNames": { "minLength": 1, "maxLength": 128, "pattern": format!("^[^{CONTROL}]*$") },
            // Either says all about an end (the code `two-of-a-kind`); the two together are both ends.
            "additionalProperties": {
                "allOf": [{ "$ref": "#/definitions/service" }],
                "not": { "required": ["accept", "connect", "exec"] },
            },
        }),
    );
    let whole = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": "Made from the table of options by `pskgate generate schema`.",
        "title": "The configuration of pskgate",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "required": ["services"],
        "allOf": needed(),
        "definitions": {
            "service": object("One tunnel.", keys(TomlTable::Service)),
            "identity": object("Rules for one identity.", keys(TomlTable::Identity)),
        },
    });
    // Values of serde_json's own are always written.
    serde_json::to_string_pretty(&whole).unwrap_or_default() + "\n"
}

fn object(what: &str, properties: Map<String, Value>) -> Value {
    json!({
        "description": what,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// What a service must say, unless [defaults] says it for all.
fn needed() -> Vec<Value> {
    let said = |names: &[&str]| {
        let each = names.iter().map(|name| json!({ "required": [name] })).collect::<Vec<_>>();
        json!({ "anyOf": each })
    };
    [
        &["mode"][..],
        &["psk-secrets"],
        &["connect", "exec", "protocol", "transparent"],
        &["accept", "server-name", "exec"],
    ]
    .iter()
    .map(|names| {
        json!({
            "if": { "not": { "required": ["defaults"], "properties": { "defaults": said(names) } } },
            "then": { "properties": { "services": { "additionalProperties": said(names) } } },
        })
    })
    .collect()
}

/// The keys of a table.
fn keys(table: TomlTable) -> Map<String, Value> {
    let here = |row: &'static OptionRow| match row.native {
        Some((of, key)) if of == table => Some((key, row)),
        _ => None,
    };
    TABLE.iter().filter_map(here).map(|(key, row)| (key.to_owned(), option(row))).collect()
}

fn option(row: &OptionRow) -> Value {
    let one = kind(row.kind);
    let mut made = match row.arity {
        Arity::One => one,
        Arity::List => {
            // Nothing in a list of sockets is a way to unsay the defaults.
            let least = usize::from(row.opt != OptionId::Socket);
            json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": least }] })
        }
    };
    if row.opt == OptionId::Identities {
        made = json!({
            "type": "object",
            "propertyNames": kind(ValueKind::Identity),
            "additionalProperties": { "$ref": "#/definitions/identity" },
        });
    }
    made["description"] = row.doc.into();
    if let Some(default) = default(row) {
        made["default"] = default;
    }
    made
}

/// As it would be written in the file.
fn default(row: &OptionRow) -> Option<Value> {
    let text = row.native_default;
    match row.kind {
        _ if text.is_empty() => None,
        ValueKind::Bool | ValueKind::Count { .. } => serde_json::from_str(text).ok(),
        _ => Some(text.into()),
    }
}

/// The pattern of a kind whose values are text with a shape.
fn pattern(kind: ValueKind) -> Option<String> {
    let pattern = match kind {
        ValueKind::Socket => {
            format!(r"\s*(accept|downstream|upstream)\s*:\s*({})\s*=.*", SOCKET_OPTIONS.join("|"))
        }
        ValueKind::Range => r"\s*[0-9A-Fa-f:.]+(/\d{1,3})?\s*".into(),
        // Editors hand a date of TOML's over as its text.
        ValueKind::Moment => r"\s*[+-]?\d{4,6}-?\d{2}-?\d{2}.*".into(),
        ValueKind::TicketKey => "([0-9A-Fa-f]{2}:?){16}(([0-9A-Fa-f]{2}:?){16})?".into(),
        ValueKind::FileMode => "(0o)?0*[0-7]{3}".into(),
        ValueKind::Variable => r"[^=\s]+=.*".into(),
        ValueKind::RekeyAfter => {
            r"\s*\d+\s*([A-Za-z]+|records?)\s*(,\s*\d+\s*([A-Za-z]+|records?)\s*)?".into()
        }
        ValueKind::Size => r"\s*\d+(\.\d+)?\s*[A-Za-z]+\s*".into(),
        _ => return None,
    };
    Some(format!("^({pattern})$"))
}

/// What the values of a kind look like in TOML.
fn kind(kind: ValueKind) -> Value {
    if let Some(pattern) = pattern(kind) {
        return json!({ "type": "string", "pattern": pattern });
    }
    let plain = || json!({ "type": "string", "pattern": format!("^[^{CONTROL}]*$") });
    let known = words(kind, Dialect::Native);
    match kind {
        ValueKind::Bool => json!({ "type": "boolean" }),
        ValueKind::OcspFlag => json!({}),
        ValueKind::Count { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        ValueKind::Duration { zero } => duration(zero),
        ValueKind::Listen => address(0),
        ValueKind::Connect => address(1),
        ValueKind::Path => json!({ "type": "string", "minLength": 1, "pattern": FILE_NAME }),
        // An identity:key line where the name of a file belongs: the code `key-in-configuration`.
        ValueKind::Secrets => json!({
            "type": "string",
            "minLength": 1,
            "pattern": FILE_NAME,
            "anyOf": [
                { "pattern": "^credential:[^/]{1,255}$" },
                { "not": { "pattern": r"^[^:/\\]{2,}:.{16,}$" } },
            ],
        }),
        ValueKind::Identity => json!({
            "type": "string",
            "minLength": 1,
            "maxLength": 255,
            "pattern": format!("^[^:{CONTROL}]*$"),
        }),
        ValueKind::Text { empty } => {
            let mut text = plain();
            text["minLength"] = usize::from(!empty).into();
            text
        }
        ValueKind::Arguments => json!({ "type": "string" }),
        ValueKind::Host => json!({ "type": "string", "minLength": 1 }),
        ValueKind::Keepalive => json!({
            "anyOf": [{ "const": false }, { "type": "string", "pattern": KEEPALIVE }],
        }),
        ValueKind::OnRevocation => {
            json!({ "anyOf": [{ "enum": ["cut", "keep"] }, duration(false)] })
        }
        ValueKind::Retry => {
            json!({ "anyOf": [{ "const": false }, { "const": "off" }, duration(false)] })
        }
        ValueKind::Password => plain(),
        ValueKind::SslOption => {
            let off = known.iter().map(|name| format!("-{name}"));
            json!({ "enum": known.iter().map(|name| (*name).to_owned()).chain(off).collect::<Vec<_>>() })
        }
        _ if !known.is_empty() => json!({ "enum": known }),
        // What does not work here is not read.
        _ => json!({}),
    }
}

fn duration(zero: bool) -> Value {
    let mut made = json!({ "type": "string", "minLength": 2, "pattern": format!("^{DURATION}$") });
    if !zero {
        made["allOf"] = json!([{ "pattern": "[1-9]" }]);
    }
    made
}

fn address(lowest: u16) -> Value {
    let port = format!("({PORT}|{SERVICE})");
    let text = format!(r"^\s*({PORT}|unix:.+|/.+|\[[^\]]+\]:{port}|[^:\[\]/]+:{port})\s*$");
    json!({ "anyOf": [
        { "type": "integer", "minimum": lowest, "maximum": u16::MAX },
        { "type": "string", "pattern": text },
    ] })
}

#[cfg(test)]
mod tests;
