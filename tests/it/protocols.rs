//! What is spoken around TLS, and whose addresses are kept: HTTP CONNECT, SOCKS, transparency. Beside
//! stunnel.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::two_hosts::{ADDRESSES, echo_on, on_host};
use crate::harness::{
    Backend, ConnectionEnd, PlainClient, Process, Pskgate, PskgateBuilder, Stopwatch, Stunnel,
    TwoHosts, WAIT_TIMEOUT, client_toml, free_port, local, server_toml, until,
};

/// An HTTP proxy that notes what it is asked, and answers with `answer`; after a good one it carries on.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn new(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, noted) = (answer.clone(), noted.clone());
                std::thread::spawn(move || serve(stream, &answer, &noted));
            }
        });
        Self { address, asked }
    }

    fn asked(&self, number: usize) -> String {
        until("a request to the proxy", WAIT_TIMEOUT, || {
            self.asked.lock().unwrap().get(number).cloned()
        })
    }
}

fn serve(mut stream: TcpStream, answer: &[u8], noted: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    noted.lock().unwrap().push(head.clone());
    let good = answer.starts_with(b"HTTP/1.0 200");
    let Some(to) = head.split(' ').nth(1).filter(|_| good) else {
        let _ = stream.write_all(answer);
        // Kept, so that it is the answer that ends it.
        let _ = stream.read(&mut [0; 1000]);
        return;
    };
    let Ok(far) = TcpStream::connect(to) else { return };
    stream.write_all(answer).unwrap();
    let (mut near, mut there) = (stream.try_clone().unwrap(), far.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut near, &mut there);
        let _ = there.shutdown(Shutdown::Write);
    });
    let (mut far, mut stream) = (far, stream);
    let _ = std::io::copy(&mut far, &mut stream);
    let _ = stream.shutdown(Shutdown::Write);
}

fn good() -> Vec<u8> {
    b"HTTP/1.0 200 Connection established\r\nVia: test\r\n\r\n".to_vec()
}

const PASSWORD: &str = "open sesame, please";

/// The lines of a section that goes through a proxy.
fn through(to: SocketAddr) -> String {
    format!(
        "client = yes\nprotocol = connect\nprotocolHost = {to}\nprotocolUsername = someone\n\
         protocolPassword = {PASSWORD}\nprotocolHeader = X-Site: 7\nprotocolHeader = X-Line: a\n"
    )
}

#[test]
fn a_client_asks_a_proxy_for_the_way_as_stunnel_does() {
    let backend = Backend::echo();
    let server = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let proxy = Proxy::new(good());
    let to = server.address("tls");
    let port = free_port();
    let text = format!(
        "debug = debug\n[s]\naccept = 127.0.0.1:{port}\nconnect = {}\nPSKsecrets = psk.txt\n{}",
        proxy.address,
        through(to)
    );
    let gate = PskgateBuilder::new().conf("x.conf", &text, None).start();
    let stunnel = Stunnel::client(proxy.address, &through(to));
    for (number, at) in [gate.address("s"), stunnel.address()].into_iter().enumerate() {
        let plain = PlainClient::connect(at);
        plain.echo(b"through the proxy");
        plain.shut();
        assert_eq!(plain.rest(), (Vec::new(), ConnectionEnd::Fin));
        proxy.asked(number);
    }
    let same = |text: String| text.replace(": basic ", ": Basic ");
    assert_eq!(proxy.asked(0), same(proxy.asked(1)));
    assert!(proxy.asked(0).contains("\r\nX-Line: a\r\n"), "{}", proxy.asked(0));
    let line = gate.wait_logged("CONNECT request accepted");
    assert!(line.contains(" LOG6["), "{line}");
    stunnel.wait_for("CONNECT request accepted", WAIT_TIMEOUT);
    // Where stunnel logs it, in base64, at its most talkative.
    let encoded = data_encoding::BASE64.encode(format!("someone:{PASSWORD}").as_bytes());
    assert!(stunnel.err().contains(&encoded[..8]));
    for secret in [PASSWORD, &encoded[..8], "open sesame"] {
        assert!(!gate.log().contains(secret), "{}", gate.log());
    }
}

#[test]
fn the_password_is_in_no_finding_and_no_listing() {
    let gate = PskgateBuilder::new();
    let text = |more: &str| {
        format!(
            "[s]\naccept = 127.0.0.1:{}\nconnect = 127.0.0.1:9\nPSKsecrets = psk.txt\n{}{more}",
            free_port(),
            through(local(9))
        )
    };
    let bad = format!("protocolPassword = {PASSWORD}\u{1}\n");
    for (text, code) in [(text(""), 0), (text(&bad), 78), (text("protocolPassword\n"), 78)] {
        std::fs::write(gate.folder().join("x.conf"), text).unwrap();
        for arguments in [&["check", "x.conf"][..], &["check", "--effective", "x.conf"]] {
            let done = Command::new(env!("CARGO_BIN_EXE_pskgate"))
                .args(arguments)
                .current_dir(gate.folder())
                .output()
                .unwrap();
            let said = [done.stdout, done.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(!said.contains("sesame"), "{said}");
            assert_eq!(done.status.code(), Some(code), "{said}");
        }
    }
}

#[test]
fn every_answer_but_a_good_one_is_told_and_ends_the_connection() {
    let long = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'a'; 100_000]].concat();
    for (answer, why) in [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".to_vec(), "(407)"),
        (b"HTTP/1.1 403 \x1b[31mNo\r\n\r\n".to_vec(), "status 403"),
        (b"220 mail.example ESMTP\r\n\r\n".to_vec(), "not an HTTP proxy"),
        (long, "more than 16384 bytes"),
        (Vec::new(), "does not answer"),
    ] {
        let proxy = Proxy::new(answer);
        let extra = "protocol = \"connect\"\nprotocol-host = \"plc.example:3001\"\n\
                     handshake-timeout = \"1s\"";
        let gate = PskgateBuilder::new().toml(&client_toml(proxy.address, extra)).start();
        let watch = Stopwatch::start();
        assert_eq!(PlainClient::connect(gate.address("plain")).end(), ConnectionEnd::Rst);
        watch.expect_within(Duration::from_secs(3));
        let line = gate.wait_logged("no target answers");
        assert!(line.contains(why) && !line.contains('\u{1b}'), "{line}");
    }
}

/// An address of this machine that is not its loopback.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent.
    socket.connect("192.0.2.1:9").expect("this machine has a network");
    socket.local_addr().unwrap().ip()
}

/// Says these one after the other, and what was answered to each.
fn conversation(at: SocketAddr, steps: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let plain = PlainClient::connect(at);
    let mut stream = &plain.0;
    let mut answers = Vec::new();
    for step in steps {
        stream.write_all(step).unwrap();
        let mut answer = vec![0; 100];
        let count = stream.read(&mut answer).unwrap_or(0);
        answer.truncate(count);
        answers.push(answer);
    }
    answers
}

#[test]
fn a_server_connects_where_its_peer_asks_and_answers_as_stunnel_does() {
    let ip = own_address();
    let IpAddr::V4(four) = ip else { panic!("{ip}") };
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut line = [0; 3];
            let _ = stream.read_exact(&mut line);
            let _ = stream.write_all(b"seen");
        }
    });
    let (ours, theirs) = (free_port(), free_port());
    let section = |port: u16| format!("[s]\naccept = 127.0.0.1:{port}\nprotocol = socks\n");
    let stunnel = Stunnel::server_with(theirs, &section(theirs));
    let gate = PskgateBuilder::new()
        .conf("x.conf", &format!("{}PSKsecrets = psk.txt\n", section(ours)), None)
        .start();
    let ends = [gate.address("s"), stunnel.address()].map(|to| Stunnel::client(to, ""));
    let (p, o) = (port.to_be_bytes(), four.octets());
    let four = |command: u8, o: [u8; 4], p: [u8; 2]| [&[4, command], &p[..], &o, b"me\0"].concat();
    let five = |command: u8, o: [u8; 4], p: [u8; 2]| [&[5, command, 0, 1], &o[..], &p].concat();
    let name =
        |name: &str, p: [u8; 2]| [&[5, 1, 0, 3, name.len() as u8], name.as_bytes(), &p].concat();
    let hello = vec![5, 1, 0];
    let here = [127, 0, 0, 1];
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("4", vec![four(1, o, p), b"say".to_vec()]),
        ("5", vec![hello.clone(), five(1, o, p), b"say".to_vec()]),
        ("5, one of two methods", vec![vec![5, 2, 2, 0], five(1, o, p), b"say".to_vec()]),
        ("4, loopback", vec![four(1, here, p)]),
        ("5, loopback", vec![hello.clone(), five(1, here, p)]),
        ("5, localhost", vec![hello.clone(), name("localhost", p)]),
        ("5, a name that nobody knows", vec![hello.clone(), name("no-such-host.invalid", p)]),
        ("4, BIND", vec![four(2, o, p)]),
        ("5, BIND", vec![hello.clone(), five(2, o, p)]),
        ("5, UDP", vec![hello.clone(), five(3, o, p)]),
        ("5, a password", vec![vec![5, 1, 2]]),
    ];
    for (what, steps) in &cases {
        let [got, expected] = ends.each_ref().map(|end| conversation(end.address(), steps));
        assert_eq!(got, expected, "{what}");
        if steps.last().is_some_and(|last| last == b"say") {
            assert_eq!(got.last().map(Vec::as_slice), Some(&b"seen"[..]), "{what}");
        }
    }
    // stunnel says that it is connected, and then finds that it is not.
    let nobody = free_port().to_be_bytes();
    let steps = [hello.clone(), five(1, o, nobody)];
    let [got, theirs] = ends.each_ref().map(|end| conversation(end.address(), &steps));
    assert_eq!((got[1][1], theirs[1][1]), (5, 0));
    // Other spellings of this machine.
    for ip in ["0.0.0.0", "127.1.2.3"] {
        let octets = ip.parse::<std::net::Ipv4Addr>().unwrap().octets();
        let steps = [hello.clone(), five(1, octets, p)];
        let [got, theirs] = ends.each_ref().map(|end| conversation(end.address(), &steps));
        assert_eq!(got[1][1], 2, "{ip}");
        // stunnel connects to its own machine there.
        assert_eq!(theirs[1][1], if ip == "0.0.0.0" { 0 } else { 2 }, "{ip}");
    }
}

#[test]
fn who_asks_for_nothing_has_the_time_of_a_handshake() {
    let text = "[services.s]\nmode = \"server\"\naccept = \"127.0.0.1:0\"\nprotocol = \"socks\"\n\
                psk-secrets = \"psk.txt\"\nhandshake-timeout = \"1s\"\n";
    let gate = PskgateBuilder::new().toml(text).start();
    let client = Stunnel::client(gate.address("s"), "");
    for bytes in [&b""[..], b"\x04\x01\x00\x50\x01\x02\x03\x04uuu", b"\x05\x01"] {
        let plain = PlainClient::connect(client.address());
        plain.send(bytes);
        let watch = Stopwatch::start();
        assert_eq!(plain.rest().0, b"");
        watch.expect_within(Duration::from_secs(4));
    }
    gate.wait_logged("does not answer");
}

/// What comes from the other host for port 8080 of this one ends at port 4444.
fn redirect(host: &str) {
    let rules = "table ip here {\n chain aside {\n  type nat hook prerouting priority -100;\n  \
                 iifname \"cable\" tcp dport 8080 redirect to :4444\n }\n}\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    let done = Command::new("ip")
        .args(["netns", "exec", host, "nft", "-f"])
        .arg(file.path())
        .output()
        .expect("the Debian package nftables");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// stunnel on a host, with these sections.
fn stunnel_on(host: &str, gate: &PskgateBuilder, sections: &str) -> Process {
    let file = gate.folder().join("stunnel.conf");
    let keys = gate.folder().join("psk.txt");
    let text =
        format!("foreground = yes\ndebug = 7\npid =\nPSKsecrets = {}\n{sections}", keys.display());
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host, "stunnel4"]).arg(&file);
    let process = Process::spawn("stunnel4", "the Debian package stunnel4", &mut command);
    process.wait_for("Accepting new connections", WAIT_TIMEOUT);
    process
}

fn pskgate_on(host: &str, sections: &str) -> Pskgate {
    let text = format!("debug = info\nPSKsecrets = psk.txt\n{sections}");
    let gate = PskgateBuilder::new().conf("x.conf", &text, None).on(host).launch();
    gate.wait_logged("Accepting new connections");
    gate
}

#[test]
fn a_redirected_connection_goes_where_it_was_meant_to_go() {
    let sections = "[s]\naccept = 4444\ntransparent = destination\n";
    for ours in [true, false] {
        let cable = TwoHosts::new();
        let [here, there] = &cable.hosts;
        redirect(here);
        echo_on(here, ADDRESSES[0]);
        let folder = PskgateBuilder::new();
        let gate = ours.then(|| pskgate_on(here, sections));
        let _stunnel = (!ours).then(|| stunnel_on(here, &folder, sections));
        let client = PskgateBuilder::new();
        let toml = client_toml(format!("{}:8080", ADDRESSES[0]), "")
            .replace("127.0.0.1:0", "unix:door.sock");
        let client = client.toml(&toml).on(there).start();
        let mut door = UnixStream::connect(client.folder().join("door.sock")).unwrap();
        door.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        door.write_all(b"there and back").unwrap();
        let mut back = [0; 14];
        door.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"there and back");
        if let Some(gate) = &gate {
            // Who comes in person was not redirected, and would be connected to himself without end.
            let toml = toml.replace(":8080", ":4444");
            let client = PskgateBuilder::new().toml(&toml).on(there).start();
            let mut door = UnixStream::connect(client.folder().join("door.sock")).unwrap();
            door.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
            let _ = door.write_all(b"hello?");
            assert!(!matches!(door.read(&mut back), Ok(1..)));
            gate.wait_logged("No more addresses to connect");
        }
    }
}

#[test]
fn a_socks_client_tells_its_server_where_a_redirected_connection_was_meant_to_go() {
    let client = "[c]\nclient = yes\naccept = 4444\nconnect = 127.0.0.1:5555\nprotocol = socks\n";
    let server = "[s]\naccept = 127.0.0.1:5555\nprotocol = socks\n";
    for (our_client, our_server) in [(true, true), (true, false), (false, true), (false, false)] {
        let cable = TwoHosts::new();
        let [here, there] = &cable.hosts;
        redirect(here);
        echo_on(here, ADDRESSES[0]);
        let folders = [PskgateBuilder::new(), PskgateBuilder::new()];
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for ((sections, is_ours), folder) in
            [(server, our_server), (client, our_client)].into_iter().zip(&folders)
        {
            if is_ours {
                ours.push(pskgate_on(here, sections));
            } else {
                theirs.push(stunnel_on(here, folder, sections));
            }
        }
        let mut plain = on_host(there, || TcpStream::connect((ADDRESSES[0], 8080)).unwrap());
        plain.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        plain.write_all(b"there and back").unwrap();
        let mut back = [0; 14];
        let read = plain.read_exact(&mut back);
        assert!(read.is_ok(), "{our_client} {our_server}: {read:?}");
        assert_eq!(&back, b"there and back", "{our_client} {our_server}");
    }
}

/// The answers to an address that is not this machine's have to be led back to it.
fn keep_answers(host: &str) {
    let rules = "table ip answers {\n chain back {\n  type route hook output priority -150;\n  \
                 tcp sport 8080 meta mark set 1\n }\n}\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    for line in [
        format!("nft -f {}", file.path().display()),
        "ip rule add fwmark 1 lookup 100".into(),
        "ip route add local 0.0.0.0/0 dev lo table 100".into(),
    ] {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", host]).args(line.split(' '));
        let done = command.output().unwrap();
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn a_backend_sees_the_peer_s_own_address() {
    let section = |whose: &str| {
        format!("[s]\naccept = 4444\nconnect = {}:8080\ntransparent = {whose}\n", ADDRESSES[0])
    };
    for (ours, whose, seen) in
        [(true, "source", 1), (false, "source", 1), (true, "none", 0), (false, "none", 0)]
    {
        let cable = TwoHosts::new();
        let [here, there] = &cable.hosts;
        if whose == "source" {
            keep_answers(here);
        }
        let backend = on_host(here, || TcpListener::bind((ADDRESSES[0], 8080)).unwrap());
        let (_gate, _stunnel);
        let folder = PskgateBuilder::new();
        if ours {
            _gate = pskgate_on(here, &section(whose));
        } else {
            _stunnel = stunnel_on(here, &folder, &section(whose));
        }
        let toml = client_toml(format!("{}:4444", ADDRESSES[0]), "")
            .replace("127.0.0.1:0", "unix:door.sock");
        let client = PskgateBuilder::new().toml(&toml).on(there).start();
        let mut door = UnixStream::connect(client.folder().join("door.sock")).unwrap();
        door.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        door.write_all(b"who am I?").unwrap();
        let (mut stream, from) = backend.accept().unwrap();
        let mut line = [0; 9];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(&line).unwrap();
        door.read_exact(&mut line).unwrap();
        assert_eq!(from.ip().to_string(), ADDRESSES[seen], "{ours} {whose}");
        assert_eq!(&line, b"who am I?");
    }
}

/// The packet filter sends a connection here, and its backend, on this host too, sees nothing of that.
#[test]
fn a_redirected_connection_goes_where_it_was_meant_to_go_from_its_own_address() {
    for (whose, seen) in [("both", 1), ("destination", 0)] {
        let cable = TwoHosts::new();
        let [here, there] = &cable.hosts;
        redirect(here);
        keep_answers(here);
        let backend = on_host(here, || TcpListener::bind((ADDRESSES[0], 8080)).unwrap());
        let gate = pskgate_on(here, &format!("[s]\naccept = 4444\ntransparent = {whose}\n"));
        let toml = client_toml(format!("{}:8080", ADDRESSES[0]), "")
            .replace("127.0.0.1:0", "unix:door.sock");
        let client = PskgateBuilder::new().toml(&toml).on(there).start();
        let mut door = UnixStream::connect(client.folder().join("door.sock")).unwrap();
        door.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        door.write_all(b"who am I?").unwrap();
        gate.wait_logged("connected remote server");
        let (mut stream, from) = backend.accept().unwrap();
        let mut line = [0; 9];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(&line).unwrap();
        door.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"who am I?");
        assert_eq!(from.ip().to_string(), ADDRESSES[seen], "{whose}");
    }
}
