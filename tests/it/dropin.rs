//! Whoever starts stunnel today, starting this instead: each caller's own way.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::process::{Finished, pskgate};
use crate::harness::stage::{
    StunnelFolder, client_of, echo_through, finish, is_root, need_root, section,
};
use crate::harness::{
    Backend, IDENTITY, KEY, OTHER_KEY, PlainClient, Process, PskgateBuilder, WAIT_TIMEOUT,
    client_toml, free_port, local, secret, server_toml, until,
};

const GLOBAL: &str = "pid = pid.txt\noutput = log.txt\nsyslog = no\n";

/// Information comes on standard error alone, with 0.
fn informs(done: &Finished) -> &str {
    assert_eq!((done.code, done.out.as_str()), (Some(0), ""), "{}", done.err);
    &done.err
}

#[test]
fn flags_know_no_case_ignore_what_follows_and_inform_on_standard_error() {
    let stage = StunnelFolder::new();
    for flag in ["-version", "-VERSION", "-Version"] {
        let done = stage.run(&[flag, "no-such-file.conf", "more"]);
        let lines: Vec<&str> = informs(&done).lines().collect();
        assert!(lines[0].starts_with("stunnel 5.75 on ") && lines[0].ends_with(" platform"));
        assert!(lines[1].starts_with("Compiled"), "{lines:?}");
        let features = lines.iter().find(|line| line.starts_with("Threading:")).unwrap();
        assert!(features.contains(" Sockets:") && features.contains(" TLS:"), "{features}");
        assert!(features.contains("PSK"), "{features}");
        let ours = format!("pskgate {}", env!("CARGO_PKG_VERSION"));
        assert!(lines.iter().any(|line| line.starts_with(&ours)), "{lines:?}");
    }
    let done = stage.run(&["-options"]);
    assert!(informs(&done).lines().any(|line| line == "options = NO_TICKET"), "{}", done.err);
    let done = stage.run(&["-SOCKETS"]);
    assert!(informs(&done).contains("TCP_KEEPIDLE"), "{}", done.err);
    // Under the program's own name that is its own version.
    let done = pskgate(PskgateBuilder::new().folder(), &["-version"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    assert!(
        done.out.starts_with(&format!("pskgate {} ", env!("CARGO_PKG_VERSION"))),
        "{}",
        done.out
    );
}

#[test]
fn a_double_dash_is_a_file_name_and_a_missing_file_is_named() {
    let stage = StunnelFolder::new();
    for name in ["--version", "none.conf"] {
        let done = stage.run(&[name]);
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""));
        let first = format!("[!] Invalid configuration file name \"{name}\"");
        assert!(done.err.contains(&first), "{}", done.err);
        assert!(done.err.contains("[!] realpath: No such file or directory (2)"), "{}", done.err);
    }
}

#[test]
fn no_argument_means_the_machines_own_file() {
    let default = "/etc/stunnel/stunnel.conf";
    let exists = std::path::Path::new(default).exists();
    assert!(!exists, "this test needs a machine that has no {default}");
    for name in ["stunnel", "stunnel4"] {
        let stage = StunnelFolder::new();
        let program = stage.path(name);
        if !program.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pskgate"), &program).unwrap();
        }
        let done = finish(&mut Command::new(program));
        assert_eq!(done.code, Some(1));
        assert!(done.err.contains(default), "{}", done.err);
    }
}

#[test]
fn a_bad_descriptor_number_is_named_with_the_syntax() {
    let stage = StunnelFolder::new();
    for (arguments, words) in [
        (&["-fd"][..], "[!] No file descriptor specified"),
        (&["-fd", "x"], "[!] Invalid file descriptor number"),
        (&["-FD", "-1"], "[!] Invalid file descriptor number"),
        (&["-fd", "77"], "[!] Cannot open configuration file"),
    ] {
        let done = stage.run(arguments);
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(done.err.contains(words) && done.err.contains("Syntax:"), "{}", done.err);
    }
}

/// efs-utils reads the help's standard error, and takes a line that starts with an option's name for
/// leave to write it. `libwrap = no` and `foreground = quiet` it may; `checkHost` and `OCSPaia` need
/// certificates, which are refused, and so there must be no such line.
#[test]
fn efs_utils_finds_what_may_be_written_and_nothing_else() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    let done = stage.run(&["-help"]);
    let help = informs(&done);
    let supported = |option: &str, value: &str| {
        help.lines().any(|line| line.starts_with(option) && line.contains(value))
    };
    assert!(supported("foreground", "quiet") && supported("libwrap", ""), "{help}");
    assert!(!supported("checkHost", "") && !supported("OCSPaia", ""), "{help}");
    need_root();
    // What it writes then, but for the certificates.
    let text = format!(
        "fips = no\nforeground = quiet\nsocket = l:SO_REUSEADDR=yes\nsocket = a:SO_BINDTODEVICE=lo\n\
         syslog = no\noutput = log.txt\npid = pid.txt\ndebug = info\n{}TIMEOUTbusy = 20\n\
         TIMEOUTclose = 0\nTIMEOUTidle = 70\ndelay = yes\nlibwrap = no\n",
        section(port, &backend)
    );
    stage.file("efs.conf", &text);
    let process = Process::spawn("stunnel", "cargo", stage.command().arg("efs.conf"));
    until("the pid file", WAIT_TIMEOUT, || stage.path("pid.txt").exists().then_some(()));
    echo_through(&client_of(port));
    assert!(process.text().is_empty(), "quiet is quiet: {}", process.text());
}

#[test]
fn debians_init_script_starts_hangs_up_rotates_and_stops_it() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    // The tool goes to the root directory: such files name everything in full.
    let text = GLOBAL.to_owned() + &section(port, &backend);
    let full = |name: &str| stage.path(name).display().to_string();
    let text = ["pid.txt", "log.txt", "psk.txt"]
        .iter()
        .fold(text, |text, name| text.replace(name, &full(name)));
    stage.file("plc.conf", &text);
    let tool = "start-stop-daemon --quiet --pidfile $PWD/pid.txt";
    let start = format!("{tool} --start --exec $STUNNEL -- $PWD/plc.conf and what OPTIONS says");
    let done = finish(&mut stage.shell(&start));
    assert_eq!(done.code, Some(0), "{}", done.err);
    let client = client_of(port);
    echo_through(&client);
    for (signal, line) in [("HUP", "Configuration successful"), ("USR1", "Log file reopened")] {
        let count = || stage.read("log.txt").matches(line).count();
        let before = count();
        let done = finish(&mut stage.shell(&format!("{tool} --stop --signal {signal}")));
        assert_eq!(done.code, Some(0), "{}", done.err);
        until(line, WAIT_TIMEOUT, || (count() > before).then_some(()));
        echo_through(&client);
    }
    let daemon = stage.daemon();
    let done = finish(&mut stage.shell(&format!("{tool} --stop --signal TERM --retry 10")));
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(!daemon.is_alive());
}

#[test]
fn stunnel3_hands_its_options_over_a_pipe() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    let text = format!(
        "RNDoverwrite = no\nEGD = /var/run/egd\n{GLOBAL}session = 300\npty = no\n{}",
        section(port, &backend)
    );
    stage.file("text", &text);
    // A pipe whose writer has gone when the program comes to read it, or not yet.
    for script in ["cat text | $STUNNEL -fd 0", "{ sleep 0.2; cat text; } | $STUNNEL -fd 9 9<&0"] {
        let done = finish(&mut stage.shell(script));
        assert_eq!(done.code, Some(0), "{}", done.err);
        let client = client_of(port);
        echo_through(&client);
        // The pipe cannot be read again, but the keys can: more than stunnel does here.
        stage.file("psk.txt", &secret(IDENTITY, OTHER_KEY));
        let daemon = stage.daemon();
        stage.reload("log.txt", || daemon.signal(Signal::HUP));
        let toml = client_toml(local(port), "");
        let new =
            PskgateBuilder::new().file("psk.txt", &secret(IDENTITY, OTHER_KEY)).toml(&toml).start();
        echo_through(&new);
        daemon.signal(Signal::TERM);
        daemon.wait_gone();
        stage.file("psk.txt", &secret(IDENTITY, KEY));
        std::fs::remove_file(stage.path("log.txt")).unwrap();
    }
}

#[test]
fn xapi_gives_it_a_descriptor_and_reads_its_log() {
    let (backend, port) = (Backend::echo(), free_port());
    let (stage, door) = (StunnelFolder::new(), free_port());
    let server = client_server(&backend, port);
    // Its own shape: comments between the lines, no spaces around some signs.
    let text = format!(
        "# comments are lines\nforeground=yes\npid=\nsyslog=no\ndebug=authpriv.5\n\
         socket = r:TCP_NODELAY=1\nsocket = a:SO_KEEPALIVE=1\nsocket = r:SO_KEEPALIVE=1\n\
         [peer]\nclient=yes\naccept=127.0.0.1:{door}\nconnect={}\nsslVersion = TLSv1.2\n\
         ciphers = ECDHE-PSK-CHACHA20-POLY1305\ncurve = P-256\nPSKsecrets=psk.txt\n",
        local(port)
    );
    stage.file("text", &text);
    let mut shell = stage.shell("exec $STUNNEL -fd 8 8<text");
    let mut process = Process::spawn("stunnel", "cargo", &mut shell);
    let plain = until("the door", WAIT_TIMEOUT, || {
        std::net::TcpStream::connect(local(door)).ok().map(PlainClient)
    });
    plain.0.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    plain.echo(b"there and back");
    drop(server);
    assert_ne!(PlainClient::connect(local(door)).rest().0, b"x");
    process.wait_for("No more addresses to connect", WAIT_TIMEOUT);
    process.signal(Signal::TERM);
    assert_eq!(process.wait(WAIT_TIMEOUT).code(), Some(0));
}

/// A server end on a port of the caller's choice.
fn client_server(backend: &Backend, port: u16) -> crate::harness::Pskgate {
    let toml = crate::harness::server_toml(backend.address(), "")
        .replace("127.0.0.1:0", &local(port).to_string());
    PskgateBuilder::new().toml(&toml).start()
}

#[test]
fn volsync_s_files_and_commands_work() {
    let (port, door) = (free_port(), free_port());
    let key = "1:23b7395fafc3e842bd8ac0fe142e6ad1";
    let common = |folder: &StunnelFolder| {
        format!(
            "foreground = no\npid = {}\nsocket = l:SO_KEEPALIVE=1\nsocket = l:TCP_KEEPIDLE=180\n\
             socket = r:SO_KEEPALIVE=1\nsocket = r:TCP_KEEPIDLE=180\nsyslog = no\n\
             output = /dev/stdout\ndebug = debug\n# a comment\n[rsync]\nciphers = PSK\n\
             PSKsecrets = psk.txt\nsslVersionMin = TLSv1.3\n",
            folder.path("pid.txt").display()
        )
    };
    // The destination runs rsync there; here it runs what gives everything back.
    let (destination, source) = (StunnelFolder::new(), StunnelFolder::new());
    for stage in [&destination, &source] {
        stage.file("psk.txt", key);
    }
    let program = "exec = /bin/cat\nexecargs = cat -\n";
    let text = format!("{}accept = :::{port}\n{program}", common(&destination));
    destination.file("stunnel.conf", &text);
    let text = format!(
        "{}client = yes\naccept = 127.0.0.1:{door}\nconnect = 127.0.0.1:{port}\n",
        common(&source)
    );
    source.file("stunnel.conf", &text);
    let script = "$STUNNEL -version stunnel.conf; $STUNNEL stunnel.conf >said.txt && cat pid.txt";
    for stage in [&destination, &source] {
        let done = finish(&mut stage.shell(script));
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert_eq!(done.out.trim(), stage.daemon().0.to_string());
    }
    PlainClient::connect(local(door)).echo(b"files");
    for stage in [&destination, &source] {
        until("its log on what was standard output", WAIT_TIMEOUT, || {
            stage.read("said.txt").contains("TLSv1.3 ciphersuite").then_some(())
        });
        let daemon = stage.daemon();
        // It opens its log anew without losing a stream that has no name any more.
        daemon.signal(Signal::USR1);
        let done = finish(&mut stage.shell("kill -TERM $(cat pid.txt)"));
        assert_eq!(done.code, Some(0), "{}", done.err);
        daemon.wait_gone();
        assert!(stage.read("said.txt").contains("Terminated"), "{}", stage.read("said.txt"));
        assert!(!stage.path("pid.txt").exists());
    }
}

/// The file in a here-document on descriptor 10, and the connection on standard input and output.
#[test]
fn rsync_ssl_talks_through_it_on_standard_input_and_output() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let stage = StunnelFolder::new();
    let script = format!(
        "exec $STUNNEL -fd 10 11<&0 <<EOF 10<&0 0<&11 11<&-\n\
         foreground = yes\ndebug = crit\nconnect = {}\nclient = yes\nTIMEOUTclose = 0\n\
         PSKsecrets = psk.txt\nPSKidentity = {IDENTITY}\nEOF\n",
        server.address("tls")
    );
    for program in [stage.path("stunnel"), "/usr/bin/stunnel4".into()] {
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .env("STUNNEL", &program)
            .current_dir(stage.path("."))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash is there");
        let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        to.write_all(b"@RSYNCD: 31.0").unwrap();
        let mut answer = [0; 13];
        from.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"@RSYNCD: 31.0", "{}", program.display());
        drop(to);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{}", program.display());
    }
    assert_eq!(backend.accepted(), 2);
}

#[test]
fn a_containers_entry_point_becomes_it_and_hears_its_signals() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    let user = if is_root() { "setuid = nobody\nsetgid = nogroup\n" } else { "" };
    let text = format!(
        "foreground = yes\n{user}fips = no\nsyslog = no\noptions = NO_SSLv2\n{}delay = yes\n",
        section(port, &backend)
    );
    stage.file("x.conf", &text);
    let mut shell = stage.shell("exec $STUNNEL \"$@\"");
    let mut process = Process::spawn("stunnel", "cargo", shell.args(["entry", "x.conf"]));
    // The log is of stunnel's level, which says nothing when it starts.
    let client = client_of(port);
    until("the tunnel", WAIT_TIMEOUT, || std::net::TcpStream::connect(local(port)).ok());
    echo_through(&client);
    process.wait_for("accepted connection from", WAIT_TIMEOUT);
    process.signal(Signal::TERM);
    assert_eq!(process.wait(WAIT_TIMEOUT).code(), Some(0));
}

/// The founding document's files, as they stand but for the ports and `[PLC]`.
#[test]
fn the_founding_files_run_in_the_background_and_in_the_foreground_and_survive_a_hangup() {
    for foreground in [false, true] {
        let (backend, at_plc, at_ide) = (Backend::echo(), free_port(), free_port());
        let (plc, ide) = (StunnelFolder::new(), StunnelFolder::new());
        let before = if foreground { "foreground = yes\n" } else { "" };
        plc.file(
            "stunnel-server.conf",
            &format!(
                "{before}output = stunnel-server.log\n\n[beremiz]\naccept = {at_plc}\n\
                 connect = {}\nPSKsecrets = psk.txt\n",
                backend.address()
            ),
        );
        ide.file("pskclient1.txt", &secret(IDENTITY, KEY)).file(
            "stunnel-client.conf",
            &format!(
                "{before}output = stunnel-client.log\nclient = yes\n\n[beremiz]\n\
                 accept = {at_ide}\nconnect = 127.0.0.1:{at_plc}\nPSKidentity = client1\n\
                 PSKsecrets = pskclient1.txt\n"
            ),
        );
        let mut held = Vec::new();
        for (stage, file) in [(&plc, "stunnel-server.conf"), (&ide, "stunnel-client.conf")] {
            if foreground {
                held.push(Process::spawn("stunnel", "cargo", stage.command().arg(file)));
            } else {
                let done = stage.run(&[file]);
                assert_eq!(done.code, Some(0), "{}", done.err);
            }
        }
        let session = until("the tunnel", WAIT_TIMEOUT, || {
            std::net::TcpStream::connect(local(at_ide)).ok().map(PlainClient)
        });
        until("the other end", WAIT_TIMEOUT, || std::net::TcpStream::connect(local(at_plc)).ok());
        let session = if foreground { PlainClient::connect(local(at_ide)) } else { session };
        session.0.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        session.echo(b"PYRO://127.0.0.1:3002");
        for (stage, log) in [(&plc, "stunnel-server.log"), (&ide, "stunnel-client.log")] {
            stage.reload(log, || {
                for process in stage.processes() {
                    process.signal(Signal::HUP);
                }
            });
        }
        session.echo(b"it goes on");
        PlainClient::connect(local(at_ide)).echo(b"and the next one comes in");
    }
}

#[test]
fn under_its_own_name_a_file_alone_runs_in_the_manner_of_its_language() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    stage.file("x.conf", &(GLOBAL.to_owned() + &section(port, &backend)));
    // Another link, so that the stage still finds its processes.
    let script = "ln -s $STUNNEL pskgate && exec ./pskgate x.conf";
    let done = finish(&mut stage.shell(script));
    assert_eq!(done.code, Some(0), "{}", done.err);
    let daemon = stage.daemon();
    echo_through(&client_of(port));
    daemon.signal(Signal::TERM);
    daemon.wait_gone();

    // A slip in a command's name is no file.
    let done = pskgate(PskgateBuilder::new().folder(), &["chekc", "x.toml"]);
    assert_eq!(done.code, Some(64), "{}", done.err);
    assert!(done.err.contains("check"), "{}", done.err);
    // Nor is a command that there is not, and a file that there is not is told as `run` tells it.
    let done = pskgate(PskgateBuilder::new().folder(), &["start"]);
    assert_eq!(done.code, Some(64), "{}", done.err);
    assert!(
        done.err.contains("'start'") && done.err.contains("`pskgate run FILE`"),
        "{}",
        done.err
    );
    let done = pskgate(PskgateBuilder::new().folder(), &["none.conf"]);
    assert_eq!(done.code, Some(66), "{}", done.err);
    assert!(done.err.contains("cannot read none.conf: No such file"), "{}", done.err);
    // Native mistakes keep the native codes and words.
    let gate = PskgateBuilder::new().toml("[services.x]\n");
    let done = pskgate(gate.folder(), &["pskgate.toml"]);
    assert_eq!(done.code, Some(78), "{}", done.err);
}
