//! The raw results: a file of JSON lines for each fault, in target/faults.

use std::fs;
use std::path::{Path, PathBuf};

use crate::figure::{Bar, Figure, FigureValue, Line, Machine};
use crate::harness::machine::{self, today};
use crate::harness::root;

/// Whether bars are tried in their full size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Quick,
    Full,
}

impl Size {
    pub fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// What one run of a fault saw.
#[derive(Clone)]
pub struct Measure {
    pub what: String,
    pub unit: &'static str,
    pub bar: Bar,
    pub seen: FigureValue,
}

pub fn measure(what: &str, unit: &'static str, bar: Bar, seen: f64) -> Measure {
    Measure { what: what.to_owned(), unit, bar, seen: FigureValue::Number(seen) }
}

/// The same where there may be nothing to measure: then `otherwise` is said.
pub fn measure_or(
    what: &str,
    unit: &'static str,
    bar: Bar,
    seen: Option<f64>,
    otherwise: &str,
) -> Measure {
    let seen = seen.map_or_else(|| FigureValue::Words(otherwise.to_owned()), FigureValue::Number);
    Measure { what: what.to_owned(), unit, bar, seen }
}

/// A measure beside what the other make came to, where that was asked: `None` in it is one that broke off.
pub fn figure(
    id: &str,
    fault: &str,
    one: &Measure,
    theirs: Option<&Option<Vec<Measure>>>,
) -> Figure {
    Figure {
        id: id.to_owned(),
        fault: fault.to_owned(),
        what: one.what.clone(),
        unit: one.unit.to_owned(),
        bar: one.bar,
        pskgate: one.seen.clone(),
        stunnel4: theirs.map(|theirs| match theirs {
            None => FigureValue::Words("broke off".to_owned()),
            Some(all) => all
                .iter()
                .find(|other| other.what == one.what)
                .map_or_else(|| FigureValue::Words("-".to_owned()), |other| other.seen.clone()),
        }),
        date: today(),
    }
}

/// Where this runs.
pub fn machine() -> Machine {
    let version = machine::version_line("stunnel4", "-version", "stunnel ");
    Machine {
        date: today(),
        kernel: machine::kernel(),
        cores: machine::cores(),
        openssl: openssl::version::version().to_owned(),
        stunnel4: version.split_whitespace().nth(1).unwrap_or("unknown").to_owned(),
        pskgate: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Quick runs do not replace the results of full ones.
pub fn folder(size: Size) -> PathBuf {
    root().join(size.pick("target/faults/quick", "target/faults"))
}

pub fn write(folder: &Path, name: &str, figures: &[Figure]) {
    let lines = std::iter::once(Line::Machine(machine()))
        .chain(figures.iter().cloned().map(Line::Figure))
        .map(|line| serde_json::to_string(&line).expect("JSON") + "\n");
    fs::create_dir_all(folder).expect("a folder for the results");
    let text: String = lines.collect();
    fs::write(folder.join(format!("{name}.jsonl")), text).expect("the results are written");
}
