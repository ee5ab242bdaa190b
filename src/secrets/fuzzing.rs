//! What must hold of every key file.

use std::fmt::Write as _;

use super::*;
use crate::fuzzing::assert_plain;

const FILE_NAME: &str = "keys";

type Read = Result<(SecretSet, Vec<KeyFileProblem>), Vec<KeyFileProblem>>;

fn read(text: &[u8], rules: KeyFileRules, previous: Option<&SecretSet>) -> Read {
    SecretSet::from_text(text, Path::new(FILE_NAME), rules, previous)
}

fn problems(read: &Read) -> &[KeyFileProblem] {
    let (Ok((_, problems)) | Err(problems)) = read;
    problems
}

/// A file of keys with any bytes in it: taken whole or not at all, and told of without a piece of a key.
pub fn key_file(text: &[u8]) {
    for identities in [IdentityRule::Utf8, IdentityRule::Utf8WithControls, IdentityRule::Bytes] {
        for duplicates in [OnDuplicate::Refuse, OnDuplicate::LastWins] {
            let permissions = OnLoosePermissions::Refuse;
            let rules = KeyFileRules {
                duplicates,
                identities,
                permissions,
                also_owned_by: None,
                writer: super::KeyFileWriter::Operator,
                may_wait_for_files: false,
            };
            let read = read(text, rules, None);
            check_problems(&read);
            check_no_key_shown(text, rules, &read);
            let Ok((set, _)) = &read else { continue };
            check_set(set, rules);
            check_reload(set, rules);
            if duplicates == OnDuplicate::Refuse {
                check_truncations(text, rules, set);
            }
        }
    }
}

fn check_problems(read: &Read) {
    let refuses = problems(read).iter().any(|problem| problem.severity == ProblemSeverity::Error);
    assert_eq!(read.is_err(), refuses, "{:?}", problems(read));
    for problem in problems(read) {
        assert_plain(&problem.message);
        assert_plain(problem.help.as_deref().unwrap_or_default());
    }
}

fn check_set(set: &SecretSet, rules: KeyFileRules) {
    assert!(
        !set.is_empty() && set.first().is_some_and(|first| set.find(first.as_bytes()).is_some())
    );
    for (who, known) in &set.records {
        let name = who.as_bytes();
        assert!(name.len() <= MAX_IDENTITY_SIZE, "{who}");
        assert!(!name.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n' | b':')), "{who}");
        assert!((MIN_KEY_SIZE..=MAX_KEY_SIZE).contains(&known.key.len()), "{who}: {:?}", known.key);
        if rules.identities == IdentityRule::Utf8 {
            let name = std::str::from_utf8(name);
            assert!(name.is_ok_and(|name| !name.is_empty() && !name.contains(char::is_control)));
        }
        assert_plain(&who.to_string());
        assert_plain(&who.to_plain_text());
    }
}

/// Written again in hex, a set is the same set: nobody's session ends.
fn check_reload(set: &SecretSet, rules: KeyFileRules) {
    let mut lines: Vec<_> = set.records.iter().collect();
    lines.sort_by_key(|(_, known)| known.line);
    // An empty first line: a byte order mark counts at the beginning alone.
    let mut text = b"\n".to_vec();
    for (who, known) in lines {
        let mut hex = String::new();
        known.key.expose().iter().for_each(|byte| {
            let _ = write!(hex, "{byte:02X}:");
        });
        text.extend([who.as_bytes(), b":", hex.as_bytes(), b"\r\n"].concat());
    }
    let again = read(&text, rules, Some(set));
    let Ok((again, _)) = &again else { panic!("{:?}", problems(&again)) };
    if let Some(changes) = again.changes_since(set) {
        panic!("{changes}");
    }
}

/// Whoever reads a file while somebody writes it gets no key that was not meant.
fn check_truncations(text: &[u8], rules: KeyFileRules, set: &SecretSet) {
    const CUTS: usize = 24;
    let shift = text.iter().map(|byte| usize::from(*byte)).sum::<usize>();
    for at in (0..CUTS).map(|step| (text.len() * step / CUTS + shift % CUTS).min(text.len())) {
        let Ok((part, _)) = read(&text[..at], rules, Some(set)) else { continue };
        for (who, known) in &part.records {
            let whole = set.records.get(who).unwrap_or_else(|| panic!("{who} is new, cut at {at}"));
            assert!(whole.key.constant_time_eq(&known.key), "cut at {at}, {who} has another key");
        }
    }
}

/// With other keys of the same shape the same is said: so nothing that is said depends on them.
fn check_no_key_shown(text: &[u8], rules: KeyFileRules, read_first: &Read) {
    let turned = |byte: u8| match byte {
        b'0'..=b'9' => (byte - b'0' + 3) % 10 + b'0',
        b'a'..=b'f' => (byte - b'a' + 1) % 6 + b'a',
        b'A'..=b'F' => (byte - b'A' + 1) % 6 + b'A',
        b'g'..=b'z' => (byte - b'g' + 1) % 20 + b'g',
        b'G'..=b'Z' => (byte - b'G' + 1) % 20 + b'G',
        other => other,
    };
    let mut other = text.to_vec();
    for line in other.split_mut(|byte| *byte == b'\n') {
        let key = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        line[key..].iter_mut().for_each(|byte| *byte = turned(*byte));
    }
    // Whether a hex text and a plain one are the same key is not kept by that.
    let say = |read: &Read| {
        let mut said = problems(read).to_vec();
        said.retain(|problem| problem.code != "shared-key");
        said
    };
    assert_eq!(say(&read(&other, rules, None)), say(read_first));
}
