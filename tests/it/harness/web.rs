//! A plain HTTP client: one request a connection, over TCP or a Unix socket.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::WAIT_TIMEOUT;

/// What came back.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Page {
    /// The body, which is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// GET under the name that is right for this address.
pub fn get(at: SocketAddr, path: &str) -> Page {
    request(at, &format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"))
}

/// Sends this text.
pub fn request(at: SocketAddr, text: &str) -> Page {
    let stream = TcpStream::connect(at).unwrap_or_else(|error| panic!("no way to {at}: {error}"));
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    exchange(stream, text)
}

/// The same over a Unix socket.
pub fn request_unix(path: &Path, text: &str) -> Page {
    let stream = UnixStream::connect(path).expect("the socket is listened on");
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    exchange(stream, text)
}

fn exchange(mut stream: impl Read + Write, text: &str) -> Page {
    stream.write_all(text.as_bytes()).expect("the request is taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer and its end");
    let answer = String::from_utf8(answer).expect("the answer is UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    Page {
        status: status.unwrap_or_else(|| panic!("no status: {head}")),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}

/// What each connection of a flood does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Asks for the metrics and leaves.
    AskAndLeave,
    /// Asks for them and stays, without reading.
    AskAndStay,
    /// Says nothing and stays.
    Silent,
    /// Says half a request and stays.
    HalfARequest,
}

impl Habit {
    pub const ALL: [Self; 4] =
        [Self::AskAndLeave, Self::AskAndStay, Self::Silent, Self::HalfARequest];
}

/// Connections of this machine to an HTTP endpoint, so many a second. It waits while very many of them are
/// neither answered nor closed, or a slow machine would never get to the end of the queue.
pub struct Flood {
    over: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// Connections of a flood that are neither answered nor closed, at most.
const MOST_UNSERVED: usize = 96;

impl Flood {
    pub fn start(at: SocketAddr, rate: u32, habit: Habit) -> Self {
        let (over, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (Arc::clone(&over), Arc::clone(&made));
        let thread = std::thread::spawn(move || {
            let mut open: VecDeque<(TcpStream, bool)> = VecDeque::new();
            let mut due = Instant::now();
            while !end.load(Ordering::Acquire) {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // What was missed while it waited is not made up for.
                due =
                    (due + Duration::from_secs(1) / rate).max(Instant::now() - WAIT_TIMEOUT / 200);
                open.retain_mut(|(stream, served)| keep(stream, served, habit));
                if open.iter().filter(|(_, served)| !served).count() >= MOST_UNSERVED {
                    continue;
                }
                let Ok(mut stream) = TcpStream::connect_timeout(&at, WAIT_TIMEOUT) else {
                    continue;
                };
                let text = match habit {
                    Habit::AskAndLeave | Habit::AskAndStay => {
                        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
                    }
                    Habit::Silent => "",
                    Habit::HalfARequest => "GET /metrics HTTP/1.1\r\nHost: lo",
                };
                let _ = stream.write_all(text.as_bytes());
                let _ = stream.set_nonblocking(true);
                count.fetch_add(1, Ordering::Relaxed);
                open.push_back((stream, false));
                if open.len() > 4 * MOST_UNSERVED {
                    open.pop_front();
                }
            }
        });
        Self { over, made, thread: Some(thread) }
    }

    /// How many connections there were.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether a connection of a flood stays, and takes note of an answer.
fn keep(stream: &TcpStream, served: &mut bool, habit: Habit) -> bool {
    match stream.peek(&mut [0]) {
        Ok(0) => false,
        Ok(_) => {
            *served = true;
            habit != Habit::AskAndLeave
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Asks for the metrics as Prometheus does, with its limit of time: how long the whole answer took.
pub fn scrape(at: SocketAddr, limit: Duration) -> io::Result<Duration> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&at, limit)?;
    let text = format!("GET /metrics HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    loop {
        let left = limit.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        let mut part = [0; 16 * 1024];
        match stream.read(&mut part)? {
            0 => break,
            len => answer.extend_from_slice(&part[..len]),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    match head.starts_with("HTTP/1.1 200") && length == Some(body.len()) {
        true => Ok(start.elapsed()),
        false => Err(io::Error::other(format!("{head}\n{} bytes", body.len()))),
    }
}
