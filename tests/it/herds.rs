//! Herds: clients with keys that come all at once are all served.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::harness::{
    Backend, IDENTITY, KEY, Pskgate, PskgateBuilder, Tls, client_toml, free_port, secret,
    server_toml,
};
use crate::members::{exchange, herd, member, plain_herd, shake, tls_herd};

const NOBODY: [String; 0] = [];

fn native(to: SocketAddr, descriptors: u32) -> Pskgate {
    PskgateBuilder::new().descriptors(descriptors).toml(&server_toml(to, "")).start()
}

/// A stunnel.conf with one section, and the port that it accepts on.
fn conf(client: bool, connect: SocketAddr) -> (Pskgate, SocketAddr) {
    let port = free_port();
    let mode = if client { "client = yes\n" } else { "" };
    let text = format!(
        "foreground = yes\n{mode}[tls]\naccept = 127.0.0.1:{port}\nconnect = {connect}\n\
         ciphers = PSK\nPSKsecrets = psk.txt\n"
    );
    let gate = PskgateBuilder::new().file("psk.txt", &secret(IDENTITY, KEY)).conf(
        "stunnel.conf",
        &text,
        None,
    );
    (gate.start(), crate::harness::local(port))
}

#[test]
fn a_thousand_clients_at_once_are_all_served_by_a_server_end() {
    let backend = Backend::echo();
    let server = native(backend.address(), 20_000);
    for (count, tls) in [(300, Tls::V12), (1000, Tls::V13)] {
        assert_eq!(tls_herd(count, tls, server.address("tls")), NOBODY);
    }
    let (_server, to) = conf(false, backend.address());
    for (count, tls) in [(1000, Tls::V12), (300, Tls::V13)] {
        assert_eq!(tls_herd(count, tls, to), NOBODY);
    }
}

#[test]
fn a_thousand_applications_at_once_are_all_served_by_two_ends() {
    let backend = Backend::echo();
    let server = native(backend.address(), 20_000);
    let client = PskgateBuilder::new().toml(&client_toml(server.address("tls"), "")).start();
    for count in [300, 1000] {
        assert_eq!(plain_herd(count, client.address("plain")), NOBODY);
    }
    let (_server, to) = conf(false, backend.address());
    let (_client, to) = conf(true, to);
    assert_eq!(plain_herd(300, to), NOBODY);
}

#[test]
fn with_1024_descriptors_a_thousand_that_come_and_go_are_all_served() {
    let backend = Backend::echo();
    let server = native(backend.address(), 1024);
    assert_eq!(tls_herd(1000, Tls::V13, server.address("tls")), NOBODY);
    assert_eq!(tls_herd(1000, Tls::V12, server.address("tls")), NOBODY);
    let client = PskgateBuilder::new()
        .descriptors(1024)
        .toml(&client_toml(server.address("tls"), ""))
        .start();
    assert_eq!(plain_herd(1000, client.address("plain")), NOBODY);
    assert!(!server.log().contains("without a proven key"), "{}", server.log());
}

#[test]
fn with_1024_descriptors_as_many_of_a_thousand_that_stay_are_served_as_fit_and_the_rest_hears_why()
{
    const COUNT: usize = 1000;
    let backend = Backend::echo();
    let server = native(backend.address(), 1024);
    let (context, to) = (member(Tls::V13), server.address("tls"));
    let served = AtomicUsize::new(0);
    let over = Arc::new((Mutex::new(0), Condvar::new()));
    let refused = herd(COUNT, || {
        let done = shake(&context, to).and_then(|mut stream| {
            exchange(&mut stream)?;
            Ok(stream)
        });
        served.fetch_add(usize::from(done.is_ok()), Ordering::Relaxed);
        // Whoever is served stays until everybody else knows.
        let (known, changed) = &*over;
        let mut known = known.lock().unwrap();
        *known += 1;
        changed.notify_all();
        while *known < COUNT {
            known = changed.wait(known).unwrap();
        }
        done.map(drop)
    });
    let line = server.wait_logged(" sessions of this service are open");
    let (_, most) = line.split_once(": all ").expect("a number");
    let (most, _) = most.split_once(' ').expect("a word behind the number");
    let most: usize = most.parse().expect("a number");
    assert_eq!((served.into_inner(), refused.len()), (most, COUNT - most), "{refused:?}");
    assert!(most > 300, "{most}");
    assert!(!server.log().contains("without a proven key"), "{}", server.log());
}
