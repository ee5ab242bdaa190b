//! A stunnel.conf without a section: one connection, which is there already.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::openssl::psk;
use crate::harness::{
    Backend, ConnectionEnd, IDENTITY, KEY, OpensslClient, Process, Pskgate, PskgateBuilder,
    Stunnel, WAIT_TIMEOUT, backend::read_to_end, free_port, local, secret, server_toml, until,
    write_private,
};

/// rsync-ssl's file, and what a key needs.
fn client_conf(to: impl std::fmt::Display) -> String {
    format!(
        "foreground = yes\ndebug = crit\nconnect = {to}\nclient = yes\nTIMEOUTclose = 0\n\
         PSKsecrets = psk.txt\nPSKidentity = {IDENTITY}\n"
    )
}

fn folder(conf: &str) -> tempfile::TempDir {
    let folder = tempfile::TempDir::new().unwrap();
    write_private(&folder.path().join("psk.txt"), &secret(IDENTITY, KEY));
    write_private(&folder.path().join("x.conf"), conf);
    folder
}

/// Both programs, each as it is started with that file.
fn programs(folder: &Path) -> [(&'static str, Command); 2] {
    let mut ours = Command::new(env!("CARGO_BIN_EXE_pskgate"));
    ours.args(["run", "--format", "stunnel", "x.conf"]).current_dir(folder);
    ours.env("RUNTIME_DIRECTORY", folder);
    let mut theirs = Command::new("stunnel4");
    theirs.arg("x.conf").current_dir(folder);
    [("pskgate", ours), ("stunnel4", theirs)]
}

fn code(child: &mut Child) -> Option<i32> {
    until("the program's end", WAIT_TIMEOUT, || child.try_wait().unwrap()).code()
}

#[test]
fn a_client_on_two_pipes_carries_everything_and_ends_with_the_session() {
    let backend = Backend::new(|mut stream| {
        // Answers in full, and ends first, as an rsync daemon does.
        let mut hello = [0; 6];
        stream.read_exact(&mut hello).unwrap();
        stream
            .write_all(&[hello.to_vec(), vec![b'x'; 300_000], b"\nbye\n".to_vec()].concat())
            .unwrap();
        None
    });
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let folder = folder(&client_conf(gate.address("tls")));
    for (name, mut command) in programs(folder.path()) {
        let mut process = Process::spawn(name, "stunnel4", &mut command);
        process.type_in("hello\n");
        process.wait_for("bye", WAIT_TIMEOUT);
        process.end_input();
        assert_eq!(process.wait(WAIT_TIMEOUT).code(), Some(0), "{name}");
        let out = process.out();
        assert!(out.starts_with("hello\nxxx") && out.ends_with("x\nbye\n"), "{name}");
        assert_eq!(out.len(), 6 + 300_000 + 5, "{name}");
    }
}

/// rsync makes its pipes of sockets, one for each direction.
#[test]
fn a_client_on_two_sockets_is_the_same() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let folder = folder(&client_conf(gate.address("tls")).replace("TIMEOUTclose = 0\n", ""));
    for (name, mut command) in programs(folder.path()) {
        let ((mut to, input), (mut from, output)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        command.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(output));
        let mut child = command.spawn().unwrap();
        drop(command);
        from.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        to.write_all(b"there and back").unwrap();
        let mut back = [0; 14];
        from.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"there and back", "{name}");
        drop(to);
        assert_eq!(read_to_end(&from), (Vec::new(), ConnectionEnd::Fin), "{name}");
        assert_eq!(code(&mut child), Some(0), "{name}");
    }
}

/// A pipe ends when nobody holds it any more, this program included. (stunnel ends the session here,
/// and loses the answer.)
#[test]
fn the_end_of_the_server_s_data_is_the_end_of_standard_output_and_the_other_way_goes_on() {
    let backend = Backend::new(|mut stream| {
        stream.write_all(b"that was all").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        Some(read_to_end(stream))
    });
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let folder = folder(&client_conf(gate.address("tls")).replace("TIMEOUTclose = 0\n", ""));
    let [(_, mut command), _] = programs(folder.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let (all, _) = read_to_end(child.stdout.take().unwrap());
    assert_eq!(all, b"that was all");
    input.write_all(b"and this is the answer").unwrap();
    drop(input);
    assert_eq!(backend.wait_end(0), (b"and this is the answer".to_vec(), ConnectionEnd::Fin));
    assert_eq!(code(&mut child), Some(0));
}

#[test]
fn files_are_as_good_as_pipes() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let folder = folder(&client_conf(gate.address("tls")).replace("TIMEOUTclose = 0\n", ""));
    let data: Vec<u8> = (0..500_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(folder.path().join("in"), &data).unwrap();
    let [(_, mut command), _] = programs(folder.path());
    command.stdin(std::fs::File::open(folder.path().join("in")).unwrap());
    command.stdout(std::fs::File::create(folder.path().join("out")).unwrap());
    assert_eq!(code(&mut command.spawn().unwrap()), Some(0));
    assert!(std::fs::read(folder.path().join("out")).unwrap() == data);
}

/// inetd gives one socket three times.
fn as_inetd(conf: &str, ours: bool) -> (OpensslClient, Child, tempfile::TempDir) {
    let folder = folder(conf);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = OpensslClient::start(
        listener.local_addr().unwrap(),
        psk().into_iter().chain(["-quiet".to_owned()]),
    );
    let (stream, _) = listener.accept().unwrap();
    let [(_, us), (_, them)] = programs(folder.path());
    let mut command = if ours { us } else { them };
    let end = |stream: &TcpStream| Stdio::from(OwnedFd::from(stream.try_clone().unwrap()));
    command.stdin(end(&stream)).stdout(end(&stream)).stderr(end(&stream));
    let child = command.spawn().unwrap();
    (client, child, folder)
}

#[test]
fn a_server_on_inetd_s_socket_says_nothing_into_it_but_tls() {
    for ours in [true, false] {
        let backend = Backend::echo();
        let conf = format!(
            "debug = 7\nsyslog = no\nconnect = {}\nPSKsecrets = psk.txt\n",
            backend.address()
        );
        let (mut client, mut child, _folder) = as_inetd(&conf, ours);
        client.echo("through inetd");
        client.end_input();
        client.signal(rustix::process::Signal::TERM);
        backend.wait_end(0);
        code(&mut child);
    }
}

#[test]
fn a_program_behind_inetd_knows_who_is_there() {
    let (client, mut child, _folder) =
        as_inetd("syslog = no\nexec = /usr/bin/env\nPSKsecrets = psk.txt\n", true);
    client.wait_for("REMOTE_HOST=127.0.0.1", WAIT_TIMEOUT);
    client.wait_for(&format!("PSKGATE_IDENTITY={IDENTITY}"), WAIT_TIMEOUT);
    assert_eq!(code(&mut child), Some(0));
}

#[test]
fn a_session_that_never_began_is_a_failure() {
    let wrong = secret(IDENTITY, crate::harness::OTHER_KEY);
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    for (to, secrets) in [(local(free_port()), secret(IDENTITY, KEY)), (gate.address("tls"), wrong)]
    {
        let folder = folder(&client_conf(to));
        write_private(&folder.path().join("psk.txt"), &secrets);
        let [(name, mut command), _] = programs(folder.path());
        let mut process = Process::spawn(name, "cargo", &mut command);
        assert_eq!(process.wait(WAIT_TIMEOUT).code(), Some(1), "{to}");
        assert_eq!(process.out(), "", "{to}");
    }
}

#[test]
fn a_pipe_is_given_back_as_it_was() {
    let backend = Backend::echo();
    let gate: Pskgate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let folder = folder(&client_conf(gate.address("tls")));
    // The shell's own input is the same pipe: it can still read what came after the session.
    let binary = env!("CARGO_BIN_EXE_pskgate");
    let script = format!(
        "mkfifo p; (echo hello; exec sleep 60) > p & exec 3<p; {binary} run x.conf <&3 >out & gate=$!; \
         until grep -q hello out; do sleep 0.02; done; kill $gate; wait $gate; \
         grep flags /proc/$$/fdinfo/3; kill %1"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(folder.path());
    shell.env("RUNTIME_DIRECTORY", folder.path());
    let process = Process::spawn("sh", "dash", &mut shell);
    let line = process.wait_for("flags", WAIT_TIMEOUT);
    let flags = u32::from_str_radix(line.split_whitespace().last().unwrap(), 8).unwrap();
    assert_eq!(flags & 0o4000, 0, "it blocks again: {line}");
}

#[test]
fn the_other_end_may_be_stunnel() {
    let backend = Backend::echo();
    let server = Stunnel::server(backend.address(), "");
    let folder = folder(&client_conf(server.address()));
    let [(name, mut command), _] = programs(folder.path());
    let mut process = Process::spawn(name, "cargo", &mut command);
    process.type_in("to stunnel\n");
    process.wait_for("to stunnel", WAIT_TIMEOUT);
    process.end_input();
    assert_eq!(process.wait(WAIT_TIMEOUT).code(), Some(0));
}
