//! A stranger cannot find out which identities exist: hellos that no ordinary client would send.

use crate::harness::hello::{answer, claim_lists, hello_13};
use crate::harness::{Backend, IDENTITY, PskgateBuilder, server_toml};

/// What is special about a list, whose identities it names, and its binders.
type List<'a> = (&'a str, &'a [usize], &'a [&'a [u8]]);

#[test]
fn no_list_of_offers_tells_a_known_identity_from_an_unknown_one() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let to = gate.address("tls");
    let (good, long, short) = (&[0; 32][..], &[0; 48][..], &[0; 33][..]);
    let lists: [List<'_>; 8] = [
        // A 0 stands for the identity in question, other numbers for one that nobody has.
        ("alone", &[0], &[good]),
        ("two, and one binder", &[0, 1], &[good]),
        ("behind another, and one binder", &[1, 0], &[good]),
        ("two, the other's binder longer", &[0, 1], &[good, short]),
        ("two, its own binder longer", &[0, 1], &[short, good]),
        ("with a binder of another hash", &[0, 1], &[long, good]),
        ("two, and three binders", &[0, 1], &[good, good, good]),
        ("twice", &[0, 0], &[good, good]),
    ];
    for (what, order, binders) in lists {
        let ask = |name: &'static str| {
            let names: Vec<&[u8]> =
                order.iter().map(|n| if *n == 0 { name.as_bytes() } else { b"junk" }).collect();
            answer(to, &hello_13(&[1], &names, binders))
        };
        let (known, unknown) = (ask(IDENTITY), ask("nobody7"));
        assert_eq!(IDENTITY.len(), "nobody7".len(), "or the lengths would tell");
        assert_eq!(known.first(), Some(&0x15), "{what}: an alert and nothing else: {known:02x?}");
        assert_eq!(known, unknown, "{what}");
    }
    assert_eq!(backend.accepted(), 0);
}

/// Eight offers are looked at, nine are not, wherever the known one stands. (A known one is told from an
/// unknown one in the log alone.)
#[test]
fn a_list_of_more_than_eight_offers_is_answered_as_if_none_were_good() {
    let backend = Backend::echo();
    let gate = PskgateBuilder::new().toml(&server_toml(backend.address(), "")).start();
    let to = gate.address("tls");
    let known = IDENTITY.as_bytes();
    let with = |count: usize, place: usize| -> Vec<&[u8]> {
        (0..count).map(|n| if n == place { known } else { b"nobody7" }).collect()
    };
    let mut answers = Vec::new();
    for (count, places) in [(8, [0, 3, 7]), (9, [0, 4, 8]), (100, [0, 50, 99])] {
        for place in places {
            let list = with(count, place);
            answers.extend(claim_lists(to, &[&list]).0);
            match count {
                8 => gate.wait_logged("wrong key for identity \"client1\""),
                _ => gate.wait_logged(&format!("offered {count} keys at once")),
            };
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:02x?}");
    assert_eq!(backend.accepted(), 0);
}
