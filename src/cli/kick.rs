//! `kick`: ends sessions of a running program.

use super::control_client::{Trouble, Which};
use super::{complain, exit, say, units};
use crate::config::diagnostic::escape;
use crate::daemon::control::{Answer, ControlCommand, Kick};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The number of a session, from `sessions` or the log, or an identity
    #[arg(value_name = "NUMBER|IDENTITY")]
    whom: String,
    /// The argument is an identity, even if it looks like a number
    #[arg(long)]
    identity: bool,
    #[command(flatten)]
    which: Which,
}

pub(super) fn main(arguments: &Arguments) -> Result<u8, Trouble> {
    let kick = match arguments.whom.parse() {
        Ok(number) if !arguments.identity => Kick::Number(number),
        _ => Kick::Identity(arguments.whom.clone()),
    };
    let mut program = arguments.which.one()?;
    match program.ask(&ControlCommand::Kick(kick.clone()))? {
        Answer::Kicked(count) => {
            let said = say(&units::count(count as u64, "session ends", "sessions end"));
            if count > 0 {
                return Ok(said);
            }
            let whom = escape(&arguments.whom);
            complain(&match kick {
                Kick::Number(_) => format!(
                    "no session has the number {whom}; `pskgate sessions` shows those that are open"
                ),
                Kick::Identity(_) => {
                    format!("{whom} has no open session; `pskgate sessions` shows who has")
                }
            });
            Ok(exit::NONE)
        }
        other => Err(program.nonsense(&other)),
    }
}
