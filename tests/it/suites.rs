//! Every suite that takes a pre-shared key, chosen by option and negotiated with OpenSSL's command in
//! both roles; docs/tls.md lists them.
//!
//! `UPDATE_EXPECTED=1` writes the list; read the difference before it is committed.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::Command;

use crate::harness::{
    Backend, OpensslClient, OpensslServer, PlainClient, PskgateBuilder, Tls, client_toml, openssl,
    root, server_toml,
};

/// One suite that OpenSSL has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suite {
    code: u16,
    name: String,
    exchange: String,
}

impl Suite {
    fn tls(&self) -> Tls {
        if self.code >> 8 == 0x13 { Tls::V13 } else { Tls::V12 }
    }

    fn rfc(&self) -> &'static str {
        match self.code {
            0x1301..=0x1305 => "9846",
            0x008c..=0x0091 => "4279",
            0x00a8..=0x00b3 => "5487",
            0xc035..=0xc038 => "5489",
            0xc064..=0xc071 => "6209",
            0xc094..=0xc09b => "6367",
            0xc0a4..=0xc0ab => "6655",
            0xccab..=0xccad => "7905",
            other => panic!("no RFC is known for {other:04x}"),
        }
    }

    /// What of a stunnel.conf's default list is in it, and of a native file's.
    fn is_native(&self) -> bool {
        matches!(self.code, 0x1301 | 0x1303 | 0xccac)
    }

    /// The lines of a service that has this suite alone.
    fn lines(&self) -> String {
        let name = &self.name;
        match self.tls() {
            Tls::V13 => {
                let hash = if self.code == 0x1302 { "sha384" } else { "sha256" };
                format!(
                    "tls-min = \"1.3\"\nciphersuites = \"{name}\"\ntls13-psk-hash = \"{hash}\"\n\
                     security-level = 0\n"
                )
            }
            Tls::V12 => format!("tls-max = \"1.2\"\nciphers = \"{name}:@SECLEVEL=0\"\n"),
        }
    }
}

/// Those of OpenSSL's suites whose key exchange is the key and nothing but, and which hide something.
fn suites() -> Vec<Suite> {
    let mut command = Command::new("openssl");
    let all = "TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256:TLS_AES_128_GCM_SHA256:\
               TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
    command.args(["ciphers", "-V", "-ciphersuites", all, "PSK:eNULL:@SECLEVEL=0"]);
    let done = command.output().expect("the Debian package openssl");
    let text = String::from_utf8(done.stdout).expect("text");
    let of = |line: &str| {
        let (code, rest) = line.trim().split_once(" - ").expect("a code and a name");
        let hex = |part: &str| u16::from_str_radix(part.trim_start_matches("0x"), 16).expect("hex");
        let (high, low) = code.split_once(',').expect("two bytes");
        let mut words = rest.split_whitespace();
        let name = words.next().expect("a name").to_owned();
        let exchange = words.find_map(|word| word.strip_prefix("Kx=")).expect("an exchange");
        let takes_key = rest.contains("Au=PSK") && exchange != "RSAPSK" || exchange == "any";
        let hides = !rest.contains("Enc=None");
        (takes_key && hides).then(|| Suite {
            code: hex(high) << 8 | hex(low),
            name,
            exchange: exchange.to_owned(),
        })
    };
    let mut found: Vec<_> = text.lines().filter_map(of).collect();
    found.sort_by_key(|suite| (suite.tls() == Tls::V12, suite.rfc(), suite.code));
    found
}

/// Those of them that the program's own library has: the one of the feature `vendored` is built without
/// Camellia.
fn own_suites() -> Vec<Suite> {
    use ::openssl::ssl::{SslContext, SslMethod};
    let mut builder = SslContext::builder(SslMethod::tls()).expect("a context");
    builder.set_cipher_list("PSK:@SECLEVEL=0").expect("a list");
    let context = builder.build();
    let own: Vec<_> = pskgate::sys::openssl::context_suites(&context)
        .into_iter()
        .map(|suite| u16::from_be_bytes(suite.protocol_id()))
        .collect();
    let is_own = |suite: &Suite| suite.tls() == Tls::V13 || own.contains(&suite.code);
    let found: Vec<_> = suites().into_iter().filter(is_own).collect();
    assert!(found.len() > 30, "only {} suites", found.len());
    found
}

/// How many suites of an RFC OpenSSL 3 has, so that a list which shrinks is noticed. What is missing:
/// RC4 and 3DES of RFC 4279 and 5489, which are not built in.
#[test]
fn openssl_has_every_suite_of_the_rfcs_but_those_of_rc4_and_3des() {
    let mut count = BTreeMap::new();
    for suite in suites() {
        *count.entry(suite.rfc()).or_insert(0) += 1;
    }
    let wanted = [
        ("4279", 4),
        ("5487", 8),
        ("5489", 4),
        ("6209", 4),
        ("6367", 6),
        ("6655", 8),
        ("7905", 3),
        ("9846", 5),
    ];
    assert_eq!(count, BTreeMap::from(wanted));
}

/// The arguments of a tool that has the key and allows every suite of this version and hash.
fn tool(suite: &Suite, gate: &PskgateBuilder) -> Vec<String> {
    let flag = suite.tls().flag();
    let list: Vec<&str> = match suite.tls() {
        Tls::V12 => vec![flag, "-cipher", "PSK:@SECLEVEL=0"],
        Tls::V13 => {
            let code = suite.code.to_be_bytes();
            crate::hashes::session_file(gate.folder(), code, false);
            vec![flag, "-psk_session", "session.pem", "-ciphersuites", &suite.name]
        }
    };
    openssl::psk().into_iter().chain(list.into_iter().map(str::to_owned)).collect()
}

#[test]
fn a_server_end_negotiates_every_suite_that_it_is_told_to() {
    let backend = Backend::echo();
    let all = own_suites();
    let service = |(number, suite): (usize, &Suite)| {
        let text = server_toml(backend.address(), &suite.lines());
        text.replace("services.tls", &format!("services.s{number}"))
    };
    let text: String = all.iter().enumerate().map(service).collect();
    let gate = PskgateBuilder::new();
    let arguments: Vec<_> = all.iter().map(|suite| tool(suite, &gate)).collect();
    let folder = gate.folder().to_owned();
    let gate = gate.toml(&text).start();
    for (number, (suite, arguments)) in all.iter().zip(arguments).enumerate() {
        if suite.tls() == Tls::V13 {
            crate::hashes::session_file(&folder, suite.code.to_be_bytes(), false);
        }
        let to = gate.address(&format!("s{number}"));
        let mut client = OpensslClient::start_in(&folder, to, arguments);
        client.echo("a line for the echo");
        let line = gate.wait_logged(&format!("[s{number}] #{number} session opened"));
        let wanted = format!("{} {}", suite.tls().name(), suite.name);
        assert!(line.contains(&wanted), "`{wanted}` is not in: {line}");
    }
    assert_eq!(backend.accepted(), all.len());
}

#[test]
fn a_client_end_negotiates_every_suite_that_it_is_told_to() {
    let all = own_suites();
    let gate = PskgateBuilder::new();
    let start = |suite: &Suite| {
        let arguments = tool(suite, &gate).into_iter().chain(["-nocert".to_owned()]);
        OpensslServer::start(gate.folder(), arguments)
    };
    // One for all of 1.2: the client's list decides. In 1.3 a key is for one hash.
    let old = start(all.iter().find(|suite| suite.tls() == Tls::V12).expect("one of 1.2"));
    let new: Vec<_> = all.iter().filter(|s| s.tls() == Tls::V13).map(start).collect();
    let mut text = String::new();
    for (number, suite) in all.iter().enumerate() {
        let to = new.get(number).map_or(old.address(), OpensslServer::address);
        let lines = client_toml(to, &suite.lines());
        text += &lines.replace("services.plain", &format!("services.s{number}"));
    }
    let folder = gate.folder().to_owned();
    assert!(folder.exists());
    let gate = gate.toml(&text).start();
    for (number, suite) in all.iter().enumerate() {
        let plain = PlainClient::connect(gate.address(&format!("s{number}")));
        plain.send(b"there and back\n");
        let mut back = [0; 15];
        (&plain.0).read_exact(&mut back).unwrap_or_else(|e| panic!("{}: {e}", suite.name));
        assert_eq!(&back, b"kcab dna ereht\n");
        let line = gate.wait_logged(&format!("[s{number}] #{number} session opened"));
        let wanted = format!("{} {}", suite.tls().name(), suite.name);
        assert!(line.contains(&wanted), "`{wanted}` is not in: {line}");
    }
}

fn table(all: &[Suite]) -> String {
    let mut made = "| suite | RFC | key exchange | forward secrecy | TOML default | level |\n\
                    | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for suite in all {
        let (exchange, secret) = match suite.exchange.as_str() {
            "PSK" => ("PSK alone", "no"),
            "DHEPSK" => ("DHE", "yes"),
            "ECDHEPSK" => ("ECDHE", "yes"),
            _ => ("ECDHE", "yes"),
        };
        let native = if suite.is_native() { "yes" } else { "" };
        let level = lowest_refusal(suite);
        made += &format!(
            "| `{}` | {} | {exchange} | {secret} | {native} | {level} |\n",
            suite.name,
            suite.rfc()
        );
    }
    made
}

/// The highest security level that OpenSSL takes the suite at.
fn lowest_refusal(suite: &Suite) -> u32 {
    let takes = |level: u32| {
        let (own, list) = match suite.tls() {
            Tls::V13 => (suite.name.as_str(), format!("PSK:@SECLEVEL={level}")),
            Tls::V12 => ("", format!("{}:@SECLEVEL={level}", suite.name)),
        };
        let done = Command::new("openssl")
            .args(["ciphers", "-s", "-psk", "-ciphersuites", own, &list])
            .output()
            .expect("the Debian package openssl");
        String::from_utf8_lossy(&done.stdout).trim().split(':').any(|name| name == suite.name)
    };
    (0..=5).rev().find(|level| takes(*level)).unwrap_or(0)
}

#[test]
fn the_list_of_suites_in_the_documents_is_what_was_negotiated() {
    let all = suites();
    let path = root().join("docs/tls.md");
    let written = std::fs::read_to_string(&path).expect("docs/tls.md");
    let made = crate::manual::between(&written, "suites", &table(&all));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &made).unwrap();
    } else {
        assert!(made == written, "docs/tls.md is not up to date: UPDATE_EXPECTED=1 writes it");
    }
    let rows = made.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, all.len());
    assert!(rows > 40, "only {rows} rows");
}
