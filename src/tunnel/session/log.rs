//! What the steps of a connection log and count.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{OpenSession, Session};
use crate::config::model::Mode;
use crate::net::DialRefusal;
use crate::observe::event::{Event, LogContext, OpensslError};
use crate::secrets::Grant;
use crate::sys::key_update::TlsTraffic;
use crate::tls::{self, RefusalCause};
use crate::tunnel::registry::{Registration, SessionDetails};
use crate::tunnel::session_end::SessionEnd;

impl Session {
    pub(super) fn scope(&self) -> LogContext<'_> {
        self.service.scope(Some(self.number))
    }

    /// Counts and remembers that this connection becomes no session.
    pub(super) fn refused(&self, cause: &'static str, claimed: Option<&[u8]>) {
        self.service.record_refusal(&self.peer, claimed, cause);
    }

    /// Logs what a stranger can cause: rate-limited.
    pub(super) fn log_stranger(&self, event: &Event<'_>) {
        self.service.resources.peer_log.log(event, self.scope());
    }

    /// The handshake was refused, for that cause, of which OpenSSL says that.
    pub(super) fn log_refused(&self, cause: &RefusalCause, openssl: Option<OpensslError>) {
        self.refused(cause.name(), cause.claimed());
        let claimed = cause.identity();
        let who = claimed.as_ref().map(|who| who as &dyn fmt::Display);
        let (peer, name) = (&self.peer, cause.name());
        self.log_stranger(&Event::Refused { peer, who, cause, name, openssl });
    }

    /// The handshake is over and the key is proven.
    pub(super) fn log_secured(
        &self,
        mode: Mode,
        grant: &Grant,
        info: &tls::HandshakeInfo,
        resumed: bool,
    ) {
        self.service.record_key_use(grant.who());
        Event::Secured {
            mode,
            who: grant.who(),
            resumed,
            version: info.version,
            suite: &info.suite,
            bits: info.bits,
            group: info.group.as_ref().map(|group| (group.name.as_str(), group.bits)),
        }
        .log(self.scope());
    }

    pub(super) fn log_unreachable(&self, error: &dyn fmt::Display) {
        self.log_rejected(error, None);
    }

    /// The same where a SOCKS peer asked for an address that it may not have.
    pub(super) fn log_rejected(&self, error: &dyn fmt::Display, rejected: Option<SocketAddr>) {
        self.refused("target-unreachable", None);
        self.service.record_failure(format!("no target answered: {error}"));
        self.log_stranger(&Event::Unreachable { peer: &self.peer, error, rejected });
    }

    /// Logs an error on the way to the target.
    pub(super) fn or_unreachable<T>(&self, done: io::Result<T>) -> Result<T, DialRefusal> {
        done.map_err(|error| {
            self.log_unreachable(&error);
            DialRefusal::Unreachable
        })
    }

    /// Both sides are connected: the session is open.
    pub(super) fn log_opened(
        &self,
        registration: &Registration,
        info: tls::HandshakeInfo,
        target: String,
        traffic: Arc<TlsTraffic>,
        mode: Mode,
    ) {
        self.service.counters.opened();
        let terms = info.terms();
        Event::Opened { peer: &self.peer, who: &registration.info.who, terms, target: &target }
            .log(self.scope());
        registration.set_details(SessionDetails { handshake: info, target, traffic, mode });
    }

    /// The session was ended before its target had answered.
    pub(super) fn log_end_before_open(&self, end: &SessionEnd) {
        self.refused(end.name(), None);
        self.log_stranger(&Event::Unreachable { peer: &self.peer, error: end, rejected: None });
    }

    /// The one line and the one count of an open session's end.
    pub(super) fn log_end(&self, open: &OpenSession, end: &SessionEnd) {
        let age = self.accepted.elapsed();
        let (info, mode) = (&open.registration.info, open.streams.mode());
        let (up, down) = info.carried();
        self.service.counters.ended(end.name(), up, down);
        info.set_over();
        if let Some(words) = end.failure(mode) {
            self.service.record_failure(words);
        }
        let target = info.details().map_or("", |reached| reached.target.as_str());
        Event::Closed {
            level: end.level(mode),
            mode,
            peer: &info.peer,
            who: &info.who,
            target: &target,
            complete: matches!(end, SessionEnd::Complete),
            end,
            name: end.name(),
            manner: end.manner(mode, open.reset),
            up: up.bytes,
            down: down.bytes,
            age,
        }
        .log(self.scope());
    }
}
