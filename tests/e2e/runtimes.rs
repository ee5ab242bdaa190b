//! Beremiz' runtime over Pyro and eRPC, behind two ends; and the IDE's own TLS, straight to a server end.

use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::Connector;
use crate::ends::{End, Maker, Order};
use crate::harness::{Pskgate, PskgateBuilder, free_port, server_toml, write_private};
use crate::peers::Peer;
use crate::rates::{calls, uploads};
use crate::results::Size;
use crate::trips::Trips;
use crate::ways::{Tunnel, WAYS, Way};

pub const CONNECTORS: &[Connector] = &[
    Connector { name: "pyro4", about: "PYRO:// with Pyro 4", run: |size| plain("pyro4", size) },
    Connector { name: "pyro5", about: "PYRO:// with Pyro 5", run: |size| plain("pyro5", size) },
    Connector { name: "erpc", about: "ERPC:// with eRPC", run: |size| plain("erpc", size) },
    Connector {
        name: "erpcs",
        about: "ERPCS://, the IDE's own TLS before the section that Beremiz writes",
        run: |size| own_tls("erpcs", "erpc", size),
    },
    Connector {
        name: "pyros",
        about: "PYROS://, the IDE's own TLS with Pyro 4, today's and that of Beremiz up to 1.3",
        run: |size| own_tls("pyros4", "pyro4", size),
    },
];

/// What all the rows are about.
const STATUS: &str = "GetPLCstatus";

/// A program of several MB.
fn program(size: Size) -> usize {
    size.pick(2_000_000, 4_000_000)
}

/// A day at the IDE: a program is sent and started, and polled; the IDE dies and comes back.
fn a_day(size: Size, connect: &dyn Fn() -> Peer) {
    let mut ide = connect();
    let bytes = program(size);
    ide.ask(&format!("upload {bytes}"));
    ide.ask("start");
    let seconds = size.pick(2, 10);
    let polls = ide.ask(&format!("work {seconds}"));
    // Every 500 ms, every 100 ms: one may be late on a busy machine, but not many.
    let count = |name: &str| polls[name].as_u64().expect("a count");
    assert!(count("status") + 1 >= seconds * 2, "too few polls of the status: {polls}");
    assert!(count("traces") * 10 >= seconds * 10 * 9, "too few polls of the traces: {polls}");

    // It dies in the middle of the next upload, and nobody says goodbye.
    ide.ask(&format!("upload {} 100", bytes / 2));
    ide.process().kill();
    let mut returned = connect();
    let seen = returned.ask(&format!("has {bytes}"));
    assert_eq!(seen["has"], true, "the PLC has what it had: {seen}");
    assert_eq!(seen["status"], "Started", "and runs on: {seen}");
    returned.ask("work 1");
    returned.ask("stop");
    returned.process().kill();
}

/// Tunnels to a runtime each: `erpc`'s bears one connection.
fn plain(kind: &'static str, size: Size) -> Vec<Trips> {
    let set: Vec<(Peer, Tunnel)> = WAYS
        .iter()
        .map(|way| {
            let (runtime, backend) = Peer::server("runtime.py", &[kind]);
            (runtime, way.pair(backend, kind == "erpc"))
        })
        .collect();
    let connect = |way: usize| Peer::client("ide.py", kind, set[way].1.address, &[]);
    a_day(size, &|| connect(1));
    // The tunnel's own ends: a new one at the IDE, and the next connection goes through it.
    let tunnel = &set[1].1;
    assert!(tunnel.ends.iter().all(End::listens), "both ends run on");

    let mut clients = [0, 1, 2].map(connect);
    clients.iter_mut().for_each(|client| drop(client.ask(&format!("upload {}", 100_000))));
    vec![
        calls(kind, STATUS, &mut clients, size),
        uploads(kind, &mut clients, size.pick(500_000, 1_000_000), size),
    ]
}

/// 256 characters as Beremiz makes them today: base64 of 192 bytes.
fn long_key() -> String {
    "Q2hhcmFjdGVycyBvZiBiYXNlNjQgYXMgQmVyZW1peiBtYWtlcyB0aGVtIG5vdyEh".repeat(4)
}

/// 256 characters of the BinHex alphabet, as Beremiz 1.2 wrote them; each of the 64 is there.
fn binhex_key() -> String {
    "!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr".repeat(4)
}

/// `<project>/psk/<ID>.secret`, whose identity is the PLC's name: `ID:secret` without an end of line.
struct Project {
    folder: TempDir,
}

impl Project {
    fn new() -> Self {
        let folder = TempDir::new().expect("a project");
        for (id, key) in [("PLC-2534667845", long_key()), ("PLC-old", binhex_key())] {
            assert_eq!(key.len(), 256);
            write_private(&folder.path().join(format!("{id}.secret")), &format!("{id}:{key}"));
        }
        Self { folder }
    }

    fn file(&self, id: &str) -> String {
        self.folder.path().join(format!("{id}.secret")).display().to_string()
    }

    fn key(&self, id: &str) -> String {
        std::fs::read_to_string(self.file(id)).expect("a key")
    }

    /// Both keys in one file.
    fn both(&self) -> String {
        ["PLC-2534667845", "PLC-old"].map(|id| self.key(id) + "\n").concat()
    }
}

/// stunnel's file as Beremiz names it; its `psk.txt` is the runtime's `-s` file, which holds one line.
fn beremiz_section(project: &Project, backend: SocketAddr) -> Pskgate {
    let port = free_port();
    let text = format!(
        "debug = info\n[ERPCPSK]\naccept = 127.0.0.1:{port}\nconnect = {backend}\nciphers = PSK\n\
         sslVersion = TLSv1.2\nPSKsecrets = psk.txt\n"
    );
    PskgateBuilder::new()
        .file("psk.txt", &project.key("PLC-2534667845"))
        .conf("stunnel.conf", &text, None)
        .start()
}

/// A native file: the runtime's `-s` file, and another one for whoever else comes.
fn two_files(project: &Project, backend: SocketAddr) -> Pskgate {
    let files = "psk-secrets = [\"psk.txt\", \"more.txt\"]";
    let text = server_toml(backend, "").replace("psk-secrets = \"psk.txt\"", files);
    PskgateBuilder::new()
        .file("psk.txt", &project.key("PLC-2534667845"))
        .file("more.txt", &project.key("PLC-old"))
        .toml(&text)
        .start()
}

/// The IDE's own TLS: there is one end only, the PLC's.
fn own_tls(kind: &'static str, runtime: &'static str, size: Size) -> Vec<Trips> {
    let project = Project::new();
    let backends: Vec<(Peer, SocketAddr)> =
        WAYS.iter().map(|_| Peer::server("runtime.py", &[runtime])).collect();
    let gate = beremiz_section(&project, backends[1].1);
    let stunnel = Order::server(Maker::Stunnel, backends[2].1)
        .lines("", "ciphers = PSK\nsslVersion = TLSv1.2")
        .secrets(&project.both())
        .start();
    let at = [backends[0].1, gate.address("ERPCPSK"), stunnel.address()];

    let file = project.file("PLC-2534667845");
    a_day(size, &|| Peer::client("ide.py", kind, at[1], &[&file]));
    let line = gate.wait_logged(" ciphersuite: ");
    assert!(line.contains("TLSv1.2") && line.contains("PSK"), "another suite: {line}");
    let (_runtime, backend) = Peer::server("runtime.py", &[runtime]);
    let gate_of_two = two_files(&project, backend);
    for id in ["PLC-2534667845", "PLC-old"] {
        let file = project.file(id);
        let mut ide = Peer::client("ide.py", kind, gate_of_two.address("tls"), &[&file]);
        ide.ask("upload 100000");
        ide.process().kill();
        gate_of_two.wait_logged(&format!("{id:?}"));
    }
    if kind == "pyros4" {
        the_old_one(&project, size);
    }

    let connect = |way: usize| match way {
        0 => Peer::client("ide.py", runtime, at[0], &[]),
        _ => Peer::client("ide.py", kind, at[way], &[&file]),
    };
    let mut clients = [0, 1, 2].map(connect);
    vec![calls(kind, STATUS, &mut clients, size)]
}

/// Beremiz up to 1.3: TLS 1.0 and one suite, where a file asks for it by name.
fn the_old_one(project: &Project, size: Size) {
    let (_runtime, backend) = Peer::server("runtime.py", &["pyro4"]);
    let old = "tls-min = \"1.0\"\ntls-max = \"1.0\"\nciphers = \"PSK-AES256-CBC-SHA\"\nsecurity-level = 0";
    let end =
        Order::server(Maker::Pskgate, backend).lines(old, "").secrets(&project.both()).start();
    let file = project.file("PLC-old");
    a_day(size, &|| Peer::client("ide.py", "pyros4old", end.address(), &[&file]));
    let log = end.err();
    assert!(log.contains("TLSv1 ") || log.contains("TLSv1.0"), "not the old version:\n{log}");
    // Today's service does not speak it.
    let today = Order::server(Maker::Pskgate, backend).secrets(&project.both()).start();
    let mut refused =
        Peer::start("ide.py", &["pyros4old", &today.address().port().to_string(), &file]);
    let status = refused.process().wait(crate::harness::WAIT_TIMEOUT);
    assert!(!status.success(), "TLS 1.0 was spoken unasked");
}
