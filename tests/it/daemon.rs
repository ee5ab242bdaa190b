//! The program's life: into the background, down from root, through its signals, to its end.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::stage::{
    StunnelFolder, client_of, echo_through, finish, is_root, need_root, section,
};
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, OTHER_KEY, PlainClient, PskgateBuilder, Stopwatch,
    WAIT_TIMEOUT, client_toml, free_port, secret, server_toml, until, write_private,
};

/// Debian's, on every machine.
const NOBODY: u32 = 65534;

/// Global lines of a file that goes into the background and says where.
const GLOBAL: &str = "pid = pid.txt\noutput = log.txt\nsyslog = no\n";

fn count(text: &str, fragment: &str) -> usize {
    text.lines().filter(|line| line.contains(fragment)).count()
}

#[test]
fn the_parent_ends_when_everything_is_open_and_the_child_keeps_nothing_of_its_start() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    stage.file("x.conf", &(GLOBAL.to_owned() + &section(port, &backend)));
    let client = client_of(port);
    let done = stage.run(&["x.conf"]);
    // No waiting here: it has just said that it listens.
    echo_through(&client);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(0), "", ""));
    let daemon = stage.daemon();
    assert_eq!(stage.processes(), [daemon], "the parent is gone");
    assert_eq!(stage.path("pid.txt").metadata().unwrap().permissions().mode() & 0o777, 0o644);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.0)).unwrap();
    let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap();
    assert_eq!(session, daemon.0.to_string(), "it leads a session of its own");
    if is_root() {
        assert_eq!(daemon.link("cwd").to_str(), Some("/"));
        for stream in 0..3 {
            assert_eq!(daemon.link(&format!("fd/{stream}")).to_str(), Some("/dev/null"));
        }
    }
    daemon.signal(Signal::TERM);
    daemon.wait_gone();
    assert!(!stage.path("pid.txt").exists());
}

#[test]
fn what_keeps_it_from_starting_is_said_by_the_parent_with_exit_code_1() {
    let (stage, backend) = (StunnelFolder::new(), Backend::echo());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = section(taken.local_addr().unwrap().port(), &backend);
    let good = || section(free_port(), &backend);
    for (text, words) in [
        (busy, &["Address already in use", "[!] Binding service [tunnel] failed"][..]),
        (format!("pid = /no/such/folder/pid\n{}", good()), &["/no/such/folder/pid"]),
        (format!("output = /no/such/folder/log\n{}", good()), &["/no/such/folder/log"]),
        (format!("chroot = /no/such/folder\n{}", good()), &["/no/such/folder"]),
        (format!("setuid = nobody-of-this-name\n{}", good()), &["Configuration failed"]),
        (good().replace("psk.txt", "none.txt"), &["none.txt", "[!] Configuration failed"]),
        (good().replace("connect", "conect"), &["[!] x.conf:3: \"conect = ", "Configuration fa"]),
    ] {
        stage.file("x.conf", &format!("syslog = no\n{text}").replacen("syslog = no\n[", "[", 1));
        let done = stage.run(&["x.conf"]);
        assert_eq!(done.code, Some(1), "{text}: {}", done.err);
        assert_eq!(done.out, "");
        for word in words {
            assert!(done.err.contains(word), "{word} is not in: {}", done.err);
        }
        assert!(done.err.lines().all(|line| line.starts_with('[')), "{}", done.err);
        until("nothing to be left", WAIT_TIMEOUT, || stage.processes().is_empty().then_some(()));
    }
}

#[test]
fn sigterm_removes_the_pid_file_first_and_the_rest_drains() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    stage.file("x.conf", &(GLOBAL.to_owned() + &section(port, &backend)));
    let client = client_of(port);
    let daemon = stage.background("x.conf");
    let session = echo_through(&client);
    session.echo(b"a session that was not silent");
    daemon.signal(Signal::TERM);
    until("the pid file to go", WAIT_TIMEOUT, || (!stage.path("pid.txt").exists()).then_some(()));
    assert!(daemon.is_alive(), "the session has a second of silence at least");
    // A new one takes the port, and its file is not the old one's to remove.
    let next = stage.background("x.conf");
    assert_ne!(next, daemon);
    echo_through(&client);
    daemon.wait_gone();
    assert_eq!(stage.daemon(), next);
}

#[test]
fn a_pid_file_of_somebody_else_stays() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    stage.file("x.conf", &(GLOBAL.to_owned() + &section(port, &backend)));
    let daemon = stage.background("x.conf");
    std::fs::remove_file(stage.path("pid.txt")).unwrap();
    stage.file("pid.txt", "12345\n");
    daemon.signal(Signal::TERM);
    daemon.wait_gone();
    assert_eq!(stage.read("pid.txt"), "12345\n");
}

#[test]
fn after_the_drop_there_are_no_groups_and_no_way_back_to_root() {
    need_root();
    for lines in ["setuid = nobody\nsetgid = nogroup\n", "setuid = nobody\n", "setuid = 65534\n"] {
        let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
        chown(stage.path("psk.txt"), Some(NOBODY), None).unwrap();
        let text = format!("{GLOBAL}{lines}{}", section(port, &backend));
        stage.file("x.conf", &text);
        chown(stage.path("x.conf"), Some(NOBODY), None).unwrap();
        let daemon = stage.background("x.conf");
        let nobody = [NOBODY.to_string().as_str(); 4].join(" ");
        for (name, value) in [
            ("Uid", nobody.as_str()),
            ("Gid", &nobody),
            ("Groups", ""),
            ("CapEff", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
        ] {
            assert_eq!(daemon.status(name).as_deref(), Some(value), "{lines}: {name}");
        }
        // The log and the pid file are the new user's, as they are stunnel's.
        for file in ["log.txt", "pid.txt"] {
            assert_eq!(stage.path(file).metadata().unwrap().uid(), NOBODY, "{file}");
        }
        echo_through(&client_of(port));
        stage.reload("log.txt", || daemon.signal(Signal::HUP));
        echo_through(&client_of(port));
        daemon.signal(Signal::TERM);
        daemon.wait_gone();
        assert!(!stage.path("pid.txt").exists());
    }
}

#[test]
fn keys_that_the_user_cannot_read_again_are_warned_of_by_check_and_at_the_start() {
    need_root();
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    let text = format!("setuid = nobody\n{GLOBAL}{}", section(port, &backend));
    stage.file("x.conf", &text);
    for path in [stage.path("."), stage.path("psk.txt"), stage.path("x.conf")] {
        chown(path, Some(NOBODY), None).unwrap();
    }
    let check = || crate::harness::process::pskgate(&stage.path("."), &["check", "x.conf"]);
    let done = check();
    assert!(!done.err.contains("cannot-be-reloaded"), "{}", done.err);
    chown(stage.path("psk.txt"), Some(0), None).unwrap();
    let done = check();
    assert_eq!(done.code, Some(0), "{}", done.err);
    let said = format!("reloads will fail: user {NOBODY} may not read");
    assert_eq!(done.err.matches("warning[cannot-be-reloaded]").count(), 1, "{}", done.err);
    assert!(done.err.contains(&said), "{}", done.err);
    let daemon = stage.background("x.conf");
    let logged = || stage.read("log.txt").contains("reloads will fail").then_some(());
    until("the warning", WAIT_TIMEOUT, logged);
    daemon.signal(Signal::TERM);
    daemon.wait_gone();
}

#[test]
fn a_native_file_drops_its_rights_too() {
    need_root();
    let backend = Backend::echo();
    let text =
        format!("user = \"nobody\"\npid-file = \"pid\"\n\n{}", server_toml(backend.address(), ""));
    let gate = PskgateBuilder::new().toml(&text);
    // The folder is the test's own: the pid file is written by nobody.
    std::fs::set_permissions(gate.folder(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut gate = gate.start();
    let file = gate.folder().join("pid");
    let text = until("the pid file", WAIT_TIMEOUT, || std::fs::read_to_string(&file).ok());
    assert_eq!(text.trim(), gate.id().to_string());
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.id())).unwrap();
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    assert!(status.lines().any(|line| line.trim() == "Groups:"), "{status}");
    // Files that only root can read were read before. Whoever takes a key away later must not learn
    // only then that nobody listens.
    for name in ["psk.txt", "pskgate.toml"] {
        let path = gate.folder().join(name);
        gate.wait_logged(&format!(
            "reloads will fail, because the program cannot read {}",
            path.display()
        ));
    }
    assert_eq!(gate.terminate(), Some(0));
    assert!(!file.exists());
}

#[test]
fn after_the_drop_and_in_a_chroot_a_changed_key_file_is_noticed_and_revokes() {
    need_root();
    for jailed in [false, true] {
        let backend = Backend::echo();
        let gate = PskgateBuilder::new();
        let jail = gate.folder().display().to_string();
        let chroot = if jailed { format!("chroot = \"{jail}\"\n") } else { String::new() };
        let toml = format!("user = \"nobody\"\n{chroot}\n{}", server_toml(backend.address(), ""));
        let gate = gate.toml(&toml);
        for name in ["psk.txt", "pskgate.toml", ""] {
            chown(gate.folder().join(name), Some(NOBODY), None).unwrap();
        }
        let gate = gate.start();
        let client = PskgateBuilder::new().toml(&client_toml(gate.address("tls"), "")).start();
        let plain = echo_through(&client);
        let (file, fresh) = (gate.folder().join("psk.txt"), gate.folder().join("fresh"));
        write_private(&fresh, &secret(IDENTITY, OTHER_KEY));
        chown(&fresh, Some(NOBODY), None).unwrap();
        std::fs::rename(&fresh, &file).unwrap();
        assert_eq!(plain.end(), ConnectionEnd::Rst, "{}", gate.log());
        assert!(!gate.log().contains("reloads will fail"), "{}", gate.log());
    }
}

#[test]
fn in_a_chroot_it_logs_reloads_and_cleans_up_inside() {
    need_root();
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    let jail = stage.path("");
    let jail = jail.to_str().unwrap().trim_end_matches('/');
    let text = format!(
        "chroot = {jail}\npid = /pid.txt\noutput = /log.txt\nsyslog = no\ndebug = info\n{}",
        section(port, &backend)
    );
    stage.file("x.conf", &text);
    let daemon = stage.background("x.conf");
    assert_eq!(daemon.link("root").to_str(), Some(jail));
    let client = client_of(port);
    echo_through(&client);
    // The key file is named relative to where it was started, and is found from inside as well.
    stage.file("psk.txt", &secret(IDENTITY, OTHER_KEY));
    stage.reload("log.txt", || daemon.signal(Signal::HUP));
    assert_eq!(
        PlainClient::connect(client.address("plain")).end(),
        ConnectionEnd::Rst,
        "the old key is gone"
    );
    daemon.signal(Signal::TERM);
    daemon.wait_gone();
    assert!(!stage.path("pid.txt").exists());
}

#[test]
fn no_line_is_lost_when_the_log_is_rotated() {
    const ROUNDS: usize = 40;
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    stage.file("x.conf", &format!("{GLOBAL}{}", section(port, &backend)));
    let daemon = stage.background("x.conf");
    let client = client_of(port);
    for round in 0..ROUNDS {
        let plain = echo_through(&client);
        plain.shut();
        plain.rest();
        if round % 8 == 4 {
            std::fs::rename(stage.path("log.txt"), stage.path(&format!("log.{round}"))).unwrap();
            daemon.signal(Signal::USR1);
        }
    }
    let whole = || {
        let old = (0..ROUNDS).map(|round| stage.read(&format!("log.{round}"))).collect::<String>();
        old + &stage.read("log.txt")
    };
    until("the end of each session in one of the files", WAIT_TIMEOUT, || {
        (count(&whole(), "Connection closed: ") == ROUNDS).then_some(())
    });
    let log = whole();
    assert_eq!(count(&log, "accepted connection from"), ROUNDS, "{log}");
    assert_eq!(count(&log, "Log file reopened"), ROUNDS / 8, "{log}");
    assert!(count(&stage.read("log.txt"), "Connection closed") > 0, "the new file is used");
}

#[test]
fn a_restart_appends_to_the_log_and_overwrite_begins_it_anew() {
    for (mode, kept) in [("append", true), ("overwrite", false)] {
        let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
        stage.file("x.conf", &format!("{GLOBAL}log = {mode}\n{}", section(port, &backend)));
        stage.file("log.txt", "a line of yesterday\n");
        let daemon = stage.background("x.conf");
        stage.reload("log.txt", || daemon.signal(Signal::HUP));
        daemon.signal(Signal::TERM);
        daemon.wait_gone();
        let log = stage.read("log.txt");
        assert_eq!(log.contains("yesterday"), kept, "{log}");
        assert!(log.contains("Configuration successful"), "a hangup empties nothing: {log}");
    }
}

#[test]
fn sigusr2_lists_who_is_in_whatever_the_level_of_the_log() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    stage.file("x.conf", &format!("{GLOBAL}debug = 0\n{}", section(port, &backend)));
    let daemon = stage.background("x.conf");
    let client = client_of(port);
    let _open = echo_through(&client);
    daemon.signal(Signal::USR2);
    until("the list", WAIT_TIMEOUT, || {
        stage.read("log.txt").contains("Listed 1 active connection(s)").then_some(())
    });
    let log = stage.read("log.txt");
    assert_eq!(log.lines().count(), 2, "{log}");
    let line = log.lines().next().unwrap();
    let target = backend.address().to_string();
    for part in ["[tunnel]", "127.0.0.1:", IDENTITY, "TLSv1.3", &target, "14 byte"] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
}

#[test]
fn syslog_gets_the_lines_with_facility_level_and_name() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    let heard = UnixDatagram::bind(stage.path("syslog")).unwrap();
    heard.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let text = format!(
        "pid = pid.txt\noutput = log.txt\nservice = gate\ndebug = local3.info\n{}",
        section(port, &backend)
    );
    stage.file("x.conf", &text);
    let mut command = stage.command();
    command.arg("x.conf").env("PSKGATE_SYSLOG_SOCKET", stage.path("syslog"));
    assert_eq!(finish(&mut command).code, Some(0));
    let mut next = || {
        let mut line = [0; 4096];
        let length = heard.recv(&mut line).expect("a line comes");
        String::from_utf8_lossy(&line[..length]).into_owned()
    };
    // local3 is 19 (RFC 5424, 6.2.1) and info is 6.
    let line = std::iter::repeat_with(&mut next).find(|line| line.contains("bound to")).unwrap();
    assert!(line.starts_with("<158>"), "{line}");
    let text = "gate: LOG6[main]: Service [tunnel] (FD=";
    assert!(line.contains(text) && line.ends_with(&format!(":{port}")), "{line}");
    assert!(stage.read("log.txt").contains("bound to"), "the file has it too");
    // A syslog that is started anew is found again.
    drop(heard);
    std::fs::remove_file(stage.path("syslog")).unwrap();
    let heard = UnixDatagram::bind(stage.path("syslog")).unwrap();
    heard.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    until("a line to the new one", WAIT_TIMEOUT, || {
        stage.daemon().signal(Signal::USR2);
        heard.recv(&mut [0; 4096]).ok()
    });
}

#[test]
fn without_a_syslog_it_starts_and_works_as_well() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    stage.file("x.conf", &format!("pid = pid.txt\n{}", section(port, &backend)));
    let mut command = stage.command();
    command.arg("x.conf").env("PSKGATE_SYSLOG_SOCKET", "/no/such/socket");
    assert_eq!(finish(&mut command).code, Some(0));
    echo_through(&client_of(port));
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    stage.file("x.conf", &(GLOBAL.to_owned() + &section(port, &backend)));
    let done = finish(&mut stage.shell("trap '' INT QUIT; exec $STUNNEL x.conf"));
    assert_eq!(done.code, Some(0), "{}", done.err);
    let daemon = stage.daemon();
    daemon.signal(Signal::INT);
    daemon.signal(Signal::QUIT);
    echo_through(&client_of(port));
    assert!(stage.path("pid.txt").exists() && daemon.is_alive());
    daemon.signal(Signal::TERM);
    daemon.wait_gone();
}

#[test]
fn int_and_quit_end_it_like_term() {
    for signal in [Signal::INT, Signal::QUIT] {
        let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
        stage.file("x.conf", &(GLOBAL.to_owned() + &section(port, &backend)));
        let daemon = stage.background("x.conf");
        daemon.signal(signal);
        daemon.wait_gone();
        assert!(!stage.path("pid.txt").exists());
    }
}

#[test]
fn a_service_managers_socket_takes_the_place_of_accept() {
    let (stage, backend) = (StunnelFolder::new(), Backend::echo());
    // Nobody else can bind it: neither the start nor the reload goes well if the program tries.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let unused = taken.local_addr().unwrap().port();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    stage.file("x.conf", &(GLOBAL.to_owned() + &section(unused, &backend)));
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec $STUNNEL x.conf 3<&0 </dev/null";
    let mut child =
        stage.shell(script).stdin(Stdio::from(std::os::fd::OwnedFd::from(listener))).spawn();
    let code = child.as_mut().unwrap().wait().unwrap();
    assert_eq!(code.code(), Some(0));
    let client = client_of(port);
    echo_through(&client);
    stage.reload("log.txt", || stage.daemon().signal(Signal::HUP));
    echo_through(&client);
}

#[test]
fn more_sockets_than_services_are_refused_in_words() {
    let (stage, backend) = (StunnelFolder::new(), Backend::echo());
    stage.file("x.conf", &(GLOBAL.to_owned() + &section(free_port(), &backend)));
    let script = "export LISTEN_PID=$$ LISTEN_FDS=2; exec $STUNNEL x.conf 3</dev/null 4<&3";
    let done = finish(&mut stage.shell(script));
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("Too many listening file descriptors"), "{}", done.err);
    // What is meant for another process is nobody's here.
    let script = "export LISTEN_PID=1 LISTEN_FDS=2; exec $STUNNEL x.conf";
    let done = finish(&mut stage.shell(script));
    assert_eq!(done.code, Some(0), "{}", done.err);
}

#[test]
fn a_unix_socket_gets_the_owner_that_its_section_names() {
    need_root();
    let (stage, backend) = (StunnelFolder::new(), Backend::echo());
    let path = stage.path("door");
    let text = section(1, &backend).replace("127.0.0.1:1", path.to_str().unwrap());
    stage.file("x.conf", &format!("{GLOBAL}{text}setuid = nobody\n"));
    let daemon = stage.background("x.conf");
    assert_eq!(path.symlink_metadata().unwrap().uid(), NOBODY);
    assert_eq!(daemon.status("Uid").as_deref(), Some("0 0 0 0"), "the process stays who it was");
}

#[test]
fn foreground_logs_to_standard_error_too_and_quiet_does_not() {
    for (word, loud) in [("yes", true), ("quiet", false)] {
        let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
        let text =
            format!("foreground = {word}\n{GLOBAL}debug = info\n{}", section(port, &backend));
        stage.file("x.conf", &text);
        let mut process =
            crate::harness::Process::spawn("stunnel", "cargo", stage.command().arg("x.conf"));
        until("the log", WAIT_TIMEOUT, || stage.read("log.txt").contains("bound to").then_some(()));
        process.signal(Signal::TERM);
        assert_eq!(process.wait(WAIT_TIMEOUT).code(), Some(0));
        assert_eq!(process.err().contains("bound to"), loud, "{}", process.err());
        assert!(process.out().is_empty());
    }
}

/// An init script in the shape of Buildroot's: stop and start in one breath, with BusyBox's tool.
#[test]
fn a_hundred_restarts_at_once_leave_the_tunnel_up_a_hundred_times() {
    const RESTARTS: usize = 100;
    let (stage, backend, port) = (StunnelFolder::in_memory(), Backend::echo(), free_port());
    stage.file("x.conf", &(GLOBAL.to_owned() + &section(port, &backend)));
    let mut script = std::fs::File::create(stage.path("S50stunnel")).unwrap();
    writeln!(
        script,
        "tool='busybox start-stop-daemon'\n\
         begin() {{ $tool -S -q -p pid.txt --exec \"$STUNNEL\" -- x.conf && echo up; }}\n\
         end() {{ $tool -K -q -p pid.txt && echo down; }}\n\
         case $1 in start) begin;; stop) end;; restart) end; begin;; esac"
    )
    .unwrap();
    let done = finish(&mut stage.shell("busybox sh S50stunnel start"));
    assert_eq!(done.out, "up\n", "install busybox; scripts/test does it: {}", done.err);
    let client = client_of(port);
    let watch = Stopwatch::start();
    // The session of the round before is still open when the next restart comes.
    let mut last = echo_through(&client);
    let mut late = Vec::new();
    for round in 0..RESTARTS {
        let before = stage.daemon();
        let done = finish(&mut stage.shell("busybox sh S50stunnel restart"));
        if done.out != "down\nup\n" {
            late.push((round, done.out, done.err));
            finish(&mut stage.shell("busybox sh S50stunnel start"));
            continue;
        }
        assert_ne!(stage.daemon(), before);
        let now = echo_through(&client);
        drop(std::mem::replace(&mut last, now));
    }
    eprintln!("{RESTARTS} restarts, each with an echo, in {:?}: {late:?}", watch.lasted());
    // A machine's root gets the processor at once, or nearly always beside busy processes, where its kernel
    // or what it runs in has work of its own. Others, and mostly a container's root, are not allowed to:
    // then it is a race, as it is for stunnel.
    let most = if watch.is_machine_busy() { RESTARTS / 10 } else { 0 };
    assert!(late.len() <= most || !may_be_urgent(), "the tunnel stayed down: {late:?}");
}

/// CAP_SYS_NICE of capability.h.
fn may_be_urgent() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("CapEff:")).unwrap();
    u64::from_str_radix(line.trim_start_matches("CapEff:").trim(), 16).unwrap() >> 23 & 1 == 1
}
