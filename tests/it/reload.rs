//! Keys and configuration that change while the program runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::process::Unread;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, PlainClient, Pskgate, PskgateBuilder,
    Stopwatch, WAIT_TIMEOUT, client_toml, free_port, local, replace, secret, server_toml, until,
    write_private,
};

fn lines_with(gate: &Pskgate, fragment: &str) -> usize {
    gate.log().lines().filter(|line| line.contains(fragment)).count()
}

/// Waits until the program has reloaded so many times since its start.
fn wait_reloads(gate: &Pskgate, wanted: usize) {
    until(&format!("{wanted} reloads"), WAIT_TIMEOUT, || {
        (lines_with(gate, ": reloaded;") >= wanted).then_some(())
    });
}

fn server(backend: &Backend) -> Pskgate {
    PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start()
}

/// A client end that presents `identity` with `key`.
fn client(server: &Pskgate, identity: &str, key: &str) -> Pskgate {
    let toml = client_toml(server.address("tls"), "").replace(IDENTITY, identity);
    PskgateBuilder::new().file("psk.txt", &secret(identity, key)).toml(&toml).start()
}

fn connect(client: &Pskgate) -> PlainClient {
    PlainClient::connect(client.address("plain"))
}

#[test]
fn a_key_that_is_added_lets_its_holder_in_and_one_that_is_removed_is_cut_off_alone() {
    let backend = Backend::echo();
    let server = server(&backend);
    let keys = server.folder().join("psk.txt");
    let first = client(&server, IDENTITY, KEY);
    let second = client(&server, "client2", OTHER_KEY);
    let neighbour = connect(&first);
    neighbour.echo(b"before");
    let early = connect(&second);
    assert_eq!(early.end(), ConnectionEnd::Rst, "client2 is nobody yet");

    let both = secret(IDENTITY, KEY) + &secret("client2", OTHER_KEY);
    replace(&keys, &both);
    wait_reloads(&server, 1);
    server.wait_logged("[tls] keys: added \"client2\"");
    let member = connect(&second);
    member.echo(b"let in");

    replace(&keys, &secret(IDENTITY, KEY));
    let watch = Stopwatch::start();
    assert_eq!(member.end(), ConnectionEnd::Rst, "a revoked session is cut");
    // 300 ms until the change is taken, then at most a second.
    watch.expect_within(Duration::from_secs(2));
    server.wait_logged("[tls] keys: removed \"client2\"");
    let line = server.wait_logged("revoked");
    assert!(line.contains("identity \"client2\""), "{line}");
    assert_eq!(connect(&second).end(), ConnectionEnd::Rst, "and may not come back");
    neighbour.echo(b"after");
}

#[test]
fn a_replaced_key_ends_the_sessions_of_the_old_one() {
    let backend = Backend::echo();
    let server = server(&backend);
    let (old, new) = (client(&server, IDENTITY, KEY), client(&server, IDENTITY, OTHER_KEY));
    let session = connect(&old);
    session.echo(b"before");
    replace(&server.folder().join("psk.txt"), &secret(IDENTITY, OTHER_KEY));
    assert_eq!(session.end(), ConnectionEnd::Rst);
    assert_eq!(connect(&old).end(), ConnectionEnd::Rst);
    connect(&new).echo(b"with the new key");
}

#[test]
fn a_client_end_cuts_its_sessions_when_its_own_key_goes() {
    let backend = Backend::echo();
    let server = server(&backend);
    let client = client(&server, IDENTITY, KEY);
    let session = connect(&client);
    session.echo(b"before");
    replace(&client.folder().join("psk.txt"), &secret(IDENTITY, OTHER_KEY));
    assert_eq!(session.end(), ConnectionEnd::Rst);
}

#[test]
fn a_broken_file_changes_nothing_says_why_and_the_next_good_one_takes() {
    let backend = Backend::echo();
    let server = server(&backend);
    let keys = server.folder().join("psk.txt");
    let client = client(&server, IDENTITY, KEY);
    let session = connect(&client);
    session.echo(b"before");
    let good = secret(IDENTITY, KEY);
    let breakages: [(&str, &dyn Fn()); 5] = [
        ("no colon", &|| replace(&keys, &format!("{good}no key at all\n"))),
        ("short-key", &|| replace(&keys, &format!("{good}client2:short\n"))),
        ("stands on line 1 already", &|| replace(&keys, &format!("{good}{good}"))),
        ("cannot read the key file", &|| fs::remove_file(&keys).expect("removed")),
        ("mode 0644", &|| {
            use std::os::unix::fs::PermissionsExt;
            let fresh = keys.with_extension("new");
            write_private(&fresh, &good);
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644)).expect("a mode");
            fs::rename(&fresh, &keys).expect("moved");
        }),
    ];
    for (n, (words, break_it)) in breakages.into_iter().enumerate() {
        break_it();
        until("the refusal", WAIT_TIMEOUT, || {
            (lines_with(&server, "not reloaded") > n).then_some(())
        });
        if words != "short-key" {
            server.wait_logged(words);
        }
        session.echo(b"still here");
        connect(&client).echo(b"and the old key works");
        // Back to what was in force: the next breakage is a change again.
        let before = lines_with(&server, ": reloaded;");
        replace(&keys, &good);
        wait_reloads(&server, before + 1);
    }
    session.echo(b"to the end");
    assert!(!server.log().contains(KEY), "a key in the log");
}

#[test]
fn a_refused_configuration_is_tried_again_when_the_file_that_it_lacked_has_come() {
    let backend = Backend::echo();
    let server = server(&backend);
    let file = server.folder().join("pskgate.toml");
    let text = fs::read_to_string(&file).unwrap().replace("psk.txt", "later.txt");
    replace(&file, &text);
    server.wait_logged("later.txt");
    until("the refusal", WAIT_TIMEOUT, || {
        (lines_with(&server, ": not reloaded:") == 1).then_some(())
    });
    replace(&server.folder().join("later.txt"), &secret("client2", OTHER_KEY));
    wait_reloads(&server, 1);
    connect(&client(&server, "client2", OTHER_KEY)).echo(b"let in");
    assert_eq!(lines_with(&server, ": not reloaded:"), 1, "it was tried without a reason");
}

#[test]
fn touching_a_file_does_nothing() {
    let backend = Backend::echo();
    let server = server(&backend);
    let keys = server.folder().join("psk.txt");
    let text = secret(IDENTITY, KEY);
    for _ in 0..3 {
        // The same content: written over, and moved over.
        fs::write(&keys, &text).expect("written");
        replace(&keys, &text);
    }
    // Changes are seen in order: when this one has been taken, those before had their chance.
    replace(&keys, &(text + &secret("client2", OTHER_KEY)));
    wait_reloads(&server, 1);
    assert_eq!(lines_with(&server, ": reloaded;"), 1, "{}", server.log());
}

#[test]
fn a_kubernetes_secret_that_is_swapped_is_noticed() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new();
    let volume = gate.folder().join("volume");
    let version = |name: &str, text: &str| {
        let folder = volume.join(name);
        fs::create_dir_all(&folder).expect("a version");
        write_private(&folder.join("psk.txt"), text);
    };
    version("..1", &secret(IDENTITY, KEY));
    symlink("..1", volume.join("..data")).expect("a link");
    symlink("..data/psk.txt", volume.join("psk.txt")).expect("a link");
    let toml = server_toml(backend.address(), "").replace("\"psk.txt\"", "\"volume/psk.txt\"");
    let server = gate.toml(&toml).start();
    let (old, new) = (client(&server, IDENTITY, KEY), client(&server, IDENTITY, OTHER_KEY));
    let session = connect(&old);
    session.echo(b"before");
    for (n, (key, holder)) in [(OTHER_KEY, &new), (KEY, &old)].into_iter().enumerate() {
        let name = format!("..{}", n + 2);
        version(&name, &secret(IDENTITY, key));
        symlink(&name, volume.join("..data_tmp")).expect("a link");
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("the swap");
        wait_reloads(&server, n + 1);
        connect(holder).echo(b"with the key of this version");
    }
    assert_eq!(session.end(), ConnectionEnd::Rst, "the old version's session was cut");
}

#[test]
fn a_directory_of_keys_is_followed() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new();
    fs::create_dir(gate.folder().join("psk.d")).expect("a folder");
    let gate = gate.file("psk.d/10-first", &secret(IDENTITY, KEY));
    let toml = server_toml(backend.address(), "").replace("\"psk.txt\"", "\"psk.d\"");
    let server = gate.toml(&toml).start();
    let second = client(&server, "client2", OTHER_KEY);
    write_private(&server.folder().join("psk.d/20-second"), &secret("client2", OTHER_KEY));
    wait_reloads(&server, 1);
    let session = connect(&second);
    session.echo(b"let in");
    fs::remove_file(server.folder().join("psk.d/20-second")).expect("removed");
    assert_eq!(session.end(), ConnectionEnd::Rst);
}

#[test]
fn a_new_address_is_served_the_old_one_closes_and_sessions_go_on() {
    let backend = Backend::echo();
    let (old, new) = (free_port(), free_port());
    let at = |port: u16, more: &str| {
        let accept = format!("\"127.0.0.1:{port}\"");
        server_toml(backend.address(), more).replace("\"127.0.0.1:0\"", &accept)
    };
    let server = PskgateBuilder::new().toml(&at(old, "")).start();
    let client = client(&server, IDENTITY, KEY);
    let session = connect(&client);
    session.echo(b"before");
    let file = server.folder().join("pskgate.toml");
    replace(&file, &at(new, "idle-timeout = \"1h\""));
    server.wait_logged(&format!("listening on 127.0.0.1:{new}"));
    until("the old address to be closed", WAIT_TIMEOUT, || {
        std::net::TcpStream::connect(local(old)).is_err().then_some(())
    });
    std::net::TcpStream::connect(local(new)).expect("the new address");
    session.echo(b"after");
    // A log option alone does not disturb anybody either.
    replace(&file, &(at(new, "") + "[log]\nlevel = \"debug\"\n"));
    wait_reloads(&server, 2);
    session.echo(b"and after that");
}

#[test]
fn an_address_that_is_taken_refuses_the_reload_and_the_old_one_stays() {
    let backend = Backend::echo();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = server(&backend);
    let client = client(&server, IDENTITY, KEY);
    let port = taken.local_addr().expect("its address").port();
    let toml = server_toml(backend.address(), "")
        .replace("\"127.0.0.1:0\"", &format!("[\"127.0.0.1:0\", \"127.0.0.1:{port}\"]"));
    replace(&server.folder().join("pskgate.toml"), &toml);
    server.wait_logged("cannot listen on");
    server.wait_logged("not reloaded");
    connect(&client).echo(b"as before");
}

#[test]
fn an_address_that_the_program_s_own_listener_has_is_told_as_that() {
    let backend = Backend::echo();
    let port = free_port();
    let all = server_toml(backend.address(), "");
    let at = |host: &str| all.replace("\"127.0.0.1:0\"", &format!("\"{host}:{port}\""));
    let server = PskgateBuilder::new().toml(&at("0.0.0.0")).start();
    replace(&server.folder().join("pskgate.toml"), &at("127.0.0.1"));
    let line = server.wait_logged("cannot listen on");
    assert!(line.contains(&format!("itself listens on 0.0.0.0:{port}")), "{line}");
    assert!(line.contains("restart it"), "{line}");
}

#[test]
fn no_connection_is_lost_to_forty_reloads_under_load() {
    const RELOADS: usize = 40;
    let backend = Backend::echo();
    let server = server(&backend);
    let keys = server.folder().join("psk.txt");
    let client = client(&server, IDENTITY, KEY);
    let long = connect(&client);
    let door = client.address("plain");
    let (done, connections) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    PlainClient::connect(door).echo(b"one of many");
                    connections.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 0..RELOADS {
            // Each one brings a key or takes it away, so that each is seen to have had an effect.
            let more = if n % 2 == 0 { secret("client2", OTHER_KEY) } else { String::new() };
            replace(&keys, &(secret(IDENTITY, KEY) + &more));
            server.signal(Signal::HUP);
            wait_reloads(&server, n + 1);
            long.echo(b"the long one");
        }
        done.store(true, Ordering::Release);
    });
    let made = connections.load(Ordering::Relaxed);
    assert!(made > RELOADS, "only {made} connections were made meanwhile");
    assert_eq!(lines_with(&client, "handshake failed"), 0, "{}", client.log());
}

/// A log in the folder of the key file is the founding document's case.
#[test]
fn a_busy_log_beside_the_key_file_does_not_hold_up_a_revocation() {
    let backend = Backend::echo();
    let toml = "[log]\noutput = \"busy.log\"\n".to_owned() + &server_toml(backend.address(), "");
    let gate = PskgateBuilder::new().conf("busy.toml", &toml, Some("busy.log"));
    let port = free_port();
    let text = toml.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let server = gate.file("busy.toml", &text).launch();
    server.wait_logged("listening on");
    let toml = client_toml(local(port), "");
    let client = PskgateBuilder::new().toml(&toml).start();
    let session = connect(&client);
    session.echo(b"before");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each of these is a line in the log, ten of them a second and more.
            while !done.load(Ordering::Acquire) {
                drop(std::net::TcpStream::connect(local(port)));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        replace(&server.folder().join("psk.txt"), &secret("somebody", OTHER_KEY));
        let watch = Stopwatch::start();
        let end = session.end();
        done.store(true, Ordering::Release);
        assert_eq!(end, ConnectionEnd::Rst);
        watch.expect_within(Duration::from_secs(3));
    });
}

#[test]
fn a_pipe_in_place_of_a_file_stops_neither_the_tunnel_nor_its_end() {
    let backend = Backend::echo();
    let mut server = server(&backend);
    let client = client(&server, IDENTITY, KEY);
    let session = connect(&client);
    session.echo(b"before");
    for name in ["psk.txt", "pskgate.toml"] {
        let path = server.folder().join(name);
        let kept = fs::read(&path).expect("its text");
        fs::remove_file(&path).expect("removed");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
        assert!(made.success());
        // A pipe may hold keys, once; a configuration is a file.
        let words = if name == "psk.txt" { "are read once" } else { "not reloaded" };
        let before = lines_with(&server, words);
        server.signal(Signal::HUP);
        until("the finding", WAIT_TIMEOUT, || (lines_with(&server, words) > before).then_some(()));
        session.echo(b"goes on");
        fs::remove_file(&path).expect("removed");
        write_private(&path, &String::from_utf8(kept).expect("text"));
    }
    drop(session);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_signal_to_stop_is_heard_while_a_reload_waits_for_a_busy_address() {
    let backend = Backend::echo();
    let mut server = server(&backend);
    let taken: Vec<_> =
        (0..10).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let all: Vec<_> =
        taken.iter().map(|l| format!("\"{}\"", l.local_addr().expect("its address"))).collect();
    let toml = server_toml(backend.address(), "")
        .replace("\"127.0.0.1:0\"", &format!("[\"127.0.0.1:0\", {}]", all.join(", ")));
    replace(&server.folder().join("pskgate.toml"), &toml);
    server.signal(Signal::HUP);
    let watch = Stopwatch::start();
    assert_eq!(server.terminate(), Some(0));
    watch.expect_within(Duration::from_secs(5));
}

#[test]
fn sections_of_one_name_keep_their_own_sessions() {
    let backend = Backend::echo();
    let (one, two) = (free_port(), free_port());
    let section = |port: u16, keys: &str| {
        let to = backend.address();
        format!("[same]\naccept = 127.0.0.1:{port}\nconnect = {to}\nPSKsecrets = {keys}\n")
    };
    let text = section(one, "psk.txt") + &section(two, "two.txt");
    let gate = PskgateBuilder::new().file("two.txt", &secret("client2", OTHER_KEY));
    let server = gate.conf("x.conf", &text, None).start();
    let end = |port: u16, identity: &str, key: &str| {
        let toml = client_toml(local(port), "").replace(IDENTITY, identity);
        PskgateBuilder::new().file("psk.txt", &secret(identity, key)).toml(&toml).start()
    };
    let (first, second) = (end(one, IDENTITY, KEY), end(two, "client2", OTHER_KEY));
    let (a, b) = (connect(&first), connect(&second));
    a.echo(b"one");
    b.echo(b"two");
    let count = || lines_with(&server, "Configuration successful");
    let before = count();
    server.signal(Signal::HUP);
    until("the reload", WAIT_TIMEOUT, || (count() > before).then_some(()));
    a.echo(b"one goes on");
    b.echo(b"and two");
}

#[test]
fn a_log_that_nobody_reads_stops_neither_the_tunnel_nor_a_reload() {
    let backend = Backend::echo();
    let port = free_port();
    let folder = tempfile::TempDir::new().expect("a folder");
    let keys = folder.path().join("psk.txt");
    write_private(&keys, &secret(IDENTITY, KEY));
    let toml = "[log]\nlevel = \"debug\"\n".to_owned() + &server_toml(backend.address(), "");
    let toml = toml.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    write_private(&folder.path().join("pskgate.toml"), &toml);
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_pskgate"))
        .args(["run", "pskgate.toml"])
        .current_dir(folder.path())
        .env("RUNTIME_DIRECTORY", folder.path())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut server = Unread(child.expect("it starts"));
    until("the port", WAIT_TIMEOUT, || std::net::TcpStream::connect(local(port)).ok());
    let client = PskgateBuilder::new().toml(&client_toml(local(port), "")).start();
    // A pipe holds 64 kB; each session says some 300 bytes.
    for _ in 0..400 {
        connect(&client).echo(b"one more line");
    }
    let number = i32::try_from(server.0.id()).expect("a number");
    let id = rustix::process::Pid::from_raw(number).expect("a process");
    for signal in [Signal::HUP, Signal::USR1, Signal::HUP] {
        rustix::process::kill_process(id, signal).expect("it lives");
        connect(&client).echo(b"goes on");
    }
    // What was asked is done, too: the new key lets its holder in.
    replace(&keys, &(secret(IDENTITY, KEY) + &secret("client2", OTHER_KEY)));
    let toml = client_toml(local(port), "").replace(IDENTITY, "client2");
    let second =
        PskgateBuilder::new().file("psk.txt", &secret("client2", OTHER_KEY)).toml(&toml).start();
    until("client2 to be let in", WAIT_TIMEOUT, || {
        use std::io::{Read, Write};
        let plain = connect(&second);
        (&plain.0).write_all(b"x").ok()?;
        (&plain.0).read_exact(&mut [0]).ok()
    });
    rustix::process::kill_process(id, Signal::TERM).expect("it lives");
    let code = until("its end", WAIT_TIMEOUT, || server.0.try_wait().expect("its state"));
    assert_eq!(code.code(), Some(0));
}

#[test]
fn a_file_that_is_written_in_pieces_is_taken_when_it_is_closed_and_not_before() {
    use std::io::Write;
    let backend = Backend::echo();
    let server = server(&backend);
    let (first, second) = (client(&server, IDENTITY, KEY), client(&server, "client2", OTHER_KEY));
    let session = connect(&first);
    session.echo(b"before");
    let text = secret(IDENTITY, KEY) + &secret("client2", OTHER_KEY);
    let mut file = fs::File::create(server.folder().join("psk.txt")).expect("truncated");
    // Longer than a change has to rest before it is taken: only the open file can tell.
    for piece in text.as_bytes().chunks(40) {
        file.write_all(piece).expect("written");
        file.flush().expect("written");
        std::thread::sleep(Duration::from_millis(500));
    }
    drop(file);
    wait_reloads(&server, 1);
    assert_eq!(lines_with(&server, "not reloaded"), 0, "{}", server.log());
    session.echo(b"undisturbed");
    connect(&second).echo(b"let in");
}

#[test]
fn a_file_that_is_deleted_and_made_again_is_followed_and_so_is_its_folder() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new();
    let folder = gate.folder().join("keys");
    fs::create_dir(&folder).expect("a folder");
    let gate = gate.file("keys/psk.txt", &secret(IDENTITY, KEY));
    let toml = server_toml(backend.address(), "").replace("\"psk.txt\"", "\"keys/psk.txt\"");
    let server = gate.toml(&toml).start();
    let (old, new) = (client(&server, IDENTITY, KEY), client(&server, IDENTITY, OTHER_KEY));
    let session = connect(&old);
    session.echo(b"before");
    fs::remove_dir_all(&folder).expect("removed");
    until("the refusal", WAIT_TIMEOUT, || (lines_with(&server, "not reloaded") > 0).then_some(()));
    session.echo(b"the old key is still in force");
    fs::create_dir(&folder).expect("a folder");
    write_private(&folder.join("psk.txt"), &secret(IDENTITY, OTHER_KEY));
    assert_eq!(session.end(), ConnectionEnd::Rst);
    connect(&new).echo(b"with the new key");
}

/// What a network file system is like: nobody tells of changes.
#[test]
fn without_a_watch_a_change_is_found_by_looking_now_and_then() {
    let backend = Backend::echo();
    let port = free_port();
    let toml =
        server_toml(backend.address(), "").replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let gate = PskgateBuilder::new().toml(&toml);
    let mut command = std::process::Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=inotify_init1"]);
    command.args(["-e", "inject=inotify_init1:error=EMFILE"]);
    command.args([env!("CARGO_BIN_EXE_pskgate"), "run", "pskgate.toml"]);
    command.current_dir(gate.folder());
    let process = crate::harness::Process::spawn("pskgate", "the package strace", &mut command);
    process.wait_for("listening on", WAIT_TIMEOUT);
    process.wait_for("a change takes effect within 30 s", WAIT_TIMEOUT);
    let client = PskgateBuilder::new().toml(&client_toml(local(port), "")).start();
    let session = connect(&client);
    session.echo(b"before");
    session.0.set_read_timeout(Some(3 * WAIT_TIMEOUT)).expect("a limit");
    let watch = Stopwatch::start();
    replace(&gate.folder().join("psk.txt"), &secret(IDENTITY, OTHER_KEY));
    assert_eq!(session.end(), ConnectionEnd::Rst);
    let found = watch.lasted();
    // Every 30 s, and the time to come to rest.
    assert!(found > Duration::from_secs(2), "a watch was there all the same: {found:?}");
    watch.expect_within(Duration::from_secs(40));
}

#[test]
fn a_service_that_is_removed_drains_and_its_neighbour_does_not_notice() {
    let backend = Backend::echo();
    let (stays, goes) = (free_port(), free_port());
    let service = |name: &str, port: u16| {
        server_toml(backend.address(), "")
            .replace("[services.tls]", &format!("[services.{name}]"))
            .replace("127.0.0.1:0", &format!("127.0.0.1:{port}"))
    };
    let both = "drain-timeout = \"3s\"\n\n".to_owned() + &service("a", stays) + &service("b", goes);
    let server = PskgateBuilder::new().toml(&both).start();
    let client = |port: u16| PskgateBuilder::new().toml(&client_toml(local(port), "")).start();
    let (of_a, of_b) = (client(stays), client(goes));
    let (neighbour, busy, silent) = (connect(&of_a), connect(&of_b), connect(&of_b));
    for session in [&neighbour, &busy, &silent] {
        session.echo(b"before");
    }
    let one = "drain-timeout = \"3s\"\n\n".to_owned() + &service("a", stays);
    let watch = Stopwatch::start();
    replace(&server.folder().join("pskgate.toml"), &one);
    wait_reloads(&server, 1);
    until("its address to be closed", WAIT_TIMEOUT, || {
        std::net::TcpStream::connect(local(goes)).is_err().then_some(())
    });
    // Who is at work may finish; who is silent has nothing under way.
    let mut cut = None;
    while cut.is_none() {
        use std::io::{Read, Write};
        let asked = (&busy.0).write_all(b"x").and_then(|()| (&busy.0).read_exact(&mut [0]));
        cut = asked.is_err().then(|| watch.lasted());
        assert!(watch.lasted() < WAIT_TIMEOUT, "it goes on for ever");
    }
    let cut = cut.unwrap_or_default();
    assert!(cut > Duration::from_secs(3), "after {cut:?}");
    watch.expect_within(Duration::from_secs(5));
    assert_eq!(silent.end(), ConnectionEnd::Rst);
    neighbour.echo(b"undisturbed");
    // It can come back, as a new one.
    replace(&server.folder().join("pskgate.toml"), &both);
    wait_reloads(&server, 2);
    connect(&of_b).echo(b"let in again");
}
