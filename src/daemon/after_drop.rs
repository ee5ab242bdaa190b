//! What a reload could not read once the program has given up its rights, told beforehand from modes.

use std::io;
use std::path::Path;

use super::{inside, privileges};
use crate::config::diagnostic::Diagnostic;
use crate::config::model::{Config, ProcessConfig, Resolved};
use crate::secrets::{KeyFileWriter, list_key_files_leniently};
use crate::sys::access;
use crate::sys::pipe::is_read_once;

/// The rights that a configuration leaves to the program.
#[derive(Debug, Clone, Copy)]
pub struct RightsLater<'a> {
    /// The root directory, if it is another one.
    pub root: Option<&'a Path>,
    /// The user, by number.
    pub user: u32,
    group: u32,
}

/// What keeps the program from a key file.
#[derive(Debug)]
pub struct Unreadable {
    /// The obstacle in words.
    pub text: String,
    /// What removes it.
    pub help: String,
}

impl<'a> RightsLater<'a> {
    /// None if the program keeps the rights that it has, or names a user that nobody knows, which is told
    /// elsewhere.
    pub fn of(process: &'a ProcessConfig) -> Option<Self> {
        let root = process.chroot.as_ref().map(|root| root.value.as_path());
        let (user, group) = privileges::numbers(&process.account).ok()?;
        if user.is_none() && root.is_none() {
            return None;
        }
        let here = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Some(Self { root, user: user.unwrap_or(here.0), group: group.unwrap_or(here.1) })
    }

    /// The first thing that keeps a reload from reading a key file, or a folder of them that `writer` fills.
    ///
    /// # Errors
    /// The file is not there, or this process may not look.
    pub fn unreadable(&self, path: &Path, writer: KeyFileWriter) -> io::Result<Option<Unreadable>> {
        let mut paths = list_key_files_leniently(path, writer);
        if path.is_dir() {
            paths.insert(0, path.to_owned());
        }
        for file in paths {
            // What is not in the new root is looked for there under its old name.
            let real = match self.root {
                Some(root) => {
                    let name = inside(root, &file);
                    root.join(name.strip_prefix("/").unwrap_or(&name))
                }
                None => file.clone(),
            };
            match access::find_obstacle(&real, self.root, self.user, &[self.group]) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    let (path, mode, owner) = (found.path.display(), found.mode, found.owner);
                    let what = match found.is_folder {
                        true => format!("enter {path} on the way to {}", file.display()),
                        false => format!("read {path}"),
                    };
                    let user = self.user;
                    let text =
                        format!("user {user} may not {what} (mode {mode:04o}, owner {owner})");
                    let mode = if found.is_folder { "0750" } else { "0640" };
                    let help = format!("give it to that user's group with mode {mode}");
                    return Ok(Some(Unreadable { text, help }));
                }
                Err(error) if self.root.is_some() => {
                    let text = format!("{}: {error}", real.display());
                    let help = "put a copy into the new root directory".into();
                    return Ok(Some(Unreadable { text, help }));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The key files of a configuration that a reload could not read. Each is told once.
pub fn find_unreadable(config: &Config) -> Vec<Diagnostic> {
    let Some(rights) = RightsLater::of(&config.process) else { return Vec::new() };
    let mut seen: Vec<&Path> = Vec::new();
    let mut found = Vec::new();
    let named = config.services.iter().flat_map(|service| {
        let psk = &service.psk;
        psk.secrets.iter().zip(psk.paths())
    });
    for (named, (path, writer)) in named {
        if seen.contains(&path) || is_read_once(path) {
            continue;
        }
        seen.push(path);
        // That it is not there is told by who reads it.
        let Ok(Some(Unreadable { text, help })) = rights.unreadable(path, writer) else { continue };
        let message = format!("reloads will fail: {text}");
        let finding = Diagnostic::warning("cannot-be-reloaded", message).help(help);
        found.push(finding.at(Resolved::place(named).cloned()));
    }
    found
}
