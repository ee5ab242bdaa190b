//! `explain CODE`: what a finding, a refusal or an end means, at more length than a line has room for.
//!
//! The pages are text, in `explain/`: a file a group, `## code`, a line that sums it up, and more. A
//! test holds that every code has a page and every page a code.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};

use super::{exit, print_error, print_result};
use crate::config::options::nearest;
use crate::secrets::escape;

/// The groups, in the order in which a beginner meets them.
const GROUPS: &[&str] = &[
    include_str!("explain/configuration.md"),
    include_str!("explain/keys.md"),
    include_str!("explain/tls.md"),
    include_str!("explain/start.md"),
    include_str!("explain/handshake.md"),
    include_str!("explain/session.md"),
];

/// What is said of one code.
struct CodePage {
    code: &'static str,
    /// One line.
    summary: &'static str,
    /// Paragraphs and examples; may be empty.
    body: &'static str,
}

/// Takes any text as a code: `main` answers a misspelt one with the nearest. Completions offer the codes.
#[derive(Debug, Clone)]
pub(super) struct CodeParser;

impl TypedValueParser for CodeParser {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(codes().map(PossibleValue::new)))
    }
}

pub(super) fn main(code: Option<&str>) -> u8 {
    let Some(code) = code else {
        return print_result(&render_index());
    };
    match pages().find(|page| page.code == code) {
        Some(CodePage { code, summary, body: "" }) => print_result(&format!("{code}: {summary}")),
        Some(CodePage { code, summary, body }) => {
            print_result(&format!("{code}: {summary}\n\n{body}"))
        }
        None => {
            let known = nearest(code, pages().map(|page| page.code));
            let help = match known {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`pskgate explain` lists all codes".into(),
            };
            print_error(&format!("pskgate: unknown code {}; {help}", escape(code.as_bytes())));
            exit::USAGE
        }
    }
}

/// Every code.
pub(super) fn codes() -> impl Iterator<Item = &'static str> {
    pages().map(|page| page.code)
}

/// Every code with its line, in groups.
fn render_index() -> String {
    let width = pages().map(|page| page.code.len()).max().unwrap_or_default();
    let mut out = String::from("`pskgate explain CODE` says more.\n");
    for group in GROUPS {
        out += &format!("\n{}\n", group_title(group));
        for CodePage { code, summary, .. } in parse_group(group) {
            out += &format!("  {code:width$}  {summary}\n");
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn pages() -> impl Iterator<Item = CodePage> {
    GROUPS.iter().flat_map(|group| parse_group(group))
}

fn group_title(group: &'static str) -> &'static str {
    let first = group.lines().next().unwrap_or_default();
    first.trim_start_matches("# ")
}

fn parse_group(group: &'static str) -> impl Iterator<Item = CodePage> {
    group.split("\n## ").skip(1).map(|section| {
        let (code, rest) = section.split_once('\n').unwrap_or((section, ""));
        let (summary, body) = rest.split_once('\n').unwrap_or((rest, ""));
        CodePage { code: code.trim(), summary: summary.trim(), body: body.trim() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_a_code_a_line_that_sums_it_up_and_is_there_once() {
        let mut codes: Vec<&str> = pages().map(|page| page.code).collect();
        assert!(codes.len() > 90, "{}", codes.len());
        for CodePage { code, summary, body } in pages() {
            assert!(code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            assert!(summary.ends_with(['.', '!']), "{code}: {summary:?}");
            assert!(!body.starts_with('#') && body.is_ascii(), "{code}");
            assert!(body.lines().all(|line| line.len() <= 110), "{code}");
        }
        codes.sort_unstable();
        assert!(codes.windows(2).all(|two| two[0] != two[1]), "{codes:?}");
    }

    #[test]
    fn what_is_counted_has_a_page_and_the_other_way_round() {
        use crate::observe::metrics::{REFUSAL_CAUSES, SESSION_ENDS};
        let codes = |text| parse_group(text).map(|page| page.code).collect::<Vec<_>>();
        assert_eq!(codes(include_str!("explain/handshake.md")), REFUSAL_CAUSES);
        assert_eq!(codes(include_str!("explain/session.md")), SESSION_ENDS);
    }

    #[test]
    fn the_pages_of_a_group_stand_in_the_order_of_their_codes() {
        for group in GROUPS {
            let codes: Vec<&str> = parse_group(group).map(|page| page.code).collect();
            assert!(codes.is_sorted(), "{}: {codes:?}", group_title(group));
        }
    }
}
