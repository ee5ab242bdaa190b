//! The open sessions as a table that fits.

use std::collections::HashMap;

use crate::cli::table::{Alignment, Column, render};
use crate::cli::terminal::Style;
use crate::cli::units;
use crate::config::diagnostic::escape;
use crate::observe::status::{SessionStatus, Status};

/// Bytes a second of sessions by service and number, where they were measured between two answers.
#[derive(Debug, Default)]
pub(in crate::cli) struct SessionRates(HashMap<(String, u64), (u64, u64)>);

impl SessionRates {
    /// From two statuses of one program.
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
    pub(super) fn bytes_per_second(&self, service: &str, session: &SessionStatus) -> u64 {
        let key = (service.to_owned(), session.number);
        let (up, down) = self.0.get(&key).copied().unwrap_or((session.rate_up, session.rate_down));
        up.saturating_add(down)
    }
}

/// The columns, and in which order they go.
const COLUMNS: [Column; 16] = [
    ("#", Alignment::Right, 0),
    ("service", Alignment::Left, 5),
    ("identity", Alignment::Left, 0),
    ("peer", Alignment::Left, 1),
    ("target", Alignment::Left, 8),
    ("age", Alignment::Right, 6),
    ("idle", Alignment::Right, 7),
    ("up", Alignment::Right, 0),
    ("down", Alignment::Right, 0),
    ("rate", Alignment::Right, 2),
    ("share", Alignment::Left, 3),
    ("TLS", Alignment::Left, 9),
    ("suite", Alignment::Left, 10),
    ("group", Alignment::Left, 11),
    ("records", Alignment::Left, 12),
    ("key updates", Alignment::Left, 13),
];

/// Cells of a session's bar.
const BAR_CELLS: usize = 8;

/// A header and a line a session; the header alone where nobody is in. `bars` shows each one's share
/// of the highest rate.
pub(in crate::cli) fn render_sessions(
    status: &Status,
    rates: &SessionRates,
    style: &Style,
    bars: bool,
) -> String {
    let all = || {
        let of = |service: &crate::observe::status::ServiceStatus| service.name.clone();
        status.services.iter().flat_map(move |service| {
            service.sessions.iter().map(move |session| (of(service), session))
        })
    };
    let top = all()
        .map(|(service, session)| rates.bytes_per_second(&service, session))
        .max()
        .unwrap_or(0);
    let row = |(service, session): (String, &SessionStatus)| {
        let rate = rates.bytes_per_second(&service, session);
        let share = if top == 0 { 0.0 } else { rate as f64 / top as f64 };
        [
            session.number.to_string(),
            escape(&service),
            identity_label(session),
            escape(&session.peer),
            escape(&session.target),
            units::time(session.age),
            units::time(session.idle),
            units::bytes(session.bytes_up),
            units::bytes(session.bytes_down),
            units::rate(rate),
            style.bar(share, BAR_CELLS),
            escape(&session.version),
            escape(&session.suite),
            escape(session.group.as_deref().unwrap_or("-")),
            format!("{} up, {} down", session.records_up, session.records_down),
            format!("{} up, {} down", session.key_updates_up, session.key_updates_down),
        ]
    };
    let hidden = COLUMNS.map(|(title, ..)| match title {
        "share" => !bars,
        // With one service every line would say the same.
        "service" => status.services.len() < 2 && style.width().is_some(),
        _ => false,
    });
    render(&COLUMNS, all().map(row), hidden, style)
}

/// An identity, and what it is called on the wire if that differs.
fn identity_label(session: &SessionStatus) -> String {
    let identity = escape(&session.identity);
    match session.wire.as_deref().map(escape) {
        Some(wire) => format!("{identity} [{wire}]"),
        None => identity,
    }
}

#[cfg(test)]
mod tests;
