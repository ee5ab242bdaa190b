//! Link-local addresses in the log, as stunnel 5.68 writes them.

use std::process::Command;

use crate::harness::stage::need_root;
use crate::harness::{
    IDENTITY, KEY, Process, PskgateBuilder, WAIT_TIMEOUT, free_port, secret, until, write_private,
};

/// Runs a program in a network of its own, whose loopback has a link-local address.
const ALONE: &str = "exec unshare --net sh -c 'ip link set lo up && ip addr add fe80::1/64 dev lo nodad && \
                     exec \"$@\"' sh";

/// Connects in the network of a process.
fn connect(id: u32, port: u16) {
    let mut command = Command::new("nsenter");
    command.args(["--net", "--target", &id.to_string(), "python3", "-c"]);
    command.arg(format!("import socket; socket.create_connection(('fe80::1%lo', {port})).recv(1)"));
    let _ = command.output().expect("the Debian packages util-linux and python3");
}

/// What the lines say of addresses, without the ports that the system chose.
fn said(log: &str, ports: [u16; 3]) -> Vec<String> {
    let phrases = [
        "bound to ",
        "accepted connection from ",
        "s_connect: connecting ",
        "s_connect: connected ",
        "connected remote server from ",
        "s_connect: connect ",
    ];
    let mut found: Vec<String> = Vec::new();
    for line in log.lines() {
        let Some((_, at)) = phrases.iter().find_map(|phrase| line.split_once(phrase)) else {
            continue;
        };
        let phrase = phrases.iter().find(|phrase| line.contains(**phrase)).expect("just found");
        let port = at.rsplit(':').find_map(|part| part.trim().parse::<u16>().ok());
        let shown = match port.filter(|port| !ports.contains(port)) {
            Some(port) => at.replace(&format!(":{port}"), ":PORT"),
            None => at.to_owned(),
        };
        found.push(format!("{phrase}{shown}"));
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn link_local_addresses_are_logged_as_stunnel_logs_them() {
    need_root();
    let ports = [free_port(), free_port(), free_port()];
    let [plain, tls, nobody] = ports;
    let text = format!(
        "debug = 6\n\
         [one]\nclient = yes\naccept = fe80::1%lo:{plain}\nconnect = fe80::1%lo:{tls}\nPSKsecrets = psk.txt\n\
         [two]\naccept = fe80::1%lo:{tls}\nconnect = fe80::1%lo:{nobody}\nPSKsecrets = psk.txt\n"
    );
    let folder = tempfile::tempdir().expect("a folder");
    write_private(&folder.path().join("psk.txt"), &secret(IDENTITY, KEY));
    write_private(
        &folder.path().join("x.conf"),
        &format!("foreground = yes\nsyslog = no\npid =\n{text}"),
    );
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{ALONE} stunnel4 x.conf")]).current_dir(&folder);
    let theirs = Process::spawn("stunnel", "stunnel4", &mut command);
    theirs.wait_for("Accepting new connections", WAIT_TIMEOUT);
    connect(theirs.id(), plain);
    theirs.wait_for("s_connect: connect ", WAIT_TIMEOUT);
    let expected = said(&theirs.text(), ports);
    assert_eq!(expected.len(), 8, "{expected:#?}");
    assert!(expected.iter().all(|line| line.contains("fe80::1%lo:")), "{expected:#?}");

    let ours = PskgateBuilder::new()
        .conf("x.conf", &text, None)
        .shell(&format!("{ALONE} \"$@\""))
        .launch();
    ours.wait_logged("Accepting new connections");
    connect(ours.id(), plain);
    ours.wait_logged("s_connect: connect ");
    until("the same lines", WAIT_TIMEOUT, || (said(&ours.log(), ports) == expected).then_some(()));
}
