//! What the fuzzers saw, read from libFuzzer's own words: docs/reliability/fuzz has them as scripts/fuzz kept
//! them, a file for each target.

use std::path::Path;

use super::figure::{Bar, Figure, FigureValue};

/// Ten minutes, which is what is asked of each, and what of them a processor was really at work: a machine
/// that has other things to do tries little in ten minutes.
const SECONDS: f64 = 600.0;
const OF_A_PROCESSOR: f64 = 500.0;

/// The number behind a word.
fn behind(text: &str, word: &str) -> Option<f64> {
    let rest = text.split_once(word)?.1.trim_start();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Whether a run was long enough to be kept, or found something.
pub fn counts(text: &str) -> bool {
    let enough = |seen: Option<f64>, wanted| seen.is_some_and(|seen| seen >= wanted);
    let found = text.lines().any(|line| line.starts_with("SUMMARY"));
    found || enough(seconds(text), SECONDS) && enough(processor(text), OF_A_PROCESSOR)
}

fn seconds(text: &str) -> Option<f64> {
    behind(text.split_once("runs in ")?.1, "")
}

/// What a shell says of the time of its children: `9m12.340000s 0m3.100000s`, for the program and for the
/// kernel on its behalf.
fn processor(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("processor "))?;
    let times = line.split_whitespace().map(|time| {
        let (minutes, seconds) = time.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    });
    times.sum()
}

/// The figures of one target's run.
pub fn figures(target: &str, text: &str) -> Vec<Figure> {
    let done = text.lines().find(|line| line.contains("DONE"));
    let date = text.lines().find_map(|line| line.strip_prefix("date ")).unwrap_or_default();
    let found = text.lines().filter(|line| line.starts_with("SUMMARY")).count();
    // One that did not come to its end has found something, whatever it says.
    let found = found.max(usize::from(!text.lines().any(|line| line == "exit 0")));
    let seen = |number: Option<f64>| {
        number.map_or_else(|| FigureValue::Words("not told".to_owned()), FigureValue::Number)
    };
    [
        ("seconds", Bar::AtLeast(SECONDS), seen(seconds(text))),
        ("of them, seconds of a processor", Bar::AtLeast(OF_A_PROCESSOR), seen(processor(text))),
        ("inputs tried", Bar::AtLeast(1.0), seen(behind(text, "stat::number_of_executed_units:"))),
        ("places of the code reached", Bar::Told, seen(done.and_then(|done| behind(done, "cov:")))),
        (
            "places that there are, the libraries' among them",
            Bar::Told,
            seen(behind(text, "PC tables (")),
        ),
        (
            "inputs kept, each of which reached another",
            Bar::Told,
            seen(done.and_then(|done| behind(done, "corp:"))),
        ),
        ("findings", Bar::Exactly(0.0), FigureValue::Number(found as f64)),
    ]
    .into_iter()
    .map(|(what, bar, pskgate)| Figure {
        id: "L13".to_owned(),
        fault: format!("fuzz target `{target}`"),
        what: what.to_owned(),
        unit: String::new(),
        bar,
        pskgate,
        stunnel4: None,
        date: date.to_owned(),
    })
    .collect()
}

/// All that were kept.
pub fn all(folder: &Path) -> Vec<Figure> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).expect("what a fuzzer said");
            figures(&file.file_stem().expect("a target's name").to_string_lossy(), &text)
        })
        .collect()
}
