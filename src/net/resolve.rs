//! Names looked up, so that one that is never answered keeps no other one waiting.
//!
//! getaddrinfo cannot be aborted: a look-up may hold its thread for minutes after everybody has stopped waiting
//! for it. So each look-up has a small thread of its own, which ends with it, and the threads are counted. Names
//! that peers ask for have a number of threads of their own, and each identity a small part of those. Names of
//! the configuration have others, with at most one look-up of each name at a time; their last good answer serves
//! while a look-up takes long, or if it fails because nobody answers (RFC 8767).

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::config::model::{Host, Level};
use crate::observe::event::{Event, LogContext};
use crate::secrets::Identity;
use crate::sys::resolver::{self, NameError};

#[cfg(test)]
mod tests;

/// Look-ups at a time of names that peers ask for.
const MAX_ASKED: usize = 16;
/// Of those, look-ups at a time for one identity.
const MAX_ASKED_PER_IDENTITY: usize = 2;
/// Look-ups at a time of names of the configuration, each of another name.
const MAX_CONFIGURED: usize = 64;
/// How long a look-up may take before the last good answer is used in its place (RFC 8767, 5: 1.8 s). Longer than
/// a name server takes that is there; short beside the 5 s after which the system's resolver asks again.
const FRESH_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How long after it came the last good answer may be used (RFC 8767, 5: one to three days).
const MAX_STALE_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// A thread's stack. Only what is used of it takes memory: glibc's resolver needs about 20 kB, and the modules
/// of nsswitch.conf some more.
const STACK_SIZE: usize = 256 * 1024;

type LookUp = dyn Fn(&str) -> Result<Vec<SocketAddr>, NameError> + Send + Sync;
/// What a look-up came to: addresses, or whether the name is unknown, and the system's words.
type LookUpResult = Result<Arc<[SocketAddr]>, (bool, Arc<str>)>;
/// A good answer and its age.
type AgedAnswer = (Arc<[SocketAddr]>, Duration);

/// Who wants to have a name looked up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asker<'a> {
    /// The configuration names it.
    Configuration,
    /// A peer with this identity does.
    Peer(Option<&'a Identity>),
}

/// The addresses of a host, in the order in which they should be tried, with this port.
///
/// # Errors
/// The system's, and none within `limit`.
pub(super) async fn addresses(
    host: &Host,
    port: u16,
    limit: Duration,
    asker: Asker<'_>,
    scope: LogContext<'_>,
) -> io::Result<Vec<SocketAddr>> {
    let name = match host {
        // As getaddrinfo answers for no host: ::1 first.
        Host::Unspecified => {
            return Ok(vec![
                (Ipv6Addr::LOCALHOST, port).into(),
                (Ipv4Addr::LOCALHOST, port).into(),
            ]);
        }
        Host::Ip(ip) => return Ok(vec![(*ip, port).into()]),
        Host::Name(name) => name,
    };
    let resolver = Resolver::of_process();
    let found = match asker {
        Asker::Configuration => resolver.configured(name, limit, scope).await?,
        Asker::Peer(who) => resolver.asked(name, who, limit).await?,
    };
    let with_port = |address: &SocketAddr| {
        let mut address = *address;
        address.set_port(port);
        address
    };
    Ok(found.iter().map(with_port).collect())
}

/// The look-ups of the process.
#[derive(Clone)]
struct Resolver {
    look_up: Arc<LookUp>,
    names: Arc<Mutex<HashMap<Box<str>, ConfiguredName>>>,
    configured: Arc<Semaphore>,
    asked: Arc<Semaphore>,
    /// Who has look-ups under way, or waits for one.
    identities: Arc<Mutex<HashMap<Identity, Arc<Semaphore>>>>,
}

/// A name of the configuration.
#[derive(Debug, Default)]
struct ConfiguredName {
    last_good: Option<(Arc<[SocketAddr]>, Instant)>,
    /// The last look-up.
    look_up: Option<LookUpState>,
    /// Whether the log has been told that the last good answer is used.
    is_told: bool,
}

/// A look-up of a name of the configuration, for everybody who asks for the name meanwhile.
#[derive(Debug, Clone)]
struct LookUpState {
    /// Where its answer will be; it is under way as long as the sender lives.
    answer: watch::Receiver<Option<LookUpResult>>,
    began: Instant,
}

impl LookUpState {
    fn is_under_way(&self) -> bool {
        self.answer.has_changed().is_ok()
    }
}

impl ConfiguredName {
    fn is_under_way(&self) -> bool {
        self.look_up.as_ref().is_some_and(LookUpState::is_under_way)
    }

    /// The last good answer and its age, unless it is too old.
    fn last_good(&self) -> Option<AgedAnswer> {
        let (addresses, since) = self.last_good.as_ref()?;
        let age = since.elapsed();
        (age < MAX_STALE_AGE).then(|| (addresses.clone(), age))
    }

    /// Notes what a look-up came to.
    fn note(&mut self, answer: &LookUpResult) {
        match answer {
            Ok(addresses) => {
                self.last_good = Some((addresses.clone(), Instant::now()));
                self.is_told = false;
            }
            // That the name does not exist is an answer, too.
            Err((true, _)) => self.last_good = None,
            Err((false, _)) => {}
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_answer(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))
}

impl Resolver {
    /// The process's: its threads and what it has learned survive every reload.
    fn of_process() -> &'static Self {
        static RESOLVER: LazyLock<Resolver> =
            LazyLock::new(|| Resolver::new(MAX_CONFIGURED, resolver::look_up));
        &RESOLVER
    }

    fn new(
        max_configured: usize,
        look_up: impl Fn(&str) -> Result<Vec<SocketAddr>, NameError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            look_up: Arc::new(look_up),
            names: Arc::default(),
            configured: Arc::new(Semaphore::new(max_configured)),
            asked: Arc::new(Semaphore::new(MAX_ASKED)),
            identities: Arc::default(),
        }
    }

    /// Looks up a name that a peer asks for, on behalf of this identity.
    async fn asked(
        &self,
        name: &str,
        who: Option<&Identity>,
        limit: Duration,
    ) -> io::Result<Arc<[SocketAddr]>> {
        let share = self.share_of(who);
        let attempt = async {
            // Those of one identity wait for each other before they wait with the rest.
            let own = share.acquire_owned().await.map_err(io::Error::other)?;
            let place = self.asked.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (sender, answer) = oneshot::channel();
            self.on_thread(name, move |answer| {
                drop((own, place));
                // Whoever has asked may have left.
                let _ = sender.send(answer);
            })?;
            let answer = answer.await.map_err(io::Error::other)?;
            answer.map_err(|(_, words)| io::Error::other(words.to_string()))
        };
        tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(no_answer(limit)))
    }

    fn share_of(&self, who: Option<&Identity>) -> Arc<Semaphore> {
        let mut identities = lock(&self.identities);
        // Who neither looks up nor waits holds none.
        identities.retain(|_, share| Arc::strong_count(share) > 1);
        let who = who.cloned().unwrap_or_else(|| Identity::new(b""));
        let share = || Arc::new(Semaphore::new(MAX_ASKED_PER_IDENTITY));
        identities.entry(who).or_insert_with(share).clone()
    }

    /// Looks up a name of the configuration.
    async fn configured(
        &self,
        name: &str,
        limit: Duration,
        scope: LogContext<'_>,
    ) -> io::Result<Arc<[SocketAddr]>> {
        let (LookUpState { mut answer, began }, last_good) = self.renew(name);
        let wait = match &last_good {
            Some(_) => limit.min(FRESH_ANSWER_WAIT.saturating_sub(began.elapsed())),
            None => limit,
        };
        let error = match tokio::time::timeout(wait, answer.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => match answer.as_ref() {
                Some(Ok(addresses)) => return Ok(addresses.clone()),
                Some(Err((true, words))) => return Err(io::Error::other(words.to_string())),
                Some(Err((false, words))) => io::Error::other(words.to_string()),
                None => io::ErrorKind::Other.into(),
            },
            Ok(Err(_)) => io::Error::other("the system has no thread for the look-up"),
            Err(_) => no_answer(wait),
        };
        let Some((addresses, age)) = last_good else { return Err(error) };
        let is_told = lock(&self.names)
            .get_mut(name)
            .is_none_or(|name| std::mem::replace(&mut name.is_told, true));
        if !is_told {
            let age = age.as_secs();
            let text =
                format!("cannot look up {name} ({error}): using its addresses of {age} s ago");
            Event::Finding { level: Level::Warning, text: &text, code: None }.log(scope);
        }
        Ok(addresses)
    }

    /// Begins a look-up of this name, unless one is under way. Returns that one, and the last good answer with
    /// its age.
    fn renew(&self, name: &str) -> (LookUpState, Option<AgedAnswer>) {
        let (state, last_good, sender) = {
            let mut names = lock(&self.names);
            if !names.contains_key(name) {
                // Names that a reload has removed go when their last answer is too old.
                names.retain(|_, name| name.is_under_way() || name.last_good().is_some());
            }
            let entry = names.entry(name.into()).or_default();
            let last_good = entry.last_good();
            if let Some(state) = entry.look_up.as_ref().filter(|state| state.is_under_way()) {
                return (state.clone(), last_good);
            }
            let (sender, answer) = watch::channel(None);
            let state = LookUpState { answer, began: Instant::now() };
            entry.look_up = Some(state.clone());
            (state, last_good, sender)
        };
        match self.configured.clone().try_acquire_owned() {
            Ok(place) => self.begin(name, place, sender),
            // Not in the caller's own time: others may wait for this look-up when the caller has given up.
            Err(_) => {
                let (resolver, name) = (self.clone(), name.to_owned());
                tokio::spawn(async move {
                    if let Ok(place) = resolver.configured.clone().acquire_owned().await {
                        resolver.begin(&name, place, sender);
                    }
                });
            }
        }
        (state, last_good)
    }

    /// Looks a name of the configuration up. If there is no thread for it, the sender is dropped, which the
    /// receivers see.
    fn begin(
        &self,
        name: &str,
        place: OwnedSemaphorePermit,
        sender: watch::Sender<Option<LookUpResult>>,
    ) {
        let (names, key) = (self.names.clone(), Box::<str>::from(name));
        let _ = self.on_thread(name, move |answer| {
            if let Some(name) = lock(&names).get_mut(&key) {
                name.note(&answer);
            }
            drop(place);
            sender.send_replace(Some(answer));
        });
    }

    /// Looks a name up on a thread that ends then.
    fn on_thread(
        &self,
        name: &str,
        done: impl FnOnce(LookUpResult) + Send + 'static,
    ) -> io::Result<()> {
        let (look_up, name) = (self.look_up.clone(), name.to_owned());
        let work = move || {
            done(match look_up(&name) {
                Ok(addresses) => Ok(addresses.into()),
                Err(NameError { is_unknown, error }) => Err((is_unknown, error.to_string().into())),
            });
        };
        let thread = std::thread::Builder::new().name("resolve".into()).stack_size(STACK_SIZE);
        thread.spawn(work).map(drop)
    }
}
