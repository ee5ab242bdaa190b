#![allow(clippy::unwrap_used)]

use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const LIMIT: Duration = Duration::from_millis(300);
/// For what must come: a busy machine may take its time.
const LONG: Duration = Duration::from_secs(60);

fn block<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// A name server in the hand of a test.
#[derive(Default)]
struct Server {
    /// Whether names that begin with "dead" are answered, and how: false for an unknown name.
    answers: Mutex<Option<bool>>,
    changed: Condvar,
    under_way: AtomicUsize,
    most: AtomicUsize,
    begun: AtomicUsize,
}

impl Server {
    fn answer(&self, with: Option<bool>) {
        *lock(&self.answers) = with;
        self.changed.notify_all();
    }

    fn look_up(&self, name: &str) -> Result<Vec<SocketAddr>, NameError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let mut answers = lock(&self.answers);
        while name.starts_with("dead") && answers.is_none() {
            answers = self.changed.wait(answers).unwrap();
        }
        let is_known = !name.starts_with("gone") && *answers != Some(false);
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        match (is_known, name.starts_with("ill")) {
            (_, true) => Err(NameError { is_unknown: false, error: io::Error::other("not now") }),
            (true, _) => Ok(vec!["192.0.2.1:0".parse().unwrap()]),
            (false, _) => Err(NameError { is_unknown: true, error: io::Error::other("no name") }),
        }
    }
}

/// Its look-ups end with the test.
struct Lab {
    server: Arc<Server>,
    resolver: Resolver,
}

impl Lab {
    fn new(max_configured: usize) -> Self {
        let server = Arc::new(Server::default());
        let asked = server.clone();
        let resolver = Resolver::new(max_configured, move |name| asked.look_up(name));
        Self { server, resolver }
    }

    async fn configured(&self, name: &str, limit: Duration) -> io::Result<Arc<[SocketAddr]>> {
        self.resolver.configured(name, limit, LogContext::PROGRAM).await
    }

    async fn asked(&self, name: &str, who: &str, limit: Duration) -> io::Result<Arc<[SocketAddr]>> {
        let who = Identity::new(who.as_bytes());
        self.resolver.asked(name, Some(&who), limit).await
    }

    /// Waits until so many look-ups have begun.
    async fn begun(&self, count: usize) {
        let start = Instant::now();
        while self.server.begun.load(Ordering::SeqCst) < count {
            assert!(start.elapsed() < LONG, "{count} look-ups");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.server.answer(Some(true));
    }
}

#[test]
fn a_dead_name_is_looked_up_once_at_a_time_and_keeps_no_other_waiting() {
    block(async {
        let lab = Lab::new(2);
        for _ in 0..5 {
            let error = lab.configured("dead", LIMIT).await.unwrap_err();
            assert_eq!(error.to_string(), format!("no answer within {LIMIT:?}"));
        }
        assert_eq!(lab.server.begun.load(Ordering::SeqCst), 1);
        assert_eq!(lab.configured("good", LONG).await.unwrap().len(), 1);
        // Who asked while it was under way gets its answer.
        let mut waits = std::pin::pin!(lab.configured("dead", LONG));
        tokio::select! {
            biased;
            done = &mut waits => panic!("{done:?}"),
            () = std::future::ready(()) => lab.server.answer(Some(true)),
        }
        assert_eq!(waits.await.unwrap().len(), 1);
        assert_eq!(lab.server.begun.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn names_of_peers_have_sixteen_threads_and_two_an_identity_and_none_of_the_others() {
    block(async {
        let lab = Lab::new(1);
        let mut waiting = tokio::task::JoinSet::new();
        for n in 0..50 {
            let resolver = lab.resolver.clone();
            waiting.spawn(async move {
                let who = Identity::new(b"one");
                resolver.asked(&format!("dead-{n}"), Some(&who), LONG).await
            });
        }
        lab.begun(2).await;
        assert_eq!(lab.asked("good", "other", LONG).await.unwrap().len(), 1);
        assert!(lab.asked("good", "one", LIMIT).await.is_err(), "both of its own are under way");
        assert_eq!(lab.server.begun.load(Ordering::SeqCst), 3);
        for n in 0..50 {
            let resolver = lab.resolver.clone();
            waiting.spawn(async move {
                let who = Identity::new(format!("many-{n}").as_bytes());
                resolver.asked(&format!("dead-{n}"), Some(&who), LONG).await
            });
        }
        lab.begun(17).await;
        assert!(lab.asked("good", "late", LIMIT).await.is_err(), "all sixteen are under way");
        assert_eq!(lab.server.under_way.load(Ordering::SeqCst), MAX_ASKED);
        assert_eq!(lab.configured("good", LONG).await.unwrap().len(), 1);
        lab.server.answer(Some(true));
        while let Some(done) = waiting.join_next().await {
            assert!(done.unwrap().is_ok(), "who waited gets an answer");
        }
        assert!(lab.asked("good", "one", LONG).await.is_ok());
        assert!(lab.server.most.load(Ordering::SeqCst) <= MAX_ASKED + 1);
        assert_eq!(lock(&lab.resolver.identities).len(), 1, "who asks no more is forgotten");
    });
}

#[test]
fn who_has_left_leaves_no_look_up_behind_that_had_not_begun() {
    block(async {
        let lab = Lab::new(1);
        for n in 0..2 {
            let name = format!("dead-{n}");
            tokio::select! {
                done = lab.asked(&name, "one", LONG) => panic!("{done:?}"),
                () = lab.begun(n + 1) => {}
            }
        }
        for n in 2..10 {
            assert!(lab.asked(&format!("dead-{n}"), "one", LIMIT / 10).await.is_err());
        }
        lab.server.answer(Some(true));
        assert!(lab.asked("good", "one", LONG).await.is_ok());
        assert_eq!(lab.server.begun.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn the_last_good_answer_serves_while_nobody_answers_and_no_longer_than_the_name_is_known() {
    block(async {
        let lab = Lab::new(1);
        lab.server.answer(Some(true));
        let good = lab.configured("dead", LONG).await.unwrap();
        lab.server.answer(None);
        // The first look-up's thread gives its place back behind its answer: until then nothing new begins.
        let start = Instant::now();
        while lab.server.begun.load(Ordering::SeqCst) < 2 {
            assert_eq!(lab.configured("dead", LONG).await.unwrap(), good);
            assert!(start.elapsed() < LONG, "no new look-up is under way");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..3 {
            assert_eq!(lab.configured("dead", LONG).await.unwrap(), good);
        }
        assert_eq!(lab.server.begun.load(Ordering::SeqCst), 2, "one look-up is under way");
        // Its only thread is taken; another name without an answer of old has to wait.
        assert!(lab.configured("other", LIMIT).await.is_err());
        // That the name is unknown is an answer.
        lab.server.answer(Some(false));
        let start = Instant::now();
        while lab.configured("dead", LONG).await.is_ok() {
            assert!(start.elapsed() < LONG);
        }
        lab.server.answer(None);
        assert!(lab.configured("dead", LIMIT).await.is_err(), "nothing is left of the old answer");
    });
}

#[test]
fn a_failure_that_is_no_answer_leaves_the_last_good_one() {
    let mut name = ConfiguredName::default();
    let good: Arc<[SocketAddr]> = ["192.0.2.1:0".parse().unwrap()].into();
    name.note(&Ok(good.clone()));
    name.is_told = true;
    name.note(&Err((false, "not now".into())));
    assert_eq!(name.last_good().map(|(addresses, _)| addresses), Some(good.clone()));
    assert!(name.is_told, "it goes on");
    name.note(&Ok(good));
    assert!(!name.is_told, "the next time is another one");
    name.note(&Err((true, "no name".into())));
    assert!(name.last_good().is_none());
    let Some(old) = Instant::now().checked_sub(MAX_STALE_AGE) else { return };
    name.last_good = Some((Arc::default(), old));
    assert!(name.last_good().is_none(), "it is too old");
}

#[test]
fn the_first_failure_of_a_name_is_told_as_the_system_says_it() {
    block(async {
        let lab = Lab::new(4);
        for (name, words) in [("ill", "not now"), ("gone", "no name")] {
            assert_eq!(lab.configured(name, LONG).await.unwrap_err().to_string(), words);
            assert_eq!(lab.asked(name, "one", LONG).await.unwrap_err().to_string(), words);
        }
    });
}
