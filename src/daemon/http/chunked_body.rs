//! The body of an answer, given out as it is read: so it is known when all of it has been taken.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};

/// What is given out at a time. A connection keeps at most one beside what the kernel has taken.
const CHUNK_SIZE: usize = 16 * 1024;

/// A body in pieces. `taken` is called once, after the last one or when nobody wants more.
pub(super) struct ChunkedBody<F: FnOnce() + Unpin> {
    whole: Full<Bytes>,
    rest: Bytes,
    taken: Option<F>,
}

impl<F: FnOnce() + Unpin> ChunkedBody<F> {
    pub(super) fn new(whole: Full<Bytes>, taken: F) -> Self {
        Self { whole, rest: Bytes::new(), taken: Some(taken) }
    }
}

impl<F: FnOnce() + Unpin> Drop for ChunkedBody<F> {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            taken();
        }
    }
}

impl<F: FnOnce() + Unpin> Body for ChunkedBody<F> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.whole).poll_frame(cx)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                end => return Poll::Ready(end),
            }
        }
        let len = self.rest.len().min(CHUNK_SIZE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.whole.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        SizeHint::with_exact(rest + self.whole.size_hint().lower())
    }
}
