//! The control socket and the commands that use it: who may look, who may order, what comes back.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use pskgate::observe::status::Status;
use rustix::process::Signal;

use crate::harness::process::{Finished, pskgate};
use crate::harness::stage::{StunnelFolder, client_of, echo_through, finish, need_root, section};
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, Pair, PlainClient, Process, Pskgate,
    PskgateBuilder, WAIT_TIMEOUT, client_toml, free_port, local, secret, server_toml, until,
    write_private,
};

/// Debian's, on every machine.
const NOBODY: u32 = 65534;

/// Where a program that the harness started has its socket.
fn socket(gate: &Pskgate) -> PathBuf {
    gate.folder().join("pskgate.sock")
}

/// A server end with these lines at its top.
fn server(backend: &Backend, top: &str) -> Pskgate {
    PskgateBuilder::new().toml(&format!("{top}\n{}", server_toml(backend.address(), ""))).start()
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path)
        .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", path.display()));
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    stream
}

/// Sends what is to be refused, and reads to the end.
fn refused(path: &Path, sent: &[u8]) -> String {
    let mut stream = connect(path);
    // It may have been refused before all of it was there.
    let _ = stream.write_all(sent);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and the end");
    answer
}

/// One question more over an open connection.
fn ask(stream: &UnixStream, line: &str) -> String {
    let mut to = stream;
    to.write_all(format!("{line}\n").as_bytes()).expect("it takes the question");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("an answer");
    answer
}

/// A command of this program's about a running one.
fn command(gate: &Pskgate, arguments: &[&str]) -> Finished {
    let mut all = arguments.to_vec();
    all.push("pskgate.toml");
    pskgate(gate.folder(), &all)
}

fn status_of(done: &Finished) -> Status {
    assert_eq!(done.code, Some(0), "{}", done.err);
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {}", done.out))
}

fn status(gate: &Pskgate) -> Status {
    status_of(&command(gate, &["status", "--json"]))
}

/// The program under a name that everybody can reach, wherever it was built.
fn public_copy(folder: &Path) -> PathBuf {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.join("pskgate-copy");
    if fs::hard_link(env!("CARGO_BIN_EXE_pskgate"), &copy).is_err() {
        fs::copy(env!("CARGO_BIN_EXE_pskgate"), &copy).unwrap();
    }
    copy
}

/// A command as the user nobody, who owns nothing here.
fn as_nobody(folder: &Path, program: &Path, arguments: &[&str]) -> Finished {
    let user = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    finish(command.arg(program).args(arguments).current_dir(folder))
}

#[test]
fn status_tells_who_is_in_from_where_and_how_much_they_carried() {
    let backend = Backend::echo();
    let pair = Pair::new(&backend);
    let plain = pair.connect();
    plain.echo(&[b'x'; 1000]);
    let target = backend.address().to_string();
    // The last bytes are counted a moment after they were sent.
    let seen = until("the bytes to be counted", WAIT_TIMEOUT, || {
        let seen = status(&pair.server);
        let counted = seen.services[0].sessions.first()?.bytes_down == 1000;
        counted.then_some(seen)
    });
    assert_eq!(seen.pid, pair.server.id());
    assert_eq!(seen.phase, "running");
    assert!(seen.file.ends_with("/pskgate.toml"), "{}", seen.file);
    let service = &seen.services[0];
    assert_eq!(service.name, "tls");
    assert_eq!(service.listeners, [pair.server.address("tls").to_string()]);
    let session = &service.sessions[0];
    assert!(session.identity.contains(IDENTITY), "{}", session.identity);
    assert!(session.peer.starts_with("127.0.0.1:"), "{}", session.peer);
    assert_eq!(session.target, target);
    assert_eq!((session.bytes_up, session.version.as_str()), (1000, "TLSv1.3"));

    let shown = command(&pair.server, &["status"]);
    for part in ["[tls]", IDENTITY, &session.peer, &target, "1.00 kB", "TLSv1.3"] {
        assert!(shown.out.contains(part), "{part} is not in:\n{}", shown.out);
    }
    assert!(shown.out.is_ascii() && !shown.out.contains('\x1b'), "nothing is drawn in a pipe");
    let table = command(&pair.server, &["sessions"]);
    assert_eq!(table.out.lines().count(), 2, "a header and a line: {}", table.out);
    let json: serde_json::Value =
        serde_json::from_str(&command(&pair.server, &["sessions", "--json"]).out).unwrap();
    assert_eq!(json[0]["target"], target.as_str());
    assert_eq!(json[0]["service"], "tls");
    plain.shut();
    plain.rest();
    until("the session to go", WAIT_TIMEOUT, || {
        status(&pair.server).services[0].sessions.is_empty().then_some(())
    });
}

#[test]
fn a_reload_is_waited_for_and_what_came_of_it_comes_back() {
    let backend = Backend::echo();
    let server = server(&backend, "");
    let toml = client_toml(server.address("tls"), "").replace(IDENTITY, "client2");
    let second =
        PskgateBuilder::new().file("psk.txt", &secret("client2", OTHER_KEY)).toml(&toml).start();
    let keys = server.folder().join("psk.txt");
    write_private(&keys, &(secret(IDENTITY, KEY) + &secret("client2", OTHER_KEY)));
    let done = command(&server, &["reload"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    assert!(done.out.starts_with("reloaded at 20"), "{}", done.out);
    // No waiting here: it has just said that the key is in force.
    PlainClient::connect(second.address("plain")).echo(b"let in");
    let line = server.wait_logged(" orders: reload");
    assert!(line.contains("control socket: user ") && line.contains("(process "), "{line}");

    write_private(&keys, &secret(IDENTITY, KEY).replace(':', " "));
    let done = command(&server, &["reload"]);
    assert_eq!((done.code, done.out.as_str()), (Some(78), ""));
    for part in ["psk.txt", "no colon", "not reloaded"] {
        assert!(done.err.contains(part), "{part} is not in: {}", done.err);
    }
    assert!(!done.err.contains(KEY), "a key in the findings");
    let last = status(&server).reloads.last.expect("a reload");
    assert!(!last.done && last.findings.iter().any(|line| line.contains("psk.txt")), "{last:?}");
    let shown = command(&server, &["status"]).out;
    assert!(shown.contains("refused: ") && shown.contains("no colon"), "{shown}");
    // A file that cannot be read as it is now still leads to its program.
    write_private(&server.folder().join("pskgate.toml"), "not toml at all");
    assert_eq!(command(&server, &["reload"]).code, Some(78));
    PlainClient::connect(second.address("plain")).echo(b"as before");
}

#[test]
fn what_a_session_carried_is_counted_once_while_its_backend_takes_its_time_to_close() {
    // It reads what comes, and is slow to let go.
    let backend = Backend::new(|stream| {
        let (mut stream, mut piece) = (stream, [0; 4096]);
        while stream.read(&mut piece).is_ok_and(|count| count > 0) {}
        std::thread::sleep(std::time::Duration::from_secs(30));
        None
    });
    let pair = Pair::new(&backend);
    let plain = pair.connect();
    plain.send(&[b'x'; 1000]);
    let carried = |wanted| {
        let seen = status(&pair.server).services.remove(0);
        (seen.bytes_up == wanted).then_some(seen)
    };
    until("the bytes to be counted", WAIT_TIMEOUT, || carried(1000));
    assert_eq!(command(&pair.server, &["kick", IDENTITY]).code, Some(0));
    assert_eq!(plain.end(), ConnectionEnd::Rst);
    let seen = status(&pair.server).services.remove(0);
    assert_eq!(seen.sessions.len(), 1, "its place is free before its backend has closed");
    assert_eq!((seen.bytes_up, seen.ended.get("kicked")), (1000, Some(&1)));
}

#[test]
fn a_status_of_thousands_of_identities_is_whole_however_many_ask_at_once() {
    let backend = Backend::echo();
    let keys: String =
        (0..3000).map(|n| secret(&format!("plc-{n}"), &format!("{n:04}{KEY}"))).collect();
    let toml = server_toml(backend.address(), "");
    let server = PskgateBuilder::new().file("psk.txt", &keys).toml(&toml).start();
    let path = socket(&server);
    let all: Vec<_> = (0..8).map(|_| connect(&path)).collect();
    for stream in &all {
        let mut to = stream;
        to.write_all(b"{\"command\":\"status\"}\n").expect("it takes the question");
    }
    for stream in &all {
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("an answer");
        assert!(answer.starts_with("{\"status\":") && answer.ends_with("}\n"));
        assert_eq!(answer.matches("\"wire\":\"plc-").count(), 3000);
    }
}

#[test]
fn a_target_that_does_not_answer_is_counted_and_told_at_the_server_end() {
    let target = format!("127.0.0.1:{}", free_port());
    let gate = PskgateBuilder::new().toml(&server_toml(&target, "")).start();
    let client = PskgateBuilder::new().toml(&client_toml(gate.address("tls"), "")).start();
    assert_eq!(PlainClient::connect(client.address("plain")).end(), ConnectionEnd::Rst);
    let service = until("the count", WAIT_TIMEOUT, || {
        let service = status(&gate).services.remove(0);
        (service.refused.get("target-unreachable") == Some(&1)).then_some(service)
    });
    let words = service.last_failure.expect("the last failure").words;
    assert!(words.contains(&target) && words.contains("no target answered"), "{words}");
}

#[test]
fn a_socket_that_an_unreadable_file_may_name_is_spoken_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nobody-runs-this.toml");
    for broken in [None, Some("[services.tls\n"), Some("[control\nsocket = \"gate.sock\"\n")] {
        broken.inspect(|text| fs::write(&file, text).unwrap());
        let done = pskgate(folder.path(), &["status".as_ref(), file.as_os_str()]);
        assert_eq!(done.code, Some(69), "{}", done.err);
        for part in ["cannot be read now", "--socket PATH"] {
            assert!(done.err.contains(part), "{part} is not in: {}", done.err);
        }
    }
}

#[test]
fn kick_ends_one_session_or_all_of_an_identity_and_says_how_many() {
    let backend = Backend::echo();
    let pair = Pair::new(&backend);
    let [first, second, third] = [pair.connect(), pair.connect(), pair.connect()];
    for plain in [&first, &second, &third] {
        plain.echo(b"hello");
    }
    let number = status(&pair.server).services[0].sessions[0].number.to_string();
    let done = command(&pair.server, &["kick", &number]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "1 session ends\n"), "{}", done.err);
    assert_eq!(first.end(), ConnectionEnd::Rst);
    pair.server.wait_logged("kicked");
    pair.server.wait_logged(&format!("orders: kick session {number}"));
    second.echo(b"goes on");
    let done = command(&pair.server, &["kick", IDENTITY]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "2 sessions end\n"), "{}", done.err);
    assert_eq!((second.end(), third.end()), (ConnectionEnd::Rst, ConnectionEnd::Rst));
    for whom in [&["kick", "99999"][..], &["kick", "nobody"], &["kick", "--identity", &number]] {
        let done = command(&pair.server, whom);
        assert_eq!((done.code, done.out.as_str()), (Some(1), "0 sessions end\n"), "{}", done.err);
        assert!(done.err.contains("`pskgate sessions` shows"), "{}", done.err);
    }
    pair.connect().echo(b"and may come back");
}

#[test]
fn who_can_connect_may_look_and_only_who_is_named_may_order() {
    need_root();
    let backend = Backend::echo();
    let server = server(&backend, "[control]\nmode = \"0666\"\n");
    let program = public_copy(server.folder());
    let socket = socket(&server);
    let run = |command: &[&str]| {
        let mut all = command.to_vec();
        all.extend(["--socket", socket.to_str().unwrap()]);
        as_nobody(server.folder(), &program, &all)
    };
    assert_eq!(status_of(&run(&["status", "--json"])).pid, server.id());
    for order in [&["reload"][..], &["kick", "1"], &["kick", "some\x1bbody"]] {
        let done = run(order);
        assert_eq!((done.code, done.out.as_str()), (Some(77), ""), "{order:?}: {}", done.err);
        assert!(done.err.contains("command-users"), "{}", done.err);
    }
    server.wait_logged("user 65534 (process ");
    server.wait_logged("may not order: reload");
    server.wait_logged(r#"may not order: kick identity "some\u{1b}body""#);
    assert!(!server.log().contains("orders: "), "{}", server.log());

    // Rights change with a reload, and connections that are open change with them.
    let open = connect(&socket);
    let text = fs::read_to_string(server.folder().join("pskgate.toml")).unwrap();
    let text = text.replace("mode = \"0666\"", "mode = \"0622\"\ncommand-users = [\"nobody\"]");
    write_private(&server.folder().join("pskgate.toml"), &text);
    assert_eq!(command(&server, &["reload"]).code, Some(0));
    assert_eq!(run(&["reload"]).code, Some(0));
    server.wait_logged("user 65534 (process ");
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o622);
    assert!(ask(&open, r#"{"command":"status"}"#).starts_with("{\"status\":"));

    // And whom the mode keeps out is told so.
    write_private(
        &server.folder().join("pskgate.toml"),
        &text.replace("mode = \"0622\"", "mode = \"0600\""),
    );
    assert_eq!(command(&server, &["reload"]).code, Some(0));
    let done = run(&["status"]);
    assert_eq!(done.code, Some(77), "{}", done.err);
    assert!(done.err.contains("may not connect"), "{}", done.err);
}

#[test]
fn the_socket_has_its_mode_and_group_whatever_the_umask() {
    need_root();
    let backend = Backend::echo();
    for (lines, umask, mode, group) in [
        ("", "000", 0o600, 0),
        ("mode = \"0666\"\n", "077", 0o666, 0),
        ("mode = \"0660\"\ngroup = \"nogroup\"\n", "022", 0o660, NOBODY),
    ] {
        let toml = format!("[control]\n{lines}\n{}", server_toml(backend.address(), ""));
        let mut server = PskgateBuilder::new().toml(&toml).shell(&format!("umask {umask}")).start();
        let path = socket(&server);
        let meta = path.metadata().unwrap();
        assert_eq!((meta.permissions().mode() & 0o777, meta.gid()), (mode, group), "{lines}");
        assert_eq!(server.terminate(), Some(0));
        assert!(!path.exists(), "it goes with its program");
    }
}

#[test]
fn what_a_crash_left_behind_is_replaced() {
    let backend = Backend::echo();
    let mut first = server(&backend, "");
    let path = socket(&first);
    first.process().kill();
    assert!(path.exists());
    let done = command(&first, &["status"]);
    assert_eq!(done.code, Some(69));
    assert!(done.err.contains("pskgate.sock: left behind"), "{}", done.err);
    let there = format!("export RUNTIME_DIRECTORY='{}'", first.folder().display());
    let toml = server_toml(backend.address(), "");
    let second = PskgateBuilder::new().toml(&toml).shell(&there).start();
    let socket = path.to_str().unwrap();
    let done = pskgate(second.folder(), &["status", "--json", "--socket", socket]);
    assert_eq!(status_of(&done).pid, second.id());
}

#[test]
fn where_two_programs_run_each_is_shown_and_an_order_must_say_which() {
    let backend = Backend::echo();
    let first = server(&backend, "");
    let there = format!("export RUNTIME_DIRECTORY='{}'", first.folder().display());
    let toml = server_toml(backend.address(), "");
    let second = PskgateBuilder::new().conf("other.toml", &toml, None).shell(&there).start();
    let in_first = |arguments: &[&str]| pskgate(first.folder(), arguments);
    let done = in_first(&["status", "--json"]);
    let all: Vec<Status> = serde_json::from_str(&done.out).expect("an array");
    let mut numbers: Vec<_> = all.iter().map(|status| status.pid).collect();
    numbers.sort_unstable();
    let mut wanted = [first.id(), second.id()];
    wanted.sort_unstable();
    assert_eq!(numbers, wanted);
    assert_eq!(in_first(&["status"]).out.matches("[tls]").count(), 2);
    for order in [&["reload"][..], &["kick", "1"], &["sessions"]] {
        let done = in_first(order);
        assert_eq!(done.code, Some(64), "{}", done.err);
        for name in ["pskgate.sock", "other.sock", "--socket"] {
            assert!(done.err.contains(name), "{name} is not in: {}", done.err);
        }
        // Each name that the message offers is one that the command takes.
        let names: Vec<_> =
            done.err.lines().filter_map(|line| line.split_once("   (")).map(|(n, _)| n).collect();
        assert_eq!(names.len(), 2, "{}", done.err);
        for name in names {
            assert_eq!(in_first(&["sessions", name.trim()]).code, Some(0), "{name}");
        }
    }
    // A third one under a name that is taken runs all the same, and says what it has not.
    let third = PskgateBuilder::new().toml(&toml).shell(&there).start();
    let line = third.wait_logged("there is no control socket");
    assert!(line.contains("notice") && line.contains("pskgate.sock"), "{line}");
    let client = PskgateBuilder::new().toml(&client_toml(third.address("tls"), "")).start();
    PlainClient::connect(client.address("plain")).echo(b"it works");
    // The file decides, not the name alone: nothing is ordered from the wrong program.
    let file = third.folder().join("pskgate.toml");
    let done = in_first(&["reload", file.to_str().unwrap()]);
    assert_eq!(done.code, Some(69));
    assert!(done.err.contains("this one runs "), "{}", done.err);
    assert!(!first.log().contains("orders"), "{}", first.log());
}

#[test]
fn two_stunnel_confs_of_one_name_are_told_how_each_has_a_socket() {
    let backend = Backend::echo();
    let sections = [0, 1].map(|_| section(free_port(), &backend));
    let conf = |section: &str| format!("foreground = yes\nsyslog = no\n{section}");
    let first = PskgateBuilder::new().conf("site.conf", &conf(&sections[0]), None).start();
    let there = format!("export RUNTIME_DIRECTORY='{}'", first.folder().display());
    let second =
        PskgateBuilder::new().conf("site.conf", &conf(&sections[1]), None).shell(&there).start();
    let line = second.wait_logged("a program whose configuration has the same name uses it");
    assert!(line.contains("LOG5"), "a notice: {line}");
    assert!(line.contains("; pskgate: control.socket = PATH"), "{line}");
    drop(second);
    let other = first.folder().join("other.sock");
    let text = format!("; pskgate: control.socket = {}\n{}", other.display(), conf(&sections[1]));
    let second = PskgateBuilder::new().conf("site.conf", &text, None).shell(&there).start();
    let socket = other.to_str().unwrap();
    let done = pskgate(first.folder(), &["status", "--json", "--socket", socket]);
    assert!(done.out.contains(&format!("\"pid\": {},", second.id())), "{}{}", done.out, done.err);
    assert!(!second.log().contains("no control socket"), "{}", second.log());
}

#[test]
fn watching_in_a_pipe_adds_lines_and_ends_in_order() {
    let backend = Backend::echo();
    let pair = Pair::new(&backend);
    let plain = pair.connect();
    plain.echo(b"hello");
    let mut watch = Command::new(env!("CARGO_BIN_EXE_pskgate"));
    watch.args(["status", "--watch", "0.1", "pskgate.toml"]).current_dir(pair.server.folder());
    watch.env("RUNTIME_DIRECTORY", pair.server.folder());
    let mut watch = Process::spawn("pskgate", "cargo", &mut watch);
    watch.wait_for(&format!("identity {IDENTITY} from 127.0.0.1:"), WAIT_TIMEOUT);
    until("a rate that was measured", WAIT_TIMEOUT, || {
        plain.echo(&[b'x'; 10_000]);
        let moves = |line: &str| line.ends_with("B/s") && !line.ends_with(" 0 B/s");
        watch.out().lines().any(moves).then_some(())
    });
    watch.signal(Signal::INT);
    assert_eq!(watch.wait(WAIT_TIMEOUT).code(), Some(0), "{}", watch.err());
    assert!(!watch.out().contains('\x1b'), "{}", watch.out());
    assert!(watch.err().is_empty(), "{}", watch.err());
}

#[test]
fn watching_on_a_terminal_redraws_in_place_and_gives_the_cursor_back() {
    let backend = Backend::echo();
    let pair = Pair::new(&backend);
    let plain = pair.connect();
    plain.echo(b"hello");
    let line = format!(
        "stty cols 80 rows 20; exec {} status --watch 0.1 pskgate.toml",
        env!("CARGO_BIN_EXE_pskgate")
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script.current_dir(pair.server.folder()).env("RUNTIME_DIRECTORY", pair.server.folder());
    script.env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
    let mut screen = Process::spawn("script", "the Debian package bsdutils", &mut script);
    until("a bar of whoever moves most", WAIT_TIMEOUT, || {
        plain.echo(&[b'x'; 10_000]);
        let out = screen.out();
        (out.contains('█') && out.matches("\x1b[H").count() > 3).then_some(())
    });
    screen.type_in("\x03");
    assert_eq!(screen.wait(WAIT_TIMEOUT).code(), Some(0), "{}", screen.text());
    let out = screen.out();
    assert_eq!(out.matches("\x1b[?25l").count(), 1, "the cursor goes once: {out:?}");
    assert!(out.contains("\x1b[?25h"), "and comes back: {out:?}");
    let frames: Vec<_> = out.split("\x1b[H").skip(1).collect();
    assert!(frames.len() > 2, "{out:?}");
    let last = frames[frames.len() - 2];
    for line in last.lines() {
        let mut shown = line.replace("\x1b[K", "");
        for code in ["\x1b[1m", "\x1b[0m", "\x1b[31m", "\x1b[J"] {
            shown = shown.replace(code, "");
        }
        let is_table = shown.starts_with('#') || shown.contains(IDENTITY);
        assert!(!is_table || shown.trim_end().chars().count() <= 80, "{shown:?}");
    }
}

#[test]
fn what_is_no_request_is_refused_and_the_next_asker_is_served() {
    let backend = Backend::echo();
    let server = server(&backend, "");
    let path = socket(&server);
    let long = [b"{\"command\":\"status\",\"x\":\"".as_slice(), &[b'x'; 8000]].concat();
    for sent in [
        &b"\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"{\"command\":\"explode\"}\n",
        b"{\"command\":{\"kick\":7}}\n",
        b"\xff\xfe\x00\x1b[31m\n",
        b"[[[[[[[[[[[[[[[[\n",
        &long,
    ] {
        let answer = refused(&path, sent);
        assert!(answer.starts_with("{\"refused\":\""), "{answer}");
        assert!(!answer.contains("explode") && answer.is_ascii(), "{answer}");
    }
    assert_eq!(status(&server).pid, server.id());
}

#[test]
fn a_hundred_silent_connections_keep_nobody_out_and_cost_sixteen_descriptors() {
    let backend = Backend::echo();
    let server = server(&backend, "");
    let path = socket(&server);
    let before = server.settled_descriptors();
    let silent: Vec<_> = (0..100).map(|_| connect(&path)).collect();
    for _ in 0..20 {
        assert_eq!(status(&server).pid, server.id());
    }
    until("the others to be cut", WAIT_TIMEOUT, || {
        (server.descriptors() <= before + 16).then_some(())
    });
    drop(silent);
    until("all to be gone", WAIT_TIMEOUT, || (server.descriptors() <= before).then_some(()));
}

#[test]
fn a_reload_keeps_the_socket_open_and_one_that_moves_it_still_answers_who_asked() {
    let backend = Backend::echo();
    let text = |name: &str, more: &str| {
        format!("[control]\nsocket = \"{name}\"\n{}", server_toml(backend.address(), more))
    };
    let gate = PskgateBuilder::new().toml(&text("one.sock", "")).start();
    let file = gate.folder().join("pskgate.toml");
    let (one, two) = (gate.folder().join("one.sock"), gate.folder().join("two.sock"));
    let open = connect(&one);
    write_private(&file, &text("one.sock", "idle-timeout = \"1h\""));
    assert!(ask(&open, r#"{"command":"reload"}"#).starts_with("{\"reloaded\":{"));
    let inode = one.metadata().unwrap().ino();
    assert!(ask(&open, r#"{"command":"status"}"#).starts_with("{\"status\":{"));
    assert_eq!(inode, one.metadata().unwrap().ino(), "it was never anew");

    write_private(&file, &text("two.sock", ""));
    let by_path = |command: &str, path: &Path| {
        pskgate(gate.folder(), &[command, "--socket", path.to_str().unwrap()])
    };
    let done = by_path("reload", &one);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(by_path("status", &two).code, Some(0));
    assert!(!one.exists());
    assert_eq!(by_path("status", &one).code, Some(69));
    // What cannot be had changes nothing.
    write_private(&file, &text("no-such-folder/x.sock", ""));
    let done = by_path("reload", &two);
    assert_eq!(done.code, Some(78));
    assert!(done.err.contains("[control] cannot listen on"), "{}", done.err);
    write_private(&file, &format!("[control]\nenabled = false\n{}", server_toml(1, "")));
    assert_eq!(by_path("reload", &two).code, Some(0));
    assert!(!two.exists());
}

#[test]
fn after_the_drop_and_in_a_chroot_it_answers_reloads_and_goes() {
    need_root();
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    chown(stage.path("psk.txt"), Some(NOBODY), None).unwrap();
    let jail = stage.path("");
    let jail = jail.to_str().unwrap().trim_end_matches('/');
    let text = format!(
        "chroot = {jail}\nsetuid = nobody\npid = /pid.txt\noutput = /log.txt\nsyslog = no\n{}",
        section(port, &backend)
    );
    stage.file("x.conf", &text);
    chown(stage.path("x.conf"), Some(NOBODY), None).unwrap();
    let daemon = stage.background("x.conf");
    let path = stage.path("x.sock");
    let by_path =
        |arguments: &[&str]| pskgate(Path::new(jail), &[arguments, &["--socket", jail]].concat());
    // The folder is no socket: words, and not a wait.
    assert_eq!(by_path(&["status"]).code, Some(69));
    let socket = path.to_str().unwrap();
    let by_path =
        |arguments: &[&str]| pskgate(Path::new(jail), &[arguments, &["--socket", socket]].concat());
    let client = client_of(port);
    let _open = echo_through(&client);
    for _ in 0..2 {
        let seen = status_of(&by_path(&["status", "--json"]));
        assert_eq!(seen.pid, u32::try_from(daemon.0).unwrap());
        assert_eq!(seen.services[0].sessions.len(), 1);
        let done = by_path(&["reload"]);
        assert_eq!(done.code, Some(0), "{}", done.err);
    }
    assert!(stage.read("log.txt").contains("orders: reload"), "{}", stage.read("log.txt"));
    daemon.signal(Signal::TERM);
    daemon.wait_gone();
    assert!(!path.exists(), "it is removed from inside, too");
}

#[test]
fn a_path_that_was_written_is_the_same_one_inside_a_chroot() {
    need_root();
    let backend = Backend::echo();
    let gate = PskgateBuilder::new();
    let jail = gate.folder().display().to_string();
    for (written, found) in
        [("gate.sock", "gate.sock"), (&*format!("{jail}/full.sock"), "full.sock")]
    {
        let toml = format!(
            "chroot = \"{jail}\"\n[control]\nsocket = \"{written}\"\n{}",
            server_toml(backend.address(), "")
        );
        // The jail is that folder, and the program's own.
        let file = gate.folder().join("pskgate.toml");
        write_private(&file, &toml);
        let mut run = Command::new(env!("CARGO_BIN_EXE_pskgate"));
        run.arg("run").arg(&file).current_dir(gate.folder());
        let mut process = Process::spawn("pskgate", "cargo", &mut run);
        process.wait_for("listening on", WAIT_TIMEOUT);
        let path = gate.folder().join(found);
        let inode = path.metadata().unwrap().ino();
        let open = connect(&path);
        for _ in 0..2 {
            let answer = ask(&open, r#"{"command":"reload"}"#);
            assert!(answer.contains("\"done\":true"), "{answer}");
            assert_eq!(path.metadata().unwrap().ino(), inode, "it was never anew");
        }
        process.signal(Signal::TERM);
        assert_eq!(process.wait(WAIT_TIMEOUT).code(), Some(0));
        assert!(!path.exists());
    }
}

#[test]
fn a_user_has_it_in_the_runtime_folder_of_the_session_or_goes_without() {
    need_root();
    let backend = Backend::echo();
    for with_folder in [true, false] {
        let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), ""));
        let program = public_copy(gate.folder());
        let runtime = gate.folder().join("runtime");
        fs::create_dir(&runtime).unwrap();
        for file in ["psk.txt", "pskgate.toml", "runtime"] {
            chown(gate.folder().join(file), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let variable = if with_folder { "XDG_RUNTIME_DIR" } else { "UNUSED" };
        let line = format!(
            "unset RUNTIME_DIRECTORY XDG_RUNTIME_DIR; export {variable}='{}'; shift; \
             set -- setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups '{}' \"$@\"",
            runtime.display(),
            program.display()
        );
        let gate = gate.shell(&line).start();
        if !with_folder {
            let line = gate.wait_logged("there is no control socket");
            assert!(line.contains("XDG_RUNTIME_DIR"), "{line}");
            continue;
        }
        let path = runtime.join("pskgate/pskgate.sock");
        assert_eq!(path.metadata().unwrap().uid(), NOBODY);
        let mut command = Command::new(env!("CARGO_BIN_EXE_pskgate"));
        command.args(["status", "--json", "pskgate.toml"]).current_dir(gate.folder());
        command.env_remove("RUNTIME_DIRECTORY").env("XDG_RUNTIME_DIR", &runtime);
        assert_eq!(status_of(&finish(&mut command)).pid, gate.id());
    }
}

#[test]
fn a_drain_can_be_seen_and_the_successor_takes_the_socket() {
    let backend = Backend::echo();
    let port = free_port();
    let toml = format!("drain-timeout = \"1h\"\n{}", server_toml(backend.address(), ""))
        .replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let mut old = PskgateBuilder::new().toml(&toml).launch();
    old.wait_logged("listening on");
    let client = client_of(port);
    let plain = echo_through(&client);
    old.signal(Signal::TERM);
    // Whoever is silent for a second would be let go.
    until("the drain to be seen", WAIT_TIMEOUT, || {
        plain.echo(b"still here");
        (status(&old).phase == "draining").then_some(())
    });
    plain.echo(b"still here");
    let done = command(&old, &["reload"]);
    assert_eq!(done.code, Some(69));
    assert!(done.err.contains("stopping"), "{}", done.err);
    plain.echo(b"still here");
    let mut command_line = Command::new(env!("CARGO_BIN_EXE_pskgate"));
    command_line.args(["run", "pskgate.toml"]).current_dir(old.folder());
    command_line.env("RUNTIME_DIRECTORY", old.folder());
    let next = Process::spawn("pskgate", "cargo", &mut command_line);
    until("the successor", WAIT_TIMEOUT, || {
        plain.echo(b"still here");
        (status(&old).pid == next.id()).then_some(())
    });
    drop(plain);
    assert_eq!(old.exit_code(WAIT_TIMEOUT), Some(0));
    assert_eq!(status(&old).pid, next.id(), "the old one removed nothing that was not its own");
}

#[test]
fn where_none_is_wanted_or_of_use_there_is_none() {
    let backend = Backend::echo();
    let off = server(&backend, "[control]\nenabled = false\n");
    assert!(!socket(&off).exists());
    let done = command(&off, &["status"]);
    assert_eq!((done.code, done.out.as_str()), (Some(69), ""));
    assert!(done.err.contains("pskgate.sock: there is no such socket"), "{}", done.err);
    // Read from a descriptor, it has no name.
    let (stage, port) = (StunnelFolder::new(), free_port());
    let text = format!("pid = pid.txt\nsyslog = no\n{}", section(port, &backend));
    stage.file("x.conf", &text);
    let done = finish(&mut stage.shell("exec $STUNNEL -fd 3 3<x.conf"));
    assert_eq!(done.code, Some(0), "{}", done.err);
    echo_through(&client_of(port));
    let sockets = fs::read_dir(stage.path("")).unwrap().filter(|entry| {
        entry.as_ref().unwrap().path().extension().is_some_and(|last| last == "sock")
    });
    assert_eq!(sockets.count(), 0);
}

#[test]
fn a_path_that_was_written_and_cannot_be_had_is_an_error() {
    let toml =
        format!("[control]\nsocket = \"no-such-folder/x.sock\"\n{}", server_toml(local(1), ""));
    let mut gate = PskgateBuilder::new().toml(&toml).launch();
    assert_eq!(gate.exit_code(WAIT_TIMEOUT), Some(69));
    for part in ["pskgate.toml:2", "[control] cannot listen on", "no-such-folder/x.sock"] {
        assert!(gate.log().contains(part), "{part} is not in: {}", gate.log());
    }
    let toml = format!(
        "[control]\ncommand-users = [\"nobody-of-this-name\"]\n{}",
        server_toml(local(1), "")
    );
    let mut gate = PskgateBuilder::new().toml(&toml).launch();
    assert!(gate.exit_code(WAIT_TIMEOUT).is_some_and(|code| code != 0));
    assert!(gate.log().contains("nobody-of-this-name"), "{}", gate.log());
}
