//! Records the first bytes of a peer, and tells TLS from other protocols at a wrong port.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::secrets::escape;

/// Enough bytes for a banner and the header of a record.
const MAX_RECORDED_BYTES: usize = 64;

/// A stream whose first bytes are recorded and can be read after it was dropped.
#[derive(Debug)]
pub(super) struct RecordingStream<S> {
    inner: S,
    heard: RecordedBytes,
}

/// The recorded bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct RecordedBytes(Arc<Mutex<Vec<u8>>>);

/// The kind of peer by its first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PeerKind {
    /// It sent nothing.
    Silence,
    /// A TLS server.
    Tls,
    /// It sends back what it is sent.
    Echo,
    /// Another protocol, described in words.
    Other(String),
}

impl<S> RecordingStream<S> {
    pub(super) fn new(inner: S, heard: RecordedBytes) -> Self {
        Self { inner, heard }
    }

    pub(super) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> RecordingStream<S> {
    /// Reads on to the end of a first line: OpenSSL takes five bytes and has seen enough.
    pub(super) async fn read_first_line(&mut self, limit: Duration) {
        let _ = tokio::time::timeout(limit, async {
            let mut sink = [0; MAX_RECORDED_BYTES];
            while !self.heard.is_complete() && matches!(self.read(&mut sink).await, Ok(1..)) {}
        })
        .await;
    }
}

impl RecordedBytes {
    pub(super) fn peer_kind(&self) -> PeerKind {
        classify(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_complete(&self) -> bool {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.len() == MAX_RECORDED_BYTES || heard.contains(&b'\n')
    }

    fn add(&self, new: &[u8]) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_RECORDED_BYTES - heard.len();
        heard.extend_from_slice(new.get(..room).unwrap_or(new));
    }
}

fn classify(heard: &[u8]) -> PeerKind {
    /// A record of TLS: a content type from change_cipher_spec to application_data, and a version that
    /// has had the same first byte since SSL 3 (RFC 9846 and 8446, 5.1).
    const TYPES: std::ops::RangeInclusive<u8> = 20..=23;
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    match heard {
        [] => PeerKind::Silence,
        // Only a client begins with this, and we are the client.
        [HANDSHAKE, 3, _, _, _, CLIENT_HELLO, ..] => PeerKind::Echo,
        [kind, 3, ..] if TYPES.contains(kind) => PeerKind::Tls,
        _ => {
            let line = heard.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or(heard);
            let said = escape(line);
            PeerKind::Other(match heard {
                [b'S', b'S', b'H', b'-', ..] => format!("an SSH server ({said})"),
                [b'H', b'T', b'T', b'P', ..] => format!("an HTTP server ({said})"),
                [b'R', b'F', b'B', b' ', ..] => format!("a VNC server ({said})"),
                [b'2', b'2', b'0', b' ' | b'-', ..] => format!("a mail or FTP server ({said})"),
                _ => format!("something that says {said}"),
            })
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RecordingStream<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for RecordingStream<S> {
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
        assert_eq!(classify(b""), PeerKind::Silence);
        assert_eq!(classify(&[22, 3, 3, 0, 122, 2, 0]), PeerKind::Tls);
        assert_eq!(classify(&[21, 3, 3, 0, 2, 2, 40]), PeerKind::Tls);
        assert_eq!(classify(&[22, 3, 1, 2, 0, 1, 0]), PeerKind::Echo);
        let other = |bytes: &[u8]| match classify(bytes) {
            PeerKind::Other(words) => words,
            voice => panic!("{voice:?}"),
        };
        assert_eq!(other(b"SSH-2.0-x\r\nmore"), "an SSH server (\"SSH-2.0-x\")");
        assert!(other(b"HTTP/1.1 400 Bad Request\r\n").starts_with("an HTTP server"));
        assert!(!other(&[0x1b, b'[', 7, 200]).contains('\u{1b}'));
    }
}
