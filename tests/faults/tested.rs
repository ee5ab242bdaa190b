//! How the tests were tried themselves: mistakes that were made on purpose (scripts/mutants), and the same
//! tests under AddressSanitizer (scripts/sanitize). From their raw results alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What stands behind a word at the beginning of a line.
fn said<'a>(lines: &'a [String], word: &str) -> impl Iterator<Item = &'a str> {
    let word = format!("{word} ");
    lines.iter().filter_map(move |line| line.strip_prefix(&word))
}

/// A mistake without the line and column at which it was made: they change with every edit.
fn placeless(missed: &str) -> String {
    let mut parts = missed.splitn(4, ':');
    let file = parts.next().unwrap_or_default();
    let what = parts.nth(2).unwrap_or_default();
    format!("{file}:{what}")
}

/// The mistakes for which there is a word, and the word.
fn explained(folder: &Path) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for line in lines(&folder.join("explained.txt")) {
        match (line.strip_prefix("  "), all.last_mut()) {
            (Some(word), Some((_, words))) => {
                let between = if words.is_empty() { "" } else { " " };
                *words = format!("{words}{between}{word}");
            }
            _ if line.is_empty() => {}
            _ => all.push((line, String::new())),
        }
    }
    all
}

fn results(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("src-"))
        })
        .collect();
    files.sort();
    files
}

/// The files of the script's table that have no whole result.
fn not_run(root: &Path, folder: &Path) -> Vec<String> {
    let script = lines(&root.join("scripts/mutants"));
    let table = script.iter().filter_map(|line| line.split_whitespace().next());
    let files = table.filter(|word| word.starts_with("src/") && word.ends_with(".rs"));
    let is_whole = |file: &&str| {
        let result = lines(&folder.join(format!("{}.txt", file.replace('/', "-"))));
        !result.is_empty() && said(&result, "left").next().is_none()
    };
    files.filter(|file| !is_whole(file)).map(str::to_owned).collect()
}

/// Survivors that nobody has explained.
pub fn unexplained(root: &Path) -> Vec<String> {
    let folder = root.join("docs/reliability/mutants");
    let explained = explained(&folder);
    let missed = results(&folder)
        .into_iter()
        .flat_map(|file| said(&lines(&file), "missed").map(placeless).collect::<Vec<_>>());
    missed
        .filter(|missed| !explained.iter().any(|(one, words)| one == missed && !words.is_empty()))
        .collect()
}

/// The page's part about it.
pub fn section(root: &Path) -> String {
    let mut page = String::from("\n## How the tests were tested\n");
    let folder = root.join("docs/reliability/mutants");
    let files = results(&folder);
    if files.is_empty() {
        page += "\nMutation testing: **not shown**; `scripts/mutants` does it.\n";
    } else {
        page += "\nMistakes that were made on purpose, one at a time (`scripts/mutants`, cargo-mutants), and whether \
                 a\ntest noticed. One by which a test hangs is noticed.\n\n\
                 | date | file | mistakes that compile | noticed by unit tests | by integration tests | by a hang | by \
                 none, and explained below | unexplained | not by unit tests, and not \
                 run to the end |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
        let open = unexplained(root);
        for file in &files {
            let lines = lines(file);
            let word = |word: &str| said(&lines, word).next().unwrap_or("?").to_owned();
            let number = |name: &str| word(name).parse::<usize>().unwrap_or(0);
            let (unit, integration) =
                (number("caught-by-unit-tests"), number("caught-by-integration-tests"));
            let (hangs, missed) = (number("hangs"), said(&lines, "missed").count());
            let unexplained =
                said(&lines, "missed").filter(|one| open.contains(&placeless(one))).count();
            let left = said(&lines, "left").count();
            let all = unit + integration + hangs + missed + left;
            let explained = missed - unexplained;
            let _ = writeln!(
                page,
                "| {} | `{}` | {all} | {unit} | {integration} | {hangs} | {explained} | {unexplained} | {left} |",
                word("date"),
                word("file")
            );
        }
        let not_run = not_run(root, &folder);
        if !not_run.is_empty() {
            let _ = writeln!(page, "\nNot run to the end: `{}`.", not_run.join("`, `"));
        }
        let missed: Vec<String> = files
            .iter()
            .flat_map(|file| said(&lines(file), "missed").map(placeless).collect::<Vec<_>>())
            .collect();
        let explained = explained(&folder);
        let mut words = explained.iter().filter(|(one, _)| missed.contains(one)).peekable();
        if words.peek().is_some() {
            page += "\nWhat no test notices, and why that is no hole in the tests:\n\n";
        }
        for (one, words) in words {
            let _ = writeln!(page, "- `{one}`: {words}");
        }
    }
    let lines = lines(&root.join("docs/reliability/sanitize.txt"));
    if lines.is_empty() {
        page += "\nAddressSanitizer: **not shown**; `scripts/sanitize` does it.\n";
        return page;
    }
    let first = |word: &str| said(&lines, word).next().unwrap_or("?").to_owned();
    let _ = write!(
        page,
        "\nUnder AddressSanitizer, with the system's OpenSSL beneath (`scripts/sanitize`, {}, {}): reports of \
         memory\nmisused or, at the end of a process, lost: {}. The tests:\n\n",
        first("date"),
        first("rustc"),
        first("reports")
    );
    for (kind, result) in said(&lines, "tests").zip(said(&lines, "test result:")) {
        let _ = writeln!(page, "- `{kind}`: {result}");
    }
    let _ = writeln!(
        page,
        "\nLeft out, for a sanitizer changes what they look at: `{}`.",
        first("left-out")
    );
    page
}
