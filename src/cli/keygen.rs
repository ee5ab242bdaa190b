//! `keygen IDENTITY`: a key that both ends can read.

use std::io;
use std::path::{Path, PathBuf};

use super::beremiz_key::ProjectKey;
use super::client_kit::{self, ClientKit};
use super::key_line::{self, KeyFormat, KeyLine, print, report_tightened_mode};
use super::keys::{refuse_runtime_file, refuse_second_key};
use super::private_file::CreatedFiles;
use super::refusal::Refusal;
use super::{exit, print_error, shell};
use crate::secrets::{edit, escape};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The name of the key, such as client1
    identity: String,
    /// Write the line to a new file with mode 0600; an existing file is not changed
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["append", "server"])]
    output: Option<PathBuf>,
    /// Add the line to a key file; a running program applies it at once
    #[arg(short, long, value_name = "FILE", conflicts_with = "server")]
    append: Option<PathBuf>,
    /// Add the line to the server's key file; with --client, also write the client's files
    #[arg(long, value_name = "FILE", requires = "client")]
    server: Option<PathBuf>,
    /// The configuration of the key file, where the identity must not have another key [default: the
    /// configurations of this machine and of the folder of the key file]
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    config: Option<PathBuf>,
    /// Also write the key for the Beremiz IDE: psk/IDENTITY.secret of this project, with its row in
    /// psk/management.json
    #[arg(long, value_name = "PROJECT", conflicts_with = "client")]
    beremiz: Option<PathBuf>,
    /// Also add to the file of a Beremiz runtime
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    order: client_kit::ClientKitOptions,
    #[command(flatten)]
    shape: KeyFormat,
}

pub(super) fn main(arguments: &Arguments) -> u8 {
    match make_key(arguments) {
        Ok(fingerprint) => {
            print_error(&fingerprint);
            exit::OK
        }
        Err(refusal) => refusal.report(),
    }
}

/// Makes and writes the key; the last line about it.
fn make_key(arguments: &Arguments) -> Result<String, Refusal> {
    let Arguments { identity, output, append, server, config, beremiz, force, order, shape } =
        arguments;
    let key = key_line::generate_key_line(identity, shape)?;
    let kit = order.prepare(identity)?;
    if let Some(file) = append.as_ref().or(server.as_ref()) {
        if !force {
            refuse_runtime_file(file, config.as_deref())?;
        }
        refuse_second_key(file, identity, config.as_deref())?;
    }
    let secret = match beremiz {
        Some(project) => Some(ProjectKey::write(project, identity, &key.text)?),
        None => None,
    };
    let written = match (secret.is_some(), append, output) {
        (true, None, None) => Ok(()),
        _ => write_key(arguments, kit, &key),
    };
    match (written, secret) {
        (Err(refusal), Some(secret)) => return Err(refusal.with_note(&secret.undo())),
        (written, secret) => {
            written?;
            secret.as_ref().map_or(Ok(()), ProjectKey::finish)?;
        }
    }
    Ok(format!("fingerprint, the same at both ends: {}", key.fingerprint))
}

/// Writes the key where it was asked for.
fn write_key(arguments: &Arguments, kit: Option<ClientKit>, key: &KeyLine) -> Result<(), Refusal> {
    let Arguments { identity, output, append, server, .. } = arguments;
    match (kit, append.as_ref().or(server.as_ref()), output) {
        (Some(kit), Some(file), _) => write_both_ends(&kit, file, key, identity),
        (Some(_), None, _) => {
            let words = "--client needs --server FILE: a client's key is of use where the server has it too";
            Err(Refusal::new(exit::USAGE, words))
        }
        (None, Some(file), _) => append_to_file(file, key, identity),
        (None, None, Some(path)) => create(path, key, identity),
        (None, None, None) => print(key),
    }
}

/// The client's side first: a key that only a client has opens nothing.
fn write_both_ends(
    kit: &ClientKit,
    file: &Path,
    key: &KeyLine,
    identity: &str,
) -> Result<(), Refusal> {
    let made = kit.write(&key.text)?;
    if let Err(refusal) = append_to_file(file, key, identity) {
        return Err(refusal.with_note(&made.undo()));
    }
    kit.report_paths();
    Ok(())
}

fn append_to_file(file: &Path, key: &KeyLine, identity: &str) -> Result<(), Refusal> {
    let added = edit::append(file, key.text.as_bytes())?;
    let identity = escape(identity.as_bytes());
    print_error(&format!("wrote a key for {identity} to {}, line {}", file.display(), added.line));
    report_tightened_mode(file, added.loose_mode);
    Ok(())
}

fn create(path: &Path, key: &KeyLine, identity: &str) -> Result<(), Refusal> {
    let mut made = CreatedFiles::default();
    match made.create_file(path, &key.text) {
        Ok(()) => {
            let identity = escape(identity.as_bytes());
            print_error(&format!("wrote a key for {identity} to {}", path.display()));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Refusal::new(
            exit::CANNOT_CREATE,
            format!(
                "{} exists already and is left as it is; name another file, or add to it with `pskgate keygen \
                 IDENTITY --append {}`",
                path.display(),
                shell::path(path)
            ),
        )),
        Err(error) => {
            made.undo();
            let words = format!("cannot write {}: {error}", path.display());
            Err(Refusal::new(exit::CANNOT_CREATE, words))
        }
    }
}
