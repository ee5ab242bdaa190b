#![allow(clippy::unwrap_used)]

use std::fs;

use super::super::{IdentityRule, OnLoosePermissions, PeerKeys};
use super::*;

const RULES: KeyFileRules = KeyFileRules {
    duplicates: OnDuplicate::Refuse,
    identities: IdentityRule::Utf8,
    permissions: OnLoosePermissions::Warn,
    also_owned_by: None,
    writer: KeyFileWriter::Operator,
    may_wait_for_files: false,
};

fn line(identity: &str) -> String {
    format!("{identity}:the key of {identity}, of thirty-two bytes and more\n")
}

/// A service of two files and a folder.
struct TestService {
    folder: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

impl TestService {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("keys")).unwrap();
        let paths = ["one", "two", "keys"].map(|name| folder.path().join(name)).to_vec();
        let site = Self { folder, paths };
        site.put("one", &(line("a") + &line("b")));
        site.put("two", &line("c"));
        site.put("keys/d", &line("d"));
        site.put("keys/e", &line("e"));
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(self.path(name), mode).unwrap();
        }
    }

    fn start(&self) -> SecretSet {
        SecretSet::load(&self.paths, RULES, None).unwrap().0
    }

    fn renew(&self, old: &SecretSet, last: &[PathBuf]) -> RenewedKeys {
        let (sets, hold) = ([old], HashSet::new());
        let in_force = KeysInForce {
            sets: &sets,
            paths: &self.paths,
            held_identities: &hold,
            emptied_on_purpose: last,
        };
        renew(&self.paths, RULES, &mut KeyFileReader::default(), Some(&in_force)).unwrap()
    }
}

fn names(set: &SecretSet) -> String {
    let mut names: Vec<_> =
        set.locations().map(|(identity, ..)| identity.to_plain_text()).collect();
    names.sort();
    names.concat()
}

fn errors(renewed: &RenewedKeys) -> Vec<&'static str> {
    let is_error = |problem: &&KeyFileProblem| problem.severity == ProblemSeverity::KeepsOldKeys;
    renewed.problems.iter().filter(is_error).map(|problem| problem.code).collect()
}

#[test]
fn each_file_counts_by_itself() {
    let site = TestService::new();
    let old = site.start();
    let grant = |who: &str| old.find(who.as_bytes()).unwrap().1.into_grant();
    let (a, c) = (grant("a"), grant("c"));
    for broken in ["no colon\n", "c:the key of c, of thir", "c:short\n"] {
        site.put("one", &line("a"));
        site.put("two", broken);
        site.put("keys/d", &(line("d") + &line("f")));
        fs::remove_file(site.path("keys/e")).unwrap();
        let renewed = site.renew(&old, &[]);
        assert_eq!(names(&renewed.set), "acdf", "{broken}");
        assert_eq!(errors(&renewed).len(), 1, "{broken}: {:?}", renewed.problems);
        assert!(renewed.set.grants(&a) && renewed.set.grants(&c), "nobody is cut");
        site.put("keys/e", &line("e"));
    }
    fs::remove_file(site.path("two")).unwrap();
    let renewed = site.renew(&old, &[]);
    assert_eq!((names(&renewed.set).as_str(), errors(&renewed)), ("acdef", vec!["no-such-file"]));
}

#[test]
fn a_folder_without_a_file_keeps_what_it_had_and_a_key_that_moves_keeps_its_serial() {
    let site = TestService::new();
    let old = site.start();
    let grant = old.find(b"d").unwrap().1.into_grant();
    fs::rename(site.path("keys/d"), site.path("aside")).unwrap();
    site.put("two", &(line("c") + &line("d")));
    let renewed = site.renew(&old, &[]);
    assert!(renewed.set.grants(&grant) && renewed.problems.is_empty(), "{:?}", renewed.problems);
    fs::remove_file(site.path("keys/e")).unwrap();
    site.put("two", &line("c"));
    for gone in [false, true] {
        if gone {
            fs::remove_dir(site.path("keys")).unwrap();
        }
        let renewed = site.renew(&old, &[]);
        assert_eq!(names(&renewed.set), "abcde");
        assert_eq!(errors(&renewed).len(), 1, "{:?}", renewed.problems);
    }
}

#[test]
fn an_identity_in_two_files_keeps_what_it_has() {
    let site = TestService::new();
    let old = site.start();
    let held = old.find(b"a").unwrap().1.into_grant();
    site.put("one", "a:another key of a, of thirty-two bytes and more\n");
    site.put("two", &(line("c") + &line("a") + &line("new")));
    site.put("keys/d", &line("new"));
    let renewed = site.renew(&old, &[]);
    assert!(renewed.set.grants(&held));
    // `b` and `d` are gone; `new`, which two files have, is not let in by either.
    assert_eq!(names(&renewed.set), "ace");
    assert_eq!(errors(&renewed), ["duplicate-identity"; 2]);
}

#[test]
fn the_last_key_goes_by_order_alone_and_then_everybody_is_answered_as_a_wrong_key_is() {
    let site = TestService::new();
    fs::remove_dir_all(site.path("keys")).unwrap();
    let mut site = site;
    site.paths.truncate(2);
    let old = site.start();
    site.put("two", "");
    let renewed = site.renew(&old, &[]);
    assert_eq!((names(&renewed.set).as_str(), errors(&renewed).len()), ("ab", 0));
    site.put("one", "\n");
    let kept = site.renew(&renewed.set, &[]);
    assert_eq!((names(&kept.set).as_str(), errors(&kept)), ("ab", vec!["no-keys"]));

    let empty = site.renew(&renewed.set, &[site.path("one")]).set;
    assert!(empty.is_empty() && empty.first().is_none());
    // It stays so without another order, and a key ends it.
    let again = site.renew(&empty, &[]);
    assert!(again.set.is_empty() && errors(&again).is_empty(), "{:?}", again.problems);
    let keys = PeerKeys::unrestricted(std::sync::Arc::new(empty));
    assert!(!keys.has_key_for(b"a"));
    let answer = keys.answer_for(b"a").unwrap().unwrap();
    assert!(answer.claim().is_none() && answer.key(&keys).is_some_and(|key| key.len() == 32));
    site.put("one", &line("a"));
    assert_eq!(names(&site.renew(&again.set, &[]).set), "a");
}

#[test]
fn what_the_configuration_in_force_does_not_name_is_taken_whole_or_not_at_all() {
    let site = TestService::new();
    let old = site.start();
    site.put("new", "no colon\n");
    let (sets, hold) = ([&old], HashSet::new());
    let in_force = KeysInForce {
        sets: &sets,
        paths: &site.paths,
        held_identities: &hold,
        emptied_on_purpose: &[],
    };
    let paths = [site.paths.clone(), vec![site.path("new")]].concat();
    let refused = renew(&paths, RULES, &mut KeyFileReader::default(), Some(&in_force)).unwrap_err();
    assert!(refused.iter().any(|problem| problem.severity == ProblemSeverity::Error));
    // A mistake of the configuration's, where a file that it names anew has an identity again.
    site.put("new", &line("a"));
    assert!(renew(&paths, RULES, &mut KeyFileReader::default(), Some(&in_force)).is_err());
}
