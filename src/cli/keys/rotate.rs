//! `keys rotate`: a second key for an identity, so that the first can go when nobody uses it any more.

use std::path::{Path, PathBuf};

use super::Rotate;
use super::declaration::change;
use super::site::{Holder, Site};
use crate::cli::key_line::{self, KeyLine};
use crate::cli::private_file::Made;
use crate::cli::refusal::Refusal;
use crate::cli::{complain, exit, keygen};
use crate::config::wires;
use crate::secrets::edit::{self, EditError};
use crate::secrets::{Identity, MAX_IDENTITY, escape};

/// What stands between an identity and the number of its key: `#` begins the identity in Beremiz' URIs.
const MARK: char = '~';

pub(super) fn main(arguments: &Rotate) -> Result<u8, Refusal> {
    let site = Site::look(&arguments.place)?;
    site.sound()?;
    let old = Old::find(&site, &arguments.identity)?;
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
    let line = match add(&site, &old, &new, &key) {
        Ok(line) => line,
        Err(refusal) => return Err(refusal.and(&made.undo())),
    };
    if kit.is_none() && arguments.output.is_none() {
        keygen::print(&key).map_err(|refusal| {
            refusal
                .and(&format!("nobody has the key; `pskgate keys remove {new}` takes it out again"))
        })?;
    }
    let shown = |name: &str| escape(name.as_bytes()).to_string();
    complain(&format!(
        "added {} beside {} to {}, line {line}\nfingerprint, the same at both ends: {}",
        shown(&new),
        shown(&old.name),
        old.file.display(),
        key.fingerprint
    ));
    if let Some(kit) = &kit {
        kit.tell();
    }
    complain(&next(&site, arguments, &old, &new));
    Ok(exit::OK)
}

/// The key that is to be succeeded.
struct Old<'a> {
    /// Its name on the wire.
    name: String,
    /// The file that holds it, and will hold the new one.
    file: PathBuf,
    /// Who reads that file and lets its holders in.
    servers: Vec<&'a Holder>,
}

impl<'a> Old<'a> {
    /// By its name on the wire, or by that of its owner: the last one that has a key.
    fn find(site: &'a Site, identity: &str) -> Result<Self, Refusal> {
        let names = std::iter::once(identity).chain(
            site.wires
                .iter()
                .rev()
                .filter(|wire| wire.identity == identity)
                .map(|w| w.name.as_str()),
        );
        let mut presented = None;
        for name in names {
            let holds = |holder: &&Holder| {
                holder.entries.iter().any(|entry| entry.identity().as_bytes() == name.as_bytes())
            };
            let (clients, servers): (Vec<_>, Vec<_>) =
                site.holders.iter().filter(holds).partition(|holder| holder.is_client);
            presented = presented.or(clients.first().and_then(|holder| holder.service.clone()));
            let entries = servers.iter().flat_map(|holder| &holder.entries);
            let file = entries
                .filter(|entry| entry.identity().as_bytes() == name.as_bytes())
                .map(|entry| entry.file().to_owned())
                .next();
            if let Some(file) = file {
                return Ok(Self { name: name.to_owned(), file, servers });
            }
        }
        let shown = escape(identity.as_bytes());
        let words = match presented {
            Some(service) => format!(
                "[{service}] only presents {shown}: rotate it at the server's end, which must know the \
                 new key first"
            ),
            None => format!(
                "no key file has an identity {shown}; `pskgate keys list` shows those that there are"
            ),
        };
        Err(Refusal::new(exit::USAGE, words))
    }
}

/// The name that was asked for, or the next one that is free.
fn new_name(site: &Site, old: &Old<'_>, asked: Option<&str>) -> Result<String, Refusal> {
    let entries = || old.servers.iter().flat_map(|holder| &holder.entries);
    let is_taken = |name: &str| {
        entries().any(|entry| entry.identity().as_bytes() == name.as_bytes())
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
/// line that it got.
fn add(site: &Site, old: &Old<'_>, new: &str, key: &KeyLine) -> Result<u32, Refusal> {
    let declared = match &site.native {
        Some(config) => declare(config, site, old, new)?,
        None => None,
    };
    let error = match edit::append(&old.file, key.text.as_bytes()) {
        Ok(added) => {
            keygen::tell_tightened(&old.file, added.loose);
            return Ok(added.line);
        }
        Err(error) => error,
    };
    // Somebody else's key of this name belongs where the declaration has it.
    let is_foreign = matches!(error, EditError::Taken(..));
    let refusal = Refusal::from(error);
    let Some(declared) = declared.filter(|_| !is_foreign) else { return Err(refusal) };
    Err(match declared.undo(new) {
        Ok(()) => refusal,
        Err(_) => refusal.and(&format!(
            "{} is left over among the `wire` names in {}",
            escape(new.as_bytes()),
            declared.config.display()
        )),
    })
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
            declared.after = wires::declare(&declared.after, service, owner, &old.name, new)?;
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
            false => wires::retract(text, new),
        })
        .map(drop)
    }
}

/// What is left to do.
fn next(site: &Site, arguments: &Rotate, old: &Old<'_>, new: &str) -> String {
    let place = match (&arguments.place.key_file, &arguments.place.config) {
        (Some(file), _) => format!(" --file {}", file.display()),
        (None, Some(file)) => format!(" {}", file.display()),
        (None, None) => String::new(),
    };
    let separate = if site.native.is_some() {
        ""
    } else {
        "the two are separate identities here: only a native configuration can say that they are one\n"
    };
    format!(
        "{separate}next: give the key to the client, which presents it as {new}\n      \
         watch `pskgate keys list{place}` until {old} is not used any more\n      \
         then `pskgate keys remove {old}{place}`",
        new = escape(new.as_bytes()),
        old = Identity::new(old.name.as_bytes()).plain()
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
