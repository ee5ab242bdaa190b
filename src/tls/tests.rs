#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::Private;
use openssl::rsa::Rsa;
use openssl::ssl::{SslContextBuilder, SslMethod, SslSessionCacheMode, SslVerifyMode, SslVersion};
use openssl::x509::{X509, X509NameBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use std::sync::{Arc, OnceLock};

use super::*;
use crate::config::model::NamePattern;
use crate::config::{Format, load_text};
use crate::secrets::SecretSet;

mod key_updates;
mod negotiation;
mod refusals;
mod resumption;
mod session_ids;
mod stream;

const KEY: &[u8] = b"a key of thirty-two bytes, no more";

const OTHER: &[u8] = b"another key of about as many bytes";

const VERSIONS: [&str; 2] = ["1.2", "1.3"];

fn service(mode: &str, lines: &str) -> (TlsConfig, PskHash) {
    let text = format!(
        "[services.s]\nmode = \"{mode}\"\naccept = \"127.0.0.1:1\"\nconnect = \"127.0.0.1:2\"\n\
         psk-secrets = \"x\"\n{lines}\n"
    );
    let read = load_text(text.as_bytes(), Path::new("t.toml"), Path::new("/"), Format::Toml);
    let (mut config, _) = read.unwrap_or_else(|report| panic!("{text}{report:?}"));
    let service = config.services.remove(0);
    let psk = &service.psk;
    (service.tls, psk.hash.value)
}

fn acceptor(lines: &str) -> Acceptor {
    let (tls, hash) = service("server", lines);
    Acceptor::new(&tls, hash, &mut Vec::new()).unwrap()
}

fn connector(lines: &str) -> Connector {
    let (tls, hash) = service("client", lines);
    Connector::new(&tls, hash, &mut Vec::new()).unwrap()
}

fn only(version: &str) -> String {
    format!("tls-min = \"{version}\"\ntls-max = \"{version}\"\n")
}

fn block<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        let limit = std::time::Duration::from_secs(300);
        tokio::time::timeout(limit, test).await.expect("it hangs")
    })
}

type Shaken = Result<EstablishedTls<DuplexStream>, RefusalCause>;

/// The first identity of `theirs` meets a server with the keys of `ours`.
async fn shake(
    server: &Acceptor,
    ours: &Arc<SecretSet>,
    client: &Connector,
    theirs: &Arc<SecretSet>,
) -> (Shaken, Shaken) {
    let (near, far) = duplex(1 << 16);
    let who = theirs.first().unwrap().clone();
    // A side that fails closes, as a session does, behind the alert that it has sent.
    let accept = async { server.accept(ours.clone(), far).await.map_err(|f| f.cause) };
    let connect = async {
        let name = Some("plc.example");
        let shaken = client.connect(theirs.clone(), who, name, near).await;
        shaken.map_err(|f| f.cause)
    };
    tokio::join!(accept, connect)
}

async fn opened(version: &str) -> (EstablishedTls<DuplexStream>, EstablishedTls<DuplexStream>) {
    let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
    let lines = only(version);
    let (server, client) = (acceptor(&lines), connector(&lines));
    let (server, client) = shake(&server, &set, &client, &set).await;
    (server.unwrap(), client.unwrap())
}

async fn echo(one: &mut Stream<DuplexStream>, two: &mut Stream<DuplexStream>) {
    for _ in 0..2 {
        one.write_all(b"question").await.unwrap();
        let mut heard = [0; 8];
        two.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"question");
        two.write_all(b"answer").await.unwrap();
        let mut heard = [0; 6];
        one.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"answer");
    }
}

fn alert_of(cause: &RefusalCause) -> &'static str {
    match cause {
        RefusalCause::Refused { identity, alert } => {
            assert_eq!(identity, b"alice");
            alert
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_length_of_key_and_identity_works_in_both_versions_and_under_both_hashes() {
    block(async {
        for version in VERSIONS {
            for (hash, suite) in [("sha256", ""), ("sha384", "TLS_AES_256_GCM_SHA384")] {
                let lines = format!("{}tls13-psk-hash = \"{hash}\"", only(version));
                let (server, client) = (acceptor(&lines), connector(&lines));
                for (key, identity) in [16, 64, 256, 512]
                    .into_iter()
                    .flat_map(|key| [1, 127, 128, 255].map(|identity| (key, identity)))
                {
                    let name = vec![b'n'; identity];
                    let ours = SecretSet::from_pairs(&[(b"bob", OTHER), (&name, &vec![0xa5; key])]);
                    let theirs = SecretSet::from_pairs(&[(&name, &vec![0xa5; key])]);
                    let told = format!("{version} {hash} {key} {identity}");
                    let (one, two) = shake(&server, &ours, &client, &theirs).await;
                    let (one, two) = (one.expect(&told), two.expect(&told));
                    for side in [&one, &two] {
                        assert_eq!(side.grant.who().as_bytes(), name, "{told}");
                        assert_eq!(side.info.version, format!("TLSv{version}"));
                        assert!(version == "1.2" || side.info.suite.contains(suite));
                    }
                    assert!(ours.grants(&one.grant) && theirs.grants(&two.grant));
                    let (mut one, mut two) = (one.stream, two.stream);
                    echo(&mut one, &mut two).await;
                }
            }
        }
    });
}

#[test]
fn an_empty_identity_is_presented_in_1_2() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"", KEY)]);
        let (one, two) = shake(&acceptor(""), &set, &connector(""), &set).await;
        let one = one.unwrap();
        assert_eq!(one.grant.who().as_bytes(), b"");
        assert_eq!(one.info.version, "TLSv1.2");
        two.unwrap();
        let (one, two) = shake(&acceptor(""), &set, &connector(&only("1.3")), &set).await;
        assert!(one.is_err() && two.is_err());
    });
}

#[test]
fn a_wrong_key_and_an_unknown_identity_are_told_apart_here_and_not_by_the_peer() {
    block(async {
        for version in VERSIONS {
            for groups in ["", "groups = \"P-256\""] {
                let server = acceptor(&(only(version) + groups));
                // Its first guess is X25519, so that the other groups cost a HelloRetryRequest.
                let client = connector(&(only(version) + "groups = \"X25519:P-256\""));
                let theirs = SecretSet::from_pairs(&[(b"alice", KEY)]);
                let right = SecretSet::from_pairs(&[(b"alice", KEY)]);
                let wrong = SecretSet::from_pairs(&[(b"alice", OTHER)]);
                let nobody = SecretSet::from_pairs(&[(b"bob", KEY)]);

                let (one, two) = shake(&server, &right, &client, &theirs).await;
                one.expect(version);
                two.expect(version);
                let (one, two) = shake(&server, &wrong, &client, &theirs).await;
                let (one, first) = (one.unwrap_err(), two.unwrap_err());
                assert!(matches!(&one, RefusalCause::WrongKey(who) if who == b"alice"), "{one:?}");
                let (one, two) = shake(&server, &nobody, &client, &theirs).await;
                let (one, second) = (one.unwrap_err(), two.unwrap_err());
                assert!(
                    matches!(&one, RefusalCause::UnknownIdentity(who) if who == b"alice"),
                    "{one:?}"
                );
                assert_eq!(alert_of(&first), alert_of(&second), "{version} {groups}");
            }
        }
    });
}

#[test]
fn an_identity_is_not_cut_at_a_nul() {
    block(async {
        let ours = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let theirs = SecretSet::from_pairs(&[(b"alice\0and more", KEY)]);
        let (server, client) = (acceptor(&only("1.3")), connector(&only("1.3")));
        let (one, two) = shake(&server, &ours, &client, &theirs).await;
        assert!(matches!(one.unwrap_err(), RefusalCause::UnknownIdentity(_)));
        two.unwrap_err();
    });
}

#[test]
fn two_hashes_for_one_key_do_not_meet() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let server = acceptor("tls-min = \"1.3\"\ntls13-psk-hash = \"sha384\"");
        let client = connector("tls-min = \"1.3\"");
        let (one, two) = shake(&server, &set, &client, &set).await;
        assert!(matches!(one.unwrap_err(), RefusalCause::OtherHash(PskHash::Sha384)));
        two.unwrap_err();
    });
}

#[test]
fn versions_and_groups_that_do_not_meet_are_named() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let (server, client) = (acceptor(&only("1.3")), connector(&only("1.2")));
        let (one, two) = shake(&server, &set, &client, &set).await;
        assert!(matches!(one.unwrap_err(), RefusalCause::NoCommonVersion { .. }));
        assert!(matches!(two.unwrap_err(), RefusalCause::NoCommonVersion { .. }));
        let server = acceptor("tls-min = \"1.3\"\ngroups = \"P-256\"");
        let client = connector("tls-min = \"1.3\"\ngroups = \"X25519\"");
        let (one, two) = shake(&server, &set, &client, &set).await;
        assert!(matches!(one.unwrap_err(), RefusalCause::NoCommonGroup));
        two.unwrap_err();
    });
}

#[test]
fn both_ends_tell_the_group_by_its_usual_name_and_the_size_of_its_keys() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let dhe = "tls-max = \"1.2\"\nciphers = \"DHE-PSK-AES128-GCM-SHA256\"";
        for (lines, name, bits) in [
            ("groups = \"X25519\"", "X25519", 253),
            ("groups = \"X448\"", "X448", 448),
            ("groups = \"P-256\"", "P-256", 256),
            ("groups = \"P-384\"", "P-384", 384),
            ("groups = \"P-521\"", "P-521", 521),
            (dhe, "DH-2048", 2048),
        ] {
            let (one, two) = shake(&acceptor(lines), &set, &connector(lines), &set).await;
            let (one, two) = (one.unwrap().info, two.unwrap().info);
            for info in [&one, &two] {
                let words = info.to_string();
                for word in [info.version, &info.suite] {
                    assert!(words.contains(word), "{words}");
                }
                assert!(info.bits >= 128, "{}", info.bits);
            }
            let group = two.group.expect(name);
            assert_eq!((group.name.as_str(), group.bits), (name, bits));
        }
    });
}

#[test]
fn the_table_of_secrets_is_off_the_ssl_object_after_the_handshake() {
    block(async {
        for version in VERSIONS {
            let lines = only(version);
            let (server, client) = (acceptor(&lines), connector(&lines));
            let ours = SecretSet::from_pairs(&[(b"alice", KEY)]);
            let theirs = SecretSet::from_pairs(&[(b"alice", KEY)]);
            let (one, two) = shake(&server, &ours, &client, &theirs).await;
            let (_one, _two) = (one.unwrap(), two.unwrap());
            assert_eq!((Arc::strong_count(&ours), Arc::strong_count(&theirs)), (1, 1));

            let wrong = SecretSet::from_pairs(&[(b"alice", OTHER)]);
            let (near, far) = duplex(1 << 16);
            let (one, two) = tokio::join!(
                server.accept(wrong.clone(), far),
                client.connect(theirs.clone(), theirs.first().unwrap().clone(), None, near)
            );
            let (one, two) = (one.unwrap_err(), two.unwrap_err());
            assert!(one.stream.is_some() && two.stream.is_some());
            assert_eq!((Arc::strong_count(&wrong), Arc::strong_count(&theirs)), (1, 1));
        }
    });
}

// ---- strangers: the openssl crate by itself -------------------------------------------------

fn version(name: &str) -> Option<SslVersion> {
    Some(match name {
        "1.1" => SslVersion::TLS1_1,
        "1.2" => SslVersion::TLS1_2,
        _ => SslVersion::TLS1_3,
    })
}

fn stranger(name: &str) -> SslContextBuilder {
    let mut context = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    context.set_verify(SslVerifyMode::NONE);
    context.set_min_proto_version(version(name)).unwrap();
    context.set_max_proto_version(version(name)).unwrap();
    context
}

/// A client without our rules at our server.
async fn visit(
    context: SslContextBuilder,
    server: &Acceptor,
) -> (Shaken, Result<tokio_openssl::SslStream<DuplexStream>, openssl::ssl::Error>) {
    let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
    let (near, far) = duplex(1 << 16);
    let ssl = Ssl::new(&context.build()).unwrap();
    let mut tls = tokio_openssl::SslStream::new(ssl, near).unwrap();
    tokio::join!(async { server.accept(set, far).await.map_err(|f| f.cause) }, async {
        Pin::new(&mut tls).connect().await?;
        Ok(tls)
    })
}

fn keyed(version: &str, key: &'static [u8]) -> SslContextBuilder {
    let mut context = stranger(version);
    context.set_cipher_list("PSK").unwrap();
    context.set_psk_client_callback(move |_, _, who, out| {
        who[..6].copy_from_slice(b"alice\0");
        out[..key.len()].copy_from_slice(key);
        Ok(key.len())
    });
    context
}

/// What two ends of these CPUs agree on in 1.3.
async fn agreed(server_has_aes: bool, client_has_aes: bool) -> String {
    let ((ours, hash), (theirs, _)) = (service("server", ""), service("client", ""));
    let build = |mode, tls, aes| context::build(mode, tls, hash, aes, &mut Vec::new()).unwrap();
    let server =
        Acceptor { built: build(Mode::Server, &ours, server_has_aes), hash, sessions: None };
    let built = build(Mode::Client, &theirs, client_has_aes);
    let versions = built.range.into();
    let client = Connector { context: built.context, versions, hash, cache: None };
    let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
    shake(&server, &set, &client, &set).await.0.unwrap().info.suite
}

/// Services by name, and which of them was asked for.
struct Names {
    services: Vec<(&'static str, Acceptor, Arc<SecretSet>)>,
    chosen: OnceLock<usize>,
}

impl Names {
    fn of(services: Vec<(&'static str, Acceptor, Arc<SecretSet>)>) -> Incoming {
        let names = Self { services, chosen: OnceLock::new() };
        Incoming { names: Some(Arc::new(names)), ..Incoming::default() }
    }
}

impl ServerNames for Names {
    fn choose(&self, name: &[u8]) -> Option<SniCandidate> {
        let is_meant = |(pattern, ..): &(&str, _, _)| NamePattern::new(pattern).matches(name);
        let which = self.services.iter().position(is_meant)?;
        self.chosen.set(which).expect("it is asked once");
        let (_, acceptor, secrets) = &self.services[which];
        Some(SniCandidate { acceptor: acceptor.clone(), secrets: secrets.clone().into() })
    }
}

/// A server that looks for the right key and takes a session that was made from another.
struct Substitutes;

impl sys::FindPsk for Substitutes {
    fn find(ssl: &mut openssl::ssl::SslRef, _: &[u8]) -> Option<openssl::ssl::SslSession> {
        sys::new_psk_session(ssl, [0x13, 0x01], KEY, &[0xff; 8]).ok()
    }
}

#[test]
fn a_session_that_was_made_from_another_key_grants_nothing() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let mut context = SslContextBuilder::new(SslMethod::tls_server()).unwrap();
        psk::install_server(&mut context, "X25519:P-256".into()).unwrap();
        sys::set_psk_find_callback::<Substitutes>(&mut context);
        // No tickets, or making one would fail before the key is asked about.
        context.set_num_tickets(0).unwrap();
        let mut server = acceptor(&only("1.3"));
        server.built.context = context.build();
        let (one, two) = shake(&server, &set, &connector(&only("1.3")), &set).await;
        assert!(matches!(one.unwrap_err(), RefusalCause::NotProven));
        two.expect("it has proven the key to the client all the same");
    });
}

/// A server whose every callback panics.
struct Panics;

impl sys::FindPsk for Panics {
    fn find(_: &mut openssl::ssl::SslRef, _: &[u8]) -> Option<openssl::ssl::SslSession> {
        panic!("in the server's callback")
    }
}

impl sys::OfferPsk for Panics {
    fn offer(
        _: &mut openssl::ssl::SslRef,
        _: Option<openssl::nid::Nid>,
    ) -> Option<(&[u8], openssl::ssl::SslSession)> {
        panic!("in the client's callback")
    }
}

#[test]
fn a_panic_in_a_callback_ends_the_handshake_and_nothing_else() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let mut context = SslContextBuilder::new(SslMethod::tls_server()).unwrap();
        sys::set_psk_find_callback::<Panics>(&mut context);
        let (near, far) = duplex(1 << 16);
        let ssl = Ssl::new(&context.build()).unwrap();
        let mut server = tokio_openssl::SslStream::new(ssl, far).unwrap();
        let client = connector(&only("1.3"));
        let who = set.first().unwrap().clone();
        let (one, two) = tokio::join!(
            async {
                let shaken = std::pin::Pin::new(&mut server).accept().await;
                drop(server);
                shaken
            },
            client.connect(set.clone(), who, None, near)
        );
        assert!(one.is_err() && two.is_err());

        let mut context = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
        sys::set_psk_offer_callback::<Panics>(&mut context);
        let (one, two) = visit(context, &acceptor("")).await;
        assert!(matches!(one.unwrap_err(), RefusalCause::NoPsk));
        assert!(two.is_err());

        // A client whose identity has no key still names suites of 1.2 that take one.
        let mut context = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
        context.set_cipher_list("PSK").unwrap();
        context.set_psk_client_callback(|_, _, _, _| Ok(0));
        let (one, two) = visit(context, &acceptor("")).await;
        let cause = one.unwrap_err();
        assert!(matches!(cause, RefusalCause::NoPsk), "{cause}");
        assert!(two.is_err());
    });
}
