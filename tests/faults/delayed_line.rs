//! Two hosts with a long line between them: network namespaces, a TUN device in each, and a thread that
//! moves packets from one device to the other after a delay. TCP sees this delay, as it does on a line
//! through the world; a relay of bytes (byte_relay.rs) delays what the ends say, but TCP does not see that.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::ioctl::{Opcode, Updater};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::harness::stage::need_root;

/// The server's address at the far end of a [`DelayedLine`].
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/var/run/netns";
/// Both devices have this name, each in its namespace.
const DEVICE: &str = "line";
/// A device drops what does not fit: 1,500 connects a second and a thousand handshakes do.
const DEVICE_QUEUE_PACKETS: &str = "20000";
/// More than the devices' MTU of 1,500.
const PACKET_BUFFER_BYTES: usize = 2048;
/// Packets read from one device before the other one has its turn.
const PACKETS_A_TURN: usize = 64;

/// The address of client `number` whose round trip to the server takes `rtt`: 10.R.x.y, where R is the
/// round trip in hundredths of a second.
pub fn client_address(rtt: Duration, number: usize) -> Ipv4Addr {
    let hundredths = u8::try_from(rtt.as_millis() / 10).expect("a round trip below 2.56 s");
    let [high, low] = u16::try_from(number + 1).expect("at most 65,535 clients").to_be_bytes();
    Ipv4Addr::new(10, hundredths, high, low)
}

/// Half the round trip of the client that a packet is from or to. None if it is no packet of a client's.
fn delay_of(packet: &[u8]) -> Option<Duration> {
    let (from, to) = (packet.get(12..16)?, packet.get(16..20)?);
    let client = [from, to].into_iter().find(|address| address[0] == 10)?;
    (packet[0] >> 4 == 4).then(|| Duration::from_millis(u64::from(client[1]) * 5))
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).output().expect("the Debian package iproute2");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {}: {said}", arguments.join(" "));
}

/// A network namespace, or the one that this process is in.
pub struct Host {
    namespace: Option<String>,
}

impl Host {
    /// Where this process is.
    pub fn here() -> Self {
        Self { namespace: None }
    }

    fn new(end: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pskgate-{}-{number}-{end}", std::process::id());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self { namespace: Some(name) }
    }

    /// `ip` inside this namespace.
    fn ip(&self, arguments: &[&str]) {
        let name = self.namespace.as_deref().expect("a namespace of its own");
        ip(&[&["-n", name], arguments].concat());
    }

    /// The words with which a program is started on this host. `ip netns exec` would hide /sys from it,
    /// and with that its control group.
    pub fn prefix(&self) -> Vec<String> {
        let net = |name| vec!["nsenter".to_owned(), format!("--net={NAMESPACES}/{name}")];
        self.namespace.as_ref().map_or_else(Vec::new, net)
    }

    /// Moves the calling thread to this host: its sockets belong there from now on.
    fn enter(&self) {
        let Some(name) = &self.namespace else { return };
        let namespace = File::open(format!("{NAMESPACES}/{name}")).expect("the namespace");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("entered");
    }

    /// A thread on this host.
    pub fn spawn<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let host = Self { namespace: self.namespace.clone() };
        std::thread::spawn(move || {
            host.enter();
            act()
        })
    }

    /// A thread on this host with a runtime, in which `future` runs.
    pub fn run<T: Send + 'static, F: Future<Output = T>>(
        &self,
        future: impl FnOnce() -> F + Send + 'static,
    ) -> JoinHandle<T> {
        self.spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().expect("a runtime");
            runtime.block_on(async { future().await })
        })
    }
}

/// A host of clients, a host of servers, and the line between them. All of it goes with its owner.
pub struct DelayedLine {
    /// Every address of 10.0.0.0/8 is this host's.
    pub clients: Host,
    pub servers: Host,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DelayedLine {
    pub fn new() -> Self {
        need_root();
        let (clients, servers) = (Host::new("clients"), Host::new("servers"));
        let devices =
            [&clients, &servers].map(|host| host.spawn(open_device).join().expect("a TUN device"));
        for host in [&clients, &servers] {
            host.ip(&["link", "set", DEVICE, "txqueuelen", DEVICE_QUEUE_PACKETS, "up"]);
        }
        servers.ip(&["addr", "add", &format!("{SERVER}/32"), "dev", DEVICE]);
        servers.ip(&["route", "add", "10.0.0.0/8", "dev", DEVICE]);
        clients.ip(&["route", "add", "local", "10.0.0.0/8", "dev", "lo"]);
        let (stop, stopped) = oneshot::channel();
        let thread = Host::here().run(move || carry(devices, stopped));
        let line = Self { clients, servers, stop: Some(stop), thread: Some(thread) };
        line.route_from(Duration::ZERO);
        line
    }

    /// Programs on the clients' host that bind to no address have this round trip from now on.
    pub fn route_from(&self, rtt: Duration) {
        let from = client_address(rtt, 0).to_string();
        let to = format!("{SERVER}/32");
        self.clients.ip(&["route", "replace", &to, "dev", DEVICE, "src", &from]);
    }
}

impl Drop for DelayedLine {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for name in
            [&self.clients, &self.servers].into_iter().filter_map(|host| host.namespace.as_ref())
        {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// A TUN device in the calling thread's namespace. It goes when the file is closed.
fn open_device() -> File {
    const TUNSETIFF: Opcode = 0x4004_54ca;
    /// Whole IP packets, without a header before them.
    const IFF_TUN_NO_PI: u16 = 0x1001;
    /// C's `struct ifreq`, as far as this request reads it.
    #[repr(C)]
    struct InterfaceRequest {
        name: [u8; 16],
        flags: u16,
        padding: [u8; 22],
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open("/dev/net/tun").expect("a kernel with TUN devices");
    let mut name = [0; 16];
    name[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
    let mut request = InterfaceRequest { name, flags: IFF_TUN_NO_PI, padding: [0; 22] };
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq` of 40 bytes. `request` has its layout and size,
    // holds no pointer, and every value that the kernel may write into it is valid.
    let done = unsafe {
        rustix::ioctl::ioctl(&file, Updater::<'_, TUNSETIFF, InterfaceRequest>::new(&mut request))
    };
    done.expect("a TUN device (as root)");
    file
}

/// A packet on its route, ordered by the time of its arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    due: Instant,
    number: u64,
    to: usize,
    bytes: Vec<u8>,
}

async fn carry(devices: [File; 2], mut stopped: oneshot::Receiver<()>) {
    let [a, b] = devices.map(|file| {
        // SAFETY: `File` owns the descriptor that it names, and nothing closes or replaces the file while
        // the `AsyncFd` owns it.
        unsafe { AsyncFd::register(file) }.expect("a device that can be waited for")
    });
    let (mut queue, mut number) = (BinaryHeap::new(), 0);
    loop {
        let next = queue.peek().map(|Reverse(packet): &Reverse<Packet>| packet.due);
        let due = tokio::time::sleep_until(next.unwrap_or_else(Instant::now).into());
        let (from, ready) = tokio::select! {
            _ = &mut stopped => return,
            () = due, if next.is_some() => (0, None),
            ready = a.readable() => (0, Some(ready)),
            ready = b.readable() => (1, Some(ready)),
        };
        if let Some(ready) = ready {
            let mut ready = ready.expect("a device");
            for _ in 0..PACKETS_A_TURN {
                let mut piece = [0; PACKET_BUFFER_BYTES];
                let Ok(read) = ready.try_io(|device| device.get_ref().read(&mut piece)) else {
                    break;
                };
                let bytes = &piece[..read.expect("a packet")];
                // What is not a client's are the kernel's own IPv6 packets.
                let Some(delay) = delay_of(bytes) else { continue };
                number += 1;
                let due = Instant::now() + delay;
                queue.push(Reverse(Packet { due, number, to: 1 - from, bytes: bytes.to_vec() }));
            }
        }
        while queue.peek().is_some_and(|Reverse(packet)| packet.due <= Instant::now()) {
            let Reverse(packet) = queue.pop().expect("it was looked at");
            // A device without room loses the packet, as any line may.
            let _ = [&a, &b][packet.to].get_ref().write(&packet.bytes);
        }
    }
}
