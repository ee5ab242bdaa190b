//! A key as the Beremiz IDE keeps it: `psk/ID.secret` without a line feed, and a row of `psk/management.json`
//! in which no other byte changes.

use std::path::{Path, PathBuf};

use super::private_file::CreatedFiles;
use super::refusal::Refusal;
use super::{exit, print_error};
use crate::secrets::beremiz::{KEY_FILE_ENDING, KEY_FOLDER, MANAGEMENT_FILE};
use crate::sys::file::read_regular;
use crate::sys::file_edit::FileEdit;

/// A key that was written into a project.
#[derive(Debug)]
pub(super) struct ProjectKey {
    made: CreatedFiles,
    file: PathBuf,
    management: PathBuf,
    identity: String,
}

impl ProjectKey {
    /// Writes the line of an identity, with or without its LF. The row comes with [`ProjectKey::finish`].
    ///
    /// # Errors
    /// No project, a list that is not the IDE's, a key of that name, and what the system says. Nothing was
    /// written then.
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
        let file = folder.join(format!("{identity}.{KEY_FILE_ENDING}"));
        let management = folder.join(MANAGEMENT_FILE);
        if management.exists() {
            let text = read_regular(&management);
            let text = text.map_err(|error| Refusal::cannot_write(&management, &error))?;
            add_row_to_bytes(&text, identity, &management)?;
        }
        let mut made = CreatedFiles::default();
        made.create_folder(&folder).map_err(|error| Refusal::cannot_write(&folder, &error))?;
        if let Err(error) = made.create_file(&file, line.trim_end_matches('\n')) {
            let refusal = Refusal::cannot_write(&file, &error);
            return Err(refusal.with_note(&made.undo()));
        }
        Ok(Self { made, file, management, identity: identity.to_owned() })
    }

    /// Adds the row, last of all: what can go wrong with the key has gone right. Says where the key is.
    ///
    /// # Errors
    /// What the system says. The key stays.
    pub(super) fn finish(&self) -> Result<(), Refusal> {
        add_row(&self.management, &self.identity).map_err(|refusal| {
            refusal.with_note("the key was written; the IDE adds the row itself")
        })?;
        print_error(&format!("wrote {}, where the IDE looks for the key", self.file.display()));
        Ok(())
    }

    /// Takes the key away again.
    pub(super) fn undo(self) -> String {
        self.made.undo()
    }
}

fn add_row(file: &Path, identity: &str) -> Result<(), Refusal> {
    let unwritten = |error| Refusal::cannot_write(file, &error);
    let edit = FileEdit::begin(file).map_err(unwritten)?;
    let text = match edit.exists().map_err(unwritten)? {
        true => read_regular(edit.path()).map_err(unwritten)?,
        false => b"[]".to_vec(),
    };
    if let Some(new) = add_row_to_bytes(&text, identity, file)? {
        edit.replace(&[new.as_bytes()], 0o777).map_err(unwritten)?;
    }
    Ok(())
}

/// [`add_row_to_text`] for a file's bytes.
fn add_row_to_bytes(text: &[u8], identity: &str, file: &Path) -> Result<Option<String>, Refusal> {
    let new =
        std::str::from_utf8(text).map_err(drop).and_then(|text| add_row_to_text(text, identity));
    new.map_err(|()| {
        let words = format!("{} is not the list that the IDE writes", file.display());
        Refusal::new(exit::CONFIG, words)
    })
}

/// The text of the list with one row more: `[ID, URI, description, last connection]`. None if the identity
/// has a row.
fn add_row_to_text(text: &str, identity: &str) -> Result<Option<String>, ()> {
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
            assert_eq!(add_row_to_text(text, "PLC2"), Ok(Some(wanted)));
        }
        assert_eq!(add_row_to_text(r#"[["PLC2", "x", "y", null]]"#, "PLC2"), Ok(None));
        for broken in ["", "{}", "[1]", "[[\"a\"]"] {
            assert_eq!(add_row_to_text(broken, "PLC2"), Err(()));
        }
    }
}
