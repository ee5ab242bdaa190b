//! What of `dist` can be tried without installing it: the init script of BusyBox, the AppArmor profile, and
//! what is asked of our metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::process::{Finished, pskgate};
use crate::harness::stage::{DaemonProcess, client_of, echo_through, finish};
use crate::harness::web::get;
use crate::harness::{
    Backend, IDENTITY, KEY, PskgateBuilder, WAIT_TIMEOUT, free_port, local, root, secret,
    server_toml, until, write_private,
};

/// A board with BusyBox: the script, and a folder that has all that it speaks of.
struct Board {
    folder: TempDir,
}

impl Board {
    fn new(configuration: &str) -> Self {
        let folder =
            TempDir::new_in("/dev/shm").expect("a folder in memory, as a board's /var/run is");
        let tools = folder.path().join("bin");
        std::fs::create_dir(&tools).unwrap();
        for tool in ["start-stop-daemon", "sleep", "rm", "printf"] {
            std::os::unix::fs::symlink("/usr/bin/busybox", tools.join(tool)).unwrap();
        }
        let at = |name: &str| folder.path().join(name).display().to_string();
        let defaults = format!(
            "DAEMON={}\nCONF={}\nPIDFILE={}\n",
            env!("CARGO_BIN_EXE_pskgate"),
            at("plc.toml"),
            at("pid")
        );
        std::fs::write(folder.path().join("default"), defaults).unwrap();
        write_private(&folder.path().join("psk.txt"), &secret(IDENTITY, KEY));
        std::fs::write(folder.path().join("plc.toml"), configuration).unwrap();
        Self { folder }
    }

    fn script(&self, what: &str) -> Finished {
        let mut command = Command::new("/usr/bin/busybox");
        command
            .arg("sh")
            .arg(root().join("dist/busybox/S50pskgate"))
            .arg(what)
            .env("DEFAULTS", self.folder.path().join("default"))
            .env("RUNTIME_DIRECTORY", self.folder.path())
            .env("PATH", self.folder.path().join("bin"));
        finish(&mut command)
    }

    fn daemon(&self) -> Option<DaemonProcess> {
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).ok()?;
        pid.trim().parse().ok().map(DaemonProcess)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon().filter(|daemon| daemon.is_alive()) {
            daemon.signal(Signal::KILL);
        }
    }
}

fn plc(port: u16, backend: &Backend) -> String {
    server_toml(backend.address(), "").replace("127.0.0.1:0", &local(port).to_string())
}

#[test]
fn thirty_restarts_in_a_row_by_busybox_leave_the_tunnel_up() {
    let (backend, port) = (Backend::echo(), free_port());
    let board = Board::new(&plc(port, &backend));
    let done = board.script("start");
    assert_eq!((done.code, done.out.as_str()), (Some(0), "Starting pskgate: OK\n"), "{}", done.err);
    let client = client_of(port);
    echo_through(&client);
    for round in 1..=30 {
        let before = board.daemon().expect("a pid file").0;
        let done = board.script("restart");
        assert_eq!(done.code, Some(0), "round {round}: {}{}", done.out, done.err);
        assert_ne!(board.daemon().expect("a pid file").0, before, "round {round}");
        echo_through(&client);
    }
    let done = board.script("status");
    assert_eq!(done.code, Some(0), "{}", done.err);
    let done = board.script("reload");
    assert_eq!(done.code, Some(0), "{}", done.err);
    let daemon = board.daemon().expect("a pid file");
    let done = board.script("stop");
    assert_eq!((done.code, done.out.as_str()), (Some(0), "Stopping pskgate: OK\n"), "{}", done.err);
    assert_eq!(board.daemon(), None, "the pid file is gone");
    until("its end", WAIT_TIMEOUT, || (!daemon.is_alive()).then_some(()));
}

#[test]
fn a_wrong_configuration_costs_a_board_nothing() {
    let (backend, port) = (Backend::echo(), free_port());
    let board = Board::new(&plc(port, &backend));
    assert_eq!(board.script("start").code, Some(0));
    let (daemon, client) = (board.daemon(), client_of(port));
    std::fs::write(board.folder.path().join("plc.toml"), "[services.a]\nacept = 1\n").unwrap();
    let done = board.script("restart");
    assert_eq!(done.code, Some(78), "{}", done.out);
    assert!(done.err.contains("acept"), "{}", done.err);
    assert_eq!(board.daemon(), daemon, "it goes on");
    echo_through(&client);
    assert_eq!(board.script("stop").code, Some(0));
    let done = board.script("start");
    assert_eq!((done.code, done.out.as_str()), (Some(78), "Starting pskgate: FAIL\n"));
    assert_eq!(board.script("nonsense").code, Some(64));
}

#[test]
fn the_apparmor_profile_is_one() {
    let mut parser = Command::new("apparmor_parser");
    parser.args(["--skip-kernel-load", "--skip-cache"]);
    parser.arg(root().join("dist/apparmor/usr.bin.pskgate"));
    let done = finish(&mut parser);
    assert_eq!(done.code, Some(0), "{}", done.err);
}

/// The names of metrics, each with its labels, of a program that has seen the most of what there is.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let (backend, at) = (Backend::echo(), local(free_port()));
    let rules = format!("identities.{IDENTITY}.expires = 2999-12-31\n");
    let text = format!("[http]\nlisten = \"{at}\"\n{}", server_toml(backend.address(), &rules));
    let mut gate = PskgateBuilder::new().toml(&text).start();
    let port = gate.address("tls").port();
    let client = client_of(port);
    let plain = echo_through(&client);
    plain.shut();
    plain.rest();
    drop(std::net::TcpStream::connect(local(port)).unwrap());
    gate.wait_logged("session closed");
    gate.wait_logged("handshake refused");
    gate.process().signal(Signal::HUP);
    gate.wait_logged("reloaded");
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    until("every counter", WAIT_TIMEOUT, || {
        for line in get(at, "/metrics").body.lines().filter(|line| !line.starts_with('#')) {
            let (name, labels) = line.split_once(['{', ' ']).unwrap_or((line, ""));
            let labels = labels.split(',').filter_map(|one| one.split_once("=\""));
            let labels = labels.map(|(label, _)| label.to_owned());
            found.entry(name.to_owned()).or_default().extend(labels);
        }
        let has = |name| found.contains_key(name);
        (has("pskgate_sessions_ended_total") && has("pskgate_connections_refused_total"))
            .then_some(())
    });
    found
}

/// What is asked of metrics in the rules and in the dashboard.
fn questions() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value {
                        Value::String(text) if key == "expr" => found.push(text.clone()),
                        // label_values(METRIC, LABEL) is no PromQL, but names both.
                        Value::String(text) if key == "definition" => found.push(text.clone()),
                        other => collect(other, found),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let folder = root().join("dist/monitoring");
    let rules = std::fs::read_to_string(folder.join("pskgate.rules.yml")).unwrap();
    let mut found: Vec<String> = rules
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("expr: "))
        .map(str::to_owned)
        .collect();
    assert!(found.len() >= 10, "{found:?}");
    let dashboard = std::fs::read_to_string(folder.join("grafana-pskgate.json")).unwrap();
    collect(&serde_json::from_str(&dashboard).expect("JSON"), &mut found);
    assert!(found.len() >= 28, "{found:?}");
    found
}

/// Each metric of a question, with what stands in its braces.
fn asked(question: &str) -> Vec<(String, String)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = question;
    while let Some(at) = ["pskgate_", "process_"].iter().filter_map(|start| rest.find(start)).min()
    {
        let name: String = rest[at..].chars().take_while(|c| is_name(*c)).collect();
        rest = &rest[at + name.len()..];
        let braces = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        found.push((name, braces.map_or("", |(inside, _)| inside).to_owned()));
    }
    found
}

/// Prometheus' own tool plays the tests beside the rules, and each rule has one where it fires and one where it does not.
#[test]
fn each_alert_rule_fires_when_it_should_and_not_before() {
    let folder = root().join("dist/monitoring");
    let mut promtool = Command::new("promtool");
    promtool.args(["test", "rules", "pskgate.rules.test.yml"]).current_dir(&folder);
    let run = promtool.output().expect("promtool (Debian's package prometheus, see scripts/test)");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(run.status.success(), "{}{}", said(&run.stdout), said(&run.stderr));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (rules, tests) = (read("pskgate.rules.yml"), read("pskgate.rules.test.yml"));
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    let tried: Vec<_> = tests
        .lines()
        .filter_map(|line| line.split_once("alertname: "))
        .map(|(_, name)| name.trim_end_matches([' ', '}']))
        .collect();
    for alert in alerts {
        assert_eq!(tried.iter().filter(|tried| **tried == alert).count(), 2, "{alert}");
    }
}

#[test]
fn what_the_rules_and_the_dashboard_ask_for_is_there() {
    let metrics = metrics();
    let codes = pskgate(PskgateBuilder::new().folder(), &["explain"]).out;
    let is_code =
        |code: &str| codes.lines().any(|line| line.split_whitespace().next() == Some(code));
    let mut count = 0;
    for question in questions() {
        for (name, matchers) in asked(&question) {
            let labels = metrics.get(&name);
            let labels =
                labels.unwrap_or_else(|| panic!("there is no {name}: {question}\n{metrics:#?}"));
            for matcher in matchers.split("\",").filter(|one| !one.is_empty()) {
                let (label, value) = matcher.split_once('=').expect("a matcher");
                let value = value.trim_matches(['~', '"']);
                let known = ["instance", "job"].contains(&label) || labels.contains(label);
                assert!(known, "{name} has no label {label}: {question}");
                if ["end", "cause"].contains(&label) {
                    assert!(value.split('|').all(is_code), "{value}: {question}");
                }
            }
            count += 1;
        }
        // What is summed by must be a label of what is summed.
        for by in question.split("by (").skip(1) {
            let (names, rest) = by.split_once(')').expect("an end");
            let of = asked(rest).into_iter().next().expect("a metric").0;
            for label in names.split(", ").filter(|label| *label != "instance") {
                assert!(metrics[&of].contains(label), "{of} has no {label}: {question}");
            }
        }
    }
    assert!(count >= 30, "only {count} metrics are asked for");
}

/// The files of a folder, by name.
fn names(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    crate::schema::walk(folder, &mut found);
    found.sort();
    found
}

#[test]
fn what_was_never_tried_says_so() {
    for folder in ["openwrt", "buildroot", "yocto", "docker", "kubernetes"] {
        let files = names(&root().join("dist").join(folder));
        assert!(!files.is_empty(), "{folder}");
        let texts: Vec<_> = files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect();
        assert!(texts.iter().any(|text| text.contains("Untested")), "dist/{folder}");
    }
}
