//! A key as the Beremiz IDE keeps it: `psk/ID.secret` without a line feed, and a row of `psk/management.json`
//! in which no other byte changes.

use std::path::{Path, PathBuf};

use super::private_file::Made;
use super::refusal::Refusal;
use super::{complain, exit};
use crate::secrets::beremiz::{ENDING, KEY_FOLDER, MANAGEMENT};
use crate::sys::file::read_regular;
use crate::sys::replace::Edit;

/// A key that was written into a project.
#[derive(Debug)]
pub(super) struct ProjectKey {
    made: Made,
    file: PathBuf,
}

impl ProjectKey {
    /// Writes the line of an identity, with or without its LF, and the row.
    ///
    /// # Errors
    /// No project, a key of that name, and what the system says. Nothing was written then.
    pub(super) fn write(project: &Path, identity: &str, line: &str) -> Result<Self, Refusal> {
        if !project.is_dir() {
            let words = format!("{} is not the folder of a Beremiz project", project.display());
            return Err(Refusal::new(exit::NO_INPUT, words));
        }
        if identity.contains(['/', '\\']) || identity.starts_with('.') {
            let words =
                "the IDE names a file after the identity: it has no slash, and no dot in front";
            return Err(Refusal::new(exit::USAGE, words));
        }
        let folder = project.join(KEY_FOLDER);
        let file = folder.join(format!("{identity}.{ENDING}"));
        let mut made = Made::default();
        made.folder(&folder).map_err(|error| Refusal::unwritten(&folder, &error))?;
        if let Err(error) = made.file(&file, line.trim_end_matches('\n')) {
            let refusal = Refusal::unwritten(&file, &error);
            return Err(refusal.and(&made.undo()));
        }
        match add_row(&folder.join(MANAGEMENT), identity) {
            Ok(()) => Ok(Self { made, file }),
            Err(refusal) => Err(refusal.and(&made.undo())),
        }
    }

    /// Says where it is.
    pub(super) fn tell(&self) {
        complain(&format!("wrote {}, where the IDE looks for the key", self.file.display()));
    }

    /// Takes the key away again; its row does no harm without it.
    pub(super) fn undo(self) -> String {
        self.made.undo()
    }
}

fn add_row(file: &Path, identity: &str) -> Result<(), Refusal> {
    let unwritten = |error| Refusal::unwritten(file, &error);
    let edit = Edit::begin(file).map_err(unwritten)?;
    let text = match edit.exists().map_err(unwritten)? {
        true => String::from_utf8(read_regular(edit.path()).map_err(unwritten)?).ok(),
        false => Some("[]".into()),
    };
    match text.as_deref().map(|text| with_row(text, identity)) {
        Some(Ok(Some(new))) => {
            edit.replace(&[new.as_bytes()], 0o777).map_err(unwritten)?;
            Ok(())
        }
        Some(Ok(None)) => Ok(()),
        Some(Err(())) | None => {
            let words = format!("{} is not the list that the IDE writes", file.display());
            Err(Refusal::new(exit::CONFIG, words))
        }
    }
}

/// The text of the list with one row more: `[ID, URI, description, last connection]`. None if the identity
/// has a row.
fn with_row(text: &str, identity: &str) -> Result<Option<String>, ()> {
    let rows: Vec<Vec<serde_json::Value>> = serde_json::from_str(text).map_err(drop)?;
    if rows.iter().any(|row| row.first().and_then(|id| id.as_str()) == Some(identity)) {
        return Ok(None);
    }
    let row = serde_json::json!([identity, "", "", null]);
    let end = text.rfind(']').ok_or(())?;
    let (before, after) = text.split_at(end);
    let joint = if rows.is_empty() { "" } else { ", " };
    let blanks = before.len() - before.trim_end().len();
    let (before, blank) = before.split_at(before.len() - blanks);
    Ok(Some(format!("{before}{joint}{row}{blank}{after}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_row_is_added_and_every_other_byte_stays() {
        let row = r#"["PLC2","","",null]"#;
        for (text, wanted) in [
            ("[]", format!("[{row}]")),
            ("[ ]\n", format!("[{row} ]\n")),
            (
                r#"[["PLC1", "ERPCS://a", "x]", 1.5]]"#,
                format!(r#"[["PLC1", "ERPCS://a", "x]", 1.5], {row}]"#),
            ),
            (
                "[\n  [\"a\", \"\", \"\", null]\n]",
                format!("[\n  [\"a\", \"\", \"\", null], {row}\n]"),
            ),
        ] {
            assert_eq!(with_row(text, "PLC2"), Ok(Some(wanted)));
        }
        assert_eq!(with_row(r#"[["PLC2", "x", "y", null]]"#, "PLC2"), Ok(None));
        for broken in ["", "{}", "[1]", "[[\"a\"]"] {
            assert_eq!(with_row(broken, "PLC2"), Err(()));
        }
    }
}
