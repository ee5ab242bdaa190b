//! Creates files with keys in them, and removes them again if a later step fails.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::sys::file::{create_private, create_private_folder, sync_folder_of};

/// The files that were created, and their folder if it was created too.
#[derive(Debug, Default)]
pub(super) struct CreatedFiles {
    folder: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl CreatedFiles {
    /// Creates a folder that only its owner can enter, unless it exists already.
    pub(super) fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        match create_private_folder(path) {
            Ok(()) => {
                self.folder = Some(path.to_owned());
                sync_folder_of(path)?;
            }
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A file for its owner alone, with its name safe on the disk. An existing one is never touched.
    pub(super) fn create_file(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let mut file = create_private(path)?;
        self.files.push(path.to_owned());
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_folder_of(path)
    }

    /// Removes what was created; the result is for the error message.
    pub(super) fn undo(self) -> String {
        let mut left = Vec::new();
        for file in self.files {
            if fs::remove_file(&file).is_err() {
                left.push(file);
            }
        }
        if let Some(folder) = self.folder
            && fs::remove_dir(&folder).is_err()
        {
            left.push(folder);
        }
        match left.first() {
            None => "nothing was changed".into(),
            Some(path) => format!("{} is left over and could not be removed", path.display()),
        }
    }
}
