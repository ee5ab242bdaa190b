//! The same configuration for Debian's stunnel and for pskgate: both accept it or both refuse it, and
//! what comes of it is the same, except for what is listed, with its reason, in
//! `tests/cases/stunnel/differences.txt`.
//!
//! `CASE=words cargo test --test it differential` runs the cases whose names contain these words, and
//! shows what came of them.

pub mod corpus;
pub mod facts;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::harness::openssl;
use corpus::{Case, Difference};
use facts::{Certificate, Outcome, Program};
use pskgate::config::options::TABLE;

/// At least so many are known.
const CASES: usize = 600;

/// Most of the time is waited: for the program's start, and for peers.
const AT_ONCE: usize = 6;

struct Compared {
    name: String,
    stunnel: Outcome,
    ours: Outcome,
    said: [String; 2],
}

impl Compared {
    fn kind(&self) -> Option<&'static str> {
        match (&self.stunnel, &self.ours) {
            (a, b) if a == b => None,
            (Outcome::Accepted(_), Outcome::Refused) => Some("refuses"),
            (Outcome::Refused, _) => Some("accepts"),
            _ => Some("differs"),
        }
    }

    fn show(&self) -> String {
        let outcome = |outcome: &Outcome, said: &str| match outcome {
            Outcome::Refused => format!("refused:\n{}", tail(said)),
            Outcome::Accepted(facts) => format!("accepted:\n    {}", facts.join("\n    ")),
        };
        format!(
            "== {}\nstunnel {}\npskgate {}\n",
            self.name,
            outcome(&self.stunnel, &self.said[0]),
            outcome(&self.ours, &self.said[1])
        )
    }
}

fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let start = lines.len().saturating_sub(8);
    lines[start..].iter().map(|line| format!("    {line}\n")).collect()
}

fn compare(cases: &[Case]) -> Vec<Compared> {
    let folder = TempDir::new().unwrap();
    openssl::certificate(folder.path());
    let certificate =
        Certificate { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (stunnel, first) = facts::run(case, Program::Stunnel, &certificate);
                    let (ours, second) = facts::run(case, Program::Pskgate, &certificate);
                    let name = case.name.clone();
                    let compared = Compared { name, stunnel, ours, said: [first, second] };
                    all.lock().unwrap().push(compared);
                }
            });
        }
    });
    all.into_inner().unwrap()
}

#[test]
fn stunnel_and_pskgate_make_the_same_of_every_file_but_for_what_is_listed() {
    let is_root = rustix::process::geteuid().is_root();
    let wanted = std::env::var("CASE").ok();
    let all = corpus::all();
    assert!(all.len() >= CASES, "only {} cases were found", all.len());
    let mut cases: Vec<Case> = all.into_iter().filter(|case| is_root || !case.root).collect();
    if let Some(wanted) = &wanted {
        cases.retain(|case| case.name.contains(wanted.as_str()));
    }
    let listed = corpus::differences();
    let kind_of = |name: &str| -> Option<&Difference> {
        listed.iter().find(|difference| difference.cases.iter().any(|case| case == name))
    };
    let judge = |one: &Compared| -> Option<String> {
        let case = cases.iter().find(|case| case.name == one.name).unwrap();
        if (one.stunnel != Outcome::Refused) != case.accepted {
            return Some(format!("stunnel does not do what the corpus says of it\n{}", one.show()));
        }
        match (one.kind(), kind_of(&one.name)) {
            (None, None) => None,
            (Some(kind), Some(listed)) if listed.kind == kind => None,
            (Some(kind), _) => Some(format!("`{kind}` is not listed\n{}", one.show())),
            (None, Some(_)) => Some(format!("it is listed, and does not differ\n{}", one.show())),
        }
    };
    let mut compared = compare(&cases);
    assert_eq!(compared.len(), cases.len(), "every case was run");
    // stunnel goes on without an address that is taken, and a neighbour may have taken it between
    // the choice of a port and its use: what looks wrong is looked at again, alone.
    for one in compared.iter_mut().filter(|one| judge(one).is_some()) {
        let alone: Vec<Case> = cases.iter().filter(|case| case.name == one.name).cloned().collect();
        *one = compare(&alone).remove(0);
    }
    let mut wrong: Vec<String> = compared.iter().filter_map(judge).collect();
    let agreed = compared.iter().filter(|one| one.kind().is_none()).count();
    if wanted.is_some() {
        compared.iter().for_each(|one| eprintln!("{}", one.show()));
    }
    eprintln!(
        "{} cases, {agreed} agree, {} differ as listed",
        compared.len(),
        compared.len() - agreed
    );
    wrong.sort();
    assert!(wrong.is_empty(), "{} cases are wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// Why `redirect` is refused beside PSKsecrets: with it a key is not enough in stunnel.
#[test]
fn stunnel_redirects_a_client_with_the_right_key() {
    let cases = corpus::all();
    let case = cases.iter().find(|case| case.name == "redirect: a client with the right key");
    let compared = compare(std::slice::from_ref(case.unwrap())).remove(0);
    let Outcome::Accepted(facts) = &compared.stunnel else { panic!("{}", compared.show()) };
    for version in ["1.3", "1.2"] {
        let fact = facts.iter().find(|fact| fact.starts_with(&format!("A1, up to {version}: ")));
        let fact = fact.unwrap_or_else(|| panic!("{}", compared.show()));
        assert!(fact.contains("PSK") || fact.contains("TLS_AES_128_GCM_SHA256"), "{fact}");
        assert!(fact.contains("-> B2 "), "{fact}");
    }
    assert_eq!(compared.ours, Outcome::Refused);
}

#[test]
fn every_listed_difference_is_about_a_case_and_no_case_is_listed_twice() {
    let cases = corpus::all();
    let mut seen = BTreeSet::new();
    for name in corpus::differences().into_iter().flat_map(|difference| difference.cases) {
        assert!(cases.iter().any(|case| case.name == name), "there is no case `{name}`");
        assert!(seen.insert(name.clone()), "`{name}` is listed twice");
    }
}

/// stunnel takes any value of these, at least at the start.
const ANYTHING_GOES: &[&str] = &[
    "EGD",
    "connect",
    "RNDfile",
    "service",
    "ident",
    "OCSP",
    "CRLpath",
    "protocolAuthentication",
    "protocolDomain",
    "protocolHeader",
    "protocolHost",
    "protocolPassword",
    "protocolUsername",
];

#[test]
fn every_option_has_a_file_that_is_accepted_and_one_that_is_refused() {
    let cases = corpus::all();
    let covered = |accepted: bool, name: &str| {
        cases
            .iter()
            .any(|case| case.accepted == accepted && case.subject().eq_ignore_ascii_case(name))
    };
    let (mut missing, mut options) = (Vec::new(), 0);
    for name in TABLE.iter().flat_map(|row| row.stunnel) {
        options += 1;
        if !covered(true, name) && !NOT_IN_568.contains(name) {
            missing.push(format!("no case with a good `{name}`"));
        }
        if !covered(false, name) && !ANYTHING_GOES.contains(name) {
            missing.push(format!("no case with a bad `{name}`"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(options >= 100, "only {options} options");
}

/// Options of other versions and other machines, which Debian's stunnel refuses by name.
const NOT_IN_568: &[&str] = &[
    "setEnv",
    "provider",
    "providerParameter",
    "TIMEOUTocsp",
    "OCSPrequire",
    "CAstore",
    "CRLcheckChain",
    "transport",
    "compression",
    "taskbar",
    "iconActive",
    "iconError",
    "iconIdle",
];
