//! What docs/DESIGN.md and CONTRIBUTING.md name is there.

use std::collections::BTreeSet;

use super::files;
use crate::harness::root;

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names of the types that src defines.
fn types() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, code) in files() {
        for line in code.lines() {
            let words: Vec<_> = line
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|word| !word.is_empty())
                .collect();
            let pairs = words.windows(2);
            let types = pairs.filter(|pair| ["struct", "enum", "trait", "type"].contains(&pair[0]));
            found.extend(types.map(|pair| pair[1].to_owned()));
        }
    }
    found
}

#[test]
fn each_type_of_the_glossary_is_defined() {
    let design = page("docs/DESIGN.md");
    let table = design.split_once("| term | type | meaning |").expect("the glossary").1;
    let rows: Vec<_> =
        table.lines().skip(1).take_while(|line| line.is_empty() || line.starts_with('|')).collect();
    let types = types();
    let column = |row: &&str| row.split('|').nth(2).unwrap_or_default().to_owned();
    let columns: Vec<String> = rows.iter().map(column).collect();
    let named: Vec<&str> = columns.iter().flat_map(|column| in_backticks(column)).collect();
    let missing: Vec<_> = named.iter().filter(|name| !types.contains(**name)).collect();
    assert!(missing.is_empty(), "src defines no {missing:?}");
    assert!(named.len() > 20, "only {named:?}");
}

#[test]
fn each_source_file_that_a_page_names_is_there() {
    let (mut count, mut missing) = (0, Vec::new());
    for name in ["docs/DESIGN.md", "CONTRIBUTING.md"] {
        let text = page(name);
        let paths = in_backticks(&text).filter(|path| {
            let is_path = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"_/.-".contains(&b));
            is_path && path.contains('/') && path.ends_with(".rs")
        });
        for path in paths {
            count += 1;
            let places = ["", "src/", "src/tunnel/", "tests/it/"];
            if !places.iter().any(|place| root().join(place).join(path).is_file()) {
                missing.push(format!("{name}: {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count > 30, "only {count} paths were found");
}
