//! The running service: its listeners, its current Setup, and the sessions it owns.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

mod sni;
pub(super) use sni::NamedService;
use sni::{NameLookup, NameTable};

use super::admission::{Origin, Seats, Visitor};
#[cfg(unix)]
use super::crowd::Crowd;
use super::fair_share::FairShare;
use super::policy::Shares;
use super::resources::{Capacity, Competitors, Limits, Shared};
use super::roster::{Info, Roster};
use super::setup::{Role, Setup};
use crate::config::model::{Level, Mode, OnRevocation};
use crate::net::{self, Socket};
use crate::observe::event::{Event, Scope};
use crate::observe::metrics::Counters;
use crate::secrets::{Grant, Identity};

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

impl Service {
    /// A service that does not listen yet.
    pub fn new(name: &str, setup: Setup, limits: Limits, shared: Arc<Shared>) -> Arc<Self> {
        let capacity = shared.capacity_for(limits);
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
            (Mode::Server, None) => self.shared.competitors(),
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
        capacity.follow(limits, &self.shared);
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

    /// The number of the next session.
    pub(super) fn next_number(&self) -> u64 {
        self.shared.next_number()
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
}

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Handshaking(Arc<Service>);

impl Drop for Handshaking {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}
