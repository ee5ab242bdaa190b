//! The last key of a service is gone: a running program is told that this was meant. By itself it would
//! keep the key, because a file that was emptied by mistake must not shut everybody out.

use std::path::Path;

use crate::cli::control_client::ProgramSelector;
use crate::cli::refusal::Refusal;
use crate::cli::{exit, print_error};
use crate::config::diagnostic::escape;
use crate::daemon::control::{Answer, ControlCommand};

/// Tells the program that runs `config`, or without one each program that answers. That none runs is no
/// failure. Returns whether one was told.
///
/// # Errors
/// A program that may not be asked, or whose answer is that it goes on with the key.
pub(super) fn announce_last_key(file: &Path, config: Option<&Path>) -> Result<bool, Refusal> {
    let shown = file.display();
    let kept = |code, words: &str| {
        let words = format!(
            "{shown} has no key any more, but the running program was not told and goes on with the one \
             that it had: {words}; give the same command again as root or as the program's user"
        );
        Err(Refusal::new(code, words))
    };
    let programs = match ProgramSelector::new(config).find_all() {
        Ok(programs) => programs,
        Err(trouble) if trouble.code == exit::UNAVAILABLE => {
            print_error(&format!(
                "no program answers at a control socket, so none was told. One that runs without its control \
                 socket goes on with the key: restart it. None can be started before {shown} has a key"
            ));
            return Ok(false);
        }
        Err(trouble) => return kept(trouble.code, &trouble.words),
    };
    // It may run elsewhere, and has no use for a name that is relative to this folder.
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    for mut program in programs {
        match program.ask(&ControlCommand::RemoveLast { file: file.clone() }) {
            Ok(Answer::Reloaded(reload)) => {
                reload.findings.iter().for_each(|finding| print_error(&escape(finding)));
                if !reload.done {
                    print_error(&format!("not everything took effect: {}", escape(&reload.error)));
                }
            }
            Ok(other) => {
                let trouble = program.unexpected_answer(&other);
                return kept(trouble.code, &trouble.words);
            }
            Err(trouble) => return kept(trouble.code, &trouble.words),
        }
    }
    print_error(&format!(
        "a running program answers everybody as it answers a wrong key from now on, where {shown} was the \
         last file with a key; one cannot be started before it has a key again"
    ));
    Ok(true)
}
