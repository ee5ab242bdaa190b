use super::*;
use crate::observe::status::ServiceStatus;

fn status(bytes: u64, uptime: f64) -> Status {
    let session = |number: u64, identity: &str, wire: Option<&str>, bytes| SessionStatus {
        number,
        identity: identity.to_owned(),
        wire: wire.map(str::to_owned),
        peer: format!("192.168.100.{number}:54321"),
        target: "127.0.0.1:3000".into(),
        version: "TLSv1.3".into(),
        suite: "TLS_CHACHA20_POLY1305_SHA256".into(),
        group: Some("X25519".into()),
        bytes_up: bytes,
        ..SessionStatus::default()
    };
    let sessions =
        vec![session(7, "plc-01", Some("plc-01~2"), bytes), session(8, "plc-02", None, bytes / 4)];
    let service = ServiceStatus { name: "tls".into(), sessions, ..ServiceStatus::default() };
    Status { pid: 1, uptime, services: vec![service], ..Status::default() }
}

fn style(size: Option<(usize, usize)>) -> Style {
    Style { size, unicode: true, color: false }
}

#[test]
fn in_a_pipe_there_is_every_column_and_nothing_is_drawn() {
    let text =
        render_sessions(&status(1_000_000, 1.0), &SessionRates::default(), &style(None), false);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.is_ascii(), "{text}");
    for part in ["plc-01 [plc-01~2]", "TLS_CHACHA20", "X25519", "1.00 MB", "192.168.100.7:54321"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(!text.contains("[plc-02]"), "the same name is not said twice:\n{text}");
}

#[test]
fn on_a_terminal_columns_go_until_the_table_fits() {
    for width in [60, 80, 100, 132, 200] {
        let style = style(Some((width, 24)));
        let text = render_sessions(&status(1_000_000, 1.0), &SessionRates::default(), &style, true);
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width} columns:\n{text}");
        }
        assert!(text.contains("plc-01") && text.contains("1.00 MB"), "{text}");
    }
}

#[test]
fn rates_come_from_two_answers_of_one_program() {
    let (before, now) = (status(1_000_000, 10.0), status(3_000_000, 12.0));
    let rates = SessionRates::between(&before, &now);
    let of = |rates: &SessionRates, at: usize| {
        rates.bytes_per_second("tls", &now.services[0].sessions[at])
    };
    assert_eq!((of(&rates, 0), of(&rates, 1)), (1_000_000, 250_000));
    let text = render_sessions(&now, &rates, &style(Some((200, 24))), true);
    assert!(text.contains("████████") && text.contains("██ "), "{text}");
    let other = Status { pid: 2, ..before };
    assert_eq!(
        of(&SessionRates::between(&other, &now), 0),
        0,
        "another program's figures count nothing"
    );
}
