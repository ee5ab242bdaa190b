//! What keeps a configuration from running under a unit of systemd's, told from its files and modes before the first
//! start: root may read every key, and the user of the unit may not.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::endpoint::Endpoint;
use crate::config::model::{Config, Resolved};
use crate::secrets::{KeyFileWriter, list_key_files_leniently};
use crate::sys::unit_file::Unit;
use crate::sys::{access, account, pipe};

/// Ports below this one are for root and for `CAP_NET_BIND_SERVICE`, unless the kernel is told otherwise.
const FIRST_FREE_PORT: u16 = 1024;

/// As whom, and within which limits, a configuration is run.
#[derive(Debug)]
pub struct UnitRights {
    /// The unit, if one runs the file.
    pub unit: Option<Unit>,
    /// The name of the user.
    pub user_name: String,
    /// The number of the user.
    pub user: u32,
    /// The name of the group, for advice.
    pub group_name: String,
    group: u32,
    groups: Vec<u32>,
}

impl UnitRights {
    /// The rights of a unit; `user` takes the place of the unit's. None for root, whom nothing keeps from a file, and
    /// for a user that systemd makes up at the start.
    ///
    /// # Errors
    /// There is no such user or group on this machine.
    pub fn new(unit: Option<Unit>, user: Option<&str>) -> io::Result<Option<Self>> {
        let is_replaced = user.is_some();
        let of_unit = unit.as_ref().filter(|unit| !unit.has_dynamic_user);
        let Some(name) = user.or(of_unit.and_then(|unit| unit.user.as_deref())) else {
            return Ok(None);
        };
        let (number, own_group) = account::find_user(name)?;
        if number == 0 {
            return Ok(None);
        }
        let of_unit = of_unit.filter(|_| !is_replaced);
        let group = match of_unit.and_then(|unit| unit.group.as_deref()) {
            Some(group) => account::find_group(group)?,
            None => own_group.unwrap_or(number),
        };
        let mut groups = account::groups_of_user(name, group);
        for more in of_unit.into_iter().flat_map(|unit| &unit.more_groups) {
            groups.push(account::find_group(more)?);
        }
        let group_name = account::group_name(group).unwrap_or_else(|| group.to_string());
        let user_name = name.to_owned();
        Ok(Some(Self { unit, user_name, user: number, group_name, group, groups }))
    }

    /// Whatever keeps this configuration from running with these rights. An error prevents the start.
    pub fn find_obstacles(&self, file: Option<&Path>, config: &Config) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        found.extend(file.and_then(|file| self.unreadable(file, KeyFileWriter::Operator)));
        let mut seen: Vec<&Path> = Vec::new();
        let named = config.services.iter().flat_map(|service| {
            let psk = &service.psk;
            psk.secrets.iter().zip(psk.paths())
        });
        for (named, (path, writer)) in named {
            if !seen.contains(&path) && !pipe::is_read_once(path) {
                seen.push(path);
                let place = Resolved::place(named).cloned();
                found.extend(self.unreadable(path, writer).map(|finding| finding.at(place)));
            }
        }
        found.extend(self.another_account(config));
        found.extend(self.another_root(config));
        let log = config.log.output.as_ref();
        found.extend(log.and_then(|path| self.unwritable(path, &self.log_help(path))));
        let pid = config.process.pid.as_ref();
        let help = "remove `pid`: systemd has the number of the process";
        found.extend(pid.and_then(|path| self.unwritable(path, help)));
        found.extend(self.low_ports(config));
        found
    }

    /// The same as warnings: the program may also be started in another way.
    pub fn find_warnings(&self, file: Option<&Path>, config: &Config) -> Vec<Diagnostic> {
        let mut found = self.find_obstacles(file, config);
        for finding in &mut found {
            finding.severity = Severity::Warning;
            if let Some(unit) = &self.unit {
                finding.message = format!("as {}, {}", unit.name, finding.message);
            }
        }
        found
    }

    /// The first key file of a path, or folder above it, that the user may not read.
    fn unreadable(&self, path: &Path, writer: KeyFileWriter) -> Option<Diagnostic> {
        let mut files = list_key_files_leniently(path, writer);
        if path.is_dir() || files.is_empty() {
            files.insert(0, path.to_owned());
        }
        // What is not there, or cannot be looked at, is told by who reads it.
        let (file, obstacle) = files.into_iter().find_map(|file| {
            let obstacle = access::find_obstacle(&file, None, self.user, &self.groups).ok()??;
            Some((file, obstacle))
        })?;
        let (path, mode, owner) = (obstacle.path.display(), obstacle.mode, obstacle.owner);
        let what = match obstacle.is_folder && obstacle.path != file {
            true => format!("enter {path} on the way to {}", file.display()),
            false => format!("read {path}"),
        };
        let user = &self.user_name;
        let text = format!("user {user} may not {what} (mode {mode:04o}, owner {owner})");
        let wanted = if obstacle.is_folder { "750" } else { "640" };
        let help = format!("`chgrp {} {path} && chmod {wanted} {path}`", self.group_name);
        Some(Diagnostic::error("unit-cannot-read", text).help(help))
    }

    fn another_account(&self, config: &Config) -> Option<Diagnostic> {
        let account = &config.process.account;
        let user = account
            .user
            .as_ref()
            .filter(|user| account::find_user(user).is_ok_and(|(number, _)| number != self.user));
        let group = account
            .group
            .as_ref()
            .filter(|group| account::find_group(group).is_ok_and(|number| number != self.group));
        let (kind, name) = match (user, group) {
            (Some(user), _) => ("user", user),
            (None, Some(group)) => ("group", group),
            (None, None) => return None,
        };
        let text = format!(
            "the program starts as user {}, which cannot become {kind} {}",
            self.user_name, name.value
        );
        let help = "remove `user` and `group`: the unit says as whom the program runs";
        let found = Diagnostic::error("unit-cannot-become", text).help(help);
        Some(found.at(Resolved::place(name).cloned()))
    }

    fn another_root(&self, config: &Config) -> Option<Diagnostic> {
        let root = config.process.chroot.as_ref()?;
        let text = format!(
            "the program starts as user {}, which cannot change the root directory to {}",
            self.user_name,
            root.display()
        );
        let help = "remove `chroot`: the unit confines the program";
        let found = Diagnostic::error("unit-cannot-become", text).help(help);
        Some(found.at(Resolved::place(root).cloned()))
    }

    fn unwritable(&self, path: &Resolved<PathBuf>, help: &str) -> Option<Diagnostic> {
        if self.may_write(path) {
            return None;
        }
        let text = format!("user {} may not write {}", self.user_name, path.display());
        let found = Diagnostic::error("unit-cannot-write", text).help(help);
        Some(found.at(Resolved::place(path).cloned()))
    }

    fn may_write(&self, path: &Path) -> bool {
        let is_below = |folder: &PathBuf| path.starts_with(folder);
        if path.starts_with("/dev") || path.starts_with("/proc") {
            return true;
        }
        if let Some(unit) = &self.unit {
            let is_temporary = path.starts_with("/tmp") || path.starts_with("/var/tmp");
            let is_writable = unit.writable.iter().any(is_below);
            if unit.own_folders.iter().any(is_below) || is_temporary && is_writable {
                return true;
            }
            if unit.is_read_only && !is_writable {
                return false;
            }
        }
        access::may_write(path, self.user, &self.groups).unwrap_or(true)
    }

    fn log_help(&self, path: &Path) -> String {
        let folder = self.unit.as_ref().and_then(|unit| unit.log_folder.as_ref());
        match (folder, path.file_name()) {
            (Some(folder), Some(name)) => format!(
                "write `output = \"{}\"`, in the folder that the unit makes; or remove `output`: the journal has the lines",
                folder.join(name).display()
            ),
            _ => "name a file in a folder of that user; or remove `output`: the journal has the lines".into(),
        }
    }

    /// A socket unit may open them, so this is no error.
    fn low_ports(&self, config: &Config) -> Option<Diagnostic> {
        let unit = self.unit.as_ref().filter(|unit| !unit.may_bind_low_ports)?;
        let first = first_free_port();
        let all = config.services.iter().flat_map(|service| service.accept());
        let is_low =
            |at: &Endpoint| matches!(at, Endpoint::Tcp { port, .. } if (1..first).contains(port));
        let low = all.map(|listen| &listen.at).find(|at| is_low(&at.value))?;
        let text = format!("user {} may not listen on {}", self.user_name, low.value);
        let help = format!(
            "let a socket unit open it, or add CAP_NET_BIND_SERVICE with `systemctl edit {}` (its comments say how)",
            unit.name
        );
        let found = Diagnostic::warning("unit-cannot-listen", text).help(help);
        Some(found.at(Resolved::place(low).cloned()))
    }
}

fn first_free_port() -> u16 {
    let said = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    said.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(FIRST_FREE_PORT)
}
