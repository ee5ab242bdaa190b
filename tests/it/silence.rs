//! No word about a key: everything that the program says, at its most talkative, while all goes well
//! and while everything goes wrong, searched for the keys as text, as hex and as bytes.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use pskgate::secrets::{
    Identity, IdentityRule, KeyFileRules, OnDuplicate, OnLoosePermissions, PeerKeys, SecretSet,
};

use rustix::process::Signal;

use crate::harness::openssl::psk_of;
use crate::harness::process::pskgate;
use crate::harness::stage::need_root;
use crate::harness::{
    Backend, OpensslClient, PlainClient, Process, Pskgate, PskgateBuilder, Tls, WAIT_TIMEOUT,
    client_toml, free_port, local, replace, secret, server_toml, until,
};

/// The keys that must not be told: one that is written in hex, one that is not, and the third that
/// is never anything but wrong.
const HEX: &str = "9f1c27d4b8065ae3719f44c0d2be8a5315f7e06c3b928d41a6c8f05e7d3b1942";
const TEXT: &str = "ZmlzaCBhbmQgY2hpcHMgYXJlIGVhdGVuIGluIHNpbGVuY2Ugb24gdGhlIGJlYWNo";
const WRONG: &str = "d3JvbmcgYXMgYSBrZXkgY2FuIGJlLCBhbmQgeWV0IG5vYm9keSBtYXkgdGVsbCBp";

/// As much of a key, in whatever form, as is too much.
const PIECE: usize = 10;

/// Every form that a key could be told in.
fn forms() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for key in [HEX, TEXT, WRONG] {
        let mut bytes = vec![key.as_bytes().to_vec()];
        bytes.extend(HEXLOWER.decode(key.as_bytes()).ok());
        for bytes in bytes {
            all.push(HEXLOWER.encode(&bytes).into_bytes());
            all.push(HEXUPPER.encode(&bytes).into_bytes());
            all.push(BASE64.encode(&bytes).into_bytes());
            // As a list of numbers, which is what Rust makes of bytes.
            all.push(format!("{bytes:?}").into_bytes());
            all.push(bytes);
        }
    }
    all
}

#[track_caller]
fn silent(what: &str, said: &[u8]) {
    // A list of numbers has short words: more of them make as much.
    for (numbers, piece) in [(false, PIECE), (true, 3 * PIECE)] {
        let forms = forms();
        let forms = forms.iter().filter(|form| form.starts_with(b"[") == numbers);
        let parts: HashSet<&[u8]> = forms.flat_map(|form| form.windows(piece)).collect();
        let found = said.windows(piece).find(|window| parts.contains(window));
        let found = found.map(|part| String::from_utf8_lossy(part));
        assert!(found.is_none(), "{what} tells `{}`", found.unwrap_or_default());
    }
}

/// What came to a socket that stands for the journal's.
struct Journal {
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
    export: String,
}

impl Journal {
    fn new() -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("journal");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let export = format!(
            "export PSKGATE_JOURNAL_SOCKET='{}' JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr)",
            path.display()
        );
        Self { socket, _folder: folder, export }
    }

    fn take(&self, into: &mut Vec<u8>) {
        let mut message = vec![0; 1 << 18];
        while let Ok(length) = self.socket.recv(&mut message) {
            into.extend_from_slice(&message[..length]);
        }
    }
}

/// The key file, as it should be.
fn keys() -> String {
    secret("alice", HEX) + &secret("bob", TEXT)
}

fn get(at: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).expect("it listens");
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let host = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(host.as_bytes()).unwrap();
    let mut page = Vec::new();
    stream.read_to_end(&mut page).unwrap();
    assert!(page.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&page));
    page
}

#[test]
fn nothing_that_is_said_while_all_goes_well_or_wrong_has_a_piece_of_a_key() {
    for format in ["human", "json", "stunnel"] {
        everything(format);
    }
}

/// Whatever the log went to so far: the journal's socket, or standard error.
struct Told<'a> {
    gate: &'a Pskgate,
    journal: &'a Journal,
    heard: std::cell::RefCell<Vec<u8>>,
}

impl Told<'_> {
    fn all(&self) -> Vec<u8> {
        self.journal.take(&mut self.heard.borrow_mut());
        [&self.heard.borrow()[..], &self.gate.err_bytes(), self.gate.out().as_bytes()].concat()
    }

    fn count(&self, wanted: &str) -> usize {
        String::from_utf8_lossy(&self.all()).matches(wanted).count()
    }

    #[track_caller]
    fn wait(&self, wanted: &str) {
        let what = format!("`{wanted}` in {}", String::from_utf8_lossy(&self.all()));
        until(&what, WAIT_TIMEOUT, || (self.count(wanted) > 0).then_some(()));
    }
}

fn everything(format: &str) {
    let backend = Backend::echo();
    let journal = Journal::new();
    let (tls, http) = (free_port(), free_port());
    let head = format!(
        "[log]\nlevel = \"debug\"\nformat = \"{format}\"\n[http]\nlisten = \"127.0.0.1:{http}\"\n"
    );
    let server_at = |more: &str| {
        head.clone()
            + &server_toml(backend.address(), more)
                .replace("127.0.0.1:0", &format!("127.0.0.1:{tls}"))
    };
    let gate =
        PskgateBuilder::new().file("psk.txt", &keys()).toml(&server_at("")).shell(&journal.export);
    let server = gate.launch();
    let told = Told { gate: &server, journal: &journal, heard: Default::default() };
    until("it to listen", WAIT_TIMEOUT, || TcpStream::connect(local(tls)).ok());

    // Handshakes that succeed, at both ends, in both versions, with both keys.
    for version in Tls::BOTH {
        for (who, line) in [("alice", secret("alice", HEX)), ("bob", secret("bob", TEXT))] {
            let log = format!("[log]\nlevel = \"debug\"\nformat = \"{format}\"\n");
            let toml = client_toml(local(tls), version.toml()).replace("client1", who);
            let port = free_port();
            let toml = toml.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
            let client = PskgateBuilder::new().file("psk.txt", &line).toml(&(log + &toml)).launch();
            let plain =
                until("a client end", WAIT_TIMEOUT, || TcpStream::connect(local(port)).ok());
            PlainClient(plain).echo(b"there and back");
            silent("a client end", client.text().as_bytes());
        }
        // And those that fail: a wrong key, an unknown name, and no PSK at all.
        for (who, key) in [("alice", WRONG), ("nobody", WRONG)] {
            let arguments = psk_of(who, key).into_iter().chain([version.flag().to_owned()]);
            OpensslClient::start(local(tls), arguments).alert().expect("an alert");
        }
        OpensslClient::start(local(tls), [version.flag()]).alert();
    }
    // A client end with a wrong key, and garbage that is a key.
    let toml = client_toml(local(tls), "").replace("client1", "alice");
    let client = PskgateBuilder::new()
        .file("psk.txt", &secret("alice", WRONG))
        .toml(&format!("[log]\nlevel = \"debug\"\n{toml}"))
        .start();
    PlainClient::connect(client.address("plain")).end();
    silent("a client end with a wrong key", client.text().as_bytes());
    let mut stream = TcpStream::connect(local(tls)).unwrap();
    stream.write_all(format!("GET /{WRONG} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let _ = stream.set_read_timeout(Some(WAIT_TIMEOUT));
    let _ = stream.read_to_end(&mut Vec::new());

    // Reloads: key files with every mistake that has a key on its line, and good ones.
    let key_file = server.folder().join("psk.txt");
    let refused = |told: &Told<'_>| {
        told.count(if format == "stunnel" { "Failed to reload" } else { ": not reloaded" })
    };
    for broken in [
        format!("{TEXT}\n"),
        format!("{HEX}\n"),
        format!("alice={TEXT}\n"),
        format!("# alice {HEX}\n"),
        format!("alice:{HEX}\nalice:{TEXT}\n"),
        format!("alice:{}\n", &TEXT[..12]),
        format!("alice:{}\n", TEXT.repeat(9)),
        format!("{}{TEXT}:\n", TEXT.repeat(4)),
        format!("al\u{7}ice:{TEXT}\n"),
        "alice:\n".to_owned(),
    ] {
        let before = refused(&told);
        replace(&key_file, &(broken + &keys()));
        let what = format!("a refused reload in {}", String::from_utf8_lossy(&told.all()));
        until(&what, WAIT_TIMEOUT, || (refused(&told) > before).then_some(()));
    }
    // Warned about, and taken: nearly hex, padded.
    replace(&key_file, &format!("{}eve:{}\nmallory: {TEXT}\n", keys(), &HEX[1..]));
    told.wait("looks like hex");
    // A key where a file's name belongs.
    let config = server.folder().join("pskgate.toml");
    let before = refused(&told);
    let text = server_at("").replace("\"psk.txt\"", &format!("\"eve:{WRONG}\""));
    replace(&config, &text);
    until("a refused reload", WAIT_TIMEOUT, || (refused(&told) > before).then_some(()));
    let run = |arguments: &[&str]| {
        let done = pskgate(server.folder(), arguments);
        silent(&format!("{arguments:?}"), format!("{}{}", done.out, done.err).as_bytes());
    };
    run(&["check", "pskgate.toml"]);
    run(&["check", "--json", "pskgate.toml"]);
    run(&["doctor", "pskgate.toml"]);
    replace(&config, &server_at(""));

    // Whoever looks, and whoever orders, while a session is open.
    let mut session = OpensslClient::start(local(tls), psk_of("bob", TEXT));
    session.echo("there and back");
    for arguments in [
        &["status", "pskgate.toml"][..],
        &["status", "--json", "pskgate.toml"],
        &["sessions", "pskgate.toml"],
        &["reload", "pskgate.toml"],
        &["check", "--effective", "pskgate.toml"],
        &["doctor", "--json", "pskgate.toml"],
        &["keys", "list", "pskgate.toml"],
        &["keys", "list", "--json", "pskgate.toml"],
        &["keys", "rotate", "bob", "pskgate.toml"],
        &["keys", "remove", "mallory", "pskgate.toml"],
        &["kick", "bob", "pskgate.toml"],
    ] {
        run(arguments);
    }
    for path in ["/metrics", "/healthz", "/readyz", "/", "/status.json"] {
        silent(path, &get(local(http), path));
    }
    // The list of sessions goes to the log, and the end has its lines, too.
    server.signal(Signal::USR2);
    server.signal(Signal::TERM);
    until("its end", WAIT_TIMEOUT, || {
        let status = fs::read_to_string(format!("/proc/{}/status", server.id())).ok()?;
        status.contains("State:\tZ").then_some(())
    });
    let all = told.all();
    assert!(told.count("alice") > 0 && all.len() > 4000, "is this the log?");
    silent(&format!("the {format} log"), &all);
    assert!(!told.heard.borrow().is_empty(), "the journal heard nothing");
}

/// A root directory in which the program and its libraries are, and a socket that stands for the
/// machine's syslog.
fn jail() -> (PskgateBuilder, UnixDatagram) {
    let gate = PskgateBuilder::new();
    let program = env!("CARGO_BIN_EXE_pskgate");
    let listed = Command::new("ldd").arg(program).output().expect("ldd, of the package libc-bin");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for from in libraries {
        let to = gate.folder().join(&from[1..]);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    let copy = gate.folder().join("pskgate");
    if fs::hard_link(program, &copy).is_err() {
        fs::copy(program, &copy).unwrap();
    }
    fs::create_dir(gate.folder().join("dev")).unwrap();
    let socket = UnixDatagram::bind(gate.folder().join("dev/log")).unwrap();
    socket.set_nonblocking(true).unwrap();
    (gate, socket)
}

#[test]
fn syslog_hears_no_piece_of_a_key_either() {
    need_root();
    let backend = Backend::echo();
    let (gate, syslog) = jail();
    let port = free_port();
    let section = format!(
        "foreground = quiet\ndebug = debug\nsyslog = yes\n[tls]\naccept = 127.0.0.1:{port}\n\
         connect = {}\nPSKsecrets = /psk.txt\n",
        backend.address()
    );
    let gate = gate.file("psk.txt", &keys()).file("stunnel.conf", &section);
    let mut command = Command::new("chroot");
    command.arg(gate.folder()).args(["/pskgate", "run", "/stunnel.conf"]);
    let process = Process::spawn("pskgate", "coreutils", &mut command);
    let mut heard = Vec::new();
    let mut wait = |wanted: &str| {
        until(&format!("`{wanted}` in syslog; {}", process.text()), WAIT_TIMEOUT, || {
            let mut message = [0; 8192];
            while let Ok(length) = syslog.recv(&mut message) {
                heard.extend_from_slice(&message[..length]);
                heard.push(b'\n');
            }
            String::from_utf8_lossy(&heard).contains(wanted).then_some(())
        });
    };
    wait("Accepting new connections");
    for version in Tls::BOTH {
        for (who, key) in [("bob", TEXT), ("alice", WRONG), ("nobody", WRONG)] {
            let arguments = psk_of(who, key).into_iter().chain([version.flag().to_owned()]);
            let mut client = OpensslClient::start(local(port), arguments);
            if key == TEXT {
                client.echo("there and back");
            } else {
                client.alert().expect("an alert");
            }
        }
    }
    wait("Key configured for PSK identity");
    for (broken, said) in [(format!("{TEXT}\n"), "no colon"), (format!("a:{}\n", &HEX[1..]), "hex")]
    {
        replace(&gate.folder().join("psk.txt"), &(broken + &keys()));
        wait(said);
    }
    process.signal(Signal::TERM);
    wait("stopped after");
    silent("syslog", &heard);
    silent("the program", process.text().as_bytes());
}

#[test]
fn what_a_panic_could_print_has_no_piece_of_a_key() {
    let gate = PskgateBuilder::new().file("psk.txt", &keys());
    let rules = KeyFileRules {
        duplicates: OnDuplicate::Refuse,
        identities: IdentityRule::Utf8,
        permissions: OnLoosePermissions::Refuse,
        also_owned_by: None,
        writer: pskgate::secrets::KeyFileWriter::Operator,
        may_wait_for_files: false,
    };
    let (set, _) = SecretSet::load(&[gate.folder().join("psk.txt")], rules, None).expect("a set");
    let set = Arc::new(set);
    let keys: PeerKeys = set.clone().into();
    let found = keys.find(b"alice").expect("she is known");
    let printed = format!("{set:?} {set:#?} {keys:?} {found:?} {:?}", Identity::new(b"alice"));
    let caught = std::panic::catch_unwind(|| panic!("{printed}")).unwrap_err();
    let text = caught.downcast_ref::<String>().expect("its text");
    assert!(text.contains("alice") && text.contains("64"), "{text}");
    silent("a panic", text.as_bytes());
}

#[test]
fn the_search_for_a_key_finds_one_in_each_form() {
    let raw = HEXLOWER.decode(HEX.as_bytes()).unwrap();
    for told in [
        HEX.to_owned().into_bytes(),
        HEX.to_uppercase().into_bytes(),
        raw[7..].to_vec(),
        format!("{:?}", raw).into_bytes(),
        TEXT[20..40].to_owned().into_bytes(),
        HEXLOWER.encode(&TEXT.as_bytes()[3..]).into_bytes(),
    ] {
        let said = [b"a line with ".as_slice(), &told, b" in it"].concat();
        assert!(std::panic::catch_unwind(|| silent("a test", &said)).is_err(), "{told:?}");
    }
}
