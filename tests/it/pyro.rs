//! Beremiz' own transport: Pyro 4 and Pyro 5 through two ends of pskgate.

use std::time::{Duration, Instant};

use crate::harness::{
    Process, Pskgate, PskgateBuilder, WAIT_TIMEOUT, client_toml, local, plc, server_toml,
};

/// A daemon behind two ends.
struct Tunnel {
    _daemon: Process,
    server: Pskgate,
    client: Pskgate,
}

fn tunnel(version: &str) -> Tunnel {
    let daemon = plc(&[version, "serve"]);
    let line = daemon.wait_for("READY ", WAIT_TIMEOUT);
    let port = line.trim_start_matches("READY ").trim().parse().expect("a port after READY");
    let server = PskgateBuilder::new().toml(&server_toml(local(port), "")).start();
    let client = PskgateBuilder::new().toml(&client_toml(server.address("tls"), "")).start();
    Tunnel { _daemon: daemon, server, client }
}

impl Tunnel {
    fn call(&self, version: &str, command: &str, argument: &str) {
        let port = self.client.address("plain").port().to_string();
        let mut caller = plc(&[version, command, &port, argument]);
        wait_while_it_gets_on(&mut caller);
        let status = caller.wait(WAIT_TIMEOUT);
        assert!(status.success(), "{command} with Pyro {version}: {}", caller.text());
        assert!(caller.out().contains(&format!("DONE {command}")), "{}", caller.text());
        self.server.wait_logged("session closed");
    }
}

/// Waits for the end of a caller that says how far it is: what hangs gets no further, and what is slow
/// does.
fn wait_while_it_gets_on(caller: &mut Process) {
    let (mut said, mut since) = (0, Instant::now());
    while caller.ended().is_none() {
        let now = caller.out().len();
        if now != said {
            (said, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < WAIT_TIMEOUT, "it gets no further: {}", caller.text());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_ide_s_session_works_with_pyro_4_and_pyro_5() {
    for version in ["4", "5"] {
        tunnel(version).call(version, "session", "");
    }
}

#[test]
fn four_megabytes_go_each_way_with_pyro_4_and_pyro_5() {
    for version in ["4", "5"] {
        tunnel(version).call(version, "blob", "4000000");
    }
}

#[test]
fn ten_thousand_calls_are_answered_by_pyro_4() {
    tunnel("4").call("4", "calls", "10000");
}

#[test]
fn ten_thousand_calls_are_answered_by_pyro_5() {
    tunnel("5").call("5", "calls", "10000");
}
