//! A key that is taken away is gone within a second, whatever else is wrong at that moment: in each test its
//! live session is cut, a new attempt is refused, and a neighbour's session goes on.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::process::{Unread, pskgate};
use crate::harness::stage::need_root;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, OpensslClient, PlainClient, Pskgate,
    PskgateBuilder, WAIT_TIMEOUT, client_toml, free_port, local, replace, secret, server_toml,
    until, write_private,
};

/// A second good key, for who stays.
const THIRD_KEY: &str = "dGhlIGtleSBvZiB0aGUgbmVpZ2hib3VyIHdobyBzdGF5cyB0aHJvdWdoIGFsbCBvZiBpdA";
/// A revocation takes effect within a second of the file's close; a busy machine gets more.
const SOON: Duration = Duration::from_secs(4);

fn both() -> String {
    secret(IDENTITY, KEY) + &secret("leaver", OTHER_KEY)
}

fn client(to: SocketAddr, identity: &str, key: &str) -> Pskgate {
    let toml = client_toml(to, "").replace(IDENTITY, identity);
    PskgateBuilder::new().file("psk.txt", &secret(identity, key)).toml(&toml).start()
}

/// A server with two at work, one of whom is to leave.
struct Scene {
    server: Pskgate,
    leaver: Pskgate,
    _neighbour: Pskgate,
    session: PlainClient,
    beside: PlainClient,
    _backend: Backend,
}

impl Scene {
    /// With more lines before the services, and more lines of the service.
    fn new(head: &str, extra: &str) -> Self {
        Self::with(PskgateBuilder::new().file("psk.txt", &both()), head, extra, "\"psk.txt\"")
    }

    fn with(gate: PskgateBuilder, head: &str, extra: &str, secrets: &str) -> Self {
        let backend = Backend::echo();
        let toml = head.to_owned() + &server_toml(backend.address(), extra);
        let server = gate.toml(&toml.replace("\"psk.txt\"", secrets)).start();
        let to = server.address("tls");
        let (leaver, neighbour) = (client(to, "leaver", OTHER_KEY), client(to, IDENTITY, KEY));
        let session = PlainClient::connect(leaver.address("plain"));
        let beside = PlainClient::connect(neighbour.address("plain"));
        session.echo(b"before");
        // Some tests have the leaver alone.
        if fs::read_to_string(server.folder().join("psk.txt")).is_ok_and(|text| text.contains(KEY))
        {
            beside.echo(b"before");
        }
        Self { server, leaver, _neighbour: neighbour, session, beside, _backend: backend }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.server.folder().join(name)
    }

    fn config(&self) -> String {
        fs::read_to_string(self.path("pskgate.toml")).expect("the configuration")
    }

    fn count(&self, words: &str) -> usize {
        self.server.log().lines().filter(|line| line.contains(words)).count()
    }

    /// Waits for so many lines with these words.
    fn wait_count(&self, words: &str, count: usize) {
        until(
            &format!("{count} times {words}; the log is\n{}", self.server.log()),
            WAIT_TIMEOUT,
            || (self.count(words) >= count).then_some(()),
        );
    }

    /// Takes the leaver's key away, and expects that the leaver is out and the neighbour is not.
    fn revoke(&self) {
        self.revoke_by(|| replace(&self.path("psk.txt"), &secret(IDENTITY, KEY)));
    }

    fn revoke_by(&self, take_away: impl FnOnce()) {
        take_away();
        let start = Instant::now();
        assert_eq!(self.session.end(), ConnectionEnd::Rst, "{}", self.server.log());
        assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
        self.is_out();
    }

    fn is_out(&self) {
        let again = PlainClient::connect(self.leaver.address("plain"));
        assert_eq!(again.end(), ConnectionEnd::Rst, "the leaver is in again");
        self.beside.echo(b"undisturbed");
    }

    /// Expects that nobody was cut and everybody is let in.
    fn is_as_before(&self) {
        self.session.echo(b"still here");
        self.beside.echo(b"still here");
        PlainClient::connect(self.leaver.address("plain")).echo(b"let in as before");
    }

    fn status(&self) -> serde_json::Value {
        let done = pskgate(self.server.folder(), &["status", "pskgate.toml", "--json"]);
        assert_eq!(done.code, Some(0), "{}", done.err);
        serde_json::from_str(&done.out).expect("JSON")
    }
}

#[test]
fn beside_a_typo_a_key_is_removed_another_one_changed_and_the_rest_waits() {
    let scene = Scene::new("", "");
    let good = scene.config();
    replace(&scene.path("pskgate.toml"), &good.replace("mode =", "moode ="));
    scene.server.wait_logged(": not reloaded:");
    assert!(scene.status()["reloads"]["differs-since"].is_string(), "{}", scene.status());
    scene.revoke();
    // A key under a new name, and a new one under an old name.
    let keys = secret(IDENTITY, KEY) + &secret("leaver", THIRD_KEY);
    replace(&scene.path("psk.txt"), &keys);
    scene.wait_count("keys: added \"leaver\"", 1);
    let again = client(scene.server.address("tls"), "leaver", THIRD_KEY);
    let session = PlainClient::connect(again.address("plain"));
    session.echo(b"with the new key");
    replace(&scene.path("psk.txt"), &(secret(IDENTITY, KEY) + &secret("leaver", OTHER_KEY)));
    assert_eq!(session.end(), ConnectionEnd::Rst, "the key was changed");
    PlainClient::connect(scene.leaver.address("plain")).echo(b"with the old key again");
    // The typo is told at each of these reloads, and none of them took the configuration.
    assert_eq!(scene.count(": reloaded;"), 0, "{}", scene.server.log());
    replace(&scene.path("pskgate.toml"), &good);
    scene.wait_count(": reloaded;", 1);
    assert!(scene.status()["reloads"]["differs-since"].is_null(), "{}", scene.status());
    scene.beside.echo(b"to the end");
}

#[test]
fn a_busy_port_holds_back_the_configuration_alone_and_is_tried_again_until_it_is_free() {
    let scene = Scene::new("", "");
    let taken: Vec<_> =
        (0..10).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let all: Vec<_> =
        taken.iter().map(|l| format!("\"{}\"", l.local_addr().expect("its address"))).collect();
    let more = scene
        .config()
        .replace("\"127.0.0.1:0\"", &format!("[\"127.0.0.1:0\", {}]", all.join(", ")));
    // Each of them is waited for, 2 s long: the key must not wait with them.
    replace(&scene.path("pskgate.toml"), &more);
    scene.server.wait_logged(": reload begins");
    scene.revoke();
    assert_eq!(scene.count(": not reloaded:"), 0, "it was still waiting for the ports");
    let few = scene.config().replace(&all.join(", "), &all[0]);
    replace(&scene.path("pskgate.toml"), &few);
    scene.wait_count(": not reloaded:", 1);
    assert!(scene.server.log().contains("it is retried"), "{}", scene.server.log());
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(scene.count(": not reloaded:"), 1, "only the first refusal is told");
    let freed = taken[0].local_addr().expect("its address");
    drop(taken);
    scene.server.wait_logged(&format!("listening on {freed}"));
    scene.server.wait_logged("another attempt: reloaded;");
    assert!(scene.status()["reloads"]["differs-since"].is_null(), "{}", scene.status());
    scene.is_out();
}

#[test]
fn a_mistake_in_the_text_is_not_tried_again() {
    let scene = Scene::new("", "");
    replace(&scene.path("pskgate.toml"), "not toml at all");
    scene.server.wait_logged(": not reloaded:");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(scene.count("reload begins"), 1, "{}", scene.server.log());
    scene.is_as_before();
}

#[test]
fn a_broken_second_key_file_keeps_its_own_keys_and_nothing_else() {
    let gate = PskgateBuilder::new()
        .file("psk.txt", &both())
        .file("second.txt", &secret("second", THIRD_KEY));
    let scene = Scene::with(gate, "", "", "[\"psk.txt\", \"second.txt\"]");
    let second = client(scene.server.address("tls"), "second", THIRD_KEY);
    let session = PlainClient::connect(second.address("plain"));
    session.echo(b"before");
    // A line without a colon, a file cut in the middle of its key, and none at all.
    let cut = secret("second", THIRD_KEY)[..40].to_owned();
    let breakages: [&dyn Fn(&Path); 3] =
        [&|file| replace(file, "no key at all\n"), &|file| replace(file, &cut), &|file| {
            fs::remove_file(file).expect("removed")
        }];
    for (n, break_it) in breakages.into_iter().enumerate() {
        break_it(&scene.path("second.txt"));
        scene.wait_count(": not reloaded:", n + 1);
        session.echo(b"still here");
    }
    let status = scene.status();
    let last = &status["reloads"]["last"];
    assert!(last["findings"].to_string().contains("second.txt"), "{last}");
    scene.revoke();
    session.echo(b"still here");
    PlainClient::connect(second.address("plain")).echo(b"and let in");
    // What is in the configuration takes effect beside it.
    let text =
        scene.config().replace("[services.tls]", "[log]\nlevel = \"debug\"\n\n[services.tls]");
    replace(&scene.path("pskgate.toml"), &text);
    scene.server.wait_logged(" debug ");
    replace(&scene.path("second.txt"), &secret("nobody", OTHER_KEY));
    assert_eq!(session.end(), ConnectionEnd::Rst, "the next good file takes");
}

#[test]
fn a_file_that_is_cut_in_the_middle_of_a_line_cuts_nobody() {
    let scene = Scene::new("", "");
    let good = both();
    let second = good.find("leaver").expect("its line");
    for (n, cut) in [second + 3, second + 20, good.len() - 8].into_iter().enumerate() {
        replace(&scene.path("psk.txt"), &good[..cut]);
        scene.wait_count(": not reloaded:", n + 1);
        scene.is_as_before();
    }
    scene.revoke();
}

#[test]
fn an_identity_in_two_files_keeps_its_key_and_does_not_hold_up_a_removal() {
    let gate = PskgateBuilder::new()
        .file("psk.txt", &both())
        .file("second.txt", &secret("second", THIRD_KEY));
    let scene = Scene::with(gate, "", "", "[\"psk.txt\", \"second.txt\"]");
    let twice = secret("second", THIRD_KEY) + &secret(IDENTITY, OTHER_KEY);
    replace(&scene.path("second.txt"), &twice);
    let line = scene.server.wait_logged("stands on line 1");
    assert!(line.contains(" error "), "{line}");
    scene.beside.echo(b"with the key that it had");
    scene.revoke();
    let wrong = client(scene.server.address("tls"), IDENTITY, OTHER_KEY);
    assert_eq!(PlainClient::connect(wrong.address("plain")).end(), ConnectionEnd::Rst);
}

#[test]
fn a_key_file_without_a_key_is_a_removal_if_the_service_has_others_and_else_refused() {
    let gate = PskgateBuilder::new()
        .file("psk.txt", &secret(IDENTITY, KEY))
        .file("leaver.txt", &secret("leaver", OTHER_KEY));
    let scene = Scene::with(gate, "", "", "[\"psk.txt\", \"leaver.txt\"]");
    scene.revoke_by(|| replace(&scene.path("leaver.txt"), ""));
    scene.wait_count(": reloaded;", 1);
    replace(&scene.path("psk.txt"), "\n");
    scene.wait_count(": not reloaded:", 1);
    assert!(scene.server.log().contains("keys remove NAME --last"), "{}", scene.server.log());
    scene.beside.echo(b"the last key goes on");
}

#[test]
fn in_a_folder_of_keys_a_file_that_is_gone_is_a_removal_and_a_folder_that_is_gone_is_not() {
    let gate = PskgateBuilder::new();
    fs::create_dir(gate.folder().join("psk.d")).expect("a folder");
    let gate = gate
        .file("psk.d/10-first", &secret(IDENTITY, KEY))
        .file("psk.d/20-leaver", &secret("leaver", OTHER_KEY));
    let scene = Scene::with(gate, "", "", "\"psk.d\"");
    let folder = scene.path("psk.d");
    // The folder itself away, back, and empty.
    let aside = scene.path("aside");
    fs::rename(&folder, &aside).expect("moved");
    scene.wait_count(": not reloaded:", 1);
    scene.is_as_before();
    fs::create_dir(&folder).expect("a folder");
    scene.server.signal(Signal::HUP);
    scene.wait_count(": not reloaded:", 2);
    scene.is_as_before();
    for name in ["10-first", "20-leaver"] {
        fs::rename(aside.join(name), folder.join(name)).expect("moved");
    }
    scene.wait_count(": reloaded;", 1);
    scene.is_as_before();
    // One bad file in it is no reason for another to stay.
    write_private(&folder.join("30-broken"), "no key at all\n");
    scene.wait_count("no colon", 1);
    scene.revoke_by(|| {
        fs::rename(folder.join("20-leaver"), aside.join("20-leaver")).expect("moved out");
    });
}

#[test]
fn a_file_that_somebody_writes_does_not_hold_up_a_removal_in_another_one() {
    let gate = PskgateBuilder::new().file("psk.txt", &both()).file(
        "second.txt",
        &(secret("second", THIRD_KEY) + &secret("third", &format!("{THIRD_KEY}3"))),
    );
    let scene = Scene::with(gate, "", "", "[\"psk.txt\", \"second.txt\"]");
    let third = client(scene.server.address("tls"), "third", &format!("{THIRD_KEY}3"));
    let session = PlainClient::connect(third.address("plain"));
    session.echo(b"before");
    let mut file = fs::File::create(scene.path("second.txt")).expect("truncated");
    // Up to the end of a line: read now, the file would be a good one without `third`.
    file.write_all(secret("second", THIRD_KEY).as_bytes()).expect("written");
    scene.revoke();
    session.echo(b"its file is not done yet");
    file.write_all(secret("third", &format!("{THIRD_KEY}3")).as_bytes()).expect("written");
    drop(file);
    replace(&scene.path("psk.txt"), &(secret(IDENTITY, KEY) + &secret("new", OTHER_KEY)));
    scene.wait_count("keys: added \"new\"", 1);
    session.echo(b"undisturbed");
}

#[test]
fn a_client_end_whose_identity_is_gone_lets_go_of_its_sessions_beside_a_typo() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let keys = secret(IDENTITY, KEY) + &secret("other", OTHER_KEY);
    let toml = client_toml(server.address("tls"), "");
    let client = PskgateBuilder::new().file("psk.txt", &keys).toml(&toml).start();
    let session = PlainClient::connect(client.address("plain"));
    session.echo(b"before");
    replace(&client.folder().join("pskgate.toml"), &toml.replace("mode =", "moode ="));
    client.wait_logged(": not reloaded:");
    replace(&client.folder().join("psk.txt"), &secret("other", OTHER_KEY));
    assert_eq!(session.end(), ConnectionEnd::Rst);
    assert_eq!(PlainClient::connect(client.address("plain")).end(), ConnectionEnd::Rst);
}

#[test]
fn a_fifo_that_nobody_reads_is_no_log_and_no_obstacle() {
    // Without the sandbox, which lets a log go where no log was only after a restart.
    let scene = Scene::new("sandbox = false\n\n[log]\nlevel = \"info\"\n\n", "");
    let fifo = scene.path("log.fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    let text =
        scene.config().replace("level = \"info\"", "level = \"info\"\noutput = \"log.fifo\"");
    scene.revoke_by(|| {
        replace(&scene.path("pskgate.toml"), &text);
        replace(&scene.path("psk.txt"), &secret(IDENTITY, KEY));
    });
    scene.server.wait_logged("cannot change the log, and goes on writing to the old one");
    assert!(scene.status()["reloads"]["differs-since"].is_string(), "{}", scene.status());
    // It is tried again, and a reader gets the lines.
    let reader = fs::File::options().read(true).custom_flags(nonblocking()).open(&fifo);
    let mut reader = reader.expect("the reader's end");
    let mut text = Vec::new();
    until("the first line", WAIT_TIMEOUT, || {
        let mut piece = [0; 4096];
        if let Ok(count) = reader.read(&mut piece) {
            text.extend_from_slice(&piece[..count]);
        }
        String::from_utf8_lossy(&text).contains("reopened the log file").then_some(())
    });
    assert!(scene.status()["reloads"]["differs-since"].is_null(), "{}", scene.status());
}

fn nonblocking() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("a flag")
}

/// A disk without room for one more name: a socket cannot be bound there.
#[test]
fn a_full_disk_holds_back_the_configuration_alone_and_is_tried_again_until_there_is_room() {
    need_root();
    let gate = PskgateBuilder::new().file("psk.txt", &both());
    let disk = gate.folder().join("disk");
    fs::create_dir(&disk).expect("a folder");
    // Itself, a socket and one more.
    let mount = format!("mount -t tmpfs -o nr_inodes=3 tmpfs {}", disk.display());
    let inner = format!("{mount} && exec \"$@\"");
    let unshare = "exec unshare --mount --propagation private";
    let gate = gate.shell(&format!("{unshare} sh -c '{inner}' sh \"$@\""));
    let accept = |more: &str| format!("[\"127.0.0.1:0\", \"{}/a\"{more}]", disk.display());
    let backend = Backend::echo();
    let toml = server_toml(backend.address(), "").replace("\"127.0.0.1:0\"", &accept(""));
    let server = gate.toml(&toml).start();
    let to = server.address("tls");
    let (leaver, neighbour) = (client(to, "leaver", OTHER_KEY), client(to, IDENTITY, KEY));
    let session = PlainClient::connect(leaver.address("plain"));
    let beside = PlainClient::connect(neighbour.address("plain"));
    session.echo(b"before");
    beside.echo(b"before");
    let scene = Scene { server, leaver, _neighbour: neighbour, session, beside, _backend: backend };
    // Through the program's own eyes.
    let there = format!("/proc/{}/root{}", scene.server.id(), disk.display());
    let filler = Path::new(&there).join("filler");
    fs::write(&filler, "").expect("the last name");
    assert!(fs::write(Path::new(&there).join("more"), "").is_err(), "there is room");
    let more = accept(&format!(", \"{}/b\"", disk.display()));
    replace(&scene.path("pskgate.toml"), &toml.replace(&accept(""), &more));
    let line = scene.server.wait_logged("cannot listen on");
    assert!(line.contains("No space left"), "{line}");
    scene.wait_count(": not reloaded:", 1);
    scene.revoke();
    fs::remove_file(&filler).expect("removed");
    scene.server.wait_logged("another attempt: reloaded;");
    assert!(Path::new(&there).join("b").exists());
    scene.is_out();
}

#[test]
fn a_standard_error_that_nobody_reads_with_its_queue_full_holds_up_nothing() {
    let backend = Backend::echo();
    let port = free_port();
    let folder = tempfile::TempDir::new().expect("a folder");
    let keys = folder.path().join("psk.txt");
    write_private(&keys, &both());
    let head = "sandbox = false\n\n";
    let toml = head.to_owned()
        + &server_toml(backend.address(), "").replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    write_private(&folder.path().join("pskgate.toml"), &toml);
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_pskgate"))
        .args(["run", "pskgate.toml"])
        .current_dir(folder.path())
        .env("RUNTIME_DIRECTORY", folder.path())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut server = Unread(child.expect("it starts"));
    until("the port", WAIT_TIMEOUT, || std::net::TcpStream::connect(local(port)).ok());
    let number = i32::try_from(server.0.id()).expect("a number");
    let id = rustix::process::Pid::from_raw(number).expect("a process");
    let signal = |signal| rustix::process::kill_process(id, signal).expect("it lives");
    let (leaver, neighbour) =
        (client(local(port), "leaver", OTHER_KEY), client(local(port), IDENTITY, KEY));
    let sessions: Vec<_> = (0..20)
        .map(|_| {
            let one = PlainClient::connect(neighbour.address("plain"));
            one.echo(b"before");
            one
        })
        .collect();
    let session = PlainClient::connect(leaver.address("plain"));
    session.echo(b"before");
    // Each list has a line for each session.
    let lost = || {
        signal(Signal::USR2);
        let done = pskgate_in(folder.path(), &["status", "pskgate.toml", "--json"]);
        let (_, rest) = done.split_once("\"log-lines-lost\":")?;
        let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
        (digits != "0").then_some(())
    };
    until("the queue to be full", 6 * WAIT_TIMEOUT, || {
        (0..50).for_each(|_| {
            signal(Signal::USR2);
            std::thread::sleep(Duration::from_millis(2));
        });
        lost()
    });
    replace(&keys, &secret(IDENTITY, KEY));
    let start = Instant::now();
    assert_eq!(session.end(), ConnectionEnd::Rst);
    assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    assert_eq!(PlainClient::connect(leaver.address("plain")).end(), ConnectionEnd::Rst);
    sessions.iter().for_each(|one| one.echo(b"undisturbed"));
    // A log that the reader is not in the way of is asked for, and is a finding.
    let text =
        format!("sandbox = false\n\n[log]\noutput = \"late.log\"\n\n{}", &toml[head.len()..]);
    replace(&folder.path().join("pskgate.toml"), &text);
    until("the finding", WAIT_TIMEOUT, || {
        let status = pskgate_in(folder.path(), &["status", "pskgate.toml", "--json"]);
        (status.contains("cannot change the log") || status.contains("needs a restart"))
            .then_some(())
    });
    signal(Signal::TERM);
    let code = until("its end", WAIT_TIMEOUT, || server.0.try_wait().expect("its state"));
    assert_eq!(code.code(), Some(0));
}

/// What a command says whose program has its control socket in this folder.
fn pskgate_in(folder: &Path, arguments: &[&str]) -> String {
    pskgate(folder, arguments).out
}

#[test]
fn a_reload_says_that_it_begins_who_asked_for_it_and_how_it_ended() {
    let scene = Scene::new("", "");
    scene.server.signal(Signal::HUP);
    scene.server.wait_logged("SIGHUP: reload begins");
    scene.server.wait_logged("SIGHUP: reloaded;");
    replace(&scene.path("psk.txt"), &secret(IDENTITY, KEY));
    let line = scene.server.wait_logged("changed files: reload begins");
    assert!(line.contains("psk.txt"), "{line}");
    let done = pskgate(scene.server.folder(), &["reload", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    scene.server.wait_logged("the control socket: reload begins");
    scene.server.wait_logged("the control socket: reloaded;");
}

/// stunnel's order of lines: reading, then what is wrong or that it is sound, then the listeners.
#[test]
fn in_stunnel_s_format_a_reload_has_stunnel_s_lines_in_their_order() {
    let backend = Backend::echo();
    let port = free_port();
    let text = format!(
        "output = x.log\ndebug = 6\n[a]\naccept = 127.0.0.1:{port}\nconnect = {}\nPSKsecrets = psk.txt\n",
        backend.address()
    );
    let server = PskgateBuilder::new().conf("x.conf", &text, Some("x.log")).start();
    server.wait_logged("Accepting new connections");
    let before = server.log().len();
    server.signal(Signal::HUP);
    until("the listener's line", WAIT_TIMEOUT, || {
        server.log()[before..].contains("bound to").then_some(())
    });
    let log = server.log();
    let at = |words: &str| log[before..].find(words).unwrap_or_else(|| panic!("no {words}: {log}"));
    assert!(at("Reading configuration from file ") < at("Configuration successful"), "{log}");
    assert!(at("Configuration successful") < at("bound to"), "{log}");
    assert!(log[before..].contains("(SIGHUP)"), "{log}");
    let before = log.len();
    fs::write(server.folder().join("x.conf"), text + "bogus = yes\n").expect("written");
    server.signal(Signal::HUP);
    until("the refusal", WAIT_TIMEOUT, || {
        server.log()[before..].contains("Failed to reload").then_some(())
    });
    let log = server.log();
    let at = |words: &str| log[before..].find(words).unwrap_or_else(|| panic!("no {words}: {log}"));
    assert!(at("Reading configuration from file ") < at("x.conf:7:"), "{log}");
    assert!(at("x.conf:7:") < at("Configuration failed"), "{log}");
    assert!(at("Configuration failed") < at("Failed to reload the configuration file"), "{log}");
}

#[test]
fn the_last_key_goes_when_it_is_ordered_and_then_everybody_is_answered_as_with_a_wrong_key() {
    let scene = Scene::with(
        PskgateBuilder::new().file("psk.txt", &secret("leaver", OTHER_KEY)),
        "",
        "",
        "\"psk.txt\"",
    );
    // An empty file alone is refused, whoever wrote it.
    replace(&scene.path("psk.txt"), "");
    scene.wait_count(": not reloaded:", 1);
    scene.session.echo(b"still here");
    replace(&scene.path("psk.txt"), &secret("leaver", OTHER_KEY));
    scene.wait_count(": reloaded;", 1);
    let folder = scene.server.folder();
    let remove = ["keys", "remove", "leaver", "pskgate.toml"];
    let done = pskgate(folder, &remove);
    assert_eq!(done.code, Some(78), "{}", done.err);
    let start = Instant::now();
    let done = pskgate(folder, &[&remove[..], &["--last"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(scene.session.end(), ConnectionEnd::Rst);
    assert!(start.elapsed() < 2 * SOON, "it took {:?}", start.elapsed());
    assert_eq!(PlainClient::connect(scene.leaver.address("plain")).end(), ConnectionEnd::Rst);
    scene.server.wait_logged(" orders: remove-last");
    // A known name, an unknown one and one with a wrong key hear the same, from a service without a key and
    // from one that has some.
    let answers = |server: &Pskgate| {
        ["leaver", "nobody"].map(|who| {
            let psk = crate::harness::openssl::psk_of(who, THIRD_KEY);
            OpensslClient::start(server.address("tls"), psk).alert()
        })
    };
    let backend = Backend::echo();
    let other = PskgateBuilder::new()
        .file("psk.txt", &both())
        .toml(&server_toml(backend.address(), ""))
        .start();
    let [known, unknown] = answers(&other);
    assert_eq!(answers(&scene.server), [known, unknown]);
    // It stays so over other reloads, and ends with the next key.
    scene.server.signal(Signal::HUP);
    scene.wait_count("SIGHUP: reloaded;", 1);
    let done = pskgate(folder, &["check", "pskgate.toml"]);
    assert_eq!(done.code, Some(78), "a start is refused");
    replace(&scene.path("psk.txt"), &secret("leaver", OTHER_KEY));
    scene.wait_count("keys: added \"leaver\"", 1);
    PlainClient::connect(scene.leaver.address("plain")).echo(b"let in again");
}

#[test]
fn an_order_for_the_last_key_that_did_not_reach_the_program_can_be_given_again() {
    let gate = PskgateBuilder::new().file("psk.txt", &secret("leaver", OTHER_KEY));
    let scene = Scene::with(gate, "", "", "\"psk.txt\"");
    // As if the file had been emptied while nobody could ask the program.
    replace(&scene.path("psk.txt"), "");
    scene.wait_count(": not reloaded:", 1);
    let remove = ["keys", "remove", "leaver", "pskgate.toml", "--last"];
    let done = pskgate(scene.server.folder(), &remove);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(scene.session.end(), ConnectionEnd::Rst);
}
