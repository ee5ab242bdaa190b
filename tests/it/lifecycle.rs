//! Starting, ending, and running out of what the system gives.

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::backend::read_to_end;
use crate::harness::{
    Backend, ConnectionEnd, OpensslClient, PlainClient, Process, Pskgate, PskgateBuilder,
    Stopwatch, Stream, WAIT_TIMEOUT, client_toml, free_port, openssl, server_toml, until,
};

const TOTAL: u64 = 30_000_000;

/// So long that only a drain that ends before its time is seen by a test.
const LONG_DRAIN: &str = "10m";

/// Sends `TOTAL` bytes to whoever says a byte, then ends.
fn source(stream: &Stream) -> Backend {
    let sent = stream.clone();
    Backend::new(move |mut to| {
        to.read_exact(&mut [0]).ok()?;
        sent.send(to, TOTAL).ok()?;
        to.shutdown(Shutdown::Write).ok()?;
        Some(read_to_end(to))
    })
}

fn two_ends(backend: &Backend, drain: &str) -> [Pskgate; 2] {
    let head = format!("drain-timeout = \"{drain}\"\n");
    let server = PskgateBuilder::new()
        .toml(&format!("{head}{}", server_toml(backend.address(), "")))
        .start();
    let client = PskgateBuilder::new()
        .toml(&format!("{head}{}", client_toml(server.address("tls"), "")))
        .start();
    [server, client]
}

const NAMES: [&str; 2] = ["tls", "plain"];
const END: [usize; 2] = [0, 1];

fn wait_refused(address: SocketAddr) {
    until(&format!("{address} to be closed"), WAIT_TIMEOUT, || TcpStream::connect(address).err());
}

#[test]
fn a_transfer_in_progress_is_finished_after_sigterm_at_either_end() {
    for end in END {
        let stream = Stream::new(41);
        let backend = source(&stream);
        let mut gates = two_ends(&backend, LONG_DRAIN);
        let plain = PlainClient::connect(gates[1].address("plain"));
        plain.send(b"!");
        stream.receive(&plain.0, TOTAL / 10);
        let listener = gates[end].address(NAMES[end]);
        gates[end].signal(Signal::TERM);
        wait_refused(listener);
        assert_eq!(gates[end].process().ended(), None, "it stays for the session");
        stream.receive_slowly(&plain.0, TOTAL / 10, TOTAL, Duration::from_millis(1));
        assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Fin));
        plain.shut();
        assert_eq!(backend.wait_end(0).1, ConnectionEnd::Fin);
        assert_eq!(gates[end].exit_code(WAIT_TIMEOUT), Some(0));
    }
}

/// A session through which something goes for ever, so that no drain can wait for its end.
fn endless() -> Backend {
    let sent = Stream::new(42);
    Backend::new(move |to| {
        let mut at = 0;
        while sent.send_from(to, at, at + 1000).is_ok() {
            at += 1000;
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    })
}

/// Reads in a thread until the end, and says how it looked.
fn read_in_background(plain: PlainClient) -> std::thread::JoinHandle<ConnectionEnd> {
    std::thread::spawn(move || plain.end())
}

#[test]
fn the_drain_s_deadline_ends_what_goes_on_and_the_exit_code_is_0() {
    let backend = endless();
    let mut gates = two_ends(&backend, "1s");
    let plain = PlainClient::connect(gates[1].address("plain"));
    (&plain.0).read_exact(&mut [0; 1000]).unwrap();
    let reader = read_in_background(plain);
    let watch = Stopwatch::start();
    gates[1].signal(Signal::TERM);
    assert_eq!(gates[1].exit_code(WAIT_TIMEOUT), Some(0));
    let lasted = watch.lasted();
    assert!(lasted > Duration::from_millis(800), "it did not wait: {lasted:?}");
    watch.expect_within(Duration::from_secs(5));
    assert_eq!(reader.join().unwrap(), ConnectionEnd::Rst, "half an answer does not look whole");
}

/// Its next one could be that of the program that is started in this one's place.
#[test]
fn a_service_that_bears_one_session_does_not_wait_for_it_to_be_quiet() {
    let backend = endless();
    let limit = "max-sessions = 1";
    let toml =
        format!("drain-timeout = \"{LONG_DRAIN}\"\n{}", server_toml(backend.address(), limit));
    let mut server = PskgateBuilder::new().toml(&toml).start();
    let client = PskgateBuilder::new().toml(&client_toml(server.address("tls"), "")).start();
    let plain = PlainClient::connect(client.address("plain"));
    (&plain.0).read_exact(&mut [0; 1000]).unwrap();
    let _reader = read_in_background(plain);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(WAIT_TIMEOUT), Some(0), "{}", server.log());
}

#[test]
fn a_second_sigterm_ends_it_now_and_not_with_0() {
    let backend = endless();
    let mut gates = two_ends(&backend, LONG_DRAIN);
    let plain = PlainClient::connect(gates[1].address("plain"));
    (&plain.0).read_exact(&mut [0; 1000]).unwrap();
    let _reader = read_in_background(plain);
    let listener = gates[1].address("plain");
    gates[1].signal(Signal::TERM);
    wait_refused(listener);
    assert_eq!(gates[1].process().ended(), None, "it waits for the session");
    gates[1].signal(Signal::TERM);
    assert_ne!(gates[1].exit_code(WAIT_TIMEOUT), Some(0));
}

#[test]
fn a_silent_session_does_not_hold_up_the_end() {
    let backend = Backend::echo();
    let mut gates = two_ends(&backend, LONG_DRAIN);
    let plain = PlainClient::connect(gates[1].address("plain"));
    plain.echo(b"and then nothing");
    std::thread::sleep(Duration::from_millis(1300));
    assert_eq!(gates[1].terminate(), Some(0));
    assert_eq!(plain.end(), ConnectionEnd::Rst);
    assert_eq!(backend.wait_end(0).1, ConnectionEnd::Fin);
}

#[test]
fn either_signal_ends_an_idle_program_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let backend = Backend::echo();
        let mut gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
        gate.signal(signal);
        assert_eq!(gate.exit_code(WAIT_TIMEOUT), Some(0));
    }
}

#[test]
fn an_immediate_restart_finds_its_port() {
    let backend = Backend::echo();
    let port = free_port();
    let text =
        server_toml(backend.address(), "").replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    for round in 0..5 {
        let mut gate = PskgateBuilder::new().toml(&text).start();
        let mut client = OpensslClient::start(gate.address("tls"), openssl::psk());
        client.echo("the port is taken and used");
        gate.signal(Signal::TERM);
        if round % 2 == 0 {
            assert_eq!(gate.exit_code(WAIT_TIMEOUT), Some(0));
        } else {
            // The next one starts while this one is still going.
            let next = PskgateBuilder::new().toml(&text).start();
            drop(next);
        }
    }
}

#[test]
fn a_busy_port_is_named_and_the_exit_code_is_not_0() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = server_toml("127.0.0.1:9", "").replace("127.0.0.1:0", &address.to_string());
    let watch = Stopwatch::start();
    let mut gate = PskgateBuilder::new().toml(&text).launch();
    let code = gate.exit_code(WAIT_TIMEOUT);
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    let said = gate.err();
    assert!(said.contains(&address.to_string()), "the address is named: {said}");
    assert!(said.contains("in use"), "the reason is named: {said}");
    watch.expect_within(Duration::from_secs(10));
}

#[test]
fn running_out_of_descriptors_is_survived_quietly() {
    const LIMIT: u32 = 48;
    let backend = Backend::echo();
    let text = server_toml(
        backend.address(),
        "max-sessions = 1000\nmax-handshakes = 1000\nhandshake-timeout = \"120s\"",
    );
    let gate = PskgateBuilder::new().descriptors(LIMIT).toml(&text).start();
    let calm = gate.settled_descriptors();
    let crowd: Vec<PlainClient> =
        (0..100).map(|_| PlainClient::connect(gate.address("tls"))).collect();
    gate.wait_for_line("a line about descriptors", WAIT_TIMEOUT, |line| {
        line.contains("descriptor") || line.contains("open files")
    });

    let (cpu, start) = (gate.cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let (used, lasted) = (gate.cpu() - cpu, start.elapsed());
    assert!(used * 10 < lasted, "it burned {used:?} of {lasted:?} while it was out of descriptors");
    let lines = gate.log().lines().count();
    assert!(lines < 20, "it wrote {lines} lines:\n{}", gate.log());

    drop(crowd);
    let mut friend = OpensslClient::start(gate.address("tls"), openssl::psk());
    friend.echo("it serves again");
    assert_eq!(backend.accepted(), 1);
    friend.signal(Signal::KILL);
    backend.wait_end(0);
    until("every descriptor to be given back", WAIT_TIMEOUT, || {
        (gate.descriptors() <= calm).then_some(())
    });
}

#[test]
fn a_hangup_during_the_drain_changes_nothing() {
    let backend = endless();
    let mut gates = two_ends(&backend, "10s");
    let plain = PlainClient::connect(gates[1].address("plain"));
    let read_some = || (&plain.0).read_exact(&mut [0; 5000]).expect("the session goes on");
    read_some();
    let listener = gates[0].address("tls");
    gates[0].signal(Signal::TERM);
    wait_refused(listener);
    gates[0].signal(Signal::HUP);
    read_some();
    read_some();
    assert_eq!(gates[0].process().ended(), None, "it still waits for the session");
    let reader = read_in_background(plain);
    assert_eq!(gates[0].exit_code(WAIT_TIMEOUT), Some(0));
    assert_eq!(reader.join().unwrap(), ConnectionEnd::Rst);
}

#[test]
fn a_second_start_says_at_once_who_has_the_port_and_takes_it_when_it_is_free() {
    let text = server_toml("127.0.0.1:9", "")
        .replace("127.0.0.1:0", &format!("127.0.0.1:{}", free_port()));
    let first = PskgateBuilder::new().toml(&text).start();
    let told = format!("in use by pskgate (pid {})", first.id());
    let gate = PskgateBuilder::new().toml(&text);
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pskgate"));
        command.args(["run", "pskgate.toml"]).current_dir(gate.folder());
        Process::spawn("the second program", "cargo", &mut command)
    };
    let mut second = start();
    second.wait_for(&told, WAIT_TIMEOUT);
    let ended = second.wait(WAIT_TIMEOUT);
    assert_eq!(ended.code(), Some(69), "{}", second.text());

    let third = start();
    third.wait_for(&told, WAIT_TIMEOUT);
    first.signal(Signal::KILL);
    third.wait_for("listening on", WAIT_TIMEOUT);
}
