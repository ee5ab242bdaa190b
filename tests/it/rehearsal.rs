//! `doctor`'s handshakes of a service with itself: they succeed for every file that carries a tunnel.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::differential::corpus::{self, Case};
use crate::differential::facts::{Certificate, Place, Program, Targets, run_in};
use crate::harness::process::{Finished, pskgate};
use crate::harness::{
    KEY, PskgateBuilder, Tls, client_toml, free_port, openssl, root, secret, server_toml,
    write_private,
};

/// Most of the time is waited: for the program's start, and for peers.
const AT_ONCE: usize = 6;

/// At least so many files of the corpus carry a tunnel.
const TUNNELS: usize = 200;

/// How many lines say that a handshake went well, or why this is no report of a sound file.
fn handshakes(done: &Finished) -> Result<usize, String> {
    let is = |word: &str| done.out.lines().filter(|line| line.starts_with(word)).count();
    match (is("ok    handshake:"), is("bad   handshake:") + is("note  handshake:")) {
        (good @ 1.., 0) => Ok(good),
        _ => Err(format!("{}{}", done.out, done.err)),
    }
}

/// What is wrong with `doctor`'s words about a file of the corpus in either dialect, if a tunnel was
/// carried with it.
fn rehearse(case: &Case, certificate: &Certificate) -> Option<Vec<String>> {
    let place = Place::new(case, certificate, Targets::AreHere);
    if !run_in(&place, case, Program::Pskgate).0.carried_a_tunnel() {
        return None;
    }
    let mut wrong = Vec::new();
    let mut ask = |file: &str| {
        if let Err(said) = handshakes(&pskgate(place.folder(), &["doctor", file])) {
            wrong.push(format!("== {}: {file}\n{said}", case.name));
        }
    };
    ask("case.conf");
    let converted = pskgate(place.folder(), &["convert", "case.conf", "--output", "case.toml"]);
    if converted.code == Some(0) {
        ask("case.toml");
    }
    Some(wrong)
}

#[test]
fn every_file_of_the_corpus_that_carries_a_tunnel_meets_itself_in_both_dialects() {
    let folder = TempDir::new().unwrap();
    openssl::certificate(folder.path());
    let certificate =
        Certificate { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let is_root = rustix::process::geteuid().is_root();
    let mut cases = corpus::all();
    cases.retain(|case| case.accepted && (is_root || !case.root));
    let (next, tunnels) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Some(found) = rehearse(case, &certificate) else { continue };
                    tunnels.fetch_add(1, Ordering::Relaxed);
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let (wrong, tunnels) = (wrong.into_inner().unwrap(), tunnels.into_inner());
    eprintln!("{tunnels} files that carry a tunnel");
    assert!(wrong.is_empty(), "{} reports are wrong\n{}", wrong.len(), wrong.join("\n"));
    assert!(tunnels >= TUNNELS, "only {tunnels} files carry a tunnel");
}

/// Every file below a folder, by its path from there.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path()).into_iter().map(|f| format!("{name}/{f}"))),
            false => found.push(name),
        }
    }
    found
}

#[test]
fn every_example_meets_itself() {
    let gate = PskgateBuilder::new();
    let folder = gate.folder();
    std::fs::create_dir(folder.join("keys")).unwrap();
    let identities = ["client1", "plc-01", "plc-02.anna", "plc-02.ben", "prometheus"];
    for file in ["psk.txt", "pskclient1.txt", "keys/all.txt", "prometheus.txt"] {
        let line = |identity: &&str| secret(identity, &format!("{KEY} {file} {identity}"));
        write_private(&folder.join(file), &identities.iter().map(line).collect::<String>());
    }
    let mut looked_at = 0;
    for name in files(&root().join("examples")) {
        if !name.ends_with(".conf") && !name.ends_with(".toml") {
            continue;
        }
        let text = std::fs::read_to_string(root().join("examples").join(&name)).unwrap();
        let file = name.replace('/', "-");
        write_private(&folder.join(&file), &text);
        let done = pskgate(folder, &["doctor", &file]);
        let services = match file.ends_with(".conf") {
            true => text.lines().filter(|line| line.starts_with('[')).count(),
            false => text.lines().filter(|line| is_service(line)).count(),
        };
        assert_eq!(handshakes(&done), Ok(services), "{name}");
        looked_at += 1;
    }
    assert!(looked_at >= 7, "only {looked_at} examples");
}

/// Whether a line of TOML begins a service, and not a table within one.
fn is_service(line: &str) -> bool {
    line.starts_with("[services.") && line.matches('.').count() == 1
}

#[test]
fn a_service_meets_itself_with_tickets_and_without_in_every_role_version_and_dialect() {
    let sealed = "resumption = true\nticket-key-secret = \"00112233445566778899aabbccddeeff\"\n\
                  ticket-mac-secret = \"ffeeddccbbaa99887766554433221100\"";
    let sealed_conf = "ticketKeySecret = 00112233445566778899aabbccddeeff\n\
                       ticketMacSecret = ffeeddccbbaa99887766554433221100\n";
    let gate = PskgateBuilder::new();
    for tls in Tls::BOTH {
        for tickets in ["", "resumption = true", "resumption = false", sealed] {
            let extra = format!("{}\n{tickets}", tls.toml());
            for text in [server_toml("127.0.0.1:9", &extra), client_toml("127.0.0.1:9", &extra)] {
                write_private(&gate.folder().join("gate.toml"), &text);
                let done = pskgate(gate.folder(), &["doctor", "gate.toml"]);
                assert_eq!(done.code, Some(0), "{text}\n{}{}", done.out, done.err);
                assert_eq!(handshakes(&done), Ok(1), "{text}");
                assert!(done.out.contains(tls.name()), "{text}\n{}", done.out);
            }
        }
        for tickets in ["", "options = NO_TICKET\n", "sessionCacheTimeout = 20\n", sealed_conf] {
            for role in ["", "client = yes\n"] {
                let text = format!(
                    "{role}{tickets}{}[s]\naccept = 127.0.0.1:{}\nconnect = 127.0.0.1:9\n\
                     PSKsecrets = psk.txt\n",
                    tls.conf(),
                    free_port()
                );
                write_private(&gate.folder().join("gate.conf"), &text);
                let done = pskgate(gate.folder(), &["doctor", "gate.conf"]);
                assert_eq!(done.code, Some(0), "{text}\n{}{}", done.out, done.err);
                assert_eq!(handshakes(&done), Ok(1), "{text}");
                assert!(done.out.contains(tls.name()), "{text}\n{}", done.out);
            }
        }
    }
}
