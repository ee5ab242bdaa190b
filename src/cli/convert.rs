//! `convert FILE`: the same configuration in the other dialect.

#[cfg(unix)]
mod unit;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

#[cfg(unix)]
use unit::Unit;

use super::refusal::Refusal;
use super::{FormatName, exit, exit_code_for, print_error, show_diagnostics};
use crate::config::convert::{ConversionRequest, Converted, convert};
use crate::config::diagnostic::{Diagnostics, Severity};
use crate::config::model::Dialect;
use crate::config::{self, Format};
use crate::daemon::BuiltConfig;
use crate::sys::file::read_regular;
use crate::sys::file_edit::FileEdit;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A stunnel.conf or, with `--to stunnel`, a TOML file
    file: PathBuf,
    /// The format of the new file
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    to: Language,
    /// Write to this file; an existing file is overwritten only with --force
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite an existing file
    #[arg(long, requires = "output")]
    force: bool,
    /// Write a TOML file that the systemd units of pskgate run: as their user, with the log in /var/log/pskgate.
    /// The report tells what that user still may not read
    #[cfg(unix)]
    #[arg(long)]
    for_systemd: bool,
    /// The directory in which stunnel is started, where relative file names begin [default: the current
    /// directory]
    #[arg(long, value_name = "DIR")]
    start_directory: Option<PathBuf>,
    /// The format of FILE; auto: TOML if the name ends in .toml, otherwise stunnel.conf
    #[arg(long, value_enum, default_value_t)]
    format: FormatName,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Language {
    #[default]
    Toml,
    Stunnel,
}

pub(super) fn main(arguments: &Arguments) -> u8 {
    let Arguments { file, to, output, format, .. } = arguments;
    let format: Format = (*format).into();
    // The directory may have been removed; only relative names suffer.
    let here = std::env::current_dir().unwrap_or_default();
    let start =
        arguments.start_directory.as_ref().map_or_else(|| here.clone(), |dir| here.join(dir));
    let bytes = match read_regular(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            print_error(&format!("pskgate: cannot read {}: {error}", file.display()));
            return exit::NO_INPUT;
        }
    };
    let home = output.as_deref().and_then(|output| base_folder(&here.join(output)));
    let to = match to {
        Language::Toml => Dialect::Native,
        Language::Stunnel => Dialect::Stunnel,
    };
    // A stunnel.conf's names begin where it is started, and a native file's in its own folder, of which
    // the reader knows no more than what is said here.
    let named = match format.dialect(file) {
        Dialect::Stunnel => file.clone(),
        Dialect::Native => here.join(file),
    };
    #[cfg(unix)]
    if arguments.for_systemd && to == Dialect::Stunnel {
        print_error(
            "pskgate: --for-systemd is for a TOML file: stunnel@NAME.service runs a stunnel.conf as it is",
        );
        return exit::USAGE;
    }
    #[cfg(unix)]
    let unit = Unit::choose(arguments, &here);
    #[cfg(unix)]
    let unit_logs = unit.logs.as_deref().filter(|_| arguments.for_systemd);
    #[cfg(not(unix))]
    let unit_logs = None;
    let order = ConversionRequest { format, to, start: &start, home: home.as_deref(), unit_logs };
    let mut converted = match convert(&bytes, &named, &order) {
        Ok(converted) => converted,
        Err(report) => {
            show_diagnostics(&report);
            print_error("nothing was written: correct these first");
            return exit_code_for(&report);
        }
    };
    // What only the key files tell, such as an identity that is there twice.
    let lost = find_new_errors(&bytes, &named, &order, &converted);
    converted.report.extend(lost);
    let written = match output {
        None => print(&converted.text),
        Some(path) => write(path, file, &converted.text, arguments.force),
    };
    if let Err(refusal) = written {
        return refusal.report();
    }
    #[cfg(unix)]
    if to == Dialect::Native {
        let base = order.home.unwrap_or(order.start);
        converted.report.diagnostics.extend(unit.find_obstacles(&converted.text, base));
    }
    show_diagnostics(&converted.report);
    if let Some(path) = output
        && (Format::Auto.dialect(path) != to)
    {
        let format = if to == Dialect::Native { "toml" } else { "stunnel" };
        print_error(&format!("{} is read right with --format {format} only", path.display()));
    }
    let lost = [Severity::Error, Severity::Warning];
    if lost.iter().any(|severity| converted.report.count(*severity) > 0) {
        exit::NOT_ALL_CONVERTED
    } else {
        exit::OK
    }
}

/// The folder that a native file's relative names begin at: not the one of a link to it.
fn base_folder(path: &Path) -> Option<PathBuf> {
    path.parent().map(Path::to_path_buf)
}

/// The errors of the new file, where the old one has none.
fn find_new_errors(
    bytes: &[u8],
    name: &Path,
    order: &ConversionRequest<'_>,
    converted: &Converted,
) -> Diagnostics {
    let build = |text: &[u8], name: &Path, base: &Path, format| {
        let (config, mut report) = config::survey_text(text, name, base, format);
        let plan = config.and_then(|config| BuiltConfig::build(&config, &mut report));
        report.diagnostics.retain(|found| found.severity == Severity::Error);
        (plan.is_some(), report)
    };
    let folder = match order.to {
        Dialect::Native => Some(order.start),
        Dialect::Stunnel => name.parent(),
    };
    let (worked, _) = build(bytes, name, folder.unwrap_or(order.start), order.format);
    let (new, format) = match order.to {
        Dialect::Native => ("converted.toml", Format::Toml),
        Dialect::Stunnel => ("converted.conf", Format::Stunnel),
    };
    let base = order.home.unwrap_or(order.start);
    let (works, report) = build(converted.text.as_bytes(), Path::new(new), base, format);
    if worked && !works { report } else { Diagnostics::default() }
}

fn print(text: &str) -> Result<(), Refusal> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Refusal::new(exit::IO, format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// A new file may be read by whoever may read the old one: its comments came from there. Of a group only if
/// it is the same one.
fn write(path: &Path, old: &Path, text: &str, force: bool) -> Result<(), Refusal> {
    let unwritten = |error| Refusal::cannot_write(path, &error);
    let edit = FileEdit::begin(path).map_err(unwritten)?;
    // The only original, and in the end under a name of the other dialect.
    if old.canonicalize().is_ok_and(|old| edit.path() == old) {
        let words = format!("{} is the file that is converted: name another", path.display());
        return Err(Refusal::new(exit::CANNOT_CREATE, words));
    }
    let there = edit.exists().map_err(unwritten)?;
    if there && !force {
        return Err(Refusal::new(
            exit::CANNOT_CREATE,
            format!(
                "{} exists already and is left as it is; name another file, or say --force to have \
                 it replaced",
                path.display()
            ),
        ));
    }
    edit.replace(&[text.as_bytes()], 0o777).map_err(unwritten)?;
    if !there && let Ok(meta) = std::fs::metadata(old) {
        // Where that cannot be, it stays for its owner alone.
        let _ = copy_mode(edit.path(), &meta);
    }
    print_error(&format!("{} {}", if there { "replaced" } else { "wrote" }, path.display()));
    Ok(())
}

#[cfg(unix)]
fn copy_mode(path: &Path, old: &std::fs::Metadata) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let same_group = std::fs::metadata(path)?.gid() == old.gid();
    let mode = old.mode() & if same_group { 0o666 } else { 0o606 };
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn copy_mode(_: &Path, _: &std::fs::Metadata) -> std::io::Result<()> {
    Ok(())
}
