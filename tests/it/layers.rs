//! The house's own rule, read from the source.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::harness::root;

/// The order of the layers, as the design writes it down.
fn order() -> Vec<String> {
    let design = std::fs::read_to_string(root().join("docs/DESIGN.md")).expect("docs/DESIGN.md");
    let line = design
        .lines()
        .find(|line| line.starts_with("`sys · "))
        .expect("the line with the order of the layers");
    line.trim_matches('`').split(" · ").map(str::to_owned).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file: its path from `src` on, and its text without comments.
fn files() -> Vec<(PathBuf, String)> {
    let src = root().join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a source file can be read");
            let code: Vec<&str> = text
                .lines()
                .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
                .collect();
            (path.strip_prefix(&src).expect("it is under src").to_owned(), code.join("\n"))
        })
        .collect()
}

/// The first names after `crate::`, in paths and in braces.
fn named_after_crate(code: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let first_word =
        |text: &str| -> String { text.trim_start().chars().take_while(|c| is_word(*c)).collect() };
    let mut names = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| is_word(c) || c == '$') {
            continue;
        }
        let after = &code[at + path.len()..];
        let Some(list) = after.strip_prefix('{') else {
            names.push(first_word(after));
            continue;
        };
        let (mut depth, mut start) = (0_u32, 0);
        for (end, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.push(first_word(&list[start..end]));
                    start = end + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    names
}

fn layer_of(path: &Path) -> String {
    let first = path.components().next().expect("a path");
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

#[test]
fn a_folder_imports_only_from_folders_to_its_left() {
    let order = order();
    let place: BTreeMap<&str, usize> =
        order.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    let mut read: BTreeMap<String, usize> = BTreeMap::new();
    let (mut imports, mut wrong) = (0, Vec::new());
    for (path, code) in files() {
        let layer = layer_of(&path);
        let Some(&here) = place.get(layer.as_str()) else {
            continue;
        };
        *read.entry(layer.clone()).or_default() += 1;
        for name in named_after_crate(&code) {
            let Some(&there) = place.get(name.as_str()) else {
                continue;
            };
            imports += 1;
            if there > here || (layer == "tls" && name == "net") {
                wrong.push(format!("src/{}: `{layer}` imports from `{name}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "the order is {}:\n{}", order.join(" · "), wrong.join("\n"));
    assert_eq!(order.len(), 9, "nine layers");
    for layer in &order {
        assert!(read.contains_key(layer), "no file of `{layer}` was read");
    }
    assert!(read.values().sum::<usize>() >= 20, "only these were read: {read:?}");
    assert!(imports >= 30, "only {imports} imports were found");
}

#[test]
fn unsafe_code_stands_in_sys_only() {
    let (mut in_sys, mut wrong) = (0, Vec::new());
    for (path, code) in files() {
        let unsafes = code
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| *word == "unsafe")
            .count();
        if layer_of(&path) == "sys" {
            in_sys += unsafes;
        } else if unsafes > 0 {
            wrong.push(format!("src/{}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "unsafe code outside src/sys: {wrong:?}");
    assert!(in_sys > 0, "no unsafe code was found even in src/sys: is this test still reading it?");
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let code = "use crate::tls;\nuse crate::net::{a, b};\nuse crate::{sys, config::{model, draft}, \
                secrets as s};\nlet x = crate::daemon::go();\npub(crate) fn f() {} mycrate::cli::x();";
    assert_eq!(named_after_crate(code), ["tls", "net", "sys", "config", "secrets", "daemon"]);
}

#[test]
fn the_inventory_of_unsafe_code_names_exactly_the_files_that_have_some() {
    let security = std::fs::read_to_string(root().join("SECURITY.md")).expect("SECURITY.md");
    let table = security.split_once("| file | blocks | why |").expect("the inventory's table").1;
    let listed: Vec<&str> = table
        .lines()
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with('|'))
        .filter_map(|line| line.strip_prefix("| `src/")?.split_once('`'))
        .map(|(path, _)| path)
        .collect();
    let has_some = |code: &str| {
        code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    };
    let mut found: Vec<String> = files()
        .into_iter()
        .filter(|(_, code)| has_some(code))
        .map(|(path, _)| path.display().to_string())
        .collect();
    found.sort();
    let mut listed = listed;
    listed.sort_unstable();
    assert_eq!(
        listed, found,
        "SECURITY.md lists the files on the left, src has those on the right"
    );
    assert!(found.len() > 5, "is this test still reading the sources? {found:?}");
}

/// Read from the source, because no test runs this on Windows: without both flags whoever has made a pipe of
/// that name could act as the user who asks.
#[test]
fn the_control_pipe_of_windows_is_opened_for_identification_only() {
    let (_, code) = files()
        .into_iter()
        .find(|(path, _)| path.ends_with("daemon/control/client.rs"))
        .expect("the file that opens the pipe");
    let opened = code.split_once("File::options()").expect("where the pipe is opened").1;
    let before_it_is_open = opened.split_once(".open(path)").expect("it is opened").0;
    let flags = ".security_qos_flags(SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION)";
    assert!(before_it_is_open.contains(flags), "{before_it_is_open}");
}
