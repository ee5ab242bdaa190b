//! A program and its services, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::table::{self, SessionRates};
use crate::cli::terminal::Style;
use crate::cli::units;
use crate::config::diagnostic::escape;
use crate::observe::status::{ServiceStatus, Status};

/// Recent refusals of a service that are shown; `--json` has all that there are.
const MAX_REFUSALS: usize = 5;

/// All of it, without a last newline.
pub(super) fn render_status(
    status: &Status,
    rates: &SessionRates,
    style: &Style,
    bars: bool,
) -> String {
    let mut text = render_program(status, style);
    for service in &status.services {
        text.push('\n');
        render_service(&mut text, service, style);
    }
    if status.services.iter().any(|service| !service.sessions.is_empty()) {
        text.push('\n');
        text.push_str(&table::render_sessions(status, rates, style, bars));
    }
    text.trim_end().to_owned()
}

fn render_program(status: &Status, style: &Style) -> String {
    let phase = match status.phase.as_str() {
        "running" => "running".to_owned(),
        other => style.alert(&escape(other)),
    };
    let mut text = style.strong(&format!("pskgate {}", escape(&status.version)));
    let (file, up) = (escape(&status.file), units::time(status.uptime));
    let _ = writeln!(text, ", {phase} for {up}, process {}\n  file     {file}", status.pid);
    let _ = writeln!(
        text,
        "  started  {}, runs with {}",
        escape(&status.started),
        escape(&status.openssl)
    );
    let reloads = &status.reloads;
    if let Some(last) = &reloads.last {
        let (who, time) = (escape(&last.who), escape(&last.time));
        let _ = write!(text, "  reloads  {} done, {} refused; ", reloads.done, reloads.failed);
        let _ = match last.done {
            true => writeln!(text, "the last at {time} by {who}: done"),
            false => {
                let refused = style.alert(&format!("refused: {}", escape(&last.error)));
                writeln!(text, "the last at {time} by {who}: {refused}")
            }
        };
        for finding in &last.findings {
            let _ = writeln!(text, "           {}", escape(finding));
        }
    }
    if let Some(since) = &reloads.differs_since {
        let words = format!("differs from what is in force since {}", escape(since));
        let _ = writeln!(text, "  on disk  {}", style.alert(&words));
    }
    if status.log_lines_lost > 0 {
        let lost = units::count(status.log_lines_lost, "line was", "lines were");
        let _ = writeln!(text, "  log      {}", style.alert(&format!("{lost} lost")));
    }
    text
}

fn render_service(text: &mut String, service: &ServiceStatus, style: &Style) {
    let listed = |all: &[String]| match all {
        [] => "-".to_owned(),
        all => all.iter().map(|one| escape(one)).collect::<Vec<_>>().join(", "),
    };
    let (listeners, targets) = (listed(&service.listeners), listed(&service.targets));
    let name = style.strong(&format!("[{}]", escape(&service.name)));
    let _ = writeln!(text, "{name} {}: {listeners} -> {targets}", escape(&service.mode));
    for missing in &service.missing_listeners {
        let words = format!("{}: {}", escape(&missing.address), escape(&missing.error));
        let _ = writeln!(text, "  missing  {}; it is tried again", style.alert(&words));
    }
    let open = service.sessions.len() as u64;
    let sessions = match service.max_sessions {
        0 => units::count(open, "session", "sessions"),
        most => format!("{open} of {most} sessions"),
    };
    let handshakes = units::count(service.handshakes as u64, "handshake", "handshakes");
    let keys = units::count(service.keys as u64, "key", "keys");
    let _ = writeln!(text, "  now      {sessions}, {handshakes}, {keys}");
    let _ = writeln!(
        text,
        "  so far   {}, {} up, {} down",
        units::count(service.opened, "session", "sessions"),
        units::bytes(service.bytes_up),
        units::bytes(service.bytes_down)
    );
    for (title, counts) in [("ended  ", &service.ended), ("refused", &service.refused)] {
        let counts = by_kind(counts);
        if !counts.is_empty() {
            let _ = writeln!(text, "  {title}  {counts}");
        }
    }
    for refusal in service.recent_refusals.iter().take(MAX_REFUSALS) {
        let who = match (&refusal.identity, refusal.cause.as_str()) {
            (Some(identity), _) => format!(" as {}", escape(identity)),
            (None, "unknown-identity") => " as an unknown identity".to_owned(),
            (None, _) => String::new(),
        };
        let (time, peer, cause) =
            (escape(&refusal.time), escape(&refusal.peer), escape(&refusal.cause));
        let times =
            if refusal.count > 1 { format!(", {} times", refusal.count) } else { String::new() };
        let _ = writeln!(text, "           {time}: {peer}{who}: {cause}{times}");
    }
    for warning in &service.key_warnings {
        let _ = writeln!(text, "  keys     {}", style.alert(&escape(warning)));
    }
    if let Some(failure) = &service.last_failure {
        let words = style.alert(&escape(&failure.words));
        let _ = writeln!(text, "  failed   {}: {words}", escape(&failure.time));
    }
}

fn by_kind(counts: &BTreeMap<String, u64>) -> String {
    let seen = counts.iter().filter(|(_, count)| **count > 0);
    seen.map(|(kind, count)| format!("{count} {}", escape(kind))).collect::<Vec<_>>().join(", ")
}
