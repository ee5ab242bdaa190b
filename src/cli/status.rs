//! `status`: everything about the programs that run.

pub(super) mod table;
mod watch;
mod words;

use super::control_client::{ControlFailure, ProgramSelector};
use super::terminal::Style;
use super::{exit, print_result};
use crate::observe::status::Status;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: ProgramSelector,
    /// Print JSON: an object, or an array if several programs run
    #[arg(long)]
    json: bool,
    /// Repeat every second, or after this time, and show rates
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        require_equals = false,
        value_parser = seconds
    )]
    watch: Option<f64>,
}

/// Faster, the asking would be what is seen.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds from 0.1 to 86400; a FILE goes before --watch".into()),
    }
}

pub(super) fn main(arguments: &Arguments) -> Result<u8, ControlFailure> {
    if let Some(seconds) = arguments.watch {
        return watch::main(&arguments.which, seconds, arguments.json);
    }
    let all = ask(&arguments.which)?;
    if arguments.json {
        return Ok(print_result(&document(&all, true)?));
    }
    let style = Style::for_stdout();
    let texts: Vec<_> = all
        .iter()
        .map(|status| words::render_status(status, &table::SessionRates::default(), &style, false))
        .collect();
    Ok(print_result(&texts.join("\n\n")))
}

fn ask(which: &ProgramSelector) -> Result<Vec<Status>, ControlFailure> {
    let mut programs = which.find_all()?;
    programs.iter_mut().map(super::control_client::RunningProgram::status).collect()
}

/// One program as an object, several as an array.
fn document(all: &[Status], pretty: bool) -> Result<String, ControlFailure> {
    match all {
        [one] => json(one, pretty),
        several => json(&several, pretty),
    }
}

/// Text for programs.
pub(super) fn json(value: &impl serde::Serialize, pretty: bool) -> Result<String, ControlFailure> {
    let text = match pretty {
        true => serde_json::to_string_pretty(value),
        false => serde_json::to_string(value),
    };
    text.map_err(|error| ControlFailure {
        code: exit::INTERNAL,
        words: format!("cannot write this as JSON: {error}"),
    })
}
