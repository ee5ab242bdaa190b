//! Under a service manager: what it hears (sd_notify), what it hands over (sd_listen_fds), and what
//! its journal and JSON lines carry. The manager is a socket that the test listens on.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::openssl::psk_of;
use crate::harness::stage::{StunnelFolder, client_of, echo_through, finish, need_root, section};
use crate::harness::{
    Backend, IDENTITY, KEY, OTHER_KEY, OpensslClient, PlainClient, Process, Pskgate,
    PskgateBuilder, Stopwatch, Stunnel, Tls, WAIT_TIMEOUT, free_port, local, root, server_toml,
    until,
};

/// A socket that messages come to, at a path or an abstract name.
struct Ear {
    socket: UnixDatagram,
    name: String,
    _folder: TempDir,
}

impl Ear {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, name: path.to_str().unwrap().to_owned(), _folder: folder }
    }

    fn abstract_one() -> Self {
        let folder = TempDir::new().unwrap();
        let name = folder.path().to_str().unwrap().to_owned();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Self { socket, name: format!("@{name}"), _folder: folder }
    }

    /// The next message, if one comes in time.
    fn within(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut message = vec![0; 1 << 18];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).expect("text"))
    }

    fn next(&self) -> String {
        self.within(WAIT_TIMEOUT).expect("a message comes")
    }

    /// The first message from here on that has all of these parts.
    fn wait(&self, parts: &[&str]) -> String {
        let start = Instant::now();
        let mut others = Vec::new();
        while start.elapsed() < WAIT_TIMEOUT {
            let Some(message) = self.within(Duration::from_secs(1)) else { continue };
            if parts.iter().all(|part| message.contains(part)) {
                return message;
            }
            others.push(message);
        }
        panic!("no message with {parts:?}, but {others:#?}");
    }

    /// The shell's line before the program's start.
    fn export(&self, more: &str) -> String {
        format!("export NOTIFY_SOCKET='{}' {more}", self.name)
    }
}

/// A line of a message.
fn value<'a>(message: &'a str, name: &str) -> &'a str {
    let line = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {name} in {message}"))
}

/// A server service on a port that is known beforehand.
fn server_at(port: u16, backend: &Backend, extra: &str) -> String {
    server_toml(backend.address(), extra).replace("127.0.0.1:0", &format!("127.0.0.1:{port}"))
}

fn supervised(ear: &Ear, variables: &str, backend: &Backend, extra: &str) -> Pskgate {
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), extra));
    gate.shell(&ear.export(variables)).start()
}

#[test]
fn ready_is_the_first_word_and_the_port_accepts_when_it_is_said() {
    for ear in [Ear::new(), Ear::abstract_one()] {
        let (backend, port) = (Backend::echo(), free_port());
        let gate =
            PskgateBuilder::new().toml(&server_at(port, &backend, "")).shell(&ear.export(""));
        let mut gate = gate.launch();
        let first = ear.next();
        TcpStream::connect(local(port)).expect("it accepts by now");
        assert_eq!(first, "READY=1\nSTATUS=1 service, 0 sessions");
        assert_eq!(gate.terminate(), Some(0));
        let last = ear.wait(&["STOPPING=1"]);
        assert_eq!(last, "STOPPING=1\nSTATUS=stopping, 0 sessions to finish");
    }
}

#[test]
fn a_start_that_fails_never_says_ready_and_a_manager_that_is_not_there_stops_nothing() {
    let (ear, backend) = (Ear::new(), Backend::echo());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let gate = PskgateBuilder::new().toml(&server_at(port, &backend, "")).shell(&ear.export(""));
    assert_eq!(gate.launch().exit_code(WAIT_TIMEOUT), Some(69));
    assert_eq!(ear.within(Duration::from_millis(10)), None);
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), ""));
    let gate = gate.shell("export NOTIFY_SOCKET=/no/such/socket").start();
    gate.wait_logged("cannot reach the service manager at NOTIFY_SOCKET");
    echo_through(&client_of(gate.address("tls").port()));
}

#[test]
fn a_reload_is_said_at_its_beginning_and_its_end_whatever_comes_of_it() {
    let (ear, backend) = (Ear::new(), Backend::echo());
    let gate = supervised(&ear, "", &backend, "");
    assert!(ear.next().starts_with("READY=1\n"));
    gate.signal(Signal::HUP);
    let begun = ear.next();
    let time: u64 = value(&begun, "MONOTONIC_USEC").parse().unwrap();
    assert!(begun.starts_with("RELOADING=1\n") && time > 0, "{begun}");
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    assert!(now.abs_diff((time / 1_000_000) as i64) < 60, "{time} µs is not {now} s");
    assert_eq!(ear.next(), "READY=1\nSTATUS=1 service, 0 sessions");
    // A mistake is noticed without a signal, and refused.
    let file = gate.folder().join("pskgate.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("\"server\"", "\"sever\"")).unwrap();
    assert!(ear.wait(&["="]).starts_with("RELOADING=1\n"));
    let refused = ear.wait(&["="]);
    assert!(refused.starts_with("READY=1\n"), "{refused}");
    let status = value(&refused, "STATUS");
    let mark = "1 service, 0 sessions; last reload failed: ";
    assert!(status.starts_with(mark) && status.contains("pskgate.toml:2: "), "{status}");
    std::fs::write(&file, good).unwrap();
    assert!(ear.wait(&["="]).starts_with("RELOADING=1\n"));
    assert_eq!(ear.next(), "READY=1\nSTATUS=1 service, 0 sessions");
}

#[test]
fn a_manager_that_does_not_read_holds_nothing_up_and_hears_how_it_ended() {
    let limit = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    let reloads = limit.trim().parse::<usize>().unwrap() / 2 + 10;
    let (ear, backend) = (Ear::new(), Backend::echo());
    let gate = supervised(&ear, "", &backend, "");
    for round in 1..=reloads {
        gate.signal(Signal::HUP);
        until("the reload", WAIT_TIMEOUT, || {
            (gate.err().matches("SIGHUP: reloaded").count() == round).then_some(())
        });
    }
    echo_through(&client_of(gate.address("tls").port()));
    assert!(ear.next().starts_with("READY=1\n"));
    // A queue that is full loses whole reloads in its middle, if anything.
    let (mut heard, mut begun) = (0, false);
    let start = Instant::now();
    while let Some(message) = ear.within(Duration::from_secs(5)) {
        if !message.starts_with("STATUS=") {
            let word = if begun { "READY=1\n" } else { "RELOADING=1\n" };
            assert!(message.starts_with(word), "message {heard} is {message}");
            (heard, begun) = (heard + 1, !begun);
        }
        assert!(start.elapsed() < WAIT_TIMEOUT, "it never ends");
    }
    assert!(heard >= 16 && !begun, "{heard} messages, and a reload without end: {begun}");
}

#[test]
fn the_status_follows_the_sessions_and_is_silent_about_strangers() {
    let (ear, backend) = (Ear::new(), Backend::echo());
    let gate = supervised(&ear, "", &backend, "");
    ear.wait(&["READY=1"]);
    for _ in 0..200 {
        drop(TcpStream::connect(gate.address("tls")).unwrap());
    }
    let client = client_of(gate.address("tls").port());
    let open = echo_through(&client);
    // Nothing before it: strangers change nothing that is said.
    assert_eq!(ear.next(), "STATUS=1 service, 1 session");
    drop(open);
    assert_eq!(ear.next(), "STATUS=1 service, 0 sessions");
}

#[test]
fn a_sign_of_life_comes_at_half_of_the_time_also_while_it_drains() {
    let (ear, backend) = (Ear::new(), Backend::echo());
    let variables = "WATCHDOG_PID=$$ WATCHDOG_USEC=1000000";
    let text = format!("drain-timeout = \"120s\"\n{}", server_toml(backend.address(), ""));
    let watch = Stopwatch::start();
    let gate = PskgateBuilder::new().toml(&text).shell(&ear.export(variables)).start();
    let beats = |count: u32| {
        for _ in 0..count {
            ear.wait(&["WATCHDOG=1"]);
        }
    };
    beats(6);
    let (time, half) = (watch.lasted(), Duration::from_millis(500));
    // The first may come at once, and each is due half a second after the one before it.
    assert!(time > half * 4, "six took {time:?}");
    watch.expect_within(half * 12);
    // It comes from the loop that serves: who is stopped is silent.
    gate.signal(Signal::STOP);
    while ear.within(Duration::from_millis(100)).is_some() {}
    assert_eq!(ear.within(half * 3), None);
    gate.signal(Signal::CONT);
    beats(2);
    let client = client_of(gate.address("tls").port());
    let open = echo_through(&client);
    gate.signal(Signal::TERM);
    let last = ear.wait(&["STOPPING=1"]);
    assert_eq!(value(&last, "STATUS"), "stopping, 1 session to finish");
    // 120 s, and what the rest of a stop takes: more than the 90 s of who says nothing.
    assert_eq!(value(&last, "EXTEND_TIMEOUT_USEC"), "130000000");
    let mut seen = 0;
    until("signs of life while a transfer goes on", WAIT_TIMEOUT, || {
        open.echo(b"not silent");
        let message = ear.within(Duration::from_millis(50)).unwrap_or_default();
        seen += u32::from(message == "WATCHDOG=1");
        (seen == 4).then_some(())
    });
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_left_alone() {
    let (ear, backend) = (Ear::new(), Backend::echo());
    let gate = supervised(&ear, "WATCHDOG_PID=1 WATCHDOG_USEC=100000", &backend, "");
    ear.wait(&["READY=1"]);
    let client = client_of(gate.address("tls").port());
    let _open = echo_through(&client);
    assert_eq!(ear.next(), "STATUS=1 service, 1 session");
}

#[test]
fn the_process_that_was_started_names_the_one_that_stays_and_a_jail_keeps_nobody_silent() {
    need_root();
    let (ear, stage, backend, port) =
        (Ear::new(), StunnelFolder::new(), Backend::echo(), free_port());
    let jail = stage.path("");
    let text = format!(
        "chroot = {}\nsetuid = nobody\npid = /pid.txt\noutput = /log.txt\nsyslog = no\n{}",
        jail.to_str().unwrap().trim_end_matches('/'),
        section(port, &backend)
    );
    stage.file("x.conf", &text);
    for file in ["x.conf", "psk.txt"] {
        std::os::unix::fs::chown(stage.path(file), Some(65534), None).unwrap();
    }
    let mut command = stage.command();
    command.arg("x.conf").env("NOTIFY_SOCKET", &ear.name).env("WATCHDOG_USEC", "400000");
    let done = finish(&mut command);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let daemon = stage.daemon();
    // Said once, by who is known to the manager; the other begins with signs of life.
    let mut said = Vec::new();
    until("both to speak", WAIT_TIMEOUT, || {
        said.push(ear.next());
        let has = |part: &str| said.iter().any(|message| message.contains(part));
        (has("MAINPID=") && has("WATCHDOG=1")).then_some(())
    });
    said.retain(|message| message != "WATCHDOG=1");
    assert_eq!(said, [format!("MAINPID={}\nREADY=1", daemon.0)]);
    daemon.signal(Signal::HUP);
    ear.wait(&["RELOADING=1\nMONOTONIC_USEC="]);
    ear.wait(&["READY=1\nSTATUS=1 service, 0 sessions"]);
    daemon.signal(Signal::TERM);
    ear.wait(&["STOPPING=1"]);
    daemon.wait_gone();
}

#[test]
fn programs_that_serve_a_session_find_no_trace_of_the_manager() {
    let ear = Ear::new();
    let text = "[services.tls]\nmode = \"server\"\naccept = \"127.0.0.1:0\"\nexec = \"/usr/bin/env\"\n\
                psk-secrets = \"psk.txt\"\n";
    let variables =
        "WATCHDOG_PID=$$ WATCHDOG_USEC=9000000 LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=x OWN=here";
    let gate = PskgateBuilder::new().toml(text).shell(&ear.export(variables)).start();
    let client = Stunnel::client(gate.address("tls"), "");
    let plain = PlainClient::connect(client.address());
    plain.shut();
    let said = String::from_utf8(plain.rest().0).unwrap();
    assert!(said.contains("OWN=here\n"), "{said}");
    for name in ["NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_"] {
        assert!(!said.contains(name), "{said}");
    }
}

/// A listener and its port.
fn opened() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// The program with two sockets of a service manager's, under these names.
fn with_sockets(
    gate: &PskgateBuilder,
    file: &str,
    names: &str,
    sockets: [TcpListener; 2],
) -> Process {
    let script = format!(
        "export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES='{names}'; \
         exec \"$0\" run {file} 3<&0 4<&1 </dev/null >/dev/null"
    );
    let [first, second] = sockets.map(|socket| Stdio::from(OwnedFd::from(socket)));
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_pskgate")]).current_dir(gate.folder());
    Process::with_streams("pskgate", &mut command, first, second)
}

/// Two services, none of which can bind its own address.
fn two(backend: &Backend, ports: [u16; 2]) -> String {
    let one = |name: &str, port| {
        server_at(port, backend, "").replace("[services.tls]", &format!("[services.{name}]"))
    };
    one("a", ports[0]) + &one("b", ports[1])
}

/// Whether a session through this port is this service's.
fn expect_service(process: &Process, port: u16, name: &str) {
    let client = client_of(port);
    let before = process.err().len();
    echo_through(&client);
    until(&format!("a session of {name}"), WAIT_TIMEOUT, || {
        let log = process.err().split_off(before);
        let mut lines = log.lines().filter(|line| line.contains("session opened"));
        lines.next().map(|line| assert!(line.contains(&format!("[{name}] ")), "{line}"))
    });
}

#[test]
fn a_socket_goes_to_the_service_whose_name_it_bears_and_the_others_by_position() {
    let taken = [opened(), opened()];
    let unused = [taken[0].1, taken[1].1];
    let backend = Backend::echo();
    for (names, owners) in
        [("b:a", ["b", "a"]), ("pskgate.socket:unknown", ["a", "b"]), ("b:x.socket", ["b", "a"])]
    {
        let gate = PskgateBuilder::new().toml(&two(&backend, unused));
        let ((first, one), (second, other)) = (opened(), opened());
        let process = with_sockets(&gate, "pskgate.toml", names, [first, second]);
        expect_service(&process, one, owners[0]);
        expect_service(&process, other, owners[1]);
        process.signal(Signal::HUP);
        process.wait_for("SIGHUP: reloaded", WAIT_TIMEOUT);
        expect_service(&process, one, owners[0]);
        expect_service(&process, other, owners[1]);
    }
    drop(taken);
}

#[test]
fn several_sockets_of_one_name_are_several_addresses_of_that_service() {
    let (taken, unused) = opened();
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_at(unused, &backend, ""));
    let ((first, one), (second, other)) = (opened(), opened());
    let process = with_sockets(&gate, "pskgate.toml", "tls:tls", [first, second]);
    for _ in 0..2 {
        expect_service(&process, one, "tls");
        expect_service(&process, other, "tls");
        process.signal(Signal::HUP);
        process.wait_for("SIGHUP: reloaded", WAIT_TIMEOUT);
    }
    drop(taken);
}

#[test]
fn a_name_that_is_no_service_and_one_socket_too_many_are_said_in_words() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), ""));
    for (names, words) in [
        ("plc\x1b:tls", "names a socket \"plc\\u{1b}\", and no service is called that"),
        ("pskgate.socket:pskgate.socket", "has 2 sockets, which are more than there are services"),
        ("tls:unknown", "has 2 sockets, which are more than there are services"),
    ] {
        let sockets = [opened().0, opened().0];
        let mut process = with_sockets(&gate, "pskgate.toml", names, sockets);
        assert_eq!(process.wait(WAIT_TIMEOUT).code(), Some(78), "{}", process.err());
        assert!(process.err().contains(words), "{}", process.err());
    }
}

#[test]
fn a_stunnel_conf_takes_sockets_by_position_unless_they_bear_its_sections_names() {
    let taken = [opened(), opened()];
    let backend = Backend::echo();
    let one = |name: &str, port| section(port, &backend).replace("tunnel", name);
    let text = one("a", taken[0].1) + &one("b", taken[1].1);
    for (names, owner) in [("x:y", "a"), ("b:a", "b")] {
        let gate = PskgateBuilder::new().file("x.conf", &format!("debug = info\n{text}"));
        let ((first, port), (second, _)) = (opened(), opened());
        let process = with_sockets(&gate, "x.conf", names, [first, second]);
        let client = client_of(port);
        echo_through(&client);
        process.wait_for(&format!("Service [{owner}] accepted connection"), WAIT_TIMEOUT);
    }
    drop(taken);
}

/// Standard error is the journal's, which listens at `ear`.
fn journaled(ear: &Ear) -> String {
    format!(
        "export PSKGATE_JOURNAL_SOCKET='{}' JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr)",
        ear.name
    )
}

#[test]
fn the_journal_gets_what_each_line_is_about_in_fields() {
    let (ear, backend, port) = (Ear::new(), Backend::echo(), free_port());
    let gate =
        PskgateBuilder::new().toml(&server_at(port, &backend, "")).shell(&journaled(&ear)).launch();
    let mut all = String::new();
    let mut wait = |parts: &[&str]| {
        let entry = ear.wait(parts);
        all += &entry;
        entry
    };
    let begun = wait(&["PSKGATE_EVENT=listening\n"]);
    assert_eq!(value(&begun, "PSKGATE_ADDRESS"), format!("127.0.0.1:{port}"));
    assert_eq!(value(&begun, "PSKGATE_SERVICE"), "tls");
    assert_eq!(value(&begun, "SYSLOG_IDENTIFIER"), "pskgate");
    let client = client_of(port);
    let plain = echo_through(&client);
    let opened = wait(&["PSKGATE_EVENT=session-opened\n"]);
    for (name, wanted) in [
        ("PRIORITY", "6"),
        ("PSKGATE_IDENTITY", IDENTITY),
        ("PSKGATE_VERSION", "TLSv1.3"),
        ("PSKGATE_TARGET", &backend.address().to_string()),
    ] {
        assert_eq!(value(&opened, name), wanted, "{opened}");
    }
    assert!(value(&opened, "PSKGATE_PEER").starts_with("127.0.0.1:"), "{opened}");
    let number = value(&opened, "PSKGATE_SESSION");
    let message = value(&opened, "MESSAGE");
    assert!(message.starts_with(&format!("[tls] #{number} session opened: 127.")), "{message}");
    plain.shut();
    plain.rest();
    let closed = wait(&["PSKGATE_EVENT=session-closed\n"]);
    for (name, wanted) in [
        ("PSKGATE_SESSION", number),
        ("PSKGATE_IDENTITY", IDENTITY),
        ("PSKGATE_END", "complete"),
        ("PSKGATE_BYTES_UP", "14"),
        ("PSKGATE_BYTES_DOWN", "14"),
    ] {
        assert_eq!(value(&closed, name), wanted, "{closed}");
    }
    assert!(value(&closed, "PSKGATE_AGE_MS").parse::<u64>().is_ok());
    (&TcpStream::connect(local(port)).unwrap()).write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let refused = wait(&["PSKGATE_EVENT=handshake-refused\n"]);
    assert_eq!(
        (value(&refused, "PSKGATE_CAUSE"), value(&refused, "PRIORITY")),
        ("plain-text", "6")
    );
    // A stranger's bytes make neither a line nor a field.
    let odd = "x\nPRIORITY=0\n\u{1b}[2J";
    let _stranger = OpensslClient::start(local(port), psk_of(odd, OTHER_KEY));
    let refused = wait(&["PSKGATE_CAUSE=unknown-identity\n"]);
    assert_eq!(value(&refused, "PSKGATE_IDENTITY"), r"x\u{a}PRIORITY=0\u{a}\u{1b}[2J");
    assert_eq!(refused.matches("\nPRIORITY=").count(), 1, "{refused}");
    assert_eq!(gate.err(), "", "nothing is said twice");
    assert!(!all.contains(KEY) && !all.contains(&crate::harness::openssl::hex(KEY)));
    // Without a journal, standard error is as good as ever.
    drop(ear);
    echo_through(&client_of(port));
    gate.wait_for("session opened", WAIT_TIMEOUT);
}

#[test]
fn a_standard_error_that_was_led_elsewhere_is_written_to() {
    let (ear, backend) = (Ear::new(), Backend::echo());
    let line = format!("export PSKGATE_JOURNAL_SOCKET='{}' JOURNAL_STREAM=1:2", ear.name);
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).shell(&line).start();
    echo_through(&client_of(gate.address("tls").port()));
    gate.wait_logged("session opened");
    assert_eq!(ear.within(Duration::from_millis(10)), None);
}

#[test]
fn json_lines_are_one_object_each_and_say_what_they_are_about() {
    let (backend, port) = (Backend::echo(), free_port());
    let text = format!("[log]\nformat = \"json\"\n{}", server_at(port, &backend, ""));
    let gate = PskgateBuilder::new().toml(&text).launch();
    gate.wait_for("\"listening\"", WAIT_TIMEOUT);
    let client = client_of(port);
    let plain = echo_through(&client);
    plain.shut();
    plain.rest();
    let odd = "x\n\"}\u{1b}[2J{\u{e9}";
    for (tls, identity) in [(Tls::V12, odd), (Tls::V13, odd), (Tls::V13, IDENTITY)] {
        let seen = gate.err().matches("handshake-refused").count();
        let mut arguments = psk_of(identity, OTHER_KEY).to_vec();
        arguments.push(tls.flag().to_owned());
        let _stranger = OpensslClient::start(local(port), arguments);
        until("the refusal", WAIT_TIMEOUT, || {
            (gate.err().matches("handshake-refused").count() > seen).then_some(())
        });
    }
    gate.wait_for("session-closed", WAIT_TIMEOUT);
    let log = gate.err();
    assert!(!log.contains(KEY), "no key: {log}");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let of = |event: &str| -> Vec<&serde_json::Value> {
        lines.iter().filter(|line| line["event"] == event).collect()
    };
    for line in &lines {
        for name in ["time", "level", "event", "service", "session", "message"] {
            assert!(line.get(name).is_some(), "no {name}: {line}");
        }
    }
    let (opened, closed) = (of("session-opened")[0], of("session-closed")[0]);
    assert_eq!((&opened["identity"], &opened["version"]), (&IDENTITY.into(), &"TLSv1.3".into()));
    assert_eq!(opened["target"], backend.address().to_string());
    assert!(opened["suite"].is_string() && opened["group"].is_string(), "{opened}");
    assert_eq!(closed["session"], opened["session"]);
    assert_eq!(closed["peer"], opened["peer"]);
    assert_eq!((&closed["up"], &closed["down"]), (&14.into(), &14.into()));
    assert!(closed["end"] == "complete" && closed["age-ms"].is_u64(), "{closed}");
    let causes: Vec<_> = of("handshake-refused").iter().map(|line| line["cause"].clone()).collect();
    assert_eq!(causes, ["unknown-identity", "unknown-identity", "wrong-key"]);
    for refused in &of("handshake-refused")[..2] {
        assert_eq!(refused["identity"], "x\\u{a}\"}\\u{1b}[2J{é", "{refused}");
    }
    assert_eq!(of("handshake-refused")[2]["identity"], IDENTITY);
}

#[test]
fn the_units_in_stunnel_s_place_are_what_systemd_takes() {
    let folder = TempDir::new().unwrap();
    let names = units("debian-stunnel/systemd", folder.path());
    assert_eq!(names, ["stunnel.target", "stunnel@plc.service"]);
    for name in &names {
        let unit = format!("./{name}");
        let (good, said) = systemd_analyze(folder.path(), &["verify", "--man=no", &unit]);
        assert!(good && !said.contains(&**name), "{said}");
    }
}

/// The units of a folder in `dist`, with the program where it is, as this instance.
fn units(of: &str, folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("dist").join(of)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().replace('@', "@plc");
        let text = std::fs::read_to_string(&path).unwrap();
        let program = env!("CARGO_BIN_EXE_pskgate");
        let text = text.replace("/usr/bin/pskgate", program).replace("/usr/bin/stunnel4", program);
        std::fs::write(folder.join(&name), text).unwrap();
        names.push(name);
    }
    names.sort();
    names
}

fn systemd_analyze(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).current_dir(folder).env("SYSTEMD_COLORS", "0");
    let package = "the Debian package systemd";
    let mut process = Process::spawn("systemd-analyze", package, &mut command);
    process.end_input();
    (process.wait(WAIT_TIMEOUT).success(), process.text())
}

#[test]
fn the_units_are_what_systemd_takes_and_expose_little() {
    let folder = TempDir::new().unwrap();
    let names = units("systemd", folder.path());
    let wanted = ["pskgate.service", "pskgate.target", "pskgate@plc.service", "pskgate@plc.socket"];
    assert_eq!(names, wanted);
    let services: Vec<&String> = names.iter().filter(|name| name.ends_with(".service")).collect();
    for name in &names {
        let (good, said) =
            systemd_analyze(folder.path(), &["verify", "--man=no", &format!("./{name}")]);
        assert!(good && !said.contains(&**name), "{said}");
    }
    for name in &services {
        let unit = format!("./{name}");
        let arguments = ["security", "--offline=yes", "--no-pager", &unit];
        let (_, said) = systemd_analyze(folder.path(), &arguments);
        let level = said
            .split("Overall exposure level")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().find_map(|word| word.parse::<f64>().ok()));
        assert!(level.is_some_and(|level| level <= 1.1), "{level:?}: {said}");
    }
    // One is the other with a name in it.
    let settings = |name: &str| {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        let lines = text.lines().filter(|line| line.contains('=') && !line.starts_with('#'));
        lines.skip(1).map(|line| line.replace("%i", "pskgate")).collect::<Vec<_>>()
    };
    let template = settings(services[1]).join("\n").replace("=pskgate-pskgate", "=pskgate");
    assert_eq!(settings(services[0]).join("\n"), template);
}
