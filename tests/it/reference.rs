//! docs/configuration.md, docs/commands.md and docs/metrics.md: their tables are what the program says.
//!
//! `UPDATE_EXPECTED=1` writes them; read the difference before it is committed.

use std::fmt::Write as _;

use pskgate::config::model::Dialect;
use pskgate::config::options::{Arity, OptionRow, TABLE, TomlTable, ValueKind};

use crate::harness::{
    Backend, IDENTITY, PlainClient, PskgateBuilder, WAIT_TIMEOUT, client_toml, free_port, local,
    program_command, replace, root, server_toml, until, web,
};
use crate::manual::between;

/// Compares a page with what is made for its marked parts, or writes it.
fn hold(page: &str, parts: &[(&str, String)]) -> String {
    let path = root().join("docs").join(page);
    let written = std::fs::read_to_string(&path).expect("a page");
    let made = parts.iter().fold(written.clone(), |text, (name, part)| between(&text, name, part));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &made).expect("the page is written");
    } else {
        assert!(made == written, "docs/{page} is not up to date: UPDATE_EXPECTED=1 writes it");
    }
    made
}

/// What an option takes, in the words of the page's head.
fn values(row: &OptionRow) -> String {
    let words = row.words(Dialect::Native);
    let one = match row.kind {
        // These are in OpenSSL's manual.
        ValueKind::SslOption => "WORD".to_owned(),
        ValueKind::Level => "`error`, `warning`, `notice`, `info`, `debug` and others".to_owned(),
        ValueKind::Facility => "`daemon`, `user`, `local0` to `local7` and others".to_owned(),
        _ if !words.is_empty() => {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        ValueKind::Duration { .. } => "TIME".to_owned(),
        ValueKind::Count { min: 0, max: u32::MAX } => "NUMBER".to_owned(),
        ValueKind::Count { min, max } => format!("NUMBER, {min} to {max}"),
        ValueKind::Path => "FILE".to_owned(),
        ValueKind::Secrets => "FILE or folder".to_owned(),
        ValueKind::Listen | ValueKind::Connect => "ADDRESS".to_owned(),
        ValueKind::Range => "NETWORK".to_owned(),
        ValueKind::Moment => "DATE".to_owned(),
        ValueKind::FileMode => "MODE".to_owned(),
        ValueKind::Size => "SIZE".to_owned(),
        ValueKind::Keepalive => "`IDLE/INTERVAL/COUNT`, `false`".to_owned(),
        ValueKind::OnRevocation => "`cut`, `keep`, TIME".to_owned(),
        ValueKind::Retry => "TIME, `off`".to_owned(),
        ValueKind::Host => "HOST".to_owned(),
        // The only one is `identities`.
        ValueKind::Raw => "tables".to_owned(),
        _ => "TEXT".to_owned(),
    };
    if row.arity == Arity::List { format!("{one}; or a list") } else { one }
}

fn table<'a>(rows: impl Iterator<Item = &'a OptionRow>) -> String {
    let mut made =
        "| option | values | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for row in rows {
        let Some((_, name)) = row.native else { continue };
        let default = row.default(Dialect::Native);
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let _ = writeln!(made, "| `{name}` | {} | {default} | {} |", values(row), row.doc);
    }
    made
}

fn options(of: TomlTable) -> String {
    table(TABLE.iter().filter(|row| row.native.is_some_and(|(table, _)| table == of)))
}

/// The options of a service by what they are for, in the order of the page.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Addresses", &["mode", "accept", "connect", "failover", "local-address", "server-name"]),
    (
        "Keys",
        &[
            "psk-secrets",
            "psk-identity",
            "beremiz-project",
            "runtime-file",
            "wait-for-keys",
            "on-revocation",
            "tls13-psk-hash",
            "allow-shared-keys",
            "allow-loose-permissions",
            "allow-control-characters",
        ],
    ),
    (
        "Access and limits",
        &[
            "allow-from",
            "max-sessions",
            "when-full",
            "max-sessions-per-source",
            "max-sessions-per-identity",
            "max-handshakes",
            "identities",
        ],
    ),
    (
        "Time limits",
        &[
            "handshake-timeout",
            "connect-timeout",
            "idle-timeout",
            "close-timeout",
            "session-lifetime",
            "keepalive",
        ],
    ),
    (
        "TLS",
        &[
            "tls-min",
            "tls-max",
            "ciphers",
            "ciphersuites",
            "cipher-order",
            "groups",
            "security-level",
            "tls-options",
            "rekey-after",
            "resumption",
            "resumption-timeout",
            "resumption-cache-size",
            "ticket-key-secret",
            "ticket-mac-secret",
        ],
    ),
    (
        "Programs and proxies",
        &[
            "exec",
            "exec-args",
            "pty",
            "retry",
            "proxy-header",
            "proxy-protocol-from",
            "protocol",
            "protocol-host",
            "protocol-username",
            "protocol-password",
            "protocol-headers",
            "socks-allow-own",
            "transparent",
        ],
    ),
    // Whatever is in no other group.
    ("Sockets and log", &[]),
];

fn service_options() -> String {
    let rows = || {
        TABLE.iter().filter_map(|row| match row.native {
            Some((TomlTable::Service, name)) => Some((name, row)),
            _ => None,
        })
    };
    let mut made = String::new();
    for (heading, names) in GROUPS {
        let of_group = |name: &str| match names {
            [] => !GROUPS.iter().any(|(_, names)| names.contains(&name)),
            names => names.contains(&name),
        };
        let mut group: Vec<_> = rows().filter(|(name, _)| of_group(name)).collect();
        for name in names {
            assert!(group.iter().any(|(one, _)| one == name), "there is no option {name}");
        }
        group.sort_by_key(|(name, _)| names.iter().position(|one| one == name));
        let group = group.into_iter().map(|(_, row)| row);
        let _ = writeln!(made, "### {heading}\n\n{}", table(group));
    }
    made
}

#[test]
fn the_page_of_options_has_every_option() {
    let parts = [
        ("top", options(TomlTable::Top)),
        ("log", options(TomlTable::Log)),
        ("control", options(TomlTable::Control)),
        ("http", options(TomlTable::Http)),
        ("service", service_options()),
        ("identity", options(TomlTable::Identity)),
    ];
    let made = hold("configuration.md", &parts);
    let native = TABLE.iter().filter(|row| row.native.is_some()).count();
    assert_eq!(made.lines().filter(|line| line.starts_with("| `")).count(), native);
}

fn help(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
    let done =
        program_command().args(words).env("COLUMNS", "110").output().expect("the program runs");
    assert!(done.status.success(), "{command}");
    String::from_utf8(done.stdout).expect("text")
}

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let (_, rest) = help.split_once("Commands:\n").unwrap_or_default();
    let names = rest.lines().take_while(|line| !line.is_empty());
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next().map(str::to_owned));
    names.filter(|name| name != "help").collect()
}

/// The examples of a command's manual page, each under a comment.
fn examples(command: &str) -> Option<String> {
    let text = std::fs::read_to_string(root().join("src/cli/generate/examples.md"));
    let text = text.expect("the examples of the manual");
    let heading = format!("pskgate {command}");
    let mut sections = text.split("\n## ").skip(1).filter_map(|one| one.split_once('\n'));
    let (_, section) = sections.find(|(name, _)| *name == heading)?;
    let lines = section.trim().lines().filter(|line| !line.is_empty());
    let lines = lines.map(|line| match line.strip_prefix("    ") {
        Some(command) => command.to_owned(),
        None => format!("# {}", line.trim_end_matches(':')),
    });
    Some(lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_page_of_commands_has_every_command() {
    let mut made = String::new();
    let mut count = 0;
    for command in listed(&help("")) {
        let text = help(&command);
        let inner: Vec<_> = listed(&text).iter().map(|name| format!("{command} {name}")).collect();
        for (name, text) in
            std::iter::once((command.clone(), text)).chain(inner.into_iter().map(|name| {
                let text = help(&name);
                (name, text)
            }))
        {
            let text: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
            let _ = writeln!(made, "## {name}\n\n```text\n{}\n```\n", text.join("\n"));
            if let Some(examples) = examples(&name) {
                let _ = writeln!(made, "Examples:\n\n```text\n{examples}\n```\n");
            }
            count += 1;
        }
    }
    hold("commands.md", &[("commands", made)]);
    assert!(count >= 20, "only {count} commands");
}

/// The names of the labels that a metric has.
fn labels(exposition: &str, metric: &str) -> String {
    let sample = exposition.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    let pairs = sample.and_then(|rest| rest.split_once('}')).map_or("", |(pairs, _)| pairs);
    let names = pairs.split("\",").filter_map(|pair| pair.split_once("=\""));
    let names: Vec<String> = names.map(|(name, _)| format!("`{name}`")).collect();
    names.join(", ")
}

#[test]
fn the_page_of_metrics_has_every_metric() {
    let backend = Backend::echo();
    let at = local(free_port());
    // A metric without a value is not served: each of these has one.
    let rules = format!("[services.tls.identities.{IDENTITY}]\nexpires = 2099-12-31\n");
    let http = format!("[http]\nlisten = \"{at}\"\n");
    let toml = http + &server_toml(backend.address(), "") + &rules;
    let gate = PskgateBuilder::new().toml(&toml).start();
    let client = PskgateBuilder::new().toml(&client_toml(gate.address("tls"), "")).start();
    PlainClient::connect(client.address("plain")).echo(b"a session that ends");
    PlainClient::connect(gate.address("tls")).send(b"no TLS");
    replace(&gate.folder().join("pskgate.toml"), &toml.replace("2099", "2098"));
    let expected = [
        "pskgate_sessions_ended_total",
        "pskgate_connections_refused_total",
        "pskgate_last_reload_timestamp_seconds",
        "pskgate_key_expiry_timestamp_seconds",
        "pskgate_identity_last_use_timestamp_seconds",
    ];
    let text = until("every metric has a value", WAIT_TIMEOUT, || {
        let text = web::get(at, "/metrics").body;
        expected.iter().all(|name| text.lines().any(|l| l.starts_with(name))).then_some(text)
    });
    let mut made = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    let mut count = 0;
    for line in text.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' '))
        else {
            continue;
        };
        let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        let (kind, labels) = (kind.unwrap_or_default(), labels(&text, name));
        let _ = writeln!(made, "| `{name}` | {kind} | {labels} | {help} |");
        count += 1;
    }
    hold("metrics.md", &[("metrics", made)]);
    assert!(count >= 28, "only {count} metrics");
}

#[test]
fn the_page_of_commands_has_the_exit_codes_and_signals_of_the_manual() {
    let page = std::fs::read_to_string(root().join("docs/commands.md")).expect("a page");
    let manual = std::fs::read_to_string(root().join("src/cli/generate/sections.roff"));
    let manual = manual.expect("the sections of the manual");
    let mut count = 0;
    for line in manual.lines().filter(|line| line.starts_with("\\fB")) {
        for word in line.split("\\fB").filter_map(|rest| rest.split_once("\\fR")).map(|(w, _)| w) {
            if word.parse::<u8>().is_ok() {
                assert!(page.contains(&format!("| {word} | ")), "exit code {word}");
                count += 1;
            } else if word.starts_with("SIG") && word != "SIGQUIT" {
                assert!(page.contains(word), "{word}");
                count += 1;
            }
        }
    }
    assert!(count >= 14, "only {count} exit codes and signals");
}
