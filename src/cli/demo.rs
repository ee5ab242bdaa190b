//! `demo`: both ends and an echo on loopback, with a key that never leaves this process.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::progress::ProgressBar;
use super::{exit, print_error, print_result, run};
use crate::config::diagnostic::Diagnostics;
use crate::config::{self, Format};
use crate::daemon::{BuiltConfig, Load, Request, Running};
use crate::secrets::SecretSet;

/// What is echoed in one piece to measure the rate: a second's worth on a slow board.
const BULK_SIZE: usize = 64 * 1024 * 1024;
/// After each of these what was sent is counted.
const PIECE_SIZE: usize = 256 * 1024;
/// Requests of 100 bytes, one after the other, to measure the round trip.
const ROUND_TRIPS: usize = 1000;
/// Nothing here waits for a network.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn main() -> u8 {
    let demo = run::single_thread_runtime()
        .map_err(DemoError::Io)
        .and_then(|runtime| runtime.block_on(demo()));
    match demo {
        Ok(()) => exit::OK,
        Err(failure) => {
            print_error(&format!("pskgate: the demo failed: {failure}"));
            exit::INTERNAL
        }
    }
}

#[derive(Debug)]
enum DemoError {
    Io(io::Error),
    Diagnostics(Diagnostics),
    Other(String),
}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Diagnostics(report) => f.write_str(&report.render(false)),
            Self::Other(text) => f.write_str(text),
        }
    }
}

async fn demo() -> Result<(), DemoError> {
    let random = |error: getrandom::Error| DemoError::Other(error.to_string());
    let key = Arc::new(SecretSet::with_random_key("demo").map_err(random)?);
    let stranger = Arc::new(SecretSet::with_random_key("demo").map_err(random)?);

    let echo = TcpListener::bind("127.0.0.1:0").await?;
    let backend = echo.local_addr()?.to_string();
    tokio::spawn(serve_echo(echo));
    let never: Load = Arc::new(|| (None, Diagnostics::default()));
    for (version, name) in [("1.3", "TLS 1.3"), ("1.2", "TLS 1.2")] {
        let (server, gate) = start("server", "127.0.0.1:0", &backend, version, &key)?;
        let (client, door) = start("client", "127.0.0.1:0", &gate, version, &key)?;
        if version == "1.3" {
            print_result(&format!("plain  {door}  ->  TLS  {gate}  ->  plain echo  {backend}\n"));
        }
        let measured = tokio::time::timeout(STEP_TIMEOUT, measure(name, &door, &client)).await;
        let line = measured.map_err(|_| DemoError::Other("no answer in a minute".into()))??;
        print_result(&format!("{name}: {line}"));
        let refused =
            tokio::time::timeout(STEP_TIMEOUT, is_refused(&gate, version, &stranger)).await;
        if !refused.map_err(|_| DemoError::Other("no refusal in a minute".into()))?? {
            return Err(DemoError::Other("a client with another key was let in".into()));
        }
        print_result("         a client with another key was refused\n");
        for end in [client, server] {
            let (stop, requests) = mpsc::channel(1);
            // The channel has room for this one.
            let _ = stop.try_send(Request::Stop("demo"));
            end.serve(&never, requests).await;
        }
    }
    print_result("Make a key of your own with `pskgate keygen NAME`.");
    Ok(())
}

/// One end of a tunnel, from a configuration as a user would write it, and its address.
fn start(
    mode: &str,
    accept: &str,
    connect: &str,
    version: &str,
    key: &Arc<SecretSet>,
) -> Result<(Running, String), DemoError> {
    let text = format!(
        "[control]\nenabled = false\n\n[services.demo]\nmode = \"{mode}\"\naccept = \"{accept}\"\nconnect = \"{connect}\"\n\
         tls-min = \"{version}\"\ntls-max = \"{version}\"\npsk-secrets = \"held-in-memory\"\n"
    );
    let name = Path::new("demo.toml");
    let (config, mut report) =
        config::load_text(text.as_bytes(), name, Path::new(""), Format::Toml)
            .map_err(DemoError::Diagnostics)?;
    let Some(plan) = BuiltConfig::with_secrets(&config, key, &mut report) else {
        return Err(DemoError::Diagnostics(report));
    };
    let bound = plan.bind(&mut print_error).map_err(|errors| {
        let words: Vec<_> = errors.into_iter().map(|error| error.diagnostic.message).collect();
        DemoError::Other(words.join("; "))
    })?;
    let address = bound.addresses().into_iter().next().map(|(_, address)| address);
    let address = address.ok_or_else(|| DemoError::Other("no listener".into()))?;
    Ok((bound.start()?, address))
}

async fn serve_echo(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let (mut from, mut to) = stream.into_split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    }
}

async fn measure(
    name: &'static str,
    plain_address: &str,
    client: &Running,
) -> Result<String, DemoError> {
    let mut stream = TcpStream::connect(plain_address).await?;
    stream.set_nodelay(true)?;
    let mut trips = Vec::with_capacity(ROUND_TRIPS);
    let (request, mut answer) = ([b'?'; 100], [0; 100]);
    for _ in 0..ROUND_TRIPS {
        let start = Instant::now();
        stream.write_all(&request).await?;
        stream.read_exact(&mut answer).await?;
        trips.push(start.elapsed());
    }
    trips.sort_unstable();
    let handshake = client
        .services()
        .flat_map(|service| service.sessions())
        .filter_map(|(_, info)| info.details().map(|reached| reached.handshake.to_string()))
        .next()
        .unwrap_or_default();
    let (mut from, mut to) = stream.into_split();
    let sent: Vec<u8> = (0..BULK_SIZE).map(|n| (n * 31 + (n >> 13)) as u8).collect();
    let expected = openssl::sha::sha256(&sent);
    let mut progress = ProgressBar::new(name, BULK_SIZE as u64);
    let counter = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let count = counter.clone();
    let writer = tokio::spawn(async move {
        for piece in sent.chunks(PIECE_SIZE) {
            to.write_all(piece).await?;
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        to.shutdown().await
    });
    let mut received = Vec::with_capacity(BULK_SIZE);
    while from.read_buf(&mut received).await? > 0 {
        progress.update(counter.load(Ordering::Relaxed), received.len() as u64);
    }
    drop(progress);
    let seconds = start.elapsed().as_secs_f64();
    writer.await.map_err(|error| DemoError::Other(error.to_string()))??;
    if openssl::sha::sha256(&received) != expected {
        return Err(DemoError::Other("the echo differs from what was sent".into()));
    }
    let rate = BULK_SIZE as f64 / 1e6 / seconds;
    let median = trips.get(ROUND_TRIPS / 2).copied().unwrap_or_default();
    Ok(format!(
        "{handshake}\n         {} MiB there and back, byte-exact, at {rate:.0} MB/s; \
         {ROUND_TRIPS} round trips of 100 bytes, half of them under {} us",
        BULK_SIZE >> 20,
        median.as_micros()
    ))
}

/// Whether the server end turns away who knows the name but not the key.
async fn is_refused(
    tls_address: &str,
    version: &str,
    stranger: &Arc<SecretSet>,
) -> Result<bool, DemoError> {
    let (end, door) = start("client", "127.0.0.1:0", tls_address, version, stranger)?;
    let mut stream = TcpStream::connect(door).await?;
    // The door may have closed before the bytes are on their way: that is what is asked here.
    let _ = stream.write_all(b"let me in").await;
    let mut answer = Vec::new();
    let nothing = stream.read_to_end(&mut answer).await.is_err() || answer.is_empty();
    drop(end);
    Ok(nothing)
}
