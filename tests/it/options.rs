//! Single options: what is set is what happens, and where stunnel does the same, the same as there.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use crate::harness::openssl::psk;
use crate::harness::{
    Backend, ConnectionEnd, OpensslClient, PlainClient, Process, PskgateBuilder, Stunnel, Tls,
    WAIT_TIMEOUT, client_toml, free_port, local, server_toml,
};

/// Remembers who came.
fn who_comes() -> Backend {
    Backend::new(|stream| {
        Some((stream.peer_addr().unwrap().ip().to_string().into_bytes(), ConnectionEnd::Fin))
    })
}

fn come(to: SocketAddr) {
    let client = Stunnel::client(to, "");
    let plain = PlainClient::connect(client.address());
    plain.shut();
    plain.end();
}

#[test]
fn local_is_where_connections_come_from() {
    let backend = who_comes();
    let lines = |port: u16| {
        format!(
            "[tls]\naccept = 127.0.0.1:{port}\nconnect = {}\nlocal = 127.0.0.7\n",
            backend.address()
        )
    };
    let (ours, theirs) = (free_port(), free_port());
    let gate = PskgateBuilder::new().conf(
        "x.conf",
        &format!("{}PSKsecrets = psk.txt\n", lines(ours)),
        None,
    );
    let gate = gate.start();
    let stunnel = Stunnel::server_with(theirs, &lines(theirs));
    for (number, to) in [gate.address("tls"), stunnel.address()].into_iter().enumerate() {
        come(to);
        assert_eq!(backend.wait_end(number).0, b"127.0.0.7");
    }
    let native = server_toml(backend.address(), "local-address = \"127.0.0.8\"");
    let gate = PskgateBuilder::new().toml(&native).start();
    come(gate.address("tls"));
    assert_eq!(backend.wait_end(2).0, b"127.0.0.8");
}

/// With a source of one family there is no way to the other, and none is made up.
#[test]
fn a_local_address_of_another_family_reaches_nobody() {
    let backend = who_comes();
    let native = server_toml(backend.address(), "local-address = \"::1\"");
    let gate = PskgateBuilder::new().toml(&native).start();
    come(gate.address("tls"));
    gate.wait_logged("the local address is of another family");
    assert_eq!(backend.accepted(), 0);
}

/// How often each of three backends is reached, by either program.
fn spread(failover: &str, dead_first: bool) -> [Vec<usize>; 2] {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    [true, false].map(|ours| {
        let backends = [who_comes(), who_comes(), who_comes()];
        let port = free_port();
        let mut text = format!("[tls]\naccept = 127.0.0.1:{port}\nfailover = {failover}\n");
        if dead_first {
            text += &format!("connect = {dead}\n");
        }
        for backend in &backends {
            text += &format!("connect = {}\n", backend.address());
        }
        let _gate;
        let _stunnel;
        if ours {
            _gate = PskgateBuilder::new()
                .conf("x.conf", &format!("{text}PSKsecrets = psk.txt\n"), None)
                .start();
        } else {
            _stunnel = Stunnel::server_with(port, &text);
        }
        // Every client is a new one, and resumes nothing.
        for _ in 0..6 {
            OpensslClient::start(local(port), psk()).wait_end();
        }
        // A client may be gone before its backend has counted it.
        crate::harness::until("six arrivals", WAIT_TIMEOUT, || {
            let counts: Vec<usize> = backends.iter().map(Backend::accepted).collect();
            (counts.iter().sum::<usize>() >= 6).then_some(counts)
        })
    })
}

#[test]
fn failover_prefers_the_first_or_takes_turns_as_in_stunnel() {
    for dead_first in [false, true] {
        assert_eq!(spread("prio", dead_first), [vec![6, 0, 0], vec![6, 0, 0]]);
    }
    assert_eq!(spread("rr", false), [vec![2, 2, 2], vec![2, 2, 2]]);
}

/// A name with two addresses is two places to take turns between.
#[test]
fn turns_are_taken_between_the_addresses_of_a_port_alone_too() {
    let port = free_port();
    let counts = ["[::1]", "127.0.0.1"].map(|host| {
        let listener = TcpListener::bind(format!("{host}:{port}")).unwrap();
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            for _ in listener.incoming() {
                counted.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
            }
        });
        count
    });
    let text = server_toml(port, "failover = \"round-robin\"");
    let gate = PskgateBuilder::new().toml(&text).start();
    for _ in 0..4 {
        OpensslClient::start(gate.address("tls"), psk()).wait_end();
    }
    assert_eq!(counts.map(|count| count.load(std::sync::atomic::Ordering::Acquire)), [2, 2]);
}

/// What s_client and a server with these lines of a section agree on; nothing if they do not.
fn agreed(lines: &str, ours: bool, arguments: &[&str]) -> Option<(String, String)> {
    // It ends the session at once, and with it s_client.
    let backend = who_comes();
    let port = free_port();
    let text =
        format!("[tls]\naccept = 127.0.0.1:{port}\nconnect = {}\n{lines}\n", backend.address());
    let _gate;
    let _stunnel;
    if ours {
        _gate = PskgateBuilder::new()
            .conf("x.conf", &format!("{text}PSKsecrets = psk.txt\n"), None)
            .start();
    } else {
        _stunnel = Stunnel::server_with(port, &text);
    }
    let all = psk().into_iter().chain(arguments.iter().map(|one| (*one).to_owned()));
    let said = OpensslClient::start(local(port), all).wait_end();
    let after = |mark: &str| Some(said.split_once(mark)?.1.lines().next()?.trim().to_owned());
    let (suite, key) = (after("Cipher is ")?, after("Server Temp Key: ").unwrap_or_default());
    (suite != "(NONE)").then_some((suite, key))
}

#[test]
fn what_is_negotiated_under_each_tls_option_is_what_stunnel_negotiates() {
    const TWO: &str = "PSK-AES128-CBC-SHA:PSK-AES256-CBC-SHA";
    const TWO_REVERSED: &str = "ciphers = PSK-AES256-CBC-SHA:PSK-AES128-CBC-SHA";
    let preference = format!("{TWO_REVERSED}\noptions = CIPHER_SERVER_PREFERENCE");
    let unsaid = format!("{preference}\noptions = -CIPHER_SERVER_PREFERENCE");
    let chacha = "options = CIPHER_SERVER_PREFERENCE\noptions = PRIORITIZE_CHACHA\n\
                  ciphersuites = TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
    const CHACHA_FIRST: &str = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
    let (v12, v13) = (Tls::V12.flag(), Tls::V13.flag());
    let cases: &[(&str, &[&str], Option<&str>)] = &[
        (TWO_REVERSED, &[v12, "-cipher", TWO], Some("PSK-AES128-CBC-SHA")),
        (&preference, &[v12, "-cipher", TWO], Some("PSK-AES256-CBC-SHA")),
        (&unsaid, &[v12, "-cipher", TWO], Some("PSK-AES128-CBC-SHA")),
        (chacha, &[v13, "-ciphersuites", CHACHA_FIRST], Some("TLS_CHACHA20_POLY1305_SHA256")),
        (
            &chacha.replace("options = PRIORITIZE_CHACHA\n", ""),
            &[v13, "-ciphersuites", CHACHA_FIRST],
            Some("TLS_AES_128_GCM_SHA256"),
        ),
        ("options = NO_TLSv1_3", &[v13], None),
        ("options = NO_TLSv1_3", &[v12], Some("ECDHE-PSK-CHACHA20-POLY1305")),
        ("options = NO_TLSv1_3\noptions = -NO_TLSv1_3", &[v13], Some("SHA256")),
        ("options = -NO_TLSv1_2\noptions = NO_TLSv1_2", &[v12], Some("ECDHE-PSK")),
        ("sslVersion = TLSv1.2", &[v13], None),
        ("sslVersion = TLSv1.2", &[], Some("ECDHE-PSK")),
        ("sslVersion = TLSv1.3", &[v12], None),
        ("sslVersion = all", &[], Some("SHA256")),
        ("sslVersionMin = TLSv1.3", &[v12], None),
        ("sslVersionMax = TLSv1.2", &[v13], None),
        ("curves = P-384", &[v13], Some("SHA256")),
        ("curves = P-521:P-384", &[v12], Some("ECDHE-PSK")),
        ("curves = P-384", &[v13, "-groups", "X25519"], None),
        ("securityLevel = 3", &[v12, "-cipher", "PSK-AES128-CBC-SHA:@SECLEVEL=0"], None),
        ("securityLevel = 3", &[v13], Some("SHA256")),
        ("securityLevel = 4", &[v13], Some("TLS_CHACHA20_POLY1305_SHA256")),
        ("securityLevel = 5", &[v13], Some("TLS_CHACHA20_POLY1305_SHA256")),
        ("securityLevel = 0", &[v12, "-cipher", "PSK-AES128-CBC-SHA"], Some("PSK-AES128-CBC-SHA")),
        ("config = MaxProtocol:TLSv1.2", &[], Some("ECDHE-PSK")),
        // Whatever an option says, and wherever.
        ("config = MaxProtocol:TLSv1.2\nsslVersionMax = TLSv1.3", &[v13], None),
        ("config = CipherString:PSK-AES256-CBC-SHA\nciphers = PSK", &[v12], Some("PSK-AES256-CBC")),
        ("config = Protocol:-TLSv1.3", &[v13], None),
        ("config = Groups:P-384", &[v13, "-groups", "X25519"], Some("_SHA256")),
        (
            &format!("{TWO_REVERSED}\nconfig = Options:ServerPreference,-EncryptThenMac"),
            &[v12, "-cipher", TWO],
            Some("PSK-AES256-CBC-SHA"),
        ),
        (
            "config = Ciphersuites:TLS_CHACHA20_POLY1305_SHA256",
            &[v13],
            Some("TLS_CHACHA20_POLY1305_SHA256"),
        ),
    ];
    let mut wrong = Vec::new();
    for (lines, arguments, expected) in cases {
        let ours = agreed(lines, true, arguments);
        let theirs = agreed(lines, false, arguments);
        let suite = ours.as_ref().map(|(suite, _)| suite.as_str());
        let as_expected = match (suite, expected) {
            (Some(suite), Some(expected)) => suite.contains(expected),
            (None, None) => true,
            _ => false,
        };
        if ours != theirs || !as_expected {
            wrong.push(format!("{lines} {arguments:?}: {ours:?}, stunnel {theirs:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The switches that would weaken every handshake have no effect, and working files keep working.
#[test]
fn what_would_weaken_is_accepted_and_does_nothing() {
    let lines = "options = NO_TICKET\noptions = ALLOW_NO_DHE_KEX\noptions = -NO_COMPRESSION\n\
                 options = ALLOW_UNSAFE_LEGACY_RENEGOTIATION\noptions = ALLOW_CLIENT_RENEGOTIATION";
    let (suite, key) = agreed(lines, true, &["-tls1_3", "-allow_no_dhe_kex"]).expect("it works");
    assert!(suite.contains("SHA256") && key.contains("X25519"), "{suite} {key}");
    let port = free_port();
    let backend = Backend::echo();
    let text = format!(
        "[tls]\naccept = 127.0.0.1:{port}\nconnect = {}\nPSKsecrets = psk.txt\n{lines}\n",
        backend.address()
    );
    let gate = PskgateBuilder::new().conf("x.conf", &text, None).start();
    let all = psk().into_iter().chain(["-tls1_2".to_owned()]);
    let mut client = OpensslClient::start(gate.address("tls"), all);
    client.echo("no ticket, please");
    assert!(!client.out().contains("TLS session ticket:"), "{}", client.out());
}

/// Of each side, every option of socket(7), tcp(7) and ip(7) that stunnel knows.
#[test]
fn every_socket_option_is_set_on_every_side() {
    const OPTIONS: &[(&str, &str, &str)] = &[
        ("SO_DEBUG", "1", "SOL_SOCKET, SO_DEBUG, [1]"),
        ("SO_DONTROUTE", "1", "SOL_SOCKET, SO_DONTROUTE, [1]"),
        ("SO_KEEPALIVE", "1", "SOL_SOCKET, SO_KEEPALIVE, [1]"),
        ("SO_LINGER", "1:7", "SOL_SOCKET, SO_LINGER, {l_onoff=1, l_linger=7}"),
        ("SO_OOBINLINE", "1", "SOL_SOCKET, SO_OOBINLINE, [1]"),
        ("SO_RCVBUF", "70001", "SOL_SOCKET, SO_RCVBUF, [70001]"),
        ("SO_SNDBUF", "70002", "SOL_SOCKET, SO_SNDBUF, [70002]"),
        ("SO_RCVLOWAT", "1", "SOL_SOCKET, SO_RCVLOWAT, [1]"),
        ("SO_RCVTIMEO", "61:5", "SOL_SOCKET, SO_RCVTIMEO"),
        ("SO_SNDTIMEO", "62:5", "SOL_SOCKET, SO_SNDTIMEO"),
        ("SO_REUSEADDR", "1", "SOL_SOCKET, SO_REUSEADDR, [1]"),
        ("SO_BINDTODEVICE", "lo", "SOL_SOCKET, SO_BINDTODEVICE, \"lo"),
        ("TCP_KEEPCNT", "4", "SOL_TCP, TCP_KEEPCNT, [4]"),
        ("TCP_KEEPIDLE", "181", "SOL_TCP, TCP_KEEPIDLE, [181]"),
        ("TCP_KEEPINTVL", "17", "SOL_TCP, TCP_KEEPINTVL, [17]"),
        ("IP_TOS", "16", "SOL_IP, IP_TOS, [16]"),
        ("IP_TTL", "63", "SOL_IP, IP_TTL, [63]"),
        ("TCP_NODELAY", "0", "SOL_TCP, TCP_NODELAY, [0]"),
        ("IP_FREEBIND", "1", "SOL_IP, IP_FREEBIND, [1]"),
    ];
    let backend = Backend::echo();
    let port = free_port();
    let mut text = format!(
        "[tls]\naccept = 127.0.0.1:{port}\nconnect = {}\nPSKsecrets = psk.txt\n",
        backend.address()
    );
    for side in ["a", "l", "r"] {
        for (name, value, _) in OPTIONS {
            text += &format!("socket = {side}:{name}={value}\n");
        }
        // Linux knows it and takes it from nobody. On a listener that would be the end.
        if side != "a" {
            text += &format!("socket = {side}:SO_SNDLOWAT=1\n");
        }
    }
    let gate = PskgateBuilder::new().conf("x.conf", &text, None);
    let folder = gate.folder().to_owned();
    let mut command = Command::new("strace");
    // -D: the program is the child, so that it ends with the test, and strace with it.
    command.args(["-D", "-f", "-e", "trace=setsockopt,accept4,listen,connect", "-o", "trace"]);
    command.arg(env!("CARGO_BIN_EXE_pskgate")).args(["run", "x.conf"]).current_dir(&folder);
    command.env("RUNTIME_DIRECTORY", &folder);
    let mut process = Process::spawn("strace", "the Debian package strace", &mut command);
    crate::harness::until("the port", WAIT_TIMEOUT, || {
        std::fs::read_to_string(folder.join("trace")).ok()?.contains("listen(").then_some(())
    });
    let client = Stunnel::client(local(port), "");
    PlainClient::connect(client.address()).echo(b"options are no obstacle");
    process.kill();
    let trace = crate::harness::until("the end of the trace", WAIT_TIMEOUT, || {
        let trace = std::fs::read_to_string(folder.join("trace")).ok()?;
        trace.contains("+++ killed by SIGKILL").then_some(trace)
    });
    let calls = |of: &str| -> Vec<String> {
        trace
            .lines()
            .filter(|line| line.contains(&format!("setsockopt({of}, ")))
            .map(str::to_owned)
            .collect()
    };
    let first_number = |mark: &str| {
        let line = trace.lines().find(|line| line.contains(mark)).expect(mark);
        line.split_once(mark).unwrap().1.split([',', ')']).next().unwrap().to_owned()
    };
    let connects: String = format!("sin_port=htons({})", backend.address().port());
    let line = trace.lines().find(|line| line.contains(&connects)).expect("a connect");
    let up = line.split_once("connect(").unwrap().1.split(',').next().unwrap().to_owned();
    let accepted =
        trace.lines().find(|l| l.contains("accept4(") && l.contains("sin_port")).unwrap();
    let down = accepted.rsplit("= ").next().unwrap().trim().to_owned();
    for (side, fd) in [("a", first_number("listen(")), ("l", down), ("r", up)] {
        let calls = calls(&fd);
        for (name, _, wanted) in OPTIONS {
            let done = calls.iter().any(|call| call.contains(wanted) && call.ends_with("= 0"));
            assert!(done, "{side}:{name} of descriptor {fd} is not set:\n{}", calls.join("\n"));
        }
    }
    assert!(process.err().contains("SendLowWater"), "what cannot be set is told");
}

#[test]
fn ipv6_only_is_set_before_the_address_is_bound() {
    let port = free_port();
    let backend = Backend::echo();
    let extra = "socket = \"accept:IPV6_V6ONLY=1\"";
    let text =
        server_toml(backend.address(), extra).replace("127.0.0.1:0", &format!("[::]:{port}"));
    let gate = PskgateBuilder::new().toml(&text).start();
    gate.wait_logged("listening on");
    assert!(TcpListener::bind(("0.0.0.0", port)).is_ok(), "IPv4 is still to be had");
}

/// VolSync's file, in the parts that make it up.
#[test]
fn volsync_s_client_reaches_a_server_with_a_program() {
    let port = free_port();
    let text = format!(
        "foreground = yes\ndebug = info\nsocket = l:SO_KEEPALIVE=1\nsocket = l:TCP_KEEPIDLE=180\n\
         socket = r:SO_KEEPALIVE=1\nsocket = r:TCP_KEEPIDLE=180\nsyslog = no\n\
         [rsync]\nciphers = PSK\nPSKsecrets = psk.txt\nsslVersionMin = TLSv1.3\n# comment\n\
         accept = :::{port}\nexec = /bin/cat\nexecargs = cat -u\n"
    );
    let gate = PskgateBuilder::new().conf("x.conf", &text, None).start();
    let client = PskgateBuilder::new().toml(&client_toml(local(port), "")).start();
    let plain = PlainClient::connect(client.address("plain"));
    plain.echo(b"over the wildcard");
    gate.wait_logged("Local mode child started");
}

#[test]
fn a_global_address_is_bound_once_and_the_rest_goes_on_as_in_stunnel() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let (shared, own) = (free_port(), free_port());
    let text = format!(
        "accept = 127.0.0.1:{shared}\n[first]\nconnect = {}\n[second]\naccept = 127.0.0.1:{own}\nconnect = {}\n",
        first.address(),
        second.address()
    );
    for ours in [true, false] {
        let _gate;
        let _stunnel;
        if ours {
            _gate = PskgateBuilder::new()
                .conf("x.conf", &format!("PSKsecrets = psk.txt\n{text}"), None)
                .start();
        } else {
            _stunnel = Stunnel::server_with(shared, &text);
        }
        for (port, backend, number) in [(shared, &first, 1), (own, &second, 1)] {
            let before = backend.accepted();
            OpensslClient::start(local(port), psk()).echo("whose is it?");
            assert_eq!(backend.accepted() - before, number);
        }
    }
}

#[test]
fn a_section_s_debug_is_its_own() {
    let (loud, quiet) = (free_port(), free_port());
    let section = |name: &str, port: u16, more: &str| {
        format!("[{name}]\naccept = 127.0.0.1:{port}\nconnect = 9\nPSKsecrets = psk.txt\n{more}\n")
    };
    let text = section("quiet", quiet, "") + &section("loud", loud, "debug = debug");
    let gate = PskgateBuilder::new().conf("x.conf", &text, None).start();
    for service in ["quiet", "loud"] {
        drop(PlainClient::connect(gate.address(service)));
        gate.wait_logged(&format!("Service [{service}] accepted connection"));
    }
    gate.wait_logged("Service [loud] started");
    assert!(!gate.log().contains("Service [quiet] started"), "{}", gate.log());
}

#[test]
fn an_address_that_this_machine_lacks_is_no_mistake_beside_one_that_it_has() {
    let backend = Backend::echo();
    let port = free_port();
    // TEST-NET-2 (RFC 5737) is nobody's.
    let section = |accept: &str| {
        format!("[x]\n{accept}connect = {}\nPSKsecrets = psk.txt\n", backend.address())
    };
    let both = format!("accept = 198.51.100.1:{port}\naccept = 127.0.0.1:{port}\n");
    let text = "debug = info\n".to_owned() + &section(&both);
    let gate = PskgateBuilder::new().conf("x.conf", &text, None).launch();
    gate.wait_logged(&format!("bound to 127.0.0.1:{port}"));
    let client = Stunnel::client(local(port), "");
    PlainClient::connect(client.address()).echo(b"here");
    let neither = format!("accept = 198.51.100.1:{port}\naccept = 198.51.100.2:{port}\n");
    let mut gate = PskgateBuilder::new().conf("x.conf", &section(&neither), None).launch();
    assert_eq!(gate.exit_code(WAIT_TIMEOUT), Some(69));
    assert!(gate.err().contains("cannot listen on"), "{}", gate.err());
}

/// What stands between the brackets of stunnel's lines.
fn ids(log: &str) -> Vec<String> {
    let id = |line: &str| {
        Some(line.split_once(" LOG")?.1.split_once('[')?.1.split(']').next()?.to_owned())
    };
    log.lines().filter(|line| line.contains("accepted connection from")).filter_map(id).collect()
}

#[test]
fn a_line_has_the_word_for_its_connection_that_log_id_asks_for() {
    let shape = |id: &str| -> String {
        let kind = |c: char| if c.is_ascii_digit() { '9' } else { 'a' };
        if id.len() == 22 {
            "22 letters and digits".into()
        } else {
            id.chars()
                .map(kind)
                .collect::<String>()
                .replace("99", "9")
                .replace("99", "9")
                .replace("99", "9")
        }
    };
    for word in ["sequential", "unique", "thread", "process"] {
        let (ours, theirs) = (free_port(), free_port());
        let section =
            |port: u16| format!("[s]\naccept = 127.0.0.1:{port}\nconnect = 9\nlogId = {word}\n");
        let gate = PskgateBuilder::new()
            .conf("x.conf", &format!("{}PSKsecrets = psk.txt\n", section(ours)), None)
            .start();
        let stunnel = Stunnel::server_with(theirs, &section(theirs));
        for to in [gate.address("s"), stunnel.address()] {
            for _ in 0..2 {
                drop(PlainClient::connect(to));
            }
        }
        let two = |log: &dyn Fn() -> String| {
            crate::harness::until("two connections", WAIT_TIMEOUT, || {
                Some(ids(&log())).filter(|ids| ids.len() == 2)
            })
        };
        let (got, expected) = (two(&|| gate.log()), two(&|| stunnel.err()));
        assert_eq!(shape(&got[0]), shape(&expected[0]), "{word}: {got:?} {expected:?}");
        assert_eq!(got[0] == got[1], matches!(word, "process" | "thread"), "{word}: {got:?}");
        if word == "process" {
            assert_eq!(got[0], gate.id().to_string());
        }
    }
}

#[test]
fn a_unique_word_stands_in_json_beside_the_number() {
    let text = "[log]\nformat = \"json\"\nlevel = \"debug\"\n".to_owned()
        + &server_toml(9, "log-id = \"unique\"");
    let gate = PskgateBuilder::new().toml(&text).launch();
    let line = gate.wait_logged("listening on ");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    drop(PlainClient::connect(line["address"].as_str().unwrap().parse().unwrap()));
    let line: serde_json::Value =
        serde_json::from_str(&gate.wait_logged("\"event\":\"accepted\"")).unwrap();
    assert_eq!(line["session"], 0);
    assert_eq!(line["id"].as_str().map(str::len), Some(22));
}

/// Answers every connection with a word.
fn says(listener: &TcpListener, word: &'static str) {
    let listener = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = std::io::Write::write_all(&mut stream, word.as_bytes());
        }
    });
}

/// A machine that gets another address while the tunnel runs.
#[test]
fn a_name_is_looked_up_at_each_connection_as_by_stunnel_with_delay() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.2", port)).unwrap();
    says(&first, "first");
    says(&second, "second");
    let hosts = tempfile::NamedTempFile::new().unwrap();
    let moves_to = |ip: &str| std::fs::write(hosts.path(), format!("{ip} plc.test\n")).unwrap();
    moves_to("127.0.0.1");
    // They alone see these names.
    let mount = format!("mount --bind {} /etc/hosts", hosts.path().display());
    let section = |port_of: u16, delay: &str| {
        format!("[s]\naccept = 127.0.0.1:{port_of}\nconnect = plc.test:{port}\n{delay}\n")
    };
    let stunnel = |delay: &str| {
        let (folder, own) = (PskgateBuilder::new(), free_port());
        let keys = folder.folder().join("psk.txt");
        let text = format!(
            "foreground = yes\npid =\ndebug = 7\nPSKsecrets = {}\n{}",
            keys.display(),
            section(own, delay)
        );
        let file = folder.folder().join("stunnel.conf");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("unshare");
        let line = format!("{mount} && exec stunnel4 {}", file.display());
        command.args(["--mount", "sh", "-c", &line]);
        let process = Process::spawn("stunnel4", "the Debian package stunnel4", &mut command);
        process.wait_for("Accepting new connections", WAIT_TIMEOUT);
        (process, local(own), folder)
    };
    let (_frozen, frozen, _f) = stunnel("");
    let (_delayed, delayed, _d) = stunnel("delay = yes");
    let text = format!("PSKsecrets = psk.txt\n{}", section(free_port(), ""));
    let inner = format!("{mount} && exec \"$@\"");
    let gate = PskgateBuilder::new()
        .conf("x.conf", &text, None)
        .shell(&format!("exec unshare --mount sh -c '{inner}' sh \"$@\""))
        .start();
    let ends = [gate.address("s"), delayed, frozen].map(|to| {
        // A resumed session goes where the first one went.
        Stunnel::client(to, "sessionResume = no")
    });
    let heard = || {
        ends.each_ref().map(|end| {
            let plain = PlainClient::connect(end.address());
            String::from_utf8(plain.rest().0).unwrap()
        })
    };
    assert_eq!(heard(), ["first", "first", "first"]);
    moves_to("127.0.0.2");
    assert_eq!(heard(), ["second", "second", "first"]);
}
