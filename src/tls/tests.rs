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
                        assert_eq!(side.facts.version, format!("TLSv{version}"));
                        assert!(version == "1.2" || side.facts.suite.contains(suite));
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
        assert_eq!(one.facts.version, "TLSv1.2");
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
            let (one, two) = (one.unwrap().facts, two.unwrap().facts);
            for facts in [&one, &two] {
                let words = facts.to_string();
                for word in [facts.version, &facts.suite] {
                    assert!(words.contains(word), "{words}");
                }
                assert!(facts.bits >= 128, "{}", facts.bits);
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

#[test]
fn close_notify_is_a_clean_end_and_leaves_the_other_direction_open() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let (mut server, mut client) = (server.stream, client.stream);
            echo(&mut client, &mut server).await;
            client.shutdown().await.unwrap();
            let mut rest = Vec::new();
            assert_eq!(server.read_to_end(&mut rest).await.unwrap(), 0);
            assert!(server.ended_cleanly() && !client.ended_cleanly());
            server.write_all(b"late").await.unwrap();
            let mut late = [0; 4];
            client.read_exact(&mut late).await.unwrap();
            assert_eq!(&late, b"late");
            server.shutdown().await.unwrap();
            assert_eq!(client.read_to_end(&mut rest).await.unwrap(), 0);
            assert!(client.ended_cleanly());
        }
    });
}

#[test]
fn a_stream_that_is_cut_ends_but_not_cleanly() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let (mut server, mut client) = (server.stream, client.stream);
            echo(&mut client, &mut server).await;
            client.write_all(b"half").await.unwrap();
            drop(client);
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"half");
            assert!(!server.ended_cleanly());
        }
    });
}

#[test]
fn what_came_before_a_broken_record_is_read_before_the_error() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let (mut server, mut client) = (server.stream, client.stream);
            echo(&mut client, &mut server).await;
            client.write_all(b"good").await.unwrap();
            client.flush().await.unwrap();
            let mut pipe = client.into_socket().unwrap();
            // Application data of 32 bytes that nobody encrypted.
            pipe.write_all(&[&[23, 3, 3, 0, 32][..], &[0; 32]].concat()).await.unwrap();
            let mut heard = [0; 99];
            assert_eq!(server.read(&mut heard).await.unwrap(), 4);
            assert_eq!(&heard[..4], b"good");
            server.read(&mut heard).await.unwrap_err();
        }
    });
}

#[test]
fn what_the_socket_has_not_taken_is_told() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let (mut server, mut client) = (server.stream, client.stream);
            echo(&mut client, &mut server).await;
            assert!(client.socket().is_some());
            assert_eq!(client.backlog(), 0);
            // The pipe takes 64 kB.
            assert_eq!(client.write(&[7; 200_000]).await.unwrap(), 200_000);
            assert!((130_000..200_000).contains(&client.backlog()), "{}", client.backlog());
            let mut heard = vec![0; 200_000];
            let (flushed, read) = tokio::join!(client.flush(), server.read_exact(&mut heard));
            flushed.unwrap();
            read.unwrap();
            assert_eq!(client.backlog(), 0);
        }
    });
}

#[test]
fn nothing_is_said_behind_the_end() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let (mut server, mut client) = (server.stream, client.stream);
            echo(&mut client, &mut server).await;
            client.shutdown().await.unwrap();
            client.write(b"and").await.unwrap_err();
            assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 0);
            assert!(server.ended_cleanly());
        }
    });
}

#[test]
fn a_record_that_was_tampered_with_is_an_error_and_no_end() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let mut server = server.stream;
            let mut socket = client.stream.into_socket().unwrap();
            socket.write_all(&[23, 3, 3, 0, 30]).await.unwrap();
            socket.write_all(&[0x5a; 30]).await.unwrap();
            let mut rest = Vec::new();
            let error = server.read_to_end(&mut rest).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            assert!(rest.is_empty() && !server.ended_cleanly());
        }
    });
}

#[test]
fn much_data_through_a_narrow_pipe_arrives_whole() {
    block(async {
        for version in VERSIONS {
            let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
            let lines = only(version);
            let (server, client) = (acceptor(&lines), connector(&lines));
            let (near, far) = duplex(777);
            let (one, two) = tokio::join!(
                server.accept(set.clone(), far),
                client.connect(set.clone(), set.first().unwrap().clone(), None, near)
            );
            let (mut one, mut two) = (one.unwrap().stream, two.unwrap().stream);
            let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
            let mut heard = Vec::new();
            let (_, read) = tokio::join!(
                async {
                    one.write_all(&sent).await.unwrap();
                    one.shutdown().await.unwrap();
                },
                two.read_to_end(&mut heard)
            );
            read.unwrap();
            assert!(heard == sent && two.ended_cleanly());
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

#[test]
fn a_client_without_a_key_is_refused() {
    block(async {
        for version in VERSIONS {
            let (one, two) = visit(stranger(version), &acceptor("")).await;
            let cause = one.unwrap_err();
            assert!(matches!(cause, RefusalCause::NoPsk), "{version}: {cause:?}");
            assert!(two.is_err());
        }
    });
}

#[test]
fn a_client_older_than_tls_1_2_is_refused_by_its_version() {
    block(async {
        let mut context = stranger("1.1");
        context.set_security_level(0);
        context.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
        let (one, two) = visit(context, &acceptor("")).await;
        assert!(matches!(one.unwrap_err(), RefusalCause::NoCommonVersion { .. }));
        assert!(two.unwrap_err().to_string().contains("protocol version"));
    });
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

#[test]
fn a_client_that_would_resume_is_given_nothing_to_resume_with() {
    block(async {
        for version in VERSIONS {
            let sessions = Arc::new(AtomicUsize::new(0));
            let counted = sessions.clone();
            let mut context = keyed(version, KEY);
            context.set_session_cache_mode(SslSessionCacheMode::CLIENT);
            context.set_new_session_callback(move |_, _| {
                counted.fetch_add(1, Ordering::SeqCst);
            });
            let (one, two) = visit(context, &acceptor("")).await;
            let (mut one, mut two) = (one.unwrap().stream, two.unwrap());
            // Tickets would come before the first data.
            one.write_all(b"data").await.unwrap();
            let mut heard = [0; 4];
            two.read_exact(&mut heard).await.unwrap();
            assert_eq!(sessions.load(Ordering::SeqCst), 0, "{version}");
            let session = two.ssl().session().unwrap();
            assert!(session.id().is_empty() || version == "1.3", "{version}");
        }
    });
}

#[test]
fn a_client_that_claims_an_identity_with_a_wrong_key_is_refused() {
    block(async {
        for version in VERSIONS {
            let (one, two) = visit(keyed(version, OTHER), &acceptor("")).await;
            assert!(matches!(one.unwrap_err(), RefusalCause::WrongKey(_)));
            assert!(two.is_err());
        }
    });
}

fn certificate() -> (X509, PKey<Private>) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "plc.example").unwrap();
    let name = name.build();
    let mut made = X509::builder().unwrap();
    made.set_version(2).unwrap();
    let serial = BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap();
    made.set_serial_number(&serial).unwrap();
    made.set_subject_name(&name).unwrap();
    made.set_issuer_name(&name).unwrap();
    made.set_pubkey(&key).unwrap();
    made.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    made.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    made.sign(&key, MessageDigest::sha256()).unwrap();
    (made.build(), key)
}

#[test]
fn a_server_that_shows_a_certificate_in_place_of_the_key_is_refused() {
    block(async {
        let (shown, key) = certificate();
        for with_psk in [false, true] {
            for version in VERSIONS {
                let mut context = SslContextBuilder::new(SslMethod::tls_server()).unwrap();
                context.set_certificate(&shown).unwrap();
                context.set_private_key(&key).unwrap();
                if with_psk {
                    // It knows nobody, and falls back to its certificate.
                    context.set_psk_server_callback(|_, _, _| Ok(0));
                }
                let (near, far) = duplex(1 << 16);
                let ssl = Ssl::new(&context.build()).unwrap();
                let mut impostor = tokio_openssl::SslStream::new(ssl, far).unwrap();
                let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
                let client = connector(&only(version));
                let (_, refused) = tokio::join!(
                    async {
                        // Already its handshake fails, and not only our judgement of it.
                        let accepted = Pin::new(&mut impostor).accept().await;
                        drop(impostor);
                        assert!(accepted.is_err());
                    },
                    client.connect(set.clone(), set.first().unwrap().clone(), None, near)
                );
                let cause = refused.unwrap_err().cause;
                match version {
                    "1.3" => assert!(matches!(cause, RefusalCause::NotProven), "{cause:?}"),
                    // It has no suite of ours to begin with.
                    _ => assert!(matches!(cause, RefusalCause::Refused { .. }), "{cause:?}"),
                }
            }
        }
    });
}

#[test]
fn what_is_no_tls_is_told_as_such_at_both_ends() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let closed = |cause: &RefusalCause| matches!(cause, RefusalCause::ClosedEarly);
        let plain = |cause: &RefusalCause| matches!(cause, RefusalCause::PlainText);
        let hello: &[u8] = &[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
        type Test<'a> = &'a dyn Fn(&RefusalCause) -> bool;
        let cases: [(&[u8], Test<'_>); 5] = [
            (b"", &closed),
            (hello, &closed),
            (b"GET / HTTP/1.1\r\n\r\n", &plain),
            (b"SSH-2.0-OpenSSH_9.2\r\n", &plain),
            (&[0; 64], &plain),
        ];
        let server = acceptor("");
        for (text, expected) in cases {
            let (mut near, far) = duplex(1 << 16);
            near.write_all(text).await.unwrap();
            drop(near);
            let cause = server.accept(set.clone(), far).await.unwrap_err().cause;
            assert!(expected(&cause), "{text:?}: {cause:?}");
        }
        let client = connector("");
        for (text, not_tls) in [(&b""[..], false), (b"SSH-2.0-OpenSSH_9.2\r\n", true)] {
            let (near, mut far) = duplex(1 << 16);
            far.write_all(text).await.unwrap();
            far.shutdown().await.unwrap();
            let who = set.first().unwrap().clone();
            let failed = client.connect(set.clone(), who, None, near).await;
            let cause = failed.unwrap_err().cause;
            let told = matches!(cause, RefusalCause::NotTls);
            assert!(told == not_tls && (told || closed(&cause)), "{cause:?}");
        }
    });
}

#[test]
fn the_native_lists_hold_forward_secret_psk_suites_and_nothing_else() {
    for context in [acceptor("").built.context, connector("").context] {
        let mut names: Vec<_> = sys::context_suites(&context).iter().map(|s| s.name()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "ECDHE-PSK-CHACHA20-POLY1305",
                "TLS_AES_128_GCM_SHA256",
                "TLS_CHACHA20_POLY1305_SHA256",
            ]
        );
    }
    let all = acceptor("ciphers = \"ALL:COMPLEMENTOFALL:eNULL\"").built.context;
    let names: Vec<_> = sys::context_suites(&all).iter().map(|s| s.name()).collect();
    assert!(names.len() > 10);
    assert!(names.iter().all(|name| name.starts_with("TLS_") || psk::is_psk(name)));
}

/// What two ends of these CPUs agree on in 1.3.
async fn agreed(server_has_aes: bool, client_has_aes: bool) -> String {
    let ((ours, hash), (theirs, _)) = (service("server", ""), service("client", ""));
    let build = |mode, tls, aes| context::build(mode, tls, hash, aes, &mut Vec::new()).unwrap();
    let server =
        Acceptor { built: build(Mode::Server, &ours, server_has_aes), hash, tickets: None };
    let built = build(Mode::Client, &theirs, client_has_aes);
    let versions = built.range.into();
    let client = Connector { context: built.context, versions, hash, cache: None };
    let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
    shake(&server, &set, &client, &set).await.0.unwrap().facts.suite
}

#[test]
fn a_list_of_null_suites_is_known_by_its_words_where_the_library_has_none() {
    for list in ["eNULL", "PSK-NULL-SHA256", "DHE-PSK-NULL-SHA:ECDHE-PSK-NULL-SHA384 @SECLEVEL=0"] {
        assert!(context::is_null_alone(list), "{list}");
    }
    for list in ["", "@SECLEVEL=0", "NOSUCHSUITE", "PSK-NULL-SHA:NOSUCHSUITE", "eNULL:PSK"] {
        assert!(!context::is_null_alone(list), "{list}");
    }
}

#[test]
fn aes_is_preferred_where_the_cpu_has_instructions_for_it_and_a_server_without_them_insists() {
    block(async {
        assert_eq!(agreed(true, true).await, "TLS_AES_128_GCM_SHA256");
        assert_eq!(agreed(true, false).await, "TLS_CHACHA20_POLY1305_SHA256");
        assert_eq!(agreed(false, true).await, "TLS_CHACHA20_POLY1305_SHA256");
        assert_eq!(agreed(false, false).await, "TLS_CHACHA20_POLY1305_SHA256");
    });
}

#[test]
fn a_client_whose_only_suite_is_not_ours_did_offer_a_key() {
    block(async {
        let mut context = keyed("1.2", KEY);
        context.set_cipher_list("ECDHE-PSK-AES128-CBC-SHA256").unwrap();
        let (one, two) = visit(context, &acceptor("")).await;
        assert!(matches!(one.unwrap_err(), RefusalCause::NoCommonSuite { .. }));
        two.unwrap_err();
    });
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

/// Who meets a server with the keys of `door` and two named services with those of `inside`, by the name
/// plc.example: which of the two it was, and whose grant, if anybody's.
async fn ask(
    version: &str,
    patterns: [&'static str; 2],
    door: &[u8],
    inside: &[u8],
) -> (Option<usize>, Option<Vec<u8>>) {
    let lines = only(version);
    let (door, inside) =
        (SecretSet::from_pairs(&[(b"alice", door)]), SecretSet::from_pairs(&[(b"alice", inside)]));
    let names = Arc::new(Names {
        services: patterns.map(|pattern| (pattern, acceptor(&lines), inside.clone())).into(),
        chosen: OnceLock::new(),
    });
    let theirs = SecretSet::from_pairs(&[(b"alice", KEY)]);
    let (near, far) = duplex(1 << 16);
    let (server, client, who) =
        (acceptor(&lines), connector(&lines), theirs.first().unwrap().clone());
    // Its own end of the pipe goes with the first to fail.
    let (one, _) = tokio::join!(
        async {
            let incoming = Incoming { names: Some(names.clone()), ..Incoming::default() };
            let done = server.accept_with(door, incoming, far, |_| {}).await;
            let who = done.ok().map(|secured| secured.grant.who().as_bytes().to_vec());
            (names.chosen.get().copied(), who)
        },
        async { client.connect(theirs, who, Some("plc.example"), near).await.map(drop) }
    );
    one
}

#[test]
fn the_first_service_of_that_name_is_asked_for_and_then_its_keys_alone_count() {
    block(async {
        let alice = Some(b"alice".to_vec());
        for version in VERSIONS {
            for (patterns, which) in
                [(["elsewhere", "*.example"], 1), (["PLC.example", "*.example"], 0)]
            {
                let its_own = ask(version, patterns, OTHER, KEY).await;
                assert_eq!(its_own, (Some(which), alice.clone()), "{version}");
                let the_door_s = ask(version, patterns, KEY, OTHER).await;
                assert_eq!(the_door_s, (Some(which), None), "{version}");
            }
            let nobody = ["elsewhere", "*.elsewhere"];
            assert_eq!(ask(version, nobody, KEY, OTHER).await, (None, alice.clone()), "{version}");
            assert_eq!(ask(version, nobody, OTHER, KEY).await, (None, None), "{version}");
        }
    });
}

#[test]
fn the_groups_of_the_service_that_is_asked_for_are_those_of_the_handshake() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        for version in VERSIONS {
            // The client would rather have the first.
            let client = connector(&(only(version) + "groups = \"X25519:P-384\""));
            let door = acceptor(&(only(version) + "groups = \"X25519\""));
            let its_own = acceptor(&(only(version) + "groups = \"P-384\""));
            let incoming = Names::of(vec![("plc.example", its_own, set.clone())]);
            let (near, far) = duplex(1 << 16);
            let (one, two) = tokio::join!(
                door.accept_with(set.clone(), incoming, far, |_| {}),
                client.connect(
                    set.clone(),
                    set.first().unwrap().clone(),
                    Some("plc.example"),
                    near
                )
            );
            assert_eq!(two.unwrap().facts.group.unwrap().name, "P-384", "{version}");
            one.unwrap();
        }
    });
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
    });
}

/// Counts the sends and receives of whoever holds it.
struct Counted {
    pipe: DuplexStream,
    sends: Arc<AtomicUsize>,
    receives: Arc<AtomicUsize>,
}

impl Counted {
    fn pair() -> (Self, DuplexStream) {
        let (near, far) = duplex(1 << 22);
        (Self { pipe: near, sends: Arc::default(), receives: Arc::default() }, far)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.pipe).poll_read(cx, buf);
        self.receives.fetch_add(usize::from(polled.is_ready()), Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sends.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

#[test]
fn a_client_sends_twice_up_to_its_first_data_and_receives_once() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let lines = only("1.3");
        let (server, client) = (acceptor(&lines), connector(&lines));
        let (near, far) = Counted::pair();
        let (sends, receives) = (near.sends.clone(), near.receives.clone());
        let accept = async {
            let mut stream = server.accept(set.clone(), far).await.unwrap().stream;
            let mut heard = [0; 8];
            stream.read_exact(&mut heard).await.unwrap();
            heard
        };
        let connect = async {
            let who = set.first().unwrap().clone();
            let shaken = client.connect_unflushed(set.clone(), who, None, None, near).await;
            let mut stream = shaken.map_err(|f| f.cause).unwrap().stream;
            stream.write_all(b"question").await.unwrap();
            stream.flush().await.unwrap();
            stream
        };
        let (heard, _stream) = tokio::join!(accept, connect);
        assert_eq!(&heard, b"question");
        // The ClientHello; what proves the key, and the data.
        assert_eq!(sends.load(Ordering::Relaxed), 2);
        assert_eq!(receives.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_client_with_nothing_to_say_is_proven_at_a_flush() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let lines = only("1.3");
        let (server, client) = (acceptor(&lines), connector(&lines));
        let (near, far) = duplex(1 << 16);
        let accept = async {
            let mut stream = server.accept(set.clone(), far).await.unwrap().stream;
            stream.write_all(b"the server speaks first").await.unwrap();
            stream
        };
        let connect = async {
            let who = set.first().unwrap().clone();
            let shaken = client.connect_unflushed(set.clone(), who, None, None, near).await;
            let mut stream = shaken.map_err(|f| f.cause).unwrap().stream;
            stream.flush().await.unwrap();
            let mut heard = [0; 23];
            stream.read_exact(&mut heard).await.unwrap();
            heard
        };
        let (_stream, heard) = tokio::join!(accept, connect);
        assert_eq!(&heard, b"the server speaks first");
    });
}

#[test]
fn a_batch_of_records_is_one_send_and_one_receive_and_comes_before_the_end_behind_it() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        for version in VERSIONS {
            let lines = only(version);
            let (server, client) = (acceptor(&lines), connector(&lines));
            let (near, far) = Counted::pair();
            let (sends, receives) = (near.sends.clone(), near.receives.clone());
            let who = set.first().unwrap().clone();
            let (accepted, connected) = tokio::join!(
                server.accept(set.clone(), far),
                client.connect(set.clone(), who, None, near)
            );
            let mut peer = accepted.map_err(|f| f.cause).unwrap().stream;
            let mut stream = connected.map_err(|f| f.cause).unwrap().stream;
            let said: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
            sends.store(0, Ordering::Relaxed);
            assert_eq!(stream.write(&said).await.unwrap(), said.len());
            assert_eq!(sends.load(Ordering::Relaxed), 1, "{version}");
            let mut heard = vec![0; said.len()];
            peer.read_exact(&mut heard).await.unwrap();
            assert!(heard == said);
            peer.write_all(&said).await.unwrap();
            peer.shutdown().await.unwrap();
            receives.store(0, Ordering::Relaxed);
            let mut heard = vec![0; 300_000];
            let got = stream.read(&mut heard).await.unwrap();
            assert_eq!(receives.load(Ordering::Relaxed), 1, "{version}");
            assert!(heard[..got] == said);
            assert_eq!(stream.read(&mut heard).await.unwrap(), 0);
            assert!(stream.ended_cleanly());
        }
    });
}

#[test]
fn a_reader_with_little_room_loses_nothing_of_what_one_receive_brought() {
    block(async {
        let (one, two) = opened("1.3").await;
        let (mut one, mut two) = (one.stream, two.stream);
        let said: Vec<u8> = (0..50_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        one.write_all(&said).await.unwrap();
        one.shutdown().await.unwrap();
        let (mut all, mut some) = (Vec::new(), [0; 1000]);
        while let n @ 1.. = two.read(&mut some).await.unwrap() {
            all.extend_from_slice(&some[..n]);
        }
        assert!(all == said && two.ended_cleanly());
    });
}

/// The service of that name, with tickets.
fn giver(service_name: &str, lines: &str, previous: Option<&Acceptor>) -> Acceptor {
    let (tls, hash) = service("server", &format!("resumption = true\n{lines}"));
    let end = Acceptor::new(&tls, hash, &mut Vec::new()).unwrap();
    end.resuming(&tls, service_name, previous).unwrap()
}

fn taker(lines: &str, set: &SecretSet, previous: Option<&Connector>) -> Connector {
    let (tls, hash) = service("client", &format!("resumption = true\n{lines}"));
    Connector::new(&tls, hash, &mut Vec::new()).unwrap().resuming(&tls, set, previous)
}

/// A visit at `address`, under `name`, from which a ticket may be taken: who was let in, and whether by
/// resumption, as both ends see it.
async fn call(
    server: (&Acceptor, &Arc<SecretSet>),
    names: Incoming,
    client: (&Connector, &Arc<SecretSet>),
    name: &str,
) -> Result<(String, bool), (RefusalCause, RefusalCause)> {
    let (near, far) = duplex(1 << 16);
    let who = client.1.first().unwrap().clone();
    let accept = async {
        let accepted = server.0.accept_with(server.1.clone(), names, far, |_| {}).await;
        accepted.map_err(|f| f.cause)
    };
    let connect = async {
        let keys = client.1.clone();
        let shaken = client.0.connect_unflushed(keys, who, Some(name), Some("plc:1"), near).await;
        let mut secured = shaken.map_err(|f| f.cause)?;
        secured.stream.flush().await.unwrap();
        Ok(secured)
    };
    let (one, two) = match tokio::join!(accept, connect) {
        (Ok(one), Ok(two)) => (one, two),
        (one, two) => {
            return Err((one.unwrap_err(), two.map_or_else(|c| c, |_| RefusalCause::NotProven)));
        }
    };
    assert_eq!(one.resumed, two.resumed);
    assert_eq!(one.grant.who(), two.grant.who());
    let (mut near, mut far) = (two.stream, one.stream);
    echo(&mut near, &mut far).await;
    Ok((one.grant.who().to_plain_text(), one.resumed))
}

const GIVEN: &str = "ticket-key-secret = \"00112233445566778899aabbccddeeff\"\n\
                     ticket-mac-secret = \"0f112233445566778899aabbccddeeff\"\n";

#[test]
fn a_session_is_resumed_while_its_key_stands_and_not_a_moment_longer() {
    block(async {
        for version in VERSIONS {
            let lines = only(version) + GIVEN;
            let set = SecretSet::from_pairs(&[(b"alice", KEY), (b"bob", OTHER)]);
            let server = giver("plc", &lines, None);
            let client = taker(&only(version), &set, None);
            let fresh = Ok(("alice".to_owned(), false));
            let again = Ok(("alice".to_owned(), true));
            let visit = |server, ours| {
                let client = (&client, &set);
                async move {
                    let went =
                        call((server, ours), Incoming::default(), client, "plc.example").await;
                    went.map_err(|(cause, _)| cause.name())
                }
            };
            assert_eq!(visit(&server, &set).await, fresh, "{version}");
            // One after the other, each with the ticket of the one before or with the same.
            assert_eq!(visit(&server, &set).await, again, "{version}");
            assert_eq!(visit(&server, &set).await, again, "{version}");
            // A restart: nothing is the same but what the files say.
            let restarted = giver("plc", &lines, None);
            let same = SecretSet::from_pairs(&[(b"alice", KEY)]);
            assert_eq!(visit(&restarted, &same).await, again, "{version}");
            // Another service, which knows the key as well and has the same secret.
            let other = giver("ide", &lines, None);
            assert_eq!(visit(&other, &set).await, fresh, "{version}");
            assert_eq!(visit(&server, &set).await, fresh, "{version}: a ticket of another service");
            assert_eq!(visit(&server, &set).await, again, "{version}");
            // The key changed, and the client offers ticket and old key.
            let changed = SecretSet::from_pairs(&[(b"alice", OTHER)]);
            let refused = visit(&server, &changed).await;
            assert!(refused.is_err(), "{version}: {refused:?}");
            // It tried the ticket once, and not again.
            assert_eq!(visit(&server, &set).await, fresh, "{version}");
            // The identity is gone.
            let gone = SecretSet::from_pairs(&[(b"bob", OTHER)]);
            assert!(visit(&server, &gone).await.is_err(), "{version}");
        }
    });
}

#[test]
fn a_ticket_is_for_services_that_ask_for_the_same_kind_of_master_secret() {
    block(async {
        let with = only("1.2") + GIVEN;
        let without = format!("{with}tls-options = [\"NO_EXTENDED_MASTER_SECRET\"]\n");
        for [one, other] in [[&with, &without], [&without, &with]] {
            let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
            let client = taker(&only("1.2"), &set, None);
            for (lines, resumed) in [(one, false), (one, true), (other, false)] {
                let server = giver("plc", lines, None);
                let went =
                    call((&server, &set), Incoming::default(), (&client, &set), "plc.example")
                        .await;
                let went = went.map_err(|(cause, _)| cause.name());
                assert_eq!(went, Ok(("alice".into(), resumed)), "{lines}");
            }
        }
    });
}

#[test]
fn a_client_keeps_what_it_can_resume_with_and_nothing_else() {
    block(async {
        for version in VERSIONS {
            for gives in [true, false] {
                let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
                let lines = only(version);
                let server = if gives { giver("plc", &lines, None) } else { acceptor(&lines) };
                let client = taker(&lines, &set, None);
                let ends = ((&server, &set), (&client, &set));
                let went = call(ends.0, Incoming::default(), ends.1, "plc.example").await;
                assert_eq!(went.map_err(|(cause, _)| cause.name()), Ok(("alice".into(), false)));
                let (_, claim) =
                    crate::secrets::PeerKeys::from(set.clone()).find(b"alice").unwrap();
                let kept = client.cache.unwrap().find(&SessionPurpose::new(
                    "plc:1",
                    Some("plc.example"),
                    &claim,
                ));
                assert_eq!(kept.is_some(), gives, "{version}");
            }
        }
    });
}

#[test]
fn a_client_with_a_new_key_offers_nothing_that_it_got_with_the_old_one() {
    block(async {
        for version in VERSIONS {
            let lines = only(version);
            let old = SecretSet::from_pairs(&[(b"alice", KEY)]);
            let server = giver("plc", &lines, None);
            let client = taker(&lines, &old, None);
            for resumed in [false, true] {
                let went = call((&server, &old), Incoming::default(), (&client, &old), "plc").await;
                assert_eq!(went.unwrap(), ("alice".into(), resumed), "{version}");
            }
            // The name is part of what was agreed on.
            let went = call((&server, &old), Incoming::default(), (&client, &old), "plc2").await;
            assert_eq!(went.unwrap(), ("alice".into(), false), "{version}");
            let new = SecretSet::from_pairs(&[(b"alice", OTHER)]);
            let client = taker(&lines, &new, Some(&client));
            for resumed in [false, true] {
                let went = call((&server, &new), Incoming::default(), (&client, &new), "plc").await;
                assert_eq!(went.unwrap(), ("alice".into(), resumed), "{version}");
            }
        }
    });
}

#[test]
fn a_service_that_was_asked_for_by_name_has_tickets_of_its_own() {
    block(async {
        for version in VERSIONS {
            let lines = only(version) + GIVEN;
            let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
            let off = acceptor(&only(version));
            for door in [giver("door", &lines, None), off] {
                let behind = giver("behind", &lines, None);
                let client = taker(&only(version), &set, None);
                let named = || Names::of(vec![("*.example", behind.clone(), set.clone())]);
                for resumed in [false, true, true] {
                    let to = (&door, &set);
                    let went = call(to, named(), (&client, &set), "plc.example").await;
                    assert_eq!(went.unwrap(), ("alice".into(), resumed), "{version}");
                }
                // The same ticket at the door itself.
                let went =
                    call((&door, &set), Incoming::default(), (&client, &set), "plc.example").await;
                assert_eq!(went.unwrap(), ("alice".into(), false), "{version}");
            }
            // What is off behind the door is off, whatever the door does.
            let (door, client) = (giver("door", &lines, None), taker(&only(version), &set, None));
            for _ in 0..2 {
                let its_own = acceptor(&only(version));
                let named = Names::of(vec![("*.example", its_own, set.clone())]);
                let went = call((&door, &set), named, (&client, &set), "plc.example").await;
                assert_eq!(went.unwrap(), ("alice".into(), false), "{version}");
            }
        }
    });
}

#[test]
fn an_identity_that_is_hidden_from_a_peer_does_not_get_in_with_a_ticket_either() {
    block(async {
        for version in VERSIONS {
            let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
            let (server, client) =
                (giver("plc", &only(version), None), taker(&only(version), &set, None));
            let went = call((&server, &set), Incoming::default(), (&client, &set), "plc").await;
            assert_eq!(went.unwrap(), ("alice".into(), false));
            let (near, far) = duplex(1 << 16);
            let hidden = PeerKeys::hiding(set.clone(), |_| true);
            let accept = async { server.accept(hidden, far).await.map_err(|f| f.cause) };
            let who = set.first().unwrap().clone();
            let connect = async {
                let keys = set.clone();
                client.connect_unflushed(keys, who, Some("plc"), Some("plc:1"), near).await.is_ok()
            };
            let (one, _) = tokio::join!(accept, connect);
            let cause = one.unwrap_err();
            assert!(matches!(cause, RefusalCause::UnknownIdentity(_)), "{version}: {cause:?}");
        }
    });
}

#[test]
fn a_suite_that_is_not_taken_any_more_is_not_resumed_either() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let with = |list: &str| format!("{}{GIVEN}ciphers = \"{list}\"\n", only("1.2"));
        let both = "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384";
        let client = taker(&format!("{}ciphers = \"{both}\"\n", only("1.2")), &set, None);
        let before = giver("plc", &with("ECDHE-PSK-CHACHA20-POLY1305"), None);
        let after = giver("plc", &with("DHE-PSK-AES256-GCM-SHA384"), None);
        for (server, resumed) in [(&before, false), (&before, true), (&after, false)] {
            let went = call((server, &set), Incoming::default(), (&client, &set), "plc").await;
            assert_eq!(went.unwrap(), ("alice".into(), resumed));
        }
    });
}

/// Has a peer send key updates, as it can at any time in 1.3.
async fn update_keys(peer: &mut Stream<DuplexStream>, count: usize) {
    for _ in 0..count {
        key_update::schedule_key_update(sys::ssl_mut(&mut peer.tls), false).unwrap();
        poll_fn(|cx| {
            peer.tls.get_mut().lend_buffers(0);
            let written = Pin::new(&mut peer.tls).poll_do_handshake(cx);
            peer.tls.get_mut().return_buffers(cx).unwrap();
            written
        })
        .await
        .unwrap();
    }
    peer.flush().await.unwrap();
}

/// Whether a session that has nothing to read goes on; what it was sent is dealt with.
async fn lives_on(stream: &mut Stream<DuplexStream>) -> bool {
    for _ in 0..100 {
        let mut buf = [0];
        let mut buf = ReadBuf::new(&mut buf);
        let polled =
            poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut buf))).await;
        match polled {
            Poll::Ready(Err(error)) => {
                assert!(KeyUpdateFlood::is_cause_of(&error), "{error}");
                return false;
            }
            Poll::Ready(Ok(())) => panic!("it has read something"),
            Poll::Pending => tokio::task::yield_now().await,
        }
    }
    true
}

/// The clock is tokio's, which stands still unless a test moves it.
fn with_a_clock_at_hand<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(test)
}

#[test]
fn a_peer_that_changes_keys_once_a_minute_lives_on_and_one_that_does_nothing_else_does_not() {
    use tokio::time::advance;
    let seconds = std::time::Duration::from_secs;
    with_a_clock_at_hand(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        for minute in 0..1000 {
            update_keys(&mut two, 1).await;
            assert!(lives_on(&mut one).await, "minute {minute}");
            advance(seconds(60)).await;
        }
        // 32 within any ten seconds are not too many.
        for _ in 0..3 {
            update_keys(&mut two, 32).await;
            assert!(lives_on(&mut one).await);
            advance(seconds(11)).await;
        }
        // Nor are more, with data in between, in either direction.
        for turn in 0..10 {
            update_keys(&mut two, 32).await;
            assert!(lives_on(&mut one).await);
            let (from, to) =
                if turn % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
            from.write_all(b"x").await.unwrap();
            assert_eq!(to.read_u8().await.unwrap(), b'x');
        }
        update_keys(&mut two, 32).await;
        assert!(lives_on(&mut one).await);
        advance(seconds(9)).await;
        update_keys(&mut two, 1).await;
        assert!(!lives_on(&mut one).await, "33 within ten seconds");
    });
}

#[test]
fn a_session_deals_with_few_key_updates_in_one_turn() {
    block(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        const PAIRS: usize = 500;
        for _ in 0..PAIRS {
            update_keys(&mut two, 1).await;
            two.write_all(b"x").await.unwrap();
        }
        let (mut heard, mut turns, mut seen) = (0, 0, 0);
        while heard < PAIRS {
            let mut buf = [0; 4096];
            let mut buf = ReadBuf::new(&mut buf);
            let cx = &mut Context::from_waker(std::task::Waker::noop());
            let _ = Pin::new(&mut one).poll_read(cx, &mut buf);
            let all = one.traffic().read.key_updates();
            assert!(all - seen <= 16, "{} in one turn", all - seen);
            assert!(
                all == seen || all == PAIRS as u64 || one.is_turn_over(),
                "who has more says so"
            );
            (heard, turns, seen) = (heard + buf.filled().len(), turns + 1, all);
        }
        assert!(turns >= PAIRS / 16 && seen == PAIRS as u64, "{turns} turns");
        assert_eq!(one.traffic().read.records.load(Ordering::Relaxed), PAIRS as u64);
    });
}

/// Reads `RECORDS` records of one byte and returns in how many turns, and how many of these its time ended.
async fn turns_to_read_small_records(max_turn: Duration) -> (usize, usize) {
    const RECORDS: usize = 20_000;
    let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
    let (near, far) = duplex(1 << 20);
    let (server, client) = (acceptor(""), connector(""));
    let (one, two) = tokio::join!(
        server.accept(set.clone(), far),
        client.connect(set.clone(), set.first().unwrap().clone(), None, near)
    );
    let (mut one, mut two) = (one.ok().unwrap().stream, two.ok().unwrap().stream);
    one.max_turn = max_turn;
    for _ in 0..RECORDS {
        two.write_all(b"x").await.unwrap();
    }
    let (mut heard, mut turns, mut spent) = (0, 0, 0);
    while heard < RECORDS {
        let mut buf = vec![0; 65_536];
        let mut buf = ReadBuf::new(&mut buf);
        poll_fn(|cx| Pin::new(&mut one).poll_read(cx, &mut buf)).await.unwrap();
        heard += buf.filled().len();
        (turns, spent) = (turns + 1, spent + usize::from(one.is_turn_over()));
    }
    assert_eq!(one.traffic().read.records.load(Ordering::Relaxed), RECORDS as u64);
    (turns, spent)
}

#[test]
fn a_session_that_has_decrypted_for_its_time_lets_others_have_a_turn() {
    block(async {
        // No time at all: it ends at each look at the clock.
        let (turns, spent) = turns_to_read_small_records(Duration::ZERO).await;
        assert!(
            spent >= 20_000 / RECORDS_PER_CLOCK_CHECK as usize / 2,
            "{turns} turns, {spent} over"
        );
        // Time without end: a turn is what one receive brings.
        let (turns, spent) = turns_to_read_small_records(Duration::MAX).await;
        assert!(spent == 0 && turns < 100, "{turns} turns, {spent} over");
        let (server, _) = opened("1.3").await;
        assert_eq!(server.stream.max_turn, MAX_TURN);
    });
}

fn limit_records(stream: &mut Stream<DuplexStream>, records: u32) {
    stream.rekey_after(RekeyAfter { records, bytes: 1 << 40 });
}

fn updates(stream: &Stream<DuplexStream>) -> (u64, u64) {
    let TlsTraffic { read, written, .. } = &**stream.traffic();
    (read.key_updates(), written.key_updates())
}

/// Writes more at once than the wire takes while nobody reads, so that OpenSSL waits with a write.
async fn send_and_receive(stream: Stream<DuplexStream>, total: usize) -> Stream<DuplexStream> {
    let pattern: Vec<u8> = (0..total).map(|n| (n % 251) as u8).collect();
    let (mut from, mut to) = tokio::io::split(stream);
    let send = async {
        for piece in pattern.chunks(2_000_000) {
            to.write_all(piece).await.unwrap();
            to.flush().await.unwrap();
        }
        to.shutdown().await.unwrap();
    };
    let receive = async {
        let mut heard = Vec::new();
        from.read_to_end(&mut heard).await.unwrap();
        assert!(heard == pattern, "{} of {total} bytes, or others", heard.len());
    };
    tokio::join!(send, receive);
    from.unsplit(to)
}

#[test]
fn both_directions_change_keys_while_they_are_full_and_no_byte_is_lost() {
    const TOTAL: usize = 20_000_000;
    block(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        limit_records(&mut one, 100);
        two.rekey_after(RekeyAfter { records: 1 << 23, bytes: 1_000_000 });
        let (one, two) = tokio::join!(send_and_receive(one, TOTAL), send_and_receive(two, TOTAL));
        assert!(one.ended_cleanly() && two.ended_cleanly());
        let ((from_two, by_one), (from_one, by_two)) = (updates(&one), updates(&two));
        assert_eq!((from_one, from_two), (by_one, by_two), "each was read by the other side");
        // 1,220 records; 20 times a million bytes, of which a piece of two millions is one turn.
        assert!((8..=13).contains(&by_one) && (9..=21).contains(&by_two), "{by_one} {by_two}");
    });
}

#[test]
fn a_peer_that_changes_no_keys_is_asked_once_its_own_are_used_twice_as_much() {
    block(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        limit_records(&mut one, 100);
        for record in 1..=1000_u64 {
            two.write_all(b"x").await.unwrap();
            two.flush().await.unwrap();
            assert_eq!(one.read_u8().await.unwrap(), b'x');
            // The first read behind the 200th record asks; the peer answers with its next record.
            let asked = (record - 1) / 200;
            assert!(updates(&one).1 >= asked.saturating_sub(1), "{record}: {:?}", updates(&one));
            // And the peer has to read what it was asked.
            let mut buf = [0];
            let mut buf = ReadBuf::new(&mut buf);
            let cx = &mut Context::from_waker(std::task::Waker::noop());
            assert!(Pin::new(&mut two).poll_read(cx, &mut buf).is_pending());
        }
        let (read, written) = updates(&one);
        assert!((3..=4).contains(&written) && read.abs_diff(written) <= 1, "{read} {written}");
        assert!(!one.traffic().key_overused.load(Ordering::Relaxed));
        // What it was asked for is nobody's flood.
        assert_eq!(one.traffic().unasked(), 0);
    });
}

#[test]
fn a_peer_that_does_not_answer_is_asked_once_and_told_of() {
    block(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        limit_records(&mut one, 100);
        for record in 1..=300 {
            // It never reads, and so never hears what it is asked.
            two.write_all(b"x").await.unwrap();
            two.flush().await.unwrap();
            assert_eq!(one.read_u8().await.unwrap(), b'x');
            let overused = one.traffic().key_overused.load(Ordering::Relaxed);
            assert_eq!(overused, record >= 250, "{record}");
        }
        assert_eq!(updates(&one), (0, 1));
    });
}

#[test]
fn an_update_that_waits_to_be_written_goes_before_the_end() {
    block(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        one.announce_update(false);
        // OpenSSL takes no second one, and is not asked to.
        assert!(key_update::schedule_key_update(sys::ssl_mut(&mut one.tls), false).is_err());
        one.shutdown().await.unwrap();
        assert_eq!(two.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(two.ended_cleanly());
        assert_eq!((updates(&one), updates(&two)), ((0, 1), (1, 0)));
        // The other direction goes on.
        two.write_all(b"x").await.unwrap();
        assert_eq!(one.read_u8().await.unwrap(), b'x');
    });
}

#[test]
fn a_key_of_1_2_is_told_of_when_it_is_used_twice_as_much() {
    block(async {
        let (server, client) = opened("1.2").await;
        let (mut one, mut two) = (server.stream, client.stream);
        limit_records(&mut one, 100);
        for record in 1..=300 {
            one.write_all(b"x").await.unwrap();
            one.flush().await.unwrap();
            assert_eq!(two.read_u8().await.unwrap(), b'x');
            let overused = one.traffic().key_overused.load(Ordering::Relaxed);
            assert_eq!(overused, record >= 200, "{record}");
        }
        assert_eq!((updates(&one), updates(&two)), ((0, 0), (0, 0)));
        assert!(!two.traffic().key_overused.load(Ordering::Relaxed), "its limit is another");
    });
}
