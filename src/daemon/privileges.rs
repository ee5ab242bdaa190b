//! Whose rights the program keeps once its ports are bound.

use std::io;
use std::path::PathBuf;

use crate::config::diagnostic::{Diagnostic, Diagnostics};
use crate::config::location::SourceLocation;
use crate::config::model::{Account, Config, Resolved};
use crate::sys::{account, background, process};

/// A root directory, a user and a group to change to. What can be found out beforehand is known.
#[derive(Debug, Default)]
pub struct Privileges {
    root: Option<PathBuf>,
    user: Option<u32>,
    group: Option<u32>,
    /// Where the configuration asks for the first of them.
    place: Option<SourceLocation>,
}

impl Privileges {
    /// Looks up the names that the configuration has for them, and lets the user own the key files.
    /// `None`, and the reasons in `report`, if there is no such user or group.
    pub fn of(config: &mut Config, report: &mut Diagnostics) -> Option<Self> {
        let account = &config.process.account;
        let root = config.process.chroot.as_ref().map(|root| root.value.clone());
        let (user, group) = match numbers(account) {
            Ok(numbers) => numbers,
            Err(error) => {
                let said = account.user.iter().chain(&account.group).find_map(Resolved::place);
                let found = Diagnostic::error("no-such-account", error.to_string())
                    .at(said.cloned())
                    .help("write the name or number of a user and a group of this machine");
                report.push(found);
                return None;
            }
        };
        for service in &mut config.services {
            let psk = &mut service.psk;
            psk.rules.also_owned_by = user;
        }
        let account = &config.process.account;
        // Who is no root already, as in containers, stays in the group that it was given, unless the
        // file names one.
        let is_root = rustix::process::geteuid().is_root();
        let group = group.filter(|_| is_root || account.group.is_some());
        if is_root && user.is_some() && group.is_none() {
            let said = account.user.as_ref().and_then(Resolved::place);
            report.push(
                Diagnostic::warning(
                    "group-stays",
                    "this user has no entry in the user database, and so no group",
                )
                .at(said.cloned())
                .help("set `group` too, or the program keeps the group that it was started with"),
            );
        }
        let process = &config.process;
        let place =
            process.account.user.iter().chain(&process.account.group).find_map(Resolved::place);
        let place = place.or(process.chroot.as_ref().and_then(Resolved::place)).cloned();
        Some(Self { root, user, group, place })
    }

    /// Whether anything changes at all.
    pub fn changes_something(&self) -> bool {
        self.root.is_some() || self.user.is_some() || self.group.is_some()
    }

    /// The root directory that will be, if it changes.
    pub fn root(&self) -> Option<&std::path::Path> {
        self.root.as_deref()
    }

    /// Why [`Self::take`] failed, where it was asked for, and what cures it.
    pub fn explain(&self, error: &io::Error) -> String {
        let place = self.place.as_ref();
        let place =
            place.map(|at| format!("{}:{}: ", at.file.display(), at.line)).unwrap_or_default();
        let mut text = format!("{place}cannot change to the configured user: {error}");
        let user = rustix::process::geteuid();
        if !user.is_root() {
            text += &format!(
                "; a program that starts as user {} cannot become another: remove `user` and `group` (setuid and \
                 setgid), or have it start as root",
                user.as_raw()
            );
        }
        text
    }

    /// Changes to them for good, in the order of stunnel's. Must be called while there is one thread.
    ///
    /// # Errors
    /// The system's, with what it was that failed.
    pub fn take(&self) -> io::Result<()> {
        if let Some(root) = &self.root {
            background::change_root(root).map_err(|error| {
                io::Error::new(error.kind(), format!("chroot to {}: {error}", root.display()))
            })?;
        }
        if self.user.is_some() || self.group.is_some() {
            account::drop_privileges(self.user, self.group)?;
            // The kernel forgets this one with every change of user.
            process::forbid_dumps();
        }
        Ok(())
    }
}

/// The numbers of a user and its group. A user whose group is not said has its own: not the one that
/// root was in.
///
/// # Errors
/// There is no such user or group.
pub fn numbers(names: &Account) -> io::Result<(Option<u32>, Option<u32>)> {
    let user = names.user.as_ref().map(|name| account::find_user(name)).transpose()?;
    let group = names.group.as_ref().map(|name| account::find_group(name)).transpose()?;
    Ok((user.map(|(user, _)| user), group.or(user.and_then(|(_, own)| own))))
}
