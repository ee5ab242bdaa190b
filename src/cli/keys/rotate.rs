//! `keys rotate`: a second key for an identity, so that the first can go when nobody uses it any more.

use std::path::{Path, PathBuf};

use super::RotateArguments;
use super::declaration::edit_configuration;
use super::inventory::{KeyHolder, KeyInventory};
use super::locations::{KeyLocation, KeyLocations, service_names};
use super::refuse_runtime_file;
use crate::cli::key_line::{self, KeyLine};
use crate::cli::private_file::CreatedFiles;
use crate::cli::refusal::Refusal;
use crate::cli::{exit, print_error, shell};
use crate::config::wire_identity_edit;
use crate::secrets::edit::{self, EditError, OnLastKey};
use crate::secrets::{Identity, KeyEntry, MAX_IDENTITY_SIZE, escape};

/// What stands between an identity and the number of its key: `#` begins the identity in Beremiz' URIs.
const GENERATION_SEPARATOR: char = '~';

pub(super) fn main(arguments: &RotateArguments) -> Result<u8, Refusal> {
    let inventory = KeyInventory::load(&arguments.selection)?;
    inventory.refuse_if_unsound()?;
    let old = OldKey::find(&inventory, &arguments.identity)?;
    if !arguments.force {
        let check = |location: &KeyLocation<'_>| {
            refuse_runtime_file(&location.file, inventory.file.as_deref())
        };
        old.files.iter().try_for_each(check)?;
    }
    let new = new_name(&inventory, &old, arguments.name.as_deref())?;
    let key = key_line::generate_key_line(&new, &arguments.shape)?;
    let kit = arguments.order.prepare(&new)?;
    // The client's side first: a key that only a client has opens nothing.
    let mut made = CreatedFiles::default();
    if let Some(kit) = &kit {
        made = kit.write(&key.text)?;
    } else if let Some(path) = &arguments.output
        && let Err(error) = made.create_file(path, &key.text)
    {
        return Err(Refusal::cannot_write(path, &error).with_note(&made.undo()));
    }
    let added = match add(&inventory, &old, &new, &key) {
        Ok(added) => added,
        Err(refusal) => return Err(refusal.with_note(&made.undo())),
    };
    if kit.is_none() && arguments.output.is_none() {
        key_line::print(&key).map_err(|refusal| {
            let ways = old.removals(&inventory, &new).join(" and ");
            refusal.with_note(&format!(
                "nothing was written for the client, and {ways} removes the new \
                                  key again"
            ))
        })?;
    }
    let shown = |name: &str| escape(name.as_bytes()).to_string();
    for (file, line) in added {
        let (new, old) = (shown(&new), shown(&old.name));
        print_error(&format!("added {new} beside {old} to {}, line {line}", file.display()));
    }
    print_error(&format!("fingerprint, the same at both ends: {}", key.fingerprint));
    if let Some(kit) = &kit {
        kit.report_paths();
    }
    print_error(&next_steps(&inventory, &old, &new));
    Ok(exit::OK)
}

/// The key that a new one is to replace.
struct OldKey<'a> {
    /// Its name on the wire.
    name: String,
    /// The files that hold it, and will hold the new one.
    files: KeyLocations<'a>,
    /// Who reads one of them and lets its holders in.
    servers: Vec<&'a KeyHolder>,
}

impl<'a> OldKey<'a> {
    /// By its name on the wire, or by that of its owner: the last one that has a key. Refuses an identity
    /// that has different keys in different places: no client would present the one new key in all of them.
    fn find(inventory: &'a KeyInventory, identity: &str) -> Result<Self, Refusal> {
        let mut standing: Vec<(&KeyHolder, &KeyEntry, String)> = Vec::new();
        for holder in inventory.holders.iter().filter(|holder| !holder.is_client) {
            let wires = inventory.wire_names.iter().rev().filter(|wire| {
                wire.identity == identity && holder.service.as_deref() == Some(&wire.service)
            });
            let mut names = std::iter::once(identity).chain(wires.map(|wire| wire.name.as_str()));
            let found = names.find_map(|name| {
                // Of two lines of a name, the last one counts.
                let lines = holder.lines_of(name.as_bytes());
                let entry = lines.filter(|entry| inventory.filter.has(holder, entry)).last()?;
                Some((holder, entry, name.to_owned()))
            });
            standing.extend(found);
        }
        let Some((_, first, name)) = standing.first() else {
            return Err(Refusal::new(exit::USAGE, no_reader_message(inventory, identity)));
        };
        let (first, name) = (first.fingerprint(), name.clone());
        if standing.iter().any(|(_, entry, other)| (entry.fingerprint(), other) != (first, &name)) {
            return Err(ambiguous_refusal(identity, &standing));
        }
        let is_meant = |holder: &KeyHolder, entry: &KeyEntry| {
            standing.iter().any(|(h, e, _)| std::ptr::eq(*h, holder) && std::ptr::eq(*e, entry))
        };
        let files = KeyLocations::find(inventory, name.as_bytes(), is_meant);
        let mut servers = files.readers(inventory);
        servers.retain(|holder| !holder.is_client);
        Ok(Self { name, files, servers })
    }

    /// The commands that take a name out of exactly the files of this one, in quotes.
    fn removals(&self, inventory: &KeyInventory, name: &str) -> Vec<String> {
        let config = inventory.file.as_deref().map(|file| file.display().to_string());
        // Everybody who knows the old name has the new one.
        let has_new =
            |holder: &KeyHolder| self.servers.iter().any(|server| std::ptr::eq(*server, holder));
        let name_of_old = self.name.as_bytes();
        let is_all = config.is_some()
            && inventory
                .holders
                .iter()
                .all(|h| has_new(h) || h.lines_of(name_of_old).next().is_none());
        let of = |file: Option<&Path>| {
            let file = file.map(|file| file.display().to_string());
            let mut words = vec!["keys", "remove"];
            words.extend(file.iter().flat_map(|file| ["--file", file]));
            words.extend(inventory.format.iter().flat_map(|format| ["--format", format]));
            // Behind this, a name that begins with a hyphen is no option.
            words.extend(name.starts_with('-').then_some("--"));
            words.push(name);
            words.extend(config.as_deref());
            match shell::command_line(words) {
                Some(command) => format!("`{command}`"),
                None => format!("`pskgate keys remove` with the name {}", escape(name.as_bytes())),
            }
        };
        match is_all {
            true => vec![of(None)],
            false => self.files.iter().map(|location| of(Some(&location.file))).collect(),
        }
    }
}

/// Why nobody lets this identity in.
fn no_reader_message(inventory: &KeyInventory, identity: &str) -> String {
    let shown = escape(identity.as_bytes());
    let name = identity.as_bytes();
    let presents = |holder: &&KeyHolder| {
        holder.is_client && holder.lines_of(name).any(|entry| inventory.filter.has(holder, entry))
    };
    if let Some(service) =
        inventory.holders.iter().find(presents).and_then(|h| h.service.as_deref())
    {
        return format!(
            "[{service}] only presents {shown}: rotate it at the server's end, which must know the new key \
             first"
        );
    }
    let elsewhere = KeyLocations::find(inventory, name, |_, _| true);
    if elsewhere.is_empty() {
        return format!(
            "no key file has an identity {shown}; `pskgate keys list` shows those that there are"
        );
    }
    format!("{shown} does not stand there; it stands in\n  {}", elsewhere.describe())
}

fn ambiguous_refusal(identity: &str, standing: &[(&KeyHolder, &KeyEntry, String)]) -> Refusal {
    let mut places: Vec<String> = Vec::new();
    for (holder, entry, name) in standing {
        let selection = format!(
            "{}:{} as {}, read by {}",
            entry.file().display(),
            entry.line(),
            escape(name.as_bytes()),
            service_names(&[holder])
        );
        if !places.contains(&selection) {
            places.push(selection);
        }
    }
    let words = format!(
        "nothing was changed: {} has different keys in several places; rotate them one at a time, each with \
         --service NAME or --file KEYFILE:\n  {}",
        escape(identity.as_bytes()),
        places.join("\n  ")
    );
    Refusal::new(exit::USAGE, words)
}

/// The name that was asked for, or the next one that is free.
fn new_name(
    inventory: &KeyInventory,
    old: &OldKey<'_>,
    asked: Option<&str>,
) -> Result<String, Refusal> {
    // In any service: the defaults, where the name may be declared, are all of theirs.
    let is_taken = |name: &str| {
        inventory.holders.iter().any(|holder| holder.lines_of(name.as_bytes()).next().is_some())
            || inventory.wire_names.iter().any(|wire| wire.name == name || wire.identity == name)
    };
    match asked {
        Some(name) if is_taken(name) => {
            let shown = escape(name.as_bytes());
            let words = format!("{shown} is taken already; `pskgate keys list` shows by whom");
            Err(Refusal::new(exit::USAGE, words))
        }
        Some(name) => Ok(name.to_owned()),
        None => propose_name(&old.name, is_taken).ok_or_else(|| {
            let words = format!(
                "the next name would be longer than {MAX_IDENTITY_SIZE} bytes; choose one with --name"
            );
            Refusal::new(exit::USAGE, words)
        }),
    }
}

/// `plc-01` → `plc-01~2` → `plc-01~3`, past those that are taken; none that fits is none.
fn propose_name(name: &str, is_taken: impl Fn(&str) -> bool) -> Option<String> {
    let number =
        |digits: &str| digits.parse::<u32>().ok().filter(|n| *n >= 2 && *digits == n.to_string());
    let (base, now) = name
        .rsplit_once(GENERATION_SEPARATOR)
        .and_then(|(base, digits)| Some((base, number(digits)?)))
        .filter(|(base, _)| !base.is_empty())
        .unwrap_or((name, 1));
    (now.checked_add(1)?..=u32::MAX)
        .map(|n| format!("{base}{GENERATION_SEPARATOR}{n}"))
        .take_while(|name| name.len() <= MAX_IDENTITY_SIZE)
        .find(|name| !is_taken(name))
}

/// Declares the name and then adds its key, in this order: the new key never counts for a stranger's. The
/// files, and the line that it got in each.
fn add(
    inventory: &KeyInventory,
    old: &OldKey<'_>,
    new: &str,
    key: &KeyLine,
) -> Result<Vec<(PathBuf, u32)>, Refusal> {
    let declared = match &inventory.native {
        Some(config) => declare(config, inventory, old, new)?,
        None => None,
    };
    let mut added = Vec::new();
    for location in old.files.iter() {
        match edit::append(&location.file, key.text.as_bytes()) {
            Ok(done) => {
                key_line::report_tightened_mode(&location.file, done.loose_mode);
                added.push((location.file.clone(), done.line));
            }
            Err(error) => return Err(roll_back(error, new, &added, declared)),
        }
    }
    Ok(added)
}

/// Undoes what was done before a file could not be written: a name is in all of the files or in none.
fn roll_back(
    error: EditError,
    new: &str,
    added: &[(PathBuf, u32)],
    declared: Option<DeclaredName<'_>>,
) -> Refusal {
    // Somebody else's key of this name belongs where the declaration has it.
    let is_foreign = matches!(error, EditError::IdentityExists(..)) && added.is_empty();
    let mut refusal = Refusal::from(error);
    let shown = escape(new.as_bytes());
    let mut is_clean = true;
    for (file, _) in added {
        if edit::remove(file, new.as_bytes(), OnLastKey::Refuse).is_err() {
            is_clean = false;
            refusal = refusal.with_note(&format!("{shown} is left over in {}", file.display()));
        }
    }
    // A key without a declaration would count for a stranger's.
    let Some(declared) = declared.filter(|_| !is_foreign && is_clean) else { return refusal };
    match declared.undo(new) {
        Ok(()) => refusal,
        Err(_) => refusal.with_note(&format!(
            "{shown} is left over among the `wire` names in {}",
            declared.config.display()
        )),
    }
}

/// A change to the configuration.
struct DeclaredName<'a> {
    config: &'a Path,
    before: String,
    after: String,
}

/// Says in every service that reads the file to whom the new name belongs. None if they say so already.
fn declare<'a>(
    config: &'a Path,
    inventory: &KeyInventory,
    old: &OldKey<'_>,
    new: &str,
) -> Result<Option<DeclaredName<'a>>, Refusal> {
    let mut declared = DeclaredName { config, before: String::new(), after: String::new() };
    let changed = edit_configuration(config, |text| {
        declared.before = text.to_owned();
        declared.after = text.to_owned();
        for holder in &old.servers {
            let Some(service) = holder.service.as_deref() else { continue };
            let owner = inventory.owner(Some(service), &old.name);
            declared.after =
                wire_identity_edit::declare(&declared.after, service, owner, &old.name, new)?;
        }
        Ok(Some(declared.after.clone()))
    })?;
    Ok(changed.then_some(declared))
}

impl DeclaredName<'_> {
    /// To the letter, unless somebody else has changed the file since.
    fn undo(&self, new: &str) -> Result<(), Refusal> {
        edit_configuration(self.config, |text| match text == self.after {
            true => Ok(Some(self.before.clone())),
            false => wire_identity_edit::retract(text, new, |_| true),
        })
        .map(drop)
    }
}

/// The remaining steps, for the user.
fn next_steps(inventory: &KeyInventory, old: &OldKey<'_>, new: &str) -> String {
    let separate = if inventory.native.is_some() {
        ""
    } else {
        "the two are separate identities here: only a native configuration can say that they are one\n"
    };
    let list = match (&inventory.file, old.files.iter().next()) {
        (Some(config), _) => {
            let config = config.display().to_string();
            let mut words = vec!["keys", "list"];
            words.extend(inventory.format.iter().flat_map(|format| ["--format", format]));
            words.push(&config);
            shell::command_line(words)
        }
        (None, Some(only)) => {
            shell::command_line(["keys", "list", "--file", &only.file.display().to_string()])
        }
        (None, None) => None,
    };
    format!(
        "{separate}next: put the key into the client's key file in place of the old one (psk-identity there, if it is \
         set, becomes {new})\n      \
         watch `{list}` until {shown} is not used any more\n      \
         then {removals}",
        new = escape(new.as_bytes()),
        list = list.as_deref().unwrap_or("pskgate keys list"),
        shown = Identity::new(old.name.as_bytes()).to_plain_text(),
        removals = old.removals(inventory, &old.name).join("\n      and "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_name_counts_on_and_passes_by_what_is_taken() {
        let long = "x".repeat(253);
        for (name, taken, next) in [
            ("plc-01", &[][..], Some("plc-01~2")),
            ("plc-01~2", &[], Some("plc-01~3")),
            ("plc-01~9", &[], Some("plc-01~10")),
            ("plc-01", &["plc-01~2", "plc-01~3"], Some("plc-01~4")),
            ("plc~01", &[], Some("plc~01~2")),
            ("plc~1", &[], Some("plc~1~2")),
            ("~2", &[], Some("~2~2")),
            ("a~b~7", &[], Some("a~b~8")),
            ("a~4294967295", &[], None),
            (&long, &[], Some(&format!("{long}~2"))),
            (&format!("{long}y"), &[], None),
            (&format!("{long}~9"), &[], None),
        ] {
            let found = propose_name(name, |name| taken.contains(&name));
            assert_eq!(found.as_deref(), next, "{name}");
        }
    }
}
