//! The file that a Beremiz runtime writes: nothing is added to it.

use std::path::Path;

use super::inventory::{key_holders, resolve_links};
use super::second_key::nearby;
use crate::cli::exit;
use crate::cli::refusal::Refusal;
use crate::config::{self, Format};
use crate::secrets::edit;

/// Refuses to add a line to a file that a configuration declares as a runtime's own, or that looks like one.
/// The configurations are `config`, or those that can be found.
///
/// # Errors
/// It is one.
pub(in crate::cli) fn refuse_runtime_file(
    file: &Path,
    config: Option<&Path>,
) -> Result<(), Refusal> {
    let same = resolve_links(file);
    let found = config.map_or_else(|| nearby(file), |config| vec![config.to_owned()]);
    for path in found {
        let (Some(read), _) = config::survey(&path, Format::Auto) else { continue };
        let is_it = |own: &Path| resolve_links(own) == same;
        if key_holders(&read).iter().any(|holder| holder.runtime_file.as_deref().is_some_and(is_it))
        {
            let why = format!("`runtime-file` in {} says so", path.display());
            return Err(refusal(file, &why));
        }
    }
    if edit::looks_like_runtime_file(file) {
        return Err(refusal(file, "it is one line without a line feed"));
    }
    Ok(())
}

fn refusal(file: &Path, why: &str) -> Refusal {
    let words = format!(
        "nothing was changed: {} is a Beremiz runtime's own file ({why}), and the runtime takes all of it for its \
         key and hands it to each IDE",
        file.display()
    );
    Refusal::new(exit::CANNOT_CREATE, words).with_note(
        "add the key to another file of `psk-secrets`, or say --force if no runtime reads this one",
    )
}
