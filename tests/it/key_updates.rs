//! TLS 1.3's key updates: a peer's that are many, and pskgate's own.

use std::net::TcpListener;

use crate::harness::updates::Updater;
use crate::harness::{Backend, Ending, Gate, Plain, client_toml, server_toml};

/// What the log says of a session that was cut for this.
const FLOOD: &str = "more than 32 key updates";

#[test]
fn a_client_that_only_changes_keys_is_cut_and_its_backend_sees_a_fin() {
    let backend = Backend::sink();
    let gate = Gate::new().toml(&server_toml(backend.address(), "")).start();
    let mut peer = Updater::connect(gate.address("tls"));
    peer.write(b"before");
    gate.wait_logged("session opened");
    peer.hold();
    for number in 0..1000 {
        peer.update(number % 2 == 1);
    }
    // The rest of it may meet a closed socket.
    let _ = peer.send_held();
    let line = gate.wait_logged(FLOOD);
    assert!(line.contains(" warning "), "{line}");
    assert!(peer.is_gone());
    assert_eq!(backend.wait_end(0), (b"before".to_vec(), Ending::Fin));
}

#[test]
fn a_server_that_only_changes_keys_is_cut_and_the_application_sees_a_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("its address");
    let gate = Gate::new().toml(&client_toml(to, "")).start();
    let plain = Plain::connect(gate.address("plain"));
    let mut peer = Updater::accept(&listener);
    plain.send(b"before");
    assert_eq!(peer.read(6), b"before");
    peer.hold();
    (0..1000).for_each(|_| peer.update(false));
    let _ = peer.send_held();
    gate.wait_logged(FLOOD);
    assert_eq!(plain.end(), Ending::Rst);
}

/// Data in either direction is what tells a peer that works from one that only makes work.
#[test]
fn a_peer_that_changes_keys_between_its_data_is_served() {
    let backend = Backend::echo();
    let gate = Gate::new().toml(&server_toml(backend.address(), "")).start();
    let mut peer = Updater::connect(gate.address("tls"));
    for round in 0..100_u8 {
        peer.hold();
        // 32 are not too many.
        for _ in 0..32 {
            peer.update(round % 2 == 0);
        }
        peer.write(&[round; 3]);
        peer.send_held().expect("sent");
        assert_eq!(peer.read(3), [round; 3]);
    }
    peer.hold();
    for round in 0..1000_u32 {
        peer.update(false);
        peer.write(&round.to_be_bytes());
    }
    peer.send_held().expect("sent");
    let wanted: Vec<u8> = (0..1000_u32).flat_map(u32::to_be_bytes).collect();
    assert!(peer.read(wanted.len()) == wanted, "the echo differs");
    assert!(!gate.log().contains(FLOOD), "{}", gate.log());
}
