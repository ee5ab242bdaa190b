//! Who may look, and who may also give orders.

#[cfg(unix)]
use std::io;

use super::Right;
#[cfg(unix)]
use crate::config::model::{ControlConfig, Resolved};
#[cfg(unix)]
use crate::sys::account;

/// The rights on a control socket, with names looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Access {
    /// Of the socket: whoever can connect may look.
    #[cfg(unix)]
    pub(super) mode: u32,
    #[cfg(unix)]
    pub(super) group: Option<(String, u32)>,
    /// Users of the configuration's who may give orders.
    #[cfg(unix)]
    users: Vec<(String, u32)>,
    /// Who this program was when its names were looked up.
    #[cfg(unix)]
    owner: u32,
}

impl Access {
    /// Looks up the names. What `held` knows already is not forgotten when nobody can be asked any
    /// more, as inside another root directory.
    ///
    /// # Errors
    /// The name that nobody knows, with its place.
    #[cfg(unix)]
    pub(in crate::daemon) fn of<'a>(
        config: &'a ControlConfig,
        held: Option<&Self>,
    ) -> Result<Self, (&'a Resolved<String>, io::Error)> {
        let known = |all: &[(String, u32)], name: &str| {
            all.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
        };
        let mut users = Vec::new();
        for name in &config.users {
            let number = account::find_user(name).map(|(number, _)| number).or_else(|error| {
                held.and_then(|held| known(&held.users, name)).ok_or((name, error))
            })?;
            users.push((name.value.clone(), number));
        }
        let group = match &config.group {
            None => None,
            Some(name) => {
                let number = account::find_group(name).or_else(|error| {
                    held.and_then(|held| known(held.group.as_slice(), name)).ok_or((name, error))
                })?;
                Some((name.value.clone(), number))
            }
        };
        let now = rustix::process::geteuid().as_raw();
        let owner = held.map_or(now, |held| held.owner);
        Ok(Self { mode: config.mode.value, group, users, owner })
    }

    /// What somebody who could connect may do. Root and this program's own user, before and after
    /// it changed, can end the program anyway.
    #[cfg(unix)]
    pub(super) fn right(&self, user: Option<u32>) -> Right {
        let Some(user) = user else { return Right::Read };
        let own = rustix::process::geteuid().as_raw();
        let named = self.users.iter().any(|(_, number)| *number == user);
        match user == 0 || user == own || user == self.owner || named {
            true => Right::Command,
            false => Right::Read,
        }
    }

    /// A pipe is written to by its creator, by administrators and by the system alone: that is who
    /// can ask at all.
    #[cfg(not(unix))]
    pub(super) fn right(&self, _: Option<u32>) -> Right {
        Right::Command
    }
}
