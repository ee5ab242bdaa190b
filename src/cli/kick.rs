//! `kick`: ends sessions of a running program.

use super::control_client::{ControlFailure, ProgramSelector};
use super::{exit, print_error, print_result, units};
use crate::config::diagnostic::escape;
use crate::daemon::control::{Answer, ControlCommand, KickSelection};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The number of a session, from `sessions` or the log, or an identity
    #[arg(value_name = "NUMBER|IDENTITY")]
    whom: String,
    /// The argument is an identity, even if it looks like a number
    #[arg(long)]
    identity: bool,
    #[command(flatten)]
    which: ProgramSelector,
}

pub(super) fn main(arguments: &Arguments) -> Result<u8, ControlFailure> {
    let kick = match arguments.whom.parse() {
        Ok(number) if !arguments.identity => KickSelection::Number(number),
        _ => KickSelection::Identity(arguments.whom.clone()),
    };
    let mut program = arguments.which.find_one()?;
    match program.ask(&ControlCommand::Kick(kick.clone()))? {
        Answer::Kicked(count) => {
            let said = print_result(&units::count(count as u64, "session ends", "sessions end"));
            if count > 0 {
                return Ok(said);
            }
            let whom = escape(&arguments.whom);
            print_error(&match kick {
                KickSelection::Number(_) => format!(
                    "no session has the number {whom}; `pskgate sessions` shows those that are open"
                ),
                KickSelection::Identity(_) => {
                    format!("{whom} has no open session; `pskgate sessions` shows who has")
                }
            });
            Ok(exit::NO_MATCH)
        }
        other => Err(program.unexpected_answer(&other)),
    }
}
