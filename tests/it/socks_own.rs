//! A SOCKS server and the addresses of its own machine.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;

use crate::harness::names::HostWithNames;
use crate::harness::two_hosts::{ADDRESSES, echo_on, ip};
use crate::harness::{Pskgate, PskgateBuilder, WAIT_TIMEOUT, client_toml};

/// A SOCKS server on the first of two hosts, and an echo on both; the names lead to each of them.
struct Plant {
    names: HostWithNames,
    client: Pskgate,
    server: Pskgate,
}

const GRANTED: u8 = 0;
const NOT_ALLOWED: u8 = 2;

impl Plant {
    fn new(ready: &str, server: impl Fn(PskgateBuilder) -> PskgateBuilder) -> Self {
        let [own, other] = ADDRESSES;
        let hosts = format!(
            "{own} me.plant\n{other} other.plant\n{other} mixed.plant\n127.0.0.1 mixed.plant\n"
        );
        let names = HostWithNames::new(&hosts, "timeout:1 attempts:1");
        let [here, there] = names.cable.hosts.each_ref();
        echo_on(here, own);
        echo_on(there, other);
        let server = server(PskgateBuilder::new()).on(here).launch();
        server.wait_logged(ready);
        let toml = client_toml(server.address("s"), "").replace("127.0.0.1:0", "unix:door.sock");
        let client = PskgateBuilder::new().toml(&toml).on(here).start();
        Self { names, client, server }
    }

    /// The code with which a request for port 8080 there is answered.
    fn ask(&self, to: &To) -> u8 {
        let mut stream = UnixStream::connect(self.client.folder().join("door.sock")).unwrap();
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        stream.write_all(&[5, 1, 0]).unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
        let place = match to {
            To::V4(v4) => [&[1][..], &v4.parse::<Ipv4Addr>().unwrap().octets()].concat(),
            To::V6(v6) => [&[4][..], &v6.parse::<Ipv6Addr>().unwrap().octets()].concat(),
            To::Name(name) => [&[3, name.len() as u8], name.as_bytes()].concat(),
            To::Four(v4) => return self.ask_in_version_4(v4.parse().unwrap(), None),
            To::FourA(name) => return self.ask_in_version_4(Ipv4Addr::new(0, 0, 0, 9), Some(name)),
        };
        let request = [&[5, 1, 0], &place[..], &8080_u16.to_be_bytes()].concat();
        stream.write_all(&request).unwrap();
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).unwrap();
        answer[1]
    }

    /// The same in version 4, whose one code of refusal becomes version 5's.
    fn ask_in_version_4(&self, place: Ipv4Addr, name: Option<&str>) -> u8 {
        let mut stream = UnixStream::connect(self.client.folder().join("door.sock")).unwrap();
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        let mut request = [&[4, 1][..], &8080_u16.to_be_bytes(), &place.octets(), b"me\0"].concat();
        if let Some(name) = name {
            request.extend_from_slice(name.as_bytes());
            request.push(0);
        }
        stream.write_all(&request).unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).unwrap();
        match answer[1] {
            0x5a => GRANTED,
            0x5b => NOT_ALLOWED,
            other => panic!("{place} {name:?}: {other:#x}"),
        }
    }

    fn expect(&self, code: u8, all: &[To]) {
        for to in all {
            assert_eq!(self.ask(to), code, "{to:?}");
        }
    }
}

#[derive(Debug)]
enum To {
    V4(&'static str),
    V6(&'static str),
    Name(&'static str),
    Four(&'static str),
    FourA(&'static str),
}
use To::{Four, FourA, Name, V4, V6};

/// This machine, however it is written; and a name that leads there among others.
const NEVER: &[To] = &[
    V4("127.0.0.1"),
    V4("127.9.9.9"),
    V4("0.0.0.0"),
    V6("::1"),
    V6("::"),
    V6("::ffff:127.0.0.1"),
    V6("::ffff:0.0.0.0"),
    V6("::127.0.0.1"),
    V6("::127.9.9.9"),
    V6("::ffff:127.9.9.9"),
    Name("localhost"),
    Name("127.0.0.1"),
    Name("127.1"),
    Name("0x7f000001"),
    Name("2130706433"),
    Name("0"),
    Name("0.0.0.0"),
    Name("::"),
    Name("::1"),
    Name("::127.0.0.1"),
    Name("::ffff:0:0"),
    Name("::ffff:7f00:1"),
    Name("::ffff:127.0.0.1"),
    // A scope: whatever the address is.
    Name("fe80::1%lo"),
    Name("fe80::1%cable"),
    Name("2001:db8::7%1"),
    Name("mixed.plant"),
    Four("127.0.0.1"),
    Four("127.9.9.9"),
    Four("0.0.0.0"),
    FourA("localhost"),
    FourA("0"),
    FourA("::1"),
    FourA("::ffff:7f00:1"),
    FourA("fe80::1%lo"),
    FourA("mixed.plant"),
];

const OWN: &[To] = &[
    V4(ADDRESSES[0]),
    V6("::ffff:10.99.0.1"),
    Name("me.plant"),
    Four(ADDRESSES[0]),
    FourA("me.plant"),
];

const OTHERS: &[To] =
    &[V4(ADDRESSES[1]), Name("other.plant"), Four(ADDRESSES[1]), FourA("other.plant")];

fn native(more: &'static str) -> impl Fn(PskgateBuilder) -> PskgateBuilder {
    move |gate| {
        gate.toml(&format!(
            "[services.s]\nmode = \"server\"\naccept = \"127.0.0.1:0\"\nprotocol = \"socks\"\n\
             psk-secrets = \"psk.txt\"\n{more}\n"
        ))
    }
}

#[test]
fn addresses_of_the_server_s_own_machine_are_refused_as_they_are_at_each_request() {
    let plant = Plant::new("listening on", native(""));
    plant.expect(GRANTED, OTHERS);
    plant.expect(NOT_ALLOWED, OWN);
    // Before so many are refused that lines are left out.
    plant.server.wait_logged("an address of this machine, and socks-allow-own is not set");
    plant.expect(NOT_ALLOWED, NEVER);
    // What the machine did not have when the program started.
    let late = V4("10.99.0.77");
    assert_ne!(plant.ask(&late), NOT_ALLOWED);
    let host = plant.names.host();
    ip(&["-n", host, "addr", "add", "10.99.0.77/24", "dev", "cable"]);
    ip(&["-n", host, "route", "add", "local", "10.50.0.0/16", "dev", "lo"]);
    plant.expect(NOT_ALLOWED, &[late, V4("10.50.1.2")]);
}

#[test]
fn who_wants_the_own_addresses_to_be_asked_for_gets_them_and_not_loopback() {
    let plant = Plant::new("listening on", native("socks-allow-own = true"));
    plant.expect(GRANTED, OTHERS);
    plant.expect(GRANTED, OWN);
    plant.expect(NOT_ALLOWED, NEVER);
    assert!(!plant.server.log().contains("an address of this machine"), "{}", plant.server.log());
}

#[test]
fn a_stunnel_conf_refuses_what_stunnel_refuses_and_warns_of_the_rest() {
    let port = crate::harness::free_port();
    let conf = format!(
        "debug = info\nforeground = yes\n[s]\naccept = 127.0.0.1:{port}\nprotocol = socks\n\
         PSKsecrets = psk.txt\n"
    );
    let plant = Plant::new("Accepting new connections", |gate| gate.conf("x.conf", &conf, None));
    plant.expect(GRANTED, OTHERS);
    assert!(!plant.server.log().contains("an address of this machine"), "{}", plant.server.log());
    plant.expect(GRANTED, OWN);
    plant.server.wait_logged("10.99.0.1:8080, an address of this machine");
    // Last, because lines are left out once so many are refused.
    plant.expect(NOT_ALLOWED, NEVER);
}
