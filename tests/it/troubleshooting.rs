//! docs/troubleshooting.md: what it has the program say, the program says.

use std::path::PathBuf;

use crate::harness::root;
use crate::schema::walk;

/// The first column of every table, where it is in the program's words.
fn phrases() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    cells.map(|(phrase, _)| phrase.to_owned()).collect()
}

/// The sources without their tests, with literals that go over several lines put together.
fn program() -> String {
    let mut files: Vec<PathBuf> = Vec::new();
    walk(&root().join("src"), &mut files);
    files.retain(|path| {
        path.extension().is_some_and(|e| e == "rs")
            && path.file_name().is_some_and(|n| n != "tests.rs")
    });
    let mut all = String::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines: Vec<_> =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = lines.join("\n");
        let mut pieces = code.split("\\\n");
        all += pieces.next().unwrap_or_default();
        pieces.for_each(|piece| all += piece.trim_start());
    }
    all.replace("\\\"", "\"")
}

/// Whether this stands in the sources; a `{name}` there is whatever is written here.
fn is_said(program: &str, phrase: &str) -> bool {
    phrase.split('…').all(|part| {
        let part = part.trim_matches([' ', ':']);
        part.len() < 3 || program.contains(part)
    })
}

#[test]
fn every_phrase_is_one_that_the_program_says() {
    let (program, phrases) = (program(), phrases());
    assert!(phrases.len() >= 40, "only {}: {phrases:?}", phrases.len());
    let wrong: Vec<_> = phrases.iter().filter(|phrase| !is_said(&program, phrase)).collect();
    assert!(wrong.is_empty(), "the program does not say: {wrong:#?}");
}

#[test]
fn a_phrase_that_was_changed_in_the_program_is_found() {
    let program = program();
    assert!(is_said(&program, "unknown identity …"));
    assert!(!is_said(&program, "unknown identify …"));
    assert!(!is_said(&program, "unknown identity … was offered by a stranger"));
}
