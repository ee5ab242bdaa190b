//! Floods: strangers from five hundred addresses, and a client with a key and a long way gets in.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::hello::{RecordingProxy, hello_12, hello_13};
use crate::harness::{Backend, PskgateBuilder, Tls, WAIT_TIMEOUT, server_toml, until};
use crate::members::{connect_from, delayed, exchange, member, shake};

/// Addresses that it comes from, and connections a second.
const SOURCES: usize = 500;
const RATE: u64 = 1000;
/// Connections of the flood that are held at the same time, the latest ones.
const HELD: usize = 4000;

/// Half of a round trip of 200 ms.
const DELAY: Duration = Duration::from_millis(100);

/// Strangers who say the same and then nothing more, for as long as this lives.
struct Flood {
    stop: Arc<AtomicBool>,
    connected: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn of(to: SocketAddr, says: &[u8]) -> Self {
        const THREADS: u64 = 2;
        let (stop, connected) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let threads = (0..THREADS).map(|_| {
            let (stop, connected) = (stop.clone(), connected.clone());
            let says = says.to_vec();
            std::thread::spawn(move || {
                let mut held: VecDeque<TcpStream> = VecDeque::new();
                let (start, mut made) = (Instant::now(), 0_u64);
                while !stop.load(Ordering::Relaxed) {
                    let due = start + Duration::from_micros(made * 1_000_000 * THREADS / RATE);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    made += 1;
                    let number = connected.fetch_add(1, Ordering::Relaxed) % SOURCES;
                    let Ok(mut stream) = connect_from(number as u16, to) else { continue };
                    let _ = stream.write_all(&says);
                    held.push_back(stream);
                    if held.len() > HELD / THREADS as usize {
                        held.pop_front();
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { stop, connected, threads }
    }

    fn count(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A client with a key and 200 ms of round trip gets in while strangers say that.
fn gets_in_during(says: impl Fn(SocketAddr) -> Vec<u8>) {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let to = server.address("tls");
    let says = says(to);
    let before = backend.accepted();
    let flood = Flood::of(to, &says);
    // Longer than any round trip, and more than there ever were places for.
    until("the flood to be there", WAIT_TIMEOUT, || (flood.count() > 1500).then_some(()));
    let far = delayed(to, DELAY);
    for tls in Tls::BOTH {
        let context = member(tls);
        for attempt in 0..3 {
            let start = Instant::now();
            let done = shake(&context, far).and_then(|mut stream| exchange(&mut stream));
            let lasted = start.elapsed();
            assert_eq!(done, Ok(()), "{}, {attempt}, {lasted:?}", tls.name());
            println!("{} after {lasted:?}", tls.name());
        }
    }
    assert!(flood.count() > 1800, "it went on: {}", flood.count());
    assert_eq!(backend.accepted() - before, 6, "and nobody else got in");
}

#[test]
fn a_far_client_gets_in_during_a_flood_of_silent_connections() {
    gets_in_during(|_| Vec::new());
}

#[test]
fn a_far_client_gets_in_during_a_flood_of_hellos_that_are_cut_short() {
    gets_in_during(|_| hello_13(&[1], &[b"client1"], &[&[0; 32]])[..100].to_vec());
}

#[test]
fn a_far_client_gets_in_during_a_flood_of_whole_hellos() {
    // In 1.2 each is answered with a flight, and then nothing comes.
    gets_in_during(|_| hello_12());
    gets_in_during(|_| hello_13(&[1], &[b"client1"], &[&[0; 32]]));
}

#[test]
fn a_far_client_gets_in_while_its_own_hello_is_replayed() {
    gets_in_during(|to| {
        let tap = RecordingProxy::before(to);
        let context = member(Tls::V13);
        let mut stream = shake(&context, tap.address()).expect("a handshake");
        exchange(&mut stream).expect("an echo");
        let said = tap.up();
        let length = usize::from(u16::from_be_bytes([said[3], said[4]]));
        said[..5 + length].to_vec()
    });
}

#[test]
fn strangers_who_are_put_out_are_counted_in_one_line_of_both_dialects() {
    let backend = Backend::echo();
    let port = crate::harness::free_port();
    let toml = server_toml(backend.address(), "");
    let conf = format!(
        "foreground = yes\n[tls]\naccept = 127.0.0.1:{port}\nconnect = {}\nciphers = PSK\n\
         PSKsecrets = psk.txt\n",
        backend.address()
    );
    let native = PskgateBuilder::new().descriptors(200).toml(&toml).start();
    let psk = crate::harness::secret(crate::harness::IDENTITY, crate::harness::KEY);
    let dialect = PskgateBuilder::new().descriptors(200).file("psk.txt", &psk);
    let dialect = dialect.conf("stunnel.conf", &conf, None).start();
    for (gate, to) in [(&native, native.address("tls")), (&dialect, crate::harness::local(port))] {
        let held: Vec<_> = (0..100).filter_map(|_| TcpStream::connect(to).ok()).collect();
        gate.wait_logged("without a proven key");
        std::thread::sleep(Duration::from_secs(1));
        let lines = gate.log().matches("to make room for others").count();
        assert_eq!(lines, 1, "{}", gate.log());
        drop(held);
    }
    let page = crate::harness::process::pskgate(native.folder(), &["explain", "crowded-out"]);
    assert!(page.code == Some(0) && page.out.contains("ulimit"), "{}", page.out);
}

/// The processor time of a silent connection, beside that of one at a server without named services.
#[test]
fn a_silent_connection_costs_the_same_however_many_named_services_there_are() {
    const CONNECTIONS: u16 = 1500;
    let backend = Backend::echo();
    let cost = |named: usize| {
        let services: String = (0..named)
            .map(|number| {
                format!(
                    "[services.s{number}]\nmode = \"server\"\nserver-name = \"tls:s{number}.plc\"\n\
                     connect = \"{}\"\npsk-secrets = \"psk.txt\"\n",
                    backend.address()
                )
            })
            .collect();
        let toml = server_toml(backend.address(), "") + &services;
        let server = PskgateBuilder::new().toml(&toml).launch();
        let to = server.address("tls");
        let before = server.cpu();
        let held: Vec<_> =
            (0..CONNECTIONS).filter_map(|number| connect_from(number, to).ok()).collect();
        until("all of them to be there", WAIT_TIMEOUT, || {
            (server.descriptors() > held.len()).then_some(())
        });
        (server.cpu() - before) / CONNECTIONS.into()
    };
    let (alone, among) = (cost(0), cost(500));
    println!("{alone:?} alone, {among:?} among 500 named services");
    // A table for each would be 500 entries of 150 ns at the least.
    assert!(among < 2 * alone + Duration::from_micros(50), "{alone:?}, {among:?}");
}
