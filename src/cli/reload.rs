//! `reload`: has a running program read its files again, and says what came of it.

use super::control_client::{ControlFailure, ProgramSelector};
use super::{exit, print_error, print_result};
use crate::config::diagnostic::escape;
use crate::daemon::control::{Answer, ControlCommand};

pub(super) fn main(which: &ProgramSelector) -> Result<u8, ControlFailure> {
    let mut program = which.find_one()?;
    let reload = match program.ask(&ControlCommand::Reload)? {
        Answer::Reloaded(reload) => reload,
        other => return Err(program.unexpected_answer(&other)),
    };
    for finding in &reload.findings {
        print_error(&escape(finding));
    }
    Ok(match reload.done {
        true => print_result(&format!("reloaded at {}", escape(&reload.time))),
        false => {
            print_error(&format!("pskgate: not reloaded: {}", escape(&reload.error)));
            exit::CONFIG
        }
    })
}
