#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

const NATIVE: KeyFileRules = KeyFileRules {
    duplicates: OnDuplicate::Refuse,
    identities: IdentityRule::Utf8,
    permissions: OnLoosePermissions::Refuse,
    owner: None,
    writer: KeyFileWriter::Operator,
    may_wait_for_files: false,
};
const STUNNEL: KeyFileRules = KeyFileRules {
    duplicates: OnDuplicate::LastWins,
    identities: IdentityRule::Bytes,
    permissions: OnLoosePermissions::Warn,
    owner: None,
    writer: KeyFileWriter::Operator,
    may_wait_for_files: false,
};
const BOTH: [KeyFileRules; 2] = [NATIVE, STUNNEL];

const HEX_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const TEXT_KEY: &str = "correct horse battery staple, thirty-two and more";

fn read(text: impl AsRef<[u8]>, rules: KeyFileRules) -> (Vec<KeyEntry>, Vec<KeyFileProblem>) {
    let mut problems = Vec::new();
    let entries = parse(text.as_ref(), Path::new("psk.txt"), rules, &mut problems);
    (entries, problems)
}

fn codes(problems: &[KeyFileProblem]) -> Vec<(ProblemSeverity, &'static str)> {
    problems.iter().map(|p| (p.severity, p.code)).collect()
}

/// The key of a text that has to be one good line under both rules, and what was said about it.
fn key_of(text: &str) -> (Vec<u8>, Vec<(ProblemSeverity, &'static str)>) {
    let [native, stunnel] = BOTH.map(|rules| {
        let (entries, problems) = read(format!("client1:{text}"), rules);
        assert_eq!(entries.len(), 1, "{text}: {problems:?}");
        (entries[0].key.expose().to_vec(), codes(&problems))
    });
    assert_eq!(native, stunnel);
    native
}

fn refusal_codes(text: impl AsRef<[u8]>, rules: KeyFileRules) -> Vec<&'static str> {
    let (_, problems) = read(text, rules);
    problems.iter().filter(|p| p.severity == ProblemSeverity::Error).map(|p| p.code).collect()
}

fn warning_codes(text: impl AsRef<[u8]>, rules: KeyFileRules) -> Vec<&'static str> {
    let (_, problems) = read(text.as_ref(), rules);
    assert!(problems.iter().all(|p| p.severity != ProblemSeverity::Error), "{problems:?}");
    problems.iter().filter(|p| p.severity == ProblemSeverity::Warning).map(|p| p.code).collect()
}

fn sequential_bytes(n: u8) -> Vec<u8> {
    (0..n).collect()
}

#[test]
fn hex_is_decoded_in_either_case_and_with_colons_between_bytes() {
    let colons = |text: &str, between: &str| {
        let pairs: Vec<_> = text.as_bytes().chunks(2).collect();
        String::from_utf8(pairs.join(between.as_bytes())).unwrap()
    };
    for text in [
        HEX_KEY.to_owned(),
        HEX_KEY.to_uppercase(),
        colons(HEX_KEY, ":"),
        colons(&HEX_KEY.to_uppercase(), "::"),
        format!(":{HEX_KEY}:"),
    ] {
        assert_eq!(key_of(&text), (sequential_bytes(32), vec![]), "{text}");
    }
}

#[test]
fn what_is_not_quite_hex_is_text_with_a_warning() {
    let slip = vec![(ProblemSeverity::Warning, "nearly-hex")];
    for text in [
        format!("{HEX_KEY}0"),
        format!("0:{}0", &HEX_KEY[1..]),
        HEX_KEY.replacen('a', "g", 1),
        format!("{} {}", &HEX_KEY[..32], &HEX_KEY[32..]),
        format!("0x{HEX_KEY}"),
    ] {
        assert_eq!(key_of(&text), (text.as_bytes().to_vec(), slip.clone()));
    }
}

#[test]
fn base64_and_passphrases_are_the_bytes_of_their_text() {
    let base64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    for text in [base64, TEXT_KEY, "zwölf Boxkämpfer jagen Viktor quer über"] {
        assert_eq!(key_of(text), (text.as_bytes().to_vec(), vec![]));
    }
}

#[test]
fn a_key_may_hold_colons_because_the_first_one_splits_the_line() {
    let (entries, _) = read("a:b:c:d of more than sixteen bytes", STUNNEL);
    assert_eq!(entries[0].identity.as_bytes(), b"a");
    assert_eq!(entries[0].key.expose(), b"b:c:d of more than sixteen bytes");
}

#[test]
fn hex_counts_half_so_that_thirty_digits_are_too_short() {
    for rules in BOTH {
        for digits in (2..32).step_by(2) {
            let text = format!("client1:{}", &HEX_KEY[..digits]);
            let (entries, problems) = read(&text, rules);
            assert!(entries.is_empty());
            assert_eq!(codes(&problems), [(ProblemSeverity::Error, "short-key")]);
            assert!(digits < 16 || problems[0].message.contains("count half"));
        }
    }
    assert_eq!(key_of(&HEX_KEY[..32]).0, sequential_bytes(16));
    // Odd in number, they are text, and 17 characters of that are enough.
    assert_eq!(key_of(&HEX_KEY[..17]).0, &HEX_KEY.as_bytes()[..17]);
}

#[test]
fn a_key_has_16_to_512_bytes_once_decoded() {
    for rules in BOTH {
        for (len, fits) in [(0, false), (15, false), (16, true), (512, true), (513, false)] {
            let wanted: &[&str] = match (fits, len < 16) {
                (true, _) => &[],
                (_, true) => &["short-key"],
                (_, false) => &["long-key"],
            };
            assert_eq!(refusal_codes(format!("a:{}", "x".repeat(len)), rules), wanted);
            assert_eq!(refusal_codes(format!("a:{}", "5a".repeat(len)), rules), wanted);
        }
        // OPENSSL_hexstr2buf takes colons alone for no bytes at all.
        assert_eq!(refusal_codes(format!("a:{}", ":".repeat(40)), rules), ["short-key"]);
    }
}

#[test]
fn carriage_returns_vanish_wherever_they_stand() {
    for rules in BOTH {
        for text in [
            format!("a:{TEXT_KEY}\r\nb:{HEX_KEY}\r\n"),
            format!("\ra\r:\r\r{TEXT_KEY}\r\r\n\r\n\r\r\nb:{HEX_KEY}\r"),
            format!("a:{}\r{}\nb:{HEX_KEY}\r\r", &TEXT_KEY[..9], &TEXT_KEY[9..]),
        ] {
            let (entries, problems) = read(&text, rules);
            assert_eq!(problems, [], "{text:?}");
            assert_eq!(entries.len(), 2);
            assert_eq!(entries[0].identity.as_bytes(), b"a");
            assert_eq!(entries[0].key.expose(), TEXT_KEY.as_bytes());
            assert_eq!(entries[1].key.expose(), sequential_bytes(32));
        }
    }
}

#[test]
fn a_nul_ends_its_line_and_no_more() {
    for rules in BOTH {
        let (entries, problems) = read(format!("a:{TEXT_KEY}\0more\nb:{HEX_KEY}\0\n\0c\n"), rules);
        assert_eq!(problems, []);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].key.expose(), TEXT_KEY.as_bytes());
        assert_eq!(entries[1].key.expose(), sequential_bytes(32));
        assert_eq!(refusal_codes(format!("a\0b:{TEXT_KEY}"), rules), ["not-identity-key"]);
    }
}

#[test]
fn empty_lines_are_skipped_counted_and_a_last_line_feed_is_not_needed() {
    for rules in BOTH {
        let (entries, problems) = read(format!("\n\na:{TEXT_KEY}\n\n\nb:{HEX_KEY}"), rules);
        assert_eq!(problems, []);
        assert_eq!(entries.iter().map(|e| e.line).collect::<Vec<_>>(), [3, 6]);
    }
}

#[test]
fn blanks_comments_and_lines_without_a_colon_are_errors_with_their_line() {
    for rules in BOTH {
        for (line, words) in [
            (" ", "blanks"),
            (" \t ", "blanks"),
            ("# a comment", "no comments"),
            ("; another", "no comments"),
            ("client1", "no colon"),
            ("client1 = key", "no colon"),
        ] {
            let (_, problems) = read(format!("a:{TEXT_KEY}\n{line}\n"), rules);
            assert_eq!(codes(&problems), [(ProblemSeverity::Error, "not-identity-key")]);
            assert_eq!(problems[0].line, Some(2));
            assert!(problems[0].message.contains(words), "{problems:?}");
        }
        let text = format!("#b:{TEXT_KEY}\n");
        assert_eq!(warning_codes(&text, rules), ["comment-like"]);
        assert_eq!(read(&text, rules).0[0].identity.as_bytes(), b"#b");
    }
}

#[test]
fn every_mistake_of_a_file_is_named_at_once() {
    let (_, problems) = read(format!("a\nb:short\n:{TEXT_KEY}\nd:{TEXT_KEY}\n#\n"), NATIVE);
    let places: Vec<_> = problems.iter().map(|p| (p.line, p.code)).collect();
    assert_eq!(
        places,
        [
            (Some(1), "not-identity-key"),
            (Some(2), "short-key"),
            (Some(3), "empty-identity"),
            (Some(5), "not-identity-key"),
        ]
    );
}

#[test]
fn blanks_at_the_edges_belong_to_what_they_touch_and_are_warned_about() {
    for rules in BOTH {
        for (line, identity, key, code) in [
            (
                "a: k23456789012345678901234567890z",
                "a",
                " k23456789012345678901234567890z",
                "padded-key",
            ),
            (
                "a:k23456789012345678901234567890z ",
                "a",
                "k23456789012345678901234567890z ",
                "padded-key",
            ),
            (
                " a:k23456789012345678901234567890zz",
                " a",
                "k23456789012345678901234567890zz",
                "padded-identity",
            ),
            (
                "a :k23456789012345678901234567890zz",
                "a ",
                "k23456789012345678901234567890zz",
                "padded-identity",
            ),
        ] {
            assert_eq!(warning_codes(line, rules), [code], "{line:?}");
            let (entries, _) = read(line, rules);
            assert_eq!(entries[0].identity.as_bytes(), identity.as_bytes());
            assert_eq!(entries[0].key.expose(), key.as_bytes());
        }
    }
    // One blank turns hex into text: both slips are named.
    let (key, said) = key_of(&format!(" {HEX_KEY}"));
    assert_eq!(key, format!(" {HEX_KEY}").as_bytes());
    assert_eq!(
        said,
        [(ProblemSeverity::Warning, "padded-key"), (ProblemSeverity::Warning, "nearly-hex")]
    );
}

#[test]
fn a_byte_order_mark_is_part_of_the_first_identity() {
    let text = format!("\u{feff}a:{TEXT_KEY}\nb:{HEX_KEY}\n");
    assert_eq!(refusal_codes(&text, NATIVE), ["byte-order-mark"]);
    assert_eq!(warning_codes(&text, STUNNEL), ["byte-order-mark"]);
    let (entries, _) = read(&text, STUNNEL);
    assert_eq!(entries[0].identity.as_bytes(), "\u{feff}a".as_bytes());
    assert_eq!(entries[1].identity.as_bytes(), b"b");
}

#[test]
fn an_identity_has_at_most_255_bytes_and_natively_at_least_one() {
    for rules in BOTH {
        for (len, wanted) in [(1, vec![]), (255, vec![]), (256, vec!["long-identity"])] {
            let line = format!("{}:{TEXT_KEY}", "i".repeat(len));
            assert_eq!(refusal_codes(line, rules), wanted);
        }
    }
    // Bytes are counted, not characters.
    assert_eq!(refusal_codes(format!("{}:{TEXT_KEY}", "ö".repeat(128)), NATIVE), ["long-identity"]);
    assert_eq!(refusal_codes(format!(":{TEXT_KEY}"), NATIVE), ["empty-identity"]);
    assert_eq!(warning_codes(format!(":{TEXT_KEY}"), STUNNEL), ["empty-identity"]);
    assert_eq!(read(format!(":{TEXT_KEY}"), STUNNEL).0[0].identity.as_bytes(), b"");
}

#[test]
fn identities_are_utf8_natively_and_bytes_in_a_stunnel_conf() {
    let cases: [(&[u8], &str); 4] = [
        (b"\xff\xfe", "identity-not-utf8"),
        (b"a\x1b[31m", "identity-control"),
        (b"a\tb", "identity-control"),
        ("a\u{85}b".as_bytes(), "identity-control"),
    ];
    for (name, code) in cases {
        let text = [name, b":", TEXT_KEY.as_bytes()].concat();
        assert_eq!(refusal_codes(&text, NATIVE), [code]);
        assert_eq!(warning_codes(&text, STUNNEL), [code]);
        assert_eq!(read(&text, STUNNEL).0[0].identity.as_bytes(), name);
        for problem in read(&text, NATIVE).1 {
            assert!(!problem.message.contains(char::is_control), "{problem:?}");
        }
    }
    for rules in BOTH {
        assert_eq!(warning_codes(format!("Zoë's PLC:{TEXT_KEY}"), rules), [""; 0]);
    }
}

// ---- files ----------------------------------------------------------------------------------

struct KeyFolder(TempDir);

impl KeyFolder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        mode(&path, 0o600);
        path
    }
}

#[cfg(unix)]
fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn mode(_: &Path, _: u32) {}

type Loaded = Result<(SecretSet, Vec<KeyFileProblem>), Vec<KeyFileProblem>>;

fn load(paths: &[PathBuf], rules: KeyFileRules) -> Loaded {
    SecretSet::load(paths, rules, None)
}

fn problems_of(loaded: Loaded) -> Vec<KeyFileProblem> {
    match loaded {
        Ok((set, _)) => panic!("{} identities were let in", set.len()),
        Err(problems) => {
            assert!(problems.iter().any(|p| p.severity == ProblemSeverity::Error));
            problems
        }
    }
}

fn key<'a>(set: &'a SecretSet, identity: &str) -> &'a [u8] {
    set.find(identity.as_bytes()).unwrap().0.expose()
}

#[test]
fn an_identity_on_two_lines_is_refused_natively_and_both_lines_are_named() {
    let files = KeyFolder::new();
    let one = files.write("one", format!("a:{TEXT_KEY}\nb:{TEXT_KEY} b\n\na:{HEX_KEY}\n"));
    let problems = problems_of(load(std::slice::from_ref(&one), NATIVE));
    assert_eq!(codes(&problems), [(ProblemSeverity::Error, "duplicate-identity")]);
    assert_eq!((problems[0].line, problems[0].file.as_ref()), (Some(4), Some(&one)));
    assert!(problems[0].message.contains("line 1 already"), "{problems:?}");

    let two = files.write("two", format!("c:{TEXT_KEY} c\nb:{HEX_KEY}\n"));
    let first = files.write("first", format!("a:{TEXT_KEY}\nb:{TEXT_KEY} b\n"));
    let problems = problems_of(load(&[first.clone(), two.clone()], NATIVE));
    assert_eq!((problems[0].line, problems[0].file.as_ref()), (Some(2), Some(&two)));
    let elsewhere = format!("line 2 of {} already", first.display());
    assert!(problems[0].message.contains(&elsewhere), "{problems:?}");
}

#[test]
fn an_identity_on_two_lines_of_a_stunnel_conf_has_the_last_ones_key() {
    let files = KeyFolder::new();
    let one = files.write("one", format!("a:{TEXT_KEY}\na:{TEXT_KEY} 2\na:{HEX_KEY}\n"));
    let (set, problems) = load(std::slice::from_ref(&one), STUNNEL).unwrap();
    assert_eq!(key(&set, "a"), sequential_bytes(32));
    assert_eq!(codes(&problems), [(ProblemSeverity::Warning, "duplicate-identity"); 2]);
    assert!(problems[1].message.contains("line 2 already"));
    let two = files.write("two", format!("a:{TEXT_KEY} of two\n"));
    let (set, problems) = load(&[one, two], STUNNEL).unwrap();
    assert_eq!(key(&set, "a"), format!("{TEXT_KEY} of two").as_bytes());
    assert_eq!(problems.len(), 3);
}

#[test]
fn identities_differ_by_case_and_by_every_byte() {
    let files = KeyFolder::new();
    let path = files.write("f", format!("a:{TEXT_KEY}\nA:{TEXT_KEY} 2\na :{TEXT_KEY} 3\n"));
    let (set, _) = load(&[path], NATIVE).unwrap();
    assert_eq!(set.len(), 3);
    assert_eq!(set.first().unwrap().as_bytes(), b"a");
    for unknown in [&b""[..], b"b", b"a\0", b"aa"] {
        assert!(set.find(unknown).is_none());
    }
}

#[test]
fn one_key_under_two_identities_is_warned_about() {
    let files = KeyFolder::new();
    let path =
        files.write("f", format!("a:{HEX_KEY}\nb:{}\nc:{TEXT_KEY}\n", HEX_KEY.to_uppercase()));
    for rules in BOTH {
        let (_, problems) = load(std::slice::from_ref(&path), rules).unwrap();
        assert_eq!(codes(&problems), [(ProblemSeverity::Warning, "shared-key")]);
        assert_eq!(problems[0].line, Some(2));
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_read_or_the_group_can_write_is_refused_natively() {
    let files = KeyFolder::new();
    let path = files.write("f", format!("a:{TEXT_KEY}\n"));
    for (bits, words) in [
        (0o600, None),
        (0o400, None),
        (0o640, None),
        (0o440, None),
        (0o644, Some("every user of this machine may read")),
        (0o660, Some("its group may change")),
        (0o620, Some("its group may change")),
        (0o664, Some("its group may change")),
        (0o602, Some("every user of this machine may change")),
        (0o666, Some("every user of this machine may change")),
    ] {
        mode(&path, bits);
        let native = load(std::slice::from_ref(&path), NATIVE);
        let (_, stunnel) = load(std::slice::from_ref(&path), STUNNEL).unwrap();
        match words {
            None => {
                assert_eq!(native.unwrap().1, [], "{bits:o}");
                assert_eq!(stunnel, [], "{bits:o}");
            }
            Some(words) => {
                let native = problems_of(native);
                assert_eq!(codes(&native), [(ProblemSeverity::Error, "loose-permissions")]);
                assert_eq!(codes(&stunnel), [(ProblemSeverity::Warning, "loose-permissions")]);
                assert!(native[0].message.contains(words), "{bits:o}: {native:?}");
                assert!(native[0].message.contains(&format!("mode {bits:04o}")));
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn a_file_of_a_third_user_is_refused_natively() {
    let files = KeyFolder::new();
    let path = files.write("f", format!("a:{TEXT_KEY}\n"));
    if std::os::unix::fs::chown(&path, Some(54321), None).is_err() {
        return; // Only root may give files away.
    }
    let paths = [path];
    assert_eq!(
        codes(&problems_of(load(&paths, NATIVE))),
        [(ProblemSeverity::Error, "foreign-owner")]
    );
    let (_, problems) = load(&paths, STUNNEL).unwrap();
    assert_eq!(codes(&problems), [(ProblemSeverity::Warning, "foreign-owner")]);
}

/// What other programs leave in a folder of keys: hidden files, editors' copies, package managers' ones,
/// texts for people, and what the Beremiz IDE keeps beside its keys.
const IGNORED_NAMES: &[&str] = &[
    ".hidden",
    ".b.swp",
    "b~",
    "b.swp",
    "b.swo",
    "#b#",
    "b.bak",
    "b.orig",
    "b.rej",
    "b.save",
    "b.rpmnew",
    "b.rpmsave",
    "b.dpkg-old",
    "b.dpkg-new.1",
    "README",
    "README.txt",
    "notes.md",
    "management.json",
];

#[test]
fn a_directory_means_its_files_in_c_order_without_what_others_leave() {
    let files = KeyFolder::new();
    for name in ["b", "B", "a.psk", "é", "10", "9", "#c", "b.swan"] {
        files.write(&format!("psk.d/{name}"), format!("{name}:{TEXT_KEY} {name}\n"));
    }
    for name in IGNORED_NAMES {
        files.write(&format!("psk.d/{name}"), "a-stranger:whose key is long enough to be taken\n");
    }
    files.write("psk.d/sub/inside", "no key file at all");
    // vim's, for the moment in which it tries the folder.
    files.write("psk.d/4913", "");
    let directory = files.path("psk.d");
    let mut problems = Vec::new();
    let found: Vec<_> = list_key_files(&directory, NATIVE, &mut problems)
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(found, ["#c", "10", "9", "B", "a.psk", "b", "b.swan", "é"]);
    let mut passed_over: Vec<_> = IGNORED_NAMES.iter().chain(&["4913"]).collect();
    passed_over.sort();
    let told: Vec<_> = problems.iter().map(|problem| problem.file.as_ref().unwrap()).collect();
    assert_eq!(
        told,
        passed_over
            .iter()
            .map(|name| directory.join(name))
            .collect::<Vec<_>>()
            .iter()
            .collect::<Vec<_>>()
    );
    assert!(codes(&problems).iter().all(|one| *one == (ProblemSeverity::Note, "passed-over")));
    for rules in BOTH {
        let (set, problems) = load(std::slice::from_ref(&directory), rules).unwrap();
        assert_eq!(set.len(), 8, "{problems:?}");
        assert!(set.find(b"a-stranger").is_none());
    }

    // All or nothing.
    let bad = files.write("psk.d/m", "m:short\n");
    let problems = problems_of(load(&[directory], NATIVE));
    let refuses: Vec<_> =
        problems.iter().filter(|p| p.severity == ProblemSeverity::Error).collect();
    assert_eq!((refuses.len(), refuses[0].code), (1, "short-key"));
    assert_eq!(refuses[0].file, Some(bad));
}

/// What a Beremiz project keeps of its PLCs: its first line is an identity, and what follows a key.
const MANAGEMENT: &str = "[[\"plc1\", \"ERPC:\\/\\/192.168.0.7:3000#and so on for a while\"]]\n";

#[test]
fn what_stands_in_a_folder_of_keys_and_is_no_key_file_is_refused_with_its_name() {
    for (name, text, code) in [
        ("keys.json", "a:correct horse battery staple", "not-a-key-file"),
        ("KEYS.JSON", "", "not-a-key-file"),
        ("list", MANAGEMENT, "not-a-key-file"),
        ("table", "{\"a\": \"correct horse battery staple\"}\n", "not-a-key-file"),
        ("indented", "\n  {\"a\": \"correct horse battery staple\"}\n", "not-a-key-file"),
        ("marked", "\u{feff}[\"a:correct horse battery staple\"]\n", "not-a-key-file"),
        ("4913", "no key", "not-identity-key"),
        ("Makefile", "# of keys\nall:\n", "not-identity-key"),
    ] {
        for rules in BOTH {
            let files = KeyFolder::new();
            files.write("psk.d/good", format!("good:{TEXT_KEY}\n"));
            let bad = files.write(&format!("psk.d/{name}"), text);
            let problems = problems_of(load(&[files.path("psk.d")], rules));
            let refuses =
                problems.iter().find(|one| one.severity == ProblemSeverity::Error).unwrap();
            assert_eq!((refuses.code, refuses.file.as_ref()), (code, Some(&bad)), "{name}");
            assert!(!refuses.message.contains("battery"), "{}", refuses.message);
        }
    }
    // Who names a file means it.
    let files = KeyFolder::new();
    let named = files.write("keys.json", format!("[a]:{TEXT_KEY}\n"));
    assert!(load(&[named], NATIVE).unwrap().0.find(b"[a]").is_some());
}

#[cfg(unix)]
#[test]
fn a_directory_that_others_can_write_to_is_refused_natively_and_warned_of_elsewhere() {
    let files = KeyFolder::new();
    files.write("psk.d/good", format!("good:{TEXT_KEY}\n"));
    let directory = files.path("psk.d");
    let said = |rules| match load(std::slice::from_ref(&directory), rules) {
        Ok((_, problems)) | Err(problems) => codes(&problems),
    };
    for (bits, native, stunnel) in [
        (0o755, None, None),
        (0o2750, None, None),
        (0o777, Some(ProblemSeverity::Error), Some(ProblemSeverity::Warning)),
        (0o1777, Some(ProblemSeverity::Error), Some(ProblemSeverity::Warning)),
        (0o703, Some(ProblemSeverity::Error), Some(ProblemSeverity::Warning)),
        // Which may be the user's own group.
        (0o775, Some(ProblemSeverity::Warning), Some(ProblemSeverity::Warning)),
    ] {
        mode(&directory, bits);
        let expected = |severity: Option<ProblemSeverity>| {
            severity.map(|severity| (severity, "loose-folder")).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(said(NATIVE), expected(native), "{bits:o}");
        assert_eq!(said(STUNNEL), expected(stunnel), "{bits:o}");
    }
}

#[test]
fn a_directory_without_a_key_file_is_refused() {
    let files = KeyFolder::new();
    files.write("psk.d/.keep", "");
    for rules in BOTH {
        let problems = problems_of(load(&[files.path("psk.d")], rules));
        let told = [(ProblemSeverity::Note, "passed-over"), (ProblemSeverity::Error, "no-keys")];
        assert_eq!(codes(&problems), told);
    }
}

#[cfg(unix)]
#[test]
fn symlinks_are_followed_judged_by_their_target_and_not_left_dangling() {
    use std::os::unix::fs::symlink;
    let files = KeyFolder::new();
    let target = files.write("2026/psk", format!("a:{TEXT_KEY}\n"));
    fs::create_dir(files.path("psk.d")).unwrap();
    symlink("../2026/psk", files.path("psk.d/link")).unwrap();
    symlink("../2026", files.path("psk.d/directory")).unwrap();
    symlink("2026", files.path("whole")).unwrap();
    for path in ["psk.d", "psk.d/link", "whole"] {
        let (set, _) = load(&[files.path(path)], NATIVE).unwrap();
        assert_eq!(key(&set, "a"), TEXT_KEY.as_bytes());
    }
    mode(&target, 0o644);
    let problems = problems_of(load(&[files.path("psk.d")], NATIVE));
    assert_eq!(codes(&problems), [(ProblemSeverity::Error, "loose-permissions")]);
    mode(&target, 0o600);
    fs::remove_file(&target).unwrap();
    for path in ["psk.d", "psk.d/link"] {
        let problems = problems_of(load(&[files.path(path)], NATIVE));
        assert_eq!(codes(&problems), [(ProblemSeverity::Error, "no-such-file")]);
    }
}

#[test]
fn a_file_that_is_missing_or_too_large_is_refused() {
    let files = KeyFolder::new();
    let good = files.write("good", format!("a:{TEXT_KEY}\n"));
    let large = files.write("large", "");
    fs::File::options().write(true).open(&large).unwrap().set_len((16 << 20) + 1).unwrap();
    for (path, code) in [(files.path("missing"), "no-such-file"), (large, "not-readable")] {
        for rules in BOTH {
            let problems = problems_of(load(&[good.clone(), path.clone()], rules));
            assert_eq!(codes(&problems), [(ProblemSeverity::Error, code)]);
            assert_eq!(problems[0].file.as_ref(), Some(&path));
            assert!(problems[0].message.contains(path.to_str().unwrap()));
        }
    }
}

#[test]
fn a_file_without_a_key_is_refused_alone_and_warned_about_beside_others() {
    let files = KeyFolder::new();
    let good = files.write("good", format!("a:{TEXT_KEY}\n"));
    for empty in [files.write("empty", ""), files.write("lines", "\n\r\n\n")] {
        for rules in BOTH {
            let folder = KeyFolder::new();
            folder.write("psk.d/good", format!("a:{TEXT_KEY}\n"));
            folder.write("psk.d/none", fs::read(&empty).unwrap());
            let (_, problems) = load(&[folder.path("psk.d")], rules).unwrap();
            assert_eq!(codes(&problems), [(ProblemSeverity::Warning, "no-keys")], "in a folder");
            for paths in [[good.clone(), empty.clone()], [empty.clone(), good.clone()]] {
                let (set, problems) = load(&paths, rules).unwrap();
                assert_eq!(set.len(), 1);
                assert_eq!(codes(&problems), [(ProblemSeverity::Warning, "no-keys")]);
                assert_eq!(problems[0].file.as_ref(), Some(&empty));
            }
            let problems = problems_of(load(std::slice::from_ref(&empty), rules));
            assert_eq!(codes(&problems), [(ProblemSeverity::Error, "no-keys")]);
        }
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_plain_file_is_refused_without_waiting_for_it() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let files = KeyFolder::new();
    let fifo = files.path("psk.d/fifo");
    fs::create_dir(files.path("psk.d")).unwrap();
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let (done, wait) = std::sync::mpsc::channel();
    // A pipe in a folder of keys is none of its files; one that is named is waited for (sys/pipe.rs).
    let paths = [files.path("psk.d"), PathBuf::from("/dev/null")];
    std::thread::spawn(move || {
        for path in paths {
            done.send(codes(&problems_of(load(&[path], NATIVE)))).unwrap();
        }
    });
    for _ in 0..2 {
        let codes = wait.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(codes.expect("it hangs"), [(ProblemSeverity::Error, "not-readable")]);
    }
}

// ---- no word of a key -----------------------------------------------------------------------

const CANARY: &str = "Xq7Zk9Vw3Jm5Bt1Hf8Pd2Ry6Nc4Lg0Sv";
const CANARY_HEX: &str = "d7a3f19c5e82b64071cd938af25e06bb4c1f7da9e3508264960fb82dc7513eae";

/// Every problem that can be made, of lines whose keys all come from the two above.
fn all_problems() -> Vec<KeyFileProblem> {
    let files = KeyFolder::new();
    let mut problems = Vec::new();
    let odd = &CANARY_HEX[..63];
    let nearly = CANARY_HEX.replacen('a', "g", 1);
    let blank = format!("{} {}", &CANARY_HEX[..32], &CANARY_HEX[32..]);
    let long = CANARY.repeat(17);
    let identity = "i".repeat(256);
    let lines: Vec<Vec<u8>> = [
        format!("a:{odd}"),
        format!("a:{nearly}"),
        format!("a:{blank}"),
        format!("a: {CANARY}"),
        format!("a:{CANARY_HEX} "),
        format!("a:{}", &CANARY[..15]),
        format!("a:{}", &CANARY[..20]),
        format!("a:{}", &CANARY_HEX[..30]),
        format!("a:{long}"),
        format!("a:{}", CANARY_HEX.repeat(17)),
        format!("{identity}:{CANARY}"),
        format!(":{CANARY}"),
        format!("\u{feff}a:{CANARY}"),
        format!("#a:{CANARY}"),
        format!("a\x1b:{CANARY}"),
        format!(" a:{CANARY}"),
        format!("a:{CANARY}\na:{CANARY_HEX}"),
        format!("a:{CANARY}\nb:{CANARY}"),
        format!("a:{CANARY_HEX}\nb:{CANARY_HEX}"),
        format!("a:{CANARY}").chars().flat_map(|c| [c, '\0']).collect(),
        CANARY.to_owned(),
        CANARY_HEX.to_owned(),
        format!("# {CANARY}"),
        format!("psk = {CANARY}"),
        format!("\0{CANARY}"),
        " ".to_owned(),
        String::new(),
    ]
    .map(String::into_bytes)
    .into_iter()
    .chain([[&b"\xff\xfe:"[..], CANARY.as_bytes()].concat()])
    .collect();
    let mut say = |loaded: Loaded| match loaded {
        Ok((set, said)) => {
            problems.extend(said);
            let shown = format!("{set:?}");
            assert!(!shows_key(&shown), "{shown}");
        }
        Err(said) => problems.extend(said),
    };
    for (n, line) in lines.iter().enumerate() {
        for end in ["", "\n", "\r\n"] {
            let path = files.write(&format!("{n}"), [line, end.as_bytes()].concat());
            for rules in BOTH {
                say(load(std::slice::from_ref(&path), rules));
            }
        }
    }
    let whole = files.write("whole", format!("a:{CANARY}\nb:{CANARY_HEX}\n"));
    let whole = load(&[whole], NATIVE).unwrap().0;
    for text in [format!("a:{}", &CANARY[..20]), format!("b:{}", &CANARY_HEX[..41])] {
        say(SecretSet::load(&[files.write("cut", text)], NATIVE, Some(&whole)));
    }
    fs::create_dir(files.path("psk.d")).unwrap();
    let loose = files.write("loose", format!("a:{CANARY}\n"));
    mode(&loose, 0o666);
    #[cfg(unix)]
    let _ = std::os::unix::fs::chown(&loose, Some(54321), None);
    for rules in BOTH {
        for path in
            [files.path("psk.d"), files.path("missing"), PathBuf::from("/dev/null"), loose.clone()]
        {
            say(load(&[path], rules));
        }
    }
    problems
}

/// Whether a text shows six characters or bytes in a row of one of the two keys, in any spelling.
fn shows_key(text: &str) -> bool {
    let bytes = data_encoding::HEXLOWER.decode(CANARY_HEX.as_bytes()).unwrap();
    let hex_of_text = data_encoding::HEXLOWER.encode(CANARY.as_bytes());
    let list = |bytes: &[u8]| {
        let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
        numbers.join(", ")
    };
    let lower = text.to_lowercase();
    let shown = |wanted: &str| {
        wanted
            .as_bytes()
            .windows(6)
            .any(|part| lower.contains(&*String::from_utf8_lossy(part).to_lowercase()))
    };
    shown(CANARY)
        || shown(CANARY_HEX)
        || shown(&hex_of_text)
        || [&bytes[..], CANARY.as_bytes()]
            .iter()
            .any(|key| key.windows(4).any(|part| text.contains(&list(part))))
}

#[test]
fn no_problem_shows_a_key() {
    let problems = all_problems();
    for problem in &problems {
        let shown = format!("{problem:?}");
        assert!(!shows_key(&shown), "{shown}");
    }
    // The codes that the source has, so that a new one cannot be forgotten here. Those of folders have tests
    // of their own.
    let sources = [include_str!("file.rs"), include_str!("problem.rs")];
    let is_code = |text: &&str| {
        text.contains('-') && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    let texts = sources.iter().flat_map(|source| source.split('"').skip(1).step_by(2));
    let mut wanted: BTreeSet<_> = texts.filter(is_code).collect();
    assert!(wanted.len() >= 19, "{wanted:?}");
    wanted.remove("not-a-key-file");
    if !problems.iter().any(|p| p.code == "foreign-owner") {
        wanted.remove("foreign-owner"); // Not root, and perhaps not Unix.
    }
    #[cfg(not(unix))]
    wanted.remove("loose-permissions");
    let found: BTreeSet<_> = problems.iter().map(|p| p.code).collect();
    assert_eq!(found, wanted);
    assert!(shows_key(CANARY) && shows_key(&format!("{:?}", CANARY.as_bytes())));
}

#[test]
fn a_file_cut_anywhere_neither_panics_nor_shows_a_key_nor_changes_whole_lines() {
    let text = format!(
        "client1:{CANARY_HEX}\r\nZoë:{CANARY}\n\n#x\r:{CANARY}1\n\u{feff}y: {CANARY_HEX}\nz:{CANARY}2"
    );
    for rules in BOTH {
        for cut in 0..text.len() {
            let (entries, problems) = read(&text.as_bytes()[..cut], rules);
            for problem in &problems {
                let shown = format!("{problem:?}");
                assert!(!shows_key(&shown), "{shown}");
            }
            if problems.iter().all(|p| p.severity != ProblemSeverity::Error) {
                let (whole, _) = read(&text, rules);
                let last = entries.len() - 1;
                for (n, (entry, whole)) in entries.iter().zip(&whole).enumerate() {
                    assert_eq!(entry.identity, whole.identity);
                    // A shorter key at the very end cannot be told from a whole one.
                    assert!(entry.key.constant_time_eq(&whole.key) || n == last, "{cut}");
                }
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_in_place_of_a_whole_one_takes_at_a_lines_end_only() {
    let files = KeyFolder::new();
    let colons: Vec<_> = HEX_KEY.as_bytes().chunks(2).map(|d| str::from_utf8(d).unwrap()).collect();
    let colons = colons.join(":");
    // The last two are text of which a part is hex.
    let text = format!(
        "a:{HEX_KEY}\nb:{TEXT_KEY}\nc:{CANARY}\nd:{colons}\ne:{HEX_KEY}g\nf:{colons} and more of it\n"
    );
    for rules in BOTH {
        let whole = files.write("whole", &text);
        let (set, _) = SecretSet::load(&[whole], rules, None).unwrap();
        let mut taken = 0;
        for cut in 0..text.len() {
            let path = files.write("cut", &text[..cut]);
            let told = match SecretSet::load(&[path], rules, Some(&set)) {
                Err(told) => told,
                Ok((fewer, _)) => {
                    // What is there is what there was: nobody got another key.
                    assert!(text[cut..].starts_with('\n') || text[..cut].ends_with('\n'), "{cut}");
                    let same = |(who, _, _): (&Identity, _, _)| {
                        fewer.grants(&grant(&set, str::from_utf8(who.as_bytes()).unwrap()))
                    };
                    assert!(fewer.locations().all(same), "cut at {cut}");
                    taken += 1;
                    continue;
                }
            };
            assert!(!told.iter().any(|problem| shows_key(&format!("{problem:?}"))), "{told:?}");
        }
        // With and without the line feed, behind each line but the last, and that one without.
        assert_eq!(taken, 11);
    }
    // Whoever means it can say so.
    let old = reload(&files, &format!("a:{TEXT_KEY}\n"), None);
    reload(&files, &format!("a:{}\n", &TEXT_KEY[..20]), Some(&old));
    reload(&files, &format!("a:{TEXT_KEY} and more"), Some(&old));
}

#[test]
fn any_bytes_at_all_are_read_without_a_panic() {
    let alphabet = b"a0f:::\r\n\n\0 #\xff\xef\xbb\xbfZ";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..4000 {
        let mut text = Vec::new();
        for _ in 0..80 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push(alphabet[(state >> 33) as usize % alphabet.len()]);
        }
        for rules in BOTH {
            let (entries, problems) = read(&text, rules);
            assert!(!entries.is_empty() || !problems.is_empty());
            for entry in entries {
                assert!((MIN_KEY_SIZE..=MAX_KEY_SIZE).contains(&entry.key.len()));
                assert!(!entry.identity.as_bytes().iter().any(|b| b"\r\n\0:".contains(b)));
            }
        }
    }
}

// ---- reload ---------------------------------------------------------------------------------

fn reload(files: &KeyFolder, text: &str, previous: Option<&SecretSet>) -> SecretSet {
    let path = files.write("psk", text);
    SecretSet::load(&[path], NATIVE, previous).unwrap().0
}

fn grant(set: &SecretSet, identity: &str) -> Grant {
    set.find(identity.as_bytes()).unwrap().1.into_grant()
}

#[test]
fn a_reload_keeps_the_grants_of_unchanged_keys_and_no_other() {
    let files = KeyFolder::new();
    let old = reload(&files, &format!("a:{HEX_KEY}\nb:{TEXT_KEY}\nc:{TEXT_KEY} c\n"), None);
    let [a, b, c] = ["a", "b", "c"].map(|who| grant(&old, who));
    assert!([&a, &b, &c].iter().all(|grant| old.grants(grant)));

    // Another spelling and another order of the same; b has another key, c is gone, d is new.
    let text = format!("d:{TEXT_KEY} d\nb:{TEXT_KEY} b\na:{}\n", HEX_KEY.to_uppercase());
    let new = reload(&files, &text, Some(&old));
    assert!(new.grants(&a));
    assert!(!new.grants(&b) && !new.grants(&c));
    assert!(new.grants(&grant(&new, "b")) && !old.grants(&grant(&new, "b")));
    assert!(new.grants(&grant(&new, "d")) && !old.grants(&grant(&new, "d")));

    // A key that comes back does not bring old sessions back.
    let text = format!("a:{HEX_KEY}\nb:{TEXT_KEY}\nc:{TEXT_KEY} c\n");
    let back = reload(&files, &text, Some(&new));
    assert!(back.grants(&a) && !back.grants(&b) && !back.grants(&c));
}

#[test]
fn a_set_that_was_not_made_from_the_one_before_grants_nothing_of_it() {
    let files = KeyFolder::new();
    let text = format!("a:{HEX_KEY}\n");
    let (one, two) = (reload(&files, &text, None), reload(&files, &text, None));
    assert!(!two.grants(&grant(&one, "a")));
}

#[test]
fn swapped_keys_revoke_both_identities() {
    let files = KeyFolder::new();
    let old = reload(&files, &format!("a:{HEX_KEY}\nb:{TEXT_KEY}\n"), None);
    let new = reload(&files, &format!("a:{TEXT_KEY}\nb:{HEX_KEY}\n"), Some(&old));
    assert!(!new.grants(&grant(&old, "a")) && !new.grants(&grant(&old, "b")));
}

#[test]
fn what_two_sets_share_is_an_identity_with_the_same_key() {
    let files = KeyFolder::new();
    let one = reload(&files, &format!("a:{HEX_KEY}\nb:{TEXT_KEY}\nc:{TEXT_KEY} c\n"), None);
    let two = reload(&files, &format!("a:{HEX_KEY}\nb:{TEXT_KEY} other\nd:{TEXT_KEY} c\n"), None);
    let shared: Vec<_> = one.shared_identities(&two).map(Identity::as_bytes).collect();
    assert_eq!(shared, [b"a"]);
}

#[test]
fn an_answer_is_the_key_of_who_is_known_and_a_steady_decoy_for_anybody_else() {
    let set =
        SecretSet::from_pairs(&[(b"alice", &sequential_bytes(64)), (b"bob", TEXT_KEY.as_bytes())]);
    let keys = PeerKeys::hiding(set.clone(), |who| who.as_bytes() == b"bob");
    let answer = |name: &[u8]| {
        let given = keys.answer_for(name).unwrap().unwrap();
        let who = given.claim().map(|claim| claim.who().as_bytes().to_vec());
        assert_eq!(keys.has_key_for(name), who.is_some());
        (who, given.key(&keys).unwrap().to_vec())
    };
    assert_eq!(answer(b"alice"), (Some(b"alice".to_vec()), sequential_bytes(64)));
    for stranger in [&b"bob"[..], b"carol", b"", b"alice\0", &[b'x'; 60_000]] {
        let (who, key) = answer(stranger);
        assert_eq!(who, None);
        assert_eq!(key, answer(stranger).1);
        // As long as somebody's key, and nobody's.
        assert!(key.len() == 64 || key.len() == TEXT_KEY.len());
        assert!(key != sequential_bytes(64) && key != TEXT_KEY.as_bytes());
    }
    assert_ne!(answer(b"carol").1[..32], answer(b"dave").1[..32]);
}

#[test]
fn a_decoy_is_steady_differs_by_identity_and_is_nobodys_key() {
    let mut seen = BTreeSet::new();
    let long = [b'x'; 65_535];
    for identity in [&b""[..], b"a", b"b", b"a\0", b"client1", &long] {
        let one = derive_decoy(identity).unwrap().to_vec();
        assert_eq!(one, derive_decoy(identity).unwrap().to_vec());
        assert_eq!(one.len(), 32);
        assert_ne!(one, sequential_bytes(32));
        assert!(seen.insert(one));
    }
    let set = SecretSet::with_random_key("demo").unwrap();
    assert_ne!(key(&set, "demo"), derive_decoy(b"demo").unwrap().as_slice());
}

#[test]
fn what_has_changed_is_told_by_names_and_not_without_end() {
    let set = |pairs: &[(&[u8], &[u8])]| SecretSet::from_pairs(pairs);
    let before = set(&[(b"a", &[1; 16]), (b"b", &[2; 16])]);
    assert!(before.changes_since(&before).is_none());
    let after = set(&[(b"b", &[3; 16]), (b"c", &[4; 16])]);
    let told = after.changes_since(&before).expect("changes").to_string();
    assert_eq!(told, "added \"c\"; removed \"a\"; replaced \"b\"");
    let names: Vec<String> = (10..30).map(|n| format!("plc-{n}")).collect();
    let many: Vec<(&[u8], &[u8])> =
        names.iter().map(|name| (name.as_bytes(), &[5; 16][..])).collect();
    let told = set(&many).changes_since(&set(&many[..1])).expect("changes").to_string();
    assert!(told.ends_with("\"plc-18\" and 11 more; replaced \"plc-10\""), "{told}");
}

#[test]
fn a_file_of_windows_that_strangers_may_read_comes_with_the_command_that_mends_it() {
    use crate::sys::acl::{BroadAccess, LooseAccess};
    let path = Path::new(r"C:\keys\psk.txt");
    let of = |open, rules| {
        super::file::loose_access_problem(
            path,
            LooseAccess { access: open, group: "Users", account: "*S-1-5-32-545" },
            rules,
        )
    };
    let read = of(BroadAccess::Read, NATIVE);
    assert_eq!((read.severity, read.code), (ProblemSeverity::Error, "loose-permissions"));
    assert_eq!(read.message, r"the group Users may read the key file C:\keys\psk.txt");
    let wanted = "icacls \"C:\\keys\\psk.txt\" /inheritance:r /remove:g \"*S-1-5-32-545\" /grant:r \
                  *S-1-3-4:F *S-1-5-18:F *S-1-5-32-544:F";
    assert_eq!(read.help.as_deref(), Some(wanted));
    let change = of(BroadAccess::Change, STUNNEL);
    assert_eq!(change.severity, ProblemSeverity::Warning);
    assert!(change.message.contains("may change"), "{}", change.message);
}

#[test]
fn a_file_of_windows_that_belongs_to_another_user_comes_with_the_command_that_mends_it() {
    let path = Path::new(r"C:\keys\psk.txt");
    let owned = |rules| super::file::foreign_owner_problem(path, "S-1-5-21-1-2-3-1002", rules);
    let native = owned(NATIVE);
    assert_eq!((native.severity, native.code), (ProblemSeverity::Error, "foreign-owner"));
    assert!(native.message.contains("belongs to S-1-5-21-1-2-3-1002"), "{}", native.message);
    let wanted = r#"icacls "C:\keys\psk.txt" /setowner *S-1-5-32-544"#;
    assert_eq!(native.help.as_deref(), Some(wanted));
    assert_eq!(owned(STUNNEL).severity, ProblemSeverity::Warning);
}
