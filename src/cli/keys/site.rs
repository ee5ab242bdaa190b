//! Whose keys stand where, as a configuration or a single key file has it.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::cli::refusal::Refusal;
use crate::cli::{FormatName, exit, failed, paths, show};
use crate::config;
use crate::config::diagnostic::{Diagnostics, Severity};
use crate::config::model::{Config, Dialect, Mode, OnRevocation, ServiceConfig};
use crate::daemon::BuiltConfig;
#[cfg(unix)]
use crate::daemon::privileges::Privileges;
use crate::secrets::{self, Entry, Identity, Rules, key_files};

use super::KeySelection;

/// The keys of a service, or of a key file that was named by itself.
#[derive(Debug)]
pub(super) struct Holder {
    /// The service's name; unset for a key file.
    pub(super) service: Option<String>,
    /// Whether it only presents its keys.
    pub(super) is_client: bool,
    /// The identity that it presents.
    pub(super) presents: Option<Vec<u8>>,
    /// What becomes of the sessions of a key that goes; unset for a key file.
    pub(super) on_revocation: Option<OnRevocation>,
    /// The file that a Beremiz runtime writes, if the service declares one.
    pub(super) runtime_file: Option<PathBuf>,
    /// The files and folders that it names.
    pub(super) paths: Vec<PathBuf>,
    /// How they are read.
    pub(super) rules: Rules,
    /// Every line of them.
    pub(super) entries: Vec<Entry>,
}

impl Holder {
    /// Whether this file was named itself, and not as one of a folder's.
    pub(super) fn names(&self, file: &Path) -> bool {
        self.paths.iter().any(|path| path == file)
    }

    /// Whether it names this file or its folder. The file need not exist.
    pub(super) fn reads(&self, file: &Path) -> bool {
        let same = resolved(file);
        let folder = match file.parent() {
            Some(folder) if folder.as_os_str().is_empty() => resolved(Path::new(".")),
            folder => folder.map(resolved).unwrap_or_default(),
        };
        self.paths.iter().map(|path| resolved(path)).any(|path| path == same || path == folder)
    }

    /// The lines of a name, in the order in which they are read.
    pub(super) fn lines_of<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.identity().as_bytes() == name)
    }
}

/// What of a configuration a command is about.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// The key files of this service alone.
    service: Option<String>,
    /// This key file alone, after links.
    file: Option<PathBuf>,
}

impl Scope {
    /// Whether a line is meant, by who reads it and where it stands.
    pub(super) fn has(&self, holder: &Holder, entry: &Entry) -> bool {
        (self.service.is_none() || self.service == holder.service)
            && self.file.as_ref().is_none_or(|file| *file == resolved(entry.file()))
    }

    /// The service, if one was named.
    pub(super) fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }

    /// Whether it leaves something out.
    pub(super) fn is_narrow(&self) -> bool {
        self.service.is_some() || self.file.is_some()
    }
}

/// A path after links, by which two names of one file are told to be one.
pub(super) fn resolved(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}

/// One name on the wire and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wire {
    /// The service that says so.
    pub(super) service: String,
    /// To whom the name belongs.
    pub(super) identity: String,
    /// The name before the colon in a key file.
    pub(super) name: String,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Site {
    /// The configuration, in either language; unset for a key file.
    pub(super) file: Option<PathBuf>,
    /// The configuration, if it is a native one.
    pub(super) native: Option<PathBuf>,
    /// What `--format` says, unless that is what the name of the file says.
    pub(super) format: Option<String>,
    /// In the order of the file; at least one.
    pub(super) holders: Vec<Holder>,
    /// What the configuration says of names on the wire, the defaults among it.
    pub(super) wires: Vec<Wire>,
    /// What of all this is meant.
    pub(super) scope: Scope,
    /// What is wrong, errors alone: warnings are for `check`.
    findings: Diagnostics,
}

impl Site {
    /// Reads everything that can be read.
    pub(super) fn look(selection: &KeySelection) -> Result<Self, Refusal> {
        if let (Some(file), None) = (&selection.key_file, &selection.config) {
            return of_key_file(file);
        }
        let file = selection.config.clone().unwrap_or_else(paths::default_config);
        #[cfg_attr(not(unix), allow(unused_mut))]
        let (mut config, mut findings) = config::survey(&file, selection.format.into());
        #[cfg(unix)]
        if let Some(config) = &mut config {
            // For whom the key files may belong to.
            let _ = Privileges::of(config, &mut findings);
        }
        if let Some(config) = &config {
            // What a start would say: keys that are not taken are not worth an edit.
            BuiltConfig::build(config, &mut findings);
        }
        findings.diagnostics.retain(|finding| finding.severity == Severity::Error);
        let Some(config) = config else {
            show(&findings);
            return Err(Refusal::new(failed(&findings), nothing_known(&file, selection)));
        };
        let holders: Vec<_> = holders(&config);
        let native = (config.dialect == Dialect::Native).then(|| config.file.clone());
        let wires = wires(&config);
        let scope = Scope {
            service: selection.service.clone(),
            file: selection.key_file.as_deref().map(resolved),
        };
        let format = match selection.format {
            FormatName::Auto => None,
            said => said.to_possible_value().map(|value| value.get_name().to_owned()),
        };
        let site = Self { file: Some(file), native, format, holders, wires, scope, findings };
        site.check_scope(selection).map(|()| site)
    }

    /// Refuses a service that there is not, and a key file that no service reads.
    fn check_scope(&self, selection: &KeySelection) -> Result<(), Refusal> {
        let config = self.file.as_deref().unwrap_or(Path::new("")).display();
        let services = self.holders.iter().filter_map(|holder| holder.service.as_deref());
        let words = match (&selection.service, &selection.key_file) {
            (Some(name), _) if services.clone().all(|service| service != name) => format!(
                "{config} has no service {}; it has [{}]",
                secrets::escape(name.as_bytes()),
                services.collect::<Vec<_>>().join("], [")
            ),
            (_, Some(file)) if !self.holders.iter().any(|holder| holder.reads(file)) => {
                format!("no service of {config} reads {}", file.display())
            }
            _ => return Ok(()),
        };
        // What is wrong may be the reason.
        show(&self.findings);
        Err(Refusal::new(exit::USAGE, words))
    }

    /// Whether a name stands in any of the files.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.holders.iter().any(|holder| holder.lines_of(name).next().is_some())
    }

    /// The files of services without any key.
    pub(super) fn files_without_key(&self) -> Vec<PathBuf> {
        let without = self.holders.iter().filter(|holder| holder.entries.is_empty());
        let files = without.flat_map(|holder| {
            let paths = holder.paths.iter().enumerate();
            paths.flat_map(|(n, path)| key_files(path, holder.rules.writer_of_path(n)))
        });
        files.filter(|file| file.is_file()).collect()
    }

    /// Says what is wrong; whether anything was.
    pub(super) fn complain(&self) -> bool {
        show(&self.findings);
        self.findings.has_errors()
    }

    /// The same for a command that changes something: not beside a mistake, with which the running program
    /// would take up nothing.
    pub(super) fn sound(&self) -> Result<(), Refusal> {
        if !self.complain() {
            return Ok(());
        }
        let words = "nothing was changed: the running program applies no change while its \
                     configuration is wrong; correct that, or name one key file with --file";
        Err(Refusal::new(exit::CONFIG, words))
    }

    /// To whom a name on the wire belongs: to itself, unless the service says otherwise.
    pub(super) fn owner<'a>(&'a self, service: Option<&str>, name: &'a str) -> &'a str {
        self.wires
            .iter()
            .find(|wire| Some(wire.service.as_str()) == service && wire.name == name)
            .map_or(name, |wire| &wire.identity)
    }
}

fn nothing_known(file: &Path, selection: &KeySelection) -> String {
    match selection.config {
        Some(_) => "without a configuration the key files are not known".into(),
        None => format!(
            "{} is this machine's configuration unless another is named, or a key file with --file",
            file.display()
        ),
    }
}

fn of_key_file(file: &Path) -> Result<Site, Refusal> {
    let mut problems = Vec::new();
    if file.is_dir() {
        let words = format!("{} is a folder; --file takes one key file", file.display());
        return Err(Refusal::new(exit::USAGE, words));
    }
    let paths = vec![file.to_owned()];
    let rules = secrets::edit::LENIENT;
    let entries = secrets::entries(&paths, rules, &mut problems);
    problems.retain(|problem| problem.gravity == secrets::Gravity::Refuses);
    if !problems.is_empty() {
        let code = if file.exists() { exit::CONFIG } else { exit::NO_INPUT };
        return Err(Refusal::new(code, secrets::edit::EditError::Broken(problems).to_string()));
    }
    let holder = Holder {
        service: None,
        is_client: false,
        presents: None,
        on_revocation: None,
        runtime_file: None,
        paths,
        rules,
        entries,
    };
    let findings = Diagnostics::default();
    let (wires, scope) = (Vec::new(), Scope::default());
    let (file, native, format) = (None, None, None);
    Ok(Site { file, native, format, holders: vec![holder], wires, scope, findings })
}

pub(super) fn holders(config: &Config) -> Vec<Holder> {
    let of = |service: &ServiceConfig| {
        let psk = &service.psk;
        let paths: Vec<_> = psk.secrets.iter().map(|path| path.value.clone()).collect();
        // What is wrong with them the plan has said already.
        let entries = secrets::entries(&paths, psk.rules, &mut Vec::new());
        let is_client = service.mode.value == Mode::Client;
        let said = psk.identity.as_ref().map(|identity| identity.value.clone());
        let first = || entries.first().map(|entry| entry.identity().as_bytes().to_owned());
        Holder {
            service: Some(service.name.value.clone()),
            is_client,
            presents: if is_client { said.or_else(first) } else { None },
            on_revocation: Some(service.on_revocation.value),
            runtime_file: paths.first().filter(|_| psk.runtime_file.value).cloned(),
            paths,
            rules: psk.rules,
            entries,
        }
    };
    config.services.iter().map(of).collect()
}

fn wires(config: &Config) -> Vec<Wire> {
    // A native file is UTF-8; the other language has no such tables.
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut all = Vec::new();
    for service in &config.services {
        for one in &service.identities {
            all.extend(one.wire.iter().map(|name| Wire {
                service: service.name.value.clone(),
                identity: text(&one.name.value),
                name: text(&name.value),
            }));
        }
    }
    all
}

/// An identity as a person would type it, or escaped and in quotes if that cannot be typed.
pub(super) fn shown(identity: &Identity) -> String {
    identity.plain()
}
