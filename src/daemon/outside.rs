//! The windows through which a running program is seen: bound with everything else, before rights are
//! dropped, and replaced by a reload as services' listeners are.

use std::io;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{BindError, Request};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::model::{Config, Decided, Endpoint, Listen};
use crate::net::{self, Acceptable, Listener};

/// What a configuration wants to be seen through.
#[derive(Debug)]
pub(super) struct Outside {
    places: Vec<(Place, Decided<Endpoint>)>,
}

/// One window; the same after a reload if it is equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Metrics, health and the status page.
    Http {
        /// Where.
        at: Endpoint,
        /// How many identities get a label of their own.
        labels: usize,
    },
}

/// Windows whose addresses are taken.
#[derive(Debug)]
pub(super) struct Bound {
    /// All that are wanted, those that are there already among them.
    wanted: Vec<Place>,
    fresh: Vec<(Place, Listener)>,
}

/// Windows at work; they close when this is dropped.
#[derive(Debug)]
pub(super) struct Windows {
    waiting: Vec<(Place, Acceptable)>,
    open: Vec<(Place, Task)>,
    requests: Option<mpsc::Sender<Request>>,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Outside {
    pub(super) fn of(config: &Config) -> Self {
        let labels = config.http.labels.value as usize;
        let http =
            |at: &Decided<Endpoint>| (Place::Http { at: at.value.clone(), labels }, at.clone());
        Self { places: config.http.listen.iter().map(http).collect() }
    }

    /// Takes every address that is not held already.
    pub(super) fn bind(self, held: &[Place], errors: &mut Vec<BindError>) -> Bound {
        let mut fresh = Vec::new();
        for (place, at) in self.places.iter().filter(|(place, _)| !held.contains(place)) {
            let listen = Listen { at: at.clone(), optional: false };
            match net::bind(&listen, &[], &[]) {
                Ok(listeners) => fresh.extend(listeners.into_iter().map(|l| (place.clone(), l))),
                Err(error) => errors.push(cannot_bind(at, &error)),
            }
        }
        Bound { wanted: self.places.into_iter().map(|(place, _)| place).collect(), fresh }
    }
}

fn cannot_bind(at: &Decided<Endpoint>, error: &io::Error) -> BindError {
    let diagnostic = Diagnostic {
        severity: Severity::Error,
        code: "cannot-listen",
        place: at.place().cloned(),
        message: format!("[http] cannot listen on {error}"),
        label: None,
        help: Some("another program has it, or this user may not: write another address".into()),
    };
    BindError { diagnostic, kind: error.kind(), service: "http".into() }
}

impl Bound {
    /// Hands the listeners to the current runtime.
    pub(super) fn open(self) -> io::Result<Windows> {
        let mut windows = Windows { waiting: Vec::new(), open: Vec::new(), requests: None };
        windows.replace(self)?;
        Ok(windows)
    }
}

impl Windows {
    /// Where they are.
    pub(super) fn held(&self) -> Vec<Place> {
        let waiting = self.waiting.iter().map(|(place, _)| place);
        self.open.iter().map(|(place, _)| place).chain(waiting).cloned().collect()
    }

    /// Begins to answer.
    pub(super) fn show(&mut self, requests: &mpsc::Sender<Request>) {
        for (place, listener) in self.waiting.drain(..) {
            let task = match &place {
                Place::Http { labels, .. } => {
                    tokio::spawn(super::http::serve(listener, requests.clone(), *labels))
                }
            };
            self.open.push((place, Task(task)));
        }
        self.requests = Some(requests.clone());
    }

    /// Opens the new ones and closes those that nobody wants any more. Nothing changes on failure.
    pub(super) fn replace(&mut self, bound: Bound) -> io::Result<()> {
        let mut fresh = Vec::new();
        for (place, listener) in bound.fresh {
            fresh.push((place, listener.into_async()?));
        }
        self.open.retain(|(place, _)| bound.wanted.contains(place));
        self.waiting.retain(|(place, _)| bound.wanted.contains(place));
        self.waiting.extend(fresh);
        if let Some(requests) = self.requests.clone() {
            self.show(&requests);
        }
        Ok(())
    }
}
