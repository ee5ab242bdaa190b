//! docs/stunnel.md: what in it is made from the code and from the corpus is what they say now.
//!
//! `UPDATE_EXPECTED=1` writes it; read the difference before it is committed.

use pskgate::config::options::TABLE;

use crate::differential::corpus;
use crate::harness::root;
use stunnel_options::{stunnel_options, stunnel_tests, tests_named};

mod stunnel_options;

/// Puts `made` between the two comments that bear this name.
pub fn between(text: &str, name: &str, made: &str) -> String {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let (head, rest) = text.split_once(&begin).expect("the begin of what is made");
    let (_, tail) = rest.split_once(&end).expect("the end of what is made");
    format!("{head}{begin}\n{}\n\n{end}{tail}", made.trim())
}

fn differences() -> String {
    let mut made = String::new();
    let kinds = [
        ("accepts", "What stunnel 5.68 refuses and pskgate accepts"),
        ("refuses", "What stunnel 5.68 accepts and pskgate refuses"),
        ("differs", "What both accept, and what comes of it differs"),
    ];
    for (kind, heading) in kinds {
        made += &format!("### {heading}\n\n");
        for one in corpus::differences().iter().filter(|one| one.kind == kind) {
            let cases: Vec<String> = one.cases.iter().map(|case| format!("`{case}`")).collect();
            let shown = if cases.len() > 6 {
                format!("{} and {} more", cases[..5].join(", "), cases.len() - 5)
            } else {
                cases.join(", ")
            };
            made += &format!("- {} ({shown})\n", one.why);
        }
        made.push('\n');
    }
    made
}

#[test]
fn the_manual_of_stunnel_s_options_is_what_the_code_does() {
    let path = root().join("docs/stunnel.md");
    let written = std::fs::read_to_string(&path).expect("docs/stunnel.md");
    let made = between(&written, "options", &stunnel_options());
    let made = between(&made, "differences", &differences());
    let made = between(&made, "tests", &stunnel_tests());
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &made).unwrap();
    } else {
        assert!(made == written, "docs/stunnel.md is not up to date: UPDATE_EXPECTED=1 writes it");
    }
    let tests = tests_named();
    assert!(tests.len() >= 40, "only {}", tests.len());
    for test in tests {
        let (file, name) = test.split_once("::").unwrap();
        let text = std::fs::read_to_string(root().join(format!("tests/it/{file}.rs"))).unwrap();
        assert!(text.contains(&format!("#[test]\nfn {name}()")), "there is no test {test}");
    }
    let heads = ["### Tunnels with pre-shared keys", "### Also useful"];
    for head in heads {
        let (_, table) = made.split_once(head).unwrap();
        let table = table.split("\n### ").next().unwrap();
        for row in table.lines().filter(|line| line.starts_with("| `") && line.contains("| works"))
        {
            let judged = ["| works, same |", "| works, better |"].iter().any(|is| row.contains(is));
            assert!(judged, "is it the same as with stunnel, or better? {row}");
        }
    }
    let mut rows = 0;
    for name in TABLE.iter().flat_map(|row| row.stunnel) {
        let cell = format!("`{name}`");
        let is_named = made.lines().any(|line| line.starts_with("| `") && line.contains(&cell));
        assert!(is_named, "{name} has no row");
        rows += 1;
    }
    assert!(rows >= 100, "only {rows} names");
    let lines = made.lines().filter(|line| line.starts_with("| `")).count();
    assert!(lines >= 100, "only {lines} rows");
}
