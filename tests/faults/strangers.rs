//! Clients without a key, by the thousand: each connects, sends a payload, and holds the connection until the
//! server ends it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use openssl::ssl::{Ssl, SslContext};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::delayed_line::Host;
use crate::harness::hello::{extension, hello_12, hello_13};

/// What a stranger sends after it has connected.
#[derive(Clone)]
pub struct Payload(Arc<[u8]>);

impl Payload {
    /// Nothing at all.
    pub fn none() -> Self {
        Self(Arc::from([]))
    }

    /// A whole TLS 1.3 ClientHello of an identity that nobody configured.
    pub fn unknown_13() -> Self {
        Self(hello_13(&[1], &[b"nobody"], &[&[0; 32]]).into())
    }

    /// A whole TLS 1.2 ClientHello: the server has to answer before it is told an identity.
    pub fn unknown_12() -> Self {
        Self(hello_12().into())
    }

    /// Half of a ClientHello.
    pub fn cut_short() -> Self {
        let whole = Self::unknown_13().0;
        Self(whole[..whole.len() / 2].into())
    }

    /// The ClientHello of a good client, as somebody on the line could record it.
    pub fn recorded(context: &SslContext) -> Self {
        let ssl = Ssl::new(context).expect("a client");
        let recorder = Recorder::default();
        let begun = ssl.connect(recorder);
        let Err(openssl::ssl::HandshakeError::WouldBlock(waiting)) = begun else {
            panic!("the recorder never answers");
        };
        Self(waiting.get_ref().0.as_slice().into())
    }
}

/// Keeps what is written, and has nothing to read.
#[derive(Debug, Default)]
struct Recorder(Vec<u8>);

impl std::io::Write for Recorder {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::io::Read for Recorder {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }
}

/// What a flood does.
pub struct FloodPlan {
    pub to: SocketAddr,
    pub from: Vec<Ipv4Addr>,
    pub payload: Payload,
    pub connects_per_s: usize,
    /// How long a stranger holds a connection that the server does not end.
    pub hold: Duration,
}

#[derive(Default)]
struct Counts {
    over: AtomicBool,
    begun: AtomicUsize,
    connected: AtomicUsize,
}

/// A running flood. It ends when this is dropped.
pub struct Flood {
    counts: Arc<Counts>,
    since: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    pub fn start(host: &Host, plan: FloodPlan) -> Self {
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let thread = host.run(move || flood(plan, shared));
        Self { counts, since: Instant::now(), thread: Some(thread) }
    }

    /// Connections that were asked for, each second so far, and how many of them TCP granted.
    pub fn rates(&self) -> [f64; 2] {
        let lasted = self.since.elapsed().as_secs_f64();
        [&self.counts.begun, &self.counts.connected]
            .map(|count| count.load(Ordering::Relaxed) as f64 / lasted)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.counts.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn flood(plan: FloodPlan, counts: Arc<Counts>) {
    const TICK: Duration = Duration::from_millis(5);
    let start = Instant::now();
    let mut number = 0;
    let mut ticks = tokio::time::interval(TICK);
    while !counts.over.load(Ordering::Acquire) {
        ticks.tick().await;
        let due = (start.elapsed().as_secs_f64() * plan.connects_per_s as f64) as usize;
        while number < due {
            let from = plan.from[number % plan.from.len()];
            number += 1;
            tokio::spawn(hold(plan.to, from, plan.payload.clone(), plan.hold, Arc::clone(&counts)));
        }
    }
}

async fn hold(
    to: SocketAddr,
    from: Ipv4Addr,
    payload: Payload,
    hold: Duration,
    counts: Arc<Counts>,
) {
    counts.begun.fetch_add(1, Ordering::Relaxed);
    let held = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let mut stream = socket.connect(to).await?;
        counts.connected.fetch_add(1, Ordering::Relaxed);
        stream.write_all(&payload.0).await?;
        while stream.read(&mut [0; 2048]).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Every end is the same to a flood.
    let _ = tokio::time::timeout(hold, held).await;
}
