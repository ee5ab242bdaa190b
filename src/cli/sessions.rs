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
    /// Print the sessions as JSON, an array of objects
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> Result<u8, Trouble> {
    let status = arguments.which.one()?.status()?;
    if arguments.json {
        let all: Vec<&SessionStatus> =
            status.services.iter().flat_map(|service| &service.sessions).collect();
        return Ok(say(&json(&all, true)?));
    }
    Ok(say(&table::sessions(&status, &table::Rates::default(), &Style::now(), false)))
}
