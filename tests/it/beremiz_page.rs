//! docs/beremiz-tests.md and docs/fleet.md: their tables are what the raw results say, and pskgate accepts the
//! configurations that they and other pages show.

use std::path::Path;

use pskgate::config::{Format, load_text};

use super::reliability::figure;
use crate::harness::root;

// The report reads what scripts/e2e wrote; what writes it there is not needed here.
#[allow(dead_code)]
#[path = "../e2e/report.rs"]
mod report;
#[allow(dead_code)]
#[path = "../e2e/trips.rs"]
mod trips;

#[test]
fn the_tables_are_made_from_the_raw_results() {
    for page in report::PAGES {
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(page.path(), page.with_tables()).expect("the page is written");
        }
        assert!(
            page.read() == page.with_tables(),
            "those of docs/{}.md are not: UPDATE_EXPECTED=1 writes them",
            page.name
        );
    }
}

#[test]
fn every_connector_has_its_round_trips_and_every_requirement_its_bar() {
    let [tables, fleet] = report::PAGES.map(|page| page.tables());
    for name in ["pyro4", "pyro5", "pyros4", "erpc", "erpcs", "wamp", "modbus", "opcua", "mqtt"] {
        assert!(tables["rates"].contains(&format!("| {name} |")), "no row of {name}");
    }
    for id in ["1", "2", "3", "4", "5"] {
        assert!(tables["requirements"].contains(&format!("| {id} |")), "no row of {id}");
    }
    for habit in ["every 200 ms", "every 2 s", "after 2 to 3 s"] {
        assert!(fleet["fleet"].contains(habit), "no row of PLCs that connect anew {habit}");
    }
    for table in [&tables["requirements"], &fleet["fleet"]] {
        assert!(!table.contains("**no**"), "a bar is missed");
    }
}

/// What stands between fences of this kind, each with the line that it begins at.
fn blocks(page: &str, kind: &str) -> Vec<(usize, String)> {
    let (mut found, mut open) = (Vec::new(), None);
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line) {
            (None, fence) if fence == format!("```{kind}") => {
                open = Some((number + 1, String::new()))
            }
            (Some(_), "```") => found.extend(open.take()),
            (Some((_, text)), line) => *text += &format!("{line}\n"),
            (None, _) => {}
        }
    }
    found
}

#[test]
fn the_configurations_in_the_pages_are_taken() {
    let pages = [
        ("docs/beremiz.md", 8),
        ("docs/fleet.md", 2),
        ("docs/first-tunnel.md", 1),
        ("docs/access.md", 1),
        ("docs/programs.md", 3),
        ("docs/windows.md", 1),
    ];
    for (page, least) in pages {
        let text = std::fs::read_to_string(root().join(page)).expect("a page");
        let native = blocks(&text, "toml").into_iter().map(|block| (block, "page.toml"));
        let stunnel = blocks(&text, "conf").into_iter().map(|block| (block, "stunnel.conf"));
        let ours = stunnel.filter(|((_, text), _)| text.contains("PSKsecrets"));
        let all: Vec<_> = native.chain(ours).collect();
        assert!(all.len() >= least, "only {} configurations in {page}", all.len());
        for ((line, text), name) in all {
            let read =
                load_text(text.as_bytes(), Path::new(name), Path::new("/base"), Format::Auto);
            if let Err(report) = read {
                panic!("{page}, line {line}:\n{}", report.render(false));
            }
        }
    }
}
