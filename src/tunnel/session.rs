//! START READING HERE: one connection, from accept to close.
//!
//! *Server end:* TLS accept, which yields a Grant, then admission, then dial: a stranger never
//! causes an upstream connection. *Client end:* admission, dial, then TLS connect. Then three
//! things race: the relay, "my Grant is gone", and "the phase says stop". One [`End`] comes of it,
//! one log line, one counter.

#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::ending::{Cut, End};
use super::relay::{Fault, Meter, Outcome, Side, relay};
use super::roster::{Full, Member, Newcomer};
use super::service::{Capacity, Phase, Service};
use super::setup::{Clocks, Role, Setup};
use crate::config::model::{Endpoint, Host, Mode, Negotiation, ProxyHeader, WhenFull};
use crate::net::{self, Caller, Peer, Proxied, Reached, Refused, Socket};
use crate::observe::event::{Event, Scope};
use crate::secrets::{Grant, Identity};
use crate::tls::{self, Cause, Failure, Secured};

/// A session that has been silent for this long at a drain has nothing under way.
const QUIET: Duration = Duration::from_secs(1);
/// How long a backend may take to close after our FIN before it is left alone.
const LINGER: Duration = Duration::from_secs(5);
/// How long a refused peer may take to read its alert.
const ALERT: Duration = Duration::from_secs(1);
/// How long a newcomer waits for the session whose place it takes: as long as that one's backend may
/// take to close, and a moment more.
const MAKE_WAY: Duration = LINGER.saturating_add(Duration::from_millis(500));

impl Side for Socket {
    fn fault(&self) -> Option<std::io::Error> {
        Socket::fault(self)
    }

    fn in_flight(&self) -> bool {
        Socket::in_flight(self)
    }
}

impl Side for tls::Stream<Socket> {
    fn ended_cleanly(&self) -> bool {
        tls::Stream::ended_cleanly(self)
    }

    fn backlog(&self) -> usize {
        tls::Stream::backlog(self)
    }

    /// By its close_notify.
    fn proves_its_end(&self) -> bool {
        true
    }

    fn fault(&self) -> Option<std::io::Error> {
        self.socket().and_then(Socket::fault)
    }

    fn in_flight(&self) -> bool {
        self.socket().is_some_and(Socket::in_flight)
    }
}

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
            introduced = self.introduced(&setup, &mut socket) => introduced,
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
    async fn introduced(&mut self, setup: &Setup, socket: &mut Socket) -> bool {
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

    /// From here on the session belongs to the service that the client asked for, if it did.
    fn belong_to(&mut self, asked: Option<&Asked>, setup: &mut Arc<Setup>) {
        if let Some((service, its)) = asked {
            self.door = Some(std::mem::replace(&mut self.service, service.clone()));
            *setup = its.clone();
        }
    }

    async fn establish(&mut self, setup: &mut Arc<Setup>, socket: Socket) -> Option<Open> {
        let at_door = setup.clone();
        let ip = self.peer.ip();
        match &at_door.role {
            Role::Server(acceptor) => {
                let place = self.service.capacity().handshakes.enter(ip);
                let counted = self.service.handshaking();
                let keys = setup.keys(ip);
                let asked: Vec<Asked> =
                    self.service.named().iter().map(|s| (s.clone(), s.setup())).collect();
                let named = asked.iter().filter_map(|(_, setup)| setup.named(ip)).collect();
                let handshake = acceptor.accept(keys, named, socket);
                let limit = self.accepted + setup.clocks.handshake;
                let handshake = tokio::select! {
                    done = timeout_at(limit, handshake) => done,
                    () = place.crowded_out() => {
                        self.service.counters.refused("crowded-out");
                        self.log_stranger(&Event::Crowded { peer: &self.peer });
                        return None;
                    }
                };
                let Secured { mut stream, grant, facts, resumed, .. } = match handshake {
                    Ok(Ok(secured)) => {
                        self.belong_to(secured.named.and_then(|n| asked.get(n)), setup);
                        secured
                    }
                    Ok(Err(Failure { cause, stream, named })) => {
                        self.belong_to(named.and_then(|n| asked.get(n)), setup);
                        self.refused(&setup.truth(cause, ip));
                        // Lingering is bounded like the handshake itself: in time, and by the place.
                        if let Some(socket) = stream {
                            tokio::select! {
                                () = socket.close_gently(ALERT) => {}
                                () = place.crowded_out() => {}
                            }
                        }
                        return None;
                    }
                    Err(_) => {
                        self.refused(&Cause::Timeout(setup.clocks.handshake));
                        return None;
                    }
                };
                drop((place, counted));
                self.secured(Mode::Server, &grant, &facts, resumed);
                let member = self.admit(setup, grant.who()).await?;
                let local = stream.socket().and_then(Socket::local_address);
                let local = self.destination.or(local);
                let known = Known { wire: grant.who(), facts: &facts, local, resumed };
                // The keys may have changed during the handshake, or while a place was waited for.
                let gone = async {
                    if self.service.setup().admits(&grant, ip) {
                        self.service.revoked(&grant, ip).await;
                    }
                };
                let mut answered = false;
                let reached = tokio::select! {
                    biased;
                    () = gone => {
                        self.left_early(&End::Cut(Cut::Revoked));
                        None
                    }
                    order = member.info.ordered() => {
                        self.left_early(&End::Cut(Cut::Ordered(order)));
                        None
                    }
                    reached = self.route(setup, &known, &mut stream) => {
                        answered = matches!(setup.negotiation, Some(Negotiation::Socks));
                        reached
                    }
                };
                let Some(reached) = reached else {
                    if answered {
                        // It was told why, and may still have to read it.
                        let _ = timeout(ALERT, stream.shutdown()).await;
                        if let Some(socket) = stream.into_socket() {
                            socket.close_gently(ALERT).await;
                        }
                        return None;
                    }
                    if let Some(socket) = stream.into_socket() {
                        socket.reset_on_close(true);
                    }
                    return None;
                };
                self.opened(&member, facts, reached.address);
                let (downstream, upstream) = (Box::new(stream), reached.socket);
                let streams = Streams::Server { downstream, upstream };
                Some(Open { streams, grant, member })
            }
            Role::Client { connector, identity, name } => {
                let member = self.admit(setup, identity).await?;
                let attempt = async {
                    let original = || socket.original_destination();
                    // What goes nowhere needs no tunnel.
                    let meant = match &setup.negotiation {
                        Some(Negotiation::Socks) => Some(self.or_unreachable(original()).ok()?),
                        _ => None,
                    };
                    let to = if setup.to_original {
                        To::Meant(self.or_unreachable(original()).ok()?)
                    } else {
                        To::Configured(None)
                    };
                    let Reached { socket, endpoint, mut address, .. } =
                        self.reach(setup, None, &to).await.ok()?;
                    let name = name.of(endpoint.as_ref());
                    let limit = Instant::now() + setup.clocks.handshake;
                    let mut upstream = socket;
                    if let Some(Negotiation::Connect(ask)) = &setup.negotiation {
                        let asked = timeout_at(limit, net::http_connect(&mut upstream, ask)).await;
                        let asked = asked
                            .unwrap_or_else(|_| Err(late("the proxy")))
                            .map_err(|error| io::Error::other(format!("{address}: {error}")));
                        self.or_unreachable(asked).ok()?;
                        Event::ProxyAgreed { proxy: &address, host: &ask.host }.log(self.scope());
                        address = format!("{} through {address}", ask.host);
                    }
                    Event::Presenting { who: identity, name }.log(self.scope());
                    let _counted = self.service.handshaking();
                    let handshake = connector.connect_unflushed(
                        setup.secrets.clone(),
                        identity.clone(),
                        name,
                        Some(&address),
                        upstream,
                    );
                    let mut done = timeout_at(limit, handshake).await;
                    if let (Some(meant), Ok(Ok(secured))) = (meant, &mut done) {
                        let asked = net::socks::ask(&mut secured.stream, meant);
                        let asked = timeout_at(limit, asked).await;
                        let asked = asked.unwrap_or_else(|_| Err(late("the server's end")));
                        self.or_unreachable(asked).ok()?;
                        address = format!("{meant} through {address}");
                    }
                    Some((done, address))
                };
                let (presented, address) = tokio::select! {
                    biased;
                    order = member.info.ordered() => {
                        let end = End::Cut(Cut::Ordered(order));
                        self.left_early(&end);
                        self.service.failed(format!("{end}; the log of the server's end may have the reason"));
                        return None;
                    }
                    presented = attempt => presented?,
                };
                let (cause, stream) = match presented {
                    Ok(Ok(Secured { stream, grant, facts, resumed, .. })) => {
                        self.secured(Mode::Client, &grant, &facts, resumed);
                        self.opened(&member, facts, address);
                        let upstream = Box::new(stream);
                        let streams = Streams::Client { downstream: socket, upstream };
                        return Some(Open { streams, grant, member });
                    }
                    Ok(Err(Failure { cause, stream, .. })) => (cause, stream),
                    Err(_) => (Cause::Timeout(setup.clocks.handshake), None),
                };
                self.service.counters.refused(cause.name());
                self.service.failed(format!("handshake with {address} failed: {cause}"));
                // Whoever reaches the plain port causes this line, and needs no key for it.
                self.log_stranger(&Event::HandshakeFailed {
                    peer: &self.peer,
                    who: identity,
                    target: &address,
                    cause: &cause,
                    name: cause.name(),
                });
                // The application hears at once; the server may still have our alert to read.
                drop(socket);
                if let Some(upstream) = stream {
                    upstream.close_gently(ALERT).await;
                }
                None
            }
        }
    }

    /// Returns when the service at whose door it came in has no room for its address any more.
    async fn shut_out(&self) {
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

    /// A server end's way to its target, which its peer may have to be asked for.
    async fn route(
        &self,
        setup: &Setup,
        known: &Known<'_>,
        stream: &mut tls::Stream<Socket>,
    ) -> Option<Reached> {
        if setup.to_original {
            let gone = || io::Error::from(io::ErrorKind::NotConnected);
            let meant = stream.socket().ok_or_else(gone).and_then(Socket::original_destination);
            let to = To::Meant(self.or_unreachable(meant).ok()?);
            return self.reach(setup, Some(known), &to).await.ok();
        }
        if !matches!(setup.negotiation, Some(Negotiation::Socks)) {
            let back = setup.sticks && known.resumed;
            let again = back.then(|| self.service.went_to(known.wire)).flatten();
            let to = To::Configured(again.as_deref());
            let reached = self.reach(setup, Some(known), &to).await.ok()?;
            if setup.sticks {
                self.service.goes_to(known.wire, &reached.address);
            }
            return Some(reached);
        }
        let limit = Instant::now() + setup.clocks.handshake;
        let asked = timeout_at(limit, net::socks::read_request(stream)).await;
        let asked = asked.unwrap_or_else(|_| Err(late("the peer, which has to say where to,")));
        let request = self.or_unreachable(asked).ok()?;
        let reached = self.reach(setup, Some(known), &To::Asked(&request.to)).await;
        let outcome = reached.as_ref().map(|_| ()).map_err(|refused| *refused);
        let told =
            timeout_at(limit + setup.clocks.handshake, request.answer(stream, outcome)).await;
        let told = told.unwrap_or_else(|_| Err(late("the peer")));
        // Whether it was told or not, what was refused is in the log already.
        let reached = reached.ok()?;
        self.or_unreachable(told).ok()?;
        Some(reached)
    }

    /// Connects to the target and says what is to be said before the data; or says why there is no target.
    async fn reach(
        &self,
        setup: &Setup,
        known: Option<&Known<'_>>,
        to: &To<'_>,
    ) -> Result<Reached, Refused> {
        let who = known.map(|known| setup.policies.who(known.wire));
        let caller = Caller { peer: &self.peer, who: who.as_ref(), scope: self.scope() };
        let own = known.and_then(|known| setup.policies.dialer(known.wire));
        if setup.single && known.is_some() {
            Box::pin(self.service.settled()).await;
        }
        let any = |_| true;
        let dialed = match to {
            To::Configured(again) => {
                let dialer = own.unwrap_or(&setup.dialer);
                dialer.dial(&caller, *again).await.map_err(|error| (Refused::Unreachable, error))
            }
            To::Meant(address) => {
                let to = Endpoint::Tcp { host: Host::Ip(address.ip()), port: address.port() };
                setup.dialer.dial_to(&to, any, &caller).await
            }
            To::Asked(to) => setup.dialer.dial_to(to, net::socks::may_be_asked_for, &caller).await,
        };
        let mut reached = match dialed {
            Ok(reached) => reached,
            Err((refused, error)) => {
                self.unreachable(&error);
                return Err(refused);
            }
        };
        #[cfg(unix)]
        if let Some(child) = reached.child.take() {
            self.service.watch(self.number, child);
        }
        if let (Some(version), Some(known)) = (setup.preface, known) {
            let header = match version {
                ProxyHeader::V1 => net::proxy_header(&self.peer, known.local),
                ProxyHeader::V2 => {
                    let who = who.as_ref().unwrap_or(known.wire).as_bytes();
                    let facts = known.facts;
                    let group = facts.group.as_ref().map(|group| group.name.as_str());
                    let (version, suite) = (facts.version, facts.suite.as_str());
                    let told = net::Told { who, version, suite, group };
                    net::proxy_header_v2(&self.peer, known.local, &told)
                }
            };
            self.or_unreachable(reached.socket.write_all(&header).await)?;
        }
        Ok(reached)
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
            let Capacity { seats, own, .. } = self.service.capacity();
            let shares = setup.policies.shares(wire, own);
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
            () = self.shut_out() => End::Cut(Cut::Revoked),
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
type Asked = (Arc<Service>, Arc<Setup>);

/// A session that was let in.
struct Open {
    streams: Streams,
    grant: Grant,
    member: Member,
}

/// Where a connection is to go.
enum To<'a> {
    /// Where the configuration says; of several that take turns, there again.
    Configured(Option<&'a str>),
    /// Where the connection was meant to go before it was redirected here.
    Meant(SocketAddr),
    /// Where the peer says.
    Asked(&'a Endpoint),
}

/// Somebody has not answered in the time of a handshake.
fn late(who: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{who} does not answer"))
}

/// What a server end knows when it connects to its backend.
struct Known<'a> {
    wire: &'a Identity,
    facts: &'a tls::Facts,
    local: Option<SocketAddr>,
    /// Whether the session goes on from an earlier one.
    resumed: bool,
}

enum Streams {
    Server { downstream: Box<tls::Stream<Socket>>, upstream: Socket },
    Client { downstream: Socket, upstream: Box<tls::Stream<Socket>> },
}

impl Streams {
    fn mode(&self) -> Mode {
        match self {
            Self::Server { .. } => Mode::Server,
            Self::Client { .. } => Mode::Client,
        }
    }

    async fn relay(&mut self, clocks: Clocks, meter: &Meter) -> Outcome {
        let Clocks { idle, close, .. } = clocks;
        match self {
            Self::Server { downstream, upstream } => {
                relay(&mut **downstream, upstream, idle, close, meter).await
            }
            Self::Client { downstream, upstream } => {
                relay(downstream, &mut **upstream, idle, close, meter).await
            }
        }
    }

    async fn close(self, end: &End, reset: Option<bool>) {
        let (mode, plain, tls) = match self {
            Self::Server { downstream, upstream } => (Mode::Server, upstream, *downstream),
            Self::Client { downstream, upstream } => (Mode::Client, downstream, *upstream),
        };
        let Some(tls) = tls.into_socket() else { return };
        if matches!(end, End::Complete) {
            plain.reset_on_close(false);
            return;
        }
        let (reset_plain, reset_tls) = end.resets(mode, reset);
        tls.reset_on_close(reset_tls);
        if matches!(end, End::Tls(Fault::Failed(_))) && !reset_tls {
            // OpenSSL has sent an alert, which a reset would overtake.
            tokio::join!(tls.close_gently(ALERT), finish(plain, reset_plain));
        } else {
            drop(tls);
            finish(plain, reset_plain).await;
        }
    }
}

async fn finish(plain: Socket, reset: bool) {
    if reset {
        plain.reset_on_close(true);
    } else {
        plain.close_gently(LINGER).await;
    }
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
