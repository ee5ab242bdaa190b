//! `psk-secrets = "credential:NAME"`: a file that systemd hands to its service (LoadCredential=).

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, SourceLocation};

/// What a name of a credential begins with. A file of such a name is written `./credential:NAME`.
pub(super) const PREFIX: &str = "credential:";

/// Where systemd says the credentials of its service are.
const FOLDER: &str = "CREDENTIALS_DIRECTORY";

/// The name of a credential, if a path means one.
pub(super) fn name(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(PREFIX)
}

/// Whether a name can be that of a credential: systemd takes those of files.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.contains('/') && !matches!(name, "." | "..")
}

/// The folder of this process's credentials.
pub(super) fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from).filter(|folder| folder.is_absolute())
}

/// There is no such folder.
pub(super) fn missing(name: &str, place: SourceLocation) -> Diagnostic {
    let message =
        format!("the credential {name} needs ${FOLDER}, which systemd sets for its services");
    let help = format!(
        "add `LoadCredential={name}:/etc/pskgate/{name}` to the unit's [Service], or name a file here"
    );
    Diagnostic::error("no-credentials", message).at(place).help(help)
}

/// What `check` says of a key file that is a credential.
pub(super) fn is_not_refreshed(place: Option<SourceLocation>) -> Diagnostic {
    let message = "systemd before 2026 does not refresh a credential while its service runs";
    Diagnostic::notice("credential-stays", message)
        .at(place)
        .help("restart the service after a key was removed or changed: a reload reads the old one")
}
