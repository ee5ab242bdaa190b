//! `check`: what a file comes to, and what in it is unwise.

use std::os::unix::fs::PermissionsExt;

use crate::harness::process::{Finished, pskgate};
use crate::harness::{IDENTITY, KEY, OTHER_KEY, PskgateBuilder, secret, write_private};

const CONF: &str = "debug = info
client = yes
TIMEOUTclose = 5

[beremiz]
accept = 127.0.0.1:3002
connect = plc.example:3001
connect = 10.0.0.7:3001
PSKsecrets = psk.txt
socket = r:TCP_KEEPIDLE=60
sni =

[other]
client = no
accept = 3003
exec = /bin/cat
PSKsecrets = other.txt
sslVersionMax = TLSv1.2
TIMEOUTclose = 7
";

fn gate() -> PskgateBuilder {
    PskgateBuilder::new().file("other.txt", &secret("other", OTHER_KEY))
}

fn effective(gate: &PskgateBuilder, file: &str) -> String {
    let done = pskgate(gate.folder(), &["check", "--effective", file]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    assert!(!done.out.contains(KEY) && !done.out.contains(OTHER_KEY), "a key is shown");
    done.out
}

/// The part of a service, and in it the line of an option with this value.
fn expect(text: &str, service: &str, wanted: &str, who: &str) {
    let part = match service {
        "" => text.split("\n[").next().unwrap(),
        name => text.split("\n[").find(|part| part.starts_with(&format!("{name}]"))).unwrap(),
    };
    let found = part.lines().any(|line| {
        line.split_once("  # ").is_some_and(|(said, by)| said.trim() == wanted && by == who)
    });
    assert!(found, "`{wanted}` by `{who}` is not in [{service}] of\n{text}");
}

#[test]
fn the_effective_configuration_says_who_decided_each_value() {
    let gate = gate().file("x.conf", CONF);
    let text = effective(&gate, "x.conf");
    for (service, wanted, who) in [
        ("", "debug = info", "x.conf:1"),
        ("", "foreground = no", "stunnel's default"),
        ("beremiz", "client = yes", "x.conf:2, for all services"),
        ("beremiz", "accept = 127.0.0.1:3002", "x.conf:6"),
        ("beremiz", "connect = plc.example:3001", "x.conf:7"),
        ("beremiz", "connect = 10.0.0.7:3001", "x.conf:8"),
        ("beremiz", "TIMEOUTclose = 5", "x.conf:3, for all services"),
        ("beremiz", "TIMEOUTidle = 43200", "stunnel's default"),
        ("beremiz", "PSKidentity = (the first of the key file)", "unset"),
        ("beremiz", "socket = r:TCP_KEEPIDLE=60", "x.conf:10"),
        ("beremiz", "keepalive = off", "x.conf:10"),
        ("beremiz", "sni = (none is sent)", "x.conf:11"),
        ("other", "client = no", "x.conf:14"),
        ("other", "accept = 0.0.0.0:3003", "x.conf:15"),
        ("other", "exec = /bin/cat", ""),
        ("other", "sslVersionMin = TLSv1.2", "stunnel's default"),
        ("other", "sslVersionMax = TLSv1.2", "x.conf:18"),
        ("other", "TIMEOUTclose = 7", "x.conf:19"),
        ("other", "keepalive = 15s/5s/3", "stunnel's default"),
    ] {
        if wanted.starts_with("exec") {
            assert!(text.contains(wanted), "{text}");
            continue;
        }
        expect(&text, service, wanted, who);
    }
}

#[test]
fn a_native_file_is_described_in_its_own_words() {
    let text = "drain-timeout = \"90s\"\n[defaults]\nidle-timeout = \"1h30m\"\n[services.ide]\n\
                mode = \"client\"\naccept = \"127.0.0.1:3002\"\nconnect = \"plc.example:3001\"\n\
                psk-secrets = \"psk.txt\"\nmax-sessions = 1\n";
    let gate = gate().toml(text);
    let text = effective(&gate, "pskgate.toml");
    for (service, wanted, who) in [
        ("", "drain-timeout = 90s", "pskgate.toml:1"),
        ("", "level = info", "default"),
        ("ide", "mode = client", "pskgate.toml:5"),
        ("ide", "idle-timeout = 90m", "pskgate.toml:3, for all services"),
        ("ide", "close-timeout = 1m", "default"),
        ("ide", "max-sessions = 1", "pskgate.toml:9"),
        ("ide", "max-handshakes = (from memory and the limit on open files)", "unset"),
        ("ide", "reset = (by how the connection ended)", "unset"),
    ] {
        expect(&text, service, wanted, who);
    }
}

#[test]
fn a_broken_file_has_no_effective_configuration() {
    let gate = gate().file("x.conf", "[s]\naccept = 1\n");
    let done = pskgate(gate.folder(), &["check", "--effective", "x.conf"]);
    assert_eq!(done.code, Some(78));
    assert_eq!(done.out, "");
}

fn check(conf: &str, keys: &str, mode: u32) -> Finished {
    let gate = PskgateBuilder::new().file("x.conf", conf);
    let path = gate.folder().join("psk.txt");
    write_private(&path, keys);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    pskgate(gate.folder(), &["check", "x.conf"])
}

#[test]
fn check_warns_of_what_is_unwise_and_of_nothing_else() {
    let good = secret(IDENTITY, KEY);
    let server = "[s]\naccept = 127.0.0.1:1\nconnect = 2\nPSKsecrets = psk.txt\n";
    let with = |lines: &str| format!("{server}{lines}\n");
    let client = "[s]\nclient = yes\naccept = 3002\nconnect = 10.0.0.1:1\nPSKsecrets = psk.txt\n";
    for (severity, code, conf, keys, mode) in [
        ("warning", "open-to-network", client.to_owned(), good.clone(), 0o600),
        ("notice", "weak-key", with(""), secret(IDENTITY, "only 16 letters!"), 0o600),
        ("warning", "loose-permissions", with(""), good.clone(), 0o644),
        (
            "warning",
            "no-forward-secrecy",
            with("ciphers = PSK-AES256-GCM-SHA384"),
            good.clone(),
            0o600,
        ),
        ("warning", "no-forward-secrecy", with("ciphers = kPSK"), good.clone(), 0o600),
        ("notice", "no-forward-secrecy", with("ciphers = PSK"), good.clone(), 0o600),
        ("warning", "old-tls", with("sslVersionMin = TLSv1.1"), good.clone(), 0o600),
        ("warning", "old-tls", with("sslVersion = TLSv1"), good.clone(), 0o600),
        ("warning", "obsolete-version", with("sslVersionMin = SSLv3"), good.clone(), 0o600),
    ] {
        let done = check(&conf, &keys, mode);
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert!(done.err.contains(&format!("{severity}[{code}]")), "{code}: {}", done.err);
        let expected = if severity == "warning" { "1 warning" } else { "nothing wrong" };
        assert!(done.out.contains(expected), "{code}: {}{}", done.out, done.err);
    }
    for lines in ["", "ciphers = ECDHE-PSK-CHACHA20-POLY1305", "sslVersion = TLSv1.3"] {
        let done = check(&with(lines), &good, 0o600);
        assert!(done.out.contains("nothing wrong"), "{}", done.err);
        assert_eq!(done.err, "", "{lines}");
    }
}
