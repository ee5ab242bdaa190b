//! The open sessions as a table that fits.

use std::collections::HashMap;

use comfy_table::{CellAlignment, ColumnConstraint, LineStyle, Table, TableStyle};

use crate::cli::terminal::Style;
use crate::cli::units;
use crate::config::diagnostic::escape;
use crate::observe::status::{SessionStatus, Status};

/// Bytes a second of sessions by service and number, where they were measured between two answers.
#[derive(Debug, Default)]
pub(in crate::cli) struct Rates(HashMap<(String, u64), (u64, u64)>);

impl Rates {
    /// What has moved between two answers of one program.
    pub(super) fn between(before: &Status, now: &Status) -> Self {
        let seconds = now.uptime - before.uptime;
        if before.pid != now.pid || seconds <= 0.0 {
            return Self::default();
        }
        let of = |status: &Status| -> HashMap<(String, u64), (u64, u64)> {
            let all = status.services.iter().flat_map(|service| {
                service.sessions.iter().map(|session| {
                    let key = (service.name.clone(), session.number);
                    (key, (session.bytes_up, session.bytes_down))
                })
            });
            all.collect()
        };
        let old = of(before);
        let rate = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds) as u64;
        let measured = of(now).into_iter().filter_map(|(key, (up, down))| {
            let then = old.get(&key)?;
            Some((key, (rate(up, then.0), rate(down, then.1))))
        });
        Self(measured.collect())
    }

    /// Both directions together; the program's own figure where nothing was measured.
    pub(super) fn of(&self, service: &str, session: &SessionStatus) -> u64 {
        let key = (service.to_owned(), session.number);
        let (up, down) = self.0.get(&key).copied().unwrap_or((session.rate_up, session.rate_down));
        up.saturating_add(down)
    }
}

/// The columns, and in which order they go when there is no room: the highest first, 0 never.
const COLUMNS: [(&str, Side, u8); 14] = [
    ("#", Side::Right, 0),
    ("service", Side::Left, 5),
    ("identity", Side::Left, 0),
    ("peer", Side::Left, 1),
    ("target", Side::Left, 8),
    ("age", Side::Right, 6),
    ("idle", Side::Right, 7),
    ("up", Side::Right, 0),
    ("down", Side::Right, 0),
    ("rate", Side::Right, 2),
    ("share", Side::Left, 3),
    ("TLS", Side::Left, 9),
    ("suite", Side::Left, 10),
    ("group", Side::Left, 11),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Cells of a session's bar.
const BAR: usize = 8;
/// Between two columns.
const GAP: u16 = 2;

/// A header and a line a session; the header alone where nobody is in. `bars` shows each one's share
/// of the highest rate.
pub(in crate::cli) fn sessions(
    status: &Status,
    rates: &Rates,
    style: &Style,
    bars: bool,
) -> String {
    let all = || {
        let of = |service: &crate::observe::status::ServiceStatus| service.name.clone();
        status.services.iter().flat_map(move |service| {
            service.sessions.iter().map(move |session| (of(service), session))
        })
    };
    let top = all().map(|(service, session)| rates.of(&service, session)).max().unwrap_or(0);
    let mut table = Table::new();
    table.set_header(COLUMNS.map(|(title, ..)| title));
    for (service, session) in all() {
        let rate = rates.of(&service, session);
        let share = if top == 0 { 0.0 } else { rate as f64 / top as f64 };
        table.add_row([
            session.number.to_string(),
            escape(&service),
            named(session),
            escape(&session.peer),
            escape(&session.target),
            units::time(session.age),
            units::time(session.idle),
            units::bytes(session.bytes_up),
            units::bytes(session.bytes_down),
            units::rate(rate),
            style.bar(share, BAR),
            escape(&session.version),
            escape(&session.suite),
            escape(session.group.as_deref().unwrap_or("-")),
        ]);
    }
    // In a pipe nothing is drawn: one line, one session.
    table.load_style(match style.width() {
        None => TableStyle::new(),
        Some(_) => {
            let line = if style.unicode { '─' } else { '-' };
            TableStyle::new().header_separator(LineStyle::none().fill(line).junction(line))
        }
    });
    let widths = table.column_max_content_widths();
    let mut hidden: Vec<bool> = COLUMNS
        .iter()
        .map(|(title, ..)| match *title {
            "share" => !bars,
            // With one service every line would say the same.
            "service" => status.services.len() < 2 && style.width().is_some(),
            _ => false,
        })
        .collect();
    if let Some(room) = style.width() {
        while needed(&widths, &hidden) > room {
            let open = (0..COLUMNS.len()).filter(|at| !hidden[*at] && COLUMNS[*at].2 > 0);
            let Some(next) = open.max_by_key(|at| COLUMNS[*at].2) else { break };
            hidden[next] = true;
        }
    }
    // Where a line is drawn, its style parts columns by one more.
    let padding = if style.width().is_some() { GAP - 1 } else { GAP };
    let last = hidden.iter().rposition(|hidden| !hidden);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if Some(at) == last { 0 } else { padding }));
        if COLUMNS[at].1 == Side::Right {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if hidden[at] {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    table.trim_fmt()
}

fn needed(widths: &[u16], hidden: &[bool]) -> usize {
    let shown = widths.iter().zip(hidden).filter(|(_, hidden)| !**hidden);
    let all: usize = shown.map(|(width, _)| usize::from(width + GAP)).sum();
    all.saturating_sub(GAP.into())
}

/// An identity, and what it is called on the wire if that differs.
fn named(session: &SessionStatus) -> String {
    let identity = escape(&session.identity);
    match session.wire.as_deref().map(escape) {
        Some(wire) => format!("{identity} [{wire}]"),
        None => identity,
    }
}

#[cfg(test)]
mod tests;
