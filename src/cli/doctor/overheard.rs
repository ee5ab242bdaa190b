//! What a peer said first, whatever it is: TLS, or what else answers at the wrong port.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::secrets::escape;

/// Enough for a banner and the head of a record.
const KEPT: usize = 64;

/// A stream whose first bytes are remembered, also when it is gone.
#[derive(Debug)]
pub(super) struct Overheard<S> {
    inner: S,
    heard: Heard,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<u8>>>);

/// What a peer's first bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Voice {
    /// It said nothing.
    Silence,
    /// It speaks TLS.
    Tls,
    /// It sends back what it is sent.
    Echo,
    /// It is something else, in words.
    Other(String),
}

impl<S> Overheard<S> {
    pub(super) fn new(inner: S, heard: Heard) -> Self {
        Self { inner, heard }
    }

    pub(super) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> Overheard<S> {
    /// Reads on to the end of a first line: OpenSSL takes five bytes and has seen enough.
    pub(super) async fn hear_out(&mut self, limit: Duration) {
        let _ = tokio::time::timeout(limit, async {
            let mut sink = [0; KEPT];
            while !self.heard.is_whole() && matches!(self.read(&mut sink).await, Ok(1..)) {}
        })
        .await;
    }
}

impl Heard {
    pub(super) fn voice(&self) -> Voice {
        voice(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_whole(&self) -> bool {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.len() == KEPT || heard.contains(&b'\n')
    }

    fn add(&self, new: &[u8]) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT - heard.len();
        heard.extend_from_slice(new.get(..room).unwrap_or(new));
    }
}

fn voice(heard: &[u8]) -> Voice {
    /// A record of TLS: a content type from change_cipher_spec to application_data, and a version that
    /// has had the same first byte since SSL 3 (RFC 9846 and 8446, 5.1).
    const TYPES: std::ops::RangeInclusive<u8> = 20..=23;
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    match heard {
        [] => Voice::Silence,
        // Only a client begins with this, and we are the client.
        [HANDSHAKE, 3, _, _, _, CLIENT_HELLO, ..] => Voice::Echo,
        [kind, 3, ..] if TYPES.contains(kind) => Voice::Tls,
        _ => {
            let line = heard.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or(heard);
            let said = escape(line);
            Voice::Other(match heard {
                [b'S', b'S', b'H', b'-', ..] => format!("an SSH server ({said})"),
                [b'H', b'T', b'T', b'P', ..] => format!("an HTTP server ({said})"),
                [b'R', b'F', b'B', b' ', ..] => format!("a VNC server ({said})"),
                [b'2', b'2', b'0', b' ' | b'-', ..] => format!("a mail or FTP server ({said})"),
                _ => format!("something that says {said}"),
            })
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.heard.add(buf.filled().get(before..).unwrap_or_default());
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_tls_from_the_rest() {
        assert_eq!(voice(b""), Voice::Silence);
        assert_eq!(voice(&[22, 3, 3, 0, 122, 2, 0]), Voice::Tls);
        assert_eq!(voice(&[21, 3, 3, 0, 2, 2, 40]), Voice::Tls);
        assert_eq!(voice(&[22, 3, 1, 2, 0, 1, 0]), Voice::Echo);
        let other = |bytes: &[u8]| match voice(bytes) {
            Voice::Other(words) => words,
            voice => panic!("{voice:?}"),
        };
        assert_eq!(other(b"SSH-2.0-x\r\nmore"), "an SSH server (\"SSH-2.0-x\")");
        assert!(other(b"HTTP/1.1 400 Bad Request\r\n").starts_with("an HTTP server"));
        assert!(!other(&[0x1b, b'[', 7, 200]).contains('\u{1b}'));
    }
}
