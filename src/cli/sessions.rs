//! `sessions`: who is in, a line each.

use super::control_client::{ControlFailure, ProgramSelector};
use super::print_result;
use super::status::{json, table};
use super::terminal::Style;
use crate::observe::status::SessionStatus;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: ProgramSelector,
    /// Print the sessions as a JSON array
    #[arg(long)]
    json: bool,
}

/// A session, and whose it is: numbers alone do not say that.
#[derive(serde::Serialize)]
struct SessionRow<'a> {
    service: &'a str,
    #[serde(flatten)]
    session: &'a SessionStatus,
}

pub(super) fn main(arguments: &Arguments) -> Result<u8, ControlFailure> {
    let status = arguments.which.find_one()?.status()?;
    if arguments.json {
        let rows = status.services.iter().flat_map(|service| {
            service.sessions.iter().map(|session| SessionRow { service: &service.name, session })
        });
        let all: Vec<SessionRow<'_>> = rows.collect();
        return Ok(print_result(&json(&all, true)?));
    }
    Ok(print_result(&table::render_sessions(
        &status,
        &table::SessionRates::default(),
        &Style::for_stdout(),
        false,
    )))
}
