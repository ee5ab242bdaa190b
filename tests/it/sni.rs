//! Sections that are reached by a server name: each section's own keys decide, in 1.2 and in 1.3.

use std::net::SocketAddr;

use crate::harness::openssl::psk_of;
use crate::harness::{
    Backend, KEY, OTHER_KEY, OpensslClient, PlainClient, Pskgate, PskgateBuilder, Stunnel, Tls,
    WAIT_TIMEOUT, free_port, secret, until, write_private,
};

/// The primary's client and its key, and the secondary's.
const ONE: (&str, &str) = ("one", KEY);
const TWO: (&str, &str) = ("two", OTHER_KEY);

struct Both {
    first: Backend,
    second: Backend,
}

impl Both {
    fn new() -> Self {
        Self { first: Backend::echo(), second: Backend::echo() }
    }

    fn counts(&self) -> (usize, usize) {
        (self.first.accepted(), self.second.accepted())
    }

    fn sections(&self, port: u16, extra: &str) -> String {
        format!(
            "[first]\naccept = 127.0.0.1:{port}\nconnect = {}\nPSKsecrets = one.txt\n\
             [second]\nsni = first:*.second.example\nconnect = {}\nPSKsecrets = two.txt\n{extra}\n",
            self.first.address(),
            self.second.address()
        )
    }

    fn start(&self, extra: &str) -> Pskgate {
        let text = format!("debug = info\n{}", self.sections(free_port(), extra));
        PskgateBuilder::new()
            .file("one.txt", &secret(ONE.0, ONE.1))
            .file("two.txt", &secret(TWO.0, TWO.1))
            .conf("x.conf", &text, None)
            .start()
    }
}

fn client(to: SocketAddr, who: (&str, &str), name: Option<&str>, tls: Tls) -> OpensslClient {
    let mut arguments = psk_of(who.0, who.1).to_vec();
    match name {
        Some(name) => arguments.extend(["-servername".to_owned(), name.to_owned()]),
        None => arguments.push("-noservername".to_owned()),
    }
    arguments.push(tls.flag().to_owned());
    OpensslClient::start(to, arguments)
}

#[test]
fn a_range_that_is_narrowed_at_the_door_cuts_who_asked_for_another_section_there() {
    let (one, two) = (Backend::echo(), Backend::echo());
    let port = free_port();
    let text = |range: &str| {
        format!(
            "[services.first]\nmode = \"server\"\naccept = \"127.0.0.1:{port}\"\n\
             connect = \"{}\"\npsk-secrets = \"one.txt\"\nallow-from = \"{range}\"\n\
             [services.second]\nmode = \"server\"\nserver-name = \"first:second.example\"\n\
             connect = \"{}\"\npsk-secrets = \"two.txt\"\n",
            one.address(),
            two.address()
        )
    };
    let gate = PskgateBuilder::new()
        .file("one.txt", &secret(ONE.0, ONE.1))
        .file("two.txt", &secret(TWO.0, TWO.1))
        .toml(&text("127.0.0.0/8"))
        .launch();
    gate.wait_logged("[first] listening on ");
    let mut session = client(gate.address("first"), TWO, Some("second.example"), Tls::V13);
    session.echo("let in");
    write_private(&gate.folder().join("pskgate.toml"), &text("10.0.0.0/8"));
    until("its end", WAIT_TIMEOUT, || session.ended());
    gate.wait_logged("its access was withdrawn");
}

#[test]
fn the_name_chooses_the_section_and_its_own_keys_decide() {
    for tls in Tls::BOTH {
        let both = Both::new();
        let gate = both.start("");
        let to = gate.address("first");
        for (who, name, reached) in [
            (TWO, Some("a.second.example"), (0, 1)),
            (TWO, Some("A.Second.EXAMPLE"), (0, 1)),
            (ONE, Some("second.example"), (1, 0)),
            (ONE, Some("elsewhere.example"), (1, 0)),
            (ONE, None, (1, 0)),
        ] {
            let before = both.counts();
            client(to, who, name, tls).echo("who is there?");
            let after = both.counts();
            assert_eq!((after.0 - before.0, after.1 - before.1), reached, "{name:?} {tls:?}");
        }
        assert_eq!(both.counts(), (3, 2));
        for (who, name) in [
            (ONE, Some("a.second.example")),
            (TWO, Some("elsewhere.example")),
            (TWO, None),
            (("one", OTHER_KEY), Some("a.second.example")),
            (("two", KEY), Some("a.second.example")),
        ] {
            assert!(client(to, who, name, tls).alert().is_some(), "{who:?} at {name:?} {tls:?}");
        }
        assert_eq!(both.counts(), (3, 2), "no backend was told of those that were refused");
        gate.wait_logged("unknown identity \"one\"");
    }
}

/// stunnel looks for keys before it changes sections.
#[test]
fn the_primary_s_identities_open_the_secondary_s_backend_in_stunnel_and_not_here() {
    let both = Both::new();
    let port = free_port();
    let folder = tempfile::TempDir::new().unwrap();
    write_private(&folder.path().join("one.txt"), &secret(ONE.0, ONE.1));
    write_private(&folder.path().join("two.txt"), &secret(TWO.0, TWO.1));
    let sections = both
        .sections(port, "")
        .replace("PSKsecrets = ", &format!("PSKsecrets = {}/", folder.path().display()));
    let stunnel = Stunnel::server_with(port, &sections);
    client(stunnel.address(), ONE, Some("a.second.example"), Tls::V13).echo("let me in");
    assert_eq!(both.counts(), (0, 1), "stunnel 5.68 is mended: say so in the manual");
    assert!(client(stunnel.address(), TWO, Some("a.second.example"), Tls::V13).alert().is_some());

    let gate = both.start("");
    let refused = client(gate.address("first"), ONE, Some("a.second.example"), Tls::V13).alert();
    assert!(refused.is_some());
    assert_eq!(both.counts(), (0, 1));
}

#[test]
fn a_stunnel_client_reaches_the_section_that_it_names() {
    for tls in Tls::BOTH {
        let both = Both::new();
        let gate = both.start("");
        let named = format!("sni = a.second.example\n{}", tls.conf());
        let to = gate.address("first");
        let second = Stunnel::client_with(to, &secret(TWO.0, TWO.1), &named);
        PlainClient::connect(second.address()).echo(b"second, please");
        assert_eq!(both.counts(), (0, 1));
        let first = Stunnel::client_with(to, &secret(ONE.0, ONE.1), tls.conf());
        PlainClient::connect(first.address()).echo(b"first, please");
        assert_eq!(both.counts(), (1, 1));
        let intruder = Stunnel::client_with(to, &secret(ONE.0, ONE.1), &named);
        PlainClient::connect(intruder.address()).end();
        assert_eq!(both.counts(), (1, 1));
    }
}

#[test]
fn the_session_is_the_chosen_sections_in_everything() {
    let both = Both::new();
    let gate =
        both.start("TIMEOUTidle = 1\nsslVersion = TLSv1.3\ncurves = P-384\nprotocol = proxy\n");
    let to = gate.address("first");
    let mut there = client(to, TWO, Some("a.second.example"), Tls::V13);
    // The echo of the PROXY line, and then of what is said.
    there.wait_for("PROXY TCP4 127.0.0.1 127.0.0.1 ", WAIT_TIMEOUT);
    there.echo("in the second");
    gate.wait_logged("Peer temporary key: P-384");
    gate.wait_logged("idle-timeout");
    // Its versions are its own, and so are the primary's.
    assert!(client(to, TWO, Some("a.second.example"), Tls::V12).alert().is_some());
    client(to, ONE, None, Tls::V12).echo("in the first");

    let gate = both.start(
        "sslVersion = TLSv1.2\nciphers = PSK-AES128-CBC-SHA:PSK-AES256-CBC-SHA\n\
         options = CIPHER_SERVER_PREFERENCE\n",
    );
    let to = gate.address("first");
    assert!(client(to, TWO, Some("a.second.example"), Tls::V13).alert().is_some());
    let mut arguments = psk_of(TWO.0, TWO.1).to_vec();
    let more =
        ["-servername", "a.second.example", "-cipher", "PSK-AES256-CBC-SHA:PSK-AES128-CBC-SHA"];
    arguments.extend(more.map(str::to_owned));
    let old = OpensslClient::start(to, arguments);
    old.wait_for("Cipher is PSK-AES128-CBC-SHA", WAIT_TIMEOUT);
    client(to, ONE, None, Tls::V13).echo("in the first");
}

/// s_client offers a share of its first group only; the section wants another.
#[test]
fn a_second_client_hello_changes_nothing() {
    let both = Both::new();
    let gate = both.start("curves = P-384\n");
    for (who, good) in [(TWO, true), (ONE, false)] {
        let mut arguments = psk_of(who.0, who.1).to_vec();
        let more = ["-tls1_3", "-groups", "X25519:P-384", "-servername", "a.second.example"];
        arguments.extend(more.map(str::to_owned));
        let mut client = OpensslClient::start(gate.address("first"), arguments);
        if good {
            client.echo("after a retry");
        } else {
            assert!(client.alert().is_some());
        }
    }
    assert_eq!(both.counts(), (0, 1));
}

#[test]
fn each_section_s_keys_are_revoked_for_themselves() {
    let both = Both::new();
    let gate = both.start("");
    let to = gate.address("first");
    let mut one = client(to, ONE, None, Tls::V13);
    let mut two = client(to, TWO, Some("a.second.example"), Tls::V13);
    one.echo("one is in");
    two.echo("two is in");
    // One's key is two's now: in the second's file, it is no reason to go on.
    write_private(&gate.folder().join("two.txt"), &secret("three", TWO.1));
    gate.signal(rustix::process::Signal::HUP);
    gate.wait_logged("its access was withdrawn");
    until("two to be cut", WAIT_TIMEOUT, || two.ended());
    one.echo("one is still in");
    client(to, ("three", TWO.1), Some("b.second.example"), Tls::V13).echo("three is in");
    assert!(client(to, TWO, Some("b.second.example"), Tls::V13).alert().is_some());
}

/// SIGHUP, and waits until it has been obeyed.
fn reload(gate: &Pskgate) {
    let count = || gate.log().matches("Configuration successful").count();
    let before = count();
    gate.signal(rustix::process::Signal::HUP);
    until("the new configuration", WAIT_TIMEOUT, || (count() > before).then_some(()));
}

#[test]
fn sections_come_and_go_with_a_reload() {
    let both = Both::new();
    let gate = both.start("");
    let to = gate.address("first");
    assert!(client(to, ("three", KEY), Some("third"), Tls::V13).alert().is_some());
    let file = gate.folder().join("x.conf");
    let before = std::fs::read_to_string(&file).unwrap();
    let third = format!(
        "{before}[third]\nsni = first:third\nconnect = {}\nPSKsecrets = three.txt\n",
        both.second.address()
    );
    write_private(&gate.folder().join("three.txt"), &secret("three", KEY));
    write_private(&file, &third);
    reload(&gate);
    client(to, ("three", KEY), Some("third"), Tls::V13).echo("third, please");
    let without = before.split("[second]").next().unwrap();
    write_private(&file, without);
    reload(&gate);
    assert!(client(to, TWO, Some("a.second.example"), Tls::V13).alert().is_some());
    client(to, ONE, Some("a.second.example"), Tls::V13).echo("there is only the first now");
    assert_eq!(both.counts(), (1, 1));
}

/// One key has one hash, and each section its own.
#[test]
fn a_section_s_key_may_have_another_hash() {
    let both = Both::new();
    let text = format!(
        "[services.first]\nmode = \"server\"\naccept = \"127.0.0.1:0\"\nconnect = \"{}\"\n\
         psk-secrets = \"one.txt\"\n[services.second]\nmode = \"server\"\nserver-name = \"first:two\"\n\
         connect = \"{}\"\npsk-secrets = \"two.txt\"\ntls13-psk-hash = \"sha384\"\n",
        both.first.address(),
        both.second.address()
    );
    let gate = PskgateBuilder::new()
        .file("one.txt", &secret(ONE.0, ONE.1))
        .file("two.txt", &secret(TWO.0, TWO.1))
        .toml(&text)
        .launch();
    let end = format!(
        "[services.plain]\nmode = \"client\"\naccept = \"127.0.0.1:0\"\nconnect = \"{}\"\n\
         psk-secrets = \"two.txt\"\ntls13-psk-hash = \"sha384\"\nserver-name = \"two\"\ntls-min = \"1.3\"\n",
        gate.address("first")
    );
    let end = PskgateBuilder::new().file("two.txt", &secret(TWO.0, TWO.1)).toml(&end).start();
    PlainClient::connect(end.address("plain")).echo(b"with SHA-384");
    assert_eq!(both.counts(), (0, 1));
}

#[test]
fn a_native_file_says_it_the_same_way() {
    let both = Both::new();
    let text = format!(
        "[services.second]\nmode = \"server\"\nserver-name = \"first:two\"\nconnect = \"{}\"\n\
         psk-secrets = \"two.txt\"\n[services.first]\nmode = \"server\"\naccept = \"127.0.0.1:0\"\n\
         connect = \"{}\"\npsk-secrets = \"one.txt\"\n",
        both.second.address(),
        both.first.address()
    );
    let gate = PskgateBuilder::new()
        .file("one.txt", &secret(ONE.0, ONE.1))
        .file("two.txt", &secret(TWO.0, TWO.1))
        .toml(&text)
        .launch();
    client(gate.address("first"), TWO, Some("two"), Tls::V13).echo("second, please");
    assert_eq!(both.counts(), (0, 1));
}
