//! Looking at a running program over HTTP: what it tells, to whom, and that looking costs nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::process::pskgate;
use crate::harness::web::{Flood, Habit, get, request, request_unix, scrape};
use crate::harness::{
    Backend, IDENTITY, KEY, OTHER_KEY, OpensslClient, Page, PlainClient, Process, Pskgate,
    PskgateBuilder, Stopwatch, WAIT_TIMEOUT, client_toml, free_port, local, openssl, python,
    replace, root, secret, server_toml, until,
};

const PATHS: [&str; 6] = ["/", "/status.json", "/history.json", "/metrics", "/healthz", "/readyz"];

/// The table that opens a window there.
fn http(at: &str) -> String {
    format!("[http]\nlisten = \"{at}\"\n")
}

/// A server end that can be looked at.
struct GateWithHttp {
    gate: Pskgate,
    at: SocketAddr,
}

impl GateWithHttp {
    fn new(backend: &Backend) -> Self {
        Self::with(backend, "", &secret(IDENTITY, KEY))
    }

    /// `more` lines of `[http]`, and these keys.
    fn with(backend: &Backend, more: &str, keys: &str) -> Self {
        let at = local(free_port());
        let toml = http(&at.to_string()) + more + "\n" + &server_toml(backend.address(), "");
        Self { gate: PskgateBuilder::new().file("psk.txt", keys).toml(&toml).start(), at }
    }

    fn client(&self) -> Pskgate {
        PskgateBuilder::new().toml(&client_toml(self.gate.address("tls"), "")).start()
    }

    fn status(&self) -> Value {
        get(self.at, "/status.json").json()
    }

    /// Waits until the status tells of so many open sessions.
    fn wait_sessions(&self, wanted: usize) -> Value {
        until(&format!("{wanted} open sessions"), WAIT_TIMEOUT, || {
            let sessions = self.status()["services"][0]["sessions"].clone();
            (sessions.as_array()?.len() == wanted).then_some(sessions)
        })
    }

    fn samples(&self) -> BTreeMap<String, f64> {
        samples("text", &get(self.at, "/metrics"))
    }
}

/// What Prometheus' own parser makes of an exposition: each sample under its name and labels.
fn samples(form: &str, page: &Page) -> BTreeMap<String, f64> {
    assert_eq!(page.status, 200, "{}", page.body);
    let mut command = Command::new(python());
    command.arg(root().join("tests/peers/metrics.py")).arg(form);
    let mut process =
        Process::spawn("metrics.py", "the venv that scripts/test makes", &mut command);
    process.type_in(&page.body);
    process.end_input();
    assert!(process.wait(WAIT_TIMEOUT).success(), "{}\n{}", process.text(), page.body);
    let mut all = BTreeMap::new();
    for line in process.out().lines() {
        let sample: Value = serde_json::from_str(line).expect("a sample");
        let labels = sample["labels"].as_object().expect("labels");
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let name = sample["name"].as_str().expect("a name");
        all.insert(format!("{name}{{{}}}", labels.join(",")), sample["value"].as_f64().unwrap());
    }
    all
}

#[test]
fn every_path_answers_over_tcp_and_over_a_unix_socket() {
    let backend = Backend::echo();
    let at = local(free_port());
    let gate = PskgateBuilder::new();
    let door = gate.folder().join("window");
    let toml = format!("[http]\nlisten = [\"{at}\", \"{}\"]\n", door.display());
    let gate = gate.toml(&(toml + &server_toml(backend.address(), ""))).start();
    for path in PATHS {
        // Nobody's DNS leads to a Unix socket.
        let text = format!("GET {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
        for page in [get(at, path), request_unix(&door, &text)] {
            assert_eq!(page.status, 200, "{path}: {}", page.body);
            for (header, value) in [
                ("cache-control", "no-store"),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
            ] {
                assert_eq!(page.headers.get(header).map(String::as_str), Some(value), "{path}");
            }
            let policy = &page.headers["content-security-policy"];
            assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
            assert!(
                policy.contains("connect-src 'self'") && !policy.contains("unsafe"),
                "{policy}"
            );
            assert!(!page.headers.keys().any(|name| name.starts_with("access-control")), "{path}");
        }
    }
    let status = get(at, "/status.json");
    assert_eq!(status.headers["content-type"], "application/json");
    let status = status.json();
    assert_eq!(status["phase"], "running");
    assert_eq!(status["services"][0]["name"], "tls");
    let listener = gate.address("tls").to_string();
    assert_eq!(status["services"][0]["listeners"][0], listener);
    assert_eq!(get(at, "/healthz").body, "ok\n");
    assert_eq!(get(at, "/").headers["content-type"], "text/html; charset=utf-8");
    let missing = get(at, "/nothing");
    assert_eq!(missing.status, 404);
    assert!(missing.body.contains("/metrics"), "{}", missing.body);
}

#[test]
fn a_name_that_others_can_give_this_machine_is_refused() {
    let backend = Backend::echo();
    let seen = GateWithHttp::new(&backend);
    let ask = |head: &str| request(seen.at, &format!("{head}Connection: close\r\n\r\n"));
    for host in ["localhost", "127.0.0.1:1", "[::1]"] {
        let page = ask(&format!("GET /status.json HTTP/1.1\r\nHost: {host}\r\n"));
        assert_eq!(page.status, 200, "{host}: {}", page.body);
    }
    for head in [
        "GET /status.json HTTP/1.1\r\nHost: rebound.example\r\n",
        "GET /status.json HTTP/1.1\r\nHost: localhost.rebound.example:80\r\n",
        "GET /status.json HTTP/1.1\r\nHost: localhost\r\nHost: rebound.example\r\n",
        "GET http://rebound.example/status.json HTTP/1.1\r\nHost: localhost\r\n",
        "GET /status.json HTTP/1.1\r\n",
        "GET /status.json HTTP/1.0\r\n",
    ] {
        let page = ask(head);
        assert_eq!(page.status, 421, "{head}: {}", page.body);
        assert!(!page.body.contains("services"), "{head}: {}", page.body);
    }
}

#[test]
fn there_is_only_something_to_look_at() {
    let backend = Backend::echo();
    let seen = GateWithHttp::new(&backend);
    let body = "x".repeat(100_000);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let text = format!(
            "{method} /status.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        let page = request(seen.at, &text);
        assert_eq!(page.status, 405, "{method}");
        assert_eq!(page.headers["allow"], "GET, HEAD", "{method}");
    }
    let head = "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let page = request(seen.at, head);
    assert_eq!((page.status, page.body.as_str()), (200, ""));
    assert!(page.headers["content-length"].parse::<u32>().unwrap() > 1000);
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64_000));
    assert_eq!(request(seen.at, &long).status, 431);
}

#[test]
fn a_crowd_at_the_window_keeps_neither_who_looks_nor_a_member_waiting() {
    let backend = Backend::echo();
    let seen = GateWithHttp::new(&backend);
    let client = seen.client();
    let quiet = seen.gate.settled_descriptors();
    let stranger = |n: usize| {
        let mut stream = TcpStream::connect(seen.at).expect("a connection");
        if n.is_multiple_of(2) {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: local").expect("half a request");
        }
        stream
    };
    let mut crowd: Vec<_> = (0..100).map(stranger).collect();
    let (all, watch) = (Stopwatch::start(), Stopwatch::start());
    assert_eq!(get(seen.at, "/healthz").status, 200);
    watch.expect_within(Duration::from_secs(2));
    let watch = Stopwatch::start();
    PlainClient::connect(client.address("plain")).echo(b"a member");
    watch.expect_within(Duration::from_secs(1));
    // Sixteen at the most, and the member's session, which may not be over yet.
    assert!(seen.gate.descriptors() <= quiet + 16 + 2, "{} of {quiet}", seen.gate.descriptors());
    // Those who ask nothing are out after 5 s, to the last.
    for stream in &mut crowd {
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)), "a silent one was answered");
    }
    all.expect_within(Duration::from_secs(12));
}

/// So many connections a second from this machine kept most scrapes out.
#[test]
fn a_local_flood_keeps_no_scrape_out() {
    const RATE: u32 = 290;
    const SCRAPES: usize = 64;
    let backend = Backend::echo();
    let seen = GateWithHttp::new(&backend);
    for habit in Habit::ALL {
        let flood = Flood::start(seen.at, RATE, habit);
        until("the flood to have come", WAIT_TIMEOUT, || (flood.made() > 100).then_some(()));
        let results: Vec<_> =
            (0..SCRAPES).map(|_| scrape(seen.at, Duration::from_secs(5))).collect();
        let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(failed.len(), 0, "{habit:?}: {failed:?}");
        // It went on to the end.
        let before = flood.made();
        until("more of the flood", WAIT_TIMEOUT, || (flood.made() > before).then_some(()));
    }
}

#[test]
fn whoever_asks_without_pause_leaves_the_tunnel_its_processor() {
    let backend = Backend::echo();
    let seen = GateWithHttp::new(&backend);
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("asked");
        stream.read(&mut [0; 64 * 1024]).expect("answered")
    };
    let mut streams: Vec<_> =
        (0..8).map(|_| TcpStream::connect(seen.at).expect("a connection")).collect();
    let (start, mut answers) = (Instant::now(), 0_u32);
    while start.elapsed() < Duration::from_secs(1) {
        for stream in &mut streams {
            assert!(ask(stream) > 0);
            answers += 1;
        }
    }
    // The second may have been a long one.
    let most = 120.0 * start.elapsed().as_secs_f64();
    assert!(f64::from(answers) <= most, "{answers} answers in {:?}", start.elapsed());
}

#[test]
fn whoever_reads_nothing_or_asks_nothing_more_is_cut_in_time() {
    let backend = Backend::echo();
    let seen = GateWithHttp::new(&backend);
    let quiet = seen.gate.settled_descriptors();
    let pages = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(400);
    let watch = Stopwatch::start();
    let mut idle = TcpStream::connect(seen.at).expect("a connection");
    idle.write_all(&pages[..pages.len() / 400]).expect("asked once");
    let slow = TcpStream::connect(seen.at).expect("a connection");
    slow.set_nonblocking(true).unwrap();
    // Ten megabytes of answers: more than the sockets between hold.
    let _ = (&slow).write(&pages).expect("asked");
    until("both to be there", WAIT_TIMEOUT, || {
        (seen.gate.descriptors() == quiet + 2).then_some(())
    });
    until("both to be cut", 2 * WAIT_TIMEOUT, || (seen.gate.descriptors() <= quiet).then_some(()));
    assert!(watch.lasted() > Duration::from_secs(20), "cut after {:?}", watch.lasted());
    watch.expect_within(Duration::from_secs(45));
}

#[test]
fn a_program_that_drains_is_healthy_and_not_ready() {
    let backend = Backend::echo();
    let mut seen = GateWithHttp::new(&backend);
    let client = seen.client();
    let session = PlainClient::connect(client.address("plain"));
    session.echo(b"before");
    let ready = get(seen.at, "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    seen.gate.signal(Signal::TERM);
    let page = until("the drain to show", WAIT_TIMEOUT, || {
        let page = get(seen.at, "/readyz");
        (page.status != 200).then_some(page)
    });
    assert_eq!(page.status, 503);
    assert!(page.body.starts_with("draining: "), "{}", page.body);
    assert_eq!(get(seen.at, "/healthz").status, 200);
    let status = seen.status();
    assert_eq!(status["phase"], "draining");
    let named = status["services"][0]["sessions"][0]["identity"].to_string();
    assert!(named.contains(IDENTITY), "{named}");
    session.echo(b"still carried");
    drop(session);
    assert_eq!(seen.gate.exit_code(WAIT_TIMEOUT), Some(0));
    assert!(TcpStream::connect(seen.at).is_err(), "the window is closed");
}

#[test]
fn metrics_are_what_prometheus_reads_and_move_with_what_happens() {
    let backend = Backend::echo();
    let seen = GateWithHttp::new(&backend);
    let client = seen.client();
    let text = get(seen.at, "/metrics");
    assert_eq!(text.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let before = samples("text", &text);
    let open = request(
        seen.at,
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3\r\n\r\n",
    );
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.headers["content-type"], kind);
    let strict = samples("openmetrics", &open);
    assert_eq!(before.keys().collect::<Vec<_>>(), strict.keys().collect::<Vec<_>>());
    for name in [
        "pskgate_start_time_seconds{}",
        "pskgate_uptime_seconds{}",
        "pskgate_sessions{service=\"tls\"}",
        "pskgate_sessions_limit{service=\"tls\"}",
        "pskgate_sessions_opened_total{service=\"tls\"}",
        "pskgate_bytes_total{direction=\"up\",service=\"tls\"}",
        "pskgate_bytes_total{direction=\"down\",service=\"tls\"}",
        "pskgate_records_total{direction=\"up\",service=\"tls\"}",
        "pskgate_records_total{direction=\"down\",service=\"tls\"}",
        "pskgate_key_updates_total{direction=\"up\",service=\"tls\"}",
        "pskgate_key_updates_total{direction=\"down\",service=\"tls\"}",
        "pskgate_handshakes_in_progress{service=\"tls\"}",
        "pskgate_keys{service=\"tls\"}",
        "pskgate_reloads_total{outcome=\"done\"}",
        "pskgate_reloads_total{outcome=\"failed\"}",
        "pskgate_last_reload_success{}",
        "pskgate_log_lines_lost_total{}",
        "process_resident_memory_bytes{}",
        "process_virtual_memory_bytes{}",
        "process_cpu_seconds_total{}",
        "process_open_fds{}",
        "process_max_fds{}",
        "process_start_time_seconds{}",
    ] {
        assert!(before.contains_key(name), "no {name} in\n{}", text.body);
    }
    let built = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(before.keys().any(|n| n.starts_with("pskgate_build_info{") && n.contains(&built)));
    assert_eq!(before["pskgate_last_reload_success{}"], 1.0);

    let session = PlainClient::connect(client.address("plain"));
    session.echo(b"hello");
    seen.wait_sessions(1);
    let after = seen.samples();
    assert_eq!(after["pskgate_sessions{service=\"tls\"}"], 1.0);
    assert!(after["process_open_fds{}"] > before["process_open_fds{}"]);
    let of_member = format!("identity=\"{IDENTITY}\",service=\"tls\"");
    for (name, least) in [
        ("pskgate_sessions_opened_total{service=\"tls\"}".to_owned(), 1.0),
        ("pskgate_bytes_total{direction=\"up\",service=\"tls\"}".to_owned(), 5.0),
        ("pskgate_bytes_total{direction=\"down\",service=\"tls\"}".to_owned(), 5.0),
        ("pskgate_records_total{direction=\"up\",service=\"tls\"}".to_owned(), 1.0),
        ("pskgate_records_total{direction=\"down\",service=\"tls\"}".to_owned(), 1.0),
        ("pskgate_keys{service=\"tls\"}".to_owned(), 1.0),
        ("pskgate_sessions_limit{service=\"tls\"}".to_owned(), 100.0),
        (format!("pskgate_identity_sessions{{{of_member}}}"), 1.0),
        (format!("pskgate_identity_uses_total{{{of_member}}}"), 1.0),
        (format!("pskgate_identity_last_use_timestamp_seconds{{{of_member}}}"), 1.7e9),
    ] {
        let seen = after.get(&name).copied();
        assert!(seen.is_some_and(|seen| seen >= least), "{name}: {seen:?} in {after:?}");
    }

    fs::write(seen.gate.folder().join("psk.txt"), "no colon\n").expect("written");
    seen.gate.wait_logged("not reloaded");
    until("the failed reload to show", WAIT_TIMEOUT, || {
        let now = seen.samples();
        let failed = now["pskgate_reloads_total{outcome=\"failed\"}"] >= 1.0;
        (failed && now["pskgate_last_reload_success{}"] == 0.0).then_some(())
    });
    drop(session);
    seen.wait_sessions(0);
    let sum = |samples: &BTreeMap<String, f64>, name: &str| -> f64 {
        samples.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, value)| value).sum()
    };
    until("the end to be counted", WAIT_TIMEOUT, || {
        (sum(&seen.samples(), "pskgate_sessions_ended_total{") >= 1.0).then_some(())
    });
    let arguments = openssl::psk_of("nobody", OTHER_KEY);
    assert!(OpensslClient::start(seen.gate.address("tls"), &arguments).alert().is_some());
    until("the refusal to be counted", WAIT_TIMEOUT, || {
        (sum(&seen.samples(), "pskgate_connections_refused_total{") >= 1.0).then_some(())
    });
}

#[test]
fn an_identity_that_does_not_exist_is_told_nowhere() {
    let backend = Backend::echo();
    let seen = GateWithHttp::new(&backend);
    for (identity, key) in [("stranger-one", OTHER_KEY), ("stranger-two", KEY)] {
        for version in ["-tls1_2", "-tls1_3"] {
            let mut arguments = vec![version.to_owned()];
            arguments.extend(openssl::psk_of(identity, key));
            assert!(
                OpensslClient::start(seen.gate.address("tls"), &arguments).alert().is_some(),
                "{identity} was let in"
            );
        }
    }
    seen.gate.wait_logged("unknown identity");
    let client = seen.client();
    let session = PlainClient::connect(client.address("plain"));
    session.echo(b"a member");
    seen.wait_sessions(1);
    let recent = until("the refusals to be remembered", WAIT_TIMEOUT, || {
        let recent = seen.status()["services"][0]["recent-refusals"].clone();
        (recent[0]["count"] == 4).then_some(recent)
    });
    assert_eq!(recent[0]["cause"], "unknown-identity");
    assert!(recent[0]["identity"].is_null(), "{recent}");
    for path in PATHS {
        assert!(!get(seen.at, path).body.contains("stranger"), "{path}");
    }
    until("four refusals to be counted", WAIT_TIMEOUT, || {
        let refused: f64 = seen
            .samples()
            .iter()
            .filter(|(name, _)| name.starts_with("pskgate_connections_refused_total{"))
            .map(|(_, value)| value)
            .sum();
        (refused >= 4.0).then_some(())
    });
}

#[test]
fn a_refusal_is_told_with_its_peer_its_cause_and_whose_key_it_was() {
    let backend = Backend::echo();
    let seen = GateWithHttp::new(&backend);
    let wrong = openssl::psk_of(IDENTITY, OTHER_KEY);
    for _ in 0..2 {
        assert!(OpensslClient::start(seen.gate.address("tls"), &wrong).alert().is_some());
    }
    let refusal = until("both refusals to be told", WAIT_TIMEOUT, || {
        let refusal = seen.status()["services"][0]["recent-refusals"][0].clone();
        (refusal["count"] == 2).then_some(refusal)
    });
    assert_eq!(refusal["cause"], "wrong-key", "{refusal}");
    assert_eq!(refusal["identity"], IDENTITY, "{refusal}");
    assert!(refusal["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")));
    assert!(refusal["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{refusal}");
    let told = pskgate(seen.gate.folder(), &["status", "pskgate.toml"]).out;
    let line = format!(" as {IDENTITY}: wrong-key, 2 times");
    assert!(told.lines().any(|one| one.ends_with(&line)), "{told}");
}

#[test]
fn identities_have_as_many_labels_as_were_allowed() {
    let backend = Backend::echo();
    let names = ["one", "two", "three", "four"];
    // Bases 64 of their own: equal keys are refused.
    let key = |n: usize| KEY.replacen("dGhp", &format!("dGh{n}"), 1);
    let keys: String = names.iter().enumerate().map(|(n, name)| secret(name, &key(n))).collect();
    let seen = GateWithHttp::with(&backend, "max-identity-labels = 2", &keys);
    let samples = seen.samples();
    let labels = |name: &str| samples.keys().filter(|key| key.contains(name)).count();
    assert!(labels("identity=\"three\"") + labels("identity=\"four\"") == 0, "{samples:?}");
    for name in ["one", "two", ""] {
        assert!(labels(&format!("identity=\"{name}\"")) > 0, "{name:?} in {samples:?}");
    }
    assert_eq!(samples["pskgate_keys{service=\"tls\"}"], 4.0);
}

#[test]
fn how_many_identities_have_labels_changes_with_a_reload() {
    let backend = Backend::echo();
    let keys: String = ["one", "two", "three"].iter().map(|who| secret(who, KEY)).collect();
    let seen = GateWithHttp::with(&backend, "max-identity-labels = 1", &keys);
    let named = || {
        let page = get(seen.at, "/metrics").body;
        ["one", "two", "three"].iter().filter(|who| page.contains(&format!("\"{who}\""))).count()
    };
    assert_eq!(named(), 1);
    let file = seen.gate.folder().join("pskgate.toml");
    let text = fs::read_to_string(&file).unwrap().replace("labels = 1", "labels = 3");
    replace(&file, &text);
    until("three labels", WAIT_TIMEOUT, || (named() == 3).then_some(()));
}

#[test]
fn names_that_look_like_markup_or_labels_arrive_as_they_are() {
    let backend = Backend::echo();
    let name = r#"<b>"o"} 1 \ é</b>"#;
    let seen = GateWithHttp::with(&backend, "", &secret(name, KEY));
    let toml = client_toml(seen.gate.address("tls"), "");
    let toml = toml.replace(&format!("\"{IDENTITY}\""), &format!("'{name}'"));
    let client = PskgateBuilder::new().file("psk.txt", &secret(name, KEY)).toml(&toml).start();
    PlainClient::connect(client.address("plain")).echo(b"a member");
    let session = PlainClient::connect(client.address("plain"));
    session.echo(b"again");
    let sessions = seen.wait_sessions(1);
    let shown = sessions[0]["identity"].as_str().expect("an identity");
    assert_eq!(shown, name);
    let samples = seen.samples();
    let label = format!("identity={}", Value::from(name));
    assert!(samples.keys().any(|key| key.contains(&label)), "{samples:?}");
}

#[test]
fn a_window_comes_moves_and_goes_with_a_reload_and_no_session_notices() {
    let backend = Backend::echo();
    let service = server_toml(backend.address(), "");
    let gate = PskgateBuilder::new().toml(&service).start();
    let client = PskgateBuilder::new().toml(&client_toml(gate.address("tls"), "")).start();
    let session = PlainClient::connect(client.address("plain"));
    session.echo(b"before");
    let file = gate.folder().join("pskgate.toml");
    let mut reloads = 0;
    let mut reload = |text: String| {
        reloads += 1;
        replace(&file, &text);
        until(&format!("reload {reloads}"), WAIT_TIMEOUT, || {
            (gate.log().matches(": reloaded;").count() >= reloads).then_some(())
        });
    };
    let [first, second] = [local(free_port()), local(free_port())];
    reload(http(&first.to_string()) + &service);
    assert_eq!(get(first, "/healthz").status, 200);
    session.echo(b"added");

    let mut held = TcpStream::connect(first).expect("a connection");
    held.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    held.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("asked");
    assert!(held.read(&mut [0; 4096]).expect("answered") > 0);
    reload(http(&second.to_string()) + &service);
    assert_eq!(get(second, "/healthz").status, 200);
    until("the old address to be closed", WAIT_TIMEOUT, || TcpStream::connect(first).err());
    assert!(!matches!(held.read(&mut [0; 4096]), Ok(1..)), "who was there is sent away");
    session.echo(b"moved");
    let status = get(second, "/status.json").json();
    assert_eq!(status["services"][0]["sessions"].as_array().map(Vec::len), Some(1), "{status}");

    reload(service);
    until("the window to be closed", WAIT_TIMEOUT, || TcpStream::connect(second).err());
    session.echo(b"removed");
}
