//! Sessions that are resumed, and for how long.

use super::*;

/// The service of that name, with tickets.
pub(super) fn giver(service_name: &str, lines: &str, previous: Option<&Acceptor>) -> Acceptor {
    let (tls, hash) = service("server", &format!("resumption = true\n{lines}"));
    let end = Acceptor::new(&tls, hash, &mut Vec::new()).unwrap();
    end.resuming(&tls, service_name, previous).unwrap()
}

pub(super) fn taker(lines: &str, set: &SecretSet, previous: Option<&Connector>) -> Connector {
    let (tls, hash) = service("client", &format!("resumption = true\n{lines}"));
    Connector::new(&tls, hash, &mut Vec::new()).unwrap().resuming(&tls, set, previous)
}

/// A visit at `address`, under `name`, from which a ticket may be taken: who was let in, and whether by
/// resumption, as both ends see it.
pub(super) async fn call(
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

pub(super) const GIVEN: &str = "ticket-key-secret = \"00112233445566778899aabbccddeeff\"\n\
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
