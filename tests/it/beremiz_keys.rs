//! Keys that Beremiz writes: the runtime's own file, a project's folder, and keys that have yet to come.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::openssl::psk_of;
use crate::harness::process::{Finished, pskgate};
use crate::harness::{
    Backend, KEY, OTHER_KEY, OpensslClient, Pskgate, PskgateBuilder, Tls, WAIT_TIMEOUT, secret,
    server_toml, until,
};

/// EX_USAGE, EX_CANTCREAT and EX_CONFIG of sysexits.h.
const USAGE: i32 = 64;
const CANNOT_CREATE: i32 = 73;
const CONFIG: i32 = 78;

fn said(done: &Finished) -> String {
    format!("{}{}", done.out, done.err)
}

/// As the runtime and the IDE write: readable by everybody, without a line feed.
fn write_open(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    set_mode(path, 0o644);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn line(identity: &str, key: &str) -> String {
    secret(identity, key).trim_end().to_owned()
}

/// Whether a client with this key gets in.
fn gets_in(server: &Pskgate, identity: &str, key: &str) -> bool {
    let mut arguments = vec![Tls::V13.flag().to_owned(), "-quiet".to_owned()];
    arguments.extend(psk_of(identity, key));
    let mut client = OpensslClient::start(server.address("tls"), arguments);
    client.type_in("ping\n");
    until("an answer or an end", WAIT_TIMEOUT, || {
        let answered = client.out().contains("ping");
        (answered || client.ended().is_some()).then_some(answered)
    })
}

fn status(server: &Pskgate) -> String {
    let done = pskgate(server.folder(), &["status", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}", said(&done));
    done.out
}

#[test]
fn a_service_waits_for_the_runtimes_file_and_follows_it() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "runtime-file = true"));
    let file = gate.folder().join("psk.txt");
    fs::remove_file(&file).unwrap();
    let server = gate.start();
    server.wait_logged("waiting for the key file");
    assert!(status(&server).contains("waiting for the key file"), "{}", status(&server));
    assert!(!gets_in(&server, "PLC1", KEY), "nobody has a key");
    let unknown = server.wait_logged("unknown identity");
    assert!(unknown.contains("PLC1"), "{unknown}");
    assert_eq!(backend.accepted(), 0);

    write_open(&file, &line("PLC1", KEY));
    server.wait_logged("added \"PLC1\"");
    assert!(gets_in(&server, "PLC1", KEY), "its key counts now");
    let shown = status(&server);
    assert!(shown.contains("every user of this machine may read"), "it stays in sight: {shown}");

    write_open(&file, &line("PLC1", OTHER_KEY));
    server.wait_logged("replaced \"PLC1\"");
    assert!(gets_in(&server, "PLC1", OTHER_KEY) && !gets_in(&server, "PLC1", KEY));

    // A second line would be part of the runtime's key; a file that goes keeps its keys.
    write_open(&file, &(secret("PLC1", OTHER_KEY) + &line("anna", KEY)));
    server.wait_logged("second line in a runtime's own file");
    assert!(gets_in(&server, "PLC1", OTHER_KEY) && !gets_in(&server, "anna", KEY));
    fs::remove_file(&file).unwrap();
    server.wait_logged("cannot read the key file");
    assert!(gets_in(&server, "PLC1", OTHER_KEY));
}

#[test]
fn a_service_that_waits_for_the_first_file_of_a_folder_says_so() {
    let backend = Backend::echo();
    let text =
        server_toml(backend.address(), "wait-for-keys = true").replace("\"psk.txt\"", "\"psk.d\"");
    let gate = PskgateBuilder::new().toml(&text);
    let folder = gate.folder().join("psk.d");
    fs::create_dir(&folder).unwrap();
    let server = gate.start();
    server.wait_logged("waiting for a key file in");
    assert!(status(&server).contains("waiting for a key file in"), "{}", status(&server));
    fs::write(folder.join("anna"), secret("anna", KEY)).unwrap();
    set_mode(&folder.join("anna"), 0o600);
    server.wait_logged("added \"anna\"");
    assert!(gets_in(&server, "anna", KEY));
    assert!(!status(&server).contains("waiting for"), "{}", status(&server));
}

#[test]
fn what_is_not_declared_is_as_strict_as_ever() {
    let gate = PskgateBuilder::new().toml(&server_toml("127.0.0.1:3000", ""));
    let (folder, file) = (gate.folder(), gate.folder().join("psk.txt"));
    let check = || pskgate(folder, &["check", "pskgate.toml"]);
    write_open(&file, &line("PLC1", KEY));
    assert_eq!(check().code, Some(CONFIG), "it looks like a runtime's, and nobody said so");
    fs::remove_file(&file).unwrap();
    assert_eq!(check().code, Some(CONFIG), "nobody said that it may be missing");

    let declared = server_toml("127.0.0.1:3000", "runtime-file = true");
    fs::write(folder.join("pskgate.toml"), &declared).unwrap();
    write_open(&file, &line("PLC1", KEY));
    let done = check();
    assert_eq!(done.code, Some(0), "{}", said(&done));
    assert!(done.err.contains("umask 077"), "{}", done.err);
    for mode in [0o646, 0o664, 0o666] {
        set_mode(&file, mode);
        assert_eq!(check().code, Some(CONFIG), "others may change it: {mode:o}");
    }
    set_mode(&file, 0o644);
    // What else the service reads is nobody's but the operator's.
    let two = declared.replace("\"psk.txt\"", "[\"psk.txt\", \"engineers.txt\"]");
    fs::write(folder.join("pskgate.toml"), two).unwrap();
    write_open(&folder.join("engineers.txt"), &secret("anna", OTHER_KEY));
    assert_eq!(check().code, Some(CONFIG), "engineers.txt is readable by everybody");
    set_mode(&folder.join("engineers.txt"), 0o600);
    assert_eq!(check().code, Some(0));
    let client = "[services.x]\nmode = \"client\"\naccept = \"127.0.0.1:0\"\nconnect = \"h:1\"\n\
                  psk-secrets = \"psk.txt\"\nruntime-file = true\n";
    fs::write(folder.join("pskgate.toml"), client).unwrap();
    let done = check();
    assert_eq!(done.code, Some(CONFIG));
    assert!(done.err.contains("is for a server"), "{}", done.err);
}

#[test]
fn nothing_is_added_to_a_runtimes_own_file() {
    let gate = PskgateBuilder::new().toml(&server_toml("127.0.0.1:3000", "runtime-file = true"));
    let folder = gate.folder();
    let file = folder.join("psk.txt");
    let again = |arguments: &[&str], code| {
        let before = fs::read(&file).unwrap();
        let done = pskgate(folder, arguments);
        assert_eq!(done.code, Some(code), "{arguments:?}: {}", said(&done));
        if code != 0 {
            assert_eq!(fs::read(&file).unwrap(), before, "{arguments:?}");
            assert!(done.err.contains("runtime's own file"), "{}", done.err);
        }
    };
    fs::write(folder.join("other.txt"), secret("anna", OTHER_KEY)).unwrap();
    again(&["keygen", "anna", "--append", "psk.txt"], CANNOT_CREATE);
    again(&["keys", "rotate", "client1", "pskgate.toml"], CANNOT_CREATE);
    again(&["keys", "import", "other.txt", "--file", "psk.txt"], CANNOT_CREATE);
    // Nobody declares it, but it looks like one.
    fs::remove_file(folder.join("pskgate.toml")).unwrap();
    fs::write(&file, line("PLC1", KEY)).unwrap();
    again(&["keygen", "anna", "--append", "psk.txt"], CANNOT_CREATE);
    again(&["keygen", "anna", "--append", "psk.txt", "--force"], 0);
    // Now it has two lines and a line feed.
    again(&["keygen", "bert", "--append", "psk.txt"], 0);
}

#[test]
fn a_projects_folder_is_read_as_the_ide_keeps_it() {
    let backend = Backend::echo();
    let text = server_toml(backend.address(), "beremiz-project = \"project\"")
        .replace("psk-secrets = \"psk.txt\"\n", "");
    let gate = PskgateBuilder::new().toml(&text);
    let project = gate.folder().join("project");
    let psk = project.join("psk");
    fs::create_dir_all(&psk).unwrap();
    write_open(&psk.join("PLC1.secret"), &line("PLC1", KEY));
    write_open(&psk.join("PLC2.secret"), &line("PLC2", OTHER_KEY));
    write_open(&psk.join(".secret"), ":");
    write_open(&psk.join("PLC3.secret"), ":");
    write_open(&psk.join("PLC4.secret"), "nothing");
    write_open(&psk.join("notes.txt"), "call: the plant before 2 o'clock, always");
    let management = "[[\"PLC1\", \"ERPCS://plc:4000#PLC1\", \"hall 3\", 1767225600.5]]";
    write_open(&psk.join("management.json"), management);
    let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}", said(&done));
    for wanted in ["2 identities", "PLC3.secret is passed over", "PLC4.secret is passed over"] {
        assert!(said(&done).contains(wanted), "`{wanted}` is not in: {}", said(&done));
    }
    assert!(done.err.contains("every user of this machine may read"), "{}", done.err);

    write_open(&psk.join("management.json"), "[[\"PLC1\", ");
    let folder = gate.folder().to_owned();
    let server = gate.start();
    server.wait_logged("is not the list that the IDE writes");
    assert!(gets_in(&server, "PLC1", KEY) && gets_in(&server, "PLC2", OTHER_KEY));
    fs::remove_file(psk.join("PLC2.secret")).unwrap();
    server.wait_logged("removed \"PLC2\"");
    assert!(!gets_in(&server, "PLC2", OTHER_KEY));
    // The IDE's other files are not looked at: neither now, nor at each round of the watcher.
    write_open(&psk.join("notes.txt"), "call: the plant before 3 o'clock, always");
    write_open(&psk.join("PLC5.secret"), &line("PLC5", OTHER_KEY));
    server.wait_logged("added \"PLC5\"");
    let reloads = || server.log().matches(": reloaded;").count();
    assert_eq!(reloads(), 2, "{}", server.log());

    let check = || pskgate(&folder, &["check", "pskgate.toml"]).code;
    set_mode(&psk.join("PLC1.secret"), 0o646);
    assert_eq!(check(), Some(CONFIG), "everybody may change it");
    set_mode(&psk.join("PLC1.secret"), 0o644);
    set_mode(&psk, 0o777);
    assert_eq!(check(), Some(CONFIG), "everybody may place a key");
}

#[test]
fn an_unpacked_export_and_a_keystore_are_projects_too() {
    let text = server_toml("127.0.0.1:3000", "beremiz-project = \"place\"")
        .replace("psk-secrets = \"psk.txt\"\n", "");
    let gate = PskgateBuilder::new().toml(&text);
    let place = gate.folder().join("place");
    let check = || {
        let done = pskgate(gate.folder(), &["check", "pskgate.toml"]);
        (done.code, said(&done))
    };
    assert_eq!(check().0, Some(CONFIG), "there is none");
    fs::create_dir_all(&place).unwrap();
    write_open(&place.join("PLC1.secret"), &line("PLC1", KEY));
    let (code, text) = check();
    assert!(code == Some(0) && text.contains("1 identity"), "{text}");
    fs::remove_dir_all(&place).unwrap();
    fs::create_dir_all(place.join("own")).unwrap();
    write_open(&place.join("own/default.psk"), &line("anna", KEY));
    let (code, text) = check();
    assert!(code == Some(0) && text.contains("1 identity"), "{text}");
}

#[test]
fn keygen_writes_a_key_where_the_ide_looks_for_it() {
    let gate = PskgateBuilder::new();
    let folder = gate.folder();
    let psk = folder.join("project/psk");
    fs::create_dir_all(&psk).unwrap();
    let list = "[[\"PLC0\",  \"PYRO://a:3000\", \"first\", null]]\n";
    fs::write(psk.join("management.json"), list).unwrap();
    let both = ["keygen", "PLC1", "--beremiz", "project", "--output", "runtime.txt"];
    let done = pskgate(folder, &both);
    assert_eq!(done.code, Some(0), "{}", said(&done));
    let secret = fs::read_to_string(psk.join("PLC1.secret")).unwrap();
    assert!(secret.starts_with("PLC1:") && !secret.contains('\n'), "as the IDE writes it");
    let mode = psk.join("PLC1.secret").metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(fs::read_to_string(folder.join("runtime.txt")).unwrap().trim_end(), secret);
    let now = fs::read_to_string(psk.join("management.json")).unwrap();
    let start = list.trim_end().strip_suffix(']').unwrap();
    assert_eq!(now, format!("{start}, [\"PLC1\",\"\",\"\",null]]\n"), "no other byte has changed");

    let before = fs::read(psk.join("PLC1.secret")).unwrap();
    for again in [&both[..], &both[..4]] {
        assert_eq!(pskgate(folder, again).code, Some(CANNOT_CREATE));
    }
    assert_eq!(fs::read(psk.join("PLC1.secret")).unwrap(), before);
    // What cannot be written leaves nothing behind.
    let refused = ["keygen", "PLC2", "--beremiz", "project", "--output", "runtime.txt"];
    assert_eq!(pskgate(folder, &refused).code, Some(CANNOT_CREATE));
    assert!(!psk.join("PLC2.secret").exists());
    let list = fs::read_to_string(psk.join("management.json")).unwrap();
    assert!(!list.contains("PLC2"), "nothing was changed: {list}");
}

/// A folder without one key file changes nothing; what else is in a project is no key file.
#[test]
fn a_key_that_is_removed_from_a_project_with_other_files_is_gone() {
    let backend = Backend::echo();
    let text = server_toml(backend.address(), "beremiz-project = \"project\"")
        .replace("\"psk.txt\"", "\"engineers.txt\"");
    let gate = PskgateBuilder::new().file("engineers.txt", &line("anna", OTHER_KEY)).toml(&text);
    let psk = gate.folder().join("project/psk");
    fs::create_dir_all(&psk).unwrap();
    write_open(&psk.join("PLC1.secret"), &line("PLC1", KEY));
    write_open(&psk.join("notes.txt"), "call: the plant before 2 o'clock, always");
    let folder = gate.folder().to_owned();
    let server = gate.start();
    assert!(gets_in(&server, "PLC1", KEY));
    let done = pskgate(&folder, &["keys", "remove", "PLC1", "pskgate.toml"]);
    assert_eq!(done.code, Some(0), "{}", said(&done));
    server.wait_logged("removed \"PLC1\"");
    assert!(!gets_in(&server, "PLC1", KEY) && gets_in(&server, "anna", OTHER_KEY));
}

#[test]
fn the_keys_of_clients_are_imported_as_windows_writes_them() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let folder = server.folder().to_owned();
    let third = OTHER_KEY.to_uppercase();
    let utf16 = |text: &str| -> Vec<u8> {
        [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    fs::write(folder.join("anna.txt"), utf16(&format!("anna:{OTHER_KEY}\r\n"))).unwrap();
    fs::write(folder.join("bert.txt"), format!("\u{feff}bert:{third}\r\n")).unwrap();
    set_mode(&folder.join("psk.txt"), 0o600);
    let done = pskgate(&folder, &["keys", "import", "anna.txt", "bert.txt", "--file", "psk.txt"]);
    assert_eq!(done.code, Some(0), "{}", said(&done));
    assert!(done.err.contains("line 2") && done.err.contains("line 3"), "{}", done.err);
    assert!(!said(&done).contains(OTHER_KEY) && !said(&done).contains(&third));
    let text = fs::read_to_string(folder.join("psk.txt")).unwrap();
    assert!(text.ends_with(&format!("anna:{OTHER_KEY}\nbert:{third}\n")), "plain lines");
    until("anna", WAIT_TIMEOUT, || gets_in(&server, "anna", OTHER_KEY).then_some(()));

    let import = |files: &[&str]| {
        let done = pskgate(&folder, &[&["keys", "import"], files].concat());
        assert_eq!(fs::read_to_string(folder.join("psk.txt")).unwrap(), text, "{}", said(&done));
        (done.code, done.err)
    };
    let (code, words) = import(&["anna.txt", "pskgate.toml"]);
    assert_eq!(code, Some(CANNOT_CREATE));
    assert!(words.contains("line 2") && words.contains("anna.txt:1"), "both places: {words}");
    fs::write(folder.join("new.txt"), secret("carl", &OTHER_KEY.to_lowercase())).unwrap();
    let (code, words) = import(&["new.txt", "new.txt", "--file", "psk.txt"]);
    assert_eq!(code, Some(CANNOT_CREATE));
    assert!(words.contains("new.txt:1 and in"), "{words}");
    // A project's folder that is not there yet is no file to be made.
    let project = server_toml("127.0.0.1:1", "beremiz-project = \"project\"")
        .replace("psk-secrets = \"psk.txt\"\n", "");
    fs::create_dir(folder.join("project")).unwrap();
    fs::write(folder.join("ide.toml"), project).unwrap();
    let (code, words) = import(&["new.txt", "ide.toml"]);
    assert!(code == Some(USAGE) && words.contains("--file"), "{words}");
    assert!(!folder.join("project/psk").exists());
    fs::write(folder.join("bad.txt"), "no key here\n").unwrap();
    assert_eq!(import(&["new.txt", "bad.txt", "--file", "psk.txt"]).0, Some(CONFIG));
    let checked = PskgateBuilder::new().toml(&server_toml("127.0.0.1:1", ""));
    fs::write(checked.folder().join("psk.txt"), utf16(&secret("anna", KEY))).unwrap();
    let done = pskgate(checked.folder(), &["check", "pskgate.toml"]);
    assert!(done.err.contains("UTF-16") && done.err.contains("keys import"), "{}", done.err);
}
