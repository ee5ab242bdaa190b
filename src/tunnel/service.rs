//! The running service: its listeners, its current snapshot, and the sessions it owns.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

mod sni;
pub(super) use sni::RequestedService;
use sni::{NameLookup, NameTable};

use super::access_policy::SessionLimits;
use super::admission::{ConnectionOrigin, PendingConnection, SessionSlots};
use super::fair_share::FairShare;
#[cfg(unix)]
use super::memory_trimmer::MemoryTrimmer;
use super::recent_refusals::{RecentRefusal, RecentRefusals};
use super::registry::{SessionInfo, SessionRegistry};
use super::resources::{Capacity, Competitors, ProcessResources, ServiceLimits};
use super::snapshot::{ServiceSnapshot, TlsRole};
use crate::config::model::{Level, Mode, OnRevocation};
use crate::net::{self, Peer, Socket};
use crate::observe::event::{Event, LogContext};
use crate::observe::metrics::Counters;
use crate::secrets::{Grant, Identity};

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecyclePhase {
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
    name: Mutex<&'static str>,
    current: watch::Sender<Arc<ServiceSnapshot>>,
    capacity: Mutex<Capacity>,
    competitors: Mutex<Competitors>,
    /// What it has seen so far.
    pub counters: Counters,
    pub(super) resources: Arc<ProcessResources>,
    phase: watch::Sender<LifecyclePhase>,
    /// The services that clients reach by sending a name here.
    sni_services: watch::Sender<Arc<NameTable>>,
    pub(super) registry: Arc<SessionRegistry>,
    /// By the name on the wire. Only who has proven a key is here: never more than there are keys.
    uses: Mutex<HashMap<Identity, IdentityUsage>>,
    /// Where the last session of each identity went, for those that are resumed.
    last_upstreams: Mutex<HashMap<Identity, Box<str>>>,
    last_failure: Mutex<Option<RecentFailure>>,
    recent_refusals: RecentRefusals,
    handshakes: AtomicUsize,
    /// When a session last let go of a backend that bears one connection.
    backend_released: Mutex<Option<Instant>>,
}

/// What an identity's key was used for.
#[derive(Debug, Clone, Copy)]
pub struct IdentityUsage {
    /// When it was proven last.
    pub last: jiff::Timestamp,
    /// How often it was since the start.
    pub count: u64,
}

/// Something that went wrong at a client end.
#[derive(Debug, Clone)]
pub struct RecentFailure {
    /// When.
    pub time: jiff::Timestamp,
    /// In words.
    pub words: String,
}

/// Log lines borrow a service's name, which may change under them: each name that an operator ever gave
/// a service is kept, once, as long as the process. No peer, key or identity adds one: only a reload of a
/// configuration with a section of a name that was never there, at the length of that name. One such
/// reload an hour is less than 1 MB a year.
fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    kept
}

impl Service {
    /// A service that does not listen yet.
    pub fn new(
        name: &str,
        snapshot: ServiceSnapshot,
        limits: ServiceLimits,
        resources: Arc<ProcessResources>,
    ) -> Arc<Self> {
        let capacity = resources.capacity_for(limits);
        Arc::new(Self {
            competitors: Mutex::new(Competitors::of(&snapshot, limits, &resources)),
            name: Mutex::new(intern(name)),
            current: watch::Sender::new(Arc::new(snapshot)),
            capacity: Mutex::new(capacity),
            counters: Counters::default(),
            resources,
            phase: watch::Sender::new(LifecyclePhase::Running),
            sni_services: watch::Sender::new(Arc::default()),
            registry: Arc::default(),
            uses: Mutex::default(),
            last_upstreams: Mutex::default(),
            last_failure: Mutex::default(),
            recent_refusals: RecentRefusals::default(),
            handshakes: AtomicUsize::new(0),
            backend_released: Mutex::default(),
        })
    }

    /// The open sessions by number, those whose target is still being reached among them.
    pub fn sessions(&self) -> Vec<(u64, Arc<SessionInfo>)> {
        self.registry.all()
    }

    /// How many of them there are.
    pub fn count(&self) -> usize {
        self.registry.count()
    }

    /// Ends the session of that number; how many that are.
    pub fn kick(&self, number: u64) -> usize {
        self.registry.kick(|other, _| other == number)
    }

    /// Ends the sessions of an identity, by its own name or one on the wire; how many that are.
    pub fn kick_identity(&self, name: &str) -> usize {
        self.registry
            .kick(|_, info| info.who.to_plain_text() == name || info.wire.to_plain_text() == name)
    }

    /// How many sessions it may have at once.
    pub fn session_limit(&self) -> usize {
        self.capacity().slots.limit()
    }

    /// How many handshakes are under way.
    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// Counts a handshake for as long as what is returned lives.
    pub(super) fn count_handshake(self: &Arc<Self>) -> HandshakeGuard {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        HandshakeGuard(self.clone())
    }

    /// Notes that a backend that bears one connection has none any more.
    pub(super) fn release_backend(&self) {
        *self.backend_released.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Instant::now());
    }

    /// Waits until such a backend has had this pause since its last connection. The eRPC runtime takes a moment
    /// after its FIN to forget the connection, and a new one that comes within it is forgotten in its place,
    /// which ends the runtime's loop for good. Of 1,000 connections in a row on a busy machine 21 were lost without a tunnel; of
    /// those by ERPCS without this pause 3 in 4,000 after an end in order and 1 in 3,000 after another one, and with it none
    /// in 2,000. So the pause does not depend on how the session ended.
    pub(super) async fn wait_until_backend_idle(&self, pause: Duration) {
        let last = *self.backend_released.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last {
            sleep_until(last + pause).await;
        }
    }

    /// Where an identity's last session went.
    pub(super) fn last_upstream(&self, wire: &Identity) -> Option<Box<str>> {
        self.last_upstreams.lock().unwrap_or_else(PoisonError::into_inner).get(wire).cloned()
    }

    /// Notes where an identity's session goes, for those that are resumed.
    pub(super) fn remember_upstream(&self, wire: &Identity, address: &str) {
        // One that was taken away meanwhile would stay here for good.
        if self.snapshot().secrets.find(wire.as_bytes()).is_some() {
            let mut last_upstreams =
                self.last_upstreams.lock().unwrap_or_else(PoisonError::into_inner);
            last_upstreams.insert(wire.clone(), address.into());
        }
    }

    /// Notes that a key was proven.
    pub(super) fn record_key_use(&self, wire: &Identity) {
        // One that was taken away during its handshake would stay here for good.
        if self.snapshot().secrets.find(wire.as_bytes()).is_none() {
            return;
        }
        let last = jiff::Timestamp::now();
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = uses.entry(wire.clone()).or_insert(IdentityUsage { last, count: 0 });
        *entry = IdentityUsage { last, count: entry.count + 1 };
    }

    /// What the keys were used for, by the name on the wire.
    pub fn uses(&self) -> HashMap<Identity, IdentityUsage> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes why who connected saw nothing but a reset: a target that does not answer, and at a client end
    /// whatever became of TLS.
    pub(super) fn record_failure(&self, words: String) {
        let last_failure = RecentFailure { time: jiff::Timestamp::now(), words };
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(last_failure);
    }

    /// The last of those.
    pub fn last_failure(&self) -> Option<RecentFailure> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a connection that becomes no session, and remembers it. `claimed` is what it called itself, in raw
    /// bytes of a stranger, of which only a name that is in the key files is kept.
    pub(super) fn record_refusal(&self, peer: &Peer, claimed: Option<&[u8]>, cause: &'static str) {
        self.counters.refused(cause);
        let snapshot = self.snapshot();
        let known = claimed.and_then(|name| snapshot.secrets.find(name));
        let identity = known.map(|(_, claim)| claim.who().clone());
        self.recent_refusals.record(peer, identity, cause);
    }

    /// The last of those, the newest first.
    pub fn recent_refusals(&self) -> Vec<RecentRefusal> {
        self.recent_refusals.read()
    }

    /// Looks again who may be here, because time alone may have changed that.
    pub fn recheck_policies(&self) {
        if self.snapshot().policies.expires {
            self.current.send_modify(|_| {});
        }
    }

    /// What its next session takes a part of.
    pub(super) fn capacity(&self) -> Capacity {
        self.capacity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The limits that hold for a candidate now, and the slots that it can have one of.
    pub(super) fn session_limits(
        &self,
        snapshot: &ServiceSnapshot,
        wire: &Identity,
    ) -> (SessionLimits, Arc<SessionSlots>) {
        let Capacity { slots, service_limit, .. } = self.capacity();
        let competitors = match (snapshot.mode(), service_limit) {
            (Mode::Client, _) => 0,
            (Mode::Server, Some(_)) => snapshot.competitors,
            (Mode::Server, None) => self.resources.competitors(),
        };
        let fair = FairShare::new(slots.limit(), competitors);
        (snapshot.policies.session_limits(wire, service_limit, fair, slots.taken()), slots)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &'static str {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it another name: its section was renamed, and its sessions go on.
    pub fn rename(&self, name: &str) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = intern(name);
    }

    /// What a line of this service, or of one of its sessions, is about.
    pub fn scope(&self, session: Option<u64>) -> LogContext<'_> {
        let (level, id) = {
            let snapshot = self.current.borrow();
            (snapshot.level, snapshot.log_id)
        };
        LogContext { service: Some(self.name()), session, level, id }
    }

    /// The snapshot that a new session takes.
    pub fn snapshot(&self) -> Arc<ServiceSnapshot> {
        self.current.borrow().clone()
    }

    /// Puts a new snapshot and new limits in place: new sessions take them, and open ones whose Grant
    /// the new keys do not have end.
    pub fn replace(&self, snapshot: ServiceSnapshot, limits: ServiceLimits) {
        let mut capacity = self.capacity.lock().unwrap_or_else(PoisonError::into_inner);
        capacity.follow(limits, &self.resources);
        drop(capacity);
        self.publish(snapshot, limits);
    }

    /// Puts other keys in place and nothing else: open sessions whose Grant they do not have end. Whether
    /// there was a change.
    pub fn renew(&self, snapshot: ServiceSnapshot) -> bool {
        let current = self.snapshot();
        let is_changed = snapshot.secrets.changes_since(&current.secrets).is_some();
        if is_changed || !snapshot.key_warnings().eq(current.key_warnings()) {
            let limits =
                ServiceLimits { sessions: self.capacity().service_limit, handshakes: None };
            self.publish(snapshot, limits);
        }
        is_changed
    }

    fn publish(&self, snapshot: ServiceSnapshot, limits: ServiceLimits) {
        *self.competitors.lock().unwrap_or_else(PoisonError::into_inner) =
            Competitors::of(&snapshot, limits, &self.resources);
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.retain(|wire, _| snapshot.secrets.find(wire.as_bytes()).is_some());
        drop(uses);
        let mut last_upstreams = self.last_upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        last_upstreams.retain(|wire, _| snapshot.secrets.find(wire.as_bytes()).is_some());
        drop(last_upstreams);
        let changes = snapshot.secrets.changes_since(&self.snapshot().secrets);
        self.current.send_replace(Arc::new(snapshot));
        if let Some(changes) = changes {
            Event::KeysChanged { changes: &changes }.log(self.scope(None));
        }
    }

    /// Tells which services clients can ask for here, in the order in which they are asked.
    pub fn set_sni_services(&self, sni_services: Vec<Arc<Service>>) {
        self.sni_services.send_replace(Arc::new(NameTable::of(sni_services)));
    }

    /// The services that a client at that address can ask for by a name; none if there are none.
    pub(super) fn sni_lookup(&self, ip: Option<IpAddr>) -> Option<Arc<NameLookup>> {
        let table = self.sni_services.borrow().clone();
        (!table.is_empty()).then(|| NameLookup::new(table, ip))
    }

    /// Waits for room for a connection that is there.
    pub(super) async fn arrive(
        &self,
        origin: ConnectionOrigin,
        socket: &Socket,
    ) -> PendingConnection {
        let round_trip = socket.as_tcp().and_then(crate::sys::socket::round_trip_time);
        self.resources.admission.arrive(origin, round_trip).await
    }

    /// The number of the next session.
    pub(super) fn next_number(&self) -> u64 {
        self.resources.next_number()
    }

    /// What keeps the memory that many sessions leave behind from staying with the process.
    #[cfg(unix)]
    pub(super) fn memory_trimmer(&self) -> &Arc<MemoryTrimmer> {
        &self.resources.memory_trimmer
    }

    /// Logs a program's start and its end, which may come after the session's.
    #[cfg(unix)]
    pub(super) fn log_child(self: &Arc<Self>, number: u64, child: net::ChildProcess) {
        let (service, pid) = (self.clone(), child.pid);
        Event::ChildStarted { pid }.log(service.scope(Some(number)));
        tokio::spawn(async move {
            let end = child.ended().await;
            Event::ChildEnded { pid, end: &end }.log(service.scope(Some(number)));
        });
    }

    pub(super) fn phase(&self) -> watch::Receiver<LifecyclePhase> {
        self.phase.subscribe()
    }

    /// Moves the service on in its life.
    pub fn set_phase(&self, phase: LifecyclePhase) {
        self.phase.send_replace(phase);
    }

    /// Returns when a session must go because the current snapshot no longer admits what an earlier one
    /// did. Tests the present one first, so that nothing is missed between handshake and now.
    pub(super) async fn wait_until_revoked(&self, grant: &Grant, ip: Option<IpAddr>) {
        self.wait_until_refused(|snapshot| snapshot.admits(grant, ip)).await;
    }

    /// The same of a session that came in here and belongs to a service that was asked for: this
    /// one's addresses bind it as well.
    pub(super) async fn wait_until_access_revoked(&self, ip: Option<IpAddr>) {
        self.wait_until_refused(|snapshot| snapshot.policies.accepts(ip)).await;
    }

    async fn wait_until_refused(&self, has: impl Fn(&ServiceSnapshot) -> bool) {
        let mut snapshots = self.current.subscribe();
        let mut since = None;
        loop {
            let policy = {
                let snapshot = snapshots.borrow_and_update();
                (!has(&snapshot)).then_some(snapshot.policies.on_revocation)
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
                if snapshots.changed().await.is_err() {
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
    pub(super) fn prepare(
        &self,
        snapshot: &ServiceSnapshot,
        socket: &Socket,
        number: u64,
    ) -> io::Result<()> {
        // Nobody may take half an answer for a whole one: should this process be killed, the kernel
        // resets the plain side of a client end. The orderly close takes it back.
        if matches!(snapshot.role, TlsRole::Client { .. }) {
            socket.reset_on_close(true);
        }
        if let Some(stream) = socket.as_tcp() {
            let socket = socket2::SockRef::from(stream);
            socket.set_tcp_nodelay(true)?;
            if let Some(keepalive) = &snapshot.keepalive {
                net::keepalive(stream, keepalive)?;
            }
            for option in &snapshot.downstream {
                // The connection goes on without, as with stunnel.
                if let Err(error) = net::apply(&socket, option) {
                    let text = net::not_set(option, &error);
                    let event = Event::Finding { level: Level::Warning, text: &text, code: None };
                    self.resources.peer_log.log(&event, self.scope(Some(number)));
                }
            }
        }
        Ok(())
    }
}

/// A handshake under way.
#[derive(Debug)]
pub(super) struct HandshakeGuard(Arc<Service>);

impl Drop for HandshakeGuard {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}
