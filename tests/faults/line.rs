//! Two hosts and a line between them that is slow, loses packets, freezes or is cut: network namespaces
//! and a relay of packets in user space, since a kernel need not have netem.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::{Process, WAIT_TIMEOUT, root, stage::need_root};

/// The addresses of the two hosts.
pub const ADDRESSES: [&str; 2] = ["10.99.1.1", "10.99.1.2"];

/// Two hosts and what is between them. All of it goes with the test.
pub struct Line {
    pub hosts: [String; 2],
    /// Each host's end of the line.
    pub devices: [String; 2],
    relay: Process,
    orders: usize,
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).output().expect("the Debian package iproute2");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {}: {said}", arguments.join(" "));
}

impl Line {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        need_root();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let hosts = ["a", "b"].map(|end| format!("pskline-{}-{number}{end}", std::process::id()));
        // Fifteen characters are what a device's name may have.
        let devices = ["a", "b"].map(|end| format!("pg{}n{number}{end}", std::process::id()));
        let mut command = Command::new("python3");
        command.arg(root().join("tests/peers/line.py")).args(&devices);
        let relay = Process::spawn("line.py", "the Debian package python3", &mut command);
        relay.wait_for("ready", WAIT_TIMEOUT);
        let line = Self { hosts, devices, relay, orders: 0 };
        for ((host, device), address) in line.hosts.iter().zip(&line.devices).zip(ADDRESSES) {
            ip(&["netns", "add", host]);
            ip(&["link", "set", device, "netns", host]);
            ip(&["-n", host, "addr", "add", &format!("{address}/24"), "dev", device]);
            ip(&["-n", host, "link", "set", "lo", "up"]);
            ip(&["-n", host, "link", "set", device, "up"]);
        }
        line
    }

    /// Tells the relay, and waits until it is so.
    pub fn order(&mut self, text: &str) {
        self.relay.type_in(&format!("{text}\n"));
        self.orders += 1;
        let orders = self.orders;
        crate::harness::until("the line to obey", WAIT_TIMEOUT, || {
            (self.relay.out().matches("done").count() >= orders).then_some(())
        });
    }

    /// How many packets were lost.
    pub fn lost(&mut self) -> f64 {
        self.order("count");
        let said = self.relay.out();
        let last = said.rsplit("lost ").next().unwrap_or_default();
        last.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a count")
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.relay.kill();
        for host in &self.hosts {
            let _ = Command::new("ip").args(["netns", "del", host]).output();
        }
    }
}
