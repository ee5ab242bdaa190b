//! A program in place of a backend: `exec` and `execArgs`.

use crate::harness::openssl::{psk, psk_of};
use crate::harness::process::children_of;
use crate::harness::stage::need_root;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, OTHER_KEY, OpensslClient, PlainClient, Pskgate,
    PskgateBuilder, Stream, Stunnel, Tls, WAIT_TIMEOUT, free_port, until,
};

/// A native service that runs `sh -c script`.
fn shell(script: &str, extra: &str) -> String {
    format!(
        "[services.tls]\nmode = \"server\"\naccept = \"127.0.0.1:0\"\nexec = \"/bin/sh\"\n\
         exec-args = [\"sh\", \"-c\", {script:?}]\npsk-secrets = \"psk.txt\"\n{extra}\n"
    )
}

/// What the program says to a client that says nothing.
fn said(gate: &Pskgate) -> (String, ConnectionEnd) {
    let client = Stunnel::client(gate.address("tls"), "");
    let plain = PlainClient::connect(client.address());
    plain.shut();
    let (bytes, ending) = plain.rest();
    (String::from_utf8(bytes).unwrap(), ending)
}

#[test]
fn a_program_is_served_byte_for_byte_and_its_end_is_the_sessions() {
    for tls in Tls::BOTH {
        let port = free_port();
        let text = format!(
            "debug = info\n[cat]\naccept = 127.0.0.1:{port}\nexec = /bin/cat\nPSKsecrets = psk.txt\n{}",
            tls.conf()
        );
        let gate = PskgateBuilder::new().conf("x.conf", &text, None).start();
        let client = Stunnel::client(gate.address("cat"), "");
        let plain = PlainClient::connect(client.address());
        const TOTAL: u64 = 1_000_000;
        let stream = Stream::new(7);
        std::thread::scope(|scope| {
            scope.spawn(|| stream.send(&plain.0, TOTAL).expect("it takes the data"));
            stream.receive(&plain.0, TOTAL);
        });
        plain.shut();
        assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Fin));
        gate.wait_logged("finished with code 0");
    }
}

#[test]
fn half_a_close_is_half_a_close_for_the_program_too() {
    let gate = PskgateBuilder::new().toml(&shell("wc -c; echo all", "")).start();
    let client = Stunnel::client(gate.address("tls"), "");
    let plain = PlainClient::connect(client.address());
    plain.send(b"seven..");
    plain.shut();
    let (bytes, ending) = plain.rest();
    assert_eq!(
        (String::from_utf8(bytes).unwrap().as_str(), ending),
        ("7\nall\n", ConnectionEnd::Fin)
    );
}

#[test]
fn a_program_inherits_three_descriptors_and_no_more() {
    // What the shell leaves open is none of the program's business either.
    let gate = PskgateBuilder::new()
        .shell("exec 7</dev/null 9>/dev/null")
        .toml(&shell("ls -C -w 200 /proc/$$/fd; ls -l /proc/$$/fd/0 | grep -c socket:; :", ""))
        .start();
    // A second session is under way meanwhile: its sockets are none of the program's either.
    let other = Stunnel::client(gate.address("tls"), "");
    let other = PlainClient::connect(other.address());
    assert_eq!(said(&gate).0.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "1"]);
    drop(other);
}

#[test]
fn a_program_is_told_who_is_there_as_by_stunnel_and_the_identity_besides() {
    let (ours, theirs, port) = (free_port(), free_port(), free_port());
    let section = |accept: u16| {
        format!(
            "[env]\naccept = 127.0.0.1:{accept}\nexec = /usr/bin/env\nexecArgs = its-name  -u PATH\n"
        )
    };
    let gate = PskgateBuilder::new()
        .shell("export REMOTE_HOST=left.over")
        .conf("x.conf", &format!("{}PSKsecrets = psk.txt\n", section(ours)), None)
        .start();
    let stunnel = Stunnel::server_with(theirs, &section(theirs));
    let ask = |to, port: u16| {
        let arguments = ["-bind".to_owned(), format!("127.0.0.1:{port}"), "-quiet".to_owned()];
        let client = OpensslClient::start(to, psk().into_iter().chain(arguments));
        client.wait_for("REMOTE_PORT", WAIT_TIMEOUT);
        let out = client.wait_end();
        let mut lines: Vec<String> = out
            .lines()
            .filter(|line| {
                ["REMOTE_", "PSKGATE_IDENTITY", "SSL_CLIENT"].iter().any(|p| line.starts_with(p))
            })
            .map(str::to_owned)
            .collect();
        lines.sort();
        assert!(!out.contains("\nPATH="), "the arguments are as written: {out}");
        lines
    };
    let expected = ask(stunnel.address(), port);
    let mut got = ask(gate.address("env"), port);
    assert_eq!(got.remove(0), format!("PSKGATE_IDENTITY={IDENTITY}"));
    assert_eq!(got, expected);
    assert_eq!(got, ["REMOTE_HOST=127.0.0.1".to_owned(), format!("REMOTE_PORT={port}")]);
}

#[test]
fn standard_error_is_the_peers_unless_the_log_is_on_it() {
    for (foreground, to_peer) in [("quiet", true), ("yes", false)] {
        let port = free_port();
        let gate = PskgateBuilder::new().file("s.sh", "echo aloud; echo in confidence >&2\n").conf(
            "x.conf",
            &format!(
                "foreground = {foreground}\n[tls]\naccept = 127.0.0.1:{port}\nexec = /bin/sh\n\
                 execArgs = sh s.sh\nPSKsecrets = psk.txt\n"
            ),
            None,
        );
        let gate = gate.start();
        let (text, _) = said(&gate);
        assert!(text.contains("aloud"), "{text}");
        assert_eq!(text.contains("in confidence"), to_peer, "foreground = {foreground}: {text}");
        assert_eq!(gate.err().contains("in confidence"), !to_peer);
    }
}

#[test]
fn a_program_that_cannot_be_run_is_told_in_words() {
    for (path, why) in [("/nonexistent/x", "No such file"), ("/etc/passwd", "Permission denied")] {
        let text = shell("", "").replace("/bin/sh", path);
        let gate = PskgateBuilder::new().toml(&text).start();
        let client = Stunnel::client(gate.address("tls"), "");
        PlainClient::connect(client.address()).end();
        let line = gate.wait_logged("cannot be run");
        assert!(line.contains(path) && line.contains(why), "{line}");
    }
}

#[test]
fn nothing_is_run_for_a_stranger() {
    for tls in Tls::BOTH {
        let gate = PskgateBuilder::new().toml(&shell("echo > came; cat", tls.toml())).start();
        let came = gate.folder().join("came");
        let wrong = psk_of(IDENTITY, OTHER_KEY);
        assert!(OpensslClient::start(gate.address("tls"), wrong).alert().is_some());
        gate.wait_logged("refused");
        assert!(!came.exists());
        let client = Stunnel::client(gate.address("tls"), "");
        PlainClient::connect(client.address()).echo(b"with the key it is");
        assert!(came.exists());
    }
}

#[test]
fn a_program_outlives_its_session_and_is_taken_note_of() {
    let gate = PskgateBuilder::new()
        .toml(&shell("exec <&- >&-; while [ ! -e go ]; do sleep 0.02; done; echo > done", ""))
        .start();
    // Kept until the session is over: it has a close_notify of its own to send.
    let client = Stunnel::client(gate.address("tls"), "");
    let plain = PlainClient::connect(client.address());
    plain.shut();
    assert_eq!(plain.rest().1, ConnectionEnd::Fin);
    let line = gate.wait_logged("session closed");
    assert!(line.contains("complete"), "{line}");
    assert!(!gate.log().contains("finished with"), "it goes on");
    std::fs::write(gate.folder().join("go"), "").unwrap();
    gate.wait_logged("finished with code 0");
    assert!(gate.folder().join("done").exists());
    let children = || {
        let id = gate.id();
        std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default()
    };
    until("no child to be left", WAIT_TIMEOUT, || children().trim().is_empty().then_some(()));
}

/// As ssh's ProxyCommand: the program is the way to the server, and TLS goes through it.
#[test]
fn a_client_s_program_carries_tls() {
    let backend = Backend::echo();
    let (ours, theirs) = (free_port(), free_port());
    let folder = PskgateBuilder::new();
    let binary = env!("CARGO_BIN_EXE_pskgate");
    let section = |port: u16| {
        format!(
            "[outer]\nclient = yes\naccept = 127.0.0.1:{port}\nexec = {binary}\n\
             execArgs = pskgate run {}/inner.conf\n",
            folder.folder().display()
        )
    };
    let outer = format!("{}PSKsecrets = psk.txt\n", section(ours));
    let inner_keys = format!("{}/psk.txt", folder.folder().display());
    let inner =
        format!("syslog = no\nconnect = {}\nPSKsecrets = {inner_keys}\n", backend.address());
    std::fs::write(folder.folder().join("inner.conf"), inner).unwrap();
    let stunnel = Stunnel::server_with(theirs, &section(theirs));
    let gate = folder.conf("outer.conf", &outer, None).start();
    for to in [gate.address("outer"), stunnel.address()] {
        let plain = PlainClient::connect(to);
        plain.echo(b"all the way");
        plain.shut();
        assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Fin));
    }
}

/// A stunnel.conf with a section `[ec]` whose program, `sh script`, is connected to a server.
fn connected(to: std::net::SocketAddr, script: &str, extra: &str) -> PskgateBuilder {
    let text = format!(
        "debug = debug\n[ec]\nclient = yes\nconnect = {to}\nexec = /bin/sh\n\
         execArgs = sh script.sh\nPSKsecrets = psk.txt\n{extra}\n"
    );
    PskgateBuilder::new().file("script.sh", script).conf("x.conf", &text, None)
}

/// What a log says, without what is another's business: times, numbers, ports.
fn phrases(log: &str, wanted: &[&str]) -> Vec<String> {
    let bare = |line: &str| -> String {
        let text = line.split_once("]: ").map_or(line, |(_, text)| text);
        text.chars().filter(|c| !c.is_ascii_digit()).collect()
    };
    let level = |line: &str| line.split_once(" LOG").map(|(_, rest)| rest[..1].to_owned());
    log.lines()
        .filter(|line| wanted.iter().any(|phrase| line.contains(phrase)))
        .map(|line| format!("{}: {}", level(line).unwrap_or_default(), bare(line)))
        .collect()
}

/// Beside stunnel: the same bytes, the same phrases at the same levels, in the same order.
#[test]
fn a_program_that_connects_is_carried_and_started_again_as_by_stunnel() {
    const PHRASES: &[&str] = &[
        "Starting exec+connect service",
        "Local mode child started",
        "accepted connection from",
        "Retrying an exec+connect section",
    ];
    let script = "echo from the program; read answer; echo \"$answer\" >> said; exit 3";
    let backend = Backend::new(|mut stream| {
        use std::io::{Read as _, Write as _};
        let mut hello = [0; 17];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&hello).unwrap();
        Some(crate::harness::backend::read_to_end(stream))
    });
    let server = Stunnel::server(backend.address(), "");
    let gate = connected(server.address(), script, "retry = yes").launch();
    let said = |folder: &std::path::Path, times: usize| {
        until("the program's runs", WAIT_TIMEOUT, || {
            let said = std::fs::read_to_string(folder.join("said")).unwrap_or_default();
            (said.lines().count() >= times).then_some(said)
        })
    };
    let ours = said(gate.folder(), 2);
    assert!(ours.lines().all(|line| line == "from the program"), "{ours}");
    let line = gate.wait_logged("Child process");
    assert!(line.contains(" LOG6[") && line.contains("finished with code 3"), "{line}");

    let folder = PskgateBuilder::new();
    let shown = folder.folder().display().to_string();
    let script = script.replace("said", &format!("{shown}/said"));
    let folder = folder.file("script.sh", &script);
    let stunnel = Stunnel::server_with(
        free_port(),
        &format!(
            "client = yes\n[ec]\nconnect = {}\nexec = /bin/sh\nexecArgs = sh {shown}/script.sh\n\
             retry = yes",
            server.address()
        ),
    );
    assert_eq!(said(folder.folder(), 2).lines().next(), ours.lines().next());
    let first = |log: &str| phrases(log, PHRASES).into_iter().take(5).collect::<Vec<_>>();
    let theirs = until("stunnel's second run", WAIT_TIMEOUT, || {
        Some(first(&stunnel.err())).filter(|lines| lines.len() == 5)
    });
    let ours = until("our second run", WAIT_TIMEOUT, || {
        Some(first(&gate.log())).filter(|lines| lines.len() == 5)
    });
    assert_eq!(ours, theirs);
}

#[test]
fn a_program_that_connects_is_started_once_unless_retry_says_otherwise() {
    let backend = Backend::echo();
    let server =
        PskgateBuilder::new().toml(&crate::harness::server_toml(backend.address(), "")).start();
    let text = |retry: &str| {
        format!(
            "[log]\nlevel = \"debug\"\n[services.ec]\nmode = \"client\"\nconnect = \"{}\"\nexec = \"/bin/sh\"\n\
             exec-args = [\"sh\", \"-c\", \"echo run >> runs; echo hello; read x\"]\n\
             psk-secrets = \"psk.txt\"\n{retry}\n",
            server.address("tls")
        )
    };
    let runs = |folder: &std::path::Path| {
        std::fs::read_to_string(folder.join("runs")).unwrap_or_default().lines().count()
    };
    let once = PskgateBuilder::new().toml(&text("")).launch();
    once.wait_logged("session closed");
    let again = PskgateBuilder::new().toml(&text("retry = \"50ms\"")).launch();
    until("five runs", WAIT_TIMEOUT, || (runs(again.folder()) >= 5).then_some(()));
    assert_eq!(runs(once.folder()), 1);
    // A stop ends the pause as well.
    let mut slow = PskgateBuilder::new().toml(&text("retry = \"1h\"")).launch();
    slow.wait_logged("starting the program again");
    assert_eq!(slow.terminate(), Some(0));
}

#[test]
fn an_unreachable_server_is_tried_again_after_the_pause() {
    let port = free_port();
    let gate = connected(crate::harness::local(port), "echo here; cat", "retry = yes").launch();
    gate.wait_logged("No more addresses to connect");
    gate.wait_logged("Retrying an exec+connect section");
    let backend = Backend::echo();
    let server = Stunnel::server_at(port, backend.address(), "");
    server.wait_for("Key configured", WAIT_TIMEOUT);
    gate.wait_logged("TLS connected");
}

#[test]
fn a_reload_leaves_a_program_that_runs_alone_and_starts_another_in_place_of_one_that_changed() {
    let backend = Backend::echo();
    let server =
        PskgateBuilder::new().toml(&crate::harness::server_toml(backend.address(), "")).start();
    let text = |word: &str| {
        format!(
            "[services.ec]\nmode = \"client\"\nconnect = \"{}\"\nexec = \"/bin/sh\"\nretry = \"20ms\"\n\
             exec-args = [\"sh\", \"-c\", \"echo {word} >> runs; cat\"]\npsk-secrets = \"psk.txt\"\n",
            server.address("tls")
        )
    };
    let gate = PskgateBuilder::new().toml(&text("one")).launch();
    gate.wait_logged("session opened");
    let runs = || std::fs::read_to_string(gate.folder().join("runs")).unwrap_or_default();
    gate.signal(rustix::process::Signal::HUP);
    gate.wait_logged("SIGHUP: reloaded");
    assert_eq!(runs(), "one\n");
    std::fs::write(gate.folder().join("pskgate.toml"), text("two")).unwrap();
    gate.signal(rustix::process::Signal::HUP);
    until("the other program", WAIT_TIMEOUT, || (runs() == "one\ntwo\n").then_some(()));
    // stunnel starts a second one beside the first.
    let folder = PskgateBuilder::new().file("script.sh", "echo run >> $0.runs; cat");
    let shown = folder.folder().display();
    let sections = format!(
        "client = yes\n[ec]\nconnect = {}\nexec = /bin/sh\nexecArgs = sh {shown}/script.sh",
        server.address("tls")
    );
    let stunnel = Stunnel::server_with(free_port(), &sections);
    stunnel.wait_for("TLS connected", WAIT_TIMEOUT);
    stunnel.signal(rustix::process::Signal::HUP);
    until("stunnel's second run", WAIT_TIMEOUT, || {
        let runs = std::fs::read_to_string(folder.folder().join("script.sh.runs")).ok()?;
        (runs == "run\nrun\n").then_some(())
    });
}

#[test]
fn set_variables_are_in_a_program_s_environment_and_their_values_nowhere_else() {
    let port = free_port();
    let conf = format!(
        "debug = debug\nsetEnv = COLOUR=deep blue\nsetEnv = GONE=\nsetEnv = TOKEN=hush-hush\n\
         [env]\naccept = 127.0.0.1:{port}\nexec = /usr/bin/env\nPSKsecrets = psk.txt\n"
    );
    let native = "environment = [\"COLOUR=deep blue\", \"GONE=\", \"TOKEN=hush-hush\"]\n"
        .to_owned()
        + &shell("env", "");
    let gates = [
        (
            PskgateBuilder::new().shell("export GONE=away").conf("x.conf", &conf, None).start(),
            "env",
        ),
        (PskgateBuilder::new().shell("export GONE=away").toml(&native).start(), "tls"),
    ];
    for (gate, service) in gates {
        let client = Stunnel::client(gate.address(service), "");
        let plain = PlainClient::connect(client.address());
        plain.shut();
        let (bytes, _) = plain.rest();
        let out = String::from_utf8(bytes).unwrap();
        assert!(out.contains("COLOUR=deep blue\n") && out.contains("TOKEN=hush-hush\n"), "{out}");
        assert!(!out.contains("GONE"), "{out}");
        assert!(!gate.log().contains("hush-hush"), "{}", gate.log());
        let shown = std::process::Command::new(env!("CARGO_BIN_EXE_pskgate"))
            .args(["check", "--effective"])
            .arg(if service == "env" { "x.conf" } else { "pskgate.toml" })
            .current_dir(gate.folder())
            .output()
            .unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("TOKEN=...") && !shown.contains("hush-hush"), "{shown}");
    }
}

/// What `tty`, `stty` and the session look like to the program, beside stunnel's.
#[test]
fn a_program_with_a_terminal_has_one_of_its_own() {
    const SCRIPT: &str = "tty | sed 's/[0-9]*$//'; stty -a | tr ';' '\\n' | grep -c intr; read line; echo \"<$line>\"";
    let (ours, theirs) = (free_port(), free_port());
    let folder = PskgateBuilder::new().file("s.sh", SCRIPT);
    let section = |port: u16| {
        format!(
            "[tty]\naccept = 127.0.0.1:{port}\nexec = /bin/sh\nexecArgs = sh {}/s.sh\npty = yes\n",
            folder.folder().display()
        )
    };
    let (mine, other) = (section(ours), section(theirs));
    let stunnel = Stunnel::server_with(theirs, &other);
    let gate = PskgateBuilder::new()
        .conf("x.conf", &format!("{mine}PSKsecrets = psk.txt\n"), None)
        .start();
    let talk = |to| {
        let client = Stunnel::client(to, "");
        let plain = PlainClient::connect(client.address());
        plain.send(b"typed\n");
        let mut text = String::new();
        while !text.contains("<typed>\r\n") {
            use std::io::Read as _;
            let mut some = [0; 200];
            let count = (&plain.0).read(&mut some).unwrap();
            assert!(count > 0, "it ended with {text:?}");
            text += std::str::from_utf8(&some[..count]).unwrap();
        }
        text
    };
    let (got, expected) = (talk(gate.address("tty")), talk(stunnel.address()));
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert!(got.contains("/dev/pts/\r\n") && got.contains("1\r\n"), "{got:?}");
    assert_eq!(sorted(&got), sorted(&expected), "the echo comes when it comes");
}

#[test]
fn a_terminal_is_hung_up_with_its_session_and_the_end_of_the_data_is_an_end_of_input() {
    let own = "ps -o tty= -p $$ | grep -q pts && echo own";
    let gate = PskgateBuilder::new()
        .toml(&shell(&format!("trap 'echo hup > hup' HUP; {own}; cat; echo over"), "pty = true"))
        .start();
    let client = Stunnel::client(gate.address("tls"), "");
    let plain = PlainClient::connect(client.address());
    plain.send(b"line\n");
    plain.shut();
    let (bytes, ending) = plain.rest();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("own\r\n") && text.ends_with("over\r\n"), "{text:?}");
    assert_eq!(ending, ConnectionEnd::Fin);
    // Without an orderly end the terminal goes away all the same.
    let script = "trap 'echo > hup; exit' HUP; echo ready; while :; do sleep 0.05; done";
    let gate = PskgateBuilder::new().toml(&shell(script, "pty = true")).start();
    let mut client = OpensslClient::start(gate.address("tls"), psk());
    client.wait_for("ready", WAIT_TIMEOUT);
    client.kill();
    until("the hangup", WAIT_TIMEOUT, || gate.folder().join("hup").exists().then_some(()));
    gate.wait_logged("the program (process ");
}

/// As first process of its PID namespace, which a container's is.
#[test]
fn pid_1_waits_for_orphans_and_leaves_its_own_programs_their_exit_status() {
    const SESSIONS: usize = 24;
    need_root();
    // What each leaves behind ends at once, in a moment, and while it still runs itself.
    let script = "(exit 3) & (sleep 0.2; exit 4) & (sleep 0.4 &) & sleep 0.1; echo done; exit 7";
    let gate = PskgateBuilder::new()
        .shell("exec unshare --pid --fork --mount-proc --kill-child \"$@\"")
        .toml(&shell(script, ""))
        .start();
    let init = until("the program in its namespace", WAIT_TIMEOUT, || {
        Some(children_of(gate.id()).first()?.0)
    });
    let client = Stunnel::client(gate.address("tls"), "");
    let sessions: Vec<_> = (0..SESSIONS).map(|_| PlainClient::connect(client.address())).collect();
    for session in sessions {
        session.shut();
        let (bytes, ending) = session.rest();
        assert_eq!((bytes.as_slice(), ending), (&b"done\n"[..], ConnectionEnd::Fin));
    }
    until(&format!("the end of each program in {}", gate.log()), WAIT_TIMEOUT, || {
        (gate.log().matches("finished with code 7").count() == SESSIONS).then_some(())
    });
    until(&format!("no child to be left of {:?}", children_of(init)), WAIT_TIMEOUT, || {
        children_of(init).is_empty().then_some(())
    });
    assert!(!gate.log().contains("lost sight of"), "{}", gate.log());
}
