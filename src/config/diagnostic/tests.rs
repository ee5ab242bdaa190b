use super::*;

fn report(text: &str, span: Range<usize>) -> Diagnostics {
    let mut report = Diagnostics::default();
    let source = SourceText::new(Arc::from(Path::new("a.conf")), text);
    source.register(&mut report);
    let found = Diagnostic::error("some-code", "bad \u{1b}[31mthing")
        .at(source.place(span))
        .label("here")
        .help("change it");
    report.push(found);
    report
}

#[test]
fn a_place_counts_lines_from_one_and_columns_in_characters() {
    let source = SourceText::new(Arc::from(Path::new("x")), "a\n\u{e9}\u{e9}b\n");
    let place = source.place(6..7);
    assert_eq!((place.line, place.column), (2, 3));
    assert_eq!(source.place(0..0).line, 1);
}

#[test]
fn people_see_the_line_the_mark_the_help_and_the_count() {
    let shown = report("one = 1\ntwo = 2\n", 14..15).render(false);
    for part in
        ["error[some-code]", "a.conf:2:7", "two = 2", "^ here", "help: change it", "1 error\n"]
    {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(report("a", 0..1).render(true).contains("\u{1b}["));
}

#[test]
fn nothing_moves_the_terminals_cursor() {
    let r = report("two = \u{1b}]0;x\u{7}\u{202e}\u{9b}\r\n", 6..8);
    for text in [r.render(false), r.render_stunnel(), serde_json::to_string(&r).unwrap()] {
        let bad = text.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
        assert_eq!(bad, None, "{text:?}");
    }
}

#[test]
fn a_span_that_points_nowhere_does_no_harm() {
    for span in [0..0, 3..99, 99..99, 1..2] {
        let mut r = report("\u{e9}\u{e9}", 0..2);
        if let Some(place) = &mut r.diagnostics[0].place {
            place.span = span;
        }
        assert!(r.render(false).contains("bad"));
    }
}

#[test]
fn a_finding_in_a_key_file_shows_its_line_number_only() {
    let mut r = Diagnostics::default();
    let file: Arc<Path> = Arc::from(Path::new("psk.txt"));
    let place = SourceLocation { file, line: 7, column: 1, span: 0..0 };
    r.push(Diagnostic::error("bad-key", "the key is too short").at(place).label("here"));
    assert!(r.render(false).contains("psk.txt:7"), "{}", r.render(false));
    assert!(r.render_stunnel().starts_with("[!] psk.txt:7: "));
}

#[test]
fn stunnels_shape_names_the_section_or_the_line() {
    assert_eq!(
        report("[a b]\n", 0..5).render_stunnel(),
        "[!] Service [a b]: bad \\u{1b}[31mthing\n[.] help: change it\n[!] Configuration failed\n"
    );
    assert_eq!(
        report(" x = 1 \n", 1..2).render_stunnel(),
        "[!] a.conf:1: \"x = 1\": bad \\u{1b}[31mthing\n[.] help: change it\n[!] Configuration failed\n"
    );
}

#[test]
fn programs_get_json_without_the_texts() {
    let json = serde_json::to_value(report("secret = 1\n", 0..6)).unwrap();
    assert_eq!(json["errors"], 1);
    assert_eq!(json["diagnostics"][0]["code"], "some-code");
    assert_eq!(json["diagnostics"][0]["place"]["line"], 1);
    assert!(!json.to_string().contains("secret"));
}

#[test]
fn a_finding_in_a_key_file_has_the_shape_of_the_others() {
    for severity in [Severity::Error, Severity::Warning, Severity::Notice] {
        for help in [None, Some("write\tit anew: `x`")] {
            let mut r = Diagnostics::default();
            let place = SourceLocation {
                file: Path::new("a/psk.txt").into(),
                line: 100_000,
                column: 1,
                span: 0..0,
            };
            let mut finding = Diagnostic::error("a-code", "what \u{1b} is é wrong").at(place);
            (finding.severity, finding.help) = (severity, help.map(str::to_owned));
            r.push(finding);
            let plain = r.render(false);
            // The renderer's, without its colours.
            let mut rendered = String::new();
            let styled = r.render(true);
            let mut parts = styled.split('\u{1b}');
            rendered += parts.next().unwrap();
            parts.for_each(|part| rendered += part.split_once('m').unwrap().1);
            assert_eq!(plain, rendered);
        }
    }
}

#[test]
fn findings_that_are_there_already_are_not_added_again() {
    let finding = |line, message: &str| {
        let place =
            SourceLocation { file: Path::new("psk.txt").into(), line, column: 1, span: 0..0 };
        Diagnostic::notice("weak-key", message).at(place)
    };
    let mut r = Diagnostics::default();
    r.push(finding(1, "one"));
    let elsewhere = finding(1, "one").at(None);
    r.add_new(vec![finding(2, "two"), finding(1, "one"), finding(2, "two"), elsewhere.clone()]);
    assert_eq!(r.diagnostics, [finding(1, "one"), finding(2, "two"), elsewhere]);
}
