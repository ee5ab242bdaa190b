//! The mapping from a status to samples.

use super::*;
use crate::observe::status::{IdentityStatus, ReloadStatus, ReloadSummary, SessionStatus};

fn identity(name: &str, wire: &str) -> IdentityStatus {
    IdentityStatus { identity: name.into(), wire: wire.into(), ..IdentityStatus::default() }
}

fn service(name: &str, identities: Vec<IdentityStatus>) -> ServiceStatus {
    ServiceStatus {
        name: name.into(),
        keys: identities.len(),
        identities,
        ..ServiceStatus::default()
    }
}

fn lines(services: Vec<ServiceStatus>, labels: usize) -> String {
    let status = Status { services, started: "2026-01-02T03:04:05Z".into(), ..Status::default() };
    render(&status, &ProcessUsage::default(), labels, ExpositionFormat::Text).expect("text")
}

fn assert_has(text: &str, line: &str) {
    assert!(text.lines().any(|one| one == line), "no line `{line}` in\n{text}");
}

#[test]
fn every_figure_of_a_service_becomes_a_sample() {
    let mut one = service("tls", Vec::new());
    one.sessions = vec![SessionStatus::default(); 3];
    one.max_sessions = 10;
    one.opened = 7;
    one.handshakes = 2;
    one.bytes_up = (1 << 60) + 1;
    one.bytes_down = 5;
    (one.records_up, one.records_down) = (70, 80);
    (one.key_updates_up, one.key_updates_down) = (3, 4);
    one.refused = [("wrong-key".to_owned(), 4)].into();
    one.ended = [("complete".to_owned(), 6)].into();
    let text = lines(vec![one], 10);
    for line in [
        "pskgate_sessions{service=\"tls\"} 3",
        "pskgate_sessions_limit{service=\"tls\"} 10",
        "pskgate_sessions_opened_total{service=\"tls\"} 7",
        "pskgate_sessions_ended_total{service=\"tls\",end=\"complete\"} 6",
        "pskgate_connections_refused_total{service=\"tls\",cause=\"wrong-key\"} 4",
        "pskgate_sessions_ended_total{service=\"tls\",end=\"revoked\"} 0",
        "pskgate_connections_refused_total{service=\"tls\",cause=\"full\"} 0",
        "pskgate_bytes_total{service=\"tls\",direction=\"up\"} 1152921504606846977",
        "pskgate_bytes_total{service=\"tls\",direction=\"down\"} 5",
        "pskgate_records_total{service=\"tls\",direction=\"up\"} 70",
        "pskgate_records_total{service=\"tls\",direction=\"down\"} 80",
        "pskgate_key_updates_total{service=\"tls\",direction=\"up\"} 3",
        "pskgate_key_updates_total{service=\"tls\",direction=\"down\"} 4",
        "pskgate_handshakes_in_progress{service=\"tls\"} 2",
        "pskgate_keys{service=\"tls\"} 0",
        "pskgate_start_time_seconds 1767323045",
        "pskgate_last_reload_success 1",
        "# TYPE pskgate_bytes_total counter",
    ] {
        assert_has(&text, line);
    }
}

#[test]
fn identities_beyond_the_cap_are_one_series_without_a_name() {
    let mut all: Vec<_> = ["c", "a", "b", "d"].map(|name| identity(name, name)).into();
    for (n, one) in all.iter_mut().enumerate() {
        one.uses = 1 << n;
        one.last_use = Some("2026-01-02T03:04:05Z".into());
    }
    let text = lines(vec![service("tls", all.clone())], 2);
    assert_has(&text, "pskgate_identity_uses_total{service=\"tls\",identity=\"c\"} 1");
    assert_has(&text, "pskgate_identity_uses_total{service=\"tls\",identity=\"a\"} 2");
    assert_has(&text, "pskgate_identity_uses_total{service=\"tls\",identity=\"\"} 12");
    assert_eq!(text.matches("pskgate_identity_last_use_timestamp_seconds{").count(), 2, "{text}");
    let none = lines(vec![service("tls", all)], 0);
    assert_has(&none, "pskgate_identity_uses_total{service=\"tls\",identity=\"\"} 15");
    assert!(!none.contains("identity=\"a\""), "{none}");
}

#[test]
fn an_identity_with_two_keys_is_one_series_and_expires_with_the_later() {
    let (mut old, mut new) = (identity("anna", "anna-2025"), identity("anna", "anna-2026"));
    (old.uses, new.uses) = (3, 4);
    old.expires = Some("2026-01-01T00:00:00Z".into());
    old.last_use = Some("2025-12-01T00:00:00Z".into());
    new.last_use = Some("2026-02-01T00:00:00Z".into());
    let both = |old: &IdentityStatus, new: &IdentityStatus| {
        lines(vec![service("tls", vec![new.clone(), old.clone(), identity("bob", "bob")])], 1)
    };
    let text = both(&old, &new);
    assert_has(&text, "pskgate_identity_uses_total{service=\"tls\",identity=\"anna\"} 7");
    let last = "pskgate_identity_last_use_timestamp_seconds{service=\"tls\",identity=\"anna\"}";
    assert_has(&text, &format!("{last} 1769904000"));
    assert!(!text.contains("pskgate_key_expiry"), "one of the keys has no end:\n{text}");
    new.expires = Some("2027-01-01T00:00:00Z".into());
    let end = "pskgate_key_expiry_timestamp_seconds{service=\"tls\",identity=\"anna\"} 1798761600";
    assert_has(&both(&old, &new), end);
}

#[test]
fn services_of_one_name_are_one_series() {
    let mut one = service("a", Vec::new());
    one.opened = 2;
    let text = lines(vec![one.clone(), one], 10);
    let all: Vec<_> = text.lines().filter(|l| l.starts_with("pskgate_sessions_opened")).collect();
    assert_eq!(all, ["pskgate_sessions_opened_total{service=\"a\"} 4"]);
}

#[test]
fn quotes_and_backslashes_in_names_cannot_make_a_label() {
    let name = r#"o"} 1 \ é"#;
    let text = lines(vec![service("tls", vec![identity(name, name)])], 10);
    let label = r#"identity="o\"} 1 \\ é""#;
    assert_has(&text, &format!("pskgate_identity_sessions{{service=\"tls\",{label}}} 0"));
}

#[test]
fn a_reload_that_failed_can_be_alerted_on() {
    let last = ReloadStatus { time: "2026-01-02T03:04:05Z".into(), ..ReloadStatus::default() };
    let differs_since = Some("2026-01-02T03:04:05Z".into());
    let reloads = ReloadSummary { done: 1, failed: 2, last: Some(last), differs_since };
    let status = Status { reloads, ..Status::default() };
    let text = render(&status, &ProcessUsage::default(), 1, ExpositionFormat::Text).expect("text");
    assert_has(&text, "pskgate_last_reload_success 0");
    assert_has(&text, "pskgate_last_reload_timestamp_seconds 1767323045");
    assert_has(&text, "pskgate_reloads_total{outcome=\"done\"} 1");
    assert_has(&text, "pskgate_reloads_total{outcome=\"failed\"} 2");
    assert_has(&text, "pskgate_unapplied_change_timestamp_seconds 1767323045");
}

#[test]
fn without_a_change_that_waits_its_time_is_zero() {
    let text = render(&Status::default(), &ProcessUsage::default(), 1, ExpositionFormat::Text)
        .expect("text");
    assert_has(&text, "pskgate_unapplied_change_timestamp_seconds 0");
}

#[test]
fn open_metrics_is_for_who_asks_for_it() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4";
    assert_eq!(ExpositionFormat::from_accept_header(prometheus), ExpositionFormat::OpenMetrics);
    for other in ["", "*/*", "text/html,application/xml;q=0.9", "application/openmetrics-texts"] {
        assert_eq!(ExpositionFormat::from_accept_header(other), ExpositionFormat::Text, "{other}");
    }
    let usage = ProcessUsage { cpu_seconds: Some(1.5), ..ProcessUsage::default() };
    let text = render(&Status::default(), &usage, 1, ExpositionFormat::OpenMetrics).expect("text");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    assert_has(&text, "# TYPE process_cpu_seconds counter");
    assert_has(&text, "process_cpu_seconds_total 1.5");
}
