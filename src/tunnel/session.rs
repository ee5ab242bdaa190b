//! START READING HERE: one connection, from accept to close.
//!
//! *Server end:* TLS accept, which yields a Grant, then admission, then dial: a stranger never
//! causes an upstream connection. *Client end:* admission, dial, then TLS connect. Then three
//! things race: the relay, "my Grant is gone", and "the phase says stop". One [`End`] comes of it,
//! one log line, one counter.

mod arrival;
mod client;
mod server;
mod streams;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod upstream;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use arrival::Arrived;
use client::Credentials;
use streams::Streams;

use super::admission::Visitor;
use super::ending::{Cut, End};
use super::relay::Meter;
use super::roster::{Full, Info, Limit, Member, Newcomer, Reached};
use super::service::{Capacity, Phase, Service};
use super::setup::{Clocks, Role, Setup};
use crate::config::model::{Mode, WhenFull};
use crate::net::{Peer, Refused, Socket};
use crate::observe::event::{Event, Scope};
use crate::secrets::{Grant, Identity};
use crate::sys::key_update::Traffic;
use crate::tls::{self, Cause};

/// A session that has been silent for this long at a drain has nothing under way.
const QUIET: Duration = Duration::from_secs(1);
/// How long a session that has lasted its time may go on without a moment of silence.
const LIFETIME_GRACE: Duration = Duration::from_secs(30);
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
    /// Its room, from before its task has begun until it has arrived.
    visitor: Option<Visitor>,
}

/// An open session, and what of its Setup it still needs.
type Established = (Open, Clocks, Option<bool>, bool);

impl Session {
    pub(super) fn new(service: Arc<Service>, number: u64, peer: Peer, accepted: Instant) -> Self {
        Self { service, number, peer, destination: None, accepted, door: None, visitor: None }
    }

    /// The whole life of a connection. Says whether it went well.
    pub(super) async fn run(mut self, mut socket: Socket) -> bool {
        let mut phase = self.service.phase();
        let arrived = tokio::select! {
            arrived = self.arrive(&mut socket) => arrived,
            _ = phase.wait_for(|phase| *phase != Phase::Running) => None,
        };
        drop(phase);
        match arrived {
            // Boxed: an arrival needs little room, and there may be thousands.
            Some(arrived) => Box::pin(self.begin(arrived, socket)).await,
            None => false,
        }
    }

    /// From its first bytes to its end.
    async fn begin(mut self, arrived: Arrived, socket: Socket) -> bool {
        let mut phase = self.service.phase();
        // Boxed: an open session does not need the room that its handshake took.
        let established = tokio::select! {
            established = Box::pin(self.establish(arrived, socket)) => established,
            _ = phase.wait_for(|phase| *phase != Phase::Running) => None,
        };
        match established {
            Some((open, clocks, reset, single)) => {
                // Of the service that the client asked for.
                let phase = self.service.phase();
                self.converse(open, clocks, reset, single, phase).await
            }
            None => false,
        }
    }

    /// Sets what the socket needs; a line says so if that cannot be done.
    fn prepare(&self, setup: &Setup, socket: &Socket) -> Option<()> {
        let prepared = self.service.prepare(setup, socket, self.number);
        if let Err(error) = &prepared {
            self.service.counters.refused("socket-options");
            self.log_stranger(&Event::Unprepared { peer: &self.peer, error });
        }
        prepared.ok()
    }

    /// Up to where both sides are connected. The keys are needed no more then: a set that a reload
    /// replaces is wiped when the last handshake that uses it is over.
    async fn establish(&mut self, arrived: Arrived, socket: Socket) -> Option<Established> {
        let Arrived { visitor, opening, weight, counted } = arrived;
        if let Some(opening) = opening {
            let pending = server::Pending { visitor, opening, weight, counted };
            return self.establish_server(pending, socket).await;
        }
        let setup = self.service.setup();
        self.prepare(&setup, &socket)?;
        let Role::Client { connector, identity, name } = &setup.role else { return None };
        let credentials = Credentials { connector, identity, name };
        let open = self.establish_client(&setup, &credentials, visitor, socket).await?;
        Some((open, setup.clocks, setup.reset, setup.single))
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
            let full = match self.ask_for_seat(setup, &newcomer) {
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
        if let Some(member) = self.wait_for_seat(setup, &newcomer, full.limit).await {
            return Some(member);
        }
        let Full { limit, most } = full;
        self.log_stranger(&Event::Full { peer: &self.peer, who: &who, what: limit.words(), most });
        self.service.counters.refused("full");
        None
    }

    fn ask_for_seat(&self, setup: &Setup, newcomer: &Newcomer<'_>) -> Result<Member, Full> {
        let (shares, seats) = self.service.shares(setup, newcomer.wire);
        let seat = || seats.take().ok_or_else(|| seats.limit());
        self.service.roster.admit(newcomer, shares, seat)
    }

    /// Where all services together have no seat left, one that is given back soon. A limit that somebody
    /// wrote is not waited for.
    async fn wait_for_seat(
        &self,
        setup: &Setup,
        newcomer: &Newcomer<'_>,
        limit: Limit,
    ) -> Option<Member> {
        let Capacity { seats, own, .. } = self.service.capacity();
        if own.is_some() || !matches!(limit, Limit::Service | Limit::Unreserved) {
            return None;
        }
        // Boxed: few come to this.
        let queue = seats.queue()?;
        Box::pin(queue.seat(|| self.ask_for_seat(setup, newcomer).ok())).await
    }

    fn opened(
        &self,
        member: &Member,
        facts: tls::Facts,
        target: String,
        traffic: Arc<Traffic>,
        mode: Mode,
    ) {
        self.service.counters.opened();
        let terms = facts.terms();
        Event::Opened { peer: &self.peer, who: &member.info.who, terms, target: &target }
            .log(self.scope());
        member.reached(Reached { facts, target, traffic, mode });
    }

    /// Never returns. A key can become overused only in a turn in which data moves, and this has its turns with
    /// those.
    async fn warn_of_overused_key(&self, info: &Info) -> std::convert::Infallible {
        let mut warned = false;
        poll_fn(|_| {
            let Some(Reached { facts, traffic, .. }) = info.reached() else { return Poll::Pending };
            if !warned && traffic.key_overused.load(Ordering::Relaxed) {
                warned = true;
                let (up, down) = info.carried();
                let (peer, who, version) = (&info.peer, &info.who, facts.version);
                let records = up.records.max(down.records);
                Event::KeyOverused { peer, who, version, records }.log(self.scope());
            }
            Poll::Pending
        })
        .await
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
            () = lifetime_over(clocks.lifetime, info.since, meter) => End::Cut(Cut::LifetimeOver),
            never = self.warn_of_overused_key(&info) => match never {},
        };
        let age = self.accepted.elapsed();
        let (up, down) = info.carried();
        self.service.counters.ended(end.name(), up, down);
        info.ended();
        let (up, down) = (up.bytes, down.bytes);
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

/// Returns when a session has lasted its time and is silent, or is not silent for too long after that.
async fn lifetime_over(lifetime: Option<Duration>, since: Instant, meter: &Meter) {
    match lifetime {
        // Boxed: few sessions have one, and all would pay for it.
        Some(lifetime) => Box::pin(until_lifetime_over(lifetime, since, meter)).await,
        None => std::future::pending().await,
    }
}

async fn until_lifetime_over(lifetime: Duration, since: Instant, meter: &Meter) {
    let Some(over) = since.checked_add(lifetime) else { return std::future::pending().await };
    sleep_until(over).await;
    let last = Instant::now() + LIFETIME_GRACE;
    loop {
        let now = Instant::now();
        let quiet = meter.touched() + QUIET;
        if quiet <= now || last <= now {
            return;
        }
        sleep_until(quiet.min(last)).await;
    }
}

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
