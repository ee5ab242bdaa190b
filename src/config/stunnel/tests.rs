use super::*;

fn parsed(text: &[u8]) -> (ParsedFile, Diagnostics) {
    let mut report = Diagnostics::default();
    let parsed = read(text, Path::new("t.conf"), Path::new("/base"), &mut report);
    (parsed, report)
}

fn codes(text: &[u8]) -> Vec<(&'static str, u32)> {
    let (_, report) = parsed(text);
    report.diagnostics.iter().map(|d| (d.code, d.place.as_ref().map_or(0, |p| p.line))).collect()
}

fn text(values: &Values, opt: OptionId) -> Vec<String> {
    let show = |v: &Spanned<Value>| match &v.value {
        Value::Text(t) => t.clone(),
        Value::Path(p) => p.display().to_string(),
        Value::Endpoint(e) => e.to_string(),
        Value::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        other => format!("{other:?}"),
    };
    values.all(opt).iter().map(show).collect()
}

#[test]
fn the_first_line_may_begin_with_a_byte_order_mark() {
    let (d, r) = parsed(b"\xef\xbb\xbfoutput = a.log\n");
    assert!(r.diagnostics.is_empty());
    assert_eq!(text(&d.global, OptionId::LogOutput), ["a.log"]);
}

#[test]
fn carriage_returns_vanish_wherever_they_are() {
    let (d, r) = parsed(b"[a]\r\nacc\rept = 30\r02\r\r\n");
    assert!(r.diagnostics.is_empty());
    assert_eq!(text(&d.services[0].values, OptionId::Accept), ["3002"]);
}

#[test]
fn a_last_line_needs_no_line_feed() {
    let (d, _) = parsed(b"[a]\nPSKidentity = client1");
    assert_eq!(text(&d.services[0].values, OptionId::PskIdentity), ["client1"]);
}

#[test]
fn what_stands_behind_a_nul_is_not_there() {
    let (d, r) = parsed(b"[a]\nciphers = PSK\0garbage\n\0= x\n");
    assert!(r.diagnostics.is_empty());
    assert_eq!(text(&d.services[0].values, OptionId::Ciphers), ["PSK"]);
}

#[test]
fn a_line_that_is_too_long_is_two_lines() {
    let mut comment = vec![b'#'; LINE_LIMIT];
    comment.extend_from_slice(b"no option\n[a]\n");
    assert_eq!(codes(&comment), [("no-equals-sign", 1)]);
    let mut comment = vec![b'#'; LINE_LIMIT];
    comment.extend_from_slice(b"output = x\n");
    let (d, _) = parsed(&comment);
    assert_eq!(text(&d.global, OptionId::LogOutput), ["x"]);
}

#[test]
fn only_a_lines_first_character_makes_a_comment() {
    let (d, r) = parsed(b"  ; x\n\t# y\n[a]\nciphers = PSK # all of them\n");
    assert!(r.diagnostics.is_empty());
    assert_eq!(text(&d.services[0].values, OptionId::Ciphers), ["PSK # all of them"]);
    assert_eq!(codes(b"[a] ; comment\n"), [("no-equals-sign", 1)]);
    assert_eq!(codes(b"[a]\naccept = 127.0.0.1:0 ; x\n"), [("bad-address", 2)]);
}

#[test]
fn the_first_equals_sign_ends_the_name() {
    let (d, _) = parsed(b"[a]\n  PSKidentity  =  a=b = c  \nsni=\n");
    assert_eq!(text(&d.services[0].values, OptionId::PskIdentity), ["a=b = c"]);
    assert_eq!(text(&d.services[0].values, OptionId::ServerName), [""]);
}

#[test]
fn names_and_words_know_no_case() {
    let (d, r) = parsed(b"CLIENT = YES\npsksecrets = x\n[a]\ncurve = P-256\n");
    assert!(r.diagnostics.is_empty());
    assert_eq!(text(&d.defaults, OptionId::Mode), ["Mode(Client)"]);
    assert_eq!(text(&d.services[0].values, OptionId::Groups), ["P-256"]);
    assert_eq!(codes(b"client = true\n"), [("unknown-value", 1)]);
}

#[test]
fn a_sections_name_is_everything_between_the_brackets() {
    let (d, r) = parsed(b"[]\n[ a ]\n[b]]\n[b]]\n");
    assert!(r.diagnostics.is_empty());
    let names: Vec<_> = d.services.iter().map(|s| s.name.value.as_str()).collect();
    assert_eq!(names, ["", " a ", "b]", "b]"]);
}

#[test]
fn a_global_option_in_a_section_is_misplaced() {
    assert_eq!(codes(b"[a]\noutput = x\n"), [("misplaced-option", 2)]);
    assert_eq!(codes(b"[a]\ndebug = 7\n"), []);
}

#[test]
fn utf_16_is_a_line_without_an_equals_sign() {
    assert_eq!(codes(b"\xff\xfec\0l\0i\0e\0n\0t\0").len(), 1);
    assert_eq!(codes(b"\xff\xfec\0l\0")[0].0, "no-equals-sign");
}

#[test]
fn numbers_are_whole_and_have_no_unit() {
    assert_eq!(codes(b"[a]\nTIMEOUTclose = 5s\n"), [("bad-number", 2)]);
    assert_eq!(codes(b"[a]\nTIMEOUTclose =\n"), [("bad-number", 2)]);
    assert_eq!(codes(b"[a]\nTIMEOUTclose = 0\nTIMEOUTidle = -1\n"), []);
}

#[test]
fn bytes_that_are_not_utf_8_are_an_identity_and_a_path() {
    let (d, r) = parsed(b"[a]\nPSKidentity = \xe9t\xe9\nPSKsecrets = \xe9\n");
    assert!(r.diagnostics.is_empty());
    assert_eq!(
        d.services[0].values.last(OptionId::PskIdentity).map(|v| v.value.clone()),
        Some(Value::Bytes(b"\xe9t\xe9".to_vec()))
    );
    assert_eq!(d.services[0].values.all(OptionId::PskSecrets).len(), 1);
    assert_eq!(codes(b"[a]\nciphers = \xe9\n"), [("not-utf-8", 2)]);
}

#[test]
fn an_unknown_option_is_an_error_and_its_neighbour_is_offered() {
    let (_, r) = parsed(b"[a]\nPSKsecret = x\n");
    assert_eq!(r.diagnostics[0].code, "unknown-option");
    assert_eq!(r.diagnostics[0].help.as_deref(), Some("did you mean `PSKsecrets`?"));
    let place = r.diagnostics[0].place.clone().unwrap();
    assert_eq!((place.line, place.column, place.span), (2, 1, 4..13));
}

#[test]
fn included_directories_are_read_in_the_order_of_bytes_and_the_section_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("d");
    std::fs::create_dir(&conf).unwrap();
    for (name, body) in [
        ("a", "connect = 5\n"),
        ("10-x", "connect = 2\n"),
        (".hidden", "connect = 1\n"),
        ("9-x", "connect = 3\n"),
        ("Z", "connect = 4\n"),
        ("a.conf~", "connect = 6\n[next]\nconnect = 7\n"),
    ] {
        std::fs::write(conf.join(name), body).unwrap();
    }
    std::fs::create_dir(conf.join("sub")).unwrap();
    let mut report = Diagnostics::default();
    let text_ = b"[first]\ninclude = d\naccept = 8\n";
    let d = read(text_, Path::new("t.conf"), dir.path(), &mut report);
    assert!(report.diagnostics.is_empty(), "{}", report.render(false));
    assert_eq!(text(&d.services[0].values, OptionId::Connect), ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(text(&d.services[1].values, OptionId::Connect), ["7"]);
    assert_eq!(text(&d.services[1].values, OptionId::Accept), ["8"]);
}

#[test]
fn a_mistake_in_an_included_file_names_both_lines() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("d/x"), "\nbroken\n").unwrap();
    let mut report = Diagnostics::default();
    read(b"# hi\ninclude = d\n", Path::new("t.conf"), dir.path(), &mut report);
    assert_eq!(
        report.render_stunnel(),
        "[!] d/x:2: \"broken\": No '=' found\n\
         [!] t.conf:2: \"include = d\": Failed to include a file\n\
         [.] help: write NAME = VALUE, [SECTION], or # before a comment\n\
         [!] Configuration failed\n"
    );
}

#[test]
fn a_directory_that_includes_itself_is_an_error_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("d/x"), "include = d\n").unwrap();
    let mut report = Diagnostics::default();
    read(b"include = d\n", Path::new("t.conf"), dir.path(), &mut report);
    assert_eq!(report.diagnostics.len(), 1);
    assert_eq!(report.diagnostics[0].code, "include-failed");
    assert!(report.render_stunnel().len() < 20_000);
}

#[test]
fn a_key_that_strayed_into_the_file_is_not_shown() {
    let key = "c2VjcmV0c2VjcmV0c2VjcmV0";
    for body in [
        format!("client1:{key}\n"),
        format!("client1:{key}==\n"),
        format!("[a]\nPSKsecrets = client1:{key}\n"),
        format!("[a]\nPSKidentity = client1:{key}==\n"),
        format!("[a]\naccept = client1:{key}\n"),
    ] {
        let (_, r) = parsed(body.as_bytes());
        assert!(r.has_errors(), "{body}");
        let json = serde_json::to_string(&r).unwrap();
        if !body.contains("accept") {
            assert!(!r.render(false).contains(key), "{}", r.render(false));
            assert!(!r.render_stunnel().contains(key), "{}", r.render_stunnel());
        }
        assert!(!json.contains(key), "{json}");
    }
}
