//! What a line of a key file means.

use super::*;

/// The key of a text that has to be one good line under both rules, and what was said about it.
fn key_of(text: &str) -> (Vec<u8>, Vec<(ProblemSeverity, &'static str)>) {
    let [native, stunnel] = BOTH.map(|rules| {
        let (entries, problems) = read(format!("client1:{text}"), rules);
        assert_eq!(entries.len(), 1, "{text}: {problems:?}");
        (entries[0].key.expose().to_vec(), codes(&problems))
    });
    assert_eq!(native, stunnel);
    native
}

fn refusal_codes(text: impl AsRef<[u8]>, rules: KeyFileRules) -> Vec<&'static str> {
    let (_, problems) = read(text, rules);
    problems.iter().filter(|p| p.severity == ProblemSeverity::Error).map(|p| p.code).collect()
}

fn warning_codes(text: impl AsRef<[u8]>, rules: KeyFileRules) -> Vec<&'static str> {
    let (_, problems) = read(text.as_ref(), rules);
    assert!(problems.iter().all(|p| p.severity != ProblemSeverity::Error), "{problems:?}");
    problems.iter().filter(|p| p.severity == ProblemSeverity::Warning).map(|p| p.code).collect()
}

#[test]
fn hex_is_decoded_in_either_case_and_with_colons_between_bytes() {
    let colons = |text: &str, between: &str| {
        let pairs: Vec<_> = text.as_bytes().chunks(2).collect();
        String::from_utf8(pairs.join(between.as_bytes())).unwrap()
    };
    for text in [
        HEX_KEY.to_owned(),
        HEX_KEY.to_uppercase(),
        colons(HEX_KEY, ":"),
        colons(&HEX_KEY.to_uppercase(), "::"),
        format!(":{HEX_KEY}:"),
    ] {
        assert_eq!(key_of(&text), (sequential_bytes(32), vec![]), "{text}");
    }
}

#[test]
fn what_is_not_quite_hex_is_text_with_a_warning() {
    let slip = vec![(ProblemSeverity::Warning, "nearly-hex")];
    for text in [
        format!("{HEX_KEY}0"),
        format!("0:{}0", &HEX_KEY[1..]),
        HEX_KEY.replacen('a', "g", 1),
        format!("{} {}", &HEX_KEY[..32], &HEX_KEY[32..]),
        format!("0x{HEX_KEY}"),
    ] {
        assert_eq!(key_of(&text), (text.as_bytes().to_vec(), slip.clone()));
    }
}

#[test]
fn two_lines_without_an_ending_between_them_get_a_warning() {
    let base64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let joined = vec![(ProblemSeverity::Warning, "joined-lines")];
    for text in [
        format!("{base64}client2:{base64}"),
        format!("{base64}client2:{HEX_KEY}"),
        format!("{HEX_KEY}client2:{HEX_KEY}"),
        format!("{base64}b:{base64}c:{base64}"),
    ] {
        assert_eq!(key_of(&text), (text.as_bytes().to_vec(), joined.clone()));
    }
    // A passphrase with a colon, and a colon near the beginning or near the end, are good keys.
    for text in [
        "what I said yesterday evening: nothing at all, and nobody asked".to_owned(),
        format!("psk:{base64}"),
        format!("{base64}:client2"),
        format!("{base64}:"),
    ] {
        assert_eq!(key_of(&text), (text.as_bytes().to_vec(), vec![]));
    }
}

#[test]
fn base64_and_passphrases_are_the_bytes_of_their_text() {
    let base64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    for text in [base64, TEXT_KEY, "zwölf Boxkämpfer jagen Viktor quer über"] {
        assert_eq!(key_of(text), (text.as_bytes().to_vec(), vec![]));
    }
}

#[test]
fn a_key_may_hold_colons_because_the_first_one_splits_the_line() {
    let (entries, _) = read("a:b:c:d of more than sixteen bytes", STUNNEL);
    assert_eq!(entries[0].identity.as_bytes(), b"a");
    assert_eq!(entries[0].key.expose(), b"b:c:d of more than sixteen bytes");
}

#[test]
fn hex_counts_half_so_that_thirty_digits_are_too_short() {
    for rules in BOTH {
        for digits in (2..32).step_by(2) {
            let text = format!("client1:{}", &HEX_KEY[..digits]);
            let (entries, problems) = read(&text, rules);
            assert!(entries.is_empty());
            assert_eq!(codes(&problems), [(ProblemSeverity::Error, "short-key")]);
            assert!(digits < 16 || problems[0].message.contains("count half"));
        }
    }
    assert_eq!(key_of(&HEX_KEY[..32]).0, sequential_bytes(16));
    // Odd in number, they are text, and 17 characters of that are enough.
    assert_eq!(key_of(&HEX_KEY[..17]).0, &HEX_KEY.as_bytes()[..17]);
}

#[test]
fn a_key_has_16_to_512_bytes_once_decoded() {
    for rules in BOTH {
        for (len, fits) in [(0, false), (15, false), (16, true), (512, true), (513, false)] {
            let wanted: &[&str] = match (fits, len < 16) {
                (true, _) => &[],
                (_, true) => &["short-key"],
                (_, false) => &["long-key"],
            };
            assert_eq!(refusal_codes(format!("a:{}", "x".repeat(len)), rules), wanted);
            assert_eq!(refusal_codes(format!("a:{}", "5a".repeat(len)), rules), wanted);
        }
        // OPENSSL_hexstr2buf takes colons alone for no bytes at all.
        assert_eq!(refusal_codes(format!("a:{}", ":".repeat(40)), rules), ["short-key"]);
    }
}

#[test]
fn carriage_returns_vanish_wherever_they_stand() {
    for rules in BOTH {
        for text in [
            format!("a:{TEXT_KEY}\r\nb:{HEX_KEY}\r\n"),
            format!("\ra\r:\r\r{TEXT_KEY}\r\r\n\r\n\r\r\nb:{HEX_KEY}\r"),
            format!("a:{}\r{}\nb:{HEX_KEY}\r\r", &TEXT_KEY[..9], &TEXT_KEY[9..]),
        ] {
            let (entries, problems) = read(&text, rules);
            assert_eq!(problems, [], "{text:?}");
            assert_eq!(entries.len(), 2);
            assert_eq!(entries[0].identity.as_bytes(), b"a");
            assert_eq!(entries[0].key.expose(), TEXT_KEY.as_bytes());
            assert_eq!(entries[1].key.expose(), sequential_bytes(32));
        }
    }
}

#[test]
fn a_nul_ends_its_line_and_no_more() {
    for rules in BOTH {
        let (entries, problems) = read(format!("a:{TEXT_KEY}\0more\nb:{HEX_KEY}\0\n\0c\n"), rules);
        assert_eq!(problems, []);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].key.expose(), TEXT_KEY.as_bytes());
        assert_eq!(entries[1].key.expose(), sequential_bytes(32));
        assert_eq!(refusal_codes(format!("a\0b:{TEXT_KEY}"), rules), ["not-identity-key"]);
    }
}

#[test]
fn empty_lines_are_skipped_counted_and_a_last_line_feed_is_not_needed() {
    for rules in BOTH {
        let (entries, problems) = read(format!("\n\na:{TEXT_KEY}\n\n\nb:{HEX_KEY}"), rules);
        assert_eq!(problems, []);
        assert_eq!(entries.iter().map(|e| e.line).collect::<Vec<_>>(), [3, 6]);
    }
}

#[test]
fn blanks_comments_and_lines_without_a_colon_are_errors_with_their_line() {
    for rules in BOTH {
        for (line, words) in [
            (" ", "blanks"),
            (" \t ", "blanks"),
            ("# a comment", "no comments"),
            ("; another", "no comments"),
            ("client1", "no colon"),
            ("client1 = key", "no colon"),
        ] {
            let (_, problems) = read(format!("a:{TEXT_KEY}\n{line}\n"), rules);
            assert_eq!(codes(&problems), [(ProblemSeverity::Error, "not-identity-key")]);
            assert_eq!(problems[0].line, Some(2));
            assert!(problems[0].message.contains(words), "{problems:?}");
        }
        let text = format!("#b:{TEXT_KEY}\n");
        assert_eq!(warning_codes(&text, rules), ["comment-like"]);
        assert_eq!(read(&text, rules).0[0].identity.as_bytes(), b"#b");
    }
}

#[test]
fn every_mistake_of_a_file_is_named_at_once() {
    let (_, problems) = read(format!("a\nb:short\n:{TEXT_KEY}\nd:{TEXT_KEY}\n#\n"), NATIVE);
    let places: Vec<_> = problems.iter().map(|p| (p.line, p.code)).collect();
    assert_eq!(
        places,
        [
            (Some(1), "not-identity-key"),
            (Some(2), "short-key"),
            (Some(3), "empty-identity"),
            (Some(5), "not-identity-key"),
        ]
    );
}

#[test]
fn blanks_at_the_edges_belong_to_what_they_touch_and_are_warned_about() {
    for rules in BOTH {
        for (line, identity, key, code) in [
            (
                "a: k23456789012345678901234567890z",
                "a",
                " k23456789012345678901234567890z",
                "padded-key",
            ),
            (
                "a:k23456789012345678901234567890z ",
                "a",
                "k23456789012345678901234567890z ",
                "padded-key",
            ),
            (
                " a:k23456789012345678901234567890zz",
                " a",
                "k23456789012345678901234567890zz",
                "padded-identity",
            ),
            (
                "a :k23456789012345678901234567890zz",
                "a ",
                "k23456789012345678901234567890zz",
                "padded-identity",
            ),
        ] {
            assert_eq!(warning_codes(line, rules), [code], "{line:?}");
            let (entries, _) = read(line, rules);
            assert_eq!(entries[0].identity.as_bytes(), identity.as_bytes());
            assert_eq!(entries[0].key.expose(), key.as_bytes());
        }
    }
    // One blank turns hex into text: both slips are named.
    let (key, said) = key_of(&format!(" {HEX_KEY}"));
    assert_eq!(key, format!(" {HEX_KEY}").as_bytes());
    assert_eq!(
        said,
        [(ProblemSeverity::Warning, "padded-key"), (ProblemSeverity::Warning, "nearly-hex")]
    );
}

#[test]
fn a_byte_order_mark_is_part_of_the_first_identity() {
    let text = format!("\u{feff}a:{TEXT_KEY}\nb:{HEX_KEY}\n");
    assert_eq!(refusal_codes(&text, NATIVE), ["byte-order-mark"]);
    assert_eq!(warning_codes(&text, STUNNEL), ["byte-order-mark"]);
    let (entries, _) = read(&text, STUNNEL);
    assert_eq!(entries[0].identity.as_bytes(), "\u{feff}a".as_bytes());
    assert_eq!(entries[1].identity.as_bytes(), b"b");
}

#[test]
fn an_identity_has_at_most_255_bytes_and_natively_at_least_one() {
    for rules in BOTH {
        for (len, wanted) in [(1, vec![]), (255, vec![]), (256, vec!["long-identity"])] {
            let line = format!("{}:{TEXT_KEY}", "i".repeat(len));
            assert_eq!(refusal_codes(line, rules), wanted);
        }
    }
    // Bytes are counted, not characters.
    assert_eq!(refusal_codes(format!("{}:{TEXT_KEY}", "ö".repeat(128)), NATIVE), ["long-identity"]);
    assert_eq!(refusal_codes(format!(":{TEXT_KEY}"), NATIVE), ["empty-identity"]);
    assert_eq!(warning_codes(format!(":{TEXT_KEY}"), STUNNEL), ["empty-identity"]);
    assert_eq!(read(format!(":{TEXT_KEY}"), STUNNEL).0[0].identity.as_bytes(), b"");
}

#[test]
fn identities_are_utf8_natively_and_bytes_in_a_stunnel_conf() {
    let cases: [(&[u8], &str); 4] = [
        (b"\xff\xfe", "identity-not-utf8"),
        (b"a\x1b[31m", "identity-control"),
        (b"a\tb", "identity-control"),
        ("a\u{85}b".as_bytes(), "identity-control"),
    ];
    for (name, code) in cases {
        let text = [name, b":", TEXT_KEY.as_bytes()].concat();
        assert_eq!(refusal_codes(&text, NATIVE), [code]);
        assert_eq!(warning_codes(&text, STUNNEL), [code]);
        assert_eq!(read(&text, STUNNEL).0[0].identity.as_bytes(), name);
        for problem in read(&text, NATIVE).1 {
            assert!(!problem.message.contains(char::is_control), "{problem:?}");
        }
    }
    for rules in BOTH {
        assert_eq!(warning_codes(format!("Zoë's PLC:{TEXT_KEY}"), rules), [""; 0]);
    }
}
