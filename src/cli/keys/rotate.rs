//! `keys rotate`: a second key for an identity, so that the first can go when nobody uses it any more.

use std::path::{Path, PathBuf};

use super::Rotate;
use super::declaration::change;
use super::locations::{Location, Locations, services};
use super::refuse_runtime_file;
use super::site::{Holder, Site};
use crate::cli::key_line::{self, KeyLine};
use crate::cli::private_file::Made;
use crate::cli::refusal::Refusal;
use crate::cli::{complain, exit, shell};
use crate::config::wire_identity_edit;
use crate::secrets::edit::{self, EditError, Emptied};
use crate::secrets::{Entry, Identity, MAX_IDENTITY, escape};

/// What stands between an identity and the number of its key: `#` begins the identity in Beremiz' URIs.
const MARK: char = '~';

pub(super) fn main(arguments: &Rotate) -> Result<u8, Refusal> {
    let site = Site::look(&arguments.selection)?;
    site.sound()?;
    let old = Old::find(&site, &arguments.identity)?;
    if !arguments.force {
        let check =
            |location: &Location<'_>| refuse_runtime_file(&location.file, site.file.as_deref());
        old.files.iter().try_for_each(check)?;
    }
    let new = new_name(&site, &old, arguments.name.as_deref())?;
    let key = key_line::fresh(&new, &arguments.shape)?;
    let kit = arguments.order.kit(&new)?;
    // The client's side first: a key that only a client has opens nothing.
    let mut made = Made::default();
    if let Some(kit) = &kit {
        made = kit.write(&key.text)?;
    } else if let Some(path) = &arguments.output
        && let Err(error) = made.file(path, &key.text)
    {
        return Err(Refusal::unwritten(path, &error).and(&made.undo()));
    }
    let added = match add(&site, &old, &new, &key) {
        Ok(added) => added,
        Err(refusal) => return Err(refusal.and(&made.undo())),
    };
    if kit.is_none() && arguments.output.is_none() {
        key_line::print(&key).map_err(|refusal| {
            let ways = old.removals(&site, &new).join(" and ");
            refusal.and(&format!(
                "nothing was written for the client, and {ways} removes the new \
                                  key again"
            ))
        })?;
    }
    let shown = |name: &str| escape(name.as_bytes()).to_string();
    for (file, line) in added {
        let (new, old) = (shown(&new), shown(&old.name));
        complain(&format!("added {new} beside {old} to {}, line {line}", file.display()));
    }
    complain(&format!("fingerprint, the same at both ends: {}", key.fingerprint));
    if let Some(kit) = &kit {
        kit.tell();
    }
    complain(&next(&site, &old, &new));
    Ok(exit::OK)
}

/// The key that is to be succeeded.
struct Old<'a> {
    /// Its name on the wire.
    name: String,
    /// The files that hold it, and will hold the new one.
    files: Locations<'a>,
    /// Who reads one of them and lets its holders in.
    servers: Vec<&'a Holder>,
}

impl<'a> Old<'a> {
    /// By its name on the wire, or by that of its owner: the last one that has a key. Refuses an identity
    /// that has different keys in different places: no client would present the one new key in all of them.
    fn find(site: &'a Site, identity: &str) -> Result<Self, Refusal> {
        let mut standing: Vec<(&Holder, &Entry, String)> = Vec::new();
        for holder in site.holders.iter().filter(|holder| !holder.is_client) {
            let wires = site.wires.iter().rev().filter(|wire| {
                wire.identity == identity && holder.service.as_deref() == Some(&wire.service)
            });
            let mut names = std::iter::once(identity).chain(wires.map(|wire| wire.name.as_str()));
            let found = names.find_map(|name| {
                // Of two lines of a name, the last one counts.
                let lines = holder.lines_of(name.as_bytes());
                let entry = lines.filter(|entry| site.scope.has(holder, entry)).last()?;
                Some((holder, entry, name.to_owned()))
            });
            standing.extend(found);
        }
        let Some((_, first, name)) = standing.first() else {
            return Err(Refusal::new(exit::USAGE, nobody(site, identity)));
        };
        let (first, name) = (first.fingerprint(), name.clone());
        if standing.iter().any(|(_, entry, other)| (entry.fingerprint(), other) != (first, &name)) {
            return Err(several(identity, &standing));
        }
        let is_meant = |holder: &Holder, entry: &Entry| {
            standing.iter().any(|(h, e, _)| std::ptr::eq(*h, holder) && std::ptr::eq(*e, entry))
        };
        let files = Locations::of(site, name.as_bytes(), is_meant);
        let mut servers = files.readers(site);
        servers.retain(|holder| !holder.is_client);
        Ok(Self { name, files, servers })
    }

    /// The commands that take a name out of exactly the files of this one, in quotes.
    fn removals(&self, site: &Site, name: &str) -> Vec<String> {
        let config = site.file.as_deref().map(|file| file.display().to_string());
        // Everybody who knows the old name has the new one.
        let has_new =
            |holder: &Holder| self.servers.iter().any(|server| std::ptr::eq(*server, holder));
        let name_of_old = self.name.as_bytes();
        let is_all = config.is_some()
            && site.holders.iter().all(|h| has_new(h) || h.lines_of(name_of_old).next().is_none());
        let of = |file: Option<&Path>| {
            let file = file.map(|file| file.display().to_string());
            let mut words = vec!["keys", "remove"];
            words.extend(file.iter().flat_map(|file| ["--file", file]));
            words.extend(site.format.iter().flat_map(|format| ["--format", format]));
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
fn nobody(site: &Site, identity: &str) -> String {
    let shown = escape(identity.as_bytes());
    let name = identity.as_bytes();
    let presents = |holder: &&Holder| {
        holder.is_client && holder.lines_of(name).any(|entry| site.scope.has(holder, entry))
    };
    if let Some(service) = site.holders.iter().find(presents).and_then(|h| h.service.as_deref()) {
        return format!(
            "[{service}] only presents {shown}: rotate it at the server's end, which must know the new key \
             first"
        );
    }
    let elsewhere = Locations::of(site, name, |_, _| true);
    if elsewhere.is_empty() {
        return format!(
            "no key file has an identity {shown}; `pskgate keys list` shows those that there are"
        );
    }
    format!("{shown} does not stand there; it stands in\n  {}", elsewhere.describe())
}

fn several(identity: &str, standing: &[(&Holder, &Entry, String)]) -> Refusal {
    let mut places: Vec<String> = Vec::new();
    for (holder, entry, name) in standing {
        let selection = format!(
            "{}:{} as {}, read by {}",
            entry.file().display(),
            entry.line(),
            escape(name.as_bytes()),
            services(&[holder])
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
fn new_name(site: &Site, old: &Old<'_>, asked: Option<&str>) -> Result<String, Refusal> {
    // In any service: the defaults, where the name may be declared, are all of theirs.
    let is_taken = |name: &str| {
        site.holders.iter().any(|holder| holder.lines_of(name.as_bytes()).next().is_some())
            || site.wires.iter().any(|wire| wire.name == name || wire.identity == name)
    };
    match asked {
        Some(name) if is_taken(name) => {
            let shown = escape(name.as_bytes());
            let words = format!("{shown} is taken already; `pskgate keys list` shows by whom");
            Err(Refusal::new(exit::USAGE, words))
        }
        Some(name) => Ok(name.to_owned()),
        None => proposal(&old.name, is_taken).ok_or_else(|| {
            let words = format!(
                "the next name would be longer than {MAX_IDENTITY} bytes; choose one with --name"
            );
            Refusal::new(exit::USAGE, words)
        }),
    }
}

/// `plc-01` → `plc-01~2` → `plc-01~3`, past those that are taken; none that fits is none.
fn proposal(name: &str, is_taken: impl Fn(&str) -> bool) -> Option<String> {
    let number =
        |digits: &str| digits.parse::<u32>().ok().filter(|n| *n >= 2 && *digits == n.to_string());
    let (base, now) = name
        .rsplit_once(MARK)
        .and_then(|(base, digits)| Some((base, number(digits)?)))
        .filter(|(base, _)| !base.is_empty())
        .unwrap_or((name, 1));
    (now.checked_add(1)?..=u32::MAX)
        .map(|n| format!("{base}{MARK}{n}"))
        .take_while(|name| name.len() <= MAX_IDENTITY)
        .find(|name| !is_taken(name))
}

/// Declares the name and then adds its key, in this order: the new key never counts for a stranger's. The
/// files, and the line that it got in each.
fn add(
    site: &Site,
    old: &Old<'_>,
    new: &str,
    key: &KeyLine,
) -> Result<Vec<(PathBuf, u32)>, Refusal> {
    let declared = match &site.native {
        Some(config) => declare(config, site, old, new)?,
        None => None,
    };
    let mut added = Vec::new();
    for location in old.files.iter() {
        match edit::append(&location.file, key.text.as_bytes()) {
            Ok(done) => {
                key_line::tell_tightened(&location.file, done.loose);
                added.push((location.file.clone(), done.line));
            }
            Err(error) => return Err(take_back(error, new, &added, declared)),
        }
    }
    Ok(added)
}

/// Undoes what was done before a file could not be written: a name is in all of the files or in none.
fn take_back(
    error: EditError,
    new: &str,
    added: &[(PathBuf, u32)],
    declared: Option<Declared<'_>>,
) -> Refusal {
    // Somebody else's key of this name belongs where the declaration has it.
    let is_foreign = matches!(error, EditError::Taken(..)) && added.is_empty();
    let mut refusal = Refusal::from(error);
    let shown = escape(new.as_bytes());
    let mut is_clean = true;
    for (file, _) in added {
        if edit::remove(file, new.as_bytes(), Emptied::Refuse).is_err() {
            is_clean = false;
            refusal = refusal.and(&format!("{shown} is left over in {}", file.display()));
        }
    }
    // A key without a declaration would count for a stranger's.
    let Some(declared) = declared.filter(|_| !is_foreign && is_clean) else { return refusal };
    match declared.undo(new) {
        Ok(()) => refusal,
        Err(_) => refusal.and(&format!(
            "{shown} is left over among the `wire` names in {}",
            declared.config.display()
        )),
    }
}

/// A change to the configuration.
struct Declared<'a> {
    config: &'a Path,
    before: String,
    after: String,
}

/// Says in every service that reads the file to whom the new name belongs. None if they say so already.
fn declare<'a>(
    config: &'a Path,
    site: &Site,
    old: &Old<'_>,
    new: &str,
) -> Result<Option<Declared<'a>>, Refusal> {
    let mut declared = Declared { config, before: String::new(), after: String::new() };
    let changed = change(config, |text| {
        declared.before = text.to_owned();
        declared.after = text.to_owned();
        for holder in &old.servers {
            let Some(service) = holder.service.as_deref() else { continue };
            let owner = site.owner(Some(service), &old.name);
            declared.after =
                wire_identity_edit::declare(&declared.after, service, owner, &old.name, new)?;
        }
        Ok(Some(declared.after.clone()))
    })?;
    Ok(changed.then_some(declared))
}

impl Declared<'_> {
    /// To the letter, unless somebody else has changed the file since.
    fn undo(&self, new: &str) -> Result<(), Refusal> {
        change(self.config, |text| match text == self.after {
            true => Ok(Some(self.before.clone())),
            false => wire_identity_edit::retract(text, new, |_| true),
        })
        .map(drop)
    }
}

/// What is left to do.
fn next(site: &Site, old: &Old<'_>, new: &str) -> String {
    let separate = if site.native.is_some() {
        ""
    } else {
        "the two are separate identities here: only a native configuration can say that they are one\n"
    };
    let list = match (&site.file, old.files.iter().next()) {
        (Some(config), _) => {
            let config = config.display().to_string();
            let mut words = vec!["keys", "list"];
            words.extend(site.format.iter().flat_map(|format| ["--format", format]));
            words.push(&config);
            shell::command_line(words)
        }
        (None, Some(only)) => {
            shell::command_line(["keys", "list", "--file", &only.file.display().to_string()])
        }
        (None, None) => None,
    };
    format!(
        "{separate}next: give the key to the client, which presents it as {new}\n      \
         watch `{list}` until {shown} is not used any more\n      \
         then {removals}",
        new = escape(new.as_bytes()),
        list = list.as_deref().unwrap_or("pskgate keys list"),
        shown = Identity::new(old.name.as_bytes()).plain(),
        removals = old.removals(site, &old.name).join("\n      and "),
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
            let found = proposal(name, |name| taken.contains(&name));
            assert_eq!(found.as_deref(), next, "{name}");
        }
    }
}
