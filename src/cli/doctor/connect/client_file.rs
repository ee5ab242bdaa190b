//! What `--connect` names: the address of a peer, or a client's own file, which has the address in it.

use std::path::{Path, PathBuf};

use super::Arguments;
use crate::config::endpoint::{AddressRole, parse_native};
use crate::config::model::{Mode, ServiceConfig};
use crate::config::{self, Format};
use crate::secrets::beremiz::{KEY_FILE_ENDING, MANAGEMENT_FILE};

/// Whom to ask, and as whom.
pub(super) struct ConnectTarget {
    pub(super) peer: String,
    pub(super) secrets: PathBuf,
    pub(super) identity: Option<String>,
    pub(super) server_name: Option<String>,
    /// The service of the client's file, for the first handshake.
    pub(super) service: Option<ServiceConfig>,
}

impl ConnectTarget {
    /// Reads what was named.
    ///
    /// # Errors
    /// In words, what is missing, and how it is said.
    pub(super) fn from_argument(
        named: &str,
        arguments: &Arguments,
    ) -> Result<Self, (String, String)> {
        let path = Path::new(named);
        let Arguments { identity, secrets, server_name, .. } = arguments;
        let (identity, server_name) = (identity.clone(), server_name.clone());
        if !path.is_file() {
            let Some(secrets) = secrets.clone() else {
                let help =
                    "add --secrets FILE, or name the client's own file: --connect client1.toml";
                return Err((format!("{named} needs a key file"), help.into()));
            };
            let peer = named.to_owned();
            return Ok(Self { peer, secrets, identity, server_name, service: None });
        }
        if path.extension().is_some_and(|ending| ending == KEY_FILE_ENDING) {
            let secrets = path.to_owned();
            return match find_project_address(path) {
                Some(peer) => Ok(Self { peer, secrets, identity, server_name, service: None }),
                None => {
                    let text = format!("the project does not know the address of {named}");
                    Err((text, format!("say it: --connect HOST:PORT --secrets {named}")))
                }
            };
        }
        from_configuration(path, arguments)
    }
}

/// The first client of a configuration.
fn from_configuration(
    path: &Path,
    arguments: &Arguments,
) -> Result<ConnectTarget, (String, String)> {
    let (config, report) = config::survey(path, Format::Auto);
    let services = config.map(|config| config.services).unwrap_or_default();
    let client = services
        .into_iter()
        .find(|service| service.mode.value == Mode::Client && !service.connect().is_empty());
    let Some(service) = client.filter(|_| !report.has_errors()) else {
        let text = format!("{} has no client that connects anywhere", path.display());
        return Err((
            text,
            format!("`pskgate check {}` says what is wrong with it", path.display()),
        ));
    };
    let peer = service.connect().first().map(|target| target.value.to_string()).unwrap_or_default();
    let psk = &service.psk;
    let first = psk.secrets.first().map(|file| file.value.clone()).unwrap_or_default();
    let said = psk.identity.as_ref().map(|identity| String::from_utf8_lossy(identity).into_owned());
    let name = service.tls.server_name.as_ref().map(|name| name.value.clone());
    Ok(ConnectTarget {
        peer,
        secrets: arguments.secrets.clone().unwrap_or(first),
        identity: arguments.identity.clone().or(said),
        server_name: arguments.server_name.clone().or(name),
        // With other options on the command line it is not the file's service that is meant.
        service: Some(service).filter(|_| !arguments.overrides()),
    })
}

/// The address in the row that the IDE keeps of a key: `[ID, URI, description, last connection]`.
fn find_project_address(secret: &Path) -> Option<String> {
    let id = secret.file_stem()?.to_str()?;
    let text = std::fs::read_to_string(secret.with_file_name(MANAGEMENT_FILE)).ok()?;
    let rows: Vec<Vec<serde_json::Value>> = serde_json::from_str(&text).ok()?;
    let row = rows.iter().find(|row| row.first().and_then(|cell| cell.as_str()) == Some(id))?;
    let uri = row.get(1)?.as_str()?;
    let (_, rest) = uri.split_once("://")?;
    let address = rest.split(['/', '#']).next()?;
    parse_native(address, AddressRole::Connect).ok().map(|_| address.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_address_of_a_key_is_in_the_list_of_the_ide() {
        let folder = tempfile::TempDir::new().unwrap();
        let secret = folder.path().join("PLC1.secret");
        let list = folder.path().join(MANAGEMENT_FILE);
        for (uri, address) in [
            ("ERPCS://plc.example:4000#PLC1", Some("plc.example:4000")),
            ("ERPC://127.0.0.1:3002", Some("127.0.0.1:3002")),
            ("LOCAL://", None),
            ("", None),
        ] {
            std::fs::write(&list, format!(r#"[["PLC1", "{uri}", "", null]]"#)).unwrap();
            assert_eq!(find_project_address(&secret).as_deref(), address, "{uri}");
        }
        std::fs::write(&list, "[").unwrap();
        assert_eq!(find_project_address(&secret), None);
    }
}
