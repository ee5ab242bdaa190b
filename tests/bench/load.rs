//! Who calls and who answers: the load generator. The backend is a process of its own, so that neither
//! its processor time nor its descriptors are those of the callers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::harness::WAIT_TIMEOUT;

/// The first byte of a connection says what its backend does.
const ECHO: u8 = b'E';
const SINK: u8 = b'S';
const SOURCE: u8 = b'G';
/// What is written and read at once in bulk.
const CHUNK: usize = 256 * 1024;
/// The size of a message in the figures of round trips.
pub const MESSAGE: usize = 100;

/// The backend's process.
pub struct Backend {
    child: Child,
    pub address: SocketAddr,
    // Its end is how the backend hears that it is over.
    _out: ChildStdout,
}

impl Backend {
    /// Behind these words, such as those that enter a network namespace, at this address.
    pub fn start(through: &[&str], at: &str) -> Self {
        let own = std::env::current_exe().expect("the bench's own file");
        let mut words: Vec<&str> = through.to_vec();
        let own = own.to_str().expect("a path in UTF-8");
        words.extend([own, "--backend", at]);
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the backend");
        let mut out = child.stdout.take().expect("its output");
        let mut said = Vec::new();
        let mut byte = [0];
        while out.read(&mut byte).expect("it says where it listens") == 1 && byte[0] != b'\n' {
            said.push(byte[0]);
        }
        let address = String::from_utf8(said).ok().and_then(|text| text.parse().ok());
        Self { child, address: address.expect("an address"), _out: out }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `--backend` does, until its standard input ends.
pub fn be_the_backend(at: &str) {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    runtime().block_on(async {
        let listener = tokio::net::TcpSocket::new_v4().expect("a socket");
        listener.bind(at.parse().expect("an address")).expect("bound");
        let listener = listener.listen(4096).expect("a listener");
        println!("{}", listener.local_addr().expect("its address"));
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            tokio::spawn(answer(stream));
        }
    });
}

async fn answer(mut stream: tokio::net::TcpStream) {
    let mut kind = [0];
    if stream.read_exact(&mut kind).await.is_err() {
        return;
    }
    if kind[0] == ECHO {
        let mut some = [0; 512];
        while let Ok(n @ 1..) = stream.read(&mut some).await {
            if stream.write_all(&some[..n]).await.is_err() {
                return;
            }
        }
        return;
    }
    let Ok(stream) = stream.into_std() else { return };
    if stream.set_nonblocking(false).is_ok() {
        std::thread::spawn(move || bulk(stream, kind[0]));
    }
}

fn bulk(mut stream: TcpStream, kind: u8) {
    let mut some = vec![7; CHUNK];
    if kind == SINK {
        let mut total = 0u64;
        while let Ok(n @ 1..) = stream.read(&mut some) {
            total += n as u64;
        }
        let _ = stream.write_all(&total.to_be_bytes());
        return;
    }
    let mut count = [0; 8];
    if stream.read_exact(&mut count).is_err() {
        return;
    }
    let mut left = u64::from_be_bytes(count);
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        if stream.write_all(&some[..n]).is_err() {
            return;
        }
        left -= n as u64;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("connected");
    stream.set_nodelay(true).expect("no delay");
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).expect("a limit");
    stream
}

/// Sends so many bytes and waits for the sink's count of them.
pub fn upload(to: SocketAddr, bytes: u64) -> Duration {
    let mut stream = connect(to);
    stream.write_all(&[SINK]).expect("asked");
    let some = vec![9; CHUNK];
    let start = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(&some[..n]).expect("written");
        left -= n as u64;
    }
    stream.shutdown(std::net::Shutdown::Write).expect("ended");
    let mut count = [0; 8];
    stream.read_exact(&mut count).expect("counted");
    let took = start.elapsed();
    assert_eq!(u64::from_be_bytes(count), bytes, "bytes were lost");
    took
}

/// Asks for so many bytes and reads them.
pub fn download(to: SocketAddr, bytes: u64) -> Duration {
    let mut stream = connect(to);
    let mut question = vec![SOURCE];
    question.extend(bytes.to_be_bytes());
    let start = Instant::now();
    stream.write_all(&question).expect("asked");
    let mut some = vec![0; CHUNK];
    let mut total = 0u64;
    loop {
        let n = stream.read(&mut some).expect("read");
        if n == 0 {
            break;
        }
        total += n as u64;
    }
    let took = start.elapsed();
    assert_eq!(total, bytes, "bytes were lost");
    took
}

/// How often `lanes` callers connected, had an answer and closed within this time.
pub fn connections(to: SocketAddr, lanes: usize, time: Duration) -> (f64, Duration) {
    runtime().block_on(async {
        let start = Instant::now();
        let lanes: JoinSet<u64> = (0..lanes)
            .map(|_| async move {
                let mut count = 0;
                while start.elapsed() < time {
                    let stream = tokio::net::TcpStream::connect(to).await;
                    let mut stream = stream.expect("connected");
                    stream.set_nodelay(true).expect("no delay");
                    stream.write_all(b"Ex").await.expect("asked");
                    let mut back = [0];
                    stream.read_exact(&mut back).await.expect("answered");
                    count += 1;
                }
                count
            })
            .collect();
        let count = lanes.join_all().await.into_iter().sum::<u64>();
        (count as f64, start.elapsed())
    })
}

/// So many connections, one after the other, with an answer on each.
pub fn some_connections(to: SocketAddr, count: usize) -> (u64, Duration) {
    let (start, mut done) = (Instant::now(), 0);
    for _ in 0..count {
        let mut stream = connect(to);
        stream.write_all(b"Ex").expect("asked");
        stream.read_exact(&mut [0]).expect("answered");
        stream.shutdown(std::net::Shutdown::Write).expect("ended");
        // Until both ends are through with it.
        assert_eq!(stream.read(&mut [0]).expect("ended in order"), 0);
        done += 1;
    }
    (done, start.elapsed())
}

/// Round trips a second of `lanes` sessions, one message under way in each.
pub fn round_trips(to: SocketAddr, lanes: usize, time: Duration) -> f64 {
    runtime().block_on(async {
        let mut open = Vec::new();
        for _ in 0..lanes {
            let mut stream = tokio::net::TcpStream::connect(to).await.expect("connected");
            stream.set_nodelay(true).expect("no delay");
            stream.write_all(b"Ex").await.expect("asked");
            stream.read_exact(&mut [0]).await.expect("answered");
            open.push(stream);
        }
        let start = Instant::now();
        let lanes: JoinSet<u64> = open
            .into_iter()
            .map(|mut stream| async move {
                let (out, mut back) = ([5; MESSAGE], [0; MESSAGE]);
                let mut count = 0;
                while start.elapsed() < time {
                    stream.write_all(&out).await.expect("asked");
                    stream.read_exact(&mut back).await.expect("answered");
                    count += 1;
                }
                count
            })
            .collect();
        let count = lanes.join_all().await.into_iter().sum::<u64>();
        count as f64 / start.elapsed().as_secs_f64()
    })
}

/// So many round trips in one session.
pub fn some_round_trips(to: SocketAddr, count: u64) {
    let mut stream = connect(to);
    stream.write_all(&[ECHO]).expect("asked");
    let (out, mut back) = ([5; MESSAGE], [0; MESSAGE]);
    for _ in 0..count {
        stream.write_all(&out).expect("asked");
        stream.read_exact(&mut back).expect("answered");
    }
}

/// Times of round trips in one session, in microseconds, sorted.
pub fn alone(to: SocketAddr, time: Duration) -> Vec<f64> {
    let mut stream = connect(to);
    stream.write_all(b"Ex").expect("asked");
    stream.read_exact(&mut [0]).expect("answered");
    let (out, mut back) = ([5; MESSAGE], [0; MESSAGE]);
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < time {
        let before = Instant::now();
        stream.write_all(&out).expect("asked");
        stream.read_exact(&mut back).expect("answered");
        times.push(before.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times
}

/// The same while another session moves all that it can by `bulk`, and how many bytes a second that was.
pub fn beside_bulk(
    to: SocketAddr,
    time: Duration,
    bulk: fn(SocketAddr, u64) -> Duration,
) -> (Vec<f64>, f64) {
    const PIECE: u64 = 64 * 1024 * 1024;
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let (mut bytes, mut took) = (0, Duration::ZERO);
            while !over.load(std::sync::atomic::Ordering::Acquire) {
                took += bulk(to, PIECE);
                bytes += PIECE;
            }
            bytes as f64 / took.as_secs_f64()
        });
        let times = alone(to, time);
        over.store(true, std::sync::atomic::Ordering::Release);
        (times, stream.join().expect("a bulk stream"))
    })
}

/// As a Modbus master that connects for each poll: times in milliseconds, sorted.
pub fn polls(to: SocketAddr, time: Duration) -> Vec<f64> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let before = Instant::now();
        let mut stream = connect(to);
        stream.write_all(b"E\0\x01\0\0\0\x06\x01\x03\0\0\0\x02").expect("asked");
        stream.read_exact(&mut [0; 12]).expect("answered");
        drop(stream);
        times.push(before.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    times
}

pub fn at(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Sessions that stay open.
pub struct Held {
    runtime: tokio::runtime::Runtime,
    open: Vec<tokio::net::TcpStream>,
    /// How many were asked for and refused.
    pub refused: usize,
    pub took: Duration,
}

impl Held {
    /// Opens so many, a few at once, and has an answer on each.
    pub fn open(to: SocketAddr, count: usize) -> Self {
        let runtime = runtime();
        let start = Instant::now();
        let (open, refused) = runtime.block_on(async {
            let (mut open, mut refused) = (Vec::new(), 0);
            let mut under_way = JoinSet::new();
            let mut asked = 0;
            while asked < count || !under_way.is_empty() {
                while asked < count && under_way.len() < 32 {
                    asked += 1;
                    under_way.spawn(async move {
                        let attempt = async {
                            let mut stream = tokio::net::TcpStream::connect(to).await.ok()?;
                            stream.write_all(&[ECHO]).await.ok()?;
                            exchange(&mut stream, asked).await?;
                            Some(stream)
                        };
                        tokio::time::timeout(WAIT_TIMEOUT, attempt).await.ok().flatten()
                    });
                }
                match under_way.join_next().await {
                    Some(Ok(Some(stream))) => open.push(stream),
                    _ => refused += 1,
                }
            }
            (open, refused)
        });
        Self { runtime, open, refused, took: start.elapsed() }
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// On how many of them another message comes back exactly.
    pub fn echoes(&mut self) -> usize {
        let Self { runtime, open, .. } = self;
        runtime.block_on(async {
            let mut good = 0;
            for (number, stream) in open.iter_mut().enumerate() {
                let answer = tokio::time::timeout(WAIT_TIMEOUT, exchange(stream, number)).await;
                good += usize::from(matches!(answer, Ok(Some(()))));
            }
            good
        })
    }
}

async fn exchange(stream: &mut tokio::net::TcpStream, number: usize) -> Option<()> {
    let question = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    stream.write_all(&question).await.ok()?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await.ok()?;
    (answer == question).then_some(())
}

/// How long one connection waits for its first answer.
pub fn first_answer(to: SocketAddr) -> Duration {
    let start = Instant::now();
    let mut stream = connect(to);
    stream.write_all(b"Ex").expect("asked");
    stream.read_exact(&mut [0]).expect("answered");
    start.elapsed()
}
