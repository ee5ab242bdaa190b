//! `sessions`: who is in, a line each.

use super::control_client::{Trouble, Which};
use super::say;
use super::status::{json, table};
use super::terminal::Style;
use crate::observe::status::SessionStatus;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Print the sessions as a JSON array
    #[arg(long)]
    json: bool,
}

/// A session, and whose it is: numbers alone do not say that.
#[derive(serde::Serialize)]
struct Row<'a> {
    service: &'a str,
    #[serde(flatten)]
    session: &'a SessionStatus,
}

pub(super) fn main(arguments: &Arguments) -> Result<u8, Trouble> {
    let status = arguments.which.one()?.status()?;
    if arguments.json {
        let rows = status.services.iter().flat_map(|service| {
            service.sessions.iter().map(|session| Row { service: &service.name, session })
        });
        let all: Vec<Row<'_>> = rows.collect();
        return Ok(say(&json(&all, true)?));
    }
    Ok(say(&table::sessions(&status, &table::Rates::default(), &Style::now(), false)))
}
