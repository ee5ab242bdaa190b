//! START READING HERE: one connection, from accept to close.
//!
//! *Server end:* TLS accept, which yields a Grant, then admission, then dial: a stranger never
//! causes an upstream connection. *Client end:* admission, dial, then TLS connect. Then three
//! things race: the relay, "my Grant is gone", and "the phase says stop". One [`End`] comes of it,
//! one log line, one counter.

mod client;
mod server;
mod streams;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod upstream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use client::Credentials;
use streams::Streams;

use super::ending::{Cut, End};
use super::relay::Meter;
use super::roster::{Full, Member, Newcomer};
use super::service::{Phase, Service};
use super::setup::{Clocks, Role, Setup};
use crate::config::model::{Mode, WhenFull};
use crate::net::{self, Peer, Proxied, Refused, Socket};
use crate::observe::event::{Event, Scope};
use crate::secrets::{Grant, Identity};
use crate::tls::{self, Cause};

/// A session that has been silent for this long at a drain has nothing under way.
const QUIET: Duration = Duration::from_secs(1);
/// How long a backend may take to close after our FIN before it is left alone.
const LINGER: Duration = Duration::from_secs(5);
/// How long a refused peer may take to read its alert.
const ALERT: Duration = Duration::from_secs(1);
/// How long a newcomer waits for the session whose place it takes: as long as that one's backend may
/// take to close, and a moment more.
const MAKE_WAY: Duration = LINGER.saturating_add(Duration::from_millis(500));

/// One connection and what it belongs to.
pub(super) struct Session {
    service: Arc<Service>,
    number: u64,
    /// Who it is for: whom a proxy names in its header, where there is one.
    peer: Peer,
    /// Where that one connected to, by the same header.
    destination: Option<SocketAddr>,
    accepted: Instant,
    /// Where it came in, when the client asked for another service.
    door: Option<Arc<Service>>,
}

impl Session {
    pub(super) fn new(service: Arc<Service>, number: u64, peer: Peer, accepted: Instant) -> Self {
        Self { service, number, peer, destination: None, accepted, door: None }
    }

    /// The whole life of a connection. Says whether it went well.
    pub(super) async fn run(mut self, mut socket: Socket) -> bool {
        let mut setup = self.service.setup();
        let mut phase = self.service.phase();
        let introduced = tokio::select! {
            introduced = self.read_proxy_header(&setup, &mut socket) => introduced,
            _ = phase.wait_for(|phase| *phase != Phase::Running) => false,
        };
        if !introduced {
            return false;
        }
        self.service.shared.arrivals.log(&Event::Accepted { peer: &self.peer }, self.scope());
        if !setup.policies.accepts(self.peer.ip()) {
            self.service.counters.refused("not-allowed-from");
            self.log_stranger(&Event::NotAllowed { peer: &self.peer });
            return false;
        }
        if let Err(error) = self.service.prepare(&setup, &socket, self.number) {
            self.service.counters.refused("socket-options");
            self.log_stranger(&Event::Unprepared { peer: &self.peer, error: &error });
            return false;
        }
        // Boxed: an open session does not need the room that its handshake took.
        let established = tokio::select! {
            established = Box::pin(self.establish(&mut setup, socket)) => established,
            _ = phase.wait_for(|phase| *phase != Phase::Running) => None,
        };
        let Some(open) = established else {
            return false;
        };
        // The keys are needed no more: a set that a reload replaces is wiped when the last
        // handshake that uses it is over.
        let (clocks, reset, single) = (setup.clocks, setup.reset, setup.single);
        drop(setup);
        // Of the service that the client asked for.
        let phase = self.service.phase();
        self.converse(open, clocks, reset, single, phase).await
    }

    /// Preface in: a proxy that is trusted says for whom it connects, before anything else, and what it says
    /// counts from here on. Whoever else sends a header has sent something that is not TLS.
    async fn read_proxy_header(&mut self, setup: &Setup, socket: &mut Socket) -> bool {
        let ip = self.peer.ip();
        if !setup.policies.is_proxy(ip) {
            return true;
        }
        // Of the proxy's share: its clients have none of their own before they are known.
        let place = self.service.capacity().handshakes.enter(ip);
        let limit = self.accepted + setup.clocks.handshake;
        let speaks_first = setup.mode() == Mode::Server;
        let read = tokio::select! {
            read = Box::pin(timeout_at(limit, net::read_proxy_header(socket, speaks_first))) => read,
            () = place.crowded_out() => {
                self.service.counters.refused("crowded-out");
                self.log_stranger(&Event::Crowded { peer: &self.peer });
                return false;
            }
        };
        let error: &dyn fmt::Display = match &read {
            Ok(Ok(Proxied::For { from, to })) => {
                let peer = Peer::Tcp(*from);
                let proxy = std::mem::replace(&mut self.peer, peer);
                self.destination = Some(*to);
                let event = Event::Introduced { peer: &self.peer, proxy: &proxy };
                self.service.shared.arrivals.log(&event, self.scope());
                return true;
            }
            Ok(Ok(Proxied::Own)) => return true,
            Ok(Ok(Proxied::Probe)) => {
                self.service.shared.arrivals.log(&Event::Probed { peer: &self.peer }, self.scope());
                return false;
            }
            Ok(Err(error)) => error,
            Err(_) => &"it sent no PROXY header in time",
        };
        self.service.counters.refused("bad-proxy-header");
        self.log_stranger(&Event::NotIntroduced { peer: &self.peer, error });
        false
    }

    async fn establish(&mut self, setup: &mut Arc<Setup>, socket: Socket) -> Option<Open> {
        let at_door = setup.clone();
        match &at_door.role {
            Role::Server(acceptor) => self.establish_server(setup, acceptor, socket).await,
            Role::Client { connector, identity, name } => {
                let credentials = Credentials { connector, identity, name };
                self.establish_client(setup, &credentials, socket).await
            }
        }
    }

    /// Returns when the service at whose door it came in has no room for its address any more.
    async fn access_revoked(&self) {
        match &self.door {
            // Boxed: few sessions have one, and all would pay for it.
            Some(door) => Box::pin(door.shut_to(self.peer.ip())).await,
            None => std::future::pending().await,
        }
    }

    fn scope(&self) -> Scope<'_> {
        self.service.scope(Some(self.number))
    }

    fn secured(&self, mode: Mode, grant: &Grant, facts: &tls::Facts, resumed: bool) {
        self.service.used(grant.who());
        Event::Secured {
            mode,
            who: grant.who(),
            resumed,
            version: facts.version,
            suite: &facts.suite,
            bits: facts.bits,
            group: facts.group.as_ref().map(|group| (group.name.as_str(), group.bits)),
        }
        .log(self.scope());
    }

    fn unreachable(&self, error: &dyn fmt::Display) {
        self.service.counters.refused("target-unreachable");
        self.service.failed(format!("no target answered: {error}"));
        self.log_stranger(&Event::Unreachable { peer: &self.peer, error });
    }

    /// The same of what came to nothing.
    fn or_unreachable<T>(&self, done: io::Result<T>) -> Result<T, Refused> {
        done.map_err(|error| {
            self.unreachable(&error);
            Refused::Unreachable
        })
    }

    /// A place among the sessions, or a line that says why there is none.
    async fn admit(&self, setup: &Setup, wire: &Identity) -> Option<Member> {
        let roster = &self.service.roster;
        let who = setup.policies.who(wire);
        let newcomer = Newcomer { number: self.number, peer: &self.peer, who: &who, wire };
        let patience = Instant::now() + MAKE_WAY;
        let _queue = roster.queue(self.number);
        let full = loop {
            let mut left = std::pin::pin!(roster.left());
            // From here on nobody's leaving is missed.
            left.as_mut().enable();
            let (shares, seats) = self.service.shares(setup, wire);
            let seat = || seats.take().ok_or_else(|| seats.limit());
            let full = match roster.admit(&newcomer, shares, seat) {
                Ok(member) => return Some(member),
                Err(full) => full,
            };
            let own = match setup.policies.when_full {
                WhenFull::Refuse => break full,
                WhenFull::TakeOver => false,
                WhenFull::TakeOverOwn => true,
            };
            if !roster.make_way(&newcomer, full.limit, own)
                || timeout_at(patience, left).await.is_err()
            {
                break full;
            }
        };
        let Full { limit, most } = full;
        self.log_stranger(&Event::Full { peer: &self.peer, who: &who, what: limit.words(), most });
        self.service.counters.refused("full");
        None
    }

    fn opened(&self, member: &Member, facts: tls::Facts, target: String) {
        self.service.counters.opened();
        let terms = facts.terms();
        Event::Opened { peer: &self.peer, who: &member.info.who, terms, target: &target }
            .log(self.scope());
        member.reached(facts, target);
    }

    /// The end of a session whose target had not answered yet.
    fn left_early(&self, end: &End) {
        self.service.counters.refused(end.name());
        self.log_stranger(&Event::Unreachable { peer: &self.peer, error: end });
    }

    fn refused(&self, cause: &Cause) {
        self.service.counters.refused(cause.name());
        let claimed = cause.identity();
        let who = claimed.as_ref().map(|who| who as &dyn fmt::Display);
        self.log_stranger(&Event::Refused { peer: &self.peer, who, cause, name: cause.name() });
    }

    fn log_stranger(&self, event: &Event<'_>) {
        self.service.shared.limiter.log(event, self.scope());
    }

    async fn converse(
        &self,
        mut open: Open,
        clocks: Clocks,
        reset: Option<bool>,
        single: bool,
        mut phase: watch::Receiver<Phase>,
    ) -> bool {
        let info = open.member.info.clone();
        let meter = &info.meter;
        let mode = open.streams.mode();
        let end = tokio::select! {
            outcome = open.streams.relay(clocks, meter) => End::of(outcome, mode),
            () = self.service.revoked(&open.grant, self.peer.ip()) => End::Cut(Cut::Revoked),
            () = self.access_revoked() => End::Cut(Cut::Revoked),
            order = info.ordered() => End::Cut(Cut::Ordered(order)),
            cut = stopped(&mut phase, meter, single) => End::Cut(cut),
        };
        let (up, down, age) = (meter.up(), meter.down(), self.accepted.elapsed());
        self.service.counters.ended(end.name(), up, down);
        info.ended();
        if let (Mode::Client, End::Tls(_)) = (mode, &end) {
            self.service.failed(format!("{end}; the log of the server's end may have the reason"));
        }
        let (level, manner) = (end.level(mode), end.manner(mode, reset));
        let complete = matches!(end, End::Complete);
        let target = info.reached().map_or("", |reached| reached.target.as_str());
        let (peer, who, name) = (&info.peer, &info.who, end.name());
        Event::Closed {
            level,
            mode,
            peer,
            who,
            target: &target,
            complete,
            end: &end,
            name,
            manner,
            up,
            down,
            age,
        }
        .log(self.scope());
        // Held until the sockets are closed: of a one-session service the next one must not reach
        // the backend before. Boxed: an open session does not need the room that its end takes.
        Box::pin(open.streams.close(&end, reset)).await;
        if single && mode == Mode::Server {
            self.service.let_go();
        }
        end.is_good()
    }
}

/// A service that the client may ask for, as it was when the session began.
type NamedService = (Arc<Service>, Arc<Setup>);

/// A session that was let in.
struct Open {
    streams: Streams,
    grant: Grant,
    member: Member,
}

/// Returns when this session should make way for a stop.
async fn stopped(phase: &mut watch::Receiver<Phase>, meter: &Meter, single: bool) -> Cut {
    // An error means that the sender is gone: the process ends.
    if phase.wait_for(|phase| *phase != Phase::Running).await.is_err() || single {
        return Cut::Draining;
    }
    // Boxed: every session waits here, and comes to this at most once.
    Box::pin(until_quiet(phase, meter)).await
}

/// The cut of a session that may finish what it is about.
async fn until_quiet(phase: &mut watch::Receiver<Phase>, meter: &Meter) -> Cut {
    loop {
        let quiet = meter.touched() + QUIET;
        if quiet <= Instant::now() {
            return Cut::Draining;
        }
        tokio::select! {
            () = sleep_until(quiet) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Stopping) => return Cut::DrainExpired,
        }
    }
}
