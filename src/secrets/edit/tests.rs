#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;

const KEY_A: &str = "first key of thirty-two and more bytes";
const KEY_B: &str = "second key of thirty-two and more bytes";
const KEY_C: &str = "third key of thirty-two and more bytes";

fn file(text: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("psk.txt");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn appended(before: &str, line: &str) -> (String, u32) {
    let (_folder, path) = file(before.as_bytes());
    let added = append(&path, line.as_bytes()).unwrap();
    (fs::read_to_string(&path).unwrap(), added.line)
}

fn removed(before: &str, identity: &str) -> (String, Vec<u32>) {
    let (_folder, path) = file(before.as_bytes());
    let gone = remove(&path, identity.as_bytes(), OnLastKey::Refuse).unwrap();
    (fs::read_to_string(&path).unwrap(), gone.lines.iter().map(|(line, _)| *line).collect())
}

#[test]
fn a_line_is_added_in_the_file_s_own_manner_and_the_rest_is_untouched() {
    let line = format!("c:{KEY_C}\n");
    for (before, after, number) in [
        (String::new(), format!("c:{KEY_C}\n"), 1),
        (format!("a:{KEY_A}\n"), format!("a:{KEY_A}\nc:{KEY_C}\n"), 2),
        (format!("a:{KEY_A}"), format!("a:{KEY_A}\nc:{KEY_C}\n"), 2),
        (format!("a:{KEY_A}\r\n"), format!("a:{KEY_A}\r\nc:{KEY_C}\r\n"), 2),
        (format!("a:{KEY_A}\r\nb:{KEY_B}"), format!("a:{KEY_A}\r\nb:{KEY_B}\r\nc:{KEY_C}\r\n"), 3),
        (format!("\n\na:{KEY_A}\r\r\n\n"), format!("\n\na:{KEY_A}\r\r\n\nc:{KEY_C}\r\n"), 5),
        (format!("a:{KEY_A}\0rest\n"), format!("a:{KEY_A}\0rest\nc:{KEY_C}\n"), 2),
    ] {
        assert_eq!(appended(&before, &line), (after.clone(), number), "{before:?}");
        assert_eq!(appended(&before, line.trim_end()), (after, number), "{before:?}");
    }
}

#[test]
fn a_file_that_is_not_there_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("psk.txt");
    let added = append(&path, format!("a:{KEY_A}").as_bytes()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("a:{KEY_A}\n"));
    assert_eq!(added.file, path.canonicalize().unwrap());
    assert!(matches!(append(&folder.path().join("no/psk.txt"), b"x"), Err(EditError::Invalid(_))));
    let nowhere = append(&folder.path().join("no/psk.txt"), format!("a:{KEY_A}").as_bytes());
    assert!(
        matches!(nowhere, Err(EditError::Io(_, error)) if error.kind() == io::ErrorKind::NotFound)
    );
}

#[test]
fn every_line_of_an_identity_goes_and_the_rest_is_untouched() {
    for (before, identity, after, lines) in [
        (
            format!("a:{KEY_A}\nb:{KEY_B}\nc:{KEY_C}\n"),
            "b",
            format!("a:{KEY_A}\nc:{KEY_C}\n"),
            vec![2],
        ),
        (
            format!("a:{KEY_A}\r\nb:{KEY_B}\r\nc:{KEY_C}"),
            "a",
            format!("b:{KEY_B}\r\nc:{KEY_C}"),
            vec![1],
        ),
        (format!("a:{KEY_A}\n\nb:{KEY_B}"), "b", format!("a:{KEY_A}\n\n"), vec![3]),
        (format!("a:{KEY_A}\nb:{KEY_B}\na:{KEY_C}\n"), "a", format!("b:{KEY_B}\n"), vec![1, 3]),
        (format!("\ra\r:{KEY_A}\0junk\nb:{KEY_B}\n"), "a", format!("b:{KEY_B}\n"), vec![1]),
        (format!("ab:{KEY_A}\na:{KEY_B}\n"), "a", format!("ab:{KEY_A}\n"), vec![2]),
    ] {
        assert_eq!(removed(&before, identity), (after, lines), "{before:?}");
    }
}

#[test]
fn what_is_added_and_removed_again_leaves_every_byte_as_it_was() {
    for before in
        [format!("a:{KEY_A}\r\n\nb:{KEY_B}\n"), format!("#x:{KEY_A}\nb\0:{KEY_B}\n\r\nb:{KEY_B}\n")]
    {
        let (_folder, path) = file(before.as_bytes());
        match append(&path, format!("c:{KEY_C}").as_bytes()) {
            Ok(_) => drop(remove(&path, b"c", OnLastKey::Refuse).unwrap()),
            Err(error) => assert!(matches!(error, EditError::Invalid(_)), "{error}"),
        }
        assert_eq!(fs::read(&path).unwrap(), before.as_bytes());
    }
}

/// The refusal's words; the file must be as it was.
fn refusal(text: &str, edit: impl Fn(&Path) -> Result<(), EditError>) -> String {
    let (_folder, path) = file(text.as_bytes());
    let error = edit(&path).unwrap_err().to_string();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    for key in [KEY_A, KEY_B, KEY_C] {
        assert!(!error.contains(key), "a key in: {error}");
    }
    error
}

#[test]
fn what_would_make_the_file_worse_is_refused_and_changes_nothing() {
    let add = |line: &str| {
        let line = line.to_owned();
        move |path: &Path| append(path, line.as_bytes()).map(drop)
    };
    let good = format!("a:{KEY_A}\nb:{KEY_B}\n");
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02X}")).collect::<String>();
    for (text, line, words) in [
        (good.as_str(), format!("b:{KEY_C}"), "line 2"),
        (&good, format!("c:{KEY_A}"), "\"a\" on line 1"),
        (&good, format!("c:{}", hex(KEY_B)), "\"b\" on line 2"),
        (&good, "c:too short".into(), "9 bytes"),
        (&good, format!(":{KEY_C}"), "empty identity"),
        (&good, format!("c:{KEY_C}\nd:{KEY_C}d"), "more than one"),
        (&format!("{good}no colon here"), format!("c:{KEY_C}"), "psk.txt:3: no colon"),
    ] {
        let said = refusal(text, add(&line));
        assert!(said.contains(words), "{said}");
    }
    let take = |identity: &'static str, emptied| {
        move |path: &Path| remove(path, identity.as_bytes(), emptied).map(drop)
    };
    assert!(refusal(&good, take("c", OnLastKey::Delete)).contains("no such identity"));
    assert!(refusal(&format!("{good}?"), take("a", OnLastKey::Delete)).contains("psk.txt:3"));
    assert!(refusal(&format!("a:{KEY_A}\n\n"), take("a", OnLastKey::Refuse)).contains("last key"));
    assert!(refusal("", take("a", OnLastKey::Refuse)).contains("no such identity"));
    let folder = tempfile::tempdir().unwrap();
    let said = append(folder.path(), format!("a:{KEY_A}").as_bytes()).unwrap_err().to_string();
    assert!(said.contains("folder"), "{said}");
}

#[test]
fn a_file_that_holds_one_key_goes_with_it_where_that_is_asked() {
    let (_folder, path) = file(format!("a:{KEY_A}\n").as_bytes());
    remove(&path, b"a", OnLastKey::Delete).unwrap();
    assert!(!path.exists());
}

#[test]
fn the_fingerprint_is_of_the_key_and_not_of_its_spelling() {
    let text = format!("{KEY_A}!");
    let hex = text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    let prints: Vec<_> = [text.clone(), hex.concat(), hex.join(":").to_uppercase()]
        .iter()
        .map(|key| {
            let (_folder, path) = file(b"");
            let added = append(&path, format!("a:{key}").as_bytes()).unwrap();
            let gone = remove(&path, b"a", OnLastKey::Delete).unwrap();
            assert_eq!(gone.lines[0].1, added.fingerprint);
            added.fingerprint
        })
        .collect();
    assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
}

#[test]
fn eight_editors_at_once_all_have_their_way() {
    const EACH: usize = 12;
    let (_folder, path) = file(format!("kept:{KEY_A}\n").as_bytes());
    std::thread::scope(|scope| {
        for editor in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for n in 0..EACH {
                    let line =
                        format!("e{editor}-{n}:key {n} of editor {editor}, long enough for all");
                    append(path, line.as_bytes()).unwrap();
                    if n % 3 == 2 {
                        remove(path, format!("e{editor}-{n}").as_bytes(), OnLastKey::Refuse)
                            .unwrap();
                    }
                }
            });
        }
    });
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1 + 8 * EACH * 2 / 3, "{text}");
    assert!(text.starts_with(&format!("kept:{KEY_A}\n")));
}

/// A release build takes 0.13 s for one of them on two cores (measured).
#[test]
fn a_hundred_thousand_identities_are_edited_in_a_moment() {
    let mut text = String::new();
    for n in 0..100_000 {
        text += &format!("identity-{n:06}:key number {n:053}\n");
    }
    let (_folder, path) = file(text.as_bytes());
    let start = Instant::now();
    let added = append(&path, format!("c:{KEY_C}").as_bytes()).unwrap();
    let gone = remove(&path, b"identity-050000", OnLastKey::Refuse).unwrap();
    let took = start.elapsed();
    assert_eq!((added.line, gone.lines[0].0), (100_001, 50_001));
    // One that looks at every other line for each line would take hours without optimization.
    let bound = Duration::from_secs(if cfg!(debug_assertions) { 300 } else { 2 });
    assert!(took < bound, "two edits took {took:?}");
    let after = fs::read_to_string(&path).unwrap();
    let line = format!("identity-050000:key number {:053}\n", 50_000);
    assert_eq!(after, text.replace(&line, "") + &format!("c:{KEY_C}\n"));
}
