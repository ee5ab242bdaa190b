//! The units of systemd that run this program, read from their files: no service manager has to run, and a
//! configuration can be judged before its unit is enabled.
//!
//! Only what decides over files, ports and users is read. systemd.unit(5) and systemd.exec(5) describe it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where systemd looks for units, the first of one name counts (systemd.unit(5)). `SYSTEMD_UNIT_PATH` replaces it.
const UNIT_FOLDERS: &str = "/etc/systemd/system:/run/systemd/system:/usr/local/lib/systemd/system:\
                            /usr/lib/systemd/system:/lib/systemd/system";

/// A unit that is larger runs something else.
const MAX_UNIT_SIZE: u64 = 64 * 1024;

/// What a unit gives to the program that it starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// Its name, such as `pskgate@plc.service`.
    pub name: String,
    /// `User=`; unset is root.
    pub user: Option<String>,
    /// `Group=`; unset is the user's own.
    pub group: Option<String>,
    /// `SupplementaryGroups=`.
    pub more_groups: Vec<String>,
    /// `DynamicUser=`: the user exists only while the unit runs.
    pub has_dynamic_user: bool,
    /// The hard limit of `LimitNOFILE=`.
    pub descriptors: Option<usize>,
    /// `ProtectSystem=strict`: nothing is writable but `writable`.
    pub is_read_only: bool,
    /// Folders that systemd makes for the user of the unit.
    pub own_folders: Vec<PathBuf>,
    /// The folder of `LogsDirectory=`.
    pub log_folder: Option<PathBuf>,
    /// `ReadWritePaths=`, and the temporary folders of `PrivateTmp=`.
    pub writable: Vec<PathBuf>,
    /// Whether `AmbientCapabilities=` has `CAP_NET_BIND_SERVICE`.
    pub may_bind_low_ports: bool,
}

/// The unit that runs this configuration file with pskgate or under the name of stunnel. A unit that names the file
/// goes before a template whose instance does.
pub fn find_unit(file: &Path) -> Option<Unit> {
    let folders = std::env::var("SYSTEMD_UNIT_PATH").ok();
    let folders: Vec<PathBuf> =
        folders.as_deref().unwrap_or(UNIT_FOLDERS).split(':').map(PathBuf::from).collect();
    let file = absolute(file);
    let all = list_units(&folders);
    let runs = |(name, path): (&String, &PathBuf)| {
        let text = read_unit(path)?;
        let instance = find_instance(name, &text, &file)?;
        let name = match (&instance, name.split_once("@.")) {
            (Some(instance), Some((stem, kind))) => format!("{stem}@{instance}.{kind}"),
            _ => name.clone(),
        };
        let texts = [text].into_iter().chain(read_drop_ins(&folders, &name));
        Some((instance.is_some(), parse(&name, instance.as_deref(), texts)))
    };
    // false sorts before true.
    all.iter().filter_map(runs).min_by_key(|(is_template, _)| *is_template).map(|(_, unit)| unit)
}

/// As it stands in a unit: with the folder's own name, but the name of a link that the file may be.
fn absolute(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    match (file.parent().and_then(|folder| folder.canonicalize().ok()), file.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => file,
    }
}

/// Every service unit by its name; the first folder that has one counts.
fn list_units(folders: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            if let Ok(name) = entry.file_name().into_string()
                && name.ends_with(".service")
            {
                found.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    found
}

fn read_unit(path: &Path) -> Option<String> {
    let meta = path.metadata().ok()?;
    // A unit that is masked is a link to /dev/null.
    (meta.is_file() && meta.len() <= MAX_UNIT_SIZE).then(|| std::fs::read_to_string(path).ok())?
}

/// What is added to a unit: by files of its own folder `NAME.d`, and for an instance by those of its template. Files
/// are in the order of their names; of one name the first folder's counts.
fn read_drop_ins(folders: &[PathBuf], name: &str) -> Vec<String> {
    let template = name.split_once('@').and_then(|(stem, rest)| {
        let (_, kind) = rest.rsplit_once('.')?;
        Some(format!("{stem}@.{kind}"))
    });
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for unit in [Some(name.to_owned()), template].into_iter().flatten() {
        for folder in folders {
            let Ok(entries) = std::fs::read_dir(folder.join(format!("{unit}.d"))) else { continue };
            for entry in entries.flatten() {
                if let Ok(name) = entry.file_name().into_string()
                    && name.ends_with(".conf")
                {
                    files.entry(name).or_insert_with(|| entry.path());
                }
            }
        }
    }
    files.values().filter_map(|path| read_unit(path)).collect()
}

/// The settings of the section `[Service]`, with lines joined that a backslash continues.
fn settings(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut is_service, mut line) = (false, String::new());
    for part in text.lines() {
        let part = part.trim();
        if part.starts_with(['#', ';']) {
            continue;
        }
        match part.strip_suffix('\\') {
            Some(part) => {
                line.push_str(part);
                line.push(' ');
                continue;
            }
            None => line.push_str(part),
        }
        let whole = std::mem::take(&mut line);
        if whole.starts_with('[') {
            is_service = whole == "[Service]";
        } else if is_service && let Some((key, value)) = whole.split_once('=') {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

/// Whether a unit starts pskgate with this file: with which instance, if it is a template.
fn find_instance(name: &str, text: &str, file: &Path) -> Option<Option<String>> {
    let file = file.to_str()?;
    let commands = settings(text).into_iter().filter(|(key, _)| key == "ExecStart");
    commands.into_iter().find_map(|(_, command)| {
        let mut words = command.split_whitespace();
        // The prefixes of systemd.service(5).
        let program = words.next()?.trim_start_matches(['@', '-', ':', '+', '!']);
        let program = Path::new(program).file_name()?.to_str()?;
        if !matches!(program, "pskgate" | "stunnel" | "stunnel4") {
            return None;
        }
        words.find_map(|word| {
            let specifier =
                ["%i", "%I"].into_iter().find_map(|specifier| word.split_once(specifier));
            let Some((before, after)) = specifier.filter(|_| name.contains("@.")) else {
                return (word == file).then_some(None);
            };
            let instance = file.strip_prefix(before)?.strip_suffix(after)?;
            let is_plain = !instance.is_empty() && !instance.contains('/');
            is_plain.then(|| Some(instance.to_owned()))
        })
    })
}

fn parse(name: &str, instance: Option<&str>, texts: impl Iterator<Item = String>) -> Unit {
    let mut unit = Unit { name: name.to_owned(), ..Unit::default() };
    for (key, value) in texts.flat_map(|text| settings(&text)) {
        let value = value.replace("%i", instance.unwrap_or_default());
        let value = value.replace("%I", instance.unwrap_or_default());
        let words = || value.split_whitespace().map(|word| word.trim_start_matches(['+', '-']));
        let is_yes = matches!(value.as_str(), "yes" | "true" | "on" | "1");
        let text = || Some(value.clone()).filter(|value| !value.is_empty());
        let folders = |base: &str| {
            // FOLDER:LINK since systemd 255.
            let below = words().map(|word| word.split(':').next().unwrap_or(word));
            below.map(|word| Path::new(base).join(word)).collect::<Vec<_>>()
        };
        match key.as_str() {
            "User" => unit.user = text().filter(|user| user != "root" && user != "0"),
            "Group" => unit.group = text(),
            "SupplementaryGroups" => match value.is_empty() {
                true => unit.more_groups.clear(),
                false => unit.more_groups.extend(words().map(str::to_owned)),
            },
            "DynamicUser" => unit.has_dynamic_user = is_yes,
            "LimitNOFILE" => {
                let hard = value.rsplit(':').next().unwrap_or_default();
                unit.descriptors = match hard {
                    "infinity" => Some(usize::MAX),
                    number => number.parse().ok(),
                };
            }
            "ProtectSystem" => unit.is_read_only = value == "strict",
            "LogsDirectory" => {
                let made = folders("/var/log");
                unit.log_folder = made.first().cloned();
                unit.own_folders.extend(made);
            }
            "RuntimeDirectory" => unit.own_folders.extend(folders("/run")),
            "StateDirectory" => unit.own_folders.extend(folders("/var/lib")),
            "CacheDirectory" => unit.own_folders.extend(folders("/var/cache")),
            "ReadWritePaths" => unit.writable.extend(words().map(PathBuf::from)),
            "PrivateTmp" if is_yes => unit.writable.extend(["/tmp".into(), "/var/tmp".into()]),
            "AmbientCapabilities" => {
                let excludes = value.starts_with('~');
                unit.may_bind_low_ports = value.contains("CAP_NET_BIND_SERVICE") && !excludes;
            }
            _ => {}
        }
    }
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "[Unit]\nUser=nobody\n[Service]\n# User=else\nExecStart=/usr/bin/pskgate run \\\n  /etc/pskgate/%i.toml\n\
                            User=pskgate\nLimitNOFILE=1024:65536\nProtectSystem=strict\nLogsDirectory=pskgate\n\
                            RuntimeDirectory=pskgate-%i\nAmbientCapabilities=\n";

    #[test]
    fn a_template_runs_the_file_of_each_instance_and_no_other() {
        let instance = |file: &str| find_instance("pskgate@.service", TEMPLATE, Path::new(file));
        assert_eq!(instance("/etc/pskgate/plc.toml"), Some(Some("plc".into())));
        for other in
            ["/etc/pskgate/.toml", "/etc/pskgate/a/b.toml", "/etc/pskgate/plc.conf", "/plc.toml"]
        {
            assert_eq!(instance(other), None, "{other}");
        }
        let editor = TEMPLATE.replace("/usr/bin/pskgate", "/usr/bin/vi");
        assert_eq!(
            find_instance("pskgate@.service", &editor, Path::new("/etc/pskgate/plc.toml")),
            None
        );
    }

    #[test]
    fn settings_of_the_unit_and_of_what_is_added_to_it_count_in_their_order() {
        let more = "[Service]\nAmbientCapabilities=CAP_NET_BIND_SERVICE\nLimitNOFILE=infinity\n";
        let unit =
            parse("pskgate@plc.service", Some("plc"), [TEMPLATE.into(), more.into()].into_iter());
        assert_eq!(unit.user.as_deref(), Some("pskgate"));
        assert_eq!(unit.descriptors, Some(usize::MAX));
        assert!(unit.is_read_only && unit.may_bind_low_ports);
        assert_eq!(unit.log_folder.as_deref(), Some(Path::new("/var/log/pskgate")));
        assert!(unit.own_folders.contains(&"/run/pskgate-plc".into()));
        let unit = parse("pskgate@plc.service", Some("plc"), [TEMPLATE.to_owned()].into_iter());
        assert_eq!(unit.descriptors, Some(65536));
        assert!(!unit.may_bind_low_ports);
    }
}
