//! What operators write, and what they are told: each file of `tests/cases/config` is a case.
//!
//! `UPDATE_EXPECTED=1` writes what is said now; read the difference before it is committed.

use std::path::{Path, PathBuf};

use pskgate::config::{Format, load_text};

fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/config").join(kind);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml" || e == "conf"))
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> &Path {
    Path::new(path.file_name().unwrap())
}

#[test]
fn every_valid_file_is_accepted() {
    let files = cases("valid");
    assert!(files.len() >= 8, "only {} cases found", files.len());
    for path in files {
        let text = std::fs::read(&path).unwrap();
        if let Err(report) = load_text(&text, name(&path), Path::new("/base"), Format::Auto) {
            panic!("{}:\n{}", path.display(), report.render(false));
        }
    }
}

#[test]
fn every_invalid_file_is_refused_with_the_words_that_are_expected() {
    let files = cases("invalid");
    assert!(files.len() >= 16, "only {} cases found", files.len());
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for path in files {
        let text = std::fs::read(&path).unwrap();
        let report = match load_text(&text, name(&path), Path::new("/base"), Format::Auto) {
            Ok(_) => panic!("{} is accepted", path.display()),
            Err(report) => report,
        };
        assert!(report.has_errors(), "{} is refused without an error", path.display());
        let mut said = report.render(false);
        if path.extension().is_some_and(|e| e == "conf") {
            said.push_str("\n--- as stunnel says it\n");
            said.push_str(&report.render_stunnel());
        }
        assert!(!said.contains("c2VjcmV0"), "{}: a key is shown:\n{said}", path.display());
        let unprintable = said.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(unprintable, None, "{}", path.display());

        let mut expected = path.clone().into_os_string();
        expected.push(".expected");
        if update {
            std::fs::write(&expected, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{}:\n{said}\n--- expected\n{expected}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n====\n"));
}
