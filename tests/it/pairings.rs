//! stunnel4 and pskgate at the two ends of one tunnel, in all four pairings, for every file of the
//! corpus in `tests/cases/stunnel` that both accept and that has pre-shared keys and an `accept`. None
//! is left out to save time.
//!
//! Each program runs the file. Before its server sections stands each program as a client, and behind
//! its client sections each program as a server, with nothing set but addresses and the key, and what
//! the corpus says of the peer: its identity, its newest version, the name that it asks for, and that
//! it speaks TLS 1.0 and 1.1, which pskgate does as a client too only where the file says so. What is
//! sent through comes back in all four pairings or in none. Only what `differences.txt` lists as a
//! difference in what comes of it may differ here.
//!
//! `CASE=words cargo test --test it pairings` takes the cases whose names contain these words, and
//! shows what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use tempfile::TempDir;

use crate::differential::corpus::{self, Case};
use crate::differential::facts::{
    Certificate, Line, Listening, Place, Program, Running, Targets, connect,
};
use crate::harness::{
    IDENTITY, KEY, OTHER_KEY, WAIT_TIMEOUT, free_port, local, openssl, secret, until,
};

pub const PROGRAMS: [Program; 2] = [Program::Stunnel, Program::Pskgate];

/// At least so many files are paired as servers and as clients, and work between two ends of stunnel.
const SERVERS: usize = 290;
const CLIENTS: usize = 45;

/// At most so many let nothing through in any pairing, as they are meant to: with another key, with
/// nobody behind them, with suites that a peer without settings has not, or by way of a proxy or a packet
/// filter that is not there (`protocols` has them).
const NOTHING: usize = 23;

/// Files that share their plain peers.
const BATCH: usize = 12;

/// Batches at a time: most of the time is waited.
const AT_ONCE: usize = 6;

const SENT: &str = "there and back\n";

/// A case and the name of one of its listeners.
type Spot = (String, String);

/// What came back, by the program of the server's end and that of the client's.
type Replies = BTreeMap<(Program, Program), String>;

/// A file of the corpus, run by a program.
struct Subject<'a> {
    case: &'a Case,
    program: Program,
    /// Who is behind its client sections.
    behind: Program,
    place: Place,
    running: Running,
    listeners: Vec<(String, Listening)>,
}

/// A peer with default settings.
pub struct Plain {
    pub place: Place,
    _running: Running,
}

impl Plain {
    /// Starts it with these sections, and waits until it listens at each of these addresses.
    fn start(program: Program, sections: &str, keys: Vec<(String, String)>, at: &[String]) -> Self {
        let case = Case { text: format!("pid =\n{sections}"), files: keys, ..Case::default() };
        let mut place = Place::new(&case, &Certificate::default(), Targets::AreHere);
        for (index, address) in at.iter().enumerate() {
            if let Some(Ok(port)) = address.rsplit(':').next().map(str::parse) {
                place.ports.insert(format!("P{index}"), port);
            }
        }
        let mut running = Running::start(&case, program, &place);
        until(&format!("{program:?} listens with\n{sections}"), WAIT_TIMEOUT, || {
            let found = running.settle(&case, &place).unwrap_or_default();
            let found: BTreeSet<String> = found.iter().map(|(_, at)| written(at)).collect();
            at.iter().all(|address| found.contains(address)).then_some(())
        });
        Self { place, _running: running }
    }

    /// A server before an echo, for the client sections of these places.
    pub fn server(program: Program, of: &[(&Case, &Place)]) -> Option<Self> {
        let (mut sections, mut keys, mut at) = (String::new(), Vec::new(), Vec::new());
        for (case, place) in of {
            let targets = place.targets();
            for target in &targets {
                let number = at.len();
                sections += &format!(
                    "[s{number}]\naccept = {target}\nconnect = 127.0.0.1:$B1\n\
                     PSKsecrets = $DIR/keys{number}\n"
                );
                let known = secret(&identity(case), &key(case)) + &secret("client2", OTHER_KEY);
                keys.push((format!("keys{number}"), known));
                at.push(target.clone());
            }
        }
        (!at.is_empty()).then(|| Self::start(program, &sections, keys, &at))
    }

    /// A client before each of these listeners, and where it takes the connections for them.
    pub fn client(program: Program, of: &[(&Case, &Listening)]) -> Option<(Self, Vec<Listening>)> {
        let (mut sections, mut keys, mut at) = (String::new(), Vec::new(), Vec::new());
        for (number, (case, to)) in of.iter().enumerate() {
            let port = free_port();
            let to = written(to);
            sections += &format!(
                "[c{number}]\nclient = yes\naccept = 127.0.0.1:{port}\nconnect = {to}\n\
                 PSKsecrets = $DIR/keys{number}\n"
            );
            if let Some(name) = &case.ask {
                sections += &format!("sni = {name}\n");
            }
            if let Some(newest) = case.versions.first().filter(|newest| *newest != "1.3") {
                sections += &format!("sslVersionMax = TLSv{newest}\n");
            }
            if case.versions.iter().any(|version| version == "1.1") {
                sections += "sslVersionMin = TLSv1\n";
            }
            keys.push((format!("keys{number}"), secret(&identity(case), &key(case))));
            at.push(local(port));
        }
        let written: Vec<String> = at.iter().map(ToString::to_string).collect();
        let listeners = at.into_iter().map(Listening::Tcp).collect();
        (!written.is_empty()).then(|| (Self::start(program, &sections, keys, &written), listeners))
    }
}

/// An address as `accept` and `connect` have it; for every interface, that of the loopback.
fn written(at: &Listening) -> String {
    match at {
        Listening::Tcp(at) => {
            let ip = at.ip().to_string();
            let ip = match ip.as_str() {
                "0.0.0.0" => "127.0.0.1",
                "::" => "::1",
                ip => ip,
            };
            format!("{ip}:{}", at.port())
        }
        Listening::Unix(path) => path.display().to_string(),
    }
}

pub fn identity(case: &Case) -> String {
    case.identity.clone().unwrap_or_else(|| IDENTITY.to_owned())
}

/// In digits, which no key can be mistaken for.
fn key(case: &Case) -> String {
    HEXLOWER.encode(case.key.as_deref().unwrap_or(KEY.as_bytes()))
}

/// What comes back through a tunnel from the backend at its other end, or from the program there.
pub fn echo(line: Option<Line>, behind: &Place, case: &Case) -> String {
    let Some(mut line) = line else {
        return "cannot be connected to".to_owned();
    };
    line.patience(Duration::from_millis(2));
    let start = Instant::now();
    let (mut heard, mut visitors, mut answered) = (Vec::new(), Vec::new(), None);
    let mut piece = [0; 200];
    while start.elapsed() < WAIT_TIMEOUT {
        if let Some((name, mut visitor)) = behind.visitor('B') {
            let _ = visitor.write_all(format!("{name}\n").as_bytes());
            visitors.push((name, visitor));
        }
        match line.read(&mut piece) {
            Ok(count) if count > 0 => heard.extend_from_slice(&piece[..count]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ if heard.is_empty() => return "nothing".to_owned(),
            _ => return format!("says {}", String::from_utf8_lossy(&heard)),
        }
        if answered.is_none()
            && let Some((name, visitor)) =
                visitors.iter_mut().find(|(name, _)| heard == format!("{name}\n").as_bytes())
        {
            if line.write_all(SENT.as_bytes()).is_err() {
                return "breaks".to_owned();
            }
            visitor.patience(WAIT_TIMEOUT);
            let mut came = Vec::new();
            while !came.ends_with(SENT.as_bytes()) {
                match visitor.read(&mut piece) {
                    Ok(count) if count > 0 => came.extend_from_slice(&piece[..count]),
                    _ => return format!("only {} arrives", String::from_utf8_lossy(&came)),
                }
            }
            let _ = visitor.write_all(SENT.as_bytes());
            // The ports of a PROXY header are others each time.
            let came = String::from_utf8_lossy(&came).into_owned();
            let head = came.strip_suffix(SENT).unwrap_or_default();
            let head = head.split_whitespace().next().unwrap_or_default().to_owned();
            // Of several in turn it may be any; who is asked for by name is not.
            let who = if case.ask.is_some() { *name } else { "" };
            answered = Some(format!("echo {who}{head}").trim_end().to_owned());
            heard.clear();
        }
        if heard == SENT.as_bytes()
            && let Some(answered) = answered
        {
            return answered;
        }
    }
    "no answer".to_owned()
}

/// Whether somebody answered at the other end.
pub fn works(came: &str) -> bool {
    came.starts_with("echo") || came.starts_with("says")
}

pub fn is_client(case: &Case) -> bool {
    let whole = case.whole();
    whole.contains("$T") || whole.contains("$DIR/T")
}

/// Runs these files, and meets all their listeners with both programs.
fn pair(cases: &[Case], certificate: &Certificate) -> Vec<(Spot, (Program, Program), String)> {
    let mut places = Vec::new();
    for case in cases {
        for program in PROGRAMS {
            // Only client sections need to be told who is behind them.
            for behind in PROGRAMS.into_iter().take(if is_client(case) { 2 } else { 1 }) {
                let place = Place::new(case, certificate, Targets::AreElsewhere);
                places.push((case, program, behind, place));
            }
        }
    }
    let servers = PROGRAMS.map(|program| {
        let of: Vec<(&Case, &Place)> = places
            .iter()
            .filter(|(_, _, behind, _)| *behind == program)
            .map(|(case, _, _, place)| (*case, place))
            .collect();
        Plain::server(program, &of)
    });
    let mut subjects: Vec<Subject> = places
        .into_iter()
        .map(|(case, program, behind, place)| {
            let running = Running::start(case, program, &place);
            Subject { case, program, behind, place, running, listeners: Vec::new() }
        })
        .collect();
    for subject in &mut subjects {
        let mut listeners = subject.running.settle(subject.case, &subject.place);
        let said = || format!("{:?} refuses `{}`", subject.program, subject.case.name);
        let listeners = listeners.as_mut().unwrap_or_else(|| panic!("{}", said()));
        listeners.dedup_by(|a, b| a.0 == b.0);
        subject.listeners.append(listeners);
    }
    let mut all = Vec::new();
    // Through the client sections of a file.
    for subject in &subjects {
        let server = &servers[usize::from(subject.behind == Program::Pskgate)];
        for (name, at) in subject.listeners.iter().filter(|(name, _)| name.starts_with('P')) {
            let Some(server) = server else { continue };
            let spot = (subject.case.name.clone(), name.clone());
            let came = echo(connect(at), &server.place, subject.case);
            all.push((spot, (subject.behind, subject.program), came));
        }
    }
    // To the server sections of a file.
    let doors: Vec<(&Subject, &(String, Listening))> = subjects
        .iter()
        .filter(|subject| subject.behind == Program::Stunnel)
        .flat_map(|subject| subject.listeners.iter().map(move |listener| (subject, listener)))
        .filter(|(_, (name, _))| !name.starts_with('P'))
        .collect();
    for program in PROGRAMS {
        let of: Vec<(&Case, &Listening)> =
            doors.iter().map(|(subject, (_, at))| (subject.case, at)).collect();
        let Some((_client, entries)) = Plain::client(program, &of) else { continue };
        for ((subject, (name, _)), entry) in doors.iter().zip(&entries) {
            let spot = (subject.case.name.clone(), name.clone());
            let came = echo(connect(entry), &subject.place, subject.case);
            all.push((spot, (subject.program, program), came));
        }
    }
    all
}

fn pair_all(cases: &[Case]) -> BTreeMap<Spot, Replies> {
    let folder = TempDir::new().unwrap();
    openssl::certificate(folder.path());
    let certificate =
        Certificate { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let batches: Vec<&[Case]> = cases.chunks(BATCH).collect();
    let next = AtomicUsize::new(0);
    let all: Mutex<BTreeMap<Spot, Replies>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for (spot, programs, came) in pair(batch, &certificate) {
                        all.lock().unwrap().entry(spot).or_default().insert(programs, came);
                    }
                }
            });
        }
    });
    all.into_inner().unwrap()
}

#[test]
fn stunnel_and_pskgate_are_each_others_peers_with_every_file_that_both_accept() {
    let is_root = rustix::process::geteuid().is_root();
    let wanted = std::env::var("CASE").ok();
    let listed = |kind: &str| -> BTreeSet<String> {
        let all = corpus::differences().into_iter().filter(|one| one.kind == kind);
        all.flat_map(|difference| difference.cases).collect()
    };
    let (refused, may_differ) = (listed("refuses"), listed("differs"));
    let mut cases = corpus::all();
    cases.retain(|case| {
        let whole = case.whole().to_ascii_lowercase();
        let has_keys = whole.contains("psksecrets");
        let listens = whole.contains("accept") && !case.inetd;
        // A SOCKS server waits to be asked, each program for a time of its own: `protocols` asks it.
        let protocol = whole.lines().rev().find(|line| line.starts_with("protocol ="));
        let asked = protocol.is_some_and(|line| line.ends_with("= socks"))
            && !whole.contains("client = yes");
        case.accepted
            && !refused.contains(&case.name)
            && (is_root || !case.root)
            && (has_keys && listens && !asked)
            && wanted.as_ref().is_none_or(|wanted| case.name.contains(wanted.as_str()))
    });
    let all = pair_all(&cases);
    let (mut wrong, mut differ) = (Vec::new(), Vec::new());
    let (mut servers, mut clients) = (BTreeSet::new(), BTreeSet::new());
    let mut nowhere = BTreeSet::new();
    for ((case, listener), seen) in &all {
        let shown = format!("{case}, {listener}: {seen:#?}");
        if wanted.is_some() {
            eprintln!("{shown}");
        }
        let first = seen.get(&(Program::Stunnel, Program::Stunnel));
        let agree = seen.len() == 4 && seen.values().all(|came| Some(came) == first);
        match (agree, may_differ.contains(case)) {
            (true, _) if first.is_some_and(|came| came == "nothing") => _ = nowhere.insert(case),
            (true, _) if !first.is_some_and(|came| works(came)) => wrong.push(shown),
            (true, _) if listener.starts_with('P') => _ = clients.insert(case),
            (true, _) => _ = servers.insert(case),
            (false, true) => differ.push(shown),
            (false, false) => wrong.push(shown),
        }
    }
    for case in &cases {
        let is_there = all.keys().any(|(name, _)| *name == case.name);
        if !is_there {
            wrong.push(format!("{}: nobody listens", case.name));
        }
    }
    eprintln!(
        "{} files: {} servers and {} clients work in four pairings, {} differ as listed",
        cases.len(),
        servers.len(),
        clients.len(),
        differ.len()
    );
    eprintln!("nothing in any pairing: {nowhere:#?}\ndiffer: {}", differ.join("\n"));
    assert!(wrong.is_empty(), "{} are wrong\n{}", wrong.len(), wrong.join("\n"));
    assert!(nowhere.len() <= NOTHING, "{} files let nothing through", nowhere.len());
    if wanted.is_none() {
        assert!(servers.len() >= SERVERS, "only {} files work as servers", servers.len());
        assert!(clients.len() >= CLIENTS, "only {} files work as clients", clients.len());
    }
}
