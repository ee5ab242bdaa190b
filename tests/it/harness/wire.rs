//! The wire between two ends, in the hands of whoever would cut it: a TCP relay that can end, reset
//! or spoil what it carries, towards either side, and that sees how each side ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::backend::{ConnectionEnd, reset};
use super::{WAIT_TIMEOUT, until};

/// One of the two ends of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireEnd {
    /// Who connected to the wire: the client end.
    Client,
    /// Whom the wire connected to: the server end.
    Server,
}

#[derive(Default)]
struct Direction {
    spoil: AtomicBool,
    carried: AtomicU64,
    ended: Mutex<Option<ConnectionEnd>>,
}

struct Leg {
    client: TcpStream,
    server: TcpStream,
    stop: AtomicBool,
    up: Direction,
    down: Direction,
}

type Running = (Arc<Leg>, Vec<JoinHandle<()>>);

/// Carries the latest connection that was made to it.
pub struct FaultProxy {
    address: SocketAddr,
    current: Arc<Mutex<Option<Running>>>,
    over: Arc<AtomicBool>,
}

impl FaultProxy {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the wire");
        let address = listener.local_addr().unwrap();
        let current = Arc::new(Mutex::new(None));
        let over = Arc::new(AtomicBool::new(false));
        let (place, ended) = (Arc::clone(&current), Arc::clone(&over));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let Ok(client) = client else { continue };
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                *place.lock().unwrap() = Some(Leg::start(client, server));
            }
        });
        Self { address, current, over }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next bytes towards `side` arrive with a bit turned.
    pub fn spoil_towards(&self, side: WireEnd) {
        self.with(|leg| leg.towards(side).spoil.store(true, Ordering::Release));
    }

    /// How many bytes went towards `side`.
    pub fn carried_towards(&self, side: WireEnd) -> u64 {
        self.with(|leg| leg.towards(side).carried.load(Ordering::Acquire))
    }

    /// Ends the connection towards `side` as a dying process does: FIN, and no close_notify before it.
    pub fn finish_towards(&self, side: WireEnd) {
        let leg = self.stop();
        leg.stream(side).shutdown(Shutdown::Write).expect("the wire can be ended");
        // What the side still says is read, so that nothing turns the FIN into a reset.
        std::thread::spawn(move || {
            leg.stream(side).set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
            let _ = std::io::copy(&mut leg.stream(side), &mut std::io::sink());
        });
    }

    /// Resets the connection towards `side`.
    pub fn reset_towards(&self, side: WireEnd) {
        let leg = self.stop();
        let leg = Arc::into_inner(leg).expect("nobody else holds the wire");
        reset(match side {
            WireEnd::Client => leg.client,
            WireEnd::Server => leg.server,
        });
    }

    /// Waits until `side` has ended its connection to the wire: how?
    pub fn wait_end_of(&self, side: WireEnd) -> ConnectionEnd {
        until(&format!("the end of the {side:?}'s side of the wire"), WAIT_TIMEOUT, || {
            self.with(|leg| *leg.from(side).ended.lock().unwrap())
        })
    }

    fn with<T>(&self, act: impl FnOnce(&Leg) -> T) -> T {
        let leg = until("a connection over the wire", WAIT_TIMEOUT, || {
            self.current.lock().unwrap().as_ref().map(|(leg, _)| Arc::clone(leg))
        });
        act(&leg)
    }

    fn stop(&self) -> Arc<Leg> {
        let (leg, threads) =
            self.current.lock().unwrap().take().expect("a connection came over the wire");
        leg.stop.store(true, Ordering::Release);
        for thread in threads {
            thread.join().expect("the wire works");
        }
        leg
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some((leg, _)) = self.current.lock().unwrap().take() {
            leg.stop.store(true, Ordering::Release);
        }
        let _ = TcpStream::connect(self.address);
    }
}

impl Leg {
    fn start(client: TcpStream, server: TcpStream) -> Running {
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        }
        let leg = Arc::new(Leg {
            client,
            server,
            stop: AtomicBool::new(false),
            up: Direction::default(),
            down: Direction::default(),
        });
        let threads = [WireEnd::Client, WireEnd::Server]
            .map(|from| {
                let leg = Arc::clone(&leg);
                std::thread::spawn(move || leg.carry(from))
            })
            .into();
        (leg, threads)
    }

    fn stream(&self, side: WireEnd) -> &TcpStream {
        match side {
            WireEnd::Client => &self.client,
            WireEnd::Server => &self.server,
        }
    }

    fn from(&self, side: WireEnd) -> &Direction {
        match side {
            WireEnd::Client => &self.up,
            WireEnd::Server => &self.down,
        }
    }

    fn towards(&self, side: WireEnd) -> &Direction {
        match side {
            WireEnd::Client => &self.down,
            WireEnd::Server => &self.up,
        }
    }

    fn carry(&self, side: WireEnd) {
        let direction = self.from(side);
        let (mut from, mut to) = match side {
            WireEnd::Client => (&self.client, &self.server),
            WireEnd::Server => (&self.server, &self.client),
        };
        let mut piece = vec![0_u8; 64 * 1024];
        while !self.stop.load(Ordering::Acquire) {
            let end = match from.read(&mut piece) {
                Ok(0) => ConnectionEnd::Fin,
                Ok(count) => {
                    if direction.spoil.swap(false, Ordering::AcqRel) {
                        piece[count - 1] ^= 1;
                    }
                    if to.write_all(&piece[..count]).is_ok() {
                        direction.carried.fetch_add(count as u64, Ordering::AcqRel);
                    }
                    continue;
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    continue;
                }
                Err(_) => ConnectionEnd::Rst,
            };
            let _ = to.shutdown(Shutdown::Write);
            *direction.ended.lock().unwrap() = Some(end);
            return;
        }
    }
}
