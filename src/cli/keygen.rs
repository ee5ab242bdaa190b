//! `keygen IDENTITY`: a key that both ends can read.

use std::io;
use std::path::{Path, PathBuf};

use super::beremiz_key::ProjectKey;
use super::client_kit::{self, Kit};
use super::key_line::{self, KeyLine, Shape, print, tell_tightened};
use super::keys::{refuse_runtime_file, refuse_second_key};
use super::private_file::Made;
use super::refusal::Refusal;
use super::{complain, exit, shell};
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
    order: client_kit::Order,
    #[command(flatten)]
    shape: Shape,
}

pub(super) fn main(arguments: &Arguments) -> u8 {
    match make(arguments) {
        Ok(fingerprint) => {
            complain(&fingerprint);
            exit::OK
        }
        Err(refusal) => refusal.tell(),
    }
}

/// Makes and writes the key; the last line about it.
fn make(arguments: &Arguments) -> Result<String, Refusal> {
    let Arguments { identity, output, append, server, config, beremiz, force, order, shape } =
        arguments;
    let key = key_line::fresh(identity, shape)?;
    let kit = order.kit(identity)?;
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
        _ => deliver(arguments, kit, &key),
    };
    match (written, secret) {
        (Err(refusal), Some(secret)) => return Err(refusal.and(&secret.undo())),
        (written, secret) => {
            written?;
            secret.as_ref().map_or(Ok(()), ProjectKey::finish)?;
        }
    }
    Ok(format!("fingerprint, the same at both ends: {}", key.fingerprint))
}

/// Writes the key where it was asked for.
fn deliver(arguments: &Arguments, kit: Option<Kit>, key: &KeyLine) -> Result<(), Refusal> {
    let Arguments { identity, output, append, server, .. } = arguments;
    match (kit, append.as_ref().or(server.as_ref()), output) {
        (Some(kit), Some(file), _) => both(&kit, file, key, identity),
        (Some(_), None, _) => {
            let words = "--client needs --server FILE: a client's key is of use where the server has it too";
            Err(Refusal::new(exit::USAGE, words))
        }
        (None, Some(file), _) => added(file, key, identity),
        (None, None, Some(path)) => create(path, key, identity),
        (None, None, None) => print(key),
    }
}

/// The client's side first: a key that only a client has opens nothing.
fn both(kit: &Kit, file: &Path, key: &KeyLine, identity: &str) -> Result<(), Refusal> {
    let made = kit.write(&key.text)?;
    if let Err(refusal) = added(file, key, identity) {
        return Err(refusal.and(&made.undo()));
    }
    kit.tell();
    Ok(())
}

fn added(file: &Path, key: &KeyLine, identity: &str) -> Result<(), Refusal> {
    let added = edit::append(file, key.text.as_bytes())?;
    let identity = escape(identity.as_bytes());
    complain(&format!("wrote a key for {identity} to {}, line {}", file.display(), added.line));
    tell_tightened(file, added.loose);
    Ok(())
}

fn create(path: &Path, key: &KeyLine, identity: &str) -> Result<(), Refusal> {
    let mut made = Made::default();
    match made.file(path, &key.text) {
        Ok(()) => {
            let identity = escape(identity.as_bytes());
            complain(&format!("wrote a key for {identity} to {}", path.display()));
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
