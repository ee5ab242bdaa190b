use std::time::Duration;

use super::*;
use crate::config::load::{Format, load_text};
use crate::config::model::{
    Failover, Keepalive, Level, LogFormat, ProxyHeader, PskHash, SocketOption,
};
use crate::secrets::{IdentityRule, KeyFileRules, KeyFileWriter, OnDuplicate, OnLoosePermissions};

fn load(text: &str, name: &str) -> Result<(Config, Diagnostics), Diagnostics> {
    load_text(text.as_bytes(), Path::new(name), Path::new("/base"), Format::Auto)
}

fn good(text: &str, name: &str) -> (Config, Vec<&'static str>) {
    match load(text, name) {
        Ok((config, report)) => (config, report.diagnostics.iter().map(|d| d.code).collect()),
        Err(report) => panic!("{}", report.render(false)),
    }
}

fn toml(body: &str) -> (ServiceConfig, Vec<&'static str>) {
    let (mut config, codes) = good(&native(body), "x.toml");
    (config.services.remove(0), codes)
}

fn native(body: &str) -> String {
    let mut text = "[services.s]\npsk-secrets = \"k\"\n".to_owned();
    for (key, line) in [
        ("mode", "mode = \"server\"\n"),
        ("accept", "accept = \"127.0.0.1:1\"\n"),
        ("connect", "connect = \"127.0.0.1:2\"\n"),
    ] {
        if !body.contains(&format!("{key} =")) {
            text.push_str(line);
        }
    }
    text + body
}

fn conf(global: &str, section: &str) -> (ServiceConfig, Vec<&'static str>) {
    let text = format!(
        "{global}\n[s]\naccept = 127.0.0.1:1\nconnect = 127.0.0.1:2\nPSKsecrets = k\n{section}\n"
    );
    let (mut config, codes) = good(&text, "x.conf");
    (config.services.remove(0), codes)
}

fn codes(text: &str, name: &str) -> Vec<&'static str> {
    match load(text, name) {
        Ok((_, report)) => panic!("accepted: {}", report.render(false)),
        Err(report) => report.diagnostics.iter().map(|d| d.code).collect(),
    }
}

fn listens(service: &ServiceConfig) -> Vec<(String, bool)> {
    service.accept().iter().map(|l| (l.at.value.to_string(), l.optional)).collect()
}

fn targets(service: &ServiceConfig) -> Vec<String> {
    service.connect().iter().map(|c| c.value.to_string()).collect()
}

fn secrets(service: &ServiceConfig) -> Vec<&Path> {
    let psk = &service.psk;
    psk.secrets.iter().map(|s| s.value.as_path()).collect()
}

#[test]
fn a_native_file_that_says_nothing_gets_the_native_defaults() {
    let (config, _) = good(&native(""), "x.toml");
    let service = &config.services[0];
    assert_eq!(config.log.level.value, Level::Info);
    assert_eq!(config.log.format.value, LogFormat::Human);
    assert!(config.log.output.is_none());
    assert_eq!(config.process.foreground.value, Foreground::Yes);
    assert!(!config.log.syslog.value);
    assert_eq!(config.drain_timeout.value, Duration::from_secs(5));
    assert_eq!(config.file, Path::new("/base/x.toml"));
    assert_eq!(service.failover.value, Failover::Priority);
    assert_eq!(
        (service.tls.min.value, service.tls.max.value),
        (TlsVersion::Tls12, TlsVersion::Tls13)
    );
    assert_eq!(service.tls.ciphers.value, "ECDHE-PSK-CHACHA20-POLY1305");
    assert!(service.tls.ciphersuites.is_none());
    assert_eq!(service.tls.groups.value, "X25519:P-256");
    assert_eq!(service.tls.groups.origin, super::super::model::Origin::Default(Dialect::Native));
    assert!(service.tls.security_level.is_none() && service.tls.server_name.is_none());
    assert_eq!(service.timeouts.handshake.value, Duration::from_secs(10));
    assert_eq!(service.timeouts.connect.value, Duration::from_secs(10));
    assert_eq!(service.timeouts.close.value, Duration::from_secs(60));
    assert_eq!(service.timeouts.idle.value, Duration::from_secs(43_200));
    let keepalive =
        Keepalive { idle: Duration::from_secs(15), interval: Duration::from_secs(5), count: 3 };
    assert_eq!(service.sockets.keepalive.value, Some(keepalive));
    assert!(service.reset.is_none());
    let psk = &service.psk;
    assert_eq!(psk.hash.value, PskHash::Sha256);
    assert!(!psk.allow_shared_keys.value && psk.identity.is_none());
    assert_eq!(
        psk.rules,
        KeyFileRules {
            duplicates: OnDuplicate::Refuse,
            identities: IdentityRule::Utf8,
            permissions: OnLoosePermissions::Refuse,
            also_owned_by: None,
            writer: KeyFileWriter::Operator,
            may_wait_for_files: false
        }
    );
}

#[test]
fn a_stunnel_conf_that_says_nothing_gets_stunnels_defaults() {
    let text = "[s]\naccept = 127.0.0.1:1\nconnect = 2\nPSKsecrets = k\n";
    let (config, _) = good(text, "dir/x.conf");
    let service = &config.services[0];
    assert_eq!(config.file, Path::new("/base/dir/x.conf"));
    assert_eq!(config.log.level.value, Level::Notice);
    assert_eq!(config.log.format.value, LogFormat::Stunnel);
    assert_eq!(config.process.foreground.value, Foreground::No);
    assert!(config.log.syslog.value && config.process.pid.is_none());
    assert_eq!(service.mode.value, Mode::Server);
    assert_eq!(
        (service.tls.min.value, service.tls.max.value),
        (TlsVersion::Tls12, TlsVersion::Tls13)
    );
    assert_eq!(service.tls.ciphers.value, "HIGH:!aNULL:!SSLv2:!DH:!kDHEPSK");
    assert_eq!(service.tls.groups.value, "X25519:P-256:X448:P-521:P-384");
    assert_eq!(
        service.tls.ciphersuites.as_ref().map(|c| c.value.as_str()),
        Some("TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256")
    );
    assert_eq!(service.timeouts.handshake.value, Duration::from_secs(10));
    assert_eq!(service.timeouts.idle.value, Duration::from_secs(43_200));
    assert!(service.sockets.keepalive.value.is_some());
    let psk = &service.psk;
    assert_eq!(
        psk.rules,
        KeyFileRules {
            duplicates: OnDuplicate::LastWins,
            identities: IdentityRule::Bytes,
            permissions: OnLoosePermissions::Warn,
            also_owned_by: None,
            writer: KeyFileWriter::Operator,
            may_wait_for_files: false
        }
    );
}

#[test]
fn a_written_timeoutbusy_is_the_handshakes_limit() {
    let (service, _) = conf("TIMEOUTbusy = 300", "");
    assert_eq!(service.timeouts.handshake.value, Duration::from_secs(300));
}

#[test]
fn a_section_replaces_global_addresses_and_files() {
    let text = "connect = 1\naccept = 127.0.0.1:9\nPSKsecrets = global\n\
                [a]\nconnect = 2\n[b]\nPSKsecrets = x\nPSKsecrets = own\naccept = 127.0.0.1:8\n";
    let (config, _) =
        good(&text.replace("accept = 127.0.0.1:9\n", "accept = 127.0.0.1:0\n"), "x.conf");
    assert_eq!(targets(&config.services[0]), ["2"]);
    assert_eq!(secrets(&config.services[0]), [Path::new("/base/global")]);
    assert_eq!(targets(&config.services[1]), ["1"]);
    assert_eq!(secrets(&config.services[1]), [Path::new("/base/own")]);
    assert_eq!(listens(&config.services[1]).len(), 1);
}

#[test]
fn a_native_list_replaces_that_of_the_defaults() {
    let text = "[defaults]\nmode = \"server\"\nconnect = \"a:1\"\npsk-secrets = [\"x\", \"/y\"]\n\
                idle-timeout = \"1s\"\n\
                [services.a]\naccept = \"127.0.0.1:1\"\nconnect = [\"b:2\"]\n\
                [services.b]\naccept = \"127.0.0.1:2\"\nidle-timeout = \"2s\"\n";
    let (config, _) = good(text, "x.toml");
    assert_eq!(targets(&config.services[0]), ["b:2"]);
    assert_eq!(targets(&config.services[1]), ["a:1"]);
    assert_eq!(secrets(&config.services[1]), [Path::new("/base/x"), Path::new("/y")]);
    assert_eq!(config.services[0].timeouts.idle.value, Duration::from_secs(1));
    assert_eq!(config.services[1].timeouts.idle.value, Duration::from_secs(2));
}

#[test]
fn services_keep_the_order_of_the_file() {
    let one = native("").replace("services.s", "services.z");
    let two = native("accept = 5\n").replace("services.s", "services.a");
    let (config, _) = good(&(one + &two), "x.toml");
    let names: Vec<_> = config.services.iter().map(|s| s.name.value.as_str()).collect();
    assert_eq!(names, ["z", "a"]);
}

#[test]
fn a_port_alone_is_every_interface_of_both_families_only_in_a_native_file() {
    let both = [("0.0.0.0:3001".to_owned(), false), ("[::]:3001".to_owned(), true)];
    assert_eq!(listens(&toml("accept = 3001\n").0), both);
    assert_eq!(listens(&toml("accept = \"*:3001\"\n").0), both);
    let explicit = listens(&toml("accept = [3001, \"[::]:3001\"]\n").0);
    assert_eq!(explicit, [("0.0.0.0:3001".into(), false), ("[::]:3001".into(), false)]);
    assert_eq!(listens(&toml("accept = 0\n").0), [("0.0.0.0:0".into(), false)]);
    let (config, _) = good("[s]\naccept = 3001\nconnect = 2\nPSKsecrets = k\n", "x.conf");
    assert_eq!(listens(&config.services[0]), [("0.0.0.0:3001".into(), false)]);
    let (config, _) = good("[s]\naccept = :::3001\nconnect = 2\nPSKsecrets = k\n", "x.conf");
    assert_eq!(listens(&config.services[0]), [("[::]:3001".into(), false)]);
}

#[test]
fn a_clients_port_alone_is_warned_about() {
    assert_eq!(toml("mode = \"client\"\naccept = 3001\n").1, ["open-to-network"]);
    assert_eq!(toml("mode = \"client\"\naccept = \"0.0.0.0:3001\"\n").1, [""; 0]);
    assert_eq!(toml("accept = 3001\n").1, [""; 0]);
    let text = "client = yes\n[s]\naccept = 3002\nconnect = a:1\nPSKsecrets = k\n";
    assert_eq!(good(text, "x.conf").1, ["open-to-network"]);
}

#[test]
fn relative_names_are_joined_to_the_base() {
    let text = "[log]\noutput = \"l/x.log\"\n".to_owned()
        + &native("accept = \"unix:a.sock\"\nconnect = \"/abs.sock\"\n");
    let (config, _) = good(&text, "x.toml");
    assert_eq!(config.log.output.map(|o| o.value), Some("/base/l/x.log".into()));
    assert_eq!(listens(&config.services[0])[0].0, "/base/a.sock");
    assert_eq!(targets(&config.services[0]), ["/abs.sock"]);
    let text = "pid = run/x.pid\noutput = x.log\n[s]\naccept = 1\nconnect = 2\nPSKsecrets = k\n";
    let (config, _) = good(text, "sub/x.conf");
    assert_eq!(config.process.pid.map(|p| p.value), Some("/base/run/x.pid".into()));
    assert_eq!(config.log.output.map(|o| o.value), Some("/base/x.log".into()));
}

#[test]
fn an_empty_pid_is_no_pid_file() {
    let text = "pid = /run/x\npid =\n[s]\naccept = 1\nconnect = 2\nPSKsecrets = k\n";
    assert!(good(text, "x.conf").0.process.pid.is_none());
}

#[test]
fn versions_are_a_range_that_is_not_empty() {
    use TlsVersion::{Tls10, Tls11, Tls12, Tls13};
    let range = |lines: &str| {
        let (service, codes) = conf("", lines);
        ((service.tls.min.value, service.tls.max.value), codes)
    };
    let quiet = Vec::<&str>::new;
    assert_eq!(range("sslVersion = TLSv1.2"), ((Tls12, Tls12), quiet()));
    assert_eq!(range("sslVersion = all"), ((Tls12, Tls13), quiet()));
    assert_eq!(range("sslVersionMin = all"), ((Tls12, Tls13), quiet()));
    assert_eq!(range("sslVersionMin = TLSv1.3"), ((Tls13, Tls13), quiet()));
    assert_eq!(range("sslVersion = TLSv1.2\nsslVersionMax = TLSv1.3"), ((Tls12, Tls13), quiet()));
    assert_eq!(range("sslVersion = TLSv1"), ((Tls10, Tls10), vec!["old-tls"]));
    assert_eq!(range("sslVersionMax = TLSv1.1"), ((Tls11, Tls11), vec!["old-tls"]));
    assert_eq!(range("options = NO_TLSv1_3"), ((Tls12, Tls12), quiet()));
    assert_eq!(range("options = NO_TLSv1_2\noptions = NO_SSLv3"), ((Tls13, Tls13), quiet()));
    assert_eq!(range("options = NO_TLSv1_2\noptions = -NO_TLSv1_2"), ((Tls12, Tls13), quiet()));
    let (service, found) = toml("tls-min = \"1.0\"\n");
    assert_eq!((service.tls.min.value, service.tls.max.value), (Tls10, Tls13));
    assert_eq!(found, ["old-tls"]);
    let gap = "[s]\naccept = 1\nconnect = 2\nPSKsecrets = k\nsslVersionMin = TLSv1.1\noptions = NO_TLSv1_2\n";
    assert!(codes(gap, "x.conf").contains(&"version-range"));
}

#[test]
fn keepalive_is_ours_unless_the_tls_sides_options_speak_of_it() {
    let on =
        |global: &str, section: &str| conf(global, section).0.sockets.keepalive.value.is_some();
    assert!(on("", ""));
    assert!(!on("", "socket = l:SO_KEEPALIVE=1"));
    assert!(!on("socket = l:TCP_KEEPIDLE=180", ""));
    assert!(on("", "socket = r:SO_KEEPALIVE=1"), "the server's TLS side is the accepted one");
    assert!(!on("client = yes", "socket = r:SO_KEEPALIVE=0"));
    assert!(on("client = yes", "socket = l:SO_KEEPALIVE=0"));
    assert!(on("", "socket = l:TCP_NODELAY=0"));
    assert_eq!(toml("keepalive = false\n").0.sockets.keepalive.value, None);
}

#[test]
fn the_last_word_about_a_socket_option_counts() {
    let (service, _) = conf("socket = l:IP_TTL=1\nsocket = l:IP_TOS=2", "socket = l:IP_TTL=3");
    let options: Vec<_> = service.sockets.downstream.iter().map(|d| d.value.clone()).collect();
    assert_eq!(options, [SocketOption::TimeToLive(3), SocketOption::TypeOfService(2)]);
}

#[test]
fn a_server_presents_no_identity() {
    assert_eq!(codes(&native("psk-identity = \"x\"\n"), "x.toml"), ["identity-on-server"]);
    let (service, codes) = conf("", "PSKidentity = x");
    let psk = &service.psk;
    assert!(psk.identity.is_none());
    assert_eq!(codes, ["identity-on-server"]);
    // Among the defaults it is for the clients.
    let text = "[defaults]\npsk-identity = \"x\"\n".to_owned() + &native("");
    assert!(good(&text, "x.toml").1.is_empty());
    let (service, _) = toml("mode = \"client\"\npsk-identity = \"x\"\n");
    let psk = &service.psk;
    assert_eq!(psk.identity.as_ref().map(|i| i.value.as_slice()), Some(b"x".as_slice()));
}

#[test]
fn a_service_cannot_connect_to_itself() {
    for body in [
        "accept = \"127.0.0.1:5\"\nconnect = \"127.0.0.1:5\"\n",
        "accept = 5\nconnect = \"127.0.0.1:5\"\n",
        "accept = 5\nconnect = 5\n",
        "accept = \"unix:a\"\nconnect = \"unix:a\"\n",
    ] {
        assert_eq!(codes(&native(body), "x.toml"), ["connects-to-itself"], "{body}");
    }
    for body in [
        "accept = \"127.0.0.1:5\"\nconnect = \"127.0.0.1:6\"\n",
        "accept = \"127.0.0.1:5\"\nconnect = \"127.0.0.2:5\"\n",
        "accept = 5\nconnect = \"plc.example:5\"\n",
        "accept = 0\nconnect = 5\n",
    ] {
        assert!(load(&native(body), "x.toml").is_ok(), "{body}");
    }
}

#[test]
fn a_service_that_may_connect_to_itself_gets_a_warning_and_a_client_of_another_machine_none() {
    for body in [
        "accept = 5\nconnect = \"localhost:5\"\n",
        "accept = \"127.0.0.1:5\"\nconnect = \"LOCALHOST:5\"\n",
        "accept = \"localhost:5\"\nconnect = \"127.0.0.1:5\"\n",
        "accept = \"[::]:5\"\nconnect = \"127.0.0.1:5\"\n",
    ] {
        assert_eq!(good(&native(body), "x.toml").1, ["may-connect-to-itself"], "{body}");
    }
    for body in [
        "accept = \"127.0.0.1:5\"\nconnect = \"plc.example:5\"\n",
        "accept = 5\nconnect = \"192.0.2.1:5\"\n",
        "accept = \"127.0.0.1:5\"\nconnect = \"localhost:6\"\n",
        "accept = \"127.0.0.1:5\"\nconnect = \"[::1]:5\"\n",
        "accept = \"192.0.2.1:5\"\nconnect = \"localhost:5\"\n",
    ] {
        let found = good(&native(body), "x.toml").1;
        assert!(!found.contains(&"may-connect-to-itself"), "{body}: {found:?}");
    }
}

#[test]
fn two_services_cannot_share_an_address() {
    let two = |a: &str, b: &str| {
        let one = native(&format!("accept = {a}\n"));
        one + &native(&format!("accept = {b}\n")).replace("services.s", "services.t")
    };
    assert_eq!(codes(&two("5", "5"), "x.toml"), ["address-in-use"]);
    assert_eq!(codes(&two("\"a:5\"", "\"a:5\""), "x.toml"), ["address-in-use"]);
    assert!(load(&two("0", "0"), "x.toml").is_ok());
    assert!(load(&two("5", "6"), "x.toml").is_ok());
}

#[test]
fn a_global_address_is_the_first_sections_and_the_others_have_their_own() {
    let text =
        "accept = 127.0.0.1:5\nconnect = a:1\nPSKsecrets = k\n[a]\n[b]\naccept = 127.0.0.1:6\n";
    let (config, found) = good(text, "x.conf");
    assert_eq!(listens(&config.services[0]), [("127.0.0.1:5".into(), false)]);
    assert_eq!(listens(&config.services[1]), [("127.0.0.1:6".into(), false)]);
    assert_eq!(found, ["list-replaced"]);
    assert_eq!(codes(&format!("{text}[c]\n"), "x.conf"), ["address-in-use", "list-replaced"]);
}

#[test]
fn a_program_takes_the_place_of_connect() {
    let text = "[s]\naccept = 1\nexec = /bin/sh\nexecArgs = sh\t-c  x\nPSKsecrets = k\n";
    let program = |text: &str, name: &str| match good(text, name).0.services.remove(0).target {
        Target::Exec(program) => program,
        _ => panic!("{text}"),
    };
    let sh = program(text, "x.conf");
    assert_eq!(sh.path.value, Path::new("/bin/sh"));
    assert_eq!(
        (sh.arguments, sh.errors_to_peer),
        (vec!["sh".into(), "-c".into(), "x".into()], true)
    );
    assert!(program(&format!("foreground = quiet\n{text}"), "x.conf").errors_to_peer);
    assert!(!program(&format!("foreground = yes\n{text}"), "x.conf").errors_to_peer);
    let text = "[defaults]\nconnect = \"a:1\"\n[services.s]\nmode = \"server\"\naccept = 1\n\
                psk-secrets = \"k\"\nexec = \"bin/x\"\nexec-args = [\"x\", \"a b\"]\n";
    let x = program(text, "x.toml");
    assert_eq!(x.path.value, Path::new("/base/bin/x"));
    assert_eq!((x.arguments, x.errors_to_peer), (vec!["x".into(), "a b".into()], false));
    assert_eq!(
        codes(&text.replace("exec =", "connect = \"b:2\"\nexec ="), "x.toml"),
        ["two-of-a-kind"]
    );
    let three = "[s]\naccept = 1\nconnect = 2\nexec = /bin/cat\nPSKsecrets = k\n";
    assert_eq!(codes(three, "x.conf"), ["missing-option"]);
    let (config, found) = good(&three.replace("accept = 1\n", "retry = 20\n"), "x.conf");
    let ConnectionSource::Program { program, retry } = &config.services[0].source else { panic!() };
    assert_eq!(program.arguments, ["/bin/cat"]);
    assert_eq!(retry.value, Some(std::time::Duration::from_millis(20)));
    assert!(found.is_empty() && config.services[0].connect().len() == 1);
}

#[test]
fn a_section_with_sni_belongs_to_one_before_it() {
    let text = |sni: &str, more: &str| {
        format!(
            "connect = a:1\nPSKsecrets = k\n[p]\naccept = 1\n[c]\nclient = yes\naccept = 127.0.0.1:2\n[s]\nsni = {sni}\n{more}"
        )
    };
    let (config, found) = good(&text("p:*.Example", ""), "x.conf");
    let ConnectionSource::ServerName { of, pattern } = &config.services[2].source else { panic!() };
    assert_eq!(of.value, "p");
    assert!(found.is_empty() && config.services[2].tls.server_name.is_none());
    for (name, meant) in [("a.example", true), (".EXAMPLE", true), ("example", false), ("", false)]
    {
        assert_eq!(pattern.matches(name.as_bytes()), meant, "{name}");
    }
    assert!(NamePattern::new("Plc").matches(b"pLC") && !NamePattern::new("plc").matches(b"xplc"));
    assert!(NamePattern::new("*").matches(b"") && NamePattern::new("*").matches(b"any"));
    for (sni, more, code) in [
        ("p", "", "server-name"),
        ("x:y", "", "server-name"),
        ("c:y", "", "server-name"),
        ("later:y", "[later]\naccept = 3\n", "server-name"),
        ("p:y", "accept = 4\n", "missing-option"),
    ] {
        assert_eq!(codes(&text(sni, more), "x.conf"), [code], "{sni}");
    }
    let native = native("server-name = \"t:*\"\n").replace("accept = \"127.0.0.1:1\"\n", "")
        + &native("").replace("services.s", "services.t");
    assert!(matches!(
        good(&native, "x.toml").0.services[0].source,
        ConnectionSource::ServerName { .. }
    ));
}

#[test]
fn what_is_turned_off_is_off_whatever_a_later_line_says() {
    let turned = |lines: &str| conf("", lines).0.tls.switches;
    let preference = TlsSwitch::CipherServerPreference;
    assert_eq!(turned("options = cipher_server_preference"), [(preference, true)]);
    assert_eq!(
        turned("options = -CIPHER_SERVER_PREFERENCE\noptions = CIPHER_SERVER_PREFERENCE"),
        [(preference, true), (preference, false)]
    );
    let (service, found) =
        conf("", "options = -NO_COMPRESSION\noptions = ALLOW_CLIENT_RENEGOTIATION");
    assert!(service.tls.switches.is_empty());
    assert_eq!(found, ["without-effect", "without-effect"]);
}

#[test]
fn a_stunnel_conf_resumes_sessions_unless_it_says_otherwise_and_a_native_file_does_not() {
    let tls = |lines: &str| conf("", lines).0.tls;
    let resumes = |lines: &str| tls(lines).resumes();
    assert!(resumes("") && resumes("options = -NO_TICKET") && resumes("session = 60"));
    for no in ["sessionResume = no", "sessionCacheTimeout = 0"] {
        assert!(!resumes(no) && !tls(no).issues_tickets(), "{no}");
    }
    // TLS 1.2 has session IDs.
    assert!(resumes("options = NO_TICKET") && !tls("options = NO_TICKET").issues_tickets());
    // As with the other switches, off is off.
    assert!(tls("options = NO_TICKET\noptions = -NO_TICKET").issues_tickets());
    let keys = "ticketKeySecret = 00112233445566778899aabbccddeeff\n\
                ticketMacSecret = 00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff";
    let (service, found) = conf("", keys);
    let secret = service.tls.resumption.secret.as_ref().expect("both halves");
    assert_eq!(secret.key.value, secret.mac.value);
    assert!(found.is_empty(), "{found:?}");
    assert!(!format!("{service:?}").contains("221"), "a ticket key is printed");
    let (_, found) = conf("", &format!("sessionResume = no\n{keys}"));
    assert_eq!(found, ["without-effect"; 2]);
    let (service, found) = conf("client = yes", keys);
    assert!(service.tls.resumption.secret.is_none());
    assert_eq!(found, ["ticket-key-on-client"; 2]);
}

#[test]
fn a_ticket_key_that_is_none_is_a_finding_that_does_not_show_it() {
    for (lines, code) in [
        ("ticketKeySecret = 00112233445566778899aabbccddeeff", "half-a-ticket-key"),
        ("ticketMacSecret = 00112233445566778899aabbccddeeff", "half-a-ticket-key"),
        (
            "ticketKeySecret = 00112233445566778899aabbccddeef\nticketMacSecret = 00",
            "bad-ticket-key",
        ),
        ("ticketKeySecret = 0011223344556677:8899aabbccddeexx", "bad-ticket-key"),
    ] {
        let text = format!("[s]\naccept = 1\nconnect = 2\nPSKsecrets = k\n{lines}\n");
        let report = load(&text, "x.conf").unwrap_err();
        assert!(report.diagnostics.iter().any(|d| d.code == code), "{lines}: {report:?}");
        for shown in [report.render(false), report.render_stunnel()] {
            assert!(!shown.contains("112233"), "{shown}");
        }
    }
}

#[test]
fn a_native_ticket_key_is_shown_nowhere_however_it_is_written() {
    let service = "mode = \"server\"\naccept = \"127.0.0.1:1\"\nconnect = \"127.0.0.1:2\"\n";
    for (text, code) in [
        (format!("[services.s]\n{service}ticket-key-secret = \"00112233\"\n"), "bad-ticket-key"),
        (
            format!("[services.s]\n{service}ticket-mac-secret = \"00112233\" # x\n"),
            "bad-ticket-key",
        ),
        ("services.s.ticket-key-secret = '00112233'\n".into(), "bad-ticket-key"),
        (
            "services.s = { mode = \"server\", ticket-mac-secret = \"00112233\" }\n".into(),
            "bad-ticket-key",
        ),
        (format!("[services.s]\n{service}ticket-key-secret = 112233\n"), "wrong-type"),
        (
            format!(
                "[services.s]\n{service}ticket-key-secret = \"00112233445566778899aabbccddeeff\"\n"
            ),
            "half-a-ticket-key",
        ),
    ] {
        let report = load(&text, "x.toml").unwrap_err();
        assert!(report.diagnostics.iter().any(|d| d.code == code), "{text}: {report:?}");
        let shown = report.render(false);
        assert!(shown.contains("ticket-") && !shown.contains("112233"), "{shown}");
        assert!(!report.render_stunnel().contains("112233"));
    }
}

#[test]
fn the_proxy_protocol_is_a_servers() {
    assert_eq!(conf("", "protocol = Proxy").0.preface.map(|p| p.value), Some(ProxyHeader::V1));
    assert_eq!(toml("proxy-header = \"v1\"\n").0.preface.map(|p| p.value), Some(ProxyHeader::V1));
    let section = "[s]\naccept = 127.0.0.1:1\nconnect = 2\nPSKsecrets = k\n";
    for (line, code) in [
        ("client = yes\nprotocol = proxy\n", "proxy-header-on-client"),
        ("protocol = smtp\n", "not-supported-yet"),
        ("protocol = xyz\n", "unknown-value"),
    ] {
        assert_eq!(codes(&format!("{section}{line}"), "x.conf"), [code], "{line}");
    }
}

#[test]
fn a_section_has_a_log_level_of_its_own() {
    let (service, found) = conf("debug = 3", "debug = 7");
    assert_eq!(service.log_level.map(|level| level.value), Some(Level::Debug));
    assert!(found.is_empty() && conf("debug = 3", "").0.log_level.is_none());
    let native = toml("log-level = \"debug\"\n").0;
    assert_eq!(native.log_level.map(|level| level.value), Some(Level::Debug));
}

#[test]
fn an_address_that_a_section_says_twice_counts_once() {
    let text = "[s]\naccept = 5\naccept = 5\nconnect = a:1\nPSKsecrets = k\n";
    let (config, codes) = good(text, "x.conf");
    assert_eq!(listens(&config.services[0]).len(), 1);
    assert_eq!(codes, ["address-twice"]);
}

#[test]
fn what_is_missing_is_told_for_each_service_and_what_is_only_wrong_is_not_missing() {
    let text = "[services.a]\nmode = \"server\"\n[services.b]\nmod = \"server\"\n\
                accept = 70000\nconnect = 2\n";
    assert_eq!(
        codes(text, "x.toml"),
        [
            "missing-option",
            "missing-option",
            "missing-option",
            "missing-option",
            "unknown-option",
            "bad-address"
        ]
    );
    assert_eq!(
        codes("[a]\naccept = 70000\n", "x.conf"),
        ["missing-option", "missing-option", "bad-address"]
    );
}

#[test]
fn reset_is_unset_until_somebody_says_it() {
    assert!(conf("", "").0.reset.is_none());
    assert_eq!(conf("", "reset = yes").0.reset.map(|r| r.value), Some(true));
    assert_eq!(toml("reset = false\n").0.reset.map(|r| r.value), Some(false));
}

#[test]
fn what_asks_for_nothing_is_noticed_and_what_asks_for_something_is_refused() {
    for (line, harmless) in [
        ("fips = no", true),
        ("fips = yes", false),
        ("libwrap = no", true),
        ("verify = 0", true),
        ("verify = 2", true),
        ("verifyPeer = NO", true),
        ("verifyPeer = yes", true),
        ("CAfile = x", true),
        ("checkHost = x", true),
        ("compression = zlib", false),
        ("ident = x", false),
        ("config = VerifyMode:Peer", false),
        ("config = SignatureAlgorithms:RSA+SHA256", true),
        ("protocolAuthentication = basic", true),
        ("protocolAuthentication = NTLM", false),
        ("protocolDomain = x", true),
        ("protocol = smtp", false),
        ("cert = x", true),
        ("delay = yes", true),
        ("ticketKeySecret = 00", false),
    ] {
        let text = format!("{line}\n[s]\naccept = 1\nconnect = 2\nPSKsecrets = k\n");
        match load(&text, "x.conf") {
            Ok((_, report)) => {
                assert!(harmless, "{line} is accepted");
                assert_eq!(report.diagnostics[0].code, "without-effect", "{line}");
            }
            Err(report) => assert!(!harmless, "{line}: {}", report.render(false)),
        }
    }
}

#[test]
fn the_founding_file_with_its_placeholder_starts_and_says_so() {
    let text = "client = yes\n[beremiz]\naccept = 3002\nconnect = [PLC]:3001\n\
                PSKidentity = client1\nPSKsecrets = pskclient1.txt\n";
    assert_eq!(good(text, "x.conf").1, ["open-to-network", "bad-host-name"]);
}

#[test]
fn a_file_without_a_section_is_inetd_mode() {
    let (config, _) = good("client = yes\nconnect = a:1\nPSKsecrets = k\n", "x.conf");
    assert!(matches!(config.services[0].source, ConnectionSource::Stdio));
    assert_eq!(config.services[0].name.value, "stunnel");
    let loud = "foreground = yes\nconnect = a:1\nPSKsecrets = k\n";
    assert!(good(loud, "x.conf").0.log.output.is_none());
    for (wrong, code) in [
        ("accept = 1\nconnect = a:1\n", "accept-without-section"),
        ("connect = a:1\nexec = /bin/cat\n", "missing-option"),
        ("client = no\n", "missing-option"),
    ] {
        assert_eq!(codes(&format!("{wrong}PSKsecrets = k\n"), "x.conf"), [code], "{wrong}");
    }
    assert_eq!(codes("", "x.conf"), ["no-service"]);
    assert_eq!(codes("", "x.toml"), ["no-service"]);
}

#[test]
fn a_unix_socket_s_owner_is_the_section_s_there_and_has_words_of_its_own_here() {
    let names = |service: &ServiceConfig| {
        let of = |said: &Option<Resolved<String>>| said.as_ref().map(|said| said.value.clone());
        (of(&service.owner.user), of(&service.owner.group))
    };
    let both = (Some("plc".to_owned()), Some("dialout".to_owned()));
    let native = "accept = \"/run/a.sock\"\nsocket-user = \"plc\"\nsocket-group = \"dialout\"\n";
    assert_eq!(names(&toml(native).0), both);
    assert_eq!(names(&conf("", "setuid = plc\nsetgid = dialout").0), both);
    assert_eq!(names(&toml("").0), (None, None));
}

#[test]
fn switches_of_openssl_s_can_be_turned_in_both_dialects() {
    let there = conf("", "options = CIPHER_SERVER_PREFERENCE\noptions = NO_TLSv1_3").0;
    let here = toml("tls-options = [\"CIPHER_SERVER_PREFERENCE\", \"NO_TLSv1_3\"]\n").0;
    assert_eq!(there.tls.switches, [(TlsSwitch::CipherServerPreference, true)]);
    assert_eq!(here.tls.switches, there.tls.switches);
    assert_eq!((here.tls.max.value, there.tls.max.value), (TlsVersion::Tls12, TlsVersion::Tls12));
}

#[test]
fn a_client_asks_a_proxy_for_a_server_and_says_who_it_is_when_it_knows_both() {
    let lines = "client = yes\nprotocol = connect\nprotocolHost = plc.example:3001\n\
                 protocolUsername = u\nprotocolHeader = A: b\n";
    let asked = |more: &str| {
        let (service, found) = conf("", &format!("{lines}{more}"));
        assert!(found.is_empty(), "{found:?}");
        let Some(Negotiation::Connect(connect)) = service.negotiation.map(|n| n.value) else {
            panic!()
        };
        connect
    };
    assert!(asked("").credentials.is_none());
    let connect = asked("protocolPassword = p\n");
    assert_eq!((connect.host.as_str(), connect.headers), ("plc.example:3001", vec!["A: b".into()]));
    let (user, password) = connect.credentials.unwrap();
    assert_eq!((user.as_str(), password.expose()), ("u", "p"));
    for (host, name) in
        [("plc.example:1", Some("plc.example")), ("192.0.2.1:1", None), ("[2001:db8::1]:1", None)]
    {
        assert_eq!(HttpConnect { host: host.into(), ..asked("") }.name(), name);
    }
    let section = "[s]\nclient = yes\naccept = 127.0.0.1:1\nconnect = 2\nPSKsecrets = k\n";
    for (more, code) in [
        ("protocol = connect\n", "missing-option"),
        ("protocol = connect\nprotocolHost = plc.example\n", "bad-address"),
        ("protocol = connect\nprotocolHost = a b:1\n", "bad-address"),
        ("protocol = connect\nprotocolHost = a:1\nprotocolHeader = none\n", "bad-header"),
        ("client = no\nprotocol = connect\nprotocolHost = a:1\n", "protocol-on-server"),
        ("client = no\nprotocol = socks\n", "missing-option"),
        ("client = no\ntransparent = destination\n", "missing-option"),
    ] {
        assert_eq!(codes(&format!("{section}{more}"), "x.conf"), [code], "{more}");
    }
}

#[test]
fn a_target_may_be_what_the_peer_says_or_where_it_was_meant_to_go() {
    let target = |lines: &str| {
        let text = format!("[s]\naccept = 127.0.0.1:1\nPSKsecrets = k\n{lines}");
        let (config, found) = good(&text, "x.conf");
        assert!(found.is_empty(), "{found:?}");
        config.services[0].target.clone()
    };
    assert!(matches!(target("protocol = socks\n"), Target::Asked));
    assert!(matches!(target("transparent = both\n"), Target::Original));
    assert!(matches!(
        target("protocol = proxy\ntransparent = yes\nconnect = 2\n"),
        Target::Connect(_)
    ));
    // A later line takes an earlier one's place.
    let (config, _) = good(
        "protocol = socks\n[s]\naccept = 127.0.0.1:1\nconnect = 2\nprotocol = proxy\nPSKsecrets = k\n",
        "x.conf",
    );
    assert!(config.services[0].negotiation.is_none() && config.services[0].preface.is_some());
    let both = "[services.s]\nmode = \"server\"\naccept = \"127.0.0.1:1\"\nprotocol = \"socks\"\n\
                psk-secrets = \"k\"\n";
    assert!(matches!(good(both, "x.toml").0.services[0].target, Target::Asked));
    assert_eq!(codes(&format!("{both}connect = 2\n"), "x.toml"), ["two-of-a-kind"]);
    let own = "[services.s.identities.a]\nconnect = 3\n";
    assert_eq!(codes(&format!("{both}{own}"), "x.toml"), ["two-of-a-kind"]);
}

#[test]
fn what_is_said_of_a_proxy_is_noticed_where_none_is_asked() {
    let lines = "protocolHost = a:1\nprotocolUsername = u\nprotocolPassword = p\n\
                 protocolHeader = A: b\n";
    for (more, count) in [("", 4), ("protocol = proxy\n", 4), ("protocol = socks\n", 4)] {
        let text = format!("[s]\naccept = 127.0.0.1:1\nPSKsecrets = k\n{more}{lines}");
        let text = if more.contains("socks") { text } else { text + "connect = 2\n" };
        let (_, found) = good(&text, "x.conf");
        assert_eq!(found.len(), count, "{found:?}");
        assert!(found.iter().all(|code| *code == "without-effect"), "{found:?}");
    }
}

#[test]
fn an_empty_list_of_socket_options_unsays_the_defaults() {
    let sockets = |more: &str| {
        let text = format!(
            "[defaults]\nsocket = [\"upstream:SO_SNDBUF=70000\"]\n[services.s]\nmode = \"client\"\n\
             accept = \"127.0.0.1:1\"\nconnect = 2\npsk-secrets = \"k\"\n{more}"
        );
        good(&text, "x.toml").0.services[0].sockets.upstream.len()
    };
    assert_eq!((sockets(""), sockets("socket = []\n")), (1, 0));
}

mod certificates;
mod versions;
