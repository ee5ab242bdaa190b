//! `when-full = "take-over-same-host"`: an identity that several people share, and who has moved.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crate::harness::two_hosts::ADDRESSES;
use crate::harness::{
    Pskgate, PskgateBuilder, Stopwatch, TwoHosts, WAIT_TIMEOUT, client_toml, server_toml,
};

const LIMITS: &str = "max-sessions = 1\nwhen-full = \"take-over-same-host\"\n";

/// An echo behind a Unix socket, which hosts do not part.
fn echo(at: &std::path::Path) {
    let listener = UnixListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut back = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut &stream, &mut back);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
        }
    });
}

fn client_on(host: &str) -> Pskgate {
    let toml =
        client_toml(format!("{}:3001", ADDRESSES[0]), "").replace("127.0.0.1:0", "unix:door.sock");
    PskgateBuilder::new().toml(&toml).on(host).start()
}

fn connect(client: &Pskgate) -> UnixStream {
    let stream = UnixStream::connect(client.folder().join("door.sock")).unwrap();
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    stream
}

/// Whether what is sent comes back.
fn echoes(mut stream: &UnixStream) -> bool {
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut answer).is_ok()
}

#[test]
fn who_has_moved_gets_in_when_the_old_place_is_dead_and_nobody_else_is_thrown_out() {
    let cable = TwoHosts::new();
    let gate = PskgateBuilder::new();
    echo(&gate.folder().join("backend.sock"));
    let toml = server_toml("unix:backend.sock", LIMITS)
        .replace("127.0.0.1:0", &format!("{}:3001", ADDRESSES[0]));
    let server = gate.toml(&toml).on(&cable.hosts[0]).start();
    let (there, here) = (client_on(&cable.hosts[1]), client_on(&cable.hosts[0]));

    let first = connect(&there);
    assert!(echoes(&first));
    let again = connect(&there);
    assert!(echoes(&again), "its own host takes its place at once");
    assert!(!echoes(&first), "which it has lost");

    // Another host with the same key, while the first one lives.
    let watch = Stopwatch::start();
    let other = connect(&here);
    assert!(!echoes(&other), "two engineers share the key");
    watch.expect_within(Duration::from_secs(5));
    assert!(echoes(&again), "and the first one works on");
    server.wait_logged("sessions of this service are open");

    cable.cut();
    let watch = Stopwatch::start();
    let other = connect(&here);
    assert!(echoes(&other), "nothing is heard of the old place: {}", server.log());
    let waited = watch.lasted();
    assert!(waited > Duration::from_secs(4), "a living peer would have had its time: {waited:?}");
    watch.expect_within(Duration::from_secs(9));
}
