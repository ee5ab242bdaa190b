//! The PLCs: a task each, all in one thread, so that the gateway has the other core.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openssl::ssl::{Ssl, SslContext};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_openssl::SslStream;

use crate::ends::context;

/// The identity of a PLC.
pub fn name(number: usize) -> String {
    format!("plc{number:05}")
}

/// Its key: 64 characters, good enough for a test and different for each; no hexadecimal number, as one is decoded.
pub fn key(number: usize) -> String {
    format!("k{number:07}").repeat(8)
}

/// An address of the loopback's for each, as sources are counted.
fn address(number: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(number).expect("at most 65,536 PLCs").to_be_bytes();
    Ipv4Addr::new(127, 1, high, low.max(1))
}

/// How long a PLC waits before it connects anew, in ms.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    pub least: u64,
    pub most: u64,
}

#[derive(Debug, Default, Clone)]
pub struct Storm {
    handshakes: Vec<Duration>,
    pub failed: usize,
    pub handshakes_failed: usize,
}

impl Storm {
    /// A percentile in ms.
    pub fn handshake(&self, percent: usize) -> f64 {
        let mut times = self.handshakes.clone();
        times.sort_unstable();
        let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }
}

#[derive(Default)]
struct FleetProgress {
    storm: Mutex<Storm>,
    /// Which storm it is, and for each PLC that of its last answer.
    round: AtomicUsize,
    answered: Vec<AtomicUsize>,
    connected: AtomicUsize,
    answers: AtomicUsize,
    over: AtomicBool,
}

pub struct Fleet {
    book: Arc<FleetProgress>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fleet {
    pub fn start(count: usize, gateway: SocketAddr, period: Duration, retry: Retry) -> Self {
        let book = FleetProgress {
            answered: (0..count).map(|_| AtomicUsize::new(0)).collect(),
            round: AtomicUsize::new(1),
            ..FleetProgress::default()
        };
        let book = Arc::new(book);
        let told = Arc::clone(&book);
        let thread = std::thread::spawn(move || {
            let runtime = runtime();
            for number in 0..count {
                let plc = Plc {
                    number,
                    gateway,
                    period,
                    retry,
                    context: context(&name(number), &key(number)),
                    book: Arc::clone(&told),
                    dice: number as u64 * 0x9E37_79B9_7F4A_7C15 + 1,
                };
                runtime.spawn(plc.live());
            }
            runtime.block_on(async {
                while !told.over.load(Ordering::Acquire) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
        Self { book, thread: Some(thread) }
    }

    pub fn connected(&self) -> usize {
        self.book.connected.load(Ordering::Acquire)
    }

    pub fn answers(&self) -> usize {
        self.book.answers.load(Ordering::Acquire)
    }

    /// From here on answers over old connections do not count.
    pub fn begin_storm(&self) {
        *self.book.storm.lock().unwrap() = Storm::default();
        self.book.round.fetch_add(1, Ordering::AcqRel);
    }

    /// How many have had an answer over a connection that was made since then.
    pub fn back(&self) -> usize {
        let round = self.book.round.load(Ordering::Acquire);
        let is_back = |last: &&AtomicUsize| last.load(Ordering::Acquire) == round;
        self.book.answered.iter().filter(is_back).count()
    }

    pub fn storm(&self) -> Storm {
        self.book.storm.lock().unwrap().clone()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.book.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Plc {
    number: usize,
    gateway: SocketAddr,
    period: Duration,
    retry: Retry,
    context: SslContext,
    book: Arc<FleetProgress>,
    dice: u64,
}

impl Plc {
    async fn live(mut self) {
        // They were not all switched on in one moment.
        tokio::time::sleep(Duration::from_millis(self.throw(1000))).await;
        loop {
            let _ = self.session().await;
            let Retry { least, most } = self.retry;
            let wait = least + self.throw(most - least + 1);
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    /// xorshift64 (Marsaglia): each PLC's own, and the same in every run.
    fn throw(&mut self, below: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % below
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((address(self.number), 0).into())?;
        let stream = socket.connect(self.gateway).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn session(&self) -> std::io::Result<()> {
        let book = &self.book;
        let round = book.round.load(Ordering::Acquire);
        let begin = Instant::now();
        let failed = || book.storm.lock().unwrap().failed += 1;
        let stream = self.connect().await.inspect_err(|_| failed())?;
        let ssl = Ssl::new(&self.context).map_err(std::io::Error::other)?;
        let mut stream = SslStream::new(ssl, stream).map_err(std::io::Error::other)?;
        let hands = Pin::new(&mut stream).connect();
        let shaken = tokio::time::timeout(Duration::from_secs(15), hands).await;
        if !matches!(shaken, Ok(Ok(()))) {
            failed();
            book.storm.lock().unwrap().handshakes_failed += 1;
            return Err(std::io::Error::other("no handshake"));
        }
        book.storm.lock().unwrap().handshakes.push(begin.elapsed());
        book.connected.fetch_add(1, Ordering::AcqRel);
        let ended = self.poll(&mut stream, round).await;
        book.connected.fetch_sub(1, Ordering::AcqRel);
        ended
    }

    async fn poll(&self, stream: &mut SslStream<TcpStream>, round: usize) -> std::io::Result<()> {
        let mut message = [0; 64];
        loop {
            message[..8].copy_from_slice(name(self.number).as_bytes());
            stream.write_all(&message).await?;
            let mut back = [0; 64];
            stream.read_exact(&mut back).await?;
            assert!(back == message, "{} got another's answer", name(self.number));
            self.book.answered[self.number].store(round, Ordering::Release);
            self.book.answers.fetch_add(1, Ordering::AcqRel);
            tokio::time::sleep(self.period).await;
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What is behind the gateway: sends everything back. A thread for each connection would count as the
/// gateway's surroundings; this is one for all.
pub fn echo() -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send(listener.local_addr().expect("an address")).expect("somebody asks");
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
    });
    told.recv().expect("an address")
}
