//! Sets of keys: what a reload keeps, and what stands for an unknown identity.

use super::*;

#[test]
fn a_reload_keeps_the_grants_of_unchanged_keys_and_no_other() {
    let files = KeyFolder::new();
    let old = reload(&files, &format!("a:{HEX_KEY}\nb:{TEXT_KEY}\nc:{TEXT_KEY} c\n"), None);
    let [a, b, c] = ["a", "b", "c"].map(|who| grant(&old, who));
    assert!([&a, &b, &c].iter().all(|grant| old.grants(grant)));

    // Another spelling and another order of the same; b has another key, c is gone, d is new.
    let text = format!("d:{TEXT_KEY} d\nb:{TEXT_KEY} b\na:{}\n", HEX_KEY.to_uppercase());
    let new = reload(&files, &text, Some(&old));
    assert!(new.grants(&a));
    assert!(!new.grants(&b) && !new.grants(&c));
    assert!(new.grants(&grant(&new, "b")) && !old.grants(&grant(&new, "b")));
    assert!(new.grants(&grant(&new, "d")) && !old.grants(&grant(&new, "d")));

    // A key that comes back does not bring old sessions back.
    let text = format!("a:{HEX_KEY}\nb:{TEXT_KEY}\nc:{TEXT_KEY} c\n");
    let back = reload(&files, &text, Some(&new));
    assert!(back.grants(&a) && !back.grants(&b) && !back.grants(&c));
}

#[test]
fn a_set_that_was_not_made_from_the_one_before_grants_nothing_of_it() {
    let files = KeyFolder::new();
    let text = format!("a:{HEX_KEY}\n");
    let (one, two) = (reload(&files, &text, None), reload(&files, &text, None));
    assert!(!two.grants(&grant(&one, "a")));
}

#[test]
fn swapped_keys_revoke_both_identities() {
    let files = KeyFolder::new();
    let old = reload(&files, &format!("a:{HEX_KEY}\nb:{TEXT_KEY}\n"), None);
    let new = reload(&files, &format!("a:{TEXT_KEY}\nb:{HEX_KEY}\n"), Some(&old));
    assert!(!new.grants(&grant(&old, "a")) && !new.grants(&grant(&old, "b")));
}

#[test]
fn what_two_sets_share_is_an_identity_with_the_same_key() {
    let files = KeyFolder::new();
    let one = reload(&files, &format!("a:{HEX_KEY}\nb:{TEXT_KEY}\nc:{TEXT_KEY} c\n"), None);
    let two = reload(&files, &format!("a:{HEX_KEY}\nb:{TEXT_KEY} other\nd:{TEXT_KEY} c\n"), None);
    let shared: Vec<_> = one.shared_identities(&two).map(Identity::as_bytes).collect();
    assert_eq!(shared, [b"a"]);
}

#[test]
fn an_answer_is_the_key_of_who_is_known_and_a_steady_decoy_for_anybody_else() {
    let set =
        SecretSet::from_pairs(&[(b"alice", &sequential_bytes(64)), (b"bob", TEXT_KEY.as_bytes())]);
    let keys = PeerKeys::hiding(set.clone(), |who| who.as_bytes() == b"bob");
    let answer = |name: &[u8]| {
        let given = keys.answer_for(name).unwrap().unwrap();
        let who = given.claim().map(|claim| claim.who().as_bytes().to_vec());
        assert_eq!(keys.has_key_for(name), who.is_some());
        (who, given.key(&keys).unwrap().to_vec())
    };
    assert_eq!(answer(b"alice"), (Some(b"alice".to_vec()), sequential_bytes(64)));
    for stranger in [&b"bob"[..], b"carol", b"", b"alice\0", &[b'x'; 60_000]] {
        let (who, key) = answer(stranger);
        assert_eq!(who, None);
        assert_eq!(key, answer(stranger).1);
        // As long as somebody's key, and nobody's.
        assert!(key.len() == 64 || key.len() == TEXT_KEY.len());
        assert!(key != sequential_bytes(64) && key != TEXT_KEY.as_bytes());
    }
    assert_ne!(answer(b"carol").1[..32], answer(b"dave").1[..32]);
}

#[test]
fn a_decoy_is_steady_differs_by_identity_and_is_nobodys_key() {
    let mut seen = BTreeSet::new();
    let long = [b'x'; 65_535];
    for identity in [&b""[..], b"a", b"b", b"a\0", b"client1", &long] {
        let one = derive_decoy(identity).unwrap().to_vec();
        assert_eq!(one, derive_decoy(identity).unwrap().to_vec());
        assert_eq!(one.len(), 32);
        assert_ne!(one, sequential_bytes(32));
        assert!(seen.insert(one));
    }
    let set = SecretSet::with_random_key("demo").unwrap();
    assert_ne!(key(&set, "demo"), derive_decoy(b"demo").unwrap().as_slice());
}

#[test]
fn what_has_changed_is_told_by_names_and_not_without_end() {
    let set = |pairs: &[(&[u8], &[u8])]| SecretSet::from_pairs(pairs);
    let before = set(&[(b"a", &[1; 16]), (b"b", &[2; 16])]);
    assert!(before.changes_since(&before).is_none());
    let after = set(&[(b"b", &[3; 16]), (b"c", &[4; 16])]);
    let told = after.changes_since(&before).expect("changes").to_string();
    assert_eq!(told, "added \"c\"; removed \"a\"; replaced \"b\"");
    let names: Vec<String> = (10..30).map(|n| format!("plc-{n}")).collect();
    let many: Vec<(&[u8], &[u8])> =
        names.iter().map(|name| (name.as_bytes(), &[5; 16][..])).collect();
    let told = set(&many).changes_since(&set(&many[..1])).expect("changes").to_string();
    assert!(told.ends_with("\"plc-18\" and 11 more; replaced \"plc-10\""), "{told}");
}
