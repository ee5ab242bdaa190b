//! Suites, groups, and services that are asked for by name.

use super::*;

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
    assert!(names.iter().all(|name| name.starts_with("TLS_") || offers::is_psk(name)));
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
            assert_eq!(two.unwrap().info.group.unwrap().name, "P-384", "{version}");
            one.unwrap();
        }
    });
}
