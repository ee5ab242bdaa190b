//! The commands that change key files, beside a running program.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::process::{Finished, pskgate};
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, PlainClient, Pskgate, PskgateBuilder,
    Stopwatch, WAIT_TIMEOUT, client_toml, free_port, local, secret, server_toml, until,
    write_private,
};

/// Runs a command that must go well, and show no key of any file in `folder` but on its output.
fn well(folder: &Path, arguments: &[&str]) -> Finished {
    let done = pskgate(folder, arguments);
    assert_eq!(done.code, Some(0), "{arguments:?}: {}{}", done.out, done.err);
    no_key(folder, &done.err);
    done
}

/// Runs a command that must be refused, and show no key either; what it said.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let done = pskgate(folder, arguments);
    assert!(done.code.is_some_and(|code| code != 0), "{arguments:?} went well: {}", done.err);
    assert_eq!(done.out, "", "{arguments:?}");
    no_key(folder, &done.err);
    done.err
}

/// Every key in every file under a folder.
fn keys(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(keys(&path));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let lines = text.lines().filter(|line| !line.contains([' ', '"']));
            found.extend(lines.filter_map(|line| Some(line.split_once(':')?.1.to_owned())));
        }
    }
    found.retain(|key| key.len() >= 16);
    found
}

fn no_key(folder: &Path, text: &str) {
    let keys = keys(folder);
    assert!(!keys.is_empty(), "there are keys to look for");
    for key in keys {
        assert!(!text.contains(&key), "a key is shown: {text}");
    }
}

/// The one fingerprint in a text.
fn fingerprint(text: &str) -> String {
    let is_one = |word: &&str| {
        word.len() == 19 && word.split('-').all(|part| u16::from_str_radix(part, 16).is_ok())
    };
    let words = text.split(|c: char| c != '-' && !c.is_ascii_alphanumeric());
    let found: Vec<_> = words.filter(is_one).collect();
    assert_eq!(found.len(), 1, "one fingerprint in: {text}");
    found[0].to_owned()
}

/// The table of `keys list --json`.
fn listed(folder: &Path, arguments: &[&str]) -> Vec<serde_json::Value> {
    let done = well(folder, &[&["keys", "list", "--json"], arguments].concat());
    no_key(folder, &done.out);
    serde_json::from_str(&done.out).expect("JSON")
}

fn text_of<'a>(row: &'a serde_json::Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_else(|| panic!("no {field} in {row}"))
}

fn server(backend: &Backend) -> Pskgate {
    PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start()
}

fn wait_reloads(gate: &Pskgate, wanted: usize) {
    until(&format!("{wanted} reloads"), WAIT_TIMEOUT, || {
        let log = gate.log();
        (log.lines().filter(|line| line.contains(": reloaded;")).count() >= wanted).then_some(())
    });
}

/// A client end that presents `identity` with the keys of this text.
fn client(server: &Pskgate, identity: &str, keys: &str) -> Pskgate {
    let toml = client_toml(server.address("tls"), "").replace(IDENTITY, identity);
    PskgateBuilder::new().file("psk.txt", keys).toml(&toml).start()
}

#[test]
fn a_running_server_lets_in_whom_keygen_adds_and_cuts_off_whom_keys_remove_names() {
    let backend = Backend::echo();
    let server = server(&backend);
    let first = client(&server, IDENTITY, &secret(IDENTITY, KEY));
    let neighbour = PlainClient::connect(first.address("plain"));
    neighbour.echo(b"before");

    let done = well(server.folder(), &["keygen", "client2", "--append", "psk.txt"]);
    assert_eq!(done.out, "", "the key is in the file alone");
    wait_reloads(&server, 1);
    let text = fs::read_to_string(server.folder().join("psk.txt")).expect("the key file");
    let line = text.strip_prefix(&secret(IDENTITY, KEY)).expect("the first line is as it was");
    let second = client(&server, "client2", line);
    let member = PlainClient::connect(second.address("plain"));
    member.echo(b"let in");

    let removed = well(server.folder(), &["keys", "remove", "client2", "pskgate.toml"]);
    let watch = Stopwatch::start();
    assert_eq!(member.end(), ConnectionEnd::Rst);
    // 300 ms until the change is taken, then at most a second.
    watch.expect_within(Duration::from_secs(2));
    assert_eq!(fingerprint(&removed.out), fingerprint(&done.err));
    assert!(removed.out.contains("psk.txt:2"), "{}", removed.out);
    assert!(removed.err.contains("within a second"), "{}", removed.err);
    let now = fs::read_to_string(server.folder().join("psk.txt")).expect("the key file");
    assert_eq!(now, secret(IDENTITY, KEY));
    neighbour.echo(b"after");
}

#[test]
fn both_sides_at_once_make_a_tunnel_that_works_and_agree_on_the_fingerprint() {
    let backend = Backend::echo();
    let server = server(&backend);
    let there = server.address("tls").to_string();
    let accept = local(free_port()).to_string();
    let folder = server.folder();
    let kit = ["--client", "kit", "--connect", &there, "--accept", &accept];
    let made = well(folder, &[&["keygen", "hall 3/plc", "--server", "psk.txt"], &kit[..]].concat());
    wait_reloads(&server, 1);
    for name in ["kit", "kit/hall_3_plc.txt", "kit/hall_3_plc.toml"] {
        let mode = folder.join(name).metadata().expect(name).permissions().mode() & 0o777;
        assert_eq!(mode, if name == "kit" { 0o700 } else { 0o600 }, "{name}");
    }
    let checked = well(folder, &["check", "kit/hall_3_plc.toml"]);
    assert!(checked.out.contains("nothing wrong"), "{}{}", checked.out, checked.err);

    let mut command = Command::new(env!("CARGO_BIN_EXE_pskgate"));
    command.args(["run", "kit/hall_3_plc.toml"]).current_dir(folder);
    let client = crate::harness::Process::spawn("the client's end", "cargo", &mut command);
    client.wait_for(&format!("listening on {accept}"), WAIT_TIMEOUT);
    PlainClient::connect(accept.parse().expect("an address")).echo(b"through both");
    server.wait_logged("identity \"hall 3/plc\"");

    let print = fingerprint(&made.err);
    let at_server = listed(folder, &["pskgate.toml"]);
    let at_client = listed(folder, &["kit/hall_3_plc.toml"]);
    assert_eq!(text_of(&at_server[1], "fingerprint"), print);
    assert_eq!(text_of(&at_client[0], "fingerprint"), print);
    assert_ne!(text_of(&at_server[0], "fingerprint"), print);

    // A rotation takes the place of the client's key file, and nothing else changes there.
    let rotate = ["keys", "rotate", "hall 3/plc", "pskgate.toml", "--output", "new.txt"];
    let rotated = well(folder, &rotate);
    assert!(rotated.err.contains("psk-identity there, if it is set"), "{}", rotated.err);
    fs::rename(folder.join("new.txt"), folder.join("kit/hall_3_plc.txt")).expect("a new key");
    client.wait_for("removed \"hall 3/plc\"", WAIT_TIMEOUT);
    let at_client = listed(folder, &["kit/hall_3_plc.toml"]);
    assert_ne!(text_of(&at_client[0], "fingerprint"), print);
    PlainClient::connect(accept.parse().expect("an address")).echo(b"with the new key");
}

#[test]
fn hex_and_the_text_that_it_stands_for_have_one_fingerprint() {
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let gate = PskgateBuilder::new().file("hex.txt", &secret(IDENTITY, &hex(KEY)));
    let prints = ["psk.txt", "hex.txt"].map(|file| {
        text_of(&listed(gate.folder(), &["--file", file])[0], "fingerprint").to_owned()
    });
    assert_eq!(prints[0], prints[1]);
}

#[test]
fn if_one_side_cannot_be_written_the_other_is_not_either() {
    let gate = PskgateBuilder::new();
    let folder = gate.folder();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        names
    };
    let both = |identity: &'static str, server: &'static str, connect: &'static str| {
        let start = ["keygen", identity, "--server", server];
        [&start[..], &["--client", "kit", "--connect", connect]].concat()
    };
    let said = refused(folder, &both(IDENTITY, "psk.txt", "plc.example:3001"));
    assert!(said.contains("line 1") && said.contains("nothing was changed"), "{said}");
    let said = refused(folder, &both("new", "no/psk.txt", "plc.example:3001"));
    assert!(said.contains("no/psk.txt") && said.contains("nothing was changed"), "{said}");
    refused(folder, &both("new", "psk.txt", "plc.example"));
    assert_eq!(names(), ["psk.txt"]);

    fs::create_dir(folder.join("kit")).expect("a folder");
    fs::write(folder.join("kit/new.toml"), "# mine\n").expect("a file");
    let said = refused(folder, &both("new", "psk.txt", "plc.example:3001"));
    assert!(said.contains("new.toml"), "{said}");
    assert!(!folder.join("kit/new.txt").exists(), "the key file is gone again");
    assert_eq!(fs::read_to_string(folder.join("kit/new.toml")).expect("a file"), "# mine\n");
    assert_eq!(fs::read_to_string(folder.join("psk.txt")).unwrap(), secret(IDENTITY, KEY));
}

#[test]
fn rotation_declares_the_next_name_and_both_keys_let_in() {
    let backend = Backend::echo();
    let conf = format!(
        "[tls]\naccept = {}\nconnect = {}\nPSKsecrets = psk.txt\n",
        free_port(),
        backend.address()
    );
    let server = PskgateBuilder::new().conf("stunnel.conf", &conf, None).start();
    let old = client(&server, IDENTITY, &secret(IDENTITY, KEY));
    let session = PlainClient::connect(old.address("plain"));
    session.echo(b"before");
    let done = well(server.folder(), &["keys", "rotate", IDENTITY, "stunnel.conf"]);
    assert!(done.out.starts_with("client1~2:"), "the client's line");
    assert_eq!(done.out.lines().count(), 1);
    assert!(done.err.contains("separate identities"), "{}", done.err);
    for step in ["keys list stunnel.conf", "keys remove client1 stunnel.conf"] {
        assert!(done.err.contains(step), "{}", done.err);
    }
    let new = client(&server, "client1~2", &done.out);
    until("the new key to be taken up", WAIT_TIMEOUT, || {
        let mut stream = std::net::TcpStream::connect(new.address("plain")).ok()?;
        std::io::Write::write_all(&mut stream, b"hello").ok()?;
        std::io::Read::read_exact(&mut stream, &mut [0; 5]).ok()
    });
    session.echo(b"the old one too");
    let next =
        well(server.folder(), &["keys", "rotate", "client1~2", "stunnel.conf", "-o", "c.txt"]);
    assert_eq!(next.out, "");
    let line = fs::read_to_string(server.folder().join("c.txt")).expect("the client's line");
    assert!(line.starts_with("client1~3:"), "{line}");
    let rows = listed(server.folder(), &["--file", "c.txt"]);
    assert_eq!(text_of(&rows[0], "fingerprint"), fingerprint(&next.err));
    well(server.folder(), &["keys", "remove", IDENTITY, "stunnel.conf"]);
    assert_eq!(session.end(), ConnectionEnd::Rst);
}

#[test]
fn a_native_file_is_told_that_two_names_are_one_and_keeps_its_comments() {
    let text = format!("# mine\n{}\n# the end\n", server_toml("127.0.0.1:9", "# and this"));
    let gate = PskgateBuilder::new().toml(&text);
    let file = gate.folder().join("pskgate.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
    let done = well(gate.folder(), &["keys", "rotate", IDENTITY, "pskgate.toml"]);
    let now = fs::read_to_string(&file).expect("the configuration");
    let table = "[services.tls.identities.client1]\nwire = [\"client1\", \"client1~2\"]\n";
    assert!(now.contains(table), "{now}");
    for line in text.lines() {
        assert!(now.contains(line), "`{line}` is gone from {now}");
    }
    assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o644);
    let keys = fs::read_to_string(gate.folder().join("psk.txt")).expect("the key file");
    assert_eq!(keys, secret(IDENTITY, KEY) + &done.out);
}

/// A table of the service's own would stand in place of the defaults', and the key would be taken from
/// anywhere.
#[test]
fn a_rotated_identity_of_the_defaults_keeps_the_rules_that_it_has_there() {
    let rules = "[defaults.identities.client1]\nallow-from = \"10.0.0.0/8\"\n";
    let text = format!("{rules}\n{}\n", server_toml("127.0.0.1:9", ""));
    let gate = PskgateBuilder::new().toml(&text);
    well(gate.folder(), &["keys", "rotate", IDENTITY, "pskgate.toml"]);
    let now = fs::read_to_string(gate.folder().join("pskgate.toml")).expect("the configuration");
    let wire = "wire = [\"client1\", \"client1~2\"]\n";
    assert_eq!(now, text.replace(rules, &format!("{rules}{wire}")));
    let rows = listed(gate.folder(), &["pskgate.toml"]);
    let owners: Vec<_> = rows.iter().map(|row| text_of(row, "belongs-to")).collect();
    assert_eq!(owners, [IDENTITY, IDENTITY]);
    let next = well(gate.folder(), &["keys", "rotate", IDENTITY, "pskgate.toml"]);
    assert!(next.out.starts_with("client1~3:"), "beside the last of its names");
    let gone = well(gate.folder(), &["keys", "remove", "client1~2", "pskgate.toml"]);
    assert!(gone.err.contains("client1~2\" out of the `wire` names"), "{}", gone.err);
}

/// The whole of a rotation, as README has it: nobody is without a way in at any time.
#[test]
fn a_running_server_rotates_a_key_of_one_identity_and_says_when_the_old_one_may_go() {
    let backend = Backend::echo();
    let (port, own) = (free_port(), Backend::echo());
    let rules = format!(
        "[services.tls.identities.{IDENTITY}]\nmax-sessions = 1\nconnect = \"{}\"\n",
        own.address()
    );
    let toml =
        server_toml(backend.address(), "").replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let server = PskgateBuilder::new().toml(&(toml + &rules)).start();
    let folder = server.folder();
    let old = client(&server, IDENTITY, &secret(IDENTITY, KEY));
    let session = PlainClient::connect(old.address("plain"));
    session.echo(b"before");
    let row = |name: &str| {
        let rows = listed(folder, &["pskgate.toml"]);
        rows.into_iter().find(|row| text_of(row, "identity") == name).expect("its row")
    };
    assert_eq!(row(IDENTITY)["sessions"], 1);
    assert!(row(IDENTITY)["last-use"].is_string());

    let done = well(folder, &["keys", "rotate", IDENTITY, "pskgate.toml"]);
    let next = format!("{IDENTITY}~2");
    let new = client(&server, &next, &done.out);
    // One identity has one session: the new key waits until the old one has gone.
    until("the new key to be known", WAIT_TIMEOUT, || {
        server.log().contains(": reloaded;").then_some(())
    });
    assert_eq!(PlainClient::connect(new.address("plain")).end(), ConnectionEnd::Rst);
    server.wait_logged(&format!("refused identity \"{IDENTITY}\""));
    session.echo(b"undisturbed");
    drop(session);
    until("the new key to get in", WAIT_TIMEOUT, || {
        let mut stream = std::net::TcpStream::connect(new.address("plain")).ok()?;
        std::io::Write::write_all(&mut stream, b"hello").ok()?;
        std::io::Read::read_exact(&mut stream, &mut [0; 5]).ok()?;
        let of_new = row(&next);
        assert_eq!(text_of(&of_new, "belongs-to"), IDENTITY);
        (of_new["sessions"] == 1 && row(IDENTITY)["sessions"] == 0).then_some(())
    });
    assert_eq!(backend.accepted(), 0, "both have the backend of their identity");

    well(folder, &["keys", "remove", IDENTITY, "pskgate.toml"]);
    // Let in a moment ago or not at all: its end is the same, and it does not come back.
    for _ in 0..2 {
        assert_eq!(PlainClient::connect(old.address("plain")).end(), ConnectionEnd::Rst);
    }
    server.wait_logged("unknown identity");
    let rows = listed(folder, &["pskgate.toml"]);
    assert_eq!(rows.iter().map(|row| text_of(row, "identity")).collect::<Vec<_>>(), [&next]);
    assert!(!server.log().contains("not reloaded"), "{}", server.log());
}

#[test]
fn a_rotation_whose_key_cannot_be_written_declares_nothing() {
    let gate = PskgateBuilder::new();
    let keys = gate.folder().join("keys");
    fs::create_dir(&keys).expect("a folder");
    write_private(&keys.join("psk.txt"), &secret(IDENTITY, KEY));
    // What is in the way of the new file.
    fs::create_dir_all(keys.join(".pskgate.new/full")).expect("a folder");
    let text = server_toml("127.0.0.1:9", "").replace("\"psk.txt\"", "\"keys\"");
    let gate = gate.toml(&text);
    let said = refused(gate.folder(), &["keys", "rotate", IDENTITY, "pskgate.toml", "-o", "c.txt"]);
    assert!(said.contains("psk.txt") && said.contains("nothing was changed"), "{said}");
    assert!(!gate.folder().join("c.txt").exists());
    assert_eq!(fs::read_to_string(gate.folder().join("pskgate.toml")).unwrap(), text);
}

#[test]
fn a_client_s_end_is_sent_to_the_server_s_for_rotation_and_keeps_what_it_presents() {
    let both = secret(IDENTITY, KEY) + &secret("other", OTHER_KEY);
    let gate = PskgateBuilder::new().file("psk.txt", &both).toml(&client_toml("127.0.0.1:9", ""));
    let said = refused(gate.folder(), &["keys", "rotate", IDENTITY, "pskgate.toml"]);
    assert!(said.contains("server's end"), "{said}");
    let first = client_toml("127.0.0.1:9", "").replace("psk-identity = \"client1\"\n", "");
    let gate = gate.file("first.toml", &first);
    for file in ["pskgate.toml", "first.toml"] {
        let said = refused(gate.folder(), &["keys", "remove", IDENTITY, file]);
        assert!(said.contains("psk-identity"), "{said}");
    }
    well(gate.folder(), &["keys", "remove", "other", "pskgate.toml"]);
}

#[test]
fn a_service_is_not_left_without_a_key_nor_a_folder_with_an_empty_file() {
    let gate = PskgateBuilder::new();
    fs::create_dir(gate.folder().join("psk.d")).expect("a folder");
    let gate = gate.file("psk.d/two", &secret("client2", OTHER_KEY));
    let text = server_toml("127.0.0.1:9", "").replace("\"psk.txt\"", "[\"psk.d\"]");
    let gate = gate.toml(&text).file("psk.d/one", &secret(IDENTITY, KEY));
    let folder = gate.folder();
    well(folder, &["keys", "remove", IDENTITY, "pskgate.toml"]);
    assert!(!folder.join("psk.d/one").exists(), "an empty file would be refused");
    well(folder, &["check", "pskgate.toml"]);
    let said = refused(folder, &["keys", "remove", "client2", "pskgate.toml"]);
    assert!(said.contains("[tls]") && said.contains("without any key"), "{said}");
    let said = refused(folder, &["keys", "remove", "client2", "--file", "psk.d/two"]);
    assert!(said.contains("last key"), "{said}");
    assert_eq!(listed(folder, &["pskgate.toml"]).len(), 1);
    let said = refused(folder, &["keys", "remove", "nobody", "pskgate.toml"]);
    assert!(said.contains("\"nobody\""), "{said}");
}

#[test]
fn what_becomes_of_live_sessions_is_told_as_the_services_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let service = |name: &str, port: u16, extra: &str| {
        format!(
            "[services.{name}]\nmode = \"server\"\naccept = \"127.0.0.1:{port}\"\n\
             connect = \"127.0.0.1:1\"\npsk-secrets = \"psk.txt\"\n{extra}\n"
        )
    };
    let toml = service("a", 4001, "") + &service("b", 4002, "on-revocation = \"keep\"");
    std::fs::write(folder.join("gate.toml"), toml).unwrap();
    for name in ["one", "two", "three"] {
        well(folder, &["keygen", name, "--append", "psk.txt"]);
    }
    let done = well(folder, &["keys", "remove", "one", "gate.toml"]);
    for part in ["in [a] end within a second", "in [b] stay open"] {
        assert!(done.err.contains(part), "{part} is not in: {}", done.err);
    }
    let toml = service("a", 4001, "on-revocation = \"30s\"");
    std::fs::write(folder.join("gate.toml"), toml).unwrap();
    let done = well(folder, &["keys", "remove", "two", "gate.toml"]);
    assert!(done.err.contains("by itself: live sessions of this key end after"), "{}", done.err);
}

#[test]
fn an_identity_goes_from_every_file_that_holds_it() {
    let gate = PskgateBuilder::new()
        .file("more.txt", &(secret(IDENTITY, OTHER_KEY) + &secret("b", OTHER_KEY)));
    let gate = gate.file("psk.txt", &(secret("a", OTHER_KEY) + &secret(IDENTITY, KEY)));
    let conf = "[one]\naccept = 1\nconnect = 9\nPSKsecrets = psk.txt\n\
                [two]\naccept = 2\nconnect = 9\nPSKsecrets = more.txt\n";
    let gate = gate.file("stunnel.conf", conf);
    let done = well(gate.folder(), &["keys", "remove", IDENTITY, "stunnel.conf"]);
    assert_eq!(done.out.lines().count(), 2, "{}", done.out);
    for (file, rest) in [("psk.txt", "a"), ("more.txt", "b")] {
        let text = fs::read_to_string(gate.folder().join(file)).expect("a key file");
        assert_eq!(text, secret(rest, OTHER_KEY));
    }
}

#[test]
fn the_list_says_whose_a_key_is_where_it_stands_and_who_takes_it() {
    let text =
        server_toml("127.0.0.1:9", "") + &server_toml("127.0.0.1:9", "").replace(".tls]", ".b]");
    let gate = PskgateBuilder::new().toml(&text);
    let done = well(gate.folder(), &["keys", "list", "pskgate.toml"]);
    no_key(gate.folder(), &done.out);
    let lines: Vec<_> = done.out.lines().collect();
    assert_eq!(lines.len(), 2, "a head and a line: {}", done.out);
    for wanted in ["client1", "psk.txt:1", "tls,b"] {
        assert!(lines[1].contains(wanted), "no {wanted} in {}", done.out);
    }
    assert!(!done.out.contains('\u{1b}'), "plain in a pipe");
    let row = &listed(gate.folder(), &["pskgate.toml"])[0];
    assert_eq!((text_of(row, "identity"), text_of(row, "belongs-to")), (IDENTITY, IDENTITY));
    assert_eq!((row["line"].as_u64(), &row["last-use"]), (Some(1), &serde_json::Value::Null));
    assert!(text_of(row, "file").ends_with("psk.txt"));
    assert_eq!(row["services"], serde_json::json!(["tls", "b"]));
}

#[test]
fn eight_programs_that_add_keys_at_once_all_have_their_way() {
    let gate = PskgateBuilder::new();
    let file = gate.folder().join("psk.txt");
    symlink("psk.txt", gate.folder().join("link")).expect("a link");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("a mode");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let folder = gate.folder();
            let through = if n % 2 == 0 { "psk.txt" } else { "link" };
            scope.spawn(move || {
                well(folder, &["keygen", &format!("client-{n}"), "--append", through]);
            });
        }
    });
    let text = fs::read_to_string(&file).expect("the key file");
    let mut names: Vec<_> = text.lines().map(|line| line.split(':').next().unwrap()).collect();
    names.sort_unstable();
    let wanted: Vec<_> = (0..8).map(|n| format!("client-{n}")).chain([IDENTITY.into()]).collect();
    assert_eq!(names, wanted);
    assert!(text.starts_with(&secret(IDENTITY, KEY)) && text.ends_with('\n'));
    assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o640);
    assert!(gate.folder().join("link").is_symlink());
}

#[test]
fn an_edit_waits_for_whoever_has_the_folder_s_lock_and_names_him_after_ten_seconds() {
    use rustix::fs::{FlockOperation, flock};
    /// EX_UNAVAILABLE of sysexits.h.
    const UNAVAILABLE: i32 = 69;
    let gate = PskgateBuilder::new();
    let held = fs::File::open(gate.folder()).expect("the folder");
    flock(&held, FlockOperation::LockExclusive).expect("its lock");
    let start = Instant::now();
    let done = pskgate(gate.folder(), &["keygen", "new", "--append", "psk.txt"]);
    assert!(start.elapsed() >= Duration::from_secs(10), "it waited {:?}", start.elapsed());
    assert_eq!(done.code, Some(UNAVAILABLE), "{}", done.err);
    assert!(done.err.contains(&format!("process {} ", std::process::id())), "{}", done.err);
    assert_eq!(fs::read_to_string(gate.folder().join("psk.txt")).unwrap(), secret(IDENTITY, KEY));
    drop(held);
    well(gate.folder(), &["keygen", "new", "--append", "psk.txt"]);
}

#[test]
fn an_editor_that_is_killed_leaves_the_file_whole_and_the_next_one_works() {
    let mut text = String::new();
    for n in 0..20_000 {
        text += &format!("identity-{n}:key number {n:053}\n");
    }
    let gate = PskgateBuilder::new().file("psk.txt", &text);
    let (file, fresh) = (gate.folder().join("psk.txt"), gate.folder().join(".pskgate.new"));
    let (mut cut, mut left) = (0, 0);
    for round in 0..12 {
        let name = format!("new-{round}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_pskgate"))
            .args(["keygen", &name, "--append", "psk.txt"])
            .current_dir(gate.folder())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        // Every second one dies while it writes; the others are watched to their end.
        let ended = loop {
            if let Some(status) = child.try_wait().expect("it can be waited for") {
                break status;
            }
            if round % 2 == 1 {
                whole(&file, &text, &name);
            } else if fresh.exists() {
                let _ = child.kill();
                break child.wait().expect("it ends");
            }
        };
        cut += usize::from(!ended.success());
        left += usize::from(fresh.exists());
        text = whole(&file, &text, &name);
    }
    assert!(cut > 0 && left > 0, "{cut} were killed, {left} of them while they wrote");
    well(gate.folder(), &["keygen", "last", "--append", "psk.txt"]);
    let names: Vec<_> = fs::read_dir(gate.folder())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["psk.txt"], "nothing is left over");
}

/// Fails unless the file is what it was, or that and one whole line of `name`.
fn whole(file: &Path, before: &str, name: &str) -> String {
    let now = fs::read_to_string(file).expect("the key file");
    let rest = now.strip_prefix(before);
    let rest = rest.unwrap_or_else(|| panic!("{} bytes of {}", now.len(), before.len()));
    let is_line = rest.starts_with(name) && rest.ends_with('\n') && rest.lines().count() == 1;
    assert!(rest.is_empty() || is_line, "half a line: {rest:?}");
    now
}
