use super::*;

const REST: &str = "PSKsecrets = k\n";

#[test]
fn a_section_s_list_replaces_the_global_one_with_a_warning_that_has_both_and_the_cure() {
    let text = format!(
        "connect = 10.0.0.1:1\n[s]\naccept = 127.0.0.1:1\nconnect = 10.0.0.2:2\nconnect = 10.0.0.3:3\n{REST}\
         [t]\naccept = 127.0.0.1:2\n{REST}"
    );
    let (config, report) = load(&text, "x.conf").unwrap();
    assert_eq!(targets(&config.services[0]), ["10.0.0.2:2", "10.0.0.3:3"]);
    assert_eq!(targets(&config.services[1]), ["10.0.0.1:1"]);
    assert_eq!(report.diagnostics.len(), 1);
    let found = &report.diagnostics[0];
    assert_eq!((found.code, found.place.as_ref().unwrap().line), ("list-replaced", 4));
    assert!(found.message.contains("one: 10.0.0.2:2, 10.0.0.3:3;"), "{}", found.message);
    assert!(found.message.ends_with("it: 10.0.0.1:1, 10.0.0.2:2, 10.0.0.3:3"), "{}", found.message);
    let help = found.help.as_deref().unwrap();
    assert!(
        help.contains("(line 1)") && help.contains("connect = 10.0.0.2:2; connect ="),
        "{help}"
    );
    for (global, own) in [
        ("accept = 127.0.0.1:9\n", "accept = 127.0.0.1:1\nconnect = 2\n"),
        (
            "protocolHeader = A: secret\n",
            "client = yes\nprotocol = connect\nprotocolHost = a:1\nprotocolHeader = B: c\n\
             accept = 127.0.0.1:1\nconnect = 2\n",
        ),
        (
            "config = Options:-SessionTicket\n",
            "config = MinProtocol:TLSv1.2\naccept = 127.0.0.1:1\nconnect = 2\n",
        ),
    ] {
        let (_, report) = load(&format!("{global}[s]\n{own}{REST}"), "x.conf").unwrap();
        let codes: Vec<_> = report.diagnostics.iter().map(|d| d.code).collect();
        assert_eq!(codes, ["list-replaced"], "{global}");
        assert!(!report.render(false).contains("warning: secret"), "{global}");
    }
    // The same either way is no matter.
    let same = format!("accept = 127.0.0.1:1\n[s]\naccept = 127.0.0.1:1\nconnect = 2\n{REST}");
    assert!(!good(&same, "x.conf").1.contains(&"list-replaced"));
    // Lists of switches are added to the global ones in every version.
    let text = format!(
        "options = NO_TICKET\nsocket = l:SO_SNDBUF=70000\n[s]\noptions = CIPHER_SERVER_PREFERENCE\n\
         socket = l:SO_RCVBUF=70000\naccept = 127.0.0.1:1\nconnect = 2\n{REST}"
    );
    let service = &good(&text, "x.conf").0.services[0];
    assert_eq!((service.tls.switches.len(), service.sockets.downstream.len()), (2, 2));
}

#[test]
fn what_later_versions_know_is_accepted_where_it_asks_for_nothing_and_dtls_is_refused_by_name() {
    for (line, codes_wanted) in [
        ("transport = tcp", vec!["without-effect"]),
        ("transport = TCP", vec!["without-effect"]),
        ("socket = a:UDP_GRO=1", vec!["without-effect"]),
        ("stack = 65536", vec!["without-effect"]),
        ("stack = 0", vec!["small-stack"]),
        ("options = SERVER_PREFERENCE", vec![]),
        ("options = NO_RX_CERTIFICATE_COMPRESSION", vec!["without-effect"]),
        ("options = ENABLE_KTLS_TX_ZEROCOPY_SENDFILE", vec!["without-effect"]),
    ] {
        assert_eq!(conf("", line).1, codes_wanted, "{line}");
    }
    for (line, code) in [
        ("transport = udp", "never-supported"),
        ("transport = sctp", "never-supported"),
        ("socket = a:UDP_NONE=1", "unknown-value"),
        ("stack = -1", "out-of-range"),
    ] {
        let text = format!("[s]\naccept = 127.0.0.1:1\nconnect = 2\n{REST}{line}\n");
        assert_eq!(codes(&text, "x.conf"), [code], "{line}");
    }
}
