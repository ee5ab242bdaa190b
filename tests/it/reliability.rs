//! docs/reliability.md is what the raw results say, and every test that it names is there.

use std::collections::BTreeSet;

use crate::harness::root;

// The report reads what scripts/faults wrote; what writes it there is not needed here.
#[allow(dead_code)]
#[path = "../faults/figure.rs"]
pub(super) mod figure;
#[allow(dead_code)]
#[path = "../faults/fuzzed.rs"]
mod fuzzed;
#[allow(dead_code)]
#[path = "../faults/report.rs"]
mod report;
#[allow(dead_code)]
#[path = "../faults/tested.rs"]
mod tested;

/// Every id of the requirements: the findings, and what is asked of protocol, keys and load.
fn ids() -> BTreeSet<String> {
    [("F", 11), ("P", 12), ("K", 6), ("L", 13)]
        .into_iter()
        .flat_map(|(letter, count)| (1..=count).map(move |number| format!("{letter}{number}")))
        .collect()
}

#[test]
fn the_page_is_made_from_the_raw_results() {
    let is = std::fs::read_to_string(report::page_path()).expect("docs/reliability.md");
    assert!(is == report::page(), "it is not: scripts/faults --report writes it");
}

/// The rows of the second look, each of which comes with what it is about.
fn second_look_ids() -> BTreeSet<String> {
    (1..=21).map(|number| format!("S{number}")).collect()
}

#[test]
fn every_requirement_has_its_row_and_no_row_is_of_another() {
    let rows: Vec<String> = report::requirements().into_iter().map(|one| one.id).collect();
    let known: BTreeSet<String> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), known.len(), "an id twice: {rows:?}");
    let second: BTreeSet<_> = known.difference(&ids()).cloned().collect();
    assert!(second.is_subset(&second_look_ids()), "{second:?}");
    assert!(known.is_superset(&ids()), "an id is missing: {rows:?}");
}

#[test]
fn every_test_that_is_named_exists_and_whatever_has_none_says_so() {
    for one in report::requirements() {
        assert!(
            !one.tests.is_empty() || !one.open.is_empty(),
            "{} has neither a test nor a word about it",
            one.id
        );
        for test in &one.tests {
            let (file, name) = test.split_once("::").expect("file::name");
            let text = std::fs::read_to_string(root().join(file))
                .unwrap_or_else(|error| panic!("{test}: {error}"));
            assert!(text.contains(&format!("fn {name}(")), "{test} is not there");
        }
    }
}

#[test]
fn every_mistake_that_no_test_notices_is_explained() {
    let open = tested::unexplained(&root());
    assert!(open.is_empty(), "docs/reliability/mutants/explained.txt has no word of {open:#?}");
}

#[test]
fn a_bar_is_met_by_numbers_only() {
    use figure::{Bar, FigureValue};
    let number = FigureValue::Number;
    for (bar, good, bad) in [
        (Bar::AtMost(11.0), 11.0, 11.1),
        (Bar::AtLeast(20.0), 20.0, 19.0),
        (Bar::Exactly(0.0), 0.0, 1.0),
    ] {
        assert!(bar.is_met_by(&number(good)) && !bar.is_met_by(&number(bad)), "{bar:?}");
        assert!(!bar.is_met_by(&FigureValue::Words("not within 60 s".to_owned())), "{bar:?}");
    }
    assert!(Bar::Told.is_met_by(&FigureValue::Words("anything".to_owned())));
}
