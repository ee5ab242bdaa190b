//! Two directions between two streams: every byte once and in order, both half-closes, bounded
//! memory, and an honest word about how it ended.
//!
//! Each direction is *copying → flushing → shutting down → done*. The end of one side's stream shuts
//! the write side of the other exactly once, and the reverse goes on.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use turn::{SMALL_BATCH_SIZE, SessionTurns};

#[cfg(test)]
mod tests;
mod turn;

/// One batch. Belongs to the thread and is borrowed within one poll, so that an idle session holds no
/// buffer at all. It holds what `tls::batched_io` receives at once (128 kB), and a record that had begun before.
const RELAY_BUFFER_SIZE: usize = 160 * 1024;
/// A smaller rest is not worth another read: two TLS records (RFC 9846 and 8446, 5.1).
const MIN_READ_SIZE: usize = 32 * 1024;

/// How often a session that one side stalls looks whether the other is still there. Nobody reads
/// from that one meanwhile, so that its reset, or the keepalive that found it dead, would go unseen.
const STALLED_PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How often the same is looked for while something is on its way to a peer. One that got all of it is
/// left to keepalive, and costs no timer.
const IN_FLIGHT_PROBE_INTERVAL: Duration = Duration::from_secs(5);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; RELAY_BUFFER_SIZE].into_boxed_slice());
}

/// One of the two streams.
pub(super) trait RelayStream: AsyncRead + AsyncWrite + Unpin {
    /// Whether the end of the stream, once a read has reported it, was said by the peer and not
    /// made by whoever cut the line.
    fn ended_cleanly(&self) -> bool {
        true
    }

    /// Whether nobody but the peer can have made a clean end of it. A plain stream after a reset reads
    /// as if it had ended, once a write has been told of the reset.
    fn proves_its_end(&self) -> bool {
        false
    }

    /// Whether others should have a turn before the next read.
    fn is_turn_over(&self) -> bool {
        false
    }

    /// The room that a read wants beyond what it brings.
    fn spare_room(&self) -> usize {
        0
    }

    /// Bytes that it has taken and not yet handed to the system.
    fn backlog(&self) -> usize {
        0
    }

    /// What the system knows to be wrong with it, without a read or a write.
    fn fault(&self) -> Option<io::Error> {
        None
    }

    /// Whether its peer still has to answer for what was sent, so that something may come to be wrong
    /// of which no read would tell.
    fn in_flight(&self) -> bool {
        false
    }
}

/// Why a side failed.
#[derive(Debug)]
pub(super) enum SideError {
    /// Its stream ended without the peer saying so.
    Truncated,
    /// Reading or writing failed.
    Failed(io::Error),
}

/// How a relay ended.
#[derive(Debug)]
pub(super) enum RelayOutcome {
    /// Both directions ended in order.
    Complete,
    /// Silence in both directions for longer than the idle limit.
    Idle,
    /// Silence after one direction had ended, for longer than the close limit.
    HalfClosed {
        /// Downstream has everything that upstream had to say; it was upstream that was not done.
        down_ended: bool,
    },
    /// The downstream side failed.
    Downstream(SideError),
    /// The upstream side failed.
    Upstream(SideError),
}

/// Over how long a rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// What a session has moved so far, for whoever looks from outside.
#[derive(Debug)]
pub(super) struct TrafficMeter {
    base: Instant,
    touched: AtomicU64,
    up: ByteCounter,
    down: ByteCounter,
    /// When the window that is being counted began, in milliseconds since `base`.
    window: AtomicU64,
}

/// The bytes of one direction.
#[derive(Debug, Default)]
struct ByteCounter {
    total: AtomicU64,
    /// The total at the begin of the window.
    before: AtomicU64,
    /// Bytes a second in the window before.
    rate: AtomicU64,
}

impl Default for TrafficMeter {
    fn default() -> Self {
        let (touched, window) = (AtomicU64::new(0), AtomicU64::new(0));
        let (up, down) = (ByteCounter::default(), ByteCounter::default());
        Self { base: Instant::now(), touched, up, down, window }
    }
}

impl TrafficMeter {
    /// Bytes from downstream to upstream.
    pub(super) fn up(&self) -> u64 {
        self.up.total.load(Ordering::Relaxed)
    }

    /// Bytes from upstream to downstream.
    pub(super) fn down(&self) -> u64 {
        self.down.total.load(Ordering::Relaxed)
    }

    /// When a byte moved last, in either direction.
    pub(super) fn touched(&self) -> Instant {
        self.base + Duration::from_millis(self.touched.load(Ordering::Relaxed))
    }

    /// Bytes a second of late: up and down. They are those of the last window that was full, or of
    /// the one that has begun, once that is longer.
    pub(super) fn rates(&self) -> (u64, u64) {
        let open = self.age(Instant::now()).saturating_sub(self.window.load(Ordering::Relaxed));
        let of = |counted: &ByteCounter| match u128::from(open) >= RATE_WINDOW.as_millis() {
            true => counted.since(open),
            false => counted.rate.load(Ordering::Relaxed),
        };
        (of(&self.up), of(&self.down))
    }

    fn age(&self, now: Instant) -> u64 {
        u64::try_from((now - self.base).as_millis()).unwrap_or(u64::MAX)
    }

    fn touch(&self, now: Instant) {
        self.touched.store(self.age(now), Ordering::Relaxed);
    }

    pub(super) fn count(&self, now: Instant, up: u64, down: u64) {
        let age = self.age(now);
        let open = age.saturating_sub(self.window.load(Ordering::Relaxed));
        if u128::from(open) >= RATE_WINDOW.as_millis() {
            self.up.roll(open);
            self.down.roll(open);
            self.window.store(age, Ordering::Relaxed);
        }
        self.up.total.store(up, Ordering::Relaxed);
        self.down.total.store(down, Ordering::Relaxed);
        self.touched.store(age, Ordering::Relaxed);
    }
}

impl ByteCounter {
    /// Bytes a second since the window began, `open` milliseconds ago.
    fn since(&self, open: u64) -> u64 {
        // Asked from another thread, the window may begin anew in between.
        let total = self.total.load(Ordering::Relaxed);
        let moved = total.saturating_sub(self.before.load(Ordering::Relaxed));
        moved.saturating_mul(1000) / open.max(1)
    }

    fn roll(&self, open: u64) {
        self.rate.store(self.since(open), Ordering::Relaxed);
        self.before.store(self.total.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Runs until both directions have ended, a side failed, or a clock ran out. Cancel safe in that the
/// streams stay with the caller.
pub(super) async fn relay<D: RelayStream, U: RelayStream>(
    downstream: &mut D,
    upstream: &mut U,
    idle: Duration,
    close: Duration,
    meter: &TrafficMeter,
) -> RelayOutcome {
    meter.touch(Instant::now());
    let mut up = Direction::new();
    let mut down = Direction::new();
    let mut turns = SessionTurns::new();
    let sleep = std::pin::pin!(tokio::time::sleep_until(after(meter.touched(), idle)));
    let mut clock = IdleTimer { sleep, idle, close, half: false };
    let mut probe = std::pin::pin!(tokio::time::sleep(STALLED_PROBE_INTERVAL));
    // How often it is looked, if at all.
    let mut pause = None;
    poll_fn(|cx| {
        let before = (up.progress(), upstream.backlog(), down.progress(), downstream.backlog());
        (up.is_brief, down.is_brief) = (turns.should_be_brief(), turns.should_be_brief());
        up.reader_was_reset = down.met_reset();
        let first = up.poll(cx, downstream, upstream);
        down.reader_was_reset = up.met_reset();
        let second = down.poll(cx, upstream, downstream);
        let after = (up.progress(), upstream.backlog(), down.progress(), downstream.backlog());
        let moved = before != after;
        if moved {
            meter.count(Instant::now(), up.bytes, down.bytes);
            turns.note(up.bytes - before.0.0 + (down.bytes - before.2.0));
        }
        if let Some(outcome) = outcome_of_turn(&mut up, first, &mut down, second) {
            return Poll::Ready(outcome);
        }
        let holding = up.holds() || down.holds() || after.1 > 0 || after.3 > 0;
        let wanted = match pause {
            _ if holding => Some(STALLED_PROBE_INTERVAL),
            None if !moved => None,
            _ => Some(IN_FLIGHT_PROBE_INTERVAL),
        };
        if wanted != pause
            && let Some(pause) = wanted
        {
            probe.as_mut().reset(Instant::now() + pause);
        }
        pause = wanted;
        while let Some(after) = pause
            && probe.as_mut().poll(cx).is_ready()
        {
            if let Some(error) = downstream.fault() {
                return Poll::Ready(RelayOutcome::Downstream(SideError::Failed(error)));
            }
            if let Some(error) = upstream.fault() {
                return Poll::Ready(RelayOutcome::Upstream(SideError::Failed(error)));
            }
            if holding || downstream.in_flight() || upstream.in_flight() {
                probe.as_mut().reset(Instant::now() + after);
            } else {
                pause = None;
            }
        }
        let half = (up.ended() || down.ended()) && !holding;
        let silence = ready!(clock.poll(cx, half, meter));
        Poll::Ready(match silence {
            ExpiredTimeout::Idle => RelayOutcome::Idle,
            ExpiredTimeout::HalfClosed => {
                RelayOutcome::HalfClosed { down_ended: down.state == State::Done }
            }
        })
    })
    .await
}

/// What one turn of both directions comes to, if the relay ends with it.
fn outcome_of_turn(
    up: &mut Direction,
    first: Poll<Result<(), DirectionError>>,
    down: &mut Direction,
    second: Poll<Result<(), DirectionError>>,
) -> Option<RelayOutcome> {
    match (first, second) {
        (Poll::Ready(Err(DirectionError::Reader(fault))), _)
        | (_, Poll::Ready(Err(DirectionError::Writer(fault)))) => {
            Some(RelayOutcome::Downstream(fault))
        }
        (Poll::Ready(Err(DirectionError::Writer(fault))), _)
        | (_, Poll::Ready(Err(DirectionError::Reader(fault)))) => {
            Some(RelayOutcome::Upstream(fault))
        }
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Some(RelayOutcome::Complete),
        // The one that refused more data has no more to say either.
        (Poll::Pending, Poll::Ready(Ok(()))) if up.refused.is_some() => {
            Some(RelayOutcome::Upstream(up.why_refused()))
        }
        (Poll::Ready(Ok(())), Poll::Pending) if down.refused.is_some() => {
            Some(RelayOutcome::Downstream(down.why_refused()))
        }
        // Neither takes any more: there is nobody to read on for.
        (Poll::Pending, Poll::Pending) if up.refused.is_some() && down.refused.is_some() => {
            Some(RelayOutcome::Upstream(up.why_refused()))
        }
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Copying,
    Flushing,
    ShuttingDown,
    Done,
}

enum DirectionError {
    Reader(SideError),
    Writer(SideError),
}

#[derive(Default)]
struct Direction {
    state: State,
    /// What the writer has not taken yet; allocated only while it pushes back.
    held: Vec<u8>,
    at: usize,
    /// The reader's stream ended behind what is held.
    eof: bool,
    /// The writer failed; kept until the reverse has delivered what the same peer still had sent.
    refused: Option<io::Error>,
    /// The reverse found the reader's stream reset, which the system tells once.
    reader_was_reset: bool,
    /// The writer may have something that its peer does not, from before the first byte on: the end of a
    /// handshake goes together with it.
    unflushed: bool,
    /// The writer was told to pass it on, and waits.
    stalled: bool,
    /// Its batches are small, because others wait for their turn.
    is_brief: bool,
    bytes: u64,
}

impl Direction {
    fn new() -> Self {
        Self { unflushed: true, ..Self::default() }
    }

    fn ended(&self) -> bool {
        self.state == State::Done || self.refused.is_some()
    }

    /// Whatever changes here sets the clock anew: a refusal as well, for the close limit begins there.
    fn progress(&self) -> (u64, State, bool) {
        (self.bytes, self.state, self.refused.is_some())
    }

    fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Its writer was reset: what that peer had still to say may be lost. One that had said its end
    /// before gives a broken pipe.
    fn met_reset(&self) -> bool {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset};
        let kind = self.refused.as_ref().map(io::Error::kind);
        matches!(kind, Some(ConnectionReset | ConnectionAborted))
    }

    fn why_refused(&mut self) -> SideError {
        let error = self.refused.take();
        SideError::Failed(error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll<R: RelayStream, W: RelayStream>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<(), DirectionError>> {
        loop {
            match self.state {
                State::Copying => ready!(self.copy(cx, reader, writer))?,
                State::Flushing => {
                    // One that refuses what is left has refused in the middle of it.
                    self.state = State::Copying;
                    let flushed = self.flush(cx, writer);
                    if flushed.is_pending() && self.refused.is_none() {
                        self.state = State::Flushing;
                    }
                    ready!(flushed)?;
                    self.state = State::ShuttingDown;
                }
                State::ShuttingDown => {
                    match ready!(Pin::new(&mut *writer).poll_shutdown(cx)) {
                        Ok(()) => {}
                        // It has closed already; what it had sent, the reverse delivers.
                        Err(error) if is_gone(&error) => {}
                        Err(error) => return Poll::Ready(Err(writer_error(error))),
                    }
                    self.state = State::Done;
                }
                State::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Moves bytes until one of the two has to be waited for; `Ready(Ok)` when the state changed.
    fn copy<R: RelayStream, W: RelayStream>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<(), DirectionError>> {
        if self.refused.is_some() {
            return Poll::Pending;
        }
        let mut had_its_turn = false;
        loop {
            while self.at < self.held.len() {
                let rest = &self.held[self.at..];
                match ready!(Pin::new(&mut *writer).poll_write(cx, rest)) {
                    Ok(0) => return self.refuse(io::ErrorKind::WriteZero.into()),
                    Ok(n) => {
                        self.at += n;
                        self.bytes += n as u64;
                        self.unflushed = true;
                    }
                    Err(error) => return self.refuse(error),
                }
            }
            if self.holds() {
                (self.held, self.at) = (Vec::new(), 0);
            }
            if self.eof {
                if !reader.ended_cleanly() {
                    return Poll::Ready(Err(DirectionError::Reader(SideError::Truncated)));
                }
                if self.reader_was_reset && !reader.proves_its_end() {
                    let reset = io::ErrorKind::ConnectionReset.into();
                    return Poll::Ready(Err(DirectionError::Reader(SideError::Failed(reset))));
                }
                self.state = State::Flushing;
                return Poll::Ready(Ok(()));
            }
            // A writer that has not passed on what it took gets no more.
            if self.stalled {
                ready!(self.flush(cx, writer))?;
            }
            if std::mem::replace(&mut had_its_turn, true) {
                // A batch takes a third of a millisecond, and tokio would let 128 calls pass. The next turn
                // is behind all who are ready, and behind a look at who has become so: woken at once,
                // this would be first again.
                let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            let size = match self.is_brief {
                true => SMALL_BATCH_SIZE + reader.spare_room(),
                false => RELAY_BUFFER_SIZE,
            };
            let moved = BUFFER
                .with_borrow_mut(|buffer| self.batch(cx, reader, writer, &mut buffer[..size]));
            ready!(moved)?;
        }
    }

    /// Fills the thread's buffer from the reader and empties it into the writer. What the writer
    /// does not take at once is copied aside.
    fn batch<R: RelayStream, W: RelayStream>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        buffer: &mut [u8],
    ) -> Poll<Result<(), DirectionError>> {
        let mut buf = ReadBuf::new(buffer);
        let mut failed = None;
        let mut waits = false;
        while buf.remaining() >= MIN_READ_SIZE {
            let before = buf.filled().len();
            match Pin::new(&mut *reader).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().len() == before => {
                    self.eof = true;
                    break;
                }
                Poll::Ready(Ok(())) if reader.is_turn_over() => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    failed = Some(error);
                    break;
                }
                Poll::Pending => {
                    waits = true;
                    break;
                }
            }
        }
        let mut rest = buf.filled();
        while !rest.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return self.refuse(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    rest = &rest[n..];
                    self.bytes += n as u64;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return self.refuse(error),
                Poll::Pending => {
                    self.held = rest.to_vec();
                    break;
                }
            }
        }
        if let Some(error) = failed {
            // A broken stream delivers what came before the break only if it fits: the session ends
            // here, and its end says so.
            return Poll::Ready(Err(DirectionError::Reader(SideError::Failed(error))));
        }
        if self.unflushed && !self.holds() {
            ready!(self.flush(cx, writer))?;
        }
        if waits && !self.holds() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn flush<W: RelayStream>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<Result<(), DirectionError>> {
        self.stalled = true;
        let flushed = ready!(Pin::new(&mut *writer).poll_flush(cx));
        (self.stalled, self.unflushed) = (false, false);
        match flushed {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => self.refuse(error),
        }
    }

    /// A peer that closed while data was on its way to it may have sent a last answer: the reverse
    /// reads on until it meets that end by itself, under the close limit.
    fn refuse(&mut self, error: io::Error) -> Poll<Result<(), DirectionError>> {
        (self.held, self.at) = (Vec::new(), 0);
        if !is_gone(&error) {
            return Poll::Ready(Err(writer_error(error)));
        }
        self.refused = Some(error);
        Poll::Pending
    }
}

fn writer_error(error: io::Error) -> DirectionError {
    DirectionError::Writer(SideError::Failed(error))
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, WriteZero};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | ConnectionAborted | NotConnected | WriteZero
    )
}

/// Which of the two limits is over.
enum ExpiredTimeout {
    Idle,
    HalfClosed,
}

/// Idle and close limit on one timer. It is set anew when it rings, not on every byte.
struct IdleTimer<'a> {
    sleep: Pin<&'a mut Sleep>,
    idle: Duration,
    close: Duration,
    half: bool,
}

impl IdleTimer<'_> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        half: bool,
        meter: &TrafficMeter,
    ) -> Poll<ExpiredTimeout> {
        let limit = if half { self.close } else { self.idle };
        if half != self.half {
            self.half = half;
            self.sleep.as_mut().reset(after(meter.touched(), limit));
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let due = after(meter.touched(), limit);
            if due <= Instant::now() {
                return Poll::Ready(if half {
                    ExpiredTimeout::HalfClosed
                } else {
                    ExpiredTimeout::Idle
                });
            }
            self.sleep.as_mut().reset(due);
        }
    }
}

/// A limit so long that the clock cannot count it is a year.
fn after(start: Instant, limit: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    start.checked_add(limit).unwrap_or_else(|| start + YEAR)
}
