//! The running service: its listeners, its current Setup, and the sessions it owns.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::admission::{Admission, Origin, Pool, Seats, Visitor};
use super::crowd::Crowd;
use super::fair_share::FairShare;
use super::names::{NameLookup, NameTable};
use super::policy::Shares;
use super::roster::{Info, Roster};
use super::session::Session;
use super::setup::{Role, Setup};
use crate::config::model::{Level, Mode, OnRevocation};
use crate::net::{self, Acceptable, Peer, Socket};
use crate::observe::event::{Event, Scope};
use crate::observe::limit::Limiter;
use crate::observe::metrics::Counters;
use crate::secrets::{Grant, Identity};

/// The pause after a failed accept, so that a lack of descriptors costs no CPU time and is over at
/// most this long after there are some again.
const PAUSE: Duration = Duration::from_millis(100);

/// Without a failed accept for this long, a lack of descriptors is over.
const CALM: Duration = Duration::from_secs(3);
/// How long a backend that bears one connection is left in peace between two. The eRPC runtime takes a
/// moment after its FIN to forget the connection, and a new one that comes within it is forgotten in its
/// place, which ends the runtime's loop for good (seen without any tunnel: once in 90 on a busy machine).
const SETTLE: Duration = Duration::from_millis(50);

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Accepting.
    Running,
    /// No new connections; open sessions may finish.
    Draining,
    /// Time is up.
    Stopping,
}

/// What all services of a process have in common.
#[derive(Debug)]
pub struct Shared {
    /// The number of the next session.
    numbers: AtomicU64,
    /// The budget of lines that strangers can cause.
    pub(super) limiter: Limiter,
    /// The same for connections as such, of which busy services have many.
    pub(super) arrivals: Limiter,
    /// What services use up together that have no limits of their own: descriptors and memory are
    /// the process's.
    capacity: Capacity,
    /// How many identities there are for the seats in there.
    competitors: AtomicUsize,
    /// The room of all connections that have proven nothing yet.
    admission: Arc<Admission>,
    /// How many were put out of it, for the log.
    put_out: Mutex<PutOut>,
    crowd: Arc<Crowd>,
}

/// Connections that were put out to make room, and not told yet.
#[derive(Debug, Default)]
struct PutOut {
    count: u64,
    /// When the last line of them was written.
    told: Option<Instant>,
}

/// How often at most there is a line of connections that were put out.
const PUT_OUT_INTERVAL: Duration = Duration::from_secs(10);
/// Handshakes whose first flight is worked on at the same time, for each processor: one, and one that is
/// ready when it is done.
const TURNS_PER_PROCESSOR: usize = 2;

/// What all services of a process have room for together.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Sessions, of services without a limit of their own.
    pub sessions: usize,
    /// Connections without a session.
    pub connections: usize,
    /// Of them, those in a handshake, of services without a limit of their own.
    pub handshakes: usize,
}

impl Shared {
    /// Room for all services.
    pub fn new(room: Room) -> Arc<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let admission = Admission::new(room.connections, processors * TURNS_PER_PROCESSOR);
        Arc::new(Self {
            numbers: AtomicU64::new(0),
            limiter: Limiter::default(),
            arrivals: Limiter::new(200, Duration::from_millis(20)),
            capacity: Capacity {
                seats: Seats::new(room.sessions),
                own: None,
                handshakes: admission.pool(room.handshakes),
            },
            competitors: AtomicUsize::new(0),
            admission,
            put_out: Mutex::default(),
            crowd: Arc::default(),
        })
    }

    /// Has those who were put out counted in the log: the first at once, and then all of some seconds in
    /// one line.
    pub(super) fn report_put_out(&self) {
        let mut put_out = self.put_out.lock().unwrap_or_else(PoisonError::into_inner);
        put_out.count += self.admission.take_put_out();
        let now = Instant::now();
        let since = put_out.told.map_or(Duration::ZERO, |told| now.duration_since(told));
        if put_out.count == 0 || put_out.told.is_some() && since < PUT_OUT_INTERVAL {
            return;
        }
        let count = std::mem::take(&mut put_out.count);
        put_out.told = Some(now);
        drop(put_out);
        Event::PutOut { count, within: since }.log(Scope::PROGRAM);
    }

    /// Says what was withheld and not yet said.
    pub fn settle_now(&self) {
        self.limiter.settle();
        self.arrivals.settle();
        self.report_put_out();
    }

    /// Has withheld lines counted in the log, now and then, until the process ends.
    pub async fn settle(&self) {
        loop {
            sleep(Duration::from_secs(10)).await;
            self.settle_now();
        }
    }
}

/// A service at work.
#[derive(Debug)]
pub struct Service {
    pub(super) name: Arc<str>,
    current: watch::Sender<Arc<Setup>>,
    capacity: Mutex<Capacity>,
    competitors: Mutex<Competitors>,
    /// What it has seen so far.
    pub counters: Counters,
    pub(super) shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    /// The services that clients reach by sending a name here.
    named: watch::Sender<Arc<NameTable>>,
    pub(super) roster: Arc<Roster>,
    /// By the name on the wire. Only who has proven a key is here: never more than there are keys.
    uses: Mutex<HashMap<Identity, Use>>,
    /// Where the last session of each identity went, for those that are resumed.
    went: Mutex<HashMap<Identity, Box<str>>>,
    failure: Mutex<Option<Failure>>,
    handshakes: AtomicUsize,
    /// When a session last let go of a backend that bears one connection.
    let_go: Mutex<Option<Instant>>,
}

/// What an identity's key was used for.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// When it was proven last.
    pub last: jiff::Timestamp,
    /// How often it was since the start.
    pub count: u64,
}

/// Something that went wrong at a client end.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When.
    pub time: jiff::Timestamp,
    /// In words.
    pub words: String,
}

/// The limits of its own that a service has; what is unset counts in the process's.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sessions at once.
    pub sessions: Option<usize>,
    /// Handshakes at once.
    pub handshakes: Option<usize>,
}

/// What is there to be used up.
#[derive(Debug, Clone)]
pub(super) struct Capacity {
    pub(super) seats: Arc<Seats>,
    /// The service's own limit of sessions. It counts every session of the service, those too that
    /// took their seats before there was one.
    pub(super) own: Option<usize>,
    pub(super) handshakes: Arc<Pool>,
}

impl Capacity {
    /// Follows the limits. A service that keeps one keeps its count as well.
    fn follow(&mut self, limits: Limits, shared: &Capacity, admission: &Arc<Admission>) {
        self.own = limits.sessions;
        match limits.sessions {
            None => self.seats = shared.seats.clone(),
            Some(limit) if Arc::ptr_eq(&self.seats, &shared.seats) => {
                self.seats = Seats::new(limit);
            }
            Some(limit) => self.seats.set_limit(limit),
        }
        match limits.handshakes {
            None => self.handshakes = shared.handshakes.clone(),
            Some(limit) if Arc::ptr_eq(&self.handshakes, &shared.handshakes) => {
                self.handshakes = admission.pool(limit);
            }
            Some(limit) => self.handshakes.set_limit(limit),
        }
    }
}

/// The identities of a service among those for whom the shared seats are; taken back on drop.
#[derive(Debug)]
struct Competitors {
    shared: Arc<Shared>,
    count: usize,
}

impl Competitors {
    fn of(setup: &Setup, limits: Limits, shared: &Arc<Shared>) -> Self {
        let count = if limits.sessions.is_none() { setup.competitors } else { 0 };
        shared.competitors.fetch_add(count, Ordering::Relaxed);
        Self { shared: shared.clone(), count }
    }
}

impl Drop for Competitors {
    fn drop(&mut self) {
        self.shared.competitors.fetch_sub(self.count, Ordering::Relaxed);
    }
}

impl Service {
    /// A service that does not listen yet.
    pub fn new(name: &str, setup: Setup, limits: Limits, shared: Arc<Shared>) -> Arc<Self> {
        let mut capacity = shared.capacity.clone();
        capacity.follow(limits, &shared.capacity, &shared.admission);
        Arc::new(Self {
            competitors: Mutex::new(Competitors::of(&setup, limits, &shared)),
            name: name.into(),
            current: watch::Sender::new(Arc::new(setup)),
            capacity: Mutex::new(capacity),
            counters: Counters::default(),
            shared,
            phase: watch::Sender::new(Phase::Running),
            named: watch::Sender::new(Arc::default()),
            roster: Arc::default(),
            uses: Mutex::default(),
            went: Mutex::default(),
            failure: Mutex::default(),
            handshakes: AtomicUsize::new(0),
            let_go: Mutex::default(),
        })
    }

    /// The open sessions by number, those whose target is still being reached among them.
    pub fn sessions(&self) -> Vec<(u64, Arc<Info>)> {
        self.roster.all()
    }

    /// How many of them there are.
    pub fn count(&self) -> usize {
        self.roster.count()
    }

    /// Ends the session of that number; how many that are.
    pub fn kick(&self, number: u64) -> usize {
        self.roster.kick(|other, _| other == number)
    }

    /// Ends the sessions of an identity, by its own name or one on the wire; how many that are.
    pub fn kick_identity(&self, name: &str) -> usize {
        self.roster.kick(|_, info| info.who.plain() == name || info.wire.plain() == name)
    }

    /// How many sessions it may have at once.
    pub fn most_sessions(&self) -> usize {
        self.capacity().seats.limit()
    }

    /// How many handshakes are under way.
    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// Counts a handshake for as long as what is returned lives.
    pub(super) fn handshaking(self: &Arc<Self>) -> Handshaking {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        Handshaking(self.clone())
    }

    /// Notes that a backend that bears one connection has none any more.
    pub(super) fn let_go(&self) {
        *self.let_go.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Waits until such a backend has had [`SETTLE`] to get over its last connection.
    pub(super) async fn settled(&self) {
        let last = *self.let_go.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last {
            sleep_until(last + SETTLE).await;
        }
    }

    /// Where an identity's last session went.
    pub(super) fn went_to(&self, wire: &Identity) -> Option<Box<str>> {
        self.went.lock().unwrap_or_else(PoisonError::into_inner).get(wire).cloned()
    }

    /// Notes where an identity's session goes, for those that are resumed.
    pub(super) fn goes_to(&self, wire: &Identity, address: &str) {
        // One that was taken away meanwhile would stay here for good.
        if self.setup().secrets.find(wire.as_bytes()).is_some() {
            let mut went = self.went.lock().unwrap_or_else(PoisonError::into_inner);
            went.insert(wire.clone(), address.into());
        }
    }

    /// Notes that a key was proven.
    pub(super) fn used(&self, wire: &Identity) {
        // One that was taken away during its handshake would stay here for good.
        if self.setup().secrets.find(wire.as_bytes()).is_none() {
            return;
        }
        let last = jiff::Timestamp::now();
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = uses.entry(wire.clone()).or_insert(Use { last, count: 0 });
        *entry = Use { last, count: entry.count + 1 };
    }

    /// What the keys were used for, by the name on the wire.
    pub fn uses(&self) -> HashMap<Identity, Use> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes why who connected saw nothing but a reset: a target that does not answer, and at a client end
    /// whatever became of TLS.
    pub(super) fn failed(&self, words: String) {
        let failure = Failure { time: jiff::Timestamp::now(), words };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    /// The last of those.
    pub fn last_failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks again who may be here, because time alone may have changed that.
    pub fn reconsider(&self) {
        if self.setup().policies.expires {
            self.current.send_modify(|_| {});
        }
    }

    /// What its next session takes a part of.
    pub(super) fn capacity(&self) -> Capacity {
        self.capacity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The limits that hold for a newcomer now, and the seats that it can have one of.
    pub(super) fn shares(&self, setup: &Setup, wire: &Identity) -> (Shares, Arc<Seats>) {
        let Capacity { seats, own, .. } = self.capacity();
        let competitors = match (setup.mode(), own) {
            (Mode::Client, _) => 0,
            (Mode::Server, Some(_)) => setup.competitors,
            (Mode::Server, None) => self.shared.competitors.load(Ordering::Relaxed),
        };
        let fair = FairShare::new(seats.limit(), competitors);
        (setup.policies.shares(wire, own, fair, seats.taken()), seats)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a line of this service, or of one of its sessions, is about.
    pub fn scope(&self, session: Option<u64>) -> Scope<'_> {
        let (level, id) = {
            let setup = self.current.borrow();
            (setup.level, setup.log_id)
        };
        Scope { service: Some(&self.name), session, level, id }
    }

    /// The Setup that a new session takes.
    pub fn setup(&self) -> Arc<Setup> {
        self.current.borrow().clone()
    }

    /// Puts a new Setup and new limits in place: new sessions take them, and open ones whose Grant
    /// the new keys do not have end.
    pub fn replace(&self, setup: Setup, limits: Limits) {
        let mut capacity = self.capacity.lock().unwrap_or_else(PoisonError::into_inner);
        capacity.follow(limits, &self.shared.capacity, &self.shared.admission);
        drop(capacity);
        self.put(setup, limits);
    }

    /// Puts other keys in place and nothing else: open sessions whose Grant they do not have end. Whether
    /// there was a change.
    pub fn renew(&self, setup: Setup) -> bool {
        let is_changed = setup.secrets.since(&self.setup().secrets).is_some();
        if is_changed {
            let limits = Limits { sessions: self.capacity().own, handshakes: None };
            self.put(setup, limits);
        }
        is_changed
    }

    fn put(&self, setup: Setup, limits: Limits) {
        *self.competitors.lock().unwrap_or_else(PoisonError::into_inner) =
            Competitors::of(&setup, limits, &self.shared);
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.retain(|wire, _| setup.secrets.find(wire.as_bytes()).is_some());
        drop(uses);
        let mut went = self.went.lock().unwrap_or_else(PoisonError::into_inner);
        went.retain(|wire, _| setup.secrets.find(wire.as_bytes()).is_some());
        drop(went);
        let changes = setup.secrets.since(&self.setup().secrets);
        self.current.send_replace(Arc::new(setup));
        if let Some(changes) = changes {
            Event::KeysChanged { changes: &changes }.log(self.scope(None));
        }
    }

    /// Tells which services clients can ask for here, in the order in which they are asked.
    pub fn introduce(&self, named: Vec<Arc<Service>>) {
        self.named.send_replace(Arc::new(NameTable::of(named)));
    }

    /// The services that a client at that address can ask for by a name; none if there are none.
    pub(super) fn names_for(&self, ip: Option<IpAddr>) -> Option<Arc<NameLookup>> {
        let table = self.named.borrow().clone();
        (!table.is_empty()).then(|| NameLookup::new(table, ip))
    }

    /// Waits for room for a connection that is there.
    pub(super) async fn arrive(&self, origin: Origin, socket: &Socket) -> Visitor {
        let round_trip = socket.as_tcp().and_then(crate::sys::socket::round_trip);
        self.shared.admission.arrive(origin, round_trip).await
    }

    /// Serves one connection that is there already. Says whether it went well.
    pub async fn serve(self: Arc<Self>, socket: Socket, peer: Peer) -> bool {
        let number = self.next_number();
        self.attend(number, socket, peer).await
    }

    /// The number of the next session.
    pub(super) fn next_number(&self) -> u64 {
        self.shared.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The same under a number that was taken before.
    pub(super) async fn attend(self: Arc<Self>, number: u64, socket: Socket, peer: Peer) -> bool {
        Session::new(self, number, peer, Instant::now()).run(socket).await
    }

    /// What keeps the memory that many sessions leave behind from staying with the process.
    #[cfg(unix)]
    pub(super) fn crowd(&self) -> &Arc<Crowd> {
        &self.shared.crowd
    }

    /// Logs a program's start and its end, which may come after the session's.
    #[cfg(unix)]
    pub(super) fn watch(self: &Arc<Self>, number: u64, child: net::Child) {
        let (service, pid) = (self.clone(), child.pid);
        Event::ChildStarted { pid }.log(service.scope(Some(number)));
        tokio::spawn(async move {
            let end = child.ended().await;
            Event::ChildEnded { pid, end: &end }.log(service.scope(Some(number)));
        });
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Moves the service on in its life.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Returns when a session must go because the current Setup no longer admits what an earlier one
    /// did. Tests the present one first, so that nothing is missed between handshake and now.
    pub(super) async fn revoked(&self, grant: &Grant, ip: Option<IpAddr>) {
        self.lost(|setup| setup.admits(grant, ip)).await;
    }

    /// The same of a session that came in here and belongs to a service that was asked for: this
    /// one's addresses bind it as well.
    pub(super) async fn shut_to(&self, ip: Option<IpAddr>) {
        self.lost(|setup| setup.policies.accepts(ip)).await;
    }

    async fn lost(&self, has: impl Fn(&Setup) -> bool) {
        let mut setups = self.current.subscribe();
        let mut since = None;
        loop {
            let policy = {
                let setup = setups.borrow_and_update();
                (!has(&setup)).then_some(setup.policies.on_revocation)
            };
            // The next configuration may think otherwise of all of this.
            let end = match policy {
                None => {
                    since = None;
                    None
                }
                Some(OnRevocation::Cut) => return,
                Some(OnRevocation::Keep) => None,
                Some(OnRevocation::Grace(grace)) => {
                    since.get_or_insert_with(Instant::now).checked_add(grace)
                }
            };
            let changed = async {
                if setups.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            match end {
                None => changed.await,
                // Boxed: every session waits here, and hardly one comes to this.
                Some(end) => {
                    let over = Box::pin(async move {
                        tokio::select! {
                            () = sleep_until(end) => true,
                            () = changed => false,
                        }
                    });
                    if over.await {
                        return;
                    }
                }
            }
        }
    }

    /// Sets what an accepted socket needs.
    pub(super) fn prepare(&self, setup: &Setup, socket: &Socket, number: u64) -> io::Result<()> {
        // Nobody may take half an answer for a whole one: should this process be killed, the kernel
        // resets the plain side of a client end. The orderly close takes it back.
        if matches!(setup.role, Role::Client { .. }) {
            socket.reset_on_close(true);
        }
        if let Some(stream) = socket.as_tcp() {
            let socket = socket2::SockRef::from(stream);
            socket.set_tcp_nodelay(true)?;
            if let Some(keepalive) = &setup.keepalive {
                net::keepalive(stream, keepalive)?;
            }
            for option in &setup.downstream {
                // The connection goes on without, as with stunnel.
                if let Err(error) = net::apply(&socket, option) {
                    let text = net::not_set(option, &error);
                    let event = Event::Finding { level: Level::Warning, text: &text };
                    self.shared.limiter.log(&event, self.scope(Some(number)));
                }
            }
        }
        Ok(())
    }

    /// Accepts until the phase says otherwise, or until `stop` is told or dropped; no error ends it.
    /// The listener is given back, so that another service can go on with it. Every session holds a
    /// clone of `alive`: when all are gone, nothing runs any more.
    pub async fn listen(
        self: Arc<Self>,
        listener: Acceptable,
        mut stop: oneshot::Receiver<()>,
        alive: mpsc::Sender<()>,
    ) -> Acceptable {
        let mut phase = self.phase();
        let mut trouble = Trouble::default();
        let mut stopped = false;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = trouble.over() => {
                    let failures = trouble.end();
                    Event::AcceptRecovered { failures }.log(self.scope(None));
                    continue;
                }
                _ = phase.wait_for(|phase| *phase != Phase::Running) => return listener,
                _ = &mut stop => return listener,
            };
            match accepted {
                Ok((socket, peer)) => {
                    let mut session =
                        Session::new(self.clone(), self.next_number(), peer, Instant::now());
                    // Where there is none yet, accepting pauses; or else the session waits by itself.
                    tokio::select! {
                        biased;
                        () = session.find_room(&socket) => {}
                        _ = phase.wait_for(|phase| *phase != Phase::Running) => {}
                        _ = &mut stop => stopped = true,
                    }
                    let there = (alive.clone(), self.shared.crowd.enter());
                    tokio::spawn(async move {
                        let _ = session.run(socket).await;
                        drop(there);
                    });
                    if stopped {
                        return listener;
                    }
                }
                Err(error) if is_the_peers(&error) => self.counters.refused("aborted"),
                Err(error) => {
                    if trouble.count() {
                        Event::AcceptTrouble { error: &error }.log(self.scope(None));
                    }
                    self.shared.admission.shed();
                    tokio::select! {
                        () = sleep(PAUSE) => {}
                        _ = phase.wait_for(|phase| *phase != Phase::Running) => return listener,
                        _ = &mut stop => return listener,
                    }
                }
            }
        }
    }
}

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Handshaking(Arc<Service>);

impl Drop for Handshaking {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A lack of descriptors, from its first failed accept until there was none for a while: strangers
/// who hold all of them let one go now and then, and that is no recovery.
#[derive(Debug, Default)]
struct Trouble {
    failures: u64,
    last: Option<Instant>,
}

impl Trouble {
    /// Counts a failure; true of the first.
    fn count(&mut self) -> bool {
        self.failures += 1;
        self.last.replace(Instant::now()).is_none()
    }

    /// Returns when there was no failure for a while, if there was one before.
    async fn over(&self) {
        match self.last {
            Some(last) => sleep_until(last + CALM).await,
            None => std::future::pending().await,
        }
    }

    fn end(&mut self) -> u64 {
        self.last = None;
        std::mem::take(&mut self.failures)
    }
}

/// Errors that accept(2) passes on from the connection that was waiting.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}
