//! The examples of examples/fleet, run as they are but for their addresses and folders.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::Connector;
use crate::ends::{Tls, tls_as};
use crate::harness::{
    Backend, KEY, OTHER_KEY, Process, Pskgate, PskgateBuilder, WAIT_TIMEOUT, free_port, local,
    root, secret, until, web, write_private,
};
use crate::results::Size;
use crate::trips::Trips;

pub const CONNECTORS: &[Connector] = &[
    Connector {
        name: "fleet-gateway",
        about: "examples/fleet: one gateway, an identity and a backend for each PLC",
        run: gateways,
    },
    Connector {
        name: "fleet-replicas",
        about: "examples/fleet: two gateways behind HAProxy",
        run: replicas,
    },
    Connector {
        name: "fleet-keys",
        about: "examples/fleet: keys from a mounted Secret, and keys that Ansible writes",
        run: keys,
    },
    Connector {
        name: "fleet-prometheus",
        about: "examples/fleet: Prometheus over all ends, through the tunnel",
        run: prometheus,
    },
];

/// The text of an example.
struct Example(String);

impl Example {
    fn of(name: &str) -> Self {
        let path = root().join("examples/fleet").join(name);
        Self(
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        )
    }

    /// Something of this machine in the place of something of the reader's, which must be there.
    fn with(self, what: &str, by: impl ToString) -> Self {
        assert!(self.0.contains(what), "the example does not say {what}:\n{}", self.0);
        Self(self.0.replace(what, &by.to_string()))
    }
}

const KEYS: [(&str, &str); 4] = [
    ("plc-01", KEY),
    ("plc-02.anna", OTHER_KEY),
    ("plc-02.ben", "YSBrZXkgb2YgYmVuJ3MsIHdobyBzaGFyZXMgaGlzIFBMQyB3aXRoIGFubmEuLi4u"),
    ("plc-03", "YSBrZXkgb2YgYSBQTEMgdGhhdCBoYXMgbm8gYmFja2VuZCBvZiBpdHMgb3duIGhlcmUu"),
];

fn key(identity: &str) -> &'static str {
    KEYS.iter().find(|(name, _)| *name == identity).expect("a key of that name").1
}

fn write_key(folder: &Path, identity: &str) {
    write_private(&folder.join(format!("{identity}.txt")), &secret(identity, key(identity)));
}

/// A PLC that says which one it is.
fn plc(number: u8) -> Backend {
    Backend::new(move |mut stream| {
        // A play of Ansible's may take its time, and a session is silent meanwhile.
        stream.set_read_timeout(None).ok()?;
        while let Ok(1..) = stream.read(&mut [0; 64]) {
            stream.write_all(&[b'0' + number]).ok()?;
        }
        None
    })
}

/// Asks it, over a connection that stays open.
fn ask(identity: &str, at: SocketAddr) -> Option<(Tls, u8)> {
    let mut stream = tls_as(identity, key(identity), at, Ipv4Addr::LOCALHOST).ok()?;
    let answer = ask_again(&mut stream)?;
    Some((stream, answer))
}

fn ask_again(stream: &mut Tls) -> Option<u8> {
    stream.write_all(b"which one?").ok()?;
    let mut answer = [0];
    stream.read_exact(&mut answer).ok()?;
    Some(answer[0] - b'0')
}

/// examples/fleet/gateway.toml before these two PLCs; `at` are its port and that of its figures.
fn gateway(keys: &Path, at: [u16; 2], plcs: &[Backend; 2]) -> Pskgate {
    let text = Example::of("gateway.toml")
        .with("accept = 3001", format!("accept = \"127.0.0.1:{}\"", at[0]))
        .with("127.0.0.1:9464", local(at[1]))
        .with("psk-secrets = \"keys\"", format!("psk-secrets = \"{}\"", keys.display()))
        .with("10.20.0.1:3000", plcs[0].address())
        .with("10.20.0.2:3000", plcs[1].address());
    PskgateBuilder::new().toml(&text.0).start()
}

fn folder_of(identities: &[&str]) -> TempDir {
    let folder = TempDir::new().expect("a folder of keys");
    identities.iter().for_each(|identity| write_key(folder.path(), identity));
    folder
}

fn gateways(_: Size) -> Vec<Trips> {
    let keys = folder_of(&["plc-01", "plc-02.anna", "plc-02.ben", "plc-03"]);
    let plcs = [plc(1), plc(2)];
    let ports = [free_port(), free_port()];
    let gateway = gateway(keys.path(), ports, &plcs);
    let at = gateway.address("plant");
    let (_one, answer) = ask("plc-01", at).expect("PLC 1 is reached");
    assert_eq!(answer, 1);
    let (mut anna, answer) = ask("plc-02.anna", at).expect("PLC 2 is reached");
    assert_eq!(answer, 2);
    // To PLC 2 they are one.
    assert!(ask("plc-02.ben", at).is_none(), "a second session of PLC 2");
    assert!(ask("plc-03", at).is_none(), "a backend for an identity that has none");
    assert_eq!(ask_again(&mut anna), Some(2), "and nobody has noticed");
    let page = web::get(local(ports[1]), "/metrics").body;
    let line = "pskgate_identity_sessions{service=\"plant\",identity=\"plc-02\"} 1";
    assert!(page.contains(line), "no {line} in\n{page}");
    drop(anna);
    until("ben's turn", WAIT_TIMEOUT, || ask("plc-02.ben", at).filter(|(_, answer)| *answer == 2));
    Vec::new()
}

fn replicas(size: Size) -> Vec<Trips> {
    let keys = folder_of(&["plc-01", "plc-02.anna", "plc-02.ben"]);
    let plcs = [plc(1), plc(2)];
    let ports = [[free_port(), free_port()], [free_port(), free_port()]];
    let mut first = gateway(keys.path(), ports[0], &plcs);
    let second = gateway(keys.path(), ports[1], &plcs);
    let front = local(free_port());
    let text = Example::of("haproxy.cfg")
        .with("bind :3001", format!("bind {front}"))
        .with("10.20.0.11:3001", local(ports[0][0]))
        .with("10.20.0.12:3001", local(ports[1][0]));
    let file = keys.path().join(".haproxy.cfg");
    write_private(&file, &text.0);
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&file);
    let _haproxy = Process::spawn("haproxy", "the Debian package haproxy", &mut command);

    let opened = |gate: &Pskgate| gate.log().matches("session opened").count();
    // A line may be a moment behind its session.
    let has_opened = |gate: &Pskgate, wanted: usize| {
        until(&format!("session {wanted}"), WAIT_TIMEOUT, || {
            (opened(gate) == wanted).then_some(())
        });
    };
    let ask_until = |what: &str| until(what, WAIT_TIMEOUT, || ask("plc-01", front));
    let (mut session, answer) = ask_until("a session by way of HAProxy");
    has_opened(&first, 1);
    assert_eq!((answer, opened(&second)), (1, 0), "the first is the one in use");
    for _ in 0..size.pick(1, 3) {
        // It goes, and the other takes its place; the peer connects anew.
        let before = opened(&second);
        assert_eq!(first.terminate(), Some(0));
        assert_eq!(ask_again(&mut session), None, "the session went with its gateway");
        let (mut at_second, _) = ask_until("a session at the other gateway");
        has_opened(&second, before + 1);
        // It comes back, and so does everybody: no PLC is behind two gateways.
        first = gateway(keys.path(), ports[0], &plcs);
        until("the sessions at the other to end", WAIT_TIMEOUT, || {
            ask_again(&mut at_second).is_none().then_some(())
        });
        session = until("a session at the first", WAIT_TIMEOUT, || ask("plc-01", front)).0;
        has_opened(&first, 1);
    }
    Vec::new()
}

fn keys(size: Size) -> Vec<Trips> {
    mounted(size);
    written(size);
    Vec::new()
}

/// As a Secret's volume: names are links into `..data`, which is a link to a folder that is replaced.
fn mounted(size: Size) {
    let volume = TempDir::new().expect("a volume");
    let version = |number: usize, identities: &[&str]| {
        let name = format!("..2027_{number}");
        let folder = volume.path().join(&name);
        fs::create_dir(&folder).expect("a folder");
        identities.iter().for_each(|identity| write_key(&folder, identity));
        symlink(&name, volume.path().join("..data_tmp")).expect("a link");
        fs::rename(volume.path().join("..data_tmp"), volume.path().join("..data"))
            .expect("the swap");
        // The names that users see come and go after that, as the kubelet has it.
        let entries: Vec<PathBuf> = fs::read_dir(volume.path())
            .expect("the volume")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
            .collect();
        for path in entries {
            if !path.exists() {
                fs::remove_file(path).expect("a link that leads nowhere");
            }
        }
        for identity in identities {
            let link = volume.path().join(format!("{identity}.txt"));
            if link.symlink_metadata().is_err() {
                symlink(format!("..data/{identity}.txt"), link).expect("a link");
            }
        }
    };
    version(0, &["plc-01", "plc-02.anna"]);
    let plcs = [plc(1), plc(2)];
    let gateway = gateway(volume.path(), [free_port(), free_port()], &plcs);
    rounds(size, gateway.address("plant"), &mut |number, identities| version(number, identities));
}

/// By examples/fleet/keys.yml.
fn written(size: Size) {
    let folder = TempDir::new().expect("a folder");
    let keys = folder.path().join("keys");
    let inventory = folder.path().join("inventory");
    fs::write(&inventory, "[gateways]\nlocalhost ansible_connection=local\n")
        .expect("an inventory");
    let play = |identities: &[&str]| {
        let dictionary: serde_json::Map<_, _> =
            identities.iter().map(|one| ((*one).to_owned(), key(one).into())).collect();
        let more = serde_json::json!({
            "plcs": dictionary, "keys": keys.display().to_string(), "owner": "root", "group": "root",
        });
        let mut command = Command::new("ansible-playbook");
        command.arg("-i").arg(&inventory).arg(root().join("examples/fleet/keys.yml"));
        command.args(["-e", &more.to_string()]).env("HOME", folder.path());
        command.env("LC_ALL", "C.UTF-8").current_dir(folder.path());
        let mut process =
            Process::spawn("ansible-playbook", "the Debian package ansible-core", &mut command);
        let status = process.wait(Duration::from_secs(120));
        let said = process.text();
        assert!(status.success(), "ansible-playbook: {said}");
        for identity in identities {
            assert!(!said.contains(key(identity)), "it shows a key:\n{said}");
        }
    };
    play(&["plc-01", "plc-02.anna"]);
    let plcs = [plc(1), plc(2)];
    let gateway = gateway(&keys, [free_port(), free_port()], &plcs);
    rounds(size, gateway.address("plant"), &mut |_, identities| play(identities));
}

/// Keys come and go: their holders do, and nobody else notices.
fn rounds(size: Size, at: SocketAddr, change: &mut dyn FnMut(usize, &[&str])) {
    let (mut stays, _) = ask("plc-01", at).expect("PLC 1");
    for number in 0..size.pick(1, 3) {
        let (mut anna, _) = until("anna", WAIT_TIMEOUT, || ask("plc-02.anna", at));
        assert!(ask("plc-02.ben", at).is_none(), "ben has no key yet");
        change(2 * number + 1, &["plc-01", "plc-02.ben"]);
        until("anna's session to end with her key", WAIT_TIMEOUT, || {
            ask_again(&mut anna).is_none().then_some(())
        });
        drop(until("ben", WAIT_TIMEOUT, || ask("plc-02.ben", at)));
        change(2 * number + 2, &["plc-01", "plc-02.anna"]);
        until("ben to be out", WAIT_TIMEOUT, || ask("plc-02.ben", at).is_none().then_some(()));
        assert_eq!(ask_again(&mut stays), Some(1), "who has nothing to do with it");
    }
}

/// examples/fleet/plc.toml on two PLCs, prometheus-end.toml and prometheus.yml beside Prometheus.
fn prometheus(_: Size) -> Vec<Trips> {
    const SCRAPER: &str =
        "YSBrZXkgb2YgUHJvbWV0aGV1cycsIHdoaWNoIG9wZW5zIGZpZ3VyZXMgYW5kIG5vIFBMQy4u";
    let backend = plc(1);
    let scraper = secret("prometheus", SCRAPER);
    let plc_end = |_| {
        let text = Example::of("plc.toml")
            .with("accept = 3001", "accept = \"127.0.0.1:0\"")
            .with("accept = 3002", "accept = \"127.0.0.1:0\"")
            .with("127.0.0.1:9464", local(free_port()))
            .with("127.0.0.1:3000", backend.address());
        PskgateBuilder::new()
            .file("psk.txt", &secret("plc-01", KEY))
            .file("prometheus.txt", &scraper)
            .toml(&text.0)
            .start()
    };
    let ends = [0, 1].map(plc_end);
    let figures = [local(free_port()), local(free_port()), local(free_port())];
    let text = Example::of("prometheus-end.toml")
        .with("127.0.0.1:9463", figures[0])
        .with("127.0.0.1:9501", figures[1])
        .with("127.0.0.1:9502", figures[2])
        .with("plc-01.example:3002", ends[0].address("metrics"))
        .with("plc-02.example:3002", ends[1].address("metrics"));
    let _beside = PskgateBuilder::new().file("prometheus.txt", &scraper).toml(&text.0).start();
    let keys = folder_of(&["plc-01"]);
    let ports = [free_port(), free_port()];
    let plcs = [plc(1), plc(2)];
    let gateway = gateway(keys.path(), ports, &plcs);
    let (_session, _) = ask("plc-01", gateway.address("plant")).expect("PLC 1");

    let text = Example::of("prometheus.yml")
        .with("127.0.0.1:9464", local(ports[1]))
        .with("127.0.0.1:9463", figures[0])
        .with("127.0.0.1:9501", figures[1])
        .with("127.0.0.1:9502", figures[2])
        .with("15s", "1s")
        .with("60s", "1s");
    let folder = TempDir::new().expect("a folder for Prometheus");
    let config = folder.path().join("prometheus.yml");
    fs::write(&config, &text.0).expect("written");
    let at = local(free_port());
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address={at}"));
    let process = Process::spawn("prometheus", "the Debian package prometheus", &mut command);
    process.wait_for("Server is ready", Duration::from_secs(60));
    let sees = |query: &str, wanted: usize| {
        until(&format!("{wanted} of {query}"), Duration::from_secs(60), || {
            let answer = web::get(at, &format!("/api/v1/query?query={query}")).json();
            let found = answer["data"]["result"].as_array().map_or(0, Vec::len);
            (found == wanted).then_some(())
        });
    };
    // Of every end, and of every PLC by its name.
    sees("up==1", 4);
    sees("pskgate_sessions%7Bend=%22plc-01%22%7D", 2);
    sees("pskgate_identity_sessions%7Bidentity=%22plc-01%22,end=%22gateway%22%7D==1", 1);
    Vec::new()
}
