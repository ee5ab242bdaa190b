//! What a tunnel carries, and how each connection ends: the table of endings in docs/DESIGN.md.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::backend::read_to_end;
use crate::harness::{
    Backend, ConnectionEnd, Pair, PlainClient, Pskgate, PskgateBuilder, Stopwatch, Stream,
    WAIT_TIMEOUT, WireEnd, client_toml, local, server_toml, until,
};

const MEGABYTE: u64 = 1_000_000;

/// Two ends without a wire between them.
fn two_ends(backend: &Backend) -> (Pskgate, Pskgate) {
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let client = PskgateBuilder::new().toml(&client_toml(server.address("tls"), "")).start();
    (server, client)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    ClientFirst,
    BackendFirst,
    Both,
}

/// 100 MB up and 100 MB down at the same time.
fn both_ways(order: Order) {
    const TOTAL: u64 = 100 * MEGABYTE;
    let (up, down) = (Stream::new(11), Stream::new(12));
    let (expected, sent) = (up.clone(), down.clone());
    let backend = Backend::new(move |stream| {
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                sent.send(stream, TOTAL).expect("the tunnel takes what the backend sends");
                if order != Order::ClientFirst {
                    stream.shutdown(Shutdown::Write).unwrap();
                }
            });
            expected.receive(stream, TOTAL);
            let end = read_to_end(stream);
            sender.join().expect("everything was sent");
            if order == Order::ClientFirst {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            Some(end)
        })
    });
    let (server, client) = two_ends(&backend);
    let plain = PlainClient::connect(client.address("plain"));
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            up.send(&plain.0, TOTAL).expect("the tunnel takes what the client sends");
            if order != Order::BackendFirst {
                plain.shut();
            }
        });
        down.receive(&plain.0, TOTAL);
        assert_eq!(
            plain.rest(),
            (Vec::new(), ConnectionEnd::Fin),
            "nothing more comes, and the end is orderly"
        );
        sender.join().expect("everything was sent");
        if order == Order::BackendFirst {
            plain.shut();
        }
    });
    assert_eq!(backend.wait_end(0), (Vec::new(), ConnectionEnd::Fin));
    for gate in [&server, &client] {
        gate.wait_logged("100000000 bytes up, 100000000 bytes down");
    }
}

#[test]
fn a_hundred_megabytes_go_both_ways_when_the_client_ends_first() {
    both_ways(Order::ClientFirst);
}

#[test]
fn a_hundred_megabytes_go_both_ways_when_the_backend_ends_first() {
    both_ways(Order::BackendFirst);
}

#[test]
fn a_hundred_megabytes_go_both_ways_when_both_end_at_once() {
    both_ways(Order::Both);
}

/// Waits until a counter that was going up stands still: the sender is held back.
fn wait_stuck(counter: &AtomicU64, total: u64) {
    let mut last = (0, Instant::now());
    until("the sender to be held back", Duration::from_secs(60), || {
        let now = counter.load(Ordering::Acquire);
        assert!(now < total, "the sender got rid of all {total} bytes although nobody read them");
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > Duration::from_millis(700)).then_some(())
    });
}

/// Sends in pieces and counts what was taken.
fn send_counting(stream: &Stream, to: &TcpStream, from: u64, end: u64, counter: &AtomicU64) {
    let mut offset = from;
    while offset < end {
        let next = (offset + 16_384).min(end);
        if let Err(error) = stream.send_from(to, offset, next) {
            panic!("the sender was cut after {offset} bytes: {error}");
        }
        counter.store(next, Ordering::Release);
        offset = next;
    }
}

const HELD: u64 = 64 * MEGABYTE;
/// Has buffers made and their pages touched, so that the growth after it is growth.
const WARM: u64 = 4 * MEGABYTE;
const GROWTH: u64 = 4 * 1024 * 1024;

fn assert_growth(before: [u64; 2], gates: [&Pskgate; 2]) {
    for ((gate, before), name) in gates.iter().zip(before).zip(["server end", "client end"]) {
        let grown = gate.anonymous().saturating_sub(before);
        assert!(grown < GROWTH, "the {name} grew by {grown} bytes while a reader was slow");
    }
}

#[test]
fn a_slow_client_holds_the_backend_back_and_costs_no_memory() {
    let down = Stream::new(21);
    let (sent, counter) = (down.clone(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&counter);
    let backend = Backend::new(move |mut stream| {
        sent.send(stream, WARM).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        send_counting(&sent, stream, WARM, HELD, &count);
        stream.shutdown(Shutdown::Write).unwrap();
        Some(read_to_end(stream))
    });
    let (server, client) = two_ends(&backend);
    let plain = PlainClient::connect(client.address("plain"));
    down.receive(&plain.0, WARM);
    let before = [server.anonymous(), client.anonymous()];
    plain.send(b"!");
    wait_stuck(&counter, HELD);
    assert_growth(before, [&server, &client]);
    down.receive_slowly(&plain.0, WARM, HELD, Duration::ZERO);
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Fin));
    plain.shut();
    assert_eq!(backend.wait_end(0).1, ConnectionEnd::Fin);
    assert_growth(before, [&server, &client]);
}

#[test]
fn a_slow_backend_holds_the_client_back_and_costs_no_memory() {
    let up = Stream::new(22);
    let expected = up.clone();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::new(move |mut stream| {
        expected.receive(stream, WARM);
        stream.write_all(b"!").unwrap();
        wait.lock().unwrap().recv().unwrap();
        expected.receive_slowly(stream, WARM, HELD, Duration::ZERO);
        Some(read_to_end(stream))
    });
    let (server, client) = two_ends(&backend);
    let plain = PlainClient::connect(client.address("plain"));
    plain.0.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    up.send(&plain.0, WARM).unwrap();
    (&plain.0).read_exact(&mut [0]).expect("the backend is ready");
    let before = [server.anonymous(), client.anonymous()];
    let counter = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            send_counting(&up, &plain.0, WARM, HELD, &counter);
            plain.shut();
        });
        wait_stuck(&counter, HELD);
        assert_growth(before, [&server, &client]);
        go.send(()).unwrap();
    });
    assert_eq!(backend.wait_end(0), (Vec::new(), ConnectionEnd::Fin));
    assert_growth(before, [&server, &client]);
}

#[test]
fn an_answer_that_comes_two_seconds_after_the_half_close_arrives_whole() {
    let answer = Stream::new(31);
    let sent = answer.clone();
    let backend = Backend::new(move |stream| {
        let question = read_to_end(stream);
        std::thread::sleep(Duration::from_secs(2));
        sent.send(stream, MEGABYTE).unwrap();
        Some(question)
    });
    let pair = Pair::new(&backend);
    let plain = pair.connect();
    plain.send(b"the whole question");
    plain.shut();
    answer.receive(&plain.0, MEGABYTE);
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Fin));
    assert_eq!(backend.wait_end(0), (b"the whole question".to_vec(), ConnectionEnd::Fin));
}

#[test]
fn a_reader_that_takes_its_time_after_the_end_gets_every_byte() {
    let answer = Stream::new(32);
    let sent = answer.clone();
    let backend = Backend::new(move |stream| {
        sent.send(stream, MEGABYTE / 2).unwrap();
        Some((Vec::new(), ConnectionEnd::Fin))
    });
    let (server, client) = two_ends(&backend);
    let plain = PlainClient::connect(client.address("plain"));
    plain.shut();
    for gate in [&server, &client] {
        // The tunnel is through with it; the bytes are in the kernel's hands.
        gate.wait_logged("session closed");
    }
    answer.receive_slowly(&plain.0, 0, MEGABYTE / 2, Duration::from_millis(10));
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Fin));
}

/// A session that has carried something in both directions.
fn established(backend: &Backend) -> (Pair, PlainClient) {
    let pair = Pair::new(backend);
    let plain = pair.connect();
    plain.echo(b"established");
    (pair, plain)
}

/// Echoes eleven bytes, then reads to the end: what is recorded is how the end looked.
fn watcher() -> Backend {
    Backend::new(|mut stream| {
        let mut said = [0; 11];
        stream.read_exact(&mut said).ok()?;
        stream.write_all(&said).ok()?;
        Some(read_to_end(stream))
    })
}

#[test]
fn a_peer_that_dies_without_close_notify_leaves_the_backend_a_fin() {
    let backend = watcher();
    let (pair, plain) = established(&backend);
    plain.send(b"the last words");
    let (mut sent, mut since) = (0, Instant::now());
    until("the last words to cross", crate::harness::WAIT_TIMEOUT, || {
        let now = pair.wire.carried_towards(WireEnd::Server);
        if now != sent {
            (sent, since) = (now, Instant::now());
        }
        (sent > 0 && since.elapsed() > Duration::from_millis(200)).then_some(())
    });
    pair.wire.finish_towards(WireEnd::Server);
    assert_eq!(backend.wait_end(0).1, ConnectionEnd::Fin);
    pair.server.wait_logged("session closed");
}

#[test]
fn a_peer_that_resets_leaves_the_backend_a_fin() {
    let backend = watcher();
    let (pair, _plain) = established(&backend);
    pair.wire.reset_towards(WireEnd::Server);
    assert_eq!(backend.wait_end(0), (Vec::new(), ConnectionEnd::Fin));
    pair.server.wait_logged("session closed");
}

#[test]
fn a_spoiled_record_leaves_the_backend_a_fin_and_not_the_bytes() {
    let backend = watcher();
    let (pair, plain) = established(&backend);
    pair.wire.spoil_towards(WireEnd::Server);
    plain.send(b"spoiled on the way");
    assert_eq!(backend.wait_end(0), (Vec::new(), ConnectionEnd::Fin));
    pair.server.wait_logged("session closed");
    assert_eq!(plain.end(), ConnectionEnd::Rst, "and the sender learns that something broke");
}

#[test]
fn a_server_end_that_dies_without_close_notify_is_a_reset_for_the_application() {
    let backend = watcher();
    let (pair, plain) = established(&backend);
    pair.wire.finish_towards(WireEnd::Client);
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Rst));
    pair.client.wait_logged("session closed");
}

#[test]
fn a_server_end_that_resets_is_a_reset_for_the_application() {
    let backend = watcher();
    let (pair, plain) = established(&backend);
    pair.wire.reset_towards(WireEnd::Client);
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Rst));
}

#[test]
fn a_spoiled_record_is_a_reset_for_the_application() {
    let backend = Backend::echo();
    let (pair, plain) = established(&backend);
    pair.wire.spoil_towards(WireEnd::Client);
    plain.send(b"the answer to this is spoiled");
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Rst));
}

#[test]
fn an_application_that_resets_is_not_passed_on_as_an_orderly_end() {
    let backend = watcher();
    let (pair, plain) = established(&backend);
    plain.reset();
    assert_eq!(
        pair.wire.wait_end_of(WireEnd::Client),
        ConnectionEnd::Rst,
        "no close_notify and no FIN"
    );
    assert_eq!(
        backend.wait_end(0).1,
        ConnectionEnd::Fin,
        "towards the backend there are no resets"
    );
}

#[test]
fn a_backend_that_resets_is_a_reset_for_the_application() {
    let backend = Backend::new(|mut stream| {
        let mut said = [0; 11];
        stream.read_exact(&mut said).ok()?;
        stream.write_all(&said).ok()?;
        stream.read_exact(&mut [0]).ok()?;
        SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        None
    });
    let (pair, plain) = established(&backend);
    plain.send(b"!");
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Rst));
    assert_eq!(pair.wire.wait_end_of(WireEnd::Server), ConnectionEnd::Rst);
}

/// Sends until nothing more is taken, so that something waits for the backend wherever it passes.
fn send_until_it_stands(plain: &PlainClient) {
    plain.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while (&plain.0).write(&[0; 64 * 1024]).is_ok() {}
}

#[test]
fn a_backend_that_resets_while_more_is_on_its_way_to_it_is_a_reset_for_the_application() {
    let (done, full) = std::sync::mpsc::channel();
    let full = std::sync::Mutex::new(full);
    let backend = Backend::new(move |mut stream| {
        stream.write_all(&[7; 5000]).ok()?;
        full.lock().unwrap().recv().ok()?;
        // What it has not read makes its end a reset.
        None
    });
    let (_server, client) = two_ends(&backend);
    for _ in 0..5 {
        let plain = PlainClient::connect(client.address("plain"));
        send_until_it_stands(&plain);
        done.send(()).unwrap();
        // The write learns of the reset first, and the read then finds a mere end.
        assert_eq!(plain.end(), ConnectionEnd::Rst, "half an answer looks whole");
    }
}

#[test]
fn a_killed_server_end_is_a_reset_for_the_application() {
    let backend = watcher();
    let (mut pair, plain) = established(&backend);
    pair.server.process().kill();
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Rst));
    assert_eq!(backend.wait_end(0).1, ConnectionEnd::Fin);
}

#[test]
fn a_killed_client_end_is_a_reset_for_the_application_and_a_fin_for_the_backend() {
    let backend = watcher();
    let (mut pair, plain) = established(&backend);
    pair.client.process().kill();
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Rst));
    assert_eq!(backend.wait_end(0).1, ConnectionEnd::Fin);
}

#[test]
fn a_backend_that_is_not_there_is_a_reset_for_the_application() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = PskgateBuilder::new().toml(&server_toml(gone, "")).start();
    let client = PskgateBuilder::new().toml(&client_toml(server.address("tls"), "")).start();
    let plain = PlainClient::connect(client.address("plain"));
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Rst));
    server.wait_logged(&gone.to_string());
}

/// Waits for the cut of a session that nobody disturbs. The watch has run since before its last event.
fn expect_cut_after_a_second(plain: &PlainClient, watch: Stopwatch) {
    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Rst), "a cut is no orderly end");
    let lasted = watch.lasted();
    assert!(lasted > Duration::from_millis(900), "cut too early, after {lasted:?}");
    watch.expect_within(Duration::from_secs(6));
}

#[test]
fn the_idle_timeout_cuts_a_silent_session_at_either_end() {
    const IDLE: &str = "idle-timeout = \"1s\"";
    for (server, client) in [(IDLE, ""), ("", IDLE)] {
        let backend = watcher();
        let pair = Pair::with(&backend, server, client);
        let plain = pair.connect();
        let watch = Stopwatch::start();
        plain.echo(b"established");
        expect_cut_after_a_second(&plain, watch);
        assert_eq!(backend.wait_end(0), (Vec::new(), ConnectionEnd::Fin));
    }
}

#[test]
fn the_idle_timeout_spares_a_session_that_talks_in_one_direction() {
    let backend = watcher();
    let pair = Pair::with(&backend, "idle-timeout = \"5s\"", "idle-timeout = \"5s\"");
    let plain = pair.connect();
    plain.echo(b"established");
    for _ in 0..15 {
        std::thread::sleep(Duration::from_millis(400));
        plain.send(b".");
    }
    plain.shut();
    assert_eq!(backend.wait_end(0), (vec![b'.'; 15], ConnectionEnd::Fin));
}

#[test]
fn the_close_timeout_cuts_a_half_closed_session_at_either_end() {
    const CLOSE: &str = "close-timeout = \"1s\"";
    for (server, client) in [(CLOSE, ""), ("", CLOSE)] {
        let backend = Backend::new(|mut stream| {
            let mut said = [0; 11];
            stream.read_exact(&mut said).ok()?;
            stream.write_all(&said).ok()?;
            let end = read_to_end(stream);
            // It never ends its own direction.
            std::thread::sleep(Duration::from_secs(60));
            Some(end)
        });
        let pair = Pair::with(&backend, server, client);
        let plain = pair.connect();
        plain.echo(b"established");
        let watch = Stopwatch::start();
        plain.shut();
        expect_cut_after_a_second(&plain, watch);
    }
}

#[test]
fn the_close_timeout_counts_silence_and_not_time() {
    let backend = Backend::new(|mut stream| {
        let end = read_to_end(stream);
        for _ in 0..15 {
            std::thread::sleep(Duration::from_millis(400));
            stream.write_all(b".").ok()?;
        }
        Some(end)
    });
    let pair = Pair::with(&backend, "close-timeout = \"5s\"", "close-timeout = \"5s\"");
    let plain = pair.connect();
    plain.shut();
    assert_eq!(plain.rest(), (vec![b'.'; 15], ConnectionEnd::Fin));
}

/// A listener whose queue is full: a connection to it is neither made nor refused.
fn deaf() -> (Socket, Vec<Socket>, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&local(0).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut queue = Vec::new();
    for _ in 0..64 {
        let one = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let made = one.connect_timeout(&address.into(), Duration::from_secs(1)).is_ok();
        queue.push(one);
        if !made {
            return (listener, queue, address);
        }
    }
    panic!("the queue of {address} is never full");
}

#[test]
fn the_connect_timeout_gives_up_a_target_that_does_not_answer() {
    let (_listener, _queue, deaf) = deaf();
    let limit = "connect-timeout = \"1s\"";
    let client = PskgateBuilder::new().toml(&client_toml(deaf, limit)).start();
    let watch = Stopwatch::start();
    expect_cut_after_a_second(&PlainClient::connect(client.address("plain")), watch);
    client.wait_logged(&deaf.to_string());

    let server = PskgateBuilder::new().toml(&server_toml(deaf, limit)).start();
    let client = PskgateBuilder::new().toml(&client_toml(server.address("tls"), "")).start();
    let watch = Stopwatch::start();
    expect_cut_after_a_second(&PlainClient::connect(client.address("plain")), watch);
}

fn two_targets(first: SocketAddr, second: SocketAddr, extra: &str) -> Pskgate {
    let text =
        client_toml("FIRST", extra).replace("\"FIRST\"", &format!("[\"{first}\", \"{second}\"]"));
    PskgateBuilder::new().toml(&text).start()
}

#[test]
fn a_dead_first_target_is_passed_over() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = two_targets(gone, server.address("tls"), "");
    PlainClient::connect(client.address("plain")).echo(b"by way of the second");
}

#[test]
fn priority_takes_the_first_target_and_round_robin_takes_turns() {
    for (failover, expected) in [("priority", [4, 0]), ("round-robin", [2, 2])] {
        let backends = [Backend::echo(), Backend::echo()];
        let servers = [0, 1].map(|index: usize| {
            PskgateBuilder::new().toml(&server_toml(backends[index].address(), "")).start()
        });
        let client = two_targets(
            servers[0].address("tls"),
            servers[1].address("tls"),
            &format!("failover = \"{failover}\""),
        );
        for _ in 0..4 {
            PlainClient::connect(client.address("plain")).echo(b"who is there?");
        }
        assert_eq!(backends.each_ref().map(Backend::accepted), expected, "{failover}");
    }
}

#[test]
fn a_one_session_service_opens_no_second_backend_connection() {
    let backend = Backend::echo();
    let pair = Pair::with(&backend, "max-sessions = 1", "");
    let first = pair.connect();
    first.echo(b"the first has it");
    let second = pair.connect();
    second.0.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let _ = (&second.0).write_all(b"the second wants it");
    // Refused or kept waiting: nothing comes back.
    assert!(!matches!((&second.0).read(&mut [0]), Ok(1..)), "the second was served too");
    assert_eq!(backend.accepted(), 1);
    first.echo(b"and the first still has it");
    drop(second);
    first.shut();
    assert_eq!(first.rest(), (Vec::new(), ConnectionEnd::Fin));
    pair.server.wait_logged("session closed");
    until("the place to be free again", crate::harness::WAIT_TIMEOUT, || {
        let next = pair.connect();
        next.0.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        (&next.0).write_all(b"!").ok()?;
        (&next.0).read_exact(&mut [0]).ok()
    });
}

#[test]
fn many_sessions_at_once_do_not_mix_their_bytes() {
    const TOTAL: u64 = 2 * MEGABYTE;
    let backend = Backend::echo();
    let (_server, client) = two_ends(&backend);
    let address = client.address("plain");
    std::thread::scope(|scope| {
        for seed in 0..20 {
            scope.spawn(move || {
                let stream = Stream::new(100 + seed);
                let plain = PlainClient::connect(address);
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        stream.send(&plain.0, TOTAL).expect("the tunnel takes it");
                        plain.shut();
                    });
                    stream.receive(&plain.0, TOTAL);
                    assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Fin));
                });
            });
        }
    });
    assert_eq!(backend.accepted(), 20);
}

/// The numbers of the TCP sockets that a traced program accepted and connected.
fn tcp_sockets(trace: &str) -> Vec<String> {
    let accepted =
        trace.lines().filter(|line| line.contains("accept4") && line.contains("AF_INET"));
    let accepted = accepted.filter_map(|line| Some(line.rsplit_once("= ")?.1.trim().to_owned()));
    let connected = trace.lines().filter_map(|line| {
        let (number, address) = line.split_once("connect(")?.1.split_once(", ")?;
        address.contains("AF_INET").then(|| number.to_owned())
    });
    accepted.chain(connected).collect()
}

/// Of two small pieces in a row the second waits for the peer's delayed acknowledgement unless TCP is told
/// not to: 40 ms each time. scripts/bench has the time of a first answer.
#[test]
fn the_first_answer_of_a_connection_does_not_wait() {
    let backend = Backend::echo();
    // strace is the child (-D), so that it ends with the program.
    let traced = |toml: &str| {
        let calls = "trace=setsockopt,accept4,connect";
        let line = format!("exec strace -D -f -e {calls} -o trace \"$@\"");
        PskgateBuilder::new().toml(toml).shell(&line).start()
    };
    let server = traced(&server_toml(backend.address(), ""));
    let client = traced(&client_toml(server.address("tls"), ""));
    PlainClient::connect(client.address("plain")).echo(b"a first request");
    for mut gate in [server, client] {
        gate.process().kill();
        let trace = until("the end of the trace", WAIT_TIMEOUT, || {
            let trace = std::fs::read_to_string(gate.folder().join("trace")).ok()?;
            trace.contains("+++ killed by SIGKILL").then_some(trace)
        });
        let sockets = tcp_sockets(&trace);
        assert_eq!(sockets.len(), 2, "one from downstream and one to upstream:\n{trace}");
        for socket in sockets {
            let told = format!("setsockopt({socket}, SOL_TCP, TCP_NODELAY, [1]");
            assert!(trace.contains(&told), "{socket} may wait:\n{trace}");
        }
    }
}
