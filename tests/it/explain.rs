//! `explain`: a page for every code that the program can print, and no page for one that it cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::harness::process::pskgate;
use crate::harness::{PskgateBuilder, root, server_toml};

/// What stands right before a code in the sources: the only ways in which one is given.
const BEFORE: [&str; 15] = [
    "Diagnostic::error(",
    "Diagnostic::warning(",
    "Diagnostic::notice(",
    "ValueError::new(",
    "self.error(",
    "remark(",
    "code:",
    ".refused(",
    "ProblemSeverity::Error,",
    "ProblemSeverity::Warning,",
    "ProblemSeverity::Note,",
    "strict,",
    "severity,",
    "Severity::Error,",
    "Severity::Warning,",
];

fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The string literal that a piece of code begins with, if it could be a code.
fn literal(code: &str) -> Option<&str> {
    let (text, _) = code.trim_start().strip_prefix('"')?.split_once('"')?;
    is_code(text).then_some(text)
}

/// Every code that a source gives.
fn codes(source: &str) -> BTreeSet<String> {
    let code: String = source
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code).trim())
        .collect::<Vec<_>>()
        .join(" ");
    let mut found = BTreeSet::new();
    for before in BEFORE {
        for (at, _) in code.match_indices(before) {
            found.extend(literal(&code[at + before.len()..]).map(str::to_owned));
        }
    }
    // Names of causes and of ends, and codes that are chosen by an error's kind.
    for (start, arrow) in [
        ("fn name(&self) -> &'static str {", "=> "),
        ("let (code, help) = match", "("),
        ("let (text, help, code) = match", ", "),
    ] {
        for (at, _) in code.match_indices(start) {
            let body = &code[at + start.len()..];
            let end = body.find("} }").or_else(|| body.find("};")).unwrap_or(body.len());
            for (at, _) in body[..end].match_indices(arrow) {
                found.extend(literal(&body[at + arrow.len()..]).map(str::to_owned));
            }
        }
    }
    found
}

/// Code → a file that gives it.
fn all() -> BTreeMap<String, String> {
    fn walk(folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                walk(&path, found);
            } else if path.ends_with("event/table.rs") || path.ends_with("daemon/control.rs") {
                // Their names are those of log lines, which say all themselves, and of commands.
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = std::fs::read_to_string(&path).expect("a source can be read");
                for code in codes(&text) {
                    found.insert(code, path.display().to_string());
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root().join("src"), &mut found);
    found
}

/// The codes that `explain` lists.
fn listed() -> BTreeSet<String> {
    let done = pskgate(PskgateBuilder::new().folder(), &["explain"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let lines = done.out.lines().filter_map(|line| line.strip_prefix("  "));
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_code_that_the_program_gives_has_a_page_and_every_page_is_of_such_a_code() {
    let (given, pages) = (all(), listed());
    let missing: Vec<_> = given.iter().filter(|(code, _)| !pages.contains(*code)).collect();
    assert!(
        missing.is_empty(),
        "write a section `## CODE` into a file of src/cli/explain/ for each of: {missing:#?}"
    );
    let stale: Vec<_> = pages.iter().filter(|page| !given.contains_key(*page)).collect();
    assert!(stale.is_empty(), "nothing gives these codes; remove their pages: {stale:?}");
    assert!(given.len() > 90, "is this test still reading the sources? {given:?}");
}

#[test]
fn the_page_in_the_browser_has_words_for_every_refusal_and_every_end() {
    let script = root().join("src/daemon/http/page/page.js");
    let script = std::fs::read_to_string(script).expect("the page's script");
    let mut codes = 0;
    for group in ["handshake.md", "session.md"] {
        let pages = root().join("src/cli/explain").join(group);
        let pages = std::fs::read_to_string(pages).expect("pages of explain");
        for code in pages.lines().filter_map(|line| line.strip_prefix("## ")) {
            assert!(script.contains(&format!("\n  \"{code}\": \"")), "no words for {code}");
            codes += 1;
        }
    }
    assert!(codes > 35, "only {codes}");
}

#[test]
fn the_reader_of_codes_sees_every_form() {
    let source = "fn f() { Diagnostic::error(\n    \"one\", text); Wrong { code: \"two\", x }\n\
                  say(strict, \"three\", m); say(\n  ProblemSeverity::Warning,\n  \"four\",\n m)\n\
                  counters.refused(\"five\"); // Diagnostic::error(\"not\")\n}\n\
                  let (code, help) = match kind { A => (\"six\", \"Some help\"), _ => { (\"seven\", \"h\") } };\n\
                  fn name(&self) -> &'static str { match self { A => \"eight\", } } x => \"not-either\"\n\
                  #[cfg(test)]\nmod tests { Diagnostic::error(\"nor-this\") }";
    let found = codes(source);
    let wanted = ["eight", "five", "four", "one", "seven", "six", "three", "two"];
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
}

#[test]
fn a_page_says_what_it_means_and_what_to_do() {
    let done = pskgate(PskgateBuilder::new().folder(), &["explain", "unit-missing"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    for wanted in ["unit-missing", "wrong:  idle-timeout = 60", "right:  idle-timeout = \"60s\""] {
        assert!(done.out.contains(wanted), "`{wanted}` is not in: {}", done.out);
    }
}

#[test]
fn a_misspelt_code_is_refused_with_the_nearest() {
    for (wrong, right) in [("unkown-option", "unknown-option"), ("wrong_key", "wrong-key")] {
        let done = pskgate(PskgateBuilder::new().folder(), &["explain", wrong]);
        assert_eq!(done.code, Some(64), "{}", done.out);
        assert!(done.err.contains(&format!("did you mean `{right}`")), "{}", done.err);
    }
    let done = pskgate(PskgateBuilder::new().folder(), &["explain", "x\u{1b}[2J"]);
    assert!(!done.err.contains('\u{1b}'), "{:?}", done.err);
}

#[test]
fn check_points_to_explain_once_and_never_in_json() {
    let gate =
        PskgateBuilder::new().toml(&server_toml("127.0.0.1:9", "acept = 1\nidle-timeout = 5"));
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert_eq!(done.err.matches("pskgate explain ").count(), 1, "{}", done.err);
    let json = pskgate(gate.folder(), &["check", "--json", "pskgate.toml"]);
    assert!(!json.out.contains("pskgate explain ") && json.err.is_empty(), "{}", json.err);
}
