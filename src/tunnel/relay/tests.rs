#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use super::*;

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

/// What a seed stands for, so that its end can be compared with what had to come of it.
struct Story {
    downstream: Actor,
    upstream: Actor,
}

impl Story {
    fn of(seed: u64) -> Self {
        let mut dice = Dice(seed ^ 0x5157);
        let mut actor = |n: u64| {
            let most = dice.of(&[1, 9, 1500, 16_384, 20_000, 200_000]);
            let len = match dice.below(6) {
                0 => 0,
                1 | 2 => dice.below(40),
                3 | 4 => dice.below((most * 60).min(3000)),
                _ => dice.below((most * 20).min(100_000)),
            };
            let mut says = Vec::with_capacity(len + 8);
            while says.len() < len {
                says.extend(dice.roll().to_be_bytes());
            }
            says.truncate(len);
            let ending = match dice.below(8) {
                0 => Ending::Truncated,
                1 => Ending::Error,
                2 => Ending::Silent,
                _ => Ending::Clean,
            };
            Actor::new(seed * 2 + n, says, most, ending)
        };
        let (mut downstream, mut upstream) = (actor(0), actor(1));
        let mut refuse = |side: &mut Actor, other: &Actor| {
            if dice.one_in(8) && !other.says.is_empty() {
                let mut kinds = GONE.to_vec();
                kinds.push(ErrorKind::InvalidData);
                side.refuses = Some((dice.below(other.says.len()), dice.of(&kinds)));
            }
        };
        refuse(&mut downstream, &upstream);
        refuse(&mut upstream, &downstream);
        Self { downstream, upstream }
    }

    /// Runs it and holds it to every promise. The name of what came of it.
    fn check(mut self, seed: u64) -> &'static str {
        let (outcome, meter, ended) = paused(async {
            let meter = TrafficMeter::default();
            (self.downstream.last, self.upstream.last) = (Instant::now(), Instant::now());
            let run = relay(&mut self.downstream, &mut self.upstream, IDLE, CLOSE, &meter);
            let outcome = tokio::time::timeout(HOUR * 24, run).await;
            let outcome = outcome.unwrap_or_else(|_| panic!("seed {seed} hangs"));
            (outcome, meter, Instant::now())
        });
        let (down, up) = (&self.downstream, &self.upstream);
        let told = format!(
            "seed {seed}: {outcome:?}; downstream says {} {:?}, refuses {:?}; upstream says {} {:?}, \
             refuses {:?}",
            down.says.len(),
            down.ending,
            down.refuses,
            up.says.len(),
            up.ending,
            up.refuses
        );
        assert_eq!(meter.up(), up.heard.len() as u64, "{told}");
        assert_eq!(meter.down(), down.heard.len() as u64, "{told}");
        for (reader, writer) in [(down, up), (up, down)] {
            // Lost, doubled or reordered bytes all show here; a cut may leave some out at the end.
            assert!(reader.says.starts_with(&writer.heard), "{told}");
            if let Some(at) = writer.shutting {
                assert!(reader.ended && reader.ending == Ending::Clean, "{told}");
                assert_eq!(at, reader.says.len(), "{told}");
            }
        }
        let faulty = |side: &Actor| side.refused || (side.ended && side.ending == Ending::Error);
        let delivered =
            |from: &Actor, to: &Actor| to.heard == from.says && to.flushed == to.heard.len();
        let silence = ended - down.last.max(up.last);
        match &outcome {
            RelayOutcome::Complete => {
                assert!(down.shut && up.shut, "{told}");
                assert!(delivered(down, up) && delivered(up, down), "{told}");
            }
            RelayOutcome::Downstream(SideError::Truncated) => {
                assert!(down.ended && down.ending == Ending::Truncated, "{told}");
                assert_eq!(down.says, up.heard, "{told}");
            }
            RelayOutcome::Upstream(SideError::Truncated) => {
                assert!(up.ended && up.ending == Ending::Truncated, "{told}");
                assert_eq!(up.says, down.heard, "{told}");
            }
            RelayOutcome::Downstream(SideError::Failed(_)) => assert!(faulty(down), "{told}"),
            RelayOutcome::Upstream(SideError::Failed(_)) => assert!(faulty(up), "{told}"),
            RelayOutcome::Idle => {
                assert_eq!(silence, IDLE, "{told}");
                assert_eq!([down.ending, up.ending], [Ending::Silent; 2], "{told}");
                assert!(delivered(down, up) && delivered(up, down), "{told}");
            }
            RelayOutcome::HalfClosed { .. } => {
                assert_eq!(silence, CLOSE, "{told}");
                assert!(down.shut || up.shut || down.refused || up.refused, "{told}");
                assert_ne!((down.shut, up.shut), (true, true), "{told}");
            }
        }
        let gone = |side: &Actor| side.refuses.is_some_and(|(_, kind)| GONE.contains(&kind));
        let reset = |side: &Actor| side.refuses.is_some_and(|(_, kind)| RESET.contains(&kind));
        let kind = (down.ending, up.ending, down.refuses.is_some(), up.refuses.is_some());
        match kind {
            (Ending::Clean, Ending::Clean, false, false) => {
                assert!(matches!(outcome, RelayOutcome::Complete), "{told}");
            }
            // The one that takes no more has its say all the same.
            (_, Ending::Clean, false, true) if gone(up) && up.refused => {
                assert!(matches!(outcome, RelayOutcome::Upstream(SideError::Failed(_))), "{told}");
                assert_eq!(down.heard, up.says, "{told}");
                assert!(down.shut || reset(up), "{told}");
            }
            (Ending::Clean, _, true, false) if gone(down) && down.refused => {
                assert!(
                    matches!(outcome, RelayOutcome::Downstream(SideError::Failed(_))),
                    "{told}"
                );
                assert_eq!(up.heard, down.says, "{told}");
                assert!(up.shut || reset(down), "{told}");
            }
            (Ending::Clean, Ending::Silent, false, false)
            | (Ending::Silent, Ending::Clean, false, false) => {
                assert!(matches!(outcome, RelayOutcome::HalfClosed { .. }), "{told}");
                assert!(delivered(up, down) && delivered(down, up), "{told}");
            }
            (Ending::Silent, Ending::Silent, false, false) => {
                assert!(matches!(outcome, RelayOutcome::Idle), "{told}");
            }
            _ => assert!(!matches!(outcome, RelayOutcome::Complete), "{told}"),
        }
        match outcome {
            RelayOutcome::Complete => "complete",
            RelayOutcome::Idle => "idle",
            RelayOutcome::HalfClosed { .. } => "half-closed",
            RelayOutcome::Downstream(SideError::Truncated)
            | RelayOutcome::Upstream(SideError::Truncated) => "cut",
            RelayOutcome::Downstream(_) | RelayOutcome::Upstream(_) => "failed",
        }
    }
}

#[test]
fn whatever_the_streams_do_every_byte_comes_once_in_order_and_the_end_is_told_truly() {
    let mut met = std::collections::BTreeMap::new();
    for seed in 0..2500 {
        *met.entry(Story::of(seed).check(seed)).or_insert(0) += 1;
    }
    assert_eq!(met.len(), 5, "{met:?}");
    assert!(met.values().all(|times| *times >= 30), "{met:?}");
}

// ---- one promise each ----------------------------------------------------------------------

impl RelayStream for DuplexStream {}

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

fn after_start(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

#[test]
fn an_answer_that_comes_long_after_the_half_close_arrives_both_ways() {
    paused(async {
        for swapped in [false, true] {
            let (one, two, run) = between(1024, IDLE, CLOSE);
            let (mut asks, mut answers) = if swapped { (two, one) } else { (one, two) };
            asks.write_all(b"request").await.unwrap();
            asks.shutdown().await.unwrap();
            let mut request = Vec::new();
            answers.read_to_end(&mut request).await.unwrap();
            assert_eq!(request, b"request");
            for _ in 0..3 {
                sleep(CLOSE - Duration::from_millis(1)).await;
                answers.write_all(b"answer").await.unwrap();
            }
            answers.shutdown().await.unwrap();
            let mut answer = Vec::new();
            asks.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"answeransweranswer");
            assert!(matches!(run.await.unwrap().0, RelayOutcome::Complete));
        }
    });
}

#[test]
fn the_idle_limit_counts_from_the_last_byte_of_either_direction() {
    paused(async {
        let start = Instant::now();
        let (mut client, mut backend, run) = between(64, Duration::from_millis(5000), CLOSE);
        sleep(Duration::from_millis(4999)).await;
        client.write_all(b"x").await.unwrap();
        sleep(Duration::from_millis(4998)).await;
        backend.write_all(b"y").await.unwrap();
        let (outcome, ended) = run.await.unwrap();
        assert!(matches!(outcome, RelayOutcome::Idle), "{outcome:?}");
        assert_eq!(ended, after_start(start, 4999 + 4998 + 5000));
    });
}

#[test]
fn the_close_limit_counts_from_the_half_close_and_then_from_the_last_byte() {
    paused(async {
        let start = Instant::now();
        let (mut client, mut backend, run) = between(64, IDLE, Duration::from_millis(700));
        sleep(Duration::from_millis(100)).await;
        client.shutdown().await.unwrap();
        sleep(Duration::from_millis(699)).await;
        backend.write_all(b"y").await.unwrap();
        let (outcome, ended) = run.await.unwrap();
        assert!(matches!(outcome, RelayOutcome::HalfClosed { .. }), "{outcome:?}");
        assert_eq!(ended, after_start(start, 100 + 699 + 700));
    });
}

#[test]
fn a_reader_that_is_merely_slow_is_under_the_idle_limit_also_after_a_half_close() {
    paused(async {
        let start = Instant::now();
        let (mut client, mut backend, run) = between(16, Duration::from_millis(9000), CLOSE / 100);
        client.shutdown().await.unwrap();
        let answer = tokio::spawn(async move {
            let _ = backend.write_all(&[7; 1000]).await;
            backend
        });
        sleep(Duration::from_millis(5000)).await;
        let mut some = [0; 10];
        client.read_exact(&mut some).await.unwrap();
        assert_eq!(some, [7; 10]);
        let (outcome, ended) = run.await.unwrap();
        assert!(matches!(outcome, RelayOutcome::Idle), "{outcome:?}");
        assert_eq!(ended, after_start(start, 5000 + 9000));
        drop(answer.await);
    });
}

#[test]
fn a_limit_beyond_all_clocks_is_no_mistake() {
    paused(async {
        let (mut client, mut backend, run) = between(64, Duration::MAX, Duration::MAX);
        client.write_all(b"x").await.unwrap();
        sleep(HOUR * 24 * 60).await;
        client.shutdown().await.unwrap();
        sleep(HOUR * 24 * 60).await;
        backend.shutdown().await.unwrap();
        assert!(matches!(run.await.unwrap().0, RelayOutcome::Complete));
    });
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

#[test]
fn what_was_written_is_flushed_before_the_relay_waits_for_more() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (mut backend, pipe) = duplex(64);
        let mut upstream = Buffered { pipe, kept: Vec::new(), tried: false };
        tokio::spawn(async move {
            relay(&mut downstream, &mut upstream, IDLE, CLOSE, &TrafficMeter::default()).await
        });
        for question in [b"one", b"two"] {
            client.write_all(question).await.unwrap();
            let mut heard = [0; 3];
            let read = tokio::time::timeout(CLOSE, backend.read_exact(&mut heard));
            read.await.expect("it was never flushed").unwrap();
            assert_eq!(&heard, question);
        }
    });
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

#[test]
fn a_peer_that_takes_no_more_is_heard_out_and_its_end_is_the_end() {
    for kind in GONE {
        paused(async {
            let mut client = actor("more and more", Ending::Silent, None);
            let mut backend = actor("last words", Ending::Clean, Some(kind));
            let (outcome, took) = relayed(&mut client, &mut backend).await;
            let RelayOutcome::Upstream(SideError::Failed(error)) = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(error.kind(), if RESET.contains(&kind) { RESET[0] } else { kind });
            assert_eq!(client.heard, b"last words");
            assert!(took < CLOSE);
            // After a reset the words are passed on, and their end is not.
            assert_eq!(client.shut, !RESET.contains(&kind), "{kind:?}");
        });
    }
}

#[test]
fn an_end_that_the_peer_proves_counts_after_a_reset_too() {
    paused(async {
        let mut client = actor("more and more", Ending::Silent, None);
        let mut backend = actor("last words", Ending::Clean, Some(ErrorKind::ConnectionReset));
        backend.proves = true;
        let (outcome, _) = relayed(&mut client, &mut backend).await;
        assert!(matches!(outcome, RelayOutcome::Upstream(SideError::Failed(_))), "{outcome:?}");
        assert!(client.heard == b"last words" && client.shut);
    });
}

#[test]
fn a_peer_that_takes_no_more_and_says_nothing_is_left_at_the_close_limit() {
    paused(async {
        let mut client = actor("more", Ending::Silent, None);
        let mut backend = actor("", Ending::Silent, Some(ErrorKind::BrokenPipe));
        let (outcome, _) = relayed(&mut client, &mut backend).await;
        assert!(matches!(outcome, RelayOutcome::HalfClosed { .. }), "{outcome:?}");
    });
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

#[test]
fn after_a_long_silence_a_refusal_still_leaves_the_close_limit_for_the_last_words() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (mut backend, pipe) = duplex(64);
        let run = tokio::spawn(async move {
            let meter = TrafficMeter::default();
            relay(&mut downstream, &mut Deaf(pipe), IDLE, CLOSE, &meter).await
        });
        sleep(CLOSE * 4).await;
        client.write_all(b"still there?").await.unwrap();
        sleep(CLOSE / 2).await;
        let last = tokio::spawn(async move {
            backend.write_all(b"goodbye").await.unwrap();
            backend.shutdown().await.unwrap();
            backend
        });
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"goodbye");
        assert!(matches!(run.await.unwrap(), RelayOutcome::Upstream(SideError::Failed(_))));
        drop(last.await);
    });
}

#[test]
fn a_peer_that_is_gone_when_its_write_side_is_shut_has_had_everything() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (mut backend, pipe) = duplex(64);
        client.shutdown().await.unwrap();
        backend.shutdown().await.unwrap();
        let meter = TrafficMeter::default();
        let outcome = relay(&mut downstream, &mut Deaf(pipe), IDLE, CLOSE, &meter).await;
        assert!(matches!(outcome, RelayOutcome::Complete), "{outcome:?}");
    });
}

#[test]
fn two_peers_that_both_take_no_more_are_not_waited_for() {
    paused(async {
        let mut client = actor("more", Ending::Silent, Some(ErrorKind::BrokenPipe));
        let mut backend = actor("more", Ending::Silent, Some(ErrorKind::ConnectionReset));
        let (outcome, took) = relayed(&mut client, &mut backend).await;
        assert!(
            matches!(
                outcome,
                RelayOutcome::Upstream(SideError::Failed(_))
                    | RelayOutcome::Downstream(SideError::Failed(_))
            ),
            "{outcome:?}"
        );
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn an_error_that_is_no_goodbye_ends_it_at_once() {
    paused(async {
        let mut client = actor("more", Ending::Silent, None);
        let mut backend = actor("", Ending::Silent, Some(ErrorKind::InvalidData));
        let (outcome, took) = relayed(&mut client, &mut backend).await;
        assert!(matches!(outcome, RelayOutcome::Upstream(SideError::Failed(_))));
        assert!(took < Duration::from_secs(1));
    });
}

#[test]
fn a_cut_stream_delivers_what_it_had_and_is_never_passed_on_as_an_end() {
    paused(async {
        for ending in [Ending::Truncated, Ending::Error] {
            let mut client = actor("", Ending::Silent, None);
            // The client takes this in small pieces and late.
            let mut backend = actor("half an answer", ending, None);
            backend.most = 100;
            let (outcome, _) = relayed(&mut client, &mut backend).await;
            assert!(matches!(outcome, RelayOutcome::Upstream(_)), "{outcome:?}");
            assert!(client.shutting.is_none());
            if ending == Ending::Truncated {
                assert_eq!(client.heard, b"half an answer");
            }
        }
    });
}

#[test]
fn the_buffer_for_a_slow_writer_is_bounded_and_given_back() {
    paused(async {
        let (mut client, mut downstream) = duplex(1 << 20);
        let (mut backend, mut upstream) = duplex(10);
        let mut direction = Direction::default();
        client.write_all(&[9; 1 << 20]).await.unwrap();
        poll_fn(|cx| {
            let polled = direction.poll(cx, &mut downstream, &mut upstream);
            assert!(polled.is_pending());
            Poll::Ready(())
        })
        .await;
        assert!((1..=RELAY_BUFFER_SIZE).contains(&direction.held.capacity()));
        let drain = tokio::spawn(async move {
            let mut all = vec![0; 1 << 20];
            backend.read_exact(&mut all).await.unwrap();
            (backend, all)
        });
        tokio::select! {
            biased;
            _ = poll_fn(|cx| direction.poll(cx, &mut downstream, &mut upstream)) => {}
            () = sleep(HOUR) => {}
        }
        assert_eq!(direction.bytes, 1 << 20);
        assert_eq!(direction.held.capacity(), 0);
        let (_backend, all) = drain.await.unwrap();
        assert!(all.iter().all(|byte| *byte == 9));
    });
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

#[test]
fn a_stream_without_end_lets_the_others_have_their_turn() {
    paused(async {
        let (mut one, mut two) = (Endless { said: 0 }, Endless { said: 0 });
        let meter = TrafficMeter::default();
        {
            let mut run = std::pin::pin!(relay(&mut one, &mut two, IDLE, CLOSE, &meter));
            for _ in 0..3 {
                let polled = poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx))).await;
                assert!(polled.is_pending());
            }
        }
        for side in [one.said, two.said] {
            assert!(side == 3 * RELAY_BUFFER_SIZE, "{side}");
        }
    });
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

/// Relays between these two until it ends: how, and after how many seconds.
async fn watched(down: &mut Watched, up: &mut Watched) -> (RelayOutcome, u64) {
    let start = Instant::now();
    let outcome = relay(down, up, IDLE, CLOSE, &TrafficMeter::default()).await;
    (outcome, start.elapsed().as_secs())
}

#[test]
fn a_session_that_one_side_stalls_is_looked_at_every_two_seconds_on_both() {
    paused(async {
        for down_says in [false, true] {
            for down_breaks in [false, true] {
                for backlog in [false, true] {
                    let says = |it| Watched::new(if it { b"x" } else { b"" });
                    let (mut down, mut up) = (says(down_says), says(!down_says));
                    let hears = if down_says { &mut up } else { &mut down };
                    // Taken by TLS and not by the socket is as good as not taken.
                    match backlog {
                        true => hears.backlog = 1,
                        false => hears.deaf = Some(Box::pin(sleep(HOUR))),
                    }
                    let breaks = if down_breaks { &mut down } else { &mut up };
                    breaks.broken = Some(Duration::from_secs(5));
                    let (outcome, took) = watched(&mut down, &mut up).await;
                    let told = format!("{outcome:?} {down_says} {down_breaks} {backlog}");
                    assert_eq!(took, 6, "{told}");
                    let (RelayOutcome::Downstream(SideError::Failed(error))
                    | RelayOutcome::Upstream(SideError::Failed(error))) = &outcome
                    else {
                        panic!("{told}");
                    };
                    assert_eq!(error.kind(), ErrorKind::TimedOut, "{told}");
                    assert_eq!(
                        matches!(outcome, RelayOutcome::Downstream(_)),
                        down_breaks,
                        "{told}"
                    );
                    assert_eq!(*down.asked.borrow(), [2, 4, 6], "{told}");
                }
            }
        }
    });
}

#[test]
fn what_is_on_its_way_is_looked_after_every_five_seconds_and_costs_no_timer_once_it_is_there() {
    paused(async {
        for down_waits in [false, true] {
            let (mut down, mut up) = (Watched::new(b"x"), Watched::new(b""));
            let waits = if down_waits { &mut down } else { &mut up };
            waits.in_flight = Duration::from_secs(12);
            let (outcome, took) = watched(&mut down, &mut up).await;
            assert!(matches!(outcome, RelayOutcome::Idle), "{outcome:?}");
            assert_eq!(took, IDLE.as_secs());
            for side in [down, up] {
                assert_eq!(*side.asked.borrow(), [5, 10, 15], "{down_waits}");
            }
        }
        let (mut down, mut up) = (Watched::new(b""), Watched::new(b""));
        watched(&mut down, &mut up).await;
        assert!(down.asked.borrow().is_empty(), "nothing was ever on its way");
    });
}

#[test]
fn who_stalled_for_a_while_is_then_looked_after_like_any_other() {
    paused(async {
        let (mut down, mut up) = (Watched::new(b"x"), Watched::new(b"").deaf_for(3));
        up.in_flight = Duration::from_secs(9);
        watched(&mut down, &mut up).await;
        assert_eq!(*up.asked.borrow(), [2, 3 + 5, 3 + 10]);
    });
}

#[test]
fn a_rate_is_that_of_the_last_full_second_or_of_the_longer_one_that_goes_on() {
    paused(async {
        let meter = TrafficMeter::default();
        let wait = |ms| sleep(Duration::from_millis(ms));
        assert_eq!(meter.rates(), (0, 0));
        wait(400).await;
        meter.count(Instant::now(), 1000, 10);
        assert_eq!(meter.rates(), (0, 0), "a second is not over");
        wait(600).await;
        assert_eq!(meter.rates(), (1000, 10));
        wait(1000).await;
        assert_eq!(meter.rates(), (500, 5));
        let second = Instant::now();
        meter.count(second, 5000, 30);
        assert_eq!((meter.up(), meter.down(), meter.touched()), (5000, 30, second));
        assert_eq!(meter.rates(), (500, 5), "of the two seconds before");
        wait(999).await;
        meter.count(Instant::now(), 9000, 40);
        assert_eq!(meter.rates(), (500, 5), "the next window goes on");
        wait(3001).await;
        assert_eq!(meter.rates(), (2000, 7));
    });
}

#[test]
fn the_idle_limit_begins_with_the_relay_and_not_with_the_session() {
    paused(async {
        let meter = TrafficMeter::default();
        sleep(IDLE / 2).await;
        let (mut down, mut up) = (Watched::new(b""), Watched::new(b""));
        let start = Instant::now();
        let outcome = relay(&mut down, &mut up, IDLE, CLOSE, &meter).await;
        assert!(matches!(outcome, RelayOutcome::Idle), "{outcome:?}");
        assert_eq!(start.elapsed(), IDLE);
    });
}

#[test]
fn a_side_is_a_plain_stream_without_troubles_unless_it_says_otherwise() {
    let (side, _other) = duplex(1);
    assert!(side.ended_cleanly() && !side.proves_its_end());
    assert!(side.backlog() == 0 && side.fault().is_none() && !side.in_flight());
}

#[test]
fn the_close_limit_tells_whether_it_was_upstream_that_had_said_all() {
    paused(async {
        for down_ends in [false, true] {
            let (mut client, mut backend, run) = between(64, IDLE, CLOSE);
            let ends = if down_ends { &mut client } else { &mut backend };
            ends.shutdown().await.unwrap();
            let RelayOutcome::HalfClosed { down_ended } = run.await.unwrap().0 else {
                panic!("it did not end by the close limit");
            };
            assert_eq!(down_ended, !down_ends);
        }
    });
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

#[test]
fn one_that_refuses_the_last_of_it_is_heard_out_as_well() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (mut backend, pipe) = duplex(64);
        let (flush, shutdown, flushes) = (Some(ErrorKind::BrokenPipe), None, 0);
        let mut upstream = Failing { pipe, flush, shutdown, flushes };
        let run = tokio::spawn(async move {
            relay(&mut downstream, &mut upstream, IDLE, CLOSE, &TrafficMeter::default()).await
        });
        client.shutdown().await.unwrap();
        sleep(CLOSE / 2).await;
        backend.write_all(b"last words").await.unwrap();
        backend.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
        let outcome = run.await.unwrap();
        assert!(matches!(outcome, RelayOutcome::Upstream(SideError::Failed(_))), "{outcome:?}");
    });
}

#[test]
fn an_error_at_the_shutdown_that_is_no_goodbye_ends_it_at_once() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (_backend, pipe) = duplex(64);
        let shutdown = Some(ErrorKind::InvalidData);
        let mut upstream = Failing { pipe, flush: None, shutdown, flushes: 0 };
        client.shutdown().await.unwrap();
        let meter = TrafficMeter::default();
        let outcome = relay(&mut downstream, &mut upstream, IDLE, CLOSE, &meter).await;
        assert!(matches!(outcome, RelayOutcome::Upstream(SideError::Failed(_))), "{outcome:?}");
    });
}

#[test]
fn an_end_and_what_is_longer_than_a_batch_are_passed_on_at_once() {
    paused(async {
        let (mut client, mut backend, run) = between(3 * RELAY_BUFFER_SIZE, IDLE, CLOSE);
        let start = Instant::now();
        client.write_all(&[7; 2 * RELAY_BUFFER_SIZE + 1]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        backend.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), 2 * RELAY_BUFFER_SIZE + 1);
        backend.shutdown().await.unwrap();
        let (outcome, ended) = run.await.unwrap();
        assert!(matches!(outcome, RelayOutcome::Complete), "{outcome:?}");
        assert_eq!(ended - start, Duration::ZERO);
    });
}

#[test]
fn what_has_been_flushed_is_not_flushed_again_for_the_other_direction() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (mut backend, pipe) = duplex(64);
        let mut upstream = Failing { pipe, flush: None, shutdown: None, flushes: 0 };
        let run = async {
            let meter = TrafficMeter::default();
            relay(&mut downstream, &mut upstream, IDLE, CLOSE, &meter).await
        };
        let talk = async {
            client.write_all(b"x").await.unwrap();
            for _ in 0..5 {
                backend.write_all(b"y").await.unwrap();
                client.read_exact(&mut [0]).await.unwrap();
            }
            (client, backend)
        };
        let (outcome, _) = tokio::join!(run, talk);
        assert!(matches!(outcome, RelayOutcome::Idle), "{outcome:?}");
        // The end of the handshake, and the one byte.
        assert_eq!(upstream.flushes, 2);
    });
}
