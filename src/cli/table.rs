//! Tables that fit the terminal, and in a pipe are lines with every column.

use comfy_table::{CellAlignment, ColumnConstraint, LineStyle, Table, TableStyle};

use super::terminal::Style;

/// The alignment of a column's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alignment {
    Left,
    Right,
}

/// A title, a side, and in which order columns go when there is no room: the highest first, 0 never.
pub(super) type Column = (&'static str, Alignment, u8);

/// Between two columns.
const COLUMN_GAP: u16 = 2;

/// A header and a line for each row, without the columns that `hidden` says. On a terminal more of them go
/// until the rest fits; in a pipe nothing is drawn: one line, one row.
pub(super) fn render<const N: usize>(
    columns: &[Column; N],
    rows: impl IntoIterator<Item = [String; N]>,
    mut hidden: [bool; N],
    style: &Style,
) -> String {
    let mut table = Table::new();
    table.set_header(columns.map(|(title, ..)| title));
    for row in rows {
        table.add_row(row);
    }
    table.load_style(match style.width() {
        None => TableStyle::new(),
        Some(_) => {
            let line = if style.unicode { '─' } else { '-' };
            TableStyle::new().header_separator(LineStyle::none().fill(line).junction(line))
        }
    });
    let widths = table.column_max_content_widths();
    if let Some(room) = style.width() {
        while required_width(&widths, &hidden) > room {
            let open = (0..N).filter(|at| !hidden[*at] && columns[*at].2 > 0);
            let Some(next) = open.max_by_key(|at| columns[*at].2) else { break };
            hidden[next] = true;
        }
    }
    // Where a line is drawn, its style parts columns by one more.
    let padding = if style.width().is_some() { COLUMN_GAP - 1 } else { COLUMN_GAP };
    let last = hidden.iter().rposition(|hidden| !hidden);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if Some(at) == last { 0 } else { padding }));
        if columns[at].1 == Alignment::Right {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if hidden[at] {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    table.trim_fmt()
}

fn required_width(widths: &[u16], hidden: &[bool]) -> usize {
    let shown = widths.iter().zip(hidden).filter(|(_, hidden)| !**hidden);
    let all: usize = shown.map(|(width, _)| usize::from(width + COLUMN_GAP)).sum();
    all.saturating_sub(COLUMN_GAP.into())
}
