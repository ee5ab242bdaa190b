//! `keys list`: who may come, by which key, and whether that key is still in use.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::KeySelection;
use super::inventory::{KeyInventory, display_identity};
use crate::cli::refusal::Refusal;
use crate::cli::table::{Alignment, Column};
use crate::cli::terminal::Style;
use crate::cli::{control_client, exit, print_result, table};
use crate::observe::status::{IdentityStatus, Status};

/// One line of a key file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct KeyRow {
    /// The name on the wire.
    identity: String,
    /// Itself, unless the configuration says otherwise.
    belongs_to: String,
    fingerprint: String,
    file: String,
    line: u32,
    services: Vec<String>,
    /// The rest is unset when no running program tells.
    last_use: Option<String>,
    sessions: Option<usize>,
    expires: Option<String>,
    expired: bool,
}

/// The columns, and in which order they go.
const COLUMNS: [Column; 8] = [
    ("identity", Alignment::Left, 0),
    ("belongs to", Alignment::Left, 3),
    ("fingerprint", Alignment::Left, 0),
    ("source", Alignment::Left, 4),
    ("services", Alignment::Left, 5),
    ("last use", Alignment::Left, 1),
    ("sessions", Alignment::Right, 0),
    ("expires", Alignment::Left, 2),
];

pub(super) fn main(selection: &KeySelection, json: bool) -> Result<u8, Refusal> {
    let inventory = KeyInventory::load(selection)?;
    let rows = rows(&inventory, running_status(&inventory).as_ref());
    let wrong = inventory.show_findings();
    let said = if json {
        let text = serde_json::to_string_pretty(&rows)
            .map_err(|error| Refusal::new(exit::INTERNAL, format!("no JSON: {error}")))?;
        print_result(&text)
    } else {
        print_result(&render_table(&rows, &Style::for_stdout()))
    };
    Ok(if wrong { exit::CONFIG } else { said })
}

/// What the program that runs this configuration tells; nothing if none can be asked.
fn running_status(inventory: &KeyInventory) -> Option<Status> {
    control_client::status_of_running(inventory.file.as_deref()?)
}

fn rows(inventory: &KeyInventory, status: Option<&Status>) -> Vec<KeyRow> {
    let mut rows: Vec<KeyRow> = Vec::new();
    let mut places: BTreeMap<(&Path, u32), usize> = BTreeMap::new();
    for holder in &inventory.holders {
        let service = holder.service.as_deref();
        for entry in holder.entries.iter().filter(|entry| inventory.filter.has(holder, entry)) {
            // Services that read one file share its lines.
            let index = *places.entry((entry.file(), entry.line())).or_insert_with(|| {
                let identity = display_identity(entry.identity());
                rows.push(KeyRow {
                    belongs_to: inventory.owner(service, &identity).to_owned(),
                    identity,
                    fingerprint: entry.fingerprint().to_string(),
                    file: entry.file().display().to_string(),
                    line: entry.line(),
                    services: Vec::new(),
                    last_use: None,
                    sessions: status.map(|_| 0),
                    expires: None,
                    expired: false,
                });
                rows.len() - 1
            });
            let (Some(row), Some(service)) = (rows.get_mut(index), service) else { continue };
            row.services.push(service.to_owned());
            if row.belongs_to == row.identity {
                row.belongs_to = inventory.owner(Some(service), &row.identity).to_owned();
            }
        }
    }
    let Some(status) = status else { return rows };
    let mut told: BTreeMap<(&str, &str), &IdentityStatus> = BTreeMap::new();
    for service in &status.services {
        for identity in &service.identities {
            told.insert((&service.name, identity.wire.as_str()), identity);
        }
    }
    for row in &mut rows {
        for service in &row.services {
            let Some(told) = told.get(&(service.as_str(), row.identity.as_str())) else { continue };
            // Times of one form and one zone: the later one is the greater text.
            row.last_use = row.last_use.take().max(told.last_use.clone());
            row.sessions = row.sessions.map(|sessions| sessions + told.sessions);
            row.expires = row.expires.take().or_else(|| told.expires.clone());
            row.expired |= told.expired;
        }
    }
    rows
}

fn render_table(rows: &[KeyRow], style: &Style) -> String {
    let unknown = || "-".to_owned();
    let is_terminal = style.width().is_some();
    let here = std::env::current_dir().ok().filter(|_| is_terminal);
    let cells = |row: &KeyRow| {
        let file = Path::new(&row.file);
        let near = here.as_deref().and_then(|here| file.strip_prefix(here).ok()).unwrap_or(file);
        [
            row.identity.clone(),
            row.belongs_to.clone(),
            row.fingerprint.clone(),
            format!("{}:{}", near.display(), row.line),
            if row.services.is_empty() { unknown() } else { row.services.join(",") },
            row.last_use.clone().unwrap_or_else(unknown),
            row.sessions.map_or_else(unknown, |sessions| sessions.to_string()),
            row.expires.as_deref().map_or_else(unknown, |end| last_day(end, row.expired)),
        ]
    };
    // What every line would leave empty, or say twice.
    let hidden = COLUMNS.map(|(title, ..)| {
        is_terminal
            && rows.iter().all(|row| match title {
                "belongs to" => row.belongs_to == row.identity,
                "services" => row.services.is_empty(),
                "expires" => row.expires.is_none(),
                _ => false,
            })
    });
    table::render(&COLUMNS, rows.iter().map(cells), hidden, style)
}

/// The day that the configuration names: the last one, not the midnight after it.
fn last_day(end: &str, over: bool) -> String {
    let before = |end: jiff::Timestamp| end.checked_sub(jiff::SignedDuration::from_secs(1)).ok();
    let day = match end.parse().ok().and_then(before) {
        Some(last) => last.strftime("%Y-%m-%d").to_string(),
        None => end.to_owned(),
    };
    if over { format!("{day}, over") } else { day }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::observe::status::ServiceStatus;

    #[test]
    fn what_a_running_program_tells_stands_beside_each_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("psk.txt");
        let key = |n: u32| format!("key number {n} of more than thirty-two bytes");
        std::fs::write(&file, format!("plc:{}\nplc~2:{}\n", key(1), key(2))).unwrap();
        let selection = KeySelection {
            config: None,
            format: Default::default(),
            key_file: Some(file),
            service: None,
        };
        let mut inventory = KeyInventory::load(&selection).unwrap();
        let style = |size| Style { size, unicode: true, color: false };
        let said = render_table(&rows(&inventory, None), &style(None));
        assert_eq!(said.lines().count(), 3, "{said}");
        assert!(!said.contains("key number"), "{said}");
        let last: Vec<_> = said.lines().nth(1).unwrap().split_whitespace().rev().take(3).collect();
        assert_eq!(last, ["-"; 3], "{said}");

        inventory.holders[0].service = Some("a".into());
        let wire = |identity: &str, name: &str| crate::cli::keys::inventory::WireName {
            service: "a".into(),
            identity: identity.into(),
            name: name.into(),
        };
        inventory.wire_names = vec![wire("plc", "plc"), wire("plc", "plc~2")];
        let told = IdentityStatus {
            wire: "plc~2".into(),
            last_use: Some("2026-01-02T03:04:05Z".into()),
            sessions: 2,
            ..IdentityStatus::default()
        };
        let status = Status {
            services: vec![ServiceStatus {
                name: "a".into(),
                identities: vec![told],
                ..ServiceStatus::default()
            }],
            ..Status::default()
        };
        let rows = rows(&inventory, Some(&status));
        assert_eq!((rows[0].sessions, rows[1].sessions), (Some(0), Some(2)));
        assert_eq!(rows[1].last_use.as_deref(), Some("2026-01-02T03:04:05Z"));
        for width in [60, 80, 100] {
            let said = render_table(&rows, &style(Some((width, 24))));
            let fits = said.lines().all(|line| line.chars().count() <= width);
            assert!(fits && said.contains(&rows[1].fingerprint), "{width} columns:\n{said}");
        }
        assert_eq!(last_day("2026-12-11T00:00:00Z", false), "2026-12-10");
        assert_eq!((&*rows[0].belongs_to, &*rows[1].belongs_to), ("plc", "plc"));
    }
}
