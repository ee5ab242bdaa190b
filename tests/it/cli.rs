//! The command line, apart from what it runs.

use std::net::TcpListener;

use crate::harness::process::{Finished, pskgate};
use crate::harness::{KEY, Process, PskgateBuilder, server_toml};

fn said(done: &Finished) -> String {
    format!("{}{}", done.out, done.err)
}

#[test]
fn version_names_the_program_and_its_openssl() {
    for argument in ["version", "--version"] {
        let done = pskgate(PskgateBuilder::new().folder(), &[argument]);
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert!(
            done.out.contains(&format!("pskgate {}", env!("CARGO_PKG_VERSION"))),
            "{}",
            done.out
        );
        assert!(done.out.contains("OpenSSL 3.") || done.out.contains("OpenSSL 4."), "{}", done.out);
    }
}

#[test]
fn help_names_every_command() {
    let done = pskgate(PskgateBuilder::new().folder(), &["--help"]);
    assert_eq!(done.code, Some(0));
    for command in [
        "run", "check", "doctor", "explain", "status", "sessions", "reload", "kick", "keygen",
        "keys", "generate", "demo", "version", "server", "client", "init",
    ] {
        assert!(done.out.contains(command), "`{command}` is not in: {}", done.out);
    }
}

/// EX_USAGE of sysexits.h.
const USAGE: i32 = 64;

#[test]
fn what_is_not_a_command_is_refused_with_the_usage() {
    for arguments in [&["--no-such-option"][..], &["kick"], &["keygen"], &["keys"]] {
        let done = pskgate(PskgateBuilder::new().folder(), arguments);
        assert_eq!(done.code, Some(USAGE), "{arguments:?}: {}", said(&done));
        assert!(done.err.contains("Usage"), "{arguments:?}: {}", said(&done));
    }
}

#[test]
fn without_a_file_the_default_one_is_meant() {
    let default = "/etc/pskgate/pskgate.toml";
    let exists = std::path::Path::new(default).exists();
    assert!(!exists, "this test needs a machine that has no {default}");
    for command in ["run", "check"] {
        let done = pskgate(PskgateBuilder::new().folder(), &[command]);
        assert_eq!(done.code, Some(66), "{}", said(&done));
        assert!(done.err.contains(default), "{}", said(&done));
    }
}

#[test]
fn the_demo_works() {
    let done = pskgate(PskgateBuilder::new().folder(), &["demo"]);
    assert_eq!(done.code, Some(0), "{}", said(&done));
    assert!(!done.out.is_empty(), "it says what it did");
    assert!(said(&done).contains("TLSv1.3"), "it shows what was negotiated: {}", said(&done));
    assert!(done.err.is_empty() && !done.out.contains('\x1b'), "nothing is drawn in a pipe");
}

#[test]
fn the_demo_shows_a_bar_on_a_terminal_and_takes_it_away() {
    let folder = PskgateBuilder::new();
    let line = format!("{} demo", env!("CARGO_BIN_EXE_pskgate"));
    let mut script = std::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script.current_dir(folder.folder()).env("LC_ALL", "C");
    let mut screen = Process::spawn("script", "the Debian package bsdutils", &mut script);
    assert_eq!(screen.wait(std::time::Duration::from_secs(600)).code(), Some(0));
    let out = screen.out();
    assert!(out.contains("\rTLS 1.3  [") && out.contains("B/s back\x1b[K"), "{out:?}");
    assert!(out.contains("\r\x1b[KTLS 1.3: TLSv1.3"), "the result stands in its place: {out:?}");
}

#[test]
fn check_takes_a_good_file_without_binding_its_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = server_toml("127.0.0.1:3000", "").replace("127.0.0.1:0", &address.to_string());
    let gate = PskgateBuilder::new().toml(&text);
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}", said(&done));
    assert!(!said(&done).contains(KEY));
}

#[test]
fn check_names_every_mistake_of_a_file_at_once_with_its_place() {
    let text = "[services.plc]\nmode = \"server\"\nacept = \"127.0.0.1:3001\"\nconnect = \"127.0.0.1:70000\"\n\
                psk-secrets = \"no-such-file.txt\"\nhandshake-timeout = \"ten\"\n";
    let gate = PskgateBuilder::new().toml(text);
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert!(done.code.is_some_and(|code| code != 0 && code != USAGE), "{:?}", done.code);
    let all = said(&done);
    for (line, wrong) in [(3, "acept"), (4, "70000"), (6, "ten")] {
        assert!(
            all.contains(&format!("pskgate.toml:{line}")),
            "line {line} ({wrong}) is not named in: {all}"
        );
        assert!(all.contains(wrong), "`{wrong}` is not in: {all}");
    }
    assert!(all.contains("accept"), "the nearest name is offered: {all}");
}

#[test]
fn check_names_a_secrets_file_that_is_missing() {
    let gate = PskgateBuilder::new()
        .toml(&server_toml("127.0.0.1:9", "").replace("psk.txt", "no-such-file.txt"));
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert!(done.code.is_some_and(|code| code != 0));
    assert!(said(&done).contains("no-such-file.txt"), "{}", said(&done));
}

#[test]
fn check_names_the_mistakes_of_a_stunnel_conf() {
    let text = "[plc]\naccept = 3001\nconect = 3000\nPSKsecrets = psk.txt\nTIMEOUTidle = long\n";
    let gate = PskgateBuilder::new().file("stunnel.conf", text);
    let done = pskgate(gate.folder(), &["check", "stunnel.conf"]);
    assert!(done.code.is_some_and(|code| code != 0));
    let all = said(&done);
    for (line, wrong) in [(3, "conect"), (5, "long")] {
        assert!(
            all.contains(&format!("stunnel.conf:{line}")),
            "line {line} ({wrong}) is not named in: {all}"
        );
    }
}

#[test]
fn the_format_can_be_said_when_the_name_does_not_tell() {
    let gate = PskgateBuilder::new().file("tunnel.txt", &server_toml("127.0.0.1:9", ""));
    assert_eq!(pskgate(gate.folder(), &["check", "tunnel.txt", "--format", "toml"]).code, Some(0));
    assert_ne!(
        pskgate(gate.folder(), &["check", "tunnel.txt"]).code,
        Some(0),
        "any other name is a stunnel.conf"
    );
}

#[test]
fn one_key_at_both_ends_of_one_file_is_refused() {
    let text = format!(
        "{}\n[services.other]\nmode = \"client\"\naccept = \"127.0.0.1:0\"\nconnect = \"127.0.0.1:9\"\n\
         psk-identity = \"client1\"\npsk-secrets = \"psk.txt\"\n",
        server_toml("127.0.0.1:9", "")
    );
    let gate = PskgateBuilder::new().toml(&text);
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert!(
        done.code.is_some_and(|code| code != 0),
        "a peer could be made to talk to itself: {}",
        said(&done)
    );
    assert!(said(&done).contains("client1"), "{}", said(&done));
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_exit_code_is_not_0() {
    for command in ["run", "check"] {
        let done = pskgate(PskgateBuilder::new().folder(), &[command, "no-such-file.toml"]);
        assert!(done.code.is_some_and(|code| code != 0));
        assert!(done.err.contains("no-such-file.toml"), "{}", said(&done));
    }
}
