//! `status --watch`: in place on a terminal, line after line in a pipe.

use std::borrow::Cow;
use std::future::Future;
use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;

use super::table::SessionRates;
use super::{document, words};
use crate::cli::control_client::{ControlFailure, ProgramSelector, RunningProgram};
use crate::cli::terminal::Style;
use crate::cli::{exit, run, units};
use crate::config::diagnostic::escape;
use crate::observe::status::Status;

/// Hides the cursor, which would jump about, and shows it again when this goes.
struct Screen;

impl Screen {
    fn begin() -> io::Result<Self> {
        let screen = Self;
        print("\x1b[?25l\x1b[2J")?;
        Ok(screen)
    }

    /// Writes over what stands there: nothing flickers.
    fn draw(&self, text: &str, size: (usize, usize)) -> io::Result<()> {
        let mut frame = String::from("\x1b[H");
        for line in clip(text, size) {
            let line = &*line;
            frame.push_str(line);
            frame.push_str("\x1b[K\r\n");
        }
        frame.push_str("\x1b[J");
        print(&frame)
    }
}

/// As many lines as there is room for, and at their end how many there is none for. A line that is longer
/// than a row of the terminal takes several.
fn clip(text: &str, (columns, rows): (usize, usize)) -> Vec<Cow<'_, str>> {
    // The last row stays free: a newline in it would scroll.
    let room = rows.saturating_sub(1);
    let lines: Vec<_> = text.lines().collect();
    let needs: Vec<_> =
        lines.iter().map(|line| visible_width(line).div_ceil(columns.max(1)).max(1)).collect();
    if needs.iter().sum::<usize>() <= room {
        return lines.into_iter().map(Cow::Borrowed).collect();
    }
    let mut left = room.saturating_sub(1);
    let fit =
        needs.iter().take_while(|need| left.checked_sub(**need).map(|rest| left = rest).is_some());
    let fit = fit.count();
    let more = units::count((lines.len() - fit) as u64, "more line", "more lines");
    let more = format!("({more}; a taller window, or `pskgate sessions`, has them)");
    let more = more.chars().take(columns).collect::<String>();
    lines.into_iter().take(fit).map(Cow::Borrowed).chain([Cow::Owned(more)]).collect()
}

/// The characters of a line that are seen: all but the colours.
fn visible_width(line: &str) -> usize {
    let mut parts = line.split("\x1b[");
    let first = parts.next().map_or(0, |part| part.chars().count());
    first
        + parts
            .map(|part| part.split_once('m').map_or(0, |(_, rest)| rest.chars().count()))
            .sum::<usize>()
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = print("\x1b[?25h");
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

pub(super) fn main(
    which: &ProgramSelector,
    seconds: f64,
    json: bool,
) -> Result<u8, ControlFailure> {
    let mut programs = which.find_all()?;
    let runtime = run::single_thread_runtime().map_err(|error| ControlFailure {
        code: exit::INTERNAL,
        words: format!("cannot wait for signals: {error}"),
    })?;
    runtime.block_on(watch(&mut programs, Duration::from_secs_f64(seconds), json))
}

async fn watch(
    programs: &mut [RunningProgram],
    pause: Duration,
    json: bool,
) -> Result<u8, ControlFailure> {
    let interrupted = wait_for_interrupt().map_err(|error| io_failure(&error))?;
    let mut interrupted = pin!(interrupted);
    let mut before: Vec<Status> = Vec::new();
    let mut screen = None;
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // It is no failure to have seen enough.
            () = &mut interrupted => return Ok(exit::OK),
            _ = ticks.tick() => {}
        }
        let now = programs.iter_mut().map(RunningProgram::status).collect::<Result<Vec<_>, _>>()?;
        let style = Style::for_stdout();
        let written = match style.size {
            _ if json => document(&now, false).map(|line| print(&(line + "\n")))?,
            None => print(&lines(&before, &now)),
            Some(size) => show(&mut screen, &render_frame(&before, &now, &style), size),
        };
        match written {
            Ok(()) => before = now,
            // A reader that has gone, as `head` does, has seen enough as well.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(exit::OK),
            Err(error) => return Err(io_failure(&error)),
        }
    }
}

fn show(screen: &mut Option<Screen>, text: &str, size: (usize, usize)) -> io::Result<()> {
    if screen.is_none() {
        *screen = Some(Screen::begin()?);
    }
    screen.as_ref().map_or(Ok(()), |screen| screen.draw(text, size))
}

fn io_failure(error: &io::Error) -> ControlFailure {
    ControlFailure { code: exit::IO, words: format!("cannot go on watching: {error}") }
}

fn rates(before: &[Status], now: &Status) -> SessionRates {
    let same = before.iter().find(|old| old.pid == now.pid);
    same.map(|old| SessionRates::between(old, now)).unwrap_or_default()
}

fn render_frame(before: &[Status], now: &[Status], style: &Style) -> String {
    let texts: Vec<_> = now
        .iter()
        .map(|status| words::render_status(status, &rates(before, status), style, true))
        .collect();
    texts.join("\n\n")
}

/// A line for each program and each session, that can be read by itself.
fn lines(before: &[Status], now: &[Status]) -> String {
    let mut text = String::new();
    for status in now {
        let rates = rates(before, status);
        let time = escape(&status.now);
        let sessions = status.services.iter().map(|service| service.sessions.len() as u64).sum();
        text += &format!(
            "{time} process {} {}, {}\n",
            status.pid,
            escape(&status.phase),
            units::count(sessions, "session", "sessions")
        );
        for service in &status.services {
            for session in &service.sessions {
                text += &format!(
                    "{time} [{}] session {} identity {} from {}: {} up, {} down, {}\n",
                    escape(&service.name),
                    session.number,
                    escape(&session.identity),
                    escape(&session.peer),
                    units::bytes(session.bytes_up),
                    units::bytes(session.bytes_down),
                    units::rate(rates.bytes_per_second(&service.name, session))
                );
            }
        }
    }
    text
}

/// Waits for whatever ends a program that somebody looks at: the cursor must come back then.
#[cfg(unix)]
fn wait_for_interrupt() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Waits for Ctrl-C: the cursor must come back then.
#[cfg(not(unix))]
fn wait_for_interrupt() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_takes_more_rows_than_there_are_and_says_what_is_missing() {
        let text = ["\x1b[1mhead\x1b[0m", &"w".repeat(25), "a", "b", "c", "d"].join("\n");
        assert_eq!(clip(&text, (25, 7)).len(), 6, "all of it");
        assert_eq!(clip(&text, (20, 8)).len(), 6, "the long one takes two rows");
        let cut = clip(&text, (20, 7));
        assert_eq!(cut[..3], ["\x1b[1mhead\x1b[0m", &*"w".repeat(25), "a"]);
        assert!(cut.len() == 5 && cut[4].starts_with("(2 more lines; "), "{cut:?}");
        assert!(cut[4].chars().count() <= 20);
    }
}
