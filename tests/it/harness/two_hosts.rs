//! Two hosts and a cable that can be cut: network namespaces of this test's own.

use std::net::{Shutdown, TcpListener};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::stage::need_root;

/// The address of the first host, and of the second.
pub const ADDRESSES: [&str; 2] = ["10.99.0.1", "10.99.0.2"];

/// Two hosts, each the other's only neighbour. Both go with the test.
pub struct TwoHosts {
    pub hosts: [String; 2],
}

/// Runs this on one of the hosts.
pub fn on_host<T: Send>(host: &str, what: impl FnOnce() -> T + Send) -> T {
    let file = std::fs::File::open(format!("/var/run/netns/{host}")).expect("a host");
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            rustix::thread::move_into_link_name_space(file.as_fd(), None)
                .expect("root may go there");
            what()
        });
        there.join().expect("what runs there succeeds")
    })
}

/// An echo at port 8080 of that address of a host.
pub fn echo_on(host: &str, address: &str) {
    let listener = on_host(host, || TcpListener::bind((address, 8080)).expect("a free port"));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut back = stream.try_clone().expect("a second handle");
                let _ = std::io::copy(&mut &stream, &mut back);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
}

/// Has iproute2 do this.
pub fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).output().expect("the Debian package iproute2");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {}: {said}", arguments.join(" "));
}

impl TwoHosts {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        need_root();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let hosts = ["a", "b"].map(|end| format!("pskgate-{}-{number}{end}", std::process::id()));
        let [a, b] = &hosts;
        for host in &hosts {
            ip(&["netns", "add", host]);
        }
        // The names of the interfaces are the hosts' own business.
        ip(&["-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b]);
        for (host, address) in hosts.iter().zip(ADDRESSES) {
            ip(&["-n", host, "addr", "add", &format!("{address}/24"), "dev", "cable"]);
            ip(&["-n", host, "link", "set", "lo", "up"]);
            ip(&["-n", host, "link", "set", "cable", "up"]);
        }
        Self { hosts }
    }

    /// No packet arrives any more, and nobody is told: what each host sends is lost at the other's end.
    pub fn cut(&self) {
        for host in &self.hosts {
            // The interface stays up, so that nothing is refused; its neighbour has moved away.
            let nowhere = "02:00:00:00:00:01";
            let other = if *host == self.hosts[0] { ADDRESSES[1] } else { ADDRESSES[0] };
            ip(&[
                "-n",
                host,
                "neigh",
                "replace",
                other,
                "lladdr",
                nowhere,
                "dev",
                "cable",
                "nud",
                "permanent",
            ]);
        }
    }
}

impl Drop for TwoHosts {
    fn drop(&mut self) {
        for host in &self.hosts {
            let _ = Command::new("ip").args(["netns", "del", host]).output();
        }
    }
}
