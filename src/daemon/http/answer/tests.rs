//! Who is answered, and what.

use super::*;

#[test]
fn only_names_that_nobody_else_can_give_this_machine_are_local() {
    for host in [
        "localhost",
        "LocalHost:9464",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.1.2.3:1",
        "[::1]",
        "[::1]:9464",
    ] {
        assert!(is_local(host), "{host}");
    }
    for host in [
        "",
        ":80",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "127.0.0.1:80:90",
        "127.0.0.1:",
        "127.0.0.1:port",
        "localhost@example.com",
        "0.0.0.0",
        "192.168.1.1:80",
        "[::]",
        "[::1",
        "[::1]x",
        "::1",
        "[127.0.0.1]",
    ] {
        assert!(!is_local(host), "{host}");
    }
}

fn request(uri: &str, hosts: &[&str]) -> Request<()> {
    let mut request = Request::builder().uri(uri);
    for host in hosts {
        request = request.header(header::HOST, *host);
    }
    request.body(()).expect("a request")
}

#[test]
fn one_host_counts_and_an_absolute_address_must_be_ours_too() {
    assert!(is_for_us(&request("/", &["localhost"])));
    assert!(is_for_us(&request("http://127.0.0.1:1/", &["127.0.0.1:1"])));
    assert!(!is_for_us(&request("/", &[])));
    assert!(!is_for_us(&request("/", &["localhost", "localhost"])));
    assert!(!is_for_us(&request("http://example.com/", &["localhost"])));
    assert!(!is_for_us(&request("http://localhost/", &["example.com"])));
}

#[test]
fn a_program_is_ready_while_it_runs_and_listens() {
    assert_eq!(
        readiness(Pulse { phase: LifecyclePhase::Running, listens: true }).0,
        StatusCode::OK
    );
    for (phase, listens) in [
        (LifecyclePhase::Running, false),
        (LifecyclePhase::Draining, true),
        (LifecyclePhase::Stopping, true),
    ] {
        let (code, _, words) = readiness(Pulse { phase, listens });
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{phase:?}");
        assert!(words.len() > 5, "{phase:?}");
    }
}
