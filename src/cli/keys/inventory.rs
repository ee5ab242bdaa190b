//! All keys of a configuration or of a single key file, with the services that read them.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::cli::refusal::Refusal;
use crate::cli::{FormatName, exit, exit_code_for, paths, show_diagnostics};
use crate::config;
use crate::config::diagnostic::{Diagnostics, Severity};
use crate::config::model::{Config, Dialect, Mode, OnRevocation, ServiceConfig};
use crate::daemon::BuiltConfig;
#[cfg(unix)]
use crate::daemon::privileges::Privileges;
use crate::secrets::{self, Identity, KeyEntry, KeyFileRules, list_key_files_leniently};

use super::KeySelection;

/// The keys of a service, or of a key file that was named by itself.
#[derive(Debug)]
pub(super) struct KeyHolder {
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
    pub(super) rules: KeyFileRules,
    /// Every line of them.
    pub(super) entries: Vec<KeyEntry>,
}

impl KeyHolder {
    /// Whether this file was named itself, and not as one of a folder's.
    pub(super) fn names(&self, file: &Path) -> bool {
        self.paths.iter().any(|path| path == file)
    }

    /// Whether it names this file or its folder. The file need not exist.
    pub(super) fn reads(&self, file: &Path) -> bool {
        let same = resolve_links(file);
        let folder = match file.parent() {
            Some(folder) if folder.as_os_str().is_empty() => resolve_links(Path::new(".")),
            folder => folder.map(resolve_links).unwrap_or_default(),
        };
        self.paths.iter().map(|path| resolve_links(path)).any(|path| path == same || path == folder)
    }

    /// The lines of a name, in the order in which they are read.
    pub(super) fn lines_of<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a KeyEntry> {
        self.entries.iter().filter(move |entry| entry.identity().as_bytes() == name)
    }
}

/// The part of a configuration that a command applies to.
#[derive(Debug, Default)]
pub(super) struct SelectionFilter {
    /// The key files of this service alone.
    service: Option<String>,
    /// This key file alone, after links.
    file: Option<PathBuf>,
}

impl SelectionFilter {
    /// Whether a line is meant, by who reads it and where it stands.
    pub(super) fn has(&self, holder: &KeyHolder, entry: &KeyEntry) -> bool {
        (self.service.is_none() || self.service == holder.service)
            && self.file.as_ref().is_none_or(|file| *file == resolve_links(entry.file()))
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
pub(super) fn resolve_links(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}

/// A wire identity and the identity that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WireName {
    /// The service that says so.
    pub(super) service: String,
    /// To whom the name belongs.
    pub(super) identity: String,
    /// The name before the colon in a key file.
    pub(super) name: String,
}

/// The keys of a configuration or of one key file.
#[derive(Debug)]
pub(super) struct KeyInventory {
    /// The configuration, in either language; unset for a key file.
    pub(super) file: Option<PathBuf>,
    /// The configuration, if it is a native one.
    pub(super) native: Option<PathBuf>,
    /// What `--format` says, unless that is what the name of the file says.
    pub(super) format: Option<String>,
    /// In the order of the file; at least one.
    pub(super) holders: Vec<KeyHolder>,
    /// What the configuration says of names on the wire, the defaults among it.
    pub(super) wire_names: Vec<WireName>,
    /// The selected part.
    pub(super) filter: SelectionFilter,
    /// What is wrong, errors alone: warnings are for `check`.
    findings: Diagnostics,
}

impl KeyInventory {
    /// Reads everything that can be read.
    pub(super) fn load(selection: &KeySelection) -> Result<Self, Refusal> {
        if let (Some(file), None) = (&selection.key_file, &selection.config) {
            return from_key_file(file);
        }
        let file = paths::config_or_default(selection.config.as_deref());
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
            show_diagnostics(&findings);
            return Err(Refusal::new(
                exit_code_for(&findings),
                missing_config_message(&file, selection),
            ));
        };
        let holders: Vec<_> = key_holders(&config);
        let native = (config.dialect == Dialect::Native).then(|| config.file.clone());
        let wire_names = collect_wire_names(&config);
        let filter = SelectionFilter {
            service: selection.service.clone(),
            file: selection.key_file.as_deref().map(resolve_links),
        };
        let format = match selection.format {
            FormatName::Auto => None,
            said => said.to_possible_value().map(|value| value.get_name().to_owned()),
        };
        let inventory =
            Self { file: Some(file), native, format, holders, wire_names, filter, findings };
        inventory.check_selection(selection).map(|()| inventory)
    }

    /// Refuses a service that there is not, and a key file that no service reads.
    fn check_selection(&self, selection: &KeySelection) -> Result<(), Refusal> {
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
        show_diagnostics(&self.findings);
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
            paths.flat_map(|(n, path)| {
                list_key_files_leniently(path, holder.rules.writer_of_path(n))
            })
        });
        files.filter(|file| file.is_file()).collect()
    }

    /// Says what is wrong; whether anything was.
    pub(super) fn show_findings(&self) -> bool {
        show_diagnostics(&self.findings);
        self.findings.has_errors()
    }

    /// The same for a command that changes something: not beside a mistake, with which the running program
    /// would take up nothing.
    pub(super) fn refuse_if_unsound(&self) -> Result<(), Refusal> {
        if !self.show_findings() {
            return Ok(());
        }
        let words = "nothing was changed: the running program applies no change while its \
                     configuration is wrong; correct that, or name one key file with --file";
        Err(Refusal::new(exit::CONFIG, words))
    }

    /// To whom a name on the wire belongs: to itself, unless the service says otherwise.
    pub(super) fn owner<'a>(&'a self, service: Option<&str>, name: &'a str) -> &'a str {
        self.wire_names
            .iter()
            .find(|wire| Some(wire.service.as_str()) == service && wire.name == name)
            .map_or(name, |wire| &wire.identity)
    }
}

fn missing_config_message(file: &Path, selection: &KeySelection) -> String {
    match selection.config {
        Some(_) => "without a configuration the key files are not known".into(),
        None => format!(
            "no configuration was named, so {} was taken; name another one, or a key file with --file",
            file.display()
        ),
    }
}

fn from_key_file(file: &Path) -> Result<KeyInventory, Refusal> {
    let mut problems = Vec::new();
    if file.is_dir() {
        let words = format!("{} is a folder; --file takes one key file", file.display());
        return Err(Refusal::new(exit::USAGE, words));
    }
    let paths = vec![file.to_owned()];
    let rules = secrets::edit::LENIENT_RULES;
    let entries = secrets::entries(&paths, rules, &mut problems);
    problems.retain(|problem| problem.severity == secrets::ProblemSeverity::Error);
    if !problems.is_empty() {
        let code = if file.exists() { exit::CONFIG } else { exit::NO_INPUT };
        return Err(Refusal::new(code, secrets::edit::EditError::Invalid(problems).to_string()));
    }
    let holder = KeyHolder {
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
    let (wire_names, filter) = (Vec::new(), SelectionFilter::default());
    let (file, native, format) = (None, None, None);
    Ok(KeyInventory { file, native, format, holders: vec![holder], wire_names, filter, findings })
}

pub(super) fn key_holders(config: &Config) -> Vec<KeyHolder> {
    let of = |service: &ServiceConfig| {
        let psk = &service.psk;
        let paths: Vec<_> = psk.secrets.iter().map(|path| path.value.clone()).collect();
        // What is wrong with them the plan has said already.
        let entries = secrets::entries(&paths, psk.rules, &mut Vec::new());
        let is_client = service.mode.value == Mode::Client;
        let said = psk.identity.as_ref().map(|identity| identity.value.clone());
        let first = || entries.first().map(|entry| entry.identity().as_bytes().to_owned());
        KeyHolder {
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

fn collect_wire_names(config: &Config) -> Vec<WireName> {
    // A native file is UTF-8; the other language has no such tables.
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut all = Vec::new();
    for service in &config.services {
        for one in &service.identities {
            all.extend(one.wire.iter().map(|name| WireName {
                service: service.name.value.clone(),
                identity: text(&one.name.value),
                name: text(&name.value),
            }));
        }
    }
    all
}

/// An identity as a person would type it, or escaped and in quotes if that cannot be typed.
pub(super) fn display_identity(identity: &Identity) -> String {
    identity.to_plain_text()
}
