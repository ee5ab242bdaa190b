//! Without a file: `server`, `client` and `init`, and files that nobody had to name.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::process::{Finished, pskgate};
use crate::harness::stage::finish;
use crate::harness::{
    Backend, IDENTITY, KEY, OTHER_KEY, PlainClient, Process, PskgateBuilder, WAIT_TIMEOUT,
    free_port, program_command, secret, server_toml, until, write_private,
};

/// EX_USAGE, EX_NOINPUT, EX_CANTCREAT and EX_CONFIG of sysexits.h.
const USAGE: i32 = 64;
const NO_INPUT: i32 = 66;
const CANNOT_CREATE: i32 = 73;
const CONFIG: i32 = 78;

fn start<S: AsRef<std::ffi::OsStr>>(folder: &Path, arguments: &[S]) -> Process {
    let mut command = program_command();
    command.args(arguments).current_dir(folder).env("RUNTIME_DIRECTORY", folder);
    Process::spawn("pskgate", "cargo", &mut command)
}

fn address(process: &Process) -> SocketAddr {
    let mark = "[tunnel] listening on ";
    let line = process.wait_for(mark, WAIT_TIMEOUT);
    line.split_once(mark).unwrap().1.trim().parse().unwrap()
}

fn said(done: &Finished) -> String {
    format!("{}{}", done.out, done.err)
}

/// Whether what is sent comes back: a client end resets who it cannot carry.
fn echoes(at: SocketAddr) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(at) else { return false };
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut answer).is_ok()
}

#[test]
fn two_ends_without_a_file_carry_data_and_take_up_a_new_key() {
    let backend = Backend::echo();
    let at_server = PskgateBuilder::new();
    let at_client = PskgateBuilder::new().file("client2.txt", &secret("client2", OTHER_KEY));
    let (server, client) = (at_server.folder(), at_client.folder());
    let connect = backend.address().to_string();
    let one = ["server", "--accept", "127.0.0.1:0", "--connect", &connect, "--keys", "psk.txt"];
    let one = start(server, &one);
    let target = address(&one).to_string();
    let plain = ["client", "--accept", "127.0.0.1:0", "--connect", &target, "--keys"];
    let other = start(client, &[&plain[..], &["psk.txt"]].concat());
    PlainClient::connect(address(&other)).echo(b"PYRO://127.0.0.1:3002");
    let line = one.wait_for("session opened", WAIT_TIMEOUT);
    assert!(line.contains(IDENTITY) && line.contains("TLSv1.3"), "the native defaults: {line}");

    let third = start(client, &[&plain[..], &["client2.txt", "--identity", "client2"]].concat());
    let at = address(&third);
    assert!(!echoes(at), "its key is not known yet");
    let both = secret(IDENTITY, KEY) + &secret("client2", OTHER_KEY);
    write_private(&server.join("psk.txt"), &both);
    until("the new key", WAIT_TIMEOUT, || echoes(at).then_some(()));

    let status = pskgate(server, &["status"]);
    assert_eq!(status.code, Some(0), "{}", said(&status));
    assert!(status.out.contains("server-0"), "its name is its port: {}", status.out);
}

#[test]
fn what_is_wrong_with_an_option_is_said_and_a_missing_key_file_too() {
    let gate = PskgateBuilder::new();
    let one = |connect: &str, keys: &str| {
        let all = ["server", "--accept", "127.0.0.1:0", "--connect", connect, "--keys", keys];
        pskgate(gate.folder(), &all)
    };
    let done = one("nowhere", "psk.txt");
    assert_eq!(done.code, Some(USAGE), "{}", said(&done));
    assert!(done.err.contains("command line") && done.err.contains("nowhere"), "{}", done.err);
    let done = one("127.0.0.1:3000", "none.txt");
    assert_eq!(done.code, Some(CONFIG), "{}", said(&done));
    assert!(done.err.contains("none.txt") && done.err.contains("keygen"), "{}", done.err);
    let done = pskgate(gate.folder(), &["client", "--accept", "3002"]);
    assert_eq!(done.code, Some(USAGE), "{}", said(&done));
    assert!(done.err.contains("--connect") && done.err.contains("--keys"), "{}", done.err);
    let open = ["client", "--accept", "0.0.0.0:0", "--connect", "h:1", "--keys", "psk.txt"];
    assert_eq!(pskgate(gate.folder(), &[&open[..], &["--print"]].concat()).code, Some(0));
}

#[test]
fn what_is_printed_is_a_file_that_runs() {
    let backend = Backend::echo();
    let connect = backend.address().to_string();
    let gate = PskgateBuilder::new();
    let options = ["server", "--accept", "127.0.0.1:0", "--connect", &connect, "--keys", "psk.txt"];
    let more = ["--max-sessions", "1", "--when-full", "take-over-own", "--print"];
    let done = pskgate(gate.folder(), &[&options[..], &more].concat());
    assert_eq!(done.code, Some(0), "{}", said(&done));
    for wanted in ["mode = \"server\"", "max-sessions = 1", "when-full = \"take-over-own\""] {
        assert!(done.out.contains(wanted), "{}", done.out);
    }
    let running = gate.toml(&done.out).start();
    running.address("tunnel");
}

#[test]
fn init_writes_both_ends_and_run_takes_the_file_of_its_folder() {
    let backend = Backend::echo();
    let (at_server, at_client) = (PskgateBuilder::new(), PskgateBuilder::new());
    let (server, client) = (at_server.folder(), at_client.folder());
    std::fs::remove_file(server.join("psk.txt")).unwrap();
    let connect = backend.address().to_string();
    let done = pskgate(server, &["init", "--accept", "127.0.0.1:0", "--connect", &connect]);
    assert_eq!(done.code, Some(0), "{}", said(&done));
    let mode = |name: &str| server.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("pskgate.toml"), mode("psk.txt")), (0o600, 0o600));
    let key = std::fs::read_to_string(server.join("psk.txt")).unwrap();
    assert!(key.starts_with("client1:") && !said(&done).contains(key.trim()), "{}", said(&done));
    let checked = pskgate(server, &["check"]);
    assert_eq!(checked.code, Some(0), "{}", said(&checked));
    let mut running = start(server, &["run"]);
    let line = running.wait_for("pskgate.toml", WAIT_TIMEOUT);
    assert!(line.contains("taking ./pskgate.toml"), "it says which file it took: {line}");
    let target = address(&running).to_string();

    let here = ["init", "--client", "--accept", "127.0.0.1:0", "--connect", &target];
    let done = pskgate(client, &here);
    assert_eq!(done.code, Some(0), "{}", said(&done));
    let command = "pskgate keygen client1 --server psk.txt --client client1";
    assert!(done.err.contains("client1.txt"), "it says what is missing: {}", done.err);
    assert!(done.err.contains(command), "and what makes it: {}", done.err);
    assert!(!client.join("client1.txt").exists(), "a key that the server has not opens nothing");
    write_private(&client.join("client1.txt"), &key);
    let other = start(client, &["run"]);
    PlainClient::connect(address(&other)).echo(b"hello");

    let again = pskgate(server, &["init"]);
    assert_eq!(again.code, Some(CANNOT_CREATE), "{}", said(&again));
    assert_eq!(std::fs::read_to_string(server.join("psk.txt")).unwrap(), key);
    running.kill();
}

#[test]
fn a_file_that_others_could_have_written_is_not_taken_unless_it_is_named() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), ""));
    let folder = gate.folder();
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let file = folder.join("pskgate.toml");
    assert_eq!(pskgate(folder, &["check"]).code, Some(0));
    for (path, bad, good) in [(folder, 0o777, 0o700), (folder, 0o770, 0o700), (&file, 0o666, 0o600)]
    {
        set(path, bad);
        let done = pskgate(folder, &["check"]);
        assert_eq!(done.code, Some(NO_INPUT), "{bad:o}: {}", said(&done));
        assert!(done.err.contains("not taken"), "{}", done.err);
        set(path, good);
    }
    set(&file, 0o666);
    for named in [&["check", "pskgate.toml"][..], &["check", "-c", "pskgate.toml"]] {
        assert_eq!(pskgate(folder, named).code, Some(0), "it was named");
    }
    let running = start(folder, &["-c", "pskgate.toml"]);
    running.wait_for("[tls] listening on ", WAIT_TIMEOUT);
}

#[test]
fn standard_input_is_a_file_of_the_current_folder() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new();
    let mut running = start(gate.folder(), &["run", "-"]);
    running.type_in(&server_toml(backend.address(), ""));
    running.end_input();
    running.wait_for("[tls] listening on ", WAIT_TIMEOUT);
    // psk.txt of the folder, read again though the text is gone.
    write_private(&gate.folder().join("psk.txt"), &secret("client2", OTHER_KEY));
    running.wait_for("added \"client2\"; removed \"client1\"", WAIT_TIMEOUT);
}

#[test]
fn a_key_file_can_be_a_credential_of_systemds() {
    let gate = PskgateBuilder::new();
    let text = server_toml("127.0.0.1:3000", "")
        .replace("\"psk.txt\"", "\"credential:keys-of-the-plant\"");
    write_private(&gate.folder().join("pskgate.toml"), &text);
    let check = |folder: Option<&Path>| {
        let mut command = program_command();
        command.args(["check", "pskgate.toml"]).current_dir(gate.folder());
        match folder {
            Some(folder) => command.env("CREDENTIALS_DIRECTORY", folder),
            None => command.env_remove("CREDENTIALS_DIRECTORY"),
        };
        finish(&mut command)
    };
    let done = check(None);
    assert_eq!(done.code, Some(CONFIG), "{}", said(&done));
    assert!(done.err.contains("LoadCredential=keys-of-the-plant"), "{}", done.err);
    let folder = gate.folder().join("credentials");
    std::fs::create_dir(&folder).unwrap();
    write_private(&folder.join("keys-of-the-plant"), &secret(IDENTITY, KEY));
    let done = check(Some(&folder));
    assert_eq!(done.code, Some(0), "{}", said(&done));
    assert!(done.err.contains("restart the service after a key was removed"), "{}", done.err);
    assert_eq!(check(Some(&gate.folder().join("nowhere"))).code, Some(CONFIG));
}

#[test]
fn every_command_that_takes_a_configuration_takes_the_file_of_its_folder() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), ""));
    let folder = gate.folder();
    write_private(&folder.join("new.txt"), &secret("client2", OTHER_KEY));
    for arguments in [
        &["check"][..],
        &["keys", "list"],
        &["keys", "import", "new.txt"],
        &["keys", "rotate", "client2"],
        &["keys", "remove", "client2"],
    ] {
        let done = pskgate(folder, arguments);
        assert_eq!(done.code, Some(0), "{arguments:?}: {}", said(&done));
        assert!(done.err.contains("taking ./pskgate.toml"), "{arguments:?}: {}", done.err);
    }
    let done = pskgate(folder, &["doctor"]);
    assert!(said(&done).contains("pskgate.toml: services 1"), "{}", said(&done));
    // Nor is a file that another user could have written taken by any of them.
    let open = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(folder.join("pskgate.toml"), open).unwrap();
    for arguments in [&["keys", "list"][..], &["keys", "remove", IDENTITY], &["doctor"]] {
        let done = pskgate(folder, arguments);
        assert!(done.code.is_some_and(|code| code != 0), "{arguments:?}: {}", said(&done));
        assert!(done.err.contains("not taken"), "{arguments:?}: {}", done.err);
    }
}

#[test]
fn two_ends_without_a_file_are_told_apart_by_the_names_that_a_message_offers() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new();
    let folder = gate.folder();
    let connect = backend.address().to_string();
    let end = |mode| {
        let port = free_port().to_string();
        let at = format!("127.0.0.1:{port}");
        let words = [mode, "--accept", &at, "--connect", &connect, "--keys", "psk.txt"];
        let process = start(folder, &words);
        address(&process);
        (process, format!("{mode}-{port}"))
    };
    let ends = [end("server"), end("client")];
    let done = pskgate(folder, &["sessions"]);
    assert_eq!(done.code, Some(USAGE), "{}", said(&done));
    for (_, name) in &ends {
        assert!(done.err.contains(name.as_str()), "{name} is not in: {}", done.err);
        let done = pskgate(folder, &["sessions", name]);
        assert_eq!(done.code, Some(0), "{name}: {}", said(&done));
    }
}
