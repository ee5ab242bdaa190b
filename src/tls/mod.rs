//! TLS that a pre-shared key authenticates, over any stream.
//!
//! [`Acceptor`] and [`Connector`] turn a stream into a [`Stream`] and a [`Grant`], or into a
//! [`HandshakeError`] with its cause in words. There is no way to a [`Stream`] without a Grant.

mod batched_io;
mod cache;
mod client_hello;
mod context;
mod error;
#[cfg(all(unix, any(test, fuzzing)))]
pub(crate) mod fuzzing;
mod hello;
mod hello_extensions;
mod key_usage;
mod offers;
mod psk;
mod resumption;
mod session_store;
#[cfg(test)]
mod tests;
mod ticket;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use cache::{Cache, SessionPurpose};
pub use error::RefusalCause;
pub use hello::{FirstBytes, MAX_OPENING_SIZE, inspect};
use openssl::pkey::{Id, PKey, Public};
use openssl::ssl::{Ssl, SslContext, SslVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::config::diagnostic::Diagnostic;
use crate::config::model::{Mode, PskHash, RekeyAfter, TlsConfig};
use crate::observe::event::{OpensslError, TlsTerms};
use crate::secrets::{Grant, Identity, PeerKeys, SecretSet};
use crate::sys::cpu::has_aes;
use crate::sys::key_update::{self, TlsTraffic};
use crate::sys::openssl as sys;
use batched_io::BatchedIo;
pub use client_hello::Binder;
use context::BuiltContext;
pub use key_usage::KeyUpdateFlood;
use key_usage::KeyUsage;
use offers::Versions;
use psk::{ClientResumption, Handshake};
use resumption::ServerSessions;

/// The server end's side of a handshake.
#[derive(Debug, Clone)]
pub struct Acceptor {
    built: BuiltContext,
    hash: PskHash,
    sessions: Option<Arc<ServerSessions>>,
}

/// A service that the clients of another one reach by sending a name.
#[derive(Debug)]
pub struct SniCandidate {
    /// The service's own TLS settings.
    pub acceptor: Acceptor,
    /// The service's own keys, which are the only ones that count then.
    pub secrets: PeerKeys,
}

/// The services that clients can ask for by a name.
pub trait ServerNames: Send + Sync {
    /// The one that a client asks for with this name. Called once in a handshake at most, by its first
    /// ClientHello.
    fn choose(&self, name: &[u8]) -> Option<SniCandidate>;
}

/// What a server end's handshake begins with.
#[derive(Default)]
pub struct Incoming {
    /// The services that the client can ask for.
    pub names: Option<Arc<dyn ServerNames>>,
    /// What was read of the connection already.
    pub opening: Vec<u8>,
}

/// How far a server end's handshake has come when it waits for the client.
#[derive(Debug)]
pub enum HandshakeProgress {
    /// The ClientHello is not whole yet.
    Reading,
    /// Nothing is proven.
    Unproven,
    /// The client has to say its ClientHello once more (HelloRetryRequest), at any length.
    Retried,
    /// In 1.3, the ClientHello's binder was made with the key of that identity: by the client, or by
    /// somebody whose ClientHello was recorded.
    Shown(Identity, Binder),
}

/// The client end's side of a handshake.
#[derive(Debug, Clone)]
pub struct Connector {
    context: SslContext,
    versions: Versions,
    hash: PskHash,
    cache: Option<Cache>,
}

/// What a handshake settled on, for the log.
#[derive(Debug, Clone)]
pub struct HandshakeInfo {
    /// Such as `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name of the suite.
    pub suite: String,
    /// The strength of its cipher, in bits.
    pub bits: i32,
    /// The key exchange group, where the library tells.
    pub group: Option<KeyExchangeGroup>,
}

/// A key exchange group.
#[derive(Debug, Clone)]
pub struct KeyExchangeGroup {
    /// Its usual name.
    pub name: String,
    /// The size of its keys in bits.
    pub bits: u32,
}

impl HandshakeInfo {
    /// In the log's form.
    pub fn terms(&self) -> TlsTerms<'_> {
        let group = self.group.as_ref().map(|group| group.name.as_str());
        TlsTerms { version: self.version, suite: &self.suite, group }
    }
}

impl fmt::Display for HandshakeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.terms().fmt(f)
    }
}

/// A handshake that succeeded.
#[derive(Debug)]
pub struct EstablishedTls<S> {
    /// Application data from here on.
    pub stream: Stream<S>,
    /// Whose key it was.
    pub grant: Grant,
    /// What was negotiated.
    pub info: HandshakeInfo,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// A handshake that did not.
#[derive(Debug)]
pub struct HandshakeError<S> {
    /// Why.
    pub cause: RefusalCause,
    /// What OpenSSL says of it.
    pub openssl: Option<OpensslError>,
    /// The connection, over which an alert may still be on its way to the peer.
    pub stream: Option<S>,
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
        let built = context::build(Mode::Server, tls, hash, has_aes(), findings)?;
        Ok(Self { built, hash, sessions: None })
    }

    /// The same with resumption, where the configuration asks for it: of sessions of the service of that
    /// name, and of no other. `previous` is the end that this one replaces, whose tickets stay good unless
    /// their keys were changed, and whose sessions are still found by their IDs.
    ///
    /// # Errors
    /// The operating system has no random numbers, or the library no HMAC.
    pub fn resuming(
        mut self,
        tls: &TlsConfig,
        service: &str,
        previous: Option<&Self>,
    ) -> Result<Self, openssl::error::ErrorStack> {
        let previous = previous.and_then(|old| old.sessions.as_deref());
        self.sessions = ServerSessions::new(tls, self.hash, service, previous)?;
        Ok(self)
    }

    /// Replaces ticket keys whose time is over, and drops sessions that are too old, or were made with keys
    /// that are not in this set. To be called when keys change and now and then: while nobody connects,
    /// nothing else does it.
    pub fn expire_sessions(&self, secrets: &SecretSet, now: std::time::Instant) {
        if let Some(sessions) = &self.sessions {
            sessions.expire(secrets, now);
        }
    }

    /// Performs the server's side of the handshake. Must be under a clock: a peer may say nothing.
    ///
    /// # Errors
    /// The peer did not prove one of the keys, in time and in a way that this end accepts.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        keys: impl Into<PeerKeys>,
        stream: S,
    ) -> Result<EstablishedTls<S>, HandshakeError<S>> {
        self.accept_with(keys, Incoming::default(), stream, |_| {}).await
    }

    /// The same of a connection of which a part was read. A client that asks for a named service is that
    /// service's: only what that one demands counts. `watch` is told each time the handshake waits.
    ///
    /// # Errors
    /// As above.
    pub async fn accept_with<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        keys: impl Into<PeerKeys>,
        Incoming { names, opening }: Incoming,
        stream: S,
        mut watch: impl FnMut(HandshakeProgress),
    ) -> Result<EstablishedTls<S>, HandshakeError<S>> {
        let mut ssl = match Ssl::new(&self.built.context) {
            Ok(ssl) => ssl,
            Err(error) => return Err(cannot_begin(&error, stream)),
        };
        let (sessions, terms) = (self.sessions.clone(), (self.hash, self.built.range.into()));
        if let Err(error) = Handshake::server(&mut ssl, keys.into(), terms, sessions, names) {
            return Err(cannot_begin(&error, stream));
        }
        let mut tls = wrap(ssl, BatchedIo::opened(stream, opening))?;
        let step = |mut tls: Pin<&mut Inner<S>>, cx: &mut Context<'_>| {
            let polled = tls.as_mut().poll_accept(cx);
            if polled.is_pending() {
                watch(Handshake::progress(tls.ssl()));
            }
            polled
        };
        match shake(&mut tls, step).await {
            Ok(()) => {
                // In 1.2 this end has the last word, and the client waits for it.
                let sent = poll_fn(|cx| tls.get_mut().poll_drain(cx)).await;
                if let Err(error) = sent {
                    return Err(HandshakeError {
                        cause: RefusalCause::Io(error),
                        openssl: None,
                        stream: unwrap(tls),
                    });
                }
                finish(tls)
            }
            Err(error) => {
                let (said, tls13) = (error::reported(&error), sys::is_tls13(tls.ssl()));
                let cause = error::of_client(error, tls.ssl());
                if !matches!(cause, RefusalCause::ClosedEarly | RefusalCause::Io(_)) {
                    Handshake::failed(tls.ssl());
                }
                let openssl = cause.openssl_error(said, tls13);
                Err(HandshakeError { cause, openssl, stream: unwrap(tls) })
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
        let versions = built.range.into();
        Ok(Self { context: built.context, versions, hash, cache: None })
    }

    /// The same with a cache of sessions to resume, where the configuration asks for it. `previous` is the
    /// end that this one replaces, whose sessions stay, as far as they were got with keys of `secrets`.
    #[must_use]
    pub fn resuming(
        mut self,
        tls: &TlsConfig,
        secrets: &SecretSet,
        previous: Option<&Self>,
    ) -> Self {
        if tls.resumes() {
            let previous = previous.and_then(|old| old.cache.as_ref());
            let cache = Cache::new(&tls.resumption, previous);
            cache.retain(secrets);
            self.cache = Some(cache);
        }
        self
    }

    /// Drops sessions that were got with keys that are not in this set.
    pub fn forget_sessions_of_others(&self, secrets: &SecretSet) {
        if let Some(cache) = &self.cache {
            cache.retain(secrets);
        }
    }

    /// Performs the client's side of the handshake, under `identity`, with `name` in SNI. Must be
    /// under a clock.
    ///
    /// # Errors
    /// The server did not prove that it holds the key of that identity.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        keys: impl Into<PeerKeys>,
        identity: Identity,
        name: Option<&str>,
        stream: S,
    ) -> Result<EstablishedTls<S>, HandshakeError<S>> {
        let mut secured = self.connect_unflushed(keys, identity, name, None, stream).await?;
        let tls = &mut secured.stream.tls;
        match poll_fn(|cx| tls.get_mut().poll_flushed(cx)).await {
            Ok(()) => Ok(secured),
            Err(error) => {
                let stream = secured.stream.into_socket();
                Err(HandshakeError { cause: RefusalCause::Io(error), openssl: None, stream })
            }
        }
    }

    /// The same, but the last flight of a 1.3 handshake goes together with the first data that is
    /// written, or at the first flush: without either the server waits for it. What was agreed on with
    /// `address` before is resumed, if this end does so.
    ///
    /// # Errors
    /// As above.
    pub async fn connect_unflushed<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        keys: impl Into<PeerKeys>,
        identity: Identity,
        name: Option<&str>,
        address: Option<&str>,
        stream: S,
    ) -> Result<EstablishedTls<S>, HandshakeError<S>> {
        let mut ssl = match Ssl::new(&self.context) {
            Ok(ssl) => ssl,
            Err(error) => return Err(cannot_begin(&error, stream)),
        };
        let keys = keys.into();
        let resuming = self.cache.as_ref().zip(address).and_then(|(cache, address)| {
            let (_, claim) = keys.find(identity.as_bytes())?;
            Some(ClientResumption::new(cache.clone(), SessionPurpose::new(address, name, &claim)))
        });
        let who = identity.clone();
        if let Err(error) =
            Handshake::client(&mut ssl, keys, who, (self.hash, self.versions), resuming)
        {
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
        let mut tls = wrap(ssl, BatchedIo::new(stream))?;
        match shake(&mut tls, Inner::poll_connect).await {
            Ok(()) => finish(tls),
            Err(error) => {
                Handshake::failed(tls.ssl());
                let said = error::reported(&error);
                let cause = error::of_server(error, tls.ssl(), identity.as_bytes());
                let openssl = cause.openssl_error(said, false);
                Err(HandshakeError { cause, openssl, stream: unwrap(tls) })
            }
        }
    }
}

fn cannot_begin<S>(error: &openssl::error::ErrorStack, stream: S) -> HandshakeError<S> {
    let cause = RefusalCause::Protocol(error.to_string());
    HandshakeError { cause, openssl: None, stream: Some(stream) }
}

type Inner<S> = tokio_openssl::SslStream<BatchedIo<S>>;

fn wrap<S: AsyncRead + AsyncWrite + Unpin>(
    ssl: Ssl,
    wire: BatchedIo<S>,
) -> Result<Inner<S>, HandshakeError<S>> {
    Inner::new(ssl, wire).map_err(|error| HandshakeError {
        cause: RefusalCause::Protocol(error.to_string()),
        openssl: None,
        stream: None,
    })
}

/// Runs a handshake to its end, and sends an alert if it ended with one.
async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &mut Inner<S>,
    mut step: impl FnMut(Pin<&mut Inner<S>>, &mut Context<'_>) -> Poll<Result<(), openssl::ssl::Error>>,
) -> Result<(), openssl::ssl::Error> {
    poll_fn(|cx| {
        tls.get_mut().lend_buffers(usize::MAX);
        let polled = step(Pin::new(tls), cx);
        if polled.is_ready() {
            tls.get_mut().end_handshake(matches!(polled, Poll::Ready(Ok(()))));
        }
        // A socket that takes nothing any more is found out by the next read.
        let _ = tls.get_mut().return_buffers(cx);
        polled
    })
    .await
}

/// The one gate between a handshake and application data.
fn finish<S: AsyncRead + AsyncWrite + Unpin>(
    mut tls: Inner<S>,
) -> Result<EstablishedTls<S>, HandshakeError<S>> {
    let Some((grant, resumed)) = Handshake::granted(sys::ssl_mut(&mut tls)) else {
        Handshake::failed(tls.ssl());
        let cause = RefusalCause::NotProven;
        return Err(HandshakeError { cause, openssl: None, stream: unwrap(tls) });
    };
    let traffic = tls.get_ref().traffic().clone();
    if let Err(error) = key_update::count_messages(sys::ssl_mut(&mut tls), traffic.clone()) {
        let cause = RefusalCause::Protocol(error.to_string());
        return Err(HandshakeError { cause, openssl: None, stream: unwrap(tls) });
    }
    let ssl = tls.ssl();
    let suite = ssl.current_cipher();
    let info = HandshakeInfo {
        version: ssl.version_str(),
        suite: suite.map_or_else(String::new, |suite| suite.name().to_owned()),
        bits: suite.map_or(0, |suite| suite.bits().secret),
        group: ssl.peer_tmp_key().ok().and_then(|key| group(&key)),
    };
    let keys = KeyUsage::new(traffic, sys::is_tls13(ssl));
    let owes_ticket = Handshake::owes_ticket(ssl);
    let stream =
        Stream { tls, deferred_end: None, ended: false, owes_ticket, keys, max_turn: MAX_TURN };
    Ok(EstablishedTls { stream, grant, info, resumed })
}

fn group(key: &PKey<Public>) -> Option<KeyExchangeGroup> {
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
    Some(KeyExchangeGroup { name, bits: key.bits() })
}

fn unwrap<S: AsyncRead + AsyncWrite + Unpin>(mut tls: Inner<S>) -> Option<S> {
    tls.get_mut().take()
}

/// A record's plain text at most (RFC 9846 and 8446, 5.1).
const MAX_RECORD_SIZE: usize = 16 * 1024;
/// A buffer that is larger by this than a few records is filled with those records by one receive: one may have
/// begun before, and each has a header and a MAC.
pub const SPARE_ROOM: usize = MAX_RECORD_SIZE + 1024;
/// For how long one session decrypts before others have a turn, and after how many records it looks at the
/// clock: a receive brings eight whole records, or five thousand of one byte each.
const MAX_TURN: Duration = Duration::from_millis(2);
const RECORDS_PER_CLOCK_CHECK: u32 = 64;

/// A session's TLS side.
#[derive(Debug)]
pub struct Stream<S> {
    tls: Inner<S>,
    /// How the stream ended, when that came to light behind data that had to be handed over first.
    deferred_end: Option<io::Result<()>>,
    /// close_notify was said.
    ended: bool,
    /// A ticket of 1.3 goes with the first data. One that ends before costs neither end anything.
    owes_ticket: bool,
    keys: KeyUsage,
    /// `MAX_TURN`, but where a test must not depend on how fast the machine decrypts.
    max_turn: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Whether the end that a read reported was the peer's close_notify. Otherwise the stream was
    /// cut, and what came of it may be half of something.
    pub fn ended_cleanly(&self) -> bool {
        sys::received_close_notify(self.tls.ssl())
    }

    /// The socket below.
    pub fn socket(&self) -> Option<&S> {
        self.tls.get_ref().socket()
    }

    /// Bytes, of TLS, that were written and that the socket has not taken yet.
    pub fn backlog(&self) -> usize {
        self.tls.get_ref().backlog()
    }

    /// Changes keys after so much; without a call, after as much as can be configured.
    pub fn rekey_after(&mut self, limit: RekeyAfter) {
        self.keys.limit(limit);
    }

    /// Has OpenSSL begin its next write with a key update.
    fn announce_update(&mut self, request: bool) {
        let taken = key_update::schedule_key_update(sys::ssl_mut(&mut self.tls), request);
        self.keys.announce(taken.is_ok());
    }

    /// What has passed over it.
    pub fn traffic(&self) -> &Arc<TlsTraffic> {
        self.keys.traffic()
    }

    /// Whether the last read ended because it had taken long enough: others should have a turn before the next.
    pub fn is_turn_over(&self) -> bool {
        self.tls.get_ref().is_turn_over()
    }

    /// Ends TLS without a word to the peer and gives the socket back.
    pub fn into_socket(self) -> Option<S> {
        unwrap(self.tls)
    }

    /// Decrypts what one receive brings, until `buf` is full. `Ready` tells how the stream ended, or
    /// nothing when there may be more.
    fn decrypt_batch(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Option<io::Result<()>>> {
        let (mut records, mut look) = (0_u32, None);
        loop {
            let before = buf.filled().len();
            let polled = Pin::new(&mut self.tls).poll_read(cx, buf);
            if self.keys.has_messages()
                && let Err(flood) = self.keys.note_messages(Instant::now())
            {
                return Poll::Ready(Some(Err(io::Error::other(flood))));
            }
            match polled {
                // The end of the stream all the same; `ended_cleanly` tells which.
                Poll::Ready(Err(error)) if error::is_unexpected_eof(&error) => {
                    return Poll::Ready(Some(Ok(())));
                }
                Poll::Ready(Err(error)) => {
                    if error::is_fatal(&error) {
                        Handshake::failed(self.tls.ssl());
                    }
                    return Poll::Ready(Some(Err(error::plain(error))));
                }
                Poll::Ready(Ok(())) if buf.filled().len() == before => {
                    return Poll::Ready(Some(Ok(())));
                }
                Poll::Ready(Ok(())) => self.keys.record_read(),
                Poll::Pending => return Poll::Pending,
            }
            if buf.remaining() == 0 {
                if sys::has_pending(self.tls.ssl()) {
                    self.keys.record_not_whole();
                }
                return Poll::Ready(None);
            }
            if !self.tls.get_ref().has_more() {
                return Poll::Ready(None);
            }
            records += 1;
            if records.is_multiple_of(RECORDS_PER_CLOCK_CHECK)
                && look.get_or_insert_with(Instant::now).elapsed() >= self.max_turn
            {
                self.tls.get_mut().end_turn();
                return Poll::Ready(None);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(met) = this.deferred_end.take() {
            return Poll::Ready(met);
        }
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        this.traffic().begin_turn();
        this.keys.note_updates();
        // Reading writes it. What waits for the socket goes first: OpenSSL must not wait with it.
        if this.keys.request_is_due() && !this.ended && this.backlog() == 0 {
            this.announce_update(true);
        }
        loop {
            // Plain text is shorter than what it came in, but for a record that had begun before.
            let room = buf.remaining().saturating_sub(MAX_RECORD_SIZE).max(MAX_RECORD_SIZE);
            this.tls.get_mut().lend_buffers(room);
            let polled = this.decrypt_batch(cx, buf);
            // An answer of OpenSSL's own that the peer cannot be told is no reason not to read on.
            let _ = this.tls.get_mut().return_buffers(cx);
            let bytes = buf.filled().len() - before;
            this.keys.read_ended(bytes);
            let got = bytes > 0;
            match polled {
                Poll::Ready(Some(met)) if got => {
                    this.deferred_end = Some(met);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Some(met)) => return Poll::Ready(met),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if got => return Poll::Ready(Ok(())),
                // Behind all who are ready; the wire has asked nobody to wake this up.
                Poll::Pending if this.is_turn_over() => {
                    let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
                    return Poll::Pending;
                }
                Poll::Pending if this.tls.get_ref().starved_of_input() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    /// Takes all of `buf`, however long, once the socket has taken what went before: whoever writes more
    /// than that should flush in between.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.tls.get_mut().poll_ready(cx))?;
        this.keys.note_updates();
        if this.keys.update_is_due() {
            this.announce_update(this.keys.request_is_due());
        }
        if this.owes_ticket && !buf.is_empty() {
            this.owes_ticket = false;
            sys::announce_ticket(sys::ssl_mut(&mut this.tls));
        }
        this.tls.get_mut().lend_buffers(usize::MAX);
        let (mut said, mut met) = (0, Poll::Pending);
        while said < buf.len() {
            met = Pin::new(&mut this.tls).poll_write(cx, &buf[said..]);
            match &met {
                Poll::Ready(Ok(n)) if *n > 0 => {
                    said += n;
                    this.keys.record_written();
                }
                _ => break,
            }
        }
        this.keys.write_ended(said, said < buf.len() && met.is_pending());
        this.tls.get_mut().return_buffers(cx)?;
        if said == 0 && this.tls.get_ref().starved_of_input() {
            cx.waker().wake_by_ref();
        }
        match met {
            _ if said > 0 || buf.is_empty() => Poll::Ready(Ok(said)),
            other => other.map_err(error::plain),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().tls.get_mut().poll_flushed(cx)
    }

    /// Sends close_notify and leaves the other direction open.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.keys.note_updates();
        if !this.ended && this.keys.is_announced() {
            // OpenSSL refuses to shut down before it is written.
            this.tls.get_mut().lend_buffers(0);
            let written = Pin::new(&mut this.tls).poll_do_handshake(cx);
            this.tls.get_mut().return_buffers(cx)?;
            if let Err(error) = ready!(written) {
                return Poll::Ready(Err(error.into_io_error().unwrap_or_else(io::Error::other)));
            }
        }
        if !this.ended {
            // A second time it would wait for the peer's.
            this.ended = true;
            this.tls.get_mut().lend_buffers(0);
            let said = Pin::new(&mut this.tls).poll_shutdown(cx);
            this.tls.get_mut().return_buffers(cx)?;
            if let Poll::Ready(Err(error)) = said {
                return Poll::Ready(Err(error::plain(error)));
            }
        }
        this.tls.get_mut().poll_flushed(cx)
    }
}
