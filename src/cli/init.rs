//! `init`: a commented file to begin with, and a server's first key. It asks nothing.

use std::io;
use std::path::{Path, PathBuf};

use super::key_line;
use super::private_file::CreatedFiles;
use super::refusal::Refusal;
use super::toml_value::{address, text};
use super::{exit, print_error, shell};
use crate::config::{self, Format};

/// The file that `run` takes in its folder.
const CONFIGURATION: &str = "pskgate.toml";
/// The key file of a server.
const SERVER_KEYS: &str = "psk.txt";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder for the files [default: the current folder]
    folder: Option<PathBuf>,
    /// Write the configuration of a client end instead of a server end
    #[arg(long)]
    client: bool,
    /// The address on which this end accepts connections [default: 3001; client: 127.0.0.1:3002]
    #[arg(long, value_name = "ADDRESS")]
    accept: Option<String>,
    /// The address to which this end connects [default: 127.0.0.1:3000; client: plc.example:3001]
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<String>,
    /// The identity of the first client
    #[arg(long, value_name = "NAME", default_value = "client1")]
    identity: String,
}

pub(super) fn main(arguments: &Arguments) -> u8 {
    match write(arguments) {
        Ok(()) => exit::OK,
        Err(refusal) => refusal.report(),
    }
}

fn write(arguments: &Arguments) -> Result<(), Refusal> {
    let folder = arguments.folder.clone().unwrap_or_default();
    let identity = &arguments.identity;
    let text = if arguments.client { arguments.client_text() } else { arguments.server_text() };
    refuse_unsound(&text)?;
    let file = folder.join(CONFIGURATION);
    if file.symlink_metadata().is_ok() {
        return Err(exists(&file));
    }
    let mut made = CreatedFiles::default();
    let failed = |path: &Path, error: &io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Refusal::cannot_write(path, error),
    };
    if let Some(named) = &arguments.folder {
        made.create_folder(named).map_err(|error| failed(named, &error))?;
    }
    let keys = folder.join(SERVER_KEYS);
    let has_keys = keys.symlink_metadata().is_ok();
    // A client's key is the server's: one that is made here would open nothing.
    let key = match arguments.client || has_keys {
        true => None,
        false => Some(key_line::generate_key_line(identity, &key_line::KeyFormat::default())?),
    };
    let mut written = Ok(());
    if let Some(key) = &key {
        written = made.create_file(&keys, &key.text).map_err(|error| failed(&keys, &error));
    }
    written = written
        .and_then(|()| made.create_file(&file, &text).map_err(|error| failed(&file, &error)));
    if let Err(refusal) = written {
        return Err(refusal.with_note(&made.undo()));
    }
    print_error(&format!("wrote {}", file.display()));
    match &key {
        None if arguments.client => arguments.tell_client(&folder),
        None => print_error(&format!("{} was there and is left as it is", keys.display())),
        Some(key) => {
            print_error(&format!("wrote {} with a key for {identity}", keys.display()));
            print_error(&key.fingerprint.to_string());
        }
    }
    if !arguments.client {
        arguments.tell_server(&file, &keys, has_keys);
    }
    Ok(())
}

impl Arguments {
    fn server_text(&self) -> String {
        let accept = self.accept.as_deref().unwrap_or("3001");
        let connect = self.connect.as_deref().unwrap_or("127.0.0.1:3000");
        format!(
            "# The server's end of a tunnel: it accepts TLS from clients that hold a key, and connects them to a\n\
             # program on this machine. Run it with `pskgate run` in this folder; `pskgate check` says what is\n\
             # wrong, and `man 5 pskgate.toml` describes every option. Relative names begin in this folder.\n\
             \n\
             [services.tunnel]\n\
             mode = \"server\"\n\
             # A port alone is every address of this machine; \"192.168.1.10:3001\" is one.\n\
             accept = {}\n\
             # The program behind the tunnel. It should listen on this machine alone.\n\
             connect = {}\n\
             # A line `identity:key` for each client. `pskgate keygen NAME --append {SERVER_KEYS}` adds one.\n\
             psk-secrets = \"{SERVER_KEYS}\"\n\
             \n\
             # Networks from which clients connect; without it every address may try keys.\n\
             #allow-from = [\"192.168.1.0/24\"]\n\
             \n\
             # For a program that serves one connection, such as the eRPC runtime of Beremiz.\n\
             #max-sessions = 1\n\
             #when-full = \"take-over-own\"\n\
             \n\
             # The log goes to standard error unless a file is named.\n\
             #[log]\n\
             #output = \"pskgate.log\"\n",
            address(accept),
            text(connect),
        )
    }

    fn client_text(&self) -> String {
        let accept = self.accept.as_deref().unwrap_or("127.0.0.1:3002");
        let connect = self.connect.as_deref().unwrap_or("plc.example:3001");
        format!(
            "# The client's end of a tunnel: a program on this machine connects to `accept`, and this end carries\n\
             # the connection to the server's end. Run it with `pskgate run` in this folder; `pskgate check` says\n\
             # what is wrong, and `man 5 pskgate.toml` describes every option. Relative names begin in this folder.\n\
             \n\
             [services.tunnel]\n\
             mode = \"client\"\n\
             # Programs reach this address without a key: keep it on this machine.\n\
             accept = {}\n\
             # The server's end.\n\
             connect = {}\n\
             psk-identity = {}\n\
             # The line `identity:key` that the server has as well.\n\
             psk-secrets = {}\n\
             \n\
             # The log goes to standard error unless a file is named.\n\
             #[log]\n\
             #output = \"pskgate.log\"\n",
            address(accept),
            text(connect),
            text(&self.identity),
            text(&self.client_keys()),
        )
    }

    fn client_keys(&self) -> String {
        format!("{}.txt", super::client_kit::file_name(&self.identity))
    }

    fn tell_server(&self, file: &Path, keys: &Path, has_keys: bool) {
        let port = self.accept.as_deref().unwrap_or("3001").rsplit(':').next().unwrap_or_default();
        let run = match self.folder {
            None => "pskgate run".to_owned(),
            Some(_) => format!("pskgate run {}", shell::path(file)),
        };
        let mut next = format!("next: {run}");
        if !has_keys {
            next += &format!(
                "\n  copy {} to the client as {}, and there:\n  pskgate client --accept 127.0.0.1:3002 --connect \
                 THIS-MACHINE:{port} --keys {}",
                shell::path(keys),
                self.client_keys(),
                shell::path(Path::new(&self.client_keys())),
            );
        }
        print_error(&next);
    }

    fn tell_client(&self, folder: &Path) {
        let keys = folder.join(self.client_keys());
        let place = match keys.exists() {
            true => String::new(),
            false => format!(
                "\n  it needs {}, the client's key file: on the server,\n  pskgate keygen {} --server {SERVER_KEYS} \
                 --client {}\n  makes a key and that file (or copy the server's line for {}, under the mode 0600)",
                keys.display(),
                shell::word(&self.identity),
                shell::word(&super::client_kit::file_name(&self.identity)),
                self.identity
            ),
        };
        let run = match self.folder {
            None => "pskgate run".to_owned(),
            Some(_) => format!("pskgate run {}", shell::path(&folder.join(CONFIGURATION))),
        };
        let edit = match self.connect {
            Some(_) => "",
            None => "\n  write the server's address in place of plc.example",
        };
        print_error(&format!("next: {run}{edit}{place}"));
    }
}

/// What `check` would say of the file, before anything is written.
fn refuse_unsound(text: &str) -> Result<(), Refusal> {
    let here = std::env::current_dir().unwrap_or_default();
    match config::load_text(text.as_bytes(), Path::new(CONFIGURATION), &here, Format::Toml) {
        Ok(_) => Ok(()),
        Err(report) => {
            let found = report.diagnostics.iter().map(|found| match &found.help {
                Some(help) => format!("{}; {help}", found.message),
                None => found.message.clone(),
            });
            Err(Refusal::new(exit::USAGE, found.collect::<Vec<_>>().join("\n")))
        }
    }
}

fn exists(path: &Path) -> Refusal {
    let words = format!("{} exists already and is left as it is", path.display());
    Refusal::new(exit::CANNOT_CREATE, words).with_note("nothing was written; name another folder")
}
