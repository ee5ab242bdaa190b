//! The recipe of docs/beremiz.md by which each engineer has a key and can be removed alone, played through with
//! a runtime that hands its own key to everybody who connects.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use crate::harness::openssl::psk_of;
use crate::harness::process::pskgate;
use crate::harness::{
    KEY, OTHER_KEY, OpensslClient, Pskgate, PskgateBuilder, Tls, WAIT_TIMEOUT, root, secret, until,
    write_private,
};

const RUNTIME: &str = "PLC1";
const RUNTIME_KEY: &str = "cnVudGltZSBrZXkgdGhhdCBldmVyeSBJREUgaXMgdG9sZCB3aGVuIGl0IGNvbm5l";

/// As GetPLCID answers: each IDE that connects is told the key.
fn runtime() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(format!("{RUNTIME}:{RUNTIME_KEY}\n").as_bytes());
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut std::io::sink()));
        }
    });
    address
}

/// The configuration under a heading of the page, with this test's addresses.
fn recipe(heading: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/beremiz.md")).unwrap();
    let section = page.split_once(&format!("## {heading}\n")).expect("such a heading").1;
    let block = section.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    block
        .replace("accept = 3001", "accept = \"127.0.0.1:0\"")
        .replace("127.0.0.1:3000", &runtime().to_string())
}

fn ide(server: &Pskgate, tls: Tls, identity: &str, key: &str) -> OpensslClient {
    let mut arguments = vec![tls.flag().to_owned(), "-quiet".to_owned()];
    if tls == Tls::V12 {
        // As the IDE offers them.
        arguments.extend(["-cipher", "PSK"].map(str::to_owned));
    }
    arguments.extend(psk_of(identity, key));
    OpensslClient::start(server.address("beremiz"), arguments)
}

/// What the runtime told this IDE; none if it was not let in.
fn told(server: &Pskgate, tls: Tls, identity: &str, key: &str) -> Option<String> {
    let mut client = ide(server, tls, identity, key);
    until("an answer or an end", WAIT_TIMEOUT, || {
        let out = client.out();
        match out.ends_with('\n') {
            true => Some(Some(out.trim_end().to_owned())),
            false => client.ended().map(|_| None),
        }
    })
}

#[test]
fn a_removed_engineer_has_no_way_back() {
    let gate = PskgateBuilder::new().toml(&recipe("PYRO and ERPC"));
    let keys = secret("anna", KEY) + &secret("bert", OTHER_KEY);
    let server = gate.file("engineers.txt", &keys).start();
    let at_runtime = format!("{RUNTIME}:{RUNTIME_KEY}");
    assert_eq!(told(&server, Tls::V13, "anna", KEY).as_deref(), Some(at_runtime.as_str()));
    let mut working = ide(&server, Tls::V12, "anna", KEY);
    working.wait_for(RUNTIME, WAIT_TIMEOUT);

    let remove = ["keys", "remove", "anna", "--file", "engineers.txt"];
    assert_eq!(pskgate(server.folder(), &remove).code, Some(0));
    until("her session to end", WAIT_TIMEOUT, || working.ended());
    for tls in Tls::BOTH {
        for (identity, key) in [
            ("anna", KEY),
            ("anna", RUNTIME_KEY),
            (RUNTIME, RUNTIME_KEY),
            (RUNTIME, KEY),
            ("bert", KEY),
            ("bert", RUNTIME_KEY),
        ] {
            assert_eq!(told(&server, tls, identity, key), None, "{identity} in {}", tls.name());
        }
        assert!(told(&server, tls, "bert", OTHER_KEY).is_some(), "the others work on");
    }
}

/// The control: what the page recommended before.
#[test]
fn beside_the_runtimes_file_a_removed_engineer_comes_back_and_check_says_so() {
    let text =
        recipe("The key of the runtime").replace("\"psk.txt\"", "[\"psk.txt\", \"engineers.txt\"]");
    let gate = PskgateBuilder::new().toml(&text).file("engineers.txt", &secret("anna", KEY));
    write_private(&gate.folder().join("psk.txt"), format!("{RUNTIME}:{RUNTIME_KEY}").as_str());
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains("runtime-key-for-all"), "{}", done.err);
    let server = gate.file("empty", "").start();
    let remove = ["keys", "remove", "anna", "pskgate.toml"];
    assert_eq!(pskgate(server.folder(), &remove).code, Some(0));
    server.wait_logged("removed \"anna\"");
    assert_eq!(told(&server, Tls::V13, "anna", KEY), None);
    assert!(told(&server, Tls::V13, RUNTIME, RUNTIME_KEY).is_some(), "with what she was told");
}

#[test]
fn with_the_runtimes_key_alone_check_has_no_warning_but_what_the_file_deserves() {
    let gate = PskgateBuilder::new().toml(&recipe("The key of the runtime"));
    write_private(&gate.folder().join("psk.txt"), format!("{RUNTIME}:{RUNTIME_KEY}").as_str());
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert!(done.code == Some(0) && done.out.contains("nothing wrong"), "{}{}", done.out, done.err);
    assert!(done.err.contains("none of them can be removed alone"), "{}", done.err);
    let own = recipe("The key of the runtime").replace("take-over-same-host", "take-over-own");
    write_private(&gate.folder().join("pskgate.toml"), &own);
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert!(done.err.contains("shared-identity"), "{}", done.err);
}
