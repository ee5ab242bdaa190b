//! Links between the documents lead to a file and a heading that exist.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::root;
use crate::transcripts::documents;

/// The text without blocks of code, where brackets are no links.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The targets of links and pictures.
fn targets(text: &str) -> Vec<String> {
    let text = prose(text);
    let pieces = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let targets = pieces.map(|(target, _)| target.to_owned());
    targets.filter(|target| !target.contains("://") && !target.contains([' ', '\n'])).collect()
}

/// The anchors of a page: its headings as the forges name them, and ids.
fn anchors(text: &str) -> Vec<String> {
    let text = prose(text);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let headings = headings.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    });
    let ids = text.split("id=\"").skip(1).filter_map(|rest| rest.split_once('"'));
    headings.chain(ids.map(|(id, _)| id.to_owned())).collect()
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let (count, broken) = broken_links(&documents(), &root());
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(count >= 100, "only {count} links");
}

/// The links of these pages that lead nowhere, and how many links there are.
fn broken_links(pages: &[PathBuf], top: &Path) -> (usize, Vec<String>) {
    let (mut count, mut broken) = (0, Vec::new());
    for document in pages {
        let text = std::fs::read_to_string(document).expect("a document");
        let folder = document.parent().unwrap_or(Path::new(""));
        for target in targets(&text) {
            count += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target.as_str(), ""));
            let page = if file.is_empty() { document.clone() } else { folder.join(file) };
            let is_heading = anchor.is_empty()
                || std::fs::read_to_string(&page)
                    .is_ok_and(|t| anchors(&t).iter().any(|a| a == anchor));
            if !page.exists() || !is_heading {
                let name = document.strip_prefix(top).unwrap_or(document).display().to_string();
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    (count, broken)
}

/// The package has the pages in one folder, and neither the sources nor the scripts that they name.
#[test]
fn every_link_in_the_package_leads_to_a_file_of_the_package() {
    let folder = TempDir::new().expect("a folder");
    let made = Command::new(root().join("scripts/lib/package-docs")).arg(folder.path()).output();
    let made = made.expect("python3");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // What the package installs beside the pages.
    for (from, to) in [("examples", "examples"), ("dist/monitoring", "examples/monitoring")] {
        std::fs::create_dir_all(folder.path().join(to)).expect("a folder");
        for entry in std::fs::read_dir(root().join(from)).expect("a folder").flatten() {
            let name = folder.path().join(to).join(entry.file_name());
            std::fs::write(name, "").expect("a file");
        }
    }
    let entries = std::fs::read_dir(folder.path()).expect("a folder").flatten();
    let pages: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    let (count, broken) = broken_links(&pages, folder.path());
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(count >= 100 && pages.len() >= 20, "only {count} links in {} pages", pages.len());
}

#[test]
fn every_page_is_in_the_index() {
    let index = std::fs::read_to_string(root().join("docs/README.md")).expect("the index");
    let listed = targets(&index);
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("docs")).expect("the folder of the pages") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") && name != "README.md" {
            assert!(listed.contains(&name), "docs/README.md does not list {name}");
            count += 1;
        }
    }
    assert!(count >= 20, "only {count} pages");
}

#[test]
fn a_link_without_a_target_and_one_without_a_heading_are_found() {
    let text =
        "# The first: page\n[a](b.md#c-d) ![p](q.svg) [x](https://example.org)\n```\n[n](o)\n```\n";
    assert_eq!(targets(text), ["b.md#c-d", "q.svg"]);
    assert_eq!(anchors(text), ["the-first-page"]);
}
