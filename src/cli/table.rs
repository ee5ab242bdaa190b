//! Tables for people, which stay plain lines in a pipe.

use std::io::IsTerminal;

use comfy_table::{ContentArrangement, Table, presets};

/// An empty table under this head. On a terminal it is ruled and fits the width; in a pipe a row is a line,
/// whatever its length, with columns that blanks keep apart.
pub(super) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    let is_terminal = std::io::stdout().is_terminal();
    if is_terminal {
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(head);
    if !is_terminal {
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
    }
    table
}
