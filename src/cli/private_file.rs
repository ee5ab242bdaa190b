//! New files with keys in them, and how they are taken back.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::sys::file::{create_private, create_private_folder, sync_folder_of};

/// Files that were made, and perhaps their folder.
#[derive(Debug, Default)]
pub(super) struct Made {
    folder: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl Made {
    /// A folder for its owner alone, unless it is there already.
    pub(super) fn folder(&mut self, path: &Path) -> io::Result<()> {
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
    pub(super) fn file(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let mut file = create_private(path)?;
        self.files.push(path.to_owned());
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_folder_of(path)
    }

    /// Takes everything away again, and says how that went.
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
