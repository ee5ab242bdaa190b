//! A stranger cannot find out which identities exist: hellos that no ordinary client would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::harness::{Backend, Gate, IDENTITY, PATIENCE, server_toml};

/// A vector of TLS: its length in `width` bytes, and its body.
fn vector(width: usize, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u64).to_be_bytes();
    [&len[8 - width..], body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &vector(2, body)[..]].concat()
}

/// A TLS 1.3 ClientHello with these identities and binders, and a key share that is as good as any.
fn hello(identities: &[&[u8]], binders: &[&[u8]]) -> Vec<u8> {
    let offers: Vec<u8> =
        identities.iter().flat_map(|name| [vector(2, name), vec![0; 4]].concat()).collect();
    let proofs: Vec<u8> = binders.iter().flat_map(|binder| vector(1, binder)).collect();
    let share = [&[0, 0x1d], &vector(2, &[9; 32])[..]].concat();
    let extensions = [
        extension(43, &vector(1, &[3, 4])),
        extension(10, &vector(2, &[0, 0x1d])),
        extension(13, &vector(2, &[4, 3, 8, 4])),
        extension(51, &vector(2, &share)),
        extension(45, &vector(1, &[1])),
        extension(41, &[vector(2, &offers), vector(2, &proofs)].concat()),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &vector(1, &[5; 32]),
        &vector(2, &[0x13, 1, 0x13, 3]),
        &[1, 0],
        &vector(2, &extensions),
    ]
    .concat();
    let message = [&[1], &vector(3, &body)[..]].concat();
    [&[0x16, 3, 1], &vector(2, &message)[..]].concat()
}

/// Everything that comes back, which for a refusal is one alert.
fn answer(to: SocketAddr, hello: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.write_all(hello).expect("sent");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an orderly end");
    all
}

/// What is special about a list, whose identities it names, and its binders.
type List<'a> = (&'a str, &'a [usize], &'a [&'a [u8]]);

#[test]
fn no_list_of_offers_tells_a_known_identity_from_an_unknown_one() {
    let backend = Backend::echo();
    let gate = Gate::new().toml(&server_toml(backend.address(), "")).start();
    let to = gate.address("tls");
    let (good, long, short) = (&[0; 32][..], &[0; 48][..], &[0; 33][..]);
    let lists: [List<'_>; 8] = [
        // A 0 stands for the identity in question, other numbers for one that nobody has.
        ("alone", &[0], &[good]),
        ("two, and one binder", &[0, 1], &[good]),
        ("behind another, and one binder", &[1, 0], &[good]),
        ("two, the other's binder longer", &[0, 1], &[good, short]),
        ("two, its own binder longer", &[0, 1], &[short, good]),
        ("with a binder of another hash", &[0, 1], &[long, good]),
        ("two, and three binders", &[0, 1], &[good, good, good]),
        ("twice", &[0, 0], &[good, good]),
    ];
    for (what, order, binders) in lists {
        let ask = |name: &'static str| {
            let names: Vec<&[u8]> =
                order.iter().map(|n| if *n == 0 { name.as_bytes() } else { b"junk" }).collect();
            answer(to, &hello(&names, binders))
        };
        let (known, unknown) = (ask(IDENTITY), ask("nobody7"));
        assert_eq!(IDENTITY.len(), "nobody7".len(), "or the lengths would tell");
        assert_eq!(known.first(), Some(&0x15), "{what}: an alert and nothing else: {known:02x?}");
        assert_eq!(known, unknown, "{what}");
    }
    assert_eq!(backend.accepted(), 0);
}
