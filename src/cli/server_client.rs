//! `server` and `client`: one service from the command line, without any file.
//!
//! The options become the text of a native file, which is then read like one: every default, check and
//! message is the file's, and `--print` shows the text.

use std::fmt::Write as _;
use std::path::Path;

use super::run::{self, ConfigSource, RunMode};
use super::toml_value::{address, text};
use super::{exit, print_result, show_diagnostics};
use crate::config::{self, Format};

/// What findings call the text. Its lines are those that `--print` writes.
const TEXT_NAME: &str = "command line";

/// What both ends are told.
#[derive(Debug, clap::Args)]
struct CommonOptions {
    /// Print these options as a configuration file, and do not run it
    #[arg(long)]
    print: bool,
    /// The least severe level that is logged
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every other option has the default of the configuration file. A changed key file \
                        is loaded by itself. A key is made with `pskgate keygen NAME --append FILE`."
)]
pub(super) struct ServerOptions {
    /// The TLS port for clients: a port, or ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS")]
    accept: String,
    /// The backend, HOST:PORT; if the option is repeated, the first that answers is used
    #[arg(long, value_name = "HOST:PORT", required = true)]
    connect: Vec<String>,
    /// The file with the clients' keys, or a folder of such files
    #[arg(long, value_name = "FILE", required = true)]
    keys: Vec<String>,
    /// The maximum number of sessions, such as 1 for a backend that supports one connection
    #[arg(long, value_name = "N")]
    max_sessions: Option<u32>,
    /// What happens to a further client: refuse, take-over, take-over-own or take-over-same-host
    #[arg(long, value_name = "WHAT", requires = "max_sessions")]
    when_full: Option<String>,
    /// A network from which clients may connect, such as 192.168.1.0/24 [default: all]
    #[arg(long, value_name = "NETWORK")]
    allow_from: Vec<String>,
    #[command(flatten)]
    common: CommonOptions,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every other option has the default of the configuration file. The key file is noticed \
                        when it changes."
)]
pub(super) struct ClientOptions {
    /// The address on which local programs connect, such as 127.0.0.1:3002
    #[arg(long, value_name = "ADDRESS")]
    accept: String,
    /// The server end, HOST:PORT; if the option is repeated, the first that answers is used
    #[arg(long, value_name = "HOST:PORT", required = true)]
    connect: Vec<String>,
    /// The file with the key of this client
    #[arg(long, value_name = "FILE", required = true)]
    keys: Vec<String>,
    /// The identity to use [default: the first of the key file]
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    #[command(flatten)]
    common: CommonOptions,
}

impl ServerOptions {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("accept", address(&self.accept)),
            ("connect", toml_list(&self.connect)),
            ("psk-secrets", toml_list(&self.keys)),
        ];
        lines.extend(self.max_sessions.map(|most| ("max-sessions", most.to_string())));
        lines.extend(self.when_full.as_deref().map(|what| ("when-full", text(what))));
        if !self.allow_from.is_empty() {
            lines.push(("allow-from", toml_list(&self.allow_from)));
        }
        lines
    }
}

impl ClientOptions {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("accept", address(&self.accept)),
            ("connect", toml_list(&self.connect)),
            ("psk-secrets", toml_list(&self.keys)),
        ];
        lines.extend(self.identity.as_deref().map(|name| ("psk-identity", text(name))));
        lines
    }
}

pub(super) fn server(arguments: &ServerOptions) -> u8 {
    start("server", &arguments.accept, arguments.lines(), &arguments.common)
}

pub(super) fn client(arguments: &ClientOptions) -> u8 {
    start("client", &arguments.accept, arguments.lines(), &arguments.common)
}

/// Runs the service, or prints its file.
fn start(
    mode: &'static str,
    accept: &str,
    lines: Vec<(&'static str, String)>,
    common: &CommonOptions,
) -> u8 {
    let text = render_file(mode, lines, common.log_level.as_deref());
    // What is wrong with the options themselves, before any file is looked at.
    let here = std::env::current_dir().unwrap_or_default();
    let read = config::load_text(text.as_bytes(), Path::new(TEXT_NAME), &here, Format::Toml);
    if let Err(report) = read {
        show_diagnostics(&report);
        return exit::USAGE;
    }
    if common.print {
        return print_result(text.trim_end());
    }
    let source = ConfigSource::text(text.into_bytes(), TEXT_NAME, Format::Toml)
        .with_title(&title(mode, accept));
    run::start_program(source, RunMode::Native)
}

/// What `status` calls the program, and its control socket is named after.
fn title(mode: &str, accept: &str) -> String {
    let port = accept.rsplit(':').next().unwrap_or_default();
    match port.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("{mode}-{port}"),
        false => mode.to_owned(),
    }
}

fn render_file(mode: &str, lines: Vec<(&'static str, String)>, level: Option<&str>) -> String {
    let mut all = String::new();
    if let Some(level) = level {
        let _ = writeln!(all, "[log]\nlevel = {}\n", text(level));
    }
    let _ = writeln!(all, "[services.tunnel]\nmode = {}", text(mode));
    for (name, value) in lines {
        let _ = writeln!(all, "{name} = {value}");
    }
    all
}

fn toml_list(values: &[String]) -> String {
    match values {
        [one] => text(one),
        several => {
            let all: Vec<_> = several.iter().map(|value| text(value)).collect();
            format!("[{}]", all.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_text_is_a_file_whatever_the_options_hold() {
        let lines = vec![
            ("accept", address("3001")),
            ("connect", toml_list(&["127.0.0.1:3000".into(), "[::1]:3000".into()])),
            ("psk-secrets", toml_list(&[r"C:\Users\me\psk.txt".into()])),
        ];
        let text = render_file("server", lines, Some("debug"));
        let read =
            config::load_text(text.as_bytes(), Path::new(TEXT_NAME), Path::new("/"), Format::Toml);
        let (config, _) = read.unwrap();
        assert_eq!(config.services[0].connect().len(), 2);
        let evil = "1\"\nconnect = \"elsewhere:1";
        let text = render_file("server", vec![("accept", super::text(evil))], None);
        let read: toml::Table = text.parse().unwrap();
        assert_eq!(read["services"]["tunnel"]["accept"].as_str(), Some(evil));
        assert!(read["services"]["tunnel"].get("connect").is_none());
    }

    #[test]
    fn a_program_is_called_after_its_port() {
        assert_eq!(title("server", "3001"), "server-3001");
        assert_eq!(title("client", "127.0.0.1:3002"), "client-3002");
        assert_eq!(title("client", "/run/x.sock"), "client");
    }
}
