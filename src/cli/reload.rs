//! `reload`: has a running program read its files again, and says what came of it.

use super::control_client::{Trouble, Which};
use super::{complain, exit, say};
use crate::config::diagnostic::escape;
use crate::daemon::control::{Answer, ControlCommand};

pub(super) fn main(which: &Which) -> Result<u8, Trouble> {
    let mut program = which.one()?;
    let reload = match program.ask(&ControlCommand::Reload)? {
        Answer::Reloaded(reload) => reload,
        other => return Err(program.nonsense(&other)),
    };
    for finding in &reload.findings {
        complain(&escape(finding));
    }
    Ok(match reload.done {
        true => say(&format!("reloaded at {}", escape(&reload.time))),
        false => {
            complain(&format!("pskgate: not reloaded: {}", escape(&reload.error)));
            exit::CONFIG
        }
    })
}
