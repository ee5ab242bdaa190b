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

/// For every answer but a reload's: a program that is well gives it at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which program is meant.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The configuration file of the running program; needed if several run
    file: Option<PathBuf>,
    /// The control socket of the running program
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    socket: Option<PathBuf>,
}

/// What the program that runs this configuration tells, if one does and this user may ask.
pub(super) fn running(file: &Path) -> Option<Status> {
    Which::of(Some(file)).one().ok()?.status().ok()
}

/// Why nothing came of it.
#[derive(Debug)]
pub(super) struct Trouble {
    /// The exit code that says so.
    pub(super) code: u8,
    /// In words.
    pub(super) words: String,
}

/// A program that answers.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    client: Client,
}

impl Which {
    /// The program that runs this configuration, or any program.
    pub(super) fn of(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned), socket: None }
    }

    /// Every program that is meant and answers.
    pub(super) fn all(&self) -> Result<Vec<Program>, Trouble> {
        let (paths, is_sure) = match (&self.socket, &self.file) {
            (Some(socket), _) => (vec![socket.clone()], true),
            (None, Some(file)) => match said_socket(file) {
                Some(socket) => (vec![socket], true),
                None => (paths::candidates(&paths::name(file)), false),
            },
            (None, None) => (paths::all(), true),
        };
        let mut found = Vec::new();
        let mut tried = Vec::new();
        let mut denied = false;
        for path in paths {
            let reached = Program::connect(&path).and_then(|mut program| {
                // Another file may have the same name.
                let file = self.file.as_deref().filter(|_| !is_sure);
                let other = file.map(|file| program.other_than(file)).transpose()?.flatten();
                other.map_or(Ok(program), |other| Err(io::Error::other(other)))
            });
            match reached {
                Ok(program) => found.push(program),
                Err(error) => {
                    denied |= error.kind() == io::ErrorKind::PermissionDenied;
                    tried.push(format!("    {}: {}", shown(&path), escape(&why(&error))));
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
        if let Some(why) = self.file.as_deref().filter(|_| !is_sure).and_then(unread) {
            words += &format!(
                "\n  a socket of its own may be named in {}, which cannot be read now: {why}; if so, say it \
                 with --socket PATH",
                shown(self.file.as_deref().unwrap_or(Path::new("")))
            );
        }
        Err(Trouble { code, words })
    }

    /// The one that is meant.
    pub(super) fn one(&self) -> Result<Program, Trouble> {
        let mut all = self.all()?;
        match (all.pop(), all.is_empty()) {
            (Some(only), true) => Ok(only),
            (last, _) => {
                let paths: Vec<_> = all.iter().chain(&last).map(|p| shown(&p.path)).collect();
                let words = format!(
                    "several programs run here; say which with --socket PATH or by its \
                     configuration file:\n    {}",
                    paths.join("\n    ")
                );
                Err(Trouble { code: exit::USAGE, words })
            }
        }
    }
}

/// The socket that a configuration file names, if it does. Of a file that is being repaired, as far as
/// it can be read.
fn said_socket(file: &Path) -> Option<PathBuf> {
    if let (Some(config), _) = config::survey(file, Format::Auto) {
        return config.control.socket.map(|path| path.value);
    }
    let text = std::fs::read_to_string(file).ok()?;
    let table: toml::Table = text.parse().ok()?;
    let path = table.get("control")?.get("socket")?.as_str()?;
    Some(file.parent()?.join(path))
}

/// Why nothing can be said of what a configuration file names.
fn unread(file: &Path) -> Option<String> {
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

impl Program {
    fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), client: Client::connect(path, PATIENCE)? })
    }

    /// What it runs, if that is not this file.
    fn other_than(&mut self, file: &Path) -> io::Result<Option<String>> {
        let Answer::Status(status) = self.client.ask(&ControlCommand::Status, Some(PATIENCE))?
        else {
            return Ok(None);
        };
        let real = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let (wanted, runs) = (real(file)?, real(Path::new(&status.file))?);
        Ok((wanted != runs).then(|| format!("this one runs {}", status.file)))
    }

    /// Asks. What is refused is a trouble as well.
    pub(super) fn ask(&mut self, command: &ControlCommand) -> Result<Answer, Trouble> {
        // It may read thousands of keys, and wait for an address that is busy.
        let is_reload =
            matches!(command, ControlCommand::Reload | ControlCommand::RemoveLast { .. });
        let patience = (!is_reload).then_some(PATIENCE);
        let mut answer = self.client.ask(command, patience);
        if let (Err(_), ControlCommand::Status) = (&answer, command) {
            // Whoever is silent between two questions may be cut to make room for others.
            self.client = Client::connect(&self.path, PATIENCE).map_err(|e| self.lost(&e))?;
            answer = self.client.ask(command, patience);
        }
        match answer {
            Ok(Answer::Denied(words)) => {
                Err(Trouble { code: exit::NO_PERMISSION, words: escape(&words) })
            }
            Ok(Answer::Refused(words)) => {
                Err(Trouble { code: exit::UNAVAILABLE, words: escape(&words) })
            }
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Asks for everything about it.
    pub(super) fn status(&mut self) -> Result<Status, Trouble> {
        match self.ask(&ControlCommand::Status)? {
            Answer::Status(status) => Ok(*status),
            other => Err(self.nonsense(&other)),
        }
    }

    /// The trouble of an answer to another question.
    pub(super) fn nonsense(&self, _: &Answer) -> Trouble {
        let words = format!("{} answers something else than was asked", shown(&self.path));
        Trouble { code: exit::INTERNAL, words }
    }

    fn lost(&self, error: &io::Error) -> Trouble {
        let words = format!("{}: {}", shown(&self.path), escape(&why(error)));
        Trouble { code: exit::UNAVAILABLE, words }
    }
}

fn shown(path: &Path) -> String {
    escape(&path.display().to_string())
}

/// The system's words, or better ones.
fn why(error: &io::Error) -> String {
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
