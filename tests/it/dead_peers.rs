//! Peers that go without a word: a cable is cut between two hosts.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crate::harness::two_hosts::ADDRESSES;
use crate::harness::{
    Pskgate, PskgateBuilder, Stopwatch, TwoHosts, WAIT_TIMEOUT, client_toml, server_toml, until,
};

/// Silence before the first probe, and three of them: 15 + 3 * 5 s, as a native file has it by default.
const FOUND: Duration = Duration::from_secs(30);
/// How often it is looked, and some more.
const LATE: Duration = Duration::from_secs(8);

struct Ends {
    cable: TwoHosts,
    server: Pskgate,
    client: Pskgate,
    backend: UnixListener,
}

impl Ends {
    /// Both plain sides are Unix sockets, which hosts do not part.
    fn new() -> Self {
        let cable = TwoHosts::new();
        let (server, client) = (PskgateBuilder::new(), PskgateBuilder::new());
        let backend = UnixListener::bind(server.folder().join("backend.sock")).expect("a backend");
        let toml = server_toml("unix:backend.sock", "")
            .replace("127.0.0.1:0", &format!("{}:3001", ADDRESSES[0]));
        let server = server.toml(&toml).on(&cable.hosts[0]).start();
        let toml = client_toml(format!("{}:3001", ADDRESSES[0]), "")
            .replace("127.0.0.1:0", "unix:door.sock");
        let client = client.toml(&toml).on(&cable.hosts[1]).start();
        Self { cable, server, client, backend }
    }

    /// A session, both of its plain sides, and what makes sure that it is there.
    fn session(&self) -> (UnixStream, UnixStream) {
        let mut near = UnixStream::connect(self.client.folder().join("door.sock")).expect("a door");
        let (mut far, _) = self.backend.accept().expect("a connection to the backend");
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(2 * WAIT_TIMEOUT)).expect("a limit");
        }
        let mut byte = [0];
        near.write_all(b"?").and_then(|()| far.read_exact(&mut byte)).expect("there");
        far.write_all(b"!").and_then(|()| near.read_exact(&mut byte)).expect("and back");
        (near, far)
    }
}

fn ended(gate: &Pskgate, sessions: usize) -> bool {
    gate.log().matches("session closed").count() >= sessions
}

#[test]
fn a_cut_cable_frees_idle_sessions_and_those_with_data_on_the_way_at_both_ends() {
    let ends = Ends::new();
    let _idle = ends.session();
    let (mut talker, _silent_far) = ends.session();
    let (_silent_near, mut answerer) = ends.session();
    ends.cable.cut();
    let watch = Stopwatch::start();
    // On its way for ever: a keepalive does not run while TCP sends these again.
    talker.write_all(b"anybody there?").expect("taken");
    answerer.write_all(b"here is the answer").expect("taken");
    for gate in [&ends.server, &ends.client] {
        until("all three sessions to end", 4 * FOUND, || ended(gate, 3).then_some(()));
        let lasted = watch.lasted();
        assert!(watch.is_within(FOUND + LATE), "it took {lasted:?}\n{}", gate.log());
        assert!(lasted > FOUND / 2, "after {lasted:?} already\n{}", gate.log());
    }
    for gate in [&ends.server, &ends.client] {
        gate.wait_logged("acknowledged nothing for");
    }
}

#[test]
fn a_peer_that_reads_nothing_for_longer_than_that_keeps_its_session_and_gets_every_byte() {
    const BULK: usize = 24 << 20;
    let ends = Ends::new();
    let (mut near, mut far) = ends.session();
    let sent: Vec<u8> = (0..BULK).map(|n| (n * 31 + (n >> 13)) as u8).collect();
    let expected = sent.clone();
    let writer = std::thread::spawn(move || {
        far.set_write_timeout(Some(4 * WAIT_TIMEOUT)).expect("a limit");
        far.write_all(&sent).expect("all of it is taken in the end");
    });
    // Longer than a dead peer is given; nothing else can tell the two apart.
    let start = Instant::now();
    until("the time of a dead peer to pass", 2 * FOUND, || {
        assert!(!ended(&ends.server, 1) && !ended(&ends.client, 1), "{}", ends.server.log());
        (start.elapsed() > FOUND + LATE).then_some(())
    });
    let mut got = vec![0; BULK];
    near.read_exact(&mut got).expect("it comes when it is read");
    assert!(got == expected, "bytes differ");
    writer.join().expect("written");
}
