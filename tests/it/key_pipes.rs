//! Keys that come from a pipe, which can be read once.

use rustix::process::Signal;

use crate::harness::stage::{StunnelFolder, client_of, echo_through, finish, section};
use crate::harness::{Backend, WAIT_TIMEOUT, free_port, until};

const GLOBAL: &str = "pid = pid.txt\noutput = log.txt\nsyslog = no\n";

#[test]
fn keys_from_a_pipe_are_read_once_and_outlive_reloads() {
    for (name, script) in [
        ("/dev/fd/3", "cat psk.txt | (exec 3<&0 </dev/null; exec \"$STUNNEL\" x.conf)"),
        ("/proc/self/fd/3", "cat psk.txt | (exec 3<&0 </dev/null; exec \"$STUNNEL\" x.conf)"),
        ("keys", "mkfifo -m 600 keys; cat psk.txt > keys & exec \"$STUNNEL\" x.conf"),
    ] {
        let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
        let text = section(port, &backend).replace("psk.txt", name);
        stage.file("x.conf", &format!("{GLOBAL}{text}"));
        let done = finish(&mut stage.shell(script));
        assert_eq!(done.code, Some(0), "{name}: {}", done.err);
        let daemon = stage.daemon();
        echo_through(&client_of(port));
        for _ in 0..2 {
            stage.reload("log.txt", || daemon.signal(Signal::HUP));
            echo_through(&client_of(port));
        }
        let log = stage.read("log.txt");
        let said = format!("{name} are read once: a reload keeps them, and nothing watches them");
        assert_eq!(log.matches(&said).count(), 3, "at the start and at each reload: {log}");
        assert!(!log.contains("cannot read") && !log.contains("holds no key"), "{log}");
        daemon.signal(Signal::TERM);
        daemon.wait_gone();
    }
}

#[test]
fn doctor_reads_a_pipe_once_and_does_not_wait_for_ever_for_its_writer() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    let text = section(port, &backend);
    let doctor = format!("\"{}\" doctor x.conf", env!("CARGO_BIN_EXE_pskgate"));
    stage.file("x.conf", &text.replace("psk.txt", "/dev/stdin"));
    let done = finish(&mut stage.shell(&format!("cat psk.txt | {doctor}")));
    assert!(
        done.out.contains("/dev/stdin: a pipe, which doctor reads as a start does"),
        "{}",
        done.out
    );
    assert!(done.out.contains("this service with itself"), "its keys were read: {}", done.out);
    assert!(!done.out.contains("holds no key"), "once: {}", done.out);
    stage.file("x.conf", &text.replace("psk.txt", "keys"));
    let done = finish(&mut stage.shell(&format!("mkfifo -m 600 keys; {doctor}")));
    let told = done.out.matches("nothing was written to the pipe within 10 s").count();
    assert_eq!(told, 1, "{}{}", done.out, done.err);
    assert!(done.out.contains("clock:"), "it goes on: {}", done.out);
}

#[test]
fn a_pipe_without_a_key_and_one_that_a_reload_would_have_to_read_are_refused() {
    let (stage, backend, port) = (StunnelFolder::new(), Backend::echo(), free_port());
    let text = format!("{GLOBAL}{}", section(port, &backend));
    stage.file("x.conf", &text.replace("psk.txt", "/dev/fd/3"));
    let script = ": | (exec 3<&0 </dev/null; exec \"$STUNNEL\" x.conf)";
    let done = finish(&mut stage.shell(script));
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.err.contains("/dev/fd/3 holds no key"), "{}", done.err);

    stage.file("x.conf", &text);
    let daemon = stage.background("x.conf");
    let done = finish(&mut stage.shell("mkfifo -m 600 keys"));
    assert_eq!(done.code, Some(0), "{}", done.err);
    stage.file("x.conf", &text.replace("psk.txt", "keys"));
    daemon.signal(Signal::HUP);
    let logged =
        || stage.read("log.txt").contains("a pipe is read at the start only").then_some(());
    until("the refusal", WAIT_TIMEOUT, logged);
    echo_through(&client_of(port));
    daemon.signal(Signal::TERM);
    daemon.wait_gone();
}
