//! Between OpenSSL and the socket: one receive and one send for a batch of records.
//!
//! OpenSSL asks for a record's five bytes of header, then for its body, and hands over one record after
//! the other; as system calls these cost more than the encryption. The buffers belong to the thread and
//! are on loan within one poll, so that an idle session holds none: 128 kB for each direction in place of
//! 16 took a third off the processor time per byte; with 256 others wait longer for nothing.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sys::key_update::TlsTraffic;

/// What one receive takes at most.
const RECEIVE_BUFFER_SIZE: usize = 128 * 1024;
/// What may wait for the socket before OpenSSL has to: a peer that asks for answers and reads none, by
/// asking for new keys over and over, would fill the memory otherwise (RFC 9846, 4.7.3; RFC 8446, 4.6.3).
const MAX_BACKLOG_SIZE: usize = 512 * 1024;

/// OpenSSL reads on until it has data, however many handshake messages come before: after so many in one turn
/// it gets nothing more to read. A key update takes 20 to 60 µs.
const MAX_MESSAGES_IN_TURN: u32 = 16;

struct Buffers {
    inbox: Box<[u8]>,
    /// What of the inbox OpenSSL has not taken yet.
    from: usize,
    to: usize,
    outbox: Vec<u8>,
}

thread_local! {
    static BUFFERS: Cell<Option<Box<Buffers>>> = const { Cell::new(None) };
}

impl Buffers {
    /// The thread's, or new ones when they are on loan or have never been.
    fn borrow() -> Box<Self> {
        BUFFERS.take().unwrap_or_else(|| {
            let inbox = vec![0; RECEIVE_BUFFER_SIZE].into_boxed_slice();
            Box::new(Self { inbox, from: 0, to: 0, outbox: Vec::new() })
        })
    }
}

/// Bytes that stay between two polls.
#[derive(Debug, Default)]
struct PendingBytes {
    bytes: Vec<u8>,
    at: usize,
}

impl PendingBytes {
    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn left(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// So many are not needed any more. The memory goes with the last.
    fn advance(&mut self, n: usize) {
        self.at += n;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

/// A socket as OpenSSL sees it.
///
/// It keeps TCP open when TLS ends its direction: a half-closed session still has the other one, and
/// stunnel does not send FIN with its close_notify either. The socket can be taken out again.
pub(super) struct BatchedIo<S> {
    socket: Option<S>,
    loan: Option<Box<Buffers>>,
    /// How much the next receive may take, which is none when this loan's one is over.
    room: usize,
    /// OpenSSL asked for more than this loan may receive.
    starved_of_input: bool,
    /// This session has had its turn, and more of it would keep others waiting.
    spent: bool,
    traffic: Arc<TlsTraffic>,
    /// Received, and not taken by OpenSSL.
    rest: PendingBytes,
    /// Said by OpenSSL, and not taken by the socket.
    out: PendingBytes,
    /// The socket takes no more for now.
    blocked: bool,
    /// What is said waits for the next read, so that a flight goes in one send.
    handshake: bool,
    /// The last flight waits for the first data.
    hold: bool,
}

impl<S> std::fmt::Debug for BatchedIo<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("out", &self.backlog()).finish_non_exhaustive()
    }
}

impl<S> BatchedIo<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            socket: Some(socket),
            loan: None,
            room: 0,
            starved_of_input: false,
            spent: false,
            traffic: Arc::default(),
            rest: PendingBytes::default(),
            out: PendingBytes::default(),
            blocked: false,
            handshake: true,
            hold: false,
        }
    }

    /// What is counted of this session.
    pub(super) fn traffic(&self) -> &Arc<TlsTraffic> {
        &self.traffic
    }

    /// Whether others should have a turn before this session reads on.
    pub(super) fn is_turn_over(&self) -> bool {
        self.spent
    }

    /// It has taken long enough.
    pub(super) fn end_turn(&mut self) {
        self.spent = true;
    }

    /// A socket of which this was read already.
    pub(super) fn opened(socket: S, bytes: Vec<u8>) -> Self {
        Self { rest: PendingBytes { bytes, at: 0 }, ..Self::new(socket) }
    }

    pub(super) fn socket(&self) -> Option<&S> {
        self.socket.as_ref()
    }

    pub(super) fn take(&mut self) -> Option<S> {
        self.socket.take()
    }

    /// The handshake is over: what is said from here on goes at the end of each loan. What is said
    /// already waits for the next one, or goes at once when nothing will come of this handshake.
    pub(super) fn end_handshake(&mut self, secured: bool) {
        (self.handshake, self.hold) = (false, secured);
    }

    /// Bytes that OpenSSL has said and the socket has not taken.
    pub(super) fn backlog(&self) -> usize {
        self.out.left().len()
    }

    /// Whether there is something left to decrypt of what this loan received.
    pub(super) fn has_more(&self) -> bool {
        !self.rest.is_empty() || self.loan.as_ref().is_some_and(|loan| loan.from < loan.to)
    }

    /// Behind what waits already.
    fn keep_said(&mut self) {
        if let Some(loan) = &mut self.loan {
            self.out.bytes.append(&mut loan.outbox);
        }
    }

    /// Whether OpenSSL would have gone on in the last loan, had it been given more: nobody has been asked to
    /// wake it then.
    pub(super) fn starved_of_input(&self) -> bool {
        self.starved_of_input
    }

    /// Takes the thread's buffers for one poll, in which at most `room` bytes are received.
    pub(super) fn lend_buffers(&mut self, room: usize) {
        self.loan = Some(Buffers::borrow());
        self.room = room.min(RECEIVE_BUFFER_SIZE);
        (self.starved_of_input, self.spent, self.hold) = (false, false, false);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> BatchedIo<S> {
    /// Gives the buffers back, sends what was said, and keeps what neither side has taken.
    ///
    /// # Errors
    /// The socket does not take what was said.
    pub(super) fn return_buffers(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(mut loan) = self.loan.take() else { return Ok(()) };
        if loan.from < loan.to {
            // In place of what was left before: that was taken first.
            self.rest = PendingBytes { bytes: loan.inbox[loan.from..loan.to].to_vec(), at: 0 };
            loan.from = loan.to;
        }
        let sent = self.send(cx, &loan.outbox);
        loan.outbox.clear();
        BUFFERS.set(Some(loan));
        sent
    }

    fn send(&mut self, cx: &mut Context<'_>, mut said: &[u8]) -> io::Result<()> {
        let waits = self.handshake || self.hold;
        if self.out.is_empty() && !waits {
            while !said.is_empty() {
                match self.poll_socket(cx, said) {
                    Poll::Ready(sent) => said = &said[sent?..],
                    Poll::Pending => break,
                }
            }
        }
        if !said.is_empty() {
            self.out.bytes.extend_from_slice(said);
        }
        if waits || self.blocked {
            return Ok(());
        }
        match self.poll_drain(cx) {
            Poll::Ready(drained) => drained,
            Poll::Pending => Ok(()),
        }
    }

    /// Sends so much of it as the socket takes.
    fn poll_socket(&mut self, cx: &mut Context<'_>, said: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let polled = Pin::new(socket).poll_write(cx, said);
        self.blocked = polled.is_pending();
        match ready!(polled) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            sent => Poll::Ready(sent),
        }
    }

    /// Sends what the socket has not taken before.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            let polled = self.poll_socket(cx, out.left());
            self.out = out;
            match ready!(polled) {
                Ok(sent) => self.out.advance(sent),
                Err(error) => {
                    // It will be asked again at the end, and there is nobody to say it to.
                    self.out = PendingBytes::default();
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing is on its way from OpenSSL to the socket any more.
    pub(super) fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Pin::new(socket).poll_flush(cx)
    }

    /// Whether what was said before has to go before more is taken.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.blocked { self.poll_drain(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for BatchedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.traffic.in_turn() >= MAX_MESSAGES_IN_TURN {
            this.spent = true;
            return Poll::Pending;
        }
        if !this.rest.is_empty() {
            let n = this.rest.left().len().min(buf.remaining());
            buf.put_slice(&this.rest.left()[..n]);
            this.rest.advance(n);
            return Poll::Ready(Ok(()));
        }
        // Who waits for an answer has to ask first.
        if this.handshake {
            this.keep_said();
            ready!(this.poll_drain(cx))?;
        }
        let socket = this.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let Some(loan) = &mut this.loan else { return Pin::new(socket).poll_read(cx, buf) };
        if loan.from == loan.to {
            if this.room == 0 {
                this.starved_of_input = true;
                return Poll::Pending;
            }
            let mut inbox = ReadBuf::new(&mut loan.inbox[..this.room]);
            ready!(Pin::new(socket).poll_read(cx, &mut inbox))?;
            (loan.from, loan.to) = (0, inbox.filled().len());
            if !this.handshake {
                this.room = 0;
            }
        }
        let n = (loan.to - loan.from).min(buf.remaining());
        buf.put_slice(&loan.inbox[loan.from..loan.from + n]);
        loan.from += n;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for BatchedIo<S> {
    /// Takes all of it, as long as the peer takes something.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let lent = this.loan.as_ref().map_or(0, |loan| loan.outbox.len());
        if this.backlog() + lent >= MAX_BACKLOG_SIZE {
            this.keep_said();
            ready!(this.poll_drain(cx))?;
        }
        match &mut this.loan {
            Some(loan) => loan.outbox.extend_from_slice(buf),
            None => this.out.bytes.extend_from_slice(buf),
        }
        Poll::Ready(Ok(buf.len()))
    }

    /// In a handshake, and within a poll, that is the end of the loan's.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A socket whose peer reads nothing.
    struct Full;

    impl AsyncRead for Full {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Full {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_a_deaf_peer_makes_openssl_say_is_bounded() {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut wire = BatchedIo::new(Full);
        wire.end_handshake(true);
        for _ in 0..10 * MAX_BACKLOG_SIZE / 1000 {
            wire.lend_buffers(usize::MAX);
            let polled = Pin::new(&mut wire).poll_write(cx, &[7; 1000]);
            wire.return_buffers(cx).unwrap();
            if polled.is_pending() {
                assert!((MAX_BACKLOG_SIZE..MAX_BACKLOG_SIZE + 1000).contains(&wire.backlog()));
                return;
            }
        }
        panic!("it takes whatever it is given");
    }

    #[test]
    fn nothing_is_kept_between_polls_when_nothing_is_left() {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut wire = BatchedIo::new(Full);
        wire.end_handshake(true);
        wire.lend_buffers(usize::MAX);
        assert!(Pin::new(&mut wire).poll_read(cx, &mut ReadBuf::new(&mut [0; 5])).is_pending());
        wire.return_buffers(cx).unwrap();
        assert!(!wire.starved_of_input());
        assert!(wire.loan.is_none() && wire.rest.bytes.capacity() == 0);
        assert_eq!(wire.out.bytes.capacity(), 0);
    }
}
