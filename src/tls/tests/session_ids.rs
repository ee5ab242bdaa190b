//! Resumption by session ID, up to TLS 1.2.

use openssl::ssl::{SslSession, SslSessionRef};

use super::resumption::{GIVEN, call, giver, taker};
use super::*;
use crate::sys::openssl::offer_resumption;

/// The server end gives no tickets.
fn without_tickets(lines: &str) -> String {
    format!("{}tls-options = [\"NO_TICKET\"]\n{lines}", only("1.2"))
}

/// Who is let in at `plc.example`, and whether by resumption.
async fn enter(
    server: &Acceptor,
    ours: &Arc<SecretSet>,
    names: Incoming,
    client: (&Connector, &Arc<SecretSet>),
) -> Result<(String, bool), &'static str> {
    let went = call((server, ours), names, client, "plc.example").await;
    went.map_err(|(cause, _)| cause.name())
}

fn fresh() -> Result<(String, bool), &'static str> {
    Ok(("alice".to_owned(), false))
}

fn again() -> Result<(String, bool), &'static str> {
    Ok(("alice".to_owned(), true))
}

/// A client with the key, without our rules, and with a session to resume.
async fn knock(
    server: &Acceptor,
    set: &Arc<SecretSet>,
    session: Option<&SslSessionRef>,
) -> (Shaken, Result<tokio_openssl::SslStream<DuplexStream>, openssl::ssl::Error>) {
    let mut ssl = Ssl::new(&keyed("1.2", KEY).build()).unwrap();
    if let Some(session) = session {
        offer_resumption(&mut ssl, session).unwrap();
    }
    let (near, far) = duplex(1 << 16);
    let mut tls = tokio_openssl::SslStream::new(ssl, near).unwrap();
    tokio::join!(async { server.accept(set.clone(), far).await.map_err(|f| f.cause) }, async {
        Pin::new(&mut tls).connect().await?;
        Ok(tls)
    })
}

fn stored(server: &Acceptor) -> usize {
    server.sessions.as_ref().map_or(0, |sessions| sessions.store.len())
}

#[test]
fn a_session_is_resumed_by_its_id_while_its_key_stands_and_not_a_moment_longer() {
    block(async {
        let lines = without_tickets(GIVEN);
        let set = SecretSet::from_pairs(&[(b"alice", KEY), (b"bob", OTHER)]);
        let server = giver("plc", &lines, None);
        let client = taker(&only("1.2"), &set, None);
        let visit = |server, ours| {
            let client = (&client, &set);
            async move { enter(server, ours, Incoming::default(), client).await }
        };
        assert_eq!(visit(&server, &set).await, fresh());
        assert_eq!(visit(&server, &set).await, again());
        assert_eq!(visit(&server, &set).await, again());
        assert_eq!(stored(&server), 1, "a resumed session is the same one");
        // A reload hands the sessions on; a restart does not, whatever the file says of ticket keys.
        let reloaded = giver("plc", &lines, Some(&server));
        assert_eq!(visit(&reloaded, &set).await, again());
        let restarted = giver("plc", &lines, None);
        assert_eq!(visit(&restarted, &set).await, fresh());
        // Another service, also in the place of the first.
        let other = giver("ide", &lines, Some(&server));
        assert_eq!(visit(&other, &set).await, fresh());
        assert_eq!(visit(&server, &set).await, fresh(), "the ID of another service");
        assert_eq!(visit(&server, &set).await, again());
        // The key changed, or the identity is gone; the client has the old key and the session.
        for keys in [[(&b"alice"[..], OTHER)], [(b"bob", OTHER)]] {
            assert_eq!(visit(&server, &set).await.map(|(who, _)| who), Ok("alice".into()));
            let keys = SecretSet::from_pairs(&keys);
            let went = enter(&server, &keys, Incoming::default(), (&client, &set)).await;
            assert!(went.is_err(), "{went:?}");
        }
        assert_eq!(visit(&server, &set).await, fresh(), "it tried once, and not again");
        server.expire_sessions(
            &SecretSet::from_pairs(&[(b"alice", OTHER)]),
            std::time::Instant::now(),
        );
        assert_eq!(stored(&server), 0);
    });
}

#[test]
fn a_session_is_kept_only_when_its_key_is_proven_and_there_is_no_ticket_for_it() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        for (lines, key, wanted) in [
            (without_tickets(""), KEY, 1),
            (without_tickets(""), OTHER, 0),
            (without_tickets("resumption = false\n"), KEY, 0),
            (only("1.2"), KEY, 0),
            (only("1.3"), KEY, 0),
            (only("1.3") + "tls-options = [\"NO_TICKET\"]\n", KEY, 0),
        ] {
            let server = match lines.contains("resumption") {
                true => acceptor(&lines),
                false => giver("plc", &lines, None),
            };
            let theirs = SecretSet::from_pairs(&[(b"alice", key)]);
            let client =
                taker(&only(if lines.contains("1.3") { "1.3" } else { "1.2" }), &theirs, None);
            let went = enter(&server, &set, Incoming::default(), (&client, &theirs)).await;
            assert_eq!(went.is_ok(), key == KEY, "{lines}: {went:?}");
            assert_eq!(stored(&server), wanted, "{lines}");
        }
    });
}

#[test]
fn in_1_3_without_tickets_nothing_is_given_and_nothing_is_resumed() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let server = giver("plc", &(only("1.3") + "tls-options = [\"NO_TICKET\"]\n"), None);
        let client = taker(&only("1.3"), &set, None);
        for _ in 0..2 {
            let went = enter(&server, &set, Incoming::default(), (&client, &set)).await;
            assert_eq!(went, fresh());
        }
    });
}

#[test]
fn a_service_that_was_asked_for_by_name_has_sessions_of_its_own() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let off = acceptor(&only("1.2"));
        for door in [giver("door", &without_tickets(""), None), off] {
            let behind = giver("behind", &without_tickets(""), None);
            let client = taker(&only("1.2"), &set, None);
            let named = || Names::of(vec![("*.example", behind.clone(), set.clone())]);
            for wanted in [fresh(), again(), again()] {
                assert_eq!(enter(&door, &set, named(), (&client, &set)).await, wanted);
            }
            // The same ID at the door itself.
            let went = enter(&door, &set, Incoming::default(), (&client, &set)).await;
            assert_eq!(went, fresh());
        }
        // What is off behind the door is off, whatever the door does.
        let door = giver("door", &without_tickets(""), None);
        let client = taker(&only("1.2"), &set, None);
        for _ in 0..2 {
            let named = Names::of(vec![("*.example", acceptor(&only("1.2")), set.clone())]);
            assert_eq!(enter(&door, &set, named, (&client, &set)).await, fresh());
        }
        assert_eq!(stored(&door), 0);
    });
}

/// What OpenSSL itself holds a session to: a store or ticket keys that two services should ever share do not
/// make one's sessions the other's, and nobody is shut out.
#[test]
fn a_session_that_was_made_under_another_context_is_not_resumed() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        for (version, lines) in
            [("1.2", without_tickets("")), ("1.2", only("1.2")), ("1.3", only("1.3"))]
        {
            let server = giver("plc", &lines, None);
            let sessions = server.sessions.as_ref().unwrap();
            let elsewhere = ServerSessions {
                context: [7; 32],
                tickets: sessions.tickets.clone(),
                store: sessions.store.clone(),
            };
            let other = Acceptor { sessions: Some(Arc::new(elsewhere)), ..server.clone() };
            let client = taker(&only(version), &set, None);
            for (server, wanted) in [(&server, fresh()), (&server, again()), (&other, fresh())] {
                let went = enter(server, &set, Incoming::default(), (&client, &set)).await;
                assert_eq!(went, wanted, "{version}");
            }
        }
    });
}

#[test]
fn an_identity_that_is_hidden_from_a_peer_does_not_get_in_by_an_id_either() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let server = giver("plc", &without_tickets(""), None);
        let client = taker(&only("1.2"), &set, None);
        let went = enter(&server, &set, Incoming::default(), (&client, &set)).await;
        assert_eq!(went, fresh());
        let (near, far) = duplex(1 << 16);
        let hidden = PeerKeys::hiding(set.clone(), |_| true);
        let accept = async { server.accept(hidden, far).await.map_err(|f| f.cause) };
        let (who, keys, name) = (set.first().unwrap().clone(), set.clone(), Some("plc.example"));
        let connect = client.connect_unflushed(keys, who, name, Some("plc:1"), near);
        let (one, _) = tokio::join!(accept, async { connect.await.is_ok() });
        let cause = one.unwrap_err();
        assert!(matches!(cause, RefusalCause::UnknownIdentity(_)), "{cause:?}");
        assert_eq!(stored(&server), 1, "who is elsewhere keeps it");
    });
}

#[test]
fn a_suite_that_is_not_taken_any_more_or_is_not_offered_is_not_resumed_either() {
    const ECDHE: &str = "ciphers = \"ECDHE-PSK-CHACHA20-POLY1305\"\n";
    const DHE: &str = "ciphers = \"DHE-PSK-AES256-GCM-SHA384\"\n";
    const BOTH: &str = "ciphers = \"ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384\"\n";
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let client = taker(&(only("1.2") + BOTH), &set, None);
        let before = giver("plc", &without_tickets(ECDHE), None);
        let after = giver("plc", &without_tickets(DHE), Some(&before));
        for (server, wanted) in [(&before, fresh()), (&before, again()), (&after, fresh())] {
            let went = enter(server, &set, Incoming::default(), (&client, &set)).await;
            assert_eq!(went, wanted);
        }
        // A client whose own list has changed offers the ID of a session with a suite that it does not name.
        let server = giver("plc", &without_tickets(BOTH), None);
        let before = taker(&(only("1.2") + ECDHE), &set, None);
        let after = taker(&(only("1.2") + DHE), &set, Some(&before));
        for (client, wanted) in [(&before, fresh()), (&before, again()), (&after, fresh())] {
            let went = enter(&server, &set, Incoming::default(), (client, &set)).await;
            assert_eq!(went, wanted);
        }
    });
}

/// RFC 5246, 7.2.2: what ended in a fatal alert is not resumed.
#[test]
fn a_session_whose_connection_was_tampered_with_is_forgotten() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let server = giver("plc", &without_tickets(""), None);
        let (shaken, client) = knock(&server, &set, None).await;
        let (mut open, mut client) = (shaken.unwrap().stream, client.unwrap());
        assert_eq!(stored(&server), 1);
        // Whoever has seen the ID, and does not know the secret.
        let saved = client.ssl().session().unwrap().to_owned();
        let der = saved.to_der().unwrap();
        let mut secret = [0; 48];
        assert_eq!(saved.master_key(&mut secret), 48);
        let at = der.windows(48).position(|part| part == secret).expect("the secret");
        let guessed = [&der[..at], &[0; 48], &der[at + 48..]].concat();
        let guessed = SslSession::from_der(&guessed).unwrap();
        let (refused, _) = knock(&server, &set, Some(&guessed)).await;
        assert!(refused.is_err());
        assert_eq!(stored(&server), 0);
        // A record that nobody encrypted, in an open session.
        let (shaken, other) = knock(&server, &set, None).await;
        let (mut reader, mut other) = (shaken.unwrap().stream, other.unwrap());
        assert_eq!(stored(&server), 1);
        other.get_mut().write_all(&[&[23, 3, 3, 0, 32][..], &[0; 32]].concat()).await.unwrap();
        reader.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(stored(&server), 0);
        // An end without close_notify is none of that.
        let (shaken, third) = knock(&server, &set, None).await;
        drop(third);
        assert_eq!(shaken.unwrap().stream.read(&mut [0; 9]).await.unwrap(), 0);
        assert_eq!(stored(&server), 1);
        client.write_all(b"data").await.unwrap();
        open.read_exact(&mut [0; 4]).await.unwrap();
    });
}

#[test]
fn an_id_that_is_unknown_or_of_any_length_is_a_full_handshake() {
    block(async {
        let server = giver("plc", &without_tickets(""), None);
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let (_, client) = knock(&server, &set, None).await;
        let client = client.unwrap();
        let saved = client.ssl().session().unwrap();
        let (der, id) = (saved.to_der().unwrap(), saved.id().to_vec());
        assert_eq!(id.len(), 32);
        let at = der.windows(32).position(|part| part == id).expect("the ID");
        let mut unlike = der.clone();
        unlike[at + 31] ^= 1;
        // Cut to one byte: the lengths of ID and session with it.
        let head = [&der[..at - 1], &[1, id[0]], &der[at + 32..]].concat();
        let cut = {
            let mut der = head;
            let len = usize::from(der[2]);
            assert_eq!((der[1], len), (0x81, unlike.len() - 3), "a short form of the length");
            der[2] = u8::try_from(len - 31).unwrap();
            der
        };
        let (done, came) = knock(&server, &set, Some(saved)).await;
        assert!(done.unwrap().resumed && came.unwrap().ssl().session_reused(), "as it was");
        for der in [unlike, cut] {
            let session = SslSession::from_der(&der).unwrap();
            let (done, came) = knock(&server, &set, Some(&session)).await;
            assert!(!done.unwrap().resumed && !came.unwrap().ssl().session_reused());
        }
    });
}
