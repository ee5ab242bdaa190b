//! The commands that change key files, where an identity stands in several files or services: they act on
//! all of them or refuse, and what they advise is safe to run.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::process::{Finished, pskgate};
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OTHER_KEY, PlainClient, Pskgate, PskgateBuilder,
    WAIT_TIMEOUT, client_toml, secret, server_toml, until,
};

fn well(folder: &Path, arguments: &[&str]) -> Finished {
    let done = pskgate(folder, arguments);
    assert_eq!(done.code, Some(0), "{arguments:?}: {}{}", done.out, done.err);
    done
}

/// What a command says that must be refused and change nothing in its folder.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let before = contents(folder);
    let done = pskgate(folder, arguments);
    assert!(done.code.is_some_and(|code| code != 0), "{arguments:?} went well: {}", done.err);
    assert_eq!(contents(folder), before, "{arguments:?} changed something: {}", done.err);
    done.err
}

/// Every file below a folder, with its text.
fn contents(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if path.is_file() {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// A server service of a name, with key files.
fn service(name: &str, files: &[&str]) -> String {
    let text =
        server_toml("127.0.0.1:9", "").replace("[services.tls]", &format!("[services.{name}]"));
    text.replace("psk-secrets = \"psk.txt\"", &format!("psk-secrets = {files:?}"))
}

/// Runs every `pskgate keys remove` that a command advised, in a shell, as somebody would who copies it.
fn run_advice(folder: &Path, said: &str) -> usize {
    let quoted = said.split('`').skip(1).step_by(2);
    let commands: Vec<_> = quoted.filter(|text| text.starts_with("pskgate keys remove")).collect();
    assert!(!commands.is_empty(), "no advice in: {said}");
    let program = Path::new(env!("CARGO_BIN_EXE_pskgate"));
    for command in &commands {
        let done = Command::new("/bin/sh")
            .args(["-c", command])
            .current_dir(folder)
            .env("PATH", program.parent().unwrap())
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command}: {err}");
    }
    commands.len()
}

/// Each service with the names by which it lets an identity in.
fn names(folder: &Path, config: &str, identity: &str) -> Vec<String> {
    let done = well(folder, &["keys", "list", "--json", config]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&done.out).unwrap();
    let mut found = Vec::new();
    for row in rows.iter().filter(|row| row["belongs-to"] == identity) {
        for service in row["services"].as_array().unwrap() {
            found.push(format!(
                "{} {}",
                service.as_str().unwrap(),
                row["identity"].as_str().unwrap()
            ));
        }
    }
    found.sort();
    found
}

/// Two services, each with a file of its own that holds an identity, and more in both.
fn two(first: &str, second: &str) -> PskgateBuilder {
    let others = secret("ben", &OTHER_KEY.replace('0', "1"));
    PskgateBuilder::new()
        .file("psk.txt", &(secret("anna", first) + &others))
        .file("more.txt", &(others + &secret("anna", second)))
        .toml(&(service("a", &["psk.txt"]) + &service("b", &["more.txt"])))
}

#[test]
fn an_identity_with_one_key_in_two_files_is_rotated_in_both_and_the_advice_ends_both_old_keys() {
    let gate = two(KEY, KEY);
    let folder = gate.folder();
    let done = well(folder, &["keys", "rotate", "anna", "pskgate.toml"]);
    assert!(done.out.starts_with("anna~2:"), "{}", done.out);
    for file in ["psk.txt", "more.txt"] {
        assert!(read(folder, file).ends_with(&done.out), "{file}");
        assert!(done.err.contains(file), "{}", done.err);
    }
    let both = ["a anna", "a anna~2", "b anna", "b anna~2"];
    assert_eq!(names(folder, "pskgate.toml", "anna"), both);
    assert_eq!(run_advice(folder, &done.err), 1);
    assert_eq!(names(folder, "pskgate.toml", "anna"), ["a anna~2", "b anna~2"]);
    well(folder, &["check", "pskgate.toml"]);
}

#[test]
fn an_identity_with_two_keys_is_rotated_in_one_service_at_a_time_and_the_other_keeps_its_key() {
    let gate = two(KEY, OTHER_KEY);
    let folder = gate.folder();
    let said = refused(folder, &["keys", "rotate", "anna", "pskgate.toml"]);
    for part in ["psk.txt:1", "more.txt:2", "[a]", "[b]", "--service", "--file"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    for (narrow, own, other) in [
        (["--service", "a"], ("a", "psk.txt"), ("b", "more.txt")),
        (["--file", "more.txt"], ("b", "more.txt"), ("a", "psk.txt")),
    ] {
        let before = read(folder, other.1);
        let kept = names(folder, "pskgate.toml", "anna");
        let kept: Vec<_> = kept.into_iter().filter(|name| name.starts_with(other.0)).collect();
        let done =
            well(folder, &[&["keys", "rotate", "anna", "pskgate.toml"], &narrow[..]].concat());
        assert!(read(folder, own.1).ends_with(&done.out), "{narrow:?}");
        run_advice(folder, &done.err);
        assert_eq!(read(folder, other.1), before, "{narrow:?}");
        let now = names(folder, "pskgate.toml", "anna");
        assert!(kept.iter().all(|name| now.contains(name)), "{kept:?} of {now:?}");
        let next = done.out.split(':').next().unwrap();
        assert!(now.contains(&format!("{} {next}", own.0)), "{now:?}");
        assert!(!now.contains(&format!("{} anna", own.0)), "{now:?}");
        well(folder, &["check", "pskgate.toml"]);
    }
}

#[test]
fn the_advice_is_safe_for_any_name_and_path_and_with_a_client_that_presents_the_name_elsewhere() {
    let client = client_toml("127.0.0.1:9", "")
        .replace("psk.txt", "own.txt")
        .replace(IDENTITY, "it's $HOME");
    for identity in ["it's $HOME", "-x"] {
        let gate = PskgateBuilder::new()
            .file("a b;c.txt", &(secret(identity, KEY) + &secret("ben", OTHER_KEY)))
            .file("own.txt", &secret("it's $HOME", &OTHER_KEY.replace('0', "2")))
            .file("my plant.toml", &(service("a", &["a b;c.txt"]) + &client));
        let folder = gate.folder();
        let own = read(folder, "own.txt");
        let done = well(folder, &["keys", "rotate", "--", identity, "my plant.toml"]);
        run_advice(folder, &done.err);
        assert_eq!(read(folder, "a b;c.txt"), secret("ben", OTHER_KEY) + &done.out);
        assert_eq!(read(folder, "own.txt"), own, "what the client presents");
        let alone = well(folder, &["keys", "rotate", "--file", "a b;c.txt", "ben"]);
        run_advice(folder, &alone.err);
        assert_eq!(read(folder, "a b;c.txt"), done.out + &alone.out);
    }
}

#[test]
fn a_rotation_that_fails_in_its_second_file_leaves_nothing_in_the_first() {
    let gate = PskgateBuilder::new();
    for folder in ["one", "two"] {
        fs::create_dir(gate.folder().join(folder)).unwrap();
    }
    let gate = gate
        .file("one/psk.txt", &secret("anna", KEY))
        .file("two/psk.txt", &secret("anna", KEY))
        .toml(&(service("a", &["one/psk.txt"]) + &service("b", &["two/psk.txt"])));
    // What is in the way of the new file.
    fs::create_dir_all(gate.folder().join("two/.pskgate.new/full")).unwrap();
    let said = refused(gate.folder(), &["keys", "rotate", "anna", "pskgate.toml", "-o", "c.txt"]);
    assert!(said.contains("two/psk.txt"), "{said}");
}

#[test]
fn a_file_of_two_services_is_not_changed_for_one_of_them() {
    let gate =
        PskgateBuilder::new().file("psk.txt", &(secret("anna", KEY) + &secret("ben", OTHER_KEY)));
    let gate = gate.toml(&(service("a", &["psk.txt"]) + &service("b", &["psk.txt"])));
    let folder = gate.folder();
    let said = refused(folder, &["keys", "remove", "anna", "pskgate.toml", "--service", "a"]);
    for part in ["[a], [b]", "`--file ", "psk.txt` removes"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let done = well(folder, &["keys", "rotate", "anna", "pskgate.toml", "--service", "a"]);
    let both = ["a anna", "a anna~2", "b anna", "b anna~2"];
    assert_eq!(names(folder, "pskgate.toml", "anna"), both);
    run_advice(folder, &done.err);
    assert_eq!(names(folder, "pskgate.toml", "anna"), ["a anna~2", "b anna~2"]);
}

#[test]
fn a_name_keeps_its_owner_where_its_key_stays() {
    let rules = "[services.b.identities.boss]\nwire = [\"anna\"]\nallow-from = \"10.0.0.0/8\"\n";
    let gate = two(KEY, OTHER_KEY);
    let text = read(gate.folder(), "pskgate.toml");
    let gate = gate.toml(&(text + rules));
    let folder = gate.folder();
    well(folder, &["keys", "remove", "anna", "pskgate.toml", "--service", "a"]);
    assert!(read(folder, "pskgate.toml").contains(rules), "{}", read(folder, "pskgate.toml"));
    assert!(!read(folder, "psk.txt").contains("anna"));
    assert!(read(folder, "more.txt").contains("anna"));
    let said = refused(folder, &["keys", "remove", "anna", "pskgate.toml", "--service", "a"]);
    assert!(said.contains("more.txt:2, read by [b]"), "{said}");
    let said = refused(folder, &["keys", "remove", "anna", "pskgate.toml", "--service", "c"]);
    assert!(said.contains("no service \"c\"") && said.contains("[a], [b]"), "{said}");
    let gate = gate.file("stray.txt", &secret("anna", KEY));
    let said = refused(gate.folder(), &["keys", "list", "pskgate.toml", "--file", "stray.txt"]);
    assert!(said.contains("no service") && said.contains("stray.txt"), "{said}");
}

fn start(files: &[&str], backend: &Backend, gate: PskgateBuilder) -> Pskgate {
    let text = service("tls", files).replace("127.0.0.1:9", &backend.address().to_string());
    gate.toml(&text).start()
}

/// A session through a client end of its own.
fn member(server: &Pskgate, identity: &str, key: &str) -> (Pskgate, PlainClient) {
    let toml = client_toml(server.address("tls"), "").replace(IDENTITY, identity);
    let client = PskgateBuilder::new().file("psk.txt", &secret(identity, key)).toml(&toml).start();
    let session = PlainClient::connect(client.address("plain"));
    session.echo(b"before");
    (client, session)
}

#[test]
fn the_last_key_of_a_file_goes_where_the_service_has_keys_elsewhere_and_its_session_ends() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().file("more.txt", &secret("anna", OTHER_KEY));
    let server = start(&["psk.txt", "more.txt"], &backend, gate);
    let (_first, stays) = member(&server, IDENTITY, KEY);
    let (_second, goes) = member(&server, "anna", OTHER_KEY);
    let folder = server.folder();
    well(folder, &["keys", "remove", "anna", "pskgate.toml"]);
    assert_eq!(goes.end(), ConnectionEnd::Rst);
    assert_eq!(read(folder, "more.txt"), "", "a file that is named and missing would be a mistake");
    stays.echo(b"after");
    let checked = well(folder, &["check", "pskgate.toml"]);
    assert!(checked.err.contains("more.txt holds no key"), "{}{}", checked.out, checked.err);
    let said = refused(folder, &["keys", "remove", IDENTITY, "pskgate.toml"]);
    for part in ["[tls]", "without any key", "--last"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    well(folder, &["keygen", "carl", "--append", "more.txt"]);
    until("the file to be read again", WAIT_TIMEOUT, || {
        server.log().contains("added \"carl\"").then_some(())
    });
}

#[test]
fn the_last_file_of_a_folder_stays_without_a_key_and_others_are_deleted() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new();
    fs::create_dir(gate.folder().join("psk.d")).unwrap();
    let gate = gate
        .file("psk.d/anna", &secret("anna", OTHER_KEY))
        .file("psk.d/ben", &secret("ben", &OTHER_KEY.replace('0', "1")));
    let server = start(&["psk.txt", "psk.d"], &backend, gate);
    let folder = server.folder();
    let (_client, session) = member(&server, "anna", OTHER_KEY);
    well(folder, &["keys", "remove", "ben", "pskgate.toml"]);
    assert!(!folder.join("psk.d/ben").exists());
    well(folder, &["keys", "remove", "anna", "pskgate.toml"]);
    assert_eq!(session.end(), ConnectionEnd::Rst);
    assert_eq!(read(folder, "psk.d/anna"), "");
}

#[test]
fn keygen_adds_no_second_key_under_one_name_to_another_file_of_a_service() {
    let gate = PskgateBuilder::new();
    fs::create_dir(gate.folder().join("psk.d")).unwrap();
    let gate = gate
        .file("psk.d/one", &secret("anna", KEY))
        .file("other.txt", &secret("carl", OTHER_KEY))
        .file("psk.txt", &secret("ben", OTHER_KEY))
        .toml(&(service("a", &["psk.d", "psk.txt"]) + &service("b", &["other.txt"])));
    let folder = gate.folder();
    for file in ["psk.txt", "psk.d/new"] {
        let said = refused(folder, &["keygen", "anna", "--append", file]);
        for part in ["psk.d/one", "line 1", "[a]", "pskgate keys rotate anna"] {
            assert!(said.contains(part), "no {part} in {said}");
        }
    }
    let kit = ["--client", "kit", "--connect", "plc.example:3001"];
    refused(folder, &[&["keygen", "anna", "--server", "psk.txt"], &kit[..]].concat());
    well(folder, &["keygen", "anna", "--append", "other.txt"]);
    well(folder, &["check", "pskgate.toml"]);
    let gate = gate.file("unrelated.toml", &service("c", &["psk.txt"]));
    well(gate.folder(), &["keygen", "anna", "--append", "psk.txt", "--config", "unrelated.toml"]);
}
