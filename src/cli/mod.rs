//! The command line: arguments in, an exit code out.

mod beremiz_key;
mod check;
mod client_kit;
mod control_client;
mod convert;
mod demo;
mod doctor;
mod explain;
mod generate;
mod init;
mod key_line;
mod keygen;
mod keys;
mod kick;
mod paths;
mod private_file;
mod progress;
mod refusal;
mod reload;
mod run;
mod server_client;
#[cfg(windows)]
mod service;
mod sessions;
mod shell;
mod status;
mod stunnel;
mod table;
mod terminal;
mod toml_value;
mod units;
mod version;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::Format;
use crate::config::diagnostic::Diagnostics;
use crate::sys::process;

/// Exit codes, after sysexits.h, so that a supervisor can tell a mistake from bad luck.
pub mod exit {
    /// Everything went well; a drain that ran to its deadline too.
    pub const OK: u8 = 0;
    /// A second signal ended the program before its sessions had ended.
    pub const FORCED: u8 = 1;
    /// Nothing matched what was asked for.
    pub const NO_MATCH: u8 = 1;
    /// A file was converted, and not all of it could be kept.
    pub const NOT_ALL_CONVERTED: u8 = 1;
    /// The command line is wrong (`EX_USAGE`).
    pub const USAGE: u8 = 64;
    /// A named file cannot be read (`EX_NOINPUT`).
    pub const NO_INPUT: u8 = 66;
    /// An address is taken, or a peer that was asked for is not there (`EX_UNAVAILABLE`).
    pub const UNAVAILABLE: u8 = 69;
    /// The program's own fault (`EX_SOFTWARE`).
    pub const INTERNAL: u8 = 70;
    /// A file cannot be written (`EX_CANTCREAT`).
    pub const CANNOT_CREATE: u8 = 73;
    /// Reading or writing failed (`EX_IOERR`).
    pub const IO: u8 = 74;
    /// No right to do that (`EX_NOPERM`).
    pub const NO_PERMISSION: u8 = 77;
    /// The configuration or a key file is wrong (`EX_CONFIG`).
    pub const CONFIG: u8 = 78;
}

/// Carry TCP connections through TLS with a pre-shared key (TLS-PSK).
#[derive(Debug, Parser)]
#[command(name = "pskgate", disable_version_flag = true, arg_required_else_help = true)]
#[command(after_help = "`pskgate FILE` is `run FILE`, except that a stunnel.conf goes into the \
                        background unless it says `foreground`. Under the names stunnel and \
                        stunnel4 this program takes stunnel's command line.\n\n\
                        Exit codes: 0 success, 1 shutdown forced, nothing to kick or not \
                        everything converted, 64 wrong command line, 66 no such file, 69 address in \
                        use or no answer, 70 internal error, 73 cannot create a file, 74 I/O error, \
                        77 no permission, 78 wrong configuration or key file.")]
struct Arguments {
    /// Print the version of pskgate and of OpenSSL
    #[arg(short = 'V', long, exclusive = true)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the services of a configuration file in the foreground
    Run(ConfigArgument),
    /// Run a server end without a configuration file
    Server(server_client::ServerOptions),
    /// Run a client end without a configuration file
    Client(server_client::ClientOptions),
    /// Write a configuration file with comments, and the first key of a server
    Init(init::Arguments),
    /// Report every error in a configuration file and its key files
    #[command(
        after_help = "`pskgate explain CODE` describes a finding in detail; CODE is the word in brackets."
    )]
    Check {
        #[command(flatten)]
        file: ConfigArgument,
        /// Print the findings as JSON on standard output
        #[arg(long)]
        json: bool,
        /// Print every option with its value and the line that decided it
        #[arg(long, conflicts_with = "json")]
        effective: bool,
    },
    /// Convert a stunnel.conf to commented TOML, or a TOML file to a stunnel.conf
    Convert(convert::Arguments),
    /// Check what a configuration needs on this machine, or why a peer cannot be reached
    Doctor(Box<doctor::Arguments>),
    /// Describe a code from a message or from the log; without CODE, list all codes
    Explain {
        /// A code from a finding or from the log, such as unknown-option
        #[arg(value_parser = explain::CodeParser, hide_possible_values = true)]
        code: Option<String>,
    },
    /// Make a key: the line `IDENTITY:KEY` for the key files of both ends
    Keygen(keygen::Arguments),
    /// List, rotate and remove the keys of a configuration or of a key file
    #[command(subcommand)]
    Keys(keys::Command),
    /// Show the state of running programs: services, sessions, refusals, reloads
    Status(status::Arguments),
    /// List the open sessions
    Sessions(sessions::Arguments),
    /// Reload configuration and keys of a running program, and report the result
    Reload(control_client::ProgramSelector),
    /// End a session, or all sessions of an identity
    Kick(kick::Arguments),
    /// Print manual pages, shell completions, or the JSON Schema of the configuration
    #[command(subcommand)]
    Generate(generate::Command),
    /// Run as a Windows service: install, start, stop, uninstall
    #[cfg(windows)]
    #[command(subcommand)]
    Service(service::Command),
    /// Run both ends of a tunnel on this machine with a new key, and show what happens
    Demo,
    /// Print the version of pskgate and of OpenSSL
    Version,
}

#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// The configuration: a TOML file, a stunnel.conf, or - for standard input [default:
    /// /etc/pskgate/pskgate.toml, on Windows %ProgramData%\pskgate\pskgate.toml; if it does not exist, pskgate.toml in
    /// this folder, if only you can write to the file and the folder]
    file: Option<PathBuf>,
    /// The configuration file; the same as the argument FILE
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// The format of the file; auto: TOML if the name ends in .toml and for standard input, otherwise
    /// stunnel.conf
    #[arg(long, value_enum, default_value_t)]
    format: FormatName,
}

impl ConfigArgument {
    /// The file that was named, or the default one, which is reported.
    fn path(&self) -> PathBuf {
        paths::config_or_default(self.file.as_deref().or(self.config.as_deref()))
    }

    /// What it says, or will say, and its name; or the exit code, when that has been told.
    fn source(&self) -> Result<(run::ConfigSource, PathBuf), u8> {
        let path = self.path();
        match run::ConfigSource::from_argument(&path, self.format.into()) {
            Ok(source) => Ok((source, path)),
            Err(error) => {
                print_error(&format!("pskgate: cannot read standard input: {error}"));
                Err(exit::NO_INPUT)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum FormatName {
    #[default]
    Auto,
    Toml,
    Stunnel,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Auto => Self::Auto,
            FormatName::Toml => Self::Toml,
            FormatName::Stunnel => Self::Stunnel,
        }
    }
}

/// Does what the arguments ask for and says how it went.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // The system's OpenSSL keeps the system's policy, which is in that file.
    if version::OPENSSL_INSIDE || cfg!(windows) {
        crate::sys::openssl::ignore_config_file();
    }
    // Every command but `version` may hold keys.
    process::forbid_dumps();
    let arguments = match stunnel::parse_command_line(arguments.into_iter().collect()) {
        stunnel::CommandLine::Native(arguments) => arguments,
        stunnel::CommandLine::Stunnel(asked) => return ExitCode::from(stunnel::main(&asked)),
    };
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help goes to stdout and is no failure. Nothing can be done about a closed stream.
            let _ = error.print();
            if error.kind() == clap::error::ErrorKind::InvalidSubcommand {
                print_error("`pskgate run FILE` runs the services of a configuration file.");
            }
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    let code = match arguments.command {
        _ if arguments.version => version::main(),
        Some(Command::Run(file)) => run::main(&file),
        Some(Command::Server(arguments)) => server_client::server(&arguments),
        Some(Command::Client(arguments)) => server_client::client(&arguments),
        Some(Command::Init(arguments)) => init::main(&arguments),
        Some(Command::Check { file, json, effective }) => check::main(&file, json, effective),
        Some(Command::Convert(arguments)) => convert::main(&arguments),
        Some(Command::Doctor(arguments)) => doctor::main(&arguments),
        Some(Command::Explain { code }) => explain::main(code.as_deref()),
        Some(Command::Keygen(arguments)) => keygen::main(&arguments),
        Some(Command::Keys(command)) => keys::main(&command),
        Some(Command::Status(arguments)) => exit_code_of(status::main(&arguments)),
        Some(Command::Sessions(arguments)) => exit_code_of(sessions::main(&arguments)),
        Some(Command::Reload(which)) => exit_code_of(reload::main(&which)),
        Some(Command::Kick(arguments)) => exit_code_of(kick::main(&arguments)),
        Some(Command::Generate(command)) => generate::main(&command),
        #[cfg(windows)]
        Some(Command::Service(command)) => service::main(&command),
        Some(Command::Demo) => demo::main(),
        Some(Command::Version) => version::main(),
        None => exit::USAGE,
    };
    ExitCode::from(code)
}

/// The exit code of a request to a running program.
fn exit_code_of(outcome: Result<u8, control_client::ControlFailure>) -> u8 {
    outcome.unwrap_or_else(|trouble| {
        print_error(&format!("pskgate: {}", trouble.words));
        trouble.code
    })
}

/// Whether standard error is a terminal whose user wants colour (https://no-color.org).
fn is_colored() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::stderr().is_terminal()
}

/// Findings go to standard error; results, to standard output.
fn show_diagnostics(report: &Diagnostics) {
    if !report.diagnostics.is_empty() {
        print_error(&report.render(is_colored()));
    }
}

fn print_error(text: &str) {
    #[cfg(windows)]
    if crate::sys::service_control::is_running() {
        service::write_to_event_log(text);
    }
    // There is no place left to complain to when this fails.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

/// Writes a result; a reader that has gone, as `head` does, is no failure of ours.
fn print_result(text: &str) -> u8 {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => exit::OK,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) => {
            print_error(&format!("pskgate: cannot write to standard output: {error}"));
            exit::IO
        }
    }
}

/// The code for a report with errors.
fn exit_code_for(report: &Diagnostics) -> u8 {
    // A file that is named in another one has a place there.
    let of = |code: &str| {
        report.diagnostics.iter().any(|found| found.code == code && found.place.is_none())
    };
    if of("unreadable-file") { exit::NO_INPUT } else { exit::CONFIG }
}
