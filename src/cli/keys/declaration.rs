//! Changes to the configuration that go with a key.

use std::path::Path;

use crate::cli::exit;
use crate::cli::refusal::Refusal;
use crate::config::wire_identity_edit::NotEdited;
use crate::sys::file::read_regular;
use crate::sys::file_edit::FileEdit;

/// Replaces the text of a configuration by what `edit` makes of it, under the lock of its folder and in
/// one moment. Whether there was anything to replace.
pub(super) fn edit_configuration(
    file: &Path,
    edit: impl FnOnce(&str) -> Result<Option<String>, NotEdited>,
) -> Result<bool, Refusal> {
    let unwritten = |error| Refusal::cannot_write(file, &error);
    let open = FileEdit::begin(file).map_err(unwritten)?;
    let bytes = read_regular(open.path()).map_err(unwritten)?;
    let refused = |words: String| {
        Refusal::new(exit::CONFIG, format!("cannot change {}: {words}", file.display()))
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("it is not UTF-8".into()))?;
    match edit(text).map_err(|error| refused(error.to_string()))? {
        Some(new) if new != text => {
            // Unlike a key file's, its mode is the operator's to choose.
            open.replace(&[new.as_bytes()], 0o777).map_err(unwritten)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}
