//! Files that mean one thing to stunnel up to 5.75 and another to 5.76 and later: the later meaning holds.

use super::scope::REPLACED;
use super::*;

impl Checker<'_> {
    /// Warns where a section's list replaces the global one, and was added to it up to stunnel 5.75.
    pub(super) fn report_replaced_lists(&mut self, part: &ParsedSection) {
        if self.native() {
            return;
        }
        let parsed = self.parsed;
        for opt in REPLACED {
            let (own, global) = (part.values.all(opt), parsed.defaults.all(opt));
            let (Some(first), false) = (own.first(), global.is_empty()) else { continue };
            // Each line once, as either program would have it.
            let new = texts(opt, own.iter());
            let old = texts(opt, global.iter().chain(own));
            if new == old {
                continue;
            }
            let name = opt.name(self.dialect);
            let lines: Vec<String> =
                global.iter().map(|said| said.place.line.to_string()).collect();
            let message = format!(
                "`{name}` of this section replaces the global one: {}; up to stunnel 5.75 it was added to it: {}",
                new.join(", "),
                old.join(", "),
            );
            let help = format!(
                "for the same in every version, remove the global `{name}` (line {}) and write in each section \
                 all that it shall have, here: {}",
                lines.join(", "),
                new.iter().map(|text| format!("{name} = {text}")).collect::<Vec<_>>().join("; "),
            );
            let found = Diagnostic::warning("list-replaced", message);
            self.report.push(found.at(first.place.clone()).help(help));
        }
    }
}

fn texts<'v>(opt: OptionId, said: impl Iterator<Item = &'v Spanned<Value>>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for one in said {
        // A header may hold what is nobody's to see.
        let text = match opt.is_secret() {
            true => "…".to_owned(),
            false => value::stunnel(opt.row().kind, &one.value).unwrap_or_default(),
        };
        if opt.is_secret() || !all.contains(&text) {
            all.push(text);
        }
    }
    all
}
