//! The neighbours of a PLC on a plant network: Modbus/TCP, OPC UA, MQTT.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::Connector;
use crate::ends::{End, Maker, Order};
use crate::harness::{IDENTITY, KEY, Process, WAIT_TIMEOUT, free_port, local, openssl::hex, until};
use crate::harness::{secret, write_private};
use crate::peers::Peer;
use crate::rates::calls;
use crate::results::Size;
use crate::trips::Trips;
use crate::ways::{Tunnel, WAYS, Way};

pub const CONNECTORS: &[Connector] = &[
    Connector {
        name: "modbus",
        about: "Modbus/TCP with pymodbus, a connection for every poll",
        run: modbus,
    },
    Connector { name: "opcua", about: "OPC UA with asyncua", run: opcua },
    Connector {
        name: "mqtt",
        about: "MQTT: a client end before mosquitto's own TLS-PSK",
        run: mqtt,
    },
];

/// Clients of one server, through each way.
fn clients(script: &str, backend: SocketAddr) -> ([Peer; 3], Vec<Tunnel>) {
    let tunnels: Vec<_> = WAYS.iter().map(|way| way.pair(backend, false)).collect();
    ([0, 1, 2].map(|way: usize| Peer::client(script, "client", tunnels[way].address, &[])), tunnels)
}

fn modbus(size: Size) -> Vec<Trips> {
    let (_server, backend) = Peer::server("modbus.py", &["serve"]);
    let (mut masters, tunnels) = clients("modbus.py", backend);
    masters[1].ask("poll");
    masters[1].ask("write 4711");
    masters[1].ask("several 200");
    let before = tunnels[1].ends[0].settled_descriptors();
    for _ in 0..size.pick(20, 500) {
        masters[1].ask("poll");
    }
    // A connection a poll leaves nothing behind.
    let after = tunnels[1].ends[0].settled_descriptors();
    assert!(after <= before, "{after} descriptors are open, and {before} were");
    vec![calls("modbus", "connect, read 8 registers, close", &mut masters, size)]
}

fn opcua(size: Size) -> Vec<Trips> {
    let (_server, backend) = Peer::server("opcua.py", &["serve"]);
    let (mut masters, _tunnels) = clients("opcua.py", backend);
    masters[1].ask("write 21.75");
    masters[1].ask("call 21");
    masters[1].ask(&format!("watch {}", size.pick(10, 200)));
    vec![calls("opcua", "read a variable", &mut masters, size)]
}

/// mosquitto with a plain port, and one with TLS and the key of the tests. Its file has hex.
struct Broker {
    process: Process,
    folder: TempDir,
    plain: SocketAddr,
    tls: SocketAddr,
}

fn key_file() -> String {
    secret(IDENTITY, &hex(KEY))
}

impl Broker {
    fn start(plain: SocketAddr, tls: SocketAddr) -> Self {
        let folder = TempDir::new().expect("a folder for mosquitto");
        let (conf, keys) = (folder.path().join("mosquitto.conf"), folder.path().join("psk.txt"));
        write_private(&keys, &key_file());
        let text = format!(
            "per_listener_settings true\nset_tcp_nodelay true\nuser root\n\
             listener {} 127.0.0.1\nallow_anonymous true\n\
             listener {} 127.0.0.1\npsk_hint plant\npsk_file {}\nuse_identity_as_username true\n",
            plain.port(),
            tls.port(),
            keys.display()
        );
        write_private(&conf, &text);
        let mut command = Command::new("mosquitto");
        command.arg("-v").arg("-c").arg(&conf);
        let process = Process::spawn("mosquitto", "the Debian package mosquitto", &mut command);
        process.wait_for("running", WAIT_TIMEOUT);
        Self { process, folder, plain, tls }
    }
}

fn mqtt(size: Size) -> Vec<Trips> {
    let mut broker = Broker::start(local(free_port()), local(free_port()));
    let end = |maker| Order::client(maker, broker.tls).secrets(&key_file()).start();
    let ends = [end(Maker::Pskgate), end(Maker::Stunnel)];
    let at = [broker.plain, ends[0].address(), ends[1].address()];
    let connect = |way: usize| {
        let arguments = [at[way].port().to_string(), format!("plant/{way}")];
        let mut peer = Peer::start("mqtt.py", &arguments);
        peer.process().wait_for("READY", WAIT_TIMEOUT);
        peer
    };
    let mut clients = [0, 1, 2].map(connect);
    clients[1].ask("big 1000000");
    // The broker knows by the identity who it is.
    let log = broker.process.text();
    assert!(log.contains(&format!("u'{IDENTITY}'")), "the broker knows nobody:\n{log}");
    let measured = calls(
        "mqtt",
        "publish a message and receive it (QoS 1); TLS of the broker",
        &mut clients,
        size,
    );

    // The broker is started anew: client ends wait for nobody, and the library connects again.
    broker.process.signal(rustix::process::Signal::TERM);
    broker.process.wait(WAIT_TIMEOUT);
    let _again = Broker::start(broker.plain, broker.tls);
    clients[1].ask("again");
    vec![measured]
}
