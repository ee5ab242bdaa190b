//! TLS that a pre-shared key authenticates, over any stream.
//!
//! [`Acceptor`] and [`Connector`] turn a stream into a [`Stream`] and a [`Grant`], or into a
//! [`Failure`] with its cause in words. There is no way to a [`Stream`] without a Grant.

mod context;
mod error;
mod psk;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};

pub use error::Cause;
use openssl::pkey::{Id, PKey, Public};
use openssl::ssl::{Ssl, SslContext, SslVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::diagnostic::Diagnostic;
use crate::config::model::{Mode, NamePattern, PskHash, TlsConfig};
use crate::observe::event::Terms;
use crate::secrets::{Grant, Identity, Keys};
use crate::sys::cpu::has_aes;
use crate::sys::openssl as sys;
use context::Built;
use psk::Handshake;

/// The server end's side of a handshake.
#[derive(Debug, Clone)]
pub struct Acceptor {
    built: Built,
    hash: PskHash,
}

/// A service that the clients of another one reach by sending a name like this.
#[derive(Debug)]
pub struct Named {
    /// The names.
    pub pattern: NamePattern,
    /// The service's own TLS settings.
    pub acceptor: Acceptor,
    /// The service's own keys, which are the only ones that count then.
    pub secrets: Keys,
}

/// The client end's side of a handshake.
#[derive(Debug)]
pub struct Connector {
    context: SslContext,
    hash: PskHash,
}

/// What a handshake settled on, for the log.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Such as `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name of the suite.
    pub suite: String,
    /// The strength of its cipher, in bits.
    pub bits: i32,
    /// The key exchange group, where the library tells.
    pub group: Option<Group>,
}

/// A key exchange group.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its usual name.
    pub name: String,
    /// The size of its keys in bits.
    pub bits: u32,
}

impl Facts {
    /// In the log's form.
    pub fn terms(&self) -> Terms<'_> {
        let group = self.group.as_ref().map(|group| group.name.as_str());
        Terms { version: self.version, suite: &self.suite, group }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.terms().fmt(f)
    }
}

/// A handshake that succeeded.
#[derive(Debug)]
pub struct Secured<S> {
    /// Application data from here on.
    pub stream: Stream<S>,
    /// Whose key it was.
    pub grant: Grant,
    /// What was negotiated.
    pub facts: Facts,
    /// Which of the named services was asked for, by its place in their list.
    pub named: Option<usize>,
}

/// A handshake that did not.
#[derive(Debug)]
pub struct Failure<S> {
    /// Why.
    pub cause: Cause,
    /// The connection, over which an alert may still be on its way to the peer.
    pub stream: Option<S>,
    /// As in [`Secured`].
    pub named: Option<usize>,
}

impl Acceptor {
    /// Builds the server end of a service; see [`Connector::new`].
    ///
    /// # Errors
    /// What OpenSSL does not take.
    pub fn new(
        tls: &TlsConfig,
        hash: PskHash,
        findings: &mut Vec<Diagnostic>,
    ) -> Result<Self, Vec<Diagnostic>> {
        Ok(Self { built: context::build(Mode::Server, tls, hash, has_aes(), findings)?, hash })
    }

    /// Performs the server's side of the handshake. Must be under a clock: a peer may say nothing.
    /// A client that asks for one of `named`, the first of which it says the name, is that service's:
    /// only what that one demands counts.
    ///
    /// # Errors
    /// The peer did not prove one of the keys, in time and in a way that this end accepts.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        keys: impl Into<Keys>,
        named: Vec<Named>,
        stream: S,
    ) -> Result<Secured<S>, Failure<S>> {
        let mut ssl = match Ssl::new(&self.built.context) {
            Ok(ssl) => ssl,
            Err(error) => return Err(cannot_begin(&error, stream)),
        };
        if let Err(error) = Handshake::server(&mut ssl, keys.into(), self.hash, named) {
            return Err(cannot_begin(&error, stream));
        }
        let mut tls = wrap(ssl, stream)?;
        match Pin::new(&mut tls).accept().await {
            Ok(()) => finish(tls),
            Err(error) => {
                let named = Handshake::named(tls.ssl());
                let cause = error::of_client(error, tls.ssl());
                Err(Failure { cause, stream: unwrap(tls), named })
            }
        }
    }
}

impl Connector {
    /// Builds the client end of a service. Warnings are added to `findings`.
    ///
    /// # Errors
    /// What OpenSSL does not take, with the place where it was written.
    pub fn new(
        tls: &TlsConfig,
        hash: PskHash,
        findings: &mut Vec<Diagnostic>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let built = context::build(Mode::Client, tls, hash, has_aes(), findings)?;
        Ok(Self { context: built.context, hash })
    }

    /// Performs the client's side of the handshake, under `identity`, with `name` in SNI. Must be
    /// under a clock.
    ///
    /// # Errors
    /// The server did not prove that it holds the key of that identity.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        keys: impl Into<Keys>,
        identity: Identity,
        name: Option<&str>,
        stream: S,
    ) -> Result<Secured<S>, Failure<S>> {
        let mut ssl = match Ssl::new(&self.context) {
            Ok(ssl) => ssl,
            Err(error) => return Err(cannot_begin(&error, stream)),
        };
        if let Err(error) = Handshake::client(&mut ssl, keys.into(), identity.clone(), self.hash) {
            return Err(cannot_begin(&error, stream));
        }
        // OpenSSL fails to build a 1.3 ClientHello around an empty identity, which RFC 8446 (4.2.11)
        // does not know; stunnel's servers take it in 1.2 as well.
        if identity.as_bytes().is_empty()
            && let Err(error) = ssl.set_max_proto_version(Some(SslVersion::TLS1_2))
        {
            return Err(cannot_begin(&error, stream));
        }
        if let Some(name) = name
            && let Err(error) = ssl.set_hostname(name)
        {
            return Err(cannot_begin(&error, stream));
        }
        let mut tls = wrap(ssl, stream)?;
        match Pin::new(&mut tls).connect().await {
            Ok(()) => finish(tls),
            Err(error) => {
                let cause = error::of_server(error, identity.as_bytes());
                Err(Failure { cause, stream: unwrap(tls), named: None })
            }
        }
    }
}

fn cannot_begin<S>(error: &openssl::error::ErrorStack, stream: S) -> Failure<S> {
    Failure { cause: Cause::Protocol(error.to_string()), stream: Some(stream), named: None }
}

type Inner<S> = tokio_openssl::SslStream<KeepOpen<S>>;

fn wrap<S: AsyncRead + AsyncWrite + Unpin>(ssl: Ssl, stream: S) -> Result<Inner<S>, Failure<S>> {
    Inner::new(ssl, KeepOpen(Some(stream))).map_err(|error| Failure {
        cause: Cause::Protocol(error.to_string()),
        stream: None,
        named: None,
    })
}

/// The one gate between a handshake and application data.
fn finish<S: AsyncRead + AsyncWrite + Unpin>(mut tls: Inner<S>) -> Result<Secured<S>, Failure<S>> {
    let named = Handshake::named(tls.ssl());
    let Some(grant) = Handshake::granted(sys::ssl_mut(&mut tls)) else {
        return Err(Failure { cause: Cause::NotProven, stream: unwrap(tls), named });
    };
    let ssl = tls.ssl();
    let suite = ssl.current_cipher();
    let facts = Facts {
        version: ssl.version_str(),
        suite: suite.map_or_else(String::new, |suite| suite.name().to_owned()),
        bits: suite.map_or(0, |suite| suite.bits().secret),
        group: ssl.peer_tmp_key().ok().and_then(|key| group(&key)),
    };
    Ok(Secured { stream: Stream(tls), grant, facts, named })
}

fn group(key: &PKey<Public>) -> Option<Group> {
    let name = match key.id() {
        Id::X25519 => "X25519".into(),
        Id::X448 => "X448".into(),
        Id::DH => format!("DH-{}", key.bits()),
        Id::EC => match key.ec_key().ok()?.group().curve_name()?.short_name().ok()? {
            "prime256v1" => "P-256".into(),
            "secp384r1" => "P-384".into(),
            "secp521r1" => "P-521".into(),
            other => other.into(),
        },
        _ => return None,
    };
    Some(Group { name, bits: key.bits() })
}

/// Keeps TCP open when TLS ends its direction: a half-closed session still has the other one, and
/// stunnel does not send FIN with its close_notify either. The socket can be taken out again.
#[derive(Debug)]
struct KeepOpen<S>(Option<S>);

fn unwrap<S: AsyncRead + AsyncWrite + Unpin>(mut tls: Inner<S>) -> Option<S> {
    tls.get_mut().0.take()
}

impl<S: Unpin> KeepOpen<S> {
    fn socket(&mut self) -> io::Result<Pin<&mut S>> {
        self.0.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for KeepOpen<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket()?.poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for KeepOpen<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.socket()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A session's TLS side.
#[derive(Debug)]
pub struct Stream<S>(Inner<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Whether the end that a read reported was the peer's close_notify. Otherwise the stream was
    /// cut, and what came of it may be half of something.
    pub fn ended_cleanly(&self) -> bool {
        sys::received_close_notify(self.0.ssl())
    }

    /// The socket below.
    pub fn socket(&self) -> Option<&S> {
        self.0.get_ref().0.as_ref()
    }

    /// Ends TLS without a word to the peer and gives the socket back.
    pub fn into_socket(self) -> Option<S> {
        unwrap(self.0)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(cx, buf) {
            // The end of the stream all the same; `ended_cleanly` tells which.
            Poll::Ready(Err(error)) if error::is_unexpected_eof(&error) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error::plain(error))),
            other => other,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf).map_err(error::plain)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx).map_err(error::plain)
    }

    /// Sends close_notify and leaves the other direction open.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx).map_err(error::plain)
    }
}
