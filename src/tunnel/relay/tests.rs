#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use super::*;

mod flushing;
mod last_words;
mod limits;
mod stalls;
mod stories;

const HOUR: Duration = Duration::from_secs(3600);

const IDLE: Duration = Duration::from_secs(300);

const CLOSE: Duration = Duration::from_secs(60);

fn paused<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

/// SplitMix64: the same seed, the same story.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        (self.roll() % n as u64) as usize
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// How a scripted peer's stream ends, behind all that it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Clean,
    Truncated,
    Error,
    Silent,
}

/// Makes a poll wait at random: a wake at once, or after some virtual time.
#[derive(Default)]
struct Hesitation {
    sleep: Option<Pin<Box<Sleep>>>,
    waited: bool,
}

impl Hesitation {
    fn poll(&mut self, cx: &mut Context<'_>, dice: &mut Dice) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
            return Poll::Ready(());
        }
        if std::mem::take(&mut self.waited) || !dice.one_in(3) {
            return Poll::Ready(());
        }
        self.waited = true;
        if dice.one_in(2) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let pause = Duration::from_millis(1 + dice.below(50) as u64);
        let mut sleep = Box::pin(tokio::time::sleep(pause));
        let _ = sleep.as_mut().poll(cx);
        self.sleep = Some(sleep);
        Poll::Pending
    }
}

/// One peer and the stream to it: it says its part in random pieces, and hears in random pieces.
struct Actor {
    dice: Dice,
    most: usize,
    says: Vec<u8>,
    said: usize,
    ending: Ending,
    ended: bool,
    proves: bool,
    heard: Vec<u8>,
    flushed: usize,
    /// What the writer was offered when it said "not now": it has to be offered that again.
    offered: Option<Vec<u8>>,
    refuses: Option<(usize, ErrorKind)>,
    refused: bool,
    /// How many bytes had come when the write side was first asked to shut down.
    shutting: Option<usize>,
    shut: bool,
    last: Instant,
    reading: Hesitation,
    writing: Hesitation,
}

impl Actor {
    fn new(seed: u64, says: Vec<u8>, most: usize, ending: Ending) -> Self {
        Self {
            dice: Dice(seed),
            most,
            says,
            said: 0,
            ending,
            ended: false,
            proves: false,
            heard: Vec::new(),
            flushed: 0,
            offered: None,
            refuses: None,
            refused: false,
            shutting: None,
            shut: false,
            last: Instant::now(),
            reading: Hesitation::default(),
            writing: Hesitation::default(),
        }
    }
}

impl RelayStream for Actor {
    fn ended_cleanly(&self) -> bool {
        assert!(self.ended, "asked before the stream has ended");
        self.ending == Ending::Clean
    }

    fn proves_its_end(&self) -> bool {
        self.proves
    }
}

impl AsyncRead for Actor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        assert!(!this.ended, "read again after the end");
        ready!(this.reading.poll(cx, &mut this.dice));
        let rest = &this.says[this.said..];
        if !rest.is_empty() {
            let most = rest.len().min(buf.remaining()).min(this.most);
            let n = 1 + this.dice.below(most);
            buf.put_slice(&rest[..n]);
            this.said += n;
            return Poll::Ready(Ok(()));
        }
        if this.ending == Ending::Silent {
            return Poll::Pending;
        }
        this.ended = true;
        Poll::Ready(match this.ending {
            Ending::Error => Err(ErrorKind::ConnectionReset.into()),
            _ => Ok(()),
        })
    }
}

impl AsyncWrite for Actor {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        assert!(!buf.is_empty() && this.shutting.is_none() && !this.refused);
        if let Some(offered) = &this.offered {
            assert!(buf.starts_with(offered), "OpenSSL: bad write retry");
        }
        if this.writing.poll(cx, &mut this.dice).is_pending() {
            this.offered = Some(buf.to_vec());
            return Poll::Pending;
        }
        this.offered = None;
        let mut most = buf.len().min(this.most);
        if let Some((after, kind)) = this.refuses {
            most = most.min(after - this.heard.len());
            if most == 0 {
                this.refused = true;
                this.last = Instant::now();
                return Poll::Ready(if kind == ErrorKind::WriteZero {
                    Ok(0)
                } else {
                    Err(kind.into())
                });
            }
        }
        let n = 1 + this.dice.below(most);
        this.heard.extend(&buf[..n]);
        this.last = Instant::now();
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        assert!(this.shutting.is_none() && !this.refused);
        ready!(this.writing.poll(cx, &mut this.dice));
        this.flushed = this.heard.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        assert!(!this.shut && !this.refused, "a second shutdown");
        assert_eq!(this.flushed, this.heard.len(), "shut down before the flush");
        this.shutting.get_or_insert(this.heard.len());
        ready!(this.writing.poll(cx, &mut this.dice));
        this.shut = true;
        this.last = Instant::now();
        Poll::Ready(Ok(()))
    }
}

const GONE: [ErrorKind; 5] = [
    ErrorKind::BrokenPipe,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
    ErrorKind::NotConnected,
    ErrorKind::WriteZero,
];

/// Those of them after which an end of the same stream is nobody's word.
const RESET: [ErrorKind; 2] = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];

/// Two relayed duplex pipes: the ends that the peers hold, and the relay's outcome.
fn between(
    capacity: usize,
    idle: Duration,
    close: Duration,
) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<(RelayOutcome, Instant)>) {
    let (client, mut downstream) = duplex(capacity);
    let (backend, mut upstream) = duplex(capacity);
    let run = tokio::spawn(async move {
        let meter = TrafficMeter::default();
        let outcome = relay(&mut downstream, &mut upstream, idle, close, &meter).await;
        (outcome, Instant::now())
    });
    (client, backend, run)
}

fn actor(says: &str, ending: Ending, refuses: Option<ErrorKind>) -> Actor {
    let mut actor = Actor::new(1, says.into(), 4, ending);
    actor.refuses = refuses.map(|kind| (0, kind));
    actor
}

async fn relayed(downstream: &mut Actor, upstream: &mut Actor) -> (RelayOutcome, Duration) {
    let start = Instant::now();
    let outcome = relay(downstream, upstream, IDLE, CLOSE, &TrafficMeter::default()).await;
    (outcome, start.elapsed())
}

/// Hears and says what it is told to, and notes when it is asked whether something is wrong with it.
struct Watched {
    says: &'static [u8],
    /// Takes nothing before that moment.
    deaf: Option<Pin<Box<Sleep>>>,
    backlog: usize,
    broken: Option<Duration>,
    in_flight: Duration,
    start: Instant,
    asked: RefCell<Vec<u64>>,
}

impl Watched {
    fn new(says: &'static [u8]) -> Self {
        Self {
            says,
            deaf: None,
            backlog: 0,
            broken: None,
            in_flight: Duration::ZERO,
            start: Instant::now(),
            asked: RefCell::default(),
        }
    }

    fn deaf_for(mut self, seconds: u64) -> Self {
        self.deaf = Some(Box::pin(sleep(Duration::from_secs(seconds))));
        self
    }
}

impl RelayStream for Watched {
    fn backlog(&self) -> usize {
        self.backlog
    }

    fn fault(&self) -> Option<io::Error> {
        let now = self.start.elapsed();
        self.asked.borrow_mut().push(now.as_secs());
        self.broken.filter(|broken| *broken <= now).map(|_| ErrorKind::TimedOut.into())
    }

    fn in_flight(&self) -> bool {
        self.start.elapsed() < self.in_flight
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let says = std::mem::take(&mut self.says);
        buf.put_slice(says);
        if says.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(deaf) = &mut self.deaf {
            ready!(deaf.as_mut().poll(cx));
            self.deaf = None;
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Shows nothing to its peer before a flush, and takes nothing at the first try.
struct Buffered {
    pipe: DuplexStream,
    kept: Vec<u8>,
    tried: bool,
}

impl RelayStream for Buffered {}

impl AsyncRead for Buffered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !std::mem::replace(&mut self.tried, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.tried = false;
        self.kept.extend(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.kept.is_empty() {
            let n = ready!(Pin::new(&mut this.pipe).poll_write(cx, &this.kept))?;
            this.kept.drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        assert!(self.kept.is_empty());
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// Fails in its own way when it is flushed for the second time, or shut down.
struct Failing {
    pipe: DuplexStream,
    flush: Option<ErrorKind>,
    shutdown: Option<ErrorKind>,
    flushes: usize,
}

impl RelayStream for Failing {}

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for Failing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        assert!(self.flushes < 3 || self.flush.is_none(), "flushed again after it has failed");
        let fails = self.flush.filter(|_| self.flushes == 2);
        Poll::Ready(fails.map_or(Ok(()), |kind| Err(kind.into())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown.map_or(Ok(()), |kind| Err(kind.into())))
    }
}

/// Takes nothing.
struct Deaf(DuplexStream);

impl RelayStream for Deaf {}

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(ErrorKind::BrokenPipe.into()))
    }
}

/// Always has more to say and takes everything.
struct Endless {
    said: usize,
}

impl RelayStream for Endless {}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let more = buf.initialize_unfilled().len();
        self.said += more;
        buf.advance(more);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
