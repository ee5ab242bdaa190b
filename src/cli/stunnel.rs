//! stunnel's command line, for whoever starts this program in its place.
//!
//! One argument counts and the rest is ignored, flags know no case, information goes to standard
//! error, and the exit code is 0 or 1.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::Path;

use super::run::{self, ConfigSource, RunMode};
use super::version::stunnel_banner;
use super::{Arguments, print_error};
use crate::config::diagnostic::escape;
use crate::config::model::Dialect;
use crate::config::options::{
    self, OptionId, OptionRow, StunnelScope, TABLE, Treatment, ValueKind,
};
use crate::config::{self, Format};

/// The configuration file of `stunnel` without arguments.
const DEFAULT_CONFIG: &str = "/etc/stunnel/stunnel.conf";

/// A command line in pskgate's or in stunnel's syntax.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CommandLine {
    /// pskgate's own, with `run` put in where a file alone was named.
    Native(Vec<OsString>),
    /// stunnel's.
    Stunnel(StunnelCommand),
}

/// What stunnel's command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StunnelCommand {
    /// Run this file.
    File(OsString),
    /// Run what this descriptor says.
    Descriptor(Option<OsString>),
    Version,
    Help,
    Sockets,
    Options,
}

/// Tells the two command lines apart, by the program's name and by what the first argument is.
pub(super) fn parse_command_line(arguments: Vec<OsString>) -> CommandLine {
    let name = arguments.first().map(Path::new).and_then(Path::file_stem);
    let is_stunnel = ["stunnel", "stunnel4"].iter().any(|known| name == Some(OsStr::new(known)));
    let Some(first) = arguments.get(1) else {
        return match is_stunnel {
            true => CommandLine::Stunnel(StunnelCommand::File(DEFAULT_CONFIG.into())),
            false => CommandLine::Native(arguments),
        };
    };
    match first.to_string_lossy().to_ascii_lowercase().as_str() {
        "-fd" => {
            return CommandLine::Stunnel(StunnelCommand::Descriptor(arguments.get(2).cloned()));
        }
        "-version" if is_stunnel => return CommandLine::Stunnel(StunnelCommand::Version),
        "-version" => {
            let program = arguments.into_iter().take(1);
            return CommandLine::Native(program.chain(["--version".into()]).collect());
        }
        "-help" => return CommandLine::Stunnel(StunnelCommand::Help),
        "-sockets" => return CommandLine::Stunnel(StunnelCommand::Sockets),
        "-options" => return CommandLine::Stunnel(StunnelCommand::Options),
        // `run` is meant, as other servers have it.
        "-c" | "--config" if !is_stunnel => {
            let mut arguments = arguments;
            arguments.insert(1, "run".into());
            return CommandLine::Native(arguments);
        }
        _ => {}
    }
    if is_stunnel {
        return CommandLine::Stunnel(StunnelCommand::File(first.clone()));
    }
    if !is_file(first) {
        return CommandLine::Native(arguments);
    }
    match Format::Auto.dialect(Path::new(first)) {
        Dialect::Stunnel if Path::new(first).exists() => {
            CommandLine::Stunnel(StunnelCommand::File(first.clone()))
        }
        // A file that is not there is told in this program's own words.
        Dialect::Stunnel | Dialect::Native => {
            let mut arguments = arguments;
            arguments.insert(1, "run".into());
            CommandLine::Native(arguments)
        }
    }
}

/// Whether an argument of pskgate's is the name of a file. A slip in a command's name is none, nor is a
/// word such as `start` where there is no such file.
fn is_file(argument: &OsStr) -> bool {
    use clap::CommandFactory;
    let text = argument.to_string_lossy();
    if text.starts_with('-') {
        return false;
    }
    let command = Arguments::command();
    let commands = || command.get_subcommands().map(clap::Command::get_name).chain(["help"]);
    if commands().any(|name| name == text) {
        return false;
    }
    let is_path = text.contains(['.', '/', '\\']);
    Path::new(argument).exists() || is_path && options::nearest(&text, commands()).is_none()
}

/// Runs the command.
pub(super) fn main(asked: &StunnelCommand) -> u8 {
    match asked {
        StunnelCommand::File(path) => run_file(Path::new(path)),
        StunnelCommand::Descriptor(number) => run_descriptor(number.as_deref()),
        StunnelCommand::Version => print_info(&(stunnel_banner() + "\n" + &defaults())),
        StunnelCommand::Help => print_info(&(stunnel_banner() + "\n" + &help())),
        StunnelCommand::Sockets => print_info(&(stunnel_banner() + "\n" + &sockets())),
        StunnelCommand::Options => print_info(&(stunnel_banner() + "\n" + &ssl_options())),
    }
}

/// Information goes where stunnel's goes: its callers read standard error.
fn print_info(text: &str) -> u8 {
    print_error(text);
    0
}

fn run_file(path: &Path) -> u8 {
    if let Err(error) = std::fs::metadata(path) {
        let shown = escape(&path.to_string_lossy());
        let words = error.to_string();
        let words = words.split(" (os error").next().unwrap_or_default();
        let number = error.raw_os_error().unwrap_or_default();
        print_error(&format!(
            "[!] Invalid configuration file name \"{shown}\"\n[!] realpath: {words} ({number})"
        ));
        return 1;
    }
    run::start_program(ConfigSource::file(path, Format::Stunnel), RunMode::Stunnel)
}

const SYNTAX: &str = "[.] \n[.] Syntax:
[.] stunnel [<filename>] | -fd <n> | -help | -version | -sockets | -options
[.]     <filename>  - use this configuration file instead of /etc/stunnel/stunnel.conf
[.]     -fd <n>     - read the configuration from a descriptor
[.]     -help       - the options of a configuration file
[.]     -version    - versions, and the defaults of the options
[.]     -sockets    - the socket options
[.]     -options    - the TLS options";

fn run_descriptor(number: Option<&OsStr>) -> u8 {
    let Some(number) = number else {
        print_error(&format!("[!] No file descriptor specified\n{SYNTAX}"));
        return 1;
    };
    let Some(parsed) = number.to_str().and_then(|text| text.parse::<u16>().ok()) else {
        let failed = "[!] Configuration failed";
        print_error(&format!("[!] Invalid file descriptor number\n{SYNTAX}\n{failed}"));
        return 1;
    };
    match read(parsed.into()) {
        Ok(text) => {
            let source = ConfigSource::text(text, &parsed.to_string(), Format::Stunnel);
            run::start_program(source, RunMode::Stunnel)
        }
        Err(error) => {
            let failed = "[!] Configuration failed";
            print_error(&format!(
                "[!] Cannot open configuration file: {error}\n{SYNTAX}\n{failed}"
            ));
            1
        }
    }
}

#[cfg(unix)]
fn read(number: i32) -> std::io::Result<Vec<u8>> {
    use crate::sys::descriptor;
    use std::io::Read;
    // A standard stream stays open, or the next file that is opened would become one.
    let descriptor = match number {
        0..=2 => descriptor::duplicate(number)?,
        _ => descriptor::take_inherited(number)?,
    };
    let mut text = Vec::new();
    std::fs::File::from(descriptor).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(not(unix))]
fn read(_: i32) -> std::io::Result<Vec<u8>> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Whether a file may have this option with a value that makes a difference or is noticed. Callers
/// take a name in the list for leave to write it: what is refused must not be there.
fn is_accepted(row: &OptionRow) -> bool {
    match row.treatment {
        Treatment::Works | Treatment::Harmless(_) | Treatment::OwnCertificate => true,
        Treatment::Later(fine) | Treatment::Never(fine, _) => !fine.is_empty(),
        Treatment::NeedsCertificates(_) | Treatment::AboutCertificates => false,
    }
}

fn rows(scope: StunnelScope) -> impl Iterator<Item = (&'static str, &'static OptionRow)> {
    TABLE
        .iter()
        .filter(move |row| row.scope == scope && is_accepted(row))
        .flat_map(|row| row.stunnel.iter().map(move |name| (*name, row)))
}

fn by_scope(mut line: impl FnMut(&mut String, &str, &OptionRow)) -> String {
    let mut text = String::new();
    for (title, scope) in
        [("Global", StunnelScope::Global), ("Service-level", StunnelScope::Service)]
    {
        let _ = writeln!(text, "{title} options:");
        for (name, row) in rows(scope) {
            line(&mut text, name, row);
        }
        text.push('\n');
    }
    text
}

fn help() -> String {
    let mut text = by_scope(|text, name, row| {
        let _ = writeln!(text, "{name:<22} = {}  {}", values(row), row.doc);
    });
    let refused: Vec<&str> = TABLE
        .iter()
        .filter(|row| !is_accepted(row))
        .filter_map(|row| row.stunnel.first().copied())
        .collect();
    let _ = writeln!(text, "Known and refused: {}", refused.join(", "));
    text
}

/// The shape of an option's values, in a word or two.
fn values(row: &OptionRow) -> String {
    let words = row.words(Dialect::Stunnel);
    match row.kind {
        ValueKind::Level => "[facility.]level".into(),
        ValueKind::SslOption => "[-]NAME".into(),
        _ if !words.is_empty() => words.join("|"),
        ValueKind::Duration { .. } => "seconds".into(),
        ValueKind::Count { min, max } => format!("{min}-{max}"),
        ValueKind::Path | ValueKind::Secrets
            if row.opt == OptionId::Include || row.opt == OptionId::Chroot =>
        {
            "directory".into()
        }
        ValueKind::Path | ValueKind::Secrets => "file".into(),
        ValueKind::Listen | ValueKind::Connect => "[host:]port|/path".into(),
        ValueKind::Socket => "a|l|r:NAME=VALUE".into(),
        ValueKind::Identity => "identity".into(),
        _ => match row.treatment {
            Treatment::Later(fine) | Treatment::Never(fine, _) => fine.join("|"),
            _ => "text".into(),
        },
    }
}

fn defaults() -> String {
    by_scope(|text, name, row| {
        let default = row.default(Dialect::Stunnel);
        if !default.is_empty() {
            let _ = writeln!(text, "{name:<22} = {default}");
        }
    })
}

fn sockets() -> String {
    let mut text =
        String::from("Socket options, as a:, l: or r:NAME=VALUE, and what is set anyway:\n");
    for name in config::socket_options() {
        let set = match *name {
            "SO_REUSEADDR" => "a:SO_REUSEADDR=1",
            "TCP_NODELAY" => "l:TCP_NODELAY=1 r:TCP_NODELAY=1",
            "SO_KEEPALIVE" => "1 on the TLS side",
            "TCP_KEEPIDLE" => "15 on the TLS side",
            "TCP_KEEPINTVL" => "5 on the TLS side",
            "TCP_KEEPCNT" => "3 on the TLS side",
            _ => "",
        };
        let _ = writeln!(text, "{}", format!("    {name:<16}{set}").trim_end());
    }
    text
}

fn ssl_options() -> String {
    let mut text = String::from("TLS options:\n");
    for name in OptionId::SslOptions.row().words(Dialect::Stunnel) {
        let _ = writeln!(text, "options = {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(arguments: &[&str]) -> CommandLine {
        parse_command_line(arguments.iter().map(OsString::from).collect())
    }

    fn runs(file: &str) -> CommandLine {
        CommandLine::Stunnel(StunnelCommand::File(file.into()))
    }

    #[test]
    fn the_name_stunnel_makes_it_stunnel() {
        for name in ["stunnel", "/usr/bin/stunnel", "./stunnel4", "/opt/x y/stunnel4"] {
            assert_eq!(asked(&[name]), runs(DEFAULT_CONFIG));
            assert_eq!(asked(&[name, "run", "x"]), runs("run"), "a file may be called so");
            assert_eq!(asked(&[name, "x.toml"]), runs("x.toml"));
            assert_eq!(asked(&[name, "--version"]), runs("--version"));
        }
        for name in ["pskgate", "stunnel3", "/opt/stunnel/pskgate", "mystunnel"] {
            assert!(matches!(asked(&[name]), CommandLine::Native(_)), "{name}");
        }
    }

    #[test]
    fn flags_know_no_case_and_all_but_one_work_under_every_name() {
        assert_eq!(
            asked(&["stunnel", "-VERSION", "x"]),
            CommandLine::Stunnel(StunnelCommand::Version)
        );
        let own = ["pskgate", "--version"].iter().map(OsString::from).collect();
        assert_eq!(asked(&["pskgate", "-version", "x"]), CommandLine::Native(own));
        for name in ["pskgate", "stunnel"] {
            assert_eq!(asked(&[name, "-Help"]), CommandLine::Stunnel(StunnelCommand::Help));
            assert_eq!(
                asked(&[name, "-fd"]),
                CommandLine::Stunnel(StunnelCommand::Descriptor(None))
            );
            let third = CommandLine::Stunnel(StunnelCommand::Descriptor(Some("3".into())));
            assert_eq!(asked(&[name, "-FD", "3", "more"]), third);
        }
    }

    #[test]
    fn a_file_alone_is_run_in_the_manner_of_its_language() {
        let conf = "examples/stunnel-client.conf";
        assert_eq!(asked(&["pskgate", conf, "more"]), runs(conf));
        let native = ["pskgate", "run", "plc.toml"].iter().map(OsString::from).collect();
        assert_eq!(asked(&["pskgate", "plc.toml"]), CommandLine::Native(native));
        let missing = ["pskgate", "run", "none.conf"].iter().map(OsString::from).collect();
        assert_eq!(asked(&["pskgate", "none.conf"]), CommandLine::Native(missing));
        for line in [
            &["pskgate", "run", "x"][..],
            &["pskgate", "chekc"],
            &["pskgate", "start"],
            &["pskgate", "--nope"],
        ] {
            let same = line.iter().map(OsString::from).collect();
            assert_eq!(asked(line), CommandLine::Native(same));
        }
    }

    #[test]
    fn help_claims_what_is_accepted_and_nothing_else() {
        let text = help();
        let starts = |name: &str| text.lines().any(|line| line.starts_with(name));
        for name in ["accept ", "PSKsecrets ", "libwrap ", "foreground ", "curve ", "delay "] {
            assert!(starts(name), "{name}");
        }
        for name in ["checkHost", "OCSPaia", "verify", "CAfile", "compression"] {
            assert!(!starts(name), "{name}");
        }
        let line = text.lines().find(|line| line.starts_with("foreground")).unwrap();
        assert!(line.contains("quiet"), "{line}");
    }
}
