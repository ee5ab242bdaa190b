//! The life of every file of `tests/cases/stunnel/shapes.cases` in stunnel4 and in pskgate, each with both
//! programs as the peer: it starts, carries bytes, refuses a wrong key, takes a changed key at SIGHUP, and stops.
//!
//! `CASE=words cargo test --test it shapes` takes the cases whose names contain these words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::differential::corpus::{self, Case};
use crate::differential::facts::{
    Certificate, Listening, Place, Program, Running, Targets, connect,
};
use crate::harness::{KEY, Stopwatch, WAIT_TIMEOUT, openssl, replace, secret};
use crate::pairings::{PROGRAMS, Plain, echo, identity, is_client, works};

/// At least so many files are led through their lives.
const CASES: usize = 36;

/// Files that share their peers.
const BATCH: usize = 6;

/// Batches at a time: most of the time is waited.
const AT_ONCE: usize = 6;

/// The key that no peer has.
const CHANGED_KEY: &str = "YSBrZXkgdGhhdCB3YXMgY2hhbmdlZCBhbmQgdGhhdCBubyBwZWVyIGhhcw==";

/// A file at work, and the peer of its client sections.
struct Subject<'a> {
    case: &'a Case,
    program: Program,
    behind: Program,
    place: Place,
    running: Running,
    listeners: Vec<(String, Listening)>,
}

/// A way through a tunnel: where it begins, in which place it ends, and between which programs it is.
struct Way<'a> {
    subject: usize,
    name: String,
    at: Listening,
    behind: Option<&'a Place>,
    peer: Program,
}

impl<'a> Subject<'a> {
    fn start(case: &'a Case, program: Program, behind: Program, place: Place) -> Self {
        let running = Running::start(case, program, &place);
        Self { case, program, behind, place, running, listeners: Vec::new() }
    }

    fn settle(&mut self) {
        let found = self.running.settle(self.case, &self.place);
        self.listeners =
            found.unwrap_or_else(|| panic!("{:?} refuses `{}`", self.program, self.case.name));
        self.listeners.dedup_by(|a, b| a.0 == b.0);
    }

    fn write_key(&self, key: &str) {
        let text = secret(&identity(self.case), key);
        replace(&self.place.folder().join("psk.txt"), &text);
    }
}

fn starts_without_sections(case: &Case) -> bool {
    case.inetd
}

/// The cases that both programs run, except those that listen nowhere.
fn cases() -> Vec<Case> {
    let is_root = rustix::process::geteuid().is_root();
    let wanted = std::env::var("CASE").ok();
    let refused: BTreeSet<String> = corpus::differences()
        .into_iter()
        .filter(|one| one.kind == "refuses")
        .flat_map(|difference| difference.cases)
        .collect();
    let mut cases = corpus::of("shapes.cases");
    cases.retain(|case| {
        case.accepted
            && !refused.contains(&case.name)
            && !starts_without_sections(case)
            && (is_root || !case.root)
            && wanted.as_ref().is_none_or(|wanted| case.name.contains(wanted.as_str()))
    });
    cases
}

/// What came of every way, by case, listener and the two programs.
type Outcomes = BTreeMap<(String, String, Program, Program), Vec<String>>;

fn lead(cases: &[Case], certificate: &Certificate, all: &Mutex<Outcomes>) {
    let mut subjects = Vec::new();
    let mut places = Vec::new();
    for case in cases {
        for program in PROGRAMS {
            for behind in PROGRAMS.into_iter().take(if is_client(case) { 2 } else { 1 }) {
                let place = Place::new(case, certificate, Targets::AreElsewhere);
                places.push((case, program, behind, place));
            }
        }
    }
    let servers = PROGRAMS.map(|program| {
        let of = places.iter().filter(|(_, _, behind, _)| *behind == program);
        let of: Vec<(&Case, &Place)> = of.map(|(case, _, _, place)| (*case, place)).collect();
        Plain::server(program, &of)
    });
    for (case, program, behind, place) in places {
        subjects.push(Subject::start(case, program, behind, place));
    }
    subjects.iter_mut().for_each(Subject::settle);
    let doors: Vec<(usize, String, Listening)> = subjects
        .iter()
        .enumerate()
        .filter(|(_, subject)| subject.behind == Program::Stunnel)
        .flat_map(|(number, subject)| {
            let servers = subject.listeners.iter().filter(|(name, _)| !name.starts_with('P'));
            servers.map(move |(name, at)| (number, name.clone(), at.clone()))
        })
        .collect();
    let clients = PROGRAMS.map(|program| {
        let of: Vec<(&Case, &Listening)> =
            doors.iter().map(|(number, _, at)| (subjects[*number].case, at)).collect();
        (program, Plain::client(program, &of))
    });
    let mut ways = Vec::new();
    for (number, subject) in subjects.iter().enumerate() {
        let server = servers[usize::from(subject.behind == Program::Pskgate)].as_ref();
        for (name, at) in subject.listeners.iter().filter(|(name, _)| name.starts_with('P')) {
            let behind = server.map(|server| &server.place);
            let (name, at) = (name.clone(), at.clone());
            ways.push(Way { subject: number, name, at, behind, peer: subject.behind });
        }
    }
    for (program, client) in &clients {
        let entries = client.as_ref().map(|(_, entries)| entries.as_slice()).unwrap_or_default();
        for ((number, name, _), entry) in doors.iter().zip(entries) {
            let (name, at) = (name.clone(), entry.clone());
            ways.push(Way { subject: *number, name, at, behind: None, peer: *program });
        }
    }
    let steps = [
        ("with the key", None),
        ("with a wrong key", Some(CHANGED_KEY)),
        ("after the change", Some(KEY)),
    ];
    for (step, key) in steps {
        if let Some(key) = key {
            subjects.iter().for_each(|subject| subject.write_key(key));
            subjects.iter().for_each(|subject| subject.running.signal(Signal::HUP));
        }
        for way in &ways {
            let came = meet(way, &subjects, key != Some(CHANGED_KEY));
            let subject = &subjects[way.subject];
            let spot = (subject.case.name.clone(), way.name.clone(), subject.program, way.peer);
            all.lock().unwrap().entry(spot).or_default().push(format!("{step}: {came}"));
        }
    }
    stop(&mut subjects, all);
}

/// Tries until it is as it should be; a reload takes its time.
fn meet(way: &Way<'_>, subjects: &[Subject<'_>], works_now: bool) -> String {
    let subject = &subjects[way.subject];
    let behind = way.behind.unwrap_or(&subject.place);
    let watch = Stopwatch::start();
    loop {
        let came = echo(connect(&way.at), behind, subject.case);
        if works(&came) == works_now || !watch.is_within(WAIT_TIMEOUT) {
            let works = if works(&came) { "works" } else { "refused" };
            return works.to_owned();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Both programs end at SIGTERM; with 0, where one sees it.
fn stop(subjects: &mut [Subject<'_>], all: &Mutex<Outcomes>) {
    subjects.iter().for_each(|subject| subject.running.signal(Signal::TERM));
    for subject in subjects {
        let watch = Stopwatch::start();
        while subject.running.is_running() && watch.is_within(WAIT_TIMEOUT) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let ended = match (subject.running.is_running(), subject.running.exit_code()) {
            (true, _) => "still runs".to_owned(),
            (false, Some(0)) => "stopped".to_owned(),
            (false, code) => format!("ended with {code:?}"),
        };
        let spot = (subject.case.name.clone(), String::new(), subject.program, subject.behind);
        all.lock().unwrap().entry(spot).or_default().push(ended);
    }
}

#[test]
fn every_shape_lives_its_life_in_all_four_pairings() {
    let cases = cases();
    if std::env::var("CASE").is_err() {
        assert!(cases.len() >= CASES, "only {} files are led", cases.len());
    }
    let folder = TempDir::new().unwrap();
    openssl::certificate(folder.path());
    let certificate =
        Certificate { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let batches: Vec<&[Case]> = cases.chunks(BATCH).collect();
    let next = AtomicUsize::new(0);
    let all: Mutex<Outcomes> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    lead(batch, &certificate, &all);
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    let life = ["with the key: works", "with a wrong key: refused", "after the change: works"];
    let wrong: Vec<String> = all
        .iter()
        .filter(|((_, listener, ..), seen)| match listener.is_empty() {
            true => **seen != ["stopped"],
            false => **seen != life,
        })
        .map(|(spot, seen)| format!("{spot:?}: {seen:?}"))
        .collect();
    assert!(wrong.is_empty(), "{} of {} are wrong\n{}", wrong.len(), all.len(), wrong.join("\n"));
    for case in &cases {
        let pairings: BTreeSet<(Program, Program)> = all
            .keys()
            .filter(|(name, listener, ..)| *name == case.name && !listener.is_empty())
            .map(|(_, _, program, peer)| (*program, *peer))
            .collect();
        assert_eq!(pairings.len(), 4, "{}: {pairings:?}", case.name);
    }
    eprintln!("{} files, {} ways", cases.len(), all.len());
}

/// The names of the options that a file has.
fn options(case: &Case) -> BTreeSet<String> {
    let lines = case.text.lines().map(str::trim).filter(|line| !line.starts_with([';', '#']));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().to_ascii_lowercase())
        .collect()
}

#[test]
fn no_two_shapes_have_the_same_set_of_options() {
    let mut seen: BTreeMap<BTreeSet<String>, String> = BTreeMap::new();
    for case in corpus::of("shapes.cases") {
        if let Some(other) = seen.insert(options(&case), case.name.clone()) {
            panic!("`{other}` and `{}` have the same options", case.name);
        }
    }
    assert!(seen.len() >= CASES, "only {} shapes", seen.len());
}
