//! `[log] max-size`: the log stays within two files of that size, whoever the process has become.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rustix::process::Signal;

use crate::harness::process::pskgate;
use crate::harness::stage::need_root;
use crate::harness::{
    Backend, PlainClient, Pskgate, PskgateBuilder, WAIT_TIMEOUT, client_toml, free_port, local,
    replace, server_toml, until,
};

const MOST: u64 = 20_000;
const SESSIONS: usize = 150;

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// A server end that logs everything into `logs/log`, and the port of its service.
fn logging(backend: &Backend, top: &str, log: &str) -> (PskgateBuilder, u16) {
    let port = free_port();
    let service =
        server_toml(backend.address(), "").replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let toml = format!("{top}\n[log]\nlevel = \"debug\"\noutput = \"logs/log\"\n{log}\n{service}");
    let gate = PskgateBuilder::new().toml(&toml);
    fs::create_dir(gate.folder().join("logs")).unwrap();
    (gate, port)
}

fn started(gate: PskgateBuilder, port: u16) -> Pskgate {
    let running = gate.launch();
    until(&format!("the port: {}", running.err()), WAIT_TIMEOUT, || {
        std::net::TcpStream::connect(local(port)).ok()
    });
    running
}

/// So many sessions, each of several lines.
fn converse(port: u16, sessions: usize) {
    let client = PskgateBuilder::new().toml(&client_toml(local(port), "")).start();
    for _ in 0..sessions {
        let plain = PlainClient::connect(client.address("plain"));
        plain.echo(b"there and back");
        plain.shut();
        plain.rest();
    }
}

/// The numbers of sessions whose end is in these lines.
fn ended(text: &str) -> BTreeSet<u64> {
    let ends = text.lines().filter(|line| line.contains("session closed"));
    let number = |line: &str| line.split('#').nth(1)?.split(' ').next()?.parse().ok();
    ends.filter_map(number).collect()
}

#[test]
fn the_log_stays_within_two_files_and_loses_nothing_in_between() {
    let backend = Backend::echo();
    let (gate, port) = logging(&backend, "", &format!("max-size = \"{}kB\"", MOST / 1000));
    let gate = started(gate, port);
    let (log, aside) = (gate.folder().join("logs/log"), gate.folder().join("logs/log.1"));
    converse(port, SESSIONS);
    until("the file to be moved aside", WAIT_TIMEOUT, || aside.exists().then_some(()));
    gate.signal(Signal::TERM);
    until("its end", WAIT_TIMEOUT, || std::net::TcpStream::connect(local(port)).err());
    until("the last line", WAIT_TIMEOUT, || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("stopped")).then_some(())
    });
    assert!(size(&log) <= MOST && size(&aside) <= MOST, "{} {}", size(&log), size(&aside));
    assert!(size(&aside) > MOST / 2, "it is as full as it can be: {}", size(&aside));
    let names = fs::read_dir(gate.folder().join("logs")).unwrap().count();
    assert_eq!(names, 2, "one rotated file");
    let both = fs::read_to_string(&aside).unwrap() + &fs::read_to_string(&log).unwrap();
    let numbers = ended(&both);
    assert!(numbers.len() > 10, "{both}");
    // The first few may have ended before the file that was replaced was full.
    let (first, last) = (*numbers.first().unwrap() + 3, *numbers.last().unwrap());
    let missing: Vec<u64> = (first..=last).filter(|number| !numbers.contains(number)).collect();
    assert!(missing.is_empty(), "sessions are missing: {missing:?}");
    let mode = fs::metadata(&log).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);
}

#[test]
fn it_is_moved_aside_by_the_user_that_the_program_became_and_behind_the_sandbox() {
    need_root();
    let backend = Backend::echo();
    for (owner, moved) in [(65534, true), (0, false)] {
        let top = "user = \"65534\"\ngroup = \"65534\"";
        let (gate, port) = logging(&backend, top, "max-size = \"20kB\"\nformat = \"json\"");
        let folder = gate.folder().join("logs");
        for path in [gate.folder(), &folder] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        // Somebody else's folder, in which there is a file for it.
        fs::write(folder.join("log"), "").unwrap();
        chown(folder.join("log"), Some(65534), Some(65534)).unwrap();
        chown(&folder, Some(owner), Some(owner)).unwrap();
        let gate = started(gate, port);
        converse(port, SESSIONS);
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        if moved {
            until("the file to be moved aside", WAIT_TIMEOUT, || {
                folder.join("log.1").exists().then_some(())
            });
            assert!(!log().contains("log-not-rotated"), "{}", log());
        } else {
            until("a line about it", WAIT_TIMEOUT, || {
                log().contains("log-not-rotated").then_some(())
            });
            assert!(log().contains("emptied"), "{}", log());
            assert!(!folder.join("log.1").exists());
        }
        // The line about it comes behind the one that there was no room for.
        assert!(size(&folder.join("log")) <= MOST + 1000, "{}", size(&folder.join("log")));
        let done = pskgate(gate.folder(), &["status", "--json", "pskgate.toml"]);
        assert!(done.out.contains("\"log-lines-lost\": 0"), "{}", done.out);
    }
}

#[test]
fn a_reload_takes_another_bound_and_a_rotator_of_the_system_s_is_no_trouble() {
    let backend = Backend::echo();
    let (gate, port) = logging(&backend, "", "");
    let gate = started(gate, port);
    let (log, aside) = (gate.folder().join("logs/log"), gate.folder().join("logs/log.1"));
    converse(port, 60);
    until("a log without a bound", WAIT_TIMEOUT, || (size(&log) > MOST).then_some(()));
    assert!(!aside.exists());
    let path = gate.folder().join("pskgate.toml");
    let text = fs::read_to_string(&path).unwrap();
    replace(&path, &text.replace("[log]", "[log]\nmax-size = \"20kB\""));
    let done = pskgate(gate.folder(), &["reload", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    converse(port, 3);
    until("the bound to hold", WAIT_TIMEOUT, || {
        (aside.exists() && size(&log) <= MOST).then_some(())
    });
    // logrotate moves the file and asks for a new one.
    fs::rename(&log, log.with_extension("by-hand")).unwrap();
    gate.signal(Signal::USR1);
    until("a new file", WAIT_TIMEOUT, || {
        fs::read_to_string(&log)
            .is_ok_and(|text| text.contains("reopened the log file"))
            .then_some(())
    });
    converse(port, 60);
    until("the bound to hold still", WAIT_TIMEOUT, || {
        (size(&aside) > MOST / 2 && size(&log) <= MOST).then_some(())
    });
    assert!(size(&aside) <= MOST, "{}", size(&aside));
}

#[test]
fn a_bound_without_a_file_and_one_without_a_unit_are_told() {
    let gate = PskgateBuilder::new();
    let with = |log: &str| {
        let toml = format!("[log]\n{log}\n{}", server_toml("127.0.0.1:1", ""));
        replace(&gate.folder().join("pskgate.toml"), &toml);
        pskgate(gate.folder(), &["check", "pskgate.toml"])
    };
    let alone = with("max-size = \"1MB\"");
    assert_eq!(alone.code, Some(0), "{}", alone.err);
    assert!(alone.err.contains("warning[no-log-file]"), "{}", alone.err);
    for wrong in ["1M", "1000", "9kB", "1.5MB", "99999999999999GiB"] {
        let done = with(&format!("output = \"x\"\nmax-size = \"{wrong}\""));
        assert_eq!(done.code, Some(78), "{wrong}");
        assert!(done.err.contains("error[bad-size]"), "{wrong}: {}", done.err);
    }
    let number = with("output = \"x\"\nmax-size = 1000000");
    assert!(number.err.contains("write a text with a unit"), "{}", number.err);
    let good = with("output = \"x\"\nmax-size = \"1MiB\"");
    assert!(good.out.contains("nothing wrong"), "{}", good.err);
}
