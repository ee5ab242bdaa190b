//! The raw results, and the tables of docs/beremiz-tests.md and docs/fleet.md that are made of them and of
//! nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::figure::{Bar, Figure, FigureValue, Machine};
use super::trips::Trips;
use crate::harness::machine::results_in;
use crate::harness::root;

/// A line of the raw results; the first one of a file says where they were seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    Machine(Machine),
    Trips(Trips),
    Figure(Figure),
}

impl Line {
    fn trips(&self) -> Option<&Trips> {
        match self {
            Self::Trips(trips) => Some(trips),
            _ => None,
        }
    }

    fn figure(&self) -> Option<&Figure> {
        match self {
            Self::Figure(figure) => Some(figure),
            _ => None,
        }
    }
}

/// A page, and where its raw results are: as runs leave them, and as they are kept.
pub struct Page {
    pub name: &'static str,
    /// The folder under docs that keeps the results.
    kept: &'static str,
    from: &'static str,
}

pub const PAGES: [Page; 2] = [
    Page { name: "beremiz-tests", kept: "beremiz", from: "target/e2e/results" },
    Page { name: "fleet", kept: "fleet", from: "target/fleet" },
];

impl Page {
    pub fn path(&self) -> PathBuf {
        root().join(format!("docs/{}.md", self.name))
    }

    fn results(&self) -> PathBuf {
        root().join("docs").join(self.kept)
    }

    pub fn read(&self) -> String {
        std::fs::read_to_string(self.path()).expect("a page")
    }

    /// The page with its tables between their marks, whatever stood there.
    pub fn with_tables(&self) -> String {
        let mut page = self.read();
        for (name, table) in self.tables() {
            let (from, to) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
            let start = page.find(&from).unwrap_or_else(|| panic!("no place for {name}"));
            let end = page.find(&to).unwrap_or_else(|| panic!("no end of {name}"));
            page.replace_range(start + from.len()..end, &format!("\n{table}\n"));
        }
        page
    }

    /// Each table under the name of its place in the page.
    pub fn tables(&self) -> BTreeMap<&'static str, String> {
        match self.name {
            "beremiz-tests" => beremiz(&kept(&self.results())),
            _ => fleet(&kept(&self.results())),
        }
    }
}

fn kept(folder: &Path) -> Vec<Line> {
    let mut lines = Vec::new();
    for file in results_in(folder) {
        let text = std::fs::read_to_string(&file).expect("a file of results");
        for line in text.lines() {
            let read = serde_json::from_str(line);
            let read = read.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            if !lines.contains(&read) {
                lines.push(read);
            }
        }
    }
    lines
}

/// The order in which an engineer looks for them.
const ORDER: [&str; 8] = ["pyro4", "pyro5", "pyros", "erpc", "erpcs", "wamp", "modbus", "opcua"];

fn rate(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn seen(value: &FigureValue, unit: &str) -> String {
    match value {
        FigureValue::Number(_) => format!("{value} {unit}").trim_end().to_owned(),
        FigureValue::Words(words) => words.clone(),
    }
}

fn machines(lines: &[Line]) -> String {
    let mut table = String::from(
        "| date | kernel | cores | OpenSSL | stunnel4 | pskgate |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for line in lines {
        if let Line::Machine(Machine { date, kernel, cores, openssl, stunnel4, pskgate }) = line {
            let _ = writeln!(
                table,
                "| {date} | {kernel} | {cores} | {openssl} | {stunnel4} | {pskgate} |"
            );
        }
    }
    table
}

fn rates(lines: &[Line]) -> String {
    let mut rows: Vec<&Trips> = lines.iter().filter_map(Line::trips).collect();
    let place = |row: &&Trips| ORDER.iter().position(|name| *name == row.connector).unwrap_or(99);
    rows.sort_by_key(place);
    let mut table = String::from(
        "| connector | what is counted | unit | direct | pskgate | stunnel4 | pskgate to stunnel4 |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let [direct, pskgate, stunnel4] = row.medians().map(rate);
        let Trips { connector, call, unit, .. } = row;
        let _ = writeln!(
            table,
            "| {connector} | {call} | {unit} | {direct} | {pskgate} | {stunnel4} | {:.2} |",
            row.against_stunnel()
        );
    }
    table
}

/// What is asked of a figure, with its unit; empty if nothing is.
fn limit(bar: &Bar, unit: &str) -> String {
    match bar {
        Bar::Told => String::new(),
        bar => format!("{bar} {unit}").trim_end().to_owned(),
    }
}

fn met(figure: &Figure) -> &'static str {
    match figure.bar {
        Bar::Told => "",
        _ if figure.is_met() => "yes",
        _ => "**no**",
    }
}

fn beremiz(lines: &[Line]) -> BTreeMap<&'static str, String> {
    let mut figures: Vec<&Figure> = lines.iter().filter_map(Line::figure).collect();
    figures.sort_by(|a, b| a.id.cmp(&b.id));
    let mut asked = String::from(
        "| no. | situation | result | limit | pskgate | met | stunnel4 |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for figure in figures {
        let Figure { id, fault, what, unit, bar, .. } = figure;
        let theirs = figure.stunnel4.as_ref();
        let theirs = theirs.map_or_else(|| "-".to_owned(), |theirs| seen(theirs, unit));
        let ours = seen(&figure.pskgate, unit);
        let (met, limit) = (met(figure), limit(bar, unit));
        let _ =
            writeln!(asked, "| {id} | {fault} | {what} | {limit} | {ours} | {met} | {theirs} |");
    }
    BTreeMap::from([
        ("machines", machines(lines)),
        ("rates", rates(lines)),
        ("requirements", asked),
    ])
}

fn fleet(lines: &[Line]) -> BTreeMap<&'static str, String> {
    let mut table = String::from(
        "| situation | measured | limit | result | met |\n| --- | --- | --- | --- | --- |\n",
    );
    let mut before = "";
    for figure in lines.iter().filter_map(Line::figure) {
        let Figure { fault, what, unit, bar, .. } = figure;
        // Said once for the rows that are about it.
        let done = if fault == before { "" } else { fault };
        before = fault;
        let (ours, met, limit) = (seen(&figure.pskgate, unit), met(figure), limit(bar, unit));
        let _ = writeln!(table, "| {done} | {what} | {limit} | {ours} | {met} |");
    }
    BTreeMap::from([("fleet machines", machines(lines)), ("fleet", table)])
}

/// Copies what full runs left in target, and writes the tables.
pub fn keep_and_write() {
    for page in PAGES {
        let to = page.results();
        std::fs::create_dir_all(&to).expect("a folder for the results");
        for file in results_in(&root().join(page.from)) {
            std::fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("copied");
        }
        std::fs::write(page.path(), page.with_tables()).expect("the page is written");
    }
}

/// Keeps the results of one subject. Quick runs do not replace those of full ones.
pub fn write(folder: &Path, name: &str, machine: Machine, lines: impl Iterator<Item = Line>) {
    std::fs::create_dir_all(folder).expect("a folder for the results");
    let text: String = std::iter::once(Line::Machine(machine))
        .chain(lines)
        .map(|line| serde_json::to_string(&line).expect("JSON") + "\n")
        .collect();
    std::fs::write(folder.join(format!("{name}.jsonl")), text).expect("the results are written");
}
