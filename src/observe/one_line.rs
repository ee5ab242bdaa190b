//! A text in one line, whatever it quotes: a second one would be a line that nobody logged.

use std::borrow::Cow;

/// Whether a character ends a line, or steers the terminal that shows it.
fn breaks_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn escape_matching(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(breaks_line) {
        return text.into();
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if breaks_line(c) {
            line.push_str(&escape(c));
        } else {
            line.push(c);
        }
    }
    line.into()
}

/// As people read it.
pub(super) fn to_one_line(text: &str) -> Cow<'_, str> {
    escape_matching(text, |c| c.escape_debug().to_string())
}

/// JSON that is still the same JSON.
pub(super) fn json_to_one_line(json: &str) -> Cow<'_, str> {
    // What serde_json leaves as it is are DEL and up, all of them of four hex digits.
    escape_matching(json, |c| format!("\\u{:04x}", u32::from(c)))
}
