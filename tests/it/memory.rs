//! Where in a process' memory a key is: nowhere as text once it is read, at one place as bytes and at
//! one more for each TLS 1.3 session that lives, and nowhere at all when it has been taken away. And
//! that none of it can end in a core file.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;

use data_encoding::{BASE64, HEXLOWER};
use rustix::process::Signal;

use crate::harness::openssl::psk_of;
use crate::harness::process_memory::{count, memory};
use crate::harness::stage::need_root;
use crate::harness::{
    Backend, OTHER_KEY, OpensslClient, PlainClient, Pskgate, PskgateBuilder, Tls, WAIT_TIMEOUT,
    client_toml, replace, secret, server_toml, until,
};

const SESSIONS: usize = 3;

/// A key that stands nowhere else, not even in this test's binary: its text, and its bytes.
struct Fresh {
    text: String,
    bytes: Vec<u8>,
    is_hex: bool,
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).unwrap();
    bytes
}

impl Fresh {
    fn hex() -> Self {
        let bytes = random::<32>().to_vec();
        Self { text: HEXLOWER.encode(&bytes), bytes, is_hex: true }
    }

    fn base64() -> Self {
        let text = BASE64.encode(&random::<48>());
        Self { bytes: text.clone().into_bytes(), text, is_hex: false }
    }

    /// A freed block loses its first bytes to the allocator: a copy counts if its middle or its end is
    /// still there.
    fn parts(whole: &[u8]) -> [&[u8]; 2] {
        [&whole[whole.len() - 12..], &whole[whole.len() / 2 - 6..whole.len() / 2 + 6]]
    }

    /// How often its text, where that is not its bytes, and its bytes are in a process' memory.
    fn copies(&self, gate: &Pskgate) -> (usize, usize) {
        let memory = memory(gate.id());
        let most = |whole: &[u8]| {
            Self::parts(whole)
                .into_iter()
                .map(|part| count(&memory, part))
                .max()
                .unwrap_or_default()
        };
        let text = if self.is_hex { most(self.text.as_bytes()) } else { 0 };
        (text, most(&self.bytes))
    }

    #[track_caller]
    fn expect(&self, when: &str, gate: &Pskgate, wanted: (usize, usize)) {
        // What a handshake or a reload needed is gone a moment after its last word.
        let start = std::time::Instant::now();
        loop {
            let found = self.copies(gate);
            if found == wanted {
                return;
            }
            let kind = if self.is_hex { "hex" } else { "base64" };
            assert!(
                start.elapsed() < WAIT_TIMEOUT,
                "{when}, {kind} key: copies of text and bytes {found:?}, wanted {wanted:?}"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn reloaded(gate: &Pskgate, keys: &str, wanted: &str) {
    let count = || gate.log().matches(wanted).count();
    let before = count();
    replace(&gate.folder().join("psk.txt"), keys);
    until(&format!("`{wanted}` in {}", gate.log()), WAIT_TIMEOUT, || {
        (count() > before).then_some(())
    });
}

fn sessions(gate: &Pskgate, what: &str) -> usize {
    gate.log().matches(what).count()
}

#[test]
fn a_key_is_in_memory_once_and_once_a_session_in_13_and_gone_when_it_is_taken_away() {
    need_root();
    for tls in Tls::BOTH {
        for key in [Fresh::hex(), Fresh::base64()] {
            one_life(tls, &key);
        }
    }
}

fn one_life(tls: Tls, key: &Fresh) {
    let backend = Backend::echo();
    let other = Fresh::hex();
    let keys = secret("other", &other.text) + &secret("alice", &key.text);
    let debug = "[log]\nlevel = \"debug\"\n";
    let toml = debug.to_owned() + &server_toml(backend.address(), tls.toml());
    let server = PskgateBuilder::new().file("psk.txt", &keys).toml(&toml).start();
    let toml = client_toml(server.address("tls"), tls.toml()).replace("client1", "alice");
    let client =
        PskgateBuilder::new().file("psk.txt", &keys).toml(&(debug.to_owned() + &toml)).start();
    let ends = [("server", &server), ("client", &client)];
    let expect = |when: &str, bytes: usize| {
        for (end, gate) in ends {
            key.expect(&format!("{}, {end} end, {when}", tls.name()), gate, (0, bytes));
        }
    };
    expect("after the start", 1);

    let open = || {
        let plain = PlainClient::connect(client.address("plain"));
        plain.echo(b"there and back");
        plain
    };
    let living: Vec<_> = (0..SESSIONS).map(|_| open()).collect();
    // OpenSSL's session object holds it, in 1.3, for as long as the connection lives.
    let live = if tls == Tls::V13 { SESSIONS } else { 0 };
    expect("with sessions", 1 + live);

    // Neither a handshake that fails nor what is read again leaves anything.
    let mut stranger = OpensslClient::start(
        server.address("tls"),
        psk_of("alice", OTHER_KEY).into_iter().chain([tls.flag().to_owned()]),
    );
    assert!(stranger.alert().is_some());
    for (_, gate) in ends {
        reloaded(gate, &(keys.clone() + &secret("third", OTHER_KEY)), ": reloaded;");
        // The key's own line is the broken one: hex with a digit too few, and no identity.
        let broken = format!("{keys}{}\nbob:{}\n", key.text, &key.text[1..]);
        reloaded(gate, &broken, ": not reloaded");
    }
    expect("after reloads, one of them refused", 1 + live);

    drop(living);
    for (_, gate) in ends {
        until("the sessions' ends", WAIT_TIMEOUT, || {
            (sessions(gate, "session closed") >= SESSIONS).then_some(())
        });
    }
    expect("after sessions", 1);

    let cut = open();
    reloaded(&server, &secret("other", &other.text), ": reloaded;");
    let fresh = secret("other", &other.text) + &secret("alice", OTHER_KEY);
    reloaded(&client, &fresh, ": reloaded;");
    cut.end();
    expect("after it was taken away", 0);
    for (end, gate) in ends {
        other.expect(&format!("{end} end, the key that stayed"), gate, (0, 1));
    }
}

#[test]
fn neither_a_core_file_nor_a_process_of_its_own_user_gets_at_a_key() {
    need_root();
    let backend = Backend::echo();
    // The limit is the program's own doing: it is started with none.
    let toml = format!("user = \"nobody\"\n{}", server_toml(backend.address(), ""));
    let mut gate = PskgateBuilder::new().toml(&toml).shell("ulimit -c unlimited").start();
    let at = |name: &str| format!("/proc/{}/{name}", gate.id());
    let limits = fs::read_to_string(at("limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(line.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{line}");
    let status = fs::read_to_string(at("status")).unwrap();
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    // proc(5): the files of a process that is not dumpable belong to root, whoever it runs as.
    assert_eq!(fs::metadata(at("mem")).unwrap().uid(), 0, "it is dumpable");
    let folder = gate.folder().to_owned();
    // The first is taken for a thread that has used up its stack, which would come again by itself.
    let status = until("its end", WAIT_TIMEOUT, || {
        gate.signal(Signal::SEGV);
        gate.process().ended()
    });
    assert_eq!(status.signal(), Some(Signal::SEGV.as_raw()));
    assert!(!status.core_dumped(), "a core was dumped");
    let mut names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names.any(|name| name.to_string_lossy().contains("core")), "a core file is there");
}
