//! Python peers: servers that say where they are, and clients that take orders. See peers/orders.py.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Process, WAIT_TIMEOUT, local, root, until};

/// Uploads of several MB on a busy machine.
const ORDER: Duration = Duration::from_secs(120);

/// A folder with the venvs that scripts/e2e makes.
fn venvs() -> PathBuf {
    std::env::var_os("PSKGATE_E2E").map_or_else(|| root().join("target/e2e"), PathBuf::from)
}

fn command(venv: &str, program: &str) -> Command {
    Command::new(venvs().join(venv).join("bin").join(program))
}

pub struct Peer {
    process: Process,
    asked: usize,
}

impl Peer {
    /// Starts one of tests/e2e/peers.
    pub fn start<S: AsRef<str>>(script: &str, arguments: &[S]) -> Self {
        Self::through(&[], script, arguments)
    }

    /// The same by a program that becomes it in the end.
    pub fn through<S: AsRef<str>>(before: &[&str], script: &str, arguments: &[S]) -> Self {
        let python = command("peers", "python");
        let mut words: Vec<_> = before.iter().map(Into::into).collect();
        words.push(python.get_program().to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(root().join("tests/e2e/peers").join(script));
        command.args(arguments.iter().map(AsRef::as_ref));
        let package = "the venvs of scripts/e2e";
        Self { process: Process::spawn(script, package, &mut command), asked: 0 }
    }

    /// A server, and where it is.
    pub fn server<S: AsRef<str>>(script: &str, arguments: &[S]) -> (Self, SocketAddr) {
        let peer = Self::start(script, arguments);
        let ports = peer.ports();
        (peer, local(ports[0]))
    }

    /// A client that is to connect to `to`, and has.
    pub fn client(script: &str, kind: &str, to: SocketAddr, more: &[&str]) -> Self {
        let port = to.port().to_string();
        let peer = Self::start(script, &[&[kind, &port], more].concat());
        peer.process.wait_for("READY", WAIT_TIMEOUT);
        peer
    }

    /// The ports of a server.
    pub fn ports(&self) -> Vec<u16> {
        let line = self.process.wait_for("READY ", WAIT_TIMEOUT);
        line.split_whitespace().skip(1).map(|port| port.parse().expect("a port")).collect()
    }

    /// Gives an order, and returns its answer or what went wrong.
    pub fn attempt(&mut self, order: &str, patience: Duration) -> Result<Value, String> {
        self.process.type_in(&format!("{order}\n"));
        self.asked += 1;
        let (process, asked) = (&self.process, self.asked);
        let line = until(&format!("the answer to `{order}`"), patience, || {
            let said = process.out();
            let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let is_answer = |line: &&str| line.starts_with("DONE ") || line.starts_with("FAILED ");
            whole.lines().filter(is_answer).nth(asked - 1).map(str::to_owned)
        });
        match line.strip_prefix("DONE ") {
            Some(json) => Ok(serde_json::from_str(json).expect("JSON after DONE")),
            None => Err(line),
        }
    }

    /// Gives an order that must be obeyed.
    pub fn ask(&mut self, order: &str) -> Value {
        let answer = self.attempt(order, ORDER);
        answer.unwrap_or_else(|why| panic!("`{order}`: {why}\n{}", self.process.err()))
    }

    /// Gives an order and does not wait for its answer.
    pub fn begin(&mut self, order: &str) {
        self.process.type_in(&format!("{order}\n"));
        self.asked += 1;
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// crossbar, serving the realm `Automation` over WebSocket.
pub struct Router {
    _process: Process,
    _folder: tempfile::TempDir,
    pub address: SocketAddr,
}

impl Router {
    /// One that lets in everybody.
    pub fn start() -> Self {
        Self::with_members(&[])
    }

    /// One at which members log in by WAMP-CRA, with a name and a secret; without any, one that lets in everybody.
    pub fn with_members(members: &[(&str, &str)]) -> Self {
        let address = local(crate::harness::free_port());
        let folder = tempfile::TempDir::new().expect("a folder for crossbar");
        let allow = serde_json::json!({
            "uri": "", "match": "prefix",
            "allow": { "call": true, "register": true, "publish": true, "subscribe": true },
        });
        let role = if members.is_empty() { "anonymous" } else { "member" };
        let users: serde_json::Map<_, _> = members
            .iter()
            .map(|(name, secret)| {
                (name.to_string(), serde_json::json!({ "secret": secret, "role": role }))
            })
            .collect();
        let mut transport = serde_json::json!({
            "type": "websocket",
            "endpoint": { "type": "tcp", "interface": "127.0.0.1", "port": address.port() },
        });
        if !users.is_empty() {
            transport["auth"] =
                serde_json::json!({ "wampcra": { "type": "static", "users": users } });
        }
        let role = serde_json::json!({ "name": role, "permissions": [allow] });
        let config = serde_json::json!({
            "version": 2,
            "workers": [{
                "type": "router",
                "realms": [{ "name": "Automation", "roles": [role] }],
                "transports": [transport],
            }],
        });
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
        let mut command = command("crossbar", "crossbar");
        command.args(["start", "--color", "false", "--cbdir"]).arg(folder.path());
        let process = Process::spawn("crossbar", "the venvs of scripts/e2e", &mut command);
        process.wait_for("NODE_BOOT_COMPLETE", Duration::from_secs(60));
        Self { _process: process, _folder: folder, address }
    }
}
