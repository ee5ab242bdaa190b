//! docs/reliability.md, of the raw results under docs/reliability and of nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::figure::{Bar, Figure, FigureValue, Line, Machine};
use super::{fuzzed, tested};
use crate::harness::machine::results_in;
use crate::harness::root;

/// A requirement and what shows it. Figures come from the results, by its id.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    pub id: String,
    /// What is asked for, in a sentence.
    pub asks: String,
    pub bar: String,
    /// Names of tests in tests/it, as `file::name`, and of unit tests, as `src/file::name`.
    #[serde(default)]
    pub tests: Vec<String>,
    /// What of it is not met, or not shown.
    #[serde(default)]
    pub open: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sheet {
    requirement: Vec<Requirement>,
}

pub fn requirements() -> Vec<Requirement> {
    let text = std::fs::read_to_string(root().join("docs/reliability/requirements.toml"));
    let sheet: Sheet =
        toml::from_str(&text.expect("the requirements")).expect("the requirements are TOML");
    sheet.requirement
}

/// Copies what full runs left in target/faults, and writes the page.
pub fn keep_and_write() {
    let (from, to) = (root().join("target/faults"), root().join("docs/reliability"));
    for file in results_in(&from) {
        let name = file.file_name().expect("a file's name");
        std::fs::copy(&file, to.join(name)).expect("the results are copied");
    }
    for folder in ["fuzz", "mutants"] {
        std::fs::create_dir_all(to.join(folder)).expect("a folder for the results");
    }
    let from = root().join("target/fuzz");
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let (from, name) = (entry.path(), entry.file_name());
        if from.extension().is_some_and(|ending| ending == "txt") {
            let text = std::fs::read_to_string(&from).expect("what a fuzzer said");
            if fuzzed::counts(&text) {
                std::fs::write(to.join("fuzz").join(name), text).expect("the results are copied");
            }
        }
    }
    keep(&root().join("target/sanitize"), "result.txt", &to.join("sanitize.txt"));
    for entry in std::fs::read_dir(root().join("target/mutants")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".txt") {
            keep(&root().join("target/mutants"), &name, &to.join("mutants").join(&name));
        }
    }
    std::fs::write(page_path(), page()).expect("docs/reliability.md is written");
}

/// Copies a result that is there.
fn keep(folder: &Path, name: &str, to: &Path) {
    let from = folder.join(name);
    if from.exists() {
        std::fs::copy(from, to).expect("the results are copied");
    }
}

pub fn page_path() -> PathBuf {
    root().join("docs/reliability.md")
}

fn results() -> (Vec<Machine>, Vec<Figure>) {
    let (mut machines, mut figures) = (Vec::new(), Vec::new());
    for file in results_in(&root().join("docs/reliability")) {
        let text = std::fs::read_to_string(&file).expect("a file of results");
        for line in text.lines() {
            let read = serde_json::from_str(line);
            match read.unwrap_or_else(|error| panic!("{}: {error}", file.display())) {
                Line::Machine(machine) if machines.contains(&machine) => {}
                Line::Machine(machine) => machines.push(machine),
                Line::Figure(figure) => figures.push(figure),
            }
        }
    }
    figures.extend(fuzzed::all(&root().join("docs/reliability/fuzz")));
    (machines, figures)
}

/// In a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn with_unit(seen: &FigureValue, unit: &str) -> String {
    match seen {
        FigureValue::Number(_) => format!("{seen} {unit}").trim_end().to_owned(),
        FigureValue::Words(words) => words.clone(),
    }
}

pub fn page() -> String {
    let (machines, figures) = results();
    let requirements = requirements();
    let mut page = String::from(
        "# Reliability\n\n\
         For a user, the figures of this page mean:\n\n\
         - Without the key, no connection reaches the backend, whatever a client or a server claims.\n\
         - A removed key ends its sessions within 1 s. A reload interrupts nobody.\n\
         - A peer that disappeared is found within 35 s. A slow peer is not cut.\n\
         - Floods of connections without a key do not keep out clients with a key.\n\
         - If any part is killed, no incomplete answer looks complete at a client.\n\n\
         The first table lists every requirement. Its last column names what has not been shown completely.\n\n\
         `scripts/faults --report` writes this page from `docs/reliability/`. Figures are from `scripts/faults --all`,\n\
         `scripts/soak` and `scripts/fuzz`. Where possible, the same fault was applied to Debian's stunnel4 in the same\n\
         run. The tests of `scripts/test` fail when a limit (\"bar\") is missed.\n\n",
    );
    page += "Measured on:\n\n| date | kernel | cores | OpenSSL | stunnel4 | pskgate |\n| --- | --- | --- | --- | --- | --- |\n";
    for Machine { date, kernel, cores, openssl, stunnel4, pskgate } in &machines {
        let _ =
            writeln!(page, "| {date} | {kernel} | {cores} | {openssl} | {stunnel4} | {pskgate} |");
    }
    page += "\n## At a glance\n\n| id | asks | bar | shown by | state |\n| --- | --- | --- | --- | --- |\n";
    for one in &requirements {
        let seen: Vec<_> = figures.iter().filter(|figure| figure.id == one.id).collect();
        let missed = seen.iter().filter(|figure| !figure.is_met()).count();
        let mut shown = Vec::new();
        if !one.tests.is_empty() {
            let plural = if one.tests.len() == 1 { "test" } else { "tests" };
            shown.push(format!("{} {plural}", one.tests.len()));
        }
        if !seen.is_empty() {
            shown.push(format!("{} figures", seen.len()));
        }
        let state = if shown.is_empty() {
            "**not shown**".to_owned()
        } else if missed > 0 {
            format!("**{missed} missed**")
        } else if one.open.is_empty() {
            "met".to_owned()
        } else {
            "met in part".to_owned()
        };
        let state = if one.open.is_empty() { state } else { format!("{state}: {}", one.open) };
        let shown = if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {shown} | {} |",
            one.id,
            cell(&one.asks),
            cell(&one.bar),
            cell(&state)
        );
    }
    page += "\n## Figures\n\nA dash where a make was not asked, or has no such figure.\n";
    for one in &requirements {
        let mut faults: BTreeMap<&str, Vec<&Figure>> = BTreeMap::new();
        for figure in figures.iter().filter(|figure| figure.id == one.id) {
            faults.entry(&figure.fault).or_default().push(figure);
        }
        if faults.is_empty() {
            continue;
        }
        let _ = write!(page, "\n### {}\n", one.id);
        for (fault, figures) in faults {
            let _ = write!(
                page,
                "\n{}{}:\n\n| seen | bar | pskgate | met | stunnel4 |\n| --- | --- | --- | --- | --- |\n",
                fault[..1].to_uppercase(),
                &fault[1..]
            );
            for figure in figures {
                let met = match figure.bar {
                    Bar::Told => "",
                    _ if figure.is_met() => "yes",
                    _ => "**no**",
                };
                let theirs = figure.stunnel4.as_ref();
                let theirs =
                    theirs.map_or_else(|| "-".to_owned(), |seen| with_unit(seen, &figure.unit));
                let _ = writeln!(
                    page,
                    "| {} | {} | {} | {met} | {} |",
                    cell(&figure.what),
                    with_unit(&FigureValue::Words(figure.bar.to_string()), ""),
                    with_unit(&figure.pskgate, &figure.unit),
                    cell(&theirs)
                );
            }
        }
    }
    page += &tested::section(&root());
    page += "\n## Tests\n";
    for one in requirements.iter().filter(|one| !one.tests.is_empty()) {
        let _ = write!(page, "\n### {}\n\n", one.id);
        for test in &one.tests {
            let _ = writeln!(page, "- `{test}`");
        }
    }
    page
}
