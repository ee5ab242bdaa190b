//! Where stunnel is unsafe and pskgate is not: each scenario is one stunnel.conf that both run, and
//! each test says what comes of it with stunnel 5.68 and what with pskgate. When a later stunnel does
//! better, the test fails, and the table in docs/stunnel.md must be corrected.
//!
//! The server-name sections, whose keys stunnel mixes up under TLS 1.3, have theirs in `sni.rs`.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use socket2::SockRef;
use tempfile::TempDir;

use crate::harness::{
    Backend, ConnectionEnd, FaultProxy, IDENTITY, KEY, OTHER_KEY, OpensslClient, OpensslServer,
    PlainClient, Process, Stream, Tls, WAIT_TIMEOUT, WireEnd, free_port, local, openssl, secret,
    until, write_private,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Stunnel,
    Pskgate,
}

use Program::{Pskgate, Stunnel};

/// One end, made of one section.
struct End {
    process: Process,
    address: SocketAddr,
    folder: TempDir,
}

impl End {
    fn start(program: Program, section: &str) -> Self {
        let folder = TempDir::new().expect("a folder for the end");
        openssl::certificate(folder.path());
        write_private(&folder.path().join("psk.txt"), &secret(IDENTITY, KEY));
        let port = free_port();
        let text = format!(
            "foreground = yes\nsyslog = no\ndebug = 7\n[s]\naccept = 127.0.0.1:{port}\n\
             PSKsecrets = psk.txt\n{section}\n"
        );
        write_private(&folder.path().join("end.conf"), &text);
        let program = match program {
            Stunnel => PathBuf::from("stunnel4"),
            Pskgate => PathBuf::from(env!("CARGO_BIN_EXE_pskgate")),
        };
        let mut command = Command::new(&program);
        command.arg("end.conf").current_dir(folder.path());
        command.env("RUNTIME_DIRECTORY", folder.path());
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let process = Process::spawn(&name, "the Debian package stunnel4", &mut command);
        process.wait_for("Accepting new connections", WAIT_TIMEOUT);
        Self { process, address: local(port), folder }
    }

    fn server(program: Program, backend: &Backend, extra: &str) -> Self {
        Self::start(program, &format!("connect = {}\n{extra}", backend.address()))
    }

    fn client(program: Program, to: SocketAddr, extra: &str) -> Self {
        Self::start(program, &format!("client = yes\nconnect = {to}\n{extra}"))
    }
}

/// Two ends of one program and the wire between them.
struct Two {
    server: End,
    wire: FaultProxy,
    client: End,
}

impl Two {
    fn start(program: Program, backend: &Backend, extra: &str) -> Self {
        let server = End::server(program, backend, extra);
        let wire = FaultProxy::to(server.address);
        let client = End::client(program, wire.address(), extra);
        Self { server, wire, client }
    }
}

fn args(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

/// Does a client whose connection is up see its line come back?
fn is_let_in(mut client: OpensslClient) -> bool {
    const LINE: &str = "let me in";
    client.type_in(&format!("{LINE}\n"));
    let answered = until("an answer or the end", WAIT_TIMEOUT, || {
        // The echo of the line itself is the only place where it can come from.
        if client.out().contains(LINE) {
            return Some(true);
        }
        client.ended().map(|_| false)
    });
    client.kill();
    answered
}

#[test]
fn a_client_sends_nothing_to_a_server_that_has_a_certificate_and_no_key() {
    for ciphers in ["", "ciphers = PSK\n"] {
        for program in [Stunnel, Pskgate] {
            let folder = TempDir::new().unwrap();
            openssl::certificate(folder.path());
            let list = args(&["-tls1_3", "-cert", "cert.pem", "-key", "key.pem"]);
            let impostor = OpensslServer::start(folder.path(), list);
            let client = End::client(program, impostor.address(), ciphers);
            let plain = PlainClient::connect(client.address);
            // To a client that has been cut already, it cannot even be sent.
            let _ = (&plain.0).write_all(b"secret\n");
            let mut answer = [0; 6];
            let is_answered = (&plain.0).read_exact(&mut answer).is_ok();
            assert_eq!(is_answered, program == Stunnel, "{program:?} with `{ciphers}`");
            if is_answered {
                assert_eq!(&answer, b"terces", "the impostor has read it");
            }
        }
    }
}

/// With a certificate beside its keys, as in the files of careful people.
const CERTIFIED: &str = "cert = cert.pem\nkey = key.pem\nciphers = PSK\n";

#[test]
fn a_server_with_a_certificate_beside_its_keys_still_asks_for_the_key() {
    for program in [Stunnel, Pskgate] {
        let backend = Backend::echo();
        let end = End::server(program, &backend, CERTIFIED);
        let stranger = OpensslClient::start(end.address, args(&["-tls1_3"]));
        assert_eq!(is_let_in(stranger), program == Stunnel, "{program:?}");
        assert_eq!(backend.accepted(), usize::from(program == Stunnel));
    }
}

#[test]
fn a_server_with_a_certificate_beside_its_keys_refuses_a_wrong_key() {
    for program in [Stunnel, Pskgate] {
        let backend = Backend::echo();
        let end = End::server(program, &backend, CERTIFIED);
        let mut list = openssl::psk_of(IDENTITY, OTHER_KEY).to_vec();
        list.extend(args(&["-tls1_3", "-ciphersuites"]));
        list.push("TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256".to_owned());
        let impostor = OpensslClient::start(end.address, list);
        assert_eq!(is_let_in(impostor), program == Stunnel, "{program:?}");
        assert_eq!(backend.accepted(), usize::from(program == Stunnel));
    }
}

/// A first visit with the key, from which a session may be kept.
fn visit(folder: &Path, to: SocketAddr, tls: Tls) -> bool {
    let list = openssl::psk().into_iter().chain(args(&[tls.flag(), "-sess_out", "session.pem"]));
    let mut client = OpensslClient::start_in(folder, to, list);
    client.echo("something to wait for");
    client.kill();
    folder.join("session.pem").exists()
}

#[test]
fn who_was_removed_from_the_key_file_does_not_come_back_with_a_ticket() {
    const TICKETS: &str = "ticketKeySecret = 00112233445566778899aabbccddeeff\n\
                           ticketMacSecret = ffeeddccbbaa99887766554433221100\n";
    for tls in Tls::BOTH {
        for program in [Stunnel, Pskgate] {
            let backend = Backend::echo();
            let end = End::server(program, &backend, TICKETS);
            let folder = TempDir::new().unwrap();
            assert!(visit(folder.path(), end.address, tls), "{program:?} {tls:?}: no ticket");
            let keys = secret("someone-else", OTHER_KEY);
            write_private(&end.folder.path().join("psk.txt"), &keys);
            end.process.signal(Signal::HUP);
            until("the reload", WAIT_TIMEOUT, || {
                let text = end.process.text();
                (text.matches(" bound to ").count() >= 2).then_some(())
            });
            let mut list = openssl::psk().to_vec();
            list.push(tls.flag().to_owned());
            list.extend(args(&["-sess_in", "session.pem"]));
            // stunnel closes its listeners for a moment.
            until("the port", WAIT_TIMEOUT, || std::net::TcpStream::connect(end.address).ok());
            let before = backend.accepted();
            let back = OpensslClient::start_in(folder.path(), end.address, list);
            assert_eq!(is_let_in(back), program == Stunnel, "{program:?} {tls:?}");
            assert_eq!(backend.accepted() - before, usize::from(program == Stunnel));
        }
    }
}

#[test]
fn half_an_answer_that_the_close_timeout_cut_off_does_not_look_whole() {
    for program in [Stunnel, Pskgate] {
        let backend = Backend::new(|mut stream| {
            let mut question = [0; 8];
            stream.read_exact(&mut question).ok()?;
            stream.write_all(b"half of it, ").ok()?;
            std::thread::sleep(Duration::from_secs(60));
            let _ = stream.write_all(b"and the rest");
            None
        });
        let two = Two::start(program, &backend, "TIMEOUTclose = 1");
        let plain = PlainClient::connect(two.client.address);
        plain.send(b"question");
        plain.shut();
        let expected = if program == Stunnel { ConnectionEnd::Fin } else { ConnectionEnd::Rst };
        let (answer, ending) = plain.rest();
        assert_eq!(ending, expected, "{program:?}");
        // A reset may overtake what came before it.
        if program == Stunnel {
            assert_eq!(answer, b"half of it, ");
        }
    }
}

#[test]
fn an_answer_that_was_cut_on_the_wire_does_not_look_whole() {
    for tls in Tls::BOTH {
        for program in [Stunnel, Pskgate] {
            let backend = Backend::echo();
            let two = Two::start(program, &backend, tls.conf());
            let plain = PlainClient::connect(two.client.address);
            plain.echo(b"established");
            two.wire.finish_towards(WireEnd::Client);
            let expected = if program == Stunnel { ConnectionEnd::Fin } else { ConnectionEnd::Rst };
            assert_eq!(plain.end(), expected, "{program:?} {tls:?}");
            drop(two.server);
        }
    }
}

#[test]
fn a_backend_that_dies_with_a_reset_is_not_an_orderly_end() {
    for program in [Stunnel, Pskgate] {
        let backend = Backend::new(|mut stream| {
            stream.read_exact(&mut [0; 8]).ok()?;
            stream.write_all(b"half of it, ").ok()?;
            stream.read_exact(&mut [0; 4]).ok()?;
            SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
            None
        });
        let two = Two::start(program, &backend, "");
        let plain = PlainClient::connect(two.client.address);
        plain.send(b"question");
        let mut half = [0; 12];
        (&plain.0).read_exact(&mut half).unwrap();
        plain.send(b"more");
        let expected = if program == Stunnel { ConnectionEnd::Fin } else { ConnectionEnd::Rst };
        assert_eq!(plain.end(), expected, "{program:?}");
    }
}

#[test]
fn a_transfer_goes_on_to_its_end_after_sigterm() {
    const TOTAL: u64 = 20_000_000;
    for program in [Stunnel, Pskgate] {
        let stream = Stream::new(77);
        let sent = stream.clone();
        let backend = Backend::new(move |mut to| {
            to.read_exact(&mut [0]).ok()?;
            sent.send(to, TOTAL).ok()?;
            to.shutdown(Shutdown::Write).ok()?;
            None
        });
        let mut two = Two::start(program, &backend, "");
        let plain = PlainClient::connect(two.client.address);
        plain.send(b"!");
        stream.receive(&plain.0, TOTAL / 10);
        two.server.process.signal(Signal::TERM);
        if program == Stunnel {
            two.server.process.wait(WAIT_TIMEOUT);
            let (rest, _) = plain.rest();
            assert!((rest.len() as u64) < TOTAL - TOTAL / 10, "stunnel lets a transfer finish now");
        } else {
            let (rest, ending) = plain.rest();
            assert_eq!((rest.len() as u64, ending), (TOTAL - TOTAL / 10, ConnectionEnd::Fin));
            stream.check(TOTAL / 10, &rest);
        }
    }
}
