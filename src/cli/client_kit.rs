//! The files for a client: its key file and a configuration that runs without changes.

use std::path::{Path, PathBuf};

use toml_edit::Value;

use super::private_file::CreatedFiles;
use super::refusal::Refusal;
use super::{exit, print_error};
use crate::config::{self, Format};

/// Where the Beremiz IDE looks for its PLC in the founding document.
const DEFAULT_ACCEPT: &str = "127.0.0.1:3002";

/// Longer file names are cut to this many bytes: with their extensions they must fit every file system.
const MAX_FILE_NAME_SIZE: usize = 100;

/// The command line options that request a client's files.
#[derive(Debug, clap::Args)]
pub(super) struct ClientKitOptions {
    /// Write the client's key file and configuration to this new folder
    #[arg(long, value_name = "FOLDER", requires = "connect")]
    client: Option<PathBuf>,
    /// The server's address, as seen from the client
    #[arg(long, value_name = "HOST:PORT", requires = "client")]
    connect: Option<String>,
    /// The address on which the client end accepts plain connections
    #[arg(long, value_name = "ADDRESS", requires = "client", default_value = DEFAULT_ACCEPT)]
    accept: String,
}

/// A client's files, checked and not written yet.
#[derive(Debug)]
pub(super) struct ClientKit {
    folder: PathBuf,
    keys: String,
    configuration: String,
    text: String,
}

impl ClientKitOptions {
    /// The files for this identity, if they were asked for.
    pub(super) fn prepare(&self, identity: &str) -> Result<Option<ClientKit>, Refusal> {
        let (Some(folder), Some(connect)) = (&self.client, &self.connect) else { return Ok(None) };
        let name = file_name(identity);
        let (keys, configuration) = (format!("{name}.txt"), format!("{name}.toml"));
        let [connect, accept, secrets] =
            [connect, &self.accept, &keys].map(|text| Value::from(text).to_string());
        // Without psk-identity, which a key rotation would have to change too: the key file has one identity.
        let text = format!(
            "# The client's end: run it with `pskgate run {configuration}`, and connect to {}.\n\
             [services.tunnel]\nmode = \"client\"\naccept = {accept}\nconnect = {connect}\n\
             psk-secrets = {secrets}    # also says which identity this end presents\n",
            self.accept.escape_default()
        );
        // What `check` would say of it, before anything is written.
        let here = std::env::current_dir().unwrap_or_default();
        config::load_text(text.as_bytes(), Path::new(&configuration), &here, Format::Toml)
            .map_err(|report| {
                let found = report.diagnostics.iter().map(|found| match &found.help {
                    Some(help) => format!("{}; {help}", found.message),
                    None => found.message.clone(),
                });
                Refusal::new(exit::USAGE, found.collect::<Vec<_>>().join("\n"))
            })?;
        Ok(Some(ClientKit { folder: folder.clone(), keys, configuration, text }))
    }
}

impl ClientKit {
    /// Writes both files; on failure, none is left.
    pub(super) fn write(&self, line: &str) -> Result<CreatedFiles, Refusal> {
        let mut made = CreatedFiles::default();
        let files = [(&self.keys, line), (&self.configuration, self.text.as_str())];
        let mut written =
            made.create_folder(&self.folder).map_err(|error| (self.folder.clone(), error));
        for (name, text) in files {
            let path = self.folder.join(name);
            written =
                written.and_then(|()| made.create_file(&path, text).map_err(|error| (path, error)));
        }
        match written {
            Ok(()) => Ok(made),
            Err((path, error)) => Err(Refusal::cannot_write(&path, &error).with_note(&made.undo())),
        }
    }

    /// Prints where the files are.
    pub(super) fn report_paths(&self) {
        print_error(&format!(
            "wrote the client's end: {} and {}; give it both",
            self.folder.join(&self.configuration).display(),
            self.folder.join(&self.keys).display()
        ));
    }
}

/// An identity as the name of a file on every system: what shells, paths and Windows take for something
/// else becomes `_`.
pub(super) fn file_name(identity: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || "-_.~@+".contains(c);
    let mut name = String::new();
    for c in identity.chars().map(|c| if safe(c) { c } else { '_' }) {
        if name.len() + c.len_utf8() > MAX_FILE_NAME_SIZE {
            break;
        }
        name.push(c);
    }
    let stem = name.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let port = |of: &str| stem.strip_prefix(of).is_some_and(|rest| rest.len() == 1);
    let is_device =
        matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || port("COM") || port("LPT");
    if is_device || name.starts_with(['.', '-', '~']) { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_identity_becomes_the_name_of_a_file() {
        for (identity, name) in [
            ("plc-01~2", "plc-01~2"),
            ("Zoë@hall.3", "Zoë@hall.3"),
            ("../../etc/passwd", "_.._.._etc_passwd"),
            ("a b\\c:d*?", "a_b_c_d__"),
            ("-rf", "_-rf"),
            ("con.old", "_con.old"),
            ("LPT1", "_LPT1"),
            ("community", "community"),
        ] {
            assert_eq!(file_name(identity), name);
        }
        assert_eq!(file_name(&"ä".repeat(120)).len(), 100);
    }

    fn order(connect: &str, accept: &str) -> ClientKitOptions {
        let client = Some("nowhere".into());
        ClientKitOptions { client, connect: Some(connect.into()), accept: accept.into() }
    }

    #[test]
    fn addresses_that_a_configuration_would_refuse_are_refused_before_anything_is_written() {
        assert!(order("plc.example:3001", DEFAULT_ACCEPT).prepare("x \"y\" z").unwrap().is_some());
        for (connect, accept) in [
            ("plc.example", DEFAULT_ACCEPT),
            ("plc.example:99999", DEFAULT_ACCEPT),
            ("plc.example:3001", "nonsense"),
            ("plc.example:3001", "\"\nmode = \"server\""),
        ] {
            assert!(order(connect, accept).prepare("x").is_err(), "{connect} {accept}");
        }
    }
}
