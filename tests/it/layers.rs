//! The house's own rule, read from the source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::harness::root;

mod circles;
mod design;

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
    let code = "use crate::tls;\nuse crate::net::{a, b};\nuse crate::{sys, config::{model, parsed}, \
                secrets as s};\nlet x = crate::daemon::go();\npub(crate) fn f() {} mycrate::cli::x();";
    assert_eq!(named_after_crate(code), ["tls", "net", "sys", "config", "secrets", "daemon"]);
}

#[test]
fn the_inventory_of_unsafe_code_names_exactly_the_files_that_have_some() {
    let security = std::fs::read_to_string(root().join("SECURITY.md")).expect("SECURITY.md");
    let table = security
        .split_once("| file | blocks | foreign functions | why |")
        .expect("the inventory's table")
        .1;
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

/// Foreign functions that a file calls: of `libc` and of `openssl-sys` by their paths, others by their names as C
/// or Windows writes them.
fn foreign_calls(code: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices('(') {
        let path = code[..at].trim_end_matches(|c| is_word(c) || c == ':');
        let path = &code[path.len()..at];
        let name = path.rsplit("::").next().unwrap_or_default();
        let before = code[..at - path.len()].trim_end();
        let is_declared = before.ends_with("fn") || before.ends_with('.');
        let is_of_libc =
            ["libc::", "ffi::"].iter().any(|start| path.strip_prefix(start) == Some(name));
        // `SSL_CTX_set_..`, and `RegisterEventSourceW` as `windows-sys` has it.
        let is_of_openssl =
            ["SSL_", "EVP_", "OPENSSL_"].iter().any(|start| name.starts_with(start));
        let is_of_windows = path == name
            && name.starts_with(char::is_uppercase)
            && code.contains("windows_sys::")
            && imported_from_windows(code).contains(name);
        let is_function = name.contains(char::is_lowercase) || is_of_openssl;
        if !is_declared && is_function && (is_of_libc || is_of_openssl || is_of_windows) {
            found.insert(name.to_owned());
        }
    }
    found
}

/// The names in the `use windows_sys::...;` lines of a file.
fn imported_from_windows(code: &str) -> BTreeSet<&str> {
    let uses = code.split("use windows_sys::").skip(1);
    let uses = uses.filter_map(|rest| rest.split(';').next());
    let names =
        uses.flat_map(|list| list.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c)));
    names.filter_map(|path| path.rsplit("::").next()).collect()
}

#[test]
fn the_inventory_of_unsafe_code_names_every_foreign_function_that_is_called() {
    let security = std::fs::read_to_string(root().join("SECURITY.md")).expect("SECURITY.md");
    let (mut calls, mut wrong) = (0, Vec::new());
    for (path, code) in files().into_iter().filter(|(path, _)| layer_of(path) == "sys") {
        let head = format!("| `src/{}` |", path.display());
        let row = security.lines().find(|line| line.starts_with(&head)).unwrap_or_default();
        let cell = row.split('|').nth(3).unwrap_or_default();
        let named: BTreeSet<String> =
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        // What a file's tests call is no part of the program.
        let code = code.split("\nmod tests {").next().unwrap_or_default();
        let called = foreign_calls(code);
        calls += called.len();
        if named != called {
            let list: Vec<_> = called.iter().map(|name| format!("`{name}`")).collect();
            wrong.push(format!("src/{} calls {}", path.display(), list.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "SECURITY.md's table says otherwise:\n{}", wrong.join("\n"));
    assert!(calls >= 40, "only {calls} calls were found");
}

#[test]
fn the_reader_of_foreign_calls_sees_every_form() {
    let code = "use windows_sys::Win32::{A, LocalFree};\nlibc::getsockopt(1); x.set(2); LocalFree(p);\n\
                fn SSL_new(); ffi::SSL_ctrl(3); SSL_peek(libc::c_int::from(4)); Some(5); Other(6)";
    let found: Vec<_> = foreign_calls(code).into_iter().collect();
    assert_eq!(found, ["LocalFree", "SSL_ctrl", "SSL_peek", "getsockopt"]);
}

/// A session without a `Grant` cannot be, and this is where one comes from.
#[test]
fn only_tls_makes_a_grant_of_a_claim() {
    let (mut in_tls, mut wrong) = (0, Vec::new());
    for (path, code) in files() {
        let uses = code.matches(".into_grant(").count() + code.matches("Claim::into_grant").count();
        match layer_of(&path).as_str() {
            "tls" => in_tls += uses,
            "secrets" if path.ends_with("tests.rs") => {}
            _ if uses > 0 => wrong.push(format!("src/{}", path.display())),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "a grant is made outside src/tls: {wrong:?}");
    assert_eq!(in_tls, 1, "one place, after the handshake");
}

/// A release build must not read what is there for the tests.
#[test]
fn variables_for_tests_are_compiled_into_debug_builds_alone() {
    let mut found = 0;
    for (path, code) in files() {
        let lines: Vec<_> = code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if line.contains("\"PSKGATE_") && line.contains("_SOCKET\"") {
                found += 1;
                let before = at.checked_sub(1).map_or("", |before| lines[before].trim());
                assert_eq!(before, "#[cfg(debug_assertions)]", "src/{}: {line}", path.display());
            }
        }
    }
    assert_eq!(found, 2, "the variables of syslog and journal");
}
