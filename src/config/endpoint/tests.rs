use super::*;

fn native(text: &str) -> Result<String, AddressError> {
    parse_native(text, AddressRole::Listen).map(|e| format!("{e}"))
}

fn stunnel(text: &str) -> Result<String, AddressError> {
    parse_stunnel(text, AddressRole::Listen).map(|e| format!("{e}"))
}

#[test]
fn native_addresses_are_understood_in_one_way_only() {
    for (text, shown) in [
        ("3001", "3001"),
        ("0", "0"),
        ("127.0.0.1:3001", "127.0.0.1:3001"),
        ("plc.example:3001", "plc.example:3001"),
        ("[::1]:3001", "[::1]:3001"),
        ("[fe80::1%eth0]:1", "[fe80::1%eth0]:1"),
        ("*:3001", "3001"),
        ("unix:/run/a", "/run/a"),
        ("unix:a.sock", "a.sock"),
        ("/run/a:b", "/run/a:b"),
    ] {
        assert_eq!(native(text).as_deref(), Ok(shown), "{text}");
    }
    for (text, error) in [
        ("", AddressError::Empty),
        (":80", AddressError::NoHost),
        ("a:", AddressError::NoPort),
        ("plc.example", AddressError::OnlyHost("plc.example".into())),
        ("70000", AddressError::PortTooLarge("70000".into())),
        ("a:65536", AddressError::PortTooLarge("65536".into())),
        ("::1:80", AddressError::Ambiguous { suggestion: Some("[::1]:80".into()) }),
        ("fe80::1", AddressError::Ambiguous { suggestion: Some("[fe80::1]:PORT".into()) }),
        ("1:2:3", AddressError::Ambiguous { suggestion: None }),
        ("[PLC]:3001", AddressError::Brackets("PLC".into())),
        ("[fe80::1%]:1", AddressError::Brackets("fe80::1%".into())),
        ("[fe80::1%a b]:1", AddressError::Brackets("fe80::1%a b".into())),
        ("[fe80::1%../x]:1", AddressError::Brackets("fe80::1%../x".into())),
        ("[::1]", AddressError::OnlyHost("[::1]".into())),
        ("127.0.0.256:1", AddressError::BadHost("127.0.0.256".into())),
        ("a b:1", AddressError::BadHost("a b".into())),
        ("unix:", AddressError::BadPath),
        ("127.0.0.1:0 ; x", AddressError::UnknownService("0 ; x".into())),
    ] {
        assert_eq!(native(text), Err(error), "{text}");
    }
    assert_eq!(parse_native("0", AddressRole::Connect), Err(AddressError::PortZero));
}

#[test]
fn stunnel_addresses_split_at_the_last_colon() {
    for (text, shown) in [
        ("3002", "3002"),
        ("*:80", "80"),
        ("::1:80", "[::1]:80"),
        (":::8000", "[::]:8000"),
        ("2a06:c484:5::102:16000", "[2a06:c484:5::102]:16000"),
        ("[::1]:80", "[::1]:80"),
        ("[PLC]:3001", "[PLC]:3001"),
        ("localhost:80", "localhost:80"),
        ("/run/a", "/run/a"),
    ] {
        assert_eq!(stunnel(text).as_deref(), Ok(shown), "{text}");
    }
    assert_eq!(stunnel(":80"), Err(AddressError::NoHost));
    assert_eq!(stunnel("70000"), Err(AddressError::PortTooLarge("70000".into())));
    assert_eq!(stunnel("127.0.0.1:0 ; x"), Err(AddressError::UnknownService("0 ; x".into())));
}

#[test]
fn services_are_known_by_name_and_alias_for_tcp_only() {
    let table = "# x\nhttp  80/tcp  www # WorldWideWeb\ndomain 53/udp\nbad\nworse x/tcp\n";
    assert_eq!(service_in(table, "http"), Some(80));
    assert_eq!(service_in(table, "www"), Some(80));
    assert_eq!(service_in(table, "domain"), None);
    assert_eq!(service_in(table, "WorldWideWeb"), None);
}

#[test]
fn what_is_shown_can_be_read_again() {
    for text in
        ["3001", "127.0.0.1:3001", "[::1]:3001", "[fe80::1%eth0]:3001", "plc.example:1", "/run/a"]
    {
        let once = parse_native(text, AddressRole::Listen).unwrap();
        assert_eq!(parse_native(&once.to_string(), AddressRole::Listen).unwrap(), once);
    }
}
