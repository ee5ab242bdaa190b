//! No file imports, over however many others, from a file that imports from it. A module may use what its own
//! ancestors define, as Rust's `super` means it; that is no circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::files;

/// A module's path from the crate's root on.
type Module = Vec<String>;

/// One source file.
struct File {
    module: Module,
    /// Its paths that are no re-exports, from the root on.
    used: BTreeSet<Module>,
    /// Name → what a `pub use` gives it.
    exported: BTreeMap<String, Module>,
}

fn module_of(path: &Path) -> Module {
    let path = path.with_extension("");
    let mut module: Module =
        path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

/// The paths that a `use` tree names, each with the name that it gives.
fn expand(tree: &str) -> Vec<(String, String)> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        let (path, name) = match tree.split_once(" as ") {
            Some((path, name)) => (path.trim(), name.trim()),
            None => (tree, tree.rsplit("::").next().unwrap_or_default()),
        };
        return vec![(path.to_owned(), name.to_owned())];
    };
    let inner = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| expand(&format!("{prefix}{}", part.trim()))).collect()
}

/// A path from the root on, if it is of this crate.
fn absolute(path: &str, module: &Module, modules: &BTreeSet<Module>) -> Option<Module> {
    let mut parts: Vec<_> = path.split("::").map(str::trim).collect();
    parts.retain(|part| !part.is_empty());
    let mut base = module.clone();
    match parts.first().copied()? {
        "crate" => (base, parts) = (Module::new(), parts.split_off(1)),
        "self" => parts = parts.split_off(1),
        "super" => {
            while parts.first() == Some(&"super") {
                parts.remove(0);
                base.pop();
            }
        }
        first => {
            let child: Module = base.iter().cloned().chain([first.to_owned()]).collect();
            if !modules.contains(&child) {
                return None;
            }
        }
    }
    parts.retain(|part| *part != "self");
    base.extend(parts.into_iter().map(str::to_owned));
    Some(base)
}

/// What of a file is the program's: not its tests, and without the `use` items that are returned beside it.
fn split_uses(code: &str) -> (Vec<(bool, String)>, String) {
    let code = code.split("\nmod tests {").next().unwrap_or_default();
    let (mut uses, mut rest, mut left) = (Vec::new(), String::new(), code);
    while let Some(at) = left.find("use ") {
        let (before, item) = left.split_at(at);
        let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
        let is_item = line.is_empty() || line.starts_with("pub") && !line.contains(';');
        let end = item.find(';').filter(|_| is_item);
        rest.push_str(before);
        match end {
            Some(end) => {
                uses.push((line.starts_with("pub"), item[4..end].to_owned()));
                left = &item[end + 1..];
            }
            None => {
                rest.push_str(&item[..4]);
                left = &item[4..];
            }
        }
    }
    rest.push_str(left);
    (uses, rest)
}

/// The paths in code: `super::x::y`, `crate::x`, `child::x`.
fn paths(code: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.split(|c: char| !is_part(c))
        .filter(|word| word.contains("::") && !word.starts_with(':'))
        .map(str::to_owned)
        .collect()
}

fn read(path: &Path, code: &str, modules: &BTreeSet<Module>) -> File {
    let module = module_of(path);
    let (uses, rest) = split_uses(code);
    let (mut used, mut exported) = (BTreeSet::new(), BTreeMap::new());
    for (is_public, tree) in uses {
        for (path, name) in expand(&tree) {
            let Some(path) = absolute(&path, &module, modules) else { continue };
            if is_public {
                exported.insert(name, path);
            } else {
                used.insert(path);
            }
        }
    }
    used.extend(paths(&rest).iter().filter_map(|path| absolute(path, &module, modules)));
    File { module, used, exported }
}

/// The file that defines what a path names: through the re-exports on its way.
fn defined_in(path: &[String], files: &BTreeMap<Module, &File>, depth: usize) -> Option<Module> {
    let mut module = Module::new();
    for (at, part) in path.iter().enumerate() {
        module.push(part.clone());
        if files.contains_key(&module) {
            continue;
        }
        module.pop();
        let exported = files.get(&module)?.exported.get(part).filter(|_| depth < 8);
        let Some(exported) = exported else { return Some(module) };
        let whole: Module = exported.iter().chain(&path[at + 1..]).cloned().collect();
        return defined_in(&whole, files, depth + 1);
    }
    Some(module)
}

/// Whether one can be reached from the other.
fn reaches(from: &Module, to: &Module, edges: &BTreeMap<Module, BTreeSet<Module>>) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for next in edges.get(module).into_iter().flatten() {
            if next == to {
                return true;
            }
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    false
}

fn is_of_tests(path: &Path) -> bool {
    let names = ["tests", "fuzzing"];
    path.with_extension("").iter().any(|part| names.iter().any(|name| part == *name))
}

/// Each import that is part of a circle, in words.
fn circles(sources: &[(std::path::PathBuf, String)]) -> (usize, Vec<String>) {
    let sources = || sources.iter().filter(|(path, _)| !is_of_tests(path));
    let modules: BTreeSet<Module> = sources().map(|(path, _)| module_of(path)).collect();
    let files: Vec<_> = sources().map(|(path, code)| read(path, code, &modules)).collect();
    let by_module: BTreeMap<Module, &File> =
        files.iter().map(|file| (file.module.clone(), file)).collect();
    let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for file in &files {
        let to = file.used.iter().filter_map(|path| defined_in(path, &by_module, 0));
        let to = to.filter(|to| !file.module.starts_with(to));
        edges.entry(file.module.clone()).or_default().extend(to);
    }
    let mut found = Vec::new();
    for (from, all) in &edges {
        for to in all.iter().filter(|to| reaches(to, from, &edges)) {
            found.push(format!("{} imports from {}", from.join("/"), to.join("/")));
        }
    }
    (edges.values().map(BTreeSet::len).sum(), found)
}

#[test]
fn no_files_import_from_each_other() {
    let (imports, found) = circles(&files());
    assert!(found.is_empty(), "what two files need lives in a third:\n{}", found.join("\n"));
    assert!(imports > 300, "only {imports} imports were found");
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let file = |path: &str, code: &str| (path.into(), code.to_owned());
    let three = [
        file("a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use c::{C, D as E};\npub struct A;"),
        file("a/b.rs", "use super::{A, E};\npub struct B(E);"),
        file("a/c.rs", "pub struct C;\nfn f() { crate::a::B::new() }"),
    ];
    let (_, found) = circles(&three);
    assert_eq!(found, ["a/b imports from a/c", "a/c imports from a/b"]);
    let two = [
        file("a/mod.rs", "mod b;\nuse b::B;\npub struct A;"),
        file("a/b.rs", "use super::A;\nuse std::{fmt, io};"),
    ];
    assert!(circles(&two).1.is_empty(), "a child uses its parent");
}
