#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

mod files;
mod lines;
mod sets;

const NATIVE: KeyFileRules = KeyFileRules {
    duplicates: OnDuplicate::Refuse,
    identities: IdentityRule::Utf8,
    permissions: OnLoosePermissions::Refuse,
    also_owned_by: None,
    writer: KeyFileWriter::Operator,
    may_wait_for_files: false,
};

const STUNNEL: KeyFileRules = KeyFileRules {
    duplicates: OnDuplicate::LastWins,
    identities: IdentityRule::Bytes,
    permissions: OnLoosePermissions::Warn,
    also_owned_by: None,
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

fn sequential_bytes(n: u8) -> Vec<u8> {
    (0..n).collect()
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

fn key<'a>(set: &'a SecretSet, identity: &str) -> &'a [u8] {
    set.find(identity.as_bytes()).unwrap().0.expose()
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
        format!("a:{CANARY}b:{CANARY_HEX}"),
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
