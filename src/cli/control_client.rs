//! Finding a running program by its control socket, and asking it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit;
use crate::config::diagnostic::escape;
use crate::config::{self, Format};
use crate::daemon::control::client::Client;
use crate::daemon::control::{Answer, ControlCommand, paths};
use crate::observe::status::Status;

/// The timeout of every answer but a reload's, which may take long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Selects a running program by its configuration file or control socket.
#[derive(Debug, clap::Args)]
pub(super) struct ProgramSelector {
    /// The configuration file of the running program, or the name that `status` shows; needed if several run
    file: Option<PathBuf>,
    /// The control socket of the running program
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    socket: Option<PathBuf>,
}

/// The status of the program that runs this configuration; `None` if none runs or this user may not ask.
pub(super) fn status_of_running(file: &Path) -> Option<Status> {
    ProgramSelector::new(Some(file)).find_one().ok()?.status().ok()
}

/// Why a request to a running program failed.
#[derive(Debug)]
pub(super) struct ControlFailure {
    /// The exit code.
    pub(super) code: u8,
    /// The message.
    pub(super) words: String,
}

/// A connection to a running program's control socket.
#[derive(Debug)]
pub(super) struct RunningProgram {
    path: PathBuf,
    client: Client,
}

impl ProgramSelector {
    /// The program that runs this configuration, or any program.
    pub(super) fn new(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned), socket: None }
    }

    /// Every selected program that answers.
    pub(super) fn find_all(&self) -> Result<Vec<RunningProgram>, ControlFailure> {
        let (paths, is_sure) = match (&self.socket, &self.file) {
            (Some(socket), _) => (vec![socket.clone()], true),
            (None, Some(file)) => match configured_socket(file) {
                Some(socket) => (vec![socket], true),
                None => (paths::candidates(&paths::name(file)), false),
            },
            (None, None) => (paths::all(), true),
        };
        let mut found = Vec::new();
        let mut tried = Vec::new();
        let mut denied = false;
        for path in paths {
            let reached = RunningProgram::connect(&path).and_then(|mut program| {
                // Another file may have the same name.
                let file = self.file.as_deref().filter(|_| !is_sure);
                let other = file.map(|file| program.other_file(file)).transpose()?.flatten();
                other.map_or(Ok(program), |other| Err(io::Error::other(other)))
            });
            match reached {
                Ok(program) => found.push(program),
                Err(error) => {
                    denied |= error.kind() == io::ErrorKind::PermissionDenied;
                    tried.push(format!(
                        "    {}: {}",
                        display_path(&path),
                        escape(&explain_io_error(&error))
                    ));
                }
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        if tried.is_empty() {
            tried = paths::places().iter().map(|place| format!("    {place}: none")).collect();
        }
        let (code, words) = match denied {
            true => (exit::NO_PERMISSION, "no running program answers this user"),
            false => (exit::UNAVAILABLE, "no running program answers"),
        };
        let mut words = format!("{words}; what was tried:\n{}", tried.join("\n"));
        if let Some(why) = self.file.as_deref().filter(|_| !is_sure).and_then(why_unreadable) {
            words += &format!(
                "\n  a socket of its own may be named in {}, which cannot be read now: {why}; if so, say it \
                 with --socket PATH",
                display_path(self.file.as_deref().unwrap_or(Path::new("")))
            );
        }
        Err(ControlFailure { code, words })
    }

    /// The one selected program; an error if several run.
    pub(super) fn find_one(&self) -> Result<RunningProgram, ControlFailure> {
        let mut all = self.find_all()?;
        match (all.pop(), all.is_empty()) {
            (Some(only), true) => Ok(only),
            (last, _) => {
                all.extend(last);
                let programs: Vec<_> =
                    all.iter_mut().map(RunningProgram::name_and_socket).collect();
                let words = format!(
                    "several programs run here; add one of these names, or its --socket, to the \
                     command:\n    {}",
                    programs.join("\n    ")
                );
                Err(ControlFailure { code: exit::USAGE, words })
            }
        }
    }
}

/// The control socket that a configuration file names, if any; also found in a file with errors, as far as it is TOML.
fn configured_socket(file: &Path) -> Option<PathBuf> {
    if let (Some(config), _) = config::survey(file, Format::Auto) {
        return config.control.socket.map(|path| path.value);
    }
    let text = std::fs::read_to_string(file).ok()?;
    let table: toml::Table = text.parse().ok()?;
    let path = table.get("control")?.get("socket")?.as_str()?;
    Some(file.parent()?.join(path))
}

/// Why the control socket that a configuration file names cannot be found out.
fn why_unreadable(file: &Path) -> Option<String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return Some(escape(&error.to_string())),
    };
    // The other dialect names no socket.
    if file.extension().is_none_or(|extension| extension != "toml") {
        return None;
    }
    let error = text.parse::<toml::Table>().err()?;
    Some(escape(error.message()))
}

impl RunningProgram {
    fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), client: Client::connect(path, ANSWER_TIMEOUT)? })
    }

    /// The name that stands for it on a command line, and the option with its socket. A program that does
    /// not tell its name has the option alone.
    fn name_and_socket(&mut self) -> String {
        let socket = format!("--socket {}", display_path(&self.path));
        match self.client.ask(&ControlCommand::Status, Some(ANSWER_TIMEOUT)) {
            Ok(Answer::Status(status)) => format!("{}   ({socket})", escape(&status.file)),
            _ => socket,
        }
    }

    /// What it runs, if that is not this file.
    fn other_file(&mut self, file: &Path) -> io::Result<Option<String>> {
        let Answer::Status(status) =
            self.client.ask(&ControlCommand::Status, Some(ANSWER_TIMEOUT))?
        else {
            return Ok(None);
        };
        let real = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let (wanted, runs) = (real(file)?, real(Path::new(&status.file))?);
        Ok((wanted != runs).then(|| format!("this one runs {}", status.file)))
    }

    /// Asks. What is refused is a trouble as well.
    pub(super) fn ask(&mut self, command: &ControlCommand) -> Result<Answer, ControlFailure> {
        // It may read thousands of keys, and wait for an address that is busy.
        let is_reload =
            matches!(command, ControlCommand::Reload | ControlCommand::RemoveLast { .. });
        let patience = (!is_reload).then_some(ANSWER_TIMEOUT);
        let mut answer = self.client.ask(command, patience);
        if let (Err(_), ControlCommand::Status) = (&answer, command) {
            // Whoever is silent between two questions may be cut to make room for others.
            self.client = Client::connect(&self.path, ANSWER_TIMEOUT)
                .map_err(|e| self.connection_failure(&e))?;
            answer = self.client.ask(command, patience);
        }
        match answer {
            Ok(Answer::Denied(words)) => {
                Err(ControlFailure { code: exit::NO_PERMISSION, words: escape(&words) })
            }
            Ok(Answer::Refused(words)) => {
                Err(ControlFailure { code: exit::UNAVAILABLE, words: escape(&words) })
            }
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.connection_failure(&error)),
        }
    }

    /// Asks for everything about it.
    pub(super) fn status(&mut self) -> Result<Status, ControlFailure> {
        match self.ask(&ControlCommand::Status)? {
            Answer::Status(status) => Ok(*status),
            other => Err(self.unexpected_answer(&other)),
        }
    }

    /// The error for an answer that does not belong to the command.
    pub(super) fn unexpected_answer(&self, _: &Answer) -> ControlFailure {
        let words = format!("{} answers something else than was asked", display_path(&self.path));
        ControlFailure { code: exit::INTERNAL, words }
    }

    fn connection_failure(&self, error: &io::Error) -> ControlFailure {
        let words = format!("{}: {}", display_path(&self.path), escape(&explain_io_error(error)));
        ControlFailure { code: exit::UNAVAILABLE, words }
    }
}

fn display_path(path: &Path) -> String {
    escape(&path.display().to_string())
}

/// The system's message, or a clearer one.
fn explain_io_error(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound => "there is no such socket".into(),
        Kind::ConnectionRefused => "left behind by a program that has ended".into(),
        Kind::PermissionDenied => {
            "this user may not connect: `[control] mode` and `group` say who may".into()
        }
        Kind::WouldBlock | Kind::TimedOut => "no answer in time".into(),
        Kind::UnexpectedEof | Kind::BrokenPipe | Kind::ConnectionReset => {
            "the program has ended, or has hung up".into()
        }
        _ => error.to_string(),
    }
}
