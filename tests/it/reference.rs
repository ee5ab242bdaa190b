//! docs/configuration.md, docs/commands.md and docs/metrics.md: their tables are what the program says.
//!
//! `UPDATE_EXPECTED=1` writes them; read the difference before it is committed.

use std::fmt::Write as _;

use pskgate::config::model::Dialect;
use pskgate::config::options::{TABLE, Table};

use crate::harness::{Backend, Gate, free_port, program_command, root, server_toml, web};
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

fn options(table: Table) -> String {
    let mut made = "| option | default | |\n| --- | --- | --- |\n".to_owned();
    for row in TABLE {
        let Some((_, name)) = row.native.filter(|(own, _)| *own == table) else { continue };
        let words = row.words(Dialect::Native).join(" \\| ");
        let values = if words.is_empty() { String::new() } else { format!(" ({words})") };
        let default = row.default(Dialect::Native);
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let _ = writeln!(made, "| `{name}` | {default} | {}{values} |", row.doc);
    }
    made
}

#[test]
fn the_page_of_options_has_every_option() {
    let parts = [
        ("top", options(Table::Top)),
        ("log", options(Table::Log)),
        ("control", options(Table::Control)),
        ("http", options(Table::Http)),
        ("service", options(Table::Service)),
        ("identity", options(Table::Identity)),
    ];
    let made = hold("configuration.md", &parts);
    let native = TABLE.iter().filter(|row| row.native.is_some()).count();
    assert_eq!(made.lines().filter(|line| line.starts_with("| `")).count(), native);
}

fn help(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
    let done = program_command()
        .args(words)
        .env("COLUMNS", "110")
        .output()
        .expect("the program runs");
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
            count += 1;
        }
    }
    hold("commands.md", &[("commands", made)]);
    assert!(count >= 20, "only {count} commands");
}

#[test]
fn the_page_of_metrics_has_every_metric() {
    let backend = Backend::echo();
    let at = free_port();
    let http = format!("[http]\nlisten = \"127.0.0.1:{at}\"\n");
    let gate = Gate::new().toml(&(http + &server_toml(backend.address(), ""))).start();
    gate.wait_logged("listening on");
    let text = web::get(([127, 0, 0, 1], at).into(), "/metrics").body;
    let mut made = "| metric | type | |\n| --- | --- | --- |\n".to_owned();
    let mut count = 0;
    for line in text.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) else {
            continue;
        };
        let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        let _ = writeln!(made, "| `{name}` | {} | {help} |", kind.unwrap_or_default());
        count += 1;
    }
    hold("metrics.md", &[("metrics", made)]);
    assert!(count >= 20, "only {count} metrics");
}
