//! Files and folders of keys: which are read, and which are refused.

use super::*;

fn problems_of(loaded: Loaded) -> Vec<KeyFileProblem> {
    match loaded {
        Ok((set, _)) => panic!("{} identities were let in", set.len()),
        Err(problems) => {
            assert!(problems.iter().any(|p| p.severity == ProblemSeverity::Error));
            problems
        }
    }
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
