//! Peers that get no session, and what is said of them.

use super::*;

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
