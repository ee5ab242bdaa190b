//! Good clients by the thousand: OpenSSL's clients, or plain ones before a client end, as tasks of one
//! thread. Each connects, asks, reads the answer and closes, and what it met is counted.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use openssl::ssl::{ErrorCode, Ssl, SslContext};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_openssl::SslStream;

use crate::delayed_line::Host;

/// What a client sends and expects back.
const QUESTION: [u8; 100] = [b'?'; 100];

/// A client before it connects.
#[derive(Clone)]
pub struct Client {
    pub to: SocketAddr,
    pub from: Ipv4Addr,
    /// None before a client end, whose plain side it connects to.
    pub tls: Option<SslContext>,
}

/// Why a client got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    Reset,
    /// An end without an answer, orderly or not.
    Closed,
    TimedOut,
    Other(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<openssl::ssl::Error>());
        if let Some(kind) = tls.and_then(|tls| tls.io_error()).map(io::Error::kind) {
            return Self::from(io::Error::from(kind));
        }
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::UnexpectedEof => Self::Closed,
            _ if tls.is_some_and(is_end) => Self::Closed,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Whether OpenSSL met the end of the stream where it wanted more.
fn is_end(error: &openssl::ssl::Error) -> bool {
    error.code() == ErrorCode::SYSCALL || error.to_string().contains("unexpected eof")
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An answer, and the connection that it came over.
struct Answered {
    after: Duration,
    stream: Box<dyn Stream>,
}

impl Client {
    async fn connect(&self) -> Result<TcpStream, Failure> {
        let socket = TcpSocket::new_v4()?;
        if self.from != Ipv4Addr::LOCALHOST {
            socket.bind((self.from, 0).into())?;
        }
        socket.set_nodelay(true)?;
        Ok(socket.connect(self.to).await?)
    }

    async fn ask(&self) -> Result<Answered, Failure> {
        let start = Instant::now();
        let tcp = self.connect().await?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(context) => {
                let ssl = Ssl::new(context).map_err(io::Error::other)?;
                let mut stream = SslStream::new(ssl, tcp).map_err(io::Error::other)?;
                Pin::new(&mut stream).connect().await.map_err(io::Error::other)?;
                Box::new(stream)
            }
        };
        exchange(&mut stream).await?;
        Ok(Answered { after: start.elapsed(), stream })
    }

    /// Asks once and closes. How long the answer took, from connecting on.
    pub async fn visit(&self, patience: Duration) -> Result<Duration, Failure> {
        let visit = async {
            let answered = self.ask().await?;
            close(answered.stream).await?;
            Ok(answered.after)
        };
        tokio::time::timeout(patience, visit).await.unwrap_or(Err(Failure::TimedOut))
    }
}

async fn exchange(stream: &mut Box<dyn Stream>) -> Result<(), Failure> {
    let mut answer = [0; QUESTION.len()];
    stream.write_all(&QUESTION).await?;
    stream.read_exact(&mut answer).await?;
    if answer == QUESTION { Ok(()) } else { Err(Failure::Other("other bytes".to_owned())) }
}

/// Closes as a careful client does, and waits for the other end's close.
async fn close(mut stream: Box<dyn Stream>) -> Result<(), Failure> {
    stream.shutdown().await?;
    match stream.read(&mut [0; 16]).await {
        Ok(0) => Ok(()),
        Ok(_) => Err(Failure::Other("bytes after the answer".to_owned())),
        Err(error) => match Failure::from(error) {
            // stunnel ends a connection without a close_notify of its own in some cases.
            Failure::Closed => Ok(()),
            failure => Err(failure),
        },
    }
}

/// The outcomes of many connections.
#[derive(Debug, Default)]
pub struct Tally {
    /// How long each answer took.
    pub served: Vec<Duration>,
    pub failures: Vec<Failure>,
}

impl Tally {
    pub fn add(&mut self, outcome: Result<Duration, Failure>) {
        match outcome {
            Ok(after) => self.served.push(after),
            Err(failure) => self.failures.push(failure),
        }
    }

    pub fn count_of(&self, wanted: &Failure) -> usize {
        self.failures.iter().filter(|failure| *failure == wanted).count()
    }

    /// How many connections were reset, or ended before the answer.
    pub fn cut(&self) -> usize {
        self.count_of(&Failure::Reset) + self.count_of(&Failure::Closed)
    }

    /// The fastest answer; with none there is nothing to compare.
    pub fn fastest(&self) -> Duration {
        self.served.iter().min().copied().unwrap_or(Duration::MAX)
    }

    /// The slowest answer in seconds.
    pub fn slowest(&self) -> f64 {
        self.served.iter().max().copied().unwrap_or_default().as_secs_f64()
    }
}

/// All clients connect at once. Each asks once and closes.
pub fn connect_at_once(host: &Host, clients: Vec<Client>, patience: Duration) -> Tally {
    let visits = move || async move {
        tally(clients.into_iter().map(|one| async move { one.visit(patience).await })).await
    };
    host.run(visits).join().expect("a herd")
}

/// All clients connect at once. Those with an answer keep their connections until every other one has its
/// answer or its end, or until `patience` is over; then they ask again and close.
pub fn connect_at_once_and_stay(host: &Host, clients: Vec<Client>, patience: Duration) -> Tally {
    let visits = move || async move {
        let (decided, _) = watch::channel(0);
        let (decided, count) = (Arc::new(decided), clients.len());
        let stays = clients.into_iter().map(|one| stay(one, patience, Arc::clone(&decided), count));
        tally(stays).await
    };
    host.run(visits).join().expect("a herd")
}

/// All of them at the same time.
async fn tally<F>(visits: impl Iterator<Item = F>) -> Tally
where
    F: Future<Output = Result<Duration, Failure>> + Send + 'static,
{
    let mut tally = Tally::default();
    for outcome in visits.collect::<JoinSet<_>>().join_all().await {
        tally.add(outcome);
    }
    tally
}

async fn stay(
    client: Client,
    patience: Duration,
    decided: Arc<watch::Sender<usize>>,
    count: usize,
) -> Result<Duration, Failure> {
    let end = tokio::time::Instant::now() + patience;
    let asked = tokio::time::timeout_at(end, client.ask()).await;
    decided.send_modify(|decided| *decided += 1);
    let mut answered = asked.unwrap_or(Err(Failure::TimedOut))?;
    let mut all = decided.subscribe();
    let _ = tokio::time::timeout_at(end, all.wait_for(|decided| *decided == count)).await;
    let again = async {
        exchange(&mut answered.stream).await?;
        close(answered.stream).await?;
        Ok(answered.after)
    };
    tokio::time::timeout(patience, again).await.unwrap_or(Err(Failure::TimedOut))
}

/// One client that connects again and again: `attempts` times, a pause after each, and none after `limit`.
pub async fn attempt(
    client: Client,
    attempts: usize,
    patience: Duration,
    limit: Duration,
) -> Tally {
    const PAUSE: Duration = Duration::from_millis(200);
    let (start, mut tally) = (Instant::now(), Tally::default());
    for _ in 0..attempts {
        if start.elapsed() < limit {
            tally.add(client.visit(patience).await);
            tokio::time::sleep(PAUSE).await;
        }
    }
    tally
}

/// One client that opens sessions without end, `at_once` of them in each moment: each of these keeps its
/// latest `kept` ones open. Counts what it opens.
pub async fn keep_opening(
    client: Client,
    at_once: usize,
    kept: usize,
    over: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
) {
    const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let (client, over, opened) = (client.clone(), Arc::clone(&over), Arc::clone(&opened));
            tokio::spawn(async move {
                let mut open = VecDeque::new();
                while !over.load(Ordering::Acquire) {
                    let asked = tokio::time::timeout(ANSWER_TIMEOUT, client.ask()).await;
                    if let Ok(Ok(answered)) = asked {
                        opened.fetch_add(1, Ordering::Relaxed);
                        open.push_back(answered);
                    }
                    if open.len() > kept {
                        open.pop_front();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a client");
    }
}
