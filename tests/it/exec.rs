//! A program in place of a backend: `exec` and `execArgs`.

use crate::harness::openssl::{psk, psk_of};
use crate::harness::{
    Backend, Ending, Gate, IDENTITY, OTHER_KEY, OpensslClient, PATIENCE, Plain, Pskgate, Stream,
    Stunnel, Tls, free_port, until,
};

/// A native service that runs `sh -c script`.
fn shell(script: &str, extra: &str) -> String {
    format!(
        "[services.tls]\nmode = \"server\"\naccept = \"127.0.0.1:0\"\nexec = \"/bin/sh\"\n\
         exec-args = [\"sh\", \"-c\", {script:?}]\npsk-secrets = \"psk.txt\"\n{extra}\n"
    )
}

/// What the program says to a client that says nothing.
fn said(gate: &Pskgate) -> (String, Ending) {
    let client = Stunnel::client(gate.address("tls"), "");
    let plain = Plain::connect(client.address());
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
        let gate = Gate::new().conf("x.conf", &text, None).start();
        let client = Stunnel::client(gate.address("cat"), "");
        let plain = Plain::connect(client.address());
        const TOTAL: u64 = 1_000_000;
        let stream = Stream::new(7);
        std::thread::scope(|scope| {
            scope.spawn(|| stream.send(&plain.0, TOTAL).expect("it takes the data"));
            stream.receive(&plain.0, TOTAL);
        });
        plain.shut();
        assert_eq!(plain.rest(), (Vec::new(), Ending::Fin));
        gate.wait_logged("finished with code 0");
    }
}

#[test]
fn half_a_close_is_half_a_close_for_the_program_too() {
    let gate = Gate::new().toml(&shell("wc -c; echo all", "")).start();
    let client = Stunnel::client(gate.address("tls"), "");
    let plain = Plain::connect(client.address());
    plain.send(b"seven..");
    plain.shut();
    let (bytes, ending) = plain.rest();
    assert_eq!((String::from_utf8(bytes).unwrap().as_str(), ending), ("7\nall\n", Ending::Fin));
}

#[test]
fn a_program_inherits_three_descriptors_and_no_more() {
    // What the shell leaves open is none of the program's business either.
    let gate = Gate::new()
        .shell("exec 7</dev/null 9>/dev/null")
        .toml(&shell("ls -C -w 200 /proc/$$/fd; ls -l /proc/$$/fd/0 | grep -c socket:; :", ""))
        .start();
    // A second session is under way meanwhile: its sockets are none of the program's either.
    let other = Stunnel::client(gate.address("tls"), "");
    let other = Plain::connect(other.address());
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
    let gate = Gate::new()
        .shell("export REMOTE_HOST=left.over")
        .conf("x.conf", &format!("{}PSKsecrets = psk.txt\n", section(ours)), None)
        .start();
    let stunnel = Stunnel::server_with(theirs, &section(theirs));
    let ask = |to, port: u16| {
        let arguments = ["-bind".to_owned(), format!("127.0.0.1:{port}"), "-quiet".to_owned()];
        let client = OpensslClient::start(to, psk().into_iter().chain(arguments));
        client.wait_for("REMOTE_PORT", PATIENCE);
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
        let gate = Gate::new().file("s.sh", "echo aloud; echo in confidence >&2\n").conf(
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
        let gate = Gate::new().toml(&text).start();
        let client = Stunnel::client(gate.address("tls"), "");
        Plain::connect(client.address()).end();
        let line = gate.wait_logged("cannot be run");
        assert!(line.contains(path) && line.contains(why), "{line}");
    }
}

#[test]
fn nothing_is_run_for_a_stranger() {
    for tls in Tls::BOTH {
        let gate = Gate::new().toml(&shell("echo > came; cat", tls.toml())).start();
        let came = gate.folder().join("came");
        let wrong = psk_of(IDENTITY, OTHER_KEY);
        assert!(OpensslClient::start(gate.address("tls"), wrong).alert().is_some());
        gate.wait_logged("refused");
        assert!(!came.exists());
        let client = Stunnel::client(gate.address("tls"), "");
        Plain::connect(client.address()).echo(b"with the key it is");
        assert!(came.exists());
    }
}

#[test]
fn a_program_outlives_its_session_and_is_taken_note_of() {
    let gate = Gate::new()
        .toml(&shell("exec <&- >&-; while [ ! -e go ]; do sleep 0.02; done; echo > done", ""))
        .start();
    // Kept until the session is over: it has a close_notify of its own to send.
    let client = Stunnel::client(gate.address("tls"), "");
    let plain = Plain::connect(client.address());
    plain.shut();
    assert_eq!(plain.rest().1, Ending::Fin);
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
    until("no child to be left", PATIENCE, || children().trim().is_empty().then_some(()));
}

/// As ssh's ProxyCommand: the program is the way to the server, and TLS goes through it.
#[test]
fn a_client_s_program_carries_tls() {
    let backend = Backend::echo();
    let (ours, theirs) = (free_port(), free_port());
    let folder = Gate::new();
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
        let plain = Plain::connect(to);
        plain.echo(b"all the way");
        plain.shut();
        assert_eq!(plain.rest(), (Vec::new(), Ending::Fin));
    }
}
