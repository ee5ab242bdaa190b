//! `keys import`: the lines of other key files, such as those that clients were given, become lines of a server's.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::inventory::{KeyHolder, KeyInventory};
use super::{KeySelection, refuse_runtime_file, refuse_second_keys};
use crate::cli::refusal::Refusal;
use crate::cli::{FormatName, exit, key_line, print_error};
use crate::secrets::edit::{self, EditError};
use crate::secrets::{Duplicate, DuplicateIndex, KeyEntry, KeyFileWriter, import};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Key files to read, also with CR LF, a byte order mark or in UTF-16. If the last name ends in .toml or
    /// .conf, it is the configuration, and the lines are added to the key file of its server [default: this
    /// machine's pskgate.toml; without it, pskgate.toml in this folder]
    #[arg(required = true, value_name = "KEYFILE")]
    files: Vec<PathBuf>,
    /// Add the lines to this key file; it is created if it does not exist
    #[arg(long, value_name = "KEYFILE")]
    file: Option<PathBuf>,
    /// Also add to the file of a Beremiz runtime
    #[arg(long)]
    force: bool,
}

/// A line, and where it comes from.
struct SourceLine<'a> {
    from: &'a Path,
    number: u32,
    text: Zeroizing<Vec<u8>>,
    entry: KeyEntry,
}

pub(super) fn main(arguments: &Arguments) -> Result<u8, Refusal> {
    let (config, sources) = match arguments.files.split_last() {
        Some((last, rest)) if is_config(last) => (Some(last.as_path()), rest),
        _ => (None, arguments.files.as_slice()),
    };
    if sources.is_empty() {
        return Err(Refusal::new(exit::USAGE, "no key file was named whose lines are to be added"));
    }
    let target = match &arguments.file {
        Some(file) => file.clone(),
        None => key_file(config)?,
    };
    let lines = read(sources)?;
    if !arguments.force {
        refuse_runtime_file(&target, config)?;
    }
    let identities = lines.iter().map(|line| line.entry.identity().as_bytes());
    refuse_second_keys(&target, &identities.collect::<Vec<_>>(), config)?;
    let mut fingerprints = Vec::new();
    let mut new = Vec::with_capacity(lines.len());
    for line in &lines {
        fingerprints.push((line.entry.identity().to_plain_text(), line.entry.fingerprint()));
        new.push((line.text.as_slice(), edit::parse_single_line(&line.text, line.from)?));
    }
    let added = edit::append_all(&target, &new).map_err(|error| with_source(error, &lines))?;
    for ((identity, fingerprint), line) in fingerprints.iter().zip(added.line..) {
        print_error(&format!(
            "added {identity} to {}, line {line}; fingerprint, the same at both ends: {fingerprint}",
            added.file.display()
        ));
    }
    key_line::report_tightened_mode(&target, added.loose_mode);
    Ok(exit::OK)
}

fn is_config(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "toml" || ending == "conf")
}

/// Every line of every file; none of them twice.
fn read(sources: &[PathBuf]) -> Result<Vec<SourceLine<'_>>, Refusal> {
    let mut all: Vec<SourceLine<'_>> = Vec::new();
    for from in sources {
        let found = import::read_lines(from)?;
        if found.is_empty() {
            let words = format!("nothing was changed: {} holds no key", from.display());
            return Err(Refusal::new(exit::CONFIG, words));
        }
        all.extend(found.into_iter().map(|import::ImportLine { number, text, entry }| {
            SourceLine { from, number, text, entry }
        }));
    }
    refuse_duplicates(&all).map(|()| all)
}

/// Refuses an identity or a key that stands on two of the lines.
fn refuse_duplicates(lines: &[SourceLine<'_>]) -> Result<(), Refusal> {
    let mut index = DuplicateIndex::default();
    for (n, line) in lines.iter().enumerate() {
        let identity = line.entry.identity();
        let (earlier, what) = match index.find(&line.entry) {
            None => {
                index.insert(n, &line.entry);
                continue;
            }
            Some(Duplicate::Identity(n)) => (&lines[n], format!("{identity} stands")),
            Some(Duplicate::Key(n)) => {
                let other = lines[n].entry.identity();
                (&lines[n], format!("one key of {other} and {identity} stands"))
            }
        };
        let words = format!(
            "nothing was changed: {what} in {}:{} and in {}:{}",
            earlier.from.display(),
            earlier.number,
            line.from.display(),
            line.number
        );
        return Err(Refusal::new(exit::CANNOT_CREATE, words));
    }
    Ok(())
}

/// Says of a line that the file has already where it comes from.
fn with_source(error: EditError, lines: &[SourceLine<'_>]) -> Refusal {
    let source = match &error {
        EditError::IdentityExists(_, identity, _) => {
            lines.iter().find(|line| line.entry.identity() == identity)
        }
        _ => None,
    };
    let selection = source.map(|line| {
        format!("nothing was changed; it comes from {}:{}", line.from.display(), line.number)
    });
    let refusal = Refusal::from(error);
    match selection {
        Some(selection) => refusal.with_note(&selection),
        None => refusal.with_note("nothing was changed"),
    }
}

/// The one key file that the servers of a configuration read and that nobody else writes.
fn key_file(config: Option<&Path>) -> Result<PathBuf, Refusal> {
    let selection = KeySelection {
        config: config.map(Path::to_owned),
        format: FormatName::Auto,
        key_file: None,
        service: None,
    };
    let inventory = KeyInventory::load(&selection)?;
    // The first path may be a runtime's file, or the folder of a project, which need not be there yet.
    let is_target = |holder: &KeyHolder, n: usize, path: &Path| {
        holder.rules.writer_of_path(n) == KeyFileWriter::Operator && !path.is_dir()
    };
    let mut files: Vec<&PathBuf> = Vec::new();
    for holder in inventory.holders.iter().filter(|holder| !holder.is_client) {
        let paths = holder.paths.iter().enumerate();
        files.extend(paths.filter(|(n, path)| is_target(holder, *n, path)).map(|(_, path)| path));
    }
    files.dedup();
    match files.as_slice() {
        [only] => Ok((*only).clone()),
        [] => {
            Err(Refusal::new(exit::USAGE, "no server there has a key file; name one with --file"))
        }
        several => {
            let names: Vec<_> = several.iter().map(|file| file.display().to_string()).collect();
            let words = format!("say with --file which is meant: {}", names.join(", "));
            Err(Refusal::new(exit::USAGE, words))
        }
    }
}
