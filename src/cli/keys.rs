//! `keys list`, `keys rotate`, `keys import`, `keys remove`: the keys of a configuration's services, or of one key file.

mod declaration;
mod import;
mod inventory;
mod last_key;
mod list;
mod locations;
mod remove;
mod rotate;
mod runtime_file;
mod second_key;

use std::ffi::OsString;
use std::path::PathBuf;

use super::{FormatName, client_kit, key_line};
pub(super) use runtime_file::refuse_runtime_file;
pub(super) use second_key::refuse_second_key;
use second_key::refuse_second_keys;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List identities with the fingerprint, place, last use and sessions of their keys
    List {
        #[command(flatten)]
        selection: KeySelection,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a second key for an identity, under a new name
    Rotate(RotateArguments),
    /// Add the keys of other key files, such as those of clients, to a server's key file
    Import(import::Arguments),
    /// Remove an identity from every key file, or from one
    Remove {
        /// The identity: the text before the colon
        identity: OsString,
        #[command(flatten)]
        selection: KeySelection,
        /// Also remove the last key of a service, which then refuses every client
        #[arg(long)]
        last: bool,
    },
}

/// Where to look for keys.
#[derive(Debug, clap::Args)]
pub(super) struct KeySelection {
    /// The configuration: a TOML file or a stunnel.conf [default:
    /// /etc/pskgate/pskgate.toml, on Windows %ProgramData%\pskgate\pskgate.toml; if it does not exist, pskgate.toml in
    /// this folder, if only you can write to the file and the folder]
    #[arg(value_name = "FILE")]
    config: Option<PathBuf>,
    /// The format of the configuration; auto: TOML if the name ends in .toml, otherwise stunnel.conf
    #[arg(long, value_enum, default_value_t)]
    format: FormatName,
    /// Only this key file; a configuration is not needed
    #[arg(long = "file", value_name = "KEYFILE")]
    key_file: Option<PathBuf>,
    /// Only the key files of this service
    #[arg(long, value_name = "NAME", conflicts_with = "key_file")]
    service: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RotateArguments {
    /// The identity, or one of its names in the key files
    identity: String,
    #[command(flatten)]
    selection: KeySelection,
    /// The name of the new key [default: the next free one, such as plc-01~2]
    #[arg(long, value_name = "NEW")]
    name: Option<String>,
    /// Write the client's line to a new file with mode 0600 instead of standard output
    #[arg(short, long, value_name = "FILE", conflicts_with = "client")]
    output: Option<PathBuf>,
    /// Also add to the file of a Beremiz runtime
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    order: client_kit::ClientKitOptions,
    #[command(flatten)]
    shape: key_line::KeyFormat,
}

pub(super) fn main(command: &Command) -> u8 {
    let done = match command {
        Command::List { selection, json } => list::main(selection, *json),
        Command::Rotate(arguments) => rotate::main(arguments),
        Command::Import(arguments) => import::main(arguments),
        Command::Remove { identity, selection, last } => remove::main(identity, selection, *last),
    };
    done.unwrap_or_else(|refusal| refusal.report())
}
